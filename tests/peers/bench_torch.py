#!/usr/bin/env python3
"""bench_torch.py - the rows of `hybridize bench` again in PyTorch, on the same machine, threads and shapes, side by side.

    python3 tests/peers/bench_torch.py [--set demo|large|matmul|steps|smollm2] [--dtype bf16] [--op OP] [--shape TEXT] [--threads N]
        [--rounds 3] [-m MODEL] [--csv]

Each round runs ./hybridize bench and then, for every row it printed, the same work in PyTorch (float32, out= where there is one, backward by
hand-written calls or autograd, whichever PyTorch offers for it). The medians over the rounds are compared. The linear mixers have no
PyTorch op: they are the chunked form in batched products (chunk 64, the triangular system by solve_triangular), as in flash-linear-attention's
plain version. Whole steps (--set steps, or a model's) are built from their shape: a plain Llama; its all-linear student (Gated DeltaNet, gate, no
convolution); stage 1 layer by layer on the teacher's activations; stage 2 with the KL to the teacher's logits; AdamW (fused) each. PyTorch's BLAS
decides much: its configuration is printed first.

--dtype bf16: `hybridize bench --device cpu-bf16` against PyTorch's tensors in BF16 (ops), and against float weights under autocast
(steps, and the chunked mixers, whose decays need floats), which is what its users train with.
"""
import argparse, csv, io, json, os, re, statistics, subprocess, sys, time

p = argparse.ArgumentParser()
p.add_argument("--set", default="demo")
p.add_argument("--dtype", choices=("float", "bf16"), default="float")
p.add_argument("--op")
p.add_argument("--shape", default="", help="only rows whose shape contains this")
p.add_argument("--threads", type=int, default=os.cpu_count())
p.add_argument("--rounds", type=int, default=3)
p.add_argument("-m", "--model")
p.add_argument("--csv", action="store_true")
p.add_argument("--hybridize", default="./hybridize")
a = p.parse_args()
os.environ.setdefault("OMP_NUM_THREADS", str(a.threads))

import torch
import torch.nn.functional as F

torch.set_num_threads(a.threads)
BF16 = a.dtype == "bf16"
autocast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=BF16)


def rand(*shape, grad=False, dtype=torch.bfloat16 if BF16 else torch.float32):
    return (torch.rand(*shape) * 0.5 - 0.25).to(dtype).requires_grad_(grad)


clock = time.thread_time if a.threads == 1 else time.perf_counter  # as hybridize bench does


def seconds(f, least=0.02):
    """Seconds a call: after a warm-up, the median of 5 runs of enough calls each."""
    f(); f()
    t = clock(); f(); once = clock() - t
    calls = max(1, int(least / max(once, 1e-7)))
    runs = []
    for _ in range(5 if once < 5 else 3):
        t = clock()
        for _ in range(calls):
            f()
        runs.append((clock() - t) / calls)
    return statistics.median(runs)


def backward(forward, *leaves):
    """Only the backward pass of forward(): its graph is kept and run again."""
    out = forward()
    g = torch.rand_like(out)
    def run():
        for x in leaves:
            x.grad = None
        out.backward(g, retain_graph=True)
    return run


# ---- the ops: a function of the shape's numbers that gives the work to time ----

def linear(kind):
    def make(N, I, O):
        x, w, dy = rand(N, I), rand(O, I), rand(N, O)
        y, dx, dw = (torch.zeros(*n, dtype=x.dtype) for n in ((N, O), (N, I), (O, I)))
        return {"y": lambda: torch.mm(x, w.t(), out=y), "dx": lambda: dx.addmm_(dy, w), "dw": lambda: dw.addmm_(dy.t(), x)}[kind]
    return make


def attention(back):
    def make(B, T, H, Hk, D):
        q, k, v = rand(B, H, T, D, grad=back), rand(B, Hk, T, D, grad=back), rand(B, Hk, T, D, grad=back)
        f = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=H != Hk)
        return backward(f, q, k, v) if back else f
    return make


