/* json.c - the strict JSON reader. See json.h; the writer is json_out.c.
 *
 * Three ideas keep it short and safe. (1) scan_bounds() walks the text once, counting what can become nodes,
 * string bytes and members; the parser then fills blocks of exactly that size and never grows anything. (2)
 * An explicit stack of 128 levels instead of recursion. (3) Members of objects with more than SMALL members
 * go into one hash table of (object, key), which finds duplicates while parsing and members afterwards.
 * Strings and numbers are read in json_lex.c. */
#include "base/json.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/what_is.h"
#include "base/json_lex.h"
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = JSON_MAX_DEPTH, SMALL = 8, FREE_BYTES = 48 << 20 };

struct JsonNode {
    int kind;
    JsonRef next;          /* sibling, -1 after the last */
    uint32_t key, key_len; /* into strings; members of objects only */
    union {
        int64_t i;
        uint64_t u;
        double d;
        struct {
            uint32_t at, len;
        } s;
        struct {
            JsonRef first;
            uint32_t n;
        } c;
    } v;
};

typedef struct {
    JsonRef object, child;
} Slot; /* child + 1, so that zeroed means empty */
typedef struct {
    uint64_t seed;
    size_t mask;
    Slot slot[];
} Index;

/* ---- the index ---- */

/* Seeded by an address, which address-space randomisation varies: a file cannot be made to collide on
 * purpose. The seed decides only where a member is stored, never what is found or in which order. */
static uint64_t key_hash(uint64_t seed, JsonRef object, const char *key, size_t len) {
    return hash_bytes(seed + (uint64_t)(unsigned)object * UINT64_C(0x9e3779b97f4a7c15), key, len);
}

static int key_is(const Json *j, JsonRef child, const char *key, size_t len) {
    const JsonNode *m = &j->node[child];
    return m->key_len == len && !memcmp(j->strings + m->key, key, len);
}

/* The slot that holds (object, key), or the empty one where it belongs. The table is never more than 2/3
 * full. */
static Slot *index_slot(const Json *j, JsonRef object, const char *key, size_t len) {
    Index *x = j->index;
    size_t i = (size_t)key_hash(x->seed, object, key, len) & x->mask;
    while (x->slot[i].child && !(x->slot[i].object == object && key_is(j, x->slot[i].child - 1, key, len)))
        i = (i + 1) & x->mask;
    return &x->slot[i];
}

static void index_put(const Json *j, JsonRef object, JsonRef child) {
    const JsonNode *m = &j->node[child];
    *index_slot(j, object, j->strings + m->key, m->key_len) = (Slot){object, child + 1};
}

JsonRef json_get(const Json *j, JsonRef object, const char *key) {
    if (json_kind(j, object) != JSON_OBJECT) return -1;
    size_t len = strlen(key);
    const JsonNode *o = &j->node[object];
    if (o->v.c.n > SMALL) return index_slot(j, object, key, len)->child - 1;
    JsonRef found = -1; /* the last one, for JSON_LAST_WINS */
    for (JsonRef c = o->v.c.first; c >= 0; c = j->node[c].next)
        if (key_is(j, c, key, len)) found = c;
    return found;
}

/* ---- the parser ---- */

typedef struct {
    Json *j;
    JsonLex lex;
    size_t nodes, bytes; /* capacities of j->node and j->strings */
    size_t used;         /* of strings */
    unsigned flags;
    int depth, outer; /* containers open in this text, and around it */
    struct {
        JsonRef container, last;
    } stack[MAX_DEPTH + 1];
} Parser;

/* Upper bounds of nodes, string bytes (with a NUL each) and members. A value starts at the root or after one
 * of [ { , and the scan sees the same quotes as the parser up to the first error. It stops where the parser
 * is bound to stop (a comma without a value, too deep), so that garbage cannot ask for much memory: a node
 * takes at least two bytes of text. */
