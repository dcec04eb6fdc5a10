/* mixer_kda.c - Kimi delta attention (Kimi Linear, arXiv 2510.26692; parameters as in flash-linear-attention's
 * fla/layers/kda.py).
 *
 *   q, k, v = SiLU([conv] W x);  q, k = l2norm per head;  f = W_f2 W_f1 x,  g, beta = gates(f, W_b x), a log decay per
 *   key channel
 *   o = kda(q, k, v, g, beta);  y = W_o (rmsnorm(o) sigmoid(W_g2 W_g1 x + b_g))      no rope, H heads of size D for q,
 *   k and v
 * Both low-rank maps go through D numbers. kda_v1: without convolutions, to be compared with gdn_v4 and gla_v1; kda_v2:
 * with them, fla's default. kda_v3 and kda_v4: the same two with the bounded gate g = -5 sigmoid(e^A_log (f +
 * dt_bias)), fla's safe_gate with lower_bound -5, which newer KDA models have: no token forgets more than a factor
 * e^-5. A_log and dt_bias start as fla's model class starts them (its layer alone would start dt_bias at 0, a memory of
 * a token or two). */
#include "model/mixer_delta.h"
#include <math.h>

static int kda_walk(const Mixer *m, const Config *c, MixerParams *p, const Walk *w) {
    const size_t C = c->C, Q = (size_t)c->H * c->D, D = c->D;
    const ParamInfo fresh = {.mixer = 1, .decays = 1, .init = INIT_FAN_IN}, norm = {.mixer = 1, .init = INIT_ONES};
    const ParamInfo A_log = {.mixer = 1, .wide = 1, .init = m->gate_lower < 0 ? INIT_ZEROS : INIT_A_LOG_1},
                    dt_bias = {.mixer = 1, .wide = 1, .init = INIT_DT_BIAS};
    const ParamInfo bias = {.mixer = 1, .init = INIT_FAN_IN, .fan = D};
    TRY(delta_walk_qkv(m, c, p, w));
    TRY(delta_walk_conv(m, c, p, w));
    TRY(walk_param(w, &p->f_down, "attn.f_proj.0.weight", 2, D, C, fresh));
    TRY(walk_param(w, &p->f_up, "attn.f_proj.1.weight", 2, Q, D, fresh));
    TRY(walk_param(w, &p->b, "attn.b_proj.weight", 2, c->H, C, fresh));
    TRY(walk_param(w, &p->A_log, "attn.A_log", 1, c->H, 0, A_log));
    TRY(walk_param(w, &p->dt_bias, "attn.dt_bias", 1, Q, 0, dt_bias));
    TRY(walk_param(w, &p->g_down, "attn.g_proj.0.weight", 2, D, C, fresh));
    TRY(walk_param(w, &p->g_up, "attn.g_proj.1.weight", 2, Q, D, fresh));
    TRY(walk_param(w, &p->g_bias, "attn.g_proj.1.bias", 1, Q, 0, bias));
    TRY(walk_param(w, &p->o_norm, "attn.o_norm.weight", 1, D, 0, norm));
    return linear_walk_o(c, p, w);
}

static void kda_place(const Mixer *m, const Config *c, const Backend *be, MixerActs *a, Arena *arena, int B, int T,
                      int chunk, int train) {
    const size_t N = (size_t)B * T, Q = N * c->H * c->D;
    const DeltaDims d = {.B = B, .T = T, .H = c->H, .Hk = c->H, .K = c->D, .V = c->D, .chunk = chunk};
    delta_inputs_place(m, c, be, a, arena, N);
    a->low = arena_take(arena, N * c->D, be->real_size);
    a->a_in = arena_take(arena, Q, be->real_size); // f
    a->b_in = arena_take(arena, N * c->H, be->real_size);
    a->g = arena_take(arena, Q, be->wide_size);
    a->beta = arena_take(arena, N * c->H, be->wide_size);
    a->states = linear_states_place(be, arena, &d, train);
    a->z_low = arena_take(arena, N * c->D, be->real_size);
    linear_output_place(c, be, a, arena, N, 1, 1);
}

static size_t kda_work_bytes(const Mixer *m, const Config *c, int B, int T, int chunk) {
    (void)m;
    const DeltaDims d = {.B = B, .T = T, .H = c->H, .Hk = c->H, .K = c->D, .V = c->D, .chunk = chunk};
    return kda_work(&d);
}

static void kda_inputs(const Mixer *m, const MixerCall *call, MixerActs *a, MixerState *s, const Real *x) {
    const Ops *op = call->be->op;
    const Config *c = call->c;
    MixerParams *p = call->p;
    const int N = call->B * call->T, Q = c->H * c->D;
    delta_inputs_forward(m, call, a, s, x);
    op->linear_forward(a->low, x, p->f_down.w, NULL, N, c->C, c->D);
    op->linear_forward(a->a_in, a->low, p->f_up.w, NULL, N, c->D, Q);
    op->linear_forward(a->b_in, x, p->b.w, NULL, N, c->C, c->H);
    op->kda_gate_forward(a->g, a->beta, a->a_in, a->b_in, p->A_log.ww, p->dt_bias.ww, m->gate_lower, N, c->H, c->D);
}

static void kda_output_forward(const MixerCall *call, MixerActs *a, Real *y, const Real *x) {
    const Ops *op = call->be->op;
    const Config *c = call->c;
    MixerParams *p = call->p;
    const int N = call->B * call->T, Q = c->H * c->D;
    op->linear_forward(a->z_low, x, p->g_down.w, NULL, N, c->C, c->D);
    op->linear_forward(a->z, a->z_low, p->g_up.w, p->g_bias.w, N, c->D, Q);
    op->sigmoid_rmsnorm_forward(a->y, a->o_r, a->o, a->z, p->o_norm.w, c->o_norm_eps, N * c->H, c->D);
    op->linear_forward(y, a->y, p->o.w, NULL, N, Q, c->C);
}

