/* opcheck_case.c - a case: the numbers behind the letters of the contract, tensor shapes made of them, and the inputs.
 * */
#include "base/hash.h"
#include "base/mem.h"
#include "tools/opcheck_parts.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- keys ---- */

static int key_find(const OpCase *c, const char *name, size_t len) {
    for (int i = 0; i < c->keys; i++)
        if (strlen(c->key[i].name) == len && !memcmp(c->key[i].name, name, len)) return i;
    return -1;
}

double opcase_key(const OpCase *c, const char *key) {
    const int i = key_find(c, key, strlen(key));
    if (i >= 0) return c->key[i].value;
    if (key[0] >= '0' && key[0] <= '9') return strtod(key, NULL);
    if (!strcmp(key, "Tk")) return opcase_key(c, "past") + opcase_key(c, "T");
    if (!strcmp(key, "S")) return opcase_key(c, "stride") > 0 ? opcase_key(c, "stride") : opcase_key(c, "Tk");
    if (!strcmp(key, "NC1")) return ceil(opcase_key(c, "T") / opcase_key(c, "chunk")) + 1;
    if (!strcmp(key, "W-1")) return opcase_key(c, "W") - 1;
    if (!strcmp(key, "P")) return opcase_key(c, "pos") + opcase_key(c, "T");
    if (!strcmp(key, "K+8")) return opcase_key(c, "K") + 8; // K products, and about eight other roundings a token
    if (!strcmp(key, "D/2")) return opcase_key(c, "D") / 2;
    if (!strcmp(key, "N")) return opcase_key(c, "B") * opcase_key(c, "T"); // gates inside a mixer
    return NAN;
}

static const struct {
    const char *name;
    size_t at;
    double lo, hi;
} properties[] = {
    {"decay", offsetof(Property, decay), -1e6, 1}, {"beta", offsetof(Property, beta), 0, 2},
    {"keys", offsetof(Property, keys), 0, 3},      {"up", offsetof(Property, up), 0, 1e6},
    {"state", offsetof(Property, state), 0, 1e6},  {"pad", offsetof(Property, pad), 0, 1e6},
    {"gate", offsetof(Property, gate), 0, 1e3},
};
enum { PROPERTIES = sizeof properties / sizeof *properties };
static double *property(OpCase *c, int i) { return (double *)((char *)&c->is + properties[i].at); }
static int property_find(const OpCase *c, const char *name, size_t len) {
    for (int i = 0; i < PROPERTIES; i++)
        if (strlen(properties[i].name) == len && !memcmp(properties[i].name, name, len) && key_find(c, name, len) < 0)
            return i;
    return -1;
}

/* Next word of *s, cut at cap - 1 characters; 0 at the end. Words are separated by characters of `between`. */
static int word_next(const char **s, const char *between, char *word, size_t cap) {
    *s += strspn(*s, between);
    const size_t n = strcspn(*s, between);
    snprintf(word, cap, "%.*s", (int)n, *s);
    *s += n;
    return n > 0;
}

double opcase_product(const OpCase *c, const char *keys) {
    double p = 1;
    char word[16];
    while (word_next(&keys, ".", word, sizeof word)) p *= opcase_key(c, word);
    return p;
}

int opcase_find(const OpCase *c, const char *tensor) {
    for (int i = 0; i < c->tensors; i++)
        if (!strcmp(c->tensor[i].name, tensor)) return i;
    return -1;
}

static int key_bad(const OpCase *c, const char *word, Err *e) {
    err_set(e, ERR_USAGE, "%s: shape: got \"%s\", expected KEY=NUMBER or -TENSOR", c->row->name, word);
    return err_hint(e, "keys and defaults: %s", c->row->keys);
}

