/* ruler.c - see ruler.h: the table of tasks, the fit of their lengths, and the samples. */
#include "eval/ruler.h"
#include "base/mem.h"
#include "eval/ruler_parts.h"
#include <string.h>

enum { REDRAWS = 1000 }; /* tries at the smallest size, before it counts as not fitting */

/* ---- drawn samples ---- */

void draw_clear(Draw *d) {
    TextBuf *b[] = {&d->before, &d->text, &d->after, &d->front, &d->prefix, &d->answers};
    for (size_t i = 0; i < sizeof b / sizeof *b; i++) b[i]->len = 0;
    d->input = 0;
    d->n_answers = 0;
}
void draw_free(Draw *d) {
    TextBuf *b[] = {&d->before, &d->text, &d->after, &d->front, &d->prefix, &d->answers};
    for (size_t i = 0; i < sizeof b / sizeof *b; i++) textbuf_free(b[i]);
}
int draw_end(Draw *d, Err *e) {
    TextBuf *b[] = {&d->before, &d->text, &d->after, &d->front, &d->prefix, &d->answers};
    for (size_t i = 0; i < sizeof b / sizeof *b; i++) TRY(textbuf_end(b[i], e));
    return OK;
}
void draw_answer(Draw *d, const char *answer) {
    textbuf_put(&d->answers, answer, strlen(answer) + 1);
    d->n_answers += !d->answers.failed;
}
const char *draw_next(const char *answer) { return answer + strlen(answer) + 1; }

/* A string as Python's repr writes it: in double quotes if it holds single ones only. */
static void repr(TextBuf *out, const char *s) {
    const char quote = strchr(s, '\'') && !strchr(s, '"') ? '"' : '\'';
    textbuf_put(out, &quote, 1);
    for (; *s; s++) {
        if (*s == '\n') textbuf_puts(out, "\\n");
        else if (*s == '\t') textbuf_puts(out, "\\t");
        else if (*s == '\r') textbuf_puts(out, "\\r");
        else if ((unsigned char)*s < 32 || *s == 127) textbuf_printf(out, "\\x%02x", *s);
        else if (*s == '\\' || *s == quote) textbuf_printf(out, "\\%c", *s);
        else textbuf_put(out, s, 1);
    }
    textbuf_put(out, &quote, 1);
}
void draw_list(const Draw *d, TextBuf *out) {
    const char *answer = d->answers.text;
    textbuf_puts(out, "[");
    for (int i = 0; i < d->n_answers && answer; i++, answer = draw_next(answer)) {
        if (i) textbuf_puts(out, ", ");
        repr(out, answer);
    }
    textbuf_puts(out, "]");
}

int draw_emit(Ruler *r, const Draw *d, const char *delimiter, EvalSet *out, Err *e) {
    TextBuf prompt = {0};
    EvalDoc *doc;
    textbuf_put(&prompt, d->front.text, d->front.len);
    textbuf_put(&prompt, d->text.text, d->input);
    textbuf_puts(&prompt, delimiter);
    textbuf_puts(&prompt, d->prefix.text);
    int rc = textbuf_end(&prompt, e);
    if (!rc) rc = evalset_add(out, &doc, e);
    if (!rc) rc = evaldoc_context(doc, prompt.text, prompt.len, e);
    if (!rc) {
        doc->own_begin = d->front.len;
        doc->own_end = d->front.len + d->input;
        rc = token_count(r->count, prompt.text, prompt.len, &doc->context_tokens, e);
    }
    const char *answer = d->answers.text;
    for (int i = 0; i < d->n_answers && !rc; i++, answer = draw_next(answer))
        rc = evaldoc_text(doc, answer, strlen(answer), e);
    textbuf_free(&prompt);
    return rc;
}

/* ---- the table ---- */

static int cwe_draw(Ruler *r, const void *ctx, int index, int n, Draw *d, Err *e) {
    (void)ctx, (void)index;
    return cwe_draw_at(r, r->L, n, d, e);
}

#define NIAH(name, hay, key, value, k, v, q)                                                                           \
    { name, name, 128, " ", niah_draw, &(const NiahKind){hay, key, value, k, v, q}, 0, 1, niah_most, niah_prepare }
static const RulerTask tasks[RULER_TASKS] = {
    NIAH("niah_single_1", "repeat", "words", "numbers", 1, 1, 1),
    NIAH("niah_single_2", "essay", "words", "numbers", 1, 1, 1),
    NIAH("niah_single_3", "essay", "words", "uuids", 1, 1, 1),
    NIAH("niah_multikey_1", "essay", "words", "numbers", 4, 1, 1),
    NIAH("niah_multikey_2", "needle", "words", "numbers", 1, 1, 1),
    NIAH("niah_multikey_3", "needle", "uuids", "uuids", 1, 1, 1),
    NIAH("niah_multiquery", "essay", "words", "numbers", 1, 1, 4),
    NIAH("niah_multivalue", "essay", "words", "numbers", 1, 4, 1),
    {"ruler_vt", "vt", 30, " ", vt_draw, NULL, 10, 0, NULL, NULL},
    {"ruler_cwe", "cwe", 120, "\n\n", cwe_draw, NULL, 10, 2, cwe_most, cwe_prepare},
    {"ruler_fwe", "fwe", 50, " ", NULL, NULL, 0, 0, NULL, NULL},
    {"ruler_qa_squad", "qa_1", 32, " ", qa_draw, "squad", 10, 2, qa_most, qa_prepare},
    {"ruler_qa_hotpot", "qa_2", 32, " ", qa_draw, "hotpot", 10, 2, qa_most, qa_prepare},
};

