/* hf.c - a model directory from disk: which files, which tensors, all checked before a number is read. See hf.h. */
#include "io/hf_parts.h"
#include "io/ends.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "model/mixer.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SHARDS = 4096 };

/* ---- shards ---- */

/* One component, [A-Za-z0-9._-]+.safetensors: a name from a file never leaves the directory (ref/io/FORMATS.md 2). */
static int shard_name_ok(const char *name, size_t len) {
    static const char end[] = ".safetensors";
    const size_t tail = sizeof end - 1;
    if (len <= tail || len > 255 || strlen(name) != len || strcmp(name + len - tail, end)) return 0;
    return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len && name[0] != '.';
}

static int shard_open_one(HfModel *h, const char *name, Err *e) {
    char path[1024];
    TRY(file_join(path, sizeof path, h->dir, name, e));
    TRY(safetensors_open(&h->shard[h->n_shards], path, e));
    h->n_shards++;
    return OK;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The different shard names in weight_map, sorted; they point into j. */
static int index_names(const char ***names, int *n, const Json *j, JsonRef map, Err *e) {
    void *p;
    size_t k = 0;
    TRY(mem_alloc(&p, json_size(j, map) * sizeof **names, "shard names", e));
    *names = p;
    for (JsonRef r = json_first(j, map); r >= 0; r = json_next(j, r)) {
        size_t len = 0;
        const char *name = NULL;
        TRY(json_want_str(j, r, json_key(j, r, NULL), &name, &len, e));
        if (!shard_name_ok(name, len)) {
            err_set(e, ERR_INPUT, "%s: weight_map: \"%s\": got shard \"%s\", expected a plain NAME.safetensors",
                    j->file, json_key(j, r, NULL), name);
            return err_hint(e, "shards must lie in the model directory itself");
        }
        (*names)[k++] = name;
    }
    qsort(*names, k, sizeof **names, by_text);
    size_t kept = 0;
    for (size_t i = 0; i < k; i++)
        if (!i || strcmp((*names)[i], (*names)[i - 1])) (*names)[kept++] = (*names)[i];
    if (!kept || kept > MAX_SHARDS)
        return err_set(e, ERR_INPUT, "%s: weight_map: got %zu shards, expected 1 to %d", j->file, kept, MAX_SHARDS);
    *n = (int)kept;
    return OK;
}

/* Every entry is in the shard it names, and every tensor of every shard is an entry that names this shard. */
static int index_check(const HfModel *h, const Json *j, JsonRef map, Err *e) {
    size_t total = 0;
    for (int s = 0; s < h->n_shards; s++) {
        const Safetensors *st = &h->shard[s];
        total += st->n;
        for (size_t i = 0; i < st->n; i++) {
            const char *to = json_str(j, json_get(j, map, st->tensor[i].name), NULL);
            if (!to || strcmp(to, base_name(st->path)))
                return err_set(e, ERR_INPUT,
                               "%s: tensor \"%s\" is not listed for this shard in model.safetensors.index.json (%s%s)",
                               st->path, st->tensor[i].name, to ? "it names " : "it is missing", to ? to : "");
        }
    }
    if (total == json_size(j, map)) return OK;
    for (JsonRef r = json_first(j, map); r >= 0; r = json_next(j, r)) {
        int found = 0;
        for (int s = 0; s < h->n_shards && !found; s++)
            found = safetensors_find(&h->shard[s], json_key(j, r, NULL)) != NULL;
        if (!found)
            return err_set(e, ERR_INPUT, "%s: weight_map: tensor \"%s\" is not in %s", j->file, json_key(j, r, NULL),
                           json_str(j, r, NULL));
    }
    return err_set(e, ERR_INPUT, "%s: weight_map: %zu entries, but the shards hold %zu tensors", j->file,
                   json_size(j, map), total);
}

/* Room for n of them. */
static int shards_alloc(HfModel *h, int n, Err *e) {
    void *p;
    TRY(mem_alloc(&p, (size_t)n * sizeof *h->shard, "shards", e));
    h->shard = p;
    return OK;
}

static int index_open(HfModel *h, const Json *j, Err *e) {
    const JsonRef map = json_get(j, 0, "weight_map");
    const char **names = NULL;
    int n = 0;
    if (json_kind(j, 0) != JSON_OBJECT || json_kind(j, map) != JSON_OBJECT)
        return err_set(e, ERR_INPUT, "%s: weight_map: missing or not an object", j->file);
    int rc = index_names(&names, &n, j, map, e);
    if (!rc) rc = hf_shards_there(h->dir, j->file, names, n, e);
    if (!rc) rc = shards_alloc(h, n, e);
    for (int i = 0; !rc && i < n; i++) rc = shard_open_one(h, names[i], e);
    mem_free(names);
    return rc ? rc : index_check(h, j, map, e);
}

static int shards_open(HfModel *h, Err *e) {
    char path[1024];
    Json j = {0};
    TRY(file_join(path, sizeof path, h->dir, "model.safetensors", e));
    if (file_exists(path) == 1) { // as transformers: the single file goes before the index
        TRY(shards_alloc(h, 1, e));
        return shard_open_one(h, "model.safetensors", e);
    }
    TRY(file_join(path, sizeof path, h->dir, "model.safetensors.index.json", e));
    if (file_exists(path) != 1) return hf_no_weights(h->dir, e);
    TRY(json_open(&j, path, e));
    const int rc = index_open(h, &j, e);
    json_free(&j);
    return rc;
}

/* ---- tensors ---- */

static const Tensor *find(const HfModel *h, const char *name) {
    for (int s = 0; s < h->n_shards; s++) {
        const Tensor *t = safetensors_find(&h->shard[s], name);
        if (t) return t;
    }
    return NULL;
}

const Tensor *hf_tensor(const HfModel *h, const char *fla_name) {
    char name[256];
    if (!h->fla && hf_name(name, sizeof name, fla_name)) return NULL;
    const Tensor *t = find(h, h->fla ? fla_name : name);
    // Tied and stored only once, under the other name.
    if (!t && h->config.tied && !strcmp(fla_name, "model.embeddings.weight")) t = find(h, "lm_head.weight");
    return t;
}

static int is_float(DType t) { return t == DT_F32 || t == DT_BF16 || t == DT_F16 || t == DT_F64; }

static void shape_text(char *out, size_t cap, const size_t *shape, int rank) {
    TextBuf b = {0};
    for (int i = 0; i < rank; i++) textbuf_printf(&b, "%s%zu", i ? "," : "", shape[i]);
    snprintf(out, cap, "[%s]", b.text ? b.text : "");
    textbuf_free(&b);
}

static const char *file_of(const HfModel *h, const Tensor *t) {
    for (int s = 0; s < h->n_shards; s++)
        if (t >= h->shard[s].tensor && t < h->shard[s].tensor + h->shard[s].n) return h->shard[s].path;
    return h->dir;
}

typedef struct {
    const HfModel *h;
    unsigned char *used; /* per tensor of all shards: it is a parameter */
    Err *e;
} Check;

/* Position of t in the concatenation of all shards' tensors. */
static size_t tensor_index(const HfModel *h, const Tensor *t) {
    size_t before = 0;
    for (int s = 0; s < h->n_shards; before += h->shard[s++].n)
        if (t >= h->shard[s].tensor && t < h->shard[s].tensor + h->shard[s].n) return before + (t - h->shard[s].tensor);
    return 0;
}

static int check_param(void *ctx, const ParamInfo *info, Param *slot) {
    (void)slot;
    Check *k = ctx;
    const Tensor *t = hf_tensor(k->h, info->name);
    char name[256], found[128], wanted[128];
    if (k->h->fla || hf_name(name, sizeof name, info->name)) snprintf(name, sizeof name, "%s", info->name);
    if (!t) return hf_no_tensor(k->h, name, k->e);
    k->used[tensor_index(k->h, t)] = 1;
    if (!is_float(t->dtype))
        return err_set(k->e, ERR_INPUT, "%s: tensor \"%s\": got %s, expected F32, F16, BF16 or F64", file_of(k->h, t),
                       t->name, dtype_name(t->dtype));
    if (t->rank == info->rank && !memcmp(t->shape, info->shape, info->rank * sizeof *t->shape)) return OK;
    shape_text(found, sizeof found, t->shape, t->rank);
    shape_text(wanted, sizeof wanted, info->shape, info->rank);
    err_set(k->e, ERR_INPUT, "%s: tensor \"%s\": got shape %s, expected %s by config.json", file_of(k->h, t), t->name,
            found, wanted);
    return err_hint(k->e, "is this the right config.json for these weights?");
}

/* A tensor that is no parameter: harmless, or a reason to stop. */
static int check_extra(const HfModel *h, const Tensor *t, Err *e) {
    if (text_ends(t->name, "rotary_emb.inv_freq")) return OK;
    if (h->config.tied && !strcmp(t->name, "lm_head.weight")) {
        const Tensor *embed = hf_tensor(h, "model.embeddings.weight");
        if (embed && embed->bytes == t->bytes && embed->dtype == t->dtype && !memcmp(embed->data, t->data, t->bytes))
            return OK;
        err_set(e, ERR_INPUT, "%s: tensor \"lm_head.weight\" differs from the embedding, but config.json ties them",
                file_of(h, t));
        return err_hint(e, "set tie_word_embeddings to false if the head is a matrix of its own");
    }
    err_set(e, ERR_INPUT, "%s: tensor \"%s\" is not a parameter of this %s model", file_of(h, t), t->name,
            h->config.family);
    return err_hint(e, "is this the right config.json for these weights?");
}

static int tensors_check(const HfModel *h, Err *e) {
    size_t have = 0, at = 0;
    for (int s = 0; s < h->n_shards; s++) have += h->shard[s].n;
    void *used;
    TRY(mem_alloc(&used, have, "tensor marks", e));
    Check k = {h, used, e};
    int rc = params_walk(&h->config, NULL, check_param, &k);
    for (int s = 0; s < h->n_shards; s++)
        for (size_t i = 0; i < h->shard[s].n && !rc; i++)
            if (!k.used[at++]) rc = check_extra(h, &h->shard[s].tensor[i], e);
    mem_free(used);
    return rc;
}

/* ---- the public part ---- */

static int config_open(HfModel *h, Err *e) {
    char path[1024];
    Json j = {0};
    TRY(file_join(path, sizeof path, h->dir, "config.json", e));
    if (!file_exists(path)) return hf_no_config(h->dir, e);
    TRY(json_open(&j, path, e));
    int rc = hf_config_parse(&h->config, &h->fla, &j, e);
    if (!rc) rc = ends_add(&h->config, &j, h->dir, e);
    if (!rc) rc = config_check(&h->config, path, e);
    json_free(&j);
    return rc;
}

int hf_open(HfModel *h, const char *dir, Err *e) {
    memset(h, 0, sizeof *h);
    if (strlen(dir) >= sizeof h->dir)
        return err_set(e, ERR_USAGE, "model directory: the path is longer than %zu bytes", sizeof h->dir);
    snprintf(h->dir, sizeof h->dir, "%s", dir);
    int rc = hf_directory(dir, e);
    if (!rc) rc = config_open(h, e);
    if (!rc) rc = shards_open(h, e);
    if (!rc) rc = tensors_check(h, e);
    if (rc) hf_close(h);
    return rc;
}

int hf_index_open(HfModel *h, const char *path, Err *e) {
    Json j = {0};
    memset(h, 0, sizeof *h);
    const char *name = base_name(path);
    if (strlen(path) >= sizeof h->dir) return err_set(e, ERR_USAGE, "%.200s...: path too long", path);
    snprintf(h->dir, sizeof h->dir, "%.*s", name > path + 1 ? (int)(name - path - 1) : 1, name == path ? "." : path);
    int rc = json_open(&j, path, e);
    if (!rc) rc = index_open(h, &j, e);
    json_free(&j);
    if (rc) hf_close(h);
    return rc;
}

void hf_close(HfModel *h) {
    for (int i = 0; i < h->n_shards; i++) safetensors_close(&h->shard[i]);
    mem_free(h->shard);
    memset(h, 0, sizeof *h);
}

int tensor_check_finite(const Tensor *t, const char *file, Err *e) {
    double block[512];
    const size_t size = dtype_bits(t->dtype) / 8;
    if (!is_float(t->dtype)) return OK;
    for (size_t at = 0; at < t->count; at += 512) {
        const size_t n = t->count - at < 512 ? t->count - at : 512;
        dtype_convert(DT_F64, block, t->dtype, t->data + at * size, n);
        for (size_t i = 0; i < n; i++)
            if (!isfinite(block[i]))
                return err_set(e, ERR_NUMERIC, "%s: tensor \"%s\": element %zu is %s, expected finite numbers", file,
                               t->name, at + i, isnan(block[i]) ? "NaN" : "infinite");
    }
    return OK;
}

int tensor_piece_finite(const Tensor *t, size_t offset, const void *buf, size_t bytes, const char *file, Err *e) {
    const size_t size = (size_t)dtype_bits(t->dtype) / 8;
    double block[512];
    if (!is_float(t->dtype)) return OK;
    for (size_t at = 0, n = bytes / size; at < n; at += 512) {
        const size_t k = n - at < 512 ? n - at : 512;
        dtype_convert(DT_F64, block, t->dtype, (const char *)buf + at * size, k);
        for (size_t i = 0; i < k; i++) {
            if (isfinite(block[i])) continue;
            err_set(e, ERR_NUMERIC, "%s: tensor \"%s\": element %zu would be %s in %s", file, t->name,
                    offset / size + at + i, isnan(block[i]) ? "NaN" : "infinite", dtype_name(t->dtype));
            return t->dtype == DT_F16 ? err_hint(e, "F16 ends at 65504: save as bfloat16 or float32") : ERR_NUMERIC;
        }
    }
    return OK;
}

static int tensor_range(const Tensor *t, const char *file, DType to, Err *e) {
    double block[512];
    float narrow[512];
    const size_t size = (size_t)dtype_bits(t->dtype) / 8, out = (size_t)dtype_bits(to) / 8;
    const Tensor as = {.name = t->name, .dtype = to};
    if (!is_float(t->dtype) || t->dtype == to || text_ends(t->name, "A_log") || text_ends(t->name, "dt_bias"))
        return OK;
    for (size_t at = 0; at < t->count; at += 512) {
        const size_t n = t->count - at < 512 ? t->count - at : 512;
        dtype_convert(DT_F64, block, t->dtype, t->data + at * size, n);
        dtype_convert(to, narrow, DT_F64, block, n);
        TRY(tensor_piece_finite(&as, at * out, narrow, n * out, file, e));
    }
    return OK;
}

int hf_range_check(const char *dir, DType to, Err *e) {
    HfModel h;
    int rc = OK;
    if (to != DT_F16) return OK; // the others hold what F32 holds
    TRY(hf_open(&h, dir, e));
    for (int s = 0; s < h.n_shards; s++)
        for (size_t i = 0; i < h.shard[s].n && !rc; i++)
            rc = tensor_range(&h.shard[s].tensor[i], h.shard[s].path, to, e);
    hf_close(&h);
    return rc;
}

typedef struct {
    const HfModel *h;
    Backend *be;
    int finite;
    Err *e;
} Load;
static int load_param(void *ctx, const ParamInfo *info, Param *slot) {
    const Load *l = ctx;
    const Tensor *t = hf_tensor(l->h, info->name);
    if (!t || t->count != info->n)
        return err_set(l->e, ERR_INPUT, "%s: tensor \"%s\" is missing", l->h->dir, info->name);
    if (l->finite) TRY(tensor_check_finite(t, file_of(l->h, t), l->e));
    return param_put(l->be, info, slot, t->dtype, t->data, l->e);
}

int hf_load(const HfModel *h, Model *m, int check_finite, Err *e) {
    Load l = {h, m->be, check_finite, e};
    return params_walk(&m->c, &m->p, load_param, &l);
}

int hf_load_model(Model *m, const char *dir, Backend *be, GradKind grad, Err *e) {
    HfModel h;
    memset(m, 0, sizeof *m);
    TRY(hf_open(&h, dir, e));
    int rc = model_open(m, &h.config, be, grad, e);
    if (!rc) rc = hf_load(&h, m, 1, e);
    hf_close(&h);
    if (rc) model_close(m);
    return rc;
}
