/* test_selectors.c - the rules by which layers are scored and chosen, each against a known answer:
 * shipped sets, brute force, plain hybrids, finite differences, and a teacher of which one layer matters. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "selectors/budget.h"
#include "selectors/gates.h"
#include "selectors/gates_trained.h"
#include "report/probe.h"
#include "selectors/parts.h"
#include "selectors/s2.h"
#include "run/memo.h"
#include "selectors/selectors.h"
#include "selectors/smart.h"
#include "selectors/swap.h"
#include "tiny.h"
#include "tests/suite.h"

static void setup(void) { tmpdir_begin(); }
static void teardown(void) { tmpdir_end(); }

/* ---------------------------------------------------------------- SMART and distance */

/* Every shipped SMART set (ref/METHOD.md 8). */
static const struct {
    int L, K, set[18];
} SMART[] = {{28, 4, {0, 9, 18, 26}},
             {28, 7, {0, 5, 10, 14, 18, 22, 26}},
             {28, 9, {0, 3, 6, 9, 12, 15, 19, 23, 26}},
             {28, 14, {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26}},
             {28, 7, {0, 4, 9, 14, 19, 23, 27}},
             {28, 9, {0, 3, 6, 9, 12, 16, 19, 23, 27}},
             {36, 5, {3, 11, 19, 27, 35}},
             {36, 9, {3, 7, 11, 15, 19, 23, 27, 31, 35}},
             {36, 12, {2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35}},
             {36, 18, {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 27, 29, 31, 33, 35}},
             {28, 7, {2, 6, 10, 14, 18, 22, 27}},
             {28, 9, {2, 5, 8, 11, 14, 17, 20, 23, 27}},
             {28, 6, {0, 5, 10, 16, 21, 26}},
             {28, 8, {0, 3, 7, 10, 14, 18, 22, 26}}}; // the last two: AMD's own for Llama-3.2-3B

START_TEST(smart_shipped_sets) {
    for (size_t i = 0; i < sizeof SMART / sizeof *SMART; i++) {
        int want[MAX_LAYERS] = {0}, got[MAX_LAYERS];
        double s[MAX_LAYERS];
        Err e = {0};
        Rng r;
        rng_seed(&r, 5 + i);
        for (int k = 0; k < SMART[i].K; k++) want[SMART[i].set[k]] = 1;
        ck_assert_msg(smart_spaced(want, SMART[i].L), "set %zu breaks the spacing rule", i);
        // its layers are the sensitive ones
        for (int l = 0; l < SMART[i].L; l++) s[l] = rng_uniform(&r) + (want[l] ? 1 : 0);
        must(smart_select(s, SMART[i].L, SMART[i].K, got, &e), &e);
        for (int l = 0; l < SMART[i].L; l++) ck_assert_msg(got[l] == want[l], "set %zu: layer %d", i, l);
    }
    int bad[28] = {0}; // GA-S2's Llama set is clustered, not spaced
    static const int ga[7] = {14, 8, 5, 12, 15, 13, 2};
    for (int k = 0; k < 7; k++) bad[ga[k]] = 1;
    ck_assert(!smart_spaced(bad, 28));
}
END_TEST

START_TEST(smart_is_the_best_spaced_set) { // against all sets
    static int sets[5000 * 12];
    for (int i = 0; i < 60; i++) {
        const int L = 6 + i % 7, K = 2 + i % 5 > L ? L : 2 + i % 5;
        double s[12], best = -INFINITY, mine = 0;
        int got[MAX_LAYERS], first = 0, last = L - L / K, pick_first = -1, pick_last = -1;
        Err e = {0};
        Rng r;
        rng_seed(&r, 100 + (uint64_t)i);
        for (int l = 0; l < L; l++) s[l] = rng_normal(&r);
        must(smart_select(s, L, K, got, &e), &e);
        for (int l = 0; l < L / K; l++) first = s[l] > s[first] ? l : first;
        for (int l = L - L / K; l < L; l++) last = s[l] > s[last] ? l : last;
        for (int l = 0; l < L; l++) {
            if (!got[l]) continue;
            mine += s[l];
            pick_first = pick_first < 0 ? l : pick_first;
            pick_last = l;
        }
        ck_assert_int_eq(pick_first, first);
        ck_assert_int_eq(pick_last, last);
        ck_assert(smart_spaced(got, L));
        const int n = subsets(sets, 5000, L, K);
        ck_assert_int_le(n, 5000);
        for (int k = 0; k < n; k++) {
            const int *set = sets + (size_t)k * L;
            double sum = 0;
            int lo = -1, hi = -1;
            for (int l = 0; l < L; l++)
                if (set[l]) sum += s[l], lo = lo < 0 ? l : lo, hi = l;
            if (lo == first && hi == last && smart_spaced(set, L) && sum > best) best = sum;
        }
        ck_assert_double_eq_tol(mine, best, 1e-12);
    }
}
END_TEST

START_TEST(distance_rule) {
    const double s[6] = {1, 10, 9, 2, 8, 0};
    int keep[MAX_LAYERS], top[MAX_LAYERS], order[6];
    for (int K = 0; K <= 6; K++) { // strength 0 is GA-S2's top K
        distance_select(s, 6, K, 0, 2, keep, order);
        select_top(s, 6, K, top);
        ck_assert_int_eq(memcmp(keep, top, 6 * sizeof *keep), 0);
    }
    ck_assert_int_eq(order[1], 2);
    distance_select(s, 6, 2, 2, 1, keep, order); // 2 stands next to 1: 4 is chosen instead
    ck_assert(keep[1] && keep[4] && !keep[2]);
}
END_TEST

/* ---------------------------------------------------------------- early stopping */

START_TEST(stopping_rule) {
    const EarlyStop o = {.R = 3, .threshold = 0.9}, all = {.R = 3, .threshold = 0.9, .all_pairs = 1},
                    lax = {.R = 3, .threshold = 0.3};
    const int same[6] = {1, 2, 2, 1, 1, 2}; // one set, in any order
    const int flips[9] = {0, 1, 2, 0, 1,
                          3, 0, 1, 2}; // backbone {0,1}; consecutive Jaccard 2/4 twice; all pairs (1/2 + 1/2 + 1)/3
    const int moves[6] = {1, 2, 1, 3, 4, 3};
    for (int n = 0; n < 3; n++) ck_assert_int_eq(early_stop(&o, same, n, 2, 6).stop, 0); // never before R evaluations
    EarlyStopState s = early_stop(&o, same, 3, 2, 6);
    ck_assert(s.stop && s.backbone == 2 && s.jaccard == 1);
    s = early_stop(&o, flips, 3, 3, 6);
    ck_assert(!s.stop && s.backbone == 2);
    ck_assert_double_eq_tol(s.jaccard, 0.5, 1e-15);
    s = early_stop(&all, flips, 3, 3, 6);
    ck_assert_double_eq_tol(s.jaccard, 2.0 / 3, 1e-15);
    ck_assert_int_eq(early_stop(&lax, flips, 3, 3, 6).stop, 1); // K - 1 in the backbone suffice
    s = early_stop(&lax, moves, 3, 2, 6); // Jaccard 1/3 each, but nothing stayed: the backbone decides
    ck_assert(!s.stop && s.backbone == 0 && s.jaccard > 0.3);
    int history[8] = {5, 1, 2, 1, 2, 1, 2, 1}; // only the last R count
    ck_assert_int_eq(early_stop(&o, history, 4, 2, 6).stop, 1);
    history[2] = 4;
    ck_assert_int_eq(early_stop(&o, history, 4, 2, 6).stop, 0);
    const EarlyStop off = {.R = 0};
    ck_assert_int_eq(early_stop(&off, same, 3, 2, 6).stop, 0);
}
END_TEST

