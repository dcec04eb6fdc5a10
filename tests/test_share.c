/* test_share.c - processes that share the work of one directory: claims, heartbeats, take-over, a log with many
 * writers. Whole runs that are shared: test_method.c. */
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/worker.h"
#include "io/jsonl.h"
#include "tests/suite.h"
#include "tmpdir.h"

#define place tmpdir_path

static void must(int rc, const Err *e) { ck_assert_msg(rc == OK, "%s", e->msg); }
static void nap(int ms) {
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}
static int claim(Worker *w, const char *piece) {
    Err e = {0};
    char who[128];
    int mine;
    must(worker_claim(w, place(piece), &mine, who, sizeof who, &e), &e);
    if (!mine) ck_assert_msg(strstr(who, "process"), "%s", who);
    return mine;
}

/* A child that becomes a worker, claims "piece", says so by a file, and waits to be killed. */
static pid_t child_with_claim(void) {
    const pid_t pid = fork();
    if (pid) {
        for (int i = 0; i < 1000 && !file_exists(place("claimed")); i++) nap(10);
        ck_assert(file_exists(place("claimed")));
        return pid;
    }
    Err e = {0};
    Worker *w;
    if (worker_open(&w, place("run"), &e) || !claim(w, "piece")) _exit(1);
    if (file_write_all(place("claimed"), "", 0, &e)) _exit(1);
    for (;;) pause();
}

START_TEST(claims) {
    Err e = {0};
    Worker *w;
    char who[128];
    int status;
    const pid_t child = child_with_claim();
    must(worker_open(&w, place("run"), &e), &e);
    ck_assert_int_eq(worker_others(w, who, sizeof who), 1);
    char name[64];
    snprintf(name, sizeof name, "process %ld on", (long)child);
    ck_assert_msg(strstr(who, name), "%s", who);
    ck_assert_int_eq(claim(w, "piece"), 0);
    ck_assert_int_eq(claim(w, "other"), 1);
    ck_assert_int_eq(claim(w, "other"), 1); // still mine
    must(worker_release(w, place("other"), &e), &e);
    ck_assert_int_eq(claim(w, "piece"), 0);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    ck_assert_int_eq(worker_others(w, NULL, 0), 0);
    ck_assert_int_eq(claim(w, "piece"), 1); // at once: the process is gone
    must(worker_release(w, place("piece"), &e), &e);
    char link[64];
    ck_assert_int_eq(file_link_read(place("piece.claim-0"), link, sizeof link), 0);
    ck_assert_int_eq(file_link_read(place("piece.claim-1"), link, sizeof link), 0);
    worker_close(w);
    must(worker_open(&w, place("run"), &e), &e); // which clears away the dead one's file
    worker_close(w);
    ck_assert_int_eq(file_exists(place("run/workers")), 0);
}
END_TEST

/* A worker of another machine is known by its heartbeat alone. */
START_TEST(heartbeats) {
    static const char far[] = "run/workers/0123456789abcdef-1-1-elsewhere";
    Err e = {0};
    Worker *w;
    int made;
    worker_times(0.1, 1);
    must(worker_open(&w, place("run"), &e), &e);
    must(file_write_all(place(far), "", 0, &e), &e);
    must(file_link_new(place("piece.claim-0"), strrchr(far, '/') + 1, &made, &e), &e);
    ck_assert(made);
    ck_assert_int_eq(worker_others(w, NULL, 0), 1);
    ck_assert_int_eq(worker_any(place("run"), NULL, 0), 1);
    ck_assert_int_eq(claim(w, "piece"), 0);
    nap(1300);
    ck_assert_int_eq(worker_others(w, NULL, 0), 0);
    ck_assert_int_eq(claim(w, "piece"), 1);
    // this one's own heart still beats: seen by its file's time
    struct stat a, b;
    char **names;
    size_t n;
    must(file_list(&names, &n, place("run/workers"), &e), &e);
    ck_assert_uint_eq(n, 2);
    char mine[128];
    snprintf(mine, sizeof mine, "run/workers/%.100s", strcmp(names[0], strrchr(far, '/') + 1) ? names[0] : names[1]);
    file_list_free(names, n);
    ck_assert_int_eq(stat(place(mine), &a), 0);
    nap(500);
    ck_assert_int_eq(stat(place(mine), &b), 0);
    ck_assert(b.st_mtim.tv_sec > a.st_mtim.tv_sec || b.st_mtim.tv_nsec > a.st_mtim.tv_nsec);
    // taken for gone by others, it says so instead of going on
    Err lost = {0};
    must(worker_check(w, &e), &e);
    must(file_remove(place(mine), &e), &e);
    nap(500);
    ck_assert_int_eq(worker_check(w, &lost), ERR_IO);
    ck_assert_msg(strstr(lost.msg, "silent"), "%s", lost.msg);
    worker_close(w);
}
END_TEST

