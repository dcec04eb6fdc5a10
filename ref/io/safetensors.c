/* safetensors.c - reading and writing .safetensors files. See safetensors.h.
 *
 * A file is 8 bytes of header length N (little-endian), N bytes of JSON, then the data. Everything in the
 * header is untrusted: nothing is allocated from a number in it, no sum or product is formed unchecked, and a
 * file is taken only if its tensors cover the data exactly, which leaves no room for hidden or shared bytes.
 * The header may be 100 MB long: it is read entry by entry, never as one tree, so that a hostile one costs
 * neither more than about twice its size nor more than a second.
 */
#include "io/safetensors.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/what_is.h"
#include "base/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100000000, MAX_TENSORS = 1000000, MAX_NAME = 4096, MAX_ENTRY = 1 << 16, MAX_META = 4 << 20 };
// bytes of {"dtype":"I8","shape":[],"data_offsets":[0,1]} with its key: bounds how many there can be
enum { MIN_ENTRY = 48 };
static const size_t MAX_SIZE = ((size_t)1 << 48) - 1;
static const char cut_short[] = "the file seems to be cut short: copy or download it again";

/* ---- the name index ---- */

/* A slot holds a tensor's number + 1 (0 is empty) and above it some bits of its name's hash: whether it is the one
 * looked for is then known without a walk to the tensor and to its name, which are two misses of the cache. */
enum { NUMBER_BITS = 20 };
static const uint32_t NUMBER = (1u << NUMBER_BITS) - 1; // >= MAX_TENSORS

typedef struct {
    uint64_t seed;
    size_t mask;
    uint32_t slot[];
} Index;

/* The slot of that name, or the empty one where it belongs; in *tag the bits that go with the number. */
static uint32_t *index_slot(Index *x, const Tensor *t, const char *name, uint32_t *tag) {
    const uint64_t hash = hash_bytes(x->seed, name, strlen(name));
    size_t i = (size_t)hash & x->mask;
    *tag = (uint32_t)(hash >> 32) & ~NUMBER;
    while (x->slot[i] && ((x->slot[i] & ~NUMBER) != *tag || strcmp(t[(x->slot[i] & NUMBER) - 1].name, name)))
        i = (i + 1) & x->mask;
    return &x->slot[i];
}

static int index_open(Safetensors *s, size_t n, Err *e) {
    size_t slots = 16;
    while (slots < 2 * n) slots *= 2;
    TRY(mem_alloc(&s->index, sizeof(Index) + slots * sizeof(uint32_t), "tensor index", e));
    Index *x = s->index;
    x->seed = (uint64_t)(uintptr_t)x; /* not known to whoever made the file */
    x->mask = slots - 1;
    return OK;
}

static int file_order(const void *a, const void *b, void *tensors) {
    const Tensor *x = (const Tensor *)tensors + *(const int *)a, *y = (const Tensor *)tensors + *(const int *)b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return x->name < y->name ? -1 : x->name > y->name; /* empty tensors at one place: as in the header */
}

/* By their place in the file. Numbers are sorted instead of tensors, which then go to their places along the cycles;
 * the index keeps its slots and learns the new numbers. */
static int tensors_sort(Safetensors *s, Err *e) {
    Index *x = s->index;
    void *p;
    TRY(mem_alloc(&p, 2 * s->n * sizeof(int), "tensor order", e));
    int *from = p, *to = from + s->n; // tensor from[i] belongs at i, tensor i at to[i]
    for (size_t i = 0; i < s->n; i++) from[i] = (int)i;
    qsort_r(from, s->n, sizeof *from, file_order, s->tensor);
    for (size_t i = 0; i < s->n; i++) to[from[i]] = (int)i;
    for (size_t i = 0; i <= x->mask; i++)
        if (x->slot[i]) x->slot[i] = (x->slot[i] & ~NUMBER) | (uint32_t)(to[(x->slot[i] & NUMBER) - 1] + 1);
    for (int i = 0; i < (int)s->n; i++) {
        const Tensor first = s->tensor[i];
        int at = i;
        while (from[at] != i) {
            const int next = from[at];
            s->tensor[at] = s->tensor[next];
            from[at] = at;
            at = next;
        }
        s->tensor[at] = first;
        from[at] = at;
    }
    mem_free(p);
    return OK;
}

const Tensor *safetensors_find(const Safetensors *s, const char *name) {
    if (!s->index) return NULL;
    uint32_t tag;
    const uint32_t i = *index_slot(s->index, s->tensor, name, &tag) & NUMBER;
    return i ? &s->tensor[i - 1] : NULL;
}

/* ---- reading ---- */

