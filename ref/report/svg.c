/* svg.c - the charts of svg.h, drawn with svg_frame.h. */
#include "base/file.h"
#include "report/svg_frame.h"
#include <math.h>
#include <stdio.h>

enum { MAX_MARKERS = 40 };

/* ---- bars ---- */

static void put_bar(TextBuf *b, const SvgBar *bar, const SvgAxis *y, const SvgArea *r, double x, double width) {
    double top = svg_axis_at(y, bar->value, r->bottom, r->top), zero = svg_axis_at(y, 0, r->bottom, r->top);
    char s[32];
    textbuf_printf(b, "<rect x=\"%.6g\" y=\"%.6g\" width=\"%.6g\" height=\"%.6g\" fill=\"%s\"%s/>\n", x,
                   fmin(top, zero), width, fabs(top - zero), bar->highlight ? svg_colour(1) : SVG_GREY,
                   bar->highlight ? " stroke=\"#000000\" stroke-width=\"1.2\"" : "");
    double end = top;
    if (isfinite(bar->err) && bar->err > 0) {
        double far = svg_axis_at(y, bar->value + bar->err, r->bottom, r->top),
               near = svg_axis_at(y, bar->value - bar->err, r->bottom, r->top);
        svg_error_bar(b, x + width / 2, far, near, SVG_INK);
        end = bar->value < 0 ? fmax(far, near) : fmin(far, near);
    }
    snprintf(s, sizeof s, "%.3g", bar->value);
    int turn = svg_text_width(s, SVG_SMALL) > width + 6, down = bar->value < 0;
    SvgText style = {turn ? (down ? "end" : "start") : "middle", bar->highlight ? SVG_DARK : SVG_INK, SVG_SMALL,
                     bar->highlight, turn ? -90 : 0};
    if (!turn) svg_text(b, x + width / 2, down ? end + 13 : end - 4, style, s);
    else if (width >= 9) svg_text(b, x + width / 2 + 4, down ? end + 4 : end - 4, style, s);
}

static void put_bar_legend(TextBuf *b, const SvgArea *r, const char *highlight) {
    if (!highlight) return;
    double x = r->right - svg_text_width(highlight, SVG_SMALL) - 18;
    textbuf_printf(b,
                   "<rect x=\"%.6g\" y=\"%.6g\" width=\"11\" height=\"11\" fill=\"%s\" stroke=\"#000000\" "
                   "stroke-width=\"1.2\"/>\n",
                   x, r->top - 15, svg_colour(1));
    svg_text(b, x + 16, r->top - 5, (SvgText){"start", SVG_INK, SVG_SMALL, 0, 0}, highlight);
}

/* The range of the values with room for what is written at their ends. */
static SvgAxis bar_axis(const SvgBar *bar, size_t n, double cut_value) {
    SvgAxis y = svg_axis(0);
    svg_axis_take(&y, 0);
    svg_axis_take(&y, cut_value);
    for (size_t i = 0; i < n; i++) {
        double err = isfinite(bar[i].err) && bar[i].err > 0 ? bar[i].err : 0;
        svg_axis_take(&y, bar[i].value + err);
        svg_axis_take(&y, bar[i].value - err);
    }
    double room = 0.12 * (y.hi - y.lo);
    if (y.hi > 0) y.hi += room;
    if (y.lo < 0) y.lo -= room;
    svg_axis_finish(&y, 6);
    return y;
}

/* Names that need more room than a bar's are turned; numbers leave some out. The room below is 0.65 of the widest one.
 * */
static void put_bar_names(TextBuf *b, const SvgArea *r, const SvgBar *bar, size_t n, double widest) {
    const double cell = (r->right - r->left) / (double)(n ? n : 1);
    const size_t every = widest > cell ? (size_t)ceil(widest / cell) : 1;
    for (size_t i = 0; i < n; i++) {
        const double x = r->left + cell * ((double)i + 0.5);
        const int turn = widest > cell && widest > 40;
        const SvgText style = {turn ? "end" : "middle", SVG_INK, SVG_SMALL, bar[i].highlight, turn ? -40 : 0};
        if (turn || i % every == 0) svg_text(b, turn ? x + 4 : x, r->bottom + (turn ? 12 : 16), style, bar[i].label);
    }
}

