/* mem.c - malloc with a count, a peak, and a switch to make it fail. See mem.h.
 *
 * Each block is preceded by a 64-byte header that remembers its size (poisoned under ASan, so an underflow is
 * caught), and ends exactly where the system's block ends, so that an overflow by one byte is caught too. */
#define _DEFAULT_SOURCE /* madvise */
#include "base/mem.h"
#include "base/poison.h"
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

enum { HEAD = 64, HUGE = 2 << 20 };
enum { UNREAD = LONG_MIN }; /* fail_left before the environment was looked at */
static _Atomic size_t bytes_now, bytes_peak;
static _Atomic long fail_left = UNREAD; /* allocations that still succeed; < 0: no limit */

static long fail_from_environment(void) {
    const char *s = getenv("HYBRIDIZE_FAIL_ALLOC");
    char *end = NULL;
    long n = s ? strtol(s, &end, 10) : -1;
    return s && *s && !*end && n >= 0 ? n : -1;
}

/* 1 if this allocation may go ahead. */
static int allowed(void) {
    long left = atomic_load(&fail_left);
    if (left == UNREAD) {
        long n = fail_from_environment();
        if (atomic_compare_exchange_strong(&fail_left, &left, n)) left = n;
    }
    while (left > 0 && !atomic_compare_exchange_weak(&fail_left, &left, left - 1)) {}
    return left != 0;
}

static void count_add(size_t n) {
    size_t now = atomic_fetch_add(&bytes_now, n) + n;
    size_t peak = atomic_load(&bytes_peak);
    while (now > peak && !atomic_compare_exchange_weak(&bytes_peak, &peak, now)) {}
}

static int no_memory(size_t bytes, const char *what, Err *e) {
    err_set(e, ERR_MEMORY, "%s: out of memory: could not get %zu bytes (%.1f MiB); %.1f MiB are in use", what, bytes,
            (double)bytes / 1048576.0, (double)mem_now() / 1048576.0);
    return ERR_MEMORY;
}

/* Large blocks ask for pages of 2 MiB: a tensor is swept from end to end, and with small pages a third of that time
 * goes into finding them (cpu/SPEED.md, CPU). A refusal changes nothing but speed. */
static void ask_huge(void *raw, size_t bytes) {
#ifdef MADV_HUGEPAGE
    madvise(raw, bytes / HUGE * HUGE, MADV_HUGEPAGE);
#else
    (void)raw, (void)bytes;
#endif
}

int mem_alloc(void **out, size_t bytes, const char *what, Err *e) {
    *out = NULL;
    void *raw = NULL;
    const int huge = bytes >= 2 * HUGE;
    // For 0 bytes one is taken: a pointer to the very end of a block looks like no pointer to a leak checker.
    if (bytes > SIZE_MAX / 2 || !allowed() || posix_memalign(&raw, huge ? HUGE : HEAD, HEAD + bytes + !bytes))
        return no_memory(bytes, what, e);
    if (huge) ask_huge(raw, bytes);
    memset(raw, 0, HEAD + bytes);
    memcpy(raw, &bytes, sizeof bytes);
    poison(raw, HEAD);
    count_add(bytes);
    *out = (char *)raw + HEAD;
    return OK;
}

int mem_grow(void **p, size_t old_bytes, size_t bytes, const char *what, Err *e) {
    void *q = NULL;
    TRY(mem_alloc(&q, bytes, what, e));
    if (*p) memcpy(q, *p, old_bytes < bytes ? old_bytes : bytes);
    mem_free(*p);
    *p = q;
    return OK;
}

int mem_strndup(char **out, const char *s, size_t n, Err *e) {
    void *p = NULL;
    *out = NULL;
    TRY(mem_alloc(&p, n + 1, "text", e));
    if (n) memcpy(p, s, n);
    *out = p;
    return OK;
}

void mem_free(void *p) {
    if (!p) return;
    void *raw = (char *)p - HEAD;
    size_t bytes;
    unpoison(raw, HEAD);
    memcpy(&bytes, raw, sizeof bytes);
    unpoison(p, bytes); /* an arena may have left red zones inside */
    atomic_fetch_sub(&bytes_now, bytes);
    free(raw);
}

int mem_mul(size_t *out, size_t n, size_t size, const char *what, Err *e) {
    *out = 0;
    if (size && n > SIZE_MAX / size)
        return err_set(e, ERR_MEMORY, "%s: %zu x %zu bytes do not fit the address space", what, n, size);
    *out = n * size;
    return OK;
}

size_t mem_now(void) { return atomic_load(&bytes_now); }
size_t mem_peak(void) { return atomic_load(&bytes_peak); }
void mem_peak_reset(void) { atomic_store(&bytes_peak, atomic_load(&bytes_now)); }
void mem_fail_after(long n) { atomic_store(&fail_left, n < 0 ? -1 : n); }
