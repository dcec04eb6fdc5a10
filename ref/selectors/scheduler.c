/* scheduler.c - one scheduler for scoring runs. See scheduler.h. */
#include "selectors/scheduler.h"
#include "base/mem.h"
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const Scoring *s;
    const SchedulerOptions *o;
    const int *keep;
    const char *name;
    Memo *memo;
    int alive[MAX_LAYERS], n, living, rounds;
    int *top; /* (rounds,K) */
    EarlyStopState state;
} Scheduler;

/* What the scheduler leaves behind. */
typedef struct {
    int rounds, stopped, backbone, places;
    int64_t tokens, all;
    double jaccard, saved;
    int top[SCORE_POINTS * MAX_LAYERS]; /* the first K of every round */
} Saved;
#define S(KEY, KIND, MEMBER)                                                                                           \
    { KEY, KIND, offsetof(Saved, MEMBER), 0, 0, FIELD_ALWAYS, 0, NULL }
static const Field SAVED[] = {S("rounds", FIELD_INT, rounds),
                              S("stopped", FIELD_BOOL, stopped),
                              S("backbone", FIELD_INT, backbone),
                              S("jaccard_mean", FIELD_REAL, jaccard),
                              S("tokens", FIELD_I64, tokens),
                              S("tokens_of_full_runs", FIELD_I64, all),
                              S("saved", FIELD_REAL, saved),
                              {"top", FIELD_INTS, offsetof(Saved, top), offsetof(Saved, places),
                               SCORE_POINTS *MAX_LAYERS, FIELD_ALWAYS, 0, NULL}};
#undef S
static const Record saved_record = {SAVED, sizeof SAVED / sizeof *SAVED, sizeof(Saved)};

static void scheduler_top(Scheduler *r, const LayerScore *s) {
    double value[MAX_LAYERS] = {0};
    int order[MAX_LAYERS];
    for (int l = 0; l < r->n; l++) value[l] = r->alive[l] ? s[l].score : NAN;
    score_order(value, r->n, order);
    memcpy(r->top + (size_t)r->rounds * r->o->K, order, (size_t)r->o->K * sizeof *order);
}

static void scheduler_halve(Scheduler *r, LayerScore *s) {
    const double *kl[MAX_LAYERS];
    double mean[MAX_LAYERS] = {0}, se[MAX_LAYERS] = {0};
    int drop[MAX_LAYERS];
    if (r->o->halving_z <= 0) return;
    for (int l = 0; l < r->n; l++) kl[l] = s[l].batch_kl;
    halving_drop(kl, r->n, r->s->heldout->batches, r->o->K, r->o->halving_z, r->alive, drop, mean, se);
    for (int l = 0; l < r->n; l++) {
        if (!drop[l]) continue;
        s[l].dropped = s[l].point[s[l].points - 1].step;
        s[l].drop_mean = mean[l];
        s[l].drop_se = se[l];
        r->alive[l] = 0;
        r->living--;
    }
}

static int scheduler_round(Scheduler *r, LayerScore *s, int64_t every, Err *e) {
    char record[40];
    snprintf(record, sizeof record, "rounds-%d/layer", r->rounds + 1);
    TRY(score_sets(s, r->s, r->keep, r->alive, r->n, r->name, record, (r->rounds + 1) * every, r->memo, e));
    scheduler_top(r, s);
    r->rounds++;
    r->state = early_stop(&r->o->stop, r->top, r->rounds, r->o->K, r->n);
    scheduler_halve(r, s);
    return OK;
}

static int scheduler_saved(const Scheduler *r, const LayerScore *s, const int *in, Err *e) {
    const StageOptions *o = &r->s->stage;
    char name[128];
    void *mem;
    TRY(mem_alloc(&mem, sizeof(Saved), "scoring runs", e));
    Saved *v = mem;
    *v = (Saved){.rounds = r->rounds, .stopped = r->state.stop, .backbone = r->state.backbone};
    v->jaccard = r->state.jaccard;
    for (int l = 0; l < r->n; l++) {
        if (in && !in[l]) continue;
        v->tokens += s[l].tokens;
        v->all += stage_steps(o) * stage_micro_batches(o) * o->micro_batch_size * o->train_seq_len;
    }
    v->saved = 1 - (double)v->tokens / (double)v->all;
    v->places = r->rounds * r->o->K;
    memcpy(v->top, r->top, (size_t)v->places * sizeof *v->top);
    snprintf(name, sizeof name, "%s/early_stop", r->name);
    const int rc = r->memo->put(r->memo, name, -1, &saved_record, v, e);
    mem_free(mem);
    return rc;
}

