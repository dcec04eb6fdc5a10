/* vocab.h - token text <-> id, and the merge rules. Filled once by the loader, then only read. */
#ifndef HYB_VOCAB_H
#define HYB_VOCAB_H
#include <stdint.h>
#include "text/unicode.h"

enum { TOKEN_ID_LIMIT = 1 << 24 }; /* ids are below this */

typedef struct {
    size_t at, len; /* its text, in Vocab.text */
    int id;
    short in_model; /* 0: an added token that the model itself does not know, so merging never makes it */
    short special;
} VocabEntry;
typedef struct {
    TextBuf text;
    VocabEntry *entry;
    size_t n, cap;
    uint32_t *slot;  /* hash table of 1 + index of entry, linear probing, at most half full */
    size_t slots;    /* a power of two */
    uint32_t *by_id; /* 1 + index of entry, 0 = no such id; made by vocab_index */
    int size;        /* largest id + 1 */
} Vocab;

int vocab_add(Vocab *v, const char *s, size_t n, int id, int in_model, Err *e);
VocabEntry *vocab_find(const Vocab *v, const char *s, size_t n); /* NULL if absent */
int vocab_find_model(const Vocab *v, const char *s, size_t n);   /* id of a token of the model, or -1 */
/* Makes by_id; two entries with one id give ERR_INPUT. To be called again after more vocab_add. */
int vocab_index(Vocab *v, const char *file, Err *e);
const VocabEntry *vocab_by_id(const Vocab *v, int id); /* NULL if unused */
void vocab_free(Vocab *v);

typedef struct {
    uint64_t pair; /* left id << 32 | right id, plus 1: 0 = empty slot */
    uint32_t rank; /* position in the file: the lowest is merged first */
    int id;        /* what the two become */
} Merge;
typedef struct {
    Merge *slot;
    size_t slots, n;
} Merges;

int merges_reserve(Merges *m, size_t n, Err *e); /* room for n rules */
/* A repeated pair keeps its last rank. */
void merges_add(Merges *m, int left, int right, uint32_t rank, int id);
const Merge *merges_find(const Merges *m, int left, int right); /* NULL if there is no rule */
void merges_free(Merges *m);

#endif
