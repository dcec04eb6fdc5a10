/* tokenizer_load.c - tokenizer.json -> Tokenizer. What is not understood is refused by its name; members that Hugging Face's
 * reader ignores are ignored. */
#include <string.h>
#include "base/file.h"
#include "base/mem.h"
#include "io/json.h"
#include "text/tokenizer_parts.h"

typedef struct { Tokenizer *t; const Json *j; Err *e; } Loader;

static int refuse(const Loader *l, const char *what, const char *s, size_t n, const char *supported) {
    return err_set(l->e, ERR_INPUT, "%s: %s: '%.*s' is not supported; supported: %s", l->j->file, what,
                   (int)(n < 80 ? n : 80), s, supported);
}

static int is(const char *a, const char *b) { return !strcmp(a, b); }

/* The member `type` of a part; "" if the part is null or absent. */
static int part_type(const Loader *l, JsonRef r, const char *what, const char **type) {
    *type = "";
    if (r < 0 || json_kind(l->j, r) == JSON_NULL) return OK;
    if (json_kind(l->j, r) != JSON_OBJECT)
        return err_set(l->e, ERR_INPUT, "%s: %s: expected an object or null", l->j->file, what);
    TRY(json_want_str(l->j, json_get(l->j, r, "type"), what, type, NULL, l->e));
    return **type ? OK : err_set(l->e, ERR_INPUT, "%s: %s: its type is empty", l->j->file, what);
}

static int literal(const Loader *l, JsonRef r, const char *what, Literal *out) {
    const char *s;
    size_t n;
    TRY(json_want_str(l->j, r, what, &s, &n, l->e));
    if (n > LITERAL) return err_set(l->e, ERR_INPUT, "%s: %s: got %zu bytes, expected at most %d", l->j->file, what, n, LITERAL);
    out->n = n;
    memcpy(out->s, s, n);
    return OK;
}

static int no_room(const Loader *l, const char *what) {
    return err_set(l->e, ERR_INPUT, "%s: %s: got more than %d steps", l->j->file, what, STEPS);
}

/* ---- model ---- */

static int load_vocab(Loader *l, JsonRef vocab) {
    const Json *j = l->j;
    if (json_kind(j, vocab) != JSON_OBJECT || !json_size(j, vocab))
        return err_set(l->e, ERR_INPUT, "%s: model.vocab: expected an object with at least one token", j->file);
    for (JsonRef r = json_first(j, vocab); r >= 0; r = json_next(j, r)) {
        size_t n;
        int64_t id;
        const char *key = json_key(j, r, &n);
        TRY(json_want_int(j, r, "model.vocab: an id", 0, TOKEN_ID_LIMIT - 1, &id, l->e));
        if (!n) return err_set(l->e, ERR_INPUT, "%s: model.vocab: the token of id %d is empty", j->file, (int)id);
        TRY(vocab_add(&l->t->vocab, key, n, (int)id, 1, l->e));
    }
    return vocab_index(&l->t->vocab, j->file, l->e);
}

/* The parts of merge r: "a b" or ["a", "b"]. */
static int merge_parts(const Loader *l, JsonRef r, size_t rank, const char *s[2], size_t n[2]) {
    const Json *j = l->j;
    s[0] = json_str(j, r, &n[0]);
    if (s[0]) {
        const char *blank = memchr(s[0], ' ', n[0]);
        const size_t left = blank ? (size_t)(blank - s[0]) : 0;
        if (blank && !memchr(blank + 1, ' ', n[0] - left - 1)) {
            s[1] = blank + 1;
            n[1] = n[0] - left - 1;
            n[0] = left;
            return OK;
        }
    } else if (json_kind(j, r) == JSON_ARRAY && json_size(j, r) == 2) {
        const JsonRef a = json_first(j, r);
        s[0] = json_str(j, a, &n[0]);
        s[1] = json_str(j, json_next(j, a), &n[1]);
        if (s[0] && s[1]) return OK;
    }
    return err_set(l->e, ERR_INPUT, "%s: model.merges[%zu]: expected \"left right\" or [\"left\", \"right\"]", j->file, rank);
}

static int unknown_token(const Loader *l, size_t rank, const char *part, const char *s, size_t n) {
    return err_set(l->e, ERR_INPUT, "%s: model.merges[%zu]: its %s '%.*s' is not in the vocabulary", l->j->file, rank, part,
                   (int)(n < 80 ? n : 80), s);
}

