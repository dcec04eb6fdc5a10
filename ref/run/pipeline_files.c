/* pipeline_files.c - the files of a run directory: run.json, ranking.json, trajectory.csv, one file per student,
 * results.json. */
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "io/hf.h"
#include "run/pipeline.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Ends the text and writes it to dir/name (dir NULL: name is the path). */
static int json_save(JsonOut *j, const char *dir, const char *name, Err *e) {
    char path[1200];
    int rc = json_out_end(j, e);
    if (!rc && dir) rc = file_join(path, sizeof path, dir, name, e);
    if (!rc) rc = file_write_all(dir ? path : name, j->text, j->len, e);
    json_out_free(j);
    return rc;
}

static int json_load(Json *j, const char *dir, const char *name, Err *e) {
    char path[1200];
    TRY(file_join(path, sizeof path, dir, name, e));
    return json_open(j, path, e);
}

/* A number or null (NaN). */
static int want_number(const Json *j, JsonRef object, const char *key, double *v, Err *e) {
    const JsonRef r = json_get(j, object, key);
    *v = NAN;
    return r >= 0 && json_kind(j, r) == JSON_NULL ? OK : json_want_real(j, r, key, v, e);
}
static int want_size(const Json *j, JsonRef object, const char *key, size_t *v, Err *e) {
    uint64_t u;
    TRY(json_want_u64(j, json_get(j, object, key), key, &u, e));
    *v = (size_t)u;
    return OK;
}
static int want_numbers(const Json *j, JsonRef object, const char *key, double *v, int cap, int *n, Err *e) {
    const JsonRef a = json_get(j, object, key);
    *n = 0;
    if (json_kind(j, a) != JSON_ARRAY) return err_set(e, ERR_INPUT, "%s: %s: expected an array", j->file, key);
    for (JsonRef r = json_first(j, a); r >= 0; r = json_next(j, r)) {
        if (*n == cap) return err_set(e, ERR_INPUT, "%s: %s: more than %d numbers", j->file, key, cap);
        v[*n] = NAN;
        if (json_kind(j, r) != JSON_NULL) TRY(json_want_real(j, r, key, &v[*n], e));
        ++*n;
    }
    return OK;
}
static void put_numbers(JsonOut *j, const char *key, const double *v, int n) {
    json_out_array(j, key);
    for (int i = 0; i < n; i++) json_out_real(j, NULL, v[i]);
    json_out_close(j);
}
static void put_layers(JsonOut *j, const char *key, const int *keep, int L) {
    json_out_array(j, key);
    for (int l = 0; l < L; l++)
        if (keep[l]) json_out_int(j, NULL, l);
    json_out_close(j);
}
static int want_layers(const Json *j, JsonRef object, const char *key, int *keep, int L, Err *e) {
    const JsonRef a = json_get(j, object, key);
    int64_t l;
    memset(keep, 0, MAX_LAYERS * sizeof *keep);
    for (JsonRef r = json_first(j, a); r >= 0; r = json_next(j, r)) {
        TRY(json_want_int(j, r, key, 0, L - 1, &l, e));
        keep[l] = 1;
    }
    return OK;
}

/* ---------------------------------------------------------------- what goes in */

static int input_file(uint64_t *hash, JsonOut *j, const char *path, const char *name, Err *e) {
    File f;
    TRY(file_open(&f, path, e));
    const uint32_t crc = file_crc32c(0, f.data, f.size);
    const uint64_t v[2] = {f.size, crc};
    file_close(&f);
    *hash = fingerprint_bytes(fingerprint_text(*hash, name), v, sizeof v);
    if (!j) return OK;
    char text[16];
    snprintf(text, sizeof text, "%08x", crc);
    json_out_object(j, name);
    json_out_u64(j, "size", v[0]);
    json_out_str(j, "crc32c", text);
    json_out_close(j);
    return OK;
}

