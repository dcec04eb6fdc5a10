/* score.c - see score.h. */
#include "eval/score.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "text/unicode.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t lower(uint32_t c) {
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    if ((c >= 0xc0 && c <= 0xde && c != 0xd7) || (c >= 0x391 && c <= 0x3a9) || (c >= 0x410 && c <= 0x42f))
        return c + 32;
    if (c >= 0x400 && c <= 0x40f) return c + 80;
    if (c == 0x130 || c == 0x178) return c == 0x178 ? 0xff : c;
    const int odd = (c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e); // capitals are odd here, even elsewhere
    if (c >= 0x100 && c <= 0x17e && (c & 1) == (unsigned)odd && c != 0x138 && c != 0x149) return c + 1;
    return c;
}

static int put_lower(TextBuf *out, const char *s, size_t n, Err *e) {
    for (size_t i = 0; i < n;) {
        uint32_t c;
        char bytes[4];
        const size_t step = utf8_decode(s + i, n - i, &c);
        if (c == UTF8_BAD) textbuf_put(out, s + i, step);
        else textbuf_put(out, bytes, utf8_encode(bytes, lower(c)));
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

/* Lower case, ASCII punctuation dropped, the articles a, an, the dropped, words joined by one space. */
static int normalize(TextBuf *out, const char *s, Err *e) {
    TextBuf low = {0};
    int rc = put_lower(&low, s, strlen(s), e);
    size_t n = 0;
    for (size_t i = 0; i < low.len; i++)
        if (!strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", low.text[i])) low.text[n++] = low.text[i];
    if (low.text) low.text[n] = 0;
    for (size_t i = 0; i < n && !rc;) {
        size_t j = i;
        while (j < n && !is_space(low.text[j])) j++;
        const char *w = low.text + i;
        const size_t k = j - i;
        const int article =
            (k == 1 && *w == 'a') || (k == 2 && !memcmp(w, "an", 2)) || (k == 3 && !memcmp(w, "the", 3));
        if (k && !article) {
            if (out->len) textbuf_puts(out, " ");
            textbuf_put(out, w, k);
        }
        i = j + 1;
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
