/* embed.c - rows of a table; the gradient is shared by blocks of columns, so that rows are added in order. */
#include "parallel.h"

static void embed_forward(float *y, const float *w, const int *ids, int N, int C, int VOC) {
    (void)VOC;
#pragma omp parallel for if ((size_t)N * C > ALONE)
    for (int n = 0; n < N; n++) memcpy(y + (size_t)n * C, w + (size_t)ids[n] * C, (size_t)C * sizeof *y);
}
static void embed_columns(float *dw, const float *dy, const int *ids, size_t N, size_t C, size_t n) {
    for (size_t i = 0; i < N; i++) {
        float *dw_v = dw + ids[i] * C;
        for (size_t c = 0; c < n; c += VW) vput(dw_v + c, vget(dw_v + c, n - c) + vget(dy + i * C + c, n - c), n - c);
    }
}
static void embed_backward(float *dw, const float *dy, const int *ids, int N, int C, int VOC) {
    (void)VOC;
#pragma omp parallel for if ((size_t)N * C > ALONE)
    for (size_t b = 0; b < column_blocks(C); b++) {
        const size_t c = b * COLUMN_BLOCK;
        embed_columns(dw + c, dy + c, ids, N, C, block_size(b, COLUMN_BLOCK, C));
    }
}
