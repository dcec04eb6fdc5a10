/* matmul.cu - our own matrix product: 32 x 32 tiles of c, 64 threads with 4 x 4 elements each, 16 of K at a time
 * through shared memory.
 * Used by the emulator and where cuBLASLt is missing. */
enum { MM_TILE = 32, MM_DEEP = 16, MM_EACH = 4, MM_THREADS = 64, MM_ROW = MM_TILE + 1 };

template <class Out>
__global__ void matmul_kernel(Out *c, const real *a, const real *b, const real *bias, int M, int N, int K, int ta,
                              int tb, int add) {
    SHARED(float, at, MM_DEEP *MM_ROW); // at[k][m]
    SHARED(float, bt, MM_DEEP *MM_ROW); // bt[k][n]
    const int m0 = blockIdx.y * MM_TILE, n0 = blockIdx.x * MM_TILE, tm = threadIdx.x / 8 * MM_EACH,
              tn = threadIdx.x % 8 * MM_EACH;
    float sum[MM_EACH][MM_EACH] = {};
    for (int k0 = 0; k0 < K; k0 += MM_DEEP) {
        for (int i = threadIdx.x; i < MM_DEEP * MM_TILE; i += MM_THREADS) {
            // neighbours in i are neighbours in memory, whichever way the matrix is stored
            const int ka = ta ? i / MM_TILE : i % MM_DEEP, ma = ta ? i % MM_TILE : i / MM_DEEP, m = m0 + ma;
            const int kb = tb ? i % MM_DEEP : i / MM_TILE, nb = tb ? i / MM_DEEP : i % MM_TILE, n = n0 + nb;
            at[ka * MM_ROW + ma] =
                k0 + ka < K && m < M ? (float)a[ta ? (size_t)(k0 + ka) * M + m : (size_t)m * K + k0 + ka] : 0.0f;
            bt[kb * MM_ROW + nb] =
                k0 + kb < K && n < N ? (float)b[tb ? (size_t)n * K + k0 + kb : (size_t)(k0 + kb) * N + n] : 0.0f;
        }
        __syncthreads();
        const int deep = min((int)MM_DEEP, K - k0);
        for (int k = 0; k < deep; k++) {
            float x[MM_EACH], y[MM_EACH];
            for (int i = 0; i < MM_EACH; i++) x[i] = at[k * MM_ROW + tm + i], y[i] = bt[k * MM_ROW + tn + i];
            for (int i = 0; i < MM_EACH; i++)
                for (int j = 0; j < MM_EACH; j++) sum[i][j] += x[i] * y[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < MM_EACH; i++)
        for (int j = 0; j < MM_EACH; j++) {
            const int m = m0 + tm + i, n = n0 + tn + j;
            if (m >= M || n >= N) continue;
            float v = sum[i][j] + (bias ? (float)bias[n] : 0.0f);
            if (add) v += (float)c[(size_t)m * N + n];
            c[(size_t)m * N + n] = v;
        }
}

template <class Out>
static void matmul(Out *c, const real *a, const real *b, const real *bias, int M, int N, int K, int ta, int tb,
                   int add) {
    const MatmulType in = sizeof(real) == 2 ? MATMUL_BF16 : MATMUL_F32,
                     out = sizeof(Out) == 2 ? MATMUL_BF16 : MATMUL_F32;
    const MatmulShape s = {M, N, K, ta, tb, add, in, out};
    if (M <= 0 || N <= 0 || !matmul_library(c, a, b, bias, &s)) return;
    LAUNCH((matmul_kernel<Out>), dim3(ceil_div(N, MM_TILE), ceil_div(M, MM_TILE)), MM_THREADS, 0, c, a, b, bias, M, N,
           K, ta, tb, add);
}
