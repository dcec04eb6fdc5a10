/* opcheck_backend.c - a backend against ref64, on one case. */
#include "base/mem.h"
#include "tools/opcheck_parts.h"
#include <math.h>
#include <string.h>

/* Tolerance of tensor i on backend be after `times` calls: 8 u sqrt(n) times the tensor's condition number. BF16:
 * the same, since sums are in float; 2^-8 for each time that the result is stored in BF16 (8 significant bits);
 * and where operands of products are rounded inside (check_condition) twice what that many independent roundings by
 * 2^-9, the usual size, do. LIMIT: whatever the condition, an error of a
 * tenth, halved by the prefill, must fail. */
double check_tolerance(const Check *k, int i, const Backend *be, int times) {
    static const double LIMIT = 0.03;
    const TensorRow *t = &k->c->tensor[i];
    const double n = opcase_product(k->c, t->terms), by = k->condition[i];
    if (t->kind == INT) return 1e-9;
    if (t->kind == DOUBLE || be->wide_type == DT_F64) return by * compare_tol(0x1p-53, n);
    double tol = by * compare_tol(0x1p-24, n);
    if (be->real_type != DT_BF16) return tol;
    if (t->kind == REAL) tol += times * 0x1p-8;
    tol += 2 * sqrt(k->c->row->roundings[is_gradient(t->role)]) * k->rounded[i] * 0x1p-9;
    return fmin(tol, LIMIT);
}

/* For tests of the checks: as if the backend's result v were a tenth too large; `before`: what a gradient was added to.
 * */
static void inject_error(const Check *k, int i, double *v, const double *before) {
    if (!k->o->inject_error || strcmp(k->o->inject_error, k->c->tensor[i].name)) return;
    for (size_t n = 0; n < k->c->count[i]; n++) v[n] += 0.1 * (v[n] - (before ? before[n] : 0));
}

/* What a gradient buffer holds before the first call: random numbers of the gradient's own size, and of its sign,
 * so that nothing cancels. */
static void prefill(const Check *k, const Backend *be, int i, double *v) {
    double square = 0;
    Rng g = check_stream(k, i, "prefill");
    for (size_t n = 0; n < k->c->count[i]; n++) square += k->out[i][n] * k->out[i][n];
    const double size = square > 0 ? sqrt(square / (double)k->c->count[i]) : 1;
    for (size_t n = 0; n < k->c->count[i]; n++) v[n] = copysign(size * rng_normal(&g), k->out[i][n]);
    side_round(be, k->c->tensor[i].kind, v, k->c->count[i]);
}

static void inputs_unchanged(Check *k, Side *s, const char *when) {
    for (int i = 0; i < k->c->tensors; i++) {
        const Role role = k->c->tensor[i].role;
        if ((role != IN && role != COT) || !s->call.t[i]) continue;
        side_get(s, i, k->got);
        if (memcmp(k->got, k->c->value[i], k->c->count[i] * sizeof(double)) != 0)
            check_problem(k, k->c->tensor[i].name, when);
    }
    const char *hit = side_guards(s);
    if (hit) check_problem(k, hit, "wrote outside this tensor");
}

/* Floats cannot hold numbers below 2^-126 to full precision. Where all of a tensor should be below, anything there is
 * as good as 0, and nothing above is. */
static void sink(Check *k, int i, const Backend *be) {
    static const double LEAST = 0x1p-126;
    double largest = 0;
    for (size_t n = 0; n < k->c->count[i]; n++) largest = fmax(largest, fabs(k->want[n]));
    if (be->wide_type == DT_F64 || largest >= LEAST) return;
    for (size_t n = 0; n < k->c->count[i]; n++) {
        k->want[n] = 0;
        if (fabs(k->got[n]) < LEAST) k->got[n] = 0;
    }
}

static int side_forward(Check *k, Side *s, Err *e) {
    for (int i = 0; i < k->c->tensors; i++)
        if (is_output(k->c->tensor[i].role) && s->call.t[i]) side_nan(s, i);
    TRY(side_call(s, 0, e));
    for (int i = 0; i < k->c->tensors; i++) {
        if (!is_output(k->c->tensor[i].role) || !s->call.t[i]) continue;
        if (k->c->tensor[i].kind == INT && s->be->real_type == DT_BF16)
            continue; // an argmax of rounded logits may be another
        side_get(s, i, k->got);
        inject_error(k, i, k->got, NULL);
        memcpy(k->want, k->out[i], k->c->count[i] * sizeof(double));
        sink(k, i, s->be);
        check_compare(k, i, "", k->got, k->want, check_tolerance(k, i, s->be, 1));
    }
    inputs_unchanged(k, s, "forward changed this input");
    return OK;
}

