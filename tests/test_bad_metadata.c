/* test_bad_metadata.c - good metadata with one member made wrong: each member of a config.json of every layout,
 * of a GGUF model and of its tokenizer, gets a value of another kind, or one that cannot be used.
 * What is read is refused, by its name; nothing else is. */
#include "base/file.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "io/gguf_model.h"
#include "io/hf.h"
#include "tests/suite.h"
#include "tests/gguf_make.h"
#include "tests/tmpdir.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- config.json: lines; one that ends in a brace is not replaced ---- */

#define COMMON                                                                                                         \
    "\"num_hidden_layers\": 2\n,\"hidden_size\": 16\n,\"vocab_size\": 50\n,\"max_position_embeddings\": "              \
    "64\n,\"tie_word_embeddings\": true\n"                                                                             \
    ",\"bos_token_id\": 1\n,\"eos_token_id\": 2\n,\"torch_dtype\": \"float32\"\n,\"dtype\": "                          \
    "\"bfloat16\"\n,\"hidden_act\": \"silu\"\n,\"quantization_config\": null\n"
#define HF                                                                                                             \
    COMMON ",\"num_attention_heads\": 4\n,\"num_key_value_heads\": 2\n,\"head_dim\": 4\n,\"intermediate_size\": "      \
           "24\n,\"rms_norm_eps\": 1e-6\n"
#define FLA COMMON ",\"num_heads\": 4\n,\"norm_eps\": 1e-5\n,\"intermediate_size\": 24\n,\"hidden_ratio\": 4\n"
#define ATTN                                                                                                           \
    ",\"attn\": {\n\"layers\": [1]\n,\"num_heads\": 4\n,\"num_kv_heads\": 2\n,\"qkv_bias\": false\n,\"window_size\": " \
    "null\n,\"rope_theta\": 5000\n}\n"
#define OWN                                                                                                            \
    ",\"hybridize\": {\n\"mixers\": [\"gdn_v4\", \"softmax\"]\n,\"family\": \"llama\"\n,\"head_dim\": "                \
    "4\n,\"num_key_value_heads\": 2\n,\"window\": 0\n"                                                                 \
    ",\"swa_window\": 0\n,\"conv_width\": 4\n,\"qkv_bias\": false\n,\"o_bias\": false\n,\"qk_norm\": "                 \
    "false\n,\"linear_bias\": false\n,\"o_norm_eps\": 1e-5\n}\n"
static const char *const configs[] = {
    "\"model_type\": \"llama\"\n," HF
    ",\"attention_bias\": false\n,\"mlp_bias\": false\n,\"rope_theta\": 1e4\n,\"partial_rotary_factor\": 1\n"
    ",\"original_max_position_embeddings\": 32\n,\"rope_scaling\": {\n\"type\": \"llama3\"\n,\"rope_type\": "
    "\"llama3\"\n,\"rope_theta\": 5000\n"
    ",\"partial_rotary_factor\": 1\n,\"factor\": 8\n,\"low_freq_factor\": 1\n,\"high_freq_factor\": "
    "4\n,\"original_max_position_embeddings\": 16\n}\n",
    "\"model_type\": \"llama\"\n," HF ",\"rope_parameters\": {\n\"rope_type\": \"linear\"\n,\"factor\": 2\n}\n",
    "\"model_type\": \"mistral\"\n," HF ",\"sliding_window\": 8\n",
    "\"model_type\": \"qwen2\"\n," HF
    ",\"use_sliding_window\": true\n,\"sliding_window\": 8\n,\"max_window_layers\": 0\n"
    ",\"layer_types\": [\"sliding_attention\", \"sliding_attention\"]\n",
    "\"model_type\": \"qwen3\"\n," HF ",\"layer_types\": [\"full_attention\", \"full_attention\"]\n",
    "\"model_type\": \"gated_deltanet\"\n," FLA
    ",\"head_dim\": 4\n,\"expand_v\": 1\n,\"allow_neg_eigval\": false\n,\"num_v_heads\": 4\n,\"use_gate\": true\n"
    ",\"use_short_conv\": false\n,\"conv_size\": 4\n,\"attnres_block_size\": null\n" ATTN OWN,
    "\"model_type\": \"gla\"\n," FLA ",\"expand_k\": 1\n,\"expand_v\": 1\n,\"num_kv_heads\": 4\n,\"feature_map\": "
    "null\n,\"clamp_min\": null\n,\"use_short_conv\": false\n"
    ",\"use_output_gate\": true\n,\"use_gk\": true\n,\"use_gv\": false\n,\"elementwise_affine\": true\n" ATTN,
    "\"model_type\": \"kda\"\n," FLA ",\"head_dim\": 4\n,\"expand_v\": 1\n,\"allow_neg_eigval\": "
    "false\n,\"safe_gate\": false\n,\"lower_bound\": null\n,\"num_v_heads\": 4\n"
    ",\"use_short_conv\": false\n,\"conv_size\": 4\n" ATTN,
    "\"model_type\": \"student\"\n," FLA
    ",\"num_kv_heads\": 2\n,\"qkv_bias\": false\n,\"qk_norm\": false\n,\"window_size\": null\n,\"rope_theta\": 1e4\n"
    ",\"force_window_on_all_layers\": false\n,\"student_name\": \"gdn_v4\"\n,\"keep_full_attention_layers\": [1]\n",
};
/* Values that no member can use ... */
static const char *const wrongs[] = {"{\"x\": [1]}", "[{\"x\": 1}]", "\"no such word\"",
                                     "-7",           "1e999",        "12345678901234"};
