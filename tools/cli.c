/* cli.c - parsing: flags, --set and --config all end in cli_set. See cli.h; the help text is cli_help.c. */
#include "tools/cli.h"
#include "base/file.h"
#include "base/mem.h"
#include "tools/cli_parts.h"
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---- the shared flags ---- */

#define AT(field) offsetof(CliCommon, field)
static const struct {
    Option row;
    unsigned bit;
    char letter;
} common_rows[] = {
    {{"model", "model directory", OPT_PATH, AT(model), 0, sizeof((CliCommon *)0)->model, NULL, AFFECTS_LOOKS},
     CLI_MODEL,
     'm'},
    {{"output", "where the results go", OPT_PATH, AT(output), 0, sizeof((CliCommon *)0)->output, NULL, AFFECTS_LOOKS},
     CLI_OUTPUT,
     'o'},
    {{"seed", "seed of everything random", OPT_U64, AT(seed), 0, 0, NULL, AFFECTS_EVALUATION}, CLI_SEED, 's'},
    {{"device", "cpu, cpu-bf16, ref32, ref64, ref-bf16, or cuda[:i] where built", OPT_TEXT, AT(device), 0,
      sizeof((CliCommon *)0)->device, NULL, AFFECTS_STAGE1},
     CLI_BACKEND,
     0},
    {{"threads", "threads of the cpu backend; 0: all cores", OPT_INT, AT(threads), 0, 4096, NULL, AFFECTS_LOOKS},
     CLI_BACKEND,
     't'},
    {{"ranks", "processes that train together; 0: as many as mpirun has started", OPT_INT, AT(ranks), 0, RANKS_MOST,
      NULL, AFFECTS_LOOKS},
     CLI_RANKS,
     0},
    {{"rank_timeout", "seconds until a silent rank counts as hung and all end; 0: never", OPT_INT, AT(rank_timeout), 0,
      1 << 30, NULL, AFFECTS_LOOKS},
     CLI_RANKS,
     0},
    {{"json", "print results as JSON", OPT_BOOL, AT(json), 0, 0, NULL, AFFECTS_LOOKS}, CLI_JSON, 0},
    {{"dry_run", "print the resolved configuration, for run and align what each stage holds too, and stop", OPT_BOOL,
      AT(dry_run), 0, 0, NULL, AFFECTS_LOOKS},
     CLI_DRY_RUN,
     0},
    {{"resume", "go on with the run in the output directory", OPT_BOOL, AT(resume), 0, 0, NULL, AFFECTS_LOOKS},
     CLI_RESUME,
     0},
    {{"overwrite", "remove an earlier run in the output directory", OPT_BOOL, AT(overwrite), 0, 0, NULL, AFFECTS_LOOKS},
     CLI_RESUME,
     0},
    {{"allow_config_change", "resume although options differ", OPT_BOOL, AT(allow_config_change), 0, 0, NULL,
      AFFECTS_LOOKS},
     CLI_RESUME,
     0},
    {{"quiet", "no progress and no notes on stderr", OPT_BOOL, AT(quiet), 0, 0, NULL, AFFECTS_LOOKS}, 0, 'q'},
    {{"verbose", "more notes on stderr", OPT_BOOL, AT(verbose), 0, 0, NULL, AFFECTS_LOOKS}, 0, 'v'},
    {{"no_color", "no colour (also: environment NO_COLOR)", OPT_BOOL, AT(no_color), 0, 0, NULL, AFFECTS_LOOKS}, 0, 0},
};
enum { COMMON_ROWS = sizeof common_rows / sizeof *common_rows };

const Option *cli_common_row(const Command *command, int i, char *letter) {
    if (i >= COMMON_ROWS) return NULL;
    *letter = common_rows[i].letter;
    const unsigned bit = common_rows[i].bit;
    static const Option none = {0};
    return !bit || (command->common & bit) ? &common_rows[i].row : &none;
}

/* ---- names ---- */

/* '.', '-' and '_' are the same in option names. */
static int name_same(const char *a, const char *b) {
    for (; *a && *b; a++, b++) {
        const char x = *a == '.' || *a == '-' ? '_' : *a, y = *b == '.' || *b == '-' ? '_' : *b;
        if (x != y) return 0;
    }
    return *a == *b;
}

typedef struct {
    const Option *row;
    const OptionTable *table;
    void *options;
} Found;