/* elements and bytes of a shape, checked; 0 if they do not fit (or do not fill whole bytes). */
static int shape_bytes(const Tensor *t, size_t *count, size_t *bytes) {
    size_t n = 1, bits = (size_t)dtype_bits(t->dtype);
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] && n > MAX_SIZE / t->shape[i]) return 0;
        n *= t->shape[i];
    }
    if (n * bits % 8) return 0; /* n < 2^48 and bits <= 64 */
    *count = n;
    *bytes = n * bits / 8;
    return 1;
}

static int bad_tensor(const Safetensors *s, const Tensor *t, const char *what, Err *e) {
    return err_set(e, ERR_INPUT, "%s: tensor '%.200s': %s", s->path, t->name, what);
}

/* A field of the wrong type: what json_want_* said, with the tensor's name. Composed only now: there may be a
 * million tensors. */
static int bad_field(const Json *j, JsonRef r, const Tensor *t, const char *field, int64_t hi, Err *e) {
    char what[300];
    int64_t any;
    snprintf(what, sizeof what, "tensor '%.200s': %s", t->name, field);
    return json_want_int(j, r, what, 0, hi, &any, e);
}

static int read_shape(const Safetensors *s, const Json *j, JsonRef shape, Tensor *t, Err *e) {
    if (json_kind(j, shape) != JSON_ARRAY) return bad_tensor(s, t, "shape is missing or not an array", e);
    if (json_size(j, shape) > TENSOR_MAX_RANK)
        return err_set(e, ERR_INPUT, "%s: tensor '%.200s': %zu dimensions, at most %d are supported", s->path, t->name,
                       json_size(j, shape), TENSOR_MAX_RANK);
    for (JsonRef r = json_first(j, shape); r >= 0; r = json_next(j, r)) {
        int64_t dim;
        if (json_want_int(j, r, "shape", 0, (int64_t)MAX_SIZE, &dim, NULL))
            return bad_field(j, r, t, "shape", (int64_t)MAX_SIZE, e);
        t->shape[t->rank++] = (size_t)dim;
    }
    return OK;
}

/* One header entry. t->name is set; data_offsets leave as t->data and t->bytes, still relative to the data
 * section. */
static int read_entry(const Safetensors *s, const Json *j, JsonRef r, Tensor *t, size_t *begin, size_t *end, Err *e) {
    const char *type = NULL;
    size_t len = 0;
    uint64_t at[2];
    if (json_kind(j, r) != JSON_OBJECT) return bad_tensor(s, t, "the header entry is not an object", e);
    if (json_want_str(j, json_get(j, r, "dtype"), "dtype", &type, &len, NULL))
        return bad_tensor(s, t, "dtype is missing or not a string", e);
    int dtype = dtype_parse(type, len);
    if (dtype < 0) return err_set(e, ERR_INPUT, "%s: tensor '%.200s': unknown dtype '%.40s'", s->path, t->name, type);
    t->dtype = (DType)dtype;
    TRY(read_shape(s, j, json_get(j, r, "shape"), t, e));
    JsonRef offsets = json_get(j, r, "data_offsets"), o = json_first(j, offsets);
    if (json_kind(j, offsets) != JSON_ARRAY || json_size(j, offsets) != 2)
        return bad_tensor(s, t, "data_offsets is missing or not an array of 2", e);
    for (int i = 0; i < 2; i++, o = json_next(j, o))
        if (json_want_u64(j, o, "data_offsets", &at[i], NULL)) return bad_field(j, o, t, "data_offsets", INT64_MAX, e);
    if (!shape_bytes(t, &t->count, &t->bytes))
        return bad_tensor(s, t, "shape x dtype is too large or no whole number of bytes", e);
    if (at[1] < at[0] || at[1] > MAX_SIZE) return bad_tensor(s, t, "data_offsets are reversed or too large", e);
    if (at[1] - at[0] != t->bytes)
        return err_set(e, ERR_INPUT, "%s: tensor '%.200s': data_offsets span %llu bytes, shape x dtype needs %zu",
                       s->path, t->name, (unsigned long long)(at[1] - at[0]), t->bytes);
    *begin = (size_t)at[0];
    *end = (size_t)at[1];
    return OK;
}

/* C strings: a NUL inside would cut one short, so it is refused. */
static int check_text(const Safetensors *s, const char *text, size_t len, Err *e) {
    if (!memchr(text, 0, len)) return OK;
    return err_set(e, ERR_INPUT, "%s: a name or metadata string contains a NUL character", s->path);
}

static const char *meta_put(char **pool, const char *text, size_t len) {
    char *at = memcpy(*pool, text, len + 1);
    *pool += len + 1;
    return at;
}

