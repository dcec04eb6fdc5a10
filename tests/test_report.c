/* test_report.c - the pages: every picture of a run and of a comparison is well-formed and has its numbers beside it,
 * and the numbers are those of the run's own files. A small run of the embedded teacher. */
#include <math.h>
#include <stddef.h>
#include "base/file.h"
#include "method/fit.h"
#include "method/select.h"
#include "report/card.h"
#include "report/report.h"
#include "report/compare.h"
#include "report/report_pictures.h"
#include "tiny.h"
#include "xml.h"
#include "tests/suite.h"

static void setup(void) { tmpdir_begin(); }
static void teardown(void) { tmpdir_end(); }

static void small(PipelineOptions *o, const char *selector, const char *students) {
    pipeline_defaults(o);
    snprintf(o->teacher, sizeof o->teacher, "testdata/teacher");
    snprintf(o->text, sizeof o->text, "testdata/text.txt");
    snprintf(o->selector, sizeof o->selector, "%s", selector);
    snprintf(o->students, sizeof o->students, "%s", students);
    StageOptions *stage[3] = {&o->stage1, &o->score, &o->stage2};
    for (int i = 0; i < 3; i++) {
        stage[i]->steps = 3;
        stage[i]->batch_size = stage[i]->micro_batch_size = 2;
        stage[i]->train_seq_len = 32;
    }
    o->max_tokens = 30000;
    o->eval_every = 1;
    o->eval_batches = 3;
    o->log_every = 1;
    o->k = 2;
    snprintf(o->recall_keys, sizeof o->recall_keys, "A-Za-z");
    snprintf(o->recall_n, sizeof o->recall_n, "2,4");
    o->recall_rows = 4;
    o->cache_mb = 8;
    o->memory_context = 1024;
}

static PipelineResult result;
static void go(const PipelineOptions *o, const char *dir) {
    Backend *be;
    Err e = {0};
    must(backend_open(&be, "cpu", 1, &e), &e);
    must(pipeline_run(o, dir, be, NULL, PIPELINE_ALL, &result, &e), &e);
    must(report_write(dir, &e), &e);
    backend_close(be);
}

static char *text_of(const char *path) { // to be freed with mem_free
    File f;
    void *p;
    Err e = {0};
    must(file_open(&f, path, &e), &e);
    must(mem_alloc(&p, f.size + 1, "text", &e), &e);
    memcpy(p, f.data, f.size);
    ((char *)p)[f.size] = 0;
    file_close(&f);
    return p;
}

/* DIR/NAME.svg is well-formed and stands in the page; its numbers are there. */
static void picture_ok(const char *dir, const char *name, const char *page) {
    char path[900];
    snprintf(path, sizeof path, "%s/%s.svg", dir, name);
    char *svg = text_of(path), *body = strstr(svg, "<svg ");
    ck_assert_msg(body != NULL, "%s", path);
    const char *bad = check_xml(body);
    ck_assert_msg(!bad, "%s: %s", path, bad);
    ck_assert_msg(strstr(page, body) != NULL, "%s is not in the page", path);
    mem_free(svg);
    snprintf(path, sizeof path, "%s/%s.csv", dir, name);
    char *csv = text_of(path);
    ck_assert_msg(strchr(csv, '\n') && strchr(csv, '\n')[1], "%s has no numbers", path);
    mem_free(csv);
}

