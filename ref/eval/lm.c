/* lm.c - greedy generation for many prompts; see lm.h.
 *
 * A fixed number of rows, each working on a prompt of its own: some read their prompt in pieces, some decode,
 * all in one step together (model/ragged.h). A row that is done takes the next prompt. */
#include "eval/lm.h"
#include "base/mem.h"
#include "model/generate.h"
#include "model/ragged.h"
#include <stdlib.h>
#include <string.h>

enum { ROWS = 16, PIECE = 256 };
static const size_t ROOM = (size_t)1 << 30; /* bytes that caches and states of all rows may take by default */

/* A prompt's tokens lie in one array; at and n say where. */
typedef struct {
    size_t at, doc;
    int n;
} Prompt;
typedef struct {
    int prompt, read, made, next; /* prompt: -1 none; read: tokens consumed; next: token to be decoded */
} Slot;
typedef struct {
    Lm *lm;
    const char *const *until;
    int max_new, limit, piece; /* limit: longest prompt */
    Prompt *prompt;
    size_t n, begun, ended; /* prompts */
    Ids ids;
    Ragged r;
    char **text;
    float *logits; /* (rows,VOC) */
    int *made;     /* (rows,max_new) */
    Slot *slot;
    RaggedPiece *step;
    int *last, *who, rows; /* of this step: places of the tokens whose logits are wanted, and their rows */
} Job;

int lm_rows(const Lm *lm, int capacity, int most) {
    const size_t bytes = ragged_row_bytes(lm->m, capacity, capacity);
    if (lm->batch || bytes == 0 || ROOM / bytes >= (size_t)most) return most;
    return ROOM / bytes > 1 ? (int)(ROOM / bytes) : 1;
}

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
                return err_set(e, ERR_INPUT, "question %zu: the prompt is empty and the model has no BOS token", i);
            TRY(ids_push(&j->ids, lm->m->c.bos, e));
            len = 1;
        }
        j->prompt[i] = (Prompt){.at = at + cut, .doc = i, .n = (int)(len - cut)};
    }
    qsort(j->prompt, n, sizeof *j->prompt, longer_first);
    return OK;
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

/* The text of a row so far, cut; *stop: no more is needed. */
static int row_text(Job *j, int row, int *stop, char **text, Err *e) {
    size_t len = 0;
    *text = NULL;
    TRY(tokenizer_decode(j->lm->t, j->made + (size_t)row * j->max_new, (size_t)j->slot[row].made, 1, text, &len, e));
    if (!*text) TRY(mem_strndup(text, "", 0, e));
    *stop = cut(*text, j);
    return OK;
}

/* Takes one more token; a row whose answer is complete is free again. */
static int row_take(Job *j, int row, int id, Err *e) {
    Slot *s = &j->slot[row];
    char *text = NULL;
    int over = config_ends(&j->lm->m->c, id), ends = over;
    if (!over) {
        j->made[(size_t)row * j->max_new + s->made++] = id;
        over = s->made == j->max_new;
    }
    s->next = id;
    if (!over && !j->until) return OK;
    TRY(row_text(j, row, &ends, &text, e));
    if (!over && !ends) {
        mem_free(text);
        return OK;
    }
    j->text[j->prompt[s->prompt].doc] = text;
    s->prompt = -1;
    j->ended++;
    return OK;
}

static void row_begin(Job *j, int row) {
    ragged_clear(&j->r, row);
    j->slot[row] = (Slot){.prompt = (int)j->begun++};
}

/* The pieces of one step: a token of every row that decodes, then as much of the prompts as there is room for. */
static int step_plan(Job *j, int *wanted) {
    int n = 0, tokens = 0, room = j->piece;
    *wanted = 0;
    for (int row = 0; row < j->rows; row++) {
        Slot *s = &j->slot[row];
        if (s->prompt < 0 && j->begun < j->n) row_begin(j, row);
        if (s->prompt < 0) continue;
        const Prompt *p = &j->prompt[s->prompt];
        const int left = p->n - s->read, T = left < 1 ? 1 : left < room ? left : room;
        if (T < 1) continue;
        j->step[n++] = (RaggedPiece){row, T, left < 1 ? &s->next : j->ids.id + p->at + s->read};
        if (left > 0) room -= T, s->read += T;
        tokens += T;
        if (s->read < p->n) continue;
        j->who[*wanted] = row;
        j->last[(*wanted)++] = tokens - 1;
    }
    return n;
}

