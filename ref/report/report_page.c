/* report_page.c - see report_page.h. */
#include "report/report_page.h"
#include "base/file.h"
#include "report/svg_frame.h"
#include <stdio.h>

static const char STYLE[] =
    "body { font: 15px/1.45 sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; color: #222; "
    "background: #fff }\n"
    "table { border-collapse: collapse; font-size: 13px } th, td { padding: .25em .6em; border-bottom: 1px "
    "solid #ccc; text-align: right }\n"
    "th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left } tr.main { "
    "background: #eef4fb; font-weight: bold }\n"
    "figure { margin: 1.5em 0 } figcaption { font-size: 12px; color: #666 } svg { max-width: 100%; height: "
    "auto }\n";

void page_begin(ReportPage *p, const char *dir, const char *title, const char *heading) {
    *p = (ReportPage){.dir = dir};
    textbuf_puts(&p->html, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    svg_escaped(&p->html, title);
    textbuf_printf(&p->html, "</title>\n<style>\n%s</style></head><body>\n<h1>", STYLE);
    svg_escaped(&p->html, heading);
    textbuf_puts(&p->html, "</h1>\n");
}

void page_text(ReportPage *p, const char *text) {
    textbuf_puts(&p->html, "<p>");
    svg_escaped(&p->html, text);
    textbuf_puts(&p->html, "</p>\n");
}

int page_file(const ReportPage *p, const char *name, TextBuf *b, Err *e) {
    char path[1200];
    TRY(textbuf_end(b, e));
    TRY(file_join(path, sizeof path, p->dir, name, e));
    return file_write_all(path, b->text, b->len, e);
}

int page_picture(ReportPage *p, const char *name, TextBuf *svg, TextBuf *csv, const char *csv_name, Err *e) {
    char file[64], path[1200], numbers[64];
    TRY(textbuf_end(svg, e));
    snprintf(file, sizeof file, "%.50s.svg", name);
    snprintf(numbers, sizeof numbers, "%.50s.csv", csv_name ? csv_name : name);
    TRY(file_join(path, sizeof path, p->dir, file, e));
    TRY(svg_save(svg, path, e));
    textbuf_puts(&p->html, "<figure>\n");
    textbuf_put(&p->html, svg->text, svg->len);
    textbuf_printf(&p->html, "\n<figcaption>numbers: <a href=\"%s%s\">%s%s</a></figcaption></figure>\n", p->link,
                   numbers, p->link, numbers);
    return csv ? page_file(p, numbers, csv, e) : OK;
}

int page_end(ReportPage *p, Err *e) {
    textbuf_puts(&p->html, "</body></html>\n");
    return page_file(p, "report.html", &p->html, e);
}
