"""Random small students in the layout that runs write (fla's names), made without our own writer, and our logits for them. Used by
fla_logits.py and qwen35_logits.py."""
import json, os, subprocess
import torch
from safetensors.torch import save_file


def make(path, kind="gdn_v4", layers=4, softmax=(1, 3), C=64, H=4, Hk=2, D=16, F=96, V=101, tied=True, bias=False, qk_norm=False,
         theta=10000.0, eps=1e-6, window=None, seed=1):
    os.makedirs(path, exist_ok=True)
    g, t = torch.Generator().manual_seed(seed), {}

    def matrix(name, *shape, gain=1.5):
        t[name] = torch.randn(shape, generator=g) * gain / shape[-1] ** 0.5

    def vector(name, n, mean=1.0, spread=0.3):
        t[name] = mean + spread * torch.randn(n, generator=g)

    matrix("model.embeddings.weight", V, C, gain=C ** 0.5)
    vector("model.norm.weight", C)
    if not tied:
        matrix("lm_head.weight", V, C)
    for l in range(layers):
        p, keep = f"model.layers.{l}.", l in softmax
        vector(p + "attn_norm.weight", C)
        vector(p + "mlp_norm.weight", C)
        for n, o, i in (("mlp.gate_proj", F, C), ("mlp.up_proj", F, C), ("mlp.down_proj", C, F), ("attn.q_proj", H * D, C),
                        ("attn.k_proj", (Hk if keep else H) * D, C), ("attn.v_proj", (Hk if keep else H) * D, C), ("attn.o_proj", C, H * D)):
            matrix(p + n + ".weight", o, i)
            if keep and bias and n in ("attn.q_proj", "attn.k_proj", "attn.v_proj"):
                vector(p + n + ".bias", o, 0.0)
        if keep and qk_norm:
            vector(p + "attn.q_norm.weight", D)
            vector(p + "attn.k_norm.weight", D)
        if keep:
            continue
        if kind == "gla_v1":
            matrix(p + "attn.gk_proj.0.weight", 16, C)
            matrix(p + "attn.gk_proj.1.weight", H * D, 16)
            vector(p + "attn.gk_proj.1.bias", H * D, 0.0)
            matrix(p + "attn.g_proj.weight", H * D, C)
            vector(p + "attn.g_norm_swish_gate.weight", D)
            continue
        matrix(p + "attn.a_proj.weight", H, C)
        matrix(p + "attn.b_proj.weight", H, C)
        t[p + "attn.A_log"] = torch.log(1 + 15 * torch.rand(H, generator=g))
        vector(p + "attn.dt_bias", H, -3.0, 1.0)
        vector(p + "attn.o_norm.weight", D)
        if kind in ("gdn_v3", "gdn_v4"):
            matrix(p + "attn.g_proj.weight", H * D, C)
        if kind in ("gdn_v1", "gdn_v3"):
            for n in "qkv":
                t[p + f"attn.{n}_conv1d.weight"] = torch.randn(H * D, 1, 4, generator=g) * 0.6
    save_file({k: v.contiguous() for k, v in t.items()}, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    c = dict(hidden_size=C, intermediate_size=F, hidden_ratio=4, hidden_act="swish", num_hidden_layers=layers, num_heads=H, norm_eps=eps,
             max_position_embeddings=512, tie_word_embeddings=tied, vocab_size=V, bos_token_id=1, eos_token_id=2, attn_mode="chunk",
             attn=dict(layers=list(softmax), num_heads=H, num_kv_heads=Hk, qkv_bias=bias, window_size=window, rope_theta=theta))
    if kind == "gla_v1":
        c.update(model_type="gla", architectures=["GLAForCausalLM"], expand_k=1, expand_v=1, use_output_gate=True, use_gk=True)
    else:
        c.update(model_type="gated_deltanet", architectures=["GatedDeltaNetForCausalLM"], head_dim=D, expand_v=1,
                 use_gate=kind in ("gdn_v3", "gdn_v4"), use_short_conv=kind in ("gdn_v1", "gdn_v3"), conv_size=4)
    if qk_norm or D * H != C:  # what fla has no field for
        c["hybridize"] = dict(version=1, family="qwen3" if qk_norm else "llama", head_dim=D, num_key_value_heads=Hk, qk_norm=qk_norm,
                              mixers=["softmax" if l in softmax else kind for l in range(layers)], rope_parameters=dict(rope_type="default", rope_theta=theta))
    json.dump(c, open(os.path.join(path, "config.json"), "w"), indent=2)


def build_tool(where, lib="build/libhyb.a"):
    tool = os.path.join(where, "logits")
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O1", "-Iref", "tests/peers/logits.c", lib, "-fopenmp", "-lm", "-o", tool], check=True)
    return tool


def logits(tool, path, ids):
    out = subprocess.run([tool, path, "ref64", "0"] + [str(i) for i in ids], capture_output=True, text=True)
    if out.returncode:
        raise RuntimeError(out.stderr.strip())
    return torch.tensor([[float(x) for x in line.split()] for line in out.stdout.splitlines()], dtype=torch.float64)


def report(name, got, want, ours="ours", tolerance=2e-5):
    scale, worst = want.abs().max().item(), (got - want).abs().max().item()
    same = (got.argmax(-1) == want.argmax(-1)).double().mean().item()
    good = worst <= tolerance * scale and same == 1
    print(f"{'ok  ' if good else 'FAIL'} {name:34s} T={len(got):3d} largest difference {worst:.1e} of {scale:.2f}, same argmax {100 * same:.1f} %")
    return good
