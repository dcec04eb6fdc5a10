/* words.c - see words.h. */
#include "eval/words.h"
#include "base/file.h"
#include "base/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Adjectives whose composites may interleave in sorted order: those that begin with the first one's "adjective-"
 * ("well", "well-made").
 * One adjective: order is that of the nouns. Several: sorted once. */
struct WordGroup {
    size_t first, n;  /* adjectives */
    uint32_t begin;   /* rank of its first composite */
    char **composite; /* n > 1: sorted */
    char *text;
};

static int order(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Sorts and drops repetitions. */
static size_t unique(char **x, size_t n) {
    size_t m = 0;
    qsort(x, n, sizeof *x, order);
    for (size_t i = 0; i < n; i++)
        if (!m || strcmp(x[m - 1], x[i])) x[m++] = x[i];
    return m;
}

static int list_read(char **text, const char *dir, const char *name, Err *e) {
    char path[1024];
    File f;
    TRY(file_join(path, sizeof path, dir, name, e));
    if (file_open(&f, path, e))
        return err_hint(e,
                        "the word lists of the Python package wonderwords 2.2.0 (wonderwords/assets) are needed here");
    const int rc = mem_strndup(text, (const char *)f.data, f.size, e);
    file_close(&f);
    return rc;
}

/* Cuts text into lines without trailing white space; list may be NULL to count. Lines are NUL-terminated in place when
 * it is not. */
static size_t list_cut(char *text, char **list) {
    size_t n = 0;
    for (char *line = text, *end; *line; line = end) {
        char *stop = strchr(line, '\n');
        end = stop ? stop + 1 : line + strlen(line);
        if (!stop) stop = end;
        while (stop > line && strchr(" \t\r\n\v\f", stop[-1])) stop--;
        if (stop == line) continue;
        if (list) {
            list[n] = line;
            if (stop < end) *stop = 0;
        }
        n++;
    }
    return n;
}

/* Is "adjective-" a prefix of other? */
static int leads(const char *adjective, const char *other) {
    const size_t n = strlen(adjective);
    return !strncmp(adjective, other, n) && other[n] == '-';
}

/* Adjectives are sorted as "adjective-" is, so that a group stands together. */
static int key_order(const void *a, const void *b) {
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    while (*x && *x == *y) x++, y++;
    const unsigned char p = *x ? (unsigned char)*x : '-', q = *y ? (unsigned char)*y : '-';
    return p != q ? p - q : (*x != 0) - (*y != 0);
}

static int group_fill(const Words *w, WordGroup *g, uint32_t *n, Err *e) {
    size_t bytes = 0;
    void *text, *list;
    if (g->n == 1) return *n = (uint32_t)w->n_noun, OK;
    for (size_t a = g->first; a < g->first + g->n; a++)
        for (size_t i = 0; i < w->n_noun; i++) bytes += strlen(w->adjective[a]) + strlen(w->noun[i]) + 2;
    TRY(mem_alloc(&text, bytes, "composite words", e));
    g->text = text;
    TRY(mem_alloc(&list, g->n * w->n_noun * sizeof(char *), "composite words", e));
    g->composite = list;
    char *at = g->text;
    size_t k = 0;
    for (size_t a = g->first; a < g->first + g->n; a++)
        for (size_t i = 0; i < w->n_noun; i++) {
            g->composite[k++] = at;
            at += 1 + snprintf(at, bytes - (size_t)(at - g->text), "%s-%s", w->adjective[a], w->noun[i]);
        }
    *n = (uint32_t)unique(g->composite, k);
    return OK;
}

static int groups_make(Words *w, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, (w->n_adjective + 1) * sizeof(WordGroup), "composite words", e));
    w->group = mem;
    for (size_t a = 0; a < w->n_adjective; a++) {
        WordGroup *g = w->n_group ? &w->group[w->n_group - 1] : NULL;
        if (g && leads(w->adjective[g->first], w->adjective[a])) g->n++;
        else w->group[w->n_group++] = (WordGroup){.first = a, .n = 1};
    }
    for (size_t i = 0; i < w->n_group; i++) {
        uint32_t n = 0;
        w->group[i].begin = w->composites;
        TRY(group_fill(w, &w->group[i], &n, e));
        w->composites += n;
    }
    return OK;
}

static int load(Words *w, const char *dir, Err *e) {
    static const char *const file[3] = {"nounlist.txt", "adjectivelist.txt", "verblist.txt"};
    size_t n[3], total = 0;
    void *mem;
    for (int i = 0; i < 3; i++) {
        TRY(list_read(&w->text[i], dir, file[i], e));
        total += n[i] = list_cut(w->text[i], NULL);
        if (n[i] < 2 || n[i] > 65535)
            return err_set(e, ERR_INPUT, "%s/%s: got %zu words, expected 2 to 65535", dir, file[i], n[i]);
    }
    TRY(mem_alloc(&mem, n[0] * sizeof(char *), "word lists", e));
    w->noun = mem;
    TRY(mem_alloc(&mem, n[1] * sizeof(char *), "word lists", e));
    w->adjective = mem;
    TRY(mem_alloc(&mem, total * sizeof(char *), "word lists", e));
    w->all = mem;
    list_cut(w->text[2], w->all + n[0] + n[1]); // verbs are wanted only in the union
    list_cut(w->text[0], w->noun);
    list_cut(w->text[1], w->adjective);
    memcpy(w->all, w->noun, n[0] * sizeof(char *));
    memcpy(w->all + n[0], w->adjective, n[1] * sizeof(char *));
    w->n_noun = unique(w->noun, n[0]);
    w->n_adjective = unique(w->adjective, n[1]);
    w->n_all = unique(w->all, total);
    qsort(w->adjective, w->n_adjective, sizeof *w->adjective, key_order);
    if (w->n_adjective * w->n_noun > UINT32_MAX / 2) return err_set(e, ERR_INPUT, "%s: too many words", dir);
    return groups_make(w, e);
}

int words_open(Words *w, const char *dir, Err *e) {
    memset(w, 0, sizeof *w);
    const int rc = load(w, dir, e);
    if (rc) words_close(w);
    return rc;
}

void words_close(Words *w) {
    for (size_t i = 0; i < w->n_group; i++) {
        mem_free(w->group[i].composite);
        mem_free(w->group[i].text);
    }
    for (int i = 0; i < 3; i++) mem_free(w->text[i]);
    mem_free(w->group);
    mem_free(w->noun);
    mem_free(w->adjective);
    mem_free(w->all);
    memset(w, 0, sizeof *w);
}

void words_composite(const Words *w, uint32_t rank, char *dst, size_t cap) {
    size_t lo = 0, hi = w->n_group;
    while (hi - lo > 1) {
        const size_t mid = (lo + hi) / 2;
        if (w->group[mid].begin <= rank) lo = mid;
        else hi = mid;
    }
    const WordGroup *g = &w->group[lo];
    if (g->n > 1) snprintf(dst, cap, "%s", g->composite[rank - g->begin]);
    else snprintf(dst, cap, "%s-%s", w->adjective[g->first], w->noun[rank - g->begin]);
}
