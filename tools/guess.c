/* guess.c - what may be wrong with a tensor, from where and how it differs. Each hypothesis is tried on the numbers and
 * named only if it explains nearly all of the error; else the text stays empty. */
#include "tools/oracle.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double EXPLAINED = 0.02; /* of the error that is left when a hypothesis holds */

static double norm(const double *x, size_t n) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += x[i] * x[i];
    return sqrt(s);
}

static int axis_of(const OracleTensor *t, const char *letter) {
    const char *s = t->letters;
    for (int d = 0; d < t->rank; d++) {
        const size_t n = strcspn(s, ".");
        if (strlen(letter) == n && !memcmp(s, letter, n)) return d;
        s += n + (s[n] == '.');
    }
    return -1;
}
static void axis_name(char *dst, size_t cap, const OracleTensor *t, int axis) {
    const char *s = t->letters;
    for (int d = 0; d < axis; d++) s += strcspn(s, ".") + 1;
    snprintf(dst, cap, "%.*s", (int)strcspn(s, "."), s);
}
static size_t stride_of(const OracleTensor *t, int axis) {
    size_t s = 1;
    for (int d = axis + 1; d < t->rank; d++) s *= (size_t)t->dims[d];
    return s;
}

/* ---- one number times the truth ---- */
static int factor(char *dst, size_t cap, const OracleTensor *t, const double *a, double up) {
    double ar = 0, rr = 0, left = 0;
    for (size_t i = 0; i < t->count; i++) ar += a[i] * t->value[i], rr += t->value[i] * t->value[i];
    if (rr == 0 || t->count < 2) return 0;
    const double c = ar / rr;
    for (size_t i = 0; i < t->count; i++) left += (a[i] - c * t->value[i]) * (a[i] - c * t->value[i]);
    if (norm(a, t->count) == 0) return snprintf(dst, cap, "all zero"), 1;
    if (sqrt(left) > EXPLAINED * fabs(c - 1) * sqrt(rr) || sqrt(left) > EXPLAINED * fabs(c) * sqrt(rr)) return 0;
    if (fabs(c + 1) < EXPLAINED) snprintf(dst, cap, "sign: minus the truth");
    else if (!isnan(up) && up > 0 && fabs(c * up - 1) < EXPLAINED)
        snprintf(dst, cap, "constant factor 1/%g: the upstream gradient is ignored", up);
    else snprintf(dst, cap, "constant factor %.6g", c);
    return 1;
}

/* ---- another order of the same numbers ---- */
/* The element of a that stands for element i of the truth when a was written with axes x < y exchanged. */
static size_t exchanged(const OracleTensor *t, size_t i, int x, int y) {
    int index[ORACLE_RANK], dims[ORACLE_RANK];
    for (int d = t->rank - 1; d >= 0; d--)
        index[d] = (int)(i % (size_t)t->dims[d]), i /= (size_t)t->dims[d], dims[d] = t->dims[d];
    const int n = index[x], m = dims[x];
    index[x] = index[y], index[y] = n;
    dims[x] = dims[y], dims[y] = m;
    for (int d = 0; d < t->rank; d++) i = i * (size_t)dims[d] + (size_t)index[d];
    return i;
}
static int transposed(char *dst, size_t cap, const OracleTensor *t, const double *a, double whole) {
    for (int x = 0; x < t->rank; x++)
        for (int y = x + 1; y < t->rank; y++) {
            double left = 0;
            char from[16], to[16];
            if (t->dims[x] < 2 || t->dims[y] < 2) continue;
            for (size_t i = 0; i < t->count; i++) left += pow(a[exchanged(t, i, x, y)] - t->value[i], 2);
            if (sqrt(left) > EXPLAINED * whole) continue;
            axis_name(from, sizeof from, t, x), axis_name(to, sizeof to, t, y);
            return snprintf(dst, cap, "transposed: axes %s and %s are exchanged", from, to), 1;
        }
    return 0;
}
/* a of token n is the truth of token n - by. */
static int shifted(char *dst, size_t cap, const OracleTensor *t, const double *a, double whole) {
    const int axis = axis_of(t, "T");
    if (axis < 0 || t->dims[axis] < 3) return 0;
    const size_t stride = stride_of(t, axis), T = (size_t)t->dims[axis];
    for (int by = -1; by <= 1; by += 2) {
        double left = 0;
        for (size_t i = 0; i < t->count; i++) {
            const size_t n = i / stride % T;
            if ((by > 0 && n > 0) || (by < 0 && n + 1 < T))
                left += pow(a[i] - t->value[by > 0 ? i - stride : i + stride], 2);
        }
        if (sqrt(left) <= EXPLAINED * whole) return snprintf(dst, cap, "one token %s", by > 0 ? "late" : "early"), 1;
    }
    return 0;
}
/* Heads in another order: h * n mod H, as where groups were tiled and not interleaved. */
static int tiled(char *dst, size_t cap, const OracleTensor *t, const double *a, double whole) {
    const int axis = axis_of(t, "H");
    if (axis < 0 || t->dims[axis] < 4) return 0;
    const size_t stride = stride_of(t, axis), H = (size_t)t->dims[axis];
    for (size_t n = 2; n < H; n++) {
        double left = 0;
        if (H % n) continue;
        for (size_t i = 0; i < t->count; i++) {
            const size_t h = i / stride % H, other = h % n * (H / n) + h / n;
            left += pow(a[i - h * stride + other * stride] - t->value[i], 2);
        }
        if (sqrt(left) <= EXPLAINED * whole)
            return snprintf(dst, cap, "heads are tiled in groups of %zu, not interleaved", n), 1;
    }
    return 0;
}

