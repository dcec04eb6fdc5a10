/* bench_steps.c - see bench_steps.h. */
#include "tools/bench_steps.h"
#include "base/mem.h"
#include "io/hf.h"
#include "method/transfer.h"
#include <string.h>

Config bench_config(int C, int L, int H, int Hk, int F, int VOC, int tied) {
    Config c = {.family = "llama", .C = C, .L = L, .H = H, .Hk = Hk, .D = C / H, .F = F, .VOC = VOC, .tied = tied};
    c.max_positions = 8192, c.norm_eps = c.o_norm_eps = 1e-5, c.conv_width = 4;
    c.rope = (Rope){.kind = ROPE_PLAIN, .theta = 10000};
    c.bos = -1, c.dtype = DT_F32;
    return c;
}

/* ---- useful operations: 2 a multiply-add, causal attention its triangle, recomputation not counted ---- */

typedef struct {
    // weights that multiply every token: of the whole stack, of mixers, of their output projections
    double all, mixer, mixer_out;
} Products;
static int products_visit(void *ctx, const ParamInfo *i, Param *slot) {
    Products *p = ctx;
    (void)slot;
    const int head = i->layer < 0 && !strcmp(i->name, "lm_head.weight");
    if (i->rank != 2 || (i->layer < 0 && !head)) return OK; // the embedding is a lookup
    p->all += (double)i->n;
    if (i->mixer) p->mixer += (double)i->n;
    if (i->mixer && i->residual) p->mixer_out += (double)i->n;
    return OK;
}
static Products products_of(const Config *c) {
    Products p = {0};
    params_walk(c, NULL, products_visit, &p);
    if (c->tied) p.all += (double)c->VOC * c->C;
    return p;
}

/* A token of one layer: attention over T/2 tokens, or a state and half a chunk of 64 (cpu/SPEED.md). */
static double mix_flops(const Config *c, int l, int T, int backward) {
    const double wide = (double)c->H * c->D;
    if (!c->mixer[l]) return (backward ? 8 : 4) * wide * (T + 1) / 2;
    const int gla = mixer_at(c->mixer[l])->flags == 0 && strstr(mixer_at(c->mixer[l])->name, "gla");
    const double square = gla ? 2 : 3, half = gla ? 2 : 4;
    return wide * (backward ? 2 : 1) * (2 * square * c->D + half * 64);
}
static double mixes(const Config *c, int T, int backward) {
    double sum = 0;
    for (int l = 0; l < c->L; l++) sum += mix_flops(c, l, T, backward);
    return sum;
}
static double forward_flops(const Config *c, int T) { return 2 * products_of(c).all + mixes(c, T, 0); }
static double backward_flops(const Config *c, int T) { return 4 * products_of(c).all + mixes(c, T, 1); }

/* Of one token. Stage 1 needs neither the head nor the last MLP, and no gradient of the mixers' inputs. */
static double step_flops(StepKind kind, const Config *t, const Config *s, int T) {
    const double head = (double)t->VOC * t->C, mlp = 3.0 * t->C * t->F;
    const Products p = products_of(s);
    switch (kind) {
    case STEP_PRETRAIN:
        return forward_flops(t, T) + backward_flops(t, T);
    case STEP_STAGE2:
        return forward_flops(t, T) + forward_flops(s, T) + backward_flops(s, T);
    case STEP_STAGE1:
        return forward_flops(t, T) - 2 * (head + mlp) + 4 * p.mixer + 2 * p.mixer_out + mixes(s, T, 0) + mixes(s, T, 1);
    case STEP_PREFILL:
        return forward_flops(t, T) - 2 * head * (T - 1) / T; // logits of the last token alone
    default:
        return forward_flops(t, 1);
    }
}

/* ---- opening and closing ---- */

static int student_config(const Step *s, Config *c, Err *e) {
    int mixer[MAX_LAYERS];
    for (int l = 0; l < s->c.L; l++) mixer[l] = s->mixer;
    return transfer_config(c, &s->c, mixer, e);
}

