/* tokenizer.c - text -> ids. Reading the file: tokenizer_load.c; ids -> text: tokenizer_decode.c. */
#include <string.h>
#include "base/mem.h"
#include "text/tokenizer_parts.h"

/* Printable Latin-1 stands for itself; the other 68 bytes are, in order, U+0100 ... U+0143. */
uint32_t byte_letter(unsigned char b) {
    if ((b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD)) return b;
    if (b <= 0x20) return 0x100u + b;
    return b == 0xAD ? 0x143u : 0x100u + 0x21 + (b - 0x7F);
}

int letter_byte(uint32_t c) {
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xFF && c != 0xAD)) return (int)c;
    if (c < 0x100 || c > 0x143) return -1;
    c -= 0x100;
    return c <= 0x20 ? (int)c : c == 0x43 ? 0xAD : (int)(c - 0x21 + 0x7F);
}

void ids_free(Ids *ids) {
    mem_free(ids->id);
    *ids = (Ids){0};
}

int ids_push(Ids *ids, int id, Err *e) {
    if (ids->n == ids->cap) {
        const size_t cap = ids->cap + ids->cap / 2 + 64;
        TRY(mem_grow((void **)&ids->id, ids->cap * sizeof *ids->id, cap * sizeof *ids->id, "token ids", e));
        ids->cap = cap;
    }
    ids->id[ids->n++] = id;
    return OK;
}

/* ---- the state of one call ---- */

/* Words repeat: a small table remembers where in the output the ids of a piece are. Newer pieces replace
 * older ones. */
enum { KEY = 24 };
typedef struct {
    char key[KEY];
    uint32_t len, n; /* len 0 = empty */
    size_t at;
} CacheLine;

typedef struct {
    const Tokenizer *t;
    int no_special;
    Ids *ids;
    Word word;
    TextBuf letters;
    CacheLine *cache;
    size_t lines; /* a power of two, or 0 */
    Err *e;
} Encoder;

static CacheLine *cache_line(const Encoder *x, const char *s, size_t n) {
    if (!x->lines || n > KEY) return NULL;
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001B3u;
    return &x->cache[(h ^ h >> 29) & (x->lines - 1)];
}

/* ---- a piece -> ids ---- */

/* Symbols of one character, given as UTF-8. *unk_open: an unknown run has begun and its <unk> is still to be
 * written. A byte fallback does not end such a run, so its <unk> comes after the bytes: Hugging Face's order,
 * kept. */
static int push_char(Encoder *x, const char *s, size_t n, uint32_t c, int *unk_open) {
    const Tokenizer *t = x->t;
    const int id = c < 1024 ? t->one[c] : vocab_find_model(&t->vocab, s, n);
    if (id >= 0) {
        if (*unk_open) TRY(word_push(&x->word, t->unk, x->e));
        *unk_open = 0;
        return word_push(&x->word, id, x->e);
    }
    if (t->byte_fallback) {
        size_t known = 0;
        while (known < n && t->byte_token[(unsigned char)s[known]] >= 0) known++;
        if (known == n) {
            for (size_t i = 0; i < n; i++) TRY(word_push(&x->word, t->byte_token[(unsigned char)s[i]], x->e));
            return OK;
        }
    }
    if (t->unk < 0) return OK; // dropped without a trace, as Hugging Face does: SmolLM has no id for 8 bytes of UTF-8
    if (*unk_open && !t->fuse_unk) TRY(word_push(&x->word, t->unk, x->e));
    *unk_open = 1;
    return OK;
}

/* The piece in the alphabet of the vocabulary. */
static int spell(Encoder *x, const char **s, size_t *n) {
    if (!x->t->byte_level) return OK;
    TextBuf *b = &x->letters;
    b->len = 0;
    for (size_t i = 0; i < *n; i++) {
        char u[4];
        textbuf_put(b, u, utf8_encode(u, byte_letter((unsigned char)(*s)[i])));
    }
    *s = b->text;
    *n = b->len;
    return textbuf_end(b, x->e);
}

