/* pipeline_select.c - scores of all layers, and from them, or from a layout, the layers that stay softmax. */
#include "run/pipeline_parts.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/text_buf.h"
#include "selectors/budget.h"
#include "selectors/selectors.h"
#include "run/pretrain.h"
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- scores */

int pipeline_names(const char *list, const char *name) {
    const size_t n = strlen(name);
    for (const char *s = list; *s;) {
        const size_t len = strcspn(s, ",");
        if (len == n && !memcmp(s, name, n)) return 1;
        s += len + (s[len] == ',');
    }
    return 0;
}

static int score_recall(void *ctx, Model *m, double *mean, Err *e) {
    double accuracy[RECALL_MAX_N];
    return recall_run(ctx, m, NULL, NULL, accuracy, mean, e);
}

static Scoring scoring_of(Pipeline *p) {
    const PipelineOptions *o = p->o;
    return (Scoring){.teacher = &p->teacher,
                     .stage1_student = &p->m.stage1_student,
                     .text = &p->scoring,
                     .heldout = pipeline_judge(p),
                     .stage = o->score,
                     .tau = o->temperature,
                     .checkpointing = o->checkpointing,
                     .official = o->official_score,
                     .eval_every = o->eval_every,
                     .cache = (size_t)o->cache_mb << 19,
                     .probe = p->recall.n_n ? score_recall : NULL,
                     .probe_ctx = &p->recall};
}

static SchedulerOptions scheduler_of(const Pipeline *p) {
    const PipelineOptions *o = p->o;
    return (SchedulerOptions){
        {o->early_stop_r, o->early_stop_threshold, o->early_stop_all_pairs}, o->halving_z, p->r->K};
}

/* The key of scores. Held-out batches count as they are: their sizes may come from stage 2. Where runs end early,
 * so do K and the number that ranks them. */
static void scores_key(Pipeline *p, const char *more, int with_k) {
    const Heldout *h = pipeline_judge(p);
    const int64_t n[] = {h->B, h->T, h->batches}, scheduler[] = {p->r->K, p->o->official_score};
    pipeline_key(p, AFFECTS_DATA | AFFECTS_STAGE1 | AFFECTS_SCORES, more);
    pipeline_key_add(p, n, sizeof n);
    if (p->o->early_stop_r || p->o->halving_z > 0) pipeline_key_add(p, scheduler, sizeof scheduler);
    if (with_k) pipeline_key_add(p, scheduler, sizeof *scheduler);
}

static int rows_alloc(Pipeline *p, LayerScore **rows, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, (size_t)p->r->L * sizeof(LayerScore), "layer scores", e));
    *rows = mem;
    return OK;
}

/* The order of a ranking, for agreement.csv. */
static int ranking_note(Pipeline *p, const char *name, const LayerScore *s, Err *e) {
    void *mem;
    if (p->rankings == PIPELINE_STUDENTS) return OK;
    for (int i = 0; i < p->rankings; i++)
        if (!strcmp(p->ranking[i].name, name)) return OK;
    TRY(mem_alloc(&mem, (size_t)p->r->L * sizeof(int), "order of layers", e));
    int *order = mem;
    for (int l = 0; l < p->r->L; l++) order[s[l].rank - 1] = l;
    snprintf(p->ranking[p->rankings].name, sizeof p->ranking[0].name, "%s", name);
    p->ranking[p->rankings++].order = order;
    return OK;
}

/* GA-S2's scores of all layers, if any selector wants them. */
int pipeline_scores(Pipeline *p, Err *e) {
    const PipelineOptions *o = p->o;
    int want = p->end == PIPELINE_SCORE && !selector_find(o->selector)->score;
    for (int i = 0; i < selector_count(); i++) {
        const Selector *s = selector_at(i);
        want |= s->needs & NEEDS_SCORES && (!strcmp(s->name, o->selector) || pipeline_names(o->students, s->name));
    }
    p->m.scoring = scoring_of(p);
    if (!want) return OK;
    TRY(rows_alloc(p, &p->m.score, e));
    pipeline_note(p, "scoring: each of %d layers back to softmax, %lld steps", p->r->L,
                  (long long)stage_steps(&o->score));
    const SchedulerOptions scheduler = scheduler_of(p);
    scores_key(p, "ga_s2", 0);
    TRY(scheduler_ga_s2(p->m.score, &p->m.scoring, &scheduler, "scores", p->m.memo, e));
    for (int l = 0; l < p->r->L; l++) p->r->seconds += p->m.score[l].seconds;
    return ranking_note(p, "ga_s2", p->m.score, e);
}

/* ---------------------------------------------------------------- selection */

