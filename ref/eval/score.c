/* score.c - see score.h. */
#include "eval/score.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "eval/lower_table.h"
#include "text/unicode.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t lower(uint32_t c) {
    size_t lo = 0, hi = sizeof lower_runs / sizeof *lower_runs;
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (c > lower_runs[mid].last) lo = mid + 1;
        else if (c < lower_runs[mid].first) hi = mid;
        else
            return (c - lower_runs[mid].first) % (uint32_t)lower_runs[mid].step ? c : c + (uint32_t)lower_runs[mid].add;
    }
    return c;
}

/* As Python's str.lower: a capital sigma at the end of a word has a small form of its own, a capital I with a dot
 * becomes two characters. */
static int put_lower(TextBuf *out, const char *s, size_t n, Err *e) {
    int word = 0; // a letter stands before
    for (size_t i = 0; i < n;) {
        uint32_t c, next = 0;
        char bytes[4];
        const size_t step = utf8_decode(s + i, n - i, &c);
        if (i + step < n) utf8_decode(s + i + step, n - i - step, &next);
        const int last = word && (next == UTF8_BAD || !(char_flags(next) & CHAR_LETTER));
        if (c == UTF8_BAD) textbuf_put(out, s + i, step);
        else if (c == 0x130) textbuf_puts(out, "i\xcc\x87");
        else textbuf_put(out, bytes, utf8_encode(bytes, c == 0x3a3 && last ? 0x3c2 : lower(c)));
        word = c != UTF8_BAD && char_flags(c) & CHAR_LETTER;
        i += step;
    }
    return textbuf_end(out, e);
}

static int is_space(char c) { return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31); }

static int contains(const char *text, const char *value, double *found, Err *e) {
    TextBuf v = {0};
    const int rc = put_lower(&v, value, strlen(value), e);
    if (!rc) *found = strstr(text, v.text) != NULL;
    textbuf_free(&v);
    return rc;
}

int score_match(const char *generated, char *const *answer, int n, int any, double *score, Err *e) {
    TextBuf text = {0};
    size_t begin = 0, end = strlen(generated);
    *score = 0;
    while (begin < end && (is_space(generated[begin]) || (unsigned char)generated[begin] < 32)) begin++;
    while (end > begin && (is_space(generated[end - 1]) || (unsigned char)generated[end - 1] < 32)) end--;
    int rc = put_lower(&text, generated + begin, end - begin, e);
    for (size_t i = 0; i < text.len && !rc; i++)
        if ((unsigned char)text.text[i] < 32) text.text[i] = '\n';
    for (int i = 0; i < n && !rc; i++) {
        double found = 0;
        rc = contains(text.text, answer[i], &found, e);
        *score += found;
    }
    if (any) *score = *score > 0;
    else if (n) *score /= n;
    textbuf_free(&text);
    return rc;
}

int score_contains(const char *generated, const char *value, double *score, Err *e) {
    TextBuf text = {0};
    int rc = put_lower(&text, generated, strlen(generated), e);
    if (!rc) rc = contains(text.text, value, score, e);
    textbuf_free(&text);
    return rc;
}

/* ---- SQuAD ---- */

/* What Python's str.split splits at, and what its \w matches. */
static int splits(uint32_t c) { return c != UTF8_BAD && (char_flags(c) & CHAR_SPACE || (c >= 28 && c <= 31)); }
static int in_word(uint32_t c) { return c != UTF8_BAD && (c == '_' || char_flags(c) & (CHAR_LETTER | CHAR_NUMBER)); }

/* An article in s[at..n) that begins a word, which is the whole of it: its length, else 0. */
static size_t article_at(const char *s, size_t n, size_t at) {
    static const char *const article[] = {"the", "an", "a"};
    for (int i = 0; i < 3; i++) {
        const size_t k = strlen(article[i]);
        uint32_t next = 0;
        if (n - at < k || memcmp(s + at, article[i], k)) continue;
        if (at + k < n) utf8_decode(s + at + k, n - at - k, &next);
        if (at + k == n || !in_word(next)) return k;
    }
    return 0;
}

/* As the official script: lower case, ASCII punctuation dropped, the articles a, an, the become blanks where they are
 * words (\b), words joined by one blank. */
static int normalize(TextBuf *out, const char *s, Err *e) {
    TextBuf low = {0};
    int rc = put_lower(&low, s, strlen(s), e);
    size_t n = 0;
    for (size_t i = 0; i < low.len; i++)
        if (!strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", low.text[i])) low.text[n++] = low.text[i];
    int word = 0, gap = 0; // a character of a word stands before; a blank is due
    for (size_t i = 0; i < n && !rc;) {
        uint32_t c;
        const size_t step = utf8_decode(low.text + i, n - i, &c), article = word ? 0 : article_at(low.text, n, i);
        if (article || splits(c)) gap = 1;
        else {
            if (gap && out->len) textbuf_puts(out, " ");
            textbuf_put(out, low.text + i, step);
            gap = 0;
        }
        word = !article && in_word(c);
        i += article ? article : step;
    }
    textbuf_free(&low);
    return rc ? rc : textbuf_end(out, e);
}

static size_t word_end(const char *s) { return strcspn(s, " "); }
static int word_count(const char *s, const char *word, size_t n) {
    int count = 0;
    for (; *s; s += word_end(s), s += *s == ' ') count += word_end(s) == n && !memcmp(s, word, n);
    return count;
}

/* F1 of the two bags of words; both empty: 1, one empty: 0. */
static double overlap(const char *gold, const char *text) {
    int common = 0, n_gold = 0, n_text = 0;
    if (!*gold || !*text) return !*gold && !*text;
    for (const char *s = gold; *s; s += word_end(s), s += *s == ' ') n_gold++;
    for (const char *s = text; *s; s += word_end(s), s += *s == ' ') {
        const size_t n = word_end(s);
        int before = 0;
        for (const char *t = text; t < s; t += word_end(t), t += *t == ' ')
            before += word_end(t) == n && !memcmp(t, s, n);
        common += before < word_count(gold, s, n);
        n_text++;
    }
    if (!common) return 0;
    const double precision = (double)common / n_text, recall = (double)common / n_gold;
    return 2 * precision * recall / (precision + recall);
}

int score_squad(const char *generated, char *const *answer, int n, double *exact, double *f1, Err *e) {
    TextBuf text = {0}, gold = {0};
    int golds = 0;
    *exact = *f1 = 0;
    int rc = normalize(&text, generated, e);
    for (int i = 0; i <= n && !rc; i++) {
        gold.len = 0;
        rc = i < n ? normalize(&gold, answer[i], e) : textbuf_end(&gold, e);
        if (rc || (i < n ? !gold.len : golds)) continue; // empty golds do not count; none at all: the empty one does
        golds++;
        *exact = fmax(*exact, !strcmp(gold.text, text.text));
        *f1 = fmax(*f1, overlap(gold.text, text.text));
    }
    textbuf_free(&gold);
    textbuf_free(&text);
    return rc;
}

void score_mean(const double *x, int n, double *mean, double *se) {
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    *mean = n ? sum / n : NAN;
    for (int i = 0; i < n; i++) squares += (x[i] - *mean) * (x[i] - *mean);
    *se = n > 1 ? sqrt(squares / (n - 1) / n) : NAN;
}
