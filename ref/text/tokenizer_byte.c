/* tokenizer_byte.c - 256 tokens, id = byte, written as a tokenizer.json that other software reads too. */
#include "base/mem.h"
#include "base/json.h"
#include "text/tokenizer_parts.h"

int tokenizer_byte_json(char **text, size_t *len, Err *e) {
    JsonOut o;
    json_out_begin(&o, 1);
    json_out_object(&o, NULL);
    json_out_str(&o, "version", "1.0");
    json_out_null(&o, "truncation");
    json_out_null(&o, "padding");
    json_out_array(&o, "added_tokens");
    json_out_close(&o);
    json_out_null(&o, "normalizer");
    static const char *const part[] = {"pre_tokenizer", "post_processor", "decoder"};
    for (int i = 0; i < 3; i++) {
        json_out_object(&o, part[i]);
        json_out_str(&o, "type", "ByteLevel");
        json_out_bool(&o, "add_prefix_space", 0);
        json_out_bool(&o, "trim_offsets", 0);
        json_out_bool(&o, "use_regex", 0);
        json_out_close(&o);
    }
    json_out_object(&o, "model");
    json_out_str(&o, "type", "BPE");
    static const char *const none[] = {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 4; i++) json_out_null(&o, none[i]);
    json_out_bool(&o, "fuse_unk", 0);
    json_out_bool(&o, "byte_fallback", 0);
    json_out_bool(&o, "ignore_merges", 0);
    json_out_object(&o, "vocab");
    for (int b = 0; b < 256; b++) {
        char letter[5] = {0};
        utf8_encode(letter, byte_letter((unsigned char)b));
        json_out_int(&o, letter, b);
    }
    json_out_close(&o);
    json_out_array(&o, "merges");
    json_out_close(&o);
    json_out_close(&o);
    json_out_close(&o);
    *text = NULL;
    *len = 0;
    const int rc = json_out_end(&o, e);
    if (rc) json_out_free(&o);
    else *text = o.text, *len = o.len; // the text is mem_alloc'ed and now the caller's
    return rc;
}

int tokenizer_byte(Tokenizer **t, Err *e) {
    char *text;
    size_t len;
    *t = NULL;
    TRY(tokenizer_byte_json(&text, &len, e));
    const int rc = tokenizer_parse(t, text, len, "byte tokenizer", e);
    mem_free(text);
    return rc;
}
