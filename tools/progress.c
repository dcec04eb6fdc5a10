/* progress.c - the progress line on stderr, notes between its lines, and the signals that ask a run to stop. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli.h"
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop_signal; /* the one global a signal handler needs */

static void on_signal(int number) { stop_signal = number; }

volatile sig_atomic_t *cli_stop(void) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    a.sa_flags = (int)SA_RESETHAND; // a second signal ends the process at once
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    return &stop_signal;
}

static void report(void *ctx, const ProgressLine *line) {
    Cli *c = ctx;
    char text[512];
    const size_t n = progress_draw(&c->pace, log_now(), text, sizeof text, line);
    if (n) fwrite(text, 1, n, stderr);
}

void cli_progress(Cli *c) {
    c->pace = (ProgressPace){.tty = isatty(STDERR_FILENO), .quiet = c->common.quiet};
    c->progress = (Progress){report, c};
}

void cli_note(void *ctx, const char *line) {
    Cli *c = ctx;
    if (c->common.quiet) return;
    fprintf(stderr, "%s%s\n", progress_break(&c->pace), line);
}
