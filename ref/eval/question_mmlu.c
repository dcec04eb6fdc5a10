/* question_mmlu.c - MMLU from its official files: SUBJECT_test.csv, a row being question, four choices, letter.
 * ref/eval/README.md 4. */
#include "text/corpus.h"
#include "base/mem.h"
#include "eval/question_parts.h"
#include <stdio.h>
#include <string.h>

enum { FIELDS = 6, CHOICES = 4, MOST_SHOTS = 5 };
typedef struct {
    char *field[FIELDS];
} CsvRow;
typedef struct {
    const char *at, *end;
    size_t line;
    TextBuf text;
} Csv;

/* One field behind the last, unquoted, NUL-terminated; *last: the row ends with it. RFC 4180. */
static void csv_field(Csv *c, int *last) {
    const int quoted = c->at < c->end && *c->at == '"';
    c->at += quoted;
    for (; c->at < c->end; c->at++) {
        if (quoted && *c->at == '"') {
            if (c->at + 1 == c->end || c->at[1] != '"') break;
            c->at++;
        } else if (!quoted && (*c->at == ',' || *c->at == '\n' || *c->at == '\r')) break;
        c->line += *c->at == '\n';
        textbuf_put(&c->text, c->at, 1);
    }
    c->at += quoted && c->at < c->end;
    while (c->at < c->end && *c->at == '\r') c->at++;
    *last = c->at == c->end || *c->at == '\n';
    c->at += c->at < c->end;
    textbuf_put(&c->text, "", 1);
}

/* The next row; *n: its number of fields, 0 at the end. */
static int csv_row(Csv *c, CsvRow *r, int *n, Err *e) {
    size_t begin[FIELDS] = {0};
    int last = c->at == c->end;
    *n = 0;
    c->text.len = 0;
    while (!last) {
        if (*n < FIELDS) begin[*n] = c->text.len;
        csv_field(c, &last);
        ++*n;
    }
    c->line++;
    TRY(textbuf_end(&c->text, e));
    for (int i = 0; i < *n && i < FIELDS; i++) r->field[i] = c->text.text + begin[i];
    return OK;
}

static int row_check(const char *path, const Csv *c, const CsvRow *r, int n, Err *e) {
    if (n == FIELDS && strlen(r->field[FIELDS - 1]) == 1 && r->field[FIELDS - 1][0] >= 'A' &&
        r->field[FIELDS - 1][0] <= 'D')
        return OK;
    return err_set(e, ERR_INPUT, "%s:%zu: expected question, four choices and a letter A to D, found %d fields", path,
                   c->line, n);
}

static void row_put(TextBuf *b, const CsvRow *r, int answered) {
    const char *q = r->field[0];
    while (*q && strchr(" \t\r\n", *q)) q++;
    size_t n = strlen(q);
    while (n && strchr(" \t\r\n", q[n - 1])) n--;
    textbuf_put(b, q, n);
    for (int i = 0; i < CHOICES; i++) textbuf_printf(b, "\n%c. %s", 'A' + i, r->field[i + 1]);
    textbuf_puts(b, "\nAnswer:");
    if (answered) textbuf_printf(b, " %s\n\n", r->field[FIELDS - 1]);
}

static int examples_put(TextBuf *b, const char *path, int shots, Err *e) {
    File f;
    CsvRow r;
    int n = 1, rc = OK;
    if (file_open(&f, path, e)) return err_hint(e, "examples come from MMLU's dev/SUBJECT_dev.csv");
    Csv c = {.at = (const char *)f.data, .end = (const char *)f.data + f.size};
    for (int i = 0; i < shots && !rc; i++) {
        rc = csv_row(&c, &r, &n, e);
        if (!rc) rc = row_check(path, &c, &r, n, e);
        if (!rc) row_put(b, &r, 1);
    }
    textbuf_free(&c.text);
    file_close(&f);
    return rc;
}

static int questions_put(const char *path, const TextBuf *head, size_t limit, EvalSet *out, Err *e) {
    File f;
    CsvRow r;
    int n, rc = OK;
    TRY(corpus_file_open(&f, path, e));
    Csv c = {.at = (const char *)f.data, .end = (const char *)f.data + f.size};
    for (size_t i = 0; (!limit || i < limit) && !rc; i++) {
        EvalDoc *d;
        TextBuf b = {0};
        rc = csv_row(&c, &r, &n, e);
        if (rc || !n) break;
        rc = row_check(path, &c, &r, n, e);
        if (!rc) rc = evalset_add(out, &d, e);
        if (rc) break;
        textbuf_put(&b, head->text, head->len);
        row_put(&b, &r, 0);
        rc = question_context(d, &b, e);
        for (int k = 0; k < CHOICES && !rc; k++) rc = question_choice(d, &"ABCD"[k], 1, e);
        d->gold = r.field[FIELDS - 1][0] - 'A';
    }
    textbuf_free(&c.text);
    file_close(&f);
    return rc;
}

/* One subject: name_test.csv. */
static int subject_read(const char *dir, const char *name, int shots, size_t limit, EvalSet *out, Err *e) {
    char path[1024], dev[1024], subject[128];
    TextBuf head = {0};
    snprintf(subject, sizeof subject, "%.*s", (int)(strlen(name) - strlen("_test.csv")), name);
    TRY(file_join(path, sizeof path, dir, name, e));
    snprintf(dev, sizeof dev, "%.800s/../dev/%s_dev.csv", dir, subject);
    for (char *s = subject; *s; s++)
        if (*s == '_') *s = ' ';
    textbuf_printf(&head, "The following are multiple choice questions (with answers) about %s.\n\n", subject);
    int rc = shots ? examples_put(&head, dev, shots, e) : OK;
    if (!rc) rc = textbuf_end(&head, e);
    if (!rc) rc = questions_put(path, &head, limit, out, e);
    textbuf_free(&head);
    return rc;
}

int mmlu_read(const char *dir, int shots, size_t limit, EvalSet *out, Err *e) {
    char **name;
    size_t n;
    if (shots < 0 || shots > MOST_SHOTS)
        return err_set(e, ERR_USAGE, "mmlu: %d examples: expected 0 to %d", shots, MOST_SHOTS);
    TRY(file_list(&name, &n, dir, e));
    int rc = OK;
    for (size_t i = 0; i < n && !rc; i++) {
        const size_t len = strlen(name[i]);
        if (len > 9 && !strcmp(name[i] + len - 9, "_test.csv")) rc = subject_read(dir, name[i], shots, limit, out, e);
    }
    file_list_free(name, n);
    return rc;
}
