/* gates_trained.c - selector gates_trained: the gates of gates.h trained together, everything else frozen.
 *
 *   y_l = (1 - a_l) linear_l(n) + a_l softmax_l(n),   a_l = sigmoid(theta_l),   sum a_l = K throughout
 *   theta <- Adam(dKL/dtheta),  dKL/dtheta_l = a_l (1 - a_l) dKL/da_l           KL to the teacher, training batches
 *   theta <- theta - tau, the same tau for all, so that again sum sigmoid(theta_l - tau) = K
 *   score = a_l at the end
 *
 * Trained together, a layer's gate knows what the others give: a slope at one point does not. The idea is FlashMorph's
 * (arXiv 2606.30562), which keeps the budget by a penalty; optimiser, rates and loss there are not known, and the
 * exact budget, Adam and these constants are ours. It reads the batches' own stream: with score_mix recall rows too. */
#include "selectors/gates_trained.h"
#include <math.h>

static const double RATE = 0.1, BETA1 = 0.9, BETA2 = 0.999, EPS = 1e-8;
enum { THETA, FIRST, SECOND, STATE }; /* what a stopped training keeps of a layer, in LayerScore.head */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

void gates_project(double *theta, double *a, int L, double K) {
    double low = -1e3, high = 1e3; // of tau: the sum falls as it grows
    for (int i = 0; i < 100; i++) {
        const double tau = (low + high) / 2;
        double sum = 0;
        for (int l = 0; l < L; l++) sum += sigmoid(theta[l] - tau);
        if (sum > K) low = tau;
        else high = tau;
    }
    for (int l = 0; l < L; l++) a[l] = sigmoid(theta[l] -= (low + high) / 2);
}

/* One step on training batch `step`. */
static int train_step(Gates *g, LayerScore *rows, double *a, double K, int step, Err *e) {
    const int L = g->stage1_student->c.L, H = g->stage1_student->c.H;
    double kl, theta[MAX_LAYERS];
    TRY(gates_training_batch(g, (uint64_t)step, a, &kl, e));
    for (int l = 0; l < L; l++) {
        double slope = 0, *s = rows[l].head;
        for (int k = 0; k <= H; k++) slope += g->slope[(size_t)l * (H + 1) + k];
        slope *= a[l] * (1 - a[l]);
        s[FIRST] = BETA1 * s[FIRST] + (1 - BETA1) * slope;
        s[SECOND] = BETA2 * s[SECOND] + (1 - BETA2) * slope * slope;
        const double mean = s[FIRST] / (1 - pow(BETA1, step + 1)), square = s[SECOND] / (1 - pow(BETA2, step + 1));
        theta[l] = s[THETA] - RATE * mean / (sqrt(square) + EPS);
    }
    gates_project(theta, a, L, K);
    for (int l = 0; l < L; l++) rows[l].head[THETA] = theta[l];
    return OK;
}

static int train_all(Gates *g, LayerScore *rows, double K, int done, int steps, Partial *partial, Err *e) {
    const int L = g->stage1_student->c.L;
    double a[MAX_LAYERS], theta[MAX_LAYERS] = {0};
    if (!done) gates_project(theta, a, L, K); // all a = K / L
    for (int l = 0; l < L; l++) {
        if (!done) rows[l].head[THETA] = theta[l];
        a[l] = sigmoid(rows[l].head[THETA]);
        rows[l].heads = STATE;
    }
    for (int i = done; i < steps; i++) {
        TRY(train_step(g, rows, a, K, i, e));
        TRY(partial_unit(partial, rows, L, i + 1, e));
    }
    for (int l = 0; l < L; l++) {
        rows[l] = (LayerScore){.batches = 1};
        rows[l].batch_kl[0] = a[l];
        score_finish(&rows[l], l, 1);
    }
    return OK;
}

int gates_train(LayerScore *rows, Model *teacher, Model *stage1_student, int K, int steps, Heldout *heldout,
                Partial *partial, Err *e) {
    Gates g;
    Partial none = {0}, *k = partial ? partial : &none;
    const int L = stage1_student->c.L;
    // a gate of exactly 0 or 1 does not train
    const double budget = fmin(fmax(K, 0.5), L - 0.5);
    int done;
    TRY(partial_begin(k, rows, L, &done, e));
    TRY(gates_open(&g, teacher, stage1_student, heldout, e));
    const int rc = train_all(&g, rows, budget, done, steps, k, e);
    gates_close(&g);
    if (rc) return rc;
    score_share(rows, L, (int64_t)steps * heldout->B * heldout->T, partial_seconds(k));
    score_rank(rows, L);
    return OK;
}
