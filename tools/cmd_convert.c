/* cmd_convert.c - a GGUF file of llama.cpp to a Hugging Face model directory. */
#include "io/gguf_model.h"
#include "tools/cli.h"
#include <stddef.h>
#include <string.h>

typedef struct {
    char from_gguf[1024];
    int dtype, shard_mb;
} Options;
static const Option rows[] = {
    {"from_gguf", "the file to read", OPT_PATH, offsetof(Options, from_gguf), 0, 1024, NULL, AFFECTS_EVALUATION},
    {"dtype", "number type that matrices and norms are written in", OPT_CHOICE, offsetof(Options, dtype), 0, 0,
     "f32|f16|bf16", AFFECTS_EVALUATION},
    {"shard_mb", "start a new file after so many MiB; 0: one file", OPT_INT, offsetof(Options, shard_mb), 0, 1 << 20,
     NULL, AFFECTS_EVALUATION},
};
static const OptionTable table = {rows, 3};
static const OptionTable *get_table(void) { return &table; }
static const CliOptions options = {get_table, sizeof(Options), NULL, NULL};

static int convert(Cli *c, Err *e) {
    static const DType types[] = {DT_F32, DT_F16, DT_BF16};
    const Options *o = c->options[0];
    char list[200], line[400];
    GgufModel m;
    TRY(cli_require(c, o->from_gguf, "--from-gguf FILE", e));
    TRY(cli_require(c, c->common.output, "-o DIR", e));
    TRY(gguf_model_open(&m, o->from_gguf, e));
    gguf_model_types(&m, list, sizeof list);
    snprintf(line, sizeof line, "%s, %zu parameters; tensors: %s", m.config.family, params_count(&m.config), list);
    cli_note(c, line);
    if (m.unread[0]) {
        char note[600];
        snprintf(note, sizeof note, "warning: not read, and not known to be without effect: %s", m.unread);
        cli_note(c, note);
    }
    const HfSaveOptions save = {.dtype = types[o->dtype], .shard_bytes = (size_t)o->shard_mb << 20};
    const int rc = gguf_model_save(&m, c->common.output, &save, e);
    gguf_model_close(&m);
    return rc;
}

const Command cmd_convert = {
    .name = "convert",
    .summary = "A GGUF file of llama.cpp (Llama, Qwen2, Qwen3) to a Hugging Face model directory, dequantised, "
               "tokenizer included.",
    .usage = "--from-gguf FILE -o DIR [options]",
    .details = "Reads GGUF 2 and 3 with tensors of type F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K and Q6_K. "
               "The weights\n"
               "are what the quantised numbers stand for, in float32 exactly; the precision that quantising took is "
               "not coming back.",
    .common = CLI_OUTPUT,
    .options = {&options},
    .run = convert,
};
