/* delta_rule.c - the gated delta rule by chunks of at most 64 tokens, on the products of tile.h;
 * (batch, key head) in parallel.
 *
 * With G_i the sum of g over the chunk's rows up to i, Gam_ij = e^{G_i - G_j} (i >= j, same document;
 * else 0), in_i = e^{G_i} (0 if a document began inside the chunk), out_i = e^{G_n - G_i} (0 if another document began
 * after i), and S the state before:
 *   M  = tril(beta (K K^T o Gam), -1)      V' = (I + M)^{-1} beta (V - in o (K S))     by forward substitution,
 *      no inverse
 *   P  = scale tril(Q K^T o Gam)           O  = (scale in o Q) S + P V'
 *   S <- e^{G_n} S + (out o K)^T V'
 * Backward, dS belonging to the state after, W = (I + M)^{-T} dV' by backward substitution:
 *   dV' = (out o K) dS + P^T dO            dV = dR = beta W           dbeta_i = W_i .
 *   R_i + sum_j dM_ij (K K^T o Gam)_ij
 *   dP  = dO V'^T,  dM = -W V'^T           E = beta dM o Gam (strictly lower),  F = scale dP o Gam (lower)
 *   dQ  = F K + scale in o (dO S^T)        dK = F^T Q + (E + E^T) K + out o (V' dS^T) - in o (dR S^T)
 *   dg_t = sum of Z_ij over pairs j < t <= i (Z = E o K K^T + F o Q K^T), of Q_i.(dQ's state part) + K_i.(-in o dR S^T)
 *          over i >= t, of K_j.(out o V' dS^T) over j < t, and e^{G_n} <S, dS>: all that decays over token t, no sum
 *          of which is subtracted from another
 *   dS <- e^{G_n} dS + Q^T (scale in o dO) - K^T (in o dR)
 * Source: ref/METHOD.md 6.2 (Yang, Kautz, Hatamizadeh, arXiv 2412.06464), with the inverse replaced by two
 * substitutions. */
#include "scan.h"

enum { SOLVE = 8 }; // rows of a substitution block

typedef struct {
    float step[CT], in[CT], out[CT], beta[CT], last; // step_i = e^{g_i}, 0 where a document begins; last: e^{G_n} or 0
    float gam[CT];                                   // row i of Gam while rows are walked through; out in the end
} Decay;

/* All decays are products of steps, never exponentials of sums: nothing is lost by a strong decay earlier in the chunk.
 * */
static void decay_make(Decay *d, const Chunk *c) {
    memset(d, 0, sizeof *d);
    for (size_t i = 0; i < c->n; i++) d->step[i] = c->g[i * c->ldg], d->beta[i] = c->beta[i * c->ldg];
    for (size_t i = 0; i < pad16(c->n); i += VW) vstore(d->step + i, vexp(vload(d->step + i)));
    float in = 1;
    for (size_t i = 0; i < c->n; i++) {
        if (row_resets(c, i)) d->step[i] = 0;
        d->in[i] = in *= d->step[i];
    }
    float out = 1;
    for (size_t i = c->n; i-- > 0;) d->out[i] = out, out *= d->step[i];
    d->last = in;
}

/* Lanes j..j+VW-1 of row i of Gam, from row i-1: the step times what was there, 1 on the diagonal, 0 above it.
 * In order of i. */
INLINE vf decay_row(Decay *d, size_t i, size_t j) {
    const vf lane = vload(IOTA) + vset((float)j), row = vset((float)i), down = vload(d->gam + j) * vset(d->step[i]);
    const vf gam = vless(row, lane, vset(0), vless(lane, row, down, vset(1)));
    vstore(d->gam + j, gam);
    return gam;
}

