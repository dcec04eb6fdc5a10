/* file.h - the only place that talks to the operating system about files.
 *
 * Reading: a whole file as (pointer, length), mapped read-only. Writing: to "PATH.tmp-PID" in the same directory,
 * fsync, rename, fsync of the directory, so that a reader sees the old file or the new one and never a part
 * (ref/io/FORMATS.md 6).
 * Every call goes through a counter, so that tests can fail or kill the process at the n-th I/O call. */
#ifndef HYB_FILE_H
#define HYB_FILE_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "base/err.h"

typedef struct {
    const unsigned char *data; /* file bytes; "" when the file is empty */
    size_t size;
    int mapped; /* internal */
} File;

/* Regular files only (a directory or a fifo is refused by name). ERR_IO with strerror on failure; f is zeroed then.
 * The file must not be shortened by another process while it is open (the system would raise SIGBUS). */
int file_open(File *f, const char *path, Err *e);
/* The same, but "-" is standard input: read to its end the first time, the same bytes each time. */
int file_open_text(File *f, const char *path, Err *e);
void file_close(File *f); /* also fine on a zeroed File */

int file_exists(const char *path);         /* 1 regular file, 2 directory, 0 nothing (or not visible) */
int file_streams(const char *path);        /* 1: there, but neither: a pipe, a socket, a device */
int file_mkdirs(const char *path, Err *e); /* like mkdir -p */
/* rm -r of a directory we own (at most 16 deep): links in it are removed, not followed; nothing there is fine too. */
int file_remove_tree(const char *path, Err *e);
void file_remove_empty(const char *dir);       /* if nothing is in it */
int file_remove(const char *path, Err *e);     /* one file; nothing there is fine too */
int file_remove_dir(const char *path, Err *e); /* an empty directory; nothing there is fine too */
/* Removes what crashed writers left in dir and below (16 deep, links not followed): regular files named "*.tmp-DIGITS".
 * Call it when no other process writes there. */
int file_remove_temps(const char *dir, Err *e);
int file_rename(const char *from, const char *to, Err *e); /* rename + fsync of the parent directory */
int file_sync_dir(const char *path, Err *e);
/* Names in a directory, sorted bytewise, without . and ..; free each and the array with file_list_free. */
int file_list(char ***names, size_t *n, const char *path, Err *e);
void file_list_free(char **names, size_t n);
/* dst = dir/name, checked for truncation. */
int file_join(char *dst, size_t cap, const char *dir, const char *name, Err *e);
int file_copy(const char *from, const char *to, Err *e); /* atomic, byte for byte */

/* Atomic writer. file_create -> file_write ... -> file_commit, or file_abort (removes the temporary file).
 * After an error in any of them only file_abort is needed; commit aborts by itself when it fails. */
typedef struct {
    int fd;
    char path[1024], tmp[1088];
    size_t written;
    uint32_t crc; /* CRC-32C of everything written so far */
    unsigned char *buf;
    size_t fill;
} FileWriter;
int file_create(FileWriter *w, const char *path, Err *e);
int file_write(FileWriter *w, const void *data, size_t n, Err *e);
int file_commit(FileWriter *w, Err *e);
void file_abort(FileWriter *w);
int file_write_all(const char *path, const void *data, size_t n, Err *e); /* the three in one */

/* Append log: opened with O_APPEND, each line written with one write(2). */
int file_append(const char *path, const void *data, size_t n, Err *e);

/* For a file that several processes append to and replace: no other has it between the two calls. *lock is what
 * file_unlock takes; -1 where there is no such file, or where its file system knows no locks. */
void file_lock(int *lock, const char *path);
void file_unlock(int lock);

/* 1: from now on this process changes no file: every call that would is OK and does nothing. For the ranks that are not
 * the first (base/ranks.h), which run the same code. */
void file_read_only(int on);

/* A symbolic link at `path` that says `text`: *made = 0 if something is there already. Where links cannot be made,
 * *made = 1 and there is none. */
int file_link_new(const char *path, const char *text, int *made, Err *e);
/* 1, and what the link at `path` says; 0: there is none. */
int file_link_read(const char *path, char *text, size_t cap);

uint32_t file_crc32c(uint32_t crc, const void *data, size_t n); /* start with 0 */

/* Tests: HYBRIDIZE_FAIL_IO=n makes the n-th I/O call (1-based, counted over write, fsync, rename, open for writing,
 * mkdir, unlink, rmdir) fail with EIO; "n:ENOSPC" with a full disk; "n:SHORT" and "n:EINTR" make a write (an fsync)
 * incomplete or interrupted once, which must do no harm. HYBRIDIZE_KILL_IO=n sends this process SIGKILL just before the
 * n-th call. */
long file_io_calls(void);

#endif