static int piece_merge(Encoder *x, const char *s, size_t n) {
    const Tokenizer *t = x->t;
    TRY(spell(x, &s, &n));
    if (t->ignore_merges) {
        const int id = vocab_find_model(&t->vocab, s, n);
        if (id >= 0) return ids_push(x->ids, id, x->e);
    }
    x->word.n = 0;
    int unk_open = 0;
    uint32_t c;
    for (size_t i = 0, len; i < n; i += len) {
        len = utf8_decode(s + i, n - i, &c);
        TRY(push_char(x, s + i, len, c, &unk_open));
    }
    if (unk_open) TRY(word_push(&x->word, t->unk, x->e));
    TRY(word_merge(&x->word, &t->merges, x->e));
    for (size_t i = 0; i < x->word.n; i++) TRY(ids_push(x->ids, x->word.sym[i].id, x->e));
    return OK;
}

static int piece_encode(Encoder *x, const char *s, size_t n) {
    CacheLine *line = cache_line(x, s, n);
    if (line && line->len == n && !memcmp(line->key, s, n)) {
        for (size_t i = 0; i < line->n; i++) TRY(ids_push(x->ids, x->ids->id[line->at + i], x->e));
        return OK;
    }
    const size_t at = x->ids->n;
    TRY(piece_merge(x, s, n));
    if (line) {
        *line = (CacheLine){.len = (uint32_t)n, .n = (uint32_t)(x->ids->n - at), .at = at};
        memcpy(line->key, s, n);
    }
    return OK;
}

/* ---- a text without added tokens -> pieces ---- */

void put_replaced(TextBuf *out, const Literal *from, const Literal *to, const char *s, size_t n) {
    size_t done = 0;
    for (size_t i = 0; i + from->n <= n;) {
        if (memcmp(s + i, from->s, from->n)) {
            i++;
            continue;
        }
        textbuf_put(out, s + done, i - done);
        textbuf_put(out, to->s, to->n);
        done = i += from->n;
    }
    textbuf_put(out, s + done, n - done);
}

void steps_normalize(const NormStep *step, int n_steps, const char *s, size_t n, TextBuf *out) {
    if (n_steps == 0 || n == 0) {
        textbuf_put(out, s, n);
        return;
    }
    TextBuf next = {0}, *to = n_steps == 1 ? out : &next;
    if (step->kind == NORM_NFC) nfc_normalize(to, s, n);
    else if (step->kind == NORM_REPLACE) put_replaced(to, &step->from, &step->to, s, n);
    else {
        textbuf_put(to, step->to.s, step->to.n);
        textbuf_put(to, s, n);
    }
    if (n_steps > 1 && !next.failed) steps_normalize(step + 1, n_steps - 1, next.text, next.len, out);
    if (next.failed) out->failed = 1;
    textbuf_free(&next);
}

static int pieces(Encoder *x, int step, const char *s, size_t n, int first);

/* Goes on with a changed text, and frees it. */
static int pieces_of(Encoder *x, int step, TextBuf *text, int first) {
    int rc = textbuf_end(text, x->e);
    if (!rc) rc = pieces(x, step, text->text, text->len, first);
    textbuf_free(text);
    return rc;
}

/* Spaces become U+2581, one is put before the text if `prepend` says so. */
static int pieces_meta(Encoder *x, int step, const char *s, size_t n, int first) {
    static const Literal space = {" ", 1}, meta = {META, 3};
    const PreStep *p = &x->t->pre[step];
    const int marked = s[0] == ' ' || (n >= 3 && !memcmp(s, META, 3));
    const int wanted = p->prepend == PREPEND_ALWAYS || (p->prepend == PREPEND_FIRST && first);
    TextBuf text = {0};
    if (wanted && !marked) textbuf_puts(&text, META);
    put_replaced(&text, &space, &meta, s, n);
    return pieces_of(x, step + 1, &text, first);
}

static int pieces_space(Encoder *x, int step, const char *s, size_t n, int first) {
    TextBuf text = {0};
    if (s[0] != ' ') textbuf_puts(&text, " ");
    textbuf_put(&text, s, n);
    return pieces_of(x, step + 1, &text, first);
}

