/* test_options.c - every option of a run, changed in a finished run: what the table says it affects is made again, what
 * it does not affect is kept, and the run ends as one that had the option from the start. */
#include "io/hf.h"
#include "run/pipeline.h"
#include "run/pretrain.h"
#include "selectors/selectors.h"
#include "tests/suite.h"
#include "tiny.h"
#include <math.h>
#include <sys/stat.h>

static void setup(void) { tmpdir_begin(); }
static void teardown(void) { tmpdir_end(); }

/* tmpdir/name; stays until sixteen others were asked for. */
static const char *at(const char *name) {
    static char path[16][640];
    static unsigned k;
    char *p = path[k++ % 16];
    snprintf(p, sizeof path[0], "%s/%s", tmpdir, name);
    return p;
}

/* ---------------------------------------------------------------- a run of a tenth of a second */

static void text_write(const char *path, uint64_t seed, size_t n) {
    static const char *const word[] = {"the ",    "king ", "and ",  "queen ", "of ",
                                       "night, ", "who ",  "came ", "to ",    "rest.\n"};
    char *text = malloc(n + 16);
    size_t len = 0;
    Err e = {0};
    Rng r;
    ck_assert_ptr_nonnull(text);
    rng_seed(&r, seed);
    while (len < n) len += (size_t)snprintf(text + len, n + 16 - len, "%s", word[rng_below(&r, 10)]);
    must(file_write_all(path, text, n, &e), &e);
    free(text);
}

/* Grouped queries, biases and an EOS, so that the options about them have something to do. */
static void teacher_write(const char *dir, uint64_t seed) {
    Backend *be;
    Model m;
    Err e = {0};
    char *json;
    size_t n;
    Config c = tiny_config(4);
    snprintf(c.family, sizeof c.family, "qwen2");
    c.VOC = 256;
    c.tied = 0;
    c.qkv_bias = 1;
    c.dtype = DT_F32;
    c.eos[0] = 0;
    c.n_eos = 1;
    must(backend_open(&be, "ref32", 1, &e), &e);
    must(model_open(&m, &c, be, GRAD_NONE, &e), &e);
    must(model_init(&m, seed, 1, 1.5, 0, &e), &e);
    must(tokenizer_byte_json(&json, &n, &e), &e);
    must(file_mkdirs(at("tok"), &e), &e);
    must(file_write_all(at("tok/tokenizer.json"), json, n, &e), &e);
    mem_free(json);
    const HfSaveOptions o = {.format = "hf", .dtype = DT_F32, .tokenizer_from = at("tok")};
    must(hf_save(&m, dir, &o, NULL, 0, &e), &e);
    model_close(&m);
    backend_close(be);
}

static void run_small(PipelineOptions *o) {
    pipeline_defaults(o);
    snprintf(o->teacher, sizeof o->teacher, "%s/teacher", tmpdir);
    snprintf(o->text, sizeof o->text, "%s/text.txt", tmpdir);
    snprintf(o->document_separator, sizeof o->document_separator, "\n");
    StageOptions *stage[4] = {&o->stage1, &o->score, &o->stage2, &o->stage3};
    for (int i = 0; i < 4; i++) {
        stage[i]->steps = 2;
        stage[i]->batch_size = 2;
        stage[i]->micro_batch_size = 1;
        stage[i]->train_seq_len = 12;
    }
    o->eval_every = 1;
    o->eval_batches = 2;
    o->eval_batch_size = 2;
    o->eval_seq_len = 12;
    o->save_every = 0;
    o->log_every = 1;
    o->k = 1;
    snprintf(o->students, sizeof o->students, "random");
    snprintf(o->recall_keys, sizeof o->recall_keys, "a-z");
    snprintf(o->recall_n, sizeof o->recall_n, "2");
    o->recall_rows = 4;
    o->cache_mb = 1;
    o->keep_checkpoints = 1; // so that what is trained is told from what is measured
}

/* Both texts line by line as JSON lines. */
static void lines_write(const char *path, const char *form, const char *text, const char *body) {
    char a[256], b[256], line[600];
    Err e = {0};
    FILE *x = fopen(text, "r"), *y = fopen(body, "r");
    ck_assert(x && y);
    while (fgets(a, sizeof a, x) && fgets(b, sizeof b, y)) {
        a[strcspn(a, "\n")] = b[strcspn(b, "\n")] = 0;
        snprintf(line, sizeof line, form, a, b);
        must(file_append(path, line, strlen(line), &e), &e);
    }
    fclose(x);
    fclose(y);
}

