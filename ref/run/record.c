/* record.c - see record.h. */
#include "run/record.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const void *at(const Field *f, const void *record) { return (const char *)record + f->at; }
static const int *names_of(const Field *f, const void *record) {
    return (const int *)(const void *)((const char *)record + f->names);
}
static int *count_of(const Field *f, void *record) { return (int *)(void *)((char *)record + f->count); }
static int count_in(const Field *f, const void *record) {
    return *(const int *)(const void *)((const char *)record + f->count);
}

static int absent(const Field *f, const void *record) {
    const void *p = at(f, record);
    if (f->absent == FIELD_ALWAYS) return 0;
    if (f->kind == FIELD_REAL) return f->absent == FIELD_OR_NAN ? isnan(*(const double *)p) : *(const double *)p == 0;
    if (f->kind == FIELD_I64) return *(const int64_t *)p == 0;
    return count_in(f, record) == 0;
}

/* ---------------------------------------------------------------- writing */

static void array_write(JsonOut *j, const Field *f, const void *record) {
    const void *p = at(f, record);
    const int n = count_in(f, record);
    json_out_array(j, f->key);
    for (int i = 0; i < n; i++) {
        if (f->kind == FIELD_REALS) json_out_real(j, NULL, ((const double *)p)[i]);
        if (f->kind == FIELD_INTS) json_out_int(j, NULL, ((const int *)p)[i]);
        if (f->kind == FIELD_SET && ((const int *)p)[i]) json_out_int(j, NULL, i);
        if (f->kind != FIELD_RECORDS) continue;
        json_out_object(j, NULL);
        record_write(j, f->of, (const char *)p + (size_t)i * f->of->size);
        json_out_close(j);
    }
    json_out_close(j);
}

static void named_write(JsonOut *j, const Field *f, const void *record) {
    const double *v = at(f, record);
    json_out_object(j, f->key);
    for (int i = 0; i < count_in(f, record); i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", names_of(f, record)[i]);
        json_out_real(j, name, v[i]);
    }
    json_out_close(j);
}

void record_write(JsonOut *j, const Record *type, const void *record) {
    for (int i = 0; i < type->n; i++) {
        const Field *f = &type->field[i];
        const void *p = at(f, record);
        if (absent(f, record)) continue;
        if (f->kind == FIELD_INT) json_out_int(j, f->key, *(const int *)p);
        else if (f->kind == FIELD_BOOL) json_out_bool(j, f->key, *(const int *)p);
        else if (f->kind == FIELD_I64) json_out_int(j, f->key, *(const int64_t *)p);
        else if (f->kind == FIELD_SIZE) json_out_u64(j, f->key, *(const size_t *)p);
        else if (f->kind == FIELD_REAL) json_out_real(j, f->key, *(const double *)p);
        else if (f->kind == FIELD_TEXT) json_out_str(j, f->key, p);
        else if (f->kind == FIELD_NAMED) named_write(j, f, record);
        else array_write(j, f, record);
    }
}

/* ---------------------------------------------------------------- reading */

/* A number or null (NaN). */
static int real_read(const Json *j, JsonRef r, const char *key, double *v, Err *e) {
    *v = NAN;
    return r >= 0 && json_kind(j, r) == JSON_NULL ? OK : json_want_real(j, r, key, v, e);
}

static int int_read(const Json *j, JsonRef r, const char *key, int lo, int hi, int *v, Err *e) {
    int64_t x;
    TRY(json_want_int(j, r, key, lo, hi, &x, e));
    *v = (int)x;
    return OK;
}

static int text_read(const Field *f, char *dst, const Json *j, JsonRef r, Err *e) {
    const char *s;
    size_t n;
    TRY(json_want_str(j, r, f->key, &s, &n, e));
    if (n >= (size_t)f->cap) return err_set(e, ERR_INPUT, "%s: %s: longer than %d bytes", j->file, f->key, f->cap - 1);
    memcpy(dst, s, n + 1);
    return OK;
}

