/* perplexity.h - how well a model predicts a text, and how far a student is from its teacher on it.
 *
 * The token stream is cut into consecutive windows of T tokens, the last partial one dropped unless it is the only one.
 * Every window begins from a fresh state. Units are nats. */
#ifndef HYB_PERPLEXITY_H
#define HYB_PERPLEXITY_H
#include "base/log.h"
#include "model/model.h"

typedef struct {
    /* mean over predictions; its standard error from the spread between windows (NAN for one window) */
    double nll, nll_se;
    double perplexity; /* e^nll */
    double accuracy;   /* fraction of predictions whose argmax is the token */
    int64_t predictions, windows;
    int T; /* length of the windows: less than asked for when the text is shorter */
} Perplexity;
/* Positions 2..T of every window are predicted. batch: windows a forward pass, 0: about 2048 tokens. ERR_INPUT:
 * fewer than two tokens, or an id outside the vocabulary; ERR_USAGE: T < 2; ERR_NUMERIC: the loss is not finite.
 * progress may be NULL. */
int perplexity_run(Perplexity *r, Model *m, const int *ids, size_t n, int T, int batch, const Progress *progress,
                   Err *e);

typedef struct {
    /* KL(teacher || student), mean over all positions; standard error from the spread between windows */
    double kl, kl_se;
    double agreement; /* fraction of positions 1..T-1 where both have the same argmax */
    Perplexity teacher, student;
} Divergence;
/* Both models on one backend, with one vocabulary (ERR_INPUT otherwise). */
int divergence_run(Divergence *r, Model *teacher, Model *student, const int *ids, size_t n, int T, int batch,
                   const Progress *progress, Err *e);

#endif
