/* transfer.c - a student from a teacher. See transfer.h. */
#include "method/transfer.h"
#include <stdio.h>
#include <string.h>

int transfer_config(Config *student, const Config *teacher, const int *mixer, Err *e) {
    *student = *teacher;
    for (int l = 0; l < teacher->L; l++) {
        student->mixer[l] = mixer[l];
        if (mixer_at(mixer[l]) == &mixer_swa_v1 && !student->swa_window) student->swa_window = SWA_WINDOW;
    }
    // so that fla's own layout, which knows one eps, is exact (ref/io/FORMATS.md 1.4)
    student->o_norm_eps = teacher->norm_eps;
    if (!student->conv_width) student->conv_width = 4;
    return config_check(student, "student", e);
}

typedef struct {
    Model *to;
    const Model *from, *teacher;
    KvRepeat repeat;
    Err *e;
} Copy;

static size_t info_size(const Copy *copy, const ParamInfo *i) {
    return i->wide ? copy->to->be->wide_size : copy->to->be->real_size;
}

/* Parameter `name` of m, or an error that says who lacks it. */
static int source_find(const Copy *copy, const Model *m, const char *name, ParamInfo *info, Param *slot) {
    if (model_find(m, name, info, slot)) return OK;
    return err_set(copy->e, ERR_INPUT, "%s: the student needs it and its source model has no such parameter", name);
}

static int copy_same(const Copy *copy, const Model *m, const char *name, const ParamInfo *info, Param *slot) {
    ParamInfo i;
    Param p;
    TRY(source_find(copy, m, name, &i, &p));
    if (i.n != info->n || i.wide != info->wide)
        return err_set(copy->e, ERR_INPUT, "%s: the source model has %zu numbers, the student wants %zu", name, i.n,
                       info->n);
    copy->to->be->move(copy->to->be, slot->w, p.w, info->n * info_size(copy, info));
    return OK;
}

/* (Hk*D, C) -> (H*D, C), or without C for a bias. By heads: student head j = teacher head j/g.
 * By rows, as the official code does it: row r = teacher row r/g, which scrambles heads whenever g > 1 (ref/METHOD.md
 * 3.1).
 * */
static int copy_expand(const Copy *copy, const char *name, const ParamInfo *info, Param *slot) {
    const Config *c = &copy->to->c;
    Backend *be = copy->to->be;
    ParamInfo i;
    Param p;
    TRY(source_find(copy, copy->teacher, name, &i, &p));
    const size_t g = c->H / c->Hk, rows = info->shape[0], cols = info->n / rows,
                 block = copy->repeat == KV_REPEAT_HEAD ? c->D : 1;
    if (i.n * g != info->n || i.wide || info->wide)
        return err_set(copy->e, ERR_INPUT,
                       "%s: the source model has %zu numbers, expanding them by %zu does not give %zu", name, i.n, g,
                       info->n);
    for (size_t b = 0; b < rows / block; b++)
        be->move(be, real_at(be, slot->w, b * block * cols), creal_at(be, p.w, b / g * block * cols),
                 block * cols * be->real_size);
    return OK;
}

static int transfer_visit(void *ctx, const ParamInfo *info, Param *slot) {
    const Copy *copy = ctx;
    char name[192];
    if (info->copy == COPY_NONE) return OK; // initialised before
    if (info->layer < 0) snprintf(name, sizeof name, "%s", info->name);
    else snprintf(name, sizeof name, "model.layers.%d.%s", info->layer, info->from);
    return info->copy == COPY_SAME ? copy_same(copy, copy->teacher, name, info, slot)
                                   : copy_expand(copy, name, info, slot);
}

int transfer_weights(Model *student, const Model *teacher, KvRepeat repeat, uint64_t seed, Err *e) {
    Copy copy = {student, NULL, teacher, repeat, e};
    TRY(model_init(student, seed, 0, 0, 1, e));
    return params_walk(&student->c, &student->p, transfer_visit, &copy);
}

static int hybrid_visit(void *ctx, const ParamInfo *info, Param *slot) {
    const Copy *copy = ctx;
    const int l = info->layer;
    if (l < 0 || !info->mixer || copy->to->c.mixer[l] == copy->from->c.mixer[l])
        return copy_same(copy, copy->from, info->name, info, slot);
    if (copy->to->c.mixer[l])
        return err_set(copy->e, ERR_USAGE, "layer %d: a %s cannot be made out of a %s", l,
                       mixer_at(copy->to->c.mixer[l])->name, mixer_at(copy->from->c.mixer[l])->name);
    return copy_same(copy, copy->teacher, info->name, info, slot);
}

int transfer_hybrid(Model *to, const Model *from, const Model *teacher, Err *e) {
    Copy copy = {to, from, teacher, KV_REPEAT_HEAD, e};
    return params_walk(&to->c, &to->p, hybrid_visit, &copy);
}
