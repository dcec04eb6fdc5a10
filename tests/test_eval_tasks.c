/* test_eval_tasks.c - scoring, splitting and asking: fake models on all generated tasks, real ones batched against one
 * by one. */
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "eval/answers.h"
#include "eval/choice.h"
#include "eval/klstats.h"
#include "eval/mqar.h"
#include "eval/questions.h"
#include "eval/score.h"
#include "eval/task_parts.h"
#include "eval/tasks.h"
#include "io/hf.h"
#include "model/generate.h"
#include "model/mixer.h"
#include "model/ragged.h"
#include "tests/suite.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void ok(int rc, const Err *e) {
    if (rc) ck_abort_msg("code %d: %s (%s)", rc, e->msg, e->hint);
}
static void near(double got, double want) {
    ck_assert_msg(fabs(got - want) < 1e-9, "got %.12g, want %.12g", got, want);
}

/* ---- scores ---- */

START_TEST(test_match) {
    char *two[] = {"Apple", "JALAPE\xc3\x91O"};
    double s;
    Err e = {0};
    static const struct {
        const char *text;
        double want;
    } row[] = {{"", 0},        {"an aPPle", .5},      {"jalape\xc3\xb1o pie with apple", 1},
               {"app\nle", 0}, {"\t apple \x01", .5}, {"pineapples", .5}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        ok(score_match(row[i].text, two, 2, 0, &s, &e), &e);
        near(s, row[i].want);
    }
    char *same[] = {"x", "x", "y"}; // a mean over the answers, not any of them
    ok(score_match("x", same, 3, 0, &s, &e), &e);
    near(s, 2 / 3.);
    ok(score_match("x", same, 3, 1, &s, &e), &e); // NVIDIA: any
    near(s, 1);
    ok(score_contains(" the 42 kg", "42 KG", &s, &e), &e);
    near(s, 1);
    ok(score_contains("42", " 42", &s, &e), &e); // a leading space must match too
    near(s, 0);
}
END_TEST

START_TEST(test_squad) {
    char *gold[] = {"The Eiffel Tower", "the a"};
    static const struct {
        const char *text;
        double exact, f1;
    } row[] = {{"eiffel  tower!", 1, 1}, {"tower", 0, 2 / 3.}, {"a tower tower", 0, .5}, {"Paris", 0, 0}, {"", 0, 0}};
    double exact, f1;
    Err e = {0};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        ok(score_squad(row[i].text, gold, 2, &exact, &f1, &e), &e);
        near(exact, row[i].exact);
        near(f1, row[i].f1);
    }
    ok(score_squad("the", NULL, 0, &exact, &f1, &e), &e); // unanswerable: the empty answer
    near(exact + f1, 2);
    ok(score_squad("x", NULL, 0, &exact, &f1, &e), &e);
    near(exact + f1, 0);
}
END_TEST

/* What differs where a text is not ASCII: blanks, words, capitals. Golden from the official script. */
START_TEST(test_squad_unicode) {
    static const struct {
        const char *text, *gold;
        double exact;
    } row[] = {{"the\xc2\xa0tower", "tower", 1},                    // U+00A0 separates
               {"a\xe2\x80\x83tower\xe3\x80\x80of", "tower of", 1}, // U+2003, U+3000
               {"tower\xe2\x80\x93the\xe2\x80\x93"
                "end",
                "tower\xe2\x80\x93 \xe2\x80\x93"
                "end",
                1},                                                                        // an article beside dashes
               {"\xe2\x80\x9cThe tower\xe2\x80\x9d", "\xe2\x80\x9c tower\xe2\x80\x9d", 1}, // and beside a curly quote
               {"the_end", "theend", 1},                                                   // punctuation goes first
               {"ath\xc3\xa9", "ath\xc3\xa9", 1},                                          // no article in a word
               {"\xc3\xa9"
                "a",
                "\xc3\xa9"
                "a",
                1},
               {"VI\xe1\xbb\x86T NAM", "Vi\xe1\xbb\x87t Nam", 1},                           // Vietnamese
               {"\xce\x9f\xce\x94\xce\x9f\xce\xa3", "\xce\xbf\xce\xb4\xce\xbf\xcf\x82", 1}, // the last sigma
               {"\xd4\xb1", "\xd5\xa1", 1},                                                 // Armenian
               {"\xef\xbc\xa1", "\xef\xbd\x81", 1},                                         // full width
               {"\xc4\xb0", "i\xcc\x87", 1}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char *gold[] = {(char *)(uintptr_t)row[i].gold};
        double exact, f1;
        Err e = {0};
        ok(score_squad(row[i].text, gold, 1, &exact, &f1, &e), &e);
        ck_assert_msg(exact == row[i].exact, "%zu: '%s' and '%s': %g", i, row[i].text, row[i].gold, exact);
    }
}
END_TEST

/* gsm8k's scores as the harness's regular expressions give them: strict, flexible. */
START_TEST(test_numbers) {
    static const struct {
        const char *text, *gold;
        double strict, flexible;
    } row[] = {{"So 72.\n#### 72", "72", 1, 1},
               {"#### Step 1: ..\n#### 72", "72", 1, 1}, // the first mark that has a number
               {"#### 5-3", "5", 1, 0},
               {"#### 5-3", "-3", 0, 1},
               {"18 dollars...", "18", 0, 0}, // "..." is a match of its own
               {"-$18", "18", 0, 0},
               {"3..", "3", 0, 0},
               {"3.", "3", 0, 1},
               {"$1,234.", "1234", 0, 1},
               {"#### 1,234", "1234", 1, 1},
               {"#### -7.", "-7", 1, 1},
               {"####72", "72", 0, 1},
               {"the answer is 7 or 8", "8", 0, 1},
               {"no number", "7", 0, 0},
               {"", "7", 0, 0},
               {"a - 5", "5", 0, 1},
               {"12#### 13 #### 14", "13", 1, 0}};
    const EvalTask *t = task_find("gsm8k");
    const EvalSet set = {0};
    ck_assert_ptr_nonnull(t);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char *gold[] = {(char *)(uintptr_t)row[i].gold};
        const EvalDoc d = {.text = gold, .n_text = 1};
        double score[4] = {-1, -1};
        Err e = {0};
        ok(task_text_scores(t, &set, &d, row[i].text, 0, score, &e), &e);
        ck_assert_msg(score[0] == row[i].strict && score[1] == row[i].flexible, "'%s' against %s: %g %g", row[i].text,
                      row[i].gold, score[0], score[1]);
    }
}
END_TEST

START_TEST(test_ties) {
    char *text[] = {" aa", " \xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", " bb"};
    const double tie[] = {-2, -4, -2}, norm[] = {-2, -3.9, -2.5};
    Choice c = choice_score(tie, text, 3, 0);
    // 2/2 and 4/4 characters: the first one
    ck_assert(c.pick == 0 && c.pick_norm == 0 && c.acc == 1 && c.acc_norm == 1);
    c = choice_score(norm, text, 3, 1);
    ck_assert(c.pick == 0 && c.pick_norm == 1 && c.acc == 0 && c.acc_norm == 1);
    ck_assert_uint_eq(choice_length("\xc3\xa9x"), 2);
    double mean, se, x[] = {1, 0, 0, 1};
    score_mean(x, 4, &mean, &se);
    near(mean, .5);
    near(se, sqrt(1 / 3.) / 2);
    score_mean(x, 1, &mean, &se);
    ck_assert(isnan(se));
}
END_TEST

/* ---- a small world: word lists, essay and question sets ---- */

static char world[64];

static void put(const char *name, const char *text, size_t n) {
    char path[256], *slash;
    Err e = {0};
    snprintf(path, sizeof path, "%s/%s", world, name);
    slash = strrchr(path, '/');
    *slash = 0;
    ok(file_mkdirs(path, &e), &e);
    *slash = '/';
    ok(file_write_all(path, text, n, &e), &e);
}

