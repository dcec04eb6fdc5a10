/* pipeline.c - a run: opens what goes in, and keeps, names and reports what the method makes. See pipeline.h. */
#include "run/pipeline_parts.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "io/ends.h"
#include "io/hf.h"
#include "io/jsonl.h"
#include "method/select.h"
#include "selectors/budget.h"
#include "run/memory.h"
#include "run/pretrain.h"
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

void pipeline_note(const Pipeline *p, const char *fmt, ...) {
    char line[512];
    va_list ap;
    if (!p->h->note) return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    p->h->note(p->h->ctx, line);
}

/* dir/a or dir/a/b */
int pipeline_path(const Pipeline *p, char *dst, size_t cap, const char *a, const char *b, Err *e) {
    char name[256];
    snprintf(name, sizeof name, "%s%s%s", a, b ? "/" : "", b ? b : "");
    return file_join(dst, cap, p->dir, name, e);
}

int pipeline_stopped(const Pipeline *p, Err *e) {
    int stop = p->h->stop ? *p->h->stop : 0;
    TRY(ranks_share(p->be->ranks, &stop, sizeof stop, e));
    if (!stop) return OK;
    return err_set(e, 128 + stop, "stopped between two stages; the same command goes on from here");
}

void pipeline_key(Pipeline *p, unsigned affects, const char *more) {
    uint64_t h = fingerprint_bytes(0, &p->inputs, sizeof p->inputs);
    h = fingerprint_backend(options_key(pipeline_table(), p->o, affects, h), p->be->name);
    p->memo.key = more ? fingerprint_text(h, more) : h;
}

void pipeline_key_add(Pipeline *p, const void *data, size_t n) {
    p->memo.key = fingerprint_bytes(p->memo.key, data, n);
}

static int memo_open(Pipeline *p, Err *e) {
    const PipelineOptions *o = p->o;
    TRY(pipeline_path(p, p->log, sizeof p->log, "log.jsonl", NULL, e));
    TRY(pipeline_path(p, p->checkpoints, sizeof p->checkpoints, "checkpoints", NULL, e));
    TrainOptions t = {.log_every = o->log_every,
                      .log_path = p->log,
                      .save_every = o->save_every,
                      .keep_last = o->keep_last,
                      .nan = o->nan_skip ? NAN_SKIP : NAN_STOP,
                      .max_skips = o->max_skips,
                      .progress = p->h->progress,
                      .stop = p->h->stop,
                      .warn = p->h->note,
                      .warn_ctx = p->h->ctx};
    t.stage.optim.seed = o->seed;
    t.stage.optim.lanes = o->lanes;
    Worker *worker = p->memo.worker;
    p->memo = run_memo(p->checkpoints, 0, &t);
    p->memo.worker = worker;
    p->memo.ranks = p->be->ranks;
    p->memo.piece = p->h->piece;
    p->memo.pieces = p->h->pieces;
    p->m.memo = &p->memo.memo;
    return OK;
}

/* ---------------------------------------------------------------- what goes in */

/* Of RUN/data/text.tok, so that other options make it again. */
typedef struct {
    int64_t tokens, documents;
} TextRecord;
static const Field TEXT[] = {{"tokens", FIELD_I64, offsetof(TextRecord, tokens), 0, 0, FIELD_ALWAYS, 0, NULL},
                             {"documents", FIELD_I64, offsetof(TextRecord, documents), 0, 0, FIELD_ALWAYS, 0, NULL}};
static const Record text_record = {TEXT, 2, sizeof(TextRecord)};

static int data_write(Pipeline *p, const char *path, ShardOptions *shard, Err *e) {
    const PipelineOptions *o = p->o;
    pipeline_note(p, "tokenizing %s", o->text);
    shard->add_eos = o->add_eos ? ends_document(&p->teacher.c, p->tokenizer) : -1;
    if (o->add_eos && shard->add_eos < 0)
        pipeline_note(p, "add_eos: the teacher names no end of text; documents get none");
    ShardStats stats;
    TRY(shard_write(path, o->text, p->tokenizer, shard, &stats, e));
    char line[4700];
    shard_stats_text(&stats, o->text, line, sizeof line);
    if (p->h->note) p->h->note(p->h->ctx, line);
    const TextRecord text = {(int64_t)stats.tokens, (int64_t)stats.documents};
    return p->m.memo->put(p->m.memo, "text", -1, &text_record, &text, e);
}

