/* bench_ranks.c - see bench_ranks.h. */
#include "tools/bench_ranks.h"
#include "base/log.h"
#include "base/mem.h"
#include "method/train.h"

/* What one rank reports; times are of one step. */
typedef struct {
    double seconds, waited, under_way, loss;
    LanesCost sent, formula; /* sent: in all steps that count */
} Row;

typedef struct {
    const BenchRanks *o;
    Ranks *all; /* also those that do not take part */
    Step step;
    float *weight; /* (B T) */
    double began;
    Ranks before; /* its counters when the first step that counts began */
    Row row;
} Loop;

static int loop_gradients(void *ctx, int64_t step, int micro, double scale, double *loss, int64_t *tokens, Err *e) {
    Loop *l = ctx;
    const int N = l->step.B * l->step.T;
    (void)step, (void)micro;
    for (int n = 0; n < N; n++) l->weight[n] = (float)(scale / N);
    TRY(bench_stage2(&l->step, l->weight, loss, e));
    *loss /= scale;
    *tokens = N;
    return OK;
}

static int loop_watch(void *ctx, Train *t, Err *e) {
    Loop *l = ctx;
    const Ranks none = {0}, *r = t->lanes.ranks ? t->lanes.ranks : &none;
    const double now = log_now(), steps = (double)t->steps - 1;
    (void)e;
    if (l->all && !t->lanes.ranks) l->all->alive(l->all); // the others wait for this one
    if (t->step == 1) l->began = now, l->before = *r;
    if (t->step < t->steps) return OK;
    l->row = (Row){.seconds = (now - l->began) / steps,
                   .waited = (r->waited - l->before.waited) / steps,
                   .under_way = (r->under_way - l->before.under_way) / steps,
                   .loss = t->loss,
                   .sent = {r->bytes - l->before.bytes, r->messages - l->before.messages},
                   .formula = lanes_cost(t->task->model, t->lanes.lanes, t->lanes.numbers, ranks_count(t->lanes.ranks),
                                         ranks_index(t->lanes.ranks))};
    return OK;
}

static int loop_train(Loop *l, const StageOptions *stage, Err *e) {
    const Task task = {
        .stage = "stage2", .run = "bench", .model = &l->step.student, .ctx = l, .gradients = loop_gradients};
    const TrainWatch watch = {.ctx = l, .step = loop_watch};
    Train t = {.nan = NAN_STOP};
    void *mem;
    TRY(mem_alloc(&mem, (size_t)l->step.B * l->step.T * sizeof(float), "weights of tokens", e));
    l->weight = mem;
    const int rc = train(&t, &task, stage, 0, &watch, e);
    train_close(&t);
    mem_free(mem);
    return rc;
}

/* From the same weights each time. */
static int loop_run(Loop *l, Backend *be, Ranks *with, const StageOptions *stage, Err *e) {
    const BenchRanks *o = l->o;
    const BenchStep step = bench_step(&l->step, STEP_STAGE2, &o->c, o->model, o->mixer, be, stage->micro_batch_size,
                                      o->seq_len, stage_micro_batches(stage));
    be->ranks = with;
    l->step.looped = 1;
    int rc = step.open(step.ctx, e);
    if (!rc) rc = loop_train(l, stage, e);
    step.close(step.ctx);
    return rc;
}

/* ---------------------------------------------------------------- the table */

static const struct {
    const char *key, *title;
} columns[] = {{"ranks", "ranks"},
               {"rank", "rank"},
               {"step_s", "s a step"},
               {"computed_s", "computed"},
               {"waited_s", "waited"},
               {"under_way_s", "under way"},
               {"hidden_s", "hidden"},
               {"bytes", "bytes"},
               {"bytes_formula", "formula"},
               {"messages", "messages"},
               {"messages_formula", "formula"},
               {"times_one_rank", "x one"},
               {"efficiency", "of R"}};
enum { COLUMNS = sizeof columns / sizeof *columns };

