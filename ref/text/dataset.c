/* dataset.c - token shards -> batches. */
#include "text/dataset.h"
#include <string.h>
#include "base/mem.h"
#include "base/rng.h"
#include "base/what_is.h"
#include "text/shard_parts.h"

/* ---- a shard ---- */

static uint64_t end_of(const Shard *s, uint64_t doc) { return le_get(s->ends + 8 * doc, 8); }

static uint64_t begin_of(const Shard *s, uint64_t doc) { return le_get(s->begins + 8 * doc, 8); }

static int id_at(const Shard *s, uint64_t i) { return (int)le_get(s->ids + i * (uint64_t)s->width, s->width); }

/* Sizes first, so that nothing behind them can be read outside of the file. */
static int check_sizes(Shard *s, Err *e) {
    const unsigned char *h = s->file.data;
    const uint64_t size = s->file.size;
    if (size < SHARD_HEAD || memcmp(h, SHARD_MAGIC, 8))
        return size >= SHARD_HEAD || what_is(h, size) != IS_SHARD
                   ? what_is_refuse(what_is(h, size), s->path, "a token shard", e)
                   : err_set(e, ERR_INPUT, "%s: is a token shard that is cut short", s->path);
    const uint64_t version = le_get(h + AT_VERSION, 4), width = le_get(h + AT_WIDTH, 4),
                   vocab = le_get(h + AT_VOCAB, 4);
    s->tokens = le_get(h + AT_TOKENS, 8);
    s->documents = le_get(h + AT_DOCUMENTS, 8);
    s->tok_hash = le_get(h + AT_HASH, 8);
    if (version != SHARD_VERSION && version != SHARD_PROMPTS)
        return err_set(e, ERR_INPUT, "%s: version %d, expected %d or %d", s->path, (int)version, SHARD_VERSION,
                       SHARD_PROMPTS);
    if (width != 2 && width != 4)
        return err_set(e, ERR_INPUT, "%s: %u bytes a token, expected 2 or 4", s->path, (unsigned)width);
    if (vocab < 1 || vocab > 1u << 24)
        return err_set(e, ERR_INPUT, "%s: vocabulary of %u, expected 1 to 2^24", s->path, (unsigned)vocab);
    s->vocab = (int)vocab;
    s->width = (int)width;
    const uint64_t tables = version == SHARD_PROMPTS ? 2 : 1;
    if (s->documents > size / 8 || s->tokens > size / width ||
        SHARD_HEAD + 8 * tables * s->documents + width * s->tokens != size)
        return err_set(e, ERR_INPUT,
                       "%s: %llu bytes do not hold %llu documents and %llu tokens of %d bytes: it is cut "
                       "short or damaged",
                       s->path, (unsigned long long)size, (unsigned long long)s->documents,
                       (unsigned long long)s->tokens, s->width);
    if (!s->tokens || !s->documents) return err_set(e, ERR_INPUT, "%s: holds no tokens", s->path);
    s->ends = h + SHARD_HEAD;
    s->begins = tables > 1 ? s->ends + 8 * s->documents : NULL;
    s->ids = s->ends + 8 * tables * s->documents;
    return OK;
}

static int check_content(const Shard *s, Err *e) {
    const uint32_t want = (uint32_t)le_get(s->file.data + AT_CRC, 4),
                   crc = file_crc32c(0, s->ends, s->file.size - SHARD_HEAD);
    if (crc != want)
        return err_set(e, ERR_INPUT, "%s: checksum %08x, expected %08x: the file is damaged", s->path, crc, want);
    for (uint64_t i = 0, last = 0; i < s->documents; last = end_of(s, i++))
        if (end_of(s, i) <= last)
            return err_set(e, ERR_INPUT, "%s: document %llu ends before it begins", s->path, (unsigned long long)i);
    for (uint64_t i = 0; i < s->documents && s->begins; i++)
        if (begin_of(s, i) < (i ? end_of(s, i - 1) : 0) || begin_of(s, i) > end_of(s, i))
            return err_set(e, ERR_INPUT, "%s: document %llu: its completion begins outside of it", s->path,
                           (unsigned long long)i);
    if (end_of(s, s->documents - 1) != s->tokens)
        return err_set(e, ERR_INPUT, "%s: the last document ends at %llu, the tokens at %llu", s->path,
                       (unsigned long long)end_of(s, s->documents - 1), (unsigned long long)s->tokens);
    for (uint64_t i = 0; i < s->tokens; i++)
        if (le_get(s->ids + i * (uint64_t)s->width, s->width) >= (uint64_t)s->vocab)
            return err_set(e, ERR_INPUT, "%s: token %llu is outside of the vocabulary of %d", s->path,
                           (unsigned long long)i, s->vocab);
    return OK;
}

