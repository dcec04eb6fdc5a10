#!/bin/sh
# ptxas.sh REPORT... - what the compiler said about registers and spills: one line per kernel that spills, then a count.
# Exit 1 if a kernel named in HOT (fast versions, decode steps) spills.
set -u
HOT=${HOT:-_mma|_wgmma|attention_split|step_kernel}
cat "$@" | awk -v hot="$HOT" '
    /Compiling entry function/ { split($0, q, "\047"); name = q[2]; arch = q[4]; kernels++ }
    /bytes spill stores/ { if (!/ 0 bytes spill stores/) { spills++; printf "  spills on %s: %s: %s\n", arch, name, $0; if (name ~ hot) bad = 1 } }
    /Used [0-9]+ registers/ { for (i = 1; i <= NF; i++) if ($i == "Used" && $(i + 1) > most) { most = $(i + 1); who = name } }
    END { printf "ptxas: %d kernels (all architectures), %d with spills, most registers %d (%s)\n", kernels, spills, most, who; exit bad }'
