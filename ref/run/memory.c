/* memory.c - see memory.h. */
#include "run/memory.h"
#include "method/loss.h"
#include <stdio.h>
#include <string.h>

void memory_add(MemoryPlan *p, const char *what, size_t bytes) {
    if (!bytes || p->n == MEMORY_ROWS) return;
    p->row[p->n].what = what;
    p->row[p->n++].bytes = bytes;
}

size_t memory_total(const MemoryPlan *p) {
    size_t sum = 0;
    for (int i = 0; i < p->n; i++) sum = p->row[i].bytes > SIZE_MAX - sum ? SIZE_MAX : sum + p->row[i].bytes;
    return sum;
}

static size_t rope_bytes(const Model *m, int T) { return model_rope_bytes(&m->c, m->be, T); }

int memory_frozen(MemoryPlan *p, Backend *be, const Config *c, GradKind grad, const char *weights,
                  const char *activations, int B, int T, Err *e) {
    Model m;
    TRY(model_measure(&m, c, be, grad, e));
    memory_add(p, weights, m.weight_bytes);
    if (T > 0) memory_add(p, activations, pass_bytes(&m, B, T, 0) + rope_bytes(&m, T));
    model_close(&m);
    return OK;
}

int memory_trained(MemoryPlan *p, Backend *be, const Config *c, GradKind grad, const StageOptions *o, int checkpointing,
                   int Ct, Err *e) {
    Model m;
    const int B = o->micro_batch_size, T = o->train_seq_len;
    TRY(optim_check(&o->optim, be, e));
    TRY(model_measure(&m, c, be, grad, e));
    memory_add(p, "student's weights", m.weight_bytes);
    memory_add(p, "gradients", m.grad_bytes);
    memory_add(p, "gradients of lanes", lanes_bytes(&m, o->optim.lanes));
    memory_add(p, o->optim.stochastic_rounding ? "optimiser without masters" : "optimiser", optim_bytes(&m, &o->optim));
    memory_add(p, "activations",
               pass_bytes(&m, B, T, PASS_TRAIN | (checkpointing ? PASS_CHECKPOINT : 0)) + rope_bytes(&m, T));
    if (Ct >= 0) memory_add(p, "loss", loss_bytes(&m, Ct, B * T));
    else memory_add(p, "alignment", (size_t)B * T * (4 * (size_t)c->C * be->real_size + be->wide_size));
    model_close(&m);
    return OK;
}

void memory_text(const MemoryPlan *p, char *dst, size_t cap) {
    const double total = (double)memory_total(p), unit = total < 1e9 ? 1e6 : 1e9;
    size_t used = (size_t)snprintf(dst, cap, "%.2f %s:", total / unit, unit < 1e9 ? "MB" : "GB");
    for (int i = 0; i < p->n && used < cap; i++)
        used += (size_t)snprintf(dst + used, cap - used, "%s %s %.2f", i ? "," : "", p->row[i].what,
                                 (double)p->row[i].bytes / unit);
}

int memory_check(const MemoryPlan *p, Backend *be, const char *what, Err *e) {
    char table[512];
    const size_t available = be->free_memory ? be->free_memory(be) : 0, need = memory_total(p);
    if (!available || need <= available) return OK;
    memory_text(p, table, sizeof table);
    err_set(e, ERR_MEMORY, "%s: %s: got %.2f %s free, expected %s", be->name, what,
            (double)available / (need < 1000000000 ? 1e6 : 1e9), need < 1000000000 ? "MB" : "GB", table);
    return err_hint(e, "smaller micro_batch_size or train_seq_len, checkpointing, or a bf16 device");
}
