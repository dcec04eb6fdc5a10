/* test_gguf.c - GGUF: every number format against values packed here, malformed files, whole models (permutation, bias,
 * tied head, rope factors) and tokenizers (byte-level and sentencepiece-style, the latter against a merger by score
 * written here). */
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "io/gguf_model.h"
#include "base/json.h"
#include "tests/suite.h"
#include "tests/gguf_make.h"
#include "tests/tmpdir.h"
#include "text/tokenizer.h"
#include <math.h>

static void ok(int rc, const Err *e) {
    if (rc) ck_abort_msg("code %d: %s (%s)", rc, e->msg, e->hint);
}

/* ---- number formats: integers and scales are drawn, packed as the format says, and must come back ---- */

enum { MAX_BLOCK = 256 };
typedef struct {
    float d, m;          /* exactly representable as float16 */
    int q[MAX_BLOCK];    /* what is stored */
    int s[16], least[8]; /* K formats: scales of runs */
} Block;

static void put_half(Bytes *b, float f) {
    unsigned char h[2];
    dtype_convert(DT_F16, h, DT_F32, &f, 1);
    put(b, h, 2);
}

static void pack_nibbles(Bytes *b, const int *q, int n) { // element j with element j + n/2
    for (int j = 0; j < n / 2; j++) put_u(b, (uint64_t)((q[j] & 15) | (q[j + n / 2] & 15) << 4), 1);
}
static void pack_fifth(Bytes *b, const int *q) {
    uint32_t bits = 0;
    for (int j = 0; j < 32; j++) bits |= (uint32_t)(q[j] >> 4) << j;
    put_u(b, bits, 4);
}
static void pack_q4_k(Bytes *b, const Block *k) {
    unsigned char s[12] = {0};
    put_half(b, k->d);
    put_half(b, k->m);
    for (int j = 0; j < 8; j++) {
        if (j < 4) s[j] |= (unsigned char)k->s[j], s[j + 4] |= (unsigned char)k->least[j];
        else {
            s[j + 4] = (unsigned char)((k->s[j] & 15) | (k->least[j] & 15) << 4);
            s[j - 4] |= (unsigned char)(k->s[j] >> 4 << 6);
            s[j] |= (unsigned char)(k->least[j] >> 4 << 6);
        }
    }
    put(b, s, 12);
    for (int j = 0; j < 256; j += 64) pack_nibbles(b, k->q + j, 64);
}
static void pack_q6_k(Bytes *b, const Block *k) {
    for (int half = 0; half < 256; half += 128)
        for (int l = 0; l < 64; l++) put_u(b, (uint64_t)((k->q[half + l] & 15) | (k->q[half + l + 64] & 15) << 4), 1);
    for (int half = 0; half < 256; half += 128)
        for (int l = 0; l < 32; l++) {
            int high = 0;
            for (int r = 0; r < 4; r++) high |= k->q[half + 32 * r + l] >> 4 << 2 * r;
            put_u(b, (uint64_t)high, 1);
        }
    for (int j = 0; j < 16; j++) put_u(b, (uint8_t)k->s[j], 1);
    put_half(b, k->d);
}

static void pack(Bytes *b, GgmlType t, const Block *k) {
    if (t == GGML_Q4_K) return pack_q4_k(b, k);
    if (t == GGML_Q6_K) return pack_q6_k(b, k);
    put_half(b, k->d);
    if (t == GGML_Q4_1 || t == GGML_Q5_1) put_half(b, k->m);
    if (t == GGML_Q5_0 || t == GGML_Q5_1) pack_fifth(b, k->q);
    if (t == GGML_Q8_0)
        for (int j = 0; j < 32; j++) put_u(b, (uint8_t)k->q[j], 1);
    else pack_nibbles(b, k->q, 32);
}

/* The value of element j, in double. */
static double value(GgmlType t, const Block *k, int j) {
    switch ((int)t) {
    case GGML_Q4_0:
        return (double)k->d * (k->q[j] - 8);
    case GGML_Q4_1:
        return (double)k->d * k->q[j] + k->m;
    case GGML_Q5_0:
        return (double)k->d * (k->q[j] - 16);
    case GGML_Q5_1:
        return (double)k->d * k->q[j] + k->m;
    case GGML_Q8_0:
        return (double)k->d * (signed char)k->q[j];
    case GGML_Q4_K:
        return (double)k->d * k->s[j / 32] * k->q[j] - (double)k->m * k->least[j / 32];
    default:
        return (double)k->d * (signed char)k->s[j / 16] * (k->q[j] - 32);
    }
}

static Block draw(Rng *r, GgmlType t) {
    static const int levels[] = {[GGML_Q4_0] = 16,  [GGML_Q4_1] = 16, [GGML_Q5_0] = 32, [GGML_Q5_1] = 32,
                                 [GGML_Q8_0] = 256, [GGML_Q4_K] = 16, [GGML_Q6_K] = 64};
    Block k;
    k.d = (float)((int)rng_below(r, 2000) - 1000) / 1024;
    k.m = (float)((int)rng_below(r, 2000) - 1000) / 512;
    for (int j = 0; j < MAX_BLOCK; j++) k.q[j] = (int)rng_below(r, (uint32_t)levels[t]);
    for (int j = 0; j < 16; j++) k.s[j] = (int)rng_below(r, t == GGML_Q4_K ? 64 : 256);
    for (int j = 0; j < 8; j++) k.least[j] = (int)rng_below(r, 64);
    return k;
}

