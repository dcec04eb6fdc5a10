/* test_chat.c - chat templates: all the places that have them, and the prompts of the four families. What apply_chat_
 * template of transformers gives for these templates was worked out by hand from their text. */
#include "base/file.h"
#include "io/chat.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include <string.h>

static void lay(const char *name, const char *text) {
    Err e = {0};
    ck_assert_msg(!file_write_all(tmpdir_path(name), text, strlen(text), &e), "%s", e.msg);
}

START_TEST(places) {
    ChatTemplates c;
    Err e = {0};
    ck_assert(!chat_open(&c, tmpdir, &e) && !c.n && !chat_default(&c));
    lay("tokenizer_config.json", "{\"chat_template\": \"A\"}");
    ck_assert(!chat_open(&c, tmpdir, &e));
    ck_assert_str_eq(chat_default(&c), "A");
    chat_close(&c);
    lay("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"T\"}, {\"name\": "
                                 "\"default\", \"template\": \"D\"}]}");
    ck_assert(!chat_open(&c, tmpdir, &e) && c.n == 2);
    ck_assert_str_eq(chat_default(&c), "D");
    ck_assert_str_eq(c.text[0], "T");
    chat_close(&c);
    lay("chat_template.json", "{\"chat_template\": \"J\"}");
    ck_assert(!chat_open(&c, tmpdir, &e) && c.n == 2);
    ck_assert_str_eq(chat_default(&c), "J");
    chat_close(&c);
    lay("chat_template.jinja", "F");
    ck_assert(!file_mkdirs(tmpdir_path("additional_chat_templates"), &e));
    lay("additional_chat_templates/rag.jinja", "R");
    ck_assert(!chat_open(&c, tmpdir, &e) && c.n == 3);
    ck_assert_str_eq(chat_default(&c), "F"); // the file goes before all
    chat_close(&c);
    // and all of it comes along
    ck_assert(!file_mkdirs(tmpdir_path("to"), &e) && !chat_copy(tmpdir, tmpdir_path("to"), &e));
    ck_assert(!chat_open(&c, tmpdir_path("to"), &e) && c.n == 2);
    ck_assert_str_eq(chat_default(&c), "F");
    chat_close(&c);
}
END_TEST

START_TEST(wrong_types) {
    static const char *const bad[][2] = {
        {"{\"chat_template\": 3}", "expected a string or a list"},
        {"{\"chat_template\": {\"default\": \"A\"}}", "expected a string or a list"},
        {"{\"chat_template\": [\"A\"]}", "chat_template: name: got nothing"},
        {"{\"chat_template\": [{\"name\": \"default\", \"template\": null}]}", "chat_template: template: got null"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ChatTemplates c;
        Err e = {0};
        lay("tokenizer_config.json", bad[i][0]);
        ck_assert_int_eq(chat_open(&c, tmpdir, &e), ERR_INPUT);
        ck_assert_msg(strstr(e.msg, bad[i][1]) != NULL, "%s", e.msg);
    }
}
END_TEST

#define CHATML "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
static const struct {
    const char *text, *system, *want;
    int bos;
} prompts[] = {
    {CHATML, NULL, "<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n", 0},
    {"{{ bos_token }}" CHATML, NULL, "<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n", 1},
    {CHATML, "S", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n", 0},
    {"{% if tools %}{{ '<|im_start|>system\\n' }}{% elif messages[0]['role'] == 'system' %}{{ '<|im_start|>system\\n' "
     "+ "
     "messages[0]['content'] + '<|im_end|>\\n' }}{% else %}{{ '<|im_start|>system\\nYou are Q.<|im_end|>\\n' }}" CHATML,
     NULL, "<|im_start|>system\nYou are Q.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n", 0},
    {"{{ '<|im_start|>system\nOwn.<|im_end|>\n' }}" CHATML, "S",
     "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n", 0},
    {"{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + "
     "'<|eot_id|>' %}{% set content = bos_token + content %}",
     NULL, "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
     1},
    {"{{- bos_token }}{%- set date_string = \"26 Jul 2024\" %}{{- \"<|start_header_id|>system<|end_header_id|>\\n\\n\" "
     "}}{{- \"Cutting Knowledge Date: December 2023\\n\" }}{{- 'x' | trim }}",
     "S",
     "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul "
     "2024\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_"
     "header_"
     "id|>\n\n",
     1},
    {"{{ bos_token }}{{ '[INST] ' + message['content'] + ' [/INST]' }}", NULL, "[INST]  Hi  [/INST]", 1},
    {"{{ bos_token }}{{ '[INST] ' + message['content'] + '[/INST]' }}", NULL, "[INST]  Hi [/INST]", 1},
    {"{{ bos_token }}{{ '[INST]' + message['content'] + '[/INST]' }}", NULL, "[INST] Hi [/INST]", 1},
};

START_TEST(rendered) {
    TextBuf out = {0};
    Err e = {0};
    int bos = -1;
    ck_assert_msg(!chat_render(&out, &bos, prompts[_i].text, prompts[_i].system, " Hi ", &e), "%s", e.msg);
    ck_assert_str_eq(out.text, prompts[_i].want);
    ck_assert_int_eq(bos, prompts[_i].bos);
    textbuf_free(&out);
}
END_TEST

START_TEST(refused) {
    static const char *const c[][2] = {
        {"<start_of_turn>user", "Gemma's"},
        {"<|user|>\n", "Zephyr's or Phi-3's"},
        {"[INST] <<SYS>>\n<</SYS>>", "Llama-2's"},
        {"{{ message }}", "no known family"},
        {"<|im_start|>[INST]", "more than one known family"},
        {"<|start_header_id|>Cutting Knowledge Date: December 2023 strftime_now", "date"}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        TextBuf out = {0};
        Err e = {0};
        int bos;
        ck_assert_int_eq(chat_render(&out, &bos, c[i][0], NULL, "Hi", &e), ERR_INPUT);
        ck_assert_msg(strstr(e.msg, c[i][1]) != NULL, "%s", e.msg);
        textbuf_free(&out);
    }
}
END_TEST

SUITE("chat") {
    GROUP("chat", .setup = tmpdir_begin, .teardown = tmpdir_end);
    CASE(places);
    CASE(wrong_types);
    CASE(rendered, .times = sizeof prompts / sizeof *prompts);
    CASE(refused);
}
