/* cli_help.c - help texts and the resolved configuration, from the same tables as the parser. */
#include "tools/cli.h"
#include "base/file.h"
#include "base/mem.h"
#include "tools/cli_parts.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cli_hidden(const Command *command, const char *key) {
    const char *dot = strchr(key, '.');
    if (!command->hidden || !dot) return 0;
    char section[64];
    if (snprintf(section, sizeof section, "%.*s. ", (int)(dot - key), key) >= (int)sizeof section) return 0;
    return strstr(command->hidden, section) != NULL;
}

static void row_print(FILE *to, const Option *row, char letter, const void *options) {
    char flag[96], value[160], left[128];
    snprintf(flag, sizeof flag, "%s", row->key);
    for (char *p = flag; *p; p++)
        if (*p == '_') *p = '-';
    options_get(row, options, value, sizeof value);
    static const char *const words[] = {" N", " N", " N", " X", "", " TEXT", " WORD", " PATH", " PATH"};
    if (letter) snprintf(left, sizeof left, "  -%c, --%s%s", letter, flag, words[row->kind]);
    else snprintf(left, sizeof left, "      --%s%s", flag, words[row->kind]);
    fprintf(to, "%-40s %s", left, row->help ? row->help : "");
    if (row->kind == OPT_CHOICE) fprintf(to, " (%s)", row->choices);
    if (row->kind == OPT_BOOL && !strcmp(value, "false")) fputc('\n', to);
    else if (*value) fprintf(to, " [%s]\n", value);
    else fputc('\n', to);
}

static void table_print(FILE *to, const Command *command, const CliOptions *o) {
    void *options = NULL;
    const OptionTable *t = o->table();
    if (mem_alloc(&options, o->size, "options", NULL)) return;
    if (o->defaults) o->defaults(options);
    int hidden = 0;
    for (int i = 0; i < t->n; i++) {
        if (cli_hidden(command, t->row[i].key)) hidden++;
        else row_print(to, &t->row[i], 0, options);
    }
    if (hidden) fprintf(to, "      ... and %d more that other stages use: hybridize help run\n", hidden);
    mem_free(options);
}

void cli_exit_codes(FILE *to) {
    fputs("\nexit codes: 0 ok, 1 a check did not pass, 2 usage or configuration, 3 bad input file, 4 I/O error, 5 out "
          "of memory,\n"
          "6 NaN, Inf or divergence, 7 no such device, 130/143 stopped by SIGINT/SIGTERM after writing a checkpoint\n",
          to);
}

void cli_help(const Command *command, FILE *to) {
    CliCommon defaults = {.seed = 42, .device = "cpu", .rank_timeout = 600};
    char letter;
    const Option *row;
    fprintf(to, "usage: hybridize %s %s\n\n%s\n", command->name, command->usage, command->summary);
    if (command->details) fprintf(to, "\n%s\n", command->details);
    fputs("\noptions, with their defaults:\n", to);
    for (int k = 0; k < 2 && command->options[k]; k++) table_print(to, command, command->options[k]);
    for (int i = 0; (row = cli_common_row(command, i, &letter)); i++)
        if (row->key) row_print(to, row, letter, &defaults);
    if (command->options[0] && command->options[0]->official)
        fprintf(to, "%-40s %s\n", "      --official", "all choices of the official code; other flags still count");
    if (command->common & CLI_CONFIG) {
        fprintf(to, "%-40s %s\n", "      --config FILE",
                "options from a JSON file, keys as above (with _ for -); paths in it are relative to it");
        fprintf(to, "%-40s %s\n", "      --set KEY=VALUE", "one option by its key");
    }
    fprintf(to, "%-40s %s\n", "  -h, --help", "this text");
    for (const CliAlias *a = command->alias; a && a->from; a++)
        fprintf(to, "      --%s is --%s here\n", a->from, a->to);
    if (command->section)
        fprintf(to, "      without its first part, a --%s.NAME can be written --NAME\n", command->section);
    cli_exit_codes(to);
}

int cli_print_config(const Cli *c, FILE *to, Err *e) {
    JsonOut o;
    char letter;
    const Option *row;
    json_out_begin(&o, 1);
    json_out_object(&o, NULL);
    json_out_str(&o, "command", c->command->name);
    for (int k = 0; k < 2 && c->command->options[k]; k++)
        options_write(c->command->options[k]->table(), c->options[k], &o);
    for (int i = 0; (row = cli_common_row(c->command, i, &letter)); i++) {
        if (!row->key || row->kind == OPT_BOOL) continue;
        const OptionTable one = {row, 1};
        options_write(&one, &c->common, &o);
    }
    json_out_close(&o);
    const int rc = json_out_end(&o, e);
    if (!rc) fprintf(to, "%s\n", o.text);
    json_out_free(&o);
    return rc;
}

/* ---- small services ---- */

/* The cores of a machine are shared by its ranks, unless their launcher has done that already. */
static int threads_own(const Cli *c) {
    if (c->common.threads || !c->ranks || c->ranks->here < 2) return c->common.threads;
    const int mine = cpu_threads(0), all = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return mine < all ? mine : all > c->ranks->here ? all / c->ranks->here : 1;
}

int cli_backend(const Cli *c, Backend **be, Err *e) {
    TRY(backend_open(be, c->common.device, threads_own(c), e));
    (*be)->ranks = c->ranks;
    return OK;
}

int cli_fail(const Err *e) {
    fflush(stdout);
    fprintf(stderr, "hybridize: error: %s\n", e->msg);
    if (e->hint[0]) fprintf(stderr, "hint: %s\n", e->hint);
    return e->code ? e->code : ERR_CHECK;
}

static int read_stdin(char **text, size_t *len, Err *e) {
    TextBuf b = {0};
    char piece[4096];
    size_t n;
    while ((n = fread(piece, 1, sizeof piece, stdin)) > 0) textbuf_put(&b, piece, n);
    int rc = ferror(stdin) ? err_set(e, ERR_IO, "stdin: %s", strerror(errno)) : textbuf_end(&b, e);
    if (!rc) rc = mem_strndup(text, b.text, b.len, e);
    *len = b.len;
    textbuf_free(&b);
    return rc;
}

int cli_read(const char *path, char **text, size_t *len, Err *e) {
    File f;
    *text = NULL;
    *len = 0;
    if (!path || !*path || !strcmp(path, "-")) return read_stdin(text, len, e);
    TRY(file_open(&f, path, e));
    const int rc = mem_strndup(text, (const char *)f.data, f.size, e);
    *len = f.size;
    file_close(&f);
    return rc;
}

int cli_flush(Err *e) {
    if (!fflush(stdout) && !ferror(stdout)) return OK;
    return err_set(e, ERR_IO, "stdout: %s", strerror(errno));
}
