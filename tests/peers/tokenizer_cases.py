#!/usr/bin/env python3
"""Writes testdata/tok/NAME.json: small tokenizers, texts, and the ids and decoded texts that Hugging Face `tokenizers` gives for them.

    python3 tests/peers/tokenizer_cases.py testdata/tok

Each file: {"by": version, "tokenizer": the tokenizer.json, "cases": [[text, flags, ids, decoded], ...]} with flags 0 plain, 1 with
special tokens, 2 special tokens in the text stay text. decoded is null where the decoders are known to differ (tokenizer_compare.py).
The vocabularies are trained here, on the sentences below, which were written for this file.
"""
import json
import random
import sys

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from tokenizer_compare import differs_in_marks, random_text  # noqa: E402

SENTENCES = """The keeper of the lighthouse counted the ships and wrote 12, then 120, then 1204 into a book that nobody ever read.
"Don't you think they're late?" she said; "it's nearly ten, and I'll be gone, I've told you, I'd rather we'd not wait."
In winter the harbour freezes, the boats are drawn up, the nets are mended, and the talk is of winds and of the price of herring.
for (int i = 0; i < n; i++) { total += count[i]; }  // the sum of all counts
Там, где кончается дорога, начинается лес, и в лесу стоит дом. Немного дальше — река.
海の近くに小さな町があります。町の人は毎朝市場へ行きます。
Une forêt, un étang, déjà l'été; où est passé le garçon qui chantait? Il est allé à la mer.
넓은 들판에 바람이 분다. 바다는 멀고 하늘은 높다.
पहाड़ के पीछे एक नदी बहती है।
She sells   three   kinds of tea:\n\n\t- green\n\t- black\n\t- white\n
""".split("\n")

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace("{1,3}", "")
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
CHAIN = [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
]
PREPEND = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}


def split(regex):
    return {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}, BYTES]}


def template(single, ids):
    part = [{"Sequence": {"id": "A", "type_id": 0}} if p == "A" else {"SpecialToken": {"id": p, "type_id": 0}} for p in single]
    special = {p: {"id": p, "ids": ids[p], "tokens": [p] * len(ids[p])} for p in single if p != "A"}
    return {"type": "TemplateProcessing", "single": part, "pair": part, "special_tokens": special}


def added(first, *tokens):
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return [{"id": first + i, "content": t.split("|=")[0], **{f: f in t.split("|=")[1:] for f in flags}} for i, t in enumerate(tokens)]


def train_bytes(n, pairs=False):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=256 + n, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    m = json.loads(t.to_str())["model"]
    m["merges"] = [x if pairs else " ".join(x) for x in m["merges"]]
    m["ignore_merges"] = False
    return m


def train_chars(n, bytes_known, fuse, unk="<unk>"):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(SENTENCES[:4], trainers.BpeTrainer(vocab_size=n, show_progress=False))
    m = json.loads(t.to_str())["model"]
    names = ([unk] if unk else []) + ["<s>", "</s>"] + [f"<0x{b:02X}>" for b in bytes_known]
    m["vocab"] = {w: i for i, w in enumerate(names + list(m["vocab"]))}
    m["merges"] = [" ".join(x) for x in m["merges"]]
    m.update(unk_token=unk, fuse_unk=fuse, byte_fallback=len(bytes_known) > 0)
    return m


def tokenizer(model, pre, decoder, norm=None, post=None, tokens=()):
    new = max(model["vocab"].values()) + 1
    for t in tokens:  # what the model has keeps its id, the others follow it
        t["id"] = model["vocab"].get(t["content"], new)
        new += t["id"] == new
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(tokens), "normalizer": norm, "pre_tokenizer": pre,
            "post_processor": post, "decoder": decoder, "model": model}


