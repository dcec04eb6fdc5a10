/* test_export.c - the four export formats: frozen lists of names, types and shapes; values, by the formula of each
 * format; refusals with reason and nearest format; shards, tokenizer files, equal bytes;
 * the official layouts read back. */
#include "base/file.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "io/export.h"
#include "io/gguf.h"
#include "io/gguf_model.h"
#include "base/json.h"
#include "model/mixer.h"
#include "tests/suite.h"
#include "tests/tiny.h"
#include "text/tokenizer.h"
#include <math.h>
#include <stdlib.h>

/* ---- models to export ---- */

typedef struct {
    const char *family, *mixer;
    int softmax; /* bit l: layer l is softmax */
    int qkv_bias, qk_norm, tied, D, Hk;
    double eps, o_eps;
    int extra; /* some of: */
} Spec;
enum { WINDOW = 1, O_BIAS = 2, LINEAR_BIAS = 4, ROPE = 8, NO_ROPE = 16 };

static void model_make(const Spec *s, const char *dir) {
    Err e = {0};
    Backend *be;
    Model m;
    Config c = tiny_config(3);
    char *text;
    size_t len;
    c.VOC = 260;
    snprintf(c.family, sizeof c.family, "%s", s->family);
    c.tied = s->tied;
    c.qkv_bias = s->qkv_bias;
    c.qk_norm = s->qk_norm;
    c.bos = 1;
    c.eos[0] = 2;
    c.n_eos = 1;
    if (s->D) c.D = s->D;
    if (s->Hk) c.Hk = s->Hk;
    c.norm_eps = s->eps;
    c.o_norm_eps = s->o_eps;
    c.window = s->extra & WINDOW ? 5 : 0;
    c.o_bias = (s->extra & O_BIAS) != 0;
    c.linear_bias = (s->extra & LINEAR_BIAS) != 0;
    c.no_rope = (s->extra & NO_ROPE) != 0;
    if (s->extra & ROPE)
        c.rope = (Rope){.kind = ROPE_LLAMA3, .theta = 5000, .factor = 8, .low_freq = 1, .high_freq = 4, .original = 16};
    for (int l = 0; l < c.L; l++) c.mixer[l] = s->softmax >> l & 1 ? 0 : mixer_find(s->mixer);
    must(backend_open(&be, "ref32", 1, &e), &e);
    must(model_open(&m, &c, be, GRAD_NONE, &e), &e);
    must(model_init(&m, 3, 1.0, 1.5, 0, &e), &e);
    must(file_mkdirs(place("tok"), &e), &e);
    must(tokenizer_byte_json(&text, &len, &e), &e);
    must(file_write_all(place("tok/tokenizer.json"), text, len, &e), &e);
    must(file_write_all(place("tok/generation_config.json"), "{}\n", 3, &e), &e);
    must(file_write_all(place("tok/tokenizer_config.json"), "{\"chat_template\": \"hi\"}\n", 24, &e), &e);
    mem_free(text);
    const HfSaveOptions o = {.dtype = DT_F32, .tokenizer_from = place("tok")};
    must(hf_save(&m, dir, &o, NULL, 0, &e), &e);
    model_close(&m);
    backend_close(be);
}

static const Spec llama_gdn = {"llama", "gdn_v4", 2, 0, 0, 1, 0, 0, 1e-5, 1e-5, 0};
static const Spec llama_gla = {"llama", "gla_v1", 2, 0, 0, 0, 0, 0, 1e-5, 1e-5, 0};
static const Spec qwen2_gdn = {"qwen2", "gdn_v4", 5, 1, 0, 1, 0, 0, 1e-6, 1e-6, 0};
static const Spec qwen2_official = {"qwen2", "gdn_v4", 5, 1, 0, 1, 0, 0, 1e-6, 1e-5, 0};
static const Spec qwen3_gdn = {"qwen3", "gdn_v4", 2, 0, 1, 0, 6, 2, 1e-6, 1e-6, 0};
static const Spec qwen3_conv = {"qwen3", "gdn_v3", 4, 0, 1, 1, 6, 2, 1e-6, 1e-6, 0};
static const Spec llama_softmax = {"llama", "gdn_v4", 7, 0, 0, 1, 0, 0, 1e-5, 1e-5, 0};

/* ---- a list of a file's tensors as text ---- */

