/* dtype.c - names, sizes and conversions of number types. See dtype.h. */
#include "base/dtype.h"
#include <stdint.h>
#include <string.h>

static const struct {
    const char *name;
    int bits;
} types[DT_COUNT] = {
    [DT_BOOL] = {"BOOL", 8},
    [DT_U8] = {"U8", 8},
    [DT_I8] = {"I8", 8},
    [DT_U16] = {"U16", 16},
    [DT_I16] = {"I16", 16},
    [DT_F16] = {"F16", 16},
    [DT_BF16] = {"BF16", 16},
    [DT_U32] = {"U32", 32},
    [DT_I32] = {"I32", 32},
    [DT_F32] = {"F32", 32},
    [DT_U64] = {"U64", 64},
    [DT_I64] = {"I64", 64},
    [DT_F64] = {"F64", 64},
    [DT_C64] = {"C64", 64},
    [DT_F8_E5M2] = {"F8_E5M2", 8},
    [DT_F8_E4M3] = {"F8_E4M3", 8},
    [DT_F8_E8M0] = {"F8_E8M0", 8},
    [DT_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8},
    [DT_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8},
    [DT_F4] = {"F4", 4},
    [DT_F6_E2M3] = {"F6_E2M3", 6},
    [DT_F6_E3M2] = {"F6_E3M2", 6},
};

const char *dtype_name(DType t) { return (unsigned)t < DT_COUNT ? types[t].name : "?"; }

int dtype_bits(DType t) { return (unsigned)t < DT_COUNT ? types[t].bits : 0; }

int dtype_parse(const char *name, size_t len) {
    for (int t = 0; t < DT_COUNT; t++)
        if (strlen(types[t].name) == len && !memcmp(types[t].name, name, len)) return t;
    return -1;
}

/* ---- a binary floating-point number as a double's bits, and back with one rounding ---- */

/* Widening is exact: sign, exponent and fraction move; a subnormal is normalised. */
static uint64_t widen(uint64_t x, int exp_bits, int frac_bits) {
    uint64_t sign = x >> (exp_bits + frac_bits) << 63, frac = x & ((UINT64_C(1) << frac_bits) - 1);
    int top = (1 << exp_bits) - 1, exp = (int)(x >> frac_bits) & top, bias = top / 2;
    if (exp == top) return sign | UINT64_C(0x7ff) << 52 | frac << (52 - frac_bits);
    if (exp == 0) {
        if (!frac) return sign;
        for (exp = 1; !(frac >> frac_bits); exp--) frac <<= 1;
        frac &= (UINT64_C(1) << frac_bits) - 1;
    }
    return sign | (uint64_t)(exp - bias + 1023) << 52 | frac << (52 - frac_bits);
}

/* Round to nearest, ties to even, from the double's full 53 bits: going through float first would round
 * twice. A carry out of the fraction runs into the exponent, which is right: up to the next binade, from
 * subnormal to normal, from largest to Inf. */
static uint64_t narrow(uint64_t x, int exp_bits, int frac_bits) {
    uint64_t sign = x >> 63 << (exp_bits + frac_bits), frac = x & ((UINT64_C(1) << 52) - 1);
    int top = (1 << exp_bits) - 1, exp = (int)(x >> 52 & 0x7ff) - 1023 + top / 2, drop = 52 - frac_bits;
    uint64_t inf = (uint64_t)top << frac_bits;
    if ((x >> 52 & 0x7ff) == 0x7ff) /* Inf; NaN keeps its leading bits and becomes quiet */
        return sign | inf | (frac ? frac >> drop | UINT64_C(1) << (frac_bits - 1) : 0);
    if (exp >= top) return sign | inf;
    uint64_t base = 0;
    if (exp > 0) base = (uint64_t)exp << frac_bits;
    else {
        if (exp < -frac_bits)
            return sign; /* below half of the smallest subnormal; a double's own subnormals end here too */
        frac |= UINT64_C(1) << 52;
        drop += 1 - exp;
    }
    uint64_t kept = frac >> drop, rest = frac & ((UINT64_C(1) << drop) - 1), half = UINT64_C(1) << (drop - 1);
    return sign | (base + kept + (rest > half || (rest == half && (kept & 1))));
}

