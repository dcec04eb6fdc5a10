/* backend.c - the backends in host memory, the list of openers, and conversion at the border. See backend.h. */
#include "ops/backend.h"
#include "base/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HYB_NO_CPU /* built without cpu/: only speed is lost */
const Ops32 *cpu_ops32(void) { return &ops_ref32; }
const Ops16 *cpu_ops16(void) { return &ops_ref16; }
int cpu_path_check(Err *e) { return (void)e, OK; }
const char *cpu_path_name(int bits) { return (void)bits, "ref"; }
int cpu_threads(int threads) { return (void)threads, 1; }
void cpu_prepack(const void *w, int O, int I, int backward, int bits) {
    (void)w, (void)O, (void)I, (void)backward, (void)bits;
}
size_t cpu_prepack_bytes(int O, int I, int backward, int bits) {
    return (void)O, (void)I, (void)backward, (void)bits, (size_t)0;
}
void cpu_invalidate(const void *w) { (void)w; }
void cpu_prepack_release(const void *w) { (void)w; }
#endif

/* ---- host memory ---- */

static int host_alloc(Backend *b, void **p, size_t bytes, const char *what, Err *e) {
    (void)b;
    return mem_alloc(p, bytes, what, e);
}
static void host_release(Backend *b, void *p) {
    (void)b;
    mem_free(p);
}
static void host_zero(Backend *b, void *p, size_t bytes) {
    (void)b;
    if (bytes) memset(p, 0, bytes);
}
static void host_move(Backend *b, void *dst, const void *src, size_t bytes) {
    (void)b;
    if (bytes) memmove(dst, src, bytes);
}
static int host_sync(Backend *b, Err *e) { return (void)b, (void)e, OK; }
static int ref16_sync(Backend *b, Err *e) { return (void)b, ref_bf16_sync(e); }
static void host_close(Backend *b) { mem_free(b); }

static void host_prepack(Backend *b, const Real *w, int O, int I, int backward) {
    cpu_prepack(w, O, I, backward, dtype_bits(b->real_type));
}
static size_t host_prepack_bytes(Backend *b, int O, int I, int backward) {
    return cpu_prepack_bytes(O, I, backward, dtype_bits(b->real_type));
}
static void host_invalidate(Backend *b, const Real *w) { (void)b, cpu_invalidate(w); }
static void host_prepack_release(Backend *b, const Real *w) { (void)b, cpu_prepack_release(w); }

/* One row a host backend. A table is read through `Ops` with its own element types behind Real and Wide (ops.h). */
static const void *ref64_table(void) { return &ops_ref64; }
static const void *ref32_table(void) { return &ops_ref32; }
static const void *ref16_table(void) { return &ops_ref16; }
static const void *cpu32_table(void) { return cpu_ops32(); }
static const void *cpu16_table(void) { return cpu_ops16(); }
typedef struct {
    const char *name;
    const void *(*table)(void);
    DType real, wide;
    int parallel;
} HostRow;
static const HostRow host_rows[] = {
    {"cpu", cpu32_table, DT_F32, DT_F32, 1},       {"cpu-bf16", cpu16_table, DT_BF16, DT_F32, 1},
    {"ref32", ref32_table, DT_F32, DT_F32, 0},     {"ref64", ref64_table, DT_F64, DT_F64, 0},
    {"ref-bf16", ref16_table, DT_BF16, DT_F32, 0},
};
enum { HOST_ROWS = sizeof host_rows / sizeof *host_rows };

static int host_open(Backend **out, const HostRow *row, int threads, Err *e) {
    void *p;
    if (row->parallel) TRY(cpu_path_check(e));
    TRY(mem_alloc(&p, sizeof(Backend), "backend", e));
    Backend *b = p;
    *b = (Backend){.name = row->name,
                   .op = row->table(),
                   .real_type = row->real,
                   .wide_type = row->wide,
                   .real_size = (size_t)dtype_bits(row->real) / 8,
                   .wide_size = (size_t)dtype_bits(row->wide) / 8,
                   .alloc = host_alloc,
                   .release = host_release,
                   .zero = host_zero,
                   .upload = host_move,
                   .download = host_move,
                   .move = host_move,
                   .sync = row->table == ref16_table ? ref16_sync : host_sync,
                   .close = host_close,
                   .host = 1,
                   .threads = row->parallel ? cpu_threads(threads) : 1};
    if (row->parallel)
        b->prepack = host_prepack, b->prepack_bytes = host_prepack_bytes, b->invalidate = host_invalidate,
        b->prepack_release = host_prepack_release;
    *out = b;
    return OK;
}

