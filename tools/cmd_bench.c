/* cmd_bench.c - how fast are the ops on this machine. */
#include "tools/cli.h"
#include "tools/opcheck.h"
#include <stddef.h>

typedef struct {
    char op[64], shape[256];
    int repeat;
} Options;
#define AT(f) offsetof(Options, f)
static const Option rows[] = {
    {"op", "one op; empty: all", OPT_TEXT, AT(op), 0, 64, NULL, 0},
    {"shape", "one case like N=512,I=64,O=64; empty: the op's own", OPT_TEXT, AT(shape), 0, 256, NULL, 0},
    {"repeat", "runs of each; 0: at least 5 runs and 0.3 s", OPT_INT, AT(repeat), 0, 1 << 20, NULL, 0},
};
static const OptionTable table = {rows, sizeof rows / sizeof *rows};
static const OptionTable *get_table(void) { return &table; }
static const CliOptions options = {get_table, sizeof(Options), NULL, NULL};

static int bench(Cli *c, Err *e) {
    const Options *o = c->options[0];
    const OpbenchOptions b = {.op = o->op[0] ? o->op : NULL, .backend = c->common.device, .shape = o->shape[0] ? o->shape : NULL,
                              .threads = c->common.threads, .repeat = o->repeat, .seed = c->common.seed, .json = c->common.json};
    return opbench_run(&b, stdout, e);
}

const Command cmd_bench = {
    .name = "bench",
    .summary = "Times every op in both directions: median and spread, GFLOP/s, GB/s.",
    .usage = "[--op OP] [--shape N=512,...] [options]",
    .common = CLI_SEED | CLI_BACKEND | CLI_JSON,
    .options = {&options},
    .run = bench,
};
