/* what_is.c - see what_is.h. */
#include "base/what_is.h"
#include "base/file.h"
#include <string.h>

static const struct {
    const char *text, *hint;
} kinds[IS_KINDS] = {
    [IS_UNKNOWN] = {"something that is not recognised", ""},
    [IS_EMPTY] = {"an empty file", "a copy or a download was cut short: get the file again"},
    [IS_JSON] = {"JSON text", ""},
    [IS_SAFETENSORS] = {"a safetensors file", "give the model directory that it lies in"},
    [IS_GGUF] = {"a GGUF file", "make a model directory of it: hybridize convert --from-gguf FILE -o DIR"},
    [IS_SHARD] = {"a token shard of hybridize", "hybridize inspect says what is in it"},
    [IS_LFS] = {"a Git LFS pointer, not the data itself",
                "fetch the data: git lfs install; git lfs pull; or download the file again"},
    [IS_HTML] = {"an HTML page", "a download saved a web page in place of the file: download the file again"},
    [IS_ZIP] = {"a ZIP archive, as PyTorch's .bin, .pt and .pth files are",
                "weights: convert them to safetensors first; a packed text: unzip it"},
    [IS_PICKLE] = {"a Python pickle, as old PyTorch files are", "convert the weights to safetensors first"},
    [IS_GZIP] = {"compressed with gzip", "unpack it first: gunzip FILE"},
    [IS_ZSTD] = {"compressed with zstd", "unpack it first: zstd -d FILE"},
    [IS_XZ] = {"compressed with xz", "unpack it first: xz -d FILE"},
    [IS_BZIP2] = {"compressed with bzip2", "unpack it first: bzip2 -d FILE"},
    [IS_TAR] = {"a tar archive", "unpack it first: tar -xf FILE"},
    [IS_7Z] = {"a 7z archive", "unpack it first: 7z x FILE"},
    [IS_PARQUET] = {"a Parquet file", "write it as JSON lines first: tests/peers/parquet_to_jsonl.py does"},
    [IS_ARROW] = {"an Arrow file", "write it as JSON lines first (in Python: datasets, to_json)"},
    [IS_HDF5] = {"an HDF5 file", "convert the weights to safetensors first"},
    [IS_NUMPY] = {"a NumPy array", "convert the weights to safetensors first"},
    [IS_PDF] = {"a PDF document", "take the text out of it first: pdftotext FILE"},
    [IS_ELF] = {"a program", ""},
    [IS_UTF16] = {"UTF-16 text", "make it UTF-8 first: iconv -f UTF-16 -t UTF-8 FILE >OTHER"},
    [IS_UTF32] = {"UTF-32 text", "make it UTF-8 first: iconv -f UTF-32 -t UTF-8 FILE >OTHER"},
    [IS_BINARY] = {"binary data", ""},
};

static const struct {
    WhatIs is;
    unsigned char len;
    const char *bytes;
} magic[] = {
    {IS_SHARD, 7, "HYBTOK1"},
    {IS_LFS, 34, "version https://git-lfs.github.com"},
    {IS_LFS, 21, "version https://hawse"}, // the name of its first year: hawser
    {IS_ZIP, 4, "PK\3\4"},
    {IS_ZIP, 4, "PK\5\6"},
    {IS_GZIP, 3, "\x1f\x8b\x08"},
    {IS_ZSTD, 4, "\x28\xb5\x2f\xfd"},
    {IS_XZ, 6,
     "\xfd"
     "7zXZ\0"},
    {IS_7Z, 6, "7z\xbc\xaf\x27\x1c"},
    {IS_PARQUET, 4, "PAR1"},
    {IS_ARROW, 6, "ARROW1"},
    {IS_HDF5, 8, "\x89HDF\r\n\x1a\n"},
    {IS_NUMPY, 6, "\x93NUMPY"},
    {IS_PDF, 5, "%PDF-"},
    {IS_ELF, 4,
     "\x7f"
     "ELF"},
};

