/* cmd_eval_print.c - results of question sets as a table or as lm-evaluation-harness's JSON. */
#include "base/file.h"
#include "tools/cmd_eval_run.h"
#include <math.h>
#include <string.h>

/* Unweighted mean over the tasks of the group. */
static TaskResult group_result(const EvalRun *u) {
    TaskResult r = u->result[0];
    r.n = 0;
    double sum = 0, var = 0;
    for (int i = 0; i < RULER_TASKS; i++) {
        sum += u->result[i].metric[0].value;
        var += u->result[i].metric[0].se * u->result[i].metric[0].se;
        r.n += u->result[i].n;
    }
    r.metric[0].value = sum / RULER_TASKS;
    r.metric[0].se = sqrt(var) / RULER_TASKS;
    return r;
}

static void result_json(JsonOut *o, const char *name, const TaskResult *r) {
    char key[64];
    json_out_object(o, name);
    json_out_str(o, "alias", name);
    for (int k = 0; k < r->metrics; k++) {
        snprintf(key, sizeof key, "%s,none", r->metric[k].name);
        json_out_real(o, key, r->metric[k].value);
        snprintf(key, sizeof key, "%s_stderr,none", r->metric[k].name);
        if (isfinite(r->metric[k].se)) json_out_real(o, key, r->metric[k].se);
        else json_out_str(o, key, "N/A");
    }
    json_out_close(o);
}

static void config_json(const EvalRun *u, JsonOut *o) {
    json_out_object(o, "config");
    json_out_str(o, "model", u->c->common.model);
    json_out_str(o, "device", u->c->common.device);
    json_out_u64(o, "seed", u->c->common.seed);
    json_out_str(o, "seeds", u->o->seeds ? "chained" : "per-task");
    json_out_str(o, "ruler_flavour", u->o->flavour == RULER_LITE ? "lite" : u->o->flavour ? "nvidia" : "lmeval");
    json_out_int(o, "max_len", u->o->max_len);
    json_out_int(o, "limit", u->o->limit);
    json_out_bool(o, "add_bos", u->o->add_bos);
    json_out_close(o);
    json_out_int(o, "truncated", u->lm.truncated);
    json_out_u64(o, "cache_bytes", u->lm.cache_bytes);
    json_out_u64(o, "state_bytes", u->lm.state_bytes);
    json_out_real(o, "total_evaluation_time_seconds", log_now() - u->began);
}

static int results_json(const EvalRun *u, JsonOut *out, Err *e) {
    JsonOut o;
    json_out_begin(&o, 1);
    json_out_object(&o, NULL);
    json_out_object(&o, "results");
    for (int i = 0; i < u->n; i++) result_json(&o, task_name(u->task[i]), &u->result[i]);
    if (u->group) {
        const TaskResult r = group_result(u);
        result_json(&o, "ruler", &r);
    }
    json_out_close(&o);
    json_out_object(&o, "n-samples");
    for (int i = 0; i < u->n; i++) json_out_u64(&o, task_name(u->task[i]), u->result[i].n);
    json_out_close(&o);
    config_json(u, &o);
    json_out_close(&o);
    *out = o;
    return json_out_end(out, e);
}

static int print_json(const EvalRun *u, Err *e) {
    JsonOut o;
    char path[1100];
    int rc = results_json(u, &o, e);
    if (!rc && u->c->common.json) puts(o.text);
    if (!rc && u->done) rc = file_join(path, sizeof path, u->c->common.output, "results.json", e);
    if (!rc && u->done) rc = file_write_all(path, o.text, o.len, e);
    json_out_free(&o);
    return rc;
}

static void print_row(const char *name, const TaskResult *r) {
    for (int k = 0; k < r->metrics; k++) {
        printf("%-18s %-16s %10.4f", name, r->metric[k].name, r->metric[k].value);
        if (isfinite(r->metric[k].se)) printf(" +- %.4f", r->metric[k].se);
        printf("  n %zu\n", r->n);
    }
}

int eval_print(const EvalRun *u, Err *e) {
    if (u->c->common.json || u->done) TRY(print_json(u, e));
    if (u->c->common.json) return OK;
    for (int i = 0; i < u->n; i++) print_row(task_name(u->task[i]), &u->result[i]);
    if (u->group) {
        const TaskResult r = group_result(u);
        print_row("ruler", &r);
    }
    if (u->lm.cache_bytes + u->lm.state_bytes)
        printf("memory of generation: cache %.2f MiB (grows with length), state %.2f MiB (fixed)\n",
               (double)u->lm.cache_bytes / 1048576, (double)u->lm.state_bytes / 1048576);
    if (u->lm.truncated) printf("%ld prompts lost their beginning to fit the model's context\n", u->lm.truncated);
    return OK;
}
