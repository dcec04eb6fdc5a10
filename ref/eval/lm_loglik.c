/* lm_loglik.c - log-likelihoods of continuations; see lm.h.
 *
 * Requests on one context are one group: what their inputs have in common is read once, and each continues from a copy
 * of that state (model/ragged.h). Requests whose inputs are equal, as those of one-token answers, are read once
 * altogether. */
#include "base/mem.h"
#include "eval/lm.h"
#include "method/loss.h"
#include "model/ragged.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEP = 2048, BLOCK = 512, ROWS = 32, WORTH = 8 }; /* WORTH: shorter prefixes are not shared */

/* A request: inputs id[at .. at + n), of which the last `scored` predict the tokens one further. */
typedef struct {
    size_t at, like;      /* like: an earlier request with the same inputs, or itself */
    int n, scored, group; /* group: number of requests that begin here, 0 inside of one */
} Row;
typedef struct {
    size_t row;
    int slot, from, to; /* inputs [from, to) are still to be read */
} Branch;
typedef struct {
    int at, target;
    size_t row;
} Score;
typedef struct {
    Lm *lm;
    Row *row;
    size_t n;
    Ids ids;
    Ragged r;
    Loss loss;
    LogLik *out;
    int rows, most, loss_open; /* rows and tokens at once */
    Branch *branch;
    RaggedPiece *piece;
    Score *score;
    int *at, *target, *top;
    float *weight, *nll;
    void *mem;
} Job;

static int is_space(char c) { return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31); }

