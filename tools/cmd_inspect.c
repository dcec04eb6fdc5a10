/* cmd_inspect.c - what is this, and is it whole? Model directories, safetensors files, token shards, runs and their
 * checkpoints. */
#include "base/file.h"
#include "base/mem.h"
#include "base/what_is.h"
#include "io/hf.h"
#include "base/json.h"
#include "io/strict.h"
#include "run/checkpoint.h"
#include "selectors/selectors.h"
#include "model/mixer.h"
#include "text/dataset.h"
#include "tools/cli.h"
#include <stddef.h>
#include <string.h>

typedef struct {
    int tensors, check_finite;
} Options;
static const Option rows[] = {
    {"tensors", "list every tensor", OPT_BOOL, offsetof(Options, tensors), 0, 0, NULL, AFFECTS_LOOKS},
    {"check_finite", "read all numbers and refuse NaN and infinities (exit code 6)", OPT_BOOL,
     offsetof(Options, check_finite), 0, 0, NULL, AFFECTS_LOOKS},
};
static const OptionTable table = {rows, 2};
static const OptionTable *get_table(void) { return &table; }
static const CliOptions options = {get_table, sizeof(Options), NULL, NULL};

/* ---- one report, two forms: "key value" lines, or the members of a JSON object ---- */

typedef struct {
    JsonOut *json;
} Report; /* json NULL: lines */

static void say(Report *r, const char *key, const char *value) {
    if (r->json) json_out_str(r->json, key, value);
    else printf("%-16s %s\n", key, value);
}
static void say_int(Report *r, const char *key, long long v) {
    if (r->json) json_out_int(r->json, key, v);
    else printf("%-16s %lld\n", key, v);
}
static void say_real(Report *r, const char *key, double v) {
    if (r->json) json_out_real(r->json, key, v);
    else printf("%-16s %g\n", key, v);
}

static void say_tensors(Report *r, const Safetensors *s) {
    if (r->json) json_out_array(r->json, "tensors");
    for (size_t i = 0; i < s->n; i++) {
        const Tensor *t = &s->tensor[i];
        if (r->json) {
            json_out_object(r->json, NULL);
            json_out_str(r->json, "name", t->name);
            json_out_str(r->json, "dtype", dtype_name(t->dtype));
            json_out_array(r->json, "shape");
            for (int d = 0; d < t->rank; d++) json_out_u64(r->json, NULL, t->shape[d]);
            json_out_close(r->json);
            json_out_close(r->json);
            continue;
        }
        printf("  %-48s %-5s [", t->name, dtype_name(t->dtype));
        for (int d = 0; d < t->rank; d++) printf("%s%zu", d ? "," : "", t->shape[d]);
        puts("]");
    }
    if (r->json) json_out_close(r->json);
}

static int file_report(Report *r, const Safetensors *s, const Options *o, Err *e) {
    size_t bytes = 0;
    for (size_t i = 0; i < s->n; i++) {
        bytes += s->tensor[i].bytes;
        if (o->check_finite) TRY(tensor_check_finite(&s->tensor[i], s->path, e));
    }
    say(r, "file", s->path);
    say_int(r, "tensor_count", (long long)s->n);
    say_int(r, "tensor_bytes", (long long)bytes);
    if (o->tensors) say_tensors(r, s);
    return OK;
}

/* ---- the kinds of things ---- */

static int inspect_safetensors(Report *r, const char *path, const Options *o, Err *e) {
    Safetensors s;
    TRY(safetensors_open(&s, path, e));
    say(r, "kind", "safetensors");
    const int rc = file_report(r, &s, o, e);
    safetensors_close(&s);
    return rc;
}