/* The key of a selector's rows: that of scores, with the options of its own. */
static void rows_key(Pipeline *p, const Selector *s) {
    const OptionTable *t = pipeline_table();
    char text[1024];
    scores_key(p, s->name, s->needs & NEEDS_K);
    for (int i = 0; i < t->n; i++) {
        if (!s->options || !pipeline_names(s->options, t->row[i].key)) continue;
        options_get(&t->row[i], p->o, text, sizeof text);
        p->memo.key = fingerprint_text(p->memo.key, text);
    }
}

typedef struct {
    int L;
    LayerScore row[MAX_LAYERS];
} Rows;
static const Field ROWS[] = {
    {"layers", FIELD_RECORDS, offsetof(Rows, row), offsetof(Rows, L), MAX_LAYERS, FIELD_ALWAYS, 0, &layer_row_record}};
static const Record rows_record = {ROWS, 1, sizeof(Rows)};

static int rows_make(Pipeline *p, const Selector *s, const SelectInput *in, Rows *kept, Err *e) {
    Memo *m = p->m.memo;
    char name[64];
    int found;
    rows_key(p, s);
    snprintf(name, sizeof name, "rows/%s", s->name);
    // what trains is shared out piece by piece, by all who work on it
    TRY((s->needs & NEEDS_TRAINING ? m->look : m->get)(m, name, -1, &rows_record, kept, &found, e));
    if (!found || kept->L != p->r->L) {
        pipeline_note(p, "scoring by %s: %s", s->name, s->label);
        TRY(selector_score(s, in, p->rows, e));
        memset(kept, 0, sizeof *kept);
        kept->L = p->r->L;
        memcpy(kept->row, p->rows, (size_t)p->r->L * sizeof *kept->row);
        TRY(m->put(m, name, -1, &rows_record, kept, e));
        TRY(m->drop(m, "partial", -1, e));
    }
    memcpy(p->rows, kept->row, (size_t)p->r->L * sizeof *p->rows);
    return ranking_note(p, s->name, p->rows, e);
}

/* p->rows of a selector that scores layers: read if they are there, else made and kept. */
static int own_rows(Pipeline *p, const Selector *s, const SelectInput *in, Err *e) {
    void *mem;
    if (!p->rows) TRY(rows_alloc(p, &p->rows, e));
    TRY(mem_alloc(&mem, sizeof(Rows), "layer scores", e));
    const int rc = rows_make(p, s, in, mem, e);
    mem_free(mem);
    return rc;
}

static SelectInput select_input(Pipeline *p, const Choice *c, const SchedulerOptions *scheduler) {
    const PipelineOptions *o = p->o;
    return (SelectInput){.L = p->r->L,
                         .K = c->K,
                         .score = p->m.score,
                         .own = o->own,
                         .seed = o->seed,
                         .draw = c->draw,
                         .teacher = &p->teacher,
                         .recall = p->recall.n_n ? &p->recall : NULL,
                         .stage1_student = &p->m.stage1_student,
                         .heldout = pipeline_judge(p),
                         .scoring = &p->m.scoring,
                         .scheduler = scheduler,
                         .memo = p->m.memo,
                         .align_form = o->stage1_loss,
                         .tokenizer = p->tokenizer};
}

/* layer_costs as numbers: soft, lin (L). */
static int costs_parse(const PipelineOptions *o, int L, double *soft, double *lin, Err *e) {
    const char *s = o->layer_costs;
    int n = 0, used;
    for (; *s && n < L; n++, s += used + (s[used] == ','))
        if (sscanf(s, "%lf:%lf%n", &soft[n], &lin[n], &used) != 2 || (s[used] && s[used] != ',') ||
            !(soft[n] >= 0 && lin[n] >= 0))
            return err_set(e, ERR_USAGE,
                           "layer_costs: got '%.40s', expected two numbers >= 0 with a colon between them", s);
    if (*s || (n != 1 && n != L)) return err_set(e, ERR_USAGE, "layer_costs: expected 1 or %d pairs", L);
    for (; n < L; n++) soft[n] = soft[0], lin[n] = lin[0];
    return OK;
}

/* Layers by a list or by costs, where the options say so. list, soft, lin (MAX_LAYERS) must stay. */
static int select_limits(const Pipeline *p, SelectInput *in, const char *name, int *list, double *soft, double *lin,
                         Err *e) {
    const PipelineOptions *o = p->o;
    if (!strcmp(name, "explicit")) {
        TRY(list_parse(o->keep_full_attention_layers, list, MAX_LAYERS, &in->n_list, 0, p->r->L - 1,
                       "keep_full_attention_layers", e));
        in->list = list;
        in->K = in->n_list;
    }
    if (o->cost_budget <= 0) return OK;
    TRY(costs_parse(o, p->r->L, soft, lin, e));
    in->soft = soft;
    in->lin = lin;
    in->budget = o->cost_budget;
    return OK;
}

