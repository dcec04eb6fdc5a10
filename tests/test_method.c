/* test_method.c - the recall game and its probe, option tables, pretraining, and the whole pipeline:
 * stopped, killed, resumed, refused. */
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/worker.h"
#include "io/hf.h"
#include "method/align.h"
#include "method/fit.h"
#include "method/transfer.h"
#include "run/merge.h"
#include "run/pipeline.h"
#include "selectors/selectors.h"
#include "run/pretrain.h"
#include "tiny.h"
#include "tests/suite.h"

static void setup(void) { tmpdir_begin(); }
static void teardown(void) { tmpdir_end(); }

/* ---------------------------------------------------------------- the recall game */

START_TEST(recall_rows) {
    int key[20], value[10], ids[64], target[64], scratch[40];
    float weight[64];
    for (int i = 0; i < 20; i++) key[i] = 100 + i;
    for (int i = 0; i < 10; i++) value[i] = 200 + i;
    for (int trial = 0; trial < 400; trial++) {
        const RecallSpec s = {key, value, 20, trial % 2 ? 10 : 0, !(trial % 2)};
        Rng r;
        rng_seed(&r, (uint64_t)trial);
        const int n = 1 + trial % 12, T = 2 * n + 3 + trial % 20;
        int asked = recall_row(&s, &r, n, T, ids, target, weight, scratch), count = 0, seen[300], is_key[300] = {0},
            is_value[300] = {0};
        memset(seen, -1, sizeof seen);
        for (int t = 0; t + 1 < T; t++) ck_assert_int_eq(ids[t + 1], target[t]);
        for (int t = 0; t < T; t += 2) {
            ck_assert_int_eq(weight[t] != 0, t >= 2 * n); // asked values are predicted at their keys, after the pairs
            if (t + 1 < T) ck_assert(weight[t + 1] == 0);
            count += weight[t] != 0;
            if (t < 2 * n) ck_assert_int_eq(seen[ids[t]], -1); // keys are distinct
            else ck_assert_int_eq(seen[ids[t]], target[t]);    // the value is the one of this key
            seen[ids[t]] = target[t];
            is_key[ids[t]] = 1;
            is_value[target[t]] = 1;
            ck_assert(s.disjoint ? target[t] < 120 : target[t] >= 200);
        }
        for (int i = 0; i < 300; i++) ck_assert(!(is_key[i] && is_value[i]));
        ck_assert_int_eq(asked, count);
    }
    Err few = {0}, twice = {0}, high = {0};
    const RecallSpec s = {key, value, 20, 10, 1};
    ck_assert_int_eq(recall_check(&s, 20, 256, &few), ERR_USAGE); // one must be left to be a value
    ck_assert_int_eq(recall_check(&s, 19, 256, NULL), OK);
    ck_assert_int_eq(recall_check(&s, 5, 110, &high), ERR_USAGE);
    key[3] = key[4];
    ck_assert_int_eq(recall_check(&s, 5, 256, &twice), ERR_USAGE);
}
END_TEST

/* "Models" whose answer is known: the head is the identity, and the hidden state points at an id. */
typedef struct {
    int right_until;
} Oracle;
static void oracle_forward(void *ctx, const Model *m, Pass *p) {
    const Oracle *o = ctx;
    double *h = (double *)p->h; // ref64: host memory
    const int C = m->c.C, T = p->T;
    for (int b = 0; b < p->B; b++)
        for (int t = 0; t < T; t++) {
            const int *row = p->ids + (size_t)b * T;
            int answer = 0, distance = 0;
            for (int i = 0; i < t; i++)
                if (row[i] == row[t] && i % 2 == 0) answer = row[i + 1], distance = t - i;
            if (distance > o->right_until) answer = 63;
            for (int c = 0; c < C; c++) h[((size_t)b * T + t) * C + c] = c == answer;
        }
}

START_TEST(recall_probe) {
    Backend *be;
    Model m;
    Recall r, same_r;
    Err e = {0};
    int key[40];
    double identity[64 * 64] = {0}, acc[2], again[2], mean;
    for (int i = 0; i < 40; i++) key[i] = i;
    for (int i = 0; i < 64; i++) identity[i * 65] = 1;
    Config c = tiny_config(1);
    c.C = 64;
    must(backend_open(&be, "ref64", 1, &e), &e);
    must(model_open(&m, &c, be, GRAD_NONE, &e), &e);
    must(model_init(&m, 1, 1, 1, 0, &e), &e);
    ParamInfo i;
    Param p;
    ck_assert(model_find(&m, "model.embeddings.weight", &i, &p));
    must(param_put(be, &i, &p, DT_F64, identity, &e), &e);
    const RecallSpec s = {key, NULL, 40, 0, 1};
    const int n[2] = {2, 16};
    must(recall_open(&r, &s, n, 2, 40, 8, 5, 64, &e), &e); // 40 rows: the second batch of 32 is not full
    Oracle all = {1000}, near = {8};
    must(recall_run(&r, &m, oracle_forward, &all, acc, &mean, &e), &e);
    ck_assert_double_eq(acc[0], 1);
    ck_assert_double_eq(acc[1], 1);
    ck_assert_double_eq(mean, 1);
    must(recall_run(&r, &m, oracle_forward, &near, acc, &mean, &e), &e);
    ck_assert_double_gt(acc[0], 0.8);
    ck_assert_double_lt(acc[1], 0.35);
    ck_assert_double_eq_tol(mean, (acc[0] + acc[1]) / 2, 1e-15);
    must(recall_run(&r, &m, NULL, NULL, acc, &mean, &e), &e); // a random model does not recall
    ck_assert_double_lt(acc[1], 0.3);
    must(recall_open(&same_r, &s, n, 2, 40, 8, 5, 64, &e), &e);
    must(recall_run(&same_r, &m, NULL, NULL, again, NULL, &e), &e);
    ck_assert_int_eq(memcmp(acc, again, sizeof acc), 0);
    recall_close(&r);
    recall_close(&same_r);
    model_close(&m);
    backend_close(be);
}
END_TEST

START_TEST(alphabets) {
    Tokenizer *t;
    int *ids, n;
    Err e = {0}, back = {0};
    must(tokenizer_byte(&t, &e), &e);
    must(recall_alphabet(&ids, &n, t, "a-cX-", &e), &e);
    ck_assert_int_eq(n, 5);
    const int want[5] = {'a', 'b', 'c', 'X', '-'};
    ck_assert_int_eq(memcmp(ids, want, sizeof want), 0);
    mem_free(ids);
    ck_assert_int_eq(recall_alphabet(&ids, &n, t, "z-a", &back), ERR_USAGE);
    ck_assert_ptr_null(ids);
    tokenizer_close(t);
}
END_TEST

