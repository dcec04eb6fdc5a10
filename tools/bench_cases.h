/* bench_cases.h - what bench.c measures: each op with its shapes, its buffers, and what it costs. */
#ifndef HYB_BENCH_CASES_H
#define HYB_BENCH_CASES_H
#include "ops/ops.h"

enum { BENCH_DIMS = 6, BENCH_BUFFERS = 16 };
typedef struct BenchCase BenchCase;
struct BenchCase {
    const char *op;                // its name
    const char *sets;              // which sets it is in
    void (*prepare)(BenchCase *c); // from d: shape, size, flops, bytes
    void (*run)(const Ops32 *o, BenchCase *c);
    int d[BENCH_DIMS];
    char shape[64];
    size_t size[BENCH_BUFFERS], work; // floats in each buffer; bytes of workspace
    double flops, bytes;              // useful operations; bytes that must cross memory
    float *b[BENCH_BUFFERS];
    void *scratch;
    int *ids; // N of them, below VOC
    size_t n_ids;
    int VOC;
};

extern const BenchCase bench_cases[];
extern const int bench_case_count;
/* The 72 products: case i of them. */
enum { BENCH_MATMULS = 72 };
BenchCase bench_matmul(int i);
#endif
