/* fit.c - a linear mixer's start from its teacher's attention, layer by layer. x: normed input of the layer, t: the
 * attention's output after o_proj, y: what the mixer gives to its own o_proj, all teacher-forced as in align.c.
 *
 *   read a quarter of the batches
 *     d_h = mean lag of head h, e_h = its mean entropy (attend.h), over rows at least half a window into a document
 *     u   = (sum x x^T + lambda I)^-1 sum x                      ridge: u . x is the constant 1, as nearly as x can
 *   decay    gamma_h = log(1 + 1/m_h), so that weights e^{-gamma n} have mean lag m_h;  A_log = 0, a_proj = 0,
 *            dt_bias_h = softplus^-1(gamma_h), so that g = -gamma_h exactly.  m_h = sqrt(d_h e^{e_h - 1}), between how
 *            far the head looks and how many tokens it looks at: e^{e - 1} is the mean lag of an exponential with this
 *            entropy. Lag alone, entropy alone, and rows of a_proj that follow each token's lag were measured and worse
 *   write    row h of b_proj = logit(b_h) u,  b_h from .3 for the layer's least entropy to .1 for its largest
 *   gate     every row of g_proj = c u with SiLU(c) = 1: the gate lets everything through
 *   read the other batches
 *   output   r = argmin sum |sum_h r_h W_h y_h - t|^2 over one number a head, W the teacher's o_proj;  then
 *            W_o = argmin sum |W_o y - t|^2 + lambda |W_o - W diag(r)|^2       least squares, held to the scaled copy
 *            by lambda = mean |y|^2: as if one more row a column had been read, so that more text needs it less
 *
 * In stage 1's norm form rows of sums for the output are weighted by 1/|t|, in its squared form not at all, so that
 * least squares aims at what stage 1 measures. The output norm cancels any scale of v, so a head's scale is put where
 * it acts, into o_proj; without that norm (gdn_v6) it is the same scale. See fit.h. */
#include "method/fit.h"
#include "base/mem.h"
#include "method/fit_parts.h"
#include "method/ridge.h"
#include <stdio.h>
#include <string.h>

static const double RIDGE_X = 1e-3;           /* lambda, in units of the mean square of x's channels */
static const double OPEN = 1.278464543;       /* SiLU(OPEN) = 1 */
static const double OPEN_SIGMOID = 4;         /* sigmoid(4) = .982 */
static const double SURE = 0.5;               /* R^2 of the constant below which gates stay as they are */
static const double SHARP = 0.3, BLUNT = 0.1; /* write strength of a layer's sharpest and bluntest head */
static const double NEAR = 0.25;              /* tokens: the shortest memory that a decay is made for */
enum { MAX_CONV = 8 };                        /* taps (config_check) */

/* ---------------------------------------------------------------- parameters of layer l by name */

static int find(const Work *w, const Model *m, int l, const char *name, ParamInfo *i, Param *p, char *full) {
    snprintf(full, 192, "model.layers.%d.%s", l, name);
    if (model_find(m, full, i, p)) return OK;
    return err_set(w->e, ERR_INPUT, "%s: the start needs it and the model has no such parameter", full);
}
int fit_put(const Work *w, int l, const char *name, const double *x) {
    char full[192];
    ParamInfo i;
    Param p;
    TRY(find(w, w->s, l, name, &i, &p, full));
    for (size_t k = 0; k < i.n; k++)
        if (!isfinite(x[k])) return err_set(w->e, ERR_NUMERIC, "start: %s is not finite", full);
    return param_put(w->be, &i, &p, DT_F64, x, w->e);
}
int fit_get(const Work *w, const Model *m, int l, const char *name, double *x) {
    char full[192];
    ParamInfo i;
    Param p;
    TRY(find(w, m, l, name, &i, &p, full));
    return param_get(w->be, &i, &p, DT_F64, x, w->e);
}
int fit_fill(const Work *w, int l, const char *name, size_t n, double v) {
    for (size_t i = 0; i < n; i++) w->buf[i] = v;
    return fit_put(w, l, name, w->buf);
}

