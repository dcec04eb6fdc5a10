/* test_dataset.c - shards: written, read, damaged; batches: every window once an epoch, pure, split and
 * documents respected. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/mem.h"
#include "base/rng.h"
#include "text/dataset.h"
#include "tests/suite.h"

static char dir[64];

static const char *at(const char *name) {
    static char path[8][128];
    static int k;
    k = (k + 1) % 8;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

static void put(const char *name, const char *text, size_t n) { // without fsync: hundreds of files are made
    FILE *f = fopen(at(name), "wb");
    ck_assert(f && fwrite(text, 1, n, f) == n && !fclose(f));
}

static void must(int rc, const Err *e) { ck_assert_msg(!rc, "code %d: %s (%s)", rc, e->msg, e->hint); }

static const ShardOptions plain = {.add_eos = -1};

/* A shard of ids 0, 1, 2, ... with the given document ends. */
static void count_shard(const char *name, int n, const uint64_t *ends, size_t n_ends, int vocab) {
    Err e = {0};
    int *ids = malloc((size_t)n * sizeof *ids);
    for (int i = 0; i < n; i++) ids[i] = i % vocab;
    ck_assert_msg(!shard_write_ids(at(name), ids, (size_t)n, ends, n_ends, vocab, 5, &e), "%s", e.msg);
    free(ids);
}

/* ---- writing and reading ---- */

START_TEST(ids_both_widths) {
    static const int vocab[] = {7, 65536, 65537, 1 << 24};
    Err e = {0};
    Shard s;
    Dataset d;
    const int ids[] = {0, vocab[_i] - 1, 3, vocab[_i] / 2, 1};
    const uint64_t ends[] = {2, 5};
    const char *path = at("a.tok");
    int got[5], start[5];
    ck_assert_msg(!shard_write_ids(path, ids, 5, ends, 2, vocab[_i], 99, &e), "%s", e.msg);
    ck_assert_msg(!shard_open(&s, path, &e), "%s", e.msg);
    ck_assert(s.tokens == 5 && s.documents == 2 && s.vocab == vocab[_i] && s.width == (_i < 2 ? 2 : 4) &&
              s.tok_hash == 99);
    ck_assert_uint_eq(s.file.size, 48 + 16 + 5 * (size_t)s.width);
    shard_close(&s);
    ck_assert(!dataset_open(&d, &path, 1, &e));
    dataset_read(&d, 0, 5, got, start);
    ck_assert_mem_eq(got, ids, sizeof ids);
    ck_assert(start[0] == 0 && start[1] == 0 && start[2] == 2 && start[4] == 2);
    dataset_close(&d);
}
END_TEST

START_TEST(bad_ids) {
    Err e[6] = {{0}};
    const int ids[] = {0, 1, 2}, wrong[] = {7, 1, 2}, negative[] = {0, -1, 2};
    const uint64_t ends[] = {1, 3}, less[] = {1, 2}, same[] = {1, 1, 3};
    ck_assert_int_eq(shard_write_ids(at("b"), wrong, 3, ends, 2, 7, 0, &e[0]), ERR_INPUT);
    ck_assert_int_eq(shard_write_ids(at("b"), negative, 3, ends, 2, 7, 0, &e[1]), ERR_INPUT);
    ck_assert_int_eq(shard_write_ids(at("b"), ids, 3, less, 2, 7, 0, &e[2]), ERR_INPUT);
    ck_assert_int_eq(shard_write_ids(at("b"), ids, 3, same, 3, 7, 0, &e[3]), ERR_INPUT);
    ck_assert_int_eq(shard_write_ids(at("b"), ids, 0, ends, 0, 7, 0, &e[4]), ERR_INPUT);
    ck_assert_int_eq(shard_write_ids(at("b"), ids, 3, ends, 2, (1 << 24) + 1, 0, &e[5]), ERR_INPUT);
    ck_assert_int_eq(file_exists(at("b")), 0);
}
END_TEST

/* Documents of a shard made with the byte tokenizer, joined by '|'. */
static const char *documents(const char *name) {
    static char text[512];
    Err e = {0};
    Shard s;
    size_t n = 0;
    ck_assert_msg(!shard_open(&s, at(name), &e), "%s", e.msg);
    for (uint64_t i = 0, doc = 0; i < s.tokens; i++) {
        text[n++] = (char)s.ids[2 * i];
        if (i + 1 == s.ends[8 * doc]) doc++, text[n++] = '|';
    }
    text[n] = 0;
    shard_close(&s);
    return text;
}

