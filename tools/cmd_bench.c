/* cmd_bench.c - how fast are the ops on this machine; with a model, also its training step, prefill and decoding. */
#include "base/log.h"
#include "io/hf.h"
#include "run/pretrain.h"
#include "tools/bench_decode.h"
#include "tools/bench_ranks.h"
#include "tools/session.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char op[64], teacher[1024], lengths[256];
    int decode;
    int set, repeat, quick, no_ref, csv, batch_size, seq_len, lanes;
} Options;
#define AT(f) offsetof(Options, f)
enum { SET_DEMO = 0, SET_STEPS = 4, SET_SMOLLM2 }; /* as in the choice below */
static const Option rows[] = {
    {"op", "only ops whose name contains this", OPT_TEXT, AT(op), 0, 64, NULL, AFFECTS_EVALUATION},
    {"set",
     "ops at the demo's shapes, at large ones, matrix products only, or all; steps: whole training steps at 6 x 288 "
     "and decoding at "
     "12 x 768; smollm2: steps of a 135M shape",
     OPT_CHOICE, AT(set), 0, 0, "demo|large|matmul|all|steps|smollm2", AFFECTS_EVALUATION},
    {"quick", "fewer and shorter repetitions", OPT_BOOL, AT(quick), 0, 0, NULL, AFFECTS_EVALUATION},
    {"no_ref", "leave out the comparison with ref32", OPT_BOOL, AT(no_ref), 0, 0, NULL, AFFECTS_EVALUATION},
    {"csv", "comma-separated values", OPT_BOOL, AT(csv), 0, 0, NULL, AFFECTS_LOOKS},
    {"batch_size", "sequences of a training step (with -m or --ranks)", OPT_INT, AT(batch_size), 1, 65536, NULL,
     AFFECTS_EVALUATION},
    {"seq_len", "tokens of a sequence (with -m)", OPT_INT, AT(seq_len), 1, 1 << 20, NULL, AFFECTS_EVALUATION},
    {"decode",
     "only decoding with -m: tokens/s and bytes of caches and states against the length of the context; -o DIR: CSV "
     "and SVG too",
     OPT_BOOL, AT(decode), 0, 0, NULL, AFFECTS_LOOKS},
    {"teacher", "a second model, side by side (--decode)", OPT_PATH, AT(teacher), 0, 1024, NULL, AFFECTS_EVALUATION},
    {"lengths", "contexts in tokens (--decode)", OPT_TEXT, AT(lengths), 0, 256, NULL, AFFECTS_EVALUATION},
    {"repeat", "runs of each step (other devices than cpu, with -m; --ranks), tokens decoded at each length (--decode)",
     OPT_INT, AT(repeat), 1, 64, NULL, AFFECTS_EVALUATION},
    {"lanes", "groups of the sequences of a step (--ranks)", OPT_INT, AT(lanes), 1, LANES_MOST, NULL,
     AFFECTS_EVALUATION},
};
static const OptionTable table = {rows, sizeof rows / sizeof *rows};
static const OptionTable *get_table(void) { return &table; }
static void defaults(void *p) {
    Options *o = p;
    o->batch_size = 8;
    o->seq_len = 128;
    o->repeat = 7;
    o->lanes = 8;
    snprintf(o->lengths, sizeof o->lengths, "1024,2048,4096,8192,16384,32768,65536,131072");
}
static const CliOptions options = {get_table, sizeof(Options), defaults, NULL};