START_TEST(halving_rule) {
    // noise common to all layers: unpaired, nothing could be told apart; paired, differences are exact to 0.01
    double kl[6][8], mean[MAX_LAYERS], se[MAX_LAYERS];
    static const double level[6] = {1, 1.1, 1.12, 2, 3, 4};
    const double *rows[6];
    int alive[6] = {1, 1, 1, 1, 1, 1}, drop[MAX_LAYERS];
    Rng r;
    rng_seed(&r, 3);
    for (int b = 0; b < 8; b++) {
        const double common = 5 * rng_normal(&r);
        for (int l = 0; l < 6; l++)
            kl[l][b] = level[l] + common + (l != 2 ? 0.01 * rng_normal(&r) : b % 2 ? 0.5 : -0.5);
    }
    for (int l = 0; l < 6; l++) rows[l] = kl[l];
    ck_assert_int_eq(halving_drop(rows, 6, 8, 2, 3, alive, drop, mean, se), 2); // half of the four beyond K, the worst
    ck_assert(drop[5] && drop[4] && !drop[3]);
    ck_assert_double_eq_tol(mean[5], 2.9, 0.5);
    alive[5] = alive[4] = 0;
    ck_assert_int_eq(halving_drop(rows, 6, 8, 2, 3, alive, drop, mean, se), 1);
    ck_assert(drop[3]);
    alive[3] = 0;
    ck_assert_int_eq(halving_drop(rows, 6, 8, 2, 3, alive, drop, mean, se), 0); // layer 2 is not clearly behind
    ck_assert_int_eq(halving_drop(rows, 6, 2, 2, 3, alive, drop, mean, se), 0); // two batches prove nothing
    const int one[6] = {1, 1, 0, 0, 0, 0};
    ck_assert_int_eq(halving_drop(rows, 6, 8, 2, 0, one, drop, mean, se), 0);
}
END_TEST

/* ---------------------------------------------------------------- budgets */

START_TEST(knapsack_is_exact) { // against all sets
    for (int i = 0; i < 200; i++) {
        const int n = 1 + i % 9;
        double value[9], soft[9], lin[9], best = -INFINITY, cost = 0, mine = 0, least = 0;
        int keep[9];
        Err e = {0};
        Rng r;
        rng_seed(&r, 77 + (uint64_t)i);
        for (int l = 0; l < n; l++) {
            value[l] = rng_normal(&r); // also negative
            soft[l] = i % 2 ? (double)rng_below(&r, 5) : 3 * rng_uniform(&r);
            lin[l] = i % 3 ? 1 : 3 * rng_uniform(&r);
            least += soft[l] < lin[l] ? soft[l] : lin[l];
        }
        const double budget = least + n * rng_uniform(&r);
        must(budget_knapsack(value, soft, lin, n, budget, keep, &e), &e);
        for (int l = 0; l < n; l++) {
            cost += keep[l] ? soft[l] : lin[l];
            mine += keep[l] ? value[l] : 0;
        }
        ck_assert_double_le(cost, budget * (1 + 1e-9));
        for (int set = 0; set < 1 << n; set++) {
            double c = 0, v = 0;
            for (int l = 0; l < n; l++) c += set >> l & 1 ? soft[l] : lin[l], v += set >> l & 1 ? value[l] : 0;
            if (c <= budget && v > best) best = v;
        }
        ck_assert_double_eq_tol(mine, best, 1e-12);
    }
    const double v[2] = {1, 2}, c[2] = {5, 5}, l[2] = {1, 1};
    int keep[2];
    Err e = {0}, none = {0};
    must(budget_knapsack(v, c, l, 2, 6, keep, &e), &e); // equal costs: the top 1
    ck_assert(!keep[0] && keep[1]);
    ck_assert_int_eq(budget_knapsack(v, c, l, 2, 1.5, keep, &none), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(none.msg, "costs 2"));
}
END_TEST

START_TEST(memory_budget) {
    Err e = {0};
    Backend *be;
    Config c = tiny_config(4); // softmax: 2*Hk*D = 16 numbers a token; linear: H*D*D = 64 numbers
    must(backend_open(&be, "ref32", 1, &e), &e);
    ck_assert_uint_eq(budget_softmax_bytes(&c, be, 100), 6400);
    ck_assert_uint_eq(budget_linear_bytes(&c, be), 256);
    c.window = 10;
    ck_assert_uint_eq(budget_softmax_bytes(&c, be, 100), 640);
    ck_assert_int_eq(budget_count(6400, 256, 4, 4 * 256), 0);
    ck_assert_int_eq(budget_count(6400, 256, 4, 2 * 6400 + 2 * 256), 2);
    ck_assert_int_eq(budget_count(6400, 256, 4, 2 * 6400 + 2 * 256 - 1), 1);
    ck_assert_int_eq(budget_count(6400, 256, 4, 1000), -1);
    ck_assert_int_eq(budget_count(100, 256, 4, 400), 4); // a short context: softmax is the cheaper one
    backend_close(be);
}
END_TEST

/* ---------------------------------------------------------------- models */

enum { L = 4, PLANTED = 2, BATCHES = 3 };
typedef struct {
    Tiny t;
    Model start;
    Heldout h;
} Rig;

/* A teacher whose attention says nothing except in one layer: every other o_proj is zero. */
static void plant(Tiny *t) {
    Err e = {0};
    static const double zero[16 * 16];
    for (int l = 0; l < L; l++) {
        char name[64];
        ParamInfo i;
        Param p;
        snprintf(name, sizeof name, "model.layers.%d.attn.o_proj.weight", l);
        ck_assert(model_find(&t->teacher, name, &i, &p));
        if (l != PLANTED) must(param_put(t->be, &i, &p, DT_F64, zero, &e), &e);
    }
}

static void student_open(Rig *r, const char *mixer) {
    Err e = {0};
    Config c;
    int m[MAX_LAYERS];
    for (int l = 0; l < L; l++) m[l] = mixer_find(mixer);
    must(transfer_config(&c, &r->t.teacher.c, m, &e), &e);
    c.linear_bias = c.qkv_bias;
    must(model_open(&r->start, &c, r->t.be, GRAD_NONE, &e), &e);
    r->start.chunk = 8;
    must(transfer_weights(&r->start, &r->t.teacher, KV_REPEAT_HEAD, 5, &e), &e);
}

/* Biases of a teacher made from scratch are zero: give them values. */
static int bias_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Rig *r = ctx;
    double v[64];
    Err e = {0};
    if (!strstr(info->name, "bias") || info->wide) return OK;
    for (size_t i = 0; i < info->n; i++) v[i] = 0.3 * sin(1.0 + (double)i * 7 + info->layer);
    return param_put(r->t.be, info, slot, DT_F64, v, &e);
}

