/* pretrain.h - a small softmax teacher from scratch: text, and the recall game as a curriculum (ref/METHOD.md 12).
 *
 * A batch is text rows and recall rows; loss = CE_text + lambda CE_recall, separate means, recall only on asked values.
 * A level of the curriculum sets T, the number of pairs and the mix; the next one begins when the running recall
 * accuracy passes the threshold (or after max_steps). Everything is a pure function of (seed, step, level);
 * level, its first step and the running accuracy are part of the checkpoint. */
#ifndef HYB_PRETRAIN_H
#define HYB_PRETRAIN_H
#include "eval/recall.h"
#include "method/batch.h"
#include "method/loss.h"
#include "run/options.h"
#include "run/train_run.h"

enum { PRETRAIN_LEVELS = 6 };
typedef struct {
    int T, n_min, n_max;        /* tokens a row, pairs a recall row (uniform in [n_min, n_max]) */
    int text_rows, recall_rows; /* of a step; one of them may be 0 */
    /* running accuracy that ends the level (mean over about 10 steps); the last level ends with the run */
    double threshold;
    int64_t min_steps, max_steps; /* at least, and (unless 0) at most so many steps */
    int layers;                   /* only the first so many layers run in this level; 0: all */
} PretrainLevel;

typedef struct {
    /* shape; the teacher is a plain Llama */
    int hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, intermediate_size;
    int vocab_size; /* 0: the tokenizer's */
    int max_position_embeddings, tie_word_embeddings;
    double rms_norm_eps, rope_theta;
    /* 1.0, 0.7: beside a small embedding, random layers drown the token's identity and induction never forms */
    double embed_std, gain;
    /* data */
    double heldout, lambda;
    int levels;
    PretrainLevel level[PRETRAIN_LEVELS];
    /* character sets; values "": drawn from the keys' set, disjoint in each row */
    char recall_keys[128], recall_values[128];
    char recall_n[64]; /* numbers of pairs of the probe, "4,8,16,24" */
    uint64_t seed;
    /* steps, lr, ...; batch_size, micro_batch_size and train_seq_len come from the levels */
    StageOptions stage;
    int lanes;                      /* of the rows of a step (method/lanes.h); 0: one */
    int64_t save_every, eval_every; /* steps; 0: 100 */
    int log_every;
} PretrainOptions;

void pretrain_defaults(PretrainOptions *o);
const OptionTable *pretrain_table(void); /* levels as "level0.T", ...; training as "stage.lr", ... */
int pretrain_check(const PretrainOptions *o, Err *e);
/* The teacher's Config. vocab: of the tokenizer. */
int pretrain_config(Config *c, const PretrainOptions *o, int vocab, Err *e);

typedef struct {
    PretrainOptions o;
    Model *m;
    Model view; /* m with the level's number of layers */
    TextStream data;
    RecallSpec spec;
    int *keys, *values; /* memory of spec */
    Recall probe;
    int open; /* level that the pass, the loss and the arrays were made for; -1: none */
    Pass pass;
    Loss loss;
    void *mem;
    int *ids, *target, *start, *top, *scratch;
    float *weight, *row_loss;
    double *extra; /* see pretrain.c */
    int64_t steps;
} Pretrain;

/* m: made by pretrain_config and model_init(m, seed, embed_std, gain, 0), GRAD_ALL. */
int pretrain_open(Pretrain *p, Model *m, const Dataset *d, const Tokenizer *t, const PretrainOptions *o, Err *e);
void pretrain_close(Pretrain *p);
Task pretrain_task(Pretrain *p);
/* The options of the loop that goes with it: stage with sizes filled in, save_every, log_every, fingerprint of all
 * options. */
TrainOptions pretrain_train_options(const Pretrain *p);
/* Held-out text loss (nats per token) and recall accuracy by number of pairs (probe.n_n), now. */
int pretrain_evaluate(Pretrain *p, double *text_ce, double *accuracy, Err *e);

/* "4,8,16" -> numbers in [lo, hi]; ERR_USAGE naming the option. */
int list_parse(const char *text, int *out, int cap, int *n, int lo, int hi, const char *what, Err *e);

#endif