static const GgmlType quantised[] = {GGML_Q4_0, GGML_Q4_1, GGML_Q5_0, GGML_Q5_1, GGML_Q8_0, GGML_Q4_K, GGML_Q6_K};

START_TEST(test_formats) {
    const GgmlType t = quantised[_i];
    const size_t n = ggml_block(t);
    Rng r;
    rng_seed(&r, 5 + (uint64_t)_i);
    for (int round = 0; round < 50; round++) {
        const Block k = draw(&r, t);
        Bytes b = {0};
        float y[MAX_BLOCK];
        pack(&b, t, &k);
        ck_assert_uint_eq(b.n, ggml_block_bytes(t));
        ggml_dequantise(y, t, b.p, n);
        for (size_t j = 0; j < n; j++) {
            const double want = value(t, &k, (int)j);
            ck_assert_msg(fabs(y[j] - want) <= 3e-7 * (fabs(want) + 64), "%s element %zu: %g, expected %g",
                          ggml_name(t), j, y[j], want);
        }
        free(b.p);
    }
}
END_TEST

START_TEST(test_plain_formats) {
    const float x[3] = {1.5f, -0.25f, 3e4f};
    static const struct {
        GgmlType t;
        DType d;
    } plain[] = {{GGML_F32, DT_F32}, {GGML_F16, DT_F16}, {GGML_BF16, DT_BF16}};
    for (int i = 0; i < 3; i++) {
        unsigned char raw[12];
        float y[3], want[3];
        dtype_convert(plain[i].d, raw, DT_F32, x, 3);
        dtype_convert(DT_F32, want, plain[i].d, raw, 3);
        ggml_dequantise(y, plain[i].t, raw, 3);
        ck_assert_mem_eq(y, want, sizeof y);
    }
    ck_assert_uint_eq(ggml_block((GgmlType)10), 0); // Q2_K
    ck_assert_ptr_null(ggml_name((GgmlType)99));
}
END_TEST

/* ---- files ---- */

static int parse(const Bytes *b, Err *e) {
    Gguf g;
    *e = (Err){0};
    unsigned char *exact = malloc(b->n ? b->n : 1); // so that a sanitizer sees one byte too many
    if (b->n) memcpy(exact, b->p, b->n);
    const int rc = gguf_parse(&g, exact, b->n, "x.gguf", e);
    gguf_close(&g);
    free(exact);
    return rc;
}

static void small_file(Make *m) {
    static const float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const char *const words[] = {"a", "bc", ""};
    static const int ints[] = {-1, 2};
    pair_str(m, "general.architecture", "llama");
    pair_u32(m, "n", 7);
    pair_f32(m, "f", 0.5f);
    pair_bool(m, "b", 1);
    pair_strs(m, "words", words, 3);
    pair_i32s(m, "ints", ints, 2);
    tensor(m, "one", 2, 4, GGML_F32, x, 32);
    tensor(m, "two", 0, 3, GGML_F32, x, 12);
}

START_TEST(test_read) {
    Make m = {0};
    Gguf g;
    Err e = {0};
    int64_t n = 0;
    int on = 0;
    double f = 0;
    const char *s = NULL;
    size_t len = 0, at = 0;
    const GgufValue *words, *ints;
    small_file(&m);
    Bytes b = make_file(&m, 2 + (uint32_t)_i);
    ok(gguf_parse(&g, b.p, b.n, "x.gguf", &e), &e);
    ck_assert_int_eq(g.version, 2 + _i);
    ok(gguf_opt_int(&g, "n", 0, 9, &n, &e), &e);
    ok(gguf_opt_real(&g, "f", &f, &e), &e);
    ok(gguf_opt_bool(&g, "b", &on, &e), &e);
    ok(gguf_opt_str(&g, "general.architecture", &s, &len, &e), &e);
    ok(gguf_want_array(&g, "words", GGUF_STRING, &words, &e), &e);
    ok(gguf_want_array(&g, "ints", GGUF_I32, &ints, &e), &e);
    ck_assert(n == 7 && f == 0.5 && on == 1 && len == 5 && !memcmp(s, "llama", 5));
    ck_assert(words->n == 3 && ints->n == 2 && gguf_int_at(ints, 0) == -1 && gguf_int_at(ints, 1) == 2);
    for (int i = 0; i < 3; i++) {
        static const char *const want[] = {"a", "bc", ""};
        gguf_next_str(words, &at, &s, &len);
        ck_assert(len == strlen(want[i]) && !memcmp(s, want[i], len));
    }
    const GgufTensor *one = gguf_find(&g, "one"), *two = gguf_find(&g, "two");
    ck_assert(one && two && !gguf_find(&g, "three") && one->rank == 2 && one->shape[0] == 2 && one->shape[1] == 4 &&
              two->count == 3);
    float y[4];
    gguf_dequantise(y, one, 4, 4);
    ck_assert(y[0] == 5 && y[3] == 8);
    ck_assert_int_eq(gguf_opt_int(&g, "n", 8, 9, &n, &e), ERR_INPUT);
    ck_assert_str_eq(e.msg, "x.gguf: n: got 7, expected 8 to 9");
    e = (Err){0};
    ck_assert_int_eq(gguf_opt_int(&g, "f", 0, 9, &n, &e), ERR_INPUT);
    ck_assert_str_eq(e.msg, "x.gguf: f: got f32, expected an integer");
    gguf_close(&g);
    free(b.p);
    make_free(&m);
}
END_TEST

