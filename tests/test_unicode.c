/* test_unicode.c - UTF-8, classes, NFC and the splitters. The digests over all of Unicode were made with
 * Python's unicodedata2 16.0.0 by tests/gen_unicode.py --digest; the class of every code point was also
 * compared with the regex engine of tokenizers 0.23.3. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/mem.h"
#include "base/text_buf.h"
#include "text/split.h"
#include "text/unicode.h"
#include "tests/suite.h"

/* ---- UTF-8 ---- */

/* Hot loops count what is wrong and assert once: each ck_assert writes to a file. */
START_TEST(every_character) {
    size_t wrong = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        char u[4];
        uint32_t back;
        if (c >= 0xD800 && c < 0xE000) continue;
        const size_t n = utf8_encode(u, c);
        wrong += utf8_decode(u, n, &back) != n || back != c || !utf8_valid(u, n);
        for (size_t k = 1; k < n; k++) // cut short: the whole rest is one bad character
            wrong += utf8_decode(u, k, &back) != k || back != UTF8_BAD;
    }
    ck_assert_uint_eq(wrong, 0);
}
END_TEST

START_TEST(bad_utf8) { // bytes, and how many characters are replaced
    static const struct {
        const char *s;
        size_t n, bad;
    } c[] = {{"\x80", 1, 1},
             {"\xBF\x80", 2, 2},
             {"\xC0\xAF", 2, 2},
             {"\xC1\xBF", 2, 2},
             {"\xC2", 1, 1},
             {"\xC2z", 2, 1},
             {"\xE0\x80\x80", 3, 3},
             {"\xE0\x9F\xBF", 3, 3},
             {"\xE0\xA0", 2, 1},
             {"\xED\xA0\x80", 3, 3},
             {"\xED\xBF\xBF", 3, 3},
             {"\xEF\xBF", 2, 1},
             {"\xF0\x80\x80\x80", 4, 4},
             {"\xF0\x8F\xBF\xBF", 4, 4},
             {"\xF0\x90\x80", 3, 1},
             {"\xF4\x90\x80\x80", 4, 4},
             {"\xF5\x80\x80\x80", 4, 4},
             {"\xFF\xFE", 2, 2},
             {"\xF0\x9F\x98z\xE2\x96", 6, 2}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        TextBuf b = {0};
        size_t bad = 0;
        ck_assert(!utf8_valid(c[i].s, c[i].n));
        utf8_repair(&b, c[i].s, c[i].n);
        ck_assert(utf8_valid(b.text, b.len));
        for (size_t k = 0; k + 3 <= b.len; k++) bad += !memcmp(b.text + k, "\xEF\xBF\xBD", 3);
        ck_assert_msg(bad == c[i].bad, "case %zu: %zu replaced, want %zu", i, bad, c[i].bad);
        textbuf_free(&b);
    }
}
END_TEST

/* ---- classes ---- */

START_TEST(classes) {
    static const uint32_t spaces[] = {0x9,    0xA,    0xB,    0xC,    0xD,    0x20,   0x85,   0xA0,   0x1680,
                                      0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008,
                                      0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
    size_t letters = 0, numbers = 0, n_spaces = 0, words = 0, unlike = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        const unsigned f = char_flags(c);
        letters += !!(f & CHAR_LETTER), numbers += !!(f & CHAR_NUMBER), words += !!(f & CHAR_WORD);
        if (f & CHAR_SPACE) ck_assert_uint_eq(c, spaces[n_spaces++]);
        unlike += f & CHAR_LETTER && !(f & CHAR_WORD);
    }
    ck_assert_str_eq(unicode_version(), "16.0.0");
    ck_assert_uint_eq(n_spaces, sizeof spaces / sizeof *spaces);
    ck_assert_uint_eq(letters, 141028);
    ck_assert_uint_eq(numbers, 1911);
    ck_assert_uint_gt(words, letters);
    ck_assert_uint_eq(unlike, 0);
    ck_assert_uint_eq(char_flags(0xD800) | char_flags(0x110000) | char_flags(UINT32_MAX), 0);
    static const uint32_t number[] = {'7', 0xBD, 0x2165, 0x3007, 0x2460, 0x663, 0x96A, 0x1D7D8},
                          not_letter[] = {0x301, 0x93F, 0x20E3, '_', 0x200D, 0x1F600};
    for (size_t i = 0; i < 8; i++) ck_assert(char_flags(number[i]) & CHAR_NUMBER);
    for (size_t i = 0; i < 6; i++) ck_assert(!(char_flags(not_letter[i]) & (CHAR_LETTER | CHAR_NUMBER)));
    ck_assert(char_flags('_') & CHAR_WORD && char_flags(0x301) & CHAR_WORD && char_flags(0x24B6) & CHAR_WORD &&
              char_flags(0x200D) & CHAR_WORD);
    ck_assert(!(char_flags('-') & CHAR_WORD) && !(char_flags(0xBD) & CHAR_WORD));
}
END_TEST

