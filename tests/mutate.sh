#!/bin/sh
# mutate.sh [OP] - breaks each reference op on purpose, one line of tests/mutations.txt at a time, and requires test_ops to notice.
# Only ref64 and ref32 are mutated and run: the naive formulas, the differences and the recurrent forms must find it by themselves.
# Prints what survives; exit 1 if anything does, or if an edit no longer applies or does not compile. About a second and a half each.
only=${1:-}
B=build/mutate
CC=${CC:-cc}
FLAGS="-std=c11 -D_GNU_SOURCE -O1 -w -ffp-contract=off"
make -s B=$B OPT="-O1" $B/tests/test_ops >/dev/null || exit 1
$B/tests/test_ops --self >$B/whole.log 2>&1 || { # else every edit would seem to be noticed
    echo "test_ops fails without any edit: $B/whole.log"
    exit 1
}
LIBS="$B/libtools.a $B/libhyb.a $(pkg-config --libs check 2>/dev/null || echo -lcheck) -lm"
OMP=$(echo 'int main(void){return 0;}' | $CC -fopenmp -x c - -o /dev/null 2>/dev/null && echo -fopenmp)
caught=0 survived=0 broken=0
while IFS= read -r line; do
    case $line in '#'* | '') continue ;; esac
    op=${line%% | *}
    rest=${line#* | }
    file=${rest%% | *}
    edit=${rest#* | }
    [ -n "$only" ] && [ "$only" != "$op" ] && continue
    rm -rf $B/ref && mkdir -p $B/ref && cp -r ref/ops $B/ref/ops
    sed "$edit" "ref/ops/$file" >"$B/ref/ops/$file"
    if cmp -s "ref/ops/$file" "$B/ref/ops/$file"; then
        echo "does not apply: $line"
        broken=$((broken + 1))
        continue
    fi
    for bits in 32 64; do
        # shellcheck disable=SC2086
        $CC $FLAGS -DBITS=$bits -I$B/ref -Iref -I. -c $B/ref/ops/ref_ops.c -o $B/mutant$bits.o 2>$B/mutant.log || break
    done
    # the mutated tables come first, so that the library's are not taken
    # shellcheck disable=SC2086
    if [ -s $B/mutant.log ] || ! $CC $OMP $B/tests/test_ops.o $B/mutant32.o $B/mutant64.o $LIBS -o $B/mutant 2>$B/mutant.log; then
        echo "does not compile: $line"
        head -n 3 $B/mutant.log
        broken=$((broken + 1))
        continue
    fi
    if timeout 120 $B/mutant --self --only "$op" >$B/mutant.log 2>&1; then
        echo "SURVIVED: $line"
        survived=$((survived + 1))
    else
        caught=$((caught + 1))
    fi
done <tests/mutations.txt
rm -rf $B/ref
echo "$caught caught, $survived survived, $broken not applied"
[ $survived -eq 0 ] && [ $broken -eq 0 ] && [ $caught -gt 0 ]