static void scan_bounds(const unsigned char *t, size_t len, size_t *nodes, size_t *bytes, size_t *members) {
    int depth = 0;
    unsigned char last = '[';
    *nodes = 1;
    *bytes = 1;
    *members = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = t[i];
        if (c == ' ' || c == '\n' || c == '\t' || c == '\r') continue;
        if (c == '"') {
            size_t start = i;
            for (i++; i < len && t[i] != '"'; i++) i += t[i] == '\\';
            *bytes += i - start + 1;
        } else if (c == ',') {
            if (last == ',' || last == '[' || last == '{' || last == ':') return;
            ++*nodes;
        } else if (c == '[' || c == '{') {
            if (++depth > MAX_DEPTH) return;
            ++*nodes;
        } else if (c == ']' || c == '}') {
            depth--;
        } else if (c == ':') {
            ++*members;
        }
        last = c;
    }
}

/* The string at the reading position, decoded into j->strings. */
static int parse_string(Parser *p, uint32_t *at, uint32_t *len) {
    size_t n = 0;
    TRY(lex_string(&p->lex, p->j->strings + p->used, &n));
    *at = (uint32_t)p->used;
    *len = (uint32_t)n;
    p->used += n + 1;
    return OK;
}

static int parse_number(Parser *p, JsonNode *node) {
    JsonNumber x = {0};
    TRY(lex_number(&p->lex, &x));
    node->kind = x.kind;
    if (x.kind == JSON_REAL) node->v.d = x.d;
    else if (x.kind == JSON_UINT) node->v.u = x.u;
    else node->v.i = x.i;
    return OK;
}

/* "key": of the innermost object, checked against its other keys. */
static int parse_key(Parser *p, uint32_t *at, uint32_t *len) {
    Json *j = p->j;
    JsonRef object = p->stack[p->depth].container, same = -1;
    lex_space(&p->lex);
    size_t start = p->lex.at;
    if (lex_peek(&p->lex) != '"') return lex_unexpected(&p->lex, "a key in double quotes");
    TRY(parse_string(p, at, len));
    const char *key = j->strings + *at;
    if (!(p->flags & JSON_LAST_WINS)) {
        if (j->node[object].v.c.n > SMALL) same = index_slot(j, object, key, *len)->child - 1;
        else
            for (JsonRef c = j->node[object].v.c.first; c >= 0 && same < 0; c = j->node[c].next)
                if (key_is(j, c, key, *len)) same = c;
    }
    if (same >= 0) {
        char msg[200];
        snprintf(msg, sizeof msg, "key \"%.120s\" appears twice in one object", key);
        return lex_fail(&p->lex, start, msg);
    }
    lex_space(&p->lex);
    if (lex_peek(&p->lex) != ':') return lex_unexpected(&p->lex, "':' after the key");
    p->lex.at++;
    return OK;
}

/* A new node, chained to the innermost container. */
static int node_new(Parser *p, uint32_t key, uint32_t key_len, JsonRef *out) {
    Json *j = p->j;
    if (j->n >= p->nodes || p->used > p->bytes)
        return lex_fail(&p->lex, p->lex.at, "internal: more values than scanned");
    JsonRef r = (JsonRef)j->n++, box = p->stack[p->depth].container;
    j->node[r] = (JsonNode){.next = -1, .key = key, .key_len = key_len};
    *out = r;
    if (box < 0) return OK;
    JsonNode *c = &j->node[box];
    if (p->stack[p->depth].last < 0) c->v.c.first = r;
    else j->node[p->stack[p->depth].last].next = r;
    p->stack[p->depth].last = r;
    c->v.c.n++;
    if (c->kind != JSON_OBJECT || c->v.c.n <= SMALL) return OK;
    if (c->v.c.n == SMALL + 1)
        for (JsonRef m = c->v.c.first; m >= 0; m = j->node[m].next) index_put(j, box, m);
    else index_put(j, box, r);
    return OK;
}

/* After a complete value: closes containers until a comma asks for the next value; *more = 0 at the end of
 * the root. */
