/* compare.c - reads the runs of several seeds; see compare.h. */
#include "base/file.h"
#include "base/mem.h"
#include "report/compare.h"
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int name_index(Compare *c, const char *name) {
    for (int i = 0; i < c->rows; i++)
        if (!strcmp(c->row[i].name, name)) return i;
    if (c->rows == COMPARE_NAMES) return -1;
    snprintf(c->row[c->rows].name, sizeof c->row[0].name, "%.31s", name);
    return c->rows++;
}

/* Best first; *found 0 when the selector ranks nothing, or scores all layers the same. tokens, seconds:
 * what its scores cost. */
static int order_read(const char *run, const char *name, int *order, int *found, double *tokens, double *seconds,
                      Err *e) {
    char dir[1200], path[1300];
    int L = 0, differ = 0;
    void *mem;
    snprintf(dir, sizeof dir, "%.1000s/rankings/%.31s", run, name);
    snprintf(path, sizeof path, "%s/ranking.json", dir);
    *found = file_exists(path) == 1;
    *tokens = *seconds = 0;
    if (!*found) return OK;
    TRY(mem_alloc(&mem, MAX_LAYERS * sizeof(LayerScore), "layer scores", e));
    LayerScore *s = mem;
    const int rc = ranking_read(s, &L, dir, e);
    for (int l = 0; l < L && !rc; l++) {
        if (s[l].rank >= 1 && s[l].rank <= L) order[s[l].rank - 1] = l;
        *tokens += (double)s[l].tokens;
        *seconds += s[l].seconds;
        differ |= !(s[l].score == s[0].score);
    }
    *found = differ;
    mem_free(mem);
    return rc;
}

/* KL and rank of a set among all sets of K layers, if all were distilled: "rank,kl,stderr,"layers"" lines. */
static int regret_read(CompareCell *cell, const char *run, Err *e) {
    char path[1300], text[160];
    File f;
    cell->regret = NAN;
    snprintf(path, sizeof path, "%.1000s/checkpoints/scores-exhaustive/sets.csv", run);
    if (file_exists(path) != 1) return OK;
    TRY(file_open(&f, path, e));
    const char *s = (const char *)f.data, *end = s + f.size;
    double best = NAN;
    while (s < end) {
        int rank;
        double kl;
        const char *eol = memchr(s, '\n', (size_t)(end - s));
        const size_t n = (size_t)((eol ? eol : end) - s);
        snprintf(text, sizeof text, "%.*s", n < sizeof text ? (int)n : (int)sizeof text - 1, s);
        s += n + 1;
        if (sscanf(text, "%d,%lf", &rank, &kl) != 2) continue;
        if (rank == 1) best = kl;
        const char *layers = strchr(text, '"');
        const size_t len = strlen(cell->layers);
        if (!layers || strncmp(layers + 1, cell->layers, len) || layers[1 + len] != '"') continue;
        cell->regret = kl - best;
        cell->set_rank = rank;
    }
    file_close(&f);
    return OK;
}

static int share_of(const int *a, const int *b, int L) {
    int n = 0;
    for (int l = 0; l < L; l++) n += a[l] && b[l];
    return n;
}

static const StudentRow *row_named(const PipelineResult *r, const char *name) {
    for (int i = 0; i < r->rows; i++)
        if (!strcmp(r->row[i].name, name)) return &r->row[i];
    return NULL;
}

static int cell_read(Compare *c, const char *run, const PipelineResult *r, const StudentRow *s, CompareCell *cell,
                     Err *e) {
    int mine[MAX_LAYERS], ga[MAX_LAYERS], have = 0, have_ga = 0;
    double tokens, seconds;
    const StudentRow *best = row_named(r, "ga_s2");
    *cell = (CompareCell){.rho = NAN, .tau = NAN, .overlap = NAN};
    memcpy(cell->keep, s->keep, sizeof cell->keep);
    cell->k = s->K;
    select_text(cell->layers, sizeof cell->layers, s->keep, s->L);
    cell->kl = s->held.kl;
    cell->kl_se = s->held.kl_se;
    cell->recall = s->recall_mean;
    cell->recall_last = r->n_n ? s->recall[r->n_n - 1] : NAN;
    cell->memory = ((double)s->cache_bytes_per_token * c->context + (double)s->state_bytes) / 1048576;
    TRY(order_read(run, "ga_s2", ga, &have_ga, &tokens, &seconds, e));
    TRY(order_read(run, s->name, mine, &have, &cell->tokens, &cell->seconds, e));
    if (have && have_ga) {
        cell->rho = select_spearman(ga, mine, s->L);
        cell->tau = select_kendall(ga, mine, s->L);
    }
    if (best && best->K && s->K == best->K) cell->overlap = (double)share_of(best->keep, s->keep, s->L) / best->K;
    if (s->K != c->K) return cell->regret = NAN, OK;
    return regret_read(cell, run, e);
}

