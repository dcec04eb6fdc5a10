/* dump.c - see dump.h. */
#include "io/dump.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "io/safetensors.h"
#include <stdio.h>
#include <string.h>

enum { PER_LAYER = 14, OTHERS = 4 };

typedef struct {
    const Model *m;
    const Pass *p;
    size_t n;
    Tensor *tensor;
    char (*name)[64];
    const void **from; /* on the device: real, or wide */
    int *wide;
    const int *ids;
} Dump;

/* One (T, cols) tensor, when the layer has it. */
static void add(Dump *d, int layer, const char *name, const void *from, int wide, int cols) {
    if (!from) return;
    Tensor *t = &d->tensor[d->n];
    if (layer >= 0) snprintf(d->name[d->n], sizeof *d->name, "model.layers.%d.%s", layer, name);
    else snprintf(d->name[d->n], sizeof *d->name, "%s", name);
    *t = (Tensor){.name = d->name[d->n], .dtype = DT_F32, .rank = 2, .shape = {(size_t)d->p->T, (size_t)cols}};
    t->count = t->shape[0] * t->shape[1];
    t->bytes = 4 * t->count;
    d->from[d->n] = from;
    d->wide[d->n++] = wide;
}

static void add_layer(Dump *d, int l) {
    const Config *c = &d->m->c;
    const LayerActs *a = &d->p->layer[l];
    const MixerActs *x = &a->mix;
    const Mixer *mix = mixer_at(c->mixer[l]);
    const int Q = c->H * c->D, K = mix->linear ? Q : c->Hk * c->D;
    add(d, l, "attn_norm", a->n1, 0, c->C);
    add(d, l, "attn.q", x->qn ? x->qn : x->qs ? x->qs : x->q, 0, Q);
    add(d, l, "attn.k", x->kn ? x->kn : x->ks ? x->ks : x->k, 0, K);
    add(d, l, "attn.v", x->vs ? x->vs : x->v, 0, K);
    add(d, l, "attn.g", x->g, 1, mix->channels ? Q : c->H);
    add(d, l, "attn.beta", x->beta, 1, c->H);
    add(d, l, "attn.o", x->o, 0, Q);
    add(d, l, "attn_residual", a->x2, 0, c->C);
    add(d, l, "mlp_norm", a->n2, 0, c->C);
    add(d, l, "mlp.gate", a->gate, 0, c->F);
    add(d, l, "mlp.up", a->up, 0, c->F);
    add(d, l, "mlp.act", a->act, 0, c->F);
    add(d, l, "output", l + 1 < c->L ? d->p->layer[l + 1].x : d->p->x, 0, c->C);
}

/* TensorFetch */
static int fetch(void *ctx, const Tensor *t, size_t offset, void *buf, size_t bytes, Err *e) {
    const Dump *d = ctx;
    const size_t i = (size_t)(t - d->tensor), at = offset / 4, n = bytes / 4;
    if (t->dtype == DT_I32) return memcpy(buf, (const char *)d->ids + offset, bytes), OK;
    if (d->wide[i]) return wide_get(d->m->be, DT_F32, buf, cwide_at(d->m->be, d->from[i], at), n, e);
    return real_get(d->m->be, DT_F32, buf, creal_at(d->m->be, d->from[i], at), n, e);
}

static int write(Dump *d, const char *path, Err *e) {
    TextBuf order = {0};
    for (size_t i = 0; i < d->n; i++) textbuf_printf(&order, "%s%s", i ? " " : "", d->name[i]);
    snprintf(d->name[d->n], sizeof *d->name, "ids");
    d->tensor[d->n] = (Tensor){
        .name = d->name[d->n], .dtype = DT_I32, .rank = 1, .shape = {(size_t)d->p->T}, .count = (size_t)d->p->T};
    int rc = textbuf_end(&order, e);
    const char *const meta[] = {"order", order.text, NULL};
    if (!rc) rc = safetensors_write(path, d->tensor, d->n + 1, meta, fetch, d, e);
    textbuf_free(&order);
    return rc;
}

static int lists_open(Dump *d, int L, Err *e) {
    const size_t cap = (size_t)L * PER_LAYER + OTHERS;
    void *p[4] = {0};
    const size_t size[4] = {sizeof *d->tensor, sizeof *d->name, sizeof *d->from, sizeof *d->wide};
    int rc = OK;
    for (int i = 0; i < 4 && !rc; i++) rc = mem_alloc(&p[i], cap * size[i], "list of activations", e);
    d->tensor = p[0];
    d->name = p[1];
    d->from = p[2];
    d->wide = p[3];
    return rc;
}

/* The pass has run; logits is room for (T, VOC). */
static int list_and_write(Dump *d, const char *path, Model *m, const Pass *p, Real *logits, Err *e) {
    m->be->op->linear_forward(logits, p->h, params_head(&m->p)->w, NULL, p->N, m->c.C, m->c.VOC);
    TRY(m->be->sync(m->be, e));
    add(d, -1, "model.embeddings", p->layer[0].x, 0, m->c.C);
    for (int l = 0; l < m->c.L; l++) add_layer(d, l);
    add(d, -1, "model.norm", p->h, 0, m->c.C);
    add(d, -1, "lm_head", logits, 0, m->c.VOC);
    return write(d, path, e);
}

int dump_write(const char *path, Model *m, const int *ids, int T, Err *e) {
    Pass p;
    Dump d = {.m = m, .p = &p, .ids = ids};
    void *logits = NULL;
    TRY(pass_open(&p, m, 1, T, PASS_TRAIN | PASS_KEEP, e)); // every layer's activations, all of them
    int rc = pass_input(&p, m, ids, NULL, e);
    if (!rc) rc = m->be->alloc(m->be, &logits, (size_t)T * (size_t)m->c.VOC * m->be->real_size, "logits", e);
    if (!rc) rc = lists_open(&d, m->c.L, e);
    if (!rc) {
        model_forward(m, &p);
        rc = list_and_write(&d, path, m, &p, logits, e);
    }
    m->be->release(m->be, logits);
    mem_free(d.tensor);
    mem_free(d.name);
    mem_free(d.from);
    mem_free(d.wide);
    pass_close(&p);
    return rc;
}