static int parse_after(Parser *p, int *more) {
    while (p->depth) {
        int object = p->j->node[p->stack[p->depth].container].kind == JSON_OBJECT;
        lex_space(&p->lex);
        int c = lex_peek(&p->lex);
        if (c == ',') {
            p->lex.at++;
            *more = 1;
            return OK;
        }
        if (c != (object ? '}' : ']')) return lex_unexpected(&p->lex, object ? "',' or '}'" : "',' or ']'");
        p->lex.at++;
        p->depth--;
    }
    *more = 0;
    return OK;
}

static int parse_document(Parser *p) {
    int more = 1;
    p->stack[0].container = p->stack[0].last = -1;
    while (more) {
        uint32_t key = 0, key_len = 0;
        if (p->depth && p->j->node[p->stack[p->depth].container].kind == JSON_OBJECT) TRY(parse_key(p, &key, &key_len));
        lex_space(&p->lex);
        JsonRef r = 0;
        TRY(node_new(p, key, key_len, &r));
        JsonNode *node = &p->j->node[r];
        int c = lex_peek(&p->lex);
        if (c == '[' || c == '{') {
            if (p->depth + p->outer >= MAX_DEPTH) return lex_fail(&p->lex, p->lex.at, "nested more than 128 deep");
            node->kind = c == '{' ? JSON_OBJECT : JSON_ARRAY;
            node->v.c.first = -1;
            p->lex.at++;
            lex_space(&p->lex);
            if (lex_peek(&p->lex) != (c == '{' ? '}' : ']')) {
                p->depth++;
                p->stack[p->depth].container = r;
                p->stack[p->depth].last = -1;
                continue;
            }
            p->lex.at++;
        } else if (c == '"') {
            node->kind = JSON_STRING;
            TRY(parse_string(p, &node->v.s.at, &node->v.s.len));
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            TRY(parse_number(p, node));
        } else TRY(lex_word(&p->lex, &node->kind));
        TRY(parse_after(p, &more));
    }
    lex_space(&p->lex);
    return p->lex.at < p->lex.len ? lex_unexpected(&p->lex, "nothing after the end of the document") : OK;
}

/* Takes the three blocks. A tree of more than twice the text and FREE_BYTES is not built:
 * no file that we read has reason to be millions of little numbers, and a hostile one could ask for twelve times its
 * size. */
static int parse_room(Parser *p) {
    Json *j = p->j;
    size_t members, slots = 16;
    const size_t len = p->lex.len - p->lex.at;
    scan_bounds(p->lex.t + p->lex.at, len, &p->nodes, &p->bytes, &members);
    while (slots < members + members / 2) slots *= 2;
    const size_t need = p->nodes * sizeof *j->node + p->bytes + slots * sizeof(Slot);
    if (need > 2 * len + FREE_BYTES)
        return err_set(p->lex.e, ERR_INPUT,
                       "%s: %zu values in %zu bytes of JSON would take %zu MB of memory, at most %zu are allowed",
                       j->file, p->nodes, len, need >> 20, (2 * len + FREE_BYTES) >> 20);
    void *node, *strings, *index;
    TRY(mem_alloc(&node, p->nodes * sizeof *j->node, j->file, p->lex.e));
    j->node = node;
    TRY(mem_alloc(&strings, p->bytes + 1, j->file, p->lex.e));
    j->strings = strings;
    if (members <= SMALL) return OK; // no object has enough of them to be looked up by hash
    TRY(mem_alloc(&index, sizeof(Index) + slots * sizeof(Slot), j->file, p->lex.e));
    j->index = index;
    *(Index *)index = (Index){.seed = (uint64_t)(uintptr_t)strings * UINT64_C(0x9e3779b97f4a7c15), .mask = slots - 1};
    return OK;
}

static int parse_begin(Parser *p) {
    static const unsigned char bom[] = {0xef, 0xbb, 0xbf};
    if (p->lex.len >= 3 && !memcmp(p->lex.t, bom, 3))
        return lex_fail(&p->lex, 0, "starts with a byte order mark, which JSON does not allow");
    if (p->lex.len >= (size_t)INT_MAX) return lex_fail(&p->lex, 0, "JSON text of 2 GiB or more is not supported");
    TRY(parse_room(p));
    return parse_document(p);
}