void svg_bars(TextBuf *b, const SvgPlot *p, const SvgBar *bar, size_t n, size_t cut_after, double cut_value,
              const char *highlight) {
    double w = svg_width(p), h = svg_height(p, 400), cell, widest = 0;
    for (size_t i = 0; i < n; i++) widest = fmax(widest, svg_text_width(bar[i].label, SVG_SMALL) + 4);
    SvgArea r = {svg_left(p), svg_top(p) + (highlight ? 14 : 0), w - 16, h - svg_below(p) - 24};
    SvgAxis y = bar_axis(bar, n, cut_value);
    cell = (r.right - r.left) / (double)(n ? n : 1);
    if (widest > cell && widest > 40) r.bottom -= 0.65 * widest;
    svg_begin(b, p, w, h);
    svg_axis_labels(b, p, &r, h);
    svg_y_ticks(b, &y, &r);
    put_bar_legend(b, &r, highlight);
    for (size_t i = 0; i < n; i++)
        if (svg_usable(&y, bar[i].value)) put_bar(b, &bar[i], &y, &r, r.left + cell * ((double)i + 0.12), 0.76 * cell);
    put_bar_names(b, &r, bar, n, widest);
    double zero = svg_axis_at(&y, 0, r.bottom, r.top),
           cut = svg_usable(&y, cut_value) ? svg_axis_at(&y, cut_value, r.bottom, r.top) : 0;
    svg_stroke(b, r.left, zero, r.right, zero, SVG_INK, 1, 0);
    if (cut_after && cut_after < n)
        svg_stroke(b, r.left + cell * (double)cut_after, r.top, r.left + cell * (double)cut_after, r.bottom, SVG_DARK,
                   1.5, 1);
    if (svg_usable(&y, cut_value)) svg_stroke(b, r.left, cut, r.right, cut, SVG_DARK, 1.5, 1);
    svg_end(b);
}

/* ---- lines ---- */

/* The colour and marker of series i. */
static size_t style_of(const SvgSeries *s, size_t i) { return s[i].style > 0 ? (size_t)s[i].style - 1 : i; }

static void put_polyline(TextBuf *b, const SvgSeries *s, const SvgAxis *x, const SvgAxis *y, const SvgArea *r,
                         const char *colour) {
    int drawing = 0;
    for (size_t i = 0; i < s->n; i++) {
        int ok = svg_usable(x, s->x[i]) && svg_usable(y, s->y[i]);
        if (ok)
            textbuf_printf(b, "%s%.6g %.6g",
                           drawing == 0   ? "<path d=\"M"
                           : drawing == 1 ? "M"
                                          : "L",
                           svg_axis_at(x, s->x[i], r->left, r->right), svg_axis_at(y, s->y[i], r->bottom, r->top));
        if (ok) drawing = 2;
        else if (drawing) drawing = 1;
    }
    if (!drawing) return;
    textbuf_printf(b, "\" fill=\"none\" stroke=\"%s\" stroke-width=\"%s\" stroke-linejoin=\"round\"%s/>\n", colour,
                   s->pale ? "1" : "2", s->pale ? " stroke-opacity=\"0.45\"" : "");
}

