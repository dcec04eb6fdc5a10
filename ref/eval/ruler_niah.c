/* ruler_niah.c - needles in a haystack: a magic number, uuid or word per key, hidden in essays, in a repeated sentence,
 * or among other needles. ref/eval/README.md 2. */
#include "text/corpus.h"
#include "base/file.h"
#include "base/mem.h"
#include "eval/ruler_parts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char SENTENCE[] =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";
enum { DEPTHS = 40, ITEM = 128, MOST_NEEDLES = 16 };

/* ---- the essays ---- */

static int spans_read(RulerEssay *s, const char *path, Err *e) {
    File f;
    void *mem;
    TRY(corpus_file_open(&f, path, e));
    size_t lines = 0;
    for (size_t i = 0; i < f.size; i++) lines += f.data[i] == '\n';
    int rc = mem_alloc(&mem, (lines + 1) * 2 * sizeof(uint32_t), "sentences", e);
    if (!rc) {
        s->begin = mem;
        s->end = s->begin + lines + 1;
    }
    const char *p = (const char *)f.data, *stop = p + f.size;
    while (!rc && p < stop) {
        char line[64], *after;
        const char *newline = memchr(p, '\n', (size_t)(stop - p)), *at = newline ? newline : stop;
        snprintf(line, sizeof line, "%.*s", (int)(at - p < 63 ? at - p : 63), p);
        const unsigned long begin = strtoul(line, &after, 10), end = strtoul(after, NULL, 10);
        if (*after != '\t' || begin >= end || end > s->bytes || (s->sentences && begin < s->end[s->sentences - 1]))
            rc = err_set(e, ERR_INPUT, "%s:%zu: expected begin, tab, end of a sentence in %zu bytes", path,
                         s->sentences + 1, s->bytes);
        else {
            s->begin[s->sentences] = (uint32_t)begin;
            s->end[s->sentences++] = (uint32_t)end;
        }
        p = newline ? newline + 1 : stop;
    }
    file_close(&f);
    return rc;
}

static int words_cut(RulerEssay *s, Err *e) {
    void *mem;
    size_t n = s->bytes != 0;
    for (size_t i = 0; i < s->bytes; i++) n += s->text[i] == ' ';
    TRY(mem_alloc(&mem, (n + 1) * sizeof(uint32_t), "essay words", e));
    s->word_end = mem;
    for (size_t i = 0; i <= s->bytes; i++)
        if (i == s->bytes || s->text[i] == ' ') s->word_end[s->words++] = (uint32_t)i;
    return OK;
}

static int essay_load(RulerEssay *s, const char *dir, Err *e) {
    char path[1024];
    File f;
    TRY(file_join(path, sizeof path, dir, "ruler_essays/essay_words.txt", e));
    if (file_open(&f, path, e))
        return err_hint(e, "the essay haystack: words of RULER's PaulGrahamEssays.json, one space apart");
    s->bytes = f.size;
    while (s->bytes && f.data[s->bytes - 1] == '\n') s->bytes--;
    int rc = f.size > UINT32_MAX ? err_set(e, ERR_INPUT, "%s: longer than 4 GiB", path) : OK;
    if (!rc) rc = mem_strndup(&s->text, (const char *)f.data, s->bytes, e);
    file_close(&f);
    if (!rc) rc = words_cut(s, e);
    if (!rc) rc = file_join(path, sizeof path, dir, "ruler_essays/essay_sentences.tsv", e);
    if (!rc) rc = spans_read(s, path, e);
    return rc;
}

int essay_open(RulerEssay *s, const char *dir, Err *e) {
    memset(s, 0, sizeof *s);
    const int rc = essay_load(s, dir, e);
    if (rc) essay_close(s);
    return rc;
}

void essay_close(RulerEssay *s) {
    mem_free(s->text);
    mem_free(s->begin);
    mem_free(s->word_end);
    memset(s, 0, sizeof *s);
}

/* ---- one sample ---- */

