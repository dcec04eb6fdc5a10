/* safetensors.c - reading and writing .safetensors files. See safetensors.h.
 *
 * A file is 8 bytes of header length N (little-endian), N bytes of JSON, then the data. Everything in the
 * header is untrusted: nothing is allocated from a number in it, no sum or product is formed unchecked, and a
 * file is taken only if its tensors cover the data exactly, which leaves no room for hidden or shared bytes.
 */
#include "io/safetensors.h"
#include "base/hash.h"
#include "base/mem.h"
#include "io/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100000000, MAX_TENSORS = 1000000, MAX_NAME = 4096, PIECE = 4 << 20 };
static const size_t MAX_SIZE = ((size_t)1 << 48) - 1;

/* ---- the name index ---- */

typedef struct {
    uint64_t seed;
    size_t mask;
    int slot[]; /* index of a tensor + 1; 0 is empty */
} Index;

static int *index_slot(const Index *x, int *slot, const Tensor *t, const char *name) {
    size_t i = (size_t)hash_bytes(x->seed, name, strlen(name)) & x->mask;
    while (slot[i] && strcmp(t[slot[i] - 1].name, name)) i = (i + 1) & x->mask;
    return &slot[i];
}

static int index_build(Safetensors *s, Err *e) {
    size_t slots = 16;
    while (slots < 2 * s->n) slots *= 2;
    TRY(mem_alloc(&s->index, sizeof(Index) + slots * sizeof(int), "tensor index", e));
    Index *x = s->index;
    x->seed = (uint64_t)(uintptr_t)x; /* not known to whoever made the file */
    x->mask = slots - 1;
    for (size_t i = 0; i < s->n; i++) *index_slot(x, x->slot, s->tensor, s->tensor[i].name) = (int)i + 1;
    return OK;
}