static int data_shard(Pipeline *p, char *path, size_t cap, Err *e) {
    const PipelineOptions *o = p->o;
    ShardOptions shard = {.split = o->document_separator, .field = o->text_field, .max_tokens = (size_t)o->max_tokens};
    TextRecord text;
    int found;
    TRY(shard_given(o->text, &shard, &found, e));
    if (found)
        return snprintf(path, cap, "%s", o->text) < (int)cap ? OK : err_set(e, ERR_USAGE, "text: the path is too long");
    TRY(pipeline_path(p, path, cap, "data", NULL, e));
    TRY(file_mkdirs(path, e));
    TRY(pipeline_path(p, path, cap, "data", "text.tok", e));
    pipeline_key(p, AFFECTS_DATA, NULL);
    TRY(p->m.memo->get(p->m.memo, "text", -1, &text_record, &text, &found, e));
    // written atomically: there means complete
    const int write = ranks_first(p->be->ranks) && !(found && file_exists(path));
    return ranks_outcome(p->be->ranks, write ? data_write(p, path, &shard, e) : OK, e);
}

static int data_open(Pipeline *p, Err *e) {
    char path[1200];
    p->tokenizer = p->h->tokenizer;
    if (!p->tokenizer) TRY(tokenizer_open(&p->tokenizer, p->o->teacher, e));
    TRY(tokenizer_rows(p->tokenizer, p->teacher.c.VOC, p->o->teacher, e));
    TRY(data_shard(p, path, sizeof path, e));
    TRY(dataset_open_ranks(&p->data, path, p->be->ranks, e));
    if (p->data.shard[0].tok_hash != tokenizer_hash(p->tokenizer))
        return err_set(e, ERR_INPUT, "%s: was made with another tokenizer than the teacher's", path);
    if (p->data.shard[0].vocab > p->teacher.c.VOC)
        return err_set(e, ERR_INPUT, "%s: ids up to %d, the teacher has %d", path, p->data.shard[0].vocab - 1,
                       p->teacher.c.VOC);
    if (p->o->loss_on) TRY(dataset_completions(&p->data, e));
    p->m.text = (TextStream){
        .d = &p->data, .seed = p->o->seed, .heldout = p->o->heldout, .boundaries = p->o->document_boundaries};
    return OK;
}

/* The probes by which every student is judged. */
static int probes_open(Pipeline *p, Err *e) {
    const PipelineOptions *o = p->o;
    const int B = o->eval_batch_size ? o->eval_batch_size : o->stage2.micro_batch_size;
    const int T = o->eval_seq_len ? o->eval_seq_len : o->stage2.train_seq_len;
    TRY(heldout_open(&p->heldout, &p->teacher, &p->m.text, B, T, o->eval_batches, (size_t)o->cache_mb << 19, e));
    if (p->heldout.batches < o->eval_batches || p->heldout.B < B)
        pipeline_note(p, "eval_batches: the held-out text has %d batches of %d x %d tokens, not %d of %d x %d",
                      p->heldout.batches, p->heldout.B, T, o->eval_batches, B, T);
    p->scoring = p->m.text;
    if (!o->recall_keys[0]) return OK;
    RecallSpec s = {.disjoint = !o->recall_values[0]};
    int *keys = NULL, *values = NULL, n[RECALL_MAX_N], n_n = 0;
    int rc = recall_alphabet(&keys, &s.n_key, p->tokenizer, o->recall_keys, e);
    if (!rc && !s.disjoint) rc = recall_alphabet(&values, &s.n_value, p->tokenizer, o->recall_values, e);
    if (!rc) rc = list_parse(o->recall_n, n, RECALL_MAX_N, &n_n, 1, 1 << 16, "recall_n", e);
    s.key = keys;
    s.value = values;
    if (!rc) rc = recall_open(&p->recall, &s, n, n_n, o->recall_rows, 16, 77, p->teacher.c.VOC, e);
    mem_free(keys);
    mem_free(values);
    if (rc || o->score_mix <= 0) return rc;
    p->scoring.mix = o->score_mix;
    p->scoring.mixed = recall_mixed;
    p->scoring.mixed_ctx = &p->recall;
    return heldout_open(&p->judge, &p->teacher, &p->scoring, p->heldout.B, T, p->heldout.batches,
                        (size_t)o->cache_mb << 19, e);
}

Heldout *pipeline_judge(Pipeline *p) { return p->judge.B ? &p->judge : &p->heldout; }

