/* early_stop.c - see early_stop.h. */
#include "selectors/early_stop.h"
#include "model/config.h"
#include <math.h>
#include <string.h>

static int both(const int *a, const int *b, int K) {
    int n = 0;
    for (int i = 0; i < K; i++)
        for (int k = 0; k < K; k++) n += a[i] == b[k];
    return n;
}

static double jaccard(const int *a, const int *b, int K) {
    const int n = both(a, b, K);
    return K ? (double)n / (2 * K - n) : 1;
}

EarlyStopState early_stop(const EarlyStop *o, const int *top, int n, int K, int L) {
    EarlyStopState s = {.jaccard = NAN};
    if (o->R < 1 || n < o->R) return s;
    const int *first = top + (size_t)(n - o->R) * K;
    int count[MAX_LAYERS] = {0}, pairs = 0;
    for (int i = 0; i < o->R * K; i++) count[first[i]]++;
    for (int l = 0; l < L; l++) s.backbone += count[l] == o->R;
    s.jaccard = 0;
    for (int i = 0; i < o->R; i++)
        for (int k = i + 1; k < o->R && (o->all_pairs || k == i + 1); k++, pairs++)
            s.jaccard += jaccard(first + (size_t)i * K, first + (size_t)k * K, K);
    s.jaccard = pairs ? s.jaccard / pairs : 1; // R = 1: one set agrees with itself
    s.stop = s.backbone >= K - 1 && s.jaccard >= o->threshold;
    return s;
}

static double mean_of(const double *v, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += v[i];
    return sum / n;
}

/* Alive layers by mean KL, best first; returns their number. */
static int alive_order(const double *const *batch_kl, int L, int batches, const int *alive, int *order) {
    double m[MAX_LAYERS];
    int n = 0;
    for (int l = 0; l < L; l++) {
        if (!alive[l]) continue;
        m[l] = mean_of(batch_kl[l], batches);
        int at = n++;
        for (; at > 0 && m[order[at - 1]] > m[l]; at--) order[at] = order[at - 1];
        order[at] = l;
    }
    return n;
}

static void paired(const double *a, const double *b, int n, double *mean, double *se) {
    double square = 0;
    *mean = mean_of(a, n) - mean_of(b, n);
    for (int i = 0; i < n; i++) square += (a[i] - b[i] - *mean) * (a[i] - b[i] - *mean);
    *se = n > 1 ? sqrt(square / (n - 1) / n) : NAN;
}

int halving_drop(const double *const *batch_kl, int L, int batches, int K, double z, const int *alive, int *drop,
                 double *mean, double *se) {
    int order[MAX_LAYERS], n = 0;
    memset(drop, 0, (size_t)L * sizeof *drop);
    const int living = alive_order(batch_kl, L, batches, alive, order);
    if (batches < 3 || K < 1 || living <= K) return 0;
    const int most = (living - K + 1) / 2;
    for (int i = living - 1; i >= 0; i--) {
        const int l = order[i];
        paired(batch_kl[l], batch_kl[order[K - 1]], batches, &mean[l], &se[l]);
        if (i < K || n == most || !(mean[l] > z * se[l])) continue;
        drop[l] = 1;
        n++;
    }
    return n;
}
