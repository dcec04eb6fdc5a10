/* attention.c - online softmax over tiles of 64 queries x 64 keys, on the products of tile.h.
 *
 * Scores are held transposed, S^T (keys, queries): a vector is 16 (8, 4) queries, so that maximum, sum and exponential
 * of the softmax need no horizontal step, and every product reads its operands in place:
 *   S^T = K Q^T       A = rows of k,    B = Q^T: the one transposed copy, made once per query tile (scaled)
 *   O   = P V         A = columns of P^T, B = rows of v
 *   dP^T = V dO^T     A = rows of v,    B = dO^T, the backward's transposed copy
 *   dV += P^T dO      A = rows of P^T,  B = rows of dO        dK += dS^T Q   likewise
 *   dQ += dS K        A = columns of dS^T, B = rows of k
 * Tiles across the diagonal are cut into strips of 16 queries, each with only the keys that it can see. */
#include "ops/ops.h"
#include "parallel.h"
#include "tile.h"
#include <math.h>
#include <string.h>

// DB: columns of a transposed copy; wider heads are transposed in pieces
enum { QT = 64, KT = 64, STRIP = 16, DB = 256 };

typedef struct {
    const float *q, *k, *v;
    const int *start; // of this batch element, or NULL
    size_t ldq, ldk;  // floats between tokens
    size_t D, T, past, window;
    float scale;
} Head;

/* One tile of queries: absolute positions first..first+n-1; query i sees keys lo[i]..first+i. */
typedef struct {
    // lanes: n up to whole strips; keys in [key_from, key_to) concern this tile
    size_t i0, n, lanes, first, key_from, key_to;
    float lo[QT], hi[QT];
    float q_t[DB * QT]; // scale Q^T, (D, QT), unused lanes zero
    float s_t[KT * QT];
} QueryTile;

/* y (cols, QT) = scale x^T of n rows; the other lanes of the last strip are zero. */
static void columns_load(float *y, const float *x, size_t ld, size_t n, size_t cols, float scale) {
    const size_t lanes = (n + STRIP - 1) / STRIP * STRIP;
    transpose(y, QT, x, ld, n, cols);
    for (size_t c = 0; c < cols; c++, y += QT) {
        for (size_t i = n; i < lanes; i++) y[i] = 0;
        for (size_t i = 0; scale != 1 && i < lanes; i += VW) vstore(y + i, vload(y + i) * vset(scale));
    }
}

static size_t key_first(const Head *h, size_t pos) {
    const size_t from = h->start ? (size_t)h->start[pos] : 0,
                 edge = h->window && pos + 1 > h->window ? pos + 1 - h->window : 0;
    return from > edge ? from : edge;
}

static void query_tile_load(QueryTile *t, const Head *h, size_t i0) {
    t->i0 = i0, t->n = h->T - i0 < QT ? h->T - i0 : QT, t->first = h->past + i0;
    t->lanes = (t->n + STRIP - 1) / STRIP * STRIP;
    for (size_t i = 0; i < t->lanes; i++) {
        const size_t pos = t->first + (i < t->n ? i : t->n - 1);
        t->lo[i] = (float)key_first(h, pos), t->hi[i] = (float)pos;
    }
    t->key_from = key_first(h, t->first), t->key_to = t->first + t->n;
    if (h->D <= DB) columns_load(t->q_t, h->q + i0 * h->ldq, h->ldq, t->n, h->D, h->scale);
}

/* s_t[j][i] = x_{j0+j} . column i of y_t, for the strip's keys; x: rows of k or v. y_t is remade in pieces for wide
 * heads from `y`. */
static void strip_scores(float *s_t, const float *x, size_t ldx, float *y_t, const float *y, size_t ldy, float scale,
                         size_t n, size_t D, size_t keys, size_t strip, size_t width) {
    for (size_t d = 0; d < D; d += DB) {
        const size_t m = D - d < DB ? D - d : DB;
        if (D > DB) columns_load(y_t, y + d, ldy, n, m, scale);
        block_mul(s_t + strip, QT, x + d, ldx, ROWS, y_t + strip, QT, keys, width, m, d > 0);
    }
}

