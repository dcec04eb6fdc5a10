/* bpe.h - byte pair encoding of one piece: merge the pair of lowest rank, the leftmost on ties, until no rule
 * applies. */
#ifndef HYB_BPE_H
#define HYB_BPE_H
#include "text/vocab.h"

typedef struct {
    int id, prev, next;
} Symbol; /* next 0 and id -1: swallowed by its left neighbour */
typedef struct {
    uint32_t rank, at;
    int id;
} Candidate;
/* A piece being merged, with the room it needs; reused from piece to piece. Zero-initialise; free with
 * word_free. */
typedef struct {
    Symbol *sym;
    size_t n, cap;
    Candidate *heap;
    size_t n_heap, heap_cap;
} Word;

int word_push(Word *w, int id, Err *e);
/* Replaces the n ids by the merged ones. O(n log n); at most 2^30 symbols. Source: Sennrich et al., arXiv
 * 1508.07909. */
int word_merge(Word *w, const Merges *m, Err *e);
void word_free(Word *w);

#endif
