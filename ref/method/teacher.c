/* teacher.c - see teacher.h. */
#include "method/teacher.h"
#include "base/mem.h"
#include <string.h>

int teacher_open(Teacher *t, Model *m, int B, int T, int64_t slots, size_t limit, Err *e) {
    memset(t, 0, sizeof *t);
    void *table = NULL;
    TRY(mem_alloc(&table, (size_t)slots * sizeof(Real *), "table of teacher states", e));
    t->slot = table;
    t->n_slots = slots;
    t->limit = limit;
    t->m = m;
    model_prepack(m, 0);
    const int rc = pass_open(&t->pass, m, B, T, 0, e);
    if (rc) teacher_close(t);
    return rc;
}

void teacher_close(Teacher *t) {
    for (int64_t i = 0; i < t->n_slots; i++)
        if (t->slot[i]) t->m->be->release(t->m->be, t->slot[i]);
    mem_free(t->slot);
    pass_close(&t->pass);
    memset(t, 0, sizeof *t);
}

int teacher_hidden(Teacher *t, int64_t key, const int *ids, const int *start, const Real **h, Err *e) {
    const int keep = key >= 0 && key < t->n_slots;
    if (keep && t->slot[key]) {
        t->hits++;
        *h = t->slot[key];
        return OK;
    }
    t->misses++;
    TRY(pass_input(&t->pass, t->m, ids, start, e));
    model_forward(t->m, &t->pass);
    *h = t->pass.h;
    Backend *be = t->m->be;
    const size_t bytes = (size_t)t->pass.N * t->m->c.C * be->real_size;
    if (!keep || t->kept + bytes > t->limit) return OK;
    void *copy;
    Err full = {0}; // no memory for a copy is no error: it will be computed again
    if (be->alloc(be, &copy, bytes, "teacher states", &full)) {
        t->limit = t->kept;
        return OK;
    }
    be->move(be, copy, t->pass.h, bytes);
    t->slot[key] = copy;
    t->kept += bytes;
    return OK;
}

Pass teacher_view(const Teacher *t, const Real *h) {
    Pass view = t->pass;
    view.h = (Real *)(uintptr_t)h; // a pass may be written to; this one is only read
    return view;
}

size_t teacher_bytes(const Teacher *t) {
    if (!t->m) return 0;
    const size_t one = (size_t)t->pass.N * t->m->c.C * t->m->be->real_size, fit = t->limit / one;
    return t->pass.bytes + one * (fit < (size_t)t->n_slots ? fit : (size_t)t->n_slots);
}
