/* cmd_pretrain.c - a small softmax teacher from scratch: text and the recall game (method/pretrain.h). */
#include "base/file.h"
#include "base/mem.h"
#include "io/hf.h"
#include "run/memory.h"
#include "run/pretrain.h"
#include "text/corpus.h"
#include "tools/run_dir.h"
#include "tools/session.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

typedef struct {
    char text[4096], text_field[128], tokenizer[1024], document_separator[64];
    int save_dtype;
} Extra;
#define AT(f) offsetof(Extra, f)
static const Option rows[] = {
    {"text", TEXT_HELP, OPT_PATHS, AT(text), 0, 4096, NULL, AFFECTS_LOOKS},
    {"text_field", TEXT_FIELD_HELP, OPT_TEXT, AT(text_field), 0, 128, NULL, AFFECTS_EVALUATION | AFFECTS_IF_SET},
    {"tokenizer", "tokenizer.json or a directory that has one; empty: one token per byte", OPT_PATH, AT(tokenizer), 0,
     1024, NULL, AFFECTS_EVALUATION},
    {"document_separator", SEPARATOR_HELP, OPT_TEXT, AT(document_separator), 0, 64, NULL, AFFECTS_EVALUATION},
    {"save_dtype", "number type of model/", OPT_CHOICE, AT(save_dtype), 0, 0, "float32|bfloat16|float16",
     AFFECTS_LOOKS},
};
static const OptionTable table = {rows, sizeof rows / sizeof *rows};
static const OptionTable *get_table(void) { return &table; }
static void extra_defaults(void *p) { ((Extra *)p)->save_dtype = 1; }
static void defaults(void *o) { pretrain_defaults(o); }
static const CliOptions options = {pretrain_table, sizeof(PretrainOptions), defaults, NULL};
static const CliOptions extra = {get_table, sizeof(Extra), extra_defaults, NULL};
static const CliAlias aliases[] = {{"data", "text"}, {NULL, NULL}};

typedef struct {
    Backend *be;
    Model m;
    Tokenizer *tokenizer;
    Dataset data;
    Pretrain task;
} Rig;

static void rig_close(Rig *r) {
    pretrain_close(&r->task);
    model_close(&r->m);
    dataset_close(&r->data);
    tokenizer_close(r->tokenizer);
    backend_close(r->be);
}

/* Refuses a run that will not fit, before anything is allocated: the largest of its levels. */
static int rig_fits(Rig *r, const Config *config, const PretrainOptions *o, Err *e) {
    MemoryPlan most = {0};
    for (int i = 0; i < o->levels; i++) {
        MemoryPlan plan = {0};
        StageOptions s = o->stage;
        s.batch_size = s.micro_batch_size = o->level[i].text_rows + o->level[i].recall_rows;
        stage_settle(&s, o->lanes);
        s.train_seq_len = o->level[i].T;
        TRY(memory_trained(&plan, r->be, config, GRAD_ALL, &s, 0, 0, e));
        if (memory_total(&plan) > memory_total(&most)) most = plan;
    }
    return memory_check(&most, r->be, "pretraining", e);
}

static int rig_open(Rig *r, const Cli *c, Err *e) {
    const PretrainOptions *o = c->options[0];
    const Extra *x = c->options[1];
    Config config;
    const ShardOptions so = {.add_eos = -1, .split = x->document_separator, .field = x->text_field};
    TRY(cli_backend(c, &r->be, e));
    TRY(x->tokenizer[0] ? session_tokenizer(&r->tokenizer, x->tokenizer, e) : tokenizer_byte(&r->tokenizer, e));
    TRY(run_data_open(&r->data, c, x->text, r->tokenizer, &so, e));
    TRY(pretrain_config(&config, o, tokenizer_size(r->tokenizer), e));
    TRY(rig_fits(r, &config, o, e));
    TRY(model_open(&r->m, &config, r->be, GRAD_ALL, e));
    TRY(model_init(&r->m, o->seed, o->embed_std, o->gain, 0, e));
    return pretrain_open(&r->task, &r->m, &r->data, r->tokenizer, o, e);
}

static int rig_train(Rig *r, const Cli *c, TrainResult *result, Err *e) {
    const PretrainOptions *o = c->options[0];
    TrainOptions t, own = pretrain_train_options(&r->task);
    RunPaths paths;
    const uint64_t data = run_data_hash(&r->data);
    TRY(run_train_options(&t, &paths, c, "pretrain", &own.stage, e));
    own.log_path = t.log_path;
    own.dir = t.dir;
    own.progress = t.progress;
    own.stop = t.stop;
    own.warn = t.warn;
    own.warn_ctx = t.warn_ctx;
    own.save_every = o->save_every;
    own.fingerprint = fingerprint_bytes(own.fingerprint, &data, sizeof data);
    TRY(ranks_equal(c->ranks, own.fingerprint, "the hash of the text and the options", e));
    const Task task = pretrain_task(&r->task);
    return train_run(&task, &own, result, e);
}

