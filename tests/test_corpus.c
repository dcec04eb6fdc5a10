/* test_corpus.c - the one door for text: which files a name stands for, what each is, and what is no text. */
#include "base/file.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include "text/corpus.h"
#include "text/dataset.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void lay(const char *name, const void *bytes, size_t n) {
    Err e = {0};
    ck_assert_msg(!file_write_all(tmpdir_path(name), bytes, n, &e), "%s", e.msg);
}
static void lay_text(const char *name, const char *text) { lay(name, text, strlen(text)); }

/* All documents with a bar behind each, or the message and the hint. */
static const char *read_all(const char *input, const CorpusForm *form, int *rc) {
    static char out[8192];
    Corpus c;
    Err e = {0};
    size_t used = 0, n;
    const char *s = "";
    out[0] = 0;
    *rc = corpus_open(&c, input, form, &e);
    while (!*rc && s) {
        *rc = corpus_next(&c, &s, &n, &e);
        if (!*rc && s) used += (size_t)snprintf(out + used, sizeof out - used, "%.*s|", (int)n, s);
    }
    if (!*rc) *rc = corpus_check(&c, &e);
    if (*rc) snprintf(out, sizeof out, "%s (%s)", e.msg, e.hint);
    corpus_close(&c);
    return out;
}
static void gives(const char *input, const CorpusForm *form, const char *want) {
    int rc;
    const char *got = read_all(input, form, &rc);
    ck_assert_msg(!rc && !strcmp(got, want), "%s: %d '%s', want '%s'", input, rc, got, want);
}
static void refused(const char *input, const CorpusForm *form, int code, const char *what, const char *hint) {
    int rc;
    const char *got = read_all(input, form, &rc);
    ck_assert_msg(rc == code && strstr(got, what) && strstr(got, hint), "%s: %d '%s', want '%s' and '%s'", input, rc,
                  got, what, hint);
}

#define LINES "{\"id\": 1, \"text\": \"one\"}\n{\"text\": \"t\\nwo\", \"id\": 2}\n"

/* JSON lines are known by their content, and by three endings in any case. */
START_TEST(json_lines) {
    static const char *const name[] = {"c.jsonl", "c.ndjson", "c.json", "C.JSONL", "c.Json", "c.txt", "c"};
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        lay_text(name[i], LINES);
        gives(tmpdir_path(name[i]), NULL, "one|t\nwo|");
    }
    lay_text("bom.txt", "\xef\xbb\xbf" LINES);
    gives(tmpdir_path("bom.txt"), NULL, "one|t\nwo|");
    lay_text("blank.txt", "\n  \n" LINES);
    gives(tmpdir_path("blank.txt"), NULL, "one|t\nwo|");
    lay_text("s.ndjson", "\"a\"\n\"b\"\n");
    gives(tmpdir_path("s.ndjson"), NULL, "a|b|");
}
END_TEST

/* Prompt and completion are one document, where no text is asked for by name. */
START_TEST(prompts) {
    const CorpusForm text = {.field = "text"};
    const char *s;
    size_t n;
    Corpus c;
    Err e = {0};
    lay_text("p.txt", "{\"prompt\": \"a\\n\", \"completion\": \"b\"}\n{\"prompt\": \"\", \"completion\": \"c\"}\n"
                      "{\"text\": \"d\", \"prompt\": \"e\", \"completion\": \"f\"}\n\"g\"\n");
    gives(tmpdir_path("p.txt"), NULL, "a\nb|c|d|g|");
    ck_assert(!corpus_open(&c, tmpdir_path("p.txt"), NULL, &e));
    for (int i = 0; i < 4; i++) {
        ck_assert(!corpus_next(&c, &s, &n, &e));
        ck_assert_uint_eq(c.prompt, i ? 0 : 2);
    }
    corpus_close(&c);
    refused(tmpdir_path("p.txt"), &text, ERR_INPUT, "a string 'text', got one with: prompt, completion",
            "--text-field");
    lay_text("p.jsonl", "{\"prompt\": \"a\", \"completion\": 1}\n");
    refused(tmpdir_path("p.jsonl"), NULL, ERR_INPUT, "got one with: prompt, completion", "--text-field");
    lay_text("p.jsonl", "{\"messages\": []}\n");
    refused(tmpdir_path("p.jsonl"), NULL, ERR_INPUT, "got one with: messages", "\"prompt\" and \"completion\"");
}
END_TEST

