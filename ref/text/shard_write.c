/* shard_write.c - text -> token shard. The header stands first and needs counts and checksum, so the input is
 * tokenised twice: once to count, once to write. Memory: one document, and 8 bytes for each document. */
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "base/what_is.h"
#include "text/corpus.h"
#include "text/dataset.h"
#include "text/shard_parts.h"

int shard_given(const char *text, const ShardOptions *o, int *given, Err *e) {
    *given = what_is_file(text) == IS_SHARD;
    if (!*given || !((o->split && o->split[0]) || (o->field && o->field[0]) || o->max_tokens)) return OK;
    return err_set(e, ERR_USAGE, "%s: is a token shard: document_separator, text_field, max_tokens come too late",
                   text);
}

/* ---- one pass over all documents ---- */

typedef int Sink(void *ctx, const Ids *ids, size_t prompt, Err *e); // prompt: tokens of ids in front
typedef struct {
    Corpus *docs;
    const Tokenizer *t;
    const ShardOptions *o;
    Ids ids;
    uint64_t tokens, doubled, prompts;
    size_t done_before, shown; /* of the progress */
} Pass;

static void pass_show(Pass *p, int last) {
    const size_t done = p->done_before + p->docs->done + p->docs->at;
    if (!p->o->progress || (!last && done - p->shown < 1 << 20)) return;
    p->shown = done;
    p->o->progress(p->o->ctx, done, 2 * p->docs->bytes, (size_t)p->tokens);
}

/* A prompt is encoded by itself, as it will be when the model is asked to go on from it. */
static int pass_encode(Pass *p, const char *s, size_t n, size_t *prompt, Err *e) {
    const size_t head = p->docs->prompt;
    p->ids.n = 0;
    if (head) TRY(tokenizer_encode(p->t, s, head, 0, &p->ids, e));
    *prompt = p->ids.n;
    if (n > head) TRY(tokenizer_encode(p->t, s + head, n - head, 0, &p->ids, e));
    p->doubled += p->o->add_eos >= 0 && p->ids.n && p->ids.id[p->ids.n - 1] == p->o->add_eos;
    return p->o->add_eos >= 0 ? ids_push(&p->ids, p->o->add_eos, e) : OK;
}

static int pass_run(Pass *p, Sink *sink, void *ctx, Err *e) {
    const size_t most = p->o->max_tokens;
    for (const char *s = ""; !most || p->tokens < most;) {
        size_t n, prompt;
        TRY(corpus_next(p->docs, &s, &n, e));
        if (!s) break;
        TRY(pass_encode(p, s, n, &prompt, e));
        if (most && p->ids.n > most - p->tokens) p->ids.n = (size_t)(most - p->tokens);
        if (!p->ids.n) continue; // nothing but characters that the vocabulary drops
        p->tokens += p->ids.n;
        p->prompts += prompt > 0;
        TRY(sink(ctx, &p->ids, prompt < p->ids.n ? prompt : p->ids.n, e));
        pass_show(p, 0);
    }
    pass_show(p, 1);
    return OK;
}

/* Opens the input anew, so that a file that was cut short between the two passes is not read behind its end. */
static int pass(const char *input, const Tokenizer *t, const ShardOptions *o, int second, Sink *sink, void *ctx,
                ShardStats *stats, Err *e) {
    Corpus docs;
    TRY(corpus_open(&docs, input, &(CorpusForm){o->field, o->split}, e));
    Pass p = {.t = t, .o = o, .docs = &docs, .done_before = second ? docs.bytes : 0};
    p.shown = p.done_before;
    int rc = pass_run(&p, sink, ctx, e);
    if (!rc && !second) rc = corpus_check(&docs, e);
    *stats = (ShardStats){
        .bytes = docs.done + docs.at, .files = docs.n_files, .replaced = docs.replaced, .doubled = p.doubled};
    stats->prompts = p.prompts;
    corpus_replaced(&docs, stats->note, sizeof stats->note);
    const size_t used = strlen(stats->note);
    if (p.doubled)
        snprintf(stats->note + used, sizeof stats->note - used,
                 ", %llu of the documents ended with the end of text already and have it twice (add_eos)",
                 (unsigned long long)p.doubled);
    ids_free(&p.ids);
    corpus_close(&docs);
    return rc;
}

/* ---- the file ---- */

