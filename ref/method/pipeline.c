/* pipeline.c - the whole method, in the order of the paper's Algorithm 1 (method.md 1.2). See pipeline.h. */
#include "method/pipeline.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "io/hf.h"
#include "method/budget.h"
#include "method/memory.h"
#include "method/pretrain.h"
#include "method/report.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Everything that a run has open. */
typedef struct {
    const PipelineOptions *o;
    const PipelineHooks *h;
    const char *dir;
    Backend *be;
    Tokenizer *tokenizer;
    Dataset data;
    TextStream text;
    Model teacher, start; /* start: the stage-1 student, frozen */
    Heldout heldout;
    Recall recall;      /* n_n == 0: no probe */
    TextStream scoring; /* what layers are scored on: text, or with score_mix recall sequences among it */
    Heldout judge;      /* batches of it; without a mixture heldout is used */
    LayerScore *score;  /* (L) GA-S2's rows, NULL until scored */
    LayerScore *rows;   /* (L) of the selector at work */
    struct {
        char name[32];
        int *order;
    } ranking[PIPELINE_STUDENTS]; /* of all selectors that scored layers */
    int rankings;
    uint64_t inputs, base; /* hash of the files; of what all stages depend on */
    PipelineResult *r;
} Pipeline;

static void note(const Pipeline *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(const Pipeline *p, const char *fmt, ...) {
    char line[512];
    va_list ap;
    if (!p->h->note) return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    p->h->note(p->h->ctx, line);
}

/* dir/a or dir/a/b */
static int path_join(const Pipeline *p, char *dst, size_t cap, const char *a, const char *b, Err *e) {
    char name[256];
    snprintf(name, sizeof name, "%s%s%s", a, b ? "/" : "", b ? b : "");
    return file_join(dst, cap, p->dir, name, e);
}

static int stopped(const Pipeline *p, Err *e) {
    if (!p->h->stop || !*p->h->stop) return OK;
    return err_set(e, 128 + *p->h->stop, "stopped between two stages; the same command goes on from here");
}

static TrainOptions train_options(const Pipeline *p, const StageOptions *stage, const char *dir,
                                  const char *log, uint64_t fingerprint) {
    const PipelineOptions *o = p->o;
    return (TrainOptions){.stage = *stage,
                          .log_every = o->log_every,
                          .log_path = log,
                          .dir = dir,
                          .save_every = o->save_every,
                          .keep_last = o->keep_last,
                          .nan = o->nan_skip ? NAN_SKIP : NAN_STOP,
                          .max_skips = o->max_skips,
                          .fingerprint = fingerprint,
                          .progress = p->h->progress,
                          .stop = p->h->stop,
                          .warn = p->h->note,
                          .warn_ctx = p->h->ctx};
}

/* ---------------------------------------------------------------- what goes in */

static int data_shard(Pipeline *p, char *path, size_t cap, Err *e) {
    const PipelineOptions *o = p->o;
    const size_t n = strlen(o->text);
    if (n > 4 && !strcmp(o->text + n - 4, ".tok")) {
        snprintf(path, cap, "%s", o->text);
        return OK;
    }
    TRY(path_join(p, path, cap, "data", NULL, e));
    TRY(file_mkdirs(path, e));
    TRY(path_join(p, path, cap, "data", "text.tok", e));
    if (file_exists(path)) return OK; // written atomically: there means complete
    note(p, "tokenizing %s", o->text);
    const int eos = o->add_eos && p->teacher.c.n_eos > 0 ? p->teacher.c.eos[0] : -1;
    const ShardOptions shard = {.add_eos = eos,
                                .split = o->document_separator[0] ? o->document_separator : NULL,
                                .max_tokens = (size_t)o->max_tokens};
    return shard_write(path, o->text, p->tokenizer, &shard, NULL, e);
}

static int data_open(Pipeline *p, Err *e) {
    char path[1200];
    TRY(tokenizer_open(&p->tokenizer, p->o->teacher, e));
    TRY(data_shard(p, path, sizeof path, e));
    const char *paths[1] = {path};
    TRY(dataset_open(&p->data, paths, 1, e));
    if (p->data.shard[0].tok_hash != tokenizer_hash(p->tokenizer))
        return err_set(e, ERR_INPUT, "%s: was made with another tokenizer than the teacher's", path);
    if (p->data.shard[0].vocab > p->teacher.c.VOC)
        return err_set(e, ERR_INPUT, "%s: ids up to %d, the teacher has %d", path, p->data.shard[0].vocab - 1,
                       p->teacher.c.VOC);
    p->text = (TextStream){
        .d = &p->data, .seed = p->o->seed, .heldout = p->o->heldout, .boundaries = p->o->document_boundaries};
    return OK;
}

/* The probes by which every student is judged. */
static int probes_open(Pipeline *p, Err *e) {
    const PipelineOptions *o = p->o;
    const int B = o->eval_batch_size ? o->eval_batch_size : o->stage2.micro_batch_size;
    const int T = o->eval_seq_len ? o->eval_seq_len : o->stage2.train_seq_len;
    TRY(heldout_open(&p->heldout, &p->teacher, &p->text, B, T, o->eval_batches, (size_t)o->cache_mb << 19,
                     e));
    p->scoring = p->text;
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
    p->scoring.recall = &p->recall;
    return heldout_open(&p->judge, &p->teacher, &p->scoring, p->heldout.B, T, p->heldout.batches,
                        (size_t)o->cache_mb << 19, e);
}

static Heldout *judge(Pipeline *p) { return p->judge.B ? &p->judge : &p->heldout; }

/* What every stage depends on besides its own options: a change of anything else leaves finished stages valid. */
static uint64_t base_fingerprint(const Pipeline *p) {
    static const char *const keys[] = {
        "document_separator", "student", "kv_repeat",  "stage1_loss", "document_boundaries", "add_eos",
        "keep_biases",        "heldout", "max_tokens", "seed",        "log_every",           "nan_skip",
        "max_skips"};
    char text[1024];
    uint64_t h = fingerprint_bytes(0, &p->inputs, sizeof p->inputs);
    const OptionTable *t = pipeline_table();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        options_get(options_find(t, keys[i]), p->o, text, sizeof text);
        h = fingerprint_text(h, text);
    }
    for (int i = 0; i < t->n; i++) { // stage 1 is what all later stages start from
        if (strncmp(t->row[i].key, "stage1.", 7)) continue;
        options_get(&t->row[i], p->o, text, sizeof text);
        h = fingerprint_text(h, text);
    }
    return h;
}

