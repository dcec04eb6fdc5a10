/* distill.h - stages 2 and 3: the whole student learns the teacher's next-token distribution (KL), or the text itself
 * (cross-entropy, at a longer context). Source: ref/METHOD.md 3.5, 3.6. */
#ifndef HYB_DISTILL_H
#define HYB_DISTILL_H
#include "method/batch.h"
#include "method/loss.h"
#include "method/teacher.h"
#include "method/train.h"

typedef struct {
    Model *student;
    Teacher *teacher; /* NULL: stage 3, cross-entropy */
    double tau;
    TextStream data;
    int micro;
    Pass pass;
    Loss loss;
    Batch batch;
    float *weight;                 /* (N) scale/N; where completions alone count see distill.c */
    int64_t counted_step, counted; /* step + 1, and its targets that count, in all micro-batches of all ranks */
} Distill;

/* student: GRAD_ALL. teacher: opened for (micro_batch_size, train_seq_len), or NULL. checkpointing:
 * keep layer inputs only. */
int distill_open(Distill *d, Model *student, Teacher *teacher, const TextStream *data, const StageOptions *o,
                 double tau, int checkpointing, Err *e);
void distill_close(Distill *d);
Task distill_task(Distill *d, const char *run); /* stage "stage2" or "stage3" */

/* Hybrid = `stage1_student` with the softmax layers of teacher where keep (L) says 1, opened. Source: ref/METHOD.md
 * 3.5. */
int hybrid_open(Model *h, Model *teacher, Model *stage1_student, const int *keep, GradKind grad, Err *e);

#endif
