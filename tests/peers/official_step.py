#!/usr/bin/env python3
"""official_step.py - the official code's training steps as a peer of gpu-bench: PyTorch with flash-linear-attention's layers, random weights, the token
shapes of gpu-bench's own rows.

  stage 1   the teacher's network runs once; every layer's GatedDeltaNet gets the teacher's normed input, its loss is the mean over tokens of
            ||t - s|| / sqrt(d), the mean over layers is differentiated at once (no gradient passes between layers); only the mixers train
  stage 2   the teacher's hidden states without gradients, the all-linear student's with them, fused head + KL; everything trains
  both      bf16 weights with float masters, AdamW (fused; 0.9, 0.95, decay 0.01), the gradient clipped to norm 1, as DeepSpeed does in bf16

In their favour: no distributed wrapper, no padding mask, no logits in stage 1, SDPA for the teacher (flash_attn where it is installed), and the
largest micro-batch that fits (accumulated to the same tokens a step; activation checkpointing only where one sequence does not fit).

  python3 tests/peers/official_step.py [--ours build/bench_models.txt] [--device cuda] [--tiny]

--ours: gpu-bench's output, for the ratio (target 1.5). --device cpu --tiny: a dry run of the same code at a tiny size with a plain PyTorch
recurrence in place of the Triton kernels, which need a GPU: it shows that the script works, its times mean nothing. One line and exit 0
where something is missing."""
import argparse
import gc
import math
import re
import statistics
import sys
import time
import warnings

warnings.filterwarnings("ignore")
try:
    import torch
    import torch.utils.checkpoint
    from torch import nn
    from torch.nn import functional as F
except ImportError:
    print("SKIP official code's step: no PyTorch")
    sys.exit(0)

SHAPES = {  # C, L, H, Hk, F, VOC, as in bench_model.c
    "Qwen2.5-3B": (2048, 36, 16, 2, 11008, 151936), "Llama-3.2-3B": (3072, 28, 24, 8, 8192, 128256), "tiny": (32, 2, 2, 1, 48, 50)}
ROWS = [("Qwen2.5-3B", 1, 32, 512), ("Qwen2.5-3B", 2, 4, 4096), ("Llama-3.2-3B", 1, 32, 512), ("Llama-3.2-3B", 2, 4, 4096)]
TARGET = 1.5
OUT_OF_MEMORY = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)


class PlainGdn(nn.Module):
    """The layer of the dry run: gdn_v4 token by token, with the parameters of fla's GatedDeltaNet(use_short_conv=False)."""

    def __init__(self, C, H):
        super().__init__()
        self.H, D = H, C // H
        self.q_proj, self.k_proj, self.v_proj, self.g_proj, self.o_proj = (nn.Linear(C, C, False) for _ in range(5))
        self.a_proj, self.b_proj = nn.Linear(C, H, False), nn.Linear(C, H, False)
        self.A_log, self.dt_bias, self.o_norm = nn.Parameter(torch.zeros(H)), nn.Parameter(torch.zeros(H)), nn.RMSNorm(D, 1e-5)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v, z = (f(x).view(B, T, self.H, -1) for f in (self.q_proj, self.k_proj, self.v_proj, self.g_proj))
        q, k, v = (F.silu(t).float() for t in (q, k, v))
        q, k = F.normalize(q, dim=-1) * q.shape[-1] ** -0.5, F.normalize(k, dim=-1)
        beta, g = self.b_proj(x).float().sigmoid(), -self.A_log.float().exp() * F.softplus(self.a_proj(x).float() + self.dt_bias.float())
        S, out = torch.zeros(B, self.H, q.shape[-1], q.shape[-1], device=x.device), []
        for t in range(T):
            S = S * g[:, t, :, None, None].exp()
            u = beta[:, t, :, None] * (v[:, t] - (S * k[:, t, ..., None]).sum(-2))
            S = S + k[:, t, ..., None] * u[..., None, :]
            out.append((S * q[:, t, ..., None]).sum(-2))
        o = self.o_norm(torch.stack(out, 1).to(x.dtype)) * F.silu(z)
        return (self.o_proj(o.reshape(B, T, C)),)


