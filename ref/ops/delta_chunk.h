/* delta_chunk.h - the gated delta rule a chunk at a time: no-WU form (ref/METHOD.md 6.2), solved by forward
 * substitution.
 *
 * Rows i, j = 0..n-1. decay_ij = e^{g_{j+1} + ... + g_i} leads from token j to token i >= j, carry_i from the state S
 * before the chunk to token i; both are 0 across a document's start. w_i is what token i writes:
 * beta_i u_i of the recurrence.
 *   x_i = v_i - carry_i S^T k_i - sum_{j<i} decay_ij (k_i.k_j) w_j;   w_i = beta_i x_i
 *   o_i = scale (carry_i S^T q_i + sum_{j<=i} decay_ij (q_i.k_j) w_j)
 *   S'  = carry_last S + sum_j decay_last,j k_j w_j^T
 * Each exponent is summed by itself: as the difference of two cumulative sums it would lose the digits that a strong
 * decay earlier in the chunk has used up. */
#ifndef HYB_REF_DELTA_CHUNK_H
#define HYB_REF_DELTA_CHUNK_H
#include "ops/chunk.h"

typedef struct {           // of one chunk, all in `work`
    wide *decay, *kk, *qk; // (n,n): decay_ij, k_i.k_j, q_i.k_j; 0 above the diagonal
    wide *carry;           // (n)
    wide *Sk, *Sq, *x, *w; // (n,V): S^T k_i, S^T q_i, x_i, w_i
    wide *dw, *dx;         // (n,V) backward
    wide *dq, *dk;         // (n,K) backward, not yet rounded to real
    wide *dlog, *dcarry;   // (n,n), (n) backward: gradients of the exponents of decay_ij, carry_i
} DeltaChunk;

static DeltaChunk delta_chunk_place(void *work, const Chunk *r) {
    const size_t n = r->n, square = n * n, tall = n * r->V, key = n * r->K;
    wide *p = work;
    DeltaChunk m = {.decay = p, .kk = p + square, .qk = p + 2 * square, .dlog = p + 3 * square};
    p += 4 * square;
    m.Sk = p, m.Sq = p + tall, m.x = p + 2 * tall, m.w = p + 3 * tall, m.dw = p + 4 * tall, m.dx = p + 5 * tall;
    p += 6 * tall;
    m.dq = p, m.dk = p + key, m.carry = p + 2 * key, m.dcarry = m.carry + n;
    return m;
}

/* delta_rule's rows of chunk c, with their inputs */
static Chunk delta_rows(const real *q, const real *k, const real *v, const real *dout, const wide *g, const wide *beta,
                        const int *start, double scale, int b, int h, int c, const DeltaDims *d) {
    Chunk r = chunk_rows(b, h, c, d->H, 1, d);
    r.q = q + r.at_k, r.k = k + r.at_k, r.v = v + r.at_v, r.g = g + r.at_g, r.beta = beta + r.at_g;
    r.dout = dout ? dout + r.at_v : NULL;
    r.start = start ? start + (size_t)b * d->T + r.from : NULL;
    r.scale = scale;
    return r;
}

/* to[i * step] for i >= j: the decay from before row j (before: its own g counts) or from row j itself, to row i. */
static void delta_decay(wide *to, int step, int j, int before, const Chunk *r) {
    wide sum_g = 0;
    int cut = 0;
    for (int i = j; i < r->n; i++) {
        if (before || i > j) sum_g += r->g[i * r->step_g], cut |= chunk_resets(r, i);
        to[i * step] = cut ? 0 : exp(sum_g);
    }
}