/* Eight processes claim the same pieces as fast as they can; each piece has exactly one maker, even where it was left
 * behind by a dead one. */
START_TEST(one_wins) {
    enum { WORKERS = 8, PIECES = 60 };
    Err e = {0};
    int made;
    for (int i = 0; i < PIECES; i += 2) { // every other one was claimed by a process that is gone
        char piece[64];
        snprintf(piece, sizeof piece, "p%d.claim-0", i);
        must(file_link_new(place(piece), "0123456789abcdef-1-1-gone", &made, &e), &e);
    }
    for (int k = 0; k < WORKERS; k++) {
        if (fork()) continue;
        Worker *w;
        if (worker_open(&w, place("run"), &e)) _exit(1);
        for (int i = 0; i < PIECES; i++) {
            char piece[64], line[64];
            snprintf(piece, sizeof piece, "p%d", i);
            if (!claim(w, piece)) continue;
            nap(1);
            snprintf(line, sizeof line, "%d\n", i);
            if (file_append(place("makers"), line, strlen(line), &e)) _exit(1);
        }
        if (file_append(place("done"), ".", 1, &e)) _exit(1);
        for (File f = {0}; f.size < WORKERS; nap(10)) { // claims end with their worker, so nobody leaves early
            if (file_open(&f, place("done"), &e)) _exit(1);
            const size_t n = f.size;
            file_close(&f);
            f.size = n;
        }
        worker_close(w);
        _exit(0);
    }
    int status, bad = 0;
    while (wait(&status) > 0) bad += status != 0;
    ck_assert_int_eq(bad, 0);
    File f;
    int count[PIECES] = {0}, at = 0, v;
    must(file_open(&f, place("makers"), &e), &e);
    char *text = calloc(f.size + 1, 1);
    ck_assert_ptr_nonnull(text);
    memcpy(text, f.data, f.size);
    for (int n; sscanf(text + at, "%d%n", &v, &n) == 1; at += n) count[v]++;
    for (int i = 0; i < PIECES; i++) ck_assert_msg(count[i] == 1, "piece %d: %d makers", i, count[i]);
    free(text);
    file_close(&f);
}
END_TEST

static int row_is_mine(void *ctx, const Json *row) {
    int64_t who = 0;
    return !json_want_int(row, json_get(row, 0, "who"), "who", 0, 100, &who, NULL) && who == *(int *)ctx;
}

/* Four processes write 200 rows each to one log, and one takes its own out again and again: no other's is lost. */
START_TEST(log_of_many) {
    Err e = {0};
    for (int k = 0; k < 4; k++) {
        if (fork()) continue;
        Log *l;
        if (log_open(&l, place("log.jsonl"), 1, &e)) _exit(1);
        for (int i = 0; i < 200; i++) {
            JsonOut j;
            json_out_begin(&j, 0);
            json_out_object(&j, NULL);
            json_out_int(&j, "who", k);
            json_out_int(&j, "i", i);
            json_out_close(&j);
            if (log_row(l, &j, &e)) _exit(1);
            if (!k && log_drop(place("log.jsonl"), row_is_mine, &k, &e)) _exit(1);
        }
        log_close(l);
        _exit(0);
    }
    int status, bad = 0, rows = 0;
    while (wait(&status) > 0) bad += status != 0;
    ck_assert_int_eq(bad, 0);
    File f;
    must(file_open(&f, place("log.jsonl"), &e), &e);
    for (size_t i = 0; i < f.size; i++) rows += f.data[i] == '\n';
    file_close(&f);
    ck_assert_int_eq(rows, 600);
}
END_TEST

SUITE("share") {
    GROUP("all", .setup = tmpdir_begin, .teardown = tmpdir_end, .timeout = 120);
    CASE(claims);
    CASE(heartbeats);
    CASE(one_wins);
    CASE(log_of_many);
}
