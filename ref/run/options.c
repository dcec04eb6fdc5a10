/* options.c - settings with names. See options.h. */
#include "run/options.h"
#include "run/checkpoint.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *field(const Option *r, void *options) { return (char *)options + r->offset; }
static const void *cfield(const Option *r, const void *options) { return (const char *)options + r->offset; }

const Option *options_find(const OptionTable *t, const char *key) {
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->row[i].key, key)) return &t->row[i];
    return NULL;
}

/* Edits between two keys (Levenshtein), for "did you mean". */
static int key_distance(const char *a, const char *b) {
    int row[64];
    const int n = (int)strlen(b);
    if (n >= 64 || strlen(a) >= 64) return 64;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 0; a[i]; i++) {
        int diagonal = row[0];
        row[0] = i + 1;
        for (int j = 0; j < n; j++) {
            int best = diagonal + (a[i] != b[j]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j + 1] + 1 < best) best = row[j + 1] + 1;
            diagonal = row[j + 1];
            row[j + 1] = best;
        }
    }
    return row[n];
}

static int key_unknown(const OptionTable *t, const char *key, Err *e) {
    const char *near = NULL, *dot = strrchr(key, '.');
    int best = 64;
    for (int i = 0; i < t->n; i++) {
        const char *row_dot = strrchr(t->row[i].key, '.');
        int d = key_distance(key, t->row[i].key);
        // "lr" may be meant as "stage2.lr", so a key's last part counts too
        const int tail = 1 + key_distance(dot ? dot + 1 : key, row_dot ? row_dot + 1 : t->row[i].key);
        if (tail < d) d = tail;
        if (d < best) best = d, near = t->row[i].key;
    }
    err_set(e, ERR_USAGE, "option '%s' is unknown", key);
    return near ? err_hint(e, "did you mean '%s'?", near) : e ? e->code : ERR_USAGE;
}

/* ---------------------------------------------------------------- text to value */

static int is_path(const Option *r) { return r->kind == OPT_PATH || r->kind == OPT_PATHS; }

static int value_bad(const Option *r, const char *value, Err *e) {
    if (r->kind == OPT_CHOICE)
        return err_set(e, ERR_USAGE, "option '%s': got '%s', expected one of %s", r->key, value, r->choices);
    if (r->kind == OPT_TEXT || is_path(r))
        return err_set(e, ERR_USAGE, "option '%s': longer than %g bytes", r->key, r->hi - 1);
    if (r->kind == OPT_BOOL)
        return err_set(e, ERR_USAGE, "option '%s': got '%s', expected true or false", r->key, value);
    if (r->kind == OPT_U64)
        return err_set(e, ERR_USAGE, "option '%s': got '%s', expected an integer >= 0", r->key, value);
    return err_set(e, ERR_USAGE, "option '%s': got '%s', expected %s from %g to %g", r->key, value,
                   r->kind == OPT_REAL ? "a number" : "an integer", r->lo, r->hi);
}

/* "100_000_000" as in the official files: underscores between digits are dropped. */
static int integer_parse(const char *s, int64_t *out) {
    char digits[40], *end;
    size_t n = 0;
    for (; *s && n + 1 < sizeof digits; s++)
        if (*s != '_') digits[n++] = *s;
    digits[n] = 0;
    errno = 0;
    *out = strtoll(digits, &end, 10);
    return n && !*s && !*end && !errno && digits[0] != ' ' && digits[0] != '+';
}

static int choice_parse(const char *choices, const char *value) {
    const size_t n = strlen(value);
    int i = 0;
    for (const char *s = choices; *s; i++) {
        const size_t len = strcspn(s, "|");
        if (len == n && !memcmp(s, value, n)) return i;
        s += len + (s[len] == '|');
    }
    return -1;
}

static int integer_set(const Option *r, void *options, const char *value, Err *e) {
    int64_t v;
    if (!integer_parse(value, &v) || (double)v < r->lo || (double)v > r->hi) return value_bad(r, value, e);
    if (r->kind == OPT_INT) *(int *)field(r, options) = (int)v;
    else *(int64_t *)field(r, options) = v;
    return OK;
}

