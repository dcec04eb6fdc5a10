/* opcheck_naive.c - every forward formula a second time, in double, written another way than in ref/ops wherever there
 * is another way: whole matrices instead of rows, sums over the past instead of states, complex numbers instead of
 * rotations. Slow and short. */
#include "tools/opcheck_parts.h"
#include <complex.h>
#include <math.h>
#include <string.h>
#undef I

static const double *in(const OpCase *c, const char *tensor) { /* NULL if absent */
    const int i = opcase_find(c, tensor);
    return i >= 0 && opcase_has(c, i) ? c->value[i] : NULL;
}
static double *to(const OpCase *c, double **out, const char *tensor) { /* NULL if absent */
    const int i = opcase_find(c, tensor);
    return opcase_has(c, i) ? out[i] : NULL;
}
static int key(const OpCase *c, const char *name) { return (int)opcase_key(c, name); }
static size_t many(const OpCase *c, const char *name) { return (size_t)opcase_key(c, name); }

void naive_add(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    for (size_t i = 0; i < many(c, "n"); i++) to(c, out, "y")[i] = in(c, "a")[i] + in(c, "b")[i];
}
void naive_accumulate(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    for (size_t i = 0; i < many(c, "n"); i++)
        to(c, out, "y")[i] = in(c, "y0")[i] + opcase_key(c, "alpha") * in(c, "x")[i];
}
void naive_sum(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    long double s = 0;
    for (size_t i = 0; i < many(c, "n"); i++) s += in(c, "x")[i];
    to(c, out, "out")[0] = (double)s;
}
/* Of n elements cut into k tensors, the one that element i is in: the last that begins at or before it (others there
 * are empty). */
static int naive_tensor(const OpCase *c, size_t i) {
    int t = 0;
    for (int k = 0; k < key(c, "tensors"); k++)
        if (many(c, "n") * (size_t)k / many(c, "tensors") <= i) t = k;
    return t;
}
void naive_sumsq(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    long double s[256] = {0};
    for (size_t i = 0; i < many(c, "n"); i++) s[naive_tensor(c, i)] += (long double)in(c, "grad")[i] * in(c, "grad")[i];
    for (int t = 0; t < key(c, "tensors"); t++) to(c, out, "out")[t] = (double)s[t];
}

void naive_embed(const OpCase *c, double **out, double *scratch) { // one-hot times table
    (void)scratch;
    const int N = key(c, "N"), C = key(c, "C"), VOC = key(c, "VOC");
    for (int k = 0; k < N * C; k++) {
        double s = 0;
        for (int v = 0; v < VOC; v++) s += (in(c, "ids")[k / C] == v) * in(c, "w")[v * C + k % C];
        to(c, out, "y")[k] = s;
    }
}
void naive_linear(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    const int N = key(c, "N"), I = key(c, "I"), O = key(c, "O");
    const double *x = in(c, "x"), *w = in(c, "w"), *b = in(c, "b");
    double *y = to(c, out, "y");
    for (int k = 0; k < N * O; k++) y[k] = b ? b[k % O] : 0;
    for (int i = 0; i < I; i++) // a sum of outer products
        for (int k = 0; k < N * O; k++) y[k] += x[k / O * I + i] * w[k % O * I + i];
}

