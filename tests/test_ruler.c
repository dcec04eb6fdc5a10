/* test_ruler.c - the random streams of CPython and NumPy, and the 13 RULER tasks against samples of the original
 * generator. */
#include "eval/ruler.h"
#include "base/file.h"
#include "base/mem.h"
#include "eval/ruler_parts.h"
#include "tests/suite.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void ok(int rc, const Err *e) {
    if (rc) ck_abort_msg("code %d: %s (%s)", rc, e->msg, e->hint);
}

static const char *data_dir(void) {
    static char dir[512];
    const char *shared = getenv("HYBRIDIZE_SHARED");
    snprintf(dir, sizeof dir, "%s/evals", shared ? shared : "../shared");
    if (file_exists(dir) == 2) return dir;
    printf("SKIP no shared/evals\n");
    return NULL;
}

/* ---- random streams: values of CPython 3 and NumPy ---- */

START_TEST(test_streams) {
    PyRandom r;
    Err e = {0};
    int x[8], want_a[] = {7, 1, 17, 15}, want_b[] = {228, 142, 754, 104, 692, 758};
    char id[37];
    pyrandom_seed(&r, 0);
    ck_assert(pyrandom_real(&r) == 0.8444218515250481 && pyrandom_real(&r) == 0.7579544029403025);
    pyrandom_seed(&r, 42);
    ck_assert_uint_eq(pyrandom_bits(&r, 32), 2746317213u);
    pyrandom_seed(&r, 42);
    ok(pyrandom_sample(&r, 40, 4, x, &e), &e);
    ck_assert(!memcmp(x, want_a, sizeof want_a));
    ok(pyrandom_sample(&r, 1000, 6, x, &e), &e);
    ck_assert(!memcmp(x, want_b, sizeof want_b));
    ck_assert_int_eq(pyrandom_int(&r, 1000000, 9999999), 2458591);
    ck_assert_int_eq(pyrandom_int(&r, 1000000, 9999999), 8078673);
    pyrandom_seed(&r, 42);
    pyrandom_uuid4(&r, id);
    ck_assert_str_eq(id, "bdd640fb-0667-4ad1-9c80-317fa3b1799d");
    ck_assert_int_eq(pyrandom_sample(&r, 3, 4, x, &e), ERR_USAGE);
}
END_TEST

START_TEST(test_shuffles) {
    static const int want8[] = {3, 4, 6, 7, 2, 5, 0, 1}, want4[] = {2, 1, 3, 0};
    static const int zero[] = {78268, 53567, 52613}, answer[] = {25795, 10860, 86820};
    PyRandom r;
    int x[8];
    for (int i = 0; i < 8; i++) x[i] = i;
    pyrandom_seed(&r, 42);
    pyrandom_shuffle(&r, x, 8);
    ck_assert(!memcmp(x, want8, sizeof want8));
    for (int i = 0; i < 4; i++) x[i] = i;
    pyrandom_seed(&r, 42);
    pyrandom_shuffle(&r, x, 4);
    ck_assert(!memcmp(x, want4, sizeof want4));
    nprandom_seed(&r, 0);
    for (int i = 0; i < 3; i++) ck_assert_int_eq(nprandom_int(&r, 10000, 99999), zero[i]);
    nprandom_seed(&r, 42);
    for (int i = 0; i < 3; i++) ck_assert_int_eq(nprandom_int(&r, 10000, 99999), answer[i]);
    nprandom_seed(&r, 1);
    ck_assert_int_eq(nprandom_int(&r, 7, 8), 7);
}
END_TEST

/* ---- words ---- */

static int order(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* All composites of a small list, made and sorted, against those found by rank. */
START_TEST(test_composites) {
    static const char *const adjective[] = {"well", "we", "well-made", "a", "well", "wellish", "we-"}, *const noun[] = {
                                                                                                           "x",
                                                                                                           "made-x",
                                                                                                           "b", "x",
                                                                                                           "z"};
    char dir[] = "build/words_XXXXXX", path[64], *want[64], got[64];
    Err e = {0};
    Words w;
    size_t n = 0, m = 0;
    ok(file_mkdirs("build", &e), &e);
    ck_assert(mkdtemp(dir) != NULL);
    for (int k = 0; k < 3; k++) {
        static const char *const file[] = {"nounlist.txt", "adjectivelist.txt", "verblist.txt"};
        char text[256] = "";
        const size_t rows = k == 0 ? 5 : k == 1 ? 7 : 2;
        for (size_t i = 0; i < rows; i++)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s",
                     k == 0   ? noun[i]
                     : k == 1 ? adjective[i]
                     : i      ? "run"
                              : "b",
                     i + 1 < rows ? " \t\n" : "");
        snprintf(path, sizeof path, "%s/%s", dir, file[k]);
        ok(file_write_all(path, text, strlen(text), &e), &e);
    }
    ok(words_open(&w, dir, &e), &e);
    for (size_t a = 0; a < 7; a++)
        for (size_t b = 0; b < 5; b++) {
            want[n] = malloc(64);
            snprintf(want[n++], 64, "%s-%s", adjective[a], noun[b]);
        }
    qsort(want, n, sizeof *want, order);
    for (size_t i = 0; i < n; i++) {
        if (i && !strcmp(want[i - 1], want[i])) continue;
        ck_assert_uint_lt(m, w.composites);
        words_composite(&w, (uint32_t)m++, got, sizeof got);
        ck_assert_str_eq(got, want[i]);
    }
    ck_assert_uint_eq(m, w.composites);
    ck_assert_uint_eq(w.n_all, 11);
    for (size_t i = 0; i < n; i++) free(want[i]);
    words_close(&w);
    ok(file_remove_tree(dir, &e), &e);
    ck_assert_int_eq(words_open(&w, dir, &e), ERR_IO);
    ck_assert_ptr_nonnull(strstr(e.msg, "nounlist.txt"));
}
END_TEST

