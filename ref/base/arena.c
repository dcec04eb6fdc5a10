/* arena.c - a bump pointer. See arena.h. */
#include "base/arena.h"
#include "base/poison.h"
#include <stdint.h>

enum { ALIGN = 64 };
#ifdef DEBUG
enum { RED_ZONE = 64 };
#else
enum { RED_ZONE = 0 };
#endif

void arena_begin(Arena *a, void *base, size_t cap) { *a = (Arena){base, cap, 0, 0}; }

void *arena_take(Arena *a, size_t n, size_t size) {
    size_t room = SIZE_MAX - a->used;
    if (a->base) room = a->cap > a->used ? a->cap - a->used : 0;
    /* the +ALIGN-1 of rounding up and the red zone are taken off first, so that no sum below can wrap */
    if (a->overflow || (size && n > SIZE_MAX / size) || n * size > SIZE_MAX - 2 * ALIGN) {
        a->overflow = 1;
        return NULL;
    }
    size_t bytes = n * size;
    size_t taken = (bytes + ALIGN - 1) / ALIGN * ALIGN + RED_ZONE;
    if (taken > room) {
        a->overflow = 1;
        return NULL;
    }
    char *p = a->base ? a->base + a->used : NULL;
    a->used += taken;
    if (p && RED_ZONE) {
        unpoison(p, bytes);
        poison(p + bytes, taken - bytes);
    }
    return p;
}

void arena_release(Arena *a, size_t mark) {
    if (a->base && RED_ZONE && a->used > mark) poison(a->base + mark, a->used - mark);
    a->used = mark;
}