/* f NULL: the file at path, else its bytes. */
static int shard_begin(Shard *s, const char *path, const File *f, Err *e) {
    *s = (Shard){0};
    if (strlen(path) >= sizeof s->path) return err_set(e, ERR_INPUT, "%.80s...: the path is too long", path);
    memcpy(s->path, path, strlen(path) + 1);
    int rc = f ? OK : file_open(&s->file, path, e);
    if (f) s->file = *f;
    if (!rc) rc = check_sizes(s, e);
    if (!rc) rc = check_content(s, e);
    if (rc) shard_close(s);
    return rc;
}

int shard_open(Shard *s, const char *path, Err *e) { return shard_begin(s, path, NULL, e); }

void shard_close(Shard *s) {
    file_close(&s->file);
    *s = (Shard){0};
}

/* ---- shards as one stream ---- */

static int check_agree(const Shard *a, const Shard *b, Err *e) {
    if (a->vocab == b->vocab && a->tok_hash == b->tok_hash) return OK;
    err_set(e, ERR_INPUT, "%s: made with another tokenizer than %s", b->path, a->path);
    return err_hint(e, "make all shards of one run with the same tokenizer.json");
}

int dataset_open(Dataset *d, const char *const *paths, int n, Err *e) {
    *d = (Dataset){0};
    if (n < 1) return err_set(e, ERR_USAGE, "no token shards given");
    TRY(mem_alloc((void **)&d->shard, (size_t)n * sizeof *d->shard, "shards", e));
    int rc = OK;
    for (int i = 0; i < n && !rc; i++) {
        rc = shard_open(&d->shard[i], paths[i], e);
        if (rc) break;
        d->n_shards++;
        d->tokens += d->shard[i].tokens;
        rc = check_agree(&d->shard[0], &d->shard[i], e);
    }
    if (rc) dataset_close(d);
    return rc;
}

/* Rank 0's file to those that do not see it. */
static int dataset_send(Dataset *d, const char *path, Ranks *r, const int *sees, size_t size, Err *e) {
    RankPart out[RANKS_MOST] = {0}, in[RANKS_MOST] = {0};
    const int lacks = !sees[r->rank];
    if (lacks) {
        TRY(mem_alloc(&d->sent, size, "text of rank 0", e));
        in[0] = (RankPart){d->sent, size};
    }
    for (int q = 1; ranks_first(r) && q < r->size; q++)
        if (!sees[q]) out[q] = (RankPart){(void *)(uintptr_t)d->shard[0].file.data, size};
    TRY(ranks_swap(r, out, in, e));
    if (!lacks) return OK;
    TRY(mem_alloc((void **)&d->shard, sizeof *d->shard, "shards", e));
    TRY(shard_begin(&d->shard[0], path, &(File){d->sent, size, 0}, e));
    d->n_shards = 1;
    d->tokens = d->shard[0].tokens;
    return OK;
}

int dataset_open_ranks(Dataset *d, const char *path, Ranks *r, Err *e) {
    struct {
        unsigned char head[SHARD_HEAD]; // it holds a checksum of the rest
        size_t size;
    } is = {.size = 0};
    int sees[RANKS_MOST] = {0};
    size_t at[RANKS_MOST + 1];
    Err unseen = {0};
    const int rc = dataset_open(d, &path, 1, ranks_first(r) ? e : &unseen);
    if (ranks_count(r) < 2) return rc;
    TRY(ranks_outcome(r, rc, e));
    if (ranks_first(r)) {
        is.size = d->shard[0].file.size;
        memcpy(is.head, d->shard[0].file.data, SHARD_HEAD);
    }
    TRY(ranks_share(r, &is, sizeof is, e));
    sees[r->rank] = !rc && d->shard[0].file.size == is.size && !memcmp(d->shard[0].file.data, is.head, SHARD_HEAD);
    for (int q = 0; q <= r->size; q++) at[q] = (size_t)q * sizeof *sees;
    if (!sees[r->rank]) dataset_close(d);
    TRY(ranks_gather(r, sees, at, e));
    return dataset_send(d, path, r, sees, is.size, e);
}

void dataset_close(Dataset *d) {
    for (int i = 0; i < d->n_shards; i++) shard_close(&d->shard[i]);
    mem_free(d->sent);
    mem_free(d->shard);
    *d = (Dataset){0};
}

/* The document that holds token `at`: the first whose end lies behind it. */
static uint64_t document_of(const Shard *s, uint64_t at) {
    uint64_t lo = 0, hi = s->documents - 1;
    while (lo < hi) {
        const uint64_t mid = lo + (hi - lo) / 2;
        if (end_of(s, mid) > at) hi = mid;
        else lo = mid + 1;
    }
    return lo;
}

