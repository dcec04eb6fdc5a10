/* hf_names.c - one parameter, two names: flash-linear-attention's (what params_walk says) and transformers'. */
#include "io/hf_parts.h"
#include <stdio.h>
#include <string.h>

static const struct {
    const char *fla, *hf;
} parts[] = {{"attn_norm.", "input_layernorm."}, {"mlp_norm.", "post_attention_layernorm."}, {"attn.", "self_attn."}};

int hf_name(char *out, size_t cap, const char *fla_name) {
    int layer, used = 0;
    const char *rest = fla_name;
    if (!strcmp(fla_name, "model.embeddings.weight")) rest = "model.embed_tokens.weight";
    if (sscanf(fla_name, "model.layers.%d.%n", &layer, &used) != 1 || !used)
        return snprintf(out, cap, "%s", rest) < (int)cap ? OK : ERR_INPUT;
    rest = fla_name + used;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const size_t n = strlen(parts[i].fla);
        if (!strncmp(rest, parts[i].fla, n))
            return snprintf(out, cap, "model.layers.%d.%s%s", layer, parts[i].hf, rest + n) < (int)cap ? OK : ERR_INPUT;
    }
    return snprintf(out, cap, "%s", fla_name) < (int)cap ? OK : ERR_INPUT;
}