static int array_read(const Field *f, void *record, const Json *j, JsonRef a, Err *e) {
    char *p = (char *)record + f->at;
    int n = 0;
    if (json_kind(j, a) != JSON_ARRAY) return err_set(e, ERR_INPUT, "%s: %s: expected an array", j->file, f->key);
    for (JsonRef r = json_first(j, a); r >= 0; r = json_next(j, r), n++) {
        if (n == f->cap) return err_set(e, ERR_INPUT, "%s: %s: more than %d", j->file, f->key, f->cap);
        if (f->kind == FIELD_REALS) TRY(real_read(j, r, f->key, (double *)(void *)p + n, e));
        else if (f->kind == FIELD_INTS) TRY(int_read(j, r, f->key, INT32_MIN, INT32_MAX, (int *)(void *)p + n, e));
        else TRY(record_read(f->of, p + (size_t)n * f->of->size, j, r, e));
    }
    *count_of(f, record) = n;
    return OK;
}

/* The count stands in a field before it. */
static int set_read(const Field *f, void *record, const Json *j, JsonRef a, Err *e) {
    int *set = (int *)(void *)((char *)record + f->at), l;
    if (json_kind(j, a) != JSON_ARRAY) return err_set(e, ERR_INPUT, "%s: %s: expected an array", j->file, f->key);
    for (JsonRef r = json_first(j, a); r >= 0; r = json_next(j, r)) {
        TRY(int_read(j, r, f->key, 0, count_in(f, record) - 1, &l, e));
        set[l] = 1;
    }
    return OK;
}

static int named_read(const Field *f, void *record, const Json *j, JsonRef o, Err *e) {
    double *v = (double *)(void *)((char *)record + f->at);
    int *name = (int *)(void *)((char *)record + f->names), n = 0;
    if (json_kind(j, o) != JSON_OBJECT) return err_set(e, ERR_INPUT, "%s: %s: expected an object", j->file, f->key);
    for (JsonRef r = json_first(j, o); r >= 0; r = json_next(j, r), n++) {
        if (n == f->cap || sscanf(json_key(j, r, NULL), "%d", &name[n]) != 1)
            return err_set(e, ERR_INPUT, "%s: %s: expected at most %d numbers by number", j->file, f->key, f->cap);
        TRY(real_read(j, r, f->key, &v[n], e));
    }
    *count_of(f, record) = n;
    return OK;
}

static int field_read(const Field *f, void *record, const Json *j, JsonRef r, Err *e) {
    void *p = (char *)record + f->at;
    uint64_t u;
    switch (f->kind) {
    case FIELD_INT:
        return int_read(j, r, f->key, 0, f->cap ? f->cap : INT32_MAX, p, e);
    case FIELD_BOOL:
        return json_want_bool(j, r, f->key, p, e);
    case FIELD_I64:
        return json_want_int(j, r, f->key, 0, INT64_MAX, p, e);
    case FIELD_SIZE:
        TRY(json_want_u64(j, r, f->key, &u, e));
        *(size_t *)p = (size_t)u;
        return OK;
    case FIELD_REAL:
        return real_read(j, r, f->key, p, e);
    case FIELD_TEXT:
        return text_read(f, p, j, r, e);
    case FIELD_SET:
        return set_read(f, record, j, r, e);
    case FIELD_NAMED:
        return named_read(f, record, j, r, e);
    default:
        return array_read(f, record, j, r, e);
    }
}

int record_read(const Record *type, void *record, const Json *j, JsonRef object, Err *e) {
    memset(record, 0, type->size);
    if (json_kind(j, object) != JSON_OBJECT) return err_set(e, ERR_INPUT, "%s: expected an object", j->file);
    for (int i = 0; i < type->n; i++) {
        const Field *f = &type->field[i];
        const JsonRef r = json_get(j, object, f->key);
        if (r < 0 && f->absent == FIELD_OR_NAN) *(double *)(void *)((char *)record + f->at) = NAN;
        if (r < 0 && f->absent != FIELD_ALWAYS) continue;
        TRY(field_read(f, record, j, r, e));
    }
    return OK;
}
