#!/bin/sh
# fuzz.sh SECONDS [RUNS [NAME...]] - every tests/fuzz_*.c (or only these, as fuzz_json) under libFuzzer with ASan and UBSan for so many
# seconds each, or until RUNS executions if RUNS is not 0, from testdata/fuzz/NAME.pack and what lies in testdata. Needs clang.
# A finding is left in build/fuzz/ and makes this fail; it belongs into testdata after the fix.
seconds=${1:-30} runs=${2:-0}
[ $# -gt 2 ] && shift 2 || set --
command -v clang >/dev/null || { echo "make fuzz needs clang" >&2; exit 1; }
B=build/fuzz
mkdir -p $B
san="-fsanitize=address,undefined"
# No cpu/: the readers do not need it. Coverage by counters; comparisons are not traced, which makes it twice as fast.
[ -n "$FUZZ_ONE" ] || make -s -j"$(nproc 2>/dev/null || echo 1)" B=$B CC=clang NVCC= CPU= OMP= OPT="-O2 -g $san -fsanitize-coverage=inline-8bit-counters,pc-table" $B/libhyb.a || exit 1
export ASAN_OPTIONS="malloc_context_size=3:quarantine_size_mb=16:$ASAN_OPTIONS"
one() { # one tests/fuzz_NAME.c
    name=$(basename "$1" .c)
    short=${name#fuzz_}
    clang -std=c11 -D_GNU_SOURCE -O2 -g $san,fuzzer -Iref -I. tests/$name.c $B/libhyb.a -lm -o $B/$name || return 1
    case $short in # where long inputs only cost time
    encode) len=64 ;;
    json) len=256 ;;
    tokenizer) len=900 ;;
    config) len=1024 ;;
    *) len=512 ;;
    esac
    corpus=$B/corpus_$name
    mkdir -p $corpus
    [ -f testdata/fuzz/$short.pack ] && {
        clang -std=c11 -D_GNU_SOURCE -O1 $san -Iref -I. tests/$name.c tests/replay.c $B/libhyb.a -lm -o $B/replay_$short || return 1
        $B/replay_$short -x $corpus testdata/fuzz/$short.pack >/dev/null 2>&1 || return 1
    }
    seeds=
    [ $short = safetensors ] && seeds=testdata/st
    [ -d testdata/hostile/$short ] && seeds=testdata/hostile/$short
    limit="-max_total_time=$seconds"
    [ "$runs" -gt 0 ] && limit="-runs=$runs"
    if $B/$name $limit -max_len=$len -timeout=20 -rss_limit_mb=4096 -artifact_prefix=$B/$name- -print_final_stats=1 $corpus $seeds >$B/$name.log 2>&1; then
        echo "$name: ok, $(sed -n 's/stat::number_of_executed_units: *//p' $B/$name.log) executions"
    else
        echo "$name: FOUND SOMETHING, see $B/$name.log"
        return 1
    fi
}
if [ -n "$FUZZ_ONE" ]; then # from below
    one "$FUZZ_ONE"
    exit
fi
# As many at a time as there are cores; xargs fails if one of them does.
printf '%s\n' ${@:-tests/fuzz_*.c} | xargs -P "${JOBS:-$(nproc 2>/dev/null || echo 1)}" -I{} env FUZZ_ONE={} "$0" "$seconds" "$runs"
