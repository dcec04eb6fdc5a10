/* test_ranks.c - one training by many processes: 2, 4 and 8 ranks on a tiny model leave what one process with as many
 * lanes leaves, byte for byte; ranks that are killed, stopped, fail or do not belong together, and going on with
 * another number of them. Needs mpirun, and a program with MPI (make test builds it where mpicc is). MPIRUN names the
 * launcher of another MPI: RANKS.md has the commands for MPICH. */
#include "base/log.h"
#include "base/ranks.h"
#include "base/rng.h"
#include "io/hf.h"
#include "method/lanes.h"
#include "tests/same_tree.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* No time limit here is met by a machine's speed: the long ones only end what hangs, and SILENCE, the seconds after
 * which a process that was stopped counts as hung, is many times what a step of this model takes. */
#define SILENCE  "6"
#define PATIENCE "60"

static char program[4200], plain[4100], root[1024], said[6000], mpirun[300], home[sizeof tmpdir];
static int openmpi;
static const char *place(const char *name) { return tmpdir_path(name); }

/* Its exit code; what it wrote on stderr is in said. */
static int shell(const char *command) {
    char line[17000];
    Err e = {0};
    File f;
    snprintf(line, sizeof line, "cd '%s' && { %s; } </dev/null >out 2>err", tmpdir, command);
    const int status = system(line);
    must(file_open(&f, place("err"), &e), &e);
    snprintf(said, sizeof said, "%.*s", (int)f.size, (const char *)f.data);
    file_close(&f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define RUN "run -m teacher/model --text text --config run.json -t 1"

/* Open MPI's mpirun counts cores and wants to be told that they do not matter. Once one rank has ended all, it leaves
 * the others a second before it kills them; at once is the harder case, and saves that second in most tests. */
static int launcher(void) {
    char line[400], version[200] = "";
    const char *name = getenv("MPIRUN");
    if (!name) name = "mpirun";
    snprintf(line, sizeof line, "'%s' --version 2>/dev/null", name);
    FILE *f = popen(line, "r");
    const int some = f && fgets(version, sizeof version, f);
    if (f) pclose(f);
    openmpi = strstr(version, "Open MPI") != NULL || strstr(version, "OpenRTE") != NULL;
    snprintf(mpirun, sizeof mpirun, "timeout -s KILL 300 '%s'%s", name,
             openmpi ? " --oversubscribe --bind-to none" : "");
    setenv("OMPI_MCA_odls_base_sigkill_timeout", "0", 1);
    return some;
}

/* Open MPI 4.1.4's mpirun itself may hang or crash where it kills at once while ranks are in MPI_Finalize. */
static void kill_late(void) { setenv("OMPI_MCA_odls_base_sigkill_timeout", "1", 1); }

/* R ranks of `command`; rank `odd` (-1: none) is given something else to do it with, or another command. */
static int ranks(int R, const char *command, int odd, const char *with, const char *instead) {
    char line[16000];
    if (odd < 0) snprintf(line, sizeof line, "%s -n %d '%s' %s", mpirun, R, program, command);
    else {
        size_t n = (size_t)snprintf(line, sizeof line, "%s", mpirun);
        if (odd) n += (size_t)snprintf(line + n, sizeof line - n, " -n %d '%s' %s :", odd, program, command);
        n += (size_t)snprintf(line + n, sizeof line - n, " -n 1 env %s '%s' %s", with, program,
                              instead ? instead : command);
        if (odd + 1 < R) snprintf(line + n, sizeof line - n, " : -n %d '%s' %s", R - odd - 1, program, command);
    }
    return shell(line);
}

/* What all cases of a group begin with: a teacher and its text; whole_once: also the run that they compare with. */
static void teacher_once(void) {
    char line[6000];
    tmpdir_begin_absolute();
    snprintf(home, sizeof home, "%s", tmpdir);
    snprintf(line, sizeof line,
             "head -c 20000 '%s/testdata/text.txt' >text && head -c 20001 '%s/testdata/text.txt' >text2 && "
             "echo '{\"hidden_size\": 16, \"num_hidden_layers\": 3, \"num_attention_heads\": 2, "
             "\"num_key_value_heads\": 1, \"intermediate_size\": 24, \"levels\": 1, \"level0\": {\"layers\": 0, \"T\": "
             "24, \"text_rows\": 4, \"recall_rows\": 4, \"n_min\": 2, \"n_max\": 4}, \"recall_n\": [2, 4], \"stage\": "
             "{\"lr\": 3e-3}, \"save_dtype\": \"float32\"}' >tiny.json && "
             "echo '{\"lanes\": 8, \"k\": 1, \"students\": \"\", \"eval_batches\": 3, \"recall_keys\": \"a-z\", "
             "\"recall_n\": \"2\", \"recall_rows\": 40, \"log_every\": 1, \"save_every\": "
             "1, \"keep_checkpoints\": true, \"stage1\": {\"steps\": 2, \"train_seq_len\": 12, \"batch_size\": 8}, "
             "\"score\": {\"steps\": 1, \"train_seq_len\": 12, \"batch_size\": 8}, \"stage2\": {\"steps\": 2, "
             "\"train_seq_len\": 12, \"batch_size\": 16, \"micro_batch_size\": 1}}' >run.json",
             root, root);
    ck_assert_msg(!shell(line), "%s", said);
    snprintf(line, sizeof line, "'%s' pretrain --text text -o teacher --config tiny.json --steps 4 -q -t 1", program);
    ck_assert_msg(!shell(line), "%s", said);
}

static void whole(const char *options) {
    char line[6000];
    snprintf(line, sizeof line, "'%s' " RUN " -o whole%s", plain, options);
    ck_assert_msg(!shell(line), "%s", said);
}

static void whole_once(void) {
    teacher_once();
    whole("");
}

static void home_end(void) {
    snprintf(tmpdir, sizeof tmpdir, "%s", home);
    tmpdir_end();
}

static void begin(void) {
    char line[1200];
    tmpdir_begin_absolute();
    snprintf(line, sizeof line, "cp -R '%s'/. .", home);
    ck_assert_msg(!shell(line), "%s", said);
}

/* ---------------------------------------------------------------- the tree */

START_TEST(edges) {
    static const size_t sizes[] = {0, 1, 15, 16, 17, 100, 4096, 4097, 1000003};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int lanes = 1; lanes <= LANES_MOST; lanes *= 2) {
            ck_assert_uint_eq(lanes_edge(sizes[s], lanes, 0), 0);
            ck_assert_uint_eq(lanes_edge(sizes[s], lanes, lanes), sizes[s]);
            for (int i = 0; i < lanes; i++) {
                const size_t a = lanes_edge(sizes[s], lanes, i), b = lanes_edge(sizes[s], lanes, i + 1);
                ck_assert(a <= b && (a % 16 == 0 || a == sizes[s]));
                ck_assert_uint_le(b - a, sizes[s] / (size_t)lanes + 16);
            }
        }
    double x[8] = {1, 0x1p-53, 0x1p-53, 0x1p-53, -1, 0, 0, 0};
    lanes_sum(x, 8, 1); // (1 + 2^-53) + (2^-53 + 2^-53) keeps what a sum from left to right loses
    ck_assert(x[0] == 0x1p-52);
}
END_TEST

/* ---------------------------------------------------------------- equal bits */

static const struct {
    const char *name, *options;
    int R[4];
} runs[] = {
    {"float", "", {2, 4, 8}},
    {"bf16", " --device cpu-bf16 --selector uniform", {4}},
    {"stochastic rounding",
     " --device cpu-bf16 --selector uniform --set stage1.stochastic_rounding=true --set "
     "stage2.stochastic_rounding=true",
     {2, 8}},
    {"fit, double", " --device ref64 --selector uniform --init fit --init-tokens 96", {2}},
};

START_TEST(same_bits) {
    char line[2000], dir[16];
    whole(runs[_i].options);
    for (const int *R = runs[_i].R; *R; R++) {
        snprintf(dir, sizeof dir, "o%d", *R);
        snprintf(line, sizeof line, RUN " -o %s%s", dir, runs[_i].options);
        ck_assert_msg(!ranks(*R, line, -1, NULL, NULL), "%s, %d ranks: %s", runs[_i].name, *R, said);
        ck_assert_int_ge(same_tree(place("whole"), place(dir), runs[_i].name), 12);
        const char *again = strstr(said, "stage 1:"); // one of them speaks
        ck_assert_msg(again && !strstr(again + 1, "stage 1:"), "%s", said);
    }
}
END_TEST

/* What each rank has sent in a step is what lanes_cost says, also of tensors of which some ranks own nothing; bench
 * compares it, and the losses with those of one rank. */
static const struct {
    int R;
    const char *options;
} costs[] = {{2, ""}, {4, " --device cpu-bf16"}, {8, " -m teacher/model"}};
START_TEST(cost) {
    char line[400];
    snprintf(line, sizeof line, "bench --ranks %d --repeat 2 --seq-len 8 --csv -t 1%s", costs[_i].R, costs[_i].options);
    ck_assert_msg(!ranks(costs[_i].R, line, -1, NULL, NULL), "%s", said);
    FILE *out = fopen(place("out"), "r");
    ck_assert(out && fgets(line, sizeof line, out)); // what the columns are
    for (int q = -1; q < costs[_i].R; q++) {
        unsigned long long bytes, formula, messages, wanted;
        int R, rank;
        ck_assert_msg(fgets(line, sizeof line, out) && sscanf(line, "%d,%d,%*f,%*f,%*f,%*f,%*f,%llu,%llu,%llu,%llu", &R,
                                                              &rank, &bytes, &formula, &messages, &wanted) == 6,
                      "%s", line);
        ck_assert_int_eq(R, q < 0 ? 1 : costs[_i].R);
        ck_assert_int_eq(rank, q < 0 ? 0 : q);
        ck_assert_uint_eq(bytes, formula);
        ck_assert_uint_eq(messages, wanted);
        ck_assert((bytes > 0) == (q >= 0) && (messages > 0) == (q >= 0));
    }
    fclose(out);
}
END_TEST

/* One training by itself, for which rank 0 has made the tokens. */
static const char *const single[] = {
    "distill --stage 2 --student-init-ckpt teacher/model --keep-full-attention-layers 1 -m teacher/model --text text "
    "--config run.json -t 1 -o ",
    "pretrain --text text --config tiny.json --steps 4 --eval-every 2 --save-every 2 --log-every 2 --lanes 4 -t 1 -o "};
START_TEST(alone) {
    char line[5000];
    snprintf(line, sizeof line, "'%s' %swhole", plain, single[_i]);
    ck_assert_msg(!shell(line), "%s", said);
    for (int R = 2; R <= 4; R *= 2) {
        Err e = {0};
        must(file_remove_tree(place("o"), &e), &e);
        snprintf(line, sizeof line, "%so", single[_i]);
        ck_assert_msg(!ranks(R, line, -1, NULL, NULL), "%s", said);
        ck_assert_int_ge(same_tree(place("whole"), place("o"), single[_i]), 6);
    }
}
END_TEST

/* ---------------------------------------------------------------- faults */

/* Every rank of four is killed, and so are those that one kills; the others' end comes soon, and another number of them
 * goes on. */
START_TEST(killed) {
    static const int resumed_by[4] = {1, 2, 8, 4};
    char with[80];
    for (int k = 0; k < 4; k++) {
        Err e = {0};
        must(file_remove_tree(place("o"), &e), &e);
        snprintf(with, sizeof with, "HYBRIDIZE_FAIL_MPI=%d:KILL", 300 + 500 * k);
        const int rc = ranks(4, RUN " -o o", k, with, NULL);
        ck_assert_msg(openmpi ? rc && strstr(said, "signal 9") : rc == SIGKILL, "rank %d: code %d: %s", k, rc, said);
        ck_assert(file_exists(place("o/run.json")) && !file_exists(place("o/results.json")));
        ck_assert_msg(!ranks(resumed_by[k], RUN " -o o --resume", -1, NULL, NULL), "%s", said);
        ck_assert_int_ge(same_tree(place("whole"), place("o"), "killed"), 12);
    }
}
END_TEST

/* What the faulty rank is given, and what all are. */
static const struct {
    int rank, code;
    const char *with, *all, *says;
} faults[] = {
    {1, 4, "HYBRIDIZE_FAIL_MPI=400:STOP", "", "no word from it for " SILENCE " s"},
    {0, 4, "HYBRIDIZE_FAIL_MPI=400:STOP", "", "no word from it for " SILENCE " s"},
    {1, 5, "HYBRIDIZE_FAIL_ALLOC=400", "", "out of memory"},
    {0, 5, "HYBRIDIZE_FAIL_ALLOC=1000", "", "out of memory"},
    {0, 4, "HYBRIDIZE_FAIL_IO=90:ENOSPC", "", "No space left"},
    {1, 6, "HYBRIDIZE_FAIL_MPI=2:NAN", "", "loss is not finite"},
    {0, 6, "HYBRIDIZE_FAIL_MPI=20:NAN", "", "loss is not finite"},
    // calls that are repeated while waiting, or made at the end only
    {0, 4, "HYBRIDIZE_FAIL_MPI=1:MPI_Testall", "", "MPI_Testall: failed on purpose"},
    {1, 4, "HYBRIDIZE_FAIL_MPI=200:MPI_Testall", "", "MPI_Testall: failed on purpose"},
    {0, 4, "HYBRIDIZE_FAIL_MPI=1:MPI_Iprobe", "", "MPI_Iprobe: failed on purpose"},
    {1, 4, "HYBRIDIZE_FAIL_MPI=1:MPI_Iprobe", "", "MPI_Iprobe: failed on purpose"},
    {0, 4, "HYBRIDIZE_FAIL_MPI=1:MPI_Finalize", "", "MPI_Finalize: failed on purpose"},
    {1, 4, "HYBRIDIZE_FAIL_MPI=1:MPI_Finalize", "", "MPI_Finalize: failed on purpose"},
    // calls that another rank's failure brings: rank 0 fails while it hears of it; rank 1 while it tells
    {1, 4, "HYBRIDIZE_FAIL_ALLOC=400", "HYBRIDIZE_FAIL_MPI=1:MPI_Recv", "rank 0 on "},
    {1, 4, "HYBRIDIZE_FAIL_MPI=400:STOP", "HYBRIDIZE_FAIL_MPI=1:MPI_Test", "MPI_Test: failed on purpose"},
};

/* One line that says which rank, where and why. */
static const char *one_line(int rank) {
    char who[160], host[64] = "";
    gethostname(host, sizeof host - 1);
    snprintf(who, sizeof who, "rank %d on %s", rank, host);
    const char *line = strstr(said, "hybridize: error: "), *end = line ? strchr(line, '\n') : NULL,
               *named = line ? strstr(line, who) : NULL;
    return named && end && named < end && !strstr(line + 1, "hybridize: error: ") ? line : NULL;
}

/* Also the code of the failure, an end to all of them in time, and the same bits after it. */
START_TEST(failing) {
    const int stops = strstr(faults[_i].with, ":STOP") != NULL;
    if (strstr(faults[_i].with, "Finalize")) kill_late();
    if (*faults[_i].all) putenv((char *)(size_t)faults[_i].all);
    const double since = log_now();
    const int rc = ranks(2, stops ? RUN " -o o --rank-timeout " SILENCE : RUN " -o o --rank-timeout " PATIENCE,
                         faults[_i].rank, faults[_i].with, NULL);
    const double seconds = log_now() - since;
    unsetenv("HYBRIDIZE_FAIL_MPI");
    const int hears = strstr(faults[_i].says, "rank 0") || strstr(faults[_i].says, "MPI_Test:");
    const char *line = one_line(hears ? 0 : faults[_i].rank);
    ck_assert_msg(rc == faults[_i].code && line && strstr(line, faults[_i].says), "%s %s: code %d: %s", faults[_i].with,
                  faults[_i].all, rc, said);
    ck_assert_msg(seconds < 120, "%s: took %.0f s", faults[_i].with, seconds);
    ck_assert_msg(!ranks(_i % 2 ? 4 : 2, RUN " -o o --resume", -1, NULL, NULL), "%s", said);
    ck_assert_int_ge(same_tree(place("whole"), place("o"), faults[_i].with), 12);
}
END_TEST

/* Every call of MPI by either of two ranks fails once, those aside that are repeated while waiting; a sample of them
 * without HYBRIDIZE_EVERY. The process that goes on has no MPI at all. MPICH's launcher does not notice a rank that
 * ends before its MPI_Init, so there the first call is left out. */
START_TEST(each_call) {
    char line[5000], with[60];
    int n = openmpi ? 1 : 2, calls = 0;
    snprintf(line, sizeof line, "'%s' %ssingle", plain, single[0]);
    ck_assert_msg(!shell(line), "%s", said);
    if (getenv("HYBRIDIZE_EVERY")) kill_late();
    for (int every = getenv("HYBRIDIZE_EVERY") != NULL;; n += every ? 1 : 2 * n) {
        Err e = {0};
        must(file_remove_tree(place("o"), &e), &e);
        snprintf(line, sizeof line, "%so --rank-timeout " PATIENCE, single[0]);
        snprintf(with, sizeof with, "HYBRIDIZE_FAIL_MPI=%d", n);
        const int rc = ranks(2, line, _i, with, NULL);
        if (!rc) break; // fewer calls than n
        ck_assert_msg(rc == ERR_IO && one_line(_i) && strstr(said, ": failed on purpose"),
                      "rank %d, call %d: code %d: %s", _i, n, rc, said);
        snprintf(line, sizeof line, "'%s' %so --resume", plain, single[0]);
        ck_assert_msg(!shell(line), "%s", said);
        ck_assert_int_ge(same_tree(place("single"), place("o"), with), 6);
        calls++;
    }
    ck_assert_int_ge(calls, 5);
    printf("rank %d: %d calls of MPI failed, one at a time\n", _i, calls);
}
END_TEST

/* kill -9 of any rank at any time, of which the program knows nothing; HYBRIDIZE_EVERY: 50 times. How long a run takes
 * changes with what else the machine does: one that ends before its kill lets the next come in half of the time, until
 * some have been killed. */
START_TEST(killed_at_random) {
    char with[80];
    const int least = getenv("HYBRIDIZE_EVERY") ? 50 : 2;
    int ended = 0, rounds = 0;
    Rng rng;
    rng_seed(&rng, (uint64_t)getpid());
    const double since = log_now();
    ck_assert_msg(!ranks(4, RUN " -o o", -1, NULL, NULL), "%s", said);
    double seconds = log_now() - since;
    for (; rounds < least || !ended; rounds++) {
        ck_assert_int_lt(rounds, least + 10);
        Err e = {0};
        const int rank = (int)rng_below(&rng, 4), next = 1 << rng_below(&rng, 4);
        must(file_remove_tree(place("o"), &e), &e);
        snprintf(with, sizeof with, "timeout --foreground -s KILL %.3f", 0.001 + rng_uniform(&rng) * seconds);
        const int rc = ranks(4, RUN " -o o", rank, with, NULL);
        if (rc) ended++;
        else if (!ended) seconds /= 2;
        ck_assert_msg(!ranks(next, RUN " -o o --resume", -1, NULL, NULL), "rank %d, %s, then %d ranks: %s", rank, with,
                      next, said);
        ck_assert_int_ge(same_tree(place("whole"), place("o"), with), 12);
    }
    printf("%d of %d rounds ended by the kill\n", ended, rounds);
}
END_TEST

/* ---------------------------------------------------------------- refusals */

static const struct {
    const char *command, *instead, *says;
} refused[] = {
    {RUN " -o o", RUN " -o o --seed 7", "rank 1 on "},
    {RUN " -o o", RUN " -o o --seed 7", "option 'seed' is '7' here and '42' at rank 0"},
    {RUN " -o o", "run -m teacher/model --text text2 --config run.json -t 1 -o o", "the teacher's and the text's hash"},
    {RUN " -o o", "align -m teacher/model --text text --config run.json -t 1 -o o", "the command and its device"},
    {RUN " -o o --lanes 0", NULL, "lanes: got 1 for 2 ranks"},
    {RUN " -o o --lanes 3", NULL, "lanes: got 3, expected a power of two"},
    {RUN " -o o --lanes 16", NULL, "stage1.batch_size: got 8, expected a multiple of the 16 lanes"},
    {RUN " -o o --ranks 4", NULL, "ranks: got 4, but 2 were started"},
    {"eval -m teacher/model --text text", NULL, "eval: got 2 ranks, expected one"},
};

START_TEST(refusals) {
    const int rc = ranks(2, refused[_i].command, refused[_i].instead ? 1 : -1, "X=1", refused[_i].instead);
    ck_assert_msg(rc == 2 && strstr(said, refused[_i].says), "code %d: %s", rc, said);
    const char *line = strstr(said, "hybridize: error: ");
    ck_assert_msg(line && !strstr(line + 1, "hybridize: error: "), "said twice: %s", said);
}
END_TEST

/* The program without MPI says what it lacks; make MPI=1 test has none. */
START_TEST(without) {
    char line[5000];
    snprintf(line, sizeof line, "'%s' " RUN " -o o --ranks 2", plain);
    ck_assert_int_eq(shell(line), 2);
    ck_assert_msg((strstr(said, "built without MPI") && strstr(said, "make MPI=1")) ||
                      strstr(said, "ranks: got 2, but 1 were started"),
                  "%s", said);
}
END_TEST

SUITE("ranks") {
    const char *slash = strrchr(suite_argv[0], '/');
    char there[1100];
    GROUP("tree");
    CASE(edges);
    snprintf(there, sizeof there, "%.*s/../hybridize", slash ? (int)(slash - suite_argv[0]) : 1,
             slash ? suite_argv[0] : ".");
    if (!getcwd(root, sizeof root) || !realpath(there, plain)) return (void)puts("SKIP no program: ranks");
    snprintf(program, sizeof program, "%s-mpi", plain);
    if (access(program, X_OK) || !launcher()) return (void)puts("SKIP no MPI: ranks");
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 0); // what MPI keeps to the end is not ours
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 0);
    GROUP("bits", .setup_once = teacher_once, .teardown_once = home_end, .setup = begin, .teardown = tmpdir_end,
          .timeout = 900);
    CASE(same_bits, .times = sizeof runs / sizeof *runs);
    CASE(alone, .times = 2);
    CASE(cost, .times = sizeof costs / sizeof *costs);
    GROUP("faults", .setup_once = whole_once, .teardown_once = home_end, .setup = begin, .teardown = tmpdir_end,
          .timeout = 900);
    CASE(killed);
    CASE(failing, .times = sizeof faults / sizeof *faults);
    GROUP("loops", .setup_once = whole_once, .teardown_once = home_end, .setup = begin, .teardown = tmpdir_end,
          .timeout = 7200);
    CASE(killed_at_random);
    CASE(each_call, .times = 2);
    GROUP("refusals", .setup_once = teacher_once, .teardown_once = home_end, .setup = begin, .teardown = tmpdir_end,
          .timeout = 400);
    CASE(refusals, .times = sizeof refused / sizeof *refused);
    CASE(without);
}
