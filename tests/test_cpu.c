/* test_cpu.c - cpu/ beyond what test_ops checks of every backend: each instruction set by name, shapes large enough for
 * blocks, panels and threads to matter, exp and log1p to the ulp, and the pool of threads. */
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/mem.h"
#include "base/rng.h"
#include "cpu/cpu.h"
#include "cpu/prepack.h"
#include "cpu/pool.h"
#include "method/distill.h"
#include "ops/bf16.h"
#include "run/train_run.h"
#include "tiny.h"
#include "tools/compare.h"
#include "tests/suite.h"

static const char *const names[] = {"avx512", "avx2", "plain"};
enum { PATHS = 3 };

/* The path of a loop test; NULL, with a line, where this CPU cannot run it. */
static const CpuPath *path_of(int i) {
    const CpuPath *p = cpu_path_named(names[i]);
    if (!p) printf("SKIP this CPU does not run the %s path\n", names[i]);
    return p;
}

/* ---- buffers: the same numbers as float and as double ---- */

typedef struct {
    float *f;
    double *d;
    size_t n;
} Pair;
static Pair pairs[32];
static int n_pairs;
static Rng rng;

static Pair pair(size_t n, double size) {
    Pair p = {malloc((n + 1) * sizeof(float)), malloc((n + 1) * sizeof(double)), n};
    for (size_t i = 0; i < n; i++) p.d[i] = p.f[i] = (float)((2 * rng_uniform(&rng) - 1) * size);
    return pairs[n_pairs++] = p;
}
static void pairs_free(void) {
    while (n_pairs > 0) n_pairs--, free(pairs[n_pairs].f), free(pairs[n_pairs].d);
}
static void check_pair(const Pair *p, double chain, const char *what, const char *path) {
    double *a = malloc((p->n + 1) * sizeof *a);
    for (size_t i = 0; i < p->n; i++) a[i] = p->f[i];
    const Comparison c = compare(a, p->d, p->n, compare_tol(0x1p-24, chain));
    ck_assert_msg(c.verdict == COMPARE_OK, "%s: %s: %s: relative %g, margin %g, at %zu: %g, wanted %g", path, what,
                  compare_word(&c), c.rel, c.margin, c.at, c.a, c.r);
    free(a);
}

static int *starts(int B, int T) {
    int *s = malloc(sizeof(int) * (size_t)B * T);
    for (int b = 0; b < B; b++)
        for (int t = 0, first = 0; t < T; t++) {
            if (t > 0 && rng_below(&rng, 30) == 0) first = t;
            s[b * T + t] = first;
        }
    return s;
}

/* ---- exp and log1p ---- */

/* in units of the last place of the float nearest to the right value */
static double ulps(float got, double right) {
    const float near = (float)right;
    if (isnan(right) || isinf(near)) return isnan(right) == isnan(got) && (isnan(got) || got == near) ? 0 : INFINITY;
    const double ulp = fmax(0x1p-149, fabs((double)nextafterf(fabsf(near), INFINITY) - fabs((double)near)));
    return fabs(got - right) / ulp;
}

START_TEST(exp_to_the_ulp) {
    const CpuPath *p = path_of(_i);
    if (!p) return;
    enum { N = 1000 };
    float x[N], y[N];
    double worst = 0, at = 0;
    for (int block = 0; block < 1100; block++) { // -104 .. 6 evenly, and a turn around 0 and beyond both ends
        for (int i = 0; i < N; i++) x[i] = (float)(-104 + 110.0 * (block + (i + 0.37) / N) / 1100);
        if (block % 11 == 0)
            for (int i = 0; i < N; i++) x[i] = ldexpf((float)(i - N / 2), -12 - block / 11 % 20);
        if (block % 11 == 1)
            for (int i = 0; i < N; i++) x[i] = 80 + 10.0f * i / N;
        p->exp(y, x, N);
        for (int i = 0; i < N; i++)
            if (ulps(y[i], exp(x[i])) > worst) worst = ulps(y[i], exp(x[i])), at = x[i];
    }
    printf("%s: exp within %.3f ulp (worst at %a)\n", p->name, worst, at);
    ck_assert_msg(worst <= 2, "%s: exp(%a) is %g ulp off", p->name, at, worst);
    const float edge[] = {-INFINITY, -200, -87.5f, -103.9f, 0, -0.0f, 88.7f, 89, 1000, INFINITY, NAN, 0x1p-140f, 1};
    p->exp(y, edge, 13);
    for (int i = 0; i < 13; i++)
        ck_assert_msg(ulps(y[i], exp(edge[i])) <= 2, "%s: exp(%g) = %g", p->name, edge[i], y[i]);
}
END_TEST