static int same_letters(const unsigned char *p, size_t n, const char *lower) {
    const size_t k = strlen(lower);
    if (n < k) return 0;
    for (size_t i = 0; i < k; i++)
        if ((p[i] | (p[i] >= 'A' && p[i] <= 'Z' ? 0x20 : 0)) != (unsigned char)lower[i]) return 0;
    return 1;
}

/* What text can be told by its first letters. */
static WhatIs text_kind(const unsigned char *p, size_t n) {
    if (n >= 3 && !memcmp(p, "\xef\xbb\xbf", 3)) p += 3, n -= 3;
    while (n && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++, n--;
    if (n && (*p == '{' || *p == '[')) return IS_JSON;
    if (same_letters(p, n, "<!doctype html") || same_letters(p, n, "<html")) return IS_HTML;
    return IS_UNKNOWN;
}

/* UTF-16 has a byte order mark, or every other byte of its Latin letters is 0. */
static WhatIs wide_text(const unsigned char *p, size_t n) {
    if (n >= 4 && (!memcmp(p, "\xff\xfe\0\0", 4) || !memcmp(p, "\0\0\xfe\xff", 4))) return IS_UTF32;
    if (n >= 2 && ((p[0] == 0xff && p[1] == 0xfe) || (p[0] == 0xfe && p[1] == 0xff))) return IS_UTF16;
    size_t zeros[2] = {0, 0};
    for (size_t i = 0; i < n; i++) zeros[i % 2] += !p[i];
    if (!zeros[0] && !zeros[1]) return IS_UNKNOWN;
    return n >= 16 && (zeros[0] * 4 > n || zeros[1] * 4 > n) && (!zeros[0] || !zeros[1]) ? IS_UTF16 : IS_BINARY;
}

WhatIs what_is(const void *data, size_t size) {
    const unsigned char *p = data;
    const size_t n = size < 512 ? size : 512;
    if (!n) return IS_EMPTY;
    // first, because its length may begin as anything does: eight bytes of it, not over 100 MB, and an object
    if (n >= 9 && p[8] == '{' && !p[4] && !p[5] && !p[6] && !p[7] && p[3] < 6) return IS_SAFETENSORS;
    for (size_t i = 0; i < sizeof magic / sizeof *magic; i++)
        if (n >= magic[i].len && !memcmp(p, magic[i].bytes, magic[i].len)) return magic[i].is;
    if (n >= 4 && !memcmp(p, "GGUF", 4) && (n < 8 || !p[5] || !p[6])) return IS_GGUF; // a version, not a word of text
    if (n >= 10 && !memcmp(p, "BZh", 3) && !memcmp(p + 4, "1AY&SY", 6)) return IS_BZIP2;
    if (n >= 3 && p[0] == 0x80 && p[1] >= 2 && p[1] <= 5 && p[2] > 0x20) return IS_PICKLE; // PROTO, then an opcode
    if (n >= 262 && !memcmp(p + 257, "ustar", 5)) return IS_TAR;
    const WhatIs wide = wide_text(p, n);
    return wide ? wide : text_kind(p, n);
}

WhatIs what_is_file(const char *path) {
    File f;
    if (file_open(&f, path, NULL)) return IS_UNKNOWN;
    const WhatIs is = what_is(f.data, f.size);
    file_close(&f);
    return is;
}

const char *what_is_text(WhatIs is) { return kinds[(unsigned)is < IS_KINDS ? is : IS_UNKNOWN].text; }

int what_is_refuse(WhatIs is, const char *path, const char *wanted, Err *e) {
    err_set(e, ERR_INPUT, "%s: is %s%s%s", path, what_is_text(is), wanted ? ", expected " : "", wanted ? wanted : "");
    if (kinds[is].hint[0]) err_hint(e, "%s", kinds[is].hint);
    return ERR_INPUT;
}
