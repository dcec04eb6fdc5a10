/* attention.c - online softmax over tiles of 64 queries x 64 keys, on the products of tile.h.
 *
 * Scores are held transposed, S^T (keys, queries): a vector is 16 (8, 4) queries, so that maximum, sum and exponential
 * of the softmax need no horizontal step, and every product reads its operands in place:
 *   S^T = K Q^T       A = rows of k,    B = Q^T: the one transposed copy, made once per query tile (scaled)
 *   O   = P V         A = columns of P^T, B = rows of v
 *   dP^T = V dO^T     A = rows of v,    B = dO^T, the backward's transposed copy
 *   dV += P^T dO      A = rows of P^T,  B = rows of dO        dK += dS^T Q   likewise
 *   dQ += dS K        A = columns of dS^T, B = rows of k
 * Tiles across the diagonal are cut into strips of 16 queries, each with only the keys that it can see.
 * BF16: rows are widened into the workspace a tile at a time, and outputs are rounded once, when their sums are done.
 * */
#include "ops/ops.h"
#include "parallel.h"
#include "tile.h"
#include <math.h>
#include <string.h>

// DB: columns of a transposed copy; wider heads are transposed in pieces
enum { QT = 64, KT = 64, STRIP = 16, DB = 256 };

typedef struct {
    const real *q, *k, *v;
    const int *start; // of this batch element, or NULL
    size_t ldq, ldk;  // elements between tokens
    float *space;     // BF16: for widened tiles
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

/* n rows as floats: where they stand, or widened to `to`. */
INLINE const float *rows_float(float *to, const real *x, size_t *ld, size_t n, size_t D) {
#if BITS == 16
    rows_widen(to, x, *ld, n, D);
    *ld = D;
    return to;
#else
    (void)to, (void)ld, (void)n, (void)D;
    return x;
#endif
}

/* q: the tile's rows, ldq apart */
static void query_tile_load(QueryTile *t, const Head *h, size_t i0, const float *q, size_t ldq) {
    t->i0 = i0, t->n = h->T - i0 < QT ? h->T - i0 : QT, t->first = h->past + i0;
    t->lanes = (t->n + STRIP - 1) / STRIP * STRIP;
    for (size_t i = 0; i < t->lanes; i++) {
        const size_t pos = t->first + (i < t->n ? i : t->n - 1);
        t->lo[i] = (float)key_first(h, pos), t->hi[i] = (float)pos;
    }
    t->key_from = key_first(h, t->first), t->key_to = t->first + t->n;
    if (h->D <= DB) columns_load(t->q_t, q, ldq, t->n, h->D, h->scale);
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
static void attend(real *o, float *lse, size_t H, const Head *h, size_t i0) {
    QueryTile t;
    float max[QT], sum[QT], factor[QT];
    const size_t D = h->D, n_q = h->T - i0 < QT ? h->T - i0 : QT;
    size_t ldq = h->ldq;
    const float *q = rows_float(h->space, h->q + i0 * h->ldq, &ldq, n_q, D);
#if BITS == 16
    float *y = h->space + QT * D; // (n, D), what becomes o
#else
    float *y = o;
#endif
    query_tile_load(&t, h, i0, q, ldq);
    // finite, so that a row which sees nothing yet gives e^{-inf}, not NaN
    for (size_t i = 0; i < t.lanes; i++) max[i] = -1e30f, sum[i] = 0;
    const size_t from = t.key_from / KT * KT;
    for (size_t j0 = from; j0 < t.key_to; j0 += KT) {
        const size_t keys = t.key_to - j0 < KT ? t.key_to - j0 : KT, width = strip_width(&t, j0, keys);
        const int mask = tile_masked(&t, j0, keys);
        size_t ldk = h->ldk, ldv = h->ldk;
        const float *k = rows_float(h->space + 2 * QT * D, h->k + j0 * h->ldk, &ldk, keys, D),
                    *v = rows_float(h->space + (2 * QT + KT) * D, h->v + j0 * h->ldk, &ldv, keys, D);
        for (size_t strip = 0; strip < t.n; strip += width) {
            const size_t seen = strip_keys(&t, strip, width, j0, keys), n = t.n - strip < width ? t.n - strip : width;
            if (!seen) continue;
            strip_scores(t.s_t, k, ldk, t.q_t, q, ldq, h->scale, t.n, D, seen, strip, width);
            strip_softmax(&t, max, sum, factor, j0, seen, strip, width, mask);
            if (j0 > from) rows_scale(y + strip * ldq, ldq, factor + strip, n, D);
            block_mul(y + strip * ldq, ldq, t.s_t + strip, QT, COLS, v, ldv, n, D, seen, j0 > from);
        }
    }
    for (size_t i = 0; i < t.n; i++) factor[i] = 1 / sum[i], lse[i * H] = max[i] + logf(sum[i]);
    rows_scale(y, ldq, factor, t.n, D);
#if BITS == 16
    rows_round(o, h->ldq, y, t.n, D, 0);
#endif
}

/* One query, as in decoding: a tile would compute 16 lanes for it. Scores of up to KT keys by dot products,
 * then the values. */
/* o += sum_j p_j v_j for the columns of one vector: four chains, so that no addition waits for the one before it. */
INLINE void values_add(float *o, const real *v, size_t ldv, const float *p, size_t keys, size_t cols) {
    vf a = vget(o, cols), b = vset(0), c = b, d = b;
    size_t j = 0;
    for (; j + 4 <= keys; j += 4, v += 4 * ldv) {
        a = vfma(vset(p[j]), vget(v, cols), a), b = vfma(vset(p[j + 1]), vget(v + ldv, cols), b);
        c = vfma(vset(p[j + 2]), vget(v + 2 * ldv, cols), c), d = vfma(vset(p[j + 3]), vget(v + 3 * ldv, cols), d);
    }
    for (; j < keys; j++, v += ldv) a = vfma(vset(p[j]), vget(v, cols), a);
    vput(o, (a + b) + (c + d), cols);
}
static void attend_one(real *out, float *lse, const Head *h) {
    float s[KT], max = -1e30f, sum = 0;
#if BITS == 16
    float *o = h->space;
#else
    float *o = out;
#endif
    memset(o, 0, h->D * sizeof *o);
    for (size_t j0 = key_first(h, h->past); j0 <= h->past; j0 += KT) {
        const size_t keys = h->past + 1 - j0 < KT ? h->past + 1 - j0 : KT;
        const real *k = h->k + j0 * h->ldk, *v = h->v + j0 * h->ldk;
        const float old = max;
        for (size_t j = 0; j < keys; j++) {
            // the next tile's rows: a head's lie far apart, so the hardware does not guess them
            for (size_t c = 0; c < h->D; c += 64 / sizeof(real)) {
                __builtin_prefetch(k + (j + KT) * h->ldk + c, 0, 2);
                __builtin_prefetch(v + (j + KT) * h->ldk + c, 0, 2);
            }
            s[j] = h->scale * row_dot(h->q, k + j * h->ldk, h->D);
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
    for (size_t c = 0; c < h->D; c += VW) vput(out + c, vget(o + c, h->D - c) * vset(1 / sum), h->D - c);
    *lse = max + logf(sum);
}

static Head head_at(const real *q, const real *k, const real *v, const int *start, double scale, const AttnDims *d,
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
    real *o, *dq, *dk, *dv;
    const real *q, *k, *v, *dout;
    float *lse;
    const int *start;
    double scale;
    const AttnDims *d;
    size_t tiles, copy, stride; // copy: of dk or dv of one head
    float *work;
} AttnJob;

/* The workspace has a part for every head: dk and dv of a query head first, then (BF16) the widened tiles of a thread.
 * */
static float *attn_part(const AttnJob *j, size_t i) {
    return (float *)((char *)j->work + attention_work(j->d) / ((size_t)j->d->B * j->d->H) * i);
}

static void attend_tile(const AttnJob *j, size_t bh, size_t tile) {
    const AttnDims *d = j->d;
    const size_t b = bh / d->H, head = bh % d->H, i0 = tile * QT, row = (b * d->T + i0) * d->H + head;
    Head h = head_at(j->q, j->k, j->v, j->start, j->scale, d, b, head);
#if BITS == 16
    h.space = attn_part(j, pool_me());
#endif
    if (d->T == 1) attend_one(j->o + row * d->D, j->lse + row, &h);
    else attend(j->o + row * d->D, j->lse + row, d->H, &h, i0);
}
// long rows first
static void attend_task(const void *job, size_t u) {
    const AttnJob *j = job;
#if BITS == 16 // one head a task: as many parts of the workspace
    for (size_t t = j->tiles; t-- > 0;) attend_tile(j, u, t);
#else
    attend_tile(j, u / j->tiles, j->tiles - 1 - u % j->tiles);
#endif
}
static void attention_forward(real *o, float *lse, const real *q, const real *k, const real *v, const int *start,
                              double scale, void *work, const AttnDims *d) {
    const size_t heads = (size_t)d->B * d->H, tiles = ((size_t)d->T + QT - 1) / QT;
    const AttnJob j = {.o = o,
                       .lse = lse,
                       .q = q,
                       .k = k,
                       .v = v,
                       .start = start,
                       .scale = scale,
                       .d = d,
                       .tiles = tiles,
                       .work = work};
    pool_run_if(heads * d->T * (d->past + d->T) * d->D > ALONE, BITS == 16 ? heads : heads * tiles, attend_task, &j);
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
    real *dq;
    float *dk, *dv;
    const real *dout, *o;
    const float *lse;
    size_t H, lddk;
} HeadGrad;

/* All that one tile of queries adds. */
static void attend_backward(const HeadGrad *g, const Head *h, size_t i0) {
    QueryTile t;
    float do_t[DB * QT], dp_t[KT * QT], lse[QT], delta[QT];
    const size_t D = h->D, tile = QT * D, n_q = h->T - i0 < QT ? h->T - i0 : QT;
    size_t ldq = h->ldq, ld = h->ldq;
    const float *q = rows_float(h->space, h->q + i0 * h->ldq, &ldq, n_q, D),
                *dout = rows_float(h->space + tile, g->dout + i0 * h->ldq, &ld, n_q, D);
#if BITS == 16
    float *dq = h->space + 2 * tile;
    memset(dq, 0, n_q * D * sizeof *dq);
#else
    float *dq = g->dq + i0 * h->ldq;
#endif
    query_tile_load(&t, h, i0, q, ldq);
    if (D <= DB) columns_load(do_t, dout, ldq, t.n, D, 1);
    for (size_t i = 0; i < t.lanes; i++) {
        lse[i] = i < t.n ? g->lse[(i0 + i) * g->H] : INFINITY;
        delta[i] = i < t.n ? row_dot(g->dout + (i0 + i) * h->ldq, g->o + (i0 + i) * h->ldq, D) : 0;
    }
    for (size_t j0 = t.key_from / KT * KT; j0 < t.key_to; j0 += KT) {
        const size_t keys = t.key_to - j0 < KT ? t.key_to - j0 : KT, width = strip_width(&t, j0, keys);
        const int mask = tile_masked(&t, j0, keys);
        size_t ldk = h->ldk, ldv = h->ldk;
        const float *k = rows_float(h->space + 3 * tile, h->k + j0 * h->ldk, &ldk, keys, D),
                    *v = rows_float(h->space + 4 * tile, h->v + j0 * h->ldk, &ldv, keys, D);
        for (size_t strip = 0; strip < t.n; strip += width) {
            const size_t seen = strip_keys(&t, strip, width, j0, keys), n = t.n - strip < width ? t.n - strip : width;
            if (!seen) continue;
            strip_scores(t.s_t, k, ldk, t.q_t, q, ldq, h->scale, t.n, D, seen, strip, width);
            strip_scores(dp_t, v, ldv, do_t, dout, ldq, 1, t.n, D, seen, strip, width);
            strip_slopes(&t, dp_t, lse, delta, h->scale, j0, seen, strip, width, mask);
            block_mul(g->dv + j0 * g->lddk, g->lddk, t.s_t + strip, QT, ROWS, dout + strip * ldq, ldq, seen, D, n, 1);
            block_mul(g->dk + j0 * g->lddk, g->lddk, dp_t + strip, QT, ROWS, q + strip * ldq, ldq, seen, D, n, 1);
            block_mul(dq + strip * ldq, ldq, dp_t + strip, QT, COLS, k, ldk, n, D, seen, 1);
        }
    }
#if BITS == 16
    rows_round(g->dq + i0 * h->ldq, h->ldq, dq, n_q, D, 1);
#endif
}

/* dk and dv of one key/value head, from the copies of the heads that read it, in order */
static void group_add(real *dk, const float *copies, size_t step, const AttnDims *d) {
    const size_t group = (size_t)d->H / d->Hk, D = d->D;
    for (size_t t = 0; t < (size_t)d->T; t++)
        for (size_t c = 0; c < D; c += VW) {
            vf s = vset(0);
            for (size_t h = 0; h < group; h++) s = s + vget(copies + h * step + t * D + c, D - c);
            vput(dk + t * d->Hk * D + c, vget(dk + t * d->Hk * D + c, D - c) + s, D - c);
        }
}

/* Heads that share keys have copies of dk and dv of their own, and so has every head in BF16. */
static int attn_copies(const AttnDims *d) { return BITS == 16 || d->H != d->Hk; }
static void attend_backward_task(const void *job, size_t u) {
    const AttnJob *j = job;
    const AttnDims *d = j->d;
    const size_t b = u / d->H, head = u % d->H, row = b * d->T * d->H + head;
    Head h = head_at(j->q, j->k, j->v, j->start, j->scale, d, b, head);
    HeadGrad g = {.dq = j->dq + row * d->D,
                  .dout = j->dout + row * d->D,
                  .o = j->o + row * d->D,
                  .lse = j->lse + row,
                  .H = d->H,
                  .lddk = d->D};
    if (attn_copies(d)) {
        g.dk = attn_part(j, u), g.dv = g.dk + j->copy;
        memset(g.dk, 0, 2 * j->copy * sizeof(float));
    }
#if BITS == 16
    h.space = attn_part(j, pool_me()) + 2 * j->copy;
#else
    else {
        const size_t kv = (b * j->stride * d->Hk + head) * d->D;
        g.dk = j->dk + kv, g.dv = j->dv + kv, g.lddk = h.ldk;
    }
#endif
    for (size_t i0 = 0; i0 < h.T; i0 += QT) attend_backward(&g, &h, i0);
}
static void group_task(const void *job, size_t u) {
    const AttnJob *j = job;
    const AttnDims *d = j->d;
    const size_t b = u / d->Hk, hk = u % d->Hk, kv = (b * j->stride * d->Hk + hk) * d->D;
    const float *copies = attn_part(j, b * d->H + hk * (d->H / d->Hk));
    const size_t step = (size_t)(attn_part(j, 1) - attn_part(j, 0));
    group_add(j->dk + kv, copies, step, d);
    group_add(j->dv + kv, copies + j->copy, step, d);
}
static void attention_backward(real *dq, real *dk, real *dv, const real *dout, const real *o, const float *lse,
                               const real *q, const real *k, const real *v, const int *start, double scale, void *work,
                               const AttnDims *d) {
    const size_t heads = (size_t)d->B * d->H;
    const int enough = heads * d->T * d->T * d->D > ALONE;
    const AttnJob j = {.o = (real *)o,
                       .dq = dq,
                       .dk = dk,
                       .dv = dv,
                       .q = q,
                       .k = k,
                       .v = v,
                       .dout = dout,
                       .lse = (float *)lse,
                       .start = start,
                       .scale = scale,
                       .d = d,
                       .copy = (size_t)d->T * d->D,
                       .stride = d->stride ? d->stride : d->T,
                       .work = work};
    pool_run_if(enough, heads, attend_backward_task, &j);
    if (attn_copies(d)) pool_run_if(enough, (size_t)d->B * d->Hk, group_task, &j);
}
