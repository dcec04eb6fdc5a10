/* hf_student.c - the official code's layouts: fla's "transformer" (its teachers) and "student" (what it writes as
 * converted-hf/), both directions for the latter. Facts: ref/io/FORMATS.md 1.2, 1.3.
 * The names of the tensors are fla's.
 *
 * A student's linear layers never get the configured norm_eps: their output norm uses 1e-5 whatever the rest uses.
 * A transformer's q/k norm, made without an eps, uses 1e-5 too. */
#include "io/hf_parts.h"
#include "model/mixer.h"
#include <stdio.h>
#include <string.h>

enum { BIG = 1 << 30 };
static const double OFFICIAL_EPS = 1e-5;

static int refuse_true(const Json *j, const char *key, Err *e) {
    int on = 0;
    TRY(json_opt_bool(j, 0, key, &on, e));
    return on ? err_set(e, ERR_INPUT, "%s: %s: got true, expected false (not supported)", j->file, key) : OK;
}

static int mixers_read(Config *c, const Json *j, Err *e) {
    const char *name = NULL;
    TRY(json_want_str(j, json_get(j, 0, "student_name"), "student_name", &name, NULL, e));
    const int mixer = mixer_find(name);
    if (mixer <= 0) return err_set(e, ERR_INPUT, "%s: student_name: unknown student \"%s\"", j->file, name);
    const JsonRef keep = json_get(j, 0, "keep_full_attention_layers");
    for (int l = 0; l < c->L; l++) c->mixer[l] = mixer;
    if (keep < 0 || json_kind(j, keep) == JSON_NULL) return OK;
    if (json_kind(j, keep) != JSON_ARRAY)
        return err_set(e, ERR_INPUT, "%s: keep_full_attention_layers: expected a list of layer indices", j->file);
    for (JsonRef r = json_first(j, keep); r >= 0; r = json_next(j, r)) {
        int64_t l = 0;
        TRY(json_want_int(j, r, "keep_full_attention_layers", 0, c->L - 1, &l, e));
        if (!c->mixer[l])
            return err_set(e, ERR_INPUT, "%s: keep_full_attention_layers: layer %d is listed twice", j->file, (int)l);
        c->mixer[l] = 0;
    }
    return OK;
}

int hf_student_parse(Config *c, const Json *j, const char *type, Err *e) {
    c->rope = (Rope){.kind = ROPE_PLAIN, .theta = 10000};
    c->max_positions = 2048;
    c->conv_width = 4;
    c->bos = 1;
    c->eos[0] = 2;
    c->n_eos = 1;
    TRY(hf_common_parse(c, j, "num_heads", "norm_eps", e));
    TRY(hf_ffn_parse(c, j, e));
    c->Hk = c->H;
    TRY(hf_opt_int(j, 0, "num_kv_heads", 1, BIG, &c->Hk, e));
    TRY(json_opt_bool(j, 0, "qkv_bias", &c->qkv_bias, e));
    TRY(json_opt_bool(j, 0, "qk_norm", &c->qk_norm, e));
    TRY(hf_opt_int(j, 0, "window_size", 1, BIG, &c->window, e));
    TRY(json_opt_real(j, 0, "rope_theta", &c->rope.theta, e));
    TRY(refuse_true(j, "force_window_on_all_layers", e));
    if (c->C % c->H)
        return err_set(e, ERR_INPUT, "%s: num_heads: %d does not divide hidden_size %d", j->file, c->H, c->C);
    c->D = c->C / c->H;
    if (c->qk_norm && c->norm_eps != OFFICIAL_EPS)
        return err_set(e, ERR_INPUT, "%s: qk_norm: its eps is 1e-05 there, expected norm_eps %g (not supported)",
                       j->file, c->norm_eps);
    snprintf(c->family, sizeof c->family, "%s", c->qkv_bias ? "qwen2" : c->qk_norm ? "qwen3" : "llama");
    c->o_norm_eps = c->norm_eps;
    if (strcmp(type, "student")) return OK;
    c->o_norm_eps = OFFICIAL_EPS;
    return mixers_read(c, j, e);
}

