#!/bin/sh
# run.sh DIR TEST... - runs every test binary from the repository root, prints a line each, adds up libcheck's summaries, and ends
# with "N passed, N failed, N skipped" (what is skipped is said by name). Full output of each: DIR/NAME.log.
dir=$1
shift
mkdir -p "$dir"
passed=0 failed=0 skipped=0
for t in "$@"; do
    name=$(basename "$t")
    log="$dir/$name.log"
    begin=$(date +%s)
    "$t" >"$log" 2>&1
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
    passed=$((passed + checks - bad)) failed=$((failed + bad)) skipped=$((skipped + skips))
    printf '%-22s %3d checks, %d failed, %d skipped, %d s\n' "$name" "$checks" "$bad" "$skips" "$seconds"
    grep '^SKIP' "$log" | sort | uniq -c | sort -rn | head -n 12 | sed 's/^ *\([0-9]*\) SKIP/    skipped (\1x):/'
    if [ $bad -ne 0 ]; then
        echo "---- $log (last 40 lines)"
        tail -n 40 "$log"
        echo "----"
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