/* ---------------------------------------------------------------- sums over rows */

/* sum (O,I) += dy^T x: products of one batch in `wide` by the op, batches added up in double in their order. */
static int add_product(Work *w, double *sum, const Real *dy, const Real *x, int I, int O) {
    const size_t n = (size_t)I * O;
    w->be->zero(w->be, w->product, n * w->be->wide_size);
    w->be->op->linear_backward(NULL, w->product, NULL, dy, x, x, w->N, I, O); // without dx no weight is read
    TRY(wide_get(w->be, DT_F64, w->buf, w->product, n, w->e));
    for (size_t i = 0; i < n; i++) sum[i] += w->buf[i];
    return OK;
}

/* One row of one head into the head's sums. */
static void add_row(double *head, double lag, double entropy, double first, int late) {
    const double v[4] = {1, lag, entropy, first};
    if (isnan(lag)) return;
    for (int i = 0; i < 4; i++) {
        if (late) head[LATE + i] += v[i];
        head[ANY + i] += v[i];
    }
}

static int see_attention(Work *w, int l, const int *start) {
    const Attend *at = &w->attend;
    Sums *s = &w->sum[l];
    const Real *x = w->a->tp.layer[l].n1;
    for (int n = 0; n < w->N; n++) {
        const int t = n % at->T, late = 2 * (t - (start ? start[n] : 0)) >= at->T;
        for (int h = 0; h < w->H; h++) {
            const size_t i = (size_t)n * w->H + h;
            add_row(s->head + h * HEAD, at->lag[i], at->entropy[i], at->first[i], late);
        }
        w->buf[n] = 1;
    }
    TRY(real_put(w->be, w->ones, DT_F64, w->buf, w->N, w->e));
    TRY(add_product(w, s->cross, w->ones, x, w->C, 1));
    return add_product(w, s->gram, x, x, w->C, w->C);
}

/* dst (N,C) = rows of src times scale (N). */
static int scale_rows(Work *w, Real *dst, const Real *src, const double *scale, int C) {
    TRY(real_get(w->be, DT_F64, w->buf, src, (size_t)w->N * C, w->e));
    for (int n = 0; n < w->N; n++)
        for (int c = 0; c < C; c++) w->buf[(size_t)n * C + c] *= scale[n];
    return real_put(w->be, dst, DT_F64, w->buf, (size_t)w->N * C, w->e);
}

MixerActs *fit_mixer(Work *w, int l) {
    const Mixer *mix = mixer_at(w->s->c.mixer[l]);
    MixerActs *acts = &w->a->sp.layer[l].mix;
    mix->forward(mix, layer_call(w->s, &w->a->sp, l), acts, w->a->s, w->a->tp.layer[l].n1);
    return acts;
}

static int see_output(Work *w, int l, const int *start) {
    Align *a = w->a;
    const MixerActs *acts = fit_mixer(w, l);
    double *scale = w->attend.lag; // (N), free by now
    (void)start;
    TRY(real_get(w->be, DT_F64, w->buf, a->t, (size_t)w->N * w->C, w->e));
    for (int n = 0; n < w->N; n++) {
        double square = 0;
        for (int c = 0; c < w->C; c++) square += w->buf[(size_t)n * w->C + c] * w->buf[(size_t)n * w->C + c];
        scale[n] = a->form == ALIGN_NORM ? pow(square / w->C + 1e-12, -0.25) : 1; // of y and of t: the weight's root
    }
    TRY(scale_rows(w, w->ts, a->t, scale, w->C));
    TRY(scale_rows(w, w->ys, acts->y, scale, w->Q));
    TRY(add_product(w, w->sum[l].gram, w->ys, w->ys, w->Q, w->Q));
    return add_product(w, w->sum[l].cross, w->ys, w->ts, w->C, w->Q);
}

