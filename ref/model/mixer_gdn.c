/* mixer_gdn.c - Gated DeltaNet, the linear mixer of the paper (gdn_v4), and its siblings v1, v2, v3, v6 (method.md 2.1, 2.3).
 *
 *   q, k, v = SiLU([conv] W x);  q, k = l2norm per head;  g, beta = gates(W_a x, W_b x)
 *   o = delta_rule(q, k, v, g, beta);  y = W_o (rmsnorm(o) [SiLU(W_g x)])            no rope, H heads of size D for q, k and v
 * The state of a head is D x D numbers, whatever the context length: this is what the conversion saves, and what it costs in recall. */
#include "model/mixer_linear.h"
#include <math.h>

enum { CONV = 1, GATE = 2, SILU = 4, NORM = 8 };
static const double L2_EPS = 1e-6;

static int gdn_walk(const Mixer *m, const Config *c, MixerParams *p, const Walk *w) {
    const size_t C = c->C, Q = (size_t)c->H * c->D, H = c->H;
    const ParamInfo fresh = {.mixer = 1, .decays = 1, .init = INIT_FAN_IN};
    const ParamInfo conv = {.mixer = 1, .init = INIT_FAN_IN}, norm = {.mixer = 1, .init = INIT_ONES};
    const ParamInfo A_log = {.mixer = 1, .wide = 1, .init = INIT_A_LOG}, dt_bias = {.mixer = 1, .wide = 1, .init = INIT_DT_BIAS};
    TRY(linear_walk_qkv(c, p, w));
    TRY(walk_param(w, &p->a, "attn.a_proj.weight", 2, H, C, fresh));
    TRY(walk_param(w, &p->b, "attn.b_proj.weight", 2, H, C, fresh));
    TRY(walk_param(w, &p->A_log, "attn.A_log", 1, H, 0, A_log));
    TRY(walk_param(w, &p->dt_bias, "attn.dt_bias", 1, H, 0, dt_bias));
    if (m->flags & CONV) {
        TRY(walk_param(w, &p->q_conv, "attn.q_conv1d.weight", 3, Q, c->conv_width, conv));
        TRY(walk_param(w, &p->k_conv, "attn.k_conv1d.weight", 3, Q, c->conv_width, conv));
        TRY(walk_param(w, &p->v_conv, "attn.v_conv1d.weight", 3, Q, c->conv_width, conv));
    }
    if (m->flags & GATE) TRY(walk_param(w, &p->gate, "attn.g_proj.weight", 2, Q, C, fresh));
    if (m->flags & NORM) TRY(walk_param(w, &p->o_norm, "attn.o_norm.weight", 1, c->D, 0, norm));
    return linear_walk_o(c, p, w);
}

/* One projection's chain: linear -> [conv] -> [silu] -> [l2norm]; a stage that a variant lacks shares the memory of the one before. */
typedef struct { Real *lin, *conv, *silu; } Chain;
static Chain chain_place(const Mixer *m, const Config *c, const Backend *be, Arena *arena, size_t N) {
    const size_t Q = N * c->H * c->D;
    Chain s;
    s.lin = arena_take(arena, Q, be->real_size);
    s.conv = m->flags & CONV ? arena_take(arena, Q, be->real_size) : s.lin;
    s.silu = m->flags & SILU ? arena_take(arena, Q, be->real_size) : s.conv;
    return s;
}

static void gdn_place(const Mixer *m, const Config *c, const Backend *be, MixerActs *a, Arena *arena, int B, int T, int chunk, int train) {
    (void)train;
    const size_t N = (size_t)B * T, Q = N * c->H * c->D;
    const DeltaDims d = {.B = B, .T = T, .H = c->H, .Hk = c->H, .K = c->D, .V = c->D, .chunk = chunk};
    const Chain q = chain_place(m, c, be, arena, N), k = chain_place(m, c, be, arena, N), v = chain_place(m, c, be, arena, N);
    a->q = q.lin, a->qc = q.conv, a->qs = q.silu;
    a->k = k.lin, a->kc = k.conv, a->ks = k.silu;
    a->v = v.lin, a->vc = v.conv, a->vs = v.silu;
    a->qn = arena_take(arena, Q, be->real_size);
    a->kn = arena_take(arena, Q, be->real_size);
    a->q_r = arena_take(arena, N * c->H, be->wide_size);
    a->k_r = arena_take(arena, N * c->H, be->wide_size);
    a->a = arena_take(arena, N * c->H, be->real_size);
    a->b = arena_take(arena, N * c->H, be->real_size);
    a->g = arena_take(arena, N * c->H, be->wide_size);
    a->beta = arena_take(arena, N * c->H, be->wide_size);
    a->states = arena_take(arena, delta_states(&d), be->wide_size);
    linear_output_place(c, be, a, arena, N, m->flags & GATE, m->flags & NORM);
}

