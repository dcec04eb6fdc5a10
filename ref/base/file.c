/* file.c - files: map, list, write atomically, remove. See file.h. */
#include "base/hash.h"
#include "base/file.h"
#include "base/mem.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int read_only;
void file_read_only(int on) { read_only = on; }

/* ---- the counter ---- */

enum { FAULT_NONE, FAULT_ERROR, FAULT_EINTR, FAULT_SHORT };
static _Atomic long io_calls;

long file_io_calls(void) { return atomic_load(&io_calls); }

/* Counts one call. FAULT_ERROR: the caller must act as if the call had failed, errno is set. */
static int io_gate(void) {
    long n = atomic_fetch_add(&io_calls, 1) + 1;
    const char *kill_at = getenv("HYBRIDIZE_KILL_IO"), *fail_at = getenv("HYBRIDIZE_FAIL_IO");
    if (kill_at && strtol(kill_at, NULL, 10) == n) raise(SIGKILL);
    char *kind = NULL;
    if (!fail_at || strtol(fail_at, &kind, 10) != n) return FAULT_NONE;
    if (!strcmp(kind, ":EINTR")) return FAULT_EINTR;
    if (!strcmp(kind, ":SHORT")) return FAULT_SHORT;
    errno = strcmp(kind, ":ENOSPC") ? EIO : ENOSPC;
    return FAULT_ERROR;
}

static int io_fails(void) { return io_gate() == FAULT_ERROR; }

static int io_error(Err *e, const char *path, const char *what) {
    return err_set(e, ERR_IO, "%s: %s: %s", path, what, strerror(errno));
}

/* ---- reading ---- */

int file_open(File *f, const char *path, Err *e) {
    memset(f, 0, sizeof *f);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* NONBLOCK: opening a fifo must not hang */
    if (fd < 0) return io_error(e, path, "cannot open");
    struct stat st;
    int rc = OK;
    if (fstat(fd, &st)) rc = io_error(e, path, "cannot stat");
    else if (S_ISDIR(st.st_mode)) rc = err_set(e, ERR_IO, "%s: is a directory, expected a file", path);
    else if (!S_ISREG(st.st_mode)) rc = err_set(e, ERR_IO, "%s: is not a regular file", path);
    else if (st.st_size == 0) f->data = (const unsigned char *)"";
    else {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) rc = io_error(e, path, "cannot map");
        else *f = (File){p, (size_t)st.st_size, 1};
    }
    close(fd);
    return rc;
}

/* Standard input comes once, but a text is read more than once (hashed, counted, written): it is kept. */
static struct {
    void *data;
    size_t size, cap;
    int whole;
} input;

static int input_read(Err *e) {
    while (!input.whole) {
        if (input.size == input.cap) {
            const size_t cap = input.cap * 2 + (1 << 20);
            TRY(mem_grow(&input.data, input.cap, cap, "standard input", e));
            input.cap = cap;
        }
        const ssize_t got = read(0, (char *)input.data + input.size, input.cap - input.size);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return io_error(e, "standard input", "cannot read");
        input.whole = !got;
        input.size += (size_t)got;
    }
    return OK;
}

int file_open_text(File *f, const char *path, Err *e) {
    memset(f, 0, sizeof *f);
    if (strcmp(path, "-")) return file_open(f, path, e);
    TRY(input_read(e));
    *f = (File){input.size ? input.data : (const void *)"", input.size, 0};
    return OK;
}

void file_close(File *f) {
    if (f->mapped) munmap((void *)(uintptr_t)f->data, f->size);
    memset(f, 0, sizeof *f);
}

