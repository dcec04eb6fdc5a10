/* questions.h - question sets from files: what each row becomes. Contexts and choices as lm-evaluation-harness builds them.
 * Source: evaluation.md 5, 6; file forms as the publishers and common mirrors give them. */
#ifndef HYB_QUESTIONS_H
#define HYB_QUESTIONS_H
#include "eval/evalset.h"

typedef struct QuestionReader QuestionReader;
/* By task name; NULL if there is no such set. */
const QuestionReader *questions_find(const char *task);
/* Reads at most limit rows (0: all) from the first of the set's files that lies under dir. ERR_IO says which is missing and where it comes
 * from; ERR_INPUT gives file and line. */
int questions_read(const QuestionReader *r, const char *dir, size_t limit, EvalSet *out, Err *e);

#endif
