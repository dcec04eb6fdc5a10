/* linear.cu - y = x W^T + b and its gradients: three matrix products and a column sum. */
static void linear_forward(real *y, const real *x, const real *w, const real *b, int N, int I, int O) {
    matmul(y, x, w, b, N, O, I, 0, 1, 0);
}

struct BiasTerm {
    const real *dy;
    int O;
    __device__ float operator()(size_t n, int o) const { return dy[n * O + o]; }
};
static void linear_backward(real *dx, wide *dw, wide *db, const real *dy, const real *x, const real *w, int N, int I,
                            int O) {
    if (dx) matmul(dx, dy, w, (const real *)NULL, N, I, O, 0, 0, 1);
    if (dw) matmul(dw, dy, x, (const real *)NULL, O, I, N, 1, 0, 1);
    if (db) column_sum(db, BiasTerm{dy, O}, N, O);
}
