/* worker.c - see worker.h. */
#include "base/worker.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { NAME = 192, PATH = 1300 };
static double beat_seconds = 5, stale_seconds = 60;

void worker_times(double beat, double stale) { beat_seconds = beat, stale_seconds = stale; }

struct Worker {
    char dir[1024], file[PATH], name[NAME];
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int over;         /* under the lock: the thread shall end */
    _Atomic int lost; /* the worker's file is gone */
};

/* ---------------------------------------------------------------- who is who */

/* What tells this running system and its process numbers from any other: 0 where the system does not say. */
static uint64_t machine(void) {
    char boot[64] = "", space[64] = "";
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!f) return 0;
    if (!fgets(boot, sizeof boot, f)) boot[0] = 0;
    fclose(f);
    const ssize_t n = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    if (!boot[0] || n < 0) return 0;
    return hash_bytes(hash_bytes(1, boot, strlen(boot)), space, (size_t)n);
}

/* When the process began, in ticks since the start of the system; 0: there is none. Field 22 of its stat, counted from
 * the bracket behind its name, which may hold anything. */
static unsigned long long process_start(long pid) {
    char path[64], text[1024];
    unsigned long long start = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    const size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *s = strrchr(text, ')');
    char state = 0;
    if (!s || sscanf(s + 1, " %c", &state) != 1 || state == 'Z' || state == 'X') return 0;
    for (int i = 2; s && i < 22; i++) s = strchr(s + 1, ' ');
    return s && sscanf(s, "%llu", &start) == 1 ? start : 0;
}

/* A worker's name is MACHINE-PID-START-HOST. */
typedef struct {
    unsigned long long machine, start;
    long pid;
    char host[65];
} Who;

static int who_parse(Who *w, const char *name) {
    return sscanf(name, "%16llx-%ld-%llu-%64s", &w->machine, &w->pid, &w->start, w->host) == 4;
}

static void who_text(char *dst, size_t cap, const char *name) {
    Who w;
    if (!dst) return;
    if (who_parse(&w, name)) snprintf(dst, cap, "process %ld on %s", w.pid, w.host);
    else snprintf(dst, cap, "%s", name);
}

static void worker_name(char name[NAME]) {
    char host[65] = "";
    if (gethostname(host, sizeof host - 1)) snprintf(host, sizeof host, "unknown");
    for (char *s = host; *s; s++)
        if (*s == '/' || *s == ' ') *s = '_';
    const long pid = (long)getpid();
    snprintf(name, NAME, "%016llx-%ld-%llu-%s", (unsigned long long)machine(), pid, process_start(pid),
             host[0] ? host : "unknown");
}

static double seconds_of(const struct stat *st) {
    return (double)st->st_mtim.tv_sec + 1e-9 * (double)st->st_mtim.tv_nsec;
}

/* The time by the clock of the file system, as far as it can be known: that of a file which was written just now. */
static double file_now(const Worker *w) {
    struct stat st;
    if (w && !utimensat(AT_FDCWD, w->file, NULL, 0) && !stat(w->file, &st)) return seconds_of(&st);
    return (double)time(NULL);
}

/* Cut where it is too long: there is no such file then. */
static void worker_file(char path[PATH], const char *dir, const char *name) {
    snprintf(path, PATH, "%s/workers/%s", dir, name);
}

static int is_alive(const Worker *w, const char *dir, const char *name) {
    char path[PATH];
    struct stat st;
    Who who;
    worker_file(path, dir, name);
    if (stat(path, &st) || !who_parse(&who, name)) return 0;
    if (who.machine && who.machine == machine()) return who.start && process_start(who.pid) == who.start;
    return file_now(w) - seconds_of(&st) < stale_seconds;
}

static int others(const Worker *w, const char *dir, char *who, size_t cap) {
    char path[PATH], **names, me[NAME];
    size_t n;
    int alive = 0;
    worker_name(me);
    worker_file(path, dir, "");
    if (file_exists(path) != 2) return 0;
    if (file_list(&names, &n, path, NULL)) return 0;
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(names[i], me) || !is_alive(w, dir, names[i])) continue;
        if (!alive++) who_text(who, cap, names[i]);
    }
    file_list_free(names, n);
    return alive;
}

int worker_others(const Worker *w, char *who, size_t cap) { return others(w, w->dir, who, cap); }
int worker_any(const char *dir, char *who, size_t cap) { return others(NULL, dir, who, cap); }

