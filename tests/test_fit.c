/* test_fit.c - how linear layers start: what attention looks at against the T x T sums, the closed form's identities,
 * threads, and keys that options younger than a run leave alone. */
#include <math.h>
#include <signal.h>
#include "method/attend.h"
#include "method/fit.h"
#include "method/heldout.h"
#include "method/ridge.h"
#include "run/pipeline.h"
#include "tiny.h"
#include "tests/suite.h"

static void setup(void) { tmpdir_begin(); }
static void teardown(void) { tmpdir_end(); }

/* ---------------------------------------------------------------- the solver */

START_TEST(ridge) {
    enum { n = 7, m = 3 };
    double A[n * n], B[n * m], X[n * m] = {0}, lambda = 0.3;
    Rng r;
    Err e = {0}, bad = {0};
    rng_seed(&r, 3);
    double root[n * n];
    for (int i = 0; i < n * n; i++) root[i] = rng_normal(&r);
    for (int i = 0; i < n * m; i++) X[i] = rng_normal(&r);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            A[i * n + j] = 0;
            for (int k = 0; k < n; k++) A[i * n + j] += root[i * n + k] * root[j * n + k];
        }
    for (int i = 0; i < n; i++)
        for (int c = 0; c < m; c++) {
            B[i * m + c] = lambda * X[i * m + c];
            for (int j = 0; j < n; j++) B[i * m + c] += A[i * n + j] * X[j * m + c];
        }
    must(ridge_solve(A, lambda, B, n, m, "test", &e), &e);
    for (int i = 0; i < n * m; i++) ck_assert_double_eq_tol(B[i], X[i], 1e-10);
    double nan[1] = {NAN}, minus[1] = {-1}, one[1] = {1};
    ck_assert_int_eq(ridge_solve(nan, 1, one, 1, 1, "layer 3", &bad), ERR_NUMERIC);
    ck_assert_ptr_nonnull(strstr(bad.msg, "layer 3"));
    ck_assert_int_eq(ridge_solve(minus, 0.5, one, 1, 1, "test", NULL), ERR_NUMERIC);
}
END_TEST

/* ---------------------------------------------------------------- what attention looks at */

/* The T x T sums themselves, for one row and head of the teacher's first layer. */
typedef struct {
    double lag, entropy, first, self;
} Row;
static Row row_sums(const Config *c, const Pass *p, int b, int t, int start, int h) {
    const double *q = (const double *)p->layer[0].mix.qs, *k = (const double *)p->layer[0].mix.ks;
    const int hk = h / (c->H / c->Hk);
    const int seen = c->window && t - c->window + 1 > start ? t - c->window + 1 : start;
    double w[64] = {0}, sum = 0;
    Row r = {0};
    for (int s = seen; s <= t; s++) {
        double dot = 0;
        for (int i = 0; i < c->D; i++)
            dot +=
                q[((size_t)(b * p->T + t) * c->H + h) * c->D + i] * k[((size_t)(b * p->T + s) * c->Hk + hk) * c->D + i];
        sum += w[s] = exp(dot / sqrt(c->D));
    }
    for (int s = seen; s <= t; s++) {
        w[s] /= sum;
        r.entropy -= w[s] * log(w[s]);
        r.lag += s > start ? w[s] * (t - s) : 0;
    }
    r.first = w[start];
    r.self = w[t];
    r.lag /= 1 - r.first;
    return r;
}