/* The strips of a tile pair: all queries at once where every one may see every key, else 16 by 16. */
INLINE size_t strip_width(const QueryTile *t, size_t j0, size_t keys) {
    return t->first + 1 >= j0 + keys ? t->lanes : STRIP;
}
// keys [j0, j0 + result) are seen
INLINE size_t strip_keys(const QueryTile *t, size_t strip, size_t width, size_t j0, size_t keys) {
    const size_t last = t->first + strip + width; // one past the last query's position
    return last <= j0 ? 0 : last - j0 < keys ? last - j0 : keys;
}
INLINE int tile_masked(const QueryTile *t, size_t j0, size_t keys) {
    return (float)j0 < t->lo[t->n - 1] || (float)(j0 + keys - 1) > t->hi[0];
}
INLINE vf masked(const QueryTile *t, vf s, size_t i, size_t key, float other) {
    const vf j = vset((float)key);
    s = vless(j, vload(t->lo + i), vset(other), s);
    return vless(vload(t->hi + i), j, vset(other), s);
}

/* Softmax of a strip, in place: p = e^{s - max}; `factor` is what the earlier sums must be multiplied by. */
static void strip_softmax(QueryTile *t, float *max, float *sum, float *factor, size_t j0, size_t keys, size_t strip,
                          size_t width, int mask) {
    for (size_t i = strip; i < strip + width; i += VW) {
        const vf old = vload(max + i);
        vf m = old, total = vset(0);
        for (size_t j = 0; j < keys; j++) {
            vf s = vload(t->s_t + j * QT + i);
            if (mask) vstore(t->s_t + j * QT + i, s = masked(t, s, i, j0 + j, -INFINITY));
            m = vmax(s, m);
        }
        for (size_t j = 0; j < keys; j++) {
            const vf p = vexp(vload(t->s_t + j * QT + i) - m);
            total = total + p;
            vstore(t->s_t + j * QT + i, p);
        }
        const vf f = vexp(old - m);
        vstore(factor + i, f), vstore(max + i, m), vstore(sum + i, vfma(vload(sum + i), f, total));
    }
}

static void rows_scale(float *o, size_t ldo, const float *factor, size_t n, size_t D) {
    for (size_t i = 0; i < n; i++) {
        const vf f = vset(factor[i]);
        for (size_t c = 0; factor[i] != 1 && c < D; c += VW)
            vput(o + i * ldo + c, vget(o + i * ldo + c, D - c) * f, D - c);
    }
}

/* One tile of queries against all its keys. o: its first row; lse: (T,H) with stride H. */
static void attend(float *o, float *lse, size_t H, const Head *h, size_t i0) {
    QueryTile t;
    float max[QT], sum[QT], factor[QT];
    query_tile_load(&t, h, i0);
    // finite, so that a row which sees nothing yet gives e^{-inf}, not NaN
    for (size_t i = 0; i < t.lanes; i++) max[i] = -1e30f, sum[i] = 0;
    const size_t from = t.key_from / KT * KT;
    for (size_t j0 = from; j0 < t.key_to; j0 += KT) {
        const size_t keys = t.key_to - j0 < KT ? t.key_to - j0 : KT, width = strip_width(&t, j0, keys);
        const int mask = tile_masked(&t, j0, keys);
        for (size_t strip = 0; strip < t.n; strip += width) {
            const size_t seen = strip_keys(&t, strip, width, j0, keys), n = t.n - strip < width ? t.n - strip : width;
            if (!seen) continue;
            strip_scores(t.s_t, h->k + j0 * h->ldk, h->ldk, t.q_t, h->q + i0 * h->ldq, h->ldq, h->scale, t.n, h->D,
                         seen, strip, width);
            strip_softmax(&t, max, sum, factor, j0, seen, strip, width, mask);
            if (j0 > from) rows_scale(o + strip * h->ldq, h->ldq, factor + strip, n, h->D);
            block_mul(o + strip * h->ldq, h->ldq, t.s_t + strip, QT, COLS, h->v + j0 * h->ldk, h->ldk, n, h->D, seen,
                      j0 > from);
        }
    }
    for (size_t i = 0; i < t.n; i++) factor[i] = 1 / sum[i], lse[i * H] = max[i] + logf(sum[i]);
    rows_scale(o, h->ldq, factor, t.n, h->D);
}

