/* pretrain.c - the teacher's own training: text and recall rows, levels, evaluation. See pretrain.h. */
#include "run/pretrain.h"
#include "base/mem.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What belongs to the state: level, its first step, running accuracy; sums since the last log row; the last evaluation.
 * */
enum {
    X_LEVEL,
    X_BEGIN,
    X_ACCURACY,
    X_TEXT,
    X_RECALL,
    X_RIGHT,
    X_COUNT,
    X_EVAL_DONE,
    X_EVAL_TEXT,
    X_EVAL_N,
    EXTRA = X_EVAL_N + RECALL_MAX_N,
    X_STEP = EXTRA, /* with lanes only: the step's accuracy, which is their sum */
    EXTRA_LANES
};

static int lanes_of(const Pretrain *p) { return p->o.lanes > 1 ? p->o.lanes : 1; }

static const PretrainLevel *level_now(const Pretrain *p) { return &p->o.level[(int)p->extra[X_LEVEL]]; }

/* ---------------------------------------------------------------- one level's memory */

static void level_close(Pretrain *p) {
    pass_close(&p->pass);
    loss_close(&p->loss);
    mem_free(p->mem);
    p->mem = NULL;
    p->open = -1;
}

/* The model as this level sees it: the same weights, perhaps fewer layers. Copied anew before use, since m's rope table
 * may have moved. */
static Model *level_model(Pretrain *p) {
    const int layers = level_now(p)->layers;
    p->view = *p->m;
    if (layers > 0) p->view.c.L = layers;
    return &p->view;
}

static int level_open(Pretrain *p, Err *e) {
    const int level = (int)p->extra[X_LEVEL];
    const PretrainLevel *v = level_now(p);
    const int B = v->text_rows + v->recall_rows;
    const size_t N = (size_t)B * v->T;
    const int rows = B / lanes_of(p);
    if (p->open == level) return OK;
    level_close(p);
    TRY(mem_alloc(&p->mem, (6 * N + 2 * (size_t)p->spec.n_key) * sizeof(int), "pretraining batch", e));
    p->ids = p->mem;
    p->target = p->ids + N;
    p->start = p->target + N;
    p->top = p->start + N;
    p->weight = (float *)(p->top + N);
    p->row_loss = p->weight + N;
    p->scratch = (int *)(p->row_loss + N);
    TRY(pass_open(&p->pass, level_model(p), rows, v->T, PASS_TRAIN, e));
    TRY(loss_open(&p->loss, &p->view, 0, rows * v->T, e));
    p->open = level;
    return OK;
}

/* ---------------------------------------------------------------- batches */

/* Text rows first, then recall rows. asked: values to be recalled. */
static int level_batch(Pretrain *p, int64_t step, int *asked, Err *e) {
    const PretrainLevel *v = level_now(p);
    const int T = v->T, text = v->text_rows * T;
    const uint64_t level = (uint64_t)p->extra[X_LEVEL];
    Split split;
    if (text) {
        TRY(stream_split(&split, &p->data, T, TRAINING, e));
        Rng r; // every level reads the text in an order of its own
        rng_seed3(&r, p->o.seed, 0x74657874, level);
        dataset_batch(p->data.d, &split, rng_u64(&r), (uint64_t)(step - (int64_t)p->extra[X_BEGIN]), v->text_rows, T,
                      p->ids, p->target, p->start);
        for (int i = 0; i < text; i++) p->weight[i] = (float)(1.0 / text);
    }
    *asked = 0;
    for (int b = 0; b < v->recall_rows; b++) {
        const int at = text + b * T;
        Rng r;
        rng_seed3(&r, p->o.seed ^ 0x726563616c6cULL, (uint64_t)step, (uint64_t)b);
        const int n = v->n_min + (int)rng_below(&r, (uint64_t)(v->n_max - v->n_min + 1));
        *asked += recall_row(&p->spec, &r, n, T, p->ids + at, p->target + at, p->weight + at, p->scratch);
        memset(p->start + at, 0, (size_t)T * sizeof(int));
    }
    const float w = (float)((text ? p->o.lambda : 1) / (*asked > 0 ? *asked : 1));
    for (int i = text; i < text + v->recall_rows * T; i++) p->weight[i] *= w;
    return OK;
}

