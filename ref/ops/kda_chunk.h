/* kda_chunk.h - Kimi delta attention a chunk at a time: the solve of delta_chunk.h with the decays of gla_chunk.h.
 *
 * Rows i, j = 0..n-1, key channel a. decay_ij,a = e^{g_{j+1,a} + ... + g_i,a} leads from token j to token i >= j,
 * carry_i,a from the state S before the chunk to token i; both are 0 across a document's start.
 * w_i is what token i writes: beta_i u_i of the recurrence.
 *   kk_ij = sum_a k_ia k_ja decay_ij,a,  qk_ij likewise
 *   x_i = v_i - sum_a carry_ia k_ia S_a - sum_{j<i} kk_ij w_j;   w_i = beta_i x_i
 *   o_i = scale (sum_a carry_ia q_ia S_a + sum_{j<=i} qk_ij w_j);   S'_a = carry_last,a S_a + sum_j decay_last,j,a k_ja
 *   w_j^T
 * No exponent is above 0 and none is a difference, as in gla_chunk.h. */
#ifndef HYB_REF_KDA_CHUNK_H
#define HYB_REF_KDA_CHUNK_H
#include "ops/gla_chunk.h"

typedef struct {               // of one chunk, all in `work`
    GlaBack m;                 // sum_g, decay, dlog; dq, dk not yet rounded to real
    wide *kk, *qk, *dkk, *dqk; // (n,n)
    wide *carry, *out;         // (n,K): carry_i, decay_last,j
    wide *x, *w, *dx, *dw;     // (n,V)
} KdaChunk;

static KdaChunk kda_place(wide *p, const Chunk *r) {
    const size_t n = r->n, square = n * n, tall = n * r->V, key = n * r->K;
    KdaChunk c = {.kk = p, .qk = p + square, .dkk = p + 2 * square, .dqk = p + 3 * square};
    p += 4 * square;
    c.x = p, c.w = p + tall, c.dx = p + 2 * tall, c.dw = p + 3 * tall;
    p += 4 * tall;
    c.carry = p, c.out = p + key, c.m.decay = p + 2 * key, c.m.dlog = p + 3 * key, c.m.dq = p + 4 * key,
    c.m.dk = p + 5 * key;
    c.m.sum_g = p + 6 * key;
    return c;
}

/* kk, qk, carry, out; then x and w from the first row to the last. */
static void kda_solve(KdaChunk *c, const wide *S, const Chunk *r) {
    const int n = r->n, K = r->K, V = r->V;
    for (int j = 0; j < n; j++) {
        const real *k_j = r->k + j * r->step_k;
        gla_decay(c->m.decay, c->m.sum_g, j, 0, r);
        for (int i = j; i < n; i++) {
            const real *k_i = r->k + i * r->step_k, *q_i = r->q + i * r->step_k;
            wide kk = 0, qk = 0;
            for (int a = 0; a < K; a++) {
                kk += (wide)k_i[a] * k_j[a] * c->m.decay[i * K + a];
                qk += (wide)q_i[a] * k_j[a] * c->m.decay[i * K + a];
            }
            c->kk[i * n + j] = kk, c->qk[i * n + j] = qk;
        }
        memcpy(c->out + j * K, c->m.decay + (n - 1) * K, K * sizeof(wide));
    }
    gla_decay(c->carry, c->m.sum_g, 0, 1, r);
    for (int i = 0; i < n; i++) {
        wide *x_i = c->x + i * V;
        for (int e = 0; e < V; e++) x_i[e] = r->v[i * r->step_v + e];
        for (int a = 0; a < K; a++)
            for (int e = 0; e < V; e++) x_i[e] -= c->carry[i * K + a] * r->k[i * r->step_k + a] * S[a * V + e];
        for (int j = 0; j < i; j++)
            for (int e = 0; e < V; e++) x_i[e] -= c->kk[i * n + j] * c->w[j * V + e];
        for (int e = 0; e < V; e++) c->w[i * V + e] = r->beta[i * r->step_beta] * x_i[e];
    }
}

static void kda_chunk_forward(real *o, wide *S_next, const wide *S, const Chunk *r, wide *work) {
    const int n = r->n, K = r->K, V = r->V;
    KdaChunk c = kda_place(work, r);
    kda_solve(&c, S, r);
    for (int i = 0; i < n; i++)
        for (int e = 0; e < V; e++) {
            wide s = 0;
            for (int a = 0; a < K; a++) s += c.carry[i * K + a] * r->q[i * r->step_k + a] * S[a * V + e];
            for (int j = 0; j <= i; j++) s += c.qk[i * n + j] * c.w[j * V + e];
            o[i * r->step_v + e] = r->scale * s;
        }
    for (int a = 0; a < K; a++)
        for (int e = 0; e < V; e++) {
            wide s = c.carry[(n - 1) * K + a] * S[a * V + e];
            for (int j = 0; j < n; j++) s += c.out[j * K + a] * r->k[j * r->step_k + a] * c.w[j * V + e];
            S_next[a * V + e] = s;
        }
}

/* dw from S' and from the outputs, then upwards through w_i = beta_i x_i and x_i = ... - sum_{j<i} kk_ij w_j.
 * Leaves dqk, dkk, dx. */
