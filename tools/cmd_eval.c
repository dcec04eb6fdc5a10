/* cmd_eval.c - how good is a model: perplexity on a text, distance to its teacher, recall;
 * question sets are in cmd_eval_tasks.c. */
#include "base/mem.h"
#include "eval/perplexity.h"
#include "eval/recall.h"
#include "io/hf.h"
#include "base/json.h"
#include "run/pretrain.h"
#include "text/corpus.h"
#include "tools/cmd_eval.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

typedef EvalOptions Options;
#define AT(f) offsetof(Options, f)
static const Option rows[] = {
    {"task", "what to measure: one of the above, or a list of question sets", OPT_TEXT, AT(task), 0, 1024, NULL,
     AFFECTS_EVALUATION},
    {"text", "(ppl, kl) " TEXT_HELP "; its documents are one stream of tokens", OPT_PATHS, AT(text), 0, 4096, NULL,
     AFFECTS_EVALUATION},
    {"text_field", TEXT_FIELD_HELP, OPT_TEXT, AT(text_field), 0, 128, NULL, AFFECTS_EVALUATION},
    {"ids", "token ids instead of a text: a JSON list, or {\"ids\": [...]}", OPT_PATH, AT(ids), 0, 1024, NULL,
     AFFECTS_EVALUATION},
    {"seq_len", "window length in tokens", OPT_INT, AT(seq_len), 2, 1 << 24, NULL, AFFECTS_EVALUATION},
    {"batch_size", "windows that run at once; 0: about 2048 tokens", OPT_INT, AT(batch_size), 0, 65536, NULL,
     AFFECTS_EVALUATION},
    {"max_tokens", "tokens that are used, from the first on; 0: all", OPT_I64, AT(max_tokens), 0, 1e15, NULL,
     AFFECTS_EVALUATION},
    {"teacher", "model directory of the teacher (kl)", OPT_PATH, AT(teacher), 0, 1024, NULL, AFFECTS_EVALUATION},
    {"logit_base", "queries of softmax layers times ln(t + base) / ln(base) at position t; 0: as config.json says",
     OPT_REAL, AT(logit_base), 0, 1e30, NULL, AFFECTS_EVALUATION | AFFECTS_IF_SET},
    {"recall_keys", "characters that keys are drawn from (recall)", OPT_TEXT, AT(recall_keys), 0, 128, NULL,
     AFFECTS_EVALUATION},
    {"recall_values", "characters of values; empty: the keys' set", OPT_TEXT, AT(recall_values), 0, 128, NULL,
     AFFECTS_EVALUATION},
    {"recall_n", "numbers of pairs", OPT_TEXT, AT(recall_n), 0, 64, NULL, AFFECTS_EVALUATION},
    {"recall_rows", "sequences per number of pairs", OPT_INT, AT(recall_rows), 1, 1 << 20, NULL, AFFECTS_EVALUATION},
    {"recall_queries", "questions per sequence", OPT_INT, AT(recall_queries), 1, 1 << 20, NULL, AFFECTS_EVALUATION},
    {"passes", "mqar: how often the pairs are shown; 2 is \"just read twice\"", OPT_INT, AT(passes), 1, 64, NULL,
     AFFECTS_EVALUATION},
    {"gram", "ngram: tokens of a key", OPT_INT, AT(gram), 1, 8, NULL, AFFECTS_EVALUATION},
    {"power", "mqar...: exponent of the law of gaps", OPT_REAL, AT(power), 1e-9, 1, NULL, AFFECTS_EVALUATION},
    {"random_filler", "mqar...: other positions hold random tokens instead of token 0", OPT_BOOL, AT(random_filler), 0,
     0, NULL, AFFECTS_EVALUATION},
    {"probe_vocab", "probes of token ids: how many ids, from 0 on, are used; 0: all", OPT_INT, AT(probe_vocab), 0,
     1 << 24, NULL, AFFECTS_EVALUATION},
    {"data", "folder of the question sets", OPT_PATH, AT(data), 0, 1024, NULL, AFFECTS_EVALUATION},
    {"max_len", "length of RULER's questions in tokens", OPT_INT, AT(max_len), 256, 1 << 20, NULL, AFFECTS_EVALUATION},
    {"samples", "RULER: questions of a task", OPT_INT, AT(samples), 1, 1 << 20, NULL, AFFECTS_EVALUATION},
    {"limit", "questions of a task that are asked, from the first on; 0: all", OPT_INT, AT(limit), 0, 1 << 24, NULL,
     AFFECTS_EVALUATION},
    {"seeds", "RULER: seed before each task, or once for all tasks in the order given", OPT_CHOICE, AT(seeds), 0, 0,
     "per-task|chained", AFFECTS_EVALUATION},
    {"ruler_flavour", "RULER: samples and scores as lm-evaluation-harness or as NVIDIA's scripts make them", OPT_CHOICE,
     AT(flavour), 0, 0, "lmeval|nvidia|lite", AFFECTS_EVALUATION},
    {"tokenizer", "RULER: count tokens with a stub instead of the model's tokenizer", OPT_CHOICE, AT(tokenizer), 0, 0,
     "model|byte|simple", AFFECTS_EVALUATION},
    {"needle", "heatmap: which needle task", OPT_TEXT, AT(heat_task), 0, 64, NULL, AFFECTS_EVALUATION},
    {"lengths", "heatmap: lengths in tokens, answer included", OPT_TEXT, AT(lengths), 0, 256, NULL, AFFECTS_EVALUATION},
    {"depths", "heatmap: places of the needle, from the front to the end", OPT_INT, AT(depths), 2, 64, NULL,
     AFFECTS_EVALUATION},
    {"needles", "heatmap: samples of a cell", OPT_INT, AT(heat_samples), 1, 10000, NULL, AFFECTS_EVALUATION},
    {"new_tokens", "heatmap: tokens of an answer", OPT_INT, AT(new_tokens), 1, 4096, NULL, AFFECTS_EVALUATION},
    {"pairs", "diagnostic tasks: key-value pairs of a question", OPT_INT, AT(pairs), 3, 128, NULL, AFFECTS_EVALUATION},
    {"shots", "mmlu: answered examples before each question", OPT_INT, AT(shots), 0, 5, NULL, AFFECTS_EVALUATION},
    {"protocol",
     "swde, fda, squad_completion: the harness's version 0 or 1, or that of the Based and just-read-twice "
     "papers",
     OPT_CHOICE, AT(protocol), 0, 0, "v0|v1|jrt|twice", AFFECTS_EVALUATION},
    {"window", "protocols jrt and twice: tokens around the answer that are kept; 0: all (the papers: 1000, 2000)",
     OPT_INT, AT(window), 0, 1 << 20, NULL, AFFECTS_EVALUATION},
    {"no_answer_threshold", "squadv2: answers after which \"unanswerable\" is likelier than this count as none",
     OPT_REAL, AT(no_answer), 1e-12, 1, NULL, AFFECTS_EVALUATION},
    {"max_length", "context of the model in tokens; 0: its own; longer prompts lose their beginning", OPT_INT,
     AT(max_length), 0, 1 << 24, NULL, AFFECTS_EVALUATION},
    {"add_bos", "prompts begin with what the tokenizer adds", OPT_BOOL, AT(add_bos), 0, 0, NULL, AFFECTS_EVALUATION},
    {"emit", "write the questions to this file (- is stdout), one JSON object a line, and stop: needs no model",
     OPT_PATH, AT(emit), 0, 1024, NULL, AFFECTS_EVALUATION},
    {"log_samples", "write every question, answer and score to this file, one JSON object a line", OPT_PATH,
     AT(log_samples), 0, 1024, NULL, AFFECTS_EVALUATION},
};
static const OptionTable table = {rows, sizeof rows / sizeof *rows};
static const OptionTable *get_table(void) { return &table; }
static void defaults(void *p) {
    Options *o = p;
    snprintf(o->task, sizeof o->task, "ppl");
    o->seq_len = 512;
    o->max_len = 4096;
    o->samples = 500;
    o->passes = 1;
    o->gram = 2;
    o->power = 0.01;
    o->random_filler = 1;
    snprintf(o->heat_task, sizeof o->heat_task, "niah_single_2");
    snprintf(o->lengths, sizeof o->lengths, "1024,2048,4096");
    o->depths = 11;
    o->heat_samples = 5;
    o->new_tokens = 32;
    o->pairs = 50;
    o->no_answer = 1;
    o->recall_rows = 64;
    o->recall_queries = 16;
    snprintf(o->recall_keys, sizeof o->recall_keys, "A-Za-z");
    snprintf(o->recall_n, sizeof o->recall_n, "4,8,16");
}
static const CliOptions options = {get_table, sizeof(Options), defaults, NULL};

