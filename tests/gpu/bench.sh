#!/bin/sh
# bench.sh PROGRAM - the table of gpu-bench, then PyTorch's times for the same shapes where it is installed. Files go to $OUT (build/).
OUT=${OUT:-build}
set -o pipefail 2>/dev/null
"$1" "$OUT/bench.csv" 2>&1 | tee "$OUT/bench.txt" || exit 1
if command -v python3 >/dev/null && python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    timeout 100 python3 tests/gpu/peers.py 2>&1 | tee "$OUT/peers.txt"
else
    echo "SKIP peers: no PyTorch with a GPU"
fi
