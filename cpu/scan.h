/* scan.h - how the linear mixers go through time: tasks of (batch element, some heads), chunk after chunk, forwards and
 * backwards. What a chunk computes is each mixer's own (Scan). */
#ifndef HYB_CPU_SCAN_H
#define HYB_CPU_SCAN_H
#include "chunk.h"

// rows as far apart as those of q, k, v, g, beta, v
typedef struct {
    float *dq, *dk, *dv, *dg, *dbeta;
    const float *dout;
} ScanGrad;

/* What differs. work: floats for one chunk, behind three states in backward. */
enum { ONE_A_HEAD, K_A_KEY_HEAD, K_A_HEAD }; // numbers of g a token
typedef struct {
    int decays;
    size_t (*work)(const DeltaDims *d);
    // o NULL: only the next state
    void (*forward)(float *o, float *S_next, const float *S, const Chunk *c, float *work);
    // dS: of the state after, becomes that of S
    void (*backward)(const ScanGrad *g, float *dS, const float *S, const Chunk *c, float *work);
} Scan;

/* One call of an op; what it does not have is NULL. */
typedef struct {
    const Scan *scan;
    const DeltaDims *d;
    float *o, *states, *state, *dstate;
    const float *q, *k, *v, *g, *beta;
    ScanGrad grad;
    const int *start;
    double scale;
    char *work;
    size_t together; // heads a task; in backward: heads of k
} ScanJob;

/* Heads [from, to) of batch element b, one task: a token's heads lie side by side, so they go through each chunk one
 * after the other and find its pages and lines there. */
typedef struct {
    size_t b, from, to;
} Heads;
enum { SIDE_BY_SIDE = 512 }; // floats of a token that a task takes at most

static size_t heads_tasks(const DeltaDims *d, size_t heads, size_t together) {
    return d->B * ((heads + together - 1) / together);
}
/* How many of `heads` heads of each of B make a task: as many as leave the longest share of the threads as long as it
 * is with one. */
static size_t heads_together(const DeltaDims *d, size_t heads) {
    const size_t width = (d->K > d->V ? d->K : d->V) * (d->H / heads),
                 most = SIDE_BY_SIDE / width < heads ? SIDE_BY_SIDE / width : heads;
    const size_t B = d->B, threads = (size_t)pool_threads(), longest = (B * heads + threads - 1) / threads;
    for (size_t n = most; n > 1; n--)
        if ((heads_tasks(d, heads, n) + threads - 1) / threads * n <= longest) return n;
    return 1;
}
static Heads heads_of(size_t task, size_t heads, size_t together) {
    const size_t each = (heads + together - 1) / together, from = task % each * together;
    return (Heads){task / each, from, heads - from < together ? heads : from + together};
}
/* From heads of k to the heads that read them. */
static Heads heads_grouped(Heads k, const DeltaDims *d) {
    return (Heads){k.b, k.from * (d->H / d->Hk), k.to * (d->H / d->Hk)};
}

/* Where the states of one (batch element, head) stand while its chunks are worked through, as ref's States:
 * all of them in `states`, or in place in `state` if the caller keeps none. */
typedef struct {
    float *S; // of chunk c: S + c * step
    size_t step;
} States;
static States states_at(float *states, float *state, size_t bh, const DeltaDims *d) {
    const size_t size = (size_t)d->K * d->V;
    return states ? (States){states + bh * (delta_chunks(d) + 1) * size, size} : (States){state + bh * size, 0};
}
static void states_begin(float *states, const float *state, size_t bh, const DeltaDims *d) {
    const size_t size = (size_t)d->K * d->V;
    if (states) memcpy(states + bh * (delta_chunks(d) + 1) * size, state + bh * size, size * sizeof(float));
}
static void states_end(const float *states, float *state, size_t bh, const DeltaDims *d) {
    const size_t size = (size_t)d->K * d->V;
    if (states)
        memcpy(state + bh * size, states + (bh * (delta_chunks(d) + 1) + delta_chunks(d)) * size, size * sizeof(float));
}

/* Tokens [t, end) of head h as a chunk. */
static Chunk scan_chunk(const ScanJob *j, size_t b, size_t h, size_t t, size_t end) {
    const DeltaDims *d = j->d;
    const size_t row = b * d->T + t, H = d->H, Hk = d->Hk, K = d->K, V = d->V, hk = h / (H / Hk),
                 qk = (row * Hk + hk) * K;
    const size_t heads = j->scan->decays == K_A_KEY_HEAD ? Hk : H, width = j->scan->decays == ONE_A_HEAD ? 1 : K;
    return (Chunk){.q = j->q + qk,
                   .k = j->k + qk,
                   .v = j->v + (row * H + h) * V,
                   .g = j->g + (row * heads + (heads == H ? h : hk)) * width,
                   .beta = at_const(j->beta, row * H + h),
                   .start = j->start ? j->start + row : NULL,
                   .ldq = Hk * K,
                   .ldv = H * V,
                   .ldg = heads * width,
                   .ldb = H,
                   .K = K,
                   .V = V,
                   .n = end - t < CT ? end - t : CT,
                   .t0 = t,
                   .scale = (float)j->scale};
}
/* The same tokens' rows of the gradients. */
static ScanGrad scan_grad(const ScanJob *j, const Chunk *c) {
    const ScanGrad *g = &j->grad;
    return (ScanGrad){g->dq + (c->q - j->q),
                      g->dk + (c->k - j->k),
                      g->dv + (c->v - j->v),
                      g->dg + (c->g - j->g),
                      g->dbeta ? g->dbeta + (c->beta - j->beta) : NULL,
                      g->dout + (c->v - j->v)};
}
static float *scan_work(const ScanJob *j) {
    return (float *)(j->work + j->scan->work(j->d) / ((size_t)j->d->B * j->d->H) * pool_me());
}
/* Floats of a row of g worth asking for: one a head is not. */
static size_t fetched_decays(const ScanJob *j) { return j->scan->decays == ONE_A_HEAD ? 0 : (size_t)j->d->K; }
static size_t chunk_end(const DeltaDims *d, size_t c) {
    const size_t end = (c + 1) * d->chunk;
    return end < (size_t)d->T ? end : (size_t)d->T;
}

