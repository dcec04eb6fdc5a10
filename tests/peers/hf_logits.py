#!/usr/bin/env python3
"""Compares our logits with transformers' for random tiny models of every family and layout, written by transformers itself, and for real
model directories given as arguments. Needs torch and transformers; not part of `make test`.

    make build/libhyb.a && python3 tests/peers/hf_logits.py [--lib build/libhyb.a] [--positions 4096] [--cases REGEX] [MODEL_DIR ...]

Every case prints the largest |difference| and the largest |logit|; a case fails beyond 2e-5 of the latter (float64 against float64, printed
with 9 digits; transformers computes the rotary angles in float32 all the same, which is what is left), and when prefill in one piece, in pieces of 3, and token by token disagree by more than that.
--positions N: instead, the float32 program (backend cpu) against float32 transformers on N random positions in windows of 512: largest difference
<= 2e-4 of the range of the logits, and the same most likely token on >= 99.9 % of them.
"""
import argparse, os, re, subprocess, sys, tempfile
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from safetensors import safe_open
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

LLAMA3 = {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
SMALL = dict(vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, bos_token_id=1, eos_token_id=2)


def cases():
    def llama(**kw):
        return LlamaForCausalLM(LlamaConfig(**{**SMALL, **kw}))
    yield "llama", llama(), {}
    yield "llama tied", llama(tie_word_embeddings=True), {}
    yield "llama multi-head", llama(num_key_value_heads=4), {}
    yield "llama one kv head", llama(num_key_value_heads=1), {}
    yield "llama head_dim", llama(head_dim=20), {}
    yield "llama attention_bias", llama(attention_bias=True), {}
    yield "llama rope llama3", llama(rope_parameters=dict(LLAMA3)), {}
    yield "llama rope linear", llama(rope_parameters={"rope_type": "linear", "rope_theta": 3000.0, "factor": 4.0}), {}
    yield "llama eps", llama(rms_norm_eps=1e-2), {}
    yield "llama sharded", llama(), dict(max_shard_size="20KB")
    yield "llama bf16", llama().to(torch.bfloat16), {}
    yield "llama f16", llama().to(torch.float16), {}
    yield "qwen2", Qwen2ForCausalLM(Qwen2Config(**SMALL)), {}
    yield "qwen2 tied", Qwen2ForCausalLM(Qwen2Config(**SMALL, tie_word_embeddings=True)), {}
    yield "qwen2 window", Qwen2ForCausalLM(Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=5, max_window_layers=0)), {}
    yield "qwen2 window unused", Qwen2ForCausalLM(Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=5, max_window_layers=3)), {}
    yield "qwen3", Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=16)), {}
    yield "qwen3 bias tied", Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=12, attention_bias=True, tie_word_embeddings=True)), {}
    yield "qwen3 default head_dim", Qwen3ForCausalLM(Qwen3Config(**SMALL)), {}
    yield "mistral window", MistralForCausalLM(MistralConfig(**SMALL, sliding_window=6)), {}
    yield "mistral no window", MistralForCausalLM(MistralConfig(**SMALL, sliding_window=None)), {}
    yield "mistral head_dim", MistralForCausalLM(MistralConfig(**SMALL, head_dim=8)), {}


def randomise(model):
    """Biases and norms start at 0 and 1: make everything count."""
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=g)
            p.copy_(1 + 0.3 * r if "norm" in name else r * (0.5 if p.dim() == 1 else 1.5 / p.shape[-1] ** 0.5))
    return model


def ours(tool, path, piece, ids):
    out = subprocess.run([tool, path, "ref64", str(piece)] + [str(i) for i in ids], capture_output=True, text=True)
    if out.returncode:
        raise RuntimeError(out.stderr.strip())
    return torch.tensor([[float(x) for x in line.split()] for line in out.stdout.splitlines()], dtype=torch.float64)


def compare(tool, name, path, ids):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, attn_implementation="eager").eval()
    with torch.no_grad():
        want = model(torch.tensor([ids])).logits[0].double()
    scale, bad, worst = want.abs().max().item(), False, []
    for piece in (0, 3, 1):
        got = ours(tool, path, piece, ids)
        worst.append((got - want).abs().max().item())
        bad |= not (got.shape == want.shape and worst[-1] <= 2e-5 * scale)
    print(f"{'FAIL' if bad else 'ok  '} {name:26s} T={len(ids):3d}  whole {worst[0]:.1e}  pieces {worst[1]:.1e}  decode {worst[2]:.1e}  of {scale:.2f}")
    return not bad


def compare_many(tool, name, path, voc, positions, tmp):
    """float32 against float32: differences relative to max - min of all logits, and how often the most likely token is the same."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    low, high, worst, same, n = float("inf"), float("-inf"), 0.0, 0, 0
    while n < positions:
        ids = torch.randint(0, voc, (512,)).tolist()
        dump = os.path.join(tmp, "dump.safetensors")
        subprocess.run([tool, path, "cpu", dump] + [str(i) for i in ids], check=True)
        with safe_open(dump, "pt") as f:
            got = f.get_tensor("lm_head")
        with torch.no_grad():
            want = model(torch.tensor([ids])).logits[0].float()
        low, high = min(low, want.min().item()), max(high, want.max().item())
        worst = max(worst, (got - want).abs().max().item())
        same += (got.argmax(-1) == want.argmax(-1)).sum().item()
        n += len(ids)
    good = worst <= 2e-4 * (high - low) and same >= 0.999 * n
    print(f"{'ok  ' if good else 'FAIL'} {name:26s} {n} positions: largest difference {worst / (high - low):.1e} of the range {high - low:.2f}, "
          f"same argmax {100 * same / n:.3f} %", flush=True)
    return good


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--lib", default="build/libhyb.a")
    p.add_argument("--positions", type=int, default=0)
    p.add_argument("--cases", default="", help="only random models whose name matches")
    p.add_argument("models", nargs="*")
    a = p.parse_args()
    torch.manual_seed(1)
    good = True
    with tempfile.TemporaryDirectory() as tmp:
        tool = os.path.join(tmp, "logits")
        subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O1", "-Iref", "tests/peers/logits.c", a.lib, "-fopenmp", "-lm", "-o", tool], check=True)
        for name, model, how in cases():
            if not re.search(a.cases, name):
                continue
            path = os.path.join(tmp, name.replace(" ", "_"))
            randomise(model).save_pretrained(path, **how)
            if a.positions:
                good &= compare_many(tool, name, path, 97, a.positions, tmp)
            else:
                good &= compare(tool, name, path, torch.randint(0, 97, (40,)).tolist())
        for path in a.models:
            voc = AutoModelForCausalLM.from_pretrained(path).config.vocab_size
            name = os.path.basename(path.rstrip("/"))
            if a.positions:
                good &= compare_many(tool, name, path, voc, a.positions, tmp)
            else:
                good &= compare(tool, name, path, torch.randint(0, voc, (100,)).tolist())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
