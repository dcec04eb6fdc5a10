/* diagnostic_tasks.c - see diagnostic_tasks.h. */
#include "eval/diagnostic_tasks.h"
#include "base/mem.h"
#include "method/distill.h"
#include "model/generate.h"
#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORD = 8, MOST = 128 };
typedef char Word[WORD];

/* n different words of two or three syllables. */
static void words_make(Word *w, int n, Rng *r) {
    static const char consonant[] = "bdfgklmnprstvz", vowel[] = "aeiou";
    for (int i = 0; i < n; i++) {
        int same;
        do {
            const int syllables = 2 + (int)rng_below(r, 2);
            memset(w[i], 0, WORD);
            for (int k = 0; k < syllables; k++) {
                w[i][2 * k] = consonant[rng_below(r, sizeof consonant - 1)];
                w[i][2 * k + 1] = vowel[rng_below(r, sizeof vowel - 1)];
            }
            same = 0;
            for (int k = 0; k < i; k++) same |= !strcmp(w[k], w[i]);
        } while (same);
    }
}

static int pairs_of(int pairs) { return pairs < 3 ? 3 : pairs > MOST ? MOST : pairs; }

/* ---------------------------------------------------------------- AR, AR-MH, retrieval */

/* parent: the earlier key that stands as this one's value, -1 for none. */
static void ask_sum(DiagnosticSample *s, Rng *r, Word *w, const int *value, const int *parent, int n, int must,
                    const char *end) {
    int pick[3];
    for (int i = 0; i < 3; i++) {
        int same;
        do {
            pick[i] = i == 0 && must >= 0 ? must : (int)rng_below(r, (uint64_t)n);
            same = 0;
            for (int k = 0; k < i; k++) same |= pick[k] == pick[i];
        } while (same);
    }
    textbuf_printf(&s->prompt, "What is the value of %s + %s + %s?%s", w[pick[0]], w[pick[1]], w[pick[2]], end);
    textbuf_printf(&s->answer, "%d", value[pick[0]] + value[pick[1]] + value[pick[2]]);
    for (int i = 0; i < 3; i++)
        for (int k = pick[i]; k >= 0; k = parent[k]) {
            if (parent[k] < 0) textbuf_printf(&s->evidence, "%s: %d\n", w[k], value[k]);
            else textbuf_printf(&s->evidence, "%s: %s\n", w[k], w[parent[k]]);
        }
}

static int make_ar(DiagnosticSample *s, Rng *r, int pairs, Err *e) {
    Word w[MOST];
    int value[MOST], parent[MOST];
    const int n = pairs_of(pairs);
    (void)e;
    words_make(w, n, r);
    textbuf_puts(&s->prompt, "Given the following key-value pairs:\n");
    for (int i = 0; i < n; i++) {
        parent[i] = -1;
        value[i] = (int)rng_below(r, 10);
        textbuf_printf(&s->prompt, "%s: %d\n", w[i], value[i]);
    }
    ask_sum(s, r, w, value, parent, n, -1, "");
    return OK;
}

/* With probability 0.4 a key's value is an earlier key, no deeper than two; one asked key is always such. */
static int make_ar_mh(DiagnosticSample *s, Rng *r, int pairs, Err *e) {
    Word w[MOST];
    int value[MOST], depth[MOST], parent[MOST], alias = -1;
    const int n = pairs_of(pairs);
    (void)e;
    words_make(w, n, r);
    textbuf_puts(&s->prompt, "Given the following key-value pairs:\n");
    for (int i = 0; i < n; i++) {
        const int from = i ? (int)rng_below(r, (uint64_t)i) : 0;
        const int is_alias = i && depth[from] < 2 && (rng_uniform(r) < 0.4 || (i == n - 1 && alias < 0));
        parent[i] = is_alias ? from : -1;
        depth[i] = is_alias ? depth[from] + 1 : 0;
        value[i] = is_alias ? value[from] : (int)rng_below(r, 10);
        if (is_alias) {
            alias = i;
            textbuf_printf(&s->prompt, "%s: %s\n", w[i], w[from]);
        } else textbuf_printf(&s->prompt, "%s: %d\n", w[i], value[i]);
    }
    ask_sum(s, r, w, value, parent, n, alias, " Only return the final value.");
    return OK;
}