static void item(Ruler *r, const char *type, char dst[ITEM]) {
    const int lite = r->flavour == RULER_LITE;
    if (type[0] == 'n')
        snprintf(dst, ITEM, "%d", (int)pyrandom_int(&r->random, lite ? 100 : 1000000, lite ? 999 : 9999999));
    else if (type[0] == 'u') pyrandom_uuid4(&r->random, dst);
    else words_composite(&r->words, pyrandom_below(&r->random, r->words.composites), dst, ITEM);
}

static void needle(TextBuf *b, const char *type, const char *key, const char *value) {
    textbuf_printf(b, "One of the special magic %s for %s is: %s.", type, key, value);
}

typedef struct {
    char key[MOST_NEEDLES][ITEM], value[MOST_NEEDLES][ITEM]; /* value v of key k at k * values + v */
    int keys, needles, order[MOST_NEEDLES];                  /* order: needle at each place after the shuffle */
} Needles;

static void needles_draw(Ruler *r, const NiahKind *kind, Needles *x) {
    PyRandom fixed;
    x->keys = kind->keys > kind->queries ? kind->keys : kind->queries;
    x->needles = x->keys * kind->values;
    for (int k = 0; k < x->keys; k++) {
        item(r, kind->key, x->key[k]);
        for (int v = 0; v < kind->values; v++) item(r, kind->value, x->value[k * kind->values + v]);
    }
    for (int i = 0; i < x->needles; i++) x->order[i] = i;
    pyrandom_seed(&fixed, r->fixed);
    pyrandom_shuffle(&fixed, x->order, (size_t)x->needles);
}

static void needle_put(TextBuf *b, const NiahKind *kind, const Needles *x, int place) {
    const int i = x->order[place];
    needle(b, kind->value, x->key[i / kind->values], x->value[i]);
}