static int option_set(const Option *r, void *options, const char *value, Err *e) {
    char *end;
    double v;
    int choice;
    switch (r->kind) {
    case OPT_INT:
    case OPT_I64:
        return integer_set(r, options, value, e);
    case OPT_U64:
        errno = 0;
        if (value[0] < '0' || value[0] > '9') return value_bad(r, value, e);
        *(uint64_t *)field(r, options) = strtoull(value, &end, 10);
        return errno || *end ? value_bad(r, value, e) : OK;
    case OPT_REAL:
        v = strtod(value, &end);
        if (end == value || *end || !isfinite(v) || v < r->lo || v > r->hi) return value_bad(r, value, e);
        *(double *)field(r, options) = v;
        return OK;
    case OPT_BOOL:
        choice = choice_parse("false|true|0|1|no|yes", value);
        if (choice < 0) return value_bad(r, value, e);
        *(int *)field(r, options) = choice % 2;
        return OK;
    case OPT_TEXT:
    case OPT_PATH:
    case OPT_PATHS:
        if (strlen(value) >= (size_t)r->hi) return value_bad(r, value, e);
        memcpy(field(r, options), value, strlen(value) + 1);
        return OK;
    case OPT_CHOICE:
        choice = choice_parse(r->choices, value);
        if (choice < 0) return value_bad(r, value, e);
        *(int *)field(r, options) = choice;
        return OK;
    }
    return ERR_USAGE;
}

int options_set(const OptionTable *t, void *options, const char *key, const char *value, Err *e) {
    const Option *r = options_find(t, key);
    return r ? option_set(r, options, value, e) : key_unknown(t, key, e);
}

/* ---------------------------------------------------------------- value to text */

/* The shortest decimal that reads back as v. */
static void real_text(double v, char *dst, size_t cap) {
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(dst, cap, "%.*g", digits, v);
        if (strtod(dst, NULL) == v) return;
    }
}

void options_get(const Option *r, const void *options, char *dst, size_t cap) {
    const void *p = cfield(r, options);
    switch (r->kind) {
    case OPT_INT:
        snprintf(dst, cap, "%d", *(const int *)p);
        return;
    case OPT_I64:
        snprintf(dst, cap, "%" PRId64, *(const int64_t *)p);
        return;
    case OPT_U64:
        snprintf(dst, cap, "%" PRIu64, *(const uint64_t *)p);
        return;
    case OPT_REAL:
        real_text(*(const double *)p, dst, cap);
        return;
    case OPT_BOOL:
        snprintf(dst, cap, "%s", *(const int *)p ? "true" : "false");
        return;
    case OPT_TEXT:
    case OPT_PATH:
    case OPT_PATHS:
        snprintf(dst, cap, "%s", (const char *)p);
        return;
    case OPT_CHOICE:
        break;
    }
    const char *s = r->choices;
    for (int i = *(const int *)p; i > 0 && *s; i--) s += strcspn(s, "|") + 1;
    snprintf(dst, cap, "%.*s", (int)strcspn(s, "|"), s);
}

static int is_zero(const Option *r, const void *options) {
    const void *p = cfield(r, options);
    if (r->kind == OPT_TEXT || is_path(r)) return !*(const char *)p;
    if (r->kind == OPT_REAL) return *(const double *)p == 0;
    return r->kind == OPT_I64 || r->kind == OPT_U64 ? !*(const int64_t *)p : !*(const int *)p;
}

/* The value as it counts. */
static void counted(const Option *row, const void *options, char *dst, size_t cap) {
    options_get(row, options, dst, cap);
    if (is_path(row) && *dst) snprintf(dst, cap, "given");
}

uint64_t options_key(const OptionTable *t, const void *options, unsigned affects, uint64_t h) {
    char text[4096];
    for (int i = 0; i < t->n; i++) {
        if (!(t->row[i].affects & affects & ~AFFECTS_IF_SET)) continue;
        if (t->row[i].affects & AFFECTS_IF_SET && is_zero(&t->row[i], options)) continue;
        counted(&t->row[i], options, text, sizeof text);
        h = fingerprint_text(fingerprint_text(h, t->row[i].key), text);
    }
    return h;
}

const Option *options_differ(const OptionTable *t, const void *a, const void *b, unsigned affects) {
    char x[4096], y[4096];
    for (int i = 0; i < t->n; i++) {
        if (!(t->row[i].affects & affects)) continue;
        counted(&t->row[i], a, x, sizeof x);
        counted(&t->row[i], b, y, sizeof y);
        if (strcmp(x, y)) return &t->row[i];
    }
    return NULL;
}

int options_check(const OptionTable *t, Err *e) {
    for (int i = 0; i < t->n; i++)
        if (!(t->row[i].affects & ~AFFECTS_IF_SET))
            return err_set(e, ERR_USAGE, "option '%s' does not say what it affects", t->row[i].key);
    return OK;
}

/* ---------------------------------------------------------------- JSON */