START_TEST(test_every_prefix) {
    Make m = {0};
    Err e;
    small_file(&m);
    Bytes b = make_file(&m, 3);
    ck_assert_int_eq(parse(&b, &e), OK);
    const size_t whole = b.n;
    for (size_t n = 0; n < whole; n++) {
        const Bytes part = {b.p, n, 0};
        const int rc = parse(&part, &e);
        if (n >= whole - 20) ck_assert_int_eq(rc, OK); // only the padding of the last tensor is missing
        else ck_assert_msg(rc == ERR_INPUT && e.msg[0], "%zu bytes of %zu: code %d", n, whole, rc);
    }
    free(b.p);
    make_free(&m);
}
END_TEST

/* One byte changed at any place: refused or read, never a crash (the sanitizers watch); sizes never grow beyond the
 * file. */
START_TEST(test_every_byte) {
    Make m = {0};
    Err e;
    small_file(&m);
    Bytes b = make_file(&m, 3);
    for (size_t i = 0; i < b.n; i++)
        for (int v = 0; v < 3; v++) {
            const unsigned char old = b.p[i];
            b.p[i] = v == 0 ? 0xff : v == 1 ? (unsigned char)(old + 1) : 0x80;
            mem_peak_reset();
            const size_t before = mem_now();
            const int rc = parse(&b, &e);
            ck_assert(rc == OK || rc == ERR_INPUT);
            ck_assert_uint_lt(mem_peak() - before, 1 << 16);
            b.p[i] = old;
        }
    free(b.p);
    make_free(&m);
}
END_TEST

/* Each fault alone, with what is said about it. */
static void fault(int i, Make *m) {
    static const float x[8] = {0};
    static const char *const words[] = {"a"};
    small_file(m);
    switch (i) {
    case 0:
        pair_u32(m, "n", 8);
        break;
    case 1:
        tensor(m, "two", 0, 3, GGML_F32, x, 12);
        break;
    case 2:
        tensor(m, "three", 0, 3, 10, x, 12);
        break;
    case 3:
        tensor(m, "three", 0, 33, GGML_Q8_0, x, 12);
        break;
    case 4:
        tensor(m, "three", 0, 0, GGML_F32, x, 0);
        break;
    case 5:
        tensor(m, "three", (size_t)1 << 40, (size_t)1 << 40, GGML_F32, x, 0);
        break;
    case 6:
        pair_u32(m, "general.alignment", 48);
        break;
    case 7:
        pair_u32(m, "general.alignment", 0);
        break;
    case 8:
        tensor(m, "three", 1 << 20, 1 << 20, GGML_F32, x, 32);
        break;
    case 9:
        m->n_tensors += 60;
        break;
    case 10:
        m->n_pairs = (uint64_t)1 << 60;
        break;
    case 11:
        m->n_tensors = (uint64_t)1 << 60;
        break;
    case 12:
        pair_str(m, "bad\xff", "x");
        break;
    case 13:
        pair_str(m, "", "x");
        break;
    case 14:
        put(&m->data, x, 32);
        break;
    case 15: // the last tensor's offset goes back to the first one's
        memset(m->list.p + m->list.n - 8, 0, 8);
        break;
    case 16:
        m->list.p[m->list.n - 8] += 32, put(&m->data, x, 32);
        break;
    case 17:
        pair_strs(m, "deep", words, 1), m->pairs.p[m->pairs.n - 9 - 8 - 4] = 9;
        break;
    case 18:
        pair_bool(m, "maybe", 2);
        break;
    case 19:
        pair_u32(m, "odd", 1), m->pairs.p[m->pairs.n - 8] = 13;
        break;
    default:
        break;
    }
}
static const char *const fault_says[] = {
    "x.gguf: n: given twice",
    "x.gguf: tensor 'two': given twice",
    "x.gguf: tensor 'three': tensor type Q2_K is not supported",
    "x.gguf: tensor 'three': its rows are no whole number of blocks",
    "x.gguf: tensor 'three': its shape has a zero or is too large",
    "x.gguf: tensor 'three': its shape has a zero or is too large",
    "x.gguf: general.alignment: got 48, expected a power of two",
    "x.gguf: general.alignment: got 0, expected 1 to 1048576",
    "x.gguf: tensor 'three': 4398046511104 bytes at offset 64",
    "x.gguf: 62 tensors, which is over 65536 or more than the file can hold",
    "x.gguf: 1152921504606846976 metadata pairs",
    "x.gguf: 1152921504606846976 tensors",
    "x.gguf: metadata: a name is not UTF-8 text",
    "x.gguf: metadata: a name of 0 bytes, expected 1 to 255",
    "x.gguf: 52 bytes behind the last tensor",
    "x.gguf: tensor 'two': data begins at 0, expected 32: it overlaps another tensor",
    "x.gguf: tensor 'two': data begins at 64, expected 32: bytes that belong to no tensor",
    "x.gguf: deep: an array of arrays is not supported",
    "x.gguf: maybe: a bool that is neither 0 nor 1",
    "x.gguf: odd: unknown value type",
};
START_TEST(test_faults) {
    Make m = {0};
    Err e;
    fault(_i, &m);
    Bytes b = make_file(&m, 3);
    ck_assert_int_eq(parse(&b, &e), ERR_INPUT);
    ck_assert_msg(!strncmp(e.msg, fault_says[_i], strlen(fault_says[_i])), "got: %s\nexpected: %s", e.msg,
                  fault_says[_i]);
    free(b.p);
    make_free(&m);
}
END_TEST

