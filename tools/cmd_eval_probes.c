/* cmd_eval_probes.c - recall probes of plain token ids, and KL statistics against a base model. */
#include "eval/klstats.h"
#include "eval/mqar.h"
#include "eval/recall.h"
#include "io/hf.h"
#include "base/json.h"
#include "run/pretrain.h"
#include "tools/cmd_eval.h"
#include <math.h>
#include <string.h>

static int finish(JsonOut *o, Err *e) {
    json_out_close(o);
    const int rc = json_out_end(o, e);
    if (!rc) puts(o->text);
    json_out_free(o);
    return rc;
}

/* What is counted: pairs, tokens of a block, or nothing but the length. */
static const char *unit_of(ProbeKind k) {
    return k == PROBE_COPY ? "tokens" : k == PROBE_PARITY || k == PROBE_MAJORITY ? "bits" : "pairs";
}

static int probe_run(const EvalOptions *o, Session *s, ProbeKind kind, int n, uint64_t seed, MqarResult *r, Err *e) {
    const int bits = kind == PROBE_PARITY || kind == PROBE_MAJORITY;
    MqarSpec spec = {.kind = kind,
                     .vocab = o->probe_vocab ? o->probe_vocab : s->m.c.VOC,
                     .T = bits ? n + 1 : o->seq_len,
                     .n = n,
                     .passes = o->passes,
                     .updates = n / 2 > 0 ? n / 2 : 1,
                     .gram = o->gram,
                     .power = o->power,
                     .random_filler = o->random_filler};
    spec.T = mqar_length(&spec);
    return mqar_run(&spec, &s->m, o->recall_rows, seed, r, e);
}

int eval_mqar(Cli *c, Session *s, Err *e) {
    const EvalOptions *o = c->options[0];
    const ProbeKind kind = (ProbeKind)mqar_find(o->task);
    int n[RECALL_MAX_N], count = 0;
    MqarResult r[RECALL_MAX_N];
    JsonOut out;
    TRY(list_parse(o->recall_n, n, RECALL_MAX_N, &count, 1, 1 << 20, "recall_n", e));
    for (int i = 0; i < count; i++) TRY(probe_run(o, s, kind, n[i], c->common.seed, &r[i], e));
    if (!c->common.json) {
        for (int i = 0; i < count; i++)
            printf("%s %5d %s  accuracy %.4f +- %.4f  loss %.4f\n", o->task, n[i], unit_of(kind), r[i].accuracy,
                   r[i].accuracy_se, r[i].loss);
        return OK;
    }
    json_out_begin(&out, 1);
    json_out_object(&out, NULL);
    json_out_object(&out, "results");
    for (int i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_%d", mqar_name(kind), n[i]);
        json_out_object(&out, name);
        json_out_real(&out, "acc,none", r[i].accuracy);
        json_out_real(&out, "acc_stderr,none", r[i].accuracy_se);
        json_out_real(&out, "loss,none", r[i].loss);
        json_out_close(&out);
    }
    json_out_close(&out);
    return finish(&out, e);
}

static void stats_json(JsonOut *o, const char *name, const KlStats *s) {
    json_out_object(o, name);
    json_out_int(o, "positions", s->positions);
    json_out_real(o, "kl_mean", s->mean);
    json_out_real(o, "kl_stderr", s->se);
    json_out_real(o, "kl_min", s->min);
    json_out_real(o, "kl_median", s->median);
    json_out_real(o, "kl_q10", s->q10);
    json_out_real(o, "kl_q90", s->q90);
    json_out_real(o, "kl_q999", s->q999);
    json_out_real(o, "kl_q01", s->q01);
    json_out_real(o, "kl_q05", s->q05);
    json_out_real(o, "kl_q95", s->q95);
    json_out_real(o, "kl_q99", s->q99);
    json_out_real(o, "kl_max", s->max);
    json_out_real(o, "same_top", s->same_top);
    json_out_real(o, "same_top_stderr", s->same_top_se);
    json_out_real(o, "dp_mean", s->dp_mean);
    json_out_real(o, "dp_mean_stderr", s->dp_mean_se);
    json_out_real(o, "dp_rms", s->dp_rms);
    json_out_real(o, "nll_correlation", s->correlation);
    json_out_real(o, "perplexity", exp(s->nll));
    json_out_real(o, "perplexity_base", exp(s->nll_base));
    json_out_real(o, "perplexity_ratio", exp(s->delta));
    json_out_real(o, "nll", s->nll);
    json_out_real(o, "nll_base", s->nll_base);
    json_out_real(o, "nll_difference", s->delta);
    json_out_real(o, "nll_difference_stderr", s->delta_se);
    json_out_close(o);
}

static void stats_print(const char *name, const KlStats *s) {
    printf("%-5s %8lld positions  kl %.6f +- %.6f  median %.6f  1%% %.6f  90%% %.6f  99%% %.6f  99.9%% %.6f  "
           "max %.6f\n",
           name, (long long)s->positions, s->mean, s->se, s->median, s->q01, s->q90, s->q99, s->q999, s->max);
    printf("%-5s same top token %.4f +- %.4f  nll %.6f  base %.6f  difference %.6f +- %.6f  perplexity ratio "
           "%.6f\n",
           name, s->same_top, s->same_top_se, s->nll, s->nll_base, s->delta, s->delta_se, exp(s->delta));
    printf("%-5s p of the text's token, model - base: mean %.6f +- %.6f  rms %.6f  correlation of "
           "cross-entropies %.4f\n",
           name, s->dp_mean, s->dp_mean_se, s->dp_rms, s->correlation);
}

int eval_klstats(Cli *c, Session *s, Err *e) {
    const EvalOptions *o = c->options[0];
    Ids ids = {0};
    Model base = {0};
    KlReport r;
    JsonOut out;
    TRY(cli_require(c, o->teacher, "--teacher DIR", e));
    TRY(cli_require(c, o->text, "--text FILE", e));
    int rc = session_text_ids(&ids, c, s->tokenizer, o->text, o->text_field, (size_t)o->max_tokens, e);
    if (!rc) rc = tokenizers_meet(c->common.model, o->teacher, e);
    if (!rc) rc = hf_load_model(&base, o->teacher, s->be, GRAD_NONE, e);
    if (!rc) model_prepack(&base, 0);
    if (!rc) rc = klstats_run(&r, &base, &s->m, ids.id, ids.n, o->seq_len, &c->progress, e);
    if (!rc && c->common.json) {
        json_out_begin(&out, 1);
        json_out_object(&out, NULL);
        json_out_str(&out, "model", c->common.model);
        json_out_str(&out, "base", o->teacher);
        stats_json(&out, "all", &r.all);
        stats_json(&out, "bigram_seen", &r.seen);
        stats_json(&out, "bigram_new", &r.fresh);
        rc = finish(&out, e);
    } else if (!rc) {
        stats_print("all", &r.all);
        stats_print("seen", &r.seen);
        stats_print("new", &r.fresh);
        puts("seen: this token and the next stood side by side earlier in the window; new: they did not");
    }
    model_close(&base);
    ids_free(&ids);
    return rc;
}
