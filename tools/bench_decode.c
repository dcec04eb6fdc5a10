/* bench_decode.c - see bench_decode.h. */
#include "tools/bench_decode.h"
#include "base/file.h"
#include "base/log.h"
#include "report/svg.h"
#include "model/generate.h"
#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { READ = 64, MOST_REPEAT = 256 };

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds: of this thread's work where one thread does it all, else of the wall. */
static double now(const Backend *be) {
    struct timespec t;
    if (!be->host || be->threads != 1) return log_now();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A context of `length` tokens: `read` are there, their rows in the caches are repeated until they are full. */
static void context_pretend(Decode *d, int read, int length) {
    Backend *be = d->m->be;
    const size_t row = (size_t)d->m->c.Hk * d->m->c.D;
    for (int l = 0; l < d->m->c.L; l++) {
        MixerState *s = &d->state[l];
        const int want = length < s->rows ? length : s->rows;
        for (int have = s->used; s->k_cache && have < want;) {
            const int more = want - have < have ? want - have : have;
            const size_t bytes = (size_t)more * row * be->real_size;
            be->move(be, real_at(be, s->k_cache, (size_t)have * row), s->k_cache, bytes);
            be->move(be, real_at(be, s->v_cache, (size_t)have * row), s->v_cache, bytes);
            have += more;
        }
        if (s->k_cache && s->used < want) s->used = want;
    }
    d->past = length > read ? length : read;
}

/* Seconds of one decoded token behind `length` others, and the bytes that those take. */
static int length_run(DecodeSeries *s, int i, int length, int repeat, Err *e) {
    Decode d;
    Model *m = s->m;
    int ids[READ];
    double took[MOST_REPEAT];
    const int read = length < READ ? length : READ;
    TRY(decode_open(&d, m, 1, length, read, e));
    s->cache_bytes[i] = d.cache_bytes;
    s->state_bytes[i] = d.state_bytes;
    decode_close(&d);
    TRY(decode_open(&d, m, 1, length + repeat + 1, read, e));
    for (int t = 0; t < read; t++) ids[t] = (t * 7 + 1) % m->c.VOC;
    int rc = decode_extend(&d, ids, read, NULL, e);
    if (!rc) context_pretend(&d, read, length);
    if (!rc) rc = decode_extend(&d, ids, 1, NULL, e); // warm
    for (int k = 0; k < repeat && !rc; k++) {
        const double began = now(m->be);
        rc = decode_extend(&d, ids + k % read, 1, NULL, e);
        took[k] = now(m->be) - began;
    }
    decode_close(&d);
    TRY(rc);
    qsort(took, (size_t)repeat, sizeof *took, by_value);
    s->tok_per_s[i] = 1 / took[repeat / 2];
    return OK;
}

int bench_decode_run(DecodeSeries *s, const int *length, int n, int repeat, const Progress *progress, Err *e) {
    if (n < 1 || n > DECODE_LENGTHS || repeat < 1 || repeat > MOST_REPEAT)
        return err_set(e, ERR_USAGE, "decode: got %d lengths, %d repetitions, expected 1 to %d and 1 to %d", n, repeat,
                       DECODE_LENGTHS, MOST_REPEAT);
    for (int i = 0; i < n; i++) {
        const ProgressLine line = {.label = s->name, .step = i + 1, .total = n, .eta_s = -1};
        TRY(length_run(s, i, length[i], repeat, e));
        progress_report(progress, &line);
    }
    return OK;
}

static void csv_put(TextBuf *b, const DecodeSeries *s, int models, const int *length, int n) {
    textbuf_puts(b, "model,context,tok_per_s,cache_bytes,state_bytes\n");
    for (int k = 0; k < models; k++)
        for (int i = 0; i < n; i++)
            textbuf_printf(b, "%s,%d,%.6g,%zu,%zu\n", s[k].name, length[i], s[k].tok_per_s[i], s[k].cache_bytes[i],
                           s[k].state_bytes[i]);
}

static void json_put(TextBuf *b, const DecodeSeries *s, int models, const int *length, int n) {
    for (int k = 0; k < models; k++)
        for (int i = 0; i < n; i++)
            textbuf_printf(b,
                           "{\"model\": \"%s\", \"context\": %d, \"tok_per_s\": %.6g, \"cache_bytes\": %zu, "
                           "\"state_bytes\": %zu}\n",
                           s[k].name, length[i], s[k].tok_per_s[i], s[k].cache_bytes[i], s[k].state_bytes[i]);
}

static void table_put(TextBuf *b, const DecodeSeries *s, int models, const int *length, int n) {
    textbuf_printf(b, "%9s", "context");
    for (int k = 0; k < models; k++) textbuf_printf(b, " %12s tok/s %10s MiB", s[k].name, "");
    if (models == 2) textbuf_printf(b, " %8s %10s", "speed x", "bytes /");
    for (int i = 0; i < n; i++) {
        double bytes[2] = {0};
        textbuf_printf(b, "\n%9d", length[i]);
        for (int k = 0; k < models; k++) {
            bytes[k] = (double)(s[k].cache_bytes[i] + s[k].state_bytes[i]);
            textbuf_printf(b, " %18.1f %14.3f", s[k].tok_per_s[i], bytes[k] / 1048576);
        }
        if (models == 2) textbuf_printf(b, " %8.2f %10.2f", s[1].tok_per_s[i] / s[0].tok_per_s[i], bytes[0] / bytes[1]);
    }
    textbuf_puts(b, "\nbytes: caches and states of one sequence; only 64 tokens of a context are read, "
                    "their rows repeated in the caches\n");
}

int bench_decode_print(const DecodeSeries *s, int models, const int *length, int n, BenchForm form, FILE *out, Err *e) {
    TextBuf b = {0};
    if (form == BENCH_CSV) csv_put(&b, s, models, length, n);
    else if (form == BENCH_JSON) json_put(&b, s, models, length, n);
    else table_put(&b, s, models, length, n);
    const int rc = textbuf_end(&b, e);
    if (!rc) fwrite(b.text, 1, b.len, out);
    textbuf_free(&b);
    return rc;
}

static int picture(const DecodeSeries *s, int models, const int *length, int n, int bytes, const char *dir, Err *e) {
    double x[DECODE_LENGTHS], y[2][DECODE_LENGTHS];
    SvgSeries line[2] = {{0}};
    TextBuf b = {0};
    char path[1100];
    const SvgPlot plot = {.title = bytes ? "Memory of one sequence" : "Decoding speed",
                          .desc = bytes ? "Bytes of caches and states against context length"
                                        : "Tokens a second against context length",
                          .x_label = "context (tokens)",
                          .y_label = bytes ? "caches and states (bytes)" : "tokens/s",
                          .log_x = 1,
                          .log_y = 1};
    for (int i = 0; i < n; i++) x[i] = length[i];
    for (int k = 0; k < models; k++) {
        for (int i = 0; i < n; i++)
            y[k][i] = bytes ? (double)(s[k].cache_bytes[i] + s[k].state_bytes[i]) : s[k].tok_per_s[i];
        line[k] = (SvgSeries){.name = s[k].name, .x = x, .y = y[k], .n = (size_t)n};
    }
    svg_lines(&b, &plot, line, (size_t)models, NAN, NULL);
    int rc = textbuf_end(&b, e);
    if (!rc) rc = file_join(path, sizeof path, dir, bytes ? "decode_bytes.svg" : "decode_speed.svg", e);
    if (!rc) rc = svg_save(&b, path, e);
    textbuf_free(&b);
    return rc;
}

int bench_decode_save(const DecodeSeries *s, int models, const int *length, int n, const char *dir, Err *e) {
    TextBuf b = {0};
    char path[1100];
    TRY(file_mkdirs(dir, e));
    csv_put(&b, s, models, length, n);
    int rc = textbuf_end(&b, e);
    if (!rc) rc = file_join(path, sizeof path, dir, "decode.csv", e);
    if (!rc) rc = file_write_all(path, b.text, b.len, e);
    textbuf_free(&b);
    for (int bytes = 0; bytes < 2 && !rc; bytes++) rc = picture(s, models, length, n, bytes, dir, e);
    return rc;
}
