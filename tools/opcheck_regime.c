/* opcheck_regime.c - the one table of regimes: what inputs, sizes and gradients kernels go wrong on, by name. The tests
 * of every backend, `gradcheck --regime`, the emulator and the conformance pack all run this table. Most rows come from
 * bugs that other projects fixed. */
#include "tools/opcheck_parts.h"
#include <string.h>

#define SCANS  "delta_rule gla kda gdn_mixer gla_mixer kda_mixer"
#define DELTAS "delta_rule kda"
#define NORMS  "rmsnorm gated_rmsnorm sigmoid_rmsnorm l2norm"
#define GATES  "delta_gate kda_gate"
#define LOSSES "head_xent head_kl"
/* One chunk boundary of 64 and a rest, as the kernels have it; too large for differences. */
#define CHUNK64 "B=1 H=2 Hk=2 K=8 V=8 chunk=64 nodiff "

const Regime op_regimes[] = {
    {"no-decay", SCANS, {"decay=0 -start", CHUNK64 "T=130 decay=0 -start"}, "g = 0: the state forgets nothing", 0},
    {"weak-decay", SCANS, {"decay=-.001 -start", CHUNK64 "T=130 decay=-.001 -start"}, "g about -0.001", 0},
    {"decay-5", SCANS, {"decay=-5 -start", CHUNK64 "T=130 decay=-5 -start"}, "g about -5", 0},
    {"decay-20", SCANS, {"decay=-20 -start", CHUNK64 "T=130 decay=-20 -start"}, "g about -20", 0},
    {"decay-50", SCANS, {"decay=-50 -start", CHUNK64 "T=130 decay=-50 -start"}, "g about -50", 0},
    {"decay-200", SCANS, {"decay=-200 -start", CHUNK64 "T=130 decay=-200 -start"}, "g about -200: 0 in float", 0},
    {"mixed-decay", SCANS, {"decay=1 -start", CHUNK64 "T=130 decay=1 -start"}, "g from 0 to -200, side by side", 0},
    {"beta-0", DELTAS, {"beta=0 -start"}, "nothing is written", 0},
    {"beta-1", DELTAS, {"beta=1 -start", CHUNK64 "T=70 beta=1 -start"}, "what a key held is replaced", 0},
    {"beta-2",
     DELTAS,
     {"beta=2 -start", CHUNK64 "T=70 beta=2 -start"},
     "beta between 1 and 2: negative eigenvalues",
     0},
    {"keys-zero", SCANS, {"keys=0 -start"}, "k = 0", 0},
    {"keys-equal", SCANS, {"keys=1 -start", CHUNK64 "T=70 keys=1 beta=1 decay=0 -start"}, "one key for every token", 0},
    {"keys-orthogonal", SCANS, {"keys=2 -start"}, "no key touches another's", 0},
    {"keys-unnormalised", SCANS, {"keys=3 -start", CHUNK64 "T=70 keys=3 -start"}, "keys of length up to 1.4", 0},
    {"T-63", SCANS, {CHUNK64 "T=63 -start"}, "one token short of a chunk", 0},
    {"T-64", SCANS, {CHUNK64 "T=64 -start", CHUNK64 "T=128 -start"}, "whole chunks", 0},
    {"T-65", SCANS, {CHUNK64 "T=65 -start"}, "a chunk of one token at the end", 0},
    {"T-1", SCANS, {CHUNK64 "T=1 -start"}, "one token", 0},
    {"V-above-64",
     SCANS,
     {"B=1 T=20 K=8 V=80 chunk=16 nodiff", "B=1 T=20 K=8 V=129 chunk=16 nodiff"},
     "V > 64, > 128",
     0},
    {"K-not-V", SCANS, {"K=5 V=2", "K=2 V=6 -start", "B=1 T=70 K=24 V=40 chunk=64 nodiff"}, "K and V differ", 0},
    {"odd-sizes", SCANS, {"H=3 Hk=3 K=5 V=7", "B=1 T=70 H=1 Hk=1 K=67 V=33 chunk=64 nodiff"}, "no power of two", 0},
    {"grouped",
     SCANS,
     {"H=6 Hk=2 K=4 V=3", "B=1 T=70 H=6 Hk=3 K=8 V=8 chunk=64 nodiff"},
     "several heads read one key",
     0},
    {"upstream", SCANS, {"up=1000"}, "upstream gradients that are not about 1", 0},
    {"final-state",
     SCANS,
     {"up=0 -start", CHUNK64 "T=70 up=0 -start"},
     "an upstream gradient of the final state alone",
     0},
    {"no-state", SCANS, {"state=0 -start"}, "the initial state is 0, its gradient wanted", 0},
    {"large-state", SCANS, {"state=100 -start"}, "an initial state that outweighs the rest", 0},
    {"left-padding", SCANS " attention", {"pad=2", "pad=3 T=9"}, "row b begins with b + 2 tokens of padding", 0},
    {"documents", SCANS, {"T=40 chunk=16 nodiff", CHUNK64 "T=150"}, "documents packed into one row", 0},
    {"many-heads", SCANS, {"B=4096 H=17 Hk=17 K=1 V=1 T=2 chunk=2 nodiff -start"}, "65,535 heads x batch and more", 1},
    {"long", SCANS, {"B=1 H=1 Hk=1 K=8 V=8 T=4200 chunk=64 nodiff -start"}, "T = 4,200: several passes", 1},
    {"long-2200", SCANS, {"B=1 H=1 Hk=1 K=16 V=8 T=2200 chunk=64 nodiff -start"}, "T = 2,200", 1},

    {"upstream",
     NORMS " linear embed silu swiglu rope attention conv gla_gate " GATES,
     {"up=1000"},
     "upstream gradients that are not about 1",
     0},
    {"closed-gate",
     "gated_rmsnorm sigmoid_rmsnorm silu swiglu gla_gate " GATES,
     {"gate=0"},
     "inputs of gates are 0",
     0},
    {"wide-gate", "gated_rmsnorm sigmoid_rmsnorm silu swiglu gla_gate " GATES, {"gate=30"}, "gates shut and open", 0},
    {"odd-sizes", NORMS, {"N=3 C=67", "N=5 C=129", "N=2 C=1000 nodiff"}, "no power of two", 0},
    {"many-rows", NORMS, {"N=70000 C=3 nodiff"}, "65,535 rows and more", 1},
    {"many-rows", GATES, {"N=70000 H=1 nodiff"}, "65,535 rows and more", 1},
    {"many-rows", LOSSES, {"N=66000 C=2 VOC=3 block=1000 nodiff"}, "65,535 rows and more", 1},
    {"temperature", "head_kl", {"tau=.25", "tau=4", "tau=10 nodiff"}, "tau far from 1", 0},
    {"odd-sizes", LOSSES, {"N=3 C=7 VOC=131", "N=65 C=5 VOC=17 block=64"}, "no power of two", 0},
    {"odd-sizes", "embed", {"N=5 C=67 VOC=3", "N=3 C=129 VOC=2"}, "no power of two", 0},
    {"position", "rope", {"pos=100000"}, "offsets far from 0", 0},
    {"odd-sizes", "rope", {"H=5 D=10", "T=3 H=1 D=34"}, "no power of two", 0},
    {"many-heads", "rope", {"B=4096 T=1 H=17 D=2"}, "65,535 heads x batch and more", 1},

    {"V-above-64", "attention", {"B=1 T=20 H=2 Hk=2 D=80 nodiff", "B=1 T=20 H=2 Hk=1 D=128 nodiff"}, "D > 64", 0},
    {"odd-sizes", "attention", {"H=3 Hk=3 D=5", "B=1 T=70 H=1 Hk=1 D=67 nodiff"}, "no power of two", 0},
    {"grouped", "attention", {"H=6 Hk=2 D=4 -start", "H=6 Hk=1 D=4"}, "several heads read one key", 0},
    {"window",
     "attention",
     {"T=11 window=1 -start", "T=11 window=4", "B=1 T=70 window=64 -start"},
     "a sliding window",
     0},
    {"documents", "attention", {"T=40 nodiff", "B=1 T=150 H=2 nodiff"}, "documents packed into one row", 0},
    {"T-63", "attention", {"B=1 T=63 H=2 -start"}, "one token short of a block", 0},
    {"T-65", "attention", {"B=1 T=65 H=2 -start"}, "one token more than a block", 0},
    {"many-heads", "attention", {"B=4096 T=1 H=17 Hk=17 D=1 nodiff -start"}, "65,535 heads x batch and more", 1},
    {"long", "attention", {"B=1 T=2200 H=1 Hk=1 D=4 nodiff -start"}, "T = 2,200", 1},

    {"short",
     "conv",
     {"T=1 -tail_in", "T=2 -tail_in", "T=3 -tail_in", "T=2 W=8 -tail_in", "T=1", "T=3"},
     "T below the convolution's width",
     0},
    {"documents", "conv", {"T=40 -tail_in"}, "documents packed into one row", 0},
    {"odd-sizes", "conv", {"C=67 -tail_in", "C=3 W=7 -tail_in"}, "no power of two", 0},
    {"many-rows", "conv", {"B=4096 T=17 C=1 -tail_in nodiff"}, "65,535 tokens and more", 1},
};
const int op_regime_count = sizeof op_regimes / sizeof *op_regimes;

/* One word of a list separated by blanks? */
int word_listed(const char *list, const char *word) {
    const size_t n = strlen(word);
    for (const char *p = list; p && (p = strstr(p, word)); p += n)
        if ((p == list || p[-1] == ' ') && (!p[n] || p[n] == ' ')) return 1;
    return 0;
}
int regime_has(const Regime *r, const char *op) { return word_listed(r->ops, op); }
const char *opcheck_regime(int i) { return i >= 0 && i < op_regime_count ? op_regimes[i].name : NULL; }
const char *opcheck_regime_what(int i) { return i >= 0 && i < op_regime_count ? op_regimes[i].what : NULL; }
int opcheck_regime_has(int i, const char *op) {
    return i >= 0 && i < op_regime_count && regime_has(&op_regimes[i], op);
}