static void put_series(TextBuf *b, const SvgSeries *s, size_t style, const SvgAxis *x, const SvgAxis *y,
                       const SvgArea *r) {
    const char *colour = svg_colour(style);
    if (!s->dots) put_polyline(b, s, x, y, r, colour);
    for (size_t i = 0; i < s->n; i++) {
        if (!svg_usable(x, s->x[i]) || !svg_usable(y, s->y[i])) continue;
        double px = svg_axis_at(x, s->x[i], r->left, r->right), py = svg_axis_at(y, s->y[i], r->bottom, r->top);
        if (s->err && isfinite(s->err[i]) && s->err[i] > 0) {
            double low = s->y[i] - s->err[i];
            svg_error_bar(b, px, svg_axis_at(y, s->y[i] + s->err[i], r->bottom, r->top),
                          svg_usable(y, low) ? svg_axis_at(y, low, r->bottom, r->top) : r->bottom, colour);
        }
        if (s->dots || (!s->pale && s->n <= MAX_MARKERS)) svg_marker(b, px, py, style, colour);
    }
}

static double legend_width(const SvgSeries *s, size_t n) {
    double widest = 0;
    for (size_t i = 0; i < n; i++)
        if (s[i].name) widest = fmax(widest, svg_text_width(s[i].name, SVG_SMALL));
    return widest > 0 ? widest + 46 : 0;
}

static void put_legend(TextBuf *b, const SvgSeries *s, size_t n, const SvgArea *r) {
    double y = r->top + 8;
    for (size_t i = 0; i < n; i++) {
        if (!s[i].name) continue;
        const char *colour = svg_colour(style_of(s, i));
        double x = r->right + 12;
        if (!s[i].dots)
            textbuf_printf(b, "<path d=\"M%.6g %.6gh22\" stroke=\"%s\" stroke-width=\"%s\"%s/>\n", x, y, colour,
                           s[i].pale ? "1" : "2", s[i].pale ? " stroke-opacity=\"0.45\"" : "");
        if (s[i].dots || (!s[i].pale && s[i].n <= MAX_MARKERS)) svg_marker(b, x + 11, y, style_of(s, i), colour);
        svg_text(b, x + 28, y + 4, (SvgText){"start", SVG_INK, SVG_SMALL, 0, 0}, s[i].name);
        y += 18;
    }
}

void svg_lines(TextBuf *b, const SvgPlot *p, const SvgSeries *s, size_t n, double ref, const char *ref_name) {
    SvgAxis x = svg_axis(p->log_x), y = svg_axis(p->log_y);
    svg_axis_take(&y, ref);
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < s[k].n; i++) {
            double err = s[k].err && isfinite(s[k].err[i]) ? s[k].err[i] : 0;
            if (!svg_usable(&x, s[k].x[i]) || !svg_usable(&y, s[k].y[i])) continue;
            svg_axis_take(&x, s[k].x[i]);
            svg_axis_take(&y, s[k].y[i] + err);
            svg_axis_take(&y, s[k].y[i] - err);
            svg_axis_take(&y, s[k].y[i]);
        }
    svg_axis_finish(&x, 8);
    svg_axis_finish(&y, 6);
    double w = svg_width(p), h = svg_height(p, 400), legend = legend_width(s, n);
    SvgArea r = {svg_left(p), svg_top(p), w - 20 - legend, h - svg_below(p) - 24};
    svg_begin(b, p, w, h);
    svg_axis_labels(b, p, &r, h);
    svg_y_ticks(b, &y, &r);
    svg_x_ticks(b, &x, &r);
    for (size_t k = 0; k < n; k++) put_series(b, &s[k], style_of(s, k), &x, &y, &r);
    if (svg_usable(&y, ref)) {
        double at = svg_axis_at(&y, ref, r.bottom, r.top);
        svg_stroke(b, r.left, at, r.right, at, SVG_DARK, 1.5, 1);
        if (ref_name) svg_text(b, r.left + 6, at - 5, (SvgText){"start", SVG_DARK, SVG_SMALL, 0, 0}, ref_name);
    }
    put_legend(b, s, n, &r);
    svg_end(b);
}

/* ---- bump chart ---- */