static void list_safetensors(TextBuf *b, const char *dir) {
    Safetensors s;
    Err e = {0};
    char path[700];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    must(safetensors_open(&s, path, &e), &e);
    ck_assert(s.n_meta == 1 && !strcmp(s.meta_key[0], "format") && !strcmp(s.meta_value[0], "pt"));
    for (size_t i = 0; i < s.n; i++) {
        textbuf_printf(b, "%s %s", s.tensor[i].name, dtype_name(s.tensor[i].dtype));
        for (int d = 0; d < s.tensor[i].rank; d++) textbuf_printf(b, "%c%zu", d ? ',' : ' ', s.tensor[i].shape[d]);
        textbuf_puts(b, "\n");
    }
    safetensors_close(&s);
}
static void list_gguf(TextBuf *b, const char *path) {
    Gguf g;
    Err e = {0};
    must(gguf_open(&g, path, &e), &e);
    for (size_t i = 0; i < g.n; i++) {
        textbuf_printf(b, "%.*s %s", (int)g.tensor[i].len, g.tensor[i].name, ggml_name(g.tensor[i].type));
        for (int d = 0; d < g.tensor[i].rank; d++) textbuf_printf(b, "%c%zu", d ? ',' : ' ', g.tensor[i].shape[d]);
        textbuf_puts(b, "\n");
    }
    gguf_close(&g);
}

/* Compared with the committed list testdata/export/NAME.txt; HYB_UPDATE=1 writes it. */
static void frozen(const TextBuf *b, const char *name) {
    char path[256];
    File f;
    Err e = {0};
    snprintf(path, sizeof path, "testdata/export/%s.txt", name);
    if (getenv("HYB_UPDATE")) must(file_write_all(path, b->text, b->len, &e), &e);
    must(file_open(&f, path, &e), &e);
    const int same = f.size == b->len && !memcmp(f.data, b->text, b->len);
    file_close(&f);
    ck_assert_msg(same, "%s is not the list any more:\n%s", path, b->text);
}

static const struct {
    const Spec *s;
    const char *format, *list;
    DType dtype;
} lists[] = {
    {&llama_gdn, "fla", "fla_gdn_v4", DT_BF16},          {&llama_gla, "fla", "fla_gla_v1", DT_F32},
    {&qwen2_gdn, "fla", "fla_gdn_v4_qwen2", DT_F32},     {&llama_gdn, "student", "student_gdn_v4", DT_F32},
    {&llama_gla, "student", "student_gla_v1", DT_BF16},  {&qwen3_gdn, "qwen3_5", "qwen3_5_gdn_v4", DT_F32},
    {&qwen3_conv, "qwen3_5", "qwen3_5_gdn_v3", DT_BF16}, {&qwen3_gdn, "gguf", "gguf_gdn_v4", DT_F32},
    {&qwen3_conv, "gguf", "gguf_gdn_v3", DT_F16},        {&llama_softmax, "gguf", "gguf_llama", DT_BF16},
};

START_TEST(test_lists) {
    const char *from = place("from"), *to = place("to"), *again = place("again");
    const ExportOptions o = {.format = lists[_i].format, .dtype = lists[_i].dtype};
    TextBuf b = {0};
    Err e = {0};
    model_make(lists[_i].s, from);
    must(export_model(from, to, &o, &e), &e);
    const int gguf = !strcmp(o.format, "gguf");
    if (gguf) list_gguf(&b, to);
    else list_safetensors(&b, to);
    frozen(&b, lists[_i].list);
    textbuf_free(&b);
    // saving twice gives identical bytes
    must(export_model(from, again, &o, &e), &e);
    for (int i = 0; i < (gguf ? 1 : 2); i++) {
        static const char *const files[] = {"model.safetensors", "config.json"};
        File x, y;
        char p[700], q[700];
        snprintf(p, sizeof p, gguf ? "%s" : "%s/%s", to, files[i]);
        snprintf(q, sizeof q, gguf ? "%s" : "%s/%s", again, files[i]);
        must(file_open(&x, p, &e), &e);
        must(file_open(&y, q, &e), &e);
        ck_assert(x.size == y.size && !memcmp(x.data, y.data, x.size));
        file_close(&x);
        file_close(&y);
    }
    if (!gguf) {
        static const char *const kept[] = {"tokenizer.json", "tokenizer_config.json", "generation_config.json"};
        for (int i = 0; i < 3; i++) {
            char p[700];
            snprintf(p, sizeof p, "%s/%s", to, kept[i]);
            ck_assert_int_eq(file_exists(p), 1);
        }
    }
}
END_TEST

/* ---- values ---- */

static const Tensor *find(const Safetensors *s, const char *name) {
    const Tensor *t = safetensors_find(s, name);
    ck_assert_msg(t != NULL, "%s", name);
    return t;
}
static float at(const Tensor *t, size_t i) {
    float x;
    memcpy(&x, t->data + 4 * i, 4);
    return x;
}
static void open_in(Safetensors *s, const char *dir) {
    char path[700];
    Err e = {0};
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    must(safetensors_open(s, path, &e), &e);
}

/* Every element of out is f(element of in), element by element, from element `first` of out on. */
static void same_but(const Safetensors *x, const char *out, size_t first, const Safetensors *y, const char *in,
                     double mul, double add) {
    const Tensor *a = find(x, out), *b = find(y, in);
    ck_assert_uint_le(first + b->count, a->count);
    for (size_t i = 0; i < b->count; i++)
        ck_assert_msg(at(a, first + i) == (float)(at(b, i) * mul + add), "%s element %zu: %g", out, first + i,
                      at(a, first + i));
}

