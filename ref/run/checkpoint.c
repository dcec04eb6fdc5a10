/* checkpoint.c - write and read a training state. See checkpoint.h. */
#include "run/checkpoint.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/json.h"
#include "io/safetensors.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const FILES[2] = {"weights.safetensors", "optim.safetensors"};

/* ---------------------------------------------------------------- fingerprints */

uint64_t fingerprint_bytes(uint64_t h, const void *data, size_t n) {
    const unsigned char *p = data;
    if (!h) h = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * UINT64_C(1099511628211);
    return h;
}
uint64_t fingerprint_text(uint64_t h, const char *s) { return fingerprint_bytes(h, s, strlen(s) + 1); }
int backend_same(const char *a, const char *b) {
    const size_t n = strcspn(a, ":");
    return n == strcspn(b, ":") && !memcmp(a, b, n);
}
uint64_t fingerprint_backend(uint64_t h, const char *name) {
    return backend_same(name, "cpu") ? h : fingerprint_bytes(h, name, strcspn(name, ":"));
}
uint64_t fingerprint_real(uint64_t h, double v) {
    char text[40]; // as text, so that the value counts and not its bytes
    snprintf(text, sizeof text, "%.17g", v);
    return fingerprint_text(h, text);
}

/* ---------------------------------------------------------------- what is in the two tensor files */

/* Each tensor's `data` is its place on the device; name and place are made by the walks below. */
typedef struct {
    Tensor *t;
    size_t n, cap;
    const Optim *o;
    Err *e;
} TensorList;

static void tensors_free(TensorList *list) {
    for (size_t i = 0; i < list->n; i++) mem_free((char *)(uintptr_t)list->t[i].name);
    mem_free(list->t);
}

static int tensors_add(TensorList *list, const char *prefix, const ParamInfo *info, DType type, const void *device) {
    if (list->n == list->cap) {
        const size_t cap = list->cap ? 2 * list->cap : 64;
        void *t = list->t;
        TRY(mem_grow(&t, list->cap * sizeof(Tensor), cap * sizeof(Tensor), "tensor list", list->e));
        list->t = t;
        list->cap = cap;
    }
    char name[200], *copy;
    const int len = snprintf(name, sizeof name, "%s%s", prefix, info->name);
    TRY(mem_strndup(&copy, name, (size_t)len, list->e));
    Tensor *t = &list->t[list->n++];
    *t = (Tensor){.name = copy, .dtype = type, .rank = info->rank, .count = info->n, .data = device};
    t->bytes = info->n * (size_t)dtype_bits(type) / 8;
    for (int i = 0; i < info->rank; i++) t->shape[i] = info->shape[i];
    return OK;
}

static int weights_visit(void *ctx, const ParamInfo *info, Param *slot) {
    TensorList *list = ctx;
    const Backend *be = list->o->m->be;
    return tensors_add(list, "", info, info->wide ? be->wide_type : be->real_type, slot->w);
}

static int optim_visit(void *ctx, const ParamInfo *info, Param *slot, size_t at) {
    TensorList *list = ctx;
    const Optim *o = list->o;
    const Backend *be = o->m->be;
    (void)slot;
    TRY(tensors_add(list, "m.", info, be->wide_type, wide_at(be, o->m1, at)));
    TRY(tensors_add(list, "v.", info, be->wide_type, wide_at(be, o->m2, at)));
    if (!optim_has_master(o, info)) return OK;
    return tensors_add(list, "master.", info, be->wide_type, wide_at(be, o->master, at));
}

static int tensors_list(TensorList *list, const Optim *o, int file, Err *e) {
    *list = (TensorList){.o = o, .e = e};
    return file == 0 ? params_walk(&o->m->c, &o->m->p, weights_visit, list) : optim_walk(o, optim_visit, list);
}

/* What a rank has of a tensor of the optimiser's file: bytes from *from on, *count of them, at t->data. */
static void tensor_part(const Optim *o, const Tensor *t, int q, size_t *from, size_t *count) {
    const size_t size = t->bytes / (t->count ? t->count : 1);
    optim_part(o, t->count, q, from, count);
    *from *= size;
    *count *= size;
}

