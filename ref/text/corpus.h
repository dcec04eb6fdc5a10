/* corpus.h - the one door for text: what a user names becomes documents, or is refused by what it is.
 *
 * Named: a file, several with commas between them, a folder (its .txt, .text, .md, .jsonl, .ndjson and .json files, in
 * the order of their names, and no deeper), or - for standard input. Refused with what helps: compressed and binary
 * files, UTF-16, NUL bytes, more than 1 % of bytes that are not UTF-8, a JSON array, JSON lines without the member that
 * holds the text, a separator that occurs nowhere.
 *
 * JSON lines are known by the name (.jsonl, .ndjson, .json in any case) or by the first line, which is a JSON object.
 * Each line is a document: a string, or an object whose member `field` is one; where no field is asked for and there
 * is no "text", also an object with strings "prompt" and "completion", one after the other. Any other file is one
 * document, or several where `split` stands between them. A byte order mark of UTF-8 in front is no text and is left
 * out. */
#ifndef HYB_CORPUS_H
#define HYB_CORPUS_H
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text_buf.h"

/* Of the options that name a text, in every command. */
#define TEXT_HELP       "text or JSON lines: a file, several with commas between, a folder, - (stdin), or a token shard"
#define TEXT_FIELD_HELP "member of JSON lines that holds the text; empty: text"
#define SEPARATOR_HELP  "between documents of plain text, \\n and \\t are read in it; empty: a file is a document"

typedef struct {
    const char *field; /* NULL or "": "text" */
    const char *split; /* NULL or "": none; \n, \t, \r and \\ in it are read as in C */
} CorpusForm;

typedef struct {
    File file;
    char *path;
    size_t begin; /* behind a byte order mark */
    int jsonl;
} CorpusFile;
typedef struct {
    CorpusFile *file;
    size_t n_files, bytes; /* bytes: of all files */
    const char *field;
    int any_record; /* 1: no field was asked for, a record may have prompt and completion */
    char split[256];
    size_t n_split, splits; /* splits: separators that were met */
    size_t plain;           /* bytes of files that are no JSON lines */
    /* The place between two documents, and what was met before it. */
    size_t at_file, at, line, done;
    uint64_t replaced;                 /* bytes that are not UTF-8, which the tokenizer replaces */
    size_t first_file, first_replaced; /* where the first one is */
    Json json;                         /* of the current line: holds its text */
    TextBuf record;                    /* prompt and completion of the current line */
    size_t prompt;                     /* bytes of the document that are its prompt; 0: it has none */
} Corpus;

int corpus_open(Corpus *c, const char *input, const CorpusForm *form, Err *e);
void corpus_close(Corpus *c);
void corpus_rewind(Corpus *c);
/* The next document that is not empty, valid until the next call; *text = NULL at the end. ERR_INPUT, with file, line
 * and column, for a line that is not JSON or has no text. */
int corpus_next(Corpus *c, const char **text, size_t *len, Err *e);
/* After the documents that were wanted: refuses too many replaced bytes, and a separator that occurs nowhere. */
int corpus_check(const Corpus *c, Err *e);
/* ", 3 bytes that are not UTF-8 were replaced, the first at byte 17 of FILE"; empty where there are none. */
void corpus_replaced(const Corpus *c, char *out, size_t cap);

/* The files that `input` names, in order; free with file_list_free. */
int corpus_list(char ***path, size_t *n, const char *input, Err *e);
/* ERR_INPUT when bytes that are taken as one text, as they are, are another kind of file. */
int corpus_text_check(const char *path, const void *data, size_t size, Err *e);

/* file_open of a text, with that check. */
int corpus_file_open(File *f, const char *path, Err *e);

#endif
