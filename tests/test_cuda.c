/* test_cuda.c - the kernels of cuda/ on the emulator: every op in both precisions through the same checks as every
 * other backend (tools/opcheck.h), shapes that only the fast versions take, and the backend itself. No GPU is needed.
 * */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "cuda/cuda_backend.h"
#include "gpu/model_check.h"
#include "method/loss.h"
#include "run/memory.h"
#include "method/optim.h"
#include "method/transfer.h"
#include "model/generate.h"
#include "tools/bench_steps.h"
#include "tools/opcheck.h"
#include "tests/kl_exact.h"
#include "tests/suite.h"

typedef struct {
    int lines, failed;
    double bound; /* on the relative error of a tensor, besides opcheck's own tolerance; 0: none */
    char first[512];
} Tally;
static void tally(void *ctx, const OpResult *r) {
    Tally *t = ctx;
    t->lines++;
    const int far = t->bound > 0 && !r->problem && !(r->c.rel <= t->bound);
    if ((!opresult_failed(r) && !far) || t->failed++) return;
    snprintf(t->first, sizeof t->first, "%s %s %s: %s: %s, error %.3g, tolerance %.3g, at %s: got %.9g, expected %.9g",
             r->op, r->check, r->shape, r->tensor, r->problem ? r->problem : compare_word(&r->c), r->c.rel, r->tol,
             r->index, r->c.a, r->c.r);
}
static void check_op(const char *backend, const char *op, const char *shape, unsigned seed, double bound) {
    Tally t = {.bound = bound};
    Err e = {0};
    const OpcheckOptions o = {.op = op, .shape = shape, .backend = backend, .seed = seed};
    cuda_emu_seed(seed);
    const int rc = opcheck_run(&o, tally, &t, &e);
    ck_assert_msg(rc == OK, "%s %s: %s", op, shape ? shape : "", e.msg);
    ck_assert_msg(t.failed == 0, "%d of %d failed, seed %u: %s", t.failed, t.lines, seed, t.first);
    ck_assert_int_gt(t.lines, 0);
}

#ifdef __SANITIZE_ADDRESS__
enum { SEEDS = 1 }; // what a sanitizer sees does not depend on the numbers; the plain build takes both
#else
enum { SEEDS = 2 };
#endif
START_TEST(op_in_float) {
    for (unsigned s = 1; s <= SEEDS; s++) check_op("cuda-emu", opcheck_name(_i), NULL, s, 0);
}
END_TEST
START_TEST(op_in_bf16) {
    for (unsigned s = 1; s <= SEEDS; s++) check_op("cuda-emu-bf16", opcheck_name(_i), NULL, s, 0);
}
END_TEST

/* Shapes that the table's cases are too small for: the versions on the matrix unit, packs and their ends, more than one
 * tile. */
static const struct {
    const char *op, *shape;
} FAST[] = {
    {"attention", "B=1,T=100,H=2,Hk=1,D=64"},
    {"attention", "B=2,T=70,H=2,Hk=2,D=64,window=30"},
    {"attention", "B=1,T=65,H=2,Hk=1,D=128"},
    {"attention", "B=1,T=5,H=2,Hk=1,D=64,past=130"},
    {"delta_rule", "B=1,T=130,H=2,Hk=1,K=64,V=64,chunk=64"},
    {"delta_rule", "B=1,T=70,H=1,Hk=1,K=128,V=128,chunk=64"},
    {"delta_rule", "B=2,T=1,H=1,Hk=1,K=64,V=64,chunk=64"},
    {"delta_rule", "B=1,T=1,H=2,Hk=1,K=100,V=40,chunk=1"},
    {"attention", "B=2,T=1,H=10,Hk=1,D=64,past=600"},
    {"attention", "B=1,T=1,H=4,Hk=2,D=20,past=700,window=300"},
    {"gla", "B=1,T=70,H=2,Hk=1,K=64,V=64,chunk=64"},
    {"gla", "B=1,T=100,H=1,Hk=1,K=64,V=64,chunk=64,hard=1"},
    {"gla", "B=1,T=65,H=2,Hk=2,K=128,V=64,chunk=64"},
    {"gla", "B=1,T=65,H=1,Hk=1,K=64,V=128,chunk=64"},
    {"gla", "B=1,T=9,H=2,Hk=1,K=170,V=70,chunk=4"},
    {"gla", "B=2,T=1,H=2,Hk=1,K=64,V=64,chunk=64"},
    /* one long document: the draws of `start` cut the others into pieces of about five tokens; hard=2:
     * nothing decays */
    {"attention", "B=1,T=150,H=1,Hk=1,D=64,-start"},
    {"delta_rule", "B=1,T=70,H=1,Hk=1,K=64,V=64,chunk=64,-start"},
    {"delta_rule", "B=1,T=70,H=1,Hk=1,K=64,V=64,chunk=64,hard=2,-start"},
    {"gla", "B=1,T=130,H=1,Hk=1,K=64,V=64,chunk=64,-start"},
    {"gla", "B=1,T=70,H=1,Hk=1,K=64,V=64,chunk=64,hard=2,-start"},
    {"gla", "B=1,T=70,H=1,Hk=1,K=64,V=64,chunk=64,hard=1,-start"},
    {"kda", "B=1,T=70,H=2,Hk=1,K=64,V=64,chunk=64"},
    {"kda", "B=1,T=100,H=1,Hk=1,K=64,V=64,chunk=64,hard=1"},
    {"kda", "B=1,T=65,H=1,Hk=1,K=128,V=128,chunk=64"},
    {"kda", "B=1,T=65,H=1,Hk=1,K=64,V=128,chunk=64"},
    {"kda", "B=2,T=1,H=4,Hk=2,K=100,V=40,chunk=64"},
    {"kda", "B=1,T=130,H=1,Hk=1,K=64,V=64,chunk=64,-start"},
    {"kda", "B=1,T=70,H=1,Hk=1,K=64,V=64,chunk=64,hard=2,-start"},
    {"kda", "B=1,T=70,H=1,Hk=1,K=64,V=64,chunk=64,hard=1,-start"},
    {"linear", "N=70,I=65,O=67"},
    {"rmsnorm", "N=130,C=300"},
    {"add_rmsnorm", "N=130,C=300"},
    {"embed", "N=300,C=9,VOC=4"},
};
/* Storing results in bf16 alone is an error of 1.7e-3 (2^-8 / sqrt(12) and a half of it again for the spread);
 * products of rounded operands may add up to three times that, and adding the same gradient twice half as much again.
 * */