static void put_words(const char *name, const char *stem, int n) {
    TextBuf b = {0};
    for (int i = 0; i < n; i++) textbuf_printf(&b, "%s%c%c\n", stem, 'a' + i / 26, 'a' + i % 26);
    put(name, b.text, b.len);
    textbuf_free(&b);
}

static void world_open(void) {
    TextBuf text = {0}, spans = {0}, squad = {0}, hotpot = {0};
    Err e = {0};
    snprintf(world, sizeof world, "build/world_XXXXXX");
    ok(file_mkdirs("build", &e), &e);
    ck_assert(mkdtemp(world) != NULL);
    put_words("wonderwords/nounlist.txt", "noun", 300);
    put_words("wonderwords/adjectivelist.txt", "adj", 50);
    put_words("wonderwords/verblist.txt", "verb", 40);
    for (int i = 0; i < 1500; i++) { // sentences of seven words
        const size_t begin = text.len + (i > 0);
        textbuf_printf(&text, "%sIn year %d it rained all day.", i ? " " : "", i);
        textbuf_printf(&spans, "%zu\t%zu\n", begin, text.len);
    }
    put("ruler_essays/essay_words.txt", text.text, text.len);
    put("ruler_essays/essay_sentences.tsv", spans.text, spans.len);
    textbuf_puts(&squad, "{\"data\":[");
    textbuf_puts(&hotpot, "[");
    for (int i = 0; i < 40; i++) {
        textbuf_printf(&squad,
                       "%s{\"title\":\"T%d\",\"paragraphs\":[{\"context\":\"Town %d has %d "
                       "wells.\",\"qas\":[{\"question\":\"How many wells has town "
                       "%d?\",\"is_impossible\":false,\"answers\":[{\"text\":\"%d\"},{\"text\":\"%d "
                       "wells\"}]},{\"question\":\"Who?\","
                       "\"is_impossible\":true,\"answers\":[]}]},{\"context\":\"More on T%d.\",\"qas\":[]}]}",
                       i ? "," : "", i, i, 100 + i, i, 100 + i, 100 + i, i);
        textbuf_printf(&hotpot, "%s{\"question\":\"Where is river %d?\",\"answer\":\"in land %d\",\"context\":[",
                       i ? "," : "", i, i);
        for (int k = 0; k < 10; k++)
            textbuf_printf(&hotpot, "%s[\"R%d\",[\"River %d\",\" is in land %d.\"]]", k ? "," : "", i + k, i + k,
                           i + k);
        textbuf_puts(&hotpot, "]}");
    }
    textbuf_puts(&squad, "]}");
    textbuf_puts(&hotpot, "]");
    put("squad_v2/dev-v2.0.json", squad.text, squad.len);
    put("hotpotqa/hotpot_dev_distractor_v1.json", hotpot.text, hotpot.len);
    TextBuf *b[] = {&text, &spans, &squad, &hotpot};
    for (int i = 0; i < 4; i++) textbuf_free(b[i]);
}
static void world_close(void) {
    Err e = {0};
    ok(file_remove_tree(world, &e), &e);
}

/* ---- fake models ---- */

/* Where the last n "simple" tokens of a text begin: dropping whole tokens from the front until n are left. */
static const char *last_tokens(const char *text, size_t n) {
    TokenCount c = {.kind = COUNT_SIMPLE};
    size_t all, left, from = 0, to = strlen(text);
    Err e = {0};
    ok(token_count(&c, text, to, &all, &e), &e);
    // a cut is at a token's border where the rest has as many tokens as are missing
    for (size_t at = to > 4000 ? to - 4000 : from; all > n && at < to; at++) {
        size_t head;
        ok(token_count(&c, text + at, to - at, &left, &e), &e);
        if (left != n) continue;
        ok(token_count(&c, text, at, &head, &e), &e);
        if (head + left == all) return text + at;
    }
    return text;
}

static int fake(const EvalDoc *doc, size_t n, char ***text, int echo, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, (n + 1) * sizeof(char *), "fake", e));
    *text = mem;
    for (size_t i = 0; i < n; i++) {
        TextBuf b = {0};
        const char *prompt = doc[i].context[0];
        if (echo) textbuf_puts(&b, last_tokens(prompt, 200));
        for (int k = 0; k < doc[i].n_text && !echo; k++) textbuf_printf(&b, " %s,", doc[i].text[k]);
        (*text)[i] = b.text;
    }
    return OK;
}
static int copies_gold(void *ctx, const EvalDoc *doc, size_t n, int max_new, const char *const *until, char ***text,
                       Err *e) {
    (void)ctx, (void)max_new, (void)until;
    return fake(doc, n, text, 0, e);
}
static int echoes(void *ctx, const EvalDoc *doc, size_t n, int max_new, const char *const *until, char ***text,
                  Err *e) {
    (void)ctx, (void)max_new, (void)until;
    return fake(doc, n, text, 1, e);
}

/* What the echo of the last 200 tokens scores: mean over 20 questions at 2048 "simple" tokens, seed 42. */
static const double echo_score[RULER_TASKS] = {0.1, 0.2, 0.05, 0.05, 0, 0, 0.1, 0.075, 0.09, 0.52, 1, 0.05, 0.25};

START_TEST(test_fake_models) {
    TokenCount count = {.kind = COUNT_SIMPLE};
    Ruler r;
    Err e = {0};
    world_open();
    ok(ruler_open(&r, world, &count, &e), &e);
    for (int i = 0; i < RULER_TASKS; i++) {
        const EvalTask *t = task_find(ruler_name(i));
        EvalModel gold = {NULL, copies_gold, NULL, NULL}, echo = {NULL, echoes, NULL, NULL};
        EvalSet set = {0};
        TaskResult a;
        ruler_seed(&r, 42);
        ok(ruler_make(&r, i, 2048, 20, &set, &e), &e);
        ck_assert_uint_eq(set.n, 20);
        ck_assert_int_eq(task_generates(t), ruler_max_new(i));
        for (size_t k = 0; k < set.n; k++) ck_assert_uint_le(set.doc[k].context_tokens, 2048);
        ok(task_run(t, &gold, &set, 2048, &a, NULL, NULL, &e), &e);
        ck_assert_msg(a.metric[0].value == 1 && a.metric[0].se == 0 && a.n == 20, "%s: the gold answers score %g",
                      task_name(t), a.metric[0].value);
        ck_assert_str_eq(a.metric[0].name, "2048");
        ok(task_run(t, &echo, &set, 2048, &a, NULL, NULL, &e), &e);
        ck_assert_msg(fabs(a.metric[0].value - echo_score[i]) < 1e-9, "%s: the echo scores %.9g", task_name(t),
                      a.metric[0].value);
        evalset_free(&set);
    }
    ruler_close(&r);
    world_close();
}
END_TEST

/* For heat maps: needles stand where they are told to, the texts are as full as they can be. */
START_TEST(test_places) {
    TokenCount count = {.kind = COUNT_SIMPLE};
    Ruler r;
    Err e = {0};
    world_open();
    ok(ruler_open(&r, world, &count, &e), &e);
    for (int task = 0; task < 2; task++) {
        double last = -1;
        for (int d = 0; d <= 4; d++) {
            EvalSet set = {0};
            ruler_seed(&r, 3);
            ok(ruler_make_at(&r, task, 1024, d / 4., 16, 3, &set, &e), &e);
            for (size_t i = 0; i < set.n; i++) {
                const char *text = set.doc[i].context[0], *needle = strstr(text, "One of the special magic");
                const double at = (double)(needle - text - 140) / (double)(strlen(text) - 420);
                ck_assert_msg(fabs(at - d / 4.) < .08, "%s, depth %d: at %g of %zu bytes", ruler_name(task), d, at,
                              strlen(text));
                ck_assert_msg(set.doc[i].context_tokens + 16 <= 1024 && set.doc[i].context_tokens + 16 > 1024 - 60,
                              "%s: %zu tokens", ruler_name(task), set.doc[i].context_tokens);
                if (!i) ck_assert_msg(at > last, "%g after %g", at, last);
                if (!i) last = at;
            }
            evalset_free(&set);
        }
    }
    EvalSet none = {0};
    ck_assert_int_eq(ruler_make_at(&r, 8, 1024, .5, 16, 3, &none, &e), ERR_USAGE);
    evalset_free(&none);
    ruler_close(&r);
    world_close();
}
END_TEST

