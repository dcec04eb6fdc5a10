/* recall.h - the recall game: k1 v1 ... kn vn, then queries k v k v ... to the end; how often is the asked value the
 * argmax?
 *
 * n distinct keys, values with replacement, fresh in every sequence, so nothing can be memorised in the weights;
 * queries are drawn with replacement. A value in the query part is predicted at its key's position.
 * Guessing one of the values gives about 1/n.
 * The same generator feeds pretraining (method/pretrain.h). Source: ref/METHOD.md 12. */
#ifndef HYB_RECALL_H
#define HYB_RECALL_H
#include "base/rng.h"
#include "model/model.h"
#include "text/tokenizer.h"

typedef struct { /* token ids to draw from */
    const int *key, *value;
    int n_key, n_value;
    /* 1: keys and values come from the one set `key`; values are drawn from what the sequence's keys left over */
    int disjoint;
} RecallSpec;

/* ERR_USAGE when n pairs cannot be drawn, an id is outside [0, VOC) or twice in a set. */
int recall_check(const RecallSpec *s, int n_max, int VOC, Err *e);
/* One sequence of T tokens with n pairs: ids (T), target (T) next tokens, weight (T) 1 at positions whose next token is
 * an asked value, else 0. Returns the number of ones. Needs 2 n < T + 1 for at least one query. scratch: 2 n_key ints.
 * */
int recall_row(const RecallSpec *s, Rng *r, int n, int T, int *ids, int *target, float *weight, int *scratch);

enum { RECALL_MAX_N = 16 };
typedef struct {
    RecallSpec spec;
    int n[RECALL_MAX_N], n_n; /* numbers of pairs to ask about */
    int rows, queries;        /* sequences per n; each has 2 n + 2 queries tokens */
    int batch;                /* sequences a forward pass */
    uint64_t seed;            /* fixed: every model gets the same sequences */
    int *ids_mem;             /* owned copy of the sets, see recall_open */
} Recall;

/* Copies the sets. n: numbers of pairs. rows and queries <= 0: 64 and 16. */
int recall_open(Recall *r, const RecallSpec *s, const int *n, int n_n, int rows, int queries, uint64_t seed, int VOC,
                Err *e);
void recall_close(Recall *r);

/* The ids of the characters of a set like "A-Za-z" (ranges allowed, bytewise): each must be one token of t by itself,
 * else ERR_USAGE naming it. *ids is to be freed with mem_free. */
int recall_alphabet(int **ids, int *n, const Tokenizer *t, const char *set, Err *e);

/* How the stack is run: NULL = model_forward; selectors that switch layers off bring their own. Fills p->h. */
typedef void (*RecallForward)(void *ctx, const Model *m, Pass *p);
/* accuracy (n_n): fraction of asked values that are the argmax. mean (may be NULL): over all n. */
int recall_run(const Recall *r, Model *m, RecallForward forward, void *ctx, double *accuracy, double *mean, Err *e);

/* Rows for TextStream.mixed (method/batch.h), ctx a Recall: pairs drawn from its numbers that leave room for a query.
 * */
int recall_mixed(const void *ctx, uint64_t seed, uint64_t index, int first, int rows, int T, int *ids, int *target,
                 Err *e);

#endif
