#!/bin/sh
# outside.sh PROGRAM - what does it open when it is pointed at the hostile model directories of testdata/bad? Everything must lie in the
# directory itself, or belong to the system's libraries. Needs strace. Prints what does not, and how many directories were tried.
program=${1:-./hybridize}
log=$(mktemp)
outside=0 tried=0
for dir in testdata/bad/*/; do
    dir=${dir%/}
    strace -f -qq -e trace=open,openat,openat2,execve -o "$log" "$program" inspect --check-finite "$dir" >/dev/null 2>&1
    if grep -E '"' "$log" | grep -v execve | grep -vE '"(/etc/ld\.so|/lib|/usr/lib|/proc/|/sys/|/dev/)' | grep -v "\"$dir[/\"]"; then
        echo "    by $dir"
        outside=$((outside + 1))
    fi
    tried=$((tried + 1))
done
rm -f "$log"
echo "$tried directories, $outside of them made it open something outside"
[ $outside -eq 0 ] && [ $tried -gt 100 ]
