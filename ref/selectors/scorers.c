/* scorers.c - see scorers.h. */
#include "selectors/scorers.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "method/align.h"
#include "selectors/gates.h"
#include "selectors/gates_trained.h"
#include "selectors/swap.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- without training */

/* pick: of a greedy selector, whose rounds are kept apart. name must hold 64 bytes and stay. */
static Partial partial_of(const SelectInput *in, int pick, char *name) {
    snprintf(name, 64, "partial/%d", pick);
    return (Partial){.memo = in->memo, .name = name};
}

/* How well the teacher does without one layer's attention, or with all (layer -1). */
typedef int AblatedAccuracy(const SelectInput *in, const void *what, int layer, double *accuracy, int64_t *tokens,
                            Err *e);

/* Layer by layer: what is lost of the teacher's accuracy. Unit 0 is the whole teacher. */
static int score_ablated(const SelectInput *in, AblatedAccuracy *ablated, const void *what, LayerScore *rows, Err *e) {
    char name[64];
    int done;
    Partial partial = partial_of(in, 0, name);
    TRY(partial_begin(&partial, rows, in->L, &done, e));
    for (int unit = done; unit <= in->L; unit++) {
        double v = 0;
        TRY(ablated(in, what, unit - 1, &v, &rows[0].tokens, e));
        if (unit) rows[unit - 1].score = partial.base - v;
        else partial.base = v;
        TRY(partial_unit(&partial, rows, in->L, unit + 1, e));
    }
    const int64_t tokens = rows[0].tokens;
    for (int l = 0; l < in->L; l++) {
        const double score = rows[l].score;
        score_finish(&rows[l], l, 0);
        rows[l].score = score;
    }
    score_share(rows, in->L, tokens, partial_seconds(&partial));
    score_rank(rows, in->L);
    return OK;
}

static int ablated_recall(const SelectInput *in, const void *what, int layer, double *accuracy, int64_t *tokens,
                          Err *e) {
    (void)what;
    for (int i = 0; i < in->recall->n_n; i++)
        *tokens += (int64_t)in->recall->rows * 2 * (in->recall->n[i] + in->recall->queries);
    return recall_ablated(in->teacher, in->recall, layer, accuracy, e);
}

static int ablated_task(const SelectInput *in, const void *what, int layer, double *accuracy, int64_t *tokens, Err *e) {
    const DiagnosticTask *task = what;
    if (layer < 0) return diagnostic_accuracy(task, in->teacher, in->tokenizer, &in->tasks, accuracy, tokens, e);
    return diagnostic_ablated(task, in->teacher, in->tokenizer, &in->tasks, layer, accuracy, tokens, e);
}

int score_ablation(const SelectInput *in, LayerScore *rows, Err *e) {
    return score_ablated(in, ablated_recall, NULL, rows, e);
}

static int score_task(const SelectInput *in, const char *name, LayerScore *rows, Err *e) {
    return score_ablated(in, ablated_task, diagnostic_find(name), rows, e);
}
int score_ar(const SelectInput *in, LayerScore *rows, Err *e) { return score_task(in, "ar", rows, e); }
int score_ar_mh(const SelectInput *in, LayerScore *rows, Err *e) { return score_task(in, "ar_mh", rows, e); }
int score_vt(const SelectInput *in, LayerScore *rows, Err *e) { return score_task(in, "vt", rows, e); }
int score_cwe(const SelectInput *in, LayerScore *rows, Err *e) { return score_task(in, "cwe", rows, e); }
int score_fwe(const SelectInput *in, LayerScore *rows, Err *e) { return score_task(in, "fwe", rows, e); }
int score_phone_book(const SelectInput *in, LayerScore *rows, Err *e) { return score_task(in, "phone_book", rows, e); }
int score_retrieval(const SelectInput *in, LayerScore *rows, Err *e) { return score_task(in, "retrieval", rows, e); }

