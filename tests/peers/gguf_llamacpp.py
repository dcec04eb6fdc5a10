#!/usr/bin/env python3
"""Files of `hybridize export --format gguf` in llama.cpp itself (the Python package llama-cpp-python, which carries it): logits at every
position, in one piece and token by token, against our float64 ones; for model directories given as arguments (our float32 ones), with the
tokenizer they have, token ids of TEXT and the perplexity of its beginning as well.
Needs torch, transformers, and llama-cpp-python (0.3.36 here; pip builds llama.cpp, half an hour on two cores); not part of `make test`.

    make && python3 tests/peers/gguf_llamacpp.py [--cases REGEX] [--text TEXT] [--tokenizer DIR ...] [MODEL_DIR ...]

What cannot be exported exactly is refused by the program, and its reason is printed. llama.cpp computes in float32 here (weights, cache); two
things differ by definition and stay: its l2 norm is x / max(|x|, eps) where flash-linear-attention and we have x / sqrt(x'x + 1e-6), and
its gate -exp(A_log) is rounded to float32 in the file.
"""
import argparse, ctypes, json, math, os, re, shutil, subprocess, sys, tempfile
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy as np
import torch
import llama_cpp as L
from transformers import LlamaConfig, LlamaForCausalLM
import hf_logits, qwen35_logits, students

TOLERANCE = 2e-4  # of the largest logit: float32 against float64


class Peer:
    def __init__(self, path, n_ctx=512):
        p = L.llama_model_default_params()
        p.n_gpu_layers = 0
        self.model = L.llama_model_load_from_file(path.encode(), p)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {path}:\n" + "".join(LOG[-12:]))
        c = L.llama_context_default_params()
        c.n_ctx = c.n_batch = c.n_ubatch = n_ctx
        c.n_threads = c.n_threads_batch = 1
        c.type_k = c.type_v = L.GGML_TYPE_F32
        c.flash_attn_type = L.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.ctx = L.llama_init_from_model(self.model, c)
        self.vocab = L.llama_model_get_vocab(self.model)
        self.n_vocab = L.llama_vocab_n_tokens(self.vocab)

    def logits(self, ids, piece=None):
        L.llama_memory_clear(L.llama_get_memory(self.ctx), True)
        out, piece = [], piece or len(ids)
        for at in range(0, len(ids), piece):
            part = ids[at:at + piece]
            b = L.llama_batch_init(len(part), 0, 1)
            b.n_tokens = len(part)
            for i, t in enumerate(part):
                b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = t, at + i, 1, 0, 1
            if L.llama_decode(self.ctx, b):
                raise RuntimeError("llama_decode failed:\n" + "".join(LOG[-12:]))
            flat = np.ctypeslib.as_array(L.llama_get_logits(self.ctx), (len(part) * self.n_vocab,))
            out.append(torch.tensor(flat.reshape(len(part), self.n_vocab).astype(np.float64)))
            L.llama_batch_free(b)
        return torch.cat(out)

    def tokens(self, text):
        data = text.encode()
        room = (L.llama_token * (len(data) + 16))()
        n = L.llama_tokenize(self.vocab, data, len(data), room, len(room), False, True)
        return list(room[:n])

    def close(self):
        L.llama_free(self.ctx)
        L.llama_model_free(self.model)


LOG = []


@L.llama_log_callback
def keep_log(level, text, data):
    LOG.append(text.decode(errors="replace"))


def export(path, out):
    r = subprocess.run(["./hybridize", "export", "--format", "gguf", "-m", path, "-o", out, "--dtype", "f32"], capture_output=True, text=True)
    return None if r.returncode == 0 else r.stderr.strip().splitlines()[0]


def check(tool, name, path, out, ids):
    why = export(path, out)
    if why:
        print(f"--   {name:34s} {why.split(': ', 2)[-1]}")
        return True
    peer, good = Peer(out), True
    want = students.logits(tool, path, ids)
    for how, piece in (("", None), (", token by token", 1)):
        good &= students.report(name + how, want, peer.logits(ids, piece), tolerance=TOLERANCE)
    peer.close()
    return good


