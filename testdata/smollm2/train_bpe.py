#!/usr/bin/env python3
"""Trains a byte-level BPE vocabulary and writes it as a model directory's tokenizer files, for `hybridize pretrain --tokenizer`.

    pip install tokenizers==0.22.1
    python3 testdata/smollm2/train_bpe.py --vocab 4096 -o TOKDIR text.jsonl

Byte-level, GPT-2's splitting rule and single digits (as SmolLM), one special token <|endoftext|> (id 0) as BOS and EOS."""
import argparse
import json
import os

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

p = argparse.ArgumentParser()
p.add_argument("--vocab", type=int, default=4096)
p.add_argument("--documents", type=int, default=6000)
p.add_argument("-o", required=True)
p.add_argument("files", nargs="+")
a = p.parse_args()


def texts():
    for f in a.files:
        for i, line in enumerate(open(f, encoding="utf-8")):
            if i == a.documents:
                break
            yield json.loads(line)["text"]


tok = Tokenizer(models.BPE())
tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
tok.decoder = decoders.ByteLevel()
tok.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=a.vocab, special_tokens=["<|endoftext|>"],
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
os.makedirs(a.o, exist_ok=True)
tok.save(os.path.join(a.o, "tokenizer.json"))
json.dump({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}, open(os.path.join(a.o, "tokenizer_config.json"), "w"), indent=2)
