/* mixer_softmax.c - causal softmax attention with grouped queries: what the teacher has, and what the selected layers
 * keep.
 *
 *   q, k, v = W x (+ bias);  [Qwen3: q, k = rmsnorm per head];  q, k = rope;  o = attention(q, k, v);
 *   y = W_o o (+ bias)
 * Variants by config: qkv_bias (Qwen2), o_bias, qk_norm (Qwen3), window (Mistral; swa_v1, which is this with a window
 * of its own: mixer_swa.c), no_rope and logit_base (tables of angle 0, and of a scale, for the same op). */
#include "model/mixer_softmax.h"
#include <math.h>

int softmax_walk(const Mixer *m, const Config *c, MixerParams *p, const Walk *w) {
    (void)m;
    const size_t C = c->C, Q = (size_t)c->H * c->D, K = (size_t)c->Hk * c->D;
    const ParamInfo matrix = {.mixer = 1, .decays = 1, .init = INIT_NORMAL, .copy = COPY_SAME};
    const ParamInfo bias = {.mixer = 1, .init = INIT_ZEROS, .copy = COPY_SAME},
                    norm = {.mixer = 1, .init = INIT_ONES, .copy = COPY_SAME};
    ParamInfo out = matrix;
    out.residual = 1;
    TRY(walk_param(w, &p->q, "attn.q_proj.weight", 2, Q, C, matrix));
    if (c->qkv_bias) TRY(walk_param(w, &p->q_bias, "attn.q_proj.bias", 1, Q, 0, bias));
    TRY(walk_param(w, &p->k, "attn.k_proj.weight", 2, K, C, matrix));
    if (c->qkv_bias) TRY(walk_param(w, &p->k_bias, "attn.k_proj.bias", 1, K, 0, bias));
    TRY(walk_param(w, &p->v, "attn.v_proj.weight", 2, K, C, matrix));
    if (c->qkv_bias) TRY(walk_param(w, &p->v_bias, "attn.v_proj.bias", 1, K, 0, bias));
    if (c->qk_norm) TRY(walk_param(w, &p->q_norm, "attn.q_norm.weight", 1, c->D, 0, norm));
    if (c->qk_norm) TRY(walk_param(w, &p->k_norm, "attn.k_norm.weight", 1, c->D, 0, norm));
    TRY(walk_param(w, &p->o, "attn.o_proj.weight", 2, C, Q, out));
    if (c->o_bias) TRY(walk_param(w, &p->o_bias, "attn.o_proj.bias", 1, C, 0, bias));
    return OK;
}

/* Without q/k norm the projections are rotated in place: backward needs only what attention saw. */
void softmax_place(const Mixer *m, const Config *c, const Backend *be, MixerActs *a, Arena *arena, int B, int T,
                   int chunk, int train) {
    (void)m, (void)chunk, (void)train;
    const size_t N = (size_t)B * T, Q = N * c->H * c->D, K = N * c->Hk * c->D;
    a->q = arena_take(arena, Q, be->real_size);
    a->k = arena_take(arena, K, be->real_size);
    a->v = arena_take(arena, K, be->real_size);
    a->qs = a->q;
    a->ks = a->k;
    if (c->qk_norm) {
        a->qs = arena_take(arena, Q, be->real_size);
        a->ks = arena_take(arena, K, be->real_size);
        a->q_r = arena_take(arena, N * c->H, be->wide_size);
        a->k_r = arena_take(arena, N * c->Hk, be->wide_size);
    }
    a->o = arena_take(arena, Q, be->real_size);
    a->y = a->o; // input of o_proj, as in every mixer
    a->lse = arena_take(arena, N * c->H, be->wide_size);
}

static int softmax_window(const Mixer *m, const Config *c) {
    return m->flags & SOFTMAX_SWA ? c->swa_window : c->window;
}

static AttnDims softmax_dims(const Mixer *m, const Config *c, int B, int T, int past, int stride) {
    const int window = softmax_window(m, c);
    return (AttnDims){
        .B = B, .T = T, .past = past, .stride = stride, .H = c->H, .Hk = c->Hk, .D = c->D, .window = window};
}