class PlainMlp(nn.Module):
    def __init__(self, C, width):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(C, width, False), nn.Linear(C, width, False), nn.Linear(width, C, False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def plain_kl(x, xt, w, wt):
    return F.kl_div(torch.log_softmax((x @ w.t()).float(), -1), torch.log_softmax((xt @ wt.t()).float(), -1), reduction="batchmean", log_target=True)


def parts(plain):
    """norm(C), mlp(C, F), linear mixer(C, H), head + KL: fla's, or plain ones for the dry run."""
    if plain:
        return (lambda C: nn.RMSNorm(C, 1e-6)), PlainMlp, PlainGdn, plain_kl
    from fla.layers import GatedDeltaNet
    from fla.modules import GatedMLP, RMSNorm
    from fla.modules.fused_kl_div import fused_kl_div_loss

    def kl(x, xt, w, wt):
        loss = fused_kl_div_loss(x, xt, w, wt)
        return loss[0] if isinstance(loss, tuple) else loss

    def gdn(C, H):
        return GatedDeltaNet(hidden_size=C, expand_v=1, head_dim=C // H, num_heads=H, use_short_conv=False, use_gate=True, norm_eps=1e-5)

    return (lambda C: RMSNorm(C, eps=1e-6)), (lambda C, width: GatedMLP(hidden_size=C, intermediate_size=width)), gdn, kl


class Softmax(nn.Module):
    """The teacher's attention, grouped queries, half-split rotary positions."""

    def __init__(self, C, H, Hk):
        super().__init__()
        self.H, self.Hk, self.D = H, Hk, C // H
        self.q_proj, self.k_proj = nn.Linear(C, C), nn.Linear(C, Hk * self.D)
        self.v_proj, self.o_proj = nn.Linear(C, Hk * self.D), nn.Linear(C, C, False)
        try:
            from flash_attn import flash_attn_func
            self.flash = flash_attn_func
        except ImportError:
            self.flash = None

    def rotate(self, x):
        T, half = x.shape[1], self.D // 2
        angle = torch.arange(T, device=x.device)[:, None] * 1e6 ** (-torch.arange(half, device=x.device) / half)
        c, s = angle.cos()[:, None].to(x.dtype), angle.sin()[:, None].to(x.dtype)
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * c - b * s, b * c + a * s), -1)

    def forward(self, x):
        B, T, C = x.shape
        q, k = self.rotate(self.q_proj(x).view(B, T, self.H, self.D)), self.rotate(self.k_proj(x).view(B, T, self.Hk, self.D))
        v = self.v_proj(x).view(B, T, self.Hk, self.D)
        if self.flash and x.is_cuda:
            return (self.o_proj(self.flash(q, k, v, causal=True).reshape(B, T, C)),)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return (self.o_proj(o.transpose(1, 2).reshape(B, T, C)),)


class Net(nn.Module):
    def __init__(self, shape, kit, linear):
        super().__init__()
        C, L, H, Hk, width, VOC = shape
        norm, mlp, gdn, _ = kit
        self.embed, self.norm = nn.Embedding(VOC, C), norm(C)
        self.attn = nn.ModuleList(gdn(C, H) if linear else Softmax(C, H, Hk) for _ in range(L))
        self.n1, self.n2, self.mlp = (nn.ModuleList(f() for _ in range(L)) for f in (lambda: norm(C), lambda: norm(C), lambda: mlp(C, width)))
        nn.init.normal_(self.embed.weight, std=0.02)

    def layer(self, l, x):
        x = x + self.attn[l](self.n1[l](x))[0]
        return x + self.mlp[l](self.n2[l](x))

    def forward(self, ids, checkpoint=False):
        x = self.embed(ids)
        for l in range(len(self.attn)):
            x = torch.utils.checkpoint.checkpoint(self.layer, l, x, use_reentrant=False) if checkpoint else self.layer(l, x)
        return self.norm(x)


class Optimiser:
    """AdamW on float masters of bf16 weights."""

    def __init__(self, params, lr):
        self.params = [p for p in params if p.requires_grad]
        self.master = [p.detach().float() for p in self.params]
        self.adam = torch.optim.AdamW(self.master, lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01, fused=self.master[0].is_cuda)

    @torch.no_grad()
    def step(self):
        for m, p in zip(self.master, self.params):
            m.grad, p.grad = p.grad.float(), None
        nn.utils.clip_grad_norm_(self.master, 1.0, foreach=True)
        self.adam.step()
        torch._foreach_copy_(self.params, self.master)
        for m in self.master:
            m.grad = None


def stage1_loss(teacher, student, ids):
    """Teacher-forced: each layer's student sees the teacher's input, the teacher's output goes on."""
    L, total = len(teacher.attn), 0
    with torch.no_grad():
        x = teacher.embed(ids)
    for l in range(L):
        with torch.no_grad():
            n = teacher.n1[l](x)
            t = teacher.attn[l](n)[0]
        s = student[l](n)[0]
        total = total + torch.linalg.vector_norm(t - s, dim=-1).mean() / math.sqrt(x.shape[-1])
        with torch.no_grad():
            x = x + t
            x = x + teacher.mlp[l](teacher.n2[l](x))
    return total / L


