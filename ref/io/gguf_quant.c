/* gguf_quant.c - ggml's number formats. A block is a few scales and its elements' small integers;
 * the layouts and the order of the float operations are those of ggml-quants.c, dequantize_row_*. */
#include "base/dtype.h"
#include "io/gguf.h"
#include <string.h>

static float half(const unsigned char *p) {
    float f;
    dtype_convert(DT_F32, &f, DT_F16, p, 1);
    return f;
}

/* 32 elements: element j is in the low half of byte j, element j + 16 in the high half. */
static void q4_0(float *y, const unsigned char *p) {
    const float d = half(p);
    for (int j = 0; j < 16; j++) {
        y[j] = (float)((p[2 + j] & 15) - 8) * d;
        y[j + 16] = (float)((p[2 + j] >> 4) - 8) * d;
    }
}
static void q4_1(float *y, const unsigned char *p) {
    const float d = half(p), m = half(p + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = (float)(p[4 + j] & 15) * d + m;
        y[j + 16] = (float)(p[4 + j] >> 4) * d + m;
    }
}

/* The fifth bits of the 32 elements stand in four bytes of their own. */
static int fifth(const unsigned char *bits, int j) { return (bits[j / 8] >> j % 8 & 1) << 4; }
static void q5_0(float *y, const unsigned char *p) {
    const float d = half(p);
    for (int j = 0; j < 16; j++) {
        y[j] = (float)(((p[6 + j] & 15) | fifth(p + 2, j)) - 16) * d;
        y[j + 16] = (float)(((p[6 + j] >> 4) | fifth(p + 2, j + 16)) - 16) * d;
    }
}
static void q5_1(float *y, const unsigned char *p) {
    const float d = half(p), m = half(p + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = (float)((p[8 + j] & 15) | fifth(p + 4, j)) * d + m;
        y[j + 16] = (float)((p[8 + j] >> 4) | fifth(p + 4, j + 16)) * d + m;
    }
}
static void q8_0(float *y, const unsigned char *p) {
    const float d = half(p);
    for (int j = 0; j < 32; j++) y[j] = (float)(signed char)p[2 + j] * d;
}

/* 256 elements, eight runs of 32, each with a scale and a minimum of six bits: twelve bytes for the sixteen of them. */
static void q4_k_scale(const unsigned char *s, int run, int *scale, int *least) {
    if (run < 4) {
        *scale = s[run] & 63;
        *least = s[run + 4] & 63;
    } else {
        *scale = (s[run + 4] & 15) | s[run - 4] >> 6 << 4;
        *least = s[run + 4] >> 4 | s[run] >> 6 << 4;
    }
}
static void q4_k(float *y, const unsigned char *p) {
    const float d = half(p), m = half(p + 2);
    for (int run = 0; run < 8; run++) {
        const unsigned char *q = p + 16 + run / 2 * 32; // two runs share 32 bytes
        int scale, least;
        q4_k_scale(p + 4, run, &scale, &least);
        const float dr = d * (float)scale, mr = m * (float)least;
        for (int l = 0; l < 32; l++) y[run * 32 + l] = dr * (float)(run % 2 ? q[l] >> 4 : q[l] & 15) - mr;
    }
}

/* 256 elements in two halves of 128: per half 64 bytes of low four bits, 32 bytes of high two bits, 8 scales of 16
 * elements each. */
static void q6_k(float *y, const unsigned char *p) {
    const float d = half(p + 208);
    for (int j = 0; j < 256; j++) {
        const int side = j / 128, quarter = j % 128 / 32, l = j % 32;
        const unsigned char *low = p + side * 64 + (quarter & 1) * 32, *high = p + 128 + side * 32;
        const int bits = (quarter < 2 ? low[l] & 15 : low[l] >> 4) | (high[l] >> 2 * quarter & 3) << 4;
        const int scale = (signed char)p[192 + side * 8 + quarter * 2 + l / 16];
        y[j] = d * (float)scale * (float)(bits - 32);
    }
}

static const struct {
    GgmlType type;
    const char *name;
    size_t block, bytes;
    void (*block_read)(float *y, const unsigned char *p); /* NULL: a plain float type */
    DType plain;
} formats[] = {
    {GGML_F32, "F32", 1, 4, NULL, DT_F32},    {GGML_F16, "F16", 1, 2, NULL, DT_F16},
    {GGML_BF16, "BF16", 1, 2, NULL, DT_BF16}, {GGML_Q8_0, "Q8_0", 32, 34, q8_0, 0},
    {GGML_Q4_0, "Q4_0", 32, 18, q4_0, 0},     {GGML_Q4_1, "Q4_1", 32, 20, q4_1, 0},
    {GGML_Q5_0, "Q5_0", 32, 22, q5_0, 0},     {GGML_Q5_1, "Q5_1", 32, 24, q5_1, 0},
    {GGML_Q4_K, "Q4_K", 256, 144, q4_k, 0},   {GGML_Q6_K, "Q6_K", 256, 210, q6_k, 0},
};
enum { FORMATS = sizeof formats / sizeof *formats };

static int format(GgmlType t) {
    for (int i = 0; i < FORMATS; i++)
        if (formats[i].type == t) return i;
    return -1;
}

const char *ggml_name(GgmlType t) { return format(t) < 0 ? NULL : formats[format(t)].name; }
const char *ggml_any_name(uint64_t type) {
    static const char *const names[] = {
        "F32",        "F16",        "Q4_0",       "Q4_1",  "Q4_2",     "Q4_3",     "Q5_0",     "Q5_1",    "Q8_0",
        "Q8_1",       "Q2_K",       "Q3_K",       "Q4_K",  "Q5_K",     "Q6_K",     "Q8_K",     "IQ2_XXS", "IQ2_XS",
        "IQ3_XXS",    "IQ1_S",      "IQ4_NL",     "IQ3_S", "IQ2_S",    "IQ4_XS",   "I8",       "I16",     "I32",
        "I64",        "F64",        "IQ1_M",      "BF16",  "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0",
        "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4", "NVFP4"};
    return type < sizeof names / sizeof *names ? names[type] : NULL;
}
size_t ggml_block(GgmlType t) { return format(t) < 0 ? 0 : formats[format(t)].block; }
size_t ggml_block_bytes(GgmlType t) { return format(t) < 0 ? 0 : formats[format(t)].bytes; }

void ggml_dequantise(float *out, GgmlType type, const unsigned char *data, size_t n) {
    const int f = format(type);
    if (f < 0) return;
    if (!formats[f].block_read) {
        dtype_convert(DT_F32, out, formats[f].plain, data, n);
        return;
    }
    for (size_t i = 0; i < n; i += formats[f].block, data += formats[f].bytes) formats[f].block_read(out + i, data);
}

void gguf_dequantise(float *out, const GgufTensor *t, size_t first, size_t n) {
    ggml_dequantise(out, t->type, t->data + first / ggml_block(t->type) * ggml_block_bytes(t->type), n);
}
