/* safetensors_write.c - the writer of safetensors.h. Byte for byte what the reference implementation writes
 * (its test compares). */
#include "io/safetensors.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "base/json.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100000000, MAX_NAME = 4096, PIECE = 4 << 20 };

/* The reference sorts by its own list of types, which runs from small to large alignment, the largest first.
 */
static int dtype_rank(DType t) {
    static const DType order[] = {DT_BOOL,    DT_F4,      DT_F6_E2M3, DT_F6_E3M2,     DT_U8,          DT_I8,
                                  DT_F8_E5M2, DT_F8_E4M3, DT_F8_E8M0, DT_F8_E4M3FNUZ, DT_F8_E5M2FNUZ, DT_I16,
                                  DT_U16,     DT_F16,     DT_BF16,    DT_I32,         DT_U32,         DT_F32,
                                  DT_C64,     DT_F64,     DT_I64,     DT_U64};
    for (int i = 0; i < DT_COUNT; i++)
        if (order[i] == t) return i;
    return -1;
}

static int tensor_order(const void *a, const void *b) {
    const Tensor *x = *(const Tensor *const *)a, *y = *(const Tensor *const *)b;
    int d = dtype_rank(y->dtype) - dtype_rank(x->dtype);
    return d ? d : strcmp(x->name, y->name);
}

static int name_order(const void *a, const void *b) {
    return strcmp((*(const Tensor *const *)a)->name, (*(const Tensor *const *)b)->name);
}

/* Puts the tensors into the order of the file; on the way, the order by name shows a name given twice. */
static int sort_tensors(const char *path, const Tensor **t, size_t n, Err *e) {
    if (!n) return OK;
    qsort(t, n, sizeof *t, name_order);
    for (size_t i = 1; i < n; i++)
        if (!strcmp(t[i]->name, t[i - 1]->name))
            return err_set(e, ERR_INPUT, "%s: tensor '%.200s' given twice", path, t[i]->name);
    qsort(t, n, sizeof *t, tensor_order);
    return OK;
}

/* Is this tensor fit to be written? Its size is computed anew from shape and dtype. */
static int check_tensor(const char *path, const Tensor *t, size_t *bytes, Err *e) {
    size_t len = t->name ? strlen(t->name) : 0, n = 1;
    const unsigned char *s = (const unsigned char *)t->name;
    int ok = t->name && len <= MAX_NAME && strcmp(t->name, "__metadata__") && dtype_rank(t->dtype) >= 0 &&
             t->rank >= 0 && t->rank <= TENSOR_MAX_RANK;
    for (size_t i = 0, w; ok && i < len; i += w) ok = (w = utf8_length(s + i, len - i)) > 0;
    for (int i = 0; ok && i < t->rank; i++) {
        ok = !t->shape[i] || n <= (((size_t)1 << 48) - 1) / t->shape[i];
        n *= ok ? t->shape[i] : 1;
    }
    size_t bits = ok ? n * (size_t)dtype_bits(t->dtype) : 1;
    if (bits % 8)
        return err_set(e, ERR_INPUT, "%s: tensor '%.200s' cannot be written: bad name, dtype or shape", path,
                       t->name ? t->name : "");
    *bytes = bits / 8;
    return OK;
}

static int pair_order(const void *a, const void *b) {
    return strcmp(**(const char *const *const *)a, **(const char *const *const *)b);
}

/* "__metadata__": format = pt unless given, plus the pairs, sorted by key. (Old versions of transformers need
 * "format".) */
