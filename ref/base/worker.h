/* worker.h - processes that share the work in one directory: on one machine, or on many that see the same folder.
 *
 * A process at work has a file DIR/workers/NAME, whose time a thread renews every few seconds: its heartbeat. A piece
 * of work is claimed by a symbolic link PATH.claim-0 to the worker's name, which the system makes at once or not at
 * all. A claim whose worker is gone is taken over by making PATH.claim-1, and so on: nobody removes what is another's,
 * so two can never win. Whoever finds a claim of his own goes on and looks once more whether the piece is not
 * finished.
 *
 * A worker is gone when its process is (on this machine: by its number and start time), or when its heartbeat is older
 * than a minute by the clock of the file system. No server, no port, no locks that a file system may lack; where
 * symbolic links cannot be made, every process does all pieces. Source: ours. */
#ifndef HYB_WORKER_H
#define HYB_WORKER_H
#include "base/err.h"
#include <stddef.h>

typedef struct Worker Worker;

/* Makes this process a worker of DIR, and clears away what workers that are gone left in DIR/workers. */
int worker_open(Worker **w, const char *dir, Err *e);
/* NULL is fine. Ends claims that are still open: a worker without a file is gone. */
void worker_close(Worker *w);
/* How many others are at work; who (may be NULL): "process 123 on host" of one of them. */
int worker_others(const Worker *w, char *who, size_t cap);
/* The same, asked by a process that is none of them. */
int worker_any(const char *dir, char *who, size_t cap);
/* *mine = 1: the piece is this worker's until worker_release. 0: it is that of another, described in who. */
int worker_claim(Worker *w, const char *path, int *mine, char *who, size_t cap, Err *e);
int worker_release(Worker *w, const char *path, Err *e);
/* ERR_IO when others took this worker for gone (it was suspended for long) and may have its pieces. */
int worker_check(const Worker *w, Err *e);

/* Tests: other times than 5 s between two heartbeats and 60 s until a silent worker is gone. */
void worker_times(double beat, double stale);

#endif