const char *ruler_name(int task) { return task >= 0 && task < RULER_TASKS ? tasks[task].name : NULL; }
int ruler_find(const char *name) {
    for (int i = 0; i < RULER_TASKS; i++)
        if (!strcmp(tasks[i].name, name) || !strcmp(tasks[i].also, name)) return i;
    return -1;
}
int ruler_max_new(int task) { return tasks[task].max_new; }

/* ---- fitting ---- */

typedef struct {
    const RulerTask *task;
    const void *ctx;
    int L, step;
    size_t reserve;
} Fit;

static int nothing_fits(const Fit *f, Err *e) {
    err_set(e, ERR_USAGE, "%s: nothing fits into %d tokens", f->task->name, f->L);
    return err_hint(e, "the original never ends here; use a larger --max-len");
}

static int draw_once(Ruler *r, const Fit *f, int index, int n, Draw *d, Err *e) {
    draw_clear(d);
    TRY(f->task->draw(r, f->ctx, index, n, d, e));
    return draw_end(d, e);
}

/* Tokens of before + text + after. */
static int search_count(Ruler *r, const Draw *d, size_t *tokens, Err *e) {
    TextBuf all = {0};
    textbuf_put(&all, d->before.text, d->before.len);
    textbuf_put(&all, d->text.text, d->text.len);
    textbuf_put(&all, d->after.text, d->after.len);
    int rc = textbuf_end(&all, e);
    if (!rc) rc = token_count(r->count, all.text, all.len, tokens, e);
    textbuf_free(&all);
    return rc;
}

/* The largest multiple of step that fits. It draws from the generators as it goes. */
static int fit_search(Ruler *r, const Fit *f, Draw *d, int *n, Err *e) {
    const RulerTask *t = f->task;
    const NiahKind *niah = t->draw == niah_draw ? f->ctx : NULL;
    const int clip = niah && niah->haystack[0] != 'e' ? 0 : t->clip;
    const size_t L = (size_t)f->L;
    size_t total = 0;
    for (*n = f->step; total + f->reserve < L;) {
        TRY(draw_once(r, f, 0, *n, d, e));
        TRY(search_count(r, d, &total, e));
        if (total + f->reserve > L) {
            *n -= f->step;
            break;
        }
        if (clip == 1 && (size_t)*n > t->most(r, f->ctx)) {
            *n = (int)t->most(r, f->ctx);
            break;
        }
        *n += f->step;
        if (clip == 2 && (size_t)*n > t->most(r, f->ctx)) {
            *n = (int)t->most(r, f->ctx);
            break;
        }
    }
    return *n || (niah && clip) ? OK : nothing_fits(f, e); // essay tasks go down to the bare needle
}

static int fit_draw(Ruler *r, const Fit *f, int index, int n, Draw *d, Err *e) {
    size_t tokens;
    for (int tries = 0; tries < REDRAWS;) {
        TRY(draw_once(r, f, index, n, d, e));
        TRY(token_count(r->count, d->text.text, d->text.len, &tokens, e));
        if (tokens + f->reserve <= (size_t)f->L) return OK;
        if (n > f->step) n -= f->step;
        else tries++;
    }
    return nothing_fits(f, e);
}

static int vt_make(Ruler *r, Fit *f, int samples, Draw *d, Draw *example, EvalSet *out, Err *e) {
    Fit one = {f->task, "example", 500, 5, f->reserve};
    TextBuf shown = {0};
    size_t tokens = 0;
    int n;
    TRY(fit_search(r, &one, example, &n, e));
    TRY(fit_draw(r, &one, 0, n, example, e));
    textbuf_put(&shown, example->text.text, example->text.len);
    const char *answer = example->answers.text;
    for (int i = 0; i < example->n_answers; i++, answer = draw_next(answer)) textbuf_printf(&shown, " %s", answer);
    textbuf_puts(&shown, "\n\n");
    int rc = textbuf_end(&shown, e);
    if (!rc) rc = token_count(r->count, shown.text, shown.len, &tokens, e);
    f->reserve += tokens;
    if (!rc) rc = fit_search(r, f, d, &n, e);
    for (int i = 0; i < samples && !rc; i++) {
        rc = fit_draw(r, f, i, n, d, e);
        if (rc) break;
        vt_randomize(r, shown.text, example, &d->front);
        textbuf_puts(&d->front, "\n\n");
        rc = textbuf_end(&d->front, e);
        if (!rc) rc = draw_emit(r, d, f->task->delimiter, out, e);
    }
    textbuf_free(&shown);
    return rc;
}

