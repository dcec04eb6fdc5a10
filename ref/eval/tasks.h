/* tasks.h - one table of evaluation tasks: where the questions come from, what the model is asked for, how answers are
 * scored.
 *
 * A task is one row; a model is three functions, so that a fake one can stand in for it in tests. Source:
 * ref/eval/README.md 2 to 5. */
#ifndef HYB_TASKS_H
#define HYB_TASKS_H
#include "eval/lm.h"
#include "eval/questions.h"
#include "eval/ruler.h"

typedef struct EvalTask EvalTask;
const EvalTask *task_at(int i); /* NULL after the last */
const EvalTask *task_find(const char *name);
const char *task_name(const EvalTask *t);
int task_generates(const EvalTask *t); /* tokens to generate; 0: log-likelihoods only */
int task_ruler(const EvalTask *t);     /* its index for ruler.h, -1 for other tasks */
int task_diagnostic(
    const EvalTask *t); /* 1: a diagnostic task of the official code or a phone book, made by task_make */
int task_generated(const EvalTask *t); /* 1: needs no file of questions */

typedef struct { /* NULL where a model cannot */
    void *ctx;
    int (*generate)(void *ctx, const EvalDoc *doc, size_t n, int max_new, const char *const *until, char ***text,
                    Err *e); /* as lm_generate */
    int (*loglik)(void *ctx, const LogLikAsk *ask, size_t n, LogLik *out, Err *e);
    int (*rolling)(void *ctx, const char *text, LogLik *out, Err *e);
} EvalModel;
EvalModel eval_model(Lm *lm);

enum { TASK_METRICS = 8 };
typedef struct {
    struct {
        char name[24];
        double value, se;
    } metric[TASK_METRICS]; /* se: NAN where none is defined */
    int metrics;
    size_t n;
} TaskResult;

/* What was asked and answered, one question at a time, in order. */
typedef struct {
    const EvalDoc *doc;
    size_t index;
    const char *generated; /* NULL for log-likelihood tasks */
    const LogLik *loglik;  /* `requests` of them */
    int requests;
    double score[TASK_METRICS]; /* of this question */
} TaskSample;
typedef int (*TaskLog)(void *ctx, const EvalTask *t, const TaskResult *names, const TaskSample *s, Err *e);

/* Questions of a task that is read from files under dir. */
int task_read(const EvalTask *t, const char *dir, const QuestionOptions *o, EvalSet *out, Err *e);
/* Questions of a diagnostic task (diagnostic_tasks.h): a pure function of its arguments. */
int task_make(const EvalTask *t, int samples, int pairs, uint64_t seed, EvalSet *out, Err *e);
/* Asks and scores. L names the metric of RULER tasks ("4096"). log may be NULL. */
int task_run(const EvalTask *t, const EvalModel *m, const EvalSet *set, int L, TaskResult *r, TaskLog log, void *ctx,
             Err *e);

#endif
