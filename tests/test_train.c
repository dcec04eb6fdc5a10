/* test_train.c - training is a pure function of options and data: resumed after a stop, a kill at any I/O call,
 * or with other thread counts, it ends in the same bytes. Checkpoints: every flipped or cut byte is noticed.
 * Schedules, step counts, NaN policy. */
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/json.h"
#include "method/align.h"
#include "method/distill.h"
#include "method/heldout.h"
#include "run/train_run.h"
#include "tiny.h"
#include "tests/suite.h"

static void setup(void) { tmpdir_begin(); }
static void teardown(void) { tmpdir_end(); }

static StageOptions stage(int64_t steps, int batch, int micro) {
    StageOptions s = {.steps = steps, .batch_size = batch, .micro_batch_size = micro, .train_seq_len = 16};
    s.optim =
        (OptimConfig){.lr = 1e-3, .lr_attn = 3e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 0.01, .clip = 1};
    s.optim.schedule = (Schedule){.kind = SCHEDULE_COSINE};
    return s;
}

/* ---------------------------------------------------------------- one training job, as a whole run or in pieces */

typedef struct {
    int kind; /* 1, 2, 3: the stage */
    const char *backend, *dir, *log;
    int threads;
    int64_t save_every, stop_after; /* stop_after: set the stop flag when this step is reported; 0: never */
    int batch, micro;
    int checkpointing;
    size_t cache;
} Job;
typedef struct {
    volatile int stop;
    int64_t after;
    int warnings;
} Watch;

static void watch_report(void *ctx, const ProgressLine *line) {
    Watch *w = ctx;
    if (w->after && line->step == w->after) w->stop = SIGINT;
}
static void watch_warn(void *ctx, const char *line) {
    Watch *w = ctx;
    ck_assert_ptr_nonnull(strstr(line, "ckpt-"));
    w->warnings++;
}

static int job_train(const Job *j, Task *task, Watch *w, TrainResult *r, Err *e) {
    Progress progress = {watch_report, w};
    TrainOptions o = {.stage = stage(12, j->batch, j->micro),
                      .log_every = 3,
                      .log_path = j->log,
                      .dir = j->dir,
                      .save_every = j->save_every,
                      .fingerprint = 77,
                      .progress = &progress,
                      .stop = &w->stop,
                      .warn = watch_warn,
                      .warn_ctx = w};
    w->after = j->stop_after;
    return train_run(task, &o, r, e);
}

/* Runs the job; *weights (may be NULL) gets the student's bytes. Returns train_run's code. */
static int job_run(const Job *j, Watch *w, TrainResult *r, unsigned char **weights, size_t *n, Err *e) {
    Tiny t;
    Model s;
    const int keep[3] = {0, 1, 0};
    tiny_open(&t, j->backend, j->threads, 3, place("text.tok"));
    tiny_student(&s, &t, j->kind == 1 ? NULL : keep, j->kind == 1 ? GRAD_MIXERS : GRAD_ALL);
    const StageOptions st = stage(12, j->batch, j->micro);
    int rc;
    if (j->kind == 1) {
        Align a;
        must(align_open(&a, &t.teacher, &s, &t.text, &st, ALIGN_NORM, e), e);
        Task task = align_task(&a);
        rc = job_train(j, &task, w, r, e);
        align_close(&a);
    } else {
        Teacher teacher = {0};
        Distill d;
        if (j->kind == 2) must(teacher_open(&teacher, &t.teacher, j->micro, 16, 100, j->cache, e), e);
        must(distill_open(&d, &s, j->kind == 2 ? &teacher : NULL, &t.text, &st, 2.0, j->checkpointing, e), e);
        Task task = distill_task(&d, "test");
        rc = job_train(j, &task, w, r, e);
        distill_close(&d);
        if (j->kind == 2) teacher_close(&teacher);
    }
    if (weights) *weights = tiny_dump(&s, n);
    model_close(&s);
    tiny_close(&t);
    return rc;
}

/* Rows of a log without what is a time. */
static char *log_text(const char *path) {
    static char out[2][20000];
    static int k;
    File f;
    Err e = {0};
    must(file_open(&f, path, &e), &e);
    char *dst = out[k++ % 2];
    size_t n = 0;
    for (size_t i = 0; i < f.size && n + 2 < sizeof out[0];) {
        if (!memcmp(f.data + i, ",\"time\"", 7)) // times stand at the end of a row
            while (f.data[i] != '\n') i++;
        dst[n++] = (char)f.data[i++];
    }
    dst[n] = 0;
    file_close(&f);
    return dst;
}

static void same(const unsigned char *a, size_t n, const unsigned char *b, size_t m) {
    ck_assert_uint_eq(n, m);
    ck_assert_int_eq(memcmp(a, b, n), 0);
}

static const char *const BACKEND = "cpu";

START_TEST(resume_is_bit_exact) {
    const int kind = _i + 1;
    Err e = {0};
    TrainResult r1, r2, r3;
    unsigned char *whole, *parts, *other;
    size_t n, m, k;
    Job a = {.kind = kind,
             .backend = BACKEND,
             .threads = 1,
             .batch = 4,
             .micro = 2,
             .dir = place("a"),
             .log = place("a.jsonl"),
             .cache = 1 << 20};
    Watch w = {0};
    must(job_run(&a, &w, &r1, &whole, &n, &e), &e);
    ck_assert_int_eq(r1.step, 12);
    ck_assert_int_eq(r1.tokens, 12 * 4 * 16);

    // stopped after step 5 (in the middle of a log row's three steps), no teacher cache, two threads;
    // then on to the end
    Job b = a;
    b.dir = place("b");
    b.log = place("b.jsonl");
    b.cache = 0;
    b.threads = 2;
    b.stop_after = 5;
    Err stopped = {0};
    Watch w2 = {0};
    ck_assert_int_eq(job_run(&b, &w2, &r2, NULL, NULL, &stopped), ERR_SIGINT);
    ck_assert_ptr_nonnull(strstr(stopped.msg, "after step 5"));
    ck_assert_int_eq(checkpoint_newest(b.dir), 5);
    b.stop_after = 0;
    Watch w3 = {0};
    must(job_run(&b, &w3, &r2, &parts, &m, &e), &e);
    ck_assert_int_eq(r2.resumed, 1);
    same(whole, n, parts, m);
    ck_assert_str_eq(log_text(a.log), log_text(b.log));
    ck_assert(memcmp(&r1.recent, &r2.recent, sizeof r1.recent) == 0);

    // a finished job returns at once, with its weights, and leaves the log alone
    Watch w4 = {0};
    must(job_run(&b, &w4, &r3, &other, &k, &e), &e);
    same(whole, n, other, k);
    ck_assert_str_eq(log_text(a.log), log_text(b.log));
    mem_free(other);

    // activation checkpointing changes nothing either
    if (kind > 1) {
        Job c = a;
        c.dir = c.log = NULL;
        c.checkpointing = 1;
        must(job_run(&c, &w4, &r3, &other, &k, &e), &e);
        same(whole, n, other, k);
        mem_free(other);
    }
    mem_free(whole);
    mem_free(parts);
}
END_TEST