/* Up to n tokens of one shard from `at`, which is token `from` of the window; returns how many. */
static size_t shard_read(const Shard *s, uint64_t at, size_t n, size_t from, int *ids, int *start) {
    if (n > s->tokens - at) n = (size_t)(s->tokens - at);
    for (size_t i = 0; i < n; i++) ids[i] = id_at(s, at + i);
    if (!start) return n;
    uint64_t doc = document_of(s, at);
    const uint64_t begin = doc ? end_of(s, doc - 1) : 0;
    // a document that began in an earlier window is clipped to 0; one that began in this window's part of an
    // earlier shard cannot go on here
    size_t first = begin == at ? from : 0;
    for (size_t i = 0; i < n; i++) {
        if (at + i == end_of(s, doc)) doc++, first = from + i;
        start[i] = (int)first;
    }
    return n;
}

int dataset_completions(Dataset *d, Err *e) {
    int prompts = 0;
    for (int i = 0; i < d->n_shards; i++) {
        const Shard *s = &d->shard[i];
        prompts |= s->begins != NULL;
        for (uint64_t k = 0; k < s->documents && !d->completions; k++)
            d->completions = s->begins && begin_of(s, k) < end_of(s, k);
    }
    if (d->completions) return OK;
    err_set(e, ERR_INPUT, "%s: no document has %s, and completions alone shall count", d->shard[0].path,
            prompts ? "a completion" : "a prompt");
    return err_hint(e, "give JSON lines with strings \"prompt\" and \"completion\", or --loss-on all");
}

/* ids[0..n), the tokens of the stream from `at`: those of prompts become -1. */
static void prompts_hide(const Dataset *d, uint64_t at, size_t n, int *ids) {
    size_t done = 0;
    for (int i = 0; i < d->n_shards && done < n; at -= d->shard[i++].tokens) {
        const Shard *s = &d->shard[i];
        if (at >= s->tokens) continue;
        const size_t k = n - done < s->tokens - at ? n - done : (size_t)(s->tokens - at);
        uint64_t doc = document_of(s, at);
        for (size_t j = 0; j < k && s->begins; j++) {
            if (at + j == end_of(s, doc)) doc++;
            if (at + j < begin_of(s, doc)) ids[done + j] = -1;
        }
        done += k;
        at += k;
    }
}

void dataset_read(const Dataset *d, uint64_t at, size_t n, int *ids, int *start) {
    size_t done = 0;
    for (int i = 0; i < d->n_shards && done < n; i++) {
        const Shard *s = &d->shard[i];
        if (at < s->tokens) {
            const size_t k = shard_read(s, at, n - done, done, ids + done, start ? start + done : NULL);
            done += k;
            at += k;
        }
        at -= s->tokens; // of the next shard
    }
}

/* ---- batches ---- */

uint64_t dataset_windows(const Dataset *d, int T) { return d->tokens ? (d->tokens - 1) / (uint64_t)T : 0; }

/* The i-th of a random order of 0 ... n-1: a Feistel network permutes the numbers of 2 * half bits, and what
 * falls outside of [0, n) is sent through it again until it is inside ("cycle walking", Black and Rogaway
 * 2002). */
static uint64_t permuted(uint64_t seed, uint64_t epoch, uint64_t n, uint64_t i) {
    enum { ROUNDS = 8 };
    int half = 1;
    while (half < 32 && n > (uint64_t)1 << 2 * half) half++;
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    uint64_t key[ROUNDS];
    Rng r;
    rng_seed3(&r, seed, epoch, 0x6261746368); // "batch"
    for (int k = 0; k < ROUNDS; k++) key[k] = rng_u64(&r);
    do {
        uint64_t a = i >> half, b = i & mask;
        for (int k = 0; k < ROUNDS; k++) {
            uint64_t x = (b ^ key[k]) * 0x9E3779B97F4A7C15u;
            x = (x ^ x >> 32) * 0xD6E8FEB86659FD93u;
            const uint64_t c = a ^ (x >> 32 & mask);
            a = b;
            b = c;
        }
        i = a << half | b;
    } while (i >= n);
    return i;
}

void dataset_batch(const Dataset *d, const Split *s, uint64_t seed, uint64_t step, int B, int T, int *ids, int *target,
                   int *start) {
    const uint64_t windows = dataset_windows(d, T), first = s ? s->first : 0;
    const uint64_t rest = first < windows ? windows - first : 0;
    const uint64_t count = s && s->count && s->count < rest ? s->count : rest;
    for (int b = 0; b < B && count; b++) {
        const uint64_t k = step * (uint64_t)B + (uint64_t)b;
        const uint64_t at = (first + permuted(seed, k / count, count, k % count)) * (uint64_t)T;
        const size_t row = (size_t)b * (size_t)T;
        dataset_read(d, at, (size_t)T, ids + row, start ? start + row : NULL);
        memcpy(target + row, ids + row + 1, ((size_t)T - 1) * sizeof *target);
        dataset_read(d, at + (uint64_t)T, 1, target + row + T - 1, NULL);
        if (d->completions) prompts_hide(d, at + 1, (size_t)T, target + row);
    }
}
