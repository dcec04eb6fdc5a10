/* pass.c - the activations of one (B,T) batch: laid out by one placing function that first measures. */
#include "base/mem.h"
#include "base/poison.h"
#include "model/model.h"
#include <string.h>

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

static void layer_place(const Model *m, LayerActs *a, Arena *ar, int B, int T, int l, unsigned flags) {
    const Backend *be = m->be;
    const size_t N = (size_t)B * T, C = N * m->c.C, F = N * m->c.F;
    const Mixer *mix = mixer_at(m->c.mixer[l]);
    a->r1 = arena_take(ar, N, be->wide_size);
    mix->place(mix, &m->c, be, &a->mix, ar, B, T, m->chunk, flags & PASS_TRAIN);
    a->x2 = arena_take(ar, C, be->real_size);
    a->r2 = arena_take(ar, N, be->wide_size);
    a->gate = arena_take(ar, F, be->real_size);
    a->up = arena_take(ar, F, be->real_size);
}

/* What costs one pass over memory to compute again: kept by one layer at a time, unless PASS_KEEP. */
static void place_recomputed(const Model *m, Pass *p, Arena *ar, int B, int T, unsigned flags) {
    const size_t size = m->be->real_size, N = (size_t)B * T, C = N * m->c.C, F = N * m->c.F;
    for (int l = 0; l < m->c.L; l++) {
        LayerActs *a = &p->layer[l], *same = flags & PASS_KEEP ? a : &p->layer[0];
        if (same == a)
            a->n1 = arena_take(ar, C, size), a->n2 = arena_take(ar, C, size), a->act = arena_take(ar, F, size);
        a->n1 = same->n1, a->n2 = same->n2, a->act = same->act;
    }
}

/* Without PASS_TRAIN, or with checkpointing, all layers use the same memory: as much as the largest of them needs. */
static void layers_place(const Model *m, Pass *p, Arena *ar, int B, int T, unsigned flags) {
    const Backend *be = m->be;
    const size_t C = (size_t)B * T * m->c.C;
    const int keep_all = (flags & PASS_TRAIN) && !(flags & PASS_CHECKPOINT);
    const size_t begin = ar->used;
    size_t end = begin;
    for (int l = 0; l < m->c.L; l++) {
        if (!keep_all) arena_release(ar, begin);
        layer_place(m, &p->layer[l], ar, B, T, l, flags);
        end = max_size(end, ar->used);
    }
    if (!keep_all && ar->used < end) arena_take(ar, end - ar->used, 1);
    // kinds of layers share this memory, so that red zones of one fall inside tensors of another
    if (!keep_all && ar->base) unpoison(ar->base + begin, end - begin);
    Real *even = NULL, *odd = NULL; // an inference pass alternates between two residual buffers
    for (int l = 0; l < m->c.L; l++) {
        if (flags & PASS_TRAIN) p->layer[l].x = arena_take(ar, C, be->real_size);
        else if (l == 0) p->layer[l].x = even = arena_take(ar, C, be->real_size);
        else if (l == 1) p->layer[l].x = odd = arena_take(ar, C, be->real_size);
        else p->layer[l].x = l % 2 ? odd : even;
    }
}

static void scratch_place(const Model *m, Pass *p, Arena *ar, int B, int T, unsigned flags) {
    const Backend *be = m->be;
    const Config *c = &m->c;
    // 16: rank of gla's gate
    const size_t N = (size_t)B * T, wide_row = max_size(max_size(c->C, (size_t)c->H * c->D), 16);
    size_t work = 0, heads = c->H;
    int linear = 0;
    for (int l = 0; l < c->L; l++) {
        const Mixer *mix = mixer_at(c->mixer[l]);
        work = max_size(work, mix->work(mix, c, B, T, m->chunk));
        linear |= mix->linear;
        if (mix->channels) heads = (size_t)c->H * c->D;
    }
    p->call.work = arena_take(ar, work, 1);
    p->mix_out = arena_take(ar, N * c->C, be->real_size);
    if (linear) p->call.state = arena_take(ar, (size_t)B * c->H * c->D * c->D, be->wide_size);
    if (!(flags & PASS_TRAIN)) return;
    for (int i = 0; i < 4; i++) p->call.tmp[i] = arena_take(ar, N * wide_row, be->real_size);
    for (int i = 0; linear && i < 2; i++) p->call.wtmp[i] = arena_take(ar, N * heads, be->wide_size);
    p->dx = arena_take(ar, N * c->C, be->real_size);
    p->dn = arena_take(ar, N * c->C, be->real_size);
    for (int i = 0; i < 3; i++) p->dact[i] = arena_take(ar, N * c->F, be->real_size);
    if (flags & PASS_CHECKPOINT) p->recompute = arena_take(ar, N * c->C, be->real_size);
}