START_TEST(log1p_to_the_ulp) {
    const CpuPath *p = path_of(_i);
    if (!p) return;
    enum { N = 1000 };
    float x[N], y[N];
    double worst = 0;
    for (int block = 0; block < 400; block++) {
        for (int i = 0; i < N; i++)
            x[i] =
                block < 200 ? (float)((block + (i + 0.5) / N) / 200) : ldexpf(0.5f + 0.5f * i / N, -(block - 200) / 2);
        p->log1p(y, x, N);
        for (int i = 0; i < N; i++) worst = fmax(worst, ulps(y[i], log1p(x[i])));
    }
    printf("%s: log1p on [0,1] within %.3f ulp\n", p->name, worst);
    ck_assert(worst <= 2);
    const float edge[] = {0, 1, NAN};
    p->log1p(y, edge, 3);
    ck_assert(y[0] == 0 && ulps(y[1], log(2)) <= 2 && isnan(y[2]));
}
END_TEST

/* ---- ops on shapes with blocks and edges ---- */

START_TEST(linear_blocks) {
    static const int shape[][3] = {{17, 1, 1},     {100, 17, 33},   {97, 400, 70},    {33, 64, 172},
                                   {130, 769, 35}, {801, 130, 129}, {40, 1100, 1030}, {1300, 40, 600}};
    const CpuPath *p = path_of(_i);
    for (int s = 0; p && s < 8; s++) {
        const int N = shape[s][0], I = shape[s][1], O = shape[s][2];
        const size_t NI = (size_t)N * I, NO = (size_t)N * O, OI = (size_t)O * I;
        const Pair x = pair(NI, 1), w = pair(OI, 1), b = pair(O, 1), dy = pair(NO, 1), y = pair(NO, 1),
                   dx = pair(NI, 1), dw = pair(OI, 1), db = pair(O, 1);
        p->ops.linear_forward(y.f, x.f, w.f, b.f, N, I, O);
        ops_ref64.linear_forward(y.d, x.d, w.d, b.d, N, I, O);
        p->ops.linear_backward(dx.f, dw.f, db.f, dy.f, x.f, w.f, N, I, O);
        ops_ref64.linear_backward(dx.d, dw.d, db.d, dy.d, x.d, w.d, N, I, O);
        check_pair(&y, I + 1, "linear y", p->name);
        check_pair(&dx, O + 1, "linear dx", p->name);
        check_pair(&dw, N + 1, "linear dw", p->name);
        check_pair(&db, N + 1, "linear db", p->name);
        pairs_free();
    }
}
END_TEST

/* ---- held weights ---- */

typedef struct {
    const CpuPath *p;
    Pair x, w, dy, y, dx;
    int N, I, O;
} Product;
static Product product(const CpuPath *p, int N, int I, int O) {
    const size_t NI = (size_t)N * I, NO = (size_t)N * O;
    return (Product){p, pair(NI, 1), pair((size_t)O * I, 1), pair(NO, 1), pair(NO, 1), pair(NI, 0), N, I, O};
}
/* y and dx; keep: where to copy them, y first. */
static void product_run(Product *k, float *keep) {
    memset(k->dx.f, 0, k->dx.n * sizeof(float));
    k->p->ops.linear_forward(k->y.f, k->x.f, k->w.f, NULL, k->N, k->I, k->O);
    k->p->ops.linear_backward(k->dx.f, NULL, NULL, k->dy.f, k->x.f, k->w.f, k->N, k->I, k->O);
    if (keep) memcpy(keep, k->y.f, k->y.n * sizeof(float)), memcpy(keep + k->y.n, k->dx.f, k->dx.n * sizeof(float));
}
static int product_same(Product *k, const float *was) {
    product_run(k, NULL);
    return !memcmp(was, k->y.f, k->y.n * sizeof(float)) && !memcmp(was + k->y.n, k->dx.f, k->dx.n * sizeof(float));
}

START_TEST(held_weights_give_the_same_bits) {
    static const int shape[][3] = {{17, 1, 1},       {97, 400, 70},  {130, 769, 35},
                                   {40, 1100, 1030}, {300, 321, 33}, {600, 40, 1300}};
    const CpuPath *p = path_of(_i);
    for (int s = 0; p && s < 6; s++) {
        Product k = product(p, shape[s][0], shape[s][1], shape[s][2]);
        float *was = malloc((k.y.n + k.dx.n) * sizeof(float)), *now = malloc((k.y.n + k.dx.n) * sizeof(float));
        const size_t before = mem_now();
        product_run(&k, was);
        cpu_prepack(k.w.f, k.O, k.I, 1, 32);
        ck_assert_msg(product_same(&k, was), "%s: the product that packs, shape %d", p->name, s);
        ck_assert(mem_now() > before);
        ck_assert_msg(product_same(&k, was), "%s: the product that finds panels, shape %d", p->name, s);
        k.w.f[k.w.n - 1] += 1; // the last one to be packed
        product_run(&k, now);
        ck_assert_msg(!memcmp(was, now, k.y.n * sizeof(float)),
                      "%s: packed although nobody said that w changed, shape %d", p->name, s);
        cpu_invalidate(k.w.f);
        product_run(&k, now);
        ck_assert_msg(memcmp(was, now, k.y.n * sizeof(float)), "%s: old panels after a change, shape %d", p->name, s);
        ck_assert(product_same(&k, now));
        cpu_prepack_release(k.w.f);
        ck_assert(mem_now() == before && product_same(&k, now));
        free(was), free(now);
        pairs_free();
    }
}
END_TEST

