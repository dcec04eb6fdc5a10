/* verify.c - the device run: every op in both precisions against float64 on the CPU, at the table's cases and at larger
 * shapes; whole-model gradients; training steps beside the CPU. One table; exit 1 if anything failed.
 *   verify [quick] [BACKEND...]   quick: only the table's cases, for compute-sanitizer. Backends:
 *   cuda and cuda-bf16 if none is named. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cuda/cuda_backend.h"
#include "gpu/large_check.h"
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
/* A row in a process of its own, since an illegal address ends everything that its process does with the device:
 * then one row is lost, with its name. This process never touches the device. */
enum { ROW_SECONDS = 120, EMULATED_SECONDS = 3600 };
typedef struct {
    const char *backend, *name;
    int quick, index;
} Job;
static void in_child(void (*run)(const Job *), const Job *job) {
    int status = 0;
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        alarm(strstr(job->backend, "emu") ? EMULATED_SECONDS : ROW_SECONDS);
        run(job);
        fflush(stdout);
        _exit(failures != 0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) status = -1;
    failures += status != 0;
    if (status && !(WIFEXITED(status) && WEXITSTATUS(status) == 1))
        printf("%-16s %-14s %s %d   <<< FAILED\n", job->name, job->backend,
               status == -1          ? "no process"
               : WIFSIGNALED(status) ? "ended by signal"
                                     : "ended with code",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    fflush(stdout);
}
static void op_row(const Job *j) {
    Tally t = {.margin = 1e300};
    Err e = {0};
    OpcheckOptions o = {.op = j->name, .backend = j->backend, .seed = 1};
    int rc = opcheck_run(&o, tally, &t, &e);
    for (size_t k = 0; k < sizeof LARGE / sizeof *LARGE && !rc && !j->quick; k++)
        if (!strcmp(LARGE[k].op, o.op)) o.shape = LARGE[k].shape, rc = opcheck_run(&o, tally, &t, &e);
    row(o.op, j->backend, &t, rc, &e);
}
static void number(const char *what, const char *backend, double got, double tol, const char *where, int rc,
                   const Err *e) {
    const int bad = rc || !(got <= tol);
    failures += bad;
    printf("%-24s %-14s %.3g of %.3g  %s%s\n", what, backend, got, tol, rc ? e->msg : where,
           bad ? "   <<< FAILED" : "");
    fflush(stdout);
}
/* BF16 rounds differently in every version of a kernel, and a model that is not trained amplifies it;
 * how much is measured in the same program, as the error of the plain BF16 kernels. The fast ones may have FLOOR_TIMES
 * that. */
enum { STEPS = 20, MODEL_B = 2, MODEL_T = 150 };
static const double FLOOR_TIMES = 3;
static int model_errors(const Job *j, const Config *c, double *gradient, double *curve, char *where, size_t cap,
                        Err *e) {
    double a[STEPS], r[STEPS];
    int learned = 1;
    TRY(model_check_gradient(j->backend, c, MODEL_B, MODEL_T, 64, gradient, where, cap, e));
    TRY(model_train(j->backend, c, MODEL_B, MODEL_T, 64, STEPS, a, e));
    TRY(model_train("cpu", c, MODEL_B, MODEL_T, 64, STEPS, r, e));
    *curve = curve_difference(a, r, STEPS, &learned);
    if (!learned) *curve = INFINITY;
    return OK;
}
static void model_row(const Job *j) {
    static const char *const layers[][4] = {{"softmax", "gdn_v4", "gdn_v4", "softmax"},
                                            {"gla_v1", "softmax", "gla_v1", "gla_v1"}};
    static const char *const names[][2] = {{"model gradient, gdn", "20 steps, gdn"},
                                           {"model gradient, gla", "20 steps, gla"}};
    const Config c = model_small(layers[j->index], 4, 128, 2, 1, 64, 256, 512);
    const int bf16 = strstr(j->backend, "bf16") != NULL;
    double gradient = 0, curve = 0, floor_gradient = 0, floor_curve = 0;
    char where[160] = "", floor_where[160] = "";
    Err e = {0};
    int rc = OK;
    if (bf16) {
        setenv("HYB_CUDA_VERSION", "1", 1);
        rc = model_errors(j, &c, &floor_gradient, &floor_curve, floor_where, sizeof floor_where, &e);
        unsetenv("HYB_CUDA_VERSION");
    }
    if (!rc) rc = model_errors(j, &c, &gradient, &curve, where, sizeof where, &e);
    number(names[j->index][0], j->backend, gradient, bf16 ? FLOOR_TIMES * floor_gradient : 1e-4, where, rc, &e);
    number(names[j->index][1], j->backend, curve, bf16 ? fmax(0.03, FLOOR_TIMES * floor_curve) : 1e-3, "", rc, &e);
}
/* One shape a mixer with many blocks, several passes through the workspace and offsets as in training: the fast kernels
 * beside the plain ones on the same device, and beside themselves run a second time, which must be the same bytes. */
static void large_row(const Job *j) {
    Err e = {0};
    double far = 0;
    int same = 0;
    const int rc = large_check(j->backend, j->name, strstr(j->backend, "emu") != NULL, &far, &same, &e);
    char what[64];
    snprintf(what, sizeof what, "large %s", j->name);
    number(what, j->backend, same || rc ? far : INFINITY, 0.03, same ? "the same bytes twice" : "bytes that move", rc,
           &e);
}

/* verify [quick] [ops|models|large] [only OP] [BACKEND...] */
int main(int argc, char **argv) {
    static char *both[] = {"cuda", "cuda-bf16"};
    static const char *const large[] = {"attention", "delta_rule", "gla", "kda"};
    const char *only = NULL, *part = NULL;
    int quick = 0, at = 1;
    for (; at < argc; at++)
        if (!strcmp(argv[at], "quick")) quick = 1;
        else if (!strcmp(argv[at], "only") && at + 1 < argc) only = argv[++at];
        else if (!strcmp(argv[at], "ops") || !strcmp(argv[at], "models") || !strcmp(argv[at], "large")) part = argv[at];
        else break;
    char **name = at < argc ? argv + at : both;
    setenv("CUDA_LAUNCH_BLOCKING", "1", 0); // an error comes with the name of the kernel that made it
#ifdef HAVE_CUDA
    backend_register("cuda", cuda_backend_open);
#endif
#ifdef HAVE_CUDA_EMU
    backend_register("cuda-emu", cuda_emu_backend_open);
#endif
    for (int b = 0; b < (at < argc ? argc - at : 2); b++) {
        for (int i = 0; i < opcheck_count() && (!part || !strcmp(part, "ops")); i++)
            if (!only || !strcmp(only, opcheck_name(i)))
                in_child(op_row, &(Job){.backend = name[b], .name = opcheck_name(i), .quick = quick});
        for (int i = 0; i < 4 && !quick && strstr(name[b], "bf16") && (!part || !strcmp(part, "large")); i++)
            if (!only || !strcmp(only, large[i])) in_child(large_row, &(Job){.backend = name[b], .name = large[i]});
        for (int i = 0; i < 2 && !quick && !only && (!part || !strcmp(part, "models")); i++)
            in_child(model_row, &(Job){.backend = name[b], .name = i ? "model, gla" : "model, gdn", .index = i});
    }
    printf("verify: %s\n", failures ? "FAILED" : "everything agrees");
    return failures != 0;
}
