/* score.c - rows of scores, and the orders they give. See score.h. */
#include "method/score.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

#define P(KEY, KIND, MEMBER)                                                                                           \
    { KEY, KIND, offsetof(ScorePoint, MEMBER), 0, 0, FIELD_ALWAYS, 0, NULL }
static const Field POINT[] = {P("step", FIELD_I64, step), P("tokens", FIELD_I64, tokens), P("kl", FIELD_REAL, kl),
                              P("stderr", FIELD_REAL, kl_se), P("running_kl", FIELD_REAL, running)};
#undef P
static const Record point_record = {POINT, 5, sizeof(ScorePoint)};

#define S(MEMBER) offsetof(LayerScore, MEMBER)
static const Field ROW[] = {
    {"layer", FIELD_INT, S(layer), 0, MAX_LAYERS - 1, FIELD_ALWAYS, 0, NULL},
    {"rank", FIELD_INT, S(rank), 0, MAX_LAYERS, FIELD_ALWAYS, 0, NULL},
    {"score", FIELD_REAL, S(score), 0, 0, FIELD_ALWAYS, 0, NULL},
    {"stderr", FIELD_REAL, S(se), 0, 0, FIELD_ALWAYS, 0, NULL},
    {"running_kl", FIELD_REAL, S(running), 0, 0, FIELD_ALWAYS, 0, NULL},
    {"recall", FIELD_REAL, S(recall), 0, 0, FIELD_OR_NAN, 0, NULL},
    {"tokens", FIELD_I64, S(tokens), 0, 0, FIELD_ALWAYS, 0, NULL},
    {"seconds", FIELD_REAL, S(seconds), 0, 0, FIELD_ALWAYS, 0, NULL},
    {"batch_kl", FIELD_REALS, S(batch_kl), S(batches), HELDOUT_MAX, FIELD_ALWAYS, 0, NULL},
    {"dropped_at_step", FIELD_I64, S(dropped), 0, 0, FIELD_OR_ZERO, 0, NULL},
    {"behind_kth", FIELD_REAL, S(drop_mean), 0, 0, FIELD_OR_ZERO, 0, NULL},
    {"behind_kth_stderr", FIELD_REAL, S(drop_se), 0, 0, FIELD_OR_ZERO, 0, NULL},
    {"heads", FIELD_REALS, S(head), S(heads), SCORE_HEADS, FIELD_OR_ZERO, 0, NULL},
    {"points", FIELD_RECORDS, S(point), S(points), SCORE_POINTS, FIELD_OR_ZERO, 0, &point_record},
};
#undef S
enum { FIELDS = sizeof ROW / sizeof *ROW };
const Record layer_score_record = {ROW, FIELDS, sizeof(LayerScore)};
const Record layer_row_record = {ROW, FIELDS - 1, sizeof(LayerScore)};

static double order_value(double v) { return isnan(v) ? -INFINITY : v; }

void score_order(const double *value, int L, int *order) {
    for (int i = 0; i < L; i++) {
        int at = i;
        for (; at > 0 && order_value(value[order[at - 1]]) < order_value(value[i]); at--) order[at] = order[at - 1];
        order[at] = i;
    }
}

void score_rank(LayerScore *s, int L) {
    double value[MAX_LAYERS] = {0};
    int order[MAX_LAYERS], sorted[MAX_LAYERS], n = 0;
    for (int l = 0; l < L; l++) value[l] = s[l].score;
    score_order(value, L, order);
    for (int points = SCORE_POINTS; points >= 0; points--)
        for (int i = 0; i < L; i++)
            if (s[order[i]].points == points) sorted[n++] = order[i];
    for (int i = 0; i < n; i++) s[sorted[i]].rank = i + 1;
}

void score_finish(LayerScore *s, int layer, int n) {
    double sum = 0, square = 0;
    s->layer = layer;
    s->batches = n;
    s->running = s->recall = NAN;
    for (int i = 0; i < n; i++) sum += s->batch_kl[i];
    s->score = n ? sum / n : NAN;
    for (int i = 0; i < n; i++) square += (s->batch_kl[i] - s->score) * (s->batch_kl[i] - s->score);
    s->se = n > 1 ? sqrt(square / (n - 1) / n) : NAN;
}

void score_share(LayerScore *s, int L, int64_t tokens, double seconds) {
    for (int l = 0; l < L; l++) {
        s[l].tokens = tokens / L + (l < tokens % L);
        s[l].seconds = seconds / L;
    }
}

int score_ranks_at(const LayerScore *s, int L, int p, int official, int *rank) {
    double value[MAX_LAYERS] = {0};
    int order[MAX_LAYERS], n = 0;
    for (int l = 0; l < L; l++) {
        const int there = p < s[l].points;
        value[l] = !there ? -INFINITY : -(official ? s[l].point[p].running : s[l].point[p].kl);
        n += there;
    }
    score_order(value, L, order);
    for (int i = 0; i < L; i++) rank[order[i]] = p < s[order[i]].points ? i + 1 : 0;
    return n;
}
