/* test_safetensors.c - number types and their conversions; the verdict corpus testdata/st;
 * the writer, its faults included. */
#include "base/mem.h"
#include "base/rng.h"
#include "io/safetensors.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void ok(int rc, const Err *e) {
    if (rc) ck_abort_msg("code %d: %s (%s)", rc, e->msg, e->hint);
}

/* ---- number types ---- */

START_TEST(test_dtype_names) {
    for (int t = 0; t < DT_COUNT; t++) {
        const char *name = dtype_name((DType)t);
        ck_assert_int_eq(dtype_parse(name, strlen(name)), t);
        ck_assert_int_eq(dtype_parse(name, strlen(name) - 1), -1); // no name is a beginning of another by one letter
        ck_assert_int_ge(dtype_bits((DType)t), 4);
    }
    ck_assert_int_eq(dtype_parse("F32 ", 4), -1);
    ck_assert_int_eq(dtype_parse("", 0), -1);
    ck_assert_int_eq(dtype_bits(DT_BF16), 16);
    ck_assert_int_eq(dtype_bits(DT_C64), 64);
    ck_assert_int_eq(dtype_bits(DT_F6_E2M3), 6);
    char x[8] = {0}, y[8];
    ck_assert_int_eq(dtype_convert(DT_F32, y, DT_I32, x, 1), -1);
    ck_assert_int_eq(dtype_convert(DT_F8_E4M3, y, DT_F32, x, 1), -1);
    ck_assert_int_eq(dtype_convert(DT_COUNT, y, DT_F32, x, 1), -1);
    ck_assert_int_eq(dtype_convert(DT_F32, y, DT_COUNT, x, 1), -1);
    ck_assert_int_eq(dtype_convert(DT_F32, NULL, DT_F64, NULL, 0), 0);
}
END_TEST

/* The value of a 16-bit code, from its definition. */
static double value16(unsigned code, int exp_bits, int frac_bits) {
    int top = (1 << exp_bits) - 1, exp = (int)(code >> frac_bits) & top, bias = top / 2;
    double frac = (double)(code & ((1u << frac_bits) - 1)) / (1 << frac_bits);
    double v = exp == top ? (frac != 0 ? NAN : INFINITY) : exp ? ldexp(1 + frac, exp - bias) : ldexp(frac, 1 - bias);
    return code >> 15 ? -v : v;
}

static int same(double a, double b) { return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b)); }

static const struct {
    DType type;
    int exp, frac;
} small[2] = {{DT_F16, 5, 10}, {DT_BF16, 8, 7}};

START_TEST(test_widen_all) {
    // All 65536 codes to float and double, exactly, and back to the same code (a NaN to a NaN with the same sign).
    for (unsigned code = 0; code < 65536; code++) {
        double want = value16(code, small[_i].exp, small[_i].frac), d = 0;
        uint16_t c = (uint16_t)code, back = 0;
        float f = 0;
        ck_assert_int_eq(dtype_convert(DT_F32, &f, small[_i].type, &c, 1), 0);
        ck_assert_int_eq(dtype_convert(DT_F64, &d, small[_i].type, &c, 1), 0);
        ck_assert_msg(same(f, want) && same(d, want), "code %04x: %g %g, expected %g", code, f, d, want);
        for (int wide = 0; wide < 2; wide++) {
            if (wide) dtype_convert(small[_i].type, &back, DT_F64, &d, 1);
            else dtype_convert(small[_i].type, &back, DT_F32, &f, 1);
            if (isnan(want)) ck_assert(isnan(value16(back, small[_i].exp, small[_i].frac)) && back >> 15 == code >> 15);
            else ck_assert_uint_eq(back, code);
        }
    }
}
END_TEST

START_TEST(test_narrow_all) {
    // Between every two neighbouring codes: just below, at and just above the middle, for float and double input.
    // The tie goes
    // to the even code; beyond the largest finite value lies Inf, half a step above it.
    int exp = small[_i].exp, frac = small[_i].frac, inf = ((1 << exp) - 1) << frac;
    for (int code = 0; code < inf; code++)
        for (int sign = 0; sign < 2; sign++) {
            double lo = value16((unsigned)code, exp, frac);
            double hi = code + 1 == inf ? 2 * lo - value16((unsigned)code - 1, exp, frac)
                                        : value16((unsigned)code + 1, exp, frac);
            double middle = (lo + hi) / 2,
                   in[5] = {lo, nextafter(middle, 0), middle, nextafter(middle, INFINITY), nextafter(hi, 0)};
            int want[5] = {code, code, code + (code & 1), code + 1, code + 1};
            for (int k = 0; k < 5; k++) {
                double d = sign ? -in[k] : in[k];
                uint16_t got = 0;
                dtype_convert(small[_i].type, &got, DT_F64, &d, 1);
                ck_assert_msg(got == (want[k] | sign << 15), "%.17g gives %04x, expected %04x", d, got,
                              want[k] | sign << 15);
                float f = (float)in[k];
                if (k != 2) { // the float next to the middle on the same side
                    float m = (float)middle;
                    f = k == 0   ? (float)lo
                        : k == 1 ? nextafterf(m, 0)
                        : k == 3 ? nextafterf(m, INFINITY)
                                 : nextafterf((float)hi, 0);
                }
                if (sign) f = -f;
                dtype_convert(small[_i].type, &got, DT_F32, &f, 1);
                ck_assert_msg(got == (want[k] | sign << 15), "float %.9g gives %04x, expected %04x", f, got,
                              want[k] | sign << 15);
            }
        }
}
END_TEST

