#!/usr/bin/env python3
"""hyb.py - the float64 reference behind libhyb.so (`make lib`) for Python: ctypes and numpy, nothing else.

    import hyb
    out  = hyb.op("delta_rule", scale=0.25).forward(q=q, k=k, v=v, g=g, beta=beta)        # {"o": ..., "final": ...}
    grad = hyb.op("delta_rule", scale=0.25).backward(dict(dout=do), q=q, k=k, v=v, g=g, beta=beta)
    hyb.check("delta_rule", dict(o=my_o, dq=my_dq), q=q, k=k, v=v, g=g, beta=beta, dout=do, scale=0.25)

`check` prints a line per tensor (error, tolerance, margin, verdict, where, what may be wrong) and returns them; it is
true when all are right. Arrays are anything numpy or torch gives, (B,T,H,K) and so on: `hyb.op(name).help()` prints the
tensors of an op. Sizes come from the arrays; other keys of the case (scale, chunk, window, eps, ...) are keywords."""
import ctypes as C
import os

import numpy as np

TYPES = {"float64": 0, "float32": 1, "bfloat16": 2, "float16": 3, "int32": 4, "int64": 5}
ROLES = ["input", "output", "upstream", "gradient"]


class _Array(C.Structure):
    _fields_ = [("name", C.c_char_p), ("type", C.c_int), ("count", C.c_size_t), ("data", C.c_void_p)]


class _Error(C.Structure):
    _fields_ = [("message", C.c_char * 1100)]


class _Tensor(C.Structure):
    _fields_ = [("name", C.c_char * 24), ("of", C.c_char * 24), ("letters", C.c_char * 24), ("role", C.c_int),
                ("optional", C.c_int), ("whole", C.c_int), ("rank", C.c_int), ("dims", C.c_int * 6), ("count", C.c_size_t)]


class _Verdict(C.Structure):
    _fields_ = [("name", C.c_char * 24), ("ok", C.c_int), ("error", C.c_double), ("tolerance", C.c_double),
                ("margin", C.c_double), ("at", C.c_size_t), ("got", C.c_double), ("truth", C.c_double),
                ("verdict", C.c_char * 16), ("where", C.c_char * 96), ("guess", C.c_char * 160)]


def _load():
    here = os.path.dirname(os.path.abspath(__file__))
    for path in (os.environ.get("HYB_LIB"), os.path.join(here, "../../build/libhyb.so"), "libhyb.so", "libhyb.so.1"):
        try:
            if path:
                lib = C.CDLL(path)
                break
        except OSError:
            continue
    else:
        raise OSError("libhyb.so was not found: `make lib`, or set HYB_LIB to its path")
    lib.hyb_op.restype = lib.hyb_keys.restype = C.c_char_p
    lib.hyb_keys.argtypes = [C.c_char_p]
    if lib.hyb_abi() != 1:
        raise OSError("libhyb.so has interface %d, hyb.py was written for 1" % lib.hyb_abi())
    return lib


_lib = _load()


class Error(Exception):
    pass


def ops():
    """The names of all ops."""
    names, i = [], 0
    while _lib.hyb_op(i):
        names.append(_lib.hyb_op(i).decode())
        i += 1
    return names


