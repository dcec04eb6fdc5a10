/* test_cuda_emu.c - the emulator is itself tested: right kernels give right results and no report, whatever the order
 * of threads; every planted bug is reported, with the kernel's name. */
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cuda_emu/planted.h"
#include "tests/suite.h"

enum { N = 100, SEEDS = 20 };

static float *floats(int n) {
    float *p = planted_alloc((unsigned long)n * sizeof(float));
    ck_assert_ptr_nonnull(p);
    return p;
}
static unsigned short bf16(float x) { /* exact values only */
    unsigned u;
    memcpy(&u, &x, 4);
    ck_assert_uint_eq(u & 0xffffu, 0);
    return (unsigned short)(u >> 16);
}

/* Runs the reversal with a bug; returns how many elements are wrong. */
static int reverse(int bug) {
    float *x = floats(N), *y = floats(N);
    int wrong = 0;
    for (int i = 0; i < N; i++) x[i] = (float)i, y[i] = -1;
    planted_run(bug, REVERSE, y, x, NULL, N);
    for (int i = 0; i < N; i++) wrong += !(y[i] == (float)(N - 1 - i));
    planted_free(x), planted_free(y);
    return wrong;
}
static int neighbour(int bug) {
    float *x = floats(64), *y = floats(64);
    int wrong = 0;
    for (int i = 0; i < 64; i++) x[i] = (float)(i / 32 + 1);
    planted_run(bug, NEIGHBOUR, y, x, NULL, 64);
    for (int i = 0; i < 64; i++) wrong += !(y[i] == (float)((i / 32 + 1) * 32 + (i + 1) % 32));
    planted_free(x), planted_free(y);
    return wrong;
}
static int product(int bug) {
    unsigned short *a = planted_alloc(16 * 16 * 2), *b = planted_alloc(8 * 16 * 2);
    float *y = floats(16 * 8);
    int wrong = 0;
    for (int i = 0; i < 256; i++) a[i] = bf16((float)(i % 13 - 6));
    for (int i = 0; i < 128; i++) b[i] = bf16((float)(i % 7 - 3) / 4);
    planted_run(bug, PRODUCT, y, a, b, 0);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            double s = 0;
            for (int k = 0; k < 16; k++) s += (double)((i * 16 + k) % 13 - 6) * ((j * 16 + k) % 7 - 3) / 4;
            wrong += !(y[i * 8 + j] == (float)s);
        }
    planted_free(a), planted_free(b), planted_free(y);
    return wrong;
}

/* round(a b^T) b through the copy engine and wgmma; all numbers are small integers, exact in BF16 where rounded. */
static int tensor(int bug) {
    unsigned short *a = planted_alloc(64 * 64 * 2), *b = planted_alloc(64 * 64 * 2);
    float *y = floats(64 * 64), first[64][64];
    int wrong = 0;
    for (int i = 0; i < 4096; i++)
        a[i] = bf16((float)((i + i / 64) % 5 - 2)), b[i] = bf16((float)((i + i / 64) % 3 - 1));
    planted_run(bug, TENSOR, y, a, b, 0);
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++) {
            int s = 0;
            for (int k = 0; k < 64; k++) s += ((i * 64 + k + i) % 5 - 2) * ((j * 64 + k + j) % 3 - 1);
            first[i][j] = (float)s;
        }
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++) {
            float s = 0;
            for (int k = 0; k < 64; k++) s += first[i][k] * (float)((k * 64 + j + k) % 3 - 1);
            wrong += !(y[i * 64 + j] == s);
        }
    planted_free(a), planted_free(b), planted_free(y);
    return wrong;
}

/* Exponentials of 0 .. -12.7 (the last one has no place where BEHIND_END asks); returns how many are not the C
 * library's. */
