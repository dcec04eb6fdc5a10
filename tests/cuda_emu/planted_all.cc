/* planted_all.cc - planted.cu for every bug; planted_run drives it from C. */
#include "planted.h"
#include "tile.h"
#include "wgmma.h"
#include "planted.cu"
#include <utility>

typedef void (*Planted)(int, void *, const void *, const void *, int);
template <int... P> static Planted pick(int bug, std::integer_sequence<int, P...>) {
    static const Planted all[] = {planted<P>...};
    return all[bug];
}
extern "C" {
void planted_run(int bug, int which, void *y, const void *a, const void *b, int n) {
    pick(bug, std::make_integer_sequence<int, PLANTS>())(which, y, a, b, n);
}
unsigned planted_address(unsigned at, int mn_major, int row, int k, unsigned panel) {
    const emu::SharedPtr<Bf16> p = {(Bf16 *)(emu::shared_base() + at), 0, 0};
    return emu::wgmma_address(mn_major ? of_columns(p, 0, panel) : of_rows(p, 0, 0), mn_major, row, k);
}
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
