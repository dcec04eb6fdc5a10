/* config.c - every precondition of the ops, checked once. */
#include "model/config.h"
#include "model/mixer.h"
#include <math.h>
#include <stdio.h>

static int check_int(int v, int lo, int hi, const char *field, const char *where, Err *e) {
    if (v >= lo && v <= hi) return OK;
    return err_set(e, ERR_INPUT, "%s: %s: got %d, expected %d to %d", where, field, v, lo, hi);
}

static int check_real(double v, double lo, double hi, const char *field, const char *where, Err *e) {
    if (isfinite(v) && v >= lo && v <= hi) return OK;
    return err_set(e, ERR_INPUT, "%s: %s: got %g, expected %g to %g", where, field, v, lo, hi);
}

static int rope_check(const Rope *r, const char *where, Err *e) {
    TRY(check_real(r->theta, 1, 1e15, "rope_theta", where, e));
    if (r->kind != ROPE_PLAIN) TRY(check_real(r->factor, 1, 1e6, "rope_scaling.factor", where, e));
    if (r->kind != ROPE_LLAMA3) return OK;
    TRY(check_real(r->low_freq, 1e-6, 1e6, "rope_scaling.low_freq_factor", where, e));
    TRY(check_real(r->high_freq, 1e-6, 1e6, "rope_scaling.high_freq_factor", where, e));
    if (!(r->high_freq > r->low_freq))
        return err_set(e, ERR_INPUT, "%s: rope_scaling.high_freq_factor: got %g, expected more than low_freq_factor %g",
                       where, r->high_freq, r->low_freq);
    return check_int(r->original, 1, 1 << 30, "rope_scaling.original_max_position_embeddings", where, e);
}

int config_check(const Config *c, const char *where, Err *e) {
    const int wide = 1 << 20;
    TRY(check_int(c->L, 1, MAX_LAYERS, "num_hidden_layers", where, e));
    TRY(check_int(c->C, 1, wide, "hidden_size", where, e));
    TRY(check_int(c->H, 1, 4096, "num_attention_heads", where, e));
    TRY(check_int(c->Hk, 1, c->H, "num_key_value_heads", where, e));
    TRY(check_int(c->D, 2, 1024, "head_dim", where, e));
    TRY(check_int(c->F, 1, wide, "intermediate_size", where, e));
    TRY(check_int(c->VOC, 1, 1 << 24, "vocab_size", where, e));
    TRY(check_int(c->max_positions, 1, 1 << 30, "max_position_embeddings", where, e));
    TRY(check_int(c->window, 0, 1 << 30, "sliding_window", where, e));
    TRY(check_int(c->swa_window, 0, 1 << 30, "swa_window", where, e));
    if (c->H % c->Hk)
        return err_set(e, ERR_INPUT, "%s: num_key_value_heads: %d does not divide num_attention_heads %d", where, c->Hk,
                       c->H);
    if (c->D % 2)
        return err_set(e, ERR_INPUT, "%s: head_dim: got %d, expected an even number (rotary pairs)", where, c->D);
    TRY(check_int(c->H * c->D, 1, wide, "num_attention_heads * head_dim", where, e));
    TRY(check_real(c->norm_eps, 1e-30, 1, "rms_norm_eps", where, e));
    TRY(check_real(c->o_norm_eps, 1e-30, 1, "o_norm_eps", where, e));
    TRY(rope_check(&c->rope, where, e));
    if (c->logit_base && !(isfinite(c->logit_base) && c->logit_base > 1))
        return err_set(e, ERR_INPUT, "%s: logit_base: got %g, expected 0 or a number above 1", where, c->logit_base);
    for (int l = 0; l < c->L; l++) {
        const Mixer *m = mixer_at(c->mixer[l]);
        if (!m) return err_set(e, ERR_INPUT, "%s: layer %d: mixer %d is not in the table", where, l, c->mixer[l]);
        if (m == &mixer_swa_v1) TRY(check_int(c->swa_window, 1, 1 << 30, "swa_window, for swa_v1 layers", where, e));
        if (m->linear) TRY(check_int(c->D, 2, 256, "head_dim of a linear layer", where, e));
        if (m->linear) TRY(check_int(c->conv_width, 1, 8, "conv_size", where, e));
    }
    return OK;
}

int config_ends(const Config *c, int id) {
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id) return 1;
    return 0;
}

int config_difference(const Config *s, const Config *t, char *out, size_t cap) {
    const int window = s->window && (!t->window || s->window <= t->window) ? t->window : s->window;
    const struct {
        const char *key;
        double student, teacher;
    } row[] = {{"num_hidden_layers", s->L, t->L},
               {"hidden_size", s->C, t->C},
               {"vocab_size", s->VOC, t->VOC},
               {"num_attention_heads", s->H, t->H},
               {"num_key_value_heads", s->Hk, t->Hk},
               {"head_dim", s->D, t->D},
               {"intermediate_size", s->F, t->F},
               {"biases of q, k and v", s->qkv_bias, t->qkv_bias},
               {"bias of the output projection", s->o_bias, t->o_bias},
               {"norms of q and k", s->qk_norm, t->qk_norm},
               {"norm_eps", s->norm_eps, t->norm_eps},
               {"rope_theta", s->rope.theta, t->rope.theta},
               {"rope_scaling (0 none, 1 linear, 2 llama3)", s->rope.kind, t->rope.kind},
               {"rope_scaling.factor", s->rope.factor, t->rope.factor},
               {"rope_scaling.low_freq_factor", s->rope.low_freq, t->rope.low_freq},
               {"rope_scaling.high_freq_factor", s->rope.high_freq, t->rope.high_freq},
               {"rope_scaling.original_max_position_embeddings", s->rope.original, t->rope.original},
               {"sliding_window (0: none)", window, t->window}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (row[i].student != row[i].teacher)
            return snprintf(out, cap, "%s: %.9g and %.9g", row[i].key, row[i].student, row[i].teacher), 1;
    return 0;
}
