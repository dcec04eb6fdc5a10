/* mqar.c - probes put to a model; see mqar.h. The sequences are made in mqar_rows.c. */
#include "eval/mqar.h"
#include "base/mem.h"
#include "eval/score.h"
#include "method/loss.h"
#include <math.h>
#include <string.h>

typedef struct {
    Pass pass;
    Loss loss;
    int *ids, *target, *top, *scratch;
    float *weight, *nll;
    double *score;
    void *mem;
    int B;
} Probe;

static void probe_close(Probe *p) {
    pass_close(&p->pass);
    loss_close(&p->loss);
    mem_free(p->mem);
    mem_free(p->score);
}

static int probe_open(Probe *p, const MqarSpec *s, Model *m, int rows, Err *e) {
    void *mem;
    p->B = s->T < 2048 ? 2048 / s->T : 1;
    if (p->B > rows) p->B = rows;
    const size_t N = (size_t)p->B * s->T;
    TRY(mem_alloc(&p->mem, N * (3 * sizeof(int) + 2 * sizeof(float)) + mqar_scratch(s) * sizeof(int), "probe", e));
    p->ids = p->mem;
    p->target = p->ids + N;
    p->top = p->target + N;
    p->scratch = p->top + N;
    p->weight = (float *)(p->scratch + mqar_scratch(s));
    p->nll = p->weight + N;
    TRY(mem_alloc(&mem, (size_t)rows * sizeof(double), "probe", e));
    p->score = mem;
    TRY(pass_open(&p->pass, m, p->B, s->T, 0, e));
    return loss_open(&p->loss, m, 0, (int)N, e);
}

static int probe_batch(Probe *p, const MqarSpec *s, Model *m, int first, int rows, uint64_t seed, MqarResult *out,
                       Err *e) {
    double value;
    for (int b = 0; b < p->B; b++) { // rows beyond the last repeat it
        Rng r;
        const size_t at = (size_t)b * s->T;
        rng_seed3(&r, seed, (uint64_t)(first + (b < rows ? b : rows - 1)), (uint64_t)s->n);
        mqar_row(s, &r, p->ids + at, p->target + at, p->weight + at, p->scratch);
    }
    TRY(pass_input(&p->pass, m, p->ids, NULL, e));
    model_forward(m, &p->pass);
    TRY(loss_xent(&p->loss, m, &p->pass, p->target, p->weight, 0, &value, p->nll, p->top, e));
    for (int b = 0; b < rows; b++) {
        int asked = 0, right = 0;
        for (size_t i = (size_t)b * s->T; i < (size_t)(b + 1) * s->T; i++) {
            if (p->weight[i] == 0) continue;
            asked++;
            right += p->top[i] == p->target[i];
            out->loss += p->nll[i];
        }
        p->score[first + b] = asked ? (double)right / asked : 0;
        out->asked += asked;
    }
    return OK;
}

int mqar_run(const MqarSpec *s, Model *m, int rows, uint64_t seed, MqarResult *out, Err *e) {
    Probe p = {0};
    memset(out, 0, sizeof *out);
    TRY(mqar_check(s, e));
    if (rows < 1) return err_set(e, ERR_USAGE, "mqar: got %d sequences, expected at least 1", rows);
    if (s->vocab > m->c.VOC)
        return err_set(e, ERR_USAGE, "mqar: a vocabulary of %d for a model of %d tokens", s->vocab, m->c.VOC);
    int rc = probe_open(&p, s, m, rows, e);
    for (int first = 0; first < rows && !rc; first += p.B)
        rc = probe_batch(&p, s, m, first, rows - first < p.B ? rows - first : p.B, seed, out, e);
    if (!rc) {
        score_mean(p.score, rows, &out->accuracy, &out->accuracy_se);
        out->loss /= (double)out->asked;
        if (!isfinite(out->loss)) rc = err_set(e, ERR_NUMERIC, "mqar: the loss is not finite");
    }
    probe_close(&p);
    return rc;
}
