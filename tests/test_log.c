/* test_log.c - the progress line, when it is drawn, and the JSONL log over crash and resume. */
#include "base/log.h"
#include "base/mem.h"
#include "io/jsonl.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include <string.h>

static void ok(int rc, const Err *e) {
    if (rc) ck_abort_msg("code %d: %s (%s)", rc, e->msg, e->hint);
}

/* ---- progress ---- */

START_TEST(test_format) {
    char s[300];
    ProgressLine l = {.step = 120, .total = 2000, .step_ms = 41.23, .tok_per_s = 12400, .eta_s = 753.2};
    progress_add(&l, "loss", "%.4f", 0.4123);
    progress_add(&l, "kl", "%.2f", 0.41);
    progress_add(&l, "grad", "%.2f", 0.83);
    progress_add(&l, "lr", "%.1e", 1e-4);
    static const char want[] =
        "step 120/2000 | loss 0.4123 | kl 0.41 | grad 0.83 | lr 1.0e-04 | 41.2 ms | 12.4k tok/s | 6% | ETA 00:12:33";
    ck_assert_uint_eq(progress_format(s, sizeof s, &l), strlen(want));
    ck_assert_str_eq(s, want);
    for (size_t cap = 1; cap < sizeof want; cap++) { // cut, never overrun
        memset(s, 'x', sizeof s);
        ck_assert_uint_eq(progress_format(s, cap, &l), cap - 1);
        ck_assert(!memcmp(s, want, cap - 1) && s[cap - 1] == 0 && s[cap] == 'x');
    }
    for (int i = 0; i < 20; i++)
        progress_add(&l, "a name that is far too long", "a value that is far too long as well");
    ck_assert_int_eq(l.columns, PROGRESS_COLUMNS);
    ProgressLine bare = {.label = "layer", .step = 3, .eta_s = -1};
    progress_format(s, sizeof s, &bare);
    ck_assert_str_eq(s, "layer 3");
    bare.total = 1000, bare.step = 999, bare.eta_s = 86400 + 3600 + 60 + 1;
    progress_format(s, sizeof s, &bare);
    ck_assert_str_eq(s, "layer 999/1000 | 99% | ETA 1d 01:01:01"); // 100 % only when it is done
    bare.eta_s = 86400;
    progress_format(s, sizeof s, &bare);
    ck_assert_ptr_nonnull(strstr(s, "ETA 1d 00:00:00"));
    ck_assert_double_eq(progress_eta(10, 5, 20), 40);
    ck_assert_double_eq(progress_eta(10, 0, 20), -1);
    ck_assert_double_eq(progress_eta(10, 5, -3), 0);
}
END_TEST

START_TEST(test_count) {
    static const struct {
        double v;
        const char *text;
    } want[] = {{0, "0"},           {999, "999"},      {999.6, "1.0k"},   {1000, "1.0k"},   {12400, "12.4k"},
                {999949, "999.9k"}, {999960, "1.00M"}, {1.25e6, "1.25M"}, {3.1e9, "3.10G"}, {-2500, "-2.5k"}};
    char s[32];
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        log_count(s, sizeof s, want[i].v);
        ck_assert_str_eq(s, want[i].text);
    }
    for (size_t cap = 1; cap < 8; cap++) {
        size_t full = log_count(s, sizeof s, 12400), n = log_count(s, cap, 12400);
        ck_assert_uint_eq(n, cap <= full ? cap - 1 : full);
        ck_assert_uint_eq(strlen(s), n);
    }
    char utc[32];
    log_utc(utc, sizeof utc);
    ck_assert_uint_eq(strlen(utc), 20);
    ck_assert(utc[4] == '-' && utc[10] == 'T' && utc[19] == 'Z');
    log_utc(utc, 5);
    ck_assert_str_eq(utc, "");
    double a = log_now();
    ck_assert_double_ge(log_now(), a);
}
END_TEST

