/* session.c - see session.h. */
#include "tools/session.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/hf.h"
#include "io/json.h"
#include <string.h>

int session_tokenizer(Tokenizer **t, const char *dir, Err *e) {
    const int rc = tokenizer_open(t, dir, e);
    if (rc == ERR_IO) err_hint(e, "a model directory with tokenizer.json is needed here");
    return rc;
}

int session_open(Session *s, const Cli *c, int tokenizer, Err *e) {
    memset(s, 0, sizeof *s);
    TRY(cli_require(c, c->common.model, "-m MODEL", e));
    int rc = tokenizer ? session_tokenizer(&s->tokenizer, c->common.model, e) : OK;
    if (!rc) rc = cli_backend(c, &s->be, e);
    if (!rc) rc = hf_load_model(&s->m, c->common.model, s->be, GRAD_NONE, e);
    if (!rc && s->tokenizer && tokenizer_size(s->tokenizer) > s->m.c.VOC) {
        rc = err_set(e, ERR_INPUT, "%s: the tokenizer has %d tokens, the model %d", c->common.model,
                     tokenizer_size(s->tokenizer), s->m.c.VOC);
        err_hint(e, "tokenizer.json and model.safetensors do not belong together");
    }
    if (rc) session_close(s);
    return rc;
}

void session_close(Session *s) {
    model_close(&s->m);
    backend_close(s->be);
    tokenizer_close(s->tokenizer);
    memset(s, 0, sizeof *s);
}

int session_text_ids(Ids *ids, const Tokenizer *t, const char *path, Err *e) {
    char *text;
    size_t len;
    TRY(cli_read(path, &text, &len, e));
    const int rc = tokenizer_encode(t, text, len, 0, ids, e);
    mem_free(text);
    return rc;
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