/* One query, as in decoding: a tile would compute 16 lanes for it. Scores of up to KT keys by dot products,
 * then the values. */
INLINE float key_dot(const float *q, const float *k, size_t D) {
    vf a = vset(0);
    for (size_t c = 0; c < D; c += VW) a = vfma(vget(q + c, D - c), vget(k + c, D - c), a);
    return vsum(a);
}
/* o += sum_j p_j v_j for the columns of one vector: four chains, so that no addition waits for the one before it. */
INLINE void values_add(float *o, const float *v, size_t ldv, const float *p, size_t keys, size_t cols) {
    vf a = vget(o, cols), b = vset(0), c = b, d = b;
    size_t j = 0;
    for (; j + 4 <= keys; j += 4, v += 4 * ldv) {
        a = vfma(vset(p[j]), vget(v, cols), a), b = vfma(vset(p[j + 1]), vget(v + ldv, cols), b);
        c = vfma(vset(p[j + 2]), vget(v + 2 * ldv, cols), c), d = vfma(vset(p[j + 3]), vget(v + 3 * ldv, cols), d);
    }
    for (; j < keys; j++, v += ldv) a = vfma(vset(p[j]), vget(v, cols), a);
    vput(o, (a + b) + (c + d), cols);
}
static void attend_one(float *o, float *lse, const Head *h) {
    float s[KT], max = -1e30f, sum = 0;
    memset(o, 0, h->D * sizeof *o);
    for (size_t j0 = key_first(h, h->past); j0 <= h->past; j0 += KT) {
        const size_t keys = h->past + 1 - j0 < KT ? h->past + 1 - j0 : KT;
        const float *k = h->k + j0 * h->ldk, *v = h->v + j0 * h->ldk, old = max;
        for (size_t j = 0; j < keys; j++) {
            // the next tile's rows: a head's lie far apart, so the hardware does not guess them
            for (size_t c = 0; c < h->D; c += 16) {
                __builtin_prefetch(k + (j + KT) * h->ldk + c, 0, 2);
                __builtin_prefetch(v + (j + KT) * h->ldk + c, 0, 2);
            }
            s[j] = h->scale * key_dot(h->q, k + j * h->ldk, h->D);
            max = s[j] > max ? s[j] : max;
        }
        for (size_t j = keys; j < KT; j++) s[j] = -INFINITY;
        vf total = vset(0), factor = vexp(vset(old) - vset(max));
        for (size_t j = 0; j < KT; j += VW) {
            const vf p = vexp(vload(s + j) - vset(max));
            vstore(s + j, p);
            total = total + p;
        }
        sum = sum * factor[0] + vsum(total);
        for (size_t c = 0; c < h->D; c += VW) {
            if (factor[0] != 1) vput(o + c, vget(o + c, h->D - c) * factor, h->D - c);
            values_add(o + c, v + c, h->ldk, s, keys, h->D - c);
        }
    }
    for (size_t c = 0; c < h->D; c += VW) vput(o + c, vget(o + c, h->D - c) * vset(1 / sum), h->D - c);
    *lse = max + logf(sum);
}

static Head head_at(const float *q, const float *k, const float *v, const int *start, double scale, const AttnDims *d,
                    size_t b, size_t head) {
    const size_t Tk = (size_t)d->past + d->T, stride = d->stride ? (size_t)d->stride : Tk,
                 at = (b * stride * d->Hk + head / (d->H / d->Hk)) * d->D;
    return (Head){.q = q + (b * d->T * d->H + head) * d->D,
                  .k = k + at,
                  .v = v + at,
                  .start = start ? start + b * Tk : NULL,
                  .ldq = (size_t)d->H * d->D,
                  .ldk = (size_t)d->Hk * d->D,
                  .D = d->D,
                  .T = d->T,
                  .past = d->past,
                  .window = d->window > 0 ? d->window : 0,
                  .scale = (float)scale};
}

