/* fuzz_chat.c - any bytes as a chat template and as a model's answer: a prompt or one line; scores within their range.
 * */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "eval/score.h"
#include "eval/task_parts.h"
#include "eval/tasks.h"
#include "io/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void score(char *text) {
    char *gold[] = {text, (char *)(uintptr_t) "the 12"};
    const EvalSet set = {0};
    const EvalDoc d = {.text = gold + 1, .n_text = 1};
    double number[4] = {0}, exact, f1;
    Err e = {0};
    if (score_squad(text, gold, 2, &exact, &f1, &e) || !(exact >= 0 && exact <= 1 && f1 >= exact && f1 <= 1)) abort();
    if (task_text_scores(task_find("gsm8k"), &set, &d, text, 0, number, &e)) abort();
    if ((number[0] != 0 && number[0] != 1) || (number[1] != 0 && number[1] != 1)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const size_t before = mem_now();
    TextBuf out = {0};
    Err e = {0};
    char *text;
    int bos;
    if (mem_strndup(&text, (const char *)data, size, &e)) abort();
    const int rc = chat_render(&out, &bos, text, size & 1 ? "S" : NULL, text, &e);
    if (rc ? !e.msg[0] || strchr(e.msg, '\n') : !out.text) abort();
    textbuf_free(&out);
    score(text);
    mem_free(text);
    if (mem_now() != before) abort();
    return 0;
}
