/* fit_parts.h - what the two closed forms of a start share (fit.c, taylor.c): the pass over text, sums, parameters by
 * name. */
#ifndef HYB_FIT_PARTS_H
#define HYB_FIT_PARTS_H
#include "method/attend.h"
#include "method/fit.h"
#include <math.h>

/* Sums over rows of one layer: first of x, then, in the same memory, of y. */
typedef struct {
    double *gram;  /* (C,C) of x x^T;  then (Q,Q) of w y y^T */
    double *cross; /* (C) of x;  then (Q,C) of w y t^T;  taylor.c: (H,TAYLOR_SUMS) */
    double *head;  /* (H,HEAD) */
} Sums;
enum { LATE = 0, ANY = 4, HEAD = 8 }; /* rows, lag, entropy, first of late and of any rows */
enum { TAYLOR_SUMS = 7 };

/* A start in the making. */
typedef struct {
    Align *a;
    Model *t, *s;
    Backend *be;
    Fit *f;
    const Memo *memo;
    int N, C, H, D, Q, Hk;
    Attend attend;
    Real *ones, *ys, *ts; /* (N);  (N,Q), (N,C) weighted */
    Wide *product;        /* (max(C,Q)^2) */
    void *mem, *host;
    double *buf; /* host: the largest tensor or product */
    double rows; /* in the sums: of x, then of y */
    Sums sum[MAX_LAYERS];
    Err *e;
} Work;

static inline double softplus_inverse(double y) { return y + log(-expm1(-y)); }

/* Parameter "attn.NAME..." of layer l: from a model, into the student. ERR_NUMERIC, by name, for what is not finite. */
int fit_get(const Work *w, const Model *m, int l, const char *name, double *x);
int fit_put(const Work *w, int l, const char *name, const double *x);
/* Every number of it (n) is v. */
int fit_fill(const Work *w, int l, const char *name, size_t n, double v);
/* The teacher over training batches first .. first + n - 1, teacher-forced: `see` of each linear layer when a->t holds
 * its attention's output. lags: also w->attend of every layer. */
int fit_read(Work *w, int64_t first, int64_t n, int (*see)(Work *w, int l, const int *start), int lags);
/* y_S: the student's mixer of layer l on the layer's input. */
MixerActs *fit_mixer(Work *w, int l);

int taylor_all(Work *w, int64_t batches); /* taylor.c */

#endif
