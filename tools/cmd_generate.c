/* cmd_generate.c - text from a model: the prompt and what follows it on stdout, nothing else. */
#include "base/file.h"
#include "base/mem.h"
#include "io/dump.h"
#include "model/generate.h"
#include "tools/session.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char prompt[16384], prompt_file[1024], dump[1024];
    int max_new_tokens, top_k, greedy, no_echo, no_special, ignore_eos, stats, prefill;
    double temperature, top_p;
} Options;
#define AT(f) offsetof(Options, f)
static const Option rows[] = {
    {"prompt", "text to go on from", OPT_TEXT, AT(prompt), 0, 16384, NULL, AFFECTS_EVALUATION},
    {"prompt_file", "the same from a file (- is stdin)", OPT_PATH, AT(prompt_file), 0, 1024, NULL, AFFECTS_EVALUATION},
    {"max_new_tokens", "at most so many tokens", OPT_INT, AT(max_new_tokens), 0, 1 << 24, NULL, AFFECTS_EVALUATION},
    {"temperature", "0 is greedy", OPT_REAL, AT(temperature), 0, 1e6, NULL, AFFECTS_EVALUATION},
    {"top_k", "only the k likeliest, 0 = all", OPT_INT, AT(top_k), 0, 1 << 24, NULL, AFFECTS_EVALUATION},
    {"top_p", "only the likeliest that make up this probability", OPT_REAL, AT(top_p), 0, 1, NULL, AFFECTS_EVALUATION},
    {"greedy", "always the likeliest token", OPT_BOOL, AT(greedy), 0, 0, NULL, AFFECTS_EVALUATION},
    {"no_echo", "do not print the prompt", OPT_BOOL, AT(no_echo), 0, 0, NULL, AFFECTS_EVALUATION},
    {"no_special", "no BOS in front of the prompt", OPT_BOOL, AT(no_special), 0, 0, NULL, AFFECTS_EVALUATION},
    {"ignore_eos", "go on after an end-of-text token", OPT_BOOL, AT(ignore_eos), 0, 0, NULL, AFFECTS_EVALUATION},
    {"stats", "speed and memory on stderr at the end", OPT_BOOL, AT(stats), 0, 0, NULL, AFFECTS_EVALUATION},
    {"dump", "write the prompt's activations into this directory (also: environment DUMP)", OPT_PATH, AT(dump), 0, 1024,
     NULL, AFFECTS_EVALUATION},
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

/* Prompt ids, with BOS when the tokenizer adds one, and always when there is nothing else to begin with. */
static int prompt_ids(Ids *ids, char **text, size_t *len, const Session *s, const Options *o, Err *e) {
    if (o->prompt_file[0]) TRY(cli_read(o->prompt_file, text, len, e));
    else {
        *len = strlen(o->prompt);
        TRY(mem_strndup(text, o->prompt, *len, e));
    }
    TRY(tokenizer_encode(s->tokenizer, *text, *len, o->no_special ? 0 : TOKENIZE_SPECIAL, ids, e));
    if (!ids->n && s->m.c.bos >= 0) TRY(ids_push(ids, s->m.c.bos, e));
    if (ids->n) return OK;
    err_set(e, ERR_USAGE, "generate: the prompt is empty and the model has no BOS token to begin with");
    return err_hint(e, "give --prompt TEXT");
}

static int is_eos(const Config *c, int id) {
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id) return 1;
    return 0;
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
        if (is_eos(&s->m.c, id) && !o->ignore_eos) break;
        TRY(put_token(s, id, !*made && !any, newline, e));
        if (*made + 1 < o->max_new_tokens) TRY(decode_extend(d, &id, 1, logits, e));
    }
    return OK;
}

/* activations.safetensors, when it is asked for. */
static int dump(const Options *o, Session *s, const Ids *ids, Err *e) {
    char path[1200];
    const char *dir = o->dump[0] ? o->dump : getenv("DUMP");
    if (!dir || !*dir) return OK;
    TRY(file_mkdirs(dir, e));
    TRY(file_join(path, sizeof path, dir, "activations.safetensors", e));
    return dump_write(path, &s->m, ids->id, (int)ids->n, e);
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
    TRY(session_open(&s, c, 1, e));
    int rc = prompt_ids(&ids, &text, &len, &s, o, e);
    const size_t total = ids.n + o->max_new_tokens;
    if (!rc && total > (size_t)s.m.c.max_positions)
        cli_note(c, "warning: longer than the model's max_position_embeddings");
    if (!rc && total > 1 << 30) rc = err_set(e, ERR_USAGE, "generate: %zu tokens are too many", total);
    if (!rc) rc = dump(o, &s, &ids, e);
    if (!rc) rc = mem_alloc(&logits, s.m.c.VOC * sizeof(float), "logits", e);
    const int step = ids.n < (size_t)o->prefill ? (int)ids.n : o->prefill;
    if (!rc) rc = decode_open(&d, &s.m, 1, (int)total, step, e);
    const double began = log_now();
    if (!rc && !o->no_echo) {
        fwrite(text, 1, len, stdout);
        newline = len && text[len - 1] == '\n';
    }
    if (!rc) rc = decode_run(c, &s, &d, &ids, len > 0, logits, &made, &newline, e);
    if ((made || (len && !o->no_echo)) && !newline) putchar('\n');
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
