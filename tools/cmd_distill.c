/* cmd_distill.c - stage 2 or stage 3 by itself: a given student, given softmax layers, one training run. */
#include "base/mem.h"
#include "io/ends.h"
#include "io/hf.h"
#include "method/distill.h"
#include "method/heldout.h"
#include "method/select.h"
#include "run/memory.h"
#include "run/pipeline.h"
#include "run/pretrain.h"
#include "tools/run_dir.h"
#include "tools/session.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

typedef struct {
    int stage;
} Extra;
static const Option rows[] = {{"stage", "2: KL to the teacher; 3: cross-entropy on the text", OPT_INT,
                               offsetof(Extra, stage), 2, 3, NULL, AFFECTS_EVALUATION}};
static const OptionTable table = {rows, 1};
static const OptionTable *get_table(void) { return &table; }
static void extra_defaults(void *o) { ((Extra *)o)->stage = 2; }
static void defaults(void *o) { pipeline_defaults(o); }
static void official(void *o) { pipeline_official(o); }
static void settle(void *o) { pipeline_settle(o); }
static const CliOptions options = {pipeline_table, sizeof(PipelineOptions), defaults, official};
static const CliOptions extra = {get_table, sizeof(Extra), extra_defaults, NULL};
static const CliAlias aliases[] = {{"model", "teacher"}, {"data", "text"}, {NULL, NULL}};

typedef struct {
    Backend *be;
    Model teacher, student;
    Tokenizer *tokenizer;
    Dataset data;
    Teacher states;
    Distill distill;
    Heldout heldout;
} Rig;

static void rig_close(Rig *r) {
    heldout_close(&r->heldout);
    distill_close(&r->distill);
    teacher_close(&r->states);
    dataset_close(&r->data);
    tokenizer_close(r->tokenizer);
    model_close(&r->student);
    model_close(&r->teacher);
    backend_close(r->be);
}

/* The student as it is, or with the listed layers given back to the teacher's attention. */
static int student_open(Rig *r, const PipelineOptions *o, Err *e) {
    int list[MAX_LAYERS], n = 0, keep[MAX_LAYERS] = {0};
    Model start;
    if (!o->keep_full_attention_layers[0]) return hf_load_model(&r->student, o->student_init_ckpt, r->be, GRAD_ALL, e);
    if (!r->teacher.be)
        return err_set(e, ERR_USAGE, "distill: keep_full_attention_layers needs the teacher: give -m TEACHER");
    TRY(list_parse(o->keep_full_attention_layers, list, MAX_LAYERS, &n, 0, r->teacher.c.L - 1,
                   "keep_full_attention_layers", e));
    TRY(select_check_list(list, n, r->teacher.c.L, -1, "keep_full_attention_layers", e));
    for (int i = 0; i < n; i++) keep[list[i]] = 1;
    TRY(hf_load_model(&start, o->student_init_ckpt, r->be, GRAD_NONE, e));
    const int rc = start.c.L == r->teacher.c.L ? hybrid_open(&r->student, &r->teacher, &start, keep, GRAD_ALL, e)
                                               : err_set(e, ERR_INPUT, "%s: has %d layers, the teacher %d",
                                                         o->student_init_ckpt, start.c.L, r->teacher.c.L);
    model_close(&start);
    return rc;
}

/* Refuses a run that will not fit, before anything is read. */
static int rig_fits(Rig *r, const PipelineOptions *o, const StageOptions *stage, int stage2, Err *e) {
    Config student, teacher;
    MemoryPlan plan = {0};
    const int B = stage->micro_batch_size, T = stage->train_seq_len;
    TRY(hf_config(&student, o->student_init_ckpt, e));
    if (o->teacher[0]) {
        TRY(hf_config(&teacher, o->teacher, e));
        TRY(memory_frozen(&plan, r->be, &teacher, GRAD_NONE, "teacher's weights", "teacher's activations", B,
                          stage2 ? T : 0, e));
    }
    TRY(memory_trained(&plan, r->be, &student, GRAD_ALL, stage, o->checkpointing, stage2 ? teacher.C : 0, e));
    return memory_check(&plan, r->be, stage2 ? "stage 2" : "stage 3", e);
}

