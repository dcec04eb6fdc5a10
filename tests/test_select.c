/* test_select.c - which layers stay softmax: the official budgets and layouts, ties, lists, agreement;
 * GA-S2 on a teacher of which one layer matters, stopped, killed and resumed. */
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "run/memo.h"
#include "selectors/selectors.h"
#include "tiny.h"
#include "tests/suite.h"

static void setup(void) { tmpdir_begin(); }
static void teardown(void) { tmpdir_end(); }

/* ---------------------------------------------------------------- counts and layouts */

START_TEST(budgets) { // ref/METHOD.md 3.4: every shipped number of softmax layers
    static const struct {
        int L;
        double ratio;
        int K;
    } row[] = {{28, 0.125, 4}, {28, 0.25, 7},  {28, 0.33, 9}, {28, 0.5, 14}, {36, 0.125, 5},
               {36, 0.25, 9},  {36, 0.33, 12}, {36, 0.5, 18}, {8, 0, 0},     {8, 1, 8},
               {6, 0.25, 2},   {1, 0.4, 0},    {1, 0.5, 1}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        ck_assert_int_eq(select_count(row[i].L, row[i].ratio), row[i].K);
}
END_TEST

static void is_set(const int *keep, int L, const char *want) {
    char got[512];
    select_text(got, sizeof got, keep, L);
    ck_assert_str_eq(got, want);
}

START_TEST(uniform_layouts) { // ref/METHOD.md 8: every shipped uniform set
    static const struct {
        int L, K, last;
        const char *set;
    } row[] = {{36, 5, 0, "0,8,16,24,32"},
               {36, 9, 0, "0,4,8,12,16,20,24,28,32"},
               {36, 12, 0, "0,3,6,9,12,15,18,21,24,27,30,33"},
               {36, 18, 0, "0,2,4,6,8,10,12,14,16,18,20,22,24,26,28,30,32,34"},
               {28, 4, 1, "6,13,20,27"},
               {28, 7, 1, "3,7,11,15,19,23,27"},
               {28, 9, 0, "0,3,6,9,12,15,18,21,24"},
               {28, 14, 1, "1,3,5,7,9,11,13,15,17,19,21,23,25,27"},
               {28, 7, 0, "0,4,8,12,16,20,24"},
               {8, 0, 0, ""},
               {8, 0, 1, ""},
               {8, 1, 0, "0"},
               {8, 1, 1, "7"},
               {4, 4, 0, "0,1,2,3"},
               {4, 4, 1, "0,1,2,3"}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        int keep[MAX_LAYERS];
        Err e = {0};
        const SelectInput in = {.L = row[i].L, .K = row[i].K};
        must(select_layers(selector_find(row[i].last ? "uniform_last" : "uniform"), &in, keep, &e), &e);
        is_set(keep, row[i].L, row[i].set);
    }
    int keep[MAX_LAYERS];
    Err e = {0}, beyond = {0};
    SelectInput in = {.L = 28, .K = 7, .own = {.uniform_first = 3, .uniform_stride = 4}};
    must(select_layers(selector_find("uniform_stride"), &in, keep, &e), &e);
    is_set(keep, 28, "3,7,11,15,19,23,27");
    in.own.uniform_first = 4;
    ck_assert_int_eq(select_layers(selector_find("uniform_stride"), &in, keep, &beyond), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(beyond.msg, "layer 28"));
}
END_TEST

START_TEST(top) {
    int keep[6];
    const double ties[6] = {1, 3, 3, NAN, 3, -INFINITY};
    select_top(ties, 6, 2, keep);
    is_set(keep, 6, "1,2"); // ties go to the lower layer
    select_top(ties, 6, 0, keep);
    is_set(keep, 6, "");
    select_top(ties, 6, 4, keep);
    is_set(keep, 6, "0,1,2,4");
    select_top(ties, 6, 5, keep);
    is_set(keep, 6, "0,1,2,4,5"); // NAN is the last of all
    select_top(ties, 6, 6, keep);
    is_set(keep, 6, "0,1,2,3,4,5");
}
END_TEST

START_TEST(lists) {
    const int good[3] = {5, 0, 3}, twice[3] = {1, 2, 1}, high[2] = {0, 8}, low[1] = {-1};
    int keep[MAX_LAYERS];
    Err e = {0};
    SelectInput in = {.L = 8, .K = 3, .list = good, .n_list = 3};
    must(select_layers(selector_find("explicit"), &in, keep, &e), &e);
    is_set(keep, 8, "0,3,5");
    const struct {
        const int *list;
        int n, K;
        const char *says;
    } bad[] = {{twice, 3, 3, "layer 1 is there twice"},
               {high, 2, 2, "layer 8"},
               {low, 1, 1, "layer -1"},
               {good, 3, 2, "got 3 layers, expected 2"}};
    for (int i = 0; i < 4; i++) {
        Err b = {0};
        in = (SelectInput){.L = 8, .K = bad[i].K, .list = bad[i].list, .n_list = bad[i].n};
        ck_assert_int_eq(select_layers(selector_find("explicit"), &in, keep, &b), ERR_USAGE);
        ck_assert_msg(strstr(b.msg, bad[i].says) != NULL, "%s", b.msg);
    }
    Err many = {0}, scores = {0}, probe = {0};
    in = (SelectInput){.L = 8, .K = 9};
    ck_assert_int_eq(select_layers(selector_find("uniform"), &in, keep, &many), ERR_USAGE);
    in.K = 2;
    ck_assert_int_eq(select_layers(selector_find("ga_s2"), &in, keep, &scores), ERR_USAGE);
    ck_assert_int_eq(select_layers(selector_find("ablation"), &in, keep, &probe), ERR_USAGE);
    ck_assert_ptr_null(selector_find("nonsense"));
    ck_assert_ptr_null(selector_at(selector_count()));
}
END_TEST

/* Every variant by FAMILY:VARIANT and by the name of its rows, each name once, in what an unknown name lists. */
START_TEST(families) {
    char list[600] = "", want[600] = "", known[600], small[20];
    selector_families(known, sizeof known);
    for (int i = 0; i < selector_count(); i++) {
        const Selector *s = selector_at(i);
        ck_assert_ptr_eq(selector_find(s->name), s);
        ck_assert_msg(!s->variant || strstr(known, s->variant), "%s is not listed", s->name);
    }
    static const char *const both[][2] = {{"ga_s2", "ga_s2"},
                                          {"ga_s2:greedy", "ga_s2_greedy"},
                                          {"s1:avg", "avg_s1"},
                                          {"task:vt", "vt"},
                                          {"bypass:mse", "act_mse"},
                                          {"swap:remove", "swap_remove"},
                                          {"gates:path", "path_gates"},
                                          {"vt", "vt"},
                                          {"uniform:last", "uniform_last"},
                                          {"explicit:none", "none"},
                                          {"explicit", "explicit"},
                                          {"trunk_s2", "trunk_s2"}};
    for (size_t i = 0; i < sizeof both / sizeof *both; i++) {
        ck_assert_str_eq(selector_find(both[i][0])->name, both[i][1]);
        ck_assert_uint_le(strlen(both[i][1]), strlen(both[i][0])); // what selector_names relies on
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? "," : "", both[i][0]);
        snprintf(want + strlen(want), sizeof want - strlen(want), "%s%s", i ? "," : "", both[i][1]);
    }
    selector_names(list);
    ck_assert_str_eq(list, want);
    char odd[] = "swap:best,,swap:greedy,";
    selector_names(odd);
    ck_assert_str_eq(odd, "swap:best,,swap_greedy,");
    static const char *const none[] = {"s1", "task", "bypass", "swap:", "swap:remov", "swap:remove2", "ga", "", ":"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) ck_assert_ptr_null(selector_find(none[i]));
    selector_families(small, sizeof small); // cut, and ended
    ck_assert_int_eq(memcmp(small, known, sizeof small - 1), 0);
    ck_assert_uint_eq(strlen(small), sizeof small - 1);
}
END_TEST