START_TEST(test_lite) {
    static const char *const task[] = {"niah_single_1", "niah_multikey_2", "ruler_vt", "ruler_fwe"};
    static const int length[] = {256, 512, 2048};
    TokenCount count = {.kind = COUNT_SIMPLE};
    Ruler r;
    Err e = {0};
    world_open();
    ok(ruler_open(&r, world, &count, &e), &e);
    r.flavour = RULER_LITE;
    for (int i = 0; i < 12; i++) {
        const int L = length[i / 4];
        EvalModel gold = {NULL, copies_gold, NULL, NULL};
        EvalSet set = {0};
        TaskResult a;
        ruler_seed(&r, 42);
        ok(ruler_make(&r, ruler_find(task[i % 4]), L, 5, &set, &e), &e);
        ck_assert(set.n == 5 && set.max_new > 0 && set.max_new < 50);
        for (size_t k = 0; k < set.n; k++) {
            const size_t tokens = set.doc[k].context_tokens + (size_t)set.max_new;
            ck_assert_msg(tokens <= (size_t)L && tokens + 80 > (size_t)L, "%s at %d: %zu tokens", task[i % 4], L,
                          tokens);
            if (i % 4 < 2) ck_assert_uint_eq(strlen(set.doc[k].text[0]), 3);
        }
        ok(task_run(task_find(task[i % 4]), &gold, &set, L, &a, NULL, NULL, &e), &e);
        ck_assert(a.metric[0].value == 1);
        evalset_free(&set);
    }
    ruler_close(&r);
    world_close();
}
END_TEST

START_TEST(test_degenerate) {
    static const struct {
        const char *task;
        int L;
    } row[] = {{"niah_multikey_3", 512}, {"vt", 512},           {"cwe", 512}, {"qa_1", 256},
               {"niah_single_1", 256},   {"niah_single_2", 100}};
    TokenCount count = {.kind = COUNT_BYTES};
    Ruler r;
    Err e = {0};
    world_open();
    ok(ruler_open(&r, world, &count, &e), &e);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        EvalSet set = {0};
        e = (Err){0};
        ck_assert_msg(ruler_make(&r, ruler_find(row[i].task), row[i].L, 2, &set, &e) == ERR_USAGE, "%s %d", row[i].task,
                      row[i].L);
        evalset_free(&set);
    }
    ruler_close(&r);
    world_close();
}
END_TEST

/* ---- question files ---- */

START_TEST(test_questions) {
    const QuestionOptions all = {0}, one = {.limit = 1};
    EvalSet s = {0};
    Err e = {0};
    static const char piqa[] =
        "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b \"}\n{\"goal\":\"h\",\"sol1\":\"c\",\"sol2\":\"d\"}\n",
                      labels[] = "1\n0\n";
    static const char hella[] = "{\"activity_label\":\"Sport\",\"ctx_a\":\"A man [header] runs.\",\"ctx_b\":\"he "
                                "The\",\"label\":2,\"endings\":[\" x [title] y\",\"b\",\"c\",\"d\"]}\n";
    static const char wino[] = "{\"sentence\":\"Ann met Bea because _ was  late. "
                               "\",\"option1\":\"Ann\",\"option2\":\"Bea\",\"answer\":\"2\"}\n";
    static const char obqa[] =
        "[{\"instruction\":\"Please choose the correct answer to the question: Q is\\n\\nAnswer1: p Answer2: q r "
        "Answer3: s\\n\\nAnswer format: x\",\"answer\":\"answer3\"}]";
    static const char lambada[] = "{\"text\":\"one two\\nthree four\"}\n{\"text\":}\n";
    world_open();
    put("piqa/valid.jsonl", piqa, sizeof piqa - 1);
    put("piqa/valid-labels.lst", labels, sizeof labels - 1);
    put("hellaswag/hellaswag_val.jsonl", hella, sizeof hella - 1);
    put("winogrande/dev_official.jsonl", wino, sizeof wino - 1);
    put("openbookqa/test.instruct.json", obqa, sizeof obqa - 1);
    put("lambada/lambada_test.jsonl", lambada, sizeof lambada - 1);
    ok(task_read(task_find("piqa"), world, &all, &s, &e), &e);
    ck_assert(s.n == 2 && s.doc[0].gold == 1 && s.doc[1].gold == 0 && s.doc[0].n_text == 2);
    ck_assert_str_eq(s.doc[0].context[0], "Question: g\nAnswer:");
    ck_assert_str_eq(s.doc[0].text[1], " b ");
    evalset_free(&s);
    ok(task_read(task_find("hellaswag"), world, &all, &s, &e), &e);
    ck_assert_str_eq(s.doc[0].context[0], "Sport: A man runs. He the");
    ck_assert_str_eq(s.doc[0].text[0], " x. y");
    evalset_free(&s);
    ok(task_read(task_find("winogrande"), world, &all, &s, &e), &e);
    ck_assert_str_eq(s.doc[0].context[1], "Ann met Bea because Bea");
    ck_assert_str_eq(s.doc[0].text[0], " was  late.");
    ck_assert_int_eq(s.doc[0].gold, 1);
    evalset_free(&s);
    ok(task_read(task_find("openbookqa"), world, &all, &s, &e), &e);
    ck_assert(s.doc[0].n_text == 3 && s.doc[0].gold == 2);
    ck_assert_str_eq(s.doc[0].context[0], "Q is");
    ck_assert_str_eq(s.doc[0].text[1], " q r");
    evalset_free(&s);
    ok(task_read(task_find("lambada_openai"), world, &one, &s, &e), &e);
    ck_assert_str_eq(s.doc[0].context[0], "one two\nthree");
    ck_assert_str_eq(s.doc[0].text[0], " four");
    evalset_free(&s);
    ck_assert_int_eq(task_read(task_find("lambada_openai"), world, &all, &s, &e), ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(e.msg, "lambada_test.jsonl:2"));
    evalset_free(&s);
    e = (Err){0};
    ck_assert_int_eq(task_read(task_find("boolq"), world, &all, &s, &e), ERR_IO);
    ck_assert(strstr(e.msg, "boolq/dev.jsonl") && strstr(e.hint, "BoolQ"));
    evalset_free(&s);
    world_close();
}
END_TEST

/* SQuAD 2.0 by hand: two answerable questions, two that are not; the sweep begins with silence (2 right). */
START_TEST(test_squad_thresholds) {
    static const SquadAnswer a[] = {{1, 1, .9, 1, 1}, {0, .5, .1, 1, 1}, {0, 0, .8, 0, 1}, {1, 1, .2, 0, 0}};
    static const double want[2][8] = {{50, 62.5, 50, 75, 50, 50, 50, 62.5}, {50, 62.5, 0, 25, 100, 100, 50, 62.5}};
    static const char *const name[] = {"exact",       "f1",       "HasAns_exact", "HasAns_f1",
                                       "NoAns_exact", "NoAns_f1", "best_exact",   "best_f1"};
    Err e = {0};
    for (int k = 0; k < 2; k++) {
        TaskResult r = {0};
        ok(task_squad_metrics(a, 4, k ? .5 : 1, &r, &e), &e);
        ck_assert_int_eq(r.metrics, 8);
        for (int i = 0; i < 8; i++) {
            ck_assert_str_eq(r.metric[i].name, name[i]);
            near(r.metric[i].value, want[k][i]);
        }
    }
}
END_TEST

