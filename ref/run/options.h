/* options.h - settings with names: one table per options struct serves the command line (--set key=value),
 * configuration files, run.json and --help. Keys are those of the official YAML files where one exists;
 * a dot stands for one level of nesting. */
#ifndef HYB_OPTIONS_H
#define HYB_OPTIONS_H
#include <stddef.h>
#include "base/json.h"

typedef enum {
    OPT_INT,    /* int in [lo, hi] */
    OPT_I64,    /* int64_t in [lo, hi] */
    OPT_U64,    /* uint64_t */
    OPT_REAL,   /* finite double in [lo, hi] */
    OPT_BOOL,   /* int 0/1: true, false, 1, 0 */
    OPT_TEXT,   /* char[hi] */
    OPT_CHOICE, /* int: index into choices, "norm|squared" */
    OPT_PATH,   /* char[hi]: a file or directory; in a configuration file it is relative to that file */
    OPT_PATHS   /* char[hi]: such paths with commas between them; - is standard input */
} OptionKind;
/* What changes when an option changes; a row may name several. What a stage makes is kept under a key: the hash of
 * every option that affects it or what it is made from (options_key). A row without an entry is 0, which
 * options_check refuses. */
enum {
    AFFECTS_LOOKS = 1,       /* no number: paths, threads, how often to save */
    AFFECTS_DATA = 2,        /* the text as tokens */
    AFFECTS_STAGE1 = 4,      /* the stage-1 student, and all that begins with it */
    AFFECTS_SCORES = 8,      /* scores of layers */
    AFFECTS_SELECTION = 16,  /* which layers are chosen; scores that are there stay */
    AFFECTS_STUDENTS = 32,   /* stages 2 and 3 */
    AFFECTS_EVALUATION = 64, /* what is measured of a finished model */
    AFFECTS_MODEL = 128,     /* how the finished model is written */
    /* with others: the row is younger than runs that should go on, so at 0, its default and what was done without it,
     * it is in no key; so is an empty text */
    AFFECTS_IF_SET = 256
};

typedef struct {
    const char *key, *help;
    OptionKind kind;
    size_t offset; /* in the struct */
    double lo, hi;
    const char *choices;
    unsigned affects; /* AFFECTS_...; never 0 */
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
/* h continued with key and value of every row that affects one of `affects`; of a path only whether there is one, since
 * what lies there counts by its bytes, wherever it is. */
uint64_t options_key(const OptionTable *t, const void *options, unsigned affects, uint64_t h);
/* First row that affects one of `affects` and differs in what options_key counts, NULL if none. AFFECTS_NUMBERS: all
 * but looks. */
enum { AFFECTS_NUMBERS = ~AFFECTS_LOOKS };
const Option *options_differ(const OptionTable *t, const void *a, const void *b, unsigned affects);
/* ERR_USAGE naming a row that does not say what it affects. */
int options_check(const OptionTable *t, Err *e);
const Option *options_find(const OptionTable *t, const char *key);

#endif