def variants():
    n = 256 + 300
    rules = ["<|a|>|=special", "<|left|>|=special|=lstrip", "<|right|>|=special|=rstrip", "<|both|>|=lstrip|=rstrip", "word|=single_word",
             "wordy", "<|a|>b", "e\u0301t|=normalized", "\u00e9clair|=normalized", "two words", "\u0120g", "tea|=normalized|=single_word", "   |=rstrip"]
    m = train_bytes(300)
    m["ignore_merges"] = True
    m["vocab"]["\u0120lightship"] = n
    m["vocab"]["\u0120herrings"] = n + 1
    post = {"type": "Sequence", "processors": [dict(BYTES), template(["<|begin|>", "A"], {"<|begin|>": [n + 2]})]}
    yield "llama3", tokenizer(m, split(LLAMA3), BYTES, post=post, tokens=added(n + 2, "<|begin|>|=special", "<|end|>|=special", "<|end|>s|=special", "lampion|=special", "\u2603|=special"))
    post = template(["<|a|>", "A", "<|a|>", "<|left|>"], {"<|a|>": [n], "<|left|>": [n + 1, n + 1]})
    yield "qwen_added", tokenizer(train_bytes(300, True), split(QWEN), BYTES, {"type": "NFC"}, post, added(n, *rules))
    yield "added_plain", tokenizer(train_bytes(60), split(QWEN), BYTES, None, None, added(316, *rules))
    yield "gpt2_space", tokenizer(train_bytes(300), dict(BYTES, add_prefix_space=True, use_regex=True), BYTES, tokens=added(n, "<|endoftext|>|=special"))
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, dict(BYTES, use_regex=True)]}
    yield "smol", tokenizer(train_bytes(200), digits, BYTES, tokens=added(456, "<|endoftext|>|=special"))
    runs = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": False}, dict(BYTES, add_prefix_space=True)]}
    m = train_bytes(100)
    for b in "\u0120\u0107\u00ff\u0142\u00e1":  # bytes without a token are dropped
        m["merges"] = [x for x in m["merges"] if b not in x]
        m["vocab"] = {w: i for w, i in m["vocab"].items() if b not in w}
    known = set(m["vocab"])
    m["merges"] = [x for x in m["merges"] if set(x.split(" ")) | {x.replace(" ", "")} <= known]
    lake = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": {"String": "sea"}, "content": "la\u0301ke"}]}
    yield "holes", tokenizer(m, runs, BYTES, lake)
    every, some = range(256), [0x0A, *range(0xC0, 0x100), *range(0x80, 0xB0)]
    sp = added(0, "<unk>|=special", "<s>|=special", "</s>|=special")
    post = template(["<s>", "A", "</s>"], {"<s>": [1], "</s>": [2]})
    yield "spm", tokenizer(train_chars(200, every, True), None, {"type": "Sequence", "decoders": CHAIN}, PREPEND, post, sp)
    yield "spm_some_bytes", tokenizer(train_chars(120, some, True), None, {"type": "Sequence", "decoders": CHAIN}, PREPEND, None, sp)
    yield "spm_unk", tokenizer(train_chars(120, [], False), None, {"type": "Sequence", "decoders": CHAIN[:1] + CHAIN[2:]}, PREPEND, None, sp)
    norm = [dict(t, normalized=True) for t in added(0, "<unk>|=special", "<s>|=special", "</s>|=special", "x y")]
    yield "spm_normalized", tokenizer(train_chars(120, some, False), None, {"type": "Sequence", "decoders": CHAIN}, PREPEND, post, norm)
    for scheme, cut in (("first", False), ("always", True), ("never", True)):
        meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}
        yield "meta_" + scheme, tokenizer(train_chars(200, every, True), meta, meta if cut else {"type": "Sequence", "decoders": CHAIN}, None, post, sp)
    yield "meta_nounk", tokenizer(train_chars(200, [], True, None), meta, meta, None, None, added(0, "<s>|=special", "</s>|=special"))


def main():
    for seed, (name, tok) in enumerate(variants()):
        rng = random.Random(seed)
        t = Tokenizer.from_str(json.dumps(tok))
        assert all(t.token_to_id(a["content"]) == a["id"] for a in tok["added_tokens"]), name
        tokens = [a["content"] for a in tok["added_tokens"]] or ["x"]
        extra = ["<|a|>", "<|a|>b", "word", "a word", "sword", "wordy", "\u00e9t", "e\u0301t", "\u00e9clair", " herrings", " lightship", "two  words", "tea", "x y", "lampion", " lampion", "\u2603", "sea"]
        texts = ["", " ", "  ", "a", " a", *SENTENCES[:4]]
        texts += [random_text(rng, tokens + extra) for _ in range(110)]
        texts += ["".join(rng.choice(tokens + extra + [" ", "  ", "\n", "x", "e", "\u0301", "é", "\u2003"]) for _ in range(rng.randrange(1, 9))) for _ in range(60)]
        alike = tok["normalizer"] is None or not any(a["normalized"] for a in tok["added_tokens"])
        cases = []
        for i, text in enumerate(texts):
            if differs_in_marks(t, text):
                continue
            flags = i % 4 % 3  # 0 1 2 0
            t.encode_special_tokens = flags == 2
            ids = t.encode(text, add_special_tokens=flags == 1).ids
            cases.append([text, flags, ids, t.decode(ids, skip_special_tokens=False) if alike else None])
        with open(f"{sys.argv[1]}/{name}.json", "w", encoding="ascii") as f:
            f.write(f'{{"by": "tokenizers {tokenizers.__version__}",\n"tokenizer": {json.dumps(tok)},\n"cases": [\n')
            f.write(",\n".join(json.dumps(c) for c in cases) + "\n]}\n")
        print(name, len(tok["model"]["vocab"]), len(cases))


main()
