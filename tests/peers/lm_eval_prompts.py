#!/usr/bin/env python3
"""The questions of `hybridize eval --emit` against what lm-evaluation-harness's own task files make of the same rows.

    tests/peers/lm_eval_prompts.py HYBRIDIZE MODEL_DIR DATA_DIR

The templates (and winogrande's functions) are those of the installed lm_eval; rows come from DATA_DIR. piqa and lambada are there as published;
arc_easy and winogrande only in a processed form, from which the published row is put together again. MODEL_DIR: any model (its tokenizer is not
used). Exit code 1 if a question, an answer or the right answer differs.
"""
import importlib.util, json, os, subprocess, sys

import jinja2, lm_eval, yaml

TASKS = os.path.join(os.path.dirname(lm_eval.__file__), "tasks")
program, model, data = sys.argv[1:4]


class Loader(yaml.SafeLoader):
    pass


Loader.add_constructor("!function", lambda loader, node: node.value)


def lines(path):
    return [json.loads(l) for l in open(os.path.join(data, path)) if l.strip()]


def piqa():
    labels = open(os.path.join(data, "piqa/valid-labels.lst")).read().split()
    return [dict(r, label=int(l)) for r, l in zip(lines("piqa/valid.jsonl"), labels)]


def arc_easy():
    out = []
    for r in lines("arc/ARC-Easy-test.jsonl"):
        letters = [chr(65 + i) for i in range(len(r["choices"]))]
        out.append({"question": r["query"].removeprefix("Question: "), "choices": {"text": r["choices"], "label": letters}, "answerKey": letters[r["gold"]]})
    return out


def winogrande():
    out = []
    for r in lines("winogrande/dev.jsonl"):
        a, b = r["context_options"]
        n = 0
        while n < min(len(a), len(b)) and a[n] == b[n]:
            n += 1
        n = a.rfind(" ", 0, n) + 1 if n else 0
        out.append({"sentence": a[:n] + "_ " + r["continuation"], "option1": a[n:], "option2": b[n:], "answer": str(r["gold"] + 1)})
    return out


def render(template, row):
    return jinja2.Environment(keep_trailing_newline=True).from_string(template).render(**row)


def expected(task, config, row):
    """(contexts, continuations, right answer) as the harness asks them: a space between, unless the target brings it."""
    if task == "winogrande":
        spec = importlib.util.spec_from_file_location("w", os.path.join(TASKS, "winogrande/preprocess_winogrande.py"))
        w = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(w)
        return w.doc_to_choice(row), [" " + w.doc_to_target(row)], w.doc_to_text(row)
    context = render(config["doc_to_text"], row)
    target = render(config["doc_to_target"], row) if "{{" in config["doc_to_target"] else row[config["doc_to_target"]]
    if config["output_type"] == "loglikelihood":
        return [context], [target], 0
    choices = row["choices"]["text"] if task == "arc_easy" else [row["sol1"], row["sol2"]]
    return [context], [" " + c for c in choices], int(target)


bad = 0
for task, path, rows in [("piqa", "piqa/piqa.yaml", piqa), ("arc_easy", "arc/arc_easy.yaml", arc_easy), ("winogrande", "winogrande/default.yaml", winogrande),
                         ("lambada_openai", "lambada/lambada_openai.yaml", lambda: lines("lambada/lambada_test.jsonl"))]:
    config = yaml.load(open(os.path.join(TASKS, path)), Loader)
    text = subprocess.run([program, "eval", "--task", task, "-m", model, "--data", data, "--emit", "-", "-q"], check=True, capture_output=True, text=True).stdout
    mine, theirs, differ = [json.loads(l) for l in text.splitlines()], rows(), 0
    for m, r in zip(mine, theirs):
        contexts, answers, gold = expected(task, config, r)
        got = [m["prompt"]] + [m[k] for k in sorted(m) if k.startswith("prompt") and k != "prompt"]
        if (got, m["answers"], m["gold"]) != (contexts, answers, gold):
            differ += 1
            if differ == 1:
                print(task, "row", m["index"], "\n  ours ", (got, m["answers"], m["gold"]), "\n  lm_eval", (contexts, answers, gold))
    differ += abs(len(mine) - len(theirs))
    print(f"{task}: {len(theirs)} rows, {differ} differ")
    bad += differ
sys.exit(bad > 0)
