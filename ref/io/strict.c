/* strict.c - see strict.h. */
#include "io/strict.h"
#include "base/file.h"
#include "io/hf_parts.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* One value of several at which a member changes nothing. null, and nothing at all, always do. */
typedef enum { FALSE_ONLY, TRUE_ONLY, ZERO, ONE, ZERO_OR_ONE, NOTHING } Neutral;
static const char *const wanted[] = {"false", "true", "0", "1", "0 or 1", "null"};
typedef struct {
    const char *key;
    Neutral is;
} Rule;

static const Rule rules[] = {
    {"is_causal", TRUE_ONLY},
    {"use_bidirectional_attention", FALSE_ONLY},
    {"is_encoder_decoder", FALSE_ONLY},
    {"add_cross_attention", FALSE_ONLY},
    {"use_mrope", FALSE_ONLY},
    {"rope_interleave", FALSE_ONLY},
    {"rope_interleaved", FALSE_ONLY},
    {"alibi", FALSE_ONLY},
    {"parallel_attn", FALSE_ONLY},
    {"use_parallel_residual", FALSE_ONLY},
    {"scale_embedding", FALSE_ONLY},
    {"attn_temperature_tuning", FALSE_ONLY},
    {"use_cla", FALSE_ONLY},
    {"attn_logit_softcapping", ZERO},
    {"final_logit_softcapping", ZERO},
    {"logits_soft_cap", ZERO},
    {"attention_chunk_size", ZERO},
    {"num_experts", ZERO_OR_ONE},
    {"num_local_experts", ZERO_OR_ONE},
    {"n_routed_experts", ZERO_OR_ONE},
    {"logit_scale", ONE},
    {"logits_scaling", ONE},
    {"embedding_multiplier", ONE},
    {"residual_multiplier", ONE},
    {"mup_width_multiplier", ONE},
    {"scale_emb", ONE},
    {"scale_depth", NOTHING},
    {"dim_model_base", NOTHING},
    {"attention_multiplier", NOTHING},
    {"query_pre_attn_scalar", NOTHING},
    {"clip_qkv", NOTHING},
    {"no_rope_layers", NOTHING},
    {"no_rope_layer_interval", NOTHING},
};

static int number_fits(Neutral is, double v) {
    return (v == 0 && (is == ZERO || is == ZERO_OR_ONE)) || (v == 1 && (is == ONE || is == ZERO_OR_ONE));
}

static int json_neutral(const Json *j, JsonRef r, Neutral is) {
    const JsonKind k = json_kind(j, r);
    double v = NAN;
    if (k == JSON_NULL) return 1;
    if (k == JSON_TRUE) return is == TRUE_ONLY;
    if (k == JSON_FALSE) return is == FALSE_ONLY || is == ZERO || is == ZERO_OR_ONE;
    if (k == JSON_ARRAY || k == JSON_OBJECT) return is == NOTHING && !json_size(j, r);
    if (json_want_real(j, r, "", &v, NULL)) return 0;
    return number_fits(is, v);
}

static int json_text(const Json *j, JsonRef r, char *out, size_t cap) {
    JsonOut o;
    json_out_begin(&o, 0);
    json_out_node(&o, NULL, j, r);
    const int rc = json_out_end(&o, NULL);
    snprintf(out, cap, "%.60s", rc ? "something else" : o.text);
    json_out_free(&o);
    return rc;
}

int strict_config(const Json *j, Err *e) {
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        const JsonRef r = json_get(j, 0, rules[i].key);
        char got[64];
        if (r < 0 || json_neutral(j, r, rules[i].is)) continue;
        json_text(j, r, got, sizeof got);
        err_set(e, ERR_INPUT, "%s: %s: got %s, expected %s (not supported)", j->file, rules[i].key, got,
                wanted[rules[i].is]);
        return err_hint(e, "it changes what the model computes, and this program does not compute it");
    }
    return OK;
}

