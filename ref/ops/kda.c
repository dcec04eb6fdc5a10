/* kda.c - Kimi delta attention (Kimi Linear, arXiv 2510.26692): the delta rule of delta_rule.c with the decay per key
 * channel of gla.c.
 *
 * chunk 1 is the recurrence of ops_decl.h word for word, and every state is kept. Larger chunks: kda_chunk.h. */
#include "ops/chunk.h"
#include "ops/kda_chunk.h"

static Chunk kda_rows(const real *q, const real *k, const real *v, const real *dout, const wide *g, const wide *beta,
                      const int *start, double scale, int b, int h, int c, const DeltaDims *d) {
    Chunk r = chunk_rows(b, h, c, d->H, d->K, d);
    r.q = q + r.at_k, r.k = k + r.at_k, r.v = v + r.at_v, r.g = g + r.at_g, r.beta = beta + r.at_beta;
    r.dout = dout ? dout + r.at_v : NULL;
    r.start = start ? start + (size_t)b * d->T + r.from : NULL;
    r.scale = scale;
    return r;
}

static wide kda_decay(const Chunk *r, int a) { return chunk_resets(r, 0) ? 0 : exp(r->g[a]); }

/* u = v - P^T k with P = diag(e^g) S */
static void kda_error(wide *u, const wide *S, const Chunk *r) {
    for (int e = 0; e < r->V; e++) u[e] = r->v[e];
    for (int a = 0; a < r->K; a++) {
        const wide decay = kda_decay(r, a);
        for (int e = 0; e < r->V; e++) u[e] -= decay * S[a * r->V + e] * r->k[a];
    }
}

/* One token. u: V numbers of scratch. */
static void kda_step(real *o_t, wide *S_next, const wide *S, const Chunk *r, wide *u) {
    const wide beta = r->beta[0];
    kda_error(u, S, r);
    for (int a = 0; a < r->K; a++) {
        const wide decay = kda_decay(r, a);
        for (int e = 0; e < r->V; e++) S_next[a * r->V + e] = decay * S[a * r->V + e] + beta * r->k[a] * u[e];
    }
    state_read(u, S_next, r->q, r->K, r->V);
    for (int e = 0; e < r->V; e++) o_t[e] = r->scale * u[e];
}

/* dS: gradient of S_next on entry, of S on return. u, dw: V numbers of scratch each. */
static void kda_step_backward(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dS, const wide *S_next,
                              const wide *S, const Chunk *r, wide *u, wide *dw) {
    const int K = r->K, V = r->V;
    const wide beta = r->beta[0];
    kda_error(u, S, r);
    for (int a = 0; a < K; a++)
        for (int e = 0; e < V; e++) dS[a * V + e] += r->scale * r->q[a] * r->dout[e]; // o = scale S_next^T q
    state_read(dw, dS, r->k, K, V);                                                   // S_next = P + k w^T
    for (int e = 0; e < V; e++) {
        dbeta[0] += dw[e] * u[e]; // w = beta u
        dv[e] += beta * dw[e];    // du = beta dw, and u = v - P^T k
    }
    for (int a = 0; a < K; a++) {
        const wide decay = kda_decay(r, a);
        wide dq_a = 0, dk_a = 0, dlog = 0;
        for (int e = 0; e < V; e++) {
            const wide P = decay * S[a * V + e], du = beta * dw[e], dP = dS[a * V + e] - r->k[a] * du;
            dq_a += S_next[a * V + e] * r->dout[e];
            dk_a += dS[a * V + e] * beta * u[e] - P * du; // S_next = P + k w^T;  u = v - P^T k
            dlog += dP * P;                               // P_a = e^{g_a} S_a
            dS[a * V + e] = decay * dP;
        }
        dq[a] += r->scale * dq_a;
        dk[a] += dk_a;
        dg[a] += dlog;
    }
}

static void kda_forward(real *o, real *states, wide *state, const real *q, const real *k, const real *v, const wide *g,
                        const wide *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    const int NC = delta_chunks(d);
    for (int b = 0; b < d->B; b++)
        for (int h = 0; h < d->H; h++) {
            const States s = states_open(states, state, b, h, d);
            for (int c = 0; c < NC; c++) {
                wide *S = s.S + c * s.step, *next = S + s.step;
                const Chunk r = kda_rows(q, k, v, NULL, g, beta, start, scale, b, h, c, d);
                if (d->chunk == 1) kda_step(o + r.at_v, next, S, &r, work);
                else kda_chunk_forward(o + r.at_v, next, S, &r, work);
            }
            states_close(&s, NC);
        }
}

static void kda_backward(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dstate, const real *dout,
                         const real *states, const real *q, const real *k, const real *v, const wide *g,
                         const wide *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    const int NC = delta_chunks(d);
    const size_t state = (size_t)d->K * d->V;
    for (int b = 0; b < d->B; b++)
        for (int h = 0; h < d->H; h++)
            for (int c = NC - 1; c >= 0; c--) {
                const wide *S = states + (((size_t)b * d->H + h) * (NC + 1) + c) * state;
                wide *dS = dstate + ((size_t)b * d->H + h) * state, *u = work;
                const Chunk r = kda_rows(q, k, v, dout, g, beta, start, scale, b, h, c, d);
                if (d->chunk == 1)
                    kda_step_backward(dq + r.at_k, dk + r.at_k, dv + r.at_v, dg + r.at_g, dbeta + r.at_beta, dS,
                                      S + state, S, &r, u, u + d->V);
                else
                    kda_chunk_backward(dq + r.at_k, dk + r.at_k, dv + r.at_v, dg + r.at_g, dbeta + r.at_beta, dS, S, &r,
                                       work);
            }
}