static int swap_round(const SelectInput *in, SwapKind kind, Model *stage1_student, const int *picked, int pick,
                      LayerScore *rows, Err *e) {
    char name[64];
    Partial partial = partial_of(in, pick, name);
    return swap_scores(rows, kind, in->teacher, stage1_student, picked, in->heldout, &partial, e);
}

static int gates_round(const SelectInput *in, const int *picked, int pick, int nodes, LayerScore *rows, Err *e) {
    char name[64];
    Partial partial = partial_of(in, pick, name);
    return gates_scores(rows, in->teacher, in->stage1_student, picked, nodes, in->heldout, &partial, e);
}

int score_ppl(const SelectInput *in, LayerScore *rows, Err *e) {
    return swap_round(in, SWAP_PPL, NULL, NULL, 0, rows, e);
}
int score_act_mse(const SelectInput *in, LayerScore *rows, Err *e) {
    return swap_round(in, SWAP_MSE, NULL, NULL, 0, rows, e);
}
int score_swap(const SelectInput *in, LayerScore *rows, Err *e) {
    return swap_round(in, SWAP_ADD, in->stage1_student, NULL, 0, rows, e);
}
int score_swap_remove(const SelectInput *in, LayerScore *rows, Err *e) {
    return swap_round(in, SWAP_REMOVE, in->stage1_student, NULL, 0, rows, e);
}
int score_gates(const SelectInput *in, LayerScore *rows, Err *e) { return gates_round(in, NULL, 0, 0, rows, e); }
int score_path_gates(const SelectInput *in, LayerScore *rows, Err *e) {
    return gates_round(in, NULL, 0, PATH_NODES, rows, e);
}

int score_gates_trained(const SelectInput *in, LayerScore *rows, Err *e) {
    char name[64];
    Partial partial = partial_of(in, 0, name);
    return gates_train(rows, in->teacher, in->stage1_student, in->K, GATES_STEPS, in->heldout, &partial, e);
}

/* ---------------------------------------------------------------- S1 */

/* Stage-1 losses of one held-out batch into rows: of the layer itself, or minus the mean of what all others leave. */
static int s1_batch(Align *a, const SelectInput *in, int i, int addition, LayerScore *rows, Err *e) {
    double loss, layer[MAX_LAYERS], sum = 0;
    TRY(batch_text(&a->batch, &a->data, HELDOUT, (uint64_t)i, e));
    TRY(align_batch(a, 0, &loss, layer, e));
    for (int l = 0; l < in->L; l++) sum += layer[l];
    for (int l = 0; l < in->L; l++) rows[l].batch_kl[i] = addition ? -(sum - layer[l]) / in->L : layer[l];
    return OK;
}

static int score_s1(const SelectInput *in, int addition, LayerScore *rows, Err *e) {
    const Heldout *h = in->heldout;
    const StageOptions o = {.steps = 1, .batch_size = h->B, .micro_batch_size = h->B, .train_seq_len = h->T};
    char name[64];
    int done;
    Align a;
    Partial partial = partial_of(in, 0, name);
    TRY(partial_begin(&partial, rows, in->L, &done, e));
    TRY(align_open(&a, in->teacher, in->stage1_student, &h->data, &o, in->align_form, e));
    int rc = OK;
    for (int i = done; i < h->batches && !rc; i++) {
        rc = s1_batch(&a, in, i, addition, rows, e);
        if (!rc) rc = partial_unit(&partial, rows, in->L, i + 1, e);
    }
    align_close(&a);
    if (rc) return rc;
    for (int l = 0; l < in->L; l++) score_finish(&rows[l], l, h->batches);
    score_share(rows, in->L, (int64_t)h->batches * h->B * h->T, partial_seconds(&partial));
    score_rank(rows, in->L);
    return OK;
}

int score_ga_s1(const SelectInput *in, LayerScore *rows, Err *e) { return score_s1(in, 1, rows, e); }
int score_gr_s1(const SelectInput *in, LayerScore *rows, Err *e) { return score_s1(in, 0, rows, e); }