static int weights_fetch(void *ctx, const Tensor *t, size_t offset, void *buf, size_t bytes, Err *e) {
    const Optim *o = ctx;
    Backend *be = o->m->be;
    (void)e;
    if (ranks_first(be->ranks)) be->download(be, buf, t->data + offset, bytes);
    return OK;
}

/* A piece of a tensor, every rank's part of it brought to rank 0. All ranks ask for the same pieces. */
static int optim_fetch(void *ctx, const Tensor *t, size_t offset, void *buf, size_t bytes, Err *e) {
    const Optim *o = ctx;
    Backend *be = o->m->be;
    Ranks *r = be->ranks;
    RankPart out[RANKS_MOST] = {0}, in[RANKS_MOST] = {0};
    for (int q = 0; q < ranks_count(r); q++) {
        size_t from, count;
        tensor_part(o, t, q, &from, &count);
        const size_t lo = from > offset ? from : offset,
                     end = from + count < offset + bytes ? from + count : offset + bytes;
        const RankPart part = {(char *)buf + (lo - offset), end > lo ? end - lo : 0};
        if (q != ranks_index(r)) in[q] = part;
        else if (part.bytes) be->download(be, part.data, t->data + (lo - from), part.bytes);
        if (q == ranks_index(r)) out[0] = part;
    }
    if (ranks_first(r)) out[0].bytes = 0;
    else memset(in, 0, sizeof in);
    return ranks_swap(r, out, in, e);
}
static const TensorFetch FETCH[2] = {weights_fetch, optim_fetch};

/* ---------------------------------------------------------------- names */

static int checkpoint_name(char *dst, size_t cap, const char *dir, int64_t step, const char *suffix, Err *e) {
    char name[64];
    snprintf(name, sizeof name, "ckpt-%08lld%s", (long long)step, suffix);
    return file_join(dst, cap, dir, name, e);
}

/* Step of a finished directory's name, -1 for anything else, -2 for what a crashed writer left. */
static int64_t name_step(const char *name) {
    if (strncmp(name, "ckpt-", 5)) return -1;
    char *end;
    const long long step = strtoll(name + 5, &end, 10);
    if (end == name + 5 || step < 0) return -1;
    if (!strcmp(end, ".tmp") || !strcmp(end, ".old")) return -2;
    return *end ? -1 : step;
}

/* Steps of all finished directories, ascending; removes leftovers when told to. *steps is freed with mem_free. */
static int checkpoint_steps(int64_t **steps, size_t *n, const char *dir, int clean, Err *e) {
    char **names, path[1200];
    size_t count;
    *steps = NULL;
    *n = 0;
    if (file_exists(dir) != 2) return OK;
    TRY(file_list(&names, &count, dir, e));
    void *mem = NULL;
    int rc = mem_alloc(&mem, count * sizeof(int64_t), "checkpoint list", e);
    *steps = mem;
    for (size_t i = 0; i < count && !rc; i++) { // names are sorted and steps have a fixed width: ascending
        const int64_t step = name_step(names[i]);
        if (step >= 0) (*steps)[(*n)++] = step;
        else if (step == -2 && clean && !(rc = file_join(path, sizeof path, dir, names[i], e)))
            rc = file_remove_tree(path, e);
    }
    file_list_free(names, count);
    if (rc) mem_free(*steps), *steps = NULL, *n = 0;
    return rc;
}

int64_t checkpoint_newest(const char *dir) {
    int64_t *steps, newest = -1;
    size_t n;
    Err e = {0};
    if (!checkpoint_steps(&steps, &n, dir, 0, &e) && n) newest = steps[n - 1];
    mem_free(steps);
    return newest;
}

/* ---------------------------------------------------------------- writing */

static int file_measure(const char *path, uint64_t *size, uint32_t *crc, Err *e) {
    File f;
    TRY(file_open(&f, path, e));
    *size = f.size;
    *crc = file_crc32c(0, f.data, f.size);
    file_close(&f);
    return OK;
}