/* K from memory_budget_mb, if it is given. */
static int budget_k(Pipeline *p, Err *e) {
    const PipelineOptions *o = p->o;
    if (o->memory_budget_mb <= 0) return OK;
    const double soft = (double)budget_softmax_bytes(&p->teacher.c, p->be, (long)o->memory_context);
    const double lin = (double)budget_linear_bytes(&p->teacher.c, p->be);
    p->r->K = budget_count(soft, lin, p->r->L, o->memory_budget_mb * 1048576);
    if (p->r->K < 0)
        return err_set(e, ERR_USAGE, "memory_budget_mb: got %g, %d layers need at least %g at %lld tokens",
                       o->memory_budget_mb, p->r->L, p->r->L * fmin(soft, lin) / 1048576,
                       (long long)o->memory_context);
    note(p, "memory: %d softmax layers fit %g MiB at %lld tokens", p->r->K, o->memory_budget_mb,
         (long long)o->memory_context);
    return OK;
}

/* layer_costs as numbers: soft, lin (L). */
static int costs_parse(const Pipeline *p, double *soft, double *lin, Err *e) {
    const char *s = p->o->layer_costs;
    int n = 0, used;
    for (; *s && n < p->r->L; n++, s += used + (s[used] == ','))
        if (sscanf(s, "%lf:%lf%n", &soft[n], &lin[n], &used) != 2 || (s[used] && s[used] != ',') ||
            !(soft[n] >= 0 && lin[n] >= 0))
            return err_set(e, ERR_USAGE,
                           "layer_costs: got '%.40s', expected two numbers >= 0 with a colon between them",
                           s);
    if (*s || (n != 1 && n != p->r->L))
        return err_set(e, ERR_USAGE, "layer_costs: expected 1 or %d pairs", p->r->L);
    for (; n < p->r->L; n++) soft[n] = soft[0], lin[n] = lin[0];
    return OK;
}

/* Refuses a run that cannot fit, before anything is read: stage 1, and stage 2 of the student with every layer linear. */
static int pipeline_fits(Pipeline *p, Err *e) {
    const PipelineOptions *o = p->o;
    const GradKind kind = o->teacher_bf16 ? GRAD_HALF : GRAD_NONE;
    Config teacher, student;
    int mixer[MAX_LAYERS];
    if (!p->be->room) return OK;
    TRY(hf_config(&teacher, o->teacher, e));
    for (int l = 0; l < teacher.L; l++) mixer[l] = mixer_find(o->student);
    TRY(transfer_config(&student, &teacher, mixer, e));
    for (int stage = o->student_init_ckpt[0] ? 2 : 1; stage <= 2; stage++) {
        MemoryPlan plan = {0};
        const StageOptions *s = stage == 1 ? &o->stage1 : &o->stage2;
        TRY(memory_frozen(&plan, p->be, &teacher, kind, "teacher's weights", "teacher's activations", s->micro_batch_size, s->train_seq_len, e));
        if (stage == 2) TRY(memory_frozen(&plan, p->be, &student, GRAD_NONE, "stage-1 student", NULL, 0, 0, e));
        TRY(memory_trained(&plan, p->be, &student, stage == 1 ? GRAD_MIXERS : GRAD_ALL, s, stage == 1 || o->checkpointing,
                           stage == 1 ? -1 : teacher.C, e));
        TRY(memory_check(&plan, p->be, stage == 1 ? "stage 1" : "stage 2", e));
        char table[512];
        memory_text(&plan, table, sizeof table);
        note(p, "memory for stage %d: %s", stage, table);
    }
    return OK;
}

static int inputs_open(Pipeline *p, Err *e) {
    TRY(file_mkdirs(p->dir, e));
    TRY(file_remove_temps(p->dir, e));
    TRY(run_file(p->o, p->dir, p->be->name, p->h, &p->inputs, e));
    p->base = base_fingerprint(p);
    TRY(pipeline_fits(p, e));
    TRY(hf_load_model(&p->teacher, p->o->teacher, p->be, p->o->teacher_bf16 ? GRAD_HALF : GRAD_NONE, e));
    for (int l = 0; l < p->teacher.c.L; l++)
        if (p->teacher.c.mixer[l])
            return err_set(e, ERR_INPUT, "%s: layer %d is linear; a teacher has softmax attention everywhere",
                           p->o->teacher, l);
    p->r->L = p->teacher.c.L;
    p->r->K = p->o->k >= 0 ? p->o->k : select_count(p->r->L, p->o->softmax_ratio);
    TRY(budget_k(p, e));
    if (p->r->K > p->r->L)
        return err_set(e, ERR_USAGE, "k: got %d, the teacher has %d layers", p->r->K, p->r->L);
    TRY(data_open(p, e));
    TRY(probes_open(p, e));
    p->r->n_n = p->recall.n_n;
    memcpy(p->r->recall_n, p->recall.n, sizeof p->r->recall_n);
    return OK;
}