int pipeline_check_layers(const PipelineOptions *o, int L, int K, Err *e) {
    int list[MAX_LAYERS], keep[MAX_LAYERS], n = 0;
    double soft[MAX_LAYERS], lin[MAX_LAYERS];
    if (K > L) return err_set(e, ERR_USAGE, "k: got %d, the teacher has %d layers", K, L);
    TRY(list_parse(o->curve_k, list, MAX_LAYERS, &n, 0, L, "curve_k", e));
    TRY(list_parse(o->keep_full_attention_layers, list, MAX_LAYERS, &n, 0, L - 1, "keep_full_attention_layers", e));
    TRY(select_check_list(list, n, L, n, "keep_full_attention_layers", e));
    if (o->kept_rope && (K == L || n == L)) {
        err_set(e, ERR_USAGE, "kept_rope: got none with all %d layers kept, expected one that is linear", L);
        return err_hint(e, "a model without rotary embedding and without linear layers has no layout to be written in");
    }
    if (o->cost_budget > 0) TRY(costs_parse(o, L, soft, lin, e));
    if (strcmp(o->selector, "uniform_stride") && !pipeline_names(o->students, "uniform_stride")) return OK;
    const SelectInput in = {.L = L, .K = K, .own = o->own};
    return select_layers(selector_find("uniform_stride"), &in, keep, e);
}

static int scores_equal(const LayerScore *s, int L) {
    for (int l = 1; l < L; l++)
        if (!(s[l].score == s[0].score)) return 0;
    return L > 1;
}

/* keep (L) of one selector. Rows are made for the run's own K, whatever c->K. */
int pipeline_choose(Pipeline *p, Choice *c, int *keep, Err *e) {
    const Selector *s = selector_find(c->name);
    char dir[1200];
    int list[MAX_LAYERS];
    double soft[MAX_LAYERS], lin[MAX_LAYERS];
    const SchedulerOptions scheduler = scheduler_of(p);
    SelectInput in = select_input(p, c, &scheduler);
    TRY(select_limits(p, &in, c->name, list, soft, lin, e));
    if (s->score) {
        SelectInput all = in;
        all.K = p->r->K;
        TRY(own_rows(p, s, &all, e));
        in.rows = p->rows;
    }
    TRY(select_layers(s, &in, keep, e));
    c->seconds = 0;
    if (s->score && scores_equal(p->rows, p->r->L))
        pipeline_note(p, "%s: all layers score the same, so it says nothing; the lowest layers are taken", c->name);
    const LayerScore *cost = s->score ? p->rows : s->needs & NEEDS_SCORES ? p->m.score : NULL;
    for (int l = 0; cost && l < p->r->L; l++) c->seconds += cost[l].seconds;
    if (!cost || c->K != p->r->K) return OK;
    TRY(pipeline_path(p, dir, sizeof dir, "rankings", c->name, e));
    TRY(file_mkdirs(dir, e));
    return ranking_write(cost, p->r->L, c->name, keep, dir, e);
}

/* One line of budget.csv: a set of layers, its cost, the sum of its scores above the lowest one, and whether it is the
 * run's. */
static void budget_line(TextBuf *b, const int *set, const int *keep, const double *value, double cost, int L) {
    char text[256];
    double sum = 0;
    int K = 0;
    for (int l = 0; l < L; l++) K += set[l], sum += set[l] ? value[l] : 0;
    select_text(text, sizeof text, set, L);
    textbuf_printf(b, "%d,%.9g,%.9g,%d,\"%s\"\n", K, cost, sum, !memcmp(set, keep, (size_t)L * sizeof *set), text);
}

/* The best set within each of 2L+1 budgets from the cheapest choice to the dearest. */
static int budget_costs(const Pipeline *p, TextBuf *b, const int *keep, const double *value, Err *e) {
    double soft[MAX_LAYERS], lin[MAX_LAYERS], least = 0, most = 0;
    const int L = p->r->L;
    TRY(costs_parse(p->o, p->r->L, soft, lin, e));
    for (int l = 0; l < L; l++) least += fmin(soft[l], lin[l]), most += fmax(soft[l], lin[l]);
    for (int i = 0; i <= 2 * L; i++) {
        int set[MAX_LAYERS];
        double cost = 0;
        TRY(budget_knapsack(value, soft, lin, L, least + (most - least) * i / (2 * L), set, e));
        for (int l = 0; l < L; l++) cost += set[l] ? soft[l] : lin[l];
        budget_line(b, set, keep, value, cost, L);
    }
    return OK;
}

