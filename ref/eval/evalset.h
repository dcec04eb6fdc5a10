/* evalset.h - the questions of one task, made or read: what a model is given, and what it should say.
 *
 * Generation: one context; text are the gold answers. Choices: text are the continuations (with the space that joins
 * them), the gold one is text[gold]. WinoGrande: two contexts, one continuation. */
#ifndef HYB_EVALSET_H
#define HYB_EVALSET_H
#include <stddef.h>
#include "base/err.h"
#include "base/text_buf.h"

enum { EVAL_CONTEXTS = 2 };
typedef struct {
    char *context[EVAL_CONTEXTS];
    int contexts;
    char **text;
    int n_text, cap_text, gold;
    size_t context_tokens; /* filled by generators that count, else 0 */
    /* bytes of context[0] that are the question's own: no worked example before them, no beginning of an answer behind;
     * own_end 0: all */
    size_t own_begin, own_end;
} EvalDoc;
typedef struct {
    EvalDoc *doc;
    size_t n, cap;
    const char *const *until; /* ends of an answer, NULL-terminated; NULL: the task's own */
    /* SQuAD: answers less sure than this count as none; 0: 1, which lets all through */
    double threshold;
    /* how generated text is scored: one gold answer suffices; in percent, rounded to two decimals */
    int any, percent;
    int max_new;                   /* tokens of an answer; 0: the task's own */
    size_t lacking, first_lacking; /* answers.h: questions whose answer is not shown */
} EvalSet;                         /* zero-initialise; evalset_free */

/* The new document at the end, zeroed; *doc is good until the next one is added. */
int evalset_add(EvalSet *s, EvalDoc **doc, Err *e);
void evalset_free(EvalSet *s);
void evalset_cut(EvalSet *s, size_t n);                                /* drops all after the first n; 0: none */
int evaldoc_context(EvalDoc *d, const char *text, size_t len, Err *e); /* copies */
int evaldoc_text(EvalDoc *d, const char *text, size_t len, Err *e);    /* copies */

#endif