START_TEST(test_qwen35_values) {
    const char *from = place("from"), *to = place("to");
    const ExportOptions o = {.format = "qwen3_5", .dtype = DT_F32};
    Safetensors x, y;
    Err e = {0};
    const int conv = _i;
    model_make(conv ? &qwen3_conv : &qwen3_gdn, from); // softmax is layer 1, with convolutions layer 2
    must(export_model(from, to, &o, &e), &e);
    open_in(&x, to);
    open_in(&y, from);
    const size_t Q = 4 * 6, C = 16, D = 6;
    same_but(&x, "model.embed_tokens.weight", 0, &y, "model.embeddings.weight", 1, 0);
    same_but(&x, "model.norm.weight", 0, &y, "model.norm.weight", 1, -1);
    same_but(&x, "model.layers.0.input_layernorm.weight", 0, &y, "model.layers.0.attn_norm.weight", 1, -1);
    same_but(&x, "model.layers.0.linear_attn.in_proj_qkv.weight", 0, &y, "model.layers.0.attn.q_proj.weight", 1, 0);
    same_but(&x, "model.layers.0.linear_attn.in_proj_qkv.weight", Q * C, &y, "model.layers.0.attn.k_proj.weight", 1, 0);
    same_but(&x, "model.layers.0.linear_attn.in_proj_qkv.weight", 2 * Q * C, &y, "model.layers.0.attn.v_proj.weight", 1,
             0);
    same_but(&x, "model.layers.0.linear_attn.A_log", 0, &y, "model.layers.0.attn.A_log", 1, 0);
    same_but(&x, "model.layers.0.linear_attn.norm.weight", 0, &y, "model.layers.0.attn.o_norm.weight", 1, 0);
    same_but(&x, conv ? "model.layers.2.self_attn.o_proj.weight" : "model.layers.1.self_attn.o_proj.weight", 0, &y,
             conv ? "model.layers.2.attn.o_proj.weight" : "model.layers.1.attn.o_proj.weight", 2, 0);
    const Tensor *q =
        find(&x, conv ? "model.layers.2.self_attn.q_proj.weight" : "model.layers.1.self_attn.q_proj.weight");
    const Tensor *p = find(&y, conv ? "model.layers.2.attn.q_proj.weight" : "model.layers.1.attn.q_proj.weight");
    ck_assert_uint_eq(q->count, 2 * p->count);
    for (size_t h = 0; h < 4; h++)
        for (size_t i = 0; i < D * C; i++) {
            ck_assert(at(q, h * 2 * D * C + i) == at(p, h * D * C + i));
            ck_assert(at(q, h * 2 * D * C + D * C + i) == 0);
        }
    const Tensor *taps = find(&x, "model.layers.0.linear_attn.conv1d.weight");
    if (conv) same_but(&x, taps->name, Q * 4, &y, "model.layers.0.attn.k_conv1d.weight", 1, 0);
    for (size_t i = 0; !conv && i < taps->count; i++) ck_assert(at(taps, i) == (i % 4 == 3));
    safetensors_close(&x);
    safetensors_close(&y);
}
END_TEST

START_TEST(test_gguf_values) {
    const char *from = place("from"), *to = place("to.gguf");
    const ExportOptions o = {.format = "gguf", .dtype = DT_F32};
    Safetensors y;
    Gguf g;
    Err e = {0};
    int64_t n = 0;
    const GgufValue *layers, *sections;
    model_make(&qwen3_gdn, from);
    must(export_model(from, to, &o, &e), &e);
    open_in(&y, from);
    must(gguf_open(&g, to, &e), &e);
    const GgufTensor *a = gguf_find(&g, "blk.0.ssm_a"), *norm = gguf_find(&g, "blk.0.attn_norm.weight"),
                     *taps = gguf_find(&g, "blk.2.ssm_conv1d.weight");
    const Tensor *A = find(&y, "model.layers.0.attn.A_log"), *w = find(&y, "model.layers.0.attn_norm.weight");
    for (size_t i = 0; i < A->count; i++) {
        float v;
        gguf_dequantise(&v, a, i, 1);
        ck_assert(fabs(v + exp((double)at(A, i))) <= 1e-6 * fabs(v));
    }
    ck_assert(!memcmp(norm->data, w->data, w->bytes) && taps->shape[0] == 72 && taps->shape[1] == 4);
    must(gguf_opt_int(&g, "qwen35.ssm.inner_size", 0, 1000, &n, &e), &e);
    ck_assert_int_eq(n, 24);
    must(gguf_want_array(&g, "qwen35.attention.recurrent_layers", GGUF_BOOL, &layers, &e), &e);
    must(gguf_want_array(&g, "qwen35.rope.dimension_sections", GGUF_I32, &sections, &e), &e);
    ck_assert(layers->n == 3 && gguf_int_at(layers, 0) == 1 && gguf_int_at(layers, 1) == 0 &&
              gguf_int_at(layers, 2) == 1);
    ck_assert(gguf_int_at(sections, 0) + gguf_int_at(sections, 1) + gguf_int_at(sections, 2) == 3 &&
              gguf_int_at(sections, 3) == 0);
    gguf_close(&g);
    safetensors_close(&y);
    ck_assert_int_eq(export_model(from, to, &o, &e), ERR_USAGE); // never over a file
    ck_assert_ptr_nonnull(strstr(e.msg, "to.gguf: exists"));
}
END_TEST

