/* cmd_eval_done.c - which tasks of an evaluation are finished: DIR/tasks.jsonl, so that --resume asks only what is
 * missing. */
#include "base/file.h"
#include "base/mem.h"
#include "tools/cmd_eval_run.h"
#include "tools/run_dir.h"
#include <math.h>
#include <string.h>

/* Everything that a task's result depends on, as text. Chained seeds: the tasks before it too. */
static void how_asked(const EvalRun *u, int i, TextBuf *b) {
    const EvalOptions *o = u->o;
    textbuf_printf(b, "model %s, device %s, seed %llu, limit %d, max_length %d, add_bos %d", u->c->common.model,
                   u->c->common.device, (unsigned long long)u->c->common.seed, o->limit, o->max_length, o->add_bos);
    if (task_generated(u->task[i])) textbuf_printf(b, ", samples %d, pairs %d", o->samples, o->pairs);
    if (task_ruler(u->task[i]) >= 0)
        textbuf_printf(b, ", data %s, max_len %d, flavour %d, tokenizer %d", o->data, o->max_len, o->flavour,
                       o->tokenizer);
    else
        textbuf_printf(b, ", data %s, protocol %d, window %d, shots %d, threshold %.9g", o->data, o->protocol,
                       o->window, o->shots, o->no_answer);
    if (!o->seeds) return;
    textbuf_puts(b, ", after");
    for (int k = 0; k < i; k++) textbuf_printf(b, " %s", task_name(u->task[k]));
}

static int result_read(const Json *j, TaskResult *r, Err *e) {
    const JsonRef list = json_get(j, 0, "metrics");
    int64_t n = 0;
    *r = (TaskResult){0};
    TRY(json_want_int(j, json_get(j, 0, "n"), "n", 0, INT64_MAX, &n, e));
    r->n = (size_t)n;
    for (JsonRef m = json_first(j, list); m >= 0 && r->metrics < TASK_METRICS; m = json_next(j, m)) {
        const int k = r->metrics++;
        const char *name;
        TRY(json_want_str(j, json_get(j, m, "name"), "name", &name, NULL, e));
        snprintf(r->metric[k].name, sizeof r->metric[k].name, "%s", name);
        r->metric[k].value = r->metric[k].se = NAN;
        TRY(json_opt_real(j, m, "value", &r->metric[k].value, e));
        TRY(json_opt_real(j, m, "stderr", &r->metric[k].se, e));
    }
    return OK;
}

static int row_read(EvalRun *u, const Json *j, Err *e) {
    const char *name, *asked;
    TRY(json_want_str(j, json_get(j, 0, "task"), "task", &name, NULL, e));
    TRY(json_want_str(j, json_get(j, 0, "asked"), "asked", &asked, NULL, e));
    for (int i = 0; i < u->n; i++) {
        TextBuf b = {0};
        if (strcmp(task_name(u->task[i]), name)) continue;
        how_asked(u, i, &b);
        const int rc = textbuf_end(&b, e), same = !rc && !strcmp(b.text, asked);
        textbuf_free(&b);
        TRY(rc);
        if (!same) continue;
        TRY(result_read(j, &u->result[i], e));
        u->have[i] = 1;
    }
    return OK;
}

static int done_read(EvalRun *u, const char *path, Err *e) {
    File f;
    TRY(file_open(&f, path, e));
    int rc = OK;
    size_t line = 1;
    const char *p = (const char *)f.data, *end = p + f.size;
    for (const char *stop; !rc && p < end && (stop = memchr(p, '\n', (size_t)(end - p))) != NULL;
         p = stop + 1, line++) {
        char where[1200];
        Json j;
        snprintf(where, sizeof where, "%s:%zu", path, line);
        rc = json_parse(&j, p, (size_t)(stop - p), where, e);
        if (rc) break;
        rc = row_read(u, &j, e);
        json_free(&j);
    }
    file_close(&f);
    return rc;
}

int eval_done_open(EvalRun *u, Err *e) {
    char path[1100];
    TRY(run_dir_open(u->c, "tasks.jsonl", 0, e));
    TRY(run_path(path, sizeof path, u->c, "tasks.jsonl", e));
    if (u->c->common.resume && file_exists(path)) TRY(done_read(u, path, e));
    return log_open(&u->done, path, u->c->common.resume, e);
}

int eval_done_add(EvalRun *u, int i, Err *e) {
    const TaskResult *r = &u->result[i];
    TextBuf asked = {0};
    JsonOut row;
    if (!u->done) return OK;
    how_asked(u, i, &asked);
    TRY(textbuf_end(&asked, e));
    json_out_begin(&row, 0);
    json_out_object(&row, NULL);
    json_out_str(&row, "task", task_name(u->task[i]));
    json_out_str(&row, "asked", asked.text);
    json_out_u64(&row, "n", r->n);
    json_out_array(&row, "metrics");
    for (int k = 0; k < r->metrics; k++) {
        json_out_object(&row, NULL);
        json_out_str(&row, "name", r->metric[k].name);
        json_out_real(&row, "value", r->metric[k].value);
        json_out_real(&row, "stderr", r->metric[k].se);
        json_out_close(&row);
    }
    json_out_close(&row);
    json_out_close(&row);
    textbuf_free(&asked);
    return log_row(u->done, &row, e);
}