START_TEST(test_mmlu) {
    static const char test[] = "\"What is \"\"1+1\"\",\nthen? \",1,2,3,\"4, or\nso\",B\r\nSecond,a,b,c,d,D\n",
                      bad[] = "Q,1,2,3,4,B\nQ,1,2,3,B\n";
    static const char dev[] = "E1,p,q,r,s,A\nE2,p,q,r,s,C\n";
    QuestionOptions o = {0};
    EvalSet s = {0};
    Err e = {0};
    world_open();
    put("mmlu/test/abstract_algebra_test.csv", test, sizeof test - 1);
    put("mmlu/test/zoo_test.csv", "Third,a,b,c,d,A", 15);
    put("mmlu/dev/abstract_algebra_dev.csv", dev, sizeof dev - 1);
    ok(task_read(task_find("mmlu"), world, &o, &s, &e), &e);
    ck_assert_uint_eq(s.n, 3);
    ck_assert_str_eq(s.doc[0].context[0], "The following are multiple choice questions (with answers) about abstract "
                                          "algebra.\n\nWhat is \"1+1\",\nthen?\nA. 1\nB. 2\nC. "
                                          "3\nD. 4, or\nso\nAnswer:");
    ck_assert(s.doc[0].gold == 1 && s.doc[1].gold == 3 && s.doc[2].gold == 0 && s.doc[0].n_text == 4);
    ck_assert_str_eq(s.doc[0].text[2], " C");
    evalset_free(&s);
    o = (QuestionOptions){.limit = 1, .shots = 2};
    ck_assert_int_eq(task_read(task_find("mmlu"), world, &o, &s, &e), ERR_IO); // zoo has no examples
    evalset_free(&s);
    e = (Err){0};
    put("mmlu/dev/zoo_dev.csv", dev, sizeof dev - 1);
    ok(task_read(task_find("mmlu"), world, &o, &s, &e), &e);
    ck_assert_uint_eq(s.n, 2);
    ck_assert_str_eq(s.doc[1].context[0], "The following are multiple choice questions (with answers) about "
                                          "zoo.\n\nE1\nA. p\nB. q\nC. r\nD. s\nAnswer: A\n\nE2\nA. p\nB. q\nC. "
                                          "r\nD. s\nAnswer: C\n\nThird\nA. a\nB. b\nC. c\nD. d\nAnswer:");
    evalset_free(&s);
    put("mmlu/test/zoo_test.csv", bad, sizeof bad - 1);
    o = (QuestionOptions){0};
    ck_assert_int_eq(task_read(task_find("mmlu"), world, &o, &s, &e), ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(e.msg, "zoo_test.csv:2"));
    evalset_free(&s);
    world_close();
}
END_TEST

START_TEST(test_protocols) {
    static const char swde[] = "{\"text\":\" Page of things.\\n\\nSummary of information above...\\nname: "
                               "x\\nprice:\",\"key\":\"price\",\"value\":\" 5 \"}\n";
    static const char fda[] =
        "{\"text\":\"\\nDevice K1. Purpose: to heal purpose:\",\"key\":\"purpose\",\"value\":\"to heal\"}\n";
    static const char squad[] = "{\"text\":\" Passage. The name is \",\"context\":\"Passage. Question: "
                                "q\",\"question\":\"What name?\",\"value\":\"Bo\"}\n";
    static const struct {
        const char *task;
        Protocol p;
        int window;
        const char *text, *value;
    } row[] = {
        {"swde", PROTOCOL_V0, 0, " Page of things.\n\nSummary of information above...\nname: x\nprice:", " 5 "},
        {"swde", PROTOCOL_V1, 0, "Page of things.\n\nSummary of information above...\nname: x\nprice:", "5"},
        {"swde", PROTOCOL_JRT, 0, "Page of things. Price:", " 5 "},
        {"swde", PROTOCOL_TWICE, 0, "Information about Price. Page of things.\nPage of things. Price:", " 5 "},
        {"fda", PROTOCOL_V0, 0, "\nDevice K1. Purpose: to heal purpose:", "to heal"},
        {"fda", PROTOCOL_JRT, 0, "Device K1. Purpose: to heal . Purpose:", "to heal"},
        {"fda", PROTOCOL_JRT, 60, " K1. Purpo. Purpose:", "to heal"}, // five tokens before the key, five from it on
        {"fda", PROTOCOL_TWICE, 0,
         "Information about Purpose. Device K1. Purpose: to heal .\nDevice K1. Purpose: to heal . Purpose:", "to heal"},
        {"squad_completion", PROTOCOL_V0, 0, " Passage. The name is ", "Bo"},
        {"squad_completion", PROTOCOL_JRT, 0, "Passage. The name is", "Bo"},
        {"squad_completion", PROTOCOL_TWICE, 0, "What name? Passage. \nPassage. The name is", "Bo"}};
    EvalSet s = {0};
    Err e = {0};
    Tokenizer *t;
    ok(tokenizer_byte(&t, &e), &e);
    world_open();
    put("swde/validation.jsonl", swde, sizeof swde - 1);
    put("fda/validation.jsonl", fda, sizeof fda - 1);
    put("squad_completion/validation.jsonl", squad, sizeof squad - 1);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const QuestionOptions o = {.protocol = row[i].p, .window = row[i].window, .t = t};
        ok(task_read(task_find(row[i].task), world, &o, &s, &e), &e);
        ck_assert_str_eq(s.doc[0].context[0], row[i].text);
        ck_assert_str_eq(s.doc[0].text[0], row[i].value);
        ck_assert(s.doc[0].contexts == 1 && (s.until != NULL) == (row[i].p >= PROTOCOL_JRT));
        evalset_free(&s);
    }
    const QuestionOptions window = {.window = 100, .t = t}, shots = {.shots = 1};
    ck_assert_int_eq(task_read(task_find("fda"), world, &window, &s, &e), ERR_USAGE);
    evalset_free(&s);
    ck_assert_int_eq(task_read(task_find("fda"), world, &shots, &s, &e), ERR_USAGE);
    evalset_free(&s);
    put("swde/validation.jsonl", "{\"text\":\"a\",\"value\":\"b\"}\n", 25);
    const QuestionOptions jrt = {.protocol = PROTOCOL_JRT};
    ck_assert_int_eq(task_read(task_find("swde"), world, &jrt, &s, &e), ERR_INPUT);
    evalset_free(&s);
    tokenizer_close(t);
    world_close();
}
END_TEST

START_TEST(test_pages) {
    static const char text[] =
        " \n = One = \n \n It 's ( a @-@ b ) , 1 @,@ 000 m .\n = = Part = = \n \" x \" ; \n = Two = \n z\n";
    const QuestionOptions all = {0};
    EvalSet s = {0};
    Err e = {0};
    world_open();
    put("wikitext/wiki.test.raw", text, sizeof text - 1);
    ok(task_read(task_find("wikitext"), world, &all, &s, &e), &e);
    ck_assert_uint_eq(s.n, 3);
    ck_assert_str_eq(s.doc[1].text[0],
                     " = One = \n \n It 's ( a @-@ b ) , 1 @,@ 000 m .\n = = Part = = \n \" x \" ; \n");
    ck_assert_str_eq(s.doc[1].context[0], " = One =\n\nIt's (a-b), 1,000 m .\n== Part ==\n\"x\";\n");
    evalset_free(&s);
    world_close();
}
END_TEST

START_TEST(test_diagnostic_tasks) {
    const EvalTask *t = task_find("phone_book");
    EvalModel gold = {NULL, copies_gold, NULL, NULL};
    EvalSet s = {0}, again = {0};
    TaskResult r;
    Err e = {0};
    ok(task_make(t, 12, 50, 3, &s, &e), &e);
    ok(task_make(t, 12, 50, 3, &again, &e), &e);
    for (size_t i = 0; i < 12; i++) ck_assert_str_eq(s.doc[i].context[0], again.doc[i].context[0]);
    ck_assert(task_diagnostic(t) && task_generated(t) && task_generates(t) == 200 && task_ruler(t) < 0);
    evalset_free(&s);
    ok(task_make(task_find("drill_retrieval"), 12, 50, 3, &s, &e), &e);
    ok(task_run(task_find("drill_retrieval"), &gold, &s, 0, &r, NULL, NULL, &e), &e);
    ck_assert(r.metrics == 1 && r.metric[0].value == 1);
    evalset_free(&s);
    evalset_free(&again);
}
END_TEST