START_TEST(fast_shape_in_bf16) { check_op("cuda-emu-bf16", FAST[_i].op, FAST[_i].shape, 7, 4.5 * 1.7e-3); }
END_TEST
START_TEST(fast_shape_in_float) { check_op("cuda-emu", FAST[_i].op, FAST[_i].shape, 7, 0); }
END_TEST

/* The regimes (tools/opcheck_regime.c) at a size that the kernels on the matrix unit take: a chunk and a rest. */
static const char *const REGIMES[] = {"no-decay",        "weak-decay",        "decay-5",     "decay-20",
                                      "decay-50",        "decay-200",         "mixed-decay", "beta-2",
                                      "keys-orthogonal", "keys-unnormalised", "final-state", "large-state"};
enum { REGIME_COUNT = sizeof REGIMES / sizeof *REGIMES };
START_TEST(regime_in_bf16) {
    static const char *const scans[] = {"delta_rule", "gla", "kda"};
    const char *op = scans[_i / REGIME_COUNT], *regime = REGIMES[_i % REGIME_COUNT];
    Tally t = {0};
    Err e = {0};
    if (!strcmp(op, "gla") && !strcmp(regime, "beta-2")) return; // it has no beta
    const OpcheckOptions o = {.op = op,
                              .regime = regime,
                              .shape = "B=1,T=70,H=1,Hk=1,K=64,V=64,chunk=64",
                              .backend = "cuda-emu-bf16",
                              .seed = 1};
    ck_assert_msg(opcheck_run(&o, tally, &t, &e) == OK, "%s %s: %s", op, regime, e.msg);
    ck_assert_msg(t.failed == 0, "%d of %d failed: %s", t.failed, t.lines, t.first);
    ck_assert_int_gt(t.lines, 10);
}
END_TEST

/* The rungs of cuda/LADDER.md, each by its number: tails of tiles, groups, windows, documents, a cache, two heads
 * sizes. */
START_TEST(rung_in_bf16) {
    static const char *const shapes[] = {"B=1,T=100,H=2,Hk=1,D=64",
                                         "B=2,T=70,H=2,Hk=2,D=64,window=30",
                                         "B=1,T=65,H=2,Hk=1,D=128",
                                         "B=1,T=5,H=2,Hk=1,D=64,past=130",
                                         "B=1,T=300,H=1,Hk=1,D=64,window=140,-start",
                                         "B=1,T=300,H=2,Hk=1,D=128,-start"};
    const char rung[2] = {(char)('1' + _i), 0};
    setenv("HYB_CUDA_VERSION", rung, 1);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_op("cuda-emu-bf16", "attention", shapes[i], 7 + (unsigned)_i, 4.5 * 1.7e-3);
    unsetenv("HYB_CUDA_VERSION");
}
END_TEST

/* A rung that does not exist is refused, not taken for the best one. */
START_TEST(unknown_rung) {
    static const char *const values[] = {"7", "0", "", "wgmma", "12"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        Backend *b;
        Err e = {0};
        setenv("HYB_CUDA_VERSION", values[i], 1);
        ck_assert_int_eq(backend_open(&b, "cuda-emu", 1, &e), ERR_USAGE);
        ck_assert_ptr_nonnull(strstr(e.msg, "expected 1, 2, 3, 4, 5 or 6"));
    }
}
END_TEST