/* The teacher over training batches first .. first + n - 1, each linear layer seen on the way. */
int fit_read(Work *w, int64_t first, int64_t n, int (*see)(Work *w, int l, const int *start), int lags) {
    Align *a = w->a;
    const int L = w->t->c.L;
    for (int64_t i = first; i < first + n; i++) {
        const int stop = w->memo ? w->memo->stopped(w->memo) : 0;
        if (stop)
            return err_set(w->e, 128 + stop, "stopped while the start was fitted; the same command begins it anew");
        TRY(batch_text(&a->batch, &a->data, TRAINING, (uint64_t)i, w->e));
        const int *start = batch_start(&a->batch, &a->data);
        TRY(pass_input(&a->tp, w->t, a->batch.ids, start, w->e));
        TRY(pass_input(&a->sp, w->s, a->batch.ids, start, w->e));
        if (lags) TRY(attend_batch(&w->attend, start, w->e));
        model_embed(w->t, &a->tp, a->x);
        for (int l = 0; l < L; l++) {
            layer_norm_in(w->t, &a->tp, l, a->x);
            layer_mixer(w->t, &a->tp, l, a->t);
            if (w->s->c.mixer[l] && lags) TRY(attend_layer(&w->attend, w->t, &a->tp, l, start, w->e));
            if (w->s->c.mixer[l]) TRY(see(w, l, start));
            if (l + 1 < L) layer_mlp(w->t, &a->tp, l, a->x, a->t, a->x);
        }
        w->f->tokens += w->N;
    }
    return OK;
}

/* ---------------------------------------------------------------- decay, write strength, gate */

/* What a head was seen to do. */
typedef struct {
    double decay, entropy;
} HeadMean;
static void head_means(const Work *w, int l, HeadMean *m, FitLayer *f) {
    for (int h = 0; h < w->H; h++) {
        const double *s = w->sum[l].head + h * HEAD, *v = s[LATE] > 0 ? s + LATE : s + ANY, n = fmax(v[0], 1),
                     lag = v[1] / n, entropy = v[2] / n;
        m[h] = (HeadMean){log1p(1 / fmax(sqrt(lag * exp(entropy - 1)), NEAR)), entropy};
        f->distance += lag / w->H;
        f->entropy += entropy / w->H;
        f->first += v[3] / n / w->H;
    }
}

/* u (C), and its R^2 on the rows that were read. */
static int solve_constant(const Work *w, int l, double *u, double *gram, double *r2) {
    const Sums *s = &w->sum[l];
    const int C = w->C;
    double trace = 0, linear = 0, square = 0;
    for (int i = 0; i < C; i++) trace += s->gram[(size_t)i * C + i];
    memcpy(u, s->cross, (size_t)C * sizeof(double));
    memcpy(gram, s->gram, (size_t)C * C * sizeof(double));
    TRY(ridge_solve(gram, RIDGE_X * trace / C, u, C, 1, "start: normed input", w->e));
    for (int i = 0; i < C; i++) {
        linear += u[i] * s->cross[i];
        for (int j = 0; j < C; j++) square += u[i] * u[j] * s->gram[(size_t)i * C + j];
    }
    *r2 = (2 * linear - square) / w->rows; // 1 - mean (1 - u.x)^2
    return OK;
}

/* A decay of its own for each channel: the head's times 2^-1.5 to 2^1.5, since no attention is one exponential. */
static double channel_decay(const Work *w, double gamma, int c) {
    return gamma * exp2(w->D > 1 ? 3.0 * c / (w->D - 1) - 1.5 : 0);
}

