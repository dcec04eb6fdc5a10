/* chunk.h - what the linear mixers share: the rows of a chunk, triangular products, and rows scaled and added. */
#ifndef HYB_CPU_CHUNK_H
#define HYB_CPU_CHUNK_H
#include "ops/ops.h"
#include "parallel.h"
#include "tile.h"

enum { CT = 64, CUT = 8 }; // rows of a chunk; of a strip of a triangular product

typedef struct {
    const float *q, *k, *v, *g, *beta;
    const int *start;                   // from this chunk's first token, or NULL
    size_t ldq, ldv, ldg, ldb, K, V, n, t0; // floats between tokens (ldb: of beta in kda; in delta_rule it is ldg); n rows
    float scale;
    ptrdiff_t ahead; // the chunk that comes next begins so many rows from here,
    size_t coming;   // and has so many rows (0: there is none)
} Chunk;

/* Rows [i, end) of the next chunk of x on their way to the second cache: a head's rows lie far apart, so the hardware does not guess them. */
INLINE void rows_fetch(const Chunk *c, const float *x, size_t ld, size_t width, size_t i, size_t end) {
    for (; i < end && i < c->coming; i++)
        for (size_t a = 0; a < width; a += 16) __builtin_prefetch(x + ((ptrdiff_t)i + c->ahead) * (ptrdiff_t)ld + a, 0, 2);
}

/* Where the states of one (batch element, head) stand while its chunks are worked through, as ref's States: all of them in `states`, or in
 * place in `state` if the caller keeps none. */
typedef struct {
    float *S; // of chunk c: S + c * step
    size_t step;
} States;
static States states_open(float *states, float *state, size_t bh, const DeltaDims *d) {
    const size_t size = (size_t)d->K * d->V;
    if (!states) return (States){state + bh * size, 0};
    float *S = states + bh * (delta_chunks(d) + 1) * size;
    memcpy(S, state + bh * size, size * sizeof(float));
    return (States){S, size};
}
static void states_close(States s, float *state, size_t bh, const DeltaDims *d) {
    const size_t size = (size_t)d->K * d->V;
    if (s.step) memcpy(state + bh * size, s.S + delta_chunks(d) * size, size * sizeof(float));
}

INLINE size_t pad16(size_t n) { return (n + 15) & ~(size_t)15; }

static int row_resets(const Chunk *c, size_t i) { return c->start && c->t0 + i > 0 && (size_t)c->start[i] == c->t0 + i; }

static const float IOTA[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

INLINE vf lower(vf x, size_t i, size_t j) { return vless(vset((float)i), vload(IOTA) + vset((float)j), vset(0), x); }
INLINE vf strictly(vf x, size_t i, size_t j) { return vless(vload(IOTA) + vset((float)j), vset((float)i), x, vset(0)); }

/* out = A X^T on and below the diagonal (and a little above), by panels; x_t is X^T (K, ldx) */
static void lower_product(float *out, const float *a, size_t lda, const float *x_t, size_t ldx, size_t n, size_t k) {
    for (size_t j = 0; j < n; j += 2 * VW) {
        const size_t w = n - j < 2 * VW ? n - j : 2 * VW, top = w > VW ? VW : 0; // the first rows of a panel need its first half only
        if (top) panel_mul(out + j * CT + j, CT, a + j * lda, lda, ROWS, x_t + j, ldx, top, VW, k, 0);
        panel_mul(out + (j + top) * CT + j, CT, a + (j + top) * lda, lda, ROWS, x_t + j, ldx, n - j - top, w, k, 0);
    }
}
/* y += L x, y += L^T x for lower triangular L (CT columns a row) */
static void lower_apply(float *y, size_t ldy, const float *l, const float *x, size_t ldx, size_t n, size_t width) {
    for (size_t i = 0; i < n; i += CUT) {
        const size_t m = n - i < CUT ? n - i : CUT;
        block_mul(y + i * ldy, ldy, l + i * CT, CT, ROWS, x, ldx, m, width, i + m, 1);
    }
}
static void lower_apply_transposed(float *y, size_t ldy, const float *l, const float *x, size_t ldx, size_t n, size_t width) {
    for (size_t j = 0; j < n; j += CUT)
        block_mul(y + j * ldy, ldy, l + j * CT + j, CT, COLS, x + j * ldx, ldx, n - j < CUT ? n - j : CUT, width, n - j, 1);
}

/* y_i = f_i * s * x_i, rows of `width` */
static void rows_times(float *y, const float *x, size_t ldx, const float *f, float s, size_t n, size_t width) {
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < width; c += VW) vput(y + i * width + c, vget(x + i * ldx + c, width - c) * vset(f[i] * s), width - c);
}
static void scale_all(float *y, const float *x, float f, size_t n) {
    for (size_t i = 0; i < n; i += VW) vput(y + i, vget(x + i, n - i) * vset(f), n - i);
}

static void rows_add(float *y, size_t ldy, const float *x, size_t n, size_t width) {
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < width; c += VW) vput(y + i * ldy + c, vget(y + i * ldy + c, width - c) + vget(x + i * width + c, width - c), width - c);
}
#endif