/* first: this is the beginning of the whole text. */
static int pieces(Encoder *x, int step, const char *s, size_t n, int first) {
    if (n == 0) return OK;
    if (step == x->t->n_pre) return piece_encode(x, s, n);
    const PreStep *p = &x->t->pre[step];
    if (p->kind == PRE_META) return pieces_meta(x, step, s, n, first);
    if (p->kind == PRE_SPACE) return pieces_space(x, step, s, n, first);
    for (size_t i = 0, len; i < n; i += len) {
        len = split_next(p->split, s + i, n - i);
        TRY(pieces(x, step + 1, s + i, len, first && i == 0));
    }
    return OK;
}

/* ---- the two passes for added tokens ---- */

typedef int Rest(Encoder *x, const char *s, size_t n, int first);

static int cut_added(Encoder *x, const Trie *trie, const char *s, size_t n, int first, Rest *rest) {
    AddedMatch m;
    size_t taken = 0;
    for (size_t from = 0; added_find(trie, x->t->added, s, n, from, taken, x->no_special, &m); from = m.next) {
        if (taken < m.start) TRY(rest(x, s + taken, m.start - taken, first && taken == 0));
        TRY(ids_push(x->ids, m.token->id, x->e));
        taken = m.end;
    }
    return taken < n ? rest(x, s + taken, n - taken, first && taken == 0) : OK;
}

static int rest_split(Encoder *x, const char *s, size_t n, int first) { return pieces(x, 0, s, n, first); }

static int rest_normalize(Encoder *x, const char *s, size_t n, int first) {
    const Tokenizer *t = x->t;
    if (t->n_norm == 0 || (t->n_norm == 1 && t->norm[0].kind == NORM_NFC && nfc_is_certain(s, n)))
        return cut_added(x, &t->normalized, s, n, first, rest_split);
    TextBuf text = {0};
    steps_normalize(t->norm, t->n_norm, s, n, &text);
    int rc = textbuf_end(&text, x->e);
    if (!rc) rc = cut_added(x, &t->normalized, text.text, text.len, first, rest_split);
    textbuf_free(&text);
    return rc;
}

static int encode_valid(Encoder *x, const char *text, size_t len, int special) {
    const Tokenizer *t = x->t;
    for (size_t i = 0; special && i < t->prefix.n; i++) TRY(ids_push(x->ids, t->prefix.id[i], x->e));
    TRY(cut_added(x, &t->raw, text, len, 1, rest_normalize));
    for (size_t i = 0; special && i < t->suffix.n; i++) TRY(ids_push(x->ids, t->suffix.id[i], x->e));
    return OK;
}

int tokenizer_encode(const Tokenizer *t, const char *text, size_t len, int flags, Ids *ids, Err *e) {
    const size_t n0 = ids->n;
    Encoder x = {.t = t, .ids = ids, .no_special = flags & TOKENIZE_NO_PARSE, .e = e};
    TextBuf good = {0};
    int rc = OK;
    if (t->n_pre && len >= 256) { // about one line for each 16 bytes, at most 2 MiB
        for (x.lines = 16; x.lines < 32768 && x.lines * 16 < len;) x.lines *= 2;
        rc = mem_alloc((void **)&x.cache, x.lines * sizeof *x.cache, "word cache", e);
    }
    if (!rc && !utf8_valid(text, len)) {
        utf8_repair(&good, text, len);
        rc = textbuf_end(&good, e);
        text = good.text, len = good.len;
    }
    if (!rc) rc = encode_valid(&x, text, len, flags & TOKENIZE_SPECIAL);
    if (rc) ids->n = n0;
    mem_free(x.cache);
    textbuf_free(&x.letters);
    textbuf_free(&good);
    word_free(&x.word);
    return rc;
}

int tokenizer_size(const Tokenizer *t) { return t->vocab.size; }

int tokenizer_id(const Tokenizer *t, const char *token, size_t len) {
    const VocabEntry *entry = vocab_find(&t->vocab, token, len);
    return entry ? entry->id : -1;
}

const char *tokenizer_token(const Tokenizer *t, int id, size_t *len) {
    const VocabEntry *entry = vocab_by_id(&t->vocab, id);
    *len = entry ? entry->len : 0;
    return entry ? t->vocab.text.text + entry->at : NULL;
}
