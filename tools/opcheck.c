/* opcheck.c - the checks of opcheck.h, one function each. */
#include "tools/opcheck.h"
#include "base/hash.h"
#include "base/mem.h"
#include "tools/opcheck_parts.h"
#include <math.h>
#include <string.h>

/* ---- what a check has at hand ---- */
typedef struct {
    const OpcheckOptions *o;
    OpReport report;
    void *ctx;
    const OpCase *c;
    const char *name; /* of the check */
    Side ref;         /* ref64 */
    double *out
        [MAX_TENSORS]; /* ref64's OUT and SAVED after forward, GRAD and OVER after backward from zero; NULL for others */
    double *got, *want; /* scratch, each as long as the largest tensor */
    double condition[MAX_TENSORS];
    size_t longest;
} Check;

static int is_output(Role r) { return r == OUT || r == SAVED; }
static int is_gradient(Role r) { return r == GRAD || r == OVER; }

int opresult_failed(const OpResult *r) { return r->problem || r->c.verdict != COMPARE_OK; }

static void report_problem(const Check *k, const char *tensor, const char *problem) {
    OpResult r = {.op = k->c->row->name,
                  .check = k->name,
                  .shape = k->c->text,
                  .tensor = tensor,
                  .problem = problem,
                  .c = {.margin = INFINITY}};
    k->report(k->ctx, &r);
}

static void report_compare(const Check *k, int i, const char *suffix, const double *a, const double *r,
                           double tol) {
    char name[40];
    const TensorRow *t = &k->c->tensor[i];
    if (!k->c->count[i]) return; // conv's tail with W = 1
    snprintf(name, sizeof name, "%s%s", t->name, suffix);
    OpResult out = {.op = k->c->row->name, .check = k->name, .shape = k->c->text, .tensor = name, .tol = tol};
    out.c = compare(a, r, k->c->count[i], tol);
    compare_index(out.index, sizeof out.index, out.c.at, k->c->dims[i], k->c->rank[i]);
    if (t->kind == INT && out.c.verdict == COMPARE_OK && out.c.rel > 0) out.c.verdict = COMPARE_ELEMENT;
    k->report(k->ctx, &out);
}

/* Tolerance of tensor i on backend be: 8 u sqrt(n) times the tensor's condition number. BF16: twice (backward: three times) the error of
 * rounding each operand once. */
static double tolerance(const Check *k, int i, const Backend *be) {
    const TensorRow *t = &k->c->tensor[i];
    const double n = opcase_product(k->c, t->terms), by = k->condition[i];
    if (t->kind == INT) return 1e-9;
    if (t->kind == DOUBLE || be->wide_type == DT_F64) return by * compare_tol(0x1p-53, n);
    return by * (compare_tol(0x1p-24, n) + (be->real_type != DT_BF16 ? 0
                                            : is_gradient(t->role)   ? 3 * 0x1p-8
                                                                     : 2 * 0x1p-8));
}

static Rng stream(const Check *k, int i, const char *what) {
    Rng g;
    const char *op = k->c->row->name;
    rng_seed3(&g, k->o->seed, hash_bytes(3, op, strlen(op)) + (uint64_t)i, hash_bytes(4, what, strlen(what)));
    return g;
}

/* ---- ref64: outputs, and gradients from zero ---- */

static void zero_gradients(Side *s) {
    for (int i = 0; i < s->c->tensors; i++)
        if (is_gradient(s->c->tensor[i].role) && s->call.t[i])
            s->be->zero(s->be, s->call.t[i], side_size(s, i));
}

static int ref_forward(Check *k, Side *s, double **out, Err *e) {
    TRY(side_call(s, 0, e));
    for (int i = 0; i < k->c->tensors; i++)
        if (is_output(k->c->tensor[i].role) && s->call.t[i]) side_get(s, i, out[i]);
    return OK;
}

/* What forward saved goes into backward as `be` stores it. */
static int ref_backward(Check *k, const Backend *be, Err *e) {
    if (!opcase_backward(k->c)) return OK;
    for (int i = 0; i < k->c->tensors; i++)
        if (k->c->tensor[i].role == SAVED) {
            memcpy(k->got, k->out[i], k->c->count[i] * sizeof(double));
            side_round(be, k->c->tensor[i].kind, k->got, k->c->count[i]);
            side_put(&k->ref, i, k->got);
        }
    zero_gradients(&k->ref);
    TRY(side_call(&k->ref, 1, e));
    for (int i = 0; i < k->c->tensors; i++)
        if (is_gradient(k->c->tensor[i].role) && k->ref.call.t[i]) side_get(&k->ref, i, k->out[i]);
    return OK;
}

