/* fit.h - how a linear mixer starts: copied and drawn (transfer.h), silent, or in closed form from what its layer's
 * attention does in one pass of the teacher over some text. Equations and sources: ref/METHOD.md 3.1. */
#ifndef HYB_FIT_H
#define HYB_FIT_H
#include "method/align.h"
#include "method/memo.h"

typedef enum {
    START_TEACHER,   /* what can be copied is copied, the rest is drawn */
    START_ZERO_GATE, /* the same, and an output gate of 0: the mixer's output is exactly 0 */
    START_TAYLOR,    /* gdn_v4: Taylor-Calibrate's closed form as published (taylor.c) */
    START_FIT        /* decay, write strength, gates and output from the teacher's attention */
} StartKind;

/* What a start did to one layer. */
typedef struct {
    double before, after;     /* stage 1's loss of the layer, on text that the start did not read */
    double distance, entropy; /* of its attention (attend.h), mean over heads; 0 where nothing was read */
    double first;             /* share of its weight on the first token of a document, mean over heads */
    double constant;          /* R^2 of a constant as a linear function of the normed input: gates have no bias */
} FitLayer;
typedef struct {
    int L;
    int64_t tokens; /* of training text that was read, once */
    FitLayer layer[MAX_LAYERS];
} Fit;

enum { FIT_ROWS = 64, TAYLOR_TOKENS = 1024 };
/* ERR_USAGE, by name, where layers of this mixer cannot start so. */
int fit_check(StartKind kind, const Mixer *m, Err *e);
/* Writes the start into every linear layer of a->student, freshly transferred from a->teacher. tokens: to read, rounded
 * up to batches of a, at least two; 0: FIT_ROWS for each of the H D columns of o_proj, or TAYLOR_TOKENS.
 * Memory is that of the sums (two matrices a layer, on the host, in double), whatever tokens is. The bits do not depend
 * on threads. memo: asked between batches whether to stop. */
int fit_start(Fit *f, StartKind kind, Align *a, int64_t tokens, const Memo *memo, Err *e);
/* Device memory that it takes beside stage 1's, for batches of N rows. */
size_t fit_bytes(const Model *teacher, const Config *student, int N);

#endif
