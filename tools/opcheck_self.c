/* opcheck_self.c - what ref64 is checked with by itself: naive formulas, chunked against recurrent,
 * central differences. */
#include "base/mem.h"
#include "tools/opcheck_parts.h"
#include <math.h>
#include <string.h>

static const double SAME_TOL = 1e-12; /* two ways to the same number in double */

/* ---- naive: the formula written a second time ---- */

int check_naive(Check *k, Err *e) {
    double *out[MAX_TENSORS] = {0};
    void *p, *scratch = NULL;
    int rc = mem_alloc(&scratch, naive_scratch(k->c) * sizeof(double), "naive", e);
    for (int i = 0; !rc && i < k->c->tensors; i++)
        if (k->out[i] && !(rc = mem_alloc(&p, k->c->count[i] * sizeof(double), "naive", e))) out[i] = p;
    if (!rc) {
        k->c->row->naive(k->c, out, scratch);
        for (int i = 0; i < k->c->tensors; i++)
            if (is_output(k->c->tensor[i].role) && opcase_has(k->c, i))
                check_compare(k, i, "", k->out[i], out[i], SAME_TOL);
    }
    mem_free(scratch);
    for (int i = 0; i < k->c->tensors; i++) mem_free(out[i]);
    return rc;
}

/* ---- chunk: the chunked form against the recurrence ---- */

int check_chunk(Check *k, Backend *ref, Err *e) {
    OpCase one; // inputs depend on the seed and the shapes only: they are the same
    Check r = {.o = k->o};
    TRY(opcase_open(&one, k->c->row, k->c->text, "chunk=1", 0, e));
    int rc = check_open(&r, &one, ref, ref, e);
    for (int i = 0; !rc && i < k->c->tensors; i++)
        if (k->out[i] && opcase_has(k->c, i) && k->c->count[i] == one.count[i] && k->c->tensor[i].role != SAVED)
            check_compare(k, i, "", k->out[i], r.out[i], SAME_TOL);
    check_close(&r);
    opcase_close(&one);
    return rc;
}

/* ---- diff: central differences of sum over outputs of <cotangent, output> ---- */

enum { DIFF_LIMIT = 20000 };          /* inputs */
static const double DIFF_FLOPS = 2e8; /* inputs times forward */
static const double DIFF_STEP = 2e-5, DIFF_TOL = 1e-8;

/* Cotangent of output y: the tensor that weighs it, else the key "weight", else 1. */
static void cotangent(const OpCase *c, int y, double *v) {
    const double key = opcase_key(c, "weight");
    for (int i = 0; i < c->tensors; i++) {
        const TensorRow *t = &c->tensor[i];
        if ((t->role != COT && t->role != IN) || strcmp(t->of, c->tensor[y].name) || !opcase_has(c, i)) continue;
        memcpy(v, c->value[i], c->count[y] * sizeof *v);
        return;
    }
    const int weighed = c->row->fused && c->tensor[y].kind == WIDE;
    for (size_t n = 0; n < c->count[y]; n++) v[n] = !weighed ? 0 : isnan(key) ? 1 : key;
}

/* out = outputs with element n of input x moved by `by`. On ref64, where nothing can fail. */
static void moved_forward(Check *k, Side *s, int x, size_t n, double by, double **out) {
    const double v = k->c->value[x][n], to = v + by;
    double *const element = (double *)s->call.t[x] + n;
    *element = to;
    k->c->row->forward(&s->call);
    check_outputs(k, s, out);
    *element = v;
}

/* What rounding of the outputs does to a difference, relative to the gradient: the part of the tolerance that matters
 * where the gradient is tiny beside the outputs (strong decays). */
static double diff_noise(const Check *k, int g, double **cot) {
    double outputs = 0, gradient = 0;
    for (int y = 0; y < k->c->tensors; y++)
        for (size_t m = 0; cot[y] && m < k->c->count[y]; m++)
            if (cot[y][m] != 0) outputs += cot[y][m] * cot[y][m] * k->out[y][m] * k->out[y][m];
    for (size_t n = 0; n < k->c->count[g]; n++) gradient += k->out[g][n] * k->out[g][n];
    if (gradient == 0) return 0;
    return 8 * 0x1p-53 / DIFF_STEP * sqrt(outputs / (gradient / (double)k->c->count[g]));
}

/* Differences of the outputs are weighed, not differences of sums: what does not depend on the input cancels exactly.
 * */
static void diff_input(Check *k, Side *s, int g, int x, double **cot, double **up, double **down) {
    // f' = (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h + O(h^4)
    static const double weight[2] = {8.0 / 12, -1.0 / 12};
    for (size_t n = 0; n < k->c->count[x]; n++) {
        const double h = DIFF_STEP * fmax(1, fabs(k->c->value[x][n]));
        k->want[n] = 0;
        for (int far = 0; far < 2; far++) {
            moved_forward(k, s, x, n, (1 + far) * h, up);
            moved_forward(k, s, x, n, -(1 + far) * h, down);
            for (int y = 0; y < k->c->tensors; y++)
                for (size_t m = 0; cot[y] && m < k->c->count[y]; m++)
                    if (cot[y][m] != 0) k->want[n] += weight[far] / h * cot[y][m] * (up[y][m] - down[y][m]);
        }
    }
    const double tol = DIFF_TOL + diff_noise(k, g, cot);
    if (tol < 0.5) check_compare(k, g, "", k->out[g], k->want, tol); // else differences are noise alone
}

static int buffers_take(double **b, const OpCase *c, Err *e) {
    for (int i = 0; i < c->tensors; i++)
        if (is_output(c->tensor[i].role)) {
            void *p;
            TRY(mem_alloc(&p, c->count[i] * sizeof(double), "differences", e));
            b[i] = p;
        }
    return OK;
}

int check_diff(Check *k, Backend *ref, Err *e) {
    const OpCase *c = k->c;
    double *buf[3][MAX_TENSORS] = {{0}};
    size_t work = 0;
    for (int i = 0; i < c->tensors; i++) work += c->tensor[i].role == IN ? c->count[i] : 0;
    if (!opcase_backward(c) || c->nodiff || work > DIFF_LIMIT ||
        (double)work * opcase_product(c, c->row->flops[0]) > DIFF_FLOPS)
        return OK;
    Side s;
    int rc = side_open(&s, ref, c, e);
    for (int b = 0; !rc && b < 3; b++) rc = buffers_take(buf[b], c, e);
    for (int y = 0; !rc && y < c->tensors; y++)
        if (buf[0][y]) cotangent(c, y, buf[0][y]);
    for (int g = 0; !rc && g < c->tensors; g++)
        if (is_gradient(c->tensor[g].role) && opcase_has(c, g)) {
            const int x = opcase_find(c, c->tensor[g].of);
            if (opcase_has(c, x)) diff_input(k, &s, g, x, buf[0], buf[1], buf[2]);
        }
    for (int b = 0; b < 3; b++)
        for (int i = 0; i < c->tensors; i++) mem_free(buf[b][i]);
    side_close(&s);
    return rc;
}