def _numpy(x):
    """A contiguous numpy array of a type the library takes; bfloat16 tensors become float32, which holds them."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = (x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy()
    x = np.ascontiguousarray(x)
    return x if x.dtype.name in TYPES and x.dtype.name != "bfloat16" else x.astype(np.float64)


class Tensor:
    def __init__(self, t):
        self.name, self.of, self.letters = t.name.decode(), t.of.decode(), t.letters.decode()
        self.role, self.optional, self.dims = ROLES[t.role], bool(t.optional), list(t.dims[:t.rank])
        self.whole, self.count = bool(t.whole), t.count


class op:
    def __init__(self, name, **keys):
        self.name, self.keys = name, keys
        self.default = _lib.hyb_keys(name.encode())
        self.tensors = {t.name: t for t in self._tensors("")}
        self.default = dict(k.split("=") for k in self.default.decode().split())

    def _tensors(self, shape):
        found, t, e = [], _Tensor(), _Error()
        while _lib.hyb_tensor(self.name.encode(), shape.encode(), len(found), C.byref(t), C.byref(e)) == 0:
            found.append(Tensor(t))
            t = _Tensor()
        if not found:
            raise Error(e.message.decode())
        return found

    def help(self):
        print(self.name, " ".join("%s=%s" % k for k in self.default.items()))
        for t in self.tensors.values():
            print("  %-10s %-9s (%s)%s%s" % (t.name, t.role, t.letters.replace(".", ","), " of " + t.of if t.of else "",
                                           ", optional" if t.optional else ""))

    def _shape(self, arrays, keys):
        """Sizes from the dims of the arrays, and whatever else was said."""
        sizes = {}
        for name, x in arrays.items():
            if name not in self.tensors:
                raise Error("%s has no tensor \"%s\": %s" % (self.name, name, ", ".join(self.tensors)))
            letters = self.tensors[name].letters.split(".")
            if x.ndim != len(letters):
                raise Error("%s: got %d dims, expected (%s)" % (name, x.ndim, ",".join(letters)))
            for letter, size in zip(letters, x.shape):
                if letter in self.default and sizes.setdefault(letter, size) != size:
                    raise Error("%s: got %s = %d, other arrays have %d" % (name, letter, size, sizes[letter]))
        sizes.update(self.keys)
        sizes.update(keys)
        for key in sizes:
            if key not in self.default:
                raise Error("%s has no key \"%s\": %s" % (self.name, key, ", ".join(self.default)))
        return ",".join("%s=%.17g" % k for k in sizes.items())

    def _split(self, named):
        arrays = {k: _numpy(v) for k, v in named.items() if k in self.tensors and not (k in self.default and np.ndim(v) == 0)}
        return arrays, {k: v for k, v in named.items() if k not in arrays and v is not None}

    def run(self, wanted, **named):
        """float64 results by name from inputs and upstream gradients by name."""
        arrays, keys = self._split({k: v for k, v in named.items() if v is not None})
        shape = self._shape(arrays, keys)
        sized = {t.name: t for t in self._tensors(shape)}
        out = {n: np.empty(sized[n].dims, np.int32 if sized[n].whole else np.float64) for n in wanted if sized[n].count}
        _call(_lib.hyb_run, self.name, shape, {**arrays, **out})
        return out

    def forward(self, **named):
        return self.run([t.name for t in self.tensors.values() if t.role == "output"], **named)

    def backward(self, upstream, **named):
        """upstream: gradients of the outputs by name, dict(dout=...); those left out are 0."""
        return self.run([t.name for t in self.tensors.values() if t.role == "gradient" and (
            t.of in named and named[t.of] is not None or t.of == "S0")], **upstream, **named)

    def function(self, order, output, **keys):
        """A torch function of the inputs named in `order`, with float64 forward and backward:
        y = hyb.op("rmsnorm").function(["x", "w"], "y")(x, w)."""
        import torch
        me, up = self, next(t.name for t in self.tensors.values() if t.role == "upstream" and t.of == output)

        class Oracle(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *inputs):
                ctx.save_for_backward(*inputs)
                y = me.run([output], **dict(zip(order, inputs)), **keys)[output]
                return torch.from_numpy(y).to(inputs[0])

            @staticmethod
            def backward(ctx, dy):
                g = me.backward({up: dy}, **dict(zip(order, ctx.saved_tensors)), **keys)
                return tuple(torch.from_numpy(g["d" + n]).to(x) if "d" + n in g else None
                             for n, x in zip(order, ctx.saved_tensors))

        return Oracle.apply


def _call(f, name, shape, arrays, *more):
    a = (_Array * len(arrays))()
    for slot, (n, x) in zip(a, arrays.items()):
        slot.name, slot.type, slot.count, slot.data = n.encode(), TYPES[x.dtype.name], x.size, x.ctypes.data
    e = _Error()
    rc = f(name.encode(), shape.encode(), *(more[:1]), a, len(arrays), *more[1:], C.byref(e))
    if rc > 1:
        raise Error(e.message.decode())
    return rc


class Verdict:
    def __init__(self, v):
        self.name, self.ok, self.error, self.tolerance, self.margin = v.name.decode(), bool(v.ok), v.error, v.tolerance, v.margin
        self.verdict, self.where, self.guess, self.got, self.truth = (
            v.verdict.decode(), v.where.decode(), v.guess.decode(), v.got, v.truth)

    def __str__(self):
        line = "%-10s error %.1e of %.1e  x%-8.3g %s" % (self.name, self.error, self.tolerance, self.margin, self.verdict)
        if not self.ok:
            line += "\n    worst at %s: got %.9g, expected %.9g" % (self.where, self.got, self.truth)
            line += "; perhaps: " + self.guess if self.guess else ""
        return line


class Verdicts(list):
    def __bool__(self):
        return all(v.ok for v in self)


def check(name, mine, dtype="float32", quiet=False, **named):
    """A verdict on every tensor of `mine`, computed with activations of `dtype` from the inputs in `named`, which must be the numbers
    that went in, as they were after rounding to it. Upstream gradients that are not given are 0."""
    o = op(name)
    arrays, keys = o._split({k: v for k, v in named.items() if v is not None})
    mine = {k: _numpy(v) for k, v in mine.items()}
    shape = o._shape({**arrays, **mine}, keys)
    v, n = (_Verdict * len(mine))(), C.c_int()
    _call(_lib.hyb_judge, name, shape, {**arrays, **mine}, TYPES[dtype], v, C.byref(n))
    result = Verdicts(Verdict(v[i]) for i in range(n.value))
    if not quiet:
        for line in sorted(result, key=lambda x: x.ok):
            print(line)
    return result
