/* lm.c - greedy generation for many prompts; see lm.h. */
#include "eval/lm.h"
#include "base/mem.h"
#include "model/generate.h"
#include <stdlib.h>
#include <string.h>

/* A prompt's tokens lie in one array; at and n say where. */
typedef struct {
    size_t at, doc;
    int n;
} Prompt;
typedef struct {
    Lm *lm;
    const char *const *until;
    int max_new, limit; /* limit: longest prompt */
    Prompt *prompt;
    Ids ids;
    Decode d;
    char **text;
    float *logits;                 /* (B,VOC) */
    int *row, *made, *done, *next; /* (B,limit), (B,max_new), (B), (B) */
    int B;
} Job;

static int longer_first(const void *a, const void *b) {
    const Prompt *x = a, *y = b;
    return x->n != y->n ? y->n - x->n : (x->doc > y->doc) - (x->doc < y->doc);
}

static int prompts_encode(Job *j, const EvalDoc *doc, size_t n, Err *e) {
    Lm *lm = j->lm;
    for (size_t i = 0; i < n; i++) {
        const size_t at = j->ids.n;
        const char *text = doc[i].context[0];
        TRY(tokenizer_encode(lm->t, text, strlen(text), lm->special ? TOKENIZE_SPECIAL : 0, &j->ids, e));
        size_t len = j->ids.n - at, cut = len > (size_t)j->limit ? len - (size_t)j->limit : 0;
        lm->truncated += cut > 0;
        if (!len) {
            if (lm->m->c.bos < 0)
                return err_set(e, ERR_INPUT,
                               "question %zu: the prompt is empty and the model has no BOS token", i);
            TRY(ids_push(&j->ids, lm->m->c.bos, e));
            len = 1;
        }
        j->prompt[i] = (Prompt){.at = at + cut, .doc = i, .n = (int)(len - cut)};
    }
    qsort(j->prompt, n, sizeof *j->prompt, longer_first);
    return OK;
}

static int is_eos(const Config *c, int id) {
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id) return 1;
    return 0;
}

static int cut_at(char *text, const char *stop) {
    char *hit = stop && *stop ? strstr(text, stop) : NULL;
    if (hit) *hit = 0;
    return hit != NULL;
}

/* Cuts text before the first stop string of each kind, EOS spelled out among them; 1 if one was there. */
static int cut(char *text, const Job *j) {
    const Config *c = &j->lm->m->c;
    int found = 0;
    for (const char *const *u = j->until; u && *u; u++) found |= cut_at(text, *u);
    for (int i = 0; i < c->n_eos; i++) {
        size_t len;
        found |= cut_at(text, tokenizer_token(j->lm->t, c->eos[i], &len));
    }
    return found;
}

/* The text of row b so far, cut; *stop: no more is needed. */
static int row_text(Job *j, int b, int made, int *stop, char **text, Err *e) {
    size_t len = 0;
    *text = NULL;
    TRY(tokenizer_decode(j->lm->t, j->made + (size_t)b * j->max_new, (size_t)made, 1, text, &len, e));
    if (!*text) TRY(mem_strndup(text, "", 0, e));
    *stop = cut(*text, j);
    return OK;
}

static int batch_step(Job *j, int B, int k, int *left, Err *e) {
    const int VOC = j->lm->m->c.VOC;
    const Sampler greedy = {0, 0, 1, 0};
    for (int b = 0; b < B; b++) {
        TRY(sample(&greedy, NULL, j->logits + (size_t)b * VOC, VOC, &j->next[b], e));
        if (j->done[b] >= 0) continue;
        j->made[(size_t)b * j->max_new + k] = j->next[b];
        int over = is_eos(&j->lm->m->c, j->next[b]);
        if (over) j->done[b] = k;
        else if (k + 1 == j->max_new) j->done[b] = k + 1, over = 1;
        else if (j->until) {
            char *text;
            TRY(row_text(j, b, k + 1, &over, &text, e));
            mem_free(text);
            if (over) j->done[b] = k + 1;
        }
        *left -= over;
    }
    return OK;
}

