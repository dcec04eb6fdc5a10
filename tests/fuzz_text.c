/* fuzz_text.c - any bytes as a text: what they are, and the documents that the one door for text makes of them, or one
 * line and no document. The first byte says which member holds the text and what separates documents. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/mem.h"
#include "base/what_is.h"
#include "text/corpus.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every document lies in the file, or is shorter than it (JSON's escapes only shorten), twice the same. */
static void use(const char *path, const CorpusForm *form, size_t size) {
    Corpus c;
    Err e = {0};
    size_t count[2] = {0, 0};
    if (corpus_open(&c, path, form, &e)) {
        if (!e.msg[0] || strchr(e.msg, '\n')) abort();
        return;
    }
    for (int again = 0; again < 2; again++) {
        const char *s = "";
        size_t n;
        int rc = OK;
        corpus_rewind(&c);
        while (!rc && s) {
            e = (Err){0};
            rc = corpus_next(&c, &s, &n, &e);
            if (rc && !e.msg[0]) abort();
            if (!rc && s && (!n || n > size)) abort();
            count[again] += !rc && s;
        }
        e = (Err){0};
        if (!rc && corpus_check(&c, &e) && !e.msg[0]) abort();
    }
    if (count[0] != count[1]) abort();
    corpus_close(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int fd = -1;
    const size_t before = mem_now();
    char path[64];
    if (!size) return 0;
    const CorpusForm form = {data[0] & 1 ? "body" : NULL, data[0] & 2 ? "\\n\\n" : data[0] & 4 ? "<|end|>" : NULL};
    if ((unsigned)what_is(data + 1, size - 1) >= IS_KINDS) abort();
    if (!what_is_text(what_is(data + 1, size - 1))[0]) abort();
    if (fd < 0) fd = memfd_create("text", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, data + 1, size - 1, 0) != (ssize_t)size - 1) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    use(path, &form, size);
    if (mem_now() != before) abort();
    return 0;
}