static int rig_open(Rig *r, Cli *c, const StageOptions *stage, Err *e) {
    const PipelineOptions *o = c->options[0];
    const int stage2 = ((Extra *)c->options[1])->stage == 2;
    TRY(cli_backend(c, &r->be, e));
    TRY(session_tokenizer(&r->tokenizer, o->teacher[0] ? o->teacher : o->student_init_ckpt, e));
    Config config;
    TRY(hf_config(&config, o->student_init_ckpt, e));
    TRY(tokenizer_rows(r->tokenizer, config.VOC, o->student_init_ckpt, e));
    static const DType types[] = {DT_F32, DT_F32, DT_BF16, DT_F16};
    TRY(hf_range_check(o->student_init_ckpt, o->save_dtype ? types[o->save_dtype] : config.dtype, e));
    if (o->teacher[0]) session_note_unread(c, o->teacher);
    if (o->teacher[0]) TRY(tokenizers_meet(o->student_init_ckpt, o->teacher, e));
    TRY(rig_fits(r, o, stage, stage2, e));
    if (o->teacher[0]) TRY(hf_load_model(&r->teacher, o->teacher, r->be, o->teacher_bf16 ? GRAD_HALF : GRAD_NONE, e));
    TRY(student_open(r, o, e));
    const Config *k = &r->student.c;
    if (r->teacher.be && r->teacher.c.VOC != k->VOC)
        return err_set(e, ERR_INPUT, "vocabularies differ: the teacher has %d tokens, the student %d", r->teacher.c.VOC,
                       k->VOC);
    const ShardOptions so = {.add_eos = o->add_eos ? ends_document(k, r->tokenizer) : -1,
                             .max_tokens = (size_t)o->max_tokens,
                             .split = o->document_separator,
                             .field = o->text_field};
    TRY(run_data_open(&r->data, c, o->text, r->tokenizer, &so, e));
    if (o->loss_on) TRY(dataset_completions(&r->data, e));
    const TextStream text = {
        .d = &r->data, .seed = o->seed, .heldout = o->heldout, .boundaries = o->document_boundaries};
    const int B = stage->micro_batch_size, T = stage->train_seq_len;
    if (stage2) TRY(teacher_open(&r->states, &r->teacher, B, T, 0, 0, e));
    TRY(distill_open(&r->distill, &r->student, stage2 ? &r->states : NULL, &text, stage, o->temperature,
                     o->checkpointing, e));
    if (!r->teacher.be) return OK;
    TRY(heldout_open(&r->heldout, &r->teacher, &text, o->eval_batch_size ? o->eval_batch_size : B,
                     o->eval_seq_len ? o->eval_seq_len : T, o->eval_batches, (size_t)o->cache_mb << 20, e));
    if (r->heldout.batches < o->eval_batches) {
        char line[128];
        snprintf(line, sizeof line, "eval_batches: the held-out text has %d batches, not %d", r->heldout.batches,
                 o->eval_batches);
        cli_note(c, line);
    }
    return OK;
}

static int rig_train(Rig *r, Cli *c, const StageOptions *stage, TrainResult *result, Err *e) {
    const PipelineOptions *o = c->options[0];
    const int stage2 = ((Extra *)c->options[1])->stage == 2;
    TrainOptions t;
    RunPaths paths;
    TRY(run_train_options(&t, &paths, c, stage2 ? "stage2" : "stage3", stage, e));
    t.stage.optim.seed = o->seed;
    t.save_every = o->save_every;
    t.keep_last = o->keep_last;
    t.log_every = o->log_every;
    t.nan = o->nan_skip ? NAN_SKIP : NAN_STOP;
    t.max_skips = o->max_skips;
    t.fingerprint = fingerprint_bytes(run_data_hash(&r->data), &o->seed, sizeof o->seed);
    if (o->teacher[0]) TRY(run_model_hash(&t.fingerprint, o->teacher, e));
    TRY(run_model_hash(&t.fingerprint, o->student_init_ckpt, e));
    TRY(ranks_equal(c->ranks, t.fingerprint, "the hash of the text and the models", e));
    const Task task = distill_task(&r->distill, "");
    return train_run(&task, &t, result, e);
}

