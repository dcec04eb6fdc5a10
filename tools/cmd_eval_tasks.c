/* cmd_eval_tasks.c - question sets: made or read, written out or put to a model; results as a table or as lm-evaluation-harness's JSON. */
#include "base/mem.h"
#include "eval/tasks.h"
#include "io/jsonl.h"
#include "tools/cmd_eval.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { MOST_TASKS = 64 };
typedef struct {
    Cli *c;
    const EvalOptions *o;
    const EvalTask *task[MOST_TASKS];
    TaskResult result[MOST_TASKS];
    int n, group; /* group: tasks [0, RULER_TASKS) from `ruler` */
    Session s;
    Ruler ruler;
    TokenCount count;
    Lm lm;
    Log *log;
    FILE *emit;
    double began;
} Run;

/* ---- which tasks ---- */

static int unknown(const char *name, Err *e) {
    const char *words[MOST_TASKS];
    int n = 0;
    static const char *const more[] = {"ppl", "kl", "recall", "ruler", "mqar", "copy", "kl_stats"};
    for (int i = 0; task_at(i) && n < MOST_TASKS - 7; i++) words[n++] = task_name(task_at(i));
    for (int i = 0; i < 7; i++) words[n++] = more[i];
    err_set(e, ERR_USAGE, "eval: unknown task \"%s\"", name);
    const char *near = cli_nearest(name, words, n);
    if (near) return err_hint(e, "did you mean %s?", near);
    return err_hint(e, "hybridize eval --help lists them all");
}

static int task_add(Run *u, const EvalTask *t, Err *e) {
    if (u->n == MOST_TASKS) return err_set(e, ERR_USAGE, "eval: more than %d tasks", MOST_TASKS);
    for (int i = 0; i < u->n; i++)
        if (u->task[i] == t) return err_set(e, ERR_USAGE, "eval: %s is asked for twice", task_name(t));
    u->task[u->n++] = t;
    return OK;
}

static int tasks_parse(Run *u, Err *e) {
    for (const char *at = u->o->task; *at;) {
        char name[64];
        const size_t n = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)n, at);
        if (!strcmp(name, "ruler")) {
            if (u->n) return err_set(e, ERR_USAGE, "eval: ruler must be the first task of a list");
            for (int i = 0; i < RULER_TASKS;
                 i++) // the harness of the paper's time builds the group from its end
                TRY(task_add(u, task_find(ruler_name(u->o->seeds ? RULER_TASKS - 1 - i : i)), e));
            u->group = 1;
        } else {
            const EvalTask *t = task_find(name);
            if (!t) return unknown(name, e);
            TRY(task_add(u, t, e));
        }
        at += n + (at[n] == ',');
    }
    return u->n ? OK : err_set(e, ERR_USAGE, "eval: --task is empty");
}

/* ---- questions ---- */

static int questions(Run *u, const EvalTask *t, EvalSet *set, Err *e) {
    const EvalOptions *o = u->o;
    const int ruler = task_ruler(t);
    if (ruler < 0) return task_read(t, o->data, (size_t)o->limit, set, e);
    if (!o->seeds) ruler_seed(&u->ruler, u->c->common.seed);
    return ruler_make(&u->ruler, ruler, o->max_len, o->limit && o->limit < o->samples ? o->limit : o->samples,
                      set, e);
}

static void doc_json(JsonOut *row, const EvalDoc *d) {
    json_out_str(row, "prompt", d->context[0]);
    if (d->contexts > 1) json_out_str(row, "prompt2", d->context[1]);
    json_out_array(row, "answers");
    for (int i = 0; i < d->n_text; i++) json_out_str(row, NULL, d->text[i]);
    json_out_close(row);
}

static int emit(Run *u, const EvalTask *t, const EvalSet *set, Err *e) {
    for (size_t i = 0; i < set->n; i++) {
        JsonOut row;
        json_out_begin(&row, 0);
        json_out_object(&row, NULL);
        if (u->n > 1) json_out_str(&row, "task", task_name(t));
        json_out_int(&row, "index", (int64_t)i);
        doc_json(&row, &set->doc[i]);
        if (!task_generates(t)) json_out_int(&row, "gold", set->doc[i].gold);
        json_out_close(&row);
        const int rc = json_out_end(&row, e);
        if (!rc) fprintf(u->emit, "%s\n", row.text);
        json_out_free(&row);
        TRY(rc);
    }
    return OK;
}

static int log_sample(void *ctx, const EvalTask *t, const TaskResult *names, const TaskSample *s, Err *e) {
    Run *u = ctx;
    JsonOut row;
    if (!u->log) return OK;
    json_out_begin(&row, 0);
    json_out_object(&row, NULL);
    json_out_str(&row, "task", task_name(t));
    json_out_int(&row, "index", (int64_t)s->index);
    doc_json(&row, s->doc);
    if (s->generated) json_out_str(&row, "generated", s->generated);
    else {
        json_out_int(&row, "gold", s->doc->gold);
        json_out_array(&row, "loglikelihood");
        for (int i = 0; i < s->requests; i++) json_out_real(&row, NULL, s->loglik[i].sum);
        json_out_close(&row);
        json_out_array(&row, "greedy");
        for (int i = 0; i < s->requests; i++) json_out_bool(&row, NULL, s->loglik[i].greedy);
        json_out_close(&row);
    }
    for (int k = 0; k < names->metrics; k++) json_out_real(&row, names->metric[k].name, s->score[k]);
    json_out_close(&row);
    return log_row(u->log, &row, e);
}

