/* cli_pages.c - what `make install` puts beside the program, from the same tables as --help: the man page, which is the
 * help texts, and bash's completion. */
#include "tools/cli_pages.h"
#include "tools/cli.h"
#include "tools/cli_parts.h"
#include <stdlib.h>
#include <string.h>

/* ---- the man page ---- */

/* Text as it is: nothing in it is a request or an escape, and a minus is a minus. */
static void man_text(const char *s, FILE *to) {
    for (int begin = 1; *s; begin = *s++ == '\n') {
        if (begin && (*s == '.' || *s == '\'')) fputs("\\&", to);
        if (*s == '\\') fputs("\\e", to);
        else if (*s == '-') fputs("\\-", to);
        else fputc(*s, to);
    }
}

static int man_help(const Command *command, void (*print)(const Command *command, FILE *to), FILE *to, Err *e) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f) return err_set(e, ERR_MEMORY, "out of memory: a page of the manual");
    print(command, f);
    fclose(f);
    fputs(".EX\n", to);
    man_text(text, to);
    fputs(".EE\n", to);
    free(text);
    return OK;
}

int cli_man(const Command *const *commands, int n, void (*overview)(const Command *none, FILE *to), FILE *to, Err *e) {
    fprintf(to,
            ".TH HYBRIDIZE 1 \"\" \"hybridize %s\"\n.SH NAME\nhybridize \\- turns a softmax Transformer into a hybrid "
            "of softmax and linear attention\n.SH SYNOPSIS\n.B hybridize\nCOMMAND [options]\n.SH DESCRIPTION\n",
            HYB_VERSION);
    TRY(man_help(NULL, overview, to, e));
    fputs(".SH ENVIRONMENT\n.TP\n.B HYBRIDIZE_CPU\nthe code path of the cpu backends, or the best below it: amx, "
          "avx512_bf16, avx512, avx2, plain\n.TP\n.B NO_COLOR\nif set, no colour\n.SH COMMANDS\n",
          to);
    for (int i = 0; i < n; i++) {
        fprintf(to, ".SS %s\n", commands[i]->name);
        TRY(man_help(commands[i], cli_help, to, e));
    }
    return OK;
}

/* ---- bash ---- */

static void flag_print(const char *key, FILE *to) {
    fputs(" --", to);
    for (; *key; key++) fputc(*key == '_' ? '-' : *key, to);
}

/* Every row of the command that --help lists. */
static void flags_walk(const Command *command, void (*visit)(const Command *, const Option *, FILE *), FILE *to) {
    char letter;
    const Option *row;
    for (int k = 0; k < 2 && command->options[k]; k++) {
        const OptionTable *t = command->options[k]->table();
        for (int i = 0; i < t->n; i++)
            if (!cli_hidden(command, t->row[i].key)) visit(command, &t->row[i], to);
    }
    for (int i = 0; (row = cli_common_row(command, i, &letter)); i++)
        if (row->key) visit(command, row, to);
}

static void flag_visit(const Command *command, const Option *row, FILE *to) {
    (void)command;
    flag_print(row->key, to);
}

static void choices_visit(const Command *command, const Option *row, FILE *to) {
    if (row->kind != OPT_CHOICE) return;
    fprintf(to, "        \"%s", command->name);
    flag_print(row->key, to);
    fputs("\") words='", to);
    for (const char *s = row->choices; *s; s++) fputc(*s == '|' ? ' ' : *s, to);
    fputs("' ;;\n", to);
}

void cli_completion(const Command *const *commands, int n, FILE *to) {
    fputs("# bash completion of hybridize; hybridize help completion prints it\n"
          "_hybridize() {\n    local cur=${COMP_WORDS[COMP_CWORD]} words=\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words='help --help --version",
          to);
    for (int i = 0; i < n; i++) fprintf(to, " %s", commands[i]->name);
    fputs("'\n    else case \"${COMP_WORDS[1]} ${COMP_WORDS[COMP_CWORD-1]}\" in\n", to);
    for (int i = 0; i < n; i++) flags_walk(commands[i], choices_visit, to);
    fputs("        *) case \"$cur ${COMP_WORDS[1]}\" in\n", to);
    for (int i = 0; i < n; i++) {
        fprintf(to, "            -*\\ %s) words='", commands[i]->name);
        flags_walk(commands[i], flag_visit, to);
        for (const CliAlias *a = commands[i]->alias; a && a->from; a++) flag_print(a->from, to);
        if (commands[i]->options[0] && commands[i]->options[0]->official) fputs(" --official", to);
        if (commands[i]->common & CLI_CONFIG) fputs(" --config --set", to);
        fputs(" --help' ;;\n", to);
    }
    fputs("        esac ;;\n    esac fi\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
          "complete -o default -F _hybridize hybridize\n",
          to);
}
