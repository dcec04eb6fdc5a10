/* score.c - GA-S2, one layer at a time. See score.h. */
#include "method/score.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/json.h"
#include "method/transfer.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

int hybrid_open(Model *h, Model *teacher, Model *start, const int *keep, GradKind grad, Err *e) {
    Config c = start->c;
    for (int l = 0; l < c.L; l++)
        if (keep[l]) c.mixer[l] = 0;
    TRY(model_open(h, &c, start->be, grad, e));
    h->chunk = start->chunk;
    const int rc = transfer_hybrid(h, start, teacher, e);
    if (rc) model_close(h);
    return rc;
}

/* ---------------------------------------------------------------- the result of one layer on disk */

static void result_out(JsonOut *j, const LayerScore *s, uint64_t fingerprint) {
    json_out_begin(j, 1);
    json_out_object(j, NULL);
    json_out_int(j, "layer", s->layer);
    json_out_u64(j, "fingerprint", fingerprint);
    json_out_int(j, "tokens", s->tokens);
    json_out_real(j, "seconds", s->seconds);
    json_out_array(j, "points"); // step, tokens, held-out KL, its standard error, running training KL
    for (int i = 0; i < s->points; i++) {
        const ScorePoint *p = &s->point[i];
        const double v[5] = {(double)p->step, (double)p->tokens, p->kl, p->kl_se, p->running};
        json_out_array(j, NULL);
        for (int k = 0; k < 5; k++) json_out_real(j, NULL, v[k]);
        json_out_close(j);
    }
    json_out_close(j);
    json_out_array(j, "batch_kl");
    for (int i = 0; i < s->batches; i++) json_out_real(j, NULL, s->batch_kl[i]);
    json_out_close(j);
    json_out_close(j);
}

static int result_save(const LayerScore *s, uint64_t fingerprint, const char *path, Err *e) {
    JsonOut j;
    result_out(&j, s, fingerprint);
    int rc = json_out_end(&j, e);
    if (!rc) rc = file_write_all(path, j.text, j.len, e);
    json_out_free(&j);
    return rc;
}

static int numbers_read(const Json *j, JsonRef array, const char *what, double *v, int cap, int *n, Err *e) {
    *n = 0;
    for (JsonRef r = json_first(j, array); r >= 0; r = json_next(j, r)) {
        if (*n == cap) return err_set(e, ERR_INPUT, "%s: %s: more than %d numbers", j->file, what, cap);
        v[*n] = NAN; // null: not a number, e.g. the standard error of one batch
        if (json_kind(j, r) != JSON_NULL) TRY(json_want_real(j, r, what, &v[*n], e));
        ++*n;
    }
    return OK;
}

static int result_parse(LayerScore *s, const Json *j, uint64_t *fingerprint, Err *e) {
    int64_t layer;
    TRY(json_want_int(j, json_get(j, 0, "layer"), "layer", 0, MAX_LAYERS - 1, &layer, e));
    TRY(json_want_u64(j, json_get(j, 0, "fingerprint"), "fingerprint", fingerprint, e));
    TRY(json_want_int(j, json_get(j, 0, "tokens"), "tokens", 0, INT64_MAX, &s->tokens, e));
    TRY(json_want_real(j, json_get(j, 0, "seconds"), "seconds", &s->seconds, e));
    s->layer = (int)layer;
    const JsonRef points = json_get(j, 0, "points");
    for (JsonRef r = json_first(j, points); r >= 0; r = json_next(j, r)) {
        double v[5];
        int n;
        TRY(numbers_read(j, r, "points", v, 5, &n, e));
        if (n != 5 || s->points == SCORE_POINTS) return err_set(e, ERR_INPUT, "%s: points: malformed", j->file);
        s->point[s->points++] = (ScorePoint){(int64_t)v[0], (int64_t)v[1], v[2], v[3], v[4]};
    }
    if (!s->points) return err_set(e, ERR_INPUT, "%s: points: empty", j->file);
    return numbers_read(j, json_get(j, 0, "batch_kl"), "batch_kl", s->batch_kl, HELDOUT_MAX, &s->batches, e);
}

