#!/usr/bin/env python3
"""Makes testdata/text.txt: plain English whose context repeats itself, the way names do in dialogue.

    python3 testdata/make_text.py input.txt > testdata/text.txt

input.txt is the "tiny Shakespeare" text (public domain; 1,115,394 bytes, sha256 86c4e6aa...). It is cut into scenes of 600 to 1,000
bytes. Every second scene stays as it is; the other is dealt out to an invented cast: 2 to 4 names of 4 to 7 different capital letters,
speaking a few words (8 to 20 bytes) in turn. Nobody can know such a name before it was spoken; afterwards the context gives it away. That is the
in-context recall that ordinary text contains (names, numbers, quotations), made dense enough for a model of half a million parameters.
The random numbers are Python's random.Random(1), whose stream is fixed."""
import hashlib
import random
import sys

text = open(sys.argv[1], encoding="ascii").read()
sys.stderr.write("input sha256 %s, %d bytes\n" % (hashlib.sha256(text.encode()).hexdigest(), len(text)))
rng = random.Random(1)
out, at, dialogue = [], 0, False
while at < len(text):
    n = rng.randint(600, 1000)
    scene, at = text[at:at + n], at + n
    if dialogue:
        cast = ["".join(rng.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", rng.randint(4, 7))) for _ in range(rng.randint(2, 4))]
        words, turn = scene.split(), ""
        for i, word in enumerate(words):
            turn += (" " if turn else "") + word
            if len(turn) >= rng.randint(8, 16) or i + 1 == len(words):
                out.append("%s: %s\n" % (rng.choice(cast), turn))
                turn = ""
    else:
        out.append(scene.rstrip() + "\n\n")
    if dialogue:
        out.append("\n")
    dialogue = not dialogue
sys.stdout.write("".join(out))
