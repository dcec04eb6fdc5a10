/* cli_parts.h - what the files of the command line share. */
#ifndef HYB_CLI_PARTS_H
#define HYB_CLI_PARTS_H
#include "base/text_buf.h"
#include "tools/cli.h"

/* Shared flag number i and its letter (0: none); a row with key NULL is not for this command; NULL after the last. */
const Option *cli_common_row(const Command *command, int i, char *letter);
void cli_progress(Cli *c); /* sets c->pace and c->progress */

/* 1 if --help leaves the option of this key out. */
int cli_hidden(const Command *command, const char *key);

#endif
