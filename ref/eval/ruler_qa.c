/* ruler_qa.c - a question among documents: SQuAD and HotpotQA in their official JSON. ref/eval/README.md 2. */
#include "base/file.h"
#include "base/mem.h"
#include "eval/ruler_parts.h"
#include "base/json.h"
#include <stdlib.h>
#include <string.h>

/* A list of lists of ints, or of texts as offsets: rows[i] .. rows[i+1]. */
typedef struct {
    int *x;
    size_t n, cap;
} IntList;
struct RulerQa {
    TextBuf text;        /* all strings, NUL-terminated */
    size_t *doc, *found; /* sorted distinct documents, as offsets into text; found: as read */
    size_t n_docs, n_found, cap_found;
    int *place; /* place[i]: which document stands at index i (the original shuffles them in place when all fit) */
    struct Question {
        size_t query;
        IntList own, more;
        size_t answers;
        int n_answers;
    } * q;
    size_t n, cap;
};

static int list_push(IntList *l, int v, Err *e) {
    if (l->n == l->cap) {
        const size_t cap = l->cap ? 2 * l->cap : 8;
        void *p = l->x;
        TRY(mem_grow(&p, l->cap * sizeof(int), cap * sizeof(int), "documents", e));
        l->x = p;
        l->cap = cap;
    }
    l->x[l->n++] = v;
    return OK;
}

void qa_close(RulerQa *q) {
    if (!q) return;
    for (size_t i = 0; i < q->n; i++) {
        mem_free(q->q[i].own.x);
        mem_free(q->q[i].more.x);
    }
    mem_free(q->q);
    mem_free(q->doc);
    mem_free(q->found);
    mem_free(q->place);
    textbuf_free(&q->text);
    mem_free(q);
}

static size_t text_put(RulerQa *q, const char *s, size_t n) {
    const size_t at = q->text.len;
    textbuf_put(&q->text, s, n);
    textbuf_put(&q->text, "", 1);
    return at;
}

static int document_put(RulerQa *q, size_t at, Err *e) {
    if (q->n_found == q->cap_found) {
        const size_t cap = q->cap_found ? 2 * q->cap_found : 256;
        void *p = q->found;
        TRY(mem_grow(&p, q->cap_found * sizeof(size_t), cap * sizeof(size_t), "documents", e));
        q->found = p;
        q->cap_found = cap;
    }
    q->found[q->n_found++] = at;
    return OK;
}

static int question_add(RulerQa *q, struct Question **out, Err *e) {
    if (q->n == q->cap) {
        const size_t cap = q->cap ? 2 * q->cap : 256;
        void *p = q->q;
        TRY(mem_grow(&p, q->cap * sizeof *q->q, cap * sizeof *q->q, "questions", e));
        q->q = p;
        q->cap = cap;
    }
    *out = &q->q[q->n++];
    memset(*out, 0, sizeof **out);
    return OK;
}

/* Sorts and drops repetitions; heap sort of offsets, since qsort has no context. */
static int below(const RulerQa *q, size_t a, size_t b) { return strcmp(q->text.text + a, q->text.text + b) < 0; }
static void sift(const RulerQa *q, size_t *x, size_t i, size_t n) {
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && below(q, x[child], x[child + 1])) child++;
        if (!below(q, x[i], x[child])) return;
        const size_t t = x[i];
        x[i] = x[child];
        x[child] = t;
    }
}
static int documents_sort(RulerQa *q, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, (q->n_found + 1) * sizeof(size_t), "documents", e));
    size_t *x = q->doc = mem;
    memcpy(x, q->found, q->n_found * sizeof *x);
    for (size_t i = q->n_found / 2; i-- > 0;) sift(q, x, i, q->n_found);
    for (size_t n = q->n_found; n-- > 1;) {
        const size_t t = x[0];
        x[0] = x[n];
        x[n] = t;
        sift(q, x, 0, n);
    }
    for (size_t i = 0; i < q->n_found; i++)
        if (!q->n_docs || below(q, x[q->n_docs - 1], x[i])) x[q->n_docs++] = x[i];
    TRY(mem_alloc(&mem, (q->n_docs + 1) * sizeof(int), "documents", e));
    q->place = mem;
    for (size_t i = 0; i < q->n_docs; i++) q->place[i] = (int)i;
    return OK;
}

