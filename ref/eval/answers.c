/* answers.c - see answers.h. */
#include "eval/answers.h"
#include "base/mem.h"
#include "eval/score.h"
#include "eval/task_parts.h"
#include <string.h>

static int is_judgement(const char *answer) { return !strcmp(answer, "yes") || !strcmp(answer, "no"); }

/* How many of the gold answers occur in the question's own part of its prompt. */
static int found(const EvalDoc *d, int *n, Err *e) {
    char *own;
    const char *text = d->context[0];
    *n = 0;
    TRY(mem_strndup(&own, text + d->own_begin, d->own_end ? d->own_end - d->own_begin : strlen(text), e));
    int rc = OK;
    for (int i = 0; i < d->n_text && !rc; i++) {
        double is = 1;
        if (!is_judgement(d->text[i])) rc = score_match(own, &d->text[i], 1, 0, &is, e);
        *n += is > 0;
    }
    mem_free(own);
    return rc;
}

int answers_shown(const EvalTask *t, const EvalDoc *d, int *yes, Err *e) {
    int n = 0;
    *yes = 1;
    switch (t->kind) {
    case MATCH:
    case CONTAINS:
        TRY(found(d, &n, e));
        *yes = n == d->n_text;
        break;
    case SQUAD:
        TRY(found(d, &n, e));
        *yes = n > 0 || !d->n_text;
        break;
    case CHOICE:
        for (int i = 0; i < d->n_text; i++) *yes &= i == d->gold || strcmp(d->text[i], d->text[d->gold]) != 0;
        break;
    case CONTEXTS:
        *yes = strcmp(d->context[0], d->context[1]) != 0;
        break;
    default:
        break;
    }
    return OK;
}

int answers_check(const EvalTask *t, EvalSet *set, int ours, Err *e) {
    set->lacking = 0;
    for (size_t i = 0; i < set->n; i++) {
        int yes;
        TRY(answers_shown(t, &set->doc[i], &yes, e));
        if (!yes && ours) {
            err_set(e, ERR_USAGE, "%s: question %zu: its prompt does not hold the answer \"%s\"", t->name, i,
                    set->doc[i].n_text ? set->doc[i].text[0] : "");
            return err_hint(e, "use a larger --max-len");
        }
        if (!yes && !set->lacking++) set->first_lacking = i;
    }
    return OK;
}
