/* bench_model.c - see bench_model.h. */
#include "bench_model.h"
#include <stdio.h>
#include <stdlib.h>
#include "base/log.h"
#include "run/memory.h"
#include "method/transfer.h"
#include "tools/bench_steps.h"

typedef struct {
    const char *name;
    Config c;
    StepKind kind;
    int B, T;
    double target; /* tokens a second on an H200; 0: none */
} Row;

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static int median_seconds(const BenchStep *s, Backend *be, int repeat, double *median, Err *e) {
    double t[8];
    TRY(s->run(s->ctx, e));
    TRY(be->sync(be, e));
    for (int i = 0; i < repeat; i++) {
        const double began = log_now();
        TRY(s->run(s->ctx, e));
        TRY(be->sync(be, e));
        t[i] = log_now() - began;
    }
    qsort(t, (size_t)repeat, sizeof *t, by_value);
    *median = t[repeat / 2];
    return OK;
}

/* What the step will hold, counted as a run counts it. */
static int plan(MemoryPlan *p, Backend *be, const Row *r, Err *e) {
    Config student;
    int mixer[MAX_LAYERS];
    const StageOptions o = {.batch_size = r->B, .micro_batch_size = r->B, .train_seq_len = r->T};
    const int stage1 = r->kind == STEP_STAGE1;
    for (int l = 0; l < r->c.L; l++) mixer[l] = mixer_find("gdn_v4");
    TRY(transfer_config(&student, &r->c, mixer, e));
    TRY(memory_frozen(p, be, &r->c, GRAD_NONE, "teacher's weights", "teacher's activations", r->B, r->T, e));
    TRY(memory_trained(p, be, &student, stage1 ? GRAD_MIXERS : GRAD_ALL, &o, stage1, stage1 ? -1 : r->c.C, e));
    return memory_check(p, be, r->name, e);
}

static int row_run(const Row *r, Backend *be, void (*fill)(void *, size_t), double matrix_rate, int repeat, Err *e) {
    Step step;
    MemoryPlan p = {0};
    double seconds = 0;
    char table[512];
    TRY(plan(&p, be, r, e));
    const size_t before = be->free_memory ? be->free_memory(be) : 0;
    const BenchStep s = bench_step(&step, r->kind, &r->c, NULL, mixer_find("gdn_v4"), be, r->B, r->T, 1);
    step.fill = fill;
    int rc = s.open(s.ctx, e);
    const size_t held = before - (be->free_memory ? be->free_memory(be) : 0);
    if (!rc) rc = median_seconds(&s, be, repeat, &seconds, e);
    s.close(s.ctx);
    if (rc) return rc;
    const double rate = s.tokens / seconds, limit = s.tokens / (s.flops / matrix_rate);
    printf("%-14s %-13s %-34s %9.1f ms %9.0f tokens/s  limit %9.0f  %5.1f %%", r->name, s.name, s.shape, seconds * 1e3,
           rate, limit, 100 * rate / limit);
    if (r->target > 0) printf("  target %9.0f %s", r->target, rate >= r->target ? "reached" : "-");
    memory_text(&p, table, sizeof table);
    printf("\n  held %.2f GB, counted %s\n", (double)held / 1e9, table);
    fflush(stdout);
    return OK;
}

static const struct {
    const char *label, *name;
    StepKind kind;
    int B, T;
    double target;
} large[] = {{"Qwen2.5-3B stage 1", "Qwen2.5-3B", STEP_STAGE1, 32, 512, 52000},
             {"Qwen2.5-3B stage 2", "Qwen2.5-3B", STEP_STAGE2, 4, 4096, 17000},
             {"Llama-3.2-3B stage 1", "Llama-3.2-3B", STEP_STAGE1, 32, 512, 0},
             {"Llama-3.2-3B stage 2", "Llama-3.2-3B", STEP_STAGE2, 4, 4096, 0}},
  tiny[] = {{"tiny stage 1", "tiny", STEP_STAGE1, 2, 10, 1}, {"tiny stage 2", "tiny", STEP_STAGE2, 2, 10, 1}};
int bench_model_count(int small) { return small ? 2 : 4; }
const char *bench_model_name(int small, int i) { return small ? tiny[i].label : large[i].label; }

