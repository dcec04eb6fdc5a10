#!/bin/sh
# gmma_layout.sh - builds gmma_layout.cc against CUTLASS from PyPI and a CUDA Toolkit's headers, and requires that it prints what
# testdata/gmma_layout.txt has. No GPU is needed. CUDA: the toolkit, /usr/local/cuda if not given.
set -e
CUDA=${CUDA:-/usr/local/cuda}
W=${B:-build}/gmma_layout
mkdir -p "$W"
[ -d "$W/cutlass" ] || {
    python3 -m pip download -q --no-deps -d "$W" nvidia-cutlass==4.2.0.0
    python3 -m zipfile -e "$W"/nvidia_cutlass-*.whl "$W/cutlass"
}
c++ -std=c++17 -w -x c++ -I"$W/cutlass/cutlass_library/source/include" -I"$CUDA/include" -I"$CUDA/include/cccl" \
    tests/peers/gmma_layout.cc -o "$W/print"
"$W/print" | grep -v '^ERROR: cast_smem_ptr' >"$W/layout.txt"
cmp "$W/layout.txt" testdata/gmma_layout.txt && echo "CuTe's layouts are testdata/gmma_layout.txt"
