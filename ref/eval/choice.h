/* choice.h - which answer does the model prefer, and is it the right one? Source: ref/eval/README.md 4. */
#ifndef HYB_CHOICE_H
#define HYB_CHOICE_H
#include <stddef.h>

typedef struct {
    int pick, pick_norm;
    double acc, acc_norm;
} Choice;
/* sum (n): log-likelihood of each choice; text: the choices with their joining space. acc: the first largest sum is the
 * gold one's;
 * acc_norm: the same of sum / characters (code points, without the joining space). */
Choice choice_score(const double *sum, char *const *text, int n, int gold);
/* Code points. */
size_t choice_length(const char *text);

#endif