static void option_write(const Option *r, const char *key, const void *options, JsonOut *o) {
    const void *p = cfield(r, options);
    char text[4096];
    switch (r->kind) {
    case OPT_INT:
        json_out_int(o, key, *(const int *)p);
        return;
    case OPT_I64:
        json_out_int(o, key, *(const int64_t *)p);
        return;
    case OPT_U64:
        json_out_u64(o, key, *(const uint64_t *)p);
        return;
    case OPT_REAL:
        json_out_real(o, key, *(const double *)p);
        return;
    case OPT_BOOL:
        json_out_bool(o, key, *(const int *)p);
        return;
    case OPT_TEXT:
    case OPT_PATH:
    case OPT_PATHS:
    case OPT_CHOICE:
        options_get(r, options, text, sizeof text);
        json_out_str(o, key, text);
        return;
    }
}

/* Rows of one group ("stage1.") stand together in a table, so one open object is enough. */
void options_write(const OptionTable *t, const void *options, JsonOut *o) {
    char group[64] = "";
    for (int i = 0; i < t->n; i++) {
        const char *key = t->row[i].key, *dot = strchr(key, '.');
        const size_t n = dot ? (size_t)(dot - key) : 0;
        if (strlen(group) != n || memcmp(group, key, n)) {
            if (group[0]) json_out_close(o);
            snprintf(group, sizeof group, "%.*s", (int)n, key);
            if (n) json_out_object(o, group);
        }
        option_write(&t->row[i], dot ? dot + 1 : key, options, o);
    }
    if (group[0]) json_out_close(o);
}

/* A scalar as the text that options_set reads. */
static int scalar_text(const Json *j, JsonRef r, char *dst, size_t cap, const char *key, const char *where, Err *e) {
    size_t n;
    const char *s;
    int64_t i;
    uint64_t u;
    double v;
    switch (json_kind(j, r)) {
    case JSON_TRUE:
        snprintf(dst, cap, "true");
        return OK;
    case JSON_FALSE:
        snprintf(dst, cap, "false");
        return OK;
    case JSON_INT:
        TRY(json_want_int(j, r, key, INT64_MIN, INT64_MAX, &i, e));
        snprintf(dst, cap, "%" PRId64, i);
        return OK;
    case JSON_UINT:
        TRY(json_want_u64(j, r, key, &u, e));
        snprintf(dst, cap, "%" PRIu64, u);
        return OK;
    case JSON_REAL:
        TRY(json_want_real(j, r, key, &v, e));
        snprintf(dst, cap, "%.17g", v);
        return OK;
    case JSON_STRING:
        s = json_str(j, r, &n);
        if (n >= cap || strlen(s) != n)
            return err_set(e, ERR_USAGE, "%s: option '%s': text too long, or with a NUL", where, key);
        memcpy(dst, s, n + 1);
        return OK;
    default:
        return err_set(e, ERR_USAGE, "%s: option '%s': expected a number, a string, true or false", where, key);
    }
}

static int member_text(const Json *j, JsonRef r, char *dst, size_t cap, const char *key, const char *where, Err *e) {
    if (json_kind(j, r) != JSON_ARRAY) return scalar_text(j, r, dst, cap, key, where, e);
    size_t n = 0;
    dst[0] = 0;
    for (JsonRef c = json_first(j, r); c >= 0; c = json_next(j, c)) {
        char one[64];
        TRY(scalar_text(j, c, one, sizeof one, key, where, e));
        if (n + strlen(one) + 2 > cap) return err_set(e, ERR_USAGE, "%s: option '%s': list too long", where, key);
        n += (size_t)snprintf(dst + n, cap - n, "%s%s", n ? "," : "", one);
    }
    return OK;
}

static int group_read(const OptionTable *t, void *options, const Json *j, JsonRef object, const char *group,
                      const char *where, Err *e) {
    for (JsonRef r = json_first(j, object); r >= 0; r = json_next(j, r)) {
        size_t len;
        char key[256], value[4096];
        const char *name = json_key(j, r, &len);
        snprintf(key, sizeof key, "%s%s%s", group, group[0] ? "." : "", name);
        if (json_kind(j, r) == JSON_NULL) continue; // as if it were not there
        if (json_kind(j, r) == JSON_OBJECT && !group[0]) {
            TRY(group_read(t, options, j, r, key, where, e));
            continue;
        }
        TRY(member_text(j, r, value, sizeof value, key, where, e));
        const int rc = options_set(t, options, key, value, e);
        if (rc) return err_prefix(e, "%s", where), rc;
    }
    return OK;
}

int options_read(const OptionTable *t, void *options, const Json *j, JsonRef object, const char *where, Err *e) {
    if (json_kind(j, object) != JSON_OBJECT) return err_set(e, ERR_USAGE, "%s: expected an object of options", where);
    return group_read(t, options, j, object, "", where, e);
}