/* Optimiser state too: the final checkpoints' files are equal byte for byte. */
START_TEST(checkpoints_are_equal) {
    Err e = {0};
    TrainResult r;
    Watch w = {0}, w2 = {0};
    Job a = {.kind = 2, .backend = BACKEND, .threads = 1, .batch = 2, .micro = 2, .dir = place("a"), .cache = 0};
    Job b = a;
    b.dir = place("b");
    b.stop_after = 7;
    b.threads = 2;
    must(job_run(&a, &w, &r, NULL, NULL, &e), &e);
    Err stopped = {0};
    ck_assert_int_eq(job_run(&b, &w2, &r, NULL, NULL, &stopped), ERR_SIGINT);
    b.stop_after = 0;
    w2.stop = 0;
    must(job_run(&b, &w2, &r, NULL, NULL, &e), &e);
    const char *const files[] = {"a/ckpt-00000012/weights.safetensors", "b/ckpt-00000012/weights.safetensors",
                                 "a/ckpt-00000012/optim.safetensors", "b/ckpt-00000012/optim.safetensors"};
    for (int i = 0; i < 4; i += 2) {
        File x, y;
        must(file_open(&x, place(files[i]), &e), &e);
        must(file_open(&y, place(files[i + 1]), &e), &e);
        same(x.data, x.size, y.data, y.size);
        file_close(&x);
        file_close(&y);
    }
}
END_TEST

/* Micro-batches add up to the batch: the same step within rounding, whatever the cut. */
START_TEST(accumulation) {
    Err e = {0};
    TrainResult whole, parts;
    Watch w = {0};
    Job a = {.kind = 2, .backend = "ref64", .threads = 1, .batch = 4, .micro = 4};
    Job b = a;
    b.micro = 1;
    must(job_run(&a, &w, &whole, NULL, NULL, &e), &e);
    must(job_run(&b, &w, &parts, NULL, NULL, &e), &e);
    ck_assert_double_eq_tol(whole.loss, parts.loss, 1e-6 * whole.loss);
    ck_assert_int_eq(whole.tokens, parts.tokens);
}
END_TEST

/* kill -9 just before the n-th I/O call of a run that saves at every step: going on always ends in the same bytes. */
START_TEST(killed_anywhere) {
    Err e = {0};
    TrainResult r;
    Watch w = {0};
    unsigned char *whole, *got;
    size_t n, m;
    Job a = {.kind = 1 + _i % 2,
             .backend = "ref32",
             .threads = 1,
             .batch = 1,
             .micro = 1,
             .dir = place("a"),
             .log = place("a.jsonl"),
             .save_every = 1};
    const long before = file_io_calls();
    must(job_run(&a, &w, &r, &whole, &n, &e), &e);
    const long calls = file_io_calls() - before;
    ck_assert_int_gt(calls, 100);
    Rng rng;
    rng_seed(&rng, (uint64_t)_i);
    for (int round = 0; round < 8; round++) {
        char dir[32], log[32], at[24];
        snprintf(dir, sizeof dir, "k%d", round);
        snprintf(log, sizeof log, "k%d.jsonl", round);
        Job k = a;
        k.dir = place(dir);
        k.log = place(log);
        const pid_t child = fork();
        if (!child) {
            Err ce = {0};
            Watch cw = {0};
            TrainResult cr;
            snprintf(at, sizeof at, "%ld", file_io_calls() + 1 + (long)rng_below(&rng, (uint64_t)calls));
            setenv("HYBRIDIZE_KILL_IO", at, 1);
            job_run(&k, &cw, &cr, NULL, NULL, &ce);
            _exit(9); // the end was reached: not killed
        }
        rng_below(&rng, (uint64_t)calls); // the child's draw was made on its own copy
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "child was not killed");
        Watch w2 = {0};
        must(job_run(&k, &w2, &r, &got, &m, &e), &e);
        same(whole, n, got, m);
        mem_free(got);
        ck_assert_str_eq(log_text(a.log), log_text(k.log));
        char **names;
        size_t count;
        must(file_list(&names, &count, k.dir, &e), &e);
        ck_assert_uint_eq(count, 2); // keep_last, and no litter
        file_list_free(names, count);
    }
    mem_free(whole);
}
END_TEST

/* Every I/O call of a run fails once: a clean error, and the next start goes on to the same bytes. */
START_TEST(io_errors) {
    Err e = {0};
    TrainResult r;
    Watch w = {0};
    unsigned char *whole, *got;
    size_t n, m;
    Job a = {.kind = 2, .backend = "ref32", .threads = 1, .batch = 1, .micro = 1, .dir = place("a"), .save_every = 6};
    const long before = file_io_calls();
    must(job_run(&a, &w, &r, &whole, &n, &e), &e);
    const long calls = file_io_calls() - before;
    for (long i = 1; i <= calls; i += 5) {
        char dir[32], at[32];
        snprintf(dir, sizeof dir, "f%ld", i);
        Job k = a;
        k.dir = place(dir);
        snprintf(at, sizeof at, "%ld:%s", file_io_calls() + i, i % 2 ? "ENOSPC" : "EIO");
        setenv("HYBRIDIZE_FAIL_IO", at, 1);
        Err failed = {0};
        Watch w2 = {0}, w3 = {0};
        const int rc = job_run(&k, &w2, &r, NULL, NULL, &failed);
        unsetenv("HYBRIDIZE_FAIL_IO");
        if (rc) {
            ck_assert_int_eq(rc, ERR_IO);
            ck_assert(failed.msg[0]);
        }
        must(job_run(&k, &w3, &r, &got, &m, &e), &e);
        same(whole, n, got, m);
        mem_free(got);
    }
    mem_free(whole);
}
END_TEST