/* Everything up to w. */
static void delta_solve(DeltaChunk *m, const wide *S, const Chunk *r) {
    const int n = r->n, K = r->K, V = r->V;
    memset(m->decay, 0, (size_t)3 * n * n * sizeof(wide)); // decay, kk, qk
    for (int j = 0; j < n; j++) delta_decay(m->decay + j, n, j, 0, r);
    delta_decay(m->carry, 1, 0, 1, r);
    for (int i = 0; i < n; i++) {
        const real *k_i = r->k + i * r->step_k, *q_i = r->q + i * r->step_k, *v_i = r->v + i * r->step_v;
        wide *x_i = m->x + i * V, *w_i = m->w + i * V;
        state_read(m->Sk + i * V, S, k_i, K, V);
        state_read(m->Sq + i * V, S, q_i, K, V);
        for (int e = 0; e < V; e++) x_i[e] = v_i[e] - m->carry[i] * m->Sk[i * V + e];
        for (int j = 0; j <= i; j++) {
            m->kk[i * n + j] = dot(k_i, r->k + j * r->step_k, K);
            m->qk[i * n + j] = dot(q_i, r->k + j * r->step_k, K);
        }
        for (int j = 0; j < i; j++)
            for (int e = 0; e < V; e++) x_i[e] -= m->decay[i * n + j] * m->kk[i * n + j] * m->w[j * V + e];
        for (int e = 0; e < V; e++) w_i[e] = r->beta[i * r->step_g] * x_i[e];
    }
}

static void delta_chunk_forward(real *o, wide *S_next, const wide *S, const Chunk *r, void *work) {
    const int n = r->n, K = r->K, V = r->V;
    DeltaChunk m = delta_chunk_place(work, r);
    delta_solve(&m, S, r);
    for (int i = 0; i < n; i++)
        for (int e = 0; e < V; e++) {
            wide s = m.carry[i] * m.Sq[i * V + e];
            for (int j = 0; j <= i; j++) s += m.decay[i * n + j] * m.qk[i * n + j] * m.w[j * V + e];
            o[i * r->step_v + e] = r->scale * s;
        }
    for (int a = 0; a < K; a++)
        for (int e = 0; e < V; e++) {
            wide s = m.carry[n - 1] * S[a * V + e];
            for (int j = 0; j < n; j++) s += m.decay[(n - 1) * n + j] * r->k[j * r->step_k + a] * m.w[j * V + e];
            S_next[a * V + e] = s;
        }
}

/* From S' = carry_last S + sum_j decay_last,j k_j w_j^T. dS: gradient of S' on entry, what reaches S this way on
 * return. */
static void delta_back_state(DeltaChunk *m, wide *dS, const wide *S, const Chunk *r) {
    const int last = r->n - 1, K = r->K, V = r->V;
    for (int j = 0; j <= last; j++) {
        const real *k_j = r->k + j * r->step_k;
        const wide decay = m->decay[last * r->n + j];
        for (int a = 0; a < K; a++)
            for (int e = 0; e < V; e++) {
                const wide t = decay * dS[a * V + e];
                m->dw[j * V + e] += t * k_j[a];
                m->dk[j * K + a] += t * m->w[j * V + e];
                m->dlog[last * r->n + j] += t * k_j[a] * m->w[j * V + e];
            }
    }
    for (int a = 0; a < K * V; a++) {
        m->dcarry[last] += m->carry[last] * dS[a] * S[a];
        dS[a] *= m->carry[last];
    }
}

/* From o_i = scale (carry_i S^T q_i + sum_{j<=i} decay_ij (q_i.k_j) w_j). */
static void delta_back_output(DeltaChunk *m, wide *dS, const wide *S, const Chunk *r) {
    const int n = r->n, K = r->K, V = r->V;
    for (int i = 0; i < n; i++) {
        const real *q_i = r->q + i * r->step_k, *do_i = r->dout + i * r->step_v;
        const wide carry = r->scale * m->carry[i];
        for (int e = 0; e < V; e++) m->dcarry[i] += carry * do_i[e] * m->Sq[i * V + e];
        for (int a = 0; a < K; a++)
            for (int e = 0; e < V; e++) {
                m->dq[i * K + a] += carry * S[a * V + e] * do_i[e];
                dS[a * V + e] += carry * q_i[a] * do_i[e];
            }
        for (int j = 0; j <= i; j++) {
            const real *k_j = r->k + j * r->step_k;
            const wide decay = r->scale * m->decay[i * n + j], qk = m->qk[i * n + j];
            wide dp = 0; // do_i . w_j: gradient of decay_ij (q_i.k_j)
            for (int e = 0; e < V; e++) {
                dp += do_i[e] * m->w[j * V + e];
                m->dw[j * V + e] += decay * qk * do_i[e];
            }
            for (int a = 0; a < K; a++) {
                m->dq[i * K + a] += decay * dp * k_j[a];
                m->dk[j * K + a] += decay * dp * q_i[a];
            }
            m->dlog[i * n + j] += decay * dp * qk;
        }
    }
}

