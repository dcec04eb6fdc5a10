#!/usr/bin/env python3
"""Writes what transformers computes under the names of `hybridize generate --dump`, for `hybridize diff`: activations of softmax models (Llama,
Mistral, Qwen2, Qwen3), and gradients (--gradients) of these and of students in flash-linear-attention. Needs torch, transformers and
safetensors, for students fla (on a CPU its kernels are replaced as in fla_logits.py); not part of `make test`.

    ./hybridize generate -m MODEL --prompt "Once upon a time" --max-new-tokens 0 --dump OURS [--gradients]
    python3 tests/peers/hf_dump.py MODEL OURS THEIRS [--gradients] && ./hybridize diff OURS THEIRS [--gradients --relative 1e-4]

The token ids are taken from OURS/activations.safetensors; THEIRS is a directory. A student is exported first (`export --format fla --dtype f32`).
"""
import importlib, json, os, sys
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


NAMES = {"embed_tokens": "embeddings", "input_layernorm": "attn_norm", "post_attention_layernorm": "mlp_norm", "self_attn": "attn"}


def gradients(where, ids, theirs):
    """Of the loss for labels = ids, by our names: those of fla."""
    if json.load(open(os.path.join(where, "config.json")))["model_type"] in ("gated_deltanet", "gla", "kda"):
        import fla_logits
        if not torch.cuda.is_available():
            fla_logits.replace_leaves()
        import fla
    how = {} if "fla" in sys.modules else {"attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **how).train()
    inputs = {}

    def keep(l):
        def hook(m, args, kw):
            inputs[l] = args[0] if args else kw["hidden_states"]
            inputs[l].retain_grad()
        return hook

    for l, block in enumerate(model.model.layers):
        block.register_forward_pre_hook(keep(l), with_kwargs=True)
    logits = model(ids, use_cache=False).logits[0]
    torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:]).backward()
    out = {f"model.layers.{l}.input": x.grad[0].contiguous() for l, x in inputs.items()}
    for name, p in model.named_parameters():
        out[".".join(NAMES.get(n, n) for n in name.split("."))] = p.grad.contiguous()
    save_file(out, os.path.join(theirs, "gradients.safetensors"))


def main():
    where, ours, theirs = sys.argv[1:4]
    os.makedirs(theirs, exist_ok=True)
    with safe_open(os.path.join(ours, "activations.safetensors"), "pt") as f:
        ids = f.get_tensor("ids").long()[None]
    if "--gradients" in sys.argv:
        return gradients(where, ids, theirs)
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
    save_file(out, os.path.join(theirs, "activations.safetensors"))


main()
