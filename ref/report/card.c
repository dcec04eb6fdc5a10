/* card.c - the model card of a finished run: what RUN/model is, from what it was made, how far it is from its teacher,
 * and what loads it. See card.h. */
#include "report/card.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/hf.h"
#include "model/mixer.h"
#include <stdio.h>
#include <string.h>

/* The last part of a path, without what stands before it. */
static void base_name(char *dst, size_t cap, const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t at = end;
    while (at && path[at - 1] != '/') at--;
    snprintf(dst, cap, "%.*s", (int)(end - at), path + at);
}

/* The value as a word of a shell. */
static void put_word(TextBuf *b, const char *s) {
    if (*s && !s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./,:+@%=")]) {
        textbuf_puts(b, s);
        return;
    }
    textbuf_puts(b, "'");
    for (; *s; s++)
        if (*s == '\'') textbuf_puts(b, "'\\''");
        else textbuf_put(b, s, 1);
    textbuf_puts(b, "'");
}

void card_command(TextBuf *b, const PipelineOptions *o, const PipelineOptions *defaults) {
    const OptionTable *t = pipeline_table();
    char is[4200], was[4200];
    textbuf_puts(b, "hybridize run");
    for (int i = 0; i < t->n; i++) {
        const Option *row = &t->row[i];
        options_get(row, o, is, sizeof is);
        options_get(row, defaults, was, sizeof was);
        if (row->affects == AFFECTS_LOOKS && row->kind != OPT_PATH && row->kind != OPT_PATHS) continue;
        if (!strcmp(is, was)) continue;
        textbuf_puts(b, " --");
        for (const char *s = row->key; *s; s++) textbuf_printf(b, "%c", *s == '_' ? '-' : *s);
        textbuf_puts(b, "=");
        put_word(b, is);
    }
}

/* The files that went in, each with size and checksum, as run.json has them. */
static int put_inputs(TextBuf *b, const Json *j, JsonRef object, const char *where, Err *e) {
    for (JsonRef r = json_first(j, object); r >= 0; r = json_next(j, r)) {
        char inner[600];
        snprintf(inner, sizeof inner, "%.280s%s%.280s", where, where[0] ? "/" : "", json_key(j, r, NULL));
        const char *crc = json_str(j, json_get(j, r, "crc32c"), NULL);
        int64_t size = 0;
        if (!crc) {
            TRY(put_inputs(b, j, r, inner, e));
            continue;
        }
        TRY(json_opt_int(j, r, "size", 0, INT64_MAX, &size, e));
        textbuf_printf(b, "- %s: %lld bytes, CRC-32C %s\n", inner, (long long)size, crc);
    }
    return OK;
}

/* "0, 4, 8": a set of layers, or a word for it. */
static void put_layers(TextBuf *b, const StudentRow *s) {
    if (s->K == 0 || s->K == s->L) {
        textbuf_puts(b, s->K ? "all" : "none");
        return;
    }
    for (int l = 0, n = 0; l < s->L; l++)
        if (s->keep[l]) textbuf_printf(b, "%s%d", n++ ? ", " : "", l);
}

static void put_what(TextBuf *b, const PipelineResult *r, const PipelineOptions *o) {
    const StudentRow *teacher = &r->row[0], *s = &r->row[2];
    char name[256];
    base_name(name, sizeof name, o->teacher);
    const Mixer *mixer = mixer_at(mixer_find(o->force_window_on_all_layers ? "swa_v1" : o->student));
    textbuf_printf(b, "---\nbase_model: %s\ntags: [hybrid-attention, linear-attention, distillation]\n---\n\n", name);
    textbuf_printf(b, "# %s with %d of %d layers softmax\n\n", name, s->K, s->L);
    textbuf_printf(b, "A hybrid made from %s: softmax attention in layers **", name);
    put_layers(b, s);
    textbuf_printf(
        b,
        "** (from 0), chosen by `%s`; the other %d are %s (`%s`). %zu parameters (teacher: %zu). One sequence "
        "needs %zu bytes of cache a token (teacher: %zu) and %zu bytes of state, whatever its length.\n\n",
        s->name, s->L - s->K, mixer->label, mixer->name, s->parameters, teacher->parameters, s->cache_bytes_per_token,
        teacher->cache_bytes_per_token, s->state_bytes);
    textbuf_puts(b, "The method is KL-guided layer selection (arXiv 2512.20569), as hybridize has it. The weights come "
                    "from the teacher's: its licence and its limits hold for them. Nothing was tried but what stands "
                    "under Measured.\n\n");
}

