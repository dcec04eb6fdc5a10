/* split.h - the pre-tokenizer regexes, by hand. Each splits a text into pieces that together are the text.
 *
 * - LLAMA3, QWEN, GPT2: the regexes of these families, written out in split_from_regex. QWEN is LLAMA3 with
 *   single digits.
 * - DIGIT: every number character a piece of its own. DIGITS: every run of them. What lies between is a
 * piece.
 * - META: a piece begins at every U+2581, the mark that stands for a space.
 *
 * The alternatives of a regex are tried in order and the first that matches counts, not the longest;
 * repetitions are greedy and give back. White space is Unicode's, U+0085 included; (?i:'s) also matches
 * U+017F, which folds to s. */
#ifndef HYB_SPLIT_H
#define HYB_SPLIT_H
#include <stddef.h>

enum { SPLIT_LLAMA3, SPLIT_QWEN, SPLIT_GPT2, SPLIT_DIGIT, SPLIT_DIGITS, SPLIT_META, SPLIT_KINDS };
typedef int SplitKind;

/* Bytes of the first piece of s[0..n): n >= 1, valid UTF-8. No piece depends on the text before it. */
size_t split_next(SplitKind kind, const char *s, size_t n);
/* The kind whose regex is written exactly so in tokenizer.json; SPLIT_KINDS if none is. */
SplitKind split_from_regex(const char *regex, size_t n);

#endif
