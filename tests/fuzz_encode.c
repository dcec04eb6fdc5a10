/* fuzz_encode.c - any bytes as text, for each tokenizer of testdata/tok (run it from the root of the
 * repository). What must hold: ids are tokens; the splitters cut a text into itself; byte-level decoding
 * without a normaliser inverts encoding of valid UTF-8; NFC is stable; a text is encoded the same when it is
 * encoded again behind other ids. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/json.h"
#include "text/split.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { KINDS = 9 };
static const struct {
    const char *name;
    int inverts;
} kind[KINDS] = {{"llama3", 1}, {"qwen_added", 0}, {"added_plain", 0},    {"gpt2_space", 0}, {"smol", 1},
                 {"holes", 0},  {"spm", 0},        {"spm_some_bytes", 0}, {"meta_always", 0}};

static Tokenizer *load(int k) {
    char path[128];
    Json j;
    JsonOut o;
    Err e = {0};
    Tokenizer *t;
    snprintf(path, sizeof path, "testdata/tok/%s.json", kind[k].name);
    if (json_open(&j, path, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    json_out_begin(&o, 0);
    json_out_node(&o, NULL, &j, json_get(&j, 0, "tokenizer"));
    if (json_out_end(&o, &e) || tokenizer_parse(&t, o.text, o.len, path, &e)) abort();
    json_out_free(&o);
    json_free(&j);
    return t;
}

static void check_text(const Tokenizer *t, int inverts, int flags, const char *s, size_t n) {
    Ids ids = {0}, again = {0};
    Err e = {0};
    char *out = NULL;
    size_t len = 0;
    if (tokenizer_encode(t, s, n, flags, &ids, &e)) abort();
    if (ids_push(&again, 3, &e) || tokenizer_encode(t, s, n, flags, &again, &e)) abort();
    if (again.n != ids.n + 1 || (ids.n && memcmp(again.id + 1, ids.id, ids.n * sizeof *ids.id))) abort();
    for (size_t i = 0; i < ids.n; i++)
        if (!tokenizer_token(t, ids.id[i], &len)) abort();
    len = 0;
    if (tokenizer_decode(t, ids.id, ids.n, 0, &out, &len, &e) || !utf8_valid(out, len)) abort();
    if (inverts && !(flags & TOKENIZE_SPECIAL) && utf8_valid(s, n) && (len != n || (n && memcmp(out, s, n)))) abort();
    mem_free(out);
    ids_free(&ids);
    ids_free(&again);
}

static void check_splits(const char *s, size_t n) {
    for (int k = 0; k < SPLIT_KINDS; k++)
        for (size_t i = 0, len; i < n; i += len) {
            len = split_next((SplitKind)k, s + i, n - i);
            if (len < 1 || len > n - i || !utf8_valid(s + i, len)) abort();
        }
}

static void check_nfc(const char *s, size_t n) {
    TextBuf once = {0}, twice = {0};
    nfc_normalize(&once, s, n);
    nfc_normalize(&twice, once.text, once.len);
    if (once.len != twice.len || (once.len && memcmp(once.text, twice.text, once.len))) abort();
    if (nfc_is_certain(s, n) && (once.len != n || (n && memcmp(once.text, s, n)))) abort();
    textbuf_free(&once);
    textbuf_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static Tokenizer *t[KINDS];
    if (size < 1) return 0;
    const int k = data[0] % KINDS, flags = data[0] / KINDS % 4;
    const char *s = (const char *)data + 1;
    const size_t n = size - 1;
    if (!t[k]) t[k] = load(k);
    check_text(t[k], kind[k].inverts, flags, s, n);
    TextBuf good = {0};
    utf8_repair(&good, s, n);
    if (!utf8_valid(good.text, good.len)) abort();
    check_splits(good.text, good.len);
    check_nfc(good.text, good.len);
    textbuf_free(&good);
    return 0;
}
