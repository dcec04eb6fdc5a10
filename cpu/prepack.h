/* prepack.h - weights whose packed panels outlive one product (Backend.prepack): packed by the first product that
 * reads them after a change, read by all others until the next. Who finds them being packed by somebody else packs for
 * itself; the bits are the same. */
#ifndef HYB_CPU_PREPACK_H
#define HYB_CPU_PREPACK_H
#include <stdatomic.h>
#include <stddef.h>

/* Of float: longest block of K; a matrix (K,N) with rows this short is read where it is. */
enum { K_BLOCK = 384, IN_PLACE = 320 };

enum { PACK_STALE, PACK_BUSY, PACK_READY };
typedef struct {
    int wanted;
    void *panels; /* NULL until the first product. Float: [block of K][panel][k][columns]; BF16: see gemm16.c */
    int lanes;    /* of the path that packed it: another one cannot read it */
    atomic_int state;
} PackedCopy;
typedef struct {
    const void *w; /* (O,I) */
    size_t O, I;
    PackedCopy copy[2]; /* of w as (K,N) = (O,I), for dx = dy W; of its transpose (I,O), for y = x W^T */
} Prepacked;

/* Matrices of weights packed since the program began, prepacked or not: tests count what a step packs. */
extern atomic_size_t matrices_packed;

/* NULL if w is not prepacked. */
Prepacked *prepack_find(const void *w);
/* Memory for a copy's panels; NULL if there is none. Only who made the copy BUSY may ask. */
void *prepack_memory(PackedCopy *c, size_t bytes);
/* K is cut into this many blocks of prepack_block(K) rows. */
static inline size_t prepack_blocks(size_t K) { return (K + K_BLOCK - 1) / K_BLOCK; }
static inline size_t prepack_block(size_t K) { return K ? (K + prepack_blocks(K) - 1) / prepack_blocks(K) : 0; }
static inline size_t prepack_up32(size_t n) { return (n + 31) / 32 * 32; }
/* Bytes of the panels of a float matrix (K,N), whatever the width of a panel: 32 columns is the widest. */
static inline size_t prepack_bytes(size_t K, size_t N) {
    return prepack_blocks(K) * prepack_block(K) * prepack_up32(N) * sizeof(float);
}
/* Of a BF16 matrix: one layout for all paths. */
static inline size_t prepack_bytes16(size_t K, size_t N) { return prepack_up32(K) * prepack_up32(N) * 2; }
#endif