static void kda_back_solve(KdaChunk *c, real *dv, wide *dbeta, const wide *dS, const Chunk *r) {
    const int n = r->n, K = r->K, V = r->V;
    for (int j = 0; j < n; j++)
        for (int a = 0; a < K; a++)
            for (int e = 0; e < V; e++) c->dw[j * V + e] += c->out[j * K + a] * r->k[j * r->step_k + a] * dS[a * V + e];
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            const real *do_i = r->dout + i * r->step_v;
            wide s = 0;
            for (int e = 0; e < V; e++) {
                s += do_i[e] * c->w[j * V + e];
                c->dw[j * V + e] += r->scale * c->qk[i * n + j] * do_i[e];
            }
            c->dqk[i * n + j] = r->scale * s;
        }
    for (int i = n - 1; i >= 0; i--) {
        wide *dx_i = c->dx + i * V, beta_i = 0;
        for (int e = 0; e < V; e++) {
            beta_i += c->dw[i * V + e] * c->x[i * V + e];
            dx_i[e] = r->beta[i * r->step_beta] * c->dw[i * V + e];
            dv[i * r->step_v + e] += dx_i[e];
        }
        dbeta[i * r->step_beta] += beta_i;
        c->dkk[i * n + i] = 0; // a token does not correct itself
        for (int j = 0; j < i; j++) {
            wide s = 0;
            for (int e = 0; e < V; e++) {
                s -= dx_i[e] * c->w[j * V + e];
                c->dw[j * V + e] -= c->kk[i * n + j] * dx_i[e];
            }
            c->dkk[i * n + j] = s;
        }
    }
}

/* What token j gave to rows i >= j through kk_ij and qk_ij, and to S' (dS: its gradient). */
static void kda_back_token(KdaChunk *c, int j, const wide *dS, const Chunk *r) {
    const int n = r->n, K = r->K, V = r->V, last = n - 1;
    const real *k_j = r->k + j * r->step_k;
    GlaBack *m = &c->m;
    gla_decay(m->decay, m->sum_g, j, 0, r);
    for (int i = j; i < n; i++) {
        const real *q_i = r->q + i * r->step_k, *k_i = r->k + i * r->step_k;
        const wide dqk = c->dqk[i * n + j], dkk = c->dkk[i * n + j];
        for (int a = 0; a < K; a++) {
            const wide decay = m->decay[i * K + a], to_j = (dqk * q_i[a] + dkk * k_i[a]) * decay;
            m->dq[i * K + a] += dqk * k_j[a] * decay;
            m->dk[i * K + a] += dkk * k_j[a] * decay;
            m->dk[j * K + a] += to_j;
            m->dlog[i * K + a] = to_j * k_j[a];
        }
    }
    for (int a = 0; a < K; a++) {
        wide y = 0;
        for (int e = 0; e < V; e++) y += dS[a * V + e] * c->w[j * V + e];
        m->dk[j * K + a] += m->decay[last * K + a] * y;
        m->dlog[last * K + a] += m->decay[last * K + a] * k_j[a] * y;
    }
}

/* What S gave to every row (o_i and x_i) and to S'. dS: gradient of S' on entry, of S on return. */
static void kda_back_carry(KdaChunk *c, wide *dS, const wide *S, const Chunk *r) {
    const int K = r->K, V = r->V, last = r->n - 1;
    for (int a = 0; a < K; a++) {
        wide to_last = 0;
        for (int e = 0; e < V; e++) {
            dS[a * V + e] *= c->carry[last * K + a];
            to_last += dS[a * V + e] * S[a * V + e];
        }
        for (int i = 0; i < r->n; i++) {
            const real *do_i = r->dout + i * r->step_v;
            const wide carry = c->carry[i * K + a], q = r->scale * r->q[i * r->step_k + a], k = r->k[i * r->step_k + a];
            wide y = 0, z = 0;
            for (int e = 0; e < V; e++) {
                y += S[a * V + e] * do_i[e];
                z += S[a * V + e] * c->dx[i * V + e];
                dS[a * V + e] += carry * (q * do_i[e] - k * c->dx[i * V + e]);
            }
            c->m.dq[i * K + a] += r->scale * carry * y;
            c->m.dk[i * K + a] -= carry * z;
            c->m.dlog[i * K + a] = carry * (q * y - k * z);
        }
        c->m.dlog[last * K + a] += to_last;
    }
}

static void kda_chunk_backward(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dS, const wide *S,
                               const Chunk *r, wide *work) {
    const size_t n = r->n, K = r->K;
    KdaChunk c = kda_place(work, r);
    kda_solve(&c, S, r);
    memset(c.dw, 0, n * r->V * sizeof(wide));
    memset(c.m.dq, 0, 2 * n * K * sizeof(wide)); // dq, dk
    kda_back_solve(&c, dv, dbeta, dS, r);
    for (int j = 0; j < r->n; j++) {
        kda_back_token(&c, j, dS, r);
        gla_back_decay(&c.m, dg, j + 1, r);
    }
    kda_back_carry(&c, dS, S, r);
    gla_back_decay(&c.m, dg, 0, r);
    for (size_t i = 0; i < n; i++)
        for (size_t a = 0; a < K; a++) {
            dq[i * r->step_k + a] += c.m.dq[i * K + a];
            dk[i * r->step_k + a] += c.m.dk[i * K + a];
        }
}
#endif