static int document_find(const RulerQa *q, size_t at) {
    size_t lo = 0, hi = q->n_docs;
    while (hi - lo > 1) {
        const size_t mid = (lo + hi) / 2;
        if (below(q, at, q->doc[mid])) hi = mid;
        else lo = mid;
    }
    return (int)lo;
}

/* The document lists of all questions hold offsets first; now indices. */
static void documents_resolve(RulerQa *q) {
    for (size_t i = 0; i < q->n; i++) {
        for (size_t k = 0; k < q->q[i].own.n; k++) q->q[i].own.x[k] = document_find(q, q->found[q->q[i].own.x[k]]);
        size_t kept = 0;
        for (size_t k = 0; k < q->q[i].more.n; k++) {
            const int d = document_find(q, q->found[q->q[i].more.x[k]]);
            if (d != q->q[i].own.x[0]) q->q[i].more.x[kept++] = d;
        }
        q->q[i].more.n = kept;
    }
}

/* ---- the two formats ---- */

static int string_at(const Json *j, JsonRef object, const char *key, const char **s, size_t *n, Err *e) {
    return json_want_str(j, json_get(j, object, key), key, s, n, e);
}

static int squad_question(RulerQa *q, const Json *j, JsonRef qa, int own, int first, int last, Err *e) {
    struct Question *x;
    const char *s;
    size_t n;
    int impossible = 0;
    TRY(json_opt_bool(j, qa, "is_impossible", &impossible, e));
    if (impossible) return OK;
    TRY(question_add(q, &x, e));
    TRY(string_at(j, qa, "question", &s, &n, e));
    x->query = text_put(q, s, n);
    const JsonRef list = json_get(j, qa, "answers");
    if (json_kind(j, list) != JSON_ARRAY) return err_set(e, ERR_INPUT, "%s: answers: expected a list", j->file);
    x->answers = q->text.len;
    for (JsonRef a = json_first(j, list); a >= 0; a = json_next(j, a), x->n_answers++) {
        TRY(string_at(j, a, "text", &s, &n, e));
        text_put(q, s, n);
    }
    TRY(list_push(&x->own, own, e));
    for (int i = first; i < last; i++) TRY(list_push(&x->more, i, e));
    return OK;
}

static int squad_article(RulerQa *q, const Json *j, JsonRef article, Err *e) {
    const JsonRef list = json_get(j, article, "paragraphs");
    const int first = (int)q->n_found, last = first + (int)json_size(j, list);
    const char *s;
    size_t n;
    int own = first;
    for (JsonRef p = json_first(j, list); p >= 0; p = json_next(j, p)) {
        TRY(string_at(j, p, "context", &s, &n, e));
        TRY(document_put(q, text_put(q, s, n), e));
    }
    for (JsonRef p = json_first(j, list); p >= 0; p = json_next(j, p), own++) {
        const JsonRef qas = json_get(j, p, "qas");
        for (JsonRef a = json_first(j, qas); a >= 0; a = json_next(j, a))
            TRY(squad_question(q, j, a, own, first, last, e));
    }
    return OK;
}

static int squad_read(RulerQa *q, const Json *j, Err *e) {
    const JsonRef data = json_get(j, 0, "data");
    if (json_kind(j, data) != JSON_ARRAY)
        return err_set(e, ERR_INPUT, "%s: data: expected a list of articles, as in SQuAD's files", j->file);
    for (JsonRef a = json_first(j, data); a >= 0; a = json_next(j, a)) TRY(squad_article(q, j, a, e));
    return OK;
}

