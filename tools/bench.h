/* bench.h - how fast the CPU path is, held against what this machine can do, measured in the same run.
 *
 * Each row is the median of paired repetitions: multiply-adds from registers first, the op right after, so that a busy
 * neighbour or a changing clock slows both. Rows on one thread are in CPU time of that thread, the others in wall time.
 * "useful" operations are counted: causal attention its triangle, a chunk its triangles (cpu/SPEED.md). */
#ifndef HYB_BENCH_H
#define HYB_BENCH_H
#include <stdio.h>
#include "base/err.h"

typedef enum { BENCH_TEXT, BENCH_JSON, BENCH_CSV } BenchForm;

/* A whole step of something (training, decoding), supplied by the caller: `run` does one, of `tokens` tokens,
 * `flops` useful operations and `bytes` that must cross memory (0: not counted). It uses the threads that cpu_threads()
 * was given last. open and close (may be NULL) enclose the row; the largest memory in between is its `MiB`. */
typedef struct {
    const char *name, *shape;
    double tokens, flops, bytes;
    int (*open)(void *ctx, Err *e);
    int (*run)(void *ctx, Err *e);
    void (*close)(void *ctx); /* also called when open failed */
    void *ctx;
} BenchStep;

typedef struct {
    const char *op; // only ops whose name contains this; NULL: all
    // "demo" (small shapes), "large", "matmul" (the 72 products of cpu/SPEED.md), "all", "steps" (only `step`);
    // NULL: "demo"
    const char *set;
    int threads;    // <= 0: all cores. Every row is measured on 1 thread and on these
    int quick;      // 3 repetitions instead of 7, each shorter
    int bf16;       // "cpu-bf16" instead of "cpu": sets "matmul" and "steps"; of peak is of the float one still
    int no_ref;     // leave out the comparison with ref32 (one call of it a row)
    BenchForm form; // JSON: one object a line
    const BenchStep *step;
    int n_steps;
} BenchOptions;

/* ERR_USAGE: no such op or set; ERR_MEMORY; ERR_IO. */
int bench_run(const BenchOptions *o, FILE *out, Err *e);
#endif
