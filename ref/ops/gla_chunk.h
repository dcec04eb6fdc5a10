/* gla_chunk.h - gated linear attention a chunk at a time (ref/METHOD.md 6.3).
 *
 * Rows i, j = 0..n-1, key channel a. decay_ij,a = e^{g_{j+1,a} + ... + g_i,a} leads from token j to token i >= j,
 * carry_i,a from the state S before the chunk to token i; both are 0 across a document's start.
 *   A_ij = scale sum_a q_ia k_ja decay_ij,a;   o_i = scale sum_a carry_ia q_ia S_a + sum_{j<=i} A_ij v_j
 *   S'_a = carry_last,a S_a + sum_j decay_last,j,a k_ja v_j^T
 * No exponent is above 0 and none is a difference: a channel may close as hard as it likes. */
#ifndef HYB_REF_GLA_CHUNK_H
#define HYB_REF_GLA_CHUNK_H
#include "ops/chunk.h"

/* to (n,K), rows i >= j: the decays from before row j (before: its own g counts) or from row j itself, to row i. */
static void gla_decay(wide *to, wide *sum_g, int j, int before, const Chunk *r) {
    int cut = 0;
    for (int a = 0; a < r->K; a++) sum_g[a] = 0;
    for (int i = j; i < r->n; i++) {
        const int counts = before || i > j;
        if (counts) cut |= chunk_resets(r, i);
        for (int a = 0; a < r->K; a++) {
            if (counts) sum_g[a] += r->g[i * r->step_g + a];
            to[i * r->K + a] = cut ? 0 : exp(sum_g[a]);
        }
    }
}

static void gla_chunk_forward(real *o, wide *S_next, const wide *S, const Chunk *r, wide *work) {
    const int n = r->n, K = r->K, V = r->V, last = n - 1;
    wide *sum_g = work, *decay = sum_g + K; // (K), (n,K)
    wide *y = decay + (size_t)n * K;        // (n,V): o before it is rounded to real
    memset(y, 0, (size_t)n * V * sizeof(wide));
    gla_decay(decay, sum_g, 0, 1, r);
    for (int a = 0; a < K; a++)
        for (int e = 0; e < V; e++) {
            for (int i = 0; i < n; i++) y[i * V + e] += decay[i * K + a] * r->q[i * r->step_k + a] * S[a * V + e];
            S_next[a * V + e] = decay[last * K + a] * S[a * V + e];
        }
    for (int j = 0; j < n; j++) {
        const real *k_j = r->k + j * r->step_k, *v_j = r->v + j * r->step_v;
        gla_decay(decay, sum_g, j, 0, r);
        for (int i = j; i < n; i++) {
            wide A = 0;
            for (int a = 0; a < K; a++) A += (wide)r->q[i * r->step_k + a] * k_j[a] * decay[i * K + a];
            for (int e = 0; e < V; e++) y[i * V + e] += A * v_j[e];
        }
        for (int a = 0; a < K; a++)
            for (int e = 0; e < V; e++) S_next[a * V + e] += decay[last * K + a] * k_j[a] * v_j[e];
    }
    for (int i = 0; i < n; i++)
        for (int e = 0; e < V; e++) o[i * r->step_v + e] = r->scale * y[i * V + e];
}

typedef struct {        // of one chunk, all in `work`
    wide *sum_g;        // (K)
    wide *decay, *dlog; // (n,K): decays from one token, and the gradients of their exponents
    wide *dq, *dk, *dv; // (n,K), (n,K), (n,V), not yet rounded to real
} GlaBack;

/* g_t stands in the exponent of the decay from j to i for j < t <= i (first = j + 1), and of carry_i for t <= i (first
 * = 0). */
static void gla_back_decay(GlaBack *m, wide *dg, int first, const Chunk *r) {
    for (int a = 0; a < r->K; a++) {
        wide s = 0;
        for (int t = r->n - 1; t >= first; t--) {
            s += m->dlog[t * r->K + a];
            dg[t * r->step_g + a] += s;
        }
    }
}

