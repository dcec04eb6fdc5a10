/* task_score.c - scores of generated answers, one question at a time, and SQuAD's over all of them. See task_parts.h.
 * */
#include "base/mem.h"
#include "eval/score.h"
#include "eval/task_parts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* lm-evaluation-harness's gsm8k (version 3), its regular expressions by hand:
 *   strict-match      #### (\-?[0-9\.\,]+)             the first match
 *   flexible-extract  (-?[$0-9.,]{2,})|(-?[0-9]+)      the last match
 * What they give, and the gold answer, loses "," "$", all up to "#### ", and one "." at the end; then both are
 * compared. */
static size_t number_strict(const char *text, const char **from) {
    for (const char *p = text; (p = strstr(p, "#### ")); p++) {
        const char *s = p + 5;
        const size_t sign = *s == '-', n = strspn(s + sign, "0123456789.,");
        if (n) return *from = s, sign + n;
    }
    return 0;
}
static size_t number_flexible(const char *text, const char **from) {
    size_t found = 0;
    for (const char *p = text; *p;) {
        const size_t sign = *p == '-', many = strspn(p + sign, "$0123456789.,"),
                     digits = strspn(p + sign, "0123456789");
        const size_t n = many >= 2 ? sign + many : digits ? sign + digits : 0;
        if (n) *from = p, found = n;
        p += n ? n : 1;
    }
    return found;
}
static void number_clean(const char *s, size_t n, char *dst, size_t cap) {
    size_t k = 0;
    for (size_t i = n; i >= 5; i--)
        if (!memcmp(s + i - 5, "#### ", 5)) {
            s += i, n -= i;
            break;
        }
    for (size_t i = 0; i < n && k + 1 < cap; i++)
        if (s[i] != ',' && s[i] != '$') dst[k++] = s[i];
    if (k && dst[k - 1] == '.') k--;
    dst[k] = 0;
}

static void number_scores(const char *text, const char *gold, double score[2]) {
    char want[64], got[64];
    number_clean(gold, strlen(gold), want, sizeof want);
    for (int flexible = 0; flexible < 2; flexible++) {
        const char *from = "[invalid]";
        const size_t n = flexible ? number_flexible(text, &from) : number_strict(text, &from);
        number_clean(from, n ? n : strlen(from), got, sizeof got);
        score[flexible] = !strcmp(want, got);
    }
}

static double diagnostic_score(const EvalTask *t, const EvalDoc *d, const char *text) {
    const DiagnosticSample s = {.answer = {.text = d->text[0], .len = strlen(d->text[0])},
                                .words = {.text = d->text[1], .len = strlen(d->text[1])}};
    return diagnostic_find(t->diagnostic)->right(&s, text);
}

/* exact, F1 of the threshold 1, and what the sweep needs: the probability. */
static int squad_scores(const EvalDoc *d, const char *text, double no_answer, double *score, Err *e) {
    TRY(score_squad(text, d->text, d->n_text, &score[0], &score[1], e));
    score[0] *= 100;
    score[1] *= 100;
    score[2] = no_answer;
    return OK;
}

int task_text_scores(const EvalTask *t, const EvalSet *set, const EvalDoc *d, const char *text, double no_answer,
                     double *score, Err *e) {
    switch (t->kind) {
    case MATCH:
        TRY(score_match(text, d->text, d->n_text, set->any, score, e));
        *score *= set->percent ? 100 : 1;
        return OK;
    case CONTAINS:
        return score_contains(text, d->text[0], score, e);
    case NUMBER:
        return number_scores(text, d->text[0], score), OK;
    case DIAGNOSTIC:
        *score = diagnostic_score(t, d, text);
        return OK;
    default:
        return squad_scores(d, text, no_answer, score, e);
    }
}

/* ---- SQuAD 2.0 ---- */

static int surer_first(const void *a, const void *b) {
    const SquadAnswer *x = a, *y = b;
    return (x->no_answer > y->no_answer) - (x->no_answer < y->no_answer);
}