START_TEST(test_narrow_special) {
    static const double d[] = {INFINITY, -INFINITY, NAN, 0.0, -0.0, 1e300, -1e300, 1e-300, 0x1p-1074, -0x1p-1074};
    static const uint16_t f16[] = {0x7c00, 0xfc00, 0, 0, 0x8000, 0x7c00, 0xfc00, 0, 0, 0x8000};
    static const uint16_t bf16[] = {0x7f80, 0xff80, 0, 0, 0x8000, 0x7f80, 0xff80, 0, 0, 0x8000};
    for (int i = 0; i < 10; i++) {
        uint16_t h, b;
        float f;
        dtype_convert(DT_F16, &h, DT_F64, &d[i], 1);
        dtype_convert(DT_BF16, &b, DT_F64, &d[i], 1);
        dtype_convert(DT_F32, &f, DT_F64, &d[i], 1);
        ck_assert(same(f, (float)d[i]));
        if (i == 2) ck_assert((h & 0x7fff) > 0x7c00 && (b & 0x7fff) > 0x7f80);
        else ck_assert(h == f16[i] && b == bf16[i]);
    }
    // NaNs whose payload sits only in the bits that fall away must not become Inf.
    uint32_t nan32[] = {0x7f800001, 0xff800001, 0x7fffffff};
    uint64_t nan64[] = {UINT64_C(0x7ff0000000000001), UINT64_C(0xfff0000000000001), UINT64_C(0x7fffffffffffffff)};
    for (int i = 0; i < 3; i++) {
        uint16_t h[2], b[2];
        float f;
        dtype_convert(DT_F16, &h[0], DT_F32, &nan32[i], 1);
        dtype_convert(DT_F16, &h[1], DT_F64, &nan64[i], 1);
        dtype_convert(DT_BF16, &b[0], DT_F32, &nan32[i], 1);
        dtype_convert(DT_BF16, &b[1], DT_F64, &nan64[i], 1);
        dtype_convert(DT_F32, &f, DT_F64, &nan64[i], 1);
        ck_assert(isnan(f));
        for (int k = 0; k < 2; k++) {
            ck_assert((h[k] & 0x7fff) > 0x7c00 && (b[k] & 0x7fff) > 0x7f80);
            ck_assert(h[k] >> 15 == (i == 1) && b[k] >> 15 == (i == 1));
        }
    }
    // Double rounding: just above a tie of the narrow type, by less than float can see.
    double trap = 1 + 0x1p-8 + 0x1p-40;
    uint16_t b;
    dtype_convert(DT_BF16, &b, DT_F64, &trap, 1);
    ck_assert_uint_eq(b, 0x3f81);
    trap = 1 + 0x1p-11 + 0x1p-45;
    dtype_convert(DT_F16, &b, DT_F64, &trap, 1);
    ck_assert_uint_eq(b, 0x3c01);
}
END_TEST

START_TEST(test_convert_random) {
    // Against the compiler's own conversions where it has them (double to float), and F16 <-> BF16 against a step
    // through double;
    // unaligned on both sides, odd lengths.
    enum { N = 100000 };
    static unsigned char in[8 * N + 1], out[8 * N + 3];
    Rng r;
    rng_seed(&r, 1);
    for (size_t i = 0; i < sizeof in; i++) in[i] = (unsigned char)rng_u64(&r);
    for (int i = 0; i < N; i += 2) { // half of them with exponents near those of float
        uint64_t x = (rng_u64(&r) & UINT64_C(0x800fffffffffffff)) | (uint64_t)(1023 - 160 + rng_below(&r, 300)) << 52;
        memcpy(in + 1 + 8 * i, &x, 8);
    }
    ck_assert_int_eq(dtype_convert(DT_F32, out + 3, DT_F64, in + 1, N), 0);
    for (int i = 0; i < N; i++) {
        double d;
        float f;
        memcpy(&d, in + 1 + 8 * i, 8);
        memcpy(&f, out + 3 + 4 * i, 4);
        ck_assert_msg(same(f, (float)d), "%.17g: %.9g", d, f);
    }
    ck_assert_int_eq(dtype_convert(DT_F64, out + 3, DT_F32, in + 1, N), 0);
    for (int i = 0; i < N; i++) {
        double d;
        float f;
        memcpy(&f, in + 1 + 4 * i, 4);
        memcpy(&d, out + 3 + 8 * i, 8);
        ck_assert(same(d, f));
    }
    for (unsigned code = 0; code < 65536; code++)
        for (int k = 0; k < 2; k++) {
            uint16_t c = (uint16_t)code, direct, stepwise;
            double d;
            dtype_convert(small[!k].type, &direct, small[k].type, &c, 1);
            dtype_convert(DT_F64, &d, small[k].type, &c, 1);
            dtype_convert(small[!k].type, &stepwise, DT_F64, &d, 1);
            ck_assert_uint_eq(direct, stepwise);
        }
    ck_assert_int_eq(dtype_convert(DT_F16, out + 1, DT_F16, in, N), 0); // the same type: bytes as they are
    ck_assert_mem_eq(out + 1, in, 2 * N);
}
END_TEST