static int put_metadata(JsonOut *o, const char *path, const char *const *meta, Err *e) {
    static const char *const format[] = {"format", "pt"};
    size_t n = 0, k = 0;
    int have_format = 0;
    void *p;
    while (meta && meta[2 * n]) n++;
    TRY(mem_alloc(&p, (n + 1) * sizeof(char **), "metadata", e));
    const char *const **pair = p;
    for (; k < n; k++) {
        pair[k] = meta + 2 * k;
        have_format |= !strcmp(pair[k][0], "format");
    }
    if (!have_format) pair[k++] = format;
    qsort(pair, k, sizeof *pair, pair_order);
    int rc = OK;
    json_out_object(o, "__metadata__");
    for (size_t i = 0; i < k && !rc; i++) {
        if (i && !strcmp(pair[i][0], pair[i - 1][0]))
            rc = err_set(e, ERR_INPUT, "%s: metadata key '%s' given twice", path, pair[i][0]);
        else json_out_str(o, pair[i][0], pair[i][1]);
    }
    json_out_close(o);
    mem_free(p);
    return rc;
}

static int put_header(JsonOut *o, const char *path, const Tensor **t, size_t n, const char *const *meta, Err *e) {
    size_t at = 0;
    json_out_begin(o, 0);
    json_out_object(o, NULL);
    TRY(put_metadata(o, path, meta, e));
    for (size_t i = 0; i < n; i++) {
        size_t bytes;
        TRY(check_tensor(path, t[i], &bytes, e));
        json_out_object(o, t[i]->name);
        json_out_str(o, "dtype", dtype_name(t[i]->dtype));
        json_out_array(o, "shape");
        for (int d = 0; d < t[i]->rank; d++) json_out_u64(o, NULL, t[i]->shape[d]);
        json_out_close(o);
        json_out_array(o, "data_offsets");
        json_out_u64(o, NULL, at);
        json_out_u64(o, NULL, at += bytes);
        json_out_close(o);
        json_out_close(o);
    }
    return json_out_end(o, e);
}

static int put_data(FileWriter *w, const Tensor *t, TensorFetch fetch, void *ctx, void *buf, Err *e) {
    size_t bytes;
    TRY(check_tensor(w->path, t, &bytes, e));
    if (!fetch) return file_write(w, t->data, bytes, e);
    for (size_t at = 0; at < bytes; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        TRY(fetch(ctx, t, at, buf, n, e));
        TRY(file_write(w, buf, n, e));
    }
    return OK;
}

static int put_file(const char *path, const Tensor **t, size_t n, const JsonOut *o, TensorFetch fetch, void *ctx,
                    void *buf, Err *e) {
    FileWriter w;
    size_t padded = (o->len + 7) / 8 * 8;
    unsigned char length[8];
    if (padded > MAX_HEADER)
        return err_set(e, ERR_INPUT, "%s: a header of %zu bytes is over the format's limit of %d", path, padded,
                       MAX_HEADER);
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    TRY(file_create(&w, path, e));
    int rc = file_write(&w, length, 8, e);
    if (!rc) rc = file_write(&w, o->text, o->len, e);
    if (!rc) rc = file_write(&w, "        ", padded - o->len, e);
    for (size_t i = 0; i < n && !rc; i++) rc = put_data(&w, t[i], fetch, ctx, buf, e);
    if (!rc) return file_commit(&w, e);
    file_abort(&w);
    return rc;
}

int safetensors_write(const char *path, const Tensor *t, size_t n, const char *const *meta, TensorFetch fetch,
                      void *ctx, Err *e) {
    void *sorted, *buf = NULL;
    size_t size;
    TRY(mem_mul(&size, n, sizeof(Tensor *), "tensor list", e));
    TRY(mem_alloc(&sorted, size, "tensor list", e));
    const Tensor **order = sorted;
    JsonOut o = {0};
    int rc = OK;
    for (size_t i = 0; i < n && !rc; i++) {
        order[i] = &t[i];
        rc = check_tensor(path, &t[i], &size, e);
    }
    if (!rc) rc = sort_tensors(path, order, n, e);
    if (!rc) rc = put_header(&o, path, order, n, meta, e);
    if (!rc && fetch) rc = mem_alloc(&buf, PIECE, "write buffer", e);
    if (!rc) rc = put_file(path, order, n, &o, fetch, ctx, buf, e);
    json_out_free(&o);
    mem_free(buf);
    mem_free(sorted);
    return rc;
}
