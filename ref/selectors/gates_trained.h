/* gates_trained.h - the gates of gates.h, trained together under an exact budget. See gates_trained.c. */
#ifndef HYB_GATES_TRAINED_H
#define HYB_GATES_TRAINED_H
#include "selectors/gates.h"

enum { GATES_STEPS = 100 };
/* Fills rows (L): the score is the gate after `steps` steps, one training batch of the held-out batches' size each.
 * partial as in gates_scores. */
int gates_train(LayerScore *rows, Model *teacher, Model *stage1_student, int K, int steps, Heldout *heldout,
                Partial *partial, Err *e);
/* theta (L) -= one number, so that a = sigmoid(theta) sums to K; a is filled. 0 < K < L. */
void gates_project(double *theta, double *a, int L, double K);

#endif
