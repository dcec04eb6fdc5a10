/* jsonl.h - the machine-readable log: one JSON object per line, each written with one write(2) as soon as it
 * is complete.
 *
 * After a crash the last line may be torn, and the log may run ahead of the checkpoint that training resumes
 * from. Opening for append removes the torn line; log_truncate_after removes what runs ahead, so that the log
 * of an interrupted and resumed run has the same rows as that of an uninterrupted one (times aside). Several processes
 * may append to one log and take rows out of it: it is locked for that long (file_lock). */
#ifndef HYB_JSONL_H
#define HYB_JSONL_H
#include <stdint.h>
#include "base/err.h"
#include "base/json.h"

typedef struct Log Log;
/* append = 0 starts an empty file (atomically replacing an old one); append = 1 continues one, without a torn
 * last line. */
int log_open(Log **l, const char *path, int append, Err *e);
int log_row(Log *l, JsonOut *row,
            Err *e);    /* one finished object (json_out_begin(&row, 0)); ends and frees row, also on failure */
void log_close(Log *l); /* NULL is fine */

/* Drops the first row for which beyond() returns 1 and everything after it; a torn last line goes too. A
 * broken line elsewhere is ERR_INPUT with its number. No file: nothing to do. The file is replaced atomically
 * and only when something is dropped. */
int log_cut(const char *path, int (*beyond)(void *ctx, const Json *row), void *ctx, Err *e);
/* Drops every row for which drop() returns 1, and a torn last line; the rest stays in order. Otherwise as log_cut. */
int log_drop(const char *path, int (*drop)(void *ctx, const Json *row), void *ctx, Err *e);
/* The usual cut, for resuming stage `stage` at `step`: after rows of that stage have begun, the first row of
 * another stage or with "step" > step is beyond. Rows without a "stage" (events) count as rows of the stage
 * that surrounds them. */
int log_truncate_after(const char *path, const char *stage, int64_t step, Err *e);

#endif
