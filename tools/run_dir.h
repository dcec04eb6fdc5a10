/* run_dir.h - the directory of a run, and the text in it as tokens: what pretrain and distill need besides a model. */
#ifndef HYB_RUN_DIR_H
#define HYB_RUN_DIR_H
#include "run/train_run.h"
#include "text/dataset.h"
#include "tools/cli.h"

/* May this command write into c->common.output? An earlier run there needs --resume or --overwrite (which removes it);
 * anything that is not a run of ours is refused. `mark`: the file by which a run is known. go_on:
 * this command continues a run unasked. Makes the directory. */
int run_dir_open(const Cli *c, const char *mark, int go_on, Err *e);
/* DIR/NAME, checked for length. */
int run_path(char *dst, size_t cap, const Cli *c, const char *name, Err *e);

/* text: a text or JSONL file, tokenised into DIR/data/text.tok (kept when it is there), or a token shard. d is opened.
 * */
int run_data_open(Dataset *d, const Cli *c, const char *text, const Tokenizer *t, const ShardOptions *o, Err *e);
/* Identifies data and model files: a resumed run must have the same. */
uint64_t run_data_hash(const Dataset *d);
int run_model_hash(uint64_t *h, const char *dir, Err *e);
/* What every training command hands to train_run. log: DIR/log.jsonl, checkpoints: DIR/checkpoints/NAME;
 * the paths must outlive it. */
typedef struct {
    char log[1024], checkpoints[1024];
} RunPaths;
int run_train_options(TrainOptions *t, RunPaths *p, const Cli *c, const char *name, const StageOptions *stage, Err *e);
/* {"name": "distill", "version": ..., options...} into DIR/run.json. A resumed run must say the same about every option
 * that is not cosmetic, unless --allow-config-change. */
int run_json_write(const Cli *c, Err *e);

#endif
