/* selectors.c - the families of selectors. See selectors.h. */
#include "selectors/selectors.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>

/* A new selector: a line here; its function and its row are in a file of its own. */
static const SelectorFamily *const FAMILIES[] = {
    &family_ga_s2,   &family_gr_s2,  &family_avg_s2,   &family_s1,         &family_distance, &family_ablation,
    &family_task,    &family_bypass, &family_swap,     &family_smart,      &family_gates,    &family_trunk_s2,
    &family_uniform, &family_random, &family_explicit, &family_exhaustive,
};
enum { FAMILY_COUNT = (int)(sizeof FAMILIES / sizeof *FAMILIES) };

int selector_count(void) {
    int n = 0;
    for (int i = 0; i < FAMILY_COUNT; i++) n += FAMILIES[i]->n;
    return n;
}

const Selector *selector_at(int i) {
    for (int f = 0; f < FAMILY_COUNT && i >= 0; i -= FAMILIES[f++]->n)
        if (i < FAMILIES[f]->n) return &FAMILIES[f]->variant[i];
    return NULL;
}

/* 1 if text (n bytes) is the name of the variant's rows, FAMILY, or FAMILY:VARIANT. */
static int is_named(const SelectorFamily *f, const Selector *s, const char *text, size_t n) {
    const size_t family = strlen(f->name);
    if (strlen(s->name) == n && !memcmp(s->name, text, n)) return 1;
    if (n < family || memcmp(text, f->name, family)) return 0;
    if (!s->variant) return n == family;
    return n == family + 1 + strlen(s->variant) && text[family] == ':' &&
           !memcmp(text + family + 1, s->variant, n - family - 1);
}

static const Selector *find(const char *text, size_t n) {
    for (int f = 0; f < FAMILY_COUNT; f++)
        for (int i = 0; i < FAMILIES[f]->n; i++)
            if (is_named(FAMILIES[f], &FAMILIES[f]->variant[i], text, n)) return &FAMILIES[f]->variant[i];
    return NULL;
}

const Selector *selector_find(const char *name) { return find(name, strlen(name)); }

void selector_names(char *list) {
    char *to = list;
    for (const char *s = list; *s;) {
        const size_t n = strcspn(s, ",");
        const Selector *found = find(s, n);
        // no name of rows is longer than FAMILY:VARIANT (tests/test_select.c), so the text never grows
        const char *name = found && strlen(found->name) <= n ? found->name : s;
        const size_t length = name == s ? n : strlen(name);
        memmove(to, name, length);
        to += length;
        s += n;
        if (*s) *to++ = *s++;
    }
    *to = 0;
}

void selector_families(char *dst, size_t cap) {
    size_t at = 0;
    for (int f = 0; f < FAMILY_COUNT && at < cap; f++) {
        const SelectorFamily *family = FAMILIES[f];
        const int plain = !family->variant[0].variant;
        at += (size_t)snprintf(dst + at, cap - at, "%s%s", f ? ", " : "", family->name);
        for (int i = plain; i < family->n && at < cap; i++)
            at += (size_t)snprintf(dst + at, cap - at, "%s%s%s",
                                   i > plain ? "|"
                                   : plain   ? "[:"
                                             : ":",
                                   family->variant[i].variant, plain && i == family->n - 1 ? "]" : "");
    }
}

int selector_scales(const char *name) { return !(selector_find(name)->needs & ONE_K); }

static int select_check(const Selector *s, const SelectInput *in, Err *e) {
    if (in->K < 0 || in->K > in->L)
        return err_set(e, ERR_USAGE, "%s: got %d softmax layers, expected 0 to %d", s->name, in->K, in->L);
    if (s->needs & NEEDS_SCORES && !in->score) return err_set(e, ERR_USAGE, "%s: needs layer scores", s->name);
    if (in->rows) return OK;
    if (s->needs & NEEDS_RECALL && (!in->recall || !in->teacher)) {
        err_set(e, ERR_USAGE, "%s: needs the teacher and a recall probe", s->name);
        return err_hint(e, "set recall_keys");
    }
    if (s->needs & NEEDS_STUDENT && (!in->teacher || !in->stage1_student || !in->heldout))
        return err_set(e, ERR_USAGE, "%s: needs the teacher, the stage-1 student and held-out text", s->name);
    if (s->needs & NEEDS_TASKS && (!in->teacher || !in->tokenizer))
        return err_set(e, ERR_USAGE, "%s: needs the teacher and its tokenizer", s->name);
    if (s->needs & NEEDS_TRAINING && (!in->scoring || !in->memo))
        return err_set(e, ERR_USAGE, "%s: needs training text and the options of scoring runs", s->name);
    return OK;
}

int selector_score(const Selector *s, const SelectInput *in, LayerScore *rows, Err *e) {
    SelectInput fresh = *in;
    fresh.rows = NULL;
    TRY(select_check(s, &fresh, e));
    return s->score ? s->score(s, &fresh, rows, e) : err_set(e, ERR_USAGE, "%s: does not score layers", s->name);
}

int select_layers(const Selector *s, const SelectInput *in, int *keep, Err *e) {
    SelectInput full = *in;
    void *mem = NULL;
    TRY(select_check(s, in, e));
    for (int l = 0; l < in->L; l++) keep[l] = 0;
    if (s->score && !in->rows) {
        TRY(mem_alloc(&mem, (size_t)in->L * sizeof(LayerScore), "layer scores", e));
        full.rows = mem;
        const int rc = s->score(s, in, mem, e);
        if (rc) return mem_free(mem), rc;
    }
    const int rc = s->choose(&full, keep, e);
    mem_free(mem);
    return rc;
}