/* The tokenizer's files, in a directory from which hf_save copies them. */
static int tokenizer_files(char *dir, size_t cap, const Cli *c, Err *e) {
    const Extra *x = c->options[1];
    static const char config[] =
        "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"clean_up_tokenization_spaces\": false\n}\n";
    char path[1024], *text = NULL;
    size_t len = 0;
    if (x->tokenizer[0] && file_exists(x->tokenizer) == 2)
        return snprintf(dir, cap, "%s", x->tokenizer) < (int)cap ? OK : ERR_USAGE;
    TRY(run_path(dir, cap, c, "data", e));
    TRY(file_mkdirs(dir, e));
    TRY(file_join(path, sizeof path, dir, "tokenizer.json", e));
    if (x->tokenizer[0]) return file_copy(x->tokenizer, path, e);
    TRY(tokenizer_byte_json(&text, &len, e));
    int rc = file_write_all(path, text, len, e);
    mem_free(text);
    if (!rc) rc = file_join(path, sizeof path, dir, "tokenizer_config.json", e);
    return rc ? rc : file_write_all(path, config, sizeof config - 1, e);
}

static int save(const Rig *r, const Cli *c, Err *e) {
    static const DType types[] = {DT_F32, DT_BF16, DT_F16};
    char dir[1024], from[1024];
    if (!ranks_first(c->ranks)) return OK;
    TRY(tokenizer_files(from, sizeof from, c, e));
    TRY(run_path(dir, sizeof dir, c, "model", e));
    const HfSaveOptions s = {.dtype = types[((const Extra *)c->options[1])->save_dtype], .tokenizer_from = from};
    return hf_save(&r->m, dir, &s, NULL, 0, e);
}

static int report(Rig *r, const Cli *c, const TrainResult *t, Err *e) {
    const Recall *probe = &r->task.probe;
    double ce = NAN, accuracy[RECALL_MAX_N] = {0};
    char path[1024];
    JsonOut j;
    TRY(pretrain_evaluate(&r->task, &ce, accuracy, e));
    if (!ranks_first(c->ranks)) return OK;
    json_out_begin(&j, 1);
    json_out_object(&j, NULL);
    json_out_int(&j, "steps", t->step);
    json_out_int(&j, "tokens", t->tokens);
    json_out_real(&j, "seconds", t->seconds);
    json_out_int(&j, "parameters", (int64_t)params_count(&r->m.c));
    json_out_real(&j, "text_ce", ce);
    json_out_object(&j, "recall");
    for (int i = 0; i < probe->n_n; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", probe->n[i]);
        json_out_real(&j, name, accuracy[i]);
    }
    json_out_close(&j);
    json_out_close(&j);
    int rc = json_out_end(&j, e);
    if (!rc) rc = run_path(path, sizeof path, c, "results.json", e);
    if (!rc) rc = file_write_all(path, j.text, j.len, e);
    if (!rc && c->common.json) puts(j.text);
    json_out_free(&j);
    if (rc || c->common.json) return rc;
    printf("%lld steps, %lld tokens, %.1f s; held-out text loss %.4f nats\n", (long long)t->step, (long long)t->tokens,
           t->seconds, ce);
    for (int i = 0; i < probe->n_n; i++) printf("recall %3d pairs  %.4f\n", probe->n[i], accuracy[i]);
    return OK;
}

static int pretrain(Cli *c, Err *e) {
    Rig r = {0};
    TrainResult result = {0};
    TRY(cli_require(c, ((Extra *)c->options[1])->text, "--text FILE", e));
    TRY(pretrain_check(c->options[0], e));
    int rc = ranks_first(c->ranks) ? run_dir_open(c, "run.json", 0, e) : OK;
    if (!rc && ranks_first(c->ranks)) rc = run_json_write(c, e);
    TRY(ranks_outcome(c->ranks, rc, e));
    rc = rig_open(&r, c, e);
    if (!rc) rc = rig_train(&r, c, &result, e);
    if (!rc) rc = save(&r, c, e);
    if (!rc) rc = report(&r, c, &result, e);
    if (rc == ERR_SIGINT || rc == ERR_SIGTERM) err_hint(e, "go on with the same command and --resume");
    rig_close(&r);
    return rc;
}

const Command cmd_pretrain = {
    .name = "pretrain",
    .summary = "Trains a small softmax teacher from scratch on text and the recall game; leaves it in RUNDIR/model.",
    .usage = "--text FILE -o RUNDIR [options]",
    .common = CLI_OUTPUT | CLI_BACKEND | CLI_JSON | CLI_DRY_RUN | CLI_RESUME | CLI_CONFIG | CLI_RANKS,
    .section = "stage",
    .alias = aliases,
    .options = {&options, &extra},
    .run = pretrain,
};