static int agreement_add(Compare *c, const char *run, const PipelineResult *r, Err *e) {
    int a[MAX_LAYERS], b[MAX_LAYERS], found;
    double t, s;
    for (int i = 2; i < r->rows; i++) {
        const int x = name_index(c, r->row[i].name);
        if (x < 0) continue;
        TRY(order_read(run, r->row[i].name, a, &found, &t, &s, e));
        if (!found) continue;
        for (int k = 2; k < r->rows; k++) {
            const int y = name_index(c, r->row[k].name);
            if (y < 0) continue;
            TRY(order_read(run, r->row[k].name, b, &found, &t, &s, e));
            if (!found) continue;
            c->rho[x * COMPARE_NAMES + y] += select_spearman(a, b, c->L);
            c->pairs[x * COMPARE_NAMES + y]++;
        }
    }
    return OK;
}

static int seed_read(Compare *c, int at, Err *e) {
    char run[1100];
    PipelineResult *r = &c->result[at];
    snprintf(run, sizeof run, "%.1000s/seed-%llu", c->dir, (unsigned long long)c->seed[at]);
    TRY(pipeline_results_read(r, run, e));
    if (!at) c->L = r->L, c->K = r->K, c->recall_most = r->n_n ? r->recall_n[r->n_n - 1] : 0;
    if (r->L != c->L || r->K != c->K)
        return err_set(e, ERR_INPUT, "%s: %d layers, %d kept; the first run has %d and %d", run, r->L, r->K, c->L,
                       c->K);
    for (int i = 2; i < r->rows; i++) {
        const int row = name_index(c, r->row[i].name);
        if (row < 0) continue;
        CompareRow *to = &c->row[row];
        CompareCell *cell = &to->cell[to->n++];
        TRY(cell_read(c, run, r, &r->row[i], cell, e));
        cell->seed = c->seed[at];
    }
    return agreement_add(c, run, r, e);
}

int compare_read(Compare *c, const char *dir, const uint64_t *seed, int n, Err *e) {
    char run[1100];
    PipelineOptions *o;
    void *mem;
    int found;
    memset(c, 0, sizeof *c);
    if (n < 1 || n > COMPARE_SEEDS) return err_set(e, ERR_USAGE, "seeds: got %d, expected 1 to %d", n, COMPARE_SEEDS);
    c->dir = dir;
    c->n_seeds = n;
    memcpy(c->seed, seed, (size_t)n * sizeof *seed);
    snprintf(run, sizeof run, "%.1000s/seed-%llu", dir, (unsigned long long)seed[0]);
    TRY(mem_alloc(&mem, sizeof *o, "options", e));
    o = mem;
    int rc = pipeline_options_read(o, run, &found, e);
    c->context = found ? (double)o->memory_context : 0;
    mem_free(mem);
    if (!rc && !found) rc = err_set(e, ERR_INPUT, "%s: no run.json", run);
    if (!rc) rc = mem_alloc(&mem, (size_t)n * sizeof(PipelineResult), "results of all seeds", e);
    if (rc) return rc;
    c->result = mem;
    for (int i = 0; i < n && !rc; i++) rc = seed_read(c, i, e);
    if (rc) compare_close(c);
    return rc;
}

void compare_close(Compare *c) {
    mem_free(c->result);
    c->result = NULL;
}

double compare_mean(const CompareRow *r, size_t offset, double *sd) {
    double sum = 0, square = 0;
    int n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < r->n; i++) {
            double v;
            memcpy(&v, (const char *)&r->cell[i] + offset, sizeof v);
            if (isnan(v)) continue;
            if (pass) square += (v - sum / n) * (v - sum / n);
            else sum += v, n++;
        }
    if (sd) *sd = n > 1 ? sqrt(square / (n - 1)) : NAN;
    return n ? sum / n : NAN;
}
