/* recall.c - the recall game: generator and probe. See recall.h. */
#include "eval/recall.h"
#include "base/mem.h"
#include "base/ranks.h"
#include "method/loss.h"
#include <string.h>

/* ---------------------------------------------------------------- generator */

static int set_check(const int *id, int n, int VOC, const char *what, Err *e) {
    for (int i = 0; i < n; i++) {
        if (id[i] < 0 || id[i] >= VOC)
            return err_set(e, ERR_USAGE, "recall: %s: got id %d, expected 0 to %d", what, id[i], VOC - 1);
        for (int k = 0; k < i; k++)
            if (id[k] == id[i]) return err_set(e, ERR_USAGE, "recall: %s: id %d is there twice", what, id[i]);
    }
    return OK;
}

int recall_check(const RecallSpec *s, int n_max, int VOC, Err *e) {
    const int most = s->disjoint ? s->n_key - 1 : s->n_key;
    TRY(set_check(s->key, s->n_key, VOC, "keys", e));
    if (!s->disjoint) TRY(set_check(s->value, s->n_value, VOC, "values", e));
    if (!s->disjoint && s->n_value < 1) return err_set(e, ERR_USAGE, "recall: the set of values is empty");
    if (n_max < 1 || n_max > most)
        return err_set(e, ERR_USAGE, "recall: got %d pairs, expected 1 to %d (there are %d keys)", n_max, most,
                       s->n_key);
    return OK;
}

int recall_row(const RecallSpec *s, Rng *r, int n, int T, int *ids, int *target, float *weight, int *scratch) {
    int *pool = scratch, *value = scratch + s->n_key, asked = 0;
    memcpy(pool, s->key, (size_t)s->n_key * sizeof *pool);
    for (int i = 0; i < n; i++) { // the first n of a shuffle: distinct keys
        const int j = i + (int)rng_below(r, (uint64_t)(s->n_key - i)), t = pool[i];
        pool[i] = pool[j];
        pool[j] = t;
    }
    for (int i = 0; i < n; i++)
        value[i] = s->disjoint ? pool[n + (int)rng_below(r, (uint64_t)(s->n_key - n))]
                               : s->value[rng_below(r, (uint64_t)s->n_value)];
    for (int i = 0, pair = 0; i <= T; i++) { // T + 1 tokens: target is one ahead
        if (i % 2 == 0) pair = i / 2 < n ? i / 2 : (int)rng_below(r, (uint64_t)n);
        const int id = i % 2 ? value[pair] : pool[pair];
        if (i < T) ids[i] = id;
        if (i > 0) target[i - 1] = id;
    }
    for (int t = 0; t < T; t++) {
        weight[t] = t % 2 == 0 && t / 2 >= n; // at a key of the query part the next token is the asked value
        asked += weight[t] != 0;
    }
    return asked;
}

/* ---------------------------------------------------------------- alphabets */

int recall_alphabet(int **ids, int *n, const Tokenizer *t, const char *set, Err *e) {
    const size_t len = strlen(set);
    void *mem;
    *ids = NULL;
    *n = 0;
    TRY(mem_alloc(&mem, 256 * sizeof(int), "recall alphabet", e));
    int *out = mem, rc = OK;
    for (size_t i = 0; i < len && !rc; i++) {
        unsigned char from = (unsigned char)set[i], to = from;
        if (i + 2 < len && set[i + 1] == '-') to = (unsigned char)set[i += 2];
        if (to < from) rc = err_set(e, ERR_USAGE, "recall set '%s': the range %c-%c runs backwards", set, from, to);
        for (int c = from; c <= to && !rc; c++) {
            const char text[1] = {(char)c};
            Ids one = {0};
            rc = tokenizer_encode(t, text, 1, TOKENIZE_NO_PARSE, &one, e);
            unsigned char last[4] = {0};
            if (!rc && one.n == 2 && tokenizer_bytes(t, one.id[1], (char *)last, sizeof last) == 1 && last[0] == c) {
                one.id[0] = one.id[1]; // the tokenizer puts a space token in front of a text
                one.n = 1;
            }
            if (!rc && (one.n != 1 || *n == 256))
                rc = err_set(e, ERR_USAGE, "recall set '%s': '%c' is %zu tokens of this tokenizer, expected 1", set, c,
                             one.n);
            if (!rc) out[(*n)++] = one.id[0];
            ids_free(&one);
        }
    }
    if (rc) {
        mem_free(mem);
        *n = 0;
        return rc;
    }
    *ids = out;
    return OK;
}

/* ---------------------------------------------------------------- probe */

int recall_open(Recall *r, const RecallSpec *s, const int *n, int n_n, int rows, int queries, uint64_t seed, int VOC,
                Err *e) {
    memset(r, 0, sizeof *r);
    if (n_n < 1 || n_n > RECALL_MAX_N)
        return err_set(e, ERR_USAGE, "recall: got %d numbers of pairs, expected 1 to %d", n_n, RECALL_MAX_N);
    for (int i = 0; i < n_n; i++) TRY(recall_check(s, n[i], VOC, e));
    const size_t values = s->disjoint ? 0 : (size_t)s->n_value;
    void *mem;
    TRY(mem_alloc(&mem, ((size_t)s->n_key + values) * sizeof(int), "recall alphabet", e));
    r->ids_mem = mem;
    memcpy(r->ids_mem, s->key, (size_t)s->n_key * sizeof(int));
    if (values) memcpy(r->ids_mem + s->n_key, s->value, values * sizeof(int));
    r->spec = (RecallSpec){r->ids_mem, r->ids_mem + s->n_key, s->n_key, (int)values, s->disjoint};
    for (int i = 0; i < n_n; i++) r->n[i] = n[i];
    r->n_n = n_n;
    r->rows = rows > 0 ? rows : 64;
    r->queries = queries > 0 ? queries : 16;
    r->batch = r->rows < 32 ? r->rows : 32;
    r->seed = seed;
    return OK;
}

