/* json_out.c - the JSON writer. See json.h. */
#include "base/json.h"
#include "base/text_buf.h"
#include "base/utf8.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 128, HAS_ELEMENTS = 1, IS_OBJECT = 2 }; /* bits of comma[depth] */

static void emit(JsonOut *o, const char *s, size_t n) {
    TextBuf b = {o->text, o->len, o->cap, o->failed};
    textbuf_put(&b, s, n);
    o->text = b.text, o->len = b.len, o->cap = b.cap, o->failed = b.failed;
}

static void emit_line(JsonOut *o) {
    if (!o->pretty) return;
    emit(o, "\n", 1);
    for (int i = 0; i < o->depth; i++) emit(o, "  ", 2);
}

static void emit_string(JsonOut *o, const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    emit(o, "\"", 1);
    for (size_t i = 0, w; i < n; i += w) {
        char escape[8];
        static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
        const char *k = p[i] ? strchr(from, p[i]) : NULL;
        w = 1;
        if (k) {
            snprintf(escape, sizeof escape, "\\%c", to[k - from]);
            emit(o, escape, 2);
        } else if (p[i] < 0x20) {
            snprintf(escape, sizeof escape, "\\u%04x", p[i]);
            emit(o, escape, 6);
        } else if ((w = utf8_length(p + i, n - i)) > 0) {
            emit(o, s + i, w);
        } else {
            emit(o, "\xef\xbf\xbd", 3); /* U+FFFD */
            w = 1;
        }
    }
    emit(o, "\"", 1);
}

/* What stands before a value: comma, new line, key. */
static void begin_value(JsonOut *o, const char *key, size_t key_len) {
    if (o->depth) {
        if (o->comma[o->depth] & HAS_ELEMENTS) emit(o, ",", 1);
        o->comma[o->depth] |= HAS_ELEMENTS;
        emit_line(o);
    }
    if (!key) return;
    emit_string(o, key, key_len);
    emit(o, o->pretty ? ": " : ":", o->pretty ? 2 : 1);
}

static void begin(JsonOut *o, const char *key) {
    if (!o->begun) begin_value(o, key, key ? strlen(key) : 0);
    o->begun = 0;
}

static void open_container(JsonOut *o, int bits) {
    if (o->depth >= MAX_DEPTH) {
        o->failed = 1; /* no reader would take it; our callers nest a handful of levels */
        return;
    }
    emit(o, bits & IS_OBJECT ? "{" : "[", 1);
    o->comma[++o->depth] = (char)bits;
}

void json_out_begin(JsonOut *o, int pretty) {
    memset(o, 0, sizeof *o);
    o->pretty = pretty;
}

void json_out_object(JsonOut *o, const char *key) {
    begin(o, key);
    open_container(o, IS_OBJECT);
}

void json_out_array(JsonOut *o, const char *key) {
    begin(o, key);
    open_container(o, 0);
}

void json_out_close(JsonOut *o) {
    if (!o->depth) return;
    int bits = o->comma[o->depth--];
    if (bits & HAS_ELEMENTS) emit_line(o);
    emit(o, bits & IS_OBJECT ? "}" : "]", 1);
}

void json_out_strn(JsonOut *o, const char *key, const char *s, size_t n) {
    begin(o, key);
    emit_string(o, s, n);
}

void json_out_str(JsonOut *o, const char *key, const char *s) { json_out_strn(o, key, s, strlen(s)); }

void json_out_raw(JsonOut *o, const char *key, const char *json, size_t n) {
    begin(o, key);
    emit(o, json, n);
}

void json_out_int(JsonOut *o, const char *key, int64_t v) {
    char s[32];
    json_out_raw(o, key, s, (size_t)snprintf(s, sizeof s, "%lld", (long long)v));
}

void json_out_u64(JsonOut *o, const char *key, uint64_t v) {
    char s[32];
    json_out_raw(o, key, s, (size_t)snprintf(s, sizeof s, "%llu", (unsigned long long)v));
}

void json_out_real(JsonOut *o, const char *key, double v) {
    char s[40];
    if (!isfinite(v)) {
        json_out_null(o, key);
        return;
    }
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(s, sizeof s, "%.*g", digits, v);
        if (strtod(s, NULL) == v) break;
    }
    if (!strpbrk(s, ".e")) n += snprintf(s + n, sizeof s - (size_t)n, ".0"); /* stays a real for every reader */
    json_out_raw(o, key, s, (size_t)n);
}

void json_out_bool(JsonOut *o, const char *key, int v) { json_out_raw(o, key, v ? "true" : "false", v ? 4 : 5); }

void json_out_null(JsonOut *o, const char *key) { json_out_raw(o, key, "null", 4); }

int json_out_end(JsonOut *o, Err *e) {
    while (o->depth) json_out_close(o);
    if (o->pretty) emit(o, "\n", 1);
    emit(o, "", 0);
    return o->failed ? err_set(e, ERR_MEMORY, "JSON text: out of memory after %zu bytes", o->len) : OK;
}

void json_out_free(JsonOut *o) {
    TextBuf b = {o->text, o->len, o->cap, o->failed};
    textbuf_free(&b);
    memset(o, 0, sizeof *o);
}

void json_out_node(JsonOut *o, const char *key, const Json *j, JsonRef r) {
    JsonKind kind = json_kind(j, r);
    double d = INFINITY; /* a number like 1e999 has no other way to be written than null */
    int64_t i = 0;
    uint64_t u = 0;
    size_t len;
    const char *s = json_str(j, r, &len);
    if (s) json_out_strn(o, key, s, len);
    else if (kind == JSON_INT) json_want_int(j, r, "", INT64_MIN, INT64_MAX, &i, NULL), json_out_int(o, key, i);
    else if (kind == JSON_UINT) json_want_u64(j, r, "", &u, NULL), json_out_u64(o, key, u);
    else if (kind == JSON_REAL) json_want_real(j, r, "", &d, NULL), json_out_real(o, key, d);
    else if (kind == JSON_TRUE || kind == JSON_FALSE) json_out_bool(o, key, kind == JSON_TRUE);
    else if (kind == JSON_NULL) json_out_null(o, key);
    else {
        if (kind == JSON_OBJECT) json_out_object(o, key);
        else json_out_array(o, key);
        for (JsonRef c = json_first(j, r); c >= 0;
             c = json_next(j, c)) { /* at most 128 levels: the reader refuses more */
            if (kind == JSON_OBJECT) {
                s = json_key(j, c, &len);
                begin_value(o, s, len); /* a key may contain NUL, which the public functions cannot pass on */
                o->begun = 1;
            }
            json_out_node(o, NULL, j, c);
        }
        json_out_close(o);
    }
}