static int prefix_token(const Lm *lm, int *id, Err *e) {
    const Config *c = &lm->m->c;
    if (c->bos < 0 && !c->n_eos) {
        err_set(e, ERR_INPUT, "a question without context needs a BOS or EOS token, and the model names neither");
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

static int length_of(const Lm *lm) { return lm->max_length ? lm->max_length : lm->m->c.max_positions; }

/* ---- requests and groups ---- */

static int same_inputs(const Job *j, const Row *a, const Row *b) {
    return a->n == b->n && !memcmp(j->ids.id + a->at, j->ids.id + b->at, (size_t)a->n * sizeof(int));
}

static void group_mark(Job *j, size_t i, const LogLikAsk *ask) {
    Row *r = j->row;
    size_t first = i;
    r[i].group = 1;
    r[i].like = i;
    if (i && !strcmp(ask[i - 1].context, ask[i].context)) {
        for (first = i - 1; !r[first].group; first--) continue;
        if (r[first].group < ROWS) {
            r[first].group++;
            r[i].group = 0;
        } else first = i;
    }
    for (size_t k = first; k < i; k++)
        if (same_inputs(j, &r[k], &r[i])) {
            r[i].like = k;
            break;
        }
}

static int rows_encode(Job *j, const LogLikAsk *ask, Err *e) {
    const size_t longest = (size_t)length_of(j->lm);
    for (size_t i = 0; i < j->n; i++) {
        const size_t at = j->ids.n;
        size_t first = 0;
        TRY(lm_split(j->lm, &ask[i], &j->ids, &first, e));
        const size_t all = j->ids.n - at, scored = all - first, cut = all > longest + 1 ? all - longest - 1 : 0;
        if (!scored || !first) {
            err_set(e, ERR_INPUT, "request %zu: \"%.100s\" has no token of its own", i,
                    scored ? ask[i].context : ask[i].continuation);
            return err_hint(e, "this tokenizer joins it with the text before; the harness stops here too");
        }
        if (scored > longest)
            return err_set(e, ERR_INPUT, "request %zu: a continuation of %zu tokens in a context of %zu", i, scored,
                           longest);
        j->lm->truncated += cut > 0;
        j->row[i] = (Row){.at = at + cut, .n = (int)(all - cut - 1), .scored = (int)scored};
        group_mark(j, i, ask);
    }
    return OK;
}

/* Inputs that all of a group have in common, of which none is scored. */
static int group_shared(const Job *j, size_t first) {
    const Row *r = &j->row[first];
    int shared = r->n, alone = 1;
    for (int k = 0; k < r->group; k++) {
        const Row *o = r + k;
        int s = 0;
        const int most = o->n - o->scored < shared ? o->n - o->scored : shared;
        while (s < most && j->ids.id[r->at + s] == j->ids.id[o->at + s]) s++;
        shared = s;
        alone &= o->like == first;
    }
    return alone || shared < WORTH ? 0 : shared;
}

/* ---- steps ---- */

static int scores_add(Job *j, const Branch *b, int begin, int T, int at, int n) {
    const Row *r = &j->row[b->row];
    const int group = (int)(j->n - b->row);
    for (int t = begin; t < begin + T; t++)
        for (int k = 0; k < group && (!k || !r[k].group); k++) {
            if (r[k].like != b->row || t < r[k].n - r[k].scored) continue;
            j->score[n++] = (Score){at + t - begin, j->ids.id[r[k].at + t + 1], b->row + (size_t)k};
        }
    return n;
}

static int scores_run(Job *j, int n, Err *e) {
    for (int done = 0; done < n; done += BLOCK) {
        const int some = n - done < BLOCK ? n - done : BLOCK;
        double value;
        for (int i = 0; i < some; i++) {
            j->at[i] = j->score[done + i].at;
            j->target[i] = j->score[done + i].target;
            j->weight[i] = 1;
        }
        ragged_hidden(&j->r, j->at, some);
        j->loss.N = some;
        TRY(loss_xent(&j->loss, j->lm->m, &j->r.pass, j->target, j->weight, 0, &value, j->nll, j->top, e));
        for (int i = 0; i < some; i++) {
            LogLik *o = &j->out[j->score[done + i].row];
            o->sum -= j->nll[i];
            o->greedy &= j->top[i] == j->target[i];
        }
    }
    return OK;
}

/* Reads all branches to their ends, as many tokens at once as a step takes. */
static int branches_run(Job *j, int n, Err *e) {
    for (int left = 1; left;) {
        int pieces = 0, tokens = 0, scores = 0;
        if (j->lm->stop && *j->lm->stop) return err_set(e, ERR_SIGINT, "stopped");
        for (int i = 0; i < n && tokens < j->most; i++) {
            Branch *b = &j->branch[i];
            const int T = b->to - b->from < j->most - tokens ? b->to - b->from : j->most - tokens;
            if (T < 1) continue;
            j->piece[pieces++] = (RaggedPiece){b->slot, T, j->ids.id + j->row[b->row].at + b->from};
            scores = scores_add(j, b, b->from, T, tokens, scores);
            tokens += T;
            b->from += T;
        }
        left = pieces;
        if (pieces) TRY(ragged_step(&j->r, j->piece, pieces, e));
        TRY(scores_run(j, scores, e));
    }
    return OK;
}

/* Groups from `first` on, as many as have rows; returns in *next where the following wave begins. */
static int wave_run(Job *j, size_t first, size_t *next, Err *e) {
    int slots = 0, n = 0;
    size_t end = first;
    for (; end < j->n && slots + j->row[end].group <= j->rows; end += (size_t)j->row[end].group) {
        const int shared = group_shared(j, end);
        ragged_clear(&j->r, slots);
        if (shared) j->branch[n++] = (Branch){end, slots, 0, shared};
        slots += j->row[end].group;
    }
    TRY(branches_run(j, n, e)); // the shared prefixes: nothing in them is scored
    slots = n = 0;
    for (size_t i = first; i < end; i += (size_t)j->row[i].group) {
        const int base = slots, shared = j->r.past[base];
        for (int k = 0; k < j->row[i].group; k++, slots++) {
            const Row *r = &j->row[i + (size_t)k];
            if (r->like != i + (size_t)k) continue;
            if (k && shared) ragged_copy(&j->r, slots, base);
            else if (k) ragged_clear(&j->r, slots);
            j->branch[n++] = (Branch){i + (size_t)k, slots, shared, r->n};
        }
    }
    *next = end;
    return branches_run(j, n, e);
}

/* ---- a job ---- */

static int job_open(Job *j, Err *e) {
    Lm *lm = j->lm;
    int longest = 1, widest = 1;
    void *p;
    for (size_t i = 0; i < j->n; i++) {
        if (j->row[i].n > longest) longest = j->row[i].n;
        if (j->row[i].group > widest) widest = j->row[i].group;
        j->out[i] = (LogLik){.greedy = 1, .tokens = j->row[i].scored};
    }
    j->rows = lm_rows(lm, longest, lm->batch ? lm->batch : ROWS);
    if (j->rows < widest) j->rows = widest;
    if ((size_t)j->rows > j->n) j->rows = (int)j->n;
    j->most = STEP;
    if ((int64_t)j->rows * longest < STEP) j->most = j->rows * longest;
    const size_t scores = (size_t)j->most * ROWS, B = (size_t)j->rows;
    TRY(mem_alloc(&p, scores * sizeof(Score) + B * (sizeof(Branch) + sizeof(RaggedPiece)), "requests", e));
    j->score = p;
    j->mem = p;
    j->branch = (Branch *)(j->score + scores);
    j->piece = (RaggedPiece *)(j->branch + B);
    TRY(mem_alloc(&p, BLOCK * (3 * sizeof(int) + 2 * sizeof(float)), "requests", e));
    j->at = p;
    j->target = j->at + BLOCK;
    j->top = j->target + BLOCK;
    j->weight = (float *)(j->top + BLOCK);
    j->nll = j->weight + BLOCK;
    TRY(ragged_open(&j->r, lm->m, j->rows, longest, j->most < BLOCK ? BLOCK : j->most, e));
    TRY(loss_open(&j->loss, lm->m, 0, BLOCK, e));
    j->loss_open = 1;
    return OK;
}

static int rows_run(Job *j, Err *e) {
    const double began = log_now();
    TRY(job_open(j, e));
    for (size_t at = 0; at < j->n;) {
        TRY(wave_run(j, at, &at, e));
        ProgressLine line = {.label = j->lm->label ? j->lm->label : "request", .step = (long)at, .total = (long)j->n};
        line.eta_s = progress_eta(log_now() - began, (long)at, (long)(j->n - at));
        progress_report(j->lm->progress, &line);
    }
    for (size_t i = 0; i < j->n; i++)
        if (!isfinite(j->out[i].sum))
            return err_set(e, ERR_NUMERIC, "request %zu: the log-likelihood is not finite", i);
    return OK;
}

static int job_rows(Job *j, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, (j->n + 1) * sizeof(Row), "requests", e));
    j->row = mem;
    return OK;
}