static void rig_open(Rig *r, const char *backend, const char *mixer, int planted, int biased) {
    Err e = {0};
    memset(r, 0, sizeof *r);
    tiny_open(&r->t, backend, 1, L, place("text.tok"));
    if (biased) {
        Config c = tiny_config(L);
        c.qkv_bias = c.o_bias = 1;
        model_close(&r->t.teacher);
        must(model_open(&r->t.teacher, &c, r->t.be, GRAD_NONE, &e), &e);
        must(model_init(&r->t.teacher, 3, 1.0, 1.5, 0, &e), &e);
        params_walk(&c, &r->t.teacher.p, bias_visit, r);
    }
    if (planted) plant(&r->t);
    student_open(r, mixer);
    must(heldout_open(&r->h, &r->t.teacher, &r->t.text, 4, 16, BATCHES, 1 << 20, &e), &e);
}

static void rig_close(Rig *r) {
    heldout_close(&r->h);
    model_close(&r->start);
    tiny_close(&r->t);
}

static double hybrid_kl(Rig *r, const int *keep, HeldoutResult *out) {
    Model m;
    Err e = {0};
    must(hybrid_open(&m, &r->t.teacher, &r->start, keep, GRAD_NONE, &e), &e);
    must(heldout_run(&r->h, &m, out, &e), &e);
    model_close(&m);
    return out->kl;
}

static LayerScore rows[L], other[L];

START_TEST(swaps_are_plain_hybrids) { // sharing the prefix changes nothing
    Rig r;
    Err e = {0};
    HeldoutResult base, one;
    rig_open(&r, "ref64", "gdn_v4", 0, 0);
    for (int given = 0; given < 2; given++) {
        int keep[L] = {0, given, 0, 0};
        hybrid_kl(&r, keep, &base);
        must(swap_scores(rows, SWAP_ADD, &r.t.teacher, &r.start, given ? keep : NULL, &r.h, NULL, &e), &e);
        for (int l = 0; l < L; l++) {
            if (keep[l]) {
                ck_assert(isnan(rows[l].score) && rows[l].rank == L);
                continue;
            }
            keep[l] = 1;
            hybrid_kl(&r, keep, &one);
            keep[l] = 0;
            ck_assert_double_eq_tol(rows[l].score, base.kl - one.kl, 1e-13);
            for (int b = 0; b < BATCHES; b++)
                ck_assert_double_eq_tol(rows[l].batch_kl[b], base.batch_kl[b] - one.batch_kl[b], 1e-13);
        }
    }
    must(swap_scores(rows, SWAP_REMOVE, &r.t.teacher, &r.start, NULL, &r.h, NULL, &e), &e);
    for (int l = 0; l < L; l++) {
        int keep[L] = {1, 1, 1, 1};
        keep[l] = 0;
        ck_assert_double_eq_tol(rows[l].score, hybrid_kl(&r, keep, &one), 1e-13);
    }
    int64_t tokens = 0;
    for (int l = 0; l < L; l++) tokens += rows[l].tokens;
    ck_assert_int_eq(tokens, BATCHES * 4 * 16);
    rig_close(&r);
}
END_TEST

/* The teacher with one o_proj zeroed is the teacher with that mixer bypassed. */
START_TEST(bypass_is_a_zero_projection) {
    static const double zero[16 * 16];
    Rig r;
    Err e = {0};
    HeldoutResult base, one;
    const int all[L] = {1, 1, 1, 1};
    rig_open(&r, "ref64", "gdn_v4", 0, 0);
    hybrid_kl(&r, all, &base);
    must(swap_scores(rows, SWAP_PPL, &r.t.teacher, NULL, NULL, &r.h, NULL, &e), &e);
    must(swap_scores(other, SWAP_MSE, &r.t.teacher, NULL, NULL, &r.h, NULL, &e), &e);
    for (int l = 0; l < L; l++) {
        Model m;
        char name[64];
        ParamInfo i;
        Param p;
        must(hybrid_open(&m, &r.t.teacher, &r.start, all, GRAD_NONE, &e), &e);
        snprintf(name, sizeof name, "model.layers.%d.attn.o_proj.weight", l);
        ck_assert(model_find(&m, name, &i, &p));
        must(param_put(r.t.be, &i, &p, DT_F64, zero, &e), &e);
        must(heldout_run(&r.h, &m, &one, &e), &e);
        ck_assert_double_eq_tol(rows[l].score, one.ce - base.ce, 1e-13);
        // Act-MSE by hand: both models' last hidden states
        double sum = 0;
        static double a[64 * 16], b[64 * 16];
        for (int k = 0; k < BATCHES; k++) {
            Pass pa, pb;
            must(batch_text(&r.h.batch, &r.h.data, 1, (uint64_t)k, &e), &e);
            must(pass_open(&pa, &m, 4, 16, 0, &e), &e);
            must(pass_open(&pb, &r.t.teacher, 4, 16, 0, &e), &e);
            must(pass_input(&pa, &m, r.h.batch.ids, r.h.batch.start, &e), &e);
            must(pass_input(&pb, &r.t.teacher, r.h.batch.ids, r.h.batch.start, &e), &e);
            model_forward(&m, &pa);
            model_forward(&r.t.teacher, &pb);
            must(real_get(r.t.be, DT_F64, a, pa.h, 64 * 16, &e), &e);
            must(real_get(r.t.be, DT_F64, b, pb.h, 64 * 16, &e), &e);
            for (int n = 0; n < 64 * 16; n++) sum += (a[n] - b[n]) * (a[n] - b[n]) / (64 * 16) / BATCHES;
            pass_close(&pa);
            pass_close(&pb);
        }
        ck_assert_double_eq_tol(other[l].score, sum, 1e-13);
        model_close(&m);
    }
    rig_close(&r);
}
END_TEST

START_TEST(gate_slopes) { // against central differences, at gates of all kinds; heads add up
    static const struct {
        const char *mixer;
        int biased;
    } kind[] = {{"gdn_v4", 0}, {"gla_v1", 0}, {"gdn_v2", 1}, {"gdn_v6", 0}};
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) {
        Rig r;
        Gates g;
        Err e = {0};
        rig_open(&r, "ref64", kind[i].mixer, 0, kind[i].biased);
        must(gates_open(&g, &r.t.teacher, &r.start, &r.h, &e), &e);
        double a[L] = {0.3, 0, 1, 0.7}, slope[L], kl, up, down;
        must(gates_batch(&g, 1, a, &kl, &e), &e);
        for (int l = 0; l < L; l++) {
            slope[l] = 0;
            for (int k = 0; k <= 4; k++) slope[l] += g.slope[l * 5 + k];
        }
        for (int l = 0; l < L; l++) {
            const double was = a[l], step = 1e-6;
            a[l] = was + step;
            must(gates_batch(&g, 1, a, &up, &e), &e);
            a[l] = was - step;
            must(gates_batch(&g, 1, a, &down, &e), &e);
            a[l] = was;
            const double fd = (up - down) / (2 * step);
            ck_assert_msg(fabs(fd - slope[l]) < 1e-7 * (1 + fabs(fd)), "%s layer %d: %.12g, differences say %.12g",
                          kind[i].mixer, l, slope[l], fd);
        }
        const double teacher[L] = {1, 1, 1, 1};
        must(gates_batch(&g, 0, teacher, &kl, &e), &e);
        ck_assert_double_eq_tol(kl, 0, 1e-12); // all gates open: the teacher itself
        gates_close(&g);
        rig_close(&r);
    }
}
END_TEST

