"""implementations.py - the ops of the conformance pack as other projects compute them: TABLE[impl][op] is a list of (name, function). A function
takes the inputs by name, as tensors of its framework, and the case's numbers, and returns outputs by name. What it must change on the way
(transposes, repeated heads, a scale, documents one by one) is the difference of conventions that tests/conformance/README.md tells.
Raises Skip for a case that it cannot express."""
import math
import os
import sys


class Skip(Exception):
    pass


def per_document(scan):
    """For scans that know no documents: one call for each document of each row; the state goes into the first, and comes out of the last."""

    def run(x, n, cat):
        start = x.pop("start", None)
        if start is None:
            return scan(x, n)
        outs = []
        for b in range(int(n["B"])):
            row = [int(s) for s in start[b]]
            first = [0] + [t for t in range(1, len(row)) if row[t] == t] + [len(row)]
            o, state = [], x["S0"][b:b + 1]
            for begin, end in zip(first, first[1:]):
                part = {k: v[b:b + 1, begin:end] for k, v in x.items() if k != "S0"}
                out = scan({**part, "S0": state if begin == 0 else 0 * x["S0"][b:b + 1]}, n)
                o.append(out["o"])
                state = out["final"]
            outs.append((cat(o, 1), state))
        return {"o": cat([o for o, _ in outs], 0), "final": cat([s for _, s in outs], 0)}

    return run


def interpret_triton():
    """Lets fla's kernels run in Triton's interpreter (TRITON_INTERPRET=1: numpy, no GPU, minutes instead of seconds), which lacks two things: the
    autotuner would time configurations on a device, so the first one is taken; and a loop over range(n) must count in Triton's integers, since
    the kernels convert the counter (compiled, it is one)."""
    import triton.language as tl
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.interpreter import _implicit_cvt

    def counted(*bounds):
        plain = range(*(int(b) for b in bounds))
        return map(_implicit_cvt, plain) if any(isinstance(b, tl.tensor) for b in bounds) else plain

    Autotuner.prune_configs = lambda self, kwargs: self.configs[:1]
    for name, module in list(sys.modules.items()):
        if name.startswith("fla.ops"):
            module.range = counted


