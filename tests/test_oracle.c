/* test_oracle.c - the judge of other programs' numbers (tools/oracle.h): bugs that were published and fixed elsewhere,
 * planted in the truth, must be reported in the right tensor and where the evidence allows it with the right guess; and
 * the doors to it: files, shared libraries, hyb.h. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/mem.h"
#include "io/safetensors.h"
#include "suite.h"
#include "tmpdir.h"
#include "tools/hyb.h"
#include "tools/opcheck_parts.h"
#include "tools/oracle.h"

enum { LARGEST = 1 << 20 };
static double mine[MAX_TENSORS][LARGEST];

typedef struct {
    Oracle *o;
    const char *name;
    OracleVerdict v[MAX_TENSORS];
} Case;
static Case opened(const char *op, const char *shape, DType type) {
    Case c = {.name = op};
    Err e = {0};
    ck_assert_msg(!oracle_open(&c.o, op, shape, type, 3, &e), "%s", e.msg);
    ck_assert_msg(!oracle_run(c.o, &e), "%s", e.msg);
    for (int i = 0; i < oracle_count(c.o); i++) {
        const OracleTensor *t = oracle_tensor(c.o, i);
        ck_assert_uint_le(t->count, LARGEST);
        if (t->value && t->count) memcpy(mine[i], t->value, t->count * sizeof(double));
    }
    return c;
}
static double *result(const Case *c, const char *name) {
    for (int i = 0; i < oracle_count(c->o); i++)
        if (!strcmp(oracle_tensor(c->o, i)->name, name)) return mine[i];
    ck_abort_msg("%s has no %s", c->name, name);
}
static const OracleTensor *truth(const Case *c, const char *name) { return oracle_find(c->o, name); }

/* Exactly the tensors in `bad` ("dk dbeta") fail, and the first one's guess says `guess`. Frees the case. */
static void reported(Case *c, const char *bad, const char *guess) {
    char failed[256] = "", first[160] = "";
    for (int i = 0; i < oracle_count(c->o); i++) {
        const OracleTensor *t = oracle_tensor(c->o, i);
        if ((t->role != ORACLE_OUTPUT && t->role != ORACLE_GRADIENT) || !t->count) continue;
        const OracleVerdict v = oracle_judge(c->o, t, mine[i]);
        if (v.c.verdict == COMPARE_OK) continue;
        if (!failed[0]) snprintf(first, sizeof first, "%s", v.guess);
        snprintf(failed + strlen(failed), sizeof failed - strlen(failed), "%s%s", failed[0] ? " " : "", t->name);
    }
    ck_assert_msg(!strcmp(failed, bad), "%s: reported \"%s\", expected \"%s\"", c->name, failed, bad);
    ck_assert_msg(strstr(first, guess) != NULL, "%s: guessed \"%s\", expected \"%s\"", c->name, first, guess);
    oracle_close(c->o);
}

/* ---- bugs of published kernels, by their commit in flash-linear-attention ---- */

START_TEST(weight_gradient_of_the_gated_norm) { // 674f0852: dw without the gate
    Case c = opened("gated_rmsnorm", "N=9,C=12", DT_F32);
    const double *x = truth(&c, "x")->value, *dy = truth(&c, "dy")->value, *rstd = truth(&c, "rstd")->value;
    double *dw = result(&c, "dw");
    for (int k = 0; k < 12; k++) {
        dw[k] = 0;
        for (int n = 0; n < 9; n++) dw[k] += dy[n * 12 + k] * x[n * 12 + k] * rstd[n];
    }
    reported(&c, "dw", "");
}
END_TEST

