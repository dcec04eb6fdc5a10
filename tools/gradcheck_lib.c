/* gradcheck_lib.c - --lib: a function from a shared library in place of an op of ref32 (or ref64), under every check
 * that a backend gets. The function has the op's signature in ref/ops/ops_decl.h. */
#include "base/mem.h"
#include "tools/opcheck_parts.h"
#include <dlfcn.h>
#include <string.h>

/* A backend's state would have to be a global otherwise: the options of the one check that runs. */
static struct {
    Ops64 ops64;
    Ops32 ops32;
    int wide;
} lib;

static int lib_open(Backend **out, const char *name, int threads, Err *e) {
    TRY(backend_open(out, lib.wide ? "ref64" : "ref32", threads, e));
    (*out)->name = name;
    (*out)->op = lib.wide ? (const Ops *)&lib.ops64 : (const Ops *)&lib.ops32;
    return OK;
}

/* The op's forward function, or its backward one if the symbol's name says so. */
static int place(const char *op, const char *symbol, void *f, Err *e) {
    const OpRow *row = NULL;
    for (int i = 0; i < op_row_count; i++)
        if (!strcmp(op_rows[i]->name, op)) row = op_rows[i];
    if (!row) return opcheck_unknown(op, e);
    const int backward = strstr(symbol, "backward") || strstr(symbol, "bwd") || strstr(symbol, "_b_");
    if (backward && !row->backward_at) return err_set(e, ERR_USAGE, "%s has no backward", op);
    char *table = lib.wide ? (char *)&lib.ops64 : (char *)&lib.ops32;
    memcpy(table + (backward ? row->backward_at : row->forward_at), &f, sizeof f);
    return OK;
}

int gradcheck_lib(const GradcheckOptions *g, void **handle, Err *e) {
    char word[128];
    if (!g->op || !g->symbol) return err_set(e, ERR_USAGE, "gradcheck: --lib needs --op and --symbol");
    lib.ops64 = ops_ref64, lib.ops32 = ops_ref32;
    lib.wide = g->dtype && (!strcmp(g->dtype, "float64") || !strcmp(g->dtype, "F64"));
    *handle = dlopen(g->lib, RTLD_NOW | RTLD_LOCAL);
    if (!*handle) return err_set(e, ERR_INPUT, "%s", dlerror());
    for (const char *s = g->symbol; *s; s += *s == ',') {
        const size_t n = strcspn(s, ",");
        snprintf(word, sizeof word, "%.*s", (int)n, s);
        void *f = dlsym(*handle, word);
        if (!f) return err_set(e, ERR_INPUT, "%s: has no symbol \"%s\"", g->lib, word);
        TRY(place(g->op, word, f, e));
        s += n;
    }
    backend_register("lib", lib_open);
    return OK;
}
void gradcheck_lib_close(void *handle) {
    if (handle) dlclose(handle);
}