/* "N=3 I=4 -b". `define`: these are the row's own keys. */
static int keys_read(OpCase *c, const char *s, int define, Err *e) {
    char word[64];
    while (s && word_next(&s, " ,", word, sizeof word)) {
        if (word[0] == '-') {
            const int i = opcase_find(c, word + 1);
            if (i < 0 || !c->tensor[i].optional) return key_bad(c, word, e);
            c->absent |= 1u << i;
            continue;
        }
        if (!strcmp(word, "nodiff")) { // too curved, or too large, for differences
            c->nodiff = 1;
            continue;
        }
        char *equals = strchr(word, '='), *end = word;
        if (!equals) return key_bad(c, word, e);
        const double v = strtod(equals + 1, &end);
        if (*end || end == equals + 1 || !isfinite(v)) return key_bad(c, word, e);
        int i = define ? -1 : property_find(c, word, (size_t)(equals - word));
        if (i >= 0) {
            if (!(v >= properties[i].lo && v <= properties[i].hi)) return key_bad(c, word, e);
            *property(c, i) = v;
            continue;
        }
        i = key_find(c, word, (size_t)(equals - word));
        if (i < 0) {
            if (!define || c->keys == MAX_KEYS) return key_bad(c, word, e);
            i = c->keys++;
            snprintf(c->key[i].name, sizeof c->key[i].name, "%.*s", (int)(equals - word), word);
        }
        c->key[i].value = v;
    }
    return OK;
}

/* Preconditions of the contract that a user's --shape could break. */
static int keys_check(const OpCase *c, Err *e) {
    static const struct {
        const char *key;
        double lo, hi;
    } range[] = {
        {"n", 1, 1e8},   {"N", 1, 1e6},    {"B", 1, 4096},     {"T", 1, 1e6},     {"H", 1, 4096},    {"Hk", 1, 4096},
        {"D", 1, 1024},  {"C", 1, 1e6},    {"Ct", 1, 1e6},     {"I", 1, 1e6},     {"O", 1, 1e6},     {"K", 1, 1024},
        {"V", 1, 1024},  {"VOC", 1, 1e7},  {"W", 1, 8},        {"chunk", 1, 256}, {"block", 1, 1e6}, {"past", 0, 1e6},
        {"pos", 0, 1e6}, {"step", 1, 1e9}, {"tau", 1e-3, 1e3},
    };
    for (size_t i = 0; i < sizeof range / sizeof *range; i++) {
        const double v = opcase_key(c, range[i].key);
        if (!isnan(v) && !(v >= range[i].lo && v <= range[i].hi))
            return err_set(e, ERR_USAGE, "%s: shape: got %s=%g, expected %g to %g", c->row->name, range[i].key, v,
                           range[i].lo, range[i].hi);
    }
    if (fmod(opcase_key(c, "H"), opcase_key(c, "Hk")) != 0 && opcase_key(c, "Hk") > 0)
        return err_set(e, ERR_USAGE, "%s: shape: got H=%g Hk=%g, expected Hk to divide H", c->row->name,
                       opcase_key(c, "H"), opcase_key(c, "Hk"));
    if (!strcmp(c->row->name, "rope") && fmod(opcase_key(c, "D"), 2) != 0)
        return err_set(e, ERR_USAGE, "rope: shape: got D=%g, expected an even number", opcase_key(c, "D"));
    if (opcase_key(c, "stride") > 0 && opcase_key(c, "stride") < opcase_key(c, "Tk"))
        return err_set(e, ERR_USAGE, "%s: shape: got stride=%g, expected 0 or at least past + T", c->row->name,
                       opcase_key(c, "stride"));
    return OK;
}

/* ---- tensors ---- */

static int name_index(const char *word, const char *const *names) {
    int i = 0;
    while (names[i] && strcmp(names[i], word)) i++;
    return i;
}

/* One word of a tensor's description, the n-th. */
static void tensor_word(TensorRow *t, int n, const char *word) {
    static const char *const kinds[] = {"real", "wide", "int", "double", NULL};
    static const char *const roles[] = {"in", "out", "saved", "cot", "grad", "over", "work", NULL};
    static const char *const draws[] = {"",        "plain", "normal", "wild",    "near_one",  "decay", "beta",
                                        "unit",    "ids",   "starts", "weight",  "target",    "a_log", "angles",
                                        "squares", "cache", "like_t", "gate_in", "gate_bias", NULL};
    char role[24];
    const char *s = word;
    if (n == 0) {
        snprintf(t->name, sizeof t->name, "%.*s", (int)strcspn(word, "?"), word);
        t->optional = strchr(word, '?') != NULL;
        if (!strcmp(word, "work")) t->role = WORK;
    } else if (n == 1) t->kind = (Kind)name_index(word, kinds);
    else if (n == 2) {
        word_next(&s, ":", role, sizeof role);
        t->role = (Role)name_index(role, roles);
        word_next(&s, ":", t->of, sizeof t->of);
    } else if (n == 3) snprintf(t->shape, sizeof t->shape, "%s", word);
    else if (!strncmp(word, "n=", 2)) snprintf(t->terms, sizeof t->terms, "%s", word + 2);
    else t->draw = (Draw)name_index(word, draws);
}

