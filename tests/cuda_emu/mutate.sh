#!/bin/sh
# mutate.sh - breaks one line of the fast kernels at a time (mutations.txt) and requires `hybridize gradcheck` on the emulator to fail, by a wrong
# number or by the emulator's report. Prints what survives; exit 1 if anything does, or if an edit no longer applies or does not compile.
# About twenty seconds each, most of it the compiler. MUTATIONS names another list.
B=${B:-build}
CXX=${CXX:-c++}
W=$B/mutate_cuda
mkdir -p "$W"
caught=0 bad=0
objects="$(ls "$B"/tools/cmd_*.o) $B/tools/main_emu.o"
libs="$B/libtools.a $B/libhyb.a"
while IFS= read -r line; do
    case $line in '#'* | '') continue ;; esac
    op=${line%% | *} rest=${line#* | }
    version=0
    case $op in *@*) version=${op#*@} op=${op%@*} ;; esac
    shape=${rest%% | *} rest=${rest#* | }
    file=${rest%% | *} edit=${rest#* | }
    rm -rf "$W/cuda" && mkdir -p "$W/cuda" && cp cuda/* "$W/cuda/"
    sed "$edit" "cuda/$file" >"$W/cuda/$file"
    if cmp -s "cuda/$file" "$W/cuda/$file"; then
        echo "does not apply: $line"
        bad=$((bad + 1))
        continue
    fi
    # shellcheck disable=SC2086
    if ! $CXX -std=c++17 -DCUDA_EMU -DBITS=16 -Itests/cuda_emu -Iref -I. -I"$W/cuda" -O1 -w -ffp-contract=off -x c++ -c "$W/cuda/cuda_ops.cu" -o "$W/mutant.o" 2>"$W/log" ||
        ! $CXX -fopenmp $objects "$W/mutant.o" "$B"/cuda_emu/cuda_backend.o "$B"/cuda_emu/matmul_lt.o "$B"/cuda_emu/cuda_ops32.o "$B"/cuda_emu/cuda_emu.o $libs -lm -o "$W/hybridize" 2>"$W/log"; then
        echo "does not compile: $line"
        head -n 3 "$W/log"
        bad=$((bad + 1))
        continue
    fi
    if HYB_CUDA_VERSION=$version timeout 60 "$W/hybridize" gradcheck --op "$op" --shape "$shape" --backend cuda-emu-bf16 >"$W/said" 2>&1; then
        echo "SURVIVED: $line"
        bad=$((bad + 1))
    else
        caught=$((caught + 1))
    fi
done <"${MUTATIONS:-tests/cuda_emu/mutations.txt}"
echo "$caught caught, $bad not"
[ $bad -eq 0 ]
