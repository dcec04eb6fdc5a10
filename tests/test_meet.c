/* test_meet.c - two that meet: a tokenizer and an embedding, two tokenizers, a student and a teacher. */
#include "io/hf.h"
#include "model/mixer.h"
#include "method/distill.h"
#include "method/transfer.h"
#include "tests/suite.h"
#include "tests/tiny.h"
#include "text/tokenizer.h"

#define ADDED(ID, TEXT)                                                                                                \
    "{\"id\": " #ID ", \"content\": \"" TEXT "\", \"special\": true, \"normalized\": false, \"single_word\": false, "  \
    "\"lstrip\": false, \"rstrip\": false}"
#define TOKENIZER(VOCAB, LIST)                                                                                         \
    "{\"version\": \"1.0\", \"added_tokens\": [" LIST "], \"normalizer\": null, \"pre_tokenizer\": {\"type\": "        \
    "\"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}, \"decoder\": "          \
    "{\"type\": \"ByteLevel\"}, \"post_processor\": null, \"model\": {\"type\": \"BPE\", \"vocab\": {" VOCAB           \
    "}, \"merges\": []}}"

static Tokenizer *opened(const char *json) {
    Tokenizer *t;
    Err e = {0};
    must(tokenizer_parse(&t, json, strlen(json), "t", &e), &e);
    return t;
}

START_TEST(rows) {
    Tokenizer *t = opened(TOKENIZER("\"a\": 0, \"b\": 1", ADDED(2, "[PAD]") ", " ADDED(4, "<x>")));
    Err e = {0};
    ck_assert_int_eq(tokenizer_rows(t, 5, "m", &e), OK);
    ck_assert_int_eq(tokenizer_rows(t, 6, "m", &e), OK);
    ck_assert_int_eq(tokenizer_rows(t, 4, "m", &e), ERR_INPUT);
    ck_assert_str_eq(e.msg, "m: its tokenizer has 5 tokens, its embedding 4 rows: '<x>' (4) has no row");
    ck_assert(strstr(e.hint, "resize_token_embeddings") != NULL);
    e = (Err){0};
    ck_assert_int_eq(tokenizer_rows(t, 2, "m", &e), ERR_INPUT);
    ck_assert_msg(strstr(e.msg, "'[PAD]' (2) and others have no row"), "%s", e.msg);
    tokenizer_close(t);
}
END_TEST

START_TEST(vocabularies) {
    static const struct {
        const char *json, *says;
    } c[] = {{TOKENIZER("\"a\": 0, \"b\": 1, \"c\": 2", ""), NULL},
             {TOKENIZER("\"a\": 0, \"b\": 1", ADDED(2, "c")), NULL},
             {TOKENIZER("\"a\": 0, \"b\": 1, \"c\": 2", ADDED(3, "[PAD]")), NULL}, // only in one of them
             {TOKENIZER("\"b\": 0, \"a\": 1, \"c\": 2", ""), "'a' is 0 and 1"},
             {TOKENIZER("\"a\": 0, \"b\": 1, \"d\": 2", ""), "2 is 'c' and 'd'"},
             {TOKENIZER("\"a\": 0, \"b\": 1, \"d\": 2, \"c\": 3", ""), "'c' is 2 and 3"}};
    Tokenizer *a = opened(c[0].json);
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        Tokenizer *b = opened(c[i].json);
        char what[256] = "";
        ck_assert_int_eq(tokenizer_difference(a, b, what, sizeof what), c[i].says != NULL);
        if (c[i].says) ck_assert_str_eq(what, c[i].says);
        tokenizer_close(b);
    }
    tokenizer_close(a);
}
END_TEST

/* Each member of a configuration that changes what a layer computes. */
START_TEST(configurations) {
    const Config t = tiny_config(2);
    char what[128];
    ck_assert_int_eq(config_difference(&t, &t, what, sizeof what), 0);
#define DIFFERS(CHANGE, SAYS)                                                                                          \
    do {                                                                                                               \
        Config s = t;                                                                                                  \
        CHANGE;                                                                                                        \
        ck_assert_int_eq(config_difference(&s, &t, what, sizeof what), 1);                                             \
        ck_assert_str_eq(what, SAYS);                                                                                  \
    } while (0)
    DIFFERS(s.rope.theta = 5e5, "rope_theta: 500000 and 10000");
    DIFFERS(s.rope.kind = ROPE_LINEAR, "rope_scaling (0 none, 1 linear, 2 llama3): 1 and 0");
    DIFFERS(s.rope.factor = 2, "rope_scaling.factor: 2 and 0");
    DIFFERS((s.H = 2, s.D = 8), "num_attention_heads: 2 and 4");
    DIFFERS(s.Hk = 4, "num_key_value_heads: 4 and 2");
    DIFFERS(s.D = 8, "head_dim: 8 and 4");
    DIFFERS(s.norm_eps = 1e-6, "norm_eps: 1e-06 and 1e-05");
    DIFFERS(s.qkv_bias = 1, "biases of q, k and v: 1 and 0");
    DIFFERS(s.o_bias = 1, "bias of the output projection: 1 and 0");
    DIFFERS(s.qk_norm = 1, "norms of q and k: 1 and 0");
    DIFFERS(s.F = 25, "intermediate_size: 25 and 24");
    DIFFERS(s.L = 3, "num_hidden_layers: 3 and 2");
    Config narrow = t, wide = t;
    narrow.window = 4;
    ck_assert_int_eq(config_difference(&narrow, &t, what, sizeof what), 0); // the student sees less: a choice
    wide.window = 8;
    ck_assert_int_eq(config_difference(&narrow, &wide, what, sizeof what), 0);
    ck_assert_int_eq(config_difference(&t, &narrow, what, sizeof what), 1); // more than its teacher: a slip
    ck_assert_str_eq(what, "sliding_window (0: none): 0 and 4");
    ck_assert_int_eq(config_difference(&wide, &narrow, what, sizeof what), 1);
}
END_TEST

START_TEST(layers_given_back) {
    Tiny t;
    Model s, h;
    Err e = {0};
    const int keep[2] = {1, 0};
    tiny_open(&t, "ref32", 1, 2, place("text.tok"));
    tiny_student(&s, &t, NULL, GRAD_NONE);
    t.teacher.c.rope.theta = 5e5;
    ck_assert_int_eq(hybrid_open(&h, &t.teacher, &s, keep, GRAD_NONE, &e), ERR_INPUT);
    ck_assert_msg(strstr(e.msg, "rope_theta: 10000 and 500000"), "%s", e.msg);
    t.teacher.c.rope.theta = 10000;
    e = (Err){0};
    must(hybrid_open(&h, &t.teacher, &s, keep, GRAD_NONE, &e), &e);
    model_close(&h);
    model_close(&s);
    tiny_close(&t);
}
END_TEST

SUITE("meet") {
    GROUP("meet", .setup = tmpdir_begin, .teardown = tmpdir_end);
    CASE(rows);
    CASE(vocabularies);
    CASE(configurations);
    CASE(layers_given_back);
}
