/* test_eval.c - perplexity and KL against a plain computation from logits, whatever the batching. */
#include "eval/perplexity.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/generate.h"
#include "model/mixer.h"
#include "tests/suite.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOC = 23, N = 47 };

static void ok(int rc, const Err *e) {
    if (rc) ck_abort_msg("code %d: %s (%s)", rc, e->msg, e->hint);
}

typedef struct {
    Backend *be;
    Model teacher, student;
    int ids[N];
} Rig;

static void rig_open(Rig *r) {
    Config c = {.family = "llama",
                .C = 8,
                .L = 2,
                .H = 2,
                .Hk = 1,
                .D = 4,
                .F = 12,
                .VOC = VOC,
                .tied = 1,
                .max_positions = 64};
    Err e = {0};
    Rng g;
    c.norm_eps = c.o_norm_eps = 1e-5;
    c.rope = (Rope){.kind = ROPE_PLAIN, .theta = 100};
    c.conv_width = 4;
    c.bos = -1;
    memset(r, 0, sizeof *r);
    ok(backend_open(&r->be, "ref64", 1, &e), &e);
    ok(model_open(&r->teacher, &c, r->be, GRAD_NONE, &e), &e);
    ok(model_init(&r->teacher, 3, 1.0, 1.0, 0, &e), &e);
    c.mixer[0] = mixer_find("gdn_v4");
    ok(model_open(&r->student, &c, r->be, GRAD_NONE, &e), &e);
    ok(model_init(&r->student, 4, 1.0, 1.0, 0, &e), &e);
    rng_seed(&g, 9);
    for (int i = 0; i < N; i++) r->ids[i] = (int)rng_below(&g, VOC);
}
static void rig_close(Rig *r) {
    model_close(&r->student);
    model_close(&r->teacher);
    backend_close(r->be);
}

/* Log-probabilities of every position of one window, token by token from a fresh state. */
static void window_logp(Model *m, const int *ids, int T, double (*logp)[VOC]) {
    Decode d;
    Err e = {0};
    float logits[VOC];
    ok(decode_open(&d, m, 1, T, 1, &e), &e);
    for (int t = 0; t < T; t++) {
        ok(decode_extend(&d, ids + t, 1, logits, &e), &e);
        double sum = 0;
        for (int v = 0; v < VOC; v++) sum += exp((double)logits[v]);
        for (int v = 0; v < VOC; v++) logp[t][v] = logits[v] - log(sum);
    }
    decode_close(&d);
}

static int argmax(const double *x) {
    int best = 0;
    for (int v = 1; v < VOC; v++)
        if (x[v] > x[best]) best = v;
    return best;
}

typedef struct {
    double nll, nll_se, accuracy, kl, kl_se, agreement;
    int windows, predictions;
} Plain;

static double spread(const double *x, int n, double mean) {
    double s = 0;
    for (int i = 0; i < n; i++) s += (x[i] - mean) * (x[i] - mean);
    return sqrt(s / (n - 1) / n);
}

static Plain plain(Rig *r, Model *m, int n, int T) {
    Plain p = {.windows = n / T};
    double(*a)[VOC] = calloc(T, sizeof *a), (*b)[VOC] = calloc(T, sizeof *b), nll[N], kl[N];
    for (int w = 0; w < p.windows; w++) {
        const int *ids = r->ids + w * T;
        nll[w] = kl[w] = 0;
        window_logp(&r->teacher, ids, T, a);
        window_logp(m, ids, T, b);
        for (int t = 0; t < T; t++)
            for (int v = 0; v < VOC; v++) kl[w] += exp(a[t][v]) * (a[t][v] - b[t][v]) / T;
        for (int t = 0; t + 1 < T; t++, p.predictions++) {
            nll[w] -= b[t][ids[t + 1]] / (T - 1);
            p.accuracy += argmax(b[t]) == ids[t + 1];
            p.agreement += argmax(a[t]) == argmax(b[t]);
        }
        p.nll += nll[w] / p.windows;
        p.kl += kl[w] / p.windows;
    }
    p.accuracy /= p.predictions;
    p.agreement /= p.predictions;
    p.nll_se = p.windows > 1 ? spread(nll, p.windows, p.nll) : NAN;
    p.kl_se = p.windows > 1 ? spread(kl, p.windows, p.kl) : NAN;
    free(a);
    free(b);
    return p;
}

static void near(double got, double want) {
    if (isnan(want)) ck_assert(isnan(got));
    else ck_assert_msg(fabs(got - want) <= 2e-6 * (1 + fabs(want)), "got %.9g, want %.9g", got, want);
}