/* ---- only a part is wrong ---- */
static int wrong(const OracleTensor *t, const double *a, size_t i, double rms) {
    return !(fabs(a[i] - t->value[i]) <= 4 * t->tolerance * fmax(fabs(t->value[i]), rms));
}
/* Along an axis: the wrong positions, as words, if they are a part of all. */
static int part(char *dst, size_t cap, const OracleTensor *t, const double *a, double rms, const char *letter,
                const char *noun) {
    enum { MOST = 8192 };
    unsigned char bad[MOST] = {0};
    const int axis = axis_of(t, letter);
    if (axis < 0 || t->dims[axis] < 2 || t->dims[axis] > MOST) return 0;
    const size_t n = (size_t)t->dims[axis], stride = stride_of(t, axis);
    size_t count = 0, first = n, last = 0, used;
    for (size_t i = 0; i < t->count; i++) bad[i / stride % n] |= (unsigned char)wrong(t, a, i, rms);
    for (size_t i = 0; i < n; i++)
        if (bad[i]) count++, last = i, first = first == n ? i : first;
    if (!count || count == n) return 0;
    used = strlen(dst);
    const char *comma = used ? ", " : "only ";
    if (count == 1) snprintf(dst + used, cap - used, "%s%s %zu", comma, noun, first);
    else if (count == last - first + 1 && last == n - 1)
        snprintf(dst + used, cap - used, "%s%ss >= %zu", comma, noun, first);
    else if (count == last - first + 1 && !first)
        snprintf(dst + used, cap - used, "%s%ss < %zu", comma, noun, last + 1);
    else if (count == last - first + 1) snprintf(dst + used, cap - used, "%s%ss %zu to %zu", comma, noun, first, last);
    else snprintf(dst + used, cap - used, "%s%zu of %zu %ss, the first %zu", comma, count, n, noun, first);
    return 1;
}
/* Every wrong token belongs to a document that begins after token 0: something of the one before is left in it. */
static int later_documents(char *dst, size_t cap, const OracleTensor *t, const double *a, double rms,
                           const double *start) {
    const int T = axis_of(t, "T"), B = axis_of(t, "B");
    if (!start || T < 0 || B != 0) return 0;
    const size_t stride = stride_of(t, T), n = (size_t)t->dims[T], batch = stride_of(t, B);
    size_t bad = 0;
    for (size_t i = 0; i < t->count; i++) {
        if (!wrong(t, a, i, rms)) continue;
        if (start[i / batch * n + i / stride % n] == 0) return 0;
        bad++;
    }
    return bad ? snprintf(dst, cap, "only tokens of later documents: a boundary leaks"), 1 : 0;
}

void oracle_guess(char *dst, size_t cap, const OracleTensor *t, const double *a, const double *start, double up) {
    double error = 0, largest = 0, wrongs = 0;
    dst[0] = 0;
    if (!t->count) return;
    const double whole = norm(t->value, t->count), rms = whole / sqrt((double)t->count);
    size_t infinite = 0;
    for (size_t i = 0; i < t->count; i++) infinite += !isfinite(a[i]);
    if (!infinite) {
        if (factor(dst, cap, t, a, up) || transposed(dst, cap, t, a, whole) || shifted(dst, cap, t, a, whole) ||
            tiled(dst, cap, t, a, whole))
            return;
        for (size_t i = 0; i < t->count; i++) {
            const double e = fabs(a[i] - t->value[i]);
            error += e * e, largest = fmax(largest, e), wrongs += wrong(t, a, i, rms);
        }
    }
    static const char *const axes[][2] = {
        {"T", "token"},         {"NC1", "chunk"},     {"H", "head"},    {"Hk", "key head"},
        {"V", "value channel"}, {"K", "key channel"}, {"D", "channel"}, {"C", "channel"},
        {"B", "batch"},         {"N", "row"},         {"W", "tap"}};
    if (!infinite && later_documents(dst, cap, t, a, rms, start)) return;
    for (size_t i = 0; i < sizeof axes / sizeof *axes; i++) part(dst, cap, t, a, rms, axes[i][0], axes[i][1]);
    if (dst[0]) return;
    const double rel = sqrt(error) / whole;
    if (infinite || whole == 0 || rel > 0.05) return;
    const double evenly = sqrt(error / (double)t->count);
    if (largest < 8 * evenly) snprintf(dst, cap, "noise, as of arithmetic with a unit of %.0e", rel);
}