static void pass_place(const Model *m, Pass *p, Arena *ar, int B, int T, unsigned flags) {
    const Backend *be = m->be;
    const size_t N = (size_t)B * T;
    p->ids = arena_take(ar, N, sizeof(int));
    p->start_mem = arena_take(ar, N, sizeof(int));
    layers_place(m, p, ar, B, T, flags);
    place_recomputed(m, p, ar, B, T, flags);
    p->x = arena_take(ar, N * m->c.C, be->real_size);
    p->h = arena_take(ar, N * m->c.C, be->real_size);
    p->r = arena_take(ar, N, be->wide_size);
    scratch_place(m, p, ar, B, T, flags);
}

static int pass_measure(const Model *m, size_t *bytes, int B, int T, unsigned flags, Err *e) {
    Pass p = {0};
    Arena ar = {0};
    void *table;
    if (B < 1 || T < 1 || (size_t)B * T > 1 << 30)
        return err_set(e, ERR_USAGE, "batch of %d sequences of %d tokens: expected 1 to 2^30 tokens in all", B, T);
    TRY(mem_alloc(&table, (size_t)m->c.L * sizeof(LayerActs), "layer table", e));
    p.layer = table;
    pass_place(m, &p, &ar, B, T, flags);
    mem_free(table);
    *bytes = ar.used;
    return ar.overflow ? err_set(e, ERR_MEMORY,
                                 "activations of %d x %d tokens need more bytes than this machine can address", B, T)
                       : OK;
}

size_t pass_bytes(const Model *m, int B, int T, unsigned flags) {
    size_t bytes = 0;
    Err e = {0};
    return pass_measure(m, &bytes, B, T, flags, &e) ? SIZE_MAX : bytes;
}

int pass_open(Pass *p, Model *m, int B, int T, unsigned flags, Err *e) {
    memset(p, 0, sizeof *p);
    void *table;
    TRY(pass_measure(m, &p->bytes, B, T, flags, e));
    TRY(model_rope(m, T, e));
    TRY(mem_alloc(&table, (size_t)m->c.L * sizeof(LayerActs), "layer table", e));
    p->layer = table;
    p->be = m->be;
    if (m->be->alloc(m->be, &p->mem, p->bytes, "activations", e)) {
        pass_close(p);
        return e ? e->code : ERR_MEMORY;
    }
    Arena ar = {0};
    arena_begin(&ar, p->mem, p->bytes);
    pass_place(m, p, &ar, B, T, flags);
    p->B = B;
    p->T = T;
    p->N = B * T;
    p->flags = flags;
    return OK;
}

void pass_close(Pass *p) {
    if (p->be) p->be->release(p->be, p->mem);
    mem_free(p->layer);
    memset(p, 0, sizeof *p);
}

int pass_input(Pass *p, const Model *m, const int *ids, const int *start, Err *e) {
    for (int n = 0; n < p->N; n++)
        if (ids[n] < 0 || ids[n] >= m->c.VOC)
            return err_set(e, ERR_INPUT, "token %d of the batch: got id %d, expected 0 to %d", n, ids[n], m->c.VOC - 1);
    m->be->upload(m->be, p->ids, ids, (size_t)p->N * sizeof(int));
    if (start && m->c.logit_base > 0)
        return err_set(e, ERR_USAGE,
                       "logit_base: queries are scaled by the place in the row, which is not that in the "
                       "document: expected rows of one document");
    p->start = start ? p->start_mem : NULL;
    if (start) m->be->upload(m->be, p->start_mem, start, (size_t)p->N * sizeof(int));
    return OK;
}
