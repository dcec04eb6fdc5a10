/* select.c - from scores to layers: the K best stay softmax (Algorithm 1, line 7), and the layouts they are compared with.
 * See select.h. */
#include "method/select.h"
#include <math.h>
#include <stdio.h>

void select_top(const double *score, int L, int K, int *keep) {
    for (int l = 0; l < L; l++) keep[l] = 0;
    for (int i = 0; i < K && i < L; i++) {
        int best = -1;
        for (int l = 0; l < L; l++) {
            if (keep[l]) continue;
            // strictly better only, so that the lower layer wins a tie; NAN is worse than everything
            if (best < 0 || score[l] > score[best] || (isnan(score[best]) && !isnan(score[l]))) best = l;
        }
        keep[best] = 1;
    }
}

int select_uniform(int L, int K, int *keep) {
    const int stride = K > 1 ? (L - 1) / (K - 1) : 1; // the largest with which K layers from 0 on fit
    for (int i = 0; i < K; i++) keep[i * stride] = 1;
    return OK;
}

int select_uniform_last(int L, int K, int *keep) {
    for (int i = 1; i <= K; i++) keep[(int)((long)i * L / K) - 1] = 1;
    return OK;
}

int select_check_list(const int *list, int n, int L, int K, const char *what, Err *e) {
    if (K >= 0 && n != K) return err_set(e, ERR_USAGE, "%s: got %d layers, expected %d", what, n, K);
    for (int i = 0; i < n; i++) {
        if (list[i] < 0 || list[i] >= L)
            return err_set(e, ERR_USAGE, "%s: got layer %d, expected 0 to %d", what, list[i], L - 1);
        for (int k = 0; k < i; k++)
            if (list[k] == list[i]) return err_set(e, ERR_USAGE, "%s: layer %d is there twice", what, list[i]);
    }
    return OK;
}

int select_count(int L, double ratio) {
    const double k = floor(L * ratio + 0.5);
    return k < 0 ? 0 : k > L ? L : (int)k;
}

/* ---------------------------------------------------------------- agreement */

double select_kendall(const int *a, const int *b, int L) {
    int place[MAX_LAYERS];
    long sum = 0;
    for (int i = 0; i < L; i++) place[b[i]] = i;
    for (int i = 0; i < L; i++)
        for (int j = i + 1; j < L; j++) sum += place[a[i]] < place[a[j]] ? 1 : -1;
    return L > 1 ? 2.0 * (double)sum / ((double)L * (L - 1)) : 1;
}

double select_spearman(const int *a, const int *b, int L) {
    int place[MAX_LAYERS];
    double sum = 0;
    for (int i = 0; i < L; i++) place[b[i]] = i;
    for (int i = 0; i < L; i++) sum += (double)(i - place[a[i]]) * (i - place[a[i]]);
    return L > 1 ? 1 - 6 * sum / ((double)L * ((double)L * L - 1)) : 1;
}

double select_jaccard(const int *a, const int *b, int L, int K) {
    int seen[MAX_LAYERS] = {0}, both = 0;
    if (K > L) K = L;
    for (int i = 0; i < K; i++) seen[a[i]] = 1;
    for (int i = 0; i < K; i++) both += seen[b[i]];
    return K > 0 ? (double)both / (2 * K - both) : 1;
}

void select_text(char *dst, size_t cap, const int *keep, int L) {
    size_t n = 0;
    if (cap) dst[0] = 0;
    for (int l = 0; l < L && n < cap; l++)
        if (keep[l]) n += (size_t)snprintf(dst + n, cap - n, "%s%d", n ? "," : "", l);
}
