#!/usr/bin/env python3
"""peers.py [short] - what PyTorch (and flash-linear-attention, where it is installed) take for the shapes of bench.cu: medians over device
events. short: attention by cuDNN and the default, fla at one shape, AdamW; what fits into a lent machine's minute. Exit 127: nothing to run."""
import statistics
import sys

try:
    import torch
except ImportError:
    print("SKIP peers: no PyTorch")
    sys.exit(127)
if not torch.cuda.is_available():
    print("SKIP peers: PyTorch sees no GPU")
    sys.exit(127)
SHORT = "short" in sys.argv

dev, bf = "cuda", torch.bfloat16


def ms(run, limit=200.0):
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    times, total = [], 0.0
    while len(times) < 5 or (total < limit and len(times) < 100):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record(), run(), b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b))
        total += times[-1]
    return statistics.median(times)


def line(name, shape, run):
    try:
        print(f"{name:<38} {shape:<34} {ms(run):9.3f} ms", flush=True)
    except Exception as e:  # a peer that fails is said by name and does not stop the others
        print(f"{name:<38} {shape:<34} failed: {type(e).__name__}: {str(e)[:100]}", flush=True)


def attention(B, T, H, Hk, D):
    q = torch.randn(B, H, T, D, device=dev, dtype=bf, requires_grad=True)
    k, v = (torch.randn(B, Hk, T, D, device=dev, dtype=bf, requires_grad=True) for _ in range(2))
    f = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    o = f()
    g = torch.randn_like(o)
    shape = f"B {B} T {T} H {H}/{Hk} D {D}"
    line("torch sdpa", shape, f)
    try:  # on Hopper the fastest there is, but not the default
        from torch.nn.attention import SDPBackend, sdpa_kernel
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            o2 = f()
            line("torch sdpa, cuDNN", shape, f)
            line("torch sdpa backward, cuDNN", shape, lambda: torch.autograd.grad(o2, (q, k, v), g, retain_graph=True))
    except Exception as e:
        print(f"torch sdpa, cuDNN: {type(e).__name__}: {str(e)[:100]}", flush=True)
    line("torch sdpa backward", shape, lambda: torch.autograd.grad(o, (q, k, v), g, retain_graph=True))


def adamw(n):
    p = torch.randn(n, device=dev, requires_grad=True)
    p.grad = torch.randn(n, device=dev)
    line("torch AdamW fused (float)", f"{n // 1000000}M", torch.optim.AdamW([p], fused=True).step)


def rows(N, C):
    x, w = torch.randn(N, C, device=dev, dtype=bf), torch.randn(C, device=dev, dtype=bf)
    line("torch rms_norm", f"N {N} C {C}", lambda: torch.nn.functional.rms_norm(x, (C,), w, 1e-6))


def fla(B, T, H, gla):
    try:
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
        from fla.ops.gla import chunk_gla
    except ImportError:
        print("SKIP flash-linear-attention: not installed")
        return False
    q, k, v = (torch.randn(B, T, H, 128, device=dev, dtype=bf) for _ in range(3))
    k = torch.nn.functional.normalize(k, dim=-1)
    q, k, v = (t.requires_grad_() for t in (q, k, v))
    if gla:
        g = (-0.1 * torch.rand(B, T, H, 128, device=dev)).requires_grad_()
        f = lambda: chunk_gla(q, k, v, g)[0]
    else:
        g, beta = (-0.1 * torch.rand(B, T, H, device=dev)).requires_grad_(), torch.rand(B, T, H, device=dev).requires_grad_()
        f = lambda: chunk_gated_delta_rule(q, k, v, g, beta)[0]
    o = f()
    d = torch.randn_like(o)
    name = "fla chunk_gla" if gla else "fla chunk_gated_delta_rule"
    line(name, f"B {B} T {T} H {H}", f)
    line(name + " backward", f"B {B} T {T} H {H}", lambda: torch.autograd.grad(o, (q, k, v, g), d, retain_graph=True))
    return True