/* ---- writing ---- */

static int refuse(Err *e, const char *reason, const char *nearest) {
    err_set(e, ERR_USAGE, "export: format student cannot hold this model exactly: %s", reason);
    return err_hint(e, "%s", nearest);
}

static int student_check(const Config *c, int *kind, Err *e) {
    *kind = 0;
    for (int l = 0; l < c->L; l++) {
        if (!c->mixer[l] || c->mixer[l] == *kind) continue;
        if (*kind)
            return refuse(e, "its linear layers are of different kinds",
                          "only hybridize's own directory holds such a model");
        *kind = c->mixer[l];
    }
    if (!*kind) return refuse(e, "all its layers are softmax", "the directory itself is what transformers loads");
    const char *name = mixer_at(*kind)->name;
    if (strncmp(name, "gdn_v", 5) && strncmp(name, "gla_v", 5))
        return refuse(e, "the official code has no such mixer", "nearest: --format fla");
    if (c->rope.kind != ROPE_PLAIN)
        return refuse(e, "its attention has no rope scaling", "only hybridize's own directory keeps rope scaling");
    if (c->qk_norm && c->norm_eps != OFFICIAL_EPS)
        return refuse(e, "its q/k norm has eps 1e-05", "nearest: --format qwen3_5");
    if (c->o_bias) return refuse(e, "its attention has no o_proj bias", "only hybridize's own directory keeps it");
    if (c->linear_bias)
        return refuse(e, "its linear layers have no biases", "only hybridize's own directory keeps them");
    if (c->D * (int64_t)c->H != c->C)
        return refuse(e, "its head size is hidden_size / num_heads",
                      c->qk_norm ? "nearest: --format qwen3_5" : "no other format has a head size of its own");
    if (strcmp(name, "gdn_v6") && c->o_norm_eps != OFFICIAL_EPS)
        return refuse(e, "the output norm of its linear layers has eps 1e-05, this model's differs",
                      "nearest: --format fla");
    return OK;
}

int hf_student_write(JsonOut *o, const Config *c, DType dtype, Err *e) {
    int kind;
    TRY(student_check(c, &kind, e));
    json_out_begin(o, 1);
    json_out_object(o, NULL);
    hf_head_write(o, "StudentForCausalLM", "student", c);
    json_out_str(o, "name", "student");
    json_out_str(o, "student_name", mixer_at(kind)->name);
    json_out_array(o, "keep_full_attention_layers");
    for (int l = 0; l < c->L; l++)
        if (!c->mixer[l]) json_out_int(o, NULL, l);
    json_out_close(o);
    json_out_bool(o, "force_window_on_all_layers", 0);
    json_out_bool(o, "use_zero3", 0);
    json_out_int(o, "num_heads", c->H);
    json_out_int(o, "num_kv_heads", c->Hk);
    json_out_bool(o, "qkv_bias", c->qkv_bias);
    json_out_bool(o, "qk_norm", c->qk_norm);
    if (c->window) json_out_int(o, "window_size", c->window);
    else json_out_null(o, "window_size");
    json_out_real(o, "norm_eps", c->norm_eps);
    json_out_real(o, "rope_theta", c->rope.theta);
    json_out_null(o, "hidden_ratio");
    json_out_str(o, "hidden_act", "swish");
    json_out_bool(o, "fuse_norm", 1);
    json_out_bool(o, "fuse_swiglu", 1);
    json_out_bool(o, "fuse_cross_entropy", 1);
    hf_tail_write(o, c, dtype);
    json_out_object(o, "hybridize"); // marks the directory as ours: it may be written over
    json_out_int(o, "version", 1);
    json_out_close(o);
    json_out_close(o);
    return json_out_end(o, e);
}
