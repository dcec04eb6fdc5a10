/* fuzz_tokenizer.c - any bytes as tokenizer.json: refused with one line, or a tokenizer that works on a few
 * texts. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const Tokenizer *t, const char *text, size_t n) {
    for (int flags = 0; flags < 4; flags++) {
        Ids ids = {0};
        Err e = {0};
        char *out = NULL, bytes[64];
        size_t len = 0;
        if (tokenizer_encode(t, text, n, flags, &ids, &e)) abort(); // only memory can fail, and here it does not
        for (size_t i = 0; i < ids.n; i++) {
            size_t token_len;
            if (ids.id[i] < 0 || ids.id[i] >= tokenizer_size(t)) abort();
            const char *token = tokenizer_token(t, ids.id[i], &token_len);
            if (!token || tokenizer_id(t, token, token_len) != ids.id[i]) abort();
            if (tokenizer_bytes(t, ids.id[i], bytes, sizeof bytes) > sizeof bytes) abort();
        }
        if (tokenizer_decode(t, ids.id, ids.n, flags & 1, &out, &len, &e)) abort();
        mem_free(out);
        ids_free(&ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = " ab  <s>aab\xE2\x96\x81 \xE2\x96\x81"
                               "e\xCC\x81 12\n\n 'S\xFF\xF0\x9F\x98\x80 <0x41>";
    const size_t before = mem_now();
    Err e = {0};
    Tokenizer *t;
    const int rc = tokenizer_parse(&t, (const char *)data, size, "fuzz", &e);
    if ((rc != OK) == (t != NULL) || (rc && !e.msg[0])) abort();
    if (t) {
        use(t, text, strlen(text));
        use(t, (const char *)data, size < 300 ? size : 300);
    }
    tokenizer_close(t);
    if (mem_now() != before) abort();
    return 0;
}
