/* corpus.c - see corpus.h. */
#include "text/corpus.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "base/what_is.h"
#include <stdio.h>
#include <string.h>

enum { FRONT = 1 << 20 }; // bytes of a file that are judged before anything is done with it

/* ---- names ---- */

static int ends_as(const char *name, const char *end) { // end in small letters
    const size_t n = strlen(name), m = strlen(end);
    if (n < m) return 0;
    for (size_t i = 0; i < m; i++) {
        const char c = name[n - m + i];
        if ((c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c) != end[i]) return 0;
    }
    return 1;
}

static int named_json(const char *name) {
    return ends_as(name, ".jsonl") || ends_as(name, ".ndjson") || ends_as(name, ".json");
}

/* What of a folder is text; packed text too, so that it is refused and not left out. */
static int is_listed(const char *name) {
    static const char *const end[] = {".txt", ".text", ".md", ".jsonl", ".ndjson", ".json",
                                      ".gz",  ".zst",  ".xz", ".bz2",   ".parquet"};
    for (size_t i = 0; i < sizeof end / sizeof *end; i++)
        if (name[0] != '.' && ends_as(name, end[i])) return 1;
    return 0;
}

static int list_add(char ***path, size_t *n, const char *name, size_t len, Err *e) {
    void *p = *path;
    TRY(mem_grow(&p, *n * sizeof **path, (*n + 1) * sizeof **path, "list of texts", e));
    *path = p;
    TRY(mem_strndup(&(*path)[*n], name, len, e));
    ++*n;
    return OK;
}

static int list_folder(char ***path, size_t *n, const char *dir, Err *e) {
    char **name, whole[1024];
    size_t names, before = *n;
    TRY(file_list(&name, &names, dir, e));
    int rc = OK;
    for (size_t i = 0; i < names && !rc; i++) {
        if (!is_listed(name[i])) continue;
        rc = file_join(whole, sizeof whole, dir, name[i], e);
        if (!rc && file_exists(whole) == 1) rc = list_add(path, n, whole, strlen(whole), e);
    }
    file_list_free(name, names);
    if (rc || *n > before) return rc;
    err_set(e, ERR_INPUT, "%s: no text in this folder", dir);
    return err_hint(e, "files that end in .txt, .text, .md, .jsonl, .ndjson or .json are taken");
}

static int list_one(char ***path, size_t *n, const char *name, size_t len, Err *e) {
    char whole[1024];
    if (len >= sizeof whole) return err_set(e, ERR_USAGE, "%.200s...: the path is too long", name);
    memcpy(whole, name, len);
    whole[len] = 0;
    const int kind = file_exists(whole);
    if (kind == 2) return list_folder(path, n, whole, e);
    if (kind == 1 || !strcmp(whole, "-")) return list_add(path, n, whole, len, e);
    if (file_streams(whole)) {
        err_set(e, ERR_IO, "%s: is a pipe or a device, expected a file or a folder", whole);
        return err_hint(e, "send it to standard input: --text - <%s", whole);
    }
    err_set(e, ERR_IO, "%s: no such file or folder", whole);
    return err_hint(e, "a text is a file, a folder, several with commas between them, or - for standard input");
}

int corpus_list(char ***path, size_t *n, const char *input, Err *e) {
    *path = NULL;
    *n = 0;
    int rc = OK;
    if (file_exists(input) || !strchr(input, ',')) rc = list_one(path, n, input, strlen(input), e);
    else
        for (const char *s = input; *s && !rc;) {
            const size_t len = strcspn(s, ",");
            if (len) rc = list_one(path, n, s, len, e);
            s += len + (s[len] == ',');
        }
    if (!rc && !*n) rc = err_set(e, ERR_USAGE, "text: no file is named");
    if (!rc) return OK;
    file_list_free(*path, *n);
    *path = NULL;
    *n = 0;
    return rc;
}

/* ---- what a file is ---- */

/* Bytes of s that belong to no character of UTF-8; *first: the first of them. */
static size_t bad_bytes(const char *s, size_t n, size_t *first) {
    const unsigned char *p = (const unsigned char *)s;
    size_t bad = 0;
    for (size_t i = 0, w; i < n; i += w) {
        if (p[i] < 0x80) {
            w = 1;
            continue;
        }
        w = utf8_length(p + i, n - i);
        if (w) continue;
        if (!bad++) *first = i;
        w = 1;
    }
    return bad;
}

static int too_many(const char *path, uint64_t bad, uint64_t bytes, size_t first, Err *e) {
    if (bad * 100 <= bytes) return OK;
    err_set(e, ERR_INPUT, "%s: %llu of %llu bytes are not UTF-8, the first is byte %zu; at most 1 %% are replaced",
            path, (unsigned long long)bad, (unsigned long long)bytes, first);
    return err_hint(e, "is it text in another encoding? make it UTF-8 first: iconv -f ISO-8859-1 -t UTF-8 FILE >OTHER");
}

