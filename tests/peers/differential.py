#!/usr/bin/env python3
"""Our JSON and safetensors verdicts against independent readers (Python's json; the safetensors package), on mutated inputs.

    cc -shared -fPIC -std=c11 -D_GNU_SOURCE -O2 -Iref ref/base/*.c ref/io/jsonl.c ref/io/safetensors.c ref/io/dtype.c -lm -o build/verdicts.so
    python3 tests/peers/differential.py build/verdicts.so [--inputs N] [--seed S]

Where the rules differ on purpose (README of the two headers: keys given twice, halves of surrogate pairs, depth, ranks, sizes, names) the
other reader's answer is corrected by looking at what it read. Exit status 1 and the inputs if anything else differs.
"""
import argparse, ctypes, glob, json, random, struct, sys
from safetensors import deserialize

sys.set_int_max_str_digits(0)
sys.setrecursionlimit(20000)


class Refused(Exception):
    pass


def no_constant(name):
    raise Refused(name)


def unique(pairs):
    d = dict(pairs)
    if len(d) != len(pairs):
        raise Refused("key twice")
    return d


def depth(x):
    kids = x.values() if isinstance(x, dict) else x if isinstance(x, list) else ()
    return (1 + max((depth(k) for k in kids), default=0)) if isinstance(x, (dict, list)) else 0


def has_surrogate(x):
    if isinstance(x, str):
        return any("\ud800" <= c <= "\udfff" for c in x)
    if isinstance(x, dict):
        return any(has_surrogate(k) or has_surrogate(v) for k, v in x.items())
    return isinstance(x, list) and any(has_surrogate(v) for v in x)


def parse_json(data):
    x = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
    if depth(x) > 128 or has_surrogate(x):
        raise Refused("depth or surrogate")
    return x


def peer_json(data):
    try:
        parse_json(data)
        return True
    except (Refused, ValueError, RecursionError):
        return False


def peer_safetensors(data):
    try:
        deserialize(data)
    except Exception:
        return False
    try:  # what it takes and we do not, on purpose
        n = struct.unpack("<Q", data[:8])[0]
        header = parse_json(data[8:8 + n])
    except (Refused, ValueError, RecursionError):
        return False
    for name, t in header.items():
        if "\0" in name or len(name.encode()) > 4096:
            return False
        if name == "__metadata__":
            if t and any("\0" in k or "\0" in v for k, v in t.items()):
                return False
            continue
        product = 1
        for d in t["shape"] if isinstance(t, dict) else ():
            product *= d
            if product >= 2**48:  # and then a 0: nothing is stored, but the product so far is over our limit
                return False
        if not isinstance(t, dict):  # serde also takes a struct's fields as a list, in order
            return False
        if len(t["shape"]) > 8 or max(t["shape"], default=0) >= 2**48 or max(t["data_offsets"]) >= 2**48:
            return False
    return True


def mutate(rng, data, other):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        k, at = rng.random(), rng.randrange(len(data) + 1)
        if k < 0.25 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif k < 0.4 and data:
            data[at % len(data)] = rng.choice(b'{}[]",:0123456789-+.eE\\untrfalse \x00\xff\x80\xc3')
        elif k < 0.55:
            data[at:at] = rng.choice((b"0", b",", b'"', b"{}", b"[]", b'"a":1,', b"\\u0000", b"\\ud800", b"1e5", b"-", b" ", b"null", b"[0]", b"9" * 20))
        elif k < 0.75:
            del data[at:at + rng.randrange(1, 8)]
        elif k < 0.9:
            data[at:at] = data[at:at + rng.randrange(1, 30)]
        else:
            b = rng.randrange(len(other) + 1)
            data[at:at + rng.randrange(10)] = other[b:b + rng.randrange(1, 40)]
    return bytes(data)


def header_right(rng, data):
    """Half of the time the length in front is made right again, so that the header is looked at."""
    if len(data) < 8 or rng.random() < 0.5:
        return data
    end = data.rfind(b"}") + 1
    return struct.pack("<Q", max(end - 8, 0)) + data[8:] if end > 8 else data


def main():
    p = argparse.ArgumentParser()
    p.add_argument("library")
    p.add_argument("--inputs", type=int, default=500000, help="of each kind")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    lib = ctypes.CDLL(a.library)
    out, err = ctypes.create_string_buffer(8192), ctypes.create_string_buffer(8192)

    def ours(parse, close, data):
        ctypes.memset(err, 0, 64)
        rc = parse(out, data, ctypes.c_size_t(len(data)), b"x", err)
        if not rc:
            close(out)
        return rc == 0

    wrong = 0
    for kind, pattern, peer, parse, close in (
            ("json", "testdata/hostile/json/*", peer_json, lib.json_parse, lib.json_free),
            ("safetensors", "testdata/st/*", peer_safetensors, lib.safetensors_parse, lib.safetensors_close)):
        rng = random.Random(a.seed)
        seeds = [s for s in (open(f, "rb").read() for f in sorted(glob.glob(pattern))) if len(s) < 600]
        seeds += [open(f, "rb").read() for f in sorted(glob.glob("testdata/bad/*/config.json"))] if kind == "json" else []
        seeds = [s for s in seeds if len(s) < 600]
        both = [0, 0]
        for i in range(a.inputs):
            data = mutate(rng, rng.choice(seeds), rng.choice(seeds))
            if kind == "safetensors":
                data = header_right(rng, data)
            theirs = peer(data)
            if ours(parse, close, data) != theirs:
                wrong += 1
                if wrong <= 20:
                    print(f"{kind}: they say {theirs}, we say {not theirs}: {data!r}\n    {err.value!r}")
            else:
                both[theirs] += 1
        print(f"{kind}: {a.inputs} inputs: {both[1]} taken and {both[0]} refused by both, {a.inputs - sum(both)} differ", flush=True)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
