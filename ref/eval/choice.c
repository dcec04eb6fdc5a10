/* choice.c - see choice.h. */
#include "eval/choice.h"

size_t choice_length(const char *text) {
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

Choice choice_score(const double *sum, char *const *text, int n, int gold) {
    Choice c = {0};
    double best = 0, best_norm = 0;
    for (int i = 0; i < n; i++) {
        const double length = (double)choice_length(text[i] + (text[i][0] == ' '));
        const double norm = sum[i] / length; // no characters: -inf, never preferred
        if (!i || sum[i] > best) best = sum[i], c.pick = i;
        if (!i || norm > best_norm) best_norm = norm, c.pick_norm = i;
    }
    c.acc = c.pick == gold;
    c.acc_norm = c.pick_norm == gold;
    return c;
}