static void accuracy_account(Pretrain *p, double accuracy) {
    p->extra[X_ACCURACY] = 0.9 * p->extra[X_ACCURACY] + 0.1 * accuracy;
}

/* Of the whole batch only the rows of one lane: an equal part of those of text, and of those of recall. */
static void lane_rows(Pretrain *p, int lane) {
    const PretrainLevel *v = level_now(p);
    const size_t text = (size_t)v->text_rows * v->T, recall = (size_t)v->recall_rows * v->T;
    const size_t a = text / lanes_of(p), b = recall / lanes_of(p);
    int *const of[] = {p->ids, p->target, p->start, (int *)p->weight};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        memmove(of[i], of[i] + lane * a, a * sizeof(int));
        memmove(of[i] + a, of[i] + text + lane * b, b * sizeof(int));
    }
}

/* Means of the two parts from the per-row losses of the last batch, or this lane's share of them. */
static void level_account(Pretrain *p, int asked) {
    const PretrainLevel *v = level_now(p);
    const int all = v->text_rows * v->T, text = all / lanes_of(p), N = text + v->recall_rows * v->T / lanes_of(p);
    double ce = 0, recall = 0, right = 0;
    for (int i = 0; i < text; i++) ce += p->row_loss[i] / all;
    for (int i = text; i < N; i++)
        if (p->weight[i] != 0) recall += p->row_loss[i] / asked, right += p->top[i] == p->target[i];
    const double accuracy = asked ? right / asked : 0;
    if (lanes_of(p) > 1) p->extra[X_STEP] += accuracy;
    else accuracy_account(p, accuracy);
    p->extra[X_TEXT] += ce;
    p->extra[X_RECALL] += recall;
    p->extra[X_RIGHT] += accuracy;
    p->extra[X_COUNT] += 1.0 / lanes_of(p);
}

static int pretrain_gradients(void *ctx, int64_t step, int micro, double scale, double *loss, int64_t *tokens, Err *e) {
    Pretrain *p = ctx;
    int asked;
    (void)scale; // a step is one batch, and a micro-batch the rows of one lane
    TRY(level_open(p, e));
    TRY(level_batch(p, step, &asked, e));
    if (lanes_of(p) > 1) lane_rows(p, micro);
    Model *m = level_model(p);
    TRY(pass_input(&p->pass, m, p->ids, p->start, e));
    model_forward(m, &p->pass);
    TRY(loss_xent(&p->loss, m, &p->pass, p->target, p->weight, 1, loss, p->row_loss, p->top, e));
    model_backward(m, &p->pass, p->loss.dh);
    level_account(p, asked);
    *loss *= lanes_of(p); // it is this lane's share, not its mean
    *tokens = p->pass.N;
    return OK;
}

/* ---------------------------------------------------------------- evaluation and curriculum */

static int text_evaluate(Pretrain *p, Model *m, double *ce, Err *e) {
    enum { ROWS = 16, BATCHES = 4 };
    const int T = p->o.level[p->o.levels - 1].T;
    Split split;
    Batch b;
    Pass pass = {0};
    Loss loss = {0};
    TRY(stream_split(&split, &p->data, T, HELDOUT, e));
    const int rows = split.count < ROWS ? (int)split.count : ROWS;
    const int batches = split.count / rows < BATCHES ? (int)(split.count / rows) : BATCHES;
    TRY(batch_open(&b, rows, T, e));
    int rc = pass_open(&pass, m, rows, T, 0, e);
    if (!rc) rc = loss_open(&loss, m, 0, rows * T, e);
    *ce = 0;
    for (int i = 0; i < batches && !rc; i++) {
        double v = 0;
        rc = batch_text(&b, &p->data, HELDOUT, (uint64_t)i, e);
        if (!rc) rc = pass_input(&pass, m, b.ids, batch_start(&b, &p->data), e);
        if (rc) break;
        model_forward(m, &pass);
        rc = loss_xent(&loss, m, &pass, b.target, NULL, 0, &v, NULL, NULL, e);
        *ce += v / batches;
    }
    loss_close(&loss);
    pass_close(&pass);
    batch_close(&b);
    return rc;
}

