/* cpu_plain.c - cpu/ in 4-lane vectors of whatever the compiler's target offers (SSE2, NEON, scalars):
 * any machine runs it. */
#define BITS     32
#define SIMD     128
#define CPU_PATH cpu_plain
#define NAME     "plain"
#include "cpu/path.h"