static int ids_open(Ids *ids, const Cli *c, const Session *s, const Options *o, Err *e) {
    if (!o->text[0] == !o->ids[0]) {
        err_set(e, ERR_USAGE, "eval: %s",
                o->text[0] ? "--text and --ids exclude each other" : "--text FILE or --ids FILE is required");
        return err_hint(e, "usage: hybridize eval --task ppl -m MODEL --text FILE --seq-len N");
    }
    if (!o->ids[0]) return session_text_ids(ids, c, s->tokenizer, o->text, o->text_field, (size_t)o->max_tokens, e);
    TRY(session_json_ids(ids, o->ids, s->m.c.VOC, e));
    if (o->max_tokens && ids->n > (size_t)o->max_tokens) ids->n = (size_t)o->max_tokens;
    return OK;
}

/* ---- results ---- */

static void ppl_json(JsonOut *o, const Perplexity *r) {
    json_out_real(o, "nll_per_token", r->nll);
    json_out_real(o, "nll_stderr", r->nll_se);
    json_out_real(o, "perplexity", r->perplexity);
    json_out_real(o, "accuracy", r->accuracy);
    json_out_int(o, "predictions", r->predictions);
    json_out_int(o, "windows", r->windows);
    json_out_int(o, "seq_len", r->T);
}