START_TEST(test_convert_arrays) {
    // Every pair of types, arrays of every small length: element by element the same, and not a byte more.
    static const DType type[4] = {DT_F16, DT_BF16, DT_F32, DT_F64};
    enum { N = 40 };
    unsigned char in[8 * N], one[8], out[8 * N + 8];
    Rng r;
    rng_seed(&r, 3);
    for (int from = 0; from < 4; from++)
        for (int to = 0; to < 4; to++)
            for (size_t n = 0; n <= N; n++) {
                size_t a = (size_t)dtype_bits(type[from]) / 8, b = (size_t)dtype_bits(type[to]) / 8;
                for (size_t i = 0; i < sizeof in; i++) in[i] = (unsigned char)rng_u64(&r);
                memset(out, 0xa5, sizeof out);
                ck_assert_int_eq(dtype_convert(type[to], out, type[from], in, n), 0);
                for (size_t i = 0; i < n; i++) {
                    dtype_convert(type[to], one, type[from], in + i * a, 1);
                    ck_assert_mem_eq(out + i * b, one, b);
                }
                for (size_t i = n * b; i < n * b + 8; i++) ck_assert_uint_eq(out[i], 0xa5);
            }
}
END_TEST

/* ---- reading ---- */

static char **corpus;
static size_t corpus_n;

static void corpus_begin(void) {
    Err e = {0};
    ok(file_list(&corpus, &corpus_n, "testdata/st", &e), &e);
}

static void corpus_end(void) { file_list_free(corpus, corpus_n); }

/* Everything that safetensors.h promises of an open file. */
static void check_open(const Safetensors *s, const unsigned char *data, size_t size) {
    const unsigned char *at = data + 8 + s->header_bytes;
    for (size_t i = 0; i < s->n; i++) {
        const Tensor *t = &s->tensor[i];
        size_t count = 1;
        for (int d = 0; d < t->rank; d++) count *= t->shape[d];
        ck_assert_ptr_eq(t->data, at);
        ck_assert_uint_eq(t->count, count);
        ck_assert_uint_eq(t->bytes * 8, count * (size_t)dtype_bits(t->dtype));
        ck_assert_ptr_eq(safetensors_find(s, t->name), t);
        at += t->bytes;
    }
    ck_assert_ptr_eq(at, data + size);
    ck_assert_ptr_null(safetensors_find(s, "no such tensor"));
}

START_TEST(test_verdicts) {
    int good = 0, bad = 0;
    size_t before = mem_now();
    for (size_t i = 0; i < corpus_n; i++) {
        char path[300];
        Safetensors s;
        static const Safetensors zero;
        Err e = {0};
        snprintf(path, sizeof path, "testdata/st/%s", corpus[i]);
        int rc = safetensors_open(&s, path, &e);
        if (!strncmp(corpus[i], "ok_", 3)) {
            ck_assert_msg(!rc, "%s", e.msg);
            check_open(&s, s.file.data, s.file.size);
            good++;
        } else {
            ck_assert_msg(!strncmp(corpus[i], "bad_", 4), "what is %s?", corpus[i]);
            ck_assert_msg(rc == ERR_INPUT, "%s accepted", corpus[i]);
            ck_assert_msg(!strncmp(e.msg, path, strlen(path)), "the message does not begin with the file: %s", e.msg);
            ck_assert_mem_eq(&s, &zero, sizeof s);
            ck_assert_ptr_null(safetensors_find(&s, "a"));
            bad++;
        }
        safetensors_close(&s);
        ck_assert_uint_eq(mem_now(), before);
    }
    ck_assert_int_ge(good, 30);
    ck_assert_int_ge(bad, 90);
}
END_TEST

