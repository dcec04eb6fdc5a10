/* launch.c - see launch.h. */
#include "tools/launch.h"
#include "base/file.h"
#include "base/mem.h"
#include "run/checkpoint.h"
#include <stdlib.h>
#include <string.h>

/* What Open MPI's launcher leaves in the environment, or MPICH's; srun may leave the latter for any program. */
static int launched(const char *openmpi, const char *mpich) {
    const char *s = getenv(openmpi);
    if (!s && !getenv("SLURM_PROCID")) s = getenv(mpich);
    return s ? (int)strtol(s, NULL, 10) : 0;
}
int launch_size(void) {
    const int n = launched("OMPI_COMM_WORLD_SIZE", "PMI_SIZE");
    return n > 0 ? n : 1;
}
int launch_rank(void) { return launched("OMPI_COMM_WORLD_RANK", "PMI_RANK"); }

/* One device a rank: those of a machine are numbered as its ranks are. */
static void device_own(Cli *c) {
    char *device = c->common.device;
    const size_t n = strlen(device);
    if (!strncmp(device, "cuda", 4) && strncmp(device, "cuda-emu", 8) && !strchr(device, ':'))
        snprintf(device + n, sizeof c->common.device - n, ":%d", c->ranks->local);
}

int launch_open(Cli *c, const RanksEngine *engine, Err *e) {
    const int started = launch_size(), asked = c->common.ranks;
    if (started < 2 && asked < 2) return OK;
    if (!(c->command->common & CLI_RANKS))
        return err_set(
            e, ERR_USAGE,
            "%s: got %d ranks, expected one: only pretrain, align, score, select, distill, run and bench take more",
            c->command->name, started > 1 ? started : asked);
    if (!engine) {
        err_set(e, ERR_USAGE, "ranks: got %d, but this program was built without MPI", started > 1 ? started : asked);
        return err_hint(e, "build it with make MPI=1, which needs mpicc (Debian, Ubuntu: libopenmpi-dev)");
    }
    TRY(engine->open(&c->ranks, c->common.rank_timeout, e));
    if (asked && asked != c->ranks->size) {
        err_set(e, ERR_USAGE, "ranks: got %d, but %d were started", asked, c->ranks->size);
        return err_hint(e, "mpirun -n %d hybridize ..., or srun --mpi=pmix -n %d", asked, asked);
    }
    device_own(c);
    if (ranks_first(c->ranks)) return OK;
    file_read_only(1);
    c->common.quiet = c->pace.quiet = 1;
    return OK;
}

/* ---------------------------------------------------------------- the same on all ranks */

static int options_same(const Cli *c, int k, Err *e) {
    const CliOptions *o = c->command->options[k];
    void *first;
    char x[4096], y[4096];
    TRY(mem_alloc(&first, o->size, "options of rank 0", e));
    memcpy(first, c->options[k], o->size);
    int rc = ranks_share(c->ranks, first, o->size, e);
    const Option *d = rc ? NULL : options_differ(o->table(), first, c->options[k], ~0u);
    if (d) {
        options_get(d, first, x, sizeof x);
        options_get(d, c->options[k], y, sizeof y);
        rc = err_set(e, ERR_USAGE, "option '%s' is '%.100s' here and '%.100s' at rank 0", d->key, y, x);
    }
    mem_free(first);
    return rc;
}

int launch_same(const Cli *c, Err *e) {
    char paths[256];
    if (ranks_count(c->ranks) < 2) return OK;
    TRY(backend_paths(paths, sizeof paths, e));
    uint64_t h = fingerprint_text(fingerprint_text(0, HYB_VERSION), c->build ? c->build : "");
    TRY(ranks_equal(c->ranks, h, "the program's version", e));
    h = fingerprint_bytes(fingerprint_text(0, c->command->name), c->common.device, strcspn(c->common.device, ":"));
    TRY(ranks_equal(c->ranks, h, "the command and its device", e));
    if (!strncmp(c->common.device, "cpu", 3))
        TRY(ranks_equal(c->ranks, fingerprint_text(0, paths), "the code path of the processor (HYBRIDIZE_CPU)", e));
    for (int k = 0; k < 2 && c->command->options[k]; k++) TRY(options_same(c, k, e));
    return OK;
}