START_TEST(values_beyond_64) { // e4c7f880: dq, dk forget the value channels from 64 on
    Case c = opened("delta_rule", "B=1,T=20,H=2,Hk=2,K=8,V=80,chunk=16", DT_F32), cut;
    Err e = {0};
    ck_assert_int_eq(oracle_open(&cut.o, "delta_rule", "B=1,T=20,H=2,Hk=2,K=8,V=80,chunk=16", DT_F32, 3, &e), OK);
    OracleTensor *dout = oracle_find(cut.o, "dout"), *dfinal = oracle_find(cut.o, "dfinal");
    for (size_t i = 0; i < dout->count; i++) dout->value[i] *= i % 80 < 64;
    for (size_t i = 0; i < dfinal->count; i++) dfinal->value[i] *= i % 80 < 64;
    ck_assert_int_eq(oracle_run(cut.o, &e), OK);
    memcpy(result(&c, "dq"), oracle_find(cut.o, "dq")->value, oracle_find(cut.o, "dq")->count * sizeof(double));
    memcpy(result(&c, "dk"), oracle_find(cut.o, "dk")->value, oracle_find(cut.o, "dk")->count * sizeof(double));
    oracle_close(cut.o);
    reported(&c, "dq dk", "");
}
END_TEST

START_TEST(dk_and_dbeta_of_one_block) { // 595682b8: a miscompiled block of rows
    Case c = opened("delta_rule", "B=1,T=64,H=2,Hk=2,K=8,V=8,chunk=64,-start", DT_F32);
    for (int t = 48; t < 64; t++)
        for (int h = 0; h < 2; h++) {
            for (int a = 0; a < 8; a++) result(&c, "dk")[(t * 2 + h) * 8 + a] *= 1.2;
            result(&c, "dbeta")[t * 2 + h] *= 0.7;
        }
    reported(&c, "dk dbeta", "tokens >= 48");
}
END_TEST

static void noise(double *x, size_t n, double by) {
    Rng g;
    double square = 0;
    rng_seed(&g, 9);
    for (size_t i = 0; i < n; i++) square += x[i] * x[i];
    for (size_t i = 0; i < n; i++) x[i] += by * sqrt(square / (double)n) * rng_normal(&g);
}
START_TEST(gradients_in_low_precision) { // 510c88e9: products in the wrong precision
    Case c = opened("delta_rule", "B=1,T=64,H=2,Hk=2,K=8,V=8,chunk=64,-start", DT_F32);
    static const char *const names[] = {"dq", "dk", "dg"};
    for (int i = 0; i < 3; i++) noise(result(&c, names[i]), truth(&c, names[i])->count, 2e-3);
    reported(&c, "dq dk dg", "noise");
}
END_TEST

START_TEST(tail_of_a_short_chunk) { // a252c17d, 4e1dd3be: fewer tokens than the convolution is wide
    Case c = opened("conv", "B=2,T=2,C=5,W=4", DT_F32);
    for (int b = 0; b < 2; b++) // the row that comes from tail_in is lost
        for (int k = 0; k < 5; k++) result(&c, "tail_out")[b * 15 + k] = 0;
    reported(&c, "tail_out", "");
}
END_TEST

START_TEST(upstream_gradient_ignored) { // b9bdbcf2: dy taken as 1
    Case c = opened("rmsnorm", "up=1000", DT_F32);
    for (size_t i = 0; i < truth(&c, "dx")->count; i++) result(&c, "dx")[i] /= 1000;
    for (size_t i = 0; i < truth(&c, "dw")->count; i++) result(&c, "dw")[i] /= 1000;
    reported(&c, "dx dw", "upstream gradient is ignored");
}
END_TEST

START_TEST(state_lost_between_chunks) { // ec28a80e: what a decay near 1 uncovers
    for (int damped = 0; damped < 2; damped++) {
        Case c = opened("delta_rule",
                        damped ? "B=1,T=128,H=2,Hk=2,K=8,V=8,chunk=64,decay=-50,-start"
                               : "B=1,T=128,H=2,Hk=2,K=8,V=8,chunk=64,decay=0,-start",
                        DT_F32);
        Case half = {.name = "half"};
        Err e = {0};
        ck_assert_int_eq(oracle_open(&half.o, "delta_rule", "B=1,T=64,H=2,Hk=2,K=8,V=8,chunk=64,-start", DT_F32, 3, &e),
                         OK);
        static const char *const names[] = {"q", "k", "v", "g", "beta"};
        for (int i = 0; i < 5; i++) {
            OracleTensor *x = oracle_find(half.o, names[i]);
            memcpy(x->value, truth(&c, names[i])->value + x->count, x->count * sizeof(double));
        }
        memset(oracle_find(half.o, "S0")->value, 0, oracle_find(half.o, "S0")->count * sizeof(double));
        ck_assert_int_eq(oracle_run(half.o, &e), OK);
        memcpy(result(&c, "o") + 1024, oracle_find(half.o, "o")->value, 1024 * sizeof(double));
        oracle_close(half.o);
        if (damped) reported(&c, "", "");
        else reported(&c, "o", "tokens >= 64");
    }
}
END_TEST

