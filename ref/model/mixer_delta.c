/* mixer_delta.c - projections, convolution, SiLU and L2 norm of the delta-rule mixers, both directions. */
#include "model/mixer_delta.h"

static const double L2_EPS = 1e-6;

/* k or v of gdn_v5: two stacked linear maps with biases, of which only the first matrix is the teacher's (
 * ref/METHOD.md 6.5). */
static int stack_walk(const Config *c, Param *first, Param *bias, Param *second, Param *second_bias, const Walk *w,
                      char which) {
    const size_t C = c->C, Q = (size_t)c->H * c->D, K = (size_t)c->Hk * c->D;
    const int keep = c->linear_bias && c->qkv_bias;
    const char *from = which == 'k' ? "attn.k_proj.weight" : "attn.v_proj.weight",
               *from_bias = which == 'k' ? "attn.k_proj.bias" : "attn.v_proj.bias";
    char name[4][32] = {"attn.?_proj.0.weight", "attn.?_proj.0.bias", "attn.?_proj.1.weight", "attn.?_proj.1.bias"};
    const ParamInfo copied = {.mixer = 1, .decays = 1, .init = INIT_NORMAL, .copy = COPY_SAME, .from = from};
    const ParamInfo fresh = {.mixer = 1, .decays = 1, .init = INIT_FAN_IN},
                    late_bias = {.mixer = 1, .init = INIT_FAN_IN, .fan = K};
    ParamInfo early_bias = {.mixer = 1, .init = INIT_FAN_IN, .fan = C};
    if (keep) early_bias.copy = COPY_SAME, early_bias.from = from_bias;
    for (int i = 0; i < 4; i++) name[i][5] = which;
    TRY(walk_param(w, first, name[0], 2, K, C, copied));
    TRY(walk_param(w, bias, name[1], 1, K, 0, early_bias));
    TRY(walk_param(w, second, name[2], 2, Q, K, fresh));
    return walk_param(w, second_bias, name[3], 1, Q, 0, late_bias);
}

int delta_walk_qkv(const Mixer *m, const Config *c, MixerParams *p, const Walk *w) {
    const ParamInfo same = {.mixer = 1, .decays = 1, .init = INIT_NORMAL, .copy = COPY_SAME};
    const ParamInfo bias = {.mixer = 1, .init = INIT_ZEROS, .copy = COPY_SAME};
    if (!(m->flags & DELTA_STACK)) return linear_walk_qkv(c, p, w);
    TRY(walk_param(w, &p->q, "attn.q_proj.weight", 2, (size_t)c->H * c->D, c->C, same));
    if (c->linear_bias && c->qkv_bias)
        TRY(walk_param(w, &p->q_bias, "attn.q_proj.bias", 1, (size_t)c->H * c->D, 0, bias));
    TRY(stack_walk(c, &p->k, &p->k_bias, &p->k_up, &p->k_up_bias, w, 'k'));
    return stack_walk(c, &p->v, &p->v_bias, &p->v_up, &p->v_up_bias, w, 'v');
}

int delta_walk_conv(const Mixer *m, const Config *c, MixerParams *p, const Walk *w) {
    const size_t Q = (size_t)c->H * c->D;
    const ParamInfo conv = {.mixer = 1, .init = INIT_FAN_IN};
    if (!(m->flags & DELTA_CONV)) return OK;
    TRY(walk_param(w, &p->q_conv, "attn.q_conv1d.weight", 3, Q, c->conv_width, conv));
    TRY(walk_param(w, &p->k_conv, "attn.k_conv1d.weight", 3, Q, c->conv_width, conv));
    return walk_param(w, &p->v_conv, "attn.v_conv1d.weight", 3, Q, c->conv_width, conv);
}

/* One of q, k, v: linear -> [linear] -> [conv] -> [silu]. A stage that a variant lacks shares the memory of its
 * neighbour. */
typedef struct {
    const Param *w, *bias, *up, *up_bias, *conv; /* up: NULL for q */
    Real *low, *lin, *conved, *silu;             /* low: between two stacked linear maps */
} Chain;
static void chains_make(Chain *s, const MixerParams *p, const MixerActs *a) {
    s[0] = (Chain){&p->q, &p->q_bias, NULL, NULL, &p->q_conv, NULL, a->q, a->qc, a->qs};
    s[1] = (Chain){&p->k, &p->k_bias, &p->k_up, &p->k_up_bias, &p->k_conv, a->k_low, a->k, a->kc, a->ks};
    s[2] = (Chain){&p->v, &p->v_bias, &p->v_up, &p->v_up_bias, &p->v_conv, a->v_low, a->v, a->vc, a->vs};
}

void delta_inputs_place(const Mixer *m, const Config *c, const Backend *be, MixerActs *a, Arena *arena, size_t N) {
    const size_t Q = N * c->H * c->D, K = N * c->Hk * c->D;
    Real **lin[] = {&a->q, &a->k, &a->v}, **conved[] = {&a->qc, &a->kc, &a->vc}, **silu[] = {&a->qs, &a->ks, &a->vs};
    Real *last[3];
    for (int i = 0; i < 3; i++) last[i] = arena_take(arena, Q, be->real_size);
    if (m->flags & DELTA_STACK)
        a->k_low = arena_take(arena, K, be->real_size), a->v_low = arena_take(arena, K, be->real_size);
    for (int i = 0; i < 3; i++) { // backward wants the input of every stage; the last one's output is normed in place
        const int conv = (m->flags & DELTA_CONV) != 0, act = (m->flags & DELTA_SILU) != 0;
        *lin[i] = conv || act ? arena_take(arena, Q, be->real_size) : last[i];
        *conved[i] = !conv ? *lin[i] : act ? arena_take(arena, Q, be->real_size) : last[i];
        *silu[i] = last[i];
    }
    a->qn = last[0];
    a->kn = last[1];
    a->q_r = arena_take(arena, N * c->H, be->wide_size);
    a->k_r = arena_take(arena, N * c->H, be->wide_size);
}

