/* merge.h - what was scored elsewhere, taken into a run directory: for machines that share no folder. */
#ifndef HYB_RUN_MERGE_H
#define HYB_RUN_MERGE_H
#include "base/err.h"

/* Copies the records of the run FROM that DIR lacks: scores of layers and of sets, rows, the text's count; *taken of
 * them. Both must be runs of the same options, input files and backend: ERR_USAGE names what differs. Records that both
 * have are left as they are. ERR_USAGE, too, while a process is at work in DIR. */
int run_merge(const char *dir, const char *from, int *taken, Err *e);

#endif
