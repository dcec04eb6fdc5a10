/* memo.c - see memo.h. */
#include "run/memo.h"
#include "base/file.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

static RunMemo *run_of(Memo *m) { return (RunMemo *)(void *)m; }

static int memo_path(const RunMemo *m, char *path, size_t cap, const char *name, int index, const char *end, Err *e) {
    char file[256], number[16] = "";
    if (index >= 0) snprintf(number, sizeof number, "-%d", index);
    if (snprintf(file, sizeof file, "%s%s%s", name, number, end) >= (int)sizeof file)
        return err_set(e, ERR_USAGE, "%.60s...: name too long", name);
    return file_join(path, cap, m->dir, file, e);
}

/* The directory that a name with slashes lies in. */
static int memo_mkdirs(const RunMemo *m, const char *name, Err *e) {
    char path[1300];
    TRY(file_join(path, sizeof path, m->dir, name, e));
    *strrchr(path, '/') = 0;
    return file_mkdirs(path, e);
}

/* ---------------------------------------------------------------- pieces that are shared */

/* A moment's rest while another has the piece, which is said once. */
static int memo_wait(const RunMemo *m, const char *path, const char *who, int *said, Err *e) {
    const struct timespec nap = {0, 200 * 1000 * 1000};
    const TrainOptions *o = &m->train;
    char line[512];
    if (o->stop && *o->stop) return err_set(e, 128 + *o->stop, "stopped while waiting for %s", who);
    if (!*said && o->warn) {
        snprintf(line, sizeof line, "waiting for %.300s, which %.100s is making", path + strlen(m->dir) + 1, who);
        o->warn(o->warn_ctx, line);
    }
    *said = 1;
    nanosleep(&nap, NULL);
    return OK;
}

static int memo_read(const RunMemo *m, const char *path, const Record *type, void *record, int *found, Err *e) {
    Json j;
    uint64_t key = 0;
    *found = 0;
    if (file_exists(path) != 1) return OK;
    TRY(json_open(&j, path, e));
    int rc = json_get(&j, 0, "key") < 0 ? OK : json_want_u64(&j, json_get(&j, 0, "key"), "key", &key, e);
    if (!rc && key == m->key) {
        rc = record_read(type, record, &j, 0, e);
        *found = !rc;
    }
    json_free(&j);
    return rc;
}

typedef enum { LOOK, TRY_GET, GET } Want;
/* Claims the piece at path for this process: waits for another that has it, or (TRY_GET) not. *mine: it is ours; then
 * *found says whether somebody has finished record meanwhile (type NULL: not looked for). */
static int memo_claim(const RunMemo *m, const char *path, const Record *type, void *record, Want want, int *mine,
                      int *found, Err *e) {
    char who[128];
    for (int said = 0;;) {
        TRY(worker_claim(m->worker, path, mine, who, sizeof who, e));
        if (type) TRY(memo_read(m, path, type, record, found, e));
        if (*mine || (type && *found) || want == TRY_GET) return OK;
        TRY(memo_wait(m, path, who, &said, e));
    }
}

static int memo_find(Memo *memo, const char *name, int index, const Record *type, void *record, Want want, int *found,
                     Err *e) {
    const RunMemo *m = run_of(memo);
    char path[1300];
    int mine = 0;
    *found = 0;
    if (!m->dir) return OK;
    TRY(memo_path(m, path, sizeof path, name, index, ".json", e));
    TRY(memo_read(m, path, type, record, found, e));
    if (*found || want == LOOK) return OK;
    if (m->pieces && index >= 0 && index % m->pieces != m->piece) {
        *found = -1;
        return want == GET ? MEMO_ELSEWHERE : OK;
    }
    if (!m->worker) return OK;
    TRY(memo_mkdirs(m, name, e));
    TRY(memo_claim(m, path, type, record, want, &mine, found, e));
    if (*found) return mine ? worker_release(m->worker, path, e) : OK; // finished since the first look
    if (!mine) *found = -1;
    return OK;
}
static int memo_get(Memo *m, const char *name, int index, const Record *type, void *record, int *found, Err *e) {
    return memo_find(m, name, index, type, record, GET, found, e);
}
static int memo_try_get(Memo *m, const char *name, int index, const Record *type, void *record, int *found, Err *e) {
    return memo_find(m, name, index, type, record, TRY_GET, found, e);
}
static int memo_look(Memo *m, const char *name, int index, const Record *type, void *record, int *found, Err *e) {
    return memo_find(m, name, index, type, record, LOOK, found, e);
}

static int memo_put(Memo *memo, const char *name, int index, const Record *type, const void *record, Err *e) {
    const RunMemo *m = run_of(memo);
    char path[1300];
    JsonOut j;
    if (!m->dir) return OK;
    TRY(memo_mkdirs(m, name, e));
    TRY(memo_path(m, path, sizeof path, name, index, ".json", e));
    json_out_begin(&j, 1);
    json_out_object(&j, NULL);
    json_out_u64(&j, "key", m->key);
    record_write(&j, type, record);
    json_out_close(&j);
    int rc = json_out_end(&j, e);
    if (!rc) rc = worker_check(m->worker, e);
    if (!rc) rc = file_write_all(path, j.text, j.len, e);
    json_out_free(&j);
    if (!rc && m->worker) rc = worker_release(m->worker, path, e);
    return rc;
}

static int memo_train(Memo *memo, const char *name, int index, const Task *task, const StageOptions *stage,
                      int64_t until, TrainResult *result, Err *e) {
    const RunMemo *m = run_of(memo);
    char path[1300];
    int mine = 0;
    TrainOptions o = m->train;
    const uint64_t seed = o.stage.optim.seed;
    o.stage = *stage;
    o.stage.optim.seed = seed;
    o.until = until;
    o.fingerprint = fingerprint_text(m->key, name);
    o.replaces = 1;
    if (m->dir) {
        TRY(memo_path(m, path, sizeof path, name, index, "", e));
        o.dir = path;
    }
    if (!m->dir || !m->worker) return train_run(task, &o, result, e);
    TRY(memo_mkdirs(m, name, e));
    TRY(memo_claim(m, path, NULL, NULL, GET, &mine, NULL, e));
    const int rc = train_run(task, &o, result, e);
    return rc ? rc : worker_release(m->worker, path, e);
}

static int memo_drop(Memo *memo, const char *name, int index, Err *e) {
    const RunMemo *m = run_of(memo);
    char path[1300];
    if (!m->dir) return OK;
    TRY(memo_path(m, path, sizeof path, name, index, "", e));
    return file_remove_tree(path, e);
}

static int memo_text(Memo *memo, const char *name, const char *text, size_t n, Err *e) {
    const RunMemo *m = run_of(memo);
    char path[1300];
    if (!m->dir) return OK;
    TRY(memo_mkdirs(m, name, e));
    TRY(file_join(path, sizeof path, m->dir, name, e));
    return file_write_all(path, text, n, e);
}

static int memo_stopped(const Memo *memo) {
    const TrainOptions *o = &((const RunMemo *)(const void *)memo)->train;
    return o->stop ? *o->stop : 0;
}

static int memo_shared(const Memo *memo) {
    const RunMemo *m = (const RunMemo *)(const void *)memo;
    return m->worker && worker_others(m->worker, NULL, 0);
}

RunMemo run_memo(const char *dir, uint64_t key, const TrainOptions *train) {
    static const Memo functions = {memo_get,  memo_try_get, memo_look,    memo_put,   memo_train,
                                   memo_drop, memo_text,    memo_stopped, memo_shared};
    return (RunMemo){.memo = functions, .dir = dir, .key = key, .train = *train};
}
