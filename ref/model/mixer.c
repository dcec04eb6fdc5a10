/* mixer.c - the table of token mixers. A row here and a file of its own is all that a new mixer needs. */
#include "model/mixer.h"
#include <stdio.h>
#include <string.h>

static const Mixer *const table[] = {
    &mixer_softmax, &mixer_gdn_v1, &mixer_gdn_v2, &mixer_gdn_v3, &mixer_gdn_v4, &mixer_gdn_v5, &mixer_gdn_v6,
    &mixer_gla_v1,  &mixer_kda_v1, &mixer_kda_v2, &mixer_kda_v3, &mixer_kda_v4, &mixer_swa_v1,
};

int mixer_count(void) { return (int)(sizeof table / sizeof *table); }

const Mixer *mixer_at(int index) { return index >= 0 && index < mixer_count() ? table[index] : NULL; }

int mixer_find(const char *name) {
    for (int i = 0; i < mixer_count(); i++)
        if (!strcmp(table[i]->name, name)) return i;
    return -1;
}

void mixer_names(char *out, size_t cap) {
    size_t n = 0;
    for (int i = 1; i < mixer_count() && n < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%s", i > 1 ? ", " : "", table[i]->name);
}
