/* test_fuzz.c - every fuzz target over its corpus, without libFuzzer: testdata/fuzz/NAME.pack, and the files with a
 * verdict in their name. */
#define LLVMFuzzerTestOneInput fuzz_chat
#define score                  fuzz_chat_score
#include "tests/suite.h"
#include "tests/fuzz_chat.c"
#undef score
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_checkpoint
#include "tests/suite.h"
#include "tests/fuzz_checkpoint.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_config
#include "tests/fuzz_config.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_encode
#include "tests/fuzz_encode.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_gguf
#include "tests/fuzz_gguf.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_json
#include "tests/fuzz_json.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_safetensors
#include "tests/fuzz_safetensors.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_shard
#include "tests/fuzz_shard.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_text
#define use                    fuzz_text_use
#include "tests/fuzz_text.c"
#undef use
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_tokenizer
#include "tests/fuzz_tokenizer.c"
#undef LLVMFuzzerTestOneInput
#include "tests/fuzz_pack.h"
#include <signal.h>

static const struct {
    const char *name, *dir;
    int (*run)(const unsigned char *data, size_t size);
} target[] = {
    {"chat", NULL, fuzz_chat},
    {"checkpoint", "testdata/hostile/ckpt", fuzz_checkpoint},
    {"config", NULL, fuzz_config},
    {"encode", "testdata/hostile/json", fuzz_encode},
    {"gguf", "testdata/hostile/gguf", fuzz_gguf},
    {"json", "testdata/hostile/json", fuzz_json},
    {"safetensors", "testdata/st", fuzz_safetensors},
    {"shard", "testdata/hostile/shard", fuzz_shard},
    {"text", NULL, fuzz_text},
    {"tokenizer", "testdata/hostile/tok", fuzz_tokenizer},
};

static char now[600]; // the input that is running, for the one line before the end

static void died(int number) {
    (void)!write(2, now, strlen(now));
    signal(number, SIG_DFL);
    raise(number);
}

static void run(int k, const unsigned char *data, size_t n, const char *from, size_t number) {
    unsigned char *copy = malloc(n + !n); // exactly its size: the address sanitizer guards its end
    ck_assert_ptr_nonnull(copy);
    if (n) memcpy(copy, data, n);
    snprintf(now, sizeof now, "fuzz_%s died of %s, input %zu\n", target[k].name, from, number);
    target[k].run(copy, n);
    free(copy);
}

static size_t run_pack(int k) {
    char path[200];
    File f;
    Err e = {0};
    const unsigned char *data;
    size_t at = 0, n, count = 0;
    snprintf(path, sizeof path, "testdata/fuzz/%s.pack", target[k].name);
    ck_assert_msg(!file_open(&f, path, &e), "%s", e.msg);
    for (int more; (more = pack_next(&f, &at, &data, &n)); count++) {
        ck_assert_msg(more > 0, "%s is damaged", path);
        run(k, data, n, path, count);
    }
    file_close(&f);
    return count;
}

static size_t run_dir(int k, const char *dir) {
    char **names, path[300];
    size_t n;
    Err e = {0};
    ck_assert_msg(!file_list(&names, &n, dir, &e), "%s", e.msg);
    for (size_t i = 0; i < n; i++) {
        File f;
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        ck_assert_msg(!file_open(&f, path, &e), "%s", e.msg);
        if (f.size < 100000) run(k, f.data, f.size, path, i);
        file_close(&f);
    }
    file_list_free(names, n);
    return n;
}

START_TEST(test_replay) {
    signal(SIGABRT, died);
    signal(SIGSEGV, died);
    const size_t packed = run_pack(_i), files = target[_i].dir ? run_dir(_i, target[_i].dir) : 0;
    ck_assert_uint_ge(packed, 20);
    printf("fuzz_%s: %zu + %zu inputs\n", target[_i].name, packed, files);
}
END_TEST

SUITE("fuzz") {
    GROUP("replay", .timeout = 120);
    CASE(test_replay, .times = sizeof target / sizeof *target);
}
