/* lanes.c - see lanes.h. */
#include "method/lanes.h"
#include "base/mem.h"
#include <math.h>
#include <string.h>

int lanes_check(int lanes, Err *e) {
    if (lanes >= 0 && lanes <= LANES_MOST && !(lanes & (lanes - 1))) return OK;
    err_set(e, ERR_USAGE, "lanes: got %d, expected a power of two", lanes);
    return err_hint(e, "2, 4, 8, ... %d", LANES_MOST);
}

size_t lanes_edge(size_t n, int lanes, int i) {
    const size_t one = ((n + (size_t)lanes - 1) / (size_t)lanes + 15) / 16 * 16, at = one * (size_t)i;
    return at < n ? at : n;
}

size_t lanes_rank_edge(size_t n, int lanes, const Ranks *r, int q) {
    return lanes_edge(n, lanes, lanes / ranks_count(r) * q);
}

void lanes_sum(double *x, int lanes, size_t stride) {
    for (int step = 1; step < lanes; step *= 2)
        for (int i = 0; i + step < lanes; i += 2 * step) x[(size_t)i * stride] += x[(size_t)(i + step) * stride];
}

/* ---------------------------------------------------------------- memory */

static int depth_of(int own) {
    int depth = 0;
    while (1 << depth < own) depth++;
    return depth;
}

/* Tensors are exchanged in buckets of so many elements, or as the largest of them, so that ranks wait for each other
 * once a bucket. */
enum { BUCKET = 8 << 20 };
/* The others' sums of one's segments of n elements, rounded up. */
static size_t bucket_room(size_t n, int lanes) { return n + 16 * (size_t)lanes; }

typedef struct {
    int lanes;
    size_t most, all;
} Room;
static int room_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Room *k = ctx;
    const size_t n = bucket_room(info->n, k->lanes);
    if (!slot->g) return OK;
    if (n > k->most) k->most = n;
    k->all += n;
    return OK;
}
/* Elements of a bucket. */
static size_t lanes_bucket(const Model *m, int lanes) {
    Model copy = *m; // the walk wants a mutable list; nothing is changed
    Room k = {.lanes = lanes};
    params_walk(&copy.c, &copy.p, room_visit, &k);
    return k.all < BUCKET ? k.all : k.most > BUCKET ? k.most : BUCKET;
}

size_t lanes_bytes(const Model *m, int lanes) {
    const int R = ranks_count(m->be->ranks);
    if (lanes < 2) return 0;
    return (size_t)depth_of(lanes / R) * m->grad_bytes + (R > 1 ? lanes_bucket(m, lanes) * m->be->wide_size : 0);
}

static int lanes_start(Lanes *l, Err *e) {
    Backend *be = l->m->be;
    const int R = ranks_count(l->ranks), depth = depth_of(l->own);
    void *mem;
    TRY(mem_alloc(&mem, (size_t)l->lanes * l->numbers * sizeof(double) + (size_t)depth * sizeof(Wide *), "lanes", e));
    l->mem = mem;
    l->number = mem;
    l->waiting = (Wide **)(void *)(l->number + (size_t)l->lanes * l->numbers);
    TRY(be->alloc(be, &l->memory, lanes_bytes(l->m, l->lanes), "gradients of lanes", e));
    l->others = l->memory; // what lies at its beginning may lie anywhere
    for (int i = 0; i < depth; i++) {
        l->waiting[i] = l->others;
        l->others = wide_at(be, l->others, l->m->grad_bytes / be->wide_size);
    }
    if (R < 2) return OK;
    l->room = lanes_bucket(l->m, l->lanes);
    return be->host ? OK : mem_alloc(&l->host, 2 * l->room * be->wide_size, "gradients on their way", e);
}

int lanes_divide(int lanes, int ranks, Err *e) {
    if (lanes < 1) lanes = 1;
    if (lanes % ranks == 0) return OK;
    err_set(e, ERR_USAGE, "lanes: got %d for %d ranks, expected a multiple of the ranks", lanes, ranks);
    return err_hint(e, "start 1, 2, 4, ... ranks, and give --lanes a power of two from their number on; its value "
                       "is part of the result, the number of ranks is not");
}

