/* cmd_eval.h - between the files of `hybridize eval`: measures on a token stream (cmd_eval.c), question sets
 * (cmd_eval_tasks.c), probes (cmd_eval_probes.c). */
#ifndef HYB_CMD_EVAL_H
#define HYB_CMD_EVAL_H
#include "tools/session.h"

typedef struct {
    int seq_len, batch_size, recall_rows, recall_queries;
    char task[1024], text[4096], text_field[128], ids[1024], teacher[1024], recall_keys[128], recall_values[128],
        recall_n[64];
    int64_t max_tokens;
    int max_len, samples, limit, max_length, add_bos, tokenizer, seeds, flavour; /* question sets */
    char heat_task[64], lengths[256];
    int depths, heat_samples, new_tokens;
    int passes, gram, probe_vocab, random_filler;
    double power, logit_base;
    int pairs, shots, protocol, window;
    double no_answer;
    char data[1024], emit[1024], log_samples[1024];
} EvalOptions;
enum { STUB_NONE, STUB_BYTE, STUB_SIMPLE };

int eval_mqar(Cli *c, Session *s, Err *e);    /* the probes of eval/mqar.h */
int eval_heatmap(Cli *c, Session *s, Err *e); /* needles: length x depth */
int eval_klstats(Cli *c, Session *s, Err *e);
/* The tasks of o->task, a comma list; ERR_USAGE names an unknown one with the nearest. */
int eval_tasks(Cli *c, const EvalOptions *o, Err *e);

#endif