def check_real(tool, path, out, text, n):
    name = os.path.basename(path.rstrip("/"))
    why = export(path, out)
    if why:
        print(f"--   {name:34s} {why.split(': ', 2)[-1]}")
        return True
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as f:
        f.write(text)
        f.flush()
        ids = [int(x) for x in subprocess.run(["./hybridize", "tokenize", "-m", path, f.name], capture_output=True, text=True, check=True).stdout.split()]
    peer = Peer(out)
    theirs = peer.tokens(text)
    same = ids == theirs
    print(f"{'ok  ' if same else 'FAIL'} {name:34s} {len(ids)} token ids of {len(text.encode())} bytes{'' if same else f', llama.cpp has {len(theirs)}'}")
    window = ids[:n]
    out = subprocess.run([tool, path, "cpu", "1"] + [str(i) for i in window], capture_output=True, text=True, check=True).stdout
    want = torch.tensor([[float(x) for x in line.split()] for line in out.splitlines()], dtype=torch.float64)
    got = peer.logits(window)
    good = students.report(name, want, got, tolerance=TOLERANCE)
    nll = [math.exp(torch.nn.functional.cross_entropy(x[:-1], torch.tensor(window[1:])).item()) for x in (want, got)]
    near = abs(nll[0] - nll[1]) <= 1e-4 * nll[0]
    print(f"{'ok  ' if near else 'FAIL'} {name:34s} perplexity of {len(window) - 1} tokens {nll[0]:.5f}, llama.cpp {nll[1]:.5f}")
    peer.close()
    return good and same and near


def carrier(path, tokenizer):
    """A model of one tiny layer with this tokenizer."""
    j = json.load(open(os.path.join(tokenizer, "tokenizer.json"), encoding="utf-8"))
    top = max(list(j["model"]["vocab"].values()) + [t["id"] for t in j["added_tokens"] or []])
    hf_logits.randomise(LlamaForCausalLM(LlamaConfig(vocab_size=top + 1, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                                                     tie_word_embeddings=True))).save_pretrained(path)
    shutil.copy(os.path.join(tokenizer, "tokenizer.json"), path)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tokenizer", action="append", default=[], help="a directory with tokenizer.json, put on a tiny random model")
    p.add_argument("--cases", default=".")
    p.add_argument("--text")
    p.add_argument("--window", type=int, default=256, help="tokens of TEXT for logits and perplexity")
    p.add_argument("models", nargs="*")
    a = p.parse_args()
    L.llama_log_set(keep_log, ctypes.c_void_p(0))
    good = True
    with tempfile.TemporaryDirectory() as tmp:
        tool, n = students.build_tool(tmp), 0
        for name, how in qwen35_logits.CASES:
            if re.search(a.cases, name):
                path, n = os.path.join(tmp, f"h{n}"), n + 1
                students.make(path, seed=n, **how)
                json.dump(qwen35_logits.BYTES, open(os.path.join(path, "tokenizer.json"), "w"))
                ids = torch.randint(0, 101, (90,), generator=torch.Generator().manual_seed(3)).tolist()
                good &= check(tool, name, path, path + ".gguf", ids)
        for name, model, how in hf_logits.cases():
            if re.search(a.cases, name):
                path, n = os.path.join(tmp, f"h{n}"), n + 1
                hf_logits.randomise(model).save_pretrained(path, **how)
                json.dump(qwen35_logits.BYTES, open(os.path.join(path, "tokenizer.json"), "w"))
                ids = torch.randint(0, 97, (60,), generator=torch.Generator().manual_seed(3)).tolist()
                good &= check(tool, name, path, path + ".gguf", ids)
        text = open(a.text or "README.md", encoding="utf-8", newline="").read()[:60000]
        for k, path in enumerate(a.tokenizer):
            where = os.path.join(tmp, f"t{k}", os.path.basename(path.rstrip("/")))
            carrier(where, path)
            a.models.append(where)
        for k, path in enumerate(a.models):
            good &= check_real(tool, path, os.path.join(tmp, f"m{k}.gguf"), text, a.window)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
