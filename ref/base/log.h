/* log.h - progress that a person watches, and the clock. The library never prints: it hands a ProgressLine to
 * a callback, and tools/ installs one that puts progress_draw()'s text on stderr. The machine-readable log is
 * io/jsonl.h. */
#ifndef HYB_LOG_H
#define HYB_LOG_H
#include <stddef.h>

double log_now(void);                /* seconds, monotonic, from an arbitrary start */
void log_utc(char *dst, size_t cap); /* "2025-12-31T23:59:59Z"; cap >= 21, else cut */

/* One line: "step 120/2000 | loss 0.4123 | kl 0.41 | lr 1.0e-04 | 41.2 ms | 12.4k tok/s | 6% | ETA 00:12:33".
 */
enum { PROGRESS_COLUMNS = 12 };
typedef struct {
    const char *label; /* what is counted: "step", "layer"; NULL: "step" */
    long step, total;  /* done so far, of how many (0: unknown; then no percentage) */
    int columns;
    struct {
        char name[16], value[24];
    } column[PROGRESS_COLUMNS]; /* filled by progress_add */
    double step_ms;             /* time of one step; <= 0 leaves the column out */
    double tok_per_s;           /* <= 0 leaves the column out */
    double eta_s;               /* < 0 leaves the column out; progress_eta computes it */
} ProgressLine;

typedef struct Progress {
    void (*report)(void *ctx, const ProgressLine *line);
    void *ctx;
} Progress;

void progress_report(const Progress *p, const ProgressLine *line); /* p, or p->report, may be NULL: silence */
/* One more column, printf style; columns beyond PROGRESS_COLUMNS are dropped. name "" shows the value alone.
 */
void progress_add(ProgressLine *line, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Seconds left when `done` units took elapsed_s; -1 when nothing is done yet. */
double progress_eta(double elapsed_s, long done, long left);
/* The line as text, without newline, cut at cap; returns its length. */
size_t progress_format(char *dst, size_t cap, const ProgressLine *line);

/* When and how to draw. A terminal gets the line redrawn in place (at most ten times a second, always at the
 * end), anything else a whole line every `every_s` seconds and one at the end. Zeroed + the first three
 * fields set is the start. */
typedef struct {
    int tty, quiet;
    double every_s; /* 0: 10 s */
    double last;    /* internal: time of the last line */
    size_t width;   /* internal: length of the last line, to be wiped */
    int drawn;      /* internal */
} ProgressPace;
/* The text to print now, line ends included; returns its length, 0: nothing to print now. now = log_now(). */
size_t progress_draw(ProgressPace *pace, double now, char *dst, size_t cap, const ProgressLine *line);
/* What to print before other text may go to the same terminal: "\n" if a redrawn line is standing there, else
 * "". */
const char *progress_break(ProgressPace *pace);

/* "950", "12.4k", "1.25M", "3.10G" (decimal). */
size_t log_count(char *dst, size_t cap, double v);

#endif
