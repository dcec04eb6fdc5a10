/* ruler_nvidia.c - samples as NVIDIA's scripts fit them: the number of units of haystack by binary search,
 * whole prompts counted.
 * The draws are those of the other files; they look at ruler.flavour where the two generators differ.
 * ref/eval/README.md 3.
 * */
#include "eval/ruler_parts.h"
#include <string.h>

enum { REDRAWS = 20000, CWE_PROBE = 4096, UNIT_PROBE = 200, EXAMPLE_LENGTH = 500, EXAMPLE_STEP = 5 };

typedef struct {
    Ruler *r;
    const RulerTask *t;
    const void *ctx;
    const char *example; /* VT: shown before every question; NULL while it is made itself */
    const Draw *names;   /* VT: those of the example */
    int L, step;
    size_t reserve;
} Fit;

/* front + text[:input] + " " + prefix: what the model will read. */
static void whole(const Draw *d, TextBuf *out) {
    textbuf_put(out, d->front.text, d->front.len);
    textbuf_put(out, d->text.text, d->input);
    textbuf_puts(out, " ");
    textbuf_put(out, d->prefix.text, d->prefix.len);
}

static int counted(const Fit *f, const Draw *d, size_t *tokens, Err *e) {
    TextBuf all = {0};
    whole(d, &all);
    int rc = textbuf_end(&all, e);
    if (!rc) rc = token_count(f->r->count, all.text, all.len, tokens, e);
    textbuf_free(&all);
    return rc;
}

static int drawn(const Fit *f, int index, int n, Draw *d, size_t *tokens, Err *e) {
    draw_clear(d);
    TRY(f->t->draw(f->r, f->ctx, index, n, d, e));
    TRY(draw_end(d, e));
    return counted(f, d, tokens, e);
}

/* The largest n that fits; step if none does. Draws as it goes. */
static int search(const Fit *f, Draw *d, int *n, Err *e) {
    const int cwe = !strcmp(f->t->also, "cwe"), probe = cwe                                           ? CWE_PROBE
                                                        : f->step == 1 || f->r->flavour == RULER_LITE ? UNIT_PROBE
                                                                                                      : f->step;
    size_t tokens;
    TRY(drawn(f, 0, probe, d, &tokens, e));
    const double unit = (double)tokens / probe;
    int lo = f->step, hi = cwe ? (int)(f->L / unit) * 2 : (int)(f->L / unit * 3);
    if (hi < 2 * f->step) hi = 2 * f->step;
    for (*n = f->step; lo <= hi;) {
        const int mid = lo + (hi - lo) / 2;
        TRY(drawn(f, 0, mid, d, &tokens, e));
        if (tokens + f->reserve <= (size_t)f->L) {
            *n = mid;
            lo = mid + 1;
        } else hi = mid - 1;
    }
    return OK;
}

static int nothing_fits(const Fit *f, Err *e) {
    err_set(e, ERR_USAGE, "%s: nothing fits into %d tokens", f->t->name, f->L);
    return err_hint(e, "the original never ends here; use a larger --max-len");
}

static int accepted(const Fit *f, int index, int n, Draw *d, Err *e) {
    size_t tokens;
    for (int tries = 0; tries < REDRAWS;) {
        TRY(drawn(f, index, n, d, &tokens, e));
        if (f->example) {
            vt_randomize(f->r, f->example, f->names, &d->front);
            textbuf_puts(&d->front, "\n");
            TRY(textbuf_end(&d->front, e));
            TRY(counted(f, d, &tokens, e));
        }
        const size_t answer = f->example ? (size_t)f->t->max_new : f->reserve;
        if (tokens + answer <= (size_t)f->L) return OK;
        if (n > f->step) n -= f->step;
        else tries++;
    }
    return nothing_fits(f, e);
}

static int samples_make(const Fit *f, int samples, Draw *d, EvalSet *out, Err *e) {
    const int qa = f->t->draw == qa_draw;
    int n;
    TRY(search(f, d, &n, e));
    for (int i = 0; i < samples && !(qa && (size_t)i == qa_questions(f->r, f->ctx)); i++) {
        TRY(accepted(f, i, n, d, e));
        TRY(draw_emit(f->r, d, " ", out, e));
    }
    return OK;
}

/* The example of variable tracking, then the questions that show it. */
static int vt_make(Fit *f, int samples, Draw *d, Draw *example, EvalSet *out, Err *e) {
    const Fit one = {f->r, f->t, "example", NULL, NULL, EXAMPLE_LENGTH, EXAMPLE_STEP, 0};
    TextBuf shown = {0};
    size_t tokens = 0;
    int n;
    TRY(search(&one, example, &n, e));
    TRY(accepted(&one, 0, n, example, e));
    whole(example, &shown);
    const char *name = example->answers.text;
    for (int i = 0; i < example->n_answers; i++, name = draw_next(name)) textbuf_printf(&shown, " %s", name);
    textbuf_puts(&shown, "\n");
    int rc = textbuf_end(&shown, e);
    if (!rc) rc = token_count(f->r->count, shown.text, shown.len, &tokens, e);
    f->example = shown.text;
    f->names = example;
    f->reserve += tokens;
    if (!rc) rc = samples_make(f, samples, d, out, e);
    textbuf_free(&shown);
    return rc;
}

int nvidia_make(Ruler *r, const RulerTask *t, int L, int step, int samples, EvalSet *out, Err *e) {
    Fit f = {r, t, t->ctx, NULL, NULL, L, step, (size_t)t->max_new};
    Draw d = {0}, example = {0};
    const int special = r->count->special;
    r->count->special = 0;
    const int rc = t->draw == vt_draw && r->flavour == RULER_NVIDIA ? vt_make(&f, samples, &d, &example, out, e)
                                                                    : samples_make(&f, samples, &d, out, e);
    r->count->special = special;
    draw_free(&d);
    draw_free(&example);
    return rc;
}