/* A softmax model to GGUF and back: every bit. */
START_TEST(test_gguf_round_trip) {
    const char *from = place("from"), *file = place("to.gguf"), *back = place("back");
    const ExportOptions o = {.format = "gguf", .dtype = DT_F32};
    const HfSaveOptions save = {.dtype = DT_F32};
    Safetensors x, y;
    GgufModel m;
    Err e = {0};
    model_make(&llama_softmax, from);
    must(export_model(from, file, &o, &e), &e);
    must(gguf_model_open(&m, file, &e), &e);
    must(gguf_model_save(&m, back, &save, &e), &e);
    gguf_model_close(&m);
    open_in(&x, back);
    open_in(&y, from);
    ck_assert_uint_eq(x.n, y.n);
    for (size_t i = 0; i < y.n; i++) same_but(&x, y.tensor[i].name, 0, &y, y.tensor[i].name, 1, 0);
    safetensors_close(&x);
    safetensors_close(&y);
    Tokenizer *t;
    Ids ids = {0};
    must(tokenizer_open(&t, back, &e), &e);
    must(tokenizer_encode(t, "ab \xC3\xA9", 5, 0, &ids, &e), &e);
    const int want[] = {'a', 'b', ' ', 0xc3, 0xa9};
    ck_assert(ids.n == 5 && !memcmp(ids.id, want, sizeof want));
    ids_free(&ids);
    tokenizer_close(t);
}
END_TEST

/* ---- GGUF: tokenizers and rope ---- */

#define GPT2_REGEX "'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+"
#define WORDS(digits)                                                                                                  \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}" digits                             \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define SPLIT(regex)                                                                                                   \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" regex "\"}, \"behavior\": \"Isolated\", \"invert\": false}"
#define BYTES(prefix, regex)                                                                                           \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": " prefix ", \"trim_offsets\": false, \"use_regex\": " regex "}"
#define LIST(a, b) "{\"type\": \"Sequence\", \"pretokenizers\": [" a ", " b "]}"
static const struct {
    const char *pre, *normalizer, *model, *name;
} pres[] = {
    {BYTES("false", "true"), "null", "", "gpt-2"},
    {LIST(SPLIT(GPT2_REGEX), BYTES("false", "false")), "null", "", "gpt-2"},
    {LIST(SPLIT(WORDS("{1,3}")), BYTES("false", "false")), "null", "\"ignore_merges\": true, ", "llama-bpe"},
    {LIST(SPLIT(WORDS("")), BYTES("false", "false")), "{\"type\": \"NFC\"}", "", "qwen2"},
    {LIST("{\"type\": \"Digits\", \"individual_digits\": true}", BYTES("false", "true")), "null", "", "smollm"},
    {BYTES("false", "false"), "null", "", NULL}, // merges over the whole text
    {BYTES("true", "true"), "null", "", NULL},
    {BYTES("false", "true"), "{\"type\": \"NFC\"}", "", NULL},
    {BYTES("false", "true"), "{\"type\": \"Prepend\", \"prepend\": \"_\"}", "", NULL},
    {BYTES("false", "true"), "null", "\"byte_fallback\": true, ", NULL},
    {LIST("{\"type\": \"Digits\", \"individual_digits\": false}", BYTES("false", "true")), "null", "", NULL},
    {"null", "null", "", NULL}, // sentencepiece's way
};

/* The byte tokenizer with two merges, an added and a special token, and these rules. */
static void tokenizer_make(const char *path, int k, const char *merges, const char *added) {
    TextBuf b = {0};
    char *text;
    size_t len;
    Err e = {0};
    must(tokenizer_byte_json(&text, &len, &e), &e);
    const char *vocab = strstr(text, "\"vocab\":");
    ck_assert_ptr_nonnull(vocab);
    const char *end = vocab;
    do end = strchr(end + 1, '}'); // its own brace, not the token
    while (end[-1] == '"');
    const int n = (int)(end - vocab);
    textbuf_printf(&b, "{\"version\": \"1.0\", \"normalizer\": %s, \"pre_tokenizer\": %s, \"added_tokens\": [%s],",
                   pres[k].normalizer, pres[k].pre, added);
    textbuf_printf(&b,
                   "\"post_processor\": null, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", "
                   "%s%.*s, \"ab\": 256, "
                   "\"abc\": 257}, \"merges\": [%s]}}",
                   pres[k].model, n, vocab, merges);
    must(textbuf_end(&b, &e), &e);
    must(file_write_all(path, b.text, b.len, &e), &e);
    textbuf_free(&b);
    mem_free(text);
}

