/* test_ops.c - the op table (tools/opcheck_table.c), one test an op: naive formulas, chunked against recurrent,
 * float64 differences, and every host backend against ref64. `test_ops --only OP` runs one op;
 * --self leaves out the backends of cpu/ (both for tests/mutate.sh). */
#include "base/mem.h"
#include "base/poison.h"
#include "base/rng.h"
#include "tools/opcheck.h"
#include "tests/kl_exact.h"
#include "tests/suite.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *only;
static int self; /* only what ref/ops can be checked with by itself: no cpu */
static const char *const backends[] = {"ref64", "ref32", "cpu"};

typedef struct {
    int compared, failed;
    double margin; /* the smallest */
    char worst[160];
} Tally;

static void tally(void *ctx, const OpResult *r) {
    Tally *t = ctx;
    t->compared++;
    if (opresult_failed(r)) {
        if (t->failed++ < 8)
            printf("%s %s %s: %s  error %.2e of %.2e  %s  %.17g, expected %.17g  (%s)\n", r->op, r->check, r->tensor,
                   r->problem ? r->problem : compare_word(&r->c), r->c.rel, r->tol, r->index, r->c.a, r->c.r, r->shape);
    }
    if (!r->problem && r->c.margin < t->margin) {
        t->margin = r->c.margin;
        snprintf(t->worst, sizeof t->worst, "%s of %s in %s", r->tensor, r->check, r->shape);
    }
}

START_TEST(test_op) {
    const char *op = opcheck_name(_i);
    if (only && strcmp(op, only) != 0) return;
    Tally t = {.margin = INFINITY};
    Err e = {0};
    for (int b = 0; b < (self ? 2 : 3); b++) {
        const OpcheckOptions o = {.op = op, .backend = backends[b], .seed = 1, .self = b == 0};
        if (opcheck_run(&o, tally, &t, &e)) ck_abort_msg("%s: %s (%s)", op, e.msg, e.hint);
    }
    printf("%-14s %5d comparisons, smallest margin %.2f: %s\n", op, t.compared, t.margin, t.worst);
    ck_assert_int_gt(t.compared, 10);
    ck_assert_int_eq(t.failed, 0);
}
END_TEST

/* The regimes of every op (tools/opcheck_regime.c). Large ones only on cpu, where they take a moment. */
START_TEST(test_regimes) {
    const char *op = opcheck_name(_i);
    if (only && strcmp(op, only) != 0) return;
    Tally t = {.margin = INFINITY};
    Err e = {0};
    int has = 0;
    for (int i = 0; opcheck_regime(i); i++) has |= opcheck_regime_has(i, op);
    if (!has) return;
    for (int b = 0; b < (self ? 2 : 3); b++) {
        const OpcheckOptions o = {
            .op = op, .backend = backends[b], .regime = "all", .seed = 2, .self = b == 0, .small = b < 2};
        if (opcheck_run(&o, tally, &t, &e)) ck_abort_msg("%s: %s (%s)", op, e.msg, e.hint);
    }
    printf("%-14s %5d comparisons in regimes, smallest margin %.2f: %s\n", op, t.compared, t.margin, t.worst);
    ck_assert_int_gt(t.compared, 10);
    ck_assert_int_eq(t.failed, 0);
}
END_TEST

