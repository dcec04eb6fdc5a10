#!/usr/bin/env python3
"""Compares our logits of hybrid models with PyTorch in float64, every mixer written here once more, token by token, from its definition
(ref/METHOD.md 6; flash-linear-attention's layers). Needs torch and safetensors; not part of `make test`.

    make build/libhyb.a && python3 tests/peers/hybrid_logits.py [--lib build/libhyb.a] MODEL_DIR ...

MODEL_DIR: what `hybridize run` leaves in RUNDIR/model, saved in float32. A line a model: the largest |difference| over 120 random tokens
with prefill in one piece, in pieces of 7 and token by token, and the largest |logit|; beyond 1e-6 of the latter a model fails.
"""
import argparse, json, os, random, subprocess, sys, tempfile
import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def rms(x, w, eps):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * w


def l2(x):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


class Hybrid:
    def __init__(self, path):
        c = json.load(open(path + "/config.json"))
        own = c["hybridize"]
        self.w = {k: v.double() for k, v in load_file(path + "/model.safetensors").items()}
        self.C, self.H, self.eps, self.VOC = c["hidden_size"], c["num_heads"], c["norm_eps"], c["vocab_size"]
        self.mixers, self.Hk, self.D, self.o_eps = own["mixers"], own["num_key_value_heads"], own["head_dim"], own["o_norm_eps"]
        self.window, self.swa, self.theta = own["window"], own.get("swa_window", 0), own["rope_parameters"]["rope_theta"]
        assert own["rope_parameters"]["rope_type"] == "default" and not own["qk_norm"] and not own["linear_bias"]

    def lin(self, name, x):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def heads(self, x):
        return x.view(x.shape[0], -1, self.D)

    def out(self, p, o):
        return self.lin(p + "o_proj", o.reshape(o.shape[0], -1))

    def rope(self, x):
        half = self.D // 2
        a = torch.arange(x.shape[0]).double()[:, None] * self.theta ** (-torch.arange(half).double() * 2 / self.D)
        cos, sin, u, v = a.cos()[:, None], a.sin()[:, None], x[..., :half], x[..., half:]
        return torch.cat([u * cos - v * sin, v * cos + u * sin], -1)

    def softmax(self, p, n, window):
        q, k, v = (self.heads(self.lin(p + c + "_proj", n)) for c in "qkv")
        k, v = (x.repeat_interleave(self.H // self.Hk, 1) for x in (self.rope(k), v))
        i = torch.arange(n.shape[0])
        far = i[:, None] - i[None]
        sees = (far >= 0) & (far < window if window else True)
        s = torch.einsum("ihd,jhd->hij", self.rope(q), k) / self.D ** 0.5
        return self.out(p, torch.einsum("hij,jhd->ihd", s.masked_fill(~sees, -torch.inf).softmax(-1), v))

    def qkv(self, p, n, conv, silu=True):
        for c in "qkv":
            if p + c + "_proj.1.weight" in self.w:  # gdn_v5
                x = self.lin(p + c + "_proj.1", self.lin(p + c + "_proj.0", n))
            else:
                x = self.lin(p + c + "_proj", n)
            if conv:
                w = self.w[p + c + "_conv1d.weight"]
                x = F.conv1d(F.pad(x.T[None], (w.shape[-1] - 1, 0)), w, groups=x.shape[1])[0].T
            yield self.heads(F.silu(x) if silu else x)

    def rule(self, q, k, v, g, beta=None):  # g (T,H,D or 1); without beta: GLA
        S, o = torch.zeros(self.H, self.D, self.D, dtype=torch.double), []
        for t in range(q.shape[0]):
            S = S * g[t].exp()[..., None]
            u = v[t] if beta is None else beta[t][:, None] * (v[t] - torch.einsum("hk,hkv->hv", k[t], S))
            S = S + k[t][..., None] * u[:, None]
            o.append(torch.einsum("hk,hkv->hv", q[t], S) / self.D ** 0.5)
        return torch.stack(o)

    def linear(self, p, n, name):
        kind, version = name.split("_v")
        conv = name in ("gdn_v1", "gdn_v3", "kda_v2")
        if kind == "gla":
            q, k, v = (self.heads(self.lin(p + c + "_proj", n)) for c in "qkv")
            o = self.rule(q, k, v, F.logsigmoid(self.heads(self.lin(p + "gk_proj.1", self.lin(p + "gk_proj.0", n)))) / 16)
            return self.out(p, rms(o, self.w[p + "g_norm_swish_gate.weight"], self.o_eps) * F.silu(self.heads(self.lin(p + "g_proj", n))))
        q, k, v = self.qkv(p, n, conv, version != "6")
        rate, beta = -self.w[p + "A_log"].exp(), self.lin(p + "b_proj", n).sigmoid()
        if kind == "kda":
            f = self.heads(self.lin(p + "f_proj.1", self.lin(p + "f_proj.0", n)) + self.w[p + "dt_bias"])
            o = self.rule(l2(q), l2(k), v, rate[:, None] * F.softplus(f), beta)
            gate = self.heads(self.lin(p + "g_proj.1", self.lin(p + "g_proj.0", n))).sigmoid()
        else:
            o = self.rule(l2(q), l2(k), v, (rate * F.softplus(self.lin(p + "a_proj", n) + self.w[p + "dt_bias"]))[..., None], beta)
            gate = F.silu(self.heads(self.lin(p + "g_proj", n))) if p + "g_proj.weight" in self.w else 1
        return self.out(p, o if version == "6" else rms(o, self.w[p + "o_norm.weight"], self.o_eps) * gate)

    def logits(self, ids):
        x = self.w["model.embeddings.weight"][ids]
        for l, name in enumerate(self.mixers):
            b = f"model.layers.{l}."
            n, p = rms(x, self.w[b + "attn_norm.weight"], self.eps), b + "attn."
            soft = {"softmax": self.window, "swa_v1": self.swa}
            x = x + (self.softmax(p, n, soft[name]) if name in soft else self.linear(p, n, name))
            n = rms(x, self.w[b + "mlp_norm.weight"], self.eps)
            x = x + self.lin(b + "mlp.down_proj", F.silu(self.lin(b + "mlp.gate_proj", n)) * self.lin(b + "mlp.up_proj", n))
        head = "lm_head.weight" if "lm_head.weight" in self.w else "model.embeddings.weight"
        return rms(x, self.w["model.norm.weight"], self.eps) @ self.w[head].T


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--lib", default="build/libhyb.a")
    a.add_argument("model", nargs="+")
    a = a.parse_args()
    root = os.path.dirname(os.path.abspath(__file__)) + "/../.."
    tool = tempfile.mkdtemp() + "/logits"
    subprocess.run(["cc", "-O1", "-I" + root + "/ref", "-I" + root, root + "/tests/peers/logits.c", a.lib, "-fopenmp", "-lm", "-o", tool], check=True)
    bad = 0
    for path in a.model:
        m, far = Hybrid(path), 0.0
        r = random.Random(4)
        ids = [r.randrange(3, m.VOC) for _ in range(120)]
        want = m.logits(ids)
        for piece in (0, 7, 1):
            out = subprocess.run([tool, path, "ref64", str(piece)] + [str(i) for i in ids], capture_output=True, text=True, check=True).stdout
            got = torch.tensor([[float(x) for x in line.split()] for line in out.splitlines()], dtype=torch.double)
            far = max(far, float((got - want[-len(got):]).abs().max()))
        most = float(want.abs().max())
        bad += not far < 1e-6 * most
        print(f"{'ok  ' if far < 1e-6 * most else 'FAIL'}  {far:.1e} of {most:.1f}  {' '.join(m.mixers)}  {path}")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