static int ends_with(const char *s, const char *end) {
    const size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* config.json, tokenizer.json and every .safetensors of a model directory. */
static int input_model(uint64_t *hash, JsonOut *j, const char *dir, Err *e) {
    char **names, path[1200];
    size_t n;
    TRY(file_list(&names, &n, dir, e));
    int rc = OK;
    for (size_t i = 0; i < n && !rc; i++) {
        if (!ends_with(names[i], ".safetensors") && strcmp(names[i], "config.json") &&
            strcmp(names[i], "tokenizer.json"))
            continue;
        rc = file_join(path, sizeof path, dir, names[i], e);
        if (!rc) rc = input_file(hash, j, path, names[i], e);
    }
    file_list_free(names, n);
    return rc;
}

int inputs_hash(uint64_t *hash, JsonOut *j, const PipelineOptions *o, Err *e) {
    const char *const key[2] = {"teacher", "student_init_ckpt"}, *const dir[2] = {o->teacher, o->student_init_ckpt};
    *hash = 0;
    for (int i = 0; i < 2; i++) {
        if (!dir[i][0]) continue;
        if (j) json_out_object(j, key[i]);
        TRY(input_model(hash, j, dir[i], e));
        if (j) json_out_close(j);
    }
    return input_file(hash, j, o->text, "text", e);
}

/* ---------------------------------------------------------------- run.json */

static int run_write(const PipelineOptions *o, const char *dir, const char *backend, const PipelineHooks *h,
                     uint64_t *inputs, Err *e) {
    char now[32], hash[24];
    JsonOut j;
    log_utc(now, sizeof now);
    json_out_begin(&j, 1);
    json_out_object(&j, NULL);
    json_out_str(&j, "program", "hybridize");
    json_out_str(&j, "version", h->version ? h->version : "unknown");
    json_out_str(&j, "started", now);
    json_out_str(&j, "backend", backend);
    json_out_u64(&j, "seed", o->seed);
    json_out_object(&j, "options");
    options_write(pipeline_table(), o, &j);
    json_out_close(&j);
    json_out_object(&j, "inputs");
    const int rc = inputs_hash(inputs, &j, o, e);
    json_out_close(&j);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)*inputs);
    json_out_str(&j, "inputs_hash", hash);
    json_out_close(&j);
    if (rc) {
        json_out_free(&j);
        return rc;
    }
    return json_save(&j, dir, "run.json", e);
}

int pipeline_options_read(PipelineOptions *o, const char *dir, int *found, Err *e) {
    char path[1200];
    Json j;
    TRY(file_join(path, sizeof path, dir, "run.json", e));
    *found = file_exists(path) != 0;
    if (!*found) return OK;
    TRY(json_open(&j, path, e));
    pipeline_defaults(o);
    const int rc = options_read(pipeline_table(), o, &j, json_get(&j, 0, "options"), path, e);
    json_free(&j);
    return rc;
}

/* The hash that run.json holds against the files as they are now. */
static int inputs_compare(const PipelineOptions *o, const char *dir, uint64_t *inputs, Err *e) {
    Json j;
    char now[24];
    const char *was;
    TRY(inputs_hash(inputs, NULL, o, e));
    snprintf(now, sizeof now, "%016llx", (unsigned long long)*inputs);
    TRY(json_load(&j, dir, "run.json", e));
    int rc = json_want_str(&j, json_get(&j, 0, "inputs_hash"), "inputs_hash", &was, NULL, e);
    if (!rc && strcmp(was, now)) {
        rc = err_set(e, ERR_USAGE, "%s: run.json: the teacher or the text has changed since the run began", dir);
        err_hint(e, "give the same files, or another run directory");
    }
    json_free(&j);
    return rc;
}

int run_file(const PipelineOptions *o, const char *dir, const char *backend, const PipelineHooks *h, uint64_t *inputs,
             Err *e) {
    PipelineOptions was;
    int found;
    TRY(pipeline_options_read(&was, dir, &found, e));
    if (!found) return run_write(o, dir, backend, h, inputs, e);
    const Option *d = options_differ(pipeline_table(), &was, o);
    if (d && !h->allow_config_change) {
        char x[4096], y[4096];
        options_get(d, &was, x, sizeof x);
        options_get(d, o, y, sizeof y);
        err_set(e, ERR_USAGE, "%s: run.json: option '%s' was '%.100s', now it is '%.100s'", dir, d->key, x, y);
        return err_hint(e, "go on with the options of run.json, take another directory, or pass --allow-config-change");
    }
    TRY(inputs_compare(o, dir, inputs, e));
    return d ? run_write(o, dir, backend, h, inputs, e) : OK;
}

/* ---------------------------------------------------------------- ranking and trajectory */

