/* stage_options.h - the option rows of one StageOptions, for the tables of pipeline.c and pretrain.c (the one use of a
 * macro for data: each stage has the same 18 rows). */
#ifndef HYB_STAGE_OPTIONS_H
#define HYB_STAGE_OPTIONS_H
#include "run/options.h"
#include "method/train.h"

// clang-format off: one row a line
#define STAGE_ROWS(GROUP, STRUCT, MEMBER)                                                                                \
    {GROUP ".steps",                                                                                                     \
     "optimiser steps; 0: from target_tokens",                                                                           \
     OPT_I64,                                                                                                            \
     offsetof(STRUCT, MEMBER.steps),                                                                                     \
     0,                                                                                                                  \
     1e15,                                                                                                               \
     NULL,                                                                                                               \
     0},                                                                                                                 \
        {GROUP ".target_tokens",                                                                                         \
         "tokens to train on",                                                                                           \
         OPT_I64,                                                                                                        \
         offsetof(STRUCT, MEMBER.target_tokens),                                                                         \
         0,                                                                                                              \
         1e18,                                                                                                           \
         NULL,                                                                                                           \
         0},                                                                                                             \
        {GROUP ".batch_size", "sequences a step", OPT_INT, offsetof(STRUCT, MEMBER.batch_size), 1, 1 << 20, NULL, 0},    \
        {GROUP ".micro_batch_size",                                                                                      \
         "sequences at a time",                                                                                          \
         OPT_INT,                                                                                                        \
         offsetof(STRUCT, MEMBER.micro_batch_size),                                                                      \
         1,                                                                                                              \
         1 << 20,                                                                                                        \
         NULL,                                                                                                           \
         0},                                                                                                             \
        {GROUP ".train_seq_len",                                                                                         \
         "tokens a sequence",                                                                                            \
         OPT_INT,                                                                                                        \
         offsetof(STRUCT, MEMBER.train_seq_len),                                                                         \
         1,                                                                                                              \
         1 << 24,                                                                                                        \
         NULL,                                                                                                           \
         0},                                                                                                             \
        {GROUP ".lr", "learning rate outside the mixers", OPT_REAL, offsetof(STRUCT, MEMBER.optim.lr), 0, 1e3, NULL, 0}, \
        {GROUP ".lr_attn",                                                                                               \
         "learning rate of the mixers",                                                                                  \
         OPT_REAL,                                                                                                       \
         offsetof(STRUCT, MEMBER.optim.lr_attn),                                                                         \
         0,                                                                                                              \
         1e3,                                                                                                            \
         NULL,                                                                                                           \
         0},                                                                                                             \
        {GROUP ".lr_scheduler_type",                                                                                     \
         "how the learning rates change",                                                                                \
         OPT_CHOICE,                                                                                                     \
         offsetof(STRUCT, MEMBER.optim.schedule.kind),                                                                   \
         0,                                                                                                              \
         0,                                                                                                              \
         "constant|cosine|linear|hold_linear",                                                                           \
         0},                                                                                                             \
        {GROUP ".warmup_steps",                                                                                          \
         "steps of linear warm-up",                                                                                      \
         OPT_I64,                                                                                                        \
         offsetof(STRUCT, MEMBER.optim.schedule.warmup),                                                                 \
         0,                                                                                                              \
         1e15,                                                                                                           \
         NULL,                                                                                                           \
         0},                                                                                                             \
        {GROUP ".final_lr_fraction",                                                                                     \
         "of lr, at the end",                                                                                            \
         OPT_REAL,                                                                                                       \
         offsetof(STRUCT, MEMBER.optim.schedule.final),                                                                  \
         0,                                                                                                              \
         1,                                                                                                              \
         NULL,                                                                                                           \
         0},                                                                                                             \
        {GROUP ".hold_fraction",                                                                                         \
         "of the steps, before hold_linear falls",                                                                       \
         OPT_REAL,                                                                                                       \
         offsetof(STRUCT, MEMBER.optim.schedule.hold),                                                                   \
         0,                                                                                                              \
         1,                                                                                                              \
         NULL,                                                                                                           \
         0},                                                                                                             \
        {GROUP ".adam_beta1", "AdamW", OPT_REAL, offsetof(STRUCT, MEMBER.optim.beta1), 0, 0.9999999, NULL, 0},           \
        {GROUP ".adam_beta2", "AdamW", OPT_REAL, offsetof(STRUCT, MEMBER.optim.beta2), 0, 0.9999999, NULL, 0},           \
        {GROUP ".adam_epsilon", "AdamW", OPT_REAL, offsetof(STRUCT, MEMBER.optim.eps), 0, 1, NULL, 0},                   \
        {GROUP ".weight_decay",                                                                                          \
         "AdamW; of matrices only, unless official_groups",                                                              \
         OPT_REAL,                                                                                                       \
         offsetof(STRUCT, MEMBER.optim.decay),                                                                           \
         0,                                                                                                              \
         1e3,                                                                                                            \
         NULL,                                                                                                           \
         0},                                                                                                             \
        {GROUP ".max_grad_norm",                                                                                         \
         "clip the global gradient norm; 0: off",                                                                        \
         OPT_REAL,                                                                                                       \
         offsetof(STRUCT, MEMBER.optim.clip),                                                                            \
         0,                                                                                                              \
         1e30,                                                                                                           \
         NULL,                                                                                                           \
         0},                                                                                                             \
        {GROUP ".official_groups",                                                                                       \
         "attn_norm learns at lr_attn, decay on everything",                                                             \
         OPT_BOOL,                                                                                                       \
         offsetof(STRUCT, MEMBER.optim.official_groups),                                                                 \
         0,                                                                                                              \
         1,                                                                                                              \
         NULL,                                                                                                           \
         0},                                                                                                             \
    {                                                                                                                    \
        GROUP ".stochastic_rounding", "no float copy of bf16 weights, 4 bytes each: round them up or down by chance",    \
            OPT_BOOL, offsetof(STRUCT, MEMBER.optim.stochastic_rounding), 0, 1, NULL, 0                                  \
    }
// clang-format on

#endif
