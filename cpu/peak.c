/* peak.c - the two ceilings that every figure is held against: multiply-adds from registers, and reading memory. */
#include "parallel.h"

/* Twelve chains hide the latency; the empty asm keeps the compiler from seeing that the numbers do not matter. */
static float fma_chains(size_t rounds) {
    const vf a = vset(0.999f), b = vset(1e-3f);
    vf x0 = a, x1 = a, x2 = a, x3 = a, x4 = a, x5 = a, x6 = a, x7 = a, x8 = a, x9 = a, xa = a, xb = a;
    for (size_t i = 0; i < rounds; i++) {
        x0 = vfma(x0, a, b), x1 = vfma(x1, a, b), x2 = vfma(x2, a, b), x3 = vfma(x3, a, b);
        x4 = vfma(x4, a, b), x5 = vfma(x5, a, b), x6 = vfma(x6, a, b), x7 = vfma(x7, a, b);
        x8 = vfma(x8, a, b), x9 = vfma(x9, a, b), xa = vfma(xa, a, b), xb = vfma(xb, a, b);
#ifdef __x86_64__
        __asm__ volatile("" : "+x"(x0), "+x"(x1), "+x"(x2), "+x"(x3), "+x"(x4), "+x"(x5), "+x"(x6), "+x"(x7), "+x"(x8), "+x"(x9), "+x"(xa), "+x"(xb));
#elif defined(__aarch64__)
        __asm__ volatile("" : "+w"(x0), "+w"(x1), "+w"(x2), "+w"(x3), "+w"(x4), "+w"(x5), "+w"(x6), "+w"(x7), "+w"(x8), "+w"(x9), "+w"(xa), "+w"(xb));
#endif
    }
    return vsum(((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7)) + ((x8 + x9) + (xa + xb)));
}
static double fma_run(size_t rounds) {
    double done = 0;
#pragma omp parallel reduction(+ : done)
    done += fma_chains(rounds) > 0 ? 24.0 * VW * (double)rounds : 0;
    return done;
}

static float read_sum(const float *x, size_t n) {
    vf s0 = vset(0), s1 = s0, s2 = s0, s3 = s0;
    for (size_t i = 0; i + 4 * VW <= n; i += 4 * VW)
        s0 = s0 + vload(x + i), s1 = s1 + vload(x + i + VW), s2 = s2 + vload(x + i + 2 * VW), s3 = s3 + vload(x + i + 3 * VW);
    return vsum((s0 + s1) + (s2 + s3));
}
static float read_run(const float *x, size_t n) {
    float total = 0;
#pragma omp parallel for reduction(+ : total)
    for (size_t r = 0; r < n / RUN; r++) total += read_sum(x + r * RUN, RUN);
    return total;
}