START_TEST(test_versions) {
    static const struct {
        uint32_t version;
        const char *says;
    } bad[] = {{1, "x.gguf: GGUF version 1, expected 2 or 3"},
               {4, "x.gguf: GGUF version 4, expected 2 or 3"},
               {0x03000000, "x.gguf: a big-endian GGUF file is not supported"}};
    Make m = {0};
    Err e;
    small_file(&m);
    for (int i = 0; i < 3; i++) {
        Bytes b = make_file(&m, bad[i].version);
        ck_assert_int_eq(parse(&b, &e), ERR_INPUT);
        ck_assert_str_eq(e.msg, bad[i].says);
        free(b.p);
    }
    make_free(&m);
}
END_TEST

/* ---- models ---- */

enum { C = 256, F = 512, L = 2, H = 4, HK = 2, D = 64, VOC = 300 };
typedef struct {
    const char *arch;
    GgmlType matrix;
    int bias, tied, qk_norm, rope, pre_smollm;
    const char *skip; /* leave this tensor out */
} Spec;

/* Element i of a tensor before it is packed; a fixed function, so that the test can ask for any of them again. */
static float element(const char *name, size_t i) {
    uint64_t h = 1469598103934665603u;
    for (const char *s = name; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    h = (h ^ i) * 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
    return (float)((double)(h % 2001) / 1000 - 1);
}

/* The file's tensor: transformers' rows in llama.cpp's order if heads; matrices as `type`.
 * `want` gets what must come out, in transformers' order. */
static void model_tensor(Make *m, const char *name, size_t rows, size_t cols, GgmlType type, int heads) {
    const size_t n = (rows ? rows : 1) * cols, R = rows ? rows : cols, size = heads ? R / (size_t)heads : 1;
    float *x = malloc(n * sizeof *x);
    for (size_t r = 0; r < R; r++) {
        const size_t i = r % size, to = heads ? r - i + (i < size / 2 ? 2 * i : 2 * (i - size / 2) + 1) : r;
        for (size_t c = 0; c < n / R; c++) x[to * (n / R) + c] = element(name, r * (n / R) + c);
    }
    Bytes b = {0};
    if (type == GGML_F32) put(&b, x, n * 4);
    if (type == GGML_Q8_0)
        for (size_t at = 0; at < n; at += 32) { // scale 1/128: values are then multiples of it
            put_half(&b, 1.0f / 128);
            for (int j = 0; j < 32; j++) put_u(&b, (uint8_t)(int)lrintf(x[at + (size_t)j] * 100), 1);
        }
    tensor(m, name, rows, cols, type, b.p, b.n);
    free(b.p);
    free(x);
}
static float wanted(const char *name, size_t i, int matrix, GgmlType type) {
    const float x = element(name, i);
    return matrix && type == GGML_Q8_0 ? (float)lrintf(x * 100) / 128 : x;
}

static void model_layer(Make *m, const Spec *s, int l) {
    const struct {
        const char *part;
        size_t rows, cols;
        int heads, when;
    } list[] = {{"attn_norm.weight", 0, C, 0, 1},
                {"attn_q.weight", H * D, C, H, 1},
                {"attn_k.weight", HK * D, C, HK, 1},
                {"attn_v.weight", HK * D, C, 0, 1},
                {"attn_output.weight", C, H * D, 0, 1},
                {"ffn_norm.weight", 0, C, 0, 1},
                {"ffn_gate.weight", F, C, 0, 1},
                {"ffn_up.weight", F, C, 0, 1},
                {"ffn_down.weight", C, F, 0, 1},
                {"attn_q.bias", 0, H * D, H, s->bias},
                {"attn_k.bias", 0, HK * D, HK, s->bias},
                {"attn_v.bias", 0, HK * D, 0, s->bias},
                {"attn_q_norm.weight", 0, D, 0, s->qk_norm},
                {"attn_k_norm.weight", 0, D, 0, s->qk_norm}};
    const int permuted = !strcmp(s->arch, "llama");
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s", l, list[i].part);
        if (!list[i].when || (s->skip && !strcmp(s->skip, name))) continue;
        model_tensor(m, name, list[i].rows, list[i].cols, list[i].rows ? s->matrix : GGML_F32,
                     permuted ? list[i].heads : 0);
    }
}

static void model_pairs(Make *m, const char *arch) {
    static const struct {
        const char *name;
        uint32_t v;
    } ints[] = {{"block_count", L},         {"context_length", 1024},    {"embedding_length", C},
                {"feed_forward_length", F}, {"attention.head_count", H}, {"attention.head_count_kv", HK},
                {"rope.dimension_count", D}};
    char key[64];
    pair_str(m, "general.architecture", arch);
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, ints[i].name);
        pair_u32(m, key, ints[i].v);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    pair_f32(m, key, 1e-5f);
    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    pair_f32(m, key, 500000.0f);
}