/* Numbers that a person can check. */
START_TEST(test_by_hand) {
    const double x[4] = {3, 4, 0, 0}, one[2] = {1, 1};
    double y[4], r[2];
    ops_ref64.l2norm_forward(y, r, x, 0, 1, 2);
    ck_assert_double_eq_tol(y[0], 0.6, 1e-15);
    ck_assert_double_eq_tol(y[1], 0.8, 1e-15);
    ck_assert_double_eq_tol(r[0], 0.2, 1e-15);
    ops_ref64.rmsnorm_forward(y, r, x, one, 0, 1, 2);
    ck_assert_double_eq_tol(y[0], 3 / sqrt(12.5), 1e-15);
    // one token of the delta rule writes beta v under k, and reads it back
    const double k[2] = {0.6, 0.8}, v[1] = {5}, g = -0.5, beta = 0.5;
    double o[1], states[4] = {NAN, NAN, NAN, NAN}, state[2] = {1, 2}, work[4096];
    const DeltaDims d = {.B = 1, .T = 1, .H = 1, .Hk = 1, .K = 2, .V = 1, .chunk = 1};
    ck_assert_uint_le(delta_rule_work(&d), sizeof work);
    ops_ref64.delta_rule_forward(o, states, state, k, k, v, &g, &beta, NULL, 1, work, &d);
    const double P[2] = {exp(-0.5), 2 * exp(-0.5)}, u = 5 - (0.6 * P[0] + 0.8 * P[1]);
    ck_assert_double_eq_tol(states[2], P[0] + 0.6 * 0.5 * u, 1e-15);
    ck_assert_double_eq_tol(states[3], P[1] + 0.8 * 0.5 * u, 1e-15);
    ck_assert_double_eq_tol(o[0], 0.6 * states[2] + 0.8 * states[3], 1e-15);
    ck_assert(states[0] == 1 && states[1] == 2 && state[0] == states[2] && state[1] == states[3]);
    // AdamW's first step moves by lr, whatever the gradient's size
    double p = 1, m = 0, s = 0;
    const double grad = 1e-3;
    const Trained64 list = {.master = &p, .m = &m, .v = &s, .grad = &grad, .n = 1, .lr = 0.01, .decay = 0.1};
    ops_ref64.adamw(&list, 1, 0.9, 0.95, 0, 1, 0, 1);
    ck_assert_double_eq_tol(p, 1 - 0.001 - 0.01, 1e-15);
}
END_TEST

/* ---- Kimi delta attention contains the gated delta rule, and GLA's decay ---- */