START_TEST(rows_never_written) { // bd67d117: rotary output of padding
    Case c = opened("rope", "B=2,T=9,H=2,D=6", DT_F32);
    for (int b = 0; b < 2; b++)
        for (int i = 0; i < 3 * 12; i++) result(&c, "y")[b * 108 + i] = NAN;
    reported(&c, "y", "tokens < 3");
}
END_TEST

START_TEST(loads_past_a_power_of_two) { // b67113b4, ebd4dd27: channels beyond 64 of 67
    Case c = opened("attention", "B=1,T=9,H=2,Hk=2,D=67,-start", DT_F32);
    for (int i = 0; i < 18; i++)
        for (int k = 64; k < 67; k++) result(&c, "dv")[i * 67 + k] += 0.1;
    reported(&c, "dv", "channels >= 64");
}
END_TEST

START_TEST(blocks_beyond_65535) { // b9afc14a, 31d15f75: rows that no block came to
    Case c = opened("rmsnorm", "N=70000,C=3", DT_F32);
    memset(result(&c, "y") + 65535 * 3, 0, (70000 - 65535) * 3 * sizeof(double));
    reported(&c, "y", "");
    c = opened("head_kl", "N=1024,C=2,Ct=2,VOC=3,block=128,-weight", DT_F32); // HALO: the first sequence only
    memset(result(&c, "loss") + 512, 0, 512 * sizeof(double));
    reported(&c, "loss", "rows >= 512");
}
END_TEST

/* ---- what else people write ---- */

START_TEST(orders_and_factors) {
    Case c = opened("delta_rule", "B=2,T=12,H=4,Hk=2,K=6,V=6,chunk=4", DT_F32);
    for (size_t i = 0; i < truth(&c, "o")->count; i++) result(&c, "o")[i] *= 0.5;
    reported(&c, "o", "constant factor 0.5");
    c = opened("delta_rule", "B=2,T=12,H=4,Hk=2,K=6,V=6,chunk=4", DT_F32);
    for (size_t i = 0; i < truth(&c, "dk")->count; i++) result(&c, "dk")[i] *= -1;
    reported(&c, "dk", "sign");
    c = opened("delta_rule", "B=2,T=12,H=4,Hk=2,K=6,V=6,chunk=4", DT_F32);
    for (int n = 0; n < 8; n++) // S^T
        for (int i = 0; i < 36; i++)
            result(&c, "final")[n * 36 + i] = truth(&c, "final")->value[n * 36 + i % 6 * 6 + i / 6];
    reported(&c, "final", "axes K and V are exchanged");
    c = opened("delta_rule", "B=2,T=12,H=4,Hk=2,K=6,V=6,chunk=4", DT_F32);
    for (int b = 0; b < 2; b++)
        for (int t = 11; t > 0; t--)
            memcpy(result(&c, "dg") + (b * 12 + t) * 4, truth(&c, "dg")->value + (b * 12 + t - 1) * 4, 32);
    reported(&c, "dg", "one token late");
    c = opened("delta_rule", "B=2,T=12,H=4,Hk=2,K=6,V=6,chunk=4", DT_F32);
    for (int n = 0; n < 24; n++)
        for (int h = 0; h < 4; h++)
            memcpy(result(&c, "dv") + (n * 4 + h) * 6, truth(&c, "dv")->value + (n * 4 + h % 2 * 2 + h / 2) * 6, 48);
    reported(&c, "dv", "tiled");
}
END_TEST

START_TEST(documents_leak) {
    Case c = opened("delta_rule", "B=1,T=24,H=2,Hk=2,K=4,V=4,chunk=8,pad=11", DT_F32),
         leak = opened("delta_rule", "B=1,T=24,H=2,Hk=2,K=4,V=4,chunk=8,-start", DT_F32);
    // the same draws without the boundary; mine now holds the leaking results
    oracle_close(leak.o);
    for (int i = 0; i < oracle_count(c.o); i++) {
        const OracleTensor *t = oracle_tensor(c.o, i);
        if (strcmp(t->name, "o") && t->value && t->count) memcpy(mine[i], t->value, t->count * sizeof(double));
    }
    reported(&c, "o", "later documents");
}
END_TEST

