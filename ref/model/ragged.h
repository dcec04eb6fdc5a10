/* ragged.h - sequences of different lengths side by side, without padding.
 *
 * Every row has its own caches and states and its own number of tokens. One step consumes a list of pieces, T tokens of
 * one row each: norms, MLPs and the head see all tokens of all pieces as one batch, the mixers one piece at a time.
 * So a row's state sees its own tokens and nothing else, whatever stands beside it, and prompts, single decoded tokens
 * and the branches of a shared prefix mix freely.
 * Used by evaluation (eval/lm.h); model/generate.h is the simpler form for sequences in lockstep. */
#ifndef HYB_RAGGED_H
#define HYB_RAGGED_H
#include "model/model.h"

typedef struct {
    int row, T;
    const int *ids; /* (T) host */
} RaggedPiece;

typedef struct {
    Model *m;
    int rows, capacity, most;                   /* most: tokens a step, all pieces together */
    int *past;                                  /* (rows) tokens consumed so far */
    MixerState *state;                          /* (rows,L) */
    void **row_mem;                             /* (rows) device memory of one row's caches and states */
    size_t row_bytes, cache_bytes, state_bytes; /* the last two: of all rows */
    Pass pass;
    Real *logits; /* (rows,VOC) device */
    void *mem;
} Ragged; /* zero-initialise; ragged_close is always fine */

/* ERR_USAGE for sizes below 1. */
int ragged_open(Ragged *r, Model *m, int rows, int capacity, int most, Err *e);
void ragged_close(Ragged *r);
/* Bytes that one row of `capacity` tokens takes, of which at most `most` come in one step. */
size_t ragged_row_bytes(const Model *m, int capacity, int most);
void ragged_clear(Ragged *r, int row);         /* past = 0, states zero */
void ragged_copy(Ragged *r, int to, int from); /* a branch: the row `to` becomes what `from` is */
/* One step. At most one piece a row. ERR_USAGE when a piece does not fit into its row or the pieces into a step;
 * ERR_INPUT for an id outside the vocabulary. Token i of the step is the i-th when the pieces are written one after
 * another. */
int ragged_step(Ragged *r, const RaggedPiece *piece, int n, Err *e);
/* The final hidden states of n of the last step's tokens, at[i] increasing, in rows 0 .. n-1 of pass.h. */
void ragged_hidden(Ragged *r, const int *at, int n);
/* Their logits, n <= rows, to a host array (n,VOC). */
int ragged_logits(Ragged *r, const int *at, int n, float *logits, Err *e);

#endif
