/* chat.c - see chat.h. */
#include "io/chat.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/json.h"
#include <stdio.h>
#include <string.h>

/* ---- reading ---- */

static int add(ChatTemplates *c, const char *name, size_t n_name, const char *text, size_t n, const char *where,
               Err *e) {
    for (int i = 0; i < c->n; i++)
        if (strlen(c->name[i]) == n_name && !memcmp(c->name[i], name, n_name)) return OK; // the first place counts
    if (memchr(text, 0, n)) return err_set(e, ERR_INPUT, "%s: chat template: it has a NUL character", where);
    if (c->n == CHAT_MOST) return err_set(e, ERR_INPUT, "%s: more than %d chat templates", where, CHAT_MOST);
    TRY(mem_strndup(&c->name[c->n], name, n_name, e));
    const int rc = mem_strndup(&c->text[c->n], text, n, e);
    if (rc) mem_free(c->name[c->n]);
    else c->n++;
    return rc;
}

static int add_file(ChatTemplates *c, const char *path, const char *name, size_t n, Err *e) {
    File f;
    if (file_exists(path) != 1) return OK;
    TRY(file_open(&f, path, e));
    const int rc = add(c, name, n, (const char *)f.data, f.size, path, e);
    file_close(&f);
    return rc;
}

/* A string, or a list of {"name", "template"}. */
static int add_member(ChatTemplates *c, const Json *j, JsonRef r, Err *e) {
    size_t n, m;
    const char *s = json_str(j, r, &n), *name;
    if (json_kind(j, r) == JSON_NULL) return OK;
    if (s) return add(c, "default", 7, s, n, j->file, e);
    if (json_kind(j, r) != JSON_ARRAY)
        return err_set(e, ERR_INPUT, "%s: chat_template: expected a string or a list of {name, template}", j->file);
    for (JsonRef i = json_first(j, r); i >= 0; i = json_next(j, i)) {
        TRY(json_want_str(j, json_get(j, i, "name"), "chat_template: name", &name, &m, e));
        TRY(json_want_str(j, json_get(j, i, "template"), "chat_template: template", &s, &n, e));
        TRY(add(c, name, m, s, n, j->file, e));
    }
    return OK;
}

static int add_json(ChatTemplates *c, const char *dir, const char *name, Err *e) {
    char path[1200];
    Json j;
    TRY(file_join(path, sizeof path, dir, name, e));
    if (file_exists(path) != 1) return OK;
    TRY(json_open(&j, path, e));
    const int rc = add_member(c, &j, json_get(&j, 0, "chat_template"), e);
    json_free(&j);
    return rc;
}

static int ends_jinja(const char *s) { return strlen(s) > 6 && !strcmp(s + strlen(s) - 6, ".jinja"); }

static int add_folder(ChatTemplates *c, const char *dir, Err *e) {
    char folder[1200], path[1400], **name;
    size_t n;
    TRY(file_join(folder, sizeof folder, dir, "additional_chat_templates", e));
    if (file_exists(folder) != 2) return OK;
    TRY(file_list(&name, &n, folder, e));
    int rc = OK;
    for (size_t i = 0; i < n && !rc; i++) {
        if (!ends_jinja(name[i])) continue;
        rc = file_join(path, sizeof path, folder, name[i], e);
        if (!rc) rc = add_file(c, path, name[i], strlen(name[i]) - 6, e);
    }
    file_list_free(name, n);
    return rc;
}

int chat_open(ChatTemplates *c, const char *dir, Err *e) {
    char path[1200];
    *c = (ChatTemplates){0};
    int rc = file_join(path, sizeof path, dir, "chat_template.jinja", e);
    if (!rc) rc = add_file(c, path, "default", 7, e);
    if (!rc) rc = add_json(c, dir, "chat_template.json", e);
    if (!rc) rc = add_folder(c, dir, e);
    if (!rc) rc = add_json(c, dir, "tokenizer_config.json", e);
    if (rc) chat_close(c);
    return rc;
}

void chat_close(ChatTemplates *c) {
    for (int i = 0; i < c->n; i++) {
        mem_free(c->name[i]);
        mem_free(c->text[i]);
    }
    *c = (ChatTemplates){0};
}

const char *chat_default(const ChatTemplates *c) {
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->name[i], "default")) return c->text[i];
    return NULL;
}

int chat_copy(const char *from, const char *to, Err *e) {
    static const char *const files[] = {"chat_template.jinja", "chat_template.json"};
    char src[1200], dst[1200], **name;
    size_t n;
    for (int i = 0; i < 2; i++) {
        TRY(file_join(src, sizeof src, from, files[i], e));
        TRY(file_join(dst, sizeof dst, to, files[i], e));
        if (file_exists(src) == 1) TRY(file_copy(src, dst, e));
    }
    TRY(file_join(src, sizeof src, from, "additional_chat_templates", e));
    TRY(file_join(dst, sizeof dst, to, "additional_chat_templates", e));
    if (file_exists(src) != 2) return OK;
    TRY(file_mkdirs(dst, e));
    TRY(file_list(&name, &n, src, e));
    int rc = OK;
    for (size_t i = 0; i < n && !rc; i++) {
        char a[1400], b[1400];
        if (!ends_jinja(name[i])) continue;
        rc = file_join(a, sizeof a, src, name[i], e);
        if (!rc) rc = file_join(b, sizeof b, dst, name[i], e);
        if (!rc) rc = file_copy(a, b, e);
    }
    file_list_free(name, n);
    return rc;
}