static void inputs(void) {
    if (file_exists(at("text.txt"))) return;
    text_write(at("text.txt"), 4, 3000);
    text_write(at("other.txt"), 5, 3000);
    lines_write(at("lines.jsonl"), "{\"text\": \"%s\", \"body\": \"%s\"}\n", at("text.txt"), at("other.txt"));
    lines_write(at("prompts.jsonl"), "{\"prompt\": \"%s\", \"completion\": \"%s\"}\n", at("text.txt"), at("other.txt"));
    teacher_write(at("teacher"), 3);
    teacher_write(at("other"), 7);
    text_write(at("moved.txt"), 4, 3000);
    teacher_write(at("moved"), 3);
    Backend *be;
    PipelineOptions o;
    Err e = {0};
    run_small(&o);
    must(backend_open(&be, "cpu", 1, &e), &e);
    must(pipeline_run(&o, at("aligned"), be, NULL, PIPELINE_ALIGN, NULL, &e), &e); // a finished stage-1 student
    backend_close(be);
}

/* ---------------------------------------------------------------- what a run did */

typedef struct {
    long stage1, score, students; /* training steps */
} Steps;

static void steps_count(void *ctx, const ProgressLine *line) {
    Steps *s = ctx;
    if (!strncmp(line->label, "stage1", 6)) s->stage1++;
    else if (!strncmp(line->label, "score", 5)) s->score++;
    else if (!strncmp(line->label, "stage2", 6) || !strncmp(line->label, "stage3", 6)) s->students++;
}

static int go_on(const char *dir, const char *device, const PipelineOptions *o, int allow, Steps *steps,
                 PipelineResult *r, Err *e) {
    Backend *be;
    const Progress progress = {steps_count, steps};
    const PipelineHooks h = {.progress = &progress, .allow_config_change = allow, .version = "test"};
    memset(steps, 0, sizeof *steps);
    must(backend_open(&be, device, 1, e), e);
    const int rc = pipeline_run(o, dir, be, &h, PIPELINE_ALL, r, e);
    backend_close(be);
    return rc;
}

/* Files are written to a temporary name and renamed, so a file that was made again is another one. */
static ino_t file_id(const char *dir, const char *name) {
    struct stat s;
    char path[1300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return stat(path, &s) ? 0 : s.st_ino;
}

typedef struct {
    ino_t text, row, rows, model;
} Files;
static Files files_of(const char *dir, const char *selector) {
    char row[80], rows[80];
    snprintf(row, sizeof row, "checkpoints/students/%s.json", selector);
    snprintf(rows, sizeof rows, "checkpoints/rows/%s.json", selector);
    return (Files){file_id(dir, "data/text.tok"), file_id(dir, row), file_id(dir, rows),
                   file_id(dir, "model/model.safetensors")};
}

/* The file without what is measured of time and memory. */
static char *numbers_of(const char *dir, const char *name) {
    static const char *const key[] = {"\"seconds\":",       "\"select_seconds\":", "\"peak_bytes\":",
                                      "\"counted_bytes\":", "\"started\":",        "\"inputs_hash\":"};
    char path[1300];
    File f;
    Err e = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (file_exists(path) != 1) return strdup(""); // not every selector leaves all of them
    must(file_open(&f, path, &e), &e);
    char *out = malloc(f.size * 2 + 1);
    size_t n = 0;
    ck_assert_ptr_nonnull(out);
    const int text = strstr(name, ".safetensors") == NULL;
    for (size_t i = 0; i < f.size;) {
        for (size_t k = 0; text && k < sizeof key / sizeof *key; k++)
            if (f.size - i > strlen(key[k]) && !memcmp(f.data + i, key[k], strlen(key[k])))
                while (i < f.size && f.data[i] != ',' && f.data[i] != '\n' && f.data[i] != '}') i++;
        if (text) out[n++] = (char)f.data[i++];
        else n += (size_t)snprintf(out + n, 3, "%02x", f.data[i++]);
    }
    out[n] = 0;
    file_close(&f);
    return out;
}

/* 1 if the two runs hold the same numbers; else *where is the file that differs. */
static int runs_same(const char *a, const char *b, const char **where) {
    static const char *const FILES[] = {"results.json",
                                        "ranking.json",
                                        "trajectory.csv",
                                        "budget.csv",
                                        "model/config.json",
                                        "model/model.safetensors",
                                        "students/random/model.safetensors"};
    int same = 1;
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES && same; i++) {
        char *x = numbers_of(a, FILES[i]), *y = numbers_of(b, FILES[i]);
        same = !strcmp(x, y);
        *where = FILES[i];
        free(x);
        free(y);
    }
    return same;
}

