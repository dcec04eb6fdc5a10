/* params.c - the walk over all parameters, and the visitors that only count. */
#include "model/params.h"
#include "model/mixer.h"
#include <stdio.h>

int walk_param(const Walk *w, Param *slot, const char *suffix, int rank, size_t n0, size_t n1, ParamInfo info) {
    char name[160];
    if (w->layer >= 0) snprintf(name, sizeof name, "model.layers.%d.%s", w->layer, suffix);
    else snprintf(name, sizeof name, "%s", suffix);
    info.name = name;
    info.layer = w->layer;
    info.rank = rank;
    info.shape[0] = n0;
    info.shape[1] = rank == 3 ? 1 : n1;
    info.shape[2] = n1;
    for (int i = rank; i < 3; i++) info.shape[i] = 1;
    info.n = rank == 1 ? n0 : n0 * n1;
    if (!info.fan) info.fan = rank == 1 ? n0 : n1;
    if (info.copy != COPY_NONE && !info.from) info.from = suffix;
    return w->visit(w->ctx, &info, slot);
}

static int layer_walk(const Config *c, LayerParams *p, const Walk *w) {
    const size_t C = c->C, F = c->F;
    const ParamInfo norm = {.init = INIT_ONES, .copy = COPY_SAME},
                    matrix = {.init = INIT_NORMAL, .decays = 1, .copy = COPY_SAME};
    ParamInfo down = matrix;
    down.residual = 1;
    const Mixer *m = mixer_at(c->mixer[w->layer]);
    TRY(walk_param(w, &p->attn_norm, "attn_norm.weight", 1, C, 0, norm));
    TRY(m->walk(m, c, &p->mix, w));
    TRY(walk_param(w, &p->mlp_norm, "mlp_norm.weight", 1, C, 0, norm));
    TRY(walk_param(w, &p->gate, "mlp.gate_proj.weight", 2, F, C, matrix));
    TRY(walk_param(w, &p->up, "mlp.up_proj.weight", 2, F, C, matrix));
    return walk_param(w, &p->down, "mlp.down_proj.weight", 2, C, F, down);
}

int params_walk(const Config *c, Params *p, ParamVisit visit, void *ctx) {
    const ParamInfo norm = {.init = INIT_ONES, .copy = COPY_SAME},
                    matrix = {.init = INIT_NORMAL, .decays = 1, .copy = COPY_SAME};
    Params none = {0}; // walking without a model: slots that nobody keeps
    LayerParams no_layer;
    Walk w = {visit, ctx, -1};
    Params *q = p ? p : &none;
    TRY(walk_param(&w, &q->embed, "model.embeddings.weight", 2, c->VOC, c->C, matrix));
    for (w.layer = 0; w.layer < c->L; w.layer++) {
        if (!p) no_layer = (LayerParams){0};
        TRY(layer_walk(c, p ? &p->layer[w.layer] : &no_layer, &w));
    }
    w.layer = -1;
    TRY(walk_param(&w, &q->norm, "model.norm.weight", 1, c->C, 0, norm));
    if (c->tied) return OK;
    return walk_param(&w, &q->head, "lm_head.weight", 2, c->VOC, c->C, matrix);
}

static int count_visit(void *ctx, const ParamInfo *info, Param *slot) {
    (void)slot;
    *(size_t *)ctx += info->n;
    return OK;
}
size_t params_count(const Config *c) {
    size_t n = 0;
    params_walk(c, NULL, count_visit, &n);
    return n;
}
