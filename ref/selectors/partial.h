/* partial.h - resume for selectors that do not train: partial rows are kept after each layer or held-out batch. */
#ifndef HYB_PARTIAL_H
#define HYB_PARTIAL_H
#include "method/score.h"

typedef struct {
    Memo *memo;                   /* NULL: nothing is kept */
    const char *name;             /* of the record */
    double base;                  /* what all layers are compared with, where there is such a number */
    double seconds, begin, saved; /* spent before; log_now of begin and of the last save */
} Partial;
enum { PARTIAL_SECONDS = 10 }; /* at least so long between two saves */

/* Zeroes rows (L), or takes them over with *done units (layers or batches) from an earlier call that was stopped. */
int partial_begin(Partial *p, LayerScore *rows, int L, int *done, Err *e);
/* After each unit: saves if it is time to, and if a stop was asked for: then 128 + the signal's number. */
int partial_unit(Partial *p, LayerScore *rows, int L, int done, Err *e);
/* Seconds of all calls so far. */
double partial_seconds(const Partial *p);

#endif
