/* config.h - the shape of one hybrid decoder: a Llama-like stack in which every layer names its token mixer.
 *
 * A teacher is the case "every layer softmax". Filled from a Hugging Face config.json by io/hf.c, or by hand in tests.
 * */
#ifndef HYB_CONFIG_H
#define HYB_CONFIG_H
#include <stddef.h>
#include "base/err.h"
#include "base/dtype.h"

enum { MAX_LAYERS = 512, MAX_EOS = 16 };

typedef enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 } RopeKind;
typedef struct {
    RopeKind kind;
    double theta;                       /* base, e.g. 10000 or 500000 */
    double factor, low_freq, high_freq; /* llama3: factor, low_freq_factor, high_freq_factor; linear: factor */
    int original;                       /* llama3: original_max_position_embeddings */
} Rope;

typedef struct {
    char family[24]; /* "llama", "qwen2", "qwen3", "mistral": what the softmax layers come from */
    /* width, layers, query heads, key/value heads, head size, ffn width, vocabulary */
    int C, L, H, Hk, D, F, VOC;
    int qkv_bias, o_bias, qk_norm, tied;
    int window; /* sliding window of softmax layers, 0 = none */
    /* sliding window of swa_v1 layers: key j is seen by query i when i - j < swa_window; 0 where there are none */
    int swa_window;
    int max_positions;
    double norm_eps;
    Rope rope;
    /* 1: softmax layers (not swa_v1) have no rotary embedding, so that no distance is new to them (NoPE) */
    int no_rope;
    /* a > 1: their queries are scaled by s_t = ln(t + a) / ln(a), t being the token's position, so that attention over
     * more keys is as sharp as over few; 0: off. Source: HypeNet (arXiv 2601.22156). */
    double logit_base;
    /* linear mixers: H heads of key and value size D each, so that q, k, v, o copy from the teacher */
    int conv_width; /* short convolution, gdn_v1 and v3: 4 */
    /* 1: linear layers keep the teacher's q/k/v biases (our own layout only; official drops them) */
    int linear_bias;
    /* of the mixers' output norm; = norm_eps in what we train, 1e-5 in official students */
    double o_norm_eps;
    int mixer[MAX_LAYERS];        /* index into the mixer table (mixer.h); 0 = softmax */
    int bos, eos[MAX_EOS], n_eos; /* -1 = none */
    DType dtype;                  /* of the checkpoint it came from: what saving writes by default */
} Config;

/* Is id one of the ends of text? */
int config_ends(const Config *c, int id);

/* Two models whose layers are exchanged: 1 and the first difference in what layers compute ("rope_theta: 500000 and
 * 10000"), 0 if there is none. Mixers, eps of mixers' output norms and token ids are not compared. A student may see
 * less than its teacher (window), not more. */
int config_difference(const Config *student, const Config *teacher, char *out, size_t cap);

/* Every precondition of the ops, checked once: positive sizes, H % Hk == 0, D even, limits (C, F <= 2^20, VOC <= 2^24,
 * L <= MAX_LAYERS, ...), known mixers, eps > 0 and finite, rope numbers finite. ERR_INPUT naming the field.
 * `where` is the file or "config". */
int config_check(const Config *c, const char *where, Err *e);

#endif