START_TEST(projected_gates) { // a common shift, to the budget exactly; nothing to do the second time
    double theta[7], was[7], a[7], sum;
    Rng r;
    rng_seed(&r, 6);
    for (int trial = 0; trial < 50; trial++) {
        const double K = 0.5 + 6 * rng_uniform(&r);
        for (int l = 0; l < 7; l++) was[l] = theta[l] = 4 * rng_normal(&r);
        gates_project(theta, a, 7, K);
        sum = 0;
        for (int l = 0; l < 7; l++) {
            sum += a[l];
            ck_assert_double_eq_tol(a[l], 1 / (1 + exp(-theta[l])), 1e-15);
            ck_assert_double_eq_tol(theta[l] - was[l], theta[0] - was[0], 1e-12);
        }
        ck_assert_double_eq_tol(sum, K, 1e-12);
        memcpy(was, theta, sizeof was);
        gates_project(theta, a, 7, K);
        for (int l = 0; l < 7; l++) ck_assert_double_eq_tol(theta[l], was[l], 1e-12);
    }
}
END_TEST

START_TEST(trained_gates) { // the first step goes where the slopes point; the budget is kept; stopped and gone on
    Rig r;
    Gates g;
    Err e = {0};
    double slope[L], kl, a[L], sum = 0;
    rig_open(&r, "ref64", "gdn_v4", 0, 0);
    must(gates_open(&g, &r.t.teacher, &r.start, &r.h, &e), &e);
    for (int l = 0; l < L; l++) a[l] = 2.0 / L;
    must(gates_training_batch(&g, 0, a, &kl, &e), &e);
    for (int l = 0; l < L; l++) {
        slope[l] = 0;
        for (int k = 0; k <= 4; k++) slope[l] += g.slope[l * 5 + k];
    }
    gates_close(&g);
    must(gates_train(rows, &r.t.teacher, &r.start, 2, 1, &r.h, NULL, &e), &e);
    // Adam's first step is the slope's sign: what a layer gains or loses against the others is nothing but that
    for (int l = 0; l < L; l++)
        for (int k = 0; k < L; k++)
            if ((slope[l] < 0) == (slope[k] < 0)) ck_assert_double_eq_tol(rows[l].score, rows[k].score, 1e-6);
            else if (slope[l] < 0) ck_assert_double_gt(rows[l].score, rows[k].score);
    must(gates_train(rows, &r.t.teacher, &r.start, 2, 9, &r.h, NULL, &e), &e);
    for (int l = 0; l < L; l++) sum += rows[l].score;
    ck_assert_double_eq_tol(sum, 2, 1e-12);
    volatile int stop = 15;
    const TrainOptions train = {.stop = &stop};
    RunMemo memo = run_memo(place("trained"), 5, &train);
    Partial p = {.memo = &memo.memo, .name = "partial/0"};
    int calls = 0, rc;
    do {
        Err stopped = {0};
        rc = gates_train(other, &r.t.teacher, &r.start, 2, 9, &r.h, &p, &stopped);
        ck_assert_msg(!rc || rc == 128 + 15, "%s", stopped.msg);
    } while (++calls < 20 && rc);
    ck_assert_int_eq(calls, 10); // each did one step more
    for (int l = 0; l < L; l++) {
        rows[l].seconds = other[l].seconds = 0;
        ck_assert_int_eq(memcmp(&rows[l], &other[l], sizeof rows[l]), 0);
    }
    rig_close(&r);
}
END_TEST

/* |sum of the scores / (KL(all-linear) - KL(teacher)) - 1|, and heads add up. */
static double path_error(Rig *r, int nodes, double kl) {
    Err e = {0};
    double sum = 0;
    must(gates_scores(rows, &r->t.teacher, &r->start, NULL, nodes, &r->h, NULL, &e), &e);
    for (int l = 0; l < L; l++) {
        double heads = 0;
        ck_assert_int_eq(rows[l].heads, 4);
        for (int k = 0; k < 4; k++) heads += rows[l].head[k];
        ck_assert_double_eq_tol(heads, rows[l].score, 1e-12); // no output bias here
        sum += rows[l].score;
    }
    return fabs(sum / kl - 1);
}

/* gdn_v6 is smooth. The output norm of the others turns o near 0 into steps that few nodes can miss:
 * there, percents remain. */
START_TEST(path_is_complete) {
    const int none[L] = {0};
    HeldoutResult base;
    Rig r;
    rig_open(&r, "ref64", "gdn_v6", 0, 0);
    double kl = hybrid_kl(&r, none, &base), error[3];
    for (int i = 0; i < 3; i++) error[i] = path_error(&r, 8 << i, kl);
    ck_assert_msg(error[0] < 0.01 && error[1] < error[0] / 3 && error[2] < error[1] / 3,
                  "errors %g %g %g do not fall like 1/n^2", error[0], error[1], error[2]);
    rig_close(&r);
    rig_open(&r, "ref64", "gdn_v4", 0, 0);
    kl = hybrid_kl(&r, none, &base);
    error[0] = path_error(&r, PATH_NODES, kl);
    ck_assert_msg(error[0] < 0.03, "8 nodes: off by %.4f of %.4f", error[0], kl);
    rig_close(&r);
}
END_TEST

/* ---------------------------------------------------------------- all scorers, one planted layer */

/* Scoring runs of a rig, kept as TMPDIR/NAME. */
typedef struct {
    Scoring s;
    SchedulerOptions scheduler;
    RunMemo memo;
    const char *name;
} Runs;
static Runs scoring(Rig *r, const char *name) {
    static const TrainOptions quiet;
    Runs o = {.name = name, .memo = run_memo(tmpdir, 7, &quiet)};
    o.s = (Scoring){.teacher = &r->t.teacher,
                    .stage1_student = &r->start,
                    .text = &r->t.text,
                    .heldout = &r->h,
                    .tau = 1,
                    .eval_every = 2,
                    .cache = 1 << 20};
    o.s.stage = (StageOptions){.steps = 6, .batch_size = 4, .micro_batch_size = 4, .train_seq_len = 16};
    o.s.stage.optim = (OptimConfig){.lr = 1e-4, .lr_attn = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1};
    return o;
}

static SelectInput input(Rig *r, int K, Runs *o) {
    return (SelectInput){.L = L,
                         .K = K,
                         .teacher = &r->t.teacher,
                         .stage1_student = &r->start,
                         .heldout = &r->h,
                         .scoring = o ? &o->s : NULL,
                         .scheduler = o ? &o->scheduler : NULL,
                         .name = o ? o->name : NULL,
                         .memo = o ? &o->memo.memo : NULL};
}

static void layers_score(LayerScore *out, Runs *o) {
    Err e = {0};
    must(scheduler_ga_s2(out, &o->s, &o->scheduler, o->name, &o->memo.memo, &e), &e);
}