static int parse_any(Json *j, const JsonLex *lex, unsigned flags, int outer) {
    memset(j, 0, sizeof *j);
    snprintf(j->file, sizeof j->file, "%s", lex->file);
    Parser p; // its stack is not cleared: a safetensors header is a million little documents
    p.j = j;
    p.lex = *lex;
    p.lex.file = j->file;
    p.nodes = p.bytes = p.used = 0;
    p.flags = flags;
    p.depth = 0;
    p.outer = outer;
    const int rc = parse_begin(&p);
    if (rc) json_free(j);
    return rc;
}

int json_parse_flags(Json *j, const char *text, size_t len, const char *file, unsigned flags, Err *e) {
    return parse_any(j, &(JsonLex){.t = (const unsigned char *)text, .len = len, .file = file, .e = e}, flags, 0);
}

int json_parse_part(Json *j, const char *text, size_t begin, size_t end, int outer, const char *file, Err *e) {
    return parse_any(j, &(JsonLex){.t = (const unsigned char *)text, .len = end, .at = begin, .file = file, .e = e}, 0,
                     outer);
}

int json_parse(Json *j, const char *text, size_t len, const char *file, Err *e) {
    return json_parse_flags(j, text, len, file, 0, e);
}

int json_open(Json *j, const char *path, Err *e) {
    File f;
    memset(j, 0, sizeof *j);
    TRY(file_open(&f, path, e));
    const WhatIs is = what_is(f.data, f.size);
    int rc = is > IS_JSON && is != IS_BINARY ? what_is_refuse(is, path, "JSON", e)
                                             : json_parse(j, (const char *)f.data, f.size, path, e);
    file_close(&f);
    return rc;
}

void json_free(Json *j) {
    mem_free(j->node);
    mem_free(j->strings);
    mem_free(j->index);
    memset(j, 0, sizeof *j);
}

/* ---- access ---- */

static const JsonNode *node_at(const Json *j, JsonRef r) { return r >= 0 && (size_t)r < j->n ? &j->node[r] : NULL; }

JsonKind json_kind(const Json *j, JsonRef r) {
    const JsonNode *n = node_at(j, r);
    return n ? (JsonKind)n->kind : JSON_NULL;
}

static int is_container(const JsonNode *n) { return n && (n->kind == JSON_ARRAY || n->kind == JSON_OBJECT); }

size_t json_size(const Json *j, JsonRef r) {
    const JsonNode *n = node_at(j, r);
    return is_container(n) ? n->v.c.n : 0;
}

JsonRef json_first(const Json *j, JsonRef container) {
    const JsonNode *n = node_at(j, container);
    return is_container(n) ? n->v.c.first : -1;
}

JsonRef json_next(const Json *j, JsonRef child) {
    const JsonNode *n = node_at(j, child);
    return n ? n->next : -1;
}

const char *json_key(const Json *j, JsonRef child, size_t *len) {
    const JsonNode *n = node_at(j, child);
    if (len) *len = n ? n->key_len : 0;
    return n ? j->strings + n->key : "";
}

const char *json_str(const Json *j, JsonRef r, size_t *len) {
    const JsonNode *n = node_at(j, r);
    int is = n && n->kind == JSON_STRING;
    if (len) *len = is ? n->v.s.len : 0;
    return is ? j->strings + n->v.s.at : NULL;
}

/* ---- typed access ---- */