/* ---- answers that are not shown ---- */

static int shown(const EvalTask *t, const EvalDoc *d) {
    int yes = -1;
    Err e = {0};
    ok(answers_shown(t, d, &yes, &e), &e);
    return yes;
}

/* Overwrites what the first gold answer of each question is read off, in the question's own text only. */
static void answer_blank(EvalDoc *d) {
    const size_t n = strlen(d->text[0]);
    for (char *p = d->context[0] + d->own_begin; (p = strstr(p, d->text[0])) && p < d->context[0] + d->own_end; p += n)
        memset(p, '#', n);
}

/* Every task of every flavour: made, all answers are shown; with one answer blanked, that one question is counted, and
 * refused where the question is ours. */
START_TEST(test_answers_of_ruler) {
    TokenCount count = {.kind = COUNT_SIMPLE};
    Ruler r;
    Err e = {0};
    world_open();
    ok(ruler_open(&r, world, &count, &e), &e);
    for (int i = 0; i < 3 * RULER_TASKS; i++) {
        const int flavour = i / RULER_TASKS, task = i % RULER_TASKS;
        const EvalTask *t = task_find(ruler_name(task));
        EvalSet set = {0};
        e = (Err){0};
        if (flavour == RULER_NVIDIA && !strcmp(task_name(t), "ruler_cwe")) continue; // probes 4,096 words: test_nvidia
        r.flavour = (RulerFlavour)flavour;
        ruler_seed(&r, 42);
        const int rc = ruler_make(&r, task, 2048, 3, &set, &e);
        if (flavour == RULER_LITE && rc == ERR_USAGE && strstr(e.msg, "not in the lite flavour")) continue;
        ok(rc, &e);
        ok(answers_check(t, &set, 1, &e), &e);
        ck_assert_uint_eq(set.lacking, 0);
        answer_blank(&set.doc[1]);
        ok(answers_check(t, &set, 0, &e), &e);
        ck_assert_msg(set.lacking == 1 && set.first_lacking == 1, "%s, flavour %d: %zu lack", task_name(t), flavour,
                      set.lacking);
        ck_assert_int_eq(answers_check(t, &set, 1, &e), ERR_USAGE);
        ck_assert(strstr(e.msg, task_name(t)) && strstr(e.msg, "question 1"));
        evalset_free(&set);
    }
    EvalSet set = {0}; // published questions that lack their answer by themselves: frequent words of a short text
    r.flavour = RULER_LM_EVAL;
    count.kind = COUNT_BYTES;
    ruler_seed(&r, 42);
    ok(ruler_make(&r, ruler_find("ruler_fwe"), 400, 4, &set, &e), &e);
    ok(answers_check(task_find("ruler_fwe"), &set, 0, &e), &e);
    ck_assert_uint_eq(set.lacking, 4);
    evalset_free(&set);
    ruler_close(&r);
    world_close();
}
END_TEST

START_TEST(test_answers_of_questions) {
    static const struct {
        const char *task, *context, *other, *text[3];
        int gold, yes;
    } row[] = {
        {"swde", "height: 2.01 m\nheight:", NULL, {"2.01 M"}, 0, 1},
        {"fda", "height: 2.0", NULL, {"2.01 m"}, 0, 0},
        {"squad_completion", "a b c", NULL, {"d"}, 0, 0},
        {"squadv2", "a b c", NULL, {"d", "B"}, 0, 1},
        {"squadv2", "a b c", NULL, {"d", "e"}, 0, 0},
        {"squadv2", "a b c", NULL, {NULL}, 0, 1},
        {"ruler_qa_hotpot", "Are both red?", NULL, {"yes"}, 0, 1},
        {"ruler_qa_hotpot", "Which is red?", NULL, {"the roof"}, 0, 0},
        {"piqa", "?", NULL, {" this", " that"}, 1, 1},
        {"piqa", "?", NULL, {" this", " this"}, 0, 0},
        {"arc_easy", "?", NULL, {" this", " this", " that"}, 2, 1},
        {"winogrande", "one", "two", {" end"}, 0, 1},
        {"winogrande", "one", "one", {" end"}, 0, 0},
        {"gsm8k", "How many?", NULL, {"72"}, 0, 1},
        {"lambada_openai", "Once", NULL, {" upon"}, 0, 1},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        EvalSet set = {0};
        EvalDoc *d;
        Err e = {0};
        ok(evalset_add(&set, &d, &e), &e);
        ok(evaldoc_context(d, row[i].context, strlen(row[i].context), &e), &e);
        if (row[i].other) ok(evaldoc_context(d, row[i].other, strlen(row[i].other), &e), &e);
        for (int k = 0; k < 3 && row[i].text[k]; k++)
            ok(evaldoc_text(d, row[i].text[k], strlen(row[i].text[k]), &e), &e);
        d->gold = row[i].gold;
        ck_assert_msg(shown(task_find(row[i].task), d) == row[i].yes, "row %zu, %s", i, row[i].task);
        evalset_free(&set);
    }
}
END_TEST

/* A diagnostic task that loses one line of what its answer follows from, or shows a wrong word as often, is refused. */
static const DiagnosticTask *whole;
static int loses(DiagnosticSample *s, Rng *r, int pairs, Err *e) {
    TRY(whole->make(s, r, pairs, e));
    TRY(textbuf_end(&s->prompt, e));
    TRY(textbuf_end(&s->evidence, e));
    const size_t n = strcspn(s->evidence.text, "\n");
    char line[64];
    snprintf(line, sizeof line, "%.*s", (int)n, s->evidence.text);
    for (char *p = s->prompt.text; (p = strstr(p, line)); p += n) memset(p, '#', n);
    return OK;
}
static int ties(DiagnosticSample *s, Rng *r, int pairs, Err *e) {
    TRY(whole->make(s, r, pairs, e));
    TRY(textbuf_end(&s->words, e));
    const char *word = s->words.text; // the last word, once more than any other
    for (const char *p = word; *p; p += strcspn(p, "\n") + 1) word = p;
    for (int i = 0; i < 400 && *word; i++) textbuf_printf(&s->prompt, " %.*s", (int)strcspn(word, "\n"), word);
    return OK;
}
START_TEST(test_answers_of_diagnostic_tasks) {
    const DiagnosticOptions o = {.samples = 1, .pairs = 20, .seed = 4};
    for (int k = 0; k < DIAGNOSTIC_TASKS; k++)
        for (int i = 0; i < 20; i++) {
            DiagnosticSample s;
            Err e = {0};
            whole = diagnostic_at(k);
            const DiagnosticTask less = {whole->name, loses, whole->right}, more = {whole->name, ties, whole->right};
            ok(diagnostic_sample(&s, whole, &o, i, &e), &e);
            ck_assert(s.evidence.len > 0);
            diagnostic_free(&s);
            ck_assert_int_eq(diagnostic_sample(&s, &less, &o, i, &e), ERR_INPUT);
            ck_assert(strstr(e.msg, whole->name) && strstr(e.msg, "cannot be answered"));
            diagnostic_free(&s);
            const int listed = !strcmp(whole->name, "cwe") || !strcmp(whole->name, "fwe");
            ck_assert_int_eq(diagnostic_sample(&s, &more, &o, i, &e), listed ? ERR_INPUT : OK);
            diagnostic_free(&s);
        }
}
END_TEST

/* ---- real models: batches against one by one ---- */

