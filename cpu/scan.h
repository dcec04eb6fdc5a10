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
typedef struct { // the same of the whole op
    real *dq, *dk, *dv;
    float *dg, *dbeta;
    const real *dout;
} OpGrad;

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
    real *o, *states;
    float *state, *dstate;
    const real *q, *k, *v;
    const float *g, *beta;
    OpGrad grad;
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

/* ---- a chunk as its mixer sees it: rows of float, where they stand or (BF16) widened into the workspace ---- */

/* Where the rows of one chunk begin in the op's arrays, and how far apart they are there. */
typedef struct {
    size_t q, v, g, beta, ldq, ldv, ldg, ldb;
} Place;
static Place place_of(const ScanJob *j, size_t b, size_t h, size_t t) {
    const DeltaDims *d = j->d;
    const size_t row = b * d->T + t, H = d->H, Hk = d->Hk, K = d->K, V = d->V, hk = h / (H / Hk);
    const size_t heads = j->scan->decays == K_A_KEY_HEAD ? Hk : H, width = j->scan->decays == ONE_A_HEAD ? 1 : K;
    return (Place){.q = (row * Hk + hk) * K,
                   .v = (row * H + h) * V,
                   .g = (row * heads + (heads == H ? h : hk)) * width,
                   .beta = row * H + h,
                   .ldq = Hk * K,
                   .ldv = H * V,
                   .ldg = heads * width,
                   .ldb = H};
}

/* Tokens [t, end) of head h, CT of them at most. work: moved behind what is widened. */
static Chunk scan_chunk(const ScanJob *j, const Place *p, size_t b, size_t t, size_t end, float **work) {
    const DeltaDims *d = j->d;
    Chunk c = {.g = j->g + p->g,
               .beta = at(j->beta, p->beta),
               .start = j->start ? j->start + b * d->T + t : NULL,
               .ldq = p->ldq,
               .ldv = p->ldv,
               .ldg = p->ldg,
               .ldb = p->ldb,
               .K = d->K,
               .V = d->V,
               .n = end - t < CT ? end - t : CT,
               .t0 = t,
               .scale = (float)j->scale};
#if BITS == 16
    float *q = *work, *k = rows_widen(q, j->q + p->q, p->ldq, c.n, c.K),
          *v = rows_widen(k, j->k + p->q, p->ldq, c.n, c.K);
    *work = rows_widen(v, j->v + p->v, p->ldv, c.n, c.V);
    c.q = q, c.k = k, c.v = v, c.ldq = c.K, c.ldv = c.V;
#else
    (void)work;
    c.q = j->q + p->q, c.k = j->k + p->q, c.v = j->v + p->v;
#endif
    return c;
}
/* Where the chunk's outputs go. */
static float *scan_out(const ScanJob *j, const Place *p, const Chunk *c, float **work) {
#if BITS == 16
    (void)j, (void)p;
    *work += c->n * c->V;
    return *work - c->n * c->V;
#else
    (void)c, (void)work;
    return j->o + p->v;
#endif
}
/* The same tokens' rows of the gradients; in BF16 sums of this chunk, which scan_grad_add rounds. */
static ScanGrad scan_grad(const ScanJob *j, const Place *p, const Chunk *c, float **work) {
    const OpGrad *g = &j->grad;
    ScanGrad s = {.dg = g->dg + p->g, .dbeta = at(g->dbeta, p->beta)};
#if BITS == 16
    const size_t nK = c->n * c->K, nV = c->n * c->V;
    float *dout = *work;
    s.dout = dout;
    s.dq = rows_widen(dout, g->dout + p->v, p->ldv, c->n, c->V), s.dk = s.dq + nK, s.dv = s.dk + nK;
    memset(s.dq, 0, (2 * nK + nV) * sizeof(float));
    *work = s.dv + nV;
#else
    (void)c, (void)work;
    s.dq = g->dq + p->q, s.dk = g->dk + p->q, s.dv = g->dv + p->v, s.dout = g->dout + p->v;
#endif
    return s;
}
static void scan_grad_add(const ScanJob *j, const Place *p, const Chunk *c, const ScanGrad *s) {
#if BITS == 16
    rows_round(j->grad.dq + p->q, p->ldq, s->dq, c->n, c->K, 1);
    rows_round(j->grad.dk + p->q, p->ldq, s->dk, c->n, c->K, 1);
    rows_round(j->grad.dv + p->v, p->ldv, s->dv, c->n, c->V, 1);
#else
    (void)j, (void)p, (void)c, (void)s;
#endif
}

static float *scan_work(const ScanJob *j) {
    return (float *)(j->work + j->scan->work(j->d) / ((size_t)j->d->B * j->d->H) * pool_me());
}
/* Floats of a row of g worth asking for: one a head is not. */
static size_t fetched_decays(const ScanJob *j) { return j->scan->decays == ONE_A_HEAD ? 0 : (size_t)j->d->K; }
/* What `rows` tokens bring along, that many tokens from a chunk's place. */
static void fetch_chunk(Fetches *f, const ScanJob *j, const Place *p, ptrdiff_t ahead, size_t rows) {
    const size_t K = j->d->K, V = j->d->V, decays = fetched_decays(j);
    fetch_add(f, j->k + p->q + ahead * (ptrdiff_t)p->ldq, p->ldq, rows, K);
    fetch_add(f, j->q + p->q + ahead * (ptrdiff_t)p->ldq, p->ldq, rows, K);
    if (decays) fetch_add(f, j->g + p->g + ahead * (ptrdiff_t)p->ldg, p->ldg, rows, decays);
    fetch_add(f, j->v + p->v + ahead * (ptrdiff_t)p->ldv, p->ldv, rows, V);
}
static size_t chunk_end(const DeltaDims *d, size_t c) {
    const size_t end = (c + 1) * d->chunk;
    return end < (size_t)d->T ? end : (size_t)d->T;
}

