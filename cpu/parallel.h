/* parallel.h - how work is cut, never by the number of threads: [0, n) elements into runs, N rows or C columns into blocks. */
#ifndef HYB_CPU_PARALLEL_H
#define HYB_CPU_PARALLEL_H
#include "simd_math.h"

enum { RUN = 4096, ALONE = 32768 }; // below ALONE elements a second thread costs more than it brings

INLINE size_t run_count(size_t n) { return (n + RUN - 1) / RUN; }
INLINE size_t run_size(size_t n, size_t r) { return n - r * RUN < RUN ? n - r * RUN : RUN; }

enum { ROW_BLOCK = 64, COLUMN_BLOCK = 32 };
INLINE size_t row_blocks(int N) { return ((size_t)N + ROW_BLOCK - 1) / ROW_BLOCK; }
INLINE size_t column_blocks(int C) { return ((size_t)C + COLUMN_BLOCK - 1) / COLUMN_BLOCK; }
INLINE size_t block_size(size_t b, size_t block, size_t n) { return n - b * block < block ? n - b * block : block; }

INLINE float row_dot(const float *x, const float *y, size_t C) {
    vf s = vset(0);
    for (size_t c = 0; c < C; c += VW) s = vfma(vget(x + c, C - c), vget(y + c, C - c), s);
    return vsum(s);
}
#endif
