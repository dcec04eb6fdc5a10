/* gradients.c - see gradients.h. */
#include "tools/gradients.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "io/safetensors.h"
#include "method/loss.h"
#include <stdio.h>
#include <string.h>

enum { NAME = 96 };
typedef struct {
    Model *m;
    size_t n, room;
    Tensor *tensor;
    char (*name)[NAME];
    const Wide **from; /* on the device, or */
    float **host;      /* (T,C): inputs of layers, taken while backward goes by */
    Err *e;
} List;

static int count(void *ctx, const ParamInfo *info, Param *slot) {
    (void)info, (void)slot;
    ++*(size_t *)ctx;
    return OK;
}
static Tensor *add(List *k, const char *name, int rank, const size_t *shape, size_t n) {
    snprintf(k->name[k->n], NAME, "%s", name);
    Tensor *t = &k->tensor[k->n];
    *t = (Tensor){.name = k->name[k->n], .dtype = DT_F32, .rank = rank, .count = n, .bytes = 4 * n};
    memcpy(t->shape, shape, (size_t)rank * sizeof *shape);
    k->n++;
    return t;
}
static int add_param(void *ctx, const ParamInfo *info, Param *slot) {
    List *k = ctx;
    k->from[k->n] = slot->g;
    add(k, info->name, info->rank, info->shape, info->n);
    return OK;
}

static int list_open(List *k, Model *m, int T, Err *e) {
    void *p[4] = {0};
    size_t params = 0;
    *k = (List){.m = m, .e = e};
    TRY(params_walk(&m->c, NULL, count, &params));
    k->room = params + (size_t)m->c.L;
    const size_t size[4] = {sizeof *k->tensor, sizeof *k->name, sizeof *k->from, sizeof *k->host};
    int rc = OK;
    for (int i = 0; i < 4 && !rc; i++) rc = mem_alloc(&p[i], k->room * size[i], "list of gradients", e);
    k->tensor = p[0], k->name = p[1], k->from = p[2], k->host = p[3];
    TRY(rc);
    TRY(params_walk(&m->c, &m->p, add_param, k));
    const size_t shape[2] = {(size_t)T, (size_t)m->c.C};
    for (int l = 0; l < m->c.L; l++) {
        char name[NAME];
        void *x;
        snprintf(name, sizeof name, "model.layers.%d.input", l);
        TRY(mem_alloc(&x, shape[0] * shape[1] * sizeof(float), name, e));
        k->host[k->n] = x;
        add(k, name, 2, shape, shape[0] * shape[1]);
    }
    return OK;
}
static void list_close(List *k) {
    for (size_t i = 0; k->host && i < k->n; i++) mem_free(k->host[i]);
    mem_free(k->tensor), mem_free(k->name), mem_free((void *)k->from), mem_free(k->host);
}

/* model_backward, stopping at each layer's input. */
static int backward(List *k, Pass *p, const Real *dh, Err *e) {
    Model *m = k->m;
    Backend *be = m->be;
    const size_t n = (size_t)p->N * (size_t)m->c.C, params = k->n - (size_t)m->c.L;
    be->zero(be, p->dx, n * be->real_size);
    be->op->rmsnorm_backward(p->dx, m->p.norm.g, dh, p->x, m->p.norm.w, p->r, p->N, m->c.C);
    for (int l = m->c.L - 1; l >= 0; l--) {
        layer_backward(m, p, l, p->dx);
        TRY(be->sync(be, e));
        TRY(real_get(be, DT_F32, k->host[params + (size_t)l], p->dx, n, e));
    }
    be->op->embed_backward(m->p.embed.g, p->dx, p->ids, p->N, m->c.C, m->c.VOC);
    return be->sync(be, e);
}

static int compute(List *k, Pass *p, const int *ids, double *loss, Err *e) {
    const int T = p->T;
    Loss l;
    void *host;
    TRY(mem_alloc(&host, (size_t)T * (sizeof(int) + sizeof(float)), "targets", e));
    float *weight = host;
    int *target = (int *)(weight + T);
    for (int t = 0; t < T; t++) {
        target[t] = t + 1 < T ? ids[t + 1] : -1;
        weight[t] = t + 1 < T ? 1.0f / (float)(T - 1) : 0;
    }
    int rc = loss_open(&l, k->m, 0, T, e);
    if (!rc) {
        model_forward(k->m, p);
        rc = loss_xent(&l, k->m, p, target, weight, 1, loss, NULL, NULL, e);
        if (!rc) rc = backward(k, p, l.dh, e);
        loss_close(&l);
    }
    mem_free(host);
    return rc;
}

/* TensorFetch */
static int fetch(void *ctx, const Tensor *t, size_t offset, void *buf, size_t bytes, Err *e) {
    const List *k = ctx;
    const size_t i = (size_t)(t - k->tensor);
    if (k->host[i]) return memcpy(buf, (const char *)k->host[i] + offset, bytes), OK;
    return wide_get(k->m->be, DT_F32, buf, cwide_at(k->m->be, k->from[i], offset / 4), bytes / 4, e);
}

/* Parameters from the last to the first, each layer's followed by its input. */
static int order(TextBuf *out, const List *k, Err *e) {
    const size_t params = k->n - (size_t)k->m->c.L;
    int layer = k->m->c.L - 1;
    for (size_t i = params; i-- > 0;) {
        char prefix[NAME];
        textbuf_printf(out, "%s ", k->name[i]);
        snprintf(prefix, sizeof prefix, "model.layers.%d.", layer);
        const int inside = !strncmp(k->name[i], prefix, strlen(prefix)),
                  next = i > 0 && !strncmp(k->name[i - 1], prefix, strlen(prefix));
        if (inside && !next) textbuf_printf(out, "%sinput ", prefix), layer--;
    }
    return textbuf_end(out, e);
}

int gradients_write(const char *path, Model *m, const int *ids, int T, Err *e) {
    List k = {0};
    Pass p = {0};
    TextBuf names = {0};
    double loss = 0;
    char text[40];
    if (T < 2) return err_set(e, ERR_USAGE, "gradients: got %d token, expected two or more: the first predicts", T);
    int rc = list_open(&k, m, T, e);
    if (!rc) rc = pass_open(&p, m, 1, T, PASS_TRAIN, e);
    if (!rc) rc = pass_input(&p, m, ids, NULL, e);
    if (!rc) rc = compute(&k, &p, ids, &loss, e);
    if (!rc) rc = order(&names, &k, e);
    if (!rc) {
        snprintf(text, sizeof text, "%.17g", loss);
        const char *const meta[] = {"order", names.text, "loss", text, NULL};
        rc = safetensors_write(path, k.tensor, k.n, meta, fetch, &k, e);
    }
    textbuf_free(&names);
    pass_close(&p);
    list_close(&k);
    return rc;
}