/* The first K ranks for every K; cost: memory in MiB at memory_context. */
static void budget_memory(const Pipeline *p, TextBuf *b, const int *keep, const LayerScore *s, const double *value) {
    const double soft = (double)budget_softmax_bytes(&p->teacher.c, p->be, (long)p->o->memory_context) / 1048576;
    const double lin = (double)budget_linear_bytes(&p->teacher.c, p->be) / 1048576;
    const int L = p->r->L;
    int set[MAX_LAYERS] = {0};
    for (int K = 0; K <= L; K++) {
        for (int l = 0; l < L; l++) set[l] |= s[l].rank == K && K;
        budget_line(b, set, keep, value, K * soft + (L - K) * lin, L);
    }
}

/* budget.csv: the quality-cost curve, by what the scores promise. */
static int budget_write(const Pipeline *p, const LayerScore *s, const int *keep, Err *e) {
    char path[1200];
    TextBuf b = {0};
    const int L = p->r->L;
    double value[MAX_LAYERS], low = INFINITY;
    int rc = OK;
    for (int l = 0; l < L; l++) low = s[l].score < low ? s[l].score : low;
    for (int l = 0; l < L; l++) value[l] = isnan(s[l].score) ? 0 : s[l].score - low;
    textbuf_puts(&b, "k,cost,value,chosen,layers\n");
    if (p->o->cost_budget > 0) rc = budget_costs(p, &b, keep, value, e);
    else budget_memory(p, &b, keep, s, value);
    if (!rc) rc = textbuf_end(&b, e);
    if (!rc) rc = pipeline_path(p, path, sizeof path, "budget.csv", NULL, e);
    if (!rc) rc = file_write_all(path, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}

/* Rows of a selector that scores nothing: no scores, the chosen layers first. */
static int layout_rows(Pipeline *p, const int *keep, Err *e) {
    int rank = 0;
    if (!p->rows) TRY(rows_alloc(p, &p->rows, e));
    memset(p->rows, 0, (size_t)p->r->L * sizeof *p->rows);
    for (int pass = 0; pass < 2; pass++)
        for (int l = 0; l < p->r->L; l++) {
            if (keep[l] == pass) continue;
            score_finish(&p->rows[l], l, 0);
            p->rows[l].rank = ++rank;
        }
    return OK;
}

int pipeline_selection_clear(const Pipeline *p, Err *e) {
    static const char *const names[] = {"trajectory.csv", "budget.csv", "agreement.csv"};
    char path[1200];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        TRY(pipeline_path(p, path, sizeof path, names[i], NULL, e));
        TRY(file_remove(path, e));
    }
    TRY(pipeline_path(p, path, sizeof path, "rankings", NULL, e));
    return file_remove_tree(path, e);
}

int pipeline_selection(Pipeline *p, int *keep, double *seconds, Err *e) {
    char text[256];
    const Selector *s = selector_find(p->o->selector);
    Choice c = {.name = p->o->selector, .K = p->r->K};
    TRY(pipeline_choose(p, &c, keep, e));
    *seconds = c.seconds;
    select_text(text, sizeof text, keep, p->r->L);
    pipeline_note(p, "selected by %s: layers %s", p->o->selector, text[0] ? text : "none");
    if (!s->score && !p->m.score) {
        TRY(layout_rows(p, keep, e));
        return ranking_write(p->rows, p->r->L, p->o->selector, keep, p->dir, e);
    }
    const LayerScore *shown = s->score ? p->rows : p->m.score;
    TRY(ranking_write(shown, p->r->L, p->o->selector, keep, p->dir, e));
    TRY(budget_write(p, shown, keep, e));
    return p->m.score ? trajectory_write(p->m.score, p->r->L, p->o->official_score, p->dir, e) : OK;
}

/* agreement.csv: every pair of rankings of this run. */
int pipeline_agreement(const Pipeline *p, Err *e) {
    char path[1200];
    TextBuf b = {0};
    const int L = p->r->L;
    if (p->rankings < 2) return OK;
    textbuf_puts(&b, "a,b,kendall,spearman,jaccard\n");
    for (int i = 0; i < p->rankings; i++)
        for (int k = 0; k < p->rankings; k++) {
            const int *x = p->ranking[i].order, *y = p->ranking[k].order;
            textbuf_printf(&b, "%s,%s,%.6g,%.6g,%.6g\n", p->ranking[i].name, p->ranking[k].name,
                           select_kendall(x, y, L), select_spearman(x, y, L), select_jaccard(x, y, L, p->r->K));
        }
    int rc = textbuf_end(&b, e);
    if (!rc) rc = pipeline_path(p, path, sizeof path, "agreement.csv", NULL, e);
    if (!rc) rc = file_write_all(path, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}
