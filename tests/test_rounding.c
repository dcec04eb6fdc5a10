/* test_rounding.c - AdamW on bf16 weights without a float master (OptimConfig.stochastic_rounding), on the emulated
 * GPU: the bits that the contract promises, no bias, training like with masters where rounding to nearest stands still,
 * resumed runs in the same bytes, the bytes that it saves, and a usage error where weights are not bf16. */
#include <math.h>
#include <signal.h>
#include "cuda/cuda_backend.h"
#include "method/distill.h"
#include "run/train_run.h"
#include "run/memory.h"
#include "tests/suite.h"
#include "tests/gpu/model_check.h"
#include "tiny.h"

static const char *const BF16 = "cuda-emu-bf16";
static void setup(void) { tmpdir_begin(); }
static void teardown(void) { tmpdir_end(); }
static Backend *opened(const char *name) {
    Backend *b;
    Err e = {0};
    must(backend_open(&b, name, 1, &e), &e);
    return b;
}

/* ---------------------------------------------------------------- the op */

static uint32_t float_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
static float float_of(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
/* The 16 random bits of the contract, written from its text. */
static uint32_t random_bits(uint64_t seed, uint64_t step, uint64_t tensor, uint64_t i) {
    const uint64_t phi = UINT64_C(0x9e3779b97f4a7c15), add[4] = {seed + phi, step, tensor, i / 4 * phi};
    uint64_t z = 0;
    for (int k = 0; k < 4; k++) {
        z = k == 1 ? z ^ add[k] : z + add[k];
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
    }
    return z >> 16 * (i % 4) & 0xffff;
}

/* n weights, all `start`, cut into `tensors`; one step with no gradient, so that p = start (1 - lr decay).
 * Weights as bits. */
static void decayed(Backend *b, uint16_t *w, float start, double shrink, size_t n, int tensors, int64_t step,
                    uint64_t seed) {
    Trained *list = calloc((size_t)tensors, sizeof *list);
    void *weight, *zero;
    Err e = {0};
    must(b->alloc(b, &weight, n * 2, "weights", &e), &e);
    must(b->alloc(b, &zero, n * 4, "zeros", &e), &e);
    for (size_t i = 0; i < n; i++) w[i] = (uint16_t)(float_bits(start) >> 16);
    b->upload(b, weight, w, n * 2);
    for (int t = 0; t < tensors; t++) {
        const size_t from = n * (size_t)t / (size_t)tensors, to = n * ((size_t)t + 1) / (size_t)tensors;
        list[t] = (Trained){.weight = real_at(b, weight, from),
                            .m = wide_at(b, zero, from),
                            .v = wide_at(b, zero, from),
                            .grad = wide_at(b, zero, from),
                            .n = to - from,
                            .lr = 1,
                            .decay = shrink};
    }
    b->op->adamw(list, 1, 0.9, 0.95, 1e-8, step, seed, tensors);
    b->download(b, w, weight, n * 2);
    must(b->sync(b, &e), &e);
    b->release(b, weight);
    b->release(b, zero);
    free(list);
}

/* 130 tensors of odd lengths are three launches: what an element gets does not depend on where it is computed. */
START_TEST(bits_are_the_contract_s) {
    enum { N = 5003 };
    static const int pieces[3] = {1, 7, 130};
    uint16_t w[N];
    Backend *b = opened(BF16);
    const int tensors = pieces[_i];
    const float p = -0.7f, start = float_of(float_bits(p) & 0xffff0000u);
    const double shrink = 0.001;
    const float moved = start * (float)(1 - shrink);
    size_t up = 0;
    decayed(b, w, start, shrink, N, tensors, 41, 5);
    for (int t = 0; t < tensors; t++)
        for (size_t from = N * (size_t)t / (size_t)tensors, i = from; i < N * ((size_t)t + 1) / (size_t)tensors; i++) {
            const uint32_t want = (float_bits(moved) + random_bits(5, 41, (uint64_t)t, i - from)) >> 16;
            ck_assert_msg(w[i] == want, "tensor %d element %zu: %04x, expected %04x", t, i - from, w[i], want);
            up += want != float_bits(moved) >> 16;
        }
    ck_assert(up > N / 10 && up < N * 9 / 10); // both neighbours occur
    backend_close(b);
}
END_TEST

/* The mean of many roundings is the number itself, within 4 standard errors of the mean, at several places between two
 * neighbours. */
START_TEST(no_bias) {
    enum { N = 20000, STEPS = 5 };
    static uint16_t w[N];
    Backend *b = opened(BF16);
    const double shrink = ldexp(1 + 2 * _i, -12); // 1/16, 3/16, ... of the 2^-8 between bf16 neighbours below 1
    const float p = (float)(1 - shrink);
    double sum = 0;
    for (int step = 1; step <= STEPS; step++) {
        decayed(b, w, 1, shrink, N, 3, step, 9);
        for (int i = 0; i < N; i++) {
            ck_assert(w[i] == 0x3f80 || w[i] == 0x3f7f); // 1 or the one below
            sum += float_of((uint32_t)w[i] << 16);
        }
    }
    const double chance = shrink * 256, n = (double)N * STEPS, error = sqrt(chance * (1 - chance) / n) / 256;
    ck_assert_msg(fabs(sum / n - p) < 4 * error, "mean %.9g of %.9g, standard error %g", sum / n, p, error);
    ck_assert(sum / n != 1);
    backend_close(b);
}
END_TEST

START_TEST(special_values_stay) {
    uint16_t w[16];
    Backend *b = opened(BF16);
    decayed(b, w, INFINITY, 0.5, 16, 1, 1, 1);
    for (int i = 0; i < 16; i++) ck_assert_uint_eq(w[i], 0x7f80);
    decayed(b, w, 0, 0.5, 16, 1, 1, 1);
    for (int i = 0; i < 16; i++) ck_assert_uint_eq(w[i], 0);
    decayed(b, w, -2, 0.5, 16, 1, 1, 1); // -1 is a bf16 number: no chance
    for (int i = 0; i < 16; i++) ck_assert_uint_eq(w[i], 0xbf80);
    backend_close(b);
}
END_TEST

/* ---------------------------------------------------------------- training */

enum { MASTERS, STOCHASTIC, NEAREST };
typedef struct {
    Optim *o;
    Backend *be;
} Forget;
/* Rounding to nearest without masters: the masters forget what the weights do not hold. */
static int forget_visit(void *ctx, const ParamInfo *info, Param *slot, size_t at) {
    const Forget *f = ctx;
    Err e = {0};
    if (!optim_has_master(f->o, info)) return OK;
    float *x = malloc(info->n * sizeof *x);
    must(real_get(f->be, DT_F32, x, slot->w, info->n, &e), &e);
    must(wide_put(f->be, wide_at(f->be, f->o->master, at), DT_F32, x, info->n, &e), &e);
    free(x);
    return OK;
}
/* How far `steps` steps on one batch bring the loss down, at a learning rate below half a unit of the last place of
 * most weights. */
static double learned(int how, int steps) {
    const char *const layers[] = {"softmax", "gdn_v4"};
    const Config c = model_small(layers, 2, 24, 4, 2, 8, 40, 50);
    const OptimConfig oc = {.lr = 3e-5,
                            .lr_attn = 3e-5,
                            .beta1 = 0.9,
                            .beta2 = 0.95,
                            .eps = 1e-8,
                            .seed = 4,
                            .stochastic_rounding = how == STOCHASTIC};
    enum { B = 2, T = 21 };
    int ids[B * T], target[B * T];
    ModelRun r;
    Optim o;
    Err e = {0};
    double first = 0, loss = 0, norm, lr;
    must(model_run_open(&r, BF16, &c, B, T, 8, &e), &e);
    must(optim_open(&o, &r.m, &oc, &e), &e);
    model_zero_grad(&r.m);
    model_batch(ids, target, NULL, B, T, c.VOC, 100);
    must(pass_input(&r.p, &r.m, ids, NULL, &e), &e);
    for (int i = 0; i <= steps; i++) {
        model_forward(&r.m, &r.p);
        must(loss_xent(&r.l, &r.m, &r.p, target, NULL, 1, &loss, NULL, NULL, &e), &e);
        if (i == 0) first = loss;
        if (i == steps) break;
        model_backward(&r.m, &r.p, r.l.dh);
        must(optim_step(&o, steps, &norm, &lr, &e), &e);
        model_zero_grad(&r.m);
        Forget f = {&o, r.be};
        if (how == NEAREST) optim_walk(&o, forget_visit, &f);
    }
    optim_close(&o);
    model_run_close(&r);
    return first - loss;
}
START_TEST(trains_where_nearest_stalls) {
    const double masters = learned(MASTERS, 20), chance = learned(STOCHASTIC, 20), nearest = learned(NEAREST, 20);
    if (getenv("VERBOSE")) printf("masters %g stochastic %g nearest %g\n", masters, chance, nearest);
    ck_assert_msg(masters > 0, "%g", masters);
    ck_assert_msg(fabs(chance - masters) < 0.25 * masters, "stochastic %g, masters %g", chance, masters);
    ck_assert_msg(nearest < 0.5 * masters, "nearest %g, masters %g", nearest, masters);
}
END_TEST

static const int keep[3] = {0, 1, 0};
static StageOptions stage(int64_t steps) {
    StageOptions s = {.steps = steps, .batch_size = 2, .micro_batch_size = 2, .train_seq_len = 16};
    s.optim = (OptimConfig){.lr = 1e-4,
                            .lr_attn = 3e-4,
                            .beta1 = 0.9,
                            .beta2 = 0.95,
                            .eps = 1e-8,
                            .clip = 1,
                            .stochastic_rounding = 1,
                            .seed = 8};
    return s;
}
/* Six steps, paused after `until`; the bytes of all weights. */
static unsigned char *trained_to(const char *dir, int64_t until, uint64_t seed, size_t *n, TrainResult *r) {
    Tiny t;
    Model s;
    Distill d;
    Err e = {0};
    StageOptions st = stage(6);
    st.optim.seed = seed;
    tiny_open(&t, BF16, 1, 3, place("text.tok"));
    tiny_student(&s, &t, keep, GRAD_ALL);
    must(distill_open(&d, &s, NULL, &t.text, &st, 1, 0, &e), &e);
    const Task task = distill_task(&d, "test");
    const TrainOptions o = {.stage = st, .dir = dir, .until = until};
    must(train_run(&task, &o, r, &e), &e);
    distill_close(&d);
    unsigned char *w = tiny_dump(&s, n);
    model_close(&s);
    tiny_close(&t);
    return w;
}
START_TEST(resumes_to_the_bit) {
    TrainResult r;
    size_t n, m, k;
    const char *parts = place("parts");
    unsigned char *whole = trained_to(place("whole"), 0, 8, &n, &r), *half = trained_to(parts, 3, 8, &m, &r);
    ck_assert_int_eq(r.step, 3);
    ck_assert(memcmp(whole, half, n) != 0);
    unsigned char *rest = trained_to(parts, 0, 8, &m, &r), *other = trained_to(place("other"), 0, 7, &k, &r);
    ck_assert_uint_eq(n, m);
    ck_assert(memcmp(whole, rest, n) == 0);
    ck_assert(memcmp(whole, other, n) != 0); // another seed, other bits
    mem_free(whole), mem_free(half), mem_free(rest), mem_free(other);
}
END_TEST

/* ---------------------------------------------------------------- memory, and where there is nothing to round */

typedef struct {
    size_t n;
} Narrow;
static int narrow_visit(void *ctx, const ParamInfo *info, Param *slot) {
    if (slot->g && !info->wide) ((Narrow *)ctx)->n += info->n;
    return OK;
}
START_TEST(saves_four_bytes_a_weight) {
    const char *const layers[] = {"softmax", "gdn_v4"};
    // every tensor a whole number of cache lines but the gates' few numbers
    const Config c = model_small(layers, 2, 32, 4, 2, 8, 48, 64);
    Backend *b = opened(BF16);
    StageOptions with = stage(1), without = stage(1);
    MemoryPlan big = {0}, small = {0};
    Model m;
    Optim o;
    Narrow k = {0};
    Err e = {0};
    char text[512];
    size_t before, now, peak;
    with.optim.stochastic_rounding = 0;
    must(memory_trained(&big, b, &c, GRAD_ALL, &with, 0, 0, &e), &e);
    must(memory_trained(&small, b, &c, GRAD_ALL, &without, 0, 0, &e), &e);
    must(model_open(&m, &c, b, GRAD_ALL, &e), &e);
    params_walk(&m.c, &m.p, narrow_visit, &k);
    const size_t saved = memory_total(&big) - memory_total(&small);
    ck_assert_uint_ge(saved, 4 * k.n);
    ck_assert_uint_lt(saved, 4 * k.n + 4 * k.n / 20); // and what the arena rounds up
    memory_text(&small, text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "optimiser without masters"));
    cuda_emu_backend_memory(b, &before, &peak);
    must(optim_open(&o, &m, &without.optim, &e), &e);
    cuda_emu_backend_memory(b, &now, &peak);
    ck_assert_uint_eq(now - before, optim_bytes(&m, &without.optim));
    ck_assert_ptr_null(o.master);
    optim_close(&o);
    model_close(&m);
    backend_close(b);
}
END_TEST