static void config_report(Report *r, const Config *c) {
    int softmax[MAX_LAYERS] = {0}, linear = -1;
    char text[4096];
    for (int l = 0; l < c->L; l++) {
        softmax[l] = !c->mixer[l];
        if (c->mixer[l]) linear = c->mixer[l];
    }
    select_text(text, sizeof text, softmax, c->L);
    say(r, "family", c->family);
    say_int(r, "layers", c->L);
    say(r, "softmax_layers", text);
    say(r, "linear_mixer", linear < 0 ? "none" : mixer_at(linear)->name);
    say_int(r, "hidden_size", c->C);
    say_int(r, "heads", c->H);
    say_int(r, "kv_heads", c->Hk);
    say_int(r, "head_dim", c->D);
    say_int(r, "ffn_size", c->F);
    say_int(r, "vocab_size", c->VOC);
    say_int(r, "max_positions", c->max_positions);
    say_int(r, "sliding_window", c->window);
    say_real(r, "rope_theta", c->rope.theta);
    say(r, "rope_scaling", c->rope.kind == ROPE_PLAIN ? "none" : c->rope.kind == ROPE_LINEAR ? "linear" : "llama3");
    if (c->no_rope) say(r, "softmax_positions", "no rotary embedding");
    if (c->logit_base > 0) say_real(r, "logit_base", c->logit_base);
    say(r, "tied_head", c->tied ? "yes" : "no");
    say(r, "dtype", dtype_name(c->dtype));
    say_int(r, "parameters", (long long)params_count(c));
}

static int files_report(Report *r, const HfModel *h, const Options *o, Err *e) {
    int rc = OK;
    if (r->json) json_out_array(r->json, "files");
    for (int s = 0; s < h->n_shards && !rc; s++) {
        if (r->json) json_out_object(r->json, NULL);
        rc = file_report(r, &h->shard[s], o, e);
        if (r->json) json_out_close(r->json);
    }
    if (r->json) json_out_close(r->json);
    return rc;
}

static int inspect_model(Report *r, const char *path, const Options *o, Err *e) {
    HfModel h;
    TRY(hf_open(&h, path, e));
    say(r, "kind", "model");
    config_report(r, &h.config);
    char unread[512];
    strict_unread_of(path, unread, sizeof unread);
    if (unread[0]) say(r, "not_read", unread);
    const int rc = files_report(r, &h, o, e);
    hf_close(&h);
    return rc;
}

static int inspect_shard(Report *r, const char *path, Err *e) {
    Shard s;
    TRY(shard_open(&s, path, e));
    say(r, "kind", "token shard");
    say(r, "file", path);
    say_int(r, "tokens", (long long)s.tokens);
    say_int(r, "documents", (long long)s.documents);
    say_int(r, "vocab_size", s.vocab);
    say_int(r, "bytes_per_token", s.width);
    shard_close(&s);
    return OK;
}

static int checkpoint_finite(const char *dir, Err *e) {
    static const char *const names[] = {"weights.safetensors", "optim.safetensors"};
    for (int i = 0; i < 2; i++) {
        char path[1200];
        Safetensors s;
        TRY(file_join(path, sizeof path, dir, names[i], e));
        TRY(safetensors_open(&s, path, e));
        int rc = OK;
        for (size_t t = 0; t < s.n && !rc; t++) rc = tensor_check_finite(&s.tensor[t], path, e);
        safetensors_close(&s);
        if (rc) return rc;
    }
    return OK;
}

static int inspect_checkpoint(Report *r, const char *dir, const Options *o, Err *e) {
    CheckpointState s;
    TRY(checkpoint_verify(dir, &s, e));
    if (o->check_finite) TRY(checkpoint_finite(dir, e));
    say(r, "kind", "checkpoint");
    say(r, "stage", s.stage);
    say(r, "run", s.run);
    say_int(r, "step", s.step);
    say_int(r, "tokens", s.tokens);
    return OK;
}