static void pipeline_close(Pipeline *p) {
    recall_close(&p->recall);
    heldout_close(&p->judge);
    heldout_close(&p->heldout);
    model_close(&p->start);
    model_close(&p->teacher);
    dataset_close(&p->data);
    tokenizer_close(p->tokenizer);
    mem_free(p->score);
    mem_free(p->rows);
    for (int i = 0; i < p->rankings; i++) mem_free(p->ranking[i].order);
}

/* ---------------------------------------------------------------- stage 1 */

static const char *start_mixer(const PipelineOptions *o) { return o->force_window_on_all_layers ? "swa_v1" : o->student; }

static int start_config(Pipeline *p, Config *c, Err *e) {
    const PipelineOptions *o = p->o;
    const int swa = !strcmp(start_mixer(o), "swa_v1"), window = o->window_size ? o->window_size : SWA_WINDOW;
    int mixer[MAX_LAYERS];
    for (int l = 0; l < p->teacher.c.L; l++) mixer[l] = mixer_find(start_mixer(o));
    TRY(transfer_config(c, &p->teacher.c, mixer, e));
    if (swa) c->swa_window = window;
    if (o->force_window_on_all_layers || (o->window_on_kept_layers && (o->window_size || swa))) c->window = window;
    c->linear_bias = p->o->keep_biases && c->qkv_bias;
    return OK;
}

static int start_given(Pipeline *p, Err *e) {
    const Config *t = &p->teacher.c, *c = &p->start.c;
    TRY(hf_load_model(&p->start, p->o->student_init_ckpt, p->be, GRAD_NONE, e));
    for (int l = 0; l < c->L; l++)
        if (c->mixer[l] != mixer_find(start_mixer(p->o)))
            return err_set(e, ERR_INPUT, "%s: layer %d is %s, expected %s", p->o->student_init_ckpt, l,
                           mixer_at(c->mixer[l])->name, start_mixer(p->o));
    if (c->L != t->L || c->C != t->C || c->VOC != t->VOC || c->H != t->H || c->Hk != t->Hk || c->D != t->D ||
        c->F != t->F)
        return err_set(e, ERR_INPUT, "%s: has another shape than the teacher", p->o->student_init_ckpt);
    return OK;
}

static int align_run(Pipeline *p, const Config *c, const char *dir, const char *log, TrainResult *t, Err *e) {
    Model student;
    Align a;
    TRY(model_open(&student, c, p->be, GRAD_MIXERS, e));
    int rc = transfer_weights(&student, &p->teacher, p->o->kv_repeat, p->o->seed, e);
    if (!rc && !(rc = align_open(&a, &p->teacher, &student, &p->text, &p->o->stage1, p->o->stage1_loss, e))) {
        const Task task = align_task(&a);
        const TrainOptions train = train_options(p, &p->o->stage1, dir, log, p->base);
        rc = train_run(&task, &train, t, e);
        align_close(&a);
    }
    model_close(&student);
    return rc;
}

/* Stage 1: all mixers linear, each aligned with the attention it replaces. Leaves the frozen stage-1 student in p->start. */
static int stage1(Pipeline *p, Err *e) {
    char dir[1200], log[1200];
    Config c;
    TrainResult t;
    int found;
    if (p->o->student_init_ckpt[0]) return start_given(p, e);
    TRY(path_join(p, dir, sizeof dir, "checkpoints", "stage1", e));
    TRY(path_join(p, log, sizeof log, "log.jsonl", NULL, e));
    TRY(start_config(p, &c, e));
    note(p, "stage 1: aligning %d %s layers with their attention, %lld steps", c.L, p->o->student,
         (long long)stage_steps(&p->o->stage1));
    TRY(align_run(p, &c, dir, log, &t, e));
    p->r->seconds += t.seconds;
    TRY(model_open(&p->start, &c, p->be, GRAD_NONE, e));
    TRY(checkpoint_weights(dir, &p->start, &found, p->h->note, p->h->ctx, e));
    return found ? OK : err_set(e, ERR_IO, "%s: no checkpoint of the finished stage 1", dir);
}

/* ---------------------------------------------------------------- scores */

static int names_ask(const char *list, const char *name) {
    const size_t n = strlen(name);
    for (const char *s = list; *s;) {
        const size_t len = strcspn(s, ",");
        if (len == n && !memcmp(s, name, n)) return 1;
        s += len + (s[len] == ',');
    }
    return 0;
}

/* Of all scoring runs; dir and log must stay. */
static ScoreOptions score_options(const Pipeline *p, const char *dir, const char *log) {
    const PipelineOptions *o = p->o;
    uint64_t base = p->base;
    if (p->judge.B) base = fingerprint_real(fingerprint_text(base, o->recall_keys), o->score_mix);
    ScoreOptions s = {.train = train_options(p, &o->score, dir, log, base),
                      .tau = o->temperature,
                      .checkpointing = o->checkpointing,
                      .official = o->official_score,
                      .eval_every = o->eval_every,
                      .cache = (size_t)o->cache_mb << 19,
                      .K = p->r->K,
                      .recall = p->recall.n_n ? &p->recall : NULL};
    s.stop = (EarlyStop){o->early_stop_r, o->early_stop_threshold, o->early_stop_all_pairs};
    s.halving_z = o->halving_z;
    return s;
}

