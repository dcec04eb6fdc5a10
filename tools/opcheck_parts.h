/* opcheck_parts.h - how an op is described to the checks (opcheck_table.c), inside opcheck*.c only. */
#ifndef HYB_OPCHECK_PARTS_H
#define HYB_OPCHECK_PARTS_H
#include <stddef.h>
#include "base/rng.h"
#include "tools/opcheck.h"

/* A tensor is written as  NAME[?] KIND ROLE[:OF] SHAPE [DRAW] [n=TERMS],  tensors are separated by ';':
 *   ?      may be NULL
 *   KIND   real, wide, int, double
 *   ROLE   in           input of forward and backward, unchanged by both
 *          out, saved   written by forward; saved is then read by backward
 *          cot:OF       read by backward: cotangent of output OF (an `in:OF` is also read by forward and weighs OF:
 *                       weights of losses)
 *          grad:OF      backward adds the gradient of input OF        over:OF   backward writes it
 *          "work" alone is the workspace, OpRow.work bytes
 *   SHAPE  keys: B.T.H.D
 *   DRAW   how inputs and cotangents are drawn (opcheck_case.c)
 *   TERMS  keys whose product is the length of the longest reduction or chain behind an element, for its tolerance */
typedef enum { REAL, WIDE, INT, DOUBLE } Kind;
typedef enum { IN, OUT, SAVED, COT, GRAD, OVER, WORK } Role;
typedef enum {
    NONE,
    PLAIN,
    NORMAL,
    WILD,
    NEAR_ONE,
    DECAY,
    BETA,
    UNIT,
    IDS,
    STARTS,
    WEIGHT,
    TARGET,
    A_LOG,
    ANGLES,
    SQUARES,
    CACHE,
    LIKE_T,
    GATE_IN,
    GATE_BIAS
} Draw;
typedef struct {
    char name[24], of[24], shape[24], terms[24];
    Kind kind;
    Role role;
    Draw draw;
    int optional;
} TensorRow;

/* What a case may say besides its op's own keys: properties of the inputs, NAN where they are drawn as usual. */
typedef struct {
    double decay; /* <= 0: log decays of about this (0: exactly); 1: from 0 to -200, mixed */
    double beta;  /* write strengths: all this; 2: between 1 and 2 */
    double keys;  /* rows of k: 0 zero, 1 all equal, 2 orthogonal, 3 of any length up to 1.4 */
    double up;    /* upstream gradients times this; 0: only on the final state */
    double state; /* the initial state times this */
    double pad;   /* row b: b + this tokens of another document first, as padding on the left */
    double gate;  /* inputs of activations times this */
} Property;

enum { MAX_TENSORS = 28, MAX_KEYS = 20, MAX_RANK = 6, MAX_CASES = 20 };
typedef struct OpCall OpCall;
typedef struct OpCase OpCase;
typedef struct {
    const char *name;
    const char *keys;             /* every key with its default: "N=5 I=7 O=6" */
    const char *cases[MAX_CASES]; /* changes to the defaults; "-b" leaves optional b out */
    const char *tensors;
    void (*forward)(const OpCall *c);
    void (*backward)(const OpCall *c); /* NULL: there is none */
    /* writes every OUT and SAVED tensor: out[i] */
    void (*naive)(const OpCase *c, double **out, double *scratch);
    size_t (*work)(const OpCase *c);
    size_t forward_at, backward_at; /* offsets of the two in Ops */
    /* backward is not defined when this tensor is given (or this key is not 0) */
    const char *forward_only_with;
    const char *flops[2]; /* forward, backward: keys and numbers, multiplied: "2.N.I.O" */
    int fused;            /* forward and backward are one call: backward writes the outputs too */
    /* BF16: operands rounded inside the op act as if these inputs were; NULL: only results are rounded */
    const char *rounded;
    /* how many such operands lie between an input and a result, forward and backward */
    int roundings[2];
} OpRow;

struct OpCase {
    const OpRow *row;
    char text[200];
    struct {
        char name[12];
        double value;
    } key[MAX_KEYS];
    int keys, tensors, nodiff;
    Property is;
    TensorRow tensor[MAX_TENSORS];
    unsigned absent; /* bit i: tensor i is NULL */
    size_t count[MAX_TENSORS];
    int dims[MAX_TENSORS][MAX_RANK], rank[MAX_TENSORS];
    double *value[MAX_TENSORS]; /* inputs, as drawn */
};

struct OpCall {
    const Ops *op;
    Backend *be;
    const OpCase *c;
    void *t[MAX_TENSORS]; /* NULL where absent */
};

extern const OpRow *const op_rows[];
extern const int op_row_count;
extern const OpRow row_attention, row_conv, row_delta_gate, row_delta_rule, row_gla_gate, row_gla, row_kda_gate,
    row_kda, row_gdn_mixer, row_gla_mixer, row_kda_mixer; // opcheck_mixers.c
#define FORWARD(f)  .forward_at = offsetof(Ops, f)
#define BACKWARD(f) .backward_at = offsetof(Ops, f)

/* ---- regimes (opcheck_regime.c) ---- */
enum { REGIME_CASES = 6 };
typedef struct {
    const char *name, *ops;          /* the ops it is for */
    const char *cases[REGIME_CASES]; /* changes to their defaults, as in OpRow */
    const char *what;
    int large; /* too much for an emulator */
} Regime;
extern const Regime op_regimes[];
extern const int op_regime_count;
int regime_has(const Regime *r, const char *op);
int word_listed(const char *list, const char *word); /* a word of a list separated by blanks? NULL: of none */

