/* hf.h - Hugging Face model directories in and out: config.json + safetensors (one file, or index + shards) + tokenizer
 * files.
 *
 * Read: Llama, Mistral, Qwen2/2.5, Qwen3 as transformers writes them (ref/io/FORMATS.md 1.1, incl.
 * rope_parameters, dtype, tied heads and the case in which only lm_head.weight is stored), and our own output,
 * the fla-native layout (A2 (4)) with its `attn.layers`.
 * Write: the fla-native layout, plus a member "hybridize" in config.json that holds what fla has no slot for,
 * so that our own reader gets back exactly what was saved. Teachers made by pretrain are written as a plain Llama
 * directory. */
#ifndef HYB_HF_H
#define HYB_HF_H
#include "base/err.h"
#include "io/safetensors.h"
#include "model/config.h"
#include "model/model.h"

typedef struct {
    char dir[1024];
    Config config;
    Safetensors *shard; /* opened and validated */
    int n_shards;
    int fla; /* names in the files are fla's, not transformers' */
} HfModel;

/* Opens and validates everything except the numbers: config fields, shard names (a single component
 * [A-Za-z0-9._-]+.safetensors; links are followed, since the Hugging Face cache is made of them), index and shards
 * agree entry by entry, every parameter of the walk present exactly once with the shape that the config wants;
 * unknown tensors are refused by name except known harmless ones (rotary_emb.inv_freq, a head equal to the tied
 * embedding). */
int hf_open(HfModel *h, const char *dir, Err *e);
void hf_close(HfModel *h);
/* Only the files that a model.safetensors.index.json names, which must agree with it; h->config is not filled. */
int hf_index_open(HfModel *h, const char *path, Err *e);
/* OK for a directory; else what was given instead, and the next step. */
int hf_directory(const char *dir, Err *e);
/* Reads only config.json. */
int hf_config(Config *c, const char *dir, Err *e);
/* Fills every parameter of m (whose config must equal h->config) from the files, in blocks, converting types;
 * refuses NaN/Inf weights (ERR_NUMERIC, tensor and index) when check_finite. */
int hf_load(const HfModel *h, Model *m, int check_finite, Err *e);
/* open + model_open + load + close in one; the usual way in. */
int hf_load_model(Model *m, const char *dir, Backend *be, GradKind grad, Err *e);

/* Host tensor of parameter `name` (fla names) in any of the supported layouts, for inspection; NULL if absent. */
const Tensor *hf_tensor(const HfModel *h, const char *fla_name);

/* ERR_NUMERIC naming the first NaN or infinity of a floating-point tensor; `file` is for the message. */
int tensor_check_finite(const Tensor *t, const char *file, Err *e);

/* The same of elements that were just converted for a writer: `bytes` bytes at byte `offset` of t, in buf. Every file
 * with weights passes here, so nothing is written that hf_load would refuse. */
int tensor_piece_finite(const Tensor *t, size_t offset, const void *buf, size_t bytes, const char *file, Err *e);
/* Can all weights of dir be written as `to`? ERR_NUMERIC naming the first that cannot (F16 ends at 65504): to be asked
 * before time is spent on a model that cannot be saved. */
int hf_range_check(const char *dir, DType to, Err *e);

typedef struct {
    const char *name, *text;
    size_t len;
} HfFile;
typedef struct {
    /* "fla" (hybrids) or "hf" (all-softmax models: Llama, Qwen2, Qwen3 names); NULL: whichever fits */
    const char *format;
    DType dtype;                /* of matrices and norms; A_log and dt_bias are always F32 */
    size_t shard_bytes;         /* 0: one file */
    const char *tokenizer_from; /* directory whose tokenizer and generation files are copied, or NULL */
    const HfFile *file;         /* further files, written as they are */
    size_t n_files;
} HfSaveOptions;
/* Writes into a temporary directory beside `dir` and renames it; an existing dir is ERR_USAGE unless it is a previous
 * output of ours.
 * What fla cannot express exactly (llama3 rope scaling, q/k norm, head_dim != C/H, linear biases) is kept in the
 * "hybridize" member, and `notes` (may be NULL, cap bytes) receives one line for each such thing.
 * Saving twice gives identical bytes. */
int hf_save(const Model *m, const char *dir, const HfSaveOptions *o, char *notes, size_t cap, Err *e);
/* Those lines for a configuration, without a file. */
int hf_notes(const Config *c, char *notes, size_t cap, Err *e);

/* Where the numbers of a model come from when it is not in memory: n elements from `at` of parameter i (counted by
 * params_walk), as `type`. */
typedef struct {
    void *ctx;
    int (*get)(void *ctx, size_t i, DType type, size_t at, size_t n, void *dst, Err *e);
} ParamSource;
/* hf_save of a model whose configuration is c, read piece by piece (<= 4 MB at a time). */
int hf_save_from(const Config *c, const ParamSource *source, const char *dir, const HfSaveOptions *o, char *notes,
                 size_t cap, Err *e);

#endif
