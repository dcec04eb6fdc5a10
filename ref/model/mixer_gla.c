/* mixer_gla.c - Gated Linear Attention, gla_v1 (ref/METHOD.md 6.3).
 *
 *   q, k, v = W x;  g = logsigmoid(W_up W_down x + b) / 16, one decay per key channel;  o = gla(q, k, v, g)
 *   y = W_o (rmsnorm(o) SiLU(W_g x))                      no activation, no normalisation of q and k, no rope */
#include "model/mixer_linear.h"
#include <math.h>

enum { RANK = 16 };
static const double NORMALIZER = 16;

static int gla_walk(const Mixer *m, const Config *c, MixerParams *p, const Walk *w) {
    (void)m;
    const size_t C = c->C, Q = (size_t)c->H * c->D;
    const ParamInfo fresh = {.mixer = 1, .decays = 1, .init = INIT_FAN_IN}, norm = {.mixer = 1, .init = INIT_ONES};
    const ParamInfo bias = {.mixer = 1, .init = INIT_FAN_IN, .fan = RANK};
    TRY(linear_walk_qkv(c, p, w));
    TRY(walk_param(w, &p->gate, "attn.g_proj.weight", 2, Q, C, fresh));
    TRY(walk_param(w, &p->gk_down, "attn.gk_proj.0.weight", 2, RANK, C, fresh));
    TRY(walk_param(w, &p->gk_up, "attn.gk_proj.1.weight", 2, Q, RANK, fresh));
    TRY(walk_param(w, &p->gk_bias, "attn.gk_proj.1.bias", 1, Q, 0, bias));
    TRY(walk_param(w, &p->o_norm, "attn.g_norm_swish_gate.weight", 1, c->D, 0, norm));
    return linear_walk_o(c, p, w);
}

static void gla_place(const Mixer *m, const Config *c, const Backend *be, MixerActs *a, Arena *arena, int B, int T,
                      int chunk, int train) {
    (void)m, (void)train;
    const size_t N = (size_t)B * T, Q = N * c->H * c->D;
    const DeltaDims d = {.B = B, .T = T, .H = c->H, .Hk = c->H, .K = c->D, .V = c->D, .chunk = chunk};
    a->q = arena_take(arena, Q, be->real_size);
    a->k = arena_take(arena, Q, be->real_size);
    a->v = arena_take(arena, Q, be->real_size);
    a->low = arena_take(arena, N * RANK, be->real_size);
    a->a_in = arena_take(arena, Q, be->real_size);
    a->g = arena_take(arena, Q, be->wide_size);
    a->states = linear_states_place(be, arena, &d, train);
    linear_output_place(c, be, a, arena, N, 1, 1);
}

static size_t gla_work_bytes(const Mixer *m, const Config *c, int B, int T, int chunk) {
    (void)m;
    const DeltaDims d = {.B = B, .T = T, .H = c->H, .Hk = c->H, .K = c->D, .V = c->D, .chunk = chunk};
    return gla_work(&d);
}

static void gla_inputs(const MixerCall *call, MixerActs *a, const Real *x) {
    const Ops *op = call->be->op;
    const Config *c = call->c;
    MixerParams *p = call->p;
    const int N = call->B * call->T, Q = c->H * c->D;
    op->linear_forward(a->q, x, p->q.w, p->q_bias.w, N, c->C, Q);
    op->linear_forward(a->k, x, p->k.w, p->k_bias.w, N, c->C, Q);
    op->linear_forward(a->v, x, p->v.w, p->v_bias.w, N, c->C, Q);
    op->linear_forward(a->low, x, p->gk_down.w, NULL, N, c->C, RANK);
    op->linear_forward(a->a_in, a->low, p->gk_up.w, p->gk_bias.w, N, RANK, Q);
    op->gla_gate_forward(a->g, a->a_in, NORMALIZER, (size_t)N * Q);
}

static void gla_mix_forward(const Mixer *m, const MixerCall *call, MixerActs *a, Real *y, const Real *x) {
    (void)m;
    const DeltaDims d = linear_dims(call);
    gla_inputs(call, a, x);
    call->be->op->gla_forward(a->o, a->states, linear_state_zero(call), a->q, a->k, a->v, a->g, call->start,
                              1 / sqrt(d.K), call->work, &d);
    linear_output_forward(call, a, y, x);
}

static void gla_mix_backward(const Mixer *m, const MixerCall *call, MixerActs *a, Real *dx, const Real *dy,
                             const Real *x) {
    (void)m;
    Backend *be = call->be;
    const Ops *op = be->op;
    const Config *c = call->c;
    MixerParams *p = call->p;
    const int N = call->B * call->T, Q = c->H * c->D;
    const size_t n = (size_t)N * Q;
    const DeltaDims d = linear_dims(call);
    Real *dout = call->tmp[0], *dq = call->tmp[1], *dk = call->tmp[2], *dv = call->tmp[3];
    linear_output_backward(call, a, dx, dy, x); // leaves d o in tmp[0]
    be->zero(be, dq, n * be->real_size);
    be->zero(be, dk, n * be->real_size);
    be->zero(be, dv, n * be->real_size);
    be->zero(be, call->wtmp[0], n * be->wide_size);
    op->gla_backward(dq, dk, dv, call->wtmp[0], linear_state_zero(call), dout, a->states, a->q, a->k, a->v, a->g,
                     call->start, 1 / sqrt(d.K), call->work, &d);
    op->linear_backward(dx, p->q.g, p->q_bias.g, dq, x, p->q.w, N, c->C, Q);
    op->linear_backward(dx, p->k.g, p->k_bias.g, dk, x, p->k.w, N, c->C, Q);
    op->linear_backward(dx, p->v.g, p->v_bias.g, dv, x, p->v.w, N, c->C, Q);
    Real *da = call->tmp[0], *dlow = call->tmp[1];
    be->zero(be, da, n * be->real_size);
    be->zero(be, dlow, (size_t)N * RANK * be->real_size);
    op->gla_gate_backward(da, call->wtmp[0], a->a_in, NORMALIZER, n);
    op->linear_backward(dlow, p->gk_up.g, p->gk_bias.g, da, a->low, p->gk_up.w, N, RANK, Q);
    op->linear_backward(dx, p->gk_down.g, NULL, dlow, x, p->gk_down.w, N, c->C, RANK);
}

static void gla_place_state(const Mixer *m, const Config *c, const Backend *be, MixerState *s, Arena *arena, int B,
                            int capacity, int step) {
    (void)m, (void)capacity, (void)step;
    s->state = arena_take(arena, (size_t)B * c->H * c->D * c->D, be->wide_size);
}

static void gla_extend(const Mixer *m, const MixerCall *call, MixerActs *a, MixerState *s, Real *y, const Real *x,
                       int past) {
    (void)m, (void)past;
    const DeltaDims d = linear_dims(call);
    gla_inputs(call, a, x);
    call->be->op->gla_forward(a->o, NULL, s->state, a->q, a->k, a->v, a->g, NULL, 1 / sqrt(d.K), call->work, &d);
    linear_output_forward(call, a, y, x);
}

const Mixer mixer_gla_v1 = {
    .name = "gla_v1",
    .label = "Gated Linear Attention",
    .linear = 1,
    .channels = 1,
    .walk = gla_walk,
    .place = gla_place,
    .work = gla_work_bytes,
    .forward = gla_mix_forward,
    .backward = gla_mix_backward,
    .place_state = gla_place_state,
    .extend = gla_extend,
};
