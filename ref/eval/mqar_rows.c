/* mqar_rows.c - the sequences of the probes of mqar.h. */
#include "eval/mqar.h"
#include <math.h>
#include <string.h>

static const char *const names[PROBES] = {"mqar", "mqar_forgetting", "mqar_compositional", "parity", "majority", "copy",
                                          "ngram"};
const char *mqar_name(ProbeKind k) { return k < PROBES ? names[k] : NULL; }
int mqar_find(const char *name) {
    for (int i = 0; i < PROBES; i++)
        if (!strcmp(names[i], name)) return i;
    return -1;
}

static int grid_side(int n) {
    int side = 1;
    while ((int64_t)side * side < n) side++;
    return side;
}

/* Letters of NGRAM's keys: few enough that prefixes are shared, enough for twice as many keys. */
static int gram_letters(const MqarSpec *s) {
    int a = 1;
    while (pow(a, s->gram) < 2.0 * s->n) a++;
    return a;
}

int mqar_length(const MqarSpec *s) {
    return s->kind == PROBE_COPY ? 2 * s->n : s->kind == PROBE_NGRAM ? 2 * s->n * (s->gram + 1) : s->T;
}

size_t mqar_scratch(const MqarSpec *s) { return (size_t)s->vocab + (size_t)mqar_length(s) + 4 * (size_t)s->n + 16; }

/* Tokens that pairs and questions take at least, and distinct keys that there must be and are. */
static int64_t least_length(const MqarSpec *s) {
    const int64_t n = s->n;
    return s->kind == PROBE_MQAR            ? 2 * n * (s->passes + 1)
           : s->kind == PROBE_FORGETTING    ? 2 * (n + s->updates) + 2 * n
           : s->kind == PROBE_COMPOSITIONAL ? 6 * n
                                            : 2;
}

int mqar_check(const MqarSpec *s, Err *e) {
    const char *name = names[s->kind];
    const int bits = s->kind == PROBE_PARITY || s->kind == PROBE_MAJORITY, grid = s->kind == PROBE_COMPOSITIONAL;
    if (s->vocab < 6 || s->n < 1 || s->T < 2 || (s->T % 2 && !bits) || s->passes < 0 || s->passes > 1000)
        return err_set(e, ERR_USAGE, "%s: got vocabulary %d, %d pairs, length %d", name, s->vocab, s->n, s->T);
    if (s->kind == PROBE_MQAR && s->passes < 1)
        return err_set(e, ERR_USAGE, "%s: pairs shown %d times", name, s->passes);
    if (s->kind == PROBE_FORGETTING && (s->updates < 1 || s->updates > s->n))
        return err_set(e, ERR_USAGE, "%s: %d updates of %d keys", name, s->updates, s->n);
    if (s->kind == PROBE_NGRAM && (s->gram < 1 || s->gram > 8))
        return err_set(e, ERR_USAGE, "%s: keys of %d tokens, expected 1 to 8", name, s->gram);
    if (s->T != mqar_length(s) || least_length(s) > s->T)
        return err_set(e, ERR_USAGE, "%s: %d pairs do not fit into %d tokens", name, s->n, s->T);
    if (grid && grid_side(s->n) * grid_side(s->n) != s->n)
        return err_set(e, ERR_USAGE, "%s: %d pairs: expected a square number", name, s->n);
    const int keys = grid ? s->vocab / 3 - 1 : s->vocab / 2 - 1, values = grid ? s->vocab / 3 : s->vocab / 2,
              need = grid                     ? grid_side(s->n)
                     : s->kind == PROBE_NGRAM ? gram_letters(s)
                                              : s->n;
    if (!bits && s->kind != PROBE_COPY && (need > keys || s->n > values))
        return err_set(e, ERR_USAGE, "%s: %d pairs of a vocabulary of %d", name, s->n, s->vocab);
    if (!(s->power > 0) || !isfinite(s->power))
        return err_set(e, ERR_USAGE, "%s: power: got %g, expected more than 0", name, s->power);
    return OK;
}

