/* scorers.h - how each selector that scores layers does it: models and held-out batches in, rows (L) out. See select.h.
 *
 * S1 is the stage-1 loss on held-out batches. Stage 1 is teacher-forced, so a layer's loss does not depend on the
 * others: GA-S1 (loss of all other layers, lower = better) and GR-S1 (loss of this layer, higher = more important) give
 * one ranking (ref/METHOD.md 8). */
#ifndef HYB_SCORERS_H
#define HYB_SCORERS_H
#include "selectors/selectors.h"

typedef int Scorer(const SelectInput *in, LayerScore *rows, Err *e);
Scorer score_ablation, score_ppl, score_act_mse, score_swap, score_swap_remove, score_gates, score_path_gates,
    score_gates_trained;
Scorer score_ga_s1, score_gr_s1, score_avg_s1, score_gr_s2, score_avg_s2, score_trunk_s2, score_exhaustive;
/* Zero-ablation of the teacher under one of the tasks of diagnostic_tasks.h. */
Scorer score_ar, score_ar_mh, score_vt, score_cwe, score_fwe, score_phone_book, score_retrieval;
/* Picks one layer after the other, each by scores given those before; the last round's scores order the rest.
 * A picked layer keeps the score by which it was picked; tokens and seconds of all rounds add up. */
Scorer score_swap_greedy, score_gates_greedy, score_ga_s2_greedy;

/* rows = mean of the ranks of a and b, as score -rank; ties go to the lower layer. Cost: that of b, and of a if both.
 * */
void score_average(LayerScore *rows, const LayerScore *a, const LayerScore *b, int L);

enum { PATH_NODES = 8 };

/* All sets of K of L layers in lexicographic order as 0/1 rows: sets (cap,L). Returns their number; more than cap:
 * cap + 1. */
int subsets(int *sets, int cap, int L, int K);

#endif
