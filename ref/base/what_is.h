/* what_is.h - what a file seems to be by its first bytes, for every "this is not X": a user who gave another file than
 * the one that was meant reads what he gave and what to do with it, not what a parser stumbled on.
 *
 * Magic numbers: Git LFS (git-lfs docs/spec.md), GGUF (ggml docs/gguf.md), ZIP (APPNOTE 4.3.7), pickle (Python's
 * pickletools, PROTO), gzip (RFC 1952), zstd (RFC 8878), xz (its file format 2.1.1.1), bzip2, tar (POSIX ustar),
 * Parquet ("PAR1"), Arrow ("ARROW1"), HDF5, NumPy, PDF, ELF, byte order marks (Unicode 23.8). */
#ifndef HYB_WHAT_IS_H
#define HYB_WHAT_IS_H
#include <stddef.h>
#include "base/err.h"

typedef enum {
    IS_UNKNOWN, /* none of the others; may well be text */
    IS_EMPTY,
    IS_JSON, /* begins as an object or an array does */
    IS_SAFETENSORS,
    IS_GGUF,
    IS_SHARD, /* our own token shard */
    IS_LFS,
    IS_HTML,
    IS_ZIP,
    IS_PICKLE,
    IS_GZIP,
    IS_ZSTD,
    IS_XZ,
    IS_BZIP2,
    IS_TAR,
    IS_7Z,
    IS_PARQUET,
    IS_ARROW,
    IS_HDF5,
    IS_NUMPY,
    IS_PDF,
    IS_ELF,
    IS_UTF16,
    IS_UTF32,
    IS_BINARY, /* has NUL bytes in front */
    IS_KINDS
} WhatIs;

WhatIs what_is(const void *data, size_t size); /* of the first bytes, 512 are enough */
WhatIs what_is_file(const char *path);         /* IS_UNKNOWN where it cannot be read */
const char *what_is_text(WhatIs is);           /* "a Git LFS pointer, not the data itself" */
/* ERR_INPUT: "PATH: is a Git LFS pointer, not the data itself, expected WANTED", and the next step as hint.
 * wanted may be NULL. */
int what_is_refuse(WhatIs is, const char *path, const char *wanted, Err *e);

#endif