static int limits(int bug) {
    float *x = floats(128), *y = floats(128 - (bug == BEHIND_END)); /* not a multiple of 256 bytes */
    int wrong = 0;
    for (int i = 0; i < 128; i++) x[i] = -(float)i / 10;
    planted_run(bug, LIMITS, y, x, NULL, 0);
    for (int i = 0; i < 127; i++) {
        wrong += y[i] != expf(x[i]);
        if (bug == APPROXIMATE_EXP) ck_assert_float_le(fabsf(y[i] / expf(x[i]) - 1), 20 * 0x1p-23f);
    }
    planted_free(x), planted_free(y);
    return wrong;
}

START_TEST(right_kernels_are_right) {
    for (int s = 0; s < SEEDS; s++) {
        planted_seed((unsigned long long)s);
        ck_assert_int_eq(reverse(NONE), 0);
        ck_assert_int_eq(neighbour(NONE), 0);
        ck_assert_int_eq(product(NONE), 0);
        ck_assert_int_eq(tensor(NONE), 0);
        ck_assert_int_eq(limits(NONE), 0);
        ck_assert_msg(planted_errors() == 0, "false alarm: %s", planted_first());
    }
}
END_TEST

START_TEST(tf32_layout) {
    float *a = floats(256), *b = floats(128), *y = floats(128);
    for (int i = 0; i < 256; i++) a[i] = (float)(i % 17 - 8) / 8;
    for (int i = 0; i < 128; i++) b[i] = (float)(i % 11 - 5) / 2;
    planted_run(NONE, PRODUCT_TF32, y, a, b, 0);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            double s = 0;
            for (int k = 0; k < 16; k++) s += (double)a[i * 16 + k] * b[j * 16 + k];
            ck_assert_double_eq(y[i * 8 + j], s);
        }
    ck_assert_int_eq(planted_errors(), 0);
    planted_free(a), planted_free(b), planted_free(y);
}
END_TEST

/* Row r, column c of the tile holds r + c / 8; matrix m is rows 8 m .. 8 m + 7. */
START_TEST(ldmatrix_layout) {
    float *y = floats(4 * 32 * 8);
    planted_run(NONE, MATRICES, y, NULL, NULL, 0);
    for (int lane = 0; lane < 32; lane++) {
        const int g = lane / 4, t = lane % 4;
        for (int m = 0; m < 4; m++)
            for (int i = 0; i < 2; i++) {
                const float straight = (float)(8 * m + g) + (float)(2 * t + i) / 8,
                            turned = (float)(8 * m + 2 * t + i) + (float)g / 8;
                ck_assert_float_eq(y[(0 * 32 + lane) * 8 + 2 * m + i], straight);
                ck_assert_float_eq(y[(1 * 32 + lane) * 8 + 2 * m + i], turned);
                ck_assert_float_eq(y[(2 * 32 + lane) * 8 + 2 * m + i], m < 2 ? turned : 0.0f);
                ck_assert_float_eq(y[(3 * 32 + lane) * 8 + 2 * m + i], m < 1 ? straight : 0.0f);
            }
    }
    ck_assert_int_eq(planted_errors(), 0);
    planted_free(y);
}
END_TEST

START_TEST(votes_and_shuffles) {
    const int want[14] = {32, 1, 0, 0x55555555, 3, 9, 6 ^ 5, 18, 1, 31 * 16, 7, 95 * 48, 1, 0};
    for (int s = 0; s < SEEDS; s++) {
        int *y = planted_alloc(21 * sizeof(int));
        memset(y, 0, 21 * sizeof(int));
        planted_seed((unsigned long long)s);
        planted_run(NONE, VOTES, y, NULL, NULL, 0);
        for (int i = 0; i < 14; i++) ck_assert_msg(y[i] == want[i], "number %d: got %d, expected %d", i, y[i], want[i]);
        ck_assert_int_eq(y[20], 96);
        planted_free(y);
    }
    ck_assert_msg(planted_errors() == 0, "false alarm: %s", planted_first());
}
END_TEST