START_TEST(every_scorer_finds_the_planted_layer) {
    static const char *const names[] = {"gates",        "path_gates", "swap",        "swap_remove",
                                        "ppl",          "act_mse",    "gr_s1",       "ga_s1",
                                        "avg_s1",       "gr_s2",      "swap_greedy", "gates_greedy",
                                        "ga_s2_greedy", "trunk_s2",   "exhaustive",  "gates_trained"};
    Rig r;
    Err e = {0};
    rig_open(&r, "cpu", "gdn_v4", 1, 0);
    Runs o = scoring(&r, "scores");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const Selector *s = selector_find(names[i]);
        int keep[MAX_LAYERS], seen[L] = {0};
        SelectInput in = input(&r, 1, &o);
        ck_assert_ptr_nonnull(s);
        must(selector_score(s, &in, rows, &e), &e);
        for (int l = 0; l < L; l++) {
            ck_assert_int_eq(rows[l].layer, l);
            ck_assert(rows[l].rank >= 1 && rows[l].rank <= L && !seen[rows[l].rank - 1]);
            seen[rows[l].rank - 1] = 1;
            ck_assert_int_gt(rows[l].tokens, 0);
        }
        // attention of random weights need not help the text: it is the only one that does anything
        if (!strcmp(names[i], "ppl")) {
            ck_assert_double_ne(rows[PLANTED].score, 0);
            for (int l = 0; l < L; l++)
                if (l != PLANTED) ck_assert_double_eq(rows[l].score, 0);
            continue;
        }
        ck_assert_msg(rows[PLANTED].rank == 1, "%s puts layer %d at rank %d", names[i], PLANTED, rows[PLANTED].rank);
        in.rows = rows;
        must(select_layers(s, &in, keep, &e), &e);
        for (int l = 0; l < L; l++) ck_assert_int_eq(keep[l], l == PLANTED);
        if (!strcmp(names[i], "act_mse")) // the others' attention says nothing at all
            for (int l = 0; l < L; l++)
                if (l != PLANTED) ck_assert_double_eq(rows[l].score, 0);
        // written and read
        int found;
        for (int l = 0; l < L; l++) {
            must(in.memo->put(in.memo, "rows", l, &layer_row_record, &rows[l], &e), &e);
            must(in.memo->get(in.memo, "rows", l, &layer_row_record, &other[l], &found, &e), &e);
            ck_assert_int_eq(found, 1);
        }
        for (int l = 0; l < L; l++) {
            ck_assert_int_eq(other[l].rank, rows[l].rank);
            ck_assert(other[l].score == rows[l].score || (isnan(other[l].score) && isnan(rows[l].score)));
            ck_assert_int_eq(memcmp(other[l].head, rows[l].head, sizeof rows[l].head), 0);
        }
    }
    int found;
    o.memo.key++; // another key: it is not there
    must(o.memo.memo.get(&o.memo.memo, "rows", 0, &layer_row_record, &other[0], &found, &e), &e);
    ck_assert_int_eq(found, 0);
    rig_close(&r);
}
END_TEST

// a stop after every unit, each time a fresh call: the same numbers, nothing is done twice
START_TEST(stopped_scores_go_on) {
    static const char *const names[] = {"swap",  "swap_remove", "ppl",      "act_mse",     "gates",       "path_gates",
                                        "ga_s1", "gr_s1",       "ablation", "swap_greedy", "gates_greedy"};
    static const int units[] = {BATCHES, BATCHES, BATCHES, BATCHES,     BATCHES,    BATCHES,
                                BATCHES, BATCHES, L + 1,   2 * BATCHES, 2 * BATCHES};
    Rig r;
    Err e = {0};
    Recall game;
    int keys[20];
    const int n[1] = {2};
    for (int i = 0; i < 20; i++) keys[i] = i;
    const RecallSpec spec = {.key = keys, .n_key = 20, .value = keys, .n_value = 20};
    rig_open(&r, "cpu", "gdn_v4", 0, 0);
    must(recall_open(&game, &spec, n, 1, 4, 4, 1, 64, &e), &e);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const Selector *s = selector_find(names[i]);
        volatile int stop = 0;
        SelectInput in = input(&r, 2, NULL);
        in.recall = &game;
        must(selector_score(s, &in, rows, &e), &e);
        const TrainOptions train = {.stop = &stop};
        RunMemo memo = run_memo(place(names[i]), 5 + i, &train);
        in.memo = &memo.memo;
        stop = 15;
        int calls = 0, rc;
        do {
            Err stopped = {0};
            rc = selector_score(s, &in, other, &stopped);
            ck_assert_msg(!rc || rc == 128 + 15, "%s: %s", names[i], stopped.msg);
            ck_assert_int_le(++calls, 20);
        } while (rc);
        ck_assert_msg(calls == units[i] + 1, "%s: %d calls, %d units", names[i], calls, units[i]);
        for (int l = 0; l < L; l++) {
            rows[l].seconds = other[l].seconds = 0;
            ck_assert_msg(!memcmp(&rows[l], &other[l], sizeof rows[l]), "%s: layer %d differs", names[i], l);
        }
        memo.key++; // other options: what is kept is not theirs
        Err again = {0};
        ck_assert_int_eq(selector_score(s, &in, other, &again), 128 + 15);
    }
    recall_close(&game);
    rig_close(&r);
}
END_TEST

START_TEST(averaged_ranks) {
    static const int a[L] = {1, 2, 3, 4}, b[L] = {2, 4, 1, 3}; // means 1.5 3 2 3.5
    LayerScore x[L] = {0}, y[L] = {0};
    for (int l = 0; l < L; l++) {
        x[l].rank = a[l];
        y[l].rank = b[l];
        x[l].tokens = y[l].tokens = 5;
    }
    score_average(y, x, y, L);
    static const int want[L] = {1, 3, 2, 4};
    for (int l = 0; l < L; l++) {
        ck_assert_int_eq(y[l].rank, want[l]);
        ck_assert_int_eq(y[l].tokens, 10);
    }
    ck_assert_double_eq(y[0].score, -1.5);
}
END_TEST

// GR-S1: the layer's own loss; GA-S1: minus what the others leave; batch by batch, and the ranks agree
START_TEST(stage1_scores) {
    Rig r;
    Err e = {0};
    rig_open(&r, "ref64", "gdn_v4", 0, 0);
    const SelectInput in = input(&r, 2, NULL);
    must(selector_score(selector_find("gr_s1"), &in, rows, &e), &e);
    must(selector_score(selector_find("ga_s1"), &in, other, &e), &e);
    for (int b = 0; b < BATCHES; b++) {
        double all = 0;
        for (int l = 0; l < L; l++) all += rows[l].batch_kl[b];
        for (int l = 0; l < L; l++) {
            ck_assert_double_gt(rows[l].batch_kl[b], 0);
            ck_assert_double_eq_tol(other[l].batch_kl[b], -(all - rows[l].batch_kl[b]) / L, 1e-12);
        }
    }
    for (int l = 0; l < L; l++) ck_assert_int_eq(rows[l].rank, other[l].rank);
    rig_close(&r);
}
END_TEST

