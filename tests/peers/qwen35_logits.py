#!/usr/bin/env python3
"""Students of Qwen3 as Qwen3.5: `hybridize export --format qwen3_5`, loaded by transformers' Qwen3_5ForCausalLM, logits compared with ours;
and `--format gguf`, whose tensors (read by llama.cpp's package gguf, where it is installed) must be those of the qwen3_5 directory under
llama.cpp's names, with its conventions (norms as w, ssm_a = -exp(A_log)).
Needs torch and a transformers that has the architecture; not part of `make test`.

    make && python3 tests/peers/qwen35_logits.py
"""
import json, os, subprocess, sys, tempfile
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM
import students

Q = dict(qk_norm=True)
CASES = [("gdn_v4, head size 24 of 64/4", dict(Q, D=24)), ("gdn_v4, head of its own", dict(Q, tied=False)), ("gdn_v3", dict(Q, kind="gdn_v3")),
         ("gdn_v4, layers 0 and 2 softmax", dict(Q, softmax=(0, 2), theta=1e6)), ("gdn_v4, no softmax layer", dict(softmax=())),
         ("gdn_v3, eps 1e-5, one kv head", dict(Q, kind="gdn_v3", eps=1e-5, Hk=1))]
PARTS = {"attn_qkv": "linear_attn.in_proj_qkv", "attn_gate": "linear_attn.in_proj_z", "ssm_beta": "linear_attn.in_proj_b", "ssm_dt": "linear_attn.dt_bias",
         "ssm_alpha": "linear_attn.in_proj_a", "ssm_conv1d": "linear_attn.conv1d", "ssm_norm": "linear_attn.norm", "ssm_out": "linear_attn.out_proj",
         "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "attn_norm": "input_layernorm",
         "post_attention_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
BYTES = dict(version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None, post_processor=None,
             pre_tokenizer=dict(type="ByteLevel", add_prefix_space=False, trim_offsets=False, use_regex=False),
             decoder=dict(type="ByteLevel", add_prefix_space=False, trim_offsets=False, use_regex=False),
             model=dict(type="BPE", dropout=None, unk_token=None, fuse_unk=False, byte_fallback=False, ignore_merges=False, merges=[],
                        vocab={chr(c): i for i, c in enumerate(range(33, 127))}))


def check_gguf(name, path, hf, out):
    try:
        from gguf import GGUFReader
    except ImportError:
        print("SKIP gguf: the package is not installed")
        return True
    json.dump(BYTES, open(os.path.join(path, "tokenizer.json"), "w"))
    r = subprocess.run(["./hybridize", "export", "--format", "gguf", "-m", path, "-o", out, "--dtype", "f32"], capture_output=True, text=True)
    if r.returncode == 2:
        print(f"--   {name:34s} {r.stderr.splitlines()[0]}")
        return True
    reader, worst = GGUFReader(out), 0.0
    config = json.load(open(os.path.join(hf, "config.json")))
    flags = [bool(x[0]) for x in (reader.fields["qwen35.attention.recurrent_layers"].parts[i] for i in reader.fields["qwen35.attention.recurrent_layers"].data)]
    good = flags == [t == "linear_attention" for t in config["layer_types"]]
    with safe_open(os.path.join(hf, "model.safetensors"), "np") as f:
        names = set(f.keys())
        for t in reader.tensors:
            part = t.name.split(".")
            if part[0] != "blk":
                other = OUTER[t.name]
            elif part[2] == "ssm_a":
                other = f"model.layers.{part[1]}.linear_attn.A_log"
            else:
                other = f"model.layers.{part[1]}.{PARTS[part[2]]}" + ("" if part[2] == "ssm_dt" else ".weight")
            want = f.get_tensor(other).astype(np.float64)
            names.remove(other)
            if other.endswith("A_log"):
                want = -np.exp(want)
            elif "norm" in other and "linear_attn" not in other:
                want = want + 1
            worst = max(worst, float(np.abs(np.array(t.data, np.float64).reshape(want.shape) - want).max()))
    good &= worst <= 3e-6 and not names
    print(f"{'ok  ' if good else 'FAIL'} {name:34s} gguf: {len(reader.tensors)} tensors, largest difference {worst:.1e}")
    return good


def main():
    good = True
    with tempfile.TemporaryDirectory() as tmp:
        tool = students.build_tool(tmp)
        for k, (name, how) in enumerate(CASES):
            path, out = os.path.join(tmp, f"s{k}"), os.path.join(tmp, f"q{k}")
            students.make(path, seed=k + 1, **how)
            subprocess.run(["./hybridize", "export", "--format", "qwen3_5", "-m", path, "-o", out, "--dtype", "f32"], check=True)
            model, info = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float64, attn_implementation="eager", output_loading_info=True)
            ids = torch.randint(0, 101, (90,), generator=torch.Generator().manual_seed(3)).tolist()
            with torch.no_grad():
                got = model.eval()(torch.tensor([ids]), use_cache=False).logits[0].double()
            if info["missing_keys"] or info["unexpected_keys"]:
                print("FAIL", name, {k: v for k, v in info.items() if v})
                good = False
            good &= students.report(f"{name} ({type(model).__name__})", students.logits(tool, path, ids), got)
            good &= check_gguf(name, path, out, os.path.join(tmp, f"g{k}.gguf"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
