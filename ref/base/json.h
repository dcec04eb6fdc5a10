/* json.h - a strict JSON reader and a small writer (RFC 8259; every verdict in ref/io/FORMATS.md 4).
 *
 * Parses (pointer, length) into a flat array of nodes: no recursion, depth <= 128, one pass, linear time, key lookup by
 * hash for large objects. Refuses: duplicate keys, trailing bytes, comments, NaN/Infinity (the message names Python),
 * lone surrogates, invalid UTF-8, a BOM. Integers keep all 64 bits (never through a double). Strings may contain NUL:
 * use the length.
 * Messages carry line and column. Memory: all taken before parsing, 24 bytes a value plus the strings plus 12 to 24
 * bytes a member; real tokenizer.json files take 2 bytes a byte. A text that would take more than twice its size and 48
 * MB is refused. */
#ifndef HYB_JSON_H
#define HYB_JSON_H
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

typedef enum {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_INT,
    JSON_UINT,
    JSON_REAL,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
} JsonKind;

typedef struct JsonNode JsonNode;
typedef struct {
    JsonNode *node; /* node[0] is the root; children of a container follow it, chained by next */
    size_t n;
    char *strings;  /* decoded string bytes */
    char file[256]; /* for messages */
    void *index;    /* hash of (object, key) */
} Json;
typedef int JsonRef; /* index of a node; -1 = absent; every accessor accepts -1 and reports "missing" */

/* Parses; on failure *j is zeroed and e says FILE:LINE:COL. The text may be freed afterwards. */
int json_parse(Json *j, const char *text, size_t len, const char *file, Err *e);
/* JSON_LAST_WINS takes an object with the same key twice, as Python does: json_get finds the last, json_next shows all.
 * For conformance tests (RFC 8259 leaves it open) and for looking at what other tools accept;
 * our own readers never use it. */
enum { JSON_LAST_WINS = 1 };
int json_parse_flags(Json *j, const char *text, size_t len, const char *file, unsigned flags, Err *e);
int json_open(Json *j, const char *path, Err *e); /* file_open + json_parse */
/* The one value in text[begin, end), which lies inside `outer` containers. Lines and columns are those of text. */
int json_parse_part(Json *j, const char *text, size_t begin, size_t end, int outer, const char *file, Err *e);
void json_free(Json *j);

/* From member to member of one large object, without a tree of it: a value is only delimited, json_parse_part judges
 * it. Whether a key came before is for the caller to see. */
typedef struct {
    const char *text, *file;
    size_t len, at;
    size_t begin, end; /* the value of the member that json_walk_next found: text[begin, end) */
    size_t key_at;     /* where its key stands, for json_walk_fail */
    int more;
} JsonWalk;
/* Upper bounds, found in one quick pass: members of the object in text, and bytes of their keys with a NUL each (exact
 * when no member is a string). */
void json_walk_count(const char *text, size_t len, size_t *members, size_t *key_bytes);
/* ERR_INPUT unless the text begins with { */
int json_walk_open(JsonWalk *w, const char *text, size_t len, const char *file, Err *e);
/* *found = 0 at the end of the object, after which only white space may come. key receives the decoded key and a NUL;
 * it must have room for what json_walk_count said. */
int json_walk_next(JsonWalk *w, char *key, size_t *key_len, int *found, Err *e);
/* "FILE:LINE:COL: what", the place being the last key's */
int json_walk_fail(const JsonWalk *w, const char *what, Err *e);

JsonKind json_kind(const Json *j, JsonRef r);
size_t json_size(const Json *j, JsonRef r);                       /* elements of an array, members of an object */
JsonRef json_get(const Json *j, JsonRef object, const char *key); /* -1 if absent or not an object */
JsonRef json_first(const Json *j, JsonRef container);             /* -1 when empty */
JsonRef json_next(const Json *j, JsonRef child);                  /* -1 after the last */
const char *json_key(const Json *j, JsonRef child, size_t *len);  /* key of an object's member; NUL-terminated too */
/* NULL if not a string; NUL-terminated too; len may be NULL */
const char *json_str(const Json *j, JsonRef r, size_t *len);

/* Typed access with messages: "FILE: KEY: got a string, expected an integer in [lo, hi]".
 * `what` is the key path to name. */
int json_want_int(const Json *j, JsonRef r, const char *what, int64_t lo, int64_t hi, int64_t *out, Err *e);
int json_want_u64(const Json *j, JsonRef r, const char *what, uint64_t *out, Err *e);
int json_want_real(const Json *j, JsonRef r, const char *what, double *out, Err *e); /* finite only */
int json_want_bool(const Json *j, JsonRef r, const char *what, int *out, Err *e);
int json_want_str(const Json *j, JsonRef r, const char *what, const char **out, size_t *len, Err *e);
/* The same for an optional member: *out is left as it was when the key is absent or null. */
int json_opt_int(const Json *j, JsonRef object, const char *key, int64_t lo, int64_t hi, int64_t *out, Err *e);
int json_opt_real(const Json *j, JsonRef object, const char *key, double *out, Err *e);
int json_opt_bool(const Json *j, JsonRef object, const char *key, int *out, Err *e);
int json_opt_str(const Json *j, JsonRef object, const char *key, const char **out, Err *e);

/* Writer: grows a text buffer; keys in call order; 2-space indent when pretty. Numbers: integers exactly,
 * doubles shortest round-trip (%.17g reduced), never locale dependent; NaN and Inf are written as null. */
typedef struct {
    char *text;
    size_t len, cap;
    int depth, pretty, failed; /* failed: out of memory; check once at the end through json_out_end */
    char comma[130];
    int begun; /* internal: the key is written, the value follows */
} JsonOut;
void json_out_begin(JsonOut *o, int pretty);
void json_out_object(JsonOut *o, const char *key); /* key NULL inside arrays and at the root */
void json_out_array(JsonOut *o, const char *key);
void json_out_close(JsonOut *o); /* the innermost object or array */
void json_out_str(JsonOut *o, const char *key, const char *s);
void json_out_strn(JsonOut *o, const char *key, const char *s, size_t n); /* invalid UTF-8 becomes U+FFFD */
void json_out_int(JsonOut *o, const char *key, int64_t v);
void json_out_u64(JsonOut *o, const char *key, uint64_t v);
void json_out_real(JsonOut *o, const char *key, double v);
void json_out_bool(JsonOut *o, const char *key, int v);
void json_out_null(JsonOut *o, const char *key);
/* n bytes of finished JSON, e.g. json_text's */
void json_out_raw(JsonOut *o, const char *key, const char *json, size_t n);
/* ERR_MEMORY if it ran out; text is NUL-terminated and stays valid until json_out_free */
int json_out_end(JsonOut *o, Err *e);
void json_out_free(JsonOut *o);
/* Writes node r of j again (for copying unknown members of a config). */
void json_out_node(JsonOut *o, const char *key, const Json *j, JsonRef r);

#endif
