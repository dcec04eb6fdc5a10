/* delta_rule.c - the gated delta rule (Yang, Kautz, Hatamizadeh, arXiv 2412.06464), one state S (K,V) a batch element
 * and head.
 *
 * chunk 1 is the recurrence of ops_decl.h word for word, and every state is kept. Larger chunks: delta_chunk.h. */
#include "ops/chunk.h"
#include "ops/delta_chunk.h"

/* u = v - P^T k with P = decay S */
static void delta_error(wide *u, const wide *S, wide decay, const Chunk *r) {
    state_read(u, S, r->k, r->K, r->V);
    for (int j = 0; j < r->V; j++) u[j] = r->v[j] - decay * u[j];
}

/* One token. u: V numbers of scratch. */
static void delta_step(real *o_t, wide *S_next, const wide *S, const Chunk *r, wide *u) {
    const int K = r->K, V = r->V;
    const wide decay = chunk_resets(r, 0) ? 0 : exp(r->g[0]), beta = r->beta[0];
    delta_error(u, S, decay, r);
    for (int i = 0; i < K; i++)
        for (int j = 0; j < V; j++) S_next[i * V + j] = decay * S[i * V + j] + beta * r->k[i] * u[j];
    state_read(u, S_next, r->q, K, V);
    for (int j = 0; j < V; j++) o_t[j] = r->scale * u[j];
}

/* dS: gradient of S_next on entry, of S on return. u, dw: V numbers of scratch each. */
static void delta_step_backward(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dS, const wide *S_next,
                                const wide *S, const Chunk *r, wide *u, wide *dw) {
    const int K = r->K, V = r->V;
    const wide decay = chunk_resets(r, 0) ? 0 : exp(r->g[0]), beta = r->beta[0];
    delta_error(u, S, decay, r);
    for (int i = 0; i < K; i++)
        for (int j = 0; j < V; j++) dS[i * V + j] += r->scale * r->q[i] * r->dout[j]; // o = scale S_next^T q
    state_read(dw, dS, r->k, K, V);                                                   // S_next = P + k w^T
    for (int j = 0; j < V; j++) {
        dbeta[0] += dw[j] * u[j]; // w = beta u
        dv[j] += beta * dw[j];    // du = beta dw, and u = v - P^T k
    }
    wide dlog = 0;
    for (int i = 0; i < K; i++) {
        wide dq_i = 0, dk_i = 0;
        for (int j = 0; j < V; j++) {
            const wide P = decay * S[i * V + j], du = beta * dw[j];
            dq_i += S_next[i * V + j] * r->dout[j];
            dk_i += dS[i * V + j] * beta * u[j] - P * du; // S_next = P + k w^T;  u = v - P^T k
            const wide dP = dS[i * V + j] - r->k[i] * du;
            dlog += dP * P; // P = e^g S
            dS[i * V + j] = decay * dP;
        }
        dq[i] += r->scale * dq_i;
        dk[i] += dk_i;
    }
    dg[0] += dlog;
}

static void delta_rule_forward(real *o, real *states, wide *state, const real *q, const real *k, const real *v,
                               const wide *g, const wide *beta, const int *start, double scale, void *work,
                               const DeltaDims *d) {
    const int NC = delta_chunks(d);
    for (int b = 0; b < d->B; b++)
        for (int h = 0; h < d->H; h++) {
            const States s = states_open(states, state, b, h, d);
            for (int c = 0; c < NC; c++) {
                wide *S = s.S + c * s.step, *next = S + s.step;
                const Chunk r = delta_rows(q, k, v, NULL, g, beta, start, scale, b, h, c, d);
                if (d->chunk == 1) delta_step(o + r.at_v, next, S, &r, work);
                else delta_chunk_forward(o + r.at_v, next, S, &r, work);
            }
            states_close(&s, NC);
        }
}

static void delta_rule_backward(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dstate, const real *dout,
                                const real *states, const real *q, const real *k, const real *v, const wide *g,
                                const wide *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    const int NC = delta_chunks(d);
    const size_t state = (size_t)d->K * d->V;
    for (int b = 0; b < d->B; b++)
        for (int h = 0; h < d->H; h++)
            for (int c = NC - 1; c >= 0; c--) {
                const wide *S = states + (((size_t)b * d->H + h) * (NC + 1) + c) * state;
                wide *dS = dstate + ((size_t)b * d->H + h) * state, *u = work;
                const Chunk r = delta_rows(q, k, v, dout, g, beta, start, scale, b, h, c, d);
                if (d->chunk == 1)
                    delta_step_backward(dq + r.at_k, dk + r.at_k, dv + r.at_v, dg + r.at_g, dbeta + r.at_g, dS,
                                        S + state, S, &r, u, u + d->V);
                else
                    delta_chunk_backward(dq + r.at_k, dk + r.at_k, dv + r.at_v, dg + r.at_g, dbeta + r.at_g, dS, S, &r,
                                         work);
            }
}
