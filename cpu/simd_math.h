/* simd_math.h - exp, log1p, sigmoid, softplus on vectors. Bounds, checked on dense grids against libm in double
 * (tests/test_cpu.c): vexp 2 ulp (a subnormal result: 2 of its ulps), vlog1p on [0, 1] 2 ulp.
 * Polynomials: minimax fits (Lawson iteration) made for this file. NaN in gives NaN out, exp(-inf) = 0, exp(inf) = inf.
 * */
#ifndef HYB_CPU_SIMD_MATH_H
#define HYB_CPU_SIMD_MATH_H
#include "simd.h"

/* e^x = 2^n e^r with n = round(x / ln 2), r = x - n ln 2 in two parts (the first has 9 bits: exact products),
 * e^r = 1 + r + r^2 q(r); q's relative error is 0.05 x 2^-24 on |r| <= 0.3466. */
INLINE vf vexp(vf x) {
    x = vmin(vset(120), vmax(vset(-120), x));
    const vf n = vround(x * vset(0x1.715476p+0f));
    vf r = vfnma(n, vset(0x1.63p-1f), x);
    r = vfnma(n, vset(-0x1.bd0106p-13f), r);
    vf q = vset(0x1.6a243ap-10f);
    q = vfma(q, r, vset(0x1.1239ep-7f));
    q = vfma(q, r, vset(0x1.5558f2p-5f));
    q = vfma(q, r, vset(0x1.555492p-3f));
    q = vfma(q, r, vset(0x1.fffffcp-2f));
    return vldexp(vfma(r * r, q, r) + vset(1), n);
}

/* log(1 + u) for 0 <= u <= 1: 2 atanh(s), s = u / (2 + u) <= 1/3, = 2 s (1 + s^2 g(s^2)). */
INLINE vf vlog1p(vf u) {
    const vf s = u / (u + vset(2)), z = s * s;
    vf g = vset(0.12150472f);
    g = vfma(g, z, vset(0.107138276f));
    g = vfma(g, z, vset(0.14308442f));
    g = vfma(g, z, vset(0.19999439f));
    g = vfma(g, z, vset(0.33333337f));
    const vf t = s + s;
    return vfma(t, z * g, t);
}

INLINE vf vsigmoid(vf x) { return vset(1) / (vset(1) + vexp(vset(0) - x)); }
/* max(x, 0) + log1p(e^{-|x|}) */
INLINE vf vsoftplus(vf x) { return vmax(vset(0), x) + vlog1p(vexp(vset(0) - vabs(x))); }

#if BITS == 32 // for tests
static void exp_run(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += VW) vput(y + i, vexp(vget(x + i, n - i)), n - i);
}
static void log1p_run(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += VW) vput(y + i, vlog1p(vget(x + i, n - i)), n - i);
}
#endif
#endif
