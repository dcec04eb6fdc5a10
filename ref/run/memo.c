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
    if (m->ranks) m->ranks->alive(m->ranks);
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

/* The piece at path, once it is this process's to make: *mine; with `wait` others are waited for. A record (type NULL:
 * there is none) that is finished meanwhile ends it, too: *found. */
static int memo_claim(const RunMemo *m, const char *name, const char *path, const Record *type, void *record, int wait,
                      int *mine, int *found, Err *e) {
    char who[128];
    int said = 0;
    *found = 0;
    TRY(memo_mkdirs(m, name, e));
    for (;;) {
        TRY(worker_claim(m->worker, path, mine, who, sizeof who, e));
        if (type) TRY(memo_read(m, path, type, record, found, e));
        if (*found || *mine || !wait) return OK;
        TRY(memo_wait(m, path, who, &said, e));
    }
}

typedef enum { LOOK, TRY_GET, GET } Want;
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
    TRY(memo_claim(m, name, path, type, record, want == GET, &mine, found, e));
    if (*found) return mine ? worker_release(m->worker, path, e) : OK; // finished since the first look
    if (!mine) *found = -1;
    return OK;
}
/* Rank 0's answer, for all. */
static int memo_ask(Memo *memo, const char *name, int index, const Record *type, void *record, Want want, int *found,
                    Err *e) {
    Ranks *r = run_of(memo)->ranks;
    const int rc = ranks_first(r) ? memo_find(memo, name, index, type, record, want, found, e) : OK;
    TRY(ranks_outcome(r, rc, e));
    TRY(ranks_share(r, found, sizeof *found, e));
    return *found == 1 ? ranks_share(r, record, type->size, e) : OK;
}
static int memo_get(Memo *m, const char *name, int index, const Record *type, void *record, int *found, Err *e) {
    return memo_ask(m, name, index, type, record, GET, found, e);
}
static int memo_try_get(Memo *m, const char *name, int index, const Record *type, void *record, int *found, Err *e) {
    return memo_ask(m, name, index, type, record, TRY_GET, found, e);
}
static int memo_look(Memo *m, const char *name, int index, const Record *type, void *record, int *found, Err *e) {
    return memo_ask(m, name, index, type, record, LOOK, found, e);
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
    int mine = 0, found;
    TrainOptions o = m->train;
    o.stage = *stage;
    o.stage.optim.seed = m->train.stage.optim.seed;
    o.stage.optim.lanes = m->train.stage.optim.lanes;
    o.until = until;
    o.fingerprint = fingerprint_text(m->key, name);
    o.replaces = 1;
    if (m->dir) {
        TRY(memo_path(m, path, sizeof path, name, index, "", e));
        o.dir = path;
    }
    const int claims = m->dir && m->worker;
    TRY(ranks_outcome(m->ranks, claims ? memo_claim(m, name, path, NULL, NULL, 1, &mine, &found, e) : OK, e));
    const int rc = train_run(task, &o, result, e);
    return !rc && claims ? worker_release(m->worker, path, e) : rc;
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

/* Where the ranks cannot be told, what they do next will fail. */
static int told(const RunMemo *m, int answer) {
    ranks_share(m->ranks, &answer, sizeof answer, NULL);
    return answer;
}

static int memo_stopped(const Memo *memo) {
    const RunMemo *m = (const RunMemo *)(const void *)memo;
    return told(m, m->train.stop ? *m->train.stop : 0);
}

static int memo_shared(const Memo *memo) {
    const RunMemo *m = (const RunMemo *)(const void *)memo;
    return told(m, m->worker && worker_others(m->worker, NULL, 0));
}

RunMemo run_memo(const char *dir, uint64_t key, const TrainOptions *train) {
    static const Memo functions = {memo_get,  memo_try_get, memo_look,    memo_put,   memo_train,
                                   memo_drop, memo_text,    memo_stopped, memo_shared};
    return (RunMemo){.memo = functions, .dir = dir, .key = key, .train = *train};
}