/* The truth itself passes in each type, rounded to it, for every op. */
START_TEST(truth_passes) {
    static const DType types[] = {DT_F64, DT_F32, DT_BF16};
    for (int k = 0; k < 3; k++) {
        Case c = opened(opcheck_name(_i), "", types[k]);
        for (int i = 0; i < oracle_count(c.o); i++) {
            const OracleTensor *t = oracle_tensor(c.o, i);
            for (size_t n = 0; t->type != DT_I32 && n < t->count; n++) {
                unsigned char raw[8];
                dtype_convert(t->type, raw, DT_F64, &mine[i][n], 1);
                dtype_convert(DT_F64, &mine[i][n], t->type, raw, 1);
            }
        }
        reported(&c, "", "");
    }
    ck_assert_uint_eq(mem_now(), 0);
}
END_TEST

/* ---- the doors ---- */

static char shown[1 << 16];
static int gradcheck(GradcheckOptions o, Err *e) {
    FILE *f = fmemopen(shown, sizeof shown - 1, "w");
    memset(shown, 0, sizeof shown);
    const int rc = gradcheck_run(&o, f, e);
    fclose(f);
    return rc;
}

START_TEST(files) {
    char dir[640], path[1024];
    Err e = {0};
    Safetensors s;
    snprintf(dir, sizeof dir, "%s/cases", tmpdir);
    ck_assert_msg(!gradcheck((GradcheckOptions){.op = "gla", .regime = "decay-5", .dump = dir, .seed = 4}, &e), "%s",
                  e.msg);
    snprintf(path, sizeof path, "%s/gla-decay-5-0-bfloat16.safetensors", dir);
    ck_assert_msg(!safetensors_open(&s, path, &e), "%s", e.msg);
    ck_assert_int_eq(safetensors_find(&s, "q")->dtype, DT_BF16);
    ck_assert_int_eq(safetensors_find(&s, "g")->dtype, DT_F32);
    ck_assert_int_eq(safetensors_find(&s, "dg")->dtype, DT_F64);
    int tolerances = 0;
    for (size_t i = 0; i < s.n_meta; i++) tolerances += !strncmp(s.meta_key[i], "derivation.", 11);
    ck_assert_int_eq(tolerances, 8); // o, states, final, dq, dk, dv, dg, dS0
    safetensors_close(&s);
    ck_assert_msg(!gradcheck((GradcheckOptions){.load = path}, &e), "%s", e.msg);
    ck_assert_ptr_nonnull(strstr(shown, "0 failed"));
    // another seed's results do not pass, in plain and in JSON
    GradcheckOptions other = {.load = path, .op = "gla", .shape = "decay=-5,up=7,-start", .seed = 5};
    for (other.json = 0; other.json < 2; other.json++) {
        e = (Err){0};
        Tensor t = {.name = "dq",
                    .dtype = DT_F64,
                    .rank = 1,
                    .shape = {176},
                    .count = 176,
                    .bytes = 176 * 8,
                    .data = (const unsigned char *)mine[0]};
        for (int i = 0; i < 176; i++) mine[0][i] = i;
        snprintf(path, sizeof path, "%s/mine.safetensors", tmpdir);
        ck_assert_int_eq(safetensors_write(path, &t, 1, NULL, NULL, NULL, &e), OK);
        ck_assert_int_eq(gradcheck(other, &e), ERR_CHECK);
        ck_assert_ptr_nonnull(strstr(shown, other.json ? "\"failed\": 1" : "TOO FAR"));
        ck_assert_ptr_nonnull(strstr(shown, "batch "));
    }
    // one line and a code for what cannot be judged
    e = (Err){0};
    ck_assert_int_eq(gradcheck((GradcheckOptions){.load = path}, &e), ERR_USAGE);
    e = (Err){0};
    ck_assert_int_eq(gradcheck((GradcheckOptions){.load = path, .op = "gla", .shape = "T=3"}, &e), ERR_INPUT);
    e = (Err){0};
    ck_assert_int_eq(gradcheck((GradcheckOptions){.load = path, .op = "silu"}, &e), ERR_INPUT);
    e = (Err){0};
    ck_assert_int_eq(gradcheck((GradcheckOptions){.load = "/nowhere"}, &e), ERR_IO);
    e = (Err){0};
    ck_assert_int_eq(gradcheck((GradcheckOptions){.regime = "decay-6", .op = "gla"}, &e), ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(e.hint, "decay-5"));
    ck_assert_uint_eq(mem_now(), 0);
}
END_TEST