void score_average(LayerScore *rows, const LayerScore *a, const LayerScore *b, int L) {
    for (int l = 0; l < L; l++) {
        const LayerScore x = a[l], y = b[l]; // rows may be b
        memset(&rows[l], 0, sizeof rows[l]);
        score_finish(&rows[l], l, 0);
        rows[l].score = -(x.rank + y.rank) / 2.0;
        rows[l].tokens = x.tokens + y.tokens;
        rows[l].seconds = x.seconds + y.seconds;
    }
    score_rank(rows, L);
}

int score_avg_s1(const SelectInput *in, LayerScore *rows, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, (size_t)in->L * sizeof(LayerScore), "layer scores", e));
    int rc = score_s1(in, 1, mem, e);
    if (!rc) rc = score_s1(in, 0, rows, e);
    if (!rc) score_average(rows, mem, rows, in->L);
    mem_free(mem);
    return rc;
}

/* ---------------------------------------------------------------- S2: with training */

/* NAME-S: where the runs of selector S are kept. name must hold 96 bytes. */
static const char *runs_of(const SelectInput *in, const char *selector, char *name) {
    snprintf(name, 96, "%.40s-%.50s", in->name ? in->name : "scores", selector);
    return name;
}

/* Whether runs of layers may end early; never when a score is a loss to be kept. */
static SchedulerOptions scheduler_of(const SelectInput *in, int halving) {
    SchedulerOptions scheduler = in->scheduler ? *in->scheduler : (SchedulerOptions){0};
    scheduler.K = in->K;
    if (!halving) scheduler.halving_z = 0;
    return scheduler;
}

/* GR-S2: the teacher with only layer l linear; the larger the KL, the more important the layer. */
int score_gr_s2(const SelectInput *in, LayerScore *rows, Err *e) {
    char name[96];
    const int L = in->L;
    const SchedulerOptions scheduler = scheduler_of(in, 0);
    Scoring s = *in->scoring;
    void *mem;
    s.removal = 1;
    TRY(mem_alloc(&mem, (size_t)L * L * sizeof(int), "sets of layers", e));
    int *keep = mem;
    for (int i = 0; i < L * L; i++) keep[i] = i / L != i % L;
    const int rc = scheduler_run(rows, &s, &scheduler, keep, NULL, L, runs_of(in, "gr_s2", name), in->memo, e);
    mem_free(mem);
    return rc;
}

int score_avg_s2(const SelectInput *in, LayerScore *rows, Err *e) {
    TRY(score_gr_s2(in, rows, e));
    score_average(rows, in->score, rows, in->L);
    return OK;
}

/* One hybrid for each layer: that layer softmax, and those that are picked already (NULL: none). */
static int score_added(const SelectInput *in, const Scoring *s, const SchedulerOptions *scheduler, const int *picked,
                       const char *name, LayerScore *rows, Err *e) {
    const int L = in->L;
    void *mem;
    TRY(mem_alloc(&mem, ((size_t)L + 1) * L * sizeof(int), "sets of layers", e));
    int *keep = mem, *left = keep + L * L;
    for (int i = 0; i < L * L; i++) keep[i] = i / L == i % L || (picked && picked[i % L]);
    for (int l = 0; l < L; l++) left[l] = !picked || !picked[l];
    const int rc = scheduler_run(rows, s, scheduler, keep, picked ? left : NULL, L, name, in->memo, e);
    mem_free(mem);
    return rc;
}

/* The trunk: stage 2 of the student with all layers linear, for as many steps as a scoring run has. */
static int trunk_train(const SelectInput *in, const char *name, Model *trunk, TrainResult *t, Err *e) {
    const Scoring *s = in->scoring;
    const StageOptions *stage = &s->stage;
    char training[128];
    Teacher teacher;
    Distill d;
    snprintf(training, sizeof training, "%s/trunk", name);
    TRY(teacher_open(&teacher, in->teacher, stage->micro_batch_size, stage->train_seq_len, 0, 0, e));
    int rc = distill_open(&d, trunk, &teacher, s->text, stage, s->tau, s->checkpointing, e);
    if (!rc) {
        Task task = distill_task(&d, "trunk");
        task.stage = "score";
        rc = in->memo->train(in->memo, training, -1, &task, stage, 0, t, e);
        distill_close(&d);
    }
    teacher_close(&teacher);
    return rc;
}