/* Writes b over the byte at `at`. */
static void poke(const char *path, long at, unsigned char flip) {
    FILE *f = fopen(path, "r+b");
    ck_assert_ptr_nonnull(f);
    fseek(f, at, SEEK_SET);
    const int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ flip, f);
    fclose(f);
}

START_TEST(damage_is_noticed) {
    Err e = {0};
    TrainResult r;
    Watch w = {0};
    unsigned char *whole, *got;
    size_t n, m;
    Job a = {.kind = 2, .backend = "ref32", .threads = 1, .batch = 1, .micro = 1, .dir = place("a"), .save_every = 6};
    must(job_run(&a, &w, &r, &whole, &n, &e), &e);
    Rng rng;
    rng_seed(&rng, 1);
    const char *const names[] = {"weights.safetensors", "optim.safetensors", "state.json"};
    for (int i = 0; i < 24; i++) {
        char path[700];
        File f;
        snprintf(path, sizeof path, "%s/ckpt-00000012/%s", a.dir, names[i % 3]);
        must(file_open(&f, path, &e), &e);
        const size_t size = f.size;
        file_close(&f);
        if (i % 2) poke(path, (long)rng_below(&rng, size), (unsigned char)(1 << rng_below(&rng, 7)));
        else ck_assert_int_eq(truncate(path, (off_t)rng_below(&rng, size)), 0);
        Watch w2 = {0};
        Err de = {0};
        const int rc = job_run(&a, &w2, &r, &got, &m, &de);
        must(rc, &de);
        ck_assert_int_eq(w2.warnings, 1);
        same(whole, n, got, m);
        mem_free(got);
    }
    mem_free(whole);
}
END_TEST

static void rewrite(const char *path, const char *text, size_t n) {
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(text, 1, n, f), n);
    fclose(f);
}

/* A file of the checkpoint cut at each hundredth of its length is noticed; afterwards it is whole again. */
static void cut_everywhere(const char *path, const char *dir) {
    Err e = {0};
    File f;
    char *text;
    must(file_open(&f, path, &e), &e);
    const size_t n = f.size;
    must(mem_strndup(&text, (const char *)f.data, n, &e), &e);
    file_close(&f);
    for (size_t k = 0; k < 100; k++) {
        Err de = {0};
        CheckpointState s;
        rewrite(path, text, n * k / 100);
        ck_assert_int_eq(checkpoint_verify(dir, &s, &de), ERR_INPUT);
    }
    rewrite(path, text, n);
    mem_free(text);
}

/* 1,000 single bits anywhere in a checkpoint, and every file cut at each hundredth: each is noticed, and said in one
 * line. */
START_TEST(every_bit_counts) {
    Err e = {0};
    TrainResult r;
    Watch w = {0};
    CheckpointState s;
    const char *const names[] = {"weights.safetensors", "optim.safetensors", "state.json"};
    char dir[700], path[3][800];
    size_t size[3], total = 0;
    Job a = {.kind = 2, .backend = "ref32", .threads = 1, .batch = 1, .micro = 1, .dir = place("a"), .save_every = 6};
    must(job_run(&a, &w, &r, NULL, NULL, &e), &e);
    snprintf(dir, sizeof dir, "%s/ckpt-00000012", a.dir);
    must(checkpoint_verify(dir, &s, &e), &e);
    for (int i = 0; i < 3; i++) {
        File f;
        snprintf(path[i], sizeof path[i], "%s/%s", dir, names[i]);
        must(file_open(&f, path[i], &e), &e);
        total += size[i] = f.size;
        file_close(&f);
    }
    Rng rng;
    rng_seed(&rng, 9);
    for (int k = 0; k < 1000; k++) {
        size_t at = rng_below(&rng, total);
        int i = 0;
        if (k % 4 == 0) i = 2, at = rng_below(&rng, size[2]); // else state.json is hit too seldom
        else
            while (at >= size[i]) at -= size[i++];
        const unsigned char bit = (unsigned char)(1 << rng_below(&rng, 8));
        Err de = {0};
        poke(path[i], (long)at, bit);
        const int rc = checkpoint_verify(dir, &s, &de);
        ck_assert_msg(rc == ERR_INPUT && de.code == rc && !strncmp(de.msg, path[i], strlen(path[i])) &&
                          !strchr(de.msg, '\n'),
                      "%s: bit %02x of byte %zu: code %d: %s", names[i], bit, at, rc, de.msg);
        poke(path[i], (long)at, bit);
    }
    must(checkpoint_verify(dir, &s, &e), &e);
    for (int i = 0; i < 3; i++) cut_everywhere(path[i], dir);
    must(checkpoint_verify(dir, &s, &e), &e);
}
END_TEST

START_TEST(other_options_are_refused) {
    Err e = {0}, other = {0};
    TrainResult r;
    Watch w = {0};
    Job a = {.kind = 2, .backend = "ref32", .threads = 1, .batch = 2, .micro = 2, .dir = place("a")};
    must(job_run(&a, &w, &r, NULL, NULL, &e), &e);
    a.micro = 1;
    ck_assert_int_eq(job_run(&a, &w, &r, NULL, NULL, &other), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(other.msg, "other options"));
    Err stage_error = {0};
    a.micro = 2;
    a.kind = 3;
    ck_assert_int_eq(job_run(&a, &w, &r, NULL, NULL, &stage_error), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(stage_error.msg, "stage2"));
}
END_TEST

/* ---------------------------------------------------------------- losses */