static double rms(const double *x, int C, double eps) { // by Euclid's norm: no square is summed here
    double h = 0;
    for (int i = 0; i < C; i++) h = hypot(h, x[i]);
    return hypot(h / sqrt(C), sqrt(eps));
}
void naive_rmsnorm(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    const int N = key(c, "N"), C = key(c, "C");
    for (int k = 0; k < N * C; k++) {
        const double r = rms(in(c, "x") + k / C * C, C, opcase_key(c, "eps"));
        to(c, out, "y")[k] = in(c, "x")[k] / r * in(c, "w")[k % C];
        to(c, out, "rstd")[k / C] = 1 / r;
    }
}
void naive_add_rmsnorm(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    const int N = key(c, "N"), C = key(c, "C");
    double *s = to(c, out, "sum");
    for (int k = 0; k < N * C; k++) s[k] = in(c, "b")[k] + in(c, "a")[k];
    for (int k = 0; k < N * C; k++) {
        const double r = rms(s + k / C * C, C, opcase_key(c, "eps"));
        to(c, out, "y")[k] = s[k] / r * in(c, "w")[k % C];
        to(c, out, "rstd")[k / C] = 1 / r;
    }
}
static double silu(double x) { return x / 2 * (1 + tanh(x / 2)); } // sigmoid(x) = (1 + tanh(x/2)) / 2
void naive_gated_rmsnorm(const OpCase *c, double **out, double *scratch) {
    naive_rmsnorm(c, out, scratch);
    for (int k = 0; k < key(c, "N") * key(c, "C"); k++) to(c, out, "y")[k] *= silu(in(c, "z")[k]);
}
void naive_sigmoid_rmsnorm(const OpCase *c, double **out, double *scratch) {
    naive_rmsnorm(c, out, scratch);
    for (int k = 0; k < key(c, "N") * key(c, "C"); k++) to(c, out, "y")[k] *= (1 + tanh(in(c, "z")[k] / 2)) / 2;
}
void naive_l2norm(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    const int N = key(c, "N"), C = key(c, "C");
    for (int k = 0; k < N * C; k++) {
        const double r = rms(in(c, "x") + k / C * C, C, opcase_key(c, "eps") / C) * sqrt(C);
        to(c, out, "y")[k] = in(c, "x")[k] / r;
        to(c, out, "r")[k / C] = 1 / r;
    }
}
void naive_silu(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    for (size_t i = 0; i < many(c, "n"); i++) to(c, out, "y")[i] = silu(in(c, "x")[i]);
}
void naive_swiglu(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    for (size_t i = 0; i < many(c, "n"); i++) to(c, out, "y")[i] = in(c, "up")[i] * silu(in(c, "gate")[i]);
}
void naive_rope(const OpCase *c, double **out,
                double *scratch) { // a pair is a complex number, turned by multiplying
    (void)scratch;
    const int T = key(c, "T"), H = key(c, "H"), half = key(c, "D") / 2;
    for (int i = 0; i < key(c, "B") * T * H * half; i++) {
        const int row = i / half, col = i % half, t = row / H % T, p = row * 2 * half + col;
        const double *turn = in(c, "table") + ((key(c, "pos") + t) * half + col) * 2, *x = in(c, "x");
        const double complex y = (x[p] + x[p + half] * _Complex_I) * (turn[0] + turn[1] * _Complex_I);
        to(c, out, "y")[p] = creal(y);
        to(c, out, "y")[p + half] = cimag(y);
    }
}

/* Whether the query at absolute position pos sees key j of batch element b. */
static int sees(const OpCase *c, int b, int pos, int j) {
    const double *start = in(c, "start");
    const int window = key(c, "window");
    if (j > pos || (window > 0 && pos - j >= window)) return 0;
    return !start || j >= start[b * key(c, "Tk") + pos];
}
void naive_attention(const OpCase *c, double **out,
                     double *scratch) { // every score of the whole row, softmax without subtracting the maximum
    (void)scratch;
    const int B = key(c, "B"), T = key(c, "T"), Tk = key(c, "Tk"), S = key(c, "S"), H = key(c, "H"), Hk = key(c, "Hk"),
              D = key(c, "D");
    const double *q = in(c, "q"), *k = in(c, "k"), *v = in(c, "v");
    for (int i = 0; i < B * T * H; i++) {
        const int b = i / H / T, t = i / H % T, hk = i % H * Hk / H;
        double sum = 0, *o = to(c, out, "o") + i * D;
        for (int e = 0; e < D; e++) o[e] = 0;
        for (int j = 0; j < Tk; j++) {
            const int kv = ((b * S + j) * Hk + hk) * D;
            double s = 0;
            for (int e = 0; e < D; e++) s += q[i * D + e] * k[kv + e];
            const double p = sees(c, b, Tk - T + t, j) ? exp(s * opcase_key(c, "scale")) : 0;
            sum += p;
            for (int e = 0; e < D; e++) o[e] += p * v[kv + e];
        }
        for (int e = 0; e < D; e++) o[e] /= sum;
        to(c, out, "lse")[i] = log(sum);
    }
}

