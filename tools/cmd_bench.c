/* cmd_bench.c - how fast are the ops on this machine; with a model, also its training step, prefill and decoding. */
#include "base/mem.h"
#include "io/hf.h"
#include "method/loss.h"
#include "model/generate.h"
#include "tools/bench.h"
#include "tools/session.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char op[64];
    int set, repeat, quick, no_ref, csv, batch_size, seq_len;
} Options;
#define AT(f) offsetof(Options, f)
static const Option rows[] = {
    {"op", "only ops whose name contains this", OPT_TEXT, AT(op), 0, 64, NULL, 0},
    {"set", "shapes: of the demo, large ones, matrix products only, or all", OPT_CHOICE, AT(set), 0, 0,
     "demo|large|matmul|all", 0},
    {"quick", "fewer and shorter repetitions", OPT_BOOL, AT(quick), 0, 0, NULL, 0},
    {"no_ref", "leave out the comparison with ref32", OPT_BOOL, AT(no_ref), 0, 0, NULL, 0},
    {"csv", "comma-separated values", OPT_BOOL, AT(csv), 0, 0, NULL, 1},
    {"batch_size", "sequences a training step (with -m)", OPT_INT, AT(batch_size), 1, 65536, NULL, 0},
    {"seq_len", "tokens a sequence (with -m)", OPT_INT, AT(seq_len), 1, 1 << 20, NULL, 0},
    {"repeat", "runs of each step (other devices than cpu, with -m)", OPT_INT, AT(repeat), 1, 64, NULL, 0},
};
static const OptionTable table = {rows, sizeof rows / sizeof *rows};
static const OptionTable *get_table(void) { return &table; }
static void defaults(void *p) {
    Options *o = p;
    o->batch_size = 8;
    o->seq_len = 128;
    o->repeat = 7;
}
static const CliOptions options = {get_table, sizeof(Options), defaults, NULL};

/* ---- whole steps of a model ---- */

typedef struct {
    Backend *be;
    Model m;
    Pass pass;
    Loss loss;
    Decode decode;
    int *ids;
} Steps;

static int train_step(void *ctx, Err *e) {
    Steps *s = ctx;
    double value;
    TRY(pass_input(&s->pass, &s->m, s->ids, NULL, e));
    model_forward(&s->m, &s->pass);
    TRY(loss_xent(&s->loss, &s->m, &s->pass, s->ids, NULL, 1, &value, NULL, NULL, e));
    model_backward(&s->m, &s->pass, s->loss.dh);
    return s->be->sync(s->be, e);
}
static int prefill_step(void *ctx, Err *e) {
    Steps *s = ctx;
    decode_reset(&s->decode);
    return decode_extend(&s->decode, s->ids, s->pass.T, NULL, e);
}
static int decode_step(void *ctx, Err *e) {
    Steps *s = ctx;
    if (s->decode.past + 1 > s->decode.capacity) TRY(prefill_step(ctx, e));
    return decode_extend(&s->decode, s->ids, 1, NULL, e);
}

static int steps_open(Steps *s, const Cli *c, Err *e) {
    const Options *o = c->options[0];
    const int N = o->batch_size * o->seq_len;
    void *p;
    TRY(cli_backend(c, &s->be, e));
    TRY(hf_load_model(&s->m, c->common.model, s->be, GRAD_ALL, e));
    TRY(pass_open(&s->pass, &s->m, o->batch_size, o->seq_len, PASS_TRAIN, e));
    TRY(loss_open(&s->loss, &s->m, 0, N, e));
    TRY(decode_open(&s->decode, &s->m, 1, 2 * o->seq_len, o->seq_len, e));
    TRY(mem_alloc(&p, (size_t)N * sizeof(int), "ids", e));
    s->ids = p;
    Rng r;
    rng_seed(&r, c->common.seed);
    for (int n = 0; n < N; n++) s->ids[n] = (int)rng_below(&r, s->m.c.VOC);
    return OK;
}
static void steps_close(Steps *s) {
    mem_free(s->ids);
    decode_close(&s->decode);
    loss_close(&s->loss);
    pass_close(&s->pass);
    model_close(&s->m);
    backend_close(s->be);
}

/* Other devices than the CPU: only the model's steps, median of `repeat`, each behind a warm-up. */
static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static int steps_time(const BenchStep *step, int n, int repeat, int json, Err *e) {
    double t[64];
    for (int i = 0; i < n; i++) {
        TRY(step[i].run(step[i].ctx, e));
        for (int k = 0; k < repeat; k++) {
            const double began = log_now();
            TRY(step[i].run(step[i].ctx, e));
            t[k] = log_now() - began;
        }
        qsort(t, repeat, sizeof *t, by_value);
        const double median = t[repeat / 2];
        printf(json ? "{\"step\": \"%s\", \"shape\": \"%s\", \"ms\": %.4f, \"tok_per_s\": %.1f, \"gflops\": "
                      "%.2f}\n"
                    : "%-11s %-14s %10.3f ms %12.1f tok/s %10.2f GFLOP/s\n",
               step[i].name, step[i].shape, median * 1e3, step[i].tokens / median,
               step[i].flops / median / 1e9);
    }
    return OK;
}

static int bench(Cli *c, Err *e) {
    static const char *const sets[] = {"demo", "large", "matmul", "all"};
    const Options *o = c->options[0];
    const int cpu = !strcmp(c->common.device, "cpu"), model = c->common.model[0] != 0;
    Steps s = {0};
    char shape[64];
    if (!cpu && !model) return cli_require(c, NULL, "-m MODEL (for another device than cpu)", e);
    BenchOptions b = {.op = o->op[0] ? o->op : NULL,
                      .set = sets[o->set],
                      .threads = c->common.threads,
                      .quick = o->quick,
                      .no_ref = o->no_ref};
    b.form = o->csv ? BENCH_CSV : c->common.json ? BENCH_JSON : BENCH_TEXT;
    int rc = model ? steps_open(&s, c, e) : OK;
    const double N = (double)o->batch_size * o->seq_len, P = s.m.be ? (double)params_count(&s.m.c) : 0;
    snprintf(shape, sizeof shape, "B=%d T=%d", o->batch_size, o->seq_len);
    // Useful operations by count of parameters: 2 forward and 4 backward for each and every token.
    const BenchStep steps[] = {{"train step", shape, N, 6 * P * N, train_step, &s},
                               {"prefill", shape, o->seq_len, 2 * P * o->seq_len, prefill_step, &s},
                               {"decode", "1 token", 1, 2 * P, decode_step, &s}};
    if (model) b.step = steps, b.n_steps = 3;
    if (!rc) rc = cpu ? bench_run(&b, stdout, e) : steps_time(steps, 3, o->repeat, c->common.json, e);
    steps_close(&s);
    return rc;
}

const Command cmd_bench = {
    .name = "bench",
    .summary = "Times ops against what this machine can do; with -m also a model's training step, prefill "
               "and decoding.",
    .usage = "[--op OP] [--set demo|large|matmul|all] [-m MODEL] [options]",
    .common = CLI_MODEL | CLI_SEED | CLI_BACKEND | CLI_JSON,
    .options = {&options},
    .run = bench,
};
