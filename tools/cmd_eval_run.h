/* cmd_eval_run.h - between the files that put question sets to a model: the run, its results, and what is already done.
 * */
#ifndef HYB_CMD_EVAL_RUN_H
#define HYB_CMD_EVAL_RUN_H
#include "eval/tasks.h"
#include "io/jsonl.h"
#include "tools/cmd_eval.h"

enum { MOST_TASKS = 64 };
typedef struct {
    Cli *c;
    const EvalOptions *o;
    const EvalTask *task[MOST_TASKS];
    TaskResult result[MOST_TASKS];
    int have[MOST_TASKS]; /* 1: the result is from an earlier run (--resume) */
    int n, group;         /* group: tasks [0, RULER_TASKS) from `ruler` */
    Session s;
    Ruler ruler;
    TokenCount count;
    Lm lm;
    Log *log;
    Log *done; /* tasks.jsonl of -o DIR; NULL without -o */
    FILE *emit;
    double began;
} EvalRun;

/* The table or, with --json, lm-evaluation-harness's JSON; with -o DIR the latter goes to DIR/results.json as well. */
int eval_print(const EvalRun *u, Err *e);
/* With -o DIR: DIR/tasks.jsonl, one finished task a line. Opening it reads, with --resume, the tasks that were asked in
 * the same way. */
int eval_done_open(EvalRun *u, Err *e);
int eval_done_add(EvalRun *u, int i, Err *e); /* task i is finished */

#endif
