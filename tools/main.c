/* main.c - hybridize: one binary, one subcommand at a time. */
#include "base/mem.h"
#include "ops/backend.h"
#include "tools/cli.h"
#include "tools/cli_pages.h"
#include "tools/launch.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef GIT_ID
#define GIT_ID ""
#endif

extern const Command cmd_run, cmd_pretrain, cmd_align, cmd_score, cmd_select, cmd_distill, cmd_merge, cmd_compare,
    cmd_eval, cmd_generate, cmd_tokenize, cmd_detokenize, cmd_inspect, cmd_convert, cmd_export, cmd_diff, cmd_probe,
    cmd_gradcheck, cmd_bench;
static const Command *const commands[] = {&cmd_run,      &cmd_pretrain,   &cmd_align,     &cmd_score,   &cmd_select,
                                          &cmd_distill,  &cmd_merge,      &cmd_compare,   &cmd_eval,    &cmd_generate,
                                          &cmd_tokenize, &cmd_detokenize, &cmd_inspect,   &cmd_convert, &cmd_export,
                                          &cmd_diff,     &cmd_probe,      &cmd_gradcheck, &cmd_bench};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void overview(const Command *none, FILE *to) {
    (void)none;
    fputs("usage: hybridize COMMAND [options]\n\n"
          "Turns a softmax Transformer into a hybrid of softmax and linear attention, and finds out which "
          "layers must stay softmax.\n\n"
          "commands:\n",
          to);
    for (int i = 0; i < COMMANDS; i++) fprintf(to, "  %-11s %s\n", commands[i]->name, commands[i]->summary);
    fputs("  help        This text, or the options of a command: hybridize help COMMAND\n\n"
          "  -h, --help      this text\n"
          "  -V, --version   version, compiler, backends, code paths on this machine\n",
          to);
    cli_exit_codes(to);
}

/* cuda/ is not included from here: these are what it exports (cuda_backend.h). */
#ifdef HAVE_CUDA
int cuda_backend_open(Backend **b, const char *name, int threads, Err *e);
#endif
#ifdef HAVE_CUDA_EMU
int cuda_emu_backend_open(Backend **b, const char *name, int threads, Err *e);
#endif
static void backends(void) {
#ifdef HAVE_CUDA
    backend_register("cuda", cuda_backend_open);
#endif
#ifdef HAVE_CUDA_EMU
    backend_register("cuda-emu", cuda_emu_backend_open); /* for gradcheck: the same kernels, very slowly */
#endif
}

/* The commit, how it was built, and what it runs on this machine. */
static int version(Err *e) {
    printf("hybridize %s%s%s%s\n", HYB_VERSION, *GIT_ID ? " (" : "", GIT_ID, *GIT_ID ? ")" : "");
#if defined(__clang__)
    printf("compiler: clang %s\n", __clang_version__);
#elif defined(__GNUC__)
    printf("compiler: gcc %s\n", __VERSION__);
#endif
    char text[256];
    backend_names(text, sizeof text);
    printf("backends: %s\n", text);
    TRY(backend_paths(text, sizeof text, e));
    puts(text);
    return OK;
}

static const Command *find(const char *name, Err *e) {
    const char *names[COMMANDS + 1] = {"help"};
    for (int i = 0; i < COMMANDS; i++) {
        if (!strcmp(commands[i]->name, name)) return commands[i];
        names[i + 1] = commands[i]->name;
    }
    err_set(e, ERR_USAGE, "unknown command \"%s\"", name);
    const char *near = cli_nearest(name, names, COMMANDS + 1);
    if (near) err_hint(e, "did you mean hybridize %s?", near);
    else err_hint(e, "hybridize --help lists the commands");
    return NULL;
}

static int help(int argc, char **argv, Err *e) {
    if (argc > 1) return err_set(e, ERR_USAGE, "help: expected one command");
    if (!argc) return overview(NULL, stdout), OK;
    // for make install; no command has these names
    if (!strcmp(argv[0], "man")) return cli_man(commands, COMMANDS, overview, stdout, e);
    if (!strcmp(argv[0], "completion")) return cli_completion(commands, COMMANDS, stdout), OK;
    const Command *c = find(argv[0], e);
    if (c) cli_help(c, stdout);
    return c ? OK : e->code;
}

/* tools/ranks_mpi.c, with make MPI=1. */
#ifdef HAVE_MPI
extern const RanksEngine ranks_mpi;
static const RanksEngine *const engine = &ranks_mpi;
#else
static const RanksEngine *const engine = NULL;
#endif

static int command_run(Cli *c, Err *e) {
    c->build = GIT_ID;
    int rc = launch_open(c, engine, e);
    if (!rc) rc = launch_same(c, e);
    c->stop = cli_stop(); // MPI has its own handlers
    if (!rc) rc = c->command->run(c, e);
    fputs(progress_break(&c->pace), stderr);
    if (!rc) rc = cli_flush(e);
    if (!c->ranks) return rc;
    char line[128];
    snprintf(line, sizeof line, "%d ranks; the first sent %llu bytes in %llu messages", c->ranks->size,
             (unsigned long long)c->ranks->bytes, (unsigned long long)c->ranks->messages);
    if (!rc && ranks_first(c->ranks)) cli_note(c, line);
    return engine->close(c->ranks, rc ? e : NULL);
}

static int dry_run(Cli *c, Err *e) {
    TRY(cli_print_config(c, stdout, e));
    return c->command->memory ? c->command->memory(c, e) : OK;
}

static int command(const Command *k, int argc, char **argv, Err *e) {
    Cli c;
    TRY(cli_parse(&c, k, argc, argv, e));
    int rc = OK;
    if (c.help) cli_help(k, stdout);
    else if (c.common.dry_run) rc = launch_rank() ? OK : dry_run(&c, e);
    else rc = command_run(&c, e);
    cli_close(&c);
    return rc;
}

/* gcc's OpenMP reads its environment before main, so it is set for a second start of the same program:
 * a thread that waits for the others turns for some 20 microseconds and then sleeps. Its default, 100 times as long,
 * makes every loop wait for the scheduler on a machine that has anything else to do (measured:
 * 40 ms for a loop of 0.2 ms). Numbers do not depend on it. */
static void short_spin(char **argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    setenv("GOMP_SPINCOUNT", "5000", 1);
    execv("/proc/self/exe", argv); // where there is no such file, everything works as well
}

int main(int argc, char **argv) {
    Err e = {0};
    short_spin(argv);
    int rc = OK;
    backends();
    if (argc < 2) {
        overview(NULL, stderr);
        return ERR_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "-h") || !strcmp(name, "--help")) overview(NULL, stdout);
    else if (!strcmp(name, "-V") || !strcmp(name, "--version")) rc = version(&e);
    else if (!strcmp(name, "help")) rc = help(argc - 2, argv + 2, &e);
    else {
        const Command *k = find(name, &e);
        rc = k ? command(k, argc - 2, argv + 2, &e) : e.code;
    }
    if (!rc) rc = cli_flush(&e);
    return rc && launch_rank() ? rc : rc ? cli_fail(&e) : OK; // what all ranks meet before they talk is said once
}