static int load_merge(Loader *l, JsonRef r, size_t rank, TextBuf *both) {
    const Vocab *v = &l->t->vocab;
    const char *s[2] = {NULL, NULL};
    size_t n[2] = {0, 0};
    TRY(merge_parts(l, r, rank, s, n));
    both->len = 0;
    textbuf_put(both, s[0], n[0]);
    textbuf_put(both, s[1], n[1]);
    TRY(textbuf_end(both, l->e));
    const int left = vocab_find_model(v, s[0], n[0]), right = vocab_find_model(v, s[1], n[1]);
    const int id = vocab_find_model(v, both->text, both->len);
    if (left < 0) return unknown_token(l, rank, "left part", s[0], n[0]);
    if (right < 0) return unknown_token(l, rank, "right part", s[1], n[1]);
    if (id < 0) return unknown_token(l, rank, "result", both->text, both->len);
    merges_add(&l->t->merges, left, right, (uint32_t)rank, id);
    return OK;
}

static int load_merges(Loader *l, JsonRef merges) {
    const Json *j = l->j;
    TextBuf both = {0};
    if (json_kind(j, merges) != JSON_ARRAY) return err_set(l->e, ERR_INPUT, "%s: model.merges: expected an array", j->file);
    TRY(merges_reserve(&l->t->merges, json_size(j, merges), l->e));
    int rc = OK;
    size_t rank = 0;
    for (JsonRef r = json_first(j, merges); r >= 0 && !rc; r = json_next(j, r)) {
        const char *s = json_str(j, r, NULL);
        if (s && !strncmp(s, "#version", 8)) continue; // the first line of an old merges.txt
        rc = load_merge(l, r, rank++, &both);
    }
    textbuf_free(&both);
    return rc;
}

