/* held.c - the table of held weights, by address. Changed only between ops (backend.h), read by them. See held.h. */
#include "cpu/held.h"
#include "base/mem.h"
#include "cpu/cpu.h"
#include <stdint.h>

atomic_size_t held_packed;

/* Open addressing in a power of two of places, at most half full. */
static struct {
    Held *at;
    size_t places, count;
} held;

static size_t held_place(const Held *at, size_t places, const void *w) {
    size_t i = (size_t)(((uint64_t)(uintptr_t)w >> 6) * 0x9e3779b97f4a7c15u >> 20) & (places - 1);
    while (at[i].w && at[i].w != w) i = (i + 1) & (places - 1);
    return i;
}

Held *held_find(const void *w) {
    if (!held.count) return NULL;
    Held *h = held.at + held_place(held.at, held.places, w);
    return h->w ? h : NULL;
}

/* All entries again in a table of so many places. */
static int held_build(size_t places) {
    void *mem = NULL;
    if (places && mem_alloc(&mem, places * sizeof(Held), "table of held weights", NULL)) return ERR_MEMORY;
    for (size_t i = 0; i < held.places; i++)
        if (held.at[i].w) ((Held *)mem)[held_place(mem, places, held.at[i].w)] = held.at[i];
    mem_free(held.at);
    held.at = mem;
    held.places = places;
    return OK;
}

void *held_memory(HeldCopy *c, size_t bytes) {
    void *mem;
    if (!c->panels && !mem_alloc(&mem, bytes, "panels of weights", NULL)) c->panels = mem;
    return c->panels;
}

/* Is dx = dy W worth a copy? */
static int held_back(int I, int backward, int bits) { return backward && (bits == 16 || I > IN_PLACE); }
size_t cpu_hold_bytes(int O, int I, int backward, int bits) {
    size_t (*const bytes)(size_t, size_t) = bits == 16 ? held_bytes16 : held_bytes;
    return bytes((size_t)I, (size_t)O) + (held_back(I, backward, bits) ? bytes((size_t)O, (size_t)I) : 0);
}
void cpu_hold(const void *w, int O, int I, int backward, int bits) {
    if (O < 1 || I < 1 || held_find(w)) return;
    if (2 * (held.count + 1) > held.places && held_build(held.places ? 2 * held.places : 64)) return;
    Held *h = held.at + held_place(held.at, held.places, w);
    *h = (Held){.w = w, .O = (size_t)O, .I = (size_t)I};
    h->copy[0].wanted = held_back(I, backward, bits);
    h->copy[1].wanted = 1;
    held.count++;
}

void cpu_changed(const void *w) {
    Held *h = held_find(w);
    for (int i = 0; h && i < 2; i++) atomic_store(&h->copy[i].state, HELD_STALE);
}

void cpu_let_go(const void *w) {
    Held *h = held_find(w);
    if (!h) return;
    for (int i = 0; i < 2; i++) mem_free(h->copy[i].panels);
    h->w = NULL;
    // Whoever was placed behind it because this place was taken must be found again.
    for (size_t i = (size_t)(h - held.at + 1) & (held.places - 1); held.at[i].w; i = (i + 1) & (held.places - 1)) {
        const Held moved = held.at[i];
        held.at[i].w = NULL;
        held.at[held_place(held.at, held.places, moved.w)] = moved;
    }
    if (!--held.count) held_build(0);
}