START_TEST(listing) {
    Err e = {0};
    ck_assert_int_eq(gradcheck((GradcheckOptions){.list = 1}, &e), OK);
    for (int i = 0; i < opcheck_count(); i++) ck_assert_ptr_nonnull(strstr(shown, opcheck_name(i)));
    ck_assert_ptr_nonnull(strstr(shown, "keys-orthogonal"));
    ck_assert_int_eq(gradcheck((GradcheckOptions){.list = 1, .op = "conv"}, &e), OK);
    ck_assert_ptr_nonnull(strstr(shown, "    T=150 C=260 -tail_in\n")); // a case
    ck_assert_ptr_nonnull(strstr(shown, "    short "));                 // a regime of it
    ck_assert_ptr_null(strstr(shown, "decay-5"));                       // and not one of others
    for (int list = 0; list < 2; list++) {
        e = (Err){0};
        ck_assert_int_eq(gradcheck((GradcheckOptions){.list = list, .op = "delta_rul"}, &e), ERR_USAGE);
        ck_assert_ptr_nonnull(strstr(e.hint, "delta_rule"));
    }
}
END_TEST

/* Every tensor of file a is that of b, to the byte. */
static void same_file(const char *a, const char *b) {
    File x, y;
    Err e = {0};
    ck_assert_int_eq(file_open(&x, a, &e), OK);
    ck_assert_int_eq(file_open(&y, b, &e), OK);
    ck_assert_uint_eq(x.size, y.size);
    ck_assert_mem_eq(x.data, y.data, x.size);
    file_close(&x);
    file_close(&y);
}
/* Inputs are numbers of bfloat16 (wide ones of float), results pass as what a program computed. */
static void case_is_sound(const char *path) {
    Safetensors s;
    Err e = {0};
    ck_assert_msg(!safetensors_open(&s, path, &e), "%s", e.msg);
    const char *tensors = NULL;
    for (size_t i = 0; i < s.n_meta; i++)
        if (!strcmp(s.meta_key[i], "tensors")) tensors = s.meta_value[i];
    ck_assert_ptr_nonnull(tensors);
    for (size_t i = 0; i < s.n; i++) {
        char word[64];
        snprintf(word, sizeof word, "%s:", s.tensor[i].name);
        const char *at = strstr(tensors, word);
        ck_assert_msg(at != NULL, "%s: %s", path, s.tensor[i].name);
        const size_t len = strcspn(at, " ");
        for (size_t k = 0; s.tensor[i].dtype == DT_F32 && !memcmp(at + len - 4, "real", 4) && k < s.tensor[i].count;
             k++) {
            unsigned bits;
            memcpy(&bits, s.tensor[i].data + 4 * k, 4);
            ck_assert_uint_eq(bits & 0xffff, 0);
        }
    }
    safetensors_close(&s);
    ck_assert_msg(!gradcheck((GradcheckOptions){.load = path, .dtype = "float64"}, &e), "%s: %s", path, e.msg);
}
START_TEST(pack) {
    static const char *const ops[] = {"delta_rule-",    "kda-",       "gla-",     "attention-", "conv-",
                                      "delta_gate-",    "kda_gate-",  "rmsnorm-", "rope-",      "gla_gate-",
                                      "gated_rmsnorm-", "head_xent-", "head_kl-", "kda_mixer-"};
    char first[600], second[600], a[1400], b[1400];
    Err e = {0};
    size_t n, size = 0, seen[sizeof ops / sizeof *ops] = {0};
    char **names;
    snprintf(first, sizeof first, "%s/pack", tmpdir);
    snprintf(second, sizeof second, "%s/again", tmpdir);
    ck_assert_msg(!gradcheck((GradcheckOptions){.pack = first, .seed = 1}, &e), "%s", e.msg);
    ck_assert_ptr_nonnull(strstr(shown, "kda-mixed-decay,kda,mixed-decay,"));
    ck_assert_int_eq(file_list(&names, &n, first, &e), OK);
    ck_assert_uint_ge(n, 60);
    for (size_t i = 0; i < n; i++) {
        File f;
        snprintf(a, sizeof a, "%s/%s", first, names[i]);
        ck_assert_int_eq(file_open(&f, a, &e), OK);
        size += f.size;
        file_close(&f);
        for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) seen[k] += !strncmp(names[i], ops[k], strlen(ops[k]));
        if (i % 8 == 0) case_is_sound(a);
    }
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) ck_assert_msg(seen[k] > 0, "no case of %s", ops[k]);
    ck_assert_uint_lt(size, 24000000);
    file_list_free(names, n);
    ck_assert_int_eq(gradcheck((GradcheckOptions){.pack = second, .op = "kda", .seed = 1}, &e), OK);
    ck_assert_int_eq(file_list(&names, &n, second, &e), OK);
    for (size_t i = 0; i < n; i++) {
        snprintf(a, sizeof a, "%s/%s", first, names[i]);
        snprintf(b, sizeof b, "%s/%s", second, names[i]);
        same_file(a, b);
    }
    file_list_free(names, n);
    ck_assert_uint_eq(mem_now(), 0);
}
END_TEST

