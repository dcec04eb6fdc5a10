/* test_hf.c - model directories: every family's config.json, hostile directories, load, save, load again. */
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "io/hf.h"
#include "io/hf_parts.h"
#include "model/mixer.h"
#include "tests/suite.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void ok(int rc, const Err *e) {
    if (rc) ck_abort_msg("code %d: %s (%s)", rc, e->msg, e->hint);
}

/* ---- config.json ---- */

static int parse(Config *c, const char *text, Err *e) {
    Json j;
    int fla, rc = json_parse(&j, text, strlen(text), "config.json", e);
    if (!rc) rc = hf_config_parse(c, &fla, &j, e);
    if (!rc) rc = config_check(c, "config.json", e);
    json_free(&j);
    return rc;
}

#define SIZES                                                                                                          \
    "\"hidden_size\": 64, \"intermediate_size\": 128, \"num_hidden_layers\": 4, \"num_attention_heads\": 8, "          \
    "\"vocab_size\": 100"

START_TEST(test_family_defaults) {
    static const struct {
        const char *family;
        int Hk, D, positions, qkv_bias, qk_norm, window, bos, n_eos;
    } want[] = {
        {"llama", 8, 8, 2048, 0, 0, 0, 1, 1},
        {"mistral", 8, 8, 131072, 0, 0, 4096, 1, 1},
        {"qwen2", 32, 8, 32768, 1, 0, 0, -1, 0},
        {"qwen3", 32, 128, 32768, 0, 1, 0, -1, 0},
    };
    char text[512];
    Config c;
    Err e = {0};
    // Qwen's default of 32 key/value heads does not fit 8 heads: say how many, and see the default refused.
    snprintf(text, sizeof text, "{\"model_type\": \"%s\", %s%s}", want[_i].family, SIZES,
             _i >= 2 ? ", \"num_key_value_heads\": 4" : "");
    ok(parse(&c, text, &e), &e);
    ck_assert_str_eq(c.family, want[_i].family);
    ck_assert_int_eq(c.Hk, _i >= 2 ? 4 : want[_i].Hk);
    ck_assert_int_eq(c.D, want[_i].D);
    ck_assert_int_eq(c.max_positions, want[_i].positions);
    ck_assert_int_eq(c.qkv_bias, want[_i].qkv_bias);
    ck_assert_int_eq(c.o_bias, 0);
    ck_assert_int_eq(c.qk_norm, want[_i].qk_norm);
    ck_assert_int_eq(c.window, want[_i].window);
    ck_assert_int_eq(c.bos, want[_i].bos);
    ck_assert_int_eq(c.n_eos, want[_i].n_eos);
    ck_assert_int_eq(c.tied, 0);
    ck_assert(c.norm_eps == 1e-6 && c.o_norm_eps == 1e-6 && c.rope.theta == 10000 && c.rope.kind == ROPE_PLAIN);
    if (_i < 2) return;
    snprintf(text, sizeof text, "{\"model_type\": \"%s\", %s}", want[_i].family, SIZES);
    ck_assert_int_eq(parse(&c, text, &e), ERR_INPUT);
}
END_TEST

START_TEST(test_rope_forms) {
    static const struct {
        const char *json;
        RopeKind kind;
        double theta, factor;
        int original;
    } want[] = {
        {"\"rope_theta\": 5e5, \"rope_scaling\": null", ROPE_PLAIN, 5e5, 0, 0},
        {"\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 7000}", ROPE_PLAIN, 7000, 0, 0},
        {"\"rope_theta\": 3, \"rope_scaling\": {}, \"rope_parameters\": {\"rope_theta\": 7000}", ROPE_PLAIN, 7000, 0,
         0},
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}", ROPE_LINEAR, 10000, 2, 0},
        {"\"rope_theta\": 5e5, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 32, \"low_freq_factor\": 1, "
         "\"high_freq_factor\": 4, "
         "\"original_max_position_embeddings\": 8192}",
         ROPE_LLAMA3, 5e5, 32, 8192},
        {"\"max_position_embeddings\": 777, \"rope_parameters\": {\"rope_type\": \"llama3\", \"rope_theta\": 9, "
         "\"factor\": 8, "
         "\"low_freq_factor\": 1, \"high_freq_factor\": 4}",
         ROPE_LLAMA3, 9, 8, 777},
    };
    char text[1024];
    Config c;
    Err e = {0};
    snprintf(text, sizeof text, "{\"model_type\": \"llama\", %s, %s}", SIZES, want[_i].json);
    ok(parse(&c, text, &e), &e);
    ck_assert_int_eq(c.rope.kind, want[_i].kind);
    ck_assert(c.rope.theta == want[_i].theta && c.rope.factor == want[_i].factor);
    ck_assert_int_eq(c.rope.original, want[_i].original);
}
END_TEST

