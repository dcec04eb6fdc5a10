/* test_base.c - errors, memory, arena, random numbers, CRC, files with every I/O call failing or killing once. */
#include "base/arena.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/text_buf.h"
#include "base/utf8.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void ok(int rc, const Err *e) {
    if (rc) ck_abort_msg("code %d: %s (%s)", rc, e->msg, e->hint);
}

/* ---- err ---- */

START_TEST(test_err) {
    Err e = {0};
    ck_assert_int_eq(err_hint(&e, "no error yet"), OK);
    ck_assert_int_eq(err_prefix(&e, "x"), OK);
    ck_assert_str_eq(e.hint, "");
    ck_assert_int_eq(err_set(&e, ERR_INPUT, "%s: got %d", "a", 3), ERR_INPUT);
    ck_assert_int_eq(err_set(&e, ERR_IO, "second"), ERR_IO); // the code of the failing call, the first message
    ck_assert_str_eq(e.msg, "a: got 3");
    ck_assert_int_eq(e.code, ERR_INPUT);
    ck_assert_int_eq(err_hint(&e, "try %s", "b"), ERR_INPUT);
    err_hint(&e, "another");
    ck_assert_str_eq(e.hint, "try b");
    ck_assert_int_eq(err_prefix(&e, "file %d", 7), ERR_INPUT);
    ck_assert_str_eq(e.msg, "file 7: a: got 3");
}
END_TEST

