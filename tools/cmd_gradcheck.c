/* cmd_gradcheck.c - any op, any backend, any shape, against the float64 reference and finite differences. */
#include "tools/cli.h"
#include "tools/opcheck.h"
#include <stddef.h>

typedef struct {
    char op[64], backend[64], shape[256], regime[64];
    int list;
} Options;
#define AT(f) offsetof(Options, f)
static const Option rows[] = {
    {"op", "one op; empty: all (--list names them)", OPT_TEXT, AT(op), 0, 64, NULL, AFFECTS_EVALUATION},
    {"backend", "the one to check; all: ref64, ref32, cpu", OPT_TEXT, AT(backend), 0, 64, NULL, AFFECTS_EVALUATION},
    {"shape", "one case like N=5,I=7,O=6; empty: the op's own cases", OPT_TEXT, AT(shape), 0, 256, NULL,
     AFFECTS_EVALUATION},
    {"regime", "inputs and sizes that kernels go wrong on, by name; all: every one", OPT_TEXT, AT(regime), 0, 64, NULL,
     AFFECTS_EVALUATION},
    {"list", "only list ops and cases", OPT_BOOL, AT(list), 0, 0, NULL, AFFECTS_LOOKS},
};
static const OptionTable table = {rows, sizeof rows / sizeof *rows};
static const OptionTable *get_table(void) { return &table; }
static void defaults(void *p) { snprintf(((Options *)p)->backend, sizeof((Options *)p)->backend, "all"); }
static const CliOptions options = {get_table, sizeof(Options), defaults, NULL};

static int gradcheck(Cli *c, Err *e) {
    const Options *o = c->options[0];
    const GradcheckOptions g = {.op = o->op[0] ? o->op : NULL,
                                .backend = o->backend,
                                .shape = o->shape[0] ? o->shape : NULL,
                                .regime = o->regime[0] ? o->regime : NULL,
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
    .usage = "[--op OP] [--backend NAME] [--shape N=5,I=7,...] [options]",
    .details = "Exit code 1 when anything is outside its tolerance. -v prints every case, otherwise the worst of each "
               "tensor is shown.",
    .common = CLI_SEED | CLI_JSON,
    .options = {&options},
    .run = gradcheck,
};