enum { RB = 2, RT = 13, RH = 4, RK = 16, RV = 5, RCHUNK = 8 };
typedef struct { /* inputs of a linear mixer, outputs and gradients of each of two */
    DeltaDims d;
    double q[RB * RT * RH * RK], k[RB * RT * RH * RK], v[RB * RT * RH * RV], g[RB * RT * RH * RK], beta[RB * RT * RH];
    double dout[RB * RT * RH * RV], work[1 << 16];
    int start[RB * RT];
    struct {
        double o[RB * RT * RH * RV], states[RB * RH * (RT + 1) * RK * RV], state[RB * RH * RK * RV],
            dstate[RB * RH * RK * RV];
        double dq[RB * RT * RH * RK], dk[RB * RT * RH * RK], dv[RB * RT * RH * RV], dg[RB * RT * RH * RK],
            dbeta[RB * RT * RH];
    } a, b;
} Two;
static void fill(double *x, int n, Rng *g) {
    for (int i = 0; i < n; i++) x[i] = rng_normal(g);
}
static Two *two_open(int Hk, int chunk) {
    static Two t;
    Rng g;
    memset(&t, 0, sizeof t);
    rng_seed(&g, 5);
    t.d = (DeltaDims){.B = RB, .T = RT, .H = RH, .Hk = Hk, .K = RK, .V = RV, .chunk = chunk};
    fill(t.q, RB * RT * Hk * RK, &g);
    fill(t.k, RB * RT * Hk * RK, &g);
    fill(t.v, RB * RT * RH * RV, &g);
    fill(t.dout, RB * RT * RH * RV, &g);
    fill(t.a.dstate, RB * RH * RK * RV, &g);
    memcpy(t.b.dstate, t.a.dstate, sizeof t.a.dstate);
    for (int i = 0; i < RB * RT * Hk * RK; i++) t.k[i] /= 4; // rows of about unit length
    for (int i = 0; i < RB * RT * RH; i++) t.beta[i] = rng_uniform(&g);
    // now and then a channel closes
    for (int i = 0; i < RB * RT * RH * RK; i++) t.g[i] = -rng_uniform(&g) * (i % 7 ? 1 : 40);
    for (int b = 0; b < RB; b++)
        for (int i = 0; i < RT; i++) t.start[b * RT + i] = i < 6 + b ? 0 : 6 + b;
    return &t;
}
static double *state_zero(double *state) { return memset(state, 0, RB * RH * RK * RV * sizeof *state); }
static void kda_both(Two *t) {
    ck_assert_uint_le(kda_work(&t->d), sizeof t->work);
    ops_ref64.kda_forward(t->a.o, t->a.states, state_zero(t->a.state), t->q, t->k, t->v, t->g, t->beta, t->start, 0.5,
                          t->work, &t->d);
    ops_ref64.kda_backward(t->a.dq, t->a.dk, t->a.dv, t->a.dg, t->a.dbeta, t->a.dstate, t->dout, t->a.states, t->q,
                           t->k, t->v, t->g, t->beta, t->start, 0.5, t->work, &t->d);
}
static double farthest(const double *x, const double *y, size_t n) { /* relative to the largest of y */
    double far = 0, most = 0;
    for (size_t i = 0; i < n; i++) far = fmax(far, fabs(x[i] - y[i])), most = fmax(most, fabs(y[i]));
    ck_assert(most > 0 && isfinite(far));
    return far / most;
}
#define SAME(field, n)                                                                                                 \
    ck_assert_msg(farthest(t->a.field, t->b.field, n) < tol, #field ": %g", farthest(t->a.field, t->b.field, n))

/* All channels' g equal: the delta rule, in every output and gradient (dg: summed over channels), grouped heads
 * included. */
START_TEST(test_kda_is_delta_rule) {
    const double tol = 1e-12;
    for (int chunk = 1; chunk <= RCHUNK; chunk += RCHUNK - 1) {
        Two *t = two_open(2, chunk);
        double g[RB * RT * RH], dg[RB * RT * RH];
        const DeltaDims d = t->d;
        for (int i = 0; i < RB * RT * RH; i++) {
            g[i] = t->g[i * RK];
            for (int a = 0; a < RK; a++) t->g[i * RK + a] = g[i];
        }
        kda_both(t);
        ops_ref64.delta_rule_forward(t->b.o, t->b.states, state_zero(t->b.state), t->q, t->k, t->v, g, t->beta,
                                     t->start, 0.5, t->work, &d);
        ops_ref64.delta_rule_backward(t->b.dq, t->b.dk, t->b.dv, t->b.dg, t->b.dbeta, t->b.dstate, t->dout, t->b.states,
                                      t->q, t->k, t->v, g, t->beta, t->start, 0.5, t->work, &d);
        for (int i = 0; i < RB * RT * RH; i++) {
            dg[i] = 0;
            for (int a = 0; a < RK; a++) dg[i] += t->a.dg[i * RK + a];
        }
        SAME(o, RB * RT * RH * RV);
        SAME(states, delta_states(&d));
        SAME(dq, RB * RT * 2 * RK);
        SAME(dk, RB * RT * 2 * RK);
        SAME(dv, RB * RT * RH * RV);
        SAME(dbeta, RB * RT * RH);
        SAME(dstate, RB * RH * RK * RV);
        ck_assert(farthest(dg, t->b.dg, RB * RT * RH) < tol);
    }
}
END_TEST

/* Keys e_1, e_2, ..., each used once a document, on an empty state: the rule finds nothing to correct (P^T k = 0),
 * so with beta = 1 what is left is GLA, decays per channel and their gradients included. */
START_TEST(test_kda_decays_like_gla) {
    const double tol = 1e-12;
    for (int chunk = 1; chunk <= RCHUNK; chunk += RCHUNK - 1) {
        Two *t = two_open(RH, chunk);
        const DeltaDims d = t->d;
        memset(t->k, 0, sizeof t->k);
        for (int i = 0; i < RB * RT * RH; i++) {
            t->k[i * RK + (i / RH % RT * 5 + i % RH) % RK] = 1; // 5 and 16 have no common factor: 13 different channels
            t->beta[i] = 1;
        }
        kda_both(t);
        ops_ref64.gla_forward(t->b.o, t->b.states, state_zero(t->b.state), t->q, t->k, t->v, t->g, t->start, 0.5,
                              t->work, &d);
        ops_ref64.gla_backward(t->b.dq, t->b.dk, t->b.dv, t->b.dg, t->b.dstate, t->dout, t->b.states, t->q, t->k, t->v,
                               t->g, t->start, 0.5, t->work, &d);
        SAME(o, RB * RT * RH * RV);
        SAME(states, delta_states(&d));
        SAME(dq, RB * RT * RH * RK);
        SAME(dv, RB * RT * RH * RV);
        SAME(dg, RB * RT * RH * RK);
    }
}
END_TEST

/* Any keys: with k small and v large by the same factor, k u^T = k v^T - (P^T k) k^T's share goes away with the square
 * of k: GLA in the limit, and at the rate that the delta term has. */
START_TEST(test_kda_tends_to_gla) {
    double far[3];
    for (int i = 0; i < 3; i++) {
        Two *t = two_open(RH, RCHUNK);
        const double small = pow(2, -8 - i);
        for (int n = 0; n < RB * RT * RH; n++) t->beta[n] = 1;
        ops_ref64.gla_forward(t->b.o, t->b.states, state_zero(t->b.state), t->q, t->k, t->v, t->g, t->start, 0.5,
                              t->work, &t->d);
        for (int n = 0; n < RB * RT * RH * RK; n++) t->k[n] *= small;
        for (int n = 0; n < RB * RT * RH * RV; n++) t->v[n] /= small;
        kda_both(t);
        far[i] = farthest(t->a.o, t->b.o, RB * RT * RH * RV);
    }
    ck_assert(far[0] < 1e-4 && far[0] > 1e-8);
    for (int i = 0; i < 2; i++) ck_assert_double_eq_tol(far[i] / far[i + 1], 4, 0.01);
}
END_TEST

/* The bounded gate lies in [-5, 0], meets both ends, rises nowhere with f; where f + dt_bias = 0 it is half way. */
START_TEST(test_kda_gate_is_bounded) {
    const double A_log = 1, dt_bias = 0.5, b = 0;
    double last = 0, g, beta;
    for (double f = -80; f <= 80; f += 0.25) {
        ops_ref64.kda_gate_forward(&g, &beta, &f, &b, &A_log, &dt_bias, -5, 1, 1, 1);
        ck_assert(g >= -5 && g <= 0 && g <= last);
        if (f == -80) ck_assert_double_gt(g, -1e-80);
        if (f == -dt_bias) ck_assert_double_eq(g, -2.5);
        last = g;
    }
    ck_assert_double_eq(last, -5);
}
END_TEST

/* Another seed gives other numbers, and the same one the same. */
typedef struct {
    double first;
    int n;
} First;
static void first_rel(void *ctx, const OpResult *r) {
    First *f = ctx;
    if (f->n++ == 0) f->first = r->c.rel;
}
START_TEST(test_seed) {
    double rel[3];
    const uint64_t seeds[3] = {7, 7, 8};
    for (int i = 0; i < 3; i++) {
        First f = {0};
        Err e = {0};
        const OpcheckOptions o = {.op = "linear", .backend = "ref32", .shape = "N=9,I=8,O=7", .seed = seeds[i]};
        ck_assert_int_eq(opcheck_run(&o, first_rel, &f, &e), OK);
        rel[i] = f.first;
    }
    ck_assert(rel[0] == rel[1] && rel[0] != rel[2] && rel[0] > 0);
}
END_TEST

/* ---- the checks themselves: a table with something wrong in it must be caught ---- */

static Ops64 broken; /* what the "broken" backend runs */
static int broken_sync(Backend *b, Err *e) { return (void)b, (void)e, OK; }
static void broken_close(Backend *b) { mem_free(b); }
static int broken_open(Backend **out, const char *name, int threads, Err *e) {
    Backend *ref;
    TRY(backend_open(&ref, "ref64", threads, e));
    ref->name = name;
    ref->op = (const Ops *)&broken;
    ref->sync = broken_sync;
    ref->close = broken_close;
    *out = ref;
    return OK;
}

static void silu_nan(double *y, const double *x, size_t n) {
    ops_ref64.silu_forward(y, x, n);
    y[n - 1] = NAN;
}
static void silu_short(double *y, const double *x, size_t n) { ops_ref64.silu_forward(y, x, n - 1); }
static void silu_long(double *y, const double *x, size_t n) {
    ops_ref64.silu_forward(y, x, n);
#ifndef HYB_ASAN /* which would not survive it */
    y[n] = 0;
#else
    y[n - 1] = NAN;
#endif
}
static void silu_spoil(double *y, const double *x, size_t n) {
    ops_ref64.silu_forward(y, x, n);
    ((double *)(uintptr_t)x)[0] += 1;
}
static void silu_negative(double *y, const double *x, size_t n) {
    ops_ref64.silu_forward(y, x, n);
    for (size_t i = 0; i < n; i++) y[i] = -y[i];
}
static void silu_backward_sets(double *dx, const double *dy, const double *x, size_t n) {
    memset(dx, 0, n * sizeof *dx);
    ops_ref64.silu_backward(dx, dy, x, n);
}
static void silu_backward_twice(double *dx, const double *dy, const double *x, size_t n) {
    ops_ref64.silu_backward(dx, dy, x, n);
    ops_ref64.silu_backward(dx, dy, x, n);
}
static void linear_no_bias(double *y, const double *x, const double *w, const double *b, int N, int I, int O) {
    (void)b;
    ops_ref64.linear_forward(y, x, w, NULL, N, I, O);
}
static void linear_old_work(double *dx, double *dw, double *db, const double *dy, const double *x, const double *w,
                            int N, int I, int O) {
    if (dx && dw && db)
        ops_ref64.linear_backward(dx, dw, db, dy, x, w, N, I, O); // forgets what it owes when one is absent
}
static void attention_dirty(double *o, double *lse, const double *q, const double *k, const double *v, const int *start,
                            double scale, void *work, const AttnDims *d) {
    const double before = *(double *)work; // as if scratch were zero
    ops_ref64.attention_forward(o, lse, q, k, v, start, scale, work, d);
    o[0] += before;
}

static void count_failed(void *ctx, const OpResult *r) { *(int *)ctx += opresult_failed(r); }
static int broken_failures(const char *op) {
    int failed = 0;
    Err e = {0};
    const OpcheckOptions o = {.op = op, .backend = "broken", .seed = 1};
    if (opcheck_run(&o, count_failed, &failed, &e)) ck_abort_msg("%s", e.msg);
    return failed;
}

START_TEST(test_broken) {
    void (*silu[])(double *, const double *, size_t) = {silu_nan,   silu_short,    silu_long,
                                                        silu_spoil, silu_negative, NULL};
    void (*silu_back[])(double *, const double *, const double *, size_t) = {silu_backward_sets, silu_backward_twice,
                                                                             NULL};
    backend_register("broken", broken_open);
    broken = ops_ref64;
    ck_assert_int_eq(broken_failures("silu"), 0);
    for (int i = 0; i < 6; i++) {
        broken = ops_ref64;
        broken.silu_forward = silu[i];
        ck_assert_msg(broken_failures("silu") > 0, "broken silu %d passed", i);
    }
    for (int i = 0; i < 3; i++) {
        broken = ops_ref64;
        broken.silu_backward = silu_back[i];
        ck_assert_msg(broken_failures("silu") > 0, "broken silu_backward %d passed", i);
    }
    broken = ops_ref64;
    broken.linear_forward = linear_no_bias;
    ck_assert_int_gt(broken_failures("linear"), 0);
    broken = ops_ref64;
    broken.linear_backward = linear_old_work;
    ck_assert_int_gt(broken_failures("linear"), 0);
    broken = ops_ref64;
    broken.attention_forward = attention_dirty;
    ck_assert_int_gt(broken_failures("attention"), 0);
}
END_TEST

START_TEST(test_usage) {
    static const struct {
        const char *op, *shape, *backend;
        int code;
    } bad[] = {
        {"linaer", NULL, "ref32", ERR_USAGE},          {"linear", "N=5,Q=3", "ref32", ERR_USAGE},
        {"linear", "N=0", "ref32", ERR_USAGE},         {"linear", "N=x", "ref32", ERR_USAGE},
        {"linear", "N", "ref32", ERR_USAGE},           {"linear", "-x", "ref32", ERR_USAGE},
        {"attention", "H=4,Hk=3", "ref32", ERR_USAGE}, {"attention", "stride=3", "ref32", ERR_USAGE},
        {"rope", "D=3", "ref32", ERR_USAGE},           {"linear", "N=1e6,I=1e6", "ref32", ERR_USAGE},
        {"conv", "W=9", "ref32", ERR_USAGE},           {"linear", NULL, "ref16", ERR_USAGE},
        {"linear", NULL, "cuda:99999", ERR_DEVICE},
    };
    int n = 0;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Err e = {0};
        const OpcheckOptions o = {.op = bad[i].op, .shape = bad[i].shape, .backend = bad[i].backend, .self = 1};
        const int rc = opcheck_run(&o, count_failed, &n, &e);
        ck_assert_msg(rc == bad[i].code && e.msg[0], "%s %s: got %d (%s)", bad[i].op, bad[i].shape, rc, e.msg);
    }
    ck_assert_uint_eq(mem_now(), 0);
}
END_TEST

