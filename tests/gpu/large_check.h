/* large_check.h - one large BF16 shape an op: the fast kernels against the plain ones of the same backend, and against
 * themselves. What a CPU in float64 would need minutes for, a device does in a second; what float64 says about both at small
 * shapes is tests/gpu/verify.c's first part. */
#ifndef HYB_LARGE_CHECK_H
#define HYB_LARGE_CHECK_H
#include "ops/backend.h"
/* op: attention, delta_rule, gla or kda, forward and backward. far: the largest relative difference of an output from the
 * plain kernels'; same: 1 if a second run gave the same bytes. small: a shape for the emulator. */
int large_check(const char *backend, const char *op, int small, double *far, int *same, Err *e);
#endif
