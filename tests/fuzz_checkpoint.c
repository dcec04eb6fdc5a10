/* fuzz_checkpoint.c - any bytes as a checkpoint's state.json: refused with one line, or a state whose texts end.
 * The first byte says whether the last line, with the right checksum, is put behind the others, so that what lies
 * behind that check is reached. */
#include "base/mem.h"
#include "base/file.h"
#include "run/checkpoint.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    const size_t before = mem_now();
    size_t n = size - 1;
    void *mem;
    Err e = {0};
    CheckpointState s;
    if (mem_alloc(&mem, n + (data[0] & 1 ? 64 : 0), "text", &e)) abort();
    char *text = mem;
    if (n) memcpy(text, data + 1, n);
    if (data[0] & 1) n += (size_t)snprintf(text + n, 64, ",\n  \"crc32c\": %u\n}\n", file_crc32c(0, text, n));
    const int rc = checkpoint_parse(&s, text, n, "state.json", &e);
    if (rc ? rc != ERR_INPUT || !e.msg[0] || strchr(e.msg, '\n') : 0) abort();
    if (!rc && (s.step < 0 || s.updates < 0 || strlen(s.stage) >= sizeof s.stage || strlen(s.run) >= sizeof s.run))
        abort();
    mem_free(mem);
    if (mem_now() != before) abort();
    return 0;
}