START_TEST(test_messages) {
    static const struct {
        const char *file, *says;
    } want[] = {
        {"bad_unknown_dtype", "tensor 'a': unknown dtype 'Q4'"},
        {"bad_size_mismatch", "tensor 'a': data_offsets span 4 bytes, shape x dtype needs 400"},
        {"bad_oob", "tensor 'a': data ends at 16, the file has 4 bytes of data"},
        {"bad_hole", "tensor 'b': data begins at 8, expected 4: bytes that belong to no tensor"},
        {"bad_overlap", "tensor 'b': data begins at 0, expected 4: it overlaps another tensor"},
        {"bad_extra_tail", "tensors take 4 bytes of data, the file has 20"},
        {"bad_neg_dim", "tensor 'a': shape: got -1, expected an integer in [0, 281474976710655]"},
        {"bad_rank9", "tensor 'a': 9 dimensions, at most 8 are supported"},
        {"bad_dup_key", ":1:55: key \"a\" appears twice"},
        {"bad_header_length_1000", "header length 1000, but only 2 bytes follow"},
        {"bad_header_length_2_63", "at most 100000000 is allowed"},
        {"bad_meta_nonstring", "__metadata__: the value of 'n' is not a string"},
        {"bad_empty_file", "0 bytes are too few"},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        char path[200];
        Safetensors s;
        Err e = {0};
        snprintf(path, sizeof path, "testdata/st/%s.st", want[i].file);
        ck_assert_int_eq(safetensors_open(&s, path, &e), ERR_INPUT);
        ck_assert_msg(strstr(e.msg, want[i].says), "%s\n should say: %s", e.msg, want[i].says);
    }
}
END_TEST

START_TEST(test_read_details) {
    Safetensors s;
    Err e = {0};
    ok(safetensors_open(&s, "testdata/st/ok_offset_order.st", &e), &e);
    ck_assert_uint_eq(s.n, 3); // in file order, whatever the header's order was
    ck_assert_str_eq(s.tensor[0].name, "b");
    ck_assert_str_eq(s.tensor[2].name, "c");
    safetensors_close(&s);
    safetensors_close(&s);
    ok(safetensors_open(&s, "testdata/st/ok_meta_escape.st", &e), &e);
    ck_assert_uint_eq(s.n_meta, 1);
    ck_assert_str_eq(s.meta_key[0], "note");
    ck_assert_str_eq(s.meta_value[0], "say \"hi\"\n");
    safetensors_close(&s);
    ok(safetensors_open(&s, "testdata/st/ok_unicode_escape_name.st", &e), &e);
    ck_assert_ptr_nonnull(safetensors_find(&s, "caf\xc3\xa9"));
    safetensors_close(&s);
    ok(safetensors_open(&s, "testdata/st/ok_scalar.st", &e), &e);
    ck_assert(s.tensor[0].rank == 0 && s.tensor[0].count == 1 && s.tensor[0].bytes == 4);
    safetensors_close(&s);
    ok(safetensors_open(&s, "testdata/st/ok_empty_among_others.st", &e), &e);
    ck_assert_uint_eq(safetensors_find(&s, "z")->bytes, 0);
    ck_assert_uint_eq(safetensors_find(&s, "b")->bytes, 4);
    safetensors_close(&s);
    ck_assert_int_eq(safetensors_open(&s, "testdata/st/none.st", &e), ERR_IO);
    memset(&e, 0, sizeof e);
    ck_assert_int_eq(safetensors_open(&s, "testdata/st", &e), ERR_IO);
}
END_TEST

START_TEST(test_read_memory) {
    // Every allocation fails once: code 5, everything given back.
    static const char *const path[] = {"testdata/st/ok_all_dtypes.st", "testdata/st/ok_meta_many.st"};
    for (int i = 0; i < 2; i++) {
        int n = 0;
        size_t before = mem_now();
        for (;; n++) {
            Safetensors s;
            Err e = {0};
            mem_fail_after(n);
            int rc = safetensors_open(&s, path[i], &e);
            mem_fail_after(-1);
            safetensors_close(&s);
            ck_assert_uint_eq(mem_now(), before);
            if (!rc) break;
            ck_assert_int_eq(rc, ERR_MEMORY);
        }
        ck_assert_int_ge(n, 8);
    }
    // Numbers in a header must not become allocations.
    mem_peak_reset();
    size_t before = mem_now();
    for (size_t i = 0; i < corpus_n; i++) {
        char p[300];
        File f;
        Err e = {0};
        Safetensors s;
        snprintf(p, sizeof p, "testdata/st/%s", corpus[i]);
        ok(file_open(&f, p, &e), &e);
        mem_peak_reset();
        safetensors_parse(&s, f.data, f.size, p, NULL);
        safetensors_close(&s);
        ck_assert_msg(mem_peak() - before <= 16 * f.size + 4096, "%s: %zu bytes for a file of %zu", p,
                      mem_peak() - before, f.size);
        file_close(&f);
    }
}
END_TEST

/* ---- a header of 100 MB ---- */

enum { HEADER = 100000000 };
/* A beginning and one text again and again; or so many entries of empty tensors (backwards: of one byte each,
 * the last one first). */