START_TEST(test_windows) {
    static const struct {
        const char *type, *json;
        int window;
    } want[] = {
        {"mistral", "\"sliding_window\": null", 0},
        {"mistral", "\"sliding_window\": 64", 64},
        {"qwen2", "\"sliding_window\": 64", 0},
        {"qwen2", "\"use_sliding_window\": true, \"sliding_window\": 64, \"max_window_layers\": 4", 0},
        {"qwen2", "\"use_sliding_window\": true, \"sliding_window\": 64, \"max_window_layers\": 0", 64},
        {"qwen3",
         "\"use_sliding_window\": true, \"sliding_window\": 64, \"layer_types\": [\"sliding_attention\", "
         "\"sliding_attention\", \"sliding_attention\", \"sliding_attention\"]",
         64},
        {"qwen3", "\"use_sliding_window\": true, \"sliding_window\": null, \"max_window_layers\": 0", 0},
    };
    char text[1024];
    Config c;
    Err e = {0};
    snprintf(text, sizeof text, "{\"model_type\": \"%s\", %s, \"num_key_value_heads\": 2, %s}", want[_i].type, SIZES,
             want[_i].json);
    ok(parse(&c, text, &e), &e);
    ck_assert_int_eq(c.window, want[_i].window);
}
END_TEST

START_TEST(test_biases_ids_dtype) {
    Config c;
    Err e = {0};
    ok(parse(&c,
             "{\"model_type\": \"llama\", " SIZES
             ", \"attention_bias\": true, \"eos_token_id\": [5, 6], \"bos_token_id\": null, "
             "\"dtype\": \"float16\", \"torch_dtype\": \"float32\"}",
             &e),
       &e);
    ck_assert(c.qkv_bias && c.o_bias && c.n_eos == 2 && c.eos[0] == 5 && c.eos[1] == 6 && c.bos == -1 &&
              c.dtype == DT_F16);
    ok(parse(&c, "{\"model_type\": \"qwen3\", " SIZES ", \"num_key_value_heads\": 2, \"attention_bias\": true}", &e),
       &e);
    ck_assert(c.qkv_bias && c.o_bias && c.qk_norm);
}
END_TEST