static int hotpot_document(RulerQa *q, struct Question *x, const Json *j, JsonRef pair, Err *e) {
    const JsonRef title = json_first(j, pair), body = title >= 0 ? json_next(j, title) : -1;
    const char *s;
    size_t n;
    const size_t at = q->text.len;
    TRY(json_want_str(j, title, "context title", &s, &n, e));
    textbuf_put(&q->text, s, n);
    textbuf_puts(&q->text, "\n");
    for (JsonRef p = json_first(j, body); p >= 0; p = json_next(j, p)) {
        TRY(json_want_str(j, p, "context sentence", &s, &n, e));
        textbuf_put(&q->text, s, n);
    }
    textbuf_put(&q->text, "", 1);
    TRY(list_push(&x->own, (int)q->n_found, e));
    return document_put(q, at, e);
}

static int hotpot_read(RulerQa *q, const Json *j, Err *e) {
    if (json_kind(j, 0) != JSON_ARRAY)
        return err_set(e, ERR_INPUT, "%s: expected a list of questions, as in HotpotQA's files", j->file);
    for (JsonRef a = json_first(j, 0); a >= 0; a = json_next(j, a)) {
        struct Question *x;
        const char *s;
        size_t n;
        TRY(question_add(q, &x, e));
        TRY(string_at(j, a, "question", &s, &n, e));
        x->query = text_put(q, s, n);
        TRY(string_at(j, a, "answer", &s, &n, e));
        x->answers = text_put(q, s, n);
        x->n_answers = 1;
        const JsonRef context = json_get(j, a, "context");
        for (JsonRef c = json_first(j, context); c >= 0; c = json_next(j, c)) TRY(hotpot_document(q, x, j, c, e));
        if (!x->own.n) return err_set(e, ERR_INPUT, "%s: question %zu has no context", j->file, q->n);
    }
    return OK;
}

static const char *const squad_paths[] = {"squad_v2/dev-v2.0.json", "squad_v2_cs224n/dev-v2.0.json",
                                          "xquad-en/xquad.en.json", NULL};
static const char *const hotpot_paths[] = {"hotpotqa/hotpot_dev_distractor_v1.json", NULL};

static int is_hotpot(const void *ctx) { return ((const char *)ctx)[0] == 'h'; }

static int qa_load(RulerQa *q, const char *dir, int hotpot, Err *e) {
    char path[1024];
    const char *const *try = hotpot ? hotpot_paths : squad_paths;
    Json j;
    for (int i = 0; try[i]; i++) {
        TRY(file_join(path, sizeof path, dir, try[i], e));
        if (file_exists(path)) break;
        if (!try[i + 1]) TRY(file_join(path, sizeof path, dir, try[0], e));
    }
    if (json_open(&j, path, e))
        return err_hint(e, hotpot ? "HotpotQA's official dev distractor set (hotpotqa.github.io)"
                                  : "SQuAD 2.0's official dev set (rajpurkar.github.io)");
    int rc = hotpot ? hotpot_read(q, &j, e) : squad_read(q, &j, e);
    json_free(&j);
    if (!rc) rc = textbuf_end(&q->text, e);
    if (!rc && (!q->n || !q->n_found)) rc = err_set(e, ERR_INPUT, "%s: no question that has an answer", path);
    if (!rc) rc = documents_sort(q, e);
    if (!rc) documents_resolve(q);
    return rc;
}

int qa_prepare(Ruler *r, const void *ctx, Err *e) {
    const int hotpot = is_hotpot(ctx);
    void *mem;
    if (r->qa[hotpot]) return OK;
    TRY(mem_alloc(&mem, sizeof(RulerQa), "question set", e));
    const int rc = qa_load(mem, r->dir, hotpot, e);
    if (rc) qa_close(mem);
    else r->qa[hotpot] = mem;
    return rc;
}