START_TEST(test_word_lists) {
    const char *dir = data_dir();
    char path[600];
    Words w;
    Err e = {0};
    if (!dir) return;
    snprintf(path, sizeof path, "%s/wonderwords", dir);
    ok(words_open(&w, path, &e), &e);
    ck_assert_uint_eq(w.composites, 6175260);
    char a[128] = "", b[128];
    for (uint32_t i = 0; i < w.composites; i += i < 20000 ? 1 : 97) {
        words_composite(&w, i, b, sizeof b);
        ck_assert_int_lt(strcmp(a, b), 0);
        memcpy(a, b, sizeof a);
    }
    words_close(&w);
}
END_TEST

START_TEST(test_simple_tokens) {
    TokenCount c = {.kind = COUNT_SIMPLE};
    Err e = {0};
    size_t n;
    static const struct {
        const char *text;
        size_t n;
    } row[] = {{"", 0}, {"ab", 1}, {" ab", 1}, {"  ab", 2}, {"ab cd 12", 5}, {" ", 1}, {"a\xc3\xa9", 3}, {"a.b", 3}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        ok(token_count(&c, row[i].text, strlen(row[i].text), &n, &e), &e);
        ck_assert_msg(n == row[i].n, "\"%s\": %zu", row[i].text, n);
    }
}
END_TEST

/* ---- the tasks against the original's samples ---- */

