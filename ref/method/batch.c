/* batch.c - see batch.h. */
#include "method/batch.h"
#include "base/mem.h"
#include <string.h>

/* The cut is a token position: training windows end at or before it, held-out windows begin at or after it, for every T. */
int stream_split(Split *out, const TextStream *s, int T, int heldout, Err *e) {
    const uint64_t windows = dataset_windows(s->d, T);
    const uint64_t cut = (uint64_t)((double)s->d->tokens * (1 - s->heldout));
    uint64_t train = cut / (uint64_t)T, first = (cut + (uint64_t)T - 1) / (uint64_t)T;
    if (train > windows) train = windows;
    if (first > windows) first = windows;
    *out = heldout ? (Split){first, windows - first} : (Split){0, train};
    if (out->count) return OK;
    err_set(e, ERR_INPUT, "text: %llu tokens hold no %s window of %d tokens", (unsigned long long)s->d->tokens,
            heldout ? "held-out" : "training", T);
    return err_hint(e, "give more text, a shorter train_seq_len, or another held-out fraction");
}

int batch_open(Batch *b, int B, int T, Err *e) {
    memset(b, 0, sizeof *b);
    size_t bytes;
    TRY(mem_mul(&bytes, (size_t)B * T, 3 * sizeof(int), "batch", e));
    TRY(mem_alloc(&b->mem, bytes, "batch", e));
    b->B = B;
    b->T = T;
    b->N = B * T;
    b->ids = b->mem;
    b->target = b->ids + b->N;
    b->start = b->target + b->N;
    return OK;
}

void batch_close(Batch *b) {
    mem_free(b->mem);
    memset(b, 0, sizeof *b);
}

int batch_text(Batch *b, const TextStream *s, int heldout, uint64_t index, Err *e) {
    enum { HELDOUT_SEED = 0x68656c64 }; // one order of the held-out windows for every run
    Split split;
    TRY(stream_split(&split, s, b->T, heldout, e));
    dataset_batch(s->d, &split, heldout ? HELDOUT_SEED : s->seed, index, b->B, b->T, b->ids, b->target, b->start);
    return OK;
}
