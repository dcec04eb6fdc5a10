#!/usr/bin/env python3
"""Runs somebody's implementation over the conformance pack and prints a report card.

    make conformance && python3 tests/peers/conformance.py --impl fla_naive        # torch, transformers, mlx; numpy and the package itself
    TRITON_INTERPRET=1 python3 tests/peers/conformance.py --impl fla_triton        # on a machine with a GPU without the variable

For each op and function: cases that passed, and for each tensor the largest error against float64 relative to its tolerance, with the
case it comes from. --csv FILE keeps every number. Exit 1 if any tensor failed. An implementation of your own: --impl FILE.py with TABLE =
{op: [(name, function)]} as in implementations.py: torch tensors by name in, torch tensors by name out."""
import argparse
import collections
import csv
import glob
import importlib.util
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../conformance")]
import implementations
import load_numpy
import numpy as np


def versions(impl):
    from importlib.metadata import version
    return ", ".join("%s %s" % (p, version(p)) for p in {"fla_naive": ("fla-core", "torch"), "fla_triton": ("fla-core", "triton", "torch"), "torch": ("torch",), "transformers": ("transformers", "torch"),
                                                         "mlx": ("mlx", "mlx-lm")}.get(impl, ("numpy",)))


def judge(case, mine, rounded, dtype):
    """(tensor, error, tolerance, margin) of each output and gradient that came back. A gate, a state or a weight's gradient that the
    implementation keeps in bfloat16, where a careful one keeps float, may be a rounding further away: 2^-8."""
    truth = {**case["out"], **case["grad"]}
    for name in truth:
        tolerance = case["tolerance"][dtype].get(name)
        if name in mine and tolerance:
            tolerance += 2.0 ** -8 if name in rounded and case["kind"][name] == "wide" else 0
            yield (name, *judge_one(mine[name], truth[name], tolerance))


def judge_one(mine, truth, tolerance):
    error, margin = load_numpy.verdict(mine, truth, tolerance)
    return error, tolerance, margin


def guess(case, name, mine, dtype):
    """What the library thinks is wrong, where it is at hand (`make lib`)."""
    try:
        import hyb
    except OSError:
        return ""
    given = {**case["in"], **case["upstream"]}
    keys = {k: v for k, v in case["keys"].items() if k in hyb.op(case["op"]).default}
    v = hyb.check(case["op"], {name: mine}, dtype=dtype, quiet=True, **{**keys, **given})[0]
    return " at %s%s" % (v.where, "; perhaps: " + v.guess if v.guess else "")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--impl", default="torch", help="fla_naive, fla_triton, torch, transformers, mlx, or a file")
    p.add_argument("--pack", default=os.path.join(HERE, "../../build/conformance"))
    p.add_argument("--dtype", default="float32", choices=("float64", "float32", "bfloat16"))
    p.add_argument("--only", default="", help="cases whose name contains this")
    p.add_argument("--csv", help="every tensor of every case")
    a = p.parse_args()
    if a.impl in implementations.NAMES:
        try:
            table = implementations.table(a.impl)
        except implementations.Skip as e:
            print("%s: skipped: %s" % (a.impl, e))
            return 0
    else:
        spec = importlib.util.spec_from_file_location("mine", a.impl)
        mine = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(mine)
        table = mine.TABLE
    run = implementations.run_mlx if a.impl == "mlx" else implementations.run_torch
    rows, failed, skipped = [], [], []
    begin = time.time()
    for path in sorted(glob.glob(os.path.join(a.pack, "*.safetensors"))):
        name = os.path.basename(path)[:-len(".safetensors")]
        case = load_numpy.load(path)
        if a.only not in name:
            continue
        for title, function in table.get(case["op"], []):
            try:
                mine, rounded = run(function, case, a.dtype)
            except implementations.Skip as e:
                skipped.append("%s: %s (%s)" % (title, name, e))
                continue
            for tensor, error, tolerance, margin in judge(case, mine, rounded, a.dtype):
                rows.append((case["op"], title, name, tensor, error, tolerance, margin))
                if not margin >= 1:
                    failed.append("%-34s %-28s %-8s error %.1e of %.1e%s" % (title, name, tensor, error, tolerance, guess(case, tensor, mine[tensor], a.dtype)))
    if not rows:
        sys.exit("no case was run: `make conformance` writes build/conformance")
    print("%s (%s), activations in %s: error / tolerance of the worst case, and the error there" % (a.impl, versions(a.impl), a.dtype))
    groups = collections.defaultdict(list)
    for r in rows:
        groups[r[0], r[1]].append(r)
    for (op, title), group in groups.items():
        cases = {r[2] for r in group}
        bad = {r[2] for r in group if not r[6] >= 1}
        print("\n%s: %s, %d of %d cases pass" % (op, title, len(cases) - len(bad), len(cases)))
        for tensor in dict.fromkeys(r[3] for r in group):
            w = min((r for r in group if r[3] == tensor), key=lambda r: r[6])
            print("    %-9s %-9.2g %.1e  %s%s" % (tensor, 1 / w[6] if w[6] else np.inf, w[4], w[2], "" if w[6] >= 1 else "   FAILED"))
    print("\n%d tensors, %d failed, %d cases not expressible" % (len(rows), len(failed), len(skipped)))
    for line in failed[:60] + skipped:
        print("  " + line)
    print("%.0f s" % (time.time() - begin), file=sys.stderr)
    if a.csv:
        with open(a.csv, "w", newline="") as f:
            w = csv.writer(f, lineterminator="\n")
            w.writerow(("implementation", "dtype", "op", "function", "case", "tensor", "error", "tolerance", "margin"))
            w.writerows((a.impl, a.dtype, op, title, name, tensor, "%.3e" % e, "%.3e" % t, "%.3g" % m) for op, title, name, tensor, e, t, m in rows)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