int file_exists(const char *path) {
    struct stat st;
    if (stat(path, &st)) return 0;
    return S_ISREG(st.st_mode) ? 1 : S_ISDIR(st.st_mode) ? 2 : 0;
}
int file_streams(const char *path) {
    struct stat st;
    return !stat(path, &st) && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

/* ---- directories ---- */

static int path_copy(char *dst, size_t cap, const char *src, Err *e) {
    size_t n = strlen(src);
    if (n >= cap) return err_set(e, ERR_IO, "%.200s...: path of %zu bytes is longer than %zu", src, n, cap - 1);
    memcpy(dst, src, n + 1);
    return OK;
}

/* The directory part of path: "a/b" -> "a", "b" -> ".", "/b" -> "/". */
static int path_parent(char *dst, size_t cap, const char *path, Err *e) {
    TRY(path_copy(dst, cap, path, e));
    size_t n = strlen(dst);
    while (n > 1 && dst[n - 1] == '/') n--;
    while (n && dst[n - 1] != '/') n--;
    while (n > 1 && dst[n - 1] == '/') n--;
    if (!n) dst[n++] = '.';
    dst[n] = 0;
    return OK;
}

int file_join(char *dst, size_t cap, const char *dir, const char *name, Err *e) {
    size_t d = strlen(dir), n = strlen(name);
    while (d > 1 && dir[d - 1] == '/') d--;
    int slash = d && dir[d - 1] != '/';
    if (d + (size_t)slash + n >= cap) {
        if (cap) dst[0] = 0;
        return err_set(e, ERR_IO, "%.200s/%.200s: path is longer than %zu bytes", dir, name, cap - 1);
    }
    memcpy(dst, dir, d);
    if (slash) dst[d++] = '/';
    memcpy(dst + d, name, n + 1);
    return OK;
}

int file_mkdirs(const char *path, Err *e) {
    char p[1024];
    if (read_only) return OK;
    TRY(path_copy(p, sizeof p, path, e));
    for (size_t i = 1; p[0]; i++) {
        if (p[i] && p[i] != '/') continue;
        char c = p[i];
        p[i] = 0;
        if (file_exists(p) != 2 && (io_fails() || mkdir(p, 0777)) && !(errno == EEXIST && file_exists(p) == 2))
            return io_error(e, p, "cannot make the directory");
        p[i] = c;
        if (!c) break;
    }
    return OK;
}

int file_sync_dir(const char *path, Err *e) {
    if (read_only) return OK;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return io_error(e, path, "cannot open the directory");
    /* some file systems cannot sync a directory and say EINVAL: nothing better exists there */
    int bad = io_fails() || (fsync(fd) && errno != EINVAL);
    int rc = bad ? io_error(e, path, "cannot sync the directory") : OK;
    close(fd);
    return rc;
}

int file_rename(const char *from, const char *to, Err *e) {
    char dir[1024];
    if (read_only) return OK;
    TRY(path_parent(dir, sizeof dir, to, e));
    if (io_fails() || rename(from, to)) {
        int err = errno;
        return err_set(e, ERR_IO, "%s: cannot rename to %s: %s", from, to, strerror(err));
    }
    return file_sync_dir(dir, e);
}

static int name_order(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int list_add(char ***names, size_t *n, size_t *cap, const char *name, Err *e) {
    if (*n == *cap) {
        size_t more = *cap ? *cap * 2 : 32;
        void *p = *names;
        TRY(mem_grow(&p, *cap * sizeof **names, more * sizeof **names, "directory listing", e));
        *names = p;
        *cap = more;
    }
    TRY(mem_strndup(&(*names)[*n], name, strlen(name), e));
    *n += 1;
    return OK;
}

static int list_stream(char ***names, size_t *n, DIR *d, const char *path, Err *e) {
    size_t cap = 0;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(d);
        if (!entry) return errno ? io_error(e, path, "cannot read the directory") : OK;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        TRY(list_add(names, n, &cap, entry->d_name, e));
    }
}

int file_list(char ***names, size_t *n, const char *path, Err *e) {
    *names = NULL;
    *n = 0;
    DIR *d = opendir(path);
    if (!d) return io_error(e, path, "cannot open the directory");
    int rc = list_stream(names, n, d, path, e);
    closedir(d);
    if (rc) {
        file_list_free(*names, *n);
        *names = NULL;
        *n = 0;
        return rc;
    }
    if (*n) qsort(*names, *n, sizeof **names, name_order);
    return OK;
}

void file_list_free(char **names, size_t n) {
    for (size_t i = 0; names && i < n; i++) mem_free(names[i]);
    mem_free(names);
}

static int remove_level(const char *path, int depth, Err *e) {
    struct stat st;
    if (lstat(path, &st)) return errno == ENOENT ? OK : io_error(e, path, "cannot stat");
    if (!S_ISDIR(st.st_mode)) { /* a link inside the tree is removed, never followed */
        if (!depth) return err_set(e, ERR_IO, "%s: is not a directory (or is a link): not removed", path);
        return io_fails() || (unlink(path) && errno != ENOENT) ? io_error(e, path, "cannot remove") : OK;
    }
    if (depth > 16) return err_set(e, ERR_IO, "%s: more than 16 directories deep: not removed", path);
    char **names;
    size_t n;
    Err why = {0};
    int rc = file_list(&names, &n, path, &why);
    if (rc && !file_exists(path)) return OK; /* another process removes it, too */
    if (rc) return err_set(e, rc, "%s", why.msg);
    for (size_t i = 0; i < n && !rc; i++) {
        char child[1024];
        rc = file_join(child, sizeof child, path, names[i], e);
        if (!rc) rc = remove_level(child, depth + 1, e);
    }
    file_list_free(names, n);
    if (!rc && (io_fails() || (rmdir(path) && errno != ENOENT))) rc = io_error(e, path, "cannot remove the directory");
    return rc;
}

void file_remove_empty(const char *dir) {
    if (!read_only) rmdir(dir);
}

int file_remove_tree(const char *path, Err *e) { return read_only ? OK : remove_level(path, 0, e); }

int file_remove(const char *path, Err *e) {
    if (read_only) return OK;
    if (io_fails() || (unlink(path) && errno != ENOENT)) return io_error(e, path, "cannot remove");
    return OK;
}

/* 1 for "anything.tmp-DIGITS", the names that file_create makes. */
static int is_temp(const char *name) {
    const char *t = strstr(name, ".tmp-"), *next;
    while (t && (next = strstr(t + 1, ".tmp-"))) t = next;
    if (!t || t == name || !t[5]) return 0;
    return t[5 + strspn(t + 5, "0123456789")] == 0;
}

static int temps_level(const char *dir, int depth, Err *e) {
    char **names, path[1024];
    size_t n;
    TRY(file_list(&names, &n, dir, e));
    int rc = OK;
    for (size_t i = 0; i < n && !rc; i++) {
        struct stat st;
        rc = file_join(path, sizeof path, dir, names[i], e);
        if (rc || lstat(path, &st)) continue; /* a link is not followed */
        if (S_ISDIR(st.st_mode) && depth < 16) rc = temps_level(path, depth + 1, e);
        else if (S_ISREG(st.st_mode) && is_temp(names[i])) rc = file_remove(path, e);
    }
    file_list_free(names, n);
    return rc;
}

int file_remove_temps(const char *dir, Err *e) { return read_only ? OK : temps_level(dir, 0, e); }

int file_remove_dir(const char *path, Err *e) {
    if (read_only) return OK;
    if (io_fails() || (rmdir(path) && errno != ENOENT)) return io_error(e, path, "cannot remove the directory");
    return OK;
}

/* ---- writing ---- */

enum { BUFFER = 1 << 18, LARGEST_WRITE = 1 << 30 };

/* write(2) until all is written: it may write less than asked (a nearly full disk, a signal). */
static int write_fully(int fd, const unsigned char *p, size_t n) {
    while (n) {
        size_t ask = n < LARGEST_WRITE ? n : LARGEST_WRITE;
        int fault = io_gate();
        if (fault == FAULT_ERROR) return -1;
        if (fault == FAULT_EINTR) continue;
        if (fault == FAULT_SHORT && ask > 1) ask /= 2;
        ssize_t got = write(fd, p, ask);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -1;
        if (got == 0) {
            errno = ENOSPC;
            return -1;
        }
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

static int sync_fully(int fd) {
    for (;;) {
        int fault = io_gate();
        if (fault == FAULT_ERROR) return -1;
        if (fault == FAULT_EINTR) continue;
        if (!fsync(fd)) return 0;
        if (errno != EINTR) return -1;
    }
}

/* A number that no other writer has, on this machine or another that sees the directory. */
static unsigned long long temp_number(void) {
    char host[65] = "";
    struct timespec now = {0, 0};
    const long pid = (long)getpid();
    if (gethostname(host, sizeof host - 1)) host[0] = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    const uint64_t h = hash_bytes(hash_bytes(1, host, strlen(host)), &pid, sizeof pid);
    return (unsigned long long)hash_bytes(h, &now, sizeof now);
}

int file_create(FileWriter *w, const char *path, Err *e) {
    memset(w, 0, sizeof *w);
    w->fd = -1;
    TRY(path_copy(w->path, sizeof w->path, path, e));
    snprintf(w->tmp, sizeof w->tmp, "%s.tmp-%llu", path, temp_number());
    void *buf;
    TRY(mem_alloc(&buf, BUFFER, "write buffer", e));
    w->buf = buf;
    if (read_only) return w->tmp[0] = 0, OK;
    w->fd = io_fails() ? -1 : open(w->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (w->fd >= 0) return OK;
    int rc = io_error(e, w->tmp, "cannot create");
    file_abort(w);
    return rc;
}

static int flush(FileWriter *w, Err *e) {
    if (w->fill && write_fully(w->fd, w->buf, w->fill)) return io_error(e, w->tmp, "cannot write");
    w->fill = 0;
    return OK;
}

int file_write(FileWriter *w, const void *data, size_t n, Err *e) {
    if (!w->buf) return err_set(e, ERR_IO, "write to a file that is not open");
    if (read_only) return w->written += n, OK;
    w->crc = file_crc32c(w->crc, data, n);
    w->written += n;
    if (n > BUFFER - w->fill) TRY(flush(w, e));
    if (n >= BUFFER) return write_fully(w->fd, data, n) ? io_error(e, w->tmp, "cannot write") : OK;
    if (n) memcpy(w->buf + w->fill, data, n);
    w->fill += n;
    return OK;
}

static int finish(FileWriter *w, Err *e) {
    char dir[1024];
    if (!w->buf) return err_set(e, ERR_IO, "commit of a file that is not open");
    if (read_only) return OK;
    TRY(path_parent(dir, sizeof dir, w->path, e));
    TRY(flush(w, e));
    if (sync_fully(w->fd)) return io_error(e, w->tmp, "cannot sync");
    int bad = close(w->fd);
    w->fd = -1;
    if (bad) return io_error(e, w->tmp, "cannot close");
    if (io_fails() || rename(w->tmp, w->path)) return io_error(e, w->path, "cannot rename the new file into place");
    w->tmp[0] = 0;
    return file_sync_dir(dir, e);
}

int file_commit(FileWriter *w, Err *e) {
    int rc = finish(w, e);
    size_t written = w->written;
    uint32_t crc = w->crc;
    file_abort(w); /* after success only the buffer is left to free */
    if (!rc) w->written = written, w->crc = crc;
    return rc;
}

void file_abort(FileWriter *w) {
    if (w->buf) {
        if (w->fd >= 0) close(w->fd);
        if (w->tmp[0]) unlink(w->tmp);
        mem_free(w->buf);
    }
    memset(w, 0, sizeof *w);
    w->fd = -1;
}

int file_write_all(const char *path, const void *data, size_t n, Err *e) {
    FileWriter w;
    TRY(file_create(&w, path, e));
    int rc = file_write(&w, data, n, e);
    if (!rc) return file_commit(&w, e);
    file_abort(&w);
    return rc;
}

int file_copy(const char *from, const char *to, Err *e) {
    File f;
    TRY(file_open(&f, from, e));
    int rc = file_write_all(to, f.data, f.size, e);
    file_close(&f);
    return rc;
}

int file_append(const char *path, const void *data, size_t n, Err *e) {
    if (read_only) return OK;
    int fd = io_fails() ? -1 : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return io_error(e, path, "cannot open for appending");
    int rc = write_fully(fd, data, n) ? io_error(e, path, "cannot append") : OK;
    if (close(fd) && !rc) rc = io_error(e, path, "cannot close");
    return rc;
}

/* ---- between processes ---- */

/* A file that was replaced while this process waited for its lock is not the one that the name means any more. */
static int is_current(int fd, const char *path) {
    struct stat a, b;
    return !fstat(fd, &a) && !stat(path, &b) && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

void file_lock(int *lock, const char *path) {
    for (;;) {
        *lock = read_only ? -1 : open(path, O_RDWR | O_CLOEXEC);
        if (*lock < 0) return;
        while (flock(*lock, LOCK_EX) && errno == EINTR) {}
        if (is_current(*lock, path)) return;
        close(*lock);
    }
}

void file_unlock(int lock) {
    if (lock >= 0) close(lock);
}

int file_link_new(const char *path, const char *text, int *made, Err *e) {
    *made = 0;
    if (read_only) return OK;
    if (!io_fails() && !symlink(text, path)) *made = 1;
    else if (errno == EPERM || errno == ENOSYS || errno == EOPNOTSUPP) *made = 1;
    else if (errno != EEXIST) return io_error(e, path, "cannot make the link");
    return OK;
}

int file_link_read(const char *path, char *text, size_t cap) {
    const ssize_t n = readlink(path, text, cap - 1);
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}
