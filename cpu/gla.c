/* gla.c - gated linear attention by chunks of at most 64 tokens, on the products of tile.h;
 * (batch, key head) in parallel.
 *
 * Per key channel a, D_ij = e^{g_{j+1} + ... + g_i} (0 across a document's start), in_i = D from the state before,
 * out_j = D_nj:
 *   A_ij = scale sum_a q_ia D_ij,a k_ja (j <= i)    O = A V + (scale in o q) S    S <- diag(in_n) S + (out o k)^T V
 * Backward, dS belonging to the state after, dA = scale tril(dO V^T):
 *   dV = A^T dO + (out o k) dS        dQ_i = sum_j dA_ij D_ij o k_j + scale in_i o (dO S^T)_i
 *   dK_j = sum_i dA_ij D_ij o q_i + out_j o (V dS^T)_j         dS <- diag(in_n) dS + (scale in o q)^T dO
 *   dg_t = the sum of every term above whose decay leads over token t, times its own q or k: pairs j < t <= i,
 *   the state
 *   before read by i >= t, the state after written by j < t, and in_n rows(S o dS). Each holds e^{g_t} as a factor and
 *   none is subtracted again: sums of all of q o dQ - k o dK from row t on would leave the noise of the pairs behind t,
 *   however small dg_t is.
 * D is a factor of rows i and j only between two blocks: for j < r <= i, D_ij = D_ir D_rj.
 * So the triangle is halved down to LEAF rows; each off-diagonal square is a product of q_i o D_ir and k_j o D_rj,
 * r its first row i, and the leaves go pair by pair. Every
 * D is a product of steps e^g <= 1, so no exponent is ever above 0 and strong decays underflow to what they are.
 * Source: Yang et al. (arXiv 2312.06635); ref/METHOD.md 6.3. */
#include "scan.h"

enum { LEAF = 8 };

typedef struct {
    size_t n, K, ldt;
    // (n,K) each: e^g or 0 at a reset; scaled q, k (contiguous); and two of scratch
    float *step, *q, *k, *row_q, *row_k;
    float *k_t, *all; // scratch (K, ldt); in_n, the product of all steps (K)
    Fetches *fetches;
} GlaChunk;

/* work: 5 (n,K), (K, pad16 n), (K) */
static GlaChunk gla_open(const Chunk *c, float *work) {
    const size_t size = c->n * c->K;
    const GlaChunk x = {c->n,
                        c->K,
                        pad16(c->n),
                        work,
                        work + size,
                        work + 2 * size,
                        work + 3 * size,
                        work + 4 * size,
                        work + 5 * size,
                        work + 5 * size + pad16(c->n) * c->K,
                        c->fetches};
    for (size_t i = 0; i < c->n; i++) {
        const int cut = row_resets(c, i);
        fetch_lines(c->fetches, 8); // here and in the leaves: what their time is good for
        for (size_t a = 0; a < c->K; a += VW) {
            const size_t at = i * c->K + a, m = c->K - a;
            vput(x.step + at, cut ? vset(0) : vexp(vget(c->g + i * c->ldg + a, m)), m);
            vput(x.q + at, vget(c->q + i * c->ldq + a, m) * vset(c->scale), m);
            vput(x.k + at, vget(c->k + i * c->ldq + a, m), m);
        }
    }
    for (size_t a = 0; a < c->K; a += VW) {
        vf f = vset(1);
        for (size_t i = 0; i < c->n; i++) f = f * vget(x.step + i * c->K + a, c->K - a);
        vput(x.all + a, f, c->K - a);
    }
    return x;
}

/* y_i = D_i,from o x_i for rows from..to-1: nothing at `from`, one more step each row. first = 1:
 * also the step into `from`. */