int ranking_write(const LayerScore *s, int L, const char *selector, const int *keep, const char *dir, Err *e) {
    const Selector *by = selector_find(selector);
    JsonOut j;
    int scored = 0;
    for (int l = 0; l < L; l++) scored |= !isnan(s[l].score);
    if (scored && !by->unit) by = selector_find("ga_s2"); // a layout beside GA-S2's scores
    json_out_begin(&j, 1);
    json_out_object(&j, NULL);
    json_out_str(&j, "score", by->label);
    json_out_str(&j, "unit", scored ? by->unit : "");
    json_out_str(&j, "selector", selector);
    put_layers(&j, "keep_full_attention_layers", keep, L);
    json_out_array(&j, "layers");
    for (int l = 0; l < L; l++) {
        json_out_object(&j, NULL);
        json_out_int(&j, "layer", l);
        json_out_int(&j, "rank", s[l].rank);
        json_out_real(&j, "score", s[l].score);
        json_out_real(&j, "stderr", s[l].se);
        json_out_real(&j, "running_kl", s[l].running);
        if (!isnan(s[l].recall)) json_out_real(&j, "recall", s[l].recall);
        json_out_bool(&j, "selected", keep[l]);
        json_out_int(&j, "tokens", s[l].tokens);
        json_out_real(&j, "seconds", s[l].seconds);
        put_numbers(&j, "batch_kl", s[l].batch_kl, s[l].batches);
        if (s[l].dropped) { // given up by successive halving, and why
            json_out_int(&j, "dropped_at_step", s[l].dropped);
            json_out_real(&j, "behind_kth", s[l].drop_mean);
            json_out_real(&j, "behind_kth_stderr", s[l].drop_se);
        }
        if (s[l].heads) put_numbers(&j, "heads", s[l].head, s[l].heads);
        json_out_close(&j);
    }
    json_out_close(&j);
    json_out_close(&j);
    return json_save(&j, dir, "ranking.json", e);
}

static int ranking_row(LayerScore *s, const Json *j, JsonRef r, Err *e) {
    int64_t layer, rank;
    memset(s, 0, sizeof *s);
    TRY(json_want_int(j, json_get(j, r, "layer"), "layer", 0, MAX_LAYERS - 1, &layer, e));
    TRY(json_want_int(j, json_get(j, r, "rank"), "rank", 0, MAX_LAYERS, &rank, e));
    TRY(json_want_int(j, json_get(j, r, "tokens"), "tokens", 0, INT64_MAX, &s->tokens, e));
    s->layer = (int)layer;
    s->rank = (int)rank;
    TRY(want_number(j, r, "score", &s->score, e));
    TRY(want_number(j, r, "stderr", &s->se, e));
    TRY(want_number(j, r, "running_kl", &s->running, e));
    s->recall = NAN;
    TRY(json_opt_real(j, r, "recall", &s->recall, e));
    TRY(want_number(j, r, "seconds", &s->seconds, e));
    if (json_get(j, r, "heads") >= 0) TRY(want_numbers(j, r, "heads", s->head, SCORE_HEADS, &s->heads, e));
    return want_numbers(j, r, "batch_kl", s->batch_kl, HELDOUT_MAX, &s->batches, e);
}

int ranking_read(LayerScore *s, int *L, const char *dir, Err *e) {
    Json j;
    TRY(json_load(&j, dir, "ranking.json", e));
    const JsonRef a = json_get(&j, 0, "layers");
    int rc = OK;
    *L = 0;
    if (!json_size(&j, a) || json_size(&j, a) > MAX_LAYERS)
        rc = err_set(e, ERR_INPUT, "%s: layers: expected 1 to %d", j.file, MAX_LAYERS);
    for (JsonRef r = rc ? -1 : json_first(&j, a); r >= 0 && !rc; r = json_next(&j, r)) {
        rc = ranking_row(&s[*L], &j, r, e);
        if (!rc && s[*L].layer != *L)
            rc = err_set(e, ERR_INPUT, "%s: layers: got layer %d in place %d", j.file, s[*L].layer, *L);
        ++*L;
    }
    json_free(&j);
    return rc;
}

int ranking_about(char *unit, size_t unit_cap, char *label, size_t label_cap, const char *dir, Err *e) {
    Json j;
    const char *u = "score", *l = ""; // a file from before units were written
    TRY(json_load(&j, dir, "ranking.json", e));
    const int rc = json_opt_str(&j, 0, "unit", &u, e) || json_opt_str(&j, 0, "score", &l, e);
    snprintf(unit, unit_cap, "%s", u);
    snprintf(label, label_cap, "%s", l);
    json_free(&j);
    return rc ? e->code : OK;
}

/* One line for every layer that has point p; returns how many. */
static int trajectory_point(TextBuf *b, const LayerScore *s, int L, int p, int official) {
    int rank[MAX_LAYERS], n = score_ranks_at(s, L, p, official, rank);
    for (int l = 0; l < L; l++) {
        const ScorePoint *v = &s[l].point[p];
        if (!rank[l]) continue;
        textbuf_printf(b, "%d,%lld,%lld,%.9g,%.3g,%.9g,%d\n", l, (long long)v->step, (long long)v->tokens, v->kl,
                       v->kl_se, v->running, rank[l]);
    }
    return n;
}

