/* linear.c - three matrix products, and the bias's gradient by blocks of columns. */
#include "gemm.h"
#include "parallel.h"

static void linear_forward(float *y, const float *x, const float *w, const float *b, int N, int I, int O) {
    const Gemm g = {.c = y, .ldc = O, .a = x, .lda = I, .by = ROWS, .b = w, .ldb = I, .trans = 1, .M = N, .N = O, .K = I, .bias = b};
    gemm(&g);
}

static void bias_columns(float *db, const float *dy, size_t N, size_t O, size_t n) {
    for (size_t o = 0; o < n; o += VW) {
        vf s = vset(0);
        for (size_t i = 0; i < N; i++) s = s + vget(dy + i * O + o, n - o);
        vput(db + o, vget(db + o, n - o) + s, n - o);
    }
}
static void bias_backward(float *db, const float *dy, size_t N, size_t O) {
#pragma omp parallel for if (N * O > ALONE)
    for (size_t b = 0; b < column_blocks((int)O); b++) {
        const size_t o = b * COLUMN_BLOCK;
        bias_columns(db + o, dy + o, N, O, block_size(b, COLUMN_BLOCK, O));
    }
}

static void linear_backward(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, int N, int I, int O) {
    const Gemm for_x = {.c = dx, .ldc = I, .a = dy, .lda = O, .by = ROWS, .b = w, .ldb = I, .M = N, .N = I, .K = O, .add = 1};
    const Gemm for_w = {.c = dw, .ldc = I, .a = dy, .lda = O, .by = COLS, .b = x, .ldb = I, .M = O, .N = I, .K = N, .add = 1};
    if (dx) gemm(&for_x);
    if (dw) gemm(&for_w);
    if (db) bias_backward(db, dy, N, O);
}