static int want_fail(const Json *j, JsonRef r, const char *what, const char *wanted, Err *e) {
    static const char *const names[] = {"null", "false", "true", "", "", "", "a string", "an array", "an object"};
    const JsonNode *n = node_at(j, r);
    char number[40];
    const char *got = n ? names[n->kind] : "nothing (the key is missing)";
    if (n && n->kind >= JSON_INT && n->kind <= JSON_REAL) {
        if (n->kind == JSON_INT) snprintf(number, sizeof number, "%lld", (long long)n->v.i);
        else if (n->kind == JSON_UINT) snprintf(number, sizeof number, "%llu", (unsigned long long)n->v.u);
        else snprintf(number, sizeof number, "the real number %.9g", n->v.d);
        got = number;
    }
    return err_set(e, ERR_INPUT, "%s: %s: got %s, expected %s", j->file, what, got, wanted);
}

int json_want_int(const Json *j, JsonRef r, const char *what, int64_t lo, int64_t hi, int64_t *out, Err *e) {
    const JsonNode *n = node_at(j, r);
    if (n && n->kind == JSON_INT && n->v.i >= lo && n->v.i <= hi) {
        *out = n->v.i;
        return OK;
    }
    char wanted[96];
    if (lo == INT64_MIN && hi == INT64_MAX) snprintf(wanted, sizeof wanted, "an integer");
    else if (hi == INT64_MAX) snprintf(wanted, sizeof wanted, "an integer >= %lld", (long long)lo);
    else snprintf(wanted, sizeof wanted, "an integer in [%lld, %lld]", (long long)lo, (long long)hi);
    return want_fail(j, r, what, wanted, e);
}

int json_want_u64(const Json *j, JsonRef r, const char *what, uint64_t *out, Err *e) {
    const JsonNode *n = node_at(j, r);
    if (!n || !((n->kind == JSON_INT && n->v.i >= 0) || n->kind == JSON_UINT))
        return want_fail(j, r, what, "an integer >= 0", e);
    *out = n->kind == JSON_INT ? (uint64_t)n->v.i : n->v.u;
    return OK;
}

int json_want_real(const Json *j, JsonRef r, const char *what, double *out, Err *e) {
    const JsonNode *n = node_at(j, r);
    if (n && n->kind == JSON_INT) *out = (double)n->v.i;
    else if (n && n->kind == JSON_UINT) *out = (double)n->v.u;
    else if (n && n->kind == JSON_REAL && isfinite(n->v.d)) *out = n->v.d;
    else return want_fail(j, r, what, "a finite number", e);
    return OK;
}

int json_want_bool(const Json *j, JsonRef r, const char *what, int *out, Err *e) {
    const JsonNode *n = node_at(j, r);
    if (!n || (n->kind != JSON_TRUE && n->kind != JSON_FALSE)) return want_fail(j, r, what, "true or false", e);
    *out = n->kind == JSON_TRUE;
    return OK;
}

int json_want_str(const Json *j, JsonRef r, const char *what, const char **out, size_t *len, Err *e) {
    const char *s = json_str(j, r, len);
    if (!s) return want_fail(j, r, what, "a string", e);
    *out = s;
    return OK;
}

/* The member to read, or -1 when *out is to stay as it is. */
static JsonRef optional(const Json *j, JsonRef object, const char *key) {
    JsonRef r = json_get(j, object, key);
    return json_kind(j, r) == JSON_NULL ? -1 : r;
}

int json_opt_int(const Json *j, JsonRef object, const char *key, int64_t lo, int64_t hi, int64_t *out, Err *e) {
    JsonRef r = optional(j, object, key);
    return r < 0 ? OK : json_want_int(j, r, key, lo, hi, out, e);
}

int json_opt_real(const Json *j, JsonRef object, const char *key, double *out, Err *e) {
    JsonRef r = optional(j, object, key);
    return r < 0 ? OK : json_want_real(j, r, key, out, e);
}

int json_opt_bool(const Json *j, JsonRef object, const char *key, int *out, Err *e) {
    JsonRef r = optional(j, object, key);
    return r < 0 ? OK : json_want_bool(j, r, key, out, e);
}

int json_opt_str(const Json *j, JsonRef object, const char *key, const char **out, Err *e) {
    JsonRef r = optional(j, object, key);
    return r < 0 ? OK : json_want_str(j, r, key, out, NULL, e);
}
