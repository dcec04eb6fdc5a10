/* hash.h - a hash of bytes for tables in memory. Never written to a file: it depends on the machine's byte
 * order and on a seed. */
#ifndef HYB_HASH_H
#define HYB_HASH_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Multiply-and-shift over 8 bytes at a time. Give a seed that an input file cannot know (an address) where
 * keys are untrusted. */
static inline uint64_t hash_bytes(uint64_t seed, const void *data, size_t len) {
    const unsigned char *p = (const unsigned char *)data;
    uint64_t h = seed ^ (uint64_t)len * UINT64_C(0x9e3779b97f4a7c15);
    for (;;) {
        uint64_t w = 0;
        size_t n = len < 8 ? len : 8;
        memcpy(&w, p, n);
        h = (h ^ w) * UINT64_C(0xff51afd7ed558ccd);
        h = (h ^ h >> 32) * UINT64_C(0xc4ceb9fe1a85ec53);
        h ^= h >> 29;
        if (len <= 8) return h;
        p += n;
        len -= n;
    }
}

#endif
