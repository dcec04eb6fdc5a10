/* tasks.c - see tasks.h. */
#include "eval/tasks.h"
#include "base/mem.h"
#include "eval/choice.h"
#include "eval/questions.h"
#include "eval/score.h"
#include "eval/task_parts.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const line_end[] = {"\n", NULL}, *const blank_line[] = {"\n\n", NULL};
static const char *const gsm8k_until[] = {"Question:", "</s>", "<|im_end|>", NULL};
#define RULER_ROW(i, name, n)                                                                                          \
    { name, MATCH, n, NULL, 0, (i) + 1, NULL }
static const EvalTask tasks[] = {
    RULER_ROW(0, "niah_single_1", 128),
    RULER_ROW(1, "niah_single_2", 128),
    RULER_ROW(2, "niah_single_3", 128),
    RULER_ROW(3, "niah_multikey_1", 128),
    RULER_ROW(4, "niah_multikey_2", 128),
    RULER_ROW(5, "niah_multikey_3", 128),
    RULER_ROW(6, "niah_multiquery", 128),
    RULER_ROW(7, "niah_multivalue", 128),
    RULER_ROW(8, "ruler_vt", 30),
    RULER_ROW(9, "ruler_cwe", 120),
    RULER_ROW(10, "ruler_fwe", 50),
    RULER_ROW(11, "ruler_qa_squad", 32),
    RULER_ROW(12, "ruler_qa_hotpot", 32),
    {"piqa", CHOICE, 0, NULL, 1, 0, NULL},
    {"hellaswag", CHOICE, 0, NULL, 1, 0, NULL},
    {"arc_easy", CHOICE, 0, NULL, 1, 0, NULL},
    {"arc_challenge", CHOICE, 0, NULL, 1, 0, NULL},
    {"winogrande", CONTEXTS, 0, NULL, 0, 0, NULL},
    {"mmlu", CHOICE, 0, NULL, 0, 0, NULL},
    {"openbookqa", CHOICE, 0, NULL, 1, 0, NULL},
    {"social_iqa", CHOICE, 0, NULL, 0, 0, NULL},
    {"boolq", CHOICE, 0, NULL, 0, 0, NULL},
    {"sciq", CHOICE, 0, NULL, 1, 0, NULL},
    {"lambada_openai", LAST_WORD, 0, NULL, 0, 0, NULL},
    {"wikitext", ROLLING, 0, NULL, 0, 0, NULL},
    {"gsm8k", NUMBER, 256, gsm8k_until, 0, 0, NULL},
    {"swde", CONTAINS, 48, line_end, 0, 0, NULL},
    {"fda", CONTAINS, 48, line_end, 0, 0, NULL},
    {"squad_completion", CONTAINS, 48, blank_line, 0, 0, NULL},
    {"squadv2", SQUAD, 256, line_end, 0, 0, NULL},
    {"drill_retrieval", DIAGNOSTIC, 200, NULL, 0, 0, "retrieval"},
    {"drill_ar", DIAGNOSTIC, 200, NULL, 0, 0, "ar"},
    {"drill_ar_mh", DIAGNOSTIC, 200, NULL, 0, 0, "ar_mh"},
    {"drill_vt", DIAGNOSTIC, 200, NULL, 0, 0, "vt"},
    {"drill_cwe", DIAGNOSTIC, 200, NULL, 0, 0, "cwe"},
    {"drill_fwe", DIAGNOSTIC, 200, NULL, 0, 0, "fwe"},
    {"phone_book", DIAGNOSTIC, 200, NULL, 0, 0, "phone_book"},
};
enum { TASKS = sizeof tasks / sizeof *tasks };

const EvalTask *task_at(int i) { return i >= 0 && i < TASKS ? &tasks[i] : NULL; }
const EvalTask *task_find(const char *name) {
    const int ruler = ruler_find(name);
    if (ruler >= 0) return &tasks[ruler];
    for (int i = 0; i < TASKS; i++)
        if (!strcmp(tasks[i].name, name)) return &tasks[i];
    return NULL;
}
const char *task_name(const EvalTask *t) { return t->name; }
int task_generates(const EvalTask *t) { return t->max_new; }
int task_ruler(const EvalTask *t) { return t->ruler - 1; }
int task_diagnostic(const EvalTask *t) { return t->diagnostic != NULL; }
int task_generated(const EvalTask *t) { return t->ruler || t->diagnostic; }

static int generate(void *ctx, const EvalDoc *doc, size_t n, int max_new, const char *const *until, char ***text,
                    Err *e) {
    return lm_generate(ctx, doc, n, max_new, until, text, e);
}
static int loglik(void *ctx, const LogLikAsk *ask, size_t n, LogLik *out, Err *e) {
    return lm_loglik(ctx, ask, n, out, e);
}
static int rolling(void *ctx, const char *text, LogLik *out, Err *e) { return lm_rolling(ctx, text, out, e); }
EvalModel eval_model(Lm *lm) { return (EvalModel){lm, generate, loglik, rolling}; }

