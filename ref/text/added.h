/* added.h - tokens that are found in the text as they are, before the model sees it ("added tokens":
 * <|im_start|>, <s>, ...).
 *
 * Of all tokens the leftmost match counts, of those the longest. single_word: only where no \w touches it;
 * lstrip, rstrip: it takes the white space before or behind it. Matches do not overlap, except that a token
 * found right behind one with rstrip may begin inside the white space which that one took. Time: length of
 * the text x length of the longest token. */
#ifndef HYB_ADDED_H
#define HYB_ADDED_H
#include "text/unicode.h"

typedef struct {
    int id, special, normalized, single_word, lstrip, rstrip;
} AddedToken;

/* 0 = none; token: 1 + index. */
typedef struct {
    uint32_t child, sibling, token;
    unsigned char byte;
} TrieNode;
typedef struct {
    TrieNode *node; /* node[0] unused */
    size_t n, cap;
    uint32_t root[256];
} Trie;

/* Adds a pattern for token index `token`; a pattern that is there already keeps its first token. */
int trie_add(Trie *t, const char *s, size_t n, uint32_t token, Err *e);
void trie_free(Trie *t);

/* next: where to go on searching. */
typedef struct {
    size_t start, end, next;
    const AddedToken *token;
} AddedMatch;
/* The first match of s[0..n) at or behind from; `taken` = end of the last match, which lstrip does not go
 * behind. Special tokens are passed over if no_special. 0 if there is none. */
int added_find(const Trie *t, const AddedToken *tokens, const char *s, size_t n, size_t from, size_t taken,
               int no_special, AddedMatch *m);

#endif