/* Every JSON file of a run must parse; a finished run has results.json. */
static int inspect_run(Report *r, const char *dir, const Options *o, Err *e) {
    static const char *const parts[] = {"run.json", "ranking.json", "results.json"};
    char path[1200], where[1200];
    int there[3] = {0};
    for (int i = 0; i < 3; i++) {
        Json j;
        TRY(file_join(path, sizeof path, dir, parts[i], e));
        if (!(there[i] = file_exists(path) == 1)) continue;
        TRY(json_open(&j, path, e));
        const int object = json_kind(&j, 0) == JSON_OBJECT;
        json_free(&j);
        if (!object) return err_set(e, ERR_INPUT, "%s: expected a JSON object", path);
    }
    TRY(file_join(path, sizeof path, dir, "model", e));
    say(r, "run_directory", dir);
    say(r, "ranking", there[1] ? "yes" : "no");
    say(r, "finished", there[2] ? "yes" : "no");
    if (file_exists(path) == 2) return inspect_model(r, path, o, e);
    say(r, "kind", "run");
    TRY(file_join(where, sizeof where, dir, "checkpoints/stage1", e));
    const int64_t step = checkpoint_newest(where);
    if (step >= 0) say_int(r, "stage1_step", step);
    return OK;
}

/* The files of an index, without the model around them. */
static int inspect_index(Report *r, const char *path, const Options *o, Err *e) {
    HfModel h;
    TRY(hf_index_open(&h, path, e));
    say(r, "kind", "safetensors index");
    const int rc = files_report(r, &h, o, e);
    hf_close(&h);
    return rc;
}

static int is_index(const char *path) {
    Json j;
    Err why = {0};
    if (json_open(&j, path, &why)) return 0;
    const int index = json_get(&j, 0, "weight_map") >= 0;
    json_free(&j);
    return index;
}

static int has(const char *dir, const char *name) {
    char path[1200];
    return !file_join(path, sizeof path, dir, name, NULL) && file_exists(path) == 1;
}

static int inspect_path(Report *r, const char *path, const Options *o, Err *e) {
    if (file_exists(path) == 2) {
        if (has(path, "config.json")) return inspect_model(r, path, o, e);
        if (has(path, "run.json")) return inspect_run(r, path, o, e);
        if (has(path, "state.json")) return inspect_checkpoint(r, path, o, e);
        err_set(e, ERR_INPUT, "%s: no config.json, run.json or state.json in it", path);
        return err_hint(
            e, "inspect knows model directories, runs, checkpoints, safetensors files, their indexes and token shards");
    }
    if (!file_exists(path)) return err_set(e, ERR_IO, "%s: no such file or directory", path);
    const WhatIs is = what_is_file(path);
    if (is == IS_SHARD) return inspect_shard(r, path, e);
    if (is != IS_JSON) return inspect_safetensors(r, path, o, e);
    if (is_index(path)) return inspect_index(r, path, o, e);
    err_set(e, ERR_INPUT, "%s: is JSON text, expected a directory, a safetensors file, its index or a token shard",
            path);
    return err_hint(e, "give the directory that the file lies in");
}

static int inspect(Cli *c, Err *e) {
    JsonOut out;
    Report r = {c->common.json ? &out : NULL};
    TRY(cli_require(c, c->n_args ? c->arg[0] : NULL, "PATH", e));
    json_out_begin(&out, 1);
    json_out_object(&out, NULL);
    int rc = inspect_path(&r, c->arg[0], c->options[0], e);
    if (!rc && r.json) {
        json_out_close(&out);
        rc = json_out_end(&out, e);
        if (!rc) puts(out.text);
    }
    json_out_free(&out);
    return rc;
}

const Command cmd_inspect = {
    .name = "inspect",
    .summary = "Says what a model directory, safetensors file, token shard, run or checkpoint is, and checks it.",
    .usage = "PATH [--json] [--tensors] [--check-finite]",
    .details = "Exit code 3 when it is malformed or contradicts itself, 6 when --check-finite finds NaN or "
               "an infinity.",
    .common = CLI_JSON,
    .max_args = 1,
    .options = {&options},
    .run = inspect,
};