static void tensors_read(OpCase *c, const char *s) {
    char tensor[96], word[24];
    while (c->tensors < MAX_TENSORS && word_next(&s, ";", tensor, sizeof tensor)) {
        const char *w = tensor;
        for (int n = 0; word_next(&w, " ", word, sizeof word); n++) tensor_word(&c->tensor[c->tensors], n, word);
        c->tensors++;
    }
}

static int tensors_place(OpCase *c, Err *e) {
    for (int i = 0; i < c->tensors; i++) {
        const TensorRow *t = &c->tensor[i];
        const char *s = t->shape;
        char word[16];
        double n = 1;
        if (t->role == WORK) {
            c->count[i] = (c->row->work(c) + 7) / 8;
            continue;
        }
        while (word_next(&s, ".", word, sizeof word)) {
            c->dims[i][c->rank[i]++] = (int)opcase_key(c, word);
            n *= opcase_key(c, word);
        }
        if (!(n >= 0 && n < 1e9))
            return err_set(e, ERR_USAGE, "%s: shape: tensor %s would have %g elements", c->row->name, t->name, n);
        c->count[i] = (size_t)n;
        if (t->role == IN || t->role == COT) {
            void *p;
            TRY(mem_alloc(&p, c->count[i] * sizeof(double), t->name, e));
            c->value[i] = p;
        }
    }
    return OK;
}

static void case_text(OpCase *c) {
    size_t used = 0;
    for (int i = 0; i < c->keys && used < sizeof c->text; i++)
        used += (size_t)snprintf(c->text + used, sizeof c->text - used, "%s%s=%g", i ? " " : "", c->key[i].name,
                                 c->key[i].value);
    for (int i = 0; i < PROPERTIES && used < sizeof c->text; i++)
        if (!isnan(*property(c, i)))
            used +=
                (size_t)snprintf(c->text + used, sizeof c->text - used, " %s=%g", properties[i].name, *property(c, i));
    for (int i = 0; i < c->tensors && used < sizeof c->text; i++)
        if (!opcase_has(c, i))
            used += (size_t)snprintf(c->text + used, sizeof c->text - used, " -%s", c->tensor[i].name);
}

int opcase_open(OpCase *c, const OpRow *row, const char *table, const char *user, unsigned absent, Err *e) {
    memset(c, 0, sizeof *c);
    c->row = row;
    tensors_read(c, row->tensors);
    c->absent = absent;
    for (int i = 0; i < PROPERTIES; i++) *property(c, i) = NAN;
    int rc = keys_read(c, row->keys, 1, e);
    if (!rc) rc = keys_read(c, table, 0, e);
    if (!rc) rc = keys_read(c, user, 0, e);
    if (!rc) rc = keys_check(c, e);
    if (!rc) rc = tensors_place(c, e);
    if (rc) return opcase_close(c), rc;
    case_text(c);
    return OK;
}

void opcase_close(OpCase *c) {
    for (int i = 0; i < MAX_TENSORS; i++) mem_free(c->value[i]);
    memset(c, 0, sizeof *c);
}

int opcase_backward(const OpCase *c) {
    if (!c->row->backward) return 0;
    if (!c->row->forward_only_with) return 1;
    const int i = opcase_find(c, c->row->forward_only_with);
    return i >= 0 ? !opcase_has(c, i) : opcase_key(c, c->row->forward_only_with) == 0;
}

/* ---- inputs ----
 * `hard` 0: ordinary numbers. 1: extremes that the contract allows, mixed: zero rows, large and tiny rows, gates of 0
 * and -1e4, beta 0 and 1, weights that are 0. 2: all equal (zeros; no decay; beta 1). 3: gates all closed. */

static double draw_hard_row(Rng *g) {
    const double scale[] = {0, 30, 1e-2, 1};
    return scale[rng_below(g, 4)];
}

