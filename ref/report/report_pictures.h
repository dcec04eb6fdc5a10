/* report_pictures.h - the pictures of one run (report.h), each from the run's own files. A picture that has nothing to
 * show is left out. */
#ifndef HYB_REPORT_PICTURES_H
#define HYB_REPORT_PICTURES_H
#include "run/pipeline.h"
#include "report/report_page.h"

typedef struct {
    ReportPage page;
    PipelineOptions *o;
    PipelineResult *r;
    LayerScore *score; /* (MAX_LAYERS); L == 0: the run has no scores */
    int L;
    char unit[96], label[128]; /* of the scores */
} Report;

int draw_importance(Report *p,
                    Err *e); /* importance.svg/.csv: every layer's score with its standard error, and the cut at K */
int draw_trajectory(Report *p,
                    Err *e); /* trajectory.svg, from trajectory.csv: rank against scoring tokens; given-up layers end */
int draw_agreement(Report *p, Err *e); /* agreement.svg, from agreement.csv: Spearman's rho of every pair of rankings */
int draw_budget(Report *p, Err *e); /* budget.svg, from budget.csv: what the scores promise against what layers cost */
int draw_curves(Report *p, Err *e); /* kl_ratio, recall_ratio, memory (.svg/.csv): students at several K */
int draw_recall(Report *p, Err *e); /* recall.svg/.csv: by number of pairs, one line for each set of layers */
int draw_loss(Report *p, Err *e);   /* loss.svg/.csv: stages 1, 2 and 3 of the main student */
int draw_start(Report *p, Err *e);  /* start.svg, from start.csv: layers before and after init; none without */

/* What a picture needs of a run besides its directory: options, results, scores with their unit. */
int report_read(Report *p, Err *e);
/* "ga_s2@3" without what stands behind the at sign; a student at the run's own K has none. */
void row_selector(char *dst, size_t cap, const char *row);
/* Bytes of caches and states of one sequence of `context` tokens. */
double row_bytes(const StudentRow *r, double context);

#endif
