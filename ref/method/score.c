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

static double order_value(double v) { return isnan(v) ? -INFINITY : v; }

/* Best first; equal values keep the order of the layers. */
static void order_layers(const double *value, int L, int *order) {
    for (int i = 0; i < L; i++) {
        int at = i;
        for (; at > 0 && order_value(value[order[at - 1]]) < order_value(value[i]); at--) order[at] = order[at - 1];
        order[at] = i;
    }
}

/* ---------------------------------------------------------------- the result of one layer on disk */

static void result_out(JsonOut *j, const LayerScore *s, uint64_t fingerprint) {
    json_out_begin(j, 1);
    json_out_object(j, NULL);
    json_out_int(j, "layer", s->layer);
    json_out_u64(j, "fingerprint", fingerprint);
    json_out_int(j, "tokens", s->tokens);
    json_out_real(j, "seconds", s->seconds);
    if (!isnan(s->recall)) json_out_real(j, "recall", s->recall);
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
    if (s->dropped) {
        json_out_int(j, "dropped", s->dropped);
        json_out_real(j, "drop_mean", s->drop_mean);
        json_out_real(j, "drop_stderr", s->drop_se);
    }
    if (!s->points) { // a row of a selector that trains nothing: what cannot be had from points
        json_out_real(j, "score", s->score);
        json_out_real(j, "stderr", s->se);
        json_out_int(j, "rank", s->rank);
    }
    if (s->heads) {
        json_out_array(j, "heads");
        for (int i = 0; i < s->heads; i++) json_out_real(j, NULL, s->head[i]);
        json_out_close(j);
    }
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

static int number_read(const Json *j, const char *key, double *v, Err *e) {
    const JsonRef r = json_get(j, 0, key);
    *v = NAN;
    return r >= 0 && json_kind(j, r) == JSON_NULL ? OK : json_want_real(j, r, key, v, e);
}

static int result_untrained(LayerScore *s, const Json *j, Err *e) {
    int64_t rank;
    if (json_get(j, 0, "score") < 0) return err_set(e, ERR_INPUT, "%s: points: empty", j->file);
    TRY(number_read(j, "score", &s->score, e));
    TRY(number_read(j, "stderr", &s->se, e));
    TRY(json_want_int(j, json_get(j, 0, "rank"), "rank", 0, MAX_LAYERS, &rank, e));
    s->rank = (int)rank;
    return OK;
}

static int result_parse(LayerScore *s, const Json *j, uint64_t *fingerprint, Err *e) {
    int64_t layer;
    TRY(json_want_int(j, json_get(j, 0, "layer"), "layer", 0, MAX_LAYERS - 1, &layer, e));
    TRY(json_want_u64(j, json_get(j, 0, "fingerprint"), "fingerprint", fingerprint, e));
    TRY(json_want_int(j, json_get(j, 0, "tokens"), "tokens", 0, INT64_MAX, &s->tokens, e));
    TRY(json_want_real(j, json_get(j, 0, "seconds"), "seconds", &s->seconds, e));
    s->layer = (int)layer;
    s->recall = NAN;
    TRY(json_opt_real(j, 0, "recall", &s->recall, e));
    const JsonRef points = json_get(j, 0, "points");
    for (JsonRef r = json_first(j, points); r >= 0; r = json_next(j, r)) {
        double v[5];
        int n;
        TRY(numbers_read(j, r, "points", v, 5, &n, e));
        if (n != 5 || s->points == SCORE_POINTS) return err_set(e, ERR_INPUT, "%s: points: malformed", j->file);
        s->point[s->points++] = (ScorePoint){(int64_t)v[0], (int64_t)v[1], v[2], v[3], v[4]};
    }
    if (json_get(j, 0, "heads") >= 0)
        TRY(numbers_read(j, json_get(j, 0, "heads"), "heads", s->head, SCORE_HEADS, &s->heads, e));
    if (json_get(j, 0, "dropped") >= 0) {
        TRY(json_want_int(j, json_get(j, 0, "dropped"), "dropped", 1, INT64_MAX, &s->dropped, e));
        TRY(number_read(j, "drop_mean", &s->drop_mean, e));
        TRY(number_read(j, "drop_stderr", &s->drop_se, e));
    }
    if (!s->points) TRY(result_untrained(s, j, e));
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
    *s = (LayerScore){.layer = layer,
                      .tokens = t->tokens,
                      .seconds = t->seconds,
                      .recall = NAN,
                      .points = (int)r->extra[0],
                      .batches = r->heldout->batches};
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
    int64_t steps, every, until; /* until: of this round, 0: to the end */
    int n;                       /* layers, or sets */
    uint64_t fingerprint;
} Scoring;

static uint64_t layer_fingerprint(const Scoring *k, int layer) {
    const uint64_t h = fingerprint_real(k->fingerprint, layer);
    const size_t L = (size_t)k->start->c.L;
    return k->o->sets ? fingerprint_bytes(h, k->o->sets + layer * L, L * sizeof *k->o->sets) : h;
}

static int layer_train(Scoring *k, LayerRun *r, Model *hybrid, int layer, const char *dir, LayerScore *out, Err *e) {
    char run[32];
    TrainOptions train = k->o->train;
    TrainResult t;
    snprintf(run, sizeof run, "layer-%d", layer);
    train.dir = dir;
    train.fingerprint = layer_fingerprint(k, layer);
    train.until = k->until;
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
    int rc = train_run(&task, &train, &t, e);
    if (!rc) layer_result(out, r, layer, &t);
    if (!rc && k->o->recall && t.step == k->steps) {
        double accuracy[RECALL_MAX_N];
        rc = recall_run(k->o->recall, hybrid, NULL, NULL, accuracy, &out->recall, e);
    }
    distill_close(&r->d);
    return rc;
}

static int layer_score(Scoring *k, int layer, const char *dir, LayerScore *out, Err *e) {
    int keep[MAX_LAYERS] = {0};
    Model hybrid;
    void *run;
    const int L = k->start->c.L;
    for (int l = 0; l < L; l++) {
        if (k->o->sets) keep[l] = k->o->sets[(size_t)layer * L + l];
        else keep[l] = k->o->removal ? l != layer : l == layer || (k->o->keep && k->o->keep[l]);
    }
    TRY(hybrid_open(&hybrid, k->teacher, k->start, keep, GRAD_ALL, e));
    int rc = mem_alloc(&run, sizeof(LayerRun), "scoring run", e);
    if (!rc) {
        rc = layer_train(k, run, &hybrid, layer, dir, out, e);
        mem_free(run);
    }
    model_close(&hybrid);
    return rc;
}

/* dir/layer-N, with what follows. */
static int layer_path(char *dst, size_t cap, const char *dir, int layer, const char *end, Err *e) {
    char name[40];
    snprintf(name, sizeof name, "layer-%d%s", layer, end);
    return file_join(dst, cap, dir, name, e);
}

/* The result in file, if it is there and of this run. */
static int result_found(const Scoring *k, int layer, const char *file, LayerScore *out, int *found, Err *e) {
    uint64_t got;
    *found = file_exists(file) != 0;
    if (!*found) return OK;
    TRY(result_load(out, file, &got, e));
    if (got == layer_fingerprint(k, layer) && out->layer == layer) return OK;
    err_set(e, ERR_USAGE, "%s: was made with other options, data or teacher", file);
    return err_hint(e, "resume with the options it was made with, or begin in an empty directory");
}

/* From the last point to the score. */
static void layer_value(const Scoring *k, LayerScore *out) {
    const ScorePoint *last = &out->point[out->points - 1];
    const double kl = k->o->official ? last->running : last->kl;
    out->running = last->running;
    out->se = last->kl_se;
    out->score = k->o->removal ? kl : 0 - kl; // 0 - x: a KL of 0 is not written as -0
}

/* A finished layer is read, another one is run and written. */
static int layer_done(Scoring *k, int layer, LayerScore *out, Err *e) {
    char file[1100], dir[1100];
    int found;
    TRY(layer_path(file, sizeof file, k->o->train.dir, layer, ".json", e));
    TRY(layer_path(dir, sizeof dir, k->o->train.dir, layer, "", e));
    TRY(result_found(k, layer, file, out, &found, e));
    if (!found) {
        TRY(layer_score(k, layer, dir, out, e));
        TRY(result_save(out, layer_fingerprint(k, layer), file, e));
    }
    layer_value(k, out);
    return file_remove_tree(dir, e); // also what a crash left behind a finished layer
}

static void layer_kept(LayerScore *out, int layer) {
    memset(out, 0, sizeof *out);
    score_finish(out, layer, 0);
}

static int kept(const Scoring *k, int layer) { return !k->o->sets && k->o->keep && k->o->keep[layer]; }

/* ---------------------------------------------------------------- all layers together, from evaluation to evaluation
 * */

/* One layer up to this round's evaluation: read if it was there, else trained on. */
static int layer_round(Scoring *k, int layer, const char *rounds, LayerScore *out, Err *e) {
    char file[1200], dir[1100];
    int found;
    TRY(layer_path(file, sizeof file, rounds, layer, ".json", e));
    TRY(layer_path(dir, sizeof dir, k->o->train.dir, layer, "", e));
    TRY(result_found(k, layer, file, out, &found, e));
    if (!found) {
        TRY(layer_score(k, layer, dir, out, e));
        TRY(result_save(out, layer_fingerprint(k, layer), file, e));
    }
    layer_value(k, out);
    return OK;
}

typedef struct {
    int alive[MAX_LAYERS], living, rounds;
    int *top; /* (rounds,K) */
    EarlyStopState state;
} Race;

static void race_top(Race *r, const LayerScore *s, int n, int K) {
    double value[MAX_LAYERS] = {0};
    int order[MAX_LAYERS];
    for (int l = 0; l < n; l++) value[l] = r->alive[l] ? s[l].score : NAN;
    order_layers(value, n, order);
    memcpy(r->top + (size_t)r->rounds * K, order, (size_t)K * sizeof *order);
}

static void race_halve(Race *r, const Scoring *k, LayerScore *s) {
    const double *kl[MAX_LAYERS];
    double mean[MAX_LAYERS] = {0}, se[MAX_LAYERS] = {0};
    int drop[MAX_LAYERS];
    if (k->o->halving_z <= 0 || k->o->removal) return;
    for (int l = 0; l < k->n; l++) kl[l] = s[l].batch_kl;
    halving_drop(kl, k->n, k->heldout->batches, k->o->K, k->o->halving_z, r->alive, drop, mean, se);
    for (int l = 0; l < k->n; l++) {
        if (!drop[l]) continue;
        s[l].dropped = s[l].point[s[l].points - 1].step;
        s[l].drop_mean = mean[l];
        s[l].drop_se = se[l];
        r->alive[l] = 0;
        r->living--;
    }
}

static void race_out(JsonOut *j, const Race *r, const Scoring *k, const LayerScore *s) {
    int64_t used = 0;
    const double all = (double)k->steps * stage_micro_batches(&k->o->train.stage) * k->o->train.stage.micro_batch_size *
                       k->o->train.stage.train_seq_len * k->n;
    for (int l = 0; l < k->n; l++) used += s[l].tokens;
    json_out_begin(j, 1);
    json_out_object(j, NULL);
    json_out_int(j, "rounds", r->rounds);
    json_out_bool(j, "stopped", r->state.stop);
    json_out_int(j, "backbone", r->state.backbone);
    json_out_real(j, "jaccard_mean", r->state.jaccard);
    json_out_int(j, "tokens", used);
    json_out_real(j, "tokens_of_full_runs", all);
    json_out_real(j, "saved", 1 - (double)used / all);
    json_out_array(j, "top");
    for (int i = 0; i < r->rounds; i++) {
        json_out_array(j, NULL);
        for (int q = 0; q < k->o->K; q++) json_out_int(j, NULL, r->top[i * k->o->K + q]);
        json_out_close(j);
    }
    json_out_close(j);
    json_out_close(j);
}

static int race_finish(Scoring *k, const Race *r, LayerScore *s, Err *e) {
    char path[1200];
    JsonOut j;
    race_out(&j, r, k, s);
    int rc = json_out_end(&j, e);
    if (!rc) rc = file_join(path, sizeof path, k->o->train.dir, "early_stop.json", e);
    if (!rc) rc = file_write_all(path, j.text, j.len, e);
    json_out_free(&j);
    for (int l = 0; l < k->n && !rc; l++) {
        if (kept(k, l)) continue;
        rc = layer_path(path, sizeof path, k->o->train.dir, l, ".json", e);
        if (!rc) rc = result_save(&s[l], layer_fingerprint(k, l), path, e);
        if (!rc) rc = layer_path(path, sizeof path, k->o->train.dir, l, "", e);
        if (!rc) rc = file_remove_tree(path, e);
    }
    if (!rc) rc = file_join(path, sizeof path, k->o->train.dir, "rounds", e);
    return rc ? rc : file_remove_tree(path, e);
}

static int race_round(Scoring *k, Race *r, LayerScore *s, Err *e) {
    char dir[1200], name[32];
    snprintf(name, sizeof name, "rounds/%d", r->rounds + 1);
    TRY(file_join(dir, sizeof dir, k->o->train.dir, name, e));
    TRY(file_mkdirs(dir, e));
    k->until = (r->rounds + 1) * k->every;
    for (int l = 0; l < k->n; l++)
        if (r->alive[l]) TRY(layer_round(k, l, dir, &s[l], e));
    race_top(r, s, k->n, k->o->K);
    r->rounds++;
    r->state = early_stop(&k->o->stop, r->top, r->rounds, k->o->K, k->n);
    race_halve(r, k, s);
    return OK;
}

/* Until every alive layer is at its last step, the top K has settled, or no more than K layers are left. */
static int score_race(Scoring *k, LayerScore *s, Err *e) {
    Race r = {0};
    void *mem;
    char path[1200];
    const int64_t rounds = (k->steps + k->every - 1) / k->every;
    int finished = 1, found;
    if (k->o->K < 1 || k->o->K > k->n)
        return err_set(e, ERR_USAGE, "early stopping: the top %d of %d layers cannot settle", k->o->K, k->n);
    for (int l = 0; l < k->n; l++) {
        if (kept(k, l)) layer_kept(&s[l], l);
        else {
            r.alive[l] = 1;
            r.living++;
            TRY(layer_path(path, sizeof path, k->o->train.dir, l, ".json", e));
            TRY(result_found(k, l, path, &s[l], &found, e));
            if (found) layer_value(k, &s[l]);
            finished &= found;
        }
    }
    if (finished) return OK;
    TRY(mem_alloc(&mem, (size_t)rounds * k->o->K * sizeof(int), "top sets", e));
    r.top = mem;
    int rc = OK;
    while (!rc && r.rounds < rounds && !r.state.stop && (r.living > k->o->K || !r.rounds)) rc = race_round(k, &r, s, e);
    if (!rc) rc = race_finish(k, &r, s, e);
    mem_free(mem);
    return rc;
}

static uint64_t scoring_fingerprint(const ScoreOptions *o, const Heldout *heldout, int64_t every, int L) {
    const double v[] = {o->tau, (double)every, heldout->B, heldout->T, heldout->batches};
    uint64_t h = o->train.fingerprint;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) h = fingerprint_real(h, v[i]);
    if (o->removal) h = fingerprint_text(h, "removal");
    if (o->keep) h = fingerprint_bytes(h, o->keep, (size_t)L * sizeof *o->keep);
    const double stop[] = {o->stop.R, o->stop.threshold, o->stop.all_pairs, o->halving_z, o->K};
    for (int i = 0; i < 5 && (o->stop.R || o->halving_z > 0); i++) h = fingerprint_real(h, stop[i]);
    return h;
}