int lanes_open(Lanes *l, Model *m, int lanes, int numbers, Err *e) {
    Ranks *r = m->be->ranks;
    *l = (Lanes){.m = m, .ranks = r, .lanes = lanes > 1 ? lanes : 1, .numbers = numbers};
    TRY(lanes_divide(lanes, ranks_count(r), e));
    l->own = l->lanes / ranks_count(r);
    l->first = l->own * ranks_index(r);
    if (l->lanes < 2) return OK;
    const int rc = lanes_start(l, e);
    if (rc) lanes_close(l);
    return rc;
}

void lanes_close(Lanes *l) {
    if (l->memory) l->m->be->release(l->m->be, l->memory);
    mem_free(l->mem);
    mem_free(l->host);
    memset(l, 0, sizeof *l);
}

/* ---------------------------------------------------------------- the tree */

double *lanes_numbers(Lanes *l, int i) { return l->number + (size_t)(l->first + i) * l->numbers; }

typedef struct {
    Lanes *l;
    Wide *waiting;
    int keep; /* 1: the gradients move there; 0: what waits there is added to them */
    Err *e;
} Join;
static int join_visit(void *ctx, const ParamInfo *info, Param *slot) {
    const Join *j = ctx;
    Backend *be = j->l->m->be;
    if (!slot->g) return OK;
    const size_t at = (size_t)((char *)slot->g - (char *)j->l->m->grad_mem);
    Wide *waiting = wide_at(be, j->waiting, at / be->wide_size);
    if (!j->keep) return wide_add(be, slot->g, waiting, info->n, j->e);
    be->move(be, waiting, slot->g, info->n * be->wide_size);
    return OK;
}

static int lanes_join(Lanes *l, int level, int keep, Err *e) {
    Join j = {l, l->waiting[level], keep, e};
    return params_walk(&l->m->c, &l->m->p, join_visit, &j);
}

int lanes_add(Lanes *l, int i, Err *e) {
    int level = 0;
    for (; i >> level & 1; level++) TRY(lanes_join(l, level, 0, e));
    if (i == l->own - 1) return OK; // the sum of all
    TRY(lanes_join(l, level, 1, e));
    model_zero_grad(l->m);
    return OK;
}

/* The tensors of a bucket. */
enum { BUCKET_TENSORS = 256 };
typedef struct {
    Lanes *l;
    size_t used; /* elements of the bucket */
    int tensors;
    struct {
        Wide *g;      /* this rank's segments */
        size_t at, n; /* where the others' sums of them are in the bucket, one after the other; elements of each */
    } tensor[BUCKET_TENSORS];
    Err *e;
} Exchange;

/* What this rank's segments of a tensor are, once the others' sums are there: they are added as the tree says. */
static int segments_sum(const Exchange *x, int i) {
    const Lanes *l = x->l;
    const Ranks *r = l->ranks;
    Backend *be = l->m->be;
    const size_t n = x->tensor[i].n;
    Wide *sum[RANKS_MOST];
    for (int q = 0; q < r->size; q++) {
        const size_t at = x->tensor[i].at + (size_t)q * n;
        sum[q] = q == r->rank ? x->tensor[i].g : wide_at(be, l->others, at);
        if (q == r->rank || be->host || !n) continue;
        be->upload(be, sum[q], (char *)l->host + (l->room + at) * be->wide_size, n * be->wide_size);
    }
    for (int step = 1; step < r->size; step *= 2)
        for (int q = 0; q + step < r->size; q += 2 * step) TRY(wide_add(be, sum[q], sum[q + step], n, x->e));
    if (r->rank) be->move(be, x->tensor[i].g, sum[0], n * be->wide_size);
    return OK;
}

static int exchange_end(Exchange *x) {
    TRY(x->l->ranks->wait(x->l->ranks, x->e));
    for (int i = 0; i < x->tensors; i++) TRY(segments_sum(x, i));
    x->used = 0;
    x->tensors = 0;
    return OK;
}

