/* pyrandom.c - see pyrandom.h. */
#include "eval/pyrandom.h"
#include "base/mem.h"
#include <stdio.h>

enum { WORDS = 624, MIDDLE = 397 };

/* Knuth's multiplicative filling; NumPy's legacy seeding is this alone. */
void nprandom_seed(PyRandom *r, uint32_t seed) {
    r->word[0] = seed;
    for (uint32_t i = 1; i < WORDS; i++) r->word[i] = 1812433253u * (r->word[i - 1] ^ r->word[i - 1] >> 30) + i;
    r->at = WORDS;
}

/* init_by_array with the seed's 32-bit words, least significant first; a seed below 2^32 is one word. */
void pyrandom_seed(PyRandom *r, uint64_t seed) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t n = key[1] ? 2 : 1;
    uint32_t *w = r->word, i = 1, j = 0;
    nprandom_seed(r, 19650218u);
    for (int k = 0; k < WORDS; k++) {
        w[i] = (w[i] ^ (w[i - 1] ^ w[i - 1] >> 30) * 1664525u) + key[j] + j;
        if (++i == WORDS) w[0] = w[WORDS - 1], i = 1;
        if (++j == n) j = 0;
    }
    for (int k = 1; k < WORDS; k++) {
        w[i] = (w[i] ^ (w[i - 1] ^ w[i - 1] >> 30) * 1566083941u) - i;
        if (++i == WORDS) w[0] = w[WORDS - 1], i = 1;
    }
    w[0] = 0x80000000u;
    r->at = WORDS;
}

static uint32_t draw(PyRandom *r) {
    uint32_t *w = r->word;
    if (r->at == WORDS) {
        for (int i = 0; i < WORDS; i++) {
            const uint32_t y = (w[i] & 0x80000000u) | (w[(i + 1) % WORDS] & 0x7fffffffu);
            w[i] = w[(i + MIDDLE) % WORDS] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        r->at = 0;
    }
    uint32_t y = w[r->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

uint32_t pyrandom_bits(PyRandom *r, int k) { return draw(r) >> (32 - k); }

double pyrandom_real(PyRandom *r) {
    const uint32_t a = draw(r) >> 5, b = draw(r) >> 6;
    return (a * 67108864.0 + b) / 9007199254740992.0;
}

/* Bits as many as n has, drawn again until they are below n: one more than needed when n is a power of two. */
uint32_t pyrandom_below(PyRandom *r, uint32_t n) {
    int bits = 0;
    while (bits < 32 && n >> bits) bits++;
    uint32_t x;
    do x = pyrandom_bits(r, bits);
    while (x >= n);
    return x;
}

int64_t pyrandom_int(PyRandom *r, int64_t lo, int64_t hi) { return lo + pyrandom_below(r, (uint32_t)(hi - lo + 1)); }

void pyrandom_shuffle(PyRandom *r, int *x, size_t n) {
    for (size_t i = n; i-- > 1;) {
        const size_t j = pyrandom_below(r, (uint32_t)(i + 1));
        const int t = x[i];
        x[i] = x[j];
        x[j] = t;
    }
}

void pyrandom_choices(PyRandom *r, uint32_t n, int k, int *out) {
    for (int i = 0; i < k; i++) out[i] = (int)(pyrandom_real(r) * n);
}

/* CPython keeps a pool of all n when that is smaller than a set of the k chosen would be, else the set;
 * the draws differ. */
int pyrandom_sample(PyRandom *r, size_t n, int k, int *out, Err *e) {
    void *mem;
    if (k < 0 || (size_t)k > n) return err_set(e, ERR_USAGE, "sampling: %d of %zu", k, n);
    size_t set = 21, power = 1;
    while (k > 5 && power < 3 * (size_t)k) power *= 4;
    if (k > 5) set += power;
    TRY(mem_alloc(&mem, (n + 1) * sizeof(int), "sampling", e));
    int *x = mem;
    if (n <= set) {
        for (size_t i = 0; i < n; i++) x[i] = (int)i;
        for (int i = 0; i < k; i++) {
            const uint32_t j = pyrandom_below(r, (uint32_t)(n - i));
            out[i] = x[j];
            x[j] = x[n - i - 1];
        }
    } else
        for (int i = 0; i < k; i++) {
            uint32_t j;
            do j = pyrandom_below(r, (uint32_t)n);
            while (x[j]);
            x[j] = 1;
            out[i] = (int)j;
        }
    mem_free(mem);
    return OK;
}

void pyrandom_uuid4(PyRandom *r, char out[37]) {
    uint32_t w[4]; // least significant word first
    for (int i = 0; i < 4; i++) w[i] = draw(r);
    w[2] = (w[2] & ~0xf000u) | 0x4000u;        // version 4: bits 76..79
    w[1] = (w[1] & 0x3fffffffu) | 0x80000000u; // variant: bits 62, 63
    snprintf(out, 37, "%08x-%04x-%04x-%04x-%04x%08x", w[3], w[2] >> 16, w[2] & 0xffff, w[1] >> 16, w[1] & 0xffff, w[0]);
}

int64_t nprandom_int(PyRandom *r, int64_t lo, int64_t hi) {
    const uint32_t range = (uint32_t)(hi - 1 - lo);
    uint32_t mask = range, x;
    for (int s = 1; s < 32; s *= 2) mask |= mask >> s;
    if (!range) return lo;
    do x = draw(r) & mask;
    while (x > range);
    return lo + x;
}