int task_read(const EvalTask *t, const char *dir, const QuestionOptions *o, EvalSet *out, Err *e) {
    const QuestionReader *r = questions_find(t->name);
    if (!r) return err_set(e, ERR_USAGE, "%s: its questions are generated, not read", t->name);
    return questions_read(r, dir, o, out, e);
}
int task_make(const EvalTask *t, int samples, int pairs, uint64_t seed, EvalSet *out, Err *e) {
    if (!t->diagnostic) return err_set(e, ERR_USAGE, "%s: not a diagnostic task", t->name);
    return task_diagnostic_make(t, samples, pairs, seed, out, e);
}

/* ---- metrics ---- */

static void metric(TaskResult *r, const char *name) {
    snprintf(r->metric[r->metrics++].name, sizeof r->metric[0].name, "%s", name);
}

static void metrics_name(const EvalTask *t, int L, TaskResult *r) {
    char length[24];
    *r = (TaskResult){0};
    snprintf(length, sizeof length, "%d", L);
    switch (t->kind) {
    case MATCH:
        metric(r, length);
        break;
    case CONTAINS:
        metric(r, "contains");
        break;
    case NUMBER:
        metric(r, "exact_match"), metric(r, "flexible_match");
        break;
    case SQUAD:
        metric(r, "exact"), metric(r, "f1"), metric(r, "no_answer_probability");
        break;
    case DIAGNOSTIC:
        metric(r, "acc");
        break;
    case LAST_WORD:
        metric(r, "acc"), metric(r, "perplexity");
        break;
    case ROLLING:
        metric(r, "word_perplexity"), metric(r, "byte_perplexity"), metric(r, "bits_per_byte");
        break;
    case CHOICE:
    case CONTEXTS:
        metric(r, "acc");
        if (t->norm) metric(r, "acc_norm");
    }
}

/* ---- a whole task ---- */

typedef struct {
    const EvalTask *t;
    const EvalModel *m;
    const EvalSet *set;
    TaskResult *r;
    TaskLog log;
    void *ctx;
    double *score;
} Run;

static int sample_done(Run *u, TaskSample *s, Err *e) {
    for (int k = 0; k < u->r->metrics; k++) u->score[(size_t)k * u->set->n + s->index] = s->score[k];
    s->doc = &u->set->doc[s->index];
    return u->log ? u->log(u->ctx, u->t, u->r, s, e) : OK;
}

/* SQuAD: the probability of " unanswerable" after each question. */
static int no_answers(const Run *u, double *p, Err *e) {
    const size_t n = u->set->n;
    void *ask_mem, *out = NULL;
    if (u->t->kind != SQUAD || !u->m->loglik) return OK;
    TRY(mem_alloc(&ask_mem, (n + 1) * sizeof(LogLikAsk), "requests", e));
    LogLikAsk *ask = ask_mem;
    for (size_t i = 0; i < n; i++) ask[i] = (LogLikAsk){u->set->doc[i].context[0], " unanswerable"};
    int rc = mem_alloc(&out, (n + 1) * sizeof(LogLik), "log-likelihoods", e);
    if (!rc) rc = u->m->loglik(u->m->ctx, ask, n, out, e);
    for (size_t i = 0; i < n && !rc; i++) p[i] = exp(((LogLik *)out)[i].sum);
    mem_free(out);
    mem_free(ask_mem);
    return rc;
}

static int squad_done(Run *u, char **text, Err *e) {
    const size_t n = u->set->n;
    void *mem;
    TRY(mem_alloc(&mem, (n + 1) * sizeof(SquadAnswer), "scores", e));
    SquadAnswer *a = mem;
    for (size_t i = 0; i < n; i++)
        a[i] = (SquadAnswer){u->score[i] / 100, u->score[n + i] / 100, u->score[2 * n + i], u->set->doc[i].n_text > 0,
                             text[i][0] != 0};
    const int rc = task_squad_metrics(a, n, u->set->threshold ? u->set->threshold : 1, u->r, e);
    mem_free(mem);
    return rc;
}

static int texts_done(Run *u, char **text, const double *no_answer, Err *e) {
    for (size_t i = 0; i < u->set->n; i++) {
        TaskSample s = {.index = i, .generated = text[i]};
        TRY(task_text_scores(u->t, u->set, &u->set->doc[i], text[i], no_answer[i], s.score, e));
        TRY(sample_done(u, &s, e));
    }
    return u->t->kind == SQUAD ? squad_done(u, text, e) : OK;
}

static int run_generation(Run *u, Err *e) {
    char **text = NULL;
    void *mem;
    TRY(mem_alloc(&mem, (u->set->n + 1) * sizeof(double), "scores", e));
    int rc = no_answers(u, mem, e);
    if (!rc)
        rc = u->m->generate(u->m->ctx, u->set->doc, u->set->n, u->set->max_new ? u->set->max_new : u->t->max_new,
                            u->set->until ? u->set->until : u->t->until, &text, e);
    if (!rc) {
        rc = texts_done(u, text, mem, e);
        lm_free_texts(text, u->set->n);
    }
    mem_free(mem);
    return rc;
}

