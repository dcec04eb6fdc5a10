#!/bin/sh
# run.sh DIR TEST... - runs every test binary from the repository root, JOBS (the number of cores) at a time, prints a line each as it ends, adds
# up libcheck's summaries, and ends with "N passed, N failed, N skipped" (what is skipped is said by name). Full output of each: DIR/NAME.log.
# run.sh -one DIR TEST - one of them: its lines, and "CHECKS BAD SKIPPED" into DIR/NAME.sum.
one() {
    name=$(basename "$2")
    log="$1/$name.log"
    begin=$(date +%s)
    "$2" >"$log" 2>&1
    rc=$?
    seconds=$(($(date +%s) - begin))
    line=$(grep -E '^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+' "$log" | tail -n 1)
    checks=$(echo "$line" | sed -n 's/.*Checks: \([0-9]*\).*/\1/p')
    bad=$(echo "$line" | sed -n 's/.*Failures: \([0-9]*\), Errors: \([0-9]*\).*/\1 + \2/p')
    skips=$(grep -c '^SKIP' "$log")
    if [ -z "$checks" ]; then # died before its summary
        checks=1 bad=1
    fi
    bad=$(($bad))
    [ $rc -ne 0 ] && [ $bad -eq 0 ] && bad=1
    {
        printf '%-22s %3d checks, %d failed, %d skipped, %d s\n' "$name" "$checks" "$bad" "$skips" "$seconds"
        grep '^SKIP' "$log" | sort | uniq -c | sort -rn | head -n 12 | sed 's/^ *\([0-9]*\) SKIP/    skipped (\1x):/'
        if [ $bad -ne 0 ]; then
            echo "---- $log (last 40 lines)"
            tail -n 40 "$log"
            echo "----"
        fi
    } >"$1/$name.out"
    cat "$1/$name.out" # in one piece, whoever else is writing
    echo "$checks $bad $skips" >"$1/$name.sum"
}
if [ "$1" = -one ]; then
    one "$2" "$3"
    exit 0
fi
dir=$1
shift
mkdir -p "$dir"
rm -f "$dir"/*.sum
# The long ones first, so that none is left running alone at the end.
long='/test_(cuda|ranks|failures|options|selectors|cli|tokenizer|safetensors|cpu|ops|gguf|rounding|bad_metadata)$'
for t in "$@"; do echo "$t" | grep -E "$long"; done >"$dir/order"
for t in "$@"; do echo "$t" | grep -vE "$long"; done >>"$dir/order"
xargs -n 1 -P "${JOBS:-$(nproc 2>/dev/null || echo 1)}" "$0" -one "$dir" <"$dir/order"
passed=0 failed=0 skipped=0
for t in "$@"; do
    sum="$dir/$(basename "$t").sum"
    checks=1 bad=1 skips=0 # it did not come to its end
    [ -f "$sum" ] && read -r checks bad skips <"$sum"
    passed=$((passed + checks - bad)) failed=$((failed + bad)) skipped=$((skipped + skips))
    [ "$bad" -eq 0 ] && continue
    name=$(basename "$t") # what failed is said again where it is looked for: at the end
    grep -aE ':[FE]:' "$dir/$name.log" 2>/dev/null | cut -c1-600 >"$dir/failed"
    if [ -s "$dir/failed" ]; then sed "s/^/FAILED $name: /" "$dir/failed"; else echo "FAILED $name: ended without its summary, see $dir/$name.log"; fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
