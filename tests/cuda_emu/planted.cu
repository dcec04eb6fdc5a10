/* planted.cu - kernels with one planted bug each (PLANT selects it), and their right versions (PLANT 0):
 * the emulator must report the bugs and only them. */

/* Reverses n floats through shared memory, one block. */
template <int PLANT> __global__ void reverse_kernel(float *y, const float *x, int n) {
    SHARED(float, tile, 256);
    const int i = threadIdx.x;
    if (PLANT != UNINITIALISED || i != 5)
        tile[PLANT == SHARED_OUTSIDE ? i + 200 : i] = i < n ? x[PLANT == OUT_OF_BOUNDS ? i + n : i] : 0.0f;
    if (PLANT == DIVERGENT_BARRIER && i >= 40) return;
    if (PLANT != MISSING_BARRIER) __syncthreads();
    if (i < n) y[i] = tile[n - 1 - i];
    if (PLANT == RACE) tile[i] = 0.0f; // others may still be reading it
    if (PLANT == COPY_RACE) {          // the same by a copy that only lands behind the next barrier
        if (i % 4 == 0 && i < 96) cp_async16(tile + i, x + i, true);
        cp_async_commit();
        __syncthreads();
        cp_async_wait<0>();
    }
}

/* Sum of each warp's 32 values; then every lane hands a value to its neighbour through shared memory. */
template <int PLANT> __global__ void neighbour_kernel(float *y, const float *x) {
    SHARED(float, seat, 64);
    const int i = threadIdx.x, lane = i % 32;
    float v = x[i];
    if (PLANT == DIVERGENT_SHUFFLE) {
        if (lane != 7) v = warp_sum(v);
    } else v = warp_sum(v);
    seat[i] = v + lane;
    if (PLANT != WARP_RACE) __syncwarp();
    y[i] = seat[(i & ~31) | ((lane + 1) & 31)];
}

/* y (16 x 8) = a (16 x 16) b (16 x 8) with one bf16 instruction; a comes through cp.async and ldmatrix.
 * b is given transposed (8 x 16). */
