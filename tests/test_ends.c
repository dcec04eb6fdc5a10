/* test_ends.c - where a text ends: all files that say it are asked, by everything that stops at it. */
#include "base/file.h"
#include "io/ends.h"
#include "io/gguf_model.h"
#include "io/hf.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include "text/dataset.h"
#include <string.h>

static void lay(const char *name, const char *text) {
    Err e = {0};
    ck_assert_msg(!file_write_all(tmpdir_path(name), text, strlen(text), &e), "%s", e.msg);
}

#define CONFIG(MORE)                                                                                                   \
    "{\"model_type\": \"llama\", \"hidden_size\": 4, \"intermediate_size\": 4, \"num_hidden_layers\": 1, "             \
    "\"num_attention_heads\": 1, \"vocab_size\": 300, \"tie_word_embeddings\": true" MORE "}"

static const struct {
    const char *config, *generation, *tokenizer;
    int n, id[4];
} cases[] = {
    {CONFIG(", \"eos_token_id\": 256"), NULL, NULL, 1, {256}},
    {CONFIG(", \"eos_token_id\": 256"), "{\"eos_token_id\": [256, 257]}", NULL, 2, {256, 257}},
    {CONFIG(", \"eos_token_id\": [257, 256]"), "{\"eos_token_id\": 256}", NULL, 2, {257, 256}},
    {CONFIG(""), "{\"eos_token_id\": 257}", NULL, 1, {257}}, // not the family's default as well
    {CONFIG(""), "{\"eos_token_id\": null}", NULL, 1, {2}},
    {CONFIG(", \"eos_token_id\": null"), "{\"eos_token_id\": [257, -1, 257]}", NULL, 1, {257}},
    {CONFIG(", \"eos_token_id\": 256"),
     NULL,
     "{\"eos_token\": \"<|im_end|>\", \"added_tokens_decoder\": {\"258\": {\"content\": \"<|im_end|>\"}}}",
     2,
     {256, 258}},
    {CONFIG(", \"eos_token_id\": 256"),
     "{\"eos_token_id\": 257}",
     "{\"eos_token\": {\"content\": \"c\"}}",
     3,
     {256, 257, 7}},
    {CONFIG(", \"eos_token_id\": 256"), NULL, "{\"eos_token\": \"none such\"}", 1, {256}},
    {CONFIG(", \"eos_token_id\": 256"), "{\"eos_token_id\": 4711}", NULL, 1, {256}}, // without a row
};

START_TEST(union_of_files) {
    Config c;
    Err e = {0};
    lay("config.json", cases[_i].config);
    lay("tokenizer.json", "{\"added_tokens\": [], \"model\": {\"vocab\": {\"c\": 7}}}");
    if (cases[_i].generation) lay("generation_config.json", cases[_i].generation);
    if (cases[_i].tokenizer) lay("tokenizer_config.json", cases[_i].tokenizer);
    ck_assert_msg(!hf_config(&c, tmpdir, &e), "%s", e.msg);
    ck_assert_int_eq(c.n_eos, cases[_i].n);
    for (int i = 0; i < c.n_eos; i++) ck_assert_int_eq(c.eos[i], cases[_i].id[i]);
    ck_assert(config_ends(&c, c.eos[0]) && !config_ends(&c, 3) && !config_ends(&c, -1));
}
END_TEST

START_TEST(malformed) {
    static const char *const bad[][3] = {
        {"generation_config.json", "{\"eos_token_id\": \"a\"}", "eos_token_id: got a string"},
        {"generation_config.json", "[]", "expected a JSON object"},
        {"tokenizer_config.json", "{\"eos_token\": 3}", "eos_token: got 3"},
        {"tokenizer_config.json", "{\"eos_token\": {\"text\": \"a\"}}", "eos_token: got nothing"}};
    Config c;
    Err e = {0};
    lay("config.json", CONFIG(""));
    lay(bad[_i][0], bad[_i][1]);
    ck_assert_int_eq(hf_config(&c, tmpdir, &e), ERR_INPUT);
    ck_assert_msg(strstr(e.msg, bad[_i][0]) && strstr(e.msg, bad[_i][2]), "%s", e.msg);
}
END_TEST

/* A chat model: its turns end with <|im_end|>, a document with <|endoftext|>. */
START_TEST(document) {
    static const char json[] =
        "{\"version\": \"1.0\", \"added_tokens\": [{\"id\": 3, \"content\": \"<|im_end|>\", \"special\": true, "
        "\"normalized\": false, \"single_word\": false, \"lstrip\": false, \"rstrip\": false}, {\"id\": 4, "
        "\"content\": "
        "\"<|endoftext|>\", \"special\": true, \"normalized\": false, \"single_word\": false, \"lstrip\": false, "
        "\"rstrip\": "
        "false}], \"normalizer\": null, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
        "\"trim_offsets\": true, \"use_regex\": true}, \"decoder\": {\"type\": \"ByteLevel\"}, \"post_processor\": "
        "null, "
        "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2}, \"merges\": []}}";
    Tokenizer *t;
    Err e = {0};
    ck_assert_msg(!tokenizer_parse(&t, json, strlen(json), "t", &e), "%s", e.msg);
    Config c = {.VOC = 5, .eos = {3, 4}, .n_eos = 2};
    ck_assert_int_eq(ends_document(&c, t), 4);
    ck_assert_int_eq(ends_document(&c, NULL), 3);
    c.n_eos = 1;
    ck_assert_int_eq(ends_document(&c, t), 3);
    c.n_eos = 0;
    ck_assert_int_eq(ends_document(&c, t), -1);
    // an end that is there already: said
    ShardStats s;
    lay("t.jsonl", "{\"text\": \"ab<|endoftext|>\"}\n{\"text\": \"c\"}\n");
    ck_assert_msg(!shard_write(tmpdir_path("t.tok"), tmpdir_path("t.jsonl"), t, &(ShardOptions){.add_eos = 4}, &s, &e),
                  "%s", e.msg);
    ck_assert(s.tokens == 6 && s.doubled == 1 &&
              strstr(s.note, "1 of the documents ended with the end of text already"));
    tokenizer_close(t);
}
END_TEST

SUITE("ends") {
    GROUP("ends", .setup = tmpdir_begin, .teardown = tmpdir_end);
    CASE(union_of_files, .times = sizeof cases / sizeof *cases);
    CASE(malformed, .times = 4);
    CASE(document);
}
