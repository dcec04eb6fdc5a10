/* test_svg.c - the pictures: well-formed XML, no NaN, the same bytes again, everything inside the frame, and what must
 * be there. */
#include "base/mem.h"
#include "base/rng.h"
#include "report/svg.h"
#include "report/svg_frame.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include "tests/xml.h"
#include <float.h>
#include <math.h>
#include <string.h>

static void ok(int rc, const Err *e) {
    if (rc) ck_abort_msg("code %d: %s (%s)", rc, e->msg, e->hint);
}

START_TEST(test_checker) {
    // The checker itself must refuse what it is there for.
    ck_assert_ptr_null(check_xml("<a b=\"1\"><c/>x &lt; y</a>\n"));
    static const char *const bad[] = {"<a>",      "</a>",        "<a></b>",        "<a b=1/>",        "<a b=\"1/>",
                                      "<a>&</a>", "<a>\x01</a>", "<a b=\"nan\"/>", "<a b=\"-inf\"/>", "<a b=\"<\"/>",
                                      "<a",       "<>",          "<a><b></a></b>", "<ab></a>",        "<a></ab>",
                                      "&nbsp;"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) ck_assert_msg(check_xml(bad[i]) != NULL, "%s", bad[i]);
}
END_TEST

/* Well-formed; every x, y, width, height, path start inside the frame. */
static void check_picture(const TextBuf *b) {
    const char *bad = check_xml(b->text);
    double w, h;
    ck_assert_msg(!bad, "%s in %s", bad, b->text);
    ck_assert_int_eq(sscanf(b->text,
                            "<svg xmlns=\"http://www.w3.org/2000/svg\" version=\"1.1\" width=\"%lf\" height=\"%lf\"",
                            &w, &h),
                     2);
    ck_assert(w > 0 && h > 0 && w < 5000 && h < 5000);
    ck_assert_ptr_nonnull(strstr(b->text, "<rect width=\"")); // the white ground
    for (const char *s = b->text; (s = strstr(s, "font-size=\"")); s++) ck_assert_int_ge(strtol(s + 11, NULL, 10), 11);
    static const char *const at[] = {" x=\"",  " x1=\"", " x2=\"",    " y=\"",     " y1=\"",
                                     " y2=\"", " d=\"M", " width=\"", " height=\""};
    for (int k = 0; k < 9; k++)
        for (const char *s = b->text; (s = strstr(s, at[k])); s++) {
            double v = strtod(s + strlen(at[k]), NULL);
            int across = k < 3 || k == 6 || k == 7;
            ck_assert_msg(v >= -1e-9 && v <= (across ? w : h) + 1e-9, "%.30s is outside %g x %g", s, w, h);
        }
}

static size_t count(const TextBuf *b, const char *what) {
    size_t n = 0;
    for (const char *s = b->text; (s = strstr(s, what)); s++) n++;
    return n;
}

static const SvgPlot PLOT = {.title = "T <&> \"q\"", .desc = "what & why", .x_label = "layer", .y_label = "KL (nats)"};

/* ---- the pictures ---- */

static void draw_bars(TextBuf *b) {
    static char label[28][16];
    SvgBar bar[28];
    for (int i = 0; i < 28; i++) {
        snprintf(label[i], sizeof label[i], "%d", i);
        bar[i] = (SvgBar){label[i], i == 5 ? NAN : i == 6 ? INFINITY : sin(i) + 0.3, i % 3 ? NAN : 0.1, i % 7 == 3};
    }
    svg_bars(b, &PLOT, bar, 28, 9, 0.5, "kept & softmax");
}

static void draw_lines(TextBuf *b) {
    static double x[500], y[500], ema[500], err[500];
    for (int i = 0; i < 500; i++) {
        x[i] = 1 + i * 20000.0;
        y[i] = i % 50 == 7 ? NAN : i % 50 == 9 ? -1 : exp(-i / 60.0) * (1 + 0.2 * sin(i * 7));
        ema[i] = exp(-i / 60.0);
        err[i] = i % 2 ? NAN : ema[i] * (i % 4 ? 0.5 : 2); // some reach below zero
    }
    SvgSeries s[4] = {{"raw", x, y, NULL, 500, 1, 0, 2},
                      {"EMA <b>", x, ema, NULL, 500, 0, 0, 0},
                      {"few", x, ema, err, 20, 0, 0, 0},
                      {"dots", x, y, NULL, 30, 0, 1, 0}};
    SvgPlot p = PLOT;
    p.log_y = 1;
    svg_lines(b, &p, s, 4, 0.01, "teacher & co");
}