static void tree_copy(const char *from, const char *to) {
    char command[2700];
    Err e = {0};
    must(file_remove_tree(to, &e), &e);
    snprintf(command, sizeof command, "cp -r %s %s", from, to);
    ck_assert_int_eq(system(command), 0);
}

/* ---------------------------------------------------------------- every option */

/* Runs in which options show that a plain one does not ask. */
enum {
    PLAIN,
    SCHEDULES,
    TOKENS,
    WINDOW,
    RACE,
    HALVING,
    TASKS,
    TRUNK,
    DISTANCE,
    STRIDE,
    RATIO,
    MEMORY,
    COSTS,
    EXPLICIT,
    CURVE,
    BF16,
    LINES,
    FIT,
    PROMPTS,
    LANES,
    SETTINGS
};
static const struct {
    const char *device, *set[12]; /* "key=value", "@": a file of inputs() */
} SETTING[SETTINGS] = {
    [PLAIN] = {"cpu", {NULL}},
    [SCHEDULES] = {"cpu",
                   {"stage1.steps=3", "score.steps=3", "stage2.steps=3", "stage3.steps=3",
                    "stage1.lr_scheduler_type=hold_linear", "score.lr_scheduler_type=hold_linear",
                    "stage2.lr_scheduler_type=hold_linear", "stage3.lr_scheduler_type=hold_linear"}},
    [TOKENS] = {"cpu",
                {"stage1.steps=0", "score.steps=0", "stage2.steps=0", "stage3.steps=0", "stage1.target_tokens=48",
                 "score.target_tokens=48", "stage2.target_tokens=48", "stage3.target_tokens=48"}},
    [WINDOW] = {"cpu", {"student=swa_v1", "window_size=4", "window_on_kept_layers=true"}},
    [RACE] = {"cpu", {"score.steps=8", "k=2", "score.lr_attn=0.05", "early_stop_r=2", "early_stop_threshold=0.1"}},
    [HALVING] = {"cpu", {"eval_batches=4", "score.steps=4"}},
    [TASKS] = {"cpu", {"selector=ar", "task_samples=2", "task_pairs=3", "task_new_tokens=2"}},
    [TRUNK] = {"cpu", {"selector=trunk_s2"}},
    [DISTANCE] = {"cpu", {"selector=distance", "k=2", "distance_strength=5"}},
    [STRIDE] = {"cpu", {"selector=uniform_stride", "k=2"}},
    [RATIO] = {"cpu", {"k=-1"}},
    [MEMORY] = {"cpu", {"k=-1", "memory_budget_mb=0.5", "memory_context=4000"}},
    [COSTS] = {"cpu", {"cost_budget=6", "layer_costs=4:1,2:1,4:1,4:1"}},
    [EXPLICIT] = {"cpu", {"selector=explicit", "keep_full_attention_layers=2"}},
    [CURVE] = {"cpu", {"curve_k=2"}},
    [BF16] = {"cpu-bf16", {NULL}},
    [FIT] = {"cpu", {"init=fit", "init_tokens=48"}},
    [PROMPTS] = {"cpu", {"text=@prompts.jsonl", "document_separator="}},
    [LANES] = {"cpu", {"stage1.batch_size=4", "score.batch_size=4", "stage2.batch_size=4", "stage3.batch_size=4"}},
    [LINES] = {"cpu", {"text=@lines.jsonl", "document_separator="}},
};

