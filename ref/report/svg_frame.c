/* svg_frame.c - see svg_frame.h. */
#include "report/svg_frame.h"
#include "base/utf8.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- text and shapes ---- */

void svg_escaped(TextBuf *b, const char *s) {
    const unsigned char *p = (const unsigned char *)s;
    size_t n = strlen(s), w;
    for (size_t i = 0; i < n; i += w) {
        w = utf8_length(p + i, n - i);
        int control = p[i] < 0x20 && p[i] != '\t' && p[i] != '\n';
        int not_a_character = w == 3 && p[i] == 0xef && p[i + 1] == 0xbf && p[i + 2] >= 0xbe;
        if (!w || control || not_a_character) textbuf_puts(b, "\xef\xbf\xbd");
        else if (p[i] == '<') textbuf_puts(b, "&lt;");
        else if (p[i] == '>') textbuf_puts(b, "&gt;");
        else if (p[i] == '&') textbuf_puts(b, "&amp;");
        else if (p[i] == '"') textbuf_puts(b, "&quot;");
        else textbuf_put(b, s + i, w);
        if (!w) w = 1;
    }
}

void svg_text(TextBuf *b, double x, double y, SvgText s, const char *text) {
    textbuf_printf(b, "<text x=\"%.6g\" y=\"%.6g\" text-anchor=\"%s\" font-size=\"%d\" fill=\"%s\"%s", x, y, s.anchor,
                   s.size, s.fill, s.bold ? " font-weight=\"bold\"" : "");
    if (s.turn != 0) textbuf_printf(b, " transform=\"rotate(%.6g %.6g %.6g)\"", s.turn, x, y);
    textbuf_puts(b, ">");
    svg_escaped(b, text);
    textbuf_puts(b, "</text>\n");
}

void svg_stroke(TextBuf *b, double x0, double y0, double x1, double y1, const char *stroke, double width, int dashed) {
    textbuf_printf(b, "<line x1=\"%.6g\" y1=\"%.6g\" x2=\"%.6g\" y2=\"%.6g\" stroke=\"%s\" stroke-width=\"%.6g\"%s/>\n",
                   x0, y0, x1, y1, stroke, width, dashed ? " stroke-dasharray=\"6 4\"" : "");
}

void svg_error_bar(TextBuf *b, double x, double y0, double y1, const char *stroke) {
    textbuf_printf(b,
                   "<path d=\"M%.6g %.6gV%.6gM%.6g %.6gh6M%.6g %.6gh6\" stroke=\"%s\" stroke-width=\"1.2\" "
                   "fill=\"none\"/>\n",
                   x, y0, y1, x - 3, y0, x - 3, y1, stroke);
}

const char *svg_colour(size_t style) {
    /* blue, vermilion, green, purple, orange, sky blue, black: Okabe & Ito without the yellow, too pale on
     * white */
    static const char *const palette[SVG_STYLES] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                    "#e69f00", "#56b4e9", "#000000"};
    return palette[style % SVG_STYLES];
}

/* One of seven shapes of about the same weight, so that series differ without colour. */
void svg_marker(TextBuf *b, double x, double y, size_t style, const char *colour) {
    static const char *const path[SVG_STYLES] = {"m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
                                                 "m-3.5 -3.5h7v7h-7z",
                                                 "m0 -4.5l4.5 8h-9z",
                                                 "m0 -5l5 5l-5 5l-5 -5z",
                                                 "m0 4.5l4.5 -8h-9z",
                                                 "m-4.5 0h9m-4.5 -4.5v9",
                                                 "m-3.5 -3.5l7 7m0 -7l-7 7"};
    size_t shape = (style + style / SVG_STYLES) % SVG_STYLES;
    int open = shape >= 5;
    textbuf_printf(b, "<path d=\"M%.6g %.6g%s\" fill=\"%s\" stroke=\"%s\"%s/>\n", x, y, path[shape],
                   open ? "none" : colour, colour, open ? " stroke-width=\"2\"" : "");
}

double svg_text_width(const char *s, int size) {
    size_t chars = 0;
    for (; *s; s++) chars += ((unsigned char)*s & 0xc0) != 0x80;
    return 0.6 * size * (double)chars;
}

/* ---- axes ---- */

