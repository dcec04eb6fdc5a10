/* load.c - a tensor of a case of the pack, in C: no library. cc load.c -o load && ./load FILE TENSOR prints its type,
 * shape and first numbers. Files are little-endian: 8 bytes n, n bytes of JSON, data. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The bytes of a tensor, or NULL. type: "F32", "F64" or "I32"; shape: "[2,3"; all in one block that *file is freed
 * with. */
static void *tensor(const char *path, const char *name, char type[4], char shape[64], size_t *bytes, char **file) {
    uint64_t n = 0;
    char key[96];
    unsigned long long begin, end;
    FILE *f = fopen(path, "rb");
    long size;
    if (!f || fseek(f, 0, SEEK_END) || (size = ftell(f)) < 8 || fseek(f, 0, SEEK_SET)) return NULL;
    *file = calloc((size_t)size + 1, 1);
    if (!*file || fread(*file, 1, (size_t)size, f) != (size_t)size) return NULL;
    fclose(f);
    memcpy(&n, *file, 8);
    if (n > (uint64_t)size - 8) return NULL;
    snprintf(key, sizeof key, "\"%s\":{\"dtype\":\"", name);
    const char *at = strstr(*file + 8, key);
    if (!at || sscanf(at + strlen(key), "%3[A-Z0-9]\",\"shape\":%63[^]]],\"data_offsets\":[%llu,%llu]", type, shape,
                      &begin, &end) != 4)
        return NULL;
    *bytes = (size_t)(end - begin);
    return *file + 8 + n + begin;
}

int main(int argc, char **argv) {
    char type[4], shape[64], *file = NULL;
    size_t bytes;
    const void *data = argc == 3 ? tensor(argv[1], argv[2], type, shape, &bytes, &file) : NULL;
    if (!data) return fprintf(stderr, "usage: load FILE TENSOR\n"), 1;
    printf("%s %s]", type, shape);
    for (size_t i = 0; i < 8 && i < bytes / (type[1] == '6' ? 8 : 4); i++)
        if (type[1] == '6') printf(" %.17g", ((const double *)data)[i]);
        else if (type[0] == 'F') printf(" %.9g", ((const float *)data)[i]);
        else printf(" %d", ((const int *)data)[i]);
    printf("\n");
    free(file);
    return 0;
}