/* Out of memory at any point: an error, nothing left behind. */
START_TEST(test_memory) {
    for (long n = 0;; n++) {
        Err e = {0};
        int failed = 0;
        const OpcheckOptions o = {
            .op = "delta_rule", .shape = "B=1,T=3,H=1,Hk=1,K=2,V=1,chunk=2", .backend = "cpu", .seed = 1, .self = 1};
        mem_fail_after(n);
        const int rc = opcheck_run(&o, count_failed, &failed, &e);
        mem_fail_after(-1);
        ck_assert_uint_eq(mem_now(), 0);
        ck_assert_int_eq(failed, 0);
        if (!rc) break;
        ck_assert_int_eq(rc, ERR_MEMORY);
        ck_assert_int_lt(n, 2000);
    }
}
END_TEST

START_TEST(test_report) {
    char text[1 << 16] = {0};
    Err e = {0};
    for (int json = 0; json < 2; json++) {
        FILE *f = fmemopen(text, sizeof text - 1, "w");
        const GradcheckOptions o = {.op = "delta_gate", .backend = "all", .seed = 1, .json = json};
        ck_assert_int_eq(gradcheck_run(&o, f, &e), OK);
        fclose(f);
        ck_assert_ptr_nonnull(strstr(text, json ? "\"failed\": 0" : " 0 failed"));
        ck_assert_ptr_nonnull(strstr(text, "dA_log"));
        ck_assert_ptr_nonnull(strstr(text, "diff"));
    }
    FILE *f = fmemopen(text, sizeof text - 1, "w");
    const GradcheckOptions o = {.backend = "broken", .op = "silu", .seed = 1};
    backend_register("broken", broken_open);
    broken = ops_ref64;
    broken.silu_forward = silu_negative;
    ck_assert_int_eq(gradcheck_run(&o, f, &e), ERR_CHECK);
    fclose(f);
    ck_assert_ptr_nonnull(strstr(text, "TOO FAR"));
}
END_TEST

