/* cpu_bf16_plain.c - cpu/ for BF16 on any machine. */
#include "cpu/cpu.h"
#define BITS     16
#define SIMD     128
#define CPU_PATH cpu_bf16_plain
#define NAME     "plain"
#include "cpu/path.h"
