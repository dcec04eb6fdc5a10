/* select.h - which K layers stay softmax. A selector is one row in a table: a name and a function. */
#ifndef HYB_SELECT_H
#define HYB_SELECT_H
#include "eval/recall.h"
#include "method/score.h"
#include "selectors/drills.h"

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
    DrillOptions tasks;
    Model *start;           /* the stage-1 student, frozen */
    Heldout *heldout;       /* batches to score on */
    const TextStream *data; /* training data of those that train */
    /* of those that train: train.dir with the selector's name behind it is where their runs lie */
    const ScoreOptions *scoring;
    int align_form;       /* S1: ALIGN_NORM, ALIGN_SQUARED */
    int64_t branch_steps; /* trunk_s2 */
    double distance_strength, distance_width;
    /* (L) costs of layers: selectors with scores take the best set within `budget` instead of K; NULL: K */
    const double *soft, *lin;
    double budget;
    /* where scores that train nothing are kept when they are stopped; NULL: nowhere */
    const char *keep_dir;
    uint64_t keep_fingerprint; /* of everything they depend on */
    const volatile int *stop;  /* a signal's number once it came; may be NULL */
    /* (L) filled with what the choice was made by, NAN where a selector has none; may be NULL */
    double *importance;
} SelectInput;

enum { NEEDS_SCORES = 1, NEEDS_RECALL = 2, NEEDS_STUDENT = 4, NEEDS_TRAINING = 8, NEEDS_TASKS = 16 };
/* GA-S2's rows; recall; start and heldout; data and scoring; tokenizer and tasks */
typedef struct {
    /* unit: what a score is, for axes: "rise of the text loss (nats per token)"; NULL: scores nothing */
    const char *name, *label, *unit;
    unsigned needs;
    /* Rows (L) of all layers; NULL: a layout, or GA-S2's own scores. The K of a greedy selector are its first K ranks.
     * */
    int (*score)(const SelectInput *in, LayerScore *rows, Err *e);
    int (*choose)(const SelectInput *in, int *keep /* (L) 0/1, zeroed on entry */, Err *e);
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

/* K = floor(L ratio + 1/2): reproduces every shipped budget (interfaces.md A7). */
int select_count(int L, double ratio);
/* The K layers with the highest score; ties go to the lower layer; NAN counts as lowest. */
void select_top(const double *score, int L, int K, int *keep);
/* Uniform layouts (method.md 3.5): from 0 by the largest stride that fits, floor((L-1)/(K-1));
 * the last layer of each of K groups; first, first+stride, ... */
int select_uniform(int L, int K, int *keep);
int select_uniform_last(int L, int K, int *keep);
/* ERR_USAGE naming the value: duplicate, out of [0, L), wrong count (K < 0: any count). `what` names the option. */
int select_check_list(const int *list, int n, int L, int K, const char *what, Err *e);
/* Mean recall of the teacher with the output of mixer `layer` set to zero; -1: of the whole teacher. */
int select_recall_without(Model *teacher, Recall *recall, int layer, double *mean, Err *e);
/* Zero-ablation of the teacher: importance[l] = recall accuracy - accuracy with mixer l's output set to zero (method.md
 * 3.5, AR). */
int select_ablation(Model *teacher, Recall *recall, double *importance, Err *e);

/* Agreement of two orders (permutations, best first): Kendall's tau, Spearman's rho, and Jaccard of their first K. */
double select_kendall(const int *a, const int *b, int L);
double select_spearman(const int *a, const int *b, int L);
double select_jaccard(const int *a, const int *b, int L, int K);
/* keep as "3,7,11" */
void select_text(char *dst, size_t cap, const int *keep, int L);

#endif
