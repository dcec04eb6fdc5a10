/* gguf_model.h - a GGUF file of llama.cpp as a model: architectures llama (Llama, Mistral, SmolLM), qwen2 and qwen3,
 * dequantised.
 *
 * Names and metadata as convert_hf_to_gguf.py writes them. For llama the rows of q and k are put back into
 * transformers' order: that script stores, per head of size D, row 2i + s where transformers has row s D/2 + i.
 * A file without output.weight has a tied head. Llama-3's rope
 * scaling, which GGUF holds only as the factors in rope_freqs.weight, is taken as (factor, 1, 4, 8192) if that gives
 * these factors.
 * What is not understood is refused by name: other architectures, experts, yarn, unknown tensors. */
#ifndef HYB_GGUF_MODEL_H
#define HYB_GGUF_MODEL_H
#include "io/gguf.h"
#include "io/hf.h"

typedef struct {
    Gguf g;
    Config config;
    const GgufTensor **param; /* in the order of params_walk */
    int *heads;               /* of a parameter whose rows are permuted, else 0 */
    size_t n;
    char unread[512]; /* keys of the architecture that are neither read nor known (strict.h) */
    float *row;       /* scratch, one row of the widest tensor */
} GgufModel;

/* Everything checked except the numbers: every parameter present with its shape, no tensor unknown, config_check
 * passed. */
int gguf_model_open(GgufModel *m, const char *path, Err *e);
void gguf_model_close(GgufModel *m); /* fine on a zeroed GgufModel */
/* A ParamSource (hf.h) over it: ERR_NUMERIC names a tensor with NaN or infinity. m must outlive it. */
ParamSource gguf_model_source(GgufModel *m);
/* Writes config.json, model.safetensors, tokenizer.json, tokenizer_config.json (with the chat templates) and
 * generation_config.json.
 * o->dtype and o->shard_bytes count. */
int gguf_model_save(GgufModel *m, const char *dir, const HfSaveOptions *o, Err *e);
/* "Q4_1 210, F32 61, Q8_0 1": which tensor types, most frequent first. */
void gguf_model_types(const GgufModel *m, char *text, size_t cap);

/* llama.cpp's name of a softmax model's parameter with this fla name; 0 if it has none or it does not fit. */
int gguf_tensor_name(char *out, size_t cap, const char *fla_name);

/* What transformers' llama3 rule makes of rotary frequency i of D / 2: by how much it is divided.
 * rope_freqs.weight holds these. */
double gguf_rope_divisor(const Rope *r, int i, int D);

/* The tokenizer of a GGUF file as tokenizer.json: tokenizer.ggml.model "gpt2" (byte-level BPE;
 * the split rule by tokenizer.ggml.pre) and
 * "llama" (sentencepiece BPE with byte fallback, whose merges follow from the scores:
 * transformers' SentencePieceExtractor). It is read back before it is returned. free with mem_free.
 * ERR_INPUT names what is missing or not supported. */
int gguf_tokenizer_json(char **text, size_t *len, const Gguf *g, Err *e);
/* tokenizer_config.json: special tokens by name and the chat template. */
int gguf_tokenizer_config(char **text, size_t *len, const Gguf *g, Err *e);

#endif