START_TEST(attention_sums) { // with documents and without, with q/k norm and a window; the last block is not full
    Tiny t;
    Batch b;
    Pass p;
    Attend a;
    Err e = {0};
    int rows = 0;
    const int B = 3, T = 27;
    Config c = tiny_config(1);
    if (_i / 2) c.qk_norm = c.qkv_bias = 1, c.window = 7;
    tiny_open_as(&t, "ref64", 1, &c, place("s.tok"));
    t.text.boundaries = _i % 2;
    must(batch_open(&b, B, T, &e), &e);
    must(batch_text(&b, &t.text, TRAINING, 0, &e), &e);
    must(pass_open(&p, &t.teacher, B, T, 0, &e), &e);
    must(attend_open(&a, &t.teacher, &p, &e), &e);
    const int *start = batch_start(&b, &t.text);
    must(pass_input(&p, &t.teacher, b.ids, start, &e), &e);
    must(attend_batch(&a, start, &e), &e);
    model_embed(&t.teacher, &p, p.mix_out);
    layer_norm_in(&t.teacher, &p, 0, p.mix_out);
    layer_mixer(&t.teacher, &p, 0, p.mix_out);
    must(attend_layer(&a, &t.teacher, &p, 0, start, &e), &e);
    for (int n = 0; n < B * T; n++)
        for (int h = 0; h < t.teacher.c.H; h++) {
            const int begin = start ? start[n] : 0;
            const Row want = row_sums(&t.teacher.c, &p, n / T, n % T, begin, h);
            const size_t i = (size_t)n * t.teacher.c.H + h;
            ck_assert_double_eq_tol(a.entropy[i], want.entropy, 1e-12);
            ck_assert_double_eq_tol(a.first[i], want.first, 1e-12);
            ck_assert_double_eq_tol(a.self[i], want.self, 1e-12);
            if (n % T == begin) ck_assert(isnan(a.lag[i]));
            else if (want.first < 0.99) ck_assert_double_eq_tol(a.lag[i], want.lag, 1e-10);
            rows += n % T != begin;
        }
    ck_assert_int_gt(rows, 100);
    attend_close(&a);
    pass_close(&p);
    batch_close(&b);
    tiny_close(&t);
}
END_TEST

/* ---------------------------------------------------------------- a start */

typedef struct {
    Tiny t;
    Model s;
    Align a;
    Fit f;
} Started;

enum { B = 4, T = 24, TOKENS = 2 * B * T }; // one batch for the gates, one for the output
static void begin_as(Started *x, const char *backend, int threads, const char *mixer, const Config *c, int form) {
    Err e = {0};
    Config student;
    int m[MAX_LAYERS];
    const StageOptions o = {.steps = 1, .batch_size = B, .micro_batch_size = B, .train_seq_len = T};
    memset(x, 0, sizeof *x);
    tiny_open_as(&x->t, backend, threads, c, place("f.tok"));
    for (int l = 0; l < c->L; l++) m[l] = mixer_find(mixer);
    must(transfer_config(&student, c, m, &e), &e);
    must(model_open(&x->s, &student, x->t.be, GRAD_MIXERS, &e), &e);
    x->s.chunk = 8;
    must(transfer_weights(&x->s, &x->t.teacher, KV_REPEAT_HEAD, 5, &e), &e);
    must(align_open(&x->a, &x->t.teacher, &x->s, &x->t.text, &o, form, &e), &e);
}
static void begin(Started *x, const char *mixer) {
    const Config c = tiny_config(2);
    begin_as(x, "ref64", 1, mixer, &c, ALIGN_NORM);
}
static void start(Started *x, StartKind kind, int64_t tokens) {
    Err e = {0};
    must(fit_start(&x->f, kind, &x->a, tokens, NULL, &e), &e);
}
static void end(Started *x) {
    align_close(&x->a);
    model_close(&x->s);
    tiny_close(&x->t);
}

/* Parameter of layer l as host memory (ref64). */
static double *param(const Model *m, int l, const char *name, size_t *n) {
    char full[192];
    ParamInfo i;
    Param p;
    snprintf(full, sizeof full, "model.layers.%d.attn.%s", l, name);
    ck_assert_msg(model_find(m, full, &i, &p), "%s", full);
    if (n) *n = i.n;
    return (double *)p.w;
}

/* Runs the teacher up to layer l's attention on training batch `index`, and the student's mixer on the same input. */
static void run_layer(Started *x, int l, uint64_t index) {
    Err e = {0};
    Align *a = &x->a;
    must(batch_text(&a->batch, &a->data, TRAINING, index, &e), &e);
    const int *begin = batch_start(&a->batch, &a->data);
    must(pass_input(&a->tp, &x->t.teacher, a->batch.ids, begin, &e), &e);
    must(pass_input(&a->sp, &x->s, a->batch.ids, begin, &e), &e);
    model_embed(&x->t.teacher, &a->tp, a->x);
    for (int i = 0; i <= l; i++) {
        layer_norm_in(&x->t.teacher, &a->tp, i, a->x);
        layer_mixer(&x->t.teacher, &a->tp, i, a->t);
        if (i < l) layer_mlp(&x->t.teacher, &a->tp, i, a->x, a->t, a->x);
    }
    const Mixer *m = mixer_at(x->s.c.mixer[l]);
    m->forward(m, layer_call(&x->s, &a->sp, l), &a->sp.layer[l].mix, a->s, a->tp.layer[l].n1);
}