static int rows_alloc(Pipeline *p, LayerScore **rows, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, (size_t)p->r->L * sizeof(LayerScore), "layer scores", e));
    *rows = mem;
    return OK;
}

/* The order of a ranking, for agreement.csv. */
static int ranking_note(Pipeline *p, const char *name, const LayerScore *s, Err *e) {
    void *mem;
    if (p->rankings == PIPELINE_STUDENTS) return OK;
    for (int i = 0; i < p->rankings; i++)
        if (!strcmp(p->ranking[i].name, name)) return OK;
    TRY(mem_alloc(&mem, (size_t)p->r->L * sizeof(int), "order of layers", e));
    int *order = mem;
    for (int l = 0; l < p->r->L; l++) order[s[l].rank - 1] = l;
    snprintf(p->ranking[p->rankings].name, sizeof p->ranking[0].name, "%s", name);
    p->ranking[p->rankings++].order = order;
    return OK;
}

/* GA-S2 scores of all layers, if any selector wants them, or `want` says so. */
static int scores(Pipeline *p, int want, Err *e) {
    const PipelineOptions *o = p->o;
    char dir[1200], log[1200];
    for (int i = 0; i < selector_count(); i++) {
        const Selector *s = selector_at(i);
        want |= s->needs & NEEDS_SCORES && (!strcmp(s->name, o->selector) || names_ask(o->students, s->name));
    }
    if (!want) return OK;
    TRY(path_join(p, dir, sizeof dir, "checkpoints", "scores", e));
    TRY(path_join(p, log, sizeof log, "log.jsonl", NULL, e));
    TRY(rows_alloc(p, &p->score, e));
    const ScoreOptions s = score_options(p, dir, log);
    note(p, "scoring: each of %d layers back to softmax, %lld steps", p->r->L,
         (long long)stage_steps(&o->score));
    TRY(score_layers(p->score, &p->teacher, &p->start, &p->scoring, judge(p), &s, e));
    for (int l = 0; l < p->r->L; l++) p->r->seconds += p->score[l].seconds;
    return ranking_note(p, "ga_s2", p->score, e);
}

/* ---------------------------------------------------------------- selection */

/* Of everything a selector's rows depend on: all options but those of stages 2 and 3, of which selectors there are, and of layouts. */
static uint64_t rows_fingerprint(const Pipeline *p, const char *name) {
    static const char *const not [] = {"stage2.", "stage3.",       "selector",   "keep_full",
                                       "k",       "softmax_ratio", "uniform_",   "students",
                                       "memory_", "cost_budget",   "layer_costs",  "random_draws",
                                       "curve_"};
    const OptionTable *t = pipeline_table();
    const int64_t n[] = {p->r->K, p->heldout.B, p->heldout.T, p->heldout.batches};
    uint64_t h = fingerprint_bytes(fingerprint_text(p->base, name), n, sizeof n);
    char text[1024];
    for (int i = 0; i < t->n; i++) {
        int skip = t->row[i].cosmetic;
        for (size_t k = 0; k < sizeof not / sizeof *not ; k++) {
            const size_t len = strlen(not [k]);
            skip |= len == 1 ? !strcmp(t->row[i].key, not [k]) : !strncmp(t->row[i].key, not [k], len);
        }
        if (skip) continue;
        options_get(&t->row[i], p->o, text, sizeof text);
        h = fingerprint_text(h, text);
    }
    return h;
}

/* p->rows of a selector that scores layers: read if they are there, else made and written. */
static int own_rows(Pipeline *p, const Selector *s, const SelectInput *in, Err *e) {
    char name[64], dir[1200];
    const uint64_t want = rows_fingerprint(p, s->name);
    int found;
    if (!p->rows) TRY(rows_alloc(p, &p->rows, e));
    snprintf(name, sizeof name, "rows/%s", s->name);
    TRY(path_join(p, dir, sizeof dir, "checkpoints", name, e));
    TRY(score_rows_load(p->rows, p->r->L, dir, want, &found, e));
    if (!found) {
        char partial[1200];
        SelectInput now = *in;
        snprintf(name, sizeof name, "partial/%s", s->name);
        TRY(path_join(p, partial, sizeof partial, "checkpoints", name, e));
        now.keep_dir = partial;
        now.keep_fingerprint = want;
        now.stop = p->h->stop;
        note(p, "scoring by %s: %s", s->name, s->label);
        TRY(selector_score(s, &now, p->rows, e));
        TRY(score_rows_save(p->rows, p->r->L, dir, want, e));
        TRY(file_remove_tree(partial, e));
    }
    return ranking_note(p, s->name, p->rows, e);
}

/* A selector at work: which one, how many layers, which draw. */
typedef struct {
    const char *name;
    int K, draw;
    double seconds; /* what choosing cost */
} Choice;

