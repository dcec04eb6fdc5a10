/* verify.c - the device run: every op in both precisions against float64 on the CPU, at the table's cases and at larger
 * shapes; whole-model gradients; training steps beside the CPU. One table; exit 1 if anything failed.
 *   verify [quick] [BACKEND...]   quick: only the table's cases, for compute-sanitizer. Backends:
 *   cuda and cuda-bf16 if none is named. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cuda/cuda_backend.h"
#include "gpu/model_check.h"
#include "tools/opcheck.h"

typedef struct {
    int lines, failed;
    double margin;
    char worst[160];
} Tally;
static void tally(void *ctx, const OpResult *r) {
    Tally *t = ctx;
    t->lines++;
    const int bad = opresult_failed(r);
    if (bad && t->failed++ < 3)
        printf("  FAILED %s %s %s: %s: %s, error %.3g of %.3g at %s\n", r->op, r->check, r->shape, r->tensor,
               r->problem ? r->problem : compare_word(&r->c), r->c.rel, r->tol, r->index);
    if (r->c.margin > 0 && r->c.margin < t->margin)
        t->margin = r->c.margin, snprintf(t->worst, sizeof t->worst, "%s of %s", r->tensor, r->shape);
}

/* Larger than the table's: several tiles, both head sizes of the fast versions, odd ends. Small enough for float64 on a
 * CPU. */
static const struct {
    const char *op, *shape;
} LARGE[] = {
    {"attention", "B=1,T=300,H=4,Hk=2,D=64"},
    {"attention", "B=2,T=257,H=2,Hk=1,D=128"},
    {"attention", "B=1,T=200,H=2,Hk=2,D=128,window=70"},
    {"attention", "B=1,T=3,H=4,Hk=1,D=128,past=500"},
    {"attention", "B=1,T=130,H=2,Hk=2,D=96"},
    {"attention", "B=2,T=65,H=2,Hk=1,D=64"},
    {"delta_rule", "B=1,T=300,H=4,Hk=2,K=64,V=64,chunk=64"},
    {"delta_rule", "B=2,T=129,H=2,Hk=2,K=128,V=128,chunk=64"},
    {"delta_rule", "B=1,T=64,H=2,Hk=1,K=64,V=128,chunk=64"},
    {"delta_rule", "B=1,T=1,H=2,Hk=2,K=128,V=64,chunk=64"},
    {"delta_rule", "B=1,T=100,H=2,Hk=1,K=48,V=96,chunk=64"},
    {"delta_rule", "B=1,T=65,H=2,Hk=2,K=128,V=128,chunk=16"},
    {"gla", "B=1,T=200,H=4,Hk=2,K=64,V=64,chunk=64"},
    {"gla", "B=1,T=100,H=2,Hk=2,K=128,V=128,chunk=64"},
    {"gla", "B=2,T=65,H=2,Hk=1,K=32,V=96,chunk=32"},
    {"gla", "B=1,T=300,H=2,Hk=1,K=64,V=128,chunk=64,hard=1"},
    {"gla", "B=1,T=129,H=4,Hk=2,K=128,V=64,chunk=64"},
    {"gla", "B=1,T=20,H=2,Hk=1,K=200,V=70,chunk=8"},
    {"gla", "B=1,T=300,H=2,Hk=1,K=128,V=128,chunk=64,-start"},
    {"gla", "B=1,T=200,H=2,Hk=1,K=64,V=64,chunk=64,hard=2,-start"},
    {"delta_rule", "B=1,T=300,H=2,Hk=1,K=128,V=128,chunk=64,-start"},
    {"delta_rule", "B=1,T=200,H=2,Hk=1,K=64,V=64,chunk=64,hard=2,-start"},
    {"kda", "B=1,T=300,H=4,Hk=2,K=64,V=64,chunk=64"},
    {"kda", "B=2,T=129,H=2,Hk=2,K=128,V=128,chunk=64"},
    {"kda", "B=1,T=64,H=2,Hk=1,K=64,V=128,chunk=64"},
    {"kda", "B=1,T=200,H=2,Hk=1,K=128,V=128,chunk=64,hard=1"},
    {"kda", "B=1,T=200,H=2,Hk=1,K=64,V=64,chunk=64,hard=2,-start"},
    {"kda", "B=1,T=100,H=2,Hk=1,K=48,V=96,chunk=16"},
    {"kda", "B=3,T=1,H=4,Hk=2,K=128,V=128,chunk=64"},
    {"attention", "B=1,T=600,H=2,Hk=1,D=128,-start"},
    {"attention", "B=1,T=500,H=2,Hk=1,D=64,window=200,-start"},
    {"gla", "B=3,T=1,H=4,Hk=2,K=128,V=128,chunk=64"},
    {"delta_rule", "B=3,T=1,H=4,Hk=2,K=100,V=200,chunk=1"},
    {"attention", "B=2,T=1,H=10,Hk=1,D=128,past=3000"},
    {"attention", "B=1,T=1,H=4,Hk=4,D=80,past=700,window=300"},
    {"linear", "N=513,I=256,O=300"},
    {"linear", "N=100,I=1000,O=64"},
    {"linear", "N=1,I=512,O=512"},
    {"embed", "N=2000,C=64,VOC=50"},
    {"rmsnorm", "N=1000,C=513"},
    {"add_rmsnorm", "N=1000,C=513"},
    {"gated_rmsnorm", "N=1000,C=128"},
    {"l2norm", "N=1000,C=128"},
    {"head_xent", "N=70,C=64,VOC=1000"},
    {"head_kl", "N=70,C=64,VOC=1000"},
};