static size_t gdn_work(const Mixer *m, const Config *c, int B, int T, int chunk) {
    (void)m;
    const DeltaDims d = {.B = B, .T = T, .H = c->H, .Hk = c->H, .K = c->D, .V = c->D, .chunk = chunk};
    return delta_rule_work(&d);
}

static void chain_forward(const Mixer *m, const MixerCall *k, const Param *w, const Param *bias, const Param *conv, Real *lin,
                          Real *conved, Real *silu, Real *tail, const Real *x) {
    const Ops *op = k->be->op;
    const Config *c = k->c;
    const int N = k->B * k->T, Q = c->H * c->D;
    op->linear_forward(lin, x, w->w, bias->w, N, c->C, Q);
    if (m->flags & CONV) op->conv_forward(conved, tail, lin, conv->w, tail, k->start, k->B, k->T, Q, c->conv_width);
    if (m->flags & SILU) op->silu_forward(silu, conved, (size_t)N * Q);
}

/* Everything up to the delta rule's inputs; s holds the convolutions' tails when generating, else NULL. */
static void gdn_inputs(const Mixer *m, const MixerCall *k, MixerActs *a, MixerState *s, const Real *x) {
    const Ops *op = k->be->op;
    const Config *c = k->c;
    MixerParams *p = k->p;
    const int N = k->B * k->T;
    chain_forward(m, k, &p->q, &p->q_bias, &p->q_conv, a->q, a->qc, a->qs, s ? s->q_tail : NULL, x);
    chain_forward(m, k, &p->k, &p->k_bias, &p->k_conv, a->k, a->kc, a->ks, s ? s->k_tail : NULL, x);
    chain_forward(m, k, &p->v, &p->v_bias, &p->v_conv, a->v, a->vc, a->vs, s ? s->v_tail : NULL, x);
    op->l2norm_forward(a->qn, a->q_r, a->qs, L2_EPS, N * c->H, c->D);
    op->l2norm_forward(a->kn, a->k_r, a->ks, L2_EPS, N * c->H, c->D);
    op->linear_forward(a->a, x, p->a.w, NULL, N, c->C, c->H);
    op->linear_forward(a->b, x, p->b.w, NULL, N, c->C, c->H);
    op->delta_gate_forward(a->g, a->beta, a->a, a->b, p->A_log.ww, p->dt_bias.ww, N, c->H);
}

static void gdn_forward(const Mixer *m, const MixerCall *k, MixerActs *a, Real *y, const Real *x) {
    const DeltaDims d = linear_dims(k);
    gdn_inputs(m, k, a, NULL, x);
    linear_state_zero(k, a->states);
    k->be->op->delta_rule_forward(a->o, a->states, a->qn, a->kn, a->vs, a->g, a->beta, k->start, 1 / sqrt(d.K), k->work, &d);
    linear_output_forward(k, a, y, x);
}

/* d: gradient of a chain's output (overwritten); tmp: scratch of the same size. */
static void chain_backward(const Mixer *m, const MixerCall *k, const Param *w, const Param *bias, const Param *conv, const Real *lin,
                           const Real *conved, Real *dx, Real *d, Real *tmp, const Real *x) {
    Backend *be = k->be;
    const Config *c = k->c;
    const int N = k->B * k->T, Q = c->H * c->D;
    const size_t bytes = (size_t)N * Q * be->real_size;
    if (m->flags & SILU) {
        Real *out = tmp;
        be->zero(be, out, bytes);
        be->op->silu_backward(out, d, conved, (size_t)N * Q);
        tmp = d;
        d = out;
    }
    if (m->flags & CONV) {
        be->zero(be, tmp, bytes);
        be->op->conv_backward(tmp, conv->g, d, lin, conv->w, k->start, k->B, k->T, Q, c->conv_width);
        d = tmp;
    }
    be->op->linear_backward(dx, w->g, bias->g, d, x, w->w, N, c->C, Q);
}

