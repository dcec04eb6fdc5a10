/* opcheck_check.c - one case under check: ref64's results on it, how well conditioned they are, and how findings are
 * reported. */
#include "base/hash.h"
#include "base/mem.h"
#include "tools/opcheck_parts.h"
#include <math.h>
#include <string.h>

void check_problem(const Check *k, const char *tensor, const char *problem) {
    OpResult r = {.op = k->c->row->name,
                  .check = k->name,
                  .shape = k->c->text,
                  .tensor = tensor,
                  .problem = problem,
                  .c = {.margin = INFINITY}};
    k->report(k->ctx, &r);
}

void check_compare(const Check *k, int i, const char *suffix, const double *a, const double *r, double tol) {
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

Rng check_stream(const Check *k, int i, const char *what) {
    Rng g;
    const char *op = k->c->row->name;
    rng_seed3(&g, k->o->seed, hash_bytes(3, op, strlen(op)) + (uint64_t)i, hash_bytes(4, what, strlen(what)));
    return g;
}

/* ---- ref64: outputs, and gradients from zero ---- */

void check_zero_gradients(Side *s) {
    for (int i = 0; i < s->c->tensors; i++)
        if (is_gradient(s->c->tensor[i].role) && s->call.t[i]) s->be->zero(s->be, s->call.t[i], side_size(s, i));
}

void check_outputs(const Check *k, Side *s, double **out) {
    for (int i = 0; i < k->c->tensors; i++)
        if (is_output(k->c->tensor[i].role) && s->call.t[i]) side_get(s, i, out[i]);
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
    check_zero_gradients(&k->ref);
    TRY(side_call(&k->ref, 1, e));
    for (int i = 0; i < k->c->tensors; i++)
        if (is_gradient(k->c->tensor[i].role) && k->ref.call.t[i]) side_get(&k->ref, i, k->out[i]);
    return OK;
}

/* ---- condition: how much of an input's relative error each tensor shows, at least 1 and at most CONDITION ----
 * Where results cancel (a norm's gradient in one dimension, the KL of two equal distributions), no arithmetic can be
 * more exact than this. Measured: all inputs moved by 2^-24 of themselves, up or down at random;
 * the largest of a few trials. */
enum { CONDITION = 100, TRIALS = 3 };
static const double NUDGE = 0x1p-24;

static void nudged_put(Check *k, int i, const double *v, Rng *g) {
    for (size_t n = 0; n < k->c->count[i]; n++) k->got[n] = v[n] * (1 + (rng_u64(g) >> 63 ? NUDGE : -NUDGE));
    side_put(&k->ref, i, k->got);
}

/* How far tensor i on ref64 is from its true value, in units of NUDGE. */
static double moved_by(Check *k, int i) {
    double moved = 0, whole = 0;
    side_get(&k->ref, i, k->got);
    for (size_t n = 0; n < k->c->count[i]; n++) {
        const double d = k->got[n] - k->out[i][n];
        moved += d * d;
        whole += k->out[i][n] * k->out[i][n];
    }
    return whole > 0 ? sqrt(moved / whole) / NUDGE : 0;
}
static void condition_take(Check *k, int i, double *most) { *most = fmin(fmax(*most, moved_by(k, i)), CONDITION); }

static int condition_trial(Check *k, const Backend *be, Rng *g, Err *e) {
    for (int i = 0; i < k->c->tensors; i++)
        if (k->c->value[i] && opcase_has(k->c, i) && k->c->tensor[i].kind != INT) nudged_put(k, i, k->c->value[i], g);
    TRY(side_call(&k->ref, 0, e));
    for (int i = 0; i < k->c->tensors; i++) {
        if (!is_output(k->c->tensor[i].role) || !opcase_has(k->c, i)) continue;
        condition_take(k, i, &k->condition[i]);
        if (k->c->tensor[i].role != SAVED) continue;
        // as backward read it, or its rounding would be measured too
        memcpy(k->got, k->out[i], k->c->count[i] * sizeof(double));
        if (!k->given) side_round(be, k->c->tensor[i].kind, k->got, k->c->count[i]);
        nudged_put(k, i, k->got, g);
    }
    if (!opcase_backward(k->c)) return OK;
    check_zero_gradients(&k->ref);
    TRY(side_call(&k->ref, 1, e));
    for (int i = 0; i < k->c->tensors; i++)
        if (is_gradient(k->c->tensor[i].role) && opcase_has(k->c, i)) condition_take(k, i, &k->condition[i]);
    return OK;
}

/* BF16 alone. Inputs are the same for both sides, and sums are in float: what is left besides storing the result is
 * that some kernels round the operands of their products (probabilities, states, logits).
 * Every such operand is a factor of terms that are also linear in
 * an input named by row->rounded, so the error is that of rounding those inputs: measured like the condition,
 * all else exact. */
static int rounded_trial(Check *k, const Backend *be, Rng *g, Err *e) {
    for (int i = 0; i < k->c->tensors; i++) {
        if (!opcase_has(k->c, i) || !k->c->value[i]) continue;
        if (word_listed(k->c->row->rounded, k->c->tensor[i].name)) nudged_put(k, i, k->c->value[i], g);
        else side_put(&k->ref, i, k->c->value[i]);
    }
    TRY(side_call(&k->ref, 0, e));
    for (int i = 0; i < k->c->tensors; i++) {
        if (!is_output(k->c->tensor[i].role) || !opcase_has(k->c, i)) continue;
        condition_take(k, i, &k->rounded[i]);
        if (k->c->tensor[i].role != SAVED) continue;
        memcpy(k->got, k->out[i], k->c->count[i] * sizeof(double));
        if (!k->given) side_round(be, k->c->tensor[i].kind, k->got, k->c->count[i]);
        side_put(&k->ref, i, k->got);
    }
    if (!opcase_backward(k->c)) return OK;
    check_zero_gradients(&k->ref);
    TRY(side_call(&k->ref, 1, e));
    for (int i = 0; i < k->c->tensors; i++)
        if (is_gradient(k->c->tensor[i].role) && opcase_has(k->c, i)) condition_take(k, i, &k->rounded[i]);
    return OK;
}

int check_condition(Check *k, const Backend *be, Err *e) {
    Rng g = check_stream(k, 0, "condition");
    for (int i = 0; i < k->c->tensors; i++) k->condition[i] = 1, k->rounded[i] = 0;
    for (int trial = 0; trial < TRIALS; trial++) TRY(condition_trial(k, be, &g, e));
    if (be->real_type != DT_BF16 || !k->c->row->rounded) return OK;
    for (int trial = 0; trial < TRIALS; trial++) TRY(rounded_trial(k, be, &g, e));
    return OK;
}

/* ---- opening and closing ---- */

int check_open(Check *k, OpCase *c, Backend *ref, const Backend *be, Err *e) {
    k->c = c;
    if (!k->given) opcase_draw(c, k->o->seed);
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
    TRY(side_call(&k->ref, 0, e));
    check_outputs(k, &k->ref, k->out);
    return ref_backward(k, be, e);
}
void check_close(Check *k) {
    side_close(&k->ref);
    for (int i = 0; i < MAX_TENSORS; i++) mem_free(k->out[i]), k->out[i] = NULL;
    mem_free(k->got);
    mem_free(k->want);
    k->got = k->want = NULL;
    k->longest = 0;
}
