#!/usr/bin/env python3
"""Compares `hybridize eval` with Hugging Face transformers driven by lm-evaluation-harness's own rules, request by request.

    tests/peers/lm_eval_compare.py HYBRIDIZE MODEL_DIR DATA_DIR [--limit N] [--tasks piqa,arc_easy,...] [--max-len L]

Both sides run in float32 on the CPU. Requests come from `hybridize eval --emit`; each log-likelihood, each greedy flag and each generated
text is compared, and the decisions that follow. If the package lm_eval is installed, its HFLM does the other side (batch size 1);
otherwise the same arithmetic is done here with transformers alone, and the table says so. Differences of decision where two scores lie
closer than 1e-4 are listed but do not count. Exit code 1 if any other difference is found.
"""
import argparse, json, math, subprocess, sys, tempfile, time

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

CHOICE = ["piqa", "arc_easy", "winogrande", "lambada_openai", "hellaswag"]
RULER = {"niah_single_1": 128, "niah_multikey_2": 128, "ruler_vt": 30, "ruler_fwe": 50}


def hybridize(args, *more):
    """Runs eval for all tasks; returns rows of --log-samples and seconds."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as log:
        began = time.time()
        subprocess.run([args.hybridize, "eval", "-m", args.model, "--data", args.data, "--log-samples", log.name, "-q", *more],
                       check=True, stdout=subprocess.DEVNULL)
        return [json.loads(line) for line in open(log.name)], time.time() - began


class Peer:
    """Log-likelihoods and greedy text for single requests."""

    def __init__(self, path):
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        # tokenizer.json as it stands: AutoTokenizer of transformers 5 rebuilds Llama tokenizers by rules of its own
        conf = json.load(open(f"{path}/tokenizer_config.json"))
        self.tok = PreTrainedTokenizerFast(tokenizer_file=f"{path}/tokenizer.json",
                                           **{k: conf[k] for k in ("bos_token", "eos_token") if isinstance(conf.get(k), str)})
        self.max_length = self.model.config.max_position_embeddings
        self.name = "transformers"
        try:
            from lm_eval.models.huggingface import HFLM
            self.lm = HFLM(pretrained=self.model, tokenizer=self.tok, batch_size=1, device="cpu", add_bos_token=False)
            self.name = "lm_eval"
        except (ImportError, AttributeError): # not there, or made for another transformers
            self.lm = None

    def enc(self, text):
        return self.tok(text, add_special_tokens=False).input_ids

    def loglik(self, pairs):
        if self.lm:
            from lm_eval.api.instance import Instance
            ask = [Instance(request_type="loglikelihood", doc={}, arguments=p, idx=i) for i, p in enumerate(pairs)]
            return self.lm.loglikelihood(ask, disable_tqdm=True)
        out = []
        for context, continuation in pairs:
            n = len(context) - len(context.rstrip())
            if n:
                context, continuation = context[:-n], context[-n:] + continuation
            c = self.enc(context)
            k = self.enc(context + continuation)[len(c):]
            ids = torch.tensor([(c + k)[-(self.max_length + 1):]])
            with torch.no_grad():
                logp = torch.log_softmax(self.model(ids[:, :-1]).logits[0], -1)[-len(k):]
            want = ids[0, -len(k):]
            out.append((logp.gather(1, want[:, None]).sum().item(), bool((logp.argmax(-1) == want).all())))
        return out

    def generate(self, prompt, new):
        ids = torch.tensor([self.enc(prompt)[-(self.max_length - new):]])
        with torch.no_grad():
            out = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
                                      pad_token_id=self.tok.pad_token_id or 0)
        text = self.tok.decode(out[0, ids.shape[1]:], skip_special_tokens=True)
        return text.split(self.tok.eos_token)[0] if self.tok.eos_token else text


def decide(task, row, sums):
    if task == "lambada_openai":
        return None
    return max(range(len(sums)), key=lambda i: sums[i])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("hybridize"), p.add_argument("model"), p.add_argument("data")
    p.add_argument("--limit", type=int, default=200)
    p.add_argument("--max-len", type=int, default=1024)
    p.add_argument("--tasks", default=",".join(CHOICE + list(RULER)))
    args = p.parse_args()
    peer, bad = Peer(args.model), 0
    print(f"| task | requests | decisions that differ | of these closer than 1e-4 | largest difference of a log-likelihood | hybridize s | {peer.name} s |")
    print("|---|---|---|---|---|---|---|")
    for task in args.tasks.split(","):
        rows, ours = hybridize(args, "--task", task, "--limit", str(args.limit), "--max-len", str(args.max_len))
        began, differ, near, largest, requests = time.time(), 0, 0, 0.0, 0
        for row in rows:
            if task in RULER:
                text = peer.generate(row["prompt"], RULER[task])
                requests += 1
                if text != row["generated"]:
                    differ += 1
                    print(f"  {task} {row['index']}: {row['generated']!r}\n  {peer.name}: {text!r}", file=sys.stderr)
                continue
            pairs = [(row["prompt"], a) for a in row["answers"]]
            if "prompt2" in row:
                pairs = [(row["prompt"], row["answers"][0]), (row["prompt2"], row["answers"][0])]
            theirs = peer.loglik(pairs)
            requests += len(pairs)
            mine = row["loglikelihood"]
            sums = [t[0] for t in theirs]
            largest = max([largest] + [abs(a - b) for a, b in zip(mine, sums)])
            same = decide(task, row, mine) == decide(task, row, sums) and row["greedy"] == [bool(t[1]) for t in theirs]
            if not same:
                order = sorted(sums, reverse=True)
                close = len(order) > 1 and order[0] - order[1] < 1e-4
                differ, near = differ + 1, near + close
                print(f"  {task} {row['index']}: {mine} {row['greedy']}, {peer.name} {theirs}", file=sys.stderr)
        bad += differ - near
        print(f"| {task} | {requests} | {differ} | {near} | {largest:.2e} | {ours:.1f} | {time.time() - began:.1f} |", flush=True)
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
