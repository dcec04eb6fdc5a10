/* gla.c - gated linear attention (Yang et al., arXiv 2312.06635): a decay per key channel.
 *
 * chunk 1 is the recurrence of ops_decl.h word for word, and every state is kept. Larger chunks: gla_chunk.h. */
#include "ops/chunk.h"
#include "ops/gla_chunk.h"

static Chunk gla_rows(const real *q, const real *k, const real *v, const real *dout, const wide *g, const int *start,
                      double scale, int b, int h, int c, const DeltaDims *d) {
    Chunk r = chunk_rows(b, h, c, d->Hk, d->K, d);
    r.q = q + r.at_k, r.k = k + r.at_k, r.v = v + r.at_v, r.g = g + r.at_g;
    r.dout = dout ? dout + r.at_v : NULL;
    r.start = start ? start + (size_t)b * d->T + r.from : NULL;
    r.scale = scale;
    return r;
}

static void gla_step(real *o_t, wide *S_next, const wide *S, const Chunk *r, wide *y) {
    for (int a = 0; a < r->K; a++) {
        const wide decay = chunk_resets(r, 0) ? 0 : exp(r->g[a]);
        for (int e = 0; e < r->V; e++) S_next[a * r->V + e] = decay * S[a * r->V + e] + (wide)r->k[a] * r->v[e];
    }
    state_read(y, S_next, r->q, r->K, r->V);
    for (int e = 0; e < r->V; e++) o_t[e] = r->scale * y[e];
}

/* dS: gradient of S_next on entry, of S on return. */
static void gla_step_backward(real *dq, real *dk, real *dv, wide *dg, wide *dS, const wide *S_next, const wide *S,
                              const Chunk *r, wide *dv_t) {
    const int K = r->K, V = r->V;
    for (int a = 0; a < K; a++)
        for (int e = 0; e < V; e++) dS[a * V + e] += r->scale * r->q[a] * r->dout[e]; // o = scale S_next^T q
    state_read(dv_t, dS, r->k, K, V);                                                 // S_next = diag(e^g) S + k v^T
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

static void gla_forward(real *o, real *states, wide *state, const real *q, const real *k, const real *v, const wide *g,
                        const int *start, double scale, void *work, const DeltaDims *d) {
    const int NC = delta_chunks(d);
    for (int b = 0; b < d->B; b++)
        for (int h = 0; h < d->H; h++) {
            const States s = states_open(states, state, b, h, d);
            for (int c = 0; c < NC; c++) {
                wide *S = s.S + c * s.step, *next = S + s.step;
                const Chunk r = gla_rows(q, k, v, NULL, g, start, scale, b, h, c, d);
                if (d->chunk == 1) gla_step(o + r.at_v, next, S, &r, work);
                else gla_chunk_forward(o + r.at_v, next, S, &r, work);
            }
            states_close(&s, NC);
        }
}

static void gla_backward(real *dq, real *dk, real *dv, wide *dg, wide *dstate, const real *dout, const real *states,
                         const real *q, const real *k, const real *v, const wide *g, const int *start, double scale,
                         void *work, const DeltaDims *d) {
    const int NC = delta_chunks(d);
    const size_t state = (size_t)d->K * d->V;
    for (int b = 0; b < d->B; b++)
        for (int h = 0; h < d->H; h++)
            for (int c = NC - 1; c >= 0; c--) {
                const wide *S = states + (((size_t)b * d->H + h) * (NC + 1) + c) * state;
                wide *dS = dstate + ((size_t)b * d->H + h) * state;
                const Chunk r = gla_rows(q, k, v, dout, g, start, scale, b, h, c, d);
                if (d->chunk == 1)
                    gla_step_backward(dq + r.at_k, dk + r.at_k, dv + r.at_v, dg + r.at_g, dS, S + state, S, &r, work);
                else gla_chunk_backward(dq + r.at_k, dk + r.at_k, dv + r.at_v, dg + r.at_g, dS, S, &r, work);
            }
}