static int put_decay(const Work *w, int l, const HeadMean *m) {
    const MixerParams *p = &w->s->p.layer[l].mix;
    if (p->gk_bias.n) { // logsigmoid(bias)/16 = -gamma
        for (int i = 0; i < w->Q; i++) w->buf[i] = -log(expm1(16 * channel_decay(w, m[i / w->D].decay, i % w->D)));
        TRY(fit_put(w, l, "attn.gk_proj.1.bias", w->buf));
        return fit_fill(w, l, "attn.gk_proj.1.weight", p->gk_up.n, 0);
    }
    const int each = p->f_up.n ? w->D : 1;
    const double most = -mixer_at(w->s->c.mixer[l])->gate_lower; // of a bounded gate
    for (int i = 0; i < w->H * each; i++) {
        const double gamma = p->f_up.n ? channel_decay(w, m[i / each].decay, i % each) : m[i / each].decay;
        w->buf[i] = most > 0 ? log(fmin(gamma, 0.99 * most) / (most - fmin(gamma, 0.99 * most))) // sigmoid^-1
                             : softplus_inverse(gamma);
    }
    TRY(fit_put(w, l, "attn.dt_bias", w->buf));
    TRY(fit_fill(w, l, "attn.A_log", (size_t)w->H, 0));
    if (p->f_up.n) return fit_fill(w, l, "attn.f_proj.1.weight", p->f_up.n, 0);
    return fit_fill(w, l, "attn.a_proj.weight", p->a.n, 0);
}

static int put_write(const Work *w, int l, const HeadMean *m, const double *u) {
    double low = INFINITY, high = -INFINITY;
    for (int h = 0; h < w->H; h++) low = fmin(low, m[h].entropy), high = fmax(high, m[h].entropy);
    for (int h = 0; h < w->H; h++) {
        const double b = SHARP - (SHARP - BLUNT) * (m[h].entropy - low) / fmax(high - low, 1e-3);
        for (int i = 0; i < w->C; i++) w->buf[(size_t)h * w->C + i] = log(b / (1 - b)) * u[i];
    }
    return fit_put(w, l, "attn.b_proj.weight", w->buf);
}

static int put_open(const Work *w, int l, const double *u) {
    for (size_t i = 0; i < (size_t)w->Q * w->C; i++) w->buf[i] = OPEN * u[i % (size_t)w->C];
    return fit_put(w, l, "attn.g_proj.weight", w->buf);
}

/* Convolutions pass their input on, and the second of two stacked maps repeats heads as transfer does. */
static int put_plain(const Work *w, int l, const MixerParams *p) {
    static const char *const conv[] = {"attn.q_conv1d.weight", "attn.k_conv1d.weight", "attn.v_conv1d.weight"};
    static const char *const up[] = {"attn.k_proj.1", "attn.v_proj.1"}, *const low[] = {"attn.k_proj.0.bias",
                                                                                        "attn.v_proj.0.bias"};
    const int W = w->s->c.conv_width, K = w->Hk * w->D, g = w->H / w->Hk;
    for (int i = 0; i < 3 && p->q_conv.n; i++) {
        for (int c = 0; c < w->Q * W; c++) w->buf[c] = c % W == W - 1;
        TRY(fit_put(w, l, conv[i], w->buf));
    }
    for (int i = 0; i < 2 && p->k_up.n; i++) {
        char name[64];
        memset(w->buf, 0, (size_t)w->Q * K * sizeof(double));
        for (int r = 0; r < w->Q; r++) w->buf[(size_t)r * K + r / w->D / g * w->D + r % w->D] = 1;
        snprintf(name, sizeof name, "%s.weight", up[i]);
        TRY(fit_put(w, l, name, w->buf));
        snprintf(name, sizeof name, "%s.bias", up[i]);
        TRY(fit_fill(w, l, name, (size_t)w->Q, 0));
        if (!(w->s->c.linear_bias && w->s->c.qkv_bias)) TRY(fit_fill(w, l, low[i], (size_t)K, 0)); // else the teacher's
    }
    return OK;
}