static int save(const Rig *r, const Cli *c, Err *e) {
    static const DType types[] = {DT_F32, DT_F32, DT_BF16, DT_F16};
    const PipelineOptions *o = c->options[0];
    char dir[1024], notes[1024] = "";
    if (!ranks_first(c->ranks)) return OK;
    TRY(run_path(dir, sizeof dir, c, "model", e));
    const HfSaveOptions s = {.dtype = o->save_dtype ? types[o->save_dtype] : r->student.c.dtype,
                             .tokenizer_from = o->teacher[0] ? o->teacher : o->student_init_ckpt};
    TRY(hf_save(&r->student, dir, &s, notes, sizeof notes, e));
    for (char *line = notes, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        cli_note((void *)(uintptr_t)c, line);
    }
    return OK;
}

static int report(Rig *r, const Cli *c, const TrainResult *t, Err *e) {
    HeldoutResult h = {.kl = NAN, .kl_se = NAN, .ce = NAN, .ce_se = NAN};
    JsonOut j;
    if (r->teacher.be) TRY(heldout_run(&r->heldout, &r->student, &h, e));
    if (!ranks_first(c->ranks)) return OK;
    if (!c->common.json) {
        printf("steps %lld, tokens %lld, loss %.6f, %.1f s\n", (long long)t->step, (long long)t->tokens, t->recent,
               t->seconds);
        if (r->teacher.be && isfinite(h.kl_se))
            printf("held-out KL %.6f +- %.6f, text loss %.6f +- %.6f\n", h.kl, h.kl_se, h.ce, h.ce_se);
        else if (r->teacher.be) printf("held-out KL %.6f, text loss %.6f (one batch)\n", h.kl, h.ce);
        return OK;
    }
    json_out_begin(&j, 1);
    json_out_object(&j, NULL);
    json_out_int(&j, "steps", t->step);
    json_out_int(&j, "tokens", t->tokens);
    json_out_real(&j, "loss", t->recent);
    json_out_real(&j, "seconds", t->seconds);
    json_out_real(&j, "heldout_kl", h.kl);
    json_out_real(&j, "heldout_kl_stderr", h.kl_se);
    json_out_real(&j, "heldout_ce", h.ce);
    json_out_close(&j);
    const int rc = json_out_end(&j, e);
    if (!rc) puts(j.text);
    json_out_free(&j);
    return rc;
}

static int distill(Cli *c, Err *e) {
    const PipelineOptions *o = c->options[0];
    const int stage2 = ((Extra *)c->options[1])->stage == 2;
    const StageOptions *stage = stage2 ? &o->stage2 : &o->stage3;
    Rig r = {0};
    TrainResult result = {0};
    if (stage2) TRY(cli_require(c, o->teacher, "-m TEACHER", e));
    TRY(cli_require(c, o->text, "--text FILE", e));
    TRY(cli_require(c, o->student_init_ckpt, "--student-init-ckpt DIR", e));
    TRY(stage_check(stage, stage2 ? "stage2" : "stage3", e));
    int rc = ranks_first(c->ranks) ? run_dir_open(c, "run.json", 0, e) : OK;
    if (!rc && ranks_first(c->ranks)) rc = run_json_write(c, e);
    TRY(ranks_outcome(c->ranks, rc, e));
    rc = rig_open(&r, c, stage, e);
    if (!rc) rc = rig_train(&r, c, stage, &result, e);
    if (!rc) rc = save(&r, c, e);
    if (!rc) rc = report(&r, c, &result, e);
    if (rc == ERR_SIGINT || rc == ERR_SIGTERM) err_hint(e, "go on with the same command and --resume");
    rig_close(&r);
    return rc;
}

const Command cmd_distill = {
    .name = "distill",
    .summary = "Stage 2 (KL to the teacher) or stage 3 (the text itself) for one student; leaves it in "
               "RUNDIR/model.",
    .usage = "--stage 2|3 -m TEACHER --student-init-ckpt DIR [--keep-full-attention-layers 3,7] --text FILE "
             "-o RUNDIR [options]",
    .details = "DIR is a stage-1 student (what align leaves in RUNDIR/model) or a hybrid to train further. "
               "The listed layers get the teacher's\n"
               "softmax attention back before training. Stage 3 needs no teacher.",
    .common = CLI_OUTPUT | CLI_BACKEND | CLI_JSON | CLI_DRY_RUN | CLI_RESUME | CLI_CONFIG | CLI_RANKS,
    .section = "stage*",
    .hidden = "stage1. score. ",
    .alias = aliases,
    .settle = settle,
    .options = {&options, &extra},
    .run = distill,
};
