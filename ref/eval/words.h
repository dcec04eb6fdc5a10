/* words.h - the word lists of the Python package wonderwords (2.2.0 for the paper's numbers), as RULER uses them.
 *
 * Two views: composites "adjective-noun" in sorted order, of which there are six million, found by rank without making
 * them; and the sorted union of nouns, adjectives and verbs. Source: ref/eval/README.md 2. */
#ifndef HYB_WORDS_H
#define HYB_WORDS_H
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

typedef struct WordGroup WordGroup;
typedef struct {              /* zero-initialise; words_close is always fine */
    char *text[3];            /* noun, adjective, verb: the files */
    char **noun, **adjective; /* sorted, without repetitions */
    char **all;               /* sorted union of the three lists */
    size_t n_noun, n_adjective, n_all;
    WordGroup *group; /* composites in sorted order, group by group */
    size_t n_group;
    uint32_t composites;
} Words;

/* Reads dir/{noun,adjective,verb}list.txt: a word a line, white space behind it dropped. ERR_IO names the missing file.
 * */
int words_open(Words *w, const char *dir, Err *e);
void words_close(Words *w);
/* sorted(set(a + "-" + n))[rank], NUL-terminated, cut at cap; rank < composites. */
void words_composite(const Words *w, uint32_t rank, char *dst, size_t cap);

#endif