START_TEST(test_fla) {
    Config c;
    Err e = {0};
    // As flash-linear-attention writes it, without our member.
    ok(parse(
           &c,
           "{\"model_type\": \"gated_deltanet\", \"hidden_size\": 64, \"intermediate_size\": null, \"hidden_ratio\": "
           "4, "
           "\"num_hidden_layers\": 3, \"num_heads\": 4, \"head_dim\": 16, \"expand_v\": 1, \"use_short_conv\": false, "
           "\"norm_eps\": 1e-5, "
           "\"vocab_size\": 10, \"attn\": {\"layers\": [2], \"num_heads\": 4, \"num_kv_heads\": 2, \"qkv_bias\": true, "
           "\"window_size\": 9, \"rope_theta\": 300}}",
           &e),
       &e);
    ck_assert_int_eq(c.mixer[0], mixer_find("gdn_v4"));
    ck_assert_int_eq(c.mixer[1], mixer_find("gdn_v4"));
    ck_assert_int_eq(c.mixer[2], 0);
    ck_assert(c.F == 256 && c.Hk == 2 && c.qkv_bias && c.window == 9 && c.rope.theta == 300 && c.o_norm_eps == 1e-5);
    ok(parse(&c,
             "{\"model_type\": \"gla\", \"hidden_size\": 64, \"intermediate_size\": 8, \"num_hidden_layers\": 2, "
             "\"num_heads\": 4, "
             "\"expand_k\": 1, \"vocab_size\": 10, \"attn\": [{\"layers\": [0], \"num_heads\": 4}]}",
             &e),
       &e);
    ck_assert_int_eq(c.mixer[1], mixer_find("gla_v1"));
    ck_assert(c.mixer[0] == 0 && c.D == 16 && c.Hk == 4 && c.F == 8);
    // fla's KDA: a convolution unless it says otherwise
    ok(parse(&c,
             "{\"model_type\": \"kda\", \"hidden_size\": 64, \"intermediate_size\": 8, \"num_hidden_layers\": 2, "
             "\"num_heads\": 4, "
             "\"head_dim\": 16, \"vocab_size\": 10, \"conv_size\": 3, \"attn\": {\"layers\": [1], \"num_heads\": 4}}",
             &e),
       &e);
    ck_assert_int_eq(c.mixer[0], mixer_find("kda_v2"));
    ck_assert(c.mixer[1] == 0 && c.D == 16 && c.conv_width == 3);
    ck_assert_int_eq(
        parse(&c,
              "{\"model_type\": \"kda\", \"hidden_size\": 64, \"intermediate_size\": 8, \"num_hidden_layers\": 1, "
              "\"num_heads\": 4, \"head_dim\": 16, \"vocab_size\": 10, \"safe_gate\": true, \"lower_bound\": -4}",
              &e),
        ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(e.msg, "lower_bound: got -4, expected -5"));
    e = (Err){0};
    ok(parse(&c,
             "{\"model_type\": \"kda\", \"hidden_size\": 64, \"intermediate_size\": 8, \"num_hidden_layers\": 1, "
             "\"num_heads\": 4, \"head_dim\": 16, \"vocab_size\": 10, \"safe_gate\": true, \"lower_bound\": -5}",
             &e),
       &e);
    ck_assert_int_eq(c.mixer[0], mixer_find("kda_v4"));
    e = (Err){0};
    ok(parse(&c,
             "{\"model_type\": \"kda\", \"hidden_size\": 64, \"intermediate_size\": 8, \"num_hidden_layers\": 1, "
             "\"num_heads\": 4, "
             "\"head_dim\": 16, \"vocab_size\": 10, \"use_short_conv\": false}",
             &e),
       &e);
    ck_assert_int_eq(c.mixer[0], mixer_find("kda_v1"));
}
END_TEST

START_TEST(test_names) {
    static const char *const want[][2] = {
        {"model.embeddings.weight", "model.embed_tokens.weight"},
        {"model.layers.12.attn_norm.weight", "model.layers.12.input_layernorm.weight"},
        {"model.layers.0.attn.q_proj.bias", "model.layers.0.self_attn.q_proj.bias"},
        {"model.layers.0.mlp_norm.weight", "model.layers.0.post_attention_layernorm.weight"},
        {"model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.down_proj.weight"},
        {"model.norm.weight", "model.norm.weight"},
        {"lm_head.weight", "lm_head.weight"},
    };
    char name[128];
    ck_assert_int_eq(hf_name(name, sizeof name, want[_i][0]), OK);
    ck_assert_str_eq(name, want[_i][1]);
    ck_assert_int_ne(hf_name(name, strlen(want[_i][1]), want[_i][0]), OK); // one byte too small
}
END_TEST

/* ---- hostile directories ---- */

static int open_and_load(const char *dir, Err *e) {
    Backend *be = NULL;
    Model m;
    int rc = backend_open(&be, "ref32", 1, e);
    if (rc) return rc;
    rc = hf_load_model(&m, dir, be, GRAD_NONE, e);
    model_close(&m);
    backend_close(be);
    return rc;
}

START_TEST(test_hostile) {
    FILE *f = fopen("testdata/bad/cases.txt", "r");
    ck_assert_msg(f != NULL, "testdata/bad/cases.txt is missing: run python3 testdata/bad/make.py");
    char line[512], dir[600];
    int cases = 0, failed = 0;
    while (fgets(line, sizeof line, f)) {
        char name[64], text[128] = "";
        int want = 0;
        ck_assert_int_ge(sscanf(line, "%63[^|]|%d|%127[^\n]", name, &want, text), 2);
        Err e = {0};
        snprintf(dir, sizeof dir, "testdata/bad/%s", name);
        const size_t before = mem_now();
        const int rc = open_and_load(dir, &e);
        const int good = rc == want && e.code == want && (!rc || (strstr(e.msg, text) && !strchr(e.msg, '\n')));
        if (!good) printf("%s: got code %d \"%s\", wanted code %d with \"%s\"\n", name, rc, e.msg, want, text);
        ck_assert_uint_eq(mem_now(), before);
        failed += !good;
        cases++;
    }
    fclose(f);
    ck_assert_int_eq(failed, 0);
    ck_assert_int_ge(cases, 100);
}
END_TEST