/* How an option is changed. What is not here is changed in a plain run, by its kind: see value_other. */
static const struct {
    const char *key, *value; /* value NULL: by its kind */
    int setting;
    const char *unseen; /* why the run's numbers stay as they are */
} CHANGES[] = {
    {"teacher", "%s/moved", PLAIN, "the same files elsewhere"},
    {"text", "%s/moved.txt", PLAIN, "the same file elsewhere"},
    {"document_separator", "night, ", PLAIN, NULL},
    {"text_field", "body", LINES, NULL},
    {"loss_on", "completion", PROMPTS, NULL},
    {"init_tokens", "96", FIT, NULL},
    {"student_init_ckpt", "%s/aligned/model", PLAIN, "it is the run's own stage-1 student"},
    {"student", "gla_v1", PLAIN, NULL},
    {"window_size", "5", WINDOW, NULL},
    {"window_on_kept_layers", NULL, WINDOW, NULL},
    {"max_tokens", "2000", PLAIN, NULL},
    {"selector", "uniform_last", PLAIN, NULL},
    {"keep_full_attention_layers", "0", EXPLICIT, NULL},
    {"softmax_ratio", "0.7", RATIO, NULL},
    {"memory_budget_mb", "0.3", MEMORY, NULL},
    {"memory_context", "2000", MEMORY, NULL},
    {"cost_budget", "9", COSTS, NULL},
    {"layer_costs", "2:1,4:1,4:1,4:1", COSTS, NULL},
    {"uniform_first", NULL, STRIDE, NULL},
    {"uniform_stride", NULL, STRIDE, NULL},
    {"students", "random,none", PLAIN, NULL},
    {"curve_k", "2", PLAIN, NULL},
    {"curve_students", "ga_s2", CURVE, NULL},
    {"recall_keys", "a-y", PLAIN, NULL},
    {"recall_values", "0-9", PLAIN, NULL},
    {"recall_n", "2,3", PLAIN, NULL},
    {"score_mix", "0.5", PLAIN, NULL},
    {"early_stop_r", NULL, RACE, NULL},
    {"early_stop_threshold", "1", RACE, NULL},
    {"early_stop_all_pairs", NULL, RACE, "two evaluations are one pair"},
    {"halving_z", "0.001", HALVING, NULL},
    {"task_samples", NULL, TASKS, NULL},
    {"task_pairs", NULL, TASKS, NULL},
    {"task_new_tokens", NULL, TASKS, NULL},
    {"branch_steps", "2", TRUNK, NULL},
    {"distance_strength", "0.01", DISTANCE, NULL},
    {"distance_width", "0.01", DISTANCE, NULL},
    {"stage1.target_tokens", "72", TOKENS, NULL},
    {"score.target_tokens", "72", TOKENS, NULL},
    {"stage2.target_tokens", "72", TOKENS, NULL},
    {"stage3.target_tokens", "72", TOKENS, NULL},
    {"stage1.final_lr_fraction", "0.5", SCHEDULES, NULL},
    {"score.final_lr_fraction", "0.5", SCHEDULES, NULL},
    {"stage2.final_lr_fraction", "0.5", SCHEDULES, NULL},
    {"stage3.final_lr_fraction", "0.5", SCHEDULES, NULL},
    {"stage1.hold_fraction", "0.9", SCHEDULES, NULL},
    {"score.hold_fraction", "0.9", SCHEDULES, NULL},
    {"stage2.hold_fraction", "0.9", SCHEDULES, NULL},
    {"stage3.hold_fraction", "0.9", SCHEDULES, NULL},
    {"lanes", "4", LANES, NULL},
    {"stage1.max_grad_norm", "0.001", PLAIN, NULL},
    {"score.max_grad_norm", "0.001", PLAIN, NULL},
    {"stage2.max_grad_norm", "0.001", PLAIN, NULL},
    {"stage3.max_grad_norm", "0.001", PLAIN, NULL},
    {"score.warmup_steps", "2", PLAIN, NULL},
    {"stage2.warmup_steps", "2", PLAIN, NULL},
    {"stage3.warmup_steps", "2", PLAIN, NULL},
    {"save_dtype", "bfloat16", PLAIN, NULL},
    {"stage1.lr", NULL, PLAIN, "stage 1 trains mixers only, at lr_attn"},
    {"stage1.stochastic_rounding", NULL, BF16, NULL},
    {"score.stochastic_rounding", NULL, BF16, NULL},
    {"stage2.stochastic_rounding", NULL, BF16, NULL},
    {"stage3.stochastic_rounding", NULL, BF16, NULL},
    {"nan_skip", NULL, PLAIN, "all losses are finite"},
    {"max_skips", NULL, PLAIN, "all losses are finite"},
};
enum { N_CHANGES = sizeof CHANGES / sizeof *CHANGES };

static int change_of(const char *key) {
    for (int i = 0; i < N_CHANGES; i++)
        if (!strcmp(CHANGES[i].key, key)) return i;
    return -1;
}

