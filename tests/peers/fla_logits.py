#!/usr/bin/env python3
"""Our students in plain flash-linear-attention: exported with `hybridize export --format fla`, loaded with AutoModelForCausalLM, logits compared.

    make && python3 -m venv --system-site-packages VENV && VENV/bin/pip install --no-deps flash-linear-attention fla-core
    VENV/bin/python tests/peers/fla_logits.py        # needs torch, triton, einops, transformers besides

fla computes with Triton kernels, which need a GPU, and its attention asks for flash-attn. On a CPU the leaves are replaced here by
formulas in torch: fla's own naive_recurrent_gated_delta_rule and naive_recurrent_gla; rms_norm, the gated norm, swiglu, the short
convolution, rotation (fla's rotary_embedding_ref) and attention (scaled_dot_product_attention). Everything above the leaves (configuration,
loading, names, layers, blocks, model) is fla's. On a machine with a GPU and flash-attn, --device cuda replaces nothing.
"""
import argparse, math, os, subprocess, sys, tempfile, types
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import torch
import torch.nn.functional as F
import students


def rms(x, weight, eps):
    y = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)
    return (y * weight if weight is not None else y).to(x.dtype)


def replace_leaves():
    import fla, fla.layers.attn, fla.layers.gated_deltanet, fla.layers.gla, fla.modules, fla.modules.mlp, fla.modules.rotary.ops
    from fla.modules import FusedRMSNormGated, RMSNorm, ShortConvolution
    from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule
    from fla.ops.gla.naive import naive_recurrent_gla

    def norm(self, x, residual=None, prenorm=False, residual_in_fp32=False):
        x = x if residual is None else x + residual
        y = rms(x, self.weight, self.eps)
        return (y, x) if prenorm else y

    RMSNorm.forward = norm
    FusedRMSNormGated.forward = lambda self, x, g, *a, **k: rms(x, self.weight, self.eps) * F.silu(g)
    fla.modules.mlp.swiglu = lambda x, y: F.silu(x) * y
    fla.modules.mlp.swiglu_linear = lambda x, y, w, b: F.linear(F.silu(x) * y, w, b)

    def conv(self, x, cache=None, output_final_state=False, cu_seqlens=None, **k):
        y = F.conv1d(F.pad(x.transpose(1, 2), (self.weight.shape[-1] - 1, 0)), self.weight, groups=self.weight.shape[0]).transpose(1, 2)
        return F.silu(y), None

    ShortConvolution.forward = conv
    fla.layers.gated_deltanet.GatedDeltaNet._use_fused_qkv_conv = lambda self, **k: False

    def delta(q, k, v, g, beta, A_log=None, dt_bias=None, initial_state=None, output_final_state=False, **kw):
        assert kw.get("use_qk_l2norm_in_kernel") and kw.get("use_gate_in_kernel") and kw.get("use_beta_sigmoid_in_kernel") and initial_state is None
        q, k = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (q, k))
        g = -A_log.float().exp() * F.softplus(g.float() + dt_bias.float())
        return naive_recurrent_gated_delta_rule(q, k, v, beta.sigmoid(), g)

    def gla(q, k, v, gk=None, g=None, initial_state=None, **kw):
        return naive_recurrent_gla(q, k, v, gk if gk is not None else g)

    fla.layers.gated_deltanet.chunk_gated_delta_rule = fla.layers.gated_deltanet.fused_recurrent_gated_delta_rule = delta
    fla.layers.gla.chunk_gla = fla.layers.gla.fused_chunk_gla = fla.layers.gla.fused_recurrent_gla = gla

    def rotate(x, cos, sin, interleaved=False, inplace=False, seqlen_offsets=0, cu_seqlens=None, chunk_indices=None):
        return fla.modules.rotary.ops.rotary_embedding_ref(x, cos[:x.shape[1]], sin[:x.shape[1]], interleaved)

    fla.modules.rotary.ops.rotary_embedding = rotate

    def attention(q, k, v, causal=True, window_size=(-1, -1), **kw):
        T, n = q.shape[1], q.shape[2] // k.shape[2]
        q, k, v = (x.transpose(1, 2) for x in (q, k.repeat_interleave(n, 2), v.repeat_interleave(n, 2)))
        i = torch.arange(T)
        mask = i[:, None] >= i[None]
        if window_size[0] >= 0:
            mask &= i[:, None] - i[None] <= window_size[0]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

    fla.layers.attn.flash_attn_func = attention


CASES = [("gdn_v4, tied", dict()), ("gdn_v4, head of its own", dict(tied=False)), ("gdn_v4, biases (Qwen2)", dict(bias=True)),
         ("gdn_v4, no softmax layer", dict(softmax=())), ("gdn_v4, eps 1e-5, theta 5e5", dict(eps=1e-5, theta=5e5)), ("gdn_v3", dict(kind="gdn_v3")),
         ("gdn_v1", dict(kind="gdn_v1")), ("gdn_v2", dict(kind="gdn_v2")), ("gdn_v4, window 7", dict(window=7)), ("gla_v1, tied", dict(kind="gla_v1")),
         ("gla_v1, head of its own, biases", dict(kind="gla_v1", tied=False, bias=True, eps=1e-5))]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--device", default="cpu")
    p.add_argument("--only-models", action="store_true", help="leave the random students out")
    p.add_argument("models", nargs="*", help="student directories to check as well")
    a = p.parse_args()
    if a.device == "cpu":
        replace_leaves()
    import fla
    from transformers import AutoModelForCausalLM
    good = True
    with tempfile.TemporaryDirectory() as tmp:
        tool, jobs = students.build_tool(tmp), []
        for name, how in [] if a.only_models else CASES:
            path = os.path.join(tmp, "s%d" % len(jobs))
            students.make(path, seed=len(jobs) + 1, **how)
            jobs.append((name, path))
        jobs += [(os.path.basename(m.rstrip("/")) or m, m) for m in a.models]
        for k, (name, path) in enumerate(jobs):
            out = os.path.join(tmp, "out%d" % k)
            subprocess.run(["./hybridize", "export", "--format", "fla", "-m", path, "-o", out, "--dtype", "f32"], check=True)
            model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval().to(a.device)
            ids = torch.randint(0, model.config.vocab_size, (90,), generator=torch.Generator().manual_seed(3)).tolist()
            with torch.no_grad():
                got = model(torch.tensor([ids], device=a.device), use_cache=False).logits[0].double().cpu()
            good &= students.report(name, students.logits(tool, path, ids), got)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
