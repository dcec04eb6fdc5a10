/* dump.h - every activation of one sequence as a safetensors file, to be compared with another run or another program.
 * */
#ifndef HYB_DUMP_H
#define HYB_DUMP_H
#include "model/model.h"

/* Runs ids (T) through m and writes float32 tensors, T rows each, in the order of computation: model.embeddings;
 * per layer model.layers.L. + attn_norm (normed input), attn.q attn.k attn.v (what the mixing op sees:
 * rotated or normalised, heads side by side), linear layers also attn.g and attn.beta (log decays, step sizes),
 * attn.o (the op's output), attn_residual, mlp_norm, mlp.gate, mlp.up,
 * mlp.act, output; model.norm; lm_head (the logits). The ids are the I32 tensor `ids`. The metadata member "order"
 * lists the names, separated by blanks; `hybridize diff` walks in this order. */
int dump_write(const char *path, Model *m, const int *ids, int T, Err *e);

#endif