static const char *const added_good =
    "{\"id\": 258, \"content\": \"<s>\", \"special\": true, \"single_word\": false, \"lstrip\": false, \"rstrip\": "
    "false, "
    "\"normalized\": false}, {\"id\": 259, \"content\": \"<tool>\", \"special\": false, \"single_word\": false, "
    "\"lstrip\": false, \"rstrip\": false, \"normalized\": false}";

START_TEST(test_gguf_tokenizers) {
    const char *from = place("from"), *file = place("to.gguf");
    const ExportOptions o = {.format = "gguf", .dtype = DT_F32};
    char path[700];
    Gguf g;
    Err e = {0};
    model_make(&llama_softmax, from);
    snprintf(path, sizeof path, "%s/tokenizer.json", from);
    tokenizer_make(path, _i, _i % 2 ? "\"a b\", \"ab c\"" : "[\"a\", \"b\"], [\"ab\", \"c\"]", added_good);
    const int rc = export_model(from, file, &o, &e);
    if (!pres[_i].name) {
        ck_assert_int_eq(rc, ERR_USAGE);
        ck_assert_msg(strstr(e.msg, "format gguf cannot hold this tokenizer") != NULL, "%s", e.msg);
        ck_assert_int_eq(file_exists(file), 0);
        return;
    }
    must(rc, &e);
    must(gguf_open(&g, file, &e), &e);
    const char *name = NULL;
    size_t n = 0, len;
    char *text;
    must(gguf_opt_str(&g, "tokenizer.ggml.pre", &name, &n, &e), &e);
    ck_assert_msg(n == strlen(pres[_i].name) && !memcmp(name, pres[_i].name, n), "%.*s", (int)n, name);
    must(gguf_tokenizer_json(&text, &len, &g, &e), &e); // and back: the same ids
    Tokenizer *t[2];
    must(tokenizer_open(&t[0], path, &e), &e);
    must(tokenizer_parse(&t[1], text, len, "back", &e), &e);
    static const char *const texts[] = {"abcab 123 don't<s>ABC'S  \n\n x", "<tool>e\xCC\x81 abc\t12345",
                                        "caf\xC3\xA9 \xE4\xB8\xAD\xE6\x96\x87"};
    for (int k = 0; k < 3; k++) {
        Ids x = {0}, y = {0};
        must(tokenizer_encode(t[0], texts[k], strlen(texts[k]), 0, &x, &e), &e);
        must(tokenizer_encode(t[1], texts[k], strlen(texts[k]), 0, &y, &e), &e);
        ck_assert(x.n == y.n && !memcmp(x.id, y.id, x.n * sizeof *x.id));
        ids_free(&x);
        ids_free(&y);
    }
    tokenizer_close(t[0]);
    tokenizer_close(t[1]);
    mem_free(text);
    gguf_close(&g);
}
END_TEST

/* What the model has no room for. */
START_TEST(test_gguf_tokenizer_faults) {
    static const char *const added[] = {"{\"id\": 260, \"content\": \"<s>\"}", "{\"id\": \"x\", \"content\": \"<s>\"}",
                                        "{\"id\": 258, \"content\": 5}"};
    const char *from = place("from"), *file = place("to.gguf");
    const ExportOptions o = {.format = "gguf", .dtype = DT_F32};
    char path[700];
    Err e = {0};
    model_make(&llama_softmax, from);
    snprintf(path, sizeof path, "%s/tokenizer.json", from);
    tokenizer_make(path, 0, "", added[_i]);
    ck_assert_int_eq(export_model(from, file, &o, &e), ERR_INPUT);
    ck_assert_msg(strstr(e.msg, "added_tokens") != NULL, "%s", e.msg);
    ck_assert_int_eq(file_exists(file), 0);
}
END_TEST

static void rope_make(const char *dir, const char *family, const Rope *r) {
    Err e = {0};
    Backend *be;
    Model m;
    Config c = tiny_config(2);
    snprintf(c.family, sizeof c.family, "%s", family);
    c.qkv_bias = !strcmp(family, "qwen2");
    c.VOC = 260;
    c.D = 16;
    c.rope = *r;
    for (int l = 0; l < c.L; l++) c.mixer[l] = 0;
    must(backend_open(&be, "ref32", 1, &e), &e);
    must(model_open(&m, &c, be, GRAD_NONE, &e), &e);
    must(model_init(&m, 3, 1.0, 1.5, 0, &e), &e);
    char *text;
    size_t len;
    must(file_mkdirs(place("tok"), &e), &e);
    must(tokenizer_byte_json(&text, &len, &e), &e);
    must(file_write_all(place("tok/tokenizer.json"), text, len, &e), &e);
    mem_free(text);
    const HfSaveOptions o = {.dtype = DT_F32, .tokenizer_from = place("tok")};
    must(hf_save(&m, dir, &o, NULL, 0, &e), &e);
    model_close(&m);
    backend_close(be);
}