def gdn(q, k, v, g, beta, C):
    """(B,H,T,d): the chunked gated delta rule; T a multiple of C."""
    B, H, T, d = q.shape
    n = T // C
    q, k, v = (x.reshape(B, H, n, C, d) for x in (q * d ** -0.5, k, v))
    g, beta = g.reshape(B, H, n, C).cumsum(-1), beta.reshape(B, H, n, C, 1)
    low = torch.ones(C, C, dtype=torch.bool).tril()
    decay = (g.unsqueeze(-1) - g.unsqueeze(-2)).masked_fill(~low, float("-inf")).exp()
    M = ((k * beta) @ k.transpose(-1, -2) * decay).tril(-1) + torch.eye(C)
    uw = torch.linalg.solve_triangular(M, torch.cat([v * beta, k * beta * g.exp().unsqueeze(-1)], -1), upper=False, unitriangular=True)
    u, w = uw.split(d, -1)
    P = q @ k.transpose(-1, -2) * decay
    S, out = q.new_zeros(B, H, d, d), []
    for c in range(n):
        new = u[:, :, c] - w[:, :, c] @ S
        out.append((q[:, :, c] * g[:, :, c].exp().unsqueeze(-1)) @ S + P[:, :, c] @ new)
        last = g[:, :, c, -1:]
        S = S * last.exp().unsqueeze(-1) + (k[:, :, c] * (last - g[:, :, c]).exp().unsqueeze(-1)).transpose(-1, -2) @ new
    return torch.stack(out, 2).reshape(B, H, T, d)


def gla(q, k, v, g, C):
    B, H, T, d = q.shape
    n = T // C
    q, k, v, g = (x.reshape(B, H, n, C, d) for x in (q * d ** -0.5, k, v, g))
    g = g.cumsum(-2)
    low = torch.ones(C, C, dtype=torch.bool).tril()
    A = ((q * g.exp()) @ (k * (-g).exp()).transpose(-1, -2)).masked_fill(~low, 0)  # unsafe for strong decays; the fastest there is
    S, out = q.new_zeros(B, H, d, d), []
    for c in range(n):
        out.append((q[:, :, c] * g[:, :, c].exp()) @ S + A[:, :, c] @ v[:, :, c])
        last = g[:, :, c, -1:]
        S = S * last.exp().transpose(-1, -2) + (k[:, :, c] * (last - g[:, :, c]).exp()).transpose(-1, -2) @ v[:, :, c]
    return torch.stack(out, 2).reshape(B, H, T, d)


def mixer(kind, back):
    def make(B, T, H, d, C):
        pad = -T % C
        rand = lambda *n, grad=False: (torch.rand(*n) * 0.5 - 0.25).requires_grad_(grad)
        q, k, v = (rand(B, H, T + pad, d, grad=back) for _ in range(3))
        if kind == "gdn":
            g, b = (-rand(B, H, T + pad).abs()).requires_grad_(back), rand(B, H, T + pad).abs().requires_grad_(back)
            f, leaves = (lambda: gdn(q, k, v, g, b, C)), (q, k, v, g, b)
        else:
            g = (-rand(B, H, T + pad, d).abs()).requires_grad_(back)
            f, leaves = (lambda: gla(q, k, v, g, C)), (q, k, v, g)
        def cast():
            with autocast():
                return f()
        return backward(cast, *leaves) if back else cast
    return make


def head(kl):
    def make(N, C, VOC, _block):
        x, w, xt, wt, target = rand(N, C, grad=True), rand(VOC, C, grad=True), rand(N, C), rand(VOC, C), torch.randint(VOC, (N,))
        def run():
            x.grad = w.grad = None
            z = x @ w.t()
            loss = F.kl_div(F.log_softmax(z, -1), F.log_softmax(xt @ wt.t(), -1), reduction="sum", log_target=True) if kl else F.cross_entropy(z, target, reduction="sum")
            loss.backward()
        return run
    return make


def rows(f, n_args, back=False):
    def make(N, C):
        args = [rand(N, C, grad=back) for _ in range(n_args)]
        return backward(lambda: f(*args), *args) if back else lambda: f(*args)
    return make


def adamw(N, C):
    w = rand(N, C, grad=True, dtype=torch.float32)
    w.grad = rand(N, C, dtype=torch.float32)
    o = torch.optim.AdamW([w], lr=1e-3, fused=True)
    return o.step


def rms(back):
    def make(N, C):
        x = rand(N, C, grad=back)
        w = torch.ones(C, dtype=x.dtype, requires_grad=back)
        f = lambda: F.rms_norm(x, (C,), w, 1e-6)
        return backward(f, x, w) if back else f
    return make


def conv(back):
    def make(B, T, C, W):
        x, w = rand(B, C, T, grad=back), rand(C, 1, W, grad=back)
        f = lambda: F.conv1d(F.pad(x, (W - 1, 0)), w, groups=C)
        return backward(f, x, w) if back else f
    return make