static int make_retrieval(DiagnosticSample *s, Rng *r, int pairs, Err *e) {
    Word w[MOST];
    int value[MOST];
    const int n = pairs_of(pairs);
    (void)e;
    words_make(w, n, r);
    textbuf_puts(&s->prompt, "Memorize the following dictionary:\n");
    for (int i = 0; i < n; i++) {
        value[i] = (int)rng_below(r, 101);
        textbuf_printf(&s->prompt, "%s:%d\n", w[i], value[i]);
    }
    const int asked = (int)rng_below(r, (uint64_t)n);
    textbuf_printf(&s->prompt, "The value of the key '%s' is", w[asked]);
    textbuf_printf(&s->answer, "%d", value[asked]);
    textbuf_printf(&s->evidence, "%s:%d\n", w[asked], value[asked]);
    return OK;
}

static int right_substring(const DiagnosticSample *s, const char *output) {
    return strstr(output, s->answer.text) != NULL;
}

static int right_integer(const DiagnosticSample *s, const char *output) {
    while (*output && !isdigit((unsigned char)*output)) output++;
    return *output && strtol(output, NULL, 10) == strtol(s->answer.text, NULL, 10);
}

/* ---------------------------------------------------------------- VT */

/* X1 = number, X2 = X1, X3 = X2; the same with Y; as many noise lines; all shuffled. */
static int make_vt(DiagnosticSample *s, Rng *r, int pairs, Err *e) {
    enum { LINES = 12 };
    char line[LINES][48];
    int order[LINES];
    const int x = 10000 + (int)rng_below(r, 90000), y = 10000 + (int)rng_below(r, 90000);
    (void)pairs, (void)e;
    for (int c = 0; c < 2; c++)
        for (int k = 0; k < 3; k++) {
            if (k) snprintf(line[3 * c + k], 48, "VAR %c%d = VAR %c%d", c ? 'Y' : 'X', k + 1, c ? 'Y' : 'X', k);
            else
                snprintf(line[3 * c], 48, "VAR %c1 = %d", c ? 'Y' : 'X',
                         c ? y == x ? 10000 + (x - 9999) % 90000 : y : x);
        }
    for (int k = 6; k < LINES; k++) {
        if (k % 2) snprintf(line[k], 48, "...");
        else snprintf(line[k], 48, "VAR %c = %d", (char)('Q' + (k - 6)), (int)rng_below(r, 10000));
    }
    for (int k = 0; k < LINES; k++) order[k] = k;
    rng_shuffle(r, order, LINES);
    for (int k = 0; k < LINES; k++) textbuf_printf(&s->prompt, "%s\n", line[order[k]]);
    textbuf_printf(&s->prompt, "Question: Which variables have the value %d? Answer:", x);
    textbuf_puts(&s->answer, "X1 X2 X3");
    for (int k = 0; k < 3; k++) textbuf_printf(&s->evidence, "%s\n", line[k]);
    return OK;
}

/* X1, X2, X3 all named, and no Y variable. */
static int right_vt(const DiagnosticSample *s, const char *output) {
    (void)s;
    return strstr(output, "X1") && strstr(output, "X2") && strstr(output, "X3") && !strstr(output, "Y1") &&
           !strstr(output, "Y2") && !strstr(output, "Y3");
}

/* ---------------------------------------------------------------- CWE, FWE */

static int list_shuffled(DiagnosticSample *s, Rng *r, Word *w, const int *count, int n, Err *e) {
    int total = 0, k = 0;
    void *mem;
    for (int i = 0; i < n; i++) total += count[i];
    TRY(mem_alloc(&mem, (size_t)total * sizeof(int), "word list", e));
    int *at = mem;
    for (int i = 0; i < n; i++)
        for (int c = 0; c < count[i]; c++) at[k++] = i;
    rng_shuffle(r, at, (size_t)total);
    for (k = 0; k < total; k++) textbuf_printf(&s->prompt, "%s ", w[at[k]]);
    for (int i = 0; i < n; i++) textbuf_printf(&s->words, "%s\n", w[i]);
    mem_free(mem);
    return OK;
}

