/* export.c - see export.h: the list of output tensors, and the formats that are directories. */
#include "io/export_parts.h"
#include "base/mem.h"
#include "io/gguf_model.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- output tensors ---- */

int out_open(OutList *l, size_t cap, Err *e) {
    void *p[3] = {0};
    const size_t size[3] = {sizeof *l->tensor, sizeof *l->name, sizeof *l->rule};
    int rc = OK;
    memset(l, 0, sizeof *l);
    for (int i = 0; i < 3 && !rc; i++) rc = mem_alloc(&p[i], cap * size[i], "tensor list", e);
    l->tensor = p[0];
    l->name = p[1];
    l->rule = p[2];
    l->cap = cap;
    l->e = e;
    if (rc) out_close(l);
    return rc;
}

void out_close(OutList *l) {
    mem_free(l->tensor);
    mem_free(l->name);
    mem_free(l->rule);
    mem_free(l->row);
    memset(l, 0, sizeof *l);
}

void out_add(OutList *l, DType dtype, int rank, size_t n0, size_t n1, size_t n2, const OutRule *rule, const char *fmt,
             ...) {
    va_list ap;
    if (l->n == l->cap) l->rc = err_set(l->e, ERR_USAGE, "export: more tensors than expected");
    for (int i = 0; i < rule->n_src; i++)
        if (!rule->src[i]) l->rc = err_set(l->e, ERR_INPUT, "export: a tensor of the model is missing");
    if (l->rc) return;
    va_start(ap, fmt);
    vsnprintf(l->name[l->n], sizeof *l->name, fmt, ap); // layer numbers and names of ours: short
    va_end(ap);
    Tensor *t = &l->tensor[l->n];
    *t = (Tensor){.name = l->name[l->n], .dtype = dtype, .rank = rank, .shape = {n0, n1, n2}, .count = n0};
    for (int i = 1; i < rank; i++) t->count *= t->shape[i];
    for (int i = rank; i < 3; i++) t->shape[i] = 0;
    t->bytes = t->count * (size_t)dtype_bits(dtype) / 8;
    l->rule[l->n++] = *rule;
}

int out_scratch(OutList *l, Err *e) {
    size_t widest = 1;
    void *p;
    if (l->rc) return l->rc;
    for (size_t i = 0; i < l->n; i++)
        if (l->tensor[i].count / l->tensor[i].shape[0] > widest) widest = l->tensor[i].count / l->tensor[i].shape[0];
    TRY(mem_alloc(&p, widest * sizeof *l->row, "row", e));
    l->row = p;
    return OK;
}

/* llama.cpp keeps the two halves of a rotary pair next to each other: its row 2i + s is transformers' row s D/2 + i. */
static size_t row_unpaired(size_t row, int heads, size_t rows) {
    const size_t D = rows / (size_t)heads, i = row % D;
    return row - i + i % 2 * (D / 2) + i / 2;
}

/* Row `row` of source k; rows of a vector are its elements. */
static void source_row(const Tensor *s, size_t row, size_t cols, double *out) {
    dtype_convert(DT_F64, out, s->dtype, s->data + row * cols * ((size_t)dtype_bits(s->dtype) / 8), cols);
}

static void rule_row(const OutRule *r, size_t row, size_t rows, size_t cols, double *out) {
    int k = 0;
    if (r->kind == OUT_ROPE) {
        out[0] = gguf_rope_divisor(r->rope, (int)row, (int)r->D);
        return;
    }
    if (r->heads) row = row_unpaired(row, r->heads, rows);
    if (r->kind == OUT_TAPS || (r->kind == OUT_GATED && row % (2 * r->D) >= r->D)) {
        for (size_t c = 0; c < cols; c++) out[c] = r->kind == OUT_TAPS && c + 1 == cols;
        return;
    }
    if (r->kind == OUT_GATED) row = row / (2 * r->D) * r->D + row % (2 * r->D);
    while (row >= r->src[k]->shape[0]) row -= r->src[k++]->shape[0];
    source_row(r->src[k], row, cols, out);
    for (size_t c = 0; c < cols; c++) out[c] = (r->neg_exp ? -exp(out[c]) : out[c]) * r->mul + r->add;
}

int out_fetch(void *ctx, const Tensor *t, size_t offset, void *buf, size_t bytes, Err *e) {
    const OutList *l = ctx;
    const size_t rows = t->shape[0], cols = t->count / rows, size = (size_t)dtype_bits(t->dtype) / 8;
    size_t at = offset / size, n = bytes / size;
    for (size_t k; n; at += k, n -= k, buf = (char *)buf + k * size) {
        k = cols - at % cols < n ? cols - at % cols : n;
        rule_row(&l->rule[t - l->tensor], at / cols, rows, cols, l->row);
        for (size_t c = 0; c < k; c++)
            if (!isfinite(l->row[at % cols + c]))
                return err_set(e, ERR_NUMERIC, "export: tensor \"%s\" would hold a NaN or infinity", t->name);
        dtype_convert(t->dtype, buf, DT_F64, l->row + at % cols, k);
    }
    return OK;
}

/* ---- fla and student: tensors as they are ---- */

typedef struct {
    const HfModel *h;
    const Tensor **param; /* in the order of the walk */
    size_t n;
} FromFiles;

static int count_param(void *ctx, const ParamInfo *info, Param *slot) {
    (void)info, (void)slot;
    ++*(size_t *)ctx;
    return OK;
}
static int list_param(void *ctx, const ParamInfo *info, Param *slot) {
    (void)slot;
    FromFiles *f = ctx;
    f->param[f->n++] = hf_tensor(f->h, info->name);
    return OK;
}