int score_trunk_s2(const SelectInput *in, LayerScore *rows, Err *e) {
    const int none[MAX_LAYERS] = {0};
    char name[96];
    Scoring s = *in->scoring;
    const SchedulerOptions scheduler = scheduler_of(in, 1);
    Model trunk;
    TrainResult t;
    TRY(hybrid_open(&trunk, in->teacher, in->stage1_student, none, GRAD_ALL, e));
    int rc = trunk_train(in, runs_of(in, "trunk_s2", name), &trunk, &t, e);
    if (!rc) {
        const int64_t steps = stage_steps(&s.stage);
        s.stage.steps = in->branch_steps > 0 ? in->branch_steps : steps > 4 ? steps / 4 : 1;
        s.eval_every = 0;
        s.stage1_student = &trunk;
        rc = score_added(in, &s, &scheduler, NULL, name, rows, e);
    }
    model_close(&trunk);
    for (int l = 0; l < in->L && !rc; l++) {
        rows[l].tokens += t.tokens / in->L + (l < t.tokens % in->L);
        rows[l].seconds += t.seconds / in->L;
    }
    return rc;
}

/* ---------------------------------------------------------------- one pick after the other */

typedef int Round(const SelectInput *in, const int *picked, int pick, LayerScore *rows, Err *e);

/* rows: picked layers as they were when picked, the rest from the last round. */
static int greedy(const SelectInput *in, Round *round, LayerScore *rows, Err *e) {
    int picked[MAX_LAYERS] = {0};
    int64_t tokens[MAX_LAYERS] = {0};
    double seconds[MAX_LAYERS] = {0};
    void *mem;
    TRY(mem_alloc(&mem, (size_t)in->L * sizeof(LayerScore), "layer scores", e));
    LayerScore *now = mem;
    int rc = OK;
    for (int pick = 0; pick < (in->K > 0 ? in->K : 1) && !rc; pick++) {
        int best = -1;
        rc = round(in, picked, pick, now, e);
        for (int l = 0; l < in->L && !rc; l++) {
            tokens[l] += now[l].tokens;
            seconds[l] += now[l].seconds;
            if (picked[l]) continue;
            rows[l] = now[l];
            rows[l].rank = pick + now[l].rank; // behind all picked ones
            if (now[l].rank == 1) best = l;
        }
        if (best >= 0 && pick < in->K) picked[best] = 1;
    }
    for (int l = 0; l < in->L && !rc; l++) {
        rows[l].tokens = tokens[l];
        rows[l].seconds = seconds[l];
    }
    mem_free(mem);
    return rc;
}

static int round_swap(const SelectInput *in, const int *picked, int pick, LayerScore *rows, Err *e) {
    return swap_round(in, SWAP_ADD, in->stage1_student, picked, pick, rows, e);
}
static int round_gates(const SelectInput *in, const int *picked, int pick, LayerScore *rows, Err *e) {
    return gates_round(in, picked, pick, 0, rows, e);
}
static int round_ga_s2(const SelectInput *in, const int *picked, int pick, LayerScore *rows, Err *e) {
    char selector[32], name[96];
    const int scheduler = in->scheduler && (in->scheduler->stop.R || in->scheduler->halving_z > 0);
    if (!pick && in->score && !scheduler) { // nothing is picked yet: these are GA-S2's runs
        memcpy(rows, in->score, (size_t)in->L * sizeof *rows);
        return OK;
    }
    snprintf(selector, sizeof selector, "ga_s2_greedy-%d", pick);
    // no early end: the first K of a round are not the question
    return score_added(in, in->scoring, NULL, picked, runs_of(in, selector, name), rows, e);
}

