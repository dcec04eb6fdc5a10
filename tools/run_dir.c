/* run_dir.c - see run_dir.h. */
#include "tools/run_dir.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/worker.h"
#include "io/hf.h"
#include "run/checkpoint.h"
#include <string.h>

int run_path(char *dst, size_t cap, const Cli *c, const char *name, Err *e) {
    return file_join(dst, cap, c->common.output, name, e);
}

/* Nothing in it, or only what a run left that was killed while it wrote its first file, the mark. */
static int is_empty(const char *dir, const char *mark) {
    char **names, begun[64];
    size_t n, others = 0;
    if (file_list(&names, &n, dir, NULL)) return 0;
    snprintf(begun, sizeof begun, "%s.tmp-", mark);
    for (size_t i = 0; i < n; i++) others += strcmp(names[i], "workers") && strncmp(names[i], begun, strlen(begun));
    file_list_free(names, n);
    return others == 0;
}

int run_dir_open(const Cli *c, const char *mark, int go_on, Err *e) {
    const char *dir = c->common.output;
    char path[1024], who[128];
    TRY(cli_require(c, dir, "-o RUNDIR", e));
    TRY(run_path(path, sizeof path, c, mark, e));
    const int kind = file_exists(dir), ours = file_exists(path) == 1;
    if (kind == 1) return err_set(e, ERR_USAGE, "%s: is a file, expected a directory", dir);
    const int busy = kind == 2 && worker_any(dir, who, sizeof who);
    if (busy && c->common.overwrite) {
        err_set(e, ERR_USAGE, "%s: %s is at work here: not overwritten", dir, who);
        return err_hint(e, "--resume shares the work with it");
    }
    if (ours && c->common.overwrite) TRY(file_remove_tree(dir, e));
    else if (ours && !c->common.resume && !go_on) {
        err_set(e, ERR_USAGE, "%s: holds an earlier run", dir);
        return err_hint(e, "--resume goes on with it, --overwrite removes it, or choose another -o");
    } else if (kind == 2 && !ours && !is_empty(dir, mark)) {
        err_set(e, ERR_USAGE, "%s: exists, is not empty and is no run of this command (no %s)", dir, mark);
        return err_hint(e, "choose another -o");
    }
    TRY(file_mkdirs(dir, e));
    return busy ? OK : file_remove_temps(dir, e);
}

/* ---- data ---- */

int run_data_open(Dataset *d, const Cli *c, const char *text, const Tokenizer *t, const ShardOptions *o, Err *e) {
    char dir[1024], path[1024], line[4700];
    int shard = 0;
    ShardStats stats;
    const char *use = path;
    TRY(cli_require(c, text, "--text FILE", e));
    TRY(shard_given(text, o, &shard, e));
    if (shard) use = text;
    else {
        TRY(run_path(dir, sizeof dir, c, "data", e));
        TRY(file_mkdirs(dir, e));
        TRY(file_join(path, sizeof path, dir, "text.tok", e));
        const int write = ranks_first(c->ranks) && file_exists(path) != 1;
        TRY(ranks_outcome(c->ranks, write ? shard_write(path, text, t, o, &stats, e) : OK, e));
        if (write) {
            shard_stats_text(&stats, text, line, sizeof line);
            cli_note((void *)(uintptr_t)c, line);
        }
    }
    TRY(dataset_open_ranks(d, use, c->ranks, e));
    if (!t || d->shard[0].tok_hash == tokenizer_hash(t)) return OK;
    err_set(e, ERR_INPUT, "%s: was made with another tokenizer", use);
    dataset_close(d);
    return err_hint(e, "make it again from the text");
}

uint64_t run_data_hash(const Dataset *d) {
    uint64_t h = 0;
    for (int i = 0; i < d->n_shards; i++) { // the header holds the payload's CRC
        const File *f = &d->shard[i].file;
        h = fingerprint_bytes(h, f->data, f->size < 64 ? f->size : 64);
    }
    return h;
}

int run_model_hash(uint64_t *h, const char *dir, Err *e) {
    HfModel m;
    TRY(hf_open(&m, dir, e));
    for (int s = 0; s < m.n_shards; s++) {
        const uint32_t crc = file_crc32c(0, m.shard[s].file.data, m.shard[s].file.size);
        *h = fingerprint_bytes(*h, &crc, sizeof crc);
    }
    hf_close(&m);
    return OK;
}

/* ---- training ---- */

int run_train_options(TrainOptions *t, RunPaths *p, const Cli *c, const char *name, const StageOptions *stage, Err *e) {
    char dir[1024];
    *t = (TrainOptions){
        .stage = *stage, .log_path = p->log, .dir = p->checkpoints, .progress = &c->progress, .stop = c->stop};
    t->warn = cli_note;
    t->warn_ctx = (void *)(uintptr_t)c;
    TRY(run_path(p->log, sizeof p->log, c, "log.jsonl", e));
    TRY(run_path(dir, sizeof dir, c, "checkpoints", e));
    TRY(file_join(p->checkpoints, sizeof p->checkpoints, dir, name, e));
    return file_mkdirs(p->checkpoints, e);
}

/* ---- run.json ---- */

static uint64_t options_hash(const Cli *c) {
    uint64_t h = fingerprint_backend(fingerprint_bytes(0, &c->common.seed, sizeof c->common.seed), c->common.device);
    for (int k = 0; k < 2 && c->command->options[k]; k++) {
        const uint64_t part = options_key(c->command->options[k]->table(), c->options[k], AFFECTS_NUMBERS, 0);
        h = fingerprint_bytes(h, &part, sizeof part);
    }
    return h;
}

static int run_json_check(const Cli *c, const char *path, uint64_t hash, Err *e) {
    Json j;
    uint64_t was = 0;
    TRY(json_open(&j, path, e));
    const char *name = json_str(&j, json_get(&j, 0, "command"), NULL);
    int rc = OK;
    if (!name || strcmp(name, c->command->name))
        rc = err_set(e, ERR_USAGE, "%s: is a run of \"%s\", not of \"%s\"", path, name ? name : "?", c->command->name);
    if (!rc) rc = json_want_u64(&j, json_get(&j, 0, "options_hash"), "options_hash", &was, e);
    if (!rc && was != hash && !c->common.allow_config_change) {
        rc = err_set(e, ERR_USAGE, "%s: was begun with other options", path);
        err_hint(e, "compare with --dry-run; --allow-config-change goes on all the same");
    }
    json_free(&j);
    return rc;
}

int run_json_write(const Cli *c, Err *e) {
    char path[1024], utc[32];
    JsonOut o;
    const uint64_t hash = options_hash(c);
    TRY(run_path(path, sizeof path, c, "run.json", e));
    if (file_exists(path) == 1) return run_json_check(c, path, hash, e);
    log_utc(utc, sizeof utc);
    json_out_begin(&o, 1);
    json_out_object(&o, NULL);
    json_out_str(&o, "command", c->command->name);
    json_out_str(&o, "version", HYB_VERSION);
    json_out_str(&o, "begun", utc);
    json_out_u64(&o, "options_hash", hash);
    if (c->command->common & CLI_SEED) json_out_u64(&o, "seed", c->common.seed); // else it is one of the options
    json_out_str(&o, "device", c->common.device);
    for (int k = 0; k < 2 && c->command->options[k]; k++)
        options_write(c->command->options[k]->table(), c->options[k], &o);
    json_out_close(&o);
    int rc = json_out_end(&o, e);
    if (!rc) rc = file_write_all(path, o.text, o.len, e);
    json_out_free(&o);
    return rc;
}
