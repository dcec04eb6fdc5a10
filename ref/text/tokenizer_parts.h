/* tokenizer_parts.h - what a Tokenizer is made of. For tokenizer*.c only: others use tokenizer.h.
 *
 * The path of a text: added tokens with normalized = false are cut out of the raw text -> each rest is
 * normalised -> added tokens with normalized = true are cut out -> each rest is split into pieces -> each
 * piece is merged -> the post-processor's ids go before and behind. The order and the rules: ref/io/FORMATS.md
 * 5. */
#ifndef HYB_TOKENIZER_PARTS_H
#define HYB_TOKENIZER_PARTS_H
#include "text/added.h"
#include "text/bpe.h"
#include "text/split.h"
#include "text/tokenizer.h"

#define META "\xE2\x96\x81" /* U+2581, which stands for a space */
enum { STEPS = 8, LITERAL = 64 };
/* A short string out of the file. */
typedef struct {
    char s[LITERAL];
    size_t n;
} Literal;

typedef struct {
    enum { NORM_NFC, NORM_PREPEND, NORM_REPLACE } kind;
    Literal from, to; /* PREPEND: to; REPLACE: from -> to */
} NormStep;

typedef struct {
    enum { PRE_SPLIT, PRE_SPACE, PRE_META } kind; /* cut | put a space before | spaces -> U+2581 */
    SplitKind split;                              /* SPLIT */
    /* META: put a U+2581 before no text, the first one, every one */
    enum { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS } prepend;
} PreStep;

typedef struct {
    enum { DECODE_BYTES, DECODE_META, DECODE_CHAIN } kind;
    int drop_first; /* META: U+2581 of the first token are dropped */
    /* CHAIN: replacements in each token, then byte tokens, then strip at both ends of the text */
    NormStep replace[STEPS];
    int n_replace, byte_fallback;
    Literal strip;
    size_t strip_start, strip_stop;
} Decoder;

struct Tokenizer {
    Vocab vocab;
    Merges merges;
    AddedToken *added; /* in the order of the file: of two equal patterns the first counts */
    size_t n_added;
    Trie raw, normalized;
    NormStep norm[STEPS];
    int n_norm;
    PreStep pre[STEPS];
    int n_pre;
    int byte_level; /* pieces are bytes, written in an alphabet of 256 printable characters */
    int byte_fallback, fuse_unk, ignore_merges, unk; /* unk: id or -1 */
    int one[1024];                                   /* id of the one-character token below U+0400, or -1 */
    int byte_token[256];                             /* id of <0x00> ... <0xFF>, or -1 */
    Ids prefix, suffix;                              /* of the post-processor */
    Decoder decoder;
    uint64_t hash;
};

uint32_t byte_letter(unsigned char byte); /* GPT-2's alphabet: byte -> character U+0021 ... U+0143 */
int letter_byte(uint32_t c);              /* the inverse, or -1 */
/* Applies normaliser steps to s; appends to out. */
void steps_normalize(const NormStep *step, int n_steps, const char *s, size_t n, TextBuf *out);
void put_replaced(TextBuf *out, const Literal *from, const Literal *to, const char *s, size_t n);

#endif
