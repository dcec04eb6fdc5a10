/* memo.c - see memo.h. */
#include "run/memo.h"
#include "base/file.h"
#include <stdio.h>
#include <string.h>

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

/* Several processes may one day share the pieces of a run. A piece is then claimed here, by the exclusive creation of
 * DIR/NAME-I.claim, before memo_train or the caller begins it; memo_put ends the claim. One process claims all. */

static int memo_get(Memo *memo, const char *name, int index, const Record *type, void *record, int *found, Err *e) {
    const RunMemo *m = run_of(memo);
    char path[1300];
    Json j;
    uint64_t key = 0;
    *found = 0;
    if (!m->dir) return OK;
    TRY(memo_path(m, path, sizeof path, name, index, ".json", e));
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
    if (!rc) rc = file_write_all(path, j.text, j.len, e);
    json_out_free(&j);
    return rc;
}

static int memo_train(Memo *memo, const char *name, int index, const Task *task, const StageOptions *stage,
                      int64_t until, TrainResult *result, Err *e) {
    const RunMemo *m = run_of(memo);
    char path[1300];
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
    return train_run(task, &o, result, e);
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

RunMemo run_memo(const char *dir, uint64_t key, const TrainOptions *train) {
    static const Memo functions = {memo_get, memo_put, memo_train, memo_drop, memo_text, memo_stopped};
    return (RunMemo){functions, dir, key, *train};
}