static SelectInput select_input(Pipeline *p, const Choice *c, const ScoreOptions *scoring) {
    const PipelineOptions *o = p->o;
    return (SelectInput){.L = p->r->L,
                         .K = c->K,
                         .score = p->score,
                         .stride = o->uniform_stride,
                         .first = o->uniform_first,
                         .seed = o->seed,
                         .draw = c->draw,
                         .teacher = &p->teacher,
                         .recall = p->recall.n_n ? &p->recall : NULL,
                         .start = &p->start,
                         .heldout = judge(p),
                         .data = &p->scoring,
                         .scoring = scoring,
                         .align_form = o->stage1_loss,
                         .tokenizer = p->tokenizer,
                         .tasks = {o->task_samples, o->task_pairs, o->task_new_tokens, o->seed},
                         .branch_steps = o->branch_steps,
                         .distance_strength = o->distance_strength,
                         .distance_width = o->distance_width};
}

/* Layers by a list or by costs, where the options say so. list, soft, lin (MAX_LAYERS) must stay. */
static int select_limits(const Pipeline *p, SelectInput *in, const char *name, int *list, double *soft,
                         double *lin, Err *e) {
    const PipelineOptions *o = p->o;
    if (!strcmp(name, "explicit")) {
        TRY(list_parse(o->keep_full_attention_layers, list, MAX_LAYERS, &in->n_list, 0, p->r->L - 1,
                       "keep_full_attention_layers", e));
        in->list = list;
        in->K = in->n_list;
    }
    if (o->cost_budget <= 0) return OK;
    TRY(costs_parse(p, soft, lin, e));
    in->soft = soft;
    in->lin = lin;
    in->budget = o->cost_budget;
    return OK;
}

static int scores_equal(const LayerScore *s, int L) {
    for (int l = 1; l < L; l++)
        if (!(s[l].score == s[0].score)) return 0;
    return L > 1;
}

/* keep (L) of one selector. Rows are made for the run's own K, whatever c->K. */
static int choose(Pipeline *p, Choice *c, int *keep, Err *e) {
    const Selector *s = selector_find(c->name);
    char dir[1200], log[1200];
    int list[MAX_LAYERS];
    double soft[MAX_LAYERS], lin[MAX_LAYERS];
    TRY(path_join(p, dir, sizeof dir, "checkpoints", "scores", e));
    TRY(path_join(p, log, sizeof log, "log.jsonl", NULL, e));
    const ScoreOptions scoring = score_options(p, dir, log);
    SelectInput in = select_input(p, c, &scoring);
    TRY(select_limits(p, &in, c->name, list, soft, lin, e));
    if (s->score) {
        SelectInput all = in;
        all.K = p->r->K;
        TRY(own_rows(p, s, &all, e));
        in.rows = p->rows;
    }
    TRY(select_layers(s, &in, keep, e));
    c->seconds = 0;
    if (s->score && scores_equal(p->rows, p->r->L))
        note(p, "%s: all layers score the same, so it says nothing; the lowest layers are taken", c->name);
    const LayerScore *cost = s->score ? p->rows : s->needs & NEEDS_SCORES ? p->score : NULL;
    for (int l = 0; cost && l < p->r->L; l++) c->seconds += cost[l].seconds;
    if (!cost || c->K != p->r->K) return OK;
    TRY(path_join(p, dir, sizeof dir, "rankings", c->name, e));
    TRY(file_mkdirs(dir, e));
    return ranking_write(cost, p->r->L, c->name, keep, dir, e);
}

/* One line of budget.csv: a set of layers, its cost, the sum of its scores above the lowest one, and whether it is the run's. */
static void budget_line(TextBuf *b, const int *set, const int *keep, const double *value, double cost, int L) {
    char text[256];
    double sum = 0;
    int K = 0;
    for (int l = 0; l < L; l++) K += set[l], sum += set[l] ? value[l] : 0;
    select_text(text, sizeof text, set, L);
    textbuf_printf(b, "%d,%.9g,%.9g,%d,\"%s\"\n", K, cost, sum, !memcmp(set, keep, (size_t)L * sizeof *set), text);
}

/* The best set within each of 2L+1 budgets from the cheapest choice to the dearest. */
static int budget_costs(const Pipeline *p, TextBuf *b, const int *keep, const double *value, Err *e) {
    double soft[MAX_LAYERS], lin[MAX_LAYERS], least = 0, most = 0;
    const int L = p->r->L;
    TRY(costs_parse(p, soft, lin, e));
    for (int l = 0; l < L; l++) least += fmin(soft[l], lin[l]), most += fmax(soft[l], lin[l]);
    for (int i = 0; i <= 2 * L; i++) {
        int set[MAX_LAYERS];
        double cost = 0;
        TRY(budget_knapsack(value, soft, lin, L, least + (most - least) * i / (2 * L), set, e));
        for (int l = 0; l < L; l++) cost += set[l] ? soft[l] : lin[l];
        budget_line(b, set, keep, value, cost, L);
    }
    return OK;
}

/* The first K ranks for every K; cost: memory in MiB at memory_context. */
static void budget_memory(const Pipeline *p, TextBuf *b, const int *keep, const LayerScore *s, const double *value) {
    const double soft = (double)budget_softmax_bytes(&p->teacher.c, p->be, (long)p->o->memory_context) / 1048576;
    const double lin = (double)budget_linear_bytes(&p->teacher.c, p->be) / 1048576;
    const int L = p->r->L;
    int set[MAX_LAYERS] = {0};
    for (int K = 0; K <= L; K++) {
        for (int l = 0; l < L; l++) set[l] |= s[l].rank == K && K;
        budget_line(b, set, keep, value, K * soft + (L - K) * lin, L);
    }
}