typedef struct {
    Backend *be;
    Model m;
    Tokenizer *t;
    Lm lm;
} Rig;

static void rig_open(Rig *r) {
    Config c = {.family = "llama",
                .C = 16,
                .L = 3,
                .H = 2,
                .Hk = 1,
                .D = 8,
                .F = 24,
                .VOC = 256,
                .tied = 0,
                .max_positions = 96};
    Err e = {0};
    c.norm_eps = c.o_norm_eps = 1e-5;
    c.rope = (Rope){.kind = ROPE_PLAIN, .theta = 100};
    c.conv_width = 4;
    c.bos = -1;
    c.mixer[0] = mixer_find("gdn_v1"); // convolution and state: what padding would spoil
    c.mixer[2] = mixer_find("gla_v1");
    memset(r, 0, sizeof *r);
    ok(backend_open(&r->be, "ref64", 1, &e), &e);
    ok(model_open(&r->m, &c, r->be, GRAD_NONE, &e), &e);
    ok(model_init(&r->m, 5, 1.0, 1.5, 0, &e), &e);
    ok(tokenizer_byte(&r->t, &e), &e);
    r->lm = (Lm){.m = &r->m, .t = r->t};
}
static void rig_close(Rig *r) {
    tokenizer_close(r->t);
    model_close(&r->m);
    backend_close(r->be);
}

/* Log-likelihood by decoding token by token. */
static double plain_loglik(Rig *r, const int *ids, size_t n, size_t first, int *greedy) {
    Decode d;
    Err e = {0};
    float logits[256];
    double sum = 0;
    *greedy = 1;
    ok(decode_open(&d, &r->m, 1, (int)n, 1, &e), &e);
    for (size_t t = 0; t + 1 < n; t++) {
        ok(decode_extend(&d, ids + t, 1, logits, &e), &e);
        if (t + 1 < first) continue;
        double z = 0;
        int best = 0;
        for (int v = 0; v < 256; v++) {
            z += exp((double)logits[v]);
            if (logits[v] > logits[best]) best = v;
        }
        sum += logits[ids[t + 1]] - log(z);
        *greedy &= best == ids[t + 1];
    }
    decode_close(&d);
    return sum;
}

START_TEST(test_loglik) {
    static const LogLikAsk ask[] = {
        {"Question: a\nAnswer:", " yes"},
        {"Question: a\nAnswer:", " no"},
        {"x", " a much longer continuation than the others"},
        {"trailing space ", "word"},
        {"ab", "c"},
        {"a long context that has to be cut because the model sees only so few tokens at once, 96 of them", " end"}};
    enum { N = sizeof ask / sizeof *ask };
    Rig r;
    Err e = {0};
    LogLik got[N], one;
    rig_open(&r);
    ok(lm_loglik(&r.lm, ask, N, got, &e), &e);
    ck_assert_int_eq(r.lm.truncated, 1);
    for (size_t i = 0; i < N; i++) {
        Ids ids = {0};
        size_t first = 0;
        int greedy;
        ok(lm_split(&r.lm, &ask[i], &ids, &first, &e), &e);
        const size_t cut = ids.n > 97 ? ids.n - 97 : 0;
        const double want = plain_loglik(&r, ids.id + cut, ids.n - cut, first - cut, &greedy);
        ck_assert_msg(fabs(got[i].sum - want) < 1e-5, "request %zu: %.9g, one by one %.9g", i, got[i].sum, want);
        ck_assert_int_eq(got[i].greedy, greedy);
        ok(lm_loglik(&r.lm, &ask[i], 1, &one, &e), &e);
        ck_assert_msg(fabs(one.sum - got[i].sum) < 1e-9, "request %zu alone: %.12g, among others %.12g", i, one.sum,
                      got[i].sum);
        if (i == 3) ck_assert(first == 14 && got[i].tokens == 5); // the space went over
        ids_free(&ids);
    }
    LogLikAsk empty = {"", "abc"};
    ck_assert_int_eq(lm_loglik(&r.lm, &empty, 1, &one, &e), ERR_INPUT); // neither BOS nor EOS
    r.m.c.bos = 7;
    e = (Err){0};
    ok(lm_loglik(&r.lm, &empty, 1, &one, &e), &e);
    ck_assert_int_eq(one.tokens, 3);
    rig_close(&r);
}
END_TEST

START_TEST(test_rolling) {
    Rig r;
    Err e = {0};
    LogLik all;
    char text[151];
    double want = 0;
    rig_open(&r);
    r.m.c.bos = 1;
    for (int i = 0; i < 150; i++) text[i] = (char)('a' + i * i % 23);
    text[150] = 0;
    ok(lm_rolling(&r.lm, text, &all, &e), &e);
    ck_assert_int_eq(all.tokens, 150);
    int ids[151] = {1}, greedy; // windows: predictions 0..95 from position 0; 96..149 with 96 tokens of input
    for (int i = 0; i < 150; i++) ids[i + 1] = text[i];
    want += plain_loglik(&r, ids, 97, 1, &greedy);
    want += plain_loglik(&r, ids + 54, 97, 43, &greedy);
    ck_assert_msg(fabs(all.sum - want) < 1e-5, "%.9g, wanted %.9g", all.sum, want);
    rig_close(&r);
}
END_TEST

/* A merge across the border shifts the split by length, not by content. */
START_TEST(test_split_merge) {
    static const char json[] =
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"\\u0120\":4},\"merges\":[\"a b\"]},"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},\"decoder\":{"
        "\"type\":\"ByteLevel\"}}";
    Tokenizer *t;
    Err e = {0};
    Lm lm = {0};
    Ids ids = {0};
    size_t first = 0;
    ok(tokenizer_parse(&t, json, sizeof json - 1, "merge", &e), &e);
    lm.t = t;
    const LogLikAsk ask = {"ca", "bc"}; // enc("ca") = c a; enc("cabc") = c ab c
    ok(lm_split(&lm, &ask, &ids, &first, &e), &e);
    static const int want[] = {2, 0, 2}; // the context's own tokens, then whole[2:]
    ck_assert(first == 2 && ids.n == 3 && !memcmp(ids.id, want, sizeof want));
    ids_free(&ids);
    tokenizer_close(t);
}
END_TEST

START_TEST(test_generation) {
    static const char *const prompt[] = {"abc", "a longer prompt than that", "xyz", "abc", "q", "zzz"};
    enum { N = sizeof prompt / sizeof *prompt, NEW = 12 };
    static const char *const stop[] = {"\n", "e", NULL};
    EvalSet s = {0};
    Rig r;
    Err e = {0};
    char **text, **one;
    rig_open(&r);
    for (int i = 0; i < N; i++) {
        EvalDoc *d;
        ok(evalset_add(&s, &d, &e), &e);
        ok(evaldoc_context(d, prompt[i], strlen(prompt[i]), &e), &e);
    }
    for (int k = 0; k < 2; k++) {
        ok(lm_generate(&r.lm, s.doc, N, NEW, k ? stop : NULL, &text, &e), &e);
        ck_assert_str_eq(text[0], text[3]);
        for (int i = 0; i < N; i++) { // the same alone, and with another way of reading the prompt
            r.lm.prefill = 1;
            ok(lm_generate(&r.lm, &s.doc[i], 1, NEW, k ? stop : NULL, &one, &e), &e);
            r.lm.prefill = 0;
            ck_assert_str_eq(text[i], one[0]);
            if (k) ck_assert(!strpbrk(one[0], "e\n"));
            lm_free_texts(one, 1);
        }
        lm_free_texts(text, N);
    }
    ck_assert(r.lm.cache_bytes > 0 && r.lm.state_bytes > 0 && r.lm.truncated == 0);
    r.lm.max_length = NEW + 2; // prompts keep their last two tokens
    ok(lm_generate(&r.lm, s.doc, N, NEW, NULL, &text, &e), &e);
    ck_assert_int_eq(r.lm.truncated, 5);
    lm_free_texts(text, N);
    r.lm.max_length = NEW;
    ck_assert_int_eq(lm_generate(&r.lm, s.doc, N, NEW, NULL, &text, &e), ERR_USAGE);
    evalset_free(&s);
    rig_close(&r);
}
END_TEST