/* A C function, compiled apart: silu, right and with a constant error. */
START_TEST(libraries) {
    char path[600], command[2000];
    Err e = {0};
    snprintf(path, sizeof path, "%s/mine.c", tmpdir);
    FILE *f = fopen(path, "w");
    fprintf(f, "#include <stddef.h>\n#include <math.h>\n"
               "void silu_forward(float *y, const float *x, size_t n) { for (size_t i = 0; i < n; i++) y[i] = x[i] / "
               "(1 + expf(-x[i])); }\n"
               "void silu_wrong(float *y, const float *x, size_t n) { for (size_t i = 0; i < n; i++) y[i] = x[i] / "
               "(1.001f + expf(-x[i])); }\n");
    fclose(f);
    snprintf(command, sizeof command, "cc -shared -fPIC -O1 -o %s/mine.so %s -lm", tmpdir, path);
    if (system(command) != 0) return; // no compiler here
    snprintf(path, sizeof path, "%s/mine.so", tmpdir);
    ck_assert_msg(!gradcheck((GradcheckOptions){.op = "silu", .lib = path, .symbol = "silu_forward", .seed = 1}, &e),
                  "%s", e.msg);
    ck_assert_int_eq(gradcheck((GradcheckOptions){.op = "silu", .lib = path, .symbol = "silu_wrong", .seed = 1}, &e),
                     ERR_CHECK);
    // what failed comes first, the sum of it all last
    const char *first = strchr(shown, '\n') + 1, *last = strrchr(shown, '\n');
    ck_assert_ptr_nonnull(memmem(first, strcspn(first, "\n"), "TOO FAR", 7));
    while (last > shown && last[-1] != '\n') last--;
    ck_assert_ptr_nonnull(strstr(last, " comparisons, "));
    ck_assert_ptr_nonnull(strstr(shown, " ok "));
    e = (Err){0};
    ck_assert_int_eq(gradcheck((GradcheckOptions){.op = "silu", .lib = path, .symbol = "silu_none", .seed = 1}, &e),
                     ERR_INPUT);
    e = (Err){0};
    ck_assert_int_eq(gradcheck((GradcheckOptions){.op = "silu", .lib = "/nowhere.so", .symbol = "f", .seed = 1}, &e),
                     ERR_INPUT);
}
END_TEST

