/* cmd_generate.c - text from a model: the prompt and what follows it on stdout, nothing else. */
#include "base/file.h"
#include "base/mem.h"
#include "io/chat.h"
#include "io/dump.h"
#include "io/hf.h"
#include "model/generate.h"
#include "text/corpus.h"
#include "tools/gradients.h"
#include "tools/session.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char prompt[16384], prompt_file[1024], dump[1024], system[16384];
    int chat, max_new_tokens, top_k, greedy, no_echo, no_special, ignore_eos, stats, prefill, gradients;
    double temperature, top_p, logit_base;
} Options;
#define AT(f) offsetof(Options, f)
static const Option rows[] = {
    {"prompt", "text to go on from", OPT_TEXT, AT(prompt), 0, 16384, NULL, AFFECTS_EVALUATION},
    {"prompt_file", "file with the text to go on from (- is stdin)", OPT_PATH, AT(prompt_file), 0, 1024, NULL,
     AFFECTS_EVALUATION},
    {"chat", "the prompt is a message: the model's chat template is put around it (ChatML, Llama-3, Mistral)", OPT_BOOL,
     AT(chat), 0, 0, NULL, AFFECTS_EVALUATION},
    {"system", "system message of --chat; empty: the template's own", OPT_TEXT, AT(system), 0, 16384, NULL,
     AFFECTS_EVALUATION},
    {"max_new_tokens", "largest number of new tokens", OPT_INT, AT(max_new_tokens), 0, 1 << 24, NULL,
     AFFECTS_EVALUATION},
    {"temperature", "divides the logits before a token is drawn; 0: greedy", OPT_REAL, AT(temperature), 0, 1e6, NULL,
     AFFECTS_EVALUATION},
    {"top_k", "draw from the k likeliest tokens; 0: from all", OPT_INT, AT(top_k), 0, 1 << 24, NULL,
     AFFECTS_EVALUATION},
    {"top_p", "draw from the likeliest tokens that make up this probability", OPT_REAL, AT(top_p), 0, 1, NULL,
     AFFECTS_EVALUATION},
    {"greedy", "always take the likeliest token", OPT_BOOL, AT(greedy), 0, 0, NULL, AFFECTS_EVALUATION},
    {"no_echo", "do not print the prompt", OPT_BOOL, AT(no_echo), 0, 0, NULL, AFFECTS_EVALUATION},
    {"no_special", "put no BOS in front of the prompt", OPT_BOOL, AT(no_special), 0, 0, NULL, AFFECTS_EVALUATION},
    {"ignore_eos", "go on after an end-of-text token", OPT_BOOL, AT(ignore_eos), 0, 0, NULL, AFFECTS_EVALUATION},
    {"stats", "print speed and memory to stderr at the end", OPT_BOOL, AT(stats), 0, 0, NULL, AFFECTS_EVALUATION},
    {"dump", "write the prompt's activations into this directory (also: environment DUMP)", OPT_PATH, AT(dump), 0, 1024,
     NULL, AFFECTS_EVALUATION},
    {"gradients", "with --dump: also the gradients of the prompt's own loss", OPT_BOOL, AT(gradients), 0, 0, NULL,
     AFFECTS_EVALUATION},
    {"logit_base", "queries of softmax layers times ln(t + base) / ln(base) at position t; 0: as config.json says",
     OPT_REAL, AT(logit_base), 0, 1e30, NULL, AFFECTS_EVALUATION | AFFECTS_IF_SET},
    {"prefill", "tokens of the prompt read at once", OPT_INT, AT(prefill), 1, 65536, NULL, AFFECTS_EVALUATION},
};
static const OptionTable table = {rows, sizeof rows / sizeof *rows};
static const OptionTable *get_table(void) { return &table; }
static void defaults(void *p) {
    Options *o = p;
    o->max_new_tokens = 256;
    o->temperature = 0.8;
    o->top_p = 0.95;
    o->prefill = 256;
}
static const CliOptions options = {get_table, sizeof(Options), defaults, NULL};

/* The ids of what the model's chat template makes of *text, a user's message; as in apply_chat_template, BOS comes from
 * the template alone. */