/* Stage 1, float64: the gradient of every mixer parameter against central differences of the loss, in both forms. */
typedef struct {
    Align *a;
    Err *e;
    double worst;
} Check;
static double align_value(Check *k) {
    double v;
    must(align_batch(k->a, 0, &v, NULL, k->e), k->e);
    return v;
}
static int check_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Check *k = ctx;
    if (!slot->g) {
        ck_assert_int_eq(info->mixer, 0);
        return OK;
    }
    double *w = (double *)slot->w;
    const double *g = (const double *)slot->g;
    for (size_t i = 0; i < info->n; i += 1 + info->n / 3) {
        const double h = 1e-6, was = w[i];
        w[i] = was + h;
        const double up = align_value(k);
        w[i] = was - h;
        const double down = align_value(k);
        w[i] = was;
        const double d = (up - down) / (2 * h), err = fabs(d - g[i]) / (1e-4 + fabs(d));
        if (err > k->worst) k->worst = err;
        ck_assert_msg(err < 1e-4, "%s[%zu]: gradient %g, difference %g", info->name, i, g[i], d);
    }
    return OK;
}

START_TEST(align_gradients_are_right) {
    Tiny t;
    Model s;
    Align a;
    Err e = {0};
    double loss, layer[3];
    const StageOptions st = stage(1, 2, 2);
    tiny_open(&t, "ref64", 1, 3, place("text.tok"));
    const int keep[3] = {0, 0, 1}; // the last layer is softmax: the pass ends before it
    tiny_student(&s, &t, _i < 2 ? NULL : keep, GRAD_MIXERS);
    must(align_open(&a, &t.teacher, &s, &t.text, &st, _i % 2 ? ALIGN_SQUARED : ALIGN_NORM, &e), &e);
    must(batch_text(&a.batch, &t.text, 0, 0, &e), &e);
    must(align_batch(&a, 1, &loss, layer, &e), &e);
    ck_assert_double_gt(loss, 0.001);
    const double sum = layer[0] + layer[1] + layer[2];
    ck_assert_double_eq_tol(loss, _i % 2 ? sum : sum / (_i < 2 ? 3 : 2), 1e-12 * sum);
    Check k = {&a, &e, 0};
    params_walk(&s.c, &s.p, check_visit, &k);
    align_close(&a);
    model_close(&s);
    tiny_close(&t);
}
END_TEST

/* Stage 1 lowers its loss, changes mixers and nothing else. */
START_TEST(align_learns) {
    Tiny t;
    Model s;
    Align a;
    Err e = {0};
    TrainResult r;
    double before, after;
    StageOptions st = stage(100, 8, 8);
    st.optim.lr_attn = 1e-2;
    tiny_open(&t, BACKEND, 1, 3, place("text.tok"));
    tiny_student(&s, &t, NULL, GRAD_MIXERS);
    must(align_open(&a, &t.teacher, &s, &t.text, &st, ALIGN_NORM, &e), &e);
    must(batch_text(&a.batch, &t.text, 1, 0, &e), &e);
    must(align_batch(&a, 0, &before, NULL, &e), &e);
    Task task = align_task(&a);
    const TrainOptions o = {.stage = st};
    must(train_run(&task, &o, &r, &e), &e);
    must(batch_text(&a.batch, &t.text, 1, 0, &e), &e);
    must(align_batch(&a, 0, &after, NULL, &e), &e);
    ck_assert_double_lt(after, 0.9 * before);
    ParamInfo i, j;
    Param p, q;
    ck_assert(model_find(&s, "model.layers.1.mlp.up_proj.weight", &i, &p) &&
              model_find(&t.teacher, "model.layers.1.mlp.up_proj.weight", &j, &q));
    float x[16 * 24], y[16 * 24];
    must(param_get(t.be, &i, &p, DT_F32, x, &e), &e);
    must(param_get(t.be, &j, &q, DT_F32, y, &e), &e);
    ck_assert_int_eq(memcmp(x, y, sizeof x), 0);
    align_close(&a);
    model_close(&s);
    tiny_close(&t);
}
END_TEST

/* A student that is the teacher: KL 0, and one step of stage 2 has no gradient to follow.
 * Stage 2 of a linear one lowers the KL. */
START_TEST(distill_learns) {
    Tiny t;
    Model s, same_model;
    Err e = {0};
    TrainResult r;
    Heldout h;
    HeldoutResult before, after, zero;
    const int all[3] = {1, 1, 1};
    tiny_open(&t, BACKEND, 1, 3, place("text.tok"));
    tiny_student(&s, &t, NULL, GRAD_ALL);
    tiny_student(&same_model, &t, all, GRAD_NONE);
    must(heldout_open(&h, &t.teacher, &t.text, 4, 16, 1000, 1 << 20, &e), &e);
    ck_assert_int_eq(h.batches, 31); // 20000 tokens, 10 %, windows of 16: 125 windows, in batches of 4
    must(heldout_run(&h, &same_model, &zero, &e), &e);
    ck_assert_double_eq_tol(zero.kl, 0, 1e-6);
    ck_assert_double_eq_tol(zero.ce, h.teacher_ce, 1e-6);
    must(heldout_run(&h, &s, &before, &e), &e);
    Teacher teacher;
    Distill d;
    StageOptions st = stage(60, 8, 8);
    must(teacher_open(&teacher, &t.teacher, 8, 16, 60, 0, &e), &e);
    must(distill_open(&d, &s, &teacher, &t.text, &st, 1, 0, &e), &e);
    Task task = distill_task(&d, NULL);
    const TrainOptions o = {.stage = st};
    must(train_run(&task, &o, &r, &e), &e);
    must(heldout_run(&h, &s, &after, &e), &e);
    ck_assert_double_gt(before.kl, 0.01);
    ck_assert_double_lt(after.kl, 0.7 * before.kl);
    ck_assert_double_gt(after.kl_se, 0);
    distill_close(&d);
    teacher_close(&teacher);
    heldout_close(&h);
    model_close(&s);
    model_close(&same_model);
    tiny_close(&t);
}
END_TEST

/* ---------------------------------------------------------------- losses of completions alone */

