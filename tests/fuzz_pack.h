/* fuzz_pack.h - many small inputs in one file: for each, its length (u32, little-endian) and its bytes.
 * testdata/fuzz/NAME.pack holds what libFuzzer found worth keeping for fuzz_NAME.c; tests/test_fuzz.c replays it,
 * tests/fuzz.sh begins with it (tests/replay.c unpacks). */
#ifndef HYB_FUZZ_PACK_H
#define HYB_FUZZ_PACK_H
#include <stdint.h>
#include "base/file.h"

/* The entry at *at of the pack f: 1 and *at moved behind it, 0 at the end, -1 if the pack is damaged. */
static inline int pack_next(const File *f, size_t *at, const unsigned char **data, size_t *n) {
    if (*at == f->size) return 0;
    if (f->size - *at < 4) return -1;
    const unsigned char *p = f->data + *at;
    *n = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
    if (*n > f->size - *at - 4) return -1;
    *data = p + 4;
    *at += 4 + *n;
    return 1;
}

#endif