typedef struct {
    float *o, *lse, *dq, *dk, *dv, *copies;
    const float *q, *k, *v, *dout;
    const int *start;
    double scale;
    const AttnDims *d;
    size_t tiles, copy, stride;
} AttnJob;

static void attend_task(const void *job, size_t u) {
    const AttnJob *j = job;
    const AttnDims *d = j->d;
    // long rows first
    const size_t b = u / j->tiles / d->H, head = u / j->tiles % d->H, i0 = (j->tiles - 1 - u % j->tiles) * QT;
    const Head h = head_at(j->q, j->k, j->v, j->start, j->scale, d, b, head);
    const size_t row = (b * d->T + i0) * d->H + head;
    if (d->T == 1) attend_one(j->o + row * d->D, j->lse + row, &h);
    else attend(j->o + row * d->D, j->lse + row, d->H, &h, i0);
}
static void attention_forward(float *o, float *lse, const float *q, const float *k, const float *v, const int *start,
                              double scale, void *work, const AttnDims *d) {
    (void)work;
    const size_t heads = (size_t)d->B * d->H;
    const AttnJob j = {.o = o,
                       .lse = lse,
                       .q = q,
                       .k = k,
                       .v = v,
                       .start = start,
                       .scale = scale,
                       .d = d,
                       .tiles = ((size_t)d->T + QT - 1) / QT};
    pool_run_if(heads * d->T * (d->past + d->T) * d->D > ALONE, heads * j.tiles, attend_task, &j);
}

/* ds^T = p^T (dp^T - delta) scale, with p^T = e^{s^T - lse} put back in place of s^T */
static void strip_slopes(QueryTile *t, float *dp_t, const float *lse, const float *delta, float scale, size_t j0,
                         size_t keys, size_t strip, size_t width, int mask) {
    for (size_t i = strip; i < strip + width; i += VW) {
        const vf l = vload(lse + i), dl = vload(delta + i);
        for (size_t j = 0; j < keys; j++) {
            vf p = vexp(vload(t->s_t + j * QT + i) - l);
            if (mask) p = masked(t, p, i, j0 + j, 0);
            vstore(t->s_t + j * QT + i, p);
            vstore(dp_t + j * QT + i, p * (vload(dp_t + j * QT + i) - dl) * vset(scale));
        }
    }
}

typedef struct {
    float *dq, *dk, *dv;
    const float *dout, *o, *lse;
    size_t H, lddk;
} HeadGrad;

/* All that one tile of queries adds. */
static void attend_backward(const HeadGrad *g, const Head *h, size_t i0) {
    QueryTile t;
    float do_t[DB * QT], dp_t[KT * QT], lse[QT], delta[QT];
    query_tile_load(&t, h, i0);
    const float *dout = g->dout + i0 * h->ldq, *q = h->q + i0 * h->ldq;
    if (h->D <= DB) columns_load(do_t, dout, h->ldq, t.n, h->D, 1);
    for (size_t i = 0; i < t.lanes; i++) {
        lse[i] = i < t.n ? g->lse[(i0 + i) * g->H] : INFINITY;
        delta[i] = i < t.n ? row_dot(dout + i * h->ldq, g->o + (i0 + i) * h->ldq, h->D) : 0;
    }
    for (size_t j0 = t.key_from / KT * KT; j0 < t.key_to; j0 += KT) {
        const size_t keys = t.key_to - j0 < KT ? t.key_to - j0 : KT, width = strip_width(&t, j0, keys);
        const int mask = tile_masked(&t, j0, keys);
        for (size_t strip = 0; strip < t.n; strip += width) {
            const size_t seen = strip_keys(&t, strip, width, j0, keys), n = t.n - strip < width ? t.n - strip : width;
            if (!seen) continue;
            const float *k = h->k + j0 * h->ldk, *v = h->v + j0 * h->ldk;
            strip_scores(t.s_t, k, h->ldk, t.q_t, q, h->ldq, h->scale, t.n, h->D, seen, strip, width);
            strip_scores(dp_t, v, h->ldk, do_t, dout, h->ldq, 1, t.n, h->D, seen, strip, width);
            strip_slopes(&t, dp_t, lse, delta, h->scale, j0, seen, strip, width, mask);
            block_mul(g->dv + j0 * g->lddk, g->lddk, t.s_t + strip, QT, ROWS, dout + strip * h->ldq, h->ldq, seen, h->D,
                      n, 1);
            block_mul(g->dk + j0 * g->lddk, g->lddk, dp_t + strip, QT, ROWS, q + strip * h->ldq, h->ldq, seen, h->D, n,
                      1);
            block_mul(g->dq + (i0 + strip) * h->ldq, h->ldq, dp_t + strip, QT, COLS, k, h->ldk, n, h->D, seen, 1);
        }
    }
}

