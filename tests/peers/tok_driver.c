/* tok_driver.c - our tokenizer behind a pipe, for tokenizer_compare.py.
 * stdin: u32 length (little endian) and so many bytes, again and again. stdout: for each text a line of ids
 * and a line with the decoded text in hex.  tok_driver TOKENIZER [special] [noparse] */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "text/tokenizer.h"

int main(int argc, char **argv) {
    Err e = {0};
    Tokenizer *t;
    Ids ids = {0};
    char *text = NULL, *out = NULL;
    uint32_t n;
    int flags = 0;
    for (int i = 2; i < argc; i++)
        flags |= !strcmp(argv[i], "special") ? TOKENIZE_SPECIAL : !strcmp(argv[i], "noparse") ? TOKENIZE_NO_PARSE : 0;
    if (argc < 2 || tokenizer_open(&t, argv[1], &e)) return fprintf(stderr, "error: %s (%s)\n", e.msg, e.hint), 1;
    while (fread(&n, 4, 1, stdin) == 1) {
        size_t len = 0;
        text = realloc(text, n + 1u);
        if (!text || fread(text, 1, n, stdin) != n) return 1;
        ids.n = 0;
        if (tokenizer_encode(t, text, n, flags, &ids, &e) || tokenizer_decode(t, ids.id, ids.n, 0, &out, &len, &e))
            return fprintf(stderr, "error: %s\n", e.msg), 1;
        for (size_t i = 0; i < ids.n; i++) printf("%d ", ids.id[i]);
        printf("\n");
        for (size_t i = 0; i < len; i++) printf("%02x", (unsigned char)out[i]);
        printf("\n");
        mem_free(out);
        out = NULL;
    }
    free(text);
    ids_free(&ids);
    tokenizer_close(t);
    return 0;
}