static void chain_forward(const Mixer *m, const MixerCall *call, const Chain *s, Real *tail, const Real *x) {
    const Ops *op = call->be->op;
    const Config *c = call->c;
    const int N = call->B * call->T, Q = c->H * c->D, K = c->Hk * c->D;
    if (s->low) {
        op->linear_forward(s->low, x, s->w->w, s->bias->w, N, c->C, K);
        op->linear_forward(s->lin, s->low, s->up->w, s->up_bias->w, N, K, Q);
    } else {
        op->linear_forward(s->lin, x, s->w->w, s->bias->w, N, c->C, Q);
    }
    if (m->flags & DELTA_CONV)
        op->conv_forward(s->conved, tail, s->lin, s->conv->w, tail, call->start, call->B, call->T, Q, c->conv_width);
    if (m->flags & DELTA_SILU) op->silu_forward(s->silu, s->conved, (size_t)N * Q);
}

void delta_inputs_forward(const Mixer *m, const MixerCall *call, MixerActs *a, MixerState *s, const Real *x) {
    const Ops *op = call->be->op;
    const Config *c = call->c;
    const int N = call->B * call->T;
    Chain chain[3];
    chains_make(chain, call->p, a);
    Real *tail[3] = {s ? s->q_tail : NULL, s ? s->k_tail : NULL, s ? s->v_tail : NULL};
    for (int i = 0; i < 3; i++) chain_forward(m, call, &chain[i], tail[i], x);
    op->l2norm_forward(a->qn, a->q_r, a->qs, L2_EPS, N * c->H, c->D);
    op->l2norm_forward(a->kn, a->k_r, a->ks, L2_EPS, N * c->H, c->D);
}

static Real *zeroed(const MixerCall *call, Real *t, size_t n) {
    call->be->zero(call->be, t, n * call->be->real_size);
    return t;
}

/* d: gradient of a chain's output; spare: scratch of the same size. Both are overwritten. */
static void chain_backward(const Mixer *m, const MixerCall *call, const Chain *s, Real *dx, Real *d, Real *spare,
                           const Real *x) {
    const Ops *op = call->be->op;
    const Config *c = call->c;
    const int N = call->B * call->T, Q = c->H * c->D, K = c->Hk * c->D;
    Real *out;
    if (m->flags & DELTA_SILU) {
        op->silu_backward(out = zeroed(call, spare, (size_t)N * Q), d, s->conved, (size_t)N * Q);
        spare = d, d = out;
    }
    if (m->flags & DELTA_CONV) {
        op->conv_backward(out = zeroed(call, spare, (size_t)N * Q), s->conv->g, d, s->lin, s->conv->w, call->start,
                          call->B, call->T, Q, c->conv_width);
        spare = d, d = out;
    }
    if (s->low) {
        op->linear_backward(out = zeroed(call, spare, (size_t)N * K), s->up->g, s->up_bias->g, d, s->low, s->up->w, N,
                            K, Q);
        op->linear_backward(dx, s->w->g, s->bias->g, out, x, s->w->w, N, c->C, K);
    } else {
        op->linear_backward(dx, s->w->g, s->bias->g, d, x, s->w->w, N, c->C, Q);
    }
}

void delta_inputs_backward(const Mixer *m, const MixerCall *call, MixerActs *a, Real *dx, const Real *x) {
    const Ops *op = call->be->op;
    const Config *c = call->c;
    const int N = call->B * call->T;
    const size_t n = (size_t)N * c->H * c->D;
    Real *dq = call->tmp[1], *dk = call->tmp[2], *dv = call->tmp[3];
    Chain chain[3];
    chains_make(chain, call->p, a);
    chain_backward(m, call, &chain[2], dx, dv, call->tmp[0], x);
    op->l2norm_backward(zeroed(call, call->tmp[0], n), dq, a->qn, a->q_r, N * c->H, c->D);
    chain_backward(m, call, &chain[0], dx, call->tmp[0], dq, x);
    op->l2norm_backward(zeroed(call, call->tmp[0], n), dk, a->kn, a->k_r, N * c->H, c->D);
    chain_backward(m, call, &chain[1], dx, call->tmp[0], dk, x);
}

void delta_place_state(const Mixer *m, const Config *c, const Backend *be, MixerState *s, Arena *arena, int B,
                       int capacity, int step) {
    (void)capacity, (void)step;
    s->state = arena_take(arena, (size_t)B * c->H * c->D * c->D, be->wide_size);
    if (!(m->flags & DELTA_CONV)) return;
    const size_t tail = (size_t)B * (c->conv_width - 1) * c->H * c->D;
    s->q_tail = arena_take(arena, tail, be->real_size);
    s->k_tail = arena_take(arena, tail, be->real_size);
    s->v_tail = arena_take(arena, tail, be->real_size);
}
