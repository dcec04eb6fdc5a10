/* gemm.c - the threaded matrix product behind linear and the heads.
 *
 * K is cut into blocks of at most K_BLOCK, a function of K alone; within a block every element of C is one chain of
 * FMAs (tile.h), and the blocks are added to C in order. So the bits do not depend on threads, tiles, packing or the
 * size of the buffers.
 * B is packed, by all threads, into panels of 2 VW columns [k][2 VW], or read in place where its rows are short;
 * a matrix of weights that is prepacked (prepack.h) is packed at its first product and found ready at the others.
 * Then the threads take blocks of C (M_BLOCK rows x some panels) as they come. A is read in place, or, where its stride
 * would make its rows fall on the same cache sets, copied block by
 * block to the stack. */
#include "gemm.h"

enum {
    NR = 2 * VW,
    M_BLOCK = 96,
    STACK_PACK = 16384,  // floats of panels on the stack: enough for one panel of one block of K
    POOL_PACK = 1 << 20, // floats in the pool: a pass over B that stays in the cache while all rows of A go by
    PAD = 16
};

/* One buffer for panels, allocated at the first large product and kept. Whoever finds it taken (two threads of the
 * caller in gemm at once) or finds no memory uses the stack: the same result from smaller blocks. */
static atomic_flag pool_taken = ATOMIC_FLAG_INIT;
static float *pool;

static float *pool_take(void) {
    if (atomic_flag_test_and_set(&pool_taken)) return NULL;
    if (!pool) pool = aligned_alloc(64, POOL_PACK * sizeof(float));
    if (!pool) atomic_flag_clear(&pool_taken);
    return pool;
}
static void pool_give(const float *p) {
    if (p) atomic_flag_clear(&pool_taken);
}

typedef struct {
    const Gemm *g;
    float *pack;
    int whole;     // pack has all of B, not the panels of this pass
    size_t panels; // of all columns
    size_t kc;     // rows of a K block
    size_t k0, k1; // this pass: K blocks [k0, k1)
    size_t p0, p1; // and panels [p0, p1)
    int in_place;  // B is read where it is
    int copy_a, bias;
    size_t mb, nb; // blocks of C along M and along the panels
} Pass;

static int in_place(const Gemm *g) { return !g->trans && g->ldb <= IN_PLACE; }
static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
static float *panel_at(const Pass *s, size_t kb, size_t p) {
    const size_t at = s->whole ? kb * s->panels + p : (kb - s->k0) * (s->p1 - s->p0) + (p - s->p0);
    return s->pack + at * s->kc * NR;
}

/* Panel p of K block kb: [k][NR]. */
static void panel_pack(const void *pass, size_t t) {
    const Pass *s = pass;
    const Gemm *g = s->g;
    const size_t kb = s->k0 + t / (s->p1 - s->p0), p = s->p0 + t % (s->p1 - s->p0);
    const size_t k0 = kb * s->kc, kn = min_size(s->kc, g->K - k0), j0 = p * NR, n = min_size(NR, g->N - j0);
    float *to = panel_at(s, kb, p);
    if (g->trans) transpose(to, NR, g->b + j0 * g->ldb + k0, g->ldb, n, kn);
    else
        for (size_t k = 0; k < kn; k++) memcpy(to + k * NR, g->b + (k0 + k) * g->ldb + j0, n * sizeof(float));
}

/* C block: rows [m0, m1) x panels [p0, p1), over this pass's K blocks. */
static void block_run(const Pass *s, size_t m0, size_t m1, size_t p0, size_t p1) {
    const Gemm *g = s->g;
    const size_t m = m1 - m0;
    float copy[M_BLOCK * (K_BLOCK + PAD)];
    for (size_t kb = s->k0; kb < s->k1; kb++) {
        const size_t k0 = kb * s->kc, kn = min_size(s->kc, g->K - k0);
        const float *a = g->by == ROWS ? g->a + m0 * g->lda + k0 : g->a + k0 * g->lda + m0;
        size_t lda = g->lda;
        if (s->copy_a) {
            const size_t rows = g->by == ROWS ? m : kn, cols = g->by == ROWS ? kn : m,
                         ld = g->by == ROWS ? K_BLOCK + PAD : M_BLOCK;
            for (size_t i = 0; i < rows; i++) memcpy(copy + i * ld, a + i * lda, cols * sizeof(float));
            a = copy, lda = ld;
        }
        for (size_t p = p0; p < p1; p++) {
            const size_t j0 = p * NR, n = min_size(NR, g->N - j0);
            panel_mul(g->c + m0 * g->ldc + j0, g->ldc, a, lda, g->by,
                      s->in_place ? g->b + k0 * g->ldb + j0 : panel_at(s, kb, p), s->in_place ? g->ldb : NR, m, n, kn,
                      g->add || kb > 0);
        }
    }
}