/* ... but for those that something else in the same file overrides, and one. */
static const struct {
    const char *key, *value;
} overridden[] = {
    {"torch_dtype", "\"no such word\""}, {"type", "\"no such word\""},    {"rope_theta", "-7"}, {"hidden_ratio", "-7"},
    {"hidden_ratio", "12345678901234"},  {"rope_theta", "12345678901234"}}; // odd, but a number to compute with

static int is_overridden(const char *key, const char *value) {
    for (size_t i = 0; i < sizeof overridden / sizeof *overridden; i++)
        if (!strcmp(overridden[i].key, key) && !strcmp(overridden[i].value, value)) return 1;
    return 0;
}

static int config_try(const TextBuf *text, Err *e) {
    Config c;
    const char *path = tmpdir_path("config.json");
    *e = (Err){0};
    ck_assert(!file_write_all(path, text->text, text->len, e));
    return hf_config(&c, tmpdir, e);
}

/* The base with the value of line `at` replaced; the member's name into key; 0 when there is no such line, -1 when it
 * has no value. */
static int config_spoil(TextBuf *out, char *key, size_t cap, const char *base, int at, const char *value) {
    int line = 0, found = 0;
    out->len = 0;
    textbuf_puts(out, "{");
    for (const char *s = base; *s; line++) {
        const size_t len = strcspn(s, "\n");
        const char *colon = strchr(s, ':');
        if (line == at) {
            if (s[len - 1] == '{' || s[len - 1] == '}') return -1;
            const char *name = strchr(s, '"') + 1;
            snprintf(key, cap, "%.*s", (int)strcspn(name, "\""), name);
            textbuf_printf(out, "%.*s: %s\n", (int)(colon - s), s, value);
            found = 1;
        } else textbuf_printf(out, "%.*s\n", (int)len, s);
        s += len + (s[len] == '\n');
    }
    textbuf_puts(out, "}");
    return found;
}

START_TEST(test_config) {
    TextBuf text = {0};
    char key[64] = "";
    Err e;
    int members = 0, refused = 0;
    config_spoil(&text, key, sizeof key, configs[_i], 1000, "");
    ck_assert_msg(!config_try(&text, &e), "%s", e.msg);
    for (int at = 0, more = 1; more; at++)
        for (size_t w = 0; w < sizeof wrongs / sizeof *wrongs && more; w++) {
            more = config_spoil(&text, key, sizeof key, configs[_i], at, wrongs[w]);
            if (more <= 0) {
                if (more < 0) break;
                continue;
            }
            members += !w;
            const size_t before = mem_now();
            const int rc = config_try(&text, &e);
            ck_assert_uint_eq(mem_now(), before);
            if (is_overridden(key, wrongs[w]) && !rc) continue;
            refused++;
            ck_assert_msg(rc == ERR_INPUT, "%s: %s: code %d: %s", key, wrongs[w], rc, e.msg);
            ck_assert_msg(strstr(e.msg, "config.json: ") != NULL, "%s", e.msg);
        }
    printf("layout %d: %d members, %d values refused\n", _i, members, refused);
    ck_assert_int_ge(members, 15);
    textbuf_free(&text);
}
END_TEST

/* ---- GGUF: pairs ---- */

