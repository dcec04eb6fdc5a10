/* mixer_linear.c - the parts that gated delta rule and gated linear attention have in common. */
#include "model/mixer_linear.h"

int linear_walk_qkv(const Config *c, MixerParams *p, const Walk *w) {
    const size_t C = c->C, Q = (size_t)c->H * c->D;
    const ParamInfo same = {.mixer = 1, .decays = 1, .init = INIT_NORMAL, .copy = COPY_SAME};
    const ParamInfo bias = {.mixer = 1, .init = INIT_ZEROS, .copy = COPY_SAME};
    ParamInfo expand = same, bias_expand = bias;
    expand.copy = bias_expand.copy = COPY_EXPAND;
    const int biased = c->linear_bias && c->qkv_bias;
    TRY(walk_param(w, &p->q, "attn.q_proj.weight", 2, Q, C, same));
    if (biased) TRY(walk_param(w, &p->q_bias, "attn.q_proj.bias", 1, Q, 0, bias));
    TRY(walk_param(w, &p->k, "attn.k_proj.weight", 2, Q, C, expand));
    if (biased) TRY(walk_param(w, &p->k_bias, "attn.k_proj.bias", 1, Q, 0, bias_expand));
    TRY(walk_param(w, &p->v, "attn.v_proj.weight", 2, Q, C, expand));
    if (biased) TRY(walk_param(w, &p->v_bias, "attn.v_proj.bias", 1, Q, 0, bias_expand));
    return OK;
}

int linear_walk_o(const Config *c, MixerParams *p, const Walk *w) {
    const ParamInfo same = {.mixer = 1, .decays = 1, .init = INIT_NORMAL, .copy = COPY_SAME, .residual = 1};
    return walk_param(w, &p->o, "attn.o_proj.weight", 2, c->C, (size_t)c->H * c->D, same);
}

DeltaDims linear_dims(const MixerCall *call) {
    const Config *c = call->c;
    return (DeltaDims){.B = call->B, .T = call->T, .H = c->H, .Hk = c->H, .K = c->D, .V = c->D, .chunk = call->chunk};
}

Real *linear_states_place(const Backend *be, Arena *arena, const DeltaDims *d, int train) {
    return train ? arena_take(arena, delta_states(d), be->real_size) : NULL;
}

Wide *linear_state_zero(const MixerCall *call) {
    call->be->zero(call->be, call->state, (size_t)call->B * call->c->H * call->c->D * call->c->D * call->be->wide_size);
    return call->state;
}

void linear_output_place(const Config *c, const Backend *be, MixerActs *a, Arena *arena, size_t N, int gate, int norm) {
    const size_t Q = N * c->H * c->D;
    a->o = arena_take(arena, Q, be->real_size);
    a->z = gate ? arena_take(arena, Q, be->real_size) : NULL;
    a->y = norm ? arena_take(arena, Q, be->real_size) : a->o;
    a->o_r = norm ? arena_take(arena, N * c->H, be->wide_size) : NULL;
}

void linear_output_forward(const MixerCall *call, MixerActs *a, Real *y, const Real *x) {
    const Ops *op = call->be->op;
    const Config *c = call->c;
    const MixerParams *p = call->p;
    const int N = call->B * call->T, Q = c->H * c->D;
    if (p->gate.n) {
        op->linear_forward(a->z, x, p->gate.w, NULL, N, c->C, Q);
        op->gated_rmsnorm_forward(a->y, a->o_r, a->o, a->z, p->o_norm.w, c->o_norm_eps, N * c->H, c->D);
    } else if (p->o_norm.n) {
        op->rmsnorm_forward(a->y, a->o_r, a->o, p->o_norm.w, c->o_norm_eps, N * c->H, c->D);
    }
    op->linear_forward(y, a->y, p->o.w, NULL, N, Q, c->C);
}

void linear_output_backward(const MixerCall *call, MixerActs *a, Real *dx, const Real *dy, const Real *x) {
    Backend *be = call->be;
    const Ops *op = be->op;
    const Config *c = call->c;
    MixerParams *p = call->p;
    const int N = call->B * call->T, Q = c->H * c->D;
    const size_t bytes = (size_t)N * Q * be->real_size;
    const int norm = p->o_norm.n != 0;
    Real *dyo = norm ? call->tmp[1] : call->tmp[0]; // gradient of o_proj's input; without a norm that is d o itself
    be->zero(be, dyo, bytes);
    op->linear_backward(dyo, p->o.g, NULL, dy, a->y, p->o.w, N, Q, c->C);
    if (!norm) return;
    be->zero(be, call->tmp[0], bytes);
    if (!p->gate.n) {
        op->rmsnorm_backward(call->tmp[0], p->o_norm.g, dyo, a->o, p->o_norm.w, a->o_r, N * c->H, c->D);
        return;
    }
    be->zero(be, call->tmp[2], bytes);
    op->gated_rmsnorm_backward(call->tmp[0], call->tmp[2], p->o_norm.g, dyo, a->o, a->z, p->o_norm.w, a->o_r, N * c->H,
                               c->D);
    op->linear_backward(dx, p->gate.g, NULL, call->tmp[2], x, p->gate.w, N, c->C, Q);
}
