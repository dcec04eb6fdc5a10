/* held.h - weights whose packed panels outlive one product (Backend.hold): packed by the first product that reads them
 * after a change, read by all others until the next. Who finds them being packed by somebody else packs for itself;
 * the bits are the same. */
#ifndef HYB_CPU_HELD_H
#define HYB_CPU_HELD_H
#include <stdatomic.h>
#include <stddef.h>

/* Of float: longest block of K; a matrix (K,N) with rows this short is read where it is. */
enum { K_BLOCK = 384, IN_PLACE = 320 };

enum { HELD_STALE, HELD_BUSY, HELD_READY };
typedef struct {
    int wanted;
    void *panels; /* NULL until the first product. Float: [block of K][panel][k][columns]; BF16: see gemm16.c */
    int lanes;    /* of the path that packed it: another one cannot read it */
    atomic_int state;
} HeldCopy;
typedef struct {
    const void *w; /* (O,I) */
    size_t O, I;
    HeldCopy copy[2]; /* of w as (K,N) = (O,I), for dx = dy W; of its transpose (I,O), for y = x W^T */
} Held;

/* Matrices of weights packed since the program began, held or not: tests count what a step packs. */
extern atomic_size_t held_packed;

/* NULL if nobody holds w. */
Held *held_find(const void *w);
/* Memory for a copy's panels; NULL if there is none. Only who made the copy BUSY may ask. */
void *held_memory(HeldCopy *c, size_t bytes);
/* K is cut into this many blocks of held_block(K) rows. */
static inline size_t held_blocks(size_t K) { return (K + K_BLOCK - 1) / K_BLOCK; }
static inline size_t held_block(size_t K) { return K ? (K + held_blocks(K) - 1) / held_blocks(K) : 0; }
static inline size_t held_up32(size_t n) { return (n + 31) / 32 * 32; }
/* Bytes of the panels of a float matrix (K,N), whatever the width of a panel: 32 columns is the widest. */
static inline size_t held_bytes(size_t K, size_t N) {
    return held_blocks(K) * held_block(K) * held_up32(N) * sizeof(float);
}
/* Of a BF16 matrix: one layout for all paths. */
static inline size_t held_bytes16(size_t K, size_t N) { return held_up32(K) * held_up32(N) * 2; }
#endif