size_t qa_most(const Ruler *r, const void *ctx) { return r->qa[is_hotpot(ctx)]->n_docs; }
size_t qa_questions(const Ruler *r, const void *ctx) { return r->qa[is_hotpot(ctx)]->n; }

/* ---- a sample ---- */

static int member(const IntList *l, int v) {
    for (size_t i = 0; i < l->n; i++)
        if (l->x[i] == v) return 1;
    return 0;
}

/* Indices of the n documents shown, before the shuffle. scratch: n_docs ints. */
static int choose(Ruler *r, const RulerQa *q, const struct Question *x, int n, int *show, int *scratch, Err *e) {
    const int own = (int)x->own.n, more = (int)x->more.n;
    memcpy(show, x->own.x, (size_t)own * sizeof(int));
    if (n - own > more) {
        int rest = 0;
        if (more) memcpy(show + own, x->more.x, (size_t)more * sizeof(int));
        for (int i = 0; i < (int)q->n_docs; i++)
            if (!member(&x->own, i) && !member(&x->more, i)) scratch[rest++] = i;
        TRY(pyrandom_sample(&r->random, (size_t)rest, n - own - more, show + own + more, e));
        for (int i = own + more; i < n; i++) show[i] = scratch[show[i]];
    } else {
        TRY(pyrandom_sample(&r->random, (size_t)more, n - own, show + own, e));
        for (int i = own; i < n; i++) show[i] = x->more.x[show[i]];
    }
    return OK;
}

static void qa_text(const RulerQa *q, const struct Question *x, const int *show, int n, Draw *d) {
    static const char ask[] = "Answer the question based on the given documents. Only give me the answer and "
                              "do not output any other words.";
    textbuf_printf(&d->text, "%s\n\nThe following are given documents.\n\n", ask);
    for (int i = 0; i < n; i++)
        textbuf_printf(&d->text, "%sDocument %d:\n%s", i ? "\n\n" : "", i + 1,
                       q->text.text + q->doc[q->place[show[i]]]);
    textbuf_printf(&d->text, "\n\n%s\n\nQuestion: %s", ask, q->text.text + x->query);
    d->input = d->text.len;
    textbuf_puts(&d->prefix, "Answer:");
    const char *answer = q->text.text + x->answers;
    for (int i = 0; i < x->n_answers; i++, answer = draw_next(answer)) draw_answer(d, answer);
    textbuf_puts(&d->after, " ");
    draw_list(d, &d->after);
}

int qa_draw(Ruler *r, const void *ctx, int index, int n, Draw *d, Err *e) {
    RulerQa *q = r->qa[is_hotpot(ctx)];
    const struct Question *x = &q->q[index];
    const int nvidia = r->flavour == RULER_NVIDIA, total = (int)q->n_docs, all = n >= total,
              shown = all && !nvidia ? total : n;
    PyRandom fixed;
    void *mem;
    TRY(mem_alloc(&mem, ((size_t)(n > total ? n : total) + (size_t)total + x->own.n + x->more.n + 1) * sizeof(int),
                  "documents", e));
    int *show = mem, *scratch = show + (n > total ? n : total) + x->own.n + x->more.n;
    int rc = OK;
    pyrandom_seed(&fixed, r->fixed);
    if (all && nvidia) { // all of them, again and again until there are n
        for (int i = 0; i < n; i++) show[i] = i % total;
    } else if (all) {
        pyrandom_shuffle(&fixed, q->place, (size_t)total); // the list itself, for good: as the original does
        for (int i = 0; i < total; i++) show[i] = i;
    } else rc = choose(r, q, x, n, show, scratch, e);
    if (!rc && (nvidia || !all)) pyrandom_shuffle(&fixed, show, (size_t)n);
    if (!rc) qa_text(q, x, show, shown, d);
    mem_free(mem);
    return rc;
}