static int make_cwe(DiagnosticSample *s, Rng *r, int pairs, Err *e) {
    Word w[110];
    int count[110];
    (void)pairs;
    words_make(w, 110, r);
    for (int i = 0; i < 110; i++) count[i] = i < 10 ? 2 : 1;
    textbuf_puts(&s->prompt, "Below is a list of words. Memorize the ones that appear most often.\n");
    TRY(list_shuffled(s, r, w, count, 110, e));
    textbuf_puts(&s->prompt, "\nQuestion: What are the 10 most common words in the list? Answer:");
    for (int i = 0; i < 10; i++) textbuf_printf(&s->answer, "%s ", w[i]), textbuf_printf(&s->evidence, "%s\n", w[i]);
    return OK;
}

/* 400 words, counts proportional to rank^-2 over 100 ranks. The three most frequent differ by tens. */
static int make_fwe(DiagnosticSample *s, Rng *r, int pairs, Err *e) {
    enum { N = 100, ALL = 400 };
    Word w[N];
    int count[N];
    double zeta = 0;
    (void)pairs;
    words_make(w, N, r);
    for (int i = 0; i < N; i++) zeta += 1.0 / ((i + 1.0) * (i + 1));
    for (int i = 0; i < N; i++) {
        count[i] = (int)(ALL / zeta / ((i + 1.0) * (i + 1)) + 0.5);
        if (count[i] < 1) count[i] = 1;
    }
    textbuf_puts(&s->prompt, "Read the following coded text and track the frequency of each word.\n");
    TRY(list_shuffled(s, r, w, count, N, e));
    textbuf_puts(&s->prompt, "\nQuestion: What are the three most frequent words, in order? Answer:");
    for (int i = 0; i < 3; i++) textbuf_printf(&s->answer, "%s ", w[i]), textbuf_printf(&s->evidence, "%s\n", w[i]);
    return OK;
}

/* The first n list words of the output, one after another into dst with a blank behind each;
 * returns how many there were. */
static int listed(const DiagnosticSample *s, const char *output, int n, Word *dst) {
    int found = 0;
    while (*output && found < n) {
        size_t len = 0;
        char line[WORD + 2];
        while (isalpha((unsigned char)output[len])) len++;
        if (len && len < WORD) {
            const int k = snprintf(line, sizeof line, "%.*s\n", (int)len, output);
            for (const char *at = s->words.text; (at = strstr(at, line)); at += k) {
                if (at != s->words.text && at[-1] != '\n') continue;
                snprintf(dst[found++], WORD, "%.*s", (int)len, output);
                break;
            }
        }
        output += len ? len : 1;
    }
    return found;
}

static int right_listed(const DiagnosticSample *s, const char *output, int n, int ordered) {
    Word got[10];
    char want[WORD + 96];
    const char *answer = s->answer.text;
    if (listed(s, output, n, got) < n) return 0;
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++)
            if (!strcmp(got[i], got[k])) return 0;
        snprintf(want, sizeof want, "%s ", got[i]);
        const char *at = strstr(answer, want);
        if (!at || (at != answer && at[-1] != ' ')) return 0;
        if (ordered && at != answer) return 0;
        if (ordered) answer += strlen(want);
    }
    return 1;
}
static int right_cwe(const DiagnosticSample *s, const char *output) { return right_listed(s, output, 10, 0); }
static int right_fwe(const DiagnosticSample *s, const char *output) { return right_listed(s, output, 3, 1); }

/* ---------------------------------------------------------------- phone book */