/* ---- what a template makes ---- */

static int has(const char *text, const char *mark) { return strstr(text, mark) != NULL; }

/* A newline in a string of the template: \n, or the character itself. */
static size_t newline_at(const char *s) { return *s == '\n' ? 1 : s[0] == '\\' && s[1] == 'n' ? 2 : 0; }

/* The message that ChatML templates put in front when the first one is no system message: the string that goes on from
 * "<|im_start|>system\n" to "<|im_end|>" without a quote. */
static const char *default_system(const char *text, size_t *n) {
    static const char head[] = "<|im_start|>system";
    for (const char *s = text; (s = strstr(s, head));) {
        s += sizeof head - 1;
        const size_t line = newline_at(s);
        const char *end = strstr(s, "<|im_end|>");
        if (!line || !end) continue;
        *n = (size_t)(end - s) - line;
        const char *from = s + line;
        if (*n && !memchr(from, '\'', *n) && !memchr(from, '"', *n) && !memchr(from, '{', *n)) return from;
    }
    return NULL;
}

static void put_trimmed(TextBuf *out, const char *s, int trim) {
    size_t n = strlen(s);
    while (trim && n && strchr(" \t\r\n", *s)) s++, n--;
    while (trim && n && strchr(" \t\r\n", s[n - 1])) n--;
    textbuf_put(out, s, n);
}

static int chatml(TextBuf *out, const char *text, const char *system, const char *user) {
    size_t n = 0;
    const char *own = default_system(text, &n);
    if (system) textbuf_printf(out, "<|im_start|>system\n%s<|im_end|>\n", system);
    else if (own) {
        textbuf_puts(out, "<|im_start|>system\n");
        textbuf_put(out, own, n);
        textbuf_puts(out, "<|im_end|>\n");
    }
    textbuf_printf(out, "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n", user);
    return OK;
}

/* Llama-3.1's templates begin with a date, written in them; 3.2's ask for today's. */
static int llama3(TextBuf *out, const char *text, const char *system, const char *user, Err *e) {
    const int dated = has(text, "Cutting Knowledge Date: December 2023"), trim = has(text, "trim");
    if (dated && (has(text, "strftime_now") || !has(text, "26 Jul 2024")))
        return err_set(e, ERR_INPUT,
                       "chat template: Llama-3's with today's date in it, which would make another prompt "
                       "each day");
    if (dated || system) textbuf_puts(out, "<|start_header_id|>system<|end_header_id|>\n\n");
    if (dated) textbuf_puts(out, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
    if (system) put_trimmed(out, system, trim);
    if (dated || system) textbuf_puts(out, "<|eot_id|>");
    textbuf_puts(out, "<|start_header_id|>user<|end_header_id|>\n\n");
    put_trimmed(out, user, trim);
    textbuf_puts(out, "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    return OK;
}

/* [INST] has a blank behind it in all but the newest, [/INST] one in front in the oldest. */
static int mistral(TextBuf *out, const char *text, const char *system, const char *user, Err *e) {
    const int before = has(text, "[INST] "), after = has(text, " [/INST]");
    if (system)
        return err_set(e, ERR_USAGE,
                       "chat template: Mistral's versions put a system message at different places: "
                       "write it in front of the message");
    textbuf_puts(out, before ? "[INST] " : "[INST]");
    put_trimmed(out, user, has(text, "trim") || has(text, ".strip()"));
    textbuf_puts(out, after ? " [/INST]" : "[/INST]");
    return OK;
}

static const struct {
    const char *mark, *name;
} others[] = {
    {"<start_of_turn>", "Gemma's"},
    {"<|start_of_role|>", "Granite's"},
    {"<|START_OF_TURN_TOKEN|>", "Command R's"},
    {"[gMASK]", "GLM's"},
    {"<|channel|>", "gpt-oss's"},
    {"<|header_start|>", "Llama-4's"},
    {"<|user|>", "Zephyr's or Phi-3's"},
    {"<\xef\xbd\x9cUser\xef\xbd\x9c>", "DeepSeek's"},
    {"<</SYS>>", "Llama-2's"},
    {"### Instruction", "Alpaca's"},
    {"USER:", "Vicuna's"},
};

int chat_render(TextBuf *out, int *bos, const char *text, const char *system, const char *user, Err *e) {
    static const char hint[] = "ChatML (Qwen, SmolLM), Llama-3 and Mistral are known; give the whole prompt as text "
                               "without --chat";
    *bos = has(text, "bos_token") || has(text, "<s>") || has(text, "<|begin_of_text|>");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (has(text, others[i].mark)) {
            err_set(e, ERR_INPUT, "chat template: it is %s (%s), which is not rendered", others[i].name,
                    others[i].mark);
            return err_hint(e, "%s", hint);
        }
    const int families = has(text, "<|im_start|>") + has(text, "<|start_header_id|>") + has(text, "[INST]");
    if (families != 1) {
        err_set(e, ERR_INPUT, "chat template: it has the marks of %s known family", families ? "more than one" : "no");
        return err_hint(e, "%s", hint);
    }
    if (has(text, "<|im_start|>")) TRY(chatml(out, text, system, user));
    else if (has(text, "[INST]")) TRY(mistral(out, text, system, user, e));
    else TRY(llama3(out, text, system, user, e));
    return textbuf_end(out, e);
}
