/* report.h - pictures and a page from a finished run: everything is read back from the run's own files, so that a
 * report can be drawn again, and nothing in it can differ from them.
 *
 * Writes into DIR: students.csv, the pictures of report_pictures.h with their numbers, report.html, self-contained, and
 * the model card (card.h). */
#ifndef HYB_REPORT_H
#define HYB_REPORT_H
#include "base/text_buf.h"
#include "run/pipeline.h"

/* dir: a run with results.json. ERR_INPUT or ERR_IO as the run's files are wrong or missing. */
int report_write(const char *dir, Err *e);
/* The table of students as text, the way commands print it: one line each. */
void report_table(TextBuf *b, const PipelineResult *r);

#endif
