/* svg.h - the pictures of a run, as SVG 1.1 text that can stand in a file or inside an HTML page.
 *
 * Same data, same bytes. Colours are those of Okabe & Ito (Color Universal Design, 2008) with a marker per
 * series, so that nothing depends on colour alone; the heat map runs from light to dark. Points that are NaN
 * or infinite (or <= 0 on a log axis) are left out. Names are escaped. Everything is appended to a TextBuf;
 * running out of memory shows in textbuf_end. */
#ifndef HYB_SVG_H
#define HYB_SVG_H
#include <stddef.h>
#include "base/err.h"
#include "base/text_buf.h"

typedef struct {
    const char *title;             /* drawn on top and the <title>; NULL: none */
    const char *desc;              /* <desc>: one sentence for a screen reader; NULL: none */
    const char *x_label, *y_label; /* with units; NULL: none */
    int width, height;             /* 0: 760 x 400 (a heat map and a bump chart: as high as their rows need) */
    int log_x, log_y;              /* line charts only */
} SvgPlot;

/* Bars from zero in the order given. cut_after: a dashed vertical line after that many bars (0: none).
 * cut_value: a dashed horizontal line (NAN: none). highlight: what a highlighted bar means, for the legend
 * (NULL: no legend). */
typedef struct {
    const char *label;
    double value, err; /* err: half the error bar, 0 or NAN for none */
    int highlight;
} SvgBar;
void svg_bars(TextBuf *b, const SvgPlot *p, const SvgBar *bar, size_t n, size_t cut_after, double cut_value,
              const char *highlight);

/* Lines, broken where a point is left out; markers when there are at most 40 points. ref: a dashed horizontal
 * line with its name (NAN: none). pale: a thin light line without markers, e.g. the raw values behind a
 * smoothed curve. */
typedef struct {
    const char *name; /* in the legend; NULL: not there */
    const double *x, *y;
    const double *err; /* half the error bars, or NULL */
    size_t n;
    int pale;
    int dots; /* markers without a line (scatter) */
    /* 1..: colour and marker of the style-th series, e.g. for a pale line and its average; 0: by position */
    int style;
} SvgSeries;
void svg_lines(TextBuf *b, const SvgPlot *p, const SvgSeries *s, size_t n, double ref, const char *ref_name);

/* Rank against x: rank[i * n_x + t] is the rank (1 = best, on top) of item i at x[t], 0 = not ranked then.
 * Highlighted items are coloured and thick, the others grey. */
void svg_bump(TextBuf *b, const SvgPlot *p, const char *const *name, size_t n, const double *x, size_t n_x,
              const int *rank, const int *highlight);

/* v[r * cols + c], drawn as coloured cells with their values (%.3g) where they fit; NaN: an empty cell. */
void svg_heat(TextBuf *b, const SvgPlot *p, const char *const *row, size_t rows, const char *const *col, size_t cols,
              const double *v);

/* The text as a file of its own, with an XML declaration. Atomic. */
int svg_save(const TextBuf *b, const char *path, Err *e);

#endif