START_TEST(text_files) {
    Err e = {0};
    Tokenizer *t;
    ShardStats st;
    ShardOptions o = plain;
    ck_assert(!tokenizer_byte(&t, &e));
    put("a.txt", "one<|x|>two<|x|><|x|>three", 26);
    ck_assert_msg(!shard_write(at("t"), at("a.txt"), t, &o, &st, &e), "%s", e.msg);
    ck_assert_str_eq(documents("t"), "one<|x|>two<|x|><|x|>three|");
    ck_assert(st.tokens == 26 && st.documents == 1 && st.bytes == 26);
    o.split = "<|x|>";
    ck_assert(!shard_write(at("t"), at("a.txt"), t, &o, &st, &e));
    ck_assert_str_eq(documents("t"), "one|two|three|"); // empty documents are left out
    ck_assert(st.tokens == 11 && st.documents == 3);
    o.add_eos = '$';
    ck_assert(!shard_write(at("t"), at("a.txt"), t, &o, NULL, &e));
    ck_assert_str_eq(documents("t"), "one$|two$|three$|");
    o.max_tokens = 6;
    ck_assert(!shard_write(at("t"), at("a.txt"), t, &o, &st, &e));
    ck_assert_str_eq(documents("t"), "one$|tw|");
    o.max_tokens = 4;
    ck_assert(!shard_write(at("t"), at("a.txt"), t, &o, &st, &e));
    ck_assert_str_eq(documents("t"), "one$|");
    char bad[101]; // bad UTF-8 in text is replaced, if it is not over 1 %, and counted
    memset(bad, 'b', 100);
    bad[1] = '\xFF';
    bad[100] = 0;
    put("b.txt", bad, 100);
    ck_assert(!shard_write(at("t"), at("b.txt"), t, &plain, &st, &e));
    ck_assert(!strncmp(documents("t"),
                       "b\xEF\xBF\xBD"
                       "bb",
                       6));
    ck_assert(st.replaced == 1 && strstr(st.note, "1 bytes that are not UTF-8 were replaced, the first at byte 1 of"));
    put("b.txt", bad, 99);
    ck_assert_int_eq(shard_write(at("t"), at("b.txt"), t, &plain, &st, &e), ERR_INPUT);
    ck_assert_msg(strstr(e.msg, "1 of 99 bytes are not UTF-8, the first is byte 1") && strstr(e.hint, "iconv"), "%s",
                  e.msg);
    tokenizer_close(t);
}
END_TEST

START_TEST(jsonl_files) {
    static const char text[] =
        "{\"id\": 1, \"text\": \"one\"}\r\n\"two\"\n\n  \n{\"text\":\"\"}\n{\"text\":\"l\\nf\\u00e9\"}";
    static const char other[] = "{\"text\": 3, \"body\": \"b\"}\n";
    Err e = {0};
    Tokenizer *t;
    ShardStats st;
    ShardOptions o = plain;
    ck_assert(!tokenizer_byte(&t, &e));
    put("a.jsonl", text, strlen(text));
    ck_assert_msg(!shard_write(at("j"), at("a.jsonl"), t, &o, &st, &e), "%s", e.msg);
    ck_assert_str_eq(documents("j"), "one|two|l\nf\xC3\xA9|");
    put("b.jsonl", other, strlen(other));
    o.field = "body";
    ck_assert(!shard_write(at("j"), at("b.jsonl"), t, &o, &st, &e));
    ck_assert_str_eq(documents("j"), "b|");
    tokenizer_close(t);
}
END_TEST

