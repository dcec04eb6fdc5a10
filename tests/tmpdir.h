/* tmpdir.h - a directory for a test to write into: under $TMPDIR, else under build/, removed by tmpdir_end. */
#ifndef HYB_TMPDIR_H
#define HYB_TMPDIR_H
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/file.h"

static char tmpdir[512];

static inline void tmpdir_begin(void) {
    const char *base = getenv("TMPDIR") ? getenv("TMPDIR") : "build";
    Err e = {0};
    ck_assert_msg(!file_mkdirs(base, &e), "%s", e.msg);
    snprintf(tmpdir, sizeof tmpdir, "%s/unit-XXXXXX", base);
    ck_assert_ptr_nonnull(mkdtemp(tmpdir));
}

/* The same by its whole path, for programs that are started elsewhere. */
static inline void tmpdir_begin_absolute(void) {
    tmpdir_begin();
    char *full = realpath(tmpdir, NULL);
    ck_assert_ptr_nonnull(full);
    snprintf(tmpdir, sizeof tmpdir, "%s", full);
    free(full);
}

static inline void tmpdir_end(void) {
    Err e = {0};
    ck_assert_msg(!file_remove_tree(tmpdir, &e), "%s", e.msg);
}

/* dir/name; the next call but three overwrites it. */
static inline const char *tmpdir_path(const char *name) {
    static char path[4][640];
    static unsigned k;
    char *p = path[k++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", tmpdir, name);
    return p;
}

#endif
