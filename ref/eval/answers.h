/* answers.h - can a question be answered from what the model is shown? Asked of every question of every task, because
 * published generators do not ask: RULER's frequent words of a short text lack the third answer, and a document that
 * is cut to a window lacks what was behind it.
 *
 *   RULER                          every gold answer occurs in the text of the question (not only in a worked example)
 *   SWDE, FDA, SQuAD completion    the gold value occurs in the prompt
 *   SQuAD 2.0                      one of the gold answers does, if there are any
 *   multiple choice                the right choice is not there twice
 *   diagnostic tasks              asked where they are drawn (diagnostic_tasks.h)
 *   gsm8k, LAMBADA, wikitext       the answer is not meant to be shown
 *
 * Occurs: by the rule that scores an output, so that a model which repeats its prompt is right. "yes" and "no"
 * (HotpotQA) are judgements about a text and are not looked for. */
#ifndef HYB_ANSWERS_H
#define HYB_ANSWERS_H
#include "eval/tasks.h"

int answers_shown(const EvalTask *t, const EvalDoc *d, int *yes, Err *e);
/* Counts the questions of which that is not so into set->lacking; the first is number set->first_lacking. ours: the
 * questions are of our own making, so such a one is refused (ERR_USAGE); published ones are kept as they are. */
int answers_check(const EvalTask *t, EvalSet *set, int ours, Err *e);

#endif
