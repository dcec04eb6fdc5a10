/* gguf_make.h - writes GGUF files for tests, byte by byte from the format's description, independent of ref/io/gguf*.c.
 * */
#ifndef HYB_TEST_GGUF_MAKE_H
#define HYB_TEST_GGUF_MAKE_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    unsigned char *p;
    size_t n, cap;
} Bytes;

static inline void put(Bytes *b, const void *data, size_t n) {
    if (b->n + n > b->cap) b->p = realloc(b->p, b->cap = 2 * (b->n + n) + 64);
    if (n) memcpy(b->p + b->n, data, n);
    b->n += n;
}
static inline void put_u(Bytes *b, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) {
        const unsigned char c = (unsigned char)(v >> 8 * i);
        put(b, &c, 1);
    }
}
static inline void put_str(Bytes *b, const char *s) {
    put_u(b, strlen(s), 8);
    put(b, s, strlen(s));
}
static inline void put_f(Bytes *b, float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    put_u(b, u, 4);
}

/* A file in three parts: pairs, tensor list, data (each tensor padded to 32). */
typedef struct {
    Bytes pairs, list, data;
    uint64_t n_pairs, n_tensors;
} Make;

static inline void pair_u32(Make *m, const char *key, uint32_t v) {
    put_str(&m->pairs, key);
    put_u(&m->pairs, 4, 4);
    put_u(&m->pairs, v, 4);
    m->n_pairs++;
}
static inline void pair_f32(Make *m, const char *key, float v) {
    put_str(&m->pairs, key);
    put_u(&m->pairs, 6, 4);
    put_f(&m->pairs, v);
    m->n_pairs++;
}
static inline void pair_bool(Make *m, const char *key, int v) {
    put_str(&m->pairs, key);
    put_u(&m->pairs, 7, 4);
    put_u(&m->pairs, (uint64_t)v, 1);
    m->n_pairs++;
}
static inline void pair_str(Make *m, const char *key, const char *v) {
    put_str(&m->pairs, key);
    put_u(&m->pairs, 8, 4);
    put_str(&m->pairs, v);
    m->n_pairs++;
}
static inline void pair_strs(Make *m, const char *key, const char *const *v, size_t n) {
    put_str(&m->pairs, key);
    put_u(&m->pairs, 9, 4);
    put_u(&m->pairs, 8, 4);
    put_u(&m->pairs, n, 8);
    for (size_t i = 0; i < n; i++) put_str(&m->pairs, v[i]);
    m->n_pairs++;
}
static inline void pair_i32s(Make *m, const char *key, const int *v, size_t n) {
    put_str(&m->pairs, key);
    put_u(&m->pairs, 9, 4);
    put_u(&m->pairs, 5, 4);
    put_u(&m->pairs, n, 8);
    for (size_t i = 0; i < n; i++) put_u(&m->pairs, (uint32_t)v[i], 4);
    m->n_pairs++;
}
static inline void pair_f32s(Make *m, const char *key, const float *v, size_t n) {
    put_str(&m->pairs, key);
    put_u(&m->pairs, 9, 4);
    put_u(&m->pairs, 6, 4);
    put_u(&m->pairs, n, 8);
    for (size_t i = 0; i < n; i++) put_f(&m->pairs, v[i]);
    m->n_pairs++;
}
/* rows x cols (rows 0: a vector), already encoded as `type`. */
static inline void tensor(Make *m, const char *name, size_t rows, size_t cols, uint32_t type, const void *data,
                          size_t bytes) {
    static const unsigned char zero[32];
    put_str(&m->list, name);
    put_u(&m->list, rows ? 2 : 1, 4);
    put_u(&m->list, cols, 8);
    if (rows) put_u(&m->list, rows, 8);
    put_u(&m->list, type, 4);
    put_u(&m->list, m->data.n, 8);
    put(&m->data, data, bytes);
    put(&m->data, zero, (32 - m->data.n % 32) % 32);
    m->n_tensors++;
}
static inline Bytes make_file(const Make *m, uint32_t version) {
    static const unsigned char zero[32];
    Bytes b = {0};
    put(&b, "GGUF", 4);
    put_u(&b, version, 4);
    put_u(&b, m->n_tensors, 8);
    put_u(&b, m->n_pairs, 8);
    put(&b, m->pairs.p, m->pairs.n);
    put(&b, m->list.p, m->list.n);
    put(&b, zero, (32 - b.n % 32) % 32);
    put(&b, m->data.p, m->data.n);
    return b;
}
static inline void make_free(Make *m) {
    free(m->pairs.p);
    free(m->list.p);
    free(m->data.p);
    memset(m, 0, sizeof *m);
}

#endif
