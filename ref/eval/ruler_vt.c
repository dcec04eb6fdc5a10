/* ruler_vt.c - variable tracking: five names, each assigned from the one before, hidden in noise. ref/eval/README.md 2.
 * */
#include "eval/ruler_parts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const sentence[] = {"The grass is green.", " The sky is blue.",      " The sun is yellow.",
                                       " Here we go.",        " There and back again.", "\n"};
enum { NAMES = 5, PARTS = sizeof sentence / sizeof *sentence, LONGEST = 8, MOST_DRAWS = 64 };

static void name_draw(Ruler *r, int letters, char *name) {
    int x[LONGEST];
    pyrandom_choices(&r->random, 26, letters, x);
    for (int i = 0; i < letters; i++) name[i] = (char)('A' + x[i]);
    name[letters] = 0;
}

/* Five names; should two of them coincide the original draws further ones and leaves these as they are. */
static void names_draw(Ruler *r, int letters, char name[NAMES][LONGEST]) {
    char all[MOST_DRAWS][LONGEST];
    int n = 0, distinct = 0;
    while (n < MOST_DRAWS && (n < NAMES || distinct < NAMES)) {
        int seen = 0;
        name_draw(r, letters, all[n]);
        for (int i = 0; i < n; i++) seen |= !strcmp(all[i], all[n]);
        distinct += !seen;
        n++;
    }
    memcpy(name, all, sizeof(char[NAMES][LONGEST]));
}

static int increasing(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* lm-eval: a piece after a space, where ". " before a newline becomes "."; NVIDIA: a piece on a line of its own. */
static void piece(TextBuf *b, const char *text, int first, int nvidia) {
    if (nvidia) textbuf_puts(b, first ? "" : "\n");
    else if (!first) {
        const int dot = b->len && b->text[b->len - 1] == '.' && text[0] == '\n';
        if (!dot) textbuf_puts(b, " ");
    }
    textbuf_puts(b, text);
}

static void statement(TextBuf *b, char name[NAMES][LONGEST], int j, long value, int first, int nvidia) {
    char text[64];
    if (j) snprintf(text, sizeof text, "VAR %s = VAR %s ", name[j], name[j - 1]);
    else snprintf(text, sizeof text, "VAR %s = %ld", name[0], value);
    piece(b, text, first, nvidia);
}

int vt_draw(Ruler *r, const void *ctx, int index, int n, Draw *d, Err *e) {
    char name[NAMES][LONGEST], unit[128] = "";
    int place[NAMES], k = 0;
    const int nvidia = r->flavour != RULER_LM_EVAL, split = n <= NAMES && !nvidia, pieces = split ? n * PARTS : n;
    (void)index;
    for (int i = 0; i < PARTS - nvidia; i++)
        snprintf(unit + strlen(unit), sizeof unit - strlen(unit), "%s", sentence[i]);
    names_draw(r, ctx ? 3 : 5, name);
    const long value = nvidia && ctx ? VT_EXAMPLE_VALUE : (long)nprandom_int(&r->numpy, 10000, 99999);
    TRY(pyrandom_sample(&r->random, (size_t)pieces, NAMES, place, e));
    qsort(place, NAMES, sizeof *place, increasing);
    textbuf_puts(&d->text, "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n");
    for (int i = 0; i < pieces; i++) {
        for (; k < NAMES && place[k] == i; k++) statement(&d->text, name, k, value, !i && !k, nvidia);
        const char *part = sentence[i % (PARTS - 1)];
        const char *noise = split ? sentence[i % PARTS] : r->flavour == RULER_LITE ? part + (part[0] == ' ') : unit;
        piece(&d->text, noise, !i && !k, nvidia);
    }
    textbuf_printf(&d->text, "\nQuestion: Find all variables that are assigned the value %ld in the text above.",
                   value);
    d->input = d->text.len;
    textbuf_printf(&d->prefix,
                   "Answer: According to the chain(s) of variable assignment in the text above, %d variables "
                   "are %s the value %ld, they are:%s",
                   NAMES, nvidia ? "assigned" : "assgined", value, nvidia ? " " : "");
    if (d->prefix.text) textbuf_printf(&d->text, " %s ", d->prefix.text);
    for (int i = 0; i < NAMES; i++) draw_answer(d, name[i]);
    textbuf_puts(&d->after, " ");
    draw_list(d, &d->after);
    return OK;
}

/* All occurrences, from the left, without overlap. */
static void replace(TextBuf *out, const char *text, const char *old, const char *new) {
    const size_t n = strlen(old);
    for (const char *hit; (hit = strstr(text, old)) != NULL; text = hit + n) {
        textbuf_put(out, text, (size_t)(hit - text));
        textbuf_puts(out, new);
    }
    textbuf_puts(out, text);
}

void vt_randomize(Ruler *r, const char *example, const Draw *names, TextBuf *out) {
    TextBuf from = {0};
    const char *name = names->answers.text;
    textbuf_puts(out, example);
    for (int i = 0; i < names->n_answers && name; i++, name = draw_next(name)) {
        char fresh[LONGEST];
        name_draw(r, (int)strlen(name), fresh);
        textbuf_free(&from);
        from = *out;
        *out = (TextBuf){0};
        if (from.failed) out->failed = 1;
        else replace(out, from.text, name, fresh);
    }
    if (r->flavour == RULER_NVIDIA) { // the value too
        char old[16], value[16];
        snprintf(old, sizeof old, "%d", VT_EXAMPLE_VALUE);
        snprintf(value, sizeof value, "%d", (int)nprandom_int(&r->numpy, 10000, 99999));
        textbuf_free(&from);
        from = *out;
        *out = (TextBuf){0};
        if (from.failed) out->failed = 1;
        else replace(out, from.text, old, value);
    }
    textbuf_free(&from);
}