/* Rows so long that four panels are more than the usual buffer: it grows, twice, and the bits are those of prepacked
 * weights, whose panels are elsewhere. */
START_TEST(long_bf16_products) {
    static const char *const paths[] = {"amx", "avx512_bf16", "avx512", "avx2", "plain"};
    static const int shape[][2] = {{17000, 70}, {20000, 200}, {600, 40}};
    enum { N = 3 };
    const CpuPath16 *p = cpu_path16_named(paths[_i]);
    for (int s = 0; p && s < 3; s++) {
        const size_t I = (size_t)shape[s][0], O = (size_t)shape[s][1];
        Bf16 *x = malloc(N * I * sizeof *x), *w = malloc(O * I * sizeof *w);
        Bf16 *y = malloc(N * O * sizeof *y), *held = malloc(N * O * sizeof *held);
        Rng r;
        rng_seed(&r, 7);
        for (size_t i = 0; i < N * I; i++) x[i] = bf16_round((float)rng_uniform(&r) - 0.5f);
        for (size_t i = 0; i < O * I; i++) w[i] = bf16_round((float)rng_uniform(&r) - 0.5f);
        p->ops.linear_forward(y, x, w, NULL, N, (int)I, (int)O);
        cpu_prepack(w, (int)O, (int)I, 0, 16);
        p->ops.linear_forward(held, x, w, NULL, N, (int)I, (int)O);
        cpu_prepack_release(w);
        ck_assert_msg(!memcmp(y, held, N * O * sizeof *y), "%s, %zu x %zu", p->name, O, I);
        double want = 0;
        for (size_t i = 0; i < I; i++)
            want += (double)bf16_float(x[2 * I + i]) * (double)bf16_float(w[(O - 1) * I + i]);
        ck_assert_double_eq_tol(bf16_float(y[3 * O - 1]), want, 0.005 * fabs(want) + 0.02);
        free(x), free(w), free(y), free(held);
    }
}
END_TEST

START_TEST(held_weights_without_memory_or_of_another_path) {
    const CpuPath *p = path_of(_i);
    if (!p) return;
    Product k = product(p, 50, 500, 200);
    float *was = malloc((k.y.n + k.dx.n) * sizeof(float));
    product_run(&k, was);
    for (long n = 0; n < 3; n++) { // no memory for the table, for y's panels, for dx's
        mem_fail_after(n);
        cpu_prepack(k.w.f, k.O, k.I, 1, 32);
        ck_assert(product_same(&k, was) && product_same(&k, was));
        mem_fail_after(-1);
        ck_assert(product_same(&k, was));
        cpu_prepack_release(k.w.f);
    }
    for (int other = 0; other < PATHS; other++) {
        const CpuPath *q = cpu_path_named(names[other]);
        if (!q) continue;
        cpu_prepack(k.w.f, k.O, k.I, 1, 32);
        k.p = q;
        product_run(&k, NULL);
        k.p = p;
        ck_assert_msg(product_same(&k, was), "%s reads the panels of %s", p->name, q->name);
        cpu_prepack_release(k.w.f);
    }
    free(was);
    pairs_free();
}
END_TEST

START_TEST(held_weights_are_found_again) {
    enum { N = 1000 };
    static float w[N][16];
    unsigned char in[N] = {0};
    const size_t before = mem_now();
    for (int step = 0; step < 20000; step++) {
        const int i = (int)rng_below(&rng, N);
        if (rng_below(&rng, 3)) cpu_prepack(w[i], 1, 16, 0, 32), in[i] = 1;
        else cpu_prepack_release(w[i]), in[i] = 0;
        if (step % 1000 && step > 200) continue;
        for (int j = 0; j < N; j++) {
            const Prepacked *h = prepack_find(w[j]);
            ck_assert_msg((h != NULL) == in[j] && (!h || h->w == w[j]), "step %d, matrix %d", step, j);
        }
    }
    for (int i = 0; i < N; i++) cpu_prepack_release(w[i]);
    ck_assert(mem_now() == before);
}
END_TEST

/* A step packs each matrix once for y = x W^T and, where its rows are long (cpu/prepack.h), once for dx = dy W:
 * whatever the number of its micro-batches, and of the head's blocks of rows; a frozen teacher's were packed by an
 * earlier step. */
