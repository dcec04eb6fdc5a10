/* mixer_gdn.c - Gated DeltaNet, the linear mixer of the paper (gdn_v4), and its siblings v1, v2, v3, v5, v6 (
 * ref/METHOD.md 6.1).
 *
 *   q, k, v = SiLU([conv] W x);  q, k = l2norm per head;  g, beta = gates(W_a x, W_b x)
 *   o = delta_rule(q, k, v, g, beta);  y = W_o (rmsnorm(o) [SiLU(W_g x)])            no rope, H heads of size D for q,
 *   k and v
 * v5: k and v = W_2 (W_1 x + b_1) + b_2 with W_1 of the teacher's k/v heads, so that nothing is repeated.
 * The state of a head is D x D numbers, whatever the context length: this is what the conversion saves, and what it
 * costs in recall. */
#include "model/mixer_delta.h"
#include <math.h>

static int gdn_walk(const Mixer *m, const Config *c, MixerParams *p, const Walk *w) {
    const size_t C = c->C, Q = (size_t)c->H * c->D, H = c->H;
    const ParamInfo fresh = {.mixer = 1, .decays = 1, .init = INIT_FAN_IN}, norm = {.mixer = 1, .init = INIT_ONES};
    const ParamInfo A_log = {.mixer = 1, .wide = 1, .init = INIT_A_LOG},
                    dt_bias = {.mixer = 1, .wide = 1, .init = INIT_DT_BIAS};
    TRY(delta_walk_qkv(m, c, p, w));
    TRY(walk_param(w, &p->a, "attn.a_proj.weight", 2, H, C, fresh));
    TRY(walk_param(w, &p->b, "attn.b_proj.weight", 2, H, C, fresh));
    TRY(walk_param(w, &p->A_log, "attn.A_log", 1, H, 0, A_log));
    TRY(walk_param(w, &p->dt_bias, "attn.dt_bias", 1, H, 0, dt_bias));
    TRY(delta_walk_conv(m, c, p, w));
    if (m->flags & DELTA_GATE) TRY(walk_param(w, &p->gate, "attn.g_proj.weight", 2, Q, C, fresh));
    if (m->flags & DELTA_NORM) TRY(walk_param(w, &p->o_norm, "attn.o_norm.weight", 1, c->D, 0, norm));
    return linear_walk_o(c, p, w);
}

static void gdn_place(const Mixer *m, const Config *c, const Backend *be, MixerActs *a, Arena *arena, int B, int T,
                      int chunk, int train) {
    const size_t N = (size_t)B * T;
    const DeltaDims d = {.B = B, .T = T, .H = c->H, .Hk = c->H, .K = c->D, .V = c->D, .chunk = chunk};
    delta_inputs_place(m, c, be, a, arena, N);
    a->a_in = arena_take(arena, N * c->H, be->real_size);
    a->b_in = arena_take(arena, N * c->H, be->real_size);
    a->g = arena_take(arena, N * c->H, be->wide_size);
    a->beta = arena_take(arena, N * c->H, be->wide_size);
    a->states = linear_states_place(be, arena, &d, train);
    linear_output_place(c, be, a, arena, N, m->flags & DELTA_GATE, m->flags & DELTA_NORM);
}

static size_t gdn_work(const Mixer *m, const Config *c, int B, int T, int chunk) {
    (void)m;
    const DeltaDims d = {.B = B, .T = T, .H = c->H, .Hk = c->H, .K = c->D, .V = c->D, .chunk = chunk};
    return delta_rule_work(&d);
}

/* Everything up to the delta rule's inputs; s holds the convolutions' tails when generating, else NULL. */
static void gdn_inputs(const Mixer *m, const MixerCall *call, MixerActs *a, MixerState *s, const Real *x) {
    const Ops *op = call->be->op;
    const Config *c = call->c;
    MixerParams *p = call->p;
    const int N = call->B * call->T;
    delta_inputs_forward(m, call, a, s, x);
    op->linear_forward(a->a_in, x, p->a.w, NULL, N, c->C, c->H);
    op->linear_forward(a->b_in, x, p->b.w, NULL, N, c->C, c->H);
    op->delta_gate_forward(a->g, a->beta, a->a_in, a->b_in, p->A_log.ww, p->dt_bias.ww, N, c->H);
}

