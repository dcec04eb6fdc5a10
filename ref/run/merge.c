/* merge.c - see merge.h. */
#include "run/merge.h"
#include "base/file.h"
#include "base/text_buf.h"
#include "base/worker.h"
#include "run/checkpoint.h"
#include "run/pipeline.h"
#include <stdio.h>
#include <string.h>

/* One member of both run.json files. */
static int member_same(const char *key, const char *dir, const char *from, const char *what, Err *e) {
    const char *const of[2] = {dir, from};
    char value[2][128] = {"", ""}, path[1200];
    for (int i = 0; i < 2; i++) {
        Json j;
        const char *s = "";
        TRY(file_join(path, sizeof path, of[i], "run.json", e));
        TRY(json_open(&j, path, e));
        const int rc = json_opt_str(&j, 0, key, &s, e);
        snprintf(value[i], sizeof value[i], "%.*s", (int)strcspn(s, strcmp(key, "backend") ? "" : ":"), s);
        json_free(&j);
        TRY(rc);
    }
    if (!strcmp(value[0], value[1])) return OK;
    return err_set(e, ERR_USAGE, "%s and %s: %s: '%s' and '%s'", dir, from, what, value[0], value[1]);
}

static int runs_agree(const char *dir, const char *from, Err *e) {
    PipelineOptions a, b;
    char x[4096], y[4096];
    int found[2];
    TRY(pipeline_options_read(&a, dir, &found[0], e));
    TRY(pipeline_options_read(&b, from, &found[1], e));
    for (int i = 0; i < 2; i++)
        if (!found[i]) return err_set(e, ERR_USAGE, "%s: is no run: run.json is not there", i ? from : dir);
    const Option *d = options_differ(pipeline_table(), &a, &b, AFFECTS_NUMBERS);
    if (d) {
        options_get(d, &a, x, sizeof x);
        options_get(d, &b, y, sizeof y);
        return err_set(e, ERR_USAGE, "%s and %s: option '%s': '%.100s' and '%.100s'", dir, from, d->key, x, y);
    }
    TRY(member_same("inputs_hash", dir, from, "the teacher or the text differs, by its hash", e));
    return member_same("backend", dir, from, "made by different backends", e);
}

static int is_record(const char *name) {
    return strlen(name) > 5 && text_ends(name, ".json") && strcmp(name, "state.json");
}

/* Records of one directory and those below; trainings (ckpt-STEP) are left, as they are only good for going on. */
static int merge_level(const char *dir, const char *from, int depth, int *taken, Err *e) {
    char **names, a[1200], b[1200];
    size_t n;
    if (depth > 8 || file_exists(from) != 2) return OK;
    TRY(file_list(&names, &n, from, e));
    int rc = OK;
    for (size_t i = 0; i < n && !rc; i++) {
        rc = file_join(a, sizeof a, dir, names[i], e);
        if (!rc) rc = file_join(b, sizeof b, from, names[i], e);
        const int kind = rc ? 0 : file_exists(b);
        if (kind == 2 && strncmp(names[i], "ckpt-", 5)) rc = merge_level(a, b, depth + 1, taken, e);
        if (kind != 1 || !is_record(names[i]) || file_exists(a)) continue;
        rc = file_mkdirs(dir, e);
        if (!rc) rc = file_copy(b, a, e);
        *taken += !rc;
    }
    file_list_free(names, n);
    return rc;
}

int run_merge(const char *dir, const char *from, int *taken, Err *e) {
    char a[1200], b[1200], who[128];
    *taken = 0;
    TRY(runs_agree(dir, from, e));
    if (worker_any(dir, who, sizeof who)) return err_set(e, ERR_USAGE, "%s: %s is at work here", dir, who);
    TRY(file_join(a, sizeof a, dir, "checkpoints", e));
    TRY(file_join(b, sizeof b, from, "checkpoints", e));
    return merge_level(a, b, 0, taken, e);
}