/* ---- NFC ---- */

static void nfc_is(const char *in, const char *want) {
    TextBuf b = {0};
    Err e = {0};
    nfc_normalize(&b, in, strlen(in));
    ck_assert(!textbuf_end(&b, &e));
    ck_assert_msg(!strcmp(b.text, want), "NFC of '%s' is '%s', want '%s'", in, b.text, want);
    textbuf_free(&b);
}

START_TEST(nfc_cases) {
    nfc_is("", "");
    nfc_is("plain", "plain");
    nfc_is("e\xCC\x81", "\xC3\xA9");
    nfc_is("\xCC\x81", "\xCC\x81");                  // a mark alone
    nfc_is("a\xCC\x81\xCC\xA8", "\xC4\x85\xCC\x81"); // marks are put in order, then the ogonek joins
    nfc_is("a\xCC\xA8\xCC\x81", "\xC4\x85\xCC\x81");
    nfc_is("\xE2\x84\xAB", "\xC3\x85");                 // angstrom sign
    nfc_is("\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC"); // composition exclusion: U+0958 stays apart
    nfc_is("\xE0\xA4\x95\xE0\xA4\xBC", "\xE0\xA4\x95\xE0\xA4\xBC");
    nfc_is("\xCD\x84", "\xCC\x88\xCC\x81");                         // U+0344, a mark that falls apart
    nfc_is("\xEF\xA4\x80", "\xE8\xB1\x88");                         // CJK compatibility
    nfc_is("\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xED\x95\x9C"); // Hangul L V T
    nfc_is("\xED\x95\x98\xE1\x86\xAB", "\xED\x95\x9C");             // LV T
    nfc_is("\xED\x95\x9C\xE1\x86\xAB", "\xED\x95\x9C\xE1\x86\xAB"); // LVT T
    nfc_is("\xE1\x84\x92\xCC\x81\xE1\x85\xA1",
           "\xE1\x84\x92\xCC\x81\xE1\x85\xA1"); // a mark in between blocks
    nfc_is("xe\xCC\x81y \xC3\xA9z", "x\xC3\xA9y \xC3\xA9z");
    nfc_is("\xE0\xBE\xB2\xE0\xBD\xB1\xE0\xBE\x80", "\xE0\xBE\xB2\xE0\xBD\xB1\xE0\xBE\x80");
}
END_TEST

