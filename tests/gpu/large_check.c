/* large_check.c - see large_check.h. */
#include "gpu/large_check.h"
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/rng.h"

enum { D = 128, OUTPUTS = 4 }; /* o, dq, dk, dv: n elements each */
typedef uint16_t Half;
static Half half_of(double x) {
    const float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, 4);
    return (Half)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
static double of_half(Half h) {
    const uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
typedef struct {
    Backend *be;
    void *held[24];
    int n;
    Err *e;
    int rc;
} Run;
static void *take(Run *r, size_t bytes) {
    void *p = NULL;
    if (!r->rc) r->rc = r->be->alloc(r->be, &p, bytes, "large check", r->e); /* zeroed */
    if (p) r->held[r->n++] = p;
    return p;
}
/* n random numbers in [shift - scale, shift + scale): BF16, or float where `wide`. */
static void *numbers(Run *r, size_t n, double scale, double shift, int wide, uint64_t seed) {
    void *p = take(r, n * (wide ? 4 : 2)), *host = NULL;
    Rng g;
    rng_seed(&g, seed);
    if (!r->rc) r->rc = mem_alloc(&host, n * 4, "large check", r->e);
    for (size_t i = 0; i < n && !r->rc; i++) {
        const double x = shift + scale * ((double)rng_below(&g, 1 << 20) / (1 << 19) - 1);
        if (wide) ((float *)host)[i] = (float)x;
        else ((Half *)host)[i] = half_of(x);
    }
    if (!r->rc) r->be->upload(r->be, p, host, n * (wide ? 4 : 2));
    if (!r->rc) r->rc = r->be->sync(r->be, r->e);
    mem_free(host);
    return p;
}
/* Outputs of one run with rung `version` of the ladder. */
static int run(const char *backend, const char *op, const char *version, int T, int H, Half *out, size_t n, Err *e) {
    Run r = {.e = e};
    setenv("HYB_CUDA_VERSION", version, 1);
    r.rc = backend_open(&r.be, backend, 1, e);
    unsetenv("HYB_CUDA_VERSION");
    if (r.rc) return r.rc;
    const Ops16 *ops = (const Ops16 *)r.be->op;
    const AttnDims at = {1, T, 0, 0, H, H, D, 0};
    const DeltaDims d = {1, T, H, H, D, D, 64};
    const int attention = !strcmp(op, "attention"), gla = !strcmp(op, "gla"), kda = !strcmp(op, "kda");
    const size_t gates = gla || kda ? n : n / D;
    void *q = numbers(&r, n, attention ? 1 : 0.1, 0, 0, 1), *k = numbers(&r, n, attention ? 1 : 0.15, 0, 0, 2),
         *v = numbers(&r, n, 1, 0, 0, 3), *dout = numbers(&r, n, 1, 0, 0, 4), *o[OUTPUTS];
    for (int i = 0; i < OUTPUTS; i++) o[i] = take(&r, n * 2);
    void *work = take(&r, attention ? attention_work(&at) : kda_work(&d));
    if (attention) {
        float *lse = take(&r, (size_t)T * H * 4);
        if (!r.rc) {
            ops->attention_forward(o[0], lse, q, k, v, NULL, 0.088, work, &at);
            ops->attention_backward(o[1], o[2], o[3], dout, o[0], lse, q, k, v, NULL, 0.088, work, &at);
        }
    } else {
        float *g = numbers(&r, gates, 0.05, -0.05, 1, 5), *beta = numbers(&r, n / D, 0.5, 0.5, 1, 6),
              *dg = take(&r, gates * 4), *db = take(&r, n / D * 4), *state = take(&r, (size_t)H * D * D * 4),
              *ds = take(&r, (size_t)H * D * D * 4);
        void *states = take(&r, delta_states(&d) * 2);
        if (!r.rc && gla) {
            ops->gla_forward(o[0], states, state, q, k, v, g, NULL, 0.088, work, &d);
            ops->gla_backward(o[1], o[2], o[3], dg, ds, dout, states, q, k, v, g, NULL, 0.088, work, &d);
        } else if (!r.rc) {
            (kda ? ops->kda_forward : ops->delta_rule_forward)(o[0], states, state, q, k, v, g, beta, NULL, 0.088, work,
                                                               &d);
            (kda ? ops->kda_backward : ops->delta_rule_backward)(o[1], o[2], o[3], dg, db, ds, dout, states, q, k, v, g,
                                                                 beta, NULL, 0.088, work, &d);
        }
    }
    for (int i = 0; i < OUTPUTS && !r.rc; i++) r.be->download(r.be, out + i * n, o[i], n * 2);
    if (!r.rc) r.rc = r.be->sync(r.be, e);
    while (r.n) r.be->release(r.be, r.held[--r.n]);
    backend_close(r.be);
    return r.rc;
}
int large_check(const char *backend, const char *op, int small, double *far, int *same, Err *e) {
    const int T = small ? 200 : 8192, H = small ? 2 : 16;
    const size_t n = (size_t)T * H * D, all = n * OUTPUTS;
    void *host;
    *far = 0;
    TRY(mem_alloc(&host, 3 * all * sizeof(Half), "large check", e));
    Half *fast = host, *again = fast + all, *plain = again + all;
    int rc = run(backend, op, "0", T, H, fast, n, e);
    if (!rc) rc = run(backend, op, "0", T, H, again, n, e);
    if (!rc) rc = run(backend, op, "1", T, H, plain, n, e);
    for (int i = 0; i < OUTPUTS && !rc; i++) {
        double num = 0, den = 0;
        for (size_t j = i * n; j < (i + 1) * n; j++) {
            const double x = of_half(fast[j]) - of_half(plain[j]);
            num += x * x, den += of_half(plain[j]) * of_half(plain[j]);
        }
        const double rel = den > 0 ? sqrt(num / den) : INFINITY;
        if (!(rel <= *far)) *far = rel;
    }
    *same = !rc && !memcmp(fast, again, all * sizeof(Half));
    mem_free(host);
    return rc;
}
