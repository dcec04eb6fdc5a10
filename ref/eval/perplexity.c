/* perplexity.c - see perplexity.h. */
#include "eval/perplexity.h"
#include "base/mem.h"
#include "method/loss.h"
#include <math.h>
#include <string.h>

/* The windows of a token stream, and the arrays of one batch of them. */
typedef struct {
    const int *ids;
    int64_t windows, done;
    int T, B;
    int *batch, *target; /* (B*T) */
    /* (B*T) 1 where the next token is predicted, 0 at the last position and in rows beyond the end */
    float *weight;
} Windows;

static void windows_close(Windows *w) {
    mem_free(w->batch);
    mem_free(w->target);
    mem_free(w->weight);
    memset(w, 0, sizeof *w);
}

static int windows_open(Windows *w, const int *ids, size_t n, int T, int B, Err *e) {
    *w = (Windows){.ids = ids};
    if (T < 2) return err_set(e, ERR_USAGE, "window length: got %d tokens, expected at least 2", T);
    if (n < 2) return err_set(e, ERR_INPUT, "the text has %zu tokens, expected at least 2", n);
    w->T = n < (size_t)T ? (int)n : T;
    w->windows = (int64_t)(n / (size_t)w->T);
    w->B = B > 0 ? B : T < 2048 ? 2048 / T : 1;
    if (w->B > w->windows) w->B = (int)w->windows;
    const size_t rows = (size_t)w->B * w->T;
    void *p[3] = {0};
    int rc = OK;
    for (int i = 0; i < 3 && !rc; i++) rc = mem_alloc(&p[i], rows * sizeof(int), "windows", e);
    w->batch = p[0];
    w->target = p[1];
    w->weight = p[2];
    if (rc) windows_close(w);
    return rc;
}

/* Fills the arrays with the next windows; returns how many, 0 at the end. Rows without a window repeat the first one at
 * weight 0. */
static int windows_next(Windows *w) {
    const int64_t left = w->windows - w->done;
    const int rows = left < w->B ? (int)left : w->B;
    for (int b = 0; b < w->B && rows; b++) {
        const int *from = w->ids + (size_t)(w->done + (b < rows ? b : 0)) * w->T;
        const size_t at = (size_t)b * w->T;
        memcpy(w->batch + at, from, w->T * sizeof *from);
        for (int t = 0; t < w->T; t++) {
            const int predicted = b < rows && t + 1 < w->T;
            w->target[at + t] = predicted ? from[t + 1] : -1;
            w->weight[at + t] = predicted ? 1 : 0;
        }
    }
    w->done += rows;
    return rows;
}

/* ---- sums over windows ---- */

typedef struct {
    double sum, squares;
} Spread; /* of per-window means */

static void spread_add(Spread *s, double mean) {
    s->sum += mean;
    s->squares += mean * mean;
}
static double spread_mean(const Spread *s, int64_t n) { return s->sum / (double)n; }
static double spread_se(const Spread *s, int64_t n) {
    if (n < 2) return NAN;
    const double mean = s->sum / (double)n,
                 variance = (s->squares / (double)n - mean * mean) * (double)n / (double)(n - 1);
    return sqrt(fmax(variance, 0) / (double)n);
}

/* One model's side: its pass, its loss scratch, and what it has predicted so far. */
typedef struct {
    Model *m;
    Pass pass;
    Loss loss;
    float *row; /* (N) */
    int *top;   /* (N) */
    Spread nll;
    int64_t right;
} Side;

static void side_close(Side *s) {
    pass_close(&s->pass);
    loss_close(&s->loss);
    mem_free(s->row);
    mem_free(s->top);
    memset(s, 0, sizeof *s);
}

/* Ct: width of the teacher whose states loss_kl will get, 0 for none. */
static int side_open(Side *s, Model *m, const Windows *w, int Ct, Err *e) {
    const size_t N = (size_t)w->B * w->T;
    void *row = NULL, *top = NULL;
    memset(s, 0, sizeof *s);
    s->m = m;
    int rc = pass_open(&s->pass, m, w->B, w->T, 0, e);
    if (!rc) rc = loss_open(&s->loss, m, Ct, (int)N, e);
    if (!rc) rc = mem_alloc(&row, N * sizeof(float), "losses", e);
    if (!rc) rc = mem_alloc(&top, N * sizeof(int), "losses", e);
    s->row = row;
    s->top = top;
    if (rc) side_close(s);
    return rc;
}

