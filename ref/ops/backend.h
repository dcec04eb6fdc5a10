/* backend.h - where tensors live and who computes: a name, an op table, and memory. Model and method code knows nothing
 * else.
 *
 * "ref64" double reference (the oracle), "ref32" float reference, "cpu" OpenMP float (the default), "cuda[:i]" when
 * built with it. */
#ifndef HYB_BACKEND_H
#define HYB_BACKEND_H
#include "base/err.h"
#include "base/dtype.h"
#include "ops/ops.h"

typedef struct Backend Backend;
struct Backend {
    const char *name;
    const Ops *op;
    DType real_type, wide_type; /* DT_F64, DT_F32, DT_BF16 */
    size_t real_size, wide_size;
    /* Device memory; bytes == 0 is fine. alloc zeroes. `what` names the thing in the ERR_MEMORY message. */
    int (*alloc)(Backend *b, void **p, size_t bytes, const char *what, Err *e);
    void (*release)(Backend *b, void *p);
    void (*zero)(Backend *b, void *p, size_t bytes);
    void (*upload)(Backend *b, void *device, const void *host, size_t bytes);
    void (*download)(Backend *b, void *host, const void *device, size_t bytes);
    void (*move)(Backend *b, void *dst, const void *src, size_t bytes); /* device to device; may overlap */
    size_t (*free_memory)(Backend *b); /* bytes that alloc can still give; NULL: not known */
    int (*sync)(Backend *b, Err *e);   /* waits; returns the first error latched by a launch, naming the kernel */
    /* Optional (NULL: calls cost nothing). Calls that are the same each time, pointers and sizes too, told to the
     * device once: what stands between record_begin and record_end (ops, zero, move; nothing that waits or reads host
     * memory) is not done but kept in *g, replay does all of it. *g stays NULL if the device refuses:
     * then nothing was done, and the caller makes the calls itself. NULL may be freed. */
    void (*record_begin)(Backend *b);
    void (*record_end)(Backend *b, void **g);
    void (*replay)(Backend *b, void *g);
    void (*record_free)(Backend *b, void *g);
    /* Optional (NULL: nothing to gain). prepack: many products will read the matrix w (O,I) between changes, so the
     * backend may keep a copy of it laid out for y = x W^T and, if backward, dx = dy W; the first product that wants
     * the copy makes it. The model that w belongs to owns the copy (model_prepack). Whoever writes w calls invalidate
     * before the next product; prepack_release comes before w is released (fine if w is not prepacked). Without memory
     * for the copy only speed is lost. */
    void (*prepack)(Backend *b, const Real *w, int O, int I, int backward);
    size_t (*prepack_bytes)(Backend *b, int O, int I, int backward); /* what the copy takes at most */
    void (*invalidate)(Backend *b, const Real *w);
    void (*prepack_release)(Backend *b, const Real *w);
    void (*close)(Backend *b);
    struct Ranks *ranks; /* base/ranks.h: processes that train with this one; NULL: none */
    int host;            /* 1: device pointers are host pointers */
    int threads;         /* what the backend will use */
    void *state;
};

/* Opens by name. threads <= 0: all cores. ERR_USAGE with the list of names (and the nearest) if unknown;
 * ERR_DEVICE if CUDA is not built in or absent. */
int backend_open(Backend **b, const char *name, int threads, Err *e);
void backend_close(Backend *b);
/* Names of all that can be opened here, "cpu cpu-bf16 ref32 ...". */
void backend_names(char *dst, size_t cap);
/* "cpu: avx512, cpu-bf16: amx": which of its code paths each takes on this machine. ERR_USAGE as backend_open. */
int backend_paths(char *dst, size_t cap, Err *e);

/* Adds the opener of a backend that ref/ must not know, e.g. "cuda" (then also asked for "cuda:1", "cuda-bf16") or
 * "cuda-emu"; the longest name that fits is asked. Called by tools and tests before anything is opened; at most 8;
 * the string must stay. */
typedef int (*BackendOpen)(Backend **b, const char *name, int threads, Err *e);
void backend_register(const char *name, BackendOpen open);
/* From cpu/cpu_ops.c: the ops for the instruction set of this machine, chosen once. */
const Ops32 *cpu_ops32(void);
int cpu_path_check(Err *e); /* ERR_USAGE if HYBRIDIZE_CPU names no path */
const char *cpu_path_name(int bits);
const Ops16 *cpu_ops16(void);
/* Sets how many threads the "cpu" ops use from now on (<= 0: all cores) and returns that number.
 * The count is OpenMP's own, one per process: the "cpu" backend opened last decides. Results do not depend on it. */
int cpu_threads(int threads);
void cpu_prepack(const void *w, int O, int I, int backward, int bits); /* Backend.prepack and so on; bits of a weight */
size_t cpu_prepack_bytes(int O, int I, int backward, int bits);
void cpu_invalidate(const void *w);
void cpu_prepack_release(const void *w);
/* From ref/ops/ref_bf16.c: Backend.sync of "ref-bf16". */
int ref_bf16_sync(Err *e);

/* Pointer arithmetic that model code may not do itself. */
static inline Real *real_at(const Backend *b, Real *p, size_t i) { return (Real *)((char *)p + i * b->real_size); }
static inline const Real *creal_at(const Backend *b, const Real *p, size_t i) {
    return (const Real *)((const char *)p + i * b->real_size);
}
static inline Wide *wide_at(const Backend *b, Wide *p, size_t i) { return (Wide *)((char *)p + i * b->wide_size); }
static inline const Wide *cwide_at(const Backend *b, const Wide *p, size_t i) {
    return (const Wide *)((const char *)p + i * b->wide_size);
}

/* Conversion at the border, in blocks through a small host buffer: n elements of a host array of `type` to or from the
 * device. */
int real_put(Backend *b, Real *dst, DType type, const void *src, size_t n, Err *e);
int real_get(Backend *b, DType type, void *dst, const Real *src, size_t n, Err *e);
int wide_put(Backend *b, Wide *dst, DType type, const void *src, size_t n, Err *e);
int wide_get(Backend *b, DType type, void *dst, const Wide *src, size_t n, Err *e);
/* y += x, n elements, added on the host: a device's come there and go back in blocks. */
int wide_add(Backend *b, Wide *y, const Wide *x, size_t n, Err *e);

#endif
