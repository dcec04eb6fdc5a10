/* layouts.c - families uniform, random, explicit: layers chosen without a score (ref/METHOD.md 8). */
#include "selectors/parts.h"

static int choose_uniform(const SelectInput *in, int *keep, Err *e) {
    (void)e;
    return select_uniform(in->L, in->K, keep);
}

static int choose_uniform_last(const SelectInput *in, int *keep, Err *e) {
    (void)e;
    return select_uniform_last(in->L, in->K, keep);
}

static int choose_stride(const SelectInput *in, int *keep, Err *e) {
    if (in->own.uniform_stride < 1 || in->own.uniform_first < 0)
        return err_set(e, ERR_USAGE, "uniform_stride: got first %d and stride %d, expected >= 0 and >= 1",
                       in->own.uniform_first, in->own.uniform_stride);
    const long last = in->own.uniform_first + (long)(in->K - 1) * in->own.uniform_stride;
    if (in->K > 0 && last >= in->L)
        return err_set(e, ERR_USAGE, "uniform_stride: layer %ld is needed, the model has %d", last, in->L);
    for (int i = 0; i < in->K; i++) keep[in->own.uniform_first + i * in->own.uniform_stride] = 1;
    return OK;
}

static int choose_random(const SelectInput *in, int *keep, Err *e) {
    int order[MAX_LAYERS];
    Rng r;
    (void)e;
    rng_seed3(&r, in->seed, 0x73656c, (uint64_t)in->draw);
    for (int l = 0; l < in->L; l++) order[l] = l;
    rng_shuffle(&r, order, (size_t)in->L);
    for (int i = 0; i < in->K; i++) keep[order[i]] = 1;
    return OK;
}

static int choose_explicit(const SelectInput *in, int *keep, Err *e) {
    TRY(select_check_list(in->list, in->n_list, in->L, in->K, "keep_full_attention_layers", e));
    for (int i = 0; i < in->n_list; i++) keep[in->list[i]] = 1;
    return OK;
}

static int choose_none(const SelectInput *in, int *keep, Err *e) {
    (void)in, (void)keep, (void)e;
    return OK;
}

static int choose_all(const SelectInput *in, int *keep, Err *e) {
    (void)e;
    for (int l = 0; l < in->L; l++) keep[l] = 1;
    return OK;
}

static const Selector uniform[] = {
    {NULL, "uniform", "evenly spaced from layer 0", NULL, 0, NULL, choose_uniform, NULL, 0},
    {"last", "uniform_last", "evenly spaced, last layer of each group", NULL, 0, NULL, choose_uniform_last, NULL, 0},
    {"stride", "uniform_stride", "a given first layer and stride", NULL, ONE_K, NULL, choose_stride, NULL, 0},
};
const SelectorFamily family_uniform = {.name = "uniform", FAMILY(uniform)};

static const Selector random_draw[] = {{NULL, "random", "drawn from the seed", NULL, 0, NULL, choose_random, NULL, 0}};
const SelectorFamily family_random = {.name = "random", FAMILY(random_draw)};

static const Selector explicit_list[] = {
    {NULL, "explicit", "the given list", NULL, ONE_K, NULL, choose_explicit, NULL, 0},
    {"none", "none", "all layers linear", NULL, ONE_K, NULL, choose_none, NULL, 0},
    {"all", "all", "all layers softmax", NULL, ONE_K, NULL, choose_all, NULL, 0},
};
const SelectorFamily family_explicit = {.name = "explicit", FAMILY(explicit_list)};
