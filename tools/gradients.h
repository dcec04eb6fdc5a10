/* gradients.h - the gradients of the loss on one sequence as a safetensors file, to be compared with those of another
 * run or of another program. */
#ifndef HYB_GRADIENTS_H
#define HYB_GRADIENTS_H
#include "model/model.h"

/* Loss: the mean cross-entropy of tokens 1..T-1 (T >= 2), each from those before it: what transformers computes for
 * labels = ids. Writes float32 tensors: the gradient of every parameter of m (opened with GRAD_ALL, gradients zero)
 * under the parameter's own name, and of each layer's input, (T,C), as model.layers.L.input. The metadata member
 * "order" lists the names in the order in which backward makes them, last layer first, so that the first difference
 * that `hybridize diff` meets is where it comes from; "loss" is the loss. */
int gradients_write(const char *path, Model *m, const int *ids, int T, Err *e);

#endif