START_TEST(decay_has_the_mean_lag) { // that it aims at; one head, so that the layer's mean is the head's
    Started x;
    Config c = tiny_config(2);
    c.H = c.Hk = 1;
    c.D = 16;
    begin_as(&x, "ref64", 1, "gdn_v4", &c, ALIGN_NORM);
    start(&x, START_FIT, TOKENS);
    for (int l = 0; l < 2; l++) {
        const double bias = param(&x.s, l, "dt_bias", NULL)[0],
                     gamma = exp(param(&x.s, l, "A_log", NULL)[0]) * log1p(exp(bias));
        const double aim = sqrt(x.f.layer[l].distance * exp(x.f.layer[l].entropy - 1));
        double mass = 0, lag = 0;
        for (int n = 0; n < 100000; n++) mass += exp(-gamma * n), lag += n * exp(-gamma * n);
        ck_assert_double_gt(x.f.layer[l].distance, 0.5);
        ck_assert_double_eq_tol(lag / mass, aim, 1e-9);
        // and is that decay for every token, whatever a token says
        run_layer(&x, l, 9);
        const double *g = (const double *)x.a.sp.layer[l].mix.g;
        for (int n = 0; n < B * T; n++) ck_assert_double_eq_tol(g[n], -gamma, 1e-12);
    }
    // e^(entropy - 1) is the mean lag of an exponential that has this entropy, the better the longer it is
    const double gamma = 0.01, q = exp(-gamma), entropy = -log1p(-q) + gamma * q / (1 - q);
    ck_assert_double_eq_tol(exp(entropy - 1) * expm1(gamma), 1, 0.01);
    end(&x);
}
END_TEST

/* The teacher's embeddings get something in common: what a gate without a bias lives on. */
static void add_constant(Started *x) {
    ParamInfo i;
    Param p;
    ck_assert(model_find(&x->t.teacher, "model.embeddings.weight", &i, &p));
    for (size_t k = 0; k < i.n; k += i.shape[1] / 2) ((double *)p.w)[k] += 3;
}

START_TEST(gates_are_ridge_rows) { // of one direction u; what is realised misses 1 by what `constant` says
    Started x;
    begin(&x, "gdn_v4");
    add_constant(&x);
    start(&x, START_FIT, TOKENS);
    for (int l = 0; l < 2; l++) {
        const int C = x.s.c.C, H = x.s.c.H, Q = H * x.s.c.D;
        const double *b = param(&x.s, l, "b_proj.weight", NULL), *g = param(&x.s, l, "g_proj.weight", NULL);
        double u[16], top = log(0.3 / 0.7), low = log(0.1 / 0.9), miss = 0;
        int sharp = 0, blunt = 0;
        run_layer(&x, l, 0); // what the gates were fitted on
        const double *logit = (const double *)x.a.sp.layer[l].mix.b_in, *z = (const double *)x.a.sp.layer[l].mix.z;
        double mean[4] = {0};
        for (int n = 0; n < B * T; n++)
            for (int h = 0; h < H; h++) mean[h] += logit[n * H + h] / (B * T);
        for (int h = 0; h < H; h++) {
            if (mean[h] > mean[sharp]) sharp = h;
            if (mean[h] < mean[blunt]) blunt = h;
        }
        for (int i = 0; i < C; i++) u[i] = b[sharp * C + i] / top;
        for (int i = 0; i < C; i++) ck_assert_double_eq_tol(b[blunt * C + i], low * u[i], 1e-12);
        for (int i = 0; i < Q * C; i++) ck_assert_double_eq_tol(g[i], 1.278464543 * u[i % C], 1e-12);
        for (int n = 0; n < B * T; n++) miss += pow(1 - logit[n * H + sharp] / top, 2) / (B * T);
        ck_assert_double_eq_tol(1 - miss, x.f.layer[l].constant, 1e-9);
        ck_assert_double_gt(x.f.layer[l].constant, 0.8);
        ck_assert_double_eq_tol(z[0] / 1.278464543, logit[sharp] / top, 1e-12);
    }
    ck_assert_double_eq_tol(1.278464543 / (1 + exp(-1.278464543)), 1, 1e-9);
    end(&x);
}
END_TEST

