/* pretrain_options.c - names, defaults and checks of PretrainOptions. */
#include "run/pretrain.h"
#include "run/stage_options.h"
#include <string.h>

// clang-format off
#define LEVEL_ROW(G, I, M, HELP, KIND, LO, HI) \
    {G "." #M, HELP, KIND, offsetof(PretrainOptions, level[I].M), LO, HI, NULL, AFFECTS_STAGE1}
#define LEVEL_ROWS(G, I) \
    LEVEL_ROW(G, I, T, "tokens of a row", OPT_INT, 0, 1 << 20), \
    LEVEL_ROW(G, I, n_min, "fewest pairs of a recall row", OPT_INT, 0, 1 << 16), \
    LEVEL_ROW(G, I, n_max, "most pairs of a recall row", OPT_INT, 0, 1 << 16), \
    LEVEL_ROW(G, I, text_rows, "rows of text in a step", OPT_INT, 0, 1 << 16), \
    LEVEL_ROW(G, I, recall_rows, "rows of recall in a step", OPT_INT, 0, 1 << 16), \
    LEVEL_ROW(G, I, threshold, "recall accuracy that ends the level", OPT_REAL, 0, 2), \
    LEVEL_ROW(G, I, min_steps, "least number of steps", OPT_I64, 0, 1e15), \
    LEVEL_ROW(G, I, max_steps, "largest number of steps; 0: no limit", OPT_I64, 0, 1e15), \
    LEVEL_ROW(G, I, layers, "only the first so many layers run; 0: all", OPT_INT, 0, MAX_LAYERS)
// clang-format on

static const Option ROWS[] = {
    {"hidden_size", "width of the residual stream", OPT_INT, offsetof(PretrainOptions, hidden_size), 2, 1 << 20, NULL,
     AFFECTS_STAGE1},
    {"num_hidden_layers", "number of layers", OPT_INT, offsetof(PretrainOptions, num_hidden_layers), 1, MAX_LAYERS,
     NULL, AFFECTS_STAGE1},
    {"num_attention_heads", "number of query heads", OPT_INT, offsetof(PretrainOptions, num_attention_heads), 1,
     1 << 16, NULL, AFFECTS_STAGE1},
    {"num_key_value_heads", "number of key and value heads", OPT_INT, offsetof(PretrainOptions, num_key_value_heads), 1,
     1 << 16, NULL, AFFECTS_STAGE1},
    {"intermediate_size", "width inside the MLP", OPT_INT, offsetof(PretrainOptions, intermediate_size), 1, 1 << 20,
     NULL, AFFECTS_STAGE1},
    {"vocab_size", "number of token ids; 0: as many as the tokenizer has", OPT_INT,
     offsetof(PretrainOptions, vocab_size), 0, 1 << 24, NULL, AFFECTS_STAGE1},
    {"max_position_embeddings", "longest sequence that config.json promises", OPT_INT,
     offsetof(PretrainOptions, max_position_embeddings), 1, 1 << 28, NULL, AFFECTS_STAGE1},
    {"tie_word_embeddings", "the output head is the embedding", OPT_BOOL,
     offsetof(PretrainOptions, tie_word_embeddings), 0, 1, NULL, AFFECTS_STAGE1},
    {"rms_norm_eps", "what RMSNorm adds to the mean square", OPT_REAL, offsetof(PretrainOptions, rms_norm_eps), 1e-30,
     1, NULL, AFFECTS_STAGE1},
    {"rope_theta", "base of the rotary embedding's wavelengths", OPT_REAL, offsetof(PretrainOptions, rope_theta), 1,
     1e12, NULL, AFFECTS_STAGE1},
    {"embed_std", "standard deviation of the embedding at the start", OPT_REAL, offsetof(PretrainOptions, embed_std), 0,
     100, NULL, AFFECTS_STAGE1},
    {"gain", "standard deviation of matrices at the start, times the root of their inputs", OPT_REAL,
     offsetof(PretrainOptions, gain), 0, 100, NULL, AFFECTS_STAGE1},
    {"heldout", "fraction of the text that is never trained on", OPT_REAL, offsetof(PretrainOptions, heldout), 0, 0.9,
     NULL, AFFECTS_STAGE1},
    {"lambda", "weight of the recall loss beside the text loss", OPT_REAL, offsetof(PretrainOptions, lambda), 0, 100,
     NULL, AFFECTS_STAGE1},
    {"recall_keys", "characters that keys are drawn from", OPT_TEXT, offsetof(PretrainOptions, recall_keys), 0, 128,
     NULL, AFFECTS_STAGE1},
    {"recall_values", "characters of values; empty: the keys' set, disjoint in each row", OPT_TEXT,
     offsetof(PretrainOptions, recall_values), 0, 128, NULL, AFFECTS_STAGE1},
    {"recall_n", "numbers of pairs of the probe", OPT_TEXT, offsetof(PretrainOptions, recall_n), 0, 64, NULL,
     AFFECTS_STAGE1},
    {"seed", "seed of weights and batches", OPT_U64, offsetof(PretrainOptions, seed), 0, 0, NULL, AFFECTS_STAGE1},
    {"lanes", LANES_HELP, OPT_INT, offsetof(PretrainOptions, lanes), 0, LANES_MOST, NULL,
     AFFECTS_STAGE1 | AFFECTS_IF_SET},
    {"save_every", "steps between checkpoints", OPT_I64, offsetof(PretrainOptions, save_every), 0, 1e15, NULL,
     AFFECTS_LOOKS},
    {"eval_every", "steps between evaluations; 0: 100", OPT_I64, offsetof(PretrainOptions, eval_every), 0, 1e15, NULL,
     AFFECTS_STAGE1},
    {"log_every", "steps a log row averages over; 0: 10", OPT_INT, offsetof(PretrainOptions, log_every), 0, 1 << 30,
     NULL, AFFECTS_LOOKS},
    {"levels", "number of levels of the curriculum", OPT_INT, offsetof(PretrainOptions, levels), 1, PRETRAIN_LEVELS,
     NULL, AFFECTS_STAGE1},
    LEVEL_ROWS("level0", 0),
    LEVEL_ROWS("level1", 1),
    LEVEL_ROWS("level2", 2),
    LEVEL_ROWS("level3", 3),
    LEVEL_ROWS("level4", 4),
    LEVEL_ROWS("level5", 5),
    STAGE_ROWS("stage", PretrainOptions, stage, AFFECTS_STAGE1),
};

const OptionTable *pretrain_table(void) {
    static const OptionTable table = {ROWS, (int)(sizeof ROWS / sizeof *ROWS)};
    return &table;
}

void pretrain_defaults(PretrainOptions *o) {
    *o = (PretrainOptions){.hidden_size = 64,
                           .num_hidden_layers = 8,
                           .num_attention_heads = 4,
                           .num_key_value_heads = 4,
                           .intermediate_size = 172,
                           .max_position_embeddings = 512,
                           .rms_norm_eps = 1e-5,
                           .rope_theta = 10000,
                           .embed_std = 1,
                           .gain = 0.7,
                           .heldout = 0.05,
                           .lambda = 0.5,
                           .levels = 3,
                           .seed = 42,
                           .eval_every = 100,
                           .save_every = 200,
                           .log_every = 10,
                           .recall_keys = "A-Za-z",
                           .recall_n = "4,8,16,24"};
    // recall alone on short rows until induction has formed, then with text, then longer (ref/METHOD.md 12);
    // in three layers only, so
    // that recall lives in one previous-token layer and one induction layer, and later layers need not copy it
    o->level[0] = (PretrainLevel){.T = 32, .n_min = 2, .n_max = 4, .recall_rows = 128, .threshold = 0.8, .layers = 3};
    o->level[1] = (PretrainLevel){.T = 64,
                                  .n_min = 2,
                                  .n_max = 16,
                                  .text_rows = 24,
                                  .recall_rows = 24,
                                  .threshold = 0.8,
                                  .min_steps = 100,
                                  .layers = 3};
    o->level[2] =
        (PretrainLevel){.T = 128, .n_min = 2, .n_max = 24, .text_rows = 12, .recall_rows = 12, .threshold = 2};
    o->stage = (StageOptions){.steps = 1300, .batch_size = 1, .micro_batch_size = 1, .train_seq_len = 1};
    o->stage.optim =
        (OptimConfig){.lr = 3e-3, .lr_attn = 3e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 0.05, .clip = 1};
    o->stage.optim.schedule = (Schedule){.kind = SCHEDULE_HOLD_LINEAR, .warmup = 50, .final = 0.05, .hold = 0.6};
}

static int level_check(const PretrainOptions *o, int i, Err *e) {
    const PretrainLevel *v = &o->level[i];
    if (v->T < 1) return err_set(e, ERR_USAGE, "level%d.T: got %d, expected at least 1", i, v->T);
    if (v->text_rows + v->recall_rows < 1) return err_set(e, ERR_USAGE, "level%d: got no rows at all", i);
    if (v->layers > o->num_hidden_layers)
        return err_set(e, ERR_USAGE, "level%d.layers: got %d, the model has %d", i, v->layers, o->num_hidden_layers);
    if (i + 1 == o->levels && v->layers && v->layers != o->num_hidden_layers)
        return err_set(e, ERR_USAGE, "level%d.layers: the last level must run all layers", i);
    if (o->lanes > 1 && (v->text_rows % o->lanes || v->recall_rows % o->lanes))
        return err_set(e, ERR_USAGE,
                       "level%d: got %d rows of text and %d of recall, expected multiples of the %d lanes", i,
                       v->text_rows, v->recall_rows, o->lanes);
    if (!v->recall_rows) return OK;
    if (v->n_min < 1 || v->n_max < v->n_min || 2 * v->n_max >= v->T)
        return err_set(e, ERR_USAGE, "level%d: got %d to %d pairs in %d tokens, expected 1 <= n_min <= n_max < T/2", i,
                       v->n_min, v->n_max, v->T);
    return OK;
}

int pretrain_check(const PretrainOptions *o, Err *e) {
    if (o->levels < 1 || o->levels > PRETRAIN_LEVELS)
        return err_set(e, ERR_USAGE, "levels: got %d, expected 1 to %d", o->levels, PRETRAIN_LEVELS);
    TRY(lanes_check(o->lanes, e));
    for (int i = 0; i < o->levels; i++) TRY(level_check(o, i, e));
    if (o->num_attention_heads < 1 || o->hidden_size % o->num_attention_heads)
        return err_set(e, ERR_USAGE, "hidden_size: got %d, expected a multiple of num_attention_heads %d",
                       o->hidden_size, o->num_attention_heads);
    return stage_check(&o->stage, "stage", e);
}

int pretrain_config(Config *c, const PretrainOptions *o, int vocab, Err *e) {
    TRY(pretrain_check(o, e));
    if (o->vocab_size && o->vocab_size < vocab)
        return err_set(e, ERR_USAGE, "vocab_size: got %d, the tokenizer has %d ids", o->vocab_size, vocab);
    *c = (Config){.family = "llama",
                  .C = o->hidden_size,
                  .L = o->num_hidden_layers,
                  .H = o->num_attention_heads,
                  .Hk = o->num_key_value_heads,
                  .D = o->hidden_size / o->num_attention_heads,
                  .F = o->intermediate_size,
                  .VOC = o->vocab_size ? o->vocab_size : vocab,
                  .tied = o->tie_word_embeddings,
                  .max_positions = o->max_position_embeddings,
                  .norm_eps = o->rms_norm_eps,
                  .rope = {.kind = ROPE_PLAIN, .theta = o->rope_theta},
                  .conv_width = 4,
                  .o_norm_eps = o->rms_norm_eps,
                  .bos = -1,
                  .dtype = DT_F32};
    return config_check(c, "pretrain", e);
}