/* ---------------------------------------------------------------- options */

START_TEST(options) {
    const OptionTable *t = pipeline_table();
    PipelineOptions o, p;
    Err e = {0};
    pipeline_defaults(&o);
    must(options_set(t, &o, "stage2.target_tokens", "600_000_000", &e), &e);
    ck_assert_int_eq(o.stage2.target_tokens, 600000000);
    must(options_set(t, &o, "stage2.lr", "7.0e-06", &e), &e);
    ck_assert_double_eq(o.stage2.optim.lr, 7e-6);
    must(options_set(t, &o, "kv_repeat", "row", &e), &e);
    ck_assert_int_eq(o.kv_repeat, KV_REPEAT_ROW);
    const struct {
        const char *key, *value, *says;
    } bad[] = {{"stage2.lrr", "1", "'stage2.lr'"},    {"lr_attn", "1", "lr_attn'"},
               {"stage1.batch_size", "0", "from 1"},  {"stage1.batch_size", "x", "integer"},
               {"stage2.lr", "nan", "number"},        {"stage1_loss", "cubed", "norm|squared"},
               {"add_eos", "maybe", "true or false"}, {"seed", "-1", "integer"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Err b = {0};
        p = o;
        ck_assert_int_eq(options_set(t, &p, bad[i].key, bad[i].value, &b), ERR_USAGE);
        ck_assert_msg(strstr(b.msg, bad[i].says) || strstr(b.hint, bad[i].says), "%s: %s (%s)", bad[i].key, b.msg,
                      b.hint);
    }
    // every key once, every default within its own limits, and the way through JSON keeps every value
    for (int i = 0; i < t->n; i++)
        for (int k = 0; k < i; k++) ck_assert_str_ne(t->row[i].key, t->row[k].key);
    JsonOut j;
    Json in;
    json_out_begin(&j, 1);
    json_out_object(&j, NULL);
    options_write(t, &o, &j);
    json_out_close(&j);
    must(json_out_end(&j, &e), &e);
    must(json_parse(&in, j.text, j.len, "o.json", &e), &e);
    pipeline_defaults(&p);
    p.stage2.optim.lr = 1;
    must(options_read(t, &p, &in, 0, "o.json", &e), &e);
    ck_assert_ptr_null(options_differ(t, &o, &p, AFFECTS_NUMBERS));
    ck_assert_uint_eq(options_key(t, &o, AFFECTS_NUMBERS, 0), options_key(t, &p, AFFECTS_NUMBERS, 0));
    p.keep_last++;
    ck_assert_uint_eq(options_key(t, &o, AFFECTS_NUMBERS, 0), options_key(t, &p, AFFECTS_NUMBERS, 0)); // cosmetic
    p.seed++;
    ck_assert_uint_ne(options_key(t, &o, AFFECTS_NUMBERS, 0), options_key(t, &p, AFFECTS_NUMBERS, 0));
    ck_assert_str_eq(options_differ(t, &o, &p, AFFECTS_NUMBERS)->key, "seed");
    json_free(&in);
    json_out_free(&j);
    const char *list = "{\"keep_full_attention_layers\": [3, 7], \"stage1\": {\"steps\": 9}}",
               *typo = "{\"stage1\": {\"step\": 9}}";
    must(json_parse(&in, list, strlen(list), "l.json", &e), &e);
    must(options_read(t, &p, &in, 0, "l.json", &e), &e);
    ck_assert_str_eq(p.keep_full_attention_layers, "3,7");
    ck_assert_int_eq(p.stage1.steps, 9);
    json_free(&in);
    Err te = {0};
    must(json_parse(&in, typo, strlen(typo), "t.json", &e), &e);
    ck_assert_int_eq(options_read(t, &p, &in, 0, "t.json", &te), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(te.msg, "t.json"));
    ck_assert_ptr_nonnull(strstr(te.hint, "stage1.steps"));
    json_free(&in);
}
END_TEST

START_TEST(official_options) { // ref/METHOD.md 4, 9
    PipelineOptions o;
    pipeline_defaults(&o);
    pipeline_official(&o);
    ck_assert_int_eq(stage_steps(&o.stage1), 2034);
    ck_assert_int_eq(stage_steps(&o.stage2), 4577);
    ck_assert_int_eq(stage_steps(&o.score), 4577);
    ck_assert_int_eq(o.kv_repeat, KV_REPEAT_ROW);
    ck_assert_int_eq(o.document_boundaries + o.add_eos + o.keep_biases, 0);
    ck_assert(o.stage2.optim.official_groups && o.official_score && o.stage2.optim.schedule.kind == SCHEDULE_CONSTANT);
    ck_assert_double_eq(o.stage2.optim.lr_attn / o.stage2.optim.lr, 1e-4 / 7e-6);
}
END_TEST

/* ---------------------------------------------------------------- pretraining */

static void text_file(const char *path, size_t n) {
    static const char *const word[] = {"the ",    "king ", "and ",  "queen ", "of ",
                                       "night, ", "who ",  "came ", "to ",    "rest.\n"};
    char *text = malloc(n + 16);
    ck_assert_ptr_nonnull(text);
    size_t at = 0;
    Rng r;
    rng_seed(&r, 4);
    while (at < n) at += (size_t)snprintf(text + at, n + 16 - at, "%s", word[rng_below(&r, 10)]);
    Err e = {0};
    must(file_write_all(path, text, n, &e), &e);
    free(text);
}

static void pretrain_small(PretrainOptions *o) {
    pretrain_defaults(o);
    o->hidden_size = 16;
    o->num_hidden_layers = 3;
    o->num_attention_heads = o->num_key_value_heads = 2;
    o->intermediate_size = 24;
    o->stage.steps = 14;
    o->stage.optim.lr = o->stage.optim.lr_attn = 1e-2;
    o->stage.optim.schedule.warmup = 2;
    o->eval_every = 6;
    o->log_every = 5;
    o->level[0] =
        (PretrainLevel){.T = 12, .n_min = 1, .n_max = 3, .recall_rows = 6, .threshold = 2, .max_steps = 4, .layers = 2};
    o->level[1] = (PretrainLevel){
        .T = 16, .n_min = 2, .n_max = 4, .text_rows = 3, .recall_rows = 2, .threshold = -1, .min_steps = 5};
    o->level[2] = (PretrainLevel){.T = 20, .text_rows = 4, .threshold = 2};
    snprintf(o->recall_n, sizeof o->recall_n, "2,4");
}

typedef struct {
    volatile int stop;
    long at, steps;
} Stop;
static void stop_report(void *ctx, const ProgressLine *line) {
    Stop *s = ctx;
    s->steps++;
    if (s->at && line->step == s->at) s->stop = SIGINT;
}

static int pretrain_run(const char *dir, const char *log, int threads, Stop *stop, unsigned char **weights, size_t *n,
                        double *last, Err *e) {
    Backend *be;
    Tokenizer *t;
    Dataset d;
    Model m;
    Config c;
    Pretrain p;
    PretrainOptions o;
    TrainResult r;
    Progress progress = {stop_report, stop};
    const char *shard = place("p.tok");
    must(tokenizer_byte(&t, e), e);
    if (!file_exists(shard)) {
        const ShardOptions so = {.add_eos = -1};
        text_file(place("p.txt"), 6000);
        must(shard_write(shard, place("p.txt"), t, &so, NULL, e), e);
    }
    must(dataset_open(&d, &shard, 1, e), e);
    must(backend_open(&be, "cpu", threads, e), e);
    pretrain_small(&o);
    must(pretrain_config(&c, &o, tokenizer_size(t), e), e);
    must(model_open(&m, &c, be, GRAD_ALL, e), e);
    must(model_init(&m, o.seed, o.embed_std, o.gain, 0, e), e);
    must(pretrain_open(&p, &m, &d, t, &o, e), e);
    const Task task = pretrain_task(&p);
    TrainOptions train = pretrain_train_options(&p);
    train.dir = dir;
    train.log_path = log;
    train.stop = &stop->stop;
    train.progress = &progress;
    const int rc = train_run(&task, &train, &r, e);
    if (last) *last = r.loss;
    if (weights) *weights = tiny_dump(&m, n);
    pretrain_close(&p);
    model_close(&m);
    backend_close(be);
    dataset_close(&d);
    tokenizer_close(t);
    return rc;
}

/* Text of a file with every number that follows one of the time keys blanked. */
static char *without_times(const char *path) {
    static const char *const key[] = {
        "\"time\":", "\"tok_per_s\":", "\"seconds\":", "\"select_seconds\":", "\"peak_bytes\":", "\"started\":"};
    File f;
    Err e = {0};
    must(file_open(&f, path, &e), &e);
    char *out = malloc(f.size + 1);
    ck_assert_ptr_nonnull(out);
    size_t n = 0;
    for (size_t i = 0; i < f.size;) {
        for (size_t k = 0; k < sizeof key / sizeof *key; k++)
            if (f.size - i > strlen(key[k]) && !memcmp(f.data + i, key[k], strlen(key[k])))
                while (i < f.size && f.data[i] != ',' && f.data[i] != '\n' && f.data[i] != '}') i++;
        out[n++] = (char)f.data[i++];
    }
    out[n] = 0;
    file_close(&f);
    return out;
}
static void same_file(const char *a, const char *b) {
    char *x = without_times(a), *y = without_times(b);
    size_t i = 0;
    while (x[i] && x[i] == y[i]) i++;
    const size_t from = i < 80 ? 0 : i - 80;
    ck_assert_msg(!x[i] && !y[i], "%s and %s differ: %.160s\n%.160s", a, b, x + from,
                  y + (strlen(y) < from ? 0 : from));
    free(x);
    free(y);
}

START_TEST(pretrain_levels_resume) {
    Err e = {0}, stop = {0};
    unsigned char *a, *b;
    size_t n, m;
    double la, lb;
    Stop none = {0}, first = {.at = 3}, second = {.at = 8};
    must(pretrain_run(place("a"), place("a.jsonl"), 1, &none, &a, &n, &la, &e), &e);
    ck_assert_int_eq(none.steps, 14);
    // stopped in the first level, in the second, then to the end, with other thread counts
    ck_assert_int_eq(pretrain_run(place("b"), place("b.jsonl"), 2, &first, NULL, NULL, NULL, &stop), ERR_SIGINT);
    Err stop2 = {0};
    ck_assert_int_eq(pretrain_run(place("b"), place("b.jsonl"), 1, &second, NULL, NULL, NULL, &stop2), ERR_SIGINT);
    Stop last = {0};
    must(pretrain_run(place("b"), place("b.jsonl"), 2, &last, &b, &m, &lb, &e), &e);
    ck_assert_int_eq(last.steps, 6);
    ck_assert_uint_eq(n, m);
    ck_assert_int_eq(memcmp(a, b, n), 0);
    ck_assert_double_eq(la, lb);
    same_file(place("a.jsonl"), place("b.jsonl"));
    char *log = without_times(place("a.jsonl"));
    ck_assert_ptr_nonnull(strstr(log, "\"level\":2"));
    ck_assert_ptr_nonnull(strstr(log, "\"eval_recall\":{\"2\":"));
    free(log);
    mem_free(a);
    mem_free(b);
    PretrainOptions o;
    Err levels = {0};
    pretrain_small(&o);
    o.level[1].n_max = 8; // 2 * 8 pairs do not leave a query in 16 tokens
    ck_assert_int_eq(pretrain_check(&o, &levels), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(levels.msg, "level1"));
}
END_TEST

/* Text loss falls well below that of guessing among the bytes of the text. */
START_TEST(pretrain_learns_text) {
    Backend *be;
    Tokenizer *t;
    Dataset d;
    Model m;
    Config c;
    Pretrain p;
    PretrainOptions o;
    TrainResult r;
    Err e = {0};
    double before, after, acc[RECALL_MAX_N];
    const char *shard = place("p.tok");
    const ShardOptions so = {.add_eos = -1};
    must(tokenizer_byte(&t, &e), &e);
    text_file(place("p.txt"), 6000);
    must(shard_write(shard, place("p.txt"), t, &so, NULL, &e), &e);
    must(dataset_open(&d, &shard, 1, &e), &e);
    must(backend_open(&be, "cpu", 2, &e), &e);
    pretrain_small(&o);
    o.stage.steps = 60;
    o.levels = 1;
    o.level[0] = (PretrainLevel){.T = 32, .text_rows = 8, .threshold = 2};
    must(pretrain_config(&c, &o, 256, &e), &e);
    must(model_open(&m, &c, be, GRAD_ALL, &e), &e);
    must(model_init(&m, o.seed, o.embed_std, o.gain, 0, &e), &e);
    must(pretrain_open(&p, &m, &d, t, &o, &e), &e);
    must(pretrain_evaluate(&p, &before, acc, &e), &e);
    const Task task = pretrain_task(&p);
    const TrainOptions train = pretrain_train_options(&p);
    must(train_run(&task, &train, &r, &e), &e);
    must(pretrain_evaluate(&p, &after, acc, &e), &e);
    ck_assert_double_gt(before, 5);
    ck_assert_double_lt(after, 2.5);
    pretrain_close(&p);
    model_close(&m);
    backend_close(be);
    dataset_close(&d);
    tokenizer_close(t);
}
END_TEST

/* ---------------------------------------------------------------- the pipeline */

static void teacher_dir(const char *dir) {
    Backend *be;
    Model m;
    Err e = {0};
    char *json, path[700];
    size_t n;
    Config c = tiny_config(3);
    c.VOC = 256;
    c.tied = 0;
    c.dtype = DT_F32;
    must(backend_open(&be, "ref32", 1, &e), &e);
    must(model_open(&m, &c, be, GRAD_NONE, &e), &e);
    must(model_init(&m, 3, 1, 1.5, 0, &e), &e);
    must(tokenizer_byte_json(&json, &n, &e), &e);
    must(file_mkdirs(place("tok"), &e), &e);
    must(file_write_all(place("tok/tokenizer.json"), json, n, &e), &e);
    mem_free(json);
    snprintf(path, sizeof path, "%s/tok", tmpdir);
    const HfSaveOptions o = {.format = "hf", .dtype = DT_F32, .tokenizer_from = path};
    must(hf_save(&m, dir, &o, NULL, 0, &e), &e);
    model_close(&m);
    backend_close(be);
}

static void pipeline_small(PipelineOptions *o) {
    pipeline_defaults(o);
    snprintf(o->teacher, sizeof o->teacher, "%s/teacher", tmpdir);
    snprintf(o->text, sizeof o->text, "%s/text.txt", tmpdir);
    StageOptions *stage[4] = {&o->stage1, &o->score, &o->stage2, &o->stage3};
    for (int i = 0; i < 4; i++) {
        stage[i]->steps = 4;
        stage[i]->batch_size = 2;
        stage[i]->micro_batch_size = 1 + i % 2;
        stage[i]->train_seq_len = 16;
    }
    o->eval_every = 2;
    o->eval_batches = 3;
    o->save_every = 2;
    o->log_every = 2;
    o->k = 1;
    snprintf(o->students, sizeof o->students, "none,uniform,random,ablation,explicit");
    snprintf(o->keep_full_attention_layers, sizeof o->keep_full_attention_layers, "2,0");
    snprintf(o->recall_keys, sizeof o->recall_keys, "a-z");
    snprintf(o->recall_n, sizeof o->recall_n, "2,4");
    o->recall_rows = 8;
    o->cache_mb = 1;
}

static void pipeline_inputs(void) {
    if (file_exists(place("text.txt"))) return;
    text_file(place("text.txt"), 4000);
    teacher_dir(place("teacher"));
}

typedef struct {
    char said[4000];
} Notes;
static void notes_add(void *ctx, const char *line) {
    Notes *n = ctx;
    const size_t at = strlen(n->said);
    snprintf(n->said + at, sizeof n->said - at, "%s\n", line);
}

static PipelineResult r1, r2;

static int pipeline_go(const char *dir, int threads, const PipelineOptions *o, Stop *stop, Notes *notes,
                       PipelineResult *r, Err *e) {
    Backend *be;
    Progress progress = {stop_report, stop};
    const PipelineHooks h = {
        .progress = &progress, .stop = &stop->stop, .note = notes_add, .ctx = notes, .version = "test"};
    must(backend_open(&be, "cpu", threads, e), e);
    memset(notes, 0, sizeof *notes);
    const int rc = pipeline_run(o, dir, be, &h, PIPELINE_ALL, r, e);
    backend_close(be);
    return rc;
}

static const char *const OUTPUTS[] = {
    "log.jsonl", "ranking.json", "trajectory.csv", "results.json", "model/model.safetensors", "model/config.json"};

static void same_runs(const char *a, const char *b) {
    for (size_t i = 0; i < sizeof OUTPUTS / sizeof *OUTPUTS; i++) {
        char x[64], y[64];
        snprintf(x, sizeof x, "%s/%s", a, OUTPUTS[i]);
        snprintf(y, sizeof y, "%s/%s", b, OUTPUTS[i]);
        same_file(place(x), place(y));
    }
}

START_TEST(pipeline_whole) {
    PipelineOptions o;
    Err e = {0};
    Stop go = {0}, go2 = {0};
    Notes notes;
    pipeline_inputs();
    pipeline_small(&o);
    must(pipeline_go(place("a"), 1, &o, &go, &notes, &r1, &e), &e);
    ck_assert_int_eq(r1.rows, 8); // teacher, stage1, ga_s2, none, uniform, random, ablation, explicit
    ck_assert_int_eq(r1.L, 3);
    ck_assert_int_eq(r1.K, 1);
    ck_assert_int_eq(r1.n_n, 2);
    ck_assert_double_eq_tol(r1.row[0].held.kl, 0, 1e-6); // the teacher against itself
    ck_assert_int_eq(r1.row[0].K, 3);
    ck_assert_int_eq(r1.row[1].K, 0);
    ck_assert_str_eq(r1.row[2].name, "ga_s2");
    ck_assert_int_eq(r1.row[2].K, 1);
    ck_assert_str_eq(r1.row[3].name, "none");
    ck_assert_int_eq(r1.row[3].K, 0);
    ck_assert_double_lt(r1.row[3].held.kl, r1.row[1].held.kl); // stage 2 went on from the stage-1 student
    ck_assert(r1.row[4].keep[0] && r1.row[7].keep[0] && r1.row[7].keep[2]);
    for (int i = 2; i < r1.rows; i++) {
        ck_assert_int_eq(r1.row[i].tokens, 2 * 4 * 2 * 16);
        ck_assert_uint_gt(r1.row[i].counted_bytes, 0);
    }
    // the saved model is the main student: same held-out loss
    Backend *be;
    HfModel h;
    must(backend_open(&be, "cpu", 1, &e), &e);
    must(hf_open(&h, place("a/model"), &e), &e);
    for (int l = 0; l < 3; l++) ck_assert_int_eq(!h.config.mixer[l], r1.row[2].keep[l]);
    hf_close(&h);
    backend_close(be);
    // again: says so, changes nothing
    char *before = without_times(place("a/log.jsonl"));
    must(pipeline_go(place("a"), 1, &o, &go2, &notes, &r2, &e), &e);
    ck_assert_int_eq(go2.steps, 0);
    ck_assert_int_eq(r2.finished_before, 1);
    ck_assert_ptr_nonnull(strstr(notes.said, "finished"));
    ck_assert_int_eq(r2.rows, 8);
    ck_assert_int_eq(memcmp(&r1.row[2].held.kl, &r2.row[2].held.kl, sizeof(double)), 0);
    char *after = without_times(place("a/log.jsonl"));
    ck_assert_str_eq(before, after);
    free(before);
    free(after);
    // other options: refused by name
    Err other = {0}, twice = {0}, unknown = {0};
    snprintf(o.students, sizeof o.students, "none,uniform,none");
    ck_assert_int_eq(pipeline_check(&o, &twice), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(twice.msg, "'none' is there twice"));
    snprintf(o.students, sizeof o.students, "none,nun");
    ck_assert_int_eq(pipeline_check(&o, &unknown), ERR_USAGE);
    pipeline_small(&o);
    o.stage2.optim.lr *= 2;
    ck_assert_int_eq(pipeline_go(place("a"), 1, &o, &go2, &notes, &r2, &other), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(other.msg, "stage2.lr"));
    // another text: refused
    Err text = {0};
    pipeline_small(&o);
    must(file_remove(place("a/results.json"), &e), &e);
    text_file(place("text.txt"), 4100);
    ck_assert_int_eq(pipeline_go(place("a"), 1, &o, &go2, &notes, &r2, &text), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(text.msg, "changed"));
    // ranking.json reads back
    static LayerScore s[MAX_LAYERS];
    int L;
    must(ranking_read(s, &L, place("a"), &e), &e);
    ck_assert_int_eq(L, 3);
    for (int l = 0; l < 3; l++) ck_assert_int_eq(s[l].rank == 1, r1.row[2].keep[l]);
}
END_TEST

/* save_students: students/NAME is what model/ is where that selector is the main one; a lost one is made again. */
START_TEST(pipeline_saves_students) {
    PipelineOptions o;
    Err e = {0};
    Stop go = {0};
    Notes notes;
    pipeline_inputs();
    pipeline_small(&o);
    o.save_students = 1;
    snprintf(o.selector, sizeof o.selector, "uniform");
    snprintf(o.students, sizeof o.students, "none,explicit");
    must(pipeline_go(place("all"), 1, &o, &go, &notes, &r1, &e), &e);
    snprintf(o.selector, sizeof o.selector, "explicit");
    o.students[0] = 0;
    o.save_students = 0;
    must(pipeline_go(place("one"), 1, &o, &go, &notes, &r1, &e), &e);
    same_file(place("all/students/explicit/model.safetensors"), place("one/model/model.safetensors"));
    same_file(place("all/students/explicit/config.json"), place("one/model/config.json"));
    ck_assert(file_exists(place("all/students/none/model.safetensors")));
    ck_assert(!file_exists(place("all/students/uniform")) && !file_exists(place("one/students")));
    must(file_remove(place("all/results.json"), &e), &e);
    must(file_remove_tree(place("all/students/none"), &e), &e);
    must(file_remove(place("all/checkpoints/models/none.json"), &e), &e);
    snprintf(o.selector, sizeof o.selector, "uniform");
    snprintf(o.students, sizeof o.students, "none,explicit");
    o.save_students = 1;
    must(pipeline_go(place("all"), 1, &o, &go, &notes, &r1, &e), &e);
    ck_assert(strstr(notes.said, "stage 2: none") && !strstr(notes.said, "stage 2: explicit"));
    ck_assert(file_exists(place("all/students/none/model.safetensors")));
}
END_TEST

/* Every selector by its name, on mixed scoring data with early stopping; rows are read back, not made again;
 * K from memory. */
START_TEST(pipeline_selectors) {
    static const char all[] = "gr_s2,avg_s2,ga_s1,gr_s1,avg_s1,distance,ppl,act_mse,smart,swap,swap_remove,path_gates,"
                              "swap_greedy,gates_greedy,"
                              "ga_s2_greedy,trunk_s2,exhaustive,ablation,ga_s2";
    PipelineOptions o;
    Err e = {0};
    Stop go = {0};
    Notes notes;
    LayerScore *s = malloc(MAX_LAYERS * sizeof *s);
    int L;
    pipeline_inputs();
    pipeline_small(&o);
    ck_assert_ptr_nonnull(s);
    snprintf(o.selector, sizeof o.selector, "gates");
    snprintf(o.students, sizeof o.students, "%s", all);
    o.score_mix = 0.5;
    o.early_stop_r = 2;
    o.halving_z = 3;
    o.k = -1;
    o.memory_context = 1000; // softmax 2*2*4*4*1000 bytes, linear 4*4*4*4
    o.memory_budget_mb = (64000 + 2 * 256) / 1048576.0;
    must(pipeline_go(place("a"), 1, &o, &go, &notes, &r1, &e), &e);
    ck_assert_int_eq(r1.K, 1);
    ck_assert_int_eq(r1.rows, 2 + 20);
    for (int i = 3; i < r1.rows; i++) {
        char path[128];
        const Selector *selector = selector_find(r1.row[i].name);
        ck_assert_ptr_nonnull(selector);
        if (!selector->score) continue; // a layout, or GA-S2's own rows
        snprintf(path, sizeof path, "a/rankings/%s", r1.row[i].name);
        must(ranking_read(s, &L, place(path), &e), &e);
        ck_assert_int_eq(L, 3);
        if (strcmp(r1.row[i].name, "smart"))
            for (int l = 0; l < L; l++) ck_assert_int_eq(s[l].rank == 1, r1.row[i].keep[l]);
    }
    must(ranking_read(s, &L, place("a"), &e), &e);
    ck_assert_int_eq(s[0].heads, 4);
    ck_assert(file_exists(place("a/agreement.csv")) && file_exists(place("a/budget.csv")));
    must(file_remove(place("a/results.json"), &e), &e);
    const long steps = go.steps;
    must(pipeline_go(place("a"), 1, &o, &go, &notes, &r2, &e), &e);
    ck_assert_int_eq(go.steps, steps); // nothing was trained again
    ck_assert_ptr_null(strstr(notes.said, "scoring by"));
    for (int i = 0; i < r1.rows; i++)
        ck_assert_int_eq(memcmp(r1.row[i].keep, r2.row[i].keep, sizeof r1.row[i].keep), 0);
    // a budget by costs: only layer 1 may be softmax
    o.memory_budget_mb = 0;
    o.cost_budget = 5;
    snprintf(o.layer_costs, sizeof o.layer_costs, "4:1,2:1,4:1");
    o.students[0] = 0;
    must(pipeline_go(place("b"), 1, &o, &go, &notes, &r2, &e), &e);
    ck_assert(!r2.row[2].keep[0] && r2.row[2].keep[1] && !r2.row[2].keep[2]);
    Err bad = {0}, unknown = {0};
    o.layer_costs[0] = 0;
    ck_assert_int_eq(pipeline_check(&o, &bad), ERR_USAGE);
    snprintf(o.selector, sizeof o.selector, "gatez");
    ck_assert_int_eq(pipeline_check(&o, &unknown), ERR_USAGE);
    free(s);
}
END_TEST

START_TEST(pipeline_resumes_anywhere) {
    PipelineOptions o;
    Err e = {0};
    Stop go = {0};
    Notes notes;
    pipeline_inputs();
    pipeline_small(&o);
    snprintf(o.students, sizeof o.students, "none");
    must(pipeline_go(place("a"), 1, &o, &go, &notes, &r1, &e), &e);
    // stopped again and again, each time a few steps later, with one and two threads in turn
    for (int i = 0, done = 0; !done; i++) {
        Err stop = {0};
        Stop s = {.at = 1 + i % 4};
        ck_assert_int_lt(i, 60);
        const int rc = pipeline_go(place("b"), 1 + i % 2, &o, &s, &notes, &r2, &stop);
        done = rc == OK;
        if (rc) ck_assert_msg(rc == ERR_SIGINT, "%d %s", rc, stop.msg);
    }
    same_runs("a", "b");
    // killed at a random I/O call, once or twice
    const long before = file_io_calls();
    Stop whole = {0};
    must(pipeline_go(place("c"), 1, &o, &whole, &notes, &r2, &e), &e);
    const long calls = file_io_calls() - before;
    Rng rng;
    rng_seed(&rng, 2);
    for (int i = 0; i < 5; i++) {
        char dir[16];
        snprintf(dir, sizeof dir, "k%d", i);
        for (int kill = 0; kill < 1 + i % 2; kill++) {
            char at[24];
            snprintf(at, sizeof at, "%ld", file_io_calls() + 1 + (long)rng_below(&rng, (uint64_t)calls * 9 / 10));
            const pid_t child = fork();
            if (!child) {
                Err ce = {0};
                Stop s = {0};
                setenv("HYBRIDIZE_KILL_IO", at, 1);
                pipeline_go(place(dir), 1, &o, &s, &notes, &r2, &ce);
                _exit(9);
            }
            int status;
            ck_assert_int_eq(waitpid(child, &status, 0), child);
            ck_assert(WIFSIGNALED(status) || kill);
        }
        Stop s = {0};
        must(pipeline_go(place(dir), 1, &o, &s, &notes, &r2, &e), &e);
        same_runs("a", dir);
    }
}
END_TEST

static int text_order(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The rows of a log in the order of their text: processes that share a run write them as they come. */
static char *rows_sorted(const char *path) {
    char *text = without_times(path), *copy = strdup(text), *row[2000], *save = NULL;
    size_t n = 0, at = 0;
    const size_t room = strlen(text) + 1;
    ck_assert_ptr_nonnull(copy);
    for (char *s = strtok_r(copy, "\n", &save); s && n < 2000; s = strtok_r(NULL, "\n", &save)) row[n++] = s;
    qsort(row, n, sizeof *row, text_order);
    for (size_t i = 0; i < n; i++) at += (size_t)snprintf(text + at, room - at, "%s\n", row[i]);
    free(copy);
    return text;
}

static pid_t pipeline_child(const char *dir, const PipelineOptions *o, long kill_at) {
    const pid_t pid = fork();
    if (pid) return pid;
    Err e = {0};
    Stop s = {0};
    Notes notes;
    if (kill_at) {
        char at[24];
        snprintf(at, sizeof at, "%ld", file_io_calls() + kill_at);
        setenv("HYBRIDIZE_KILL_IO", at, 1);
    }
    const int rc = pipeline_go(place(dir), 1, o, &s, &notes, &r2, &e);
    if (rc) fprintf(stderr, "%s\n", e.msg);
    char line[24];
    snprintf(line, sizeof line, "%ld\n", s.steps);
    _exit(rc ? rc : file_append(place("steps"), line, strlen(line), &e));
}

/* Four processes on one directory leave what one leaves, also when two of them are killed on the way. */
START_TEST(pipeline_shared) {
    static const char *const same[] = {"ranking.json",      "trajectory.csv", "model/model.safetensors",
                                       "model/config.json", "agreement.csv",  "budget.csv"};
    PipelineOptions o;
    Err e = {0};
    Stop go = {0};
    Notes notes;
    Rng rng;
    pipeline_inputs();
    pipeline_small(&o);
    snprintf(o.students, sizeof o.students, "none,uniform,random,exhaustive,gates,gr_s2,trunk_s2");
    const long before = file_io_calls();
    must(pipeline_go(place("a"), 1, &o, &go, &notes, &r1, &e), &e);
    const long calls = file_io_calls() - before;
    char *rows = rows_sorted(place("a/log.jsonl"));
    rng_seed(&rng, 5);
    for (int round = 0; round < 6; round++) {
        char dir[16], x[64], y[64];
        int status, ends = 0;
        snprintf(dir, sizeof dir, "s%d", round);
        for (int k = 0; k < 4; k++)
            pipeline_child(dir, &o, k < 2 && round ? 1 + (long)rng_below(&rng, (uint64_t)calls / 2) : 0);
        while (wait(&status) > 0) {
            ends += WIFEXITED(status) && !WEXITSTATUS(status);
            ck_assert_msg(!WIFEXITED(status) || !WEXITSTATUS(status), "round %d: exit code %d", round,
                          WEXITSTATUS(status));
        }
        ck_assert_int_ge(ends, 2);
        if (!round) { // no step was made twice (by how many processes is a matter of who comes first)
            long steps[4], sum = 0;
            char *text = without_times(place("steps"));
            ck_assert_int_eq(sscanf(text, "%ld%ld%ld%ld", &steps[0], &steps[1], &steps[2], &steps[3]), 4);
            for (int k = 0; k < 4; k++) sum += steps[k];
            ck_assert_int_eq(sum, go.steps);
            free(text);
        }
        for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
            snprintf(x, sizeof x, "a/%s", same[i]);
            snprintf(y, sizeof y, "%s/%s", dir, same[i]);
            same_file(place(x), place(y));
        }
        snprintf(y, sizeof y, "%s/log.jsonl", dir);
        char *shared = rows_sorted(place(y));
        ck_assert_str_eq(rows, shared);
        free(shared);
        must(pipeline_results_read(&r2, place(dir), &e), &e);
        ck_assert_int_eq(r1.rows, r2.rows);
        for (int i = 0; i < r1.rows; i++) {
            ck_assert_str_eq(r1.row[i].name, r2.row[i].name);
            ck_assert_int_eq(memcmp(&r1.row[i].held, &r2.row[i].held, sizeof r1.row[i].held), 0);
        }
        must(file_remove_tree(place(dir), &e), &e);
    }
    free(rows);
}
END_TEST

/* Nobody's options change under a process that is at work. */
START_TEST(pipeline_shared_refusals) {
    PipelineOptions o;
    Err e = {0}, busy = {0}, other = {0};
    Notes notes = {0};
    Stop go = {0};
    Worker *w;
    pipeline_inputs();
    pipeline_small(&o);
    o.students[0] = 0;
    must(pipeline_go(place("a"), 1, &o, &go, &notes, &r1, &e), &e);
    const pid_t child = fork();
    if (!child) {
        if (worker_open(&w, place("a"), &e) || file_write_all(place("there"), "", 0, &e)) _exit(1);
        for (;;) pause();
    }
    while (!file_exists(place("there"))) usleep(10000);
    Backend *be;
    const PipelineHooks h = {.allow_config_change = 1, .version = "test"};
    must(backend_open(&be, "cpu", 1, &e), &e);
    o.stage2.optim.lr *= 2;
    ck_assert_int_eq(pipeline_run(&o, place("a"), be, &h, PIPELINE_ALL, &r2, &busy), ERR_USAGE);
    ck_assert_msg(strstr(busy.msg, "is at work here"), "%s", busy.msg);
    ck_assert_int_eq(pipeline_run(&o, place("a"), be, NULL, PIPELINE_ALL, &r2, &other), ERR_USAGE);
    ck_assert_msg(strstr(other.msg, "stage2.lr"), "%s", other.msg);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    must(pipeline_run(&o, place("a"), be, &h, PIPELINE_ALL, &r2, &e), &e);
    backend_close(be);
}
END_TEST

static int pieces_score(const char *dir, const PipelineOptions *o, int piece, int pieces, Stop *steps, Err *e) {
    Backend *be;
    const Progress progress = {stop_report, steps};
    const PipelineHooks h = {.progress = &progress, .piece = piece, .pieces = pieces, .version = "test"};
    must(backend_open(&be, "cpu", 1, e), e);
    const int rc = pipeline_run(o, place(dir), be, &h, PIPELINE_SCORE, NULL, e);
    backend_close(be);
    return rc;
}

/* Machines that share no folder: aligned once, copied, scored in pieces, merged. */
START_TEST(pipeline_pieces) {
    PipelineOptions o;
    Err e = {0}, other = {0}, race = {0}, none = {0};
    Stop whole = {0}, first = {0}, second = {0}, rest = {0}, aligned = {0};
    Backend *be;
    const Progress progress = {stop_report, &aligned};
    const PipelineHooks h = {.progress = &progress, .version = "test"};
    char command[1500];
    int taken;
    pipeline_inputs();
    pipeline_small(&o);
    must(backend_open(&be, "cpu", 1, &e), &e);
    must(pipeline_run(&o, place("a"), be, &h, PIPELINE_ALIGN, NULL, &e), &e);
    backend_close(be);
    snprintf(command, sizeof command, "cp -r %s %s && cp -r %s %s", place("a"), place("b"), place("a"), place("c"));
    ck_assert_int_eq(system(command), 0);
    must(pieces_score("a", &o, 0, 0, &whole, &e), &e);
    must(pieces_score("b", &o, 0, 2, &first, &e), &e);
    ck_assert_int_eq(file_exists(place("b/ranking.json")), 0);
    must(pieces_score("c", &o, 1, 2, &second, &e), &e);
    ck_assert_int_eq(first.steps + second.steps, whole.steps);
    ck_assert(first.steps > second.steps && second.steps > 0); // layers 0 and 2, and layer 1
    must(run_merge(place("b"), place("c"), &taken, &e), &e);
    ck_assert_int_eq(taken, 1);
    must(pieces_score("b", &o, 0, 0, &rest, &e), &e);
    ck_assert_int_eq(rest.steps, 0);
    same_file(place("a/ranking.json"), place("b/ranking.json"));
    same_file(place("a/trajectory.csv"), place("b/trajectory.csv"));
    must(run_merge(place("b"), place("c"), &taken, &e), &e);
    ck_assert_int_eq(taken, 0);
    // what does not belong together stays apart
    ck_assert_int_eq(run_merge(place("b"), place("nothing"), &taken, &none), ERR_USAGE);
    ck_assert_msg(strstr(none.msg, "run.json is not there"), "%s", none.msg);
    o.score.steps++;
    must(pieces_score("d", &o, 0, 2, &rest, &e), &e);
    ck_assert_int_eq(run_merge(place("b"), place("d"), &taken, &other), ERR_USAGE);
    ck_assert_msg(strstr(other.msg, "score.steps"), "%s", other.msg);
    o.early_stop_r = 2;
    ck_assert_int_eq(pieces_score("e", &o, 0, 2, &rest, &race), ERR_USAGE);
}
END_TEST

/* Every allocation fails once: exit code 5 and no crash (leaks are the sanitizer's business), and the run can go on. */
START_TEST(pipeline_init_resumes) { // a fitted start: once, before the first step, whatever stops the run
    PipelineOptions o;
    Err e = {0}, other = {0}, ckpt = {0}, swa = {0};
    Stop go = {0};
    Notes notes;
    pipeline_inputs();
    pipeline_small(&o);
    snprintf(o.students, sizeof o.students, "none");
    snprintf(o.selector, sizeof o.selector, "uniform");
    must(pipeline_go(place("plain"), 1, &o, &go, &notes, &r2, &e), &e);
    ck_assert(!file_exists(place("plain/start.csv")));
    o.init = START_FIT;
    o.init_tokens = 100;
    must(pipeline_go(place("a"), 1, &o, &go, &notes, &r1, &e), &e);
    ck_assert_ptr_nonnull(strstr(notes.said, "start: 112 tokens read"));
    ck_assert_double_ne(r1.row[1].held.kl, r2.row[1].held.kl);
    // stopped in the first step and in every later one
    for (int i = 0, done = 0; !done; i++) {
        Err stop = {0};
        Stop s = {.at = 1 + i % 3};
        ck_assert_int_lt(i, 60);
        if (!i) s.stop = SIGINT; // before anything
        const int rc = pipeline_go(place("b"), 1 + i % 2, &o, &s, &notes, &r2, &stop);
        done = rc == OK;
        if (rc) ck_assert_msg(rc == ERR_SIGINT, "%d %s", rc, stop.msg);
        if (rc && i) ck_assert_msg(i < 2 || !strstr(notes.said, "start: "), "the start was made again");
    }
    const char *const files[] = {"log.jsonl", "start.csv", "model/model.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char x[64], y[64];
        snprintf(x, sizeof x, "a/%s", files[i]);
        snprintf(y, sizeof y, "b/%s", files[i]);
        same_file(place(x), place(y));
    }
    // not as it was begun; not with a start of its own; not with a mixer that has one
    o.init = START_ZERO_GATE;
    ck_assert_int_eq(pipeline_go(place("a"), 1, &o, &go, &notes, &r2, &other), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(other.msg, "'init' was 'fit', now it is 'zero_gate'"));
    snprintf(o.student_init_ckpt, sizeof o.student_init_ckpt, "somewhere");
    ck_assert_int_eq(pipeline_check(&o, &ckpt), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(ckpt.msg, "student_init_ckpt"));
    o.student_init_ckpt[0] = 0;
    o.force_window_on_all_layers = 1;
    ck_assert_int_eq(pipeline_check(&o, &swa), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(swa.msg, "swa_v1"));
}
END_TEST

START_TEST(pipeline_out_of_memory) {
    PipelineOptions o;
    Err e = {0};
    Stop go = {0};
    Notes notes;
    pipeline_inputs();
    pipeline_small(&o);
    snprintf(o.students, sizeof o.students, "ablation");
    o.init = START_FIT;
    for (long i = 0, ok = 0; !ok; i += 1 + i / 4) {
        char dir[24];
        Err m = {0};
        snprintf(dir, sizeof dir, "m%ld", i);
        Backend *be;
        const PipelineHooks h = {.version = "test"};
        must(backend_open(&be, "cpu", 1, &e), &e);
        mem_fail_after(i);
        const int rc = pipeline_run(&o, place(dir), be, &h, PIPELINE_ALL, &r2, &m);
        mem_fail_after(-1);
        backend_close(be);
        ok = rc == OK;
        if (rc) ck_assert_msg(rc == ERR_MEMORY, "allocation %ld: code %d %s", i, rc, m.msg);
        else must(pipeline_go(place(dir), 1, &o, &go, &notes, &r2, &e), &e);
        must(file_remove_tree(place(dir), &e), &e);
    }
}
END_TEST

/* Parts alone, a given stage-1 student, a shard as text, the official bundle, gla. */
START_TEST(pipeline_parts) {
    PipelineOptions o;
    Err e = {0}, shape = {0};
    Stop go = {0};
    Notes notes;
    Backend *be;
    pipeline_inputs();
    pipeline_small(&o);
    o.students[0] = 0;
    must(backend_open(&be, "cpu", 1, &e), &e);
    must(pipeline_run(&o, place("al"), be, NULL, PIPELINE_ALIGN, NULL, &e), &e);
    must(pipeline_run(&o, place("al"), be, NULL, PIPELINE_SELECT, NULL, &e), &e);
    ck_assert_int_eq(file_exists(place("al/ranking.json")), 1);
    ck_assert_int_eq(file_exists(place("al/results.json")), 0);
    must(pipeline_go(place("whole"), 1, &o, &go, &notes, &r1, &e), &e);
    PipelineOptions g = o; // from the exported stage-1 student: the same hybrid, since it was saved in float32
    snprintf(g.student_init_ckpt, sizeof g.student_init_ckpt, "%s/al/model", tmpdir);
    snprintf(g.text, sizeof g.text, "%s/whole/data/text.tok", tmpdir);
    must(pipeline_go(place("given"), 1, &g, &go, &notes, &r2, &e), &e);
    ck_assert_double_eq(r1.row[2].held.kl, r2.row[2].held.kl);
    snprintf(g.student, sizeof g.student, "gla_v1");
    ck_assert_int_eq(pipeline_go(place("given2"), 1, &g, &go, &notes, &r2, &shape), ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(shape.msg, "gdn_v4"));
    PipelineOptions f = o;
    pipeline_official(&f);
    StageOptions *stage[3] = {&f.stage1, &f.score, &f.stage2};
    for (int i = 0; i < 3; i++) {
        stage[i]->target_tokens = 2 * 2 * 16;
        stage[i]->batch_size = stage[i]->micro_batch_size = 2;
        stage[i]->train_seq_len = 16;
    }
    f.eval_every = 1;
    snprintf(f.student, sizeof f.student, "gla_v1");
    must(pipeline_go(place("official"), 1, &f, &go, &notes, &r2, &e), &e);
    ck_assert_int_eq(r2.row[2].K, 1);
    backend_close(be);
}
END_TEST

SUITE("method") {
    GROUP("all", .setup = setup, .teardown = teardown, .timeout = 180);
    CASE(recall_rows);
    CASE(recall_probe);
    CASE(alphabets);
    CASE(options);
    CASE(official_options);
    CASE(pretrain_levels_resume);
    CASE(pretrain_learns_text);
    CASE(pipeline_whole);
    CASE(pipeline_saves_students);
    CASE(pipeline_selectors);
    CASE(pipeline_resumes_anywhere);
    CASE(pipeline_shared);
    CASE(pipeline_shared_refusals);
    CASE(pipeline_pieces);
    CASE(pipeline_init_resumes);
    CASE(pipeline_out_of_memory);
    CASE(pipeline_parts);
}