START_TEST(
    gates_without_a_constant) { // rows that cannot say 1 are not asked to: beta = .5, the drawn output gate stays
    Started x;
    int unsure = 0;
    size_t n;
    begin(&x, "gdn_v4");
    double gate[2][16 * 16];
    for (int l = 0; l < 2; l++) memcpy(gate[l], param(&x.s, l, "g_proj.weight", NULL), sizeof gate[l]);
    start(&x, START_FIT, TOKENS);
    for (int l = 0; l < 2; l++) {
        if (x.f.layer[l].constant >= 0.5) continue;
        unsure++;
        const double *b = param(&x.s, l, "b_proj.weight", &n);
        for (size_t i = 0; i < n; i++) ck_assert(b[i] == 0);
        ck_assert_int_eq(memcmp(gate[l], param(&x.s, l, "g_proj.weight", NULL), sizeof gate[l]), 0);
    }
    ck_assert_int_gt(unsure, 0);
    end(&x);
}
END_TEST

/* sum |t - s|^2 of the layer on a batch. */
static double squared(Started *x, int l, uint64_t index) {
    double sum = 0;
    run_layer(x, l, index);
    const double *t = (const double *)x->a.t, *s = (const double *)x->a.s;
    for (int i = 0; i < B * T * x->s.c.C; i++) sum += (t[i] - s[i]) * (t[i] - s[i]);
    return sum;
}

START_TEST(output_is_least_squares) { // on the rows that it read; every step away from it costs
    Started x;
    const Config c = tiny_config(2);
    begin_as(&x, "ref64", 1, "gdn_v4", &c, ALIGN_SQUARED);
    start(&x, START_FIT, TOKENS);
    for (int l = 0; l < 2; l++) {
        size_t n;
        double *o = param(&x.s, l, "o_proj.weight", &n), fitted[16 * 16], copy[16 * 16], heads[4];
        const double *teacher = param(&x.t.teacher, l, "o_proj.weight", NULL);
        ck_assert_uint_eq(n, 16 * 16);
        memcpy(fitted, o, sizeof fitted);
        const double best = squared(&x, l, 1);
        // the copy, and the copy with any scale of its heads, are worse
        for (int trial = 0; trial < 5; trial++) {
            Rng r;
            rng_seed(&r, (uint64_t)trial);
            for (int h = 0; h < 4; h++) heads[h] = trial ? 2 * rng_uniform(&r) : 1;
            for (int i = 0; i < 256; i++) copy[i] = o[i] = teacher[i] * heads[i % 16 / 4];
            const double scaled = squared(&x, l, 1);
            ck_assert_double_lt(best, scaled);
            // and the way from one to the other goes down all along: the error is a parabola with its end near its foot
            double before = scaled;
            for (int step = 1; step <= 4; step++) {
                for (int i = 0; i < 256; i++) o[i] = copy[i] + step / 4.0 * (fitted[i] - copy[i]);
                const double now = squared(&x, l, 1);
                ck_assert_double_lt(now, before);
                before = now;
            }
        }
    }
    end(&x);
}
END_TEST

START_TEST(output_has_no_slope) { // its equations, written out: no way down from r, and none from W_o
    enum { C = 16, Q = 16, H = 4, D = 4, ROWS = B * T };
    Started x;
    Err e = {0};
    const Config c = tiny_config(2);
    begin_as(&x, "ref64", 1, "gdn_v4", &c, _i ? ALIGN_SQUARED : ALIGN_NORM);
    start(&x, START_FIT, TOKENS);
    for (int l = 0; l < 2; l++) {
        const double *o = param(&x.s, l, "o_proj.weight", NULL), *copy = param(&x.t.teacher, l, "o_proj.weight", NULL);
        run_layer(&x, l, 1);
        const double *y = (const double *)x.a.sp.layer[l].mix.y, *t = (const double *)x.a.t;
        double normal[H * H] = {0}, r[H] = {0}, slope[C * Q] = {0}, lambda = 0, most = 0;
        for (int n = 0; n < ROWS; n++) {
            const double *yn = y + (size_t)n * Q, *tn = t + (size_t)n * C;
            double square = 0, part[H][C] = {0};
            for (int i = 0; i < C; i++) square += tn[i] * tn[i];
            const double weight = _i ? 1 : 1 / sqrt(square / C);
            for (int i = 0; i < C; i++)
                for (int q = 0; q < Q; q++) part[q / D][i] += copy[i * Q + q] * yn[q];
            for (int q = 0; q < Q; q++) lambda += weight * yn[q] * yn[q] / ROWS;
            for (int h = 0; h < H; h++)
                for (int i = 0; i < C; i++) {
                    r[h] += weight * part[h][i] * tn[i];
                    for (int k = 0; k < H; k++) normal[h * H + k] += weight * part[h][i] * part[k][i];
                }
            for (int i = 0; i < C; i++) {
                double miss = -tn[i];
                for (int q = 0; q < Q; q++) miss += o[i * Q + q] * yn[q];
                for (int q = 0; q < Q; q++) slope[i * Q + q] += weight * miss * yn[q];
            }
        }
        must(ridge_solve(normal, 0, r, H, 1, "test", &e), &e);
        for (int i = 0; i < C * Q; i++) {
            most = fmax(most, fabs(slope[i]));
            ck_assert_double_eq_tol(slope[i] + lambda * (o[i] - copy[i] * r[i % Q / D]), 0, 1e-6);
        }
        ck_assert_double_gt(most, 1e-3); // lambda is not nothing here
    }
    end(&x);
}
END_TEST

