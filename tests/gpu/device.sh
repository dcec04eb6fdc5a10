#!/bin/sh
# device.sh [first|second] [--only TEXT] [--version V] - everything that a GPU is asked, in one command, in the order of what is learnt a second:
#   first   (300 s) what the machine is; every op in both precisions against float64; the twelve rows that matter; whole steps of 3B
#           models; stall reasons of one launch of 14 kernels (ncu); PyTorch and flash-linear-attention; compute-sanitizer, four tools at once
#   second  (240 s) the sanitizers over all ops, the rows that are left, the official code's step
# --only: rows and ops with this in their name; --version: a rung of cuda/LADDER.md (plain, tiles, mma, ring, wide, wgmma).
# Binaries: beside this script (`make gpu-pack`), else build/, else they are built. Each op and row is a process of its own; nothing stops what
# follows. To $OUT (build/device): device.log (all, as it comes), device.csv, ncu.csv, summary.txt (under 6 KB, also the last thing printed).
# Exit 1 if a check failed or a row was lost. Tools may be replaced (GPU_VERIFY, GPU_BENCH, NCU, SANITIZER, PEERS, OFFICIAL) and left out
# (=""), BACKENDS and TOTAL (seconds) set: tests/gpu/device_dry.sh runs it without any GPU, `make gpu-device-emu` on the emulator.
# Plain sh: no pipefail, no arrays.
here=$(cd "$(dirname "$0")" && pwd)
command=first only='' version=''
while [ $# -gt 0 ]; do
    case $1 in
    first | second) command=$1 ;;
    --only) only=$2 && shift ;;
    --version) version=$2 && shift ;;
    *) sed -n '2,12s/^# //p' "$0" >&2 && exit 2 ;;
    esac
    shift
done
OUT=${OUT:-build/device}
mkdir -p "$OUT" || exit 4
LOG=$OUT/device.log SUMMARY=$OUT/summary.txt STEPS=$OUT/steps.txt
: >"$STEPS"
[ "$command" = second ] || rm -f "$LOG" "$OUT/device.csv" "$OUT/ncu.csv"
begin=$(date +%s)
TOTAL=${TOTAL:-$([ "$command" = first ] && echo 300 || echo 240)}
BACKENDS=${BACKENDS-cuda cuda-bf16}
bad=0

binary() { # binary NAME: where it is
    for f in "$here/$1" "build/$1"; do [ -x "$f" ] && echo "$f" && return; done
}
GPU_VERIFY=${GPU_VERIFY-$(binary gpu_verify)}
GPU_BENCH=${GPU_BENCH-$(binary gpu_bench)}
if [ -z "$GPU_VERIFY$GPU_BENCH" ]; then
    make -j"$(nproc)" CUDA_ARCHS=90 build/gpu_verify build/gpu_bench >>"$LOG" 2>&1 || { echo "device: the binaries do not build, see $LOG"; exit 1; }
    GPU_VERIFY=build/gpu_verify GPU_BENCH=build/gpu_bench
fi
NCU=${NCU-ncu} SANITIZER=${SANITIZER-compute-sanitizer}
PEERS=${PEERS-python3 $([ -f "$here/peers.py" ] && echo "$here/peers.py" || echo tests/gpu/peers.py) short}
OFFICIAL=${OFFICIAL-python3 $([ -f "$here/official_step.py" ] && echo "$here/official_step.py" || echo tests/peers/official_step.py)}
# cuBLASLt may lie among Python's packages only.
libs=$(python3 -c 'import glob, nvidia; print(":".join(glob.glob(list(nvidia.__path__)[0] + "/*/lib")))' 2>/dev/null)
[ -d "$here/python" ] && export PYTHONPATH="$here/python${PYTHONPATH:+:}$PYTHONPATH" # packages that were carried along
export LD_LIBRARY_PATH="$LD_LIBRARY_PATH${LD_LIBRARY_PATH:+:}$libs"

left() { echo $((TOTAL - ($(date +%s) - begin))); }
# limit SECONDS: at most so many, and what is left less 5 for the end
limit() { l=$(($(left) - 5)) && [ "$l" -gt "$1" ] && l=$1; echo "$l"; }
said() { # said NAME RC SECONDS: the step's line in the summary
    case $2 in
    0) word=ok ;;
    124 | 137) word="stopped after $3 s" && bad=1 ;;
    127) word="not here" ;;
    *) word="FAILED ($2)" && bad=1 ;;
    esac
    printf '%-28s %-20s %4d s\n' "$1" "$word" "$3" | tee -a "$STEPS"
}
# step NAME SECONDS COMMAND...: output to the log, one line to the terminal
step() {
    name=$1 most=$(limit "$2")
    shift 2
    [ -z "$1" ] && return
    if [ "$most" -lt 5 ]; then
        printf '%-28s %s\n' "$name" "left out: no time" | tee -a "$STEPS"
        return
    fi
    from=$(date +%s)
    echo "==== $name: $*" >>"$LOG"
    timeout -k 5 "$most" "$@" >>"$LOG" 2>&1
    said "$name" $? $(($(date +%s) - from))
}
# several NAME SECONDS TOOL...: `run TOOL` for each at once; the worst of them is the step's
several() {
    name=$1 most=$(limit "$2")
    shift 2
    if [ "$most" -lt 5 ]; then
        printf '%-28s %s\n' "$name" "left out: no time" | tee -a "$STEPS"
        return
    fi
    from=$(date +%s) jobs='' worst=0
    for one in "$@"; do
        run "$one" "$most" >>"$LOG" 2>&1 &
        jobs="$jobs $!:$one"
    done
    for job in $jobs; do
        wait "${job%%:*}"
        rc=$?
        said "$name, ${job#*:}" $rc $(($(date +%s) - from))
    done
}

