/* tokenizer_decode.c - ids -> text. */
#include <string.h>
#include "base/mem.h"
#include "text/tokenizer_parts.h"

/* DECODE_BYTES: every character is a letter of the byte alphabet; a token with any other character stands for
 * its own text. */
static void put_bytes(TextBuf *out, const char *s, size_t n) {
    const size_t begin = out->len;
    uint32_t c;
    for (size_t i = 0; i < n;) {
        i += utf8_decode(s + i, n - i, &c);
        const char b = (char)letter_byte(c);
        if (letter_byte(c) < 0) {
            out->len = begin;
            textbuf_put(out, s, n);
            return;
        }
        textbuf_put(out, &b, 1);
    }
}

static void put_meta(TextBuf *out, const char *s, size_t n, int drop) {
    static const Literal meta = {META, 3}, space = {" ", 1}, none = {"", 0};
    put_replaced(out, &meta, drop ? &none : &space, s, n);
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The value of a token <0x00> ... <0xFF>, or -1. */
static int byte_value(const char *s, size_t n) {
    if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>' || hex(s[3]) < 0 || hex(s[4]) < 0) return -1;
    return hex(s[3]) * 16 + hex(s[4]);
}

/* Appends what one token stands for; 1 if it was a byte token (DECODE_CHAIN only). */
static int put_token(const Tokenizer *t, const VocabEntry *entry, int first, TextBuf *out) {
    const Decoder *d = &t->decoder;
    const char *s = t->vocab.text.text + entry->at;
    if (d->kind == DECODE_BYTES) put_bytes(out, s, entry->len);
    if (d->kind == DECODE_META) put_meta(out, s, entry->len, first && d->drop_first);
    if (d->kind != DECODE_CHAIN) return 0;
    const size_t at = out->len;
    steps_normalize(d->replace, d->n_replace, s, entry->len, out);
    const int byte = d->byte_fallback && !out->failed ? byte_value(out->text + at, out->len - at) : -1;
    if (byte < 0) return 0;
    out->len = at;
    textbuf_put(out, &(char){(char)byte}, 1);
    return 1;
}

/* A run of byte tokens that is not UTF-8 as a whole becomes one U+FFFD a byte (Hugging Face's ByteFallback).
 */
static void close_run(TextBuf *out, size_t begin) {
    if (out->failed || utf8_valid(out->text + begin, out->len - begin)) return;
    const size_t n = out->len - begin;
    out->len = begin;
    for (size_t i = 0; i < n; i++) textbuf_puts(out, "\xEF\xBF\xBD");
}

static void strip(const Decoder *d, TextBuf *b) {
    size_t from = 0;
    const size_t len = d->strip.n;
    for (size_t i = 0; i < d->strip_start && b->len - from >= len && !memcmp(b->text + from, d->strip.s, len); i++)
        from += len;
    for (size_t i = 0; i < d->strip_stop && b->len - from >= len && !memcmp(b->text + b->len - len, d->strip.s, len);
         i++)
        b->len -= len;
    if (from) memmove(b->text, b->text + from, b->len - from);
    b->len -= from;
}

static int append(char **text, size_t *len, const TextBuf *b, Err *e) {
    const size_t have = *text ? *len : 0; // nothing there yet: whatever *len holds does not count
    TRY(mem_grow((void **)text, have, have + b->len + 1, "decoded text", e));
    if (b->len) memcpy(*text + have, b->text, b->len);
    *len = have + b->len;
    (*text)[*len] = 0;
    return OK;
}

int tokenizer_decode(const Tokenizer *t, const int *ids, size_t n, int skip_special, char **text, size_t *len, Err *e) {
    TextBuf raw = {0}, good = {0};
    size_t run = 0;
    int in_run = 0, first = 1;
    for (size_t i = 0; i < n; i++) {
        const VocabEntry *entry = vocab_by_id(&t->vocab, ids[i]);
        if (!entry || (skip_special && entry->special)) continue;
        const size_t at = raw.len;
        const int byte = put_token(t, entry, first, &raw);
        first = 0;
        if (byte && !in_run) run = at;
        if (!byte && in_run && !raw.failed) { // the run ended before this token: close it, then write the token again
            raw.len = at;
            close_run(&raw, run);
            put_token(t, entry, first, &raw);
        }
        in_run = byte;
    }
    if (in_run) close_run(&raw, run);
    int rc = textbuf_end(&raw, e);
    if (!rc && t->decoder.kind == DECODE_CHAIN) strip(&t->decoder, &raw);
    const int valid = rc || utf8_valid(raw.text, raw.len);
    if (!valid) {
        utf8_repair(&good, raw.text, raw.len);
        rc = textbuf_end(&good, e);
    }
    if (!rc) rc = append(text, len, valid ? &raw : &good, e);
    textbuf_free(&raw);
    textbuf_free(&good);
    return rc;
}

size_t tokenizer_bytes(const Tokenizer *t, int id, char *buf, size_t cap) {
    const VocabEntry *entry = vocab_by_id(&t->vocab, id);
    if (!entry) return 0;
    TextBuf b = {0};
    put_token(t, entry, 0, &b);
    const size_t n = b.failed ? 0 : b.len < cap ? b.len : cap;
    if (n) memcpy(buf, b.text, n);
    textbuf_free(&b);
    return n;
}
