/* mqar.h - recall probes of plain token ids that need no data: multi-query associative recall with zoology's variants,
 * copying, and keys of several tokens.
 *
 *   MQAR           n key-value pairs, then the keys again at places drawn with a power law over gaps;
 *                  the value is to be predicted at each
 *                  key's second position and is not in the input there. passes 2: "just read twice"
 *   FORGETTING     `updates` of the keys get another value behind the pairs: the last one counts
 *   COMPOSITIONAL  a key is a pair of tokens out of a grid of sqrt(n) x sqrt(n): neither token alone tells the value
 *   PARITY         T - 1 bits and an end token: is the number of ones odd?
 *   MAJORITY       the same: are there more ones than zeros?
 *   COPY           a random block of n tokens, then the same block again
 *   NGRAM          n keys of `gram` tokens over an alphabet so small that every token of a key matters, each with its
 *                  value; then all of
 *                  them again in another order, values included
 *
 * The distributions are the originals' (github HazyResearch/zoology; NGRAM and COPY: ref/eval/README.md 1),
 * their random streams are not.
 * Source: ref/eval/README.md 1. */
#ifndef HYB_MQAR_H
#define HYB_MQAR_H
#include "base/rng.h"
#include "model/model.h"

typedef enum {
    PROBE_MQAR,
    PROBE_FORGETTING,
    PROBE_COMPOSITIONAL,
    PROBE_PARITY,
    PROBE_MAJORITY,
    PROBE_COPY,
    PROBE_NGRAM,
    PROBES
} ProbeKind;
typedef struct {
    ProbeKind kind;
    int vocab; /* keys from its first half (without 0), values from the second; COMPOSITIONAL: thirds */
    /* length, pairs (COPY: block). COPY and NGRAM have the length that n gives: mqar_length */
    int T, n;
    int passes;        /* MQAR: times the pairs are shown */
    int updates, gram; /* FORGETTING; NGRAM */
    double power;      /* 0.01 */
    int random_filler; /* 1: other positions are random tokens; 0: token 0 */
} MqarSpec;

const char *mqar_name(ProbeKind k); /* "mqar", "mqar_forgetting", ..., NULL outside */
int mqar_find(const char *name);    /* -1 if unknown */
int mqar_length(const MqarSpec *s); /* T, or what n asks for */
/* ERR_USAGE when the probe does not fit into its length or vocabulary. s->T is mqar_length. */
int mqar_check(const MqarSpec *s, Err *e);
size_t mqar_scratch(const MqarSpec *s); /* ints of mqar_row's scratch */
/* One sequence: ids (T), target (T) what is to be predicted or -1, weight (T) 1 where something is. */
void mqar_row(const MqarSpec *s, Rng *r, int *ids, int *target, float *weight, int *scratch);

typedef struct {
    double accuracy, accuracy_se, loss;
    int64_t asked;
} MqarResult;
/* rows sequences, a pure function of (spec, seed). accuracy: mean over sequences of the fraction of right argmaxes;
 * loss: nats. */
int mqar_run(const MqarSpec *s, Model *m, int rows, uint64_t seed, MqarResult *out, Err *e);

#endif
