/* test_comparator.c - the comparator is tested before anything is compared with it: everything that is wrong must be
 * refused, in small and in large tensors, at float's and at bf16's tolerance; what is right up to rounding must pass.
 * */
#include "base/rng.h"
#include "tools/compare.h"
#include "tests/suite.h"
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LARGE = 1 << 20 };
static double a[LARGE], r[LARGE];
static const size_t sizes[] = {1, 2, 3, 17, 1000, LARGE};
enum { SIZES = sizeof sizes / sizeof *sizes };
static const double tols[] = {4.8e-7, 1e-5, 1.2e-2}; // float, one operation; float, a long sum; bf16
enum { TOLS = sizeof tols / sizeof *tols };

static void draw(size_t n) {
    Rng g;
    rng_seed(&g, 5);
    for (size_t i = 0; i < n; i++) a[i] = r[i] = rng_normal(&g) + 0.1;
}

static void refused(size_t n, double tol, Verdict want) {
    const Comparison c = compare(a, r, n, tol);
    ck_assert_msg(c.verdict == want, "n %zu tol %g: got %s (rel %g), expected verdict %d", n, tol, compare_word(&c),
                  c.rel, want);
}

START_TEST(test_whole_tensor) {
    for (size_t s = 0; s < SIZES; s++)
        for (size_t t = 0; t < TOLS; t++) {
            const size_t n = sizes[s];
            draw(n);
            refused(n, tols[t], COMPARE_OK);
            for (size_t i = 0; i < n; i++) a[i] = 0;
            refused(n, tols[t], COMPARE_NORM);
            for (size_t i = 0; i < n; i++) a[i] = -r[i];
            refused(n, tols[t], COMPARE_NORM);
            for (size_t i = 0; i < n; i++) a[i] = r[i] * (tols[t] < 0.01 ? 1.01 : 1.03);
            refused(n, tols[t], COMPARE_NORM);
            for (size_t i = 0; i < n; i++) a[i] = 2 * r[i];
            refused(n, tols[t], COMPARE_NORM);
        }
}
END_TEST

/* One element, wherever it stands, however many others are right. */
START_TEST(test_one_element) {
    for (size_t s = 0; s < SIZES; s++)
        for (size_t t = 0; t < TOLS; t++)
            for (int where = 0; where < 3; where++) {
                const size_t n = sizes[s], i = where == 0 ? 0 : where == 1 ? n / 2 : n - 1;
                draw(n);
                const double rms = sqrt(1.01),
                             factor =
                                 1 + 20 * tols[t]; // beyond the bound of 8 tol, far below the norm's in a large tensor
                a[i] = r[i] + (factor - 1) * fmax(fabs(r[i]), rms) * 1.05;
                Comparison c = compare(a, r, n, tols[t]);
                ck_assert_msg(c.verdict != COMPARE_OK && c.at == i, "n %zu tol %g: one element passed", n, tols[t]);
                ck_assert(c.margin < 1);
                a[i] = 0;
                r[i] = 1;
                ck_assert(compare(a, r, n, tols[t]).verdict != COMPARE_OK);
            }
    draw(LARGE);
    a[4711] = r[4711] + 1e-3; // rel is 1e-6: the norm alone would let it pass
    const Comparison c = compare(a, r, LARGE, 1e-5);
    ck_assert_int_eq(c.verdict, COMPARE_ELEMENT);
    ck_assert(c.rel < 1e-5);
    ck_assert_uint_eq(c.at, 4711);
}
END_TEST

START_TEST(test_not_finite) {
    uint64_t signalling = UINT64_C(0x7ff0000000000001);
    double bad[5] = {NAN, -NAN, INFINITY, -INFINITY};
    memcpy(&bad[4], &signalling, 8);
    for (size_t s = 0; s < SIZES; s++)
        for (int b = 0; b < 5; b++) {
            const size_t n = sizes[s], i = n - 1;
            draw(n);
            memcpy(a + i, &bad[b], 8);
            refused(n, 1e300, COMPARE_NOT_FINITE);
            ck_assert_uint_eq(compare(a, r, n, 1e300).at, i);
            memcpy(r + i, &bad[b], 8); // the same in both is no agreement
            refused(n, 1e300, COMPARE_NOT_FINITE);
            a[i] = 1;
            refused(n, 1e300, COMPARE_NOT_FINITE);
        }
}
END_TEST

