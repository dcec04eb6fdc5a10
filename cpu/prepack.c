/* prepack.c - the table of prepacked weights, by address. Changed only between ops (backend.h), read by them. See
 * prepack.h. */
#include "cpu/prepack.h"
#include "base/mem.h"
#include "cpu/cpu.h"
#include <stdint.h>

atomic_size_t matrices_packed;

/* Open addressing in a power of two of places, at most half full. */
static struct {
    Prepacked *at;
    size_t places, count;
} packed;

static size_t prepack_place(const Prepacked *at, size_t places, const void *w) {
    size_t i = (size_t)(((uint64_t)(uintptr_t)w >> 6) * 0x9e3779b97f4a7c15u >> 20) & (places - 1);
    while (at[i].w && at[i].w != w) i = (i + 1) & (places - 1);
    return i;
}

Prepacked *prepack_find(const void *w) {
    if (!packed.count) return NULL;
    Prepacked *h = packed.at + prepack_place(packed.at, packed.places, w);
    return h->w ? h : NULL;
}

/* All entries again in a table of so many places. */
static int prepack_build(size_t places) {
    void *mem = NULL;
    if (places && mem_alloc(&mem, places * sizeof(Prepacked), "table of prepacked weights", NULL)) return ERR_MEMORY;
    for (size_t i = 0; i < packed.places; i++)
        if (packed.at[i].w) ((Prepacked *)mem)[prepack_place(mem, places, packed.at[i].w)] = packed.at[i];
    mem_free(packed.at);
    packed.at = mem;
    packed.places = places;
    return OK;
}

void *prepack_memory(PackedCopy *c, size_t bytes) {
    void *mem;
    if (!c->panels && !mem_alloc(&mem, bytes, "panels of weights", NULL)) c->panels = mem;
    return c->panels;
}

/* Is dx = dy W worth a copy? */
static int pack_backward(int I, int backward, int bits) { return backward && (bits == 16 || I > IN_PLACE); }
size_t cpu_prepack_bytes(int O, int I, int backward, int bits) {
    size_t (*const bytes)(size_t, size_t) = bits == 16 ? prepack_bytes16 : prepack_bytes;
    return bytes((size_t)I, (size_t)O) + (pack_backward(I, backward, bits) ? bytes((size_t)O, (size_t)I) : 0);
}
void cpu_prepack(const void *w, int O, int I, int backward, int bits) {
    if (O < 1 || I < 1 || prepack_find(w)) return;
    if (2 * (packed.count + 1) > packed.places && prepack_build(packed.places ? 2 * packed.places : 64)) return;
    Prepacked *h = packed.at + prepack_place(packed.at, packed.places, w);
    *h = (Prepacked){.w = w, .O = (size_t)O, .I = (size_t)I};
    h->copy[0].wanted = pack_backward(I, backward, bits);
    h->copy[1].wanted = 1;
    packed.count++;
}

void cpu_invalidate(const void *w) {
    Prepacked *h = prepack_find(w);
    for (int i = 0; h && i < 2; i++) atomic_store(&h->copy[i].state, PACK_STALE);
}

void cpu_prepack_release(const void *w) {
    Prepacked *h = prepack_find(w);
    if (!h) return;
    for (int i = 0; i < 2; i++) mem_free(h->copy[i].panels);
    h->w = NULL;
    // Whoever was placed behind it because this place was taken must be found again.
    for (size_t i = (size_t)(h - packed.at + 1) & (packed.places - 1); packed.at[i].w;
         i = (i + 1) & (packed.places - 1)) {
        const Prepacked moved = packed.at[i];
        packed.at[i].w = NULL;
        packed.at[prepack_place(packed.at, packed.places, moved.w)] = moved;
    }
    if (!--packed.count) prepack_build(0);
}