static int requests_of(const EvalTask *t, const EvalDoc *d) { return t->kind == CONTEXTS ? d->contexts : d->n_text; }

static int choices_done(Run *u, const LogLik *ll, Err *e) {
    enum { MOST = 64 };
    double sum[MOST];
    for (size_t i = 0; i < u->set->n; i++) {
        const EvalDoc *d = &u->set->doc[i];
        const int n = requests_of(u->t, d);
        TaskSample s = {.index = i, .loglik = ll, .requests = n};
        if (n > MOST)
            return err_set(e, ERR_INPUT, "%s: question %zu has %d choices, expected at most %d", u->t->name, i, n,
                           MOST);
        for (int k = 0; k < n; k++) sum[k] = ll[k].sum;
        if (u->t->kind == LAST_WORD) {
            s.score[0] = ll->greedy;
            s.score[1] = ll->sum;
        } else if (u->t->kind == CONTEXTS) s.score[0] = (sum[1] > sum[0]) == d->gold;
        else {
            const Choice c = choice_score(sum, d->text, n, d->gold);
            s.score[0] = c.acc;
            s.score[1] = c.acc_norm;
        }
        TRY(sample_done(u, &s, e));
        ll += n;
    }
    return OK;
}

static int run_choices(Run *u, Err *e) {
    size_t n = 0, k = 0;
    void *ask_mem, *out = NULL;
    for (size_t i = 0; i < u->set->n; i++) n += (size_t)requests_of(u->t, &u->set->doc[i]);
    TRY(mem_alloc(&ask_mem, (n + 1) * sizeof(LogLikAsk), "requests", e));
    LogLikAsk *ask = ask_mem;
    for (size_t i = 0; i < u->set->n; i++) {
        const EvalDoc *d = &u->set->doc[i];
        for (int c = 0; c < requests_of(u->t, d); c++)
            ask[k++] = u->t->kind == CONTEXTS ? (LogLikAsk){d->context[c], d->text[0]}
                                              : (LogLikAsk){d->context[0], d->text[c]};
    }
    int rc = mem_alloc(&out, (n + 1) * sizeof(LogLik), "log-likelihoods", e);
    if (!rc) rc = u->m->loglik(u->m->ctx, ask, n, out, e);
    if (!rc) rc = choices_done(u, out, e);
    mem_free(out);
    mem_free(ask_mem);
    return rc;
}

/* Words as re.split(r"\s+") counts them: one more than there are runs of white space. */
static double words_of(const char *s) {
    double n = 1;
    for (size_t i = 0; s[i]; i++) n += isspace((unsigned char)s[i]) && (!i || !isspace((unsigned char)s[i - 1]));
    return n;
}

static int run_rolling(Run *u, Err *e) {
    double sum = 0, words = 0, bytes = 0;
    for (size_t i = 0; i < u->set->n; i++) {
        LogLik ll;
        const char *text = u->set->doc[i].context[0];
        TaskSample s = {.index = i, .loglik = &ll, .requests = 1};
        TRY(u->m->rolling(u->m->ctx, text, &ll, e));
        const char *raw =
            u->set->doc[i].n_text ? u->set->doc[i].text[0] : text; // the page as it stands in the file is counted
        const double w = words_of(raw), b = (double)strlen(raw);
        s.score[0] = exp(-ll.sum / w);
        s.score[1] = exp(-ll.sum / b);
        s.score[2] = -ll.sum / b / log(2);
        TRY(sample_done(u, &s, e));
        sum += ll.sum;
        words += w;
        bytes += b;
    }
    u->r->metric[0].value = exp(-sum / words);
    u->r->metric[1].value = exp(-sum / bytes);
    u->r->metric[2].value = -sum / bytes / log(2);
    for (int k = 0; k < 3; k++) u->r->metric[k].se = NAN;
    return OK;
}

int task_run(const EvalTask *t, const EvalModel *m, const EvalSet *set, int L, TaskResult *r, TaskLog log, void *ctx,
             Err *e) {
    void *mem;
    metrics_name(t, L, r);
    r->n = set->n;
    TRY(mem_alloc(&mem, (set->n + 1) * TASK_METRICS * sizeof(double), "scores", e));
    Run u = {t, m, set, r, log, ctx, mem};
    const int rc = t->max_new ? run_generation(&u, e) : t->kind == ROLLING ? run_rolling(&u, e) : run_choices(&u, e);
    for (int k = 0; k < r->metrics && !rc && t->kind != ROLLING && t->kind != SQUAD; k++)
        score_mean(u.score + (size_t)k * set->n, (int)set->n, &r->metric[k].value, &r->metric[k].se);
    if (!rc && t->kind == LAST_WORD) { // perplexity of the mean; its error by the delta rule
        r->metric[1].value = exp(-r->metric[1].value);
        r->metric[1].se *= r->metric[1].value;
    }
    if (!rc && set->percent) r->metric[0].value = floor(r->metric[0].value * 100 + .5) / 100;
    mem_free(mem);
    return rc;
}
