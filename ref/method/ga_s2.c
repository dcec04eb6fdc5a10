/* ga_s2.c - which layers must stay softmax? Give one layer at a time its attention back, distil briefly, measure the
 * KL.
 *
 *   I(l) = - E_x KL( teacher(.|x) || student with softmax at l (.|x) )         the paper's Algorithm 1, lines 3 to 6
 *
 * All runs read the same batches in the same order and are judged on the same held-out ones, so the scores are paired.
 * GR-S2, greedy addition and sets of layers are the same with other hybrids. See ga_s2.h. */
#include "method/ga_s2.h"
#include "base/mem.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static int hybrid_score(LayerScore *out, const Scoring *s, Teacher *teacher, const int *keep, int i, const char *name,
                        int64_t until, Memo *memo, Err *e);

static void score_value(LayerScore *v, const Scoring *s);

int ga_s2(LayerScore *out, const Scoring *s, const char *name, Memo *memo, Err *e) {
    const int L = s->stage1_student->c.L;
    void *mem;
    TRY(mem_alloc(&mem, (size_t)L * L * sizeof(int), "sets of layers", e));
    int *keep = mem;
    for (int l = 0; l < L; l++) keep[l * L + l] = 1; // line 4: only layer l is softmax
    const int rc = score_sets(out, s, keep, NULL, L, name, "layer", 0, memo, e);
    mem_free(mem);
    if (!rc) score_rank(out, L);
    return rc;
}

int score_sets(LayerScore *out, const Scoring *s, const int *keep, const int *alive, int n, const char *name,
               const char *record, int64_t until, Memo *memo, Err *e) {
    const StageOptions *o = &s->stage;
    const int64_t steps = stage_steps(o) * stage_micro_batches(o);
    const int L = s->stage1_student->c.L, last = !until || until >= stage_steps(o);
    char result[128], training[128];
    Teacher teacher; // its hidden states are shared by all hybrids
    void *mem;
    int rc = OK, found;
    snprintf(result, sizeof result, "%s/%s", name, record);
    snprintf(training, sizeof training, "%s/layer", name);
    TRY(stage_check(o, "score", e));
    TRY(mem_alloc(&mem, (size_t)n, "scored hybrids", e));
    char *done = mem;
    rc = teacher_open(&teacher, s->teacher, o->micro_batch_size, o->train_seq_len, steps, s->cache, e);
    for (int pass = 0; pass < 2; pass++) // first what nobody is at, then what others have made meanwhile
        for (int i = 0; i < n && !rc; i++) {
            if (done[i] || (alive && !alive[i])) continue;
            rc = (pass ? memo->get : memo->try_get)(memo, result, i, &layer_score_record, &out[i], &found, e);
            if (!rc && found < 0) continue;
            if (!rc && !found) {
                rc = hybrid_score(&out[i], s, &teacher, keep + (size_t)i * L, i, training, until, memo, e);
                if (!rc) rc = memo->put(memo, result, i, &layer_score_record, &out[i], e);
            }
            done[i] = 1;
            if (!rc) score_value(&out[i], s);
            if (!rc && last && !alive) rc = memo->drop(memo, training, i, e); // also what a crash left behind
        }
    teacher_close(&teacher);
    mem_free(mem);
    return rc;
}

/* ---------------------------------------------------------------- one hybrid */

/* What a run keeps in its training state: number of points, the points, the last evaluation's batches. */
enum { POINT = 1, BATCH = POINT + 5 * SCORE_POINTS, STATE = BATCH + HELDOUT_MAX };
typedef struct {
    Distill d; /* first: its gradients take this struct as their own */
    Heldout *heldout;
    int64_t steps, every;
    double state[STATE];
} Run;

/* Line 6 in steps: every evaluation of a run is a point of its trajectory. */
static int run_after(void *ctx, int64_t done, int64_t tokens, double recent, Err *e) {
    Run *r = ctx;
    HeldoutResult h;
    if (done % r->every && done != r->steps) return OK;
    TRY(heldout_run(r->heldout, r->d.student, &h, e));
    const double v[5] = {(double)done, (double)tokens, h.kl, h.kl_se, recent};
    memcpy(r->state + POINT + 5 * (int)r->state[0], v, sizeof v);
    memcpy(r->state + BATCH, h.batch_kl, sizeof h.batch_kl);
    r->state[0] += 1;
    return OK;
}

static void run_result(LayerScore *out, const Run *r, int i, const TrainResult *t) {
    *out = (LayerScore){.layer = i, .tokens = t->tokens, .seconds = t->seconds, .batches = r->heldout->batches};
    out->recall = NAN;
    out->points = (int)r->state[0];
    for (int k = 0; k < out->points; k++) {
        const double *v = r->state + POINT + 5 * k;
        out->point[k] = (ScorePoint){(int64_t)v[0], (int64_t)v[1], v[2], v[3], v[4]};
    }
    memcpy(out->batch_kl, r->state + BATCH, sizeof out->batch_kl);
}

/* From the last point to the score. */
static void score_value(LayerScore *v, const Scoring *s) {
    const ScorePoint *end = &v->point[v->points - 1];
    const double kl = s->official ? end->running : end->kl;
    v->running = end->running;
    v->se = end->kl_se;
    v->score = s->removal ? kl : 0 - kl; // 0 - x: a KL of 0 is not written as -0
}

static int run_train(LayerScore *out, Run *r, const Scoring *s, Model *hybrid, Teacher *teacher, int i,
                     const char *name, int64_t until, Memo *memo, Err *e) {
    char run[32];
    TrainResult t;
    snprintf(run, sizeof run, "layer-%d", i);
    r->heldout = s->heldout;
    r->steps = stage_steps(&s->stage);
    TRY(scoring_every(s, &r->every, e));
    TRY(distill_open(&r->d, hybrid, teacher, s->text, &s->stage, s->tau, s->checkpointing, e));
    Task task = distill_task(&r->d, run);
    task.stage = "score";
    task.after = run_after;
    task.extra = r->state;
    task.n_extra = STATE;
    int rc = memo->train(memo, name, i, &task, &s->stage, until, &t, e);
    if (!rc) run_result(out, r, i, &t);
    if (!rc && s->probe && t.step == r->steps) rc = s->probe(s->probe_ctx, hybrid, &out->recall, e);
    distill_close(&r->d);
    return rc;
}

/* Lines 4 to 6 for one hybrid. */
static int hybrid_score(LayerScore *out, const Scoring *s, Teacher *teacher, const int *keep, int i, const char *name,
                        int64_t until, Memo *memo, Err *e) {
    Model hybrid;
    void *run;
    TRY(hybrid_open(&hybrid, s->teacher, s->stage1_student, keep, GRAD_ALL, e));
    int rc = mem_alloc(&run, sizeof(Run), "scoring run", e);
    if (!rc) {
        rc = run_train(out, run, s, &hybrid, teacher, i, name, until, memo, e);
        mem_free(run);
    }
    model_close(&hybrid);
    return rc;
}

int scoring_every(const Scoring *s, int64_t *every, Err *e) {
    const int64_t steps = stage_steps(&s->stage);
    *every = s->eval_every > 0 ? s->eval_every : steps >= 8 ? steps / 8 : 1;
    if ((steps + *every - 1) / *every <= SCORE_POINTS) return OK;
    return err_set(e, ERR_USAGE, "score: %lld steps with an evaluation every %lld: expected at most %d evaluations",
                   (long long)steps, (long long)*every, SCORE_POINTS);
}