static int failures;
static void row(const char *what, const char *backend, const Tally *t, int rc, const Err *e) {
    const int bad = rc || t->failed || !t->lines;
    failures += bad;
    printf("%-16s %-14s %5d checks  %3d failed  least margin %-8.3g %s%s\n", what, backend, t->lines, t->failed,
           t->margin, rc ? e->msg : t->worst, bad ? "   <<< FAILED" : "");
    fflush(stdout);
}
static void ops(const char *backend, int quick) {
    for (int i = 0; i < opcheck_count(); i++) {
        Tally t = {.margin = 1e300};
        Err e = {0};
        OpcheckOptions o = {.op = opcheck_name(i), .backend = backend, .seed = 1};
        int rc = opcheck_run(&o, tally, &t, &e);
        for (size_t k = 0; k < sizeof LARGE / sizeof *LARGE && !rc && !quick; k++)
            if (!strcmp(LARGE[k].op, o.op)) o.shape = LARGE[k].shape, rc = opcheck_run(&o, tally, &t, &e);
        row(o.op, backend, &t, rc, &e);
    }
}
static void number(const char *what, const char *backend, double got, double tol, const char *where, int rc,
                   const Err *e) {
    const int bad = rc || !(got <= tol);
    failures += bad;
    printf("%-24s %-14s %.3g of %.3g  %s%s\n", what, backend, got, tol, rc ? e->msg : where,
           bad ? "   <<< FAILED" : "");
    fflush(stdout);
}
static void models(const char *backend, int bf16) {
    enum { STEPS = 20, B = 2, T = 150 };
    static const char *const layers[][4] = {{"softmax", "gdn_v4", "gdn_v4", "softmax"},
                                            {"gla_v1", "softmax", "gla_v1", "gla_v1"}};
    for (int i = 0; i < 2; i++) {
        const Config c = model_small(layers[i], 4, 128, 2, 1, 64, 256, 512);
        Err e = {0};
        double far = 0, a[STEPS], r[STEPS];
        char where[160] = "";
        int learned = 1, rc = model_check_gradient(backend, &c, B, T, 64, &far, where, sizeof where, &e);
        number(i ? "model gradient, gla" : "model gradient, gdn", backend, far, bf16 ? 0.1 : 1e-4, where, rc, &e);
        e = (Err){0};
        rc = model_train(backend, &c, B, T, 64, STEPS, a, &e);
        if (!rc) rc = model_train("cpu", &c, B, T, 64, STEPS, r, &e);
        if (!rc) far = curve_difference(a, r, STEPS, &learned);
        snprintf(where, sizeof where, "loss %.4f to %.4f in %d steps%s", rc ? 0 : a[0], rc ? 0 : a[STEPS - 1], STEPS,
                 learned ? "" : ", which does not go down");
        number(i ? "20 steps, gla" : "20 steps, gdn", backend, learned ? far : INFINITY, bf16 ? 0.03 : 1e-3, where, rc,
               &e);
    }
}

int main(int argc, char **argv) {
    static char *both[] = {"cuda", "cuda-bf16"};
    const int quick = argc > 1 && !strcmp(argv[1], "quick"), named = argc - 1 - quick;
    char **name = named ? argv + 1 + quick : both;
#ifdef HAVE_CUDA
    backend_register("cuda", cuda_backend_open);
#endif
#ifdef HAVE_CUDA_EMU
    backend_register("cuda-emu", cuda_emu_backend_open);
#endif
    for (int i = 0; i < (named ? named : 2); i++) {
        ops(name[i], quick);
        if (!quick) models(name[i], strstr(name[i], "bf16") != NULL);
    }
    printf("verify: %s\n", failures ? "FAILED" : "everything agrees");
    return failures != 0;
}