static int lines_of(const char *text) {
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

START_TEST(run_page) {
    static const char *const pictures[] = {"importance",   "trajectory", "agreement", "budget", "kl_ratio",
                                           "recall_ratio", "memory",     "recall",    "start",  "loss"};
    PipelineOptions o;
    small(&o, "ga_s2", "none,uniform,gates,random");
    o.init = START_FIT;
    o.random_draws = 2;
    o.halving_z = 0.5;
    snprintf(o.curve_k, sizeof o.curve_k, "1,3");
    snprintf(o.curve_students, sizeof o.curve_students, "ga_s2,uniform");
    const char *dir = place("run");
    go(&o, dir);
    static const char *const names[] = {"teacher", "stage1",   "ga_s2",   "none",      "uniform", "gates",
                                        "random",  "random-2", "ga_s2@1", "uniform@1", "ga_s2@3", "uniform@3"};
    ck_assert_int_eq(result.rows, 12);
    for (int i = 0; i < 12; i++) ck_assert_str_eq(result.row[i].name, names[i]);
    ck_assert_int_ne(memcmp(result.row[6].keep, result.row[7].keep, sizeof result.row[0].keep), 0); // two draws
    ck_assert_int_eq(result.row[8].K, 1);
    // a ranking's sets are nested
    for (int l = 0; l < 8; l++) ck_assert(!(result.row[8].keep[l] && !result.row[2].keep[l]));
    for (int i = 2; i < 12; i++)
        for (int k = 2; k < i; k++) // equal sets are one student
            if (!memcmp(result.row[i].keep, result.row[k].keep, sizeof result.row[0].keep))
                ck_assert(result.row[i].held.kl == result.row[k].held.kl &&
                          result.row[i].seconds == result.row[k].seconds);
    char *page = text_of(place("run/report.html"));
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++) picture_ok(dir, pictures[i], page);
    // GA-S2's unit, without its minus sign
    ck_assert_ptr_nonnull(strstr(page, ">KL to the teacher (nats per token)</text>"));
    ck_assert_ptr_nonnull(strstr(page, "tokens were used")); // halving says what it saved
    mem_free(page);
    char *budget = text_of(place("run/budget.csv")), *agreement = text_of(place("run/agreement.csv"));
    ck_assert_int_eq(lines_of(budget), 1 + 9); // K = 0 ... 8
    ck_assert_int_eq(lines_of(agreement), 1 + 4);
    // memory of K = 0: 8 layers of H D D floats, in MiB
    int K, chosen;
    double cost, value;
    ck_assert_int_eq(sscanf(strchr(budget, '\n') + 1, "%d,%lf,%lf,%d", &K, &cost, &value, &chosen), 4);
    ck_assert(K == 0 && value == 0 && !chosen);
    ck_assert_double_eq_tol(cost, 8 * 4 * 16 * 16 * 4 / 1048576.0, 1e-9);
    mem_free(budget);
    mem_free(agreement);
}
END_TEST

START_TEST(own_units) { // a selector with another score draws its own, and a layout none
    static const struct {
        const char *selector, *unit;
    } row[] = {{"ppl", "rise of the text loss (nats per token)"},
               {"ablation", "recall lost (fraction)"},
               {"gates", "-dKL/da at a = 0 (nats per token)"}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        PipelineOptions o;
        char unit[96], label[128];
        Err e = {0};
        const char *dir = place(row[i].selector);
        small(&o, row[i].selector, "");
        go(&o, dir);
        must(ranking_about(unit, sizeof unit, label, sizeof label, dir, &e), &e);
        ck_assert_str_eq(unit, row[i].unit);
        char path[900];
        snprintf(path, sizeof path, "%s/importance.svg", dir);
        char *svg = text_of(path);
        ck_assert_msg(strstr(svg, row[i].unit) != NULL, "%s", row[i].selector);
        mem_free(svg);
    }
    PipelineOptions o;
    static LayerScore s[MAX_LAYERS];
    int L;
    Err e = {0};
    small(&o, "uniform", "");
    go(&o, place("layout"));
    must(ranking_read(s, &L, place("layout"), &e), &e);
    ck_assert_int_eq(L, 8);
    ck_assert(s[0].rank == 1 && s[7].rank == 2 && isnan(s[0].score)); // uniform keeps 0 and 7 of 8
    ck_assert_int_eq(file_exists(place("layout/importance.svg")), 0);
    ck_assert_int_eq(file_exists(place("layout/report.html")), 1);
}
END_TEST

