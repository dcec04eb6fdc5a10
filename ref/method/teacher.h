/* teacher.h - the teacher's final hidden states of each batch, computed once and shared by all students that read the
 * same tokens.
 *
 * All one-swap students of a scoring run see the same batches (seed, step), so their teacher passes are equal.
 * Up to `limit` bytes of them are kept; the rest is computed again. The bits are the same either way. */
#ifndef HYB_TEACHER_H
#define HYB_TEACHER_H
#include "method/batch.h"
#include "model/model.h"

typedef struct {
    Model *m;    /* frozen */
    Pass pass;   /* inference, (B,T) */
    Real **slot; /* (n_slots) hidden states (N,C) on the device, NULL: not kept */
    int64_t n_slots;
    size_t limit, kept; /* bytes */
    int64_t hits, misses;
} Teacher;

/* slots: batches that may be asked for by number 0..slots-1 (others are computed each time). */
int teacher_open(Teacher *t, Model *m, int B, int T, int64_t slots, size_t limit, Err *e);
void teacher_close(Teacher *t);
/* *h = hidden states of batch number `key`, valid until the next call. start as in pass_input. */
int teacher_hidden(Teacher *t, int64_t key, const int *ids, const int *start, const Real **h, Err *e);

/* A pass that ends in these hidden states, for a loss that reads nothing else of it. */
Pass teacher_view(const Teacher *t, const Real *h);

/* Bytes it may come to hold: activations, and the states that fit the limit. */
size_t teacher_bytes(const Teacher *t);

#endif