/* Another value that the option may have. */
static void value_other(const Option *r, const PipelineOptions *o, char *to, size_t cap) {
    char was[4096];
    double v;
    options_get(r, o, was, sizeof was);
    switch (r->kind) {
    case OPT_INT:
    case OPT_I64:
    case OPT_U64:
        snprintf(to, cap, "%lld", strtoll(was, NULL, 10) + 1);
        return;
    case OPT_REAL:
        v = strtod(was, NULL);
        snprintf(to, cap, "%.9g", v > 0 && v * 1.5 <= r->hi ? v * 1.5 : r->hi / 2);
        return;
    case OPT_BOOL:
        snprintf(to, cap, "%s", strcmp(was, "true") ? "true" : "false");
        return;
    case OPT_CHOICE:
        snprintf(to, cap, "%.*s", (int)strcspn(r->choices, "|"), r->choices);
        if (!strcmp(to, was)) { // the next one
            const char *next = strchr(r->choices, '|') + 1;
            snprintf(to, cap, "%.*s", (int)strcspn(next, "|"), next);
        }
        return;
    case OPT_TEXT:
    case OPT_PATH:
    case OPT_PATHS:
        ck_abort_msg("option '%s': say in CHANGES what to change it to", r->key);
    }
}

static PipelineResult was, now, fresh;

/* What must have been made again, from the option's entry: that, and all that is made from it. */
static void check_made(const Option *r, unsigned affects, const Steps *s, const Files *a, const Files *b) {
    const int moved = memcmp(was.row[2].keep, now.row[2].keep, sizeof now.row[2].keep) || was.rows != now.rows ||
                      strcmp(was.row[2].name, now.row[2].name);
    const int data = (affects & AFFECTS_DATA) != 0, stage1 = data || affects & AFFECTS_STAGE1;
    const int score = stage1 || affects & AFFECTS_SCORES, student = stage1 || affects & AFFECTS_STUDENTS;
    const int row = student || affects & AFFECTS_EVALUATION, model = student || affects & AFFECTS_MODEL;
    const int scored = selector_find(was.row[2].name)->needs & NEEDS_SCORES;
    const char *k = r->key;
    ck_assert_msg((a->text != b->text) == data, "%s: the text was %s", k, data ? "kept" : "made again");
    if (strcmp(k, "student_init_ckpt")) // which is stage 1
        ck_assert_msg((s->stage1 > 0) == stage1, "%s: stage 1 took %ld steps", k, s->stage1);
    if (score && scored) ck_assert_msg(s->score > 0, "%s: scores were kept", k);
    if (!score && !(affects & AFFECTS_SELECTION)) ck_assert_msg(!s->score, "%s: scores were made again", k);
    if (score && a->rows) ck_assert_msg(a->rows != b->rows, "%s: rows of the selector were kept", k);
    if (student) ck_assert_msg(s->students > 0, "%s: students were kept", k);
    else if (!moved) ck_assert_msg(!s->students, "%s: students were trained again, %ld steps", k, s->students);
    if (row) ck_assert_msg(a->row != b->row, "%s: the evaluation was kept", k);
    else if (!moved && !model) // a model that is written is measured on the way
        ck_assert_msg(a->row == b->row, "%s: was evaluated again", k);
    if (model) ck_assert_msg(a->model != b->model, "%s: model/ was kept", k);
    else if (!moved) ck_assert_msg(a->model == b->model, "%s: model/ was written again", k);
}

