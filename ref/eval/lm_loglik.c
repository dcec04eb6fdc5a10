/* lm_loglik.c - log-likelihoods of continuations; see lm.h. */
#include "base/mem.h"
#include "eval/lm.h"
#include "method/loss.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One row of a forward pass: tokens input[0..n), of which the last `scored` positions are predictions of target. */
typedef struct {
    size_t at, ask;
    int n, scored;
} Row; /* tokens at .. at + n: n inputs, shifted by one n targets */
typedef struct {
    Lm *lm;
    Row *row;
    Ids ids;
    Pass pass;
    Loss loss;
    int open, B, T;
    int *input, *target, *top;
    float *weight, *nll;
    void *mem;
} Job;

static int is_space(char c) { return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31); }

static int prefix_token(const Lm *lm, int *id, Err *e) {
    const Config *c = &lm->m->c;
    if (c->bos < 0 && !c->n_eos) {
        err_set(e, ERR_INPUT,
                "a question without context needs a BOS or EOS token, and the model names neither");
        return err_hint(e, "bos_token_id and eos_token_id of config.json");
    }
    *id = c->bos >= 0 ? c->bos : c->eos[0];
    return OK;
}

int lm_split(const Lm *lm, const LogLikAsk *ask, Ids *ids, size_t *first, Err *e) {
    const size_t begin = ids->n;
    size_t len = strlen(ask->context);
    Ids whole = {0};
    TextBuf text = {0};
    if (!len) {
        int id = 0;
        TRY(prefix_token(lm, &id, e));
        TRY(ids_push(ids, id, e));
        *first = ids->n - begin;
        return tokenizer_encode(lm->t, ask->continuation, strlen(ask->continuation), 0, ids, e);
    }
    while (len && is_space(ask->context[len - 1])) len--;
    textbuf_puts(&text, ask->context);
    textbuf_puts(&text, ask->continuation);
    int rc = textbuf_end(&text, e);
    const int flags = lm->special ? TOKENIZE_SPECIAL : 0;
    if (!rc) rc = tokenizer_encode(lm->t, ask->context, len, flags, ids, e);
    if (!rc) rc = tokenizer_encode(lm->t, text.text, text.len, flags, &whole, e);
    *first = ids->n - begin;
    for (size_t i = *first; i < whole.n && !rc; i++) rc = ids_push(ids, whole.id[i], e);
    ids_free(&whole);
    textbuf_free(&text);
    return rc;
}

static int longer_first(const void *a, const void *b) {
    const Row *x = a, *y = b;
    return x->n != y->n ? y->n - x->n : (x->ask > y->ask) - (x->ask < y->ask);
}

static int length_of(const Lm *lm) { return lm->max_length ? lm->max_length : lm->m->c.max_positions; }

static int rows_encode(Job *j, const LogLikAsk *ask, size_t n, Err *e) {
    const size_t longest = (size_t)length_of(j->lm);
    for (size_t i = 0; i < n; i++) {
        const size_t at = j->ids.n;
        size_t first = 0;
        TRY(lm_split(j->lm, &ask[i], &j->ids, &first, e));
        const size_t all = j->ids.n - at, scored = all - first,
                     cut = all > longest + 1 ? all - longest - 1 : 0;
        if (!scored || !first) {
            err_set(e, ERR_INPUT, "request %zu: \"%.100s\" has no token of its own", i,
                    scored ? ask[i].context : ask[i].continuation);
            return err_hint(e, "this tokenizer joins it with the text before; the harness stops here too");
        }
        if (scored > longest)
            return err_set(e, ERR_INPUT, "request %zu: a continuation of %zu tokens in a context of %zu", i,
                           scored, longest);
        j->lm->truncated += cut > 0;
        j->row[i] = (Row){.at = at + cut, .ask = i, .n = (int)(all - cut - 1), .scored = (int)scored};
    }
    qsort(j->row, n, sizeof *j->row, longer_first);
    return OK;
}

static void batch_close(Job *j) {
    if (j->open) {
        pass_close(&j->pass);
        loss_close(&j->loss);
    }
    mem_free(j->mem);
    j->mem = NULL;
    j->open = 0;
}

static int batch_open(Job *j, int B, int T, Err *e) {
    if (j->open && j->B == B && j->T == T) return OK;
    batch_close(j);
    const size_t N = (size_t)B * T;
    TRY(mem_alloc(&j->mem, N * (3 * sizeof(int) + 2 * sizeof(float)), "log-likelihoods", e));
    j->input = j->mem;
    j->target = j->input + N;
    j->top = j->target + N;
    j->weight = (float *)(j->top + N);
    j->nll = j->weight + N;
    TRY(pass_open(&j->pass, j->lm->m, B, T, 0, e));
    const int rc = loss_open(&j->loss, j->lm->m, 0, (int)N, e);
    if (rc) pass_close(&j->pass);
    j->open = !rc;
    j->B = B;
    j->T = T;
    return rc;
}