/* Members that would change what the model does in a way this one does not. */
static int refuse_options(const Loader *l, JsonRef model) {
    static const char *const affix[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const Json *j = l->j;
    double dropout = 0;
    TRY(json_opt_real(j, model, "dropout", &dropout, l->e));
    if (dropout != 0) return err_set(l->e, ERR_INPUT, "%s: model.dropout: got %g, only null is supported", j->file, dropout);
    for (int i = 0; i < 2; i++) {
        const char *s = "";
        TRY(json_opt_str(j, model, affix[i], &s, l->e));
        if (*s) return err_set(l->e, ERR_INPUT, "%s: model.%s: got '%.80s', only \"\" is supported", j->file, affix[i], s);
    }
    return OK;
}

static int load_model(Loader *l, JsonRef model) {
    const Json *j = l->j;
    Tokenizer *t = l->t;
    const char *type = "BPE"; // files of 2020 do not say
    if (json_kind(j, model) != JSON_OBJECT) return err_set(l->e, ERR_INPUT, "%s: model: expected an object", j->file);
    TRY(json_opt_str(j, model, "type", &type, l->e));
    if (!is(type, "BPE")) return refuse(l, "model.type", type, strlen(type), "BPE");
    TRY(refuse_options(l, model));
    TRY(json_opt_bool(j, model, "fuse_unk", &t->fuse_unk, l->e));
    TRY(json_opt_bool(j, model, "byte_fallback", &t->byte_fallback, l->e));
    TRY(json_opt_bool(j, model, "ignore_merges", &t->ignore_merges, l->e));
    TRY(load_vocab(l, json_get(j, model, "vocab")));
    TRY(load_merges(l, json_get(j, model, "merges")));
    const char *unk = NULL;
    TRY(json_opt_str(j, model, "unk_token", &unk, l->e));
    t->unk = unk ? vocab_find_model(&t->vocab, unk, strlen(unk)) : -1;
    if (unk && t->unk < 0) return err_set(l->e, ERR_INPUT, "%s: model.unk_token: '%.80s' is not in the vocabulary", j->file, unk);
    for (uint32_t c = 0; c < 1024; c++) {
        char u[4];
        t->one[c] = vocab_find_model(&t->vocab, u, utf8_encode(u, c));
    }
    for (int b = 0; b < 256; b++) {
        static const char digit[] = "0123456789ABCDEF";
        const char name[6] = {'<', '0', 'x', digit[b >> 4], digit[b & 15], '>'};
        t->byte_token[b] = vocab_find_model(&t->vocab, name, 6);
    }
    return OK;
}

/* ---- added tokens ---- */

static int load_added_token(Loader *l, JsonRef r, AddedToken *a) {
    const Json *j = l->j;
    Vocab *v = &l->t->vocab;
    int64_t id;
    const char *s;
    size_t n;
    TRY(json_want_int(j, json_get(j, r, "id"), "added_tokens: id", 0, TOKEN_ID_LIMIT - 1, &id, l->e));
    TRY(json_want_str(j, json_get(j, r, "content"), "added_tokens: content", &s, &n, l->e));
    TRY(json_want_bool(j, json_get(j, r, "special"), "added_tokens: special", &a->special, l->e));
    TRY(json_want_bool(j, json_get(j, r, "normalized"), "added_tokens: normalized", &a->normalized, l->e));
    TRY(json_want_bool(j, json_get(j, r, "single_word"), "added_tokens: single_word", &a->single_word, l->e));
    TRY(json_want_bool(j, json_get(j, r, "lstrip"), "added_tokens: lstrip", &a->lstrip, l->e));
    TRY(json_want_bool(j, json_get(j, r, "rstrip"), "added_tokens: rstrip", &a->rstrip, l->e));
    a->id = (int)id;
    if (!n) return err_set(l->e, ERR_INPUT, "%s: added_tokens: the content of id %d is empty", j->file, a->id);
    VocabEntry *k = vocab_find(v, s, n);
    if (k && k->id != a->id)
        return err_set(l->e, ERR_INPUT, "%s: added_tokens: '%.*s' has id %d here and %d in the vocabulary", j->file,
                       (int)(n < 80 ? n : 80), s, a->id, k->id);
    if (!k) {
        TRY(vocab_add(v, s, n, a->id, 0, l->e));
        k = vocab_find(v, s, n);
    }
    k->special |= (short)a->special;
    return OK;
}

static int add_pattern(Loader *l, uint32_t i) {
    Tokenizer *t = l->t;
    const AddedToken *a = &t->added[i];
    const VocabEntry *k = vocab_by_id(&t->vocab, a->id);
    const char *s = t->vocab.text.text + k->at;
    if (!a->normalized) return trie_add(&t->raw, s, k->len, i, l->e);
    TextBuf b = {0}; // is looked for in normalised text, so it is normalised itself
    steps_normalize(t->norm, t->n_norm, s, k->len, &b);
    int rc = textbuf_end(&b, l->e);
    if (!rc) rc = trie_add(&t->normalized, b.text, b.len, i, l->e);
    textbuf_free(&b);
    return rc;
}

static int load_added(Loader *l, JsonRef list) {
    const Json *j = l->j;
    Tokenizer *t = l->t;
    if (list < 0 || json_kind(j, list) == JSON_NULL) return OK;
    if (json_kind(j, list) != JSON_ARRAY) return err_set(l->e, ERR_INPUT, "%s: added_tokens: expected an array", j->file);
    size_t bytes;
    TRY(mem_mul(&bytes, json_size(j, list), sizeof *t->added, "added tokens", l->e));
    TRY(mem_alloc((void **)&t->added, bytes, "added tokens", l->e));
    for (int special = 1; special >= 0; special--) // special ones first
        for (JsonRef r = json_first(j, list); r >= 0; r = json_next(j, r)) {
            AddedToken a = {0};
            TRY(load_added_token(l, r, &a));
            if (a.special == special) t->added[t->n_added++] = a;
        }
    TRY(vocab_index(&t->vocab, j->file, l->e));
    for (size_t i = 0; i < t->n_added; i++) TRY(add_pattern(l, (uint32_t)i));
    return OK;
}

/* ---- normaliser ---- */

static int load_norm(Loader *l, JsonRef r, NormStep *step, int *n, const char *what, int depth) {
    const Json *j = l->j;
    const char *type;
    TRY(part_type(l, r, what, &type));
    if (is(type, "")) return OK;
    if (is(type, "Sequence") && depth < STEPS) {
        for (JsonRef k = json_first(j, json_get(j, r, "normalizers")); k >= 0; k = json_next(j, k))
            TRY(load_norm(l, k, step, n, what, depth + 1));
        return OK;
    }
    if (*n == STEPS) return no_room(l, what);
    NormStep *s = &step[(*n)++];
    if (is(type, "NFC")) s->kind = NORM_NFC;
    else if (is(type, "Prepend")) {
        s->kind = NORM_PREPEND;
        return literal(l, json_get(j, r, "prepend"), "normalizer: prepend", &s->to);
    } else if (is(type, "Replace")) {
        s->kind = NORM_REPLACE;
        const JsonRef p = json_get(j, r, "pattern");
        if (json_get(j, p, "String") < 0) return refuse(l, what, "Replace by a regex", 18, "Replace with pattern {\"String\": ...}");
        TRY(literal(l, json_get(j, p, "String"), what, &s->from));
        if (!s->from.n) return err_set(l->e, ERR_INPUT, "%s: %s: Replace has an empty pattern", j->file, what);
        return literal(l, json_get(j, r, "content"), what, &s->to);
    } else return refuse(l, what, type, strlen(type), "NFC, Prepend, Replace, Sequence");
    return OK;
}

/* ---- pre-tokenizer ---- */

static int pre_add(Loader *l, PreStep step) {
    Tokenizer *t = l->t;
    if (t->n_pre == STEPS) return no_room(l, "pre_tokenizer");
    t->pre[t->n_pre++] = step;
    return OK;
}

static int load_pre_split(Loader *l, JsonRef r) {
    const Json *j = l->j;
    const char *behavior, *regex;
    int invert = 0;
    size_t n;
    TRY(json_want_str(j, json_get(j, r, "behavior"), "pre_tokenizer: behavior", &behavior, NULL, l->e));
    TRY(json_opt_bool(j, r, "invert", &invert, l->e));
    if (!is(behavior, "Isolated") || invert)
        return refuse(l, "pre_tokenizer: Split: behavior", invert ? "invert" : behavior, strlen(invert ? "invert" : behavior), "Isolated");
    const JsonRef pattern = json_get(j, json_get(j, r, "pattern"), "Regex");
    TRY(json_want_str(j, pattern, "pre_tokenizer: Split: pattern.Regex", &regex, &n, l->e));
    const SplitKind kind = split_from_regex(regex, n);
    if (kind == SPLIT_KINDS) return refuse(l, "pre_tokenizer: Split: the regex", regex, n, "those of Llama-3, Qwen2 and GPT-2, exactly");
    return pre_add(l, (PreStep){.kind = PRE_SPLIT, .split = kind});
}

static int load_pre_bytes(Loader *l, JsonRef r) {
    int prefix = 1, regex = 1;
    TRY(json_opt_bool(l->j, r, "add_prefix_space", &prefix, l->e));
    TRY(json_opt_bool(l->j, r, "use_regex", &regex, l->e));
    if (prefix) TRY(pre_add(l, (PreStep){.kind = PRE_SPACE}));
    if (regex) TRY(pre_add(l, (PreStep){.kind = PRE_SPLIT, .split = SPLIT_GPT2}));
    l->t->byte_level = 1;
    return OK;
}

/* Metaspace, of the pre-tokenizer or the decoder: *prepend by name, or by the older add_prefix_space. */
static int load_meta(Loader *l, JsonRef r, int *prepend, int *cut) {
    const Json *j = l->j;
    const char *mark = META, *scheme = "always";
    int space = 1;
    TRY(json_opt_str(j, r, "replacement", &mark, l->e));
    TRY(json_opt_str(j, r, "prepend_scheme", &scheme, l->e));
    TRY(json_opt_bool(j, r, "add_prefix_space", &space, l->e));
    TRY(json_opt_bool(j, r, "split", cut, l->e));
    if (!is(mark, META)) return refuse(l, "Metaspace: replacement", mark, strlen(mark), "U+2581");
    if (is(scheme, "always")) *prepend = PREPEND_ALWAYS;
    else if (is(scheme, "first")) *prepend = PREPEND_FIRST;
    else if (is(scheme, "never")) *prepend = PREPEND_NEVER;
    else return refuse(l, "Metaspace: prepend_scheme", scheme, strlen(scheme), "always, first, never");
    if (!space) *prepend = PREPEND_NEVER;
    return OK;
}

static int load_pre(Loader *l, JsonRef r, int depth) {
    const Json *j = l->j;
    const char *type;
    int prepend, cut = 1, single = 0;
    TRY(part_type(l, r, "pre_tokenizer", &type));
    if (is(type, "")) return OK;
    if (l->t->byte_level) return refuse(l, "pre_tokenizer: Sequence", "a step behind ByteLevel", 23, "ByteLevel as the last step");
    if (is(type, "Sequence") && depth < STEPS) {
        for (JsonRef k = json_first(j, json_get(j, r, "pretokenizers")); k >= 0; k = json_next(j, k)) TRY(load_pre(l, k, depth + 1));
        return OK;
    }
    if (is(type, "ByteLevel")) return load_pre_bytes(l, r);
    if (is(type, "Split")) return load_pre_split(l, r);
    if (is(type, "Digits")) {
        TRY(json_opt_bool(j, r, "individual_digits", &single, l->e));
        return pre_add(l, (PreStep){.kind = PRE_SPLIT, .split = single ? SPLIT_DIGIT : SPLIT_DIGITS});
    }
    if (!is(type, "Metaspace")) return refuse(l, "pre_tokenizer", type, strlen(type), "Split, ByteLevel, Digits, Metaspace, Sequence");
    TRY(load_meta(l, r, &prepend, &cut));
    PreStep step = {.kind = PRE_META};
    step.prepend = prepend;
    TRY(pre_add(l, step));
    return cut ? pre_add(l, (PreStep){.kind = PRE_SPLIT, .split = SPLIT_META}) : OK;
}

/* ---- post-processor ---- */

/* Ids of a special token of a template, appended to out. */
static int template_ids(Loader *l, JsonRef post, const char *name, Ids *out) {
    const Json *j = l->j;
    const JsonRef ids = json_get(j, json_get(j, json_get(j, post, "special_tokens"), name), "ids");
    if (json_kind(j, ids) != JSON_ARRAY)
        return err_set(l->e, ERR_INPUT, "%s: post_processor: special_tokens has no ids for '%.80s'", j->file, name);
    for (JsonRef r = json_first(j, ids); r >= 0; r = json_next(j, r)) {
        int64_t id;
        TRY(json_want_int(j, r, "post_processor: special_tokens: ids", 0, TOKEN_ID_LIMIT - 1, &id, l->e));
        if (!vocab_by_id(&l->t->vocab, (int)id))
            return err_set(l->e, ERR_INPUT, "%s: post_processor: id %d of '%.80s' is no token", j->file, (int)id, name);
        TRY(ids_push(out, (int)id, l->e));
    }
    return OK;
}

/* A template goes around what earlier ones made: before = its own ids and then the older ones. */
static int template_parts(Loader *l, JsonRef post, Ids *before) {
    const Json *j = l->j;
    Tokenizer *t = l->t;
    int texts = 0;
    for (JsonRef r = json_first(j, json_get(j, post, "single")); r >= 0; r = json_next(j, r)) {
        const JsonRef special = json_get(j, r, "SpecialToken"), text = json_get(j, r, "Sequence");
        const char *name;
        TRY(json_want_str(j, json_get(j, special >= 0 ? special : text, "id"), "post_processor: single: id", &name, NULL, l->e));
        if (special >= 0) TRY(template_ids(l, post, name, texts ? &t->suffix : before));
        else if (!is(name, "A")) return refuse(l, "post_processor: single: Sequence", name, strlen(name), "A");
        else texts++;
    }
    if (texts != 1) return err_set(l->e, ERR_INPUT, "%s: post_processor: single: got the text %d times, expected once", j->file, texts);
    for (size_t i = 0; i < t->prefix.n; i++) TRY(ids_push(before, t->prefix.id[i], l->e));
    return OK;
}

static int load_post(Loader *l, JsonRef r, int depth) {
    const Json *j = l->j;
    const char *type;
    TRY(part_type(l, r, "post_processor", &type));
    if (is(type, "") || is(type, "ByteLevel")) return OK; // ByteLevel moves offsets only
    if (is(type, "Sequence") && depth < STEPS) {
        for (JsonRef k = json_first(j, json_get(j, r, "processors")); k >= 0; k = json_next(j, k)) TRY(load_post(l, k, depth + 1));
        return OK;
    }
    if (!is(type, "TemplateProcessing"))
        return refuse(l, "post_processor", type, strlen(type), "TemplateProcessing, ByteLevel, Sequence");
    Ids before = {0};
    const int rc = template_parts(l, r, &before);
    if (!rc) {
        const Ids old = l->t->prefix;
        l->t->prefix = before;
        before = old;
    }
    ids_free(&before);
    return rc;
}

/* ---- decoder ---- */

/* A chain is Replace..., ByteFallback, Fuse, Strip; each may be missing, but Strip needs Fuse. *stage: how far it is. */
static int load_chain_step(Loader *l, JsonRef r, int *stage) {
    const Json *j = l->j;
    Decoder *d = &l->t->decoder;
    const char *type;
    TRY(part_type(l, r, "decoder", &type));
    const int at = is(type, "Replace") ? 1 : is(type, "ByteFallback") ? 2 : is(type, "Fuse") ? 3 : is(type, "Strip") ? 4 : 0;
    if (!at || at < *stage || (at == *stage && at > 1) || (at == 4 && *stage != 3))
        return refuse(l, "decoder: Sequence: at this place", type, strlen(type), "Replace, ByteFallback, Fuse, Strip in this order");
    *stage = at;
    if (at == 1) return load_norm(l, r, d->replace, &d->n_replace, "decoder: Replace", 0);
    if (at == 2) d->byte_fallback = 1;
    if (at < 4) return OK;
    int64_t start = 0, stop = 0;
    TRY(literal(l, json_get(j, r, "content"), "decoder: Strip: content", &d->strip));
    TRY(json_opt_int(j, r, "start", 0, INT32_MAX, &start, l->e));
    TRY(json_opt_int(j, r, "stop", 0, INT32_MAX, &stop, l->e));
    uint32_t c;
    if (!d->strip.n || utf8_decode(d->strip.s, d->strip.n, &c) != d->strip.n)
        return err_set(l->e, ERR_INPUT, "%s: decoder: Strip: content must be one character", j->file);
    d->strip_start = (size_t)start;
    d->strip_stop = (size_t)stop;
    return OK;
}

static int load_decoder(Loader *l, JsonRef r) {
    const Json *j = l->j;
    Decoder *d = &l->t->decoder;
    const char *type;
    int prepend, cut, stage = 0;
    TRY(part_type(l, r, "decoder", &type));
    if (is(type, "ByteLevel")) return d->kind = DECODE_BYTES, OK;
    if (is(type, "Metaspace")) {
        d->kind = DECODE_META;
        TRY(load_meta(l, r, &prepend, &cut));
        d->drop_first = prepend != PREPEND_NEVER;
        return OK;
    }
    if (!is(type, "Sequence")) return refuse(l, "decoder", type, strlen(type), "ByteLevel, Metaspace, Sequence");
    d->kind = DECODE_CHAIN;
    for (JsonRef k = json_first(j, json_get(j, r, "decoders")); k >= 0; k = json_next(j, k)) TRY(load_chain_step(l, k, &stage));
    return OK;
}

/* ---- the whole file ---- */

/* truncation changes ids. padding does unless it pads to the longest of a batch, which for one text is the text itself. */
static int refuse_batching(const Loader *l) {
    const Json *j = l->j;
    const JsonRef cut = json_get(j, 0, "truncation"), pad = json_get(j, 0, "padding");
    if (cut >= 0 && json_kind(j, cut) != JSON_NULL) {
        err_set(l->e, ERR_INPUT, "%s: truncation: only null is supported", j->file);
        return err_hint(l->e, "it cuts every text; set it to null in the file if that is not wanted");
    }
    if (pad < 0 || json_kind(j, pad) == JSON_NULL) return OK;
    const char *strategy = json_str(j, json_get(j, pad, "strategy"), NULL);
    const JsonRef multiple = json_get(j, pad, "pad_to_multiple_of");
    if (strategy && is(strategy, "BatchLongest") && (multiple < 0 || json_kind(j, multiple) == JSON_NULL)) return OK;
    err_set(l->e, ERR_INPUT, "%s: padding: only null or BatchLongest is supported", j->file);
    return err_hint(l->e, "it lengthens every text; set it to null in the file if that is not wanted");
}

static void hash_more(uint64_t *h, const void *data, size_t n) { // FNV-1a
    for (size_t i = 0; i < n; i++) *h = (*h ^ ((const unsigned char *)data)[i]) * 0x100000001B3u;
}

static void hash_int(uint64_t *h, int64_t x) {
    unsigned char b[8];
    for (int i = 0; i < 8; i++) b[i] = (unsigned char)((uint64_t)x >> (8 * i));
    hash_more(h, b, 8);
}

static void hash_literal(uint64_t *h, const Literal *s) {
    hash_int(h, (int64_t)s->n);
    hash_more(h, s->s, s->n);
}

static uint64_t hash_rules(const Tokenizer *t) {
    uint64_t h = 0xCBF29CE484222325u, merges = 0;
    for (int id = 0; id < t->vocab.size; id++) {
        const VocabEntry *k = vocab_by_id(&t->vocab, id);
        if (!k) continue;
        const int64_t head[] = {id, (int64_t)k->len, k->in_model};
        for (int i = 0; i < 3; i++) hash_int(&h, head[i]);
        hash_more(&h, t->vocab.text.text + k->at, k->len);
    }
    for (size_t i = 0; i < t->merges.slots; i++) { // the table has no fixed order: a sum has none either
        const Merge *m = &t->merges.slot[i];
        uint64_t g = 0xCBF29CE484222325u;
        if (!m->pair) continue;
        hash_int(&g, (int64_t)m->pair);
        hash_int(&g, m->rank);
        merges += g;
    }
    hash_int(&h, (int64_t)merges);
    for (size_t i = 0; i < t->n_added; i++) {
        const AddedToken *a = &t->added[i];
        const int flags = a->special | a->normalized << 1 | a->single_word << 2 | a->lstrip << 3 | a->rstrip << 4;
        hash_int(&h, (int64_t)a->id << 8 | flags);
    }
    for (int i = 0; i < t->n_norm; i++) {
        hash_int(&h, (int64_t)t->norm[i].kind);
        hash_literal(&h, &t->norm[i].from);
        hash_literal(&h, &t->norm[i].to);
    }
    for (int i = 0; i < t->n_pre; i++)
        hash_int(&h, (int64_t)t->pre[i].kind << 16 | (int64_t)t->pre[i].split << 8 | (int64_t)t->pre[i].prepend);
    const int flags = t->byte_level | t->byte_fallback << 1 | t->fuse_unk << 2 | t->ignore_merges << 3;
    hash_int(&h, (int64_t)t->unk * 256 + flags);
    for (size_t i = 0; i < t->prefix.n; i++) hash_int(&h, t->prefix.id[i]);
    hash_int(&h, -1);
    for (size_t i = 0; i < t->suffix.n; i++) hash_int(&h, t->suffix.id[i]);
    return h;
}

static int load(Loader *l) {
    const Json *j = l->j;
    const char *version = "1.0";
    if (json_kind(j, 0) != JSON_OBJECT) return err_set(l->e, ERR_INPUT, "%s: expected an object", j->file);
    TRY(json_opt_str(j, 0, "version", &version, l->e));
    if (!is(version, "1.0")) return refuse(l, "version", version, strlen(version), "1.0");
    TRY(refuse_batching(l));
    TRY(load_norm(l, json_get(j, 0, "normalizer"), l->t->norm, &l->t->n_norm, "normalizer", 0));
    TRY(load_pre(l, json_get(j, 0, "pre_tokenizer"), 0));
    TRY(load_decoder(l, json_get(j, 0, "decoder")));
    TRY(load_model(l, json_get(j, 0, "model")));
    TRY(load_added(l, json_get(j, 0, "added_tokens")));
    TRY(load_post(l, json_get(j, 0, "post_processor"), 0));
    l->t->hash = hash_rules(l->t);
    return OK;
}

int tokenizer_parse(Tokenizer **t, const char *text, size_t len, const char *file, Err *e) {
    Json j;
    *t = NULL;
    TRY(json_parse(&j, text, len, file, e));
    Loader l = {.j = &j, .e = e};
    int rc = mem_alloc((void **)&l.t, sizeof *l.t, "tokenizer", e);
    if (!rc) rc = load(&l);
    json_free(&j);
    if (rc) tokenizer_close(l.t);
    else *t = l.t;
    return rc;
}

int tokenizer_open(Tokenizer **t, const char *path, Err *e) {
    char name[1024];
    File f;
    *t = NULL;
    if (file_exists(path) == 2) {
        TRY(file_join(name, sizeof name, path, "tokenizer.json", e));
        path = name;
    }
    TRY(file_open(&f, path, e));
    const int rc = tokenizer_parse(t, (const char *)f.data, f.size, path, e);
    file_close(&f);
    return rc;
}

void tokenizer_close(Tokenizer *t) {
    if (!t) return;
    vocab_free(&t->vocab);
    merges_free(&t->merges);
    mem_free(t->added);
    trie_free(&t->raw);
    trie_free(&t->normalized);
    ids_free(&t->prefix);
    ids_free(&t->suffix);
    mem_free(t);
}