/* ---- condition: how much of an input's relative error each tensor shows, at least 1 and at most CONDITION ----
 * Where results cancel (a norm's gradient in one dimension, the KL of two equal distributions), no arithmetic can be more exact than
 * this. Measured: all inputs moved by 2^-24 of themselves, up or down at random; the largest of a few trials. */
enum { CONDITION = 100, TRIALS = 3 };
static const double NUDGE = 0x1p-24;

static void nudged_put(Check *k, int i, const double *v, Rng *g) {
    for (size_t n = 0; n < k->c->count[i]; n++) k->got[n] = v[n] * (1 + (rng_u64(g) >> 63 ? NUDGE : -NUDGE));
    side_put(&k->ref, i, k->got);
}

static void condition_take(Check *k, int i) {
    double moved = 0, whole = 0;
    side_get(&k->ref, i, k->got);
    for (size_t n = 0; n < k->c->count[i]; n++) {
        const double d = k->got[n] - k->out[i][n];
        moved += d * d;
        whole += k->out[i][n] * k->out[i][n];
    }
    const double c = whole > 0 ? sqrt(moved / whole) / NUDGE : 1;
    k->condition[i] = fmin(fmax(k->condition[i], c), CONDITION);
}

static int condition_measure(Check *k, Err *e) {
    Rng g = stream(k, 0, "condition");
    for (int i = 0; i < k->c->tensors; i++) k->condition[i] = 1;
    for (int trial = 0; trial < TRIALS; trial++) {
        for (int i = 0; i < k->c->tensors; i++)
            if (k->c->value[i] && opcase_has(k->c, i) && k->c->tensor[i].kind != INT)
                nudged_put(k, i, k->c->value[i], &g);
        TRY(side_call(&k->ref, 0, e));
        for (int i = 0; i < k->c->tensors; i++) {
            if (!is_output(k->c->tensor[i].role) || !opcase_has(k->c, i)) continue;
            condition_take(k, i);
            if (k->c->tensor[i].role == SAVED) nudged_put(k, i, k->out[i], &g);
        }
        if (!opcase_backward(k->c)) continue;
        zero_gradients(&k->ref);
        TRY(side_call(&k->ref, 1, e));
        for (int i = 0; i < k->c->tensors; i++)
            if (is_gradient(k->c->tensor[i].role) && opcase_has(k->c, i)) condition_take(k, i);
    }
    return OK;
}

/* Opens ref64 on the case with its inputs rounded to what `be` stores, and runs both directions. */
static int check_open(Check *k, OpCase *c, Backend *ref, const Backend *be, Err *e) {
    k->c = c;
    opcase_draw(c, k->o->seed);
    for (int i = 0; i < c->tensors; i++) {
        if (c->value[i]) side_round(be, c->tensor[i].kind, c->value[i], c->count[i]);
        if (c->count[i] > k->longest && c->tensor[i].role != WORK) k->longest = c->count[i];
    }
    void *p;
    TRY(mem_alloc(&p, k->longest * sizeof(double), "check", e));
    k->got = p;
    TRY(mem_alloc(&p, k->longest * sizeof(double), "check", e));
    k->want = p;
    for (int i = 0; i < c->tensors; i++)
        if (is_output(c->tensor[i].role) || is_gradient(c->tensor[i].role)) {
            TRY(mem_alloc(&p, c->count[i] * sizeof(double), "check", e));
            k->out[i] = p;
        }
    TRY(side_open(&k->ref, ref, c, e));
    TRY(ref_forward(k, &k->ref, k->out, e));
    return ref_backward(k, be, e);
}
static void check_close(Check *k) {
    side_close(&k->ref);
    for (int i = 0; i < MAX_TENSORS; i++) mem_free(k->out[i]), k->out[i] = NULL;
    mem_free(k->got);
    mem_free(k->want);
    k->got = k->want = NULL;
    k->longest = 0;
}

static const double SAME_TOL = 1e-12; /* two ways to the same number in double */

/* ---- naive: the formula written a second time ---- */

static int check_naive(Check *k, Err *e) {
    double *out[MAX_TENSORS] = {0};
    void *p, *scratch = NULL;
    int rc = mem_alloc(&scratch, naive_scratch(k->c) * sizeof(double), "naive", e);
    for (int i = 0; !rc && i < k->c->tensors; i++)
        if (k->out[i] && !(rc = mem_alloc(&p, k->c->count[i] * sizeof(double), "naive", e))) out[i] = p;
    if (!rc) {
        k->c->row->naive(k->c, out, scratch);
        for (int i = 0; i < k->c->tensors; i++)
            if (is_output(k->c->tensor[i].role) && opcase_has(k->c, i))
                report_compare(k, i, "", k->out[i], out[i], SAME_TOL);
    }
    mem_free(scratch);
    for (int i = 0; i < k->c->tensors; i++) mem_free(out[i]);
    return rc;
}

