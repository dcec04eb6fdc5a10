/* kda_gate.c - what stands around Kimi delta attention: its gates, and the norm with the sigmoid gate. A task has ROW_BLOCK rows, or a head. */
#include "parallel.h"

typedef struct {
    float *out[4];
    const float *in[6];
    size_t N, H, K;
} KdaGateJob;

/* rows are (token, head): `rows` of them from n */
static void kda_gate_task(const void *job, size_t b) {
    const KdaGateJob *j = job;
    const float *f = j->in[0], *A_log = j->in[2], *dt_bias = j->in[3];
    const size_t first = b * ROW_BLOCK, K = j->K, end = first + block_size(b, ROW_BLOCK, j->N * j->H);
    for (size_t n = first; n < end; n++) {
        const size_t h = n % j->H;
        const vf rate = vset(0) - vexp(vset(A_log[h]));
        for (size_t a = 0; a < K; a += VW)
            vput(j->out[0] + n * K + a, rate * vsoftplus(vget(f + n * K + a, K - a) + vget(dt_bias + h * K + a, K - a)), K - a);
    }
    for (size_t n = first; n < end; n += VW) vput(j->out[1] + n, vsigmoid(vget(j->in[1] + n, end - n)), end - n);
}
static void kda_gate_forward(float *g, float *beta, const float *f, const float *b, const float *A_log, const float *dt_bias, int N, int H,
                             int K) {
    const KdaGateJob j = {{g, beta}, {f, b, A_log, dt_bias}, N, H, K};
    pool_run_if(j.N * H * K > ALONE / 8, row_blocks(j.N * H), kda_gate_task, &j);
}

/* dg times the slope of g in f: -exp(A_log) sigmoid(f + dt_bias) */
INLINE vf kda_gate_slope(const float *dg, const float *f, const float *dt_bias, vf rate, size_t m) {
    return vget(dg, m) * (rate * vsigmoid(vget(f, m) + vget(dt_bias, m)));
}
static void kda_gate_task_backward(const void *job, size_t b) {
    const KdaGateJob *j = job;
    const float *dg = j->in[0], *dbeta = j->in[1], *f = j->in[2], *beta = j->in[3], *A_log = j->in[4], *dt_bias = j->in[5];
    const size_t first = b * ROW_BLOCK, K = j->K, end = first + block_size(b, ROW_BLOCK, j->N * j->H);
    for (size_t n = first; n < end; n++) {
        const size_t h = n % j->H;
        const vf rate = vset(0) - vexp(vset(A_log[h]));
        for (size_t a = 0; a < K; a += VW) {
            float *df = j->out[0] + n * K + a;
            vput(df, vget(df, K - a) + kda_gate_slope(dg + n * K + a, f + n * K + a, dt_bias + h * K + a, rate, K - a), K - a);
        }
    }
    for (size_t n = first; n < end; n += VW) {
        const vf s = vget(beta + n, end - n);
        float *db = j->out[1] + n;
        vput(db, vfma(vget(dbeta + n, end - n), s * (vset(1) - s), vget(db, end - n)), end - n);
    }
}
/* One head's parameters: sums over tokens in order. */
static void kda_gate_head(const void *job, size_t h) {
    const KdaGateJob *j = job;
    const float *dg = j->in[0], *f = j->in[2], *g = j->in[3], *A_log = j->in[4], *dt_bias = j->in[5];
    const size_t K = j->K;
    const vf rate = vset(0) - vexp(vset(A_log[h]));
    float *dA_log = j->out[2], *ddt_bias = j->out[3];
    vf total = vset(0);
    for (size_t n = 0; n < j->N; n++) {
        const size_t row = (n * j->H + h) * K;
        for (size_t a = 0; a < K; a += VW) {
            const size_t m = K - a;
            if (ddt_bias) {
                float *d = ddt_bias + h * K + a;
                vput(d, vget(d, m) + kda_gate_slope(dg + row + a, f + row + a, dt_bias + h * K + a, rate, m), m);
            }
            total = vfma(vget(dg + row + a, m), vget(g + row + a, m), total);
        }
    }
    if (dA_log) dA_log[h] += vsum(total);
}
static void kda_gate_backward(float *df, float *db, float *dA_log, float *ddt_bias, const float *dg, const float *dbeta, const float *f,
                              const float *g, const float *beta, const float *A_log, const float *dt_bias, int N, int H, int K) {
    const KdaGateJob j = {{df, db}, {dg, dbeta, f, beta, A_log, dt_bias}, N, H, K};
    const KdaGateJob p = {{NULL, NULL, dA_log, ddt_bias}, {dg, dbeta, f, g, A_log, dt_bias}, N, H, K};
    const int enough = j.N * H * K > ALONE / 8;
    pool_run_if(enough, row_blocks(j.N * H), kda_gate_task_backward, &j);
    if (dA_log || ddt_bias) pool_run_if(enough, H, kda_gate_head, &p);
}

