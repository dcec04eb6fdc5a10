/* align_loss.c - see ref/ops/align_loss.c; one row at a time. */
#include "ops/ops.h"
#include "parallel.h"
#include <math.h>

static float align_row(real *ds, const real *t, const real *s, float weight, int form, size_t C) {
    vf sum_sq = vset(0);
    for (size_t c = 0; c < C; c += VW) {
        const vf d = vget(t + c, C - c) - vget(s + c, C - c);
        sum_sq = vfma(d, d, sum_sq);
    }
    const float sq = vsum(sum_sq), norm = sqrtf(sq), root = sqrtf((float)C);
    // 0 where equal, NaN where NaN
    const float k = form == ALIGN_SQUARED ? 2 * weight : norm > 0 ? weight / (norm * root) : norm;
    for (size_t c = 0; ds && c < C; c += VW)
        vput(ds + c, vfma(vset(k), vget(s + c, C - c) - vget(t + c, C - c), vget(ds + c, C - c)), C - c);
    return form == ALIGN_SQUARED ? sq : norm / root;
}
typedef struct {
    Job rows;
    int form;
} AlignJob;

static void align_block(const void *job, size_t b) {
    const AlignJob *align = job;
    const Job *j = &align->rows;
    for (size_t i = 0, n = b * ROW_BLOCK; i < block_size(b, ROW_BLOCK, j->N); i++, n++) {
        const size_t nc = n * j->C;
        j->wout[0][n] = align_row(at(j->out[0], nc), j->in[0] + nc, j->in[1] + nc, j->a, align->form, j->C);
    }
}
static void align_loss(float *loss, real *ds, const real *t, const real *s, double weight, int form, int N, int C) {
    const AlignJob j = {{.out = {ds}, .wout = {loss}, .in = {t, s}, .N = N, .C = C, .a = (float)weight}, form};
    pool_run_if((size_t)N * C > ALONE, row_blocks(N), align_block, &j);
}
