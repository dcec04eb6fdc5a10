/* pipeline_students.c - the hybrids: each distilled, evaluated, and its row kept; equal sets of layers once. */
#include "run/pipeline_parts.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/hf.h"
#include "selectors/budget.h"
#include "run/pretrain.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- students */

/* KL, text loss, recall, sizes of a model. */
static int evaluate(Pipeline *p, Model *m, StudentRow *row, Err *e) {
    const Config *c = &m->c;
    TRY(heldout_run(&p->heldout, m, &row->held, e));
    row->recall_mean = NAN;
    if (p->recall.n_n) TRY(recall_run(&p->recall, m, NULL, NULL, row->recall, &row->recall_mean, e));
    row->L = c->L;
    row->parameters = params_count(c);
    for (int l = 0; l < c->L; l++) {
        row->keep[l] = !c->mixer[l];
        row->K += !c->mixer[l];
        if (c->mixer[l]) row->state_bytes += budget_mixer_bytes(c, mixer_at(c->mixer[l]), p->be);
        else row->cache_bytes_per_token += 2 * (size_t)c->Hk * c->D * p->be->real_size;
    }
    return OK;
}

/* One of stages 2 and 3 on an open student. */
static int distill_stage(Pipeline *p, Model *m, const StageOptions *stage, int with_teacher, const char *name,
                         const char *dir, uint64_t fingerprint, StudentRow *row, Err *e) {
    char log[1200];
    Teacher teacher = {0};
    Distill d;
    TrainResult t = {0};
    TRY(pipeline_path(p, log, sizeof log, "log.jsonl", NULL, e));
    if (with_teacher) TRY(teacher_open(&teacher, &p->teacher, stage->micro_batch_size, stage->train_seq_len, 0, 0, e));
    int rc =
        distill_open(&d, m, with_teacher ? &teacher : NULL, &p->text, stage, p->o->temperature, p->o->checkpointing, e);
    if (!rc) {
        const Task task = distill_task(&d, name);
        const TrainOptions train = pipeline_train(p, stage, dir, log, fingerprint);
        const size_t bytes = m->weight_bytes + m->grad_bytes + optim_bytes(m, &stage->optim) + d.pass.bytes +
                             d.loss.bytes + teacher_bytes(&teacher) + p->teacher.weight_bytes + p->start.weight_bytes +
                             teacher_bytes(&p->heldout.teacher) + model_hold_bytes(&p->teacher, 0) +
                             model_hold_bytes(m, train_hold(stage));
        if (bytes > row->counted_bytes) row->counted_bytes = bytes;
        rc = train_run(&task, &train, &t, e);
        distill_close(&d);
    }
    if (with_teacher) teacher_close(&teacher);
    row->seconds += t.seconds;
    row->tokens += t.tokens;
    return rc;
}

int pipeline_model_save(Pipeline *p, const Model *m, Err *e) {
    static const DType types[] = {DT_F32, DT_F32, DT_BF16, DT_F16};
    char dir[1200], notes[1024] = "";
    HfSaveOptions save = {.dtype = p->o->save_dtype ? types[p->o->save_dtype] : p->teacher.c.dtype,
                          .tokenizer_from = p->o->teacher};
    TRY(pipeline_path(p, dir, sizeof dir, "model", NULL, e));
    TRY(hf_save(m, dir, &save, notes, sizeof notes, e));
    if (notes[0]) pipeline_note(p, "model/: %s", notes);
    return OK;
}

void pipeline_peak(Pipeline *p) {
    if (mem_peak() > p->r->peak_bytes) p->r->peak_bytes = mem_peak();
}

/* Stage 2 (and 3) of the stage-1 student with the layers of keep back to softmax, its evaluation, and model/ for the
 * main one. */
static int student_train(Pipeline *p, const char *name, const int *keep, int is_main, uint64_t fingerprint,
                         const char *dir, StudentRow *row, Err *e) {
    const PipelineOptions *o = p->o;
    char stage_dir[1300];
    Model m;
    pipeline_peak(p);
    mem_peak_reset();
    TRY(hybrid_open(&m, &p->teacher, &p->start, keep, GRAD_ALL, e));
    snprintf(stage_dir, sizeof stage_dir, "%s/stage2", dir);
    int rc = distill_stage(p, &m, &o->stage2, 1, name, stage_dir, fingerprint, row, e);
    if (!rc && (o->stage3.steps || o->stage3.target_tokens)) {
        snprintf(stage_dir, sizeof stage_dir, "%s/stage3", dir);
        rc = distill_stage(p, &m, &o->stage3, 0, name, stage_dir, fingerprint, row, e);
    }
    row->peak_bytes = mem_peak();
    pipeline_peak(p);
    if (!rc) rc = evaluate(p, &m, row, e);
    if (!rc && is_main) rc = pipeline_model_save(p, &m, e);
    model_close(&m);
    return rc;
}

/* Of the options that decide a student's numbers and are not part of p->base. */
static uint64_t student_fingerprint(const Pipeline *p, const char *name, const int *keep) {
    static const char *const keys[] = {"temperature", "eval_batches",  "eval_batch_size", "eval_seq_len",
                                       "recall_keys", "recall_values", "recall_n",        "recall_rows"};
    char text[1024];
    uint64_t h = fingerprint_text(p->base, name);
    const OptionTable *t = pipeline_table();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        options_get(options_find(t, keys[i]), p->o, text, sizeof text);
        h = fingerprint_text(h, text);
    }
    for (int i = 0; i < t->n; i++) {
        if (strncmp(t->row[i].key, "stage2.", 7) && strncmp(t->row[i].key, "stage3.", 7)) continue;
        options_get(&t->row[i], p->o, text, sizeof text);
        h = fingerprint_text(h, text);
    }
    return keep ? fingerprint_bytes(h, keep, (size_t)p->r->L * sizeof *keep) : h;
}