void svg_bump(TextBuf *b, const SvgPlot *p, const char *const *name, size_t n, const double *x, size_t n_x,
              const int *rank, const int *highlight) {
    SvgAxis ax = svg_axis(0);
    double w = svg_width(p), h = svg_height(p, svg_top(p) + 18 * (double)n + svg_below(p) + 40), widest = 0;
    for (size_t t = 0; t < n_x; t++) svg_axis_take(&ax, x[t]);
    svg_axis_finish(&ax, 8);
    for (size_t i = 0; i < n; i++) widest = fmax(widest, svg_text_width(name[i], SVG_SMALL));
    SvgArea r = {svg_left(p), svg_top(p), w - 24 - widest, h - svg_below(p) - 24};
    double row = (r.bottom - r.top) / (double)(n ? n : 1);
    svg_begin(b, p, w, h);
    svg_axis_labels(b, p, &r, h);
    svg_x_ticks(b, &ax, &r);
    for (size_t i = 0; i < n; i++) {
        char s[24];
        snprintf(s, sizeof s, "%zu", i + 1);
        svg_text(b, r.left - 8, r.top + row * ((double)i + 0.5) + 4, (SvgText){"end", SVG_INK, SVG_SMALL, 0, 0}, s);
    }
    size_t colour = 0;
    for (int pass = 0; pass < 2; pass++) /* the highlighted ones on top */
        for (size_t i = 0; i < n; i++) {
            int strong = highlight && highlight[i], drawing = 0;
            if (strong != pass) continue;
            const char *stroke = strong ? svg_colour(colour) : SVG_GREY;
            double px = 0, py = 0;
            for (size_t t = 0; t < n_x; t++) {
                int k = rank[i * n_x + t];
                if (k < 1 || (size_t)k > n || !svg_usable(&ax, x[t])) continue;
                px = svg_axis_at(&ax, x[t], r.left, r.right);
                py = r.top + row * (k - 0.5);
                textbuf_printf(b, "%s%.6g %.6g", drawing++ ? "L" : "<path d=\"M", px, py);
            }
            if (!drawing) continue;
            textbuf_printf(b, "\" fill=\"none\" stroke=\"%s\" stroke-width=\"%s\" stroke-linejoin=\"round\"/>\n",
                           stroke, strong ? "2.5" : "1.2");
            if (strong) svg_marker(b, px, py, colour++, stroke);
            svg_text(b, px + 8, py + 4, (SvgText){"start", strong ? SVG_DARK : SVG_INK, SVG_SMALL, strong, 0}, name[i]);
        }
    svg_end(b);
}

/* ---- heat map ---- */

/* t in [0, 1] from light to dark, even in lightness; *dark: white text reads better. Stops: a sequential blue
 * ramp. */
static void heat_colour(char *dst, size_t cap, double t, int *dark) {
    static const double stop[5][3] = {{247, 251, 255}, {198, 219, 239}, {107, 174, 214}, {33, 113, 181}, {8, 48, 107}};
    double at = t * 4;
    int i = at >= 4 ? 3 : (int)at, c[3];
    for (int k = 0; k < 3; k++) c[k] = (int)(stop[i][k] + (at - i) * (stop[i + 1][k] - stop[i][k]) + 0.5);
    snprintf(dst, cap, "#%02x%02x%02x", (unsigned)c[0], (unsigned)c[1], (unsigned)c[2]);
    *dark = t > 0.55;
}