enum { N = 6, W = 5 };
static void *hyb_thread(void *wrong) {
    float x[N * W], w[W], dy[N * W], y[N * W], dx[N * W];
    double dw[W];
    HybError e;
    HybVerdict v[8];
    int judged;
    for (int i = 0; i < N * W; i++) x[i] = sinf((float)i), dy[i] = cosf((float)i);
    for (int i = 0; i < W; i++) w[i] = 1 + 0.1f * (float)i;
    HybArray a[] = {{"x", HYB_F32, N * W, x}, {"w", HYB_F32, W, w},       {"dy", HYB_F32, N * W, dy},
                    {"y", HYB_F32, N * W, y}, {"dx", HYB_F32, N * W, dx}, {"dw", HYB_F64, W, dw}};
    for (int k = 0; k < 20; k++) {
        if (hyb_run("rmsnorm", "N=6,C=5", a, 6, &e)) return "hyb_run failed";
        if (wrong) dx[7] += 0.01f;
        if (hyb_judge("rmsnorm", "N=6,C=5", HYB_F32, a, 6, v, &judged, &e) != (wrong ? HYB_FAILED : HYB_OK))
            return "verdict";
        if (judged != 3 || (wrong && (v[0].ok != 1 || v[1].ok != 0 || v[1].at != 7))) return "judged";
    }
    return NULL;
}
START_TEST(interface) {
    pthread_t t[2];
    int flag = 1;
    HybTensor x;
    HybError e;
    for (int i = 0; i < 2; i++) ck_assert_int_eq(pthread_create(&t[i], NULL, hyb_thread, i ? &flag : NULL), 0);
    for (int i = 0; i < 2; i++) {
        void *failed;
        pthread_join(t[i], &failed);
        ck_assert_msg(!failed, "%s", (char *)failed);
    }
    ck_assert_int_eq(hyb_abi(), HYB_ABI);
    ck_assert_int_eq(hyb_tensor("kda", "K=6", 3, &x, &e), HYB_OK);
    ck_assert(!strcmp(x.name, "q") && x.rank == 4 && x.dims[3] == 6 && x.role == HYB_INPUT_TENSOR);
    ck_assert_int_eq(hyb_tensor("kdaa", "", 0, &x, &e), HYB_USAGE);
    ck_assert_ptr_nonnull(strstr(e.message, "\"kda\""));
    float one[1] = {0};
    HybArray few = {"x", HYB_F32, 1, one};
    ck_assert_int_eq(hyb_run("rmsnorm", "N=1,C=1", &few, 1, &e), HYB_INPUT); // w is missing
    ck_assert_int_eq(hyb_run("rmsnorm", "N=2,C=1", &few, 1, &e), HYB_INPUT);
    int ids[2] = {0, 9};
    HybArray embed[] = {{"ids", HYB_I32, 2, ids}, {"w", HYB_F32, 1, one}};
    ck_assert_int_eq(hyb_run("embed", "N=2,C=1,VOC=1", embed, 2, &e), HYB_INPUT); // no such row
    ck_assert_uint_eq(mem_now(), 0);
}
END_TEST

/* hyb.py: the same library from Python. Whatever is missing (python3, numpy, `make lib`) is said. */
START_TEST(python) {
    const int rc = system("command -v python3 >/dev/null 2>&1 || { echo 'SKIP hyb.py: no python3'; exit 77; }; "
                          "python3 tests/peers/hyb_test.py");
    ck_assert_msg(rc == 0 || rc == 77 << 8, "tests/peers/hyb_test.py: %d", rc);
}
END_TEST

SUITE("oracle") {
    GROUP("bugs of others", .timeout = 120);
    CASE(weight_gradient_of_the_gated_norm);
    CASE(values_beyond_64);
    CASE(dk_and_dbeta_of_one_block);
    CASE(gradients_in_low_precision);
    CASE(tail_of_a_short_chunk);
    CASE(upstream_gradient_ignored);
    CASE(state_lost_between_chunks);
    CASE(rows_never_written);
    CASE(loads_past_a_power_of_two);
    CASE(blocks_beyond_65535);
    GROUP("guesses", .timeout = 120);
    CASE(orders_and_factors);
    CASE(documents_leak);
    CASE(truth_passes, .times = opcheck_count());
    GROUP("doors", .setup = tmpdir_begin, .teardown = tmpdir_end, .timeout = 120);
    CASE(files);
    CASE(listing);
    CASE(pack);
    CASE(libraries);
    CASE(interface);
    CASE(python);
}
