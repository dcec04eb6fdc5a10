/* test_what_is.c - another file than the one that was meant: every reader says what it is and the next step. */
#include "base/file.h"
#include "base/what_is.h"
#include "io/gguf_model.h"
#include "io/hf.h"
#include "base/json.h"
#include "tests/gguf_make.h"
#include "tests/suite.h"
#include "tests/tmpdir.h"
#include "text/dataset.h"
#include "text/tokenizer.h"
#include <string.h>

static const struct {
    const char *bytes;
    size_t n; /* 0: strlen */
    WhatIs is;
    const char *says, *hint;
} files[] = {
    {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4976698672\n", 0, IS_LFS, "Git LFS pointer",
     "git lfs pull"},
    {"<!DOCTYPE html>\n<html><body>404</body></html>\n", 0, IS_HTML, "HTML", "download the file again"},
    {"\n\n<HTML lang=en>", 0, IS_HTML, "HTML", "download the file again"},
    {"GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24, IS_GGUF, "GGUF", "convert --from-gguf"},
    {"PK\3\4\24\0\0\0\0\0archive/data.pkl", 26, IS_ZIP, "ZIP", "safetensors"},
    {"\x80\2}q\1.", 6, IS_PICKLE, "pickle", "safetensors"},
    {"\x1f\x8b\x08\0\0\0\0\0\0\3abc", 13, IS_GZIP, "gzip", "gunzip"},
    {"\x28\xb5\x2f\xfd\4\0", 6, IS_ZSTD, "zstd", "zstd -d"},
    {"\xfd\x37zXZ\0\0\4", 8, IS_XZ, "xz", "xz -d"},
    {"BZh91AY&SY..", 0, IS_BZIP2, "bzip2", "bzip2 -d"},
    {"PAR1\x15\0\x15", 7, IS_PARQUET, "Parquet", "parquet_to_jsonl"},
    {"ARROW1\0\0", 8, IS_ARROW, "Arrow", "JSON lines"},
    {"\x89HDF\r\n\x1a\n", 0, IS_HDF5, "HDF5", "safetensors"},
    {"\x93NUMPY\1\0", 8, IS_NUMPY, "NumPy", "safetensors"},
    {"%PDF-1.7\n", 0, IS_PDF, "PDF", "pdftotext"},
    {"\xff\xfe{\0}\0", 6, IS_UTF16, "UTF-16", "iconv -f UTF-16"},
    {"\xfe\xff\0{\0}", 6, IS_UTF16, "UTF-16", "iconv -f UTF-16"},
    {"a\0b\0c\0d\0e\0f\0g\0h\0i\0", 18, IS_UTF16, "UTF-16", "iconv -f UTF-16"},
    {"\xff\xfe\0\0{\0\0\0", 8, IS_UTF32, "UTF-32", "iconv -f UTF-32"},
    {"HYBTOK1\n\1\0\0\0", 12, IS_SHARD, "token shard", "inspect"},
    {"\2\0\0\0\0\0\0\0{}", 10, IS_SAFETENSORS, "safetensors", "directory"},
};
enum { FILES = sizeof files / sizeof *files };

static void lay(const char *name, const void *bytes, size_t n) {
    Err e = {0};
    ck_assert_msg(!file_write_all(tmpdir_path(name), bytes, n, &e), "%s", e.msg);
}
static void lay_text(const char *name, const char *text) { lay(name, text, strlen(text)); }
static size_t size_of(int i) { return files[i].n ? files[i].n : strlen(files[i].bytes); }

static void says(const Err *e, const char *what, const char *hint) {
    ck_assert_msg(strstr(e->msg, what) != NULL, "'%s' is not in: %s", what, e->msg);
    ck_assert_msg(strstr(e->hint, hint) != NULL, "'%s' is not in the hint: %s (%s)", hint, e->hint, e->msg);
}

START_TEST(test_kinds) { ck_assert_int_eq(what_is(files[_i].bytes, size_of(_i)), files[_i].is); }
END_TEST

/* Text that begins as some of them do is text all the same. */
START_TEST(test_text_stays_text) {
    static const char *const text[] = {"GGUF is a format.\n", "BZhang wrote: \"...\"", "version 1 of this file",
                                       "PK is a name",        "<p>A page</p>",         "\xe2\x82\xac and \xc3\xa9",
                                       "%PDFs are files"};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        ck_assert_msg(what_is(text[i], strlen(text[i])) == IS_UNKNOWN, "%s", text[i]);
    ck_assert_int_eq(what_is("", 0), IS_EMPTY);
    ck_assert_int_eq(what_is("\xef\xbb\xbf {", 5), IS_JSON);
    ck_assert_int_eq(what_is("a\0bc", 4), IS_BINARY);
}
END_TEST

#define CONFIG                                                                                                         \
    "{\"model_type\": \"llama\", \"hidden_size\": 4, \"intermediate_size\": 4, \"num_hidden_layers\": 1, "             \
    "\"num_attention_heads\": 1, \"vocab_size\": 4, \"tie_word_embeddings\": true}"

/* Each kind in the place of each file that is read. */
START_TEST(test_readers) {
    const WhatIs is = files[_i].is;
    lay("x", files[_i].bytes, size_of(_i));
    Err e = {0};
    Safetensors st;
    if (is != IS_SAFETENSORS) {
        ck_assert_int_eq(safetensors_open(&st, tmpdir_path("x"), &e), ERR_INPUT);
        says(&e, files[_i].says, files[_i].hint);
    }
    Json j;
    e = (Err){0};
    ck_assert_int_eq(json_open(&j, tmpdir_path("x"), &e), ERR_INPUT);
    says(&e, files[_i].says, files[_i].hint);
    Tokenizer *t;
    e = (Err){0};
    ck_assert_int_eq(tokenizer_open(&t, tmpdir_path("x"), &e), ERR_INPUT);
    says(&e, files[_i].says, files[_i].hint);
    GgufModel g;
    e = (Err){0};
    ck_assert_int_eq(gguf_model_open(&g, tmpdir_path("x"), &e), ERR_INPUT);
    if (is == IS_GGUF) says(&e, "no tensors", "weights");
    else says(&e, files[_i].says, is == IS_SAFETENSORS ? "model already" : files[_i].hint);
    HfModel h;
    e = (Err){0};
    ck_assert_int_eq(hf_open(&h, tmpdir_path("x"), &e), ERR_INPUT);
    says(&e, files[_i].says, files[_i].hint);
    Shard s;
    e = (Err){0};
    ck_assert_int_eq(shard_open(&s, tmpdir_path("x"), &e), ERR_INPUT);
    says(&e, files[_i].says, is == IS_SHARD ? "" : files[_i].hint);
}
END_TEST

/* ---- model directories ---- */

static int open_dir(Err *e) {
    HfModel h;
    *e = (Err){0};
    const int rc = hf_open(&h, tmpdir, e);
    if (!rc) hf_close(&h);
    return rc;
}

START_TEST(test_no_config) {
    static const char *const there[][2] = {{"run.json", "run of hybridize"},
                                           {"adapter_config.json", "PEFT"},
                                           {"params.json", "Hugging Face layout"},
                                           {"a.gguf", "make a model directory of a.gguf"},
                                           {"readme", "config.json"}};
    Err e;
    lay_text(there[_i][0], "{}");
    ck_assert_int_eq(open_dir(&e), ERR_IO);
    says(&e, "no config.json", there[_i][1]);
}
END_TEST

START_TEST(test_no_weights) {
    static const char *const there[][3] = {
        {"model-00001-of-00002.safetensors", "but model-00001-of-00002.safetensors is there", "index.json"},
        {"adapter_model.safetensors", "but adapter_model", "PEFT"},
        {"consolidated.safetensors", "but consolidated", "Hugging Face layout"},
        {"pytorch_model.bin", "but pytorch_model.bin", "safetensors first"},
        {"m.gguf", "but m.gguf", "convert --from-gguf"},
        {"readme", "no model.safetensors", "missing"}};
    Err e;
    lay_text("config.json", CONFIG);
    lay_text(there[_i][0], "x");
    ck_assert_int_eq(open_dir(&e), ERR_IO);
    says(&e, there[_i][1], there[_i][2]);
}
END_TEST

/* One tensor a name, of four zeros. */
static void put_tensors(const char *file, const char *const *name, size_t n) {
    static const float zero[4];
    Tensor t[16] = {0};
    Err e = {0};
    for (size_t i = 0; i < n; i++)
        t[i] = (Tensor){.name = name[i],
                        .dtype = DT_F32,
                        .rank = 1,
                        .shape = {4},
                        .count = 4,
                        .bytes = 16,
                        .data = (const unsigned char *)zero};
    ck_assert_msg(!safetensors_write(tmpdir_path(file), t, n, NULL, NULL, NULL, &e), "%s", e.msg);
}

START_TEST(test_prefixed_names) {
    static const char *const named[][3] = {
        {"_orig_mod.model.embed_tokens.weight", "take \"_orig_mod.\" off", "torch.compile"},
        {"base_model.model.model.embed_tokens.weight", "take \"base_model.model.\" off", "PEFT"},
        {"module.model.embed_tokens.weight", "take \"module.\" off", "DataParallel"},
        {"module._orig_mod.model.embed_tokens.weight", "take \"module._orig_mod.\" off", "DataParallel"},
        {"student.model.embed_tokens.weight", "take \"student.\" off", "something"},
        {"embed_tokens.weight", "put \"model.\" in front", "without its head"}};
    Err e;
    lay_text("config.json", CONFIG);
    put_tensors("model.safetensors", (const char *const[]){named[_i][0]}, 1);
    ck_assert_int_eq(open_dir(&e), ERR_INPUT);
    says(&e, "\"model.embed_tokens.weight\" is missing", named[_i][1]);
    says(&e, named[_i][0], named[_i][2]);
}
END_TEST

START_TEST(test_shards_missing) {
    Err e;
    lay_text("config.json", CONFIG);
    lay_text("model.safetensors.index.json",
             "{\"weight_map\": {\"a\": \"a.safetensors\", \"b\": \"b.safetensors\", \"c\": \"c.safetensors\"}}");
    put_tensors("a.safetensors", (const char *const[]){"a"}, 1);
    ck_assert_int_eq(open_dir(&e), ERR_IO);
    says(&e, "names 3 files, of which 2 are not there, the first b.safetensors", "not complete");
}
END_TEST

START_TEST(test_index_alone) {
    HfModel h;
    Err e = {0};
    lay_text("i.json", "{\"weight_map\": {\"a\": \"a.safetensors\", \"b\": \"b.safetensors\"}}");
    put_tensors("a.safetensors", (const char *const[]){"a"}, 1);
    put_tensors("b.safetensors", (const char *const[]){"b"}, 1);
    ck_assert_msg(!hf_index_open(&h, tmpdir_path("i.json"), &e), "%s", e.msg);
    ck_assert_int_eq(h.n_shards, 2);
    hf_close(&h);
}
END_TEST

START_TEST(test_split_gguf) {
    GgufModel g;
    Err e = {0};
    Make m = {0};
    pair_u32(&m, "split.count", 3);
    pair_u32(&m, "split.no", 1);
    const Bytes b = make_file(&m, 3);
    lay("m-00002-of-00003.gguf", b.p, b.n);
    ck_assert_int_eq(gguf_model_open(&g, tmpdir_path("m-00002-of-00003.gguf"), &e), ERR_INPUT);
    says(&e, "part 2 of 3 of a split GGUF file", "gguf-split --merge");
    free(b.p);
    make_free(&m);
}
END_TEST

START_TEST(test_types_by_name) {
    ck_assert_str_eq(ggml_any_name(13), "Q5_K");
    ck_assert_str_eq(ggml_any_name(23), "IQ4_XS");
    ck_assert_str_eq(ggml_any_name(39), "MXFP4");
    ck_assert_ptr_null(ggml_any_name(1000));
    for (int t = 0; t < 40; t++)
        if (ggml_name((GgmlType)t)) ck_assert_str_eq(ggml_any_name((uint64_t)t), ggml_name((GgmlType)t));
}
END_TEST

START_TEST(test_no_tokenizer) {
    Tokenizer *t;
    Err e = {0};
    lay_text("tokenizer.model", "x");
    ck_assert_int_eq(tokenizer_open(&t, tmpdir, &e), ERR_IO);
    says(&e, "no tokenizer.json", "tokenizer.model is there");
}
END_TEST

SUITE("what_is") {
    GROUP("what_is", .setup = tmpdir_begin, .teardown = tmpdir_end);
    CASE(test_kinds, .times = FILES);
    CASE(test_text_stays_text);
    CASE(test_readers, .times = FILES);
    CASE(test_no_config, .times = 5);
    CASE(test_no_weights, .times = 6);
    CASE(test_prefixed_names, .times = 6);
    CASE(test_shards_missing);
    CASE(test_index_alone);
    CASE(test_split_gguf);
    CASE(test_types_by_name);
    CASE(test_no_tokenizer);
}