static void scan_head_forward(const ScanJob *j, size_t b, size_t h, size_t c) {
    const DeltaDims *d = j->d;
    const States s = states_at(j->states, j->state, b * d->H + h, d);
    const size_t end = chunk_end(d, c), decays = fetched_decays(j);
    const float *S = s.S + c * s.step;
    float *next = s.S + (c + 1) * s.step;
    for (size_t t = c * d->chunk; t < end; t += CT, S = next) { // a long chunk goes in pieces, its state in place
        Chunk p = scan_chunk(j, b, h, t, end);
        const size_t coming = d->T - t - p.n < CT ? d->T - t - p.n : CT;
        float *o = j->o + (p.v - j->v);
        Fetches f = {.n = 0};
        p.fetches = &f;
        fetch_add(&f, o, p.ldv, p.n, p.V);
        fetch_add(&f, next, p.V, p.K, p.V);
        fetch_chunk(&f, &p, (ptrdiff_t)p.n, coming, decays);
        j->scan->forward(o, next, S, &p, scan_work(j));
    }
}
static void scan_task(const void *job, size_t u) {
    const ScanJob *j = job;
    const DeltaDims *d = j->d;
    const Heads s = heads_of(u, d->H, j->together);
    const size_t bh = s.b * d->H;
    for (size_t h = s.from; h < s.to; h++) states_begin(j->states, j->state, bh + h, d);
    for (size_t c = 0; c < (size_t)delta_chunks(d); c++)
        for (size_t h = s.from; h < s.to; h++) scan_head_forward(j, s.b, h, c);
    for (size_t h = s.from; h < s.to; h++) states_end(j->states, j->state, bh + h, d);
}
static void scan_forward(ScanJob j) {
    const DeltaDims *d = j.d;
    j.together = heads_together(d, d->H);
    pool_run_if((size_t)d->B * d->H * d->T * d->K * d->V > ALONE, heads_tasks(d, d->H, j.together), scan_task, &j);
}

static void scan_head_backward(const ScanJob *j, size_t b, size_t h, size_t c) {
    const DeltaDims *d = j->d;
    const size_t state = (size_t)d->K * d->V, from = c * d->chunk, end = chunk_end(d, c),
                 pieces = (end - from + CT - 1) / CT;
    const size_t decays = fetched_decays(j), bh = b * d->H + h;
    // inner: states inside a long chunk: 256 / 64 - 1
    float *inner = scan_work(j), *work = inner + 3 * state, *dS = j->dstate + bh * state;
    const float *S = states_at(j->states, NULL, bh, d).S + c * state;
    for (size_t i = 0; i + 1 < pieces; i++) {
        const Chunk p = scan_chunk(j, b, h, from + i * CT, end);
        j->scan->forward(NULL, inner + i * state, i ? inner + (i - 1) * state : S, &p, work);
    }
    for (size_t i = pieces; i-- > 0;) {
        const size_t t = from + i * CT, coming = t < CT ? t : CT;
        Chunk p = scan_chunk(j, b, h, t, end);
        const ScanGrad g = scan_grad(j, &p);
        Fetches f = {.n = 0};
        p.fetches = &f;
        fetch_add(&f, g.dv, p.ldv, p.n, p.V);
        if (decays) fetch_add(&f, g.dg, p.ldg, p.n, decays);
        fetch_add(&f, g.dq, p.ldq, p.n, p.K);
        fetch_add(&f, g.dk, p.ldq, p.n, p.K);
        fetch_chunk(&f, &p, -(ptrdiff_t)coming, coming, decays);
        fetch_add(&f, g.dout - coming * p.ldv, p.ldv, coming, p.V);
        j->scan->backward(&g, dS, i ? inner + (i - 1) * state : S, &p, work);
    }
}
/* heads that share dq and dk (and GLA's dg) follow each other, in every chunk */
static void scan_backward_task(const void *job, size_t u) {
    const ScanJob *j = job;
    const Heads s = heads_grouped(heads_of(u, j->d->Hk, j->together), j->d);
    for (size_t c = delta_chunks(j->d); c-- > 0;)
        for (size_t h = s.from; h < s.to; h++) scan_head_backward(j, s.b, h, c);
}
static void scan_backward(ScanJob j) {
    const DeltaDims *d = j.d;
    j.together = heads_together(d, d->Hk);
    pool_run_if((size_t)d->B * d->H * d->T * d->K * d->V > ALONE, heads_tasks(d, d->Hk, j.together), scan_backward_task,
                &j);
}
#endif
