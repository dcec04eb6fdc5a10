/* swiglu.c - silu and swiglu. */
#include "parallel.h"

static void silu_run(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += VW) {
        const vf v = vget(x + i, n - i);
        vput(y + i, v * vsigmoid(v), n - i);
    }
}
static void silu_forward(float *y, const float *x, size_t n) {
#pragma omp parallel for if (n > ALONE)
    for (size_t r = 0; r < run_count(n); r++) silu_run(y + r * RUN, x + r * RUN, run_size(n, r));
}

/* SiLU'(x) = s (1 + x (1 - s)) */
INLINE vf silu_slope(vf x, vf s) { return s * vfma(x, vset(1) - s, vset(1)); }

static void silu_run_backward(float *dx, const float *dy, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += VW) {
        const vf v = vget(x + i, n - i);
        vput(dx + i, vfma(vget(dy + i, n - i), silu_slope(v, vsigmoid(v)), vget(dx + i, n - i)), n - i);
    }
}
static void silu_backward(float *dx, const float *dy, const float *x, size_t n) {
#pragma omp parallel for if (n > ALONE)
    for (size_t r = 0; r < run_count(n); r++) silu_run_backward(dx + r * RUN, dy + r * RUN, x + r * RUN, run_size(n, r));
}

static void swiglu_run(float *y, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += VW) {
        const vf g = vget(gate + i, n - i);
        vput(y + i, g * vsigmoid(g) * vget(up + i, n - i), n - i);
    }
}
static void swiglu_forward(float *y, const float *gate, const float *up, size_t n) {
#pragma omp parallel for if (n > ALONE)
    for (size_t r = 0; r < run_count(n); r++) swiglu_run(y + r * RUN, gate + r * RUN, up + r * RUN, run_size(n, r));
}

static void swiglu_run_backward(float *dgate, float *dup, const float *dy, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += VW) {
        const vf g = vget(gate + i, n - i), s = vsigmoid(g), d = vget(dy + i, n - i);
        if (dgate) vput(dgate + i, vfma(d * vget(up + i, n - i), silu_slope(g, s), vget(dgate + i, n - i)), n - i);
        if (dup) vput(dup + i, vfma(d, g * s, vget(dup + i, n - i)), n - i);
    }
}
static void swiglu_backward(float *dgate, float *dup, const float *dy, const float *gate, const float *up, size_t n) {
#pragma omp parallel for if (n > ALONE)
    for (size_t r = 0; r < run_count(n); r++) {
        const size_t i = r * RUN;
        swiglu_run_backward(dgate ? dgate + i : NULL, dup ? dup + i : NULL, dy + i, gate + i, up + i, run_size(n, r));
    }
}
