/* pipeline_options.c - names, defaults and checks of PipelineOptions.
 *
 * Where the defaults differ from the official code (pipeline_official sets all of it): whole heads are repeated for
 * grouped queries (official: single rows), layers are ranked by held-out KL (running training KL), documents are kept
 * apart and end with EOS (neither), weight decay spares norms, gates and biases (nothing is spared), attn_norm learns
 * at lr (lr_attn). Budgets and learning rates are those of a small model: the official ones are for 1.5B to 7B
 * parameters. */
#include "text/corpus.h"
#include "run/pipeline.h"
#include "method/fit.h"
#include "method/transfer.h"
#include "selectors/selectors.h"
#include "run/pretrain.h"
#include "run/stage_options.h"
#include <stdio.h>
#include <string.h>

#define P(MEMBER) offsetof(PipelineOptions, MEMBER)
static const Option ROWS[] = {
    {"teacher", "model directory", OPT_PATH, P(teacher), 0, 1024, NULL, AFFECTS_LOOKS},
    {"text", TEXT_HELP, OPT_PATHS, P(text), 0, 4096, NULL, AFFECTS_LOOKS},
    {"text_field", TEXT_FIELD_HELP, OPT_TEXT, P(text_field), 0, 128, NULL, AFFECTS_DATA | AFFECTS_IF_SET},
    {"document_separator", SEPARATOR_HELP, OPT_TEXT, P(document_separator), 0, 64, NULL, AFFECTS_DATA},
    {"student_init_ckpt", "finished stage-1 student; stage 1 is skipped", OPT_PATH, P(student_init_ckpt), 0, 1024, NULL,
     AFFECTS_STAGE1},
    {"student", "mixer of the layers that become linear; an unknown name lists all", OPT_TEXT, P(student), 0, 32, NULL,
     AFFECTS_STAGE1},
    {"window_size", "tokens that a swa_v1 layer sees; 0: none (swa_v1: 64)", OPT_INT, P(window_size), 0, 1 << 30, NULL,
     AFFECTS_STAGE1},
    {"force_window_on_all_layers", "every layer is softmax in window_size, kept ones too", OPT_BOOL,
     P(force_window_on_all_layers), 0, 1, NULL, AFFECTS_STAGE1},
    {"window_on_kept_layers", "kept layers use window_size where it is given (official)", OPT_BOOL,
     P(window_on_kept_layers), 0, 1, NULL, AFFECTS_STAGE1},
    {"kv_repeat", "grouped k and v are expanded by whole heads, or by rows (official)", OPT_CHOICE, P(kv_repeat), 0, 0,
     "head|row", AFFECTS_STAGE1},
    {"init", "how linear layers start: copies, silent, or fitted to the teacher's attention", OPT_CHOICE, P(init), 0, 0,
     "teacher|zero_gate|taylor|fit", AFFECTS_STAGE1 | AFFECTS_IF_SET},
    {"init_tokens", "tokens of training text that init reads; 0: 64 for each column of o_proj (taylor: 1024)", OPT_I64,
     P(init_tokens), 0, 1e15, NULL, AFFECTS_STAGE1 | AFFECTS_IF_SET},
    {"stage1_loss", "distance of mixer outputs: norm (official code), squared (paper)", OPT_CHOICE, P(stage1_loss), 0,
     0, "norm|squared", AFFECTS_STAGE1},
    {"official_score", "rank by the running training KL instead of the held-out KL", OPT_BOOL, P(official_score), 0, 1,
     NULL, AFFECTS_SELECTION},
    {"document_boundaries", "attention and states begin anew at each document", OPT_BOOL, P(document_boundaries), 0, 1,
     NULL, AFFECTS_STAGE1},
    {"add_eos", "put the teacher's EOS after each document", OPT_BOOL, P(add_eos), 0, 1, NULL, AFFECTS_DATA},
    {"loss_on", "tokens that KL and text loss count: all, or completions of records with prompt and completion",
     OPT_CHOICE, P(loss_on), 0, 0, "all|completion",
     AFFECTS_SCORES | AFFECTS_STUDENTS | AFFECTS_EVALUATION | AFFECTS_IF_SET},
    {"teacher_bf16", "the teacher's layers stay in memory as BF16 (exact for a BF16 checkpoint)", OPT_BOOL,
     P(teacher_bf16), 0, 1, NULL, AFFECTS_STAGE1},
    {"keep_biases", "linear layers keep the teacher's q/k/v biases", OPT_BOOL, P(keep_biases), 0, 1, NULL,
     AFFECTS_STAGE1},
    {"kept_rope", "rotary embedding of the kept layers, from scoring on: the teacher's, or none (for long contexts)",
     OPT_CHOICE, P(kept_rope), 0, 0, "teacher|none", AFFECTS_SCORES | AFFECTS_STUDENTS | AFFECTS_IF_SET},
    {"temperature", "temperature tau of the KL", OPT_REAL, P(temperature), 1e-3, 1e3, NULL,
     AFFECTS_SCORES | AFFECTS_STUDENTS},
    {"heldout", "fraction of the text that is never trained on", OPT_REAL, P(heldout), 1e-6, 0.9, NULL, AFFECTS_STAGE1},
    {"max_tokens", "tokens that are used of the text; 0: all", OPT_I64, P(max_tokens), 0, 1e18, NULL, AFFECTS_DATA},
    STAGE_ROWS("stage1", PipelineOptions, stage1, AFFECTS_STAGE1),
    STAGE_ROWS("score", PipelineOptions, score, AFFECTS_SCORES),
    STAGE_ROWS("stage2", PipelineOptions, stage2, AFFECTS_STUDENTS),
    STAGE_ROWS("stage3", PipelineOptions, stage3, AFFECTS_STUDENTS),
    {"eval_every", "steps between points of a scoring run's trajectory; 0: steps/8", OPT_I64, P(eval_every), 0, 1e15,
     NULL, AFFECTS_SCORES},
    {"score_mix", "share of recall sequences in what layers are scored on; 0: text only (official)", OPT_REAL,
     P(score_mix), 0, 1, NULL, AFFECTS_SCORES},
    {"early_stop_r", "scoring stops when the top K of this many evaluations agree; 0: off (paper: 10)", OPT_INT,
     P(early_stop_r), 0, EARLY_STOP_MAX_R, NULL, AFFECTS_SCORES},
    {"early_stop_threshold", "early stopping: mean Jaccard index that those evaluations must reach", OPT_REAL,
     P(early_stop_threshold), 0, 1, NULL, AFFECTS_SCORES},
    {"early_stop_all_pairs", "early stopping: compare all pairs of evaluations instead of consecutive ones", OPT_BOOL,
     P(early_stop_all_pairs), 0, 1, NULL, AFFECTS_SCORES},
    {"halving_z", "drop layers that are so many paired standard errors behind the K-th best; 0: off", OPT_REAL,
     P(halving_z), 0, 1e6, NULL, AFFECTS_SCORES},
    {"task_samples", "selectors task: prompts of a task (official: 500)", OPT_INT, P(own.task_samples), 1, 1 << 20,
     NULL, AFFECTS_SELECTION},
    {"task_pairs", "selectors task: pairs in a prompt (official: 50)", OPT_INT, P(own.task_pairs), 3, 128, NULL,
     AFFECTS_SELECTION},
    {"task_new_tokens", "selectors task: most tokens of an answer (official: 200)", OPT_INT, P(own.task_new_tokens), 1,
     1 << 16, NULL, AFFECTS_SELECTION},
    {"branch_steps", "selector trunk_s2: steps of a branch, after score.steps of trunk; 0: a quarter of them", OPT_I64,
     P(own.branch_steps), 0, 1e15, NULL, AFFECTS_SELECTION},
    {"distance_strength", "selector distance: strength of the penalty on neighbours; 0: ga_s2", OPT_REAL,
     P(own.distance_strength), 0, 1e6, NULL, AFFECTS_SELECTION},
    {"distance_width", "selector distance: width of that penalty in layers", OPT_REAL, P(own.distance_width), 1e-3, 1e6,
     NULL, AFFECTS_SELECTION},
    {"eval_batches", "number of held-out batches", OPT_INT, P(eval_batches), 1, HELDOUT_MAX, NULL,
     AFFECTS_SCORES | AFFECTS_EVALUATION},
    {"eval_batch_size", "sequences in a held-out batch; 0: as stage2.micro_batch_size", OPT_INT, P(eval_batch_size), 0,
     1 << 20, NULL, AFFECTS_SCORES | AFFECTS_EVALUATION},
    {"eval_seq_len", "tokens of a held-out sequence; 0: as stage2.train_seq_len", OPT_INT, P(eval_seq_len), 0, 1 << 24,
     NULL, AFFECTS_SCORES | AFFECTS_EVALUATION},
    {"selector", "how layers are chosen; an unknown name lists all", OPT_TEXT, P(selector), 0, 32, NULL,
     AFFECTS_SELECTION},
    {"keep_full_attention_layers", "selector explicit: the layers that stay softmax, \"3,7\"", OPT_TEXT,
     P(keep_full_attention_layers), 0, 2048, NULL, AFFECTS_SELECTION},
    {"k", "number of softmax layers; -1: from softmax_ratio", OPT_INT, P(k), -1, MAX_LAYERS, NULL, AFFECTS_SELECTION},
    {"softmax_ratio", "share of the layers that stays softmax", OPT_REAL, P(softmax_ratio), 0, 1, NULL,
     AFFECTS_SELECTION},
    {"memory_budget_mb", "MiB for caches and states of one sequence of memory_context tokens, which sets k; 0: off",
     OPT_REAL, P(memory_budget_mb), 0, 1e12, NULL, AFFECTS_SELECTION},
    {"memory_context", "tokens of the sequence that memory_budget_mb is for", OPT_I64, P(memory_context), 1, 1e12, NULL,
     AFFECTS_SELECTION},
    {"cost_budget",
     "cost of all layers together by layer_costs; selectors with scores take the best set that fits; 0: off", OPT_REAL,
     P(cost_budget), 0, 1e300, NULL, AFFECTS_SELECTION},
    {"layer_costs", "measured costs of layers: \"soft:lin,soft:lin,...\", or one such pair for all layers", OPT_TEXT,
     P(layer_costs), 0, 2048, NULL, AFFECTS_SELECTION},
    {"uniform_first", "selector uniform:stride: the first softmax layer", OPT_INT, P(own.uniform_first), 0, MAX_LAYERS,
     NULL, AFFECTS_SELECTION},
    {"uniform_stride", "selector uniform:stride: layers from one softmax layer to the next", OPT_INT,
     P(own.uniform_stride), 1, MAX_LAYERS, NULL, AFFECTS_SELECTION},
    {"students", "further selectors to distil and compare with: \"explicit:none,uniform,random,ablation\"", OPT_TEXT,
     P(students), 0, 512, NULL, AFFECTS_SELECTION},
    {"random_draws", "selector random: number of draws, students random, random-2, ...", OPT_INT, P(random_draws), 1,
     64, NULL, AFFECTS_SELECTION},
    {"curve_k", "further numbers of softmax layers, \"1,3,4\", at which selectors' sets are distilled as NAME@K",
     OPT_TEXT, P(curve_k), 0, 128, NULL, AFFECTS_SELECTION},
    {"curve_students", "selectors of the run that curve_k is for; empty: all", OPT_TEXT, P(curve_students), 0, 512,
     NULL, AFFECTS_SELECTION},
    {"recall_keys", "recall probe: characters of keys; empty: no probe", OPT_TEXT, P(recall_keys), 0, 128, NULL,
     AFFECTS_SCORES | AFFECTS_EVALUATION},
    {"recall_values", "recall probe: characters of values; empty: the keys' set, disjoint in each row", OPT_TEXT,
     P(recall_values), 0, 128, NULL, AFFECTS_SCORES | AFFECTS_EVALUATION},
    {"recall_n", "recall probe: numbers of pairs", OPT_TEXT, P(recall_n), 0, 64, NULL,
     AFFECTS_SCORES | AFFECTS_EVALUATION},
    {"recall_rows", "recall probe: sequences per number of pairs", OPT_INT, P(recall_rows), 1, 1 << 20, NULL,
     AFFECTS_SCORES | AFFECTS_EVALUATION},
    {"seed", "seed of new weights, batches and random layouts", OPT_U64, P(seed), 0, 0, NULL, AFFECTS_STAGE1},
    {"lanes", LANES_HELP, OPT_INT, P(lanes), 0, LANES_MOST, NULL, AFFECTS_STAGE1 | AFFECTS_IF_SET},
    {"save_every", "steps between checkpoints; 0: only when stopped and at the end", OPT_I64, P(save_every), 0, 1e15,
     NULL, AFFECTS_LOOKS},
    {"cache_mb", "MiB for teacher states that students share", OPT_I64, P(cache_mb), 0, 1e9, NULL, AFFECTS_LOOKS},
    {"keep_last", "checkpoints that are kept of a training", OPT_INT, P(keep_last), 1, 1 << 20, NULL, AFFECTS_LOOKS},
    {"checkpointing", "keep layer inputs only and run layers again in the backward pass", OPT_BOOL, P(checkpointing), 0,
     1, NULL, AFFECTS_LOOKS},
    {"keep_checkpoints", "keep checkpoints of finished students too", OPT_BOOL, P(keep_checkpoints), 0, 1, NULL,
     AFFECTS_LOOKS},
    {"save_students", "every student's model is kept, in students/NAME/, not only the main one's in model/", OPT_BOOL,
     P(save_students), 0, 1, NULL, AFFECTS_MODEL | AFFECTS_IF_SET},
    {"save_dtype", "number type of model/; auto: that of the teacher", OPT_CHOICE, P(save_dtype), 0, 0,
     "auto|float32|bfloat16|float16", AFFECTS_MODEL},
    {"log_every", "steps a log row averages over", OPT_INT, P(log_every), 1, 1 << 30, NULL, AFFECTS_LOOKS},
    {"nan_skip", "skip steps whose loss or gradient is not finite instead of stopping", OPT_BOOL, P(nan_skip), 0, 1,
     NULL, AFFECTS_STAGE1},
    {"max_skips", "steps that nan_skip may skip in one run", OPT_INT, P(max_skips), 0, 1 << 30, NULL, AFFECTS_STAGE1},
};
#undef P

