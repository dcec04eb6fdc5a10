/* ref_math.h - what every reference op file may use: the math functions for `real` and `wide`, and the two
 * scalar functions that C lacks. Included after ops.h, with `real` and `wide` defined (ref_ops.c). */
#ifndef HYB_REF_MATH_H
#define HYB_REF_MATH_H
#include <string.h>
#include <tgmath.h> /* exp() of a float is expf() */
#undef I            /* complex.h has a macro of this name; here it is an input width */

static inline wide sigmoid(wide x) { return 1 / (1 + exp(-x)); }

/* log(1 + e^x) without overflow, and exact to rounding on both sides */
static inline wide softplus(wide x) { return fmax(x, (wide)0) + log1p(exp(-fabs(x))); }

static inline wide dot(const real *x, const real *y, int n) {
    wide s = 0;
    for (int i = 0; i < n; i++) s += (wide)x[i] * y[i];
    return s;
}
#endif