/* K from memory_budget_mb, if it is given. */
static int budget_k(Pipeline *p, const Config *teacher, Err *e) {
    const PipelineOptions *o = p->o;
    if (o->memory_budget_mb <= 0) return OK;
    const double soft = (double)budget_softmax_bytes(teacher, p->be, (long)o->memory_context);
    const double lin = (double)budget_linear_bytes(teacher, p->be);
    p->r->K = budget_count(soft, lin, p->r->L, o->memory_budget_mb * 1048576);
    if (p->r->K < 0)
        return err_set(e, ERR_USAGE, "memory_budget_mb: got %g, %d layers need at least %g at %lld tokens",
                       o->memory_budget_mb, p->r->L, p->r->L * fmin(soft, lin) / 1048576, (long long)o->memory_context);
    pipeline_note(p, "memory: %d softmax layers fit %g MiB at %lld tokens", p->r->K, o->memory_budget_mb,
                  (long long)o->memory_context);
    return OK;
}

/* What init fit needs beside stage 1. */
static int fit_plan(MemoryPlan *plan, Backend *be, const Config *teacher, const Config *student, const StageOptions *s,
                    Err *e) {
    Model m;
    TRY(model_measure(&m, teacher, be, GRAD_NONE, e));
    memory_add(plan, "start", fit_bytes(&m, student, s->micro_batch_size * s->train_seq_len));
    model_close(&m);
    return OK;
}

int pipeline_memory(const PipelineOptions *o, Backend *be, const PipelineHooks *h, Err *e) {
    const GradKind kind = o->teacher_bf16 ? GRAD_HALF : GRAD_NONE;
    Config teacher, student;
    int mixer[MAX_LAYERS];
    TRY(hf_config(&teacher, o->teacher, e));
    for (int l = 0; l < teacher.L; l++) mixer[l] = mixer_find(o->student);
    TRY(transfer_config(&student, &teacher, mixer, e));
    for (int stage = o->student_init_ckpt[0] ? 2 : 1; stage <= 2; stage++) {
        MemoryPlan plan = {0};
        const StageOptions *s = stage == 1 ? &o->stage1 : &o->stage2;
        TRY(memory_frozen(&plan, be, &teacher, kind, "teacher's weights", "teacher's activations", s->micro_batch_size,
                          s->train_seq_len, e));
        if (stage == 2) TRY(memory_frozen(&plan, be, &student, GRAD_NONE, "stage-1 student", NULL, 0, 0, e));
        TRY(memory_trained(&plan, be, &student, stage == 1 ? GRAD_MIXERS : GRAD_ALL, s, stage == 1 || o->checkpointing,
                           stage == 1 ? -1 : teacher.C, e));
        if (stage == 1 && o->init >= START_TAYLOR) TRY(fit_plan(&plan, be, &teacher, &student, s, e));
        TRY(memory_check(&plan, be, stage == 1 ? "stage 1" : "stage 2", e));
        char line[600];
        const int n = snprintf(line, sizeof line, "memory for stage %d: ", stage);
        memory_text(&plan, line + n, sizeof line - (size_t)n);
        if (h->note) h->note(h->ctx, line);
    }
    return OK;
}

/* Each stage that certainly runs has at least one window of training text. */
static int stages_fit_text(const Pipeline *p, Err *e) {
    const PipelineOptions *o = p->o;
    const TextStream *text = &p->m.text;
    Split split;
    if (!o->student_init_ckpt[0]) TRY(stream_split(&split, text, o->stage1.train_seq_len, TRAINING, e));
    if (p->end != PIPELINE_ALL) return OK;
    TRY(stream_split(&split, text, o->stage2.train_seq_len, TRAINING, e));
    if (!o->stage3.steps && !o->stage3.target_tokens) return OK;
    return stream_split(&split, text, o->stage3.train_seq_len, TRAINING, e);
}

/* What the teacher and the device refuse, before anything is written. */
static int inputs_check(Pipeline *p, Err *e) {
    const PipelineOptions *o = p->o;
    const StageOptions *const stage[] = {&o->stage1, &o->score, &o->stage2, &o->stage3};
    Config teacher;
    TRY(hf_config(&teacher, o->teacher, e));
    for (int l = 0; l < teacher.L; l++)
        if (teacher.mixer[l])
            return err_set(e, ERR_INPUT, "%s: layer %d is linear; a teacher has softmax attention everywhere",
                           o->teacher, l);
    p->r->L = teacher.L;
    p->r->K = o->k >= 0 ? o->k : select_count(p->r->L, o->softmax_ratio);
    TRY(budget_k(p, &teacher, e));
    TRY(pipeline_check_layers(o, p->r->L, p->r->K, e));
    for (size_t i = 0; i < sizeof stage / sizeof *stage; i++) TRY(optim_check(&stage[i]->optim, p->be, e));
    return OK;
}