int score_layers(LayerScore *out, Model *teacher, Model *start, const TextStream *data, Heldout *heldout,
                 const ScoreOptions *o, Err *e) {
    const StageOptions *s = &o->train.stage;
    TRY(stage_check(s, "score", e));
    Scoring k = {.teacher = teacher, .start = start, .data = data, .heldout = heldout, .o = o, .steps = stage_steps(s)};
    k.n = o->sets ? o->n_sets : start->c.L;
    k.every = o->eval_every > 0 ? o->eval_every : k.steps >= 8 ? k.steps / 8 : 1;
    if ((k.steps + k.every - 1) / k.every > SCORE_POINTS)
        return err_set(e, ERR_USAGE, "score: %lld steps with an evaluation every %lld: expected at most %d evaluations",
                       (long long)k.steps, (long long)k.every, SCORE_POINTS);
    k.fingerprint = scoring_fingerprint(o, heldout, k.every, start->c.L);
    TRY(file_mkdirs(o->train.dir, e));
    TRY(teacher_open(&k.cache, teacher, s->micro_batch_size, s->train_seq_len, k.steps * stage_micro_batches(s),
                     o->cache, e));
    int rc = OK;
    if (o->stop.R || o->halving_z > 0) rc = score_race(&k, out, e);
    else
        for (int l = 0; l < k.n && !rc; l++) {
            if (kept(&k, l)) layer_kept(&out[l], l);
            else rc = layer_done(&k, l, &out[l], e);
        }
    teacher_close(&k.cache);
    if (!rc) score_rank(out, k.n);
    return rc;
}