int trajectory_write(const LayerScore *s, int L, int official, const char *dir, Err *e) {
    TextBuf b = {0};
    char path[1200];
    int p = 0;
    textbuf_puts(&b, "layer,step,tokens,kl,stderr,running_kl,rank\n");
    while (p < SCORE_POINTS && trajectory_point(&b, s, L, p, official)) p++;
    int rc = textbuf_end(&b, e);
    if (!rc) rc = file_join(path, sizeof path, dir, "trajectory.csv", e);
    if (!rc) rc = file_write_all(path, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}

/* ---------------------------------------------------------------- students */

static void row_put(JsonOut *j, const StudentRow *r, const int *recall_n, int n_n) {
    json_out_str(j, "name", r->name);
    json_out_int(j, "num_hidden_layers", r->L);
    json_out_int(j, "k", r->K);
    put_layers(j, "keep_full_attention_layers", r->keep, r->L);
    json_out_real(j, "kl", r->held.kl);
    json_out_real(j, "kl_stderr", r->held.kl_se);
    json_out_real(j, "ce", r->held.ce);
    json_out_real(j, "ce_stderr", r->held.ce_se);
    json_out_real(j, "ce_new", r->held.ce_new);
    json_out_real(j, "ce_repeat", r->held.ce_repeat);
    json_out_real(j, "repeated", r->held.repeated);
    json_out_object(j, "recall");
    for (int i = 0; i < n_n; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", recall_n[i]);
        json_out_real(j, key, r->recall[i]);
    }
    json_out_close(j);
    json_out_real(j, "recall_mean", n_n ? r->recall_mean : NAN);
    json_out_real(j, "seconds", r->seconds);
    json_out_real(j, "select_seconds", r->select_seconds);
    json_out_int(j, "tokens", r->tokens);
    json_out_u64(j, "peak_bytes", r->peak_bytes);
    json_out_u64(j, "counted_bytes", r->counted_bytes);
    json_out_u64(j, "parameters", r->parameters);
    json_out_u64(j, "cache_bytes_per_token", r->cache_bytes_per_token);
    json_out_u64(j, "state_bytes", r->state_bytes);
    put_numbers(j, "batch_kl", r->held.batch_kl, r->held.batches);
    put_numbers(j, "batch_ce", r->held.batch_ce, r->held.batches);
}

static int row_recall(StudentRow *r, const Json *j, JsonRef o, int n_n, Err *e) {
    const JsonRef a = json_get(j, o, "recall");
    int i = 0;
    if (json_size(j, a) != (size_t)n_n)
        return err_set(e, ERR_INPUT, "%s: recall: got %zu numbers, expected %d", j->file, json_size(j, a), n_n);
    for (JsonRef c = json_first(j, a); c >= 0; c = json_next(j, c))
        TRY(json_want_real(j, c, "recall", &r->recall[i++], e));
    return want_number(j, o, "recall_mean", &r->recall_mean, e);
}

static int row_get(StudentRow *r, const Json *j, JsonRef o, int n_n, Err *e) {
    const char *name;
    int64_t L, K;
    size_t len;
    int n;
    memset(r, 0, sizeof *r);
    TRY(json_want_str(j, json_get(j, o, "name"), "name", &name, &len, e));
    if (len >= sizeof r->name)
        return err_set(e, ERR_INPUT, "%s: name: longer than %zu bytes", j->file, sizeof r->name - 1);
    memcpy(r->name, name, len + 1);
    TRY(json_want_int(j, json_get(j, o, "num_hidden_layers"), "num_hidden_layers", 1, MAX_LAYERS, &L, e));
    TRY(json_want_int(j, json_get(j, o, "k"), "k", 0, L, &K, e));
    r->L = (int)L;
    r->K = (int)K;
    TRY(want_layers(j, o, "keep_full_attention_layers", r->keep, r->L, e));
    TRY(want_number(j, o, "kl", &r->held.kl, e));
    TRY(want_number(j, o, "kl_stderr", &r->held.kl_se, e));
    TRY(want_number(j, o, "ce", &r->held.ce, e));
    TRY(want_number(j, o, "ce_stderr", &r->held.ce_se, e));
    TRY(want_number(j, o, "ce_new", &r->held.ce_new, e));
    TRY(want_number(j, o, "ce_repeat", &r->held.ce_repeat, e));
    TRY(want_number(j, o, "repeated", &r->held.repeated, e));
    TRY(row_recall(r, j, o, n_n, e));
    TRY(want_number(j, o, "seconds", &r->seconds, e));
    TRY(want_number(j, o, "select_seconds", &r->select_seconds, e));
    TRY(json_want_int(j, json_get(j, o, "tokens"), "tokens", 0, INT64_MAX, &r->tokens, e));
    TRY(want_size(j, o, "peak_bytes", &r->peak_bytes, e));
    TRY(want_size(j, o, "counted_bytes", &r->counted_bytes, e));
    TRY(want_size(j, o, "parameters", &r->parameters, e));
    TRY(want_size(j, o, "cache_bytes_per_token", &r->cache_bytes_per_token, e));
    TRY(want_size(j, o, "state_bytes", &r->state_bytes, e));
    TRY(want_numbers(j, o, "batch_ce", r->held.batch_ce, HELDOUT_MAX, &n, e));
    return want_numbers(j, o, "batch_kl", r->held.batch_kl, HELDOUT_MAX, &r->held.batches, e);
}

int row_write(const StudentRow *r, const int *recall_n, int n_n, uint64_t fingerprint, const char *path, Err *e) {
    JsonOut j;
    json_out_begin(&j, 1);
    json_out_object(&j, NULL);
    json_out_u64(&j, "fingerprint", fingerprint);
    row_put(&j, r, recall_n, n_n);
    json_out_close(&j);
    return json_save(&j, NULL, path, e);
}

int row_read(StudentRow *r, uint64_t *fingerprint, int n_n, const char *path, Err *e) {
    Json j;
    TRY(json_open(&j, path, e));
    int rc = json_want_u64(&j, json_get(&j, 0, "fingerprint"), "fingerprint", fingerprint, e);
    if (!rc) rc = row_get(r, &j, 0, n_n, e);
    json_free(&j);
    return rc;
}

/* ---------------------------------------------------------------- results.json */

int results_write(const PipelineResult *r, const char *dir, Err *e) {
    JsonOut j;
    json_out_begin(&j, 1);
    json_out_object(&j, NULL);
    json_out_int(&j, "num_hidden_layers", r->L);
    json_out_int(&j, "k", r->K);
    json_out_real(&j, "seconds", r->seconds);
    json_out_u64(&j, "peak_bytes", r->peak_bytes);
    json_out_array(&j, "recall_n");
    for (int i = 0; i < r->n_n; i++) json_out_int(&j, NULL, r->recall_n[i]);
    json_out_close(&j);
    json_out_array(&j, "students");
    for (int i = 0; i < r->rows; i++) {
        json_out_object(&j, NULL);
        row_put(&j, &r->row[i], r->recall_n, r->n_n);
        json_out_close(&j);
    }
    json_out_close(&j);
    json_out_close(&j);
    return json_save(&j, dir, "results.json", e);
}

static int results_get(PipelineResult *r, const Json *j, Err *e) {
    int64_t v;
    double n[RECALL_MAX_N];
    memset(r, 0, sizeof *r);
    TRY(json_want_int(j, json_get(j, 0, "num_hidden_layers"), "num_hidden_layers", 1, MAX_LAYERS, &v, e));
    r->L = (int)v;
    TRY(json_want_int(j, json_get(j, 0, "k"), "k", 0, r->L, &v, e));
    r->K = (int)v;
    TRY(want_number(j, 0, "seconds", &r->seconds, e));
    TRY(want_size(j, 0, "peak_bytes", &r->peak_bytes, e));
    TRY(want_numbers(j, 0, "recall_n", n, RECALL_MAX_N, &r->n_n, e));
    for (int i = 0; i < r->n_n; i++) r->recall_n[i] = n[i] > 0 && n[i] < 1e9 ? (int)n[i] : 0;
    const JsonRef a = json_get(j, 0, "students");
    for (JsonRef o = json_first(j, a); o >= 0; o = json_next(j, o)) {
        if (r->rows == PIPELINE_STUDENTS)
            return err_set(e, ERR_INPUT, "%s: students: more than %d", j->file, PIPELINE_STUDENTS);
        TRY(row_get(&r->row[r->rows++], j, o, r->n_n, e));
    }
    return OK;
}

int pipeline_results_read(PipelineResult *r, const char *dir, Err *e) {
    Json j;
    TRY(json_load(&j, dir, "results.json", e));
    const int rc = results_get(r, &j, e);
    json_free(&j);
    return rc;
}