def torch_tables():
    import torch
    import torch.nn.functional as F

    def scan(f):
        run = per_document(f)
        return lambda x, n: run(dict(x), n, torch.cat)

    def heads(x, n):
        r = int(n["H"] // n["Hk"])
        return [x[k].repeat_interleave(r, 2) for k in ("q", "k")] if r > 1 else [x["q"], x["k"]]

    def fixed_scale(q, n):  # for those whose scale is K^-1/2
        return q * (n["scale"] * math.sqrt(n["K"]))

    def gate(x, n):
        a = x["a"] if "a" in x else x["f"]
        A = x["A_log"] if "a" in x else x["A_log"][:, None]
        return {"g": -A.exp() * F.softplus(a + x["dt_bias"]), "beta": torch.sigmoid(x["b"])}

    def mixer(gates, f):
        def run(x, n):
            made = gates(x, n)
            out = f({**{k: v for k, v in x.items() if k in ("q", "k", "v", "S0", "start")}, **made}, n)
            return {**out, **made}
        return run

    def mask(x, n):
        T, w = int(n["T"]), n["window"]
        i, j = torch.arange(T)[:, None], torch.arange(T)[None]
        m = (j <= i) & ((j > i - w) if w > 0 else torch.ones(T, T, dtype=torch.bool))
        return (m & (j >= x["start"][:, :, None]))[:, None] if "start" in x else m[None, None].expand(int(n["B"]), 1, T, T)

    def attention(f):
        def run(x, n):
            if n["past"] or n["stride"]:
                raise Skip("a cache")
            return {"o": f(*(x[k].transpose(1, 2) for k in "qkv"), mask(x, n), n).transpose(1, 2)}
        return run

    def conv(f):
        def run(x, n):
            if "start" in x:  # documents one by one
                rows = []
                for b, row in enumerate(x["start"]):
                    cut = [0] + [t for t in range(1, len(row)) if row[t] == t] + [len(row)]
                    rows.append(torch.cat([f(x["x"][b:b + 1, i:j], x["w"]) for i, j in zip(cut, cut[1:])], 1))
                y = torch.cat(rows)
            else:
                y = f(x["x"], x["w"])
            tail = F.pad(x["x"], (0, 0, int(n["W"]) - 1, 0))[:, x["x"].shape[1]:]
            return {"y": y, "tail_out": tail}
        def with_tail(x, n):
            if "tail_in" not in x:
                return run(x, n)
            out = run({**x, "x": torch.cat([x["tail_in"], x["x"]], 1)}, n)
            if "start" in x:
                raise Skip("a tail and documents")
            return {"y": out["y"][:, int(n["W"]) - 1:], "tail_out": out["tail_out"]}
        return with_tail

    def plain_conv(x, w):
        W = w.shape[1]
        return F.conv1d(F.pad(x.transpose(1, 2), (W - 1, 0)), w[:, None], groups=w.shape[0]).transpose(1, 2)

    def weighted(x, loss):
        return {"loss": loss if "weight" not in x else torch.where(x["weight"] != 0, loss, 0 * loss)}

    def xent(x, n):
        z, target = x["x"] @ x["w"].T, x["target"].long()
        if "weight" in x:
            target = torch.where(x["weight"] != 0, target, 0)
        return {**weighted(x, F.cross_entropy(z.float() if z.dtype == torch.bfloat16 else z, target, reduction="none"))}

    def kl(x, n):
        tau = n["tau"]
        s, t = ((a @ b.T / tau).log_softmax(-1) for a, b in ((x["x"], x["w"]), (x["xt"], x["wt"])))
        return weighted(x, tau ** 2 * F.kl_div(s, t, reduction="none", log_target=True).sum(-1))

    def sdpa(q, k, v, m, n):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=m, scale=n["scale"], enable_gqa=True)

    def rms(x, n):
        return F.rms_norm(x["x"], (x["x"].shape[-1],), x["w"], n["eps"])

    def rotate(x, n, f):
        table = x["table"][int(n["pos"]):]
        return {"y": f(x["x"], table[..., 0], table[..., 1])}

    torch_table = {
        "attention": [("scaled_dot_product_attention", attention(sdpa))],
        "rmsnorm": [("F.rms_norm", lambda x, n: {"y": rms(x, n)})],
        "gated_rmsnorm": [("F.rms_norm * F.silu", lambda x, n: {"y": rms(x, n) * F.silu(x["z"])})],
        "sigmoid_rmsnorm": [("F.rms_norm * sigmoid", lambda x, n: {"y": rms(x, n) * torch.sigmoid(x["z"])})],
        "conv": [("F.conv1d", conv(plain_conv))],
        "delta_gate": [("F.softplus, sigmoid", gate)],
        "kda_gate": [("F.softplus, sigmoid", gate)],
        "gla_gate": [("F.logsigmoid", lambda x, n: {"g": F.logsigmoid(x["x"]) / n["normalizer"]})],
        "head_xent": [("F.cross_entropy", xent)],
        "head_kl": [("F.kl_div", kl)],
    }

    def fla_table():
        from fla.modules.norm.layernorm import rms_norm_ref
        from fla.modules.norm.layernorm_gated import rms_norm_ref as gated_ref
        from fla.modules.rotary.ops import rotary_embedding_ref
        from fla.ops.gated_delta_rule.gate import naive_gdn_gate
        from fla.ops.gated_delta_rule.naive import naive_chunk_gated_delta_rule, naive_recurrent_gated_delta_rule
        from fla.ops.gla.naive import naive_recurrent_gla
        from fla.ops.kda.gate import naive_kda_gate
        from fla.ops.kda.naive import naive_chunk_kda, naive_recurrent_kda

        def delta(f):
            def run(x, n):
                q, k = heads(x, n)
                o, s = f(q, k, x["v"], g=x["g"], beta=x["beta"], scale=n["scale"], initial_state=x["S0"], output_final_state=True)
                return {"o": o, "final": s}
            return scan(run)

        def chunk_kda(*a, **k):  # takes whole chunks only
            T = a[0].shape[1]
            return naive_chunk_kda(*a, chunk_size=max(c for c in range(1, 65) if T % c == 0), **k)

        def gla(x, n):
            r = int(n["H"] // n["Hk"])
            q, k, g = (x[i].repeat_interleave(r, 2) for i in ("q", "k", "g"))
            o, s = naive_recurrent_gla(fixed_scale(q, n), k, x["v"], g, x["S0"], True)
            return {"o": o, "final": s}

        def gates(x, n):
            f = naive_gdn_gate if "a" in x else naive_kda_gate
            return {"g": f(x["a" if "a" in x else "f"], x["A_log"], x["dt_bias"]), "beta": torch.sigmoid(x["b"])}

        return {
            "delta_rule": [("naive_recurrent_gated_delta_rule", delta(naive_recurrent_gated_delta_rule)),
                           ("naive_chunk_gated_delta_rule", delta(naive_chunk_gated_delta_rule))],
            "kda": [("naive_recurrent_kda", delta(naive_recurrent_kda)), ("naive_chunk_kda", delta(chunk_kda))],
            "gla": [("naive_recurrent_gla", scan(gla))],
            "gdn_mixer": [("naive_gdn_gate + recurrent", mixer(gates, delta(naive_recurrent_gated_delta_rule)))],
            "kda_mixer": [("naive_kda_gate + recurrent", mixer(gates, delta(naive_recurrent_kda)))],
            "delta_gate": [("naive_gdn_gate", gates)],
            "kda_gate": [("naive_kda_gate", gates)],
            "rmsnorm": [("rms_norm_ref", lambda x, n: {"y": rms_norm_ref(x["x"], x["w"], None, eps=n["eps"])})],
            "gated_rmsnorm": [("rms_norm_ref(z)", lambda x, n: {"y": gated_ref(x["x"], x["w"], None, x["z"], n["eps"])})],
            "rope": [("rotary_embedding_ref", lambda x, n: rotate(x, n, rotary_embedding_ref))],
        }

    def transformers_table():
        from transformers.models.kimi_linear import modeling_kimi_linear as kimi
        from transformers.models.llama import modeling_llama as llama
        from transformers.models.qwen3_next import modeling_qwen3_next as qwen

        def plain(f):  # kernels from a hub would replace it; here the torch text is meant
            return getattr(f, "__wrapped__", f)

        def delta(f, grouped):
            def run(x, n):
                q, k = (x["q"], x["k"]) if grouped else heads(x, n)
                o, s = plain(f)(fixed_scale(q, n), k, x["v"], g=x["g"], beta=x["beta"], initial_state=x["S0"], output_final_state=True)
                return {"o": o, "final": s}
            return scan(run)

        def norm(kind):
            def run(x, n):
                m = kind(x["x"].shape[-1], eps=n["eps"])
                m.weight = None
                del m._parameters["weight"]
                m.weight = x["w"]
                return {"y": m(x["x"], x["z"]) if "z" in x else m(x["x"])}
            return run

        def eager(q, k, v, m, n):
            class Module:
                num_key_value_groups, training = int(n["H"] // n["Hk"]), False
            add = torch.zeros(m.shape, dtype=q.dtype).masked_fill(~m, torch.finfo(q.dtype).min)
            return llama.eager_attention_forward(Module, q, k, v, add, n["scale"])[0].transpose(1, 2)

        def rope(x, cos, sin):
            cos, sin = (torch.cat([t, t], -1)[None].to(x.dtype) for t in (cos, sin))
            return llama.apply_rotary_pos_emb(x, x, cos, sin, unsqueeze_dim=2)[0]

        def short_conv(x, w):
            return plain(kimi.causal_conv1d_fn)(x.transpose(1, 2), w).transpose(1, 2)

        return {
            "delta_rule": [("torch_recurrent_gated_delta_rule", delta(qwen.torch_recurrent_gated_delta_rule, True)),
                           ("torch_chunk_gated_delta_rule", delta(qwen.torch_chunk_gated_delta_rule, True))],
            "kda": [("recurrent_kimi_delta_attention", delta(kimi.recurrent_kimi_delta_attention, False)),
                    ("chunk_kimi_delta_attention", delta(kimi.chunk_kimi_delta_attention, False))],
            "gdn_mixer": [("gate + torch_chunk_gated_delta_rule", mixer(gate, delta(qwen.torch_chunk_gated_delta_rule, True)))],
            "kda_mixer": [("gate + chunk_kimi_delta_attention", mixer(gate, delta(kimi.chunk_kimi_delta_attention, False)))],
            "attention": [("eager_attention_forward", attention(eager))],
            "rmsnorm": [("LlamaRMSNorm", norm(llama.LlamaRMSNorm))],
            "gated_rmsnorm": [("Qwen3NextRMSNormGated", norm(qwen.Qwen3NextRMSNormGated))],
            "sigmoid_rmsnorm": [("KimiLinearRMSNormGated", norm(kimi.KimiLinearRMSNormGated))],
            "conv": [("causal_conv1d_fn", conv(short_conv))],
            "rope": [("apply_rotary_pos_emb", lambda x, n: rotate(x, n, rope))],
        }

    def triton_table():
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        device = "cuda" if torch.cuda.is_available() and not interpreted else "cpu"
        if device == "cpu" and not interpreted:
            raise Skip("torch sees no GPU (TRITON_INTERPRET=1 runs the kernels in Triton's interpreter)")
        try:
            from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule
            from fla.ops.gla import chunk_gla, fused_recurrent_gla
            from fla.ops.kda import chunk_kda, fused_recurrent_kda
        except ImportError as e:
            raise Skip("%s: pip install --no-deps flash-linear-attention fla-core einops" % e)
        if interpreted:
            interpret_triton()

        def packed(x, n):
            """Rows of documents as fla has them: one row, cu_seqlens, a state for each document, of which ours are the first and the last of a row."""
            B, T = int(n["B"]), int(n["T"])
            first = [b * T + t for b, row in enumerate(x.pop("start").tolist()) for t in range(T) if t == 0 or row[t] == t]
            begins = torch.tensor([i for i, at in enumerate(first) if at % T == 0], device=device)
            state = torch.zeros(len(first), *x["S0"].shape[1:], dtype=x["S0"].dtype, device=device).index_copy(0, begins, x["S0"])
            ends = torch.cat([begins[1:], torch.tensor([len(first)], device=device)]) - 1
            flat = {k: v.flatten(0, 1)[None] for k, v in x.items() if k != "S0" and v.shape[:2] == (B, T)}
            return {**x, **flat, "S0": state}, torch.tensor(first + [B * T], device=device), ends

        def kernel(f, arguments, backward=True):
            def run(x, n):
                x = {k: v.to(device) for k, v in x.items()}
                x, cu, ends = packed(x, n) if "start" in x else (x, None, slice(None))
                with torch.set_grad_enabled(backward):
                    o, s = f(**arguments(x, n), scale=n["scale"], initial_state=x["S0"], output_final_state=True, cu_seqlens=cu)
                return {"o": o.reshape(int(n["B"]), int(n["T"]), *o.shape[2:]).cpu(), "final": s[ends].cpu()}
            return run

        def delta(x, n):  # grouped heads, log decays and K-first states as here
            return {k: x[k] for k in ("q", "k", "v", "g", "beta")}

        def gla(gate):
            def run(x, n):
                r = int(n["H"] // n["Hk"])
                q, k, g = (x[i].repeat_interleave(r, 2) for i in ("q", "k", "g"))
                return {"q": q, "k": k, "v": x["v"], gate: g}
            return run

        def gate_inside(x, n):
            g = x["a"] if "a" in x else x["f"]
            return {"q": x["q"], "k": x["k"], "v": x["v"], "g": g, "beta": x["b"], "A_log": x["A_log"], "dt_bias": x["dt_bias"].reshape(-1),
                    "use_gate_in_kernel": True, "use_beta_sigmoid_in_kernel": True}

        return {  # two recurrent kernels have no backward
            "delta_rule": [("chunk_gated_delta_rule", kernel(chunk_gated_delta_rule, delta)),
                           ("fused_recurrent_gated_delta_rule", kernel(fused_recurrent_gated_delta_rule, delta, backward=False))],
            "kda": [("chunk_kda", kernel(chunk_kda, delta)), ("fused_recurrent_kda", kernel(fused_recurrent_kda, delta, backward=False))],
            "gla": [("chunk_gla", kernel(chunk_gla, gla("g"))), ("fused_recurrent_gla", kernel(fused_recurrent_gla, gla("gk")))],
            "gdn_mixer": [("chunk_gated_delta_rule(use_gate_in_kernel)", kernel(chunk_gated_delta_rule, gate_inside))],
            "kda_mixer": [("chunk_kda(use_gate_in_kernel)", kernel(chunk_kda, gate_inside))],
        }

    return {"torch": lambda: torch_table, "fla_naive": fla_table, "fla_triton": triton_table, "transformers": transformers_table}


def mlx_table():
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm.models import gated_delta

    def delta(x, n):
        g = mx.exp(x["g"])
        y, s = gated_delta.gated_delta_ops(x["q"] * n["scale"], x["k"], x["v"], g, x["beta"], x["S0"].swapaxes(-1, -2))
        return {"o": y, "final": s.swapaxes(-1, -2)}

    def scan(f):
        run = per_document(f)
        return lambda x, n: run(dict(x), n, mx.concatenate)

    def attention(x, n):
        if n["past"] or n["stride"]:
            raise Skip("a cache")
        T, w = int(n["T"]), n["window"]
        i, j = mx.arange(T)[:, None], mx.arange(T)[None]
        m = (j <= i) & ((j > i - w) if w > 0 else (j == j))
        m = (m[None] & (j[None] >= x["start"][:, :, None]))[:, None] if "start" in x else m
        return {"o": mx.fast.scaled_dot_product_attention(*(x[k].swapaxes(1, 2) for k in "qkv"), scale=n["scale"], mask=m).swapaxes(1, 2)}

    def conv(x, n):
        if "start" in x:
            raise Skip("documents")
        W = int(n["W"])
        full = mx.concatenate([x["tail_in"], x["x"]], 1) if "tail_in" in x else mx.pad(x["x"], [(0, 0), (W - 1, 0), (0, 0)])
        return {"y": mx.conv1d(full, x["w"][..., None], groups=x["w"].shape[0]), "tail_out": full[:, full.shape[1] - W + 1:]}

    def rms(x, n):
        return mx.fast.rms_norm(x["x"], x["w"], n["eps"])

    def xent(x, n):
        ok = x["weight"] != 0 if "weight" in x else x["target"] == x["target"]
        target = mx.stop_gradient(mx.where(ok, x["target"], 0))
        loss = nn.losses.cross_entropy(x["x"] @ x["w"].T, target)
        return {"loss": mx.where(ok, loss, 0 * loss)}

    def kl(x, n):
        tau = n["tau"]
        s, t = (nn.log_softmax(a @ b.T / tau, -1) for a, b in ((x["x"], x["w"]), (x["xt"], x["wt"])))
        loss = tau ** 2 * nn.losses.kl_div_loss(s, t, axis=-1)
        return {"loss": loss if "weight" not in x else mx.where(x["weight"] != 0, loss, 0 * loss)}

    # compute_g gives e^g, whose logarithm is lost where it underflows: there is nothing to compare with a log decay.
    return {
        "delta_rule": [("gated_delta_ops", scan(delta))],
        "kda": [("gated_delta_ops", scan(delta))],
        "gla_gate": [("nn.log_sigmoid", lambda x, n: {"g": nn.log_sigmoid(x["x"]) / n["normalizer"]})],
        "attention": [("fast.scaled_dot_product_attention", attention)],
        "conv": [("conv1d", conv)],
        "rmsnorm": [("fast.rms_norm", lambda x, n: {"y": rms(x, n)})],
        "gated_rmsnorm": [("fast.rms_norm * nn.silu", lambda x, n: {"y": rms(x, n) * nn.silu(x["z"])})],
        "sigmoid_rmsnorm": [("fast.rms_norm * sigmoid", lambda x, n: {"y": rms(x, n) * mx.sigmoid(x["z"])})],
        "head_xent": [("nn.losses.cross_entropy", xent)],
        "head_kl": [("nn.losses.kl_div_loss", kl)],
    }


NAMES = ("fla_naive", "fla_triton", "torch", "transformers", "mlx")


def table(impl):
    return mlx_table() if impl == "mlx" else torch_tables()[impl]()


def run_torch(function, case, dtype):
    """Outputs and gradients of `function` by name as numpy arrays, activations in `dtype`, gates and states in float (double for float64); and
    the names of those that came back in bfloat16."""
    import torch
    types = {"real": getattr(torch, dtype), "wide": torch.float64 if dtype == "float64" else torch.float32}
    x = {k: torch.tensor(v) if case["kind"][k] == "int" else torch.tensor(v).to(types[case["kind"][k]]).requires_grad_() for k, v in case["in"].items()}
    out = function(x, case["keys"])
    up = {case["of"][k]: torch.tensor(v) for k, v in case["upstream"].items()}
    up.update({"loss": x["weight"].detach() if "weight" in x else torch.ones_like(out["loss"])} if "loss" in out else {})
    roots = {k: v for k, v in out.items() if k in up and v.requires_grad}
    if roots and case["grad"]:
        torch.autograd.backward(list(roots.values()), [up[k].to(v) for k, v in roots.items()])
    mine = {k: v.detach() for k, v in out.items()}
    mine.update({k: x[case["of"][k]].grad for k in case["grad"] if x[case["of"][k]].grad is not None})
    return {k: v.double().numpy() for k, v in mine.items()}, {k for k, v in mine.items() if v.dtype == torch.bfloat16}


def run_mlx(function, case, dtype):
    import mlx.core as mx
    import numpy as np
    types = {"real": getattr(mx, dtype), "wide": mx.float32, "int": mx.int32}
    x = {k: mx.array(v).astype(types[case["kind"][k]]) for k, v in case["in"].items()}
    moving = [k for k in x if case["kind"][k] != "int"]
    names = []

    def outputs(*values):
        out = function({**x, **dict(zip(moving, values))}, case["keys"])
        names[:] = list(out)
        return list(out.values())

    out = outputs(*(x[k] for k in moving))
    up = {case["of"][k]: mx.array(v) for k, v in case["upstream"].items()}
    up["loss"] = x.get("weight", mx.ones(out[0].shape)) if "loss" in names else None
    up = [(up[k] if up.get(k) is not None else mx.zeros(v.shape)).astype(v.dtype) for k, v in zip(names, out)]
    grads = mx.vjp(outputs, [x[k] for k in moving], up)[1] if case["grad"] else []
    grads = dict(zip(moving, grads))
    mine = dict(zip(names, out))
    mine.update({k: grads[case["of"][k]] for k in case["grad"] if case["of"][k] in grads})
    return {k: np.array(v.astype(mx.float32), dtype=np.float64) for k, v in mine.items()}, {k for k, v in mine.items() if v.dtype == mx.bfloat16}