/* ---------------------------------------------------------------- orders */

void score_rank(LayerScore *s, int L) {
    double value[MAX_LAYERS] = {0};
    int order[MAX_LAYERS], sorted[MAX_LAYERS], n = 0;
    for (int l = 0; l < L; l++) value[l] = s[l].score;
    order_layers(value, L, order);
    for (int points = SCORE_POINTS; points >= 0; points--)
        for (int i = 0; i < L; i++)
            if (s[order[i]].points == points) sorted[n++] = order[i];
    for (int i = 0; i < n; i++) s[sorted[i]].rank = i + 1;
}

void score_finish(LayerScore *s, int layer, int n) {
    double sum = 0, square = 0;
    s->layer = layer;
    s->batches = n;
    s->running = s->recall = NAN;
    for (int i = 0; i < n; i++) sum += s->batch_kl[i];
    s->score = n ? sum / n : NAN;
    for (int i = 0; i < n; i++) square += (s->batch_kl[i] - s->score) * (s->batch_kl[i] - s->score);
    s->se = n > 1 ? sqrt(square / (n - 1) / n) : NAN;
}

void score_share(LayerScore *s, int L, int64_t tokens, double seconds) {
    for (int l = 0; l < L; l++) {
        s[l].tokens = tokens / L + (l < tokens % L);
        s[l].seconds = seconds / L;
    }
}