typedef struct {
    const Model *m;
    size_t n;
} Layouts;
static int layouts_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Layouts *k = ctx;
    if (info->rank == 2 && !info->wide && slot->w != k->m->p.embed.w) k->n += 1 + (info->shape[1] > IN_PLACE);
    return OK;
}
static size_t packed_by(int kind, int64_t steps, int micro, size_t *layouts) {
    enum { B = 6, T = 200 }; // 1,200 rows: three blocks of the head
    Tiny t;
    Model s;
    Err e = {0};
    const int keep[3] = {0, 1, 0};
    const OptimConfig adamw = {.lr = 1e-3, .lr_attn = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1};
    const TrainOptions o = {
        .stage = {.steps = steps, .batch_size = B, .micro_batch_size = micro, .train_seq_len = T, .optim = adamw}};
    Config c = tiny_config(3);
    c.C = 336, c.F = 330, c.H = c.Hk = 2, c.D = 168, c.tied = 0, c.max_positions = T;
    tiny_open_as(&t, "cpu", 2, &c, place("text.tok"));
    tiny_student(&s, &t, keep, GRAD_ALL);
    Teacher teacher = {0};
    Distill d;
    if (kind == 2) must(teacher_open(&teacher, &t.teacher, micro, T, 0, 0, &e), &e);
    must(distill_open(&d, &s, kind == 2 ? &teacher : NULL, &t.text, &o.stage, 1.0, 0, &e), &e);
    Task task = distill_task(&d, "test");
    TrainResult r;
    const size_t before = atomic_load(&matrices_packed);
    must(train_run(&task, &o, &r, &e), &e);
    Layouts k = {&s, 0};
    params_walk(&s.c, &s.p, layouts_visit, &k);
    *layouts = k.n;
    const size_t n = atomic_load(&matrices_packed) - before;
    distill_close(&d);
    if (kind == 2) teacher_close(&teacher);
    model_close(&s);
    tiny_close(&t);
    return n;
}
START_TEST(weights_are_packed_once_a_step) {
    for (int kind = 2; kind <= 3; kind++)
        for (int micro = 1; micro <= 6; micro += micro == 3 ? 3 : 2) {
            size_t layouts;
            const size_t n = packed_by(kind, 3, micro, &layouts) - packed_by(kind, 2, micro, &layouts);
            ck_assert_uint_gt(layouts, 30);
            ck_assert_msg(n == layouts, "stage %d, micro-batches of %d: a step packs %zu times, there are %zu layouts",
                          kind, micro, n, layouts);
        }
}
END_TEST

START_TEST(attention_tiles) {
    static const AttnDims dims[] = {{2, 130, 0, 0, 4, 2, 24, 0},   {1, 200, 0, 0, 2, 1, 33, 20},
                                    {1, 257, 0, 0, 3, 3, 16, 70},  {1, 100, 37, 150, 2, 1, 40, 30},
                                    {2, 3, 100, 128, 4, 2, 16, 0}, {1, 70, 0, 0, 1, 1, 300, 0}};
    const CpuPath *p = path_of(_i / 2);
    for (int s = 0; p && s < 6; s++) {
        const AttnDims d = dims[s];
        const int Tk = d.past + d.T, stride = d.stride ? d.stride : Tk;
        const size_t nq = (size_t)d.B * d.T * d.H * d.D, nk = (size_t)d.B * stride * d.Hk * d.D,
                     n = (size_t)d.B * d.T * d.H;
        const Pair q = pair(nq, 3), k = pair(nk, 1), v = pair(nk, 1), dout = pair(nq, 1), o = pair(nq, 1),
                   lse = pair(n, 1), dq = pair(nq, 1), dk = pair(nk, 1), dv = pair(nk, 1);
        int *start = _i % 2 ? starts(d.B, Tk) : NULL;
        void *work = malloc(attention_work(&d));
        p->ops.attention_forward(o.f, lse.f, q.f, k.f, v.f, start, 0.3, work, &d);
        ops_ref64.attention_forward(o.d, lse.d, q.d, k.d, v.d, start, 0.3, work, &d);
        check_pair(&o, Tk + d.D, "attention o", p->name);
        check_pair(&lse, Tk + d.D, "attention lse", p->name);
        if (!d.past) {
            p->ops.attention_backward(dq.f, dk.f, dv.f, dout.f, o.f, lse.f, q.f, k.f, v.f, start, 0.3, work, &d);
            ops_ref64.attention_backward(dq.d, dk.d, dv.d, dout.d, o.d, lse.d, q.d, k.d, v.d, start, 0.3, work, &d);
            check_pair(&dq, Tk + d.D, "attention dq", p->name);
            check_pair(&dk, Tk + d.D, "attention dk", p->name);
            check_pair(&dv, Tk + d.D, "attention dv", p->name);
        }
        free(work), free(start), pairs_free();
    }
}
END_TEST