static int result_load(LayerScore *s, const char *path, uint64_t *fingerprint, Err *e) {
    Json j;
    TRY(json_open(&j, path, e));
    memset(s, 0, sizeof *s);
    const int rc = result_parse(s, &j, fingerprint, e);
    json_free(&j);
    return rc;
}

/* ---------------------------------------------------------------- the run of one layer */

/* What a run keeps in its checkpoints: number of points, the points, the last evaluation's batches. */
enum { EXTRA_POINT = 1, EXTRA_BATCH = EXTRA_POINT + 5 * SCORE_POINTS, EXTRA = EXTRA_BATCH + HELDOUT_MAX };
typedef struct {
    Distill d;
    Task inner;
    Heldout *heldout;
    int64_t steps, every;
    double extra[EXTRA];
} LayerRun;

static int layer_gradients(void *ctx, int64_t step, int micro, double scale, double *loss, int64_t *tokens, Err *e) {
    LayerRun *r = ctx;
    return r->inner.gradients(r->inner.ctx, step, micro, scale, loss, tokens, e);
}

static int layer_after(void *ctx, int64_t done, int64_t tokens, double recent, Err *e) {
    LayerRun *r = ctx;
    HeldoutResult h;
    if (done % r->every && done != r->steps) return OK;
    TRY(heldout_run(r->heldout, r->d.student, &h, e));
    const double v[5] = {(double)done, (double)tokens, h.kl, h.kl_se, recent};
    memcpy(r->extra + EXTRA_POINT + 5 * (int)r->extra[0], v, sizeof v);
    memcpy(r->extra + EXTRA_BATCH, h.batch_kl, sizeof h.batch_kl);
    r->extra[0] += 1;
    return OK;
}

static void layer_result(LayerScore *s, const LayerRun *r, int layer, const TrainResult *t) {
    *s = (LayerScore){.layer = layer, .tokens = t->tokens, .seconds = t->seconds, .points = (int)r->extra[0], .batches = r->heldout->batches};
    for (int i = 0; i < s->points; i++) {
        const double *v = r->extra + EXTRA_POINT + 5 * i;
        s->point[i] = (ScorePoint){(int64_t)v[0], (int64_t)v[1], v[2], v[3], v[4]};
    }
    memcpy(s->batch_kl, r->extra + EXTRA_BATCH, sizeof s->batch_kl);
}

typedef struct {
    Model *teacher, *start;
    const TextStream *data;
    Heldout *heldout;
    Teacher cache;
    const ScoreOptions *o;
    int64_t steps, every;
    uint64_t fingerprint;
} Scoring;

static int layer_train(Scoring *k, LayerRun *r, Model *hybrid, int layer, const char *dir, LayerScore *out, Err *e) {
    char run[32];
    TrainOptions train = k->o->train;
    TrainResult t;
    snprintf(run, sizeof run, "layer-%d", layer);
    train.dir = dir;
    train.fingerprint = fingerprint_real(k->fingerprint, layer);
    r->heldout = k->heldout;
    r->steps = k->steps;
    r->every = k->every;
    TRY(distill_open(&r->d, hybrid, &k->cache, k->data, &train.stage, k->o->tau, k->o->checkpointing, e));
    r->inner = distill_task(&r->d, run);
    Task task = r->inner;
    task.stage = "score";
    task.ctx = r;
    task.gradients = layer_gradients;
    task.after = layer_after;
    task.extra = r->extra;
    task.n_extra = EXTRA;
    const int rc = train_run(&task, &train, &t, e);
    if (!rc) layer_result(out, r, layer, &t);
    distill_close(&r->d);
    return rc;
}

static int layer_score(Scoring *k, int layer, const char *dir, LayerScore *out, Err *e) {
    int keep[MAX_LAYERS] = {0};
    Model hybrid;
    void *run;
    keep[layer] = 1;
    TRY(hybrid_open(&hybrid, k->teacher, k->start, keep, GRAD_ALL, e));
    int rc = mem_alloc(&run, sizeof(LayerRun), "scoring run", e);
    if (!rc) {
        rc = layer_train(k, run, &hybrid, layer, dir, out, e);
        mem_free(run);
    }
    model_close(&hybrid);
    return rc;
}

