/* tokenizer_steps.c - the normalizer, pre_tokenizer, post_processor and decoder of a tokenizer.json. */
#include <string.h>
#include "text/tokenizer_load.h"

int loader_refuse(const Loader *l, const char *what, const char *s, size_t n, const char *supported) {
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
    if (n > LITERAL)
        return err_set(l->e, ERR_INPUT, "%s: %s: got %zu bytes, expected at most %d", l->j->file, what, n, LITERAL);
    out->n = n;
    memcpy(out->s, s, n);
    return OK;
}

/* The first of the parts that a Sequence lists under key. */
static int parts(const Loader *l, JsonRef r, const char *key, const char *what, JsonRef *first) {
    const JsonRef list = json_get(l->j, r, key);
    *first = -1;
    if (json_kind(l->j, list) != JSON_ARRAY)
        return err_set(l->e, ERR_INPUT, "%s: %s: expected an array '%s'", l->j->file, what, key);
    *first = json_first(l->j, list);
    return OK;
}

static int no_room(const Loader *l, const char *what) {
    return err_set(l->e, ERR_INPUT, "%s: %s: got more than %d steps", l->j->file, what, STEPS);
}

/* ---- normaliser ---- */

static int load_norm(Loader *l, JsonRef r, NormStep *step, int *n, const char *what, int depth) {
    const Json *j = l->j;
    const char *type;
    TRY(part_type(l, r, what, &type));
    if (is(type, "")) return OK;
    if (is(type, "Sequence") && depth < STEPS) {
        JsonRef part;
        TRY(parts(l, r, "normalizers", what, &part));
        for (; part >= 0; part = json_next(j, part)) TRY(load_norm(l, part, step, n, what, depth + 1));
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
        if (json_get(j, p, "String") < 0)
            return loader_refuse(l, what, "Replace by a regex", 18, "Replace with pattern {\"String\": ...}");
        TRY(literal(l, json_get(j, p, "String"), what, &s->from));
        if (!s->from.n) return err_set(l->e, ERR_INPUT, "%s: %s: Replace has an empty pattern", j->file, what);
        return literal(l, json_get(j, r, "content"), what, &s->to);
    } else return loader_refuse(l, what, type, strlen(type), "NFC, Prepend, Replace, Sequence");
    return OK;
}

/* Replacements that lengthen the text, one after the other, could turn one character into 64^8. */
static int check_growth(const Loader *l, const NormStep *step, int n, const char *what) {
    size_t growth = 1;
    for (int i = 0; i < n; i++)
        if (step[i].kind == NORM_REPLACE && growth <= LITERAL)
            growth *= (step[i].to.n + step[i].from.n - 1) / step[i].from.n + (step[i].to.n == 0);
    if (growth <= LITERAL) return OK;
    return err_set(l->e, ERR_INPUT, "%s: %s: its replacements make text more than %d times longer", l->j->file, what,
                   LITERAL);
}

int load_normalizer(Loader *l, JsonRef r) {
    TRY(load_norm(l, r, l->t->norm, &l->t->n_norm, "normalizer", 0));
    return check_growth(l, l->t->norm, l->t->n_norm, "normalizer");
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
        return loader_refuse(l, "pre_tokenizer: Split: behavior", invert ? "invert" : behavior,
                             strlen(invert ? "invert" : behavior), "Isolated");
    const JsonRef pattern = json_get(j, json_get(j, r, "pattern"), "Regex");
    TRY(json_want_str(j, pattern, "pre_tokenizer: Split: pattern.Regex", &regex, &n, l->e));
    const SplitKind kind = split_from_regex(regex, n);
    if (kind == SPLIT_KINDS)
        return loader_refuse(l, "pre_tokenizer: Split: the regex", regex, n,
                             "those of Llama-3, Qwen2 and GPT-2, exactly");
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
    if (!is(mark, META)) return loader_refuse(l, "Metaspace: replacement", mark, strlen(mark), "U+2581");
    if (is(scheme, "always")) *prepend = PREPEND_ALWAYS;
    else if (is(scheme, "first")) *prepend = PREPEND_FIRST;
    else if (is(scheme, "never")) *prepend = PREPEND_NEVER;
    else return loader_refuse(l, "Metaspace: prepend_scheme", scheme, strlen(scheme), "always, first, never");
    if (!space) *prepend = PREPEND_NEVER;
    return OK;
}

static int load_pre(Loader *l, JsonRef r, int depth) {
    const Json *j = l->j;
    const char *type;
    int prepend, cut = 1, single = 0;
    TRY(part_type(l, r, "pre_tokenizer", &type));
    if (is(type, "")) return OK;
    if (l->t->byte_level)
        return loader_refuse(l, "pre_tokenizer: Sequence", "a step behind ByteLevel", 23, "ByteLevel as the last step");
    if (is(type, "Sequence") && depth < STEPS) {
        JsonRef part;
        TRY(parts(l, r, "pretokenizers", "pre_tokenizer", &part));
        for (; part >= 0; part = json_next(j, part)) TRY(load_pre(l, part, depth + 1));
        return OK;
    }
    if (is(type, "ByteLevel")) return load_pre_bytes(l, r);
    if (is(type, "Split")) return load_pre_split(l, r);
    if (is(type, "Digits")) {
        TRY(json_opt_bool(j, r, "individual_digits", &single, l->e));
        return pre_add(l, (PreStep){.kind = PRE_SPLIT, .split = single ? SPLIT_DIGIT : SPLIT_DIGITS});
    }
    if (!is(type, "Metaspace"))
        return loader_refuse(l, "pre_tokenizer", type, strlen(type), "Split, ByteLevel, Digits, Metaspace, Sequence");
    TRY(load_meta(l, r, &prepend, &cut));
    PreStep step = {.kind = PRE_META};
    step.prepend = prepend;
    TRY(pre_add(l, step));
    return cut ? pre_add(l, (PreStep){.kind = PRE_SPLIT, .split = SPLIT_META}) : OK;
}