START_TEST(cost_curve) { // measured costs: the curve holds the run's own set, costs rise and so do the scores
    PipelineOptions o;
    small(&o, "gates", "");
    o.cost_budget = 30;
    snprintf(o.layer_costs, sizeof o.layer_costs, "8:1,9:1,10:2,8:1,8:1,8:1,7:1,8:1");
    go(&o, place("costs"));
    char *csv = text_of(place("costs/budget.csv")), *line = strchr(csv, '\n') + 1;
    int lines = 0, found = 0;
    double was = -1, worth = -1;
    for (; *line; line = strchr(line, '\n') + 1, lines++) {
        int K, chosen;
        double cost, value;
        ck_assert_int_eq(sscanf(line, "%d,%lf,%lf,%d", &K, &cost, &value, &chosen), 4);
        ck_assert(cost >= was && value >= worth);
        was = cost;
        worth = value;
        if (chosen && cost <= 30) found = 1;
    }
    ck_assert_int_eq(lines, 17);
    ck_assert_int_eq(found, 1);
    mem_free(csv);
}
END_TEST

START_TEST(means) { // mean and standard deviation over seeds, what is missing left out
    CompareRow r = {.n = 4};
    double sd;
    static const double v[4] = {1, NAN, 4, 7};
    for (int i = 0; i < 4; i++) r.cell[i].rho = v[i];
    ck_assert_double_eq_tol(compare_mean(&r, offsetof(CompareCell, rho), &sd), 4, 1e-15);
    ck_assert_double_eq_tol(sd, 3, 1e-15);
    r.n = 2;
    ck_assert_double_eq(compare_mean(&r, offsetof(CompareCell, rho), &sd), 1);
    ck_assert(isnan(sd));
}
END_TEST

START_TEST(comparison_page) {
    static const char *const pictures[] = {"selectors", "cost", "agreement", "kl_ratio", "recall_ratio", "memory"};
    static const uint64_t seed[2] = {1, 2};
    static Compare c;
    PipelineOptions o;
    Err e = {0}, missing = {0};
    const char *dir = place("cmp");
    small(&o, "ga_s2", "none,uniform,swap,gates,exhaustive");
    o.eval_every = 3;
    o.k = 1; // eight sets
    snprintf(o.curve_k, sizeof o.curve_k, "2");
    snprintf(o.curve_students, sizeof o.curve_students, "swap,uniform");
    for (int i = 0; i < 2; i++) {
        char name[32];
        snprintf(name, sizeof name, "cmp/seed-%d", i + 1);
        o.seed = seed[i];
        go(&o, place(name));
    }
    ck_assert_int_ne(compare_read(&c, place("nowhere"), seed, 2, &missing), OK);
    must(compare_read(&c, dir, seed, 2, &e), &e);
    ck_assert_int_eq(c.rows, 8);
    for (int i = 0; i < c.rows; i++) {
        const CompareRow *r = &c.row[i];
        ck_assert_int_eq(r->n, 2);
        for (int k = 0; k < 2; k++) {
            const CompareCell *x = &r->cell[k];
            ck_assert_uint_eq(x->seed, seed[k]);
            if (!strcmp(r->name, "ga_s2")) {
                ck_assert(x->rho == 1 && x->tau == 1 && x->overlap == 1);
                ck_assert_double_eq(x->tokens, 8 * 3 * 2 * 32);
                ck_assert_double_eq_tol(x->regret, 0, 1e-12); // one layer: GA-S2 is the exhaustive search
            }
            if (!strcmp(r->name, "exhaustive")) ck_assert(x->regret == 0 && x->set_rank == 1);
            if (!strcmp(r->name, "uniform"))
                ck_assert(isnan(x->rho) && x->tokens == 0 && x->regret >= 0 && x->set_rank >= 1);
            if (!strcmp(r->name, "swap")) ck_assert_double_eq(x->tokens, 3 * 2 * 32);
            if (!strcmp(r->name, "swap@2")) ck_assert(isnan(x->regret) && x->k == 2);
        }
    }
    must(compare_report(&c, &e), &e);
    char *page = text_of(place("cmp/report.html"));
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++) picture_ok(dir, pictures[i], page);
    picture_ok(place("cmp/seed-1"), "importance", page); // of the first seed
    ck_assert_ptr_nonnull(strstr(page, "href=\"seed-1/importance.csv\""));
    mem_free(page);
    char *csv = text_of(place("cmp/compare.csv"));
    ck_assert_int_eq(lines_of(csv), 1 + 8 * 2);
    mem_free(csv);
    TextBuf b = {0};
    compare_table(&b, &c);
    must(textbuf_end(&b, &e), &e);
    ck_assert_int_eq(lines_of(b.text), 1 + 6); // rows at another K stand in the curves
    textbuf_free(&b);
    compare_close(&c);
}
END_TEST