/* kind: 'i'nteger, 'r'eal, 'b'ool, 's'tring, 'I', 'R', 'S': arrays */
typedef struct {
    const char *key;
    int kind;
} Pair;
static const Pair pairs[] = {{"general.architecture", 's'},
                             {"llama.block_count", 'i'},
                             {"llama.context_length", 'i'},
                             {"llama.embedding_length", 'i'},
                             {"llama.feed_forward_length", 'i'},
                             {"llama.attention.head_count", 'i'},
                             {"llama.attention.head_count_kv", 'i'},
                             {"llama.attention.key_length", 'i'},
                             {"llama.attention.value_length", 'i'},
                             {"llama.rope.dimension_count", 'i'},
                             {"llama.expert_count", 'i'},
                             {"llama.attention.layer_norm_rms_epsilon", 'r'},
                             {"llama.rope.freq_base", 'r'},
                             {"llama.rope.scale_linear", 'r'},
                             {"llama.rope.scaling.factor", 'r'},
                             {"llama.rope.scaling.type", 's'},
                             {"tokenizer.ggml.model", 's'},
                             {"tokenizer.ggml.pre", 's'},
                             {"tokenizer.ggml.tokens", 'S'},
                             {"tokenizer.ggml.scores", 'R'},
                             {"tokenizer.ggml.token_type", 'I'},
                             {"tokenizer.ggml.bos_token_id", 'i'},
                             {"tokenizer.ggml.eos_token_id", 'i'},
                             {"tokenizer.ggml.unknown_token_id", 'i'},
                             {"tokenizer.ggml.add_bos_token", 'b'},
                             {"tokenizer.ggml.add_eos_token", 'b'},
                             {"tokenizer.ggml.add_space_prefix", 'b'}};
enum { PAIRS = sizeof pairs / sizeof *pairs, TOKENS = 6 };

static void pair_good(Make *m, const char *key) {
    static const struct {
        const char *key;
        uint32_t v;
    } ints[] = {{"llama.block_count", 1},
                {"llama.context_length", 64},
                {"llama.embedding_length", 8},
                {"llama.feed_forward_length", 8},
                {"llama.attention.head_count", 2},
                {"llama.attention.head_count_kv", 1},
                {"llama.attention.key_length", 4},
                {"llama.attention.value_length", 4},
                {"llama.rope.dimension_count", 4},
                {"llama.expert_count", 1},
                {"tokenizer.ggml.bos_token_id", 1},
                {"tokenizer.ggml.eos_token_id", 2},
                {"tokenizer.ggml.unknown_token_id", 0}};
    static const char *const text[TOKENS] = {"<unk>", "<s>", "</s>", "a", "b", "ab"};
    static const int types[TOKENS] = {2, 3, 3, 1, 1, 1};
    static const float scores[TOKENS] = {0, 0, 0, -1, -2, -3};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        if (!strcmp(key, ints[i].key)) return pair_u32(m, key, ints[i].v);
    if (!strcmp(key, "general.architecture") || !strcmp(key, "tokenizer.ggml.model")) return pair_str(m, key, "llama");
    if (!strcmp(key, "llama.rope.scaling.type")) return pair_str(m, key, "none");
    if (!strcmp(key, "tokenizer.ggml.pre")) return pair_str(m, key, "default");
    if (!strcmp(key, "tokenizer.ggml.tokens")) return pair_strs(m, key, text, TOKENS);
    if (!strcmp(key, "tokenizer.ggml.scores")) return pair_f32s(m, key, scores, TOKENS);
    if (!strcmp(key, "tokenizer.ggml.token_type")) return pair_i32s(m, key, types, TOKENS);
    if (strstr(key, "add_")) return pair_bool(m, key, 1);
    pair_f32(m, key, strstr(key, "epsilon") ? 1e-5f : strstr(key, "freq_base") ? 10000.0f : 1.0f);
}

/* The wrong value number w for a key; 0 when this key could have it. */
static int pair_wrong(Make *m, const Pair *p, int w) {
    static const int one[1] = {1};
    static const float half[1] = {0.5f};
    static const char *const word[1] = {"x"};
    switch (w) {
    case 0:
        return p->kind == 'b' ? 0 : (pair_bool(m, p->key, 1), 1);
    case 1:
        return p->kind == 's' ? 0 : (pair_str(m, p->key, "x"), 1);
    case 2:
        return pair_i32s(m, p->key, one, 1), 1; // as an array of tokens' types it is too short
    case 3:
        return pair_f32s(m, p->key, half, 1), 1;
    case 4:
        return pair_strs(m, p->key, word, 1), strcmp(p->key, "tokenizer.ggml.tokens") != 0;
    case 5:
        return p->kind == 'r' ? 0 : (pair_f32(m, p->key, 0.5f), 1);
    case 6:
        return pair_f32(m, p->key, (float)(1 / 0.0)), 1;
    case 7:
        return p->kind == 'r' ? 0 : (pair_u32(m, p->key, 0xffffffffu), 1);
    default:
        return p->kind != 's' || !strcmp(p->key, "tokenizer.ggml.pre")
                   ? 0
                   : (pair_str(m, p->key, "no such word, and one that is longer than the sixty bytes of a message"), 1);
    }
}

