/* matmul.h - the one door to matrix products, row-major: c (M,N) = op(a) op(b), or c += with `add`, plus an optional
 * bias (N) per column.
 *
 * op(a) is (M,K): a is stored (M,K), or (K,M) with ta; op(b) is (K,N): b is stored (K,N), or (N,K) with tb (a weight as
 * in checkpoints).
 * Sums are float and rounded once, on writing; c is the storage type or float. On a device the product is done by
 * cuBLASLt where its library is found (loaded when the backend opens, so a program starts quickly and without it),
 * otherwise and in the emulator by the kernel in matmul.cu. */
#ifndef HYB_CUDA_MATMUL_H
#define HYB_CUDA_MATMUL_H
#include <stddef.h>

enum MatmulType { MATMUL_F32, MATMUL_BF16 };
typedef struct {
    int M, N, K, ta, tb, add;
    enum MatmulType in, out;
} MatmulShape;

namespace CUDA_SIDE {
void matmul_open(void);
void matmul_close(void);
const char *matmul_about(void);
/* Tries the library; 0 if it did the product, 1 if the caller has to. */
int matmul_library(void *c, const void *a, const void *b, const void *bias, const MatmulShape *s);
} // namespace CUDA_SIDE
#endif