/* The n-th allocation fails, for every n until it loads: no crash, no leak, the right code. */
START_TEST(test_every_allocation) {
    static const char *const dirs[] = {"testdata/bad/ok_llama", "testdata/bad/ok_sharded"};
    const size_t before = mem_now();
    for (long n = 0;; n++) {
        Err e = {0};
        mem_fail_after(n);
        const int rc = open_and_load(dirs[_i], &e);
        mem_fail_after(-1);
        ck_assert_uint_eq(mem_now(), before);
        if (!rc) return;
        ck_assert_int_eq(rc, ERR_MEMORY);
        ck_assert_msg(strstr(e.msg, "memory") != NULL, "%s", e.msg);
        ck_assert_int_lt(n, 1000);
    }
}
END_TEST

/* ---- save and load again ---- */

static char scratch[64];
static void scratch_open(void) {
    snprintf(scratch, sizeof scratch, "build/test_hf_XXXXXX");
    ck_assert_int_eq(file_mkdirs("build", NULL), OK);
    ck_assert(mkdtemp(scratch) != NULL);
}
static void scratch_close(void) { file_remove_tree(scratch, NULL); }
static const char *in_scratch(const char *name) {
    static char path[4][256];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", scratch, name);
    return path[k];
}

typedef struct {
    const char *name, *family, *mixers;
    int qkv_bias, o_bias, qk_norm, tied, D, window;
    RopeKind rope;
    int notes;
} Shape;
static const Shape shapes[] = {
    {"llama", "llama", "ss", 0, 0, 0, 1, 4, 0, ROPE_PLAIN, 0},
    {"llama3 untied, head_dim", "llama", "ss", 0, 0, 0, 0, 8, 0, ROPE_LLAMA3, 0},
    {"llama biases, linear rope", "llama", "ss", 1, 1, 0, 1, 4, 0, ROPE_LINEAR, 0},
    {"mistral window", "mistral", "ss", 0, 0, 0, 0, 4, 5, ROPE_PLAIN, 0},
    {"qwen2", "qwen2", "ss", 1, 0, 0, 1, 4, 0, ROPE_PLAIN, 0},
    {"qwen2 window", "qwen2", "ss", 1, 0, 0, 1, 4, 6, ROPE_PLAIN, 0},
    {"qwen3", "qwen3", "ss", 0, 0, 1, 0, 8, 0, ROPE_PLAIN, 0},
    {"gdn_v4 hybrid", "llama", "4s", 0, 0, 0, 1, 4, 0, ROPE_PLAIN, 0},
    {"gdn_v1 hybrid", "llama", "s1", 0, 0, 0, 1, 4, 0, ROPE_PLAIN, 0},
    {"gdn_v2 all", "llama", "22", 0, 0, 0, 0, 4, 0, ROPE_PLAIN, 0},
    {"gdn_v3 biases", "qwen2", "3s", 1, 0, 0, 1, 4, 3, ROPE_PLAIN, 0},
    {"gla hybrid", "llama", "gs", 0, 0, 0, 1, 4, 0, ROPE_PLAIN, 0},
    {"gdn llama3 rope", "llama", "4s", 0, 0, 0, 1, 4, 0, ROPE_LLAMA3, 1},
    {"gdn qwen3", "qwen3", "s4", 0, 0, 1, 1, 8, 0, ROPE_PLAIN, 2},
    {"gla head_dim", "qwen3", "sg", 0, 0, 1, 1, 8, 0, ROPE_PLAIN, 3},
    {"gdn_v6", "llama", "6s", 0, 0, 0, 1, 4, 0, ROPE_PLAIN, 1},
    {"gdn and gla", "llama", "4g", 0, 0, 0, 1, 4, 0, ROPE_PLAIN, 1},
    {"gdn_v5", "qwen2", "s5", 1, 0, 0, 1, 4, 0, ROPE_PLAIN, 1},
    {"kda", "llama", "sk", 0, 0, 0, 0, 4, 0, ROPE_PLAIN, 0},
    {"kda, convolution, qwen3", "qwen3", "Ks", 0, 0, 1, 1, 8, 0, ROPE_PLAIN, 2},
    {"kda, bounded", "llama", "bs", 0, 0, 0, 1, 4, 0, ROPE_PLAIN, 0},
    {"kda, bounded, convolution", "llama", "sB", 0, 0, 0, 0, 4, 0, ROPE_PLAIN, 0},
    {"swa", "qwen2", "sw", 1, 0, 0, 1, 4, 0, ROPE_PLAIN, 1},
    {"swa everywhere, kda", "qwen2", "wk", 1, 0, 0, 1, 4, 9, ROPE_PLAIN, 1},
};

