/* gate.c - delta_gate and gla_gate. With few heads one vector spans several tokens: the heads' parameters are repeated
 * over VW tokens into a pattern, a whole number of vectors. With more than PATTERN_HEADS heads the pattern is one
 * token, in the caller's arrays. */
#include "parallel.h"

enum { PATTERN_HEADS = 64, PATTERN = PATTERN_HEADS * VW, PATTERNS_PER_RUN = 16 };

typedef struct {
    const float *A_log, *dt_bias;
    size_t period;
    float a_store[PATTERN], dt_store[PATTERN];
} Pattern;

static void pattern_make(Pattern *p, const float *A_log, const float *dt_bias, size_t H) {
    *p = (Pattern){.A_log = A_log, .dt_bias = dt_bias, .period = H};
    if (H > PATTERN_HEADS) return;
    for (size_t i = 0; i < VW * H; i++) p->a_store[i] = A_log[i % H], p->dt_store[i] = dt_bias[i % H];
    p->A_log = p->a_store, p->dt_bias = p->dt_store, p->period = VW * H;
}

/* n elements from the beginning of a pattern */
static void delta_gate_run(float *g, float *beta, const real *a, const real *b, const Pattern *p, size_t n) {
    for (size_t i = 0; i < n; i += p->period)
        for (size_t j = 0; j < p->period && i + j < n; j += VW) {
            const size_t at = i + j, k = p->period - j < n - at ? p->period - j : n - at;
            vput(g + at, vset(0) - vexp(vget(p->A_log + j, k)) * vsoftplus(vget(a + at, k) + vget(p->dt_bias + j, k)),
                 k);
            vput(beta + at, vsigmoid(vget(b + at, k)), k);
        }
}
typedef struct {
    Job args;
    const Pattern *p;
    size_t run;
} GateJob;

static void delta_gate_task(const void *job, size_t r) {
    const GateJob *j = job;
    const size_t i = r * j->run, n = block_size(r, j->run, j->args.n);
    delta_gate_run(j->args.wout[0] + i, j->args.wout[1] + i, j->args.in[0] + i, j->args.in[1] + i, j->p, n);
}
static void delta_gate_share(PoolTask *task, Job args, const Pattern *p) {
    const GateJob j = {args, p, PATTERNS_PER_RUN * p->period};
    pool_run_if(args.n > ALONE / 8, (args.n + j.run - 1) / j.run, task, &j);
}
static void delta_gate_forward(float *g, float *beta, const real *a, const real *b, const float *A_log,
                               const float *dt_bias, int N, int H) {
    Pattern p;
    pattern_make(&p, A_log, dt_bias, H);
    delta_gate_share(delta_gate_task, (Job){.wout = {g, beta}, .in = {a, b}, .n = (size_t)N * H}, &p);
}

/* the slope of g in a (and in dt_bias): -exp(A_log) sigmoid(a + dt_bias) */
INLINE vf delta_gate_slope(const real *a, const Pattern *p, size_t j, size_t k) {
    return vset(0) - vexp(vget(p->A_log + j, k)) * vsigmoid(vget(a, k) + vget(p->dt_bias + j, k));
}
static void delta_gate_run_backward(real *da, real *db, const float *dg, const float *dbeta, const real *a,
                                    const float *beta, const Pattern *p, size_t n) {
    for (size_t i = 0; i < n; i += p->period)
        for (size_t j = 0; j < p->period && i + j < n; j += VW) {
            const size_t at = i + j, k = p->period - j < n - at ? p->period - j : n - at;
            const vf s = vget(beta + at, k);
            vput(da + at, vfma(vget(dg + at, k), delta_gate_slope(a + at, p, j, k), vget(da + at, k)), k);
            vput(db + at, vfma(vget(dbeta + at, k), s * (vset(1) - s), vget(db + at, k)), k);
        }
}
/* Sums over tokens, on one thread: into a pattern first, then over its tokens. */
static void delta_gate_parameters(float *dA_log, float *ddt_bias, const float *dg, const real *a, const float *g,
                                  const Pattern *p, size_t n, size_t H) {
    float sums[2][PATTERN] = {{0}};
    float *s0 = p->period > H ? sums[0] : dA_log, *s1 = p->period > H ? sums[1] : ddt_bias;
    for (size_t i = 0; i < n; i += p->period)
        for (size_t j = 0; j < p->period && i + j < n; j += VW) {
            const size_t at = i + j, k = p->period - j < n - at ? p->period - j : n - at;
            const vf d = vget(dg + at, k);
            if (dA_log) vput(s0 + j, vfma(d, vget(g + at, k), vget(s0 + j, k)), k);
            if (ddt_bias) vput(s1 + j, vfma(d, delta_gate_slope(a + at, p, j, k), vget(s1 + j, k)), k);
        }
    for (size_t i = 0; p->period > H && i < p->period; i++) {
        if (dA_log) dA_log[i % H] += s0[i];
        if (ddt_bias) ddt_bias[i % H] += s1[i];
    }
}
static void delta_gate_task_backward(const void *job, size_t r) {
    const GateJob *j = job;
    const size_t i = r * j->run, n = block_size(r, j->run, j->args.n);
    const float *const *in = j->args.win;
    delta_gate_run_backward(j->args.out[0] + i, j->args.out[1] + i, in[0] + i, in[1] + i, j->args.in[0] + i, in[2] + i,
                            j->p, n);
}
static void delta_gate_backward(real *da, real *db, float *dA_log, float *ddt_bias, const float *dg, const float *dbeta,
                                const real *a, const float *g, const float *beta, const float *A_log,
                                const float *dt_bias, int N, int H) {
    const size_t n = (size_t)N * H;
    Pattern p;
    pattern_make(&p, A_log, dt_bias, H);
    delta_gate_share(delta_gate_task_backward, (Job){.out = {da, db}, .in = {a}, .win = {dg, dbeta, beta}, .n = n}, &p);
    if (dA_log || ddt_bias) delta_gate_parameters(dA_log, ddt_bias, dg, a, g, &p, n, H);
}

static void gla_gate_run(const void *job, size_t r) {
    const Job *j = job;
    const real *x = j->in[0] + r * RUN;
    float *g = j->wout[0] + r * RUN;
    const size_t n = run_size(j->n, r);
    for (size_t i = 0; i < n; i += VW) vput(g + i, vset(j->a) * vsoftplus(vset(0) - vget(x + i, n - i)), n - i);
}
static void gla_gate_forward(float *g, const real *x, double normalizer, size_t n) {
    runs(gla_gate_run, (Job){.wout = {g}, .in = {x}, .n = n, .a = (float)(-1 / normalizer)});
}
static void gla_gate_run_backward(const void *job, size_t r) {
    const Job *j = job;
    const float *dg = j->win[0] + r * RUN;
    const real *x = j->in[0] + r * RUN;
    real *dx = j->out[0] + r * RUN;
    const size_t n = run_size(j->n, r);
    for (size_t i = 0; i < n; i += VW) { // 1 - sigmoid(x) = sigmoid(-x)
        const vf s = vsigmoid(vset(0) - vget(x + i, n - i));
        vput(dx + i, vfma(vget(dg + i, n - i) * vset(j->a), s, vget(dx + i, n - i)), n - i);
    }
}
static void gla_gate_backward(real *dx, const float *dg, const real *x, double normalizer, size_t n) {
    runs(gla_gate_run_backward, (Job){.out = {dx}, .in = {x}, .win = {dg}, .n = n, .a = (float)(1 / normalizer)});
}