static void gdn_backward(const Mixer *m, const MixerCall *k, MixerActs *a, Real *dx, const Real *dy, const Real *x) {
    Backend *be = k->be;
    const Ops *op = be->op;
    const Config *c = k->c;
    MixerParams *p = k->p;
    const int N = k->B * k->T, Q = c->H * c->D;
    const size_t bytes = (size_t)N * Q * be->real_size, gates = (size_t)N * c->H;
    const DeltaDims d = linear_dims(k);
    Real *dout = k->tmp[0], *dq = k->tmp[1], *dk = k->tmp[2], *dv = k->tmp[3];
    Wide *dg = k->wtmp[0], *dbeta = k->wtmp[1];
    linear_output_backward(k, a, dx, dy, x); // leaves d o in tmp[0]
    be->zero(be, dq, bytes);
    be->zero(be, dk, bytes);
    be->zero(be, dv, bytes);
    be->zero(be, dg, gates * be->wide_size);
    be->zero(be, dbeta, gates * be->wide_size);
    be->zero(be, k->dstate, (size_t)k->B * c->H * c->D * c->D * be->wide_size);
    op->delta_rule_backward(dq, dk, dv, dg, dbeta, k->dstate, dout, a->states, a->qn, a->kn, a->vs, a->g, a->beta, k->start,
                            1 / sqrt(d.K), k->work, &d);
    chain_backward(m, k, &p->v, &p->v_bias, &p->v_conv, a->v, a->vc, dx, dv, k->tmp[0], x);
    be->zero(be, k->tmp[0], bytes);
    op->l2norm_backward(k->tmp[0], dq, a->qn, a->q_r, N * c->H, c->D);
    chain_backward(m, k, &p->q, &p->q_bias, &p->q_conv, a->q, a->qc, dx, k->tmp[0], dq, x);
    be->zero(be, k->tmp[0], bytes);
    op->l2norm_backward(k->tmp[0], dk, a->kn, a->k_r, N * c->H, c->D);
    chain_backward(m, k, &p->k, &p->k_bias, &p->k_conv, a->k, a->kc, dx, k->tmp[0], dk, x);
    Real *da = k->tmp[0], *db = k->tmp[1];
    be->zero(be, da, gates * be->real_size);
    be->zero(be, db, gates * be->real_size);
    op->delta_gate_backward(da, db, p->A_log.g, p->dt_bias.g, dg, dbeta, a->a, a->g, a->beta, p->A_log.ww, p->dt_bias.ww, N, c->H);
    op->linear_backward(dx, p->a.g, NULL, da, x, p->a.w, N, c->C, c->H);
    op->linear_backward(dx, p->b.g, NULL, db, x, p->b.w, N, c->C, c->H);
}

static void gdn_place_state(const Mixer *m, const Config *c, const Backend *be, MixerState *s, Arena *arena, int B, int capacity) {
    (void)capacity;
    s->state = arena_take(arena, (size_t)B * c->H * c->D * c->D, be->wide_size);
    if (!(m->flags & CONV)) return;
    const size_t tail = (size_t)B * (c->conv_width - 1) * c->H * c->D;
    s->q_tail = arena_take(arena, tail, be->real_size);
    s->k_tail = arena_take(arena, tail, be->real_size);
    s->v_tail = arena_take(arena, tail, be->real_size);
}

static void gdn_extend(const Mixer *m, const MixerCall *k, MixerActs *a, MixerState *s, Real *y, const Real *x, int past, int capacity) {
    (void)past, (void)capacity;
    const DeltaDims d = linear_dims(k);
    gdn_inputs(m, k, a, s, x);
    linear_state_load(k, a->states, s->state);
    k->be->op->delta_rule_forward(a->o, a->states, a->qn, a->kn, a->vs, a->g, a->beta, NULL, 1 / sqrt(d.K), k->work, &d);
    linear_state_save(k, s->state, a->states);
    linear_output_forward(k, a, y, x);
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
                                       .place_state = gdn_place_state,                                                 \
                                       .extend = gdn_extend}
GDN(v1, "Gated DeltaNet, short convolution", CONV | SILU | NORM);
GDN(v2, "Gated DeltaNet, plain", SILU | NORM);
GDN(v3, "Gated DeltaNet, short convolution and output gate", CONV | GATE | SILU | NORM);
GDN(v4, "Gated DeltaNet, output gate", GATE | SILU | NORM);
GDN(v6, "Gated DeltaNet, neither activation nor output norm", 0);
