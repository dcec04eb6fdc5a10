/* utf8.h - the one question everybody asks about a byte string: is this a character? (Unicode 15, table 3-7.)
 */
#ifndef HYB_UTF8_H
#define HYB_UTF8_H
#include <stddef.h>

/* Length (1..4) of the UTF-8 character at p, of which `left` >= 1 bytes may be read; 0 if it is not well
 * formed: overlong, a surrogate, beyond U+10FFFF, a stray continuation byte, or cut short. */
static inline size_t utf8_length(const unsigned char *p, size_t left) {
    unsigned c = p[0];
    size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f)) return 0;
    if ((c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] > 0x8f)) return 0;
    return n;
}

#endif