/* dk and dv of one key/value head, from the copies of the heads that read it, in order */
static void group_add(float *dk, const float *copies, size_t copy_size, const AttnDims *d) {
    const size_t group = (size_t)d->H / d->Hk, D = d->D;
    for (size_t t = 0; t < (size_t)d->T; t++)
        for (size_t c = 0; c < D; c += VW) {
            vf s = vset(0);
            for (size_t h = 0; h < group; h++) s = s + vget(copies + h * copy_size + t * D + c, D - c);
            vput(dk + t * d->Hk * D + c, vget(dk + t * d->Hk * D + c, D - c) + s, D - c);
        }
}

static void attend_backward_task(const void *job, size_t u) {
    const AttnJob *j = job;
    const AttnDims *d = j->d;
    const size_t group = (size_t)d->H / d->Hk, b = u / d->H, head = u % d->H, row = b * d->T * d->H + head;
    const size_t kv = (b * j->stride * d->Hk + head / group) * d->D;
    const Head h = head_at(j->q, j->k, j->v, j->start, j->scale, d, b, head);
    const HeadGrad g = {j->dq + row * d->D,
                        group > 1 ? j->copies + 2 * u * j->copy : j->dk + kv,
                        group > 1 ? j->copies + (2 * u + 1) * j->copy : j->dv + kv,
                        j->dout + row * d->D,
                        j->o + row * d->D,
                        j->lse + row,
                        d->H,
                        group > 1 ? (size_t)d->D : h.ldk};
    if (group > 1) memset(g.dk, 0, 2 * j->copy * sizeof(float));
    for (size_t i0 = 0; i0 < h.T; i0 += QT) attend_backward(&g, &h, i0);
}
static void group_task(const void *job, size_t u) {
    const AttnJob *j = job;
    const AttnDims *d = j->d;
    const size_t b = u / d->Hk, hk = u % d->Hk, kv = (b * j->stride * d->Hk + hk) * d->D;
    const float *copies = j->copies + 2 * (b * d->H + hk * (d->H / d->Hk)) * j->copy;
    group_add(j->dk + kv, copies, 2 * j->copy, d);
    group_add(j->dv + kv, copies + j->copy, 2 * j->copy, d);
}
/* work: dk and dv of every query head, (B,H,2,T,D), where heads share keys */
static void attention_backward(float *dq, float *dk, float *dv, const float *dout, const float *o, const float *lse,
                               const float *q, const float *k, const float *v, const int *start, double scale,
                               void *work, const AttnDims *d) {
    const size_t heads = (size_t)d->B * d->H;
    const int enough = heads * d->T * d->T * d->D > ALONE;
    const AttnJob j = {(float *)o,
                       (float *)lse,
                       dq,
                       dk,
                       dv,
                       work,
                       q,
                       k,
                       v,
                       dout,
                       start,
                       scale,
                       d,
                       .copy = (size_t)d->T * d->D,
                       .stride = d->stride ? d->stride : d->T};
    pool_run_if(enough, heads, attend_backward_task, &j);
    if (d->H != d->Hk) pool_run_if(enough, (size_t)d->B * d->Hk, group_task, &j);
}
