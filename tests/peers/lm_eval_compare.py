#!/usr/bin/env python3
"""Compares `hybridize eval` with lm-evaluation-harness (its HFLM on Hugging Face transformers), request by request.

    tests/peers/lm_eval_compare.py HYBRIDIZE MODEL_DIR DATA_DIR [--limit N] [--tasks piqa,arc_easy,...] [--max-len L] [--batch B] [--threads T]

Both sides run in float32 on the CPU with the same number of threads. Requests come from `hybridize eval --log-samples`; every log-likelihood,
greedy flag and generated text is compared, and the decision of every sample. A decision that differs counts unless the two scores it hangs
on lie closer than 1e-4 (for a generated text: the two largest logits at the first place where the texts part); such samples are listed with
their scores. Times are CPU seconds (with one thread the time on a free core): of the scoring alone for the harness (model loaded,
requests built), of the whole command for hybridize.
Needs lm_eval with transformers, torch and accelerate. Exit code 1 if a difference counts.
"""
import argparse, json, logging, os, subprocess, sys, tempfile

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

logging.disable(logging.WARNING)
CHOICE = ["piqa", "arc_easy", "winogrande", "lambada_openai", "hellaswag"]
RULER = {"niah_single_1": 128, "niah_multikey_2": 128, "ruler_vt": 30, "ruler_fwe": 50}
NEAR = 1e-4


def spent(began):
    """CPU seconds of this process and its finished children since `began`."""
    return sum(os.times()[:4]) - sum(began[:4])


def hybridize(args, task, more):
    """Runs eval for one task; returns rows of --log-samples, seconds, and what it said when it refused."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as log:
        began = os.times()
        run = subprocess.run([args.hybridize, "eval", "-m", args.model, "--data", args.data, "--task", task, "--log-samples", log.name, "-q",
                              "-t", str(args.threads), *more], capture_output=True, text=True)
        said = run.stderr.strip().split("\n")[0] if run.returncode else None
        return [json.loads(line) for line in open(log.name)], spent(began), said


class Peer:
    def __init__(self, path, batch):
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        # tokenizer.json as it stands: AutoTokenizer of transformers 5 rebuilds Llama tokenizers by rules of its own
        conf = json.load(open(f"{path}/tokenizer_config.json"))
        text = lambda v: v["content"] if isinstance(v, dict) else v
        special = {k: text(conf[k]) for k in ("bos_token", "eos_token", "pad_token", "unk_token") if conf.get(k)}
        self.tok = PreTrainedTokenizerFast(tokenizer_file=f"{path}/tokenizer.json", **special)
        if not self.tok.pad_token:
            self.tok.pad_token = self.tok.eos_token or self.tok.unk_token
        self.lm = HFLM(pretrained=self.model, tokenizer=self.tok, batch_size=batch, device="cpu", add_bos_token=False)

    def loglik(self, pairs):
        ask = [Instance(request_type="loglikelihood", doc={}, arguments=p, idx=i) for i, p in enumerate(pairs)]
        return self.lm.loglikelihood(ask, disable_tqdm=True)

    def generate(self, prompts, new):
        how = {"until": [], "do_sample": False, "max_gen_toks": new}
        ask = [Instance(request_type="generate_until", doc={}, arguments=(p, dict(how)), idx=i) for i, p in enumerate(prompts)]
        return self.lm.generate_until(ask, disable_tqdm=True)

    def gap(self, prompt, mine, theirs, new):
        """Difference of the two largest logits where the two texts part, prompt read alone."""
        enc = lambda s: self.tok(s, add_special_tokens=False).input_ids
        ids = enc(prompt)[-(self.lm.max_length - new):]
        out = self.model.generate(torch.tensor([ids]), max_new_tokens=new, do_sample=False, pad_token_id=self.tok.pad_token_id, output_scores=True,
                                  return_dict_in_generate=True)
        made = out.sequences[0, len(ids):].tolist()
        for k in range(len(made)):
            text = self.tok.decode(made[:k + 1], skip_special_tokens=True)
            if not mine.startswith(text.rstrip("\ufffd")) or not theirs.startswith(text.rstrip("\ufffd")):
                top = out.scores[k][0].topk(2).values
                return float(top[0] - top[1])
        return float("nan")


def pairs_of(row):
    if "prompt2" in row:
        return [(row["prompt"], row["answers"][0]), (row["prompt2"], row["answers"][0])]
    return [(row["prompt"], a) for a in row["answers"]]


def compare_choice(peer, task, rows):
    pairs = [p for row in rows for p in pairs_of(row)]
    began = os.times()
    theirs = peer.loglik(pairs)
    took, at, differ, near, largest = spent(began), 0, 0, 0, 0.0
    for row in rows:
        n = len(pairs_of(row))
        mine, other = row["loglikelihood"], [t[0] for t in theirs[at:at + n]]
        greedy = [bool(t[1]) for t in theirs[at:at + n]]
        at += n
        largest = max([largest] + [abs(a - b) for a, b in zip(mine, other)])
        pick = lambda v: max(range(n), key=lambda i: v[i])
        same = row["greedy"] == greedy if task == "lambada_openai" else pick(mine) == pick(other)
        if same:
            continue
        order = sorted(other, reverse=True)
        close = n > 1 and order[0] - order[1] < NEAR
        differ, near = differ + 1, near + close
        print(f"  {task} {row['index']}: {mine} {row['greedy']}, lm_eval {other} {greedy}{' (near)' if close else ''}", file=sys.stderr)
    return len(pairs), differ, near, f"{largest:.1e}", took


def compare_text(peer, task, rows):
    began = os.times()
    theirs = peer.generate([r["prompt"] for r in rows], RULER[task])
    took, differ, near = spent(began), 0, 0
    for row, text in zip(rows, theirs):
        if row["generated"] == text:
            continue
        gap = peer.gap(row["prompt"], row["generated"], text, RULER[task])
        differ, near = differ + 1, near + (gap < NEAR)
        print(f"  {task} {row['index']}: logits part by {gap:.2e}\n    {row['generated']!r}\n    {text!r}", file=sys.stderr)
    return len(rows), differ, near, "-", took


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("hybridize"), p.add_argument("model"), p.add_argument("data")
    p.add_argument("--limit", type=int, default=200)
    p.add_argument("--max-len", type=int, default=1024)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--tasks", default=",".join(CHOICE + list(RULER)))
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    peer, bad = Peer(args.model, args.batch), 0
    print("| task | samples | requests | decisions that differ | of these nearer than 1e-4 | largest difference of a log-likelihood | hybridize CPU s | lm_eval CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for task in args.tasks.split(","):
        rows, ours, said = hybridize(args, task, ["--limit", str(args.limit), "--max-len", str(args.max_len)])
        if said:
            print(f"| {task} | refused: {said} | | | | | | |", flush=True)
            continue
        requests, differ, near, largest, took = (compare_text if task in RULER else compare_choice)(peer, task, rows)
        bad += differ - near
        print(f"| {task} | {len(rows)} | {requests} | {differ} | {near} | {largest} | {ours:.1f} | {took:.1f} |", flush=True)
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