static int exchange_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Exchange *x = ctx;
    Lanes *l = x->l;
    Ranks *r = l->ranks;
    Backend *be = l->m->be;
    const size_t size = be->wide_size, from = lanes_rank_edge(info->n, l->lanes, r, r->rank),
                 n = lanes_rank_edge(info->n, l->lanes, r, r->rank + 1) - from;
    RankPart out[RANKS_MOST] = {0}, in[RANKS_MOST] = {0};
    if (!slot->g) return OK;
    if (x->tensors == BUCKET_TENSORS || x->used + bucket_room(info->n, l->lanes) > l->room) TRY(exchange_end(x));
    char *host = be->host ? (char *)slot->g : (char *)l->host + x->used * size;
    char *got = be->host ? (char *)l->others : (char *)l->host + l->room * size;
    if (!be->host) be->download(be, host, slot->g, info->n * size);
    for (int q = 0; q < r->size; q++) {
        const size_t at = lanes_rank_edge(info->n, l->lanes, r, q), end = lanes_rank_edge(info->n, l->lanes, r, q + 1);
        out[q] = (RankPart){host + at * size, (end - at) * size};
        in[q] = (RankPart){got + (x->used + (size_t)q * n) * size, n * size};
    }
    x->tensor[x->tensors].g = wide_at(be, slot->g, from);
    x->tensor[x->tensors].at = x->used;
    x->tensor[x->tensors++].n = n;
    x->used += bucket_room(info->n, l->lanes);
    return r->post(r, out, in, x->e);
}

int lanes_finish(Lanes *l, Err *e) {
    size_t at[RANKS_MOST + 1];
    const int R = ranks_count(l->ranks);
    Exchange x = {.l = l, .e = e};
    for (int q = 0; q <= R; q++) at[q] = (size_t)(l->own * q) * l->numbers * sizeof(double);
    TRY(ranks_gather(l->ranks, l->number, at, e));
    l->bad = -1;
    for (int i = l->lanes - 1; i >= 0; i--)
        if (!isfinite(l->number[(size_t)i * (size_t)l->numbers])) l->bad = i / l->own;
    for (int i = 0; i < l->numbers; i++) lanes_sum(l->number + i, l->lanes, (size_t)l->numbers);
    if (R < 2) return OK;
    TRY(params_walk(&l->m->c, &l->m->p, exchange_visit, &x));
    return exchange_end(&x);
}

/* ---------------------------------------------------------------- what a step sends */

typedef struct {
    const Backend *be;
    Ranks ranks;
    int lanes;
    uint64_t params;
    LanesCost cost;
} Sending;
static void sends(Sending *s, uint64_t bytes) {
    s->cost.bytes += bytes;
    s->cost.messages += (bytes + RANKS_MESSAGE - 1) / RANKS_MESSAGE;
}
static int sending_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Sending *s = ctx;
    const Ranks *r = &s->ranks;
    const size_t weight = info->wide ? s->be->wide_size : s->be->real_size,
                 own = lanes_rank_edge(info->n, s->lanes, r, r->rank + 1) -
                       lanes_rank_edge(info->n, s->lanes, r, r->rank);
    if (!slot->g) return OK;
    s->params++;
    for (int q = 0; q < r->size; q++) {
        if (q == r->rank) continue;
        const size_t part = lanes_rank_edge(info->n, s->lanes, r, q + 1) - lanes_rank_edge(info->n, s->lanes, r, q);
        sends(s, part * s->be->wide_size);
        sends(s, own * weight);
    }
    return OK;
}

LanesCost lanes_cost(const Model *m, int lanes, int numbers, int ranks, int rank) {
    Model copy = *m; // the walk wants a mutable list; nothing is changed
    Sending s = {.be = m->be, .ranks = {.rank = rank, .size = ranks}, .lanes = lanes};
    params_walk(&copy.c, &copy.p, sending_visit, &s);
    const uint64_t row = (uint64_t)(lanes / ranks) * sizeof(double);
    for (int q = 1; q < ranks; q++) {
        sends(&s, row * (uint64_t)numbers);
        sends(&s, row * s.params);
        if (!rank) sends(&s, sizeof(int));
    }
    return s.cost;
}