static int increasing(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* Sentences [a, b) of the first `bytes` bytes, joined by one space. */
static void sentences_put(TextBuf *b, const RulerEssay *s, int from, int to, size_t bytes) {
    for (int i = from; i < to; i++) {
        const size_t end = s->end[i] < bytes ? s->end[i] : bytes;
        if (i > from) textbuf_puts(b, " ");
        textbuf_put(b, s->text + s->begin[i], end - s->begin[i]);
    }
}

static int context_essay(Ruler *r, const NiahKind *kind, const Needles *x, int n, TextBuf *b, Err *e) {
    const RulerEssay *s = &r->essay;
    const size_t words = (size_t)n < s->words ? (size_t)n : s->words, bytes = words ? s->word_end[words - 1] : 0;
    int depth[MOST_NEEDLES], sentences = 0, from = 0;
    while ((size_t)sentences < s->sentences && s->begin[sentences] < bytes) sentences++;
    if (r->place < 0) TRY(pyrandom_sample(&r->random, DEPTHS, x->needles, depth, e));
    for (int i = 0; i < x->needles && r->place >= 0; i++) depth[i] = (int)(sentences * r->place);
    for (int i = 0; i < x->needles && r->place < 0; i++) { // depths are 40 whole percentages from 0 to 100
        const double percent = nearbyint(depth[i] * (100.0 / (DEPTHS - 1)));
        depth[i] = (int)(sentences * (percent / 100));
    }
    qsort(depth, (size_t)x->needles, sizeof *depth, increasing);
    for (int i = 0; i < x->needles; i++) {
        sentences_put(b, s, from, depth[i], bytes);
        textbuf_puts(b, " ");
        needle_put(b, kind, x, i);
        textbuf_puts(b, " ");
        from = depth[i];
    }
    sentences_put(b, s, from, sentences, bytes);
    return OK;
}

/* n lines, the needles among them: needle i goes in front of the i-th largest of the drawn places. */
static int context_lines(Ruler *r, const NiahKind *kind, const Needles *x, int n, TextBuf *b, Err *e) {
    const int among = kind->haystack[0] == 'n';
    TextBuf hay = {0};
    int place[MOST_NEEDLES];
    for (int i = 0; i < n && among; i++) {
        char key[ITEM], value[ITEM];
        item(r, kind->key, key);
        item(r, kind->value, value);
        needle(&hay, kind->value, key, value);
        textbuf_put(&hay, "", 1);
    }
    int rc = textbuf_end(&hay, e);
    if (!rc && r->place < 0) rc = pyrandom_sample(&r->random, (size_t)n, x->needles, place, e);
    for (int i = 0; i < x->needles && r->place >= 0; i++) place[i] = (int)(n * r->place);
    if (!rc) qsort(place, (size_t)x->needles, sizeof *place, increasing);
    const char *line = among ? hay.text : SENTENCE;
    int k = 0;
    for (int i = 0; i < n && !rc; i++) {
        for (; k < x->needles && place[k] == i; k++) {
            needle_put(b, kind, x, x->needles - 1 - k);
            textbuf_puts(b, "\n");
        }
        textbuf_printf(b, "%s%s", line, i + 1 < n ? "\n" : "");
        if (among) line += strlen(line) + 1;
    }
    for (; k < x->needles && !rc; k++) { // behind the last line: only where the place was given
        textbuf_puts(b, "\n");
        needle_put(b, kind, x, x->needles - 1 - k);
    }
    textbuf_free(&hay);
    return rc;
}

static void question(Draw *d, const NiahKind *kind, const char *query) {
    const int many = kind->queries * kind->values > 1, len = (int)strlen(kind->value) - !many;
    textbuf_printf(&d->text, "\nWhat %s special magic %.*s for %s mentioned in the provided text?",
                   many ? "are all the" : "is the", len, kind->value, query);
    textbuf_printf(&d->prefix, "The special magic %.*s for %s mentioned in the provided text %s", len, kind->value,
                   query, many ? "are" : "is");
}

int niah_draw(Ruler *r, const void *ctx, int index, int n, Draw *d, Err *e) {
    const NiahKind *kind = ctx;
    Needles x;
    int asked[MOST_NEEDLES];
    TextBuf query = {0};
    (void)index;
    needles_draw(r, kind, &x);
    const int many = kind->queries * kind->values > 1, len = (int)strlen(kind->value) - !many;
    textbuf_printf(&d->text,
                   "%s special magic %.*s %s hidden within the following text. Make sure to memorize it. I "
                   "will quiz you about the %.*s afterwards.\n",
                   many ? "Some" : "A", len, kind->value, many ? "are" : "is", len, kind->value);
    if (kind->haystack[0] == 'e') TRY(context_essay(r, kind, &x, n, &d->text, e));
    else TRY(context_lines(r, kind, &x, n, &d->text, e));
    TRY(pyrandom_sample(&r->random, (size_t)x.keys, kind->queries, asked, e));
    for (int q = 0; q < kind->queries; q++) {
        textbuf_printf(&query, "%s%s%s", q ? ", " : "", q && q + 1 == kind->queries ? "and " : "", x.key[asked[q]]);
        for (int v = 0; v < kind->values; v++) draw_answer(d, x.value[asked[q] * kind->values + v]);
    }
    int rc = textbuf_end(&query, e);
    if (!rc) question(d, kind, query.text);
    textbuf_free(&query);
    d->input = d->text.len;
    const char *answer = d->answers.text;
    for (int i = 0; i < d->n_answers && answer && !rc; i++, answer = draw_next(answer))
        textbuf_printf(&d->after, "%s%s", i ? " " : "", answer);
    return rc;
}

size_t niah_most(const Ruler *r, const void *ctx) {
    (void)ctx;
    return r->essay.words;
}

int niah_prepare(Ruler *r, const void *ctx, Err *e) {
    const NiahKind *kind = ctx;
    if (kind->haystack[0] == 'e' && !r->essay.words) TRY(essay_open(&r->essay, r->dir, e));
    if (kind->key[0] == 'w' && !r->words.composites) {
        char path[1024];
        TRY(file_join(path, sizeof path, r->dir, "wonderwords", e));
        TRY(words_open(&r->words, path, e));
    }
    return OK;
}