/* One 8-row block of (I + M) y = y, or of its transpose, in registers; m holds -M. */
static void solve_block(float *y, const float *m, size_t V) {
    for (size_t c = 0; c < V; c += VW) {
        const size_t k = V - c;
        float *p = y + c;
        vf x0 = vget(p, k), x1 = vget(p + V, k), x2 = vget(p + 2 * V, k), x3 = vget(p + 3 * V, k);
        vf x4 = vget(p + 4 * V, k), x5 = vget(p + 5 * V, k), x6 = vget(p + 6 * V, k), x7 = vget(p + 7 * V, k);
        const float *m1 = m + CT, *m2 = m1 + CT, *m3 = m2 + CT, *m4 = m3 + CT, *m5 = m4 + CT, *m6 = m5 + CT,
                    *m7 = m6 + CT;
        x1 = vfma(vset(m1[0]), x0, x1), x2 = vfma(vset(m2[0]), x0, x2), x3 = vfma(vset(m3[0]), x0, x3),
        x4 = vfma(vset(m4[0]), x0, x4);
        x5 = vfma(vset(m5[0]), x0, x5), x6 = vfma(vset(m6[0]), x0, x6), x7 = vfma(vset(m7[0]), x0, x7),
        x2 = vfma(vset(m2[1]), x1, x2);
        x3 = vfma(vset(m3[1]), x1, x3), x4 = vfma(vset(m4[1]), x1, x4), x5 = vfma(vset(m5[1]), x1, x5),
        x6 = vfma(vset(m6[1]), x1, x6);
        x7 = vfma(vset(m7[1]), x1, x7), x3 = vfma(vset(m3[2]), x2, x3), x4 = vfma(vset(m4[2]), x2, x4),
        x5 = vfma(vset(m5[2]), x2, x5);
        x6 = vfma(vset(m6[2]), x2, x6), x7 = vfma(vset(m7[2]), x2, x7), x4 = vfma(vset(m4[3]), x3, x4),
        x5 = vfma(vset(m5[3]), x3, x5);
        x6 = vfma(vset(m6[3]), x3, x6), x7 = vfma(vset(m7[3]), x3, x7), x5 = vfma(vset(m5[4]), x4, x5),
        x6 = vfma(vset(m6[4]), x4, x6);
        x7 = vfma(vset(m7[4]), x4, x7), x6 = vfma(vset(m6[5]), x5, x6), x7 = vfma(vset(m7[5]), x5, x7),
        x7 = vfma(vset(m7[6]), x6, x7);
        vput(p + V, x1, k), vput(p + 2 * V, x2, k), vput(p + 3 * V, x3, k), vput(p + 4 * V, x4, k);
        vput(p + 5 * V, x5, k), vput(p + 6 * V, x6, k), vput(p + 7 * V, x7, k);
    }
}
static void solve_block_transposed(float *y, const float *m, size_t V) {
    for (size_t c = 0; c < V; c += VW) {
        const size_t k = V - c;
        float *p = y + c;
        vf x0 = vget(p, k), x1 = vget(p + V, k), x2 = vget(p + 2 * V, k), x3 = vget(p + 3 * V, k);
        vf x4 = vget(p + 4 * V, k), x5 = vget(p + 5 * V, k), x6 = vget(p + 6 * V, k), x7 = vget(p + 7 * V, k);
        const float *m1 = m + CT, *m2 = m1 + CT, *m3 = m2 + CT, *m4 = m3 + CT, *m5 = m4 + CT, *m6 = m5 + CT,
                    *m7 = m6 + CT;
        x6 = vfma(vset(m7[6]), x7, x6), x5 = vfma(vset(m7[5]), x7, x5), x4 = vfma(vset(m7[4]), x7, x4),
        x3 = vfma(vset(m7[3]), x7, x3);
        x2 = vfma(vset(m7[2]), x7, x2), x1 = vfma(vset(m7[1]), x7, x1), x0 = vfma(vset(m7[0]), x7, x0),
        x5 = vfma(vset(m6[5]), x6, x5);
        x4 = vfma(vset(m6[4]), x6, x4), x3 = vfma(vset(m6[3]), x6, x3), x2 = vfma(vset(m6[2]), x6, x2),
        x1 = vfma(vset(m6[1]), x6, x1);
        x0 = vfma(vset(m6[0]), x6, x0), x4 = vfma(vset(m5[4]), x5, x4), x3 = vfma(vset(m5[3]), x5, x3),
        x2 = vfma(vset(m5[2]), x5, x2);
        x1 = vfma(vset(m5[1]), x5, x1), x0 = vfma(vset(m5[0]), x5, x0), x3 = vfma(vset(m4[3]), x4, x3),
        x2 = vfma(vset(m4[2]), x4, x2);
        x1 = vfma(vset(m4[1]), x4, x1), x0 = vfma(vset(m4[0]), x4, x0), x2 = vfma(vset(m3[2]), x3, x2),
        x1 = vfma(vset(m3[1]), x3, x1);
        x0 = vfma(vset(m3[0]), x3, x0), x1 = vfma(vset(m2[1]), x2, x1), x0 = vfma(vset(m2[0]), x2, x0),
        x0 = vfma(vset(m1[0]), x1, x0);
        vput(p, x0, k), vput(p + V, x1, k), vput(p + 2 * V, x2, k), vput(p + 3 * V, x3, k);
        vput(p + 4 * V, x4, k), vput(p + 5 * V, x5, k), vput(p + 6 * V, x6, k);
    }
}
/* The last, shorter block: y_i += sum_j m_ij y_j one row at a time, from above or (transposed) from below. */
static void solve_rest(float *y, const float *m, size_t V, size_t n, int transposed) {
    for (size_t s = 1; s < n; s++) {
        const size_t i = transposed ? n - 1 - s : s;
        for (size_t j = transposed ? i + 1 : 0; j < (transposed ? n : i); j++) {
            const vf f = vset(transposed ? m[j * CT + i] : m[i * CT + j]);
            for (size_t c = 0; c < V; c += VW)
                vput(y + i * V + c, vfma(f, vget(y + j * V + c, V - c), vget(y + i * V + c, V - c)), V - c);
        }
    }
}
/* (I + M) x = y in place, m = -M */
static void solve(float *y, const float *m, size_t n, size_t V) {
    for (size_t i = 0; i < n; i += SOLVE) {
        const size_t b = n - i < SOLVE ? n - i : SOLVE;
        if (i) block_mul(y + i * V, V, m + i * CT, CT, ROWS, y, V, b, V, i, 1);
        if (b == SOLVE) solve_block(y + i * V, m + i * CT + i, V);
        else solve_rest(y + i * V, m + i * CT + i, V, b, 0);
    }
}
/* (I + M)^T x = y in place */
static void solve_transposed(float *y, const float *m, size_t n, size_t V) {
    for (size_t i = (n - 1) / SOLVE * SOLVE;; i -= SOLVE) {
        const size_t b = n - i < SOLVE ? n - i : SOLVE, next = i + b;
        if (next < n) block_mul(y + i * V, V, m + next * CT + i, CT, COLS, y + next * V, V, b, V, n - next, 1);
        if (b == SOLVE) solve_block_transposed(y + i * V, m + i * CT + i, V);
        else solve_rest(y + i * V, m + i * CT + i, V, b, 1);
        if (i == 0) return;
    }
}