static int weights_open(Model *m, const Step *s, GradKind grad, Err *e) {
    if (s->model) return hf_load_model(m, s->model, s->be, grad, e);
    TRY(model_open(m, &s->c, s->be, grad, e));
    if (!s->fill) return model_init(m, 1, 0.02, 0.7, 0, e);
    s->fill(m->weight_mem, m->weight_bytes);
    return OK;
}

const OptimConfig bench_adamw = {
    .lr = 1e-4, .lr_attn = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 0.01, .clip = 1};

static int student_open(Step *s, GradKind grad, Err *e) {
    Config c;
    TRY(weights_open(&s->teacher, s, GRAD_NONE, e));
    TRY(student_config(s, &c, e));
    TRY(model_open(&s->student, &c, s->be, grad, e));
    if (s->fill) s->fill(s->student.weight_mem, s->student.weight_bytes);
    else TRY(transfer_weights(&s->student, &s->teacher, KV_REPEAT_HEAD, 1, e));
    return s->looped ? OK : optim_open(&s->optim, &s->student, &bench_adamw, e);
}

static int ids_open(Step *s, Err *e) {
    const size_t N = (size_t)s->B * s->T;
    void *p;
    Rng r;
    TRY(mem_alloc(&p, N * sizeof(int), "ids", e));
    s->ids = p;
    TRY(mem_alloc(&p, (size_t)s->c.VOC * sizeof(float), "logits", e));
    s->logits = p;
    rng_seed(&r, 42);
    for (size_t n = 0; n < N; n++) s->ids[n] = (int)rng_below(&r, (uint64_t)s->c.VOC);
    return OK;
}

static int step_open(void *ctx, Err *e) {
    Step *s = ctx;
    const int N = s->B * s->T;
    const StageOptions stage = {.batch_size = s->B * s->micro, .micro_batch_size = s->B, .train_seq_len = s->T};
    const TextStream none = {0};
    TRY(ids_open(s, e));
    switch (s->kind) {
    case STEP_PRETRAIN:
        TRY(weights_open(&s->student, s, GRAD_ALL, e));
        TRY(optim_open(&s->optim, &s->student, &bench_adamw, e));
        TRY(pass_open(&s->pass, &s->student, s->B, s->T, PASS_TRAIN, e));
        model_prepack(&s->student, train_prepack(&stage));
        return loss_open(&s->loss, &s->student, 0, N, e);
    case STEP_STAGE1:
        TRY(student_open(s, GRAD_MIXERS, e));
        TRY(align_open(&s->align, &s->teacher, &s->student, &none, &stage, ALIGN_NORM, e));
        memcpy(s->align.batch.ids, s->ids, (size_t)N * sizeof(int));
        model_prepack(&s->student, train_prepack(&stage));
        return OK;
    case STEP_STAGE2:
        TRY(student_open(s, GRAD_ALL, e));
        model_prepack(&s->teacher, 0);
        model_prepack(&s->student, train_prepack(&stage));
        TRY(pass_open(&s->tp, &s->teacher, s->B, s->T, 0, e));
        TRY(pass_open(&s->pass, &s->student, s->B, s->T, PASS_TRAIN, e));
        return loss_open(&s->loss, &s->student, s->c.C, N, e);
    default:
        TRY(weights_open(&s->student, s, GRAD_NONE, e));
        return decode_open(&s->decode, &s->student, 1, 2 * s->T, s->T, e);
    }
}

static void step_close(void *ctx) {
    Step *s = ctx;
    decode_close(&s->decode);
    align_close(&s->align);
    loss_close(&s->loss);
    pass_close(&s->tp);
    pass_close(&s->pass);
    optim_close(&s->optim);
    model_close(&s->student);
    model_close(&s->teacher);
    mem_free(s->logits);
    mem_free(s->ids);
    s->ids = NULL;
    s->logits = NULL;
}

/* ---- one step ---- */

