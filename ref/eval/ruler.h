/* ruler.h - the 13 RULER tasks (NVIDIA, Apache-2.0) as EleutherAI's lm-evaluation-harness (MIT) makes them: same random
 * streams, same texts, same quirks, so that a sample here is byte for byte a sample there. Source:
 * ref/eval/README.md 2; the prompt strings are interface facts of both projects.
 *
 * A task's length is fitted by a search with coarse steps, during which samples are drawn, so the search is part of the
 * random stream. Lengths at which the original never ends (nothing fits) are ERR_USAGE.
 *
 * NVIDIA's own generator (github NVIDIA/RULER) is the other flavour: a binary search that fills the length to the last
 * unit, the answer prefix counted, no special tokens, CWE with an example, any gold answer suffices in question
 * answering, scores in percent rounded to two decimals. No chat template. Source: ref/eval/README.md 3.
 *
 * "lite" is for tiny models (ref/eval/README.md 1): niah_single_1, niah_multikey_2, vt and fwe, filled to the last unit
 * from 256 tokens on, numbers of three digits, no example, short answers. */
#ifndef HYB_RULER_H
#define HYB_RULER_H
#include "eval/evalset.h"
#include "eval/pyrandom.h"
#include "eval/token_count.h"
#include "eval/words.h"

enum { RULER_TASKS = 13, RULER_MIN = 256, RULER_MAX = 1 << 20 };
typedef enum { RULER_LM_EVAL, RULER_NVIDIA, RULER_LITE } RulerFlavour;

/* The essay haystack: text whose words stand one space apart, and where its sentences begin and end. */
typedef struct {
    char *text;
    size_t bytes, words, sentences;
    uint32_t *begin, *end, *word_end;
} RulerEssay;
/* A question answering set: paragraphs in sorted order, and for each question those that belong to it. */
typedef struct RulerQa RulerQa;

typedef struct {
    char dir[1024];
    TokenCount *count;
    PyRandom random, numpy; /* the two global generators */
    Words words;
    RulerEssay essay;
    RulerQa *qa[2];       /* SQuAD, HotpotQA */
    PyRandom cwe;         /* common words have a generator of their own, which outlives a task */
    int *cwe_word;        /* their shuffled word list, indices into words.all */
    RulerFlavour flavour; /* set it after ruler_open, before ruler_seed */
    /* seed of the shuffles that are the same for every sample: 42 in lm-eval, the seed itself in NVIDIA's scripts */
    uint64_t fixed;
    double place; /* where needles go, 0 (front) to 1; below 0: as drawn */
    int L;        /* length being made */
} Ruler;

/* dir: where the word lists (wonderwords/), essays (ruler_essays/) and question sets (squad_v2/, hotpotqa/) lie;
 * each is read when a task first needs it, ERR_IO naming file and origin if it is missing. count is kept, not owned. */
int ruler_open(Ruler *r, const char *dir, TokenCount *count, Err *e);
void ruler_close(Ruler *r);
void ruler_seed(Ruler *r, uint64_t seed); /* random.seed and numpy.random.seed */

const char *ruler_name(int task); /* 0 .. RULER_TASKS-1 in the order of the group; NULL outside */
int ruler_find(const char *name); /* also vt, cwe, fwe, qa_1, qa_2; -1 if none */
int ruler_max_new(int task);      /* tokens to generate */
/* Appends `samples` questions of at most L tokens: context = input + delimiter + prefix, text = answers. */
int ruler_make(Ruler *r, int task, int L, int samples, EvalSet *out, Err *e);
/* For heat maps: a needle task (the first eight) with its needles at one place, 0 to 1, the length filled to the last
 * unit, room for max_new tokens. The needles do not depend on the place. */
int ruler_make_at(Ruler *r, int task, int L, double place, int max_new, int samples, EvalSet *out, Err *e);

#endif