/* The bounds are worth something: any one result a tenth too large fails, of every op, in both precisions. */
typedef struct {
    int n, caught[32];
    char name[32][24];
} Tensors;
static void tensors(void *ctx, const OpResult *r) {
    Tensors *t = ctx;
    char name[24];
    int i = 0;
    if (r->problem || r->c.rel == INFINITY || r->c.r == 0) return; /* all zero: nothing to be too large */
    snprintf(name, sizeof name, "%.*s", (int)strcspn(r->tensor, " "), r->tensor);
    while (i < t->n && strcmp(t->name[i], name) != 0) i++;
    if (i == t->n && i < 32) snprintf(t->name[t->n++], sizeof t->name[0], "%s", name);
    t->caught[i] += opresult_failed(r);
}
static void tenth_fails(const char *backend, const char *op, const char *shape) {
    Tensors all = {0};
    Err e = {0};
    OpcheckOptions o = {.op = op, .shape = shape, .backend = backend, .seed = 5};
    ck_assert_int_eq(opcheck_run(&o, tensors, &all, &e), OK);
    ck_assert_int_gt(all.n, 0);
    for (int i = 0; i < all.n; i++) {
        Tensors now = {0};
        int caught = 0;
        o.inject_error = all.name[i];
        ck_assert_int_eq(opcheck_run(&o, tensors, &now, &e), OK);
        for (int k = 0; k < now.n; k++) caught += !strcmp(now.name[k], all.name[i]) && now.caught[k];
        ck_assert_msg(caught || !strcmp(all.name[i], "top"), "%s %s: %s a tenth too large passed", op, shape,
                      all.name[i]);
    }
}
START_TEST(a_tenth_fails) {
    for (int bits = 0; bits < 2; bits++)
        tenth_fails(bits ? "cuda-emu-bf16" : "cuda-emu", opcheck_name(_i), opcheck_keys(_i));
}
END_TEST
START_TEST(a_tenth_fails_in_fast_versions) {
    tenth_fails("cuda-emu-bf16", "attention", "B=1,T=70,H=2,Hk=1,D=64");
    tenth_fails("cuda-emu-bf16", "delta_rule", "B=1,T=70,H=1,Hk=1,K=64,V=64,chunk=64");
    tenth_fails("cuda-emu-bf16", "gla", "B=1,T=70,H=1,Hk=1,K=64,V=64,chunk=64");
    tenth_fails("cuda-emu-bf16", "kda", "B=1,T=70,H=1,Hk=1,K=64,V=64,chunk=64");
}
END_TEST

static Backend *opened(const char *name) {
    Backend *b = NULL;
    Err e = {0};
    ck_assert_msg(backend_open(&b, name, 0, &e) == OK, "%s", e.msg);
    return b;
}
START_TEST(names) {
    static const char *const good[] = {"cuda-emu", "cuda-emu:0", "cuda-emu-bf16", "cuda-emu-bf16:0"},
                             *const bad[] = {"cuda-emu-f64", "cuda-emu:x", "cuda-emu:"};
    for (int i = 0; i < 4; i++) {
        Backend *b = opened(good[i]);
        ck_assert_str_eq(b->name, good[i]);
        ck_assert_uint_eq(b->real_size, i < 2 ? 4 : 2);
        ck_assert_int_eq(b->real_type, i < 2 ? DT_F32 : DT_BF16);
        ck_assert_int_eq(b->wide_type, DT_F32);
        backend_close(b);
    }
    for (int i = 0; i < 3; i++) {
        Backend *b;
        Err e = {0};
        ck_assert_int_eq(backend_open(&b, bad[i], 0, &e), ERR_USAGE);
        ck_assert_ptr_null(b);
    }
    Backend *b;
    Err e = {0};
    ck_assert_int_eq(backend_open(&b, "cuda-emu:1", 0, &e), ERR_DEVICE);
}
END_TEST

START_TEST(memory_is_zeroed_and_counted) {
    Backend *b = opened("cuda-emu");
    Err e = {0};
    void *p[100];
    size_t now, peak;
    unsigned char host[1000];
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(b->alloc(b, &p[i], (size_t)i * 10, "a block", &e), OK);
        b->download(b, host, p[i], (size_t)i * 10);
        for (int j = 0; j < i * 10; j++) ck_assert_int_eq(host[j], 0);
    }
    cuda_emu_backend_memory(b, &now, &peak);
    ck_assert_uint_eq(now, 49500);
    for (int i = 0; i < 50; i++) b->release(b, p[i]);
    b->release(b, NULL);
    cuda_emu_backend_memory(b, &now, &peak);
    ck_assert_uint_eq(now, 49500 - 12250);
    ck_assert_uint_eq(peak, 49500);
    ck_assert_int_eq(b->sync(b, &e), OK);
    backend_close(b); /* gives back what is left */
}
END_TEST

START_TEST(move_may_overlap) {
    enum { BYTES = 40 << 20, STEP = 4096 };
    Backend *b = opened("cuda-emu");
    Err e = {0};
    void *p;
    unsigned char *host = malloc(BYTES), *want = malloc(BYTES);
    ck_assert(host != NULL && want != NULL);
    ck_assert_int_eq(b->alloc(b, &p, BYTES, "a block", &e), OK);
    for (int way = 0; way < 2; way++) {
        for (size_t i = 0; i < BYTES; i++) host[i] = want[i] = (unsigned char)(i * 2654435761u >> 13);
        b->upload(b, p, host, BYTES);
        b->move(b, (char *)p + (way ? STEP : 0), (char *)p + (way ? 0 : STEP), BYTES - STEP);
        memmove(want + (way ? STEP : 0), want + (way ? 0 : STEP), BYTES - STEP);
        b->download(b, host, p, BYTES);
        ck_assert(memcmp(host, want, BYTES) == 0);
    }
    ck_assert_int_eq(b->sync(b, &e), OK);
    backend_close(b);
    free(host), free(want);
}
END_TEST

/* The fused op is add and then rmsnorm, to the bit, in both precisions: packs and ends of rows, sum in a place of its
 * own or in a's. */