/* Scaled rotary frequencies: to GGUF and back; Llama-3's by hand as well. */
START_TEST(test_gguf_rope) {
    static const Rope linear = {.kind = ROPE_LINEAR, .theta = 5000, .factor = 2.5};
    static const Rope llama3 = {
        .kind = ROPE_LLAMA3, .theta = 500000, .factor = 32, .low_freq = 1, .high_freq = 4, .original = 8192};
    static const struct {
        const char *family;
        const Rope *r;
    } what[] = {{"llama", &linear}, {"qwen2", &linear}, {"llama", &llama3}, {"qwen2", &llama3}};
    const char *from = place("from"), *file = place("to.gguf");
    const ExportOptions o = {.format = "gguf", .dtype = DT_F32};
    const Rope *r = what[_i].r;
    GgufModel m;
    Err e = {0};
    rope_make(from, what[_i].family, r);
    if (_i == 3) {
        ck_assert_int_eq(export_model(from, file, &o, &e), ERR_USAGE);
        ck_assert_ptr_nonnull(strstr(e.msg, "divides rotary frequencies in Llama only"));
        return;
    }
    must(export_model(from, file, &o, &e), &e);
    must(gguf_model_open(&m, file, &e), &e);
    const Rope *q = &m.config.rope;
    ck_assert(q->kind == r->kind && q->theta == r->theta && q->factor == r->factor);
    const GgufTensor *t = gguf_find(&m.g, "rope_freqs.weight");
    ck_assert_int_eq(t != NULL, r->kind == ROPE_LLAMA3);
    if (t) {
        float f[8];
        ck_assert(q->low_freq == 1 && q->high_freq == 4 && q->original == 8192 && t->rank == 1 && t->count == 8);
        gguf_dequantise(f, t, 0, 8);
        // frequency = kept where it turns more than 4 times in 8192 tokens, over 32 below once, mixed between
        for (int i = 0; i < 8; i++) {
            const double turns = 8192 * pow(500000, -2.0 * i / 16) / (2 * 3.14159265358979323846), s = (turns - 1) / 3;
            const double want = turns > 4 ? 1 : turns < 1 ? 32 : 1 / ((1 - s) / 32 + s);
            ck_assert_msg(fabs(f[i] - want) <= 1e-6 * want, "%d: %g, expected %g", i, (double)f[i], want);
        }
    }
    gguf_model_close(&m);
}
END_TEST

/* ---- the official layouts, both directions ---- */

START_TEST(test_student_back) {
    static const Spec *const specs[] = {&llama_gdn, &llama_gla, &qwen2_official};
    const char *from = place("from"), *to = place("to");
    const ExportOptions o = {.format = "student", .dtype = DT_F32, .shard_bytes = _i == 1 ? 4096 : 0};
    HfModel a, b;
    Err e = {0};
    model_make(specs[_i], from);
    must(export_model(from, to, &o, &e), &e);
    must(hf_open(&a, from, &e), &e);
    must(hf_open(&b, to, &e), &e);
    ck_assert(_i == 1 ? b.n_shards > 2 : b.n_shards == 1);
    ck_assert(b.config.o_norm_eps == 1e-5 && b.config.norm_eps == specs[_i]->eps &&
              b.config.qkv_bias == specs[_i]->qkv_bias);
    ck_assert(!memcmp(a.config.mixer, b.config.mixer, 3 * sizeof *a.config.mixer) && a.config.Hk == b.config.Hk &&
              a.config.D == b.config.D);
    for (size_t i = 0; i < a.shard[0].n; i++) {
        const Tensor *x = &a.shard[0].tensor[i], *y = hf_tensor(&b, x->name);
        ck_assert_msg(y && y->bytes == x->bytes && !memcmp(x->data, y->data, x->bytes), "%s", x->name);
    }
    hf_close(&a);
    hf_close(&b);
}
END_TEST

static int parse(Config *c, const char *text, Err *e) {
    const char *dir = place("parse");
    char path[700];
    *e = (Err){0};
    must(file_mkdirs(dir, e), e);
    snprintf(path, sizeof path, "%s/config.json", dir);
    must(file_write_all(path, text, strlen(text), e), e);
    return hf_config(c, dir, e);
}

