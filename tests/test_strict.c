/* test_strict.c - metadata and tokenizers are held to what tensors are held to: read, known to be harmless, refused or
 * named. */
#include "base/file.h"
#include "io/export.h"
#include "io/gguf_model.h"
#include "io/hf_parts.h"
#include "io/strict.h"
#include "tests/gguf_make.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include "text/tokenizer.h"
#include <string.h>

#define CONFIG(MORE)                                                                                                   \
    "{\"model_type\": \"llama\", \"hidden_size\": 4, \"intermediate_size\": 4, \"num_hidden_layers\": 1, "             \
    "\"num_attention_heads\": 1, \"vocab_size\": 8, \"tie_word_embeddings\": true" MORE "}"

static const struct {
    const char *more, *says; /* NULL: fine */
} configs[] = {
    {"", NULL},
    {", \"is_causal\": true", NULL},
    {", \"is_causal\": null", NULL},
    {", \"is_causal\": false", "is_causal: got false, expected true"},
    {", \"is_causal\": \"no\"", "is_causal: got \"no\""},
    {", \"use_bidirectional_attention\": true", "use_bidirectional_attention: got true"},
    {", \"attn_logit_softcapping\": 50.0", "attn_logit_softcapping: got 50"},
    {", \"final_logit_softcapping\": null", NULL},
    {", \"logit_scale\": 1.0", NULL},
    {", \"logit_scale\": 0.0625", "logit_scale: got 0.0625, expected 1"},
    {", \"logits_scaling\": 8", "logits_scaling: got 8"},
    {", \"embedding_multiplier\": 12", "embedding_multiplier: got 12"},
    {", \"residual_multiplier\": 0.2", "residual_multiplier: got 0.2"},
    {", \"attention_multiplier\": 0.01", "attention_multiplier: got 0.01"},
    {", \"num_local_experts\": 8", "num_local_experts: got 8"},
    {", \"num_experts\": 0", NULL},
    {", \"no_rope_layers\": [1, 0]", "no_rope_layers: got [1,0]"},
    {", \"no_rope_layers\": []", NULL},
    {", \"clip_qkv\": 8", "clip_qkv: got 8"},
};

START_TEST(config_members) {
    Config c;
    Json j;
    int fla;
    Err e = {0};
    char text[512];
    snprintf(text, sizeof text, CONFIG("%s"), configs[_i].more);
    ck_assert(!json_parse(&j, text, strlen(text), "c", &e));
    const int rc = hf_config_parse(&c, &fla, &j, &e);
    ck_assert_msg(rc == (configs[_i].says ? ERR_INPUT : OK), "%s: %d %s", configs[_i].more, rc, e.msg);
    if (configs[_i].says) ck_assert_msg(strstr(e.msg, configs[_i].says) != NULL, "%s", e.msg);
    json_free(&j);
}
END_TEST

START_TEST(config_named) {
    static const char text[] = CONFIG(", \"use_cache\": true, \"wobble\": 3, \"is_causal\": true, \"_name\": \"a\"");
    Json j;
    Err e = {0};
    char unread[64];
    ck_assert(!json_parse(&j, text, strlen(text), "c", &e));
    strict_unread(&j, unread, sizeof unread);
    ck_assert_str_eq(unread, "wobble, _name");
    strict_unread(&j, unread, 4); // cut, not overrun
    ck_assert_uint_le(strlen(unread), 3);
    json_free(&j);
}
END_TEST

static void gguf_of(Gguf *g, Bytes *b, Make *m) {
    Err e = {0};
    *b = make_file(m, 3);
    ck_assert_msg(!gguf_parse(g, b->p, b->n, "x.gguf", &e), "%s", e.msg);
    make_free(m);
}