/* ---- draws ---- */

/* n distinct ones of lo .. lo + size - 1, in random order, at the front of x (size ints). */
static void draw_distinct(Rng *r, int lo, int size, int n, int *x) {
    for (int i = 0; i < size; i++) x[i] = lo + i;
    for (int i = 0; i < n; i++) {
        const int j = i + (int)rng_below(r, (uint64_t)(size - i)), t = x[i];
        x[i] = x[j];
        x[j] = t;
    }
}

/* Slots 0 .. space-1 without replacement, slot g with probability proportional to (g+1)^(power-1) among those left. */
static int draw_slot(Rng *r, const int *taken, int space, double power) {
    double total = 0;
    for (int g = 0; g < space; g++) total += taken[g] ? 0 : pow(g + 1, power - 1);
    double left = rng_uniform(r) * total;
    int last = 0;
    for (int g = 0; g < space; g++) {
        if (taken[g]) continue;
        last = g;
        left -= pow(g + 1, power - 1);
        if (left < 0) break;
    }
    return last;
}

static void ask(int *target, float *weight, int at, int value) {
    target[at] = value;
    weight[at] = 1;
}

static void filler(const MqarSpec *s, Rng *r, int *ids, int from) {
    for (int t = from; t < s->T; t++) ids[t] = s->random_filler ? (int)rng_below(r, (uint64_t)s->vocab) : 0;
}

/* ---- sequences ---- */

/* value[i] is what counts for key[i]; the context of `shown` tokens is there already. */
static void questions(const MqarSpec *s, Rng *r, int shown, const int *key, const int *value, int *ids, int *target,
                      float *weight, int *taken) {
    const int space = (s->T - shown) / 2;
    filler(s, r, ids, shown);
    memset(taken, 0, (size_t)s->T * sizeof(int));
    for (int i = 0; i < s->n; i++) {
        const int g = draw_slot(r, taken, space, s->power), at = shown + 2 * g;
        taken[g] = 1;
        ids[at] = key[i];
        ask(target, weight, at, value[i]);
    }
}

static void mqar(const MqarSpec *s, Rng *r, int *ids, int *target, float *weight, int *scratch) {
    const int half = s->vocab / 2, shown = 2 * s->n * s->passes;
    int *key = scratch, *value = scratch + half, *taken = scratch + s->vocab;
    draw_distinct(r, 1, half - 1, s->n, key);
    draw_distinct(r, half, s->vocab - half, s->n, value);
    for (int t = 0; t < shown; t++) ids[t] = t % 2 ? value[t / 2 % s->n] : key[t / 2 % s->n];
    questions(s, r, shown, key, value, ids, target, weight, taken);
}

static void forgetting(const MqarSpec *s, Rng *r, int *ids, int *target, float *weight, int *scratch) {
    const int half = s->vocab / 2, shown = 2 * (s->n + s->updates), values = s->vocab - half;
    int *key = scratch, *value = scratch + half, *taken = scratch + s->vocab, *which = taken + s->T;
    draw_distinct(r, 1, half - 1, s->n, key);
    draw_distinct(r, half, values, s->n, value);
    draw_distinct(r, 0, s->n, s->updates, which);
    for (int t = 0; t < 2 * s->n; t++) ids[t] = t % 2 ? value[t / 2] : key[t / 2];
    for (int u = 0; u < s->updates; u++) { // any value but the one it has
        const int i = which[u], other = half + (int)rng_below(r, (uint64_t)(values - 1));
        value[i] = other + (other >= value[i]);
        ids[2 * (s->n + u)] = key[i];
        ids[2 * (s->n + u) + 1] = value[i];
    }
    questions(s, r, shown, key, value, ids, target, weight, taken);
}