/* ---------------------------------------------------------------- being one */

static void *heartbeat(void *arg) {
    Worker *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->over) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        const double until = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec + beat_seconds;
        t.tv_sec = (time_t)until;
        t.tv_nsec = (long)(1e9 * (until - (double)t.tv_sec));
        pthread_cond_timedwait(&w->wake, &w->lock, &t);
        if (!w->over && utimensat(AT_FDCWD, w->file, NULL, 0) && errno == ENOENT) atomic_store(&w->lost, 1);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void clear_gone(const Worker *w) {
    char path[PATH], **names;
    size_t n;
    worker_file(path, w->dir, "");
    if (file_list(&names, &n, path, NULL)) return;
    for (size_t i = 0; i < n; i++) {
        worker_file(path, w->dir, names[i]);
        if (!is_alive(w, w->dir, names[i])) unlink(path);
    }
    file_list_free(names, n);
}

int worker_open(Worker **out, const char *dir, Err *e) {
    void *mem;
    char path[1100], who[240], line[256];
    *out = NULL;
    TRY(file_join(path, sizeof path, dir, "workers", e));
    TRY(file_mkdirs(path, e));
    TRY(mem_alloc(&mem, sizeof(Worker), "worker", e));
    Worker *w = mem;
    snprintf(w->dir, sizeof w->dir, "%s", dir);
    worker_name(w->name);
    who_text(who, sizeof who, w->name);
    snprintf(line, sizeof line, "%s\n", who);
    int rc = file_join(w->file, sizeof w->file, path, w->name, e);
    if (!rc) rc = file_write_all(w->file, line, strlen(line), e);
    if (!rc) clear_gone(w);
    if (!rc) {
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->wake, NULL);
        if (pthread_create(&w->thread, NULL, heartbeat, w)) rc = err_set(e, ERR_MEMORY, "no thread for the heartbeat");
    }
    if (rc) mem_free(w);
    else *out = w;
    return rc;
}

void worker_close(Worker *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->over = 1;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wake);
    unlink(w->file);
    *strrchr(w->file, '/') = 0;
    rmdir(w->file); // of the last one
    mem_free(w);
}

int worker_check(const Worker *w, Err *e) {
    if (!w || !atomic_load(&w->lost)) return OK;
    err_set(e, ERR_IO, "%s: this process was silent for so long that others may have its work", w->dir);
    return err_hint(e, "start it again with --resume");
}

/* ---------------------------------------------------------------- claims */

static int claim_path(char path[PATH], const char *piece, int generation, Err *e) {
    if (snprintf(path, PATH, "%s.claim-%d", piece, generation) >= PATH)
        return err_set(e, ERR_IO, "%.200s...: path too long", piece);
    return OK;
}

/* The newest claim of the piece, -1 if there is none, and whose it is. */
static int claim_newest(int *generation, char owner[NAME], const char *piece, Err *e) {
    char path[PATH], name[NAME];
    for (*generation = -1;; ++*generation) {
        TRY(claim_path(path, piece, *generation + 1, e));
        if (!file_link_read(path, name, sizeof name)) return OK;
        snprintf(owner, NAME, "%s", name);
    }
}

int worker_claim(Worker *w, const char *piece, int *mine, char *who, size_t cap, Err *e) {
    char path[PATH], owner[NAME] = "";
    int generation;
    TRY(worker_check(w, e));
    TRY(claim_newest(&generation, owner, piece, e));
    *mine = generation >= 0 && !strcmp(owner, w->name);
    if (*mine) return OK;
    if (generation >= 0 && is_alive(w, w->dir, owner)) {
        who_text(who, cap, owner);
        return OK;
    }
    TRY(claim_path(path, piece, generation + 1, e));
    TRY(file_link_new(path, w->name, mine, e));
    if (!*mine) snprintf(who, cap, "another process"); // which was faster
    return OK;
}

/* The oldest goes first: whoever meets the rest believes that the piece is claimed, which does no harm. */
int worker_release(Worker *w, const char *piece, Err *e) {
    char path[PATH], owner[NAME];
    int generation;
    (void)w;
    TRY(claim_newest(&generation, owner, piece, e));
    for (int g = 0; g <= generation; g++) {
        TRY(claim_path(path, piece, g, e));
        TRY(file_remove(path, e));
    }
    return OK;
}
