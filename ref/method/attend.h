/* attend.h - what a softmax layer looks at, for every row and head, from two more calls of its attention op and
 * without a T x T matrix of probabilities. */
#ifndef HYB_ATTEND_H
#define HYB_ATTEND_H
#include "model/model.h"

/* With p_ts the weight that row t of a document gives to row s, age = t - start_t, first = p at s = start_t:
 *   lag      sum_s p_ts (t - s) over s > start_t, divided by 1 - first: the mean distance, in tokens. The first token
 *            of a document is left out, since heads with nothing to say park their weight there.
 *   entropy  - sum_s p_ts log p_ts, in nats
 * No row but the first of a document, and none with first > .999, has a lag: it is NAN there.
 *
 * How: attention of "values" that are functions of s alone. Positions are cut into blocks, of which two channels each
 * hold 1 and (s - begin)/size, and the last channel holds [s = start_s]; then lag = sum_blocks m (t - begin) - size r.
 * One channel of s would do in float; in bf16 its rounding error is that of t, and this one's that of the lag.
 * Attention of the keys gives sum_s p_ts k_s, and entropy = lse_t - scale q_t . that. */
typedef struct {
    int N, T, H, Hk, D, window;
    int blocks, size; /* of positions */
    Real *value, *out;
    Wide *lse;
    double *q, *o;                 /* host: (N,H,D) */
    double *lag, *entropy, *first; /* host: (N,H), of the layer seen last */
    void *mem, *host;
    Backend *be;
} Attend;

enum { ATTEND_MIN_D = 4 };                  /* channels of a head that it takes */
size_t attend_bytes(const Model *m, int N); /* on the device */
int attend_open(Attend *a, const Model *teacher, const Pass *p, Err *e);
void attend_close(Attend *a); /* fine on a zeroed Attend */
/* A new batch. start: host (B,T), or NULL: all 0. */
int attend_batch(Attend *a, const int *start, Err *e);
/* Layer l of the teacher, whose mixer ran last in p. start as given to attend_batch. */
int attend_layer(Attend *a, const Model *teacher, Pass *p, int l, const int *start, Err *e);

#endif