enum { DELTA, GLA, KDA }; /* decays: one a head; K a key head; K a head */
static void check_mixer(const CpuPath *p, const DeltaDims *d, int kind, double decay, const int *start) {
    const size_t nk = (size_t)d->B * d->T * d->Hk * d->K, nv = (size_t)d->B * d->T * d->H * d->V,
                 nh = (size_t)d->B * d->T * d->H, n0 = (size_t)d->B * d->H * d->K * d->V;
    const Pair q = pair(nk, 1), k = pair(nk, 1.7 / sqrt(d->K)), v = pair(nv, 1),
               g = pair(kind == DELTA ? nh
                        : kind == GLA ? nk
                                      : nh * d->K,
                        1),
               beta = pair(nh, 1), dout = pair(nv, 1), o = pair(nv, 1);
    const Pair S = pair(delta_states(d), 1), dq = pair(nk, 1), dk = pair(nk, 1), dv = pair(nv, 1), dg = pair(g.n, 1),
               dbeta = pair(nh, 1), dS = pair(n0, 1), s0 = pair(n0, 1);
    for (size_t i = 0; i < g.n; i++) g.d[i] = g.f[i] = (float)(-fabs(g.d[i]) * decay);
    for (size_t i = 0; i < nh; i++) beta.d[i] = beta.f[i] = fabsf(beta.f[i]);
    void *work = malloc(kda_work(d));
    if (kind == KDA) {
        p->ops.kda_forward(o.f, S.f, s0.f, q.f, k.f, v.f, g.f, beta.f, start, 0.2, work, d);
        ops_ref64.kda_forward(o.d, S.d, s0.d, q.d, k.d, v.d, g.d, beta.d, start, 0.2, work, d);
        p->ops.kda_backward(dq.f, dk.f, dv.f, dg.f, dbeta.f, dS.f, dout.f, S.f, q.f, k.f, v.f, g.f, beta.f, start, 0.2,
                            work, d);
        ops_ref64.kda_backward(dq.d, dk.d, dv.d, dg.d, dbeta.d, dS.d, dout.d, S.d, q.d, k.d, v.d, g.d, beta.d, start,
                               0.2, work, d);
    } else if (kind == GLA) {
        p->ops.gla_forward(o.f, S.f, s0.f, q.f, k.f, v.f, g.f, start, 0.2, work, d);
        ops_ref64.gla_forward(o.d, S.d, s0.d, q.d, k.d, v.d, g.d, start, 0.2, work, d);
        p->ops.gla_backward(dq.f, dk.f, dv.f, dg.f, dS.f, dout.f, S.f, q.f, k.f, v.f, g.f, start, 0.2, work, d);
        ops_ref64.gla_backward(dq.d, dk.d, dv.d, dg.d, dS.d, dout.d, S.d, q.d, k.d, v.d, g.d, start, 0.2, work, d);
    } else {
        p->ops.delta_rule_forward(o.f, S.f, s0.f, q.f, k.f, v.f, g.f, beta.f, start, 0.2, work, d);
        ops_ref64.delta_rule_forward(o.d, S.d, s0.d, q.d, k.d, v.d, g.d, beta.d, start, 0.2, work, d);
        p->ops.delta_rule_backward(dq.f, dk.f, dv.f, dg.f, dbeta.f, dS.f, dout.f, S.f, q.f, k.f, v.f, g.f, beta.f,
                                   start, 0.2, work, d);
        ops_ref64.delta_rule_backward(dq.d, dk.d, dv.d, dg.d, dbeta.d, dS.d, dout.d, S.d, q.d, k.d, v.d, g.d, beta.d,
                                      start, 0.2, work, d);
    }
    const double chain = (double)d->T + d->K + d->V;
    const Pair *out[] = {&o, &S, &dq, &dk, &dv, &dg, &dbeta, &dS, &s0};
    static const char *const what[] = {"o", "states", "dq", "dk", "dv", "dg", "dbeta", "dS", "state"};
    for (int i = 0; i < 9; i++) check_pair(out[i], chain, what[i], p->name);
    free(work), pairs_free();
}
static const DeltaDims mixers[] = {{1, 64, 1, 1, 16, 16, 64},
                                   {2, 100, 2, 1, 16, 24, 64},
                                   {1, 150, 2, 2, 48, 48, 32},
                                   {1, 300, 2, 1, 17, 33, 256},
                                   {1, 257, 1, 1, 96, 64, 100}};
START_TEST(delta_rule_chunks) {
    const CpuPath *p = path_of(_i);
    for (int s = 0; p && s < 10; s++) {
        const DeltaDims *d = &mixers[s / 2];
        int *start = s % 2 ? starts(d->B, d->T) : NULL;
        check_mixer(p, d, DELTA, 0.3, start);
        check_mixer(p, d, DELTA, 30, start);
        free(start);
    }
}
END_TEST
START_TEST(gla_chunks) {
    const CpuPath *p = path_of(_i);
    for (int s = 0; p && s < 10; s++) {
        const DeltaDims *d = &mixers[s / 2];
        int *start = s % 2 ? starts(d->B, d->T) : NULL;
        check_mixer(p, d, GLA, 0.3, start);
        check_mixer(p, d, GLA, 30, start);
        free(start);
    }
}
END_TEST

START_TEST(kda_chunks) {
    const CpuPath *p = path_of(_i);
    for (int s = 0; p && s < 10; s++) {
        const DeltaDims *d = &mixers[s / 2];
        int *start = s % 2 ? starts(d->B, d->T) : NULL;
        check_mixer(p, d, KDA, 0.3, start);
        check_mixer(p, d, KDA, 30, start);
        free(start);
    }
}
END_TEST

