/* hf_dir.c - a model directory to disk: config.json, safetensors (one file, or shards and an index), tokenizer and
 * other files, all into a temporary directory that is renamed at the end. What goes in is the caller's:
 * hf_save.c and export.c. */
#include "io/hf_parts.h"
#include "io/chat.h"
#include "base/file.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>

/* ---- shards ---- */

/* How many tensors from `at` fit into one shard; at least one. */
static size_t shard_take(const HfDir *d, size_t at, size_t limit) {
    size_t n = 0, bytes = 0;
    while (at + n < d->n && (!n || bytes + d->tensor[at + n].bytes <= limit)) bytes += d->tensor[at + n++].bytes;
    return n;
}

typedef struct {
    const HfDir *d;
    const char *dir;
} Source;
static int fetch_finite(void *ctx, const Tensor *t, size_t offset, void *buf, size_t bytes, Err *e) {
    const Source *s = ctx;
    TRY(s->d->fetch(s->d->ctx, t, offset, buf, bytes, e));
    return tensor_piece_finite(t, offset, buf, bytes, s->dir, e);
}

static int shards_write(const HfDir *d, const char *dir, Err *e) {
    char path[1024], name[64];
    int k = 0, shards = 0;
    for (size_t at = 0; at < d->n; at += shard_take(d, at, d->shard_bytes)) shards++;
    for (size_t at = 0, n; at < d->n; at += n) {
        n = shard_take(d, at, d->shard_bytes);
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", ++k, shards);
        TRY(file_join(path, sizeof path, dir, name, e));
        TRY(safetensors_write(path, d->tensor + at, n, NULL, fetch_finite, &(Source){d, path}, e));
    }
    return OK;
}

static int index_write(const HfDir *d, const char *dir, Err *e) {
    char path[1024], name[64];
    int shards = 0, k = 0;
    size_t total = 0;
    JsonOut o;
    for (size_t at = 0; at < d->n; at += shard_take(d, at, d->shard_bytes)) shards++;
    for (size_t i = 0; i < d->n; i++) total += d->tensor[i].bytes;
    json_out_begin(&o, 1);
    json_out_object(&o, NULL);
    json_out_object(&o, "metadata");
    json_out_u64(&o, "total_size", total);
    json_out_close(&o);
    json_out_object(&o, "weight_map");
    for (size_t at = 0, n; at < d->n; at += n) {
        n = shard_take(d, at, d->shard_bytes);
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", ++k, shards);
        for (size_t i = at; i < at + n; i++) json_out_str(&o, d->tensor[i].name, name);
    }
    json_out_close(&o);
    json_out_close(&o);
    int rc = json_out_end(&o, e);
    if (!rc) rc = file_join(path, sizeof path, dir, "model.safetensors.index.json", e);
    if (!rc) rc = file_write_all(path, o.text, o.len, e);
    json_out_free(&o);
    return rc;
}

static int weights_write(const HfDir *d, const char *dir, Err *e) {
    char path[1024];
    size_t total = 0;
    for (size_t i = 0; i < d->n; i++) total += d->tensor[i].bytes;
    if (d->shard_bytes && total > d->shard_bytes) {
        TRY(shards_write(d, dir, e));
        return index_write(d, dir, e);
    }
    TRY(file_join(path, sizeof path, dir, "model.safetensors", e));
    return safetensors_write(path, d->tensor, d->n, NULL, fetch_finite, &(Source){d, path}, e);
}

/* ---- the other files ---- */

static int tokenizer_copy(const char *from, const char *dir, Err *e) {
    static const char *const files[] = {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
        "merges.txt",     "tokenizer.model",       "generation_config.json"};
    char src[1024], dst[1024];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        TRY(file_join(src, sizeof src, from, files[i], e));
        TRY(file_join(dst, sizeof dst, dir, files[i], e));
        if (file_exists(src) == 1) TRY(file_copy(src, dst, e));
    }
    return chat_copy(from, dir, e);
}

static int files_write(const HfDir *d, const char *dir, Err *e) {
    char path[1024];
    TRY(file_join(path, sizeof path, dir, "config.json", e));
    TRY(file_write_all(path, d->config, d->config_len, e));
    if (d->tokenizer_from) TRY(tokenizer_copy(d->tokenizer_from, dir, e));
    for (size_t i = 0; i < d->n_files; i++) {
        TRY(file_join(path, sizeof path, dir, d->file[i].name, e));
        TRY(file_write_all(path, d->file[i].text, d->file[i].len, e));
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

/* Everything into `dir`.new, then in its place. */
static int directory_write(const HfDir *d, const char *dir, Err *e) {
    char fresh[1024], old[1024];
    if (snprintf(fresh, sizeof fresh, "%s.new", dir) >= (int)sizeof fresh ||
        snprintf(old, sizeof old, "%s.old", dir) >= (int)sizeof old)
        return err_set(e, ERR_USAGE, "output directory: the path is too long");
    TRY(file_remove_tree(fresh, e));
    TRY(file_mkdirs(fresh, e));
    int rc = weights_write(d, fresh, e);
    if (!rc) rc = files_write(d, fresh, e);
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

int hf_dir_write(const char *dir, const HfDir *d, Err *e) {
    char clean[1024];
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/') len--;
    if (!len || len >= sizeof clean) return err_set(e, ERR_USAGE, "output directory: the path is empty or too long");
    memcpy(clean, dir, len);
    clean[len] = 0;
    TRY(target_check(clean, e));
    return directory_write(d, clean, e);
}