/* Other devices than the CPU: only the model's steps, median of `repeat`, each behind a warm-up. */
static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static int step_time(const BenchStep *step, int repeat, int json, Err *e) {
    double t[64];
    TRY(step->run(step->ctx, e));
    for (int k = 0; k < repeat; k++) {
        const double began = log_now();
        TRY(step->run(step->ctx, e));
        t[k] = log_now() - began;
    }
    qsort(t, repeat, sizeof *t, by_value);
    const double median = t[repeat / 2];
    printf(json ? "{\"step\": \"%s\", \"shape\": \"%s\", \"ms\": %.4f, \"tok_per_s\": %.1f, \"gflops\": %.2f}\n"
                : "%-13s %-30s %10.3f ms %12.1f tok/s %10.2f GFLOP/s\n",
           step->name, step->shape, median * 1e3, step->tokens / median, step->flops / median / 1e9);
    return OK;
}
static int steps_time(const BenchStep *step, int n, int repeat, int json, Err *e) {
    for (int i = 0; i < n; i++) {
        int rc = step[i].open(step[i].ctx, e);
        if (!rc) rc = step_time(&step[i], repeat, json, e);
        step[i].close(step[i].ctx);
        if (rc) return rc;
    }
    return OK;
}

/* ---- which steps ---- */

enum { MAX_STEPS = 16 };
typedef struct {
    int n;
    Step step[MAX_STEPS];
    BenchStep row[MAX_STEPS];
} Steps;

static void steps_add(Steps *s, StepKind kind, const Config *c, const char *model, Backend *be, int B, int T,
                      int micro) {
    s->row[s->n] = bench_step(&s->step[s->n], kind, c, model, mixer_find("gdn_v4"), be, B, T, micro);
    s->n++;
}

static int steps_of_model(Steps *s, const Cli *c, Backend *be, Err *e) {
    const Options *o = c->options[0];
    Config config;
    TRY(hf_config(&config, c->common.model, e));
    for (StepKind k = STEP_PRETRAIN; k <= STEP_DECODE; k++)
        steps_add(s, k, &config, c->common.model, be, o->batch_size, o->seq_len, 1);
    return OK;
}

/* The shapes that cpu/SPEED.md gives PyTorch's figures for, and decoding at that of stories110M. */
static void steps_of_shapes(Steps *s, Backend *be) {
    for (int i = 0; i < 4; i++) {
        const Config c = bench_config(288, 6, 6, 6, 768, i / 2 ? 32000 : 4096, 1);
        for (StepKind k = STEP_PRETRAIN; k <= STEP_STAGE2; k++)
            steps_add(s, k, &c, NULL, be, i % 2 ? 4 : 8, i % 2 ? 512 : 256, 1);
        if (i == 0)
            for (StepKind k = STEP_PRETRAIN; k <= STEP_STAGE2; k++) steps_add(s, k, &c, NULL, be, 1, 256, 8);
    }
    const Config c = bench_config(768, 12, 12, 12, 2048, 32000, 1);
    steps_add(s, STEP_DECODE, &c, NULL, be, 1, 256, 1);
}

static void steps_of_smollm2(Steps *s, Backend *be) {
    const Config c = bench_config(576, 30, 9, 3, 1536, 49152, 1);
    for (StepKind k = STEP_PRETRAIN; k <= STEP_DECODE; k++) steps_add(s, k, &c, NULL, be, 1, 512, 1);
}

/* Teacher and hybrid, or the one model there is. */
static int decode_bench(Cli *c, Err *e) {
    const Options *o = c->options[0];
    const char *const dir[2] = {o->teacher[0] ? o->teacher : c->common.model, c->common.model};
    const int models = o->teacher[0] ? 2 : 1;
    DecodeSeries series[2];
    Model m[2] = {{0}};
    Backend *be;
    int length[DECODE_LENGTHS], n = 0;
    TRY(cli_require(c, c->common.model, "-m MODEL", e));
    TRY(list_parse(o->lengths, length, DECODE_LENGTHS, &n, 1, 1 << 24, "lengths", e));
    TRY(cli_backend(c, &be, e));
    int rc = OK;
    for (int k = 0; k < models && !rc; k++) {
        series[k] = (DecodeSeries){.name = models == 2 ? (k ? "hybrid" : "teacher") : "model", .m = &m[k]};
        rc = hf_load_model(&m[k], dir[k], be, GRAD_NONE, e);
        if (!rc) rc = bench_decode_run(&series[k], length, n, o->repeat, &c->progress, e);
    }
    if (!rc)
        rc = bench_decode_print(series, models, length, n,
                                o->csv           ? BENCH_CSV
                                : c->common.json ? BENCH_JSON
                                                 : BENCH_TEXT,
                                stdout, e);
    if (!rc && c->common.output[0]) rc = bench_decode_save(series, models, length, n, c->common.output, e);
    for (int k = 0; k < 2; k++) model_close(&m[k]);
    backend_close(be);
    return rc;
}

