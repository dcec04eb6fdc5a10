/* dataset.h - text -> token shards on disk -> batches. Order is a pure function of (seed, step): nothing to
 * save, nothing to lose.
 *
 * A shard is a file: 8-byte magic "HYBTOK1\n", u32 version, u32 bytes per token (2 or 4), u64 tokens, u64
 * documents, u32 vocabulary size, u32 CRC-32C of the payload, u64 tokenizer hash, then documents x u64 (end
 * offset of each document, in tokens, strictly increasing, last == tokens), then the tokens. Little endian.
 * Version 2, written where a record had a prompt, has between the two documents x u64: where in the shard each
 * document's completion begins, from the document's first token (all of it is one) to its end (none is).
 * Memory-mapped for reading; every field and every document end is validated at opening, ids are checked
 * against the vocabulary. */
#ifndef HYB_DATASET_H
#define HYB_DATASET_H
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/file.h"
#include "base/ranks.h"
#include "text/tokenizer.h"

/* ---- making shards ---- */
typedef struct {
    int add_eos;       /* id appended after every document, -1 = none (official: none) */
    const char *field; /* member of JSON lines that holds the text; NULL or "" = "text" */
    const char *split; /* separator between documents in plain text, NULL or "" = a file is one document */
    size_t max_tokens; /* stop after so many tokens, cutting the last document; 0 = all */
    /* called about once a MiB; may be NULL */
    void (*progress)(void *ctx, size_t bytes_done, size_t bytes_total, size_t tokens);
    void *ctx;
} ShardOptions;
/* input: what corpus.h takes. Empty documents are left out. Special tokens written in the text become those tokens; the
 * tokenizer's BOS/EOS are not added. The input is read twice (bytes_total is twice its size), so that memory is bounded
 * by the largest document + 8 bytes a document. Writes out atomically. Stats may be NULL. */
typedef struct {
    uint64_t tokens, documents, bytes, files;
    uint64_t prompts;  /* documents of which the first part is a prompt */
    uint64_t replaced; /* bytes that are not UTF-8 */
    uint64_t doubled;  /* documents that ended with add_eos already: now they have it twice */
    char note[640];    /* about both, for shard_stats_text */
} ShardStats;
/* "FILE: 3 documents, 1000 tokens, 4321 bytes" */
void shard_stats_text(const ShardStats *s, const char *input, char *out, size_t cap);
/* *given = 1 if the text is a token shard already, to be used as it is. ERR_USAGE where o, but for add_eos, asks for
 * what comes too late then. */
int shard_given(const char *text, const ShardOptions *o, int *given, Err *e);
int shard_write(const char *out, const char *input, const Tokenizer *t, const ShardOptions *o, ShardStats *stats,
                Err *e);
/* The same from ids in memory (tests, synthetic data): doc_end has n_docs entries, increasing, the last == n.
 * ERR_INPUT if not, or if an id is not in [0, vocab). */
int shard_write_ids(const char *out, const int *ids, size_t n, const uint64_t *doc_end, size_t n_docs, int vocab,
                    uint64_t tok_hash, Err *e);
/* The same of documents with prompts: begin (n_docs) as in the file, ERR_INPUT where one is outside of its document. */
int shard_write_prompts(const char *out, const int *ids, size_t n, const uint64_t *doc_end, const uint64_t *begin,
                        size_t n_docs, int vocab, uint64_t tok_hash, Err *e);
/* Of vocabulary and rules: two tokenizers with one hash give the same ids. */
uint64_t tokenizer_hash(const Tokenizer *t);

/* ---- reading ---- */
typedef struct {
    File file;
    char path[1024];
    uint64_t tokens, documents, tok_hash;
    int vocab, width;            /* bytes per token */
    const unsigned char *ends;   /* unaligned u64 LE */
    const unsigned char *begins; /* the same, of completions; NULL in version 1 */
    const unsigned char *ids;
} Shard;
int shard_open(Shard *s, const char *path, Err *e); /* checks magic, sizes, CRC, ends, ids < vocab */
void shard_close(Shard *s);

typedef struct {
    Shard *shard;
    int n_shards;
    uint64_t tokens; /* of all shards */
    int completions; /* 1: the targets of a batch that belong to a prompt are -1 */
    void *sent;      /* a shard that another rank sent */
    /* windows of T (+1) tokens are cut from the concatenated stream; the last partial one is dropped */
} Dataset;
/* All shards must agree on vocab and tok_hash. */
int dataset_open(Dataset *d, const char *const *paths, int n, Err *e);
/* Rank 0's shard, for all ranks: read from the same path where it is seen there, else sent. */
int dataset_open_ranks(Dataset *d, const char *path, Ranks *r, Err *e);
/* From now on only completions are targets. Documents without a prompt are completions as a whole. ERR_INPUT where no
 * document has a prompt, or none a completion. */
int dataset_completions(Dataset *d, Err *e);
void dataset_close(Dataset *d);
/* ids[0..n) of the concatenated stream from token `at`, at + n <= tokens (what lies behind the end is left as
 * it was); start[i] (may be NULL) = index within [0,n) of the first token of the document that token i
 * belongs to, clipped to 0: what ops take as `start`. */
void dataset_read(const Dataset *d, uint64_t at, size_t n, int *ids, int *start);
/* Training batch number `step` for `seed`: B windows of T+1 tokens; ids (B,T), target (B,T) = next token,
 * start (B,T) or NULL. Windows of one epoch are a permutation of all floor((tokens-1)/T) windows, drawn by
 * (seed, epoch) with a bijection that needs no table (a Feistel network); window w is tokens [wT, wT+T].
 * Batches run through epoch after epoch: row b of batch `step` is number step * B + b. A pure function of its
 * arguments; the dataset must hold a window. Only windows with index in [first, first+count) of the stream
 * are used (count 0 = all): the held-out split. */
typedef struct {
    uint64_t first, count;
} Split;
uint64_t dataset_windows(const Dataset *d, int T);
void dataset_batch(const Dataset *d, const Split *s, uint64_t seed, uint64_t step, int B, int T, int *ids, int *target,
                   int *start);

#endif