/* Three rows of different lengths, read in uneven pieces side by side, against each of them alone:
 * not one bit of a cache or a state may differ, since nothing but a row's own tokens may enter it.
 * A branch goes on from a copy. */
START_TEST(test_no_padding) {
    static const int length[] = {41, 7, 19};
    static const struct { int n, T[3]; } plan[] = {{3, {5, 3, 1}}, {2, {20, 4, 0}}, {3, {1, 0, 17}}, {3, {15, 0, 1}}};
    Rig r;
    Err e = {0};
    Ragged all = {0}, one = {0};
    int ids[3][64], used[3] = {0};
    Rng g;
    rig_open(&r);
    rng_seed(&g, 8);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 64; i++) ids[k][i] = (int)rng_below(&g, 256);
    ok(ragged_open(&all, &r.m, 4, 64, 48, &e), &e);
    ragged_clear(&all, 3);
    for (size_t s = 0; s < sizeof plan / sizeof *plan; s++) {
        RaggedPiece piece[3];
        int n = 0;
        for (int k = 0; k < 3; k++)
            if (plan[s].T[k]) {
                piece[n++] = (RaggedPiece){k, plan[s].T[k], ids[k] + used[k]};
                used[k] += plan[s].T[k];
            }
        ok(ragged_step(&all, piece, n, &e), &e);
    }
    ragged_copy(&all, 3, 1);
    for (int k = 0; k < 3; k++) {
        float logits[2][256];
        int at = 0;
        ck_assert_int_eq(used[k], length[k]);
        ck_assert_int_eq(all.past[k], length[k]);
        ok(ragged_open(&one, &r.m, 1, 64, 48, &e), &e);
        used[k] = 0;
        for (size_t s = 0; s < sizeof plan / sizeof *plan; s++) {
            const RaggedPiece piece = {0, plan[s].T[k], ids[k] + used[k]};
            if (piece.T) ok(ragged_step(&one, &piece, 1, &e), &e);
            used[k] += piece.T;
        }
        for (int l = 0; l < r.m.c.L; l++) {
            const MixerState *a = &all.state[k * r.m.c.L + l], *b = &one.state[l];
            if (a->state) ck_assert(!memcmp(a->state, b->state, 2 * 8 * 8 * sizeof(double)));
            if (a->k_tail) ck_assert(!memcmp(a->k_tail, b->k_tail, 3 * 16 * sizeof(double)));
            if (a->k_cache) ck_assert(!memcmp(a->k_cache, b->k_cache, (size_t)length[k] * 8 * sizeof(double)));
        }
        const RaggedPiece both[2] = {{k, 1, ids[k] + used[k]}, {3, 1, ids[1] + used[1]}};
        const RaggedPiece next = {0, 1, ids[k] + used[k]};
        ok(ragged_step(&all, k == 1 ? both + 1 : both, 1, &e), &e); // row 1 goes on in its branch
        ok(ragged_logits(&all, &at, 1, logits[0], &e), &e);
        ok(ragged_step(&one, &next, 1, &e), &e);
        ok(ragged_logits(&one, &at, 1, logits[1], &e), &e);
        ck_assert(!memcmp(logits[0], logits[1], sizeof logits[0]));
        ragged_close(&one);
    }
    const int bad[] = {256};
    const RaggedPiece wrong[] = {{0, 1, bad}, {1, 60, ids[1]}, {0, 23, ids[0]}};
    ck_assert_int_eq(ragged_step(&all, &wrong[0], 1, &e), ERR_INPUT);
    ck_assert_int_eq(ragged_step(&all, &wrong[1], 1, &e), ERR_USAGE);
    ck_assert_int_eq(ragged_step(&all, &wrong[2], 1, &e), ERR_USAGE);
    ragged_close(&all);
    rig_close(&r);
}
END_TEST

/* Requests on one context: the shared part is read once, whatever the number of rows; equal inputs once altogether. */
START_TEST(test_shared_prefix) {
    static const char context[] = "Question: a context that is long enough to be worth sharing\nAnswer:";
    static const LogLikAsk ask[] = {{context, " A"}, {context, " B"}, {context, " C"}, {context, " a longer answer"},
                                    {context, " B"}, {"other", " A"}, {context, " Z"}};
    enum { N = sizeof ask / sizeof *ask };
    Rig r;
    Err e = {0};
    LogLik got[N], one;
    rig_open(&r);
    for (int batch = 0; batch < 9; batch += 4) {
        r.lm.batch = batch;
        ok(lm_loglik(&r.lm, ask, N, got, &e), &e);
        ck_assert(got[1].sum == got[4].sum && got[0].sum != got[1].sum);
        for (size_t i = 0; i < N; i++) {
            ok(lm_loglik(&r.lm, &ask[i], 1, &one, &e), &e);
            ck_assert_msg(fabs(one.sum - got[i].sum) < 1e-9 && one.tokens == got[i].tokens &&
                              one.greedy == got[i].greedy,
                          "request %zu, %d rows: %.12g, alone %.12g", i, batch, got[i].sum, one.sum);
        }
    }
    rig_close(&r);
}
END_TEST

/* ---- probes ---- */

START_TEST(test_mqar_rows) {
    const MqarSpec s = {.vocab = 64, .T = 48, .n = 6, .passes = 2, .power = .01, .random_filler = 0};
    int ids[48], target[48], scratch[64 + 48], near_end = 0;
    float weight[48];
    Rng r;
    rng_seed(&r, 3);
    for (int row = 0; row < 200; row++) {
        int asked = 0;
        mqar_row(&s, &r, ids, target, weight, scratch);
        for (int t = 0; t < 48; t++) {
            if (t < 12)
                ck_assert(ids[t] == ids[t + 12] && (t % 2 ? ids[t] >= 32 && ids[t] < 64 : ids[t] >= 1 && ids[t] < 32));
            for (int u = 0; u < t && t < 12; u++) ck_assert_int_ne(ids[u], ids[t]); // keys and values are distinct
            if (weight[t] == 0) {
                ck_assert_int_eq(target[t], -1);
                ck_assert(t < 24 || ids[t] == 0);
                continue;
            }
            ck_assert(t >= 24 && t % 2 == 0 && weight[t] == 1);
            int at = 0;
            while (at < 12 && ids[at] != ids[t]) at += 2;
            ck_assert_int_lt(at, 12);
            ck_assert_int_eq(target[t], ids[at + 1]);
            near_end += t < 36;
            asked++;
        }
        ck_assert_int_eq(asked, 6);
    }
    ck_assert_int_gt(near_end, 750); // 12 slots, 6 asked: small gaps are likelier than half
}
END_TEST

/* The answer to every question of a variant, found again in the sequence by its rule. */
static int answer_of(const MqarSpec *s, const int *ids, int at) {
    int found = -1, sum = 0;
    switch (s->kind) {
    case PROBE_FORGETTING: // the last value that stood behind this key
        for (int t = 0; t < 2 * (s->n + s->updates); t += 2)
            if (ids[t] == ids[at]) found = ids[t + 1];
        return found;
    case PROBE_COMPOSITIONAL:
        for (int t = 0; t < 3 * s->n; t += 3)
            if (ids[t] == ids[at - 1] && ids[t + 1] == ids[at]) found = ids[t + 2];
        return found;
    case PROBE_PARITY:
    case PROBE_MAJORITY:
        for (int t = 0; t + 1 < s->T; t++) sum += ids[t];
        return s->kind == PROBE_PARITY ? sum % 2 : 2 * sum > s->T - 1;
    default: // NGRAM
        for (int t = 0; t < s->n * (s->gram + 1); t += s->gram + 1)
            if (!memcmp(ids + t, ids + at - s->gram + 1, (size_t)s->gram * sizeof(int))) found = ids[t + s->gram];
        return found;
    }
}

