#!/usr/bin/env python3
"""hyb_test.py - that hyb.py says what it promises: float64 results equal a recurrence written here in numpy, right numbers pass, planted
errors are named, torch differentiates through it. Run by tests/test_oracle.c; exit 77 after a line "SKIP ..." where something is missing."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import numpy as np
except ImportError:
    print("SKIP hyb.py: python3 has no numpy")
    sys.exit(77)
try:
    import hyb
except OSError as e:
    print("SKIP hyb.py: %s" % e)
    sys.exit(77)

rng = np.random.default_rng(1)
B, T, H, Hk, K, V = 2, 37, 4, 2, 8, 5
SCALE = 0.25


def unit(*shape):
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def case():
    return dict(q=unit(B, T, Hk, K), k=unit(B, T, Hk, K), v=rng.standard_normal((B, T, H, V)), g=-rng.random((B, T, H)),
                beta=rng.random((B, T, H)))


def delta_rule(q, k, v, g, beta):
    """S = e^g S; S += beta k (v - S^T k)^T; o = scale S^T q"""
    S, o = np.zeros((B, H, K, V)), np.zeros((B, T, H, V))
    q, k = (np.repeat(x, H // Hk, axis=2) for x in (q, k))
    for t in range(T):
        S = S * np.exp(g[:, t])[..., None, None]
        u = v[:, t] - np.einsum("bhkv,bhk->bhv", S, k[:, t])
        S = S + np.einsum("bh,bhk,bhv->bhkv", beta[:, t], k[:, t], u)
        o[:, t] = SCALE * np.einsum("bhkv,bhk->bhv", S, q[:, t])
    return o, S


def test_forward_and_backward():
    x, do = case(), rng.standard_normal((B, T, H, V))
    o, S = delta_rule(**x)
    out = hyb.op("delta_rule", scale=SCALE).forward(**x)
    assert np.abs(out["o"] - o).max() < 1e-13 and np.abs(out["final"] - S).max() < 1e-13
    grad = hyb.op("delta_rule", scale=SCALE).backward(dict(dout=do), **x)
    for n in ("dq", "dk", "dv", "dg", "dbeta"):
        name, at, h = n[1:], tuple(int(i) for i in rng.integers(0, x[n[1:]].shape)), 1e-5
        side = [dict(x, **{name: x[name].copy()}) for _ in range(2)]
        side[0][name][at] += h
        side[1][name][at] -= h
        slope = ((delta_rule(**side[0])[0] - delta_rule(**side[1])[0]) * do).sum() / (2 * h)
        assert abs(slope - grad[n][at]) < 1e-7 * max(1, abs(slope)), (n, slope, grad[n][at])


def test_verdicts():
    x, do = case(), rng.standard_normal((B, T, H, V)).astype(np.float32)
    x = {n: v.astype(np.float32) for n, v in x.items()}
    o = delta_rule(**x)[0].astype(np.float32)
    dv = hyb.op("delta_rule", scale=SCALE).backward(dict(dout=do), **x)["dv"].astype(np.float32)
    assert hyb.check("delta_rule", dict(o=o, dv=dv), **x, dout=do, scale=SCALE, quiet=True)
    late = np.roll(dv, 1, axis=1)
    for wrong, tensor, guess in ((dict(o=o * 0.5), "o", "constant factor 0.5"), (dict(o=o, dv=late), "dv", "one token late"),
                                 (dict(o=-o), "o", "sign"), (dict(o=o[:, :, [0, 2, 1, 3]]), "o", "tiled")):
        verdict = hyb.check("delta_rule", wrong, **x, dout=do, scale=SCALE, quiet=True)
        bad = [v for v in verdict if not v.ok]
        assert not verdict and [v.name for v in bad] == [tensor] and guess in bad[0].guess, (tensor, [str(v) for v in verdict])
    part = o.copy()
    part[:, 32:] *= 1.01
    verdict = hyb.check("delta_rule", dict(o=part), **x, scale=SCALE, quiet=True)
    assert not verdict and "tokens >= 32" in verdict[0].guess and "token" in verdict[0].where, str(verdict[0])
    noisy = o * (1 + 1e-3 * rng.standard_normal(o.shape))  # right for bfloat16, not for float32
    assert not hyb.check("delta_rule", dict(o=noisy), **x, scale=SCALE, quiet=True)
    assert hyb.check("delta_rule", dict(o=noisy), dtype="bfloat16", **x, scale=SCALE, quiet=True)


def test_errors():
    x = case()
    for name, call, word in (("op", lambda: hyb.op("delta_rul"), "delta_rule"),
                             ("tensor", lambda: hyb.op("delta_rule").forward(**x, gg=x["g"]), "gg"),
                             ("sizes", lambda: hyb.op("delta_rule").forward(**dict(x, v=x["v"][:, 1:])), "T"),
                             ("missing", lambda: hyb.op("delta_rule").forward(q=x["q"], k=x["k"]), "missing"),
                             ("dims", lambda: hyb.op("delta_rule").forward(**dict(x, g=x["g"][0])), "dims")):
        try:
            call()
        except hyb.Error as e:
            assert word in str(e), (name, str(e))
        else:
            raise AssertionError("no error for a wrong " + name)


def test_torch():
    try:
        import torch
    except ImportError:
        print("SKIP hyb.py in torch: python3 has no torch")
        return
    x = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
    w = torch.randn(8, dtype=torch.float64, requires_grad=True)
    f = hyb.op("rmsnorm", eps=1e-5).function(["x", "w"], "y")
    assert torch.autograd.gradcheck(f, (x, w))
    assert torch.allclose(f(x, w), torch.nn.functional.rms_norm(x, (8,), w, 1e-5), rtol=1e-12, atol=1e-12)
    t = {n: torch.tensor(v, requires_grad=True) for n, v in case().items()}
    y = hyb.op("delta_rule", scale=SCALE).function(list(t), "o")(*t.values())
    y.square().sum().backward()
    want = hyb.op("delta_rule", scale=SCALE).backward(dict(dout=2 * y.detach()), **t)
    assert all(torch.equal(v.grad, torch.from_numpy(want["d" + n])) for n, v in t.items())
    assert hyb.check("delta_rule", dict(o=y.detach().float()), **{n: v.detach() for n, v in t.items()}, scale=SCALE, quiet=True)


def test_pack():
    """The pack's loader and its rule say what the library says."""
    import subprocess
    import tempfile
    here = os.path.dirname(os.path.abspath(__file__))
    program = os.path.join(here, "../../build/hybridize")
    if not os.path.exists(program):
        print("SKIP the pack: no build/hybridize")
        return
    sys.path.insert(0, os.path.join(here, "../conformance"))
    import load_numpy
    with tempfile.TemporaryDirectory() as tmp:
        for name in ("gla", "rope"):
            subprocess.run([program, "gradcheck", "--pack", tmp, "--op", name], check=True, capture_output=True)
        for name in ("gla-plain", "gla-grouped", "gla-documents", "gla-decay-20", "rope-plain"):
            case = load_numpy.load(os.path.join(tmp, name + ".safetensors"))
            keys = {k: v for k, v in case["keys"].items() if k in hyb.op(case["op"]).default}
            given = {**case["in"], **case["upstream"]}
            op = hyb.op(case["op"], **keys)
            mine = {**op.run(list(case["out"]), **case["in"]), **op.backward(case["upstream"], **case["in"])}
            truth = {**case["out"], **case["grad"]}
            assert set(truth) - set(mine) == set(), (name, set(truth), set(mine))
            all_of = load_numpy.verdicts(case, {t: mine[t] for t in truth}, "float64")
            assert set(all_of) == set(truth) and all(margin >= 1 for _, margin in all_of.values()), (name, all_of)
            for t, want in truth.items():
                assert load_numpy.verdict(mine[t], want, 1e-13)[1] >= 1, (name, t)
                bad = np.array(mine[t], np.float64)
                bad.flat[0] += 20 * case["tolerance"]["float32"][t] * max(abs(bad.flat[0]), np.sqrt(np.mean(bad ** 2)))
                for x, good in ((mine[t], True), (bad, False)):
                    error, margin = load_numpy.verdict(x, want, case["tolerance"]["float32"][t])
                    v = hyb.check(case["op"], {t: np.asarray(x, np.float64)}, quiet=True, **keys, **given)[0]
                    assert (margin >= 1) == good == v.ok, (name, t, error, margin, str(v))
                    assert good or abs(margin - v.margin) < 0.1 * v.margin, (name, t, margin, v.margin)  # conditions are measured by chance


for name, test in list(globals().items()):
    if name.startswith("test_"):
        test()
print("hyb.py ok")