/* Leaves d o in tmp[0]; uses tmp[1], tmp[2]. */
static void kda_output_backward(const MixerCall *call, MixerActs *a, Real *dx, const Real *dy, const Real *x) {
    Backend *be = call->be;
    const Ops *op = be->op;
    const Config *c = call->c;
    MixerParams *p = call->p;
    const int N = call->B * call->T, Q = c->H * c->D;
    const size_t bytes = (size_t)N * Q * be->real_size;
    Real *dout = call->tmp[0], *dyo = call->tmp[1], *dz = call->tmp[2], *dlow = call->tmp[1];
    be->zero(be, dyo, bytes);
    op->linear_backward(dyo, p->o.g, NULL, dy, a->y, p->o.w, N, Q, c->C);
    be->zero(be, dout, bytes);
    be->zero(be, dz, bytes);
    op->sigmoid_rmsnorm_backward(dout, dz, p->o_norm.g, dyo, a->o, a->z, p->o_norm.w, a->o_r, N * c->H, c->D);
    be->zero(be, dlow, (size_t)N * c->D * be->real_size);
    op->linear_backward(dlow, p->g_up.g, p->g_bias.g, dz, a->z_low, p->g_up.w, N, c->D, Q);
    op->linear_backward(dx, p->g_down.g, NULL, dlow, x, p->g_down.w, N, c->C, c->D);
}

static void kda_mix_forward(const Mixer *m, const MixerCall *call, MixerActs *a, Real *y, const Real *x) {
    const DeltaDims d = linear_dims(call);
    kda_inputs(m, call, a, NULL, x);
    call->be->op->kda_forward(a->o, a->states, linear_state_zero(call), a->qn, a->kn, a->vs, a->g, a->beta, call->start,
                              1 / sqrt(d.K), call->work, &d);
    kda_output_forward(call, a, y, x);
}

static void kda_mix_backward(const Mixer *m, const MixerCall *call, MixerActs *a, Real *dx, const Real *dy,
                             const Real *x) {
    Backend *be = call->be;
    const Ops *op = be->op;
    const Config *c = call->c;
    MixerParams *p = call->p;
    const int N = call->B * call->T, Q = c->H * c->D;
    const size_t n = (size_t)N * Q, heads = (size_t)N * c->H;
    const DeltaDims d = linear_dims(call);
    Wide *dg = call->wtmp[0], *dbeta = call->wtmp[1];
    kda_output_backward(call, a, dx, dy, x);
    for (int i = 1; i < 4; i++) be->zero(be, call->tmp[i], n * be->real_size);
    be->zero(be, dg, n * be->wide_size);
    be->zero(be, dbeta, heads * be->wide_size);
    op->kda_backward(call->tmp[1], call->tmp[2], call->tmp[3], dg, dbeta, linear_state_zero(call), call->tmp[0],
                     a->states, a->qn, a->kn, a->vs, a->g, a->beta, call->start, 1 / sqrt(d.K), call->work, &d);
    delta_inputs_backward(m, call, a, dx, x);
    Real *df = call->tmp[0], *db = call->tmp[1], *dlow = call->tmp[2];
    be->zero(be, df, n * be->real_size);
    be->zero(be, db, heads * be->real_size);
    be->zero(be, dlow, (size_t)N * c->D * be->real_size);
    op->kda_gate_backward(df, db, p->A_log.g, p->dt_bias.g, dg, dbeta, a->a_in, a->g, a->beta, p->A_log.ww,
                          p->dt_bias.ww, m->gate_lower, N, c->H, c->D);
    op->linear_backward(dlow, p->f_up.g, NULL, df, a->low, p->f_up.w, N, c->D, Q);
    op->linear_backward(dx, p->f_down.g, NULL, dlow, x, p->f_down.w, N, c->C, c->D);
    op->linear_backward(dx, p->b.g, NULL, db, x, p->b.w, N, c->C, c->H);
}

static void kda_extend(const Mixer *m, const MixerCall *call, MixerActs *a, MixerState *s, Real *y, const Real *x,
                       int past) {
    (void)past;
    const DeltaDims d = linear_dims(call);
    kda_inputs(m, call, a, s, x);
    call->be->op->kda_forward(a->o, NULL, s->state, a->qn, a->kn, a->vs, a->g, a->beta, NULL, 1 / sqrt(d.K), call->work,
                              &d);
    kda_output_forward(call, a, y, x);
}

#define KDA(version, text, bits, lower)                                                                                \
    const Mixer mixer_kda_##version = {.name = "kda_" #version,                                                        \
                                       .label = text,                                                                  \
                                       .linear = 1,                                                                    \
                                       .channels = 1,                                                                  \
                                       .gate_lower = lower,                                                            \
                                       .flags = bits,                                                                  \
                                       .walk = kda_walk,                                                               \
                                       .place = kda_place,                                                             \
                                       .work = kda_work_bytes,                                                         \
                                       .forward = kda_mix_forward,                                                     \
                                       .backward = kda_mix_backward,                                                   \
                                       .place_state = delta_place_state,                                               \
                                       .extend = kda_extend}
KDA(v1, "Kimi delta attention", DELTA_SILU, 0);
KDA(v2, "Kimi delta attention, short convolution", DELTA_SILU | DELTA_CONV, 0);
KDA(v3, "Kimi delta attention, bounded gate", DELTA_SILU, -5);
KDA(v4, "Kimi delta attention, bounded gate, short convolution", DELTA_SILU | DELTA_CONV, -5);
