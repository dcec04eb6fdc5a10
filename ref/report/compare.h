/* compare.h - one teacher, several seeds, many selectors: what do the sets they choose come to?
 *
 * compare.c reads, report_compare.c draws. Every seed is a finished run in DIR/seed-S (pipeline.h) that names the
 * selectors in `selector` and `students`; nothing is computed
 * here that is not in those runs' files. Writes into DIR:
 *   compare.csv         one line for each seed and selector: layers, agreement with GA-S2, KL, recall, regret,
 *                       tokens and seconds of scoring
 *   selectors.svg       mean KL by selector (numbers: selectors.csv, the means of compare.csv)
 *   agreement.svg/.csv  mean Spearman rho over seeds of every pair of rankings;   cost.svg/.csv  KL against scoring
 *                       tokens
 *   kl_ratio, recall_ratio, memory (.svg/.csv)  students at several K (curve_k), mean and standard deviation over seeds
 *   report.html         all of it, and the table of means
 * Regret: every set of K layers was distilled for the scoring budget if selector exhaustive ran (sets.csv);
 * a set's regret is its KL there minus that of the best set. Without it there is none. */
#ifndef HYB_COMPARE_H
#define HYB_COMPARE_H
#include "base/text_buf.h"
#include "method/select.h"
#include "run/pipeline.h"

enum { COMPARE_SEEDS = 16, COMPARE_NAMES = 64 };
typedef struct {
    uint64_t seed;
    char layers[128];
    int k, keep[MAX_LAYERS];
    double rho, tau,
        overlap; /* with GA-S2: rank correlations over all layers (NAN: ranks nothing), share of its K layers */
    double kl, kl_se, recall, recall_last,
        memory; /* recall: mean over numbers of pairs, and of the largest; MiB at memory_context */
    double regret;
    int set_rank;           /* of all sets, 0: not known */
    double tokens, seconds; /* of scoring; 0 for layouts */
} CompareCell;
typedef struct {
    char name[32];
    int n; /* seeds */
    CompareCell cell[COMPARE_SEEDS];
} CompareRow;
typedef struct {
    const char *dir;
    uint64_t seed[COMPARE_SEEDS];
    int n_seeds, L, K, recall_most; /* recall_most: largest number of pairs */
    double context;
    CompareRow row[COMPARE_NAMES];
    int rows;
    double rho[COMPARE_NAMES * COMPARE_NAMES]; /* sums over seeds */
    int pairs[COMPARE_NAMES * COMPARE_NAMES];
    PipelineResult *result; /* (n_seeds) */
} Compare;

/* dir/seed-S for each seed must be finished; ERR_INPUT when they differ in layers or K. */
int compare_read(Compare *c, const char *dir, const uint64_t *seed, int n, Err *e);
void compare_close(Compare *c);
/* Mean and standard deviation over seeds of one number of a row, given by its offset in CompareCell;
 * NAN where there is none. */
double compare_mean(const CompareRow *r, size_t offset, double *sd);
/* The table as text, best KL first. */
void compare_table(TextBuf *b, const Compare *c);
int compare_report(Compare *c, Err *e);

#endif
