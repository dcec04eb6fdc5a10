/* embed.c - rows of a table; the gradient is shared by blocks of columns, so that rows are added in order. */
#include "parallel.h"

typedef struct {
    Job rows;
    const int *ids;
} EmbedJob;

static void embed_block(const void *job, size_t b) {
    const EmbedJob *j = job;
    const size_t C = j->rows.C;
    for (size_t i = 0, n = b * ROW_BLOCK; i < block_size(b, ROW_BLOCK, j->rows.N); i++, n++)
        memcpy(j->rows.out[0] + n * C, j->rows.in[0] + j->ids[n] * C, C * sizeof(real));
}
static void embed_forward(real *y, const real *w, const int *ids, int N, int C, int VOC) {
    (void)VOC;
    const EmbedJob j = {{.out = {y}, .in = {w}, .N = N, .C = C}, ids};
    pool_run_if((size_t)N * C > ALONE, row_blocks(N), embed_block, &j);
}

static void embed_columns(const void *job, size_t b) {
    const EmbedJob *j = job;
    const size_t C = j->rows.C, from = b * j->rows.block, n = block_size(b, j->rows.block, C);
    for (size_t i = 0; i < j->rows.N; i++) {
        float *dw_v = j->rows.wout[0] + j->ids[i] * C + from;
        const real *dy_n = j->rows.in[0] + i * C + from;
        for (size_t c = 0; c < n; c += VW) vput(dw_v + c, vget(dw_v + c, n - c) + vget(dy_n + c, n - c), n - c);
    }
}
static void embed_backward(float *dw, const real *dy, const int *ids, int N, int C, int VOC) {
    (void)VOC;
    const EmbedJob j = {{.wout = {dw}, .in = {dy}, .N = N, .C = C, .block = column_block(C)}, ids};
    pool_run_if((size_t)N * C > ALONE, (C + j.rows.block - 1) / j.rows.block, embed_columns, &j);
}