swiglu = lambda g, u: F.silu(g) * u
OPS = {
    "linear_forward": linear("y"), "linear_dx": linear("dx"), "linear_dw": linear("dw"),
    "attention_forward": attention(False), "attention_backward": attention(True),
    "delta_rule_forward": mixer("gdn", False), "delta_rule_backward": mixer("gdn", True),
    "gla_forward": mixer("gla", False), "gla_backward": mixer("gla", True),
    "head_xent": head(False), "head_kl": head(True), "adamw": adamw,
    "swiglu_forward": rows(swiglu, 2), "swiglu_backward": rows(swiglu, 2, True),
    "silu_forward": rows(F.silu, 1), "silu_backward": rows(F.silu, 1, True),
    "rmsnorm_forward": rms(False), "rmsnorm_backward": rms(True),
    "conv_forward": conv(False), "conv_backward": conv(True), "add": rows(torch.add, 2),
}


# ---- whole steps ----

lin = lambda i, o: torch.nn.Linear(i, o, bias=False)


class Softmax(torch.nn.Module):
    def __init__(self, C, H, Hk, D):
        super().__init__()
        self.H, self.Hk, self.D = H, Hk, D
        self.q, self.k, self.v, self.o = lin(C, H * D), lin(C, Hk * D), lin(C, Hk * D), lin(H * D, C)

    def forward(self, h):
        B, T, _ = h.shape
        angle = torch.outer(torch.arange(T).float(), 10000.0 ** (-torch.arange(0, self.D, 2) / self.D))
        cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
        rope = lambda x: x * cos + torch.cat([-x[..., self.D // 2:], x[..., :self.D // 2]], -1) * sin
        q, k, v = (m(h).view(B, T, -1, self.D).transpose(1, 2) for m in (self.q, self.k, self.v))
        o = F.scaled_dot_product_attention(rope(q), rope(k), v, is_causal=True, enable_gqa=self.H != self.Hk)
        return self.o(o.transpose(1, 2).reshape(B, T, -1))


class DeltaNet(torch.nn.Module):
    def __init__(self, C, H, D):
        super().__init__()
        self.H, self.D = H, D
        self.q, self.k, self.v, self.z, self.o = lin(C, H * D), lin(C, H * D), lin(C, H * D), lin(C, H * D), lin(H * D, C)
        self.a, self.b = lin(C, H), lin(C, H)
        self.A_log, self.dt_bias = torch.nn.Parameter(torch.zeros(H)), torch.nn.Parameter(torch.zeros(H))
        self.norm = torch.nn.RMSNorm(D)

    def forward(self, h):
        B, T, _ = h.shape
        q, k, v = (F.silu(m(h)).view(B, T, self.H, self.D).transpose(1, 2) for m in (self.q, self.k, self.v))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        g = (-self.A_log.exp() * F.softplus(self.a(h) + self.dt_bias)).transpose(1, 2)
        o = gdn(q, k, v, g, self.b(h).sigmoid().transpose(1, 2), 64).transpose(1, 2)
        return self.o((self.norm(o) * F.silu(self.z(h).view(B, T, self.H, self.D))).reshape(B, T, -1))


class Stack(torch.nn.Module):
    def __init__(self, s, linear):
        super().__init__()
        C, H, Hk, D = s["C"], s["H"], s["Hk"], s["D"]
        self.embed, self.norm = torch.nn.Embedding(s["VOC"], C), torch.nn.RMSNorm(C)
        self.layers = torch.nn.ModuleList([torch.nn.ModuleDict(dict(
            n1=torch.nn.RMSNorm(C), n2=torch.nn.RMSNorm(C), mix=DeltaNet(C, H, D) if linear else Softmax(C, H, Hk, D),
            gate=lin(C, s["F"]), up=lin(C, s["F"]), down=lin(s["F"], C))) for _ in range(s["L"])])

    def mlp(self, l, x):
        h = l["n2"](x)
        return x + l["down"](F.silu(l["gate"](h)) * l["up"](h))

    def forward(self, ids):
        x = self.embed(ids)
        for l in self.layers:
            x = self.mlp(l, x + l["mix"](l["n1"](x)))
        return self.norm(x) @ self.embed.weight.t()  # tied


def step_shape(text):
    s = {k: int(v) for k, v in re.findall(r"([A-Z]+) (\d+)", text)}
    micro = re.search(r" x (\d+)$", text)  # micro-batches a step
    s["micro"] = int(micro[1]) if micro else 1
    if a.model:
        c = json.load(open(os.path.join(a.model, "config.json")))
        s.update(H=c["num_attention_heads"], Hk=c["num_key_value_heads"], F=c["intermediate_size"])
        s["D"] = c.get("head_dim") or s["C"] // s["H"]
    else:
        H, Hk, f = {288: (6, 6, 768), 768: (12, 12, 2048), 576: (9, 3, 1536)}[s["C"]]
        s.update(H=H, Hk=Hk, F=f, D=s["C"] // H)
    return s


def stage1(teacher, student, ids):
    with torch.no_grad():
        x, pairs = teacher.embed(ids), []
        for i, l in enumerate(teacher.layers):
            h = l["n1"](x)
            y = l["mix"](h)
            pairs.append((h, y))
            if i + 1 < len(teacher.layers):
                x = teacher.mlp(l, x + y)
    for l, (h, y) in zip(student.layers, pairs):
        ((l["mix"](h) - y).norm(dim=-1).mean() / len(pairs)).backward()


def step(kind):
    def make(text):
        s = step_shape(text)
        ids = torch.randint(s["VOC"], (s["B"], s["T"]))
        teacher, student = Stack(s, False), Stack(s, kind != "pretrain")
        train = [w for l in student.layers for w in l["mix"].parameters()] if kind == "stage1" else list(student.parameters())
        optim = torch.optim.AdamW(train, lr=1e-4, fused=True)

        def micro_batch():
            if kind == "stage1":
                return stage1(teacher, student, ids)
            z = student(ids).flatten(0, 1)
            if kind == "pretrain":
                loss = F.cross_entropy(z, ids.flatten())
            else:
                with torch.no_grad():
                    t = F.log_softmax(teacher(ids).flatten(0, 1), -1)
                loss = F.kl_div(F.log_softmax(z, -1), t, reduction="batchmean", log_target=True)
            loss.backward()

        def run():
            optim.zero_grad(set_to_none=True)
            for _ in range(s["micro"]):
                with autocast():
                    micro_batch()
            torch.nn.utils.clip_grad_norm_(train, 1.0)
            optim.step()
        return run
    return make


STEPS = {"pretrain step": step("pretrain"), "stage 1 step": step("stage1"), "stage 2 step": step("stage2")}


# ---- rounds ----

def ours():
    cmd = [a.hybridize, "bench", "--csv", "--no-ref", "--set", a.set, "--threads", str(a.threads)]
    cmd += ["--device", "cpu-bf16"] if BF16 else []
    cmd += ["--op", a.op] if a.op else []
    cmd += ["-m", a.model] if a.model else []
    text = subprocess.run(cmd, check=True, capture_output=True, text=True).stdout
    return [r for r in csv.DictReader(io.StringIO(text)) if int(r["threads"]) == a.threads]


print("\n".join(l.strip() for l in torch.__config__.show().split("\n") if re.search("Math Kernel|MKL-DNN|OpenMP|capability", l)), file=sys.stderr)
mine, theirs, order = {}, {}, []
for _ in range(a.rounds):
    for r in ours():
        key = (r["op"], r["shape"])
        make = OPS.get(r["op"])
        if (not make and r["op"] not in STEPS) or a.shape not in r["shape"]:
            continue
        if key not in mine:
            order.append(key)
        mine.setdefault(key, []).append((float(r["ms"]), float(r["of_fma"] or 0)))
        f = make(*map(int, re.findall(r"\d+", r["shape"]))) if make else STEPS[r["op"]](r["shape"])
        theirs.setdefault(key, []).append(1e3 * seconds(f))
print("op,shape,threads,ms,of_fma,torch_ms,times_torch" if a.csv else f"{'op':22} {'shape':40} {'ms':>10} {'of peak':>8} {'torch ms':>10} {'x torch':>8}")
for key in order:
    ms, frac, other = statistics.median(m for m, _ in mine[key]), statistics.median(f for _, f in mine[key]), statistics.median(theirs[key])
    print(f"{key[0]},{key[1]},{a.threads},{ms:.4f},{frac:.3f},{other:.4f},{other / ms:.2f}" if a.csv else
          f"{key[0]:22} {key[1]:40} {ms:10.4f} {frac:8.3f} {other:10.4f} {other / ms:8.2f}")