/* run.json, by rank 0; the others must have the same files before them. */
static int inputs_known(Pipeline *p, Err *e) {
    char who[128];
    Ranks *r = p->be->ranks;
    if (ranks_first(r)) {
        if (!worker_others(p->memo.worker, who, sizeof who)) TRY(file_remove_temps(p->dir, e));
        else pipeline_note(p, "%s: sharing the work with %s", p->dir, who);
        TRY(run_file(p->o, p->dir, p->be->name, p->h, &p->inputs, e));
        if (p->h->allow_config_change) TRY(pipeline_selection_clear(p, e));
    } else TRY(inputs_hash(&p->inputs, NULL, p->o, e));
    return ranks_equal(r, p->inputs, "the teacher's and the text's hash", e);
}

static int inputs_open(Pipeline *p, Err *e) {
    TRY(inputs_check(p, e));
    TRY(inputs_known(p, e));
    TRY(memo_open(p, e));
    if (p->be->free_memory) TRY(pipeline_memory(p->o, p->be, p->h, e));
    TRY(hf_load_model(&p->teacher, p->o->teacher, p->be, p->o->teacher_bf16 ? GRAD_HALF : GRAD_NONE, e));
    TRY(data_open(p, e));
    TRY(probes_open(p, e));
    TRY(stages_fit_text(p, e));
    p->r->n_n = p->recall.n_n;
    memcpy(p->r->recall_n, p->recall.n, sizeof p->r->recall_n);
    return OK;
}

static void pipeline_close(Pipeline *p) {
    recall_close(&p->recall);
    heldout_close(&p->judge);
    heldout_close(&p->heldout);
    model_close(&p->m.stage1_student);
    model_close(&p->teacher);
    dataset_close(&p->data);
    if (p->tokenizer != p->h->tokenizer) tokenizer_close(p->tokenizer);
    mem_free(p->m.score);
    mem_free(p->rows);
    for (int i = 0; i < p->rankings; i++) mem_free(p->ranking[i].order);
}

/* ---------------------------------------------------------------- stage 1 */

static const char *start_mixer(const PipelineOptions *o) {
    return o->force_window_on_all_layers ? "swa_v1" : o->student;
}

static int start_config(Pipeline *p, Config *c, Err *e) {
    const PipelineOptions *o = p->o;
    const int swa = !strcmp(start_mixer(o), "swa_v1"), window = o->window_size ? o->window_size : SWA_WINDOW;
    int mixer[MAX_LAYERS];
    for (int l = 0; l < p->teacher.c.L; l++) mixer[l] = mixer_find(start_mixer(o));
    TRY(transfer_config(c, &p->teacher.c, mixer, e));
    if (o->window_size && !swa && !o->window_on_kept_layers)
        pipeline_note(p, "window_size: no layer uses it: it goes with student swa_v1, window_on_kept_layers or "
                         "force_window_on_all_layers");
    if (swa) c->swa_window = window;
    if (o->force_window_on_all_layers || (o->window_on_kept_layers && (o->window_size || swa))) c->window = window;
    c->linear_bias = p->o->keep_biases && c->qkv_bias;
    c->no_rope = o->kept_rope; // the stage-1 student has no softmax layer: it is for the hybrids made of it
    return OK;
}

static int started_log(const Pipeline *p, const Fit *f, Err *e) {
    char init[32];
    Log *log;
    JsonOut j;
    options_get(options_find(pipeline_table(), "init"), p->o, init, sizeof init);
    TRY(train_log_trim(p->log, "start", NULL, -1, e));
    TRY(log_open(&log, p->log, 1, e));
    json_out_begin(&j, 0);
    json_out_object(&j, NULL);
    json_out_str(&j, "stage", "start");
    json_out_str(&j, "run", "");
    json_out_int(&j, "step", 0);
    json_out_str(&j, "init", init);
    json_out_int(&j, "num_input_tokens_seen", f->tokens);
    json_out_array(&j, "before");
    for (int l = 0; l < f->L; l++) json_out_real(&j, NULL, f->layer[l].before);
    json_out_close(&j);
    json_out_array(&j, "after");
    for (int l = 0; l < f->L; l++) json_out_real(&j, NULL, f->layer[l].after);
    json_out_close(&j);
    json_out_close(&j);
    const int rc = log_row(log, &j, e);
    log_close(log);
    return rc;
}