/* The rows as results, and what was in progress away. */
static int scheduler_finish(const Scheduler *r, const LayerScore *s, const int *in, Err *e) {
    char name[128];
    TRY(scheduler_saved(r, s, in, e));
    snprintf(name, sizeof name, "%s/layer", r->name);
    for (int l = 0; l < r->n; l++)
        if (!in || in[l]) TRY(r->memo->put(r->memo, name, l, &layer_score_record, &s[l], e));
    for (int l = 0; l < r->n; l++)
        if (!in || in[l]) TRY(r->memo->drop(r->memo, name, l, e));
    if (r->memo->shared(r->memo)) return OK; // others may still be at an earlier round
    for (int i = 1; i <= r->rounds; i++) {
        snprintf(name, sizeof name, "%s/rounds", r->name);
        TRY(r->memo->drop(r->memo, name, i, e));
    }
    return OK;
}

/* Until every alive run is at its last step, the top K has settled, or no more than K runs are left. */
static int scheduler_rounds(Scheduler *r, LayerScore *s, const int *in, Err *e) {
    int64_t every;
    void *mem;
    TRY(scoring_every(r->s, &every, e));
    const int64_t rounds = (stage_steps(&r->s->stage) + every - 1) / every;
    if (r->o->K < 1 || r->o->K > r->n)
        return err_set(e, ERR_USAGE, "early stopping: the top %d of %d layers cannot settle", r->o->K, r->n);
    TRY(mem_alloc(&mem, (size_t)rounds * r->o->K * sizeof(int), "top sets", e));
    r->top = mem;
    int rc = OK;
    while (!rc && r->rounds < rounds && !r->state.stop && (r->living > r->o->K || !r->rounds))
        rc = scheduler_round(r, s, every, e);
    if (!rc) rc = scheduler_finish(r, s, in, e);
    mem_free(mem);
    return rc;
}

/* Whether all results of an earlier call are there. */
static int scheduler_found(const Scheduler *r, LayerScore *s, const int *in, int *found, Err *e) {
    char name[128];
    *found = 1;
    snprintf(name, sizeof name, "%s/layer", r->name);
    for (int l = 0; l < r->n && *found; l++)
        if (!in || in[l]) TRY(r->memo->look(r->memo, name, l, &layer_score_record, &s[l], found, e));
    return OK;
}

int scheduler_run(LayerScore *out, const Scoring *s, const SchedulerOptions *options, const int *keep, const int *in,
                  int n, const char *name, Memo *memo, Err *e) {
    static const SchedulerOptions none;
    Scheduler r = {.s = s, .o = options ? options : &none, .keep = keep, .name = name, .memo = memo, .n = n};
    int found = 0;
    for (int l = 0; l < n; l++) r.living += r.alive[l] = !in || in[l];
    if (r.o->stop.R || r.o->halving_z > 0) {
        TRY(scheduler_found(&r, out, in, &found, e));
        if (!found) TRY(scheduler_rounds(&r, out, in, e));
    } else TRY(score_sets(out, s, keep, in, n, name, "layer", 0, memo, e));
    for (int l = 0; l < n; l++)
        if (in && !in[l]) {
            memset(&out[l], 0, sizeof out[l]);
            score_finish(&out[l], l, 0);
        }
    score_rank(out, n);
    return OK;
}

int scheduler_ga_s2(LayerScore *out, const Scoring *s, const SchedulerOptions *options, const char *name, Memo *memo,
                    Err *e) {
    const int L = s->stage1_student->c.L;
    void *mem;
    if (!options->stop.R && options->halving_z <= 0) return ga_s2(out, s, name, memo, e);
    TRY(mem_alloc(&mem, (size_t)L * L * sizeof(int), "sets of layers", e));
    int *keep = mem;
    for (int i = 0; i < L * L; i++) keep[i] = i / L == i % L;
    const int rc = scheduler_run(out, s, options, keep, NULL, L, name, memo, e);
    mem_free(mem);
    return rc;
}