static void carry_down(float *y, const float *x, const float *step, size_t K, size_t from, size_t to, int first) {
    for (size_t a = 0; a < K; a += VW) {
        vf f = vset(1);
        for (size_t i = from; i < to; i++) {
            if (i > from || first) f = f * vget(step + i * K + a, K - a);
            vput(y + i * K + a, vget(x + i * K + a, K - a) * f, K - a);
        }
    }
}
/* y_j = D_to,j o x_j for rows j = from..to-1 (steps j+1..to); last = 0: steps j+1..to-1 only */
static void carry_up(float *y, const float *x, const float *step, size_t K, size_t from, size_t to, int last) {
    for (size_t a = 0; a < K; a += VW) {
        vf f = last ? vget(step + to * K + a, K - a) : vset(1);
        for (size_t j = to; j-- > from;) {
            vput(y + j * K + a, vget(x + j * K + a, K - a) * f, K - a);
            f = f * vget(step + j * K + a, K - a);
        }
    }
}

/* Pairs inside rows [from, to): A_ij */
static void leaf_products(float *A, const GlaChunk *x, size_t from, size_t to) {
    const size_t K = x->K;
    fetch_lines(x->fetches, 48);
    for (size_t i = from; i < to; i++) {
        vf s[LEAF];
        for (size_t j = 0; j < LEAF; j++) s[j] = vset(0);
        for (size_t a = 0; a < K; a += VW) {
            vf q = vget(x->q + i * K + a, K - a); // becomes q_i o D_ij as j goes up the rows
            for (size_t j = i + 1; j-- > from;) {
                s[j - from] = vfma(q, vget(x->k + j * K + a, K - a), s[j - from]);
                q = q * vget(x->step + j * K + a, K - a);
            }
        }
        for (size_t j = from; j <= i; j++) A[i * CT + j] = vsum(s[j - from]);
        for (size_t j = i + 1; j < to; j++) A[i * CT + j] = 0;
    }
}
/* The triangle of A over rows [from, to), to - from a power of two or the chunk's end */
static void gla_products(float *A, const GlaChunk *x, size_t from, size_t to, size_t size) {
    if (size <= LEAF) {
        leaf_products(A, x, from, to);
        return;
    }
    const size_t r = from + size / 2;
    gla_products(A, x, from, r < to ? r : to, size / 2);
    if (r >= to) return;
    gla_products(A, x, r, to, size / 2);
    carry_down(x->row_q, x->q, x->step, x->K, r, to, 0);
    carry_up(x->row_k, x->k, x->step, x->K, from, r, 1);
    transpose(x->k_t, x->ldt, x->row_k + from * x->K, x->K, r - from, x->K);
    block_mul(A + r * CT + from, CT, x->row_q + r * x->K, x->K, ROWS, x->k_t, x->ldt, to - r, r - from, x->K, 0);
}

/* S' = diag(in_n) S + (out o k)^T V; row_q holds in o q of all rows when this is called in backward, so row_k only is
 * used */
static void gla_state_next(float *S_next, const float *S, const Chunk *c, const GlaChunk *x) {
    const size_t K = c->K, V = c->V;
    carry_up(x->row_k, x->k, x->step, K, 0, c->n, 0);
    for (size_t a = 0; a < K; a++) scale_all(S_next + a * V, S + a * V, x->all[a], V);
    chunk_mul(c, S_next, V, x->row_k, K, COLS, c->v, c->ldv, K, V, c->n, 1);
}

static void gla_chunk_forward(float *o, float *S_next, const float *S, const Chunk *c, float *work) {
    const GlaChunk x = gla_open(c, work);
    float A[CT * CT];
    if (o) {
        gla_products(A, &x, 0, c->n, CT);
        carry_down(x.row_q, x.q, x.step, c->K, 0, c->n, 1);
        chunk_mul(c, o, c->ldv, x.row_q, c->K, ROWS, S, c->V, c->n, c->V, c->K, 0);
        lower_apply(c, o, c->ldv, A, c->v, c->ldv, c->n, c->V);
    }
    gla_state_next(S_next, S, c, &x);
}

/* ---- backward ---- */

// (n,K) of this chunk, contiguous: of scaled q, of k, and of the log decays
typedef struct {
    float *dq, *dk, *dg;
} GlaGrad;