START_TEST(add_rmsnorm_is_two_ops) {
    static const int shape[][2] = {{1, 1}, {5, 33}, {3, 8}, {9, 300}, {4, 2048}};
    Backend *b = opened(_i ? "cuda-emu-bf16" : "cuda-emu");
    for (int k = 0; k < 5; k++) {
        const int N = shape[k][0], C = shape[k][1];
        const size_t n = (size_t)N * C, bytes = n * b->real_size;
        Err e = {0};
        void *p[7]; /* a, b, w, sum, y, rstd, y of the fused op */
        float *host = malloc(n * sizeof *host);
        char *got[3], *want[3];
        for (int i = 0; i < 7; i++) ck_assert_int_eq(b->alloc(b, &p[i], n * 4, "a block", &e), OK);
        for (int i = 0; i < 3; i++) {
            for (size_t j = 0; j < n; j++) host[j] = (float)((j * 7919 + (size_t)i * 31 + 13) % 1009) / 500.0f - 1.0f;
            ck_assert_int_eq(real_put(b, p[i], DT_F32, host, n, &e), OK);
            got[i] = calloc(n, 4), want[i] = calloc(n, 4);
        }
        b->op->add(p[3], p[0], p[1], n);
        b->op->rmsnorm_forward(p[4], p[5], p[3], p[2], 1e-5, N, C);
        b->download(b, want[0], p[3], bytes), b->download(b, want[1], p[4], bytes),
            b->download(b, want[2], p[5], (size_t)N * 4);
        for (int inplace = 0; inplace < 2; inplace++) { /* the second changes a */
            b->op->add_rmsnorm_forward(inplace ? p[0] : p[3], p[6], p[5], p[0], p[1], p[2], 1e-5, N, C);
            b->download(b, got[0], inplace ? p[0] : p[3], bytes), b->download(b, got[1], p[6], bytes),
                b->download(b, got[2], p[5], (size_t)N * 4);
            for (int i = 0; i < 3; i++) ck_assert(!memcmp(got[i], want[i], i < 2 ? bytes : (size_t)N * 4));
        }
        ck_assert_msg(b->sync(b, &e) == OK, "%s", e.msg);
        for (int i = 0; i < 7; i++) b->release(b, p[i]);
        for (int i = 0; i < 3; i++) free(got[i]), free(want[i]);
        free(host);
    }
    backend_close(b);
}
END_TEST

/* A device that does nothing until it must: the host overwrites its batch at once, and goes round the pinned memory
 * several times. */
START_TEST(slow_device_sees_every_batch) {
    enum { N = 16384, BATCHES = 70 };
    cuda_emu_defer(1);
    Backend *b = opened("cuda-emu-bf16");
    Err e = {0};
    void *ids, *kept;
    int *host = malloc(N * sizeof *host), *got = malloc(N * sizeof *got);
    ck_assert_int_eq(b->alloc(b, &ids, N * sizeof(int), "ids", &e), OK);
    ck_assert_int_eq(b->alloc(b, &kept, (size_t)N * BATCHES * sizeof(int), "what each step read", &e), OK);
    for (int k = 0; k < BATCHES; k++) {
        for (int i = 0; i < N; i++) host[i] = k * N + i;
        b->upload(b, ids, host, N * sizeof(int) - (size_t)k % 3 * 4); /* odd lengths too */
        b->move(b, (int *)kept + (size_t)k * N, ids, N * sizeof(int));
    }
    memset(host, 0xff, N * sizeof *host);
    for (int k = 0; k < BATCHES; k++) {
        b->download(b, got, (int *)kept + (size_t)k * N, N * sizeof(int));
        for (int i = 0; i < N - k % 3; i++)
            ck_assert_msg(got[i] == k * N + i, "batch %d: element %d is %d", k, i, got[i]);
    }
    ck_assert_int_eq(b->sync(b, &e), OK);
    backend_close(b);
    cuda_emu_defer(0);
    free(host), free(got);
}
END_TEST
START_TEST(slow_device_trains_the_same) {
    enum { STEPS = 3 };
    const char *const layers[] = {"softmax", "gdn_v4"};
    const Config c = model_small(layers, 2, 24, 4, 2, 8, 40, 50);
    Err e = {0};
    double at_once[STEPS], late[STEPS];
    ck_assert_msg(model_train("cuda-emu-bf16", &c, 2, 21, 8, STEPS, at_once, &e) == OK, "%s", e.msg);
    cuda_emu_defer(1);
    ck_assert_msg(model_train("cuda-emu-bf16", &c, 2, 21, 8, STEPS, late, &e) == OK, "%s", e.msg);
    cuda_emu_defer(0);
    ck_assert(!memcmp(at_once, late, sizeof late));
}
END_TEST

/* Without chunk states (inference) a mixer gives the same bits: the versions on the matrix unit, the recurrence,
 * one token. */