static void row_print(const BenchRanks *o, const Row *row, int ranks, int rank, double alone, FILE *out) {
    const double hidden = row->under_way - row->waited, steps = o->repeat,
                 v[COLUMNS] = {ranks,
                               rank,
                               row->seconds,
                               row->seconds - row->waited,
                               row->waited,
                               row->under_way,
                               hidden > 0 ? hidden : 0,
                               (double)row->sent.bytes / steps,
                               (double)row->formula.bytes,
                               (double)row->sent.messages / steps,
                               (double)row->formula.messages,
                               alone / row->seconds,
                               alone / row->seconds / ranks};
    for (int i = 0; i < COLUMNS; i++) {
        const int whole = i < 2 || (i > 6 && i < 11), digits = whole ? 0 : i > 10 ? 3 : 6;
        if (o->form == BENCH_JSON) fprintf(out, "%s\"%s\":%.*f", i ? "," : "{", columns[i].key, digits, v[i]);
        else if (o->form == BENCH_CSV) fprintf(out, "%s%.*f", i ? "," : "", digits, v[i]);
        else fprintf(out, "%*.*f", i < 2 ? 6 : 13, digits, v[i]);
    }
    fputs(o->form == BENCH_JSON ? "}\n" : "\n", out);
}

static void table_print(const BenchRanks *o, const char *shape, const Row *alone, const Row *row, int ranks,
                        FILE *out) {
    if (o->form == BENCH_TEXT)
        fprintf(out, "stage 2 step, %s, %d lanes; seconds, bytes and messages of one step\n", shape, o->lanes);
    for (int i = 0; i < COLUMNS && o->form == BENCH_CSV; i++) fprintf(out, "%s%s", i ? "," : "", columns[i].key);
    for (int i = 0; i < COLUMNS && o->form == BENCH_TEXT; i++) fprintf(out, "%*s", i < 2 ? 6 : 13, columns[i].title);
    if (o->form != BENCH_JSON) fputc('\n', out);
    row_print(o, alone, 1, 0, alone->seconds, out);
    for (int q = 0; q < ranks && ranks > 1; q++) row_print(o, &row[q], ranks, q, alone->seconds, out);
}

/* Counted is as by formula, and the losses of one rank are those of all. */
static int rows_check(const BenchRanks *o, const Row *alone, const Row *row, int ranks, Err *e) {
    const uint64_t steps = (uint64_t)o->repeat;
    for (int q = 0; q < ranks && ranks > 1; q++) {
        const Row *r = &row[q];
        if (r->sent.bytes != steps * r->formula.bytes || r->sent.messages != steps * r->formula.messages)
            return err_set(
                e, ERR_CHECK, "bench: rank %d: sent %llu bytes in %llu messages, the formula says %llu in %llu", q,
                (unsigned long long)r->sent.bytes, (unsigned long long)r->sent.messages,
                (unsigned long long)(steps * r->formula.bytes), (unsigned long long)(steps * r->formula.messages));
        if (r->loss != alone->loss)
            return err_set(e, ERR_CHECK, "bench: rank %d: the last loss is %.17g, of one rank %.17g", q, r->loss,
                           alone->loss);
    }
    return OK;
}

int bench_ranks_run(const BenchRanks *o, Backend *be, FILE *out, Err *e) {
    Ranks *all = be->ranks;
    Loop l = {.o = o, .all = all};
    Row alone = {0}, row[RANKS_MOST];
    size_t at[RANKS_MOST + 1];
    StageOptions stage = {.steps = 1 + o->repeat,
                          .batch_size = o->batch_size,
                          .micro_batch_size = o->batch_size,
                          .train_seq_len = o->seq_len,
                          .optim = bench_adamw};
    stage_settle(&stage, o->lanes);
    TRY(stage_check(&stage, "bench", e));
    TRY(lanes_divide(o->lanes, ranks_count(all), e));
    int rc = ranks_first(all) ? loop_run(&l, be, NULL, &stage, e) : OK;
    be->ranks = all;
    TRY(rc);
    alone = l.row;
    TRY(ranks_share(all, &alone, sizeof alone, e));
    if (all) TRY(loop_run(&l, be, all, &stage, e));
    for (int q = 0; q <= ranks_count(all); q++) at[q] = (size_t)q * sizeof *row;
    row[ranks_index(all)] = l.row;
    TRY(ranks_gather(all, row, at, e));
    if (ranks_first(all)) table_print(o, l.step.shape, &alone, row, ranks_count(all), out);
    return rows_check(o, &alone, row, ranks_count(all), e);
}
