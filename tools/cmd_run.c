/* cmd_run.c - the whole method, and its first parts alone: run, select, score, align. All work on one run directory and
 * go on where it stands. */
#include "base/file.h"
#include "base/mem.h"
#include "io/hf.h"
#include "base/json.h"
#include "method/lanes.h"
#include "run/pipeline.h"
#include "report/report.h"
#include "tools/launch.h"
#include "tools/run_dir.h"
#include "tools/session.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

static void defaults(void *o) { pipeline_defaults(o); }
static void official(void *o) { pipeline_official(o); }
static void settle(void *o) { pipeline_settle(o); }
static const CliOptions options = {pipeline_table, sizeof(PipelineOptions), defaults, official};
static const CliAlias aliases[] = {{"model", "teacher"}, {"data", "text"}, {NULL, NULL}};

/* ---- what is printed at the end ---- */

static int table_print(const PipelineResult *r, Err *e) {
    TextBuf b = {0};
    report_table(&b, r);
    const int rc = textbuf_end(&b, e);
    if (!rc) fputs(b.text, stdout);
    textbuf_free(&b);
    size_t peak = 0, counted = 0;
    for (int i = 0; i < r->rows; i++) {
        if (r->row[i].peak_bytes <= peak) continue;
        peak = r->row[i].peak_bytes;
        counted = r->row[i].counted_bytes;
    }
    if (!rc)
        printf("%.1f s of training; peak memory %.1f MiB, %.1f MiB by count%s\n", r->seconds, (double)peak / 1048576,
               (double)counted / 1048576, r->finished_before ? " (finished before; nothing was done)" : "");
    return rc;
}

/* A JSON file of the run, as it is. */
static int file_print(const Cli *c, const char *name, Err *e) {
    char path[1024];
    File f;
    TRY(run_path(path, sizeof path, c, name, e));
    TRY(file_open(&f, path, e));
    fwrite(f.data, 1, f.size, stdout);
    if (f.size && f.data[f.size - 1] != '\n') putchar('\n');
    file_close(&f);
    return OK;
}

static int ranking_print(const Cli *c, Err *e) {
    void *p;
    int L = 0;
    TRY(mem_alloc(&p, MAX_LAYERS * sizeof(LayerScore), "scores", e));
    LayerScore *s = p;
    const int rc = ranking_read(s, &L, c->common.output, e);
    if (!rc) printf("%5s %5s %12s %10s\n", "rank", "layer", "score", "+-");
    for (int rank = 1; rank <= L && !rc; rank++)
        for (int l = 0; l < L; l++)
            if (s[l].rank == rank) printf("%5d %5d %12.6f %10.6f\n", rank, s[l].layer, s[l].score, s[l].se);
    mem_free(p);
    return rc;
}

static int print(const Cli *c, PipelineEnd end, const PipelineResult *r, Err *e) {
    if (end == PIPELINE_ALIGN) return OK;
    char path[1024];
    TRY(run_path(path, sizeof path, c, "ranking.json", e));
    if (end == PIPELINE_SCORE && !file_exists(path)) return OK; // other pieces are still missing
    if (end == PIPELINE_ALL && !c->common.json) return table_print(r, e);
    if (c->common.json) return file_print(c, end == PIPELINE_ALL ? "results.json" : "ranking.json", e);
    return ranking_print(c, e);
}

/* ---- the commands ---- */

/* "2/4": the second of four pieces. */
typedef struct {
    char pieces[16];
} ScoreOptions;
static const Option score_rows[] = {{"pieces", "\"2/4\": only every fourth layer from the second on; see merge",
                                     OPT_TEXT, offsetof(ScoreOptions, pieces), 0, 16, NULL, AFFECTS_LOOKS}};
static const OptionTable *score_table(void) {
    static const OptionTable t = {score_rows, 1};
    return &t;
}
static const CliOptions score_options = {score_table, sizeof(ScoreOptions), NULL, NULL};

static int pieces_parse(const ScoreOptions *o, int *piece, int *pieces, Err *e) {
    int end = 0;
    *piece = *pieces = 0;
    if (!o || !o->pieces[0]) return OK;
    if (sscanf(o->pieces, "%d/%d%n", piece, pieces, &end) != 2 || o->pieces[end] || *piece < 1 || *piece > *pieces)
        return err_set(e, ERR_USAGE, "pieces: got '%s', expected i/n with i from 1 to n", o->pieces);
    --*piece;
    return OK;
}