/* One call of backward; gradients must now be prefill + times * gradient. */
static int side_backward(Check *k, Side *s, int times, Err *e) {
    for (int i = 0; i < k->c->tensors; i++) {
        const Role role = k->c->tensor[i].role;
        if ((role == OVER || (k->c->row->fused && is_output(role))) && s->call.t[i]) side_nan(s, i);
    }
    TRY(side_call(s, 1, e));
    for (int i = 0; i < k->c->tensors; i++) {
        const Role role = k->c->tensor[i].role;
        if (!s->call.t[i] || !(is_gradient(role) || (k->c->row->fused && is_output(role)))) continue;
        if (k->c->tensor[i].kind == INT && s->be->real_type == DT_BF16) continue;
        memset(k->want, 0, k->c->count[i] * sizeof(double));
        if (role == GRAD) prefill(k, s->be, i, k->want);
        side_get(s, i, k->got);
        inject_error(k, i, k->got, k->want);
        for (size_t n = 0; n < k->c->count[i]; n++) k->want[n] += (role == GRAD ? times : 1) * k->out[i][n];
        sink(k, i, s->be);
        check_compare(k, i, times == 2 ? " twice" : "", k->got, k->want, check_tolerance(k, i, s->be, times));
    }
    inputs_unchanged(k, s, "backward changed this input");
    return OK;
}

static int side_both(Check *k, Side *s, Err *e) {
    TRY(side_forward(k, s, e));
    if (!opcase_backward(k->c)) return OK;
    for (int i = 0; i < k->c->tensors; i++) {
        if (!s->call.t[i]) continue;
        if (k->c->tensor[i].role == GRAD) {
            prefill(k, s->be, i, k->got);
            side_put(s, i, k->got);
        } else if (k->c->tensor[i].role == SAVED) side_put(s, i, k->out[i]); // rounds
    }
    TRY(side_backward(k, s, 1, e));
    TRY(side_backward(k, s, 2, e));
    for (int i = 0; i < k->c->tensors; i++) { // what forward saved must survive backward
        if (k->c->tensor[i].role != SAVED) continue;
        memcpy(k->want, k->out[i], k->c->count[i] * sizeof(double));
        side_round(s->be, k->c->tensor[i].kind, k->want, k->c->count[i]);
        side_get(s, i, k->got);
        if (memcmp(k->got, k->want, k->c->count[i] * sizeof(double)) != 0)
            check_problem(k, k->c->tensor[i].name, "backward changed this");
    }
    return OK;
}

/* All bytes that the calls produced, one after another. */
static int side_results(Side *s, unsigned char **bytes, size_t *n, Err *e) {
    void *p;
    *n = 0;
    for (int i = 0; i < s->c->tensors; i++)
        if (s->call.t[i] && s->c->tensor[i].role != WORK) *n += side_size(s, i);
    TRY(mem_alloc(&p, *n, "results", e));
    *bytes = p;
    size_t used = 0;
    for (int i = 0; i < s->c->tensors; i++)
        if (s->call.t[i] && s->c->tensor[i].role != WORK) side_bytes(s, i, *bytes + used), used += side_size(s, i);
    return OK;
}

static int missing(const Backend *be, size_t offset) {
    void (*f)(void) = NULL;
    memcpy(&f, (const char *)be->op + offset, sizeof f);
    return !f;
}

static int run_side(Check *k, Backend *be, unsigned char **bytes, size_t *n, Err *e) {
    Side s;
    TRY(side_open(&s, be, k->c, e));
    int rc = side_both(k, &s, e);
    if (!rc) rc = side_results(&s, bytes, n, e);
    side_close(&s);
    return rc;
}

static int check_threads(Check *k, const char *name, const unsigned char *one, size_t n, Err *e) {
    static const int threads[] = {2, 4};
    for (int i = 0; i < 2; i++) {
        Backend *be;
        unsigned char *bytes = NULL;
        size_t m;
        TRY(backend_open(&be, name, threads[i], e));
        const int rc = run_side(k, be, &bytes, &m, e);
        if (!rc && (m != n || memcmp(one, bytes, n) != 0))
            check_problem(k, "threads", "other bytes than with one thread");
        mem_free(bytes);
        backend_close(be);
        TRY(rc);
    }
    return OK;
}

int check_backend(Check *k, Backend *be, Err *e) {
    if (missing(be, k->c->row->forward_at) || (k->c->row->backward && missing(be, k->c->row->backward_at)))
        return check_problem(k, "-", "this backend does not have this op"), OK;
    unsigned char *bytes = NULL;
    size_t n = 0;
    int rc = run_side(k, be, &bytes, &n, e);
    if (!rc && !strcmp(be->name, "cpu")) {
        rc = check_threads(k, "cpu", bytes, n, e);
        Backend *again; // the number of threads is the process's: back to one
        if (!rc && !(rc = backend_open(&again, "cpu", 1, e))) backend_close(again);
    }
    mem_free(bytes);
    return rc;
}
