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

/* sum and sumsq, in exactly the order of the contract, so that the value is ref's to the bit: a block of threads fetches 4096 elements,
 * one thread adds them from left to right; then one thread adds the block sums. The chain of additions is hidden behind
 * the other blocks on the same multiprocessor. */
enum { SUM_BLOCK = 4096, SUM_STAGE = 1024 };
__global__ void sum_blocks_kernel(double *part, const wide *x, size_t n, int square) {
    SHARED(float, stage, SUM_BLOCK);
    const size_t first = (size_t)blockIdx.x * SUM_BLOCK;
    const int count = n - first < SUM_BLOCK ? (int)(n - first) : (int)SUM_BLOCK;
    for (int i = threadIdx.x; i < count; i += blockDim.x) stage[i] = x[first + i];
    __syncthreads();
    if (threadIdx.x) return;
    double s = 0;
    for (int i = 0; i < count; i++) {
        const double v = (float)stage[i];
        s += square ? v * v : v;
    }
    part[blockIdx.x] = s;
}
__global__ void sum_finish_kernel(double *out, const double *part, size_t n) {
    SHARED(double, stage, SUM_STAGE);
    double s = 0;
    for (size_t first = 0; first < n; first += SUM_STAGE) {
        const int count = n - first < SUM_STAGE ? (int)(n - first) : (int)SUM_STAGE;
        for (int i = threadIdx.x; i < count; i += blockDim.x) stage[i] = part[first + i];
        __syncthreads();
        if (threadIdx.x == 0)
            for (int i = 0; i < count; i++) s += stage[i];
        __syncthreads();
    }
    if (threadIdx.x == 0) out[0] = s;
}
static void sum_any(double *out, const wide *x, size_t n, int square) {
    double *part = (double *)cuda_scratch();
    const unsigned blocks = ceil_div(n, SUM_BLOCK); // at most 2M of them: 8.6e9 elements
    if (n) LAUNCH(sum_blocks_kernel, blocks, 128, 0, part, x, n, square);
    LAUNCH(sum_finish_kernel, 1, 128, 0, out, part, (size_t)blocks);
}
static void sum(double *out, const wide *x, size_t n) { sum_any(out, x, n, 0); }
static void sumsq(double *out, const wide *x, size_t n) { sum_any(out, x, n, 1); }