/* A finished layer is read, another one is run and written. */
static int layer_done(Scoring *k, int layer, LayerScore *out, Err *e) {
    char name[32], file[1100], dir[1100];
    snprintf(name, sizeof name, "layer-%d.json", layer);
    TRY(file_join(file, sizeof file, k->o->train.dir, name, e));
    snprintf(name, sizeof name, "layer-%d", layer);
    TRY(file_join(dir, sizeof dir, k->o->train.dir, name, e));
    const uint64_t want = fingerprint_real(k->fingerprint, layer);
    uint64_t got = want;
    if (file_exists(file)) {
        TRY(result_load(out, file, &got, e));
        if (got != want || out->layer != layer) {
            err_set(e, ERR_USAGE, "%s: was made with other options, data or teacher", file);
            return err_hint(e, "resume with the options it was made with, or begin in an empty directory");
        }
    } else {
        TRY(layer_score(k, layer, dir, out, e));
        TRY(result_save(out, want, file, e));
    }
    const ScorePoint *last = &out->point[out->points - 1];
    out->running = last->running;
    out->se = last->kl_se;
    out->score = 0 - (k->o->official ? last->running : last->kl); // 0 - x: a KL of 0 is not written as -0
    return file_remove_tree(dir, e); // also what a crash left behind a finished layer
}

int score_layers(LayerScore *out, Model *teacher, Model *start, const TextStream *data, Heldout *heldout, const ScoreOptions *o, Err *e) {
    const StageOptions *s = &o->train.stage;
    TRY(stage_check(s, "score", e));
    Scoring k = {.teacher = teacher, .start = start, .data = data, .heldout = heldout, .o = o, .steps = stage_steps(s)};
    k.every = o->eval_every > 0 ? o->eval_every : k.steps >= 8 ? k.steps / 8 : 1;
    if ((k.steps + k.every - 1) / k.every > SCORE_POINTS)
        return err_set(e, ERR_USAGE, "score: %lld steps with an evaluation every %lld: expected at most %d evaluations", (long long)k.steps,
                       (long long)k.every, SCORE_POINTS);
    const double v[] = {o->tau, (double)k.every, heldout->B, heldout->T, heldout->batches};
    k.fingerprint = o->train.fingerprint;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) k.fingerprint = fingerprint_real(k.fingerprint, v[i]);
    TRY(file_mkdirs(o->train.dir, e));
    TRY(teacher_open(&k.cache, teacher, s->micro_batch_size, s->train_seq_len, k.steps * stage_micro_batches(s), o->cache, e));
    int rc = OK;
    for (int l = 0; l < start->c.L && !rc; l++) rc = layer_done(&k, l, &out[l], e);
    teacher_close(&k.cache);
    if (!rc) score_rank(out, start->c.L);
    return rc;
}

/* ---------------------------------------------------------------- orders */

static double order_value(double v) { return isnan(v) ? -INFINITY : v; }

/* Best first; equal values keep the order of the layers. */
static void order_layers(const double *value, int L, int *order) {
    for (int i = 0; i < L; i++) {
        int at = i;
        for (; at > 0 && order_value(value[order[at - 1]]) < order_value(value[i]); at--) order[at] = order[at - 1];
        order[at] = i;
    }
}

void score_rank(LayerScore *s, int L) {
    double value[MAX_LAYERS] = {0};
    int order[MAX_LAYERS];
    for (int l = 0; l < L; l++) value[l] = s[l].score;
    order_layers(value, L, order);
    for (int i = 0; i < L; i++) s[order[i]].rank = i + 1;
}

int score_order_at(const LayerScore *s, int L, int p, int official, int *order) {
    double value[MAX_LAYERS] = {0};
    for (int l = 0; l < L; l++) {
        if (p >= s[l].points) return 0;
        value[l] = -(official ? s[l].point[p].running : s[l].point[p].kl);
    }
    order_layers(value, L, order);
    return 1;
}