/* ---- states: where those of one (batch element, head) stand while its chunks are worked through, as ref's States ----
 * */

/* float: all of them in `states`, or in place in `state` if the caller keeps none. BF16: always in place, so that what
 * runs on is not rounded; `states` gets rounded copies. */
typedef struct {
    float *S; // of chunk c: S + c * step
    size_t step;
} States;
static States states_at(const ScanJob *j, size_t bh) {
    const size_t size = (size_t)j->d->K * j->d->V;
#if BITS == 32
    if (j->states) return (States){j->states + bh * (delta_chunks(j->d) + 1) * size, size};
#endif
    return (States){j->state + bh * size, 0};
}
static real *state_kept(const ScanJob *j, size_t bh, size_t c) {
    return j->states + (bh * (delta_chunks(j->d) + 1) + c) * j->d->K * j->d->V;
}
static void states_begin(const ScanJob *j, size_t bh) {
#if BITS == 32
    const size_t size = (size_t)j->d->K * j->d->V;
    if (j->states) memcpy(state_kept(j, bh, 0), j->state + bh * size, size * sizeof(float));
#else
    (void)j, (void)bh;
#endif
}
/* Before chunk c: its state is kept. */
static void states_keep(const ScanJob *j, size_t bh, size_t c) {
#if BITS == 16
    const size_t size = (size_t)j->d->K * j->d->V;
    if (j->states) rows_round(state_kept(j, bh, c), size, j->state + bh * size, 1, size, 0);
#else
    (void)j, (void)bh, (void)c;
#endif
}
static void states_end(const ScanJob *j, size_t bh) {
    const size_t last = delta_chunks(j->d);
#if BITS == 32
    const size_t size = (size_t)j->d->K * j->d->V;
    if (j->states) memcpy(j->state + bh * size, state_kept(j, bh, last), size * sizeof(float));
#else
    states_keep(j, bh, last);
#endif
}

/* ---- through time ---- */

static void scan_head_forward(const ScanJob *j, size_t b, size_t h, size_t c) {
    const DeltaDims *d = j->d;
    const States s = states_at(j, b * d->H + h);
    const size_t end = chunk_end(d, c);
    const float *S = s.S + c * s.step;
    float *next = s.S + (c + 1) * s.step;
    states_keep(j, b * d->H + h, c);
    for (size_t t = c * d->chunk; t < end; t += CT, S = next) { // a long chunk goes in pieces, its state in place
        const Place at = place_of(j, b, h, t);
        float *work = scan_work(j);
        Chunk p = scan_chunk(j, &at, b, t, end, &work);
        const size_t coming = d->T - t - p.n < CT ? d->T - t - p.n : CT;
        float *o = scan_out(j, &at, &p, &work);
        Fetches f = {.n = 0};
        p.fetches = &f;
        fetch_add(&f, j->o + at.v, at.ldv, p.n, p.V);
        fetch_add(&f, next, p.V, p.K, p.V);
        fetch_chunk(&f, j, &at, (ptrdiff_t)p.n, coming);
        j->scan->forward(o, next, S, &p, work);
#if BITS == 16
        rows_round(j->o + at.v, at.ldv, o, p.n, p.V, 0);
#endif
    }
}
static void scan_task(const void *job, size_t u) {
    const ScanJob *j = job;
    const DeltaDims *d = j->d;
    const Heads s = heads_of(u, d->H, j->together);
    const size_t bh = s.b * d->H;
    for (size_t h = s.from; h < s.to; h++) states_begin(j, bh + h);
    for (size_t c = 0; c < (size_t)delta_chunks(d); c++)
        for (size_t h = s.from; h < s.to; h++) scan_head_forward(j, s.b, h, c);
    for (size_t h = s.from; h < s.to; h++) states_end(j, bh + h);
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
    float *inner = scan_work(j), *behind = inner + 3 * state, *dS = j->dstate + bh * state;
#if BITS == 16
    float *S = behind;
    behind = rows_widen(S, state_kept(j, bh, c), state, 1, state);
#else
    const float *S = state_kept(j, bh, c);
#endif
    for (size_t i = 0; i + 1 < pieces; i++) {
        const Place at = place_of(j, b, h, from + i * CT);
        float *work = behind;
        const Chunk p = scan_chunk(j, &at, b, from + i * CT, end, &work);
        j->scan->forward(NULL, inner + i * state, i ? inner + (i - 1) * state : S, &p, work);
    }
    for (size_t i = pieces; i-- > 0;) {
        const size_t t = from + i * CT, coming = t < CT ? t : CT;
        const Place at = place_of(j, b, h, t);
        float *work = behind;
        Chunk p = scan_chunk(j, &at, b, t, end, &work);
        const ScanGrad g = scan_grad(j, &at, &p, &work);
        Fetches f = {.n = 0};
        p.fetches = &f;
        fetch_add(&f, j->grad.dv + at.v, at.ldv, p.n, p.V);
        if (decays) fetch_add(&f, g.dg, p.ldg, p.n, decays);
        fetch_add(&f, j->grad.dq + at.q, at.ldq, p.n, p.K);
        fetch_add(&f, j->grad.dk + at.q, at.ldq, p.n, p.K);
        fetch_chunk(&f, j, &at, -(ptrdiff_t)coming, coming);
        fetch_add(&f, j->grad.dout + at.v - coming * at.ldv, at.ldv, coming, p.V);
        j->scan->backward(&g, dS, i ? inner + (i - 1) * state : S, &p, work);
        scan_grad_add(j, &at, &p, &g);
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