static char letters[256][5];
/* 256 letters of the byte alphabet, "ab", a word for the merge of "Ġ" and "ab", three specials; ids 0.. in this order.
 * */
static void byte_tokens(Make *m, const char *pre) {
    const char *text[VOC];
    int type[VOC];
    char *byte_json;
    size_t len;
    Err e = {0};
    Json j;
    ok(tokenizer_byte_json(&byte_json, &len, &e), &e);
    ok(json_parse(&j, byte_json, len, "b", &e), &e);
    const JsonRef vocab = json_get(&j, json_get(&j, 0, "model"), "vocab");
    int n = 0;
    for (JsonRef r = json_first(&j, vocab); r >= 0; r = json_next(&j, r), n++) {
        snprintf(letters[n], sizeof letters[n], "%s", json_key(&j, r, NULL));
        text[n] = letters[n];
        type[n] = 1;
    }
    json_free(&j);
    mem_free(byte_json);
    static const char *const more[] = {"ab",
                                       "\xC4\xA0"
                                       "ab",
                                       "<|start|>", "<|end|>", "<tool>"};
    static const int kinds[] = {1, 1, 3, 3, 4};
    for (int i = 0; i < 5; i++) text[n] = more[i], type[n++] = kinds[i];
    static const char *const merges[] = {"a b", "\xC4\xA0 ab"};
    pair_str(m, "tokenizer.ggml.model", "gpt2");
    if (pre) pair_str(m, "tokenizer.ggml.pre", pre);
    pair_strs(m, "tokenizer.ggml.tokens", text, (size_t)n);
    pair_i32s(m, "tokenizer.ggml.token_type", type, (size_t)n);
    pair_strs(m, "tokenizer.ggml.merges", merges, 2);
    pair_u32(m, "tokenizer.ggml.bos_token_id", 258);
    pair_u32(m, "tokenizer.ggml.eos_token_id", 259);
}

static void model_file(const Spec *s, const char *path) {
    Make m = {0};
    Err e = {0};
    model_pairs(&m, s->arch);
    byte_tokens(&m, "smollm");
    model_tensor(&m, "token_embd.weight", VOC, C, s->matrix, 0);
    for (int l = 0; l < L; l++) model_layer(&m, s, l);
    model_tensor(&m, "output_norm.weight", 0, C, GGML_F32, 0);
    if (!s->tied) model_tensor(&m, "output.weight", VOC, C, s->matrix, 0);
    if (s->rope) { // transformers' llama3 rule with factor 32, as convert_hf_to_gguf.py stores it
        float f[D / 2];
        for (int i = 0; i < D / 2; i++) {
            const double wave = 2 * 3.14159265358979323846 * pow(500000, 2.0 * i / D), smooth = (8192 / wave - 1) / 3;
            f[i] = (float)(wave < 2048 ? 1 : wave > 8192 ? 32 : 1 / ((1 - smooth) / 32 + smooth));
        }
        if (s->rope == 2) f[D / 4] += 0.5f;
        tensor(&m, "rope_freqs.weight", 0, D / 2, GGML_F32, f, sizeof f);
    }
    Bytes b = make_file(&m, 3);
    ok(file_write_all(path, b.p, b.n, &e), &e);
    free(b.p);
    make_free(&m);
}

static const struct {
    const char *gguf, *fla;
} names[] = {{"token_embd.weight", "model.embeddings.weight"},
             {"output_norm.weight", "model.norm.weight"},
             {"output.weight", "lm_head.weight"},
             {"blk.1.attn_q.weight", "model.layers.1.attn.q_proj.weight"},
             {"blk.0.attn_k.weight", "model.layers.0.attn.k_proj.weight"},
             {"blk.0.attn_v.weight", "model.layers.0.attn.v_proj.weight"},
             {"blk.1.attn_output.weight", "model.layers.1.attn.o_proj.weight"},
             {"blk.1.attn_q.bias", "model.layers.1.attn.q_proj.bias"},
             {"blk.1.attn_k.bias", "model.layers.1.attn.k_proj.bias"},
             {"blk.0.attn_q_norm.weight", "model.layers.0.attn.q_norm.weight"},
             {"blk.1.ffn_norm.weight", "model.layers.1.mlp_norm.weight"},
             {"blk.0.ffn_gate.weight", "model.layers.0.mlp.gate_proj.weight"},
             {"blk.1.ffn_up.weight", "model.layers.1.mlp.up_proj.weight"},
             {"blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"}};

static const Spec specs[] = {
    {.arch = "llama", .matrix = GGML_F32},
    {.arch = "llama", .matrix = GGML_Q8_0, .tied = 1},
    {.arch = "llama", .matrix = GGML_F32, .tied = 1, .bias = 1},
    {.arch = "llama", .matrix = GGML_Q8_0, .rope = 1},
    {.arch = "qwen2", .matrix = GGML_Q8_0, .bias = 1},
    {.arch = "qwen2", .matrix = GGML_F32, .bias = 1, .tied = 1},
    {.arch = "qwen3", .matrix = GGML_F32, .qk_norm = 1, .tied = 1},
};

