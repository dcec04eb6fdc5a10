/* test_failures.c - every subcommand on a tiny model while the machine fails: each allocation, each I/O call (EIO,
 * a full disk, a short write, an interrupted one), and kill -9 before each I/O call, then --resume.
 * What must hold for every n: the documented exit code, one
 * line and perhaps a hint, nothing half-written, no leak (under ASan), and after --resume the bytes of the run that
 * nothing disturbed.
 * By default a sample of the n; HYBRIDIZE_EVERY=1 takes them all (minutes; numbers in RELIABILITY.md),
 * HYBRIDIZE_ONLY=export those of one command (what its name begins with). */
#include "base/mem.h"
#include "io/gguf.h"
#include "base/json.h"
#include "io/safetensors.h"
#include "text/dataset.h"
#include "tests/suite.h"
#include "tests/same_tree.h"
#include "tests/tmpdir.h"
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
enum { POINTS = 3 }; // each process starts slowly
#else
enum { POINTS = 7 };
#endif

static int every; // n is taken
static char binary[1200], root[1024];

#define RUN " -m teacher/model --text text -o o --config run.json -q -t 1"
/* o (or o.gguf) is what a command leaves; resumes: it takes --resume. slow: 1 a sample, whatever was asked; 2 only when
 * every n is asked for, what it does being part of another one; 3 both. */
