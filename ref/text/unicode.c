#include "text/unicode.h"
#include <string.h>
#include "base/mem.h"
#include "base/utf8.h"

typedef struct {
    uint32_t first, last;
    unsigned char class;
} CccRange;
typedef struct {
    uint32_t c, first, second;
} Decomposition;
#include "text/unicode_tables.h"
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

const char *unicode_version(void) { return UNICODE_TABLES_VERSION; }

unsigned char_flags(uint32_t c) {
    if (c > 0x10FFFF) return 0;
    size_t lo = 0, hi = COUNT(runs), page = c >> 8;
    if (page < COUNT(pages)) lo = pages[page];
    if (page + 1 < COUNT(pages)) hi = (size_t)pages[page + 1] + 1;
    while (hi - lo > 1) {
        const size_t mid = lo + (hi - lo) / 2;
        if (runs[mid] >> 5 <= c) lo = mid;
        else hi = mid;
    }
    return runs[lo] & 31;
}

/* ---- UTF-8 ---- */

size_t utf8_decode(const char *s, size_t n, uint32_t *c) {
    const unsigned char *p = (const unsigned char *)s, b = p[0];
    unsigned lo = 0x80, hi = 0xBF; // allowed range of the second byte
    size_t len = 1;
    *c = b;
    if (b < 0x80) return 1;
    if (b >= 0xC2 && b <= 0xDF) len = 2, *c = b & 0x1F;
    else if (b >= 0xE0 && b <= 0xEF) len = 3, *c = b & 0x0F, lo = b == 0xE0 ? 0xA0 : lo, hi = b == 0xED ? 0x9F : hi;
    else if (b >= 0xF0 && b <= 0xF4) len = 4, *c = b & 0x07, lo = b == 0xF0 ? 0x90 : lo, hi = b == 0xF4 ? 0x8F : hi;
    for (size_t i = 1; i < len; i++) {
        if (i >= n || p[i] < lo || p[i] > hi) {
            *c = UTF8_BAD;
            return i;
        }
        *c = *c << 6 | (p[i] & 0x3F);
        lo = 0x80, hi = 0xBF;
    }
    if (len == 1) *c = UTF8_BAD;
    return len;
}

size_t utf8_encode(char out[4], uint32_t c) {
    if (c < 0x80) return out[0] = (char)c, 1;
    const size_t len = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = len; i-- > 1; c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((len == 2 ? 0xC0 : len == 3 ? 0xE0 : 0xF0) | c);
    return len;
}

int utf8_valid(const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    for (size_t i = 0, len; i < n; i += len)
        if (!(len = p[i] < 0x80 ? 1 : utf8_length(p + i, n - i))) return 0;
    return 1;
}

void utf8_repair(TextBuf *out, const char *s, size_t n) {
    uint32_t c;
    size_t good = 0;
    for (size_t i = 0, len; i < n; i += len) {
        len = utf8_decode(s + i, n - i, &c);
        if (c != UTF8_BAD) continue;
        textbuf_put(out, s + good, i - good);
        textbuf_puts(out, "\xEF\xBF\xBD");
        good = i + len;
    }
    textbuf_put(out, s + good, n - good);
}

/* ---- NFC: decompose, put marks in order of their class, compose ---- */

enum { // Hangul syllables are composed by arithmetic (Unicode 3.12)
    S_BASE = 0xAC00,
    L_BASE = 0x1100,
    V_BASE = 0x1161,
    T_BASE = 0x11A7,
    L_COUNT = 19,
    V_COUNT = 21,
    T_COUNT = 28,
    S_COUNT = L_COUNT * V_COUNT * T_COUNT
};

/* Characters of one cluster, each as combining class << 24 | code point; spare: for sorting. */
typedef struct {
    uint32_t *c, *spare;
    size_t n, cap, spare_cap;
} Cluster;
#define POINT(x) ((x)&0xFFFFFF)
#define CLASS(x) ((x) >> 24)

static uint32_t combining_class(uint32_t c) {
    size_t lo = 0, hi = COUNT(ccc_ranges);
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (c < ccc_ranges[mid].first) hi = mid;
        else if (c > ccc_ranges[mid].last) lo = mid + 1;
        else return ccc_ranges[mid].class;
    }
    return 0;
}

static int cluster_push(Cluster *cluster, uint32_t c, Err *e) {
    if (cluster->n == cluster->cap) {
        const size_t cap = cluster->cap * 2 + 32;
        TRY(mem_grow((void **)&cluster->c, cluster->cap * sizeof *cluster->c, cap * sizeof *cluster->c, "NFC", e));
        cluster->cap = cap;
    }
    cluster->c[cluster->n++] = combining_class(c) << 24 | c;
    return OK;
}

static int decompose(Cluster *cluster, uint32_t c, Err *e) {
    if (c - S_BASE < S_COUNT) { // unsigned: also false for c < S_BASE
        const uint32_t i = c - S_BASE, t = i % T_COUNT;
        TRY(cluster_push(cluster, L_BASE + i / T_COUNT / V_COUNT, e));
        TRY(cluster_push(cluster, V_BASE + i / T_COUNT % V_COUNT, e));
        return t ? cluster_push(cluster, T_BASE + t, e) : OK;
    }
    size_t lo = 0, hi = COUNT(decompositions);
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        const Decomposition *d = &decompositions[mid];
        if (c < d->c) hi = mid;
        else if (c > d->c) lo = mid + 1;
        else { // at most four levels deep, in the first part only
            TRY(decompose(cluster, d->first, e));
            return d->second ? cluster_push(cluster, d->second, e) : OK;
        }
    }
    return cluster_push(cluster, c, e);
}

