/* shard_parts.h - the shard format, for shard_write.c and dataset.c. */
#ifndef HYB_SHARD_PARTS_H
#define HYB_SHARD_PARTS_H
#include <stdint.h>

#define SHARD_MAGIC "HYBTOK1\n"
enum { SHARD_HEAD = 48, SHARD_VERSION = 1, SHARD_PROMPTS = 2 };
/* Byte offsets of the header's fields. */
enum { AT_VERSION = 8, AT_WIDTH = 12, AT_TOKENS = 16, AT_DOCUMENTS = 24, AT_VOCAB = 32, AT_CRC = 36, AT_HASH = 40 };

static inline uint64_t le_get(const unsigned char *p, int bytes) {
    uint64_t x = 0;
    for (int i = bytes; i-- > 0;) x = x << 8 | p[i];
    return x;
}
static inline void le_put(unsigned char *p, int bytes, uint64_t x) {
    for (int i = 0; i < bytes; i++, x >>= 8) p[i] = (unsigned char)x;
}
static inline int shard_width(int vocab) { return vocab <= 65536 ? 2 : 4; }

#endif