static void leaf_backward(GlaGrad *g, const float *dA, const GlaChunk *x, size_t from, size_t to) {
    const size_t K = x->K;
    fetch_lines(x->fetches, 48);
    for (size_t i = from; i < to; i++)
        for (size_t a = 0; a < K; a += VW) {
            const size_t m = K - a;
            const vf q = vget(x->q + i * K + a, m);
            vf f = vset(1), dq = vset(0), pair[LEAF];
            for (size_t j = i + 1; j-- > from;) {
                const vf d = f * vset(dA[i * CT + j]), dk = d * q, k = vget(x->k + j * K + a, m);
                float *dk_j = g->dk + j * K + a;
                dq = vfma(d, k, dq);
                vput(dk_j, vget(dk_j, m) + dk, m);
                pair[j - from] = dk * k;
                f = f * vget(x->step + j * K + a, m);
            }
            vput(g->dq + i * K + a, vget(g->dq + i * K + a, m) + dq, m);
            vf sum = vset(0);
            for (size_t t = from + 1; t <= i; t++) { // over pairs with j < t
                float *dg = g->dg + t * K + a;
                sum = sum + pair[t - 1 - from];
                vput(dg, vget(dg, m) + sum, m);
            }
        }
}
/* What came through row_q or row_k goes back with the same factors: y += D_.. o x. `with` is what they stood beside:
 * with o D o x is what the log of each decay in D gets, and row t's is in the D of row t and of those farther away. */
static void back_down(float *y, float *dg, float *x, const float *with, const float *step, size_t K, size_t from,
                      size_t to, int first) {
    carry_down(x, x, step, K, from, to, first);
    for (size_t a = 0; a < K; a += VW) {
        const size_t m = K - a;
        vf sum = vset(0);
        for (size_t at = to * K + a; at > from * K + a;) {
            at -= K;
            const vf d = vget(x + at, m);
            sum = vfma(vget(with + at, m), d, sum);
            vput(y + at, vget(y + at, m) + d, m);
            vput(dg + at, vget(dg + at, m) + sum, m);
        }
    }
}
static void back_up(float *y, float *dg, float *x, const float *with, const float *step, size_t K, size_t from,
                    size_t to, int last) {
    carry_up(x, x, step, K, from, to, last);
    for (size_t a = 0; a < K; a += VW) {
        const size_t m = K - a;
        vf sum = vset(0);
        for (size_t at = from * K + a; at < to * K; at += K) {
            const vf d = vget(x + at, m);
            vput(y + at, vget(y + at, m) + d, m);
            vput(dg + at, vget(dg + at, m) + sum, m);
            sum = vfma(vget(with + at, m), d, sum);
        }
    }
}

static void gla_products_backward(GlaGrad *g, const float *dA, const GlaChunk *x, size_t from, size_t to, size_t size,
                                  float *scratch) {
    const size_t K = x->K;
    if (size <= LEAF) {
        leaf_backward(g, dA, x, from, to);
        return;
    }
    const size_t r = from + size / 2;
    gla_products_backward(g, dA, x, from, r < to ? r : to, size / 2, scratch);
    if (r >= to) return;
    gla_products_backward(g, dA, x, r, to, size / 2, scratch);
    carry_down(x->row_q, x->q, x->step, K, r, to, 0);
    carry_up(x->row_k, x->k, x->step, K, from, r, 1);
    const float *square = dA + r * CT + from;
    block_mul(scratch + r * K, K, square, CT, ROWS, x->row_k + from * K, K, to - r, K, r - from, 0);
    block_mul(scratch + from * K, K, square, CT, COLS, x->row_q + r * K, K, r - from, K, to - r, 0);
    back_down(g->dq, g->dg, scratch, x->q, x->step, K, r, to, 0);
    back_up(g->dk, g->dg, scratch, x->k, x->step, K, from, r, 1);
}