static void *device_numbers(Backend *b, size_t n, size_t size, double lowest, double highest) {
    Err e = {0};
    void *p;
    Rng g;
    uint32_t *x = malloc(n * sizeof *x);
    rng_seed(&g, (unsigned)n);
    for (size_t i = 0; i < n; i++) {
        const float f = (float)(lowest + (highest - lowest) * rng_uniform(&g));
        uint32_t u;
        memcpy(&u, &f, 4);
        if (size == 2) ((uint16_t *)x)[i] = (uint16_t)(u >> 16);
        else x[i] = u;
    }
    ck_assert_int_eq(b->alloc(b, &p, n * size, "numbers", &e), OK);
    b->upload(b, p, x, n * size);
    free(x);
    return p;
}
START_TEST(states_need_not_be_kept) {
    static const DeltaDims dims[] = {{1, 70, 2, 1, 64, 64, 64}, {2, 5, 2, 1, 8, 6, 4}, {2, 1, 2, 2, 16, 8, 1}};
    for (int bits = 0; bits < 2; bits++)
        for (int s = 0; s < 9; s++) {
            const DeltaDims *d = &dims[s % 3];
            Backend *b = opened(bits ? "cuda-emu-bf16" : "cuda-emu");
            Err e = {0};
            const size_t nk = (size_t)d->B * d->T * d->H * d->K, nv = (size_t)d->B * d->T * d->H * d->V,
                         nS = (size_t)d->B * d->H * d->K * d->V;
            Real *q = device_numbers(b, nk, b->real_size, -0.3, 0.3),
                 *k = device_numbers(b, nk, b->real_size, -0.2, 0.3), *v = device_numbers(b, nv, b->real_size, -1, 1),
                 *kept = device_numbers(b, delta_states(d), b->real_size, 0, 0);
            Wide *g = device_numbers(b, nk, 4, -0.5, 0), *beta = device_numbers(b, nk, 4, 0, 1);
            void *work = device_numbers(b, kda_work(d) / 4, 4, 0, 0);
            unsigned char *got[2][2]; /* o and the final state, states kept or not */
            for (int way = 0; way < 2; way++) {
                Real *o = device_numbers(b, nv, b->real_size, 9, 9), *states = way ? NULL : kept;
                Wide *state = device_numbers(b, nS, 4, -1, 1);
                if (s / 3 == 0) b->op->delta_rule_forward(o, states, state, q, k, v, g, beta, NULL, 0.5, work, d);
                if (s / 3 == 1) b->op->gla_forward(o, states, state, q, k, v, g, NULL, 0.5, work, d);
                if (s / 3 == 2) b->op->kda_forward(o, states, state, q, k, v, g, beta, NULL, 0.5, work, d);
                ck_assert_msg(b->sync(b, &e) == OK, "%s", e.msg);
                got[way][0] = malloc(nv * b->real_size), got[way][1] = malloc(nS * 4);
                b->download(b, got[way][0], o, nv * b->real_size);
                b->download(b, got[way][1], state, nS * 4);
            }
            ck_assert_msg(!memcmp(got[0][0], got[1][0], nv * b->real_size), "o, case %d, %d", bits, s);
            ck_assert_msg(!memcmp(got[0][1], got[1][1], nS * 4), "state, case %d, %d", bits, s);
            for (int i = 0; i < 4; i++) free(got[i / 2][i % 2]);
            backend_close(b);
        }
}
END_TEST

/* 69,632 heads x batch, above what a grid's y holds, with the same inputs each: the same outputs each, of one token
 * (steps) and of two (recurrences). */
START_TEST(heads_above_65535) {
    for (int T = 1; T <= 2; T++) {
        const DeltaDims d = {.B = 4096, .T = T, .H = 17, .Hk = 17, .K = 1, .V = 1, .chunk = 2};
        const size_t heads = (size_t)d.B * d.H, n = heads * T;
        Backend *b = opened("cuda-emu");
        Err e = {0};
        void *work;
        Real *in[4], *out[4];
        for (int i = 0; i < 4; i++) in[i] = device_numbers(b, n, 4, 0.3 + 0.1 * i, 0.3 + 0.1 * i);
        for (int i = 0; i < 4; i++) out[i] = device_numbers(b, n, 4, i ? 0 : 9, i ? 0 : 9);
        Real *states = device_numbers(b, delta_states(&d), 4, 0, 0);
        Wide *g = device_numbers(b, n, 4, -0.5, -0.5), *dg = device_numbers(b, n, 4, 0, 0),
             *state = device_numbers(b, heads, 4, 1, 1), *dstate = device_numbers(b, heads, 4, 1, 1);
        ck_assert_int_eq(b->alloc(b, &work, gla_work(&d), "workspace", &e), OK);
        b->op->gla_forward(out[0], states, state, in[0], in[1], in[2], g, NULL, 0.5, work, &d);
        if (T > 1)
            b->op->gla_backward(out[1], out[2], out[3], dg, dstate, in[3], states, in[0], in[1], in[2], g, NULL, 0.5,
                                work, &d);
        ck_assert_msg(b->sync(b, &e) == OK, "%s", e.msg);
        float *host = malloc(n * 4);
        for (int i = 0; i < (T > 1 ? 4 : 1); i++) {
            b->download(b, host, out[i], n * 4); // (B,T,H)
            ck_assert_msg(host[0] != 0 && host[0] != 9, "%d tokens, output %d was not written", T, i);
            for (size_t k = 0; k < n; k++) {
                const float want = host[k / d.H % T * d.H];
                ck_assert_msg(host[k] == want, "%d tokens, output %d, element %zu: %g, not %g", T, i, k, host[k], want);
            }
        }
        free(host);
        b->release(b, work);
        backend_close(b);
    }
}
END_TEST