/* ---- backend.h ---- */
START_TEST(test_backend) {
    Err e = {0};
    Backend *b;
    static const char *const names[] = {"ref64", "ref32", "cpu"};
    for (int i = 0; i < 3; i++) {
        void *p, *q;
        double v[5000], back[5000];
        ck_assert_int_eq(backend_open(&b, names[i], 2, &e), OK);
        ck_assert_str_eq(b->name, names[i]);
        ck_assert_int_ge(b->threads, 1);
        ck_assert_int_eq(b->alloc(b, &p, 5000 * b->real_size, "p", &e), OK);
        ck_assert_int_eq(b->alloc(b, &q, 0, "q", &e), OK);
        ck_assert_int_eq(real_get(b, DT_F64, back, p, 5000, &e), OK);
        for (int k = 0; k < 5000; k++) ck_assert(back[k] == 0);
        for (int k = 0; k < 5000; k++) v[k] = k + 0.25;
        ck_assert_int_eq(real_put(b, p, DT_F64, v, 5000, &e), OK);
        unsigned short half[5000];
        ck_assert_int_eq(wide_get(b, DT_BF16, half, p, 5000, &e), OK);
        ck_assert_uint_eq(half[0], 0x3e80); // 0.25
        ck_assert_int_eq(real_put(b, real_at(b, p, 7), DT_BF16, half, 1, &e), OK);
        ck_assert_int_eq(wide_get(b, DT_F64, back, p, 5000, &e), OK);
        for (int k = 0; k < 5000; k++) ck_assert(back[k] == (k == 7 ? 0.25 : k + 0.25));
        b->move(b, real_at(b, p, 1), p, 4999 * b->real_size); // overlapping
        ck_assert_int_eq(real_get(b, DT_F64, back, p, 5000, &e), OK);
        ck_assert(back[0] == 0.25 && back[1] == 0.25 && back[4999] == 4998.25);
        ck_assert_int_eq(real_put(b, p, DT_I32, v, 1, &e), ERR_INPUT);
        e = (Err){0};
        b->zero(b, p, 8);
        ck_assert_int_eq(b->sync(b, &e), OK);
        b->release(b, p);
        b->release(b, q);
        b->release(b, NULL);
        backend_close(b);
    }
    ck_assert_int_eq(backend_open(&b, "ref46", 0, &e), ERR_USAGE);
    ck_assert_ptr_null(b);
    ck_assert_ptr_nonnull(strstr(e.msg, "ref64"));
    ck_assert_ptr_nonnull(strstr(e.hint, "ref"));
    backend_close(NULL);
}
END_TEST

