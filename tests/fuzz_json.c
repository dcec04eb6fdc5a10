/* fuzz_json.c - any bytes as JSON: no crash, no leak; what is accepted is a fixed point of parse and write;
 * walking over an object's members finds what the tree has. */
#include "base/mem.h"
#include "base/json.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* Every node once, by the public accessors, members also by key. Returns how many there were. */
static size_t visit(const Json *j, JsonRef r) {
    size_t n = 1, children = 0, len;
    for (JsonRef c = json_first(j, r); c >= 0; c = json_next(j, c), children++) {
        const char *key = json_key(j, c, &len);
        /* a later twin is fine */
        if (json_kind(j, r) == JSON_OBJECT && strlen(key) == len && json_get(j, r, key) < c) abort();
        if (c <= r) abort();
        n += visit(j, c);
    }
    const char *s = json_str(j, r, &len);
    if (s && s[len]) abort();
    if (children != json_size(j, r)) abort();
    return n;
}

static void write_again(const Json *j, JsonOut *o) {
    json_out_begin(o, 0);
    json_out_node(o, NULL, j, 0);
    if (json_out_end(o, NULL)) abort();
}

/* The members by json_walk, each parsed by itself, against the tree j (NULL: there is none, but an object that is
 * refused as a whole may only be wrong in what a walk does not see: a key twice). */
static void walk(const char *text, size_t size, const Json *j) {
    JsonWalk w;
    Err e = {0};
    void *keys;
    size_t members, bytes, len, n = 0;
    int found = 1;
    json_walk_count(text, size, &members, &bytes);
    if (mem_alloc(&keys, bytes + 1, "keys", &e)) abort();
    JsonRef r = j ? json_first(j, 0) : -1;
    int rc = json_walk_open(&w, text, size, "walk", &e);
    for (char *key = keys; !rc; key += len + 1, n++) {
        Json part;
        if ((rc = json_walk_next(&w, key, &len, &found, &e)) || !found) break;
        if ((rc = json_parse_part(&part, text, w.begin, w.end, 1, "walk", &e))) break;
        if (j) {
            size_t want;
            const char *name = json_key(j, r, &want);
            if (!name || want != len || memcmp(name, key, len) || json_kind(j, r) != json_kind(&part, 0)) abort();
            if (json_size(j, r) != json_size(&part, 0)) abort();
            r = json_next(j, r);
        }
        json_free(&part);
    }
    if (rc && (rc != ERR_INPUT || !e.msg[0])) abort();
    if (j && json_kind(j, 0) == JSON_OBJECT && (rc || r >= 0 || n != json_size(j, 0))) abort();
    if (!rc && n > members) abort();
    mem_free(keys);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    Json j, again;
    JsonOut a, b;
    Err e = {0};
    size_t before = mem_now();
    int rc = json_parse(&j, (const char *)data, size, "fuzz", &e);
    if (rc && (rc != ERR_INPUT || !e.msg[0] || j.node)) abort();
    int lenient = json_parse_flags(&again, (const char *)data, size, "fuzz", JSON_LAST_WINS, NULL);
    if (lenient && !rc) abort();
    if (!lenient && visit(&again, 0) != again.n) abort();
    json_free(&again);
    walk((const char *)data, size, rc ? NULL : &j);
    if (!rc) {
        write_again(&j, &a);
        if (json_parse(&again, a.text, a.len, "again", NULL) || again.n != j.n) abort();
        write_again(&again, &b);
        if (a.len != b.len || memcmp(a.text, b.text, a.len)) abort();
        json_out_free(&a);
        json_out_free(&b);
        json_free(&again);
        json_free(&j);
    }
    if (mem_now() != before) abort();
    return 0;
}