/* RUN/start.csv, a row of the log and a line: what a start did. */
static int started(void *ctx, const Fit *f, Err *e) {
    const Pipeline *p = ctx;
    char path[1200];
    TextBuf b = {0};
    double before = 0, after = 0;
    textbuf_puts(&b, "layer,before,after,distance,entropy,first,constant\n");
    for (int l = 0; l < f->L; l++) {
        const FitLayer *v = &f->layer[l];
        before += v->before / f->L, after += v->after / f->L;
        textbuf_printf(&b, "%d,%.9g,%.9g,%.6g,%.6g,%.6g,%.6g\n", l, v->before, v->after, v->distance, v->entropy,
                       v->first, v->constant);
    }
    pipeline_note(p, "start: %lld tokens read, error of a layer %.4f -> %.4f in the mean", (long long)f->tokens, before,
                  after);
    int rc = textbuf_end(&b, e);
    if (!rc) rc = pipeline_path(p, path, sizeof path, "start.csv", NULL, e);
    if (!rc) rc = file_write_all(path, b.text, b.len, e);
    textbuf_free(&b);
    return rc ? rc : started_log(p, f, e);
}

static int start_given(Pipeline *p, Err *e) {
    const Config *t = &p->teacher.c, *c = &p->m.stage1_student.c;
    Config given;
    char what[128];
    TRY(hf_config(&given, p->o->student_init_ckpt, e));
    if (config_difference(&given, t, what, sizeof what)) {
        err_set(e, ERR_INPUT, "%s: differs from the teacher %s: %s", p->o->student_init_ckpt, p->o->teacher, what);
        return err_hint(e, "it must be a stage-1 student of this teacher");
    }
    TRY(tokenizers_meet(p->o->student_init_ckpt, p->o->teacher, e));
    TRY(hf_load_model(&p->m.stage1_student, p->o->student_init_ckpt, p->be, GRAD_NONE, e));
    p->m.stage1_student.c.no_rope = p->o->kept_rope;
    for (int l = 0; l < c->L; l++)
        if (c->mixer[l] != mixer_find(start_mixer(p->o)))
            return err_set(e, ERR_INPUT, "%s: layer %d is %s, expected %s", p->o->student_init_ckpt, l,
                           mixer_at(c->mixer[l])->name, start_mixer(p->o));
    return OK;
}

/* ---------------------------------------------------------------- all of it, as hybridize() asks for it */

static int aligned(void *ctx, int *enough, Err *e) {
    Pipeline *p = ctx;
    *enough = p->end == PIPELINE_ALIGN;
    if (*enough) return pipeline_model_save(p, &p->m.stage1_student, e);
    return pipeline_stopped(p, e);
}

static int scores(void *ctx, Err *e) { return pipeline_scores(ctx, e); }

static int choose(void *ctx, int *keep, int *enough, Err *e) {
    Pipeline *p = ctx;
    *enough = p->end != PIPELINE_ALL;
    return pipeline_selection(p, keep, &p->select_seconds, e);
}

static int students(void *ctx, const int *keep, Err *e) {
    Pipeline *p = ctx;
    TRY(pipeline_students(p, keep, p->select_seconds, e));
    TRY(pipeline_agreement(p, e));
    pipeline_peak(p);
    return results_write(p->r, p->dir, e);
}

/* What Algorithm 1 is done with. */
static int method_open(Pipeline *p, Err *e) {
    const PipelineOptions *o = p->o;
    Method *m = &p->m;
    m->teacher = &p->teacher;
    m->seed = o->seed;
    m->kv_repeat = o->kv_repeat;
    m->init = o->init;
    m->init_tokens = o->init_tokens;
    m->started = started;
    m->align_form = o->stage1_loss;
    m->stage1 = o->stage1;
    m->stage2 = o->stage2;
    m->stage3 = o->stage3;
    m->checkpointing = o->checkpointing;
    m->tau = o->temperature;
    m->ctx = p;
    m->aligned = aligned;
    m->scores = scores;
    m->choose = choose;
    m->student = students;
    TRY(start_config(p, &m->linear, e));
    if (o->student_init_ckpt[0]) return start_given(p, e);
    pipeline_note(p, "stage 1: aligning %d %s layers with their attention, %lld steps", m->linear.L, o->student,
                  (long long)stage_steps(&o->stage1));
    return OK;
}

