/* bench_model.h - whole training steps of 3B models for gpu-bench, on a backend that is open. */
#ifndef HYB_BENCH_MODEL_H
#define HYB_BENCH_MODEL_H
#include <stddef.h>
#include "ops/backend.h"
#ifdef __cplusplus
extern "C" {
#endif
/* Row i of bench_model_count: tokens a second of stage 1 or 2 at the Qwen2.5-3B or Llama-3.2-3B shape (small: a tiny
 * one), beside the limit that the matrix rate (operations a second) gives, the target, and the memory counted
 * beforehand and held. A step that the card has no room for is tried in smaller batches; ERR_MEMORY, said, if none
 * fits. fill: random numbers into device memory. */
int bench_model_count(int small);
const char *bench_model_name(int small, int i);
int bench_model(Backend *be, int small, int i, void (*fill)(void *p, size_t bytes), double matrix_rate, Err *e);
/* How many launches (and copies and fills) a decoded token and the steps of stages 1 and 2 are, counted on models of
 * one and two layers with the large ones' head size and chunk, so that the same kernels run;
 * then at the Qwen2.5-3B shape, 4 us each, beside the step's time by roofline
 * (790 TFLOP/s; 4.07 TB/s for the weights that decoding reads). count: totals so far. */
int bench_launches(Backend *be, void (*count)(unsigned long long *launches, unsigned long long *copies), Err *e);
#ifdef __cplusplus
}
#endif
#endif
