/* pretrain.h - a small softmax teacher from scratch: text, and the recall game as a curriculum (evaluation.md 8.1).
 *
 * A batch is text rows and recall rows; loss = CE_text + lambda CE_recall, separate means, recall only on asked values. A curriculum
 * level sets T, the number of pairs and the mix; the next one begins when the running recall accuracy passes the threshold (or after max_steps).
 * Everything is a pure function of (seed, step, level); level, its first step and the running accuracy are in the checkpoint. */
#ifndef HYB_PRETRAIN_H
#define HYB_PRETRAIN_H
#include "eval/recall.h"
#include "method/batch.h"
#include "method/loss.h"
#include "method/options.h"
#include "method/train.h"

enum { PRETRAIN_LEVELS = 8 };
typedef struct {
    int T, n_min, n_max;   /* tokens a row, pairs a recall row (uniform in [n_min, n_max]) */
    int text_rows, recall_rows;
    int names_rows;        /* of text_rows: text with an invented cast of speakers, whose names repeat (0: plain text only) */
    double threshold;      /* running accuracy that ends the level; the last level ends with the run */
    int64_t min_steps, max_steps; /* at least, and at most (0: no limit) so many steps */
    int layers;            /* only the first so many layers exist in this level; 0: all */
} PretrainLevel;

typedef struct {
    /* shape; the teacher is a plain Llama */
    int hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, intermediate_size, vocab_size;
    int max_position_embeddings, tie_word_embeddings;
    double rms_norm_eps, rope_theta;
    double embed_std, gain; /* 1.0 and 0.7: with a small embedding, random layers swamp the token's identity and induction never forms */
    /* data */
    double heldout, lambda;
    int level_count;
    PretrainLevel level[PRETRAIN_LEVELS];
    char recall_keys[128], recall_values[128]; /* character sets; values "": drawn from the keys' set, disjoint in each row */
    char recall_n[64];                         /* numbers of pairs of the probe, "4,8,16,24" */
    uint64_t seed;
    /* training: steps, lr, ...; batch sizes come from the levels */
    StageOptions stage;
    int64_t save_every, eval_every;
} PretrainOptions;

void pretrain_defaults(PretrainOptions *o);
const OptionTable *pretrain_table(void); /* levels as "level0.T", ... */
int pretrain_check(const PretrainOptions *o, Err *e);
/* The teacher's Config. tokenizer ids of bos and eos: -1. */
int pretrain_config(Config *c, const PretrainOptions *o, Err *e);

typedef struct {
    const PretrainOptions *o;
    Model *m;
    Model view;     /* m with the level's number of layers */
    TextStream data;
    RecallSpec spec;
    int *sets;      /* memory of spec */
    int level_open; /* level that pass, loss and arrays were made for */
    Pass pass;
    Loss loss;
    int *ids, *target, *scratch, *top;
    float *weight, *rows;
    double *extra;  /* level, its first step, running accuracy, then the sums of text loss, recall loss, accuracy, rows since the last log row */
    double text_ce, recall; /* last evaluation */
    Recall probe;
    int64_t eval_every;
    double probe_acc[RECALL_MAX_N];
} Pretrain;

/* m: made by pretrain_config and model_init, GRAD_ALL. */
int pretrain_open(Pretrain *p, Model *m, const Dataset *d, const Tokenizer *t, const PretrainOptions *o, Err *e);
void pretrain_close(Pretrain *p);
Task pretrain_task(Pretrain *p);
/* Held-out text loss (nats per token) and recall by number of pairs, now. */
int pretrain_evaluate(Pretrain *p, double *text_ce, double *accuracy /* (probe.n_n) */, Err *e);

#endif
