/* budget.c - see budget.h. */
#include "selectors/budget.h"
#include "base/mem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t budget_softmax_bytes(const Config *c, const Backend *be, long context) {
    const size_t tokens = c->window > 0 && c->window < context ? (size_t)c->window : (size_t)context;
    return 2 * tokens * (size_t)c->Hk * c->D * be->real_size;
}

size_t budget_linear_bytes(const Config *c, const Backend *be) { return (size_t)c->H * c->D * c->D * be->wide_size; }

size_t budget_mixer_bytes(const Config *c, const Mixer *m, const Backend *be) {
    return m->linear ? budget_linear_bytes(c, be) : 2 * (size_t)c->swa_window * c->Hk * c->D * be->real_size;
}

int budget_count(double soft, double lin, int L, double budget) {
    for (int K = L; K >= 0; K--)
        if (K * soft + (L - K) * lin <= budget * (1 + 1e-12)) return K;
    return -1;
}

/* A partial set: layers 0..l decided; `before` is the one it came from. */
typedef struct {
    double cost, value;
    int before, count;
    char kept;
} Partial;
enum { PARTIALS = 1 << 20 };
typedef struct {
    Partial *p;
    size_t n, cap;
} Pool;

static int pool_push(Pool *pool, Partial x, Err *e) {
    if (pool->n == PARTIALS)
        return err_set(e, ERR_MEMORY, "budget: more than %d combinations of layer costs", PARTIALS);
    if (pool->n == pool->cap) {
        void *mem = pool->p;
        const size_t cap = pool->cap ? 2 * pool->cap : 256;
        TRY(mem_grow(&mem, pool->cap * sizeof *pool->p, cap * sizeof *pool->p, "combinations of layers", e));
        pool->p = mem;
        pool->cap = cap;
    }
    pool->p[pool->n++] = x;
    return OK;
}

static int by_cost(const void *a, const void *b) { // cheaper first; then more value; then fewer layers
    const Partial *x = a, *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? -1 : 1;
    if (x->value != y->value) return x->value > y->value ? -1 : 1;
    return x->count - y->count;
}

/* Sorts p[from..n) and drops what another partial set beats in both cost and value. */
static void pool_prune(Pool *pool, size_t from) {
    size_t n = from;
    qsort(pool->p + from, pool->n - from, sizeof *pool->p, by_cost);
    for (size_t i = from; i < pool->n; i++)
        if (n == from || pool->p[i].value > pool->p[n - 1].value) pool->p[n++] = pool->p[i];
    pool->n = n;
}

static int pool_fill(Pool *pool, const double *value, const double *soft, const double *lin, int L, double budget,
                     size_t *last, Err *e) {
    double rest = 0; // what the layers still to come cost at least
    for (int l = 0; l < L; l++) rest += fmin(soft[l], lin[l]);
    const double least = rest, most = budget * (1 + 1e-12);
    size_t from = 0;
    TRY(pool_push(pool, (Partial){.before = -1}, e));
    for (int l = 0; l < L; l++) {
        const size_t to = pool->n;
        const double v = isnan(value[l]) ? -1e300 : value[l];
        rest -= fmin(soft[l], lin[l]);
        for (size_t i = from; i < to; i++) {
            const Partial p = pool->p[i];
            if (p.cost + lin[l] + rest <= most)
                TRY(pool_push(pool, (Partial){p.cost + lin[l], p.value, (int)i, p.count, 0}, e));
            if (p.cost + soft[l] + rest <= most)
                TRY(pool_push(pool, (Partial){p.cost + soft[l], p.value + v, (int)i, p.count + 1, 1}, e));
        }
        if (pool->n == to)
            return err_set(e, ERR_USAGE, "budget: got %g, the cheapest choice of layers costs %g", budget, least);
        pool_prune(pool, to);
        from = to;
    }
    *last = pool->n - 1; // the most expensive of those left is worth the most
    return OK;
}

int budget_knapsack(const double *value, const double *soft, const double *lin, int L, double budget, int *keep,
                    Err *e) {
    Pool pool = {0};
    size_t at = 0;
    int rc = pool_fill(&pool, value, soft, lin, L, budget, &at, e);
    for (int l = L - 1; l >= 0 && !rc; l--) {
        keep[l] = pool.p[at].kept;
        at = (size_t)pool.p[at].before;
    }
    mem_free(pool.p);
    return rc;
}
