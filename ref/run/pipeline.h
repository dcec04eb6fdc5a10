/* pipeline.h - the whole method in one function: stage 1 -> scores -> selection -> stage 2 (-> stage 3) -> evaluation
 * -> model.
 *
 * What a run leaves behind (ref/README.md), and by what it is resumed:
 *   run.json          resolved options, seed, versions, hashes of the inputs; a run with other options is refused,
 *                     key by key
 *   log.jsonl         every stage's rows (train.h)
 *   start.csv         with init: what the start did to each layer (fit.h)
 *   data/text.tok     the text as tokens
 *   checkpoints/      stage1/ (kept), scores/layer-N.json, students/NAME.json; checkpoints of what is in progress
 *   ranking.json      layers with scores and ranks;   trajectory.csv: rank of each layer over the scoring tokens
 *   rankings/NAME/ranking.json  of every selector of the run that scores layers;   agreement.csv: how far they agree,
 *                               pair by pair
 *   budget.csv        the quality-cost curve: for every K the main ranking's first K layers, memory in MiB at
 *                     memory_context, and the sum of
 *                     their scores above the lowest one; with layer_costs: the best set within each of 2L+1 budgets
 *   model/            the distilled hybrid; README.md in it: its model card (report/card.h)
 *   students/NAME/    with save_students: every other student's
 *   results.json      one row per student, written last:
 *                     a run that has it is finished
 * Read pipeline_run first, then select.c, distill.c, model.c. */
#ifndef HYB_PIPELINE_H
#define HYB_PIPELINE_H
#include "eval/recall.h"
#include "method/score.h"
#include "run/checkpoint.h"
#include "run/options.h"
#include "run/record.h"
#include "selectors/selectors.h"
#include "base/log.h"

typedef struct {
    /* what goes in */
    char teacher[1024];           /* model directory */
    char text[4096];              /* what text/corpus.h takes, or a token shard */
    char text_field[128];         /* of JSON lines; "": text */
    char document_separator[64];  /* of a plain text; "": the file is one document */
    char student_init_ckpt[1024]; /* finished stage-1 student (model directory): stage 1 is skipped */
    /* mixer of the layers that are not kept: student_name of the official code, "gdn_v4" */
    char student[32];
    int window_size;                /* of swa_v1 layers, and of what the next two say; 0: none (swa_v1: 64) */
    int force_window_on_all_layers; /* every layer is windowed softmax, whatever student says */
    int window_on_kept_layers;      /* kept layers use window_size too (official, where it is set) */
    /* choices (ref/METHOD.md section 9) */
    int kv_repeat;               /* KvRepeat */
    int init;                    /* StartKind */
    int64_t init_tokens;         /* of fit_start; 0: its own choice */
    int stage1_loss;             /* ALIGN_NORM, ALIGN_SQUARED */
    int official_score;          /* 1: rank by the running training KL instead of the held-out KL */
    int loss_on;                 /* 0: all tokens, 1: completions (dataset_completions); not stage 1 */
    int document_boundaries;     /* 1: attention and states begin anew at each document */
    int add_eos;                 /* 1: the teacher's EOS after each document */
    int teacher_bf16;            /* 1: GRAD_HALF (model.h) */
    int kept_rope;               /* 1: kept layers have no rotary embedding (Config.no_rope) */
    int keep_biases;             /* 1: linear layers keep the teacher's q/k/v biases */
    double temperature, heldout; /* tau of the KL; fraction of the text that is never trained on */
    int64_t max_tokens;          /* of the text; 0: all */
    /* budgets */
    StageOptions stage1, score, stage2, stage3; /* stage3 without steps and target_tokens: none */
    int lanes;                                  /* of every stage (method/lanes.h); 0: one */
    /* steps between the points of a scoring run's trajectory; 0: steps/8 */
    int64_t eval_every;
    /* share of recall sequences in what layers are scored on; 0: text only, as officially */
    double score_mix;
    int early_stop_r, early_stop_all_pairs; /* evaluations that must agree, 0: off (early_stop.h) */
    double early_stop_threshold, halving_z;
    SelectOptions own;                               /* of selectors */
    int eval_batches, eval_batch_size, eval_seq_len; /* held-out batches; sizes 0: as stage 2 */
    /* selection */
    char selector[32];                     /* of the main student: "ga_s2" */
    char keep_full_attention_layers[2048]; /* of selector "explicit": "3,7" */
    int k;                                 /* softmax layers; -1: from softmax_ratio */
    double softmax_ratio;
    /* of caches and states per sequence at memory_context tokens: sets k; 0: off */
    double memory_budget_mb;
    int64_t memory_context;
    /* of all layers; with layer_costs; 0: off. Selectors with scores then take the best set that fits */
    double cost_budget;
    /* "soft:lin,soft:lin,...": measured costs of each layer as softmax and as linear attention */
    char layer_costs[2048];
    char students[512]; /* further students to compare with: "none,uniform,random,ablation" */
    int random_draws;   /* of selector random: students random, random-2, ... */
    /* "1,3,4": further numbers of softmax layers at which selectors' sets are distilled, as NAME@K */
    char curve_k[128];
    char curve_students[512]; /* by these of the run's selectors; "": by all whose choice scales */
    /* recall probe */
    /* keys "": no probe; values "": from the keys' set, disjoint */
    char recall_keys[128], recall_values[128], recall_n[64];
    int recall_rows;
    uint64_t seed;
    /* how it runs: no influence on any number */
    int64_t save_every, cache_mb;
    int keep_last, checkpointing, keep_checkpoints, save_dtype, save_students;
    int log_every, nan_skip, max_skips;
} PipelineOptions;

