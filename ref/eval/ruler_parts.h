/* ruler_parts.h - between the files of ruler.h. */
#ifndef HYB_RULER_PARTS_H
#define HYB_RULER_PARTS_H
#include "eval/ruler.h"

/* One drawn sample. Counted per sample: text. Counted by the search: before + text + after.
 * Prompt: front + text[:input] + delimiter + prefix. */
typedef struct {
    TextBuf before, text, after, front, prefix, answers; /* answers: NUL-terminated, one after the other */
    size_t input;
    int n_answers;
} Draw;
void draw_clear(Draw *d);
void draw_free(Draw *d);
void draw_answer(Draw *d, const char *answer);
const char *draw_next(const char *answer); /* of the list */
/* The answers as Python prints a list of strings. */
void draw_list(const Draw *d, TextBuf *out);
/* Everything was put? ERR_MEMORY if not. */
int draw_end(Draw *d, Err *e);
int draw_emit(Ruler *r, const Draw *d, const char *delimiter, EvalSet *out, Err *e);

typedef struct {
    const char *name, *also;
    int max_new;
    const char *delimiter;
    /* A sample with n units of haystack; index: number of the sample, 0 while searching. */
    int (*draw)(Ruler *r, const void *ctx, int index, int n, Draw *d, Err *e);
    const void *ctx; /* NIAH: its kind */
    int step, clip;  /* clip: 1 the search stops at the largest n (most()), before growing; 2: after */
    size_t (*most)(const Ruler *r, const void *ctx);
    int (*prepare)(Ruler *r, const void *ctx, Err *e); /* reads what it needs */
} RulerTask;

typedef struct {
    const char *haystack, *key, *value;
    int keys, values, queries;
} NiahKind;
int niah_draw(Ruler *r, const void *ctx, int index, int n, Draw *d, Err *e);
int niah_prepare(Ruler *r, const void *ctx, Err *e);
size_t niah_most(const Ruler *r, const void *ctx);

int essay_open(RulerEssay *s, const char *dir, Err *e);
void essay_close(RulerEssay *s);

enum { VT_EXAMPLE_VALUE = 12345 }; /* of NVIDIA's example, before it is replaced */
/* ctx: NULL, or the in-context example's three-letter names wanted. */
int vt_draw(Ruler *r, const void *ctx, int index, int n, Draw *d, Err *e);
void vt_randomize(Ruler *r, const char *example, const Draw *names, TextBuf *out);

int cwe_prepare(Ruler *r, const void *ctx, Err *e);
size_t cwe_most(const Ruler *r, const void *ctx);
int cwe_draw_at(Ruler *r, int L, int n, Draw *d, Err *e);
/* NVIDIA's fit of one task: a binary search to the last unit over whole prompts. step: how much a sample that is too
 * long loses. */
int nvidia_make(Ruler *r, const RulerTask *t, int L, int step, int samples, EvalSet *out, Err *e);
/* Frequent words size themselves. */
int fwe_make(Ruler *r, int L, int samples, EvalSet *out, Err *e);

int qa_prepare(Ruler *r, const void *ctx, Err *e); /* ctx: which, "squad" or "hotpot" */
size_t qa_most(const Ruler *r, const void *ctx);
size_t qa_questions(const Ruler *r, const void *ctx);
int qa_draw(Ruler *r, const void *ctx, int index, int n, Draw *d, Err *e);
void qa_close(RulerQa *q);

#endif
