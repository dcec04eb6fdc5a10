/* err.h - how everything in this project fails: an int code and one line for a person.
 *
 * A function that can fail returns int (OK = 0) and takes `Err *e` last. The library never prints and never exits;
 * tools/ prints the line and exits with the code, so the codes ARE the documented exit codes. The first error wins:
 * a later err_set() on an Err that already holds one is ignored, so clean-up code cannot hide the cause. */
#ifndef HYB_ERR_H
#define HYB_ERR_H

enum {
    OK = 0,
    ERR_CHECK = 1,    /* a check ran and did not pass: gradcheck, diff, verify                     */
    ERR_USAGE = 2,    /* command line or configuration                                             */
    ERR_INPUT = 3,    /* a file is malformed, contradictory or not supported                       */
    ERR_IO = 4,       /* missing file, no permission, disk full, I/O error                         */
    ERR_MEMORY = 5,   /* an allocation failed                                                      */
    ERR_NUMERIC = 6,  /* NaN, Inf or divergence                                                    */
    ERR_DEVICE = 7,   /* CUDA error or no device                                                   */
    ERR_SIGINT = 130, /* stopped by SIGINT, after a checkpoint was written                       */
    ERR_SIGTERM = 143 /* the same for SIGTERM                                                    */
};

typedef struct {
    int code;
    char msg[768];  /* "FILE: thing: got X, expected Y"; never contains a newline */
    char hint[256]; /* what to do about it; may be empty                          */
} Err;

/* Sets *e unless it already holds an error; returns code (so: return err_set(e, ERR_INPUT, "...")). e may be NULL. */
int err_set(Err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Adds the hint line if none is set yet; returns e->code. */
int err_hint(Err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts "prefix: " before the message, e.g. the file that a deeper function does not know; returns e->code. */
int err_prefix(Err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define TRY(x)                                                                                                         \
    do {                                                                                                               \
        int try_rc_ = (x);                                                                                             \
        if (try_rc_) return try_rc_;                                                                                   \
    } while (0)

#endif