/* Bugs that the emulator reports by itself: in every order of threads, with the kernel's name and these words. */
static const struct {
    int bug, which;
    const char *kernel, *words;
} PLANTED[] = {
    {MISSING_BARRIER, REVERSE, "reverse_kernel", ""}, /* a race or an uninitialised read, whichever comes first */
    {DIVERGENT_BARRIER, REVERSE, "reverse_kernel", "divergent barrier"},
    {RACE, REVERSE, "reverse_kernel", "race"},
    {COPY_RACE, REVERSE, "reverse_kernel", "asynchronous copy"},
    {UNINITIALISED, REVERSE, "reverse_kernel", "uninitialised"},
    {SHARED_OUTSIDE, REVERSE, "reverse_kernel", "outside its shared array"},
    {DIVERGENT_SHUFFLE, NEIGHBOUR, "neighbour_kernel", "divergent warp operation"},
    {WARP_RACE, NEIGHBOUR, "neighbour_kernel", ""},
    {MISSING_WAIT, PRODUCT, "product_kernel", "uninitialised"},
    {BARRIER_NO_PROXY_FENCE, TENSOR, "tensor_kernel", "no fence.proxy.async behind the initialisation"},
    {NO_PROXY_FENCE, TENSOR, "tensor_kernel", "ordinary store with no fence.proxy.async"},
    {WRONG_BYTES, TENSOR, "tensor_kernel", "misses 0 arrivals and 16 bytes"},
    {PHASE_EARLY, TENSOR, "tensor_kernel", "bulk copy"},
    {PHASE_LATE, TENSOR, "tensor_kernel", "stuck"},
    {NO_COPY_WAIT, TENSOR, "tensor_kernel", "bulk copy"},
    {GROUP_STUCK, TENSOR, "tensor_kernel", "named barrier 1, where 128 of 160"},
    {NO_GROUP_SYNC, TENSOR, "tensor_kernel", ""},
    {NO_REGISTER_FENCE, TENSOR, "tensor_kernel", "no wgmma.fence covers its accumulators"},
    {NO_PRODUCT_WAIT, TENSOR, "tensor_kernel", ""},
    {REGISTERS_WRITTEN, TENSOR, "tensor_kernel", "A registers were written"},
    {STORE_UNDER_WAY, TENSOR, "tensor_kernel", "wgmma that reads it is under way"},
    {EARLY_REFILL, TENSOR, "tensor_kernel", "read by a wgmma under way"},
    {MISALIGNED_LOAD, LIMITS, "limits_kernel", "misaligned read of 16 bytes"},
    {MISALIGNED_STORE, LIMITS, "limits_kernel", "misaligned write of 16 bytes"},
    {MISALIGNED_COPY, LIMITS, "limits_kernel", "misaligned asynchronous copy"},
    {SHARED_TOO_MUCH, LIMITS, "limits_kernel", "a block may have 232448"},
    {SHARED_HOLE, LIMITS, "limits_kernel", "a block may have 49152"},
    {TOO_MANY_REGISTERS, LIMITS, "limits_kernel", "288 threads"},
};
START_TEST(planted_bug_is_reported) {
    int wrong = 0;
    for (int s = 0; s < SEEDS; s++) {
        planted_clear();
        planted_seed((unsigned long long)s);
        if (PLANTED[_i].which == REVERSE) reverse(PLANTED[_i].bug);
        else if (PLANTED[_i].which == NEIGHBOUR) neighbour(PLANTED[_i].bug);
        else if (PLANTED[_i].which == LIMITS) limits(PLANTED[_i].bug);
        else if (PLANTED[_i].which == TENSOR) wrong = tensor(PLANTED[_i].bug);
        else product(PLANTED[_i].bug);
        if (PLANTED[_i].bug == NO_PRODUCT_WAIT) { /* accumulators read too early are poison, not a report */
            ck_assert_int_gt(wrong, 0);
            continue;
        }
        ck_assert_msg(planted_errors() > 0, "bug %d was not reported with seed %d", PLANTED[_i].bug, s);
        ck_assert_ptr_nonnull(strstr(planted_first(), PLANTED[_i].kernel));
        ck_assert_msg(strstr(planted_first(), PLANTED[_i].words) != NULL, "bug %d: %s", PLANTED[_i].bug,
                      planted_first());
    }
    planted_clear(); /* and the next launch is not disturbed */
    ck_assert_int_eq(reverse(NONE), 0);
    ck_assert_msg(planted_errors() == 0, "after bug %d: %s", PLANTED[_i].bug, planted_first());
}
END_TEST