START_TEST(test_draw) {
    char s[200];
    ProgressLine l = {.step = 1, .total = 3, .eta_s = -1};
    ProgressPace tty = {.tty = 1}, file = {.every_s = 5}, quiet = {.quiet = 1};
    // A terminal: redrawn in place, ten times a second, what was longer wiped, and a newline at the end.
    progress_add(&l, "loss", "%.3f", 1.0);
    progress_draw(&tty, 100, s, sizeof s, &l);
    ck_assert_str_eq(s, "\rstep 1/3 | loss 1.000 | 33%");
    ck_assert_uint_eq(progress_draw(&tty, 100.05, s, sizeof s, &l), 0);
    l.columns = 0, l.step = 2;
    progress_draw(&tty, 100.2, s, sizeof s, &l);
    ck_assert_str_eq(s, "\rstep 2/3 | 66%             ");
    ck_assert_str_eq(progress_break(&tty), "\n");
    ck_assert_str_eq(progress_break(&tty), "");
    l.step = 3;
    progress_draw(&tty, 100.21, s, sizeof s, &l); // the end is never left out
    ck_assert_str_eq(s, "\rstep 3/3 | 100%\n");
    ck_assert_str_eq(progress_break(&tty), "");
    // A file: whole lines, every 5 s.
    l.step = 1;
    progress_draw(&file, 0, s, sizeof s, &l);
    ck_assert_str_eq(s, "step 1/3 | 33%\n");
    ck_assert_uint_eq(progress_draw(&file, 4.9, s, sizeof s, &l), 0);
    ck_assert_uint_gt(progress_draw(&file, 5.1, s, sizeof s, &l), 0);
    ck_assert_str_eq(progress_break(&file), "");
    ProgressPace usual = {0}; // every 10 s unless told otherwise
    ck_assert_uint_gt(progress_draw(&usual, 0, s, sizeof s, &l), 0);
    ck_assert_uint_eq(progress_draw(&usual, 9.9, s, sizeof s, &l), 0);
    ck_assert_uint_gt(progress_draw(&usual, 10, s, sizeof s, &l), 0);
    l.step = 3;
    ck_assert_uint_gt(progress_draw(&file, 5.2, s, sizeof s, &l), 0);
    ck_assert_uint_eq(progress_draw(&quiet, 9, s, sizeof s, &l), 0);
    for (size_t cap = 0; cap < 20; cap++) { // small buffers: cut, still a line
        ProgressPace p = {.tty = 0};
        memset(s, 'x', sizeof s);
        size_t n = progress_draw(&p, 0, s, cap, &l);
        ck_assert(n < cap || n == 0);
        ck_assert(s[cap] == 'x');
        if (n) ck_assert(s[n] == 0 && s[n - 1] == '\n');
    }
}
END_TEST

static int reports;

static void count_report(void *ctx, const ProgressLine *l) {
    ck_assert_ptr_eq(ctx, &reports);
    reports += (int)l->step;
}

START_TEST(test_report) {
    ProgressLine l = {.step = 5};
    Progress p = {count_report, &reports}, none = {NULL, NULL};
    progress_report(NULL, &l);
    progress_report(&none, &l);
    progress_report(&p, &l);
    ck_assert_int_eq(reports, 5);
}
END_TEST

/* ---- jsonl ---- */

static void add_row(Log *l, const char *stage, int step, double loss) {
    JsonOut o;
    Err e = {0};
    json_out_begin(&o, 0);
    json_out_object(&o, NULL);
    if (stage) json_out_str(&o, "stage", stage);
    else json_out_str(&o, "event", "something");
    if (step >= 0) json_out_int(&o, "step", step);
    json_out_real(&o, "loss", loss);
    json_out_close(&o);
    ok(log_row(l, &o, &e), &e);
    ck_assert_ptr_null(o.text);
}

static void expect(const char *path, const char *text) {
    File f;
    Err e = {0};
    ok(file_open(&f, path, &e), &e);
    ck_assert_msg(f.size == strlen(text) && !memcmp(f.data, text, f.size), "%s holds:\n%.*sexpected:\n%s", path,
                  (int)f.size, f.data, text);
    file_close(&f);
}

static void put(const char *path, const char *text) {
    Err e = {0};
    ok(file_write_all(path, text, strlen(text), &e), &e);
}

START_TEST(test_rows) {
    const char *path = tmpdir_path("log.jsonl");
    Log *l;
    Err e = {0};
    put(path, "something old\n");
    ok(log_open(&l, path, 0, &e), &e);
    expect(path, "");
    add_row(l, "1", 1, 0.5);
    expect(path, "{\"stage\":\"1\",\"step\":1,\"loss\":0.5}\n"); // there as soon as it is written
    add_row(l, NULL, -1, 2);
    log_close(l);
    ok(file_append(path, "{\"stage\":\"1\",\"st", 16, &e), &e); // the crash
    ok(log_open(&l, path, 1, &e), &e);
    add_row(l, "1", 2, 0.25);
    log_close(l);
    expect(path, "{\"stage\":\"1\",\"step\":1,\"loss\":0.5}\n{\"event\":\"something\",\"loss\":2.0}\n{\"stage\":\"1\","
                 "\"step\":2,\"loss\":0.25}\n");
    ok(log_open(&l, tmpdir_path("new.jsonl"), 1, &e), &e); // append to nothing
    add_row(l, "1", 1, 1);
    log_close(l);
    log_close(NULL);
    ck_assert_int_eq(log_open(&l, tmpdir_path("no/such/dir.jsonl"), 0, &e), ERR_IO);
    ck_assert_ptr_null(l);
    ck_assert_uint_eq(mem_now(), 0);
}
END_TEST