/* Adler-32 over the NFC of six strings with each character; again over the NFC of that. */
static uint32_t nfc_digest(uint32_t first, uint32_t last) {
    static const uint32_t form[6][3] = {{0},         {'a', 0, 0x316}, {'a', 0x301, 0}, {0, 0x345, 0x301},
                                        {0x1100, 0}, {0xAC00, 0}};
    static const int length[6] = {1, 3, 3, 3, 2, 2};
    uint32_t a = 1, b = 0;
    size_t wrong = 0;
    TextBuf once = {0}, twice = {0};
    for (uint32_t c = first; c < last; c++) {
        if (c >= 0xD800 && c < 0xE000) continue;
        for (int f = 0; f < 6; f++) {
            char s[16];
            size_t n = 0;
            once.len = twice.len = 0;
            for (int i = 0; i < length[f]; i++) n += utf8_encode(s + n, form[f][i] ? form[f][i] : c);
            nfc_normalize(&once, s, n);
            nfc_normalize(&twice, once.text, once.len);
            wrong += once.len != twice.len || memcmp(once.text, twice.text, once.len);
            wrong += nfc_is_certain(s, n) && (once.len != n || memcmp(once.text, s, n));
            for (size_t i = 0; i < once.len; i++) a = (a + (unsigned char)once.text[i]) % 65521, b = (b + a) % 65521;
        }
    }
    textbuf_free(&once);
    textbuf_free(&twice);
    ck_assert_uint_eq(wrong, 0);
    return b << 16 | a;
}

static const struct {
    uint32_t first, last, digest;
} part[] = {{0x0, 0x3400, 0x1B4D2520},
            {0xA000, 0x12000, 0x37F656B4},
            {0x16000, 0x17000, 0x190448BB},
            {0x1D000, 0x1F000, 0xB89E99D2},
            {0x2F000, 0x30000, 0xC90BE61C}};

START_TEST(nfc_everywhere) { // outside of these ranges nothing decomposes
    ck_assert_uint_eq(nfc_digest(part[_i].first, part[_i].last), part[_i].digest);
}
END_TEST

/* Characters "0041 030A" of a column, as UTF-8; how many bytes. */
static size_t column(char *dst, const char **at) {
    size_t n = 0;
    while (**at && **at != ';') n += utf8_encode(dst + n, (uint32_t)strtoul(*at, (char **)(uintptr_t)at, 16));
    *at += **at == ';';
    return n;
}

/* Unicode's own NormalizationTest.txt: source; NFC; NFD; NFKC; NFKD. What is in its first part changes, any other
 * character stays. */
START_TEST(nfc_conformance) {
    static const char path[] = "/usr/share/unicode/NormalizationTest.txt.bz2";
    static unsigned char listed[0x110000];
    FILE *f = access(path, R_OK) ? NULL : popen("bzip2 -dc /usr/share/unicode/NormalizationTest.txt.bz2", "r");
    char line[4096], c[5][1024];
    size_t n[5], lines = 0, wrong = 0;
    int section = -1;
    if (!f) {
        puts("SKIP NormalizationTest.txt: not installed (package unicode-data)");
        return;
    }
    while (fgets(line, sizeof line, f)) {
        const char *at = line;
        if (line[0] == '@') section = line[5] - '0';
        if (line[0] == '#' || line[0] == '@') continue;
        if (section == 1) listed[strtoul(line, NULL, 16)] = 1;
        for (int k = 0; k < 5; k++) n[k] = column(c[k], &at);
        for (int k = 0; k < 5; k++) {
            const int want = k < 3 ? 1 : 3;
            TextBuf b = {0};
            nfc_normalize(&b, c[k], n[k]);
            wrong += b.len != n[want] || memcmp(b.text, c[want], n[want]);
            textbuf_free(&b);
        }
        lines++;
    }
    ck_assert_int_eq(pclose(f), 0);
    for (uint32_t x = 0; x < 0x110000; x++) {
        TextBuf b = {0};
        if (listed[x] || (x >= 0xD800 && x < 0xE000)) continue;
        n[0] = utf8_encode(c[0], x);
        nfc_normalize(&b, c[0], n[0]);
        wrong += b.len != n[0] || memcmp(b.text, c[0], n[0]);
        textbuf_free(&b);
    }
    printf("NormalizationTest.txt: %zu lines\n", lines);
    ck_assert_uint_eq(wrong, 0);
    ck_assert_uint_ge(lines, 19000);
}
END_TEST