static void state_out(JsonOut *j, const CheckpointState *s, const uint64_t *size, const uint32_t *crc) {
    json_out_begin(j, 1);
    json_out_object(j, NULL);
    json_out_int(j, "version", 2);
    json_out_str(j, "stage", s->stage);
    json_out_str(j, "run", s->run);
    json_out_int(j, "step", s->step);
    json_out_int(j, "updates", s->updates);
    json_out_int(j, "skipped", s->skipped);
    json_out_int(j, "tokens", s->tokens);
    json_out_real(j, "seconds", s->seconds);
    json_out_u64(j, "fingerprint", s->fingerprint);
    json_out_real(j, "loss_sum", s->loss_sum);
    json_out_int(j, "loss_count", s->loss_count);
    json_out_array(j, "extra");
    for (int i = 0; i < s->n_extra; i++) json_out_real(j, NULL, s->extra[i]);
    json_out_close(j);
    json_out_object(j, "files");
    for (int i = 0; i < 2; i++) {
        json_out_object(j, FILES[i]);
        json_out_u64(j, "size", size[i]);
        json_out_u64(j, "crc32c", crc[i]);
        json_out_close(j);
    }
    json_out_close(j);
    json_out_close(j);
}

/* state.json vouches for the two other files, and its last line for itself: the CRC-32C of every byte before that line.
 * */
static void state_tail(char *dst, size_t cap, const char *text, size_t len) {
    snprintf(dst, cap, ",\n  \"crc32c\": %u\n}\n", file_crc32c(0, text, len));
}

static int state_write(const char *path, const char *text, size_t len, Err *e) {
    char tail[64];
    FileWriter w;
    len -= strlen("\n}\n"); // the object's own end: the tail has it
    state_tail(tail, sizeof tail, text, len);
    TRY(file_create(&w, path, e));
    int rc = file_write(&w, text, len, e);
    if (!rc) rc = file_write(&w, tail, strlen(tail), e);
    if (!rc) return file_commit(&w, e);
    file_abort(&w);
    return rc;
}

static int checkpoint_write(const char *tmp, const Optim *o, const CheckpointState *s, Err *e) {
    uint64_t size[2];
    uint32_t crc[2];
    char path[1200];
    TRY(file_mkdirs(tmp, e));
    for (int i = 0; i < 2; i++) {
        TensorList list;
        int rc = tensors_list(&list, o, i, e);
        if (!rc) rc = file_join(path, sizeof path, tmp, FILES[i], e);
        if (!rc) rc = safetensors_write(path, list.t, list.n, NULL, FETCH[i], (void *)(uintptr_t)o, e);
        tensors_free(&list);
        if (rc) return rc;
        if (!ranks_first(o->m->be->ranks)) continue; // it writes nothing
        TRY(file_measure(path, &size[i], &crc[i], e));
    }
    if (!ranks_first(o->m->be->ranks)) return OK;
    JsonOut j;
    state_out(&j, s, size, crc);
    int rc = json_out_end(&j, e);
    if (!rc) rc = file_join(path, sizeof path, tmp, "state.json", e);
    if (!rc) rc = state_write(path, j.text, j.len, e);
    json_out_free(&j);
    return rc ? rc : file_sync_dir(tmp, e);
}

/* Out of the way first, so that a crash in the middle of deleting does not look like a checkpoint. */
static int checkpoint_retire(const char *dir, int64_t step, Err *e) {
    char from[1200], to[1200];
    TRY(checkpoint_name(from, sizeof from, dir, step, "", e));
    TRY(checkpoint_name(to, sizeof to, dir, step, ".old", e));
    TRY(file_remove_tree(to, e));
    TRY(file_rename(from, to, e));
    return file_remove_tree(to, e);
}

/* Keeps the `keep` newest up to `step`; anything beyond it was found torn, or belongs to a run that was taken back. */
static int checkpoint_prune(const char *dir, int64_t step, int keep, Err *e) {
    int64_t *steps;
    size_t n, last = 0;
    TRY(checkpoint_steps(&steps, &n, dir, 0, e));
    while (last < n && steps[last] <= step) last++;
    int rc = OK;
    for (size_t i = 0; i < n && !rc; i++)
        if (i >= last || i + (size_t)(keep < 1 ? 1 : keep) < last) rc = checkpoint_retire(dir, steps[i], e);
    mem_free(steps);
    return rc;
}

