/* opcheck.h - every op as data: its tensors, cases and tolerances; and the checks that any backend is put through.
 *
 * For each op and case (ref/ops/README.md):
 *   naive    ref64's outputs against the same formula written down a second time, differently (opcheck_naive.c)
 *   chunk    ref64's chunked form, outputs and gradients, against its recurrence
 *   diff     ref64's gradients against central differences, with random cotangents on every output (small cases)
 *   NAME     backend NAME against ref64 on the same inputs, rounded to NAME's types first.
 *            Outputs and workspace are filled with NaN,
 *            gradients with known numbers (backward must add to them, the second time again), guards stand around every
 *            buffer, inputs
 *            must come back unchanged, each optional argument is left out once; "cpu" must give the same bytes with 1,
 *            2 and 4 threads.
 * Backward is checked as a function of its own: what forward saves comes from ref64, rounded, for both sides. */
#ifndef HYB_OPCHECK_H
#define HYB_OPCHECK_H
#include <stdint.h>
#include <stdio.h>
#include "ops/backend.h"
#include "tools/compare.h"

/* One line of the report. */
typedef struct {
    const char *op, *check; /* check: "naive", "chunk", "diff" or the backend's name */
    const char *shape;      /* the case: "N=5 I=7 O=6" and, after '-', the arguments left out */
    const char *tensor;     /* what was compared; "y", "dx", "dx twice", "guards", "inputs", "threads", ... */
    Comparison c;
    double tol;
    const char *problem;        /* for checks that compare no numbers: what is wrong, NULL: nothing */
    char index[48];             /* of c.at */
    char where[96], guess[160]; /* of a file that failed: c.at in words; what may be wrong, or empty */
} OpResult;
typedef void (*OpReport)(void *ctx, const OpResult *r);
int opresult_failed(const OpResult *r);

typedef struct {
    const char *op;    /* one op of opcheck_names, or NULL: all */
    const char *shape; /* "N=5,I=7": one case instead of the table's; NULL: the table's */
    /* a regime of opcheck_regime instead of the table's cases; "all": every one that the op has; NULL: none */
    const char *regime;
    int small; /* leave out regimes that are too large for an emulator */
    /* "ref64", "ref32", "cpu", ..., any name that backend_open knows; NULL: only naive, chunk, diff */
    const char *backend;
    uint64_t seed;
    int self; /* run naive, chunk and diff */
    /* to test the checks: what the backend gives for this tensor is taken 1.1 times; NULL: none */
    const char *inject_error;
} OpcheckOptions;
/* ERR_USAGE for an unknown op, regime or shape, ERR_DEVICE / ERR_MEMORY from the backend;
 * what fails a check is reported, not returned. */
int opcheck_run(const OpcheckOptions *o, OpReport report, void *ctx, Err *e);
int opcheck_count(void);
const char *opcheck_name(int i);
const char *opcheck_keys(int i);             /* the shape of op i with its defaults: "N=5 I=7 O=6" */
const char *opcheck_case(int i, int k);      /* case k of op i as changes to the defaults; NULL past the last */
int opcheck_unknown(const char *op, Err *e); /* ERR_USAGE with the nearest name */

const char *opcheck_regime(int i); /* name of row i of the table of regimes; NULL past its end; a name may come twice */
const char *opcheck_regime_what(int i);
int opcheck_regime_has(int i, const char *op); /* whether row i is for this op */

/* ---- hybridize gradcheck ---- */
typedef struct {
    const char *op, *backend, *shape, *regime; /* backend: a name, "all" (ref64, ref32, cpu), or NULL: the same */
    uint64_t seed;
    int json, list, verbose;  /* verbose: a line for every case, not only the worst one */
    const char *dump;         /* a folder: write cases there as safetensors and check nothing; NULL: no */
    const char *pack;         /* a folder: write the conformance pack there and its list to `out`; NULL: no */
    const char *load;         /* a safetensors file: judge the tensors in it; NULL: no */
    const char *lib, *symbol; /* a shared library, and its functions for op's forward and backward, "f,g" */
    const char *dtype; /* of what is loaded or in lib: "float64", "float32", "bfloat16"; NULL: the file's, float32 */
    int seed_given;    /* seed counts more than a loaded file's */
} GradcheckOptions;
/* Prints a table (or JSON) to `out`. ERR_CHECK if anything fails. */
int gradcheck_run(const GradcheckOptions *o, FILE *out, Err *e);

/* Its parts. gradcheck_files.c: cases written with float64 results, inputs rounded to each of three types, tolerances
 * and their derivation in the metadata; and files judged. gradcheck_lib.c: registers the backend "lib". */
int gradcheck_dump(const GradcheckOptions *o, FILE *out, Err *e);
int gradcheck_pack(const GradcheckOptions *o, FILE *out, Err *e); /* pack.c */
int gradcheck_dump_case(const char *path, const char *op, const char *shape, DType type, uint64_t seed, Err *e);
int gradcheck_load(const GradcheckOptions *o, OpReport report, void *ctx, Err *e);
int gradcheck_lib(const GradcheckOptions *o, void **handle, Err *e);
void gradcheck_lib_close(void *handle); /* NULL is fine */

#endif