static void gdn_forward(const Mixer *m, const MixerCall *call, MixerActs *a, Real *y, const Real *x) {
    const DeltaDims d = linear_dims(call);
    gdn_inputs(m, call, a, NULL, x);
    call->be->op->delta_rule_forward(a->o, a->states, linear_state_zero(call), a->qn, a->kn, a->vs, a->g, a->beta,
                                     call->start, 1 / sqrt(d.K), call->work, &d);
    linear_output_forward(call, a, y, x);
}

static void gdn_backward(const Mixer *m, const MixerCall *call, MixerActs *a, Real *dx, const Real *dy, const Real *x) {
    Backend *be = call->be;
    const Ops *op = be->op;
    const Config *c = call->c;
    MixerParams *p = call->p;
    const int N = call->B * call->T, Q = c->H * c->D;
    const size_t bytes = (size_t)N * Q * be->real_size, gates = (size_t)N * c->H;
    const DeltaDims d = linear_dims(call);
    Real *dout = call->tmp[0], *dq = call->tmp[1], *dk = call->tmp[2], *dv = call->tmp[3];
    Wide *dg = call->wtmp[0], *dbeta = call->wtmp[1];
    linear_output_backward(call, a, dx, dy, x); // leaves d o in tmp[0]
    be->zero(be, dq, bytes);
    be->zero(be, dk, bytes);
    be->zero(be, dv, bytes);
    be->zero(be, dg, gates * be->wide_size);
    be->zero(be, dbeta, gates * be->wide_size);
    op->delta_rule_backward(dq, dk, dv, dg, dbeta, linear_state_zero(call), dout, a->states, a->qn, a->kn, a->vs, a->g,
                            a->beta, call->start, 1 / sqrt(d.K), call->work, &d);
    delta_inputs_backward(m, call, a, dx, x);
    Real *da = call->tmp[0], *db = call->tmp[1];
    be->zero(be, da, gates * be->real_size);
    be->zero(be, db, gates * be->real_size);
    op->delta_gate_backward(da, db, p->A_log.g, p->dt_bias.g, dg, dbeta, a->a_in, a->g, a->beta, p->A_log.ww,
                            p->dt_bias.ww, N, c->H);
    op->linear_backward(dx, p->a.g, NULL, da, x, p->a.w, N, c->C, c->H);
    op->linear_backward(dx, p->b.g, NULL, db, x, p->b.w, N, c->C, c->H);
}

static void gdn_extend(const Mixer *m, const MixerCall *call, MixerActs *a, MixerState *s, Real *y, const Real *x,
                       int past) {
    (void)past;
    const DeltaDims d = linear_dims(call);
    gdn_inputs(m, call, a, s, x);
    call->be->op->delta_rule_forward(a->o, NULL, s->state, a->qn, a->kn, a->vs, a->g, a->beta, NULL, 1 / sqrt(d.K),
                                     call->work, &d);
    linear_output_forward(call, a, y, x);
}

#define GDN(version, text, bits)                                                                                       \
    const Mixer mixer_gdn_##version = {.name = "gdn_" #version,                                                        \
                                       .label = text,                                                                  \
                                       .linear = 1,                                                                    \
                                       .flags = bits,                                                                  \
                                       .walk = gdn_walk,                                                               \
                                       .place = gdn_place,                                                             \
                                       .work = gdn_work,                                                               \
                                       .forward = gdn_forward,                                                         \
                                       .backward = gdn_backward,                                                       \
                                       .place_state = delta_place_state,                                               \
                                       .extend = gdn_extend}
GDN(v1, "Gated DeltaNet, short convolution", DELTA_CONV | DELTA_SILU | DELTA_NORM);
GDN(v2, "Gated DeltaNet, plain", DELTA_SILU | DELTA_NORM);
GDN(v3, "Gated DeltaNet, short convolution and output gate", DELTA_CONV | DELTA_GATE | DELTA_SILU | DELTA_NORM);
GDN(v4, "Gated DeltaNet, output gate", DELTA_GATE | DELTA_SILU | DELTA_NORM);
GDN(v5, "Gated DeltaNet, output gate, stacked k and v projections", DELTA_GATE | DELTA_SILU | DELTA_NORM | DELTA_STACK);
GDN(v6, "Gated DeltaNet, neither activation nor output norm", 0);
