#!/bin/sh
# fuzz.sh SECONDS - every tests/fuzz_*.c under libFuzzer with ASan and UBSan for so many seconds each, from the corpus in testdata. Needs clang.
# A finding is left in build/fuzz/ and makes this fail; it belongs into testdata after the fix.
seconds=${1:-30}
command -v clang >/dev/null || { echo "make fuzz needs clang" >&2; exit 1; }
B=build/fuzz
mkdir -p $B
make -s B=$B CC=clang OMP= OPT="-O1 -g -fsanitize=address,undefined,fuzzer-no-link" $B/libhyb.a || exit 1
failed=0
for f in tests/fuzz_*.c; do
    name=$(basename "$f" .c)
    clang -std=c11 -D_GNU_SOURCE -O1 -g -fsanitize=address,undefined,fuzzer -Iref -I. "$f" $B/libhyb.a -lm -o $B/$name || exit 1
    case $name in
    fuzz_safetensors) corpus=testdata/st ;;
    fuzz_tokenizer) corpus=testdata/tok ;;
    *) corpus= ;;
    esac
    mkdir -p $B/corpus_$name
    if $B/$name -max_total_time=$seconds -rss_limit_mb=4096 -artifact_prefix=$B/$name- -print_final_stats=1 $B/corpus_$name $corpus >$B/$name.log 2>&1; then
        echo "$name: ok, $(sed -n 's/stat::number_of_executed_units: *//p' $B/$name.log) executions"
    else
        echo "$name: FOUND SOMETHING, see $B/$name.log"
        failed=1
    fi
done
exit $failed
