/* gemm.h - C (M,N) = or += A B, threaded over blocks of C. */
#ifndef HYB_CPU_GEMM_H
#define HYB_CPU_GEMM_H
#include "cpu/prepack.h"
#include "cpu/pool.h"
#include "tile.h"
#include <stdlib.h>

typedef struct {
    real *c;     // one of the two: C as it is stored, rounded once when its sums are done,
    float *sums; // or C in float
    size_t ldc;
    const real *a;
    size_t lda;
    int by; // ROWS: a is (M,K); COLS: a is (K,M)
    const real *b;
    size_t ldb;
    int trans;   // 0: b is (K,N); 1: b is (N,K)
    int weights; // 1: b is a matrix of weights, whole: its panels may be there already
    size_t M, N, K;
    int add;          // 0: C = , 1: C +=
    const real *bias; // (N) or NULL, added to every row
} Gemm;

static void gemm(const Gemm *g);
#endif
