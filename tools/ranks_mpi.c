/* ranks_mpi.c - ranks that talk by MPI: the one file that includes mpi.h (make MPI=1). See base/ranks.h.
 *
 * Only messages between two ranks are used, none of MPI's own sums, whose order is not ours. Every wait looks for one
 * that has failed and for one that is silent too long, so that nobody waits for ever. One thread talks
 * (MPI_THREAD_FUNNELED). */
#define _POSIX_C_SOURCE 200809L
#include "base/log.h"
#include "tools/launch.h"
#include <mpi.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TAG_DATA = 1, TAG_FAILED = 2, TAG_ALIVE = 3, LARGEST = 1 << 30, SPINS = 3 };
static const double GRACE = 10; // seconds that rank 0 has to say why another rank failed

typedef struct {
    Err e;
    char host[64];
} Failure;

typedef struct {
    Ranks r;
    double timeout;
    char host[64];
    char (*hosts)[64];    /* (size) */
    MPI_Request *request; /* (room) n of them under way, */
    int *peer, n, room;   /* and with whom */
    long calls;           /* that are not asked again and again while waiting */
} Mpi;

static int check(int rc, const char *call, Err *e) {
    char why[MPI_MAX_ERROR_STRING];
    int n;
    if (rc == MPI_SUCCESS) return OK;
    MPI_Error_string(rc, why, &n);
    return err_set(e, ERR_IO, "%s: %.200s", call, why);
}

/* Tests: HYBRIDIZE_FAIL_MPI=n makes the n-th call fail, "n:KILL" and "n:STOP" send this process that signal. */
static int counted(Mpi *m, int rc, const char *call, Err *e) {
    const char *at = getenv("HYBRIDIZE_FAIL_MPI");
    char *kind = NULL;
    if (at && strtol(at, &kind, 10) == ++m->calls) {
        if (!strcmp(kind, ":KILL")) raise(SIGKILL);
        if (!strcmp(kind, ":STOP")) raise(SIGSTOP);
        return err_set(e, ERR_IO, "%s: failed on purpose", call);
    }
    return check(rc, call, e);
}

/* ---------------------------------------------------------------- waiting */

/* Another rank's failure becomes this one's error. */
static int failure_take(Err *e) {
    MPI_Status s;
    Failure f;
    int there = 0;
    TRY(check(MPI_Iprobe(MPI_ANY_SOURCE, TAG_FAILED, MPI_COMM_WORLD, &there, &s), "MPI_Iprobe", e));
    if (!there) return OK;
    TRY(check(MPI_Recv(&f, sizeof f, MPI_BYTE, s.MPI_SOURCE, TAG_FAILED, MPI_COMM_WORLD, MPI_STATUS_IGNORE), "MPI_Recv",
              e));
    err_set(e, f.e.code, "rank %d on %s: %.600s", s.MPI_SOURCE, f.host, f.e.msg);
    if (f.e.hint[0]) err_hint(e, "%s", f.e.hint);
    return f.e.code;
}

/* *since is now, if rank 0 has said that it is at work. */
static int alive_take(double *since, Err *e) {
    char nothing;
    int there = 0;
    for (;;) {
        TRY(check(MPI_Iprobe(0, TAG_ALIVE, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE), "MPI_Iprobe", e));
        if (!there) return OK;
        TRY(check(MPI_Recv(&nothing, 0, MPI_BYTE, 0, TAG_ALIVE, MPI_COMM_WORLD, MPI_STATUS_IGNORE), "MPI_Recv", e));
        *since = log_now();
    }
}