static Config shape_config(const Shape *s) {
    Config c = {.C = 16,
                .L = 2,
                .H = 4,
                .Hk = 2,
                .F = 12,
                .VOC = 11,
                .max_positions = 64,
                .norm_eps = 1e-5,
                .o_norm_eps = 1e-5,
                .conv_width = 4,
                .bos = 1,
                .n_eos = 2,
                .eos = {2, 3},
                .dtype = DT_F32};
    snprintf(c.family, sizeof c.family, "%s", s->family);
    c.qkv_bias = s->qkv_bias;
    c.o_bias = s->o_bias;
    c.qk_norm = s->qk_norm;
    c.tied = s->tied;
    c.D = s->D;
    c.window = s->window;
    c.rope = (Rope){.kind = s->rope, .theta = 5000, .factor = 8, .low_freq = 1, .high_freq = 4, .original = 32};
    for (int l = 0; l < 2; l++) {
        char name[8] = "gdn_v?";
        name[5] = s->mixers[l];
        const char kind = s->mixers[l];
        c.mixer[l] = mixer_find(kind == 's'   ? "softmax"
                                : kind == 'g' ? "gla_v1"
                                : kind == 'k' ? "kda_v1"
                                : kind == 'K' ? "kda_v2"
                                : kind == 'b' ? "kda_v3"
                                : kind == 'B' ? "kda_v4"
                                : kind == 'w' ? "swa_v1"
                                              : name);
        if (kind == 'w') c.swa_window = 7;
    }
    return c;
}

typedef struct {
    const Model *other;
    double worst;
    int n;
} Compare;
static int compare_param(void *ctx, const ParamInfo *info, Param *slot) {
    Compare *k = ctx;
    ParamInfo other;
    Param p;
    double *a = malloc(info->n * sizeof *a), *b = malloc(info->n * sizeof *b);
    Err e = {0};
    ck_assert_msg(model_find(k->other, info->name, &other, &p), "%s is missing", info->name);
    ok(param_get(k->other->be, info, slot, DT_F64, a, &e), &e);
    ok(param_get(k->other->be, &other, &p, DT_F64, b, &e), &e);
    for (size_t i = 0; i < info->n; i++) k->worst = fmax(k->worst, fabs(a[i] - b[i]));
    k->n++;
    free(a);
    free(b);
    return OK;
}

static void files_equal(const char *a, const char *b) {
    File f, g;
    Err e = {0};
    ok(file_open(&f, a, &e), &e);
    ok(file_open(&g, b, &e), &e);
    ck_assert_uint_eq(f.size, g.size);
    ck_assert(!memcmp(f.data, g.data, f.size));
    file_close(&f);
    file_close(&g);
}

