/* hf_save.c - a model to a directory in our two usual layouts: fla's names for hybrids, transformers' for all-softmax
 * models. See hf.h. */
#include "io/hf_parts.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>

/* ---- the list of tensors ---- */

typedef struct {
    HfList *l;
    int fla;
    DType dtype;
    size_t cap;
    Err *e;
} Listing;

static int count_param(void *ctx, const ParamInfo *info, Param *slot) {
    (void)info, (void)slot;
    ++*(size_t *)ctx;
    return OK;
}

static int list_param(void *ctx, const ParamInfo *info, Param *slot) {
    (void)slot;
    Listing *k = ctx;
    HfList *l = k->l;
    Tensor *t = &l->tensor[l->n];
    char *name = l->name[l->n];
    if (l->n == k->cap) return err_set(k->e, ERR_USAGE, "the parameter list changed while it was saved");
    if (k->fla ? snprintf(name, 128, "%s", info->name) >= 128 : hf_name(name, 128, info->name))
        return err_set(k->e, ERR_USAGE, "parameter name \"%s\" is too long", info->name);
    *t = (Tensor){.name = name, .dtype = info->wide ? DT_F32 : k->dtype, .rank = info->rank, .count = info->n};
    memcpy(t->shape, info->shape, info->rank * sizeof *t->shape);
    t->bytes = info->n * (dtype_bits(t->dtype) / 8);
    l->n++;
    return OK;
}

int hf_list_open(HfList *l, const Config *c, int fla, DType dtype, Err *e) {
    void *tensors = NULL, *names = NULL;
    Listing k = {l, fla, dtype, 0, e};
    memset(l, 0, sizeof *l);
    params_walk(c, NULL, count_param, &k.cap);
    int rc = mem_alloc(&tensors, k.cap * sizeof *l->tensor, "tensor list", e);
    if (!rc) rc = mem_alloc(&names, k.cap * sizeof *l->name, "tensor list", e);
    l->tensor = tensors;
    l->name = names;
    if (!rc) rc = params_walk(c, NULL, list_param, &k);
    if (rc) hf_list_close(l);
    return rc;
}

void hf_list_close(HfList *l) {
    mem_free(l->tensor);
    mem_free(l->name);
    memset(l, 0, sizeof *l);
}

/* ---- any source ---- */

typedef struct {
    const HfList *l;
    const ParamSource *source;
} Fetch;

/* TensorFetch: a piece of a parameter, converted on the way. */
static int fetch(void *ctx, const Tensor *t, size_t offset, void *buf, size_t bytes, Err *e) {
    const Fetch *f = ctx;
    const size_t size = dtype_bits(t->dtype) / 8;
    return f->source->get(f->source->ctx, (size_t)(t - f->l->tensor), t->dtype, offset / size, bytes / size, buf, e);
}

static int layout_check(const Config *c, const HfSaveOptions *o, int *fla, Err *e) {
    int softmax = 1;
    for (int l = 0; l < c->L; l++) softmax &= !c->mixer[l];
    *fla = o->format ? !strcmp(o->format, "fla") : !softmax;
    if (o->format && strcmp(o->format, "fla") && strcmp(o->format, "hf"))
        return err_set(e, ERR_USAGE, "format: got \"%s\", expected fla or hf", o->format);
    if (*fla == softmax)
        return err_set(e, ERR_USAGE, "format: %s cannot hold a model %s", *fla ? "fla" : "hf",
                       softmax ? "whose layers are all softmax; use hf" : "with linear layers; use fla");
    if (softmax && hf_own_positions(c))
        return err_set(e, ERR_USAGE, "format: hf cannot hold a model whose %s",
                       c->no_rope ? "attention has no rotary embedding"
                                  : "queries are scaled by position (logit_base)");
    if (o->dtype != DT_F32 && o->dtype != DT_F16 && o->dtype != DT_BF16 && o->dtype != DT_F64)
        return err_set(e, ERR_USAGE, "dtype: got %s, expected F32, F16, BF16 or F64", dtype_name(o->dtype));
    return OK;
}

int hf_notes(const Config *c, char *notes, size_t cap, Err *e) {
    JsonOut config = {0};
    int linear = 0;
    for (int l = 0; l < c->L; l++) linear |= c->mixer[l];
    TRY(hf_config_write(&config, c, c->dtype, linear, notes, cap, e));
    json_out_free(&config);
    return OK;
}

int hf_save_from(const Config *c, const ParamSource *source, const char *dir, const HfSaveOptions *o, char *notes,
                 size_t cap, Err *e) {
    HfList l;
    JsonOut config = {0};
    int fla;
    TRY(layout_check(c, o, &fla, e));
    TRY(hf_list_open(&l, c, fla, o->dtype, e));
    Fetch f = {&l, source};
    int rc = hf_config_write(&config, c, o->dtype, fla, notes, cap, e);
    const HfDir d = {.config = config.text,
                     .config_len = config.len,
                     .tensor = l.tensor,
                     .n = l.n,
                     .fetch = fetch,
                     .ctx = &f,
                     .shard_bytes = o->shard_bytes,
                     .tokenizer_from = o->tokenizer_from,
                     .file = o->file,
                     .n_files = o->n_files};
    if (!rc) {
        rc = hf_dir_write(dir, &d, e);
        json_out_free(&config);
    }
    hf_list_close(&l);
    return rc;
}

/* ---- a model in memory ---- */

typedef struct {
    const Model *m;
    size_t n;
    Param *slot; /* in the order of the walk */
    int *wide;
} InMemory;

static int slot_param(void *ctx, const ParamInfo *info, Param *slot) {
    InMemory *s = ctx;
    s->wide[s->n] = info->wide;
    s->slot[s->n++] = *slot;
    return OK;
}

static int memory_get(void *ctx, size_t i, DType type, size_t at, size_t n, void *dst, Err *e) {
    const InMemory *s = ctx;
    Backend *be = s->m->be;
    if (s->wide[i]) return wide_get(be, type, dst, cwide_at(be, s->slot[i].ww, at), n, e);
    return real_get(be, type, dst, creal_at(be, s->slot[i].w, at), n, e);
}

int hf_save(const Model *m, const char *dir, const HfSaveOptions *o, char *notes, size_t cap, Err *e) {
    void *slots = NULL, *wides = NULL;
    size_t count = 0;
    params_walk(&m->c, NULL, count_param, &count);
    int rc = mem_alloc(&slots, count * sizeof(Param), "tensor list", e);
    if (!rc) rc = mem_alloc(&wides, count * sizeof(int), "tensor list", e);
    InMemory s = {m, 0, slots, wides};
    Params params = m->p; // the walk wants a Params it may write to
    if (!rc) rc = params_walk(&m->c, &params, slot_param, &s);
    const ParamSource source = {&s, memory_get};
    if (!rc) rc = hf_save_from(&m->c, &source, dir, o, notes, cap, e);
    mem_free(slots);
    mem_free(wides);
    return rc;
}