/* The tiny text with prompts: of `part` percent of each document; 0: none, all tokens are completions. */
static void prompts_write(const char *from, const char *to, int part) {
    Err e = {0};
    Shard s;
    must(shard_open(&s, from, &e), &e);
    int *ids = malloc(s.tokens * sizeof *ids);
    uint64_t *ends = malloc(s.documents * 16), *begin = ends + s.documents, last = 0;
    ck_assert(ids && ends);
    for (uint64_t i = 0; i < s.tokens; i++) ids[i] = s.ids[2 * i] + 256 * s.ids[2 * i + 1];
    for (uint64_t i = 0; i < s.documents; last = ends[i++]) {
        memcpy(&ends[i], s.ends + 8 * i, 8);
        begin[i] = last + (ends[i] - last) * (uint64_t)part / 100;
    }
    must(shard_write_prompts(to, ids, s.tokens, ends, begin, s.documents, s.vocab, s.tok_hash, &e), &e);
    free(ids);
    free(ends);
    shard_close(&s);
}

typedef struct {
    Tiny t;
    Model s;
    Teacher teacher;
    Distill d;
} Masked;
/* kind 2: KL, 3: cross-entropy; a step of 8 sequences, `micro` at a time. */
static void masked_open(Masked *k, const char *backend, const char *shard, int kind, int micro, int on) {
    Err e = {0};
    const int keep[3] = {0, 1, 0};
    const StageOptions st = stage(3, 8, micro);
    memset(k, 0, sizeof *k);
    tiny_open(&k->t, backend, 1, 3, shard);
    if (on) must(dataset_completions(&k->t.data, &e), &e);
    tiny_student(&k->s, &k->t, keep, GRAD_ALL);
    if (kind == 2) must(teacher_open(&k->teacher, &k->t.teacher, micro, 16, 0, 0, &e), &e);
    must(distill_open(&k->d, &k->s, kind == 2 ? &k->teacher : NULL, &k->t.text, &st, 1, 0, &e), &e);
}
static void masked_close(Masked *k) {
    distill_close(&k->d);
    teacher_close(&k->teacher);
    model_close(&k->s);
    tiny_close(&k->t);
}
/* Loss of step 1, gradients left in the student. */
static double masked_step(Masked *k) {
    Err e = {0};
    const Task task = distill_task(&k->d, NULL);
    double sum = 0, loss;
    int64_t n;
    model_zero_grad(&k->s);
    for (int i = 0; i < k->d.micro; i++) {
        must(task.gradients(&k->d, 1, i, 1.0 / k->d.micro, &loss, &n, &e), &e);
        sum += loss / k->d.micro;
    }
    return sum;
}
typedef struct {
    Backend *be;
    double *g;
    size_t n;
} Gradients;
static int gradients_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Gradients *g = ctx;
    Err e = {0};
    if (!slot->g) return OK;
    must(wide_get(g->be, DT_F64, g->g + g->n, slot->g, info->n, &e), &e);
    g->n += info->n;
    return OK;
}
static double *masked_gradients(Masked *k, size_t *n) {
    Gradients g = {k->t.be, calloc(params_count(&k->s.c), sizeof(double)), 0};
    ck_assert_ptr_nonnull(g.g);
    params_walk(&k->s.c, &k->s.p, gradients_visit, &g);
    *n = g.n;
    return g.g;
}

static const char *const masked_on[] = {"ref64", "ref32", "cpu", "cpu-bf16"};

/* A mask of ones is no mask, to the bit: losses, weights after three steps, held-out numbers. */
START_TEST(mask_of_ones) {
    const char *backend = masked_on[_i / 2];
    const int kind = 2 + _i % 2;
    unsigned char *weights[2];
    size_t n[2];
    TrainResult r[2];
    HeldoutResult held[2];
    Err e = {0};
    Tiny t;
    tiny_open(&t, "ref32", 1, 2, place("text.tok"));
    tiny_close(&t);
    prompts_write(place("text.tok"), place("ones.tok"), 0);
    memset(held, 0, sizeof held);
    for (int on = 0; on < 2; on++) {
        Masked k;
        Heldout h;
        masked_open(&k, backend, place(on ? "ones.tok" : "text.tok"), kind, 2, 0);
        if (on) k.t.data.completions = 1; // as dataset_completions, which sees no prompt worth the name
        Task task = distill_task(&k.d, NULL);
        const TrainOptions o = {.stage = stage(3, 8, 2)};
        must(train_run(&task, &o, &r[on], &e), &e);
        weights[on] = tiny_dump(&k.s, &n[on]);
        must(heldout_open(&h, &k.t.teacher, &k.t.text, 4, 16, 3, 1 << 20, &e), &e);
        must(heldout_run(&h, &k.s, &held[on], &e), &e);
        heldout_close(&h);
        masked_close(&k);
    }
    same(weights[0], n[0], weights[1], n[1]);
    ck_assert(r[0].loss == r[1].loss && held[0].kl == held[1].kl && held[0].ce == held[1].ce &&
              held[0].ce_new == held[1].ce_new);
    mem_free(weights[0]);
    mem_free(weights[1]);
}
END_TEST

/* What a prompt's token would be said to be moves nothing: its row of d h is 0, exactly; the others' are not. */
START_TEST(masked_rows_have_no_gradient) {
    const int kind = 2 + _i % 2, micro = 8, C = 16;
    double dh[8 * 16 * 16];
    int hidden = 0;
    Err e = {0};
    Tiny t;
    Masked k;
    tiny_open(&t, "ref32", 1, 2, place("text.tok"));
    tiny_close(&t);
    prompts_write(place("text.tok"), place("half.tok"), 50);
    masked_open(&k, masked_on[_i / 2], place("half.tok"), kind, micro, 1);
    masked_step(&k);
    must(real_get(k.t.be, DT_F64, dh, k.d.loss.dh, (size_t)micro * 16 * C, &e), &e);
    for (int n = 0; n < micro * 16; n++) {
        double most = 0;
        for (int c = 0; c < C; c++) most = fmax(most, fabs(dh[n * C + c]));
        hidden += k.d.batch.target[n] < 0;
        if (k.d.batch.target[n] < 0) ck_assert_double_eq(most, 0);
        else ck_assert_double_gt(most, 0);
    }
    ck_assert(hidden > 20 && hidden < 108);
    masked_close(&k);
}
END_TEST

/* Loss and gradient are those of the mean over the step's completion tokens, however the step is cut; and the loss is
 * that mean as counted here from the losses of all rows. */
