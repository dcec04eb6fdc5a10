/* loss.c - the head, cross-entropy and KL of one batch. See loss.h. */
#include "method/loss.h"
#include "base/mem.h"
#include <string.h>

/* Rows of logits held at once: enough for the matrix product to be worth it, never much memory.
 * On a device each block reads the head and adds to its gradient, so that there the rows are many: 2 GiB of logits, in
 * whole tiles of the product (3,456 rows of 151,936 in BF16). */
static int loss_block(const Model *m, int N) {
    const size_t most = m->be->host ? (size_t)1 << 17 : ((size_t)1 << 30) / m->be->real_size;
    const size_t tile = m->be->host ? 1 : 128, least = 64, rows = most / (size_t)m->c.VOC / tile * tile;
    const size_t block = rows > least ? rows : least;
    return block < (size_t)N ? (int)block : N;
}

static HeadDims loss_dims(const Loss *l, const Model *m, int Ct) {
    return (HeadDims){l->N, m->c.C, Ct, m->c.VOC, l->block};
}

static void loss_place(Loss *l, const Model *m, int Ct, Arena *a) {
    const Backend *be = m->be;
    HeadDims d = loss_dims(l, m, Ct);
    if (d.Ct > d.C) d.C = d.Ct; // the teacher's rows may be the wider ones
    l->loss = arena_take(a, l->N, be->wide_size);
    l->weight = arena_take(a, l->N, be->wide_size);
    l->target = arena_take(a, l->N, sizeof(int));
    l->top = arena_take(a, l->N, sizeof(int));
    l->dh = arena_take(a, (size_t)l->N * m->c.C, be->real_size);
    l->work = arena_take(a, be->host ? head_work(&d) : loss_device_work(&d, be->real_size), 1);
}

size_t loss_bytes(const Model *m, int Ct, int N) {
    Loss l = {.N = N, .block = loss_block(m, N)};
    Arena a = {0};
    loss_place(&l, m, Ct, &a);
    return a.used;
}

int loss_open(Loss *l, const Model *m, int Ct, int N, Err *e) {
    memset(l, 0, sizeof *l);
    void *host;
    TRY(mem_alloc(&host, (size_t)N * (sizeof(double) + sizeof(float)), "losses", e));
    *l = (Loss){.be = m->be, .N = N, .block = loss_block(m, N), .row_loss = host, .bytes = loss_bytes(m, Ct, N)};
    l->uniform = (float *)(l->row_loss + N);
    for (int n = 0; n < N; n++) l->uniform[n] = (float)(1.0 / N);
    if (m->be->alloc(m->be, &l->mem, l->bytes, "loss scratch", e)) {
        loss_close(l);
        return e ? e->code : ERR_MEMORY;
    }
    Arena a = {0};
    arena_begin(&a, l->mem, l->bytes);
    loss_place(l, m, Ct, &a);
    return OK;
}

void loss_close(Loss *l) {
    if (l->be) l->be->release(l->be, l->mem);
    mem_free(l->row_loss);
    memset(l, 0, sizeof *l);
}

/* sum_n weight_n loss_n in double and in order, whatever the backend. */
static int loss_value(Loss *l, const float *weight, double *value, float *row_loss, Err *e) {
    TRY(wide_get(l->be, DT_F64, l->row_loss, l->loss, l->N, e));
    double sum = 0;
    for (int n = 0; n < l->N; n++) {
        if (weight[n] != 0) sum += (double)weight[n] * l->row_loss[n];
        if (row_loss) row_loss[n] = (float)l->row_loss[n];
    }
    *value = sum;
    return OK;
}

int loss_xent(Loss *l, Model *m, const Pass *p, const int *target, const float *weight, int grad, double *value,
              float *row_loss, int *top, Err *e) {
    const HeadDims d = loss_dims(l, m, 0);
    const Param *head = params_head(&m->p);
    if (!weight) weight = l->uniform;
    l->be->upload(l->be, l->target, target, (size_t)l->N * sizeof(int));
    TRY(wide_put(l->be, l->weight, DT_F32, weight, l->N, e));
    if (grad) l->be->zero(l->be, l->dh, (size_t)l->N * m->c.C * l->be->real_size);
    l->be->op->head_xent(l->loss, top ? l->top : NULL, grad ? l->dh : NULL, grad ? head->g : NULL, p->h, head->w,
                         l->target, l->weight, l->work, &d);
    if (top) l->be->download(l->be, top, l->top, (size_t)l->N * sizeof(int));
    return loss_value(l, weight, value, row_loss, e);
}

int loss_kl(Loss *l, Model *m, const Pass *p, const Real *xt, int Ct, const Real *wt, double tau, const float *weight,
            int grad, double *value, float *row_loss, Err *e) {
    const HeadDims d = loss_dims(l, m, Ct);
    const Param *head = params_head(&m->p);
    if (!weight) weight = l->uniform;
    TRY(wide_put(l->be, l->weight, DT_F32, weight, l->N, e));
    if (grad) l->be->zero(l->be, l->dh, (size_t)l->N * m->c.C * l->be->real_size);
    l->be->op->head_kl(l->loss, grad ? l->dh : NULL, grad ? head->g : NULL, p->h, head->w, xt, wt, l->weight, tau,
                       l->work, &d);
    return loss_value(l, weight, value, row_loss, e);
}
