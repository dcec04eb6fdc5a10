/* dtype.h - number types in files and in memory, and the one function that converts between them.
 *
 * Conversions to a narrower type round to nearest even; F16 overflow gives Inf, NaN stays NaN.
 * Exact where representable. */
#ifndef HYB_DTYPE_H
#define HYB_DTYPE_H
#include <stddef.h>

typedef enum {
    DT_BOOL,
    DT_U8,
    DT_I8,
    DT_U16,
    DT_I16,
    DT_F16,
    DT_BF16,
    DT_U32,
    DT_I32,
    DT_F32,
    DT_U64,
    DT_I64,
    DT_F64,
    DT_C64,
    DT_F8_E5M2,
    DT_F8_E4M3,
    DT_F8_E8M0,
    DT_F8_E5M2FNUZ,
    DT_F8_E4M3FNUZ,
    DT_F4,
    DT_F6_E2M3,
    DT_F6_E3M2,
    DT_COUNT
} DType;

const char *dtype_name(DType t);               /* as in safetensors: "F32", "BF16", ... */
int dtype_parse(const char *name, size_t len); /* -1 if unknown */
int dtype_bits(DType t);
/* dst[i] = (dst_type) src[i] for F16, BF16, F32, F64 in any combination; returns 0, or -1 for another type.
 * Unaligned src and dst are fine. */
int dtype_convert(DType dst_type, void *dst, DType src_type, const void *src, size_t n);

#endif
