/* planted_all.cc - planted.cu once per bug, each in a namespace of its own. planted_run[bug] drives it. */
#include "mma.h"
#include "planted.h"
#define PLANT 0
namespace plant0 {
#include "planted.cu"
}
#undef PLANT
#define PLANT 1
namespace plant1 {
#include "planted.cu"
}
#undef PLANT
#define PLANT 2
namespace plant2 {
#include "planted.cu"
}
#undef PLANT
#define PLANT 3
namespace plant3 {
#include "planted.cu"
}
#undef PLANT
#define PLANT 4
namespace plant4 {
#include "planted.cu"
}
#undef PLANT
#define PLANT 5
namespace plant5 {
#include "planted.cu"
}
#undef PLANT
#define PLANT 6
namespace plant6 {
#include "planted.cu"
}
#undef PLANT
#define PLANT 7
namespace plant7 {
#include "planted.cu"
}
#undef PLANT
#define PLANT 8
namespace plant8 {
#include "planted.cu"
}
#undef PLANT
#define PLANT 9
namespace plant9 {
#include "planted.cu"
}
#undef PLANT
#define PLANT 10
namespace plant10 {
#include "planted.cu"
}
#undef PLANT
#define PLANT 11
namespace plant11 {
#include "planted.cu"
}
extern "C" {
typedef void (*Planted)(int, void *, const void *, const void *, int);
void planted_run(int bug, int which, void *y, const void *a, const void *b, int n) {
    static const Planted run[] = {plant0::planted, plant1::planted, plant2::planted,  plant3::planted,
                                  plant4::planted, plant5::planted, plant6::planted,  plant7::planted,
                                  plant8::planted, plant9::planted, plant10::planted, plant11::planted};
    run[bug](which, y, a, b, n);
}
}
extern "C" {
void *planted_alloc(unsigned long bytes) {
    void *p = nullptr;
    cudaMalloc(&p, bytes);
    return p;
}
void planted_free(void *p) { cudaFree(p); }
void planted_seed(unsigned long long seed) { emu::seed(seed); }
int planted_errors(void) { return emu::error_count(); }
const char *planted_first(void) { return emu::error_first(); }
void planted_clear(void) { emu::error_clear(); }
void planted_name_faults(void) { emu::error_abort_on_fault(); }
unsigned long long planted_switches(void) { return emu::counts().switches; }
}