static const struct {
    const char *name, *begin, *again;
    size_t entries;
    int name_bytes, backwards, code;
} flood[] = {
    {"list in metadata", "{\"__metadata__\":{\"a\":[", "0,", 0, 0, 0, ERR_INPUT},
    {"metadata members", "{\"__metadata__\":{", "\"\":\"\",", 0, 0, 0, ERR_INPUT},
    {"nested objects", "", "{\"a\":", 0, 0, 0, ERR_INPUT},
    {"brackets", "{\"a\":", "[", 0, 0, 0, ERR_INPUT},
    {"long shape", "{\"a\":{\"shape\":[", "0,", 0, 0, 0, ERR_INPUT},
    {"null members", "{", "\"\":null,", 0, 0, 0, ERR_INPUT},
    {"colons", "{", ":", 0, 0, 0, ERR_INPUT},
    {"spaces", "", " ", 0, 0, 0, ERR_INPUT},
    {"quotes", "{", "\"", 0, 0, 0, ERR_INPUT},
    {"endless name", "{\"", "x", 0, 0, 0, ERR_INPUT},
    {"names of 4096", NULL, NULL, 24000, 4096, 0, OK},
    {"names of 4097", NULL, NULL, 24000, 4097, 0, ERR_INPUT},
    {"a million", NULL, NULL, 1000000, 5, 0, OK},
    {"a million and one", NULL, NULL, 1000001, 5, 0, ERR_INPUT},
    {"a million back", NULL, NULL, 1000000, 5, 1, OK},
};

/* The header text number k into t; returns how many bytes. */
static size_t flood_fill(char *t, int k) {
    size_t at = 0;
    for (size_t i = 0; i < flood[k].entries; i++) {
        const size_t begin = flood[k].backwards ? flood[k].entries - 1 - i : 0,
                     end = begin + (size_t)flood[k].backwards;
        at += (size_t)snprintf(t + at, 4300, "%c\"%0*zx\":{\"dtype\":\"I8\",\"shape\":[%d],\"data_offsets\":[%zu,%zu]}",
                               i ? ',' : '{', flood[k].name_bytes, i, flood[k].backwards, begin, end);
    }
    if (flood[k].entries) {
        t[at++] = '}';
        return at;
    }
    const size_t n = strlen(flood[k].again);
    at = strlen(flood[k].begin);
    memcpy(t, flood[k].begin, at);
    for (; at + n <= HEADER; at += n) memcpy(t + at, flood[k].again, n);
    memset(t + at, ' ', HEADER - at);
    return HEADER;
}

static size_t flood_write(const char *path, int k) {
    Err e = {0};
    FileWriter w;
    void *t;
    ok(mem_alloc(&t, HEADER + 5000, "header", &e), &e);
    const size_t n = flood_fill(t, k), data = flood[k].backwards ? flood[k].entries : 0;
    unsigned char head[8];
    for (int i = 0; i < 8; i++) head[i] = (unsigned char)((uint64_t)n >> 8 * i);
    ok(file_create(&w, path, &e), &e);
    ok(file_write(&w, head, 8, &e), &e);
    ok(file_write(&w, t, n, &e), &e);
    memset(t, 0, data);
    ok(file_write(&w, t, data, &e), &e);
    ok(file_commit(&w, &e), &e);
    mem_free(t);
    return 8 + n + data;
}