static int put_gates(Work *w, int l, HeadMean *m, double *u, double *gram) {
    const MixerParams *p = &w->s->p.layer[l].mix;
    FitLayer *f = &w->f->layer[l];
    head_means(w, l, m, f);
    TRY(solve_constant(w, l, u, gram, &f->constant));
    const int sure = f->constant >= SURE;
    TRY(put_decay(w, l, m));
    if (p->b.n && sure) TRY(put_write(w, l, m, u));
    if (p->b.n && !sure) TRY(fit_fill(w, l, "attn.b_proj.weight", p->b.n, 0)); // beta = .5, exactly
    if (p->gate.n && sure) TRY(put_open(w, l, u));
    if (p->g_up.n) {
        TRY(fit_fill(w, l, "attn.g_proj.1.weight", p->g_up.n, 0));
        TRY(fit_fill(w, l, "attn.g_proj.1.bias", (size_t)w->Q, OPEN_SIGMOID));
    }
    return put_plain(w, l, p);
}

static int fit_gates(Work *w) {
    const size_t C = w->C, H = w->H;
    void *mem;
    TRY(mem_alloc(&mem, (C * C + C) * sizeof(double) + H * sizeof(HeadMean), "start: gates", w->e));
    double *gram = mem, *u = gram + C * C;
    HeadMean *m = (HeadMean *)(u + C);
    int rc = OK;
    for (int l = 0; l < w->t->c.L && !rc; l++)
        if (w->s->c.mixer[l]) rc = put_gates(w, l, m, u, gram);
    mem_free(mem);
    return rc;
}

/* ---------------------------------------------------------------- output */

/* (Q,C) out of (C,Q), or back. */
static void transpose(double *dst, const double *src, int rows, int cols) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) dst[(size_t)j * rows + i] = src[(size_t)i * cols + j];
}

/* One number a head: W (Q,C) *= r. */
static int scale_heads(const Work *w, const Sums *s, double *W, double *normal, double *r) {
    const int C = w->C, H = w->H, D = w->D;
    double trace = 0;
    memset(normal, 0, (size_t)H * H * sizeof(double));
    memset(r, 0, (size_t)H * sizeof(double));
    for (int i = 0; i < w->Q; i++) {
        const double *wi = W + (size_t)i * C, *ti = s->cross + (size_t)i * C;
        for (int c = 0; c < C; c++) r[i / D] += wi[c] * ti[c];
        for (int j = 0; j < w->Q; j++) {
            const double *wj = W + (size_t)j * C;
            double dot = 0;
            for (int c = 0; c < C; c++) dot += wi[c] * wj[c];
            normal[(i / D) * H + j / D] += dot * s->gram[(size_t)i * w->Q + j];
        }
    }
    for (int h = 0; h < H; h++) trace += normal[h * H + h];
    if (!(trace > 0)) return OK; // a layer whose o_proj or whose mixer says nothing keeps the copy
    TRY(ridge_solve(normal, 1e-9 * trace / H, r, H, 1, "start: scale of heads", w->e));
    for (int i = 0; i < w->Q; i++)
        for (int c = 0; c < C; c++) W[(size_t)i * C + c] *= r[i / D];
    return OK;
}

static int put_output(const Work *w, int l, double *W, double *normal) {
    const Sums *s = &w->sum[l];
    const int C = w->C, Q = w->Q;
    double trace = 0;
    TRY(fit_get(w, w->t, l, "attn.o_proj.weight", w->buf));
    transpose(W, w->buf, C, Q);
    TRY(scale_heads(w, s, W, normal, normal + (size_t)w->H * w->H));
    for (int i = 0; i < Q; i++) trace += s->gram[(size_t)i * Q + i];
    const double lambda = trace / w->rows;
    for (size_t i = 0; i < (size_t)Q * C; i++) W[i] = s->cross[i] + lambda * W[i];
    if (trace > 0) TRY(ridge_solve(s->gram, lambda, W, Q, C, "start: o_proj", w->e));
    transpose(w->buf, W, Q, C);
    return fit_put(w, l, "attn.o_proj.weight", w->buf);
}