/* r = V - in o (K S), and y = beta r */
static void residual(float *r, float *y, const Chunk *c, const Decay *d, const float *S) {
    chunk_mul(c, r, c->V, c->k, c->ldq, ROWS, S, c->V, c->n, c->V, c->K, 0);
    for (size_t i = 0; i < c->n; i++)
        for (size_t e = 0; e < c->V; e += VW) {
            const size_t left = c->V - e, at = i * c->V + e;
            const vf x = vfnma(vset(d->in[i]), vget(r + at, left), vget(c->v + i * c->ldv + e, left));
            vput(r + at, x, left);
            vput(y + at, x * vset(d->beta[i]), left);
        }
}

/* S' = e^{G_n} S + (out o K)^T V' */
static void state_next(float *S_next, const float *S, const Chunk *c, const Decay *d, float *k_out,
                       const float *v_new) {
    rows_times(k_out, c->k, c->ldq, d->out, 1, c->n, c->K);
    scale_all(S_next, S, d->last, c->K * c->V);
    chunk_mul(c, S_next, c->V, k_out, c->K, COLS, v_new, c->V, c->K, c->V, c->n, 1);
}

/* m = -M, p = P (p may be NULL) from the raw products already there */
static void decay_apply(float *m, float *p, const Chunk *c, Decay *d) {
    for (size_t i = 0; i < c->n; i++)
        for (size_t j = 0; j < pad16(i + 1); j += VW) {
            const vf gam = decay_row(d, i, j);
            float *m_i = m + i * CT + j;
            vstore(m_i, strictly(vload(m_i) * gam * vset(-d->beta[i]), i, j));
            if (p) vstore(p + i * CT + j, lower(vload(p + i * CT + j) * gam * vset(c->scale), i, j));
        }
}