/* A wrong operand layout shows in the result. */
START_TEST(wrong_fragment_is_wrong) {
    ck_assert_int_gt(product(WRONG_FRAGMENT), 0);
    ck_assert_int_gt(tensor(WRONG_SWIZZLE), 0);
}
END_TEST

/* A device's fast exponential is not the host's: whoever needs expf to the bit must see a difference. */
START_TEST(fast_exp_is_approximate) { ck_assert_int_gt(limits(APPROXIMATE_EXP), 10); }
END_TEST

/* Allocations are aligned as a device's are; a write between an end and the page behind it is found on release. */
START_TEST(allocations) {
    planted_clear();
    for (int n = 1; n < 1000; n += 37) {
        char *p = planted_alloc((unsigned long)n);
        ck_assert_uint_eq((uintptr_t)p % 256, 0);
        planted_free(p);
    }
    ck_assert_int_eq(planted_errors(), 0);
#ifndef __SANITIZE_ADDRESS__ /* which ends the process */
    limits(BEHIND_END);
    ck_assert_ptr_nonnull(strstr(planted_first(), "behind the end of a device allocation of 508"));
#endif
    planted_clear();
}
END_TEST

/* wgmma reads its operands where CuTe, which nothing here is made from, puts them (tests/peers/gmma_layout.sh). */
START_TEST(descriptors_are_cutes) {
    FILE *f = fopen("testdata/gmma_layout.txt", "r");
    char major[4], line[128];
    int row, k, lines = 0;
    unsigned at, leading = 0;
    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%3s leading %u", major, &leading) == 2) continue;
        ck_assert_int_eq(sscanf(line, "%3s %d %d %u", major, &row, &k, &at), 4);
        const int mn = major[0] == 'M';
        for (int i = 0; i < 8; i++)
            ck_assert_uint_eq(planted_address(4096, mn, row + mn * i, k + !mn * i, leading),
                              4096 + at + 2 * (unsigned)i);
        lines++;
    }
    fclose(f);
    ck_assert_int_eq(lines, 2 * 128 * 64 / 8);
}
END_TEST

/* Reading past the end of a device array ends the process, naming the kernel (under AddressSanitizer: its report). */
START_TEST(out_of_bounds_is_fatal) {
    int ends[2], status;
    char said[4096] = "";
    ck_assert_int_eq(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        planted_name_faults();
        reverse(OUT_OF_BOUNDS);
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t n, at = 0; (n = read(ends[0], said + at, sizeof said - 1 - (size_t)at)) > 0;) at += n;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
    ck_assert_msg(strstr(said, "reverse_kernel") != NULL || strstr(said, "AddressSanitizer") != NULL, "it said: %s",
                  said);
    close(ends[0]);
}
END_TEST

SUITE("cuda_emu") {
    CASE(right_kernels_are_right);
    CASE(tf32_layout);
    CASE(ldmatrix_layout);
    CASE(votes_and_shuffles);
    CASE(planted_bug_is_reported, .times = sizeof PLANTED / sizeof PLANTED[0]);
    CASE(wrong_fragment_is_wrong);
    CASE(fast_exp_is_approximate);
    CASE(allocations);
    CASE(descriptors_are_cutes);
    CASE(out_of_bounds_is_fatal);
}