START_TEST(better_than_copies) { // on text that it did not read, for every mixer that it knows
    static const char *const mixer[] = {"gdn_v1", "gdn_v2", "gdn_v3", "gdn_v4", "gdn_v5", "gdn_v6",
                                        "gla_v1", "kda_v1", "kda_v2", "kda_v3", "kda_v4"};
    Started x;
    begin(&x, mixer[_i]);
    start(&x, START_FIT, 40 * B * T);
    ck_assert_int_eq(x.f.tokens, 40 * B * T);
    for (int l = 0; l < 2; l++) {
        ck_assert_msg(x.f.layer[l].after < x.f.layer[l].before, "%s: %g -> %g", mixer[_i], x.f.layer[l].before,
                      x.f.layer[l].after);
        ck_assert(isfinite(x.f.layer[l].after) && x.f.layer[l].after > 0);
    }
    // the error is stage 1's loss at its first step
    double loss, layer[MAX_LAYERS];
    Err e = {0};
    const int batches = (4096 + B * T - 1) / (B * T);
    double mean = 0;
    for (int i = 0; i < batches; i++) {
        must(batch_text(&x.a.batch, &x.a.data, TRAINING, (uint64_t)(40 + i), &e), &e);
        must(align_batch(&x.a, 0, &loss, layer, &e), &e);
        mean += layer[1] / batches;
    }
    ck_assert_double_eq_tol(mean, x.f.layer[1].after, 1e-12);
    end(&x);
}
END_TEST

START_TEST(twice_is_once) { // it is a function of the teacher and the text, not of what the student was
    Started x;
    size_t n;
    begin(&x, "gdn_v4");
    start(&x, START_FIT, TOKENS);
    unsigned char *once = tiny_dump(&x.s, &n);
    start(&x, START_FIT, TOKENS);
    unsigned char *twice = tiny_dump(&x.s, &n);
    ck_assert_int_eq(memcmp(once, twice, n), 0);
    mem_free(once);
    mem_free(twice);
    end(&x);
}
END_TEST

START_TEST(per_channel_decays) { // gla and kda: exactly -gamma_h 2^u, u from -1.5 to 1.5, for every token
    static const char *const mixer[] = {"gla_v1", "kda_v1", "kda_v3"};
    Started x;
    Config c = tiny_config(2);
    c.H = c.Hk = 1;
    c.D = 16;
    begin_as(&x, "ref64", 1, mixer[_i], &c, ALIGN_NORM);
    start(&x, START_FIT, TOKENS);
    for (int l = 0; l < 2; l++) {
        run_layer(&x, l, 7);
        const double *g = (const double *)x.a.sp.layer[l].mix.g,
                     gamma = log1p(1 / sqrt(x.f.layer[l].distance * exp(x.f.layer[l].entropy - 1)));
        for (int n = 0; n < B * T; n++)
            for (int i = 0; i < 16; i++) ck_assert_double_eq_tol(g[n * 16 + i], -gamma * exp2(i / 5.0 - 1.5), 1e-12);
    }
    end(&x);
}
END_TEST