/* Stage 2 steps of all ranks against those of one, at the demo's shape, that of SmolLM2-135M or a model's. */
static int ranks_bench(const Cli *c, Err *e) {
    const Options *o = c->options[0];
    const int large = o->set == SET_SMOLLM2, model = c->common.model[0] != 0;
    Backend *be;
    BenchRanks b = {.c = large ? bench_config(576, 30, 9, 3, 1536, 49152, 1) : bench_config(64, 8, 4, 4, 172, 256, 0),
                    .model = model ? c->common.model : NULL,
                    .mixer = mixer_find("gdn_v4"),
                    .lanes = o->lanes,
                    .batch_size = o->batch_size,
                    .seq_len = large && !model ? 512 : o->seq_len,
                    .repeat = o->repeat,
                    .form = o->csv           ? BENCH_CSV
                            : c->common.json ? BENCH_JSON
                                             : BENCH_TEXT};
    if (o->decode || o->op[0] || (o->set != SET_DEMO && !large))
        return cli_require(c, NULL, "--set demo or smollm2, or -m MODEL, without --op and --decode (with --ranks)", e);
    if (model) TRY(hf_config(&b.c, c->common.model, e));
    TRY(cli_backend(c, &be, e));
    const int rc = bench_ranks_run(&b, be, stdout, e);
    backend_close(be);
    return rc;
}

static int bench(Cli *c, Err *e) {
    static const char *const sets[] = {"demo", "large", "matmul", "all", "steps", "steps"};
    const Options *o = c->options[0];
    const int bf16 = !strcmp(c->common.device, "cpu-bf16"), cpu = bf16 || !strcmp(c->common.device, "cpu");
    const int model = c->common.model[0] != 0;
    Backend *be;
    Steps s = {0};
    if (c->ranks || c->common.ranks) return ranks_bench(c, e);
    if (o->decode) return decode_bench(c, e);
    if (!cpu && !model && o->set < SET_STEPS)
        return cli_require(c, NULL, "-m MODEL or --set steps (for another device than cpu and cpu-bf16)", e);
    BenchOptions b = {.op = o->op[0] ? o->op : NULL,
                      .set = sets[o->set],
                      .threads = c->common.threads,
                      .quick = o->quick,
                      .bf16 = bf16,
                      .no_ref = o->no_ref};
    b.form = o->csv ? BENCH_CSV : c->common.json ? BENCH_JSON : BENCH_TEXT;
    TRY(cli_backend(c, &be, e));
    int rc = model ? steps_of_model(&s, c, be, e) : OK;
    if (o->set == SET_STEPS && !model) steps_of_shapes(&s, be);
    if (o->set == SET_SMOLLM2 && !model) steps_of_smollm2(&s, be);
    b.step = s.row, b.n_steps = s.n;
    if (!rc) rc = cpu ? bench_run(&b, stdout, e) : steps_time(s.row, s.n, o->repeat, c->common.json, e);
    backend_close(be);
    return rc;
}

const Command cmd_bench = {
    .name = "bench",
    .summary = "Times ops against what this machine can do; with -m also a model's training steps, prefill "
               "and decoding; with --ranks what a step of several processes waits for and sends.",
    .usage = "[--op OP] [--set demo|large|matmul|all|steps|smollm2] [-m MODEL] [--decode [--teacher MODEL] [-o DIR]] "
             "[--ranks R] [options]",
    .common = CLI_MODEL | CLI_OUTPUT | CLI_SEED | CLI_BACKEND | CLI_JSON | CLI_RANKS,
    .options = {&options},
    .run = bench,
};
