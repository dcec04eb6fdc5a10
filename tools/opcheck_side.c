/* opcheck_side.c - one backend's copy of all tensors of a case, each between two guards, and the calls on it. */
#include "base/mem.h"
#include "base/poison.h"
#include "tools/opcheck_parts.h"
#include <math.h>
#include <string.h>

enum { GUARD = 256, BLOCK = 1024 };
enum { NAN_BYTE = 0xff, INT_BYTE = 0x5a }; /* as numbers: NaN; an int that no op writes */

DType side_type(const Backend *be, Kind kind) {
    return kind == REAL ? be->real_type : kind == WIDE ? be->wide_type : kind == DOUBLE ? DT_F64 : DT_COUNT;
}
static size_t kind_size(const Backend *be, Kind kind) {
    return kind == REAL ? be->real_size : kind == WIDE ? be->wide_size : kind == INT ? sizeof(int) : sizeof(double);
}
size_t side_size(const Side *s, int i) {
    return s->c->tensor[i].role == WORK ? s->c->count[i] * 8 : s->c->count[i] * kind_size(s->be, s->c->tensor[i].kind);
}

static void fill(Backend *be, char *device, size_t bytes, int byte) {
    unsigned char b[BLOCK];
    memset(b, byte, sizeof b);
    for (size_t i = 0; i < bytes; i += BLOCK) be->upload(be, device + i, b, bytes - i < BLOCK ? bytes - i : BLOCK);
}

int side_open(Side *s, Backend *be, const OpCase *c, Err *e) {
    memset(s, 0, sizeof *s);
    s->be = be, s->c = c;
    s->call.op = be->op, s->call.be = be, s->call.c = c;
    for (int i = 0; i < c->tensors; i++) {
        if (!opcase_has(c, i)) continue;
        const size_t bytes = side_size(s, i);
        int rc = be->alloc(be, &s->block[i], bytes + 2 * GUARD, c->tensor[i].name, e);
        if (rc) return side_close(s), rc;
        s->call.t[i] = (char *)s->block[i] + GUARD;
        fill(be, s->block[i], bytes + 2 * GUARD, NAN_BYTE);
        if (c->value[i]) side_put(s, i, c->value[i]);
    }
    return OK;
}

void side_close(Side *s) {
    for (int i = 0; s->be && i < MAX_TENSORS; i++)
        if (s->block[i]) s->be->release(s->be, s->block[i]);
    memset(s, 0, sizeof *s);
}

void side_put(Side *s, int i, const double *v) {
    const Kind kind = s->c->tensor[i].kind;
    const size_t size = kind_size(s->be, kind);
    unsigned char b[BLOCK];
    for (size_t from = 0; from < s->c->count[i]; from += BLOCK / size) {
        const size_t left = s->c->count[i] - from, n = left < BLOCK / size ? left : BLOCK / size;
        if (kind != INT) dtype_convert(side_type(s->be, kind), b, DT_F64, v + from, n);
        for (size_t k = 0; kind == INT && k < n; k++)
            memcpy(b + k * sizeof(int), &(int){(int)v[from + k]}, sizeof(int));
        s->be->upload(s->be, (char *)s->call.t[i] + from * size, b, n * size);
    }
}

void side_get(Side *s, int i, double *v) {
    const Kind kind = s->c->tensor[i].kind;
    const size_t size = kind_size(s->be, kind);
    unsigned char b[BLOCK];
    for (size_t from = 0; from < s->c->count[i]; from += BLOCK / size) {
        const size_t left = s->c->count[i] - from, n = left < BLOCK / size ? left : BLOCK / size;
        s->be->download(s->be, b, (char *)s->call.t[i] + from * size, n * size);
        if (kind != INT) dtype_convert(DT_F64, v + from, side_type(s->be, kind), b, n);
        for (size_t k = 0; kind == INT && k < n; k++) {
            int x;
            memcpy(&x, b + k * sizeof x, sizeof x);
            v[from + k] = x;
        }
    }
}

void side_bytes(Side *s, int i, void *raw) { s->be->download(s->be, raw, s->call.t[i], side_size(s, i)); }

void side_nan(Side *s, int i) {
    fill(s->be, s->call.t[i], side_size(s, i), s->c->tensor[i].kind == INT ? INT_BYTE : NAN_BYTE);
}

void side_round(const Backend *be, Kind kind, double *v, size_t n) {
    unsigned char b[8];
    const DType t = side_type(be, kind);
    for (size_t i = 0; t != DT_COUNT && i < n; i++) {
        dtype_convert(t, b, DT_F64, v + i, 1);
        dtype_convert(DT_F64, v + i, t, b, 1);
    }
}

const char *side_guards(Side *s) {
    unsigned char b[GUARD];
    for (int i = 0; i < s->c->tensors; i++)
        for (int end = 0; s->block[i] && end < 2; end++) {
            s->be->download(s->be, b, (char *)s->block[i] + (end ? GUARD + side_size(s, i) : 0), GUARD);
            for (int k = 0; k < GUARD; k++)
                if (b[k] != NAN_BYTE) return s->c->tensor[i].name;
        }
    return NULL;
}

/* Under AddressSanitizer reading a guard is an error too; without it, what was read is NaN and shows in the results. */
static void guards_poison(Side *s, int on) {
    for (int i = 0; s->be->host && i < s->c->tensors; i++)
        for (int end = 0; s->block[i] && end < 2; end++) {
            char *guard = (char *)s->block[i] + (end ? GUARD + side_size(s, i) : 0);
            if (on) poison(guard, GUARD);
            else unpoison(guard, GUARD);
        }
}

int side_call(Side *s, int backward, Err *e) {
    for (int i = 0; i < s->c->tensors; i++)
        if (s->c->tensor[i].role == WORK) side_nan(s, i);
    guards_poison(s, 1);
    if (backward) s->c->row->backward(&s->call);
    else s->c->row->forward(&s->call);
    const int rc = s->be->sync(s->be, e);
    guards_poison(s, 0);
    return rc;
}