START_TEST(test_torn) {
    const char *path = tmpdir_path("log.jsonl");
    Log *l;
    Err e = {0};
    put(path, "{\"a\":1}\n{\"a\":2}"); // complete but for its newline: not sure to be complete
    ok(log_open(&l, path, 1, &e), &e);
    log_close(l);
    expect(path, "{\"a\":1}\n");
    File f;
    ok(file_write_all(path, "{\"a\":1}\n\0\0\0\0\n", 13, &e), &e); // blocks that never reached the disk
    ok(log_open(&l, path, 1, &e), &e);
    log_close(l);
    expect(path, "{\"a\":1}\n");
    put(path, "{\"a\":1}\nrubbish\n{\"a\":2}\n"); // not at the end: somebody else's doing
    ck_assert_int_eq(log_open(&l, path, 1, &e), ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(e.msg, "line 2"));
    ok(file_open(&f, path, NULL), &e);
    ck_assert_uint_eq(f.size, 24); // left alone
    file_close(&f);
}
END_TEST

/* The rows of a run: two stages, an event between them, steps from..to of the second. */
static void run(Log *l, int first_stage, int from, int to) {
    for (int i = 1; first_stage && i <= 4; i++) add_row(l, "align", i, 1.0 / i);
    if (first_stage) add_row(l, NULL, -1, 0);
    for (int i = from; i <= to; i++) add_row(l, "distill", i, 10.0 / i);
}

START_TEST(test_resume) {
    // A checkpoint at step 3 of the second stage, a log that went on to 5, and 2 torn bytes:
    // the resumed log is the whole run's.
    const char *path = tmpdir_path("log.jsonl"), *whole = tmpdir_path("whole.jsonl");
    Log *l;
    Err e = {0};
    File f;
    ok(log_open(&l, whole, 0, &e), &e);
    run(l, 1, 1, 8);
    log_close(l);
    ok(file_open(&f, whole, &e), &e);
    for (int checkpoint = 0; checkpoint <= 5; checkpoint++) {
        ok(log_open(&l, path, 0, &e), &e);
        run(l, 1, 1, 5);
        log_close(l);
        ok(file_append(path, "{\"", 2, &e), &e);
        ok(log_truncate_after(path, "distill", checkpoint, &e), &e);
        ok(log_open(&l, path, 1, &e), &e);
        run(l, 0, checkpoint + 1, 8);
        log_close(l);
        expect(path, (const char *)f.data);
    }
    // A checkpoint in the first stage: the rows of the second go too.
    ok(log_truncate_after(path, "align", 3, &e), &e);
    expect(path, "{\"stage\":\"align\",\"step\":1,\"loss\":1.0}\n{\"stage\":\"align\",\"step\":2,\"loss\":0.5}\n"
                 "{\"stage\":\"align\",\"step\":3,\"loss\":0.3333333333333333}\n");
    ok(log_truncate_after(tmpdir_path("none.jsonl"), "align", 3, &e), &e);
    // numbers name stages as well
    put(path, "{\"stage\":1,\"step\":1}\n{\"stage\":2,\"step\":1}\n{\"stage\":2,\"step\":2}\n");
    ok(log_truncate_after(path, "2", 1, &e), &e);
    expect(path, "{\"stage\":1,\"step\":1}\n{\"stage\":2,\"step\":1}\n");
    file_close(&f);
}
END_TEST

START_TEST(test_log_memory) {
    const char *path = tmpdir_path("log.jsonl");
    size_t before = mem_now();
    for (int n = 0, rc = ERR_MEMORY; rc; n++) {
        Err e = {0};
        Log *l = NULL;
        put(path, "{\"stage\":1,\"step\":1}\n{\"stage\":1,\"step\":2}\n");
        mem_fail_after(n);
        rc = log_truncate_after(path, "1", 1, &e);
        if (!rc) rc = log_open(&l, path, 1, &e);
        mem_fail_after(-1);
        log_close(l);
        ck_assert(rc == OK || rc == ERR_MEMORY);
        ck_assert_uint_eq(mem_now(), before);
        ck_assert_int_lt(n, 100);
    }
    expect(path, "{\"stage\":1,\"step\":1}\n");
}
END_TEST

SUITE("log") {
    GROUP("progress");
    CASE(test_format);
    CASE(test_count);
    CASE(test_draw);
    CASE(test_report);
    GROUP("jsonl", .setup = tmpdir_begin, .teardown = tmpdir_end);
    CASE(test_rows);
    CASE(test_torn);
    CASE(test_resume);
    CASE(test_log_memory);
}
