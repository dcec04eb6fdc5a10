/* gemm16.c - the threaded product of BF16 operands with float sums (see gemm.h): C is rounded once, from them.
 *
 * B is packed into panels of 32 columns, [pair along K][32 columns][2], K padded with zeros to whole steps of 32: one
 * layout for all paths, since a tile of AMX, a vector of AVX512_BF16 and a loop that widens can all read it. Prepacked
 * weights are packed once (prepack.h), others for every product.
 * A task owns a block of C, up to MB rows x NB columns, and its sums; K goes by in blocks of at most KB, in order, so
 * the bits depend on K and the path alone. Rows of A are read in place where whole tiles can be, else copied in pairs
 * and padded.
 * Order of sums: widened operands as in gemm.c; AVX512_BF16 and AMX as their instructions say (dot.h), from the lowest
 * K to the highest in both. */
#include "dot.h"
#include "gemm.h"
#include "parallel.h"

enum {
    NP = 32, // columns of a panel
    MB = 128,
    NB = 256,
    KB = DOT == DOT_NONE ? 256 : 512,
    LDA = KB + 32, // elements between copied rows of A
    POOL_BYTES = 4 << 20,
    POOL_MOST = 64 << 20, // where K is so long that fewer than
    FEW_PANELS = 4        // would fit, which do not make a pass over A worth while
};

typedef struct {
    const Gemm *g;
    Bf16 *pack;    // panels [first, ...), or NULL: every task packs for itself
    size_t first;  // panel
    size_t kp, kc; // K padded; rows of a block of K
    size_t p0, p1; // this pass: panels [p0, p1)
    size_t nb;     // blocks of C along the panels
    int copy_a;
} Pass16;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* ---- packing: pairs are moved as floats ---- */

/* to: pairs (lo_i, hi_i); either NULL: zeros */
static void pairs_zip(Bf16 *to, const Bf16 *lo, const Bf16 *hi, size_t n) {
    static const Bf16 zero = {0};
    if (lo && hi)
        for (size_t i = 0; i < n; i++) to[2 * i] = lo[i], to[2 * i + 1] = hi[i];
    else
        for (size_t i = 0; i < n; i++) to[2 * i] = lo ? lo[i] : zero, to[2 * i + 1] = zero;
}
/* rows (n, k) of x, padded with zeros to (rows, kn) */
static void rows_copy(Bf16 *to, size_t ld, const Bf16 *x, size_t ldx, size_t n, size_t k, size_t rows, size_t kn) {
    for (size_t i = 0; i < rows; i++) {
        const size_t m = i < n ? k : 0;
        memcpy(to + i * ld, x + i * ldx, m * sizeof *to);
        memset(to + i * ld + m, 0, (kn - m) * sizeof *to);
    }
}
/* Columns [j, j + n) of B, rows [k0, k0 + kn) of the padded K, as one panel. */
static void panel16(Bf16 *to, const Gemm *g, size_t j, size_t k0, size_t kn) {
    const size_t n = least(NP, g->N - j), k = k0 < g->K ? least(kn, g->K - k0) : 0;
    if (!g->trans) {
        for (size_t i = 0; i < kn; i += 2, to += 2 * NP) {
            const Bf16 *row = g->b + (k0 + i) * g->ldb + j;
            pairs_zip(to, i < k ? row : NULL, i + 1 < k ? row + g->ldb : NULL, n);
            memset(to + 2 * n, 0, 2 * (NP - n) * sizeof *to);
        }
        return;
    }
    _Alignas(64) Bf16 copy[NP * LDA];
    for (size_t i = 0; i < kn; i += KB) {
        const Bf16 *x = g->b + j * g->ldb + k0 + i;
        const size_t m = least(KB, kn - i), have = i < k ? least(m, k - i) : 0;
        size_t ld = g->ldb;
        if (have < m || n < NP || ld % 2 || (uintptr_t)x % 4)
            rows_copy(copy, LDA, x, ld, n, have, NP, m), x = copy, ld = LDA;
        transpose((float *)(to + i * NP), NP, (const float *)x, ld / 2, NP, m / 2);
    }
}
static void panel_task(const void *pass, size_t t) {
    const Pass16 *s = pass;
    const size_t p = s->p0 + t;
    panel16(s->pack + (p - s->first) * s->kp * NP, s->g, p * NP, 0, s->kp);
}

/* Rows [m, m + n) of A, columns [k0, k0 + kn) of the padded K, to (rows, LDA). */
static void a_copy(Bf16 *to, const Gemm *g, size_t m, size_t n, size_t rows, size_t k0, size_t kn) {
    const size_t k = k0 < g->K ? least(kn, g->K - k0) : 0;
    if (g->by == ROWS) {
        rows_copy(to, LDA, g->a + m * g->lda + k0, g->lda, n, k, rows, kn);
        return;
    }
    _Alignas(64) Bf16 pairs[16 * 2 * MB]; // sixteen rows of pairs, then turned round
    for (size_t i = 0; i < kn; i += 32) {
        for (size_t r = 0; r < 16; r++) {
            const size_t at = i + 2 * r;
            const Bf16 *x = g->a + (k0 + at) * g->lda + m;
            pairs_zip(pairs + r * 2 * MB, at < k ? x : NULL, at + 1 < k ? x + g->lda : NULL, n);
            memset(pairs + r * 2 * MB + 2 * n, 0, 2 * (rows - n) * sizeof *pairs);
        }
        transpose((float *)(to + i), LDA / 2, (const float *)pairs, MB, 16, rows);
    }
}