static int batch_run(Job *j, const Row *row, int rows, LogLik *out, Err *e) {
    const int T = j->T;
    double value;
    for (int i = 0; i < j->B * T; i++) j->input[i] = 0, j->target[i] = -1, j->weight[i] = 0;
    for (int b = 0; b < rows; b++)
        for (int t = 0; t < row[b].n; t++) {
            const size_t at = (size_t)b * T + t;
            j->input[at] = j->ids.id[row[b].at + t];
            if (t < row[b].n - row[b].scored) continue;
            j->target[at] = j->ids.id[row[b].at + t + 1];
            j->weight[at] = 1;
        }
    TRY(pass_input(&j->pass, j->lm->m, j->input, NULL, e));
    model_forward(j->lm->m, &j->pass);
    TRY(loss_xent(&j->loss, j->lm->m, &j->pass, j->target, j->weight, 0, &value, j->nll, j->top, e));
    for (int b = 0; b < rows; b++) {
        LogLik *o = &out[row[b].ask];
        *o = (LogLik){.greedy = 1, .tokens = row[b].scored};
        for (int t = row[b].n - row[b].scored; t < row[b].n; t++) {
            const size_t at = (size_t)b * T + t;
            o->sum -= j->nll[at];
            o->greedy &= j->top[at] == j->target[at];
        }
        if (!isfinite(o->sum))
            return err_set(e, ERR_NUMERIC, "request %zu: the log-likelihood is not finite", row[b].ask);
    }
    return OK;
}

static int rows_run(Job *j, size_t n, LogLik *out, Err *e) {
    const double began = log_now();
    for (size_t at = 0; at < n;) {
        if (j->lm->stop && *j->lm->stop) return err_set(e, ERR_SIGINT, "stopped");
        const int T =
            (j->row[at].n + 15) / 16 * 16 < length_of(j->lm) ? (j->row[at].n + 15) / 16 * 16 : j->row[at].n;
        const int most = j->lm->batch ? j->lm->batch
                         : T < 2048   ? 2048 / T
                                      : 1,
                  rows = n - at < (size_t)most ? (int)(n - at) : most;
        TRY(batch_open(j, rows, T, e));
        TRY(batch_run(j, j->row + at, rows, out, e));
        at += rows;
        ProgressLine line = {
            .label = j->lm->label ? j->lm->label : "request", .step = (long)at, .total = (long)n};
        line.eta_s = progress_eta(log_now() - began, (long)at, (long)(n - at));
        progress_report(j->lm->progress, &line);
    }
    return OK;
}

static int job_rows(Job *j, size_t n, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, (n + 1) * sizeof(Row), "requests", e));
    j->row = mem;
    return OK;
}

static void job_close(Job *j) {
    batch_close(j);
    ids_free(&j->ids);
    mem_free(j->row);
}

int lm_loglik(Lm *lm, const LogLikAsk *ask, size_t n, LogLik *out, Err *e) {
    Job j = {.lm = lm};
    int rc = job_rows(&j, n, e);
    if (!rc) rc = rows_encode(&j, ask, n, e);
    if (!rc) rc = rows_run(&j, n, out, e);
    job_close(&j);
    return rc;
}

int lm_rolling(Lm *lm, const char *text, LogLik *out, Err *e) {
    Job j = {.lm = lm};
    LogLik *part = NULL;
    void *mem = NULL;
    int id = 0;
    size_t windows = 0;
    const size_t W = (size_t)length_of(lm);
    memset(out, 0, sizeof *out);
    TRY(prefix_token(lm, &id, e));
    int rc = ids_push(&j.ids, id, e);
    if (!rc) rc = tokenizer_encode(lm->t, text, strlen(text), lm->special ? TOKENIZE_SPECIAL : 0, &j.ids, e);
    const size_t n = j.ids.n ? j.ids.n - 1 : 0; // predictions
    if (!rc) rc = job_rows(&j, n / W + 1, e);
    for (size_t at = 0; at < n && !rc;
         at += W, windows++) { // the last, shorter window sees a full window of context
        const size_t left = n - at, scored = left < W ? left : W,
                     from = left < W && at ? at + scored - W : at;
        j.row[windows] =
            (Row){.at = from, .ask = windows, .n = (int)(at + scored - from), .scored = (int)scored};
    }
    if (!rc) rc = mem_alloc(&mem, (windows + 1) * sizeof(LogLik), "windows", e);
    part = mem;
    if (!rc) rc = rows_run(&j, windows, part, e);
    for (size_t i = 0; i < windows && !rc; i++) {
        out->sum += part[i].sum;
        out->tokens += part[i].tokens;
    }
    out->greedy = 0;
    mem_free(mem);
    job_close(&j);
    return rc;
}
