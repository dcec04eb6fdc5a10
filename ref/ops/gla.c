/* gla.c - gated linear attention (Yang et al., arXiv 2312.06635): a decay per key channel.
 *
 * chunk 1 is the recurrence of ops_decl.h. Inside a larger chunk, per key channel a, with decay_ij,a = e^{g_{j+1,a} + ... + g_i,a} from
 * token j to token i and carry_i,a from the state S before the chunk to token i (both 0 across a document's start):
 *   A_ij = scale sum_a q_ia k_ja decay_ij,a;   o_i = scale sum_a carry_ia q_ia S_a + sum_{j<=i} A_ij v_j
 *   S'_a = carry_last,a S_a + sum_j decay_last,j,a k_ja v_j^T */
#include "ops/chunk.h"

static Chunk gla_rows(const real *q, const real *k, const real *v, const real *dout, const wide *g,
                      const int *start, double scale, int b, int h, int c, const DeltaDims *d) {
    Chunk r = chunk_rows(b, h, c, d->Hk, d->K, d);
    r.q = q + r.at_k, r.k = k + r.at_k, r.v = v + r.at_v, r.g = g + r.at_g;
    r.dout = dout ? dout + r.at_v : NULL;
    r.start = start ? start + (size_t)b * d->T + r.from : NULL;
    r.scale = scale;
    return r;
}

/* ---- the recurrence: one token ---- */

static void gla_step(real *o_t, wide *S_next, const wide *S, const Chunk *r, wide *y) {
    for (int a = 0; a < r->K; a++) {
        const wide decay = chunk_resets(r, 0) ? 0 : exp(r->g[a]);
        for (int e = 0; e < r->V; e++)
            S_next[a * r->V + e] = decay * S[a * r->V + e] + (wide)r->k[a] * r->v[e];
    }
    state_read(y, S_next, r->q, r->K, r->V);
    for (int e = 0; e < r->V; e++) o_t[e] = r->scale * y[e];
}

/* dS: gradient of S_next on entry, of S on return. */
static void gla_step_backward(real *dq, real *dk, real *dv, wide *dg, wide *dS, const wide *S_next,
                              const wide *S, const Chunk *r, wide *dv_t) {
    const int K = r->K, V = r->V;
    for (int a = 0; a < K; a++)
        for (int e = 0; e < V; e++) dS[a * V + e] += r->scale * r->q[a] * r->dout[e]; // o = scale S_next^T q
    state_read(dv_t, dS, r->k, K, V); // S_next = diag(e^g) S + k v^T
    for (int e = 0; e < V; e++) dv[e] += dv_t[e];
    for (int a = 0; a < K; a++) {
        const wide decay = chunk_resets(r, 0) ? 0 : exp(r->g[a]);
        wide dq_a = 0, dk_a = 0, dlog = 0;
        for (int e = 0; e < V; e++) {
            dq_a += S_next[a * V + e] * r->dout[e];
            dk_a += dS[a * V + e] * r->v[e];
            dS[a * V + e] *= decay;
            dlog += dS[a * V + e] * S[a * V + e];
        }
        dq[a] += r->scale * dq_a;
        dk[a] += dk_a;
        dg[a] += dlog;
    }
}

/* ---- the chunked form ---- */

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
    wide *sum_g = work, *decay = sum_g + K,
         *y = decay + (size_t)n * K; // y (n,V): o before it is rounded to real
    memset(y, 0, (size_t)n * V * sizeof(wide));
    gla_decay(decay, sum_g, 0, 1, r);
    for (int a = 0; a < K; a++)
        for (int e = 0; e < V; e++) {
            for (int i = 0; i < n; i++)
                y[i * V + e] += decay[i * K + a] * r->q[i * r->step_k + a] * S[a * V + e];
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

/* g_t stands in the exponent of the decay from j to i for j < t <= i (first = j + 1), and of carry_i for t <= i (first = 0). */
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

static void gla_chunk_backward(real *dq, real *dk, real *dv, wide *dg, wide *dS, const wide *S,
                               const Chunk *r, wide *work) {
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

/* ---- the two ops ---- */

static void gla_forward(real *o, wide *states, const real *q, const real *k, const real *v, const wide *g,
                        const int *start, double scale, void *work, const DeltaDims *d) {
    const int NC = delta_chunks(d);
    const size_t state = (size_t)d->K * d->V;
    for (int b = 0; b < d->B; b++)
        for (int h = 0; h < d->H; h++)
            for (int c = 0; c < NC; c++) {
                wide *S = states + (((size_t)b * d->H + h) * (NC + 1) + c) * state;
                const Chunk r = gla_rows(q, k, v, NULL, g, start, scale, b, h, c, d);
                if (d->chunk == 1) gla_step(o + r.at_v, S + state, S, &r, work);
                else gla_chunk_forward(o + r.at_v, S + state, S, &r, work);
            }
}

static void gla_backward(real *dq, real *dk, real *dv, wide *dg, wide *dstate, const real *dout,
                         const wide *states, const real *q, const real *k, const real *v, const wide *g,
                         const int *start, double scale, void *work, const DeltaDims *d) {
    const int NC = delta_chunks(d);
    const size_t state = (size_t)d->K * d->V;
    for (int b = 0; b < d->B; b++)
        for (int h = 0; h < d->H; h++)
            for (int c = NC - 1; c >= 0; c--) {
                const wide *S = states + (((size_t)b * d->H + h) * (NC + 1) + c) * state;
                wide *dS = dstate + ((size_t)b * d->H + h) * state;
                const Chunk r = gla_rows(q, k, v, dout, g, start, scale, b, h, c, d);
                if (d->chunk == 1)
                    gla_step_backward(dq + r.at_k, dk + r.at_k, dv + r.at_v, dg + r.at_g, dS, S + state, S,
                                      &r, work);
                else gla_chunk_backward(dq + r.at_k, dk + r.at_k, dv + r.at_v, dg + r.at_g, dS, S, &r, work);
            }
}
