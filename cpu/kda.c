/* kda.c - Kimi delta attention by chunks of at most 64 tokens: the substitutions of delta_rule.c on the triangles of
 * gla.c; (batch, key head) in parallel.
 *
 * With D, in, out as in gla.c (per key channel), A(x, y)_ij = sum_a x_ia D_ij,a y_ja, and S the state before:
 *   M  = beta strict A(K, K)    V' = (I + M)^{-1} beta (V - (in o K) S)    P = A(scale Q, K)
 *   O  = (scale in o Q) S + P V'                                          S <- diag(in_n) S + (out o K)^T V'
 * Backward, dS belonging to the state after, R = V - (in o K) S, W = (I + M)^{-T} dV':
 *   dV' = (out o K) dS + P^T dO     dV = dR = beta W     dP = dO V'^T     dM = -W V'^T     dbeta_i = W_i .
 *   R_i + sum_j dM_ij A(K, K)_ij
 *   dQ and the two sides of dK (as row i, as column j) go through A as in gla.c, dA = dP and beta strict dM; besides
 *   dQ += scale in o (dO S^T)       dK_row -= in o (dR S^T)       dK_column += out o (V' dS^T)
 *   dg_t = as in gla.c, the sum of every term whose decay leads over token t, never a difference of such sums
 *   dS <- diag(in_n) dS + (scale in o Q)^T dO - (in o K)^T dR
 * Source: Kimi Linear (arXiv 2510.26692); the halved triangle keeps every exponent at 0 or below. */
#include "scan.h"

typedef struct {
    GlaChunk q, k;    // one memory; rows are scaled q in the one, k in the other; columns are k in both
    float *r, *v_new; // (n,V): R, V'
    float m[CT * CT], p[CT * CT], kk[CT * CT]; // -M, P, A(K, K)
} KdaChunk;

/* Everything up to V'. Returns the rest of the workspace. */
static float *kda_open(KdaChunk *x, const Chunk *c, const float *S, float *work, int outputs) {
    const size_t n = c->n, V = c->V;
    x->q = x->k = gla_open(c, work);
    x->k.q = x->q.k;
    x->r = x->q.all + c->K, x->v_new = x->r + n * V;
    gla_products(x->kk, &x->k, 0, n, CT);
    if (outputs) gla_products(x->p, &x->q, 0, n, CT);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < pad16(i + 1); j += VW)
            vstore(x->m + i * CT + j, strictly(vload(x->kk + i * CT + j) * vset(-c->beta[i * c->ldb]), i, j));
    carry_down(x->q.row_q, x->q.k, x->q.step, c->K, 0, n, 1);
    chunk_mul(c, x->r, V, x->q.row_q, c->K, ROWS, S, V, n, V, c->K, 0);
    for (size_t i = 0; i < n; i++)
        for (size_t e = 0; e < V; e += VW) {
            const size_t at = i * V + e;
            const vf y = vget(c->v + i * c->ldv + e, V - e) - vget(x->r + at, V - e);
            vput(x->r + at, y, V - e);
            vput(x->v_new + at, y * vset(c->beta[i * c->ldb]), V - e);
        }
    solve(x->v_new, x->m, n, V);
    return x->v_new + n * V;
}

/* One chunk; o NULL: only the next state. work: as gla_open, 2 (n,V) */
static void kda_chunk_forward(float *o, float *S_next, const float *S, const Chunk *c, float *work) {
    KdaChunk x;
    const size_t n = c->n, K = c->K, V = c->V;
    kda_open(&x, c, S, work, o != NULL);
    if (o) {
        carry_down(x.q.row_q, x.q.q, x.q.step, K, 0, n, 1);
        chunk_mul(c, o, c->ldv, x.q.row_q, K, ROWS, S, V, n, V, K, 0);
        lower_apply(c, o, c->ldv, x.p, x.v_new, V, n, V);
    }
    carry_up(x.q.row_k, x.q.k, x.q.step, K, 0, n, 0);
    for (size_t a = 0; a < K; a++) scale_all(S_next + a * V, S + a * V, x.q.all[a], V);
    chunk_mul(c, S_next, V, x.q.row_k, K, COLS, x.v_new, V, K, V, n, 1);
}

/* ---- backward ---- */

// (n,K) of this chunk: of scaled q, of k as row, as column, of g; (K)
typedef struct {
    float *dq, *row, *column, *dg, *all;
} KdaGrad;

/* E = W V'^T (= -dM) and F = dP become the gradients of A(K, K) and of A(scale Q, K); dbeta's second term. */
static void kda_squares(float *E, float *F, float *dbeta, const KdaChunk *x, const Chunk *c) {
    for (size_t i = 0; i < c->n; i++) {
        vf b = vset(0);
        for (size_t j = 0; j < pad16(i + 1); j += VW) {
            const size_t at = i * CT + j;
            const vf e = strictly(vset(0) - vload(E + at), i, j);
            b = b + strictly(e * vload(x->kk + at), i, j);
            vstore(E + at, e * vset(c->beta[i * c->ldb]));
            vstore(F + at, lower(vload(F + at), i, j));
        }
        dbeta[i * c->ldb] += vsum(b);
    }
}

/* What went through the states. dS: gradient of the state after on entry, of the state before, S, on return. dr: -dR.
 * scratch: (n,K), (K,V) */