int score_swap_greedy(const SelectInput *in, LayerScore *rows, Err *e) { return greedy(in, round_swap, rows, e); }
int score_gates_greedy(const SelectInput *in, LayerScore *rows, Err *e) { return greedy(in, round_gates, rows, e); }
int score_ga_s2_greedy(const SelectInput *in, LayerScore *rows, Err *e) { return greedy(in, round_ga_s2, rows, e); }

/* ---------------------------------------------------------------- all sets */

int subsets(int *sets, int cap, int L, int K) {
    int pick[MAX_LAYERS], n = 0;
    for (int i = 0; i < K; i++) pick[i] = i;
    for (;;) {
        if (n == cap) return cap + 1;
        memset(sets + (size_t)n * L, 0, (size_t)L * sizeof *sets);
        for (int i = 0; i < K; i++) sets[(size_t)n * L + pick[i]] = 1;
        n++;
        int i = K - 1;
        while (i >= 0 && pick[i] == L - K + i) i--;
        if (i < 0) return n;
        pick[i]++;
        for (int k = i + 1; k < K; k++) pick[k] = pick[k - 1] + 1;
    }
}

static int sets_csv(const int *sets, const LayerScore *s, int n, int L, const char *name, Memo *memo, Err *e) {
    TextBuf b = {0};
    char file[128], text[256];
    textbuf_puts(&b, "rank,kl,stderr,recall,layers\n");
    for (int rank = 1; rank <= n; rank++)
        for (int i = 0; i < n; i++) {
            if (s[i].rank != rank) continue;
            select_text(text, sizeof text, sets + (size_t)i * L, L);
            textbuf_printf(&b, "%d,%.9g,%.3g,%.6g,\"%s\"\n", rank, -s[i].score, s[i].se, s[i].recall, text);
        }
    int rc = textbuf_end(&b, e);
    snprintf(file, sizeof file, "%s/sets.csv", name);
    if (!rc) rc = memo->text(memo, file, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}

/* Rows: the members of the best set first, each with that set's score; then the others with the score of the best set
 * they are in. */
static void sets_rows(const int *sets, const LayerScore *s, int n, int L, LayerScore *rows) {
    memset(rows, 0, (size_t)L * sizeof *rows);
    for (int l = 0; l < L; l++) {
        score_finish(&rows[l], l, 0);
        for (int i = 0; i < n; i++)
            if (sets[(size_t)i * L + l] && !(s[i].score <= rows[l].score))
                rows[l].score = s[i].score, rows[l].se = s[i].se, rows[l].recall = s[i].recall;
    }
    score_rank(rows, L);
}

int score_exhaustive(const SelectInput *in, LayerScore *rows, Err *e) {
    char name[96];
    void *mem, *scores;
    runs_of(in, "exhaustive", name);
    const int L = in->L;
    TRY(mem_alloc(&mem, (size_t)MAX_LAYERS * L * sizeof(int), "sets of layers", e));
    const int n = subsets(mem, MAX_LAYERS, L, in->K);
    int rc = OK;
    if (n > MAX_LAYERS)
        rc = err_set(e, ERR_USAGE, "exhaustive: more than %d sets of %d out of %d layers", MAX_LAYERS, in->K, L);
    if (!rc) rc = mem_alloc(&scores, (size_t)n * sizeof(LayerScore), "set scores", e);
    if (rc) return mem_free(mem), rc;
    LayerScore *s = scores;
    rc = scheduler_run(s, in->scoring, NULL, mem, NULL, n, name, in->memo, e);
    if (!rc) rc = sets_csv(mem, s, n, L, name, in->memo, e);
    if (!rc) {
        int64_t tokens = 0;
        double seconds = 0;
        for (int i = 0; i < n; i++) tokens += s[i].tokens, seconds += s[i].seconds;
        sets_rows(mem, s, n, L, rows);
        score_share(rows, L, tokens, seconds);
    }
    mem_free(scores);
    mem_free(mem);
    return rc;
}
