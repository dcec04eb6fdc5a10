/* log.c - see log.h. */
#include "base/log.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

double log_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void log_utc(char *dst, size_t cap) {
    time_t now = time(NULL);
    struct tm tm;
    if (!cap) return;
    dst[0] = 0;
    if (gmtime_r(&now, &tm) && !strftime(dst, cap, "%Y-%m-%dT%H:%M:%SZ", &tm)) dst[0] = 0;
}

void progress_report(const Progress *p, const ProgressLine *line) {
    if (p && p->report) p->report(p->ctx, line);
}

void progress_add(ProgressLine *line, const char *name, const char *fmt, ...) {
    if (line->columns >= PROGRESS_COLUMNS) return;
    int i = line->columns++;
    snprintf(line->column[i].name, sizeof line->column[i].name, "%s", name);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line->column[i].value, sizeof line->column[i].value, fmt, ap);
    va_end(ap);
}

double progress_eta(double elapsed_s, long done, long left) {
    return done > 0 && elapsed_s >= 0 ? elapsed_s / (double)done * (double)(left > 0 ? left : 0) : -1;
}

size_t log_count(char *dst, size_t cap, double v) {
    static const struct {
        double unit;
        const char *fmt;
    } scale[] = {{1e9, "%.2fG"}, {1e6, "%.2fM"}, {1e3, "%.1fk"}};
    int n = -1;
    for (size_t i = 0; i < 3 && n < 0; i++)
        /* 999.95e3 would print as 1000.0k: the next unit takes over where rounding would */
        if (fabs(v) >= scale[i].unit * (i == 1 ? 0.99995 : i == 0 ? 0.999995 : 0.9995))
            n = snprintf(dst, cap, scale[i].fmt, v / scale[i].unit);
    if (n < 0) n = snprintf(dst, cap, "%.0f", v);
    return n < 0 ? 0 : (size_t)n < cap ? (size_t)n : cap ? cap - 1 : 0;
}

/* A text being built in a fixed buffer; what does not fit is cut. */
typedef struct {
    char *dst;
    size_t cap, len;
} Line;

static void line_add(Line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line_add(Line *l, const char *fmt, ...) {
    va_list ap;
    if (l->len + 1 >= l->cap) return;
    va_start(ap, fmt);
    int n = vsnprintf(l->dst + l->len, l->cap - l->len, fmt, ap);
    va_end(ap);
    if (n > 0) l->len += (size_t)n < l->cap - l->len ? (size_t)n : l->cap - l->len - 1;
}

size_t progress_format(char *dst, size_t cap, const ProgressLine *line) {
    Line l = {dst, cap, 0};
    if (cap) dst[0] = 0;
    line_add(&l, "%s %ld", line->label ? line->label : "step", line->step);
    if (line->total > 0) line_add(&l, "/%ld", line->total);
    for (int i = 0; i < line->columns; i++)
        line_add(&l, " | %s%s%s", line->column[i].name, line->column[i].name[0] ? " " : "", line->column[i].value);
    if (line->step_ms > 0) line_add(&l, line->step_ms < 10000 ? " | %.1f ms" : " | %.0f ms", line->step_ms);
    if (line->tok_per_s > 0) {
        char rate[32];
        log_count(rate, sizeof rate, line->tok_per_s);
        line_add(&l, " | %s tok/s", rate);
    }
    if (line->total > 0) line_add(&l, " | %.0f%%", floor(100.0 * (double)line->step / (double)line->total));
    if (line->eta_s >= 0 && line->eta_s < 1e9) {
        long s = (long)(line->eta_s + 0.5);
        line_add(&l, " | ETA ");
        if (s >= 86400) line_add(&l, "%ldd ", s / 86400);
        line_add(&l, "%02ld:%02ld:%02ld", s / 3600 % 24, s / 60 % 60, s % 60);
    }
    return l.len;
}

size_t progress_draw(ProgressPace *pace, double now, char *dst, size_t cap, const ProgressLine *line) {
    int end = line->total > 0 && line->step >= line->total;
    double every = pace->tty ? 0.1 : pace->every_s > 0 ? pace->every_s : 10;
    if (cap) dst[0] = 0;
    if (pace->quiet || cap < 3 || (pace->drawn && !end && now - pace->last < every)) return 0;
    Line l = {dst, cap, 0};
    if (pace->tty) line_add(&l, "\r");
    size_t start = l.len;
    l.len += progress_format(dst + l.len, cap - l.len - 1, line); /* a byte is kept for the newline */
    size_t width = l.len - start;
    for (size_t i = width; pace->tty && i < pace->width; i++) line_add(&l, " ");
    if (!pace->tty || end) {
        if (l.len + 2 > cap) l.len = cap - 2;
        line_add(&l, "\n");
    }
    pace->width = end ? 0 : width;
    pace->last = now;
    pace->drawn = 1;
    return l.len;
}

const char *progress_break(ProgressPace *pace) {
    int standing = pace->tty && pace->drawn && pace->width;
    pace->width = 0;
    return standing ? "\n" : "";
}