/* Of the four backends, and of cpu's every path. */
START_TEST(test_kl_exact) {
    static const char *const name[][2] = {{"ref64", ""},       {"ref32", ""},        {"ref-bf16", ""},
                                          {"cpu", "avx512"},   {"cpu", "avx2"},      {"cpu", "plain"},
                                          {"cpu-bf16", "amx"}, {"cpu-bf16", "avx2"}, {"cpu-bf16", "plain"}};
    Err e = {0};
    Backend *be;
    setenv("HYBRIDIZE_CPU", name[_i][1], 1);
    ck_assert_int_eq(backend_open(&be, name[_i][0], 1, &e), OK);
    kl_exact_check(be, 1e-6);
    backend_close(be);
}
END_TEST

SUITE("ops") {
    for (char **a = suite_argv + 1; *a; a++) {
        if (!strcmp(*a, "--only") && a[1]) only = *++a;
        else if (!strcmp(*a, "--self")) self = 1;
    }
    GROUP("table", .timeout = 300);
    CASE(test_op, .times = opcheck_count());
    CASE(test_regimes, .times = opcheck_count());
    if (only) return;
    GROUP("checks", .timeout = 300);
    CASE(test_by_hand);
    CASE(test_kda_is_delta_rule);
    CASE(test_kda_decays_like_gla);
    CASE(test_kda_tends_to_gla);
    CASE(test_kda_gate_is_bounded);
    CASE(test_seed);
    CASE(test_broken);
    CASE(test_usage);
    CASE(test_memory);
    CASE(test_report);
    CASE(test_backend);
    CASE(test_kl_exact, .times = 9);
}