static void report(const Lm *lm, double began, size_t done, size_t n) {
    ProgressLine line = {.label = lm->label ? lm->label : "question", .step = (long)done, .total = (long)n};
    line.eta_s = progress_eta(log_now() - began, (long)done, (long)(n - done));
    progress_report(lm->progress, &line);
}

static int all_run(Job *j, Err *e) {
    const int VOC = j->lm->m->c.VOC;
    const double began = log_now();
    const Sampler greedy = {0, 0, 1, 0};
    while (j->ended < j->n) {
        int wanted = 0, id = 0;
        const size_t before = j->ended;
        if (j->lm->stop && *j->lm->stop) return err_set(e, ERR_SIGINT, "stopped");
        const int n = step_plan(j, &wanted);
        TRY(ragged_step(&j->r, j->step, n, e));
        if (wanted) TRY(ragged_logits(&j->r, j->last, wanted, j->logits, e));
        for (int i = 0; i < wanted; i++) {
            TRY(sample(&greedy, NULL, j->logits + (size_t)i * VOC, VOC, &id, e));
            TRY(row_take(j, j->who[i], id, e));
        }
        if (j->ended > before) report(j->lm, began, j->ended, j->n);
    }
    return OK;
}

static int job_open(Job *j, Err *e) {
    Lm *lm = j->lm;
    const int longest = j->prompt[0].n + j->max_new;
    j->rows = lm_rows(lm, longest, lm->batch ? lm->batch : ROWS);
    if ((size_t)j->rows > j->n) j->rows = (int)j->n;
    j->piece = lm->prefill ? lm->prefill : PIECE;
    const size_t B = (size_t)j->rows, VOC = (size_t)lm->m->c.VOC;
    const size_t size[] = {B * VOC * sizeof(float), B * (size_t)j->max_new * sizeof(int), B * sizeof(Slot),
                           B * sizeof(RaggedPiece), 2 * B * sizeof(int)};
    void *p[5] = {0};
    int rc = OK;
    for (int i = 0; i < 5 && !rc; i++) rc = mem_alloc(&p[i], size[i], "generation", e);
    j->logits = p[0];
    j->made = p[1];
    j->slot = p[2];
    j->step = p[3];
    j->last = p[4];
    TRY(rc);
    j->who = j->last + B;
    for (int row = 0; row < j->rows; row++) j->slot[row].prompt = -1;
    TRY(ragged_open(&j->r, lm->m, j->rows, longest, j->piece + j->rows, e));
    if (j->r.cache_bytes > lm->cache_bytes) lm->cache_bytes = j->r.cache_bytes;
    if (j->r.state_bytes > lm->state_bytes) lm->state_bytes = j->r.state_bytes;
    return OK;
}

static void job_close(Job *j) {
    ragged_close(&j->r);
    ids_free(&j->ids);
    mem_free(j->prompt);
    mem_free(j->logits);
    mem_free(j->made);
    mem_free(j->slot);
    mem_free(j->step);
    mem_free(j->last);
}

int lm_generate(Lm *lm, const EvalDoc *doc, size_t n, int max_new, const char *const *until, char ***text, Err *e) {
    const int length = lm->max_length ? lm->max_length : lm->m->c.max_positions;
    Job j = {.lm = lm, .until = until && *until ? until : NULL, .max_new = max_new, .limit = length - max_new, .n = n};
    void *p = NULL, *q = NULL;
    *text = NULL;
    if (max_new < 1) return err_set(e, ERR_USAGE, "generation: got %d new tokens, expected at least 1", max_new);
    if (j.limit < 1) {
        err_set(e, ERR_USAGE, "the model's context of %d tokens has no room for a prompt and %d new tokens", length,
                max_new);
        return err_hint(e, "--max-length N says otherwise");
    }
    int rc = mem_alloc(&p, (n + 1) * sizeof(Prompt), "generation", e);
    j.prompt = p;
    if (!rc) rc = mem_alloc(&q, (n + 1) * sizeof(char *), "generation", e);
    j.text = q;
    if (!rc) rc = prompts_encode(&j, doc, n, e);
    if (!rc && n) rc = job_open(&j, e);
    if (!rc && n) rc = all_run(&j, e);
    job_close(&j);
    if (rc && j.text) lm_free_texts(j.text, n);
    else *text = j.text;
    return rc;
}

void lm_free_texts(char **text, size_t n) {
    for (size_t i = 0; text && i < n; i++) mem_free(text[i]);
    mem_free(text);
}
