/* hf_save.c - a model to a directory: config.json, safetensors (one file, or shards and an index), tokenizer files. See hf.h. */
#include "io/hf_parts.h"
#include "base/file.h"
#include "base/mem.h"
#include "model/mixer.h"
#include <stdio.h>
#include <string.h>

typedef struct {
    const Model *m;
    int fla;
    DType dtype;
    size_t n, cap;
    Tensor *tensor;
    char (*name)[128];
    ParamInfo *info;
    Param *slot;
    Err *e;
} Save;

static int count_param(void *ctx, const ParamInfo *info, Param *slot) {
    (void)info, (void)slot;
    ++*(size_t *)ctx;
    return OK;
}

static int list_param(void *ctx, const ParamInfo *info, Param *slot) {
    Save *s = ctx;
    Tensor *t = &s->tensor[s->n];
    char *name = s->name[s->n];
    if (s->n == s->cap) return err_set(s->e, ERR_USAGE, "the parameter list changed while it was saved");
    if (s->fla ? snprintf(name, 128, "%s", info->name) >= 128 : hf_name(name, 128, info->name))
        return err_set(s->e, ERR_USAGE, "parameter name \"%s\" is too long", info->name);
    *t = (Tensor){.name = name, .dtype = info->wide ? DT_F32 : s->dtype, .rank = info->rank, .count = info->n};
    memcpy(t->shape, info->shape, info->rank * sizeof *t->shape);
    t->bytes = info->n * (dtype_bits(t->dtype) / 8);
    s->info[s->n] = *info;
    s->slot[s->n++] = *slot;
    return OK;
}

/* TensorFetch: a piece of a parameter, converted on the way. */
static int fetch(void *ctx, const Tensor *t, size_t offset, void *buf, size_t bytes, Err *e) {
    const Save *s = ctx;
    size_t i = 0;
    while (i < s->n && s->tensor[i].name != t->name) i++;
    if (i == s->n) return err_set(e, ERR_USAGE, "no parameter \"%s\"", t->name);
    const size_t size = dtype_bits(t->dtype) / 8, at = offset / size, n = bytes / size;
    Backend *be = s->m->be;
    if (s->info[i].wide) return wide_get(be, t->dtype, buf, cwide_at(be, s->slot[i].ww, at), n, e);
    return real_get(be, t->dtype, buf, creal_at(be, s->slot[i].w, at), n, e);
}

/* ---- shards ---- */

/* How many tensors from `at` fit into one shard; at least one. */
static size_t shard_take(const Save *s, size_t at, size_t limit) {
    size_t n = 0, bytes = 0;
    while (at + n < s->n && (!n || bytes + s->tensor[at + n].bytes <= limit)) bytes += s->tensor[at + n++].bytes;
    return n;
}

static int shards_write(Save *s, const char *dir, size_t limit, Err *e) {
    char path[1024], name[64];
    int k = 0, shards = 0;
    for (size_t at = 0; at < s->n; at += shard_take(s, at, limit)) shards++;
    for (size_t at = 0, n; at < s->n; at += n) {
        n = shard_take(s, at, limit);
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", ++k, shards);
        TRY(file_join(path, sizeof path, dir, name, e));
        TRY(safetensors_write(path, s->tensor + at, n, NULL, fetch, s, e));
    }
    return OK;
}

static int index_write(const Save *s, const char *dir, size_t limit, Err *e) {
    char path[1024], name[64];
    int shards = 0, k = 0;
    size_t total = 0;
    JsonOut o;
    for (size_t at = 0; at < s->n; at += shard_take(s, at, limit)) shards++;
    for (size_t i = 0; i < s->n; i++) total += s->tensor[i].bytes;
    json_out_begin(&o, 1);
    json_out_object(&o, NULL);
    json_out_object(&o, "metadata");
    json_out_u64(&o, "total_size", total);
    json_out_close(&o);
    json_out_object(&o, "weight_map");
    for (size_t at = 0, n; at < s->n; at += n) {
        n = shard_take(s, at, limit);
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", ++k, shards);
        for (size_t i = at; i < at + n; i++) json_out_str(&o, s->tensor[i].name, name);
    }
    json_out_close(&o);
    json_out_close(&o);
    int rc = json_out_end(&o, e);
    if (!rc) rc = file_join(path, sizeof path, dir, "model.safetensors.index.json", e);
    if (!rc) rc = file_write_all(path, o.text, o.len, e);
    json_out_free(&o);
    return rc;
}

static int weights_write(Save *s, const char *dir, size_t shard_bytes, Err *e) {
    char path[1024];
    size_t total = 0;
    for (size_t i = 0; i < s->n; i++) total += s->tensor[i].bytes;
    if (shard_bytes && total > shard_bytes) {
        TRY(shards_write(s, dir, shard_bytes, e));
        return index_write(s, dir, shard_bytes, e);
    }
    TRY(file_join(path, sizeof path, dir, "model.safetensors", e));
    return safetensors_write(path, s->tensor, s->n, NULL, fetch, s, e);
}

/* ---- the other files ---- */

static int config_write(const Config *c, const char *dir, DType dtype, int fla, char *notes, size_t cap, Err *e) {
    char path[1024];
    JsonOut o;
    TRY(file_join(path, sizeof path, dir, "config.json", e));
    TRY(hf_config_write(&o, c, dtype, fla, notes, cap, e));
    const int rc = file_write_all(path, o.text, o.len, e);
    json_out_free(&o);
    return rc;
}

