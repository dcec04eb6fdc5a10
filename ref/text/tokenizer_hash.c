/* tokenizer_hash.c - one number for all that decides about ids: vocabulary, merges, added tokens, steps. Not
 * the decoder. It goes into shards, so it must not change (FNV-1a over a fixed order). */
#include "text/tokenizer_load.h"
#include "text/dataset.h"

static void hash_more(uint64_t *h, const void *data, size_t n) { // FNV-1a
    for (size_t i = 0; i < n; i++) *h = (*h ^ ((const unsigned char *)data)[i]) * 0x100000001B3u;
}

static void hash_int(uint64_t *h, int64_t x) {
    unsigned char b[8];
    for (int i = 0; i < 8; i++) b[i] = (unsigned char)((uint64_t)x >> (8 * i));
    hash_more(h, b, 8);
}

static void hash_literal(uint64_t *h, const Literal *s) {
    hash_int(h, (int64_t)s->n);
    hash_more(h, s->s, s->n);
}

uint64_t rules_hash(const Tokenizer *t) {
    uint64_t h = 0xCBF29CE484222325u, merges = 0;
    for (int id = 0; id < t->vocab.size; id++) {
        const VocabEntry *entry = vocab_by_id(&t->vocab, id);
        if (!entry) continue;
        const int64_t head[] = {id, (int64_t)entry->len, entry->in_model};
        for (int i = 0; i < 3; i++) hash_int(&h, head[i]);
        hash_more(&h, t->vocab.text.text + entry->at, entry->len);
    }
    for (size_t i = 0; i < t->merges.slots; i++) { // the table has no fixed order: a sum has none either
        const Merge *m = &t->merges.slot[i];
        uint64_t g = 0xCBF29CE484222325u;
        if (!m->pair) continue;
        hash_int(&g, (int64_t)m->pair);
        hash_int(&g, m->rank);
        merges += g;
    }
    hash_int(&h, (int64_t)merges);
    for (size_t i = 0; i < t->n_added; i++) {
        const AddedToken *a = &t->added[i];
        const int flags = a->special | a->normalized << 1 | a->single_word << 2 | a->lstrip << 3 | a->rstrip << 4;
        hash_int(&h, (int64_t)a->id << 8 | flags);
    }
    for (int i = 0; i < t->n_norm; i++) {
        hash_int(&h, (int64_t)t->norm[i].kind);
        hash_literal(&h, &t->norm[i].from);
        hash_literal(&h, &t->norm[i].to);
    }
    for (int i = 0; i < t->n_pre; i++)
        hash_int(&h, (int64_t)t->pre[i].kind << 16 | (int64_t)t->pre[i].split << 8 | (int64_t)t->pre[i].prepend);
    const int flags = t->byte_level | t->byte_fallback << 1 | t->fuse_unk << 2 | t->ignore_merges << 3;
    hash_int(&h, (int64_t)t->unk * 256 + flags);
    for (size_t i = 0; i < t->prefix.n; i++) hash_int(&h, t->prefix.id[i]);
    hash_int(&h, -1);
    for (size_t i = 0; i < t->suffix.n; i++) hash_int(&h, t->suffix.id[i]);
    return h;
}

uint64_t tokenizer_hash(const Tokenizer *t) { return t->hash; }
