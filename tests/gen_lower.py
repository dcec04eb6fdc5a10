"""Prints ref/eval/lower_table.h from Python's own tables: python3 tests/gen_lower.py >ref/eval/lower_table.h, then clang-format."""
import textwrap
import unicodedata

small = {}
for c in range(0x80, 0x110000):
    if 0xD800 <= c < 0xE000:
        continue
    s = chr(c).lower()
    if s != chr(c) and len(s) == 1:
        small[c] = ord(s) - c
runs, chars, i = [], sorted(small), 0
while i < len(chars):
    first = last = chars[i]
    add, step = small[first], 1
    if i + 1 < len(chars) and small[chars[i + 1]] == add and chars[i + 1] - first in (1, 2):
        step = chars[i + 1] - first
        i += 1
        while i < len(chars) and small[chars[i]] == add and chars[i] - last == step:
            last = chars[i]
            i += 1
    else:
        i += 1
    runs.append((first, last, step, add))
print(f"""/* lower_table.h - characters beyond ASCII that one other character is the small form of, as Python's str.lower has it
 * (Unicode {unicodedata.unidata_version}): from `first` to `last` in steps, small = c + add. Made by tests/gen_lower.py. */
#ifndef HYB_LOWER_TABLE_H
#define HYB_LOWER_TABLE_H
#include <stdint.h>

static const struct {{
    uint32_t first, last;
    int step, add;
}} lower_runs[] = {{""")
print("\n".join(textwrap.wrap(", ".join("{0x%x, 0x%x, %d, %d}" % r for r in runs), 110)) + "};\n#endif")
