#!/bin/sh
# valgrind.sh - the command line under valgrind's memcheck: reads of what was never written, which the address sanitizer does not see, and leaks.
# A tiny teacher, then every command that reads or writes files, and files made to harm. The plain instruction set: valgrind decodes no AVX-512.
B=build/valgrind
command -v valgrind >/dev/null || { echo "make valgrind needs valgrind (Debian, Ubuntu: sudo apt-get install valgrind)" >&2; exit 1; }
[ -x ./hybridize ] || exit 1
export HYBRIDIZE_CPU=plain OMP_NUM_THREADS=1 GOMP_SPINCOUNT=1 # the last: else the program starts itself again by /proc/self/exe, which is valgrind
rm -rf $B && mkdir -p $B
count=0 failed=0
vg() { # vg CODE ARGUMENTS...: no report, and the program's own exit code
    want=$1
    shift
    valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite,possible --log-file=$B/log ./hybridize "$@" >$B/out 2>$B/err </dev/null
    got=$?
    if [ $got = "$want" ] && [ ! -s $B/log ]; then count=$((count + 1))
    else
        echo "valgrind: hybridize $*: exit code $got, expected $want" && head -n 30 $B/log $B/err
        failed=1
    fi
}
head -c 6000 testdata/text.txt >$B/text
cat >$B/tiny.json <<'EOT'
{"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24, "levels": 1, "level0":
 {"layers": 0, "T": 24, "text_rows": 2, "recall_rows": 2, "n_min": 2, "n_max": 4}, "recall_n": [2, 4], "save_dtype": "float32"}
EOT
t=$B/teacher/model run="-m $B/teacher/model --text $B/text -t 1 -q --stage1.batch-size 2 --stage1.micro-batch-size 2 --stage1.train-seq-len 24 --stage1.steps 1
 --stage2.batch-size 2 --stage2.micro-batch-size 2 --stage2.train-seq-len 24 --stage2.steps 1 --score.batch-size 2 --score.micro-batch-size 2 --score.train-seq-len 24
 --score.steps 1 --eval-batches 2 --recall-rows 2"
vg 0 --help
vg 2 no-such-command
vg 0 pretrain --text $B/text -o $B/teacher --config $B/tiny.json --steps 2 -t 1 -q
vg 0 inspect $t --json --check-finite --tensors
vg 0 inspect $B/teacher/data/text.tok
vg 0 tokenize -m $t $B/text
vg 0 eval -m $t --text $B/text --seq-len 24 --max-tokens 96 -t 1
vg 0 generate -m $t --prompt ab --max-new-tokens 3 -t 1
vg 0 probe -m $t --rows 2 -o $B/probe -t 1 -q
vg 0 diff $t $t
for student in gdn_v4 gdn_v3 gla_v1 kda_v1; do
    vg 0 align --student $student -o $B/$student $run
    vg 0 distill --student $student --stage 2 --student-init-ckpt $B/$student/model --keep-full-attention-layers 1 -o $B/$student-2 $run
done
vg 0 run -o $B/run $run --students none
vg 0 export --format fla -m $B/gdn_v4/model -o $B/fla
vg 0 export --format student -m $B/gla_v1/model -o $B/student
vg 0 export --format gguf -m $t -o $B/t.gguf
vg 2 export --format qwen3_5 -m $B/gla_v1/model -o $B/none
vg 0 convert --from-gguf $B/t.gguf -o $B/back
for f in testdata/hostile/*/bad_* testdata/st/bad_*; do # one in 20
    n=$((${n:-0} + 1))
    [ $((n % 20)) = 0 ] || continue
    case $f in
    */tok/*) vg 3 tokenize -m "$f" $B/text ;;
    */gguf/*) vg 3 convert --from-gguf "$f" -o $B/none ;;
    */shard/* | */st/*) vg 3 inspect "$f" ;;
    esac
done
echo "$count commands passed under valgrind"
exit $failed