/* A run that its text or its probes refuse leaves nothing of what it began here. */
static void inputs_withdraw(const Pipeline *p) {
    char path[1200];
    if (!pipeline_path(p, path, sizeof path, "run.json", NULL, NULL)) file_remove(path, NULL);
    if (!pipeline_path(p, path, sizeof path, "data", NULL, NULL)) file_remove_tree(path, NULL);
    if (!pipeline_path(p, path, sizeof path, "checkpoints", NULL, NULL)) file_remove_tree(path, NULL);
}

static int pipeline_all(Pipeline *p, Err *e) {
    char path[1200];
    TRY(pipeline_path(p, path, sizeof path, "run.json", NULL, e));
    const int begun = file_exists(path);
    const int rc = inputs_open(p, e);
    if ((rc == ERR_USAGE || rc == ERR_INPUT) && !begun && ranks_first(p->be->ranks) &&
        !worker_others(p->memo.worker, path, sizeof path))
        inputs_withdraw(p);
    TRY(rc);
    TRY(pipeline_stopped(p, e));
    TRY(method_open(p, e));
    pipeline_key(p, AFFECTS_DATA | AFFECTS_STAGE1, NULL);
    if (!p->m.stage1_student.be) TRY(method_stage1(&p->m, &p->r->seconds, e));
    return hybridize(&p->m, e);
}

/* A finished run of these options, input files and backend is left as it is. */
static int pipeline_finished(const Pipeline *p, int *finished, Err *e) {
    char path[1200];
    *finished = 0;
    TRY(file_join(path, sizeof path, p->dir, "results.json", e));
    if (!file_exists(path)) return OK;
    const int rc = run_same(p->o, p->dir, p->be->name, e);
    if (rc == ERR_USAGE && p->h->allow_config_change) {
        if (e) *e = (Err){0};
        return file_remove(path, e); // more is wanted of it
    }
    TRY(rc);
    TRY(pipeline_results_read(p->r, p->dir, e));
    p->r->finished_before = *finished = 1;
    return OK;
}

/* What rank 0 finds in the directory, for all ranks. */
static int pipeline_begin(Pipeline *p, int *finished, Err *e) {
    Ranks *r = p->be->ranks;
    char who[128];
    int rc = ranks_first(r) ? worker_open(&p->memo.worker, p->dir, e) : OK;
    if (!rc && p->memo.worker && p->h->allow_config_change && worker_others(p->memo.worker, who, sizeof who)) {
        rc = err_set(e, ERR_USAGE, "%s: %s is at work here, so its options cannot change now", p->dir, who);
        err_hint(e, "wait for its end, or go on without --allow-config-change");
    }
    if (!rc && ranks_first(r)) rc = pipeline_finished(p, finished, e);
    TRY(ranks_outcome(r, rc, e));
    TRY(ranks_share(r, finished, sizeof *finished, e));
    return *finished ? ranks_share(r, p->r, sizeof *p->r, e) : OK;
}

int pipeline_run(const PipelineOptions *o, const char *dir, Backend *be, const PipelineHooks *h, PipelineEnd end,
                 PipelineResult *result, Err *e) {
    static const PipelineHooks silent = {0};
    const PipelineHooks *hooks = h ? h : &silent;
    void *mem;
    int finished = 0;
    TRY(pipeline_check(o, e));
    if (hooks->pieces && (o->early_stop_r || o->halving_z > 0))
        return err_set(e, ERR_USAGE, "pieces: with early stopping or halving every layer waits for all others");
    TRY(mem_alloc(&mem, sizeof(PipelineResult), "results", e));
    Pipeline p = {.o = o, .h = hooks, .dir = dir, .be = be, .end = end, .r = mem};
    int rc = pipeline_begin(&p, &finished, e);
    if (!rc && finished) pipeline_note(&p, "%s: this run is finished; nothing to do", dir);
    if (!rc && !finished) rc = pipeline_all(&p, e);
    if (rc == MEMO_ELSEWHERE) {
        pipeline_note(&p, "piece %d of %d is done; merge it with the others", hooks->piece + 1, hooks->pieces);
        rc = OK;
    }
    if (!rc && result) *result = *p.r;
    worker_close(p.memo.worker);
    pipeline_close(&p);
    mem_free(mem);
    return rc;
}