static int document(const OpCase *c, int b, int t) { // the first token of t's document
    const double *start = in(c, "start");
    return start ? (int)start[b * key(c, "T") + t] : 0;
}
void naive_conv(const OpCase *c, double **out,
                double *scratch) { // scattering: every input, tail included, to the outputs that see it
    (void)scratch;
    const int B = key(c, "B"), T = key(c, "T"), C = key(c, "C"), W = key(c, "W");
    const double *x = in(c, "x"), *w = in(c, "w"), *tail = in(c, "tail_in");
    double *y = to(c, out, "y"), *kept = to(c, out, "tail_out");
    for (int k = 0; k < B * T * C; k++) y[k] = 0;
    for (int b = 0; b < B; b++)
        for (int s = -(W - 1); s < T; s++)
            for (int e = 0; e < C; e++) {
                const double x_s = s >= 0 ? x[(b * T + s) * C + e] : tail ? tail[(b * (W - 1) + s + W - 1) * C + e] : 0;
                for (int t = s > 0 ? s : 0; t < T && t < s + W; t++)
                    if (document(c, b, t) == 0 || s >= document(c, b, t))
                        y[(b * T + t) * C + e] += w[e * W + W - 1 - (t - s)] * x_s;
                if (kept && s > T - W) kept[(b * (W - 1) + s - T + W - 1) * C + e] = x_s;
            }
}

static double log_sigmoid(double x) { return x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x)); }
void naive_delta_gate(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    const int H = key(c, "H");
    for (int i = 0; i < key(c, "N") * H; i++) {
        to(c, out, "g")[i] = exp(in(c, "A_log")[i % H]) *
                             log_sigmoid(-in(c, "a")[i] - in(c, "dt_bias")[i % H]); // softplus(x) = -logsigmoid(-x)
        to(c, out, "beta")[i] = (1 + tanh(in(c, "b")[i] / 2)) / 2;
    }
}
void naive_kda_gate(const OpCase *c, double **out, double *scratch) {
    const double lower = opcase_key(c, "lower"); // NAN in kda_mixer, which has no bounded gate
    (void)scratch;
    const int H = key(c, "H"), K = key(c, "K");
    for (int i = 0; i < key(c, "N") * H * K; i++) {
        const int h = i / K % H;
        const double u = in(c, "f")[i] + in(c, "dt_bias")[i % (H * K)], e = exp(in(c, "A_log")[h]);
        to(c, out, "g")[i] = lower < 0 ? lower * exp(log_sigmoid(e * u)) : e * log_sigmoid(-u);
        to(c, out, "beta")[i / K] = (1 + tanh(in(c, "b")[i / K] / 2)) / 2;
    }
}
void naive_gla_gate(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    for (size_t i = 0; i < many(c, "n"); i++)
        to(c, out, "g")[i] = log_sigmoid(in(c, "x")[i]) / opcase_key(c, "normalizer");
}

/* One token of a linear mixer as a matrix: S <- A S + k w^T, with A (K,K). Then what is read. */
typedef struct {
    int B, T, H, Hk, K, V, chunk, NC1;
} Dims;
static Dims dims(const OpCase *c) {
    return (Dims){key(c, "B"), key(c, "T"), key(c, "H"),     key(c, "Hk"),
                  key(c, "K"), key(c, "V"), key(c, "chunk"), key(c, "NC1")};
}
static void state_step(double *S, double *next, const double *A, const double *k, const double *w, int K, int V) {
    for (int i = 0; i < K * V; i++) {
        next[i] = k[i / V] * w[i % V];
        for (int m = 0; m < K; m++) next[i] += A[i / V * K + m] * S[m * V + i % V];
    }
    for (int i = 0; i < K * V; i++) S[i] = next[i];
}
/* The matrix A of token t: delta rule e^g (I - beta k k^T), gla diag(e^g), kda (I - beta k k^T) diag(e^g);
 * zero where a document begins. */