/* The heads on a device need two blocks of logits, no more: what lies behind an emulated allocation ends the test. */
START_TEST(heads_keep_logits_alone) {
    const HeadDims d = {.N = 40, .C = 8, .Ct = 8, .VOC = 64, .block = 16};
    Backend *b = opened(_i ? "cuda-emu-bf16" : "cuda-emu");
    const size_t n = (size_t)d.N * d.C, m = (size_t)d.VOC * d.C;
    Err e = {0};
    Real *x = device_numbers(b, n, b->real_size, -1, 1), *xt = device_numbers(b, n, b->real_size, -1, 1),
         *w = device_numbers(b, m, b->real_size, -1, 1), *dx = device_numbers(b, n, b->real_size, 0, 0);
    Wide *dw = device_numbers(b, m, 4, 0, 0), *loss = device_numbers(b, (size_t)d.N, 4, -1, -1);
    void *work;
    ck_assert_int_eq(b->alloc(b, &work, loss_device_work(&d, b->real_size), "logits", &e), OK);
    b->op->head_kl(loss, dx, dw, x, w, xt, w, NULL, 1, work, &d);
    ck_assert_msg(b->sync(b, &e) == OK, "%s", e.msg);
    b->release(b, work);
    backend_close(b);
}
END_TEST

/* An impossible launch is latched, named, and handed over by sync; the emulated device then goes on. */
/* Decoding with the linear layers' calls recorded and replayed: the bits of calls made one by one, fewer launches,
 * also on a device that lags. */
static void (*end_of_recording)(Backend *b, void **g);
static void never_a_graph(Backend *b, void **g) {
    end_of_recording(b, g);
    b->record_free(b, *g);
    *g = NULL;
}
enum { PLAIN, RECORDED, REFUSED };
static unsigned long long decode_run(int way, float logits[12][2 * 50]) {
    const char *const layers[] = {"gdn_v4", "softmax", "gla_v1", "kda_v1", "gdn_v1"};
    const Config c = model_small(layers, 5, 24, 4, 2, 8, 40, 50);
    Backend *b = opened("cuda-emu-bf16");
    Model m;
    Decode d;
    Err e = {0};
    unsigned long long launches, copies, before = 0;
    if (way == PLAIN) b->record_begin = NULL;
    if (way == REFUSED) end_of_recording = b->record_end, b->record_end = never_a_graph;
    ck_assert_int_eq(model_open(&m, &c, b, GRAD_NONE, &e), OK);
    ck_assert_int_eq(model_init(&m, 5, 0.7, 1, 0, &e), OK);
    ck_assert_int_eq(decode_open(&d, &m, 2, 40, 6, &e), OK);
    for (int turn = 0; turn < 2; turn++) { // the second after a reset, with graphs of the first
        const int prompt[2 * 7] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7};
        ck_assert_msg(decode_extend(&d, prompt, 7, NULL, &e) == OK, "%s", e.msg); // pieces of 6 and 1
        for (int i = 0; i < 6; i++) {
            const int next[2] = {(7 * i + turn) % 50, (11 * i + 3) % 50};
            cuda_emu_work(&before, &copies);
            ck_assert_msg(decode_extend(&d, next, 1, logits[6 * turn + i], &e) == OK, "%s", e.msg);
            cuda_emu_work(&launches, &copies);
        }
        decode_reset(&d);
    }
    decode_close(&d);
    model_close(&m);
    backend_close(b);
    return launches - before;
}
START_TEST(replayed_decoding_is_decoding) {
    static float plain[12][100], other[12][100];
    const unsigned long long one_by_one = decode_run(PLAIN, plain);
    cuda_emu_defer(_i);
    const unsigned long long replayed = decode_run(RECORDED, other);
    cuda_emu_defer(0);
    ck_assert(!memcmp(plain, other, sizeof plain));
    printf("decoding one token through 5 layers, 4 of them linear: %llu launches, %llu with graphs\n", one_by_one,
           replayed);
    ck_assert_msg(3 * replayed < one_by_one, "%llu launches, %llu without graphs", replayed, one_by_one);
    memset(other, 0, sizeof other);
    ck_assert_uint_eq(decode_run(REFUSED, other), one_by_one);
    ck_assert(!memcmp(plain, other, sizeof plain));
}
END_TEST

/* What cannot be in a graph makes none, and leaves no error behind. */
START_TEST(spoilt_recording_leaves_nothing) {
    Backend *b = opened("cuda-emu");
    Err e = {0};
    void *p, *q, *g = &e;
    float x = 1, y = 2;
    ck_assert_int_eq(b->alloc(b, &p, sizeof x, "x", &e), OK);
    b->upload(b, p, &x, sizeof x);
    for (int i = 0; i < 3; i++) {
        b->record_begin(b);
        b->zero(b, p, sizeof x);
        if (i == 0) b->upload(b, p, &y, sizeof y);
        if (i == 1) ck_assert_int_ne(b->alloc(b, &q, 16, "more", &e), OK);
        if (i == 2) b->download(b, &y, p, sizeof y);
        b->record_end(b, &g);
        ck_assert_ptr_null(g);
        b->record_free(b, g);
        ck_assert_int_eq(b->sync(b, &e), OK);
        b->download(b, &x, p, sizeof x);
        ck_assert_msg(x == 1, "%d: something was done while it was recorded", i);
    }
    b->record_begin(b);
    b->zero(b, p, sizeof x);
    b->record_end(b, &g);
    ck_assert_ptr_nonnull(g);
    b->download(b, &x, p, sizeof x);
    ck_assert(x == 1);
    b->replay(b, g);
    b->download(b, &x, p, sizeof x);
    ck_assert(x == 0);
    b->record_free(b, g);
    b->release(b, p);
    backend_close(b);
}
END_TEST