static void job_close(Job *j) {
    ragged_close(&j->r);
    if (j->loss_open) loss_close(&j->loss);
    ids_free(&j->ids);
    mem_free(j->mem);
    mem_free(j->at);
    mem_free(j->row);
}

int lm_loglik(Lm *lm, const LogLikAsk *ask, size_t n, LogLik *out, Err *e) {
    Job j = {.lm = lm, .n = n, .out = out};
    int rc = job_rows(&j, e);
    if (!rc) rc = rows_encode(&j, ask, e);
    if (!rc && n) rc = rows_run(&j, e);
    job_close(&j);
    return rc;
}

int lm_rolling(Lm *lm, const char *text, LogLik *out, Err *e) {
    Job j = {.lm = lm};
    void *mem = NULL;
    int id = 0;
    const size_t W = (size_t)length_of(lm);
    memset(out, 0, sizeof *out);
    TRY(prefix_token(lm, &id, e));
    int rc = ids_push(&j.ids, id, e);
    if (!rc) rc = tokenizer_encode(lm->t, text, strlen(text), lm->special ? TOKENIZE_SPECIAL : 0, &j.ids, e);
    const size_t n = j.ids.n ? j.ids.n - 1 : 0; // predictions
    j.n = (n + W - 1) / W;
    if (!rc) rc = job_rows(&j, e);
    for (size_t i = 0; i < j.n && !rc; i++) { // the last, shorter window sees a full window of context
        const size_t at = i * W, left = n - at, scored = left < W ? left : W,
                     from = left < W && at ? at + scored - W : at;
        j.row[i] = (Row){.at = from, .like = i, .n = (int)(at + scored - from), .scored = (int)scored, .group = 1};
    }
    if (!rc) rc = mem_alloc(&mem, (j.n + 1) * sizeof(LogLik), "windows", e);
    j.out = mem;
    if (!rc && j.n) rc = rows_run(&j, e);
    for (size_t i = 0; i < j.n && !rc; i++) {
        out->sum += j.out[i].sum;
        out->tokens += j.out[i].tokens;
    }
    mem_free(mem);
    job_close(&j);
    return rc;
}
