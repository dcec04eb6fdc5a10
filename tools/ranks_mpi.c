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

enum { TAG_DATA = 1, TAG_FAILED = 2, TAG_ALIVE = 3, SPINS = 3 };
static const double GRACE = 10; // seconds that rank 0 has to say why another rank failed, or --rank-timeout if less

typedef struct {
    Err e;
    char host[64];
} Failure;

typedef struct {
    Ranks r;
    double timeout;
    char host[64];
    MPI_Request *request; /* (room) n of them under way, */
    int *peer, n, room;   /* and with whom */
    double began;         /* when the first of them was */
    int said;             /* the error in hand names its rank already */
    Err late;             /* of a call that has no way to tell it: the next wait does */
} Mpi;

static int check(int rc, const char *call, Err *e) {
    char why[MPI_MAX_ERROR_STRING];
    int n;
    if (rc == MPI_SUCCESS) return OK;
    MPI_Error_string(rc, why, &n);
    return err_set(e, ERR_IO, "%s: %.200s", call, why);
}

/* Tests: HYBRIDIZE_FAIL_MPI=n makes the n-th call fail, not counting those that a wait repeats; n:MPI_Test the n-th of
 * that name, which may be one of them; n:KILL and n:STOP send this process that signal instead; n:NAN makes the first
 * number of the n-th message none. */
static long fail_at(const char **kind) {
    static const char *of = NULL; // read once: a wait asks at every turn
    static long n;
    if (!of) {
        const char *at = getenv("HYBRIDIZE_FAIL_MPI");
        char *end = NULL;
        n = at ? strtol(at, &end, 10) : 0;
        of = end ? end : "";
    }
    *kind = of;
    return n;
}
static int gate(const char *call, Err *e) {
    static long calls;
    const char *kind;
    const long n = fail_at(&kind);
    if (n <= 0 || !strcmp(kind, ":NAN")) return OK;
    const int named = !strncmp(kind, ":MPI_", 5);
    if (named ? strcmp(kind + 1, call) : !strncmp(call, "MPI_Test", 8) || !strcmp(call, "MPI_Iprobe")) return OK;
    if (++calls != n) return OK;
    if (!strcmp(kind, ":KILL")) raise(SIGKILL);
    while (!strcmp(kind, ":STOP")) raise(SIGSTOP); // who ends it wakes it first
    return err_set(e, ERR_IO, "%s: failed on purpose", call);
}

static void message_spoil(void *data, size_t bytes) {
    static long messages;
    const char *kind;
    const long n = fail_at(&kind);
    if (n > 0 && !strcmp(kind, ":NAN") && ++messages == n) memset(data, 0xff, bytes < 8 ? bytes : 8);
}