/* ---- opening by name ---- */

enum { MAX_OPENERS = 8 };
static struct {
    const char *name;
    BackendOpen open;
} openers[MAX_OPENERS]; /* set once by tools, before anything runs */

void backend_register(const char *name, BackendOpen open) {
    for (int i = 0; i < MAX_OPENERS; i++)
        if (!openers[i].name || !strcmp(openers[i].name, name)) {
            openers[i].name = name, openers[i].open = open;
            return;
        }
}

/* "cuda" opens "cuda", "cuda:1" and "cuda-bf16"; of several that fit, the longest. */
static BackendOpen opener_find(const char *name) {
    BackendOpen best = NULL;
    size_t longest = 0;
    for (int i = 0; i < MAX_OPENERS && openers[i].name; i++) {
        const size_t n = strlen(openers[i].name);
        if (n > longest && !strncmp(name, openers[i].name, n) && (!name[n] || name[n] == ':' || name[n] == '-'))
            best = openers[i].open, longest = n;
    }
    return best;
}

static int backend_unknown(const char *name, Err *e) {
    if (!strncmp(name, "cuda", 4)) {
        err_set(e, ERR_DEVICE, "%s: backend: not built in", name);
        return err_hint(e, "make cuda builds ./hybridize-cuda, make emu ./hybridize-emu; or use --device cpu");
    }
    const char *near = NULL;
    size_t most = 1; /* characters in common from the front; fewer than two are no hint */
    for (int i = 0; i < HOST_ROWS; i++) {
        size_t n = 0;
        while (name[n] && name[n] == host_rows[i].name[n]) n++;
        if (n > most) most = n, near = host_rows[i].name;
    }
    err_set(e, ERR_USAGE,
            "%.40s: backend: got an unknown name, expected ref64, ref32, ref-bf16, cpu, cpu-bf16 or cuda[:index]",
            name);
    return near ? err_hint(e, "did you mean %s?", near) : ERR_USAGE;
}

int backend_open(Backend **b, const char *name, int threads, Err *e) {
    *b = NULL;
    for (int i = 0; i < HOST_ROWS; i++)
        if (!strcmp(name, host_rows[i].name)) return host_open(b, &host_rows[i], threads, e);
    const BackendOpen open = opener_find(name);
    if (open) return open(b, name, threads, e);
    return backend_unknown(name, e);
}

void backend_names(char *dst, size_t cap) {
    size_t n = 0;
    *dst = 0;
    for (int i = 0; i < HOST_ROWS && n < cap; i++)
        n += (size_t)snprintf(dst + n, cap - n, "%s%s", i ? " " : "", host_rows[i].name);
    for (int i = 0; i < MAX_OPENERS && openers[i].name && n < cap; i++)
        n += (size_t)snprintf(dst + n, cap - n, " %s %s-bf16", openers[i].name, openers[i].name);
}

int backend_paths(char *dst, size_t cap, Err *e) {
    TRY(cpu_path_check(e));
    snprintf(dst, cap, "cpu: %s, cpu-bf16: %s", cpu_path_name(32), cpu_path_name(16));
    return OK;
}

void backend_close(Backend *b) {
    if (b) b->close(b);
}

/* ---- conversion at the border ---- */

/* Bytes of host buffer in a conversion. A device waits at every block, so there it is larger if memory can be had. */
enum { STAGING = 16 * 1024, BORDER_DEVICE = 1 << 20 };
typedef struct {
    void *buffer, *more;
    size_t count;
} Staging;