START_TEST(other_member) {
    static const char *const name[] = {"c.jsonl", "c.txt"};
    const CorpusForm content = {.field = "content"};
    for (int i = 0; i < 2; i++) {
        lay_text(name[i], "{\"content\": \"a\", \"lang\": \"C\"}\n{\"content\": \"b\"}\n");
        gives(tmpdir_path(name[i]), &content, "a|b|");
        refused(tmpdir_path(name[i]), NULL, ERR_INPUT, "a string 'text', got one with: content, lang",
                "--text-field NAME");
    }
    lay_text("n.jsonl", "{\"text\": \"a\"}\n{\"text\": 5}\n");
    refused(tmpdir_path("n.jsonl"), NULL, ERR_INPUT, "n.jsonl: line 2: 'text' is not a string", "");
}
END_TEST

/* Text with braces and brackets in front is text. */
START_TEST(braces_in_text) {
    static const char *const text[] = {"{ int x; }\nand more\n", "[1] A. Author, A title.\n", "[Music]\nLa la.\n",
                                       "{\n}\n", "{}\nbraces\n"};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        char want[64];
        snprintf(want, sizeof want, "%s|", text[i]);
        lay_text("t.txt", text[i]);
        gives(tmpdir_path("t.txt"), NULL, want);
    }
    lay_text("t.txt", "\"Hello\", he said.\n");
    gives(tmpdir_path("t.txt"), NULL, "\"Hello\", he said.\n|");
}
END_TEST

START_TEST(json_of_another_form) {
    lay_text("a.json", "[{\"text\": \"a\"},\n {\"text\": \"b\"}]\n");
    refused(tmpdir_path("a.json"), NULL, ERR_INPUT, "is a JSON array, expected JSON lines", "jq -c '.[]'");
    lay_text("a.txt", "[\n{\"text\": \"a\"}]\n\n");
    refused(tmpdir_path("a.txt"), NULL, ERR_INPUT, "is a JSON array, expected JSON lines", "jq -c '.[]'");
    lay_text("o.json", "{\n  \"text\": \"a\"\n}\n");
    refused(tmpdir_path("o.json"), NULL, ERR_INPUT, "a JSON object over several lines", "JSON lines first");
    lay_text("l.jsonl", LINES "{\"text\": \"a}\n");
    refused(tmpdir_path("l.jsonl"), NULL, ERR_INPUT, "l.jsonl:3:", "JSON lines are expected");
}
END_TEST

START_TEST(no_text) {
    static const struct {
        const char *bytes;
        size_t n;
        const char *what, *hint;
    } c[] = {{"\x1f\x8b\x08\0\0\0\0\0\0\3abc", 13, "compressed with gzip", "gunzip"},
             {"\x28\xb5\x2f\xfd\4\0ab", 8, "compressed with zstd", "zstd -d"},
             {"\xfd\x37zXZ\0\0\4", 8, "compressed with xz", "xz -d"},
             {"PAR1\x15\0\x15\x10", 8, "Parquet", "parquet_to_jsonl"},
             {"\xff\xfeT\0h\0e\0", 8, "UTF-16", "iconv -f UTF-16"},
             {"T\0h\0e\0 \0c\0a\0t\0 \0s\0a\0t\0", 22, "UTF-16", "iconv -f UTF-16"},
             {"version https://git-lfs.github.com/spec/v1\n", 43, "Git LFS pointer", "git lfs pull"},
             {"one two\0three", 13, "byte 7 is NUL: binary data", "tr -d"},
             {"caf\xe9 na\xefve gar\xe7on", 17, "3 of 17 bytes are not UTF-8, the first is byte 3", "iconv"}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        lay("x.txt", c[i].bytes, c[i].n);
        refused(tmpdir_path("x.txt"), NULL, ERR_INPUT, c[i].what, c[i].hint);
    }
}
END_TEST

/* Behind the part that is judged when the file is opened. */
START_TEST(late_faults) {
    static char text[3 << 20];
    memset(text, 'a', sizeof text);
    memset(text + (2 << 20), 0xe9, 1 << 16); // 2 % of all
    lay("x.txt", text, sizeof text);
    Corpus c;
    Err e = {0};
    const char *s;
    size_t n;
    ck_assert_int_eq(corpus_open(&c, tmpdir_path("x.txt"), NULL, &e), OK);
    ck_assert_int_eq(corpus_next(&c, &s, &n, &e), OK);
    ck_assert_int_eq(corpus_check(&c, &e), ERR_INPUT);
    ck_assert_msg(strstr(e.msg, "65536 of 3145728 bytes are not UTF-8, the first is byte 2097152"), "%s", e.msg);
    corpus_close(&c);
    text[3000000] = 0;
    lay("x.txt", text, sizeof text);
    refused(tmpdir_path("x.txt"), NULL, ERR_INPUT, "byte 3000000 is NUL", "tr -d");
}
END_TEST

