/* tiny.h - a little teacher, a little text and a hybrid student, for tests of the method. */
#ifndef HYB_TEST_TINY_H
#define HYB_TEST_TINY_H
#include <check.h>
#include <string.h>
#include "base/mem.h"
#include "base/rng.h"
#include "method/batch.h"
#include "method/transfer.h"
#include "model/model.h"
#include "tmpdir.h"

static inline void must(int rc, const Err *e) {
    if (rc) ck_abort_msg("code %d: %s (%s)", rc, e->msg, e->hint);
}

/* tmpdir_path whose result stays. */
static inline const char *place(const char *name) {
    static char path[400][640];
    static unsigned k;
    ck_assert_uint_lt(k, 400);
    snprintf(path[k], sizeof path[0], "%s/%s", tmpdir, name);
    return path[k++];
}

static inline Config tiny_config(int L) {
    Config c = {.family = "llama",
                .C = 16,
                .L = L,
                .H = 4,
                .Hk = 2,
                .D = 4,
                .F = 24,
                .VOC = 64,
                .tied = 1,
                .max_positions = 128};
    c.norm_eps = c.o_norm_eps = 1e-5;
    c.rope = (Rope){.kind = ROPE_PLAIN, .theta = 10000};
    c.conv_width = 4;
    c.bos = -1;
    return c;
}

/* Text of VOC symbols with structure: each symbol is followed by one of two. Documents of 5 to 60 tokens. */
static inline void tiny_text(const char *path, int VOC, size_t n) {
    Err e = {0};
    void *mem;
    must(mem_alloc(&mem, n * (sizeof(int) + sizeof(uint64_t)), "text", &e), &e);
    uint64_t *end = mem;
    int *id = (int *)(end + n);
    size_t docs = 0, left = 5;
    Rng r;
    rng_seed(&r, 11);
    for (size_t i = 0; i < n; i++) {
        id[i] = i ? (int)((unsigned)(id[i - 1] * 5 + 3 + 7 * (int)rng_below(&r, 2)) % (unsigned)VOC) : 0;
        if (--left && i + 1 < n) continue;
        end[docs++] = i + 1;
        left = 5 + rng_below(&r, 56);
    }
    must(shard_write_ids(path, id, n, end, docs, VOC, 99, &e), &e);
    mem_free(mem);
}

typedef struct {
    Backend *be;
    Dataset data;
    TextStream text;
    Model teacher;
} Tiny;

static inline void tiny_open_as(Tiny *t, const char *backend, int threads, const Config *c, const char *shard) {
    Err e = {0};
    memset(t, 0, sizeof *t);
    if (!file_exists(shard)) tiny_text(shard, 64, 20000);
    must(backend_open(&t->be, backend, threads, &e), &e);
    must(dataset_open(&t->data, &shard, 1, &e), &e);
    t->text = (TextStream){.d = &t->data, .seed = 42, .heldout = 0.1, .boundaries = 1};
    must(model_open(&t->teacher, c, t->be, GRAD_NONE, &e), &e);
    must(model_init(&t->teacher, 3, 1.0, 1.5, 0, &e), &e);
}
static inline void tiny_open(Tiny *t, const char *backend, int threads, int L, const char *shard) {
    const Config c = tiny_config(L);
    tiny_open_as(t, backend, threads, &c, shard);
}

static inline void tiny_close(Tiny *t) {
    model_close(&t->teacher);
    dataset_close(&t->data);
    backend_close(t->be);
}

/* Layers with keep[l] stay softmax; keep NULL: all linear. */
static inline void tiny_student(Model *s, Tiny *t, const int *keep, GradKind grad) {
    Err e = {0};
    Config c;
    int mixer[MAX_LAYERS] = {0};
    for (int l = 0; l < t->teacher.c.L; l++) mixer[l] = keep && keep[l] ? 0 : mixer_find("gdn_v4");
    must(transfer_config(&c, &t->teacher.c, mixer, &e), &e);
    must(model_open(s, &c, t->be, grad, &e), &e);
    s->chunk = 8;
    must(transfer_weights(s, &t->teacher, KV_REPEAT_HEAD, 5, &e), &e);
}

/* All weights of m one after the other, as bytes of the backend's types; *n bytes, to be freed with mem_free. */
typedef struct {
    const Model *m;
    unsigned char *dst;
    size_t n;
} TinyDump;
static inline int tiny_dump_visit(void *ctx, const ParamInfo *info, Param *slot) {
    TinyDump *d = ctx;
    const size_t bytes = info->n * (info->wide ? d->m->be->wide_size : d->m->be->real_size);
    if (d->dst) d->m->be->download(d->m->be, d->dst + d->n, slot->w, bytes);
    d->n += bytes;
    return OK;
}
static inline unsigned char *tiny_dump(Model *m, size_t *n) {
    Err e = {0};
    void *mem;
    TinyDump d = {m, NULL, 0};
    params_walk(&m->c, &m->p, tiny_dump_visit, &d);
    must(mem_alloc(&mem, d.n, "dump", &e), &e);
    d.dst = mem;
    *n = d.n;
    d.n = 0;
    params_walk(&m->c, &m->p, tiny_dump_visit, &d);
    return mem;
}

#endif