/* Prompts [first, first + B), all of the same length. */
static int batch_run(Job *j, size_t first, int B, Err *e) {
    Lm *lm = j->lm;
    const int n = j->prompt[first].n;
    int left = B;
    if (j->d.m && j->d.B == B) decode_reset(&j->d);
    else {
        decode_close(&j->d);
        TRY(decode_open(&j->d, lm->m, B, j->prompt[0].n + j->max_new, lm->prefill ? lm->prefill : 256, e));
        if (j->d.cache_bytes > lm->cache_bytes) lm->cache_bytes = j->d.cache_bytes;
        if (j->d.state_bytes > lm->state_bytes) lm->state_bytes = j->d.state_bytes;
    }
    for (int b = 0; b < B; b++) {
        memcpy(j->row + (size_t)b * n, j->ids.id + j->prompt[first + b].at, (size_t)n * sizeof(int));
        j->done[b] = -1;
    }
    TRY(decode_extend(&j->d, j->row, n, j->logits, e));
    for (int k = 0; k < j->max_new && left; k++) {
        if (lm->stop && *lm->stop) return err_set(e, ERR_SIGINT, "stopped");
        TRY(batch_step(j, B, k, &left, e));
        if (left && k + 1 < j->max_new) TRY(decode_extend(&j->d, j->next, 1, j->logits, e));
    }
    for (int b = 0; b < B; b++) {
        int stop;
        TRY(row_text(j, b, j->done[b], &stop, &j->text[j->prompt[first + b].doc], e));
    }
    return OK;
}

static void report(const Lm *lm, double began, size_t done, size_t n) {
    ProgressLine line = {.label = lm->label ? lm->label : "question", .step = (long)done, .total = (long)n};
    line.eta_s = progress_eta(log_now() - began, (long)done, (long)(n - done));
    progress_report(lm->progress, &line);
}

static int all_run(Job *j, size_t n, Err *e) {
    const double began = log_now();
    for (size_t at = 0; at < n;) {
        int B = 1;
        while (B < j->B && at + B < n && j->prompt[at + B].n == j->prompt[at].n) B++;
        TRY(batch_run(j, at, B, e));
        at += B;
        report(j->lm, began, at, n);
    }
    return OK;
}

static int job_alloc(Job *j, size_t n, Err *e) {
    const size_t B = (size_t)j->B, VOC = j->lm->m->c.VOC;
    const size_t size[] = {n * sizeof(Prompt),
                           B * VOC * sizeof(float),
                           B * (size_t)j->limit * sizeof(int),
                           B * (size_t)j->max_new * sizeof(int),
                           2 * B * sizeof(int),
                           (n + 1) * sizeof(char *)};
    void *p[6] = {0};
    int rc = OK;
    for (int i = 0; i < 6 && !rc; i++) rc = mem_alloc(&p[i], size[i], "generation", e);
    j->prompt = p[0];
    j->logits = p[1];
    j->row = p[2];
    j->made = p[3];
    j->done = p[4];
    j->next = j->done ? j->done + B : NULL;
    j->text = p[5];
    return rc;
}

int lm_generate(Lm *lm, const EvalDoc *doc, size_t n, int max_new, const char *const *until, char ***text,
                Err *e) {
    const int length = lm->max_length ? lm->max_length : lm->m->c.max_positions;
    Job j = {.lm = lm,
             .until = until && *until ? until : NULL,
             .max_new = max_new,
             .limit = length - max_new,
             .B = lm->batch ? lm->batch : 16};
    *text = NULL;
    if (max_new < 1)
        return err_set(e, ERR_USAGE, "generation: got %d new tokens, expected at least 1", max_new);
    if (j.limit < 1) {
        err_set(e, ERR_USAGE, "the model's context of %d tokens has no room for a prompt and %d new tokens",
                length, max_new);
        return err_hint(e, "--max-length N says otherwise");
    }
    int rc = job_alloc(&j, n, e);
    if (!rc) rc = prompts_encode(&j, doc, n, e);
    if (!rc && n) rc = all_run(&j, n, e);
    decode_close(&j.d);
    ids_free(&j.ids);
    mem_free(j.prompt);
    mem_free(j.logits);
    mem_free(j.row);
    mem_free(j.made);
    mem_free(j.done);
    if (rc && j.text) lm_free_texts(j.text, n);
    else *text = j.text;
    return rc;
}

void lm_free_texts(char **text, size_t n) {
    for (size_t i = 0; text && i < n; i++) mem_free(text[i]);
    mem_free(text);
}
