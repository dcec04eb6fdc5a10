/* rng.c - xoshiro256++ and splitmix64 (Blackman & Vigna, prng.di.unimi.it, public domain algorithms). See
 * rng.h. */
#include "base/rng.h"
#include <math.h>
#include <string.h>

static uint64_t rotl(uint64_t x, int k) { return x << k | x >> (64 - k); }

static uint64_t mix64(uint64_t z) { /* the output function of splitmix64 */
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

void rng_seed(Rng *r, uint64_t seed) {
    for (int i = 0; i < 4; i++) r->s[i] = mix64(seed += UINT64_C(0x9e3779b97f4a7c15));
}

void rng_seed3(Rng *r, uint64_t seed, uint64_t a, uint64_t b) {
    /* each step is a bijection of 64 bits, so (seed, a, b) and (seed, a, b') never share a stream */
    uint64_t h = mix64(seed + UINT64_C(0x9e3779b97f4a7c15));
    h = mix64((h ^ a) + UINT64_C(0x3c6ef372fe94f82a));
    h = mix64((h ^ b) + UINT64_C(0xdaa66d2c7ddf743f));
    rng_seed(r, h);
}

uint64_t rng_u64(Rng *r) {
    uint64_t *s = r->s, out = rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

uint64_t rng_below(Rng *r, uint64_t n) {
    if (n < 2) return 0;
    uint64_t x, reject = (0 - n) % n; /* 2^64 mod n values too many */
    do x = rng_u64(r);
    while (x < reject);
    return x % n;
}

double rng_uniform(Rng *r) { return (double)(rng_u64(r) >> 11) * 0x1p-53; }

/* ln x for a normal 0 < x < 1, with + - * / only, so that the bits do not depend on a libm (nor on the
 * compiler: the project builds with -ffp-contract=off). x = m 2^k, sqrt(1/2) <= m < sqrt(2), ln m = 2
 * atanh(t), t = (m-1)/(m+1), |t| < 0.1716. The series is cut after t^21/21: relative error below 3e-17, so
 * rounding is all that is left (<= 2 ulp; test_base.c). */
static double log_exact(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int k = (int)(bits >> 52) - 1023;
    bits = (bits & UINT64_C(0xfffffffffffff)) | UINT64_C(1023) << 52;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) m *= 0.5, k++;
    double t = (m - 1) / (m + 1), z = t * t, p = 0;
    for (int i = 21; i >= 3; i -= 2) p = (p + 1.0 / i) * z;
    return k * 0.69314718055994531 + 2 * (t + t * p);
}

double rng_normal(Rng *r) {
    /* Marsaglia's polar method: a point uniform in the unit disc. The second normal of the pair is not kept:
     * a stream is its 256 bits of state and nothing else. */
    double u, v, s;
    do {
        u = 2 * rng_uniform(r) - 1;
        v = 2 * rng_uniform(r) - 1;
        s = u * u + v * v;
    } while (s >= 1 || s == 0);
    return u * sqrt(-2 * log_exact(s) / s); /* sqrt is exactly rounded by IEEE 754 */
}

void rng_shuffle(Rng *r, int *x, size_t n) {
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)rng_below(r, i);
        int t = x[i - 1];
        x[i - 1] = x[j];
        x[j] = t;
    }
}