START_TEST(random_sets) { // K layers, another set for another seed, each layer about equally often
    int count[8] = {0};
    for (uint64_t seed = 0; seed < 400; seed++) {
        int keep[MAX_LAYERS], n = 0;
        Err e = {0};
        const SelectInput in = {.L = 8, .K = 3, .seed = seed};
        must(select_layers(selector_find("random"), &in, keep, &e), &e);
        for (int l = 0; l < 8; l++) n += keep[l], count[l] += keep[l];
        ck_assert_int_eq(n, 3);
    }
    for (int l = 0; l < 8; l++)
        ck_assert_msg(count[l] > 110 && count[l] < 190, "layer %d in %d of 400 sets", l, count[l]);
}
END_TEST

START_TEST(agreement) {
    const int a[4] = {2, 0, 1, 3}, b[4] = {3, 1, 0, 2}, c[4] = {2, 1, 0, 3};
    ck_assert_double_eq(select_kendall(a, a, 4), 1);
    ck_assert_double_eq(select_kendall(a, b, 4), -1);
    ck_assert_double_eq_tol(select_kendall(a, c, 4), 2.0 / 3, 1e-15);
    ck_assert_double_eq(select_jaccard(a, c, 4, 1), 1);
    ck_assert_double_eq_tol(select_jaccard(a, c, 4, 2), 1.0 / 3, 1e-15);
    ck_assert_double_eq(select_jaccard(a, b, 4, 4), 1);
}
END_TEST