START_TEST(separators) {
    lay_text("t.txt", "a\n\nb\tc\\d");
    gives(tmpdir_path("t.txt"), &(CorpusForm){.split = "\\n\\n"}, "a|b\tc\\d|");
    gives(tmpdir_path("t.txt"), &(CorpusForm){.split = "\n\n"}, "a|b\tc\\d|");
    gives(tmpdir_path("t.txt"), &(CorpusForm){.split = "\\t"}, "a\n\nb|c\\d|");
    gives(tmpdir_path("t.txt"), &(CorpusForm){.split = "\\\\"}, "a\n\nb\tc|d|");
    refused(tmpdir_path("t.txt"), &(CorpusForm){.split = "<|end|>"}, ERR_INPUT, "it occurs nowhere in", "\\n and \\t");
    lay_text("c.jsonl", LINES);
    refused(tmpdir_path("c.jsonl"), &(CorpusForm){.split = "\\n"}, ERR_USAGE, "is JSON lines", "leave it out");
    // it need not occur in the part that is read
    Corpus c;
    Err e = {0};
    ck_assert_int_eq(corpus_open(&c, tmpdir_path("t.txt"), &(CorpusForm){.split = "c"}, &e), OK);
    ck_assert_int_eq(corpus_check(&c, &e), OK);
    corpus_close(&c);
}
END_TEST

START_TEST(files_and_folders) {
    char two[1400];
    lay_text("one.txt", "1");
    lay_text("two.jsonl", LINES);
    snprintf(two, sizeof two, "%s,%s", tmpdir_path("one.txt"), tmpdir_path("two.jsonl"));
    gives(two, NULL, "1|one|t\nwo|");
    lay_text("a,b.txt", "comma");
    gives(tmpdir_path("a,b.txt"), NULL, "comma|");
    lay_text("notes.pdf", "no text");
    lay_text(".hidden.txt", "hidden");
    gives(tmpdir, NULL, "comma|1|one|t\nwo|");
    lay("z.jsonl.gz", "\x1f\x8b\x08\0\0\0\0\0\0\3abc", 13);
    refused(tmpdir, NULL, ERR_INPUT, "z.jsonl.gz: is compressed with gzip", "gunzip");
    Err e = {0};
    ck_assert(!file_mkdirs(tmpdir_path("empty"), &e));
    refused(tmpdir_path("empty"), NULL, ERR_INPUT, "no text in this folder", ".jsonl");
    refused(tmpdir_path("none.txt"), NULL, ERR_IO, "no such file or folder", "standard input");
    ck_assert(!mkfifo(tmpdir_path("pipe"), 0600));
    refused(tmpdir_path("pipe"), NULL, ERR_IO, "is a pipe or a device", "--text - <");
}
END_TEST

START_TEST(standard_input) {
    lay_text("in", LINES);
    ck_assert_ptr_nonnull(freopen(tmpdir_path("in"), "r", stdin));
    gives("-", NULL, "one|t\nwo|");
    gives("-", NULL, "one|t\nwo|"); // it comes once and is read twice
}
END_TEST

START_TEST(says_what_was_read) {
    Tokenizer *t;
    Err e = {0};
    ShardStats st;
    char line[600], want[600], text[401];
    ck_assert(!tokenizer_byte(&t, &e));
    memset(text, 'x', 400);
    text[7] = '\xe9';
    text[400] = 0;
    lay_text("t.txt", text);
    ck_assert_msg(!shard_write(tmpdir_path("t.tok"), tmpdir_path("t.txt"), t, &(ShardOptions){.add_eos = -1}, &st, &e),
                  "%s", e.msg);
    shard_stats_text(&st, "T", line, sizeof line);
    snprintf(
        want, sizeof want,
        "T: 1 document, 402 tokens, 400 bytes, 1 bytes that are not UTF-8 were replaced, the first at byte 7 of %s",
        tmpdir_path("t.txt"));
    ck_assert_str_eq(line, want);
    tokenizer_close(t);
}
END_TEST

SUITE("corpus") {
    GROUP("corpus", .setup = tmpdir_begin, .teardown = tmpdir_end);
    CASE(json_lines);
    CASE(prompts);
    CASE(other_member);
    CASE(braces_in_text);
    CASE(json_of_another_form);
    CASE(no_text);
    CASE(late_faults);
    CASE(separators);
    CASE(files_and_folders);
    CASE(standard_input);
    CASE(says_what_was_read);
}
