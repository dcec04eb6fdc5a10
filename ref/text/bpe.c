#include "text/bpe.h"
#include "base/mem.h"

enum { WORD_LIMIT = 1 << 30, SHORT = 24 };

int word_push(Word *w, int id, Err *e) {
    if (w->n == w->cap) {
        const size_t cap = w->cap * 2 + 64;
        if (w->n >= WORD_LIMIT) return err_set(e, ERR_INPUT, "a piece of text has more than 2^30 characters");
        TRY(mem_grow((void **)&w->sym, w->cap * sizeof *w->sym, cap * sizeof *w->sym, "text to merge", e));
        w->cap = cap;
    }
    w->sym[w->n++].id = id;
    return OK;
}

void word_free(Word *w) {
    mem_free(w->sym);
    mem_free(w->heap);
    *w = (Word){0};
}

/* The definition, for words: look at all pairs, merge the best, repeat. */
static void merge_short(Word *w, const Merges *m) {
    const Merge *pair[SHORT];
    for (size_t i = 0; i + 1 < w->n; i++) pair[i] = merges_find(m, w->sym[i].id, w->sym[i + 1].id);
    for (;;) {
        size_t best = SIZE_MAX;
        for (size_t i = 0; i + 1 < w->n; i++)
            if (pair[i] && (best == SIZE_MAX || pair[i]->rank < pair[best]->rank)) best = i;
        if (best == SIZE_MAX) return;
        w->sym[best].id = pair[best]->id;
        w->n--;
        for (size_t i = best + 1; i < w->n; i++) w->sym[i] = w->sym[i + 1], pair[i - 1] = pair[i];
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < w->n; i++)
            pair[i] = merges_find(m, w->sym[i].id, w->sym[i + 1].id);
    }
}

/* ---- long pieces: a linked list of symbols and a heap of candidate merges ---- */

static int before(const Candidate *a, const Candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_down(Word *w, size_t i) {
    const Candidate x = w->heap[i];
    for (size_t k; (k = 2 * i + 1) < w->n_heap; i = k) {
        if (k + 1 < w->n_heap && before(&w->heap[k + 1], &w->heap[k])) k++;
        if (!before(&w->heap[k], &x)) break;
        w->heap[i] = w->heap[k];
    }
    w->heap[i] = x;
}

/* The pair that starts at symbol `at` becomes a candidate if it has a rule. */
static int heap_push(Word *w, const Merges *m, size_t at, Err *e) {
    const Merge *r = merges_find(m, w->sym[at].id, w->sym[w->sym[at].next].id);
    if (!r) return OK;
    if (w->n_heap == w->heap_cap) {
        const size_t cap = w->heap_cap * 2 + 64;
        TRY(mem_grow((void **)&w->heap, w->heap_cap * sizeof *w->heap, cap * sizeof *w->heap, "text to merge", e));
        w->heap_cap = cap;
    }
    const Candidate x = {r->rank, (uint32_t)at, r->id};
    size_t i = w->n_heap++;
    for (; i && before(&x, &w->heap[(i - 1) / 2]); i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = x;
    return OK;
}

static int merge_long(Word *w, const Merges *m, Err *e) {
    for (size_t i = 0; i < w->n; i++) {
        w->sym[i].prev = (int)i - 1;
        w->sym[i].next = i + 1 < w->n ? (int)i + 1 : 0; // 0: the last (the first symbol is nobody's next)
    }
    w->n_heap = 0;
    for (size_t i = 0; i + 1 < w->n; i++) TRY(heap_push(w, m, i, e));
    while (w->n_heap) {
        const Candidate top = w->heap[0];
        w->heap[0] = w->heap[--w->n_heap];
        if (w->n_heap) heap_down(w, 0);
        Symbol *s = &w->sym[top.at];
        if (s->id < 0 || !s->next) continue; // swallowed, or nothing is left to its right
        Symbol *right = &w->sym[s->next];
        const Merge *r = merges_find(m, s->id, right->id);
        if (!r || r->id != top.id) continue; // out of date: a neighbour has merged since
        s->id = top.id;
        s->next = right->next;
        right->id = -1;
        if (s->next) {
            w->sym[s->next].prev = (int)top.at;
            TRY(heap_push(w, m, top.at, e));
        }
        if (s->prev >= 0) TRY(heap_push(w, m, (size_t)s->prev, e));
    }
    size_t k = 0;
    for (size_t i = 0; i < w->n; i++)
        if (w->sym[i].id >= 0) w->sym[k++].id = w->sym[i].id;
    w->n = k;
    return OK;
}

int word_merge(Word *w, const Merges *m, Err *e) {
    if (!m->n || w->n < 2) return OK;
    if (w->n > SHORT) return merge_long(w, m, e);
    merge_short(w, m);
    return OK;
}