/* What was begun in tmp, file by file: it must also go when there is no memory for a listing. */
static void checkpoint_drop(const char *tmp) {
    static const char *const names[] = {"weights.safetensors", "optim.safetensors", "state.json"};
    char path[1300];
    for (int i = 0; i < 3; i++)
        if (!file_join(path, sizeof path, tmp, names[i], NULL)) file_remove(path, NULL);
    file_remove_dir(tmp, NULL);
}

int checkpoint_save(const char *dir, const Optim *o, const CheckpointState *s, int keep, Err *e) {
    char tmp[1200], final[1200];
    TRY(checkpoint_name(tmp, sizeof tmp, dir, s->step, ".tmp", e));
    TRY(checkpoint_name(final, sizeof final, dir, s->step, "", e));
    TRY(file_mkdirs(dir, e));
    TRY(file_remove_tree(tmp, e));
    int rc = checkpoint_write(tmp, o, s, e);
    if (!ranks_first(o->m->be->ranks)) return rc;
    if (!rc && file_exists(final)) rc = checkpoint_retire(dir, s->step, e);
    if (!rc) rc = file_rename(tmp, final, e);
    if (rc) {
        checkpoint_drop(tmp);
        return rc;
    }
    return checkpoint_prune(dir, s->step, keep, e);
}

/* ---------------------------------------------------------------- reading */

static int state_text(const Json *j, JsonRef r, const char *key, char *dst, size_t cap, Err *e) {
    const char *s;
    size_t n;
    TRY(json_want_str(j, json_get(j, r, key), key, &s, &n, e));
    if (n >= cap) return err_set(e, ERR_INPUT, "%s: %s: longer than %zu bytes", j->file, key, cap - 1);
    memcpy(dst, s, n + 1);
    return OK;
}

static int state_extra(const Json *j, CheckpointState *s, Err *e) {
    const JsonRef a = json_get(j, 0, "extra");
    if (json_size(j, a) != (size_t)s->n_extra)
        return err_set(e, ERR_INPUT, "%s: extra: got %zu numbers, expected %d", j->file, json_size(j, a), s->n_extra);
    int i = 0;
    for (JsonRef r = json_first(j, a); r >= 0; r = json_next(j, r), i++) {
        if (json_kind(j, r) == JSON_NULL) s->extra[i] = NAN;
        else TRY(json_want_real(j, r, "extra", &s->extra[i], e));
    }
    return OK;
}

/* want_extra: a caller that only wants the weights does not know how much a task keeps. */
static int state_read(const Json *j, CheckpointState *s, int want_extra, Err *e) {
    const int64_t most = INT64_MAX;
    int64_t version;
    TRY(json_want_int(j, json_get(j, 0, "version"), "version", 2, 2, &version, e));
    TRY(state_text(j, 0, "stage", s->stage, sizeof s->stage, e));
    TRY(state_text(j, 0, "run", s->run, sizeof s->run, e));
    TRY(json_want_int(j, json_get(j, 0, "step"), "step", 0, most, &s->step, e));
    TRY(json_want_int(j, json_get(j, 0, "updates"), "updates", 0, most, &s->updates, e));
    TRY(json_want_int(j, json_get(j, 0, "skipped"), "skipped", 0, most, &s->skipped, e));
    TRY(json_want_int(j, json_get(j, 0, "tokens"), "tokens", 0, most, &s->tokens, e));
    TRY(json_want_real(j, json_get(j, 0, "seconds"), "seconds", &s->seconds, e));
    TRY(json_want_u64(j, json_get(j, 0, "fingerprint"), "fingerprint", &s->fingerprint, e));
    TRY(json_want_real(j, json_get(j, 0, "loss_sum"), "loss_sum", &s->loss_sum, e));
    TRY(json_want_int(j, json_get(j, 0, "loss_count"), "loss_count", 0, most, &s->loss_count, e));
    return want_extra ? state_extra(j, s, e) : OK;
}

