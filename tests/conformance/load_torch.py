"""load_torch.py - a case of the pack as torch tensors. With package safetensors; without it, load_numpy.py and torch.from_numpy do the same.

    inputs, upstream, truth, keys = load("delta_rule-plain.safetensors", dtype=torch.bfloat16)
    out = {"o": my_kernel(inputs["q"], inputs["k"], inputs["v"], inputs["g"], inputs["beta"], scale=keys["scale"])}
    torch.autograd.backward([out["o"]], [upstream["dout"]])
    (inputs["q"].grad.double() - truth["dq"]).norm() / truth["dq"].norm()"""
import torch
from safetensors import safe_open


def load(path, dtype=torch.float32, device="cpu"):
    """Activations in `dtype` (bfloat16 holds them exactly), gates, log decays, states and biases of gates in float32; results in float64."""
    inputs, upstream, truth = {}, {}, {}
    with safe_open(path, "pt") as f:
        meta = f.metadata()
        for name, role, _, _, kind in (row.split(":") for row in meta["tensors"].split()):
            x = f.get_tensor(name).to(device)
            if role == "input":
                inputs[name] = x if kind == "int" else x.to(dtype if kind == "real" else torch.float32).requires_grad_()
            elif role == "upstream":
                upstream[name] = x.to(dtype if kind == "real" else torch.float32)
            else:
                truth[name] = x
    return inputs, upstream, truth, {k: float(v) for k, _, v in (w.partition("=") for w in meta["case"].split()) if v}
