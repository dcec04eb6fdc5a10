/* pipeline_parts.h - what the files of the pipeline share: the open run, small helpers, and the three parts that
 * pipeline.c puts in order. */
#ifndef HYB_PIPELINE_PARTS_H
#define HYB_PIPELINE_PARTS_H
#include "method/method.h"
#include "run/memo.h"
#include "run/pipeline.h"

/* Everything that a run has open. */
typedef struct {
    const PipelineOptions *o;
    const PipelineHooks *h;
    const char *dir;
    Backend *be;
    Tokenizer *tokenizer;
    Dataset data;
    Model teacher;
    Method m;     /* what the method works on: the stage-1 student, text, options */
    RunMemo memo; /* what was done before, in RUN/checkpoints */
    PipelineEnd end;
    Heldout heldout;
    Recall recall;      /* n_n == 0: no probe */
    TextStream scoring; /* what layers are scored on: text, or with score_mix recall sequences among it */
    Heldout judge;      /* batches of it; without a mixture heldout is used */
    LayerScore *rows;   /* (L) of the selector at work */
    struct {
        char name[32];
        int *order;
    } ranking[PIPELINE_STUDENTS]; /* of all selectors that scored layers */
    int rankings;
    int waits;                     /* rows that others are making are waited for, else passed over */
    int passed[PIPELINE_STUDENTS]; /* rows that were */
    uint64_t inputs;               /* hash of the files */
    char checkpoints[1200], log[1200];
    double select_seconds; /* of the main student */
    PipelineResult *r;
} Pipeline;

/* One line for a person, through the run's hooks. */
void pipeline_note(const Pipeline *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* RUN/a, or RUN/a/b. */
int pipeline_path(const Pipeline *p, char *dst, size_t cap, const char *a, const char *b, Err *e);
/* 128 + the signal's number when a stop was asked for. */
int pipeline_stopped(const Pipeline *p, Err *e);
/* The key of what these options affect, by what it is made from: all that affects one of `affects`, the input files,
 * and the text of `more` (may be NULL). What is made from here on is kept under it. */
void pipeline_key(Pipeline *p, unsigned affects, const char *more);
/* h continued with the number; for keys. */
void pipeline_key_add(Pipeline *p, const void *data, size_t n);
/* Batches that layers are scored on. */
Heldout *pipeline_judge(Pipeline *p);
/* Takes the memory high-water mark of this process over into the results. */
void pipeline_peak(Pipeline *p);
/* RUN/model. */
int pipeline_model_save(Pipeline *p, const Model *m, Err *e);

/* ---- pipeline_select.c ---- */
/* One call of a selector: its name, the number of softmax layers, and which draw of `random` it is. */
typedef struct {
    const char *name;
    int K, draw;
    double seconds; /* what choosing cost */
} Choice;
/* 1 if the comma list has the name. */
int pipeline_names(const char *list, const char *name);
/* ERR_USAGE where K or a list of the options names layers that a teacher of L layers does not have. */
int pipeline_check_layers(const PipelineOptions *o, int L, int K, Err *e);
/* GA-S2's rows of all layers, if any selector wants them. */
int pipeline_scores(Pipeline *p, Err *e);
/* The layers of one selector, keep (L). Rows are made for the run's own K, whatever c->K. */
int pipeline_choose(Pipeline *p, Choice *c, int *keep, Err *e);
/* The main selector's layers; ranking.json, budget.csv, trajectory.csv. */
int pipeline_selection(Pipeline *p, int *keep, double *seconds, Err *e);
/* Removes what only some selectors leave, of a run that had other options. Nobody else is at work on it then; at any
 * other time a process that was killed in between would take files from a finished run. */
int pipeline_selection_clear(const Pipeline *p, Err *e);
/* agreement.csv: every pair of rankings of this run. */
int pipeline_agreement(const Pipeline *p, Err *e);

/* ---- pipeline_students.c ---- */
/* Teacher, stage-1 student, main student, those to compare it with, and all of them at other K. */
int pipeline_students(Pipeline *p, const int *keep, double select_seconds, Err *e);

#endif
