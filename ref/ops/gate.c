/* gate.c - the gates of the linear mixers: log decay and write strength of Gated DeltaNet and of Kimi delta
 * attention, log decay of GLA. */
#include "ops/ref_math.h"

static void delta_gate_forward(wide *g, wide *beta, const real *a, const real *b, const wide *A_log,
                               const wide *dt_bias, int N, int H) {
    for (size_t nh = 0; nh < (size_t)N * H; nh++) {
        const size_t h = nh % H;
        g[nh] = -exp(A_log[h]) * softplus(a[nh] + dt_bias[h]);
        beta[nh] = sigmoid(b[nh]);
    }
}

static void delta_gate_backward(real *da, real *db, wide *dA_log, wide *ddt_bias, const wide *dg, const wide *dbeta,
                                const real *a, const wide *g, const wide *beta, const wide *A_log, const wide *dt_bias,
                                int N, int H) {
    for (size_t nh = 0; nh < (size_t)N * H; nh++) {
        const size_t h = nh % H;
        const wide dpre =
            dg[nh] * -exp(A_log[h]) * sigmoid(a[nh] + dt_bias[h]); // softplus' = sigmoid; pre = a + dt_bias
        da[nh] += dpre;
        if (ddt_bias) ddt_bias[h] += dpre;
        if (dA_log) dA_log[h] += dg[nh] * g[nh]; // g is proportional to exp(A_log)
        db[nh] += dbeta[nh] * beta[nh] * (1 - beta[nh]);
    }
}

static void gla_gate_forward(wide *g, const real *x, double normalizer, size_t n) {
    for (size_t i = 0; i < n; i++) g[i] = -softplus(-(wide)x[i]) / (wide)normalizer; // logsigmoid(x) = -softplus(-x)
}

static void gla_gate_backward(real *dx, const wide *dg, const real *x, double normalizer, size_t n) {
    for (size_t i = 0; i < n; i++)
        dx[i] += dg[i] * sigmoid(-(wide)x[i]) / (wide)normalizer; // 1 - sigmoid(x), no cancellation
}

static void kda_gate_forward(wide *g, wide *beta, const real *f, const real *b, const wide *A_log, const wide *dt_bias,
                             double lower, int N, int H, int K) {
    for (size_t nh = 0; nh < (size_t)N * H; nh++) {
        const size_t h = nh % H;
        for (int a = 0; a < K; a++)
            g[nh * K + a] = lower < 0 ? (wide)lower * sigmoid(exp(A_log[h]) * (f[nh * K + a] + dt_bias[h * K + a]))
                                      : -exp(A_log[h]) * softplus(f[nh * K + a] + dt_bias[h * K + a]);
        beta[nh] = sigmoid(b[nh]);
    }
}

/* d (lower sigmoid(e pre)) / d pre */
static inline wide kda_bounded_slope(wide pre, wide A_log, double lower) {
    const wide e = exp(A_log);
    return (wide)lower * sigmoid(e * pre) * sigmoid(-e * pre) * e;
}

static void kda_gate_backward(real *df, real *db, wide *dA_log, wide *ddt_bias, const wide *dg, const wide *dbeta,
                              const real *f, const wide *g, const wide *beta, const wide *A_log, const wide *dt_bias,
                              double lower, int N, int H, int K) {
    for (size_t nh = 0; nh < (size_t)N * H; nh++) {
        const size_t h = nh % H;
        for (int a = 0; a < K; a++) {
            const size_t i = nh * K + a, ha = h * K + a;
            const wide pre = f[i] + dt_bias[ha];
            const wide dpre = lower < 0 ? dg[i] * kda_bounded_slope(pre, A_log[h], lower)
                                        : dg[i] * -exp(A_log[h]) * sigmoid(f[i] + dt_bias[ha]);
            df[i] += dpre;
            if (ddt_bias) ddt_bias[ha] += dpre;
            if (dA_log && lower < 0) dA_log[h] += dpre * pre;
            else if (dA_log) dA_log[h] += dg[i] * g[i];
        }
        db[nh] += dbeta[nh] * beta[nh] * (1 - beta[nh]);
    }
}
