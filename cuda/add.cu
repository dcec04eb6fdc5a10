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
 * a block of threads fetches 4096 elements, one thread adds them from left to right; then one thread a tensor adds the
 * block sums. The chain of additions is hidden behind the other blocks on the same multiprocessor.
 * A launch takes as many tensors as its parameters have room for. */
enum { SUM_BLOCK = 4096, SUM_STAGE = 1024, SUM_TENSORS = 192 };
struct SumTable { // tensor t has the blocks first[t] ... first[t + 1] - 1
    const wide *x[SUM_TENSORS];
    size_t n[SUM_TENSORS];
    unsigned first[SUM_TENSORS + 1];
    int tensors;
};
__global__ void sum_blocks_kernel(double *part, const __grid_constant__ SumTable table, int square) {
    SHARED(float, stage, SUM_BLOCK);
    const int t = table_find(table);
    const size_t first = (size_t)(blockIdx.x - table.first[t]) * SUM_BLOCK, n = table.n[t];
    const wide *x = table.x[t];
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
        if (blocks) LAUNCH(sum_blocks_kernel, blocks, 128, 0, part, table, square);
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