/* The pairs of __metadata__: pointers, and behind them the strings. */
static int meta_copy(Safetensors *s, const Json *j, Err *e) {
    const size_t n = json_size(j, 0);
    size_t total = 2 * n * sizeof(char *), key_len, len;
    const char *value;
    for (JsonRef r = json_first(j, 0); r >= 0; r = json_next(j, r)) {
        const char *key = json_key(j, r, &key_len);
        if (json_want_str(j, r, key, &value, &len, NULL))
            return err_set(e, ERR_INPUT, "%s: __metadata__: the value of '%.200s' is not a string", s->path, key);
        TRY(check_text(s, key, key_len, e));
        TRY(check_text(s, value, len, e));
        total += key_len + len + 2;
    }
    void *p;
    TRY(mem_alloc(&p, total, "metadata", e));
    s->meta_key = p;
    s->meta_value = s->meta_key + n;
    char *pool = (char *)(s->meta_value + n);
    for (JsonRef r = json_first(j, 0); r >= 0; r = json_next(j, r), s->n_meta++) {
        const char *key = json_key(j, r, &key_len);
        value = json_str(j, r, &len);
        s->meta_key[s->n_meta] = (char *)(uintptr_t)meta_put(&pool, key, key_len);
        s->meta_value[s->n_meta] = (char *)(uintptr_t)meta_put(&pool, value, len);
    }
    return OK;
}

static int read_metadata(Safetensors *s, const JsonWalk *w, Err *e) {
    Json j;
    if (w->end - w->begin > MAX_META)
        return err_set(e, ERR_INPUT, "%s: __metadata__ of %zu bytes, at most %d are supported", s->path,
                       w->end - w->begin, MAX_META);
    TRY(json_parse_part(&j, w->text, w->begin, w->end, 1, s->path, e));
    int rc = OK; /* null: absent, as the reference takes it */
    if (json_kind(&j, 0) == JSON_OBJECT) rc = meta_copy(s, &j, e);
    else if (json_kind(&j, 0) != JSON_NULL) rc = err_set(e, ERR_INPUT, "%s: __metadata__ is not an object", s->path);
    json_free(&j);
    return rc;
}

static int twice(const JsonWalk *w, const char *name, Err *e) {
    char msg[200];
    snprintf(msg, sizeof msg, "key \"%.120s\" appears twice in one object", name);
    return json_walk_fail(w, msg, e);
}

/* The tensor of the member that w stands at. data: the data section of `size` bytes. */
static int read_tensor(Safetensors *s, const JsonWalk *w, const char *name, size_t len, const unsigned char *data,
                       size_t size, Err *e) {
    Tensor *t = &s->tensor[s->n];
    Json j;
    size_t begin = 0, end = 0;
    if (len > MAX_NAME)
        return err_set(e, ERR_INPUT, "%s: tensor name of %zu bytes, at most %d are supported", s->path, len, MAX_NAME);
    TRY(check_text(s, name, len, e));
    if (w->end - w->begin > MAX_ENTRY)
        return err_set(e, ERR_INPUT, "%s: tensor '%.200s': a header entry of %zu bytes, at most %d are supported",
                       s->path, name, w->end - w->begin, MAX_ENTRY);
    uint32_t tag, *slot = index_slot(s->index, s->tensor, name, &tag);
    if (*slot) return twice(w, name, e);
    t->name = name;
    TRY(json_parse_part(&j, w->text, w->begin, w->end, 1, s->path, e));
    const int rc = read_entry(s, &j, 0, t, &begin, &end, e);
    json_free(&j);
    if (rc) return rc;
    if (end > size) {
        err_set(e, ERR_INPUT, "%s: tensor '%.200s': data ends at %zu, the file has %zu bytes of data", s->path, t->name,
                end, size);
        err_hint(e, "%s", cut_short);
        return ERR_INPUT;
    }
    t->data = data + begin;
    *slot = tag | (uint32_t)++s->n;
    return OK;
}

/* The entries sorted by offset must cover the data section without hole or overlap, to its last byte. */
static int check_cover(Safetensors *s, const unsigned char *data, size_t size, Err *e) {
    size_t at = 0;
    int sorted = 1;
    for (int i[2] = {0, 1}; sorted && i[1] < (int)s->n; i[0]++, i[1]++)
        sorted = file_order(&i[0], &i[1], s->tensor) < 0;
    if (!sorted) TRY(tensors_sort(s, e));
    for (size_t i = 0; i < s->n; i++) {
        size_t begin = (size_t)(s->tensor[i].data - data);
        if (begin != at)
            return err_set(e, ERR_INPUT, "%s: tensor '%.200s': data begins at %zu, expected %zu: %s", s->path,
                           s->tensor[i].name, begin, at,
                           begin < at ? "it overlaps another tensor" : "bytes that belong to no tensor");
        at += s->tensor[i].bytes;
    }
    if (at != size)
        return err_set(e, ERR_INPUT, "%s: tensors take %zu bytes of data, the file has %zu", s->path, at, size);
    return OK;
}