int load_pre_tokenizer(Loader *l, JsonRef r) { return load_pre(l, r, 0); }

/* ---- post-processor ---- */

enum { MOST_IDS = 1024 }; // before the text, and behind it

static int template_push(Loader *l, Ids *out, int id) {
    if (out->n < MOST_IDS) return ids_push(out, id, l->e);
    return err_set(l->e, ERR_INPUT, "%s: post_processor: it adds more than %d ids", l->j->file, MOST_IDS);
}

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
        TRY(template_push(l, out, (int)id));
    }
    return OK;
}

/* A template goes around what earlier ones made: before = its own ids and then the older ones. */
static int template_parts(Loader *l, JsonRef post, Ids *before) {
    const Json *j = l->j;
    Tokenizer *t = l->t;
    int texts = 0;
    JsonRef r;
    TRY(parts(l, post, "single", "post_processor", &r));
    for (; r >= 0; r = json_next(j, r)) {
        const JsonRef special = json_get(j, r, "SpecialToken"), text = json_get(j, r, "Sequence");
        const char *name;
        TRY(json_want_str(j, json_get(j, special >= 0 ? special : text, "id"), "post_processor: single: id", &name,
                          NULL, l->e));
        if (special >= 0) TRY(template_ids(l, post, name, texts ? &t->suffix : before));
        else if (!is(name, "A")) return loader_refuse(l, "post_processor: single: Sequence", name, strlen(name), "A");
        else texts++;
    }
    if (texts != 1)
        return err_set(l->e, ERR_INPUT, "%s: post_processor: single: got the text %d times, expected once", j->file,
                       texts);
    for (size_t i = 0; i < t->prefix.n; i++) TRY(template_push(l, before, t->prefix.id[i]));
    return OK;
}

static int load_post(Loader *l, JsonRef r, int depth) {
    const Json *j = l->j;
    const char *type;
    TRY(part_type(l, r, "post_processor", &type));
    if (is(type, "") || is(type, "ByteLevel")) return OK; // ByteLevel moves offsets only
    if (is(type, "Sequence") && depth < STEPS) {
        JsonRef part;
        TRY(parts(l, r, "processors", "post_processor", &part));
        for (; part >= 0; part = json_next(j, part)) TRY(load_post(l, part, depth + 1));
        return OK;
    }
    if (!is(type, "TemplateProcessing"))
        return loader_refuse(l, "post_processor", type, strlen(type), "TemplateProcessing, ByteLevel, Sequence");
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

int load_post_processor(Loader *l, JsonRef r) { return load_post(l, r, 0); }

/* ---- decoder ---- */

/* A chain is Replace..., ByteFallback, Fuse, Strip; each may be missing, but Strip needs Fuse. *stage: how
 * far it is. */
static int load_chain_step(Loader *l, JsonRef r, int *stage) {
    const Json *j = l->j;
    Decoder *d = &l->t->decoder;
    const char *type;
    TRY(part_type(l, r, "decoder", &type));
    const int at = is(type, "Replace")        ? 1
                   : is(type, "ByteFallback") ? 2
                   : is(type, "Fuse")         ? 3
                   : is(type, "Strip")        ? 4
                                              : 0;
    if (!at || at < *stage || (at == *stage && at > 1) || (at == 4 && *stage != 3))
        return loader_refuse(l, "decoder: Sequence: at this place", type, strlen(type),
                             "Replace, ByteFallback, Fuse, Strip in this order");
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

int load_decoder(Loader *l, JsonRef r) {
    const Json *j = l->j;
    Decoder *d = &l->t->decoder;
    const char *type;
    int prepend, cut, stage = 0;
    TRY(part_type(l, r, "decoder", &type));
    if (!*type) {
        err_set(l->e, ERR_INPUT, "%s: decoder: got null, expected ByteLevel, Metaspace or Sequence", j->file);
        return err_hint(l->e, "without a decoder the tokens of a text would be joined by blanks");
    }
    if (is(type, "ByteLevel")) return d->kind = DECODE_BYTES, OK;
    if (is(type, "Metaspace")) {
        d->kind = DECODE_META;
        TRY(load_meta(l, r, &prepend, &cut));
        d->drop_first = prepend != PREPEND_NEVER;
        return OK;
    }
    if (!is(type, "Sequence")) return loader_refuse(l, "decoder", type, strlen(type), "ByteLevel, Metaspace, Sequence");
    d->kind = DECODE_CHAIN;
    JsonRef part;
    TRY(parts(l, r, "decoders", "decoder", &part));
    for (; part >= 0; part = json_next(j, part)) TRY(load_chain_step(l, part, &stage));
    return check_growth(l, d->replace, d->n_replace, "decoder");
}