START_TEST(test_models) {
    const Spec *s = &specs[_i];
    const char *file = tmpdir_path("m.gguf"), *dir = tmpdir_path("converted");
    GgufModel m;
    HfModel h;
    Err e = {0};
    const HfSaveOptions o = {.dtype = DT_F32, .shard_bytes = _i == 1 ? 1 << 20 : 0};
    model_file(s, file);
    ok(gguf_model_open(&m, file, &e), &e);
    ok(gguf_model_save(&m, dir, &o, &e), &e);
    gguf_model_close(&m);
    ok(hf_open(&h, dir, &e), &e);
    const Config *c = &h.config;
    ck_assert_str_eq(c->family, s->bias ? "qwen2" : s->arch); // llama with q, k, v biases only is what Qwen2 is
    ck_assert(c->C == C && c->L == L && c->H == H && c->Hk == HK && c->D == D && c->F == F && c->VOC == VOC &&
              c->tied == s->tied);
    ck_assert(c->norm_eps == 1e-5 && c->rope.theta == 500000 && c->max_positions == 1024 && c->bos == 258 &&
              c->eos[0] == 259);
    ck_assert(c->qkv_bias == s->bias && c->qk_norm == s->qk_norm &&
              c->rope.kind == (s->rope ? ROPE_LLAMA3 : ROPE_PLAIN));
    if (s->rope)
        ck_assert(c->rope.factor == 32 && c->rope.low_freq == 1 && c->rope.high_freq == 4 && c->rope.original == 8192);
    if (_i == 1) ck_assert_int_gt(h.n_shards, 1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const Tensor *t = hf_tensor(&h, names[i].fla);
        if ((s->tied && i == 2) || (!s->bias && strstr(names[i].gguf, "bias")) ||
            (!s->qk_norm && strstr(names[i].gguf, "q_norm")))
            continue;
        ck_assert_msg(t != NULL, "%s", names[i].fla);
        for (size_t k = 0; k < t->count; k++) {
            float x;
            memcpy(&x, t->data + 4 * k, 4);
            ck_assert_msg(x == wanted(names[i].gguf, k, t->rank > 1, s->matrix), "%s element %zu: %g", names[i].fla, k,
                          x);
        }
    }
    hf_close(&h);
    Tokenizer *t;
    ok(tokenizer_open(&t, dir, &e), &e);
    tokenizer_close(t);
}
END_TEST

START_TEST(test_model_faults) {
    static const struct {
        Spec s;
        const char *says;
    } bad[] = {
        {{.arch = "llama", .matrix = GGML_F32, .skip = "blk.1.ffn_up.weight"},
         "tensor 'blk.1.ffn_up.weight' is missing"},
        {{.arch = "qwen2", .matrix = GGML_F32, .tied = 1}, "tensor 'blk.0.attn_q.bias' is missing"},
        {{.arch = "qwen2", .matrix = GGML_F32, .bias = 1, .qk_norm = 1},
         "tensor 'blk.0.attn_k_norm.weight' is not a parameter"},
        {{.arch = "llama", .matrix = GGML_F32, .rope = 2}, "tensor 'rope_freqs.weight': element 16 is"},
        {{.arch = "phi3", .matrix = GGML_F32}, "general.architecture: got \"phi3\", expected llama, qwen2 or qwen3"}};
    GgufModel m;
    Err e = {0};
    const char *file = tmpdir_path("bad.gguf");
    model_file(&bad[_i].s, file);
    ck_assert_int_eq(gguf_model_open(&m, file, &e), ERR_INPUT);
    ck_assert_msg(strstr(e.msg, bad[_i].says) != NULL, "%s", e.msg);
    ck_assert(!m.param && !m.g.tensor);
}
END_TEST

/* Every allocation may fail: an error each time, nothing left behind. */
START_TEST(test_no_memory) {
    const Spec s = {.arch = "llama", .matrix = GGML_Q8_0, .tied = 1};
    const char *file = tmpdir_path("m.gguf"), *dir = tmpdir_path("nomem");
    const HfSaveOptions o = {.dtype = DT_F32};
    model_file(&s, file);
    const size_t before = mem_now();
    int done = 0;
    for (long n = 0; !done; n += n < 60 ? 1 : 17) {
        GgufModel m;
        Err e = {0};
        mem_fail_after(n);
        int rc = gguf_model_open(&m, file, &e);
        if (!rc) rc = gguf_model_save(&m, dir, &o, &e);
        mem_fail_after(-1);
        gguf_model_close(&m);
        ck_assert_uint_eq(mem_now(), before);
        if (rc) ck_assert_int_eq(rc, ERR_MEMORY);
        done = !rc;
        ck_assert_int_lt(n, 5000);
    }
}
END_TEST

/* ---- tokenizers ---- */

static int open_tokenizer(Tokenizer **t, const Make *m, Err *e) {
    Gguf g;
    char *text = NULL;
    size_t len = 0;
    Bytes b = make_file(m, 3);
    *t = NULL;
    int rc = gguf_parse(&g, b.p, b.n, "x.gguf", e);
    if (!rc) rc = gguf_tokenizer_json(&text, &len, &g, e);
    if (!rc) rc = tokenizer_parse(t, text, len, "t", e);
    mem_free(text);
    gguf_close(&g);
    free(b.p);
    return rc;
}