START_TEST(gguf_keys) {
    static const struct {
        const char *key;
        double value;
        int kind, refused; /* kind: 0 bool, 1 float, 2 u32 */
    } c[] = {{"llama.attention.causal", 1, 0, 0},      {"llama.attention.causal", 0, 0, 1},
             {"llama.logit_scale", 1, 1, 0},           {"llama.logit_scale", 0.0625, 1, 1},
             {"llama.embedding_scale", 12, 1, 1},      {"llama.residual_scale", 0.2, 1, 1},
             {"llama.attention.scale", 0.01, 1, 1},    {"llama.attention.clamp_kqv", 0, 1, 0},
             {"llama.attention.clamp_kqv", 8, 1, 1},   {"llama.final_logit_softcapping", 30, 1, 1},
             {"llama.use_parallel_residual", 1, 0, 1}, {"llama.use_parallel_residual", 0, 0, 0},
             {"llama.pooling_type", 1, 2, 1},          {"other.logit_scale", 3, 1, 0}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        Make m = {0};
        Gguf g;
        Bytes b;
        Err e = {0};
        if (c[i].kind == 0) pair_bool(&m, c[i].key, (int)c[i].value);
        if (c[i].kind == 1) pair_f32(&m, c[i].key, (float)c[i].value);
        if (c[i].kind == 2) pair_u32(&m, c[i].key, (uint32_t)c[i].value);
        gguf_of(&g, &b, &m);
        ck_assert_int_eq(strict_gguf(&g, "llama", &e), c[i].refused ? ERR_INPUT : OK);
        if (c[i].refused) ck_assert_msg(strstr(e.msg, c[i].key) != NULL, "%s", e.msg);
        gguf_close(&g);
        free(b.p);
    }
}
END_TEST

START_TEST(gguf_named) {
    Make m = {0};
    Gguf g;
    Bytes b;
    char unread[128];
    pair_u32(&m, "llama.block_count", 1);
    pair_u32(&m, "llama.attention.sliding_window", 8);
    pair_f32(&m, "llama.wobble", 8);
    pair_str(&m, "general.name", "a");
    gguf_of(&g, &b, &m);
    strict_gguf_unread(&g, "llama", unread, sizeof unread);
    ck_assert_str_eq(unread, "llama.attention.sliding_window, llama.wobble");
    gguf_close(&g);
    free(b.p);
}
END_TEST

/* ---- tokenizers ---- */

static void lay(const char *name, const char *text) {
    Err e = {0};
    ck_assert_msg(!file_write_all(tmpdir_path(name), text, strlen(text), &e), "%s", e.msg);
}
#define TOKENIZER(FLAGS)                                                                                               \
    "{\"version\": \"1.0\", \"added_tokens\": [{\"id\": 2, \"content\": \"<x>\", \"special\": true, \"normalized\": "  \
    "false, " FLAGS "}], \"normalizer\": null, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": "    \
    "false, \"trim_offsets\": true, \"use_regex\": true}, \"decoder\": {\"type\": \"ByteLevel\"}, "                    \
    "\"post_processor\": null, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": []}}"
#define PLAIN "\"single_word\": false, \"lstrip\": false, \"rstrip\": false"

START_TEST(two_files_of_a_tokenizer) {
    static const char *const c[][2] = {
        {"{}", NULL},
        {"{\"added_tokens_decoder\": {\"2\": {\"content\": \"<x>\", \"lstrip\": false}}}", NULL},
        {"{\"added_tokens_decoder\": {\"2\": {\"content\": \"<x>\"}, \"3\": {\"content\": \"<y>\"}}}",
         "'<y>' is 3, in tokenizer.json it is missing"},
        {"{\"added_tokens_decoder\": {\"3\": {\"content\": \"<x>\"}}}",
         "'<x>' is 3, in tokenizer.json it is another id"},
        {"{\"added_tokens_decoder\": {\"1\": {\"content\": \"b\"}}}",
         "'b' is 1, in tokenizer.json it is no added token"},
        {"{\"added_tokens_decoder\": {\"2\": {\"content\": \"<x>\", \"rstrip\": true}}}",
         "'<x>' has rstrip true, in tokenizer.json false"},
        {"{\"added_tokens_decoder\": {\"2\": {}}}", "2 has no content"}};
    lay("tokenizer.json", TOKENIZER(PLAIN));
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        Tokenizer *t = NULL;
        Err e = {0};
        lay("tokenizer_config.json", c[i][0]);
        ck_assert_int_eq(tokenizer_open(&t, tmpdir, &e), c[i][1] ? ERR_INPUT : OK);
        if (c[i][1]) ck_assert_msg(strstr(e.msg, c[i][1]) && !t, "%s", e.msg);
        tokenizer_close(t);
    }
}
END_TEST

SUITE("strict") {
    GROUP("strict", .setup = tmpdir_begin, .teardown = tmpdir_end);
    CASE(config_members, .times = sizeof configs / sizeof *configs);
    CASE(config_named);
    CASE(gguf_keys);
    CASE(gguf_named);
    CASE(two_files_of_a_tokenizer);
}
