/* tokenizer.h - text <-> token ids exactly as Hugging Face `tokenizers` does it for two families of
 * tokenizer.json: byte-level BPE (Llama-3, Qwen2/2.5/3, GPT-2, SmolLM) and sentencepiece-style BPE with byte
 * fallback (Llama-2, TinyLlama, Mistral, the tinyllamas). The algorithm: ref/io/FORMATS.md 5. Anything else in
 * the file (other models, normalisers, pre-tokenizer regexes, dropout, ...) is refused by name, never
 * guessed.
 *
 * - truncation is refused (it shortens every text), and padding unless it is BatchLongest, which leaves a
 *   single text alone. Members that Hugging Face's reader ignores are ignored.
 * - tokenizer_config.json is not read here; clean_up_tokenization_spaces is not imitated.
 * - An added token with normalized = true decodes to its own text, as in tokenizers up to 0.22 (0.23 gives
 *   the normalised form, and no longer drops special ones among them).
 * - Compared with tokenizers 0.23.3 by tests/peers/tokenizer_compare.py. What differs: text in characters
 *   younger than Unicode 16 (its digit tables) or, under NFC, marks younger than its NFC tables. */
#ifndef HYB_TOKENIZER_H
#define HYB_TOKENIZER_H
#include <stddef.h>
#include "base/err.h"

typedef struct Tokenizer Tokenizer; /* immutable after opening; encode/decode are re-entrant */

/* path: a tokenizer.json, or a model directory that holds one. */
int tokenizer_open(Tokenizer **t, const char *path, Err *e);
int tokenizer_parse(Tokenizer **t, const char *json, size_t len, const char *file, Err *e);
/* The byte tokenizer: 256 ids, id = byte. What pretrain uses when no tokenizer is given; tokenizer_byte_json
 * is its tokenizer.json (a ByteLevel BPE without merges), so that other software can load what we trained. */
int tokenizer_byte(Tokenizer **t, Err *e);
int tokenizer_byte_json(char **text, size_t *len, Err *e); /* free with mem_free */
void tokenizer_close(Tokenizer *t);

int tokenizer_size(const Tokenizer *t); /* largest id + 1, added tokens included */
/* Special ids by what tokenizer_config.json / config.json say is the caller's business; this finds a token's
 * id, -1 if absent. */
int tokenizer_id(const Tokenizer *t, const char *token, size_t len);
/* Its text in the vocabulary, NUL-terminated; NULL if id is unused. */
const char *tokenizer_token(const Tokenizer *t, int id, size_t *len);

/* ERR_INPUT naming the first token that has no row in an embedding of so many; `where` is the model. */
int tokenizer_rows(const Tokenizer *t, int rows, const char *where, Err *e);
/* 1 and the first token whose id is not the same in both ("'the' is 278 and 1169"), 0 if there is none. Tokens that
 * only one of them has are no difference. */
int tokenizer_difference(const Tokenizer *a, const Tokenizer *b, char *out, size_t cap);
/* The same of the tokenizers of two model directories, as ERR_INPUT; fine where one of them has none. */
int tokenizers_meet(const char *model, const char *teacher, Err *e);

/* Zero-initialise; free with ids_free. */
typedef struct {
    int *id;
    size_t n, cap;
} Ids;
void ids_free(Ids *ids);
int ids_push(Ids *ids, int id, Err *e);

enum {
    TOKENIZE_SPECIAL = 1, /* apply the post-processor (BOS, EOS) */
    TOKENIZE_NO_PARSE = 2 /* text that looks like a special token stays text (untrusted input) */
};
/* Appends the ids of text to *ids. Invalid UTF-8 is replaced by U+FFFD first, as Hugging Face's lossy readers
 * do (one for each "maximal subpart"). A character (byte-level: a byte) that has no id becomes unk; where the
 * vocabulary has no unk it is dropped, as Hugging Face does (SmolLM lacks a few bytes that only unassigned
 * and control characters use). Time is O(n log n) in the longest piece, times the longest added token.
 * Errors: ERR_MEMORY; ERR_INPUT for a piece of more than 2^30 characters. On error *ids is as before. */
int tokenizer_encode(const Tokenizer *t, const char *text, size_t len, int flags, Ids *ids, Err *e);
/* Appends the text of ids to a growing buffer (*text, NUL-terminated, free with mem_free; start with NULL and
 * *len 0). skip_special drops special tokens. Always valid UTF-8: bytes that are not become U+FFFD. Ids that
 * are no token are passed over, as in Hugging Face: embeddings are often padded beyond the vocabulary. */
int tokenizer_decode(const Tokenizer *t, const int *ids, size_t n, int skip_special, char **text, size_t *len, Err *e);
/* The raw bytes one id stands for, without any first-token space rule or U+FFFD replacement (streaming
 * output); returns their number, cut at cap. No token of a real vocabulary is longer than 512 bytes. */
size_t tokenizer_bytes(const Tokenizer *t, int id, char *buf, size_t cap);

#endif