static int find_exact(Cli *c, const char *name, Found *f) {
    for (int k = 0; k < 2 && c->command->options[k]; k++) {
        const OptionTable *t = c->command->options[k]->table();
        for (int i = 0; i < t->n; i++)
            if (name_same(t->row[i].key, name)) return *f = (Found){&t->row[i], t, c->options[k]}, 1;
    }
    char letter;
    const Option *row;
    for (int i = 0; (row = cli_common_row(c->command, i, &letter)); i++)
        if (row->key && name_same(row->key, name)) return *f = (Found){row, NULL, &c->common}, 1;
    return 0;
}

static int find(Cli *c, const char *name, Found *f) {
    char full[128];
    for (const CliAlias *a = c->command->alias; a && a->from; a++)
        if (name_same(a->from, name)) name = a->to;
    if (find_exact(c, name, f)) return 1;
    if (!c->command->section) return 0;
    const char *section = c->command->section, *star = strchr(section, '*');
    char stage[8] = "";
    Found which;
    if (star && find_exact(c, "stage", &which)) options_get(which.row, which.options, stage, sizeof stage);
    const int plain = star ? (int)(star - section) : (int)strlen(section);
    return snprintf(full, sizeof full, "%.*s%s.%s", plain, section, stage, name) < (int)sizeof full &&
           find_exact(c, full, f);
}

/* Unknown: the nearest name, or the full names that end in this one. */
static int unknown(Cli *c, const char *name, Err *e) {
    enum { MOST = 256 };
    const char *words[MOST];
    int n = 0, ends = 0;
    char letter, list[160] = "";
    const Option *row;
    for (int k = 0; k < 2 && c->command->options[k]; k++) {
        const OptionTable *t = c->command->options[k]->table();
        for (int i = 0; i < t->n && n < MOST; i++) words[n++] = t->row[i].key;
    }
    for (int i = 0; (row = cli_common_row(c->command, i, &letter)); i++)
        if (row->key && n < MOST) words[n++] = row->key;
    err_set(e, ERR_USAGE, "%s: unknown option \"%s\"", c->command->name, name);
    for (int i = 0; i < n; i++) {
        const char *dot = strrchr(words[i], '.');
        if (!dot || !name_same(dot + 1, name)) continue;
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s--%s", ends++ ? ", " : "", words[i]);
    }
    if (ends) return err_hint(e, "say which: %s", list);
    char plain[64];
    snprintf(plain, sizeof plain, "%s", name);
    for (char *p = plain; *p; p++)
        if (*p == '-') *p = '_';
    const char *last[MOST], *near = cli_nearest(plain, words, n);
    if (near) return err_hint(e, "did you mean --%s?", near);
    for (int i = 0; i < n; i++) last[i] = strrchr(words[i], '.') ? strrchr(words[i], '.') + 1 : words[i];
    near = cli_nearest(plain, last, n);
    for (int i = 0; near && i < n; i++)
        if (last[i] == near) return err_hint(e, "did you mean --%s?", words[i]);
    return err_hint(e, "hybridize %s --help lists them all", c->command->name);
}

int cli_set(Cli *c, const char *name, const char *value, Err *e) {
    Found f;
    if (!find(c, name, &f)) return unknown(c, name, e);
    if (f.table) return options_set(f.table, f.options, f.row->key, value, e);
    const OptionTable one = {f.row, 1};
    return options_set(&one, f.options, f.row->key, value, e);
}

/* ---- configuration files ---- */

enum { DEEPEST = 4 };
static int config_node(Cli *c, const Json *j, JsonRef r, const char *key, int depth, Err *e);

static int config_scalar(const Json *j, JsonRef r, TextBuf *b, Err *e) {
    int64_t i = 0;
    uint64_t u = 0;
    double d = 0;
    switch (json_kind(j, r)) {
    case JSON_TRUE:
        textbuf_puts(b, "true");
        return OK;
    case JSON_FALSE:
        textbuf_puts(b, "false");
        return OK;
    case JSON_STRING:
        textbuf_puts(b, json_str(j, r, NULL));
        return OK;
    case JSON_INT:
        TRY(json_want_int(j, r, "number", INT64_MIN, INT64_MAX, &i, e));
        textbuf_printf(b, "%" PRId64, i);
        return OK;
    case JSON_UINT:
        TRY(json_want_u64(j, r, "number", &u, e));
        textbuf_printf(b, "%" PRIu64, u);
        return OK;
    case JSON_REAL:
        TRY(json_want_real(j, r, "number", &d, e));
        textbuf_printf(b, "%.17g", d);
        return OK;
    default:
        return err_set(e, ERR_USAGE, "%s: expected a number, text, true or false, or a list of them", j->file);
    }
}

