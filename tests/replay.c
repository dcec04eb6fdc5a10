/* replay.c - fuzzing's errands. Linked with one fuzz_*.c:
 *   replay FILE|DIRECTORY|NAME.pack...   runs the target over them (what fuzzing found stays found)
 *   replay -x DIRECTORY NAME.pack        unpacks    (fuzz_pack.h)
 *   replay -c NAME.pack DIRECTORY        packs, in the order of the file names */
#include "base/file.h"
#include "base/mem.h"
#include "tests/fuzz_pack.h"
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static long files;

/* The target gets a block of exactly the input's size, so that the address sanitizer sees a read beyond its end. */
static int replay_bytes(const unsigned char *data, size_t n, const char *path, Err *e) {
    void *copy;
    TRY(mem_alloc(&copy, n, path, e));
    if (n) memcpy(copy, data, n);
    LLVMFuzzerTestOneInput(copy, n);
    mem_free(copy);
    files++;
    return OK;
}

static int ends_in(const char *s, const char *end) {
    return strlen(s) >= strlen(end) && !strcmp(s + strlen(s) - strlen(end), end);
}

static int replay_file(const char *path, Err *e) {
    File f;
    TRY(file_open(&f, path, e));
    fprintf(stderr, "\r%s%20s", path, ""); /* the last name on the screen is the culprit of a crash */
    int rc = OK, more = 0;
    size_t at = 0, n;
    const unsigned char *data;
    if (!ends_in(path, ".pack")) rc = replay_bytes(f.data, f.size, path, e);
    else
        while (!rc && (more = pack_next(&f, &at, &data, &n)) > 0) rc = replay_bytes(data, n, path, e);
    if (more < 0) rc = err_set(e, ERR_INPUT, "%s: damaged", path);
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

static int unpack(const char *dir, const char *pack, Err *e) {
    File f;
    TRY(file_mkdirs(dir, e));
    TRY(file_open(&f, pack, e));
    int rc = OK, more = 1;
    size_t at = 0, n;
    for (const unsigned char *data; !rc && (more = pack_next(&f, &at, &data, &n)) > 0; files++) {
        char path[1200];
        snprintf(path, sizeof path, "%.1000s/seed-%05ld", dir, files);
        FILE *out = fopen(path, "wb"); // no atomic write: thousands of files
        if (!out || fwrite(data, 1, n, out) != n) rc = err_set(e, ERR_IO, "%s: cannot write", path);
        if (out) fclose(out);
    }
    if (more < 0) rc = err_set(e, ERR_INPUT, "%s: damaged", pack);
    file_close(&f);
    return rc;
}

static int pack_dir(FileWriter *w, const char *dir, Err *e) {
    char child[1024], **name;
    size_t n;
    TRY(file_list(&name, &n, dir, e));
    int rc = OK;
    for (size_t i = 0; i < n && !rc; i++) {
        File f;
        if ((rc = file_join(child, sizeof child, dir, name[i], e)) || (rc = file_open(&f, child, e))) break;
        const unsigned char head[4] = {(unsigned char)f.size, (unsigned char)(f.size >> 8),
                                       (unsigned char)(f.size >> 16), (unsigned char)(f.size >> 24)};
        rc = file_write(w, head, 4, e);
        if (!rc) rc = file_write(w, f.data, f.size, e);
        file_close(&f);
        files++;
    }
    file_list_free(name, n);
    return rc;
}

static int pack(const char *path, const char *dir, Err *e) {
    FileWriter w;
    TRY(file_create(&w, path, e));
    const int rc = pack_dir(&w, dir, e);
    if (!rc) return file_commit(&w, e);
    file_abort(&w);
    return rc;
}

int main(int argc, char **argv) {
    Err e = {0};
    if (argc == 4 && !strcmp(argv[1], "-x")) unpack(argv[2], argv[3], &e);
    else if (argc == 4 && !strcmp(argv[1], "-c")) pack(argv[2], argv[3], &e);
    else
        for (int i = 1; i < argc; i++)
            if (file_exists(argv[i]) == 2 ? replay_dir(argv[i], &e) : replay_file(argv[i], &e)) break;
    fprintf(stderr, "\n");
    if (e.code) fprintf(stderr, "replay: error: %s\n", e.msg);
    else printf("%s: %ld inputs, no failure\n", argv[0], files);
    return e.code || !files;
}
