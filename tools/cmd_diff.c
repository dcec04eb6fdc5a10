/* cmd_diff.c - where do two models, or two dumps of activations, begin to differ? Tensor by tensor in walk order. */
#include "base/file.h"
#include "base/mem.h"
#include "io/hf.h"
#include "tools/cli.h"
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double tolerance, relative;
    int all, gradients;
} Options;
static const Option rows[] = {
    {"tolerance", "largest absolute difference that passes", OPT_REAL, offsetof(Options, tolerance), 0, 1e30, NULL,
     AFFECTS_EVALUATION},
    {"relative", "largest difference that passes, as a fraction of the tensor's largest number", OPT_REAL,
     offsetof(Options, relative), 0, 1e30, NULL, AFFECTS_EVALUATION},
    {"all", "print every tensor, not only those beyond tolerance", OPT_BOOL, offsetof(Options, all), 0, 0, NULL,
     AFFECTS_EVALUATION},
    {"gradients", "compare the gradients of two dumps instead of their activations", OPT_BOOL,
     offsetof(Options, gradients), 0, 0, NULL, AFFECTS_EVALUATION},
};
static const OptionTable table = {rows, 4};
static const OptionTable *get_table(void) { return &table; }
static void defaults(void *p) { ((Options *)p)->relative = 1e-5; }
static const CliOptions options = {get_table, sizeof(Options), defaults, NULL};

/* ---- one side: a model directory or a safetensors file (in a directory: that of the dump) ---- */

typedef struct {
    const char *path;
    int model;
    HfModel h;
    Safetensors s;
} Side;

static int side_open(Side *x, const char *path, int gradients, Err *e) {
    char inside[1200];
    memset(x, 0, sizeof *x);
    x->path = path;
    if (file_exists(path) != 2) return safetensors_open(&x->s, path, e);
    TRY(file_join(inside, sizeof inside, path, gradients ? "gradients.safetensors" : "activations.safetensors", e));
    if (file_exists(inside) == 1 || gradients) return safetensors_open(&x->s, inside, e);
    TRY(hf_open(&x->h, path, e));
    x->model = 1;
    return OK;
}

static void side_close(Side *x) {
    hf_close(&x->h);
    safetensors_close(&x->s);
}

static const Tensor *side_find(const Side *x, const char *name) {
    return x->model ? hf_tensor(&x->h, name) : safetensors_find(&x->s, name);
}

/* ---- walk order: of the parameters; of the metadata "order"; else by name, numbers in it by value ---- */

typedef struct {
    char **name;
    size_t n, cap;
    Err *e;
} Names;

static int names_push(Names *k, const char *s, size_t len) {
    if (k->n == k->cap) {
        void *p = k->name;
        const size_t cap = k->cap ? 2 * k->cap : 256;
        TRY(mem_grow(&p, k->cap * sizeof *k->name, cap * sizeof *k->name, "names", k->e));
        k->name = p;
        k->cap = cap;
    }
    TRY(mem_strndup(&k->name[k->n], s, len, k->e));
    k->n++;
    return OK;
}

static void names_free(Names *k) {
    for (size_t i = 0; i < k->n; i++) mem_free(k->name[i]);
    mem_free(k->name);
}

static int push_param(void *ctx, const ParamInfo *info, Param *slot) {
    (void)slot;
    return names_push(ctx, info->name, strlen(info->name));
}

static int natural_order(const void *a, const void *b) {
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    while (*x && *y) {
        if (*x >= '0' && *x <= '9' && *y >= '0' && *y <= '9') {
            char *xe, *ye;
            const unsigned long long u = strtoull(x, &xe, 10), v = strtoull(y, &ye, 10);
            if (u != v) return u < v ? -1 : 1;
            x = xe, y = ye;
        } else if (*x != *y) return (unsigned char)*x < (unsigned char)*y ? -1 : 1;
        else x++, y++;
    }
    return (*x != 0) - (*y != 0);
}

static int names_collect(Names *k, const Side *x) {
    if (x->model) return params_walk(&x->h.config, NULL, push_param, k);
    for (size_t i = 0; i < x->s.n_meta; i++)
        if (!strcmp(x->s.meta_key[i], "order")) {
            for (const char *s = x->s.meta_value[i]; *s;) {
                const size_t len = strcspn(s, " ");
                if (len) TRY(names_push(k, s, len));
                s += len + (s[len] == ' ');
            }
            return OK;
        }
    for (size_t i = 0; i < x->s.n; i++) TRY(names_push(k, x->s.tensor[i].name, strlen(x->s.tensor[i].name)));
    if (k->n) qsort(k->name, k->n, sizeof *k->name, natural_order);
    return OK;
}

/* ---- comparing ---- */

typedef struct {
    double abs, scale; /* largest difference; largest number of either tensor */
    size_t at;
    double a, b; /* the numbers there */
} Gap;

static int is_float(DType t) { return t == DT_F16 || t == DT_BF16 || t == DT_F32 || t == DT_F64; }

/* A NaN or infinity on one side only, or of different sign, is an infinite difference; the same on both is none. */
static double distance(double a, double b) {
    if (isnan(a) && isnan(b)) return 0;
    if (a == b) return 0;
    const double d = fabs(a - b);
    return isnan(d) ? INFINITY : d;
}