static int make_phone_book(DiagnosticSample *s, Rng *r, int pairs, Err *e) {
    Word w[60];
    long long number[30];
    const int n = 8 + (int)rng_below(r, 23);
    int order[30];
    (void)pairs, (void)e;
    words_make(w, 2 * n, r);
    for (int i = 0; i < n; i++) {
        order[i] = i;
        number[i] = 1000000000 + (long long)rng_below(r, 9000000000ULL);
        for (int k = 0; k < 2; k++) w[2 * i + k][0] = (char)toupper((unsigned char)w[2 * i + k][0]);
        textbuf_printf(&s->prompt, "%s %s: %lld\n", w[2 * i], w[2 * i + 1], number[i]);
    }
    rng_shuffle(r, order, (size_t)n);
    textbuf_puts(&s->prompt, "\nWhat are the numbers of the following people?\n");
    for (int i = 0; i < 3; i++) {
        textbuf_printf(&s->prompt, "%s %s:", w[2 * order[i]], w[2 * order[i] + 1]);
        if (i < 2) textbuf_printf(&s->prompt, " %lld\n", number[order[i]]);
    }
    textbuf_printf(&s->answer, "%lld", number[order[2]]);
    textbuf_printf(&s->evidence, "%s %s: %lld\n", w[2 * order[2]], w[2 * order[2] + 1], number[order[2]]);
    return OK;
}

static int right_line(const DiagnosticSample *s, const char *output) {
    while (*output == ' ' || *output == '\n') output++;
    size_t len = strcspn(output, "\n");
    while (len && output[len - 1] == ' ') len--;
    return len == s->answer.len && !memcmp(output, s->answer.text, len);
}

/* ---------------------------------------------------------------- the table, and answers */

static const DiagnosticTask KINDS[DIAGNOSTIC_TASKS] = {{"ar", make_ar, right_substring},
                                                       {"ar_mh", make_ar_mh, right_substring},
                                                       {"vt", make_vt, right_vt},
                                                       {"cwe", make_cwe, right_cwe},
                                                       {"fwe", make_fwe, right_fwe},
                                                       {"phone_book", make_phone_book, right_line},
                                                       {"retrieval", make_retrieval, right_integer}};

const DiagnosticTask *diagnostic_at(int i) { return i >= 0 && i < DIAGNOSTIC_TASKS ? &KINDS[i] : NULL; }
const DiagnosticTask *diagnostic_find(const char *name) {
    for (int i = 0; i < DIAGNOSTIC_TASKS; i++)
        if (!strcmp(KINDS[i].name, name)) return &KINDS[i];
    return NULL;
}

void diagnostic_free(DiagnosticSample *s) {
    textbuf_free(&s->prompt);
    textbuf_free(&s->answer);
    textbuf_free(&s->words);
    textbuf_free(&s->evidence);
}

/* How often a line stands in the prompt, not as a part of a longer word or number. */
static int times(const DiagnosticSample *s, const char *line, size_t n) {
    int k = 0;
    const char *begin = s->prompt.text, *end = begin + s->prompt.len;
    for (const char *p = begin; p + n <= end; p++)
        k += !memcmp(p, line, n) && (p == begin || !isalnum((unsigned char)p[-1])) && !isalnum((unsigned char)p[n]);
    return k;
}

static int line_in(const TextBuf *list, const char *line, size_t n) {
    for (const char *p = list->text; *p; p += strcspn(p, "\n") + 1)
        if (strcspn(p, "\n") == n && !memcmp(p, line, n)) return 1;
    return 0;
}

static int answerable(const DiagnosticSample *s) {
    int least = INT_MAX;
    for (const char *p = s->evidence.text; *p; p += strcspn(p, "\n") + 1) {
        const int k = times(s, p, strcspn(p, "\n"));
        if (k < least) least = k;
    }
    for (const char *p = s->words.text; *p && least; p += strcspn(p, "\n") + 1) {
        const size_t n = strcspn(p, "\n");
        if (!line_in(&s->evidence, p, n) && times(s, p, n) >= least) return 0;
    }
    return least > 0;
}

int diagnostic_sample(DiagnosticSample *s, const DiagnosticTask *task, const DiagnosticOptions *o, int i, Err *e) {
    Rng r;
    uint64_t which = 0;
    memset(s, 0, sizeof *s);
    // a task that is not in the table draws its own
    while (which < DIAGNOSTIC_TASKS && strcmp(KINDS[which].name, task->name)) which++;
    rng_seed3(&r, o->seed ^ 0x7461736b, which, (uint64_t)i);
    TRY(task->make(s, &r, o->pairs, e));
    textbuf_puts(&s->words, ""); // so that there is a text
    TRY(textbuf_end(&s->prompt, e));
    TRY(textbuf_end(&s->answer, e));
    TRY(textbuf_end(&s->words, e));
    textbuf_puts(&s->evidence, "");
    TRY(textbuf_end(&s->evidence, e));
    return answerable(s) ? OK
                         : err_set(e, ERR_INPUT, "%s: sample %d cannot be answered from its prompt", task->name, i);
}