int pretrain_evaluate(Pretrain *p, double *text_ce, double *accuracy, Err *e) {
    Model *m = level_model(p);
    TRY(text_evaluate(p, m, text_ce, e));
    return recall_run(&p->probe, m, NULL, NULL, accuracy, NULL, e);
}

static int pretrain_after(void *ctx, int64_t done, int64_t tokens, double recent, Err *e) {
    Pretrain *p = ctx;
    const PretrainLevel *v = level_now(p);
    const int64_t every = p->o.eval_every > 0 ? p->o.eval_every : 100, in_level = done - (int64_t)p->extra[X_BEGIN];
    (void)tokens, (void)recent;
    if (lanes_of(p) > 1) accuracy_account(p, p->extra[X_STEP]), p->extra[X_STEP] = 0;
    if (done % every == 0 || done == p->steps) {
        TRY(pretrain_evaluate(p, &p->extra[X_EVAL_TEXT], p->extra + X_EVAL_N, e));
        p->extra[X_EVAL_DONE] = 1;
    }
    const int passed = p->extra[X_ACCURACY] > v->threshold && in_level >= v->min_steps;
    if ((passed || (v->max_steps && in_level >= v->max_steps)) && (int)p->extra[X_LEVEL] + 1 < p->o.levels) {
        p->extra[X_LEVEL] += 1;
        p->extra[X_BEGIN] = (double)done;
        p->extra[X_ACCURACY] = 0;
    }
    return OK;
}

static void pretrain_log(void *ctx, LogRow *log) {
    Pretrain *p = ctx;
    JsonOut *row = ((JsonLogRow *)(void *)log)->json;
    const double n = p->extra[X_COUNT] > 0 ? p->extra[X_COUNT] : 1;
    json_out_int(row, "level", (int64_t)p->extra[X_LEVEL]);
    json_out_real(row, "text_loss", p->extra[X_TEXT] / n);
    json_out_real(row, "recall_loss", p->extra[X_RECALL] / n);
    json_out_real(row, "recall_accuracy", p->extra[X_RIGHT] / n);
    if (p->extra[X_EVAL_DONE] > 0) {
        json_out_real(row, "eval_text_loss", p->extra[X_EVAL_TEXT]);
        json_out_object(row, "eval_recall");
        for (int i = 0; i < p->probe.n_n; i++) {
            char key[16];
            snprintf(key, sizeof key, "%d", p->probe.n[i]);
            json_out_real(row, key, p->extra[X_EVAL_N + i]);
        }
        json_out_close(row);
    }
    memset(p->extra + X_TEXT, 0, (X_EVAL_DONE + 1 - X_TEXT) * sizeof(double));
}

Task pretrain_task(Pretrain *p) {
    return (Task){.stage = "pretrain",
                  .model = p->m,
                  .ctx = p,
                  .gradients = pretrain_gradients,
                  .after = pretrain_after,
                  .log = pretrain_log,
                  .extra = p->extra,
                  .n_extra = lanes_of(p) > 1 ? EXTRA_LANES : EXTRA,
                  .sums = X_TEXT,
                  .n_sums = lanes_of(p) > 1 ? EXTRA_LANES - X_TEXT : 0, // those behind X_COUNT stay as they are
                  .epoch_tokens = (int64_t)p->data.d->tokens};
}