size_t softmax_work(const Mixer *m, const Config *c, int B, int T, int chunk) {
    (void)chunk;
    const AttnDims d = softmax_dims(m, c, B, T, 0, 0);
    return attention_work(&d);
}

/* Projections, q/k norm and rope for T tokens of which the first stands at position pos. */
static void softmax_qkv(const MixerCall *call, MixerActs *a, const Real *x, int pos) {
    const Ops *op = call->be->op;
    const Config *c = call->c;
    const MixerParams *p = call->p;
    const int N = call->B * call->T, Q = c->H * c->D, K = c->Hk * c->D;
    op->linear_forward(a->q, x, p->q.w, p->q_bias.w, N, c->C, Q);
    op->linear_forward(a->k, x, p->k.w, p->k_bias.w, N, c->C, K);
    op->linear_forward(a->v, x, p->v.w, p->v_bias.w, N, c->C, K);
    if (c->qk_norm) {
        op->rmsnorm_forward(a->qs, a->q_r, a->q, p->q_norm.w, c->norm_eps, N * c->H, c->D);
        op->rmsnorm_forward(a->ks, a->k_r, a->k, p->k_norm.w, c->norm_eps, N * c->Hk, c->D);
    }
    op->rope_forward(a->qs, a->qs, call->rope_q, pos, call->B, call->T, c->H, c->D);
    op->rope_forward(a->ks, a->ks, call->rope_k, pos, call->B, call->T, c->Hk, c->D);
}

void softmax_forward(const Mixer *m, const MixerCall *call, MixerActs *a, Real *y, const Real *x) {
    const Config *c = call->c;
    const AttnDims d = softmax_dims(m, c, call->B, call->T, 0, 0);
    softmax_qkv(call, a, x, 0);
    call->be->op->attention_forward(a->o, a->lse, a->qs, a->ks, a->v, call->start, 1 / sqrt(c->D), call->work, &d);
    call->be->op->linear_forward(y, a->o, call->p->o.w, call->p->o_bias.w, call->B * call->T, c->H * c->D, c->C);
}

/* From the gradient of one rotated projection back to its input: un-rotate, undo the per-head norm, then the matrix. */
static void softmax_proj_backward(const MixerCall *call, const Param *w, const Param *bias, const Param *norm,
                                  const Real *pre, const Wide *r, const Wide *rope, int heads, Real *dx, Real *dq,
                                  Real *tmp, const Real *x) {
    const Ops *op = call->be->op;
    const Config *c = call->c;
    const int N = call->B * call->T;
    const size_t bytes = (size_t)N * heads * c->D * call->be->real_size;
    Real *d = tmp;
    call->be->zero(call->be, tmp, bytes);
    op->rope_backward(tmp, dq, rope, 0, call->B, call->T, heads, c->D);
    if (c->qk_norm) {
        call->be->zero(call->be, dq, bytes);
        op->rmsnorm_backward(dq, norm->g, tmp, pre, norm->w, r, N * heads, c->D);
        d = dq;
    }
    op->linear_backward(dx, w->g, bias->g, d, x, w->w, N, c->C, heads * c->D);
}