static const struct {
    int n, T, batch;
} cases[] = {{N, 7, 1}, {N, 7, 0}, {N, 7, 4}, {N, 2, 5}, {N, 47, 1}, {N, 100, 3}, {5, 9, 0}, {2, 2, 0}};

START_TEST(test_perplexity) {
    Rig r;
    Perplexity p;
    Err e = {0};
    const int n = cases[_i].n, T = cases[_i].T < n ? cases[_i].T : n;
    rig_open(&r);
    const Plain want = plain(&r, &r.student, n, T);
    ok(perplexity_run(&p, &r.student, r.ids, n, cases[_i].T, cases[_i].batch, NULL, &e), &e);
    near(p.nll, want.nll);
    near(p.nll_se, want.nll_se);
    near(p.perplexity, exp(want.nll));
    near(p.accuracy, want.accuracy);
    ck_assert_int_eq(p.windows, want.windows);
    ck_assert_int_eq(p.predictions, want.predictions);
    ck_assert_int_eq(p.T, T);
    rig_close(&r);
}
END_TEST

START_TEST(test_divergence) {
    Rig r;
    Divergence d;
    Err e = {0};
    const int n = cases[_i].n, T = cases[_i].T < n ? cases[_i].T : n;
    rig_open(&r);
    const Plain want = plain(&r, &r.student, n, T), self = plain(&r, &r.teacher, n, T);
    ok(divergence_run(&d, &r.teacher, &r.student, r.ids, n, cases[_i].T, cases[_i].batch, NULL, &e), &e);
    ck_assert(want.kl > 0.01); // the two models differ, so the comparison means something
    near(d.kl, want.kl);
    near(d.kl_se, want.kl_se);
    near(d.agreement, want.agreement);
    near(d.student.nll, want.nll);
    near(d.teacher.nll, self.nll);
    ok(divergence_run(&d, &r.teacher, &r.teacher, r.ids, n, cases[_i].T, cases[_i].batch, NULL, &e), &e);
    ck_assert(fabs(d.kl) < 1e-12 && d.agreement == 1);
    rig_close(&r);
}
END_TEST

START_TEST(test_refusals) {
    Rig r;
    Perplexity p;
    Divergence d;
    ParamInfo info;
    Param slot;
    const size_t before = mem_now();
    rig_open(&r);
    Err e = {0};
    ck_assert_int_eq(perplexity_run(&p, &r.teacher, r.ids, 1, 8, 0, NULL, &e), ERR_INPUT);
    e = (Err){0};
    ck_assert_int_eq(perplexity_run(&p, &r.teacher, r.ids, N, 1, 0, NULL, &e), ERR_USAGE);
    e = (Err){0};
    r.ids[20] = VOC;
    ck_assert_int_eq(perplexity_run(&p, &r.teacher, r.ids, N, 8, 0, NULL, &e), ERR_INPUT);
    r.ids[20] = 0;
    e = (Err){0};
    ck_assert(model_find(&r.teacher, "model.norm.weight", &info, &slot));
    double w[8] = {1, 1, NAN, 1, 1, 1, 1, 1};
    ok(param_put(r.be, &info, &slot, DT_F64, w, &e), &e);
    ck_assert_int_eq(perplexity_run(&p, &r.teacher, r.ids, N, 8, 0, NULL, &e), ERR_NUMERIC);
    e = (Err){0};
    r.student.c.VOC = VOC - 1;
    ck_assert_int_eq(divergence_run(&d, &r.teacher, &r.student, r.ids, N, 8, 0, NULL, &e), ERR_INPUT);
    r.student.c.VOC = VOC;
    rig_close(&r);
    ck_assert_uint_eq(mem_now(), before);
}
END_TEST

START_TEST(test_every_allocation) {
    Rig r;
    rig_open(&r);
    const size_t before = mem_now();
    for (long n = 0;; n++) {
        Divergence d;
        Err e = {0};
        mem_fail_after(n);
        const int rc = divergence_run(&d, &r.teacher, &r.student, r.ids, N, 7, 2, NULL, &e);
        mem_fail_after(-1);
        ck_assert_uint_eq(mem_now() - before < 4096, 1); // a model may keep a larger rope table
        if (!rc) break;
        ck_assert_int_eq(rc, ERR_MEMORY);
        ck_assert_int_lt(n, 500);
    }
    rig_close(&r);
}
END_TEST

SUITE("eval") {
    const int n = (int)(sizeof cases / sizeof *cases);
    CASE(test_perplexity, .times = n);
    CASE(test_divergence, .times = n);
    CASE(test_refusals);
    CASE(test_every_allocation);
}