START_TEST(masked_mean) {
    static const int micro[] = {8, 4, 2, 1};
    const int kind = 2 + _i;
    double loss[4], *g[4], sum = 0;
    size_t n = 0, counted = 0;
    Tiny t;
    tiny_open(&t, "ref64", 1, 2, place("text.tok"));
    tiny_close(&t);
    prompts_write(place("text.tok"), place("half.tok"), 50);
    for (int i = 0; i < 4; i++) {
        Masked k;
        masked_open(&k, "ref64", place("half.tok"), kind, micro[i], 1);
        loss[i] = masked_step(&k);
        g[i] = masked_gradients(&k, &n);
        for (int b = 0; i == 0 && b < 8 * 16; b++) {
            if (k.d.batch.target[b] < 0) continue;
            sum += k.d.loss.row_loss[b];
            counted++;
        }
        masked_close(&k);
    }
    ck_assert_double_eq_tol(loss[0], sum / (double)counted, 1e-7 * loss[0]); // weights are floats
    double largest = 0;
    for (size_t j = 0; j < n; j++) largest = fmax(largest, fabs(g[0][j]));
    for (int i = 1; i < 4; i++) {
        ck_assert_double_eq_tol(loss[i], loss[0], 1e-12);
        for (size_t j = 0; j < n; j++) ck_assert_double_eq_tol(g[i][j], g[0][j], 1e-12 * largest);
    }
    for (int i = 0; i < 4; i++) free(g[i]);
}
END_TEST

/* Held-out numbers are means over completion tokens, in batches of any size; prompts alone are refused. */
START_TEST(masked_heldout) {
    double kl[2], ce[2];
    Err e = {0}, no[2] = {{0}};
    Tiny t;
    tiny_open(&t, "ref64", 1, 2, place("text.tok"));
    tiny_close(&t);
    prompts_write(place("text.tok"), place("half.tok"), 50);
    prompts_write(place("text.tok"), place("none.tok"), 100);
    for (int i = 0; i < 2; i++) {
        Masked k;
        Heldout h;
        HeldoutResult r;
        masked_open(&k, "ref64", place("half.tok"), 2, 2, 1);
        must(heldout_open(&h, &k.t.teacher, &k.t.text, i ? 2 : 8, 16, i ? 12 : 3, 1 << 20, &e), &e);
        must(heldout_run(&h, &k.s, &r, &e), &e);
        kl[i] = r.kl;
        ce[i] = r.ce;
        ck_assert_double_eq_tol(r.ce, r.ce_new * (1 - r.repeated) + r.ce_repeat * r.repeated, 1e-6);
        heldout_close(&h);
        masked_close(&k);
    }
    ck_assert_double_eq_tol(kl[1], kl[0], 1e-6 * kl[0]);
    ck_assert_double_eq_tol(ce[1], ce[0], 1e-6 * ce[0]);
    Masked k;
    Heldout h;
    masked_open(&k, "ref64", place("none.tok"), 2, 2, 0);
    ck_assert_int_eq(dataset_completions(&k.t.data, &no[0]), ERR_INPUT);
    k.t.data.completions = 1;
    ck_assert_int_eq(heldout_open(&h, &k.t.teacher, &k.t.text, 2, 16, 3, 0, &no[1]), ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(no[1].msg, "no token of a completion in 3 batches"));
    ck_assert_double_eq(masked_step(&k), 0);
    masked_close(&k);
}
END_TEST

/* ---------------------------------------------------------------- not-finite numbers */

typedef struct {
    Distill *d;
    Task inner;
    int64_t bad;
} Poison;
static int poison_gradients(void *ctx, int64_t step, int micro, double scale, double *loss, int64_t *tokens, Err *e) {
    Poison *p = ctx;
    TRY(p->inner.gradients(p->inner.ctx, step, micro, scale, loss, tokens, e));
    if (step != p->bad) return OK;
    const float nan_value = NAN; // one gradient element
    ParamInfo i;
    Param slot;
    ck_assert(model_find(p->d->student, "model.layers.1.attn.q_proj.weight", &i, &slot));
    p->d->student->be->upload(p->d->student->be, slot.g, &nan_value, sizeof nan_value);
    return OK;
}

START_TEST(nan_policy) {
    Tiny t;
    Model s;
    Distill d;
    TrainResult r;
    Err e = {0}, stop = {0}, many = {0};
    const int keep[2] = {0, 1};
    StageOptions st = stage(6, 2, 2);
    tiny_open(&t, BACKEND, 1, 2, place("text.tok"));
    tiny_student(&s, &t, keep, GRAD_ALL);
    must(distill_open(&d, &s, NULL, &t.text, &st, 1, 0, &e), &e);
    Poison p = {&d, distill_task(&d, NULL), 2};
    Task task = p.inner;
    task.ctx = &p;
    task.gradients = poison_gradients;
    TrainOptions o = {.stage = st, .dir = place("a"), .save_every = 1};
    ck_assert_int_eq(train_run(&task, &o, &r, &stop), ERR_NUMERIC);
    ck_assert_ptr_nonnull(strstr(stop.msg, "step 3"));
    ck_assert_ptr_nonnull(strstr(stop.msg, "layers.1.attn.q_proj"));
    ck_assert_int_eq(checkpoint_newest(o.dir), 2);
    o.dir = NULL;
    o.nan = NAN_SKIP;
    ck_assert_int_eq(train_run(&task, &o, &r, &many), ERR_NUMERIC);
    ck_assert_ptr_nonnull(strstr(many.msg, "too many"));
    o.max_skips = 1;
    must(train_run(&task, &o, &r, &e), &e);
    ck_assert_int_eq(r.skipped, 1);
    ck_assert(isfinite(r.loss));
    distill_close(&d);
    model_close(&s);
    tiny_close(&t);
}
END_TEST