/* The options that the command makes, when a shell has read it. */
static void command_read(PipelineOptions *o, const char *command) {
    char shell[8192], line[5000];
    Err e = {0};
    pipeline_defaults(o);
    const int n = snprintf(shell, sizeof shell, "set -- %s; for a; do printf '%%s\\n' \"$a\"; done", command);
    ck_assert(n > 0 && n < (int)sizeof shell);
    FILE *f = popen(shell, "r");
    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *value = strchr(line, '=');
        if (strncmp(line, "--", 2) || !value) continue; // hybridize run
        *value++ = 0;
        for (char *c = line; *c; c++)
            if (*c == '-') *c = '_';
        if (strcmp(line + 2, "device")) must(options_set(pipeline_table(), o, line + 2, value, &e), &e);
    }
    ck_assert_int_eq(pclose(f), 0);
}

START_TEST(card) { // the card's command is the run, and its numbers are the results
    PipelineOptions o, got, defaults;
    char want[200];
    small(&o, "explicit", "uniform");
    snprintf(o.keep_full_attention_layers, sizeof o.keep_full_attention_layers, "1,6");
    o.document_boundaries = 0;
    const char *dir = place("card");
    go(&o, dir);
    char *text = text_of(place("card/model/README.md"));
    ck_assert_ptr_nonnull(strstr(text, "# teacher with 2 of 8 layers softmax"));
    snprintf(want, sizeof want, "| **explicit** (this model) | 1, 6 | %.4f +- ", result.row[2].held.kl);
    ck_assert_msg(strstr(text, want) != NULL, "%s\n%s", want, text);
    ck_assert_ptr_nonnull(strstr(text, "fla, transformers"));
    ck_assert_ptr_nonnull(strstr(text, "- teacher/model.safetensors: 866032 bytes, CRC-32C cec92807\n"));
    char *command = strstr(text, "    hybridize run"), *end = strstr(command, " -o RUNDIR\n");
    ck_assert_ptr_nonnull(end);
    *end = 0;
    command_read(&got, command);
    const Option *d = options_differ(pipeline_table(), &o, &got, (unsigned)AFFECTS_NUMBERS);
    ck_assert_msg(!d, "the card's command has another %s", d ? d->key : "");
    ck_assert_str_eq(got.teacher, o.teacher);
    mem_free(text);

    TextBuf b = {0}; // what a shell would take apart
    snprintf(o.text, sizeof o.text, "it's a $HOME; `x`");
    pipeline_defaults(&defaults);
    card_command(&b, &o, &defaults);
    command_read(&got, b.text);
    ck_assert_str_eq(got.text, o.text);
    textbuf_free(&b);
    small(&o, "uniform", ""); // layers that fla does not have
    snprintf(o.student, sizeof o.student, "swa_v1");
    go(&o, place("own"));
    text = text_of(place("own/model/README.md"));
    ck_assert_ptr_nonnull(strstr(text, "only hybridize reads this directory"));
    mem_free(text);
}
END_TEST

SUITE("report") {
    GROUP("all", .setup = setup, .teardown = teardown, .timeout = 120);
    CASE(run_page);
    CASE(card);
    CASE(own_units);
    CASE(cost_curve);
    CASE(means);
    CASE(comparison_page);
}