int bench_model(Backend *be, int small, int i, void (*fill)(void *p, size_t bytes), double matrix_rate, Err *e) {
    Row r = {.name = small ? tiny[i].name : large[i].name,
             .c = small   ? bench_config(32, 2, 2, 1, 48, 50, 1)
                  : i < 2 ? bench_config(2048, 36, 16, 2, 11008, 151936, 1)
                          : bench_config(3072, 28, 24, 8, 8192, 128256, 1),
             .kind = small ? tiny[i].kind : large[i].kind,
             .B = small ? tiny[i].B : large[i].B,
             .T = small ? tiny[i].T : large[i].T,
             .target = small ? tiny[i].target : large[i].target};
    for (;; r.B /= 2, r.target = 0) { // the target is the first shape's
        *e = (Err){0};
        const int rc = row_run(&r, be, fill, matrix_rate, small ? 1 : 3, e);
        if (rc) printf("%-14s B %d T %d: %s\n", r.name, r.B, r.T, e->msg);
        if (rc != ERR_MEMORY || r.B == 1) return rc;
    }
}

/* calls[0], [1]: launches, and copies with fills, of one step of a model of L layers. */
static int calls_of(StepKind kind, int linear, int L, Backend *be,
                    void (*count)(unsigned long long *, unsigned long long *), double *calls, Err *e) {
    Config c = bench_config(256, L, 2, 1, 96, 64, 1);
    Step step;
    unsigned long long before[2], after[2];
    for (int l = 0; l < L && linear; l++) c.mixer[l] = mixer_find("gdn_v4");
    const BenchStep s = bench_step(&step, kind, &c, NULL, mixer_find("gdn_v4"), be, 1, 64, 1);
    int rc = s.open(s.ctx, e);
    for (int i = 0; i < 2 && !rc; i++) rc = s.run(s.ctx, e); // the second token is the one that a graph is made of
    count(&before[0], &before[1]);
    if (!rc) rc = s.run(s.ctx, e);
    count(&after[0], &after[1]);
    s.close(s.ctx);
    for (int i = 0; i < 2; i++) calls[i] = (double)(after[i] - before[i]);
    return rc;
}

int bench_launches(Backend *be, void (*count)(unsigned long long *launches, unsigned long long *copies), Err *e) {
    static const struct {
        const char *name;
        StepKind kind;
        int linear, B, T, no_graph;
    } row[] = {{"decode, softmax", STEP_DECODE, 0, 1, 1, 0},
               {"decode, linear", STEP_DECODE, 1, 1, 1, 1},
               {"decode, linear, graph", STEP_DECODE, 1, 1, 1, 0},
               {"stage 1, 32 x 512", STEP_STAGE1, 0, 32, 512, 0},
               {"stage 2, 4 x 4096", STEP_STAGE2, 0, 4, 4096, 0}};
    printf("%-22s %28s %28s %22s %12s\n", "step", "launches: fixed + a layer", "copies, fills: same",
           "36 layers, 4 us each", "roofline");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const Config qwen = bench_config(2048, 36, 16, 2, 11008, 151936, 1);
        Step step;
        double one[2], two[2], all = 0;
        void (*const record)(Backend * b) = be->record_begin;
        if (row[i].no_graph) be->record_begin = NULL;
        TRY(calls_of(row[i].kind, row[i].linear, 1, be, count, one, e));
        TRY(calls_of(row[i].kind, row[i].linear, 2, be, count, two, e));
        be->record_begin = record;
        for (int k = 0; k < 2; k++) all += one[k] + 35 * (two[k] - one[k]);
        const BenchStep s =
            bench_step(&step, row[i].kind, &qwen, NULL, mixer_find("gdn_v4"), be, row[i].B, row[i].T, 1);
        const double least = row[i].kind == STEP_DECODE ? (double)params_count(&qwen) * 2 / 4.07e12 : s.flops / 790e12;
        printf("%-22s %18.0f + %-7.0f %18.0f + %-7.0f %9.0f %9.2f ms %9.2f ms\n", row[i].name, 2 * one[0] - two[0],
               two[0] - one[0], 2 * one[1] - two[1], two[1] - one[1], all, all * 4e-3, least * 1e3);
    }
    return OK;
}