static int silent(Mpi *m, Err *e) {
    int who = -1, done;
    for (int i = 0; i < m->n && who < 0; i++)
        if (MPI_Test(&m->request[i], &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || !done) who = m->peer[i];
    if (who < 0) return OK; // they have come at the last moment; the next look sees it
    err_set(e, ERR_IO, "rank %d on %s: no word from it for %g s", who, m->hosts[who], m->timeout);
    return err_hint(e, "is the process stopped, or its machine gone? --rank-timeout says how long to wait");
}

static int wait_all(Mpi *m, Err *e) {
    const struct timespec nap = {0, 50 * 1000};
    double since = log_now();
    for (long turn = 0;; turn++) {
        int done = 0;
        TRY(check(MPI_Testall(m->n, m->request, &done, MPI_STATUSES_IGNORE), "MPI_Testall", e));
        if (done) return m->n = 0, OK;
        if (turn < SPINS) continue;
        nanosleep(&nap, NULL);
        if (m->r.rank) TRY(alive_take(&since, e));
        else TRY(failure_take(e));
        if (m->timeout > 0 && log_now() - since > m->timeout) TRY(silent(m, e));
    }
}

/* ---------------------------------------------------------------- the calls of ranks.h */

static int room_make(Mpi *m, Err *e) {
    if (m->n < m->room) return OK;
    const int room = m->room ? 2 * m->room : 256;
    MPI_Request *request = realloc(m->request, (size_t)room * sizeof *request);
    if (request) m->request = request;
    int *peer = request ? realloc(m->peer, (size_t)room * sizeof *peer) : NULL;
    if (!peer) return err_set(e, ERR_MEMORY, "messages between ranks");
    m->peer = peer;
    m->room = room;
    return OK;
}

static int post(Mpi *m, int q, int sends, const RankPart *part, Err *e) {
    char *p = part->data;
    for (size_t at = 0; at < part->bytes; at += LARGEST) {
        const int n = part->bytes - at < LARGEST ? (int)(part->bytes - at) : LARGEST;
        TRY(room_make(m, e));
        MPI_Request *request = &m->request[m->n];
        m->peer[m->n++] = q;
        *request = MPI_REQUEST_NULL;
        TRY(sends ? counted(m, MPI_Isend(p + at, n, MPI_BYTE, q, TAG_DATA, MPI_COMM_WORLD, request), "MPI_Isend", e)
                  : counted(m, MPI_Irecv(p + at, n, MPI_BYTE, q, TAG_DATA, MPI_COMM_WORLD, request), "MPI_Irecv", e));
        m->r.messages += (uint64_t)sends;
        m->r.bytes += sends ? (uint64_t)n : 0;
    }
    return OK;
}

static int mpi_post(Ranks *r, const RankPart *out, const RankPart *in, Err *e) {
    Mpi *m = (Mpi *)r;
    for (int i = 1; i < r->size; i++) { // each begins with another one
        const int q = (r->rank + i) % r->size;
        TRY(post(m, q, 0, &in[q], e));
        TRY(post(m, q, 1, &out[q], e));
    }
    return OK;
}

static int mpi_wait(Ranks *r, Err *e) { return wait_all((Mpi *)r, e); }

static int mpi_share(Ranks *r, void *data, size_t bytes, Err *e) {
    Mpi *m = (Mpi *)r;
    const RankPart part = {data, bytes};
    if (r->rank) TRY(post(m, 0, 0, &part, e));
    for (int q = 1; !r->rank && q < r->size; q++) TRY(post(m, q, 1, &part, e));
    return wait_all(m, e);
}

static void mpi_alive(Ranks *r) {
    for (int q = 1; !r->rank && q < r->size; q++) MPI_Send(NULL, 0, MPI_BYTE, q, TAG_ALIVE, MPI_COMM_WORLD);
}

/* ---------------------------------------------------------------- begin and end */

static int mpi_begin(Mpi *m, Err *e) {
    MPI_Comm machine;
    int level;
    TRY(counted(m, MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level), "MPI_Init_thread", e));
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &m->r.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &m->r.size);
    if (level < MPI_THREAD_FUNNELED) return err_set(e, ERR_USAGE, "this MPI knows no threads (MPI_THREAD_FUNNELED)");
    if (m->r.size > RANKS_MOST) return err_set(e, ERR_USAGE, "ranks: got %d, at most %d", m->r.size, RANKS_MOST);
    TRY(counted(m, MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, m->r.rank, MPI_INFO_NULL, &machine),
                "MPI_Comm_split_type", e));
    MPI_Comm_rank(machine, &m->r.local);
    MPI_Comm_size(machine, &m->r.here);
    MPI_Comm_free(&machine);
    m->hosts = calloc((size_t)m->r.size, sizeof *m->hosts);
    if (!m->hosts) return err_set(e, ERR_MEMORY, "names of machines");
    return counted(m, MPI_Allgather(m->host, 64, MPI_BYTE, m->hosts, 64, MPI_BYTE, MPI_COMM_WORLD), "MPI_Allgather", e);
}

static int mpi_open(Ranks **out, double timeout, Err *e) {
    Mpi *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m) return err_set(e, ERR_MEMORY, "ranks");
    m->r = (Ranks){.size = 1, .post = mpi_post, .wait = mpi_wait, .share = mpi_share, .alive = mpi_alive};
    m->timeout = timeout;
    if (gethostname(m->host, sizeof m->host - 1)) snprintf(m->host, sizeof m->host, "unknown");
    *out = &m->r;
    return mpi_begin(m, e);
}

/* Waits a while for rank 0 to say it, and to end all. */
static void tell(Mpi *m, const Err *why) {
    Failure f = {.e = *why};
    MPI_Request sent;
    const struct timespec nap = {0, 10 * 1000 * 1000};
    snprintf(f.host, sizeof f.host, "%s", m->host);
    if (MPI_Isend(&f, sizeof f, MPI_BYTE, 0, TAG_FAILED, MPI_COMM_WORLD, &sent) != MPI_SUCCESS) return;
    for (const double since = log_now(); log_now() - since < GRACE;) {
        int done;
        MPI_Test(&sent, &done, MPI_STATUS_IGNORE);
        nanosleep(&nap, NULL);
    }
}

static void mpi_close(Ranks *r, const Err *why) {
    Mpi *m = (Mpi *)r;
    if (!why) MPI_Finalize();
    else {
        if (r->rank) {
            tell(m, why);
            Err own = *why;
            err_prefix(&own, "rank %d on %s", r->rank, m->host);
            cli_fail(&own);
        }
        MPI_Abort(MPI_COMM_WORLD, why->code);
    }
    free(m->hosts);
    free(m->request);
    free(m->peer);
    free(m);
}

extern const RanksEngine ranks_mpi;
const RanksEngine ranks_mpi = {mpi_open, mpi_close};