typedef struct {
    int width, vocab;
    uint64_t *end;   /* of each document */
    uint64_t *begin; /* of each document's completion */
    size_t n, cap;
    int prompts; /* 1: begin is written */
    uint64_t tokens;
    uint32_t crc;  /* of the tokens */
    uint32_t want; /* of the whole file */
    FileWriter w;
} Out;

/* Little-endian bytes of ids, in blocks; `to` takes them. */
static int ids_bytes(const int *ids, size_t n, int width, int (*to)(Out *, const unsigned char *, size_t, Err *),
                     Out *out, Err *e) {
    unsigned char block[4096];
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        le_put(block + k, width, (uint64_t)ids[i]);
        k += (size_t)width;
        if (k < sizeof block && i + 1 < n) continue;
        TRY(to(out, block, k, e));
        k = 0;
    }
    return OK;
}

static int to_crc(Out *out, const unsigned char *b, size_t n, Err *e) {
    (void)e;
    out->crc = file_crc32c(out->crc, b, n);
    return OK;
}

static int to_file(Out *out, const unsigned char *b, size_t n, Err *e) { return file_write(&out->w, b, n, e); }

static int out_count(void *ctx, const Ids *ids, size_t prompt, Err *e) {
    Out *out = ctx;
    if (out->n == out->cap) {
        const size_t cap = out->cap * 2 + 1024;
        TRY(mem_grow((void **)&out->end, out->cap * 8, cap * 8, "document ends", e));
        TRY(mem_grow((void **)&out->begin, out->cap * 8, cap * 8, "ends of prompts", e));
        out->cap = cap;
    }
    out->prompts |= prompt > 0;
    out->begin[out->n] = out->tokens + prompt;
    out->tokens += ids->n;
    out->end[out->n++] = out->tokens;
    return ids_bytes(ids->id, ids->n, out->width, to_crc, out, e);
}

static int out_write(void *ctx, const Ids *ids, size_t prompt, Err *e) {
    (void)prompt;
    Out *out = ctx;
    return ids_bytes(ids->id, ids->n, out->width, to_file, out, e);
}

/* CRC of a || b from those of a and b: the CRC is affine in its start value, so a's part is a || zeros
 * without the zeros alone. */
static uint32_t crc_join(uint32_t a, uint32_t b, uint64_t len_b) {
    static const unsigned char zero[4096];
    uint32_t with = a, alone = 0;
    for (uint64_t k; len_b; len_b -= k) {
        k = len_b < sizeof zero ? len_b : sizeof zero;
        with = file_crc32c(with, zero, (size_t)k);
        alone = file_crc32c(alone, zero, (size_t)k);
    }
    return with ^ alone ^ b;
}

static uint32_t table_crc(uint32_t crc, const uint64_t *table, size_t n) {
    unsigned char b[8];
    for (size_t i = 0; i < n; i++) {
        le_put(b, 8, table[i]);
        crc = file_crc32c(crc, b, 8);
    }
    return crc;
}

static int table_write(Out *out, const uint64_t *table, Err *e) {
    unsigned char b[8];
    for (size_t i = 0; i < out->n; i++) {
        le_put(b, 8, table[i]);
        TRY(file_write(&out->w, b, 8, e));
    }
    return OK;
}

/* Creates the file and writes all that stands before the tokens. */
static int out_begin(Out *out, const char *path, uint64_t hash, Err *e) {
    unsigned char head[SHARD_HEAD];
    uint32_t crc = table_crc(0, out->end, out->n);
    if (out->prompts) crc = table_crc(crc, out->begin, out->n);
    memcpy(head, SHARD_MAGIC, 8);
    le_put(head + AT_VERSION, 4, out->prompts ? SHARD_PROMPTS : SHARD_VERSION);
    le_put(head + AT_WIDTH, 4, (uint64_t)out->width);
    le_put(head + AT_TOKENS, 8, out->tokens);
    le_put(head + AT_DOCUMENTS, 8, out->n);
    le_put(head + AT_VOCAB, 4, (uint64_t)out->vocab);
    crc = crc_join(crc, out->crc, out->tokens * (uint64_t)out->width);
    le_put(head + AT_CRC, 4, crc);
    le_put(head + AT_HASH, 8, hash);
    out->want = crc_join(file_crc32c(0, head, sizeof head), crc,
                         (out->prompts ? 16 : 8) * out->n + out->tokens * (uint64_t)out->width);
    TRY(file_create(&out->w, path, e));
    TRY(file_write(&out->w, head, sizeof head, e));
    TRY(table_write(out, out->end, e));
    return out->prompts ? table_write(out, out->begin, e) : OK;
}

