/* stage_options.h - the option rows of one StageOptions, for the tables of pipeline_options.c and pretrain_options.c
 * (the one use of a macro for data: each stage has the same 18 rows). */
#ifndef HYB_STAGE_OPTIONS_H
#define HYB_STAGE_OPTIONS_H
#include "run/options.h"
#include "method/train.h"

// One row a line, however long.
// clang-format off
#define STAGE_ROW(KEY, HELP, KIND, S, M, LO, HI, CHOICES, A) {KEY, HELP, KIND, offsetof(S, M), LO, HI, CHOICES, A}
#define STAGE_ROWS(G, S, M, A) \
    STAGE_ROW(G ".steps", "optimiser steps; 0: from target_tokens", OPT_I64, S, M.steps, 0, 1e15, NULL, A), \
    STAGE_ROW(G ".target_tokens", "tokens to train on", OPT_I64, S, M.target_tokens, 0, 1e18, NULL, A), \
    STAGE_ROW(G ".batch_size", "sequences of a step", OPT_INT, S, M.batch_size, 1, 1 << 20, NULL, A), \
    STAGE_ROW(G ".micro_batch_size", "sequences that run at a time; batch_size is a multiple of it", OPT_INT, S, M.micro_batch_size, 1, 1 << 20, NULL, A), \
    STAGE_ROW(G ".train_seq_len", "tokens of a sequence", OPT_INT, S, M.train_seq_len, 1, 1 << 24, NULL, A), \
    STAGE_ROW(G ".lr", "learning rate outside the mixers", OPT_REAL, S, M.optim.lr, 0, 1e3, NULL, A), \
    STAGE_ROW(G ".lr_attn", "learning rate of the mixers", OPT_REAL, S, M.optim.lr_attn, 0, 1e3, NULL, A), \
    STAGE_ROW(G ".lr_scheduler_type", "how the learning rates change", OPT_CHOICE, S, M.optim.schedule.kind, 0, 0, "constant|cosine|linear|hold_linear", A), \
    STAGE_ROW(G ".warmup_steps", "steps of linear warm-up", OPT_I64, S, M.optim.schedule.warmup, 0, 1e15, NULL, A), \
    STAGE_ROW(G ".final_lr_fraction", "learning rate at the end, as a fraction of the full one", OPT_REAL, S, M.optim.schedule.final, 0, 1, NULL, A), \
    STAGE_ROW(G ".hold_fraction", "fraction of the steps before hold_linear begins to fall", OPT_REAL, S, M.optim.schedule.hold, 0, 1, NULL, A), \
    STAGE_ROW(G ".adam_beta1", "decay of AdamW's mean of gradients", OPT_REAL, S, M.optim.beta1, 0, 0.9999999, NULL, A), \
    STAGE_ROW(G ".adam_beta2", "decay of AdamW's mean of their squares", OPT_REAL, S, M.optim.beta2, 0, 0.9999999, NULL, A), \
    STAGE_ROW(G ".adam_epsilon", "what AdamW adds to the root of that mean", OPT_REAL, S, M.optim.eps, ADAM_EPS_LEAST, 1, NULL, A), \
    STAGE_ROW(G ".weight_decay", "AdamW's weight decay, of matrices only unless official_groups", OPT_REAL, S, M.optim.decay, 0, 1e3, NULL, A), \
    STAGE_ROW(G ".max_grad_norm", "clip the global gradient norm; 0: off", OPT_REAL, S, M.optim.clip, 0, 1e30, NULL, A), \
    STAGE_ROW(G ".official_groups", "attn_norm learns at lr_attn, and weight decay acts on everything", OPT_BOOL, S, M.optim.official_groups, 0, 1, NULL, A), \
    STAGE_ROW(G ".stochastic_rounding", "no float copy of bf16 weights, 4 bytes each: round them up or down by chance", OPT_BOOL, S, M.optim.stochastic_rounding, 0, 1, NULL, A)
// clang-format on

#define LANES_HELP                                                                                                     \
    "a step's sequences form so many groups (2, 4, 8, ...), summed as a tree: the same bits for any number of ranks "  \
    "up "                                                                                                              \
    "to it; 0: one sum"

/* A stage by itself, for a table of its rows alone. */
typedef struct {
    StageOptions stage;
} StageShell;

#endif
