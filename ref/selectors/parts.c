/* parts.c - see parts.h. */
#include "selectors/parts.h"
#include "base/mem.h"
#include "selectors/budget.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

Partial partial_of(const SelectInput *in, int pick, char *name) {
    snprintf(name, 64, "partial/%d", pick);
    return (Partial){.memo = in->memo, .name = name};
}

void score_average(LayerScore *rows, const LayerScore *a, const LayerScore *b, int L) {
    for (int l = 0; l < L; l++) {
        const LayerScore x = a[l], y = b[l]; // rows may be b
        memset(&rows[l], 0, sizeof rows[l]);
        score_finish(&rows[l], l, 0);
        rows[l].score = -(x.rank + y.rank) / 2.0;
        rows[l].tokens = x.tokens + y.tokens;
        rows[l].seconds = x.seconds + y.seconds;
    }
    score_rank(rows, L);
}

/* ---------------------------------------------------------------- one pick after the other */

/* rows: picked layers as they were when picked, the rest from the last round. */
int greedy(const SelectInput *in, Round *round, LayerScore *rows, Err *e) {
    int picked[MAX_LAYERS] = {0};
    int64_t tokens[MAX_LAYERS] = {0};
    double seconds[MAX_LAYERS] = {0};
    void *mem;
    TRY(mem_alloc(&mem, (size_t)in->L * sizeof(LayerScore), "layer scores", e));
    LayerScore *now = mem;
    int rc = OK;
    for (int pick = 0; pick < (in->K > 0 ? in->K : 1) && !rc; pick++) {
        int best = -1;
        rc = round(in, picked, pick, now, e);
        for (int l = 0; l < in->L && !rc; l++) {
            tokens[l] += now[l].tokens;
            seconds[l] += now[l].seconds;
            if (picked[l]) continue;
            rows[l] = now[l];
            rows[l].rank = pick + now[l].rank; // behind all picked ones
            if (now[l].rank == 1) best = l;
        }
        if (best >= 0 && pick < in->K) picked[best] = 1;
    }
    for (int l = 0; l < in->L && !rc; l++) {
        rows[l].tokens = tokens[l];
        rows[l].seconds = seconds[l];
    }
    mem_free(mem);
    return rc;
}

/* ---------------------------------------------------------------- layers from rows */

/* Within a budget: scores count from the lowest one on, so that a score is what a layer adds. */
static int choose_budget(const SelectInput *in, const LayerScore *rows, int *keep, Err *e) {
    double value[MAX_LAYERS], low = INFINITY;
    for (int l = 0; l < in->L; l++) low = rows[l].score < low ? rows[l].score : low;
    for (int l = 0; l < in->L; l++) value[l] = rows[l].score - low;
    return budget_knapsack(value, in->soft, in->lin, in->L, in->budget, keep, e);
}

/* What the rows say: the first K ranks. */
static int choose_rows(const SelectInput *in, const LayerScore *rows, int *keep, Err *e) {
    double value[MAX_LAYERS];
    if (in->soft) return choose_budget(in, rows, keep, e);
    for (int l = 0; l < in->L; l++) value[l] = rows[l].rank >= 1 ? -rows[l].rank : NAN;
    select_top(value, in->L, in->K, keep);
    return OK;
}

int choose_score(const SelectInput *in, int *keep, Err *e) { return choose_rows(in, in->score, keep, e); }

int choose_own(const SelectInput *in, int *keep, Err *e) { return choose_rows(in, in->rows, keep, e); }