#define SIZES "\"hidden_size\": 64, \"num_hidden_layers\": 4, \"num_heads\": 8, \"vocab_size\": 100"
START_TEST(test_official_configs) {
    Config c;
    Err e;
    must(parse(&c,
               "{\"model_type\": \"transformer\", " SIZES
               ", \"num_kv_heads\": 2, \"qkv_bias\": true, \"window_size\": 9, \"norm_eps\": 1e-6}",
               &e),
         &e);
    ck_assert(!strcmp(c.family, "qwen2") && c.Hk == 2 && c.D == 8 && c.F == 256 && c.window == 9 && c.qkv_bias &&
              !c.mixer[0] && c.n_eos == 1);
    must(parse(&c,
               "{\"model_type\": \"student\", " SIZES
               ", \"intermediate_size\": 96, \"student_name\": \"gla_v1\", \"norm_eps\": 1e-6, "
               "\"keep_full_attention_layers\": [2, 0]}",
               &e),
         &e);
    ck_assert(c.F == 96 && c.mixer[0] == 0 && c.mixer[2] == 0 && c.mixer[1] == mixer_find("gla_v1") &&
              c.o_norm_eps == 1e-5 && c.norm_eps == 1e-6);
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"{\"model_type\": \"student\", " SIZES "}", "student_name: got nothing"},
        {"{\"model_type\": \"student\", " SIZES ", \"student_name\": \"rwkv\"}",
         "student_name: unknown student \"rwkv\""},
        {"{\"model_type\": \"student\", " SIZES ", \"student_name\": \"softmax\"}",
         "student_name: unknown student \"softmax\""},
        {"{\"model_type\": \"student\", " SIZES
         ", \"student_name\": \"gdn_v4\", \"keep_full_attention_layers\": [1, 1]}",
         "layer 1 is listed twice"},
        {"{\"model_type\": \"student\", " SIZES ", \"student_name\": \"gdn_v4\", \"keep_full_attention_layers\": [4]}",
         "got 4, expected"},
        {"{\"model_type\": \"student\", " SIZES ", \"student_name\": \"gdn_v4\", \"force_window_on_all_layers\": true}",
         "expected false"},
        {"{\"model_type\": \"transformer\", " SIZES ", \"qk_norm\": true, \"norm_eps\": 1e-6}",
         "qk_norm: its eps is 1e-05"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_int_eq(parse(&c, bad[i].text, &e), ERR_INPUT);
        ck_assert_msg(strstr(e.msg, bad[i].says) != NULL, "%s", e.msg);
    }
}
END_TEST

/* ---- refusals ---- */