/* The character that the pair composes to, or 0. */
static uint32_t compose_pair(uint32_t a, uint32_t b) {
    if (a - L_BASE < L_COUNT && b - V_BASE < V_COUNT) return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a - S_BASE < S_COUNT && (a - S_BASE) % T_COUNT == 0 && b - T_BASE - 1 < T_COUNT - 1) return a + (b - T_BASE);
    size_t lo = 0, hi = COUNT(compositions);
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        const Decomposition *d = &decompositions[compositions[mid]];
        if (d->first == a && d->second == b) return d->c;
        if (a < d->first || (a == d->first && b < d->second)) hi = mid;
        else lo = mid + 1;
    }
    return 0;
}

/* Stable sort of n marks by class: insertion for the usual few, counting for hostile runs (linear). */
static int marks_sort(Cluster *cluster, uint32_t *c, size_t n, Err *e) {
    if (n <= 16) {
        for (size_t i = 1; i < n; i++)
            for (size_t j = i; j > 0 && CLASS(c[j - 1]) > CLASS(c[j]); j--) {
                const uint32_t x = c[j];
                c[j] = c[j - 1];
                c[j - 1] = x;
            }
        return OK;
    }
    if (cluster->spare_cap < n) {
        TRY(mem_grow((void **)&cluster->spare, cluster->spare_cap * sizeof *c, n * sizeof *c, "NFC", e));
        cluster->spare_cap = n;
    }
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++) at[CLASS(c[i]) + 1]++;
    for (size_t i = 1; i < 257; i++) at[i] += at[i - 1];
    for (size_t i = 0; i < n; i++) cluster->spare[at[CLASS(c[i])]++] = c[i];
    memcpy(c, cluster->spare, n * sizeof *c);
    return OK;
}

static int cluster_order(Cluster *cluster, Err *e) {
    for (size_t i = 0, j; i < cluster->n; i = j + 1) {
        for (j = i; j < cluster->n && CLASS(cluster->c[j]);) j++;
        if (j - i > 1) TRY(marks_sort(cluster, cluster->c + i, j - i, e));
    }
    return OK;
}

/* A mark joins the last starter unless a kept mark of the same or a higher class stands between them. */
static void cluster_compose(Cluster *cluster) {
    size_t w = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < cluster->n; i++) {
        const uint32_t x = cluster->c[i];
        const int open = starter != SIZE_MAX && (w == starter + 1 || CLASS(cluster->c[w - 1]) < CLASS(x));
        const uint32_t joined = open ? compose_pair(POINT(cluster->c[starter]), POINT(x)) : 0;
        if (joined) {
            cluster->c[starter] = joined; // composites are starters: class 0
            continue;
        }
        if (!CLASS(x)) starter = w;
        cluster->c[w++] = x;
    }
    cluster->n = w;
}

static int cluster_normalize(Cluster *cluster, TextBuf *out, const char *s, size_t n, Err *e) {
    cluster->n = 0;
    uint32_t c;
    for (size_t i = 0; i < n;) {
        i += utf8_decode(s + i, n - i, &c);
        TRY(decompose(cluster, c, e));
    }
    TRY(cluster_order(cluster, e));
    cluster_compose(cluster);
    for (size_t i = 0; i < cluster->n; i++) {
        char u[4];
        textbuf_put(out, u, utf8_encode(u, POINT(cluster->c[i])));
    }
    return OK;
}

/* End of the stretch from i whose characters all are (unsafe = 1) or all are not (0) CHAR_NFC_UNSAFE; *last =
 * its last one. */
static size_t stretch(const char *s, size_t n, size_t i, int unsafe, size_t *last) {
    uint32_t c;
    while (i < n) {
        const size_t len = utf8_decode(s + i, n - i, &c);
        if ((c >= 0x300 && char_flags(c) & CHAR_NFC_UNSAFE) != unsafe) break;
        *last = i;
        i += len;
    }
    return i;
}

int nfc_is_certain(const char *s, size_t n) {
    size_t last = 0;
    return stretch(s, n, 0, 0, &last) == n;
}

/* A character that is not unsafe starts a cluster that nothing before it can change, so clusters are
 * independent. */
void nfc_normalize(TextBuf *out, const char *s, size_t n) {
    Cluster cluster = {0};
    for (size_t i = 0; i < n && !out->failed;) {
        size_t base = i, unused = 0;
        const size_t safe_end = stretch(s, n, i, 0, &base); // base: the last safe character, to which marks attach
        if (safe_end == n) base = n;
        textbuf_put(out, s + i, base - i);
        i = stretch(s, n, safe_end, 1, &unused);
        if (i > base && cluster_normalize(&cluster, out, s + base, i - base, NULL)) out->failed = 1;
    }
    mem_free(cluster.c);
    mem_free(cluster.spare);
}
