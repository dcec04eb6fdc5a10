/* ops_decl.h - THE CONTRACT: every op once, both directions as equations, shapes, limits, numerics, source.
 *
 * This file is included several times by ops.h, once per precision, with these names defined:
 *   OPS   the struct's name            real  what activations and weights are stored in (double, float, later bf16)
 *   wide  what statistics, gates, log-decays, recurrent states, losses and parameter gradients are kept in (double,
 *         float)
 *   trained  the struct of one tensor of an optimiser step, below
 * so Ops64, Ops32, ... have one shape, and a backend with a wrong signature does not compile.
 *
 * Rules that hold for all of them
 *   order        outputs, inputs, saved, scalars, workspace, dims. Scalars are double. Layouts are row-major,
 *                last index fastest.
 *   direction    forward overwrites, backward ADDS to every gradient it is given; exceptions are named.
 *   optional     NULL is allowed only where said; a gradient pointer that is NULL is not wanted and costs nothing.
 *   purity       no globals, no allocation, no I/O, cannot fail. Preconditions are checked once, when the model is
 *                built.
 *   determinism  every output element is produced in a fixed order, whatever the number of threads.
 *   aliasing     none, unless said. Inputs are not changed.
 *   decays       exponents are always differences <= 0: e^{-G} alone is never formed.
 * Dims: B batch, T time, N = B*T rows, C model width, H heads, Hk key/value heads, D softmax head size, K/V key and
 * value size of a linear head, F ffn width, VOC vocabulary. start: (B,T) index within the row of the first token of the
 * document that token t belongs to (0 <= start[t] <= t, non-decreasing; a document's state and attention begin there);
 * NULL = all 0.
 * Token 0 of a row always continues from what the caller gives (state, tail_in): only a token t > 0 with start[t] == t
 * forgets.
 * Gradients are `d` + name. Row pointers in the code are named by what is fixed: x_n, q_bth. */

/* No include guard: included once per precision. */

/* One of the n-element tensors that a step of the optimiser goes over; lists of them are host arrays. See adamw;
 * sumsq reads grad and n. */
typedef struct {
    wide *master;
    real *weight;
    wide *m, *v;
    const wide *grad;
    size_t n;
    double lr, decay;
} trained;