static int files_get(void *ctx, size_t i, DType type, size_t at, size_t n, void *dst, Err *e) {
    const FromFiles *f = ctx;
    const Tensor *t = f->param[i];
    (void)e;
    dtype_convert(type, dst, t->dtype, t->data + at * ((size_t)dtype_bits(t->dtype) / 8), n);
    return OK;
}

typedef struct {
    const HfList *l;
    const ParamSource *source;
} Fetch;
static int student_fetch(void *ctx, const Tensor *t, size_t offset, void *buf, size_t bytes, Err *e) {
    const Fetch *f = ctx;
    const size_t size = (size_t)dtype_bits(t->dtype) / 8;
    return f->source->get(f->source->ctx, (size_t)(t - f->l->tensor), t->dtype, offset / size, bytes / size, buf, e);
}

static int export_student(const HfModel *h, const ParamSource *source, const char *from, const char *to,
                          const ExportOptions *o, Err *e) {
    HfList l = {0};
    JsonOut config = {0};
    int rc = hf_student_write(&config, &h->config, o->dtype, e);
    if (!rc) rc = hf_list_open(&l, &h->config, 1, o->dtype, e);
    Fetch f = {&l, source};
    const HfDir d = {.config = config.text,
                     .config_len = config.len,
                     .tensor = l.tensor,
                     .n = l.n,
                     .fetch = student_fetch,
                     .ctx = &f,
                     .shard_bytes = o->shard_bytes,
                     .tokenizer_from = from};
    if (!rc) rc = hf_dir_write(to, &d, e);
    hf_list_close(&l);
    json_out_free(&config);
    return rc;
}

/* Our own directories may hold more than fla computes: here that is a reason to stop. */
static int export_fla(const HfModel *h, const ParamSource *source, const char *from, const char *to,
                      const ExportOptions *o, Err *e) {
    const Config *c = &h->config;
    char notes[2048] = "";
    JsonOut config = {0};
    int linear = 0;
    for (int l = 0; l < c->L; l++) linear |= c->mixer[l];
    if (!linear) {
        err_set(e, ERR_USAGE, "export: format fla is for hybrids, and all layers of this model are softmax");
        return err_hint(e, "the directory itself is what transformers loads");
    }
    TRY(hf_config_write(&config, c, o->dtype, 1, notes, sizeof notes, e));
    json_out_free(&config);
    if (*notes) {
        notes[strcspn(notes, "\n")] = 0;
        err_set(e, ERR_USAGE, "export: format fla cannot hold this model exactly: %s", notes);
        return err_hint(e, !qwen35_check(c, "qwen3_5", NULL) ? "nearest: --format qwen3_5 or gguf"
                                                             : "only hybridize's own directory holds it");
    }
    const HfSaveOptions save = {
        .format = "fla", .dtype = o->dtype, .shard_bytes = o->shard_bytes, .tokenizer_from = from};
    return hf_save_from(c, source, to, &save, NULL, 0, e);
}

/* ---- qwen3_5 ---- */

static int export_qwen35(const HfModel *h, const char *from, const char *to, const ExportOptions *o, Err *e) {
    OutList l = {0};
    JsonOut config = {0};
    TRY(qwen35_check(&h->config, "qwen3_5", e));
    int rc = qwen35_config(&config, &h->config, o->dtype, e);
    if (!rc) rc = qwen35_list(&l, h, o->dtype, 0, e);
    const HfDir d = {.config = config.text,
                     .config_len = config.len,
                     .tensor = l.tensor,
                     .n = l.n,
                     .fetch = out_fetch,
                     .ctx = &l,
                     .shard_bytes = o->shard_bytes,
                     .tokenizer_from = from};
    if (!rc) rc = hf_dir_write(to, &d, e);
    out_close(&l);
    json_out_free(&config);
    return rc;
}

static int export_open(const HfModel *h, const char *from, const char *to, const ExportOptions *o, Err *e) {
    FromFiles f = {.h = h};
    void *p;
    size_t n = 0;
    params_walk(&h->config, NULL, count_param, &n);
    TRY(mem_alloc(&p, n * sizeof *f.param, "tensor list", e));
    f.param = p;
    params_walk(&h->config, NULL, list_param, &f);
    const ParamSource source = {&f, files_get};
    int rc;
    if (hf_own_positions(&h->config)) {
        mem_free(f.param);
        err_set(e, ERR_USAGE, "export: format %s cannot hold softmax layers %s", o->format,
                h->config.no_rope ? "without rotary embedding" : "whose queries are scaled by position");
        return err_hint(e, "only hybridize's own directory holds them");
    }
    if (!strcmp(o->format, "fla")) rc = export_fla(h, &source, from, to, o, e);
    else if (!strcmp(o->format, "student")) rc = export_student(h, &source, from, to, o, e);
    else if (!strcmp(o->format, "qwen3_5")) rc = export_qwen35(h, from, to, o, e);
    else if (!strcmp(o->format, "gguf")) rc = export_gguf(h, from, to, o, e);
    else rc = err_set(e, ERR_USAGE, "export: format: got \"%s\", expected fla, student, qwen3_5 or gguf", o->format);
    mem_free(f.param);
    return rc;
}

int export_model(const char *from, const char *to, const ExportOptions *o, Err *e) {
    HfModel h;
    TRY(hf_open(&h, from, e));
    const int rc = export_open(&h, from, to, o, e);
    hf_close(&h);
    return rc;
}