static int refuse_nul(const char *path, size_t at, Err *e) {
    err_set(e, ERR_INPUT, "%s: byte %zu is NUL: binary data, expected text", path, at);
    return err_hint(e, "if it is text with stray NUL bytes: tr -d '\\000' <FILE >OTHER takes them out");
}

int corpus_text_check(const char *path, const void *data, size_t size, Err *e) {
    const WhatIs is = what_is(data, size);
    if (is > IS_JSON && is != IS_HTML && is != IS_BINARY) return what_is_refuse(is, path, "UTF-8 text", e);
    return OK;
}

int corpus_file_open(File *f, const char *path, Err *e) {
    TRY(file_open(f, path, e));
    const int rc = corpus_text_check(path, f->data, f->size, e);
    if (rc) file_close(f);
    return rc;
}

/* The members of an object, for a message. */
static void members_text(const Json *j, char *out, size_t cap) {
    size_t used = 0;
    *out = 0;
    for (JsonRef r = json_first(j, 0); r >= 0 && used + 8 < cap; r = json_next(j, r)) {
        const int n = snprintf(out + used, cap - used, "%s%.40s", used ? ", " : "", json_key(j, r, NULL));
        used += n > 0 ? (size_t)n : 0;
    }
}

static int no_member(const Corpus *c, const CorpusFile *f, size_t line, const Json *j, Err *e) {
    char members[200];
    if (json_kind(j, 0) != JSON_OBJECT)
        return err_set(e, ERR_INPUT, "%s: line %zu: expected a string or an object with a string '%s'", f->path, line,
                       c->field);
    if (json_get(j, 0, c->field) >= 0)
        return err_set(e, ERR_INPUT, "%s: line %zu: '%s' is not a string", f->path, line, c->field);
    members_text(j, members, sizeof members);
    err_set(e, ERR_INPUT, "%s: line %zu: expected a string or an object with a string '%s', got one with: %s", f->path,
            line, c->field, members);
    if (json_get(j, 0, "messages") >= 0)
        return err_hint(e, "messages are not rendered: write what the chat template makes of them as \"prompt\" and "
                           "\"completion\"");
    return err_hint(e, "--text-field NAME says which member holds the text");
}

static const char *text_of(const Corpus *c, const Json *j, size_t *len) {
    return json_str(j, json_kind(j, 0) == JSON_STRING ? 0 : json_get(j, 0, c->field), len);
}

/* 1 if the line is a record of prompt and completion. */
static int record_of(const Corpus *c, const Json *j, const char *part[2], size_t n[2]) {
    if (!c->any_record || json_kind(j, 0) != JSON_OBJECT || json_get(j, 0, c->field) >= 0) return 0;
    part[0] = json_str(j, json_get(j, 0, "prompt"), &n[0]);
    part[1] = json_str(j, json_get(j, 0, "completion"), &n[1]);
    return part[0] && part[1];
}

static int is_blank(const char *s, size_t n) {
    while (n && (*s == ' ' || *s == '\t' || *s == '\r')) s++, n--;
    return n == 0;
}

static size_t skip_blanks(const char *s, size_t n) {
    size_t i = 0;
    while (i < n && (s[i] == ' ' || s[i] == '\t' || s[i] == '\r' || s[i] == '\n')) i++;
    return i;
}

/* Text may begin with a bracket; an array of objects or strings goes on with one of these and ends with a bracket. */
static int is_array(const char *s, size_t n) {
    const size_t i = 1 + skip_blanks(s + 1, n - 1);
    while (n > 1 && (s[n - 1] == ' ' || s[n - 1] == '\n' || s[n - 1] == '\r' || s[n - 1] == '\t')) n--;
    return i < n && (s[i] == '{' || s[i] == '"' || s[i] == '[') && s[n - 1] == ']';
}

static int refuse_json(const CorpusFile *f, const char *what, Err *e) {
    err_set(e, ERR_INPUT, "%s: is %s, expected JSON lines: one object or string a line", f->path, what);
    return err_hint(e, "write it as JSON lines first: jq -c '.[]' FILE >OTHER.jsonl");
}