def head_kl(N, C, VOC, block=2048):
    """The head's products and the KL in blocks of rows, by autograd; fla's fused loss where it is installed."""
    x, t = (torch.randn(N, C, device=dev, dtype=bf) for _ in range(2))
    w, wt = (torch.randn(VOC, C, device=dev, dtype=bf) * 0.02 for _ in range(2))
    x.requires_grad_(), w.requires_grad_()

    def run():
        x.grad = w.grad = None
        for i in range(0, N, block):
            p = torch.log_softmax((t[i:i + block] @ wt.t()).float(), -1)
            s = torch.log_softmax((x[i:i + block] @ w.t()).float(), -1)
            torch.nn.functional.kl_div(s, p, reduction="sum", log_target=True).backward()

    line("torch head + KL in blocks", f"{N} rows, C {C}, VOC {VOC}", run)
    try:
        from fla.modules.fused_kl_div import fused_kl_div_loss
    except ImportError:
        return
    line("fla fused_kl_div_loss", f"{N} rows, C {C}, VOC {VOC}", lambda: fused_kl_div_loss(x, t, w, wt).backward())


class Block(torch.nn.Module):
    """One softmax layer of a Llama or Qwen2.5 shape, without rotary embedding (it is not what takes the time)."""

    def __init__(self, C, H, Hk, F, D=128):
        super().__init__()
        self.H, self.Hk, self.D = H, Hk, D
        self.n1, self.n2 = (torch.nn.RMSNorm(C) for _ in range(2))
        self.q, self.kv, self.o = torch.nn.Linear(C, H * D, False), torch.nn.Linear(C, 2 * Hk * D, False), torch.nn.Linear(H * D, C, False)
        self.gate_up, self.down = torch.nn.Linear(C, 2 * F, False), torch.nn.Linear(F, C, False)

    def forward(self, x):
        B, T, _ = x.shape
        n = self.n1(x)
        q = self.q(n).view(B, T, self.H, self.D).transpose(1, 2)
        k, v = self.kv(n).view(B, T, 2 * self.Hk, self.D).transpose(1, 2).chunk(2, 1)
        a = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(a.transpose(1, 2).reshape(B, T, -1))
        gate, up = self.gate_up(self.n2(x)).chunk(2, -1)
        return x + self.down(torch.nn.functional.silu(gate) * up)


def step(name, C, L, H, Hk, F, B, T):
    """Forward, backward and AdamW (fused, BF16 states) of the softmax stack without its head: an anchor for gpu-bench's whole steps."""
    torch.cuda.empty_cache()
    with torch.device(dev):
        net = torch.nn.Sequential(*(Block(C, H, Hk, F) for _ in range(L))).to(bf)
    opt = torch.optim.AdamW(net.parameters(), fused=True)
    x, g = (torch.randn(B, T, C, device=dev, dtype=bf) for _ in range(2))

    def run():
        net(x).backward(g)
        opt.step(), opt.zero_grad()

    try:
        t = ms(run, 1500.0)
        print(f"{'torch stack step, ' + name:<38} {f'B {B} T {T}':<34} {t:9.1f} ms {B * T / t * 1e3:9.0f} tokens/s", flush=True)
    except Exception as e:
        print(f"{'torch stack step, ' + name:<38} failed: {type(e).__name__}: {str(e)[:100]}", flush=True)


print(torch.cuda.get_device_name(), "torch", torch.__version__)
for shape in ((4, 4096),) if SHORT else ((4, 4096), (32, 512), (1, 32768)):
    attention(*shape, 16, 2, 128)
adamw(500000000)
if SHORT:
    fla(1, 8192, 32, 0)
    sys.exit(0)
rows(16384, 2048)
head_kl(8192, 2048, 128256)
step("Qwen2.5-3B", 2048, 36, 16, 2, 11008, 2, 4096)
step("Llama-3.2-3B", 3072, 28, 24, 8, 8192, 2, 4096)
if fla(4, 8192, 32, 0):
    fla(1, 32768, 32, 0), fla(96, 512, 16, 0), fla(1, 8192, 96, 1)
