/* smart.c - see smart.h. */
#include "selectors/smart.h"
#include "base/mem.h"
#include "model/config.h"
#include "selectors/parts.h"
#include <math.h>
#include <string.h>

static double value(double v) { return isnan(v) ? -1e300 : v; } // finite: sums of it still compare

static int best_of(const double *s, int from, int to) {
    int best = from;
    for (int l = from + 1; l < to; l++)
        if (value(s[l]) > value(s[best])) best = l;
    return best;
}

/* Gaps are lo or lo + 1 layers, `wide` of the K-1 gaps the latter: pick i stands at first + i (lo + 1) + (wide gaps
 * before it). */
typedef struct {
    int first, K, lo, wide;
} Spacing;

static Spacing spacing(int first, int last, int K) {
    const int between = last - first - K + 1;
    return (Spacing){first, K, between / (K - 1), between % (K - 1)};
}

static int spaced_at(const Spacing *p, int i, int used) { return p->first + i * (p->lo + 1) + used; }

/* sum[i][u] = best sum of picks i..K-1 when u wide gaps stand before pick i. */
static int spaced_best(const Spacing *p, const double *s, int *keep, Err *e) {
    const int rows = p->K, cols = p->wide + 2;
    void *mem;
    TRY(mem_alloc(&mem, (size_t)rows * cols * sizeof(double), "spaced sets", e));
    double *sum = mem;
    for (int u = 0; u < cols; u++)
        sum[(rows - 1) * cols + u] = u == p->wide ? value(s[spaced_at(p, rows - 1, u)]) : -INFINITY;
    for (int i = rows - 2; i >= 0; i--)
        for (int u = 0; u < cols; u++) {
            const double *after = sum + (i + 1) * cols + u;
            const double best = u + 1 < cols && after[1] > after[0] ? after[1] : after[0];
            sum[i * cols + u] = best == -INFINITY ? best : best + value(s[spaced_at(p, i, u)]);
        }
    for (int i = 0, u = 0; i < rows; i++) {
        keep[spaced_at(p, i, u)] = 1;
        if (i + 1 < rows && sum[(i + 1) * cols + u + 1] > sum[(i + 1) * cols + u]) u++;
    }
    mem_free(mem);
    return OK;
}

int smart_select(const double *s, int L, int K, int *keep, Err *e) {
    memset(keep, 0, (size_t)L * sizeof *keep);
    if (K > L) K = L;
    if (K < 1) return OK;
    if (K == 1) {
        keep[best_of(s, 0, L)] = 1;
        return OK;
    }
    const Spacing p = spacing(best_of(s, 0, L / K), best_of(s, L - L / K, L), K);
    return spaced_best(&p, s, keep, e);
}

int smart_spaced(const int *keep, int L) {
    int pick[MAX_LAYERS], K = 0;
    for (int l = 0; l < L; l++)
        if (keep[l]) pick[K++] = l;
    if (K < 2) return 1;
    const Spacing p = spacing(pick[0], pick[K - 1], K);
    for (int i = 1; i < K; i++) {
        const int gap = pick[i] - pick[i - 1] - 1;
        if (gap < p.lo || gap > p.lo + (p.wide > 0)) return 0;
    }
    return pick[0] < L / K && pick[K - 1] >= L - L / K;
}

/* ---------------------------------------------------------------- distance regularisation */

static void standardise(const double *score, int L, double *z) {
    double sum = 0, square = 0;
    int n = 0;
    for (int l = 0; l < L; l++)
        if (!isnan(score[l])) sum += score[l], n++;
    const double mean = n ? sum / n : 0;
    for (int l = 0; l < L; l++)
        if (!isnan(score[l])) square += (score[l] - mean) * (score[l] - mean);
    const double sd = n && square > 0 ? sqrt(square / n) : 1;
    for (int l = 0; l < L; l++) z[l] = isnan(score[l]) ? -1e300 : (score[l] - mean) / sd;
}

void distance_select(const double *score, int L, int K, double strength, double width, int *keep, int *order) {
    double z[MAX_LAYERS];
    int done[MAX_LAYERS] = {0};
    standardise(score, L, z);
    memset(keep, 0, (size_t)L * sizeof *keep);
    for (int i = 0; i < L; i++) {
        int best = -1;
        for (int l = 0; l < L; l++)
            if (!done[l] && (best < 0 || z[l] > z[best])) best = l;
        done[best] = 1;
        if (i < K) keep[best] = 1;
        if (order) order[i] = best;
        for (int l = 0; l < L; l++) z[l] -= strength * exp(-fabs((double)(l - best)) / width);
    }
}

static int choose_distance(const SelectInput *in, int *keep, Err *e) {
    double s[MAX_LAYERS];
    (void)e;
    for (int l = 0; l < in->L; l++) s[l] = in->score[l].score;
    distance_select(s, in->L, in->K, in->own.distance_strength, in->own.distance_width, keep, NULL);
    return OK;
}

static const Selector distance[] = {{NULL, "distance", "ga_s2 with a penalty on neighbours of chosen layers",
                                     "-KL to the teacher (nats per token)", NEEDS_SCORES, NULL, choose_distance, NULL,
                                     0}};
const SelectorFamily family_distance = {.name = "distance", FAMILY(distance)};
