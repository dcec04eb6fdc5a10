/* cmd_tokenize.c - text to token ids and back. */
#include "base/mem.h"
#include "base/text_buf.h"
#include "base/json.h"
#include "text/corpus.h"
#include "tools/session.h"
#include <stddef.h>
#include <string.h>

typedef struct {
    int jsonl, add_special, no_parse_special, skip_special;
} Options;
#define ROW(field, text)                                                                                               \
    { #field, text, OPT_BOOL, offsetof(Options, field), 0, 0, NULL, 1 }
static const Option encode_rows[] = {
    ROW(jsonl, "one JSON string a line in, one JSON array of ids a line out"),
    ROW(add_special, "add BOS/EOS as the tokenizer's post-processor says"),
    ROW(no_parse_special, "text that looks like a special token stays text (untrusted input)"),
};
static const Option decode_rows[] = {
    ROW(jsonl, "one JSON array of ids a line in, one JSON string a line out"),
    ROW(skip_special, "leave special tokens out"),
};
static const OptionTable encode_table = {encode_rows, 3}, decode_table = {decode_rows, 2};
static const OptionTable *get_encode(void) { return &encode_table; }
static const OptionTable *get_decode(void) { return &decode_table; }
static const CliOptions encode_options = {get_encode, sizeof(Options), NULL, NULL},
                        decode_options = {get_decode, sizeof(Options), NULL, NULL};

/* ---- one text, one answer ---- */

static int encode_one(const Cli *c, const Tokenizer *t, const char *text, size_t len, int json, Err *e) {
    const Options *o = c->options[0];
    Ids ids = {0};
    const int rc = tokenizer_encode(
        t, text, len, (o->add_special ? TOKENIZE_SPECIAL : 0) | (o->no_parse_special ? TOKENIZE_NO_PARSE : 0), &ids, e);
    if (!rc) {
        if (json) putchar('[');
        for (size_t i = 0; i < ids.n; i++) printf("%s%d", i ? (json ? "," : " ") : "", ids.id[i]);
        puts(json ? "]" : "");
    }
    ids_free(&ids);
    return rc;
}

static int decode_one(const Cli *c, const Tokenizer *t, const Ids *ids, int json, Err *e) {
    const Options *o = c->options[0];
    char *text = NULL;
    size_t len = 0;
    JsonOut out;
    int rc = tokenizer_decode(t, ids->id, ids->n, o->skip_special, &text, &len, e);
    if (!rc && !json) fwrite(text, 1, len, stdout);
    if (!rc && json) {
        json_out_begin(&out, 0);
        json_out_strn(&out, NULL, text, len);
        rc = json_out_end(&out, e);
        if (!rc) puts(out.text);
        json_out_free(&out);
    }
    mem_free(text);
    return rc;
}

/* ---- what comes in: lines of JSON, or everything ---- */

static int ids_from_json(Ids *ids, const Json *j, int size, Err *e) {
    if (json_kind(j, 0) != JSON_ARRAY) return err_set(e, ERR_INPUT, "%s: expected a JSON array of ids", j->file);
    for (JsonRef r = json_first(j, 0); r >= 0; r = json_next(j, r)) {
        int64_t id = 0;
        TRY(json_want_int(j, r, "token id", 0, size - 1, &id, e));
        TRY(ids_push(ids, (int)id, e));
    }
    return OK;
}

/* Numbers between blanks, commas and brackets. */
static int ids_from_text(Ids *ids, const char *text, size_t len, int size, Err *e) {
    for (size_t i = 0; i < len;) {
        if (strchr(" \t\r\n,[]", text[i])) {
            i++;
            continue;
        }
        const size_t begin = i;
        int64_t id = 0;
        while (i < len && text[i] >= '0' && text[i] <= '9' && id < size) id = id * 10 + text[i++] - '0';
        if (begin == i || id >= size) {
            err_set(e, ERR_INPUT, "token id: got \"%.20s\", expected a number from 0 to %d", text + begin, size - 1);
            return err_hint(e, "byte %zu of the input", begin);
        }
        TRY(ids_push(ids, (int)id, e));
    }
    return OK;
}

static int line_run(const Cli *c, const Tokenizer *t, const char *line, size_t len, const char *name, int decode,
                    Err *e) {
    Json j = {0};
    Ids ids = {0};
    size_t n = 0;
    int rc = json_parse(&j, line, len, name, e);
    if (!rc && decode) rc = ids_from_json(&ids, &j, tokenizer_size(t), e);
    if (!rc && decode) rc = decode_one(c, t, &ids, 1, e);
    if (!rc && !decode) {
        const char *text = json_str(&j, 0, &n);
        rc = text ? encode_one(c, t, text, n, 1, e) : err_set(e, ERR_INPUT, "%s: expected a JSON string", name);
    }
    ids_free(&ids);
    json_free(&j);
    return rc;
}

static int lines_run(const Cli *c, const Tokenizer *t, const char *path, const char *text, size_t len, int decode,
                     Err *e) {
    char name[300];
    size_t number = 0;
    for (const char *p = text, *end = text + len; p < end;) {
        const char *stop = memchr(p, '\n', end - p);
        const size_t n = (stop ? stop : end) - p;
        snprintf(name, sizeof name, "%s: line %zu", path ? path : "stdin", ++number);
        if (n && !(n == 1 && *p == '\r')) TRY(line_run(c, t, p, n, name, decode, e));
        p += n + 1;
    }
    return OK;
}

static int run(Cli *c, int decode, Err *e) {
    const Options *o = c->options[0];
    const char *path = c->n_args ? c->arg[0] : NULL;
    Tokenizer *t = NULL;
    char *text = NULL;
    size_t len = 0;
    Ids ids = {0};
    TRY(cli_require(c, c->common.model, "-m MODEL", e));
    int rc = session_tokenizer(&t, c->common.model, e);
    if (!rc) rc = cli_read(path, &text, &len, e);
    if (!rc) rc = corpus_text_check(path ? path : "stdin", text, len, e);
    if (!rc && o->jsonl) rc = lines_run(c, t, path, text, len, decode, e);
    else if (!rc && decode) {
        rc = ids_from_text(&ids, text, len, tokenizer_size(t), e);
        if (!rc) rc = decode_one(c, t, &ids, 0, e);
    } else if (!rc) rc = encode_one(c, t, text, len, c->common.json, e);
    ids_free(&ids);
    mem_free(text);
    tokenizer_close(t);
    return rc;
}

static int tokenize(Cli *c, Err *e) { return run(c, 0, e); }
static int detokenize(Cli *c, Err *e) { return run(c, 1, e); }

const Command cmd_tokenize = {
    .name = "tokenize",
    .summary = "Text to token ids, exactly as the model's tokenizer.json says.",
    .usage = "-m MODEL [FILE] [options]",
    .details = "Reads FILE, or stdin, as one text and prints its ids on one line. MODEL is a model directory "
               "or a tokenizer.json.",
    .common = CLI_MODEL | CLI_JSON,
    .max_args = 1,
    .options = {&encode_options},
    .run = tokenize,
};
const Command cmd_detokenize = {
    .name = "detokenize",
    .summary = "Token ids to text.",
    .usage = "-m MODEL [FILE] [options]",
    .details = "Reads ids (numbers between blanks or commas) from FILE or stdin and prints the text they stand for.",
    .common = CLI_MODEL,
    .max_args = 1,
    .options = {&decode_options},
    .run = detokenize,
};
