/* mqar.c - see mqar.h. */
#include "eval/mqar.h"
#include "base/mem.h"
#include "eval/score.h"
#include "method/loss.h"
#include <math.h>
#include <string.h>

int mqar_check(const MqarSpec *s, Err *e) {
    if (s->vocab < 4 || s->n < 1 || s->T < 2 || s->T % 2)
        return err_set(e, ERR_USAGE, "mqar: got vocabulary %d, %d pairs, length %d", s->vocab, s->n, s->T);
    if (s->copy)
        return s->T == 2 * s->n
                   ? OK
                   : err_set(e, ERR_USAGE, "copy: length %d is not twice the block of %d", s->T, s->n);
    if (s->passes < 1 || (int64_t)2 * s->n * (s->passes + 1) > s->T)
        return err_set(e, ERR_USAGE, "mqar: %d pairs shown %d times and asked do not fit into %d tokens",
                       s->n, s->passes, s->T);
    if (s->n > s->vocab / 2 - 1)
        return err_set(e, ERR_USAGE, "mqar: %d distinct keys of a vocabulary of %d", s->n, s->vocab);
    if (!(s->power > 0) || !isfinite(s->power))
        return err_set(e, ERR_USAGE, "mqar: power: got %g, expected more than 0", s->power);
    return OK;
}

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

static void copy_row(const MqarSpec *s, Rng *r, int *ids, int *target, float *weight) {
    for (int i = 0; i < s->n; i++) ids[i] = ids[s->n + i] = (int)rng_below(r, (uint64_t)s->vocab);
    for (int i = s->n; i + 1 < s->T; i++) { // the first token of the second copy cannot be known
        target[i] = ids[i + 1];
        weight[i] = 1;
    }
}

void mqar_row(const MqarSpec *s, Rng *r, int *ids, int *target, float *weight, int *scratch) {
    const int half = s->vocab / 2, shown = 2 * s->n * s->passes, space = (s->T - shown) / 2;
    for (int t = 0; t < s->T; t++) target[t] = -1, weight[t] = 0;
    if (s->copy) {
        copy_row(s, r, ids, target, weight);
        return;
    }
    int *key = scratch, *value = scratch + half, *taken = scratch + s->vocab;
    draw_distinct(r, 1, half - 1, s->n, key);
    draw_distinct(r, half, s->vocab - half, s->n, value);
    for (int t = 0; t < shown; t++) ids[t] = t % 2 ? value[t / 2 % s->n] : key[t / 2 % s->n];
    for (int t = shown; t < s->T; t++) ids[t] = s->random_filler ? (int)rng_below(r, (uint64_t)s->vocab) : 0;
    memset(taken, 0, (size_t)s->T * sizeof(int));
    for (int i = 0; i < s->n; i++) {
        const int g = draw_slot(r, taken, space, s->power), at = shown + 2 * g;
        taken[g] = 1;
        ids[at] = key[i];
        target[at] = value[i];
        weight[at] = 1;
    }
}

typedef struct {
    Pass pass;
    Loss loss;
    int *ids, *target, *top, *scratch;
    float *weight, *nll;
    double *score;
    void *mem;
    int B;
} Probe;

static void probe_close(Probe *p) {
    pass_close(&p->pass);
    loss_close(&p->loss);
    mem_free(p->mem);
    mem_free(p->score);
}

static int probe_open(Probe *p, const MqarSpec *s, Model *m, int rows, Err *e) {
    void *mem;
    p->B = s->T < 2048 ? 2048 / s->T : 1;
    if (p->B > rows) p->B = rows;
    const size_t N = (size_t)p->B * s->T;
    TRY(mem_alloc(&p->mem,
                  N * (3 * sizeof(int) + 2 * sizeof(float)) + ((size_t)s->vocab + s->T) * sizeof(int),
                  "probe", e));
    p->ids = p->mem;
    p->target = p->ids + N;
    p->top = p->target + N;
    p->scratch = p->top + N;
    p->weight = (float *)(p->scratch + s->vocab + s->T);
    p->nll = p->weight + N;
    TRY(mem_alloc(&mem, (size_t)rows * sizeof(double), "probe", e));
    p->score = mem;
    TRY(pass_open(&p->pass, m, p->B, s->T, 0, e));
    return loss_open(&p->loss, m, 0, (int)N, e);
}

static int probe_batch(Probe *p, const MqarSpec *s, Model *m, int first, int rows, uint64_t seed,
                       MqarResult *out, Err *e) {
    double value;
    for (int b = 0; b < p->B; b++) { // rows beyond the last repeat it
        Rng r;
        const size_t at = (size_t)b * s->T;
        rng_seed3(&r, seed, (uint64_t)(first + (b < rows ? b : rows - 1)), (uint64_t)s->n);
        mqar_row(s, &r, p->ids + at, p->target + at, p->weight + at, p->scratch);
    }
    TRY(pass_input(&p->pass, m, p->ids, NULL, e));
    model_forward(m, &p->pass);
    TRY(loss_xent(&p->loss, m, &p->pass, p->target, p->weight, 0, &value, p->nll, p->top, e));
    for (int b = 0; b < rows; b++) {
        int asked = 0, right = 0;
        for (size_t i = (size_t)b * s->T; i < (size_t)(b + 1) * s->T; i++) {
            if (p->weight[i] == 0) continue;
            asked++;
            right += p->top[i] == p->target[i];
            out->loss += p->nll[i];
        }
        p->score[first + b] = (double)right / asked;
        out->asked += asked;
    }
    return OK;
}

int mqar_run(const MqarSpec *s, Model *m, int rows, uint64_t seed, MqarResult *out, Err *e) {
    Probe p = {0};
    memset(out, 0, sizeof *out);
    TRY(mqar_check(s, e));
    if (rows < 1) return err_set(e, ERR_USAGE, "mqar: got %d sequences, expected at least 1", rows);
    if (s->vocab > m->c.VOC)
        return err_set(e, ERR_USAGE, "mqar: a vocabulary of %d for a model of %d tokens", s->vocab, m->c.VOC);
    int rc = probe_open(&p, s, m, rows, e);
    for (int first = 0; first < rows && !rc; first += p.B)
        rc = probe_batch(&p, s, m, first, rows - first < p.B ? rows - first : p.B, seed, out, e);
    if (!rc) {
        score_mean(p.score, rows, &out->accuracy, &out->accuracy_se);
        out->loss /= (double)out->asked;
        if (!isfinite(out->loss)) rc = err_set(e, ERR_NUMERIC, "mqar: the loss is not finite");
    }
    probe_close(&p);
    return rc;
}