static int config_object(Cli *c, const Json *j, JsonRef object, const char *prefix, int depth, Err *e) {
    for (JsonRef r = json_first(j, object); r >= 0; r = json_next(j, r)) {
        char key[256];
        const char *name = json_key(j, r, NULL);
        if (snprintf(key, sizeof key, "%s%s%s", prefix, *prefix ? "." : "", name) >= (int)sizeof key)
            return err_set(e, ERR_USAGE, "%s: a key is longer than %zu bytes", j->file, sizeof key);
        TRY(config_node(c, j, r, key, depth, e));
    }
    return OK;
}

/* A path in a configuration file is relative to that file, so that the run does not depend on where it is begun. */
static int config_path(Cli *c, const char *file, const char *key, TextBuf *b, Err *e) {
    Found f;
    const char *slash = strrchr(file, '/'), *item = b->text;
    if (!slash || !b->len || !find(c, key, &f) || (f.row->kind != OPT_PATH && f.row->kind != OPT_PATHS)) return OK;
    TextBuf whole = {0};
    for (;;) {
        const size_t n = f.row->kind == OPT_PATHS ? strcspn(item, ",") : strlen(item);
        if (item[0] != '/' && !(n == 1 && item[0] == '-')) textbuf_put(&whole, file, (size_t)(slash + 1 - file));
        textbuf_put(&whole, item, n);
        if (!item[n]) break;
        textbuf_put(&whole, ",", 1);
        item += n + 1;
    }
    textbuf_free(b);
    *b = whole;
    return textbuf_end(b, e);
}

static int config_node(Cli *c, const Json *j, JsonRef r, const char *key, int depth, Err *e) {
    if (json_kind(j, r) == JSON_NULL || !strcmp(key, "official")) return OK; // null: the default; official: read first
    if (json_kind(j, r) == JSON_OBJECT) {
        if (depth == DEEPEST) return err_set(e, ERR_USAGE, "%s: %s: nested more than %d deep", j->file, key, DEEPEST);
        return config_object(c, j, r, key, depth + 1, e);
    }
    TextBuf b = {0};
    int rc = OK, list = json_kind(j, r) == JSON_ARRAY;
    for (JsonRef at = list ? json_first(j, r) : r; at >= 0 && !rc; at = list ? json_next(j, at) : -1) {
        if (b.len) textbuf_puts(&b, ",");
        rc = config_scalar(j, at, &b, e);
    }
    if (!rc) rc = textbuf_end(&b, e);
    if (!rc) rc = config_path(c, j->file, key, &b, e);
    if (!rc) rc = cli_set(c, key, b.text, e);
    if (rc && e && !strstr(e->msg, j->file)) err_prefix(e, "%s", j->file);
    textbuf_free(&b);
    return rc;
}

static int config_read(Cli *c, const Json *j, Err *e) {
    if (json_kind(j, 0) != JSON_OBJECT) return err_set(e, ERR_USAGE, "%s: expected a JSON object of options", j->file);
    return config_object(c, j, 0, "", 0, e);
}

/* ---- flags ---- */

/* Recognises the flag at argv[i]; *name without dashes, *value NULL when it was not given with '='. */
static int flag_split(const Cli *c, const char *arg, char *name, size_t cap, const char **value, Err *e) {
    *value = NULL;
    if (arg[1] != '-') { // one letter
        for (int i = 0; !arg[2] && i < COMMON_ROWS; i++)
            if (common_rows[i].letter == arg[1]) return snprintf(name, cap, "%s", common_rows[i].row.key), OK;
        err_set(e, ERR_USAGE, "%s: unknown option \"%s\"", c->command->name, arg);
        return err_hint(e, "hybridize %s --help lists them all", c->command->name);
    }
    const char *equals = strchr(arg, '=');
    const size_t n = equals ? (size_t)(equals - arg - 2) : strlen(arg + 2);
    if (n >= cap) return err_set(e, ERR_USAGE, "%s: an option's name is longer than %zu bytes", c->command->name, cap);
    memcpy(name, arg + 2, n);
    name[n] = 0;
    if (equals) *value = equals + 1;
    return OK;
}

static int set_pair(Cli *c, const char *pair, Err *e) {
    char key[128];
    const char *equals = strchr(pair, '=');
    if (!equals || equals == pair || (size_t)(equals - pair) >= sizeof key)
        return err_set(e, ERR_USAGE, "%s: --set: got \"%s\", expected key=value", c->command->name, pair);
    memcpy(key, pair, equals - pair);
    key[equals - pair] = 0;
    return cli_set(c, key, equals + 1, e);
}

/* One flag and, if it takes one and has none yet, the value behind it. first: only what must be known before the
 * others. */