START_TEST(test_flood) {
    // In a process of its own, which tells what it used: twice the file and 64 MiB, two seconds.
    const char *path = tmpdir_path("flood.st");
    const size_t size = flood_write(path, _i);
    const pid_t pid = fork();
    if (!pid) {
        Safetensors s;
        Err e = {0};
        int rc = safetensors_open(&s, path, &e);
        if (rc != flood[_i].code || (rc && (!e.msg[0] || strlen(e.msg) > 1000))) rc = 99;
        safetensors_close(&s);
        _exit(rc);
    }
    int status;
    struct rusage u;
    ck_assert_int_eq(wait4(pid, &status, 0, &u), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == flood[_i].code, "%d: %s: status %x", _i, flood[_i].name,
                  (unsigned)status);
    const double seconds =
        (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    printf("header of %.0f MB, %-18.18s: %.2f s, %.0f MB (%.0f MB allowed)\n", (double)size / 1e6, flood[_i].name,
           seconds, (double)u.ru_maxrss * 1024 / 1e6, 2 * (double)size / 1e6 + 67);
#ifndef __SANITIZE_ADDRESS__ // which is slower and keeps what was freed
    ck_assert_msg(seconds < 2 || getenv("HYBRIDIZE_SLOW"), "%.2f s", seconds); // set by builds that are slow on purpose
    ck_assert_msg((size_t)u.ru_maxrss * 1024 <= 2 * size + (64 << 20), "%ld KiB", u.ru_maxrss);
#endif
}
END_TEST

START_TEST(test_mutations) {
    // Every length, and bytes changed at random: no crash, no read outside (the sanitizers look), and no promise
    // broken.
    Rng r;
    int accepted = 0;
    size_t before = mem_now();
    rng_seed(&r, 2);
    for (size_t i = 0; i < corpus_n; i++) {
        char path[300];
        File f;
        Err e = {0};
        snprintf(path, sizeof path, "testdata/st/%s", corpus[i]);
        ok(file_open(&f, path, &e), &e);
        size_t step = f.size / 60 + 1;
        for (size_t n = 0; f.size < 20000 && n < f.size + 60 * step; n += step) {
            // a block of exactly n bytes, so that the address sanitizer guards its end
            size_t size = n < f.size ? n : f.size;
            void *copy;
            Safetensors s;
            ok(mem_alloc(&copy, size, "copy", &e), &e);
            memcpy(copy, f.data, size);
            if (n >= f.size && size)
                for (uint64_t k = 1 + rng_below(&r, 3); k; k--)
                    ((unsigned char *)copy)[rng_below(&r, size)] ^= (unsigned char)(1 << rng_below(&r, 8));
            int rc = safetensors_parse(&s, copy, size, "x", NULL);
            ck_assert(rc == OK || rc == ERR_INPUT);
            if (!rc) check_open(&s, copy, size), accepted++;
            safetensors_close(&s);
            mem_free(copy);
        }
        file_close(&f);
    }
    ck_assert_int_gt(accepted, 40);
    ck_assert_uint_eq(mem_now(), before);
}
END_TEST

/* ---- writing ---- */

static const DType used[] = {DT_BF16, DT_F32,  DT_F16,     DT_F64, DT_I64, DT_I32,
                             DT_U8,   DT_BOOL, DT_F8_E4M3, DT_U16, DT_F4};
enum { TENSORS = 22 };
static unsigned char bytes[TENSORS][4096];

/* Two tensors of every type, of ranks 0 to 4, in no order, one empty. */
static void make_tensors(Tensor *t) {
    static char name[TENSORS][40];
    for (int i = 0; i < TENSORS; i++) {
        int k = i * 7 % TENSORS;
        DType type = used[k / 2];
        snprintf(name[i], sizeof name[i], "model.layers.%d.%s", (i * 5) % 11, k % 2 ? "w\"\\" : "b\xc3\xa9");
        t[i] = (Tensor){.name = name[i], .dtype = type, .rank = i % 5, .data = bytes[i]};
        t[i].count = 1;
        for (int d = 0; d < t[i].rank; d++)
            t[i].count *= t[i].shape[d] = (size_t)(i == 8 && d == 1 ? 0 : 2 + (i + d) % 3);
        if (type == DT_F4 && !t[i].rank) t[i].rank = 1, t[i].count = t[i].shape[0] = 2;
        t[i].bytes = t[i].count * (size_t)dtype_bits(type) / 8;
        for (size_t b = 0; b < t[i].bytes; b++) bytes[i][b] = (unsigned char)(i * 31 + (int)b * 7);
    }
}

static int same_files(const char *a, const char *b) {
    File x, y;
    Err e = {0};
    ok(file_open(&x, a, &e), &e);
    ok(file_open(&y, b, &e), &e);
    int same_bytes = x.size == y.size && !memcmp(x.data, y.data, x.size);
    file_close(&x);
    file_close(&y);
    return same_bytes;
}

static int fetch_calls;

static int fetch(void *ctx, const Tensor *t, size_t offset, void *buf, size_t n, Err *e) {
    fetch_calls++;
    if (ctx && t->dtype == *(DType *)ctx) return err_set(e, ERR_DEVICE, "the device is gone");
    memcpy(buf, t->data + offset, n);
    return OK;
}

START_TEST(test_round_trip) {
    Tensor t[TENSORS], shuffled[TENSORS];
    Safetensors s;
    Err e = {0};
    static const char *const meta[] = {"zebra", "1", "alpha", "\xc3\xa9\n\"", NULL};
    make_tensors(t);
    for (int i = 0; i < TENSORS; i++) shuffled[i] = t[TENSORS - 1 - i];
    ok(safetensors_write(tmpdir_path("a"), t, TENSORS, meta, NULL, NULL, &e), &e);
    ok(safetensors_write(tmpdir_path("b"), shuffled, TENSORS, meta, fetch, NULL, &e), &e);
    ck_assert(same_files(tmpdir_path("a"), tmpdir_path("b"))); // twice, in another order, streamed: the same bytes
    ok(safetensors_open(&s, tmpdir_path("a"), &e), &e);
    ck_assert_uint_eq(s.n, TENSORS);
    ck_assert_uint_eq(s.header_bytes % 8, 0);
    static const char *const keys[] = {"alpha", "format", "zebra"}, *const values[] = {"\xc3\xa9\n\"", "pt", "1"};
    ck_assert_uint_eq(s.n_meta, 3);
    for (int i = 0; i < 3; i++) {
        ck_assert_str_eq(s.meta_key[i], keys[i]);
        ck_assert_str_eq(s.meta_value[i], values[i]);
    }
    for (int i = 0; i < TENSORS; i++) {
        const Tensor *r = safetensors_find(&s, t[i].name);
        ck_assert_ptr_nonnull(r);
        ck_assert(r->dtype == t[i].dtype && r->rank == t[i].rank && r->bytes == t[i].bytes);
        ck_assert_mem_eq(r->shape, t[i].shape, sizeof r->shape);
        ck_assert_mem_eq(r->data, t[i].data, t[i].bytes);
    }
    for (size_t i = 1; i < s.n; i++) // larger types first, so that every tensor is aligned to its own type
        ck_assert((dtype_bits(s.tensor[i].dtype) + 7) / 8 <= (dtype_bits(s.tensor[i - 1].dtype) + 7) / 8);
    ok(safetensors_write(tmpdir_path("c"), s.tensor, s.n, meta, NULL, NULL, &e), &e); // from the map of the first
    ck_assert(same_files(tmpdir_path("a"), tmpdir_path("c")));
    // over the very file that is mapped
    ok(safetensors_write(tmpdir_path("a"), s.tensor, s.n, NULL, NULL, NULL, &e), &e);
    safetensors_close(&s);
    ok(safetensors_open(&s, tmpdir_path("a"), &e), &e);
    ck_assert_uint_eq(s.n_meta, 1);
    safetensors_close(&s);
    ok(safetensors_write(tmpdir_path("none"), NULL, 0, NULL, NULL, NULL, &e), &e);
    ok(safetensors_open(&s, tmpdir_path("none"), &e), &e);
    ck_assert_uint_eq(s.n, 0);
    safetensors_close(&s);
}
END_TEST

START_TEST(test_reference_bytes) {
    // What the reference implementation wrote, 38 tensors of 19 types, comes out of our writer byte for byte.
    Safetensors s;
    Err e = {0};
    ok(safetensors_open(&s, "testdata/st/ok_reference_writer.st", &e), &e);
    ck_assert_uint_eq(s.n, 38);
    ok(safetensors_write(tmpdir_path("a"), s.tensor, s.n, NULL, NULL, NULL, &e), &e);
    ck_assert(same_files(tmpdir_path("a"), "testdata/st/ok_reference_writer.st"));
    safetensors_close(&s);
}
END_TEST

START_TEST(test_streaming) {
    // A tensor of several pieces: each piece is asked for once, in order.
    enum { BYTES = 9 << 20 };
    Tensor t = {.name = "big", .dtype = DT_BF16, .rank = 2, .shape = {9, 1 << 19}, .count = BYTES / 2, .bytes = BYTES};
    void *p;
    Err e = {0};
    Safetensors s;
    ok(mem_alloc(&p, BYTES, "big", &e), &e);
    for (size_t i = 0; i < BYTES; i++) ((unsigned char *)p)[i] = (unsigned char)(i * 2654435761u >> 13);
    t.data = p;
    fetch_calls = 0;
    ok(safetensors_write(tmpdir_path("big"), &t, 1, NULL, fetch, NULL, &e), &e);
    ck_assert_int_eq(fetch_calls, 3);
    ok(safetensors_open(&s, tmpdir_path("big"), &e), &e);
    ck_assert_mem_eq(s.tensor[0].data, p, BYTES);
    safetensors_close(&s);
    mem_free(p);
}
END_TEST

START_TEST(test_write_refusals) {
    Tensor t[TENSORS];
    make_tensors(t);
    Tensor good = t[0], bad[8];
    for (int i = 0; i < 8; i++) bad[i] = good;
    char longer[5000];
    memset(longer, 'n', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    bad[0].name = "bad\xff";
    bad[1].name = "__metadata__";
    bad[2].name = longer;
    bad[3].rank = 9;
    bad[4].rank = 2, bad[4].shape[0] = bad[4].shape[1] = (size_t)1 << 40;
    bad[5].dtype = DT_F4, bad[5].rank = 1, bad[5].shape[0] = 3;
    bad[6].dtype = DT_COUNT;
    bad[7].name = NULL;
    for (int i = 0; i < 8; i++) {
        Err e = {0};
        ck_assert_int_eq(safetensors_write(tmpdir_path("x"), &bad[i], 1, NULL, NULL, NULL, &e), ERR_INPUT);
        ck_assert_int_eq(file_exists(tmpdir_path("x")), 0);
    }
    Err e = {0};
    t[1].name = t[0].name; // another type, so not next to each other in the file
    ck_assert_int_ne(t[0].dtype, t[1].dtype);
    ck_assert_int_eq(safetensors_write(tmpdir_path("x"), t, 3, NULL, NULL, NULL, &e), ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(e.msg, "given twice"));
    static const char *const twice[] = {"a", "1", "a", "2", NULL};
    ck_assert_int_eq(safetensors_write(tmpdir_path("x"), &good, 1, twice, NULL, NULL, NULL), ERR_INPUT);
    longer[4096] = 0; // the longest name that is allowed
    bad[2].name = longer;
    memset(&e, 0, sizeof e);
    ok(safetensors_write(tmpdir_path("x"), &bad[2], 1, NULL, NULL, NULL, &e), &e);
    static const char *const own[] = {"format", "np", NULL};
    memset(&e, 0, sizeof e);
    ok(safetensors_write(tmpdir_path("x"), &good, 1, own, NULL, NULL, &e), &e);
    Safetensors s;
    ok(safetensors_open(&s, tmpdir_path("x"), &e), &e);
    ck_assert_str_eq(s.meta_value[0], "np");
    safetensors_close(&s);
    make_tensors(t);
    DType broken = DT_I32; // an error of the fetch function comes through, and nothing is left behind
    ck_assert_int_eq(safetensors_write(tmpdir_path("y"), t, TENSORS, NULL, fetch, &broken, &e), ERR_DEVICE);
    ck_assert_str_eq(e.msg, "the device is gone");
    memset(&e, 0, sizeof e);
    ok(file_remove(tmpdir_path("x"), &e), &e);
    char **left;
    size_t n;
    ok(file_list(&left, &n, tmpdir, &e), &e);
    ck_assert_uint_eq(n, 0);
    file_list_free(left, n);
}
END_TEST

static int write_all(void *arg) {
    Tensor t[TENSORS];
    static const char *const meta[] = {"step", "20", NULL};
    Err e = {0};
    make_tensors(t);
    return safetensors_write(arg, t, TENSORS, meta, fetch, NULL, &e);
}

START_TEST(test_write_faults) {
    // Out of memory at every allocation, an I/O error, a full disk or a kill at every call: the old file stays whole.
    const char *old = tmpdir_path("old"), *path = tmpdir_path("new"), *whole = tmpdir_path("whole");
    Err e = {0};
    Tensor t[TENSORS];
    make_tensors(t);
    ok(safetensors_write(old, t, 3, NULL, NULL, NULL, &e), &e);
    ck_assert_int_eq(write_all((void *)(uintptr_t)whole), OK);
    int n = 0, rc = ERR_MEMORY;
    size_t before = mem_now();
    for (; rc; n++) {
        ok(file_copy(old, path, &e), &e);
        mem_fail_after(n);
        rc = write_all((void *)(uintptr_t)path);
        mem_fail_after(-1);
        ck_assert_uint_eq(mem_now(), before);
        ck_assert(rc == OK || rc == ERR_MEMORY);
        ck_assert(same_files(path, rc ? old : whole));
    }
    ck_assert_int_gt(n, 4);
    static const char *const fault[3][2] = {
        {"HYBRIDIZE_FAIL_IO", ""}, {"HYBRIDIZE_FAIL_IO", ":ENOSPC"}, {"HYBRIDIZE_KILL_IO", ""}};
    for (int k = 0; k < 3; k++) {
        int calls = 0, done = 0;
        for (; !done; calls++) {
            char value[40];
            int status = 0;
            ok(file_copy(old, path, &e), &e);
            snprintf(value, sizeof value, "%ld%s", file_io_calls() + calls + 1, fault[k][1]);
            setenv(fault[k][0], value, 1);
            fflush(NULL);
            pid_t pid = fork();
            ck_assert_int_ge(pid, 0);
            if (!pid) _exit(write_all((void *)(uintptr_t)path));
            ck_assert_int_eq(waitpid(pid, &status, 0), pid);
            unsetenv(fault[k][0]);
            done = WIFEXITED(status) && !WEXITSTATUS(status);
            if (!done && k < 2) ck_assert_int_eq(WEXITSTATUS(status), ERR_IO);
            if (!done && k == 2) ck_assert(WIFSIGNALED(status));
            ck_assert_msg(same_files(path, whole) || (!done && same_files(path, old)),
                          "neither old nor new after call %d", calls + 1);
            ok(file_remove_temps(tmpdir, &e), &e);
        }
        ck_assert_int_eq(calls, 6); // create, write, fsync, rename, fsync of the directory; then the one that succeeds
    }
}
END_TEST

SUITE("safetensors") {
    GROUP("dtype", .timeout = 120);
    CASE(test_dtype_names);
    CASE(test_widen_all, .times = 2);
    CASE(test_narrow_all, .times = 2);
    CASE(test_narrow_special);
    CASE(test_convert_random);
    CASE(test_convert_arrays);
    GROUP("large", .setup = tmpdir_begin, .teardown = tmpdir_end);
    CASE(test_flood, .times = sizeof flood / sizeof *flood);
    GROUP("read", .setup = corpus_begin, .teardown = corpus_end);
    CASE(test_verdicts);
    CASE(test_messages);
    CASE(test_read_details);
    CASE(test_read_memory);
    CASE(test_mutations);
    GROUP("write", .setup = tmpdir_begin, .teardown = tmpdir_end, .timeout = 120);
    CASE(test_round_trip);
    CASE(test_reference_bytes);
    CASE(test_streaming);
    CASE(test_write_refusals);
    CASE(test_write_faults);
}
