#!/bin/sh
# coverage.sh - which part of the branches of everything that reads a file is taken by the tests: gcc's --coverage, gcov. Prints a line a
# file and the sum. Slow code, so in a build of its own.
B=build/cov
suites="json safetensors hf gguf export tokenizer unicode dataset hostile fuzz train log base"
make -s B=$B NVCC= OMP= OPT="-O0 --coverage" WERROR=0 $B/hybridize $(for s in $suites; do echo $B/tests/test_$s; done) || exit 1
find $B -name '*.gcda' -delete
for s in $suites; do $B/tests/test_$s >$B/test_$s.log 2>&1 || echo "test_$s failed: $B/test_$s.log" >&2; done
for f in ref/io/*.c ref/text/*.c ref/method/checkpoint.c ref/base/file.c; do
    [ -f "$B/${f%.c}.gcda" ] && gcov -b -n -o "$B/${f%.c}.o" "$f" 2>/dev/null | grep -A4 "^File '$f'"
done | awk -F"[':% ]+" '
/^File/ { file = $2 }
/^Lines executed/ { lines = $3 }
/^Taken at least once/ { part = $5; n = $NF; sub(/.*of /, "", n); taken += part * n / 100; all += n; printf "%-32s %6.2f %% of %4d branches, %6.2f %% of lines\n", file, part, n, lines }
END { if (all) printf "%.1f %% of %d branches\n", 100 * taken / all, all }'