static void option_change(const Option *r, const PipelineOptions *base, const char *device, const char *unseen,
                          const char *value, unsigned affects) {
    PipelineOptions o = *base;
    Err e = {0}, refused = {0};
    Steps steps;
    const char *where = "";
    must(options_set(pipeline_table(), &o, r->key, value, &e), &e);
    tree_copy(at("base"), at("work"));
    if (!(affects & AFFECTS_NUMBERS)) must(file_remove(at("work/results.json"), &e), &e); // else it is finished
    const Files a = files_of(at("work"), base->selector);
    if (affects & AFFECTS_NUMBERS) { // without the flag it is refused by its name, and nothing is touched
        ck_assert_msg(go_on(at("work"), device, &o, 0, &steps, &now, &refused) == ERR_USAGE, "%s", r->key);
        ck_assert_msg(strstr(refused.msg, r->key) || strstr(refused.msg, "has changed"), "%s: %s", r->key, refused.msg);
    }
    must(go_on(at("work"), device, &o, 1, &steps, &now, &e), &e);
    const Files b = files_of(at("work"), base->selector);
    check_made(r, affects, &steps, &a, &b);
    // as if it had been so from the start
    must(file_remove_tree(at("fresh"), &e), &e);
    must(go_on(at("fresh"), device, &o, 0, &steps, &fresh, &e), &e);
    ck_assert_msg(runs_same(at("work"), at("fresh"), &where), "%s: %s is not that of a new run", r->key, where);
    char *x = numbers_of(at("work"), "run.json"), *y = numbers_of(at("fresh"), "run.json");
    size_t n = 0;
    while (x[n] && x[n] == y[n]) n++;
    ck_assert_msg(x[n] == y[n], "%s: run.json is not that of a new run: %.60s", r->key, x + n);
    free(x);
    free(y);
    const int same = runs_same(at("base"), at("fresh"), &where);
    if (!(affects & AFFECTS_NUMBERS) || unseen) ck_assert_msg(same, "%s: changes %s", r->key, where);
    else ck_assert_msg(!same, "%s: nothing shows: say in CHANGES where it does", r->key);
}

/* All options that show in one setting. */
START_TEST(every_option) {
    const OptionTable *t = pipeline_table();
    PipelineOptions o;
    Err e = {0};
    Steps steps;
    inputs();
    run_small(&o);
    for (int i = 0; SETTING[_i].set[i]; i++) {
        char key[64];
        const char *equals = strchr(SETTING[_i].set[i], '=');
        snprintf(key, sizeof key, "%.*s", (int)(equals - SETTING[_i].set[i]), SETTING[_i].set[i]);
        must(options_set(t, &o, key, equals[1] == '@' ? at(equals + 2) : equals + 1, &e), &e);
    }
    must(go_on(at("base"), SETTING[_i].device, &o, 0, &steps, &was, &e), &e);
    for (int i = 0; i < t->n; i++) {
        char value[1200];
        const Option *r = &t->row[i];
        const int c = change_of(r->key);
        if ((c < 0 ? PLAIN : CHANGES[c].setting) != _i) continue;
        if (c >= 0 && CHANGES[c].value) snprintf(value, sizeof value, CHANGES[c].value, tmpdir);
        else value_other(r, &o, value, sizeof value);
        // files are known by their bytes, all of them together: another one makes everything again
        const unsigned affects = strcmp(r->key, "student_init_ckpt") ? r->affects : ~0u;
        option_change(r, &o, SETTING[_i].device, c < 0 ? NULL : CHANGES[c].unseen, value, affects);
    }
}
END_TEST

/* The same names, other bytes: all of it is made again, finished or not. */
START_TEST(other_files) {
    static const char *const key[2] = {"text", "teacher"}, *const name[2] = {"other.txt", "other"};
    PipelineOptions base;
    Err e = {0};
    Steps steps;
    inputs();
    run_small(&base);
    must(go_on(at("base"), "cpu", &base, 0, &steps, &was, &e), &e);
    for (int i = 0; i < 2; i++)
        option_change(options_find(pipeline_table(), key[i]), &base, "cpu", NULL, at(name[i]), ~0u);
}
END_TEST

/* Bits of backends differ, so none goes on with what another one made; the number of threads does not count. */
START_TEST(devices) {
    static const char *const DEVICES[] = {"cpu", "cpu-bf16", "ref64", "ref32"};
    PipelineOptions o;
    Err e = {0};
    Steps steps;
    Backend *be;
    const char *where;
    inputs();
    run_small(&o);
    o.students[0] = 0;
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 4; k++) {
            Err refused = {0};
            must(go_on(at("base"), DEVICES[i], &o, 0, &steps, &was, &e), &e);
            if (k == i) continue;
            ck_assert_int_eq(go_on(at("base"), DEVICES[k], &o, 0, &steps, &now, &refused), ERR_USAGE);
            ck_assert_msg(strstr(refused.msg, DEVICES[i]) && strstr(refused.msg, DEVICES[k]), "%s", refused.msg);
            must(file_remove(at("base/results.json"), &e), &e); // unfinished: the same
            ck_assert_int_eq(go_on(at("base"), DEVICES[k], &o, 0, &steps, &now, &refused), ERR_USAGE);
            must(go_on(at("base"), DEVICES[k], &o, 1, &steps, &now, &e), &e);
            ck_assert_msg(steps.stage1 == 2 && steps.score == 8 && steps.students == 4, "%s after %s: %ld %ld %ld",
                          DEVICES[k], DEVICES[i], steps.stage1, steps.score, steps.students);
            must(go_on(at("fresh"), DEVICES[k], &o, 0, &steps, &fresh, &e), &e);
            ck_assert_msg(runs_same(at("base"), at("fresh"), &where), "%s after %s: %s", DEVICES[k], DEVICES[i], where);
            must(file_remove_tree(at("base"), &e), &e);
            must(file_remove_tree(at("fresh"), &e), &e);
        }
    must(file_remove(at("base/results.json"), &e), &e);
    must(backend_open(&be, "ref32", 2, &e), &e);
    must(pipeline_run(&o, at("base"), be, NULL, PIPELINE_ALL, &now, &e), &e);
    backend_close(be);
}
END_TEST

