/* jsonl.c - see jsonl.h. */
#include "io/jsonl.h"
#include "base/file.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>

struct Log {
    char path[1024];
};

static int never(void *ctx, const Json *row) {
    (void)ctx, (void)row;
    return 0;
}

int log_open(Log **l, const char *path, int append, Err *e) {
    void *p;
    *l = NULL;
    if (strlen(path) >= sizeof(Log)) return err_set(e, ERR_IO, "%.200s...: path too long", path);
    TRY(append ? log_cut(path, never, NULL, e) : file_write_all(path, "", 0, e));
    TRY(mem_alloc(&p, sizeof(Log), "log", e));
    *l = p;
    memcpy((*l)->path, path, strlen(path) + 1);
    return OK;
}

int log_row(Log *l, JsonOut *row, Err *e) {
    int rc = json_out_end(row, e);
    if (!rc) {
        int lock;
        row->text[row->len] = '\n'; /* in place of the NUL: line and end go out in one write */
        file_lock(&lock, l->path);
        rc = file_append(l->path, row->text, row->len + 1, e);
        file_unlock(lock);
    }
    json_out_free(row);
    return rc;
}

void log_close(Log *l) { mem_free(l); }

/* Copies what is kept of the text to dst (may be NULL); *keep = how many bytes that is. after: whether all rows behind
 * the first dropped one go too. */
static int rows_keep(const File *f, const char *path, int (*drop)(void *, const Json *), void *ctx, int after,
                     char *dst, size_t *keep, Err *e) {
    const char *text = (const char *)f->data;
    *keep = 0;
    for (size_t at = 0, number = 1; at < f->size; number++) {
        const char *end = memchr(text + at, '\n', f->size - at);
        if (!end) break; /* torn: never finished by its newline */
        size_t n = (size_t)(end - text) - at;
        Json row;
        Err why = {0};
        int rc = json_parse(&row, text + at, n, path, &why);
        if (rc == ERR_MEMORY) return err_set(e, rc, "%s", why.msg);
        if (rc && at + n + 1 == f->size) break; /* a last line of which only parts reached the disk */
        if (rc) {
            err_set(e, ERR_INPUT, "%s: line %zu is not JSON: %s", path, number, why.msg);
            return err_hint(e, "remove the line, or start with a new log");
        }
        int gone = drop(ctx, &row);
        json_free(&row);
        if (gone && after) break;
        if (!gone && dst) memcpy(dst + *keep, text + at, n + 1);
        if (!gone) *keep += n + 1;
        at += n + 1;
    }
    return OK;
}

int log_cut(const char *path, int (*beyond)(void *ctx, const Json *row), void *ctx, Err *e) {
    File f;
    size_t keep = 0;
    int lock;
    if (!file_exists(path)) return OK;
    file_lock(&lock, path);
    int rc = file_open(&f, path, e);
    if (!rc) rc = rows_keep(&f, path, beyond, ctx, 1, NULL, &keep, e);
    if (!rc && keep < f.size) rc = file_write_all(path, f.data, keep, e); /* renames: the mapped file stays as it is */
    file_close(&f);
    file_unlock(lock);
    return rc;
}

int log_drop(const char *path, int (*drop)(void *ctx, const Json *row), void *ctx, Err *e) {
    File f;
    void *mem = NULL;
    size_t keep = 0;
    int lock;
    if (!file_exists(path)) return OK;
    file_lock(&lock, path);
    int rc = file_open(&f, path, e);
    if (!rc) rc = rows_keep(&f, path, drop, ctx, 0, NULL, &keep, e);
    if (!rc && keep < f.size) {
        rc = mem_alloc(&mem, keep ? keep : 1, "log", e);
        if (!rc) rc = rows_keep(&f, path, drop, ctx, 0, mem, &keep, e);
        if (!rc) rc = file_write_all(path, mem, keep, e);
        mem_free(mem);
    }
    file_close(&f);
    file_unlock(lock);
    return rc;
}

typedef struct {
    const char *stage;
    int64_t step;
    int begun;
} Cut;

static int is_beyond(void *ctx, const Json *row) {
    Cut *c = ctx;
    char number[32];
    JsonRef stage = json_get(row, 0, "stage");
    const char *name = json_str(row, stage, NULL);
    int64_t v = 0, step = 0;
    if (!name && stage >= 0 && !json_want_int(row, stage, "stage", INT64_MIN, INT64_MAX, &v, NULL)) {
        snprintf(number, sizeof number, "%lld", (long long)v); /* "stage": 2 is the stage "2" */
        name = number;
    }
    if (name && strcmp(name, c->stage)) return c->begun;
    if (name) c->begun = 1;
    if (!c->begun) return 0;
    return !json_want_int(row, json_get(row, 0, "step"), "step", INT64_MIN, INT64_MAX, &step, NULL) && step > c->step;
}

int log_truncate_after(const char *path, const char *stage, int64_t step, Err *e) {
    Cut c = {stage, step, 0};
    return log_cut(path, is_beyond, &c, e);
}
