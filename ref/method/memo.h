/* memo.h - what the method keeps between two starts of one run, and all that it knows of the world around it.
 *
 * A record is a struct; a table of fields says what is in it. Whoever runs the method decides where records and
 * training states lie, what a run depends on, and how a stopped one goes on (run/memo.h is that for a run directory).
 * */
#ifndef HYB_MEMO_H
#define HYB_MEMO_H
#include "method/train.h"

typedef enum {
    FIELD_INT,    /* int */
    FIELD_BOOL,   /* int, 0 or 1 */
    FIELD_I64,    /* int64_t >= 0 */
    FIELD_SIZE,   /* size_t */
    FIELD_REAL,   /* double; NAN is a value */
    FIELD_TEXT,   /* char[cap] */
    FIELD_REALS,  /* double[cap], of which an int at `count` says how many are used */
    FIELD_INTS,   /* int[cap], the same */
    FIELD_SET,    /* int[cap], 0 or 1 for each of `count`: kept as the list of those that are 1 */
    FIELD_NAMED,  /* double[cap] by name: the names are the ints at `names` */
    FIELD_RECORDS /* structs of `of`, `count` of them */
} FieldKind;
/* When a field may be absent, and what it is then. */
typedef enum { FIELD_ALWAYS, FIELD_OR_NAN, FIELD_OR_ZERO } FieldAbsent;
typedef struct Record Record;
typedef struct {
    const char *key;
    FieldKind kind;
    size_t at, count; /* offsets of the value, and of the int that counts an array */
    int cap;
    FieldAbsent absent;
    size_t names;
    const Record *of;
} Field;
struct Record {
    const Field *field;
    int n;
    size_t size; /* of the struct */
};

/* get's answer for a piece that is made elsewhere, not here and now: the caller ends with it as with an error, but
 * nothing has failed. */
enum { MEMO_ELSEWHERE = -1 };

typedef struct Memo Memo;
struct Memo {
    /* *found = 1 and the record as it was put under this name and index (-1: none), else *found = 0: the piece is now
     * this process's to make and put. Where several share a run, get waits as long as another is making it. */
    int (*get)(Memo *m, const char *name, int index, const Record *type, void *record, int *found, Err *e);
    /* The same without waiting: *found = -1 while another is making it. */
    int (*try_get)(Memo *m, const char *name, int index, const Record *type, void *record, int *found, Err *e);
    /* The same, but the piece is not taken: *found is 0 or 1. */
    int (*look)(Memo *m, const char *name, int index, const Record *type, void *record, int *found, Err *e);
    /* Appears whole or not at all, and is nobody's from then on. */
    int (*put)(Memo *m, const char *name, int index, const Record *type, const void *record, Err *e);
    /* Trains the task up to step `until` (0: the last), or goes on where a stopped start left it. Waits as get does. */
    int (*train)(Memo *m, const char *name, int index, const Task *task, const StageOptions *stage, int64_t until,
                 TrainResult *result, Err *e);
    /* Drops the training state of that name and index, or with index -1 everything that begins with name. */
    int (*drop)(Memo *m, const char *name, int index, Err *e);
    /* A finished table of its own, for whoever draws it: "scores-exhaustive/sets.csv". */
    int (*text)(Memo *m, const char *name, const char *text, size_t n, Err *e);
    /* The signal's number once a stop was asked for, else 0. */
    int (*stopped)(const Memo *m);
    /* Whether others work on this run now, and may still read what this process needs no more. */
    int (*shared)(const Memo *m);
};

#endif
