/* ragged.c - see ragged.h. */
#include "model/ragged.h"
#include "base/mem.h"
#include "base/poison.h"
#include <string.h>

/* Caches first, states behind them; returns the bytes of the caches. */
static size_t row_place(const Model *m, MixerState *s, Arena *ar, int capacity, int most) {
    size_t caches = 0;
    for (int linear = 0; linear < 2; linear++) {
        for (int l = 0; l < m->c.L; l++) {
            const Mixer *mix = mixer_at(m->c.mixer[l]);
            if (mix->linear == linear) mix->place_state(mix, &m->c, m->be, &s[l], ar, 1, capacity, most);
        }
        if (!linear) caches = ar->used;
    }
    return caches;
}

/* What a cache holds is not changed by it. */
static void row_lay(Ragged *r, int row) {
    Arena ar = {0};
    int used[MAX_LAYERS];
    MixerState *s = r->state + (size_t)row * r->m->c.L;
    for (int l = 0; l < r->m->c.L; l++) used[l] = s[l].used;
    arena_begin(&ar, r->row_mem[row], r->row_bytes);
    row_place(r->m, s, &ar, r->capacity, r->most);
    for (int l = 0; l < r->m->c.L; l++) s[l].used = used[l];
}

size_t ragged_row_bytes(const Model *m, int capacity, int most) {
    MixerState s[MAX_LAYERS];
    Arena ar = {0};
    row_place(m, s, &ar, capacity, most);
    return ar.overflow ? SIZE_MAX : ar.used;
}

static int tables_alloc(Ragged *r, Err *e) {
    const size_t rows = (size_t)r->rows;
    void *p;
    TRY(mem_alloc(&p, rows * (size_t)r->m->c.L * sizeof(MixerState), "row states", e));
    r->state = p;
    TRY(mem_alloc(&p, rows * sizeof(void *), "row states", e));
    r->row_mem = p;
    TRY(mem_alloc(&p, rows * sizeof(int), "row states", e));
    r->past = p;
    return OK;
}

static int rows_alloc(Ragged *r, Err *e) {
    Backend *be = r->m->be;
    Arena ar = {0};
    const size_t caches = row_place(r->m, r->state, &ar, r->capacity, r->most);
    if (ar.overflow)
        return err_set(e, ERR_MEMORY, "a cache of %d tokens needs more bytes than this machine can address",
                       r->capacity);
    r->row_bytes = ar.used;
    r->cache_bytes = (size_t)r->rows * caches;
    r->state_bytes = (size_t)r->rows * (ar.used - caches);
    for (int row = 0; row < r->rows; row++) {
        TRY(be->alloc(be, &r->row_mem[row], r->row_bytes, "key/value caches and states", e));
        row_lay(r, row);
    }
    return be->alloc(be, &r->mem, (size_t)r->rows * r->m->c.VOC * be->real_size, "logits", e);
}

int ragged_open(Ragged *r, Model *m, int rows, int capacity, int most, Err *e) {
    memset(r, 0, sizeof *r);
    if (rows < 1 || capacity < 1 || most < 1)
        return err_set(e, ERR_USAGE, "rows: got %d of %d tokens, %d a step, expected at least 1", rows, capacity, most);
    *r = (Ragged){.m = m, .rows = rows, .capacity = capacity, .most = most};
    int rc = tables_alloc(r, e);
    if (!rc) rc = model_rope(m, capacity, e);
    if (!rc) rc = pass_open(&r->pass, m, 1, most, 0, e);
    if (!rc) rc = rows_alloc(r, e);
    r->logits = r->mem;
    if (rc) ragged_close(r);
    return rc;
}

void ragged_close(Ragged *r) {
    if (r->m) {
        Backend *be = r->m->be;
        for (int row = 0; row < r->rows && r->row_mem; row++) be->release(be, r->row_mem[row]);
        be->release(be, r->mem);
        pass_close(&r->pass);
    }
    mem_free(r->state);
    mem_free(r->row_mem);
    mem_free(r->past);
    memset(r, 0, sizeof *r);
}

/* On the host red zones stand between a row's tensors: they are taken away for the move and put back by laying out
 * again. */
void ragged_clear(Ragged *r, int row) {
    Backend *be = r->m->be;
    if (be->host) unpoison(r->row_mem[row], r->row_bytes);
    be->zero(be, r->row_mem[row], r->row_bytes);
    for (int l = 0; l < r->m->c.L; l++) r->state[(size_t)row * r->m->c.L + l].used = 0;
    row_lay(r, row);
    r->past[row] = 0;
}