START_TEST(bad_inputs) {
    static const struct {
        const char *name, *text, *says;
        int code;
    } c[] = {
        {"x.jsonl", "\"a\"\n\n{\"text\": \"b\"\n\"c\"\n", "x.jsonl:3:13: ", ERR_INPUT},
        {"x.jsonl", "\"a\"\n{\"txt\": \"b\"}\n", "line 2: expected a string or an object with a string 'text'",
         ERR_INPUT},
        {"x.jsonl", "{\"text\": null}", "line 1", ERR_INPUT},
        {"x.jsonl", "[\"text\"]", "is a JSON array, expected JSON lines", ERR_INPUT},
        {"x.jsonl", "\"a\"\n\"\xFF\"", "x.jsonl:2:2: ", ERR_INPUT},
        {"x.jsonl", "\"a\" \"b\"", "x.jsonl:1:5: ", ERR_INPUT},
        {"x.jsonl", "\n \n", "holds no text", ERR_INPUT},
        {"x.jsonl", "", "holds no text", ERR_INPUT},
        {"x.txt", "", "holds no text", ERR_INPUT},
        {"none.txt", NULL, "none.txt", ERR_IO},
    };
    Tokenizer *t;
    Err e0 = {0};
    ck_assert(!tokenizer_byte(&t, &e0));
    put("old", "old", 3);
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        Err e = {0};
        ShardStats st;
        if (c[i].text) put(c[i].name, c[i].text, strlen(c[i].text));
        const int rc = shard_write(at("old"), at(c[i].name), t, &plain, &st, &e);
        ck_assert_msg(rc == c[i].code && strstr(e.msg, c[i].says), "case %zu: %d '%s'", i, rc, e.msg);
        File f; // what was there is still there, and nothing else
        ck_assert(!file_open(&f, at("old"), &e0) && f.size == 3);
        file_close(&f);
    }
    Err e = {0};
    const ShardOptions o = {.add_eos = 256};
    put("x.txt", "x", 1);
    ck_assert_int_eq(shard_write(at("old"), at("x.txt"), t, &o, NULL, &e), ERR_USAGE);
    tokenizer_close(t);
}
END_TEST

/* ---- damaged shards ---- */

static void set(unsigned char *p, int bytes, uint64_t x) {
    for (int i = 0; i < bytes; i++, x >>= 8) p[i] = (unsigned char)x;
}

START_TEST(damaged) {
    /* where, bytes, value, says; crc: the checksum is made right again, so that the check behind it is
     * reached */
    static const struct {
        int at, bytes, crc;
        uint64_t value;
        const char *says;
    } c[] = {{0, 1, 0, 'h', "expected a token shard"},
             {8, 4, 0, 3, "version 3"},
             {8, 4, 0, 2, "cut short or damaged"},
             {12, 4, 0, 3, "3 bytes a token"},
             {12, 4, 0, 0, "0 bytes a token"},
             {12, 4, 0, 4, "cut short or damaged"},
             {16, 8, 0, 9, "cut short or damaged"},
             {16, 8, 0, UINT64_MAX, "cut short or damaged"},
             {16, 8, 0, (uint64_t)1 << 63, "cut short or damaged"},
             {24, 8, 0, 1, "cut short or damaged"},
             {24, 8, 0, (uint64_t)1 << 61, "cut short or damaged"},
             {24, 8, 0, ((uint64_t)1 << 61) + 2, "cut short or damaged"},
             {32, 4, 0, 0, "vocabulary of 0"},
             {32, 4, 0, UINT32_MAX, "vocabulary of 4294967295"},
             {36, 4, 0, 0, "checksum"},
             {48, 1, 0, 2, "checksum"},
             {64, 1, 0, 1, "checksum"},
             {48, 8, 1, 0, "document 0 ends before it begins"},
             {48, 8, 1, 8, "document 1 ends before it begins"},
             {48, 8, 1, UINT64_MAX, "document 1 ends before it begins"},
             {56, 8, 1, 7, "the last document ends at 7"},
             {56, 8, 1, 9, "the last document ends at 9"},
             {64, 2, 1, 100, "token 0 is outside"},
             {78, 2, 1, 65535, "token 7 is outside"},
             {32, 4, 1, 3, "token 3 is outside"}};
    const uint64_t ends[] = {3, 8};
    Err e = {0};
    File f;
    count_shard("good", 8, ends, 2, 100);
    ck_assert(!file_open(&f, at("good"), &e));
    ck_assert_uint_eq(f.size, 80);
    unsigned char b[80];
    memcpy(b, f.data, 80);
    set(b + c[_i].at, c[_i].bytes, c[_i].value);
    if (c[_i].crc) set(b + 36, 4, file_crc32c(0, b + 48, 32));
    put("bad", (const char *)b, 80);
    file_close(&f);
    Shard s;
    const char *path = at("bad");
    Dataset d;
    ck_assert_msg(shard_open(&s, path, &e) == ERR_INPUT && strstr(e.msg, c[_i].says), "case %d: '%s', want '%s'", _i,
                  e.msg, c[_i].says);
    ck_assert(!s.file.data && !s.tokens);
    e = (Err){0};
    ck_assert_int_eq(dataset_open(&d, &path, 1, &e), ERR_INPUT);
    ck_assert(!d.shard && !d.n_shards);
}
END_TEST

