/* score_keep.c - see score_keep.h. */
#include "run/score_keep.h"
#include "base/file.h"
#include "base/log.h"
#include "io/json.h"
#include <string.h>

static int row_in(LayerScore *s, const Json *j, JsonRef o, Err *e) {
    TRY(json_opt_real(j, o, "score", &s->score, e));
    TRY(json_opt_int(j, o, "tokens", 0, INT64_MAX, &s->tokens, e));
    for (JsonRef r = json_first(j, json_get(j, o, "batch_kl")); r >= 0 && s->batches < HELDOUT_MAX; r = json_next(j, r))
        TRY(json_want_real(j, r, "batch_kl", &s->batch_kl[s->batches++], e));
    for (JsonRef r = json_first(j, json_get(j, o, "heads")); r >= 0 && s->heads < SCORE_HEADS; r = json_next(j, r))
        TRY(json_want_real(j, r, "heads", &s->head[s->heads++], e));
    return OK;
}

/* *done stays 0 when the file is of other options: it only saves work. */
static int keep_read(ScoreKeep *k, LayerScore *rows, int L, int *done, const Json *j, Err *e) {
    uint64_t got;
    int64_t n = 0;
    int l = 0;
    TRY(json_want_u64(j, json_get(j, 0, "fingerprint"), "fingerprint", &got, e));
    if (got != k->fingerprint || json_size(j, json_get(j, 0, "layers")) != (size_t)L) return OK;
    TRY(json_want_int(j, json_get(j, 0, "done"), "done", 0, HELDOUT_MAX + MAX_LAYERS, &n, e));
    TRY(json_opt_real(j, 0, "seconds", &k->seconds, e));
    TRY(json_opt_real(j, 0, "base", &k->base, e));
    for (JsonRef r = json_first(j, json_get(j, 0, "layers")); r >= 0; r = json_next(j, r))
        TRY(row_in(&rows[l++], j, r, e));
    *done = (int)n;
    return OK;
}

int score_keep_begin(ScoreKeep *k, LayerScore *rows, int L, int *done, Err *e) {
    char path[1300];
    Json j;
    memset(rows, 0, (size_t)L * sizeof *rows);
    k->begin = k->saved = log_now();
    *done = 0;
    if (!k->dir) return OK;
    TRY(file_join(path, sizeof path, k->dir, "partial.json", e));
    if (file_exists(path) != 1) return OK;
    TRY(json_open(&j, path, e));
    const int rc = keep_read(k, rows, L, done, &j, e);
    json_free(&j);
    return rc;
}

double score_keep_seconds(const ScoreKeep *k) { return k->seconds + log_now() - k->begin; }

static int keep_write(ScoreKeep *k, const LayerScore *rows, int L, int done, Err *e) {
    char path[1300];
    JsonOut j;
    TRY(file_mkdirs(k->dir, e));
    TRY(file_join(path, sizeof path, k->dir, "partial.json", e));
    json_out_begin(&j, 0);
    json_out_object(&j, NULL);
    json_out_u64(&j, "fingerprint", k->fingerprint);
    json_out_int(&j, "done", done);
    json_out_real(&j, "seconds", score_keep_seconds(k));
    json_out_real(&j, "base", k->base);
    json_out_array(&j, "layers");
    for (int l = 0; l < L; l++) {
        json_out_object(&j, NULL);
        json_out_real(&j, "score", rows[l].score);
        json_out_int(&j, "tokens", rows[l].tokens);
        json_out_array(&j, "batch_kl");
        for (int i = 0; i < done && i < HELDOUT_MAX; i++) json_out_real(&j, NULL, rows[l].batch_kl[i]);
        json_out_close(&j);
        json_out_array(&j, "heads");
        for (int i = 0; i < rows[l].heads; i++) json_out_real(&j, NULL, rows[l].head[i]);
        json_out_close(&j);
        json_out_close(&j);
    }
    json_out_close(&j);
    json_out_close(&j);
    int rc = json_out_end(&j, e);
    if (!rc) rc = file_write_all(path, j.text, j.len, e);
    json_out_free(&j);
    return rc;
}

int score_keep_unit(ScoreKeep *k, const LayerScore *rows, int L, int done, Err *e) {
    const int stop = k->stop ? *k->stop : 0;
    if (k->dir && (stop || log_now() - k->saved >= KEEP_SECONDS)) {
        TRY(keep_write(k, rows, L, done, e));
        k->saved = log_now();
    }
    return stop ? err_set(e, 128 + stop, "stopped while scoring; the same command goes on from here") : OK;
}