/* Softmax layers that see positions otherwise: only our own layout says so, and only where there are such layers. */
START_TEST(test_own_positions) {
    const char *const mixers[] = {"gdn_v4", "kda_v1", "gla_v1", "softmax"};
    Backend *be;
    Err e = {0};
    ok(backend_open(&be, "ref32", 1, &e), &e);
    for (int i = 0; i < 8; i++) {
        Config c = shape_config(&shapes[0]);
        Model m, back;
        c.mixer[0] = mixer_find(i < 4 ? "softmax" : mixers[i - 4]);
        c.mixer[1] = mixer_find(mixers[i % 4]);
        c.no_rope = 1;
        c.logit_base = i % 2 ? 0 : 64.5;
        ok(model_open(&m, &c, be, GRAD_NONE, &e), &e);
        ok(model_init(&m, 5, 0.5, 1, 0, &e), &e);
        const HfSaveOptions o = {.dtype = DT_F32};
        const int rc = hf_save(&m, in_scratch("own"), &o, NULL, 0, &e);
        model_close(&m);
        if (!c.mixer[0] && !c.mixer[1]) { // config.json of a Llama has no word for it
            ck_assert_int_eq(rc, ERR_USAGE);
            ck_assert_ptr_nonnull(strstr(e.msg, "rotary"));
            e = (Err){0};
            continue;
        }
        ok(rc, &e);
        Json j;
        const char *type = "";
        ok(json_open(&j, in_scratch("own/config.json"), &e), &e);
        ok(json_opt_str(&j, 0, "model_type", &type, &e), &e);
        ck_assert_msg(!c.mixer[0] == !strcmp(type, "hybridize"), "%d: %s", i, type);
        json_free(&j);
        ok(hf_load_model(&back, in_scratch("own"), be, GRAD_NONE, &e), &e);
        ck_assert_int_eq(back.c.no_rope, !c.mixer[0]);
        ck_assert(back.c.logit_base == (c.mixer[0] ? 0 : c.logit_base));
        ck_assert_int_eq(memcmp(back.c.mixer, c.mixer, sizeof c.mixer), 0);
        model_close(&back);
        ok(file_remove_tree(in_scratch("own"), &e), &e);
    }
    backend_close(be);
}
END_TEST

START_TEST(test_round_trip) {
    const Shape *s = &shapes[_i];
    const Config c = shape_config(s);
    Backend *be;
    Model m, back;
    Err e = {0};
    char notes[1024] = "";
    ok(backend_open(&be, "ref32", 1, &e), &e);
    ok(model_open(&m, &c, be, GRAD_NONE, &e), &e);
    ok(model_init(&m, 5, 0.5, 1, 0, &e), &e);
    HfSaveOptions o = {.dtype = DT_F32, .shard_bytes = _i % 2 ? 1500 : 0};
    ok(hf_save(&m, in_scratch("model"), &o, notes, sizeof notes, &e), &e);
    int lines = 0;
    for (const char *p = notes; *p; p++) lines += *p == '\n';
    ck_assert_msg(lines == s->notes, "%s: %d notes: %s", s->name, lines, notes);
    ok(hf_load_model(&back, in_scratch("model"), be, GRAD_NONE, &e), &e);
    ck_assert_int_eq(memcmp(back.c.mixer, c.mixer, sizeof c.mixer), 0);
    ck_assert_int_eq(back.c.swa_window, c.swa_window);
    Compare k = {&back, 0, 0};
    params_walk(&m.c, &m.p, compare_param, &k);
    ck_assert(k.worst == 0 && k.n > 10);
    // The same bytes again, over our own directory; and over a directory of somebody else: refused.
    ok(hf_save(&m, in_scratch("again"), &o, NULL, 0, &e), &e);
    ok(hf_save(&back, in_scratch("again"), &o, NULL, 0, &e), &e);
    files_equal(in_scratch("model/config.json"), in_scratch("again/config.json"));
    if (!o.shard_bytes) files_equal(in_scratch("model/model.safetensors"), in_scratch("again/model.safetensors"));
    else {
        files_equal(in_scratch("model/model.safetensors.index.json"), in_scratch("again/model.safetensors.index.json"));
        ck_assert_int_eq(file_exists(in_scratch("model/model.safetensors")), 0);
    }
    ck_assert_int_eq(file_exists(in_scratch("again.old")), 0);
    ck_assert_int_eq(file_exists(in_scratch("again.new")), 0);
    model_close(&back);
    model_close(&m);
    backend_close(be);
}
END_TEST