/* Sets f->jsonl by the name or by the first line. */
static int form_find(const Corpus *c, CorpusFile *f, Err *e) {
    const char *s = (const char *)f->file.data + f->begin;
    const size_t n = f->file.size - f->begin, blank = skip_blanks(s, n);
    const int named = named_json(f->path);
    f->jsonl = named;
    if (blank == n || (s[blank] != '{' && s[blank] != '[')) return OK;
    if (s[blank] == '[') return named || is_array(s + blank, n - blank) ? refuse_json(f, "a JSON array", e) : OK;
    const char *end = memchr(s + blank, '\n', n - blank);
    Err why = {0};
    Json j;
    const int rc = json_parse(&j, s + blank, end ? (size_t)(end - s) - blank : n - blank, "line", &why);
    if (rc == ERR_MEMORY) return err_set(e, rc, "%s", why.msg);
    if (rc) { // a brace in plain text; in a file of this name an object over several lines
        const int object =
            ends_as(f->path, ".json") && is_blank(s + blank + 1, end ? (size_t)(end - s) - blank - 1 : 0);
        return object ? refuse_json(f, "a JSON object over several lines", e) : OK;
    }
    const char *part[2];
    size_t len, n_part[2];
    int bad = OK;
    if (!named && json_size(&j, 0) && !text_of(c, &j, &len) && !record_of(c, &j, part, n_part))
        bad = no_member(c, f, 1, &j, e);
    f->jsonl = named || json_size(&j, 0);
    json_free(&j);
    return bad;
}

static int file_look(const Corpus *c, CorpusFile *f, Err *e) {
    const char *s = (const char *)f->file.data;
    const size_t n = f->file.size < FRONT ? f->file.size : FRONT;
    TRY(corpus_text_check(f->path, s, f->file.size, e));
    const char *nul = n ? memchr(s, 0, n) : NULL;
    if (nul) return refuse_nul(f->path, (size_t)(nul - s), e);
    f->begin = n >= 3 && !memcmp(s, "\xef\xbb\xbf", 3) ? 3 : 0;
    TRY(form_find(c, f, e));
    if (f->jsonl) return OK; // what is not UTF-8 is not JSON: line and column are said there
    size_t first = 0;
    const size_t bad = bad_bytes(s, n, &first);
    return too_many(f->path, bad, n < FRONT ? n : n + 400, first, e); // 400: a character cut at the end may count 4
}

/* ---- opening ---- */

static int split_read(Corpus *c, const char *s, Err *e) {
    for (; *s; s++) {
        const char *from = "ntr\\", *to = "\n\t\r\\", *at = *s == '\\' && s[1] ? strchr(from, s[1]) : NULL;
        if (c->n_split + 1 >= sizeof c->split)
            return err_set(e, ERR_USAGE, "document_separator: longer than %zu bytes", sizeof c->split - 1);
        c->split[c->n_split++] = at ? to[at - from] : *s;
        s += at != NULL;
    }
    return OK;
}

static int files_open(Corpus *c, char **path, size_t n, const char *field, Err *e) {
    void *p;
    TRY(mem_alloc(&p, n * sizeof *c->file, "texts", e));
    c->file = p;
    for (; c->n_files < n; c->n_files++) {
        CorpusFile *f = &c->file[c->n_files];
        TRY(mem_strndup(&f->path, path[c->n_files], strlen(path[c->n_files]), e));
        int rc = file_open_text(&f->file, f->path, e);
        if (!rc) rc = file_look(c, f, e);
        if (rc) {
            c->n_files++; // is closed with the others
            return rc;
        }
        c->bytes += f->file.size;
        if (!f->jsonl) c->plain += f->file.size;
    }
    if (field && field[0] && c->plain == c->bytes && c->bytes) {
        err_set(e, ERR_USAGE, "text_field: got '%s', but %s is plain text, not JSON lines", field, c->file[0].path);
        return err_hint(e, "leave it out");
    }
    if (c->n_split && !c->plain && c->bytes) {
        err_set(e, ERR_USAGE, "document_separator: given, but %s is JSON lines: each line is a document",
                c->file[0].path);
        return err_hint(e, "leave it out");
    }
    return OK;
}

int corpus_open(Corpus *c, const char *input, const CorpusForm *form, Err *e) {
    char **path;
    size_t n;
    const int asked = form && form->field && form->field[0];
    *c = (Corpus){.field = asked ? form->field : "text", .any_record = !asked};
    TRY(corpus_list(&path, &n, input, e));
    int rc = form && form->split ? split_read(c, form->split, e) : OK;
    if (!rc) rc = files_open(c, path, n, form ? form->field : NULL, e);
    file_list_free(path, n);
    if (rc) corpus_close(c);
    else corpus_rewind(c);
    return rc;
}

void corpus_close(Corpus *c) {
    for (size_t i = 0; i < c->n_files; i++) {
        file_close(&c->file[i].file);
        mem_free(c->file[i].path);
    }
    mem_free(c->file);
    json_free(&c->json);
    textbuf_free(&c->record);
    memset(c, 0, sizeof *c);
}

