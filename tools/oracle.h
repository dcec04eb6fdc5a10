/* oracle.h - the float64 truth about one case of an op, its inputs drawn or given, and the judge of what another
 * program computed on them. opcheck.h checks backends that live in this process; this checks numbers. */
#ifndef HYB_ORACLE_H
#define HYB_ORACLE_H
#include "base/dtype.h"
#include "tools/compare.h"
#include "tools/opcheck.h"

typedef struct Oracle Oracle;

/* A tensor of the op. `letters` are its dims as keys ("B.T.H.K"), `of` is the input that a gradient belongs to, or the
 * output that an upstream gradient belongs to. */
enum { ORACLE_RANK = 6 };
typedef enum { ORACLE_INPUT, ORACLE_OUTPUT, ORACLE_UPSTREAM, ORACLE_GRADIENT } OracleRole;
typedef struct {
    const char *name, *of, *letters;
    OracleRole role;
    int optional, saved; /* saved: an output that only backward needs */
    DType type;          /* as the oracle's type stores it: DT_F64, DT_F32, DT_BF16, or DT_I32 */
    int rank, dims[ORACLE_RANK];
    size_t count;
    double *value;           /* float64, in place: inputs to read or fill, results after oracle_run */
    double tolerance;        /* of results, for arithmetic in the oracle's type; after oracle_run */
    double terms, condition; /* what tolerance is made of */
} OracleTensor;

/* type: what the judged program stores activations in: DT_F64, DT_F32 or DT_BF16 (statistics and gates then float).
 * shape: keys of the op, "B=1,T=7,decay=-20,-start"; NULL or "": its defaults. Inputs are drawn from the seed and
 * rounded to the type. ERR_USAGE for an unknown op (with the nearest name) or shape. Free with oracle_close. */
int oracle_open(Oracle **o, const char *op, const char *shape, DType type, uint64_t seed, Err *e);
void oracle_close(Oracle *o); /* NULL is fine */
int oracle_count(const Oracle *o);
OracleTensor *oracle_tensor(Oracle *o, int i); /* NULL past the end; absent optional tensors have count 0 */
OracleTensor *oracle_find(Oracle *o, const char *name);
const char *oracle_case(const Oracle *o); /* every key with its value */

/* Outputs and gradients in float64 from the inputs as they are in `value` now, and the tolerances. */
int oracle_run(Oracle *o, Err *e);

typedef struct {
    Comparison c;
    char index[48];  /* "[0,5,1,3]" */
    char where[96];  /* "batch 0, token 5, head 1, channel 3" */
    char guess[160]; /* what may be wrong; empty where nothing is or the evidence says nothing */
} OracleVerdict;
/* got: t->count doubles in the layout of tensor t of o, after oracle_run. */
OracleVerdict oracle_judge(const Oracle *o, const OracleTensor *t, const double *got);

/* guess.c: the evidence itself. start: (B,T) or NULL; hint_up: the upstream factor of the case, NAN unknown. */
void oracle_guess(char *dst, size_t cap, const OracleTensor *t, const double *got, const double *start, double hint_up);

#endif
