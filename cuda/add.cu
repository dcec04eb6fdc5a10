/* add.cu - add, accumulate, sum, sumsq. */
__global__ void add_kernel(real *y, const real *a, const real *b, size_t n) {
    const size_t i = pack_index();
    if (i >= n) return;
    Pack s = pack_load(a, i, n);
    const Pack t = pack_load(b, i, n);
    for (int k = 0; k < PACK; k++) s.v[k] += t.v[k];
    pack_store(y, i, n, s);
}
static void add(real *y, const real *a, const real *b, size_t n) {
    if (n) LAUNCH(add_kernel, pack_blocks(n), PACK_THREADS, 0, y, a, b, n);
}

__global__ void accumulate_kernel(real *y, const real *x, float alpha, size_t n) {
    const size_t i = pack_index();
    if (i >= n) return;
    Pack s = pack_load(x, i, n);
    for (int k = 0; k < PACK; k++) s.v[k] *= alpha;
    pack_add(y, i, n, s);
}
static void accumulate(real *y, const real *x, double alpha, size_t n) {
    if (n) LAUNCH(accumulate_kernel, pack_blocks(n), PACK_THREADS, 0, y, x, (float)alpha, n);
}

/* sum and sumsq, in exactly the order of the contract, so that the value is ref's to the bit:
 * 4096 elements from left to right, then the block sums of a tensor from first to last. A lane adds one block;
 * its warp brings 32 blocks' next 128 elements through shared memory, a row a block, so that global reads are runs of
 * 512 bytes and every lane has its own bank. A launch takes as many tensors as its parameters have room for. */
enum { SUM_BLOCK = 4096, SUM_STAGE = 1024, SUM_TENSORS = 192, SUM_WARPS = 2, SUM_RUN = 4 * WARP, SUM_LD = SUM_RUN + 1 };
struct SumTable { // tensor t has the blocks first[t] ... first[t + 1] - 1
    const wide *x[SUM_TENSORS];
    size_t n[SUM_TENSORS];
    unsigned first[SUM_TENSORS + 1];
    int tensors;
};
__global__ void sum_blocks_kernel(double *part, const __grid_constant__ SumTable table, int square) {
    SHARED(float, stage, SUM_WARPS *WARP *SUM_LD);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const SHARED_PTR(float) mine = stage + warp * WARP * SUM_LD;
    const unsigned block = (blockIdx.x * SUM_WARPS + warp) * WARP + lane; // of this lane
    const wide *x = NULL;
    int count = 0;
    if (block < table.first[table.tensors]) {
        const int t = table_find(table, block);
        const size_t first = (size_t)(block - table.first[t]) * SUM_BLOCK, n = table.n[t];
        x = table.x[t] + first, count = n - first < SUM_BLOCK ? (int)(n - first) : (int)SUM_BLOCK;
    }
    const int longest = __reduce_max_sync(FULL, count);
    double s = 0;
    for (int e0 = 0; e0 < longest; e0 += SUM_RUN) {
#pragma unroll 4
        for (int r = 0; r < WARP; r++) {
            const wide *from = (const wide *)__shfl_sync(FULL, (unsigned long long)x, r);
            const int there = __shfl_sync(FULL, count, r) - e0;
            for (int k = 0; k < SUM_RUN; k += WARP) // elements that do not exist add nothing below
                mine[r * SUM_LD + k + lane] = k + lane < there ? from[e0 + k + lane] : 0.0f;
        }
        __syncwarp();
        const int here = count - e0 < SUM_RUN ? count - e0 : (int)SUM_RUN;
        for (int i = 0; i < here; i++) {
            const double v = (float)mine[lane * SUM_LD + i];
            s += square ? v * v : v; // a float's square is exact in double
        }
        __syncwarp();
    }
    if (count) part[block] = s;
}
__global__ void sum_finish_kernel(double *out, const double *part, const __grid_constant__ SumTable table) {
    SHARED(double, stage, SUM_STAGE);
    const size_t from = table.first[blockIdx.x], to = table.first[blockIdx.x + 1];
    double s = 0;
    for (size_t first = from; first < to; first += SUM_STAGE) {
        const int count = to - first < SUM_STAGE ? (int)(to - first) : (int)SUM_STAGE;
        for (int i = threadIdx.x; i < count; i += blockDim.x) stage[i] = part[first + i];
        __syncthreads();
        if (threadIdx.x == 0)
            for (int i = 0; i < count; i++) s += stage[i];
        __syncthreads();
    }
    if (threadIdx.x == 0) out[blockIdx.x] = s;
}
static void sum_list(double *out, const Trained *list, int tensors, int square) {
    double *part = (double *)cuda_scratch();
    const size_t room = CUDA_SCRATCH / sizeof(double); // block sums at one time: 8.6e9 elements
    for (int i = 0; i < tensors;) {
        SumTable table = {};
        unsigned blocks = 0;
        int &t = table.tensors;
        for (; i + t < tensors && t < SUM_TENSORS; t++) {
            const size_t n = list[i + t].n;
            if (t && blocks + ceil_div(n, SUM_BLOCK) > room) break;
            table.x[t] = list[i + t].grad, table.n[t] = n;
            table.first[t + 1] = blocks += ceil_div(n, SUM_BLOCK);
        }
        if (blocks)
            LAUNCH(sum_blocks_kernel, ceil_div(blocks, SUM_WARPS * WARP), SUM_WARPS * WARP, 0, part, table, square);
        LAUNCH(sum_finish_kernel, t, 128, 0, out + i, part, table);
        i += t;
    }
}
static void sum(double *out, const wide *x, size_t n) {
    Trained one = {};
    one.grad = x, one.n = n;
    sum_list(out, &one, 1, 0);
}
static void sumsq(double *out, const Trained *list, int tensors) { sum_list(out, list, tensors, 1); }