static int run_to(Cli *c, PipelineEnd end, Err *e) {
    PipelineOptions *o = c->options[0];
    void *result = NULL;
    Backend *be = NULL;
    PipelineHooks hooks = {.progress = &c->progress,
                           .stop = c->stop,
                           .note = cli_note,
                           .ctx = c,
                           .allow_config_change = c->common.allow_config_change,
                           .version = HYB_VERSION};
    TRY(cli_require(c, o->teacher, "-m TEACHER", e));
    TRY(cli_require(c, o->text, "--text FILE", e));
    TRY(cli_require(c, c->common.output, "-o RUNDIR", e));
    TRY(pipeline_check(o, e));
    TRY(pieces_parse(c->options[1], &hooks.piece, &hooks.pieces, e));
    TRY(text_there(o->text, o->text_field, o->document_separator, e));
    const int there = file_exists(c->common.output);
    HfModel h; // what cannot be begun leaves no directory behind
    TRY(hf_open(&h, o->teacher, e));
    const int rows = h.config.VOC;
    static const DType types[] = {DT_F32, DT_F32, DT_BF16, DT_F16};
    TRY(hf_range_check(o->teacher, o->save_dtype ? types[o->save_dtype] : h.config.dtype, e));
    session_note_unread(c, o->teacher);
    hf_close(&h);
    TRY(session_tokenizer(&hooks.tokenizer, o->teacher, e));
    int rc = tokenizer_rows(hooks.tokenizer, rows, o->teacher, e);
    if (!rc) rc = cli_backend(c, &be, e);
    if (!rc && ranks_first(c->ranks))
        rc = run_dir_open(c, "run.json", end == PIPELINE_SCORE || end == PIPELINE_SELECT, e);
    rc = ranks_outcome(c->ranks, rc, e);
    if (!rc) rc = mem_alloc(&result, sizeof(PipelineResult), "results", e);
    if (!rc) rc = pipeline_run(o, c->common.output, be, &hooks, end, result, e);
    const int first = ranks_first(c->ranks);
    if (!rc && first && end == PIPELINE_ALL && !((PipelineResult *)result)->finished_before)
        rc = report_write(c->common.output, e);
    if (rc && first && !there) file_remove_empty(c->common.output);
    if (rc == ERR_SIGINT || rc == ERR_SIGTERM) err_hint(e, "go on with the same command and --resume");
    if (!rc && first) rc = print(c, end, result, e);
    mem_free(result);
    backend_close(be);
    tokenizer_close(hooks.tokenizer);
    return rc;
}

/* What the run would hold, of one rank where --ranks or mpirun asks for several. Inputs that are not there are no error
 * yet. */
static int run_memory(Cli *c, Err *e) {
    const PipelineOptions *o = c->options[0];
    const PipelineHooks hooks = {.note = cli_note, .ctx = c};
    Ranks ranks = {.size = c->common.ranks > launch_size() ? c->common.ranks : launch_size()};
    char path[1100];
    Backend *be;
    if (file_join(path, sizeof path, o->teacher, "config.json", e) || !file_exists(path)) return OK;
    TRY(pipeline_check(o, e));
    TRY(lanes_divide(o->lanes, ranks.size, e));
    TRY(cli_backend(c, &be, e));
    be->ranks = &ranks; // measured, never asked to talk
    const int rc = pipeline_memory(o, be, &hooks, e);
    backend_close(be);
    return rc;
}

static int run_all(Cli *c, Err *e) { return run_to(c, PIPELINE_ALL, e); }
static int run_align(Cli *c, Err *e) { return run_to(c, PIPELINE_ALIGN, e); }
static int run_score(Cli *c, Err *e) { return run_to(c, PIPELINE_SCORE, e); }
static int run_select(Cli *c, Err *e) { return run_to(c, PIPELINE_SELECT, e); }

enum { COMMON = CLI_OUTPUT | CLI_BACKEND | CLI_JSON | CLI_DRY_RUN | CLI_RESUME | CLI_CONFIG | CLI_RANKS };
#define DIRECTORY                                                                                                      \
    "RUNDIR is shared by align, score, select and run: each does what is still missing, and --resume goes "            \
    "on after a stop."

const Command cmd_run = {
    .name = "run",
    .summary = "The whole method: align, score every layer, select, distil, evaluate; leaves the hybrid in "
               "RUNDIR/model.",
    .usage = "-m TEACHER --text FILE -o RUNDIR [--softmax-ratio 0.25] [options]",
    .details = DIRECTORY,
    .common = COMMON,
    .alias = aliases,
    .settle = settle,
    .options = {&options},
    .run = run_all,
    .memory = run_memory,
};
const Command cmd_align = {
    .name = "align",
    .summary = "Stage 1: every linear layer learns to answer as the teacher's attention does.",
    .usage = "-m TEACHER --text FILE -o RUNDIR [options]",
    .details = DIRECTORY,
    .common = COMMON,
    .section = "stage1",
    .hidden = "score. stage2. stage3. ",
    .alias = aliases,
    .settle = settle,
    .options = {&options},
    .run = run_align,
    .memory = run_memory,
};
const Command cmd_score = {
    .name = "score",
    .summary = "Scores layers: what does it bring to give this one its softmax attention back? (GA-S2)",
    .usage = "-m TEACHER --text FILE -o RUNDIR [options]",
    .details = DIRECTORY,
    .common = COMMON,
    .section = "score",
    .hidden = "stage2. stage3. ",
    .alias = aliases,
    .settle = settle,
    .options = {&options, &score_options},
    .run = run_score,
};
const Command cmd_select = {
    .name = "select",
    .summary = "Chooses the layers that stay softmax, by scores or by another selector; writes ranking.json.",
    .usage = "-m TEACHER --text FILE -o RUNDIR [--softmax-ratio 0.25 | --k N] [options]",
    .details = DIRECTORY,
    .common = COMMON,
    .section = "score",
    .hidden = "stage2. stage3. ",
    .alias = aliases,
    .settle = settle,
    .options = {&options},
    .run = run_select,
};