START_TEST(test_probe_variants) {
    static const struct {
        MqarSpec s;
        int asked;
    } row[] = {
        {{.kind = PROBE_FORGETTING, .vocab = 40, .T = 40, .n = 6, .updates = 3, .power = .01, .random_filler = 1}, 6},
        {{.kind = PROBE_COMPOSITIONAL, .vocab = 40, .T = 60, .n = 9, .power = .01}, 9},
        {{.kind = PROBE_PARITY, .vocab = 6, .T = 9, .n = 8, .power = .01}, 1},
        {{.kind = PROBE_MAJORITY, .vocab = 6, .T = 8, .n = 7, .power = .01}, 1},
        {{.kind = PROBE_NGRAM, .vocab = 64, .T = 48, .n = 8, .gram = 2, .power = .01}, 8},
        {{.kind = PROBE_NGRAM, .vocab = 64, .T = 64, .n = 8, .gram = 3, .power = .01}, 8}};
    int ids[64], target[64], scratch[256], updated = 0, shared = 0, ones = 0;
    float weight[64];
    Rng r;
    Err e = {0};
    rng_seed(&r, 5);
    for (size_t k = 0; k < sizeof row / sizeof *row; k++) {
        const MqarSpec *s = &row[k].s;
        ok(mqar_check(s, &e), &e);
        ck_assert_uint_le(mqar_scratch(s), 256);
        ck_assert_int_eq(mqar_find(mqar_name(s->kind)), (int)s->kind);
        for (int i = 0; i < 100; i++) {
            int asked = 0;
            mqar_row(s, &r, ids, target, weight, scratch);
            for (int t = 0; t < s->T; t++) {
                ck_assert(ids[t] >= 0 && ids[t] < s->vocab);
                if (weight[t] == 0) continue;
                asked++;
                ck_assert_int_eq(target[t], answer_of(s, ids, t));
                ones += s->kind == PROBE_PARITY && target[t];
                if (s->kind == PROBE_FORGETTING)
                    for (int u = 0; u < 2 * s->n; u += 2) updated += ids[u] == ids[t] && ids[u + 1] != target[t];
            }
            ck_assert_int_eq(asked, row[k].asked);
            if (s->kind == PROBE_NGRAM && s->gram == 2) // some keys begin alike: one token is not enough
                for (int t = 3; t < 24; t += 3) shared += ids[t] == ids[0];
        }
    }
    ck_assert_int_eq(updated, 300);
    ck_assert(shared > 50 && ones > 20 && ones < 80);
    const MqarSpec bad[] = {{.kind = PROBE_FORGETTING, .vocab = 40, .T = 20, .n = 6, .updates = 3, .power = .01},
                            {.kind = PROBE_FORGETTING, .vocab = 40, .T = 60, .n = 6, .updates = 7, .power = .01},
                            {.kind = PROBE_COMPOSITIONAL, .vocab = 90, .T = 80, .n = 8, .power = .01},
                            {.kind = PROBE_NGRAM, .vocab = 64, .T = 50, .n = 8, .gram = 2, .power = .01}};
    for (size_t k = 0; k < 4; k++) {
        e = (Err){0};
        ck_assert_int_eq(mqar_check(&bad[k], &e), ERR_USAGE);
    }
}
END_TEST

START_TEST(test_mqar_run) {
    Rig r;
    Err e = {0};
    MqarResult a, b;
    MqarSpec s = {.vocab = 256, .T = 32, .n = 4, .passes = 1, .power = .01, .random_filler = 1};
    rig_open(&r);
    ok(mqar_run(&s, &r.m, 70, 1, &a, &e), &e);
    ok(mqar_run(&s, &r.m, 70, 1, &b, &e), &e);
    ck_assert(a.asked == 280 && a.loss == b.loss && a.accuracy < .2 && a.loss > 1);
    s = (MqarSpec){.kind = PROBE_COPY, .vocab = 256, .T = 24, .n = 12, .power = .01};
    ok(mqar_run(&s, &r.m, 9, 1, &a, &e), &e);
    ck_assert_int_eq(a.asked, 9 * 11);
    s = (MqarSpec){.vocab = 256, .T = 14, .n = 4, .passes = 1, .power = .01};
    ck_assert_int_eq(mqar_run(&s, &r.m, 9, 1, &a, &e), ERR_USAGE);
    rig_close(&r);
}
END_TEST

START_TEST(test_klstats) {
    KlStats s;
    float kl[] = {4, 1, 3, 2}, nll[] = {1, 2, 3, 4}, base[] = {1, 1, 1, 1};
    const unsigned char same[] = {1, 0, 1, 1};
    klstats_of(&s, kl, nll, base, same, 4);
    near(s.mean, 2.5);
    near(s.median, 2.5);
    near(s.q99, 3.97);
    near(s.max, 4);
    near(s.min, 1);
    near(s.q90, 3.7);
    near(s.dp_mean, (exp(-2) + exp(-3) + exp(-4) - 3 * exp(-1)) / 4);
    near(s.dp_rms, sqrt((pow(exp(-2) - exp(-1), 2) + pow(exp(-3) - exp(-1), 2) + pow(exp(-4) - exp(-1), 2)) / 4));
    ck_assert(isnan(s.correlation));
    float slope[] = {3, 5, 7, 9};
    KlStats other_base;
    klstats_of(&other_base, kl, nll, slope, same, 4);
    near(other_base.correlation, 1);
    near(s.se, sqrt(1.25 / 3));
    near(s.same_top, .75);
    near(s.same_top_se, sqrt(.1875 / 3));
    near(s.delta, 1.5);
    KlReport r;
    Rig g;
    Err e = {0};
    int ids[60];
    rig_open(&g);
    for (int i = 0; i < 60; i++) ids[i] = i % 20 < 10 ? i % 10 : 7 * i % 256; // some pairs return
    ok(klstats_run(&r, &g.m, &g.m, ids, 60, 30, NULL, &e), &e);
    ck_assert(r.all.positions == 58 && r.seen.positions + r.fresh.positions == 58 && r.seen.positions == 9);
    ck_assert(r.all.max < 1e-6 && r.all.same_top == 1 && r.all.delta == 0 && r.all.nll > 1);
    Model other = {0};
    ok(model_open(&other, &g.m.c, g.be, GRAD_NONE, &e), &e);
    ok(model_init(&other, 6, 1.0, 1.5, 0, &e), &e);
    ok(klstats_run(&r, &g.m, &other, ids, 60, 30, NULL, &e), &e);
    ck_assert(r.all.mean > .1 && r.all.max >= r.all.q99 && r.all.q99 >= r.all.median && r.all.same_top < 1);
    near(r.all.mean * 58, r.seen.mean * (double)r.seen.positions + r.fresh.mean * (double)r.fresh.positions);
    model_close(&other);
    rig_close(&g);
}
END_TEST

SUITE("eval_tasks") {
    CASE(test_match);
    CASE(test_squad);
    CASE(test_squad_unicode);
    CASE(test_numbers);
    CASE(test_ties);
    CASE(test_fake_models);
    CASE(test_places);
    CASE(test_lite);
    CASE(test_degenerate);
    CASE(test_questions);
    CASE(test_squad_thresholds);
    CASE(test_mmlu);
    CASE(test_protocols);
    CASE(test_pages);
    CASE(test_diagnostic_tasks);
    CASE(test_answers_of_ruler);
    CASE(test_answers_of_questions);
    CASE(test_answers_of_diagnostic_tasks);
    CASE(test_loglik);
    CASE(test_rolling);
    CASE(test_split_merge);
    CASE(test_generation);
    CASE(test_no_padding);
    CASE(test_shared_prefix);
    CASE(test_mqar_rows);
    CASE(test_probe_variants);
    CASE(test_mqar_run);
    CASE(test_klstats);
}