/* ---------------------------------------------------------------- rows of other selectors */

static int row_path(char *dst, size_t cap, const char *dir, int layer, Err *e) {
    char name[32];
    snprintf(name, sizeof name, "layer-%d.json", layer);
    return file_join(dst, cap, dir, name, e);
}

int score_rows_load(LayerScore *s, int L, const char *dir, uint64_t fingerprint, int *found, Err *e) {
    char path[1200];
    *found = 0;
    for (int l = 0; l < L; l++) {
        uint64_t got;
        TRY(row_path(path, sizeof path, dir, l, e));
        if (!file_exists(path)) return OK;
        TRY(result_load(&s[l], path, &got, e));
        s[l].running = NAN;
        if (got != fingerprint || s[l].layer != l)
            return err_set(e, ERR_USAGE, "%s: was made with other options, data or teacher", path);
    }
    *found = 1;
    return OK;
}

int score_rows_save(const LayerScore *s, int L, const char *dir, uint64_t fingerprint, Err *e) {
    char path[1200];
    TRY(file_mkdirs(dir, e));
    for (int l = 0; l < L; l++) {
        LayerScore row = s[l];
        row.points = 0; // the score stands for itself; a trained selector's trajectory lies with its runs
        TRY(row_path(path, sizeof path, dir, l, e));
        TRY(result_save(&row, fingerprint, path, e));
    }
    return OK;
}

int score_ranks_at(const LayerScore *s, int L, int p, int official, int *rank) {
    double value[MAX_LAYERS] = {0};
    int order[MAX_LAYERS], n = 0;
    for (int l = 0; l < L; l++) {
        const int there = p < s[l].points;
        value[l] = !there ? -INFINITY : -(official ? s[l].point[p].running : s[l].point[p].kl);
        n += there;
    }
    order_layers(value, L, order);
    for (int i = 0; i < L; i++) rank[order[i]] = p < s[order[i]].points ? i + 1 : 0;
    return n;
}