/* ---- kernels: sums (rows, NP) = or += A (rows, kn) times a panel's block ---- */

#if DOT == DOT_TILES
enum { ROWS_OF = 16 }; // A's rows come in whole tiles
static void panel_dot(float *sums, const Bf16 *a, size_t lda, const Bf16 *b, size_t rows, size_t kn, int add) {
    const size_t step = lda * sizeof *a, line = 2 * NP * sizeof *b, to = NP * sizeof *sums;
    for (size_t m = 0; m < rows; m += 32, sums += 32 * NP) {
        const Bf16 *a0 = a + m * lda, *a1 = a0 + 16 * lda, *p = b;
        float *below = sums + 16 * NP;
        const int two = m + 16 < rows;
        if (add) {
            tile_load(0, sums, to);
            tile_load(1, sums + 16, to);
        } else {
            tile_zero(0);
            tile_zero(1);
        }
        if (two && add) {
            tile_load(2, below, to);
            tile_load(3, below + 16, to);
        } else if (two) {
            tile_zero(2);
            tile_zero(3);
        }
        for (size_t k = 0; k < kn; k += 32, p += 32 * NP) {
            tile_load(4, a0 + k, step);
            tile_load(6, p, line);
            tile_dot(0, 4, 6);
            tile_load(7, p + 32, line);
            tile_dot(1, 4, 7);
            if (!two) continue;
            tile_load(5, a1 + k, step);
            tile_dot(2, 5, 6);
            tile_dot(3, 5, 7);
        }
        tile_store(0, sums, to);
        tile_store(1, sums + 16, to);
        if (!two) return;
        tile_store(2, below, to);
        tile_store(3, below + 16, to);
    }
}
#elif DOT == DOT_PAIRS
enum { ROWS_OF = 1 };
static void panel_dot(float *sums, const Bf16 *a, size_t lda, const Bf16 *b, size_t rows, size_t kn, int add) {
    for (size_t j = 0; j < NP; j += 2 * VW)
        panel_rows(tile_pairs, sums + j, NP, (const float *)a, lda / 2, ROWS, (const float *)b + j, NP, rows, kn / 2, 0,
                   add);
}
#else
enum { ROWS_OF = 1 };
static void panel_dot(float *sums, const float *a, size_t lda, const Bf16 *b, size_t rows, size_t kn, int add) {
    float wide_b[KB * NP];
    for (size_t k = 0; k < kn; k++)
        for (size_t j = 0; j < NP; j++) wide_b[k * NP + j] = bf16_float(b[k / 2 * 2 * NP + 2 * j + k % 2]);
    for (size_t j = 0; j < NP; j += 2 * VW)
        panel_mul(sums + j, NP, a, lda, ROWS, wide_b + j, NP, rows, 2 * VW, kn, add);
}
#endif

/* ---- blocks ---- */

/* C's rows [m0, m0 + rows) of panel p from their sums. */
static void panel_store(const Gemm *g, const float *sums, size_t m0, size_t rows, size_t p) {
    const size_t j = p * NP, n = least(NP, g->N - j);
    for (size_t i = 0; i < rows; i++, sums += NP)
        for (size_t c = 0; c < n; c += VW) {
            const size_t k = n - c, at = (m0 + i) * g->ldc + j + c;
            vf s = vget(sums + c, k);
            if (g->bias) s = s + vget(g->bias + j + c, k);
            if (g->sums) vput(g->sums + at, g->add ? vget(g->sums + at, k) + s : s, k);
            else vput(g->c + at, g->add ? vget(g->c + at, k) + s : s, k);
        }
}