/* ---------------------------------------------------------------- GA-S2 */

enum { L = 4, PLANTED = 2 };

/* A teacher whose attention says nothing except in one layer: every other o_proj is zero. */
static void plant(Tiny *t) {
    Err e = {0};
    static const double zero[16 * 16];
    for (int l = 0; l < L; l++) {
        char name[64];
        ParamInfo i;
        Param p;
        snprintf(name, sizeof name, "model.layers.%d.attn.o_proj.weight", l);
        ck_assert(model_find(&t->teacher, name, &i, &p));
        ck_assert_uint_eq(i.n, 256);
        if (l != PLANTED) must(param_put(t->be, &i, &p, DT_F64, zero, &e), &e);
    }
}

typedef struct {
    const char *backend, *dir, *log;
    int threads, official;
    size_t cache;
    uint64_t key;
    volatile int stop;
    long stop_after, seen;
    int64_t hits;
} Job;
static void job_report(void *ctx, const ProgressLine *line) {
    Job *j = ctx;
    (void)line;
    if (++j->seen == j->stop_after) j->stop = SIGTERM;
}

static int job_score(Job *j, LayerScore *out, Err *e) {
    Tiny t;
    Model start;
    Heldout h;
    Progress progress = {job_report, j};
    tiny_open(&t, j->backend, j->threads, L, place("text.tok"));
    plant(&t);
    tiny_student(&start, &t, NULL, GRAD_NONE);
    must(heldout_open(&h, &t.teacher, &t.text, 4, 16, 6, 1 << 20, e), e);
    Scoring o = {.teacher = &t.teacher,
                 .stage1_student = &start,
                 .text = &t.text,
                 .heldout = &h,
                 .tau = 1,
                 .official = j->official,
                 .eval_every = 4,
                 .cache = j->cache};
    o.stage = (StageOptions){.steps = 10, .batch_size = 4, .micro_batch_size = 2, .train_seq_len = 16};
    o.stage.optim = (OptimConfig){.lr = 1e-4, .lr_attn = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1};
    const TrainOptions train = {.log_path = j->log, .save_every = 4, .progress = &progress, .stop = &j->stop};
    RunMemo memo = run_memo(j->dir, j->key, &train);
    const int rc = ga_s2(out, &o, "scores", &memo.memo, e);
    heldout_close(&h);
    model_close(&start);
    tiny_close(&t);
    return rc;
}

/* Equal in everything that is not a time. */
static void same_scores(LayerScore *a, LayerScore *b) {
    for (int l = 0; l < L; l++) {
        a[l].seconds = b[l].seconds = 0;
        ck_assert_int_eq(memcmp(&a[l], &b[l], sizeof a[l]), 0);
    }
}

static LayerScore s1[L], s2[L], s3[L];

START_TEST(finds_the_planted_layer) {
    Err e = {0};
    Job j = {.backend = "cpu", .threads = 1, .dir = place("s"), .cache = 1 << 20};
    must(job_score(&j, s1, &e), &e);
    ck_assert_int_eq(s1[PLANTED].rank, 1);
    for (int l = 0; l < L; l++) {
        ck_assert_int_eq(s1[l].layer, l);
        ck_assert_int_eq(s1[l].tokens, 10 * 4 * 16);
        ck_assert_int_eq(s1[l].points, 3); // steps 4, 8, 10
        ck_assert_int_eq(s1[l].point[2].step, 10);
        ck_assert_int_eq(s1[l].batches, 6);
        ck_assert_double_eq(s1[l].score, -s1[l].point[2].kl);
        if (l == PLANTED) ck_assert_double_lt(-s1[l].score, 1e-6); // restored, the student is the teacher
        else ck_assert_double_gt(-s1[l].score, 0.01);
        if (l != PLANTED) ck_assert_double_gt(s1[l].se, 0);
    }
    int keep[MAX_LAYERS], rank[L];
    for (int K = 0; K <= L; K++) {
        const SelectInput in = {.L = L, .K = K, .score = s1};
        must(select_layers(selector_find("ga_s2"), &in, keep, &e), &e);
        int n = 0;
        for (int l = 0; l < L; l++) n += keep[l];
        ck_assert_int_eq(n, K);
        if (K) ck_assert_int_eq(keep[PLANTED], 1);
    }
    ck_assert_int_eq(score_ranks_at(s1, L, 2, 0, rank), L);
    for (int l = 0; l < L; l++) ck_assert_int_eq(rank[l], s1[l].rank);
    ck_assert_int_eq(score_ranks_at(s1, L, 3, 0, rank), 0);
    memcpy(s2, s1, sizeof s1);
    s2[0].points = 2; // given up before the third
    ck_assert_int_eq(score_ranks_at(s2, L, 2, 0, rank), L - 1);
    ck_assert(rank[0] == 0 && rank[PLANTED] == 1);

    // again: nothing is trained, the same numbers are read; official: the running training KL of the same runs
    Job again = j;
    again.seen = 0;
    must(job_score(&again, s2, &e), &e);
    ck_assert_int_eq(again.seen, 0);
    same_scores(s1, s2);
    again.official = 1;
    must(job_score(&again, s3, &e), &e);
    ck_assert_int_eq(s3[PLANTED].rank, 1);
    for (int l = 0; l < L; l++) ck_assert_double_eq(s3[l].score, -s3[l].running);
}
END_TEST