START_TEST(heads_in_blocks) {
    static const HeadDims dims[] = {{70, 20, 33, 300, 16}, {200, 64, 64, 1030, 64}, {37, 8, 5, 7, 1}};
    const CpuPath *p = path_of(_i);
    for (int s = 0; p && s < 3; s++) {
        const HeadDims d = dims[s];
        const size_t nx = (size_t)d.N * d.C, nw = (size_t)d.VOC * d.C;
        const Pair x = pair(nx, 1), w = pair(nw, 1), xt = pair((size_t)d.N * d.Ct, 1),
                   wt = pair((size_t)d.VOC * d.Ct, 1), weight = pair(d.N, 1);
        const Pair loss = pair(d.N, 1), kl = pair(d.N, 1), dx = pair(nx, 1), dw = pair(nw, 1), dx2 = pair(nx, 1),
                   dw2 = pair(nw, 1);
        int *target = malloc(sizeof(int) * d.N), *top = malloc(sizeof(int) * d.N), *top_ref = malloc(sizeof(int) * d.N);
        for (int n = 0; n < d.N; n++)
            target[n] = (int)rng_below(&rng, d.VOC), weight.f[n] *= n % 3 > 0, weight.d[n] = weight.f[n];
        void *work = malloc(head_work(&d));
        p->ops.head_xent(loss.f, top, dx.f, dw.f, x.f, w.f, target, weight.f, work, &d);
        ops_ref64.head_xent(loss.d, top_ref, dx.d, dw.d, x.d, w.d, target, weight.d, work, &d);
        p->ops.head_kl(kl.f, dx2.f, dw2.f, x.f, w.f, xt.f, wt.f, weight.f, 1.5, work, &d);
        ops_ref64.head_kl(kl.d, dx2.d, dw2.d, x.d, w.d, xt.d, wt.d, weight.d, 1.5, work, &d);
        check_pair(&loss, d.VOC + d.C, "xent", p->name), check_pair(&dx, d.VOC + d.C, "xent dx", p->name),
            check_pair(&dw, d.N + d.C, "xent dw", p->name);
        check_pair(&kl, d.VOC + d.C, "kl", p->name), check_pair(&dx2, d.VOC + d.C, "kl dx", p->name),
            check_pair(&dw2, d.N + d.C, "kl dw", p->name);
        ck_assert(!memcmp(top, top_ref, sizeof(int) * d.N));
        free(work), free(target), free(top), free(top_ref), pairs_free();
    }
}
END_TEST

START_TEST(sums_are_the_reference_s) {
    static const size_t sizes[] = {0, 1, 4096, 4097, 40000, 3000001};
    for (int i = 0; i < 6; i++) {
        const Pair x = pair(sizes[i], 1);
        double a, b;
        cpu_ops32()->sum(&a, x.f, x.n), ops_ref32.sum(&b, x.f, x.n);
        ck_assert(a == b);
        enum { TENSORS = 7 }; // one of them empty, the rest of different lengths
        Trained32 list[TENSORS] = {{0}};
        double of[TENSORS], ref[TENSORS];
        for (size_t t = 0; t < TENSORS; t++) {
            const size_t from = x.n * t * t / (TENSORS * TENSORS), to = x.n * (t + 1) * (t + 1) / (TENSORS * TENSORS);
            list[t] = (Trained32){.grad = x.f + from, .n = to - from};
        }
        cpu_ops32()->sumsq(of, list, TENSORS), ops_ref32.sumsq(ref, list, TENSORS);
        ck_assert(!memcmp(of, ref, sizeof of));
        const Trained32 whole = {.grad = x.f, .n = x.n};
        cpu_ops32()->sumsq(&a, &whole, 1), ops_ref32.sumsq(&b, &whole, 1);
        ck_assert(a == b);
        pairs_free();
    }
}
END_TEST

/* The fused op is add and then rmsnorm, to the bit, on every path; sum in a place of its own, in a's or in b's. */
START_TEST(add_rmsnorm_is_two_ops) {
    static const size_t shape[][2] = {{1, 1}, {5, 33}, {3, 8}, {70, 64}, {700, 100}};
    const CpuPath *p = path_of(_i);
    if (!p) return;
    for (int i = 0; i < 5; i++)
        for (int place = 0; place < 3; place++) {
            const int N = (int)shape[i][0], C = (int)shape[i][1];
            const size_t n = shape[i][0] * shape[i][1];
            const Pair a = pair(n, 2), b = pair(n, 2), w = pair(shape[i][1], 1), sum = pair(n, 1), y = pair(n, 1),
                       y2 = pair(n, 1), r = pair(shape[i][0], 1), r2 = pair(shape[i][0], 1);
            p->ops.add(sum.f, a.f, b.f, n);
            p->ops.rmsnorm_forward(y.f, r.f, sum.f, w.f, 1e-5, N, C);
            float *fused = place == 0 ? (float *)y.d : place == 1 ? a.f : b.f;
            p->ops.add_rmsnorm_forward(fused, y2.f, r2.f, a.f, b.f, w.f, 1e-5, N, C);
            ck_assert(!memcmp(fused, sum.f, n * sizeof(float)) && !memcmp(y.f, y2.f, n * sizeof(float)));
            ck_assert(!memcmp(r.f, r2.f, shape[i][0] * sizeof(float)));
            pairs_free();
        }
}
END_TEST

