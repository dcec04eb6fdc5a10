/* export.h - a model directory into the layouts that other software loads. Exact, or refused with the reason and the
 * nearest format.
 *
 * fla:     flash-linear-attention's gated_deltanet, gla and kda: what runs write anyway (ref/io/FORMATS.md 1.4).
 * student: the official code's converted-hf layout (A2 (3)); exact only when the output norm's eps is 1e-5,
 * as it always is there.
 * qwen3_5: transformers' Qwen3_5ForCausalLM (A2 (5)), for Gated DeltaNet students with an output gate (gdn_v3,
 * gdn_v4) whose teacher has a
 *          q/k norm (Qwen3). Its layers have more than ours, and the surplus is set to do nothing:
 *          a convolution becomes the identity (taps
 *          0,0,0,1); the gate of softmax attention has zero rows, so it is sigmoid(0) = 1/2, and o_proj is doubled,
 *          exact in binary;
 *          norms are stored as w - 1.
 * gguf:    llama.cpp's qwen35 (A2 (6)) for the same students, with the set of linear layers in
 * attention.recurrent_layers; and llama, qwen2 and
 *          qwen3 for models whose layers are all softmax, with linear rope scaling, and for llama Llama-3's
 *          (rope_freqs.weight). One file. */
#ifndef HYB_EXPORT_H
#define HYB_EXPORT_H
#include "io/hf.h"

typedef struct {
    const char *format; /* "fla", "student", "qwen3_5", "gguf" */
    DType dtype;        /* of matrices: F32, F16 or BF16 */
    size_t shard_bytes; /* of the three directories; 0: one file */
} ExportOptions;
/* Reads the directory `from` (mapped, piece by piece), writes `to`. ERR_USAGE when the format cannot hold the model
 * exactly. */
int export_model(const char *from, const char *to, const ExportOptions *o, Err *e);

#endif