static void ppl_text(const char *who, const Perplexity *r) {
    printf("%s%snll_per_token  %.6f", who, *who ? " " : "", r->nll);
    if (isfinite(r->nll_se)) printf(" +- %.6f", r->nll_se);
    printf("\n%s%sperplexity     %.6f\n%s%saccuracy       %.4f\n%s%spredictions    %lld in %lld windows of %d\n", who,
           *who ? " " : "", r->perplexity, who, *who ? " " : "", r->accuracy, who, *who ? " " : "",
           (long long)r->predictions, (long long)r->windows, r->T);
}

static int json_begin(JsonOut *o, const Cli *c, const char *task) {
    json_out_begin(o, 1);
    json_out_object(o, NULL);
    json_out_str(o, "task", task);
    json_out_str(o, "model", c->common.model);
    json_out_str(o, "device", c->common.device);
    return OK;
}
static int json_end(JsonOut *o, Err *e) {
    json_out_close(o);
    const int rc = json_out_end(o, e);
    if (!rc) puts(o->text);
    json_out_free(o);
    return rc;
}

static int run_ppl(Cli *c, Session *s, Err *e) {
    const Options *o = c->options[0];
    Ids ids = {0};
    Perplexity r = {0};
    JsonOut out;
    int rc = ids_open(&ids, c, s, o, e);
    if (!rc) rc = perplexity_run(&r, &s->m, ids.id, ids.n, o->seq_len, o->batch_size, &c->progress, e);
    if (!rc && c->common.json) {
        json_begin(&out, c, "ppl");
        ppl_json(&out, &r);
        rc = json_end(&out, e);
    } else if (!rc) ppl_text("", &r);
    ids_free(&ids);
    return rc;
}

static int run_kl(Cli *c, Session *s, Err *e) {
    const Options *o = c->options[0];
    Ids ids = {0};
    Model teacher = {0};
    Divergence r = {0};
    JsonOut out;
    TRY(cli_require(c, o->teacher, "--teacher DIR", e));
    int rc = ids_open(&ids, c, s, o, e);
    if (!rc) rc = tokenizers_meet(c->common.model, o->teacher, e);
    if (!rc) rc = hf_load_model(&teacher, o->teacher, s->be, GRAD_NONE, e);
    if (!rc) model_prepack(&teacher, 0);
    if (!rc) rc = divergence_run(&r, &teacher, &s->m, ids.id, ids.n, o->seq_len, o->batch_size, &c->progress, e);
    if (!rc && c->common.json) {
        json_begin(&out, c, "kl");
        json_out_str(&out, "teacher", o->teacher);
        json_out_real(&out, "kl_per_token", r.kl);
        json_out_real(&out, "kl_stderr", r.kl_se);
        json_out_real(&out, "top1_agreement", r.agreement);
        ppl_json(&out, &r.student);
        json_out_object(&out, "teacher_result");
        ppl_json(&out, &r.teacher);
        json_out_close(&out);
        rc = json_end(&out, e);
    } else if (!rc) {
        printf("kl_per_token   %.6f", r.kl);
        if (isfinite(r.kl_se)) printf(" +- %.6f", r.kl_se);
        printf("\ntop1_agreement %.4f\n", r.agreement);
        ppl_text("student", &r.student);
        ppl_text("teacher", &r.teacher);
    }
    model_close(&teacher);
    ids_free(&ids);
    return rc;
}

/* ---- recall ---- */

static int run_recall(Cli *c, Session *s, Err *e) {
    const Options *o = c->options[0];
    int n[RECALL_MAX_N], count = 0, *key = NULL, *value = NULL;
    double accuracy[RECALL_MAX_N], mean = 0;
    RecallSpec spec = {.disjoint = !o->recall_values[0]};
    Recall r = {0};
    JsonOut out;
    TRY(list_parse(o->recall_n, n, RECALL_MAX_N, &count, 1, 1 << 20, "recall_n", e));
    int rc = recall_alphabet(&key, &spec.n_key, s->tokenizer, o->recall_keys, e);
    if (!rc && o->recall_values[0]) rc = recall_alphabet(&value, &spec.n_value, s->tokenizer, o->recall_values, e);
    spec.key = key;
    spec.value = value;
    if (!rc) rc = recall_open(&r, &spec, n, count, o->recall_rows, o->recall_queries, c->common.seed, s->m.c.VOC, e);
    if (!rc) rc = recall_run(&r, &s->m, NULL, NULL, accuracy, &mean, e);
    if (!rc && c->common.json) {
        json_begin(&out, c, "recall");
        json_out_object(&out, "accuracy");
        for (int i = 0; i < count; i++) {
            char name[16];
            snprintf(name, sizeof name, "%d", n[i]);
            json_out_real(&out, name, accuracy[i]);
        }
        json_out_close(&out);
        json_out_real(&out, "mean", mean);
        rc = json_end(&out, e);
    } else if (!rc) {
        for (int i = 0; i < count; i++) printf("recall %3d pairs  %.4f\n", n[i], accuracy[i]);
        printf("recall mean       %.4f\n", mean);
    }
    recall_close(&r);
    mem_free(key);
    mem_free(value);
    return rc;
}