START_TEST(nfc_long) { // 300,000 marks out of order: sorted in linear time, stably
    enum { N = 300000 };
    char *s = malloc(2 * N + 1);
    TextBuf b = {0};
    s[0] = 'q';
    for (int i = 0; i < N; i++) memcpy(s + 1 + 2 * i, i % 2 ? "\xCC\x96" : "\xCC\x81", 2);
    nfc_normalize(&b, s, 2 * N + 1);
    ck_assert_uint_eq(b.len, 2 * N + 1);
    ck_assert(!memcmp(b.text, "q\xCC\x96", 3) && !memcmp(b.text + N + 1 - 2, "\xCC\x96\xCC\x81", 4));
    textbuf_free(&b);
    free(s);
}
END_TEST

START_TEST(nfc_memory) {
    static const char s[] = "e\xCC\x81\xCC\x96\xCC\x81\xCC\x96\xCC\x81\xCC\x96\xCC\x81\xCC\x96\xCC\x81\xCC"
                            "\x96\xCC\x81\xCC\x96\xCC\x81\xCC\x96\xCC\x81\xCC\x96\xCC\x81\xCC\x96";
    int failed = 1;
    for (long n = 0; failed; n++) {
        TextBuf b = {0};
        const size_t before = mem_now();
        mem_fail_after(n);
        nfc_normalize(&b, s, strlen(s));
        mem_fail_after(-1);
        failed = b.failed;
        textbuf_free(&b);
        ck_assert_uint_eq(mem_now(), before);
        ck_assert_int_lt(n, 50);
    }
}
END_TEST

/* ---- splitters: pieces are separated by | ---- */

static void pieces_are(SplitKind kind, const char *text, const char *want) {
    char got[512];
    size_t k = 0, n = strlen(text);
    for (size_t i = 0, len; i < n; i += len) {
        len = split_next(kind, text + i, n - i);
        ck_assert(len > 0 && len <= n - i && k + len + 2 < sizeof got);
        if (i) got[k++] = '|';
        memcpy(got + k, text + i, len);
        k += len;
    }
    got[k] = 0;
    ck_assert_msg(!strcmp(got, want), "kind %d: '%s', want '%s'", (int)kind, got, want);
}

