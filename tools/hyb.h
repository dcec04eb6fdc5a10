/* hyb.h - the float64 reference of hybridize for other programs: ops by name, forward and gradients, and a verdict on
 * what somebody else computed. Link with -lhyb (pkg-config hyb), or load libhyb.so.
 *
 * A case is an op, a text of its keys ("B=1,T=64,H=2,Hk=2,K=16,V=16,chunk=64,scale=.25"; keys left out have defaults,
 * hyb_keys) and arrays by name. What every op computes, with shapes and layouts, is in ref/ops/ops_decl.h; the names
 * are those of tools/opcheck_table.c and opcheck_mixers.c, which hyb_tensor lists. Arrays are row-major, last index
 * fastest, of any of the types below. Optional inputs that are not given are absent; upstream gradients (dout, dfinal)
 * and the initial state S0 that are not given are 0; an output or gradient that is not given is not returned.
 *
 * Nothing is kept between calls and nothing is printed: all functions may be called from several threads at once.
 * Errors are codes, and a line for a person in *error. The interface grows only at its end while HYB_ABI stays. */
#ifndef HYB_H
#define HYB_H
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#define HYB_ABI 1
int hyb_abi(void); /* HYB_ABI of the library that was loaded */

enum { HYB_OK = 0, HYB_FAILED = 1, HYB_USAGE = 2, HYB_INPUT = 3, HYB_MEMORY = 5 };
typedef enum { HYB_F64, HYB_F32, HYB_BF16, HYB_F16, HYB_I32, HYB_I64 } HybType;
typedef enum { HYB_INPUT_TENSOR, HYB_OUTPUT, HYB_UPSTREAM, HYB_GRADIENT } HybRole;

typedef struct {
    const char *name;
    HybType type;
    size_t count; /* elements; checked against the case */
    void *data;
} HybArray;

typedef struct {
    char message[1100]; /* one line; empty if nothing failed */
} HybError;

/* The i-th op; NULL past the end. Its keys with their defaults; NULL for an unknown op. */
const char *hyb_op(int i);
const char *hyb_keys(const char *op);

typedef struct {
    char name[24], of[24]; /* of: the input that a gradient belongs to, the output of an upstream gradient */
    char letters[24];      /* dims as keys: "B.T.H.K" */
    HybRole role;
    int optional, whole; /* whole: whole numbers (token ids, document starts) */
    int rank, dims[6];   /* of this case */
    size_t count;        /* 0: absent in this case */
} HybTensor;
/* Tensor i of a case; HYB_USAGE past the end, for an unknown op (the nearest name is in the message) or key. */
int hyb_tensor(const char *op, const char *shape, int i, HybTensor *tensor, HybError *error);

/* Computes in float64 from the inputs and upstream gradients among the arrays, and writes the outputs and gradients
 * among them. Gradients start from 0. HYB_INPUT if an input is missing, or an array has another count. */
int hyb_run(const char *op, const char *shape, HybArray *arrays, int n, HybError *error);

typedef struct {
    char name[24];
    int ok;
    double error, tolerance, margin; /* ||got - truth|| / ||truth||; margin: tolerance / error, the nearer bound */
    size_t at;                       /* the worst element */
    double got, truth;               /* there */
    char verdict[16], where[96];     /* "ok", "TOO FAR", ...; "batch 0, token 63, head 1, channel 5" */
    char guess[160];                 /* what may be wrong; empty where nothing is, or nothing fits */
} HybVerdict;
/* Judges the outputs and gradients among the arrays, which a program with activations of `type` (HYB_F64, HYB_F32,
 * HYB_BF16) computed from the inputs among them. verdicts: room for n; *judged are written, in the order of the arrays.
 * HYB_FAILED if any is not ok. */
int hyb_judge(const char *op, const char *shape, HybType type, const HybArray *arrays, int n, HybVerdict *verdicts,
              int *judged, HybError *error);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