static const struct {
    const char *name;
    int (*run)(Cli *c, Session *s, Err *e);
} measures[] = {{"ppl", run_ppl},
                {"kl", run_kl},
                {"kl_stats", eval_klstats},
                {"recall", run_recall},
                {"heatmap", eval_heatmap},
                {"mqar", eval_mqar},
                {"mqar_forgetting", eval_mqar},
                {"mqar_compositional", eval_mqar},
                {"parity", eval_mqar},
                {"majority", eval_mqar},
                {"copy", eval_mqar},
                {"ngram", eval_mqar}};

static int eval(Cli *c, Err *e) {
    const Options *o = c->options[0];
    for (size_t i = 0; i < sizeof measures / sizeof *measures; i++) {
        Session s;
        if (strcmp(o->task, measures[i].name)) continue;
        TRY(session_open(&s, c,
                         measures[i].run == run_recall || measures[i].run == eval_klstats ||
                             measures[i].run == eval_heatmap || !o->ids[0],
                         e));
        int rc = session_logit_base(&s, o->logit_base, e);
        model_prepack(&s.m, 0);
        if (!rc) rc = measures[i].run(c, &s, e);
        session_close(&s);
        return rc;
    }
    return eval_tasks(c, o, e);
}

const Command cmd_eval = {
    .name = "eval",
    .summary = "Measures a model: perplexity on a text, KL to its teacher, recall, and question sets as "
               "lm-evaluation-harness asks them.",
    .usage = "--task TASK[,TASK...] -m MODEL (--text FILE | --ids FILE.json | --data DIR) [options]",
    .details = "Text (--text; the stream is cut into windows of --seq-len tokens, the last partial one "
               "dropped unless it is the only one; "
               "each starts\n"
               "from a fresh state; units are nats):\n"
               "  ppl       perplexity          kl        KL to --teacher, and both perplexities\n"
               "  kl_stats  KL to --teacher: mean, median, quantiles, same top token; split by \"continues a "
               "bigram seen in this window\"\n"
               "Recall probes (no data; --recall-n sizes, --recall-rows sequences):\n"
               "  recall    k1 v1 ... kn vn, then keys again, letters of --recall-keys\n"
               "  mqar, mqar_forgetting, mqar_compositional, parity, majority   zoology's, over the whole "
               "vocabulary; --passes 2: read twice\n"
               "  copy      a random block twice          ngram     keys of --gram tokens\n"
               "  diagnostic_retrieval, diagnostic_ar, diagnostic_ar_mh, diagnostic_vt, diagnostic_cwe, "
               "diagnostic_fwe, phone_book   the "
               "diagnostic tasks of the official "
               "code\n"
               "Needles and long texts (--data; --max-len tokens, --samples questions a task):\n"
               "  ruler     all 13: niah_single_1..3, niah_multikey_1..3, niah_multiquery, niah_multivalue, "
               "ruler_vt, ruler_cwe, ruler_fwe,\n"
               "            ruler_qa_squad, ruler_qa_hotpot; --ruler-flavour lmeval|nvidia|lite, --seeds "
               "per-task|chained\n"
               "  heatmap   a needle task (--needle) over --lengths and --depths; -o DIR: heatmap.csv and "
               "heatmap.svg\n"
               "Completion (--data; greedy text):\n"
               "  swde, fda, squad_completion (--protocol), squadv2 (exact and F1 with thresholds), gsm8k\n"
               "Multiple choice and log-likelihoods (--data):\n"
               "  piqa, hellaswag, arc_easy, arc_challenge, winogrande, openbookqa, social_iqa, boolq, sciq, "
               "mmlu, lambada_openai, wikitext\n"
               "Question sets can be listed with commas. -o DIR keeps results.json and what is finished: "
               "--resume asks only what is missing.",
    .common = CLI_MODEL | CLI_OUTPUT | CLI_SEED | CLI_BACKEND | CLI_JSON | CLI_RESUME,
    .options = {&options},
    .run = eval,
};
