/* loss.h - from hidden states to a number and its gradients: the head, cross-entropy and KL of one batch. */
#ifndef HYB_LOSS_H
#define HYB_LOSS_H
#include "model/model.h"

/* Scratch of the losses for batches of at most N rows. */
typedef struct {
    Backend *be;
    int N, block;
    Wide *loss, *weight; /* (N) device */
    int *target, *top;   /* (N) device */
    double *row_loss;    /* (N) host: the losses of the last call */
    float *uniform;      /* (N) host: 1/N */
    Real *dh;            /* (N,C) gradient for model_backward */
    void *work, *mem;
    size_t bytes;
} Loss;

size_t loss_bytes(const Model *m, int Ct, int N);
/* The workspace of head_xent and head_kl on a device, where head_work's is more than they take: two blocks of logits of
 * `size` bytes, nothing else (cuda/kl.cu, cuda/xent.cu). */
static inline size_t loss_device_work(const HeadDims *d, size_t size) {
    return (size_t)d->block * 2 * (size_t)d->VOC * size;
}
int loss_open(Loss *l, const Model *m, int Ct /* teacher width, 0: no KL */, int N, Err *e);
void loss_close(Loss *l);

/* Mean over rows of weight_n loss_n ... weights (N host floats, NULL = 1/N each). Cross-entropy against target (N host
 * ids; rows with weight 0 may hold -1). grad: also fills l->dh and adds to the head's gradient.
 * Result *value = sum_n weight_n loss_n. row_loss (N host floats, NULL)
 * gets loss_n, top (N host ints, NULL) the argmax. */
int loss_xent(Loss *l, Model *m, const Pass *p, const int *target, const float *weight, int grad, double *value,
              float *row_loss, int *top, Err *e);
/* Forward KL to a teacher whose final hidden state is xt (device, (N,Ct)) with head wt (device, (VOC,Ct));
 * the rest as above. */
int loss_kl(Loss *l, Model *m, const Pass *p, const Real *xt, int Ct, const Real *wt, double tau, const float *weight,
            int grad, double *value, float *row_loss, Err *e);

#endif
