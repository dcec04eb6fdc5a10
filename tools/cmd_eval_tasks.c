/* cmd_eval_tasks.c - question sets: made or read, written out or put to a model;
 * results as a table or as lm-evaluation-harness's JSON. */
#include "base/mem.h"
#include "eval/answers.h"
#include "eval/mqar.h"
#include "eval/tasks.h"
#include "io/jsonl.h"
#include "tools/cmd_eval_run.h"
#include "tools/run_dir.h"
#include <string.h>

/* ---- which tasks ---- */

static int unknown(const char *name, Err *e) {
    const char *words[MOST_TASKS];
    int n = 0;
    static const char *const more[] = {"ppl", "kl", "kl_stats", "recall", "heatmap", "ruler"};
    enum { MORE = sizeof more / sizeof *more };
    for (int i = 0; task_at(i) && n < MOST_TASKS - MORE - PROBES; i++) words[n++] = task_name(task_at(i));
    for (int i = 0; i < MORE; i++) words[n++] = more[i];
    for (int i = 0; i < PROBES; i++) words[n++] = mqar_name((ProbeKind)i);
    err_set(e, ERR_USAGE, "eval: unknown task \"%s\"", name);
    const char *near = cli_nearest(name, words, n);
    if (near) return err_hint(e, "did you mean %s?", near);
    return err_hint(e, "hybridize eval --help lists them all");
}

static int task_add(EvalRun *u, const EvalTask *t, Err *e) {
    if (u->n == MOST_TASKS) return err_set(e, ERR_USAGE, "eval: more than %d tasks", MOST_TASKS);
    for (int i = 0; i < u->n; i++)
        if (u->task[i] == t) return err_set(e, ERR_USAGE, "eval: %s is asked for twice", task_name(t));
    u->task[u->n++] = t;
    return OK;
}

static int tasks_parse(EvalRun *u, Err *e) {
    for (const char *at = u->o->task; *at;) {
        char name[64];
        const size_t n = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)n, at);
        if (!strcmp(name, "ruler")) {
            if (u->n) return err_set(e, ERR_USAGE, "eval: ruler must be the first task of a list");
            for (int i = 0; i < RULER_TASKS; i++) // the harness of the paper's time builds the group from its end
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

static int questions_get(EvalRun *u, const EvalTask *t, EvalSet *set, Err *e) {
    const EvalOptions *o = u->o;
    const int ruler = task_ruler(t);
    const int samples = o->limit && o->limit < o->samples ? o->limit : o->samples;
    set->threshold = o->no_answer;
    if (task_diagnostic(t)) return task_make(t, samples, o->pairs, u->c->common.seed, set, e);
    if (ruler < 0) {
        const QuestionOptions q = {.limit = (size_t)o->limit,
                                   .shots = !strcmp(task_name(t), "mmlu") ? o->shots : 0,
                                   .protocol = (Protocol)o->protocol,
                                   .window = o->window,
                                   .t = u->s.tokenizer};
        return task_read(t, o->data, &q, set, e);
    }
    if (!o->seeds) ruler_seed(&u->ruler, u->c->common.seed);
    return ruler_make(&u->ruler, ruler, o->max_len, samples, set, e);
}

static int questions(EvalRun *u, const EvalTask *t, EvalSet *set, Err *e) {
    char line[256];
    TRY(questions_get(u, t, set, e));
    TRY(answers_check(t, set, task_ruler(t) >= 0 && u->o->flavour == RULER_LITE, e));
    if (!set->lacking) return OK;
    snprintf(line, sizeof line,
             "note: %s: %zu of %zu questions cannot be answered from what is shown (the first: number %zu); kept, as "
             "published",
             task_name(t), set->lacking, set->n, set->first_lacking);
    cli_note(u->c, line);
    return OK;
}

static void doc_json(JsonOut *row, const EvalDoc *d) {
    json_out_str(row, "prompt", d->context[0]);
    if (d->contexts > 1) json_out_str(row, "prompt2", d->context[1]);
    json_out_array(row, "answers");
    for (int i = 0; i < d->n_text; i++) json_out_str(row, NULL, d->text[i]);
    json_out_close(row);
}

static int emit(EvalRun *u, const EvalTask *t, const EvalSet *set, Err *e) {
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
    EvalRun *u = ctx;
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

/* ---- the run ---- */

static int sources_open(EvalRun *u, Err *e) {
    const EvalOptions *o = u->o;
    int made = 0, read = 0;
    for (int i = 0; i < u->n; i++) {
        made |= task_ruler(u->task[i]) >= 0;
        read |= !task_diagnostic(u->task[i]);
    }
    if (read && !o->data[0]) {
        err_set(e, ERR_USAGE, "eval: --data DIR is required");
        return err_hint(e, "the folder that holds piqa/, wonderwords/, ruler_essays/, ...");
    }
    if (!o->emit[0]) {
        TRY(session_open(&u->s, u->c, 1, e));
        TRY(session_logit_base(&u->s, o->logit_base, e));
        model_prepack(&u->s.m, 0);
    } else if (made && o->tokenizer == STUB_NONE) {
        TRY(cli_require(u->c, u->c->common.model, "-m MODEL or --tokenizer byte|simple", e));
        TRY(session_tokenizer(&u->s.tokenizer, u->c->common.model, e));
    }
    u->count = (TokenCount){.kind = (CountKind)o->tokenizer, .tokenizer = u->s.tokenizer, .special = 1};
    return ruler_open(&u->ruler, o->data, &u->count, e);
}

static int run_all(EvalRun *u, Err *e) {
    EvalModel model = eval_model(&u->lm);
    u->ruler.flavour = (RulerFlavour)u->o->flavour;
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
        if (u->have[i] && !(u->o->seeds && task_ruler(u->task[i]) >= 0))
            continue; // chained: its draws move the streams on
        int rc = questions(u, u->task[i], &set, e);
        u->lm.label = task_name(u->task[i]);
        if (!rc && u->emit) rc = emit(u, u->task[i], &set, e);
        else if (!rc && !u->have[i]) {
            rc = task_run(u->task[i], &model, &set, u->o->max_len, &u->result[i], log_sample, u, e);
            if (!rc) rc = eval_done_add(u, i, e);
        }
        if (rc && rc != ERR_SIGINT && !u->emit && e && !strstr(e->msg, task_name(u->task[i])))
            err_prefix(e, "%s", task_name(u->task[i]));
        evalset_free(&set);
        TRY(rc);
    }
    return u->emit ? OK : eval_print(u, e);
}

int eval_tasks(Cli *c, const EvalOptions *o, Err *e) {
    EvalRun *u;
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
    if (!rc && c->common.output[0] && !o->emit[0]) rc = eval_done_open(u, e);
    if (!rc && o->log_samples[0]) rc = log_open(&u->log, o->log_samples, c->common.resume, e);
    if (!rc) rc = run_all(u, e);
    if (u->emit && u->emit != stdout && (ferror(u->emit) | fclose(u->emit)) && !rc)
        rc = err_set(e, ERR_IO, "%s: not written: disk full?", o->emit);
    log_close(u->log);
    log_close(u->done);
    ruler_close(&u->ruler);
    token_count_close(&u->count);
    session_close(&u->s);
    mem_free(u);
    return rc;
}
