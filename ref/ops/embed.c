/* embed.c - token embedding: a row of the table per token. */
#include "ops/ref_math.h"

static void embed_forward(real *y, const real *w, const int *ids, int N, int C, int VOC) {
    (void)VOC;
    for (int n = 0; n < N; n++) memcpy(y + (size_t)n * C, w + (size_t)ids[n] * C, C * sizeof *y);
}

static void embed_backward(wide *dw, const real *dy, const int *ids, int N, int C, int VOC) {
    (void)VOC;
    for (int n = 0; n < N; n++) {
        const real *dy_n = dy + (size_t)n * C;
        wide *dw_v = dw + (size_t)ids[n] * C; // a token that stands twice in the batch gets both gradients
        for (int c = 0; c < C; c++) dw_v[c] += dy_n[c];
    }
}
