/* rope.c - rotary position embedding (Su et al., arXiv 2104.09864), half-split pairs (c, c + D/2). */
#include "ops/ref_math.h"

static void rope_forward(real *y, const real *x, const wide *table, int pos, int B, int T, int H, int D) {
    const int half = D / 2;
    for (size_t bth = 0; bth < (size_t)B * T * H; bth++) {
        const wide *row = table + (pos + bth / H % T) * D; // cos and sin of (pos + t) freq_c, c = 0..D/2-1
        const real *x_bth = x + bth * D;
        real *y_bth = y + bth * D;
        for (int c = 0; c < half; c++) {
            const wide co = row[2 * c], si = row[2 * c + 1], a = x_bth[c], b = x_bth[c + half];
            y_bth[c] = a * co - b * si;
            y_bth[c + half] = b * co + a * si;
        }
    }
}

/* The transpose of a rotation is the rotation back. */
static void rope_backward(real *dx, const real *dy, const wide *table, int pos, int B, int T, int H, int D) {
    const int half = D / 2;
    for (size_t bth = 0; bth < (size_t)B * T * H; bth++) {
        const wide *row = table + (pos + bth / H % T) * D;
        const real *dy_bth = dy + bth * D;
        real *dx_bth = dx + bth * D;
        for (int c = 0; c < half; c++) {
            const wide co = row[2 * c], si = row[2 * c + 1], a = dy_bth[c], b = dy_bth[c + half];
            dx_bth[c] += a * co + b * si;
            dx_bth[c + half] += b * co - a * si;
        }
    }
}