/* A NaN anywhere in the inputs is in what depends on it. */
START_TEST(nan_stays) {
    const CpuPath *p = path_of(_i);
    if (!p) return;
    const AttnDims d = {1, 70, 0, 0, 1, 1, 16, 0};
    const size_t n = 70 * 16;
    const Pair q = pair(n, 1), k = pair(n, 1), v = pair(n, 1), o = pair(n, 1), lse = pair(70, 1);
    void *work = malloc(attention_work(&d));
    k.f[3 * 16 + 5] = NAN;
    p->ops.attention_forward(o.f, lse.f, q.f, k.f, v.f, NULL, 0.25, work, &d);
    for (int t = 0; t < 70; t++) ck_assert(isnan(o.f[t * 16 + 1]) == (t >= 3) && isnan(lse.f[t]) == (t >= 3));
    q.f[100] = NAN;
    p->ops.silu_forward(o.f, q.f, n);
    ck_assert(isnan(o.f[100]) && !isnan(o.f[99]));
    free(work), pairs_free();
}
END_TEST

/* ---- the same bytes whatever the threads ---- */

static void threads_run(const CpuPath *p, float *out, int threads) {
    const AttnDims a = {2, 200, 0, 0, 4, 2, 32, 0};
    const DeltaDims m = {2, 200, 4, 2, 32, 32, 64};
    const HeadDims h = {300, 96, 96, 500, 64};
    rng_seed(&rng, 5);
    cpu_threads(threads);
    const Pair x = pair(500 * 400, 1), w = pair(500 * 400, 0.1), y = pair(500 * 500, 1), g = pair(2000, 1),
               s = pair(delta_states(&m), 0.1), loss = pair(600, 1), s0 = pair(2 * 4 * 32 * 32, 0.1);
    int target[300] = {0};
    void *work = malloc(head_work(&h) + delta_rule_work(&m) + attention_work(&a));
    for (size_t i = 0; i < g.n; i++) g.f[i] = -fabsf(g.f[i]);
    p->ops.linear_forward(y.f, x.f, w.f, NULL, 500, 400, 500);
    p->ops.linear_backward(x.f, w.f, NULL, y.f, x.f + 9, w.f + 5, 400, 390, 480);
    p->ops.attention_forward(y.f, y.f + 60000, x.f, x.f + 60000, x.f + 100000, NULL, 0.2, work, &a);
    p->ops.attention_backward(w.f, w.f + 60000, w.f + 100000, x.f + 7, y.f, y.f + 60000, x.f, x.f + 60000, x.f + 100000,
                              NULL, 0.2, work, &a);
    p->ops.delta_rule_forward(y.f + 1000, s.f, s0.f, w.f, x.f, x.f + 50000, g.f, g.f, NULL, 0.1, work, &m);
    p->ops.rmsnorm_backward(w.f, w.f + 190000, x.f, y.f, x.f + 3, y.f, 900, 200);
    p->ops.head_xent(loss.f, NULL, x.f, w.f, y.f, y.f + 40000, target, NULL, work, &h);
    memcpy(out, w.f, 4 * w.n), memcpy(out + w.n, y.f, 4 * y.n), memcpy(out + w.n + y.n, x.f, 4 * x.n),
        memcpy(out + w.n + y.n + x.n, loss.f, 4 * 300);
    free(work), pairs_free();
}
START_TEST(threads_change_no_bit) {
    const CpuPath *p = path_of(_i);
    if (!p) return;
    enum { N = 2 * 500 * 400 + 500 * 500 + 300 };
    float *one = malloc(4 * N), *more = malloc(4 * N);
    threads_run(p, one, 1);
    for (int threads = 2; threads < 9; threads += 2) {
        threads_run(p, more, threads);
        ck_assert_msg(!memcmp(one, more, 4 * N), "%s: %d threads differ from one", p->name, threads);
    }
    free(one), free(more);
    cpu_threads(0);
}
END_TEST

/* ---- the pool ---- */