START_TEST(test_refusals) {
    static const Spec v5 = {"llama", "gdn_v5", 2, 0, 0, 1, 0, 0, 1e-5, 1e-5, 0},
                      wide = {"llama", "gdn_v4", 2, 0, 0, 1, 6, 0, 1e-5, 1e-5, 0};
    static const Spec q_bias = {"qwen3", "gdn_v4", 2, 1, 1, 0, 6, 2, 1e-6, 1e-6, O_BIAS},
                      q_linear = {"qwen3", "gdn_v4", 2, 0, 1, 0, 6, 2, 1e-6, 1e-6, LINEAR_BIAS};
    static const Spec q_rope = {"qwen3", "gdn_v4", 2, 0, 1, 0, 6, 2, 1e-6, 1e-6, ROPE},
                      q_window = {"qwen3", "gdn_v4", 2, 0, 1, 0, 6, 2, 1e-6, 1e-6, WINDOW};
    static const Spec q_eps = {"qwen3", "gdn_v4", 2, 0, 1, 0, 6, 2, 1e-6, 1e-5, 0},
                      l_rope = {"llama", "gdn_v4", 2, 0, 0, 1, 0, 0, 1e-5, 1e-5, ROPE};
    static const Spec l_bias = {"llama", "gdn_v4", 2, 1, 0, 1, 0, 0, 1e-5, 1e-5, O_BIAS},
                      l_linear = {"llama", "gdn_v4", 2, 0, 0, 1, 0, 0, 1e-5, 1e-5, LINEAR_BIAS};
    static const Spec q_head = {"qwen3", "gdn_v4", 2, 0, 1, 1, 6, 2, 1e-5, 1e-5, 0},
                      s_window = {"mistral", "gdn_v4", 7, 0, 0, 1, 0, 0, 1e-5, 1e-5, WINDOW};
    static const Spec s_bias = {"qwen3", "gdn_v4", 7, 1, 1, 1, 0, 0, 1e-5, 1e-5, O_BIAS};
    static const Spec q_nope = {"qwen3", "gdn_v4", 2, 0, 1, 0, 6, 2, 1e-6, 1e-6, NO_ROPE};
    static const Spec bare = {"qwen3", "gdn_v4", 0, 0, 1, 0, 6, 2, 1e-6, 1e-6, 0};
    static const Spec kda = {"llama", "kda_v1", 2, 0, 0, 1, 0, 0, 1e-5, 1e-5, 0};
    static const struct {
        const Spec *s;
        const char *format, *says, *hint;
    } no[] = {
        {&qwen3_gdn, "fla", "format fla cannot hold this model exactly: fla's hybrid attention has no q/k norm",
         "nearest: --format qwen3_5 or gguf"},
        {&qwen2_official, "fla",
         "format fla cannot hold this model exactly: the output norm's eps is 1e-05; fla would use 1e-06",
         "only hybridize's"},
        {&wide, "fla", "head_dim is not hidden_size / num_heads", "only hybridize's"},
        {&llama_softmax, "fla", "all layers of this model are softmax", "the directory itself"},
        {&qwen2_gdn, "student", "the output norm of its linear layers has eps 1e-05", "nearest: --format fla"},
        {&qwen3_gdn, "student", "its q/k norm has eps 1e-05", "nearest: --format qwen3_5"},
        {&llama_softmax, "student", "all its layers are softmax", "the directory itself"},
        {&kda, "student", "the official code has no such mixer", "nearest: --format fla"},
        {&llama_gdn, "qwen3_5", "always normalise q and k", "nearest: --format fla"},
        {&llama_gla, "qwen3_5", "Gated DeltaNet with an output gate", "nearest: --format fla"},
        {&v5, "qwen3_5", "Gated DeltaNet with an output gate", "nearest: --format fla"},
        {&llama_softmax, "qwen3_5", "all layers of this model are softmax", "the directory itself"},
        {&llama_gdn, "gguf", "format gguf cannot hold this model exactly", "nearest: --format fla"},
        {&bare, "gguf", "llama.cpp stops at a qwen35 without any softmax layer", "nearest: --format qwen3_5"},
        {&q_bias, "qwen3_5", "its softmax layers have no bias", "nearest: --format fla"},
        {&q_linear, "qwen3_5", "its linear layers have no biases", "only hybridize's"},
        {&q_rope, "gguf", "rope scaling is not written", "only hybridize's"},
        {&q_window, "qwen3_5", "its attention has no sliding window", "nearest: --format fla"},
        {&q_eps, "qwen3_5", "it has one eps for all norms", "nearest: --format student"},
        {&l_rope, "student", "its attention has no rope scaling", "only hybridize's"},
        {&l_rope, "fla", "rope", "only hybridize's"},
        {&l_bias, "student", "its attention has no o_proj bias", "only hybridize's"},
        {&l_bias, "fla", "no o_proj bias", "only hybridize's"},
        {&l_linear, "student", "its linear layers have no biases", "only hybridize's"},
        {&l_linear, "fla", "q/k/v biases in linear layers", "only hybridize's"},
        {&q_head, "student", "its head size is hidden_size / num_heads", "nearest: --format qwen3_5"},
        {&wide, "student", "its head size is hidden_size / num_heads", "no other format"},
        {&s_window, "gguf", "llama.cpp has no sliding window", "the directory itself"},
        {&s_bias, "gguf", "llama.cpp has no such bias", "the directory itself"},
        {&q_nope, "qwen3_5", "cannot hold softmax layers without rotary embedding", "only hybridize's"},
        {&q_nope, "gguf", "cannot hold softmax layers without rotary embedding", "only hybridize's"},
        {&q_nope, "fla", "cannot hold softmax layers without rotary embedding", "only hybridize's"},
        {&llama_gdn, "onnx", "format: got \"onnx\", expected fla, student, qwen3_5 or gguf", ""},
    };
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        const char *from = place("from"), *to = place("no");
        const ExportOptions o = {.format = no[i].format, .dtype = DT_F32};
        Err e = {0};
        model_make(no[i].s, from);
        ck_assert_int_eq(export_model(from, to, &o, &e), ERR_USAGE);
        ck_assert_msg(strstr(e.msg, no[i].says) != NULL, "%zu: %s", i, e.msg);
        ck_assert_msg(!strncmp(e.hint, no[i].hint, strlen(no[i].hint)), "%zu: %s", i, e.hint);
        ck_assert_int_eq(file_exists(to), 0);
        ck_assert_uint_eq(mem_now(), 0);
    }
}
END_TEST

START_TEST(test_no_memory) {
    static const struct {
        const Spec *s;
        const char *format;
    } what[] = {{&llama_gdn, "fla"}, {&llama_gdn, "student"}, {&qwen3_gdn, "qwen3_5"}, {&qwen3_gdn, "gguf"}};
    const char *from = place("from"), *to = place("mem");
    const ExportOptions o = {.format = what[_i].format, .dtype = DT_F32};
    model_make(what[_i].s, from);
    int done = 0;
    for (long n = 0; !done; n += n < 40 ? 1 : 7) {
        Err e = {0};
        mem_fail_after(n);
        const int rc = export_model(from, to, &o, &e);
        mem_fail_after(-1);
        ck_assert_uint_eq(mem_now(), 0);
        if (rc) ck_assert_int_eq(rc, ERR_MEMORY);
        done = !rc;
        ck_assert_int_lt(n, 3000);
    }
}
END_TEST

SUITE("export") {
    GROUP("all", .setup = tmpdir_begin, .teardown = tmpdir_end, .timeout = 120);
    CASE(test_lists, .times = sizeof lists / sizeof *lists);
    CASE(test_qwen35_values, .times = 2);
    CASE(test_gguf_values);
    CASE(test_gguf_round_trip);
    CASE(test_gguf_tokenizers, .times = sizeof pres / sizeof *pres);
    CASE(test_gguf_tokenizer_faults, .times = 3);
    CASE(test_gguf_rope, .times = 4);
    CASE(test_student_back, .times = 3);
    CASE(test_official_configs);
    CASE(test_refusals);
    CASE(test_no_memory, .times = 4);
}
