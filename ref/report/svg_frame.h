/* svg_frame.h - what every picture of svg.h is put together from: text, shapes, axes with round ticks, the
 * frame. Coordinates are pixels, y downwards; %.6g everywhere. Also for pictures that a report wants to draw
 * itself. */
#ifndef HYB_SVG_FRAME_H
#define HYB_SVG_FRAME_H
#include "report/svg.h"

enum { SVG_FONT = 12, SVG_SMALL = 11, SVG_TITLE = 15, SVG_MAX_TICKS = 24, SVG_STYLES = 7 };
#define SVG_INK  "#333333"
#define SVG_GRID "#dddddd"
#define SVG_GREY "#9aa0a6"
#define SVG_DARK "#000000"

typedef struct {
    const char *anchor, *fill; /* anchor: start, middle, end */
    int size, bold;
    double turn; /* degrees */
} SvgText;

typedef struct {
    double lo, hi; /* lo > hi: nothing taken yet */
    int log;
    int ticks;
    double tick[SVG_MAX_TICKS];
} SvgAxis;

typedef struct {
    double left, top, right, bottom;
} SvgArea; /* where the marks go; axes stand around it */

/* XML text: markup escaped; characters that XML 1.0 forbids and broken UTF-8 become U+FFFD. */
void svg_escaped(TextBuf *b, const char *s);
void svg_text(TextBuf *b, double x, double y, SvgText s, const char *text);
void svg_stroke(TextBuf *b, double x0, double y0, double x1, double y1, const char *stroke, double width, int dashed);
void svg_error_bar(TextBuf *b, double x, double y0, double y1, const char *stroke);
/* Colour and shape of a series: both change with the number, and 49 pairs pass before one returns. */
const char *svg_colour(size_t style);
void svg_marker(TextBuf *b, double x, double y, size_t style, const char *colour);
double svg_text_width(const char *s, int size); /* roughly, in pixels: no font is at hand to measure with */

SvgAxis svg_axis(int log);
int svg_usable(const SvgAxis *a, double v);   /* finite (up to 1e300), and positive on a log axis */
void svg_axis_take(SvgAxis *a, double v);     /* widens the range; values that are not usable do nothing */
void svg_axis_finish(SvgAxis *a, int wanted); /* rounds the range outwards to about `wanted` ticks */
double svg_axis_at(const SvgAxis *a, double v, double from,
                   double to); /* v's place between from (lo) and to (hi), kept inside */

void svg_begin(TextBuf *b, const SvgPlot *p, double w, double h); /* <svg>, <title>, <desc>, white ground, title */
void svg_end(TextBuf *b);
void svg_axis_labels(TextBuf *b, const SvgPlot *p, const SvgArea *r, double h);
void svg_y_ticks(TextBuf *b, const SvgAxis *y, const SvgArea *r);
void svg_x_ticks(TextBuf *b, const SvgAxis *x, const SvgArea *r);
/* Names below the columns of the area: every k-th so that they do not run into each other, or turned; and the
 * room they need. */
void svg_x_names(TextBuf *b, const SvgArea *r, const char *const *name, size_t n);
double svg_x_names_height(const char *const *name, size_t n, double width);

double svg_width(const SvgPlot *p);
double svg_height(const SvgPlot *p, double otherwise);
double svg_top(const SvgPlot *p); /* room above, left of and below the area for title, labels, ticks */
double svg_left(const SvgPlot *p);
double svg_below(const SvgPlot *p);

#endif
