/* diagnostic_tasks.h - the diagnostic tasks by whose loss under zero-ablation the paper's task-guided baselines rank
 * layers (ref/METHOD.md 8): seeded, greedy, with words made of syllables, since the official word lists come
 * from one tokenizer or package.
 *
 *   ar          name: digit pairs, the sum of three asked           the number is in the output
 *   ar_mh       the same, some names stand for earlier names        the number is in the output
 *   vt          two chains of assignments with noise, shuffled      exactly the names of the X chain are in the output
 *   cwe         10 words twice, 100 once                            the first ten list words of the output are those
 *               ten
 *   fwe         words with Zipf counts, the three most frequent     the first three list words, in order
 *   phone_book  lines "First Last: number", two shown again         the first line is the number
 *   retrieval   word:number pairs, one asked                        the first integer */
#ifndef HYB_DIAGNOSTIC_TASKS_H
#define HYB_DIAGNOSTIC_TASKS_H
#include "base/rng.h"
#include "base/text_buf.h"
#include "model/model.h"
#include "text/tokenizer.h"

typedef struct {
    int samples, pairs, new_tokens;
    uint64_t seed;
} DiagnosticOptions; /* officially 500, 50, 200 and no seed */
typedef struct {
    TextBuf prompt, answer, words, evidence;
} DiagnosticSample; /* one a line: words that may be answered (cwe, fwe); evidence, from which the answer follows */

typedef struct {
    const char *name;
    int (*make)(DiagnosticSample *s, Rng *r, int pairs, Err *e);
    int (*right)(const DiagnosticSample *s, const char *output);
} DiagnosticTask;

enum { DIAGNOSTIC_TASKS = 7 };
const DiagnosticTask *diagnostic_at(int i);
const DiagnosticTask *diagnostic_find(const char *name); /* NULL if unknown */
/* Sample number i. diagnostic_free also after a failure. ERR_INPUT if it cannot be answered: its prompt lacks a line of
 * the evidence, or holds a word that is no answer as often as one that is. */
int diagnostic_sample(DiagnosticSample *s, const DiagnosticTask *task, const DiagnosticOptions *o, int i, Err *e);
void diagnostic_free(DiagnosticSample *s);

/* Accuracy of greedy answers; tokens (may be NULL): consumed and generated, added. */
int diagnostic_accuracy(const DiagnosticTask *task, Model *m, const Tokenizer *t, const DiagnosticOptions *o,
                        double *accuracy, int64_t *tokens, Err *e);
/* The same with mixer `layer`'s output set to zero. */
int diagnostic_ablated(const DiagnosticTask *task, Model *teacher, const Tokenizer *t, const DiagnosticOptions *o,
                       int layer, double *accuracy, int64_t *tokens, Err *e);

#endif