START_TEST(launch_error_names_the_kernel) {
    Backend *b = opened("cuda-emu");
    Err e = {0};
    void *p;
    ck_assert_int_eq(b->alloc(b, &p, 1 << 20, "a block", &e), OK);
    const DeltaDims d = {
        .B = 1, .T = 1, .H = 1, .Hk = 1, .K = 4096, .V = 8, .chunk = 1}; /* one state does not fit shared memory */
    b->op->delta_rule_forward(p, p, p, p, p, p, p, p, NULL, 1, p, &d);
    ck_assert_int_eq(b->sync(b, &e), ERR_DEVICE);
    ck_assert_msg(strstr(e.msg, "recurrence_kernel") != NULL, "%s", e.msg);
    e = (Err){0};
    b->op->add(p, p, p, 100);
    ck_assert_int_eq(b->sync(b, &e), OK);
    backend_close(b);
}
END_TEST

START_TEST(allocation_failure_is_an_error) {
    Backend *b = opened("cuda-emu");
    Err e = {0};
    void *p = &e;
    ck_assert_int_eq(b->alloc(b, &p, (size_t)1 << 62, "all weights", &e), ERR_MEMORY);
    ck_assert_ptr_null(p);
    ck_assert_ptr_nonnull(strstr(e.msg, "all weights"));
    e = (Err){0};
    ck_assert_int_eq(b->sync(b, &e), OK); /* and not a device error */
    backend_close(b);
}
END_TEST

/* What a training run holds is counted to the byte before anything is allocated; what cannot fit is refused with the
 * list of it. */
START_TEST(memory_plan_is_exact) {
    const char *const layers[] = {"softmax", "gdn_v4"};
    const Config c = model_small(layers, 2, 24, 4, 2, 8, 40, 50);
    const StageOptions o = {.micro_batch_size = 2, .train_seq_len = 20};
    const OptimConfig adam = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
    Backend *b = opened(_i ? "cuda-emu-bf16" : "cuda-emu");
    MemoryPlan plan = {0};
    Model m;
    Pass p;
    Loss l;
    Optim a;
    Err e = {0};
    size_t now, peak;
    ck_assert_msg(memory_trained(&plan, b, &c, GRAD_ALL, &o, _i, 24, &e) == OK, "%s", e.msg);
    cuda_emu_backend_memory(b, &now, &peak);
    ck_assert_uint_eq(peak, 0);
    ck_assert_int_eq(model_open(&m, &c, b, GRAD_ALL, &e), OK);
    ck_assert_int_eq(pass_open(&p, &m, 2, 20, PASS_TRAIN | (_i ? PASS_CHECKPOINT : 0), &e), OK);
    ck_assert_int_eq(loss_open(&l, &m, 24, 40, &e), OK);
    ck_assert_int_eq(optim_open(&a, &m, &adam, &e), OK);
    cuda_emu_backend_memory(b, &now, &peak);
    ck_assert_uint_eq(now, memory_total(&plan));
    optim_close(&a);
    loss_close(&l);
    pass_close(&p);
    model_close(&m);
    backend_close(b);
}
END_TEST
/* The two shapes of 3 billion parameters that gpu-bench trains, stage 2 without recomputation, four windows of 4096
 * tokens: less than the 139 GiB of an H200, with 4 GB to spare for the runtime and cuBLASLt. */
START_TEST(three_billion_fit) {
    Backend *b;
    Err e = {0};
    ck_assert_int_eq(backend_open(&b, "cuda-emu-bf16", 1, &e), OK);
    const Config shape[2] = {bench_config(2048, 36, 16, 2, 11008, 151936, 1),
                             bench_config(3072, 28, 24, 8, 8192, 128256, 1)};
    for (int i = 0; i < 4; i++) {
        const Config *c = &shape[i / 2];
        Config student;
        int mixer[MAX_LAYERS];
        MemoryPlan plan = {0};
        char text[512];
        const int stage1 = i % 2 == 0, B = stage1 ? 32 : 4, T = stage1 ? 512 : 4096;
        const StageOptions o = {.batch_size = B, .micro_batch_size = B, .train_seq_len = T};
        for (int l = 0; l < c->L; l++) mixer[l] = mixer_find("gdn_v4");
        ck_assert_int_eq(transfer_config(&student, c, mixer, &e), OK);
        ck_assert_int_eq(memory_frozen(&plan, b, c, GRAD_NONE, "teacher's weights", "teacher's activations", B, T, &e),
                         OK);
        ck_assert_int_eq(
            memory_trained(&plan, b, &student, stage1 ? GRAD_MIXERS : GRAD_ALL, &o, stage1, stage1 ? -1 : c->C, &e),
            OK);
        memory_text(&plan, text, sizeof text);
        printf("%s, stage %d, %d x %d: %s\n", i / 2 ? "Llama-3.2-3B" : "Qwen2.5-3B", 1 + !stage1, B, T, text);
        ck_assert_msg(memory_total(&plan) < ((size_t)139 << 30) - 4000000000u, "%s", text);
    }
    backend_close(b);
}
END_TEST

