/* transfer.h - a student from a teacher: weights copied, k and v expanded to all heads, new parameters initialised
 * (ref/METHOD.md 3.1). */
#ifndef HYB_TRANSFER_H
#define HYB_TRANSFER_H
#include "model/model.h"

typedef enum {
    KV_REPEAT_HEAD,
    KV_REPEAT_ROW
} KvRepeat; /* student head j = teacher head j/g (clean); row r = teacher row r/g (official) */

enum { SWA_WINDOW = 64 }; /* of swa_v1 layers unless something else is said */

/* student's config = teacher's, with layer mixers as given (L indices into the mixer table). */
int transfer_config(Config *student, const Config *teacher, const int *mixer, Err *e);
/* Fills every weight of student: softmax layers and everything outside mixers copied, linear mixers by their walk's
 * copy rule, the rest initialised from seed. Both models on the same backend. */
int transfer_weights(Model *student, const Model *teacher, KvRepeat repeat, uint64_t seed, Err *e);
/* Copies every parameter that both have with one name and shape (stage-1 student into a hybrid), then the softmax
 * layers of `to` that are linear in `from` out of teacher. */
int transfer_hybrid(Model *to, const Model *from, const Model *teacher, Err *e);

#endif