START_TEST(siblings_agree) { // convolutions that pass on, a stacked map that repeats: v3 and v5 start as v4
    static const char *const mixer[] = {"gdn_v3", "gdn_v5"};
    Started x, y;
    begin(&x, "gdn_v4");
    begin(&y, mixer[_i]);
    add_constant(&x); // else gates keep what was drawn, and the two draw differently
    add_constant(&y);
    start(&x, START_FIT, TOKENS);
    start(&y, START_FIT, TOKENS);
    for (int l = 0; l < 2; l++) {
        run_layer(&x, l, 5);
        run_layer(&y, l, 5);
        const double *a = (const double *)x.a.s, *b = (const double *)y.a.s;
        for (int i = 0; i < B * T * x.s.c.C; i++) ck_assert_double_eq_tol(a[i], b[i], 1e-9);
    }
    end(&x);
    end(&y);
}
END_TEST

START_TEST(
    norm_cancels_a_scale) { // why the scale of a head stands in o_proj: rmsnorm(s o; eps) = rmsnorm(o; eps / s^2)
    Backend *be;
    Err e = {0};
    double o[8], so[8], w[8], a[8], b[8], r;
    const double s = 0.37;
    must(backend_open(&be, "ref64", 1, &e), &e);
    for (int i = 0; i < 8; i++) o[i] = sin(i + 1), so[i] = s * o[i], w[i] = 1 + 0.1 * i;
    be->op->rmsnorm_forward((Real *)a, (Wide *)&r, (Real *)so, (Real *)w, 1e-2, 1, 8);
    be->op->rmsnorm_forward((Real *)b, (Wide *)&r, (Real *)o, (Real *)w, 1e-2 / (s * s), 1, 8);
    for (int i = 0; i < 8; i++) ck_assert_double_eq_tol(a[i], b[i], 1e-14);
    backend_close(be);
}
END_TEST

/* ---------------------------------------------------------------- as published */

START_TEST(taylor_as_published) { // one head: what its weights say is what the attention was seen to do
    Started x;
    Config c = tiny_config(2);
    c.H = c.Hk = 1;
    c.D = 16;
    begin_as(&x, "ref64", 1, "gdn_v4", &c, ALIGN_NORM);
    size_t n;
    double drawn[16 * 16], size = 0, d = 0;
    memcpy(drawn, param(&x.s, 0, "a_proj.weight", NULL), 16 * sizeof *drawn);
    const double ratio = param(&x.s, 0, "v_proj.weight", NULL)[5];
    start(&x, START_TAYLOR, TOKENS);
    ck_assert_int_eq(x.f.tokens, TOKENS);
    // d: the mean over all rows of both batches of |t - s|, the token itself counted as a half
    for (int batch = 0; batch < 2; batch++) {
        run_layer(&x, 0, (uint64_t)batch);
        const int *begin = batch_start(&x.a.batch, &x.a.data);
        for (int i = 0; i < B * T; i++) {
            const Row r = row_sums(&c, &x.a.tp, i / T, i % T, begin[i], 0);
            const int age = i % T - begin[i];
            d += ((age ? r.lag * (1 - r.first) + r.first * age : 0) + 0.5 * r.self) / TOKENS;
        }
    }
    ck_assert_double_eq_tol(x.f.layer[0].distance, d, 1e-9);
    // after d tokens half is left, if a_proj says nothing
    const double gamma = log1p(exp(param(&x.s, 0, "dt_bias", NULL)[0]));
    ck_assert_double_eq_tol(exp(-gamma * d), 0.5, 1e-9);
    const double *a = param(&x.s, 0, "a_proj.weight", NULL), *b = param(&x.s, 0, "b_proj.weight", &n);
    for (int i = 0; i < 16; i++) ck_assert_double_eq_tol(a[i], drawn[i] * 0.02 * sqrt(48), 1e-12);
    for (size_t i = 0; i < n; i++) size += fabs(b[i]) / 16;
    ck_assert_double_eq_tol(size, log(0.7 / 0.3) / 4, 1e-12); // the only head is the sharpest
    const double *v = param(&x.s, 0, "v_proj.weight", &n), *g = param(&x.s, 0, "g_proj.weight", NULL);
    ck_assert(v[5] != ratio && v[5] / ratio > 0.1 - 1e-12 && v[5] / ratio < 10 + 1e-12);
    for (size_t i = 0; i < n; i++) ck_assert_double_eq_tol(g[i] / v[i], g[0] / v[0], 1e-9);
    ck_assert(g[0] / v[0] > 0);
    ck_assert_int_eq(memcmp(param(&x.s, 0, "o_proj.weight", NULL), param(&x.t.teacher, 0, "o_proj.weight", NULL),
                            256 * sizeof(double)),
                     0);
    end(&x);
    // and, as published, it is a mixer that hardly speaks
    Started zero;
    begin(&x, "gdn_v4");
    begin(&zero, "gdn_v4");
    start(&x, START_TAYLOR, TOKENS);
    start(&zero, START_ZERO_GATE, TOKENS);
    for (int l = 0; l < 2; l++) ck_assert_double_eq_tol(x.f.layer[l].after / zero.f.layer[l].after, 1, 0.05);
    end(&x);
    end(&zero);
}
END_TEST

