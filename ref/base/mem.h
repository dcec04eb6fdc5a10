/* mem.h - the only door to malloc, so that "the n-th allocation fails" can be tested, and the peak be reported.
 *
 * Every allocation of the library goes through here (device memory goes through its Backend). A failed allocation is an
 * error with the size asked for; the library never aborts. */
#ifndef HYB_MEM_H
#define HYB_MEM_H
#include <stddef.h>
#include "base/err.h"

/* *out = bytes of zeroed memory aligned to 64; bytes == 0 gives a valid unique pointer. ERR_MEMORY names `what` and the
 * size. */
int mem_alloc(void **out, size_t bytes, const char *what, Err *e);
/* Grows *p (NULL: allocates) from old to bytes, zeroing the new part; on failure *p is untouched. */
int mem_grow(void **p, size_t old_bytes, size_t bytes, const char *what, Err *e);
/* A NUL-terminated copy of n bytes. */
int mem_strndup(char **out, const char *s, size_t n, Err *e);
void mem_free(void *p); /* NULL is fine */

/* Overflow-checked n * size; ERR_MEMORY if it does not fit size_t. */
int mem_mul(size_t *out, size_t n, size_t size, const char *what, Err *e);

size_t mem_now(void);  /* bytes allocated now  */
size_t mem_peak(void); /* largest mem_now() since the start or the last mem_peak_reset() */
void mem_peak_reset(void);
/* Tests: let the next n allocations succeed and every later one fail; n < 0 switches it off. Also read once from the
 * environment variable HYBRIDIZE_FAIL_ALLOC by mem's first call. */
void mem_fail_after(long n);

#endif
