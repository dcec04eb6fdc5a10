/* lm.h - a model the way an evaluation harness sees it: text in, greedy text or log-probabilities out.
 *
 * Every prompt is scored as if it were alone: prompts of any lengths run together without padding (model/ragged.h).
 * Requests that share their context share its caches and states too. Source: ref/eval/README.md 4. */
#ifndef HYB_LM_H
#define HYB_LM_H
#include "base/log.h"
#include "eval/evalset.h"
#include "model/model.h"
#include "text/tokenizer.h"

typedef struct {
    Model *m;
    const Tokenizer *t;
    /* 1: what the tokenizer adds (BOS) stands before every prompt; the harness's default is not */
    int special;
    int max_length; /* 0: max_positions of the model */
    /* rows at once, 0: 16 for generation, 32 for log-likelihoods, fewer where 1 GiB does not hold them */
    int batch;
    int prefill;        /* prompt tokens read in one step of generation, 0: 256 */
    volatile int *stop; /* not 0: give up with ERR_SIGINT; may be NULL */
    const Progress *progress;
    const char *label;               /* of the progress line */
    long truncated;                  /* counts prompts that were cut on the left to fit max_length */
    size_t cache_bytes, state_bytes; /* largest in use by generation */
} Lm;

/* Greedy continuations: *text = n strings (free with lm_free_texts), at most max_new tokens, ended by EOS, cut before
 * the first of the `until` strings (NULL-terminated list; may be NULL). Uses context[0] of each document. */
int lm_generate(Lm *lm, const EvalDoc *doc, size_t n, int max_new, const char *const *until, char ***text, Err *e);
void lm_free_texts(char **text, size_t n);
/* How many rows of `capacity` tokens to run at once, at most `most`. */
int lm_rows(const Lm *lm, int capacity, int most);

typedef struct {
    double sum; /* nats: sum of log p of the continuation's tokens */
    int greedy; /* every one of them was the argmax (lowest id on ties) */
    int tokens;
} LogLik;
typedef struct {
    const char *context, *continuation;
} LogLikAsk;
/* Log-likelihoods of n pairs, results in the order of the questions. An empty context is the BOS token,
 * else EOS (ERR_INPUT if there is neither). White space at a context's end goes to the continuation;
 * the continuation's tokens are those of the whole text behind as
 * many as the context has by itself. */
int lm_loglik(Lm *lm, const LogLikAsk *ask, size_t n, LogLik *out, Err *e);
/* A whole text in disjoint windows of max_length, the first token predicted from BOS (else EOS): sum in nats. */
int lm_rolling(Lm *lm, const char *text, LogLik *out, Err *e);
/* Tokens as lm_loglik splits them: ids = context then continuation, *first = where the continuation begins. For tests.
 * */
int lm_split(const Lm *lm, const LogLikAsk *ask, Ids *ids, size_t *first, Err *e);

#endif
