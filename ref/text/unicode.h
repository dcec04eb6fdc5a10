/* unicode.h - UTF-8, character classes and NFC (Unicode Standard Annex 15), from generated tables. Pure
 * functions.
 *
 * The tables are those of Unicode 16.0 (unicode_tables.h), as in the regex engine of Hugging Face tokenizers
 * 0.23. Its NFC is older and leaves about 140 marks of newer scripts where they stand; here NFC is the
 * standard's. */
#ifndef HYB_UNICODE_H
#define HYB_UNICODE_H
#include <stddef.h>
#include <stdint.h>
#include "base/text_buf.h"

enum {
    CHAR_LETTER = 1,     /* \p{L} */
    CHAR_NUMBER = 2,     /* \p{N}: Nd, Nl and No */
    CHAR_SPACE = 4,      /* \s: White_Space, U+0085 included */
    CHAR_WORD = 8,       /* \w: Alphabetic, marks, Nd, Pc, Join_Control */
    CHAR_NFC_UNSAFE = 16 /* changes under NFC, or can act on the characters before it */
};
unsigned char_flags(uint32_t c); /* 0 for surrogates and beyond U+10FFFF */
const char *unicode_version(void);

#define UTF8_BAD 0xFFFFFFFFu
/* Decodes one character of s[0..n), n >= 1; returns its length. Not UTF-8: *c = UTF8_BAD and the length of
 * the longest prefix of a character (at least 1), which is what one U+FFFD replaces ("maximal subpart",
 * Unicode 3.9). */
size_t utf8_decode(const char *s, size_t n, uint32_t *c);
size_t utf8_encode(char out[4], uint32_t c);
int utf8_valid(const char *s, size_t n);

/* Append to out; s must not lie in out. Running out of memory is remembered in out (textbuf_end tells). */
void utf8_repair(TextBuf *out, const char *s, size_t n);   /* bad bytes -> U+FFFD */
void nfc_normalize(TextBuf *out, const char *s, size_t n); /* s must be valid UTF-8; linear time */
int nfc_is_certain(const char *s, size_t n);               /* 1: s is in NFC; 0: it may not be */

#endif
