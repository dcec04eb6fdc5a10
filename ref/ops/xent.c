/* xent.c - cross-entropy fused with the output head, a block of rows at a time; the logits become their own gradient.
 * */
#include "ops/head.h"

static int xent_argmax(const real *z_n, int VOC) {
    int top = 0;
    for (int v = 1; v < VOC; v++)
        if (z_n[v] > z_n[top]) top = v;
    return top;
}

static void head_xent(wide *loss, int *top, real *dx, wide *dw, const real *x, const real *w, const int *target,
                      const wide *weight, void *work, const HeadDims *d) {
    real *z = work; // (block,VOC)
    for (int from = 0; from < d->N; from += d->block) {
        const int rows = head_rows(from, d);
        const real *x_from = x + (size_t)from * d->C;
        head_logits(z, x_from, w, rows, d->C, d->VOC);
        for (int i = 0; i < rows; i++) {
            const int n = from + i;
            const wide weight_n = weight ? weight[n] : 1;
            real *z_n = z + (size_t)i * d->VOC;
            if (weight_n == 0) {
                loss[n] = 0;
                if (top) top[n] = -1;
                for (int v = 0; v < d->VOC; v++) z_n[v] = 0;
                continue;
            }
            const wide lse = head_lse(z_n, 1, d->VOC);
            loss[n] = lse - z_n[target[n]];
            if (top) top[n] = xent_argmax(z_n, d->VOC);
            for (int v = 0; v < d->VOC; v++) // dz = weight (p - onehot)
                z_n[v] = weight_n * (exp(z_n[v] - lse) - (v == target[n]));
        }
        head_gradient(dx ? dx + (size_t)from * d->C : NULL, dw, z, x_from, w, rows, d->C, d->VOC);
    }
}
