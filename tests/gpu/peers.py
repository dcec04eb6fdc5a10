#!/usr/bin/env python3
"""peers.py - what PyTorch (and flash-linear-attention, where it is installed) take for the shapes of bench.cu: medians over device events."""
import statistics
import torch

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


print(torch.cuda.get_device_name(), "torch", torch.__version__)
for shape in ((4, 4096), (32, 512), (1, 32768)):
    attention(*shape, 16, 2, 128)
adamw(500000000)
rows(16384, 2048)
if fla(4, 8192, 32, 0):
    fla(1, 32768, 32, 0), fla(96, 512, 16, 0), fla(1, 8192, 96, 1)