const OptionTable *pipeline_table(void) {
    static const OptionTable table = {ROWS, (int)(sizeof ROWS / sizeof *ROWS)};
    return &table;
}

static StageOptions stage_default(int64_t steps, int T, double lr, double lr_attn, ScheduleKind schedule) {
    StageOptions s = {.steps = steps, .batch_size = 8, .micro_batch_size = 8, .train_seq_len = T};
    s.optim =
        (OptimConfig){.lr = lr, .lr_attn = lr_attn, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 0.01, .clip = 1};
    s.optim.schedule.kind = schedule;
    return s;
}

void pipeline_defaults(PipelineOptions *o) {
    *o = (PipelineOptions){.student = "gdn_v4",
                           .kv_repeat = KV_REPEAT_HEAD,
                           .stage1_loss = ALIGN_NORM,
                           .document_boundaries = 1,
                           .add_eos = 1,
                           .temperature = 1,
                           .heldout = 0.05,
                           .eval_batches = 8,
                           .selector = "ga_s2",
                           .k = -1,
                           .early_stop_threshold = 0.9,
                           .own.distance_strength = 0.5,
                           .own.distance_width = 2,
                           .memory_context = 32768,
                           .own.task_samples = 16,
                           .own.task_pairs = 20,
                           .own.task_new_tokens = 48,
                           .softmax_ratio = 0.25,
                           .own.uniform_stride = 1,
                           .random_draws = 1,
                           .recall_n = "4,8,16,24",
                           .recall_rows = 64,
                           .seed = 42,
                           .save_every = 50,
                           .cache_mb = 512,
                           .keep_last = 2,
                           .log_every = 10,
                           .max_skips = 10};
    o->stage1 = stage_default(200, 256, 1e-3, 1e-3, SCHEDULE_COSINE);
    o->score = stage_default(60, 256, 1e-4, 1e-3, SCHEDULE_CONSTANT);
    o->stage2 = stage_default(200, 256, 1e-4, 1e-3, SCHEDULE_CONSTANT);
    o->stage3 = stage_default(0, 512, 1e-5, 1e-4, SCHEDULE_CONSTANT);
}