static const char *const names[] = {"L0", "L1", "L2 <", "L3", "L4", "L5"};

static void draw_bump(TextBuf *b) {
    static const double x[5] = {1e6, 2e6, NAN, 5e6, 8e6};
    static const int rank[30] = {1, 2, 3, 4, 5, 2, 1, 1, 1, 1, 3, 3, 2, 2, 2,
                                 0, 4, 4, 3, 3, 5, 5, 5, 5, 4, 6, 6, 6, 6, 99};
    static const int strong[6] = {1, 0, 0, 1, 0, 0};
    svg_bump(b, &PLOT, names, 6, x, 5, rank, strong);
}

static void draw_heat(TextBuf *b) {
    static const char *const cols[] = {"ga_s2", "uniform", "a very long selector name & more"};
    double v[18];
    for (int i = 0; i < 18; i++) v[i] = i == 4 ? NAN : i;
    svg_heat(b, &PLOT, names, 6, cols, 3, v);
}

static void (*const draw[])(TextBuf *) = {draw_bars, draw_lines, draw_bump, draw_heat};

START_TEST(test_pictures) {
    TextBuf a = {0}, b = {0};
    Err e = {0};
    draw[_i](&a);
    draw[_i](&b);
    ok(textbuf_end(&a, &e), &e);
    check_picture(&a);
    ck_assert_str_eq(a.text, b.text); // the same bytes again
    ck_assert_ptr_nonnull(strstr(a.text, "<title>T &lt;&amp;&gt; &quot;q&quot;</title>\n<desc>what &amp; why</desc>"));
    ck_assert_ptr_nonnull(strstr(a.text, ">layer</text>"));
    ck_assert_ptr_nonnull(strstr(a.text, ">KL (nats)</text>"));
    ok(svg_save(&a, tmpdir_path("a.svg"), &e), &e);
    File f;
    ok(file_open(&f, tmpdir_path("a.svg"), &e), &e);
    static const char head[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    ck_assert_uint_eq(f.size, sizeof head - 1 + a.len);
    ck_assert_mem_eq(f.data, head, sizeof head - 1);
    ck_assert_mem_eq(f.data + sizeof head - 1, a.text, a.len);
    file_close(&f);
    char command[800]; // a second opinion, where xmllint is installed
    snprintf(command, sizeof command, "command -v xmllint >/dev/null 2>&1 || exit 77; xmllint --noout --nonet '%s'",
             tmpdir_path("a.svg"));
    int rc = system(command);
    if (rc == 77 << 8) printf("SKIP xmllint is not installed\n");
    else ck_assert_int_eq(rc, 0);
    textbuf_free(&a);
    textbuf_free(&b);
}
END_TEST

START_TEST(test_what_is_drawn) {
    TextBuf b = {0};
    draw_bars(&b);
    ck_assert_uint_eq(count(&b, "<rect x="), 26 + 1);        // 28 bars without NaN and Inf, and the legend
    ck_assert_uint_eq(count(&b, "stroke-dasharray"), 2);     // both cuts
    ck_assert_uint_eq(count(&b, "fill=\"#d55e00\""), 4 + 1); // layers 3, 10, 17, 24 and the legend
    ck_assert_ptr_nonnull(strstr(b.text, ">kept &amp; softmax</text>"));
    textbuf_free(&b);
    draw_lines(&b);
    ck_assert_uint_eq(count(&b, "stroke-dasharray"), 1);
    ck_assert_ptr_nonnull(strstr(b.text, ">teacher &amp; co</text>"));
    ck_assert_ptr_nonnull(strstr(b.text, ">EMA &lt;b&gt;</text>"));
    ck_assert_ptr_nonnull(strstr(b.text, ">10M</text>"));
    ck_assert_uint_eq(count(&b, "stroke-opacity"), 2); // the pale line and its legend
    const char *pale = strstr(b.text, "<path d=\"M");
    size_t breaks = 0;
    for (const char *s = pale + 9; *s != '"'; s++) breaks += *s == 'M';
    ck_assert_uint_eq(breaks, 1 + 10 + 10); // a new start after each point left out
    textbuf_free(&b);
    draw_bump(&b);
    ck_assert_uint_eq(count(&b, "stroke-width=\"2.5\""), 2);
    ck_assert_uint_eq(count(&b, "stroke-width=\"1.2\""), 4);
    ck_assert_uint_eq(count(&b, "font-weight=\"bold\""), 2 + 1); // the strong names and the title
    textbuf_free(&b);
    draw_heat(&b);
    ck_assert_uint_eq(count(&b, "<rect x="), 18 + 5);
    ck_assert_ptr_nonnull(strstr(b.text, "rotate(-40")); // the long name is turned
    ck_assert_ptr_nonnull(strstr(b.text, ">17</text>"));
    textbuf_free(&b);
}
END_TEST

START_TEST(test_long_names) { // bars with names wider than they are: turned, none left out, all inside the frame
    SvgBar bar[20];
    char label[20][32];
    TextBuf b = {0};
    for (int i = 0; i < 20; i++) {
        snprintf(label[i], sizeof label[i], "a_long_selector_%d", i);
        bar[i] = (SvgBar){label[i], 1 + i, 0.5, i == 3};
    }
    svg_bars(&b, &PLOT, bar, 20, 0, NAN, "chosen");
    check_picture(&b);
    ck_assert_uint_eq(count(&b, "rotate(-40"), 20);
    for (int i = 0; i < 20; i++) ck_assert_ptr_nonnull(strstr(b.text, label[i]));
    textbuf_free(&b);
}
END_TEST

START_TEST(test_edges) {
    // Nothing to draw, one point, equal values, extreme values: a proper picture every time.
    static const double one[1] = {3}, tiny[2] = {1e-300, 2e-300}, huge[2] = {-1e300, 1e300}, negative[3] = {-5, -4, -3},
                        zero[2] = {0, 0}, next[2] = {1, 1 + 1e-15}, nans[2] = {NAN, NAN}, most[2] = {-DBL_MAX, DBL_MAX},
                        far[2] = {1e-200, 1e200}, up[3] = {1, 2, 3};
    static const struct {
        const double *v;
        size_t n;
    } data[] = {{one, 1},  {tiny, 2}, {huge, 2}, {negative, 3}, {zero, 2},
                {next, 2}, {nans, 2}, {far, 2},  {most, 2},     {one, 0}};
    TextBuf b = {0};
    for (size_t i = 0; i < sizeof data / sizeof *data; i++)
        for (int log = 0; log < 4; log++) {
            SvgPlot p = {.log_x = log & 1, .log_y = log >> 1};
            SvgSeries s = {"s", up, data[i].v, NULL, data[i].n, 0, 0, 0};
            SvgSeries turned = {"s", data[i].v, up, data[i].v, data[i].n, 0, 1, 0};
            svg_lines(&b, &p, &s, 1, NAN, NULL);
            check_picture(&b);
            textbuf_free(&b);
            svg_lines(&b, &p, &turned, 1, data[i].v[0], "ref");
            check_picture(&b);
            textbuf_free(&b);
            if (log) continue;
            SvgBar bar[3];
            for (size_t k = 0; k < data[i].n; k++) bar[k] = (SvgBar){"x", data[i].v[k], data[i].v[k], 1};
            svg_bars(&b, &p, bar, data[i].n, 1, NAN, NULL);
            check_picture(&b);
            textbuf_free(&b);
            svg_heat(&b, &p, names, data[i].n, names, 1, data[i].v);
            check_picture(&b);
            textbuf_free(&b);
            svg_bump(&b, &p, names, 1, data[i].v, data[i].n, (const int[]){1, 1, 1}, NULL);
            check_picture(&b);
            textbuf_free(&b);
        }
    svg_bars(&b, &PLOT, NULL, 0, 0, NAN, NULL);
    check_picture(&b);
    textbuf_free(&b);
    svg_heat(&b, &PLOT, NULL, 0, NULL, 0, NULL);
    check_picture(&b);
    textbuf_free(&b);
    svg_bump(&b, &PLOT, NULL, 0, NULL, 0, NULL, NULL);
    check_picture(&b);
    textbuf_free(&b);
}
END_TEST

START_TEST(test_ticks) {
    static const struct {
        double lo, hi;
        int log;
        double from, to;
        int ticks;
    } want[] = {{0, 0.93, 0, 0, 1, 6},   {0.07, 0.31, 0, 0.05, 0.35, 7}, {-3, 12, 0, -5, 15, 5},
                {0, 7e6, 0, 0, 8e6, 5},  {0.02, 7, 1, 0.01, 10, 4},      {3, 40, 1, 2, 50, 5},
                {1, 1000, 1, 1, 1000, 4}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        SvgAxis a = svg_axis(want[i].log);
        svg_axis_take(&a, want[i].lo);
        svg_axis_take(&a, want[i].hi);
        svg_axis_take(&a, NAN);
        if (want[i].log) svg_axis_take(&a, -1);
        svg_axis_finish(&a, 6);
        ck_assert_msg(fabs(a.lo - want[i].from) < 1e-9 * want[i].hi && fabs(a.hi - want[i].to) < 1e-9 * a.hi &&
                          a.ticks == want[i].ticks,
                      "case %zu: %g..%g, %d ticks", i, a.lo, a.hi, a.ticks);
        ck_assert_double_eq_tol(a.tick[0], a.lo, 1e-9 * want[i].hi);
        ck_assert_double_eq_tol(a.tick[a.ticks - 1], a.hi, 1e-9 * a.hi);
        ck_assert_double_eq_tol(svg_axis_at(&a, a.lo, 100, 200), 100, 1e-9);
        ck_assert_double_eq_tol(svg_axis_at(&a, a.hi, 100, 200), 200, 1e-9);
    }
}
END_TEST

START_TEST(test_escape) {
    TextBuf b = {0};
    svg_escaped(&b, "<a href=\"x\">&amp;\x01\x1f\xff\xc3\xa9\xef\xbf\xbf\t\n'");
    ck_assert_str_eq(
        b.text, "&lt;a href=&quot;x&quot;&gt;&amp;amp;\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\t\n'");
    textbuf_free(&b);
    for (size_t i = 0; i < SVG_STYLES; i++) // no two styles alike, by colour and by shape
        for (size_t k = 0; k < i; k++) ck_assert_str_ne(svg_colour(i), svg_colour(k));
    ck_assert_str_eq(svg_colour(SVG_STYLES), svg_colour(0));
    TextBuf one = {0}, two = {0};
    svg_marker(&one, 0, 0, 0, "c");
    svg_marker(&two, 0, 0, SVG_STYLES, "c");
    ck_assert_str_ne(one.text, two.text);
    textbuf_free(&one);
    textbuf_free(&two);
}
END_TEST

START_TEST(test_svg_memory) {
    for (int i = 0; i < 4; i++)
        for (int n = 0; n < 3; n++) {
            TextBuf b = {0};
            Err e = {0};
            mem_fail_after(n);
            draw[i](&b);
            ck_assert_int_eq(textbuf_end(&b, NULL), ERR_MEMORY);
            mem_fail_after(-1);
            ck_assert_int_eq(svg_save(&b, tmpdir_path("x.svg"), &e), ERR_MEMORY);
            ck_assert_int_eq(file_exists(tmpdir_path("x.svg")), 0);
            textbuf_free(&b);
            ck_assert_uint_eq(mem_now(), 0);
        }
}
END_TEST

SUITE("svg") {
    GROUP("all", .setup = tmpdir_begin, .teardown = tmpdir_end);
    CASE(test_checker);
    CASE(test_pictures, .times = 4);
    CASE(test_what_is_drawn);
    CASE(test_long_names);
    CASE(test_edges);
    CASE(test_ticks);
    CASE(test_escape);
    CASE(test_svg_memory);
}
