#!/bin/sh
# bench.sh PROGRAM - the tables of gpu-bench (ops, then whole steps of 3B models), then PyTorch's times for the same
# shapes and the official code's steps, where they are installed.
# Files go to $OUT (build/). With verify.sh (at most 120 + 4 x 30 s) these limits add up to less than nine minutes.
OUT=${OUT:-build}
set -o pipefail 2>/dev/null
timeout 90 "$1" "$OUT/bench.csv" ops 2>&1 | tee "$OUT/bench.txt" || exit 1
timeout 110 "$1" "$OUT/bench.csv" models 2>&1 | tee "$OUT/bench_models.txt" || echo "bench: whole steps stopped early"
if command -v python3 >/dev/null && python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    timeout 45 python3 tests/gpu/peers.py 2>&1 | tee "$OUT/peers.txt"
else
    echo "SKIP peers: no PyTorch with a GPU"
fi
if command -v python3 >/dev/null; then
    timeout 45 python3 tests/peers/official_step.py --ours "$OUT/bench_models.txt" 2>&1 | tee "$OUT/official.txt"
else
    echo "SKIP official code's step: no python3"
fi