static void gap_floats(Gap *g, const Tensor *x, const Tensor *y) {
    const size_t sx = (size_t)dtype_bits(x->dtype) / 8, sy = (size_t)dtype_bits(y->dtype) / 8;
    double a[512], b[512];
    for (size_t at = 0; at < x->count; at += 512) {
        const size_t n = x->count - at < 512 ? x->count - at : 512;
        dtype_convert(DT_F64, a, x->dtype, x->data + at * sx, n);
        dtype_convert(DT_F64, b, y->dtype, y->data + at * sy, n);
        for (size_t i = 0; i < n; i++) {
            const double d = distance(a[i], b[i]);
            if (isfinite(a[i])) g->scale = fmax(g->scale, fabs(a[i]));
            if (isfinite(b[i])) g->scale = fmax(g->scale, fabs(b[i]));
            if (d > g->abs) *g = (Gap){d, g->scale, at + i, a[i], b[i]};
        }
    }
}

static void shape_text(char *out, size_t cap, const Tensor *t) {
    size_t used = (size_t)snprintf(out, cap, "[");
    for (int i = 0; i < t->rank && used < cap; i++)
        used += (size_t)snprintf(out + used, cap - used, "%s%zu", i ? "," : "", t->shape[i]);
    if (used < cap) snprintf(out + used, cap - used, "]");
}

static void index_text(char *out, size_t cap, const Tensor *t, size_t at) {
    size_t used = (size_t)snprintf(out, cap, "["), step = t->count;
    for (int i = 0; i < t->rank && used < cap; i++) {
        step /= t->shape[i];
        used += (size_t)snprintf(out + used, cap - used, "%s%zu", i ? "," : "", at / step);
        at %= step;
    }
    if (used < cap) snprintf(out + used, cap - used, "]");
}

/* 1 when they agree; prints a line when they do not, or always with --all. */
static int tensor_compare(const Options *o, const char *name, const Tensor *x, const Tensor *y) {
    char left[160], right[160];
    if (x->rank != y->rank || memcmp(x->shape, y->shape, (size_t)x->rank * sizeof *x->shape)) {
        shape_text(left, sizeof left, x);
        shape_text(right, sizeof right, y);
        printf("differs  %-44s shape %s and %s\n", name, left, right);
        return 0;
    }
    Gap g = {0};
    int same = x->dtype == y->dtype && !memcmp(x->data, y->data, x->bytes);
    const int floats = is_float(x->dtype) && is_float(y->dtype);
    if (!same && floats) {
        gap_floats(&g, x, y);
        same = g.abs <= o->tolerance || g.abs <= o->relative * g.scale;
    }
    if (same && !o->all) return 1;
    if (!floats)
        printf("%-8s %-44s %s and %s\n", same ? "same" : "differs", name, dtype_name(x->dtype), dtype_name(y->dtype));
    else if (!g.abs) printf("%-8s %-44s identical\n", "same", name);
    else {
        index_text(left, sizeof left, x, g.at);
        printf("%-8s %-44s max abs %.3e, relative %.3e at %s: %.9g and %.9g\n", same ? "same" : "differs", name, g.abs,
               g.scale > 0 ? g.abs / g.scale : 0, left, g.a, g.b);
    }
    return same;
}

static int compare(const Options *o, const Side *a, const Side *b, Names *names, Err *e) {
    size_t bad = 0, missing = 0, common = 0;
    const char *first = NULL;
    for (size_t i = 0; i < names->n; i++) {
        const Tensor *x = side_find(a, names->name[i]), *y = side_find(b, names->name[i]);
        if (!x && !y) continue;
        if (!x || !y) {
            missing++;
            if (o->all) printf("missing  %-44s in %s\n", names->name[i], x ? b->path : a->path);
            continue;
        }
        common++;
        if (tensor_compare(o, names->name[i], x, y)) continue;
        if (!bad++) first = names->name[i];
        if (!o->all) break; // what follows is a consequence
    }
    if (first) return err_set(e, ERR_CHECK, "diff: the first tensor beyond tolerance is %s", first);
    if (!common) return err_set(e, ERR_CHECK, "diff: no tensor of %s is in %s", a->path, b->path);
    printf("%zu tensors agree", common);
    if (missing) printf(", %zu are only in %s", missing, a->path);
    putchar('\n');
    return OK;
}

static int diff(Cli *c, Err *e) {
    const Options *o = c->options[0];
    Side a = {0}, b = {0};
    Names names = {.e = e};
    if (c->n_args != 2) return err_set(e, ERR_USAGE, "diff: expected two paths, got %d", c->n_args);
    int rc = side_open(&a, c->arg[0], o->gradients, e);
    if (!rc) rc = side_open(&b, c->arg[1], o->gradients, e);
    if (!rc) rc = names_collect(&names, &a);
    if (!rc) rc = compare(o, &a, &b, &names, e);
    names_free(&names);
    side_close(&a);
    side_close(&b);
    return rc;
}

const Command cmd_diff = {
    .name = "diff",
    .summary = "The first tensor in which two models, or two dumps of activations, differ.",
    .usage = "A B [options]",
    .details =
        "A and B: model directories (of any layout: tensors go by their fla names), safetensors files, or "
        "directories written by\n"
        "generate --dump, of which --gradients takes what --gradients of generate wrote: of every parameter and of "
        "every layer's\n"
        "input, last layer first. Goes through the tensors of A in walk order and stops at the first that differs by "
        "more than --tolerance\n"
        "and by more than --relative times its largest number; exit code 1 then.",
    .max_args = 2,
    .options = {&options},
    .run = diff,
};
