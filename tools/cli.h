/* cli.h - one description of a command gives its parsing, its --help, its configuration file and its error messages.
 *
 * A command has a name, up to two tables of options (method/options.h) and a function. An option `train_seq_len` is the
 * flag --train-seq-len, the key "train_seq_len" of a --config file, and the key of --set train_seq_len=512:
 * one name, one parser, one default. Dots, dashes and underscores in names are the same thing. Order of precedence:
 * defaults, --official, --config, then flags and --set as they stand. */
#ifndef HYB_CLI_H
#define HYB_CLI_H
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include "base/log.h"
#include "run/options.h"
#include "base/ranks.h"
#include "ops/backend.h"

#ifndef HYB_VERSION
#define HYB_VERSION "0.1.0"
#endif

/* Flags that several commands share; a command names those that it takes. */
enum {
    CLI_MODEL = 1,
    CLI_OUTPUT = 2,
    CLI_SEED = 4,
    CLI_BACKEND = 8 /* --device, --threads */,
    CLI_JSON = 16,
    CLI_DRY_RUN = 32,
    CLI_RESUME = 64 /* --resume, --overwrite, --allow-config-change */,
    CLI_CONFIG = 128 /* --config, --set */,
    CLI_RANKS = 256 /* --ranks, --rank-timeout */
};
typedef struct {
    char model[1024], output[1024], device[64];
    uint64_t seed;
    int threads, ranks, rank_timeout, quiet, verbose, no_color, json, dry_run, resume, overwrite, allow_config_change;
} CliCommon;

typedef struct {
    const OptionTable *(*table)(void);
    size_t size;
    void (*defaults)(void *options); /* NULL: zeros */
    void (*official)(void *options); /* NULL: the command has no --official */
} CliOptions;

typedef struct {
    const char *from, *to;
} CliAlias; /* another name of an option: {"model", "teacher"} */
typedef struct Cli Cli;
typedef struct {
    const char *name, *summary, *usage; /* usage without "hybridize NAME " */
    const char *details;                /* paragraphs for --help, or NULL */
    unsigned common;
    int max_args; /* positional arguments */
    /* "stage1": --lr means --stage1.lr here; "stage*": of the stage that --stage says; or NULL */
    const char *section;
    const char *hidden;    /* "stage2. stage3. ": accepted, but not listed by --help */
    const CliAlias *alias; /* ended by {NULL, NULL}; may be NULL */
    const CliOptions *options[2];
    void (*settle)(void *options); /* of options[0], once all are read: those that bound each other; may be NULL */
    int (*run)(Cli *c, Err *e);
    int (*memory)(Cli *c, Err *e); /* notes for --dry-run: what run would hold; may be NULL */
} Command;

struct Cli {
    const Command *command;
    CliCommon common;
    void *options[2];
    char **arg; /* positional */
    int n_args;
    int help;     /* -h was given: print cli_help and stop */
    int official; /* --official was given */
    ProgressPace pace;
    Progress progress; /* draws on stderr unless --quiet */
    volatile sig_atomic_t *stop;
    Ranks *ranks;      /* processes that train with this one; NULL: none */
    const char *build; /* the commit; may be NULL */
};

/* argv begins after the command's name. On failure *c is closed. */
int cli_parse(Cli *c, const Command *command, int argc, char **argv, Err *e);
void cli_close(Cli *c);
/* Sets one option by its name in any spelling. ERR_USAGE with the nearest name as hint. */
int cli_set(Cli *c, const char *name, const char *value, Err *e);
void cli_help(const Command *command, FILE *to);
/* The resolved configuration as JSON: what --dry-run prints. */
int cli_print_config(const Cli *c, FILE *to, Err *e);
/* ERR_USAGE when a text option is empty: "run: --text is required". */
int cli_require(const Cli *c, const char *value, const char *flag, Err *e);

/* ---- for the commands ---- */

int cli_backend(const Cli *c, Backend **be, Err *e); /* --device, --threads */
/* One line on stderr, after a redrawn progress line if one stands there; not with --quiet. ctx is the Cli:
 * usable as a Warn. */
void cli_note(void *ctx, const char *line);
/* "hybridize: error: ..." and "hint: ..." on stderr; returns e->code. */
int cli_fail(const Err *e);
/* The word nearest to `word` of n words, NULL when none is near. */
const char *cli_nearest(const char *word, const char *const *words, int n);
/* All of a file, or of stdin when path is "-" or empty; NUL-terminated; free with mem_free. */
int cli_read(const char *path, char **text, size_t *len, Err *e);
/* stdout written and flushed? ERR_IO if not (disk full). */
int cli_flush(Err *e);
/* A number that is 1 after SIGINT or SIGTERM: its number. The second signal ends the process. */
volatile sig_atomic_t *cli_stop(void);
void cli_exit_codes(FILE *to);

#endif
