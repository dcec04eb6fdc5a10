#!/bin/sh
# coverage.sh [FILE] - which part of the branches of everything that reads or writes files the tests take, both ways: gcc's --coverage for
# ref/io, ref/text, ref/base/json*.c and ref/base/file.c at -O0, the rest as always. A line a file, and the sum; with a FILE: its branches that were
# never taken, with their lines. HYBRIDIZE_EVERY=1 takes every allocation and I/O call of test_failures and not a sample.
B=build/cov
if [ -n "$1" ]; then
    gcov -b -c -t -o "$B/${1%.c}.o" "$1" 2>/dev/null | awk -v file="$1" '
    /^ *-: *0:Source:/ { mine = index($0, file) }
    !mine { next }
    /^ *[0-9#=*-]+: *[0-9]+:/ { line = $0; shown = 0; next }
    /^branch .*(taken 0|never executed)/ { if (!shown++) print line; print "    " $0 }'
    exit
fi
suites="base bad_metadata json safetensors hf gguf export tokenizer unicode dataset hostile_files fuzz train log cli failures what_is corpus ends meet strict chat"
# Children that tests fork end with _exit, which would forget what they counted.
mkdir -p $B
printf 'void __gcov_dump(void);\nvoid __real__exit(int);\nvoid __wrap__exit(int code) {\n    __gcov_dump();\n    __real__exit(code);\n}\n' |
    gcc -x c -c - -o $B/exit.o || exit 1
make -s B=$B NVCC= COVERAGE="-Wl,--wrap=_exit $B/exit.o" $B/hybridize $(for s in $suites; do echo $B/tests/test_$s; done) || exit 1
find $B -name '*.gcda' -delete
export HYBRIDIZE_SLOW=1 CK_TIMEOUT_MULTIPLIER=20
for s in $suites; do $B/tests/test_$s >$B/test_$s.log 2>&1 || echo "test_$s failed: $B/test_$s.log" >&2; done
for f in ref/io/*.c ref/text/*.c ref/base/json*.c ref/base/file.c; do
    gcov -b -n -o "$B/${f%.c}.o" "$f" 2>/dev/null | grep -A4 "^File '$f'" || echo "File '$f'"
done | awk -F"[':% ]+" '
/^File/ { file = $2 }
/^Lines executed/ { lines = $3 }
/^No branches/ { printf "%-32s    no branches          %6.2f %% of lines\n", file, lines }
/^Taken at least once/ {
    n = $NF; taken = int($5 * n / 100 + 0.5); sum += taken; all += n
    printf "%-32s %6.2f %% of %4d branches, %6.2f %% of lines\n", file, 100 * taken / n, n, lines
}
END { if (all) printf "%-32s %6.2f %% of %4d branches\n", "together", 100 * sum / all, all }'
