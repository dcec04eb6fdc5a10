/* question_parts.h - between the files of questions.h: rows of files become questions. */
#ifndef HYB_QUESTION_PARTS_H
#define HYB_QUESTION_PARTS_H
#include "base/file.h"
#include "eval/questions.h"
#include "base/json.h"

/* One row of a file; appends what it becomes. Errors carry file and line (j->file). */
typedef int (*QuestionRow)(const Json *j, JsonRef row, EvalSet *out, Err *e);

/* The text under a key; ERR_INPUT if there is none. */
int question_want(const Json *j, JsonRef row, const char *key, const char **s, Err *e);
/* The buffer becomes the question's next context; it is freed whatever happens. */
int question_context(EvalDoc *d, TextBuf *b, Err *e);
/* A continuation: the delimiter, one space, and n bytes. */
int question_choice(EvalDoc *d, const char *s, size_t n, Err *e);
int question_gold(const Json *j, EvalDoc *d, int64_t gold, int n, Err *e); /* ERR_INPUT outside 0 .. n-1 */

typedef struct {
    const char *at, *end;
    size_t number;
} QuestionLines;
/* The next line without its end; 0 when there is none. */
int question_line(QuestionLines *l, const char **s, size_t *n);

/* Multiple choice. *_instruct: a mirror's instruction form, split back. */
int piqa_row(const Json *j, JsonRef row, EvalSet *out, Err *e);
int query_row(const Json *j, JsonRef row, EvalSet *out, Err *e);
int arc_row(const Json *j, JsonRef row, EvalSet *out, Err *e);
int arc_instruct(const Json *j, JsonRef row, EvalSet *out, Err *e);
int obqa_row(const Json *j, JsonRef row, EvalSet *out, Err *e);
int obqa_instruct(const Json *j, JsonRef row, EvalSet *out, Err *e);
int siqa_row(const Json *j, JsonRef row, EvalSet *out, Err *e);
int siqa_instruct(const Json *j, JsonRef row, EvalSet *out, Err *e);
int winogrande_row(const Json *j, JsonRef row, EvalSet *out, Err *e);
int winogrande_official(const Json *j, JsonRef row, EvalSet *out, Err *e);
int boolq_row(const Json *j, JsonRef row, EvalSet *out, Err *e);
int boolq_instruct(const Json *j, JsonRef row, EvalSet *out, Err *e);
int sciq_row(const Json *j, JsonRef row, EvalSet *out, Err *e);
int hellaswag_row(const Json *j, JsonRef row, EvalSet *out, Err *e);
int hellaswag_read(const char *path, const File *f, size_t limit, EvalSet *out, Err *e);
/* MMLU: all SUBJECT_test.csv of dir, at most limit (0: all) of each; shots: examples from ../dev before every question.
 * */
int mmlu_read(const char *dir, int shots, size_t limit, EvalSet *out, Err *e);

/* Words. */
int lambada_row(const Json *j, JsonRef row, EvalSet *out, Err *e);
int gsm8k_row(const Json *j, JsonRef row, EvalSet *out, Err *e);
/* text and value as they stand; a key, if there is one, is the second context until completion_apply takes it away. */
int completion_row(const Json *j, JsonRef row, EvalSet *out, Err *e);
int squad_article(const Json *j, JsonRef article, EvalSet *out, Err *e);
/* context: the page as the model reads it; text[0]: as it stands in the file, whose words and bytes are counted. */
int pages_read(const File *f, size_t limit, EvalSet *out, Err *e);

#endif
