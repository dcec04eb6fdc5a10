/* gguf.c - reading GGUF files. See gguf.h. */
#include "io/gguf.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "base/what_is.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PAIRS = 65536, MAX_TENSORS = 65536, MAX_NAME = 255, MAX_ALIGNMENT = 1 << 20 };
static const uint64_t MAX_SIZE = ((uint64_t)1 << 48) - 1;

static const struct {
    const char *name;
    size_t bytes;
} types[GGUF_TYPES] = {{"u8", 1},   {"i8", 1},       {"u16", 2},      {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
                       {"bool", 1}, {"a string", 0}, {"an array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}};

/* ---- a cursor that never passes the end ---- */

typedef struct {
    const Gguf *g;
    const unsigned char *at, *end;
    const char *what; /* what is being read, for messages */
    Err *e;
} Cursor;

static int bytes_left(const Cursor *c, uint64_t n) {
    const size_t left = (size_t)(c->end - c->at);
    if (n <= left) return OK;
    return err_set(c->e, ERR_INPUT, "%s: %s: needs %llu bytes, but only %zu are left in the file", c->g->path, c->what,
                   (unsigned long long)n, left);
}

static uint64_t number(const unsigned char *p, size_t bytes) {
    uint64_t v = 0;
    for (size_t i = bytes; i > 0; i--) v = v << 8 | p[i - 1];
    return v;
}

static int read_number(Cursor *c, size_t bytes, uint64_t *out) {
    TRY(bytes_left(c, bytes));
    *out = number(c->at, bytes);
    c->at += bytes;
    return OK;
}

static int read_string(Cursor *c, const char **s, size_t *len) {
    uint64_t n;
    TRY(read_number(c, 8, &n));
    TRY(bytes_left(c, n));
    *s = (const char *)c->at;
    *len = (size_t)n;
    c->at += n;
    return OK;
}

/* A key or a tensor name. */
static int read_name(Cursor *c, const char **s, size_t *len) {
    TRY(read_string(c, s, len));
    if (!*len || *len > MAX_NAME)
        return err_set(c->e, ERR_INPUT, "%s: %s: a name of %zu bytes, expected 1 to %d", c->g->path, c->what, *len,
                       MAX_NAME);
    for (size_t i = 0, w; i < *len; i += w) {
        w = utf8_length((const unsigned char *)*s + i, *len - i);
        if (!w || (*s)[i] == 0)
            return err_set(c->e, ERR_INPUT, "%s: %s: a name is not UTF-8 text", c->g->path, c->what);
    }
    return OK;
}

/* ---- pairs ---- */

static int bad_value(const Cursor *c, const GgufValue *v, const char *what) {
    return err_set(c->e, ERR_INPUT, "%s: %.*s: %s", c->g->path, (int)v->key_len, v->key, what);
}

static int read_array(Cursor *c, GgufValue *v) {
    uint64_t type, n;
    TRY(read_number(c, 4, &type));
    TRY(read_number(c, 8, &n));
    if (type >= GGUF_TYPES) return bad_value(c, v, "unknown element type");
    if (type == GGUF_ARRAY) return bad_value(c, v, "an array of arrays is not supported");
    v->element = (GgufType)type;
    const size_t least = type == GGUF_STRING ? 8 : types[type].bytes; // of one element
    if (n > (uint64_t)(c->end - c->at) / least) return bad_value(c, v, "the array is longer than the file");
    v->n = (size_t)n;
    v->data = c->at;
    if (type != GGUF_STRING) c->at += n * least;
    for (uint64_t i = 0; type == GGUF_STRING && i < n; i++) {
        const char *s;
        size_t len;
        TRY(read_string(c, &s, &len));
    }
    return OK;
}

static int read_value(Cursor *c, GgufValue *v) {
    uint64_t type;
    const char *s;
    TRY(read_number(c, 4, &type));
    if (type >= GGUF_TYPES) return bad_value(c, v, "unknown value type");
    v->type = (GgufType)type;
    v->n = 1;
    v->data = c->at;
    if (type == GGUF_ARRAY) TRY(read_array(c, v));
    else if (type == GGUF_STRING) {
        TRY(read_string(c, &s, &v->n));
        v->data = (const unsigned char *)s;
    } else {
        TRY(bytes_left(c, types[type].bytes));
        c->at += types[type].bytes;
        if (type == GGUF_BOOL && *v->data > 1) return bad_value(c, v, "a bool that is neither 0 nor 1");
    }
    v->bytes = (size_t)(c->at - v->data);
    return OK;
}

static int text_order(const char *a, size_t n, const char *b, size_t m) {
    const int d = memcmp(a, b, n < m ? n : m);
    return d ? d : (n > m) - (n < m);
}
static int key_order(const void *a, const void *b) {
    const GgufValue *x = a, *y = b;
    return text_order(x->key, x->key_len, y->key, y->key_len);
}
static int name_order(const void *a, const void *b) {
    const GgufTensor *x = a, *y = b;
    return text_order(x->name, x->len, y->name, y->len);
}
static int data_order(const void *a, const void *b) {
    const GgufTensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return name_order(a, b);
}

static int read_pairs(Gguf *g, Cursor *c, uint64_t n) {
    void *p;
    c->what = "metadata";
    if (n > MAX_PAIRS || n > (uint64_t)(c->end - c->at) / 13) // the least that a pair takes
        return err_set(c->e, ERR_INPUT, "%s: %llu metadata pairs, which is over %d or more than the file can hold",
                       g->path, (unsigned long long)n, MAX_PAIRS);
    TRY(mem_alloc(&p, (size_t)n * sizeof *g->value, "metadata", c->e));
    g->value = p;
    for (; g->n_values < n; g->n_values++) {
        GgufValue *v = &g->value[g->n_values];
        TRY(read_name(c, &v->key, &v->key_len));
        TRY(read_value(c, v));
    }
    if (n) qsort(g->value, g->n_values, sizeof *g->value, key_order);
    for (size_t i = 1; i < g->n_values; i++)
        if (!key_order(&g->value[i - 1], &g->value[i])) return bad_value(c, &g->value[i], "given twice");
    return OK;
}

/* ---- tensors ---- */

static int bad_tensor(const Cursor *c, const GgufTensor *t, const char *what) {
    return err_set(c->e, ERR_INPUT, "%s: tensor '%.*s': %s", c->g->path, (int)t->len, t->name, what);
}

/* Sizes as the file has them, fastest first; count and bytes with checked arithmetic. */
static int read_shape(Cursor *c, GgufTensor *t) {
    uint64_t rank, dim, count = 1, type;
    TRY(read_number(c, 4, &rank));
    if (rank < 1 || rank > GGUF_MAX_RANK)
        return err_set(c->e, ERR_INPUT, "%s: tensor '%.*s': %llu dimensions, expected 1 to %d", c->g->path, (int)t->len,
                       t->name, (unsigned long long)rank, GGUF_MAX_RANK);
    t->rank = (int)rank;
    for (int i = t->rank - 1; i >= 0; i--) {
        TRY(read_number(c, 8, &dim));
        if (!dim || dim > MAX_SIZE || count > MAX_SIZE / dim)
            return bad_tensor(c, t, "its shape has a zero or is too large");
        count *= dim;
        t->shape[i] = (size_t)dim;
    }
    TRY(read_number(c, 4, &type));
    t->type = (GgmlType)type;
    const size_t block = ggml_block(t->type);
    if (!block) {
        const char *name = ggml_any_name(type);
        if (name)
            err_set(c->e, ERR_INPUT, "%s: tensor '%.*s': tensor type %s is not supported", c->g->path, (int)t->len,
                    t->name, name);
        else
            err_set(c->e, ERR_INPUT, "%s: tensor '%.*s': tensor type %llu is not known", c->g->path, (int)t->len,
                    t->name, (unsigned long long)type);
        return err_hint(c->e, "supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q6_K: take such a file "
                              "(F16, BF16 or Q8_0 lose least)");
    }
    if (t->shape[t->rank - 1] % block) return bad_tensor(c, t, "its rows are no whole number of blocks");
    t->count = (size_t)count;
    t->bytes = t->count / block * ggml_block_bytes(t->type); // < 2^48 / 256 * 210, or 2^48 * 4
    return OK;
}

/* In the order of their offsets the tensors must follow each other with only padding between. */
static int check_cover(Gguf *g, const Cursor *c, const unsigned char *data, size_t size, size_t alignment) {
    size_t at = 0, end = 0;
    if (g->n) qsort(g->tensor, g->n, sizeof *g->tensor, data_order);
    for (size_t i = 0; i < g->n; i++) {
        const GgufTensor *t = &g->tensor[i];
        const size_t begin = (size_t)(t->data - data);
        if (begin != at)
            return err_set(c->e, ERR_INPUT, "%s: tensor '%.*s': data begins at %zu, expected %zu: %s", g->path,
                           (int)t->len, t->name, begin, at,
                           begin < at ? "it overlaps another tensor" : "bytes that belong to no tensor");
        end = at + t->bytes;
        at = (end + alignment - 1) / alignment * alignment;
    }
    if (size > at) return err_set(c->e, ERR_INPUT, "%s: %zu bytes behind the last tensor", g->path, size - end);
    if (g->n) qsort(g->tensor, g->n, sizeof *g->tensor, name_order);
    for (size_t i = 1; i < g->n; i++)
        if (!name_order(&g->tensor[i - 1], &g->tensor[i])) return bad_tensor(c, &g->tensor[i], "given twice");
    return OK;
}

/* Offsets become pointers: the data section begins at the first multiple of the alignment behind the tensor list. */
static int place_tensors(Gguf *g, Cursor *c, const unsigned char *file, const uint64_t *offset) {
    int64_t alignment = 32;
    TRY(gguf_opt_int(g, "general.alignment", 1, MAX_ALIGNMENT, &alignment, c->e));
    const size_t a = (size_t)alignment, header = (size_t)(c->at - file), whole = (size_t)(c->end - file);
    if (a & (a - 1))
        return err_set(c->e, ERR_INPUT, "%s: general.alignment: got %zu, expected a power of two", g->path, a);
    const size_t begin = (header + a - 1) / a * a;
    if (!g->n) return OK;
    if (begin > whole) return err_set(c->e, ERR_INPUT, "%s: the file ends before its data", g->path);
    const unsigned char *data = file + begin;
    const size_t size = whole - begin;
    for (size_t i = 0; i < g->n; i++) {
        GgufTensor *t = &g->tensor[i];
        if (offset[i] % a) return bad_tensor(c, t, "its offset is no multiple of general.alignment");
        if (offset[i] > size || t->bytes > size - (size_t)offset[i])
            return err_set(c->e, ERR_INPUT,
                           "%s: tensor '%.*s': %zu bytes at offset %llu, the file has %zu bytes of data", g->path,
                           (int)t->len, t->name, t->bytes, (unsigned long long)offset[i], size);
        t->data = data + offset[i];
    }
    return check_cover(g, c, data, size, a);
}

static int read_tensors(Gguf *g, Cursor *c, const unsigned char *file, uint64_t n) {
    void *p, *offsets;
    c->what = "tensor list";
    if (n > MAX_TENSORS || n > (uint64_t)(c->end - c->at) / 33)
        return err_set(c->e, ERR_INPUT, "%s: %llu tensors, which is over %d or more than the file can hold", g->path,
                       (unsigned long long)n, MAX_TENSORS);
    TRY(mem_alloc(&p, (size_t)n * sizeof *g->tensor, "tensor list", c->e));
    g->tensor = p;
    TRY(mem_alloc(&offsets, (size_t)n * sizeof(uint64_t), "tensor offsets", c->e));
    int rc = OK;
    for (; g->n < n && !rc; g->n += !rc) {
        GgufTensor *t = &g->tensor[g->n];
        rc = read_name(c, &t->name, &t->len);
        if (!rc) rc = read_shape(c, t);
        if (!rc) rc = read_number(c, 8, &((uint64_t *)offsets)[g->n]);
    }
    if (!rc) rc = place_tensors(g, c, file, offsets);
    mem_free(offsets);
    return rc;
}

/* ---- the file ---- */

static int no_gguf(const Gguf *g, const unsigned char *data, size_t size, Err *e) {
    const WhatIs is = what_is(data, size);
    if (is != IS_SAFETENSORS) return what_is_refuse(is, g->path, "a GGUF file", e);
    err_set(e, ERR_INPUT, "%s: is a safetensors file, expected a GGUF file", g->path);
    return err_hint(e, "with its config.json and tokenizer.json beside it, its directory is a model already");
}

static int parse(Gguf *g, const unsigned char *data, size_t size, Err *e) {
    Cursor c = {g, data, data + size, "header", e};
    uint64_t version, tensors, pairs;
    if (size < 4 || memcmp(data, "GGUF", 4)) return no_gguf(g, data, size, e);
    if (size < 24) return err_set(e, ERR_INPUT, "%s: %zu bytes are too few for a GGUF file", g->path, size);
    c.at += 4;
    TRY(read_number(&c, 4, &version));
    if (version && !(version & 0xffff))
        return err_set(e, ERR_INPUT, "%s: a big-endian GGUF file is not supported", g->path);
    if (version != 2 && version != 3)
        return err_set(e, ERR_INPUT, "%s: GGUF version %llu, expected 2 or 3", g->path, (unsigned long long)version);
    g->version = (int)version;
    TRY(read_number(&c, 8, &tensors));
    TRY(read_number(&c, 8, &pairs));
    TRY(read_pairs(g, &c, pairs));
    return read_tensors(g, &c, data, tensors);
}

int gguf_parse(Gguf *g, const unsigned char *data, size_t size, const char *path, Err *e) {
    memset(g, 0, sizeof *g);
    if (strlen(path) >= sizeof g->path) return err_set(e, ERR_IO, "%.200s...: path too long", path);
    memcpy(g->path, path, strlen(path) + 1);
    const int rc = parse(g, data, size, e);
    if (rc) gguf_close(g);
    return rc;
}

int gguf_open(Gguf *g, const char *path, Err *e) {
    File f;
    memset(g, 0, sizeof *g);
    TRY(file_open(&f, path, e));
    const int rc = gguf_parse(g, f.data, f.size, path, e);
    if (rc) file_close(&f);
    else g->file = f;
    return rc;
}

void gguf_close(Gguf *g) {
    file_close(&g->file);
    mem_free(g->value);
    mem_free(g->tensor);
    memset(g, 0, sizeof *g);
}

/* ---- access ---- */

const GgufTensor *gguf_find(const Gguf *g, const char *name) {
    const GgufTensor key = {.name = name, .len = strlen(name)};
    return g->n ? bsearch(&key, g->tensor, g->n, sizeof key, name_order) : NULL;
}

const GgufValue *gguf_get(const Gguf *g, const char *key) {
    const GgufValue want = {.key = key, .key_len = strlen(key)};
    return g->n_values ? bsearch(&want, g->value, g->n_values, sizeof want, key_order) : NULL;
}

static int is_int(GgufType t) { return t <= GGUF_I32 || t == GGUF_U64 || t == GGUF_I64; }

static int wrong_type(const Gguf *g, const GgufValue *v, const char *wanted, Err *e) {
    return err_set(e, ERR_INPUT, "%s: %.*s: got %s, expected %s", g->path, (int)v->key_len, v->key, types[v->type].name,
                   wanted);
}

static int64_t int_of(GgufType t, const unsigned char *p) {
    const uint64_t v = number(p, types[t].bytes);
    if (t == GGUF_I8) return (int8_t)v;
    if (t == GGUF_I16) return (int16_t)v;
    if (t == GGUF_I32) return (int32_t)v;
    if (t == GGUF_U64) return v > INT64_MAX ? INT64_MAX : (int64_t)v; // out of every range that is asked for
    return (int64_t)v;
}

static double real_of(GgufType t, const unsigned char *p) {
    float f;
    double d;
    if (t == GGUF_F32) return memcpy(&f, p, 4), (double)f;
    if (t == GGUF_F64) return memcpy(&d, p, 8), d;
    return (double)int_of(t, p);
}

int gguf_opt_int(const Gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out, Err *e) {
    const GgufValue *v = gguf_get(g, key);
    if (!v) return OK;
    if (!is_int(v->type)) return wrong_type(g, v, "an integer", e);
    const int64_t i = int_of(v->type, v->data);
    if (i < lo || i > hi)
        return err_set(e, ERR_INPUT, "%s: %s: got %lld, expected %lld to %lld", g->path, key, (long long)i,
                       (long long)lo, (long long)hi);
    *out = i;
    return OK;
}

int gguf_opt_real(const Gguf *g, const char *key, double *out, Err *e) {
    const GgufValue *v = gguf_get(g, key);
    if (!v) return OK;
    if (!is_int(v->type) && v->type != GGUF_F32 && v->type != GGUF_F64) return wrong_type(g, v, "a number", e);
    const double d = real_of(v->type, v->data);
    if (!isfinite(d)) return err_set(e, ERR_INPUT, "%s: %s: not a finite number", g->path, key);
    *out = d;
    return OK;
}

int gguf_opt_bool(const Gguf *g, const char *key, int *out, Err *e) {
    const GgufValue *v = gguf_get(g, key);
    if (!v) return OK;
    if (v->type != GGUF_BOOL) return wrong_type(g, v, "a bool", e);
    *out = *v->data;
    return OK;
}

int gguf_opt_str(const Gguf *g, const char *key, const char **out, size_t *len, Err *e) {
    const GgufValue *v = gguf_get(g, key);
    if (!v) return OK;
    if (v->type != GGUF_STRING) return wrong_type(g, v, "a string", e);
    *out = (const char *)v->data;
    *len = v->n;
    return OK;
}

int gguf_want_array(const Gguf *g, const char *key, GgufType element, const GgufValue **out, Err *e) {
    const GgufValue *v = gguf_get(g, key);
    if (!v) return err_set(e, ERR_INPUT, "%s: %s: missing", g->path, key);
    if (v->type != GGUF_ARRAY) return wrong_type(g, v, "an array", e);
    if (v->element != element && !(element == GGUF_I32 && v->element == GGUF_U32))
        return err_set(e, ERR_INPUT, "%s: %s: got an array of %s, expected one of %s", g->path, key,
                       types[v->element].name, types[element].name);
    *out = v;
    return OK;
}

void gguf_next_str(const GgufValue *v, size_t *at, const char **s, size_t *len) {
    *len = (size_t)number(v->data + *at, 8); // checked when the file was read
    *s = (const char *)v->data + *at + 8;
    *at += 8 + *len;
}

int64_t gguf_int_at(const GgufValue *v, size_t i) { return int_of(v->element, v->data + i * types[v->element].bytes); }
double gguf_real_at(const GgufValue *v, size_t i) { return real_of(v->element, v->data + i * types[v->element].bytes); }
