#!/usr/bin/env python3
"""Turns parquet files of Hugging Face data sets into the JSONL that `hybridize eval --data DIR` reads. Needs pyarrow.

    tests/peers/parquet_to_jsonl.py FILE.parquet [FILE.parquet ...] > DIR/swde/validation.jsonl

    hazyresearch/based-swde-v2  validation  -> DIR/swde/validation.jsonl                text, key, value
    hazyresearch/based-fda      validation  -> DIR/fda/validation.jsonl                 text, key, value
    hazyresearch/based-squad    validation  -> DIR/squad_completion/validation.jsonl    text, value, context, question

Every column is kept; one JSON object a line, UTF-8, in the order of the rows.
"""
import json, sys

import pyarrow.parquet


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    for path in sys.argv[1:]:
        for row in pyarrow.parquet.read_table(path).to_pylist():
            print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
