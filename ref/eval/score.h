/* score.h - from a generated text and the gold answers to a number. Source: ref/eval/README.md 2 (RULER), 5 (contains,
 * SQuAD).
 *
 * Letters are compared without case, as Python's str.lower makes them. */
#ifndef HYB_SCORE_H
#define HYB_SCORE_H
#include "base/err.h"

/* RULER: strip, control characters to newlines, strip; the fraction of answers that occur in it.
 * What lm-eval calls string_match_part is this too; NVIDIA's is any: 1 if one of them occurs. ERR_MEMORY. */
int score_match(const char *generated, char *const *answer, int n, int any, double *score, Err *e);
/* 1 if value occurs in the text, nothing stripped (SWDE, FDA, SQuAD completion). */
int score_contains(const char *generated, const char *value, double *score, Err *e);
/* SQuAD v2: largest over the answers of exact match and F1 of words after normalising; no answer counts as one that is
 * empty. */
int score_squad(const char *generated, char *const *answer, int n, double *exact, double *f1, Err *e);

/* Mean and the standard error of the mean (sample deviation / sqrt n; NAN below two). */
void score_mean(const double *x, int n, double *mean, double *se);

#endif
