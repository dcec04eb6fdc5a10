#!/bin/sh
# tsan.sh - the threads under clang's ThreadSanitizer. gcc's OpenMP is not built for it and would look like a race at every loop's end; LLVM's
# tells it about loops and barriers through libarcher, if that is there. Needs clang, libomp (Debian: clang libomp-dev).
# First two programs of a few lines, one with a race: it must be reported, and the other must not.
B=build/tsan
omp="clang -O1 -g -fopenmp -fsanitize=thread"
export TSAN_OPTIONS="ignore_noninstrumented_modules=1 exitcode=66" OMP_NUM_THREADS=4 ARCHER_OPTIONS=verbose=1
command -v clang >/dev/null || { echo "make tsan needs clang and libomp" >&2; exit 1; }
mkdir -p $B
loop() { # loop NAME STATEMENT: a program whose threads execute STATEMENT, with i the loop's own
    printf 'int main(void) {\n    static int x[1000];\n    for (int k = 0; k < 100; k++)\n#pragma omp parallel for schedule(dynamic)\n        for (int i = 0; i < 1000; i++) %s;\n    return x[0] < 0;\n}\n' "$2" >$B/$1.c
    $omp $B/$1.c -o $B/$1 || { echo "tsan: this clang has no OpenMP" >&2; exit 1; }
}
loop race 'x[i / 2]++'
loop fine 'x[i]++'
$B/race >/dev/null 2>&1
[ $? = 66 ] || { echo "tsan: a race was not seen" >&2; exit 1; }
$B/fine >$B/fine.log 2>&1 && grep -q 'Archer detected' $B/fine.log || { echo "tsan: libarcher is missing, or LLVM's OpenMP is" >&2; exit 1; }
unset ARCHER_OPTIONS
make -s -j2 B=$B CC=clang CXX=clang++ NVCC= EMU_LIB= OMP=-fopenmp OPT="-O1 -g -fsanitize=thread" $B/hybridize $B/tests/test_cpu || exit 1
failed=0 count=0
try() { # try NAME COMMAND...: no report, exit 0
    name=$1
    shift
    if "$@" >$B/$name.log 2>&1 && ! grep -q 'WARNING: ThreadSanitizer' $B/$name.log; then count=$((count + 1)) && echo "tsan: $name ok"
    else echo "tsan: $name: see $B/$name.log" && failed=1; fi
}
rm -rf $B/run && mkdir -p $B/run
h="$B/hybridize" text=testdata/text.txt
small="--batch-size 5 --micro-batch-size 5 --train-seq-len 128 --steps 2"
one="$(echo " $small" | sed 's/ --/ --stage1./g')" two="$(echo " $small" | sed 's/ --/ --stage2./g') --recall-rows 1 --eval-batches 1"
try cpu $B/tests/test_cpu
for path in avx512 avx2 plain; do
    export HYBRIDIZE_CPU=$path
    for student in gdn_v4 gdn_v3 gla_v1 kda_v1 swa_v1; do
        [ $path = plain ] || [ $student = gdn_v4 ] || continue # every mixer once, every path once
        both="-m testdata/teacher --text $text --student $student -t 3 -q"
        try align-$path-$student $h align $both -o $B/run/$path-$student $one
        try distill-$path-$student $h distill $both --stage 2 --student-init-ckpt $B/run/$path-$student/model --keep-full-attention-layers 1 -o $B/run/$path-$student-2 $two
    done
done
unset HYBRIDIZE_CPU
try eval $h eval -m testdata/teacher --text $text --seq-len 128 --max-tokens 2000 -t 4
try generate $h generate -m testdata/teacher --prompt 'Once upon' --max-new-tokens 20 -t 4
try bench $h bench --op linear --quick --no-ref -t 4
echo "$count passed under ThreadSanitizer"
exit $failed