static void state_matrix(double *A, const OpCase *c, const Dims *d, int b, int t, int h) {
    const int bth = (b * d->T + t) * d->H + h, bthk = (b * d->T + t) * d->Hk + h * d->Hk / d->H;
    const double *k = in(c, "k") + bthk * d->K, *beta = in(c, "beta"), *g = in(c, "g");
    const int begins = t > 0 && document(c, b, t) == t, channels = beta && c->rank[opcase_find(c, "g")] == 4; // of g
    for (int i = 0; i < d->K * d->K; i++) {
        const int row = i / d->K, col = i % d->K;
        const double decay = begins     ? 0
                             : channels ? exp(g[bth * d->K + col])
                             : beta     ? exp(g[bth])
                                        : exp(g[bthk * d->K + row]);
        A[i] = decay * ((row == col) - (beta ? beta[bth] * k[row] * k[col] : 0));
    }
}
static void mixer_head(const OpCase *c, double **out, const Dims *d, int b, int h, double *scratch) {
    const int KV = d->K * d->V;
    double *S = scratch, *next = S + KV, *A = next + KV, *w = A + d->K * d->K;
    double *kept = to(c, out, "states") + (size_t)(b * d->H + h) * d->NC1 * KV;
    for (int i = 0; i < KV; i++) S[i] = kept[i] = in(c, "S0")[(b * d->H + h) * KV + i];
    for (int t = 0; t < d->T; t++) {
        const int bth = (b * d->T + t) * d->H + h, bthk = (b * d->T + t) * d->Hk + h * d->Hk / d->H;
        const double *v = in(c, "v") + bth * d->V, *q = in(c, "q") + bthk * d->K, *beta = in(c, "beta");
        for (int e = 0; e < d->V; e++) w[e] = (beta ? beta[bth] : 1) * v[e];
        state_matrix(A, c, d, b, t, h);
        state_step(S, next, A, in(c, "k") + bthk * d->K, w, d->K, d->V);
        for (int e = 0; e < d->V; e++) {
            double s = 0;
            for (int i = 0; i < d->K; i++) s += S[i * d->V + e] * q[i];
            to(c, out, "o")[bth * d->V + e] = opcase_key(c, "scale") * s;
        }
        if ((t + 1) % d->chunk == 0 || t == d->T - 1)
            for (int i = 0; i < KV; i++) kept[(t / d->chunk + 1) * KV + i] = S[i];
    }
    for (int i = 0; i < KV; i++) to(c, out, "final")[(b * d->H + h) * KV + i] = S[i];
}
static void naive_mixer(const OpCase *c, double **out, double *scratch) {
    const Dims d = dims(c);
    for (int b = 0; b < d.B; b++)
        for (int h = 0; h < d.H; h++) mixer_head(c, out, &d, b, h, scratch);
}
void naive_delta_rule(const OpCase *c, double **out, double *scratch) { naive_mixer(c, out, scratch); }
void naive_gla(const OpCase *c, double **out, double *scratch) { naive_mixer(c, out, scratch); }
void naive_kda(const OpCase *c, double **out, double *scratch) { naive_mixer(c, out, scratch); }

/* The scan, its gates being what was just computed. */
static void naive_gated(const OpCase *c, double **out, double *scratch) {
    OpCase scan = *c;
    const int g = opcase_find(c, "g"), beta = opcase_find(c, "beta");
    scan.value[g] = out[g];
    if (beta >= 0) scan.value[beta] = out[beta];
    naive_mixer(&scan, out, scratch);
}
void naive_gdn_mixer(const OpCase *c, double **out, double *scratch) {
    naive_delta_gate(c, out, scratch);
    naive_gated(c, out, scratch);
}
void naive_kda_mixer(const OpCase *c, double **out, double *scratch) {
    naive_kda_gate(c, out, scratch);
    naive_gated(c, out, scratch);
}
void naive_gla_mixer(const OpCase *c, double **out, double *scratch) {
    for (int i = 0; i < key(c, "B") * key(c, "T") * key(c, "Hk") * key(c, "K"); i++)
        to(c, out, "g")[i] = log_sigmoid(in(c, "x")[i]) / opcase_key(c, "normalizer");
    naive_gated(c, out, scratch);
}