/* Rows [m0, m0 + rows) x panels [p0, p1). */
static void block16(const Pass16 *s, size_t m0, size_t rows, size_t p0, size_t p1) {
    const Gemm *g = s->g;
    const size_t padded = (rows + ROWS_OF - 1) / ROWS_OF * ROWS_OF;
    _Alignas(64) float sums[MB * NB];
    _Alignas(64) Bf16 copy[MB * LDA], panel[KB * NP];
#if DOT == DOT_NONE
    float wide_a[MB * LDA];
#endif
    for (size_t k0 = 0; k0 < s->kp; k0 += s->kc) {
        const size_t kn = least(s->kc, s->kp - k0);
        const Bf16 *a = g->a + m0 * g->lda + k0;
        size_t lda = g->lda;
        if (s->copy_a || padded > rows || k0 + kn > g->K)
            a_copy(copy, g, m0, rows, padded, k0, kn), a = copy, lda = LDA;
#if DOT == DOT_NONE
        for (size_t i = 0; i < rows; i++)
            for (size_t k = 0; k < kn; k += VW) vput(wide_a + i * LDA + k, vget(a + i * lda + k, kn - k), kn - k);
#endif
        for (size_t p = p0; p < p1; p++) {
            const Bf16 *b = s->pack ? s->pack + ((p - s->first) * s->kp + k0) * NP : panel;
            if (!s->pack) panel16(panel, g, p * NP, k0, kn);
            float *to = sums + (p - p0) * MB * NP;
#if DOT == DOT_NONE
            panel_dot(to, wide_a, LDA, b, rows, kn, k0 > 0);
#else
            panel_dot(to, a, lda, b, padded, kn, k0 > 0);
#endif
        }
    }
    for (size_t p = p0; p < p1; p++) panel_store(g, sums + (p - p0) * MB * NP, m0, rows, p);
}
static void block_task(const void *pass, size_t t) {
    const Pass16 *s = pass;
    const size_t m0 = t / s->nb * MB, j = t % s->nb, panels = s->p1 - s->p0;
#if DOT == DOT_TILES
    tiles_begin();
#endif
    block16(s, m0, least(MB, s->g->M - m0), s->p0 + panels * j / s->nb, s->p0 + panels * (j + 1) / s->nb);
#if DOT == DOT_TILES
    tiles_end();
#endif
}

static void pass_run(Pass16 *s, int packed) {
    const Gemm *g = s->g;
    const int enough = g->M * g->N * g->K > 100000;
    if (s->pack && !packed) s->first = s->p0, pool_run_if(enough, s->p1 - s->p0, panel_task, s);
    s->nb = (s->p1 - s->p0 + NB / NP - 1) / (NB / NP);
    pool_run_if(enough, (g->M + MB - 1) / MB * s->nb, block_task, s);
}

/* All panels of prepacked weights, or NULL if this product has to pack for itself. */
static Bf16 *panels_held16(const Pass16 *s) {
    const Gemm *g = s->g;
    Prepacked *h = g->weights ? prepack_find(g->b) : NULL;
    PackedCopy *copy = h ? &h->copy[g->trans] : NULL;
    if (!copy || !copy->wanted || h->O != (g->trans ? g->N : g->K) || h->I != (g->trans ? g->K : g->N)) return NULL;
    if (atomic_load_explicit(&copy->state, memory_order_acquire) == PACK_READY) return copy->panels;
    int stale = PACK_STALE;
    if (!atomic_compare_exchange_strong(&copy->state, &stale, PACK_BUSY)) return NULL;
    Pass16 all = *s;
    all.pack = prepack_memory(copy, prepack_bytes16(g->K, g->N));
    if (all.pack)
        pool_run_if(g->N * g->K > ALONE, all.p1, panel_task, &all),
            atomic_fetch_add_explicit(&matrices_packed, 1, memory_order_relaxed);
    atomic_store_explicit(&copy->state, all.pack ? PACK_READY : PACK_STALE, memory_order_release);
    return all.pack;
}

/* One buffer for panels, as in gemm.c; as large as any product wanted it so far. */
static atomic_flag pool_taken = ATOMIC_FLAG_INIT;
static Bf16 *pool_take(size_t bytes) {
    static Bf16 *pool;
    static size_t have;
    if (atomic_flag_test_and_set(&pool_taken)) return NULL;
    if (have < bytes) {
        free(pool);
        pool = aligned_alloc(64, bytes);
        have = pool ? bytes : 0;
    }
    if (!pool) atomic_flag_clear(&pool_taken);
    return pool;
}

static void gemm(const Gemm *g) {
    if (!g->M || !g->N) return;
    const size_t panels = (g->N + NP - 1) / NP, kp = prepack_up32(g->K), blocks = (kp + KB - 1) / KB;
    Pass16 s = {.g = g, .kp = kp, .kc = kp ? prepack_up32((kp + blocks - 1) / blocks) : 1, .p1 = panels};
    // odd distances split pairs; multiples of 2 KB put a tile's rows on the same cache sets
    s.copy_a = g->by == COLS || g->lda % 2 || g->lda % 1024 == 0 || (uintptr_t)g->a % 4;
    s.pack = panels_held16(&s);
    if (s.pack) {
        pass_run(&s, 1);
        return;
    }
    if (g->weights) atomic_fetch_add_explicit(&matrices_packed, 1, memory_order_relaxed);
    const size_t bytes = kp * NP * sizeof(Bf16);
    const size_t few = bytes * least(panels, FEW_PANELS) > POOL_BYTES, most = few ? POOL_MOST : POOL_BYTES;
    const size_t fit = bytes ? most / bytes : panels;
    s.pack = fit >= least(panels, FEW_PANELS) ? pool_take(few ? least(panels, fit) * bytes : POOL_BYTES) : NULL;
    for (s.p0 = 0; s.p0 < panels; s.p0 = s.p1) {
        s.p1 = s.pack ? least(panels, s.p0 + fit) : panels;
        pass_run(&s, 0);
    }
    if (s.pack) atomic_flag_clear(&pool_taken);
}
