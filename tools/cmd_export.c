/* cmd_export.c - a model directory into a layout that other software loads. */
#include "io/export.h"
#include "tools/cli.h"
#include <stddef.h>

typedef struct {
    int format, dtype, shard_mb;
} Options;
static const Option rows[] = {
    {"format", "the layout", OPT_CHOICE, offsetof(Options, format), 0, 0, "fla|student|qwen3_5|gguf",
     AFFECTS_EVALUATION},
    {"dtype", "number type that matrices are written in; auto: as in the model's config.json", OPT_CHOICE,
     offsetof(Options, dtype), 0, 0, "auto|f32|f16|bf16", AFFECTS_EVALUATION},
    {"shard_mb", "start a new file after so many MiB; 0: one file", OPT_INT, offsetof(Options, shard_mb), 0, 1 << 20,
     NULL, AFFECTS_EVALUATION},
};
static const OptionTable table = {rows, 3};
static const OptionTable *get_table(void) { return &table; }
static const CliOptions options = {get_table, sizeof(Options), NULL, NULL};

static int export(Cli *c, Err *e) {
    static const char *const formats[] = {"fla", "student", "qwen3_5", "gguf"};
    static const DType types[] = {DT_F32, DT_F32, DT_F16, DT_BF16};
    const Options *o = c->options[0];
    Config config;
    TRY(cli_require(c, c->common.model, "-m DIR", e));
    TRY(cli_require(c, c->common.output, "-o OUT", e));
    TRY(hf_config(&config, c->common.model, e));
    const int half = config.dtype == DT_F16 || config.dtype == DT_BF16;
    const ExportOptions x = {.format = formats[o->format],
                             .dtype = o->dtype || !half ? types[o->dtype] : config.dtype,
                             .shard_bytes = (size_t)o->shard_mb << 20};
    return export_model(c->common.model, c->common.output, &x, e);
}

const Command cmd_export = {
    .name = "export",
    .summary = "A model into the layout of other software: exactly, or not at all with the reason.",
    .usage = "--format fla|student|qwen3_5|gguf -m DIR -o OUT [options]",
    .details = "fla: flash-linear-attention (what runs write anyway). student: the official code's converted-hf. "
               "qwen3_5: transformers'\n"
               "Qwen3.5, for Gated DeltaNet students of Qwen3. gguf: one file for llama.cpp (qwen35 for the same "
               "students; llama, qwen2, qwen3\n"
               "for models without linear layers). OUT is a directory, for gguf a file.",
    .common = CLI_MODEL | CLI_OUTPUT,
    .options = {&options},
    .run = export,
};