static int gguf_try(int spoilt, int w, int skip, Err *e) {
    static const struct {
        const char *name;
        size_t rows, cols;
    } list[] = {{"token_embd.weight", TOKENS, 8}, {"output_norm.weight", 0, 8},       {"blk.0.attn_norm.weight", 0, 8},
                {"blk.0.ffn_norm.weight", 0, 8},  {"blk.0.attn_q.weight", 8, 8},      {"blk.0.attn_k.weight", 4, 8},
                {"blk.0.attn_v.weight", 4, 8},    {"blk.0.attn_output.weight", 8, 8}, {"blk.0.ffn_gate.weight", 8, 8},
                {"blk.0.ffn_up.weight", 8, 8},    {"blk.0.ffn_down.weight", 8, 8}};
    static const float x[64] = {1};
    const char *path = tmpdir_path("m.gguf");
    Make m = {0};
    GgufModel g;
    int rc = 0;
    *e = (Err){0};
    for (int i = 0; i < PAIRS; i++) {
        if (i == skip) continue;
        if (i != spoilt) pair_good(&m, pairs[i].key);
        else if (!pair_wrong(&m, &pairs[i], w)) rc = -1;
    }
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        tensor(&m, list[i].name, list[i].rows, list[i].cols, GGML_F32, x,
               4 * (list[i].rows ? list[i].rows : 1) * list[i].cols);
    Bytes b = make_file(&m, 3);
    ck_assert(!file_write_all(path, (const char *)b.p, b.n, e));
    free(b.p);
    make_free(&m);
    if (rc) return rc;
    rc = gguf_model_open(&g, path, e);
    const HfSaveOptions o = {.dtype = DT_F32};
    if (!rc) rc = gguf_model_save(&g, tmpdir_path("out"), &o, e);
    gguf_model_close(&g);
    return rc;
}

START_TEST(test_gguf) {
    Err e;
    int refused = 0;
    ck_assert_msg(!gguf_try(-1, 0, -1, &e), "%s", e.msg);
    for (int i = 0; i < PAIRS; i++)
        for (int w = 0; w < 9; w++) {
            const size_t before = mem_now();
            const int rc = gguf_try(i, w, -1, &e);
            ck_assert_uint_eq(mem_now(), before);
            if (rc < 0) continue;
            refused++;
            ck_assert_msg(rc == ERR_INPUT && strstr(e.msg, "m.gguf: "), "%s, wrong value %d: code %d: %s", pairs[i].key,
                          w, rc, e.msg);
        }
    printf("GGUF: %d pairs, %d values refused\n", PAIRS, refused);
    ck_assert_int_ge(refused, 150);
}
END_TEST

/* Each pair left out: refused by its name, or not needed. */
START_TEST(test_gguf_missing) {
    static const char *const needed[] = {"general.architecture",      "llama.block_count",
                                         "llama.context_length",      "llama.embedding_length",
                                         "llama.feed_forward_length", "llama.attention.head_count",
                                         "tokenizer.ggml.model",      "tokenizer.ggml.tokens",
                                         "tokenizer.ggml.scores",     "llama.attention.head_count_kv"};
    Err e;
    int n = 0;
    for (int i = 0; i < PAIRS; i++) {
        int wanted = 0;
        for (size_t k = 0; k < sizeof needed / sizeof *needed; k++) wanted |= !strcmp(needed[k], pairs[i].key);
        const int rc = gguf_try(-1, 0, i, &e);
        ck_assert_msg(rc == (wanted ? ERR_INPUT : OK), "%s: code %d: %s", pairs[i].key, rc, e.msg);
        n += wanted;
    }
    ck_assert_int_eq(n, 10);
}
END_TEST

SUITE("bad_metadata") {
    // thousands of small files, none of which has to survive
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 0);
    GROUP("all", .setup_once = tmpdir_begin, .teardown_once = tmpdir_end, .timeout = 120);
    CASE(test_config, .times = sizeof configs / sizeof *configs);
    CASE(test_gguf);
    CASE(test_gguf_missing);
}
