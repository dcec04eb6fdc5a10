/* parts.h - what the families of selectors share: partial rows, picks one after the other, layers from rows. */
#ifndef HYB_SELECTOR_PARTS_H
#define HYB_SELECTOR_PARTS_H
#include "selectors/partial.h"
#include "selectors/selectors.h"

#define FAMILY(ROWS) .variant = ROWS, .n = (int)(sizeof ROWS / sizeof *ROWS)

/* pick: of a greedy selector, whose rounds are kept apart. name must hold 64 bytes and stay. */
Partial partial_of(const SelectInput *in, int pick, char *name);

/* Picks one layer after the other, each by scores given those before; the last round's scores order the rest.
 * A picked layer keeps the score by which it was picked; tokens and seconds of all rounds add up. */
typedef int Round(const SelectInput *in, const int *picked, int pick, LayerScore *rows, Err *e);
int greedy(const SelectInput *in, Round *round, LayerScore *rows, Err *e);

/* rows = mean of the ranks of a and b, as score -rank; ties go to the lower layer. Cost: that of b, and of a if both.
 * */
void score_average(LayerScore *rows, const LayerScore *a, const LayerScore *b, int L);

/* The first K ranks of the selector's own rows, or of GA-S2's; with costs, the best set within the budget. */
int choose_own(const SelectInput *in, int *keep, Err *e);
int choose_score(const SelectInput *in, int *keep, Err *e);

#endif
