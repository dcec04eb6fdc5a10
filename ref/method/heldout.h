/* heldout.h - how students are judged. Source: ref/METHOD.md 3.7. */
#ifndef HYB_HELDOUT_H
#define HYB_HELDOUT_H
#include "method/batch.h"
#include "method/teacher.h"

/* The fixed held-out batches by which every student is judged: the same tokens for all, so differences are paired. */
typedef struct {
    TextStream data;
    Teacher teacher;
    Model *teacher_model;
    Batch batch;
    int B, T, batches;
    double share[256]; /* of each batch in a mean over batches: its targets that count over their mean number */
    double teacher_ce; /* nats per token on the same batches; NAN until heldout_run ran once with ce */
} Heldout;
typedef struct {
    /* mean over batches of the mean over tokens (nats), tau = 1; its standard error over batches */
    double kl, kl_se;
    double ce, ce_se; /* cross-entropy on the text (nats per token) */
    /* The same split in two: tokens that go on as an earlier place of the window went on (the pair of tokens before
     * them, and they themselves, occurred before: what recall can give), and all others. repeated: their share. Source:
     * Zoology (arXiv 2312.04927). */
    double ce_new, ce_repeat, repeated;
    int batches;
    double batch_kl[256], batch_ce[256];
} HeldoutResult;
enum { HELDOUT_MAX = 256 };
/* batches is lowered to what the held-out text has (at least 1), raised to no more than HELDOUT_MAX. cache:
 * bytes of teacher states kept. */
int heldout_open(Heldout *h, Model *teacher, const TextStream *data, int B, int T, int batches, size_t cache, Err *e);
void heldout_close(Heldout *h);
/* Batch i; its weight, where it has one, is times share[i], so that means over batches are means over what counts. */
int heldout_text(Heldout *h, int i, Err *e);
int heldout_run(Heldout *h, Model *student, HeldoutResult *r, Err *e);

#endif
