/* fuzz_shard.c - any bytes as token shard: refused, or every batch stays inside. The first byte says what is
 * made right before: bit 0 the magic and version, bit 1 the checksum, so that the checks behind them are
 * reached. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/mem.h"
#include "text/dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_batches(const Dataset *d) {
    enum { B = 3, T = 4 };
    int ids[B * T], target[B * T], start[B * T];
    for (uint64_t step = 0; step < 5; step++) {
        const Split split = {step, step * 3};
        memset(start, 0, sizeof start);
        memset(ids, 0, sizeof ids);
        dataset_batch(d, step ? &split : NULL, 7, step, B, T, ids, target, start);
        for (int i = 0; i < B * T; i++)
            if (ids[i] < 0 || ids[i] >= d->shard[0].vocab || start[i] < 0 || start[i] > i % T) abort();
    }
    dataset_read(d, d->tokens - 1, 2, ids, start);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    Err e = {0};
    Dataset d;
    if (size < 1) return 0;
    const size_t n = size - 1, before = mem_now();
    uint8_t *b = malloc(n ? n : 1);
    memcpy(b, data + 1, n);
    if (data[0] & 1 && n >= 12) memcpy(b, "HYBTOK1\n\1\0\0\0", 12);
    if (data[0] & 2 && n >= 48) {
        const uint32_t crc = file_crc32c(0, b + 48, n - 48);
        for (int i = 0; i < 4; i++) b[36 + i] = (uint8_t)(crc >> 8 * i);
    }
    const int fd = memfd_create("shard", 0);
    if (fd < 0 || write(fd, b, n) != (ssize_t)n) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const char *paths[] = {path, path};
    if (!dataset_open(&d, paths, 2, &e)) use_batches(&d);
    else if (!e.msg[0]) abort();
    dataset_close(&d);
    close(fd);
    free(b);
    if (mem_now() != before) abort();
    return 0;
}