machine() {
    date -u +%Y-%m-%d
    uname -sr
    nvidia-smi -L 2>&1
    nvidia-smi --query-gpu=memory.total,clocks.max.sm,clocks.max.mem,driver_version --format=csv,noheader 2>&1
    nvcc --version 2>/dev/null | tail -n 1
    ldconfig -p 2>/dev/null | grep -m 1 cublasLt
    python3 -c 'import torch; print("torch", torch.__version__)' 2>/dev/null
    python3 -c 'import fla; print("fla", fla.__version__)' 2>/dev/null
    return 0
}
echo "==== machine" >>"$LOG"
machine | tee -a "$LOG"

if [ -n "$version" ]; then
    case $version in plain) n=1 ;; tiles) n=2 ;; mma) n=3 ;; ring) n=4 ;; wide) n=5 ;; wgmma) n=6 ;; *) n=$version ;; esac
    export HYB_CUDA_VERSION="$n"
fi
which_ops=$([ -n "$only" ] && echo "only $only")

if [ "$command" = first ]; then
    # An error comes with the name of its kernel; a fault is one op's.
    run() { CUDA_LAUNCH_BLOCKING=1 timeout -k 5 "$2" $GPU_VERIFY ops $which_ops "$1"; }
    [ -n "$GPU_VERIFY" ] && several verify 75 $BACKENDS
    step "the rows that matter" 55 $GPU_BENCH "$OUT/device.csv" first ${only:+--only "$only"}
    [ -n "$only" ] || step "whole steps" 60 $GPU_BENCH "$OUT/device.csv" models
    if [ -n "$NCU" ] && [ -n "$GPU_BENCH" ]; then
        echo "==== ncu" >>"$LOG"
        from=$(date +%s) most=$(limit 45)
        if ! command -v ${NCU%% *} >/dev/null; then said ncu 127 0
        elif [ "$most" -ge 5 ]; then
            timeout -k 5 "$most" $NCU --clock-control none --section SpeedOfLight --section WarpStateStats --section Occupancy \
                --section MemoryWorkloadAnalysis -k 'regex:gdn_|flash_|gla_|kda_|kl_|split' --launch-count 14 --csv \
                $GPU_BENCH first --once ${only:+--only "$only"} >"$OUT/ncu.csv" 2>>"$LOG"
            said ncu $? $(($(date +%s) - from))
        fi
    fi
    [ -n "$only" ] || step peers 45 $PEERS
fi
if [ -n "$SANITIZER" ] && [ -n "$GPU_VERIFY" ]; then
    if command -v ${SANITIZER%% *} >/dev/null; then
        run() {
            timeout -k 5 "$2" $SANITIZER --tool "$1" --error-exitcode 9 --report-api-errors no --kernel-name kns=device16 --kernel-name kns=device32 \
                $GPU_VERIFY quick ops $which_ops ${BACKENDS##* }
        }
        several sanitizer "$([ "$command" = first ] && echo 40 || echo 90)" memcheck racecheck initcheck synccheck
    else said sanitizer 127 0; fi
fi
if [ "$command" = second ]; then
    step "the rows that are left" 100 $GPU_BENCH "$OUT/device.csv" ops ${only:+--only "$only"}
    run() { timeout -k 5 "$2" $GPU_VERIFY "$1" ${BACKENDS##* }; }
    [ -n "$GPU_VERIFY" ] && [ -z "$only" ] && several verify 60 large models
    [ -n "$only" ] || step "the official code's step" 50 $OFFICIAL --ours "$LOG"
fi

# The summary: steps; what failed; times beside their limits; peers. Never more than 6 KB.
{
    machine | cut -c1-100 | head -n 8
    echo
    cat "$STEPS"
    echo
    grep -E 'FAILED|LOST|no timing without|verify:|rows lost' "$LOG" | grep -v '^====' | cut -c1-110 | head -n 16
    echo
    awk '/^ceilings|tokens\/s|^torch|^fla/ { print substr($0, 1, 100); next }
         / limit .* ms / { at = index($0, "limit"); print substr($0, 1, 70) " " substr($0, at, 27) }' "$LOG" | head -n 48
} | head -c 5900 >"$SUMMARY"
echo >>"$SUMMARY"
rm -f "$STEPS"
echo
cat "$SUMMARY"
exit $bad
