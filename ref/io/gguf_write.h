/* gguf_write.h - writing GGUF version 3. */
#ifndef HYB_GGUF_WRITE_H
#define HYB_GGUF_WRITE_H
#include "base/text_buf.h"
#include "io/safetensors.h"

/* The metadata, put together in memory. Zero-initialise; free with gguf_out_free. A failed allocation is reported by
 * gguf_write. */
typedef struct {
    TextBuf pairs;
    size_t n;
} GgufOut;
void gguf_out_u32(GgufOut *g, const char *key, uint32_t v);
void gguf_out_f32(GgufOut *g, const char *key, float v);
void gguf_out_bool(GgufOut *g, const char *key, int v);
void gguf_out_str(GgufOut *g, const char *key, const char *s, size_t n);
/* An array; its elements follow: n times gguf_out_item_i32, ..._bool or ..._str. */
typedef enum { GGUF_OUT_I32 = 5, GGUF_OUT_BOOL = 7, GGUF_OUT_STR = 8 } GgufOutType;
void gguf_out_array(GgufOut *g, const char *key, GgufOutType element, size_t n);
void gguf_out_item_i32(GgufOut *g, int v);
void gguf_out_item_bool(GgufOut *g, int v);
void gguf_out_item_str(GgufOut *g, const char *s, size_t n);
void gguf_out_free(GgufOut *g);

/* Writes the file: tensors in the given order, each at a multiple of 32; shapes as ours (the last is the fastest),
 * types F32, F16, BF16. fetch as in safetensors_write. Atomic; the same input gives identical bytes. */
int gguf_write(const char *path, GgufOut *g, const Tensor *t, size_t n, TensorFetch fetch, void *ctx, Err *e);

#endif
