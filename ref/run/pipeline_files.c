/* pipeline_files.c - the files of a run directory: run.json, ranking.json, trajectory.csv, one file per student,
 * results.json. */
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "io/hf.h"
#include "run/pipeline.h"
#include "run/record.h"
#include "selectors/selectors.h"
#include "text/corpus.h"
#include <math.h>
#include <stddef.h>
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

static void put_layers(JsonOut *j, const char *key, const int *keep, int L) {
    json_out_array(j, key);
    for (int l = 0; l < L; l++)
        if (keep[l]) json_out_int(j, NULL, l);
    json_out_close(j);
}

/* ---------------------------------------------------------------- what goes in */

static int input_file(uint64_t *hash, JsonOut *j, const char *path, const char *name, Err *e) {
    File f;
    TRY(file_open_text(&f, path, e));
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

/* config.json, tokenizer.json and every .safetensors of a model directory. */
static int input_model(uint64_t *hash, JsonOut *j, const char *dir, Err *e) {
    char **names, path[1200];
    size_t n;
    TRY(file_list(&names, &n, dir, e));
    int rc = OK;
    for (size_t i = 0; i < n && !rc; i++) {
        if (!text_ends(names[i], ".safetensors") && strcmp(names[i], "config.json") &&
            strcmp(names[i], "tokenizer.json"))
            continue;
        rc = file_join(path, sizeof path, dir, names[i], e);
        if (!rc) rc = input_file(hash, j, path, names[i], e);
    }
    file_list_free(names, n);
    return rc;
}

/* The files of a text: "text", "text_2", ... */
static int input_texts(uint64_t *hash, JsonOut *j, const char *text, Err *e) {
    char **path, name[32] = "text";
    size_t n;
    TRY(corpus_list(&path, &n, text, e));
    int rc = OK;
    for (size_t i = 0; i < n && !rc; i++) {
        if (i) snprintf(name, sizeof name, "text_%zu", i + 1);
        rc = input_file(hash, j, path[i], name, e);
    }
    file_list_free(path, n);
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
    return input_texts(hash, j, o->text, e);
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

/* The hash and the backend that run.json holds against the files and the device of now. */
static int inputs_compare(const PipelineOptions *o, const char *dir, const char *backend, uint64_t *inputs, Err *e) {
    Json j;
    char now[24];
    const char *was, *by = "cpu"; // a file from before backends were written
    TRY(inputs_hash(inputs, NULL, o, e));
    snprintf(now, sizeof now, "%016llx", (unsigned long long)*inputs);
    TRY(json_load(&j, dir, "run.json", e));
    int rc = json_want_str(&j, json_get(&j, 0, "inputs_hash"), "inputs_hash", &was, NULL, e);
    if (!rc) rc = json_opt_str(&j, 0, "backend", &by, e);
    if (!rc && strcmp(was, now)) {
        rc = err_set(e, ERR_USAGE, "%s: run.json: the teacher or the text has changed since the run began", dir);
        err_hint(e, "give the same files, or another run directory");
    }
    if (!rc && !backend_same(by, backend)) {
        rc = err_set(e, ERR_USAGE, "%s: run.json: the device was '%s', now it is '%s', which gives other bits", dir, by,
                     backend);
        err_hint(e, "pass --device %s, take another directory, or pass --allow-config-change", by);
    }
    json_free(&j);
    return rc;
}

static int options_compare(const PipelineOptions *was, const PipelineOptions *o, const char *dir, Err *e) {
    char x[4096], y[4096];
    const Option *d = options_differ(pipeline_table(), was, o, AFFECTS_NUMBERS);
    if (!d) return OK;
    options_get(d, was, x, sizeof x);
    options_get(d, o, y, sizeof y);
    err_set(e, ERR_USAGE, "%s: run.json: option '%s' was '%.100s', now it is '%.100s'", dir, d->key, x, y);
    return err_hint(e, "go on with the options of run.json, take another directory, or pass --allow-config-change");
}

int run_same(const PipelineOptions *o, const char *dir, const char *backend, Err *e) {
    PipelineOptions was;
    uint64_t inputs;
    int found;
    TRY(pipeline_options_read(&was, dir, &found, e));
    if (!found) return err_set(e, ERR_INPUT, "%s: results.json is there but run.json is not", dir);
    TRY(options_compare(&was, o, dir, e));
    return inputs_compare(o, dir, backend, &inputs, e);
}

int run_file(const PipelineOptions *o, const char *dir, const char *backend, const PipelineHooks *h, uint64_t *inputs,
             Err *e) {
    PipelineOptions was;
    int found;
    TRY(pipeline_options_read(&was, dir, &found, e));
    if (!found) return run_write(o, dir, backend, h, inputs, e);
    if (h->allow_config_change) TRY(inputs_hash(inputs, NULL, o, e));
    else {
        TRY(options_compare(&was, o, dir, e));
        TRY(inputs_compare(o, dir, backend, inputs, e));
    }
    // what was said to be the run's options is always what it is made with from here on
    return options_differ(pipeline_table(), &was, o, ~0u) || h->allow_config_change
               ? run_write(o, dir, backend, h, inputs, e)
               : OK;
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
        record_write(&j, &layer_row_record, &s[l]);
        json_out_bool(&j, "selected", keep[l]);
        json_out_close(&j);
    }
    json_out_close(&j);
    json_out_close(&j);
    return json_save(&j, dir, "ranking.json", e);
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
        rc = record_read(&layer_row_record, &s[*L], &j, r, e);
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

#define S(MEMBER) offsetof(StudentRow, MEMBER)
#define NUMBER(KEY, MEMBER)                                                                                            \
    { KEY, FIELD_REAL, S(MEMBER), 0, 0, FIELD_ALWAYS, 0, NULL }
#define BYTES(MEMBER)                                                                                                  \
    { #MEMBER, FIELD_SIZE, S(MEMBER), 0, 0, FIELD_ALWAYS, 0, NULL }
static const Field STUDENT[] = {
    {"name", FIELD_TEXT, S(name), 0, sizeof((StudentRow *)0)->name, FIELD_ALWAYS, 0, NULL},
    {"num_hidden_layers", FIELD_INT, S(L), 0, MAX_LAYERS, FIELD_ALWAYS, 0, NULL},
    {"k", FIELD_INT, S(K), 0, MAX_LAYERS, FIELD_ALWAYS, 0, NULL},
    {"keep_full_attention_layers", FIELD_SET, S(keep), S(L), MAX_LAYERS, FIELD_ALWAYS, 0, NULL},
    NUMBER("kl", held.kl),
    NUMBER("kl_stderr", held.kl_se),
    NUMBER("ce", held.ce),
    NUMBER("ce_stderr", held.ce_se),
    NUMBER("ce_new", held.ce_new),
    NUMBER("ce_repeat", held.ce_repeat),
    NUMBER("repeated", held.repeated),
    {"recall", FIELD_NAMED, S(recall), S(n_n), RECALL_MAX_N, FIELD_ALWAYS, S(recall_n), NULL},
    NUMBER("recall_mean", recall_mean),
    NUMBER("seconds", seconds),
    NUMBER("select_seconds", select_seconds),
    {"tokens", FIELD_I64, S(tokens), 0, 0, FIELD_ALWAYS, 0, NULL},
    BYTES(peak_bytes),
    BYTES(counted_bytes),
    BYTES(parameters),
    BYTES(cache_bytes_per_token),
    BYTES(state_bytes),
    {"batch_kl", FIELD_REALS, S(held.batch_kl), S(held.batches), HELDOUT_MAX, FIELD_ALWAYS, 0, NULL},
    {"batch_ce", FIELD_REALS, S(held.batch_ce), S(held.batches), HELDOUT_MAX, FIELD_ALWAYS, 0, NULL},
};
#undef S
const Record student_record = {STUDENT, sizeof STUDENT / sizeof *STUDENT, sizeof(StudentRow)};

/* ---------------------------------------------------------------- results.json */

#define R(MEMBER) offsetof(PipelineResult, MEMBER)
static const Field RESULTS[] = {
    {"num_hidden_layers", FIELD_INT, R(L), 0, MAX_LAYERS, FIELD_ALWAYS, 0, NULL},
    {"k", FIELD_INT, R(K), 0, MAX_LAYERS, FIELD_ALWAYS, 0, NULL},
    {"seconds", FIELD_REAL, R(seconds), 0, 0, FIELD_ALWAYS, 0, NULL},
    {"peak_bytes", FIELD_SIZE, R(peak_bytes), 0, 0, FIELD_ALWAYS, 0, NULL},
    {"recall_n", FIELD_INTS, R(recall_n), R(n_n), RECALL_MAX_N, FIELD_ALWAYS, 0, NULL},
    {"students", FIELD_RECORDS, R(row), R(rows), PIPELINE_STUDENTS, FIELD_ALWAYS, 0, &student_record},
};
#undef R
static const Record results_record = {RESULTS, sizeof RESULTS / sizeof *RESULTS, sizeof(PipelineResult)};

int results_write(const PipelineResult *r, const char *dir, Err *e) {
    JsonOut j;
    json_out_begin(&j, 1);
    json_out_object(&j, NULL);
    record_write(&j, &results_record, r);
    json_out_close(&j);
    return json_save(&j, dir, "results.json", e);
}

int pipeline_results_read(PipelineResult *r, const char *dir, Err *e) {
    Json j;
    TRY(json_load(&j, dir, "results.json", e));
    const int rc = record_read(&results_record, r, &j, 0, e);
    json_free(&j);
    return rc;
}