static void put_measured(TextBuf *b, const PipelineResult *r, const PipelineOptions *o) {
    textbuf_printf(b,
                   "## Measured\n\nOn %d held-out batches of the training text, in nats per token. `repeated`: tokens "
                   "that go on as an earlier pair of tokens of the same window went on; `new`: all others.\n\n",
                   o->eval_batches);
    textbuf_puts(b, "| | softmax layers | KL to the teacher | loss, new | loss, repeated |");
    for (int k = 0; k < r->n_n; k++) textbuf_printf(b, " recall, %d pairs |", r->recall_n[k]);
    textbuf_puts(b, "\n|---|---|---|---|---|");
    for (int k = 0; k < r->n_n; k++) textbuf_puts(b, "---|");
    textbuf_puts(b, "\n");
    for (int i = 0; i < r->rows; i++) {
        const StudentRow *s = &r->row[i];
        textbuf_printf(b, "| %s%s%s | ", i == 2 ? "**" : "", s->name, i == 2 ? "** (this model)" : "");
        put_layers(b, s);
        textbuf_printf(b, " | %.4f +- %.4f | %.4f | %.4f |", s->held.kl, s->held.kl_se, s->held.ce_new,
                       s->held.ce_repeat);
        for (int k = 0; k < r->n_n; k++) textbuf_printf(b, " %.3f |", s->recall[k]);
        textbuf_puts(b, "\n");
    }
    textbuf_puts(b, "\n");
}

static int put_made(TextBuf *b, const PipelineResult *r, const PipelineOptions *o, const char *dir, Err *e) {
    void *defaults;
    char path[1200];
    Json j;
    TRY(file_join(path, sizeof path, dir, "run.json", e));
    TRY(json_open(&j, path, e));
    int rc = mem_alloc(&defaults, sizeof(PipelineOptions), "options", e);
    if (!rc) {
        const char *version = "unknown", *device = "cpu";
        pipeline_defaults(defaults);
        rc = json_opt_str(&j, 0, "version", &version, e);
        if (!rc) rc = json_opt_str(&j, 0, "backend", &device, e);
        textbuf_puts(b, "## Made by\n\n    ");
        card_command(b, o, defaults);
        textbuf_printf(b, " --device=%s -o RUNDIR\n\n", device);
        textbuf_printf(b,
                       "hybridize %s. The hybrid read %lld tokens in stage 2 (and 3), after a stage 1 of %lld steps of "
                       "%d x %d tokens that all students share. From these files:\n\n",
                       version, (long long)r->row[2].tokens, (long long)stage_steps(&o->stage1), o->stage1.batch_size,
                       o->stage1.train_seq_len);
        if (!rc) rc = put_inputs(b, &j, json_get(&j, 0, "inputs"), "", e);
        mem_free(defaults);
    }
    json_free(&j);
    return rc;
}

/* What reads the files: config.json says in whose layout they are, and the writer what those would compute otherwise.
 * */
static int put_load(TextBuf *b, const char *dir, Err *e) {
    char path[1200], notes[1024] = "";
    Config c;
    int linear = 0;
    TRY(file_join(path, sizeof path, dir, "model", e));
    TRY(hf_config(&c, path, e));
    for (int l = 0; l < c.L; l++) linear |= c.mixer[l];
    TRY(hf_notes(&c, notes, sizeof notes, e));
    textbuf_puts(b, "\n## Loading it\n\n    hybridize generate -m DIR --prompt \"...\"\n\n");
    if (notes[0]) {
        textbuf_puts(b, "Other software would not compute the same from these files:\n\n");
        for (const char *line = notes; *line; line += strcspn(line, "\n"), line += *line == '\n')
            textbuf_printf(b, "- %.*s\n", (int)strcspn(line, "\n"), line);
    } else if (!linear) textbuf_puts(b, "transformers reads the files as they are.\n");
    else
        textbuf_puts(b, "flash-linear-attention reads the files as they are:\n\n"
                        "    import fla, transformers\n"
                        "    model = transformers.AutoModelForCausalLM.from_pretrained(\"DIR\")\n");
    textbuf_puts(b,
                 "\nFor other layouts, `hybridize export --format qwen3_5` (transformers) and `gguf` (llama.cpp) write "
                 "the model exactly, or say why that format cannot hold it.\n");
    return OK;
}

int card_write(const PipelineResult *r, const PipelineOptions *o, const char *dir, Err *e) {
    char path[1200];
    TextBuf b = {0};
    TRY(file_join(path, sizeof path, dir, "model", e));
    if (!file_exists(path) || r->rows < 3) return OK;
    put_what(&b, r, o);
    put_measured(&b, r, o);
    int rc = put_made(&b, r, o, dir, e);
    if (!rc) rc = put_load(&b, dir, e);
    if (!rc) rc = textbuf_end(&b, e);
    if (!rc) rc = file_join(path, sizeof path, dir, "model/README.md", e);
    if (!rc) rc = file_write_all(path, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}
