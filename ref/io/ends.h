/* ends.h - where a text ends: one answer, from all the files of a model that say something about it.
 *
 * The ends of a model are those at which generation stops: eos_token_id of config.json and of generation_config.json,
 * eos_token of tokenizer_config.json, without repeats, in this order; of a GGUF file eos, eot and eom
 * (tokenizer.ggml.*_token_id). hf_open and hf_config put them into Config.eos, where everything asks for them
 * (config_ends). The end of a document, which training text may carry, is another question: a chat model ends its turns
 * with one token and a document with another. */
#ifndef HYB_ENDS_H
#define HYB_ENDS_H
#include "base/json.h"
#include "model/config.h"
#include "text/tokenizer.h"

/* Adds to c what the files beside config.json (j) in dir say. eos_token_id of generation_config.json takes the place of
 * a default, if config.json has none. */
int ends_add(Config *c, const Json *j, const char *dir, Err *e);
/* *id: that of tokenizer_config.json's eos_token, -1 if there is none. */
int ends_token(int *id, const char *dir, Err *e);
/* Adds one id, if it is none of the ends yet. ERR_INPUT when there are too many. */
int ends_put(Config *c, int64_t id, const char *where, Err *e);

/* The end of a document: of the ends the one that is spelled as such ("<|endoftext|>", "<|end_of_text|>", "</s>", ...),
 * else the first; -1: the model has none. t may be NULL. */
int ends_document(const Config *c, const Tokenizer *t);

#endif