START_TEST(test_err_edges) {
    Err e = {0};
    char big[2000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    // Names come from untrusted files: one line, no terminal escapes, no overrun.
    err_set(&e, ERR_INPUT, "a\nb\x1b[31m\tc\x7f");
    ck_assert_str_eq(e.msg, "a b?[31m c?");
    memset(&e, 0, sizeof e);
    err_set(&e, ERR_INPUT, "%s", big);
    ck_assert_uint_eq(strlen(e.msg), sizeof e.msg - 1);
    err_prefix(&e, "%s", big);
    err_hint(&e, "%s", big);
    ck_assert_uint_eq(strlen(e.msg), sizeof e.msg - 1);
    ck_assert_uint_eq(strlen(e.hint), sizeof e.hint - 1);
    ck_assert_int_eq(err_set(NULL, ERR_IO, "x"), ERR_IO);
    ck_assert_int_ne(err_hint(NULL, "x"), OK); // an error must stay an error
    ck_assert_int_ne(err_prefix(NULL, "x"), OK);
}
END_TEST

/* ---- mem ---- */

START_TEST(test_mem) {
    size_t base = mem_now();
    Err e = {0};
    void *p[4], *q = NULL;
    static const size_t sizes[4] = {0, 1, 63, 100000};
    mem_peak_reset();
    for (int i = 0; i < 4; i++) {
        ok(mem_alloc(&p[i], sizes[i], "x", &e), &e);
        ck_assert_ptr_nonnull(p[i]);
        ck_assert_uint_eq((uintptr_t)p[i] % 64, 0);
        for (size_t k = 0; k < sizes[i]; k++) ck_assert_int_eq(((char *)p[i])[k], 0);
        memset(p[i], 0xff, sizes[i]);
    }
    ck_assert_uint_eq(mem_now() - base, 100064);
    ck_assert_ptr_ne(p[0], p[1]);
    ok(mem_grow(&p[2], 63, 5000, "x", &e), &e);
    for (int k = 0; k < 5000; k++) ck_assert_int_eq(((unsigned char *)p[2])[k], k < 63 ? 0xff : 0);
    ok(mem_grow(&q, 0, 10, "x", &e), &e);
    ck_assert_uint_eq(mem_now() - base, 1 + 5000 + 100000 + 10);
    for (int i = 0; i < 4; i++) mem_free(p[i]);
    mem_free(q);
    mem_free(NULL);
    ck_assert_uint_eq(mem_now(), base);
    ck_assert_uint_ge(mem_peak() - base, 105011);
    mem_peak_reset();
    ck_assert_uint_eq(mem_peak(), base);
}
END_TEST

START_TEST(test_mem_fail) {
    Err e = {0};
    void *p = NULL, *q = NULL;
    size_t n, base = mem_now();
    mem_fail_after(2);
    ok(mem_alloc(&p, 8, "first", &e), &e);
    ok(mem_alloc(&q, 8, "second", &e), &e);
    mem_free(q);
    memcpy(p, "abcdefgh", 8);
    for (int i = 0; i < 3; i++) { // every later one fails, and says what it was for
        memset(&e, 0, sizeof e);
        ck_assert_int_eq(mem_alloc(&q, 12345, "the third", &e), ERR_MEMORY);
        ck_assert_ptr_null(q);
        ck_assert_ptr_nonnull(strstr(e.msg, "the third"));
        ck_assert_ptr_nonnull(strstr(e.msg, "12345"));
    }
    ck_assert_int_eq(mem_grow(&p, 8, 100, "x", &e), ERR_MEMORY);
    ck_assert_mem_eq(p, "abcdefgh", 8); // untouched
    mem_fail_after(-1);
    mem_free(p);
    ck_assert_uint_eq(mem_now(), base);
    memset(&e, 0, sizeof e);
    ck_assert_int_eq(mem_alloc(&p, SIZE_MAX - 10, "too much", &e), ERR_MEMORY);
    ck_assert_int_eq(mem_mul(&n, SIZE_MAX / 2, 3, "x", &e), ERR_MEMORY);
    ck_assert_uint_eq(n, 0);
    ok(mem_mul(&n, 7, 0, "x", &e), NULL);
    ok(mem_mul(&n, SIZE_MAX / 8, 8, "x", &e), NULL);
    ck_assert_uint_eq(n, SIZE_MAX / 8 * 8);
    char *s;
    memset(&e, 0, sizeof e);
    ok(mem_strndup(&s, "ab\0cd", 5, &e), &e);
    ck_assert_mem_eq(s, "ab\0cd\0", 6);
    mem_free(s);
}
END_TEST

/* Forks; returns the wait status of a child that exits with run(). */
static int in_child(int (*run)(void *), void *arg) {
    fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (!pid) _exit(run(arg));
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

static int alloc_three(void *arg) {
    void *p;
    (void)arg;
    int failed = 0;
    for (int i = 0; i < 3; i++)
        if (mem_alloc(&p, 8, "x", NULL)) failed++;
        else mem_free(p);
    return failed;
}

START_TEST(test_mem_environment) {
    // Runs in check's own child, so nothing was allocated and the variable is read now.
    setenv("HYBRIDIZE_FAIL_ALLOC", "1", 1);
    int status = in_child(alloc_three, NULL);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 2);
    setenv("HYBRIDIZE_FAIL_ALLOC", "nonsense", 1);
    ck_assert_int_eq(WEXITSTATUS(in_child(alloc_three, NULL)), 0);
    unsetenv("HYBRIDIZE_FAIL_ALLOC");
    ck_assert_int_eq(WEXITSTATUS(in_child(alloc_three, NULL)), 0);
}
END_TEST

/* ---- arena ---- */

static void place(Arena *a, char **p) {
    p[0] = arena_take(a, 3, 4);
    p[1] = arena_take(a, 0, 8);
    p[2] = arena_take(a, 100, 8);
    p[3] = arena_take(a, 1, 1);
}

START_TEST(test_arena) {
    Arena a = {0};
    char *p[4];
    void *base;
    Err e = {0};
    place(&a, p);
    for (int i = 0; i < 4; i++) ck_assert_ptr_null(p[i]);
    ck_assert(!a.overflow);
    size_t need = a.used;
    ok(mem_alloc(&base, need, "arena", &e), &e);
    arena_begin(&a, base, need);
    place(&a, p);
    ck_assert(!a.overflow);
    ck_assert_uint_eq(a.used, need);
    ck_assert_ptr_eq(p[0], base);
    static const size_t bytes[4] = {12, 0, 800, 1};
    for (int i = 0; i < 4; i++) {
        ck_assert_uint_eq((uintptr_t)p[i] % 64, 0);
        memset(p[i], i, bytes[i]);
        if (i) ck_assert(p[i] >= p[i - 1] + bytes[i - 1]);
    }
    for (int i = 0; i < 4; i++)
        for (size_t k = 0; k < bytes[i]; k++) ck_assert_int_eq(p[i][k], i);
    ck_assert_ptr_null(arena_take(&a, 1, 1));
    ck_assert(a.overflow);
    ck_assert_uint_eq(a.used, need);
    arena_begin(&a, base, need); // scratch: the same bytes again
    size_t mark = a.used;
    char *first = arena_take(&a, 10, 10);
    arena_release(&a, mark);
    char *again = arena_take(&a, 10, 10);
    ck_assert_ptr_eq(first, again);
    memset(again, 1, 100);
    mem_free(base);
}
END_TEST

START_TEST(test_arena_overflow) {
    Arena a = {0};
    ck_assert_ptr_null(arena_take(&a, SIZE_MAX / 2, 4)); // n * size wraps
    ck_assert(a.overflow);
    a = (Arena){0};
    arena_take(&a, SIZE_MAX / 2, 1);
    ck_assert(!a.overflow);
    arena_take(&a, SIZE_MAX / 2 - 300, 1);
    arena_take(&a, 1000, 1); // the sum wraps
    ck_assert(a.overflow);
    a = (Arena){0};
    arena_take(&a, SIZE_MAX, 1); // rounding up wraps
    ck_assert(a.overflow);
    ck_assert_ptr_null(arena_take(&a, 1, 1)); // and it stays failed
}
END_TEST

/* ---- rng ---- */

START_TEST(test_rng_reference) {
    // xoshiro256++ from the state {1,2,3,4} and splitmix64 from 1234567: the published sequences.
    static const uint64_t want[] = {41943041u,
                                    58720359u,
                                    3588806011781223u,
                                    3591011842654386u,
                                    9228616714210784205u,
                                    9973669472204895162u,
                                    14011001112246962877u,
                                    12406186145184390807u};
    static const uint64_t seeds[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                     4593380528125082431u};
    Rng r = {{1, 2, 3, 4}};
    for (int i = 0; i < 8; i++) ck_assert_uint_eq(rng_u64(&r), want[i]);
    rng_seed(&r, 1234567);
    for (int i = 0; i < 4; i++) ck_assert_uint_eq(r.s[i], seeds[i]);
}
END_TEST

START_TEST(test_rng_streams) {
    Rng a, b;
    rng_seed3(&a, 42, 1, 2);
    rng_seed3(&b, 42, 1, 2);
    for (int i = 0; i < 10; i++) ck_assert_uint_eq(rng_u64(&a), rng_u64(&b));
    uint64_t seen[5][5][5];
    for (uint64_t i = 0; i < 125; i++) {
        rng_seed3(&a, i / 25, i / 5 % 5, i % 5);
        seen[i / 25][i / 5 % 5][i % 5] = rng_u64(&a);
    }
    for (int i = 0; i < 125; i++)
        for (int k = 0; k < i; k++) ck_assert_uint_ne(((uint64_t *)seen)[i], ((uint64_t *)seen)[k]);
}
END_TEST

START_TEST(test_rng_uniform) {
    Rng r;
    enum { N = 200000 };
    double sum = 0, lo = 1, hi = 0;
    rng_seed(&r, 1);
    for (int i = 0; i < N; i++) {
        double u = rng_uniform(&r);
        ck_assert(u >= 0 && u < 1);
        sum += u;
        lo = fmin(lo, u);
        hi = fmax(hi, u);
    }
    ck_assert_double_eq_tol(sum / N, 0.5, 4 / sqrt(12.0 * N));
    ck_assert(lo < 1e-4 && hi > 1 - 1e-4);
    long count[7] = {0};
    for (int i = 0; i < N; i++) count[rng_below(&r, 7)]++;
    double chi = 0;
    for (int i = 0; i < 7; i++) chi += (count[i] - N / 7.0) * (count[i] - N / 7.0) / (N / 7.0);
    ck_assert(chi < 22.5); // 6 degrees of freedom: p = 0.001
    ck_assert_uint_eq(rng_below(&r, 1), 0);
    // Just over 2^63: without rejection a third of the values would come up twice as often.
    uint64_t n = (UINT64_C(1) << 63) + (UINT64_C(1) << 62);
    long low = 0;
    for (int i = 0; i < N; i++) {
        uint64_t x = rng_below(&r, n);
        ck_assert(x < n);
        low += x < UINT64_C(1) << 62;
    }
    ck_assert_double_eq_tol((double)low / N, 1 / 3.0, 4 * sqrt(2 / 9.0 / N));
}
END_TEST

START_TEST(test_rng_shuffle) {
    Rng r;
    long place_of[5][5] = {{0}};
    rng_seed(&r, 5);
    for (int t = 0; t < 20000; t++) {
        int x[5] = {0, 1, 2, 3, 4}, seen = 0;
        rng_shuffle(&r, x, 5);
        for (int i = 0; i < 5; i++) seen |= 1 << x[i], place_of[x[i]][i]++;
        ck_assert_int_eq(seen, 31);
    }
    for (int i = 0; i < 25; i++)
        ck_assert_double_eq_tol((double)place_of[i / 5][i % 5] / 20000, 0.2, 4.5 * sqrt(0.16 / 20000));
    rng_shuffle(&r, NULL, 0);
}
END_TEST

static int double_order(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

START_TEST(test_rng_normal) {
    enum { N = 400000 };
    static double x[N];
    double m[5] = {0}, tail35 = 0, tail2 = 0, ks = 0;
    Rng r;
    rng_seed(&r, 7);
    for (int i = 0; i < N; i++) {
        x[i] = rng_normal(&r);
        for (int k = 1; k <= 4; k++) m[k] += pow(x[i], k) / N;
        tail35 += fabs(x[i]) > 3.5;
        tail2 += fabs(x[i]) > 2;
    }
    // Standard errors of the sample moments of a normal: 1, sqrt 2, sqrt 15, sqrt 96, over sqrt N.
    ck_assert_double_eq_tol(m[1], 0, 4 / sqrt(N));
    ck_assert_double_eq_tol(m[2], 1, 4 * sqrt(2.0 / N));
    ck_assert_double_eq_tol(m[3], 0, 4 * sqrt(15.0 / N));
    ck_assert_double_eq_tol(m[4], 3, 4 * sqrt(96.0 / N));
    double p35 = erfc(3.5 / sqrt(2)), p2 = erfc(2 / sqrt(2));
    ck_assert_double_eq_tol(tail35, p35 * N, 4 * sqrt(p35 * N));
    ck_assert_double_eq_tol(tail2, p2 * N, 4 * sqrt(p2 * N));
    qsort(x, N, sizeof *x, double_order);
    ck_assert(x[N - 1] > 4 && x[0] < -4);
    for (int i = 0; i < N; i++) {
        double F = 0.5 * erfc(-x[i] / sqrt(2));
        ks = fmax(ks, fmax(fabs(F - (double)i / N), fabs(F - (i + 1.0) / N)));
    }
    ck_assert_msg(ks * sqrt(N) < 1.95, "Kolmogorov-Smirnov %g", ks * sqrt(N)); // p = 0.001
}
END_TEST

START_TEST(test_rng_normal_bits) {
    // The same bits on every machine and compiler: a hash of 10,000 values, made once with gcc 12 on x86-64.
    Rng r, copy;
    uint64_t h = UINT64_C(14695981039346656037);
    rng_seed(&r, 42);
    for (int i = 0; i < 10000; i++) {
        copy = r;
        double x = rng_normal(&r), u, s;
        uint64_t bits;
        memcpy(&bits, &x, 8);
        for (int k = 0; k < 8; k++) h = (h ^ (bits >> 8 * k & 255)) * UINT64_C(1099511628211);
        do { // the same point through libm's log: our log's error is a few units in the last place
            u = 2 * rng_uniform(&copy) - 1;
            double v = 2 * rng_uniform(&copy) - 1;
            s = u * u + v * v;
        } while (s >= 1 || s == 0);
        double want = u * sqrt(-2 * log(s) / s);
        ck_assert_msg(fabs(x - want) <= 4 * 0x1p-53 * fabs(want), "%.17g, libm gives %.17g", x, want);
    }
    ck_assert_msg(h == UINT64_C(18224290085015907597), "hash of the bits: %llu", (unsigned long long)h);
}
END_TEST

/* ---- crc, hash, utf8, text ---- */

static uint32_t crc_bitwise(uint32_t crc, const unsigned char *p, size_t n) {
    crc = ~crc;
    while (n--) {
        crc ^= *p++;
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

START_TEST(test_crc) {
    // RFC 3720 B.4.
    unsigned char b[32];
    static unsigned char big[100003];
    memset(b, 0, 32);
    ck_assert_uint_eq(file_crc32c(0, b, 32), 0x8a9136aa);
    memset(b, 0xff, 32);
    ck_assert_uint_eq(file_crc32c(0, b, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++) b[i] = (unsigned char)i;
    ck_assert_uint_eq(file_crc32c(0, b, 32), 0x46dd794e);
    ck_assert_uint_eq(file_crc32c(0, "123456789", 9), 0xe3069283);
    ck_assert_uint_eq(file_crc32c(0x1234, NULL, 0), 0x1234);
    Rng r;
    rng_seed(&r, 1);
    for (size_t i = 0; i < sizeof big; i++) big[i] = (unsigned char)rng_u64(&r);
    uint32_t want = crc_bitwise(0, big, sizeof big);
    ck_assert_uint_eq(file_crc32c(0, big, sizeof big), want);
    static const size_t cut[] = {1, 7, 16383, 16384, 16385, 50001, 100002};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) // in two calls, at every alignment of both paths
        ck_assert_uint_eq(file_crc32c(file_crc32c(0, big, cut[i]), big + cut[i], sizeof big - cut[i]), want);
}
END_TEST

START_TEST(test_utf8) {
    // Every code point encodes to what utf8_length takes whole, and to nothing when cut short;
    // surrogates are not characters.
    for (unsigned c = 0; c < 0x110000; c += c < 0x11000 ? 1 : 77) {
        unsigned char s[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const unsigned lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = n; i-- > 1;) s[i] = (unsigned char)(0x80 | (c >> 6 * (n - 1 - i) & 63));
        s[0] = (unsigned char)(lead[n] | c >> 6 * (n - 1));
        int surrogate = c >= 0xd800 && c < 0xe000;
        ck_assert_uint_eq(utf8_length(s, 4), surrogate ? 0 : n);
        if (n > 1) ck_assert_uint_eq(utf8_length(s, n - 1), 0);
    }
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x9f\xbf",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "\xc3(",
                                      "\xe2\x82(",
                                      "\xf0\x9f\x98("};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_uint_eq(utf8_length((const unsigned char *)bad[i], strlen(bad[i])), 0);
}
END_TEST

START_TEST(test_text_buf) {
    TextBuf b = {0};
    Err e = {0};
    ok(textbuf_end(&b, &e), &e);
    ck_assert_str_eq(b.text, "");
    for (int i = 0; i < 5000; i++) textbuf_printf(&b, "%d,", i % 10), textbuf_puts(&b, "ab");
    textbuf_put(&b, "x\0y", 3);
    ok(textbuf_end(&b, &e), &e);
    ck_assert_uint_eq(b.len, 20003);
    ck_assert_uint_eq(strlen(b.text), 20001);
    for (int i = 0; i < 5000; i++) ck_assert(b.text[4 * i] == '0' + i % 10 && !memcmp(b.text + 4 * i + 1, ",ab", 3));
    textbuf_free(&b);
    for (int n = 0; n < 3; n++) { // out of memory: remembered, reported once, nothing leaks
        size_t base = mem_now();
        TextBuf t = {0};
        memset(&e, 0, sizeof e);
        mem_fail_after(n);
        for (int i = 0; i < 1000; i++) textbuf_printf(&t, "%d", 1000000 + i);
        ck_assert_int_eq(textbuf_end(&t, &e), ERR_MEMORY);
        mem_fail_after(-1);
        textbuf_free(&t);
        ck_assert_uint_eq(mem_now(), base);
    }
    // Equal bytes, equal hash; every bit counts; the seed counts.
    unsigned char key[40] = {0};
    uint64_t h0 = hash_bytes(1, key, sizeof key);
    ck_assert(h0 == hash_bytes(1, key, sizeof key) && h0 != hash_bytes(2, key, sizeof key) &&
              h0 != hash_bytes(1, key, 39));
    for (int i = 0; i < 320; i++) {
        key[i / 8] ^= (unsigned char)(1 << i % 8);
        ck_assert(hash_bytes(1, key, sizeof key) != h0);
        key[i / 8] ^= (unsigned char)(1 << i % 8);
    }
}
END_TEST

/* ---- files ---- */

static void write_text(const char *path, const char *text) {
    Err e = {0};
    ok(file_write_all(path, text, strlen(text), &e), &e);
}

static void expect_text(const char *path, const void *text, size_t n) {
    File f;
    Err e = {0};
    ok(file_open(&f, path, &e), &e);
    ck_assert_uint_eq(f.size, n);
    ck_assert_mem_eq(f.data, text, n);
    file_close(&f);
}

START_TEST(test_file_read) {
    File f;
    Err e = {0};
    write_text(tmpdir_path("empty"), "");
    ok(file_open(&f, tmpdir_path("empty"), &e), &e);
    ck_assert_uint_eq(f.size, 0);
    ck_assert_ptr_nonnull(f.data);
    file_close(&f);
    file_close(&f);
    ck_assert_int_eq(file_open(&f, tmpdir_path("missing"), &e), ERR_IO);
    ck_assert_ptr_nonnull(strstr(e.msg, "No such file"));
    ck_assert_ptr_null(f.data);
    memset(&e, 0, sizeof e);
    ck_assert_int_eq(file_open(&f, tmpdir, &e), ERR_IO);
    ck_assert_ptr_nonnull(strstr(e.msg, "is a directory"));
    memset(&e, 0, sizeof e);
    ck_assert_int_eq(mkfifo(tmpdir_path("fifo"), 0600), 0);
    ck_assert_int_eq(file_open(&f, tmpdir_path("fifo"), &e), ERR_IO); // and does not wait for a writer
    ck_assert_ptr_nonnull(strstr(e.msg, "not a regular file"));
    ck_assert_int_eq(file_exists(tmpdir_path("empty")), 1);
    ck_assert_int_eq(file_exists(tmpdir), 2);
    ck_assert_int_eq(file_exists(tmpdir_path("missing")), 0);
    ck_assert_int_eq(file_exists(tmpdir_path("fifo")), 0);
}
END_TEST

START_TEST(test_file_write) {
    enum { N = 700001 }; // several buffers and a rest
    static unsigned char data[N];
    Err e = {0};
    Rng r;
    rng_seed(&r, 3);
    for (int i = 0; i < N; i++) data[i] = (unsigned char)rng_u64(&r);
    FileWriter w;
    ok(file_create(&w, tmpdir_path("a"), &e), &e);
    size_t at = 0;
    while (at < N) { // pieces of every kind: empty, small, across the buffer's end, larger than it
        size_t n = (size_t)rng_below(&r, rng_below(&r, 8) ? 5000 : 400000);
        if (n > N - at) n = N - at;
        ok(file_write(&w, data + at, n, &e), &e);
        at += n;
    }
    ck_assert_int_eq(file_exists(tmpdir_path("a")), 0); // nothing there before the commit
    ok(file_commit(&w, &e), &e);
    ck_assert_uint_eq(w.written, N);
    ck_assert_uint_eq(w.crc, file_crc32c(0, data, N));
    expect_text(tmpdir_path("a"), data, N);
    File old; // a mapped file may be replaced: the map keeps the old bytes
    ok(file_open(&old, tmpdir_path("a"), &e), &e);
    write_text(tmpdir_path("a"), "new");
    expect_text(tmpdir_path("a"), "new", 3);
    ck_assert_mem_eq(old.data, data, N);
    file_close(&old);
    ok(file_create(&w, tmpdir_path("a"), &e), &e);
    ok(file_write(&w, "x", 1, &e), &e);
    file_abort(&w);
    file_abort(&w);
    expect_text(tmpdir_path("a"), "new", 3);
    ok(file_copy(tmpdir_path("a"), tmpdir_path("b"), &e), &e);
    expect_text(tmpdir_path("b"), "new", 3);
    ok(file_append(tmpdir_path("b"), "+1", 2, &e), &e);
    ok(file_append(tmpdir_path("c"), "+1", 2, &e), &e);
    expect_text(tmpdir_path("b"), "new+1", 5);
    expect_text(tmpdir_path("c"), "+1", 2);
    ck_assert_int_eq(file_write(&w, "x", 1, &e), ERR_IO); // after the end
}
END_TEST

START_TEST(test_file_directories) {
    Err e = {0};
    char **names, path[64], deep[700];
    size_t n;
    snprintf(deep, sizeof deep, "%s/d/e//f/", tmpdir);
    ok(file_mkdirs(deep, &e), &e);
    ok(file_mkdirs(deep, &e), &e);
    ck_assert_int_eq(file_exists(tmpdir_path("d/e/f")), 2);
    write_text(tmpdir_path("d/z"), "1");
    write_text(tmpdir_path("d/A"), "1");
    write_text(tmpdir_path("d/a"), "1");
    ok(file_list(&names, &n, tmpdir_path("d"), &e), &e);
    ck_assert_uint_eq(n, 4);
    static const char *const want[] = {"A", "a", "e", "z"};
    for (size_t i = 0; i < n; i++) ck_assert_str_eq(names[i], want[i]);
    file_list_free(names, n);
    ck_assert_int_eq(file_list(&names, &n, tmpdir_path("nothing"), &e), ERR_IO);
    ck_assert_ptr_null(names);
    memset(&e, 0, sizeof e);
    ck_assert_int_eq(file_mkdirs(tmpdir_path("d/z/y"), &e), ERR_IO); // a file is in the way
    memset(&e, 0, sizeof e);
    ok(file_rename(tmpdir_path("d"), tmpdir_path("g"), &e), &e);
    ck_assert_int_eq(file_exists(tmpdir_path("d")), 0);
    ok(file_join(path, sizeof path, "a/", "b", &e), &e);
    ck_assert_str_eq(path, "a/b");
    ok(file_join(path, sizeof path, "/", "b", &e), &e);
    ck_assert_str_eq(path, "/b");
    ok(file_join(path, sizeof path, "", "b", &e), &e);
    ck_assert_str_eq(path, "b");
    ck_assert_int_eq(file_join(path, 5, "ab", "c", &e), OK);
    ck_assert_int_eq(file_join(path, 5, "ab", "cd", &e), ERR_IO);
    ck_assert_str_eq(path, "");
}
END_TEST

START_TEST(test_file_remove) {
    Err e = {0};
    ok(file_mkdirs(tmpdir_path("keep"), &e), &e);
    write_text(tmpdir_path("keep/precious"), "1");
    ok(file_mkdirs(tmpdir_path("tree/a/b"), &e), &e);
    write_text(tmpdir_path("tree/a/b/x"), "1");
    ck_assert_int_eq(symlink("../../keep", tmpdir_path("tree/a/link")), 0);
    ck_assert_int_eq(symlink("tree", tmpdir_path("link")), 0);
    ck_assert_int_eq(file_remove_tree(tmpdir_path("link"), &e), ERR_IO); // a link is not a tree of ours
    ck_assert_int_eq(file_exists(tmpdir_path("tree/a/b/x")), 1);
    memset(&e, 0, sizeof e);
    ok(file_remove_tree(tmpdir_path("tree"), &e), &e);
    ck_assert_int_eq(file_exists(tmpdir_path("tree")), 0);
    ck_assert_int_eq(file_exists(tmpdir_path("keep/precious")), 1);
    ok(file_remove_tree(tmpdir_path("tree"), &e), &e);
    ok(file_remove(tmpdir_path("keep/precious"), &e), &e);
    ok(file_remove(tmpdir_path("keep/precious"), &e), &e);
    static const char *const name[] = {"a.tmp-1",        "b.tmp-", "c.tmp-12x", ".tmp-3",
                                       "d.tmp-1.tmp-22", "tmp-5",  "e.tmp-7"};
    for (int i = 0; i < 6; i++) write_text(tmpdir_path(name[i]), "1");
    ok(file_mkdirs(tmpdir_path("e.tmp-7"), &e), &e);
    ok(file_remove_temps(tmpdir, &e), &e);
    static const int kept[] = {0, 1, 1, 1, 0, 1, 2};
    for (int i = 0; i < 7; i++) ck_assert_int_eq(file_exists(tmpdir_path(name[i])), kept[i]);
}
END_TEST

START_TEST(test_file_refusals) {
    Err e = {0};
    FileWriter w;
    char longer[1200];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    ck_assert_int_eq(file_create(&w, longer, &e), ERR_IO);
    file_abort(&w);
    memset(&e, 0, sizeof e);
    ck_assert_int_eq(file_create(&w, tmpdir_path("no/such/dir"), &e), ERR_IO);
    ck_assert_ptr_nonnull(strstr(e.msg, "no/such/dir"));
    file_abort(&w);
    memset(&e, 0, sizeof e);
    ck_assert_int_eq(file_mkdirs(longer, &e), ERR_IO);
    memset(&e, 0, sizeof e);
    ok(file_mkdirs(tmpdir_path("dir"), &e), &e);
    ck_assert_int_eq(file_write_all(tmpdir_path("dir"), "x", 1, &e), ERR_IO); // a directory stands there
    memset(&e, 0, sizeof e);
    ck_assert_int_eq(file_copy(tmpdir_path("missing"), tmpdir_path("x"), &e), ERR_IO);
    memset(&e, 0, sizeof e);
    for (long n = 0; n < 3; n++) { // out of memory
        mem_fail_after(n);
        char **names;
        size_t k;
        Err why = {0};
        int rc = file_list(&names, &k, tmpdir, &why);
        mem_fail_after(-1);
        if (!rc) file_list_free(names, k);
        else ck_assert_int_eq(rc, ERR_MEMORY);
        ck_assert(rc || n > 1);
    }
    mem_fail_after(0);
    ck_assert_int_eq(file_create(&w, tmpdir_path("x"), &e), ERR_MEMORY);
    mem_fail_after(-1);
    ck_assert_int_eq(file_exists(tmpdir_path("x")), 0);
}
END_TEST

/* ---- every I/O call once ---- */

enum { SIZE = 600000 }; // two direct writes and one from the buffer
static unsigned char new_data[SIZE];

/* What a checkpoint does: a directory, a large file, a small one, a rename. */
static int save(void *arg) {
    (void)arg;
    Err e = {0};
    int rc = file_mkdirs(tmpdir_path("run"), &e);
    FileWriter w;
    if (!rc) rc = file_create(&w, tmpdir_path("run/weights"), &e);
    if (!rc) {
        rc = file_write(&w, new_data, 100, &e);
        if (!rc) rc = file_write(&w, new_data + 100, SIZE - 100, &e);
        if (!rc) rc = file_commit(&w, &e);
        else file_abort(&w);
    }
    if (!rc) rc = file_append(tmpdir_path("run/log"), "row\n", 4, &e);
    if (!rc) rc = file_rename(tmpdir_path("run"), tmpdir_path("done"), &e);
    return rc ? (e.code == rc && e.msg[0] ? rc : 99) : 0;
}

static void weights_old_or_new(int must_be_new) {
    File f;
    Err e = {0};
    const char *path = file_exists(tmpdir_path("done")) ? tmpdir_path("done/weights") : tmpdir_path("run/weights");
    ok(file_open(&f, path, &e), &e);
    int is_old = f.size == 3 && !memcmp(f.data, "old", 3), is_new = f.size == SIZE && !memcmp(f.data, new_data, SIZE);
    ck_assert_msg(is_new || (is_old && !must_be_new), "the file is neither old nor new: %zu bytes", f.size);
    file_close(&f);
}

static int has_temps(const char *dir) {
    char **names;
    size_t n;
    int found = 0;
    Err e = {0};
    if (file_exists(dir) != 2) return 0;
    ok(file_list(&names, &n, dir, &e), &e);
    for (size_t i = 0; i < n; i++) found |= strstr(names[i], ".tmp-") != NULL;
    file_list_free(names, n);
    return found;
}

/* Runs save() once per I/O call with that call broken; returns how many calls there were. */
static int break_each_call(const char *variable, const char *kind, int kill, int harmless) {
    for (int n = 1; n < 100; n++) {
        char value[40];
        Err e = {0};
        ok(file_remove_tree(tmpdir_path("run"), &e), &e);
        ok(file_remove_tree(tmpdir_path("done"), &e), &e);
        ok(file_mkdirs(tmpdir_path("run"), &e), &e);
        write_text(tmpdir_path("run/weights"), "old");
        snprintf(value, sizeof value, "%ld%s", file_io_calls() + n, kind);
        setenv(variable, value, 1);
        int status = in_child(save, NULL);
        unsetenv(variable);
        int done = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (kill && !done) ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        else if (!kill && !done) ck_assert_int_eq(WEXITSTATUS(status), ERR_IO);
        if (harmless) ck_assert_msg(done, "call %d%s did harm", n, kind);
        weights_old_or_new(done);
        if (!kill)
            ck_assert_msg(!has_temps(tmpdir_path("run")) && !has_temps(tmpdir_path("done")), "litter after call %d", n);
        if (file_exists(tmpdir_path("run"))) ok(file_remove_temps(tmpdir_path("run"), &e), &e);
        ck_assert(!has_temps(tmpdir_path("run")));
        if (done && !harmless) return n - 1;
        if (harmless && n == 20) return n;
    }
    ck_abort_msg("never succeeded");
    return 0;
}

START_TEST(test_file_faults) {
    for (int i = 0; i < SIZE; i++) new_data[i] = (unsigned char)(i * 31 >> 3);
    // open, write x 2, fsync, rename, fsync of the directory, append's open and write, rename, fsync
    ck_assert_int_eq(break_each_call("HYBRIDIZE_FAIL_IO", "", 0, 0), 10);
    ck_assert_int_eq(break_each_call("HYBRIDIZE_FAIL_IO", ":ENOSPC", 0, 0), 10);
    ck_assert_int_eq(break_each_call("HYBRIDIZE_KILL_IO", "", 1, 0), 10);
    break_each_call("HYBRIDIZE_FAIL_IO", ":SHORT", 0, 1);
    break_each_call("HYBRIDIZE_FAIL_IO", ":EINTR", 0, 1);
}
END_TEST

SUITE("base") {
    GROUP("memory");
    CASE(test_err);
    CASE(test_err_edges);
    CASE(test_mem);
    CASE(test_mem_fail);
    CASE(test_mem_environment);
    CASE(test_arena);
    CASE(test_arena_overflow);
    GROUP("rng");
    CASE(test_rng_reference);
    CASE(test_rng_streams);
    CASE(test_rng_uniform);
    CASE(test_rng_shuffle);
    CASE(test_rng_normal);
    CASE(test_rng_normal_bits);
    CASE(test_crc);
    CASE(test_utf8);
    CASE(test_text_buf);
    GROUP("file", .setup = tmpdir_begin, .teardown = tmpdir_end);
    CASE(test_file_read);
    CASE(test_file_write);
    CASE(test_file_directories);
    CASE(test_file_remove);
    CASE(test_file_refusals);
    CASE(test_file_faults);
}
