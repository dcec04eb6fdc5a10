/* chunk.h - what the linear mixers share: the rows of one chunk of one (batch element, head), and who forgets what. */
#ifndef HYB_REF_CHUNK_H
#define HYB_REF_CHUNK_H
#include "ops/ref_math.h"

typedef struct {
    const real *q, *k, *v,
        *dout;            // row i of q: q + i * step_k; of v, dout: v + i * step_v; dout NULL in forward
    const wide *g, *beta; // row i: g + i * step_g, beta + i * step_beta; beta NULL for gla
    const int *start;     // of row 0, or NULL
    size_t step_k, step_v, step_g, step_beta; // from one token to the next
    size_t at_k, at_v, at_g, at_beta;         // where row 0 stands in the arrays: its gradients begin there too
    int from, n, K, V;                        // rows are the tokens from .. from + n - 1 of their batch element
    wide scale;
} Chunk;

/* Rows of chunk c of head h. g has g_heads heads of g_width numbers: (H, 1) for delta_rule, (Hk, K) for gla, (H,
 * K) for kda. */
static Chunk chunk_rows(int b, int h, int c, int g_heads, int g_width, const DeltaDims *d) {
    Chunk r = {.from = c * d->chunk, .K = d->K, .V = d->V};
    r.n = d->T - r.from < d->chunk ? d->T - r.from : d->chunk;
    const size_t bt = (size_t)b * d->T + r.from;
    const int hk = h / (d->H / d->Hk), hg = h / (d->H / g_heads);
    r.step_k = (size_t)d->Hk * d->K, r.step_v = (size_t)d->H * d->V, r.step_g = (size_t)g_heads * g_width,
    r.step_beta = d->H;
    r.at_k = bt * r.step_k + (size_t)hk * d->K;
    r.at_v = bt * r.step_v + (size_t)h * d->V;
    r.at_g = bt * r.step_g + (size_t)hg * g_width;
    r.at_beta = bt * r.step_beta + h;
    return r;
}

/* Whether row i forgets what came before. Token 0 does not: it continues from the initial state that the caller gave.
 * */
static int chunk_resets(const Chunk *r, int i) { return r->start && r->from + i > 0 && r->start[i] == r->from + i; }

/* Where the states of one head stand while its chunks are worked through, that before chunk c at S + c * step:
 * all of them in `states` if the caller wants them for backward, else one in place of the other in `state`.
 * real and wide are one type here. */
typedef struct {
    wide *S, *state;
    size_t step, bytes;
} States;

static States states_open(real *states, wide *state, int b, int h, const DeltaDims *d) {
    const size_t size = (size_t)d->K * d->V, bh = (size_t)b * d->H + h;
    States s = {.S = state + bh * size, .state = state + bh * size, .bytes = size * sizeof(wide)};
    if (!states) return s;
    s.S = states + bh * (delta_chunks(d) + 1) * size;
    s.step = size;
    memcpy(s.S, s.state, s.bytes);
    return s;
}
static void states_close(const States *s, int NC) {
    if (s->step) memcpy(s->state, s->S + NC * s->step, s->bytes);
}

/* y (V) = S^T a */
static void state_read(wide *y, const wide *S, const real *a, int K, int V) {
    for (int j = 0; j < V; j++) y[j] = 0;
    for (int i = 0; i < K; i++)
        for (int j = 0; j < V; j++) y[j] += S[i * V + j] * a[i];
}
#endif
