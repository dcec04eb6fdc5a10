#!/bin/sh
# ladder_sass.sh - a row of Markdown for each kernel of attention forward, read from the machine code: instructions in all, and those
# that LADDER.md counts. Needs cuobjdump or nvdisasm. Usage: ladder_sass.sh build/cuda/cuda_ops16.o (a cubin for nvdisasm)
set -e
[ -n "$1" ] || { echo "usage: ladder_sass.sh OBJECT"; exit 2; }
case $1 in *.cubin) nvdisasm -c "$1" ;; *) cuobjdump -arch sm_90a -sass "$1" ;; esac | awk '
    /^\.text\./ { kernel = $1 }
    /Function :/ { kernel = $3 }
    /^ *\/\*[0-9a-f]+\*\/ / && kernel ~ /(attention|flash)_forward/ {
        op = $2 ~ /^@/ ? $3 : $2
        sub(/[.;].*/, "", op)
        n[kernel]++; count[kernel, op]++
    }
    END {
        print "| kernel | instructions | FFMA | HMMA | HGMMA | LDS | LDSM | LDG | LDGSTS | UTMALDG | MUFU | LDL + STL |"
        print "|---|---|---|---|---|---|---|---|---|---|---|---|"
        for (k in n) {
            printf "| %s | %d", k, n[k]
            split("FFMA HMMA HGMMA LDS LDSM LDG LDGSTS UTMALDG MUFU", ops, " ")
            for (i = 1; i <= 9; i++) printf " | %d", count[k, ops[i]]
            printf " | %d |\n", count[k, "LDL"] + count[k, "STL"]
        }
    }' | sed 's/\.text\.//;s/_ZN[0-9]*device16[0-9][0-9]//;s/ILi\([0-9]*\)ELi\([0-9]*\)E[^ ]*/<\1, \2>/;s/ILi\([0-9]*\)E[^ ]*/<\1>/;s/EP4Bf16[^ ]*//'