/* state.json, if it ends with its own checksum. */
static int state_parse(Json *j, const char *text, size_t n, const char *path, Err *e) {
    char tail[64];
    size_t at = n;
    memset(j, 0, sizeof *j);
    while (at && text[at - 1] != ',') at--;
    at -= at > 0; // the last comma begins the last line
    state_tail(tail, sizeof tail, text, at);
    if (n - at != strlen(tail) || memcmp(text + at, tail, n - at))
        return err_set(e, ERR_INPUT, "%s: the checksum in its last line is not that of its text", path);
    return json_parse(j, text, n, path, e);
}

/* Size and CRC-32C of the tensor files against state.json. */
static int files_verify(const Json *j, const char *path, Err *e) {
    for (int i = 0; i < 2; i++) {
        const JsonRef r = json_get(j, json_get(j, 0, "files"), FILES[i]);
        uint64_t want_size, want_crc, size;
        uint32_t crc;
        char file[1300];
        TRY(json_want_u64(j, json_get(j, r, "size"), "files.size", &want_size, e));
        TRY(json_want_u64(j, json_get(j, r, "crc32c"), "files.crc32c", &want_crc, e));
        TRY(file_join(file, sizeof file, path, FILES[i], e));
        TRY(file_measure(file, &size, &crc, e));
        if (size != want_size)
            return err_set(e, ERR_INPUT, "%s: got %llu bytes, state.json says %llu", file, (unsigned long long)size,
                           (unsigned long long)want_size);
        if (crc != want_crc)
            return err_set(e, ERR_INPUT, "%s: got CRC-32C %08x, state.json says %08llx", file, crc,
                           (unsigned long long)want_crc);
    }
    return OK;
}

/* One tensor of a file into its place: rank 0 has it, others get what they hold of it. */
static int tensor_load(const Optim *o, int file, const Tensor *w, const unsigned char *data, Err *e) {
    Backend *be = o->m->be;
    Ranks *r = be->ranks;
    RankPart out[RANKS_MOST] = {0}, in[RANKS_MOST] = {0};
    size_t from = 0, count = w->bytes;
    void *mem = NULL, *place = (void *)(uintptr_t)w->data;
    if (file) tensor_part(o, w, ranks_index(r), &from, &count);
    if (ranks_first(r)) {
        be->upload(be, place, data + from, count);
        for (int q = 1; q < ranks_count(r); q++) {
            if (file) tensor_part(o, w, q, &from, &count);
            out[q] = (RankPart){(char *)(uintptr_t)data + from, count};
        }
        return ranks_swap(r, out, in, e);
    }
    TRY(mem_alloc(&mem, count, "checkpoint on its way", e));
    in[0] = (RankPart){mem, count};
    const int rc = ranks_swap(r, out, in, e);
    if (!rc) be->upload(be, place, mem, count);
    mem_free(mem);
    return rc;
}

/* The file has this model's tensors, each as this model has it. */
static int file_check(const Safetensors *s, const TensorList *k, const char *name, Err *e) {
    if (s->n != k->n) return err_set(e, ERR_USAGE, "%s: got %zu tensors, this model has %zu", name, s->n, k->n);
    for (size_t i = 0; i < k->n; i++) {
        const Tensor *t = safetensors_find(s, k->t[i].name), *w = &k->t[i];
        if (!t) return err_set(e, ERR_USAGE, "%s: tensor '%s' is missing; another model's checkpoint?", name, w->name);
        if (t->dtype != w->dtype || t->count != w->count)
            return err_set(e, ERR_USAGE,
                           "%s: tensor '%s': got %zu numbers of type %s, this model and backend want %zu of type %s",
                           name, w->name, t->count, dtype_name(t->dtype), w->count, dtype_name(w->dtype));
    }
    return OK;
}

/* Uploads the tensors of one file. All are checked before the first is changed. */
static int file_load(const char *path, const Optim *o, int file, Err *e) {
    char name[1300];
    Safetensors s = {0};
    TensorList list;
    Ranks *r = o->m->be->ranks;
    const int first = ranks_first(r);
    int rc = tensors_list(&list, o, file, e);
    if (!rc && first) rc = file_join(name, sizeof name, path, FILES[file], e);
    if (!rc && first) rc = safetensors_open(&s, name, e);
    if (!rc && first) rc = file_check(&s, &list, name, e);
    rc = ranks_outcome(r, rc, e);
    for (size_t i = 0; i < list.n && !rc; i++)
        rc = tensor_load(o, file, &list.t[i], first ? safetensors_find(&s, list.t[i].name)->data : NULL, e);
    tensors_free(&list);
    safetensors_close(&s);
    return rc;
}