/* ---- chunk: the chunked form against the recurrence ---- */

static int check_chunk(Check *k, Backend *ref, Err *e) {
    OpCase one; // inputs depend on the seed and the shapes only: they are the same
    Check r = {.o = k->o};
    TRY(opcase_open(&one, k->c->row, k->c->text, "chunk=1", 0, e));
    int rc = check_open(&r, &one, ref, ref, e);
    for (int i = 0; !rc && i < k->c->tensors; i++)
        if (k->out[i] && opcase_has(k->c, i) && k->c->count[i] == one.count[i] &&
            k->c->tensor[i].role != SAVED)
            report_compare(k, i, "", k->out[i], r.out[i], SAME_TOL);
    check_close(&r);
    opcase_close(&one);
    return rc;
}

/* ---- diff: central differences of sum over outputs of <cotangent, output> ---- */

enum { DIFF_LIMIT = 20000 };          /* inputs */
static const double DIFF_FLOPS = 2e8; /* inputs times forward */
static const double DIFF_STEP = 2e-5, DIFF_TOL = 1e-8, DIFF_TOL_HARD = 1e-7;

/* Cotangent of output y: the tensor that weighs it, else the key "weight", else 1. */
static void cotangent(const OpCase *c, int y, double *v) {
    const double key = opcase_key(c, "weight");
    for (int i = 0; i < c->tensors; i++) {
        const TensorRow *t = &c->tensor[i];
        if ((t->role != COT && t->role != IN) || strcmp(t->of, c->tensor[y].name) || !opcase_has(c, i))
            continue;
        memcpy(v, c->value[i], c->count[y] * sizeof *v);
        return;
    }
    const int weighed = c->row->fused && c->tensor[y].kind == WIDE;
    for (size_t n = 0; n < c->count[y]; n++) v[n] = !weighed ? 0 : isnan(key) ? 1 : key;
}

/* out[1] = outputs with element n of input x moved by `by` */
static int moved_forward(Check *k, Side *s, int x, size_t n, double by, double **out, Err *e) {
    const double v = k->c->value[x][n], to = v + by;
    const size_t at_n = n * sizeof(double);
    s->be->upload(s->be, (char *)s->call.t[x] + at_n, &to, sizeof to);
    const int rc = ref_forward(k, s, out, e);
    s->be->upload(s->be, (char *)s->call.t[x] + at_n, &v, sizeof v);
    return rc;
}

/* Differences of the outputs are weighed, not differences of sums: what does not depend on the input cancels exactly. */
static int diff_input(Check *k, Side *s, int g, int x, double **cot, double **up, double **down, Err *e) {
    static const double weight[2] = {8.0 / 12,
                                     -1.0 / 12}; // f' = (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h + O(h^4)
    for (size_t n = 0; n < k->c->count[x]; n++) {
        const double h = DIFF_STEP * fmax(1, fabs(k->c->value[x][n]));
        k->want[n] = 0;
        for (int far = 0; far < 2; far++) {
            TRY(moved_forward(k, s, x, n, (1 + far) * h, up, e));
            TRY(moved_forward(k, s, x, n, -(1 + far) * h, down, e));
            for (int y = 0; y < k->c->tensors; y++)
                for (size_t m = 0; cot[y] && m < k->c->count[y]; m++)
                    if (cot[y][m] != 0) k->want[n] += weight[far] / h * cot[y][m] * (up[y][m] - down[y][m]);
        }
    }
    report_compare(k, g, "", k->out[g], k->want, opcase_key(k->c, "hard") > 0 ? DIFF_TOL_HARD : DIFF_TOL);
    return OK;
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

static int check_diff(Check *k, Backend *ref, Err *e) {
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
            if (opcase_has(c, x)) rc = diff_input(k, &s, g, x, buf[0], buf[1], buf[2], e);
        }
    for (int b = 0; b < 3; b++)
        for (int i = 0; i < c->tensors; i++) mem_free(buf[b][i]);
    side_close(&s);
    return rc;
}

/* ---- a backend against ref64 ---- */

