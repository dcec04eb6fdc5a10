/* gguf_write.c - see gguf_write.h. */
#include "io/gguf_write.h"
#include "io/hf.h"
#include "base/mem.h"
#include "io/gguf.h"
#include <string.h>

enum { ALIGNMENT = 32, PIECE = 4 << 20 };

static void put_u(TextBuf *b, uint64_t v, int bytes) {
    char text[8];
    for (int i = 0; i < bytes; i++) text[i] = (char)(v >> 8 * i);
    textbuf_put(b, text, (size_t)bytes);
}
static void put_text(TextBuf *b, const char *s, size_t n) {
    put_u(b, n, 8);
    textbuf_put(b, s, n);
}
static void put_key(GgufOut *g, const char *key, GgufType type) {
    put_text(&g->pairs, key, strlen(key));
    put_u(&g->pairs, (uint64_t)type, 4);
    g->n++;
}

void gguf_out_u32(GgufOut *g, const char *key, uint32_t v) {
    put_key(g, key, GGUF_U32);
    put_u(&g->pairs, v, 4);
}
void gguf_out_f32(GgufOut *g, const char *key, float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    put_key(g, key, GGUF_F32);
    put_u(&g->pairs, u, 4);
}
void gguf_out_bool(GgufOut *g, const char *key, int v) {
    put_key(g, key, GGUF_BOOL);
    put_u(&g->pairs, v != 0, 1);
}
void gguf_out_str(GgufOut *g, const char *key, const char *s, size_t n) {
    put_key(g, key, GGUF_STRING);
    put_text(&g->pairs, s, n);
}
void gguf_out_array(GgufOut *g, const char *key, GgufOutType element, size_t n) {
    put_key(g, key, GGUF_ARRAY);
    put_u(&g->pairs, (uint64_t)element, 4);
    put_u(&g->pairs, n, 8);
}
void gguf_out_item_i32(GgufOut *g, int v) { put_u(&g->pairs, (uint32_t)v, 4); }
void gguf_out_item_bool(GgufOut *g, int v) { put_u(&g->pairs, v != 0, 1); }
void gguf_out_item_str(GgufOut *g, const char *s, size_t n) { put_text(&g->pairs, s, n); }
void gguf_out_free(GgufOut *g) {
    textbuf_free(&g->pairs);
    g->n = 0;
}

static size_t padded(size_t n) { return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* Everything before the data, padding included. */
static int header(TextBuf *b, const GgufOut *g, const char *path, const Tensor *t, size_t n, Err *e) {
    size_t offset = 0;
    textbuf_put(b, "GGUF", 4);
    put_u(b, 3, 4);
    put_u(b, n, 8);
    put_u(b, g->n, 8);
    textbuf_put(b, g->pairs.text, g->pairs.len);
    for (size_t i = 0; i < n; offset += padded(t[i++].bytes)) {
        const int type = t[i].dtype == DT_F32    ? GGML_F32
                         : t[i].dtype == DT_F16  ? GGML_F16
                         : t[i].dtype == DT_BF16 ? GGML_BF16
                                                 : -1;
        if (type < 0 || t[i].rank < 1 || t[i].rank > GGUF_MAX_RANK)
            return err_set(e, ERR_USAGE, "%s: tensor '%.200s' cannot be written: its type or rank", path, t[i].name);
        put_text(b, t[i].name, strlen(t[i].name));
        put_u(b, (uint64_t)t[i].rank, 4);
        for (int d = t[i].rank - 1; d >= 0; d--) put_u(b, t[i].shape[d], 8);
        put_u(b, (uint64_t)type, 4);
        put_u(b, offset, 8);
    }
    while (b->len % ALIGNMENT && !b->failed) textbuf_put(b, "", 1);
    return textbuf_end(b, e);
}

static int data_write(FileWriter *w, const Tensor *t, TensorFetch fetch, void *ctx, void *buf, Err *e) {
    static const char zero[ALIGNMENT];
    for (size_t at = 0; at < t->bytes; at += PIECE) {
        const size_t n = t->bytes - at < PIECE ? t->bytes - at : PIECE;
        TRY(fetch(ctx, t, at, buf, n, e));
        TRY(tensor_piece_finite(t, at, buf, n, w->path, e));
        TRY(file_write(w, buf, n, e));
    }
    return file_write(w, zero, padded(t->bytes) - t->bytes, e);
}

int gguf_write(const char *path, GgufOut *g, const Tensor *t, size_t n, TensorFetch fetch, void *ctx, Err *e) {
    TextBuf head = {0};
    FileWriter w;
    void *buf = NULL;
    int rc = textbuf_end(&g->pairs, e);
    if (!rc) rc = header(&head, g, path, t, n, e);
    if (!rc) rc = mem_alloc(&buf, PIECE, "write buffer", e);
    if (!rc) {
        rc = file_create(&w, path, e);
        if (!rc) {
            rc = file_write(&w, head.text, head.len, e);
            for (size_t i = 0; i < n && !rc; i++) rc = data_write(&w, &t[i], fetch, ctx, buf, e);
            if (rc) file_abort(&w);
            else rc = file_commit(&w, e);
        }
    }
    mem_free(buf);
    textbuf_free(&head);
    return rc;
}