static int write_text(Out *out, const char *path, const char *input, const Tokenizer *t, const ShardOptions *o,
                      ShardStats *stats, Err *e) {
    TRY(pass(input, t, o, 0, out_count, out, stats, e));
    if (!out->n) return err_set(e, ERR_INPUT, "%s: holds no text", input);
    TRY(out_begin(out, path, tokenizer_hash(t), e));
    TRY(pass(input, t, o, 1, out_write, out, stats, e));
    if (out->w.crc != out->want) return err_set(e, ERR_IO, "%s: changed while it was read", input);
    stats->tokens = out->tokens;
    stats->documents = out->n;
    return file_commit(&out->w, e);
}

void shard_stats_text(const ShardStats *s, const char *input, char *out, size_t cap) {
    char prompts[64] = "";
    if (s->prompts) snprintf(prompts, sizeof prompts, " (%llu with a prompt)", (unsigned long long)s->prompts);
    snprintf(out, cap, "%s: %llu document%s%s, %llu tokens, %llu bytes%s", input, (unsigned long long)s->documents,
             s->documents == 1 ? "" : "s", prompts, (unsigned long long)s->tokens, (unsigned long long)s->bytes,
             s->note);
}

int shard_write(const char *path, const char *input, const Tokenizer *t, const ShardOptions *o, ShardStats *stats,
                Err *e) {
    const int vocab = tokenizer_size(t);
    if (stats) *stats = (ShardStats){0};
    if (o->add_eos >= vocab)
        return err_set(e, ERR_USAGE, "end-of-text id %d: the vocabulary ends at %d", o->add_eos, vocab - 1);
    ShardStats s = {0};
    Out out = {.vocab = vocab, .width = shard_width(vocab)};
    const int rc = write_text(&out, path, input, t, o, &s, e);
    if (rc) file_abort(&out.w);
    else if (stats) *stats = s;
    mem_free(out.end);
    mem_free(out.begin);
    return rc;
}

static int check_ids(const int *ids, size_t n, const uint64_t *doc_end, size_t n_docs, int vocab, Err *e) {
    if (vocab < 1 || vocab > 1 << 24) return err_set(e, ERR_INPUT, "vocabulary of %d, expected 1 to 2^24", vocab);
    if (!n || !n_docs || doc_end[n_docs - 1] != n)
        return err_set(e, ERR_INPUT, "documents do not end where the %zu ids end", n);
    for (size_t i = 0; i < n_docs; i++)
        if (doc_end[i] <= (i ? doc_end[i - 1] : 0))
            return err_set(e, ERR_INPUT, "document %zu is empty or ends before it begins", i);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return err_set(e, ERR_INPUT, "id %zu is %d, expected one in [0, %d)", i, ids[i], vocab);
    return OK;
}

int shard_write_ids(const char *path, const int *ids, size_t n, const uint64_t *doc_end, size_t n_docs, int vocab,
                    uint64_t tok_hash, Err *e) {
    return shard_write_prompts(path, ids, n, doc_end, NULL, n_docs, vocab, tok_hash, e);
}

int shard_write_prompts(const char *path, const int *ids, size_t n, const uint64_t *doc_end, const uint64_t *begin,
                        size_t n_docs, int vocab, uint64_t tok_hash, Err *e) {
    Out out = {.vocab = vocab, .width = shard_width(vocab), .n = n_docs, .tokens = n, .prompts = begin != NULL};
    size_t bytes;
    TRY(check_ids(ids, n, doc_end, n_docs, vocab, e));
    for (size_t i = 0; i < n_docs && begin; i++)
        if (begin[i] < (i ? doc_end[i - 1] : 0) || begin[i] > doc_end[i])
            return err_set(e, ERR_INPUT, "document %zu: its completion begins outside of it", i);
    TRY(mem_mul(&bytes, n_docs, 16, "document ends", e));
    TRY(mem_alloc((void **)&out.end, bytes, "document ends", e));
    out.begin = out.end + n_docs;
    memcpy(out.end, doc_end, bytes / 2);
    if (begin) memcpy(out.begin, begin, bytes / 2);
    int rc = ids_bytes(ids, n, out.width, to_crc, &out, e);
    if (!rc) rc = out_begin(&out, path, tok_hash, e);
    if (!rc) rc = ids_bytes(ids, n, out.width, to_file, &out, e);
    if (!rc) rc = file_commit(&out.w, e);
    if (rc) file_abort(&out.w);
    mem_free(out.end);
    return rc;
}
