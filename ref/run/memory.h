/* memory.h - what a run will hold on its device at one time, counted before anything is allocated, so that a run that
 * cannot fit is refused at once with a table of what needs how much. The numbers are those of the placing functions
 * themselves (model_measure, pass_bytes, ...). */
#ifndef HYB_MEMORY_H
#define HYB_MEMORY_H
#include "method/train.h"

enum { MEMORY_ROWS = 16 };
typedef struct {
    struct {
        const char *what;
        size_t bytes;
    } row[MEMORY_ROWS];
    int n;
} MemoryPlan; /* zero-initialise */

void memory_add(MemoryPlan *p, const char *what /* kept, not copied */, size_t bytes);
size_t memory_total(const MemoryPlan *p);
/* Adds a frozen model: its weights, and its activations for B sequences of T tokens (T = 0: none of its own). */
int memory_frozen(MemoryPlan *p, Backend *be, const Config *c, GradKind grad, const char *weights,
                  const char *activations, int B, int T, Err *e);
/* Adds a model that trains: weights, gradients, optimiser, activations with what backward keeps, and the loss (Ct:
 * the teacher's width, 0: none,
 * -1: no head at all, stage 1). */
int memory_trained(MemoryPlan *p, Backend *be, const Config *c, GradKind grad, const StageOptions *o, int checkpointing,
                   int Ct, Err *e);
/* "63.21 GB: teacher's weights 6.17, ...": at most cap - 1 characters. */
void memory_text(const MemoryPlan *p, char *dst, size_t cap);
/* ERR_MEMORY with the table if the plan needs more than be->free_memory; OK where the backend does not know it. what:
 * "stage 2". */
int memory_check(const MemoryPlan *p, Backend *be, const char *what, Err *e);

#endif