/* Runs the batch and adds its windows to the sums. */
static int side_run(Side *s, const Windows *w, int rows, Err *e) {
    double value;
    TRY(pass_input(&s->pass, s->m, w->batch, NULL, e));
    model_forward(s->m, &s->pass);
    TRY(loss_xent(&s->loss, s->m, &s->pass, w->target, w->weight, 0, &value, s->row, s->top, e));
    for (int b = 0; b < rows; b++) {
        double sum = 0;
        for (int t = 0; t + 1 < w->T; t++) {
            const size_t at = (size_t)b * w->T + t;
            sum += s->row[at];
            s->right += s->top[at] == w->target[at];
        }
        if (!isfinite(sum))
            return err_set(e, ERR_NUMERIC, "window %lld: the loss is not finite", (long long)(w->done - rows + b));
        spread_add(&s->nll, sum / (w->T - 1));
    }
    return OK;
}

static Perplexity side_result(const Side *s, const Windows *w) {
    Perplexity r = {.windows = w->windows, .predictions = w->windows * (w->T - 1), .T = w->T};
    r.nll = spread_mean(&s->nll, w->windows);
    r.nll_se = spread_se(&s->nll, w->windows);
    r.perplexity = exp(r.nll);
    r.accuracy = (double)s->right / (double)r.predictions;
    return r;
}

static void report(const Progress *p, const Windows *w, double began, double nll) {
    const double s = log_now() - began;
    ProgressLine line = {.label = "window", .step = (long)w->done, .total = (long)w->windows};
    progress_add(&line, "nll", "%.4f", nll);
    line.tok_per_s = s > 0 ? (double)w->done * w->T / s : 0;
    line.eta_s = progress_eta(s, (long)w->done, (long)(w->windows - w->done));
    progress_report(p, &line);
}

/* ---- the public part ---- */

int perplexity_run(Perplexity *r, Model *m, const int *ids, size_t n, int T, int batch, const Progress *progress,
                   Err *e) {
    Windows w;
    Side s = {0};
    const double began = log_now();
    memset(r, 0, sizeof *r);
    TRY(windows_open(&w, ids, n, T, batch, e));
    int rows, rc = side_open(&s, m, &w, 0, e);
    while (!rc && (rows = windows_next(&w))) {
        rc = side_run(&s, &w, rows, e);
        if (!rc) report(progress, &w, began, spread_mean(&s.nll, w.done));
    }
    if (!rc) *r = side_result(&s, &w);
    side_close(&s);
    windows_close(&w);
    return rc;
}

typedef struct {
    Side teacher, student;
    Spread kl;
    int64_t same;
    float *row;
} Pair;

static int pair_run(Pair *p, const Windows *w, int rows, Err *e) {
    double value;
    Model *t = p->teacher.m;
    TRY(side_run(&p->teacher, w, rows, e));
    TRY(side_run(&p->student, w, rows, e));
    TRY(loss_kl(&p->student.loss, p->student.m, &p->student.pass, p->teacher.pass.h, t->c.C, params_head(&t->p)->w, 1,
                NULL, 0, &value, p->row, e));
    for (int b = 0; b < rows; b++) {
        double sum = 0;
        for (int i = 0; i < w->T; i++) {
            const size_t at = (size_t)b * w->T + i;
            sum += p->row[at];
            p->same += i + 1 < w->T && p->teacher.top[at] == p->student.top[at];
        }
        if (!isfinite(sum))
            return err_set(e, ERR_NUMERIC, "window %lld: the KL is not finite", (long long)(w->done - rows + b));
        spread_add(&p->kl, sum / w->T);
    }
    return OK;
}

int divergence_run(Divergence *r, Model *teacher, Model *student, const int *ids, size_t n, int T, int batch,
                   const Progress *progress, Err *e) {
    Windows w;
    Pair p = {0};
    void *row = NULL;
    const double began = log_now();
    memset(r, 0, sizeof *r);
    if (teacher->c.VOC != student->c.VOC)
        return err_set(e, ERR_INPUT, "vocabularies differ: the teacher has %d tokens, the student %d", teacher->c.VOC,
                       student->c.VOC);
    TRY(windows_open(&w, ids, n, T, batch, e));
    int rows, rc = side_open(&p.teacher, teacher, &w, 0, e);
    if (!rc) rc = side_open(&p.student, student, &w, teacher->c.C, e);
    if (!rc) rc = mem_alloc(&row, (size_t)w.B * w.T * sizeof(float), "losses", e);
    p.row = row;
    while (!rc && (rows = windows_next(&w))) {
        rc = pair_run(&p, &w, rows, e);
        if (!rc) report(progress, &w, began, spread_mean(&p.student.nll, w.done));
    }
    if (!rc) {
        r->kl = spread_mean(&p.kl, w.windows);
        r->kl_se = spread_se(&p.kl, w.windows);
        r->teacher = side_result(&p.teacher, &w);
        r->student = side_result(&p.student, &w);
        r->agreement = (double)p.same / (double)r->student.predictions;
    }
    mem_free(row);
    side_close(&p.student);
    side_close(&p.teacher);
    windows_close(&w);
    return rc;
}