/* ---- cases (opcheck_case.c) ---- */
/* Defaults, then `table` ("N=3 -b"), then `user` ("N=3,I=4"), either may be NULL. Lays out and allocates all tensors.
 * */
int opcase_open(OpCase *c, const OpRow *row, const char *table, const char *user, unsigned absent, Err *e);
void opcase_close(OpCase *c);
/* also "Tk", "S", "NC1", "W-1", "P", "D/2" and numbers; NAN if unknown */
double opcase_key(const OpCase *c, const char *key);
double opcase_product(const OpCase *c, const char *keys); /* "B.T.H"; 1 for "" */
int opcase_find(const OpCase *c, const char *tensor);     /* index, or -1 */
static inline int opcase_has(const OpCase *c, int i) { return !(c->absent >> i & 1); }
int opcase_backward(const OpCase *c); /* whether this case has a backward direction */
/* Inputs and cotangents: a pure function of (seed, op, case, tensor). */
void opcase_draw(OpCase *c, uint64_t seed);

/* ---- adapters and naive formulas ---- */
static inline int dim(const OpCall *c, const char *key) { return (int)opcase_key(c->c, key); }
static inline double num(const OpCall *c, const char *key) { return opcase_key(c->c, key); }
void *at(const OpCall *c, const char *tensor);
size_t size_of(const OpCall *c, const char *tensor); /* bytes */
/* `to` starts as a copy of `from`: for ops that work in place, and for views into a larger tensor. */
void copy(const OpCall *c, const char *to, const char *from);

/* ---- one backend's copy of a case (opcheck_side.c) ---- */
typedef struct {
    Backend *be;
    const OpCase *c;
    void *block[MAX_TENSORS]; /* guard, tensor, guard */
    OpCall call;
} Side;
int side_open(Side *s, Backend *be, const OpCase *c, Err *e);
void side_close(Side *s);
DType side_type(const Backend *be, Kind kind); /* DT_COUNT for INT */
void side_put(Side *s, int i, const double *v);
void side_get(Side *s, int i, double *v);
void side_bytes(Side *s, int i, void *raw);
size_t side_size(const Side *s, int i);       /* bytes of tensor i */
void side_nan(Side *s, int i);                /* fills with NaN (INT: a number that no op writes) */
const char *side_guards(Side *s);             /* the tensor around which something was written, or NULL */
int side_call(Side *s, int backward, Err *e); /* guards poisoned, workspace filled with NaN, call, sync */
/* v rounded to what the backend stores */
void side_round(const Backend *be, Kind kind, double *v, size_t n);

/* ---- one case under check (opcheck_check.c) ---- */
typedef struct {
    const OpcheckOptions *o;
    OpReport report;
    void *ctx;
    const OpCase *c;
    const char *name; /* of the check: "diff", "cpu", ... */
    int given;        /* inputs are there already: nothing is drawn */
    Side ref;         /* ref64 */
    /* ref64's OUT and SAVED after forward, GRAD (from zero) and OVER after backward; NULL for others */
    double *out[MAX_TENSORS];
    double condition[MAX_TENSORS]; /* of these tensors; after check_condition */
    /* relative error of these tensors, per relative error of the inputs named by row->rounded */
    double rounded[MAX_TENSORS];
    double *got, *want; /* scratch, each as long as the largest tensor */
    size_t longest;
} Check;
static inline int is_output(Role r) { return r == OUT || r == SAVED; }
static inline int is_gradient(Role r) { return r == GRAD || r == OVER; }
/* Draws the inputs, rounds them to what `be` stores, and runs ref64 on them in both directions.
 * check_close also after a failure. */
int check_open(Check *k, OpCase *c, Backend *ref, const Backend *be, Err *e);
void check_close(Check *k);
int check_condition(Check *k, const Backend *be, Err *e);
/* Of tensor i on `be` after `times` calls (opcheck_backend.c); after check_condition. */
double check_tolerance(const Check *k, int i, const Backend *be, int times);
void check_outputs(const Check *k, Side *s, double **out); /* what forward on s left, into out */
void check_zero_gradients(Side *s);
void check_problem(const Check *k, const char *tensor, const char *problem);
void check_compare(const Check *k, int i, const char *suffix, const double *a, const double *r, double tol);
Rng check_stream(const Check *k, int i, const char *what);

/* ---- the checks (opcheck_self.c, opcheck_backend.c) ---- */
int check_naive(Check *k, Err *e);
int check_chunk(Check *k, Backend *ref, Err *e);
int check_diff(Check *k, Backend *ref, Err *e);
int check_backend(Check *k, Backend *be, Err *e);

/* ---- naive formulas (opcheck_naive.c) ---- */
size_t naive_scratch(const OpCase *c); /* doubles */
typedef void Naive(const OpCase *c, double **out, double *scratch);
Naive naive_add, naive_accumulate, naive_sum, naive_sumsq, naive_embed, naive_linear, naive_rmsnorm, naive_add_rmsnorm,
    naive_gated_rmsnorm, naive_sigmoid_rmsnorm, naive_l2norm, naive_silu, naive_swiglu, naive_rope, naive_attention,
    naive_conv, naive_delta_gate, naive_delta_rule, naive_gla_gate, naive_gla, naive_kda_gate, naive_kda,
    naive_gdn_mixer, naive_gla_mixer, naive_kda_mixer, naive_head_xent, naive_head_kl, naive_align_loss, naive_adamw;
#endif