static void expect_ids(const Tokenizer *t, const char *text, int flags, const int *want, size_t n) {
    Ids ids = {0};
    Err e = {0};
    ok(tokenizer_encode(t, text, strlen(text), flags, &ids, &e), &e);
    ck_assert_uint_eq(ids.n, n);
    for (size_t i = 0; i < n; i++) ck_assert_int_eq(ids.id[i], want[i]);
    ids_free(&ids);
}

START_TEST(test_byte_level) {
    static const char *const pres[] = {"smollm", "qwen2", "gpt-2", "llama-bpe"};
    Make m = {0};
    Tokenizer *t;
    Err e = {0};
    byte_tokens(&m, pres[_i]);
    ok(open_tokenizer(&t, &m, &e), &e);
    const int a[] = {256, 257, ' ', '1', '2', 258, 'c'}, b[] = {260, 'a'}, c[] = {258, 256};
    expect_ids(t, "ab ab 12<|start|>c", 0, a, 7);
    expect_ids(t, "<tool>a", 0, b, 2);
    // Llama-3 begins with BOS unless told not to
    expect_ids(t, "ab", TOKENIZE_SPECIAL, _i == 3 ? c : c + 1, _i == 3 ? 2 : 1);
    const int nfc[] = {0xc3, 0xa9}, raw[] = {'e', 0xcc, 0x81};
    expect_ids(t, "e\xCC\x81", 0, _i == 1 ? nfc : raw, _i == 1 ? 2 : 3); // only Qwen2 composes
    tokenizer_close(t);
    make_free(&m);
    byte_tokens(&m, _i == 0 ? "deepseek-coder" : _i == 1 ? "default" : _i == 2 ? "" : NULL);
    ck_assert_int_eq(open_tokenizer(&t, &m, &e), ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(e.msg, "x.gguf: tokenizer.ggml.pre: got \""));
    make_free(&m);
}
END_TEST

/* The rule itself: join the neighbours whose union has the highest score, the leftmost of equals, until none is a
 * token. */
static size_t by_score(const char *const *tok, const float *score, int n_tok, const char *text, int *ids) {
    char piece[64][64];
    size_t n = 0;
    for (const char *s = text; *s;) {
        const size_t w = (unsigned char)*s < 0x80 ? 1 : (unsigned char)*s < 0xe0 ? 2 : 3;
        snprintf(piece[n], sizeof piece[n], "%.*s", (int)w, s);
        n++, s += w;
    }
    for (;;) {
        size_t best = n;
        float top = -1e30f;
        for (size_t i = 0; i + 1 < n; i++) {
            char both[128];
            snprintf(both, sizeof both, "%s%s", piece[i], piece[i + 1]);
            for (int k = 0; k < n_tok; k++)
                if (!strcmp(tok[k], both) && score[k] > top) top = score[k], best = i;
        }
        if (best == n) break;
        char both[128];
        snprintf(both, sizeof both, "%s%s", piece[best], piece[best + 1]);
        snprintf(piece[best], sizeof piece[best], "%.63s", both);
        memmove(piece[best + 1], piece[best + 2], (n - best - 2) * sizeof *piece);
        n--;
    }
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < n_tok; k++)
            if (!strcmp(tok[k], piece[i])) ids[i] = k;
    return n;
}

START_TEST(test_sentencepiece) {
    enum { SPECIALS = 3, PLAIN = 16, N = SPECIALS + 256 + PLAIN };
    static const char *const plain[PLAIN] = {"\xE2\x96\x81",
                                             "a",
                                             "b",
                                             "c",
                                             "\xC3\xA9",
                                             "ab",
                                             "bc",
                                             "abc",
                                             "\xE2\x96\x81"
                                             "a",
                                             "\xE2\x96\x81"
                                             "ab",
                                             "ca",
                                             "cab",
                                             "bcab",
                                             "aa",
                                             "aaa",
                                             "\xC3\xA9"
                                             "a"};
    static const float plain_score[PLAIN] = {-100, -101, -102, -103, -104, -3, -2,  -5,
                                             -1,   -7,   -4,   -6,   -8,   -9, -10, -11};
    static char bytes[256][8];
    const char *text[N];
    int type[N];
    float score[N] = {0};
    Make m = {0};
    Tokenizer *t;
    Err e = {0};
    text[0] = "<unk>", text[1] = "<s>", text[2] = "</s>";
    type[0] = 2, type[1] = type[2] = 3;
    for (int i = 0; i < 256; i++) {
        snprintf(bytes[i], sizeof bytes[i], "<0x%02X>", (unsigned)i);
        text[SPECIALS + i] = bytes[i];
        type[SPECIALS + i] = 6;
    }
    for (int i = 0; i < PLAIN; i++)
        text[SPECIALS + 256 + i] = plain[i], type[SPECIALS + 256 + i] = 1, score[SPECIALS + 256 + i] = plain_score[i];
    pair_str(&m, "tokenizer.ggml.model", "llama");
    pair_strs(&m, "tokenizer.ggml.tokens", text, N);
    pair_i32s(&m, "tokenizer.ggml.token_type", type, N);
    pair_f32s(&m, "tokenizer.ggml.scores", score, N);
    pair_u32(&m, "tokenizer.ggml.bos_token_id", 1);
    pair_u32(&m, "tokenizer.ggml.eos_token_id", 2);
    if (_i) pair_bool(&m, "tokenizer.ggml.add_bos_token", 0), pair_bool(&m, "tokenizer.ggml.add_space_prefix", 0);
    ok(open_tokenizer(&t, &m, &e), &e);
    Rng r;
    rng_seed(&r, 9);
    for (int round = 0; round < 300; round++) {
        static const char *const bits[] = {"a", "b", "c", " ", "\xC3\xA9"};
        char in[64], marked[128];
        size_t in_len = 0, marked_len = 0;
        int want[64] = {1};
        const size_t first = _i ? 0 : 1;
        if (!_i) marked_len += (size_t)snprintf(marked, sizeof marked, "\xE2\x96\x81");
        for (uint32_t k = 1 + rng_below(&r, 12); k; k--) {
            const char *bit = bits[rng_below(&r, 5)];
            in_len += (size_t)snprintf(in + in_len, sizeof in - in_len, "%s", bit);
            marked_len += (size_t)snprintf(marked + marked_len, sizeof marked - marked_len, "%s",
                                           *bit == ' ' ? "\xE2\x96\x81" : bit);
        }
        const size_t n = by_score(plain, plain_score, PLAIN, marked, want + first);
        for (size_t i = first; i < n + first; i++) want[i] += SPECIALS + 256;
        expect_ids(t, in, TOKENIZE_SPECIAL, want, n + first);
    }
    const int fallback[] = {SPECIALS + 'z'};
    if (_i) expect_ids(t, "z", 0, fallback, 1);
    tokenizer_close(t);
    make_free(&m);
}
END_TEST