/* The key of plain cpu is that of runs from before backends counted. */
START_TEST(backend_keys) {
    ck_assert_uint_eq(fingerprint_backend(77, "cpu"), 77);
    ck_assert_uint_ne(fingerprint_backend(77, "cpu-bf16"), 77);
    ck_assert_uint_ne(fingerprint_backend(77, "cuda-bf16"), fingerprint_backend(77, "cuda"));
    ck_assert_uint_eq(fingerprint_backend(77, "cuda:1"), fingerprint_backend(77, "cuda"));
    ck_assert(backend_same("cuda:1", "cuda:0") && !backend_same("cpu", "cpu-bf16") &&
              !backend_same("cuda-emu", "cuda"));
}
END_TEST

/* A path counts by what lies there (inputs_hash), not by its spelling. */
START_TEST(paths) {
    const OptionTable *t = pipeline_table();
    PipelineOptions a, b;
    int n = 0;
    for (int i = 0; i < t->n; i++) {
        Err e = {0};
        if (t->row[i].kind != OPT_PATH && t->row[i].kind != OPT_PATHS) continue;
        n++;
        pipeline_defaults(&a);
        pipeline_defaults(&b);
        must(options_set(t, &a, t->row[i].key, "x/y", &e), &e);
        const int counts = (t->row[i].affects & AFFECTS_NUMBERS) != 0; // whether there is one
        ck_assert_int_eq(options_key(t, &a, AFFECTS_NUMBERS, 0) != options_key(t, &b, AFFECTS_NUMBERS, 0), counts);
        ck_assert_int_eq(options_differ(t, &a, &b, AFFECTS_NUMBERS) != NULL, counts);
        must(options_set(t, &b, t->row[i].key, "x/../x/y", &e), &e);
        ck_assert_uint_eq(options_key(t, &a, ~0u, 0), options_key(t, &b, ~0u, 0));
        ck_assert_ptr_null(options_differ(t, &a, &b, ~0u));
    }
    ck_assert_int_eq(n, 3); // teacher, text, student_init_ckpt
}
END_TEST

/* Every option of pretraining either is part of the key of its checkpoints or says that it changes no number. */
START_TEST(entries) {
    const OptionTable *tables[2] = {pipeline_table(), pretrain_table()};
    for (int k = 0; k < 2; k++) {
        Err e = {0};
        Option copy[256];
        OptionTable t = {copy, tables[k]->n};
        must(options_check(tables[k], &e), &e);
        ck_assert_int_le(t.n, 256);
        for (int i = 0; i < t.n; i++) { // an entry that is taken out is missed
            Err missing = {0};
            memcpy(copy, tables[k]->row, (size_t)t.n * sizeof *copy);
            copy[i].affects = 0;
            ck_assert_int_eq(options_check(&t, &missing), ERR_USAGE);
            ck_assert_ptr_nonnull(strstr(missing.msg, copy[i].key));
        }
    }
    for (int i = 0; i < N_CHANGES; i++) ck_assert_ptr_nonnull(options_find(pipeline_table(), CHANGES[i].key));
}
END_TEST

SUITE("options") {
    GROUP("run", .setup = setup, .teardown = teardown, .timeout = 300);
    CASE(every_option, .times = SETTINGS);
    CASE(other_files);
    CASE(devices);
    CASE(backend_keys);
    CASE(paths);
    CASE(entries);
}
