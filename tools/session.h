/* session.h - what several commands begin with: a backend, a model, its tokenizer, a text as token ids. */
#ifndef HYB_SESSION_H
#define HYB_SESSION_H
#include "model/model.h"
#include "text/tokenizer.h"
#include "tools/cli.h"

typedef struct { /* zero-initialise; session_close is always fine */
    Backend *be;
    Model m;
    Tokenizer *tokenizer;
} Session;
/* Backend by the common flags, frozen model from c->common.model, its tokenizer if tokenizer is 1. */
int session_open(Session *s, const Cli *c, int tokenizer, Err *e);
/* Config.logit_base of the open model, unless base is 0. ERR_INPUT as it cannot be. */
int session_logit_base(Session *s, double base, Err *e);
void session_close(Session *s);
/* tokenizer.json of a model directory (or the file itself). */
int session_tokenizer(Tokenizer **t, const char *dir, Err *e);
/* The documents of a text (text/corpus.h) one after the other, without special tokens; says how many there are. most:
 * stop after so many tokens, 0 = all. */
int session_text_ids(Ids *ids, const Cli *c, const Tokenizer *t, const char *path, const char *field, size_t most,
                     Err *e);
/* Names the members of dir's config.json that are neither read nor known (io/strict.h). */
void session_note_unread(const Cli *c, const char *dir);
/* OK when every file that a --text names is there and is text. */
int text_there(const char *text, const char *field, const char *split, Err *e);
/* A JSON file: a list of ids, or an object whose member "ids" is one. Every id in [0, VOC). */
int session_json_ids(Ids *ids, const char *path, int VOC, Err *e);

#endif
