/* batch.c - see batch.h. */
#include "method/batch.h"
#include "base/mem.h"
#include <string.h>

/* The cut is a token position: training windows end at or before it, held-out windows begin at or after it, for every
 * T. */
int stream_split(Split *out, const TextStream *s, int T, Side side, Err *e) {
    const uint64_t windows = dataset_windows(s->d, T);
    const uint64_t cut = (uint64_t)((double)s->d->tokens * (1 - s->heldout));
    uint64_t train = cut / (uint64_t)T, first = (cut + (uint64_t)T - 1) / (uint64_t)T;
    if (train > windows) train = windows;
    if (first > windows) first = windows;
    *out = side == HELDOUT ? (Split){first, windows - first} : (Split){0, train};
    if (out->count) return OK;
    err_set(e, ERR_INPUT, "text: %llu tokens hold no %s window of %d tokens", (unsigned long long)s->d->tokens,
            side == HELDOUT ? "held-out" : "training", T);
    return err_hint(e, "give more text, a shorter train_seq_len, or another held-out fraction");
}

int batch_open(Batch *b, int B, int T, Err *e) {
    memset(b, 0, sizeof *b);
    size_t bytes;
    TRY(mem_mul(&bytes, (size_t)B * T, 6 * sizeof(int) + sizeof(float), "batch", e));
    TRY(mem_alloc(&b->mem, bytes, "batch", e));
    b->B = B;
    b->T = T;
    b->N = B * T;
    b->ids = b->mem;
    b->target = b->ids + b->N;
    b->start = b->target + b->N;
    b->spare = b->start + b->N;
    return OK;
}

void batch_close(Batch *b) {
    mem_free(b->mem);
    memset(b, 0, sizeof *b);
}

/* The last floor(B mix + 1/2) rows from elsewhere. */
static int batch_mix(Batch *b, const TextStream *s, Side side, uint64_t index, Err *e) {
    const int most = (int)(b->B * s->mix + 0.5), rows = most > b->B ? b->B : most;
    const size_t at = (size_t)(b->B - rows) * b->T;
    if (!rows) return OK;
    memset(b->start + at, 0, (size_t)rows * b->T * sizeof *b->start);
    return s->mixed(s->mixed_ctx, side == HELDOUT ? 0 : s->seed, index * 2 + (side == HELDOUT), b->B - rows, rows, b->T,
                    b->ids + at, b->target + at, e);
}

static int batch_make(Batch *b, const TextStream *s, Side side, uint64_t index, Err *e) {
    enum { HELDOUT_SEED = 0x68656c64 }; // one order of the held-out windows for every run
    Split split;
    TRY(stream_split(&split, s, b->T, side, e));
    dataset_batch(s->d, &split, side == HELDOUT ? HELDOUT_SEED : s->seed, index, b->B, b->T, b->ids, b->target,
                  b->start);
    return batch_mix(b, s, side, index, e);
}

static int targets_counted(const Batch *b) {
    int counted = 0;
    for (int n = 0; n < b->N; n++) counted += b->target[n] >= 0;
    return counted;
}

static void batch_weigh(Batch *b, const TextStream *s) {
    b->counted = b->N;
    b->weight = NULL;
    if (!s->d->completions) return;
    b->weight = (float *)(b->spare + 3 * (size_t)b->N);
    b->counted = targets_counted(b);
    for (int n = 0; n < b->N; n++) b->weight[n] = b->target[n] < 0 ? 0 : (float)(1.0 / b->counted);
}

int batch_text(Batch *b, const TextStream *s, Side side, uint64_t index, Err *e) {
    const int made =
        b->has_ahead && side == TRAINING && b->ahead == index && b->ahead_seed == s->seed && b->ahead_of == s->d;
    if (made) memcpy(b->ids, b->spare, 3 * (size_t)b->N * sizeof(int));
    else TRY(batch_make(b, s, side, index, e));
    if (made) b->has_ahead = 0;
    batch_weigh(b, s);
    return OK;
}

/* The same shape, over the spare memory. */
static Batch batch_spare(const Batch *b) {
    Batch next = *b;
    next.ids = b->spare;
    next.target = next.ids + b->N;
    next.start = next.target + b->N;
    return next;
}

int batch_counted(Batch *b, const TextStream *s, uint64_t first, int n, int64_t *counted, Err *e) {
    Batch one = batch_spare(b);
    b->has_ahead = 0;
    *counted = 0;
    for (int i = 0; i < n; i++) {
        TRY(batch_make(&one, s, TRAINING, first + (uint64_t)i, e));
        *counted += targets_counted(&one);
    }
    return OK;
}

void batch_ahead(Batch *b, const TextStream *s, uint64_t index) {
    Batch next = batch_spare(b);
    Err ignored = {0};
    b->has_ahead = !batch_make(&next, s, TRAINING, index, &ignored);
    b->ahead = index;
    b->ahead_seed = s->seed;
    b->ahead_of = s->d;
}
