/* swiglu.c - silu and swiglu. */
#include "parallel.h"

static void silu_run(const void *job, size_t r) {
    const Job *j = job;
    const float *x = j->in[0] + r * RUN;
    float *y = j->out[0] + r * RUN;
    const size_t n = run_size(j->n, r);
    for (size_t i = 0; i < n; i += VW) {
        const vf v = vget(x + i, n - i);
        vput(y + i, v * vsigmoid(v), n - i);
    }
}
static void silu_forward(float *y, const float *x, size_t n) { runs(silu_run, (Job){{y}, {x}, .n = n}); }

/* SiLU'(x) = s (1 + x (1 - s)) */
INLINE vf silu_slope(vf x, vf s) { return s * vfma(x, vset(1) - s, vset(1)); }

static void silu_run_backward(const void *job, size_t r) {
    const Job *j = job;
    const float *dy = j->in[0] + r * RUN, *x = j->in[1] + r * RUN;
    float *dx = j->out[0] + r * RUN;
    const size_t n = run_size(j->n, r);
    for (size_t i = 0; i < n; i += VW) {
        const vf v = vget(x + i, n - i);
        vput(dx + i, vfma(vget(dy + i, n - i), silu_slope(v, vsigmoid(v)), vget(dx + i, n - i)), n - i);
    }
}
static void silu_backward(float *dx, const float *dy, const float *x, size_t n) {
    runs(silu_run_backward, (Job){{dx}, {dy, x}, .n = n});
}

static void swiglu_run(const void *job, size_t r) {
    const Job *j = job;
    const float *gate = j->in[0] + r * RUN, *up = j->in[1] + r * RUN;
    float *y = j->out[0] + r * RUN;
    const size_t n = run_size(j->n, r);
    for (size_t i = 0; i < n; i += VW) {
        const vf g = vget(gate + i, n - i);
        vput(y + i, g * vsigmoid(g) * vget(up + i, n - i), n - i);
    }
}
static void swiglu_forward(float *y, const float *gate, const float *up, size_t n) {
    runs(swiglu_run, (Job){{y}, {gate, up}, .n = n});
}

static void swiglu_run_backward(const void *job, size_t r) {
    const Job *j = job;
    float *dgate = at(j->out[0], r * RUN), *dup = at(j->out[1], r * RUN);
    const float *dy = j->in[0] + r * RUN, *gate = j->in[1] + r * RUN, *up = j->in[2] + r * RUN;
    const size_t n = run_size(j->n, r);
    for (size_t i = 0; i < n; i += VW) {
        const vf g = vget(gate + i, n - i), s = vsigmoid(g), d = vget(dy + i, n - i);
        if (dgate) vput(dgate + i, vfma(d * vget(up + i, n - i), silu_slope(g, s), vget(dgate + i, n - i)), n - i);
        if (dup) vput(dup + i, vfma(d, g * s, vget(dup + i, n - i)), n - i);
    }
}
static void swiglu_backward(float *dgate, float *dup, const float *dy, const float *gate, const float *up, size_t n) {
    runs(swiglu_run_backward, (Job){{dgate, dup}, {dy, gate, up}, .n = n});
}
