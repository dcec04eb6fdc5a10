/* hopper.h - what the emulator offers to cuda/tma.h and cuda/wgmma.h: mbarriers, bulk tensor copies, named barriers and
 * wgmma of sm_90a, from the PTX ISA. hopper_machine.h implements it. Reported besides what cuda_emu.h reports:
 *   - a bulk copy lands as late as it may; until then its target is poisoned, and an access is a report;
 *   - a wgmma is done when it is waited for; until then its accumulators and A registers are poisoned, and a write to
 *     shared memory that it reads is a report; registers that no wgmma.fence covered, or that changed behind it;
 *   - the async proxy reading or overwriting what an ordinary store left without fence.proxy.async behind it;
 *   - an mbarrier phase or a named barrier that never completes, with its count and its outstanding bytes.
 * In a kernel that uses an mbarrier, races are judged by who has waited for whom, not by block barriers alone. */
#ifndef CUDA_EMU_HOPPER_H
#define CUDA_EMU_HOPPER_H
#include "cuda_emu.h"

/* What cuTensorMapEncodeTiled makes, readable: BF16, no interleave, zeros outside. */
struct CUtensorMap {
    const unsigned short *base;
    uint64_t dim[5], stride[5]; // elements; bytes, stride[0] = 2
    unsigned box[5], rank;
    bool swizzle; // of 128 bytes
};

namespace emu {
bool tensor_map(CUtensorMap *map, const void *base, unsigned rank, const uint64_t *dim, const uint64_t *stride,
                const unsigned *box); // false: the driver would refuse it

void mbarrier_init(unsigned at, unsigned count);
void mbarrier_arrive(unsigned at, unsigned bytes); // and expects so many bytes
void mbarrier_wait(unsigned at, unsigned parity);
void named_barrier(int id, int threads, bool wait);
void tensor_load(unsigned to, const CUtensorMap *map, const int *at, unsigned barrier);
void proxy_fence();

struct Wgmma { // one instruction, as one lane gives it
    float *d;
    unsigned *a; // NULL: A comes from shared memory by its descriptor
    uint64_t a_at, b_at;
    int n;
    bool accumulate, a_mn, b_mn; // the operand's rows (or columns) are the contiguous ones
};
void wgmma(const Wgmma &w);
void wgmma_commit();
void wgmma_wait(int groups_left);
void wgmma_fence(const void *registers, size_t bytes);   // NULL: begins a fence; then each array that it covers
void wgmma_settled(const void *registers, size_t bytes); // reports if a wgmma still has them
/* Address in shared memory of element (row, k) of an operand, for tests that compare layouts. */
unsigned wgmma_address(uint64_t descriptor, bool mn_major, int row, int k);
} // namespace emu
#endif
