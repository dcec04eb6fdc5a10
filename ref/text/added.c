#include "text/added.h"
#include "base/mem.h"

void trie_free(Trie *t) {
    mem_free(t->node);
    *t = (Trie){0};
}

/* The node for `byte` in the list that starts at `at`, or 0. */
static uint32_t trie_step(const Trie *t, uint32_t at, unsigned char byte) {
    while (at && t->node[at].byte != byte) at = t->node[at].sibling;
    return at;
}

static int trie_new(Trie *t, unsigned char byte, uint32_t sibling, uint32_t *out, Err *e) {
    if (t->n + 1 >= t->cap) {
        const size_t cap = t->cap * 2 + 64;
        if (cap > UINT32_MAX) return err_set(e, ERR_INPUT, "added tokens: more than 2^32 bytes");
        TRY(mem_grow((void **)&t->node, t->cap * sizeof *t->node, cap * sizeof *t->node, "added tokens", e));
        t->cap = cap;
    }
    *out = (uint32_t)++t->n;
    t->node[*out] = (TrieNode){.byte = byte, .sibling = sibling};
    return OK;
}

int trie_add(Trie *t, const char *s, size_t n, uint32_t token, Err *e) {
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned char b = (unsigned char)s[i];
        const uint32_t list = i ? t->node[at].child : t->root[b];
        uint32_t next = trie_step(t, list, b);
        if (!next) {
            TRY(trie_new(t, b, list, &next, e));
            if (i) t->node[at].child = next;
            else t->root[b] = next;
        }
        at = next;
    }
    if (n && !t->node[at].token) t->node[at].token = token + 1;
    return OK;
}

/* Longest pattern that s starts with; 0 if none. */
static size_t trie_longest(const Trie *t, const char *s, size_t n, uint32_t *token) {
    size_t best = 0;
    uint32_t at = t->root[(unsigned char)s[0]];
    for (size_t i = 1; at; i++) {
        if (t->node[at].token) *token = t->node[at].token - 1, best = i;
        if (i == n) break;
        at = trie_step(t, t->node[at].child, (unsigned char)s[i]);
    }
    return best;
}

/* Flags of the character before or behind position i. */
static unsigned flags_before(const char *s, size_t i, size_t *start) {
    uint32_t c;
    for (*start = i; *start > 0 && ((unsigned char)s[--*start] & 0xC0) == 0x80;) {}
    if (*start == i) return 0;
    utf8_decode(s + *start, i - *start, &c);
    return char_flags(c);
}

static unsigned flags_behind(const char *s, size_t n, size_t i, size_t *end) {
    uint32_t c;
    *end = i;
    if (i >= n) return 0;
    *end = i + utf8_decode(s + i, n - i, &c);
    return char_flags(c);
}

int added_find(const Trie *t, const AddedToken *tokens, const char *s, size_t n, size_t from, size_t taken,
               int no_special, AddedMatch *m) {
    for (size_t i = from; i < n; i++) {
        uint32_t found = 0;
        if (!t->root[(unsigned char)s[i]]) continue;
        const size_t len = trie_longest(t, s + i, n - i, &found);
        if (!len) continue;
        const AddedToken *a = &tokens[found];
        size_t start = i, end = i + len, other;
        const int touches = flags_before(s, start, &other) & CHAR_WORD || flags_behind(s, n, end, &other) & CHAR_WORD;
        if ((no_special && a->special) || (a->single_word && touches)) {
            i = end - 1; // a match that does not count still uses up its text
            continue;
        }
        if (a->lstrip) {
            while (start > taken && flags_before(s, start, &other) & CHAR_SPACE) start = other;
            if (start < taken) start = taken;
        }
        if (a->rstrip) {
            if (end < taken) end = taken; // what the last match took behind itself is white space
            while (flags_behind(s, n, end, &other) & CHAR_SPACE) end = other;
        }
        *m = (AddedMatch){start, end, i + len, a};
        return 1;
    }
    return 0;
}