/* Read, or without an effect on what is computed for one text. */
static const char *const known[] = {"model_type",
                                    "architectures",
                                    "hidden_size",
                                    "intermediate_size",
                                    "num_hidden_layers",
                                    "num_attention_heads",
                                    "num_key_value_heads",
                                    "head_dim",
                                    "vocab_size",
                                    "max_position_embeddings",
                                    "rms_norm_eps",
                                    "hidden_act",
                                    "tie_word_embeddings",
                                    "bos_token_id",
                                    "eos_token_id",
                                    "pad_token_id",
                                    "unk_token_id",
                                    "sep_token_id",
                                    "cls_token_id",
                                    "decoder_start_token_id",
                                    "torch_dtype",
                                    "dtype",
                                    "rope_theta",
                                    "rope_scaling",
                                    "rope_parameters",
                                    "partial_rotary_factor",
                                    "original_max_position_embeddings",
                                    "sliding_window",
                                    "use_sliding_window",
                                    "max_window_layers",
                                    "layer_types",
                                    "attention_bias",
                                    "mlp_bias",
                                    "quantization_config",
                                    "hybridize",
                                    "transformers_version",
                                    "use_cache",
                                    "initializer_range",
                                    "attention_dropout",
                                    "hidden_dropout",
                                    "hidden_dropout_prob",
                                    "resid_pdrop",
                                    "embd_pdrop",
                                    "attn_pdrop",
                                    "pretraining_tp",
                                    "auto_map",
                                    "_name_or_path",
                                    "name_or_path",
                                    "_attn_implementation",
                                    "_attn_implementation_autoset",
                                    "_attn_implementation_internal",
                                    "attn_implementation",
                                    "use_flash_attn",
                                    "use_flash_attention_2",
                                    "_flash_attn_2_enabled",
                                    "gradient_checkpointing",
                                    "output_attentions",
                                    "output_hidden_states",
                                    "return_dict",
                                    "torchscript",
                                    "use_bfloat16",
                                    "id2label",
                                    "label2id",
                                    "num_labels",
                                    "problem_type",
                                    "finetuning_task",
                                    "task_specific_params",
                                    "tokenizer_class",
                                    "prefix",
                                    "keys_to_ignore_at_inference",
                                    "is_decoder",
                                    "cross_attention_hidden_size",
                                    "chunk_size_feed_forward",
                                    "pruned_heads",
                                    "tie_encoder_decoder",
                                    "forced_bos_token_id",
                                    "forced_eos_token_id",
                                    "suppress_tokens",
                                    "begin_suppress_tokens",
                                    "bad_words_ids",
                                    "min_length",
                                    "max_length",
                                    "max_new_tokens",
                                    "do_sample",
                                    "early_stopping",
                                    "num_beams",
                                    "num_beam_groups",
                                    "diversity_penalty",
                                    "temperature",
                                    "top_k",
                                    "top_p",
                                    "typical_p",
                                    "repetition_penalty",
                                    "length_penalty",
                                    "no_repeat_ngram_size",
                                    "encoder_no_repeat_ngram_size",
                                    "num_return_sequences",
                                    "output_scores",
                                    "return_dict_in_generate",
                                    "remove_invalid_values",
                                    "exponential_decay_length_penalty",
                                    "max_sequence_length",
                                    "model_max_length",
                                    "seq_length",
                                    "license",
                                    "unsloth_version",
                                    "unsloth_fixed",
                                    "unsloth_training_args",
                                    "tf_legacy_loss",
                                    "use_reentrant",
                                    "eos_token",
                                    "bos_token",
                                    "pad_token",
                                    "is_llama_config",
                                    "transformers.js_config",
                                    "summary",
                                    "description"};

static int in_list(const char *key, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], key)) return 1;
    return 0;
}

static void list_put(char *out, size_t cap, size_t *used, const char *key, size_t len) {
    const int n = *used < cap
                      ? snprintf(out + *used, cap - *used, "%s%.*s", *used ? ", " : "", (int)(len < 60 ? len : 60), key)
                      : 0;
    *used += n > 0 ? (size_t)n : 0;
}

void strict_unread(const Json *j, char *out, size_t cap) {
    const char *type = json_str(j, json_get(j, 0, "model_type"), NULL);
    size_t used = 0;
    *out = 0;
    if (!type || !hf_family_known(type)) return;
    for (JsonRef r = json_first(j, 0); r >= 0; r = json_next(j, r)) {
        size_t len;
        const char *key = json_key(j, r, &len);
        int ruled = 0;
        for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) ruled |= !strcmp(rules[i].key, key);
        if (!ruled && !in_list(key, known, sizeof known / sizeof *known)) list_put(out, cap, &used, key, len);
    }
}

void strict_unread_of(const char *dir, char *out, size_t cap) {
    char path[1024];
    Json j;
    *out = 0;
    if (file_join(path, sizeof path, dir, "config.json", NULL) || file_exists(path) != 1 || json_open(&j, path, NULL))
        return;
    strict_unread(&j, out, cap);
    json_free(&j);
}

