/* swap.h - what is one layer worth without any training? Swap its mixer, run the layers above it,
 * measure (ref/METHOD.md 8).
 *
 * The layers below a swapped one compute what they compute without the swap, so they run once:
 * L swaps cost L(L+1)/2 layers instead of
 * L*L, and one teacher pass serves all. All layers are judged on the same held-out batches: scores are paired. */
#ifndef HYB_SWAP_H
#define HYB_SWAP_H
#include "selectors/partial.h"

typedef enum {
    /* student + softmax of layer l:  score = KL(student) - KL(swapped). SMART's sensitivity (ref/METHOD.md 8) */
    SWAP_ADD,
    SWAP_REMOVE, /* teacher - softmax of layer l:  score = KL(teacher with the student's linear mixer there) */
    SWAP_PPL,    /* teacher without mixer l:       score = rise of the cross-entropy on the text (LM-PPL, bypass) */
    /* teacher without mixer l:  score = mean squared change of the last hidden state. Act-MSE as we reconstruct it; the
     * paper's own definition is not known. */
    SWAP_MSE
} SwapKind;

/* Fills rows (L): score, se (over held-out batches), batch_kl (the score of every batch), rank, and each layer's share
 * of tokens and seconds. stage1_student: the stage-1 student (ADD, REMOVE; else may be NULL). keep (L or NULL):
 * layers that are softmax already (ADD): their score is NAN, their rank the last. partial:
 * where a stopped call goes on, batch by batch; NULL: nowhere. */
int swap_scores(LayerScore *rows, SwapKind kind, Model *teacher, Model *stage1_student, const int *keep,
                Heldout *heldout, Partial *partial, Err *e);

#endif