static void kda_states_backward(const KdaGrad *g, float *dS, const float *S, const float *dr, const float *dout,
                                const Chunk *c, const KdaChunk *x, float *scratch) {
    const size_t n = c->n, K = c->K, V = c->V;
    float *S_t = scratch + n * K;
    const GlaChunk *q = &x->q;
    transpose(S_t, K, dS, V, K, V);
    chunk_mul(c, scratch, K, x->v_new, V, ROWS, S_t, K, n, K, V, 0);
    back_up(g->column, g->dg, scratch, q->k, q->step, K, 0, n, 0);
    gla_carry_backward(g->all, dS, S, c, q);
    transpose(S_t, K, S, V, K, V);
    chunk_mul(c, scratch, K, dout, c->ldv, ROWS, S_t, K, n, K, V, 0);
    back_down(g->dq, g->dg, scratch, q->q, q->step, K, 0, n, 1);
    chunk_mul(c, scratch, K, dr, V, ROWS, S_t, K, n, K, V, 0);
    back_down(g->row, g->dg, scratch, q->k, q->step, K, 0, n, 1);
    carry_down(q->row_q, q->q, q->step, K, 0, n, 1);
    chunk_mul(c, dS, V, q->row_q, K, COLS, dout, c->ldv, K, V, n, 1);
    carry_down(q->row_q, q->k, q->step, K, 0, n, 1);
    chunk_mul(c, dS, V, q->row_q, K, COLS, dr, V, K, V, n, 1);
}

static void kda_chunk_backward(const ScanGrad *out, float *dS, const float *S, const Chunk *c, float *work) {
    KdaChunk x;
    const size_t n = c->n, K = c->K, V = c->V, ldt = pad16(n);
    float E[CT * CT], F[CT * CT], *w = kda_open(&x, c, S, work, 1), *v_t = w + n * V, *scratch = v_t + ldt * V,
                                  *rows = scratch + n * K + K * V;
    const KdaGrad g = {rows, rows + n * K, rows + 2 * n * K, rows + 3 * n * K, rows + 4 * n * K};
    memset(g.dq, 0, 4 * n * K * sizeof(float)); // dq, row, column, dg

    carry_up(x.q.row_k, x.q.k, x.q.step, K, 0, n, 0); // dV' = (out o K) dS + P^T dO, then W
    chunk_mul(c, w, V, x.q.row_k, K, ROWS, dS, V, n, V, K, 0);
    lower_apply_transposed(c, w, V, x.p, out->dout, c->ldv, n, V);
    solve_transposed(w, x.m, n, V);

    transpose(v_t, ldt, x.v_new, V, n, V);
    lower_product(c, F, out->dout, c->ldv, v_t, ldt, n, V);
    lower_product(c, E, w, V, v_t, ldt, n, V);
    kda_squares(E, F, out->dbeta, &x, c);
    gla_products_backward(&(GlaGrad){g.dq, g.column, g.dg}, F, &x.q, 0, n, CT, scratch);
    gla_products_backward(&(GlaGrad){g.row, g.column, g.dg}, E, &x.k, 0, n, CT, scratch);

    for (size_t i = 0; i < n; i++) { // dbeta's first term; dV = dR = beta W, and r becomes -dR
        const vf beta = vset(c->beta[i * c->ldb]);
        out->dbeta[i * c->ldb] += row_dot(w + i * V, x.r + i * V, V);
        for (size_t e = 0; e < V; e += VW) {
            const vf dr = vget(w + i * V + e, V - e) * beta;
            float *dv = out->dv + i * c->ldv + e;
            vput(dv, vget(dv, V - e) + dr, V - e);
            vput(x.r + i * V + e, vset(0) - dr, V - e);
        }
    }
    kda_states_backward(&g, dS, S, x.r, out->dout, c, &x, scratch);
    gla_decay_backward(out, c, g.dg, g.all);
    scale_all(g.dq, g.dq, c->scale, n * K);
    rows_add(out->dq, c->ldq, g.dq, n, K);
    rows_add(out->dk, c->ldq, g.row, n, K);
    rows_add(out->dk, c->ldq, g.column, n, K);
}

/* ---- the ops ---- */

static const Scan kda_scan = {K_A_HEAD, kda_work, kda_chunk_forward, kda_chunk_backward};

static void kda_forward(real *o, real *states, float *state, const real *q, const real *k, const real *v,
                        const float *g, const float *beta, const int *start, double scale, void *work,
                        const DeltaDims *d) {
    scan_forward((ScanJob){&kda_scan, d, .o = o, .states = states, .state = state, .q = q, .k = k, .v = v, .g = g,
                           .beta = beta, .start = start, .scale = scale, .work = work});
}

static void kda_backward(real *dq, real *dk, real *dv, float *dg, float *dbeta, float *dstate, const real *dout,
                         const real *states, const real *q, const real *k, const real *v, const float *g,
                         const float *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    scan_backward((ScanJob){&kda_scan, d, .states = (real *)states, .dstate = dstate, .q = q, .k = k, .v = v, .g = g,
                            .beta = beta, .grad = {dq, dk, dv, dg, dbeta, dout}, .start = start, .scale = scale,
                            .work = work});
}
