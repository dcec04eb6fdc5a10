#!/bin/sh
# ptxas_table.sh REPORT... - the hot kernels (fast versions and decode steps) as a Markdown table: registers a thread on each architecture, static
# shared memory, spilled bytes. Reports are what `make cuda` leaves in build/cuda/*.ptxas.
cat "$@" | c++filt | awk '
    /Compiling entry function/ { split($0, q, "\047"); name = q[2]; arch = q[4] }
    /Compiling entry function/ { sub(/\(.*/, "", name); sub(/.*device[0-9]+::/, "", name) }
    /bytes spill stores/ { for (i = 1; i <= NF; i++) if ($(i + 1) == "bytes" && $(i + 2) == "spill" && $(i + 3) == "stores,") spill = $i }
    /Used [0-9]+ registers/ {
        if (name !~ /_mma|^step_kernel|^attention_split/) next
        for (i = 1; i <= NF; i++) { if ($i == "Used") regs = $(i + 1); if ($(i + 2) == "smem" && $(i + 1) == "bytes") smem[name] = $i }
        used[name, arch] = regs; spilled[name] += spill; seen[name] = 1
    }
    END {
        print "| kernel | registers sm_80 | sm_90 | sm_100 | static shared | spilled |"
        print "|---|---|---|---|---|---|"
        for (n in seen) printf "| `%s` | %s | %s | %s | %d | %d |\n", n, used[n, "sm_80"], used[n, "sm_90"], used[n, "sm_100"], smem[n], spilled[n] | "sort"
    }'