START_TEST(cut_or_flipped) { // any length but the right one, and any flipped bit
    const uint64_t ends[] = {3, 8};
    Err e = {0};
    File f;
    count_shard("good", 8, ends, 2, 100);
    ck_assert(!file_open(&f, at("good"), &e));
    for (size_t n = 0; n <= 81; n++) {
        unsigned char b[81] = {0};
        Shard s;
        Err why = {0};
        memcpy(b, f.data, n < 80 ? n : 80);
        put("bad", (const char *)b, n);
        ck_assert_int_eq(shard_open(&s, at("bad"), &why), n == 80 ? OK : ERR_INPUT);
        shard_close(&s);
    }
    for (int bit = 0; bit < 80 * 8; bit++) {
        unsigned char b[80];
        Shard s;
        Err why = {0};
        memcpy(b, f.data, 80);
        b[bit / 8] ^= (unsigned char)(1 << bit % 8);
        put("bad", (const char *)b, 80);
        const int field = bit / 8; // vocabulary (if ids still fit) and hash are free to be anything
        ck_assert_msg(shard_open(&s, at("bad"), &why) == ERR_INPUT || (field >= 32 && field < 36) || field >= 40,
                      "bit %d", bit);
        ck_assert_msg(!s.file.data || field < 48, "bit %d of the payload", bit);
        shard_close(&s);
    }
    file_close(&f);
}
END_TEST

START_TEST(other_tokenizer) {
    Err e = {0};
    Dataset d;
    const int ids[] = {0, 1};
    const uint64_t end = 2;
    ck_assert(!shard_write_ids(at("p"), ids, 2, &end, 1, 7, 1, &e) &&
              !shard_write_ids(at("q"), ids, 2, &end, 1, 7, 2, &e) &&
              !shard_write_ids(at("r"), ids, 2, &end, 1, 8, 1, &e));
    const char *pq[] = {at("p"), at("q")}, *pr[] = {at("p"), at("r")};
    ck_assert_int_eq(dataset_open(&d, pq, 2, &e), ERR_INPUT);
    ck_assert(strstr(e.msg, "another tokenizer"));
    e = (Err){0};
    ck_assert_int_eq(dataset_open(&d, pr, 2, &e), ERR_INPUT);
    e = (Err){0};
    ck_assert_int_eq(dataset_open(&d, pq, 0, &e), ERR_USAGE);
}
END_TEST

/* ---- the stream ---- */

START_TEST(start_of_documents) { // against a direct computation, over three shards, for every window
    enum { N = 40 };
    const uint64_t a[] = {1, 7, 8, 15}, b[] = {4, 5}, c[] = {20};
    const int doc_begin[] = {0, 1, 7, 8, 15, 19, 20, N};
    Err e = {0};
    Dataset d;
    count_shard("a", 15, a, 4, 50);
    count_shard("b", 5, b, 2, 50);
    count_shard("c", 20, c, 1, 50);
    const char *paths[] = {at("a"), at("b"), at("c")};
    ck_assert(!dataset_open(&d, paths, 3, &e));
    ck_assert_uint_eq(d.tokens, N);
    for (int from = 0; from < N; from++)
        for (int n = 1; from + n <= N; n++) {
            int ids[N], start[N], wrong = 0;
            dataset_read(&d, (uint64_t)from, (size_t)n, ids, start);
            for (int i = 0; i < n; i++) {
                const int p = from + i, id = p < 15 ? p : p < 20 ? p - 15 : p - 20;
                int doc = 0;
                while (doc_begin[doc + 1] <= p) doc++;
                const int want = doc_begin[doc] > from ? doc_begin[doc] - from : 0;
                wrong += ids[i] != id || start[i] != want;
            }
            ck_assert_msg(!wrong, "window [%d, %d)", from, from + n);
        }
    int beyond[3] = {-7, -7, -7};
    dataset_read(&d, N - 1, 3, beyond, NULL); // nothing is read behind the end
    ck_assert(beyond[0] == 19 && beyond[1] == -7 && beyond[2] == -7);
    dataset_close(&d);
}
END_TEST

/* ---- batches ---- */

