/* kl_exact.h - head_kl's value for given logits: x is rows of the unit matrix and w, wt are the logits themselves, so
 * that nothing is lost before the op. The truth in long double, without cancellation. */
#ifndef HYB_TEST_KL_EXACT_H
#define HYB_TEST_KL_EXACT_H
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include "base/rng.h"
#include "ops/backend.h"

enum { KL_ROWS = 4, KL_VOC = 2083 }; // no multiple of any vector

/* e^d - 1 - d */
static inline long double kl_exact_phi(long double d) {
    if (fabsl(d) > 0.5L) return expm1l(d) - d;
    long double term = d * d / 2, sum = 0;
    for (int k = 3; k < 40; k++) sum += term, term *= d / k;
    return sum;
}
static inline long double kl_exact(const double *s, const double *t, long double tau) {
    long double max_s = s[0], max_t = t[0], sum_t = 0, sum_s = 0, more = 0, kl = 0;
    for (int v = 1; v < KL_VOC; v++) max_s = fmaxl(max_s, s[v]), max_t = fmaxl(max_t, t[v]);
    for (int v = 0; v < KL_VOC; v++) {
        const long double u = (((long double)s[v] - t[v]) - (max_s - max_t)) / tau, e_t = expl((t[v] - max_t) / tau);
        sum_t += e_t;
        sum_s += expl((s[v] - max_s) / tau);
        more += fabsl(u) < 1 ? e_t * expm1l(u) : expl((s[v] - max_s) / tau) - e_t;
    }
    const long double D = fabsl(more) < sum_t / 2 ? log1pl(more / sum_t) : logl(sum_s / sum_t);
    for (int v = 0; v < KL_VOC; v++) {
        const long double d = (((long double)s[v] - t[v]) - (max_s - max_t)) / tau - D;
        const long double pt = expl((t[v] - max_t) / tau) / sum_t, ps = expl((s[v] - max_s) / tau) / sum_s;
        kl += fabsl(d) > 0.5L ? ps - pt - pt * d : pt * kl_exact_phi(d);
    }
    return tau * tau * kl;
}

static inline void *kl_exact_put(Backend *be, DType type, const double *x, size_t n) {
    Err e = {0};
    void *p = NULL, *host = malloc(n * 8);
    ck_assert_int_eq(dtype_convert(type, host, DT_F64, x, n), 0);
    ck_assert_int_eq(be->alloc(be, &p, n * (size_t)dtype_bits(type) / 8, "test", &e), OK);
    be->upload(be, p, host, n * (size_t)dtype_bits(type) / 8);
    free(host);
    return p;
}

/* Student logits beside a teacher's, as the backend's own numbers. near: what they differ by; 0: they are others. */
static inline void kl_exact_logits(double *s, double *t, size_t n, double size, double near, DType type, Rng *r) {
    for (size_t i = 0; i < n; i++) {
        t[i] = size * (2 * rng_uniform(r) - 1);
        s[i] = near > 0 ? t[i] + near * (2 * rng_uniform(r) - 1) : size * (2 * rng_uniform(r) - 1);
    }
    double block[64];
    for (double *p = s; p; p = p == s ? t : NULL)
        for (size_t i = 0; i < n; i += 64) { // to the backend's type and back
            const size_t k = n - i < 64 ? n - i : 64;
            unsigned char narrow[64 * 8];
            dtype_convert(type, narrow, DT_F64, p + i, k);
            dtype_convert(DT_F64, block, type, narrow, k);
            memcpy(p + i, block, k * sizeof *block);
        }
}

/* Every temperature, ordinary, near and sharp logits: right to `tol` relative, never negative. */
static inline void kl_exact_check(Backend *be, double tol) {
    static const double tau[] = {0.01, 0.1, 1, 2, 4, 10, 100, 1000}, size[] = {3, 3, 3, 20, 20},
                        near[] = {0, 0.1, 1e-3, 0, 0.1};
    const HeadDims d = {KL_ROWS, KL_ROWS, KL_ROWS, KL_VOC, KL_ROWS};
    const size_t n = (size_t)KL_ROWS * KL_VOC;
    double *s = malloc(n * 8), *t = malloc(n * 8), *w = malloc(n * 8), x[KL_ROWS * KL_ROWS] = {0};
    Err e = {0};
    Rng r;
    rng_seed(&r, 5);
    for (int i = 0; i < KL_ROWS; i++) x[i * KL_ROWS + i] = 1;
    for (size_t c = 0; c < sizeof size / sizeof *size; c++) {
        void *px = kl_exact_put(be, be->real_type, x, KL_ROWS * KL_ROWS), *pw, *pt, *loss, *work;
        kl_exact_logits(s, t, n, size[c], near[c], be->real_type, &r);
        for (int i = 0; i < KL_ROWS; i++)
            for (int v = 0; v < KL_VOC; v++) w[(size_t)v * KL_ROWS + i] = s[(size_t)i * KL_VOC + v];
        pw = kl_exact_put(be, be->real_type, w, n);
        for (int i = 0; i < KL_ROWS; i++)
            for (int v = 0; v < KL_VOC; v++) w[(size_t)v * KL_ROWS + i] = t[(size_t)i * KL_VOC + v];
        pt = kl_exact_put(be, be->real_type, w, n);
        ck_assert_int_eq(be->alloc(be, &loss, KL_ROWS * be->wide_size, "test", &e), OK);
        ck_assert_int_eq(be->alloc(be, &work, head_work(&d), "test", &e), OK);
        for (size_t k = 0; k < sizeof tau / sizeof *tau; k++) {
            double got[KL_ROWS];
            unsigned char raw[KL_ROWS * 8];
            be->op->head_kl(loss, NULL, NULL, px, pw, px, pt, NULL, tau[k], work, &d);
            ck_assert_int_eq(be->sync(be, &e), OK);
            be->download(be, raw, loss, KL_ROWS * be->wide_size);
            dtype_convert(DT_F64, got, be->wide_type, raw, KL_ROWS);
            for (int i = 0; i < KL_ROWS; i++) {
                const double want = (double)kl_exact(s + (size_t)i * KL_VOC, t + (size_t)i * KL_VOC, tau[k]);
                ck_assert_msg(got[i] >= 0 && fabs(got[i] - want) <= tol * want,
                              "%s, logits +-%g, near %g, tau %g: got %.9g, expected %.9g, relative %.2g", be->name,
                              size[c], near[c], tau[k], got[i], want, (got[i] - want) / want);
            }
        }
        be->release(be, px), be->release(be, pw), be->release(be, pt), be->release(be, loss), be->release(be, work);
    }
    free(s), free(t), free(w);
}
#endif