START_TEST(what_cannot_fit_is_refused) {
    const char *const layers[] = {"softmax", "gla_v1"};
    const Config c = model_small(layers, 2, 24, 4, 2, 8, 40, 50);
    const StageOptions o = {.micro_batch_size = 4, .train_seq_len = 500};
    Backend *b = opened("cuda-emu");
    MemoryPlan plan = {0};
    Err e = {0};
    ck_assert_int_eq(memory_frozen(&plan, b, &c, GRAD_NONE, "teacher's weights", "teacher's activations", 4, 500, &e),
                     OK);
    ck_assert_int_eq(memory_trained(&plan, b, &c, GRAD_ALL, &o, 0, 24, &e), OK);
    ck_assert_msg(memory_check(&plan, b, "stage 2", &e) == OK, "%s", e.msg);
    setenv("CUDA_EMU_MEMORY", "20", 1); /* MiB, of which the backend has taken 16 */
    ck_assert_int_eq(memory_check(&plan, b, "stage 2", &e), ERR_MEMORY);
    unsetenv("CUDA_EMU_MEMORY");
    for (int i = 0; i < plan.n; i++) ck_assert_msg(strstr(e.msg, plan.row[i].what) != NULL, "%s", e.msg);
    ck_assert_ptr_nonnull(strstr(e.msg, "stage 2"));
    backend_close(b);
    Backend *host = opened("ref32");
    ck_assert_int_eq(memory_check(&plan, host, "stage 2", &e), OK);
    backend_close(host);
}
END_TEST

/* ---- whole models: the same gradients and the same training as the reference ---- */
/* Not two bounded KDA layers: that model makes BF16 rounding .2 of a gradient, in ref-bf16 as on a device. */
static const char *const LAYERS[][2] = {
    {"softmax", "gdn_v4"}, {"gla_v1", "softmax"}, {"gdn_v1", "gdn_v6"}, {"kda_v2", "swa_v1"}, {"kda_v4", "softmax"}};
START_TEST(model_gradient) {
    static const struct {
        const char *backend;
        double tol;
    } row[2] = {{"cuda-emu", 2e-5}, {"cuda-emu-bf16", 0.1}};
    const Config c = model_small(LAYERS[_i / 2], 2, 24, 4, 2, 8, 40, 50);
    Err e = {0};
    double worst;
    char where[160];
    ck_assert_msg(model_check_gradient(row[_i % 2].backend, &c, 2, 21, 8, &worst, where, sizeof where, &e) == OK, "%s",
                  e.msg);
    ck_assert_msg(worst <= row[_i % 2].tol, "%s: relative error %g", where, worst);
    ck_assert_msg(worst > 0, "nothing was compared");
}
END_TEST

START_TEST(model_training) {
    enum { STEPS = 6 };
    static const struct {
        const char *backend;
        double tol;
    } row[2] = {{"cuda-emu", 1e-4}, {"cuda-emu-bf16", 0.03}};
    const Config c = model_small(LAYERS[0], 2, 24, 4, 2, 8, 40, 50);
    Err e = {0};
    double a[STEPS], r[STEPS];
    int learned;
    ck_assert_msg(model_train(row[_i].backend, &c, 2, 21, 8, STEPS, a, &e) == OK, "%s", e.msg);
    ck_assert_msg(model_train("ref32", &c, 2, 21, 8, STEPS, r, &e) == OK, "%s", e.msg);
    const double far = curve_difference(a, r, STEPS, &learned);
    ck_assert_msg(far <= row[_i].tol, "loss differs by %g", far);
    ck_assert_msg(learned, "loss went from %g to %g", a[0], a[STEPS - 1]);
}
END_TEST

START_TEST(kl_is_exact) {
    Err e = {0};
    Backend *be;
    ck_assert_int_eq(backend_open(&be, _i ? "cuda-emu-bf16" : "cuda-emu", 1, &e), OK);
    kl_exact_check(be, 1e-6);
    backend_close(be);
}
END_TEST

SUITE("cuda") {
    backend_register("cuda-emu", cuda_emu_backend_open);
    GROUP("ops", .timeout = 300);
    CASE(op_in_float, .times = opcheck_count());
    CASE(op_in_bf16, .times = opcheck_count());
    CASE(fast_shape_in_float, .times = sizeof FAST / sizeof *FAST);
    CASE(fast_shape_in_bf16, .times = sizeof FAST / sizeof *FAST);
    CASE(unknown_rung);
    CASE(rung_in_bf16, .times = 6);
    CASE(a_tenth_fails, .times = opcheck_count());
    CASE(a_tenth_fails_in_fast_versions);
    GROUP("regimes", .timeout = 300);
    CASE(regime_in_bf16, .times = 3 * REGIME_COUNT);
    GROUP("backend", .timeout = 300);
    CASE(kl_is_exact, .times = 2);
    CASE(names);
    CASE(memory_is_zeroed_and_counted);
    CASE(move_may_overlap);
    CASE(add_rmsnorm_is_two_ops, .times = 2);
    CASE(slow_device_sees_every_batch);
    CASE(slow_device_trains_the_same);
    CASE(states_need_not_be_kept);
    CASE(heads_above_65535);
    CASE(heads_keep_logits_alone, .times = 2);
    CASE(replayed_decoding_is_decoding, .times = 2);
    CASE(spoilt_recording_leaves_nothing);
    CASE(launch_error_names_the_kernel);
    CASE(allocation_failure_is_an_error);
    CASE(memory_plan_is_exact, .times = 2);
    CASE(three_billion_fit);
    CASE(what_cannot_fit_is_refused);
    GROUP("models", .timeout = 120);
    CASE(model_gradient, .times = 2 * (int)(sizeof LAYERS / sizeof *LAYERS));
    CASE(model_training, .times = 2);
}