/* Room for the names and tensors that a header of so many bytes can hold, and the index of the names. */
static int read_begin(Safetensors *s, const char *header, size_t len, size_t *most, Err *e) {
    size_t n, key_bytes;
    void *p;
    *most = 0;
    json_walk_count(header, len, &n, &key_bytes);
    // and __metadata__
    if (n > MAX_TENSORS + 1) return err_set(e, ERR_INPUT, "%s: more than %d tensors", s->path, MAX_TENSORS);
    *most = n < len / MIN_ENTRY ? n : len / MIN_ENTRY;
    TRY(mem_alloc(&p, key_bytes + 1, "tensor names", e));
    s->names = p;
    TRY(mem_alloc(&p, *most * sizeof *s->tensor, "tensor list", e));
    s->tensor = p;
    return index_open(s, *most, e);
}

static int read_tensors(Safetensors *s, const char *header, size_t len, const unsigned char *data, size_t size,
                        Err *e) {
    JsonWalk w;
    size_t most = 0, key_len;
    int found, meta = 0;
    TRY(json_walk_open(&w, header, len, s->path, e));
    TRY(read_begin(s, header, len, &most, e));
    for (char *key = s->names;; key += key_len + 1) {
        TRY(json_walk_next(&w, key, &key_len, &found, e));
        if (!found) break;
        if (key_len == 12 && !memcmp(key, "__metadata__", 12)) {
            if (meta++) return twice(&w, key, e);
            TRY(read_metadata(s, &w, e));
        } else if (s->n == MAX_TENSORS) return err_set(e, ERR_INPUT, "%s: more than %d tensors", s->path, MAX_TENSORS);
        else if (s->n == most) return bad_tensor(s, &(Tensor){.name = key}, "the header entry is too short", e);
        else TRY(read_tensor(s, &w, key, key_len, data, size, e));
    }
    return check_cover(s, data, size, e);
}

static int parse(Safetensors *s, const unsigned char *data, size_t size, Err *e) {
    uint64_t n = 0;
    const WhatIs is = what_is(data, size);
    if (is != IS_SAFETENSORS && is != IS_UNKNOWN && is != IS_BINARY && is != IS_EMPTY)
        return what_is_refuse(is, s->path, "a safetensors file", e);
    if (size < 8) return err_set(e, ERR_INPUT, "%s: %zu bytes are too few for a safetensors file", s->path, size);
    for (int i = 7; i >= 0; i--) n = n << 8 | data[i];
    if (n > MAX_HEADER)
        return err_set(e, ERR_INPUT, "%s: header length %llu, at most %d is allowed: is this a safetensors file?",
                       s->path, (unsigned long long)n, MAX_HEADER);
    if (n > size - 8) {
        err_set(e, ERR_INPUT, "%s: header length %llu, but only %zu bytes follow", s->path, (unsigned long long)n,
                size - 8);
        err_hint(e, "%s", cut_short);
        return ERR_INPUT;
    }
    s->header_bytes = (size_t)n;
    return read_tensors(s, (const char *)data + 8, (size_t)n, data + 8 + n, size - 8 - (size_t)n, e);
}

int safetensors_parse(Safetensors *s, const unsigned char *data, size_t size, const char *path, Err *e) {
    memset(s, 0, sizeof *s);
    if (strlen(path) >= sizeof s->path) return err_set(e, ERR_IO, "%.200s...: path too long", path);
    memcpy(s->path, path, strlen(path) + 1);
    int rc = parse(s, data, size, e);
    if (rc) safetensors_close(s);
    return rc;
}

int safetensors_open(Safetensors *s, const char *path, Err *e) {
    File f;
    memset(s, 0, sizeof *s);
    TRY(file_open(&f, path, e));
    int rc = safetensors_parse(s, f.data, f.size, path, e);
    if (rc) file_close(&f);
    else s->file = f;
    return rc;
}

void safetensors_close(Safetensors *s) {
    file_close(&s->file);
    mem_free(s->tensor);
    mem_free(s->meta_key); /* meta_value and the strings are in the same block */
    mem_free(s->index);
    mem_free(s->names);
    memset(s, 0, sizeof *s);
}