/* all (K): <S, dS> a channel with the decay of the whole chunk, which every token has a part in. */
static void gla_decay_backward(const ScanGrad *out, const Chunk *c, const float *dg, const float *all) {
    for (size_t i = 0; i < c->n; i++)
        for (size_t a = 0; a < c->K; a += VW) {
            const size_t m = c->K - a;
            float *to = out->dg + i * c->ldg + a;
            vput(to, vget(to, m) + (vget(dg + i * c->K + a, m) + vget(all + a, m)), m);
        }
}
/* all, and dS of the state before as far as it comes through the state after. */
static void gla_carry_backward(float *all, float *dS, const float *S, const Chunk *c, const GlaChunk *x) {
    for (size_t a = 0; a < c->K; a++) {
        all[a] = x->all[a] * row_dot(S + a * c->V, dS + a * c->V, c->V);
        scale_all(dS + a * c->V, dS + a * c->V, x->all[a], c->V);
    }
}

static void gla_chunk_backward(const ScanGrad *out, float *dS, const float *S, const Chunk *c, float *work) {
    const size_t n = c->n, K = c->K, V = c->V, ldt = pad16(n);
    const GlaChunk x = gla_open(c, work);
    float A[CT * CT], *v_t = x.all + K, *scratch = v_t + ldt * V, *S_t = scratch + n * K, *all = S_t + K * V;
    GlaGrad g = {all + K, all + K + n * K, all + K + 2 * n * K};
    memset(g.dq, 0, 3 * n * K * sizeof(float));

    gla_products(A, &x, 0, n, CT); // dV = A^T dO + (out o k) dS
    lower_apply_transposed(c, out->dv, c->ldv, A, out->dout, c->ldv, n, V);
    carry_up(x.row_k, x.k, x.step, K, 0, n, 0);
    chunk_mul(c, out->dv, c->ldv, x.row_k, K, ROWS, dS, V, n, V, K, 1);

    transpose(v_t, ldt, c->v, c->ldv, n, V); // dA, of the scaled q
    lower_product(c, A, out->dout, c->ldv, v_t, ldt, n, V);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < pad16(i + 1); j += VW) vstore(A + i * CT + j, lower(vload(A + i * CT + j), i, j));
    gla_products_backward(&g, A, &x, 0, n, CT, scratch);

    transpose(S_t, K, dS, V, K, V); // through the state after
    chunk_mul(c, scratch, K, c->v, c->ldv, ROWS, S_t, K, n, K, V, 0);
    back_up(g.dk, g.dg, scratch, x.k, x.step, K, 0, n, 0);
    gla_carry_backward(all, dS, S, c, &x);
    transpose(S_t, K, S, V, K, V); // through the state before
    chunk_mul(c, scratch, K, out->dout, c->ldv, ROWS, S_t, K, n, K, V, 0);
    back_down(g.dq, g.dg, scratch, x.q, x.step, K, 0, n, 1);
    carry_down(x.row_q, x.q, x.step, K, 0, n, 1);
    chunk_mul(c, dS, V, x.row_q, K, COLS, out->dout, c->ldv, K, V, n, 1);

    gla_decay_backward(out, c, g.dg, all);
    scale_all(g.dq, g.dq, c->scale, n * K);
    rows_add(out->dq, c->ldq, g.dq, n, K);
    rows_add(out->dk, c->ldq, g.dk, n, K);
}

/* ---- the ops ---- */

static const Scan gla_scan = {K_A_KEY_HEAD, gla_work, gla_chunk_forward, gla_chunk_backward};

static void gla_forward(real *o, real *states, float *state, const real *q, const real *k, const real *v,
                        const float *g, const int *start, double scale, void *work, const DeltaDims *d) {
    scan_forward((ScanJob){&gla_scan, d, .o = o, .states = states, .state = state, .q = q, .k = k, .v = v, .g = g,
                           .start = start, .scale = scale, .work = work});
}

static void gla_backward(real *dq, real *dk, real *dv, float *dg, float *dstate, const real *dout, const real *states,
                         const real *q, const real *k, const real *v, const float *g, const int *start, double scale,
                         void *work, const DeltaDims *d) {
    scan_backward((ScanJob){&gla_scan, d, .states = (real *)states, .dstate = dstate, .q = q, .k = k, .v = v, .g = g,
                            .grad = {dq, dk, dv, dg, NULL, dout}, .start = start, .scale = scale, .work = work});
}
