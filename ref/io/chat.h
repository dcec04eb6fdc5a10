/* chat.h - chat templates: one reader of all the places that have them, and the prompt that the common ones make.
 *
 * Places, the first that has a default one counts for it: chat_template.jinja, chat_template.json,
 * additional_chat_templates/NAME.jinja, tokenizer_config.json's chat_template (a string, or a list of {name,
 * template}). A member of another type is refused, not taken for absent. The templates are programs in Jinja, which is
 * not interpreted: three families are known by their marks, with what varies within them (the default system message,
 * blanks, BOS) read from the template's own text; any other is refused by name. */
#ifndef HYB_CHAT_H
#define HYB_CHAT_H
#include "base/err.h"
#include "base/text_buf.h"

enum { CHAT_MOST = 16 };
typedef struct {
    char *name[CHAT_MOST], *text[CHAT_MOST]; /* "default" and others */
    int n;
} ChatTemplates;
/* n = 0 where there is none. */
int chat_open(ChatTemplates *c, const char *dir, Err *e);
void chat_close(ChatTemplates *c);
const char *chat_default(const ChatTemplates *c); /* NULL if there is none */

/* The files beside tokenizer_config.json that have templates, copied from one directory into another. */
int chat_copy(const char *from, const char *to, Err *e);

/* What a model is given for one message of a user (and a system message, or NULL), as transformers' apply_chat_template
 * with add_generation_prompt gives it, but for BOS: *bos is 1 when the template puts it in front. ERR_INPUT with the
 * family's name, or the marks that were found, for another template. */
int chat_render(TextBuf *out, int *bos, const char *text, const char *system, const char *user, Err *e);

#endif
