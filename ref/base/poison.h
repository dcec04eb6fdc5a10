/* poison.h - tells AddressSanitizer which bytes must not be touched; nothing at all in an ordinary build. */
#ifndef HYB_POISON_H
#define HYB_POISON_H
#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HYB_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define HYB_ASAN 1
#endif

#ifdef HYB_ASAN
#include <sanitizer/asan_interface.h>
static inline void poison(const void *p, size_t n) { __asan_poison_memory_region(p, n); }
static inline void unpoison(const void *p, size_t n) { __asan_unpoison_memory_region(p, n); }
#else
static inline void poison(const void *p, size_t n) { (void)p, (void)n; }
static inline void unpoison(const void *p, size_t n) { (void)p, (void)n; }
#endif

#endif
