/* logits.c - prints the logits of every position of one sequence, for comparison with another implementation.
 *   logits MODEL BACKEND PIECE ID...     PIECE: tokens consumed at once (1: decoding with the cache; 0:
 *   all at once from a fresh state);
 *                                        a file name: one pass over all of them, its activations and logits into that
 *                                        safetensors file
 * Output: one line of numbers a position. Built and run by hf_logits.py. */
#include "base/mem.h"
#include "io/dump.h"
#include "io/hf.h"
#include "model/generate.h"
#include <stdio.h>
#include <stdlib.h>

static int fail(const Err *e) {
    fprintf(stderr, "logits: %s (%s)\n", e->msg, e->hint);
    return e->code;
}

static void row_print(const float *logits, int n) {
    for (int i = 0; i < n; i++) printf("%.9g%c", logits[i], i + 1 < n ? ' ' : '\n');
}

int main(int argc, char **argv) {
    Err e = {0};
    Backend *be;
    Model m;
    Decode d;
    if (argc < 5) return ERR_USAGE;
    const int piece = (int)strtol(argv[3], NULL, 10), n = argc - 4;
    int *ids = malloc(n * sizeof *ids);
    for (int i = 0; i < n; i++) ids[i] = (int)strtol(argv[4 + i], NULL, 10);
    if (backend_open(&be, argv[2], 1, &e) || hf_load_model(&m, argv[1], be, GRAD_NONE, &e)) return fail(&e);
    if (argv[3][0] < '0' || argv[3][0] > '9') return dump_write(argv[3], &m, ids, n, &e) ? fail(&e) : 0;
    float *logits = malloc(m.c.VOC * sizeof *logits);
    if (decode_open(&d, &m, 1, n, piece ? piece : n, &e)) return fail(&e);
    for (int t = 0; t < n; t++) {
        if (piece != 1) decode_reset(&d); // a fresh state and the first t + 1 tokens, in pieces
        for (int at = piece == 1 ? t : 0; at <= t;) {
            const int take = piece && t + 1 - at > piece ? piece : t + 1 - at;
            if (decode_extend(&d, ids + at, take, at + take == t + 1 ? logits : NULL, &e)) return fail(&e);
            at += take;
        }
        row_print(logits, m.c.VOC);
    }
    decode_close(&d);
    model_close(&m);
    backend_close(be);
    free(logits);
    free(ids);
    return 0;
}
