/* fuzz_safetensors.c - any bytes as a .safetensors file: no crash, no leak, and an accepted file keeps every promise of
 * safetensors.h: the tensors cover the data exactly, sizes match, names are found. */
#include "base/mem.h"
#include "io/safetensors.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void check(const Safetensors *s, const unsigned char *data, size_t size) {
    const unsigned char *at = data + 8 + s->header_bytes;
    unsigned sum = 0;
    for (size_t i = 0; i < s->n; i++) {
        const Tensor *t = &s->tensor[i];
        size_t count = 1;
        if (t->data != at || t->rank < 0 || t->rank > TENSOR_MAX_RANK) abort();
        for (int d = 0; d < t->rank; d++) count *= t->shape[d];
        if (count != t->count || count * (size_t)dtype_bits(t->dtype) != 8 * t->bytes) abort();
        for (size_t k = 0; k < t->bytes; k++) sum += t->data[k]; /* the sanitizer sees whether it may be read */
        if (safetensors_find(s, t->name) != t) abort();
        at += t->bytes;
    }
    if (at != data + size) abort();
    for (size_t i = 0; i < s->n_meta; i++) sum += (unsigned)(strlen(s->meta_key[i]) + strlen(s->meta_value[i]));
    if (sum == 0xdeadbeef && safetensors_find(s, "\xff")) abort(); /* keeps sum alive */
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    Safetensors s;
    Err e = {0};
    size_t before = mem_now();
    int rc = safetensors_parse(&s, data, size, "fuzz", &e);
    if (rc && (rc != ERR_INPUT || !e.msg[0] || s.tensor || s.index)) abort();
    if (!rc) check(&s, data, size);
    safetensors_close(&s);
    if (mem_now() != before) abort();
    return 0;
}