template <int PLANT> __global__ void product_kernel(float *y, const Bf16 *a, const Bf16 *b) {
    SHARED(Bf16, tile, 16 * 16);
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    cp_async16(tile + 8 * lane, a + 8 * lane, true);
    cp_async_commit();
    if (PLANT != MISSING_WAIT) cp_async_wait<0>();
    __syncthreads();
    unsigned ra[4];
    ldmatrix<4, false>(ra, tile + 16 * (lane % 16) + 8 * (lane / 16));
    if (PLANT == WRONG_FRAGMENT) {
        const unsigned z = ra[1];
        ra[1] = ra[2], ra[2] = z;
    }
    if (PLANT == MISSING_WAIT) cp_async_wait<0>();
    const Bf16 *row = b + 16 * g + 2 * t;
    float d[4] = {0, 0, 0, 0};
    mma_bf16(d, ra, bf16_pair(row[0], row[1]), bf16_pair(row[8], row[9]));
    for (int i = 0; i < 4; i++) y[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = d[i];
}

/* The same in tf32: two steps of 8; operands straight from global memory. */
template <int PLANT> __global__ void product_tf32_kernel(float *y, const float *a, const float *b) {
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    float d[4] = {0, 0, 0, 0};
    for (int k = 0; k < 16; k += 8) {
        const unsigned ra[4] = {to_tf32(a[g * 16 + k + t]), to_tf32(a[(g + 8) * 16 + k + t]),
                                to_tf32(a[g * 16 + k + t + 4]), to_tf32(a[(g + 8) * 16 + k + t + 4])};
        mma_tf32(d, ra, to_tf32(b[g * 16 + k + t]), to_tf32(b[g * 16 + k + t + 4]));
    }
    for (int i = 0; i < 4; i++) y[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = d[i];
}

/* Loads 8 x 8 tiles with every form of ldmatrix and writes what each lane got: y[form][lane][element]. */
template <int PLANT> __global__ void ldmatrix_kernel(float *y) {
    SHARED(Bf16, tile, 32 * 8);
    const int lane = threadIdx.x;
    for (int c = 0; c < 8; c++) tile[8 * lane + c] = (float)(lane + 0.125f * c);
    __syncthreads();
    unsigned r[4], s[4], u[2], w[1];
    ldmatrix<4, false>(r, tile + 8 * lane);
    ldmatrix<4, true>(s, tile + 8 * lane);
    ldmatrix<2, true>(u, tile + 8 * lane);
    ldmatrix<1, false>(w, tile + 8 * lane);
    for (int m = 0; m < 4; m++)
        for (int i = 0; i < 2; i++) {
            y[(0 * 32 + lane) * 8 + 2 * m + i] = __uint_as_float((r[m] >> 16 * i) << 16);
            y[(1 * 32 + lane) * 8 + 2 * m + i] = __uint_as_float((s[m] >> 16 * i) << 16);
            y[(2 * 32 + lane) * 8 + 2 * m + i] = m < 2 ? __uint_as_float((u[m % 2] >> 16 * i) << 16) : 0.0f;
            y[(3 * 32 + lane) * 8 + 2 * m + i] = m < 1 ? __uint_as_float((w[0] >> 16 * i) << 16) : 0.0f;
        }
}

/* Votes, shuffles of every kind, reductions, counting barrier, atomics: one number each. 96 threads. */
template <int PLANT> __global__ void vote_kernel(int *y) {
    SHARED(int, total, 1);
    const int i = threadIdx.x, lane = i % 32;
    if (i == 0) total[0] = 0;
    __syncthreads();
    atomicAdd(total + 0, i);
    atomicAdd(&y[20], 1);
    const int counted = __syncthreads_count(i % 3 == 0), any = __syncthreads_or(i == 95),
              all = __syncthreads_and(i < 95);
    const unsigned even = __ballot_sync(FULL, lane % 2 == 0);
    const int up = __shfl_up_sync(FULL, lane, 3), down = __shfl_down_sync(FULL, lane, 3),
              x = __shfl_xor_sync(FULL, lane, 5);
    const int broadcast = __shfl_sync(FULL, lane * 2, 9), inside = __shfl_sync(FULL, lane, 1, 8),
              add = __reduce_add_sync(FULL, lane);
    int half = 0;
    if (lane < 16) half = __shfl_xor_sync(0xffffu, lane, 1); // part of a warp
    if (i == 70) {                                           // lane 6 of warp 2
        const int r[14] = {counted,
                           any,
                           all,
                           (int)even,
                           up,
                           down,
                           x,
                           broadcast,
                           inside,
                           add,
                           half,
                           total[0],
                           __any_sync(1u << 6, 1),
                           __all_sync(1u << 6, 0)};
        for (int k = 0; k < 14; k++) y[k] = r[k];
    }
}

/* y = round(a b^T) b, all 64 x 64: a and b come through the copy engine, b for the second product by ordinary stores.
 * One warpgroup; the result of the first product is the second's A in registers. */
template <int PLANT>
__global__ void tensor_kernel(float *y, const Bf16 *b, const __grid_constant__ CUtensorMap am,
                              const __grid_constant__ CUtensorMap bm) {
    DYNAMIC_SHARED_1024(Bf16, cursor);
    const SHARED_PTR(Bf16) as = shared_take<Bf16>(cursor, 4096), bs = shared_take<Bf16>(cursor, 4096),
                           cs = shared_take<Bf16>(cursor, 4096);
    const Mbarriers bar = shared_take<uint64_t>(cursor, 2);
    const int lane = threadIdx.x % WARP, row0 = threadIdx.x / WARP * 16 + lane / 4;
    if (threadIdx.x == 0) {
        mbarrier_init(bar, 1);
        mbarrier_init(bar + 1, 1);
        if (PLANT != BARRIER_NO_PROXY_FENCE) async_fence();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        mbarrier_expect(bar, PLANT == WRONG_BYTES ? 8192 * 2 + 16 : 8192 * 2);
        tensor_fetch(as, am, 0, 0, 0, 0, bar);
        tensor_fetch(bs, bm, 0, 0, 0, 0, bar);
    }
    for (int i = threadIdx.x; i < 64 * 8; i += 128) {
        const int r = i / 8, piece = PLANT == WRONG_SWIZZLE ? i % 8 : i % 8 ^ r % 8;
        shared_store16(cs + r * 64 + piece * 8, *(const uint4 *)(b + i * 8));
    }
    if (PLANT != NO_PROXY_FENCE) async_fence();
    if (PLANT == GROUP_STUCK) group_sync(1, 160);
    else if (PLANT != NO_GROUP_SYNC) group_sync(1, 128);
    if (PLANT != NO_COPY_WAIT) mbarrier_wait(bar, PLANT == PHASE_EARLY ? 1 : 0);
    if (PLANT == PHASE_LATE) mbarrier_wait(bar, 1);
    float s[8][4], d[8][4] = {};
    unsigned p[4][4];
    if (PLANT != NO_REGISTER_FENCE) wgmma_fence(s);
    for (int i = 0; i < 4; i++) wgmma<false, false>(s, of_rows(as, 0, i * 16), of_rows(bs, 0, i * 16), i > 0);
    wgmma_commit();
    if (PLANT == EARLY_REFILL && threadIdx.x == 0) tensor_fetch(as, am, 0, 0, 0, 0, bar + 1);
    if (PLANT != NO_PRODUCT_WAIT) wgmma_wait<0>(s);
    for (int i = 0; i < 4; i++) pack_a(p[i], s[2 * i], s[2 * i + 1]);
    if (PLANT == NO_PRODUCT_WAIT) wgmma_wait<0>(s);
    wgmma_fence(d, p);
    for (int i = 0; i < 4; i++) wgmma<true>(d, p[i], of_columns(cs, i * 16, 8192), true);
    wgmma_commit();
    if (PLANT == REGISTERS_WRITTEN) p[2][1] = 0;
    if (PLANT == STORE_UNDER_WAY && threadIdx.x == 5) cs[77] = 1.0f;
    wgmma_wait<0>(d, p);
    for (int i = 0; i < 32; i++) y[(row0 + i / 2 % 2 * 8) * 64 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i / 4][i % 4];
}
static CUtensorMap square(const void *x) {
    CUtensorMap map;
    const uint64_t dim[4] = {64, 1, 64, 1}, stride[3] = {128, 128, 8192};
    const unsigned box[4] = {64, 1, 64, 1};
    if (!emu::tensor_map(&map, x, 4, dim, stride, box)) emu::report("the map of a square is refused");
    return map;
}

/* y_i = e^{x_i}, 128 numbers on their way through shared memory, 16 bytes at a time: what the limits of a device allow.
 * */
template <int PLANT> __global__ void limits_kernel(float *y, const float *x) {
    SHARED(float, tile, 2048); // 8 KB
    DYNAMIC_SHARED(float, more);
    const int i = threadIdx.x * 4;
    if (i < 128) {
        const int off = PLANT == MISALIGNED_COPY;
        cp_async16(tile + i + off, x + i, true);
        cp_async_commit();
        cp_async_wait<0>();
        if (PLANT == MISALIGNED_COPY) tile[0] = x[0];
        uint4 four = shared_load16(tile + i + (PLANT == MISALIGNED_LOAD ? 2 : 0));
        const auto up = [](unsigned u) {
            return __float_as_uint(PLANT == APPROXIMATE_EXP ? __expf(__uint_as_float(u)) : expf(__uint_as_float(u)));
        };
        four = make_uint4(up(four.x), up(four.y), up(four.z), up(four.w));
        shared_store16(more + i + (PLANT == MISALIGNED_STORE ? 2 : 0), four);
        for (int e = 0; e < 4; e++) y[i + e] = more[i + e + (PLANT == MISALIGNED_STORE ? 2 : 0)];
    }
}
/* Bytes of dynamic shared memory: alone they are allowed; beside the kernel's 8 KB two of them are not. */
template <int PLANT> static size_t limits_shared() {
    return PLANT == SHARED_TOO_MUCH ? 220 * 1024 : PLANT == SHARED_HOLE ? 44 * 1024 : 1024;
}

template <int PLANT> static void planted(int which, void *y, const void *a, const void *b, int n) {
    switch (which) {
    case REVERSE:
        LAUNCH(reverse_kernel<PLANT>, 1, 128, 0, (float *)y, (const float *)a, n);
        break;
    case NEIGHBOUR:
        LAUNCH(neighbour_kernel<PLANT>, 1, 64, 0, (float *)y, (const float *)a);
        break;
    case PRODUCT:
        LAUNCH(product_kernel<PLANT>, 1, 32, 0, (float *)y, (const Bf16 *)a, (const Bf16 *)b);
        break;
    case PRODUCT_TF32:
        LAUNCH(product_tf32_kernel<PLANT>, 1, 32, 0, (float *)y, (const float *)a, (const float *)b);
        break;
    case MATRICES:
        LAUNCH(ldmatrix_kernel<PLANT>, 1, 32, 0, (float *)y);
        break;
    case VOTES:
        LAUNCH(vote_kernel<PLANT>, 1, 96, 0, (int *)y);
        break;
    case TENSOR:
        LAUNCH(tensor_kernel<PLANT>, 1, 128, 3 * 8192 + 16, (float *)y, (const Bf16 *)b, square(a), square(b));
        break;
    case LIMITS:
        LAUNCH(limits_kernel<PLANT>, 1, PLANT == TOO_MANY_REGISTERS ? 288 : 256, limits_shared<PLANT>(), (float *)y,
               (const float *)a);
        break;
    }
}
