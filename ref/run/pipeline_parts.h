/* pipeline_parts.h - what the files of the pipeline share: the open run, small helpers, and the three parts that
 * pipeline.c puts in order. */
#ifndef HYB_PIPELINE_PARTS_H
#define HYB_PIPELINE_PARTS_H
#include "run/pipeline.h"

/* Everything that a run has open. */
typedef struct {
    const PipelineOptions *o;
    const PipelineHooks *h;
    const char *dir;
    Backend *be;
    Tokenizer *tokenizer;
    Dataset data;
    TextStream text;
    Model teacher, start; /* start: the stage-1 student, frozen */
    Heldout heldout;
    Recall recall;      /* n_n == 0: no probe */
    TextStream scoring; /* what layers are scored on: text, or with score_mix recall sequences among it */
    Heldout judge;      /* batches of it; without a mixture heldout is used */
    LayerScore *score;  /* (L) GA-S2's rows, NULL until scored */
    LayerScore *rows;   /* (L) of the selector at work */
    struct {
        char name[32];
        int *order;
    } ranking[PIPELINE_STUDENTS]; /* of all selectors that scored layers */
    int rankings;
    uint64_t inputs, base; /* hash of the files; of what all stages depend on */
    PipelineResult *r;
} Pipeline;

/* One line for a person, through the run's hooks. */
void pipeline_note(const Pipeline *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* RUN/a, or RUN/a/b. */
int pipeline_path(const Pipeline *p, char *dst, size_t cap, const char *a, const char *b, Err *e);
/* 128 + the signal's number when a stop was asked for. */
int pipeline_stopped(const Pipeline *p, Err *e);
TrainOptions pipeline_train(const Pipeline *p, const StageOptions *stage, const char *dir, const char *log,
                            uint64_t fingerprint);
/* Batches that layers are scored on. */
Heldout *pipeline_judge(Pipeline *p);
/* Takes the memory high-water mark of this process over into the results. */
void pipeline_peak(Pipeline *p);
/* RUN/model. */
int pipeline_model_save(Pipeline *p, const Model *m, Err *e);

/* ---- pipeline_select.c ---- */
/* A selector at work: which one, how many layers, which draw. */
typedef struct {
    const char *name;
    int K, draw;
    double seconds; /* what choosing cost */
} Choice;
/* 1 if the comma list has the name. */
int pipeline_names(const char *list, const char *name);
/* GA-S2's rows of all layers, if any selector wants them, or `want` says so. */
int pipeline_scores(Pipeline *p, int want, Err *e);
/* The layers of one selector, keep (L). Rows are made for the run's own K, whatever c->K. */
int pipeline_choose(Pipeline *p, Choice *c, int *keep, Err *e);
/* The main selector's layers; ranking.json, budget.csv, trajectory.csv. */
int pipeline_selection(Pipeline *p, int *keep, double *seconds, Err *e);
/* agreement.csv: every pair of rankings of this run. */
int pipeline_agreement(const Pipeline *p, Err *e);

/* ---- pipeline_students.c ---- */
/* Teacher, stage-1 student, main student, those to compare it with, and all of them at other K. */
int pipeline_students(Pipeline *p, const int *keep, double select_seconds, Err *e);

#endif