static int chat_ids(const Cli *c, Ids *ids, char **text, size_t *len, const Session *s, const Options *o, Err *e) {
    ChatTemplates all;
    TextBuf out = {0};
    int bos = 0;
    TRY(chat_open(&all, c->common.model, e));
    int rc = OK;
    if (memchr(*text, 0, *len)) rc = err_set(e, ERR_USAGE, "generate: the message has a NUL character");
    if (!rc && !chat_default(&all)) {
        rc = err_set(e, ERR_INPUT, "%s: no chat template", c->common.model);
        err_hint(e, "a base model has none: leave --chat out; an instruct model has chat_template.jinja or a member of "
                    "tokenizer_config.json");
    }
    if (!rc) rc = chat_render(&out, &bos, chat_default(&all), o->system[0] ? o->system : NULL, *text, e);
    if (!rc && bos && s->m.c.bos >= 0) rc = ids_push(ids, s->m.c.bos, e);
    if (!rc) rc = tokenizer_encode(s->tokenizer, out.text, out.len, 0, ids, e);
    textbuf_free(&out);
    chat_close(&all);
    return rc;
}

/* Prompt ids, with BOS when the tokenizer adds one, and always when there is nothing else to begin with. */
static int prompt_ids(const Cli *c, Ids *ids, char **text, size_t *len, const Session *s, const Options *o, Err *e) {
    if (o->prompt_file[0]) {
        TRY(cli_read(o->prompt_file, text, len, e));
        TRY(corpus_text_check(o->prompt_file, *text, *len, e));
    } else {
        *len = strlen(o->prompt);
        TRY(mem_strndup(text, o->prompt, *len, e));
    }
    if (o->chat) return chat_ids(c, ids, text, len, s, o, e);
    if (o->system[0]) return err_set(e, ERR_USAGE, "generate: --system goes with --chat");
    TRY(tokenizer_encode(s->tokenizer, *text, *len, o->no_special ? 0 : TOKENIZE_SPECIAL, ids, e));
    if (ids->n > 1 && s->m.c.bos >= 0 && ids->id[0] == s->m.c.bos && ids->id[1] == s->m.c.bos)
        cli_note((void *)(uintptr_t)c, "warning: the prompt begins with BOS twice: the text has one and the tokenizer "
                                       "adds one (--no-special adds none)");
    if (!ids->n && s->m.c.bos >= 0) TRY(ids_push(ids, s->m.c.bos, e));
    if (ids->n) return OK;
    err_set(e, ERR_USAGE, "generate: the prompt is empty and the model has no BOS token to begin with");
    return err_hint(e, "give --prompt TEXT");
}

/* As the bytes come; first: nothing stands before it, so the tokenizer's rule for the beginning of a text holds. */
static int put_token(const Session *s, int id, int first, int *newline, Err *e) {
    char bytes[1024], *text = NULL;
    size_t n = 0;
    if (first) TRY(tokenizer_decode(s->tokenizer, &id, 1, 0, &text, &n, e));
    else n = tokenizer_bytes(s->tokenizer, id, bytes, sizeof bytes);
    const char *out = first ? text : bytes;
    fwrite(out, 1, n, stdout);
    fflush(stdout);
    if (n) *newline = out[n - 1] == '\n';
    mem_free(text);
    return OK;
}

/* any: text stands before the first new token. */
static int decode_run(Cli *c, const Session *s, Decode *d, const Ids *ids, int any, float *logits, int *made,
                      int *newline, Err *e) {
    const Options *o = c->options[0];
    const Sampler sampler = {o->greedy ? 0 : o->temperature, o->top_k, o->top_p, c->common.seed};
    Rng rng;
    rng_seed(&rng, c->common.seed);
    for (size_t at = 0; at < ids->n; at += o->prefill) {
        const size_t n = ids->n - at < (size_t)o->prefill ? ids->n - at : (size_t)o->prefill;
        TRY(decode_extend(d, ids->id + at, (int)n, at + n == ids->n ? logits : NULL, e));
    }
    for (*made = 0; *made < o->max_new_tokens; ++*made) {
        int id;
        if (*c->stop) return err_set(e, *c->stop == SIGINT ? ERR_SIGINT : ERR_SIGTERM, "stopped");
        TRY(sample(&sampler, &rng, logits, s->m.c.VOC, &id, e));
        if (config_ends(&s->m.c, id) && !o->ignore_eos) break;
        TRY(put_token(s, id, !*made && !any, newline, e));
        if (*made + 1 < o->max_new_tokens) TRY(decode_extend(d, &id, 1, logits, e));
    }
    return OK;
}