/* ---------------------------------------------------------------- silence */

static int silence_visit(void *ctx, const ParamInfo *info, Param *slot) {
    const Model *m = ctx;
    if (strstr(info->name, "attn.o_proj.weight")) m->be->zero(m->be, slot->w, info->n * m->be->real_size);
    return OK;
}

START_TEST(zero_gate_is_bypass) { // outputs of exactly 0: the bits of the teacher without attention; and it can learn
    Started x;
    Heldout h;
    HeldoutResult student, bypass;
    Err e = {0};
    begin(&x, "gdn_v4");
    start(&x, START_ZERO_GATE, 0);
    for (int l = 0; l < 2; l++) {
        double size = 0;
        run_layer(&x, l, 3);
        const double *s = (const double *)x.a.s, *t = (const double *)x.a.t;
        for (int i = 0; i < B * T * x.s.c.C; i++) {
            ck_assert(s[i] == 0);
            size += t[i] * t[i];
        }
        ck_assert_double_gt(size, 0);
    }
    must(heldout_open(&h, &x.t.teacher, &x.t.text, 2, T, 2, 0, &e), &e);
    must(heldout_run(&h, &x.s, &student, &e), &e);
    Model silent;
    must(model_open(&silent, &x.t.teacher.c, x.t.be, GRAD_NONE, &e), &e);
    must(model_init(&silent, 3, 1.0, 1.5, 0, &e), &e); // the teacher again (tiny_open_as)
    params_walk(&silent.c, &silent.p, silence_visit, &silent);
    must(heldout_run(&h, &silent, &bypass, &e), &e);
    ck_assert_double_gt(bypass.kl, 1e-3);
    ck_assert_int_eq(memcmp(&student.kl, &bypass.kl, sizeof(double)), 0);
    // its gradient is that of the gate
    double loss, slope = 0;
    size_t n;
    must(batch_text(&x.a.batch, &x.a.data, TRAINING, 0, &e), &e);
    model_zero_grad(&x.s);
    must(align_batch(&x.a, 1, &loss, NULL, &e), &e);
    param(&x.s, 0, "g_proj.weight", &n);
    ParamInfo i;
    Param p;
    ck_assert(model_find(&x.s, "model.layers.0.attn.g_proj.weight", &i, &p));
    for (size_t k = 0; k < n; k++) slope += fabs(((const double *)p.g)[k]);
    ck_assert_double_gt(slope, 1e-4);
    heldout_close(&h);
    model_close(&silent);
    end(&x);
}
END_TEST

/* ---------------------------------------------------------------- the house's rules */

START_TEST(any_threads) { // on the device that people use, the bits of one thread
    Started x;
    const Config c = tiny_config(3);
    size_t n, m;
    static const char *const device[] = {"cpu", "cpu-bf16"};
    begin_as(&x, device[_i], 1, "gdn_v4", &c, ALIGN_NORM);
    start(&x, START_FIT, 6 * B * T);
    unsigned char *one = tiny_dump(&x.s, &n);
    end(&x);
    for (int threads = 2; threads <= 5; threads += 3) {
        begin_as(&x, device[_i], threads, "gdn_v4", &c, ALIGN_NORM);
        start(&x, START_FIT, 6 * B * T);
        unsigned char *more = tiny_dump(&x.s, &m);
        ck_assert_uint_eq(n, m);
        ck_assert_int_eq(memcmp(one, more, n), 0);
        mem_free(more);
        end(&x);
    }
    mem_free(one);
}
END_TEST

