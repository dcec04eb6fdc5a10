/* select.h - which K layers stay softmax. A selector is one row in a table: a name and a function. */
#ifndef HYB_SELECT_H
#define HYB_SELECT_H
#include "eval/recall.h"
#include "method/score.h"

typedef struct { /* what selectors may look at; each says what it needs */
    int L, K;
    const LayerScore *score;   /* ga_s2 */
    const int *list;           /* explicit */
    int n_list, stride, first; /* stride: first, first+stride, ... */
    uint64_t seed;             /* random */
    Model *teacher;            /* ablation */
    Recall *recall;
    double *importance;        /* (L) filled with what the choice was made by, NAN where a selector has none; may be NULL */
} SelectInput;

typedef struct {
    const char *name, *label;
    int needs_score, needs_recall;
    int (*choose)(const SelectInput *in, int *keep /* (L) 0/1, zeroed on entry */, Err *e);
} Selector;

int selector_count(void);
const Selector *selector_at(int i);
/* "ga_s2" "uniform" "uniform_last" "uniform_stride" "random" "explicit" "ablation" "none" "all". NULL if unknown. */
const Selector *selector_find(const char *name);
/* Checks K against [0, L], runs the selector; ERR_USAGE when something it needs is absent. */
int select_layers(const Selector *s, const SelectInput *in, int *keep, Err *e);

/* K = floor(L ratio + 1/2): reproduces every shipped budget (interfaces.md A7). */
int select_count(int L, double ratio);
/* The K layers with the highest score; ties go to the lower layer; NAN counts as lowest. */
void select_top(const double *score, int L, int K, int *keep);
/* Uniform layouts (method.md 3.5): from 0 by the largest stride that fits, floor((L-1)/(K-1)); the last layer of each of K groups;
 * first, first+stride, ... */
int select_uniform(int L, int K, int *keep);
int select_uniform_last(int L, int K, int *keep);
/* ERR_USAGE naming the value: duplicate, out of [0, L), wrong count (K < 0: any count). `what` names the option. */
int select_check_list(const int *list, int n, int L, int K, const char *what, Err *e);
/* Zero-ablation of the teacher: importance[l] = recall accuracy - accuracy with mixer l's output set to zero (method.md 3.5, AR). */
int select_ablation(Model *teacher, Recall *recall, double *importance, Err *e);

/* Agreement of two orders (permutations, best first): Kendall's tau, and Jaccard of their first K. */
double select_kendall(const int *a, const int *b, int L);
double select_jaccard(const int *a, const int *b, int L, int K);
/* keep as "3,7,11" */
void select_text(char *dst, size_t cap, const int *keep, int L);

#endif