static int flag_apply(Cli *c, char **argv, int argc, int *i, int first, const char **config, Err *e) {
    char name[128];
    const char *value;
    Found f = {0};
    if (!strcmp(argv[*i], "-h") || !strcmp(argv[*i], "--help")) return c->help = 1, OK;
    TRY(flag_split(c, argv[*i], name, sizeof name, &value, e));
    const int has_config = (c->command->common & CLI_CONFIG) != 0;
    const int is_config = has_config && !strcmp(name, "config"), is_set = has_config && !strcmp(name, "set");
    const int is_official = c->command->options[0] && c->command->options[0]->official && !strcmp(name, "official");
    if (is_official && !value) return c->official = 1, OK;
    const int negated =
        !strncmp(name, "no-", 3) && !find(c, name, &f) && find(c, name + 3, &f) && f.row->kind == OPT_BOOL;
    if (!is_config && !is_set && !find(c, negated ? name + 3 : name, &f))
        return unknown(c, argv[*i][1] == '-' ? name : argv[*i], e); // as it was typed
    if (f.row && f.row->kind == OPT_BOOL && !value)
        return first ? OK : cli_set(c, f.row->key, negated ? "false" : "true", e);
    if (!value) {
        if (*i + 1 >= argc || (!strncmp(argv[*i + 1], "--", 2) && argv[*i + 1][2]))
            return err_set(e, ERR_USAGE, "%s: %s needs a value", c->command->name, argv[*i]);
        value = argv[++*i];
    }
    if (is_config) return *config = value, OK;
    if (first && strcmp(name, "stage")) return OK; // which section plain names mean must be known first
    if (is_set) return set_pair(c, value, e);
    return cli_set(c, name, value, e);
}

static int args_walk(Cli *c, int argc, char **argv, int first, const char **config, Err *e) {
    int only_args = 0;
    c->n_args = 0;
    for (int i = 0; i < argc && !c->help; i++) {
        const char *a = argv[i];
        if (!only_args && !strcmp(a, "--")) only_args = 1;
        else if (!only_args && a[0] == '-' && a[1]) TRY(flag_apply(c, argv, argc, &i, first, config, e));
        else if (c->n_args == c->command->max_args) {
            err_set(e, ERR_USAGE, "%s: unexpected argument \"%s\"", c->command->name, a);
            return err_hint(e, "usage: hybridize %s %s", c->command->name, c->command->usage);
        } else c->arg[c->n_args++] = argv[i];
    }
    return OK;
}

static int options_open(Cli *c, Err *e) {
    for (int k = 0; k < 2 && c->command->options[k]; k++) {
        const CliOptions *o = c->command->options[k];
        TRY(mem_alloc(&c->options[k], o->size, "options", e));
        if (o->defaults) o->defaults(c->options[k]);
    }
    c->common.seed = 42;
    c->common.rank_timeout = 600;
    snprintf(c->common.device, sizeof c->common.device, "cpu");
    c->common.no_color = getenv("NO_COLOR") != NULL;
    return OK;
}

static int parse(Cli *c, int argc, char **argv, Json *j, Err *e) {
    const char *config = NULL;
    void *p;
    TRY(mem_alloc(&p, (size_t)(argc + 1) * sizeof *c->arg, "arguments", e));
    c->arg = p;
    TRY(options_open(c, e));
    TRY(args_walk(c, argc, argv, 1, &config, e));
    if (c->help) return OK;
    if (config) {
        TRY(json_open(j, config, e));
        TRY(json_opt_bool(j, 0, "official", &c->official, e));
    }
    const CliOptions *o = c->command->options[0];
    if (c->official && o && o->official) o->official(c->options[0]);
    if (config) TRY(config_read(c, j, e));
    TRY(args_walk(c, argc, argv, 0, &config, e));
    if (c->command->settle) c->command->settle(c->options[0]);
    return OK;
}

int cli_parse(Cli *c, const Command *command, int argc, char **argv, Err *e) {
    Json j = {0};
    *c = (Cli){.command = command};
    const int rc = parse(c, argc, argv, &j, e);
    json_free(&j);
    cli_progress(c);
    if (rc) cli_close(c);
    return rc;
}

void cli_close(Cli *c) {
    mem_free(c->options[0]);
    mem_free(c->options[1]);
    mem_free(c->arg);
    c->options[0] = c->options[1] = NULL;
    c->arg = NULL;
    c->n_args = 0;
}

int cli_require(const Cli *c, const char *value, const char *flag, Err *e) {
    if (value && *value) return OK;
    err_set(e, ERR_USAGE, "%s: %s is required", c->command->name, flag);
    return err_hint(e, "usage: hybridize %s %s", c->command->name, c->command->usage);
}
