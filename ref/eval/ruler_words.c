/* ruler_words.c - common words (a numbered list in which ten words return) and frequent words (coded words whose counts
 * fall as a power law). ref/eval/README.md 2. */
#include "base/file.h"
#include "base/mem.h"
#include "eval/ruler_parts.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COMMON = 10, LETTERS = 6, CODED = LETTERS + 1 };

/* ---- common words ---- */

int cwe_prepare(Ruler *r, const void *ctx, Err *e) {
    (void)ctx;
    if (!r->words.composites) {
        char path[1024];
        TRY(file_join(path, sizeof path, r->dir, "wonderwords", e));
        TRY(words_open(&r->words, path, e));
    }
    if (r->cwe_word && r->flavour == RULER_LM_EVAL) return OK;
    void *mem = r->cwe_word;
    if (!mem) TRY(mem_alloc(&mem, r->words.n_all * sizeof(int), "word list", e));
    r->cwe_word = mem;
    for (size_t i = 0; i < r->words.n_all; i++) r->cwe_word[i] = (int)i;
    pyrandom_seed(&r->cwe, r->fixed);
    pyrandom_shuffle(&r->cwe, r->cwe_word, r->words.n_all);
    return OK;
}

size_t cwe_most(const Ruler *r, const void *ctx) {
    (void)ctx;
    return r->words.n_all;
}

static void template(TextBuf *b, const Ruler *r, const int *list, int n) {
    textbuf_puts(b, "Below is a numbered list of words. In these words, some appear more often than others. "
                    "Memorize the ones that appear most "
                    "often.\n");
    for (int i = 0; i < n; i++) textbuf_printf(b, "%s%d. %s", i ? " " : "", i + 1, r->words.all[r->cwe_word[list[i]]]);
    textbuf_puts(b, "\nQuestion: What are the 10 most common words in the above list?");
}

/* n words, the first ten `often` times, the others `rarely` times, shuffled; appends the template around them. common:
 * the ten. */
static int example(Ruler *r, int n, int often, int rarely, TextBuf *b, int common[COMMON], Err *e) {
    void *mem;
    const int first = n < COMMON ? n : COMMON, total = first * often + (n - first) * rarely;
    TRY(mem_alloc(&mem, ((size_t)n + (size_t)total + 1) * sizeof(int), "word list", e));
    int *word = mem, *list = word + n, k = 0;
    const int rc = pyrandom_sample(&r->random, r->words.n_all, n, word, e);
    if (!rc) {
        for (int i = 0; i < often; i++)
            for (int j = 0; j < first; j++) list[k++] = word[j];
        for (int i = 0; i < rarely; i++)
            for (int j = first; j < n; j++) list[k++] = word[j];
        if (r->flavour == RULER_NVIDIA)
            pyrandom_seed(&r->cwe, r->fixed); // one generator for all lists, or a fresh one each
        pyrandom_shuffle(&r->cwe, list, (size_t)k);
        template(b, r, list, k);
        memcpy(common, word, (size_t)first * sizeof(int));
    }
    mem_free(mem);
    return rc;
}

static void numbered(TextBuf *b, const Ruler *r, const int common[COMMON]) {
    for (int i = 0; i < COMMON; i++)
        textbuf_printf(b, "%s%d. %s", i ? " " : "", i + 1, r->words.all[r->cwe_word[common[i]]]);
}

int cwe_draw_at(Ruler *r, int L, int n, Draw *d, Err *e) {
    static const char prefix[] = "Answer: The top 10 words that appear most often in the list are:";
    const int small = L < 4096;
    int common[COMMON];
    TRY(example(r, small ? 20 : 40, small ? 3 : 10, small ? 1 : 3, &d->before, common,
                e)); // lm-eval counts it, but does not show it
    textbuf_printf(&d->before, " %s%s", prefix, r->flavour == RULER_NVIDIA ? " " : "");
    numbered(&d->before, r, common);
    textbuf_puts(&d->before, "\n");
    if (r->flavour == RULER_NVIDIA) textbuf_put(&d->front, d->before.text, d->before.len); // one-shot
    TRY(example(r, n, small ? 6 : 30, small ? 1 : 3, &d->text, common, e));
    d->input = d->text.len;
    textbuf_printf(&d->text, " %s", prefix);
    textbuf_puts(&d->prefix, prefix);
    for (int i = 0; i < COMMON; i++) draw_answer(d, r->words.all[r->cwe_word[common[i]]]);
    textbuf_puts(&d->after, " ");
    numbered(&d->after, r, common);
    return OK;
}

/* ---- frequent words ---- */

typedef struct {
    char (*word)[CODED];
    int n, cap;
} Vocabulary;

static int code_order(const void *a, const void *b) { return strcmp(a, b); }

