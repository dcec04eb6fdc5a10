/* report_page.h - a page of tables and pictures: every picture is a file of its own, stands in the page, and has its
 * numbers beside it. */
#ifndef HYB_REPORT_PAGE_H
#define HYB_REPORT_PAGE_H
#include "report/svg.h"
#include "base/text_buf.h"

typedef struct {
    const char *dir; /* where all files of the page lie */
    /* before names of CSV files in the page: "" or "seed-1/" when the page itself stands above dir */
    char link[40];
    TextBuf html;
} ReportPage; /* begun by page_begin; textbuf_free(&page.html) in the end */

/* Head and heading of the page. */
void page_begin(ReportPage *p, const char *dir, const char *title, const char *heading);
/* A sentence or more as a paragraph, escaped. */
void page_text(ReportPage *p, const char *text);
/* DIR/NAME.svg and, unless csv is NULL, DIR/NAME.csv, from which it was drawn; csv_name names it when it is there
 * already, else NULL. */
int page_picture(ReportPage *p, const char *name, TextBuf *svg, TextBuf *csv, const char *csv_name, Err *e);
/* DIR/NAME with the text of b. */
int page_file(const ReportPage *p, const char *name, TextBuf *b, Err *e);
/* Ends the page and writes DIR/report.html. */
int page_end(ReportPage *p, Err *e);

#endif
