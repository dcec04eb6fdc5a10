/* gemm.c - the threaded matrix product behind linear and the heads.
 *
 * K is cut into blocks of at most K_BLOCK, a function of K alone; within a block every element of C is one chain of FMAs (tile.h), and
 * the blocks are added to C in order. So the bits do not depend on threads, tiles, packing or the size of the buffers.
 * B is packed, by all threads, into panels of 2 VW columns [k][2 VW], or read in place where its rows are short; then the threads take blocks of C (M_BLOCK rows x some panels) as they come. A is read in place, or, where
 * its stride would make its rows fall on the same cache sets, copied block by block to the stack. */
#include "gemm.h"

enum {
    NR = 2 * VW,
    K_BLOCK = 384,
    M_BLOCK = 96,
    STACK_PACK = 16384,   // floats of panels on the stack: enough for one panel of one block of K
    POOL_PACK = 2 << 20,  // floats in the pool
    PAD = 16
};

/* One buffer for panels, allocated at the first large product and kept. Whoever finds it taken (two threads of the caller in gemm at
 * once) or finds no memory uses the stack: the same result from smaller blocks. */
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
    size_t kc;             // rows of a K block
    size_t k0, k1;         // this pass: K blocks [k0, k1)
    size_t p0, p1;         // and panels [p0, p1)
    int in_place;          // B is read where it is
    int copy_a;
} Pass;

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
static float *panel_at(const Pass *s, size_t kb, size_t p) { return s->pack + ((kb - s->k0) * (s->p1 - s->p0) + (p - s->p0)) * s->kc * NR; }

/* Panel p of K block kb: [k][NR]. */
static void panel_pack(const Pass *s, size_t kb, size_t p) {
    const Gemm *g = s->g;
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
            const size_t rows = g->by == ROWS ? m : kn, cols = g->by == ROWS ? kn : m, ld = g->by == ROWS ? K_BLOCK + PAD : M_BLOCK;
            for (size_t i = 0; i < rows; i++) memcpy(copy + i * ld, a + i * lda, cols * sizeof(float));
            a = copy, lda = ld;
        }
        for (size_t p = p0; p < p1; p++) {
            const size_t j0 = p * NR, n = min_size(NR, g->N - j0);
            panel_mul(g->c + m0 * g->ldc + j0, g->ldc, a, lda, g->by, s->in_place ? g->b + k0 * g->ldb + j0 : panel_at(s, kb, p),
                      s->in_place ? g->ldb : NR, m, n, kn, g->add || kb > 0);
        }
    }
}

static void bias_add(const Gemm *g, size_t m0, size_t m1, size_t j0, size_t j1) {
    for (size_t m = m0; m < m1; m++) {
        float *c_m = g->c + m * g->ldc;
        for (size_t j = j0; j < j1; j++) c_m[j] += g->bias[j];
    }
}

/* All blocks of C of one pass. */
static void pass_run(const Pass *s, size_t mb, size_t nb, int bias) {
    const Gemm *g = s->g;
    const size_t mt = (g->M + mb - 1) / mb, panels = s->p1 - s->p0;
#pragma omp for schedule(dynamic)
    for (size_t t = 0; t < mb * nb; t++) {
        const size_t m0 = t / nb * mt, m1 = min_size(g->M, m0 + mt), q0 = s->p0 + panels * (t % nb) / nb, q1 = s->p0 + panels * (t % nb + 1) / nb;
        if (m0 >= m1 || q0 == q1) continue;
        block_run(s, m0, m1, q0, q1);
        if (bias) bias_add(g, m0, m1, q0 * NR, min_size(g->N, q1 * NR));
    }
}

static void pass_pack(const Pass *s) {
    const size_t panels = s->p1 - s->p0;
    if (s->in_place) return;
#pragma omp for schedule(static)
    for (size_t t = 0; t < panels * (s->k1 - s->k0); t++) panel_pack(s, s->k0 + t / panels, s->p0 + t % panels);
}

static void gemm_passes(const Gemm *g, float *pack, size_t budget) {
    const size_t nk = (g->K + K_BLOCK - 1) / K_BLOCK, kc = (g->K + nk - 1) / nk, panels = (g->N + NR - 1) / NR;
    const size_t k_pass = min_size(nk, budget / (kc * NR)), p_pass = min_size(panels, budget / (k_pass * kc * NR));
    const size_t threads = (size_t)threads_max();
    size_t mb = (g->M + M_BLOCK - 1) / M_BLOCK;
    if (mb < 3 * threads) mb = min_size(3 * threads, (g->M + 2 * MR - 1) / (2 * MR));
    Pass s0 = {.g = g, .pack = pack, .kc = kc};
    s0.in_place = !g->trans && g->ldb <= 1024;
    s0.copy_a = g->lda >= 512 && g->N >= 128;
#pragma omp parallel if (g->M * g->N * g->K > 100000)
    for (size_t k = 0; k < nk; k += k_pass)
        for (size_t p = 0; p < panels; p += p_pass) {
            Pass s = s0;
            s.k0 = k, s.k1 = min_size(nk, k + k_pass), s.p0 = p, s.p1 = min_size(panels, p + p_pass);
            const size_t nb = mb >= 3 * threads ? 1 : min_size(s.p1 - s.p0, (3 * threads + mb - 1) / mb);
            pass_pack(&s);
            pass_run(&s, mb, nb, g->bias && s.k1 == nk);
        }
}

static void gemm(const Gemm *g) {
    if (!g->M || !g->N) return;
    float stack[STACK_PACK];
    const size_t need = (g->K + K_BLOCK) * (g->N + NR);
    float *big = need > STACK_PACK ? pool_take() : NULL;
    gemm_passes(g, big ? big : stack, big ? POOL_PACK : STACK_PACK);
    pool_give(big);
}
