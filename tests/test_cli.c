/* test_cli.c - the command line as a user meets it: tests/cli/ says what to type and what must come back (format:
 * tests/cli/README.md). */
#include "base/file.h"
#include "base/mem.h"
#include "tools/cli.h"
#include "tests/suite.h"
#include <fnmatch.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_CASES = 400, MAX_LINES = 40 };
#ifdef __SANITIZE_ADDRESS__
enum { SOME = 8, IO_STEP = 4 }; // each process starts slowly; the plain build tries every one
#else
enum { SOME = 60, IO_STEP = 1 };
#endif
typedef struct {
    char file[64];
    int line, exit_code, exact; /* exact: stdout must be these lines and no others */
    char *command, *input, *out[MAX_LINES], *err[MAX_LINES];
    int n_out, n_err;
} Case;
static Case cases[MAX_CASES];
static int n_cases;
static char root[1024], binary[1024], work[1024];

/* ---- reading the cases ---- */

static char *append(char *old, const char *line) {
    const size_t n = old ? strlen(old) : 0, m = strlen(line);
    char *p = realloc(old, n + m + 2);
    memcpy(p + n, line, m);
    memcpy(p + n + m, "\n", 2);
    return p;
}

static void case_line(Case **c, const char *file, int number, char *line) {
    line[strcspn(line, "\n")] = 0;
    const char *text = line[0] && line[1] == ' ' ? line + 2 : line + strlen(line);
    if (line[0] == '$') {
        if (n_cases == MAX_CASES) abort();
        *c = &cases[n_cases++];
        snprintf((*c)->file, sizeof(*c)->file, "%.60s", file);
        (*c)->line = number;
        (*c)->command = strdup(text);
        (*c)->exact = 1;
    } else if (!*c) return;
    else if (line[0] == '<') (*c)->input = append((*c)->input, text);
    else if (line[0] == '>' && (*c)->n_out < MAX_LINES) (*c)->out[(*c)->n_out++] = strdup(text);
    else if (line[0] == '!' && (*c)->n_err < MAX_LINES) (*c)->err[(*c)->n_err++] = strdup(text);
    else if (line[0] == '=') (*c)->exit_code = (int)strtol(text, NULL, 10);
    else if (line[0] == '*') (*c)->exact = 0;
}

static void cases_read(const char *dir) {
    char **names, path[1200], line[4096];
    size_t n;
    Err e = {0};
    if (file_list(&names, &n, dir, &e)) return;
    for (size_t i = 0; i < n; i++) {
        Case *c = NULL;
        const size_t len = strlen(names[i]);
        if (len < 5 || strcmp(names[i] + len - 5, ".case")) continue;
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        FILE *f = fopen(path, "r");
        for (int number = 1; f && fgets(line, sizeof line, f); number++) case_line(&c, names[i], number, line);
        if (f) fclose(f);
    }
    file_list_free(names, n);
}

/* ---- running one ---- */