/* From w_i = beta_i x_i and x_i = v_i - carry_i S^T k_i - sum_{j<i} decay_ij (k_i.k_j) w_j:
 * rows upwards, as dw_j collects from i > j. */
static void delta_back_solve(DeltaChunk *m, real *dv, wide *dbeta, wide *dS, const wide *S, const Chunk *r) {
    const int n = r->n, K = r->K, V = r->V;
    for (int i = n - 1; i >= 0; i--) {
        const real *k_i = r->k + i * r->step_k;
        const wide carry = m->carry[i];
        wide *dx_i = m->dx + i * V, beta_i = 0;
        for (int e = 0; e < V; e++) {
            beta_i += m->dw[i * V + e] * m->x[i * V + e];
            dx_i[e] = r->beta[i * r->step_g] * m->dw[i * V + e];
            dv[i * r->step_v + e] += dx_i[e];
            m->dcarry[i] -= carry * dx_i[e] * m->Sk[i * V + e];
        }
        dbeta[i * r->step_g] += beta_i;
        for (int a = 0; a < K; a++)
            for (int e = 0; e < V; e++) {
                m->dk[i * K + a] -= carry * S[a * V + e] * dx_i[e];
                dS[a * V + e] -= carry * k_i[a] * dx_i[e];
            }
        for (int j = 0; j < i; j++) {
            const real *k_j = r->k + j * r->step_k;
            const wide decay = m->decay[i * n + j], kk = m->kk[i * n + j];
            wide dp = 0; // dx_i . w_j: minus the gradient of decay_ij (k_i.k_j)
            for (int e = 0; e < V; e++) {
                dp += dx_i[e] * m->w[j * V + e];
                m->dw[j * V + e] -= decay * kk * dx_i[e];
            }
            for (int a = 0; a < K; a++) {
                m->dk[i * K + a] -= decay * dp * k_j[a];
                m->dk[j * K + a] -= decay * dp * k_i[a];
            }
            m->dlog[i * n + j] -= decay * dp * kk;
        }
    }
}

/* g_t stands in the exponent of decay_ij for j < t <= i, and of carry_i for t <= i. */
static void delta_back_decays(const DeltaChunk *m, wide *dg, const Chunk *r) {
    for (int i = 0; i < r->n; i++) {
        wide s = m->dcarry[i]; // + sum_{j<t} dlog_ij
        for (int t = 0; t <= i; t++) {
            if (t > 0) s += m->dlog[i * r->n + t - 1];
            dg[t * r->step_g] += s;
        }
    }
}

static void delta_chunk_backward(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dS, const wide *S,
                                 const Chunk *r, void *work) {
    const size_t n = r->n, K = r->K;
    DeltaChunk m = delta_chunk_place(work, r);
    delta_solve(&m, S, r);
    memset(m.dlog, 0, n * n * sizeof(wide));
    memset(m.dw, 0, n * r->V * sizeof(wide));
    memset(m.dq, 0, n * K * sizeof(wide));
    memset(m.dk, 0, n * K * sizeof(wide));
    memset(m.dcarry, 0, n * sizeof(wide));
    delta_back_state(&m, dS, S, r);
    delta_back_output(&m, dS, S, r);
    delta_back_solve(&m, dv, dbeta, dS, S, r);
    delta_back_decays(&m, dg, r);
    for (size_t i = 0; i < n; i++)
        for (size_t a = 0; a < K; a++) {
            dq[i * r->step_k + a] += m.dq[i * K + a];
            dk[i * r->step_k + a] += m.dk[i * K + a];
        }
}
#endif
