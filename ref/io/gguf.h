/* gguf.h - read (mapped, fully validated) and write GGUF files, the format of llama.cpp: versions 2 and 3,
 * little-endian.
 *
 * Layout (ggml's docs/gguf.md): "GGUF", u32 version, u64 tensors, u64 pairs; the pairs (string key, u32 type, value);
 * the tensors (string name, u32 rank, u64 sizes with the fastest first, u32 type, u64 offset); padding;
 * the data, every tensor at a multiple of general.alignment (default 32). Everything in a file is untrusted:
 * each length is compared with the bytes that are left before it is used,
 * nothing is allocated from a count that the file is too short for, and a file is taken only if its tensors,
 * in the order of their offsets, follow each other with nothing but padding between and behind them.
 * Refused beyond the format: arrays of arrays, more than 65,536 pairs or tensors, rank > 4, names over 255 bytes,
 * names given twice, NUL or invalid UTF-8 in a name or key, an alignment that is no power of two or over 1 MiB,
 * big-endian files, version 1. */
#ifndef HYB_GGUF_H
#define HYB_GGUF_H
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/file.h"

typedef enum { /* of a value */
               GGUF_U8,
               GGUF_I8,
               GGUF_U16,
               GGUF_I16,
               GGUF_U32,
               GGUF_I32,
               GGUF_F32,
               GGUF_BOOL,
               GGUF_STRING,
               GGUF_ARRAY,
               GGUF_U64,
               GGUF_I64,
               GGUF_F64,
               GGUF_TYPES
} GgufType;
typedef enum { /* of a tensor: ggml's numbers */
               GGML_F32 = 0,
               GGML_F16 = 1,
               GGML_Q4_0 = 2,
               GGML_Q4_1 = 3,
               GGML_Q5_0 = 6,
               GGML_Q5_1 = 7,
               GGML_Q8_0 = 8,
               GGML_Q4_K = 12,
               GGML_Q6_K = 14,
               GGML_BF16 = 30
} GgmlType;

typedef struct {
    const char *key; /* key_len bytes in the file, not NUL-terminated */
    size_t key_len;
    GgufType type, element; /* element: of an array */
    size_t n;               /* elements of an array, bytes of a string, else 1 */
    const unsigned char *data;
    size_t bytes; /* from data to the end of the value */
} GgufValue;

enum { GGUF_MAX_RANK = 4 };
typedef struct {
    const char *name; /* len bytes in the file, not NUL-terminated */
    size_t len;
    GgmlType type;
    int rank;
    size_t shape[GGUF_MAX_RANK]; /* as everywhere here: the last one is the fastest */
    size_t count, bytes;         /* elements, bytes */
    const unsigned char *data;   /* into the map; may be unaligned */
} GgufTensor;

typedef struct {
    File file;
    char path[1024];
    int version;
    GgufValue *value; /* sorted by key */
    size_t n_values;
    GgufTensor *tensor; /* sorted by name */
    size_t n;
} Gguf;

int gguf_open(Gguf *g, const char *path, Err *e); /* g is zeroed on failure */
/* The same on bytes in memory (fuzzing); data must outlive g. */
int gguf_parse(Gguf *g, const unsigned char *data, size_t size, const char *path, Err *e);
void gguf_close(Gguf *g);
const GgufTensor *gguf_find(const Gguf *g, const char *name); /* NULL if absent */
const GgufValue *gguf_get(const Gguf *g, const char *key);    /* NULL if absent */

/* Typed access: *out is left as it was when the key is absent. ERR_INPUT names file, key, found and wanted.
 * Integers of any width and sign count as integers, integers and both float types as reals (finite only).
 * Strings point into the file: not NUL-terminated. */
int gguf_opt_int(const Gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out, Err *e);
int gguf_opt_real(const Gguf *g, const char *key, double *out, Err *e);
int gguf_opt_bool(const Gguf *g, const char *key, int *out, Err *e);
int gguf_opt_str(const Gguf *g, const char *key, const char **out, size_t *len, Err *e);
/* The array `key` with elements of this type (GGUF_I32 takes U32 as well). */
int gguf_want_array(const Gguf *g, const char *key, GgufType element, const GgufValue **out, Err *e);
/* The next string of an array of strings: *at is 0 before the first; the caller stops after v->n of them. */
void gguf_next_str(const GgufValue *v, size_t *at, const char **s, size_t *len);
int64_t gguf_int_at(const GgufValue *v, size_t i); /* of an array of integers or bools */
double gguf_real_at(const GgufValue *v, size_t i); /* of an array of floats */

/* ---- tensor types ---- */

const char *ggml_name(GgmlType t); /* "Q4_1"; NULL if not supported here */
/* Also of a type that is not supported (ggml.h, enum ggml_type); NULL for a number that no type has. */
const char *ggml_any_name(uint64_t type);
size_t ggml_block(GgmlType t); /* elements of a block: rows are whole blocks; 0 if not supported here */
size_t ggml_block_bytes(GgmlType t);
/* out[i] = element first + i of t, for i < n; first and n are multiples of ggml_block.
 * The formulas are ggml's (ggml-quants.c, dequantize_row_*): float32 arithmetic, each block scale read as float16. */
void gguf_dequantise(float *out, const GgufTensor *t, size_t first, size_t n);
/* The same of n rows of bytes, for tests and for the writer's checks. */
void ggml_dequantise(float *out, GgmlType type, const unsigned char *data, size_t n);

#endif