/* activations.safetensors, and gradients.safetensors, when they are asked for. */
static int dump(const Cli *c, Session *s, const Ids *ids, Err *e) {
    const Options *o = c->options[0];
    char path[1200];
    const char *dir = o->dump[0] ? o->dump : getenv("DUMP");
    if (!dir || !*dir) return OK;
    TRY(file_mkdirs(dir, e));
    TRY(file_join(path, sizeof path, dir, "activations.safetensors", e));
    TRY(dump_write(path, &s->m, ids->id, (int)ids->n, e));
    if (!o->gradients) return OK;
    Model m; // the session's has no gradients
    TRY(file_join(path, sizeof path, dir, "gradients.safetensors", e));
    TRY(hf_load_model(&m, c->common.model, s->be, GRAD_ALL, e));
    const int rc = gradients_write(path, &m, ids->id, (int)ids->n, e);
    model_close(&m);
    return rc;
}

static void stats(Cli *c, const Decode *d, size_t prompt, int made, double seconds) {
    char line[256];
    snprintf(
        line, sizeof line,
        "%zu prompt tokens, %d new, %.2f s, %.1f tok/s; cache %.2f MiB (grows with length), state %.2f MiB (fixed)",
        prompt, made, seconds, seconds > 0 ? (double)(prompt + made) / seconds : 0, (double)d->cache_bytes / 1048576,
        (double)d->state_bytes / 1048576);
    cli_note(c, line);
}

static int generate(Cli *c, Err *e) {
    const Options *o = c->options[0];
    Session s;
    Decode d = {0};
    Ids ids = {0};
    char *text = NULL;
    size_t len = 0;
    void *logits = NULL;
    int made = 0, newline = 0;
    if (o->gradients && !o->dump[0]) return err_set(e, ERR_USAGE, "generate: --gradients needs --dump DIR");
    TRY(session_open(&s, c, 1, e));
    int rc = session_logit_base(&s, o->logit_base, e);
    if (!rc) rc = prompt_ids(c, &ids, &text, &len, &s, o, e);
    const size_t total = ids.n + o->max_new_tokens;
    if (!rc && total > (size_t)s.m.c.max_positions)
        cli_note(c, "warning: longer than the model's max_position_embeddings");
    if (!rc && total > 1 << 30) rc = err_set(e, ERR_USAGE, "generate: %zu tokens are too many", total);
    if (!rc) rc = dump(c, &s, &ids, e);
    if (!rc) rc = mem_alloc(&logits, s.m.c.VOC * sizeof(float), "logits", e);
    const int step = ids.n < (size_t)o->prefill ? (int)ids.n : o->prefill;
    if (!rc) rc = decode_open(&d, &s.m, 1, (int)total, step, e);
    const double began = log_now();
    if (!rc && !o->no_echo && !o->chat) {
        fwrite(text, 1, len, stdout);
        newline = len && text[len - 1] == '\n';
    }
    if (!rc) rc = decode_run(c, &s, &d, &ids, len > 0, logits, &made, &newline, e);
    if ((made || (len && !o->no_echo && !o->chat)) && !newline) putchar('\n');
    if (!rc && o->stats) stats(c, &d, ids.n, made, log_now() - began);
    decode_close(&d);
    mem_free(logits);
    mem_free(text);
    ids_free(&ids);
    session_close(&s);
    return rc;
}

const Command cmd_generate = {
    .name = "generate",
    .summary = "Text from a model, token by token: KV cache in softmax layers, a fixed-size state in linear ones.",
    .usage = "-m MODEL [--prompt TEXT] [options]",
    .common = CLI_MODEL | CLI_SEED | CLI_BACKEND,
    .options = {&options},
    .run = generate,
};
