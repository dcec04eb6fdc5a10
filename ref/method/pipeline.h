/* pipeline.h - the whole method in one function: stage 1 -> scores -> selection -> stage 2 (-> stage 3) -> evaluation -> model.
 *
 * What a run leaves behind (design.md 7), and by what it is resumed:
 *   run.json          resolved options, seed, versions, hashes of the inputs; another set of options is refused, key by key
 *   log.jsonl         every stage's rows
 *   data/             tokens of the text
 *   checkpoints/      stage1/, scores/layer-N(.json), students/NAME(.json)
 *   ranking.json      layers, scores, ranks;   trajectory.csv: layer, step, tokens, kl, rank
 *   model/            the distilled hybrid;    results.json: one row per student; written last: a run with it is finished */
#ifndef HYB_PIPELINE_H
#define HYB_PIPELINE_H
#include "method/align.h"
#include "method/options.h"
#include "method/score.h"
#include "method/select.h"
#include "method/transfer.h"

typedef struct {
    /* what goes in and where it goes */
    char teacher[1024];            /* model directory */
    char text[1024];               /* text or JSONL file, or a token shard (.tok) */
    char student_init_ckpt[1024];  /* finished stage-1 student (model directory): stage 1 is skipped */
    char student[32];              /* linear mixer: student_name of the official code, "gdn_v4" */
    /* choices (method.md section 9) */
    int kv_repeat, stage1_loss, official_score, official_groups, document_boundaries, add_eos, keep_biases;
    double temperature, weight_decay, heldout;
    int64_t max_tokens; /* of the text; 0: all */
    /* budgets */
    StageOptions stage1, score, stage2, stage3; /* stage3.steps == 0 and target_tokens == 0: no stage 3 */
    int64_t eval_every;            /* of scoring runs, see ScoreOptions */
    int eval_batches, eval_batch_size, eval_seq_len; /* held-out batches; seq 0: as stage 2 */
    /* selection */
    char selector[32];             /* of the main student: "ga_s2" */
    char keep_full_attention_layers[2048]; /* of selector "explicit": "3,7" */
    int k;                         /* softmax layers; -1: from softmax_ratio */
    double softmax_ratio;
    int uniform_stride, uniform_first;
    char students[256];            /* further students to compare: "none,uniform,random,ablation" */
    /* recall probe */
    char recall_keys[128], recall_values[128], recall_n[64]; /* keys "": no probe; values "": from keys' set, disjoint */
    int recall_rows;
    uint64_t seed;
    /* how it runs: no influence on any number */
    int64_t save_every, cache_mb;
    int keep_last, checkpointing, log_every, keep_checkpoints;
    int nan_skip, max_skips;
    int save_dtype;                /* "auto|float32|bfloat16|float16" */
} PipelineOptions;

void pipeline_defaults(PipelineOptions *o);
/* The official code's choices, one assignment each (method.md 1.5 and 9). */
void pipeline_official(PipelineOptions *o);
const OptionTable *pipeline_table(void);
int pipeline_check(const PipelineOptions *o, Err *e);

typedef struct {
    char name[64];      /* "teacher", "stage1", or the selector's name */
    int keep[MAX_LAYERS], K, L;
    HeldoutResult held;
    double recall[RECALL_MAX_N], recall_mean;
    double seconds;     /* of training it, selection not included */
    double select_seconds;
    int64_t tokens;
    size_t peak_bytes, parameters, cache_bytes_per_token, state_bytes;
} StudentRow;

enum { PIPELINE_STUDENTS = 16 };
typedef struct {
    int L, K, finished_before; /* 1: results.json was there, nothing was done */
    int rows;
    StudentRow row[PIPELINE_STUDENTS]; /* 0: teacher, 1: stage-1 student, 2: the main student, then the others */
    int recall_n[RECALL_MAX_N], n_n;
    double seconds;
    size_t peak_bytes;
} PipelineResult;

typedef struct {
    const Progress *progress;
    volatile sig_atomic_t *stop;
    Warn note;     /* one line for a person: what begins, what was found done, warnings */
    void *ctx;
    int allow_config_change;
    const char *version; /* for run.json */
} PipelineHooks;

/* Runs, or goes on with, the run in `dir`. result may be NULL. */
int pipeline_run(const PipelineOptions *o, const char *dir, Backend *be, const PipelineHooks *h, PipelineResult *result, Err *e);
/* The first parts alone, on the same directory (commands align, score, select): stops after the named part. */
typedef enum { PIPELINE_ALIGN, PIPELINE_SCORE, PIPELINE_SELECT, PIPELINE_ALL } PipelineEnd;
int pipeline_run_until(const PipelineOptions *o, const char *dir, Backend *be, const PipelineHooks *h, PipelineEnd end,
                       PipelineResult *result, Err *e);
/* Reads a finished run's results.json. */
int pipeline_results(PipelineResult *r, const char *dir, Err *e);

#endif
