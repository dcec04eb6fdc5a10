/* fuzz_gguf.c - any bytes as a GGUF file: no crash, no leak, and an accepted file keeps every promise of gguf.h:
 * values and tensors lie inside it, names are found, types and sizes agree, and numbers can be made of the first
 * blocks. */
#include "base/mem.h"
#include "io/gguf.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static int gguf_inside(const void *p, size_t n, const unsigned char *data, size_t size) {
    const unsigned char *at = p;
    return at >= data && at <= data + size && n <= (size_t)(data + size - at);
}

static void gguf_value_check(const GgufValue *v, const unsigned char *data, size_t size) {
    if (!gguf_inside(v->key, v->key_len, data, size) ||
        !gguf_inside(v->data, v->type == GGUF_STRING ? v->n : v->bytes, data, size))
        abort();
    if (v->type != GGUF_ARRAY) return;
    size_t at = 0, len;
    const char *s;
    for (size_t i = 0; i < v->n && i < 100; i++) {
        if (v->element == GGUF_STRING) {
            gguf_next_str(v, &at, &s, &len);
            if (!gguf_inside(s, len, data, size)) abort();
        } else if (v->element == GGUF_F32 || v->element == GGUF_F64) gguf_real_at(v, i);
        else gguf_int_at(v, i);
    }
}

static void gguf_tensor_check(const Gguf *g, const GgufTensor *t, const unsigned char *data, size_t size) {
    char name[256];
    float row[256];
    if (t->len >= sizeof name || !gguf_inside(t->name, t->len, data, size) ||
        !gguf_inside(t->data, t->bytes, data, size))
        abort();
    memcpy(name, t->name, t->len);
    name[t->len] = 0;
    if (gguf_find(g, name) != t) abort();
    const size_t block = ggml_block(t->type);
    if (!block || block > 256 || t->count % block || t->count / block * ggml_block_bytes(t->type) != t->bytes) abort();
    if (t->count) gguf_dequantise(row, t, t->count - block, block);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    Gguf g;
    Err e = {0};
    const size_t before = mem_now();
    int64_t whole = 0;
    double real = 0;
    int yes = 0;
    const int rc = gguf_parse(&g, data, size, "fuzz", &e);
    if (rc && (rc != ERR_INPUT || !e.msg[0] || strchr(e.msg, '\n') || g.value || g.tensor)) abort();
    for (size_t i = 0; i < g.n_values; i++) gguf_value_check(&g.value[i], data, size);
    for (size_t i = 0; i < g.n; i++) gguf_tensor_check(&g, &g.tensor[i], data, size);
    gguf_opt_int(&g, "k", -5, 5, &whole, NULL);
    gguf_opt_real(&g, "k", &real, NULL);
    gguf_opt_bool(&g, "k", &yes, NULL);
    if (whole < -5 || whole > 5 || real != real || yes < 0 || yes > 1) abort();
    gguf_close(&g);
    if (mem_now() != before) abort();
    return 0;
}