/* `size` distinct words in the order of a shuffle with a fixed seed; the first is the noise "...". */
static int vocabulary_draw(Ruler *r, int size, Vocabulary *v, Err *e) {
    void *mem;
    int total = 0, distinct = 0;
    v->n = 0;
    while (distinct < size) { // drawn until the set is full; what was drawn counts as one list
        const int more = total ? size - distinct : size;
        for (int i = 0; i < (total ? 1 : more); i++, total++) {
            int letter[LETTERS];
            if (total == v->cap)
                return err_set(e, ERR_INPUT, "frequent words: %d words do not give %d distinct ones", total, size);
            pyrandom_choices(&r->random, 26, LETTERS, letter);
            for (int j = 0; j < LETTERS; j++) v->word[total][j] = (char)('a' + letter[j]);
            v->word[total][LETTERS] = 0;
        }
        qsort(v->word, (size_t)total, CODED, code_order);
        distinct = total > 0;
        for (int i = 1; i < total; i++) distinct += strcmp(v->word[i - 1], v->word[i]) != 0;
    }
    for (int i = 0; i < total; i++)
        if (!v->n || strcmp(v->word[v->n - 1], v->word[i])) memmove(v->word[v->n++], v->word[i], CODED);
    TRY(mem_alloc(&mem, (size_t)v->n * (sizeof(int) + CODED), "coded words", e));
    int *order = mem;
    char(*sorted)[CODED] = (char(*)[CODED])(order + v->n);
    PyRandom fixed;
    memcpy(sorted, v->word, (size_t)v->n * CODED);
    for (int i = 0; i < v->n; i++) order[i] = i;
    pyrandom_seed(&fixed, r->fixed);
    pyrandom_shuffle(&fixed, order, (size_t)v->n);
    for (int i = 0; i < v->n; i++) memcpy(v->word[i], sorted[order[i]], CODED);
    memcpy(v->word[0], "...", 4);
    mem_free(mem);
    return OK;
}

/* How often the word of rank w, from 0, stands among n: n / ((w+1)^2 zeta(2)) times. */
static int coded_count(int n, int w) {
    const double zeta = 1.6449340668482264; // pi^2 / 6
    return (int)(n * pow(w + 1, -2.0) / zeta);
}

/* n words in all: the k-th of the vocabulary n / (k^2 zeta(2)) times, shuffled with a fixed seed. */
static int coded_text(const Ruler *r, const Vocabulary *v, int n, Draw *d, Err *e) {
    static const char prefix[] =
        "Answer: According to the coded text above, the three most frequently appeared words are:";
    void *mem;
    int k = 0;
    draw_clear(d);
    TRY(mem_alloc(&mem, ((size_t)n + 1) * sizeof(int), "coded text", e));
    int *list = mem;
    for (int w = 0; w < v->n; w++) {
        const int count = coded_count(n, w);
        for (int i = 0; i < count && k < n; i++) list[k++] = w;
    }
    PyRandom fixed;
    pyrandom_seed(&fixed, r->fixed);
    pyrandom_shuffle(&fixed, list, (size_t)k);
    textbuf_puts(&d->text, "Read the following coded text and track the frequency of each coded word. Find "
                           "the three most frequently appeared "
                           "coded words. ");
    for (int i = 0; i < k; i++) textbuf_printf(&d->text, "%s%s", i ? " " : "", v->word[list[i]]);
    textbuf_puts(&d->text, "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What "
                           "are the three most frequently "
                           "appeared words in the above coded text?");
    d->input = d->text.len;
    textbuf_printf(&d->text, " %s", prefix);
    textbuf_puts(&d->prefix, prefix);
    for (int i = 1; i < 4; i++) draw_answer(d, v->word[i]);
    mem_free(mem);
    return draw_end(d, e);
}

static int counted(Ruler *r, const Vocabulary *v, int n, Draw *d, size_t *tokens, Err *e) {
    if (n < 1) {
        err_set(e, ERR_USAGE, "ruler_fwe: not one word fits into %d tokens", r->L);
        return err_hint(e, "the original never ends here; use a larger --max-len");
    }
    TRY(coded_text(r, v, n, d, e));
    return token_count(r->count, d->text.text, d->text.len, tokens, e);
}

/* Are the three answers in a text of n words, the third more often than the word that comes next? The originals do not
 * ask, and make questions without an answer of short texts; the lite flavour refuses them. */
static int fwe_answerable(const Ruler *r, int n, Err *e) {
    const int third = coded_count(n, 3), fourth = coded_count(n, 4);
    if (r->flavour != RULER_LITE || (third > 0 && third > fourth)) return OK;
    err_set(e, ERR_USAGE,
            "ruler_fwe: %d tokens hold %d words: the third answer is in the text %d times, the next word %d times",
            r->L, n, third, fourth);
    return err_hint(e, "use a larger --max-len");
}

static int fwe_samples(Ruler *r, int L, int samples, Vocabulary *v, Draw *d, EvalSet *out, Err *e) {
    const int size = L / 50 > 4 ? L / 50 : 4, // noise and the three answers
        step = r->flavour == RULER_LITE ? 1 : L / 32;
    size_t tokens = 0;
    int n = L / 6;
    TRY(vocabulary_draw(r, size, v, e));
    TRY(counted(r, v, n, d, &tokens, e));
    while (tokens < (size_t)L) TRY(counted(r, v, n += step, d, &tokens, e));
    const int fit = n - step;
    for (int i = 0; i < samples; i++) {
        TRY(vocabulary_draw(r, size, v, e));
        TRY(counted(r, v, n = fit, d, &tokens, e));
        while (tokens > (size_t)L) TRY(counted(r, v, n -= step, d, &tokens, e));
        TRY(fwe_answerable(r, n, e));
        TRY(draw_emit(r, d, " ", out, e));
    }
    return OK;
}

int fwe_make(Ruler *r, int L, int samples, EvalSet *out, Err *e) {
    Vocabulary v = {.cap = L / 50 + 1024};
    Draw d = {0};
    void *mem;
    TRY(mem_alloc(&mem, (size_t)v.cap * CODED, "coded words", e));
    v.word = mem;
    const int rc = fwe_samples(r, L, samples, &v, &d, out, e);
    draw_free(&d);
    mem_free(mem);
    return rc;
}
