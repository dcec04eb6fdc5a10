#!/usr/bin/env python3
"""Makes a distillation text in which the context matters, as JSON lines {"text": ...}, one document a line.

    python3 testdata/smollm2/make_text.py --documents 20000 --seed 1 wiki.jsonl books.jsonl > text.jsonl

The inputs are JSON lines with a "text" member: English Wikipedia and public-domain books. A document is one of four kinds:

  plain  (35 %)  a stretch of an article or a book, as it is
  echo   (25 %)  such a stretch whose earlier sentences come back later, word for word
  facts  (30 %)  such a stretch with 1 to 4 invented facts between its sentences ("Locker 512 belongs to Nelda Quorsh."), each asked for at the end
  names  (10 %)  a stretch dealt out to speakers with invented names
  alike  (--alike SHARE, of all documents; none without it)  a stretch of half the length with 3 to 8 facts of ONE wording, which only the name tells apart; one
         to three of them are asked for at the end
  answers (--answers)  only documents as the last kind, one fact asked for, as records {"prompt": ..., "completion": ...}: with --loss-on completion layers are
         scored on nothing but the answers

Plain text alone rewards short memory: a model that forgets after 50 tokens loses little on it. In the other kinds a later token can be known
only from the context. No sentence, template or key of any evaluation task is used; the names are made of random syllables.
The random numbers are Python's random.Random(seed), whose stream is fixed, so the output is the same everywhere."""
import argparse
import json
import random
import re
import sys

SYLLABLES = "ba be bo da del dor fa fen gar gel hol in ka kel lo lun mar mel na nor o pa quor ra rel sa sel ta tor u va ven wen za".split()
# (statement, question); {k} is an invented name, {v} a number or an invented word.
FACTS = [
    ("The locker of {k} carries the label {v}.", "Which label does the locker of {k} carry? It carries the label {v}."),
    ("{k} keeps the password {v}.", "What password does {k} keep? {k} keeps the password {v}."),
    ("The train to {k} leaves from platform {v}.", "From which platform does the train to {k} leave? It leaves from platform {v}."),
    ("In the register, {k} is filed under {v}.", "Under what is {k} filed? In the register, {k} is filed under {v}."),
    ("The telephone extension of {k} is {v}.", "What is the telephone extension of {k}? It is {v}."),
    ("{k} was paid {v} crowns for the work.", "How many crowns was {k} paid? {k} was paid {v} crowns."),
    ("The village of {k} has the postal code {v}.", "What postal code has the village of {k}? The postal code is {v}."),
    ("The captain wrote down {v} beside the name of {k}.", "What did the captain write beside the name of {k}? He wrote down {v}."),
]


def name(rng):
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3))).capitalize()


def value(rng):
    if rng.random() < 0.75:
        return str(rng.randint(10 ** 3, 10 ** 7 - 1))
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3)))


def sentences(text):
    return [s for s in re.split(r"(?<=[.!?]) +", text.replace("\n", " ")) if s]


def stretch(rng, texts, length):
    """About `length` characters of one text, from a sentence's beginning."""
    text = rng.choice(texts)
    at = rng.randrange(max(1, len(text) - length))
    if at:
        at = text.find(". ", at) + 2 if text.find(". ", at) >= 0 else 0
    return text[at:at + length]


def alike(rng, texts, length):
    """The text with its facts, and the questions about some of them with {v} for the answer, each with its answer."""
    body = sentences(stretch(rng, texts, length))
    statement, question = rng.choice(FACTS)
    facts = [(name(rng) + " " + name(rng), value(rng)) for _ in range(rng.randint(3, 8))]
    for k, v in facts:
        body.insert(rng.randint(0, len(body)), statement.format(k=k, v=v))
    asked = rng.sample(facts, rng.randint(1, 3))
    return " ".join(body), [(question.replace("{k}", k), v) for k, v in asked]


def asked_alike(rng, texts, length):
    text, questions = alike(rng, texts, length)
    return text + "\n" + "\n".join(q.replace("{v}", v) for q, v in questions)


def answer_record(rng, texts, length):
    text, questions = alike(rng, texts, length)
    before, after = questions[0][0].split("{v}")
    return {"prompt": text + "\n" + before.rstrip(), "completion": " " + questions[0][1] + after}


def document(rng, texts, longest):
    length = rng.randint(longest // 3, longest)
    kind = rng.random()
    if kind < 0.35:
        return stretch(rng, texts, length)
    body = sentences(stretch(rng, texts, length if kind >= 0.60 else length * 2 // 3))
    if kind < 0.60:
        first = max(1, len(body) // 2)
        early = body[:first]
        for s in rng.sample(early, min(len(early), rng.randint(1, 4))):
            body.insert(rng.randint(first, len(body)), s)
        return " ".join(body)
    if kind < 0.90:
        facts = []
        for _ in range(rng.randint(1, 4)):
            k = name(rng) if rng.random() < 0.5 else name(rng) + " " + name(rng)
            facts.append([t.format(k=k, v="{v}") for t in rng.choice(FACTS)] + [value(rng)])
        for statement, _, v in facts:
            body.insert(rng.randint(0, len(body)), statement.replace("{v}", v))
        rng.shuffle(facts)
        return " ".join(body) + "\n" + "\n".join(q.replace("{v}", v) for _, q, v in facts)
    cast = [name(rng) for _ in range(rng.randint(2, 4))]
    return "\n".join("%s: %s" % (rng.choice(cast), s) for s in body)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--documents", type=int, default=20000)
    p.add_argument("--longest", type=int, default=3600, help="characters of the longest document")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--alike", type=float, default=0, help="share of documents whose facts differ by the name alone")
    p.add_argument("--answers", action="store_true", help="records of such documents, with one answer as the completion")
    p.add_argument("files", nargs="+")
    a = p.parse_args()
    rng = random.Random(a.seed)
    sources = [[json.loads(line)["text"] for line in open(f, encoding="utf-8")] for f in a.files]
    for _ in range(a.documents):
        texts = rng.choice(sources)
        if a.answers:
            record = answer_record(rng, texts, rng.randint(a.longest // 6, a.longest // 2))
        elif a.alike and rng.random() < a.alike:
            record = {"text": asked_alike(rng, texts, rng.randint(a.longest // 6, a.longest // 2)).strip()}
        else:
            record = {"text": document(rng, texts, a.longest).strip()}
        if len(record.get("text", record.get("prompt"))) > 200:
            sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")


main()