/* What token j gave to rows i >= j (A_ij v_j) and to S' (decay_last,j k_j v_j^T, whose gradient dS is). */
static void gla_back_token(GlaBack *m, int j, const wide *dS, const Chunk *r) {
    const int K = r->K, V = r->V, last = r->n - 1;
    const real *k_j = r->k + j * r->step_k, *v_j = r->v + j * r->step_v;
    gla_decay(m->decay, m->sum_g, j, 0, r);
    for (int i = j; i < r->n; i++) {
        const real *q_i = r->q + i * r->step_k, *do_i = r->dout + i * r->step_v;
        const wide dA = r->scale * dot(do_i, v_j, V);
        wide A = 0;
        for (int a = 0; a < K; a++) {
            const wide decay = m->decay[i * K + a];
            A += r->scale * q_i[a] * k_j[a] * decay;
            m->dq[i * K + a] += dA * k_j[a] * decay;
            m->dk[j * K + a] += dA * q_i[a] * decay;
            m->dlog[i * K + a] = dA * q_i[a] * k_j[a] * decay;
        }
        for (int e = 0; e < V; e++) m->dv[j * V + e] += A * do_i[e];
    }
    for (int a = 0; a < K; a++) {
        const wide decay = m->decay[last * K + a];
        wide y = 0;
        for (int e = 0; e < V; e++) {
            y += dS[a * V + e] * v_j[e];
            m->dv[j * V + e] += decay * k_j[a] * dS[a * V + e];
        }
        m->dk[j * K + a] += decay * y;
        m->dlog[last * K + a] += decay * k_j[a] * y;
    }
}

/* What S gave to every row and to S'. dS: gradient of S' on entry, of S on return. */
static void gla_back_carry(GlaBack *m, wide *dS, const wide *S, const Chunk *r) {
    const int K = r->K, V = r->V, last = r->n - 1;
    gla_decay(m->decay, m->sum_g, 0, 1, r);
    for (int a = 0; a < K; a++) {
        wide to_last = 0;
        for (int e = 0; e < V; e++) {
            dS[a * V + e] *= m->decay[last * K + a];
            to_last += dS[a * V + e] * S[a * V + e];
        }
        for (int i = 0; i < r->n; i++) {
            const real *do_i = r->dout + i * r->step_v;
            const wide carry = r->scale * m->decay[i * K + a], q_ia = r->q[i * r->step_k + a];
            wide y = 0;
            for (int e = 0; e < V; e++) {
                y += S[a * V + e] * do_i[e];
                dS[a * V + e] += carry * q_ia * do_i[e];
            }
            m->dq[i * K + a] += carry * y;
            m->dlog[i * K + a] = carry * q_ia * y;
        }
        m->dlog[last * K + a] += to_last;
    }
}

static void gla_chunk_backward(real *dq, real *dk, real *dv, wide *dg, wide *dS, const wide *S, const Chunk *r,
                               wide *work) {
    const size_t n = r->n, K = r->K, V = r->V;
    GlaBack m = {.sum_g = work, .decay = work + K, .dlog = work + K + n * K};
    m.dq = m.dlog + n * K, m.dk = m.dq + n * K, m.dv = m.dk + n * K;
    memset(m.dq, 0, (2 * K + V) * n * sizeof(wide)); // dq, dk, dv
    for (int j = 0; j < r->n; j++) {
        gla_back_token(&m, j, dS, r);
        gla_back_decay(&m, dg, j + 1, r);
    }
    gla_back_carry(&m, dS, S, r);
    gla_back_decay(&m, dg, 0, r);
    for (size_t i = 0; i < n; i++) {
        for (size_t a = 0; a < K; a++) {
            dq[i * r->step_k + a] += m.dq[i * K + a];
            dk[i * r->step_k + a] += m.dk[i * K + a];
        }
        for (size_t e = 0; e < V; e++) dv[i * r->step_v + e] += m.dv[i * V + e];
    }
}
#endif
