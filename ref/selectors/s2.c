/* s2.c - families ga_s2, gr_s2, avg_s2, trunk_s2, exhaustive: a short stage 2 of every hybrid, then its held-out KL.
 * GA-S2 itself is method/ga_s2.c; the scheduler may end its runs early (ref/METHOD.md 3, 7, 8). */
#include "selectors/s2.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "selectors/parts.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

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
static int score_gr_s2(const Selector *selector, const SelectInput *in, LayerScore *rows, Err *e) {
    (void)selector;
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

static int score_avg_s2(const Selector *selector, const SelectInput *in, LayerScore *rows, Err *e) {
    TRY(score_gr_s2(selector, in, rows, e));
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

static int score_trunk_s2(const Selector *selector, const SelectInput *in, LayerScore *rows, Err *e) {
    (void)selector;
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
        s.stage.steps = in->own.branch_steps > 0 ? in->own.branch_steps : steps > 4 ? steps / 4 : 1;
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

static int score_ga_s2_greedy(const Selector *selector, const SelectInput *in, LayerScore *rows, Err *e) {
    (void)selector;
    return greedy(in, round_ga_s2, rows, e);
}

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

static int score_exhaustive(const Selector *selector, const SelectInput *in, LayerScore *rows, Err *e) {
    (void)selector;
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

/* ---------------------------------------------------------------- rows */

static const Selector ga_s2_rows[] = {
    {NULL, "ga_s2", "KL-guided: one-swap KL to the teacher", "-KL to the teacher (nats per token)", NEEDS_SCORES, NULL,
     choose_score, NULL, 0},
    {"greedy", "ga_s2_greedy", "ga_s2, scored anew after each pick", "-KL given the picks before (nats per token)",
     NEEDS_STUDENT | NEEDS_K | NEEDS_TRAINING, score_ga_s2_greedy, choose_own, "official_score", 0},
};
const SelectorFamily family_ga_s2 = {.name = "ga_s2", FAMILY(ga_s2_rows)};

static const Selector gr_s2[] = {{NULL, "gr_s2", "KL of the teacher with this layer linear, distilled",
                                  "KL to the teacher (nats per token)", NEEDS_STUDENT | NEEDS_TRAINING, score_gr_s2,
                                  choose_own, "official_score", 0}};
const SelectorFamily family_gr_s2 = {.name = "gr_s2", FAMILY(gr_s2)};

static const Selector avg_s2[] = {{NULL, "avg_s2", "mean of the ranks of ga_s2 and gr_s2", "-mean rank",
                                   NEEDS_SCORES | NEEDS_STUDENT | NEEDS_TRAINING, score_avg_s2, choose_own,
                                   "official_score", 0}};
const SelectorFamily family_avg_s2 = {.name = "avg_s2", FAMILY(avg_s2)};

static const Selector trunk_s2[] = {{NULL, "trunk_s2", "ga_s2 as short branches of one distilled all-linear trunk",
                                     "-KL to the teacher (nats per token)", NEEDS_STUDENT | NEEDS_TRAINING,
                                     score_trunk_s2, choose_own, "official_score,branch_steps", 0}};
const SelectorFamily family_trunk_s2 = {.name = "trunk_s2", FAMILY(trunk_s2)};

static const Selector exhaustive[] = {{NULL, "exhaustive", "the best of all sets of K layers, each distilled",
                                       "-KL of the best set with this layer (nats per token)",
                                       NEEDS_STUDENT | NEEDS_K | NEEDS_TRAINING | ONE_K, score_exhaustive, choose_own,
                                       "official_score", 0}};
const SelectorFamily family_exhaustive = {.name = "exhaustive", FAMILY(exhaustive)};