static void put_heat_cell(TextBuf *b, double v, double t, double x, double y, double w, double h) {
    char colour[8], s[32];
    int dark;
    if (!(fabs(v) <= 1e300)) {
        textbuf_printf(b,
                       "<rect x=\"%.6g\" y=\"%.6g\" width=\"%.6g\" height=\"%.6g\" fill=\"#ffffff\" stroke=\"%s\"/>\n",
                       x, y, w, h, SVG_GRID);
        return;
    }
    heat_colour(colour, sizeof colour, t, &dark);
    textbuf_printf(b, "<rect x=\"%.6g\" y=\"%.6g\" width=\"%.6g\" height=\"%.6g\" fill=\"%s\" stroke=\"#ffffff\"/>\n",
                   x, y, w, h, colour);
    snprintf(s, sizeof s, "%.3g", v);
    if (svg_text_width(s, SVG_SMALL) <= w - 2 && h >= 13)
        svg_text(b, x + w / 2, y + h / 2 + 4, (SvgText){"middle", dark ? "#ffffff" : SVG_DARK, SVG_SMALL, 0, 0}, s);
}

/* The scale: five boxes from lowest to highest value, beside the map. */
static void put_heat_scale(TextBuf *b, const SvgAxis *range, const SvgArea *r) {
    for (int i = 0; i < 5; i++) {
        char s[32];
        double v = range->lo + (range->hi - range->lo) * i / 4, y = r->top + 20 * i;
        char colour[8];
        int dark;
        heat_colour(colour, sizeof colour, i / 4.0, &dark);
        textbuf_printf(b, "<rect x=\"%.6g\" y=\"%.6g\" width=\"16\" height=\"18\" fill=\"%s\" stroke=\"%s\"/>\n",
                       r->right + 14, y, colour, SVG_GRID);
        snprintf(s, sizeof s, "%.3g", v);
        svg_text(b, r->right + 36, y + 13, (SvgText){"start", SVG_INK, SVG_SMALL, 0, 0}, s);
    }
}

void svg_heat(TextBuf *b, const SvgPlot *p, const char *const *row, size_t rows, const char *const *col, size_t cols,
              const double *v) {
    double w = svg_width(p), widest = 0;
    SvgAxis range = svg_axis(0);
    for (size_t i = 0; i < rows * cols; i++) svg_axis_take(&range, v[i]);
    if (!(range.lo <= range.hi)) range.lo = 0, range.hi = 1;
    for (size_t i = 0; i < rows; i++) widest = fmax(widest, svg_text_width(row[i], SVG_SMALL));
    double left = widest + (p->y_label ? 40 : 16), right = w - 90, names = svg_x_names_height(col, cols, right - left);
    double h = svg_height(p, fmax(svg_top(p) + 20 * (double)rows, 150) + names + svg_below(p) + 6);
    SvgArea r = {left, svg_top(p), right, h - names - svg_below(p) - 6};
    if (p->height <= 0) r.bottom = r.top + 20 * (double)rows;
    double cw = (r.right - r.left) / (double)(cols ? cols : 1), ch = (r.bottom - r.top) / (double)(rows ? rows : 1);
    svg_begin(b, p, w, h);
    svg_axis_labels(b, p, &r, h);
    for (size_t i = 0; i < rows; i++) {
        svg_text(b, r.left - 6, r.top + ch * ((double)i + 0.5) + 4, (SvgText){"end", SVG_INK, SVG_SMALL, 0, 0}, row[i]);
        for (size_t k = 0; k < cols; k++) {
            double x = v[i * cols + k], t = range.hi > range.lo ? (x - range.lo) / (range.hi - range.lo) : 0.5;
            put_heat_cell(b, x, t, r.left + cw * (double)k, r.top + ch * (double)i, cw, ch);
        }
    }
    svg_x_names(b, &r, col, cols);
    put_heat_scale(b, &range, &r);
    svg_end(b);
}

int svg_save(const TextBuf *b, const char *path, Err *e) {
    static const char head[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    FileWriter w;
    if (b->failed || !b->text) return err_set(e, ERR_MEMORY, "%s: the picture is not complete (out of memory)", path);
    TRY(file_create(&w, path, e));
    int rc = file_write(&w, head, sizeof head - 1, e);
    if (!rc) rc = file_write(&w, b->text, b->len, e);
    if (!rc) return file_commit(&w, e);
    file_abort(&w);
    return rc;
}
