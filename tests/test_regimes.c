/* test_regimes.c - what one case of the table of regimes cannot say: documents packed into a row are each alone,
 * pieces of any length are one pass, forwards and backwards; and elements whose index does not fit an int. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/mem.h"
#include "ops/backend.h"
#include "suite.h"
#include "tools/opcheck_parts.h"
#include "tools/oracle.h"

/* ---- a scan in parts ---- */

enum { LEN = 37, CUT = 20 };
static const char *const scans[] = {"delta_rule", "gla", "kda"};

static Oracle *opened(const char *op, int T, int chunk, int documents) {
    Oracle *o;
    Err e = {0};
    char shape[128];
    snprintf(shape, sizeof shape, "B=1,T=%d,H=4,Hk=2,K=5,V=6,chunk=%d%s", T, chunk, documents ? "" : ",-start");
    ck_assert_msg(!oracle_open(&o, op, shape, DT_F64, 5, &e), "%s", e.msg);
    return o;
}
static void run(Oracle *o) {
    Err e = {0};
    ck_assert_msg(!oracle_run(o, &e), "%s", e.msg);
}
static int over_time(const OracleTensor *t) { return t->rank > 1 && (int)strcspn(t->letters, "T") < 3; }

/* Tokens from `from` on of whole's inputs into part. */
static void inputs_cut(Oracle *part, Oracle *whole, size_t from) {
    for (int i = 0; i < oracle_count(part); i++) {
        OracleTensor *t = oracle_tensor(part, i);
        const OracleTensor *w = oracle_tensor(whole, i);
        if ((t->role != ORACLE_INPUT && t->role != ORACLE_UPSTREAM) || !t->count || !strcmp(t->name, "start")) continue;
        const size_t token = over_time(t) ? t->count / (size_t)t->dims[1] : 0;
        memcpy(t->value, w->value + from * token, t->count * sizeof(double));
    }
}
static void copied(OracleTensor *to, const OracleTensor *from) {
    ck_assert_uint_eq(to->count, from->count);
    memcpy(to->value, from->value, to->count * sizeof(double));
}
static void zeroed(OracleTensor *t) { memset(t->value, 0, t->count * sizeof(double)); }

/* n numbers are the same: to the bit where both sum in the same order. */
static void same(const char *what, const double *a, const double *b, size_t n, int bits) {
    if (bits) ck_assert_msg(!memcmp(a, b, n * sizeof(double)), "%s: other bits", what);
    const Comparison c = compare(a, b, n, 1e-12);
    ck_assert_msg(c.verdict == COMPARE_OK, "%s: %s: %g at %zu", what, compare_word(&c), c.rel, c.at);
}
/* Every result over time of whole is that of the two parts. */
static void parts_are_whole(Oracle *whole, Oracle *a, Oracle *b, int bits) {
    int compared = 0;
    for (int i = 0; i < oracle_count(whole); i++) {
        const OracleTensor *w = oracle_tensor(whole, i), *x = oracle_tensor(a, i), *y = oracle_tensor(b, i);
        if ((w->role != ORACLE_OUTPUT && w->role != ORACLE_GRADIENT) || !w->count || !over_time(w)) continue;
        same(w->name, w->value, x->value, x->count, bits);
        same(w->name, w->value + x->count, y->value, y->count, bits);
        compared++;
    }
    ck_assert_int_ge(compared, 5); // o, dq, dk, dv, dg
}

static void scan_in_parts(const char *op, int chunk, int documents) {
    const int bits = chunk == 1;
    Oracle *whole = opened(op, LEN, chunk, documents), *a = opened(op, CUT, chunk, 0),
           *b = opened(op, LEN - CUT, chunk, 0);
    OracleTensor *start = oracle_find(whole, "start");
    for (size_t t = 0; documents && t < LEN; t++) start->value[t] = t < CUT ? 0 : CUT;
    run(whole);
    inputs_cut(a, whole, 0), inputs_cut(b, whole, CUT);
    if (documents) zeroed(oracle_find(b, "S0")), zeroed(oracle_find(a, "dfinal"));
    run(a);
    if (!documents) copied(oracle_find(b, "S0"), oracle_find(a, "final"));
    run(b);
    if (!documents) { // back through the boundary
        copied(oracle_find(a, "dfinal"), oracle_find(b, "dS0"));
        run(a);
    }
    parts_are_whole(whole, a, b, bits);
    const OracleTensor *f = oracle_find(whole, "final"), *d = oracle_find(whole, "dS0");
    same("final", f->value, oracle_find(b, "final")->value, f->count, bits);
    same("dS0", d->value, oracle_find(a, "dS0")->value, d->count, bits);
    oracle_close(whole), oracle_close(a), oracle_close(b);
    ck_assert_uint_eq(mem_now(), 0);
}
START_TEST(documents_are_alone) { scan_in_parts(scans[_i / 2], _i % 2 ? 16 : 1, 1); }
END_TEST
START_TEST(pieces_are_one_pass) { scan_in_parts(scans[_i / 2], _i % 2 ? 16 : 1, 0); }
END_TEST

/* ---- indices of 2^31 and more: memory that is only there where it is touched ---- */

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif
static const size_t FAR = (size_t)1 << 31; /* elements */
static void *far_memory(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}
static float number(size_t i) { return sinf((float)(i % 1000)); }