/* An earlier row with the same layers: the same start, data and steps give the same student, bit for bit. */
static const StudentRow *row_same(const Pipeline *p, const int *keep) {
    for (int i = 2; i < p->r->rows; i++)
        if (!memcmp(p->r->row[i].keep, keep, (size_t)p->r->L * sizeof *keep)) return &p->r->row[i];
    return NULL;
}

/* Adds one row: read if it is finished, else made and written. keep NULL: no training, `m` is measured as it is. */
static int student(Pipeline *p, const char *name, Model *m, const int *keep, double select_seconds, Err *e) {
    char file[1200], dir[1200], json[80];
    StudentRow *row = &p->r->row[p->r->rows];
    const uint64_t want = student_fingerprint(p, name, keep);
    uint64_t got = want;
    const StudentRow *same = keep ? row_same(p, keep) : NULL;
    memset(row, 0, sizeof *row);
    snprintf(json, sizeof json, "students/%s.json", name);
    TRY(pipeline_stopped(p, e));
    TRY(pipeline_path(p, dir, sizeof dir, "checkpoints", "students", e));
    TRY(file_mkdirs(dir, e));
    TRY(pipeline_path(p, file, sizeof file, "checkpoints", json, e));
    snprintf(json, sizeof json, "students/%s", name);
    TRY(pipeline_path(p, dir, sizeof dir, "checkpoints", json, e));
    if (file_exists(file)) {
        TRY(row_read(row, &got, p->r->n_n, file, e));
        if (got != want) return err_set(e, ERR_USAGE, "%s: was made with other options, data or teacher", file);
    } else {
        if (same) *row = *same;
        else if (!keep) TRY(evaluate(p, m, row, e));
        else {
            char text[256];
            select_text(text, sizeof text, keep, p->r->L);
            pipeline_note(p, "stage 2: %s, softmax layers %s", name, text[0] ? text : "none");
            TRY(student_train(p, name, keep, p->r->rows == 2, want, dir, row, e));
        }
        snprintf(row->name, sizeof row->name, "%s", name);
        row->select_seconds = select_seconds;
        TRY(row_write(row, p->r->recall_n, p->r->n_n, want, file, e));
    }
    if (!p->o->keep_checkpoints) TRY(file_remove_tree(dir, e));
    if (keep && !same) p->r->seconds += row->seconds;
    p->r->rows++;
    return OK;
}

/* The student of one selector: its layers chosen and distilled. */
static int chosen(Pipeline *p, const char *name, int K, int draw, Err *e) {
    int keep[MAX_LAYERS] = {0};
    char row[64];
    Choice c = {.name = name, .K = K, .draw = draw};
    int n = snprintf(row, sizeof row, "%.31s", name);
    if (draw) n += snprintf(row + n, sizeof row - (size_t)n, "-%d", draw + 1);
    if (K != p->r->K) snprintf(row + n, sizeof row - (size_t)n, "@%d", K);
    TRY(pipeline_choose(p, &c, keep, e));
    return student(p, row, NULL, keep, c.seconds, e);
}

static int chosen_draws(Pipeline *p, const char *name, int K, Err *e) {
    const int draws = strcmp(name, "random") ? 1 : p->o->random_draws;
    for (int d = 0; d < draws; d++)
        if (d || K != p->r->K || strcmp(name, p->o->selector))
            TRY(chosen(p, name, K, d, e)); // the main student is there already
    return OK;
}

/* Every selector of the run at its K, those of the curve at another one. */
static int selectors(Pipeline *p, int K, Err *e) {
    const char *curve = p->o->curve_students;
    const int all = K == p->r->K || !curve[0];
    if (all || pipeline_names(curve, p->o->selector)) TRY(chosen_draws(p, p->o->selector, K, e));
    for (const char *s = p->o->students; *s;) {
        char name[32];
        const size_t len = strcspn(s, ",");
        snprintf(name, sizeof name, "%.*s", (int)len, s);
        s += len + (s[len] == ',');
        if ((K != p->r->K && !selector_scales(name)) || (!all && !pipeline_names(curve, name))) continue;
        if (strcmp(name, p->o->selector)) TRY(chosen_draws(p, name, K, e));
    }
    return OK;
}

/* The teacher and the stage-1 student as they are, the main student, those to compare it with, and all of them at other
 * K. */
int pipeline_students(Pipeline *p, const int *keep, double select_seconds, Err *e) {
    int k[MAX_LAYERS], n = 0;
    TRY(list_parse(p->o->curve_k, k, MAX_LAYERS, &n, 0, p->r->L, "curve_k", e));
    TRY(student(p, "teacher", &p->teacher, NULL, 0, e));
    TRY(student(p, "stage1", &p->start, NULL, 0, e));
    TRY(student(p, p->o->selector, NULL, keep, select_seconds, e));
    TRY(selectors(p, p->r->K, e));
    for (int i = 0; i < n; i++)
        if (k[i] != p->r->K) TRY(selectors(p, k[i], e));
    return OK;
}