static double draw_decay(double decay, double z, double u, Rng *g) {
    static const double mixed[] = {0, -1e-3, -0.1, -1, -5, -20, -50, -200};
    return decay > 0 ? mixed[rng_below(g, 8)] * (0.9 + 0.2 * u) : decay * (1 + 0.05 * fmax(-2, fmin(2, z)));
}

static double draw_one(const OpCase *c, Draw draw, int hard, Rng *g) {
    static const double decay[] = {0, -1e4, -1e-4, -20, -1}, beta[] = {0, 1, 1e-6, 0.5}, wild[] = {0, 1, 30, 200, 1e3};
    const double z = rng_normal(g), u = rng_uniform(g), normalizer = opcase_key(c, "normalizer");
    switch (draw) {
    case WILD:
        return hard == 1 ? copysign(wild[rng_below(g, 5)], z) * (0.5 + u) : isnan(c->is.gate) ? z : c->is.gate * z;
    case NEAR_ONE:
        return hard == 1 && u < 0.3 ? 0 : 1 + 0.3 * z;
    case DECAY:
        if (!isnan(c->is.decay)) return draw_decay(c->is.decay, z, u, g);
        return hard == 3 ? -1e4 : hard == 2 ? 0 : hard == 1 ? decay[rng_below(g, 5)] : -0.3 * fabs(z);
    case BETA:
        if (!isnan(c->is.beta)) return c->is.beta == 2 ? 1 + u : c->is.beta;
        return hard == 2 ? 1 : hard == 1 ? beta[rng_below(g, 4)] : 0.05 + 0.9 * u;
    case WEIGHT:
        return u < 0.3 ? 0 : hard == 2 ? 1 : 0.2 + fabs(z);
    case A_LOG: // up to e^4 times softplus
        if (!isnan(c->is.decay)) return c->is.decay > 0 ? log(16) : log(fmax(-c->is.decay, 1e-9) / 3) + 0.05 * z;
        return hard == 1 ? -7 + 11 * u : log(0.1 + 4 * u);
    case GATE_IN: // of a decay: softplus(3) is about 3, logsigmoid(x) about x
        if (isnan(c->is.decay)) return z;
        if (c->is.decay > 0)
            return isnan(normalizer) ? (u < 0.1 ? 3 : -7) + 0.1 * z : (u < 0.1 ? -50 : -.1) * normalizer;
        return isnan(normalizer) ? 0.3 * z : normalizer * c->is.decay * (1 + 0.05 * z) + (c->is.decay > -1 ? 20 : 0);
    case GATE_BIAS:
        return isnan(c->is.decay) ? z : c->is.decay > 0 ? 0 : 3 + 0.1 * z;
    case SQUARES:
        return hard == 2 ? 0 : z * z;
    default:
        return z;
    }
}

static void draw_starts(double *v, const int *dims, int T, double pad, Rng *g) {
    for (int b = 0; b < dims[0]; b++)
        for (int t = 0, begin = 0; t < T; t++) {
            if (!isnan(pad)) begin = t >= pad + b && t > 0 ? (int)pad + b : 0;
            else if (t > 0 && (rng_below(g, 5) == 0 || (b == 1 && t == 1))) begin = t; // also documents of one token
            v[(size_t)b * T + t] = begin;
        }
}

static void draw_angles(double *v, size_t pairs, Rng *g) {
    for (size_t i = 0; i < pairs; i++) {
        const double a = 6.3 * rng_uniform(g);
        v[2 * i] = cos(a), v[2 * i + 1] = sin(a);
    }
}

static void draw_rows(const OpCase *c, int i, int hard, Rng *g) {
    const TensorRow *t = &c->tensor[i];
    const size_t width = c->rank[i] ? (size_t)c->dims[i][c->rank[i] - 1] : 1;
    double *v = c->value[i];
    for (size_t n = 0; n < c->count[i]; n += width) {
        const double scale = t->draw == NORMAL && hard == 1                    ? draw_hard_row(g)
                             : hard == 2 && t->draw == NORMAL && t->role == IN ? 0
                                                                               : 1;
        double square = 0;
        for (size_t k = n; k < n + width; k++) {
            v[k] = scale * draw_one(c, t->draw, hard, g);
            square += v[k] * v[k];
        }
        for (size_t k = n; t->draw == UNIT && k < n + width; k++) v[k] /= sqrt(square);
    }
}

