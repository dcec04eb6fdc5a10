/* chunk.h - what the chunked mixers share: the shape by value, document starts, and the first versions' tile product.
 * */
struct DeltaArgs {
    int T, H, Hk, K, V, chunk, NC;
    float scale;
    size_t worker; // floats of workspace per (batch, head)
};
static DeltaArgs delta_args(const DeltaDims *d, double scale) {
    return {d->T,
            d->H,
            d->Hk,
            d->K,
            d->V,
            d->chunk,
            delta_chunks(d),
            (float)scale,
            delta_rule_work(d) / sizeof(float) / ((size_t)d->B * d->H)};
}
/* Does token t forget what came before? Token 0 of a row never does: it goes on from `state`. */
__device__ bool begins(const int *start, int b, int T, int t) {
    return start && t > 0 && start[(size_t)b * T + t] == t;
}
/* First token of t's document, or -1 if that lies before this call. */
__device__ int begin_of(const int *start, int b, int T, int t) {
    const int s = start ? start[(size_t)b * T + t] : 0;
    return s > 0 ? s : -1;
}

/* out (M,N) = a (M,K) b (K,N) in global memory by the whole block, one element a thread at a time:
 * element (i,k) of a is at a[i * ai + k * ak], (k,j) of b at b[k * bk + j * bj], so a transpose is a swap of strides.
 * put(i, j, sum) says what happens to each element. */
template <class A, class B, class F>
__device__ void tile_product(const A *a, int ai, int ak, const B *b, int bk, int bj, int M, int N, int K, F put) {
    for (int e = threadIdx.x; e < M * N; e += blockDim.x) {
        const int i = e / N, j = e % N;
        float s = 0;
        for (int k = 0; k < K; k++) s += (float)a[i * ai + k * ak] * (float)b[k * bk + j * bj];
        put(i, j, s);
    }
}
