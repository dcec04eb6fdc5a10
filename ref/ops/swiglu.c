/* swiglu.c - SiLU, and the gated feed-forward's product. */
#include "ops/ref_math.h"

static void silu_forward(real *y, const real *x, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = x[i] * sigmoid(x[i]);
}

static void silu_backward(real *dx, const real *dy, const real *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const wide s = sigmoid(x[i]);
        dx[i] += dy[i] * s * (1 + x[i] * (1 - s)); // d(x s)/dx = s + x s (1 - s)
    }
}

static void swiglu_forward(real *y, const real *gate, const real *up, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

static void swiglu_backward(real *dgate, real *dup, const real *dy, const real *gate, const real *up, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const wide s = sigmoid(gate[i]);
        dgate[i] += dy[i] * up[i] * s * (1 + gate[i] * (1 - s));
        dup[i] += dy[i] * gate[i] * s;
    }
}