static int staging_sizes(size_t *near, size_t *widest, DType host, size_t device_size, Err *e) {
    char probe[8] = {0}, to[8];
    *near = (size_t)dtype_bits(host) / 8;
    if (dtype_convert(DT_F64, to, host, probe, 1))
        return err_set(e, ERR_INPUT, "dtype %s: got no number type to convert, expected F16, BF16, F32 or F64",
                       dtype_name(host));
    *widest = *near > device_size ? *near : device_size;
    return OK;
}
static Staging staging_open(const Backend *b, char *small, size_t n, size_t widest) {
    Staging r = {small, NULL, STAGING / widest};
    if (!b->host && n > r.count && !mem_alloc(&r.more, BORDER_DEVICE, "conversion", NULL))
        r.buffer = r.more, r.count = BORDER_DEVICE / widest;
    return r;
}

static int put(Backend *b, void *dst, DType device, size_t size, DType type, const void *src, size_t n, Err *e) {
    size_t near, widest;
    char small[STAGING];
    TRY(staging_sizes(&near, &widest, type, size, e));
    if (type == device) return b->upload(b, dst, src, n * size), OK;
    const Staging r = staging_open(b, small, n, widest);
    for (size_t i = 0; i < n; i += r.count) {
        const size_t m = n - i < r.count ? n - i : r.count;
        dtype_convert(device, r.buffer, type, (const char *)src + i * near, m);
        b->upload(b, (char *)dst + i * size, r.buffer, m * size);
    }
    mem_free(r.more);
    return OK;
}

static int get(Backend *b, DType type, void *dst, DType device, size_t size, const void *src, size_t n, Err *e) {
    size_t near, widest;
    char small[STAGING];
    TRY(staging_sizes(&near, &widest, type, size, e));
    if (type == device) return b->download(b, dst, src, n * size), OK;
    const Staging r = staging_open(b, small, n, widest);
    for (size_t i = 0; i < n; i += r.count) {
        const size_t m = n - i < r.count ? n - i : r.count;
        b->download(b, r.buffer, (const char *)src + i * size, m * size);
        dtype_convert(type, (char *)dst + i * near, device, r.buffer, m);
    }
    mem_free(r.more);
    return OK;
}

int real_put(Backend *b, Real *dst, DType type, const void *src, size_t n, Err *e) {
    return put(b, dst, b->real_type, b->real_size, type, src, n, e);
}
int real_get(Backend *b, DType type, void *dst, const Real *src, size_t n, Err *e) {
    return get(b, type, dst, b->real_type, b->real_size, src, n, e);
}
int wide_put(Backend *b, Wide *dst, DType type, const void *src, size_t n, Err *e) {
    return put(b, dst, b->wide_type, b->wide_size, type, src, n, e);
}
int wide_get(Backend *b, DType type, void *dst, const Wide *src, size_t n, Err *e) {
    return get(b, type, dst, b->wide_type, b->wide_size, src, n, e);
}

static void host_add(DType type, void *y, const void *x, size_t n) {
    if (type == DT_F64)
        for (size_t i = 0; i < n; i++) ((double *)y)[i] += ((const double *)x)[i];
    else
        for (size_t i = 0; i < n; i++) ((float *)y)[i] += ((const float *)x)[i];
}

int wide_add(Backend *b, Wide *y, const Wide *x, size_t n, Err *e) {
    enum { BLOCK = 1 << 20 };
    void *mem;
    if (b->host) return host_add(b->wide_type, y, x, n), OK;
    TRY(mem_alloc(&mem, 2 * BLOCK, "sum of gradients", e));
    char *a = mem, *c = a + BLOCK;
    for (size_t i = 0; i < n; i += BLOCK / b->wide_size) {
        const size_t m = n - i < BLOCK / b->wide_size ? n - i : BLOCK / b->wide_size;
        b->download(b, a, wide_at(b, y, i), m * b->wide_size);
        b->download(b, c, cwide_at(b, x, i), m * b->wide_size);
        host_add(b->wide_type, a, c, m);
        b->upload(b, wide_at(b, y, i), a, m * b->wide_size);
    }
    mem_free(mem);
    return OK;
}
