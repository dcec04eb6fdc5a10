/* test_hostile_files.c - files made to harm, with the verdict in the name: testdata/hostile (tokenizers, checkpoints,
 * token shards, GGUF, JSON), testdata/st (safetensors) and testdata/bad (model directories, verdicts in cases.txt).
 * Each goes through the reader, and then through the program in a process of its own: verdict, exit code, one line with
 * the file's name, 2 seconds, twice the file and 64 MB. */
#include "base/mem.h"
#include "io/gguf.h"
#include "base/json.h"
#include "io/safetensors.h"
#include "run/checkpoint.h"
#include "text/dataset.h"
#include "text/tokenizer.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
enum { STEP = 9, MEASURED = 0 }; // each process starts slowly, and what was freed stays
#else
enum { STEP = 1, MEASURED = 1 };
#endif

static void must(int rc, const Err *e) {
    if (rc) ck_abort_msg("code %d: %s (%s)", rc, e->msg, e->hint);
}

/* ---- the readers: path in, code and message out; everything closed again ---- */

static int read_tok(const char *path, Err *e) {
    Tokenizer *t;
    const int rc = tokenizer_open(&t, path, e);
    tokenizer_close(t);
    return rc;
}
static int read_ckpt(const char *path, Err *e) {
    File f;
    CheckpointState s;
    TRY(file_open(&f, path, e));
    const int rc = checkpoint_parse(&s, (const char *)f.data, f.size, path, e);
    file_close(&f);
    return rc;
}
static int read_shard(const char *path, Err *e) {
    Dataset d;
    const int rc = dataset_open(&d, &path, 1, e);
    dataset_close(&d);
    return rc;
}
static int read_gguf(const char *path, Err *e) {
    Gguf g;
    const int rc = gguf_open(&g, path, e);
    gguf_close(&g);
    return rc;
}
static int read_json(const char *path, Err *e) {
    Json j;
    const int rc = json_open(&j, path, e);
    json_free(&j);
    return rc;
}
static int read_st(const char *path, Err *e) {
    Safetensors s;
    const int rc = safetensors_open(&s, path, e);
    safetensors_close(&s);
    return rc;
}

/* before and after the file's name on the command line; refuses_ok: the program wants more than a well-formed file of
 * this kind. */
