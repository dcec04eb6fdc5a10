/* chunk.h - what the chunks of the linear mixers share: their rows, how memory is asked for them, triangular products,
 * and rows scaled and added. */
#ifndef HYB_CPU_CHUNK_H
#define HYB_CPU_CHUNK_H
#include "ops/ops.h"
#include "parallel.h"
#include "tile.h"

enum { CT = 64, CUT = 8 }; // rows of a chunk; of a strip of a triangular product

typedef struct {
    const float *q, *k, *v, *g, *beta;
    const int *start;                       // from this chunk's first token, or NULL
    size_t ldq, ldv, ldg, ldb, K, V, n, t0; // floats between tokens (ldb: of beta); n rows
    float scale;
    struct Fetches *fetches; // what its products ask for on the way, or NULL
} Chunk;

/* ---- memory: a head's rows lie far apart, so the hardware does not guess which ones come next ---- */

/* Rows that will soon be read or written. A core waits when some 24 misses are under way, so a few lines at a time are
 * asked for, between the tiles of the products before. */
typedef struct Fetches {
    struct {
        const char *x;
        size_t ld, rows, width; // in bytes
    } of[10];
    size_t n, at, row; // how many; next comes row `row` of `at`
} Fetches;

static void fetch_bytes(Fetches *f, const void *x, size_t ld, size_t rows, size_t width) {
    f->of[f->n].x = x, f->of[f->n].ld = ld, f->of[f->n].rows = rows, f->of[f->n].width = width;
    f->n++;
}
#define fetch_add(f, x, ld, rows, width) fetch_bytes(f, x, (ld) * sizeof *(x), rows, (width) * sizeof *(x))
/* So many lines, to the end of a row. */
static void fetch_lines(Fetches *f, ptrdiff_t lines) {
    while (f && lines > 0 && f->at < f->n) {
        const char *x = f->of[f->at].x + f->row * f->of[f->at].ld;
        const size_t width = f->row < f->of[f->at].rows ? f->of[f->at].width : 0;
        for (size_t a = 0; a < width; a += 64, lines--) __builtin_prefetch(x + a, 0, 2);
        if (++f->row >= f->of[f->at].rows) f->row = 0, f->at++;
    }
}
/* As many as memory brings while a product of so many multiply-adds runs. */
INLINE void fetch_during(Fetches *f, size_t fmas) { fetch_lines(f, (ptrdiff_t)(fmas / 1024)); }

INLINE size_t pad16(size_t n) { return (n + 15) & ~(size_t)15; }

static int row_resets(const Chunk *c, size_t i) {
    return c->start && c->t0 + i > 0 && (size_t)c->start[i] == c->t0 + i;
}

static const float IOTA[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

INLINE vf lower(vf x, size_t i, size_t j) { return vless(vset((float)i), vload(IOTA) + vset((float)j), vset(0), x); }
INLINE vf strictly(vf x, size_t i, size_t j) { return vless(vload(IOTA) + vset((float)j), vset((float)i), x, vset(0)); }

/* block_mul, fetching on the way */
static void chunk_mul(const Chunk *h, float *c, size_t ldc, const float *a, size_t lda, int by, const float *b,
                      size_t ldb, size_t m, size_t n, size_t k, int add) {
    const size_t tiles = (m + MR - 1) / MR;
    for (size_t t = 0; t < tiles; t++) {
        const size_t i = m * t / tiles, rows = m * (t + 1) / tiles - i;
        fetch_during(h->fetches, rows * n * k);
        block_mul(c + i * ldc, ldc, by == ROWS ? a + i * lda : a + i, lda, by, b, ldb, rows, n, k, add);
    }
}

/* out = A X^T on and below the diagonal (and a little above), by panels; x_t is X^T (K, ldx) */
static void lower_product(const Chunk *h, float *out, const float *a, size_t lda, const float *x_t, size_t ldx,
                          size_t n, size_t k) {
    for (size_t j = 0; j < n; j += 2 * VW) {
        // the first rows of a panel need its first half only
        const size_t w = n - j < 2 * VW ? n - j : 2 * VW, top = w > VW ? VW : 0;
        fetch_during(h->fetches, (n - j) * w * k);
        if (top) panel_mul(out + j * CT + j, CT, a + j * lda, lda, ROWS, x_t + j, ldx, top, VW, k, 0);
        panel_mul(out + (j + top) * CT + j, CT, a + (j + top) * lda, lda, ROWS, x_t + j, ldx, n - j - top, w, k, 0);
    }
}
/* y += L x, y += L^T x for lower triangular L (CT columns a row) */
static void lower_apply(const Chunk *h, float *y, size_t ldy, const float *l, const float *x, size_t ldx, size_t n,
                        size_t width) {
    for (size_t i = 0; i < n; i += CUT) {
        const size_t m = n - i < CUT ? n - i : CUT;
        fetch_during(h->fetches, m * width * (i + m));
        block_mul(y + i * ldy, ldy, l + i * CT, CT, ROWS, x, ldx, m, width, i + m, 1);
    }
}
static void lower_apply_transposed(const Chunk *h, float *y, size_t ldy, const float *l, const float *x, size_t ldx,
                                   size_t n, size_t width) {
    for (size_t j = 0; j < n; j += CUT) {
        fetch_during(h->fetches, CUT * width * (n - j));
        block_mul(y + j * ldy, ldy, l + j * CT + j, CT, COLS, x + j * ldx, ldx, n - j < CUT ? n - j : CUT, width, n - j,
                  1);
    }
}

/* y_i = f_i * s * x_i, rows of `width` */
static void rows_times(float *y, const float *x, size_t ldx, const float *f, float s, size_t n, size_t width) {
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < width; c += VW)
            vput(y + i * width + c, vget(x + i * ldx + c, width - c) * vset(f[i] * s), width - c);
}
static void scale_all(float *y, const float *x, float f, size_t n) {
    for (size_t i = 0; i < n; i += VW) vput(y + i, vget(x + i, n - i) * vset(f), n - i);
}

static void rows_add(float *y, size_t ldy, const float *x, size_t n, size_t width) {
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < width; c += VW)
            vput(y + i * ldy + c, vget(y + i * ldy + c, width - c) + vget(x + i * width + c, width - c), width - c);
}
#endif