void corpus_rewind(Corpus *c) {
    c->at_file = c->at = c->line = c->done = c->splits = 0;
    c->replaced = 0;
    if (c->n_files) c->at = c->file[0].begin;
}

/* ---- documents ---- */

static int line_text(Corpus *c, const CorpusFile *f, const char **text, size_t *len, Err *e) {
    Err why = {0};
    json_free(&c->json);
    const int rc = json_parse(&c->json, *text, *len, "line", &why);
    if (rc == ERR_MEMORY) return err_set(e, rc, "%s", why.msg);
    if (rc) {
        size_t line, column;
        int past = 0;
        const int placed = sscanf(why.msg, "line:%zu:%zu: %n", &line, &column, &past) == 2 && past;
        if (placed) err_set(e, rc, "%s:%zu:%zu: %s", f->path, c->line, column, why.msg + past);
        else err_set(e, rc, "%s: line %zu: %s", f->path, c->line, why.msg);
        return err_hint(e, "JSON lines are expected: one object or string a line");
    }
    const char *part[2];
    size_t n[2];
    if (record_of(c, &c->json, part, n)) {
        c->record.len = 0;
        textbuf_put(&c->record, part[0], n[0]);
        textbuf_put(&c->record, part[1], n[1]);
        TRY(textbuf_end(&c->record, e));
        *text = c->record.text;
        *len = c->record.len;
        c->prompt = n[0];
        return OK;
    }
    *text = text_of(c, &c->json, len);
    return *text ? OK : no_member(c, f, c->line, &c->json, e);
}

/* The next piece of the current file: a line, or what stands before the next separator. */
static void piece(Corpus *c, const CorpusFile *f, const char **text, size_t *len) {
    const char *s = (const char *)f->file.data + c->at;
    const size_t left = f->file.size - c->at;
    const char *split = f->jsonl ? "\n" : c->split, *end = NULL;
    const size_t n_split = f->jsonl ? 1 : c->n_split;
    if (n_split) end = memmem(s, left, split, n_split);
    *text = s;
    *len = end ? (size_t)(end - s) : left;
    c->at += end ? *len + n_split : *len;
    c->splits += end && !f->jsonl;
    c->line++;
}

/* Of plain text: counts what is not UTF-8, and refuses NUL. */
static int plain_look(Corpus *c, const CorpusFile *f, const char *s, size_t n, Err *e) {
    const size_t from = (size_t)(s - (const char *)f->file.data);
    size_t first = 0;
    const char *nul = memchr(s, 0, n);
    if (nul) return refuse_nul(f->path, from + (size_t)(nul - s), e);
    const size_t bad = bad_bytes(s, n, &first);
    if (bad && !c->replaced) c->first_file = c->at_file, c->first_replaced = from + first;
    c->replaced += bad;
    return OK;
}

int corpus_next(Corpus *c, const char **text, size_t *len, Err *e) {
    while (c->at_file < c->n_files) {
        const CorpusFile *f = &c->file[c->at_file];
        if (c->at >= f->file.size) {
            c->done += f->file.size;
            c->line = 0;
            c->at = ++c->at_file < c->n_files ? c->file[c->at_file].begin : 0;
            continue;
        }
        piece(c, f, text, len);
        c->prompt = 0;
        if (f->jsonl ? is_blank(*text, *len) : *len == 0) continue;
        if (f->jsonl) TRY(line_text(c, f, text, len, e));
        else TRY(plain_look(c, f, *text, *len, e));
        if (*len) return OK;
    }
    *text = NULL;
    *len = 0;
    return OK;
}

/* ---- afterwards ---- */

static int split_somewhere(const Corpus *c) {
    for (size_t i = c->at_file; i < c->n_files; i++) {
        const File *f = &c->file[i].file;
        if (!c->file[i].jsonl && f->size && memmem(f->data, f->size, c->split, c->n_split)) return 1;
    }
    return 0;
}

int corpus_check(const Corpus *c, Err *e) {
    const size_t passed = c->done + (c->at_file < c->n_files ? c->at : 0);
    if (c->replaced) TRY(too_many(c->file[c->first_file].path, c->replaced, passed, c->first_replaced, e));
    if (!c->n_split || c->splits || split_somewhere(c)) return OK;
    err_set(e, ERR_INPUT, "document_separator: it occurs nowhere in %s%s", c->file[0].path,
            c->n_files > 1 ? " and the other files" : "");
    return err_hint(e, "\\n and \\t in it are a newline and a tab; leave it out for one document a file");
}

void corpus_replaced(const Corpus *c, char *out, size_t cap) {
    *out = 0;
    if (c->replaced)
        snprintf(out, cap, ", %llu bytes that are not UTF-8 were replaced, the first at byte %zu of %s",
                 (unsigned long long)c->replaced, c->first_replaced, c->file[c->first_file].path);
}