/* Defaults: the clean choices and a small budget that suits small models (pipeline_options.c says what differs from
 * official). */
void pipeline_defaults(PipelineOptions *o);
/* After parsing: selectors by the names of their rows; no stage has more sequences at a time than in a step, or in a
 * lane; every stage has the run's lanes. */
void pipeline_settle(PipelineOptions *o);
/* The official code's choices and hyperparameters, one assignment each (ref/METHOD.md 4, 9). */
void pipeline_official(PipelineOptions *o);
const OptionTable *pipeline_table(void);
int pipeline_check(const PipelineOptions *o, Err *e);

typedef struct {
    char name[64]; /* "teacher", "stage1", or the selector's name */
    int keep[MAX_LAYERS], K, L;
    HeldoutResult held;
    int recall_n[RECALL_MAX_N], n_n;          /* numbers of pairs of the recall probe; n_n 0: no probe */
    double recall[RECALL_MAX_N], recall_mean; /* NAN: no probe */
    double seconds;                           /* of its training (stages 2 and 3) */
    double select_seconds;                    /* of choosing its layers: scoring runs, ablation */
    int64_t tokens;
    size_t peak_bytes; /* most memory in use while it was trained */
    /* what weights, gradients, optimiser and activations of all models in use need by count */
    size_t counted_bytes;
    /* of the model; cache and state per sequence when generating */
    size_t parameters, cache_bytes_per_token, state_bytes;
} StudentRow;
extern const Record student_record;

enum { PIPELINE_STUDENTS = 256 };
typedef struct {
    int L, K;
    int finished_before; /* 1: results.json was there, nothing was done */
    int rows;
    /* 0: teacher, 1: stage-1 student, 2: the main student, then the others */
    StudentRow row[PIPELINE_STUDENTS];
    int recall_n[RECALL_MAX_N], n_n;
    double seconds;    /* of all training, scoring included */
    size_t peak_bytes; /* most memory in use, of the session that finished the run */
} PipelineResult;

typedef struct {
    const Progress *progress; /* may be NULL */
    volatile int *stop;       /* as TrainOptions; may be NULL */
    /* one line for a person: what begins, what was found done, warnings; may be NULL */
    Warn note;
    void *ctx;
    int allow_config_change; /* 1: other options than run.json's are taken over instead of refused */
    const char *version;     /* for run.json */
    Tokenizer *tokenizer;    /* the teacher's, if it is open already; stays open. NULL: opened and closed */
    int piece, pieces;       /* PIPELINE_SCORE: only layers and sets of number piece (mod pieces); pieces 0: all */
} PipelineHooks;

typedef enum { PIPELINE_ALIGN, PIPELINE_SCORE, PIPELINE_SELECT, PIPELINE_ALL } PipelineEnd;
/* What stage 1 holds on the device, and stage 2 of the student with every layer linear: a note each, of this rank where
 * be->ranks is set. Nothing but the teacher's config.json is read. ERR_MEMORY where the device knows that it has less.
 */
int pipeline_memory(const PipelineOptions *o, Backend *be, const PipelineHooks *h, Err *e);
/* Runs the run in `dir`, or goes on with it, up to and including `end` (commands align, score, select and run;
 * align leaves the stage-1 student in DIR/model). result (PIPELINE_ALL only) may be NULL. h may be NULL. */
int pipeline_run(const PipelineOptions *o, const char *dir, Backend *be, const PipelineHooks *h, PipelineEnd end,
                 PipelineResult *result, Err *e);

/* ---- the files of a run (pipeline_files.c) ---- */
/* Options of an existing run; *found = 0 when there is no run.json. */
int pipeline_options_read(PipelineOptions *o, const char *dir, int *found, Err *e);
/* A finished run's results.json. */
int pipeline_results_read(PipelineResult *r, const char *dir, Err *e);
/* ranking.json: s (MAX_LAYERS) gets layer, score, se, rank, tokens, seconds and the trajectory. selector, keep:
 * what was chosen. */
int ranking_read(LayerScore *s, int *L, const char *dir, Err *e);
/* What the scores of DIR/ranking.json are: unit for axes ("": no scores) and a sentence. */
int ranking_about(char *unit, size_t unit_cap, char *label, size_t label_cap, const char *dir, Err *e);
/* The file says what the scores mean: those of the selector, or GA-S2's where it scores nothing itself. */
int ranking_write(const LayerScore *s, int L, const char *selector, const int *keep, const char *dir, Err *e);
int trajectory_write(const LayerScore *s, int L, int official, const char *dir, Err *e);
int results_write(const PipelineResult *r, const char *dir, Err *e);
/* What goes in: name, size, CRC-32C of every file that decides the numbers; its hash. */
int inputs_hash(uint64_t *hash, JsonOut *j /* may be NULL */, const PipelineOptions *o, Err *e);
/* ERR_USAGE saying what differs, if DIR/run.json is not that of these options, these input files and this backend. */
int run_same(const PipelineOptions *o, const char *dir, const char *backend, Err *e);
/* Compares with DIR/run.json, or writes it. */
int run_file(const PipelineOptions *o, const char *dir, const char *backend, const PipelineHooks *h, uint64_t *inputs,
             Err *e);

#endif