/* The greedy continuation of prompt as ids. */
static int answer_ids(Model *m, const Ids *prompt, int new_tokens, Ids *out, Err *e) {
    enum { STEP = 128 };
    const Sampler greedy = {.top_p = 1};
    Decode d;
    Rng rng;
    void *mem;
    const int n = (int)prompt->n;
    int rc = OK;
    rng_seed(&rng, 0);
    TRY(mem_alloc(&mem, (size_t)m->c.VOC * sizeof(float), "logits", e));
    if (!(rc = decode_open(&d, m, 1, n + new_tokens, n < STEP ? n : STEP, e))) {
        rc = decode_extend(&d, prompt->id, n, mem, e);
        for (int i = 0; i < new_tokens && !rc; i++) {
            int id = 0;
            rc = sample(&greedy, &rng, mem, m->c.VOC, &id, e);
            if (rc || config_ends(&m->c, id)) break;
            rc = ids_push(out, id, e);
            if (!rc && i + 1 < new_tokens) rc = decode_extend(&d, &id, 1, mem, e);
        }
        decode_close(&d);
    }
    mem_free(mem);
    return rc;
}

static int diagnostic_answer(const DiagnosticTask *task, const DiagnosticSample *s, Model *m, const Tokenizer *t,
                             int new_tokens, int *right, int64_t *tokens, Err *e) {
    Ids prompt = {0}, out = {0};
    char *text = NULL;
    size_t len = 0;
    int rc = tokenizer_encode(t, s->prompt.text, s->prompt.len, 0, &prompt, e);
    if (!rc) rc = answer_ids(m, &prompt, new_tokens, &out, e);
    if (!rc) rc = tokenizer_decode(t, out.id, out.n, 0, &text, &len, e);
    if (!rc) *right = task->right(s, text);
    if (tokens) *tokens += (int64_t)(prompt.n + out.n);
    mem_free(text);
    ids_free(&prompt);
    ids_free(&out);
    return rc;
}

int diagnostic_accuracy(const DiagnosticTask *task, Model *m, const Tokenizer *t, const DiagnosticOptions *o,
                        double *accuracy, int64_t *tokens, Err *e) {
    int all = 0;
    for (int i = 0; i < o->samples; i++) {
        DiagnosticSample s;
        int right = 0, rc = diagnostic_sample(&s, task, o, i, e);
        if (!rc) rc = diagnostic_answer(task, &s, m, t, o->new_tokens, &right, tokens, e);
        diagnostic_free(&s);
        if (rc) return rc;
        all += right;
    }
    *accuracy = o->samples ? (double)all / o->samples : 0;
    return OK;
}

/* Layer l's output projection and bias as zeros: its mixer says nothing. */
typedef struct {
    Model *m;
    int layer;
} Mute;
static int mute_visit(void *ctx, const ParamInfo *info, Param *slot) {
    const Mute *mute = ctx;
    if (info->layer == mute->layer && strstr(info->name, ".attn.o_proj."))
        mute->m->be->zero(mute->m->be, slot->w, info->n * mute->m->be->real_size);
    return OK;
}

int diagnostic_ablated(const DiagnosticTask *task, Model *teacher, const Tokenizer *t, const DiagnosticOptions *o,
                       int layer, double *accuracy, int64_t *tokens, Err *e) {
    int all[MAX_LAYERS];
    Model m;
    for (int l = 0; l < teacher->c.L; l++) all[l] = 1;
    TRY(hybrid_open(&m, teacher, teacher, all, GRAD_NONE, e));
    Mute mute = {&m, layer};
    params_walk(&m.c, &m.p, mute_visit, &mute);
    const int rc = diagnostic_accuracy(task, &m, t, o, accuracy, tokens, e);
    model_close(&m);
    return rc;
}