/* A batch that was made ahead is the batch; one that nobody asks for, or of the held-out side, changes nothing. */
START_TEST(batches_ahead) {
    Tiny t;
    Batch a, b;
    Err e = {0};
    tiny_open(&t, "ref32", 1, 2, place("text.tok"));
    must(batch_open(&a, 3, 16, &e), &e);
    must(batch_open(&b, 3, 16, &e), &e);
    for (uint64_t i = 0; i < 12; i++) {
        const uint64_t index = i * i % 7;
        const int heldout = i % 5 == 4;
        must(batch_text(&a, &t.text, heldout, index, &e), &e);
        must(batch_text(&b, &t.text, heldout, index, &e), &e);
        ck_assert(!memcmp(a.ids, b.ids, 3 * (size_t)a.N * sizeof(int)));
        batch_ahead(&a, &t.text, i % 2 ? index + 1 : (i + 1) * (i + 1) % 7); // every other one is right
        ck_assert(!memcmp(a.ids, b.ids, 3 * (size_t)a.N * sizeof(int)));
    }
    batch_close(&a);
    batch_close(&b);
    tiny_close(&t);
}
END_TEST

/* ---------------------------------------------------------------- numbers of the official code */

START_TEST(step_counts) { // ref/METHOD.md 4
    StageOptions s = {.target_tokens = 100000000, .batch_size = 96, .micro_batch_size = 12, .train_seq_len = 512};
    ck_assert_int_eq(stage_steps(&s), 2034);
    s = (StageOptions){.target_tokens = 600000000, .batch_size = 32, .micro_batch_size = 2, .train_seq_len = 4096};
    ck_assert_int_eq(stage_steps(&s), 4577);
    ck_assert_int_eq(stage_micro_batches(&s), 16);
    s.target_tokens = 200000000;
    ck_assert_int_eq(stage_steps(&s), 1525);
    s.target_tokens = 1;
    ck_assert_int_eq(stage_steps(&s), 1);
}
END_TEST

/* A setting is honoured or refused, never silently another one. */
START_TEST(settings_refused) {
    static const struct {
        int batch, micro;
        double eps;
        const char *says, *hint;
    } c[] = {{9, 8, 1e-8, "x.batch_size: got 9, expected a multiple of micro_batch_size 8", "micro_batch_size 3"},
             {2, 8, 1e-8, "x.batch_size: got 2, expected a multiple of micro_batch_size 8", "micro_batch_size 2"},
             {7, 3, 1e-8, "x.batch_size: got 7", "micro_batch_size 1"},
             {8, 8, 0, "x.adam_epsilon: got 0, expected 1.17549e-38 to 1", ""},
             {8, 8, 1e-46, "x.adam_epsilon: got 1e-46", ""}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        Err e = {0};
        StageOptions s = {.steps = 1, .batch_size = 8, .micro_batch_size = 2, .train_seq_len = 4};
        s.optim = (OptimConfig){.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
        ck_assert_int_eq(stage_check(&s, "x", &e), OK);
        s.batch_size = c[i].batch;
        s.micro_batch_size = c[i].micro;
        s.optim.eps = c[i].eps;
        ck_assert_int_eq(stage_check(&s, "x", &e), ERR_USAGE);
        ck_assert_msg(strstr(e.msg, c[i].says) && strstr(e.hint, c[i].hint), "%s (%s)", e.msg, e.hint);
    }
}
END_TEST

START_TEST(schedules) {
    const Schedule cosine = {.kind = SCHEDULE_COSINE}, warm = {.kind = SCHEDULE_CONSTANT, .warmup = 4};
    const Schedule hold = {.kind = SCHEDULE_HOLD_LINEAR, .hold = 0.6, .final = 0.05},
                   linear = {.kind = SCHEDULE_LINEAR, .final = 0.1};
    ck_assert_double_eq(schedule_factor(&cosine, 0, 100), 1);
    ck_assert_double_eq_tol(schedule_factor(&cosine, 25, 100), 0.5 * (1 + sqrt(0.5)), 1e-15);
    ck_assert_double_eq_tol(schedule_factor(&cosine, 100, 100), 0, 1e-15);
    ck_assert_double_eq(schedule_factor(&warm, 0, 100), 0.25);
    ck_assert_double_eq(schedule_factor(&warm, 3, 100), 1);
    ck_assert_double_eq(schedule_factor(&warm, 99, 100), 1);
    ck_assert_double_eq(schedule_factor(&hold, 59, 100), 1);
    ck_assert_double_eq_tol(schedule_factor(&hold, 80, 100), 0.525, 1e-15);
    ck_assert_double_eq_tol(schedule_factor(&linear, 50, 100), 0.55, 1e-15);
}
END_TEST

/* The optimiser against the equations of ref/METHOD.md 4, in float64, with groups, decay and clipping. */
typedef struct {
    double *w, *m, *v;
    const double *g;
    const OptimConfig *c;
    double scale;
    int official;
    size_t at;
    double worst;
    int step;
} Oracle;
static int oracle_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Oracle *o = ctx;
    const OptimConfig *c = o->c;
    const int attn = o->official ? strstr(info->name, "attn") != NULL : info->mixer;
    const double lr = attn ? c->lr_attn : c->lr, wd = o->official || info->rank > 1 ? c->decay : 0;
    for (size_t i = 0; i < info->n; i++) {
        double *w = o->w + o->at + i, *m = o->m + o->at + i, *v = o->v + o->at + i;
        const double g = o->g[o->at + i] * o->scale;
        *w *= 1 - lr * wd;
        *m = c->beta1 * *m + (1 - c->beta1) * g;
        *v = c->beta2 * *v + (1 - c->beta2) * g * g;
        *w -= lr * (*m / (1 - pow(c->beta1, o->step))) / (sqrt(*v / (1 - pow(c->beta2, o->step))) + c->eps);
        const double err = fabs(*w - ((double *)slot->w)[i]);
        if (err > o->worst) o->worst = err;
    }
    o->at += info->n;
    return OK;
}
typedef struct {
    double *dst;
    int gradient;
    size_t at;
    double square;
    Rng r;
} Flat;
static int flat_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Flat *f = ctx;
    for (size_t i = 0; i < info->n; i++) {
        if (f->gradient) ((double *)slot->g)[i] = rng_normal(&f->r);
        f->dst[f->at + i] = ((double *)(f->gradient ? (void *)slot->g : (void *)slot->w))[i];
        f->square += f->dst[f->at + i] * f->dst[f->at + i];
    }
    f->at += info->n;
    return OK;
}

