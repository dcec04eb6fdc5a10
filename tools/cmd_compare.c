/* cmd_compare.c - many selectors, several seeds, one teacher: a run for each seed, and a page that compares what they
 * come to. */
#include "base/file.h"
#include "base/mem.h"
#include "report/compare.h"
#include "report/report.h"
#include "tools/run_dir.h"
#include "tools/session.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char seeds[128];
} Extra;
static const Option rows[] = {{"seeds", "of the students, \"1,2,3\"; the option seed is not used", OPT_TEXT,
                               offsetof(Extra, seeds), 0, 128, NULL, AFFECTS_EVALUATION}};
static const OptionTable table = {rows, 1};
static const OptionTable *get_table(void) { return &table; }
static void extra_defaults(void *o) { *(Extra *)o = (Extra){.seeds = "1,2,3"}; }
static void defaults(void *o) { pipeline_defaults(o); }
static void official(void *o) { pipeline_official(o); }
static void settle(void *o) { pipeline_settle(o); }
static const CliOptions options = {pipeline_table, sizeof(PipelineOptions), defaults, official};
static const CliOptions extra = {get_table, sizeof(Extra), extra_defaults, NULL};
static const CliAlias aliases[] = {{"model", "teacher"}, {"data", "text"}, {NULL, NULL}};

static int seeds_parse(const char *text, uint64_t *seed, int *n, Err *e) {
    *n = 0;
    for (const char *s = text; *s;) {
        char *end;
        const unsigned long long v = strtoull(s, &end, 10);
        if (end == s || (*end && *end != ',') || *s == '-')
            return err_set(e, ERR_USAGE, "seeds: got '%s', expected numbers with commas between them", text);
        for (int i = 0; i < *n; i++)
            if (seed[i] == v) return err_set(e, ERR_USAGE, "seeds: %llu is there twice", v);
        if (*n == COMPARE_SEEDS) return err_set(e, ERR_USAGE, "seeds: more than %d", COMPARE_SEEDS);
        seed[(*n)++] = v;
        s = end + (*end == ',');
    }
    return *n ? OK : err_set(e, ERR_USAGE, "seeds: none given");
}

static int run_seed(Cli *c, Backend *be, uint64_t seed, Err *e) {
    PipelineOptions *o = c->options[0];
    char dir[1100], name[64];
    const PipelineHooks hooks = {.progress = &c->progress,
                                 .stop = c->stop,
                                 .note = cli_note,
                                 .ctx = c,
                                 .allow_config_change = c->common.allow_config_change,
                                 .version = HYB_VERSION};
    snprintf(name, sizeof name, "seed-%llu", (unsigned long long)seed);
    TRY(run_path(dir, sizeof dir, c, name, e));
    cli_note(c, name);
    o->seed = seed;
    TRY(pipeline_run(o, dir, be, &hooks, PIPELINE_ALL, NULL, e));
    return report_write(dir, e);
}

static int print(const Cli *c, const Compare *k, Err *e) {
    char path[1100];
    File f;
    if (c->common.json) {
        TRY(run_path(path, sizeof path, c, "compare.csv", e));
        TRY(file_open(&f, path, e));
        fwrite(f.data, 1, f.size, stdout);
        file_close(&f);
        return OK;
    }
    TextBuf b = {0};
    compare_table(&b, k);
    const int rc = textbuf_end(&b, e);
    if (!rc) fputs(b.text, stdout);
    textbuf_free(&b);
    return rc;
}

static int compare_seeds(Cli *c, const uint64_t *seed, int n, Err *e) {
    Backend *be = NULL;
    void *mem;
    TRY(cli_backend(c, &be, e));
    int rc = OK;
    for (int i = 0; i < n && !rc; i++) rc = run_seed(c, be, seed[i], e);
    backend_close(be);
    if (rc) return rc;
    TRY(mem_alloc(&mem, sizeof(Compare), "comparison", e));
    Compare *k = mem;
    if (!(rc = compare_read(k, c->common.output, seed, n, e))) {
        rc = compare_report(k, e);
        if (!rc) rc = print(c, k, e);
        compare_close(k);
    }
    mem_free(mem);
    return rc;
}

static int run(Cli *c, Err *e) {
    PipelineOptions *o = c->options[0];
    uint64_t seed[COMPARE_SEEDS];
    int n = 0;
    TRY(cli_require(c, o->teacher, "-m TEACHER", e));
    TRY(cli_require(c, o->text, "--text FILE", e));
    TRY(seeds_parse(((Extra *)c->options[1])->seeds, seed, &n, e));
    TRY(pipeline_check(o, e));
    TRY(text_there(o->text, o->text_field, o->document_separator, e));
    TRY(run_dir_open(c, "run.json", 0, e));
    TRY(run_json_write(c, e));
    const int rc = compare_seeds(c, seed, n, e);
    if (rc == ERR_SIGINT || rc == ERR_SIGTERM) err_hint(e, "go on with the same command and --resume");
    return rc;
}

const Command cmd_compare = {
    .name = "compare",
    .summary = "Which selector is best here? The method with every selector and several seeds; "
               "DIR/report.html compares them.",
    .usage = "-m TEACHER --text FILE --students ga_s2,uniform,gates,... [--seeds 1,2,3] -o DIR [options]",
    .details = "DIR/seed-S is a run as `run` makes it; stage 1 and the teacher's passes are shared by its "
               "selectors, equal sets of layers are\n"
               "distilled once. With selector exhaustive in the list every choice's regret is known. "
               "--resume goes on after a stop.",
    .common = CLI_OUTPUT | CLI_BACKEND | CLI_JSON | CLI_DRY_RUN | CLI_RESUME | CLI_CONFIG,
    .alias = aliases,
    .settle = settle,
    .options = {&options, &extra},
    .run = run,
};
