/* strict.h - metadata is held to what tensors are held to: a member that is not read is known to be harmless, or is
 * refused when it would change what is computed, or named.
 *
 * The names are those of transformers' configuration classes and of llama.cpp's gguf-py (constants.py). */
#ifndef HYB_STRICT_H
#define HYB_STRICT_H
#include "io/gguf.h"
#include "base/json.h"

/* ERR_INPUT for a member of config.json that changes what is computed ("is_causal": false, a cap or a scale of logits)
 * and is not at its neutral value. */
int strict_config(const Json *j, Err *e);
/* The members of the config.json of a transformers model that are neither read nor known: "a, b"; "" if there are none.
 * Of other layouts nothing is said. */
void strict_unread(const Json *j, char *out, size_t cap);
/* The same of a config.json on disk; a file that cannot be read has none. */
void strict_unread_of(const char *dir, char *out, size_t cap);

/* The same two for the pairs ARCH.* of a GGUF file. */
int strict_gguf(const Gguf *g, const char *arch, Err *e);
void strict_gguf_unread(const Gguf *g, const char *arch, char *out, size_t cap);

#endif
