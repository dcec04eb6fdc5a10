/* partial.c - see partial.h. */
#include "selectors/partial.h"
#include "base/log.h"
#include "base/mem.h"
#include <stddef.h>
#include <string.h>

typedef struct {
    int done, L;
    double seconds, base;
    LayerScore row[MAX_LAYERS];
} Saved;
#define S(MEMBER) offsetof(Saved, MEMBER)
static const Field SAVED[] = {{"done", FIELD_INT, S(done), 0, HELDOUT_MAX + MAX_LAYERS, FIELD_ALWAYS, 0, NULL},
                              {"seconds", FIELD_REAL, S(seconds), 0, 0, FIELD_ALWAYS, 0, NULL},
                              {"base", FIELD_REAL, S(base), 0, 0, FIELD_ALWAYS, 0, NULL},
                              {"layers", FIELD_RECORDS, S(row), S(L), MAX_LAYERS, FIELD_ALWAYS, 0, &layer_row_record}};
#undef S
static const Record saved_record = {SAVED, 4, sizeof(Saved)};

int partial_begin(Partial *p, LayerScore *rows, int L, int *done, Err *e) {
    void *mem;
    int found;
    memset(rows, 0, (size_t)L * sizeof *rows);
    p->begin = p->saved = log_now();
    *done = 0;
    if (!p->memo) return OK;
    TRY(mem_alloc(&mem, sizeof(Saved), "partial scores", e));
    Saved *s = mem;
    const int rc = p->memo->look(p->memo, p->name, -1, &saved_record, s, &found, e);
    if (!rc && found && s->L == L) {
        memcpy(rows, s->row, (size_t)L * sizeof *rows);
        p->seconds = s->seconds;
        p->base = s->base;
        *done = s->done;
    }
    mem_free(mem);
    return rc;
}

double partial_seconds(const Partial *p) { return p->seconds + log_now() - p->begin; }

static int partial_put(const Partial *p, LayerScore *rows, int L, int done, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, sizeof(Saved), "partial scores", e));
    Saved *s = mem;
    s->done = done;
    s->L = L;
    s->seconds = partial_seconds(p);
    s->base = p->base;
    memcpy(s->row, rows, (size_t)L * sizeof *rows);
    for (int l = 0; l < L; l++) s->row[l].batches = done < HELDOUT_MAX ? done : HELDOUT_MAX;
    const int rc = p->memo->put(p->memo, p->name, -1, &saved_record, s, e);
    mem_free(mem);
    return rc;
}

int partial_unit(Partial *p, LayerScore *rows, int L, int done, Err *e) {
    const int stop = p->memo ? p->memo->stopped(p->memo) : 0;
    if (p->memo && (stop || log_now() - p->saved >= PARTIAL_SECONDS)) {
        TRY(partial_put(p, rows, L, done, e));
        p->saved = log_now();
    }
    return stop ? err_set(e, 128 + stop, "stopped while scoring; the same command goes on from here") : OK;
}