static int update(Step *s, Err *e) {
    double norm, lr;
    TRY(optim_step(&s->optim, 1 << 30, &norm, &lr, e));
    model_zero_grad(s->optim.m);
    return OK;
}

static int pretrain_micro(Step *s, Err *e) {
    double value;
    TRY(pass_input(&s->pass, &s->student, s->ids, NULL, e));
    model_forward(&s->student, &s->pass);
    TRY(loss_xent(&s->loss, &s->student, &s->pass, s->ids, NULL, 1, &value, NULL, NULL, e));
    model_backward(&s->student, &s->pass, s->loss.dh);
    return OK;
}

static int stage1_micro(Step *s, Err *e) {
    double value;
    return align_batch(&s->align, 1, &value, NULL, e);
}

int bench_stage2(Step *s, const float *weight, double *loss, Err *e) {
    TRY(pass_input(&s->tp, &s->teacher, s->ids, NULL, e));
    model_forward(&s->teacher, &s->tp);
    TRY(pass_input(&s->pass, &s->student, s->ids, NULL, e));
    model_forward(&s->student, &s->pass);
    TRY(loss_kl(&s->loss, &s->student, &s->pass, s->tp.h, s->c.C, params_head(&s->teacher.p)->w, 1, weight, 1, loss,
                NULL, e));
    model_backward(&s->student, &s->pass, s->loss.dh);
    return OK;
}
static int stage2_micro(Step *s, Err *e) {
    double value;
    return bench_stage2(s, NULL, &value, e);
}

static int train_step(Step *s, int (*micro)(Step *, Err *), Err *e) {
    for (int i = 0; i < s->micro; i++) TRY(micro(s, e));
    return update(s, e);
}

static int step_run(void *ctx, Err *e) {
    Step *s = ctx;
    switch (s->kind) {
    case STEP_PRETRAIN:
        return train_step(s, pretrain_micro, e);
    case STEP_STAGE1:
        return train_step(s, stage1_micro, e);
    case STEP_STAGE2:
        return train_step(s, stage2_micro, e);
    case STEP_PREFILL:
        decode_reset(&s->decode);
        return decode_extend(&s->decode, s->ids, s->T, s->logits, e);
    case STEP_DECODE:
        if (s->decode.past == s->decode.capacity) decode_reset(&s->decode);
        return decode_extend(&s->decode, s->ids, 1, s->logits, e);
    }
    return OK;
}

BenchStep bench_step(Step *s, StepKind kind, const Config *c, const char *model, int mixer, Backend *be, int B, int T,
                     int micro) {
    static const char *const names[] = {"pretrain step", "stage 1 step", "stage 2 step", "prefill", "decode"};
    const int alone = kind >= STEP_PREFILL, N = alone ? (kind == STEP_DECODE ? 1 : T) : B * T * micro;
    Config student = *c;
    memset(s, 0, sizeof *s);
    *s = (Step){
        .kind = kind, .c = *c, .model = model, .mixer = mixer, .be = be, .B = alone ? 1 : B, .T = T, .micro = micro};
    if (kind == STEP_STAGE1 || kind == STEP_STAGE2) student_config(s, &student, NULL);
    if (kind == STEP_DECODE) snprintf(s->shape, sizeof s->shape, "C %d L %d VOC %d", c->C, c->L, c->VOC);
    else {
        const int n = snprintf(s->shape, sizeof s->shape, "C %d L %d VOC %d B %d T %d", c->C, c->L, c->VOC, s->B, T);
        if (micro > 1) snprintf(s->shape + n, sizeof s->shape - (size_t)n, " x %d", micro);
    }
    return (BenchStep){.name = names[kind],
                       .shape = s->shape,
                       .tokens = N,
                       .flops = N * step_flops(kind, c, &student, T),
                       .bytes = kind == STEP_DECODE ? products_of(c).all * be->real_size : 0,
                       .open = step_open,
                       .close = step_close,
                       .run = step_run,
                       .ctx = s};
}