START_TEST(every_window_once) {
    static const struct {
        int tokens, T, B;
        Split split;
    } c[] = {{1001, 10, 4, {0, 0}}, {1000, 10, 3, {0, 0}}, {1009, 7, 5, {3, 50}}, {1009, 7, 5, {100, 0}},
             {21, 10, 1, {0, 0}},   {11, 10, 2, {0, 0}},   {5000, 1, 64, {0, 0}}, {4000, 3, 9, {1000, 9999}}};
    Err e = {0};
    Dataset d;
    const uint64_t ends[] = {(uint64_t)c[_i].tokens};
    const int T = c[_i].T, B = c[_i].B;
    count_shard("w", c[_i].tokens, ends, 1, 65536);
    const char *path = at("w");
    ck_assert(!dataset_open(&d, &path, 1, &e));
    const uint64_t windows = dataset_windows(&d, T), first = c[_i].split.first;
    ck_assert_uint_eq(windows, (uint64_t)(c[_i].tokens - 1) / (uint64_t)T);
    const uint64_t count =
        c[_i].split.count && first + c[_i].split.count < windows ? c[_i].split.count : windows - first;
    int *seen = calloc(windows, sizeof *seen), *order = calloc(2 * count, sizeof *order), wrong = 0;
    int *ids = malloc(sizeof(int) * (size_t)(3 * B * T)), *target = ids + B * T, *start = target + B * T;
    uint64_t drawn = 0, step = 0;
    for (; drawn < 2 * count; step++) {
        dataset_batch(&d, &c[_i].split, 11, step, B, T, ids, target, start);
        for (int b = 0; b < B && drawn < 2 * count; b++, drawn++) {
            const int w = ids[b * T] / T;
            for (int i = 0; i < T; i++)
                wrong += ids[b * T + i] != w * T + i || target[b * T + i] != w * T + i + 1 || start[b * T + i] != 0;
            order[drawn] = w;
            if (drawn < count) seen[w]++;
        }
    }
    ck_assert_int_eq(wrong, 0);
    for (uint64_t w = 0; w < windows; w++) wrong += seen[w] != (w >= first && w < first + count);
    ck_assert_int_eq(wrong, 0); // one epoch: every window of the split once, no other
    if (count > 20) ck_assert(memcmp(order, order + count, count * sizeof *order)); // the next epoch has another order
    int *again = malloc(sizeof(int) * (size_t)(3 * B * T));
    dataset_batch(&d, &c[_i].split, 11, step - 1, B, T, again, again + B * T,
                  again + 2 * B * T); // pure: asked later, the same
    ck_assert_mem_eq(again, ids, sizeof(int) * (size_t)(3 * B * T));
    dataset_batch(&d, &c[_i].split, 11, step - 1, B, T, again, again + B * T, NULL);
    ck_assert_mem_eq(again, ids, sizeof(int) * (size_t)(2 * B * T));
    if (count > 20) {
        dataset_batch(&d, &c[_i].split, 12, step - 1, B, T, again, again + B * T, NULL);
        ck_assert(memcmp(again, ids, sizeof(int) * (size_t)(B * T)));
    }
    free(again);
    free(ids);
    free(order);
    free(seen);
    dataset_close(&d);
}
END_TEST

/* Of two shards, one of them without prompts: a target is -1 where its token stands in a prompt, and nowhere else. */
START_TEST(prompts) {
    enum { N = 40, T = 5, B = 4 };
    const uint64_t ends[] = {3, 9, 20, 33, N}, begin[] = {0, 9, 12, 33, 34}, whole[] = {N};
    int ids[N], seen[B * T], target[B * T], start[B * T], is[2 * N];
    Err e = {0};
    Dataset d;
    for (int i = 0; i < N; i++) ids[i] = i;
    for (int i = 0; i < 2 * N; i++) is[i] = 1;
    for (int k = 0; k < 5; k++)
        for (uint64_t i = k ? ends[k - 1] : 0; i < begin[k]; i++) is[i] = 0;
    must(shard_write_prompts(at("p"), ids, N, ends, begin, 5, 99, 5, &e), &e);
    for (int i = 0; i < N; i++) ids[i] = N + i;
    must(shard_write_ids(at("q"), ids, N, whole, 1, 99, 5, &e), &e);
    const char *path[] = {at("p"), at("q")};
    must(dataset_open(&d, path, 2, &e), &e);
    for (int on = 0; on < 2; on++) {
        if (on) must(dataset_completions(&d, &e), &e);
        for (uint64_t step = 0; step < 4; step++) {
            dataset_batch(&d, NULL, 3, step, B, T, seen, target, start);
            for (int i = 0; i < B * T; i++) {
                const int next = seen[i] + 1; // ids count through both shards
                ck_assert_int_eq(target[i], on && !is[next] ? -1 : next);
            }
        }
    }
    dataset_close(&d);
}
END_TEST