static void stage_official(StageOptions *s, int64_t tokens, int batch, int micro, int T, double lr, double lr_attn,
                           ScheduleKind kind) {
    *s = (StageOptions){.target_tokens = tokens, .batch_size = batch, .micro_batch_size = micro, .train_seq_len = T};
    s->optim =
        (OptimConfig){.lr = lr, .lr_attn = lr_attn, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 0.01, .clip = 1};
    s->optim.schedule.kind = kind; // no warm-up; cosine falls to 0
    s->optim.official_groups = 1;  // attn_norm in the attention group, decay on everything
}

void pipeline_official(PipelineOptions *o) {
    o->kv_repeat = KV_REPEAT_ROW; // einops pattern on rows (ref/METHOD.md 3.1)
    o->stage1_loss = ALIGN_NORM;  // un-squared, / sqrt(d), mean over tokens and layers
    o->official_score = 1;        // 10-step mean of the training KL
    o->document_boundaries = 0;   // documents run into each other
    o->add_eos = 0;
    o->keep_biases = 0;           // fla's layers have no slot for them
    o->window_on_kept_layers = 1; // one window_size for all layers that have softmax
    o->temperature = 1;
    stage_official(&o->stage1, 100000000, 96, 12, 512, 1e-3, 1e-3, SCHEDULE_COSINE);
    stage_official(&o->score, 600000000, 32, 1, 4096, 7e-6, 1e-4, SCHEDULE_CONSTANT); // the README: 200M suffice
    stage_official(&o->stage2, 600000000, 32, 2, 4096, 7e-6, 1e-4, SCHEDULE_CONSTANT);
    // a code path without a shipped configuration: off
    stage_official(&o->stage3, 0, 32, 1, 8192, 7e-6, 1e-4, SCHEDULE_CONSTANT);
    o->own.task_samples = 500;
    o->own.task_pairs = 50;
    o->own.task_new_tokens = 200;
    o->seed = 42; // of the Hugging Face Trainer
    o->log_every = 10;
}

