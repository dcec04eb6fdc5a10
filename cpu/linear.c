/* linear.c - three matrix products, dot products where there are few rows, and the bias's gradient by blocks of
 * columns. */
#include "gemm.h"
#include "parallel.h"

/* Few rows (decoding): dot products straight from the weights, which are read once; packing them would cost more than
 * it saves. */
enum { FEW = 16, DOT_ROWS = 4, DOT_TASK = 32, AHEAD = 4096 / sizeof(real) };
typedef struct {
    real *y;
    const real *x, *w, *b;
    size_t N, I, O;
} DotJob;

/* y of up to DOT_ROWS tokens from n and of 4 outputs from o; where there are fewer, the last is taken again. */
INLINE void dots(const DotJob *j, size_t n, size_t o) {
    const size_t I = j->I, rows = j->N - n < DOT_ROWS ? j->N - n : DOT_ROWS, cols = j->O - o < 4 ? j->O - o : 4;
    const real *w0 = j->w + o * I, *w1 = cols > 1 ? w0 + I : w0, *w2 = cols > 2 ? w1 + I : w1,
               *w3 = cols > 3 ? w2 + I : w2;
    const real *x0 = j->x + n * I, *x1 = rows > 1 ? x0 + I : x0, *x2 = rows > 2 ? x1 + I : x1,
               *x3 = rows > 3 ? x2 + I : x2;
    vf a00 = vset(0), a01 = a00, a02 = a00, a03 = a00, a10 = a00, a11 = a00, a12 = a00, a13 = a00;
    vf a20 = a00, a21 = a00, a22 = a00, a23 = a00, a30 = a00, a31 = a00, a32 = a00, a33 = a00;
    for (size_t i = 0; i < I; i += VW) {
        const size_t k = I - i;
        // the four rows after these: every row is a stream of its own, too short for the hardware to follow
        if (n == 0) {
            __builtin_prefetch(w0 + 4 * I + i, 0, 2), __builtin_prefetch(w1 + 4 * I + i, 0, 2);
            __builtin_prefetch(w2 + 4 * I + i, 0, 2), __builtin_prefetch(w3 + 4 * I + i, 0, 2);
        }
        const vf v0 = vget(w0 + i, k), v1 = vget(w1 + i, k), v2 = vget(w2 + i, k), v3 = vget(w3 + i, k);
        vf t = vget(x0 + i, k);
        a00 = vfma(t, v0, a00), a01 = vfma(t, v1, a01), a02 = vfma(t, v2, a02), a03 = vfma(t, v3, a03);
        t = vget(x1 + i, k);
        a10 = vfma(t, v0, a10), a11 = vfma(t, v1, a11), a12 = vfma(t, v2, a12), a13 = vfma(t, v3, a13);
        t = vget(x2 + i, k);
        a20 = vfma(t, v0, a20), a21 = vfma(t, v1, a21), a22 = vfma(t, v2, a22), a23 = vfma(t, v3, a23);
        t = vget(x3 + i, k);
        a30 = vfma(t, v0, a30), a31 = vfma(t, v1, a31), a32 = vfma(t, v2, a32), a33 = vfma(t, v3, a33);
    }
    const float y[DOT_ROWS][4] = {{vsum(a00), vsum(a01), vsum(a02), vsum(a03)},
                                  {vsum(a10), vsum(a11), vsum(a12), vsum(a13)},
                                  {vsum(a20), vsum(a21), vsum(a22), vsum(a23)},
                                  {vsum(a30), vsum(a31), vsum(a32), vsum(a33)}};
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++)
            j->y[(n + r) * j->O + o + c] = real_of(y[r][c] + (j->b ? get1(j->b[o + c]) : 0));
}
/* One token: row after row, as memory likes it (four rows at once read at 0.57 of its speed, this at 0.95);
 * the same chain as above. 4 KB ahead are asked for: decoding in
 * BF16 took 1.15 times as long without (SPEED.md). */
INLINE void dot_rows(const DotJob *j, size_t from, size_t end) {
    const size_t I = j->I;
    for (size_t o = from; o < end; o++) {
        const real *w = j->w + o * I;
        vf a = vset(0);
        size_t i = 0;
        for (; i + VW <= I; i += VW) {
            __builtin_prefetch(w + i + AHEAD, 0, 2);
            a = vfma(vget(j->x + i, VW), vget(w + i, VW), a);
        }
        if (i < I) a = vfma(vget(j->x + i, I - i), vget(w + i, I - i), a);
        j->y[o] = real_of(vsum(a) + (j->b ? get1(j->b[o]) : 0));
    }
}
static void dots_task(const void *job, size_t t) {
    const DotJob *j = job;
    const size_t end = j->O < (t + 1) * DOT_TASK ? j->O : (t + 1) * DOT_TASK;
    if (j->N == 1) return dot_rows(j, t * DOT_TASK, end);
    for (size_t o = t * DOT_TASK; o < end; o += 4)
        for (size_t n = 0; n < j->N; n += DOT_ROWS) dots(j, n, o);
}

static void linear_forward(real *y, const real *x, const real *w, const real *b, int N, int I, int O) {
    const Gemm g = {.c = y,
                    .ldc = O,
                    .a = x,
                    .lda = I,
                    .by = ROWS,
                    .b = w,
                    .ldb = I,
                    .trans = 1,
                    .weights = 1,
                    .M = N,
                    .N = O,
                    .K = I,
                    .bias = b};
    const DotJob d = {y, x, w, b, N, I, O};
    if (N > FEW) gemm(&g);
    else pool_run_if((size_t)O * I > ALONE, ((size_t)O + DOT_TASK - 1) / DOT_TASK, dots_task, &d);
}

static void bias_columns(const void *job, size_t b) {
    const Job *j = job;
    const size_t from = b * j->block, n = block_size(b, j->block, j->C);
    float sums[COLUMN_MOST] = {0};
    for (size_t i = 0; i < j->N; i++)
        for (size_t o = 0; o < n; o += VW)
            vstore(sums + o, vload(sums + o) + vget(j->in[0] + i * j->C + from + o, n - o));
    for (size_t o = 0; o < n; o++) j->wout[0][from + o] += sums[o];
}

/* dx += dy w, dw += dy^T x, for dy (N,O) with rows ldy apart, x (N,I), w (O,I); of linear and of the heads. */
static void product_gradients(real *dx, float *dw, const real *dy, size_t ldy, const real *x, const real *w, size_t N,
                              size_t I, size_t O) {
    const Gemm for_x = {.c = dx,
                        .ldc = I,
                        .a = dy,
                        .lda = ldy,
                        .by = ROWS,
                        .b = w,
                        .ldb = I,
                        .weights = 1,
                        .M = N,
                        .N = I,
                        .K = O,
                        .add = 1};
    const Gemm for_w = {
        .sums = dw, .ldc = I, .a = dy, .lda = ldy, .by = COLS, .b = x, .ldb = I, .M = O, .N = I, .K = N, .add = 1};
    if (dx) gemm(&for_x);
    if (dw) gemm(&for_w);
}

static void linear_backward(real *dx, float *dw, float *db, const real *dy, const real *x, const real *w, int N, int I,
                            int O) {
    product_gradients(dx, dw, dy, O, x, w, N, I, O);
    if (db) blocks_of_columns(bias_columns, (Job){.wout = {db}, .in = {dy}, .N = N, .C = O});
}