START_TEST(bad_prompts) {
    static const int ids[] = {0, 1, 2, 3};
    static const uint64_t ends[] = {2, 4}, before[] = {0, 1}, behind[] = {3, 3}, all[] = {2, 4}, some[] = {1, 4};
    Err e = {0}, no[5] = {{0}};
    File f;
    Dataset d;
    const char *path = at("p");
    ck_assert_int_eq(shard_write_prompts(path, ids, 4, ends, before, 2, 9, 5, &no[0]), ERR_INPUT);
    ck_assert_int_eq(shard_write_prompts(path, ids, 4, ends, behind, 2, 9, 5, &no[1]), ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(no[0].msg, "document 1: its completion begins outside of it"));
    ck_assert_ptr_nonnull(strstr(no[1].msg, "document 0: its completion begins outside of it"));
    must(shard_write_ids(path, ids, 4, ends, 2, 9, 5, &e), &e);
    must(dataset_open(&d, &path, 1, &e), &e);
    ck_assert_int_eq(dataset_completions(&d, &no[2]), ERR_INPUT);
    ck_assert(strstr(no[2].msg, "no document has a prompt") && strstr(no[2].hint, "\"completion\""));
    dataset_close(&d);
    must(shard_write_prompts(path, ids, 4, ends, all, 2, 9, 5, &e), &e);
    must(dataset_open(&d, &path, 1, &e), &e);
    ck_assert_int_eq(dataset_completions(&d, &no[3]), ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(no[3].msg, "no document has a completion"));
    dataset_close(&d);
    must(shard_write_prompts(path, ids, 4, ends, some, 2, 9, 5, &e), &e);
    must(file_open(&f, path, &e), &e);
    unsigned char b[128];
    const size_t n = f.size;
    ck_assert_uint_eq(n, 48 + 4 * 8 + 4 * 2);
    memcpy(b, f.data, n);
    file_close(&f);
    set(b + 64, 8, 3); // document 0 ends at 2
    set(b + 36, 4, file_crc32c(0, b + 48, n - 48));
    must(file_write_all(path, b, n, &e), &e);
    ck_assert_int_eq(dataset_open(&d, &path, 1, &no[4]), ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(no[4].msg, "document 0: its completion begins outside of it"));
}
END_TEST

/* What the records of a file become: the end token counts, what max_tokens cuts does not, text counts as a whole. */
START_TEST(records) {
    static const char lines[] = "{\"prompt\": \"2+2=\", \"completion\": \"4\"}\n{\"text\": \"ab\"}\n"
                                "{\"completion\": \"bee\", \"prompt\": \"a\"}\n";
    static const int want[] = {-1, -1, -1, -1, '4', '.', 'a', 'b', '.', -1, 'b', 'e', 'e', '.'};
    enum { N = sizeof want / sizeof *want };
    const ShardOptions all = {.add_eos = '.'}, cut = {.add_eos = '.', .max_tokens = 3};
    Err e = {0};
    ShardStats st;
    Tokenizer *t;
    Dataset d;
    char said[200];
    int ids[N], target[N], start[N];
    const char *path = at("r");
    must(tokenizer_byte(&t, &e), &e);
    put("r.jsonl", lines, strlen(lines));
    must(shard_write(path, at("r.jsonl"), t, &all, &st, &e), &e);
    shard_stats_text(&st, "r", said, sizeof said);
    ck_assert_str_eq(said, "r: 3 documents (2 with a prompt), 14 tokens, 90 bytes");
    must(dataset_open(&d, &path, 1, &e), &e);
    must(dataset_completions(&d, &e), &e);
    dataset_batch(&d, NULL, 1, 0, 1, N - 1, ids, target, start);
    ck_assert_mem_eq(target, want + 1, (N - 1) * sizeof *want);
    dataset_close(&d);
    must(shard_write(path, at("r.jsonl"), t, &cut, &st, &e), &e);
    must(dataset_open(&d, &path, 1, &e), &e);
    ck_assert_int_eq(dataset_completions(&d, &e), ERR_INPUT); // three tokens of a prompt
    dataset_close(&d);
    tokenizer_close(t);
}
END_TEST

