#include "text/vocab.h"
#include <string.h>
#include "base/hash.h"
#include "base/mem.h"

static uint64_t mix(uint64_t x) { // finaliser of splitmix64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static size_t vocab_slot(const Vocab *v, const char *s, size_t n) {
    // the seed is an address: a file cannot be made to collide on purpose
    size_t i = hash_bytes((uintptr_t)v->slot, s, n) & (v->slots - 1);
    for (; v->slot[i]; i = (i + 1) & (v->slots - 1)) {
        const VocabEntry *entry = &v->entry[v->slot[i] - 1];
        if (entry->len == n && !memcmp(v->text.text + entry->at, s, n)) break;
    }
    return i;
}

VocabEntry *vocab_find(const Vocab *v, const char *s, size_t n) {
    if (!v->n) return NULL;
    const uint32_t slot = v->slot[vocab_slot(v, s, n)];
    return slot ? &v->entry[slot - 1] : NULL;
}

int vocab_find_model(const Vocab *v, const char *s, size_t n) {
    const VocabEntry *entry = vocab_find(v, s, n);
    return entry && entry->in_model ? entry->id : -1;
}

/* Room for one more: entries grow by half, the table is made anew when it gets more than half full. */
static int vocab_reserve(Vocab *v, Err *e) {
    if (v->n == v->cap) {
        const size_t cap = v->cap + v->cap / 2 + 256;
        TRY(mem_grow((void **)&v->entry, v->cap * sizeof *v->entry, cap * sizeof *v->entry, "vocabulary", e));
        v->cap = cap;
    }
    if ((v->n + 1) * 2 <= v->slots) return OK;
    const size_t slots = v->slots ? v->slots * 2 : 1024;
    void *slot = NULL;
    TRY(mem_alloc(&slot, slots * sizeof *v->slot, "vocabulary", e));
    mem_free(v->slot);
    v->slot = slot;
    v->slots = slots;
    for (size_t i = 0; i < v->n; i++)
        v->slot[vocab_slot(v, v->text.text + v->entry[i].at, v->entry[i].len)] = (uint32_t)i + 1;
    return OK;
}

int vocab_add(Vocab *v, const char *s, size_t n, int id, int in_model, Err *e) {
    TRY(vocab_reserve(v, e));
    const size_t at = v->text.len;
    textbuf_put(&v->text, s, n);
    textbuf_put(&v->text, "", 1); // tokens are NUL-terminated, too
    TRY(textbuf_end(&v->text, e));
    const size_t i = vocab_slot(v, s, n);
    v->entry[v->n] = (VocabEntry){.at = at, .len = n, .id = id, .in_model = (short)in_model};
    v->slot[i] = (uint32_t)++v->n;
    if (id >= v->size) v->size = id + 1;
    return OK;
}

int vocab_index(Vocab *v, const char *file, Err *e) {
    mem_free(v->by_id);
    v->by_id = NULL;
    TRY(mem_alloc((void **)&v->by_id, (size_t)v->size * sizeof *v->by_id, "vocabulary", e));
    for (size_t i = 0; i < v->n; i++) {
        const VocabEntry *entry = &v->entry[i];
        const uint32_t was = v->by_id[entry->id];
        if (was) {
            const VocabEntry *o = &v->entry[was - 1];
            return err_set(e, ERR_INPUT, "%s: id %d belongs to two tokens, '%.*s' and '%.*s'", file, entry->id,
                           (int)(o->len < 60 ? o->len : 60), v->text.text + o->at,
                           (int)(entry->len < 60 ? entry->len : 60), v->text.text + entry->at);
        }
        v->by_id[entry->id] = (uint32_t)i + 1;
    }
    return OK;
}

const VocabEntry *vocab_by_id(const Vocab *v, int id) {
    if (id < 0 || id >= v->size || !v->by_id[id]) return NULL;
    return &v->entry[v->by_id[id] - 1];
}

void vocab_free(Vocab *v) {
    textbuf_free(&v->text);
    mem_free(v->entry);
    mem_free(v->slot);
    mem_free(v->by_id);
    *v = (Vocab){0};
}

/* ---- merges ---- */

static Merge *merge_slot(const Merges *m, int left, int right) {
    const uint64_t pair = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1;
    size_t i = mix(pair) & (m->slots - 1);
    while (m->slot[i].pair && m->slot[i].pair != pair) i = (i + 1) & (m->slots - 1);
    return &m->slot[i];
}

int merges_reserve(Merges *m, size_t n, Err *e) {
    size_t slots = 2;
    while (slots < 2 * n) slots *= 2;
    void *slot = NULL;
    TRY(mem_alloc(&slot, slots * sizeof *m->slot, "merges", e));
    *m = (Merges){.slot = slot, .slots = slots};
    return OK;
}

void merges_add(Merges *m, int left, int right, uint32_t rank, int id) {
    Merge *merge = merge_slot(m, left, right);
    if (!merge->pair) m->n++;
    *merge = (Merge){((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1, rank, id};
}

const Merge *merges_find(const Merges *m, int left, int right) {
    const Merge *merge = merge_slot(m, left, right);
    return merge->pair ? merge : NULL;
}

void merges_free(Merges *m) {
    mem_free(m->slot);
    *m = (Merges){0};
}