/* ---- results ---- */

/* Unweighted mean over the tasks of the group. */
static TaskResult group_result(const Run *u) {
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

static void config_json(const Run *u, JsonOut *o) {
    json_out_object(o, "config");
    json_out_str(o, "model", u->c->common.model);
    json_out_str(o, "device", u->c->common.device);
    json_out_u64(o, "seed", u->c->common.seed);
    json_out_str(o, "seeds", u->o->seeds ? "chained" : "per-task");
    json_out_int(o, "max_len", u->o->max_len);
    json_out_int(o, "limit", u->o->limit);
    json_out_bool(o, "add_bos", u->o->add_bos);
    json_out_close(o);
    json_out_int(o, "truncated", u->lm.truncated);
    json_out_u64(o, "cache_bytes", u->lm.cache_bytes);
    json_out_u64(o, "state_bytes", u->lm.state_bytes);
    json_out_real(o, "total_evaluation_time_seconds", log_now() - u->began);
}

static int print_json(const Run *u, Err *e) {
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
    const int rc = json_out_end(&o, e);
    if (!rc) puts(o.text);
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

static int print_results(const Run *u, Err *e) {
    if (u->c->common.json) return print_json(u, e);
    for (int i = 0; i < u->n; i++) print_row(task_name(u->task[i]), &u->result[i]);
    if (u->group) {
        const TaskResult r = group_result(u);
        print_row("ruler", &r);
    }
    if (u->lm.cache_bytes + u->lm.state_bytes)
        printf("memory of generation: cache %.2f MiB (grows with length), state %.2f MiB (fixed)\n",
               (double)u->lm.cache_bytes / 1048576, (double)u->lm.state_bytes / 1048576);
    if (u->lm.truncated)
        printf("%ld prompts lost their beginning to fit the model's context\n", u->lm.truncated);
    return OK;
}

/* ---- the run ---- */

static int sources_open(Run *u, Err *e) {
    const EvalOptions *o = u->o;
    int made = 0;
    for (int i = 0; i < u->n; i++) made |= task_ruler(u->task[i]) >= 0;
    if (!o->data[0]) {
        err_set(e, ERR_USAGE, "eval: --data DIR is required");
        return err_hint(e, "the folder that holds piqa/, wonderwords/, ruler_essays/, ...");
    }
    if (!o->emit[0]) TRY(session_open(&u->s, u->c, 1, e));
    else if (made && o->tokenizer == STUB_NONE) {
        TRY(cli_require(u->c, u->c->common.model, "-m MODEL or --tokenizer byte|simple", e));
        TRY(session_tokenizer(&u->s.tokenizer, u->c->common.model, e));
    }
    u->count = (TokenCount){.kind = (CountKind)o->tokenizer, .tokenizer = u->s.tokenizer, .special = 1};
    return ruler_open(&u->ruler, o->data, &u->count, e);
}

static int run_all(Run *u, Err *e) {
    EvalModel model = eval_model(&u->lm);
    ruler_seed(&u->ruler, u->c->common.seed);
    u->lm = (Lm){.m = &u->s.m,
                 .t = u->s.tokenizer,
                 .special = u->o->add_bos,
                 .max_length = u->o->max_length,
                 .batch = u->o->batch_size,
                 .stop = u->c->stop,
                 .progress = &u->c->progress};
    for (int i = 0; i < u->n; i++) {
        EvalSet set = {0};
        int rc = questions(u, u->task[i], &set, e);
        u->lm.label = task_name(u->task[i]);
        if (!rc)
            rc = u->emit ? emit(u, u->task[i], &set, e)
                         : task_run(u->task[i], &model, &set, u->o->max_len, &u->result[i], log_sample, u, e);
        if (rc && rc != ERR_SIGINT && !u->emit && e && !strstr(e->msg, task_name(u->task[i])))
            err_prefix(e, "%s", task_name(u->task[i]));
        evalset_free(&set);
        TRY(rc);
    }
    return u->emit ? OK : print_results(u, e);
}

int eval_tasks(Cli *c, const EvalOptions *o, Err *e) {
    Run *u;
    void *mem;
    TRY(mem_alloc(&mem, sizeof *u, "evaluation", e));
    u = mem;
    u->c = c;
    u->o = o;
    u->began = log_now();
    int rc = tasks_parse(u, e);
    if (!rc) rc = sources_open(u, e);
    if (!rc && o->emit[0]) {
        u->emit = !strcmp(o->emit, "-") ? stdout : fopen(o->emit, "w");
        if (!u->emit) rc = err_set(e, ERR_IO, "%s: cannot be written", o->emit);
    }
    if (!rc && o->log_samples[0]) rc = log_open(&u->log, o->log_samples, 0, e);
    if (!rc) rc = run_all(u, e);
    if (u->emit && u->emit != stdout && (ferror(u->emit) | fclose(u->emit)) && !rc)
        rc = err_set(e, ERR_IO, "%s: not written: disk full?", o->emit);
    log_close(u->log);
    ruler_close(&u->ruler);
    token_count_close(&u->count);
    session_close(&u->s);
    mem_free(u);
    return rc;
}