START_TEST(order_is_random) { // first windows of many seeds are uniform, neighbours are not kept: chi-square
                              // far from both ends
    enum { W = 37, SEEDS = 3700 };
    const uint64_t ends[] = {W + 1};
    Err e = {0};
    Dataset d;
    int hits[W] = {0}, kept = 0;
    count_shard("o", W + 1, ends, 1, 64);
    const char *path = at("o");
    ck_assert(!dataset_open(&d, &path, 1, &e));
    for (int seed = 0; seed < SEEDS; seed++) {
        int ids[2], target[2];
        dataset_batch(&d, NULL, (uint64_t)seed, 0, 2, 1, ids, target, NULL);
        hits[ids[0]]++;
        kept += ids[1] == ids[0] + 1;
    }
    double chi = 0;
    for (int w = 0; w < W; w++) chi += (hits[w] - 100.0) * (hits[w] - 100.0) / 100.0;
    ck_assert_msg(chi > 10 && chi < 90, "chi-square %g with 36 degrees of freedom",
                  chi); // 1e-5 at either side
    ck_assert_msg(kept > 40 && kept < 170, "%d neighbours of about 100", kept);
    dataset_close(&d);
}
END_TEST

START_TEST(known_batch) { // the order must never change: runs are resumed with it
    const uint64_t ends[] = {100};
    Err e = {0};
    Dataset d;
    int ids[8], target[8];
    count_shard("k", 100, ends, 1, 100);
    const char *path = at("k");
    ck_assert(!dataset_open(&d, &path, 1, &e));
    int all[24], next[24];
    dataset_batch(&d, NULL, 1, 0, 8, 3, all, next, NULL);
    for (int b = 0; b < 8; b++) ids[b] = all[3 * b] / 3;
    dataset_batch(&d, NULL, 1, 5, 8, 3, all, next, NULL);
    for (int b = 0; b < 8; b++) target[b] = all[3 * b] / 3;
    ck_assert_mem_eq(ids, ((const int[]){2, 21, 19, 3, 11, 28, 8, 15}), sizeof ids);
    ck_assert_mem_eq(target, ((const int[]){32, 5, 20, 6, 26, 2, 15, 19}), sizeof target);
    dataset_close(&d);
}
END_TEST

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void count_calls(void *ctx, size_t done, size_t total, size_t tokens) {
    size_t *c = ctx;
    c[0]++;
    c[1] = done;
    c[2] = total;
    c[3] = tokens;
}

START_TEST(many_documents) { // 100,000 documents; memory is that of one document and 8 bytes for each
    enum { DOCS = 100000 };
    char *text = malloc(DOCS * 32);
    size_t n = 0, calls[4] = {0};
    Err e = {0};
    Tokenizer *t;
    ShardStats st;
    Shard s;
    ShardOptions o = plain;
    o.progress = count_calls;
    o.ctx = calls;
    for (int i = 0; i < DOCS; i++) n += (size_t)snprintf(text + n, 32, "{\"text\":\"document %d\"}\n", i);
    put("m.jsonl", text, n);
    ck_assert(!tokenizer_byte(&t, &e));
    const double begin = seconds();
    mem_peak_reset();
    const size_t before = mem_now();
    ck_assert_msg(!shard_write(at("m"), at("m.jsonl"), t, &o, &st, &e), "%s", e.msg);
    ck_assert_msg(mem_peak() - before < 8 * DOCS * 4 + (4 << 20), "peak %zu", mem_peak() - before);
    ck_assert_uint_eq(st.documents, DOCS);
    ck_assert_uint_eq(st.bytes, n);
    ck_assert(calls[0] >= 2 && calls[1] == 2 * n && calls[2] == 2 * n && calls[3] == st.tokens);
    ck_assert(!shard_open(&s, at("m"), &e));
    ck_assert_uint_eq(s.tokens, st.tokens);
    shard_close(&s);
    ck_assert_msg(seconds() - begin < 10, "%.1f s", seconds() - begin);
    tokenizer_close(t);
    free(text);
}
END_TEST

/* Between the two passes the file becomes another one. */
static void change_input(void *ctx, size_t done, size_t total, size_t tokens) {
    (void)tokens;
    const char *text = ctx;
    if (done < total) put("c.txt", text, strlen(text));
}

START_TEST(input_changes) {
    Tokenizer *t;
    Err e = {0};
    ShardOptions o = plain;
    o.progress = change_input;
    o.ctx = _i ? "same size" : "shorter";
    ck_assert(!tokenizer_byte(&t, &e));
    put("c.txt", "some text", 9);
    ck_assert_int_eq(shard_write(at("c"), at("c.txt"), t, &o, NULL, &e), ERR_IO);
    ck_assert_msg(strstr(e.msg, "changed while it was read"), "%s", e.msg);
    ck_assert_int_eq(file_exists(at("c")), 0);
    tokenizer_close(t);
}
END_TEST

