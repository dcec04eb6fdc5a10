/* export_parts.h - between the files of the exporter; nobody else includes it. */
#ifndef HYB_EXPORT_PARTS_H
#define HYB_EXPORT_PARTS_H
#include "io/export.h"
#include "io/gguf_write.h"
#include "io/hf_parts.h"

/* A tensor of the output: where its rows come from, and what happens to each number on the way. */
typedef enum {
    OUT_ROWS,  /* of src, one after the other */
    OUT_GATED, /* per head: D rows of src, D zero rows */
    OUT_TAPS,  /* 0,...,0,1 */
    OUT_ROPE   /* by how much each rotary frequency is divided */
} OutKind;
typedef struct {
    OutKind kind;
    const Tensor *src[3];
    int n_src, heads; /* heads > 0: rows in llama.cpp's order for rotary pairs */
    size_t D;         /* head size, of OUT_GATED and OUT_ROPE */
    const Rope *rope; /* of OUT_ROPE */
    double mul, add;  /* x mul + add, after: */
    int neg_exp;      /* 1: x -> -exp(x) */
} OutRule;
typedef struct {
    Tensor *tensor; /* names, types and shapes of the output; data is NULL */
    char (*name)[128];
    OutRule *rule;
    size_t n, cap;
    double *row; /* scratch: one row of the widest source */
    int rc;      /* what went wrong first */
    Err *e;
} OutList;

int out_open(OutList *l, size_t cap, Err *e);
void out_close(OutList *l);
/* Adds a tensor: shape of `rank` numbers; the name is made from "blk.%d." and the like. Where that fails, later calls
 * do nothing and out_scratch says so: ERR_USAGE if it does not fit the list, ERR_INPUT if a source is missing.
 * e must live until then. */
void out_add(OutList *l, DType dtype, int rank, size_t n0, size_t n1, size_t n2, const OutRule *rule, const char *fmt,
             ...) __attribute__((format(printf, 8, 9)));
int out_scratch(OutList *l, Err *e);
/* TensorFetch over an OutList. */
int out_fetch(void *ctx, const Tensor *t, size_t offset, void *buf, size_t bytes, Err *e);

/* ERR_USAGE if Qwen3.5's layers cannot compute exactly what h's do; format: for the message. */
int qwen35_check(const Config *c, const char *format, Err *e);
/* Its tensors under transformers' names, or llama.cpp's. */
int qwen35_list(OutList *l, const HfModel *h, DType dtype, int gguf, Err *e);
int qwen35_config(JsonOut *o, const Config *c, DType dtype, Err *e);
/* The whole of --format gguf. */
int export_gguf(const HfModel *h, const char *from, const char *to, const ExportOptions *o, Err *e);

#endif