// its first round is GA-S2: given those rows it trains only the later ones, to the same end
START_TEST(greedy_takes_over_ga_s2) {
    Rig r;
    Err e = {0};
    static LayerScore ga[L];
    rig_open(&r, "cpu", "gdn_v4", 0, 0);
    Runs o = scoring(&r, "alone");
    SelectInput in = input(&r, 2, &o);
    must(selector_score(selector_find("ga_s2_greedy"), &in, rows, &e), &e);
    o.name = "shared";
    layers_score(ga, &o);
    in.score = ga;
    must(selector_score(selector_find("ga_s2_greedy"), &in, other, &e), &e);
    ck_assert_int_eq(file_exists(place("shared-ga_s2_greedy-0")), 0); // no run of its own
    for (int l = 0; l < L; l++) {
        ck_assert(rows[l].rank == other[l].rank && rows[l].score == other[l].score &&
                  rows[l].tokens == other[l].tokens);
        if (ga[l].rank == 1) ck_assert(other[l].rank == 1 && other[l].score == ga[l].score);
    }
    rig_close(&r);
}
END_TEST

START_TEST(greedy_is_conditional) { // each pick is the best given the picks before, by plain hybrids
    Rig r;
    Err e = {0};
    HeldoutResult h;
    int keep[MAX_LAYERS] = {0}, got[MAX_LAYERS];
    rig_open(&r, "ref64", "gdn_v4", 0, 0);
    const SelectInput in = input(&r, 3, NULL);
    must(selector_score(selector_find("swap_greedy"), &in, rows, &e), &e);
    for (int pick = 1; pick <= 3; pick++) {
        int best = -1;
        double low = INFINITY;
        for (int l = 0; l < L; l++) {
            if (keep[l]) continue;
            keep[l] = 1;
            const double kl = hybrid_kl(&r, keep, &h);
            keep[l] = 0;
            if (kl < low) low = kl, best = l;
        }
        keep[best] = 1;
        ck_assert_int_eq(rows[best].rank, pick);
    }
    must(select_layers(selector_find("swap_greedy"), &in, got, &e), &e);
    ck_assert_int_eq(memcmp(keep, got, L * sizeof *keep), 0);
    // one pick is the plain selector's
    const SelectInput one = input(&r, 1, NULL);
    must(selector_score(selector_find("gates_greedy"), &one, rows, &e), &e);
    must(selector_score(selector_find("gates"), &one, other, &e), &e);
    for (int l = 0; l < L; l++) ck_assert_int_eq(rows[l].rank, other[l].rank);
    rig_close(&r);
}
END_TEST

START_TEST(all_sets) {
    static int sets[100 * 6];
    ck_assert_int_eq(subsets(sets, 100, 6, 3), 20);
    ck_assert_int_eq(subsets(sets, 100, 6, 0), 1);
    ck_assert_int_eq(subsets(sets, 100, 6, 6), 1);
    ck_assert_int_eq(subsets(sets, 10, 6, 3), 11); // too many
    ck_assert_int_eq(subsets(sets, 100, 5, 2), 10);
    for (int i = 0; i < 10; i++)
        for (int k = 0; k < i; k++) ck_assert_int_ne(memcmp(sets + i * 5, sets + k * 5, 5 * sizeof *sets), 0);
    // the exhaustive optimum is no worse than any selector's set, and its members stand first
    Rig r;
    Err e = {0};
    rig_open(&r, "cpu", "gdn_v4", 0, 0);
    Runs o = scoring(&r, "scores");
    const SelectInput in = input(&r, 2, &o);
    int keep[MAX_LAYERS], greedy[MAX_LAYERS];
    must(select_layers(selector_find("exhaustive"), &in, keep, &e), &e);
    must(select_layers(selector_find("ga_s2_greedy"), &in, greedy, &e), &e);
    File f;
    must(file_open(&f, place("scores-exhaustive/sets.csv"), &e), &e);
    int lines = 0;
    for (size_t i = 0; i < f.size; i++) lines += f.data[i] == '\n';
    ck_assert_int_eq(lines, 7); // a header and 6 sets
    char text[64], first[200] = "";
    select_text(text, sizeof text, keep, L);
    const char *row = memchr(f.data, '\n', f.size);
    memcpy(first, row + 1, strcspn(row + 1, "\n"));
    ck_assert_msg(strstr(first, text) != NULL, "best set %s, first row %s", text, first);
    file_close(&f);
    rig_close(&r);
}
END_TEST

/* ---------------------------------------------------------------- runs that end early */

// a prefix of the full runs, bit for bit; fewer tokens; the same again after a crash between rounds
START_TEST(early_stopping_run) {
    Rig r;
    Err e = {0};
    static LayerScore full[L];
    rig_open(&r, "cpu", "gdn_v4", 1, 0);
    Runs o = scoring(&r, "full");
    o.s.stage.steps = 12;
    layers_score(full, &o);
    o.name = "early";
    o.scheduler.stop = (EarlyStop){.R = 3, .threshold = 0.9};
    o.scheduler.K = 1;
    layers_score(rows, &o);
    for (int l = 0; l < L; l++) {
        ck_assert_int_eq(rows[l].points, 3); // the planted layer leads from the first evaluation on
        ck_assert_int_eq(rows[l].tokens, full[l].tokens / 2);
        ck_assert_int_eq(memcmp(rows[l].point, full[l].point, 3 * sizeof *full[l].point), 0);
    }
    ck_assert_int_eq(rows[PLANTED].rank, 1);
    layers_score(other, &o); // read back
    for (int l = 0; l < L; l++) ck_assert_int_eq(memcmp(rows[l].point, other[l].point, sizeof rows[l].point), 0);
    Json j;
    const JsonRef root = 0;
    double saved;
    must(json_open(&j, place("early/early_stop.json"), &e), &e);
    must(json_want_real(&j, json_get(&j, root, "saved"), "saved", &saved, &e), &e);
    json_free(&j);
    ck_assert_double_eq_tol(saved, 0.5, 1e-12);
    rig_close(&r);
}
END_TEST

// losers of a planted layer go, each with a reason; the survivor's run is that of the full one
START_TEST(halving_run) {
    Rig r;
    static LayerScore full[L];
    rig_open(&r, "cpu", "gdn_v4", 1, 0);
    Runs o = scoring(&r, "full");
    o.s.stage.steps = 12;
    layers_score(full, &o);
    o.name = "halving";
    o.scheduler.halving_z = 2;
    o.scheduler.K = 1;
    layers_score(rows, &o);
    int dropped = 0;
    for (int l = 0; l < L; l++) {
        ck_assert_int_eq(memcmp(rows[l].point, full[l].point, (size_t)rows[l].points * sizeof *full[l].point), 0);
        if (!rows[l].dropped) continue;
        dropped++;
        ck_assert_double_gt(rows[l].drop_mean, 2 * rows[l].drop_se);
        ck_assert_int_eq(rows[l].dropped, rows[l].point[rows[l].points - 1].step);
    }
    ck_assert_int_gt(dropped, 0);
    ck_assert_int_eq(rows[PLANTED].dropped, 0);
    ck_assert_int_eq(rows[PLANTED].rank, 1);
    layers_score(other, &o); // read back: drops too
    for (int l = 0; l < L; l++) ck_assert(rows[l].dropped == other[l].dropped && rows[l].rank == other[l].rank);
    rig_close(&r);
}
END_TEST

