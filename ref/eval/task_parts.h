/* task_parts.h - between the files of tasks.h. */
#ifndef HYB_TASK_PARTS_H
#define HYB_TASK_PARTS_H
#include "eval/tasks.h"
#include "eval/diagnostic_tasks.h"

typedef enum { MATCH, CONTAINS, NUMBER, SQUAD, DIAGNOSTIC, CHOICE, CONTEXTS, LAST_WORD, ROLLING } TaskKind;
struct EvalTask {
    const char *name;
    TaskKind kind;
    int max_new;
    const char *const *until;
    int norm;               /* CHOICE: acc_norm too */
    int ruler;              /* index + 1 */
    const char *diagnostic; /* method/diagnostic_tasks.h */
};

/* Scores of one generated answer. no_answer: the probability of " unanswerable" (SQUAD). */
int task_text_scores(const EvalTask *t, const EvalSet *set, const EvalDoc *d, const char *text, double no_answer,
                     double *score, Err *e);

/* SQuAD's metrics over all questions, as the official script gives them: in percent; the last two are the best over
 * thresholds. */
enum {
    SQUAD_EXACT,
    SQUAD_F1,
    SQUAD_HAS_EXACT,
    SQUAD_HAS_F1,
    SQUAD_NO_EXACT,
    SQUAD_NO_F1,
    SQUAD_BEST_EXACT,
    SQUAD_BEST_F1
};
typedef struct {
    double exact, f1, no_answer; /* before any threshold */
    int has, spoke;              /* there is an answer; the model said something */
} SquadAnswer;
int task_squad_metrics(const SquadAnswer *a, size_t n, double threshold, TaskResult *r, Err *e);

/* Questions of a diagnostic task. */
int task_diagnostic_make(const EvalTask *t, int samples, int pairs, uint64_t seed, EvalSet *out, Err *e);

#endif
