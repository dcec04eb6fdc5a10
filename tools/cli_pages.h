/* cli_pages.h - the man page and bash's completion, as text. */
#ifndef HYB_CLI_PAGES_H
#define HYB_CLI_PAGES_H
#include <stdio.h>
#include "tools/cli.h"

/* overview: prints what --help alone prints. */
int cli_man(const Command *const *commands, int n, void (*overview)(const Command *none, FILE *to), FILE *to, Err *e);
void cli_completion(const Command *const *commands, int n, FILE *to);

#endif