START_TEST(failing_ids) { // memory and I/O failing in shard_write_ids
    const int ids[] = {1, 2, 3};
    const uint64_t ends[] = {1, 3};
    int rc = ERR_MEMORY;
    for (long n = 0; rc; n++) {
        Err e = {0};
        const size_t before = mem_now();
        mem_fail_after(n);
        rc = shard_write_ids(at("i"), ids, 3, ends, 2, 9, 0, &e);
        mem_fail_after(-1);
        ck_assert(!rc || rc == ERR_MEMORY);
        ck_assert_uint_eq(mem_now(), before);
        ck_assert_int_lt(n, 20);
    }
    Err e = {0};
    ck_assert_int_eq(shard_write_ids(at("no/such/directory"), ids, 3, ends, 2, 9, 0, &e), ERR_IO);
    e = (Err){0};
    ck_assert_int_eq(shard_write_ids(at("i"), ids, 3, ends, 2, 0, 0, &e), ERR_INPUT);
    char path[1200];
    Shard s;
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = 0;
    e = (Err){0};
    ck_assert(shard_open(&s, path, &e) == ERR_INPUT && strstr(e.msg, "path is too long"));
}
END_TEST

START_TEST(failing_memory) { // every allocation of writing and opening fails once
    static const char text[] = "\"one two three four\"\n\"five\"\n";
    Tokenizer *t;
    Err e = {0};
    int rc = ERR_MEMORY;
    ck_assert(!tokenizer_byte(&t, &e));
    put("f.jsonl", text, strlen(text));
    for (long n = 0; rc; n++) {
        const size_t before = mem_now();
        const char *out = at("f"), *in = at("f.jsonl");
        Dataset d = {0};
        e = (Err){0};
        mem_fail_after(n);
        rc = shard_write(out, in, t, &plain, NULL, &e);
        if (!rc) rc = dataset_open(&d, &out, 1, &e);
        mem_fail_after(-1);
        ck_assert_msg(!rc || rc == ERR_MEMORY, "allocation %ld: %d %s", n, rc, e.msg);
        dataset_close(&d);
        ck_assert_uint_eq(mem_now(), before);
        ck_assert_int_lt(n, 200);
    }
    tokenizer_close(t);
}
END_TEST

START_TEST(failing_io) { // every call that writes fails once: ERR_IO, the old file stays, no temporary file is left
    Tokenizer *t;
    Err e = {0};
    ck_assert(!tokenizer_byte(&t, &e));
    put("i.txt", "some text", 9);
    int rc = ERR_IO;
    for (int n = 1; rc; n++) {
        char number[24], **names;
        size_t count;
        put("i", "old", 3);
        snprintf(number, sizeof number, "%ld", file_io_calls() + n);
        e = (Err){0};
        setenv("HYBRIDIZE_FAIL_IO", number, 1);
        rc = shard_write(at("i"), at("i.txt"), t, &plain, NULL, &e);
        unsetenv("HYBRIDIZE_FAIL_IO");
        ck_assert_msg(!rc || rc == ERR_IO, "call %d: %d %s", n, rc, e.msg);
        ck_assert(!file_list(&names, &count, dir, &(Err){0}));
        for (size_t i = 0; i < count; i++) ck_assert_msg(!strstr(names[i], ".tmp"), "call %d leaves %s", n, names[i]);
        file_list_free(names, count);
        ck_assert_int_lt(n, 50);
    }
    ck_assert_str_eq(documents("i"), "some text|");
    tokenizer_close(t);
}
END_TEST

static void make_dir(void) {
    snprintf(dir, sizeof dir, "build/test_dataset.XXXXXX");
    Err e = {0};
    if (file_mkdirs("build", &e) || !mkdtemp(dir)) ck_abort_msg("no directory for files");
}

static void remove_dir(void) { file_remove_tree(dir, &(Err){0}); }

SUITE("dataset") {
    GROUP("all", .setup = make_dir, .teardown = remove_dir, .timeout = 120);
    CASE(ids_both_widths, .times = 4);
    CASE(bad_ids);
    CASE(text_files);
    CASE(jsonl_files);
    CASE(bad_inputs);
    CASE(damaged, .times = 25);
    CASE(prompts);
    CASE(bad_prompts);
    CASE(records);
    CASE(cut_or_flipped);
    CASE(other_tokenizer);
    CASE(start_of_documents);
    CASE(every_window_once, .times = 8);
    CASE(order_is_random);
    CASE(known_batch);
    CASE(many_documents);
    CASE(input_changes, .times = 2);
    CASE(failing_ids);
    CASE(failing_memory);
    CASE(failing_io);
}