static const char *const backends[] = {"ref32", "cpu"};
static const Ops32 *ops_open(Backend **be, int i) {
    Err e = {0};
    ck_assert_msg(!backend_open(be, backends[i], 1, &e), "%s", e.msg);
    return (const Ops32 *)(*be)->op;
}

/* A cache whose second row begins beyond 2^31: the stride between rows is all of it. */
START_TEST(attention_far_apart) {
    enum { T = 3, Hk = 2, D = 8, N = T * Hk * D };
    Backend *be;
    const Ops32 *op = ops_open(&be, _i);
    const AttnDims near = {.B = 2, .T = T, .H = Hk, .Hk = Hk, .D = D};
    AttnDims far = near;
    far.stride = (int)(FAR / (Hk * D));
    float *kv[4], q[2 * N], o[2][2 * N], lse[2][2 * T * Hk], dout[2 * N], dq[2][2 * N], k[2 * N], v[2 * N],
        dk[2 * N] = {0}, dv[2 * N] = {0};
    memset(dq, 0, sizeof dq);
    void *work = malloc(attention_work(&far));
    for (int i = 0; i < 4; i++) kv[i] = far_memory((FAR + N) * sizeof(float));
    if (kv[0] && kv[1] && kv[2] && kv[3]) {
        for (size_t i = 0; i < 2 * N; i++) {
            q[i] = number(i), k[i] = number(7 * i), v[i] = number(11 * i), dout[i] = number(13 * i);
            const size_t at = i % N + (i / N) * FAR;
            kv[0][at] = k[i], kv[1][at] = v[i];
        }
        op->attention_forward(o[0], lse[0], q, k, v, NULL, 0.3, work, &near);
        op->attention_forward(o[1], lse[1], q, kv[0], kv[1], NULL, 0.3, work, &far);
        ck_assert_mem_eq(o[0], o[1], sizeof o[0]);
        ck_assert_mem_eq(lse[0], lse[1], sizeof lse[0]);
        op->attention_backward(dq[0], dk, dv, dout, o[0], lse[0], q, k, v, NULL, 0.3, work, &near);
        op->attention_backward(dq[1], kv[2], kv[3], dout, o[1], lse[1], q, kv[0], kv[1], NULL, 0.3, work, &far);
        ck_assert_mem_eq(dq[0], dq[1], sizeof dq[0]);
        for (size_t b = 0; b < 2; b++) {
            ck_assert_mem_eq(dk + b * N, kv[2] + b * FAR, N * sizeof(float));
            ck_assert_mem_eq(dv + b * N, kv[3] + b * FAR, N * sizeof(float));
        }
        ck_assert(fabsf(dk[N]) > 0);
    } else printf("SKIP no address space for %zu elements\n", FAR);
    for (int i = 0; i < 4; i++)
        if (kv[i]) munmap(kv[i], (FAR + N) * sizeof(float));
    free(work);
    backend_close(be);
}
END_TEST

/* The last rows of a table of words whose elements begin beyond 2^31, and of a table of angles. */
START_TEST(rows_far_down) {
    enum { C = 8, N = 3, H = 2 };
    Backend *be;
    const Ops32 *op = ops_open(&be, _i);
    const size_t rows = FAR / C + N;
    float *w = far_memory(rows * C * sizeof *w), *dw = far_memory(rows * C * sizeof *dw), y[N * C], x[N * H * C],
          turned[2][N * H * C], dx[2][N * H * C];
    const int ids[N] = {(int)rows - 1, (int)rows - 3, (int)rows - 1};
    memset(dx, 0, sizeof dx);
    if (w && dw) {
        for (size_t i = 0; i < N * C; i++) w[FAR + i] = number(i + 1);
        for (size_t i = 0; i < N * H * C; i++) x[i] = number(3 * i);
        op->embed_forward(y, w, ids, N, C, (int)rows);
        ck_assert_mem_eq(y, w + FAR + 2 * C, C * sizeof *y);
        ck_assert_mem_eq(y + C, w + FAR, C * sizeof *y);
        op->embed_backward(dw, y, ids, N, C, (int)rows);
        for (size_t i = 0; i < C; i++) {
            ck_assert_float_eq(dw[FAR + 2 * C + i], 2 * y[i]);
            ck_assert_float_eq(dw[FAR + C + i], 0);
        }
        for (int far = 0; far < 2; far++) { // w again, now as cos and sin of position pos and later
            op->rope_forward(turned[far], x, far ? w : w + FAR, far ? (int)(FAR / C) : 0, 1, N, H, C);
            op->rope_backward(dx[far], x, far ? w : w + FAR, far ? (int)(FAR / C) : 0, 1, N, H, C);
        }
        ck_assert_mem_eq(turned[0], turned[1], sizeof x);
        ck_assert_mem_eq(dx[0], dx[1], sizeof x);
        ck_assert(memcmp(turned[0], x, sizeof x) != 0);
    } else printf("SKIP no address space for %zu elements\n", FAR);
    if (w) munmap(w, rows * C * sizeof *w);
    if (dw) munmap(dw, rows * C * sizeof *dw);
    backend_close(be);
}
END_TEST

SUITE("regimes") {
    GROUP("parts", .timeout = 60);
    CASE(documents_are_alone, .times = 6);
    CASE(pieces_are_one_pass, .times = 6);
    GROUP("far", .timeout = 60);
    CASE(attention_far_apart, .times = 2);
    CASE(rows_far_down, .times = 2);
}