SvgAxis svg_axis(int log) { return (SvgAxis){.lo = 1, .hi = 0, .log = log}; }

int svg_usable(const SvgAxis *a, double v) {
    return fabs(v) <= 1e300 && (!a->log || v > 0); /* beyond, the width of a range would be infinite */
}

double svg_axis_at(const SvgAxis *a, double v, double from, double to) {
    double lo = a->log ? log10(a->lo) : a->lo, hi = a->log ? log10(a->hi) : a->hi, at = a->log ? log10(v) : v;
    double t = hi > lo ? (at - lo) / (hi - lo) : 0.5;
    return from + (t < 0 ? 0 : t > 1 ? 1 : t) * (to - from); /* error bars may reach out of a log axis */
}

void svg_axis_take(SvgAxis *a, double v) {
    if (!svg_usable(a, v)) return;
    if (!(a->lo <= a->hi)) a->lo = a->hi = v;
    if (v < a->lo) a->lo = v;
    if (v > a->hi) a->hi = v;
}

static void axis_ticks_log(SvgAxis *a) {
    int k0 = (int)floor(log10(a->lo)), k1 = (int)ceil(log10(a->hi)), decades = k1 - k0;
    static const double fine[] = {1, 2, 5};
    int parts = decades <= 2 ? 3 : 1, every = decades / 10 + 1;
    double lo = 0, hi = 0;
    for (int k = k0; k <= k1 && a->ticks < SVG_MAX_TICKS; k += every)
        for (int i = 0; i < parts && a->ticks < SVG_MAX_TICKS; i++) {
            double v = fine[i] * pow(10, k);
            if (v <= a->lo * 1.0000001) {
                lo = v; /* the last one below the data opens the axis */
                a->ticks = 0;
            }
            if (hi > 0) break;
            if (v >= a->hi * 0.9999999) hi = v;
            a->tick[a->ticks++] = v;
        }
    if (lo > 0) a->lo = lo;
    if (hi > 0) a->hi = hi;
}

static void axis_ticks_linear(SvgAxis *a, int wanted) {
    double range = a->hi - a->lo, step = pow(10, floor(log10(range / wanted)));
    static const double factor[] = {1, 2, 5, 10};
    int i = 0;
    while (i < 3 && range / (step * factor[i]) > wanted) i++;
    step *= factor[i];
    double first = floor(a->lo / step + 1e-9), last = ceil(a->hi / step - 1e-9);
    a->lo = first * step;
    a->hi = last * step;
    for (double k = first; k <= last && a->ticks < SVG_MAX_TICKS; k++) a->tick[a->ticks++] = k * step;
}

void svg_axis_finish(SvgAxis *a, int wanted) {
    a->ticks = 0;
    if (!(a->lo <= a->hi)) a->lo = a->log ? 1 : 0, a->hi = a->log ? 10 : 1; /* no data */
    double size = fmax(fabs(a->lo), fabs(a->hi));
    if (!a->log && !(a->hi - a->lo > size * 1e-9)) { /* one value: show it in the middle, with some room */
        double room = size > 0 ? size * 0.1 : 1;
        a->lo -= room;
        a->hi += room;
    }
    if (a->log) axis_ticks_log(a);
    else axis_ticks_linear(a, wanted);
}

/* 12000 as 12k, 2.5e6 as 2.5M; the rest as %.6g. */
static void tick_label(char *dst, size_t cap, double v) {
    static const struct {
        double unit;
        char letter;
    } scale[] = {{1e12, 'T'}, {1e9, 'G'}, {1e6, 'M'}, {1e3, 'k'}};
    if (fabs(v) < 1e-300) v = 0;
    for (size_t i = 0; i < 4; i++)
        if (fabs(v) >= 1e4 && fabs(v) < 1e15 && fabs(v) >= scale[i].unit) {
            snprintf(dst, cap, "%.6g%c", v / scale[i].unit, scale[i].letter);
            return;
        }
    snprintf(dst, cap, "%.6g", v);
}

/* ---- the frame ---- */

