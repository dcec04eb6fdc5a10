/* align_loss.c - see ref/ops/align_loss.c; one row at a time. */
#include "ops/ops.h"
#include "parallel.h"
#include <math.h>

static float align_row(float *ds, const float *t, const float *s, float weight, int form, size_t C) {
    vf sum_sq = vset(0);
    for (size_t c = 0; c < C; c += VW) {
        const vf d = vget(t + c, C - c) - vget(s + c, C - c);
        sum_sq = vfma(d, d, sum_sq);
    }
    const float sq = vsum(sum_sq), norm = sqrtf(sq), root = sqrtf((float)C);
    const float k = form == ALIGN_SQUARED ? 2 * weight : norm > 0 ? weight / (norm * root) : norm; // 0 where equal, NaN where NaN
    for (size_t c = 0; ds && c < C; c += VW)
        vput(ds + c, vfma(vset(k), vget(s + c, C - c) - vget(t + c, C - c), vget(ds + c, C - c)), C - c);
    return form == ALIGN_SQUARED ? sq : norm / root;
}
static void align_loss(float *loss, float *ds, const float *t, const float *s, double weight, int form, int N, int C) {
#pragma omp parallel for if ((size_t)N * C > ALONE)
    for (int n = 0; n < N; n++) {
        const size_t at = (size_t)n * C;
        loss[n] = align_row(ds ? ds + at : NULL, t + at, s + at, (float)weight, form, C);
    }
}
