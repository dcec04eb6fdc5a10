/* session.c - see session.h. */
#include "tools/session.h"
#include "base/file.h"
#include "base/what_is.h"
#include "io/hf.h"
#include "base/json.h"
#include "io/strict.h"
#include "text/corpus.h"
#include "text/dataset.h"
#include <string.h>

int session_tokenizer(Tokenizer **t, const char *dir, Err *e) {
    const int rc = tokenizer_open(t, dir, e);
    if (rc == ERR_IO) err_hint(e, "a model directory with tokenizer.json is needed here");
    return rc;
}

int session_open(Session *s, const Cli *c, int tokenizer, Err *e) {
    memset(s, 0, sizeof *s);
    TRY(cli_require(c, c->common.model, "-m MODEL", e));
    TRY(hf_directory(c->common.model, e));
    session_note_unread(c, c->common.model);
    int rc = tokenizer ? session_tokenizer(&s->tokenizer, c->common.model, e) : OK;
    Config config;
    if (!rc && tokenizer) rc = hf_config(&config, c->common.model, e);
    if (!rc && tokenizer) rc = tokenizer_rows(s->tokenizer, config.VOC, c->common.model, e);
    if (!rc) rc = cli_backend(c, &s->be, e);
    if (!rc) rc = hf_load_model(&s->m, c->common.model, s->be, GRAD_NONE, e);
    if (rc) session_close(s);
    return rc;
}

int session_logit_base(Session *s, double base, Err *e) {
    if (base) s->m.c.logit_base = base;
    return config_check(&s->m.c, "--logit-base", e);
}

void session_close(Session *s) {
    model_close(&s->m);
    backend_close(s->be);
    tokenizer_close(s->tokenizer);
    memset(s, 0, sizeof *s);
}

static int corpus_ids(Ids *ids, size_t *documents, Corpus *c, const Tokenizer *t, size_t most, Err *e) {
    const char *text;
    size_t len;
    for (*documents = 0; !most || ids->n < most; ++*documents) {
        TRY(corpus_next(c, &text, &len, e));
        if (!text) break;
        TRY(tokenizer_encode(t, text, len, 0, ids, e));
    }
    if (most && ids->n > most) ids->n = most;
    return corpus_check(c, e);
}

int session_text_ids(Ids *ids, const Cli *c, const Tokenizer *t, const char *path, const char *field, size_t most,
                     Err *e) {
    Corpus docs;
    ShardStats s = {0};
    char line[4700];
    size_t documents = 0;
    TRY(corpus_open(&docs, path, &(CorpusForm){field, NULL}, e));
    const int rc = corpus_ids(ids, &documents, &docs, t, most, e);
    if (!rc) {
        s = (ShardStats){.documents = documents, .tokens = ids->n, .bytes = docs.done + docs.at};
        corpus_replaced(&docs, s.note, sizeof s.note);
        shard_stats_text(&s, path, line, sizeof line);
        cli_note((void *)(uintptr_t)c, line);
    }
    corpus_close(&docs);
    return rc;
}

void session_note_unread(const Cli *c, const char *dir) {
    char unread[512], line[1700];
    strict_unread_of(dir, unread, sizeof unread);
    if (!unread[0]) return;
    snprintf(line, sizeof line, "warning: %s/config.json: not read, and not known to be without effect: %s", dir,
             unread);
    cli_note((void *)(uintptr_t)c, line);
}

int text_there(const char *text, const char *field, const char *split, Err *e) {
    Corpus docs;
    if (what_is_file(text) == IS_SHARD) return OK;
    TRY(corpus_open(&docs, text, &(CorpusForm){field, split}, e));
    corpus_close(&docs);
    return OK;
}

int session_json_ids(Ids *ids, const char *path, int VOC, Err *e) {
    Json j;
    TRY(json_open(&j, path, e));
    const JsonRef list = json_kind(&j, 0) == JSON_OBJECT ? json_get(&j, 0, "ids") : 0;
    int rc = OK;
    if (json_kind(&j, list) != JSON_ARRAY) rc = err_set(e, ERR_INPUT, "%s: expected a list of token ids", path);
    for (JsonRef r = json_first(&j, list); r >= 0 && !rc; r = json_next(&j, r)) {
        int64_t id = 0;
        rc = json_want_int(&j, r, "token id", 0, VOC - 1, &id, e);
        if (!rc) rc = ids_push(ids, (int)id, e);
    }
    json_free(&j);
    return rc;
}