static void compositional(const MqarSpec *s, Rng *r, int *ids, int *target, float *weight, int *scratch) {
    const int third = s->vocab / 3, side = grid_side(s->n), shown = 3 * s->n, space = (s->T - shown) / 3;
    int *one = scratch, *two = one + third, *value = two + third, *taken = scratch + s->vocab, *cell = taken + s->T;
    draw_distinct(r, 1, third - 1, side, one);
    draw_distinct(r, third, third, side, two);
    draw_distinct(r, 2 * third, s->vocab - 2 * third, s->n, value);
    draw_distinct(r, 0, s->n, s->n, cell);
    filler(s, r, ids, shown);
    memset(taken, 0, (size_t)s->T * sizeof(int));
    for (int i = 0; i < s->n; i++) {
        const int a = one[cell[i] / side], b = two[cell[i] % side], g = draw_slot(r, taken, space, s->power),
                  at = shown + 3 * g;
        taken[g] = 1;
        ids[3 * i] = ids[at] = a;
        ids[3 * i + 1] = ids[at + 1] = b;
        ids[3 * i + 2] = value[i];
        ask(target, weight, at + 1, value[i]);
    }
}

static void bits(const MqarSpec *s, Rng *r, int *ids, int *target, float *weight) {
    int ones = 0;
    for (int t = 0; t + 1 < s->T; t++) ones += ids[t] = (int)rng_below(r, 2);
    ids[s->T - 1] = 2;
    ask(target, weight, s->T - 1, s->kind == PROBE_PARITY ? ones % 2 : 2 * ones > s->T - 1);
}

static void copying(const MqarSpec *s, Rng *r, int *ids, int *target, float *weight) {
    for (int i = 0; i < s->n; i++) ids[i] = ids[s->n + i] = (int)rng_below(r, (uint64_t)s->vocab);
    for (int i = s->n; i + 1 < s->T; i++)
        ask(target, weight, i, ids[i + 1]); // the first token of the second copy cannot be known
}

/* n different numbers below letters^gram; digit k of such a number is token k of a key. */
static void ranks_draw(const MqarSpec *s, Rng *r, int letters, int *rank) {
    const uint64_t all = (uint64_t)pow(letters, s->gram);
    for (int i = 0; i < s->n; i++) {
        int again = 1;
        while (again) {
            rank[i] = (int)rng_below(r, all);
            again = 0;
            for (int k = 0; k < i; k++) again |= rank[k] == rank[i];
        }
    }
}

static void ngram(const MqarSpec *s, Rng *r, int *ids, int *target, float *weight, int *scratch) {
    const int half = s->vocab / 2, letters = gram_letters(s), G = s->gram + 1;
    int *letter = scratch, *value = scratch + half, *rank = scratch + s->vocab, *order = rank + s->n;
    draw_distinct(r, 1, half - 1, letters, letter);
    draw_distinct(r, half, s->vocab - half, s->n, value);
    ranks_draw(s, r, letters, rank);
    draw_distinct(r, 0, s->n, s->n, order);
    for (int i = 0; i < 2 * s->n; i++) {
        const int which = i < s->n ? i : order[i - s->n];
        for (int k = 0, digits = rank[which]; k < s->gram; k++, digits /= letters)
            ids[i * G + k] = letter[digits % letters];
        ids[i * G + s->gram] = value[which];
        if (i >= s->n) ask(target, weight, i * G + s->gram - 1, value[which]);
    }
}

void mqar_row(const MqarSpec *s, Rng *r, int *ids, int *target, float *weight, int *scratch) {
    for (int t = 0; t < s->T; t++) target[t] = -1, weight[t] = 0;
    switch (s->kind) {
    case PROBE_FORGETTING:
        forgetting(s, r, ids, target, weight, scratch);
        break;
    case PROBE_COMPOSITIONAL:
        compositional(s, r, ids, target, weight, scratch);
        break;
    case PROBE_PARITY:
    case PROBE_MAJORITY:
        bits(s, r, ids, target, weight);
        break;
    case PROBE_COPY:
        copying(s, r, ids, target, weight);
        break;
    case PROBE_NGRAM:
        ngram(s, r, ids, target, weight, scratch);
        break;
    default:
        mqar(s, r, ids, target, weight, scratch);
    }
}
