/* bench.c - see bench.h. */
#include "tools/bench.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cpu/cpu.h"
#include "ops/bf16.h"
#include "ops/backend.h"
#include "tools/bench_cases.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REPS = 7, REPS_QUICK = 3, MEMORY_FLOATS = 64 << 20 };
static const double REF_LIMIT = 3e9; // above so many operations ref32 takes more than a few seconds

typedef struct {
    const BenchOptions *o;
    FILE *out;
    int threads, reps;
    double rep_s;
    double memory[2]; // bytes a second, on one thread and on all
    size_t fma_rounds;
    int printed;
    double matmul[2][BENCH_MATMULS]; // fractions of the peak, on one thread and on all
    int matmuls;
} Bench;

typedef struct {
    double s, peak;
} Timing; // seconds a call, operations a second from registers just before

static int compare(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}
static double median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, compare);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/* One thread is timed by its own CPU time, which leaves out what other programs took of the core; several by the wall.
 * */
static double clock_now(int threads) {
    if (threads > 1) return log_now();
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double peak_now(const Bench *b, int threads) {
    const double t = clock_now(threads), done = cpu_path()->fma(b->fma_rounds);
    return done / (clock_now(threads) - t);
}

static double memory_speed(int threads, const float *x, int reps) {
    double best = 0;
    volatile float sink;
    cpu_threads(threads);
    for (int i = 0; i < reps; i++) {
        const double t = clock_now(threads);
        sink = cpu_path()->read(x, MEMORY_FLOATS);
        const double v = 4.0 * MEMORY_FLOATS / (clock_now(threads) - t);
        best = v > best ? v : best;
    }
    (void)sink;
    return best;
}

static int memory_measure(Bench *b, Err *e) {
    void *p;
    TRY(mem_alloc(&p, sizeof(float) * MEMORY_FLOATS, "memory to read", e));
    memset(p, 1, sizeof(float) * MEMORY_FLOATS); // every page its own
    b->memory[0] = memory_speed(1, p, b->reps), b->memory[1] = memory_speed(b->threads, p, b->reps);
    mem_free(p);
    return OK;
}

/* One run of `calls` calls; whatever is measured looks like this. */
typedef struct {
    int (*call)(void *what, Err *e);
    void *what;
} Work;

static int work_time(const Work *w, int calls, int threads, double *s, Err *e) {
    const double t = clock_now(threads);
    for (int i = 0; i < calls; i++) TRY(w->call(w->what, e));
    *s = (clock_now(threads) - t) / calls;
    return OK;
}

static int work_measure(const Bench *b, const Work *w, int threads, Timing *out, double *fraction, double flops,
                        Err *e) {
    double s[REPS], f[REPS], peak[REPS], once;
    cpu_threads(threads);
    TRY(work_time(w, 1, threads, &once, e)); // warms up
    TRY(work_time(w, 1, threads, &once, e));
    const int calls = once >= b->rep_s ? 1 : (int)(b->rep_s / (once + 1e-9)) + 1;
    for (int i = 0; i < b->reps; i++) {
        peak[i] = peak_now(b, threads);
        TRY(work_time(w, calls, threads, &s[i], e));
        f[i] = flops / s[i] / peak[i];
    }
    *fraction = median(f, b->reps);
    *out = (Timing){median(s, b->reps), median(peak, b->reps)};
    return OK;
}

/* ---- rows ---- */

typedef struct {
    const char *op, *shape;
    int threads;
    double ms, gflops, peak, of_peak, gbs, of_memory, of_ref, tokens, mib; // 0: not known
} Row;

static void number(FILE *out, BenchForm form, const char *key, double v, const char *format) {
    char text[32] = "";
    if (v > 0) snprintf(text, sizeof text, format, v);
    if (form == BENCH_JSON) fprintf(out, ",\"%s\":%s", key, v > 0 ? text : "null");
    else if (form == BENCH_CSV) fprintf(out, ",%s", text);
    else fprintf(out, " %9s", v > 0 ? text : "-");
}

static void row_print(Bench *b, const Row *r) {
    const BenchForm form = b->o->form;
    FILE *out = b->out;
    if (!b->printed++ && form == BENCH_CSV)
        fputs("op,shape,threads,ms,gflops,fma_gflops,of_fma,gbs,of_memory,times_ref32,tokens_per_s,mib\n", out);
    if (b->printed == 1 && form == BENCH_TEXT)
        fprintf(out, "%-22s %-34s %3s %9s %9s %9s %9s %9s %9s %9s %9s %9s\n", "op", "shape", "thr", "ms", "GFLOP/s",
                "FMA peak", "of peak", "GB/s", "of memory", "x ref32", "tok/s", "MiB");
    if (form == BENCH_JSON) fprintf(out, "{\"op\":\"%s\",\"shape\":\"%s\",\"threads\":%d", r->op, r->shape, r->threads);
    else fprintf(out, form == BENCH_CSV ? "%s,%s,%d" : "%-22s %-34s %3d", r->op, r->shape, r->threads);
    number(out, form, "ms", r->ms, "%.4f");
    number(out, form, "gflops", r->gflops, "%.1f");
    number(out, form, "fma_gflops", r->peak, "%.1f");
    number(out, form, "of_fma", r->of_peak, "%.3f");
    number(out, form, "gbs", r->gbs, "%.2f");
    number(out, form, "of_memory", r->of_memory, "%.3f");
    number(out, form, "times_ref32", r->of_ref, "%.1f");
    number(out, form, "tokens_per_s", r->tokens, "%.0f");
    number(out, form, "mib", r->mib, "%.1f");
    fputs(form == BENCH_JSON ? "}\n" : "\n", out);
    fflush(out);
}

/* ---- one op ---- */

static void case_close(BenchCase *c) {
    for (int i = 0; i < BENCH_BUFFERS; i++) mem_free(c->b[i]);
    mem_free(c->scratch);
    mem_free(c->ids);
}

/* Buffers of small random numbers; gates want negative ones, norms positive ones, and both are met by what the ops do
 * with any. */
static int case_open(const Bench *b, BenchCase *c, Err *e) {
    Rng r;
    void *p;
    rng_seed(&r, 1);
    for (int i = 0; i < BENCH_BUFFERS && c->size[i]; i++) {
        TRY(mem_alloc(&p, c->size[i] * sizeof(float), c->op, e));
        c->b[i] = p;
        for (size_t k = 0; k < c->size[i]; k++) c->b[i][k] = (float)(rng_uniform(&r) - 0.5) * 0.25f;
        if (!b->o->bf16) continue;
        Bf16 *h = p; // all of it, so that it is good as floats, too
        for (size_t k = 0; k < 2 * c->size[i]; k++) h[k] = bf16_round((float)(rng_uniform(&r) - 0.5) * 0.25f);
    }
    TRY(mem_alloc(&c->scratch, c->work, c->op, e));
    TRY(mem_alloc(&p, c->n_ids * sizeof(int), c->op, e));
    c->ids = p;
    for (size_t k = 0; k < c->n_ids; k++) c->ids[k] = (int)rng_below(&r, (uint64_t)c->VOC);
    return OK;
}

typedef struct {
    BenchCase *c;
    const Ops32 *ops;
} OpCall;
static int op_call(void *what, Err *e) {
    const OpCall *o = what;
    (void)e;
    o->c->run(o->ops, o->c);
    return OK;
}

static int case_rows(Bench *b, BenchCase *c, Err *e) {
    // products have the same arguments in both tables, behind the same pointers
    OpCall call = {c, b->o->bf16 ? (const void *)cpu_ops16() : cpu_ops32()};
    const Work work = {op_call, &call};
    double ref_s = 0;
    const int list[2] = {1, b->threads};
    if (!b->o->no_ref && !b->o->bf16 && c->flops < REF_LIMIT) {
        OpCall ref = {c, &ops_ref32};
        const Work w = {op_call, &ref};
        TRY(work_time(&w, 1, 1, &ref_s, e));
    }
    for (int i = 0; i < (b->threads > 1 ? 2 : 1); i++) {
        Timing t;
        double fraction;
        TRY(work_measure(b, &work, list[i], &t, &fraction, c->flops, e));
        const double gbs = b->o->bf16 ? 0 : c->bytes / t.s * 1e-9;
        const Row r = {c->op,
                       c->shape,
                       list[i],
                       t.s * 1e3,
                       c->flops / t.s * 1e-9,
                       t.peak * 1e-9,
                       fraction,
                       gbs,
                       gbs * 1e9 / b->memory[i],
                       ref_s / t.s,
                       0,
                       0};
        row_print(b, &r);
        if (!strcmp(c->sets, "matmul")) b->matmul[i][b->matmuls] = fraction;
    }
    if (!strcmp(c->sets, "matmul")) b->matmuls++;
    return OK;
}

static int case_run(Bench *b, const BenchCase *from, Err *e) {
    BenchCase c = *from;
    c.prepare(&c);
    int rc = case_open(b, &c, e);
    if (!rc) rc = case_rows(b, &c, e);
    case_close(&c);
    return rc;
}

/* ---- the whole ---- */

static int step_rows(Bench *b, const BenchStep *s, Err *e) {
    const Work work = {s->run, s->ctx};
    const int list[2] = {1, b->threads};
    for (int i = 0; i < (b->threads > 1 ? 2 : 1); i++) {
        Timing t;
        double fraction;
        TRY(work_measure(b, &work, list[i], &t, &fraction, s->flops, e));
        const double gbs = s->bytes / t.s;
        const Row r = {.op = s->name,
                       .shape = s->shape,
                       .threads = list[i],
                       .ms = t.s * 1e3,
                       .gflops = s->flops / t.s * 1e-9,
                       .peak = t.peak * 1e-9,
                       .of_peak = fraction,
                       .gbs = gbs * 1e-9,
                       .of_memory = gbs / b->memory[i],
                       .tokens = s->tokens / t.s,
                       .mib = (double)mem_peak() / (1 << 20)};
        row_print(b, &r);
    }
    return OK;
}

static int step_run(Bench *b, const BenchStep *s, Err *e) {
    int rc = s->open ? s->open(s->ctx, e) : OK;
    mem_peak_reset(); // making random weights takes more than using them
    if (!rc) rc = step_rows(b, s, e);
    if (s->close) s->close(s->ctx);
    return rc;
}

static int wanted(const Bench *b, const char *op, const char *sets) {
    const char *set = b->o->set ? b->o->set : "demo";
    return strstr(sets, set) && (!b->o->op || strstr(op, b->o->op));
}

static void matmul_print(Bench *b) {
    if (b->o->form != BENCH_TEXT || !b->matmuls) return;
    for (int i = 0; i < (b->threads > 1 ? 2 : 1); i++) {
        const double middle = median(b->matmul[i], b->matmuls);
        fprintf(b->out, "%d products on %d thread(s): median %.3f of the peak, least %.3f, most %.3f\n", b->matmuls,
                i ? b->threads : 1, middle, b->matmul[i][0], b->matmul[i][b->matmuls - 1]);
    }
}

static int ceilings_print(const Bench *b, Err *e) {
    char paths[128];
    if (b->o->form != BENCH_TEXT) return OK;
    TRY(backend_paths(paths, sizeof paths, e));
    fprintf(b->out, "%s\n%d threads; memory read %.1f GB/s on one, %.1f on all\n", paths, b->threads,
            b->memory[0] * 1e-9, b->memory[1] * 1e-9);
    return OK;
}

static int bench_rows(const BenchOptions *o, FILE *out, Err *e) {
    static const char *const sets[] = {"demo", "large", "matmul", "all", "steps"};
    const char *set = o->set ? o->set : "demo";
    int known = 0;
    for (int i = 0; i < 5; i++) known |= !strcmp(set, sets[i]);
    if (!known) return err_set(e, ERR_USAGE, "bench: set: got %.40s, expected demo, large, matmul, all or steps", set);
    if (o->bf16 && strcmp(set, "matmul") && strcmp(set, "steps"))
        return err_set(e, ERR_USAGE, "bench: set: got %.40s on cpu-bf16, expected matmul, steps or smollm2", set);
    Bench b = {.o = o,
               .out = out,
               .threads = cpu_threads(o->threads),
               .reps = o->quick ? REPS_QUICK : REPS,
               .rep_s = o->quick ? 2e-3 : 10e-3,
               .fma_rounds = o->quick ? 50000 : 200000};
    TRY(memory_measure(&b, e));
    TRY(ceilings_print(&b, e));
    for (int i = 0; i < bench_case_count; i++)
        if (wanted(&b, bench_cases[i].op, bench_cases[i].sets)) TRY(case_run(&b, &bench_cases[i], e));
    for (int i = 0; i < BENCH_MATMULS; i++) {
        const BenchCase c = bench_matmul(i);
        if (wanted(&b, c.op, c.sets)) TRY(case_run(&b, &c, e));
    }
    matmul_print(&b);
    for (int i = 0; i < o->n_steps; i++)
        if (wanted(&b, o->step[i].name, "demo large all steps")) TRY(step_run(&b, &o->step[i], e));
    if (!b.printed)
        return err_set(e, ERR_USAGE, "bench: op: got %.40s, expected (a part of) an op's name in the set %s",
                       o->op ? o->op : "", set);
    if (fflush(out) || ferror(out)) return err_set(e, ERR_IO, "bench: writing the table failed");
    return OK;
}

int bench_run(const BenchOptions *o, FILE *out, Err *e) {
    cpu_threads(o->threads);
    cpu_pin(1);
    const int rc = bench_rows(o, out, e);
    cpu_threads(o->threads);
    cpu_pin(0);
    return rc;
}
