/* safetensors.h - read (mapped, fully validated) and write .safetensors files; every rule of ref/io/FORMATS.md 3.
 *
 * Reading checks, in order: >= 8 bytes, header length <= 100 MB and inside the file, strict JSON object, __metadata__
 * string map, per tensor known dtype, shape (rank <= 8, dims < 2^48), data_offsets; entries sorted by offset leave no
 * hole and no overlap, sizes match shape x dtype with checked arithmetic, and the last byte of the file is the last
 * byte of data.
 * Refused beyond the reference: duplicate keys, rank > 8, more than 10^6 tensors, names over 4 KiB, __metadata__ over 4
 * MiB, an entry over 64 KiB. A header is read entry by entry: memory is at most about the size of the header beside the
 * map, for any content. */
#ifndef HYB_SAFETENSORS_H
#define HYB_SAFETENSORS_H
#include <stddef.h>
#include "base/err.h"
#include "base/file.h"
#include "base/dtype.h"

enum { TENSOR_MAX_RANK = 8 };
typedef struct {
    const char *name; /* owned by the Safetensors it came from */
    DType dtype;
    int rank;
    size_t shape[TENSOR_MAX_RANK];
    size_t count, bytes;       /* elements, bytes */
    const unsigned char *data; /* into the map; may be unaligned */
} Tensor;

typedef struct {
    File file;
    char path[1024];
    Tensor *tensor; /* in file (offset) order */
    size_t n;
    size_t header_bytes;
    char **meta_key, **meta_value; /* __metadata__ */
    size_t n_meta;
    void *index; /* name -> tensor hash */
    char *names;
} Safetensors;

int safetensors_open(Safetensors *s, const char *path, Err *e); /* s is zeroed on failure */
/* The same on bytes in memory (fuzzing); data must outlive s. */
int safetensors_parse(Safetensors *s, const unsigned char *data, size_t size, const char *path, Err *e);
void safetensors_close(Safetensors *s);
const Tensor *safetensors_find(const Safetensors *s, const char *name); /* NULL if absent; O(1) */

/* Writing: the order is dtype alignment descending, then name; header padded with spaces to 8 bytes;
 * metadata always holds
 * {"format":"pt"} plus the given pairs, keys sorted. Atomic. Saving the same tensors twice gives identical bytes.
 * fetch copies `bytes` bytes of tensor t from byte `offset` into buf (called in pieces of <= 4 MB); NULL fetch:
 * t->data is host memory. */
typedef int (*TensorFetch)(void *ctx, const Tensor *t, size_t offset, void *buf, size_t bytes, Err *e);
int safetensors_write(const char *path, const Tensor *t, size_t n,
                      const char *const *meta /* k,v,k,v,...,NULL or NULL */, TensorFetch fetch, void *ctx, Err *e);

#endif