static const struct {
    const char *name, *command;
    int io, resumes, slow;
} commands[] = {
    {"inspect", "inspect teacher/model --json --check-finite", 0, 0, 0},
    {"inspect, shards", "inspect $ROOT/testdata/bad/ok_sharded --tensors", 0, 0, 0},
    {"inspect, checkpoint", "inspect teacher/checkpoints/pretrain/ckpt-00000004 --check-finite", 0, 0, 0},
    {"inspect, token shard", "inspect teacher/data/text.tok", 0, 0, 0},
    {"tokenize", "tokenize -m teacher/model --json text", 0, 0, 0},
    {"tokenize, jsonl", "tokenize -m $ROOT/testdata/hostile/tok/ok_template.json --jsonl lines", 0, 0, 0},
    {"detokenize", "detokenize -m teacher/model ids.txt", 0, 0, 0},
    {"eval", "eval -m teacher/model --text text --seq-len 24 --max-tokens 96 -t 1", 0, 0, 0},
    {"eval, kl", "eval --task kl -m teacher/model --teacher teacher/model --ids ids.json --seq-len 4 -t 1", 0, 0, 0},
    {"generate", "generate -m teacher/model --prompt ab --max-new-tokens 3 -t 1", 0, 0, 0},
    {"probe", "probe -m teacher/model --rows 2 -o o -t 1 -q", 1, 0, 0},
    {"gradcheck", "gradcheck --op swiglu --backend ref64", 0, 0, 1},
    {"bench", "bench --op swiglu --quick --no-ref -t 1", 0, 0, 1},
    {"export", "export --format fla -m aligned/model -o o", 1, 0, 0},
    {"export, gguf", "export --format gguf -m teacher/model -o o.gguf", 1, 0, 0},
    {"convert", "convert --from-gguf teacher.gguf -o o", 1, 0, 0},
    {"diff", "diff teacher/model teacher/model", 0, 0, 0},
    {"pretrain", "pretrain --text text -o o --config tiny.json --steps 2 --save-every 1 -q -t 1", 1, 1, 0},
    {"align", "align" RUN, 1, 1, 0},
    {"score", "score" RUN, 1, 1, 2},
    {"select", "select" RUN, 1, 1, 0},
    {"distill", "distill --stage 2 --student-init-ckpt aligned/model --keep-full-attention-layers 1" RUN, 1, 1, 0},
    {"run", "run" RUN, 1, 1, 0},
    {"compare", "compare" RUN, 1, 1, 3},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

/* tmpdir_path by another name: it stays as long as three more are asked for. */
static const char *place(const char *name) { return tmpdir_path(name); }

/* ---- one command ---- */

static char said[4000]; // its stderr

static int shell(const char *before, const char *command, const char *after) {
    char line[3000], err[700];
    snprintf(err, sizeof err, "%s/err", tmpdir);
    snprintf(line, sizeof line, "cd '%s' && %s exec '%s' %s%s </dev/null >out 2>err", tmpdir, before, binary, command,
             after);
    const pid_t pid = fork();
    if (!pid) {
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(98);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    File f;
    Err e = {0};
    must(file_open(&f, err, &e), &e);
    snprintf(said, sizeof said, "%.*s", (int)f.size, (const char *)f.data);
    file_close(&f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Whether command k has its turn. */
static int chosen(int k) {
    const char *only = getenv("HYBRIDIZE_ONLY");
    return only ? !strncmp(commands[k].name, only, strlen(only)) : every || !(commands[k].slow & 2);
}

/* From nothing. variable: HYBRIDIZE_..., n and a kind behind it. */
static int run_with(int k, const char *variable, long n, const char *kind) {
    char before[200];
    Err e = {0};
    must(file_remove_tree(place("o"), &e), &e);
    // what a killed writer of a model directory leaves for the next one to remove
    must(file_remove_tree(place("o.new"), &e), &e);
    must(file_remove(place("o.gguf"), &e), &e);
    must(file_remove_temps(tmpdir, &e), &e);
    snprintf(before, sizeof before, "%s=%ld%s", variable, n, kind);
    return shell(before, commands[k].command, "");
}

static void want(int k, const char *variable, long n, const char *kind, int got, int code) {
    static const char begin[] = "hybridize: error: ";
    const char *line = strstr(said, begin), *second = line ? strchr(line, '\n') : NULL;
    if (got != code || strstr(said, "Sanitizer") || !line || !second || (second[1] && strncmp(second + 1, "hint: ", 6)))
        ck_abort_msg("%s with %s=%ld%s: code %d, expected %d: %.1500s", commands[k].name, variable, n, kind, got, code,
                     said);
}

/* ---- what is left behind ---- */

static int check_file(const char *path, Err *e) {
    Json j = {0};
    Safetensors s = {0};
    Shard t = {0};
    Gguf g = {0};
    int rc = OK;
    if (ends_in(path, ".json")) rc = json_open(&j, path, e);
    else if (ends_in(path, ".safetensors")) rc = safetensors_open(&s, path, e);
    else if (ends_in(path, ".tok")) rc = shard_open(&t, path, e);
    else if (ends_in(path, ".gguf")) rc = gguf_open(&g, path, e);
    json_free(&j);
    safetensors_close(&s);
    shard_close(&t);
    gguf_close(&g);
    return rc;
}

/* Every file below dir is whole; temporary ones (and directories) are only there if somebody was killed. */
static void check_tree(const char *dir, int killed) {
    char **names, path[1024];
    size_t n;
    Err e = {0};
    if (file_exists(dir) != 2) return;
    must(file_list(&names, &n, dir, &e), &e);
    for (size_t i = 0; i < n; i++) {
        must(file_join(path, sizeof path, dir, names[i], &e), &e);
        const int temporary = strstr(names[i], ".tmp") != NULL;
        ck_assert_msg(killed || !temporary, "%s was left behind: %s", path, said);
        if (temporary) continue;
        if (file_exists(path) == 2) check_tree(path, killed);
        else must(check_file(path, &e), &e);
    }
    file_list_free(names, n);
}

/* What the command left where the tests run. */
static void check_left(int killed) {
    char **names;
    size_t n;
    Err e = {0};
    check_tree(place("o"), killed);
    if (file_exists(place("o.gguf")) == 1) must(check_file(place("o.gguf"), &e), &e);
    must(file_list(&names, &n, tmpdir, &e), &e);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(killed || !strstr(names[i], ".tmp"), "%s was left behind: %s", names[i], said);
    file_list_free(names, n);
}

/* The undisturbed run of command k: in "whole". */
static void whole_run(int k) {
    Err e = {0};
    must(file_remove_tree(place("o"), &e), &e);
    must(file_remove_tree(place("whole"), &e), &e);
    const int rc = shell("", commands[k].command, "");
    ck_assert_msg(!rc, "%s: code %d: %s", commands[k].name, rc, said);
    if (file_exists(place("o")) == 2) must(file_rename(place("o"), place("whole"), &e), &e);
}

static void resume(int k, const char *threads, const char *why) {
    if (!commands[k].resumes) return;
    char after[64];
    snprintf(after, sizeof after, " --resume%s", threads);
    const int rc = shell("", commands[k].command, after);
    ck_assert_msg(!rc, "%s: --resume %s: code %d: %s", commands[k].name, why, rc, said);
    check_tree(place("o"), 0);
    ck_assert_int_ge(same_tree(place("whole"), place("o"), why), 2);
}

/* The last n at which the command does not go through: with 137 (killed) or 5. */
static long last_point(int k, const char *variable, int code) {
    long lo = 0, hi = 1;
    while (run_with(k, variable, hi, "") == code) lo = hi, hi *= 2;
    while (hi - lo > 1) {
        const long mid = (lo + hi) / 2;
        if (run_with(k, variable, mid, "") == code) lo = mid;
        else hi = mid;
    }
    return lo;
}

static long step_of(int k, long last) { return every && !(commands[k].slow & 1) ? 1 : last / POINTS + 1; }

/* ---- the loops ---- */

static void begin(void) {
    char line[2400];
    tmpdir_begin_absolute();
    snprintf(
        line, sizeof line,
        "cd '%s' && head -c 30000 '%s/testdata/text.txt' >text && echo '[5,4,3,2,1,9,8,7,6,5,4,3]' >ids.json && echo "
        "104 105 10 >ids.txt && "
        "echo '\"a<s>b\"' >lines && echo '{\"hidden_size\": 16, \"num_hidden_layers\": 4, \"num_attention_heads\": 2, "
        "\"num_key_value_heads\": 1, \"intermediate_size\": 24, \"levels\": 1, \"level0\": {\"layers\": 0, \"T\": 24, "
        "\"text_rows\": 4, "
        "\"recall_rows\": 4, \"n_min\": 2, \"n_max\": 4}, \"recall_n\": [2, 4], \"stage\": {\"lr\": 3e-3}, "
        "\"save_dtype\": \"float32\"}' >tiny.json && "
        "echo '{\"student\": \"gdn_v4\", \"softmax_ratio\": 0.25, \"students\": \"none,uniform\", \"eval_batches\": 2, "
        "\"log_every\": 1, "
        "\"save_every\": 1, \"stage1\": {\"steps\": 3, \"train_seq_len\": 24, \"batch_size\": 4, \"micro_batch_size\": "
        "2}, \"score\": {\"steps\": 2, "
        "\"train_seq_len\": 24, \"batch_size\": 4, \"micro_batch_size\": 4}, \"stage2\": {\"steps\": 2, "
        "\"train_seq_len\": 24, \"batch_size\": 4, "
        "\"micro_batch_size\": 4}}' >run.json",
        tmpdir, root);
    ck_assert_int_eq(system(line), 0);
    ck_assert_msg(!shell("", "pretrain --text text -o teacher --config tiny.json --steps 4 -q -t 1", ""), "%s", said);
    ck_assert_msg(!shell("", "align -m teacher/model --text text -o aligned --config run.json -q -t 1", ""), "%s",
                  said);
    ck_assert_msg(!shell("", "export --format gguf -m teacher/model -o teacher.gguf", ""), "%s", said);
}

START_TEST(test_allocations) {
    if (!chosen(_i)) return;
    whole_run(_i);
    const long last = last_point(_i, "HYBRIDIZE_FAIL_ALLOC", 5), step = step_of(_i, last);
    long tried = 0;
    ck_assert_int_ge(last, 1);
    for (long n = 0; n <= last; n += n < 4 ? 1 : step, tried++) {
        want(_i, "HYBRIDIZE_FAIL_ALLOC", n, "", run_with(_i, "HYBRIDIZE_FAIL_ALLOC", n, ""), 5);
        check_left(0);
        if (n % (5 * step) == 0) resume(_i, "", "after a failed allocation");
    }
    printf("%s: %ld of %ld allocations failed: code 5\n", commands[_i].name, tried, last + 1);
}
END_TEST

START_TEST(test_io) {
    if (!commands[_i].io || !chosen(_i)) return;
    whole_run(_i);
    const long last = last_point(_i, "HYBRIDIZE_KILL_IO", 137), step = step_of(_i, last);
    long failed = 0, killed = 0, whole = 0;
    for (long n = 1; n <= last; n += step) {
        const char *kind = n % 2 ? "" : ":ENOSPC", *soft = n % 2 ? ":SHORT" : ":EINTR";
        want(_i, "HYBRIDIZE_FAIL_IO", n, kind, run_with(_i, "HYBRIDIZE_FAIL_IO", n, kind), 4);
        check_left(0);
        resume(_i, "", "after a failed I/O call");
        failed++;
        ck_assert_int_eq(run_with(_i, "HYBRIDIZE_KILL_IO", n, ""), 137);
        check_tree(place("o"), 1);
        if (!commands[_i].resumes) check_left(1);
        resume(_i, n % 3 ? " -t 2" : "", "after kill -9"); // with another number of threads
        killed++;
        if (n % 4 < 2) {
            ck_assert_msg(!run_with(_i, "HYBRIDIZE_FAIL_IO", n, soft), "%s with I/O call %ld%s: %s", commands[_i].name,
                          n, soft, said);
            if (file_exists(place("whole")) == 2) same_tree(place("whole"), place("o"), soft);
            whole++;
        }
    }
    printf("%s: of %ld I/O calls %ld failed (code 4), at %ld kill -9, %ld short or interrupted: resumed to the same "
           "bytes\n",
           commands[_i].name, last, failed, killed, whole);
}
END_TEST

/* The same bytes for 1, 2 and 3 threads, from every stage to the selection and the student. */
START_TEST(test_threads) {
    const int k = COMMANDS - 2; // run
    whole_run(k);
    for (int threads = 2; threads < 4; threads++) {
        char after[64];
        Err e = {0};
        must(file_remove_tree(place("o"), &e), &e);
        snprintf(after, sizeof after, " -t %d", threads);
        ck_assert_msg(!shell("", commands[k].command, after), "%s", said);
        ck_assert_int_ge(same_tree(place("whole"), place("o"), after), 8);
    }
}
END_TEST

SUITE("failures") {
    const char *given = getenv("HYBRIDIZE"), *slash = strrchr(suite_argv[0], '/');
    char relative[1024];
    every = getenv("HYBRIDIZE_EVERY") != NULL;
    snprintf(relative, sizeof relative, "%.*s/../hybridize", slash ? (int)(slash - suite_argv[0]) : 1,
             slash ? suite_argv[0] : ".");
    if (!getcwd(root, sizeof root) || !realpath(given ? given : relative, binary) || access(binary, X_OK)) {
        printf("SKIP no program at %s: failures\n", relative);
        return;
    }
    setenv("ROOT", root, 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("OMP_WAIT_POLICY", "passive", 0);
    // thousands of fsyncs; it is the process that dies here, not the machine
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    const int timeout = every ? 7200 : 240;
    GROUP("io", .setup = begin, .teardown = tmpdir_end, .timeout = timeout);
    CASE(test_io, .times = COMMANDS);
    GROUP("allocations", .setup = begin, .teardown = tmpdir_end, .timeout = timeout);
    CASE(test_allocations, .times = COMMANDS);
    GROUP("threads", .setup = begin, .teardown = tmpdir_end, .timeout = timeout);
    CASE(test_threads);
}