static uint64_t fnv(const char *s) {
    uint64_t h = 14695981039346656037u;
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

typedef struct {
    char tokenizer[16], task[32], outputs[512];
    int L, index;
    size_t bytes, tokens;
    unsigned long long hash;
} Row;

static void row_check(const Row *w, const EvalDoc *d) {
    char got[512] = "";
    for (int i = 0; i < d->n_text; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", i ? "|" : "", d->text[i]);
    ck_assert_msg(!strcmp(got, w->outputs) && strlen(d->context[0]) == w->bytes && d->context_tokens == w->tokens &&
                      fnv(d->context[0]) == w->hash,
                  "%s %s %d #%d: answers %s, wanted %s; %zu bytes, wanted %zu; %zu tokens, wanted %zu\n%s",
                  w->tokenizer, w->task, w->L, w->index, got, w->outputs, strlen(d->context[0]), w->bytes,
                  d->context_tokens, w->tokens, d->context[0]);
}

START_TEST(test_golden) {
    const char *dir = data_dir();
    char path[600], line[1024];
    if (!dir) return;
    snprintf(path, sizeof path, "%s/ruler_golden/ruler_golden.tsv", dir);
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    Ruler r = {0};
    TokenCount c = {0};
    EvalSet set = {0};
    Err e = {0};
    Row w;
    char open[64] = "";
    int rows = 0, refused = 0;
    ck_assert_ptr_nonnull(fgets(line, sizeof line, f));
    while (fgets(line, sizeof line, f)) {
        char key[64];
        w.outputs[0] = 0;
        ck_assert_int_ge(sscanf(line, "%15s %d %31s %d %zu %zu %llx %511[^\n]", w.tokenizer, &w.L, w.task, &w.index,
                                &w.bytes, &w.tokens, &w.hash, w.outputs),
                         7);
        snprintf(key, sizeof key, "%s/%d", w.tokenizer, w.L);
        if (strcmp(key, open)) { // a process of its own made each length
            if (open[0]) ruler_close(&r);
            memcpy(open, key, sizeof open);
            c.kind = w.tokenizer[0] == 'b' ? COUNT_BYTES : COUNT_SIMPLE;
            ok(ruler_open(&r, dir, &c, &e), &e);
        }
        if (w.index == 0) {
            const int task = ruler_find(w.task);
            ck_assert_int_ge(task, 0);
            evalset_free(&set);
            ruler_seed(&r, 42);
            e = (Err){0};
            const int rc = ruler_make(&r, task, w.L, 3, &set, &e);
            ck_assert_int_eq(rc, w.outputs[0] ? OK : ERR_USAGE);
        }
        if (w.outputs[0]) row_check(&w, &set.doc[w.index]);
        else refused++;
        rows++;
    }
    ck_assert_int_eq(rows, 123);
    ck_assert_int_eq(refused, 6);
    fclose(f);
    evalset_free(&set);
    ruler_close(&r);
}
END_TEST

/* Samples that NVIDIA's own scripts made of the same words, essays and questions (testdata/ruler_nvidia.tsv); 0 bytes:
 * they never ended. */
START_TEST(test_nvidia) {
    const char *dir = data_dir();
    char line[2048];
    if (!dir) return;
    FILE *f = fopen("testdata/ruler_nvidia.tsv", "r");
    ck_assert_ptr_nonnull(f);
    Ruler r = {0};
    TokenCount c = {0};
    EvalSet set = {0};
    Err e = {0};
    Row w;
    int rows = 0, refused = 0;
    ok(ruler_open(&r, dir, &c, &e), &e);
    r.flavour = RULER_NVIDIA;
    ck_assert_ptr_nonnull(fgets(line, sizeof line, f));
    for (; fgets(line, sizeof line, f); rows++) {
        char got[1024] = "";
        w.outputs[0] = 0;
        ck_assert_int_ge(sscanf(line, "%15s %d %31s %d %zu %llx %511[^\n]", w.tokenizer, &w.L, w.task, &w.index,
                                &w.bytes, &w.hash, w.outputs),
                         6);
        c.kind = w.tokenizer[0] == 'b' ? COUNT_BYTES : COUNT_SIMPLE;
        if (w.index == 0) {
            evalset_free(&set);
            ruler_seed(&r, 42);
            e = (Err){0};
            const int rc = ruler_make(&r, ruler_find(w.task), w.L, 3, &set, &e);
            ck_assert_msg(rc == (w.bytes ? OK : ERR_USAGE), "%s %s %d: %d %s", w.tokenizer, w.task, w.L, rc, e.msg);
        }
        if (!w.bytes) {
            refused++;
            continue;
        }
        const EvalDoc *d = &set.doc[w.index];
        for (int i = 0; i < d->n_text; i++)
            snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", i ? "|" : "", d->text[i]);
        ck_assert_msg(!strcmp(got, w.outputs) && strlen(d->context[0]) == w.bytes && fnv(d->context[0]) == w.hash,
                      "%s %s %d #%d: %s, wanted %s\n%s", w.tokenizer, w.task, w.L, w.index, got, w.outputs,
                      d->context[0]);
        ck_assert_uint_le(d->context_tokens, (size_t)w.L);
        ck_assert(set.percent && set.any == !strcmp(w.task, "qa_1"));
    }
    ck_assert_int_eq(rows, 94);
    ck_assert_int_eq(refused, 7);
    fclose(f);
    evalset_free(&set);
    ruler_close(&r);
}
END_TEST

/* Seeded once, one task after the other, as the harness does it: what its own generators drew then (simple tokens,
 * length 2048, seed 7, three samples a task, in this order); FNV-1a of the last sample's prompt. */
START_TEST(test_chained) {
    static const struct {
        const char *task;
        unsigned long long hash;
    } row[] = {{"ruler_fwe", 0xc14dc1399402e64eULL},       {"ruler_cwe", 0xd376ea91716e569fULL},
               {"ruler_vt", 0x578f24dbc87e4358ULL},        {"niah_multikey_3", 0x97aec7723ea2c1c7ULL},
               {"niah_multikey_2", 0x817cf58d77e7b106ULL}, {"niah_single_1", 0x4cc73f207edd9aa8ULL}};
    const char *dir = data_dir();
    Ruler r = {0};
    TokenCount c = {.kind = COUNT_SIMPLE};
    EvalSet set = {0};
    Err e = {0};
    if (!dir) return;
    ok(ruler_open(&r, dir, &c, &e), &e);
    ruler_seed(&r, 7);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        evalset_free(&set);
        ok(ruler_make(&r, ruler_find(row[i].task), 2048, 3, &set, &e), &e);
        ck_assert_msg(fnv(set.doc[2].context[0]) == row[i].hash, "%s: %016llx\n%s", row[i].task,
                      (unsigned long long)fnv(set.doc[2].context[0]), set.doc[2].context[0]);
    }
    evalset_free(&set);
    ruler_seed(&r, 7);
    ok(ruler_make(&r, ruler_find(row[1].task), 2048, 3, &set, &e), &e);
    ck_assert(fnv(set.doc[2].context[0]) != row[1].hash); // a seed of its own gives other samples
    evalset_free(&set);
    ruler_close(&r);
}
END_TEST

SUITE("ruler") {
    CASE(test_streams);
    CASE(test_shuffles);
    CASE(test_composites);
    CASE(test_word_lists);
    CASE(test_simple_tokens);
    CASE(test_golden);
    CASE(test_nvidia);
    CASE(test_chained);
}