static int tokenizer_copy(const char *from, const char *dir, Err *e) {
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                                        "vocab.json", "merges.txt", "tokenizer.model", "generation_config.json"};
    char src[1024], dst[1024];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        TRY(file_join(src, sizeof src, from, files[i], e));
        TRY(file_join(dst, sizeof dst, dir, files[i], e));
        if (file_exists(src) == 1) TRY(file_copy(src, dst, e));
    }
    return OK;
}

/* ---- the directory ---- */

/* A directory may be written over when its config.json says that we wrote it. */
static int is_ours(const char *dir, int *ours, Err *e) {
    char path[1024];
    Json j = {0};
    Err why = {0};
    *ours = 0;
    TRY(file_join(path, sizeof path, dir, "config.json", e));
    const int rc = json_open(&j, path, &why);
    if (rc == ERR_MEMORY) return err_set(e, rc, "%s", why.msg);
    if (!rc) *ours = json_kind(&j, json_get(&j, 0, "hybridize")) == JSON_OBJECT;
    json_free(&j);
    return OK;
}

static int target_check(const char *dir, Err *e) {
    const int kind = file_exists(dir);
    int ours = 0;
    if (!kind) return OK;
    if (kind == 2) TRY(is_ours(dir, &ours, e));
    if (ours) return OK;
    err_set(e, ERR_USAGE, "%s: exists and is not a model written by hybridize", dir);
    return err_hint(e, "choose another output directory, or remove this one yourself");
}

static int arrays_open(Save *s, Err *e) {
    void *p[4] = {0};
    params_walk(&s->m->c, NULL, count_param, &s->cap);
    const size_t sizes[4] = {sizeof *s->tensor, sizeof *s->name, sizeof *s->info, sizeof *s->slot};
    int rc = OK;
    for (int i = 0; i < 4 && !rc; i++) rc = mem_alloc(&p[i], s->cap * sizes[i], "tensor list", e);
    s->tensor = p[0];
    s->name = p[1];
    s->info = p[2];
    s->slot = p[3];
    Params params = s->m->p; // the walk wants a Params it may write to
    if (!rc) rc = params_walk(&s->m->c, &params, list_param, s);
    return rc;
}

/* Everything into `dir`.new, then in its place. */
static int directory_write(Save *s, const char *dir, const HfSaveOptions *o, char *notes, size_t cap, Err *e) {
    char fresh[1024], old[1024];
    if (snprintf(fresh, sizeof fresh, "%s.new", dir) >= (int)sizeof fresh || snprintf(old, sizeof old, "%s.old", dir) >= (int)sizeof old)
        return err_set(e, ERR_USAGE, "output directory: the path is too long");
    TRY(file_remove_tree(fresh, e));
    TRY(file_mkdirs(fresh, e));
    int rc = config_write(&s->m->c, fresh, s->dtype, s->fla, notes, cap, e);
    if (!rc) rc = weights_write(s, fresh, o->shard_bytes, e);
    if (!rc && o->tokenizer_from) rc = tokenizer_copy(o->tokenizer_from, fresh, e);
    if (!rc && file_exists(dir)) {
        rc = file_remove_tree(old, e);
        if (!rc) rc = file_rename(dir, old, e);
    }
    if (!rc) rc = file_rename(fresh, dir, e);
    if (!rc) return file_remove_tree(old, e);
    if (!file_exists(dir) && file_exists(old)) file_rename(old, dir, NULL);
    file_remove_tree(fresh, NULL);
    return rc;
}

int hf_save(const Model *m, const char *dir, const HfSaveOptions *o, char *notes, size_t cap, Err *e) {
    char clean[1024];
    int softmax = 1;
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/') len--;
    if (!len || len >= sizeof clean) return err_set(e, ERR_USAGE, "output directory: the path is empty or too long");
    memcpy(clean, dir, len);
    clean[len] = 0;
    for (int l = 0; l < m->c.L; l++) softmax &= !m->c.mixer[l];
    Save s = {.m = m, .dtype = o->dtype, .fla = o->format ? !strcmp(o->format, "fla") : !softmax, .e = e};
    if (o->format && strcmp(o->format, "fla") && strcmp(o->format, "hf"))
        return err_set(e, ERR_USAGE, "format: got \"%s\", expected fla or hf", o->format);
    if (s.fla == softmax)
        return err_set(e, ERR_USAGE, "format: %s cannot hold a model %s", s.fla ? "fla" : "hf",
                       softmax ? "whose layers are all softmax; use hf" : "with linear layers; use fla");
    if (s.dtype != DT_F32 && s.dtype != DT_F16 && s.dtype != DT_BF16 && s.dtype != DT_F64)
        return err_set(e, ERR_USAGE, "dtype: got %s, expected F32, F16, BF16 or F64", dtype_name(s.dtype));
    TRY(target_check(clean, e));
    int rc = arrays_open(&s, e);
    if (!rc) rc = directory_write(&s, clean, o, notes, cap, e);
    mem_free(s.tensor);
    mem_free(s.name);
    mem_free(s.info);
    mem_free(s.slot);
    return rc;
}