/* Every call of MPI whose failure matters goes through here. */
#define CALL(name, args)                                                                                               \
    do {                                                                                                               \
        TRY(gate(#name, e));                                                                                           \
        TRY(check(name args, #name, e));                                                                               \
    } while (0)

/* ---------------------------------------------------------------- waiting */

/* Another rank's failure becomes this one's error. */
static int failure_take(Mpi *m, Err *e) {
    MPI_Status s;
    Failure f;
    int there = 0;
    CALL(MPI_Iprobe, (MPI_ANY_SOURCE, TAG_FAILED, MPI_COMM_WORLD, &there, &s));
    if (!there) return OK;
    CALL(MPI_Recv, (&f, sizeof f, MPI_BYTE, s.MPI_SOURCE, TAG_FAILED, MPI_COMM_WORLD, MPI_STATUS_IGNORE));
    m->said = 1;
    err_set(e, f.e.code, "rank %d on %s: %.600s", s.MPI_SOURCE, f.host, f.e.msg);
    if (f.e.hint[0]) err_hint(e, "%s", f.e.hint);
    return f.e.code;
}

/* *since is now, if rank 0 has said that it is at work. */
static int alive_take(double *since, Err *e) {
    char nothing;
    int there = 0;
    for (;;) {
        CALL(MPI_Iprobe, (0, TAG_ALIVE, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE));
        if (!there) return OK;
        CALL(MPI_Recv, (&nothing, 0, MPI_BYTE, 0, TAG_ALIVE, MPI_COMM_WORLD, MPI_STATUS_IGNORE));
        *since = log_now();
    }
}

static int silent(Mpi *m, Err *e) {
    int who = -1, done = 0;
    for (int i = 0; i < m->n && who < 0; i++) {
        CALL(MPI_Test, (&m->request[i], &done, MPI_STATUS_IGNORE));
        if (!done) who = m->peer[i];
    }
    if (who < 0) return OK; // they have come at the last moment; the next look sees it
    m->said = 1;
    err_set(e, ERR_IO, "rank %d on %s: no word from it for %g s", who, m->r.hosts[who], m->timeout);
    return err_hint(e, "is the process stopped, or its machine gone? --rank-timeout says how long to wait");
}

static int wait_all(Mpi *m, Err *e) {
    const struct timespec nap = {0, 50 * 1000};
    double since = log_now();
    if (m->late.code) return *e = m->late, e->code;
    for (long turn = 0;; turn++) {
        int done = 0;
        CALL(MPI_Testall, (m->n, m->request, &done, MPI_STATUSES_IGNORE));
        if (done) {
            if (m->n) m->r.under_way += log_now() - m->began;
            return m->n = 0, OK;
        }
        if (turn < SPINS) continue;
        nanosleep(&nap, NULL);
        if (m->r.rank) TRY(alive_take(&since, e));
        else TRY(failure_take(m, e));
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
    for (size_t at = 0; at < part->bytes; at += RANKS_MESSAGE) {
        const int n = part->bytes - at < RANKS_MESSAGE ? (int)(part->bytes - at) : RANKS_MESSAGE;
        TRY(room_make(m, e));
        if (!m->n) m->began = log_now();
        MPI_Request *request = &m->request[m->n];
        m->peer[m->n++] = q;
        *request = MPI_REQUEST_NULL;
        if (sends) message_spoil(p + at, (size_t)n);
        if (sends) CALL(MPI_Isend, (p + at, n, MPI_BYTE, q, TAG_DATA, MPI_COMM_WORLD, request));
        else CALL(MPI_Irecv, (p + at, n, MPI_BYTE, q, TAG_DATA, MPI_COMM_WORLD, request));
        m->r.messages += (uint64_t)sends;
        m->r.bytes += sends ? (uint64_t)n : 0;
    }
    return OK;
}

/* After a failure the caller frees its buffers. What is under way to them must not arrive later: receives that nothing
 * has come for are taken back, the others are given a second to end. */
static int end(int rc, Mpi *m, double since) {
    const struct timespec nap = {0, 1000 * 1000};
    int done = 0;
    m->r.waited += log_now() - since;
    if (!rc) return OK;
    for (int i = 0; i < m->n; i++)
        if (m->request[i] != MPI_REQUEST_NULL) MPI_Cancel(&m->request[i]);
    for (const double failed = log_now(); !done && log_now() - failed < 1; nanosleep(&nap, NULL))
        if (MPI_Testall(m->n, m->request, &done, MPI_STATUSES_IGNORE)) break;
    m->n = 0;
    return rc;
}

static int post_all(Mpi *m, const RankPart *out, const RankPart *in, Err *e) {
    for (int i = 1; i < m->r.size; i++) { // each begins with another one
        const int q = (m->r.rank + i) % m->r.size;
        TRY(post(m, q, 0, &in[q], e));
        TRY(post(m, q, 1, &out[q], e));
    }
    return OK;
}
static int mpi_post(Ranks *r, const RankPart *out, const RankPart *in, Err *e) {
    const double since = log_now();
    return end(post_all((Mpi *)r, out, in, e), (Mpi *)r, since);
}

static int mpi_wait(Ranks *r, Err *e) {
    const double since = log_now();
    return end(wait_all((Mpi *)r, e), (Mpi *)r, since);
}

static int share_all(Mpi *m, const RankPart *part, Err *e) {
    if (m->r.rank) TRY(post(m, 0, 0, part, e));
    for (int q = 1; !m->r.rank && q < m->r.size; q++) TRY(post(m, q, 1, part, e));
    return wait_all(m, e);
}
static int mpi_share(Ranks *r, void *data, size_t bytes, Err *e) {
    const RankPart part = {data, bytes};
    const double since = log_now();
    return end(share_all((Mpi *)r, &part, e), (Mpi *)r, since);
}

static int alive_send(const Ranks *r, Err *e) {
    for (int q = 1; !r->rank && q < r->size; q++) CALL(MPI_Send, (NULL, 0, MPI_BYTE, q, TAG_ALIVE, MPI_COMM_WORLD));
    return OK;
}
static void mpi_alive(Ranks *r) {
    Mpi *m = (Mpi *)r;
    if (!m->late.code) alive_send(r, &m->late);
}

/* ---------------------------------------------------------------- begin and end */

static int mpi_begin(Mpi *m, Err *e) {
    MPI_Comm machine;
    int level;
    CALL(MPI_Init_thread, (NULL, NULL, MPI_THREAD_FUNNELED, &level));
    CALL(MPI_Comm_set_errhandler, (MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    CALL(MPI_Comm_rank, (MPI_COMM_WORLD, &m->r.rank));
    CALL(MPI_Comm_size, (MPI_COMM_WORLD, &m->r.size));
    if (level < MPI_THREAD_FUNNELED) return err_set(e, ERR_USAGE, "this MPI knows no threads (MPI_THREAD_FUNNELED)");
    if (m->r.size > RANKS_MOST) return err_set(e, ERR_USAGE, "ranks: got %d, at most %d", m->r.size, RANKS_MOST);
    CALL(MPI_Comm_split_type, (MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, m->r.rank, MPI_INFO_NULL, &machine));
    CALL(MPI_Comm_rank, (machine, &m->r.local));
    CALL(MPI_Comm_size, (machine, &m->r.here));
    CALL(MPI_Comm_free, (&machine));
    m->r.hosts = calloc((size_t)m->r.size, sizeof *m->r.hosts);
    if (!m->r.hosts) return err_set(e, ERR_MEMORY, "names of machines");
    CALL(MPI_Allgather, (m->host, 64, MPI_BYTE, m->r.hosts, 64, MPI_BYTE, MPI_COMM_WORLD));
    return OK;
}

static int mpi_open(Ranks **out, double timeout, Err *e) {
    Mpi *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m) return err_set(e, ERR_MEMORY, "ranks");
    m->r = (Ranks){.rank = launch_rank(),
                   .size = launch_size(),
                   .post = mpi_post,
                   .wait = mpi_wait,
                   .share = mpi_share,
                   .alive = mpi_alive};
    m->timeout = timeout;
    if (gethostname(m->host, sizeof m->host - 1)) snprintf(m->host, sizeof m->host, "unknown");
    *out = &m->r;
    return mpi_begin(m, e);
}

/* Waits a while for rank 0 to say it, and to end all. */
static int tell(Mpi *m, const Err *why, Err *e) {
    Failure f = {.e = *why};
    MPI_Request sent;
    const struct timespec nap = {0, 10 * 1000 * 1000};
    const double grace = m->timeout > 0 && m->timeout < GRACE ? m->timeout : GRACE;
    snprintf(f.host, sizeof f.host, "%s", m->host);
    CALL(MPI_Isend, (&f, sizeof f, MPI_BYTE, 0, TAG_FAILED, MPI_COMM_WORLD, &sent));
    for (const double since = log_now(); log_now() - since < grace; nanosleep(&nap, NULL)) {
        int done; // whatever comes of it: the message may be there already, and rank 0 speaks
        MPI_Test(&sent, &done, MPI_STATUS_IGNORE);
    }
    return OK;
}

/* Options and numbers that are wrong are so for all ranks, and a stop is nobody's failure: no rank is named. */
static int own_failure(const Err *why) {
    return why->code == ERR_INPUT || why->code == ERR_IO || why->code == ERR_MEMORY || why->code == ERR_DEVICE;
}

static int finish(Err *e) {
    CALL(MPI_Finalize, ());
    return OK;
}

static int mpi_close(Ranks *r, const Err *why) {
    Mpi *m = (Mpi *)r;
    Err own = why ? *why : (Err){0}, untold;
    const struct timespec nap = {0, 200 * 1000 * 1000};
    int begun = 0;
    if (!why && !finish(&own)) {
        free(m->r.hosts);
        free(m->request);
        free(m->peer);
        free(m);
        return OK;
    }
    MPI_Initialized(&begun);
    if (begun && why && r->rank) tell(m, why, &untold); // where it cannot be told, it is said here
    if (r->rank || (!m->said && own_failure(&own))) err_prefix(&own, "rank %d on %s", r->rank, m->host);
    cli_fail(&own);
    if (begun) nanosleep(&nap, NULL); // MPICH's launcher drops what it has not passed on yet
    if (begun) MPI_Abort(MPI_COMM_WORLD, own.code);
    exit(own.code);
}

extern const RanksEngine ranks_mpi;
const RanksEngine ranks_mpi = {mpi_open, mpi_close};
