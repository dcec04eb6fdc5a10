/* bench_decode.h - tokens a second and bytes of caches and states against the length of the context, for one model or
 * two side by side.
 *
 * A context is not read in full: its first 64 tokens are, and their rows are repeated in the caches up to its length.
 * The time of a decoded token does not depend on what a cache holds, and 128K tokens need no prefill.
 * One thread on the host is timed in its own CPU time. */
#ifndef HYB_BENCH_DECODE_H
#define HYB_BENCH_DECODE_H
#include "base/log.h"
#include "model/model.h"
#include "tools/bench.h"

enum { DECODE_LENGTHS = 32 };
typedef struct {
    const char *name; /* of a model, for tables and pictures */
    Model *m;
    double tok_per_s[DECODE_LENGTHS];
    size_t cache_bytes[DECODE_LENGTHS], state_bytes[DECODE_LENGTHS];
} DecodeSeries;

/* Fills the series; repeat decoded tokens a length, of which the median counts. progress may be NULL. */
int bench_decode_run(DecodeSeries *s, const int *length, int n, int repeat, const Progress *progress, Err *e);
/* A table, CSV, or one JSON object a line. */
int bench_decode_print(const DecodeSeries *s, int models, const int *length, int n, BenchForm form, FILE *out, Err *e);
/* DIR/decode.csv, decode_speed.svg and decode_bytes.svg. */
int bench_decode_save(const DecodeSeries *s, int models, const int *length, int n, const char *dir, Err *e);

#endif