START_TEST(float_is_near_double) { // gates and output of float against the oracle's
    Started x, y;
    const Config c = tiny_config(2);
    begin_as(&x, "ref64", 1, "gdn_v4", &c, ALIGN_NORM);
    begin_as(&y, "cpu", 2, "gdn_v4", &c, ALIGN_NORM);
    start(&x, START_FIT, 8 * B * T);
    start(&y, START_FIT, 8 * B * T);
    for (int l = 0; l < 2; l++) {
        ck_assert_double_eq_tol(x.f.layer[l].distance, y.f.layer[l].distance, 1e-4);
        ck_assert_double_eq_tol(x.f.layer[l].entropy, y.f.layer[l].entropy, 1e-4);
        ck_assert_double_eq_tol(x.f.layer[l].before, y.f.layer[l].before, 1e-4);
        ck_assert_double_eq_tol(x.f.layer[l].after, y.f.layer[l].after, 1e-3);
    }
    end(&x);
    end(&y);
}
END_TEST

static int always_stopped(const Memo *m) {
    (void)m;
    return SIGTERM;
}
START_TEST(refusals) {
    Started x;
    Err swa = {0}, gate = {0}, stop = {0}, small = {0}, published = {0};
    const Memo memo = {.stopped = always_stopped};
    ck_assert_int_eq(fit_check(START_FIT, &mixer_swa_v1, &swa), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(swa.msg, "swa_v1"));
    ck_assert_int_eq(fit_check(START_ZERO_GATE, &mixer_gdn_v2, &gate), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(gate.msg, "gdn_v2"));
    ck_assert_int_eq(fit_check(START_ZERO_GATE, &mixer_kda_v1, NULL), ERR_USAGE); // its gate is a sigmoid
    ck_assert_int_eq(fit_check(START_ZERO_GATE, &mixer_gla_v1, NULL), OK);
    ck_assert_int_eq(fit_check(START_TAYLOR, &mixer_gla_v1, &published), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(published.msg, "gla_v1"));
    ck_assert_int_eq(fit_check(START_TAYLOR, &mixer_gdn_v4, NULL), OK);
    ck_assert_int_eq(fit_check(START_TEACHER, &mixer_swa_v1, NULL), OK);
    begin(&x, "gdn_v4");
    ck_assert_int_eq(fit_start(&x.f, START_FIT, &x.a, TOKENS, &memo, &stop), ERR_SIGTERM);
    end(&x);
    Config c = tiny_config(1);
    c.D = 2;
    begin_as(&x, "ref64", 1, "gdn_v4", &c, ALIGN_NORM);
    ck_assert_int_eq(fit_start(&x.f, START_FIT, &x.a, TOKENS, NULL, &small), ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(small.msg, "head_dim"));
    end(&x);
}
END_TEST

START_TEST(keys_of_before) { // a run from before these options goes on: its keys are those of a table without them
    const OptionTable *t = pipeline_table();
    PipelineOptions o, set;
    Option rows[256];
    OptionTable old = {rows, 0};
    pipeline_defaults(&o);
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->row[i].key, "init") && strcmp(t->row[i].key, "init_tokens")) rows[old.n++] = t->row[i];
    ck_assert_int_eq(old.n, t->n - 2);
    ck_assert_uint_eq(options_key(t, &o, AFFECTS_STAGE1, 7), options_key(&old, &o, AFFECTS_STAGE1, 7));
    set = o;
    set.init = START_FIT;
    ck_assert_uint_ne(options_key(t, &o, AFFECTS_STAGE1, 7), options_key(t, &set, AFFECTS_STAGE1, 7));
    const uint64_t fit = options_key(t, &set, AFFECTS_STAGE1, 7);
    set.init_tokens = 1000;
    ck_assert_uint_ne(fit, options_key(t, &set, AFFECTS_STAGE1, 7));
    ck_assert_ptr_nonnull(options_differ(t, &o, &set, AFFECTS_NUMBERS));
}
END_TEST

SUITE("fit") {
    GROUP("fit", .setup = setup, .teardown = teardown);
    CASE(ridge);
    CASE(attention_sums, .times = 4);
    CASE(decay_has_the_mean_lag);
    CASE(gates_are_ridge_rows);
    CASE(gates_without_a_constant);
    CASE(output_is_least_squares);
    CASE(output_has_no_slope, .times = 2);
    CASE(better_than_copies, .times = 11);
    CASE(twice_is_once);
    CASE(per_channel_decays, .times = 3);
    CASE(siblings_agree, .times = 2);
    CASE(norm_cancels_a_scale);
    CASE(taylor_as_published);
    CASE(zero_gate_is_bypass);
    CASE(any_threads, .times = 2);
    CASE(float_is_near_double);
    CASE(refusals);
    CASE(keys_of_before);
}
