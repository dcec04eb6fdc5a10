/* linear.c - three matrix products, and the bias's gradient by blocks of columns. */
#include "gemm.h"
#include "parallel.h"

static void linear_forward(float *y, const float *x, const float *w, const float *b, int N, int I, int O) {
    const Gemm g = {.c = y, .ldc = O, .a = x, .lda = I, .by = ROWS, .b = w, .ldb = I, .trans = 1, .M = N, .N = O, .K = I, .bias = b};
    gemm(&g);
}

static void bias_columns(const void *job, size_t b) {
    const Job *j = job;
    const size_t from = b * COLUMN_BLOCK, n = block_size(b, COLUMN_BLOCK, j->C);
    for (size_t o = from; o < from + n; o += VW) {
        const size_t k = from + n - o;
        vf s = vset(0);
        for (size_t i = 0; i < j->N; i++) s = s + vget(j->in[0] + i * j->C + o, k);
        vput(j->out[0] + o, vget(j->out[0] + o, k) + s, k);
    }
}

static void linear_backward(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, int N, int I, int O) {
    const Gemm for_x = {.c = dx, .ldc = I, .a = dy, .lda = O, .by = ROWS, .b = w, .ldb = I, .M = N, .N = I, .K = O, .add = 1};
    const Gemm for_w = {.c = dw, .ldc = I, .a = dy, .lda = O, .by = COLS, .b = x, .ldb = I, .M = O, .N = I, .K = N, .add = 1};
    if (dx) gemm(&for_x);
    if (dw) gemm(&for_w);
    if (db) blocks_of_columns(bias_columns, (Job){{db}, {dy}, .N = N, .C = O});
}
