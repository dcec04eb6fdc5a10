/* gmma_layout.cc - prints where CuTe (CUTLASS) puts the elements of wgmma's operands with the 128-byte swizzle, and
 * the offsets in the descriptors that it makes for them. tests/test_cuda_emu.c compares cuda/wgmma.h with what it
 * printed, testdata/gmma_layout.txt. A line is: major, row, k, byte address of eight neighbours, along k for K and
 * along the rows for MN. Built and run by gmma_layout.sh. */
#include <cstdio>
#include <cute/tensor.hpp>
#include <cute/arch/mma_sm90_desc.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>
using namespace cute;
typedef bfloat16_t T;

template <SM90::GMMA::Major major, class Layout> static void print(const char *name, Layout layout) {
    alignas(1024) static T memory[128 * 64];
    const auto tile = make_tensor(make_smem_ptr(memory), layout);
    const auto part = local_tile(tile, Shape<_128, _16>{}, make_coord(0, 0));
    const auto d = SM90::GMMA::make_gmma_desc<major>(part);
    printf("%s leading %u strided %u swizzle %u\n", name, d.bitfield.leading_byte_offset_ * 16u,
           d.bitfield.stride_byte_offset_ * 16u, (unsigned)d.bitfield.layout_type_);
    const bool k_major = major == SM90::GMMA::Major::K;
    for (int row = 0; row < 128; row += k_major ? 1 : 8)
        for (int k = 0; k < 64; k += k_major ? 8 : 1) {
            const long at = (char *)&tile(row, k) - (char *)memory;
            for (int i = 1; i < 8; i++)
                if ((char *)&(k_major ? tile(row, k + i) : tile(row + i, k)) - (char *)memory != at + 2 * i)
                    printf("not eight neighbours\n");
            printf("%s %d %d %ld\n", name, row, k, at);
        }
}
int main() {
    using namespace SM90::GMMA;
    print<Major::K>("K", tile_to_shape(Layout_K_SW128_Atom<T>{}, Shape<_128, _64>{}));
    print<Major::MN>("MN", tile_to_shape(Layout_MN_SW128_Atom<T>{}, Shape<_128, _64>{}, Step<_2, _1>{}));
}