void ragged_copy(Ragged *r, int to, int from) {
    Backend *be = r->m->be;
    if (be->host) {
        unpoison(r->row_mem[to], r->row_bytes);
        unpoison(r->row_mem[from], r->row_bytes);
    }
    be->move(be, r->row_mem[to], r->row_mem[from], r->row_bytes);
    MixerState *a = r->state + (size_t)to * r->m->c.L, *b = r->state + (size_t)from * r->m->c.L;
    for (int l = 0; l < r->m->c.L; l++) a[l].used = b[l].used;
    row_lay(r, to);
    row_lay(r, from);
    r->past[to] = r->past[from];
}

static int pieces_upload(Ragged *r, const RaggedPiece *piece, int n, Err *e) {
    Model *m = r->m;
    int N = 0;
    for (int i = 0; i < n; i++) {
        const RaggedPiece *p = &piece[i];
        if (p->T < 1 || p->T > r->capacity - r->past[p->row])
            return err_set(e, ERR_USAGE, "row %d: %d more tokens after %d, but there is room for %d in all", p->row,
                           p->T, r->past[p->row], r->capacity);
        if (p->T > r->most - N) return err_set(e, ERR_USAGE, "a step of more than %d tokens", r->most);
        for (int t = 0; t < p->T; t++)
            if (p->ids[t] < 0 || p->ids[t] >= m->c.VOC)
                return err_set(e, ERR_INPUT, "token id %d: expected 0 to %d", p->ids[t], m->c.VOC - 1);
        m->be->upload(m->be, r->pass.ids + N, p->ids, (size_t)p->T * sizeof(int));
        N += p->T;
    }
    r->pass.T = r->pass.N = N;
    return OK;
}

/* y = mixer(n1), piece by piece; the activations of one piece use the front of the batch's. */
static void pieces_mix(Ragged *r, const RaggedPiece *piece, int n, int l) {
    Model *m = r->m;
    Pass *p = &r->pass;
    LayerActs *a = &p->layer[l];
    const Mixer *mix = mixer_at(m->c.mixer[l]);
    size_t at = 0;
    for (int i = 0; i < n; at += (size_t)piece[i++].T) {
        MixerCall *call = layer_call(m, p, l);
        const int row = piece[i].row;
        call->B = 1;
        call->T = piece[i].T;
        mix->extend(mix, call, &a->mix, &r->state[(size_t)row * m->c.L + l], real_at(m->be, p->mix_out, at * m->c.C),
                    creal_at(m->be, a->n1, at * m->c.C), r->past[row]);
    }
}

int ragged_step(Ragged *r, const RaggedPiece *piece, int n, Err *e) {
    Model *m = r->m;
    Pass *p = &r->pass;
    TRY(pieces_upload(r, piece, n, e));
    model_embed(m, p, p->layer[0].x);
    for (int l = 0; l < m->c.L; l++) {
        LayerActs *a = &p->layer[l];
        layer_norm_in(m, p, l, a->x);
        pieces_mix(r, piece, n, l);
        layer_mlp(m, p, l, a->x, p->mix_out, l + 1 < m->c.L ? p->layer[l + 1].x : p->x);
    }
    for (int i = 0; i < n; i++) r->past[piece[i].row] += piece[i].T;
    return m->be->sync(m->be, e);
}

void ragged_hidden(Ragged *r, const int *at, int n) {
    Model *m = r->m;
    Pass *p = &r->pass;
    Backend *be = m->be;
    const size_t C = (size_t)m->c.C;
    for (int i = 0; i < n; i++)
        be->move(be, real_at(be, p->mix_out, (size_t)i * C), creal_at(be, p->x, (size_t)at[i] * C), C * be->real_size);
    be->op->rmsnorm_forward(p->h, p->r, p->mix_out, m->p.norm.w, m->c.norm_eps, n, m->c.C);
}

int ragged_logits(Ragged *r, const int *at, int n, float *logits, Err *e) {
    Model *m = r->m;
    if (n > r->rows) return err_set(e, ERR_USAGE, "logits of %d tokens: expected at most %d", n, r->rows);
    ragged_hidden(r, at, n);
    m->be->op->linear_forward(r->logits, r->pass.h, params_head(&m->p)->w, NULL, n, m->c.C, m->c.VOC);
    return real_get(m->be, DT_F32, logits, r->logits, (size_t)n * m->c.VOC, e);
}
