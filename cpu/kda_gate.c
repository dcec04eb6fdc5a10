/* kda_gate.c - what stands around Kimi delta attention: its gates. A task has ROW_BLOCK rows, or a head. */
#include "parallel.h"

typedef struct {
    real *df, *db;
    float *g, *beta, *dA_log, *ddt_bias; // outputs
    const real *f, *b;
    const float *A_log, *dt_bias, *dg, *dbeta, *of_g, *of_beta; // of_: what forward gave
    float lower;                                                // of the bounded gate, or 0
    size_t N, H, K;
} KdaGateJob;

/* rows are (token, head): `rows` of them from n */
static void kda_gate_task(const void *job, size_t b) {
    const KdaGateJob *j = job;
    const real *f = j->f;
    const float *A_log = j->A_log, *dt_bias = j->dt_bias;
    const size_t first = b * ROW_BLOCK, K = j->K, end = first + block_size(b, ROW_BLOCK, j->N * j->H);
    for (size_t n = first; n < end; n++) {
        const size_t h = n % j->H;
        const vf rate = vset(0) - vexp(vset(A_log[h])), lower = vset(j->lower);
        for (size_t a = 0; a < K; a += VW) {
            const vf u = vget(f + n * K + a, K - a) + vget(dt_bias + h * K + a, K - a);
            vput(j->g + n * K + a, j->lower < 0 ? lower * vsigmoid(vset(0) - rate * u) : rate * vsoftplus(u), K - a);
        }
    }
    for (size_t n = first; n < end; n += VW) vput(j->beta + n, vsigmoid(vget(j->b + n, end - n)), end - n);
}
static void kda_gate_forward(float *g, float *beta, const real *f, const real *b, const float *A_log,
                             const float *dt_bias, double lower, int N, int H, int K) {
    const KdaGateJob j = {.g = g,
                          .beta = beta,
                          .f = f,
                          .b = b,
                          .A_log = A_log,
                          .dt_bias = dt_bias,
                          .lower = (float)lower,
                          .N = N,
                          .H = H,
                          .K = K};
    pool_run_if(j.N * H * K > ALONE / 8, row_blocks(j.N * H), kda_gate_task, &j);
}

/* dg times the slope of g in f: -exp(A_log) sigmoid(f + dt_bias), or that of the bounded gate; rate: -exp(A_log) */
INLINE vf kda_gate_slope(const float *dg, const real *f, const float *dt_bias, vf rate, float lower, size_t m) {
    const vf u = vget(f, m) + vget(dt_bias, m);
    if (lower < 0) return vget(dg, m) * (vset(-lower) * vsigmoid(rate * u) * vsigmoid(vset(0) - rate * u) * rate);
    return vget(dg, m) * (rate * vsigmoid(u));
}
static void kda_gate_task_backward(const void *job, size_t b) {
    const KdaGateJob *j = job;
    const real *f = j->f;
    const float *dg = j->dg, *dbeta = j->dbeta, *beta = j->of_beta, *A_log = j->A_log, *dt_bias = j->dt_bias;
    const size_t first = b * ROW_BLOCK, K = j->K, end = first + block_size(b, ROW_BLOCK, j->N * j->H);
    for (size_t n = first; n < end; n++) {
        const size_t h = n % j->H;
        const vf rate = vset(0) - vexp(vset(A_log[h]));
        for (size_t a = 0; a < K; a += VW) {
            real *df = j->df + n * K + a;
            vput(df,
                 vget(df, K - a) +
                     kda_gate_slope(dg + n * K + a, f + n * K + a, dt_bias + h * K + a, rate, j->lower, K - a),
                 K - a);
        }
    }
    for (size_t n = first; n < end; n += VW) {
        const vf s = vget(beta + n, end - n);
        real *db = j->db + n;
        vput(db, vfma(vget(dbeta + n, end - n), s * (vset(1) - s), vget(db, end - n)), end - n);
    }
}
/* One head's parameters: sums over tokens in order. */
static void kda_gate_head(const void *job, size_t h) {
    const KdaGateJob *j = job;
    const real *f = j->f;
    const float *dg = j->dg, *g = j->of_g, *A_log = j->A_log, *dt_bias = j->dt_bias;
    const size_t K = j->K;
    const vf rate = vset(0) - vexp(vset(A_log[h]));
    float *dA_log = j->dA_log, *ddt_bias = j->ddt_bias;
    vf total = vset(0);
    for (size_t n = 0; n < j->N; n++) {
        const size_t row = (n * j->H + h) * K;
        for (size_t a = 0; a < K; a += VW) {
            const size_t m = K - a;
            const vf slope = kda_gate_slope(dg + row + a, f + row + a, dt_bias + h * K + a, rate, j->lower, m);
            if (ddt_bias) vput(ddt_bias + h * K + a, vget(ddt_bias + h * K + a, m) + slope, m);
            if (j->lower < 0) total = vfma(slope, vget(f + row + a, m) + vget(dt_bias + h * K + a, m), total);
            else total = vfma(vget(dg + row + a, m), vget(g + row + a, m), total);
        }
    }
    if (dA_log) dA_log[h] += vsum(total);
}
static void kda_gate_backward(real *df, real *db, float *dA_log, float *ddt_bias, const float *dg, const float *dbeta,
                              const real *f, const float *g, const float *beta, const float *A_log,
                              const float *dt_bias, double lower, int N, int H, int K) {
    const KdaGateJob j = {.df = df,
                          .db = db,
                          .dA_log = dA_log,
                          .ddt_bias = ddt_bias,
                          .f = f,
                          .A_log = A_log,
                          .dt_bias = dt_bias,
                          .dg = dg,
                          .dbeta = dbeta,
                          .of_g = g,
                          .of_beta = beta,
                          .lower = (float)lower,
                          .N = N,
                          .H = H,
                          .K = K};
    const int enough = j.N * H * K > ALONE / 8;
    pool_run_if(enough, row_blocks(j.N * H), kda_gate_task_backward, &j);
    if (dA_log || ddt_bias) pool_run_if(enough, H, kda_gate_head, &j);
}
