"""load_numpy.py - a case of the pack in numpy, and the rule by which results are judged. numpy and the standard library only.

    case = load("delta_rule-plain.safetensors")
    case["in"]["q"], case["upstream"]["dout"], case["out"]["o"], case["grad"]["dq"], case["keys"]["scale"], case["letters"]["q"]
    verdicts(case, {"o": o, "dq": dq}, "bfloat16")      # {"o": (error, margin), ...}; right if margin >= 1"""
import json
import struct

import numpy as np


def load(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    meta, case = header.pop("__metadata__"), {"in": {}, "out": {}, "upstream": {}, "grad": {}, "letters": {}, "of": {}, "kind": {}}
    types, place = {"F32": "<f4", "F64": "<f8", "I32": "<i4"}, {"input": "in", "output": "out", "upstream": "upstream", "gradient": "grad"}
    for row in meta["tensors"].split():
        name, role, case["letters"][name], case["of"][name], case["kind"][name] = row.split(":")
        begin, end = header[name]["data_offsets"]
        case[place[role]][name] = np.frombuffer(data[begin:end], types[header[name]["dtype"]]).reshape(header[name]["shape"])
    case["keys"] = {k: float(v) for k, _, v in (w.partition("=") for w in meta["case"].split()) if v}
    case["tolerance"] = {t: {k: float(v) for k, v in (w.split("=") for w in meta["tolerance." + t].split())}
                         for t in ("float64", "float32", "bfloat16")}
    return {**case, "op": meta["op"], "regime": meta["regime"], "what": meta["what"], "case": meta["case"]}


def verdict(mine, truth, tolerance):
    """||mine - truth|| / ||truth|| <= tolerance, and no element further than 8 tolerance max(|truth|, rms(truth)). Where all of the truth is
    below 2^-126, anything below it is right: floats do not hold such numbers."""
    mine, truth = np.asarray(mine, np.float64).ravel(), np.asarray(truth, np.float64).ravel()
    if mine.shape != truth.shape or not np.isfinite(mine).all():
        return np.inf, 0.0
    if max(np.abs(mine).max(), np.abs(truth).max()) < 2.0 ** -126 or (mine == truth).all():
        return 0.0, np.inf
    if not truth.any():
        return np.inf, 0.0
    size, rms, error = np.linalg.norm(truth), np.sqrt(np.mean(truth ** 2)), np.abs(mine - truth)
    whole, worst = np.linalg.norm(error) / size, (error / np.maximum(np.abs(truth), rms)).max() / 8
    return float(whole), float(tolerance / max(whole, worst))


def verdicts(case, mine, dtype="float32"):
    """The verdict on each tensor that came back, outputs and gradients by their names in the case."""
    truth = {**case["out"], **case["grad"]}
    return {name: verdict(x, truth[name], case["tolerance"][dtype][name]) for name, x in mine.items()}