/* ---------------------------------------------------------------- tasks */

/* importance[l] = accuracy - accuracy without mixer l. */
static int task_ablation(const DiagnosticTask *k, Model *teacher, const Tokenizer *t, const DiagnosticOptions *o,
                         double *importance, int64_t *tokens, Err *e) {
    double base, v = 0;
    TRY(diagnostic_accuracy(k, teacher, t, o, &base, tokens, e));
    for (int l = 0; l < teacher->c.L; l++) {
        TRY(diagnostic_ablated(k, teacher, t, o, l, &v, tokens, e));
        importance[l] = base - v;
    }
    return OK;
}

/* The value of a name in an AR prompt, through names that stand for names. */
static int value_of(const char *prompt, const char *name, int depth) {
    char key[32], word[32];
    int value;
    snprintf(key, sizeof key, "\n%s: ", name);
    const char *at = strstr(prompt, key);
    ck_assert_ptr_nonnull(at);
    ck_assert_int_le(depth, 2);
    at += strlen(key);
    if (sscanf(at, "%d", &value) == 1) return value;
    ck_assert_int_eq(sscanf(at, "%31[a-z]", word), 1);
    return value_of(prompt, word, depth + 1);
}

START_TEST(task_prompts) { // the right answer is right, others are not; the same seed makes the same prompt
    const DiagnosticOptions o = {.pairs = 12, .seed = 3};
    ck_assert_ptr_null(diagnostic_find("nonsense"));
    for (int k = 0; k < DIAGNOSTIC_TASKS; k++)
        for (int i = 0; i < 20; i++) {
            DiagnosticSample s, again;
            Err e = {0};
            char said[400];
            must(diagnostic_sample(&s, diagnostic_at(k), &o, i, &e), &e);
            must(diagnostic_sample(&again, diagnostic_at(k), &o, i, &e), &e);
            ck_assert_str_eq(s.prompt.text, again.prompt.text);
            snprintf(said, sizeof said, " %s\nand so on", s.answer.text);
            ck_assert_msg(diagnostic_at(k)->right(&s, said), "%s: '%s' is refused", diagnostic_at(k)->name, said);
            ck_assert(!diagnostic_at(k)->right(&s, "") && !diagnostic_at(k)->right(&s, "no idea at all"));
            if (k < 2) { // ar, ar_mh: the sum recomputed from the prompt
                char a[32], b[32], c[32];
                ck_assert_int_eq(sscanf(strstr(s.prompt.text, "What is"),
                                        "What is the value of %31[a-z] + %31[a-z] + %31[a-z]", a, b, c),
                                 3);
                const int sum =
                    value_of(s.prompt.text, a, 0) + value_of(s.prompt.text, b, 0) + value_of(s.prompt.text, c, 0);
                ck_assert_int_eq(sum, (int)strtol(s.answer.text, NULL, 10));
            }
            diagnostic_free(&s);
            diagnostic_free(&again);
        }
    DiagnosticSample s;
    Err e = {0};
    must(diagnostic_sample(&s, diagnostic_find("vt"), &o, 0, &e), &e);
    ck_assert(diagnostic_find("vt")->right(&s, "X3, X1 and X2") && !diagnostic_find("vt")->right(&s, "X1 X2 X3 Y1") &&
              !diagnostic_find("vt")->right(&s, "X1 X2"));
    diagnostic_free(&s);
    must(diagnostic_sample(&s, diagnostic_find("fwe"), &o, 0, &e), &e);
    char a[16], b[16], c[16], swapped[64];
    ck_assert_int_eq(sscanf(s.answer.text, "%15s %15s %15s", a, b, c), 3);
    snprintf(swapped, sizeof swapped, "%s %s %s", b, a, c);
    ck_assert(!diagnostic_find("fwe")->right(&s, swapped)); // the order counts
    diagnostic_free(&s);
}
END_TEST

// a teacher that repeats the token before never answers; all layers are then worth the same, nothing
START_TEST(task_answers) {
    Backend *be;
    Model m;
    Tokenizer *t;
    char *json;
    size_t n;
    Err e = {0};
    Config c = tiny_config(2);
    c.VOC = 256;
    double importance[2], accuracy = -1;
    int64_t tokens = 0;
    const DiagnosticOptions o = {.samples = 2, .pairs = 3, .new_tokens = 4, .seed = 1};
    must(backend_open(&be, "cpu", 1, &e), &e);
    must(model_open(&m, &c, be, GRAD_NONE, &e), &e);
    must(model_init(&m, 3, 1, 1.5, 0, &e), &e);
    must(tokenizer_byte_json(&json, &n, &e), &e);
    must(file_mkdirs(place("tok"), &e), &e);
    must(file_write_all(place("tok/tokenizer.json"), json, n, &e), &e);
    mem_free(json);
    must(tokenizer_open(&t, place("tok"), &e), &e);
    must(diagnostic_accuracy(diagnostic_find("retrieval"), &m, t, &o, &accuracy, &tokens, &e), &e);
    ck_assert_double_eq(accuracy, 0);
    ck_assert_int_gt(tokens, 2 * 80);
    must(task_ablation(diagnostic_find("retrieval"), &m, t, &o, importance, &tokens, &e), &e);
    for (int l = 0; l < 2; l++) ck_assert_double_eq(importance[l], 0);
    tokenizer_close(t);
    model_close(&m);
    backend_close(be);
}
END_TEST

/* A task whose right answer is what the intact teacher says: only the layer whose attention says something can lose it.
 * */
static char intact[64];
static int fixed_make(DiagnosticSample *s, Rng *r, int pairs, Err *e) {
    (void)r, (void)pairs, (void)e;
    textbuf_puts(&s->prompt, "a1 b2 c3 d4 b");
    textbuf_puts(&s->answer, "as before");
    return OK;
}
static int fixed_listen(const DiagnosticSample *s, const char *output) {
    (void)s;
    snprintf(intact, sizeof intact, "%s", output);
    return 1;
}
static int fixed_right(const DiagnosticSample *s, const char *output) {
    (void)s;
    return !strcmp(output, intact);
}

// importance = accuracy - accuracy without the layer's attention: 1 for the planted layer, 0 for the others
START_TEST(task_ablation_rule) {
    enum { LAYERS = 3 };
    const DiagnosticTask listen = {"listen", fixed_make, fixed_listen}, judge = {"judge", fixed_make, fixed_right};
    const DiagnosticOptions o = {.samples = 2, .pairs = 3, .new_tokens = 12, .seed = 1};
    static const double zero[16 * 16];
    Backend *be;
    Model m;
    Tokenizer *t;
    char *json;
    size_t n;
    Err e = {0};
    Config c = tiny_config(LAYERS);
    c.VOC = 256;
    must(backend_open(&be, "cpu", 1, &e), &e);
    must(model_open(&m, &c, be, GRAD_NONE, &e), &e);
    must(model_init(&m, 3, 1, 1.5, 0, &e), &e);
    must(tokenizer_byte_json(&json, &n, &e), &e);
    must(file_mkdirs(place("tok"), &e), &e);
    must(file_write_all(place("tok/tokenizer.json"), json, n, &e), &e);
    mem_free(json);
    must(tokenizer_open(&t, place("tok"), &e), &e);
    for (int l = 0; l < LAYERS; l++) {
        char name[64];
        ParamInfo i;
        Param p;
        snprintf(name, sizeof name, "model.layers.%d.attn.o_proj.weight", l);
        ck_assert(model_find(&m, name, &i, &p));
        if (l != 1) must(param_put(be, &i, &p, DT_F64, zero, &e), &e);
    }
    double accuracy, importance[LAYERS];
    int64_t tokens = 0;
    must(diagnostic_accuracy(&listen, &m, t, &o, &accuracy, &tokens, &e), &e);
    ck_assert(accuracy == 1 && intact[0]);
    must(task_ablation(&judge, &m, t, &o, importance, &tokens, &e), &e);
    for (int l = 0; l < LAYERS; l++) ck_assert_double_eq(importance[l], l == 1);
    tokenizer_close(t);
    model_close(&m);
    backend_close(be);
}
END_TEST