TrainOptions pretrain_train_options(const Pretrain *p) {
    TrainOptions t = {.stage = p->o.stage, .log_every = p->o.log_every, .save_every = p->o.save_every};
    t.stage.optim.seed = p->o.seed;
    t.fingerprint = fingerprint_bytes(options_key(pretrain_table(), &p->o, AFFECTS_NUMBERS, 0), &p->data.d->tokens,
                                      sizeof p->data.d->tokens);
    return t;
}

/* ---------------------------------------------------------------- opening */

int list_parse(const char *text, int *out, int cap, int *n, int lo, int hi, const char *what, Err *e) {
    *n = 0;
    for (const char *s = text; *s;) {
        int used = 0, v;
        if (sscanf(s, "%d%n", &v, &used) != 1 || (s[used] && s[used] != ','))
            return err_set(e, ERR_USAGE, "%s: got '%s', expected numbers with commas between them", what, text);
        if (v < lo || v > hi) return err_set(e, ERR_USAGE, "%s: got %d, expected %d to %d", what, v, lo, hi);
        if (*n == cap) return err_set(e, ERR_USAGE, "%s: more than %d numbers", what, cap);
        out[(*n)++] = v;
        s += used;
        if (*s == ',' && !*++s) return err_set(e, ERR_USAGE, "%s: '%s' ends with a comma", what, text);
    }
    return OK;
}

static int pretrain_recall(Pretrain *p, const Tokenizer *t, Err *e) {
    const PretrainOptions *o = &p->o;
    int n[RECALL_MAX_N], n_n;
    p->spec.disjoint = !o->recall_values[0];
    TRY(recall_alphabet(&p->keys, &p->spec.n_key, t, o->recall_keys, e));
    if (!p->spec.disjoint) TRY(recall_alphabet(&p->values, &p->spec.n_value, t, o->recall_values, e));
    p->spec.key = p->keys;
    p->spec.value = p->values;
    TRY(list_parse(o->recall_n, n, RECALL_MAX_N, &n_n, 1, 1 << 16, "recall_n", e));
    TRY(recall_open(&p->probe, &p->spec, n, n_n, 64, 16, 77, p->m->c.VOC, e));
    for (int i = 0; i < o->levels; i++)
        if (o->level[i].recall_rows) TRY(recall_check(&p->spec, o->level[i].n_max, p->m->c.VOC, e));
    return OK;
}

static int pretrain_start(Pretrain *p, const Tokenizer *t, Err *e) {
    int longest = 0;
    void *mem;
    TRY(pretrain_check(&p->o, e));
    TRY(mem_alloc(&mem, EXTRA_LANES * sizeof(double), "pretraining state", e));
    p->extra = mem;
    TRY(pretrain_recall(p, t, e));
    for (int i = 0; i < p->o.levels; i++) longest = p->o.level[i].T > longest ? p->o.level[i].T : longest;
    for (int i = 0; i < p->probe.n_n; i++) {
        const int T = 2 * p->probe.n[i] + 2 * p->probe.queries;
        longest = T > longest ? T : longest;
    }
    return model_rope(p->m, longest, e); // now, so that no view of the model has to
}

int pretrain_open(Pretrain *p, Model *m, const Dataset *d, const Tokenizer *t, const PretrainOptions *o, Err *e) {
    *p = (Pretrain){.o = *o, .m = m, .open = -1};
    p->data = (TextStream){.d = d, .seed = o->seed, .heldout = o->heldout, .boundaries = 1};
    PretrainLevel *last = &p->o.level[o->levels > 0 ? o->levels - 1 : 0];
    p->o.stage.batch_size = p->o.stage.micro_batch_size = last->text_rows + last->recall_rows;
    p->o.stage.train_seq_len = last->T;
    stage_settle(&p->o.stage, o->lanes);
    int rc = pretrain_start(p, t, e);
    if (!rc) p->steps = stage_steps(&p->o.stage);
    if (rc) pretrain_close(p);
    return rc;
}

void pretrain_close(Pretrain *p) {
    level_close(p);
    recall_close(&p->probe);
    mem_free(p->keys);
    mem_free(p->values);
    mem_free(p->extra);
    memset(p, 0, sizeof *p);
}