void softmax_backward(const Mixer *m, const MixerCall *call, MixerActs *a, Real *dx, const Real *dy, const Real *x) {
    Backend *be = call->be;
    const Config *c = call->c;
    const MixerParams *p = call->p;
    const int N = call->B * call->T, Q = c->H * c->D, K = c->Hk * c->D;
    const AttnDims d = softmax_dims(m, c, call->B, call->T, 0, 0);
    Real *dout = call->tmp[0], *dq = call->tmp[1], *dk = call->tmp[2], *dv = call->tmp[3];
    be->zero(be, dout, (size_t)N * Q * be->real_size);
    be->zero(be, dq, (size_t)N * Q * be->real_size);
    be->zero(be, dk, (size_t)N * K * be->real_size);
    be->zero(be, dv, (size_t)N * K * be->real_size);
    be->op->linear_backward(dout, p->o.g, p->o_bias.g, dy, a->o, p->o.w, N, Q, c->C);
    be->op->attention_backward(dq, dk, dv, dout, a->o, a->lse, a->qs, a->ks, a->v, call->start, 1 / sqrt(c->D),
                               call->work, &d);
    softmax_proj_backward(call, &p->q, &p->q_bias, &p->q_norm, a->q, a->q_r, call->rope_q, c->H, dx, dq, call->tmp[0],
                          x);
    softmax_proj_backward(call, &p->k, &p->k_bias, &p->k_norm, a->k, a->k_r, call->rope_k, c->Hk, dx, dk, call->tmp[0],
                          x);
    be->op->linear_backward(dx, p->v.g, p->v_bias.g, dv, x, p->v.w, N, c->C, K);
}

void softmax_place_state(const Mixer *m, const Config *c, const Backend *be, MixerState *s, Arena *arena, int B,
                         int capacity, int step) {
    const int window = softmax_window(m, c);
    // with a window: what the next piece may look at, the piece itself, and one more window so that rows are moved once
    // in a window
    const int64_t enough = window > 0 ? 2 * (int64_t)window + step : capacity;
    s->rows = enough < capacity ? (int)enough : capacity;
    s->used = 0;
    const size_t n = (size_t)B * s->rows * c->Hk * c->D;
    s->k_cache = arena_take(arena, n, be->real_size);
    s->v_cache = arena_take(arena, n, be->real_size);
}

/* Room for T more rows: all but the window - 1 last ones are out of sight, and the others move to the front. */
static void softmax_make_room(const MixerCall *call, MixerState *s, int window, int T) {
    Backend *be = call->be;
    const size_t row = (size_t)call->c->Hk * call->c->D;
    if (s->used + T <= s->rows) return;
    const int keep = window - 1 < s->used ? window - 1 : s->used;
    for (int b = 0; b < call->B; b++) {
        const size_t to = (size_t)b * s->rows * row, from = to + (size_t)(s->used - keep) * row;
        be->move(be, real_at(be, s->k_cache, to), creal_at(be, s->k_cache, from), keep * row * be->real_size);
        be->move(be, real_at(be, s->v_cache, to), creal_at(be, s->v_cache, from), keep * row * be->real_size);
    }
    s->used = keep;
}

void softmax_extend(const Mixer *m, const MixerCall *call, MixerActs *a, MixerState *s, Real *y, const Real *x,
                    int past) {
    Backend *be = call->be;
    const Config *c = call->c;
    const size_t row = (size_t)c->Hk * c->D, bytes = call->T * row * be->real_size;
    softmax_make_room(call, s, softmax_window(m, c), call->T);
    const AttnDims d = softmax_dims(m, c, call->B, call->T, s->used, s->rows);
    softmax_qkv(call, a, x, past);
    for (int b = 0; b < call->B; b++) {
        const size_t to = ((size_t)b * s->rows + s->used) * row, from = (size_t)b * call->T * row;
        be->move(be, real_at(be, s->k_cache, to), creal_at(be, a->ks, from), bytes);
        be->move(be, real_at(be, s->v_cache, to), creal_at(be, a->v, from), bytes);
    }
    s->used += call->T;
    be->op->attention_forward(a->o, a->lse, a->qs, s->k_cache, s->v_cache, NULL, 1 / sqrt(c->D), call->work, &d);
    be->op->linear_forward(y, a->o, call->p->o.w, call->p->o_bias.w, call->B * call->T, c->H * c->D, c->C);
}

const Mixer mixer_softmax = {
    .name = "softmax",
    .label = "softmax attention",
    .walk = softmax_walk,
    .place = softmax_place,
    .work = softmax_work,
    .forward = softmax_forward,
    .backward = softmax_backward,
    .place_state = softmax_place_state,
    .extend = softmax_extend,
};
