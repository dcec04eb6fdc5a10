#!/bin/sh
# verify.sh PROGRAM - gpu-verify: every op and small models on the device against the CPU, then compute-sanitizer's four tools over
# every kernel at the small cases. Full logs go to $OUT (build/), a short table to the terminal; exit 1 if anything failed.
OUT=${OUT:-build}
bad=0
timeout 120 "$1" >"$OUT/verify.txt" 2>&1 || bad=1
cat "$OUT/verify.txt"
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        begin=$(date +%s)
        timeout 30 compute-sanitizer --tool $tool --error-exitcode 9 "$1" quick >"$OUT/$tool.txt" 2>&1
        rc=$?
        case $rc in
        0) said=ok ;;
        124) said="stopped after 30 s, nothing found until then" ;;
        *) said="FAILED ($rc), see $OUT/$tool.txt"; bad=1 ;;
        esac
        printf 'compute-sanitizer %-10s %s, %d s\n' $tool "$said" $(($(date +%s) - begin))
    done
else
    echo "SKIP compute-sanitizer: not installed"
fi
exit $bad