enum { TASKS = 5000 };
typedef struct {
    int *count;
    int nested;
} CountJob;
static void count_task(const void *job, size_t i) {
    const CountJob *j = job;
    if (j->nested) {
        const CountJob inner = {j->count + i * 10, 0};
        pool_run(10, count_task, &inner);
    } else j->count[i]++; // each by one thread only: no atomics wanted
}
static void check_counts(int rounds) {
    static _Thread_local int count[TASKS];
    for (int r = 0; r < rounds; r++) {
        memset(count, 0, sizeof count);
        const CountJob j = {count, r % 2};
        pool_run(r % 2 ? TASKS / 10 : TASKS, count_task, &j);
        for (int i = 0; i < TASKS; i++) ck_assert_int_eq(count[i], 1);
    }
}
static void *counts_thread(void *unused) {
    check_counts(100);
    return unused;
}
START_TEST(pool_runs_each_task_once) {
    cpu_threads(4);
    check_counts(200);
    pthread_t t[3]; // callers at once
    for (int i = 0; i < 3; i++) ck_assert(!pthread_create(&t[i], NULL, counts_thread, NULL));
    check_counts(100);
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    pool_run(0, count_task, NULL);
    cpu_threads(0);
}
END_TEST
START_TEST(pool_after_fork) {
    cpu_threads(3);
    check_counts(10);
    const pid_t child = fork();
    if (!child) {
        check_counts(10);
        _exit(0);
    }
    int status;
    ck_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    check_counts(10);
    cpu_threads(0);
}
END_TEST
/* Pinned threads stay on one processor each, different ones where there are enough; let go, they may use all of them
 * again. */
typedef struct {
    int cpus[2], cpu[2];
} Where;
static void where_task(const void *job, size_t i) {
    Where *w = (Where *)(size_t)job;
    cpu_set_t set;
    (void)i;
    ck_assert_int_eq(sched_getaffinity(0, sizeof set, &set), 0);
    const size_t me = pool_me();
    w->cpus[me] = CPU_COUNT(&set), w->cpu[me] = sched_getcpu();
    const double until = log_now() + 0.02; // so that the other one comes too
    while (log_now() < until) continue;
}
START_TEST(pinned_threads) {
    const int all = cpu_threads(0);
    cpu_threads(2);
    cpu_pin(1);
    Where w = {{0}, {-1, -1}};
    pool_run(8, where_task, &w);
    ck_assert_int_eq(w.cpus[0], 1);
    ck_assert_int_le(w.cpus[1], 1);
    ck_assert(all < 2 || !w.cpus[1] || w.cpu[0] != w.cpu[1]);
    ck_assert_int_eq(cpu_threads(0), all);
    cpu_threads(2);
    cpu_pin(0);
    pool_run(8, where_task, &w);
    ck_assert_int_eq(w.cpus[0], all);
}
END_TEST

START_TEST(path_by_environment) {
    const CpuPath *p = path_of(_i);
    if (!p) return;
    setenv("HYBRIDIZE_CPU", names[_i], 1); // each test is a process of its own: nothing was chosen yet
    ck_assert_str_eq(cpu_path()->name, names[_i]);
    ck_assert(cpu_path_named("mmx") == NULL);
}
END_TEST

START_TEST(unknown_path) {
    Backend *b;
    static const char *const devices[] = {"cpu", "cpu-bf16"};
    setenv("HYBRIDIZE_CPU", "sse9", 1);
    for (int i = 0; i < 2; i++) {
        Err e = {0};
        ck_assert_int_eq(backend_open(&b, devices[i], 1, &e), ERR_USAGE);
        for (int k = 0; k < PATHS; k++) ck_assert_msg(strstr(e.msg, names[k]) != NULL, "%s: %s", names[k], e.msg);
    }
    Err e = {0};
    ck_assert_int_eq(backend_open(&b, "ref32", 1, &e), OK);
    backend_close(b);
}
END_TEST

SUITE("cpu") {
    rng_seed(&rng, 1);
    GROUP("math");
    CASE(exp_to_the_ulp, .times = PATHS);
    CASE(log1p_to_the_ulp, .times = PATHS);
    GROUP("ops", .timeout = 300);
    CASE(linear_blocks, .times = PATHS);
    CASE(held_weights_give_the_same_bits, .times = PATHS);
    CASE(long_bf16_products, .times = 5);
    CASE(held_weights_without_memory_or_of_another_path, .times = PATHS);
    CASE(held_weights_are_found_again);
    CASE(attention_tiles, .times = 2 * PATHS);
    CASE(delta_rule_chunks, .times = PATHS);
    CASE(gla_chunks, .times = PATHS);
    CASE(kda_chunks, .times = PATHS);
    CASE(heads_in_blocks, .times = PATHS);
    CASE(nan_stays, .times = PATHS);
    CASE(add_rmsnorm_is_two_ops, .times = PATHS);
    CASE(threads_change_no_bit, .times = PATHS);
    CASE(sums_are_the_reference_s);
    GROUP("pool", .timeout = 120);
    CASE(pool_runs_each_task_once);
    CASE(pool_after_fork);
    CASE(pinned_threads);
    CASE(path_by_environment, .times = PATHS);
    CASE(unknown_path);
    GROUP("step", .setup = tmpdir_begin, .teardown = tmpdir_end, .timeout = 120);
    CASE(weights_are_packed_once_a_step);
}