/* ---- y = x rstd w sigmoid(z) ---- */

static void sigmoid_norm_block(const void *job, size_t b) {
    const Job *j = job;
    for (size_t i = 0, n = b * ROW_BLOCK, C = j->C; i < block_size(b, ROW_BLOCK, j->N); i++, n++) {
        const float *x = j->in[0] + n * C, *z = j->in[1] + n * C, *w = j->in[2];
        const float r = 1 / sqrtf(row_dot(x, x, C) / (float)C + j->a);
        j->out[1][n] = r;
        for (size_t c = 0; c < C; c += VW)
            vput(j->out[0] + n * C + c, vget(x + c, C - c) * vset(r) * vget(w + c, C - c) * vsigmoid(vget(z + c, C - c)), C - c);
    }
}
static void sigmoid_rmsnorm_forward(float *y, float *rstd, const float *x, const float *z, const float *w, double eps, int N, int C) {
    blocks_of_rows(sigmoid_norm_block, (Job){{y, rstd}, {x, z, w}, .N = N, .C = C, .a = (float)eps});
}

static void sigmoid_norm_row_backward(float *dx, float *dz, const float *dy, const float *x, const float *z, const float *w, float r,
                                      size_t C) {
    vf dot = vset(0);
    for (size_t c = 0; c < C; c += VW) {
        const size_t k = C - c;
        const vf g = vget(z + c, k), s = vsigmoid(g), d = vget(dy + c, k) * vget(w + c, k), v = vget(x + c, k);
        dot = vfma(d * s, v, dot);
        vput(dz + c, vfma(d * v * vset(r), s * vsigmoid(vset(0) - g), vget(dz + c, k)), k);
    }
    const float m = vsum(dot) * r * r / (float)C;
    for (size_t c = 0; c < C; c += VW) {
        const size_t k = C - c;
        const vf t = vget(dy + c, k) * vget(w + c, k) * vsigmoid(vget(z + c, k));
        vput(dx + c, vfma(vset(r), vfnma(vget(x + c, k), vset(m), t), vget(dx + c, k)), k);
    }
}
static void sigmoid_norm_block_backward(const void *job, size_t b) {
    const Job *j = job;
    for (size_t i = 0, n = b * ROW_BLOCK; i < block_size(b, ROW_BLOCK, j->N); i++, n++) {
        const size_t nc = n * j->C;
        sigmoid_norm_row_backward(j->out[0] + nc, j->out[1] + nc, j->in[0] + nc, j->in[1] + nc, j->in[2] + nc, j->in[3], j->in[4][n], j->C);
    }
}
static void sigmoid_norm_columns(const void *job, size_t b) {
    const Job *j = job;
    const size_t from = b * j->block, n = block_size(b, j->block, j->C);
    float sums[COLUMN_MOST] = {0};
    for (size_t i = 0; i < j->N; i++) {
        const size_t first = i * j->C + from;
        const vf r = vset(j->in[4][i]);
        for (size_t c = 0; c < n; c += VW) {
            const size_t k = n - c;
            const vf x = vget(j->in[1] + first + c, k) * vsigmoid(vget(j->in[2] + first + c, k));
            vstore(sums + c, vfma(vget(j->in[0] + first + c, k) * r, x, vload(sums + c)));
        }
    }
    for (size_t c = 0; c < n; c++) j->out[2][from + c] += sums[c];
}
static void sigmoid_rmsnorm_backward(float *dx, float *dz, float *dw, const float *dy, const float *x, const float *z, const float *w,
                                     const float *rstd, int N, int C) {
    const Job j = {{dx, dz, dw}, {dy, x, z, w, rstd}, .N = N, .C = C};
    blocks_of_rows(sigmoid_norm_block_backward, j);
    if (dw) blocks_of_columns(sigmoid_norm_columns, j);
}