static int fit_output(Work *w) {
    const size_t H = w->H, n = (size_t)w->Q * w->C;
    void *mem;
    TRY(mem_alloc(&mem, (n + H * H + H) * sizeof(double), "start: output", w->e));
    int rc = OK;
    for (int l = 0; l < w->t->c.L && !rc; l++)
        if (w->s->c.mixer[l]) rc = put_output(w, l, mem, (double *)mem + n);
    mem_free(mem);
    return rc;
}

/* ---------------------------------------------------------------- one start */

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }
static size_t largest(const Work *w) { return max_size(w->C, w->Q); }

static void work_place(Work *w, Arena *ar) {
    const size_t N = w->N;
    w->ones = arena_take(ar, N, w->be->real_size);
    w->ys = arena_take(ar, N * w->Q, w->be->real_size);
    w->ts = arena_take(ar, N * w->C, w->be->real_size);
    w->product = arena_take(ar, largest(w) * largest(w), w->be->wide_size);
}

/* Host: the buffer, then each layer's sums. */
static int sums_open(Work *w) {
    const size_t C = w->C, Q = w->Q, H = w->H, square = largest(w) * largest(w);
    const size_t buf = max_size(max_size(square, (size_t)w->N * largest(w)), Q * MAX_CONV),
                 cross = max_size(H * TAYLOR_SUMS, Q * C), each = square + cross + H * HEAD;
    size_t layers = 0;
    for (int l = 0; l < w->t->c.L; l++) layers += w->s->c.mixer[l] != 0;
    TRY(mem_alloc(&w->host, (buf + layers * each) * sizeof(double), "start: sums over rows", w->e));
    w->buf = w->host;
    double *next = w->buf + buf;
    for (int l = 0; l < w->t->c.L; l++) {
        if (!w->s->c.mixer[l]) continue;
        w->sum[l] = (Sums){next, next + square, next + square + cross};
        next += each;
    }
    return OK;
}

static int work_open(Work *w) {
    Arena ar = {0};
    TRY(attend_open(&w->attend, w->t, &w->a->tp, w->e));
    work_place(w, &ar);
    const size_t bytes = ar.used;
    TRY(w->be->alloc(w->be, &w->mem, bytes, "start", w->e));
    arena_begin(&ar, w->mem, bytes);
    work_place(w, &ar);
    return sums_open(w);
}

static void work_close(Work *w) {
    attend_close(&w->attend);
    w->be->release(w->be, w->mem);
    mem_free(w->host);
}

static int fit_all(Work *w, int64_t batches) {
    const int64_t first = batches >= 8 ? batches / 4 : 1;
    TRY(fit_read(w, 0, first, see_attention, 1));
    w->rows = (double)w->f->tokens;
    TRY(fit_gates(w));
    for (int l = 0; l < w->t->c.L; l++) // the same memory, now for y
        if (w->s->c.mixer[l]) memset(w->sum[l].gram, 0, (size_t)((char *)w->sum[l].head - (char *)w->sum[l].gram));
    TRY(fit_read(w, first, batches - first, see_output, 0));
    w->rows = (double)w->f->tokens - w->rows;
    return fit_output(w);
}

static int zero_gates(Work *w) {
    const size_t n = (size_t)w->Q * w->C;
    void *zero;
    TRY(mem_alloc(&zero, n * sizeof(double), "start: gates", w->e));
    int rc = OK;
    for (int l = 0; l < w->t->c.L && !rc; l++)
        if (w->s->c.mixer[l]) rc = fit_put(w, l, "attn.g_proj.weight", zero);
    mem_free(zero);
    return rc;
}