START_TEST(resumes_bit_exactly) {
    Err e = {0};
    Job a = {.backend = "cpu", .threads = 1, .dir = place("a"), .log = place("a.jsonl"), .cache = 1 << 20};
    must(job_score(&a, s1, &e), &e);
    // stopped in the third layer; other threads; no shared teacher states
    Job b = {.backend = "cpu", .threads = 2, .dir = place("b"), .log = place("b.jsonl"), .stop_after = 25};
    Err stop = {0};
    ck_assert_int_eq(job_score(&b, s2, &stop), ERR_SIGTERM);
    ck_assert_ptr_nonnull(strstr(stop.msg, "SIGTERM"));
    ck_assert_int_eq(file_exists(place("b/scores/layer-1.json")), 1);
    ck_assert_int_eq(file_exists(place("b/scores/layer-2.json")), 0);
    b.stop = 0;
    b.stop_after = 0;
    b.seen = 0;
    must(job_score(&b, s2, &e), &e);
    ck_assert_int_eq(b.seen, 15); // 5 of layer 2, 10 of layer 3
    same_scores(s1, s2);
    // killed at a random I/O call
    Rng rng;
    rng_seed(&rng, 8);
    const long before = file_io_calls();
    Job c = {.backend = "cpu", .threads = 1, .dir = place("c")};
    must(job_score(&c, s2, &e), &e);
    const long calls = file_io_calls() - before;
    for (int i = 0; i < 4; i++) {
        char dir[16], at[24];
        snprintf(dir, sizeof dir, "k%d", i);
        snprintf(at, sizeof at, "%ld", file_io_calls() + 1 + (long)rng_below(&rng, (uint64_t)calls - 2));
        Job k = {.backend = "cpu", .threads = 1, .dir = place(dir)};
        const pid_t child = fork();
        if (!child) {
            setenv("HYBRIDIZE_KILL_IO", at, 1);
            job_score(&k, s3, &e);
            _exit(9);
        }
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        must(job_score(&k, s3, &e), &e);
        same_scores(s1, s3);
    }
}
END_TEST

/* Results under another key, as other options give, are made again and never taken; a torn one is an error. */
START_TEST(other_runs_results_are_made_again) {
    Err e = {0}, text = {0};
    Job a = {.backend = "ref32", .threads = 1, .dir = place("a"), .cache = 0, .key = 1};
    must(job_score(&a, s1, &e), &e);
    a.seen = 0;
    must(job_score(&a, s2, &e), &e);
    ck_assert_int_eq(a.seen, 0);
    a.key = 2;
    must(job_score(&a, s2, &e), &e);
    ck_assert_int_eq(a.seen, 10 * L);
    same_scores(s1, s2);
    File f;
    must(file_open(&f, place("a/scores/layer-1.json"), &e), &e);
    const size_t n = f.size;
    char *copy = malloc(n + 1);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, f.data, n);
    copy[n] = 0;
    file_close(&f);
    char *at = strstr(copy, "\"key\": ");
    ck_assert_ptr_nonnull(at);
    at[7] = at[7] == '1' ? '2' : '1';
    must(file_write_all(place("a/scores/layer-1.json"), copy, n, &e), &e);
    a.seen = 0;
    must(job_score(&a, s2, &e), &e);
    ck_assert_int_eq(a.seen, 10);
    same_scores(s1, s2);
    must(file_write_all(place("a/scores/layer-1.json"), copy, n / 2, &e), &e);
    ck_assert_int_eq(job_score(&a, s2, &text), ERR_INPUT);
    free(copy);
}
END_TEST

SUITE("select") {
    GROUP("all", .setup = setup, .teardown = teardown, .timeout = 120);
    CASE(budgets);
    CASE(uniform_layouts);
    CASE(top);
    CASE(lists);
    CASE(families);
    CASE(random_sets);
    CASE(agreement);
    CASE(finds_the_planted_layer);
    CASE(resumes_bit_exactly);
    CASE(other_runs_results_are_made_again);
}
