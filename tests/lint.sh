#!/bin/sh
# lint.sh - the rules of the house that a compiler does not know. Prints what breaks one, with file and line; exit 1 if anything does.
mark=$(mktemp)
trap 'rm -f "$mark"' EXIT
complain() { # complain TEXT: reads grep's findings from stdin. Runs in a pipe's own shell, so a file remembers that there were any
    found=$(cat)
    [ -z "$found" ] && return
    echo "lint: $1"
    echo "$found" | head -n 20 | sed 's/^/    /'
    echo bad >>"$mark"
}
# One direction of dependency: tools -> ref, cpu -> ref headers, cuda -> ref headers, tests -> all.
grep -rnE '#include "' ref --include=*.c --include=*.h | grep -vE '#include "(base|io|text|ops|model|method|selectors|run|eval|report)/' | complain "ref/ includes something outside ref/"
grep -rnE '#include "(method|eval|model|text)/' ref/base ref/io/safetensors.* ref/ops ref/text 2>/dev/null | grep -v 'include "text/' | complain "a lower room of ref/ includes a higher one"
grep -rnE '#include "(tools|tests|cuda)/' cpu --include=*.c --include=*.h | complain "cpu/ includes something other than ref and cpu"
grep -rnE '#include "(tools|tests|cpu)/' cuda 2>/dev/null | complain "cuda/ includes something other than ref and cuda"
# No two rooms of ref/ need each other, by whatever way round.
grep -rnoE '#include "(base|io|text|ops|model|method|selectors|run|eval|report)/' ref --include=*.c --include=*.h | awk -F'[/:"]' '
    $2 != $(NF - 1) { need[$2, $(NF - 1)] = 1; room[$2]; room[$(NF - 1)] }
    END {
        for (k in room) for (i in room) for (j in room) if (need[i, k] && need[k, j]) need[i, j] = 1
        for (i in room) if (need[i, i]) print "ref/" i
    }' | complain "a room that, by way of others, includes itself"
# Words of our own for what the field has a name for (left: ours, right: the name).
grep -rnwE 'model_hold|let_go|Backend\.hold|Backend\.room|again_place|lean|Whose|score_without|drills|spoil|Border|MixerCall \*k' ref cpu tools --include=*.c --include=*.h | complain "prepack, invalidate, free_memory, place_recomputed, recomputes, source, ablated, diagnostic tasks, inject_error, staging buffer, call"
# ref/ is plain C: no SIMD, no threads but a worker's heartbeat, no operating system outside base/.
grep -rnE '#pragma|<omp.h>|<pthread|<immintrin|__builtin_ia32' ref | grep -v '^ref/base/worker.c:' | complain "ref/ uses threads, SIMD or pragmas"
grep -rnE '#include <(unistd|fcntl|dirent|signal|sys/[a-z]+)\.h>' ref | grep -v '^ref/base/' | complain "a system call outside ref/base"
grep -rnE '\b(malloc|calloc|realloc|free)\(' ref --include=*.c | grep -vE '^ref/base/mem.c' | complain "allocation outside base/mem.c"
grep -rnE '\b(printf|fprintf|puts|putchar|exit|abort|assert)\(' ref --include=*.c | grep -vE 'snprintf|static_assert|^[^:]*:[0-9]+: *(//|\*)' | complain "the library prints, exits or asserts"
grep -rnE '\b(strcpy|strcat|sprintf|gets|atoi|atof|strtok|setlocale)\(' ref cpu tools tests --include=*.c --include=*.h | complain "banned function"
grep -rnE -e '-ffast-math|-Ofast' Makefile cpu cuda ref tools 2>/dev/null | grep -vE '(no|never|No|Never|without|need).*(-ffast-math|-Ofast)' | complain "-ffast-math"
grep -rnE ".{121,}" ref cpu cuda tools tests --include=*.c --include=*.h --include=*.cu | grep -vE "^(ref/run/stage_options.h):" | cut -c1-100 | complain "a line over 120 columns"
if clang-format --version 2>/dev/null | grep -q "version 14"; then
    clang-format --dry-run -Werror ref/*/*.[ch] tools/*.[ch] cpu/*.[ch] tests/*.[ch] cuda/*.cu cuda/*.h 2>&1 | sed -n 's/^\([^: ]*\):[0-9]*:.*/\1/p' | sort -u | complain "not what make format makes"
fi
# ref/method is the method alone.
grep -nE '#include "(io|run|report|selectors)/|#include "base/(file|svg)' ref/method/*.[ch] | complain "ref/method knows of files, runs, reports or selectors"
grep -niE 'json_|fopen|fingerprint|option_|printf\(std' ref/method/*.[ch] | complain "ref/method writes or reads something itself"
# A document that is cited is in the repository.
git grep -nE '\b(method|evaluation|interfaces|performance|design)\.md' -- ref cpu cuda tools '*.md' | complain "a citation of a document that is not here"
git grep -ohE '\b(ref|cpu|cuda|tests|tools|testdata)/[A-Za-z0-9_/-]+\.md' -- ref cpu cuda tools tests '*.md' | sort -u | while read -r f; do [ -f "$f" ] || echo "$f"; done | complain "a citation of a document that is not here"
[ ! -s "$mark" ]