/* Keys of a kind: row n of k is token n / Hk, head n % Hk. */
static void draw_keys(const OpCase *c, int i, Rng *g) {
    const size_t K = (size_t)opcase_key(c, "K"), Hk = (size_t)opcase_key(c, "Hk");
    double *v = c->value[i];
    for (size_t n = 0; n < c->count[i] / K; n++) {
        const double length = 0.5 + 0.9 * rng_uniform(g);
        for (size_t a = 0; a < K; a++) {
            double *x = &v[n * K + a];
            if (c->is.keys == 0) *x = 0;
            else if (c->is.keys == 1) *x = v[n % Hk * K + a];
            else if (c->is.keys == 2) *x = a == n / Hk % K;
            else *x *= length;
        }
    }
}

/* What the case says of whole tensors. */
static void draw_properties(OpCase *c, int i, Rng *g) {
    const TensorRow *t = &c->tensor[i];
    double by = 1;
    if (!strcmp(t->name, "k") && t->draw != CACHE && !isnan(c->is.keys)) draw_keys(c, i, g);
    if (!strcmp(t->name, "S0") && !isnan(c->is.state)) by = c->is.state;
    if (t->role == COT && !isnan(c->is.up)) by = c->is.up > 0 ? c->is.up : !strcmp(t->of, "final");
    for (size_t n = 0; by != 1 && n < c->count[i]; n++) c->value[i][n] *= by;
}

/* Tokens to predict: where the row's weight is 0 the target is not read, so it is one that must not be. */
static void draw_targets(const OpCase *c, int i, Rng *g) {
    const int w = opcase_find(c, "weight");
    for (size_t n = 0; n < c->count[i]; n++) {
        c->value[i][n] = (double)rng_below(g, (uint64_t)opcase_key(c, "VOC"));
        if (opcase_has(c, w) && c->value[w][n] == 0) c->value[i][n] = -1000000000;
    }
}

/* Cache rows that no query may look at: (B,S,Hk,D) with S > Tk. */
static void draw_cache(const OpCase *c, int i, Rng *g) {
    const size_t S = (size_t)c->dims[i][1], row = c->count[i] / S / (size_t)c->dims[i][0],
                 Tk = (size_t)opcase_key(c, "Tk");
    for (size_t k = 0; k < c->count[i]; k++) c->value[i][k] = k / row % S < Tk ? rng_normal(g) : 1e4;
}

static void draw_tensor(OpCase *c, int i, Rng *g) {
    const TensorRow *t = &c->tensor[i];
    const double key = opcase_key(c, "hard");
    const int hard = isnan(key) ? 0 : (int)key;
    double *v = c->value[i];
    switch (t->draw) {
    case IDS:
        for (size_t k = 0; k < c->count[i]; k++) v[k] = (double)rng_below(g, (uint64_t)opcase_key(c, "VOC"));
        break;
    case STARTS:
        draw_starts(v, c->dims[i], c->dims[i][1], c->is.pad, g);
        break;
    case ANGLES:
        draw_angles(v, c->count[i] / 2, g);
        break;
    case TARGET:
        draw_targets(c, i, g);
        break;
    case CACHE:
        draw_cache(c, i, g);
        break;
    case LIKE_T: { // like t, and equal to it in every second row when hard
        const double *like = c->value[opcase_find(c, "t")];
        const size_t width = (size_t)c->dims[i][1];
        for (size_t k = 0; k < c->count[i]; k++)
            v[k] = hard && k / width % 2 == 0 ? like[k] : like[k] + 0.5 * rng_normal(g);
        break;
    }
    default:
        draw_rows(c, i, hard, g);
    }
}

void opcase_draw(OpCase *c, uint64_t seed) {
    for (int i = 0; i < c->tensors; i++) {
        Rng g;
        const char *name = c->tensor[i].name;
        if (!c->value[i]) continue;
        rng_seed3(&g, seed, hash_bytes(1, c->row->name, strlen(c->row->name)), hash_bytes(2, name, strlen(name)));
        draw_tensor(c, i, &g);
        draw_properties(c, i, &g);
    }
}