/* budget.csv: the quality-cost curve, by what the scores promise. */
static int budget_write(const Pipeline *p, const LayerScore *s, const int *keep, Err *e) {
    char path[1200];
    TextBuf b = {0};
    const int L = p->r->L;
    double value[MAX_LAYERS], low = INFINITY;
    int rc = OK;
    for (int l = 0; l < L; l++) low = s[l].score < low ? s[l].score : low;
    for (int l = 0; l < L; l++) value[l] = isnan(s[l].score) ? 0 : s[l].score - low;
    textbuf_puts(&b, "k,cost,value,chosen,layers\n");
    if (p->o->cost_budget > 0) rc = budget_costs(p, &b, keep, value, e);
    else budget_memory(p, &b, keep, s, value);
    if (!rc) rc = textbuf_end(&b, e);
    if (!rc) rc = path_join(p, path, sizeof path, "budget.csv", NULL, e);
    if (!rc) rc = file_write_all(path, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}

/* Rows of a selector that scores nothing: no scores, the chosen layers first. */
static int layout_rows(Pipeline *p, const int *keep, Err *e) {
    int rank = 0;
    if (!p->rows) TRY(rows_alloc(p, &p->rows, e));
    memset(p->rows, 0, (size_t)p->r->L * sizeof *p->rows);
    for (int pass = 0; pass < 2; pass++)
        for (int l = 0; l < p->r->L; l++) {
            if (keep[l] == pass) continue;
            score_finish(&p->rows[l], l, 0);
            p->rows[l].rank = ++rank;
        }
    return OK;
}

static int selection(Pipeline *p, int *keep, double *seconds, Err *e) {
    char text[256];
    const Selector *s = selector_find(p->o->selector);
    Choice c = {.name = p->o->selector, .K = p->r->K};
    TRY(choose(p, &c, keep, e));
    *seconds = c.seconds;
    select_text(text, sizeof text, keep, p->r->L);
    note(p, "selected by %s: layers %s", p->o->selector, text[0] ? text : "none");
    if (!s->score && !p->score) {
        TRY(layout_rows(p, keep, e));
        return ranking_write(p->rows, p->r->L, p->o->selector, keep, p->dir, e);
    }
    const LayerScore *shown = s->score ? p->rows : p->score;
    TRY(ranking_write(shown, p->r->L, p->o->selector, keep, p->dir, e));
    TRY(budget_write(p, shown, keep, e));
    return p->score ? trajectory_write(p->score, p->r->L, p->o->official_score, p->dir, e) : OK;
}

/* agreement.csv: every pair of rankings of this run. */
static int agreement_write(const Pipeline *p, Err *e) {
    char path[1200];
    TextBuf b = {0};
    const int L = p->r->L;
    if (p->rankings < 2) return OK;
    textbuf_puts(&b, "a,b,kendall,spearman,jaccard\n");
    for (int i = 0; i < p->rankings; i++)
        for (int k = 0; k < p->rankings; k++) {
            const int *x = p->ranking[i].order, *y = p->ranking[k].order;
            textbuf_printf(&b, "%s,%s,%.6g,%.6g,%.6g\n", p->ranking[i].name, p->ranking[k].name,
                           select_kendall(x, y, L), select_spearman(x, y, L),
                           select_jaccard(x, y, L, p->r->K));
        }
    int rc = textbuf_end(&b, e);
    if (!rc) rc = path_join(p, path, sizeof path, "agreement.csv", NULL, e);
    if (!rc) rc = file_write_all(path, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}

/* ---------------------------------------------------------------- students */

/* KL, text loss, recall, sizes of a model. */
static int evaluate(Pipeline *p, Model *m, StudentRow *row, Err *e) {
    const Config *c = &m->c;
    TRY(heldout_run(&p->heldout, m, &row->held, e));
    row->recall_mean = NAN;
    if (p->recall.n_n) TRY(recall_run(&p->recall, m, NULL, NULL, row->recall, &row->recall_mean, e));
    row->L = c->L;
    row->parameters = params_count(c);
    for (int l = 0; l < c->L; l++) {
        row->keep[l] = !c->mixer[l];
        row->K += !c->mixer[l];
        if (c->mixer[l]) row->state_bytes += budget_mixer_bytes(c, mixer_at(c->mixer[l]), p->be);
        else row->cache_bytes_per_token += 2 * (size_t)c->Hk * c->D * p->be->real_size;
    }
    return OK;
}

/* One of stages 2 and 3 on an open student. */
static int distill_stage(Pipeline *p, Model *m, const StageOptions *stage, int with_teacher, const char *name,
                         const char *dir, uint64_t fingerprint, StudentRow *row, Err *e) {
    char log[1200];
    Teacher teacher = {0};
    Distill d;
    TrainResult t = {0};
    TRY(path_join(p, log, sizeof log, "log.jsonl", NULL, e));
    if (with_teacher)
        TRY(teacher_open(&teacher, &p->teacher, stage->micro_batch_size, stage->train_seq_len, 0, 0, e));
    int rc = distill_open(&d, m, with_teacher ? &teacher : NULL, &p->text, stage, p->o->temperature,
                          p->o->checkpointing, e);
    if (!rc) {
        const Task task = distill_task(&d, name);
        const TrainOptions train = train_options(p, stage, dir, log, fingerprint);
        const size_t bytes = m->weight_bytes + m->grad_bytes + optim_bytes(m) + d.pass.bytes + d.loss.bytes +
                             teacher_bytes(&teacher) + p->teacher.weight_bytes + p->start.weight_bytes +
                             teacher_bytes(&p->heldout.teacher);
        if (bytes > row->counted_bytes) row->counted_bytes = bytes;
        rc = train_run(&task, &train, &t, e);
        distill_close(&d);
    }
    if (with_teacher) teacher_close(&teacher);
    row->seconds += t.seconds;
    row->tokens += t.tokens;
    return rc;
}

static int model_save(Pipeline *p, const Model *m, Err *e) {
    static const DType types[] = {DT_F32, DT_F32, DT_BF16, DT_F16};
    char dir[1200], notes[1024] = "";
    HfSaveOptions save = {.dtype = p->o->save_dtype ? types[p->o->save_dtype] : p->teacher.c.dtype,
                          .tokenizer_from = p->o->teacher};
    TRY(path_join(p, dir, sizeof dir, "model", NULL, e));
    TRY(hf_save(m, dir, &save, notes, sizeof notes, e));
    if (notes[0]) note(p, "model/: %s", notes);
    return OK;
}

static void peak_take(Pipeline *p) {
    if (mem_peak() > p->r->peak_bytes) p->r->peak_bytes = mem_peak();
}

/* Stage 2 (and 3) of the stage-1 student with the layers of keep back to softmax, its evaluation, and model/ for the main one. */
static int student_train(Pipeline *p, const char *name, const int *keep, int is_main, uint64_t fingerprint,
                         const char *dir, StudentRow *row, Err *e) {
    const PipelineOptions *o = p->o;
    char stage_dir[1300];
    Model m;
    peak_take(p);
    mem_peak_reset();
    TRY(hybrid_open(&m, &p->teacher, &p->start, keep, GRAD_ALL, e));
    snprintf(stage_dir, sizeof stage_dir, "%s/stage2", dir);
    int rc = distill_stage(p, &m, &o->stage2, 1, name, stage_dir, fingerprint, row, e);
    if (!rc && (o->stage3.steps || o->stage3.target_tokens)) {
        snprintf(stage_dir, sizeof stage_dir, "%s/stage3", dir);
        rc = distill_stage(p, &m, &o->stage3, 0, name, stage_dir, fingerprint, row, e);
    }
    row->peak_bytes = mem_peak();
    peak_take(p);
    if (!rc) rc = evaluate(p, &m, row, e);
    if (!rc && is_main) rc = model_save(p, &m, e);
    model_close(&m);
    return rc;
}

/* Of the options that decide a student's numbers and are not part of p->base. */
static uint64_t student_fingerprint(const Pipeline *p, const char *name, const int *keep) {
    static const char *const keys[] = {"temperature", "eval_batches",  "eval_batch_size", "eval_seq_len",
                                       "recall_keys", "recall_values", "recall_n",        "recall_rows"};
    char text[1024];
    uint64_t h = fingerprint_text(p->base, name);
    const OptionTable *t = pipeline_table();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        options_get(options_find(t, keys[i]), p->o, text, sizeof text);
        h = fingerprint_text(h, text);
    }
    for (int i = 0; i < t->n; i++) {
        if (strncmp(t->row[i].key, "stage2.", 7) && strncmp(t->row[i].key, "stage3.", 7)) continue;
        options_get(&t->row[i], p->o, text, sizeof text);
        h = fingerprint_text(h, text);
    }
    return keep ? fingerprint_bytes(h, keep, (size_t)p->r->L * sizeof *keep) : h;
}

/* An earlier row with the same layers: the same start, data and steps give the same student, bit for bit. */
static const StudentRow *row_same(const Pipeline *p, const int *keep) {
    for (int i = 2; i < p->r->rows; i++)
        if (!memcmp(p->r->row[i].keep, keep, (size_t)p->r->L * sizeof *keep)) return &p->r->row[i];
    return NULL;
}

/* Adds one row: read if it is finished, else made and written. keep NULL: no training, `m` is measured as it is. */
static int student(Pipeline *p, const char *name, Model *m, const int *keep, double select_seconds, Err *e) {
    char file[1200], dir[1200], json[80];
    StudentRow *row = &p->r->row[p->r->rows];
    const uint64_t want = student_fingerprint(p, name, keep);
    uint64_t got = want;
    const StudentRow *same = keep ? row_same(p, keep) : NULL;
    memset(row, 0, sizeof *row);
    snprintf(json, sizeof json, "students/%s.json", name);
    TRY(stopped(p, e));
    TRY(path_join(p, dir, sizeof dir, "checkpoints", "students", e));
    TRY(file_mkdirs(dir, e));
    TRY(path_join(p, file, sizeof file, "checkpoints", json, e));
    snprintf(json, sizeof json, "students/%s", name);
    TRY(path_join(p, dir, sizeof dir, "checkpoints", json, e));
    if (file_exists(file)) {
        TRY(row_read(row, &got, p->r->n_n, file, e));
        if (got != want)
            return err_set(e, ERR_USAGE, "%s: was made with other options, data or teacher", file);
    } else {
        if (same) *row = *same;
        else if (!keep) TRY(evaluate(p, m, row, e));
        else {
            char text[256];
            select_text(text, sizeof text, keep, p->r->L);
            note(p, "stage 2: %s, softmax layers %s", name, text[0] ? text : "none");
            TRY(student_train(p, name, keep, p->r->rows == 2, want, dir, row, e));
        }
        snprintf(row->name, sizeof row->name, "%s", name);
        row->select_seconds = select_seconds;
        TRY(row_write(row, p->r->recall_n, p->r->n_n, want, file, e));
    }
    if (!p->o->keep_checkpoints) TRY(file_remove_tree(dir, e));
    if (keep && !same) p->r->seconds += row->seconds;
    p->r->rows++;
    return OK;
}

/* The student of one selector: its layers chosen and distilled. */
static int chosen(Pipeline *p, const char *name, int K, int draw, Err *e) {
    int keep[MAX_LAYERS] = {0};
    char row[64];
    Choice c = {.name = name, .K = K, .draw = draw};
    int n = snprintf(row, sizeof row, "%.31s", name);
    if (draw) n += snprintf(row + n, sizeof row - (size_t)n, "-%d", draw + 1);
    if (K != p->r->K) snprintf(row + n, sizeof row - (size_t)n, "@%d", K);
    TRY(choose(p, &c, keep, e));
    return student(p, row, NULL, keep, c.seconds, e);
}

static int chosen_draws(Pipeline *p, const char *name, int K, Err *e) {
    const int draws = strcmp(name, "random") ? 1 : p->o->random_draws;
    for (int d = 0; d < draws; d++)
        if (d || K != p->r->K || strcmp(name, p->o->selector)) TRY(chosen(p, name, K, d, e)); // the main student is there already
    return OK;
}

/* Every selector of the run at its K, those of the curve at another one. */
static int selectors(Pipeline *p, int K, Err *e) {
    const char *curve = p->o->curve_students;
    const int all = K == p->r->K || !curve[0];
    if (all || names_ask(curve, p->o->selector)) TRY(chosen_draws(p, p->o->selector, K, e));
    for (const char *s = p->o->students; *s;) {
        char name[32];
        const size_t len = strcspn(s, ",");
        snprintf(name, sizeof name, "%.*s", (int)len, s);
        s += len + (s[len] == ',');
        if ((K != p->r->K && !selector_scales(name)) || (!all && !names_ask(curve, name))) continue;
        if (strcmp(name, p->o->selector)) TRY(chosen_draws(p, name, K, e));
    }
    return OK;
}

/* The teacher and the stage-1 student as they are, the main student, those to compare it with, and all of them at other K. */
static int students(Pipeline *p, const int *keep, double select_seconds, Err *e) {
    int k[MAX_LAYERS], n = 0;
    TRY(list_parse(p->o->curve_k, k, MAX_LAYERS, &n, 0, p->r->L, "curve_k", e));
    TRY(student(p, "teacher", &p->teacher, NULL, 0, e));
    TRY(student(p, "stage1", &p->start, NULL, 0, e));
    TRY(student(p, p->o->selector, NULL, keep, select_seconds, e));
    TRY(selectors(p, p->r->K, e));
    for (int i = 0; i < n; i++)
        if (k[i] != p->r->K) TRY(selectors(p, k[i], e));
    return OK;
}

/* ---------------------------------------------------------------- all of it */

static int pipeline_all(Pipeline *p, PipelineEnd end, Err *e) {
    int keep[MAX_LAYERS] = {0};
    double select_seconds;
    TRY(inputs_open(p, e));
    TRY(stopped(p, e));
    TRY(stage1(p, e));
    if (end == PIPELINE_ALIGN) return model_save(p, &p->start, e);
    TRY(stopped(p, e));
    TRY(scores(p, end == PIPELINE_SCORE && !selector_find(p->o->selector)->score, e));
    TRY(selection(p, keep, &select_seconds, e));
    if (end != PIPELINE_ALL) return OK;
    TRY(students(p, keep, select_seconds, e));
    TRY(agreement_write(p, e));
    peak_take(p);
    TRY(results_write(p->r, p->dir, e));
    return report_write(p->dir, e);
}

/* A finished run with these options is left as it is. */
static int pipeline_finished(const PipelineOptions *o, const char *dir, const PipelineHooks *h,
                             PipelineResult *r, int *finished, Err *e) {
    char path[1200];
    PipelineOptions was;
    int found = 0;
    *finished = 0;
    TRY(file_join(path, sizeof path, dir, "results.json", e));
    if (!file_exists(path)) return OK;
    TRY(pipeline_options_read(&was, dir, &found, e));
    if (!found) return err_set(e, ERR_INPUT, "%s: results.json is there but run.json is not", dir);
    if (options_differ(pipeline_table(), &was, o) && h->allow_config_change)
        return file_remove(path, e);                          // more is wanted of it
    if (options_differ(pipeline_table(), &was, o)) return OK; // run_file() will say which option
    TRY(pipeline_results_read(r, dir, e));
    r->finished_before = *finished = 1;
    return OK;
}

int pipeline_run(const PipelineOptions *o, const char *dir, Backend *be, const PipelineHooks *h,
                 PipelineEnd end, PipelineResult *result, Err *e) {
    static const PipelineHooks silent = {0};
    const PipelineHooks *hooks = h ? h : &silent;
    void *mem;
    int finished = 0;
    TRY(pipeline_check(o, e));
    TRY(mem_alloc(&mem, sizeof(PipelineResult), "results", e));
    Pipeline p = {.o = o, .h = hooks, .dir = dir, .be = be, .r = mem};
    int rc = pipeline_finished(o, dir, hooks, p.r, &finished, e);
    if (!rc && finished) note(&p, "%s: this run is finished; nothing to do", dir);
    if (!rc && !finished) rc = pipeline_all(&p, end, e);
    if (!rc && result) *result = *p.r;
    pipeline_close(&p);
    mem_free(mem);
    return rc;
}
