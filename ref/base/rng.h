/* rng.h - random numbers that are the same on every platform: the state is a struct, there are no globals.
 *
 * xoshiro256++ seeded by splitmix64 (Blackman & Vigna, public domain algorithms). Normals by Box-Muller in double
 * through our own exp/log-free path is not needed: libm differences would show, so rng_normal uses only +,-,*,/ and
 * sqrt (see rng.c). */
#ifndef HYB_RNG_H
#define HYB_RNG_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t s[4];
} Rng;

void rng_seed(Rng *r, uint64_t seed);
/* A stream of its own for (seed, a, b): what makes batches a pure function of (seed, step). */
void rng_seed3(Rng *r, uint64_t seed, uint64_t a, uint64_t b);
uint64_t rng_u64(Rng *r);
/* Uniform integer in [0, n), unbiased (rejection); n >= 1. */
uint64_t rng_below(Rng *r, uint64_t n);
/* Uniform in [0, 1) with 53 bits. */
double rng_uniform(Rng *r);
/* Standard normal, identical bits on every IEEE machine. */
double rng_normal(Rng *r);
/* Fisher-Yates on n ints. */
void rng_shuffle(Rng *r, int *x, size_t n);

#endif