START_TEST(adamw_follows_the_equations) {
    Tiny t;
    Model s;
    Optim o;
    Err e = {0};
    const int keep[2] = {1, 0};
    OptimConfig c = {.lr = 1e-3,
                     .lr_attn = 1e-2,
                     .beta1 = 0.9,
                     .beta2 = 0.95,
                     .eps = 1e-8,
                     .decay = 0.1,
                     .clip = _i < 2 ? 1 : 0,
                     .official_groups = _i % 2};
    tiny_open(&t, "ref64", 1, 2, place("text.tok"));
    tiny_student(&s, &t, keep, GRAD_ALL);
    must(optim_open(&o, &s, &c, &e), &e);
    const size_t n = params_count(&s.c);
    double *w = calloc(4 * n, sizeof *w);
    ck_assert_ptr_nonnull(w);
    Flat f = {.dst = w};
    params_walk(&s.c, &s.p, flat_visit, &f);
    Oracle k = {.w = w, .m = w + n, .v = w + 2 * n, .g = w + 3 * n, .c = &c, .official = _i % 2};
    for (int step = 1; step <= 3; step++) {
        Flat g = {.dst = w + 3 * n, .gradient = 1};
        rng_seed(&g.r, (uint64_t)step);
        params_walk(&s.c, &s.p, flat_visit, &g);
        double norm, lr;
        must(optim_step(&o, 3, &norm, &lr, &e), &e);
        ck_assert_double_eq_tol(norm, sqrt(g.square), 1e-9 * norm);
        k.scale = c.clip > 0 ? c.clip / (norm + 1e-6) : 1;
        k.step = step;
        k.at = 0;
        params_walk(&s.c, &s.p, oracle_visit, &k);
    }
    ck_assert_double_lt(k.worst, 1e-12);
    free(w);
    optim_close(&o);
    model_close(&s);
    tiny_close(&t);
}
END_TEST

/* ---------------------------------------------------------------- transfer */

static void row_get(const Model *m, const char *name, double *dst, size_t *rows, size_t *cols) {
    ParamInfo i;
    Param p;
    Err e = {0};
    ck_assert_msg(model_find(m, name, &i, &p), "%s is absent", name);
    *rows = i.shape[0];
    *cols = i.n / i.shape[0];
    must(param_get(m->be, &i, &p, DT_F64, dst, &e), &e);
}

START_TEST(transfer_expands_heads_or_rows) {
    Tiny t;
    Model s;
    Err e = {0};
    static double a[16 * 16], b[16 * 16];
    size_t ra, rb, ca, cb;
    tiny_open(&t, "ref64", 1, 2, place("text.tok"));
    tiny_student(&s, &t, NULL, GRAD_NONE);
    must(transfer_weights(&s, &t.teacher, _i ? KV_REPEAT_ROW : KV_REPEAT_HEAD, 5, &e), &e);
    row_get(&t.teacher, "model.layers.1.attn.k_proj.weight", a, &ra, &ca);
    row_get(&s, "model.layers.1.attn.k_proj.weight", b, &rb, &cb);
    ck_assert_uint_eq(ra * 2, rb); // 2 groups
    ck_assert_uint_eq(ca, cb);
    for (size_t r = 0; r < rb; r++) {
        const size_t from = _i ? r / 2 : (r / 4) / 2 * 4 + r % 4; // row r/g; head j/g, the same row in it
        ck_assert_int_eq(memcmp(b + r * cb, a + from * ca, ca * sizeof *a), 0);
    }
    row_get(&t.teacher, "model.layers.0.attn.o_proj.weight", a, &ra, &ca);
    row_get(&s, "model.layers.0.attn.o_proj.weight", b, &rb, &cb);
    ck_assert_int_eq(memcmp(a, b, ra * ca * sizeof *a), 0);
    model_close(&s);
    tiny_close(&t);
}
END_TEST

START_TEST(hybrid_takes_from_both) {
    Tiny t;
    Model start, h;
    Err e = {0};
    const int keep[3] = {0, 1, 0};
    static double a[64 * 16], b[64 * 16];
    size_t r, c;
    tiny_open(&t, "ref64", 1, 3, place("text.tok"));
    tiny_student(&start, &t, NULL, GRAD_NONE);
    must(model_init(&start, 91, 1, 1, 0, &e), &e); // everything differs from the teacher
    Config hc = start.c;
    hc.mixer[1] = 0;
    must(model_open(&h, &hc, t.be, GRAD_ALL, &e), &e);
    (void)keep;
    must(transfer_hybrid(&h, &start, &t.teacher, &e), &e);
    const char *const from_start[] = {"model.embeddings.weight", "model.layers.0.attn.g_proj.weight",
                                      "model.layers.1.mlp.up_proj.weight"};
    for (int i = 0; i < 3; i++) {
        row_get(&start, from_start[i], a, &r, &c);
        row_get(&h, from_start[i], b, &r, &c);
        ck_assert_int_eq(memcmp(a, b, r * c * sizeof *a), 0);
    }
    row_get(&t.teacher, "model.layers.1.attn.k_proj.weight", a, &r, &c);
    row_get(&h, "model.layers.1.attn.k_proj.weight", b, &r, &c);
    ck_assert_int_eq(memcmp(a, b, r * c * sizeof *a), 0);
    model_close(&h);
    model_close(&start);
    tiny_close(&t);
}
END_TEST

SUITE("train") {
    GROUP("all", .setup = setup, .teardown = teardown, .timeout = 120);
    CASE(resume_is_bit_exact, .times = 3);
    CASE(checkpoints_are_equal);
    CASE(accumulation);
    CASE(killed_anywhere, .times = 2);
    CASE(io_errors);
    CASE(damage_is_noticed);
    CASE(every_bit_counts);
    CASE(other_options_are_refused);
    CASE(align_gradients_are_right, .times = 4);
    CASE(align_learns);
    CASE(distill_learns);
    CASE(mask_of_ones, .times = 8);
    CASE(masked_rows_have_no_gradient, .times = 8);
    CASE(masked_mean, .times = 2);
    CASE(masked_heldout);
    CASE(nan_policy);
    CASE(batches_ahead);
    CASE(step_counts);
    CASE(settings_refused);
    CASE(schedules);
    CASE(adamw_follows_the_equations, .times = 4);
    CASE(transfer_expands_heads_or_rows, .times = 2);
    CASE(hybrid_takes_from_both);
}