/* The command runs under sh in the work directory, with $ROOT and, by name, hybridize. */
static int shell(const Case *c) {
    char path[1200];
    Err e = {0};
    snprintf(path, sizeof path, "%s/in", work);
    ck_assert_int_eq(file_write_all(path, c->input ? c->input : "", c->input ? strlen(c->input) : 0, &e), OK);
    const pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (!pid) {
        // A shell function would change how signals and exit codes look; a directory with a link of the right name does
        // not.
        if (chdir(work) || !freopen("in", "r", stdin) || !freopen("out", "w", stdout) || !freopen("err", "w", stderr))
            _exit(99);
        execl("/bin/sh", "sh", "-c", c->command, (char *)NULL);
        _exit(98);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static char *slurp(const char *name) {
    char path[1200], *text;
    size_t len;
    Err e = {0};
    snprintf(path, sizeof path, "%s/%s", work, name);
    if (cli_read(path, &text, &len, &e)) ck_abort_msg("%s", e.msg);
    return text;
}

/* Lines of text against patterns, in order. exact: every line has its pattern; else the patterns are found in this
 * order. */
static int lines_match(char *text, char *const *pattern, int n, int exact, char *why, size_t cap) {
    int k = 0;
    for (char *p = text; *p;) {
        char *end = p + strcspn(p, "\n"), *next = *end ? end + 1 : end;
        *end = 0;
        if (k < n && !fnmatch(pattern[k], p, 0)) k++;
        else if (exact) {
            snprintf(why, cap, "got \"%.300s\", expected \"%.300s\"", p, k < n ? pattern[k] : "(nothing more)");
            return 0;
        }
        p = next;
    }
    if (k < n) snprintf(why, cap, "no line matches \"%.300s\"", pattern[k]);
    return k == n;
}

START_TEST(test_case) {
    const Case *c = &cases[_i];
    char why[1024] = "";
    const int code = shell(c);
    char *out = slurp("out"), *err = slurp("err");
    if (code != c->exit_code)
        ck_abort_msg("%s:%d: %s: exit code %d, expected %d; stderr: %.600s", c->file, c->line, c->command, code,
                     c->exit_code, err);
    if (c->exit_code && !c->n_err && *err == 0)
        ck_abort_msg("%s:%d: %s: failed without a word", c->file, c->line, c->command);
    char *shown = strdup(err);
    if (!lines_match(out, c->out, c->n_out, c->exact, why, sizeof why))
        ck_abort_msg("%s:%d: %s: stdout: %s; stderr: %.400s", c->file, c->line, c->command, why, shown);
    if (!lines_match(err, c->err, c->n_err, 0, why, sizeof why))
        ck_abort_msg("%s:%d: %s: stderr: %s; it is: %.600s", c->file, c->line, c->command, why, shown);
    free(shown);
    mem_free(out);
    mem_free(err);
}
END_TEST

/* ---- every allocation and every I/O call of a command fails once ---- */

static const char *const fault_commands[] = {
    "hybridize inspect teacher/model --json",
    "hybridize inspect $ROOT/testdata/bad/ok_sharded --check-finite",
    "hybridize tokenize -m teacher/model --json text",
    "echo 1 2 3 | hybridize detokenize -m teacher/model",
    "hybridize eval -m teacher/model --ids ids.json --seq-len 4 --device ref32",
    "hybridize generate -m teacher/model --prompt ab --max-new-tokens 3 --device ref32",
    "hybridize run -m teacher/model --text text -o r --config c.json --dry-run",
};

static int run_with(const char *variable, long n, const char *command) {
    char line[1024];
    snprintf(line, sizeof line, "%s=%ld; export %s; %s", variable, n, variable, command);
    Case c = {.command = line};
    return shell(&c);
}

START_TEST(test_allocations) {
    int failures = 0;
    for (long n = 0, step = 1;; n += step) {
        const int code = run_with("HYBRIDIZE_FAIL_ALLOC", n, fault_commands[_i]);
        char *err = slurp("err");
        if (code == 0) {
            mem_free(err);
            break;
        }
        if (code != ERR_MEMORY || !strstr(err, "hybridize: error: ") || strstr(err, "Sanitizer"))
            ck_abort_msg("%s with allocation %ld failing: exit code %d: %.400s", fault_commands[_i], n, code, err);
        mem_free(err);
        failures++;
        if (n >= SOME) step = 7; // all of the first ones, a sample of the rest
        ck_assert_int_lt(n, 3000);
    }
    ck_assert_int_ge(failures, 3);
}
END_TEST

START_TEST(test_io_calls) {
    static const char *const command =
        "rm -rf io; hybridize pretrain --text text -o io --config tiny.json --steps 2 --save-every 1 --device ref32 -q";
    int failures = 0;
    for (long n = 1;; n += IO_STEP) {
        const int code = run_with("HYBRIDIZE_FAIL_IO", n, command);
        char *err = slurp("err");
        if (code == 0) {
            mem_free(err);
            break;
        }
        if (code != ERR_IO || !strstr(err, "hybridize: error: ") || strstr(err, "Sanitizer"))
            ck_abort_msg("I/O call %ld failing: exit code %d: %.400s", n, code, err);
        mem_free(err);
        if (!failures++ || n % 5 == 0) { // what is left behind can be gone on with
            Case again = {.command = "hybridize pretrain --text text -o io --config tiny.json --steps 2 --save-every 1 "
                                     "--device ref32 -q --resume"};
            const int rc = shell(&again);
            err = slurp("err");
            if (rc) ck_abort_msg("resume after I/O call %ld failed: exit code %d: %.400s", n, rc, err);
            mem_free(err);
        }
        ck_assert_int_lt(n, 1000);
    }
    ck_assert_int_ge(failures, 10);
}
END_TEST

/* ---- the parser by itself ---- */

typedef struct {
    int n, flag, pick;
    double x;
    int64_t big;
    char text[8];
} Probe;
static const Option probe_rows[] = {
    {"n", "", OPT_INT, offsetof(Probe, n), -5, 100, NULL, AFFECTS_EVALUATION},
    {"stage1.flag", "", OPT_BOOL, offsetof(Probe, flag), 0, 0, NULL, AFFECTS_EVALUATION},
    {"pick", "", OPT_CHOICE, offsetof(Probe, pick), 0, 0, "red|green", AFFECTS_EVALUATION},
    {"stage1.x_rate", "", OPT_REAL, offsetof(Probe, x), 0, 1, NULL, AFFECTS_EVALUATION},
    {"big", "", OPT_I64, offsetof(Probe, big), 0, 1e15, NULL, AFFECTS_EVALUATION},
    {"text", "", OPT_TEXT, offsetof(Probe, text), 0, 8, NULL, AFFECTS_EVALUATION},
};
static const OptionTable probe_table = {probe_rows, 6};
static const OptionTable *get_probe(void) { return &probe_table; }
static void probe_official(void *p) { ((Probe *)p)->n = 77; }
static const CliOptions probe_options = {get_probe, sizeof(Probe), NULL, probe_official};
static const CliAlias probe_alias[] = {{"model", "text"}, {NULL, NULL}};
static const Command probe = {.name = "probe",
                              .usage = "[X]",
                              .common = CLI_SEED | CLI_CONFIG,
                              .max_args = 1,
                              .section = "stage1",
                              .alias = probe_alias,
                              .options = {&probe_options}};

static const struct {
    const char *args[8];
    int code;
    Probe want;
    uint64_t seed;
    const char *hint;
} lines[] = {
    {{"--n", "3"}, 0, {.n = 3}, 42, NULL},
    {{"--n=-3"}, 0, {.n = -3}, 42, NULL},
    {{"--n", "-3"}, 0, {.n = -3}, 42, NULL},
    {{"--stage1.flag"}, 0, {.flag = 1}, 42, NULL},
    {{"--stage1-flag"}, 0, {.flag = 1}, 42, NULL},
    {{"--flag", "pos"}, 0, {.flag = 1}, 42, NULL},
    {{"--flag=true", "--no-flag"}, 0, {.flag = 0}, 42, NULL},
    {{"--x-rate", "1e-4", "--x-rate", "0.5"}, 0, {.x = 0.5}, 42, NULL},
    {{"--x_rate=0.25"}, 0, {.x = 0.25}, 42, NULL},
    {{"--big", "1_000_000"}, 0, {.big = 1000000}, 42, NULL},
    {{"--pick=green", "-s", "7"}, 0, {.pick = 1}, 7, NULL},
    {{"-m", "abc", "--seed=18446744073709551615"}, 0, {.text = "abc"}, UINT64_MAX, NULL},
    {{"--set", "stage1.x_rate=1", "--set", "n=5"}, 0, {.x = 1, .n = 5}, 42, NULL},
    {{"--official"}, 0, {.n = 77}, 42, NULL},
    {{"--n", "1", "--official"}, 0, {.n = 1}, 42, NULL},
    {{"--", "--n"}, 0, {.n = 0}, 42, NULL},
    {{"--n"}, ERR_USAGE, {0}, 0, NULL},
    {{"--n", "--flag"}, ERR_USAGE, {0}, 0, NULL},
    {{"--n", "3x"}, ERR_USAGE, {0}, 0, NULL},
    {{"--n", "101"}, ERR_USAGE, {0}, 0, NULL},
    {{"--n", ""}, ERR_USAGE, {0}, 0, NULL},
    {{"--x-rate", "nan"}, ERR_USAGE, {0}, 0, NULL},
    {{"--seed", "-1"}, ERR_USAGE, {0}, 0, NULL},
    {{"--text", "12345678"}, ERR_USAGE, {0}, 0, NULL},
    {{"--pick", "blue"}, ERR_USAGE, {0}, 0, NULL},
    {{"--flag=maybe"}, ERR_USAGE, {0}, 0, NULL},
    {{"--x-rat", "1"}, ERR_USAGE, {0}, 0, "did you mean --stage1.x_rate?"},
    {{"--pikc", "red"}, ERR_USAGE, {0}, 0, "did you mean --pick?"},
    {{"--set", "nn=1"}, ERR_USAGE, {0}, 0, "did you mean --n?"},
    {{"--set", "n"}, ERR_USAGE, {0}, 0, NULL},
    {{"-x"}, ERR_USAGE, {0}, 0, NULL},
    {{"--threads", "2"}, ERR_USAGE, {0}, 0, NULL}, // this command does not take it
    {{"a", "b"}, ERR_USAGE, {0}, 0, "usage: hybridize probe [X]"},
    {{"--config", "tests/cli/none.json"}, ERR_IO, {0}, 0, NULL},
};

START_TEST(test_parser) {
    char *args[8];
    int n = 0;
    Cli c;
    Err e = {0};
    for (; lines[_i].args[n]; n++) args[n] = (char *)(uintptr_t)lines[_i].args[n];
    const size_t before = mem_now();
    const int rc = cli_parse(&c, &probe, n, args, &e);
    ck_assert_msg(rc == lines[_i].code, "line %d: code %d, expected %d: %s", _i, rc, lines[_i].code, e.msg);
    if (rc) {
        ck_assert_int_eq(e.code, rc);
        if (lines[_i].hint) ck_assert_str_eq(e.hint, lines[_i].hint);
    } else {
        ck_assert_msg(!memcmp(c.options[0], &lines[_i].want, sizeof(Probe)), "line %d: other values", _i);
        ck_assert(c.common.seed == lines[_i].seed);
    }
    cli_close(&c);
    ck_assert_uint_eq(mem_now(), before);
}
END_TEST

/* ---- */

static void paths_open(const char *self) {
    const char *given = getenv("HYBRIDIZE"), *slash = strrchr(self, '/');
    char path[2300], old[4096], link[1200], relative[1024];
    if (!getcwd(root, sizeof root)) abort();
    snprintf(relative, sizeof relative, "%.*s/../hybridize", slash ? (int)(slash - self) : 1, slash ? self : ".");
    if (!realpath(given ? given : relative, binary)) snprintf(binary, sizeof binary, "%.1000s", relative);
    snprintf(work, sizeof work, "%.900s/build/test_cli_XXXXXX", root);
    if (file_mkdirs("build", NULL) || !mkdtemp(work)) abort();
    snprintf(link, sizeof link, "%s/bin", work);
    if (file_mkdirs(link, NULL)) abort();
    snprintf(link, sizeof link, "%s/bin/hybridize", work);
    if (symlink(binary, link)) abort();
    snprintf(old, sizeof old, "%s", getenv("PATH"));
    snprintf(path, sizeof path, "%s/bin:%.1200s", work, old);
    setenv("PATH", path, 1);
    setenv("ROOT", root, 1);
    setenv("OMP_WAIT_POLICY", "passive", 0); // many short processes: no spinning
}

/* What a failed case left is kept for a look. */
static void keep_what_failed(int failed) {
    if (failed) printf("left for a look: %s\n", work);
    else file_remove_tree(work, NULL);
}

SUITE("cli") {
    paths_open(suite_argv[0]);
    cases_read("tests/cli");
    suite_after = keep_what_failed;
    GROUP("parser");
    CASE(test_parser, .times = sizeof lines / sizeof *lines);
    if (access(binary, X_OK)) {
        printf("SKIP no program at %s: golden cases and faults\n", binary);
        return;
    }
    GROUP("golden");
    CASE(test_case, .times = n_cases);
    GROUP("faults", .timeout = 240);
    CASE(test_allocations, .times = sizeof fault_commands / sizeof *fault_commands);
    CASE(test_io_calls);
}
