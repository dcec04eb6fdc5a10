#!/usr/bin/env python3
"""Compares our token ids and decoded texts with Hugging Face `tokenizers` (pip install tokenizers). Not part of `make test`.

    cc -std=c11 -D_GNU_SOURCE -O2 -Iref tests/peers/tok_driver.c build/libhyb.a -lm -o build/tok_driver
    python3 tests/peers/tokenizer_compare.py build/tok_driver [--texts N] [--seed S] [--corpus FILE]... TOKENIZER.json...

Texts: the files given with --corpus, line by line and whole (whole: only with byte-level tokenizers or below 300 kB), and N random
ones that are made to hit rules: contractions, white space of all kinds, newlines, digits of three scripts, marks, Hangul, emoji,
pieces of added tokens, unassigned and private characters. Exit status 1 and the first differences if any.
"""
import argparse
import random
import struct
import subprocess
import sys
import time

import tokenizers

SPACES = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2009\u200b\u2028\u2029\u202f\u205f\u3000\ufeff\u180e\x1c\x1f"
STOCK = [
    "'s", "'S", "'\u017f", "'T", "'t", "'re", "'RE", "'rE", "'ve", "'m", "'ll", "'LL", "'d", "'", "''", "\u2019s", "'l", "'r", "'v",
    "the", "The", " the", "Hello", "hello world", " a", "a", "I", "x" * 30, "0", "1", "12", "123", "1234", "2024", "\u00bd", "\u2165",
    "\u3007", "\u2460", "\u0663\u0664", "\u096a", ".", "...", "!", "?!", "--", "_", "__init__", "#include", "{}", "();", "\\n", "$",
    "\n", "\n\n", "\r\n", " \n", "\n ", "  ", "   ", " ", "\t", "\t\t", "\n\n\n", "\u0301", "e\u0301", "\u00e9", "a\u0328\u0301",
    "\u0f71\u0f72", "\u0344", "\u0958", "\u0915\u093c", "\u0928\u094d", "\u0939\u093f\u0928\u094d\u0926\u0940", "\u1112\u1161\u11ab",
    "\ud55c\uad6d", "\uac00\u11a8", "\u1100\u1161", "\u4e2d\u6587", "\u65e5\u672c\u8a9e\u3067\u3059", "\u0420\u0443\u0441\u0441\u043a\u0438\u0439",
    "\u0645\u0631\u062d\u0628\u0627", "\U0001F600", "\U0001F468\u200d\U0001F469\u200d\U0001F467", "\U0001F1E9\U0001F1EA", "\u2581", "\u2581\u2581", "\u2581the",
    "\u0120", "\u010a", "<0x41>", "<0xE2>", "<unk>", "<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>",
    "<|end_of_text|>", "<|eot_id|>", "<think>", "</think>", "<tool_call>", "<|start_story|>", "<|end_story|>", "<", "<|", "|>", "<|im_", "start|>",
    "\x00", "\x01", "\x7f", "\x80", "\ufffd", "\ufffe", "\U0010ffff", "\ue000", "\u200d", "\u212b", "\u2126", "\uf900", "\ufb01", "\u01c5",
]


def random_text(rng, added):
    parts = []
    for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 40])):
        k = rng.random()
        if k < 0.62:
            parts.append(rng.choice(STOCK))
        elif k < 0.72:
            parts.append(rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 3]))
        elif k < 0.80 and added:
            parts.append(rng.choice(added))
        elif k < 0.90:
            parts.append(chr(rng.randrange(0x21, 0x7F)) * rng.choice([1, 1, 2, 5]))
        else:
            top = rng.choice([0x250, 0x3000, 0xD7FF, 0x1FFFF, 0x110000])
            c = rng.randrange(0x80, top)
            parts.append(chr(c) if not 0xD800 <= c < 0xE000 else "\ud7ff")
    return "".join(parts)


def ours(driver, path, texts, flags):
    data = b"".join(struct.pack("<I", len(b)) + b for b in (t.encode() for t in texts))
    begin = time.time()
    out = subprocess.run([driver, path, *flags], input=data, stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")
    pairs = [([int(x) for x in out[2 * i].split()], bytes.fromhex(out[2 * i + 1])) for i in range(len(texts))]
    return pairs, time.time() - begin


def differs_in_marks(tok, text):
    """NFC of newer characters: our tables are Unicode 16, those of tokenizers older (see ref/text/unicode.h)."""
    try:
        import unicodedata2 as ucd
    except ImportError:
        import unicodedata as ucd
    return tok.normalizer is not None and "NFC" in repr(tok.normalizer) and tok.normalizer.normalize_str(text) != ucd.normalize("NFC", text)


def decodes_alike(tok):
    """Added tokens with normalized = true: tokenizers 0.23 decodes them to their normalised form, older versions and we to their text."""
    return tok.normalizer is None or not any(t.normalized for t in tok.get_added_tokens_decoder().values())


def compare(driver, path, texts, flags):
    tok = tokenizers.Tokenizer.from_file(path)
    tok.no_truncation()
    tok.no_padding()
    tok.encode_special_tokens = "noparse" in flags
    got, _ = ours(driver, path, texts, flags)
    bad, skipped, alike = 0, 0, decodes_alike(tok)
    for text, (ids, decoded) in zip(texts, got):
        want = tok.encode(text, add_special_tokens="special" in flags).ids
        back = tok.decode(want, skip_special_tokens=False).encode()
        if ids == want and (decoded == back or not alike):
            continue
        if differs_in_marks(tok, text):
            skipped += 1
            continue
        bad += 1
        if bad <= 5:
            what = "ids" if ids != want else "decode"
            at = next((i for i, (a, b) in enumerate(zip(ids, want)) if a != b), min(len(ids), len(want)))
            short = text if len(text) < 200 else text[:200] + "..."
            print(f"  DIFFERS ({what}) {short!r}\n    ours {ids[max(0, at - 3):at + 9]}\n    HF   {want[max(0, at - 3):at + 9]}\n    at {at} {decoded[:80]!r} {back[:80]!r}")
    return bad, skipped


def main():
    p = argparse.ArgumentParser()
    p.add_argument("driver")
    p.add_argument("tokenizer", nargs="+")
    p.add_argument("--texts", type=int, default=5000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--corpus", action="append", default=[])
    a = p.parse_args()
    total = 0
    for path in a.tokenizer:
        rng = random.Random(a.seed)
        tok = tokenizers.Tokenizer.from_file(path)
        added = [t.content for t in tok.get_added_tokens_decoder().values()]
        texts = ["", *STOCK, *(random_text(rng, added) for _ in range(a.texts))]
        for name in a.corpus:
            whole = open(name, encoding="utf-8", newline="").read()
            texts += whole.split("\n")
            if len(whole) < 300_000 or "ByteLevel" in repr(tok.pre_tokenizer):
                texts.append(whole)
        for flags in ([], ["special"], ["noparse"]):
            bad, skipped = compare(a.driver, path, texts if not flags else texts[: a.texts // 2], flags)
            n = len(texts if not flags else texts[: a.texts // 2])
            print(f"{path} {' '.join(flags)}: {n - bad - skipped} equal, {skipped} not compared (newer marks under NFC), {bad} differ", flush=True)
            total += bad
    sys.exit(total > 0)


if __name__ == "__main__":
    main()
