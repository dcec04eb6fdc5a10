#!/usr/bin/env python3
"""Writes the activations of transformers under the names of `hybridize generate --dump`, for `hybridize diff`. Softmax models only
(Llama, Mistral, Qwen2, Qwen3). Needs torch, transformers and safetensors; not part of `make test`.

    ./hybridize generate -m MODEL --prompt "Once upon a time" --max-new-tokens 0 --dump OURS
    python3 tests/peers/hf_dump.py MODEL OURS THEIRS && ./hybridize diff OURS THEIRS

The token ids are taken from OURS/activations.safetensors; THEIRS is a directory.
"""
import importlib, os, sys
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


def main():
    where, ours, theirs = sys.argv[1:4]
    with safe_open(os.path.join(ours, "activations.safetensors"), "pt") as f:
        ids = f.get_tensor("ids").long()[None]
    model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, attn_implementation="eager").eval()
    out = {}

    def flat(t):
        return t.detach().reshape(-1, t.shape[-1]).float().contiguous().clone()

    def after(module, name):
        module.register_forward_hook(lambda m, i, o: out.__setitem__(name, flat(o[0] if isinstance(o, tuple) else o)))

    def before(module, name):
        module.register_forward_pre_hook(lambda m, i: out.__setitem__(name, flat(i[0])))

    # q and k after rotation: every layer calls this function of the model's module once, in order
    code = importlib.import_module(type(model).__module__)
    rotate, layer = code.apply_rotary_pos_emb, [0]

    def heads(t):  # (1, heads, T, D) -> (T, heads * D)
        return t.detach()[0].transpose(0, 1).reshape(t.shape[2], -1).float().contiguous().clone()

    def rotated(*a, **kw):
        q, k = rotate(*a, **kw)
        out[f"model.layers.{layer[0]}.attn.q"], out[f"model.layers.{layer[0]}.attn.k"] = heads(q), heads(k)
        layer[0] += 1
        return q, k

    code.apply_rotary_pos_emb = rotated
    after(model.model.embed_tokens, "model.embeddings")
    for l, b in enumerate(model.model.layers):
        p = f"model.layers.{l}."
        after(b.input_layernorm, p + "attn_norm")
        after(b.self_attn.v_proj, p + "attn.v")
        before(b.self_attn.o_proj, p + "attn.o")
        before(b.post_attention_layernorm, p + "attn_residual")
        after(b.post_attention_layernorm, p + "mlp_norm")
        after(b.mlp.gate_proj, p + "mlp.gate")
        after(b.mlp.up_proj, p + "mlp.up")
        before(b.mlp.down_proj, p + "mlp.act")
        after(b, p + "output")
    after(model.model.norm, "model.norm")
    after(model.lm_head, "lm_head")
    with torch.no_grad():
        model(ids)
    os.makedirs(theirs, exist_ok=True)
    save_file(out, os.path.join(theirs, "activations.safetensors"))


main()
