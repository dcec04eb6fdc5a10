/* replay.c - runs a fuzz target over files: replay FILE|DIRECTORY... (linked with one fuzz_*.c). What fuzzing found stays found. */
#include "base/file.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static long files;

/* The target gets a block of exactly the file's size, so that the address sanitizer sees a read beyond its end. */
static int replay_file(const char *path, Err *e) {
    File f;
    void *copy;
    TRY(file_open(&f, path, e));
    int rc = mem_alloc(&copy, f.size, path, e);
    if (!rc) {
        memcpy(copy, f.data, f.size);
        fprintf(stderr, "\r%s%20s", path, ""); /* the last name on the screen is the culprit of a crash */
        LLVMFuzzerTestOneInput(copy, f.size);
        mem_free(copy);
        files++;
    }
    file_close(&f);
    return rc;
}

static int replay_dir(const char *path, Err *e) {
    char child[1024], **name;
    size_t n;
    TRY(file_list(&name, &n, path, e));
    int rc = OK;
    for (size_t i = 0; i < n && !rc; i++) {
        rc = file_join(child, sizeof child, path, name[i], e);
        if (!rc && file_exists(child) == 1) rc = replay_file(child, e);
    }
    file_list_free(name, n);
    return rc;
}

int main(int argc, char **argv) {
    Err e = {0};
    for (int i = 1; i < argc; i++)
        if (file_exists(argv[i]) == 2 ? replay_dir(argv[i], &e) : replay_file(argv[i], &e)) break;
    fprintf(stderr, "\n");
    if (e.code) fprintf(stderr, "replay: error: %s\n", e.msg);
    else printf("%s: %ld files, no failure\n", argv[0], files);
    return e.code || !files;
}