/* Stage 1's loss of every layer on batches that the start does not read. */
static int judge(Work *w, int64_t first, int after) {
    enum { ROWS = 4096 };
    Align *a = w->a;
    const int n = (ROWS + w->N - 1) / w->N;
    double loss, layer_loss[MAX_LAYERS];
    for (int i = 0; i < n; i++) {
        TRY(batch_text(&a->batch, &a->data, TRAINING, (uint64_t)(first + i), w->e));
        TRY(align_batch(a, 0, &loss, layer_loss, w->e));
        for (int l = 0; l < w->f->L; l++)
            *(after ? &w->f->layer[l].after : &w->f->layer[l].before) += layer_loss[l] / n;
    }
    return OK;
}

static int gate_visit(void *ctx, const ParamInfo *info, Param *slot) {
    (void)slot;
    if (!strcmp(info->name, "attn.g_proj.weight")) *(int *)ctx = 1;
    return OK;
}
/* Whether the mixer's output is multiplied by SiLU of a matrix times x. */
static int has_gate(const Mixer *m) {
    const Config c = {.C = 4, .H = 1, .Hk = 1, .D = 4, .conv_width = 4};
    MixerParams p = {0};
    int found = 0;
    const Walk w = {gate_visit, &found, -1};
    m->walk(m, &c, &p, &w);
    return found;
}

int fit_check(StartKind kind, const Mixer *m, Err *e) {
    if (kind == START_TEACHER) return OK;
    if (!m->linear)
        return err_set(e, ERR_USAGE, "init: %s starts as the teacher's own attention; expected init teacher", m->name);
    if (kind == START_TAYLOR && m != &mixer_gdn_v4)
        return err_set(e, ERR_USAGE, "init: taylor is published for gdn_v4, not for %s; expected init fit", m->name);
    if (kind != START_ZERO_GATE || has_gate(m)) return OK;
    return err_set(e, ERR_USAGE, "init: zero_gate needs an output gate that 0 closes, and %s has none", m->name);
}

size_t fit_bytes(const Model *teacher, const Config *student, int N) {
    Work w = {.be = teacher->be, .N = N, .C = student->C, .H = student->H, .Q = student->H * student->D};
    Arena ar = {0};
    work_place(&w, &ar);
    return ar.used + attend_bytes(teacher, N);
}

static int start_all(Work *w, StartKind kind, int64_t tokens) {
    const Config *c = &w->s->c;
    for (int l = 0; l < c->L; l++)
        if (c->mixer[l]) TRY(fit_check(kind, mixer_at(c->mixer[l]), w->e));
    if (c->D < ATTEND_MIN_D)
        return err_set(w->e, ERR_INPUT, "init: head_dim: got %d, expected at least %d", c->D, ATTEND_MIN_D);
    if (!tokens) tokens = kind == START_TAYLOR ? TAYLOR_TOKENS : (int64_t)FIT_ROWS * w->Q;
    const int64_t batches = tokens > 2 * (int64_t)w->N ? (tokens - 1) / w->N + 1 : 2;
    TRY(judge(w, batches, 0));
    if (kind == START_FIT || kind == START_TAYLOR) TRY(work_open(w));
    if (kind == START_FIT) TRY(fit_all(w, batches));
    if (kind == START_TAYLOR) TRY(taylor_all(w, batches));
    if (kind == START_ZERO_GATE) TRY(zero_gates(w));
    return judge(w, batches, 1);
}

int fit_start(Fit *f, StartKind kind, Align *a, int64_t tokens, const Memo *memo, Err *e) {
    const Config *c = &a->student->c;
    void *mem;
    TRY(mem_alloc(&mem, sizeof(Work), "start", e));
    Work *w = mem;
    *f = (Fit){.L = c->L};
    *w = (Work){.a = a, .t = a->teacher, .s = a->student, .be = a->student->be, .f = f, .memo = memo, .e = e};
    w->N = a->batch.N, w->C = c->C, w->H = c->H, w->D = c->D, w->Q = c->H * c->D, w->Hk = c->Hk;
    const int rc = start_all(w, kind, tokens);
    work_close(w);
    mem_free(w);
    return rc;
}
