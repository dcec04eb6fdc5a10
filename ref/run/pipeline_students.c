/* pipeline_students.c - the hybrids: each distilled, evaluated, and its row kept; equal sets of layers once. */
#include "run/pipeline_parts.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/hf.h"
#include "selectors/budget.h"
#include "selectors/selectors.h"
#include "run/pretrain.h"
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- students */

/* KL, text loss, recall, sizes of a model. */
static int evaluate(Pipeline *p, Model *m, StudentRow *row, Err *e) {
    const Config *c = &m->c;
    TRY(heldout_run(&p->heldout, m, &row->held, e));
    row->recall_mean = NAN;
    row->n_n = p->recall.n_n;
    memcpy(row->recall_n, p->recall.n, sizeof row->recall_n);
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

/* Of a directory with a model: the main student's is RUN/model, so that it is always the one that the report speaks of;
 * the others', with save_students, are RUN/students/NAME. */
typedef struct {
    int dtype;
} SavedModel;
static const Field MODEL[] = {{"dtype", FIELD_INT, offsetof(SavedModel, dtype), 0, 0, FIELD_ALWAYS, 0, NULL}};
static const Record model_record = {MODEL, 1, sizeof(SavedModel)};

/* student NULL: the main one, or the stage-1 student where no more is wanted. */
static void model_names(const char *student, char *dir, char *memo, size_t cap) {
    snprintf(dir, cap, student ? "students/%s" : "model", student);
    snprintf(memo, cap, student ? "models/%s" : "model", student);
}

static int model_saved(Pipeline *p, const char *student, int *saved, Err *e) {
    char dir[80], memo[80];
    SavedModel model;
    model_names(student, dir, memo, sizeof dir);
    return p->m.memo->look(p->m.memo, memo, -1, &model_record, &model, saved, e);
}

static int model_save(Pipeline *p, const Model *m, const char *student, Err *e) {
    static const DType types[] = {DT_F32, DT_F32, DT_BF16, DT_F16};
    char name[80], memo[80], dir[1200], notes[1024] = "";
    const HfSaveOptions save = {.dtype = p->o->save_dtype ? types[p->o->save_dtype] : p->teacher.c.dtype,
                                .tokenizer_from = p->o->teacher};
    model_names(student, name, memo, sizeof name);
    TRY(pipeline_path(p, dir, sizeof dir, "students", NULL, e));
    if (student) TRY(file_mkdirs(dir, e));
    TRY(pipeline_path(p, dir, sizeof dir, name, NULL, e));
    TRY(hf_save(m, dir, &save, notes, sizeof notes, e));
    if (notes[0]) pipeline_note(p, "%s/: %s", name, notes);
    const SavedModel model = {(int)save.dtype};
    return p->m.memo->put(p->m.memo, memo, -1, &model_record, &model, e);
}

int pipeline_model_save(Pipeline *p, const Model *m, Err *e) { return model_save(p, m, NULL, e); }

void pipeline_peak(Pipeline *p) {
    if (mem_peak() > p->r->peak_bytes) p->r->peak_bytes = mem_peak();
}

/* The key of a student's training: what stages 2 and 3 depend on, and its layers. */
static void student_key(Pipeline *p, unsigned affects, const char *name, const int *keep) {
    pipeline_key(p, AFFECTS_DATA | AFFECTS_STAGE1 | AFFECTS_STUDENTS | affects, name);
    if (keep) pipeline_key_add(p, keep, (size_t)p->r->L * sizeof *keep);
}

/* The key of a student's row: of its training, and of how it is measured; sizes of held-out batches count as they are.
 * */
static void row_key(Pipeline *p, const char *name, const int *keep) {
    const Heldout *h = &p->heldout;
    const int64_t n[] = {h->B, h->T, h->batches};
    student_key(p, AFFECTS_EVALUATION, name, keep);
    pipeline_key_add(p, n, sizeof n);
}

static void model_key(Pipeline *p, const int *keep) { student_key(p, AFFECTS_MODEL, "model", keep); }

/* Stage 2 (and 3) of the stage-1 student with the layers of keep back to softmax, its evaluation, and its model if
 * that is to be saved. */
static int student_train(Pipeline *p, const char *name, const int *keep, int is_main, int save, StudentRow *row,
                         Err *e) {
    char dir[80];
    Model m;
    TrainResult t = {0};
    pipeline_peak(p);
    mem_peak_reset();
    snprintf(dir, sizeof dir, "students/%s", name);
    student_key(p, 0, name, keep);
    TRY(method_hybrid(&p->m, &m, keep, name, dir, &t, &row->counted_bytes, e));
    row->counted_bytes += teacher_bytes(&p->heldout.teacher);
    row->seconds = t.seconds;
    row->tokens = t.tokens;
    row->peak_bytes = mem_peak();
    pipeline_peak(p);
    int rc = evaluate(p, &m, row, e);
    model_key(p, keep);
    if (!rc && save) rc = model_save(p, &m, is_main ? NULL : name, e);
    model_close(&m);
    return rc;
}

/* An earlier row with the same layers: the same start, data and steps give the same student, bit for bit. */
static const StudentRow *row_same(const Pipeline *p, const int *keep) {
    for (int i = 2; i < p->r->rows; i++)
        if (!memcmp(p->r->row[i].keep, keep, (size_t)p->r->L * sizeof *keep)) return &p->r->row[i];
    return NULL;
}

/* Leaves a row to the process that is making it; equal sets of layers are not made a second time meanwhile. */
static int row_pass(Pipeline *p, StudentRow *row, const int *keep) {
    memset(row, 0, sizeof *row);
    if (keep) memcpy(row->keep, keep, (size_t)p->r->L * sizeof *keep);
    p->passed[p->r->rows++] = 1;
    return OK;
}

/* Adds one row: read if it is finished, else made and kept. keep NULL: no training, `as_is` is measured. */
static int student(Pipeline *p, const char *name, Model *as_is, const int *keep, double select_seconds, Err *e) {
    char file[80];
    StudentRow *row = &p->r->row[p->r->rows];
    const StudentRow *same = keep ? row_same(p, keep) : NULL;
    const int is_main = p->r->rows == 2;
    Memo *m = p->m.memo;
    int found = 0, saved = 1;
    TRY(pipeline_stopped(p, e));
    snprintf(file, sizeof file, "students/%s", name);
    model_key(p, keep);
    if (is_main || (p->o->save_students && keep && !same)) TRY(model_saved(p, is_main ? NULL : name, &saved, e));
    row_key(p, name, keep);
    if (same && p->passed[same - p->r->row]) found = -1;
    else TRY((p->waits ? m->get : m->try_get)(m, file, -1, &student_record, row, &found, e));
    if (found < 0) return row_pass(p, row, keep);
    if (!found || !saved) {
        memset(row, 0, sizeof *row);
        if (same) *row = *same;
        else if (!keep) TRY(evaluate(p, as_is, row, e));
        else {
            char text[256];
            select_text(text, sizeof text, keep, p->r->L);
            pipeline_note(p, "stage 2: %s, softmax layers %s", name, text[0] ? text : "none");
            TRY(student_train(p, name, keep, is_main, !saved, row, e));
        }
        snprintf(row->name, sizeof row->name, "%s", name);
        row->select_seconds = select_seconds;
        row_key(p, name, keep);
        TRY(m->put(m, file, -1, &student_record, row, e));
    }
    if (!p->o->keep_checkpoints) TRY(m->drop(m, file, -1, e));
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
static int rows_all(Pipeline *p, const int *keep, double select_seconds, Err *e) {
    int k[MAX_LAYERS], n = 0;
    TRY(list_parse(p->o->curve_k, k, MAX_LAYERS, &n, 0, p->r->L, "curve_k", e));
    TRY(student(p, "teacher", &p->teacher, NULL, 0, e));
    TRY(student(p, "stage1", &p->m.stage1_student, NULL, 0, e));
    TRY(student(p, p->o->selector, NULL, keep, select_seconds, e));
    TRY(selectors(p, p->r->K, e));
    for (int i = 0; i < n; i++)
        if (k[i] != p->r->K) TRY(selectors(p, k[i], e));
    return OK;
}

int pipeline_students(Pipeline *p, const int *keep, double select_seconds, Err *e) {
    const double seconds = p->r->seconds;
    int passed = 0;
    TRY(rows_all(p, keep, select_seconds, e));
    for (int i = 0; i < p->r->rows; i++) passed += p->passed[i];
    if (!passed) return OK;
    memset(p->passed, 0, sizeof p->passed); // once more, in order, and with what others have made meanwhile
    p->r->rows = 0;
    p->r->seconds = seconds;
    p->waits = 1;
    return rows_all(p, keep, select_seconds, e);
}
