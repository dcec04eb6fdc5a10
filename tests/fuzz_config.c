/* fuzz_config.c - any bytes as config.json: no crash, no leak; what is accepted can be written, or is refused with a
 * message. */
#include "base/mem.h"
#include "io/hf_parts.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void write_back(const Config *c, int fla) {
    JsonOut o;
    Err e = {0};
    char notes[2048];
    // Reading back what was written is part of writing: ERR_USAGE says that this layout has no field for something.
    const int rc = hf_config_write(&o, c, c->dtype, fla, notes, sizeof notes, &e);
    if (rc && (rc != ERR_USAGE || !e.msg[0])) abort();
    if (!rc) json_out_free(&o);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    Json j;
    Config c;
    Err e = {0};
    int fla = 0;
    const size_t before = mem_now();
    if (json_parse(&j, (const char *)data, size, "config.json", &e)) {
        if (mem_now() != before) abort();
        return 0;
    }
    int rc = hf_config_parse(&c, &fla, &j, &e);
    if (!rc) rc = config_check(&c, "config.json", &e);
    if (rc ? !e.msg[0] || e.code != rc : params_count(&c) == 0) abort();
    json_free(&j);
    if (!rc) write_back(&c, fla);
    if (mem_now() != before) abort();
    return 0;
}
