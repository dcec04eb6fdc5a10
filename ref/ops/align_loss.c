/* align_loss.c - stage 1: how far the student's mixer output s_n is from the teacher's t_n. */
#include "ops/ref_math.h"

static void align_loss(wide *loss, real *ds, const real *t, const real *s, double weight, int form, int N, int C) {
    for (int n = 0; n < N; n++) {
        const real *t_n = t + (size_t)n * C, *s_n = s + (size_t)n * C;
        wide square = 0;
        for (int c = 0; c < C; c++) square += ((wide)s_n[c] - t_n[c]) * ((wide)s_n[c] - t_n[c]);
        const wide norm = sqrt(square), root = sqrt((wide)C);
        loss[n] = form == ALIGN_NORM ? norm / root : square;
        wide slope = 0; // ds = slope (s - t); the norm has no derivative where s = t, and gets none
        if (form == ALIGN_SQUARED) slope = 2 * (wide)weight;
        else if (square > 0) slope = (wide)weight / (norm * root);
        if (ds)
            for (int c = 0; c < C; c++) ds[(size_t)n * C + c] += slope * ((wide)s_n[c] - t_n[c]);
    }
}
