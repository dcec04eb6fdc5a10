/* cmd_gradcheck.c - any op, any backend, any shape, against the float64 reference and finite differences. */
#include "tools/cli.h"
#include "tools/opcheck.h"
#include <stddef.h>

typedef struct {
    char op[64], backend[64], shape[256], regime[64], dump[1024], pack[1024], load[1024], lib[1024], symbol[256],
        dtype[16];
    int list;
} Options;
#define AT(f) offsetof(Options, f)
static const Option rows[] = {
    {"op", "one op; empty: all (--list names them)", OPT_TEXT, AT(op), 0, 64, NULL, AFFECTS_EVALUATION},
    {"backend", "backend to check; all: ref64, ref32, cpu", OPT_TEXT, AT(backend), 0, 64, NULL, AFFECTS_EVALUATION},
    {"shape", "one case like N=5,I=7,O=6; empty: the op's own cases", OPT_TEXT, AT(shape), 0, 256, NULL,
     AFFECTS_EVALUATION},
    {"regime", "name of inputs and sizes that kernels go wrong on; all: every one", OPT_TEXT, AT(regime), 0, 64, NULL,
     AFFECTS_EVALUATION},
    {"dump", "write the cases to this folder: inputs, float64 results, tolerances", OPT_PATH, AT(dump), 0, 1024, NULL,
     AFFECTS_EVALUATION},
    {"pack", "write the conformance pack to this folder, its list to stdout", OPT_PATH, AT(pack), 0, 1024, NULL,
     AFFECTS_EVALUATION},
    {"load", "judge the tensors in this safetensors file", OPT_PATH, AT(load), 0, 1024, NULL, AFFECTS_EVALUATION},
    {"lib", "check functions of this shared library", OPT_PATH, AT(lib), 0, 1024, NULL, AFFECTS_EVALUATION},
    {"symbol", "names of the functions in --lib: forward, or forward,backward", OPT_TEXT, AT(symbol), 0, 256, NULL,
     AFFECTS_EVALUATION},
    {"dtype", "number type of --load and --lib: float64, float32, bfloat16", OPT_TEXT, AT(dtype), 0, 16, NULL,
     AFFECTS_EVALUATION},
    {"list", "list ops, their shapes and regimes, and stop", OPT_BOOL, AT(list), 0, 0, NULL, AFFECTS_LOOKS},
};
static const OptionTable table = {rows, sizeof rows / sizeof *rows};
static const OptionTable *get_table(void) { return &table; }
static void defaults(void *p) { snprintf(((Options *)p)->backend, sizeof((Options *)p)->backend, "all"); }
static const CliOptions options = {get_table, sizeof(Options), defaults, NULL};

static const char *given(const char *text) { return text[0] ? text : NULL; }

static int gradcheck(Cli *c, Err *e) {
    const Options *o = c->options[0];
    const GradcheckOptions g = {.op = given(o->op),
                                .backend = o->backend,
                                .shape = given(o->shape),
                                .regime = given(o->regime),
                                .dump = given(o->dump),
                                .pack = given(o->pack),
                                .load = given(o->load),
                                .lib = given(o->lib),
                                .symbol = given(o->symbol),
                                .dtype = given(o->dtype),
                                .seed = c->common.seed,
                                .json = c->common.json,
                                .list = o->list,
                                .verbose = c->common.verbose};
    return gradcheck_run(&g, stdout, e);
}

const Command cmd_gradcheck = {
    .name = "gradcheck",
    .summary = "Checks ops, forward and gradient: against finite differences, a second formulation, and the float64 "
               "reference.",
    .usage = "[--op OP] [--backend NAME] [--shape N=5,I=7,...] [--regime NAME] [--dump DIR | --load FILE | --lib LIB "
             "--symbol F] [options]",
    .details =
        "A program of yours: --dump writes inputs and float64 results as safetensors; write what you compute from "
        "them under the same names, with the metadata copied, and --load says of every tensor how far it is, "
        "where, and what may be wrong. --lib runs a C function with the op's signature.\n"
        "Exit code 1 when anything is outside its tolerance. -v prints every case, otherwise the worst of each "
        "tensor is shown.",
    .common = CLI_SEED | CLI_JSON,
    .options = {&options},
    .run = gradcheck,
};