void pipeline_settle(PipelineOptions *o) {
    selector_names(o->selector);
    selector_names(o->students);
    selector_names(o->curve_students);
    StageOptions *const stage[] = {&o->stage1, &o->score, &o->stage2, &o->stage3};
    if (o->lanes == 1) o->lanes = 0;
    for (size_t i = 0; i < sizeof stage / sizeof *stage; i++) stage_settle(stage[i], o->lanes);
}

static int selector_unknown(const char *option, const char *name, int n, Err *e) {
    char known[400];
    selector_families(known, sizeof known);
    return err_set(e, ERR_USAGE, "%s: '%.*s' is unknown; known: %s", option, n < 40 ? n : 40, name, known);
}

/* Every name of the comma list is a selector, none twice; with all draws and all K they fit the table. */
static int students_check(const PipelineOptions *o, Err *e) {
    char name[32];
    int n = 1, k[MAX_LAYERS], n_k = 0;
    for (const char *s = o->students; *s;) {
        const size_t len = strcspn(s, ",");
        if (len >= sizeof name) return selector_unknown("students", s, 40, e);
        memcpy(name, s, len);
        name[len] = 0;
        if (!selector_find(name)) return selector_unknown("students", name, (int)len, e);
        for (const char *before = o->students; before < s;) {
            const size_t other = strcspn(before, ",");
            if (other == len && !memcmp(before, s, len))
                return err_set(e, ERR_USAGE, "students: '%s' is there twice", name);
            before += other + 1;
        }
        n++;
        s += len + (s[len] == ',');
    }
    TRY(list_parse(o->curve_k, k, MAX_LAYERS, &n_k, 0, MAX_LAYERS, "curve_k", e));
    n = (n + o->random_draws - 1) * (n_k + 1);
    if (n > PIPELINE_STUDENTS - 2)
        return err_set(e, ERR_USAGE, "students: %d with all K and draws, at most %d", n, PIPELINE_STUDENTS - 2);
    return OK;
}

