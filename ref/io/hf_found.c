/* hf_found.c - what lies there instead: the messages for a model directory that is none, or that lacks its weights or a
 * tensor. Each says what was found and the next step. */
#include "io/hf_parts.h"
#include "base/file.h"
#include "base/text_buf.h"
#include "base/what_is.h"
#include <string.h>

int hf_directory(const char *path, Err *e) {
    if (file_exists(path) == 2) return OK;
    const int file = file_exists(path) == 1;
    const WhatIs is = file ? what_is_file(path) : IS_UNKNOWN;
    if (is > IS_JSON) return what_is_refuse(is, path, "a model directory", e);
    err_set(e, file ? ERR_INPUT : ERR_IO, "%s: %s", path,
            file ? "is a file, expected a model directory" : "no such directory");
    return err_hint(e, file ? "give the directory that holds config.json, model.safetensors and tokenizer.json"
                            : "give a Hugging Face model directory: config.json, model.safetensors, tokenizer.json");
}

/* ---- config.json ---- */

static int there(const char *dir, const char *name) {
    char path[1024];
    return file_join(path, sizeof path, dir, name, NULL) ? 0 : file_exists(path);
}

int hf_no_config(const char *dir, Err *e) {
    static const struct {
        const char *name, *hint;
    } other[] = {
        {"run.json", "this is a run of hybridize: its model is in the directory model below it"},
        {"adapter_config.json", "this is a PEFT adapter: merge it into its base model first (peft, merge_and_unload)"},
        {"params.json", "this is the maker's own layout: take the same model in the Hugging Face layout"},
        {"model_index.json", "this is a diffusers pipeline: no decoder of text"},
        {"snapshots", "this is an entry of the Hugging Face cache: give snapshots/REVISION below it"},
    };
    char **name = NULL;
    size_t n = 0;
    TRY(file_list(&name, &n, dir, e));
    err_set(e, ERR_IO, "%s: no config.json in it", dir);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        if (there(dir, other[i].name)) err_hint(e, "%s", other[i].hint);
    for (size_t i = 0; i < n; i++)
        if (text_ends(name[i], ".gguf"))
            err_hint(e, "make a model directory of %.100s: hybridize convert --from-gguf FILE -o DIR", name[i]);
    file_list_free(name, n);
    return err_hint(e, "give the directory that holds config.json, model.safetensors and tokenizer.json");
}

/* ---- weights ---- */

/* Kinds of weights that are not read, by the ends of their names; the first that lies there is named. */
static const struct {
    const char *end, *hint;
} others[] = {
    {"adapter_model.safetensors",
     "this is a PEFT adapter: merge it into its base model first (peft, merge_and_unload)"},
    {"consolidated.safetensors", "Mistral's own layout: take the same model in the Hugging Face layout"},
    {".safetensors.index.json", "the index must be called model.safetensors.index.json"},
    {"-of-00001.safetensors", "rename it to model.safetensors"},
    {".safetensors", "several files need model.safetensors.index.json, which says what is in which: get it too; a "
                     "single file must be called model.safetensors"},
    {".gguf", "make a model directory of it: hybridize convert --from-gguf FILE -o DIR"},
    {".bin", "weights in .bin files must be converted to safetensors first"},
    {".bin.index.json", "weights in .bin files must be converted to safetensors first"},
    {".pt", "weights in .pt files must be converted to safetensors first"},
    {".pth", "weights in .pth files must be converted to safetensors first"},
    {".ckpt", "weights in .ckpt files must be converted to safetensors first"},
    {".h5", "weights in .h5 files must be converted to safetensors first"},
    {".msgpack", "weights in .msgpack files must be converted to safetensors first"},
    {".npz", "weights in .npz files must be converted to safetensors first"},
};

int hf_no_weights(const char *dir, Err *e) {
    char **name;
    size_t n;
    TRY(file_list(&name, &n, dir, e));
    for (size_t k = 0; k < sizeof others / sizeof *others; k++)
        for (size_t i = 0; i < n; i++)
            if (!(e && e->code) && text_ends(name[i], others[k].end)) {
                err_set(e, ERR_IO, "%s: no model.safetensors and no model.safetensors.index.json, but %.200s is there",
                        dir, name[i]);
                err_hint(e, "%s", others[k].hint);
            }
    file_list_free(name, n);
    err_set(e, ERR_IO, "%s: no model.safetensors and no model.safetensors.index.json", dir);
    err_hint(e, "the weights are missing: get them too (weights in .bin files must be converted to safetensors first)");
    return ERR_IO;
}

int hf_shards_there(const char *dir, const char *index, const char *const *shard, int n, Err *e) {
    char path[1024];
    const char *first = NULL;
    int missing = 0;
    for (int i = 0; i < n; i++) {
        TRY(file_join(path, sizeof path, dir, shard[i], e));
        if (file_exists(path) == 1) continue;
        if (!missing++) first = shard[i];
    }
    if (!missing) return OK;
    err_set(e, ERR_IO, "%s: weight_map names %d file%s, of which %d %s not there, the first %s", index, n,
            n == 1 ? "" : "s", missing, missing == 1 ? "is" : "are", first);
    return err_hint(e, "the download is not complete: get the rest of the files, or all of them again");
}

/* ---- a tensor ---- */

static const struct {
    const char *prefix, *from;
} prefixes[] = {
    {"_orig_mod.", "torch.compile puts it in front"},
    {"base_model.model.", "PEFT puts it in front"},
    {"module.", "DataParallel puts it in front"},
    {"_fsdp_wrapped_module.", "FSDP puts it in front"},
    {"language_model.", "the text part of a model for pictures has it"},
    {"model.", "a wrapper put it in front"},
};

/* Why names may begin with text[0..n). */
static const char *prefix_reason(const char *text, size_t n) {
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        const size_t m = strlen(prefixes[i].prefix);
        if (n >= m && !memcmp(text, prefixes[i].prefix, m)) return prefixes[i].from;
    }
    return "something put it in front";
}

int hf_no_tensor(const HfModel *h, const char *name, Err *e) {
    static const char *const heads[] = {"model.", "transformer."};
    const char *where = h->n_shards == 1 ? h->shard[0].path : h->dir;
    for (int s = 0; s < h->n_shards; s++)
        for (size_t i = 0; i < h->shard[s].n; i++) {
            const char *got = h->shard[s].tensor[i].name;
            const size_t n = strlen(got), m = strlen(name);
            if (n > m && got[n - m - 1] == '.' && text_ends(got, name)) {
                const int front = (int)(n - m < 100 ? n - m : 100);
                err_set(e, ERR_INPUT, "%s: tensor \"%s\" is missing, but \"%.200s\" is there", where, name, got);
                return err_hint(e, "take \"%.*s\" off the names of all tensors: %s", front, got,
                                prefix_reason(got, n - m));
            }
            for (size_t k = 0; k < sizeof heads / sizeof *heads; k++) {
                const size_t head = strlen(heads[k]);
                if (strncmp(name, heads[k], head) || strcmp(name + head, got)) continue;
                err_set(e, ERR_INPUT, "%s: tensor \"%s\" is missing, but \"%.200s\" is there", where, name, got);
                return err_hint(e, "the model was saved without its head: put \"%s\" in front of the names", heads[k]);
            }
        }
    size_t have = 0;
    for (int s = 0; s < h->n_shards; s++) have += h->shard[s].n;
    err_set(e, ERR_INPUT, "%s: tensor \"%s\" is missing among %zu tensors", where, name, have);
    return err_hint(e, "config.json says that the model has it (%d layers, family %s)", h->config.L, h->config.family);
}
