/* options.h - settings with names: one table per options struct serves the command line (--set key=value),
 * configuration files, run.json and --help. Keys are those of the official YAML files where one exists;
 * a dot stands for one level of nesting. */
#ifndef HYB_OPTIONS_H
#define HYB_OPTIONS_H
#include <stddef.h>
#include "io/json.h"

typedef enum {
    OPT_INT,   /* int in [lo, hi] */
    OPT_I64,   /* int64_t in [lo, hi] */
    OPT_U64,   /* uint64_t */
    OPT_REAL,  /* finite double in [lo, hi] */
    OPT_BOOL,  /* int 0/1: true, false, 1, 0 */
    OPT_TEXT,  /* char[hi] */
    OPT_CHOICE /* int: index into choices, "norm|squared" */
} OptionKind;
typedef struct {
    const char *key, *help;
    OptionKind kind;
    size_t offset; /* in the struct */
    double lo, hi;
    const char *choices;
    int cosmetic; /* 1: may change when a run is resumed (paths, threads, how often to save) */
} Option;
typedef struct {
    const Option *row;
    int n;
} OptionTable;

/* ERR_USAGE: unknown key (with the nearest one as hint), or a value that does not parse or is out of range. */
int options_set(const OptionTable *t, void *options, const char *key, const char *value, Err *e);
/* Members of a JSON object, nested objects as dotted keys; arrays of scalars count as comma lists. where:
 * the file, for messages. */
int options_read(const OptionTable *t, void *options, const Json *j, JsonRef object, const char *where, Err *e);
/* All values as members of the open JSON object, nested again. */
void options_write(const OptionTable *t, const void *options, JsonOut *o);
/* One value as text, as options_set would read it. */
void options_get(const Option *row, const void *options, char *dst, size_t cap);
/* Hash of every value that is not cosmetic. */
uint64_t options_fingerprint(const OptionTable *t, const void *options);
/* First key whose non-cosmetic value differs, NULL if none. */
const Option *options_differ(const OptionTable *t, const void *a, const void *b);
const Option *options_find(const OptionTable *t, const char *key);

#endif