def measure(name, stage, B, T, kit, dev, micro, checkpoint, repeat):
    """Seconds of a step (median) and the losses of all steps."""
    shape = SHAPES[name]
    dtype = torch.bfloat16 if dev == "cuda" else torch.float32
    torch.manual_seed(1)
    with torch.device(dev):
        teacher = Net(shape, kit, False).to(dtype).requires_grad_(False)
        student = nn.ModuleList(kit[2](shape[0], shape[2]) for _ in range(shape[1])) if stage == 1 else Net(shape, kit, True)
        student = student.to(dtype).train()
        ids = torch.randint(shape[5], (B, T))
    optimiser = Optimiser(student.parameters(), 1e-3 if stage == 1 else 1e-4)

    def loss_of(part):
        if stage == 1:
            return stage1_loss(teacher, student, part)
        with torch.no_grad():
            xt = teacher(part)
        x = student(part, checkpoint)
        return kit[3](x.view(-1, shape[0]), xt.view(-1, shape[0]), student.embed.weight, teacher.embed.weight)

    def step():
        value = 0.0
        for i in range(0, B, micro):
            loss = loss_of(ids[i:i + micro]) * (micro / B)
            loss.backward()
            value = value + loss.detach()
        optimiser.step()
        return value.item()  # waits for the device

    losses, times = [step()], []
    for _ in range(repeat):
        begin = time.perf_counter()
        losses.append(step())
        times.append(time.perf_counter() - begin)
    return statistics.median(times), losses


def row(name, stage, B, T, kit, dev, ours, repeat):
    tries = [(m, False) for m in (B, B // 2, B // 4, B // 8) if m] + [(1, True)]
    for micro, checkpoint in dict.fromkeys(tries):
        seconds = 0
        try:
            seconds, losses = measure(name, stage, B, T, kit, dev, micro, checkpoint, repeat)
        except OUT_OF_MEMORY:
            pass  # what the step held is let go only after this block
        if not seconds:
            gc.collect()
            torch.cuda.empty_cache()
            continue
        rate, mine = B * T / seconds, ours.get((name, stage))
        what = f"{B} x {T}, micro-batch {micro}{', checkpointing' if checkpoint else ''}"
        print(f"{'official ' + name:<22} stage {stage}  {what:<34} {seconds * 1e3:9.1f} ms {rate:9.0f} tokens/s", end="")
        if mine:
            print(f"  ours {mine:9.0f}  ratio {mine / rate:5.2f}  target {TARGET} {'reached' if mine / rate >= TARGET else '-'}", end="")
        print(flush=True)
        return losses
    print(f"official {name} stage {stage}: does not fit, even one sequence with checkpointing", flush=True)
    return None


def read_ours(path):
    """{(shape, stage): tokens a second} of gpu-bench's output."""
    ours = {}
    if path:
        for text in open(path, encoding="utf-8"):
            m = re.match(r"(\S+)\s+.*?stage\s*([12])\b.*?([\d.]+) ms\s+(\d+) tokens/s", text)
            if m:
                ours[m[1], int(m[2])] = float(m[4])
    return ours


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--ours")
    p.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    p.add_argument("--tiny", action="store_true")
    o = p.parse_args()
    if o.device == "cuda" and not torch.cuda.is_available():
        print("SKIP official code's step: no GPU for PyTorch")
        return 0
    if o.device == "cpu" and not o.tiny:
        print("SKIP official code's step: on a CPU only --tiny is of any use")
        return 0
    plain = o.device == "cpu"
    try:
        kit = parts(plain)
    except ImportError as e:
        print(f"SKIP official code's step: {e}")
        return 0
    if plain:
        print("dry run: plain PyTorch recurrence, not flash-linear-attention's kernels; the times mean nothing")
    ours, bad = read_ours(o.ours), 0
    for name, stage, B, T in [("tiny", 1, 2, 10), ("tiny", 2, 2, 10)] if o.tiny else ROWS:
        try:
            losses = row(name, stage, B, T, kit, o.device, ours, 5 if plain else 3)
        except Exception as e:  # said by name, and the next row follows
            print(f"official {name} stage {stage} failed: {type(e).__name__}: {str(e)[:120]}", flush=True)
            losses, bad = None, 1
        if plain and not (losses and all(map(math.isfinite, losses)) and losses[-1] < losses[0]):
            print(f"dry run: the loss does not fall: {losses}")
            bad = 1
        if o.device == "cuda":
            torch.cuda.empty_cache()
    if plain:  # one sequence at a time with checkpointing is the same step
        (_, a), (_, b) = (measure("tiny", 2, 2, 10, kit, "cpu", micro, micro == 1, 2) for micro in (2, 1))
        if any(abs(x - y) > 1e-4 * abs(x) for x, y in zip(a, b)):
            print(f"dry run: checkpointing changes the loss: {a} {b}")
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())
