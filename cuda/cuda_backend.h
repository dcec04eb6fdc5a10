/* cuda_backend.h - the doors to cuda/ from C: openers for backend.h, and the emulated twin that needs no GPU.
 *
 * Names: "cuda[:i]" float, "cuda-bf16[:i]" BF16 storage with float statistics; "cuda-emu", "cuda-emu-bf16" the same
 * kernels on the emulator (tests/cuda_emu/). One device per process; both precisions may be open at once and share its
 * stream. */
#ifndef HYB_CUDA_BACKEND_H
#define HYB_CUDA_BACKEND_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#include "base/mem.h"
#include "ops/backend.h"
int cuda_backend_open(Backend **b, const char *name, int threads, Err *e);
int cuda_emu_backend_open(Backend **b, const char *name, int threads, Err *e);
/* Bytes held now and at most since the backend was opened. */
void cuda_backend_memory(const Backend *b, size_t *now, size_t *peak);
void cuda_emu_backend_memory(const Backend *b, size_t *now, size_t *peak);
/* One line about the device: name, memory, what does the matrix products. */
const char *cuda_backend_describe(const Backend *b);
const char *cuda_emu_backend_describe(const Backend *b);
/* The order in which the emulator runs threads from now on. */
void cuda_emu_seed(unsigned long long seed);
/* Launches, and copies and fills, since the program began. */
void cuda_emu_work(unsigned long long *launches, unsigned long long *copies);
/* 1: the emulated device lags as far behind the host as it may (cuda_emu.h); 0: it does everything at once. */
void cuda_emu_defer(int on);
#ifdef __cplusplus
}
#endif
#endif
