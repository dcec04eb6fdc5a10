/* pyrandom.h - the random streams of CPython's `random` and of NumPy's legacy `numpy.random`, number for number,
 * so that samples made here are those of evaluation harnesses written in Python.
 *
 * Both are the Mersenne twister MT19937 (Matsumoto & Nishimura 1998); they differ in seeding and in how numbers are
 * made of words.
 * Source: ref/eval/README.md 2. Nothing but evaluation uses these; everything else draws from base/rng.h. */
#ifndef HYB_PYRANDOM_H
#define HYB_PYRANDOM_H
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

typedef struct {
    uint32_t word[624];
    int at;
} PyRandom;

void pyrandom_seed(PyRandom *r, uint64_t seed); /* random.seed(int), random.Random(int) */
void nprandom_seed(PyRandom *r, uint32_t seed); /* numpy.random.seed */

uint32_t pyrandom_bits(PyRandom *r, int k);                      /* getrandbits(k), 1 <= k <= 32 */
double pyrandom_real(PyRandom *r);                               /* random() in [0, 1) */
uint32_t pyrandom_below(PyRandom *r, uint32_t n);                /* randrange(n), n >= 1; also choice() */
int64_t pyrandom_int(PyRandom *r, int64_t lo, int64_t hi);       /* randint: both ends included, hi - lo < 2^32 - 1 */
void pyrandom_shuffle(PyRandom *r, int *x, size_t n);            /* shuffle() */
void pyrandom_choices(PyRandom *r, uint32_t n, int k, int *out); /* choices(range(n), k=k): with replacement */
/* sample(range(n), k): k distinct in drawing order. ERR_USAGE when k > n, where Python raises ValueError; ERR_MEMORY.
 * */
int pyrandom_sample(PyRandom *r, size_t n, int k, int *out, Err *e);
void pyrandom_uuid4(PyRandom *r, char out[37]); /* str(uuid.UUID(int=getrandbits(128), version=4)) */
int64_t nprandom_int(PyRandom *r, int64_t lo,
                     int64_t hi); /* numpy.random.randint(lo, hi): hi excluded, hi - lo < 2^32 */

#endif
