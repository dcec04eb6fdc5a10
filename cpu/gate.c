/* gate.c - delta_gate and gla_gate. With few heads one vector spans several tokens: the heads' parameters are repeated over VW tokens
 * into a pattern, a whole number of vectors. With more than PATTERN_HEADS heads the pattern is one token, in the caller's arrays. */
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
static void delta_gate_run(float *g, float *beta, const float *a, const float *b, const Pattern *p, size_t n) {
    for (size_t i = 0; i < n; i += p->period)
        for (size_t j = 0; j < p->period && i + j < n; j += VW) {
            const size_t at = i + j, k = p->period - j < n - at ? p->period - j : n - at;
            vput(g + at, vset(0) - vexp(vget(p->A_log + j, k)) * vsoftplus(vget(a + at, k) + vget(p->dt_bias + j, k)), k);
            vput(beta + at, vsigmoid(vget(b + at, k)), k);
        }
}
static void delta_gate_forward(float *g, float *beta, const float *a, const float *b, const float *A_log, const float *dt_bias, int N,
                               int H) {
    Pattern p;
    pattern_make(&p, A_log, dt_bias, H);
    const size_t n = (size_t)N * H, run = PATTERNS_PER_RUN * p.period, runs = (n + run - 1) / run;
#pragma omp parallel for if (n > ALONE / 8)
    for (size_t r = 0; r < runs; r++) {
        const size_t i = r * run;
        delta_gate_run(g + i, beta + i, a + i, b + i, &p, n - i < run ? n - i : run);
    }
}

/* the slope of g in a (and in dt_bias): -exp(A_log) sigmoid(a + dt_bias) */
INLINE vf delta_gate_slope(const float *a, const Pattern *p, size_t j, size_t k) {
    return vset(0) - vexp(vget(p->A_log + j, k)) * vsigmoid(vget(a, k) + vget(p->dt_bias + j, k));
}
static void delta_gate_run_backward(float *da, float *db, const float *dg, const float *dbeta, const float *a, const float *beta,
                                    const Pattern *p, size_t n) {
    for (size_t i = 0; i < n; i += p->period)
        for (size_t j = 0; j < p->period && i + j < n; j += VW) {
            const size_t at = i + j, k = p->period - j < n - at ? p->period - j : n - at;
            const vf s = vget(beta + at, k);
            vput(da + at, vfma(vget(dg + at, k), delta_gate_slope(a + at, p, j, k), vget(da + at, k)), k);
            vput(db + at, vfma(vget(dbeta + at, k), s * (vset(1) - s), vget(db + at, k)), k);
        }
}
/* Sums over tokens, on one thread: into a pattern first, then over its tokens. */
static void delta_gate_parameters(float *dA_log, float *ddt_bias, const float *dg, const float *a, const float *g, const Pattern *p, size_t n,
                                  size_t H) {
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
static void delta_gate_backward(float *da, float *db, float *dA_log, float *ddt_bias, const float *dg, const float *dbeta, const float *a,
                                const float *g, const float *beta, const float *A_log, const float *dt_bias, int N, int H) {
    Pattern p;
    pattern_make(&p, A_log, dt_bias, H);
    const size_t n = (size_t)N * H, run = PATTERNS_PER_RUN * p.period, runs = (n + run - 1) / run;
#pragma omp parallel for if (n > ALONE / 8)
    for (size_t r = 0; r < runs; r++) {
        const size_t i = r * run;
        delta_gate_run_backward(da + i, db + i, dg + i, dbeta + i, a + i, beta + i, &p, n - i < run ? n - i : run);
    }
    if (dA_log || ddt_bias) delta_gate_parameters(dA_log, ddt_bias, dg, a, g, &p, n, H);
}

static void gla_gate_run(float *g, const float *x, float scale, size_t n) {
    for (size_t i = 0; i < n; i += VW) vput(g + i, vset(scale) * vsoftplus(vset(0) - vget(x + i, n - i)), n - i);
}
static void gla_gate_forward(float *g, const float *x, double normalizer, size_t n) {
#pragma omp parallel for if (n > ALONE / 4)
    for (size_t r = 0; r < run_count(n); r++) gla_gate_run(g + r * RUN, x + r * RUN, (float)(-1 / normalizer), run_size(n, r));
}
static void gla_gate_run_backward(float *dx, const float *dg, const float *x, float scale, size_t n) {
    for (size_t i = 0; i < n; i += VW) { // 1 - sigmoid(x) = sigmoid(-x)
        const vf s = vsigmoid(vset(0) - vget(x + i, n - i));
        vput(dx + i, vfma(vget(dg + i, n - i) * vset(scale), s, vget(dx + i, n - i)), n - i);
    }
}
static void gla_gate_backward(float *dx, const float *dg, const float *x, double normalizer, size_t n) {
#pragma omp parallel for if (n > ALONE / 4)
    for (size_t r = 0; r < run_count(n); r++)
        gla_gate_run_backward(dx + r * RUN, dg + r * RUN, x + r * RUN, (float)(1 / normalizer), run_size(n, r));
}