static const struct {
    const char *dir;
    int (*read)(const char *path, Err *e);
    const char *before, *after;
    int refuses_ok, least;
} kinds[] = {
    {"testdata/hostile/tok", read_tok, "tokenize -m ", "", 0, 90},
    {"testdata/hostile/ckpt", read_ckpt, "inspect ", "", 1, 50},
    {"testdata/hostile/shard", read_shard, "inspect ", "", 0, 30},
    {"testdata/hostile/gguf", read_gguf, "convert --from-gguf ", " -o build/hostile-none", 1, 60},
    {"testdata/hostile/json", read_json, NULL, NULL, 0, 60},
    {"testdata/st", read_st, "inspect ", "", 0, 130},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

START_TEST(test_readers) {
    char **names, path[400];
    size_t n;
    int wrong = 0;
    Err e = {0};
    must(file_list(&names, &n, kinds[_i].dir, &e), &e);
    const size_t before = mem_now();
    for (size_t i = 0; i < n; i++) {
        Err got = {0};
        snprintf(path, sizeof path, "%s/%s", kinds[_i].dir, names[i]);
        const int good = !strncmp(names[i], "ok_", 3), rc = kinds[_i].read(path, &got);
        ck_assert_msg(good || !strncmp(names[i], "bad_", 4), "%s: no verdict in its name", path);
        if (rc == (good ? OK : ERR_INPUT) && got.code == rc &&
            (good || (strstr(got.msg, path) == got.msg && !strchr(got.msg, '\n'))))
            continue;
        printf("%s: code %d: \"%s\"\n", path, rc, got.msg);
        wrong++;
    }
    ck_assert_uint_eq(mem_now(), before);
    ck_assert_int_eq(wrong, 0);
    ck_assert_int_ge(n, kinds[_i].least);
    file_list_free(names, n);
}
END_TEST

/* Text that breaks the terminal, in every place that a message quotes. */
START_TEST(test_messages_are_clean) {
    static const char *const text[] = {"{\"a\\u001b[31m\\n\":1,\"a\\u001b[31m\\n\":1}", "{\"x\":\"\x1b\"}", "\x1b[2J",
                                       "{\"\\u009b1m\":0,\"\\u009b1m\":0}"};
    Err e = {0};
    Json j;
    ck_assert_int_eq(json_parse(&j, text[_i], strlen(text[_i]), "f", &e), ERR_INPUT);
    for (const unsigned char *p = (const unsigned char *)e.msg; *p; p++) {
        ck_assert_msg(*p >= 0x20 && *p != 0x7f, "byte %02x in: %s", *p, e.msg);
        ck_assert_msg(!(p[0] == 0xc2 && p[1] < 0xa0), "a C1 control in: %s", e.msg);
    }
}
END_TEST

/* ---- the program ---- */

static char binary[1200];
typedef struct {
    int code;
    double seconds;
    size_t bytes;
    char out[4000];
} Ran;

/* Runs the command, with nothing on stdin; stderr comes back. */
static Ran program(const char *arguments) {
    Ran r = {0};
    char line[3000];
    const char *err = tmpdir_path("err");
    snprintf(line, sizeof line, "exec '%s' %s </dev/null >/dev/null 2>'%s'", binary, arguments, err);
    const pid_t pid = fork();
    if (!pid) {
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(98);
    }
    struct rusage u;
    int status = 0;
    ck_assert_int_eq(wait4(pid, &status, 0, &u), pid);
    r.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    r.seconds =
        (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    r.bytes = (size_t)u.ru_maxrss * 1024;
    File f;
    Err e = {0};
    must(file_open(&f, err, &e), &e);
    snprintf(r.out, sizeof r.out, "%.*s", (int)f.size, (const char *)f.data);
    file_close(&f);
    return r;
}

static double worst_seconds;
static size_t worst_bytes;

/* NULL, or what is wrong: "hybridize: error: " with the path, and at most one more line, the hint. */
static const char *verdict(const Ran *r, int want, const char *path, size_t size) {
    static const char begin[] = "hybridize: error: ";
    if (r->code != want) return "exit code";
    if (r->seconds > worst_seconds) worst_seconds = r->seconds;
    if (r->bytes > worst_bytes) worst_bytes = r->bytes;
    if (MEASURED && r->seconds > 2) return "more than 2 s";
    if (MEASURED && r->bytes > 2 * size + (64 << 20)) return "more than 2 x the file + 64 MB";
    if (!want) return NULL;
    const char *second = strchr(r->out, '\n');
    if (strncmp(r->out, begin, strlen(begin)) || !strstr(r->out, path) || !second) return "message";
    second++;
    if (*second && (strncmp(second, "hint: ", 6) || strchr(second, '\n') != second + strlen(second) - 1))
        return "more than a line and a hint";
    return NULL;
}

static int told(const char *arguments, int want, const char *path, size_t size) {
    const Ran r = program(arguments);
    const char *wrong = verdict(&r, want, path, size);
    if (wrong)
        printf("hybridize %s: %s: code %d, wanted %d, %.2f s, %zu MB: %s\n", arguments, wrong, r.code, want, r.seconds,
               r.bytes >> 20, r.out);
    return wrong != NULL;
}

/* A checkpoint is a directory: one with this state.json. */
static void checkpoint_dir(const char *file, char *dir, size_t cap) {
    Err e = {0};
    char state[1300];
    snprintf(dir, cap, "%s/ckpt", tmpdir);
    must(file_mkdirs(dir, &e), &e);
    snprintf(state, sizeof state, "%s/state.json", dir);
    must(file_copy(file, state, &e), &e);
}

START_TEST(test_program) {
    char **names, path[400], shown[1200], line[2600];
    size_t n;
    int wrong = 0;
    Err e = {0};
    if (!kinds[_i].before) return; // no command reads it
    must(file_list(&names, &n, kinds[_i].dir, &e), &e);
    for (size_t i = 0; i < n; i += STEP) {
        File f;
        snprintf(path, sizeof path, "%s/%s", kinds[_i].dir, names[i]);
        must(file_open(&f, path, &e), &e);
        const size_t size = f.size;
        file_close(&f);
        snprintf(shown, sizeof shown, "%s", path);
        if (_i == 1) checkpoint_dir(path, shown, sizeof shown);
        snprintf(line, sizeof line, "%s'%s'%s", kinds[_i].before, shown, kinds[_i].after);
        const int good = !strncmp(names[i], "ok_", 3);
        if (good && kinds[_i].refuses_ok) continue;
        wrong += told(line, good ? OK : ERR_INPUT, shown, size);
    }
    file_list_free(names, n);
    ck_assert_int_eq(wrong, 0);
    ck_assert_int_eq(file_exists("build/hostile-none"), 0);
    printf("%s: %zu files, at most %.2f s and %zu MB\n", kinds[_i].dir, n, worst_seconds, worst_bytes >> 20);
}
END_TEST

START_TEST(test_directories) {
    char text[512], name[64], path[300], line[400];
    int code, n = 0, wrong = 0;
    FILE *f = fopen("testdata/bad/cases.txt", "r");
    ck_assert_ptr_nonnull(f);
    while (fgets(text, sizeof text, f)) {
        ck_assert_int_eq(sscanf(text, "%63[^|]|%d|", name, &code), 2);
        if (n++ % STEP) continue;
        // for inspect, which knows other directories, it is of no kind at all
        if (!strcmp(name, "config_missing")) code = ERR_INPUT;
        snprintf(path, sizeof path, "testdata/bad/%s", name);
        snprintf(line, sizeof line, "inspect --check-finite '%s'", path);
        wrong += told(line, code, path, 4096);
    }
    fclose(f);
    ck_assert_int_eq(wrong, 0);
    ck_assert_int_ge(n, 140);
    printf("testdata/bad: %d directories, at most %.2f s and %zu MB\n", n, worst_seconds, worst_bytes >> 20);
}
END_TEST

SUITE("hostile_files") {
    const char *given = getenv("HYBRIDIZE"), *slash = strrchr(suite_argv[0], '/');
    char relative[1024];
    snprintf(relative, sizeof relative, "%.*s/../hybridize", slash ? (int)(slash - suite_argv[0]) : 1,
             slash ? suite_argv[0] : ".");
    snprintf(binary, sizeof binary, "%s", given ? given : relative);
    setenv("OMP_NUM_THREADS", "1", 1);
    setvbuf(stdout, NULL, _IOLBF, 0); // a test that fails does not flush
    GROUP("readers");
    CASE(test_readers, .times = KINDS);
    CASE(test_messages_are_clean, .times = 4);
    if (access(binary, X_OK)) {
        printf("SKIP no program at %s: what it says to hostile files\n", binary);
        return;
    }
    GROUP("program", .setup = tmpdir_begin, .teardown = tmpdir_end, .timeout = 240);
    CASE(test_program, .times = KINDS);
    CASE(test_directories);
}