void svg_begin(TextBuf *b, const SvgPlot *p, double w, double h) {
    textbuf_printf(b,
                   "<svg xmlns=\"http://www.w3.org/2000/svg\" version=\"1.1\" width=\"%.6g\" height=\"%.6g\" "
                   "viewBox=\"0 0 %.6g %.6g\" "
                   "font-family=\"sans-serif\">\n",
                   w, h, w, h);
    if (p->title) textbuf_puts(b, "<title>"), svg_escaped(b, p->title), textbuf_puts(b, "</title>\n");
    if (p->desc) textbuf_puts(b, "<desc>"), svg_escaped(b, p->desc), textbuf_puts(b, "</desc>\n");
    textbuf_printf(b, "<rect width=\"%.6g\" height=\"%.6g\" fill=\"#ffffff\"/>\n", w, h);
    if (p->title) svg_text(b, w / 2, 24, (SvgText){"middle", SVG_DARK, SVG_TITLE, 1, 0}, p->title);
}

void svg_end(TextBuf *b) { textbuf_puts(b, "</svg>\n"); }

void svg_axis_labels(TextBuf *b, const SvgPlot *p, const SvgArea *r, double h) {
    if (p->x_label)
        svg_text(b, (r->left + r->right) / 2, h - 10, (SvgText){"middle", SVG_INK, SVG_FONT, 0, 0}, p->x_label);
    if (p->y_label)
        svg_text(b, 16, (r->top + r->bottom) / 2, (SvgText){"middle", SVG_INK, SVG_FONT, 0, -90}, p->y_label);
}

void svg_y_ticks(TextBuf *b, const SvgAxis *y, const SvgArea *r) {
    for (int i = 0; i < y->ticks; i++) {
        char s[40];
        double at = svg_axis_at(y, y->tick[i], r->bottom, r->top);
        svg_stroke(b, r->left, at, r->right, at, SVG_GRID, 1, 0);
        tick_label(s, sizeof s, y->tick[i]);
        svg_text(b, r->left - 6, at + 4, (SvgText){"end", SVG_INK, SVG_SMALL, 0, 0}, s);
    }
}

void svg_x_ticks(TextBuf *b, const SvgAxis *x, const SvgArea *r) {
    for (int i = 0; i < x->ticks; i++) {
        char s[40];
        double at = svg_axis_at(x, x->tick[i], r->left, r->right);
        svg_stroke(b, at, r->bottom, at, r->bottom + 5, SVG_INK, 1, 0);
        tick_label(s, sizeof s, x->tick[i]);
        svg_text(b, at, r->bottom + 18, (SvgText){"middle", SVG_INK, SVG_SMALL, 0, 0}, s);
    }
    svg_stroke(b, r->left, r->bottom, r->right, r->bottom, SVG_INK, 1, 0);
}

void svg_x_names(TextBuf *b, const SvgArea *r, const char *const *name, size_t n) {
    double cell = (r->right - r->left) / (double)n, widest = 0;
    for (size_t i = 0; i < n; i++) widest = fmax(widest, svg_text_width(name[i], SVG_SMALL) + 6);
    int turn = widest > 5 * cell || (widest > cell && widest > 40);
    size_t every = (size_t)ceil((turn ? SVG_SMALL + 2 : widest) / cell);
    for (size_t i = 0; i < n; i += every ? every : 1) {
        double x = r->left + cell * ((double)i + 0.5);
        svg_text(b, turn ? x + 4 : x, r->bottom + (turn ? 12 : 16),
                 (SvgText){turn ? "end" : "middle", SVG_INK, SVG_SMALL, 0, turn ? -40 : 0}, name[i]);
    }
}

double svg_x_names_height(const char *const *name, size_t n, double width) {
    double widest = 0, cell = width / (double)(n ? n : 1);
    for (size_t i = 0; i < n; i++) widest = fmax(widest, svg_text_width(name[i], SVG_SMALL) + 6);
    return widest > 5 * cell || (widest > cell && widest > 40) ? 14 + 0.65 * widest : 22;
}

double svg_width(const SvgPlot *p) { return p->width > 0 ? p->width : 760; }
double svg_height(const SvgPlot *p, double otherwise) { return p->height > 0 ? p->height : otherwise; }
double svg_top(const SvgPlot *p) { return p->title ? 44 : 18; }
double svg_left(const SvgPlot *p) { return p->y_label ? 76 : 56; }
double svg_below(const SvgPlot *p) { return p->x_label ? 26 : 8; }
