/* arena.h - one block of memory per lifetime (weights, gradients, optimiser, activations, scratch), cut into named
 * pieces.
 *
 * Use twice: with base == NULL the arena only counts, so the same "place" function first measures and then lays out:
 *     Arena a = {0};  acts_place(&p, &a);  backend alloc a.used;  arena_begin(&a, base, a.used);  acts_place(&p, &a);
 * Pieces are aligned to 64 bytes. With -DDEBUG, 64 bytes of red zone stand between pieces and ASan guards them (host
 * memory only). */
#ifndef HYB_ARENA_H
#define HYB_ARENA_H
#include <stddef.h>

typedef struct {
    char *base;   /* NULL while measuring                       */
    size_t cap;   /* bytes available; ignored while measuring   */
    size_t used;  /* bytes handed out so far, padding included  */
    int overflow; /* set when a request did not fit or overflowed size_t: check once after placing */
} Arena;

void arena_begin(Arena *a, void *base, size_t cap);
/* Next piece of n * size bytes; NULL while measuring or on overflow (then a->overflow is set). */
void *arena_take(Arena *a, size_t n, size_t size);
/* Scratch use: mark = a->used; ...; arena_release(a, mark). */
void arena_release(Arena *a, size_t mark);

#endif
