/* align.h - stage 1: each linear mixer learns to answer as the teacher's attention does, on the teacher's own
 * activations.
 *
 * One teacher pass, layer by layer. At layer l the student's mixer reads the same normed input n1 as the teacher's
 * attention (teacher-forced), its output is compared with the attention's output, its backward runs with dx = NULL,
 * and the layer is finished before the next begins. The pass ends after the last mixer: its MLP, the final norm and the
 * head are never run. Only mixers train (GRAD_MIXERS). Source: ref/METHOD.md 3.2. */
#ifndef HYB_ALIGN_H
#define HYB_ALIGN_H
#include "method/batch.h"
#include "method/train.h"

typedef struct {
    Model *teacher, *student;
    TextStream data;
    int micro, form; /* micro-batches a step; ALIGN_NORM or ALIGN_SQUARED */
    Pass tp, sp;     /* the teacher's; the student's mixer scratch */
    Batch batch;
    Real *x, *t, *s, *ds; /* (N,C): residual stream, teacher's and student's mixer output, gradient */
    Wide *loss;           /* (N) */
    double *sum;
    void *mem;
    double *extra; /* (L) sums of layer losses since the last log row */
    int linear_layers;
    uint64_t next; /* the batch to make ahead while the device works on this one; 0: none */
} Align;

/* student: GRAD_MIXERS, transferred from teacher (transfer.h), same backend. */
int align_open(Align *a, Model *teacher, Model *student, const TextStream *data, const StageOptions *o, int form,
               Err *e);
void align_close(Align *a);
Task align_task(Align *a);
/* Loss and gradients of one batch already in a->batch: *loss by ref/METHOD.md 3.2 (norm form: mean over layers;
 * squared form: sum over layers), layer_loss (L, may be NULL) per layer, 0 where the student is softmax. scale 0:
 * loss only. */
int align_batch(Align *a, double scale, double *loss, double *layer_loss, Err *e);

#endif