typedef struct OPS {
    /* ---------------------------------------------------------------- plain arithmetic */

    /* add: y = a + b over n elements (the residual stream). y may alias a or b.   bwd: da += dy, db += dy:
     * use accumulate. */
    void (*add)(real *y, const real *a, const real *b, size_t n);
    /* accumulate: y += alpha x over n elements. */
    void (*accumulate)(real *y, const real *x, double alpha, size_t n);
    /* sum: out[0] = sum x_i over n elements, in double, in a fixed order (blocks of 4096 elements summed left to right,
     * then the
     *      block sums left to right), so that the value does not depend on threads. Overwrites out[0].
     * sumsq: out[i] = sum of grad^2 of list[i], each in that order, for all tensors of a list in one call.
     * Overwrites out[0..tensors-1]. */
    void (*sum)(double *out, const wide *x, size_t n);
    void (*sumsq)(double *out, const trained *list, int tensors);

    /* ---------------------------------------------------------------- embedding and linear */

    /* embed: y_n = w[ids_n].  y (N,C), w (VOC,C), ids (N) in [0,VOC).
     *   bwd  dw[ids_n] += dy_n, rows in order n = 0..N-1. */
    void (*embed_forward)(real *y, const real *w, const int *ids, int N, int C, int VOC);
    void (*embed_backward)(wide *dw, const real *dy, const int *ids, int N, int C, int VOC);

    /* linear: y = x W^T + b.  x (N,I), w (O,I) as in checkpoints, b (O) or NULL, y (N,O).
     *   bwd  dx += dy W;  dw += dy^T x;  db += sum_n dy_n.  Any of dx, dw, db may be NULL.
     *   num  longest reductions: I forward, O for dx, N for dw and db. */
    void (*linear_forward)(real *y, const real *x, const real *w, const real *b, int N, int I, int O);
    void (*linear_backward)(real *dx, wide *dw, wide *db, const real *dy, const real *x, const real *w, int N, int I,
                            int O);

    /* ---------------------------------------------------------------- norms, over the last dimension C of N rows */

    /* rmsnorm: rstd = (mean_c x^2 + eps)^{-1/2};  y = x rstd w.  w (C).  Qwen3's per-head norm is this with N = B*T*H,
     * C = D.
     *   bwd  with n = x rstd, t = dy w:  dw += sum_n dy n;  dx += rstd (t - n mean_c(t n)).   dx, dw may be NULL.
     *   src  Zhang & Sennrich 2019 (arXiv 1910.07467) */
    void (*rmsnorm_forward)(real *y, wide *rstd, const real *x, const real *w, double eps, int N, int C);
    void (*rmsnorm_backward)(real *dx, wide *dw, const real *dy, const real *x, const real *w, const wide *rstd, int N,
                             int C);

    /* add_rmsnorm: sum = a + b;  y, rstd = rmsnorm(sum), the same bits as add and then rmsnorm (sum is rounded to real
     * before its squares):
     *   the residual stream takes a branch in and is normed for the next. sum may alias a or b; sum, y (N,C).
     *   bwd  rmsnorm_backward with x = sum: it adds to the gradient of sum, which is that of a and of b, so nothing is
     *        left to fuse. */
    void (*add_rmsnorm_forward)(real *sum, real *y, wide *rstd, const real *a, const real *b, const real *w, double eps,
                                int N, int C);

    /* gated_rmsnorm: y = x rstd w SiLU(z), rstd as above; x, z (N,C), w (C).
     *   bwd  with n = x rstd, s = sigmoid(z):  dw += sum_n dy n z s;  dz += dy n w s (1 + z (1 - s));
     *        t = dy w z s;  dx += rstd (t - n mean_c(t n)).   dw may be NULL.
     *   src  ref/METHOD.md 6.1; FLA FusedRMSNormGated */
    void (*gated_rmsnorm_forward)(real *y, wide *rstd, const real *x, const real *z, const real *w, double eps, int N,
                                  int C);
    void (*gated_rmsnorm_backward)(real *dx, real *dz, wide *dw, const real *dy, const real *x, const real *z,
                                   const real *w, const wide *rstd, int N, int C);

    /* sigmoid_rmsnorm: y = x rstd w sigmoid(z), the output gate of Kimi delta attention; otherwise as gated_rmsnorm.
     *   bwd  with n = x rstd, s = sigmoid(z):  dw += sum_n dy n s;  dz += dy n w s (1 - s);
     *        t = dy w s;  dx += rstd (t - n mean_c(t n)).   dw may be NULL.
     *   src  FLA FusedRMSNormGated with activation sigmoid (fla/layers/kda.py) */
    void (*sigmoid_rmsnorm_forward)(real *y, wide *rstd, const real *x, const real *z, const real *w, double eps, int N,
                                    int C);
    void (*sigmoid_rmsnorm_backward)(real *dx, real *dz, wide *dw, const real *dy, const real *x, const real *z,
                                     const real *w, const wide *rstd, int N, int C);

    /* l2norm: r = (sum_c x^2 + eps)^{-1/2};  y = x r;  y may alias x.   bwd: dx += r (dy - y (dy . y)).
     * src ref/METHOD.md 6.1 (eps 1e-6 inside). */
    void (*l2norm_forward)(real *y, wide *r, const real *x, double eps, int N, int C);
    void (*l2norm_backward)(real *dx, const real *dy, const real *y, const wide *r, int N, int C);

    /* ---------------------------------------------------------------- element-wise */

    /* silu: y = x sigmoid(x).   bwd: dx += dy s (1 + x (1 - s)). */
    void (*silu_forward)(real *y, const real *x, size_t n);
    void (*silu_backward)(real *dx, const real *dy, const real *x, size_t n);
    /* swiglu: y = SiLU(gate) up.   bwd: dgate += dy up s (1 + gate (1 - s));  dup += dy SiLU(gate). */
    void (*swiglu_forward)(real *y, const real *gate, const real *up, size_t n);
    void (*swiglu_backward)(real *dgate, real *dup, const real *dy, const real *gate, const real *up, size_t n);

    /* rope: rotary position embedding, half-split pairs (c, c + D/2):
     *   y_c = x_c cos - x_{c+D/2} sin;  y_{c+D/2} = x_{c+D/2} cos + x_c sin,  angle = (pos + t) freq_c.
     *   y, x (B,T,H,D), table (>= pos+T, D/2, 2) holds cos, sin pairs in `wide`; y may alias x. D even.
     *   bwd  dx += the rotation by the opposite angle of dy (dx may NOT alias dy).
     *   src  Su et al. (arXiv 2104.09864); layout of Hugging Face Llama (rotate_half). */
    void (*rope_forward)(real *y, const real *x, const wide *table, int pos, int B, int T, int H, int D);
    void (*rope_backward)(real *dx, const real *dy, const wide *table, int pos, int B, int T, int H, int D);

    /* ---------------------------------------------------------------- token mixers */

    /* attention: causal softmax attention with grouped queries, optional window and document starts.
     *   o_t = sum_j p_tj v_j,  p_tj = softmax_j(scale q_t . k_j) over the visible j:  start_t <= j <= t, and j > t -
     *   window if window > 0.
     *   q, o (B,T,H,D); k, v (B,Tk,Hk,D) with rows of batch b at b*stride (stride >= Tk = past + T, in tokens):
     *   queries are the
     *   LAST T positions, i.e. query row t stands at position past + t (past > 0: decoding from a cache).
     *   Head h reads k/v head
     *   h / (H/Hk).  lse (B,T,H) = log sum_j exp(scale q.k), saved for backward.
     *   start is (B, Tk) here, indexed by absolute position.
     *   bwd  (past == 0 only) with P recomputed from lse, delta_t = do_t . o_t:  dv_j += sum_t p_tj do_t;
     *        ds_tj = p_tj (do_t . v_j - delta_t);  dq_t += scale sum_j ds_tj k_j;  dk_j += scale sum_t ds_tj q_t.
     *   mem  linear in T: never a T x T matrix.  work: attention_work(d) bytes; forward uses no more than
     *        with past = 0, which is what a model gives it however long its cache has become.
     *   src  Dao et al. (arXiv 2205.14135, 2307.08691) */
    void (*attention_forward)(real *o, wide *lse, const real *q, const real *k, const real *v, const int *start,
                              double scale, void *work, const AttnDims *d);
    void (*attention_backward)(real *dq, real *dk, real *dv, const real *dout, const real *o, const wide *lse,
                               const real *q, const real *k, const real *v, const int *start, double scale, void *work,
                               const AttnDims *d);

    /* conv: short causal depthwise convolution, y_tc = sum_{i<W} w_{c,i} x_{t-W+1+i, c};
     * taps before the document's start are 0.
     *   x, y (B,T,C), w (C,W) as in checkpoints ([C,1,W]).  tail_in (B,W-1,C): the W-1 inputs before t = 0 (NULL =
     *   zeros);
     *   tail_out (same shape, may be NULL; may alias tail_in): the last W-1 inputs, for decoding. 1 <= W <= 8.
     *   bwd  (tail_in == NULL) dx_{t-W+1+i} += w_i dy_t;  dw_{c,i} += sum dy_tc x_{t-W+1+i,c}.   dx, dw may be NULL. */
    void (*conv_forward)(real *y, real *tail_out, const real *x, const real *w, const real *tail_in, const int *start,
                         int B, int T, int C, int W);
    void (*conv_backward)(real *dx, wide *dw, const real *dy, const real *x, const real *w, const int *start, int B,
                          int T, int C, int W);

    /* delta_gate: the two gates of Gated DeltaNet.
     *   g = -exp(A_log_h) softplus(a + dt_bias_h)  (log decay, <= 0);   beta = sigmoid(b).   a, b, g, beta (N,H);
     *   A_log, dt_bias (H).
     *   bwd  da += dg * -exp(A_log) sigmoid(a + dt_bias);  ddt_bias += sum_n of the same;  dA_log += sum_n dg g;
     *        db += dbeta beta (1 - beta).   dA_log, ddt_bias may be NULL.
     *   num  softplus(x) = max(x,0) + log1p(e^{-|x|}).   src  ref/METHOD.md 6.1 */
    void (*delta_gate_forward)(wide *g, wide *beta, const real *a, const real *b, const wide *A_log,
                               const wide *dt_bias, int N, int H);
    void (*delta_gate_backward)(real *da, real *db, wide *dA_log, wide *ddt_bias, const wide *dg, const wide *dbeta,
                                const real *a, const wide *g, const wide *beta, const wide *A_log, const wide *dt_bias,
                                int N, int H);

    /* delta_rule: the gated delta rule (Gated DeltaNet), one state S (K,V) per batch element and head.
     *   fwd   P = e^{g_t} S;  u = v_t - P^T k_t;  S = P + beta_t k_t u^T;  o_t = scale S^T q_t
     *         (a token at its document's start begins from S = 0)
     *   bwd   dS += scale q do^T;  dq += scale S do;  dw = dS^T k (w = beta u);  dbeta += dw . u;  du = beta dw;
     *         dv += du;
     *         dP = dS - k du^T;  dk += dS w - P du;  dg += <dP, P>;  dS = e^g dP
     *   shape q, k (B,T,Hk,K); v, o (B,T,H,V); g, beta (B,T,H); head h reads q/k head h/(H/Hk)
     *   chunk T is cut into NC = ceil(T/chunk) chunks (the last may be short). state (B,H,K,V):
     *   on entry the initial state, on
     *         return the final one. states (B,H,NC+1,K,V), overwritten: for backward, states[c] the state before chunk
     *         c, states[NC]
     *         the final one, `real`: what runs on from chunk to chunk is not rounded. NULL: no backward will follow.
     *         The result must not
     *         depend on chunk beyond rounding; chunk 1 is the plain recurrence, larger ones use the chunked (WY) form
     *         of
     * ref/METHOD.md 6.2. A document start inside a chunk zeroes the decay factors that cross it.
     *   dstate (B,H,K,V): on entry dL/d(final state), on return dL/d(initial state) (the named exception to "adds").
     *   limits g <= 0; 1 <= chunk <= 256.  work: delta_rule_work(d) bytes (forward and backward alike).
     *   src   Yang, Kautz, Hatamizadeh (arXiv 2412.06464); ref/METHOD.md 6.1, 6.2, 6.6 */
    void (*delta_rule_forward)(real *o, real *states, wide *state, const real *q, const real *k, const real *v,
                               const wide *g, const wide *beta, const int *start, double scale, void *work,
                               const DeltaDims *d);
    void (*delta_rule_backward)(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dstate, const real *dout,
                                const real *states, const real *q, const real *k, const real *v, const wide *g,
                                const wide *beta, const int *start, double scale, void *work, const DeltaDims *d);

    /* gla_gate: per-channel log decay of Gated Linear Attention, g = logsigmoid(x) / normalizer, n elements.
     *   bwd  dx += dg (1 - sigmoid(x)) / normalizer.   src ref/METHOD.md 6.3 (normalizer 16) */
    void (*gla_gate_forward)(wide *g, const real *x, double normalizer, size_t n);
    void (*gla_gate_backward)(real *dx, const wide *dg, const real *x, double normalizer, size_t n);

    /* gla: gated linear attention, decay per key channel.
     *   fwd   S = diag(e^{g_t}) S + k_t v_t^T;  o_t = scale S^T q_t
     *   bwd   dS += scale q do^T;  dq += scale S do;  dk += dS v;  dv += dS^T k;  dg_c += <dS_c, e^{g_c} S_prev,c>;
     *         dS = diag(e^g) dS
     *   shape as delta_rule, except g (B,T,Hk,K); no beta.  state, states, chunk, dstate, start, work (gla_work) as
     *   delta_rule.
     *   src   Yang et al. (arXiv 2312.06635); ref/METHOD.md 6.3; no exponent above 0 however strong the decay. */
    void (*gla_forward)(real *o, real *states, wide *state, const real *q, const real *k, const real *v, const wide *g,
                        const int *start, double scale, void *work, const DeltaDims *d);
    void (*gla_backward)(real *dq, real *dk, real *dv, wide *dg, wide *dstate, const real *dout, const real *states,
                         const real *q, const real *k, const real *v, const wide *g, const int *start, double scale,
                         void *work, const DeltaDims *d);

    /* kda_gate: the two gates of Kimi delta attention, a log decay per key channel and a write strength per head.
     *   g_ha = -exp(A_log_h) softplus(f_ha + dt_bias_ha)  (<= 0);   beta_h = sigmoid(b_h).   f, g (N,H,K);
     *   b, beta (N,H); A_log (H);
     *   dt_bias (H,K).
     *   bwd  df += dg * -exp(A_log) sigmoid(f + dt_bias);  ddt_bias += sum_n of the same;  dA_log_h += sum_{n,a} dg g;
     *        db += dbeta beta (1 - beta).   dA_log, ddt_bias may be NULL.
     *   lower < 0 gives the bounded gate, which lies in [lower, 0]; 0: the one above. With u = f + dt_bias,
     *        e = exp(A_log), s = sigmoid(e u):  g = lower s;
     *        df += dg lower s (1 - s) e;  ddt_bias += sum_n of the same;
     *        dA_log_h += sum_{n,a} dg lower s (1 - s) e u.
     *   num  softplus as in delta_gate, of which this is the case K = 1; 1 - s is sigmoid(-e u), no cancellation.
     *   src  Kimi Linear (arXiv 2510.26692); flash-linear-attention fla/ops/kda/gate.py */
    void (*kda_gate_forward)(wide *g, wide *beta, const real *f, const real *b, const wide *A_log, const wide *dt_bias,
                             double lower, int N, int H, int K);
    void (*kda_gate_backward)(real *df, real *db, wide *dA_log, wide *ddt_bias, const wide *dg, const wide *dbeta,
                              const real *f, const wide *g, const wide *beta, const wide *A_log, const wide *dt_bias,
                              double lower, int N, int H, int K);

    /* kda: Kimi delta attention, the delta rule with a decay per key channel; one state S (K,V) per batch element and
     * head.
     *   fwd   P = diag(e^{g_t}) S;  u = v_t - P^T k_t;  S = P + beta_t k_t u^T;  o_t = scale S^T q_t
     *         (a token at its document's start begins from S = 0)
     *   bwd   as delta_rule, but per channel a: dg_a += <dP_a, P_a>;  dS_a = e^{g_a} dP_a
     *   shape q, k (B,T,Hk,K); v, o (B,T,H,V); g (B,T,H,K); beta (B,T,H); head h reads q/k head h/(H/Hk)
     *   chunk, state, states, dstate as in delta_rule; in the chunked form k_i.k_j and q_i.k_j are summed over channels
     *   with their own decay
     *         e^{g_{j+1,a} + ... + g_{i,a}}, as in gla: no exponent above 0 however strong the decay.
     *   limits g <= 0; 1 <= chunk <= 256.  work: kda_work(d) bytes.
     *   cases all channels' g equal: delta_rule.  k_t^T P = 0 and beta = 1: gla (both proved in tests/test_ops.c)
     *   src   Kimi Linear (arXiv 2510.26692), eq. of KDA; flash-linear-attention fla/ops/kda/naive.py */
    void (*kda_forward)(real *o, real *states, wide *state, const real *q, const real *k, const real *v, const wide *g,
                        const wide *beta, const int *start, double scale, void *work, const DeltaDims *d);
    void (*kda_backward)(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dstate, const real *dout,
                         const real *states, const real *q, const real *k, const real *v, const wide *g,
                         const wide *beta, const int *start, double scale, void *work, const DeltaDims *d);

    /* ---------------------------------------------------------------- losses (value and gradient in one call) */

    /* head_xent: cross-entropy fused with the output head: z_n = W x_n in blocks of d->block rows, never all of it.
     *   loss_n = logsumexp(z_n) - z_n[target_n] (nats);  gradients of sum_n weight_n loss_n:
     *   dx_n += weight_n W^T (p_n - onehot),
     *   dw += sum_n weight_n (p_n - onehot) x_n^T.
     *   x (N,C), w (VOC,C), target (N), weight (N) or NULL (= 1). Rows with weight 0 are skipped:
     *   loss_n = 0, top_n = -1, target not read.
     *   loss (N) overwritten; top (N, may be NULL) overwritten: argmax of z_n, the first maximum.
     *   dx, dw may be NULL (loss only).
     *   work: head_work(d) bytes.   num: logits `real`, max, sum and loss `wide`. */
    void (*head_xent)(wide *loss, int *top, real *dx, wide *dw, const real *x, const real *w, const int *target,
                      const wide *weight, void *work, const HeadDims *d);

    /* head_kl: forward KL teacher||student with temperature tau, fused with both heads:
     *   loss_n = tau^2 sum_v pT (log pT - log pS),  pT = softmax(Wt xt_n / tau), pS = softmax(W x_n / tau);
     *   gradients of sum_n weight_n loss_n:  dz = weight_n tau (pS - pT);  dx += W^T dz;  dw += dz x^T.
     *   The teacher gets none.
     *   x (N,C), w (VOC,C), xt (N,Ct), wt (VOC,Ct), weight (N) or NULL (= 1; 0 skips the row). loss (N) overwritten.
     *   dx, dw may be NULL.
     *   src  ref/METHOD.md 3.5 (official: tau = 1); work: head_work(d). */
    void (*head_kl)(wide *loss, real *dx, wide *dw, const real *x, const real *w, const real *xt, const real *wt,
                    const wide *weight, double tau, void *work, const HeadDims *d);

    /* align_loss: stage-1 distance between the teacher's and the student's mixer outputs t, s (N,C), per row:
     *   ALIGN_NORM (official code)  loss_n = ||t_n - s_n||_2 / sqrt(C);
     *                               ds_n += weight (s_n - t_n) / (||t_n - s_n||_2 sqrt(C)), 0 where equal
     *   ALIGN_SQUARED (paper)       loss_n = ||t_n - s_n||_2^2;           ds_n += weight 2 (s_n - t_n)
     *   loss (N) overwritten, ds may be NULL. weight is one scalar (1/N, 1/(N L), ...).   src ref/METHOD.md 3.2 */
    void (*align_loss)(wide *loss, real *ds, const real *t, const real *s, double weight, int form, int N, int C);

    /* ---------------------------------------------------------------- optimiser */

    /* adamw: one AdamW step on every tensor of a list, in one call; step counts from 1; every gradient is multiplied by
     * grad_scale
     *   (clipping) first. lr and wd (decay) are each tensor's own.
     *   p = p (1 - lr wd);  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr (m / (1-b1^step)) / (sqrt(v /
     *   (1-b2^step)) + eps)
     *   master (p), m, v, grad (n) wide; weight (n) real gets a rounded copy of master, or NULL where real and wide are
     *   one type and
     *   master IS the weight.   src Loshchilov & Hutter (arXiv 1711.05101), order of torch.optim.AdamW
     *   master NULL (only where real is bf16 and wide is float): weight itself is p, computed with in float and rounded
     *   stochastically:
     *     to the bf16 neighbour away from 0 with the probability of p's place between the two, else to the one towards
     *     0. Element i of
     *     tensor t takes from p's bits, as a number, 16 random bits more and then cuts off the lower half:
     *       bits = (bits(p) + (mix(key + floor(i/4) phi) >> 16 (i mod 4)) mod 2^16) >> 16,   key = mix(mix(mix(seed +
     *       phi) ^ step) + t)
     *     mix: the output function of splitmix64 (base/rng.c), phi = 0x9e3779b97f4a7c15; Inf and NaN stay.
     *     A function of seed, step, t
     *     and i alone.   src Gupta et al. (arXiv 1502.02551); bf16 weights without a master: Zamirai et al.
     *     (arXiv 2010.06192) */
    void (*adamw)(const trained *list, double grad_scale, double beta1, double beta2, double eps, int64_t step,
                  uint64_t seed, int tensors);
} OPS;