int checkpoint_parse(CheckpointState *s, const char *text, size_t n, const char *path, Err *e) {
    Json j;
    memset(s, 0, sizeof *s);
    TRY(state_parse(&j, text, n, path, e));
    const int rc = state_read(&j, s, 0, e);
    json_free(&j);
    return rc;
}

/* One directory is whole: state.json parses, sizes and CRCs agree. want_extra: see state_read. */
static int verify(const char *path, CheckpointState *s, int want_extra, Err *e) {
    char file[1300];
    File f;
    Json j;
    TRY(file_join(file, sizeof file, path, "state.json", e));
    TRY(file_open(&f, file, e));
    int rc = state_parse(&j, (const char *)f.data, f.size, file, e);
    if (!rc) rc = state_read(&j, s, want_extra, e);
    if (!rc) rc = files_verify(&j, path, e);
    json_free(&j);
    file_close(&f);
    return rc;
}

int checkpoint_verify(const char *path, CheckpointState *s, Err *e) {
    memset(s, 0, sizeof *s);
    return verify(path, s, 0, e);
}

/* Newest directory that verifies; path "" when there is none. Torn ones are told and passed over. */
static int checkpoint_pick(const char *dir, int clean, char *path, size_t cap, CheckpointState *s, int want_extra,
                           Warn warn, void *ctx, Err *e) {
    int64_t *steps;
    size_t n;
    TRY(checkpoint_steps(&steps, &n, dir, clean, e));
    int rc = OK;
    path[0] = 0;
    while (n-- > 0 && !rc) {
        Err torn = {0};
        if ((rc = checkpoint_name(path, cap, dir, steps[n], "", e))) break;
        rc = verify(path, s, want_extra, &torn);
        if (!rc) break;
        if (rc == ERR_MEMORY) { // says nothing about the file
            rc = err_set(e, rc, "%s", torn.msg);
            break;
        }
        if (warn) {
            char line[1024];
            snprintf(line, sizeof line, "checkpoint passed over: %s", torn.msg);
            warn(ctx, line);
        }
        path[0] = 0;
        rc = OK;
    }
    mem_free(steps);
    return rc;
}

/* The newest good checkpoint, if it is this training's; path "" when there is none. */
static int checkpoint_own(const char *dir, char *path, size_t cap, CheckpointState *s, Warn warn, void *ctx, Err *e) {
    CheckpointState got = *s;
    TRY(checkpoint_pick(dir, 1, path, cap, &got, 1, warn, ctx, e));
    if (!path[0]) return OK;
    if (strcmp(got.stage, s->stage) || strcmp(got.run, s->run))
        return err_set(e, ERR_USAGE, "%s: is a checkpoint of %s %s, expected one of %s %s", path, got.stage, got.run,
                       s->stage, s->run);
    if (got.fingerprint != s->fingerprint) {
        err_set(e, ERR_USAGE, "%s: was made with other options, data or teacher", path);
        return err_hint(e, "resume with the options it was made with, or begin in an empty directory");
    }
    *s = got;
    return OK;
}

int checkpoint_load(const char *dir, Optim *o, CheckpointState *s, int *found, Warn warn, void *ctx, Err *e) {
    char path[1200] = "";
    Ranks *r = o->m->be->ranks;
    CheckpointState got = *s;
    *found = 0;
    const int rc = ranks_first(r) ? checkpoint_own(dir, path, sizeof path, &got, warn, ctx, e) : OK;
    TRY(ranks_outcome(r, rc, e));
    TRY(ranks_share(r, path, sizeof path, e));
    if (!path[0]) return OK;
    TRY(ranks_share(r, &got, sizeof got, e));
    got.extra = s->extra; // an address of this process
    TRY(ranks_share(r, got.extra, (size_t)got.n_extra * sizeof(double), e));
    for (int file = 0; file < 2; file++) TRY(file_load(path, o, file, e));
    o->step = got.updates;
    *s = got;
    *found = 1;
    return OK;
}
