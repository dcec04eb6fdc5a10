/* selectors.h - which K layers stay softmax. A selector is one row in a table: a name and a function. */
#ifndef HYB_SELECTORS_H
#define HYB_SELECTORS_H
#include "eval/diagnostic_tasks.h"
#include "eval/recall.h"
#include "method/select.h"
#include "selectors/scheduler.h"

typedef struct { /* what selectors may look at; each says what it needs */
    int L, K;
    const LayerScore *score; /* ga_s2, avg_s2, distance: GA-S2's rows */
    /* rows of a selector that scores layers itself, if they are there already; NULL: it scores them now */
    const LayerScore *rows;
    const int *list;            /* explicit */
    int n_list, stride, first;  /* stride: first, first+stride, ... */
    uint64_t seed;              /* random */
    int draw;                   /* random: which of the seed's sets, from 0 */
    Model *teacher;             /* all that score layers */
    Recall *recall;             /* ablation */
    const Tokenizer *tokenizer; /* ar, ar_mh, vt, cwe, fwe, phone_book, retrieval */
    DiagnosticOptions tasks;
    Model *stage1_student;             /* the stage-1 student, frozen */
    Heldout *heldout;                  /* batches to score on */
    const Scoring *scoring;            /* of those that train: their scoring runs */
    const SchedulerOptions *scheduler; /* and when these end early; NULL: never */
    const char *name;                  /* scoring runs of selector S are kept as NAME-S/layer-i; NULL: "scores" */
    Memo *memo;           /* what was done before; NULL: nothing is kept, so only selectors that do not train */
    int align_form;       /* S1: ALIGN_NORM, ALIGN_SQUARED */
    int64_t branch_steps; /* trunk_s2 */
    double distance_strength, distance_width;
    /* (L) costs of layers: selectors with scores take the best set within `budget` instead of K; NULL: K */
    const double *soft, *lin;
    double budget;
} SelectInput;

/* GA-S2's rows; recall; stage-1 student and held-out batches; scoring and memo; tokenizer and tasks; rows differ with
 * K */
enum { NEEDS_SCORES = 1, NEEDS_RECALL = 2, NEEDS_STUDENT = 4, NEEDS_TRAINING = 8, NEEDS_TASKS = 16, NEEDS_K = 32 };
typedef struct {
    /* unit: what a score is, for axes: "rise of the text loss (nats per token)"; NULL: scores nothing */
    const char *name, *label, *unit;
    unsigned needs;
    /* Rows (L) of all layers; NULL: a layout, or GA-S2's own scores. The K of a greedy selector are its first K ranks.
     * */
    int (*score)(const SelectInput *in, LayerScore *rows, Err *e);
    int (*choose)(const SelectInput *in, int *keep /* (L) 0/1, zeroed on entry */, Err *e);
    const char *options; /* options of its own that its rows depend on: "task_samples,task_pairs"; NULL: none */
} Selector;

int selector_count(void);
const Selector *selector_at(int i);
/* NULL if unknown; the names are in select.c. */
const Selector *selector_find(const char *name);
/* 1 if what the selector says at one K says something at every K: rankings and layouts do, lists and the best set of K
 * do not. */
int selector_scales(const char *name);
/* Rows of all layers, of a selector that scores them. */
int selector_score(const Selector *s, const SelectInput *in, LayerScore *rows, Err *e);
/* Checks K against [0, L], runs the selector; ERR_USAGE when something it needs is absent. */
int select_layers(const Selector *s, const SelectInput *in, int *keep, Err *e);

/* Mean recall of the teacher with the output of mixer `layer` set to zero; -1: of the whole teacher. */
int recall_ablated(Model *teacher, Recall *recall, int layer, double *mean, Err *e);
#endif