/* ---------------------------------------------------------------- attention of heads */

/* Queries of zero attend evenly: weight 1/(t+1) on each of t+1 tokens, or 1/2 in a window of two. */
START_TEST(even_attention) {
    static const double zero[16 * 16];
    Tiny t;
    Err e = {0}, bad = {0};
    HeadProbe p;
    double previous = 0, induction = 0;
    tiny_open(&t, "ref64", 1, 2, place("text.tok"));
    for (int l = 0; l < 2; l++) {
        ParamInfo i;
        Param w;
        ck_assert(model_find(&t.teacher, l ? "model.layers.1.attn.q_proj.weight" : "model.layers.0.attn.q_proj.weight",
                             &i, &w));
        must(param_put(t.be, &i, &w, DT_F64, zero, &e), &e);
    }
    for (int k = 1; k < 12; k++) previous += 1.0 / (k + 1) / 11;
    for (int k = 6; k < 12; k++) induction += 1.0 / (k + 1) / 6;
    for (int window = 0; window < 2; window++) {
        t.teacher.c.window = window ? 2 : 0;
        must(probe_heads(&p, &t.teacher, NULL, 0, 6, 3, 1, &e), &e);
        for (int i = 0; i < 8; i++) {
            ck_assert_double_eq_tol(p.previous[i], window ? 0.5 : previous, 1e-12);
            ck_assert_double_eq_tol(p.induction[i], window ? 0 : induction, 1e-12);
        }
        probe_heads_close(&p);
    }
    // what followed the earlier copy stands 5 back: in a window of 6, not of 5
    for (int window = 5; window < 7; window++) {
        t.teacher.c.window = window;
        must(probe_heads(&p, &t.teacher, NULL, 0, 6, 3, 1, &e), &e);
        ck_assert_double_eq_tol(p.induction[3], window == 6 ? 1.0 / 6 : 0, 1e-12);
        probe_heads_close(&p);
    }
    ck_assert_int_eq(probe_heads(&p, &t.teacher, NULL, 0, 1, 3, 1, &bad), ERR_USAGE);
    tiny_close(&t);
}
END_TEST

START_TEST(rank_correlation) {
    const double a[6] = {1, 2, 2, 4, NAN, 9}, up[6] = {10, 20, 20, 30, 0, 31}, down[6] = {5, 4, 4, 1, 2, 0},
                 flat[6] = {1, 1, 1, 1, 1, 1};
    const double mixed[6] = {1, 3, 2, 4, 7, NAN}; // ranks 1 2.5 2.5 4 against 1 3 2 4
    ck_assert_double_eq_tol(probe_correlation(a, up, 6), 1, 1e-14);
    ck_assert_double_eq_tol(probe_correlation(a, down, 6), -1, 1e-14);
    ck_assert_double_eq_tol(probe_correlation(a, mixed, 6), 4.5 / sqrt(4.5 * 5), 1e-14);
    ck_assert(isnan(probe_correlation(a, flat, 6)) && isnan(probe_correlation(a, up, 0)));
}
END_TEST

/* ---------------------------------------------------------------- what is scored on */

START_TEST(mixture) {
    Tiny t;
    Err e = {0};
    Batch plain, mixed;
    Recall game;
    int keys[20];
    const int n[2] = {2, 40}; // 40 pairs do not fit 16 tokens
    for (int i = 0; i < 20; i++) keys[i] = i;
    const RecallSpec spec = {.key = keys, .n_key = 20, .value = keys, .n_value = 20};
    tiny_open(&t, "ref32", 1, 1, place("text.tok"));
    must(recall_open(&game, &spec, n, 1, 4, 4, 1, 64, &e), &e);
    game.n[game.n_n++] = n[1];
    must(batch_open(&plain, 8, 16, &e), &e);
    must(batch_open(&mixed, 8, 16, &e), &e);
    TextStream s = t.text;
    s.mix = 0.25;
    s.mixed = recall_mixed;
    s.mixed_ctx = &game;
    for (int heldout = 0; heldout < 2; heldout++) {
        must(batch_text(&plain, &t.text, heldout, 3, &e), &e);
        must(batch_text(&mixed, &s, heldout, 3, &e), &e);
        ck_assert_int_eq(memcmp(plain.ids, mixed.ids, 6 * 16 * sizeof(int)), 0);
        for (int row = 6; row < 8; row++) { // k v k v, then queries whose values are those of the pairs
            const int *id = mixed.ids + row * 16;
            for (int i = 4; i < 16; i += 2) {
                ck_assert(id[i] == id[0] || id[i] == id[2]);
                ck_assert_int_eq(id[i + 1], id[i] == id[0] ? id[1] : id[3]);
            }
            for (int i = 0; i < 16; i++) ck_assert_int_eq(mixed.start[row * 16 + i], 0);
        }
    }
    game.n[0] = 40;
    Err no = {0};
    ck_assert_int_eq(batch_text(&mixed, &s, 0, 0, &no), ERR_USAGE);
    batch_close(&plain);
    batch_close(&mixed);
    recall_close(&game);
    tiny_close(&t);
}
END_TEST

SUITE("selectors") {
    GROUP("all", .setup = setup, .teardown = teardown, .timeout = 120);
    CASE(smart_shipped_sets);
    CASE(smart_is_the_best_spaced_set);
    CASE(distance_rule);
    CASE(stopping_rule);
    CASE(halving_rule);
    CASE(knapsack_is_exact);
    CASE(memory_budget);
    CASE(swaps_are_plain_hybrids);
    CASE(bypass_is_a_zero_projection);
    CASE(gate_slopes);
    CASE(projected_gates);
    CASE(trained_gates);
    CASE(path_is_complete);
    CASE(every_scorer_finds_the_planted_layer);
    CASE(stopped_scores_go_on);
    CASE(averaged_ranks);
    CASE(stage1_scores);
    CASE(greedy_takes_over_ga_s2);
    CASE(greedy_is_conditional);
    CASE(all_sets);
    CASE(early_stopping_run);
    CASE(halving_run);
    CASE(task_prompts);
    CASE(task_answers);
    CASE(task_ablation_rule);
    CASE(even_attention);
    CASE(rank_correlation);
    CASE(mixture);
}