START_TEST(test_save_refuses) {
    Config c = shape_config(&shapes[0]);
    Backend *be;
    Model m;
    Err e = {0};
    ok(backend_open(&be, "ref32", 1, &e), &e);
    ok(model_open(&m, &c, be, GRAD_NONE, &e), &e);
    HfSaveOptions o = {.dtype = DT_BF16};
    ok(file_mkdirs(in_scratch("theirs"), &e), &e);
    ck_assert_int_eq(hf_save(&m, in_scratch("theirs"), &o, NULL, 0, &e), ERR_USAGE);
    e = (Err){0};
    ok(file_write_all(in_scratch("file"), "x", 1, &e), &e);
    ck_assert_int_eq(hf_save(&m, in_scratch("file"), &o, NULL, 0, &e), ERR_USAGE);
    e = (Err){0};
    o.format = "fla";
    ck_assert_int_eq(hf_save(&m, in_scratch("x"), &o, NULL, 0, &e), ERR_USAGE);
    e = (Err){0};
    o.format = "gguf";
    ck_assert_int_eq(hf_save(&m, in_scratch("x"), &o, NULL, 0, &e), ERR_USAGE);
    e = (Err){0};
    o = (HfSaveOptions){.dtype = DT_I32};
    ck_assert_int_eq(hf_save(&m, in_scratch("x"), &o, NULL, 0, &e), ERR_USAGE);
    e = (Err){0};
    o.dtype = DT_F32;
    m.c.qkv_bias = 1; // Llama's config.json has no field for q, k, v biases without one of o
    ck_assert_int_eq(hf_save(&m, in_scratch("x"), &o, NULL, 0, &e), ERR_USAGE);
    ck_assert_int_eq(file_exists(in_scratch("x")), 0);
    ck_assert_int_eq(file_exists(in_scratch("x.new")), 0);
    m.c.qkv_bias = 0;
    model_close(&m);
    backend_close(be);
}
END_TEST

/* A failing I/O call or allocation while saving over an earlier model leaves that one loadable. */
START_TEST(test_save_faults) {
    const Config c = shape_config(&shapes[7]);
    Backend *be;
    Model m;
    Err e = {0};
    char number[32];
    int failures = 0;
    ok(backend_open(&be, "ref32", 1, &e), &e);
    ok(model_open(&m, &c, be, GRAD_NONE, &e), &e);
    HfSaveOptions o = {.dtype = DT_F32, .tokenizer_from = "testdata/bad/ok_llama"};
    ok(hf_save(&m, in_scratch("kept"), &o, NULL, 0, &e), &e);
    for (int n = 1;; n++) {
        e = (Err){0};
        if (_i == 0) {
            snprintf(number, sizeof number, "%ld", file_io_calls() + n);
            setenv("HYBRIDIZE_FAIL_IO", number, 1);
        } else mem_fail_after(n - 1);
        const int rc = hf_save(&m, in_scratch("kept"), &o, NULL, 0, &e);
        unsetenv("HYBRIDIZE_FAIL_IO");
        mem_fail_after(-1);
        if (rc) ck_assert_int_eq(rc, _i == 0 ? ERR_IO : ERR_MEMORY);
        failures += rc != 0;
        Err f = {0};
        ok(open_and_load(in_scratch("kept"), &f), &f);
        if (!rc) break;
        ck_assert_int_lt(n, 500);
    }
    ck_assert_int_ge(failures, 5);
    model_close(&m);
    backend_close(be);
}
END_TEST

/* ---- models that others trained ---- */

START_TEST(test_shared_models) {
    static const struct {
        const char *name;
        int L, C, VOC;
        double first;
    } want[] = {
        {"TinyStories-656K", 2, 128, 2048, 0}, {"babyllama-105", 5, 128, 105, 0}, {"stories260K", 5, 64, 512, 0}};
    const char *shared = getenv("HYBRIDIZE_SHARED");
    char dir[600];
    snprintf(dir, sizeof dir, "%s/models/%s", shared ? shared : "../shared", want[_i].name);
    if (file_exists(dir) != 2) {
        printf("SKIP %s: not there\n", dir);
        return;
    }
    HfModel h;
    Err e = {0};
    ok(hf_open(&h, dir, &e), &e);
    ck_assert_int_eq(h.config.L, want[_i].L);
    ck_assert_int_eq(h.config.C, want[_i].C);
    ck_assert_int_eq(h.config.VOC, want[_i].VOC);
    ck_assert_int_eq(h.config.tied, 1);
    const Tensor *t = hf_tensor(&h, "model.embeddings.weight");
    ck_assert(t && t->shape[0] == (size_t)want[_i].VOC);
    ck_assert_str_eq(t->name, _i ? "model.embed_tokens.weight" : "lm_head.weight");
    ck_assert(hf_tensor(&h, "model.layers.99.attn.q_proj.weight") == NULL);
    hf_close(&h);
    ok(open_and_load(dir, &e), &e);
}
END_TEST