START_TEST(test_swapped_pair) {
    for (size_t s = 1; s < SIZES; s++)
        for (size_t t = 0; t < TOLS; t++) {
            const size_t n = sizes[s];
            draw(n);
            a[0] = r[n - 1];
            a[n - 1] = r[0];
            if (fabs(r[0] - r[n - 1]) < 0.2) continue;
            ck_assert(compare(a, r, n, tols[t]).verdict != COMPARE_OK);
        }
    draw(LARGE); // two rows of a (1024,1024) tensor
    memcpy(a + 1024 * 7, r + 1024 * 8, 1024 * sizeof *a);
    memcpy(a + 1024 * 8, r + 1024 * 7, 1024 * sizeof *a);
    refused(LARGE, 1e-2, COMPARE_NORM);
}
END_TEST

START_TEST(test_unwritten_tail) {
    for (size_t s = 2; s < SIZES; s++) {
        const size_t n = sizes[s];
        for (int fill = 0; fill < 3; fill++) {
            draw(n);
            a[n - 1] = fill == 0 ? NAN : fill == 1 ? 0 : 1e30;
            r[n - 1] = 0.9;
            ck_assert(compare(a, r, n, 1e-5).verdict != COMPARE_OK);
        }
    }
}
END_TEST

START_TEST(test_zero_reference) {
    memset(a, 0, sizeof a);
    memset(r, 0, sizeof r);
    a[3] = -0.0;
    refused(100, 1e-5, COMPARE_OK);
    for (double tiny = 1; tiny > 0; tiny *= 1e-3) {
        a[99] = tiny;
        refused(100, 1e-5, COMPARE_NOT_ZERO);
        ck_assert_uint_eq(compare(a, r, 100, 1e-5).at, 99);
    }
    refused(0, 1e-5, COMPARE_EMPTY);
}
END_TEST

/* Very large and very small numbers: squares must neither overflow nor vanish. */
START_TEST(test_scale) {
    for (double scale = 1e-300; scale < 1e301; scale *= 1e100) {
        draw(1000);
        for (int i = 0; i < 1000; i++) a[i] = r[i] = r[i] * scale;
        refused(1000, 1e-5, COMPARE_OK);
        for (int i = 0; i < 1000; i++) a[i] = r[i] * (1 + 1e-6);
        refused(1000, 1e-5, COMPARE_OK);
        for (int i = 0; i < 1000; i++) a[i] = r[i] * 1.01;
        refused(1000, 1e-5, COMPARE_NORM);
        for (int i = 0; i < 1000; i++) a[i] = 0;
        refused(1000, 1e-5, COMPARE_NORM);
    }
}
END_TEST

/* What is right up to rounding passes, the error is what it is, and the margin is printed as it is. */
START_TEST(test_right) {
    draw(LARGE);
    for (size_t i = 0; i < LARGE; i++) a[i] = (float)r[i];
    Comparison c = compare(a, r, LARGE, compare_tol(0x1p-24, 1));
    ck_assert_int_eq(c.verdict, COMPARE_OK);
    ck_assert(c.rel > 1e-9 && c.rel < 0x1p-24);
    ck_assert(c.margin > 8 && c.margin < 1000);
    ck_assert_str_eq(compare_word(&c), "ok");
    for (size_t i = 0; i < LARGE; i++) a[i] = r[i] * (1 + 1e-4);
    c = compare(a, r, LARGE, 1e-3);
    ck_assert_double_eq_tol(c.rel, 1e-4, 1e-9);
    ck_assert_double_eq_tol(c.margin, 10, 1e-3);
    c = compare(a, r, LARGE, 0.5);
    ck_assert_str_eq(compare_word(&c), "loose");
    c = compare(r, r, LARGE, 1e-9);
    ck_assert_str_eq(compare_word(&c), "ok");
    ck_assert(c.rel == 0);
    ck_assert_double_eq(compare_tol(0x1p-24, 100), 80 * 0x1p-24);
    ck_assert_double_eq(compare_tol(0x1p-24, 0), 8 * 0x1p-24);
}
END_TEST

START_TEST(test_index) {
    char s[64];
    const int dims[] = {2, 7, 3, 4};
    compare_index(s, sizeof s, ((1 * 7 + 5) * 3 + 1) * 4 + 3, dims, 4);
    ck_assert_str_eq(s, "[1,5,1,3]");
    compare_index(s, sizeof s, 0, dims, 1);
    ck_assert_str_eq(s, "[0]");
    compare_index(s, sizeof s, 0, dims, 0);
    ck_assert_str_eq(s, "[]");
    compare_index(s, 5, 83, dims, 4); // cut, not overrun
    ck_assert(strlen(s) < 5);
}
END_TEST

SUITE("comparator") {
    GROUP("comparator", .timeout = 120);
    CASE(test_whole_tensor);
    CASE(test_one_element);
    CASE(test_not_finite);
    CASE(test_swapped_pair);
    CASE(test_unwritten_tail);
    CASE(test_zero_reference);
    CASE(test_scale);
    CASE(test_right);
    CASE(test_index);
}
