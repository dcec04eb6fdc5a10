/* parallel.h - how work is cut into tasks: [0, n) elements into runs, N rows or C columns into blocks. */
#ifndef HYB_CPU_PARALLEL_H
#define HYB_CPU_PARALLEL_H
#include "cpu/pool.h"
#include "simd_math.h"

enum { RUN = 4096, ALONE = 32768 }; // below ALONE elements a second thread costs more than it brings

INLINE size_t run_count(size_t n) { return (n + RUN - 1) / RUN; }
INLINE size_t run_size(size_t n, size_t r) { return n - r * RUN < RUN ? n - r * RUN : RUN; }

/* Sums over rows keep a block of columns on the stack: as wide as the threads allow, since a narrow one reads memory in
 * crumbs. (Each column is summed over rows in order however wide its block is.) */
enum { ROW_BLOCK = 64, COLUMN_LEAST = 32, COLUMN_MOST = 512 };
INLINE size_t row_blocks(size_t N) { return (N + ROW_BLOCK - 1) / ROW_BLOCK; }
INLINE size_t column_block(size_t C) {
    const size_t even = (C / (size_t)pool_threads() + COLUMN_LEAST) / COLUMN_LEAST * COLUMN_LEAST;
    return even < COLUMN_MOST ? even : COLUMN_MOST;
}
INLINE size_t block_size(size_t b, size_t block, size_t n) { return n - b * block < block ? n - b * block : block; }

/* The arguments of an op as its tasks get them: outputs and inputs in the contract's order, those that are `wide`
 * apart, sizes N (rows) and C, or n (elements). */
typedef struct {
    real *out[2];
    float *wout[2];
    const real *in[4];
    const float *win[3];
    size_t n, N, C, block; // block: columns a task, set by blocks_of_columns
    float a;               // a scalar
} Job;

/* p + i where there is a p */
#define at(p, i) ((p) ? (p) + (i) : NULL)

SHARED void runs(PoolTask *task, Job job) { pool_run_if(job.n > ALONE, run_count(job.n), task, &job); }
SHARED void blocks_of_rows(PoolTask *task, Job job) {
    pool_run_if(job.N * job.C > ALONE, row_blocks(job.N), task, &job);
}
static void blocks_of_columns(PoolTask *task, Job job) {
    job.block = column_block(job.C);
    pool_run_if(job.N * job.C > ALONE, (job.C + job.block - 1) / job.block, task, &job);
}

INLINE float dot32(const float *x, const float *y, size_t C) {
    vf s = vset(0);
    for (size_t c = 0; c < C; c += VW) s = vfma(vget(x + c, C - c), vget(y + c, C - c), s);
    return vsum(s);
}
INLINE float dot16(const Bf16 *x, const Bf16 *y, size_t C) {
    vf s = vset(0);
    for (size_t c = 0; c < C; c += VW) s = vfma(vget(x + c, C - c), vget(y + c, C - c), s);
    return vsum(s);
}
#define row_dot(x, y, C) _Generic(*(x), Bf16 : dot16, float : dot32)(x, y, C)

#if BITS == 16
/* n rows as floats, side by side; returns where they end. */
SHARED float *rows_widen(float *to, const real *x, size_t ld, size_t n, size_t width) {
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < width; c += VW) vput(to + i * width + c, vget(x + i * ld + c, width - c), width - c);
    return to + n * width;
}
/* y = x, rounded, or y += x */
SHARED void rows_round(real *y, size_t ld, const float *x, size_t n, size_t width, int add) {
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < width; c += VW) {
            const vf v = vget(x + i * width + c, width - c);
            vput(y + i * ld + c, add ? vget(y + i * ld + c, width - c) + v : v, width - c);
        }
}
#endif
#endif
