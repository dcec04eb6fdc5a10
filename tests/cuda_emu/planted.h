/* planted.h - the emulator's own tests, from C: kernels with a planted bug, and what the emulator said. */
#ifndef PLANTED_H
#define PLANTED_H
#ifdef __cplusplus
extern "C" {
#endif
enum {
    NONE,
    MISSING_BARRIER,
    DIVERGENT_BARRIER,
    OUT_OF_BOUNDS,
    RACE,
    UNINITIALISED,
    WRONG_FRAGMENT,
    MISSING_WAIT,
    SHARED_OUTSIDE,
    DIVERGENT_SHUFFLE,
    WARP_RACE,
    COPY_RACE,
    BARRIER_NO_PROXY_FENCE,
    NO_PROXY_FENCE,
    WRONG_BYTES,
    PHASE_EARLY,
    PHASE_LATE,
    NO_COPY_WAIT,
    GROUP_STUCK,
    NO_GROUP_SYNC,
    NO_REGISTER_FENCE,
    NO_PRODUCT_WAIT,
    REGISTERS_WRITTEN,
    STORE_UNDER_WAY,
    EARLY_REFILL,
    WRONG_SWIZZLE,
    MISALIGNED_LOAD,
    MISALIGNED_STORE,
    MISALIGNED_COPY,
    SHARED_TOO_MUCH,
    SHARED_HOLE,
    TOO_MANY_REGISTERS,
    BEHIND_END,
    APPROXIMATE_EXP,
    PLANTS
};
enum { REVERSE, NEIGHBOUR, PRODUCT, PRODUCT_TF32, MATRICES, VOTES, TENSOR, LIMITS };
void planted_run(int bug, int which, void *y, const void *a, const void *b, int n);
/* Where wgmma reads element (row, k) of an operand whose panels begin at byte `at` of shared memory. */
unsigned planted_address(unsigned at, int mn_major, int row, int k, unsigned panel);
/* Host arrays end at a page that must not be touched. */
void *planted_alloc(unsigned long bytes);
void planted_free(void *p);
void planted_seed(unsigned long long seed);
int planted_errors(void); /* since the last planted_clear */
const char *planted_first(void);
void planted_clear(void);
void planted_name_faults(void); /* a fault prints the kernel's name */
unsigned long long planted_switches(void);
#ifdef __cplusplus
}
#endif
#endif