START_TEST(splitters) {
    static const struct {
        const char *text, *llama3, *qwen, *gpt2;
    } c[] = {
        {"Hello world", "Hello| world", NULL, NULL},
        {"I'm he'LL", "I|'m| he|'LL", NULL, "I|'m| he|'|LL"},
        {"'\xC5\xBF x'\xC5\xBFy", "'\xC5\xBF| x|'\xC5\xBF|y", NULL, "'|\xC5\xBF| x|'|\xC5\xBFy"},
        {"'rer", "'re|r", NULL, NULL},
        {"'Rx 'l", "'Rx| '|l", NULL, "'|Rx| '|l"},
        {"12345 678", "123|45| |678", "1|2|3|4|5| |6|7|8", "12345| 678"},
        {"a1\xC2\xBD\xE2\x91\xA0", "a|1\xC2\xBD\xE2\x91\xA0", "a|1|\xC2\xBD|\xE2\x91\xA0", "a|1\xC2\xBD\xE2\x91\xA0"},
        {"x  y", "x| | y", NULL, NULL},
        {"x   ", "x|   ", NULL, NULL},
        {"x \n y", "x| \n| y", NULL, "x| \n| y"},
        {"today\n \n", "today|\n \n", NULL, NULL},
        {"a\n\n  b", "a|\n\n| | b", NULL, "a|\n\n | b"},
        {"a \r\n\tb", "a| \r\n|\tb", NULL, "a| \r\n|\t|b"},
        {"!\n\nb", "!\n\n|b", NULL, "!|\n|\n|b"},
        {" !?x", " !?|x", NULL, NULL},
        {"(x) _y", "(x|)| _|y", NULL, "(|x|)| _|y"},
        {"\tword", "\tword", NULL, "\t|word"},
        {"\xC2\xA0word", "\xC2\xA0word", NULL, "\xC2\xA0|word"},
        {" \xC2\x85"
         "0",
         " |\xC2\x85|0", NULL, NULL},
        {"\xE2\x80\x83\xE2\x80\x83x", "\xE2\x80\x83|\xE2\x80\x83x", NULL, "\xE2\x80\x83|\xE2\x80\x83|x"},
        {"\xE0\xA4\xB9\xE0\xA4\xBF\xE0\xA4\xA8", "\xE0\xA4\xB9|\xE0\xA4\xBF\xE0\xA4\xA8", NULL,
         "\xE0\xA4\xB9|\xE0\xA4\xBF|\xE0\xA4\xA8"},
        {"5x", "5|x", NULL, NULL},
        {"\n5", "\n|5", NULL, NULL},
        {"''s", "''|s", NULL, NULL},
        {"' s", "'| s", NULL, NULL},
        {" 's", " '|s", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        pieces_are(SPLIT_LLAMA3, c[i].text, c[i].llama3);
        pieces_are(SPLIT_QWEN, c[i].text, c[i].qwen ? c[i].qwen : c[i].llama3);
        pieces_are(SPLIT_GPT2, c[i].text, c[i].gpt2 ? c[i].gpt2 : c[i].llama3);
    }
    pieces_are(SPLIT_DIGIT, "ab12\xC2\xBD c3", "ab|1|2|\xC2\xBD| c|3");
    pieces_are(SPLIT_DIGITS, "ab12\xC2\xBD c3", "ab|12\xC2\xBD| c|3");
    pieces_are(SPLIT_META,
               "a\xEE\x96\x81"
               "b", // U+E581 ends in the same bytes
               "a\xEE\x96\x81"
               "b");
    pieces_are(SPLIT_META,
               "a\xE2\x96\x81\xE2\x96\x81"
               "b\xE2\x96\x82\xE2\x96\x81",
               "a|\xE2\x96\x81|\xE2\x96\x81"
               "b\xE2\x96\x82|\xE2\x96\x81");
}
END_TEST

START_TEST(ascii_classes) { // the short way for ASCII against the tables
    for (unsigned c = 1; c < 0x80; c++) {
        const char digit[] = {'x', (char)c, 'x'}, letter[] = {'\xC3', '\xA9', (char)c},
                   space[] = {'\xC2', '\xA0', (char)c};
        const unsigned f = char_flags(c);
        ck_assert_msg((split_next(SPLIT_DIGIT, digit, 3) == 1) == !!(f & CHAR_NUMBER), "%02x", c);
        ck_assert_msg((split_next(SPLIT_GPT2, letter, 3) == 3) == !!(f & CHAR_LETTER), "%02x", c);
        ck_assert_msg((split_next(SPLIT_GPT2, space, 3) == 3) == !!(f & CHAR_SPACE), "%02x", c);
    }
}
END_TEST

START_TEST(regex_names) { // one character more or less and it is another regex
    static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    ck_assert_int_eq(split_from_regex(gpt2, strlen(gpt2)), SPLIT_GPT2);
    ck_assert_int_eq(split_from_regex(gpt2, strlen(gpt2) - 1), SPLIT_KINDS);
    ck_assert_int_eq(split_from_regex(gpt2 + 1, strlen(gpt2) - 1), SPLIT_KINDS);
    ck_assert_int_eq(split_from_regex("", 0), SPLIT_KINDS);
}
END_TEST

SUITE("unicode") {
    GROUP("all", .timeout = 120);
    CASE(every_character);
    CASE(bad_utf8);
    CASE(classes);
    CASE(nfc_cases);
    CASE(nfc_everywhere, .times = sizeof part / sizeof *part);
    CASE(nfc_conformance);
    CASE(nfc_long);
    CASE(nfc_memory);
    CASE(splitters);
    CASE(ascii_classes);
    CASE(regex_names);
}
