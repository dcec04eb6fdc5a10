/* completion.h - how SWDE, FDA and SQuAD completion are asked: four protocols that are found under the same names.
 *
 *   v0     the text as it stands, blanks and all (lm-evaluation-harness up to June 2026: the paper's time)
 *   v1     text and value stripped (lm-evaluation-harness from then on)
 *   jrt    SWDE cut at "Summary of information above...", the text ended with one full stop and asked "Key:" (the
 *          harness of the
 *          Based and "just read twice" papers); optionally only a window of tokens around the first hit of key or value
 *   twice  as jrt, the text shown twice
 *
 * Source: ref/eval/README.md 5; github HazyResearch/prefix-linear-attention, lm-eval-harness. */
#ifndef HYB_COMPLETION_H
#define HYB_COMPLETION_H
#include "eval/questions.h"

/* Rewrites the questions of task "swde", "fda" or "squad_completion" as completion_row read them.
 * ERR_USAGE for a window without a tokenizer, or with v0 and v1; ERR_INPUT for a row without the key that a protocol
 * needs. */
int completion_apply(EvalSet *s, const char *task, const QuestionOptions *o, Err *e);

#endif
