/* hf_parts.h - what the files of the Hugging Face reader and writer share; nobody else includes it. */
#ifndef HYB_HF_PARTS_H
#define HYB_HF_PARTS_H
#include "io/hf.h"
#include "base/json.h"

/* config.json -> Config without the final config_check; *fla = the names in the weight files are fla's,
 * not transformers'. */
int hf_config_parse(Config *c, int *fla, const Json *j, Err *e);
/* The part of it for model_type gated_deltanet, gla, kda and hybridize (fla-native layout, ref/io/FORMATS.md 1.4). */
int hf_fla_parse(Config *c, const Json *j, const char *type, Err *e);
/* intermediate_size, or what fla makes of hidden_ratio. */
int hf_ffn_parse(Config *c, const Json *j, Err *e);
/* model_type transformer and student: the official code's teachers and students (ref/io/FORMATS.md 1.2, 1.3). */
int hf_student_parse(Config *c, const Json *j, const char *type, Err *e);
/* config.json of a student; ERR_USAGE, with the reason and the nearest format, for what it cannot say exactly. */
int hf_student_write(JsonOut *o, const Config *c, DType dtype, Err *e);
/* The first and the last members that all layouts share. */
void hf_head_write(JsonOut *o, const char *architecture, const char *type, const Config *c);
void hf_tail_write(JsonOut *o, const Config *c, DType dtype);
/* A {rope_type, rope_theta, factor, ...} object; r holds the defaults on entry. */
int hf_rope_parse(Rope *r, const Json *j, JsonRef object, int max_positions, Err *e);
/* What every family has in common: sizes, eps, tied, bos, eos, dtype, activation. heads and eps:
 * their keys in this family. */
int hf_common_parse(Config *c, const Json *j, const char *heads, const char *eps, Err *e);
/* An optional integer in [lo, hi] that goes into an int. */
int hf_opt_int(const Json *j, JsonRef object, const char *key, int lo, int hi, int *out, Err *e);
int hf_dtype_parse(const char *name, DType *t); /* "bfloat16"; 0 if unknown */
const char *hf_dtype_name(DType t);
int hf_family_known(const char *name);

/* The text of config.json, which reads back as c (checked: ERR_USAGE where this layout has no slot for something).
 * notes: one line for everything that the fla fields alone do not say. */
int hf_own_positions(const Config *c);
int hf_config_write(JsonOut *o, const Config *c, DType dtype, int fla, char *notes, size_t cap, Err *e);

/* transformers' name of a parameter with this fla name ("model.layers.3.attn.q_proj.weight" ->
 * "...self_attn.q_proj.weight"). */
int hf_name(char *out, size_t cap, const char *fla_name);

/* The tensors of c in the order of params_walk, named for fla or transformers: all of `dtype`, but A_log and dt_bias
 * F32. */
typedef struct {
    Tensor *tensor; /* data is NULL */
    char (*name)[128];
    size_t n;
} HfList;
int hf_list_open(HfList *l, const Config *c, int fla, DType dtype, Err *e);
void hf_list_close(HfList *l);

/* Messages with what lies there instead (hf_found.c); all return the code. */
int hf_no_config(const char *dir, Err *e);
int hf_no_weights(const char *dir, Err *e);
int hf_no_tensor(const HfModel *h, const char *name, Err *e);
/* OK when all the shards that an index names are there. */
int hf_shards_there(const char *dir, const char *index, const char *const *shard, int n, Err *e);

/* Everything that goes into a directory. */
typedef struct {
    const char *config; /* the text of config.json; its member "hybridize" says that we may write over it */
    size_t config_len;
    const Tensor *tensor;
    size_t n;
    TensorFetch fetch;
    void *ctx;
    size_t shard_bytes;         /* 0: one file */
    const char *tokenizer_from; /* or NULL */
    const HfFile *file;
    size_t n_files;
} HfDir;
/* Written beside `dir` and renamed: see hf_save. */
int hf_dir_write(const char *dir, const HfDir *d, Err *e);

#endif