int pipeline_check(const PipelineOptions *o, Err *e) {
    const Selector *s = selector_find(o->selector);
    if (!o->teacher[0]) return err_set(e, ERR_USAGE, "teacher: no model directory given");
    if (!o->text[0]) return err_set(e, ERR_USAGE, "text: no text given");
    if (mixer_find(o->student) < 1) {
        char known[256];
        mixer_names(known, sizeof known);
        return err_set(e, ERR_USAGE, "student: '%s' is not a mixer for students; known: %s", o->student, known);
    }
    if (o->init && o->student_init_ckpt[0])
        return err_set(e, ERR_USAGE, "init: student_init_ckpt has its own start; expected init teacher with it");
    TRY(fit_check(o->init, mixer_at(mixer_find(o->force_window_on_all_layers ? "swa_v1" : o->student)), e));
    if (!s) return selector_unknown("selector", o->selector, 40, e);
    if (s->needs & NEEDS_RECALL && !o->recall_keys[0])
        return err_set(e, ERR_USAGE, "selector: '%s' needs the recall probe: give recall_keys", o->selector);
    if (strstr(o->students, "ablation") && !o->recall_keys[0])
        return err_set(e, ERR_USAGE, "students: 'ablation' needs the recall probe: give recall_keys");
    if ((o->cost_budget > 0) != (o->layer_costs[0] != 0))
        return err_set(e, ERR_USAGE, "cost_budget: goes with layer_costs, and layer_costs with it");
    if (o->cost_budget > 0 && o->memory_budget_mb > 0)
        return err_set(e, ERR_USAGE, "cost_budget: one of it and memory_budget_mb");
    if (o->score_mix > 0 && !o->recall_keys[0])
        return err_set(e, ERR_USAGE, "score_mix: got %g, which needs the recall game: give recall_keys", o->score_mix);
    if ((!strcmp(o->selector, "explicit") || strstr(o->students, "explicit")) && !o->keep_full_attention_layers[0])
        return err_set(e, ERR_USAGE, "selector: 'explicit' needs keep_full_attention_layers");
    TRY(students_check(o, e));
    const StageOptions *const stage[] = {&o->stage1, &o->score, &o->stage2, &o->stage3};
    static const char *const name[] = {"stage1", "score", "stage2", "stage3"};
    for (int i = 0; i < 3 + (o->stage3.steps || o->stage3.target_tokens); i++) {
        StageOptions one = *stage[i];
        one.optim.lanes = o->lanes;
        TRY(stage_check(&one, name[i], e));
    }
    return OK;
}