/* One chunk; o NULL: only the next state. work: K^T (K, pad16 n), 2 (n, K), 2 (n, V) */
static void chunk_forward(float *o, float *S_next, const float *S, const Chunk *c, float *work) {
    Decay d;
    float m[CT * CT], p[CT * CT];
    const size_t ldt = pad16(c->n);
    float *k_t = work, *row = k_t + ldt * c->K, *r = row + c->n * c->K, *v_new = r + c->n * c->V;
    decay_make(&d, c);
    transpose(k_t, ldt, c->k, c->ldq, c->n, c->K);
    lower_product(c, m, c->k, c->ldq, k_t, ldt, c->n, c->K);
    if (o) lower_product(c, p, c->q, c->ldq, k_t, ldt, c->n, c->K);
    decay_apply(m, o ? p : NULL, c, &d);
    residual(r, v_new, c, &d, S);
    solve(v_new, m, c->n, c->V);
    if (o) {
        rows_times(row, c->q, c->ldq, d.in, c->scale, c->n, c->K);
        chunk_mul(c, o, c->ldv, row, c->K, ROWS, S, c->V, c->n, c->V, c->K, 0);
        lower_apply(c, o, c->ldv, p, v_new, c->V, c->n, c->V);
    }
    state_next(S_next, S, c, &d, row, v_new);
}

/* ---- backward ---- */

typedef struct {
    float gam[CT * CT], kk[CT * CT], qk[CT * CT], m[CT * CT], p[CT * CT]; // Gam, K K^T, Q K^T, -M, P
    float E[CT * CT], F[CT * CT];                                         // dM and dP on the way
    double dg[CT];
} Squares;

static void squares_make(Squares *s, const Chunk *c, Decay *d) {
    for (size_t i = 0; i < c->n; i++)
        for (size_t j = 0; j < pad16(i + 1); j += VW) {
            const size_t at = i * CT + j;
            const vf gam = decay_row(d, i, j);
            vstore(s->gam + at, gam);
            vstore(s->m + at, strictly(vload(s->kk + at) * gam * vset(-d->beta[i]), i, j));
            vstore(s->p + at, lower(vload(s->qk + at) * gam * vset(c->scale), i, j));
        }
}

/* From E = W V'^T (= -dM) and F = dP: the final E and F, Z's part of dg, and dbeta's second term. Rows go upwards:
 * `columns` then holds the sums of Z over rows i >= t. */
static void squares_backward(Squares *s, float *dbeta, const Chunk *c, const Decay *d) {
    float columns[CT] = {0};
    for (size_t i = c->n; i-- > 0;) {
        vf across = vset(0), b = vset(0);
        for (size_t j = 0; j < pad16(i + 1); j += VW) {
            const size_t at = i * CT + j;
            const vf gam = vload(s->gam + at);
            const vf e = strictly(vset(0) - vload(s->E + at) * gam, i, j);
            const vf f = lower(vload(s->F + at) * gam * vset(c->scale), i, j),
                     ekk = strictly(e * vload(s->kk + at), i, j);
            const vf z = vfma(ekk, vset(d->beta[i]), strictly(f * vload(s->qk + at), i, j)),
                     sum = vload(columns + j) + z;
            vstore(s->E + at, e * vset(d->beta[i]));
            vstore(s->F + at, f);
            vstore(columns + j, sum);
            across = across + strictly(sum, i, j), b = b + ekk;
        }
        s->dg[i] = vsum(across);
        dbeta[i * c->ldg] += vsum(b);
    }
}

/* y_i += a_i . x_i */
static void dots_add(double *y, const float *a, size_t lda, const float *x, size_t n, size_t width) {
    for (size_t i = 0; i < n; i++) y[i] += row_dot(a + i * lda, x + i * width, width);
}
/* dg from its parts: in: through the state before, a row; out: through the state after; all: through both. */
static void decay_backward(float *dg, const double *pairs, const double *in, const double *out, double all,
                           const Chunk *c) {
    double left[CT], sum = 0;
    for (size_t i = 0; i < c->n; i++) left[i] = sum, sum += out[i];
    sum = 0;
    for (size_t i = c->n; i-- > 0;) {
        sum += in[i];
        if (!row_resets(c, i)) dg[i * c->ldg] += (float)(pairs[i] + sum + left[i] + all);
    }
}