void recall_close(Recall *r) {
    mem_free(r->ids_mem);
    memset(r, 0, sizeof *r);
}

typedef struct {
    Pass pass;
    Loss loss;
    int *ids, *target, *top, *scratch;
    float *weight;
    void *mem;
} Probe;

static void probe_close(Probe *probe) {
    pass_close(&probe->pass);
    loss_close(&probe->loss);
    mem_free(probe->mem);
}

static int probe_open(Probe *probe, const Recall *r, Model *m, int T, Err *e) {
    const size_t N = (size_t)r->batch * T;
    memset(probe, 0, sizeof *probe);
    TRY(mem_alloc(&probe->mem, (4 * N + (size_t)r->spec.n_key * 2) * sizeof(int), "recall batch", e));
    probe->ids = probe->mem;
    probe->target = probe->ids + N;
    probe->top = probe->target + N;
    probe->weight = (float *)(probe->top + N);
    probe->scratch = (int *)(probe->weight + N);
    TRY(pass_open(&probe->pass, m, r->batch, T, 0, e));
    return loss_open(&probe->loss, m, 0, (int)N, e);
}

/* Sequences first .. first + batch - 1 of those with n pairs; those beyond r->rows fill the batch and are not counted.
 * */
static int probe_batch(Probe *probe, const Recall *r, Model *m, RecallForward forward, void *ctx, int n, int T,
                       int first, long *asked, long *right, Err *e) {
    for (int b = 0; b < r->batch; b++) {
        const size_t at = (size_t)b * T;
        Rng rng;
        rng_seed3(&rng, r->seed, (uint64_t)n, (uint64_t)(first + b));
        recall_row(&r->spec, &rng, n, T, probe->ids + at, probe->target + at, probe->weight + at, probe->scratch);
        if (first + b >= r->rows) memset(probe->weight + at, 0, (size_t)T * sizeof *probe->weight);
    }
    double unused;
    TRY(pass_input(&probe->pass, m, probe->ids, NULL, e));
    if (forward) forward(ctx, m, &probe->pass);
    else model_forward(m, &probe->pass);
    TRY(loss_xent(&probe->loss, m, &probe->pass, probe->target, probe->weight, 0, &unused, NULL, probe->top, e));
    for (int i = 0; i < probe->pass.N; i++)
        if (probe->weight[i] != 0) ++*asked, *right += probe->top[i] == probe->target[i];
    return OK;
}

/* The counts of all ranks together. */
static int counts_add(Ranks *r, long *asked, long *right, Err *e) {
    long count[RANKS_MOST][2];
    size_t at[RANKS_MOST + 1];
    for (int q = 0; q <= ranks_count(r); q++) at[q] = (size_t)q * sizeof *count;
    count[ranks_index(r)][0] = *asked;
    count[ranks_index(r)][1] = *right;
    TRY(ranks_gather(r, count, at, e));
    *asked = *right = 0;
    for (int q = 0; q < ranks_count(r); q++) *asked += count[q][0], *right += count[q][1];
    return OK;
}

int recall_run(const Recall *r, Model *m, RecallForward forward, void *ctx, double *accuracy, double *mean, Err *e) {
    double sum = 0;
    for (int i = 0; i < r->n_n; i++) {
        const int n = r->n[i], T = 2 * n + 2 * r->queries;
        long asked = 0, right = 0;
        Ranks *ranks = m->be->ranks; // each takes every so many-th batch
        Probe probe;
        int rc = probe_open(&probe, r, m, T, e), whose = 0;
        for (int first = 0; first < r->rows && !rc; first += r->batch, whose = (whose + 1) % ranks_count(ranks))
            if (whose == ranks_index(ranks))
                rc = probe_batch(&probe, r, m, forward, ctx, n, T, first, &asked, &right, e);
        probe_close(&probe);
        if (!rc) rc = m->be->sync(m->be, e);
        if (!rc) rc = counts_add(ranks, &asked, &right, e);
        if (rc) return rc;
        accuracy[i] = (double)right / (double)asked;
        sum += accuracy[i] / r->n_n;
    }
    if (mean) *mean = sum;
    return OK;
}

int recall_mixed(const void *ctx, uint64_t seed, uint64_t index, int first, int rows, int T, int *ids, int *target,
                 Err *e) {
    enum { MIX_SEED = 0x6d6978 };
    int fit[RECALL_MAX_N], n_fit = 0;
    const Recall *g = ctx;
    void *mem;
    for (int i = 0; i < g->n_n; i++)
        if (2 * g->n[i] + 2 <= T) fit[n_fit++] = g->n[i];
    if (!n_fit)
        return err_set(e, ERR_USAGE, "mixture: no number of recall pairs fits %d tokens (recall_keys, recall_n)", T);
    TRY(mem_alloc(&mem, 2 * (size_t)g->spec.n_key * sizeof(int) + (size_t)T * sizeof(float), "recall rows", e));
    int *scratch = mem;
    float *weight = (float *)(scratch + 2 * g->spec.n_key);
    for (int row = 0; row < rows; row++) {
        const size_t at = (size_t)row * T;
        Rng r;
        rng_seed3(&r, seed ^ MIX_SEED, index, (uint64_t)(first + row));
        const int n = fit[rng_below(&r, (uint64_t)n_fit)];
        recall_row(&g->spec, &r, n, T, ids + at, target + at, weight, scratch);
    }
    mem_free(mem);
    return OK;
}
