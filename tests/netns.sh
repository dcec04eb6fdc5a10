#!/bin/sh
# netns.sh - three hosts on one machine: network namespaces on a bridge, each with a name of its own, that share one folder. The claims of `run`
# on one RUNDIR; ranks over TCP; a host that is cut off from the others in the middle of either. All must leave the bytes of one process.
# Needs root, ip, Open MPI, ./hybridize and build/hybridize-mpi. Says what it skipped; exit 1 if anything failed.
set -u
cd "$(dirname "$0")/.." || exit 1
root=$PWD
skip() { echo "SKIP $*"; exit 0; }
[ "$(id -u)" = 0 ] || skip "netns: needs root"
for c in ip unshare mpirun; do command -v $c >/dev/null || skip "netns: no $c"; done
[ -x hybridize ] && [ -x build/hybridize-mpi ] || { echo "netns.sh: make hybridize build/hybridize-mpi first" >&2; exit 1; }
mpirun --version | grep -q 'Open MPI' || skip "netns: mpirun is not Open MPI's"
ns=hyb$$
dir=$(mktemp -d) || exit 1
clear_up() {
    for i in 1 2 3; do ip netns del $ns-$i 2>/dev/null; done
    ip link del br$$ 2>/dev/null
}
trap 'clear_up; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
why=$(ip netns add $ns-1 2>&1) || skip "netns: no namespaces here: $why"
ip link add br$$ type bridge && ip addr add 10.213.0.254/24 dev br$$ && ip link set br$$ up || exit 1
for i in 1 2 3; do
    [ $i = 1 ] || ip netns add $ns-$i
    ip link add v$i-$$ type veth peer name eth0 netns $ns-$i && ip link set v$i-$$ master br$$ up || exit 1
    ip -n $ns-$i link set lo up
    ip -n $ns-$i addr add 10.213.0.$i/24 dev eth0
    ip -n $ns-$i link set eth0 up
done
if tc qdisc add dev v1-$$ root netem delay 5ms loss 0.5% 2>/dev/null; then
    for i in 2 3; do tc qdisc add dev v$i-$$ root netem delay 5ms loss 0.5%; done
else echo "SKIP netns: no delay and loss: this kernel has no netem"; fi

cd "$dir" || exit 1
# on HOST COMMAND...: the HOST-th machine (10.213.0.HOST, named hostHOST), which numbers its processes itself: else they would be looked for there.
cat >on <<EOF
#!/bin/sh
n=\${1#10.213.0.}
shift
exec ip netns exec $ns-\$n unshare --uts --pid --fork --kill-child --mount-proc sh -c 'hostname host'\$n'; eval exec "\$*"' sh "\$@"
EOF
chmod +x on
head -c 20000 "$root/testdata/text.txt" >text
echo '{"hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24, "levels": 1,
 "level0": {"layers": 0, "T": 24, "text_rows": 4, "recall_rows": 4, "n_min": 2, "n_max": 4}, "recall_n": [2, 4], "save_dtype": "float32"}' >tiny.json
echo '{"lanes": 4, "k": 1, "students": "", "eval_batches": 3, "recall_keys": "a-z", "recall_n": "2", "recall_rows": 40, "save_every": 20,
 "stage1": {"steps": 60, "train_seq_len": 24, "batch_size": 8}, "score": {"steps": 60, "train_seq_len": 24, "batch_size": 8},
 "stage2": {"steps": 400, "train_seq_len": 24, "batch_size": 8}}' >run.json
"$root/hybridize" pretrain --text text -o teacher --config tiny.json --steps 4 -q -t 1 || exit 1
RUN="run -m teacher/model --text text --config run.json -t 1"
"$root/hybridize" $RUN -q -o whole || exit 1
bad=0
# Models are compared byte for byte, records without their lines of time and memory.
same() { # same NAME DIR
    for f in ranking.json results.json; do
        for d in whole "$2"; do grep -vE 'second|time|tok_per_s|peak|bytes|crc32c|resume' $d/$f >$d.$f; done
        diff whole.$f "$2.$f" || { echo "FAILED $1: $f differs"; bad=1; return; }
    done
    cmp whole/model/model.safetensors "$2/model/model.safetensors" || { echo "FAILED $1: the model differs"; bad=1; return; }
    echo "ok $1"
}

# 1. Three hosts on one folder; then the third is stopped in the middle, and is silent to the others as one that lost the folder is.
for i in 1 2 3; do ./on $i "$root/hybridize" $RUN --resume -o claims >claims.$i 2>&1 & done
wait
same "claims of three hosts" claims
for i in 1 2 3; do grep -q "on host[1-3]" claims.$i || { cat claims.$i; echo "FAILED: host$i met no other"; bad=1; }; done
./on 1 "$root/hybridize" $RUN --resume -o silent >silent.1 2>&1 &
first=$!
./on 2 "$root/hybridize" $RUN --resume -o silent >silent.2 2>&1 &
second=$!
./on 3 "$root/hybridize" $RUN --resume -o silent >silent.3 2>&1 &
third=$!
for t in $(seq 300); do ls silent/workers/*-host3 >/dev/null 2>&1 && break; sleep 0.05; done
sleep 0.4
inner=$(pgrep -P $third) && kill -STOP $inner || { echo "FAILED: the third host has ended already"; bad=1; }
began=$(date +%s)
wait $first $second || { cat silent.1 silent.2; echo "FAILED without the silent host"; bad=1; }
echo "   without the silent host: $(($(date +%s) - began)) s"
same "two hosts without the third" silent
kill -CONT $inner
wait $third
echo "   the third, awake again: code $?: $(tail -n 1 silent.3)"
same "after the third woke" silent

# 2. Three hosts, four ranks, started by the rsh agent that Open MPI would take ssh for.
mpi() { # mpi SECONDS ARGUMENTS...
    limit=$1; shift
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 timeout -s KILL $limit ./on 1 mpirun --bind-to none \
        --host 10.213.0.1:2,10.213.0.2:1,10.213.0.3:1 --mca plm rsh --mca plm_rsh_agent "$dir/on" --mca orte_keep_fqdn_hostnames 1 \
        --mca btl self,tcp --mca btl_tcp_if_include 10.213.0.0/24 --mca oob_tcp_if_include 10.213.0.0/24 --mca pml ob1 -n 4 "$root/build/hybridize-mpi" "$@"
}
mpi 200 $RUN -o ranks >ranks.out 2>&1 || { cat ranks.out; echo "FAILED ranks on three hosts"; bad=1; }
same "four ranks on three hosts" ranks

# 3. The third host's cable is pulled while stage 2 trains: all end in time, with a line; another number of ranks goes on.
mpi 120 $RUN --rank-timeout 4 -o cut >cut.out 2>&1 &
mpirun=$!
for t in $(seq 1000); do grep -q '^stage 2' cut.out && break; sleep 0.05; done
sleep 0.5
ip link set v3-$$ down
began=$(date +%s)
wait $mpirun
rc=$?
seconds=$(($(date +%s) - began))
line=$(grep 'hybridize: error: ' cut.out)
if [ $rc = 0 ] || [ $seconds -gt 60 ] || [ -f cut/results.json ]; then cat cut.out; echo "FAILED cut: code $rc after $seconds s"; bad=1; fi
echo "   cut off: code $rc after $seconds s: ${line:-$(grep -v '^ *$' cut.out | tail -n 4)}"
ip link set v3-$$ up
"$root/hybridize" $RUN -q --resume -o cut || { echo "FAILED to go on"; bad=1; }
same "one process goes on" cut
exit $bad