/* Probabilities of one row of x (C) times w (VOC,C), the plain way; long double has exponents enough for any case. */
static void softmax_row(long double *p, const double *x, const double *w, double tau, int C, int VOC) {
    long double sum = 0;
    for (int v = 0; v < VOC; v++) {
        long double z = 0;
        for (int e = C - 1; e >= 0; e--) z += (long double)x[e] * w[v * C + e];
        p[v] = expl(z / tau);
        sum += p[v];
    }
    for (int v = 0; v < VOC; v++) p[v] /= sum;
}
void naive_head_xent(const OpCase *c, double **out, double *scratch) {
    const int C = key(c, "C"), VOC = key(c, "VOC");
    const double *weight = in(c, "weight"), *target = in(c, "target");
    double *top = to(c, out, "top");
    long double *p = (long double *)scratch;
    for (int n = 0; n < key(c, "N"); n++) {
        const int counts = !weight || weight[n] != 0;
        if (counts) softmax_row(p, in(c, "x") + n * C, in(c, "w"), 1, C, VOC);
        to(c, out, "loss")[n] = counts ? (double)-logl(p[(int)target[n]]) : 0;
        int best = VOC - 1;
        for (int v = VOC - 1; counts && v >= 0; v--) best = p[v] >= p[best] ? v : best;
        if (top) top[n] = counts ? best : -1;
    }
}
void naive_head_kl(const OpCase *c, double **out, double *scratch) {
    const int C = key(c, "C"), Ct = key(c, "Ct"), VOC = key(c, "VOC");
    const double tau = opcase_key(c, "tau"), *weight = in(c, "weight");
    long double *p = (long double *)scratch, *s = p + VOC;
    for (int n = 0; n < key(c, "N"); n++) {
        long double kl = 0;
        softmax_row(p, in(c, "xt") + n * Ct, in(c, "wt"), tau, Ct, VOC);
        softmax_row(s, in(c, "x") + n * C, in(c, "w"), tau, C, VOC);
        for (int v = 0; v < VOC; v++) kl += p[v] * logl(p[v] / s[v]);
        to(c, out, "loss")[n] = weight && weight[n] == 0 ? 0 : (double)(tau * tau * kl);
    }
}
void naive_align_loss(const OpCase *c, double **out, double *scratch) {
    (void)scratch;
    const int C = key(c, "C");
    for (int n = 0; n < key(c, "N"); n++) {
        double h = 0;
        for (int e = 0; e < C; e++) h = hypot(h, in(c, "t")[n * C + e] - in(c, "s")[n * C + e]);
        to(c, out, "loss")[n] = key(c, "form") == ALIGN_NORM ? h / sqrt(C) : h * h;
    }
}
void naive_adamw(const OpCase *c, double **out,
                 double *scratch) { // moments as weighted means, bias removed first
    (void)scratch;
    const double b1 = opcase_key(c, "beta1"), b2 = opcase_key(c, "beta2"), step = opcase_key(c, "step");
    for (size_t i = 0; i < many(c, "n"); i++) {
        const double g = in(c, "grad")[i] * opcase_key(c, "grad_scale");
        const double m = g + b1 * (in(c, "m0")[i] - g), v = g * g + b2 * (in(c, "v0")[i] - g * g);
        const double m_hat = m / -expm1(step * log(b1)), v_hat = v / -expm1(step * log(b2)), p = in(c, "master0")[i];
        const int t = naive_tensor(c, i);
        const double lr = opcase_key(c, "lr") * (t + 1), decay = t % 2 ? 0 : opcase_key(c, "decay");
        const double moved = p - lr * decay * p - lr * m_hat / (sqrt(v_hat) + opcase_key(c, "eps"));
        to(c, out, "master")[i] = moved;
        to(c, out, "m")[i] = m;
        to(c, out, "v")[i] = v;
        if (to(c, out, "weight")) to(c, out, "weight")[i] = moved;
    }
}

size_t naive_scratch(const OpCase *c) {
    const double K = opcase_key(c, "K"), V = opcase_key(c, "V"), VOC = opcase_key(c, "VOC");
    return V > 0     ? (size_t)(2 * K * V + K * K + V)
           : VOC > 0 ? (size_t)VOC * 2 * sizeof(long double) / sizeof(double)
                     : 1;
}