/* dS: gradient of the state after on entry, of the state before, S, on return. */
static void chunk_backward(const ScanGrad *g, float *dS, const float *S, const Chunk *c, float *work) {
    Decay d;
    Squares s;
    double in[CT] = {0}, out[CT] = {0};
    const size_t n = c->n, K = c->K, V = c->V, ldt = pad16(n);
    float *k_t = work, *v_t = k_t + ldt * K, *r = v_t + ldt * V, *v_new = r + n * V, *w = v_new + n * V, *x = w + n * V,
          *u = x + n * V, *y = u + n * K, *S_t = y + n * K, *dS_t = S_t + K * V;
    decay_make(&d, c);
    transpose(k_t, ldt, c->k, c->ldq, n, K);
    lower_product(c, s.kk, c->k, c->ldq, k_t, ldt, n, K);
    lower_product(c, s.qk, c->q, c->ldq, k_t, ldt, n, K);
    squares_make(&s, c, &d);
    residual(r, v_new, c, &d, S);
    solve(v_new, s.m, n, V);

    rows_times(u, c->k, c->ldq, d.out, 1, n, K); // dV' = (out o K) dS + P^T dO, W
    chunk_mul(c, w, V, u, K, ROWS, dS, V, n, V, K, 0);
    lower_apply_transposed(c, w, V, s.p, g->dout, c->ldv, n, V);
    solve_transposed(w, s.m, n, V);

    transpose(v_t, ldt, v_new, V, n, V);
    lower_product(c, s.F, g->dout, c->ldv, v_t, ldt, n, V);
    lower_product(c, s.E, w, V, v_t, ldt, n, V);
    squares_backward(&s, g->dbeta, c, &d);
    for (size_t i = 0; i < n; i++) g->dbeta[i * c->ldg] += row_dot(w + i * V, r + i * V, V);

    transpose(S_t, K, S, V, K, V);
    transpose(dS_t, K, dS, V, K, V);
    rows_times(r, g->dout, c->ldv, d.in, c->scale, n, V); // dQ = scale in o (dO S^T) + F K
    chunk_mul(c, u, K, r, V, ROWS, S_t, K, n, K, V, 0);
    dots_add(in, c->q, c->ldq, u, n, K);
    lower_apply(c, u, K, s.F, c->k, c->ldq, n, K);
    rows_add(g->dq, c->ldq, u, n, K);

    for (size_t i = 0; i < n; i++) // dV = beta W; x = -in o dR
        for (size_t e = 0; e < V; e += VW) {
            const vf dr = vget(w + i * V + e, V - e) * vset(d.beta[i]);
            float *dv = g->dv + i * c->ldv + e;
            vput(dv, vget(dv, V - e) + dr, V - e);
            vput(x + i * V + e, dr * vset(-d.in[i]), V - e);
        }
    chunk_mul(c, u, K, x, V, ROWS, S_t, K, n, K, V, 0);
    dots_add(in, c->k, c->ldq, u, n, K);
    chunk_mul(c, y, K, v_new, V, ROWS, dS_t, K, n, K, V, 0);
    rows_times(y, y, K, d.out, 1, n, K);
    dots_add(out, c->k, c->ldq, y, n, K);
    const double all = (double)d.last * row_dot(S, dS, K * V);
    lower_apply_transposed(c, u, K, s.F, c->q, c->ldq, n, K);
    lower_apply(c, u, K, s.E, c->k, c->ldq, n, K);
    lower_apply_transposed(c, u, K, s.E, c->k, c->ldq, n, K);
    rows_add(g->dk, c->ldq, u, n, K);
    rows_add(g->dk, c->ldq, y, n, K);

    scale_all(dS, dS, d.last, K * V);
    chunk_mul(c, dS, V, c->q, c->ldq, COLS, r, V, K, V, n, 1);
    chunk_mul(c, dS, V, c->k, c->ldq, COLS, x, V, K, V, n, 1);
    decay_backward(g->dg, s.dg, in, out, all, c);
}

/* ---- the ops ---- */

static const Scan delta_rule_scan = {ONE_A_HEAD, delta_rule_work, chunk_forward, chunk_backward};

static void delta_rule_forward(real *o, real *states, float *state, const real *q, const real *k, const real *v,
                               const float *g, const float *beta, const int *start, double scale, void *work,
                               const DeltaDims *d) {
    scan_forward((ScanJob){&delta_rule_scan, d, .o = o, .states = states, .state = state, .q = q, .k = k, .v = v,
                           .g = g, .beta = beta, .start = start, .scale = scale, .work = work});
}

static void delta_rule_backward(real *dq, real *dk, real *dv, float *dg, float *dbeta, float *dstate, const real *dout,
                                const real *states, const real *q, const real *k, const real *v, const float *g,
                                const float *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    scan_backward((ScanJob){&delta_rule_scan, d, .states = (real *)states, .dstate = dstate, .q = q, .k = k, .v = v,
                            .g = g, .beta = beta, .grad = {dq, dk, dv, dg, dbeta, dout}, .start = start, .scale = scale,
                            .work = work});
}