START_TEST(float_weights_refuse_it) {
    static const char *const names[] = {"ref64", "ref32", "cpu", "cuda-emu"};
    const char *const layers[] = {"softmax", "gdn_v4"};
    const Config c = model_small(layers, 2, 24, 4, 2, 8, 40, 50);
    Backend *b = opened(names[_i]);
    const StageOptions st = stage(1);
    MemoryPlan plan = {0};
    Model m;
    Optim o;
    Err e = {0}, early = {0};
    must(model_open(&m, &c, b, GRAD_ALL, &e), &e);
    ck_assert_int_eq(optim_open(&o, &m, &st.optim, &e), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(e.msg, "stochastic_rounding"));
    ck_assert_ptr_nonnull(strstr(e.msg, names[_i]));
    optim_close(&o);
    ck_assert_int_eq(memory_trained(&plan, b, &c, GRAD_ALL, &st, 0, 0, &early), ERR_USAGE);
    model_close(&m);
    backend_close(b);
}
END_TEST

SUITE("rounding") {
    backend_register("cuda-emu", cuda_emu_backend_open);
    GROUP("all", .setup = setup, .teardown = teardown, .timeout = 200);
    CASE(bits_are_the_contract_s, .times = 3);
    CASE(no_bias, .times = 8);
    CASE(special_values_stay);
    CASE(trains_where_nearest_stalls);
    CASE(resumes_to_the_bit);
    CASE(saves_four_bytes_a_weight);
    CASE(float_weights_refuse_it, .times = 4);
}
