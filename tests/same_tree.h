/* same_tree.h - two run directories hold the same numbers, whatever the time was. */
#ifndef HYB_SAME_TREE_H
#define HYB_SAME_TREE_H
#include <check.h>
#include <string.h>
#include "base/file.h"
#include "base/mem.h"

static void must(int rc, const Err *e) {
    if (rc) ck_abort_msg("code %d: %s (%s)", rc, e->msg, e->hint);
}

static int ends_in(const char *s, const char *end) {
    return strlen(s) >= strlen(end) && !strcmp(s + strlen(s) - strlen(end), end);
}

/* A file without the lines that tell time, memory and checksums of such lines. */
static char *timeless(const char *path) {
    File f;
    Err e = {0};
    char *text;
    must(file_open(&f, path, &e), &e);
    must(mem_strndup(&text, (const char *)f.data, f.size, &e), &e);
    file_close(&f);
    if (ends_in(path, ".safetensors") || ends_in(path, ".tok")) return text;
    char *to = text;
    for (char *p = text, *next; *p; p = next) {
        next = p + strcspn(p, "\n");
        next += *next == '\n';
        const char c = *next;
        *next = 0;
        const int timed = strstr(p, "second") || strstr(p, "time") || strstr(p, "tok_per_s") || strstr(p, "peak") ||
                          strstr(p, "crc32c") || strstr(p, "bytes") || strstr(p, "resume");
        const size_t len = strlen(p);
        if (!timed) memmove(to, p, len), to += len;
        *next = c;
    }
    *to = 0;
    return text;
}

static const char *const same_names[] = {"model.safetensors", "config.json",  "tokenizer.json", "weights.safetensors",
                                         "optim.safetensors", "ranking.json", "trajectory.csv", "results.json",
                                         "text.tok",          "probe.csv"};

/* What decides and what results is the same in both trees, byte for byte but for times. Returns how many files. */
static int same_tree(const char *a, const char *b, const char *why) {
    char **names, x[1024], y[1024];
    size_t n;
    int count = 0;
    Err e = {0};
    must(file_list(&names, &n, a, &e), &e);
    for (size_t i = 0; i < n; i++) {
        must(file_join(x, sizeof x, a, names[i], &e), &e);
        must(file_join(y, sizeof y, b, names[i], &e), &e);
        if (file_exists(x) == 2) count += same_tree(x, y, why);
        int look = strstr(x, "/scores/") != NULL;
        for (size_t k = 0; k < sizeof same_names / sizeof *same_names; k++) look |= !strcmp(names[i], same_names[k]);
        if (!look || file_exists(x) != 1) continue;
        ck_assert_msg(file_exists(y) == 1, "%s: %s is missing", why, y);
        char *s = timeless(x), *t = timeless(y);
        ck_assert_msg(!strcmp(s, t) || ends_in(x, ".safetensors") || ends_in(x, ".tok"),
                      "%s: %s differs from the undisturbed run", why, y);
        mem_free(s);
        mem_free(t);
        if (ends_in(x, ".safetensors") || ends_in(x, ".tok")) {
            File f, g;
            must(file_open(&f, x, &e), &e);
            must(file_open(&g, y, &e), &e);
            ck_assert_msg(f.size == g.size && !memcmp(f.data, g.data, f.size),
                          "%s: %s differs from the undisturbed run", why, y);
            file_close(&f);
            file_close(&g);
        }
        count++;
    }
    file_list_free(names, n);
    return count;
}

#endif