/* ---- GGUF ---- */

static const Rule gguf_rules[] = {
    {"attention.causal", TRUE_ONLY},
    {"use_parallel_residual", FALSE_ONLY},
    {"swin_norm", FALSE_ONLY},
    {"logit_scale", ZERO_OR_ONE},
    {"embedding_scale", ZERO_OR_ONE},
    {"residual_scale", ZERO_OR_ONE},
    {"attention.scale", ZERO},
    {"attention.output_scale", ZERO_OR_ONE},
    {"attention.temperature_scale", ZERO_OR_ONE},
    {"attention.clamp_kqv", ZERO},
    {"attention.max_alibi_bias", ZERO},
    {"attn_logit_softcapping", ZERO},
    {"final_logit_softcapping", ZERO},
    {"router_logit_softcapping", ZERO},
    {"rope.scaling.attn_factor", ZERO_OR_ONE},
    {"rope.scaling.yarn_log_multiplier", ZERO},
    {"pooling_type", ZERO},
    {"nextn_predict_layers", ZERO},
    {"altup.num_inputs", ZERO_OR_ONE},
};
static const char *const gguf_known[] = {"block_count",
                                         "context_length",
                                         "embedding_length",
                                         "feed_forward_length",
                                         "attention.head_count",
                                         "attention.head_count_kv",
                                         "attention.key_length",
                                         "attention.value_length",
                                         "attention.layer_norm_rms_epsilon",
                                         "rope.freq_base",
                                         "rope.dimension_count",
                                         "rope.scaling.type",
                                         "rope.scaling.factor",
                                         "rope.scale_linear",
                                         "rope.scaling.original_context_length",
                                         "rope.scaling.finetuned",
                                         "expert_count",
                                         "expert_used_count",
                                         "vocab_size",
                                         "tensor_data_layout"};

static int gguf_neutral(const GgufValue *v, Neutral is) {
    if (v->type == GGUF_BOOL) return *v->data ? is == TRUE_ONLY : is == FALSE_ONLY || is == ZERO || is == ZERO_OR_ONE;
    if (v->type == GGUF_STRING || v->type == GGUF_ARRAY) return 0;
    if (is == TRUE_ONLY) return v->bytes == 1 && *v->data == 1;
    if (is == FALSE_ONLY) return v->bytes == 1 && *v->data == 0;
    const GgufValue one = {.element = v->type, .data = v->data, .n = 1};
    return number_fits(is, gguf_real_at(&one, 0));
}

/* The part of a key behind "ARCH."; NULL if it is another's. */
static const char *behind(const GgufValue *v, const char *arch, size_t *n) {
    const size_t a = strlen(arch);
    if (v->key_len <= a + 1 || memcmp(v->key, arch, a) || v->key[a] != '.') return NULL;
    *n = v->key_len - a - 1;
    return v->key + a + 1;
}

int strict_gguf(const Gguf *g, const char *arch, Err *e) {
    for (size_t i = 0; i < sizeof gguf_rules / sizeof *gguf_rules; i++) {
        char key[96];
        snprintf(key, sizeof key, "%s.%s", arch, gguf_rules[i].key);
        const GgufValue *v = gguf_get(g, key);
        if (!v || gguf_neutral(v, gguf_rules[i].is)) continue;
        err_set(e, ERR_INPUT, "%s: %s: expected %s (another value is not supported)", g->path, key,
                wanted[gguf_rules[i].is]);
        return err_hint(e, "it changes what the model computes, and this program does not compute it");
    }
    return OK;
}

void strict_gguf_unread(const Gguf *g, const char *arch, char *out, size_t cap) {
    size_t used = 0;
    *out = 0;
    for (size_t i = 0; i < g->n_values; i++) {
        size_t n = 0;
        char key[256];
        const char *name = behind(&g->value[i], arch, &n);
        if (!name) continue;
        snprintf(key, sizeof key, "%.*s", (int)n, name);
        int ruled = 0;
        for (size_t k = 0; k < sizeof gguf_rules / sizeof *gguf_rules; k++) ruled |= !strcmp(gguf_rules[k].key, key);
        if (!ruled && !in_list(key, gguf_known, sizeof gguf_known / sizeof *gguf_known))
            list_put(out, cap, &used, g->value[i].key, g->value[i].key_len);
    }
}
