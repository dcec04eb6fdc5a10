/* gates.h - how steeply does the KL fall when layer l's softmax attention is mixed in? All layers from one backward
 * pass (ref/METHOD.md 8).
 *
 * Every layer computes  y_l = (1 - a_l) linear_l(n) + a_l softmax_l(n)  on the student's own normed input n;
 * a = 0 is the all-linear student, a = 1 the teacher. With dy = dKL/dy_l,
 *     dKL/da_l = <dy, softmax_l(n)> - <dy, linear_l(n)> = sum over heads of  <W, dy^T o>_head of one output projection
 *     minus the other,
 * where o is the projection's input and W its weight: dy^T o is the gradient that W would get, so one matrix product
 * gives all heads.
 *   gates       score = -dKL/da at the given a (0 for layers not kept, 1 for kept ones)
 *   path_gates  score = -mean of dKL/da over a = 1/2n, 3/2n, ... of all layers alike (Aumann and Shapley 1974):
 *               the scores sum to
 *               KL(all-linear) - KL(teacher) as n grows; 8 nodes come within a percent or two */
#ifndef HYB_GATES_H
#define HYB_GATES_H
#include "method/loss.h"
#include "selectors/partial.h"

enum { PATH_NODES = 8 }; /* of selector gates:path */

typedef struct Gates {
    Model *teacher, *stage1_student;
    Heldout *heldout;
    Pass sp, tp; /* the student's activations; those of the teacher's mixers on the student's inputs */
    Loss loss;
    Real *soft, *lin, *dy; /* (N,C) outputs of a layer's two mixers; gradient of one of them */
    Wide *dw;              /* (C,H*D) what an output projection's gradient would be */
    /* (C*H*D), (C*H*D), (L,H+1): dKL/da by head, the last is the output bias */
    double *w_host, *dw_host, *slope;
    void *mem, *host;
} Gates;

int gates_open(Gates *g, Model *teacher, Model *stage1_student, Heldout *heldout, Err *e);
void gates_close(Gates *g);
/* KL of held-out batch i with gates a (L), and g->slope. */
int gates_batch(Gates *g, int i, const double *a, double *kl, Err *e);
/* The same of training batch `index` of the stream that the held-out batches are from, of their size. */
int gates_training_batch(Gates *g, uint64_t index, const double *a, double *kl, Err *e);
/* nodes 0: at a point, keep (L or NULL) says which gates stand at 1 (their score is NAN); nodes > 0:
 * along the path, keep is not read.
 * Fills rows as swap_scores does, and head[] (as many as SCORE_HEADS holds); partial as there. */
int gates_scores(LayerScore *rows, Model *teacher, Model *stage1_student, const int *keep, int nodes, Heldout *heldout,
                 Partial *partial, Err *e);

#endif