static int fit_make(Ruler *r, Fit *f, int samples, Draw *d, EvalSet *out, Err *e) {
    int n;
    const int qa = f->task->draw == qa_draw;
    TRY(fit_search(r, f, d, &n, e));
    for (int i = 0; i < samples && !(qa && (size_t)i == qa_questions(r, f->ctx)); i++) {
        TRY(fit_draw(r, f, i, n, d, e));
        TRY(draw_emit(r, d, f->task->delimiter, out, e));
    }
    return OK;
}

static int lite_make(Ruler *r, int task, int L, int samples, EvalSet *out, Err *e);
int ruler_make(Ruler *r, int task, int L, int samples, EvalSet *out, Err *e) {
    const RulerTask *t = &tasks[task];
    if (L < RULER_MIN || L > RULER_MAX)
        return err_set(e, ERR_USAGE, "%s: length: got %d tokens, expected %d to %d", t->name, L, RULER_MIN, RULER_MAX);
    Fit f = {t, t->ctx, L, t->step, (size_t)t->max_new};
    Draw d = {0}, example = {0};
    if (t->draw == niah_draw) {
        const NiahKind *kind = t->ctx;
        f.step = kind->haystack[0] == 'e' ? 500 : L < 4096 ? 5 : 25;
    }
    r->L = L;
    if (t->prepare) TRY(t->prepare(r, t->ctx, e));
    if (r->flavour == RULER_LITE) return lite_make(r, task, L, samples, out, e);
    if (r->flavour == RULER_NVIDIA) {
        out->any = t->draw == qa_draw;
        out->percent = 1;
    }
    if (r->flavour == RULER_NVIDIA && t->draw)
        return nvidia_make(r, t, L,
                           t->draw == niah_draw             ? f.step
                           : t->draw == vt_draw && L < 4096 ? 5
                                                            : t->step,
                           samples, out, e);
    if (r->flavour == RULER_NVIDIA) return fwe_make(r, L - t->max_new, samples, out, e); // room for the answer
    int rc = !t->draw             ? fwe_make(r, L, samples, out, e)
             : t->draw == vt_draw ? vt_make(r, &f, samples, &d, &example, out, e)
                                  : fit_make(r, &f, samples, &d, out, e);
    draw_free(&d);
    draw_free(&example);
    return rc;
}

/* Its four tasks: how much is generated, and the smallest number of units. */
static int lite_make(Ruler *r, int task, int L, int samples, EvalSet *out, Err *e) {
    enum { NUMBER = 16, NAMES = 30, WORDS = 24, FEWEST = 5 };
    RulerTask t = tasks[task];
    const int vt = t.draw == vt_draw, niah = !strcmp(t.name, "niah_single_1") || !strcmp(t.name, "niah_multikey_2");
    if (!vt && !niah && t.draw)
        return err_set(e, ERR_USAGE,
                       "%s: not in the lite flavour, which has niah_single_1, niah_multikey_2, ruler_vt and ruler_fwe",
                       t.name);
    out->max_new = t.max_new = niah ? NUMBER : vt ? NAMES : WORDS;
    return t.draw ? nvidia_make(r, &t, L, vt ? FEWEST : 1, samples, out, e) : fwe_make(r, L - WORDS, samples, out, e);
}

int ruler_make_at(Ruler *r, int task, int L, double place, int max_new, int samples, EvalSet *out, Err *e) {
    RulerTask t = tasks[task];
    if (t.draw != niah_draw) return err_set(e, ERR_USAGE, "%s: not a needle task", t.name);
    t.max_new = max_new;
    r->L = L;
    TRY(t.prepare(r, t.ctx, e));
    r->place = place;
    const int rc = nvidia_make(r, &t, L, 1, samples, out, e);
    r->place = -1;
    return rc;
}

/* ---- opening ---- */

int ruler_open(Ruler *r, const char *dir, TokenCount *count, Err *e) {
    memset(r, 0, sizeof *r);
    if (strlen(dir) >= sizeof r->dir) return err_set(e, ERR_USAGE, "data directory: the path is too long");
    memcpy(r->dir, dir, strlen(dir) + 1);
    r->count = count;
    r->place = -1;
    ruler_seed(r, 42);
    return OK;
}

void ruler_seed(Ruler *r, uint64_t seed) {
    pyrandom_seed(&r->random, seed);
    nprandom_seed(&r->numpy, (uint32_t)seed);
    r->fixed = r->flavour == RULER_NVIDIA ? seed : 42;
}

void ruler_close(Ruler *r) {
    words_close(&r->words);
    essay_close(&r->essay);
    qa_close(r->qa[0]);
    qa_close(r->qa[1]);
    mem_free(r->cwe_word);
    memset(r, 0, sizeof *r);
}