START_TEST(test_tokenizer_faults) {
    static const char *const says[] = {
        "x.gguf: tokenizer.ggml.model: got \"bert\", expected gpt2 or llama",
        "x.gguf: tokenizer.ggml.tokens: missing",
        "x.gguf: tokenizer.ggml.tokens: 261 tokens, but as many types or scores are not there",
        "x.gguf: tokenizer.ggml.merges: got an array of i32, expected one of a string",
        "x.gguf: tokenizer.ggml.bos_token_id: got 9999",
        "x.gguf: tokenizer.ggml.tokens: 'ab' is there twice: ids 1 and 2"};
    static const char *const word[] = {"a"}, *const twice[] = {"a", "ab", "ab"};
    static const int one[] = {1}, added[] = {1, 4, 4};
    Make m = {0};
    Tokenizer *t;
    Err e = {0};
    if (_i == 0) pair_str(&m, "tokenizer.ggml.model", "bert");
    if (_i == 1) pair_str(&m, "tokenizer.ggml.model", "gpt2"), pair_str(&m, "tokenizer.ggml.pre", "gpt-2");
    if (_i == 2) {
        byte_tokens(&m, "gpt-2");
        for (size_t i = 0; i + 25 < m.pairs.n; i++) // its own types under another name, and one of our own
            if (!memcmp(m.pairs.p + i, "tokenizer.ggml.token_type", 25)) m.pairs.p[i] = 'T';
        pair_i32s(&m, "tokenizer.ggml.token_type", one, 1);
    }
    if (_i == 3 || _i == 4) {
        pair_str(&m, "tokenizer.ggml.model", "gpt2");
        pair_str(&m, "tokenizer.ggml.pre", "gpt-2");
        pair_strs(&m, "tokenizer.ggml.tokens", word, 1);
    }
    if (_i == 3) pair_i32s(&m, "tokenizer.ggml.merges", one, 1);
    if (_i == 4) pair_u32(&m, "tokenizer.ggml.bos_token_id", 9999);
    if (_i == 5) {
        pair_str(&m, "tokenizer.ggml.model", "gpt2");
        pair_str(&m, "tokenizer.ggml.pre", "gpt-2");
        pair_strs(&m, "tokenizer.ggml.tokens", twice, 3);
        pair_i32s(&m, "tokenizer.ggml.token_type", added, 3);
        pair_strs(&m, "tokenizer.ggml.merges", twice, 0);
    }
    ck_assert_int_eq(open_tokenizer(&t, &m, &e), ERR_INPUT);
    ck_assert_msg(!strncmp(e.msg, says[_i], strlen(says[_i])), "%s", e.msg);
    make_free(&m);
}
END_TEST

SUITE("gguf") {
    GROUP("all", .setup_once = tmpdir_begin, .teardown_once = tmpdir_end, .timeout = 120);
    CASE(test_formats, .times = sizeof quantised / sizeof *quantised);
    CASE(test_plain_formats);
    CASE(test_read, .times = 2);
    CASE(test_every_prefix);
    CASE(test_every_byte);
    CASE(test_faults, .times = sizeof fault_says / sizeof *fault_says);
    CASE(test_versions);
    CASE(test_models, .times = sizeof specs / sizeof *specs);
    CASE(test_model_faults, .times = 5);
    CASE(test_no_memory);
    CASE(test_byte_level, .times = 4);
    CASE(test_sentencepiece, .times = 2);
    CASE(test_tokenizer_faults, .times = 6);
}