static void bias_add(const Gemm *g, size_t m0, size_t m1, size_t j0, size_t j1) {
    for (size_t m = m0; m < m1; m++) {
        float *c_m = g->c + m * g->ldc;
        for (size_t j = j0; j < j1; j++) c_m[j] += g->bias[j];
    }
}

/* Block t of C of one pass. */
static void pass_block(const void *pass, size_t t) {
    const Pass *s = pass;
    const Gemm *g = s->g;
    const size_t rows = (g->M + s->mb - 1) / s->mb, panels = s->p1 - s->p0, i = t / s->nb, j = t % s->nb;
    const size_t m0 = i * rows, m1 = min_size(g->M, m0 + rows), p0 = s->p0 + panels * j / s->nb,
                 p1 = s->p0 + panels * (j + 1) / s->nb;
    if (m0 >= m1 || p0 == p1) return;
    block_run(s, m0, m1, p0, p1);
    if (s->bias) bias_add(g, m0, m1, p0 * NR, min_size(g->N, p1 * NR));
}

static void gemm_passes(const Gemm *g, float *pack, size_t budget, int whole) {
    const size_t nk = prepack_blocks(g->K), kc = prepack_block(g->K), panels = (g->N + NR - 1) / NR;
    // All columns of as much K as fits, so that A is read once; of fewer columns only where one block of K does not
    // fit.
    const size_t fit = budget / (kc * NR), p_pass = min_size(panels, fit), k_pass = min_size(nk, fit / p_pass);
    const size_t tasks = 3 * (size_t)pool_threads();
    const int enough = g->M * g->N * g->K > 100000;
    Pass s = {.g = g, .pack = pack, .whole = whole, .panels = panels, .kc = kc};
    s.in_place = in_place(g);
    s.copy_a = g->lda >= 512 && g->N >= 128;
    s.mb = (g->M + M_BLOCK - 1) / M_BLOCK;
    if (s.mb < tasks) s.mb = min_size(tasks, (g->M + 2 * MR - 1) / (2 * MR));
    for (s.k0 = 0; s.k0 < nk; s.k0 = s.k1)
        for (s.p0 = 0; s.p0 < panels; s.p0 = s.p1) {
            s.k1 = min_size(nk, s.k0 + k_pass), s.p1 = min_size(panels, s.p0 + p_pass);
            s.nb = s.mb >= tasks ? 1 : min_size(s.p1 - s.p0, (tasks + s.mb - 1) / s.mb);
            s.bias = g->bias && s.k1 == nk;
            if (!s.in_place && !whole) pool_run_if(enough, (s.p1 - s.p0) * (s.k1 - s.k0), panel_pack, &s);
            pool_run_if(enough, s.mb * s.nb, pass_block, &s);
        }
}

/* All panels of prepacked weights, or NULL if this product has to pack for itself. */
static float *panels_ready(const Gemm *g) {
    Prepacked *h = g->weights ? prepack_find(g->b) : NULL;
    PackedCopy *copy = h ? &h->copy[g->trans] : NULL;
    if (!copy || !copy->wanted || h->O != (g->trans ? g->N : g->K) || h->I != (g->trans ? g->K : g->N)) return NULL;
    if (atomic_load_explicit(&copy->state, memory_order_acquire) == PACK_READY)
        return copy->lanes == VW ? copy->panels : NULL;
    int stale = PACK_STALE;
    if (!atomic_compare_exchange_strong(&copy->state, &stale, PACK_BUSY)) return NULL;
    const size_t panels = (g->N + NR - 1) / NR;
    const Pass s = {.g = g,
                    .pack = prepack_memory(copy, prepack_bytes(g->K, g->N)),
                    .whole = 1,
                    .panels = panels,
                    .kc = prepack_block(g->K),
                    .k1 = prepack_blocks(g->K),
                    .p1 = panels};
    if (s.pack)
        pool_run_if(g->N * g->K > ALONE, s.k1 * s.p1, panel_pack, &s),
            atomic_fetch_add_explicit(&matrices_packed, 1, memory_order_relaxed);
    copy->lanes = VW;
    atomic_store_explicit(&copy->state, s.pack ? PACK_READY : PACK_STALE, memory_order_release);
    return s.pack;
}

static void gemm(const Gemm *caller) {
    Gemm of_floats = *caller;
    const Gemm *g = &of_floats;
    if (!of_floats.c) of_floats.c = of_floats.sums;
    if (!g->M || !g->N) return;
    float *ready = panels_ready(g);
    if (ready) {
        gemm_passes(g, ready, POOL_PACK, 1);
        return;
    }
    float stack[STACK_PACK];
    const size_t need = (g->K + K_BLOCK) * (g->N + NR);
    float *big = need > STACK_PACK ? pool_take() : NULL;
    gemm_passes(g, big ? big : stack, big ? POOL_PACK : STACK_PACK, 0);
    if (g->weights && !in_place(g)) atomic_fetch_add_explicit(&matrices_packed, 1, memory_order_relaxed);
    pool_give(big);
}
