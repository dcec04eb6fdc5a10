#!/bin/sh
# device_dry.sh SHELL - device.sh from beginning to end under SHELL, without a GPU: stand-ins for every tool, good and bad ones. Exit 1 and a
# line on the first thing that is not as device.sh promises. A few seconds.
shell=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "device_dry ($shell): $*" && [ -f "$dir/out/device.log" ] && tail -n 20 "$dir/out/device.log"; exit 1; }
cat >"$dir/verify" <<'X'
#!/bin/sh
for last in "$@"; do :; done
echo "delta_rule       $last   40 checks    0 failed  least margin 3.1    dk of B=1"
[ "$last" = bad ] && echo "gla              $last   40 checks    2 failed   <<< FAILED" && exit 1
echo "verify: everything agrees"
X
cat >"$dir/bench" <<'X'
#!/bin/sh
[ "$1" = first ] || echo "row,shape,1.0" >>"$1"
echo "ceilings: copy 4000 GB/s (read + written), bf16 product 790 TFLOP/s"
i=0
while [ $i -lt 300 ]; do
    echo "row $i                  B 4 T 8192 H 32, 128                   0.350 ms     100 GB/s    300 TFLOP/s  limit    0.200 ms   57.1 %"
    i=$((i + 1))
done
X
cat >"$dir/slow" <<'X'
#!/bin/sh
sleep 60
X
chmod +x "$dir"/*
run() { # run NAME=VALUE... -- ARGUMENTS: device.sh with stand-ins, some replaced
    (
        export OUT="$dir/out" GPU_VERIFY="$dir/verify" GPU_BENCH="$dir/bench" NCU=/bin/echo SANITIZER=/bin/echo PEERS=/bin/echo OFFICIAL=/bin/echo \
            BACKENDS="one two" TOTAL=100
        while [ "$1" != -- ]; do export "$1" && shift; done
        shift
        "$shell" tests/gpu/device.sh "$@" >"$dir/shown" 2>&1
    )
    code=$?
    [ "$(ls "$dir/out" | wc -l)" -le 6 ] || fail "more than six files: $(ls "$dir/out")"
    [ "$(wc -c <"$dir/out/summary.txt")" -lt 6000 ] || fail "the summary is $(wc -c <"$dir/out/summary.txt") bytes"
}
has() { grep -q "$1" "$2" || fail "no \"$1\" in $2: $(cat "$2")"; }

run -- first
[ $code = 0 ] || fail "exit code $code with good tools"
for what in 'verify, one *ok' 'verify, two *ok' 'the rows that matter *ok' 'whole steps *ok' 'ncu *ok' 'peers *ok' 'sanitizer, racecheck *ok'; do has "$what" "$dir/out/summary.txt"; done
has 'row 0 ' "$dir/out/summary.txt"
has 'row 299' "$dir/out/device.log"
has 'row,shape' "$dir/out/device.csv"
has 'launch-count 14' "$dir/out/ncu.csv"
has 'row 0 ' "$dir/shown" # the summary is what is printed last
run -- second
[ $code = 0 ] || fail "exit code $code of second"
has 'verify, large *ok' "$dir/out/summary.txt"
has "official code's step *ok" "$dir/out/summary.txt"
has 'row 299' "$dir/out/device.log" # of both commands
run BACKENDS="one bad" -- first # one precision fails: said, and everything else runs
[ $code = 1 ] || fail "exit code $code where an op failed"
has 'verify, bad *FAILED (1)' "$dir/out/summary.txt"
has 'gla *bad .*<<< FAILED' "$dir/out/summary.txt"
has 'peers *ok' "$dir/out/summary.txt"
run GPU_BENCH=/bin/false NCU=nothing-here PEERS="sh -c 'exit 127'" -- first
[ $code = 1 ] || fail "exit code $code without timings"
has 'the rows that matter *FAILED (1)' "$dir/out/summary.txt"
has 'ncu *not here' "$dir/out/summary.txt"
has 'sanitizer, memcheck *ok' "$dir/out/summary.txt"
from=$(date +%s)
run GPU_VERIFY="$dir/slow" TOTAL=20 -- first # a hang ends, and what there is no time for is said (what the machine is takes seconds where it is busy)
[ $code = 1 ] || fail "exit code $code after a hang"
[ $(($(date +%s) - from)) -lt 40 ] || fail "a budget of 20 s took $(($(date +%s) - from))"
has 'verify, one *stopped' "$dir/out/summary.txt"
has 'left out: no time' "$dir/out/summary.txt"
run -- first --only gla --version plain
has 'only gla' "$dir/out/device.log"
has 'first --only gla' "$dir/out/device.log"
"$shell" tests/gpu/device.sh --nonsense >/dev/null 2>&1 && fail "an unknown option passes"
echo "device.sh ok under $shell"
