/* cmd_merge.c - merge: scores made on machines that share no folder, brought into one run directory. */
#include "run/merge.h"
#include "tools/cli.h"

static int merge(Cli *c, Err *e) {
    char line[1200];
    int taken;
    if (c->n_args < 2) {
        err_set(e, ERR_USAGE, "merge: expected RUNDIR and at least one other run directory");
        return err_hint(e, "hybridize merge RUNDIR COPY-1 COPY-2");
    }
    for (int i = 1; i < c->n_args; i++) {
        TRY(run_merge(c->arg[0], c->arg[i], &taken, e));
        snprintf(line, sizeof line, "%.500s: %d records from %.500s", c->arg[0], taken, c->arg[i]);
        cli_note(c, line);
    }
    return OK;
}

const Command cmd_merge = {
    .name = "merge",
    .summary = "Takes the scores that score --pieces made elsewhere into one run directory.",
    .usage = "RUNDIR OTHER...",
    .details =
        "For machines that share no folder: align once, copy RUNDIR to every machine, score --pieces i/n --resume "
        "there, copy the\n"
        "directories back, merge, and go on with score or run --resume. Runs of other options, inputs or devices "
        "are refused.\n"
        "Machines that see the same folder need none of it: started on one RUNDIR, they share the work.",
    .max_args = 64,
    .run = merge,
};