static const struct {
    int exp, frac;
} layout[DT_COUNT] = {[DT_F16] = {5, 10}, [DT_BF16] = {8, 7}, [DT_F32] = {8, 23}, [DT_F64] = {11, 52}};

/* Unaligned integers of 2, 4 or 8 bytes in the machine's order (which is the file's: little-endian machines
 * only). */
static uint64_t load(const void *p, size_t bytes) {
    uint64_t v8;
    uint32_t v4;
    uint16_t v2;
    if (bytes == 8) return memcpy(&v8, p, 8), v8;
    if (bytes == 4) return memcpy(&v4, p, 4), v4;
    return memcpy(&v2, p, 2), v2;
}

static void store(void *p, size_t bytes, uint64_t v) {
    uint32_t v4 = (uint32_t)v;
    uint16_t v2 = (uint16_t)v;
    if (bytes == 8) memcpy(p, &v, 8);
    else if (bytes == 4) memcpy(p, &v4, 4);
    else memcpy(p, &v2, 2);
}

/* The conversions that loading and saving models mostly consist of, without the detour through double. */
static void bf16_to_f32(unsigned char *dst, const unsigned char *src, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t x = (uint32_t)load(src + 2 * i, 2) << 16;
        memcpy(dst + 4 * i, &x, 4);
    }
}

static void f32_to_bf16(unsigned char *dst, const unsigned char *src, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t x = (uint32_t)load(src + 4 * i, 4);
        int nan = (x & 0x7fffffff) > 0x7f800000;
        uint16_t y = (uint16_t)(nan ? x >> 16 | 0x40 : (x + 0x7fff + (x >> 16 & 1)) >> 16);
        memcpy(dst + 2 * i, &y, 2);
    }
}

static void f16_to_f32(unsigned char *dst, const unsigned char *src, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t x = (uint32_t)load(src + 2 * i, 2), exp = x & 0x7c00;
        uint32_t y = (x & 0x8000) << 16 | ((x & 0x7fff) + (112 << 10)) << 13; /* normal: move, bias 15 becomes 127 */
        if (exp == 0 || exp == 0x7c00) y = (uint32_t)narrow(widen(x, 5, 10), 8, 23);
        memcpy(dst + 4 * i, &y, 4);
    }
}

int dtype_convert(DType dst_type, void *dst, DType src_type, const void *src, size_t n) {
    if ((unsigned)dst_type >= DT_COUNT || (unsigned)src_type >= DT_COUNT) return -1;
    int de = layout[dst_type].exp, df = layout[dst_type].frac, se = layout[src_type].exp, sf = layout[src_type].frac;
    if (!de || !se) return -1;
    size_t db = (size_t)dtype_bits(dst_type) / 8, sb = (size_t)dtype_bits(src_type) / 8;
    unsigned char *d = dst;
    const unsigned char *s = src;
    if (!n) return 0;
    if (dst_type == src_type) memmove(d, s, n * db);
    else if (src_type == DT_BF16 && dst_type == DT_F32) bf16_to_f32(d, s, n);
    else if (src_type == DT_F16 && dst_type == DT_F32) f16_to_f32(d, s, n);
    else if (src_type == DT_F32 && dst_type == DT_BF16) f32_to_bf16(d, s, n);
    else
        for (size_t i = 0; i < n; i++) {
            uint64_t x = load(s + i * sb, sb);
            if (src_type != DT_F64) x = widen(x, se, sf);
            store(d + i * db, db, dst_type == DT_F64 ? x : narrow(x, de, df));
        }
    return 0;
}