/* From silence on, answers are let through in the order of their no-answer probability; the best sum on the way. */
static double best_sum(const SquadAnswer *a, size_t n, int f1) {
    double now = 0, best;
    for (size_t i = 0; i < n; i++) now += !a[i].has;
    best = now;
    for (size_t i = 0; i < n; i++) {
        now += a[i].has ? (f1 ? a[i].f1 : a[i].exact) : a[i].spoke ? -1 : 0;
        if (now > best) best = now;
    }
    return best;
}

static void metric_put(TaskResult *r, const char *name, const double *x, size_t n) {
    const int k = r->metrics++;
    snprintf(r->metric[k].name, sizeof r->metric[k].name, "%s", name);
    score_mean(x, (int)n, &r->metric[k].value, &r->metric[k].se);
    r->metric[k].value *= 100;
    r->metric[k].se *= 100;
}

/* Means of exact and F1 over the questions that have an answer (1), have none (0), or all (-1). x: scratch. */
static void part_put(TaskResult *r, const char *const name[2], const SquadAnswer *a, size_t n, int has,
                     double threshold, double *x) {
    for (int f1 = 0; f1 < 2; f1++) {
        size_t k = 0;
        for (size_t i = 0; i < n; i++)
            if (has < 0 || a[i].has == has) x[k++] = a[i].no_answer > threshold ? !a[i].has : f1 ? a[i].f1 : a[i].exact;
        if (k) metric_put(r, name[f1], x, k);
    }
}

int task_squad_metrics(const SquadAnswer *a, size_t n, double threshold, TaskResult *r, Err *e) {
    static const char *const all[] = {"exact", "f1"}, *const has[] = {"HasAns_exact", "HasAns_f1"},
                             *const no[] = {"NoAns_exact", "NoAns_f1"};
    static const char *const best[] = {"best_exact", "best_f1"};
    void *p, *q;
    TRY(mem_alloc(&p, (n + 1) * sizeof(double), "scores", e));
    if (mem_alloc(&q, (n + 1) * sizeof(SquadAnswer), "scores", e)) {
        mem_free(p);
        return ERR_MEMORY;
    }
    SquadAnswer *sorted = q;
    r->metrics = 0;
    part_put(r, all, a, n, -1, threshold, p);
    part_put(r, has, a, n, 1, threshold, p);
    part_put(r, no, a, n, 0, threshold, p);
    memcpy(sorted, a, n * sizeof *a);
    qsort(sorted, n, sizeof *sorted, surer_first);
    for (int f1 = 0; f1 < 2; f1++) {
        const int k = r->metrics++;
        snprintf(r->metric[k].name, sizeof r->metric[k].name, "%s", best[f1]);
        r->metric[k].value = n ? 100 * best_sum(sorted, n, f1) / (double)n : NAN;
        r->metric[k].se = NAN;
    }
    mem_free(q);
    mem_free(p);
    return OK;
}

/* ---- diagnostic tasks ---- */

int task_diagnostic_make(const EvalTask *t, int samples, int pairs, uint64_t seed, EvalSet *out, Err *e) {
    const DiagnosticOptions o = {.samples = samples, .pairs = pairs, .seed = seed};
    for (int i = 0; i < samples; i++) {
        DiagnosticSample s;
        EvalDoc *d;
        int rc = diagnostic_sample(&s, diagnostic_find(t->diagnostic), &o, i, e);
        if (!rc) rc = evalset_add(out, &d, e);
        if (!rc) rc = evaldoc_context(d, s.prompt.text, s.prompt.len, e);
        if (!rc) rc = evaldoc_text(d, s.answer.text, s.answer.len, e);
        if (!rc) rc = evaldoc_text(d, s.words.text, s.words.len, e);
        diagnostic_free(&s);
        TRY(rc);
    }
    return OK;
}