/* What a gradient buffer holds before the first call: random numbers of the gradient's own size, and of its sign, so that nothing cancels. */
static void prefill(const Check *k, const Backend *be, int i, double *v) {
    double square = 0;
    Rng g = stream(k, i, "prefill");
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
            report_problem(k, k->c->tensor[i].name, when);
    }
    const char *hit = side_guards(s);
    if (hit) report_problem(k, hit, "wrote outside this tensor");
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
        report_compare(k, i, "", k->got, k->out[i], tolerance(k, i, s->be));
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
        for (size_t n = 0; n < k->c->count[i]; n++) k->want[n] += (role == GRAD ? times : 1) * k->out[i][n];
        side_get(s, i, k->got);
        report_compare(k, i, times == 2 ? " twice" : "", k->got, k->want, tolerance(k, i, s->be));
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
            report_problem(k, k->c->tensor[i].name, "backward changed this");
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
        if (s->call.t[i] && s->c->tensor[i].role != WORK)
            side_bytes(s, i, *bytes + used), used += side_size(s, i);
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
            report_problem(k, "threads", "other bytes than with one thread");
        mem_free(bytes);
        backend_close(be);
        TRY(rc);
    }
    return OK;
}

static int check_backend(Check *k, Backend *be, Err *e) {
    if (missing(be, k->c->row->forward_at) || (k->c->row->backward && missing(be, k->c->row->backward_at)))
        return report_problem(k, "-", "this backend does not have this op"), OK;
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

/* ---- all cases of one op ---- */

typedef struct {
    const OpcheckOptions *o;
    OpReport report;
    void *ctx;
    Backend *ref, *be;
} Run;

static int run_case(const Run *r, const OpRow *row, const char *text, unsigned absent, Err *e) {
    OpCase c;
    Check k = {.o = r->o, .report = r->report, .ctx = r->ctx};
    TRY(opcase_open(&c, row, text, r->o->shape, absent, e));
    int rc = OK;
    if (r->o->self) {
        rc = check_open(&k, &c, r->ref, r->ref, e);
        k.name = "naive";
        if (!rc) rc = check_naive(&k, e);
        k.name = "chunk";
        if (!rc && opcase_key(&c, "chunk") > 1) rc = check_chunk(&k, r->ref, e);
        k.name = "diff";
        if (!rc) rc = check_diff(&k, r->ref, e);
        check_close(&k);
    }
    if (!rc && r->be) {
        rc = check_open(&k, &c, r->ref, r->be, e);
        k.name = r->be->name;
        if (!rc) rc = condition_measure(&k, e);
        if (!rc) rc = check_backend(&k, r->be, e);
        check_close(&k);
    }
    opcase_close(&c);
    return rc;
}

/* Every optional argument left out alone, then all of them together. */
static int run_optional(const Run *r, const OpRow *row, const char *text, Err *e) {
    OpCase c;
    unsigned all = 0;
    TRY(opcase_open(&c, row, text, NULL, 0, e));
    for (int i = 0; i < c.tensors; i++) all |= (unsigned)c.tensor[i].optional << i;
    opcase_close(&c);
    for (int i = 0; i < MAX_TENSORS; i++)
        if (all >> i & 1) TRY(run_case(r, row, text, 1u << i, e));
    return all ? run_case(r, row, text, all, e) : OK;
}

static int run_row(const Run *r, const OpRow *row, Err *e) {
    if (r->o->shape) return run_case(r, row, NULL, 0, e);
    for (int i = 0; i < MAX_CASES && row->cases[i]; i++) TRY(run_case(r, row, row->cases[i], 0, e));
    return run_optional(r, row, row->cases[0], e);
}

int opcheck_run(const OpcheckOptions *o, OpReport report, void *ctx, Err *e) {
    Run r = {.o = o, .report = report, .ctx = ctx};
    int rc = OK, found = 0;
    TRY(backend_open(&r.ref, "ref64", 1, e));
    if (o->backend) rc = backend_open(&r.be, o->backend, 1, e);
    for (int i = 0; !rc && i < op_row_count; i++)
        if (!o->op || !strcmp(o->op, op_rows[i].name)) {
            found = 1;
            rc = run_row(&r, &op_rows[i], e);
        }
    if (!rc && !found) {
        rc = err_set(e, ERR_USAGE, "op: got \"%s\", expected the name of an op", o->op);
        err_hint(e, "--list prints them");
    }
    backend_close(r.be);
    backend_close(r.ref);
    return rc;
}

int opcheck_count(void) { return op_row_count; }
const char *opcheck_name(int i) { return i >= 0 && i < op_row_count ? op_rows[i].name : NULL; }
const char *opcheck_keys(int i) { return i >= 0 && i < op_row_count ? op_rows[i].keys : NULL; }
