/* swiglu.c - silu and swiglu. */
#include "parallel.h"

static void silu_run(const void *job, size_t r) {
    const Job *j = job;
    const real *x = j->in[0] + r * RUN;
    real *y = j->out[0] + r * RUN;
    const size_t n = run_size(j->n, r);
    for (size_t i = 0; i < n; i += VW) {
        const vf v = vget(x + i, n - i);
        vput(y + i, v * vsigmoid(v), n - i);
    }
}
static void silu_forward(real *y, const real *x, size_t n) { runs(silu_run, (Job){.out = {y}, .in = {x}, .n = n}); }

/* SiLU'(x) = s (1 + x (1 - s)) */
INLINE vf silu_slope(vf x, vf s) { return s * vfma(x, vset(1) - s, vset(1)); }

static void silu_run_backward(const void *job, size_t r) {
    const Job *j = job;
    const real *dy = j->in[0] + r * RUN, *x = j->in[1] + r * RUN;
    real *dx = j->out[0] + r * RUN;
    const size_t n = run_size(j->n, r);
    for (size_t i = 0; i < n; i += VW) {
        const vf v = vget(x + i, n - i);
        vput(dx + i, vfma(vget(dy + i, n - i), silu_slope(v, vsigmoid(v)), vget(dx + i, n - i)), n - i);
    }
}
static void silu_backward(real *dx, const real *dy, const real *x, size_t n) {
    runs(silu_run_backward, (Job){.out = {dx}, .in = {dy, x}, .n = n});
}

static void swiglu_run(const void *job, size_t r) {
    const Job *j = job;
    const real *gate = j->in[0] + r * RUN, *up = j->in[1] + r * RUN;
    real *y = j->out[0] + r * RUN;
    const size_t n = run_size(j->n, r);
    for (size_t i = 0; i < n; i += VW) {
        const vf g = vget(gate + i, n - i);
        vput(y + i, g * vsigmoid(g) * vget(up + i, n - i), n - i);
    }
}
static void swiglu_forward(real *y, const real *gate, const real *up, size_t n) {
    runs(swiglu_run, (Job){.out = {y}, .in = {gate, up}, .n = n});
}

static void swiglu_run_backward(const void *job, size_t r) {
    const Job *j = job;
    real *dgate = at(j->out[0], r * RUN), *dup = at(j->out[1], r * RUN);
    const real *dy = j->in[0] + r * RUN, *gate = j->in[1] + r * RUN, *up = j->in[2] + r * RUN;
    const size_t n = run_size(j->n, r);
    for (size_t i = 0; i < n; i += VW) {
        const vf g = vget(gate + i, n - i), s = vsigmoid(g), d = vget(dy + i, n - i);
        if (dgate) vput(dgate + i, vfma(d * vget(up + i, n - i), silu_slope(g, s), vget(dgate + i, n - i)), n - i);
        if (dup) vput(dup + i, vfma(d, g * s, vget(dup + i, n - i)), n - i);
    }
}
static void swiglu_backward(real *dgate, real *dup, const real *dy, const real *gate, const real *up, size_t n) {
    runs(swiglu_run_backward, (Job){.out = {dgate, dup}, .in = {dy, gate, up}, .n = n});
}
