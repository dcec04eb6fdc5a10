/* test_gradients.c - the file of gradients (tools/gradients.h): differences of the loss itself, and the chain rule
 * between its tensors. */
#include <math.h>
#include <stdlib.h>
#include "io/safetensors.h"
#include "suite.h"
#include "tiny.h"
#include "tools/gradients.h"

enum { T = 9 };
static const int ids[T] = {3, 9, 3, 40, 41, 9, 63, 0, 3};

static double loss_of(const Safetensors *s) {
    for (size_t i = 0; i < s->n_meta; i++)
        if (!strcmp(s->meta_key[i], "loss")) return strtod(s->meta_value[i], NULL);
    ck_abort_msg("no loss");
}
static double element(const Safetensors *s, const char *name, size_t at) {
    float x;
    const Tensor *t = safetensors_find(s, name);
    ck_assert_msg(t && at < t->count, "%s", name);
    memcpy(&x, t->data + 4 * at, 4);
    return x;
}
static Safetensors written(Model *m, const char *name) {
    Err e = {0};
    Safetensors s;
    model_zero_grad(m);
    must(gradients_write(place(name), m, ids, T, &e), &e);
    must(safetensors_open(&s, place(name), &e), &e);
    return s;
}

typedef struct {
    Model *m;
    const Safetensors *truth;
    int checked;
} Walked;
/* The parameter's largest gradient against (loss(w + h) - loss(w - h)) / 2h. */
static int visit(void *ctx, const ParamInfo *info, Param *slot) {
    Walked *k = ctx;
    Err e = {0};
    double *w = calloc(info->n, sizeof *w), loss[2];
    size_t at = 0;
    for (size_t i = 1; i < info->n; i++)
        if (fabs(element(k->truth, info->name, i)) > fabs(element(k->truth, info->name, at))) at = i;
    const double got = element(k->truth, info->name, at), h = 1e-5;
    must(param_get(k->m->be, info, slot, DT_F64, w, &e), &e);
    for (int side = 0; side < 2; side++) {
        w[at] += side ? -2 * h : h;
        must(param_put(k->m->be, info, slot, DT_F64, w, &e), &e);
        Safetensors s = written(k->m, "moved");
        loss[side] = loss_of(&s);
        safetensors_close(&s);
    }
    w[at] += h;
    must(param_put(k->m->be, info, slot, DT_F64, w, &e), &e);
    const double want = (loss[0] - loss[1]) / (2 * h);
    ck_assert_msg(fabs(got - want) < 1e-6 + 1e-5 * fabs(want), "%s [%zu]: %g, differences %g", info->name, at, got,
                  want);
    k->checked++;
    free(w);
    return OK;
}
START_TEST(are_differences_of_the_loss) {
    Config c = tiny_config(3);
    Tiny t;
    Model s;
    const int keep[3] = {1, 0, 0};
    c.tied = 0;
    tiny_open_as(&t, "ref64", 1, &c, place("text"));
    tiny_student(&s, &t, keep, GRAD_ALL);
    Safetensors truth = written(&s, "truth");
    ck_assert_msg(loss_of(&truth) > 1 && loss_of(&truth) < 20, "%g", loss_of(&truth));
    Walked k = {&s, &truth, 0};
    params_walk(&s.c, &s.p, visit, &k);
    ck_assert_int_ge(k.checked, 3 * 9);
    ck_assert_uint_eq(truth.n, (size_t)k.checked + 3); // and the inputs of three layers
    // the embedding's gradient is layer 0's input's, by token
    for (size_t i = 0; i < 16; i++) {
        double sum = 0;
        for (size_t n = 0; n < T; n++) sum += ids[n] == 3 ? element(&truth, "model.layers.0.input", n * 16 + i) : 0;
        ck_assert_double_eq_tol(element(&truth, "model.embeddings.weight", 3 * 16 + i), sum, 1e-6);
    }
    safetensors_close(&truth);
    Err e = {0};
    ck_assert_int_eq(gradients_write(place("short"), &s, ids, 1, &e), ERR_USAGE);
    model_close(&s);
    tiny_close(&t);
    ck_assert_uint_eq(mem_now(), 0);
}
END_TEST

SUITE("gradients") {
    GROUP("file", .setup = tmpdir_begin, .teardown = tmpdir_end, .timeout = 120);
    CASE(are_differences_of_the_loss);
}
