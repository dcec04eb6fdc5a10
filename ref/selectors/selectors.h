/* selectors.h - which K layers stay softmax. A selector is a variant of a family: a name and a function.
 * A family is one file, or part of one, with its rows; selectors.c lists the families. */
#ifndef HYB_SELECTORS_H
#define HYB_SELECTORS_H
#include "eval/diagnostic_tasks.h"
#include "eval/recall.h"
#include "method/select.h"
#include "selectors/scheduler.h"

/* Options of selectors of their own; their rows and defaults are in run/pipeline_options.c. */
typedef struct {
    int task_samples, task_pairs, task_new_tokens; /* family task (diagnostic_tasks.h) */
    int64_t branch_steps;                          /* trunk_s2; 0: a quarter of the scoring runs' steps */
    double distance_strength, distance_width;      /* distance */
    int uniform_first, uniform_stride;             /* uniform:stride: first, first+stride, ... */
} SelectOptions;

typedef struct { /* what selectors may look at; each says what it needs */
    int L, K;
    const LayerScore *score; /* ga_s2, avg_s2, distance: GA-S2's rows */
    /* rows of a selector that scores layers itself, if they are there already; NULL: it scores them now */
    const LayerScore *rows;
    const int *list; /* explicit */
    int n_list;
    SelectOptions own;
    uint64_t seed;                     /* random, task */
    int draw;                          /* random: which of the seed's sets, from 0 */
    Model *teacher;                    /* all that score layers */
    Recall *recall;                    /* ablation */
    const Tokenizer *tokenizer;        /* family task */
    Model *stage1_student;             /* the stage-1 student, frozen */
    Heldout *heldout;                  /* batches to score on */
    const Scoring *scoring;            /* of those that train: their scoring runs */
    const SchedulerOptions *scheduler; /* and when these end early; NULL: never */
    const char *name;                  /* scoring runs of selector S are kept as NAME-S/layer-i; NULL: "scores" */
    Memo *memo;     /* what was done before; NULL: nothing is kept, so only selectors that do not train */
    int align_form; /* S1: ALIGN_NORM, ALIGN_SQUARED */
    /* (L) costs of layers: selectors with scores take the best set within `budget` instead of K; NULL: K */
    const double *soft, *lin;
    double budget;
} SelectInput;

/* GA-S2's rows; recall; stage-1 student and held-out batches; scoring and memo; tokenizer and tasks. NEEDS_K: rows
 * differ with K. ONE_K: what is chosen at one K says nothing about another. */
enum {
    NEEDS_SCORES = 1,
    NEEDS_RECALL = 2,
    NEEDS_STUDENT = 4,
    NEEDS_TRAINING = 8,
    NEEDS_TASKS = 16,
    NEEDS_K = 32,
    ONE_K = 64
};
typedef struct Selector Selector;
struct Selector {
    const char *variant; /* as in FAMILY:VARIANT; NULL: FAMILY alone */
    /* of its rows in results, files and keys; the command line takes it too */
    const char *name;
    /* unit: what a score is, for axes: "rise of the text loss (nats per token)"; NULL: scores nothing */
    const char *label, *unit;
    unsigned needs;
    /* Rows (L) of all layers; NULL: a layout, or GA-S2's own scores. The K of a greedy selector are its first K ranks.
     * */
    int (*score)(const Selector *s, const SelectInput *in, LayerScore *rows, Err *e);
    int (*choose)(const SelectInput *in, int *keep /* (L) 0/1, zeroed on entry */, Err *e);
    const char *options; /* options of its own that its rows depend on: "task_samples,task_pairs"; NULL: none */
    int kind;            /* by which score tells the variants of a family apart */
};
typedef struct {
    const char *name;
    const Selector *variant;
    int n;
} SelectorFamily;
extern const SelectorFamily family_ga_s2, family_gr_s2, family_avg_s2, family_trunk_s2, family_exhaustive; /* s2.c */
extern const SelectorFamily family_swap, family_bypass, family_smart;                                      /* swap.c */
extern const SelectorFamily family_uniform, family_random, family_explicit; /* layouts.c */
extern const SelectorFamily family_ablation, family_task;                   /* ablation.c */
extern const SelectorFamily family_gates, family_s1, family_distance;       /* gates.c, s1.c, smart.c */

/* Every variant of every family. */
int selector_count(void);
const Selector *selector_at(int i);
/* By FAMILY, FAMILY:VARIANT, or the name of its rows; NULL if unknown. */
const Selector *selector_find(const char *name);
/* A comma list of them in place, each as the name of its rows; what is unknown stays. */
void selector_names(char *list);
/* "ga_s2[:greedy], gr_s2, s1:gr|ga|avg, ...": all families with their variants. */
void selector_families(char *dst, size_t cap);
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
