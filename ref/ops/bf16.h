/* bf16.h - what BF16 tensors are stored in: the upper half of a float. All arithmetic is done in float: reading is
 * exact, writing rounds to nearest even, and a NaN stays one (dtype.c and cuda/bf16.h round the same way). */
#ifndef HYB_BF16_H
#define HYB_BF16_H
#include "ops/ops.h"
#include <string.h>

struct Bf16 {
    uint16_t bits;
};

static inline float bf16_float(Bf16 x) {
    const uint32_t u = (uint32_t)x.bits << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline Bf16 bf16_round(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    const int nan = (u & 0x7fffffff) > 0x7f800000;
    return (Bf16){(uint16_t)(nan ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16)};
}

/* Stochastic rounding of AdamW's weights without a master, as ops_decl.h says: the key of tensor t, and element i. */
static inline uint64_t bf16_mix(uint64_t z) { // splitmix64, as in base/rng.c
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static const uint64_t BF16_PHI = 0x9e3779b97f4a7c15u;
static inline uint64_t bf16_key(uint64_t seed, int64_t step, int t) {
    return bf16_mix(bf16_mix(bf16_mix(seed + BF16_PHI) ^ (uint64_t)step) + (uint64_t)t);
}
static inline Bf16 bf16_dither(float p, uint64_t key, size_t i) {
    uint32_t u;
    memcpy(&u, &p, 4);
    const uint32_t random = (uint32_t)(bf16_mix(key + i / 4 * BF16_PHI) >> 16 * (i % 4)) & 0xffff;
    return (u & 0x7f800000) == 0x7f800000 ? bf16_round(p) : (Bf16){(uint16_t)((u + random) >> 16)};
}
#endif
