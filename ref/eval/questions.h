/* questions.h - question sets from files: what each row becomes. Contexts and choices as lm-evaluation-harness builds
 * them.
 * Source: ref/eval/README.md 4, 5; file forms as the publishers and common mirrors give them. */
#ifndef HYB_QUESTIONS_H
#define HYB_QUESTIONS_H
#include "eval/evalset.h"
#include "text/tokenizer.h"

/* How SWDE, FDA and SQuAD completion are asked; see completion.h. */
typedef enum { PROTOCOL_V0, PROTOCOL_V1, PROTOCOL_JRT, PROTOCOL_TWICE } Protocol;
typedef struct {
    size_t limit; /* only the first so many rows, 0: all; of each subject of MMLU */
    int shots;    /* MMLU: examples before each question, 0 to 5 */
    Protocol protocol;
    int window;         /* SWDE, FDA, SQuAD completion: tokens around the answer that are kept, 0: all */
    const Tokenizer *t; /* for window */
} QuestionOptions;

typedef struct QuestionReader QuestionReader;
/* By task name; NULL if there is no such set. */
const QuestionReader *questions_find(const char *task);
/* Reads from the first of the set's files that lies under dir. ERR_IO says which is missing and where it comes from;
 * ERR_INPUT gives file and line. */
int questions_read(const QuestionReader *r, const char *dir, const QuestionOptions *o, EvalSet *out, Err *e);

#endif