const Tensor *safetensors_find(const Safetensors *s, const char *name) {
    if (!s->index) return NULL;
    Index *x = s->index;
    int i = *index_slot(x, x->slot, s->tensor, name);
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
        return err_set(e, ERR_INPUT, "%s: tensor '%.200s': %zu dimensions, at most %d are supported", s->path,
                       t->name, json_size(j, shape), TENSOR_MAX_RANK);
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
static int read_entry(const Safetensors *s, const Json *j, JsonRef r, Tensor *t, size_t *begin, size_t *end,
                      Err *e) {
    const char *type = NULL;
    size_t len = 0;
    uint64_t at[2];
    if (json_kind(j, r) != JSON_OBJECT) return bad_tensor(s, t, "the header entry is not an object", e);
    if (json_want_str(j, json_get(j, r, "dtype"), "dtype", &type, &len, NULL))
        return bad_tensor(s, t, "dtype is missing or not a string", e);
    int dtype = dtype_parse(type, len);
    if (dtype < 0)
        return err_set(e, ERR_INPUT, "%s: tensor '%.200s': unknown dtype '%.40s'", s->path, t->name, type);
    t->dtype = (DType)dtype;
    TRY(read_shape(s, j, json_get(j, r, "shape"), t, e));
    JsonRef offsets = json_get(j, r, "data_offsets"), o = json_first(j, offsets);
    if (json_kind(j, offsets) != JSON_ARRAY || json_size(j, offsets) != 2)
        return bad_tensor(s, t, "data_offsets is missing or not an array of 2", e);
    for (int i = 0; i < 2; i++, o = json_next(j, o))
        if (json_want_u64(j, o, "data_offsets", &at[i], NULL))
            return bad_field(j, o, t, "data_offsets", INT64_MAX, e);
    if (!shape_bytes(t, &t->count, &t->bytes))
        return bad_tensor(s, t, "shape x dtype is too large or no whole number of bytes", e);
    if (at[1] < at[0] || at[1] > MAX_SIZE)
        return bad_tensor(s, t, "data_offsets are reversed or too large", e);
    if (at[1] - at[0] != t->bytes)
        return err_set(e, ERR_INPUT,
                       "%s: tensor '%.200s': data_offsets span %llu bytes, shape x dtype needs %zu", s->path,
                       t->name, (unsigned long long)(at[1] - at[0]), t->bytes);
    *begin = (size_t)at[0];
    *end = (size_t)at[1];
    return OK;
}

/* Copies a name or a metadata string into the pool. C strings: a NUL inside would cut it short, so it is
 * refused. */
static int pool_put(const Safetensors *s, char **pool, const char *text, size_t len, Err *e) {
    if (memchr(text, 0, len))
        return err_set(e, ERR_INPUT, "%s: a name or metadata string contains a NUL character", s->path);
    memcpy(*pool, text, len);
    (*pool)[len] = 0;
    *pool += len + 1;
    return OK;
}

static int read_metadata(Safetensors *s, const Json *j, JsonRef meta, char **pool, Err *e) {
    if (json_kind(j, meta) == JSON_NULL) return OK; /* absent, or null as the reference takes it */
    if (json_kind(j, meta) != JSON_OBJECT)
        return err_set(e, ERR_INPUT, "%s: __metadata__ is not an object", s->path);
    size_t n = json_size(j, meta);
    void *p;
    TRY(mem_alloc(&p, 2 * n * sizeof(char *), "metadata", e));
    s->meta_key = p;
    s->meta_value = s->meta_key + n;
    for (JsonRef r = json_first(j, meta); r >= 0; r = json_next(j, r), s->n_meta++) {
        size_t key_len, len;
        const char *key = json_key(j, r, &key_len), *value;
        if (json_want_str(j, r, key, &value, &len, NULL))
            return err_set(e, ERR_INPUT, "%s: __metadata__: the value of '%.200s' is not a string", s->path,
                           key);
        s->meta_key[s->n_meta] = *pool;
        TRY(pool_put(s, pool, key, key_len, e));
        s->meta_value[s->n_meta] = *pool;
        TRY(pool_put(s, pool, value, len, e));
    }
    return OK;
}

/* Bytes of all names and metadata strings with their NULs. */
static size_t pool_size(const Json *j, JsonRef meta) {
    size_t total = 0, len;
    for (JsonRef r = json_first(j, 0); r >= 0; r = json_next(j, r)) json_key(j, r, &len), total += len + 1;
    for (JsonRef r = json_first(j, meta); r >= 0; r = json_next(j, r)) {
        json_key(j, r, &len), total += len + 1;
        json_str(j, r, &len), total += len + 1;
    }
    return total;
}

static int file_order(const void *a, const void *b) {
    const Tensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return x->name < y->name ? -1 : x->name > y->name; /* empty tensors at one place: as in the header */
}

/* The entries sorted by offset must cover the data section without hole or overlap, to its last byte. */
static int check_cover(Safetensors *s, const unsigned char *data, size_t size, Err *e) {
    size_t at = 0;
    if (s->n) qsort(s->tensor, s->n, sizeof *s->tensor, file_order);
    for (size_t i = 0; i < s->n; i++) {
        size_t begin = (size_t)(s->tensor[i].data - data);
        if (begin != at)
            return err_set(e, ERR_INPUT, "%s: tensor '%.200s': data begins at %zu, expected %zu: %s", s->path,
                           s->tensor[i].name, begin, at,
                           begin < at ? "it overlaps another tensor" : "bytes that belong to no tensor");
        at += s->tensor[i].bytes;
    }
    if (at != size)
        return err_set(e, ERR_INPUT, "%s: tensors take %zu bytes of data, the file has %zu", s->path, at,
                       size);
    return OK;
}

static int read_tensors(Safetensors *s, const Json *j, const unsigned char *data, size_t size, Err *e) {
    JsonRef meta = json_get(j, 0, "__metadata__");
    void *p;
    if (json_kind(j, 0) != JSON_OBJECT)
        return err_set(e, ERR_INPUT, "%s: the header is not a JSON object", s->path);
    size_t n = json_size(j, 0) - (meta >= 0);
    if (n > MAX_TENSORS)
        return err_set(e, ERR_INPUT, "%s: %zu tensors, at most %d are supported", s->path, n, MAX_TENSORS);
    TRY(mem_alloc(&p, pool_size(j, meta), "tensor names", e));
    char *pool = s->names = p;
    TRY(mem_alloc(&p, n * sizeof *s->tensor, "tensor list", e));
    s->tensor = p;
    TRY(read_metadata(s, j, meta, &pool, e));
    for (JsonRef r = json_first(j, 0); r >= 0; r = json_next(j, r)) {
        size_t len, begin = 0, end = 0;
        const char *name = json_key(j, r, &len);
        if (r == meta) continue;
        Tensor *t = &s->tensor[s->n];
        if (len > MAX_NAME)
            return err_set(e, ERR_INPUT, "%s: tensor name of %zu bytes, at most %d are supported", s->path,
                           len, MAX_NAME);
        t->name = pool;
        TRY(pool_put(s, &pool, name, len, e));
        TRY(read_entry(s, j, r, t, &begin, &end, e));
        if (end > size)
            return err_set(e, ERR_INPUT,
                           "%s: tensor '%.200s': data ends at %zu, the file has %zu bytes of data", s->path,
                           t->name, end, size);
        t->data = data + begin;
        s->n++;
    }
    TRY(check_cover(s, data, size, e));
    return index_build(s, e);
}

static int parse(Safetensors *s, const unsigned char *data, size_t size, Err *e) {
    uint64_t n = 0;
    if (size < 8)
        return err_set(e, ERR_INPUT, "%s: %zu bytes are too few for a safetensors file", s->path, size);
    for (int i = 7; i >= 0; i--) n = n << 8 | data[i];
    if (n > MAX_HEADER)
        return err_set(e, ERR_INPUT,
                       "%s: header length %llu, at most %d is allowed: is this a safetensors file?", s->path,
                       (unsigned long long)n, MAX_HEADER);
    if (n > size - 8)
        return err_set(e, ERR_INPUT, "%s: header length %llu, but only %zu bytes follow", s->path,
                       (unsigned long long)n, size - 8);
    s->header_bytes = (size_t)n;
    Json j;
    TRY(json_parse(&j, (const char *)data + 8, (size_t)n, s->path, e));
    int rc = read_tensors(s, &j, data + 8 + n, size - 8 - (size_t)n, e);
    json_free(&j);
    return rc;
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
    mem_free(s->meta_key); /* meta_value is its second half */
    mem_free(s->index);
    mem_free(s->names);
    memset(s, 0, sizeof *s);
}