/* What our own reader refuses is not written: infinite after the conversion, by tensor and element; and it can be known
 * before. */
START_TEST(test_written_finite) {
    static const float big[3] = {1, 1e6f, 2};
    unsigned char f16[6];
    const Tensor t = {.name = "w", .dtype = DT_F16}, f = {.name = "w", .dtype = DT_F32};
    Err e = {0};
    dtype_convert(DT_F16, f16, DT_F32, big, 3);
    ck_assert_int_eq(tensor_piece_finite(&f, 0, big, sizeof big, "x", &e), OK);
    ck_assert_int_eq(tensor_piece_finite(&t, 20, f16, sizeof f16, "x", &e), ERR_NUMERIC);
    ck_assert_str_eq(e.msg, "x: tensor \"w\": element 11 would be infinite in F16");
    ck_assert_msg(strstr(e.hint, "65504") != NULL, "%s", e.hint);
    const Config c = {.family = "llama",
                      .C = 8,
                      .L = 1,
                      .H = 2,
                      .Hk = 2,
                      .D = 4,
                      .F = 8,
                      .VOC = 5,
                      .tied = 1,
                      .max_positions = 16,
                      .norm_eps = 1e-5,
                      .o_norm_eps = 1e-5,
                      .conv_width = 4,
                      .bos = -1,
                      .rope = {.kind = ROPE_PLAIN, .theta = 10000},
                      .dtype = DT_F32};
    Backend *be;
    Model m;
    char dir[700];
    snprintf(dir, sizeof dir, "%s", in_scratch("m"));
    e = (Err){0};
    ok(backend_open(&be, "ref32", 1, &e), &e);
    ok(model_open(&m, &c, be, GRAD_NONE, &e), &e);
    ok(model_init(&m, 3, 1.0, 1.5, 0, &e), &e);
    ok(hf_save(&m, dir, &(HfSaveOptions){.dtype = DT_F32}, NULL, 0, &e), &e);
    ck_assert_int_eq(hf_range_check(dir, DT_F16, &e), OK);
    ParamInfo info;
    Param p;
    ck_assert(model_find(&m, "model.norm.weight", &info, &p));
    ok(param_put(be, &info, &p, DT_F32, (const float[8]){1, 1, 1, 1e6f, 1, 1, 1, 1}, &e), &e);
    ck_assert_int_eq(hf_save(&m, dir, &(HfSaveOptions){.dtype = DT_F16}, NULL, 0, &e), ERR_NUMERIC);
    ck_assert_msg(strstr(e.msg, "\"model.norm.weight\": element 3 would be infinite in F16"), "%s", e.msg);
    e = (Err){0};
    ok(hf_save(&m, dir, &(HfSaveOptions){.dtype = DT_BF16}, NULL, 0, &e), &e); // the other is as it was
    ck_assert_int_eq(hf_range_check(dir, DT_BF16, &e), OK);
    ck_assert_int_eq(hf_range_check(dir, DT_F16, &e), ERR_NUMERIC);
    ck_assert_msg(strstr(e.msg, "\"model.norm.weight\": element 3 would be infinite in F16"), "%s", e.msg);
    model_close(&m);
    backend_close(be);
}
END_TEST

SUITE("hf") {
    GROUP("config");
    CASE(test_family_defaults, .times = 4);
    CASE(test_rope_forms, .times = 6);
    CASE(test_windows, .times = 7);
    CASE(test_biases_ids_dtype);
    CASE(test_fla);
    CASE(test_names, .times = 7);
    CASE(test_shared_models, .times = 3);
    GROUP("hostile");
    CASE(test_hostile);
    CASE(test_every_allocation, .times = 2);
    GROUP("save", .setup = scratch_open, .teardown = scratch_close);
    CASE(test_own_positions);
    CASE(test_round_trip, .times = sizeof shapes / sizeof *shapes);
    CASE(test_save_refuses);
    CASE(test_save_faults, .times = 2);
    CASE(test_written_finite);
}
