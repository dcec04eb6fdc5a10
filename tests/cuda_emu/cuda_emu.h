/* cuda_emu.h - the CUDA dialect of cuda/, run on the CPU, so that machines without a GPU check every kernel against
 * ref/.
 *
 * cuda/launch.h includes this file instead of the CUDA headers when CUDA_EMU is defined; the same .cu files are then
 * compiled by g++ (`g++ -x c++ -DCUDA_EMU -Itests/cuda_emu`). Every CUDA thread is a fiber (cuda_emu.cc);
 * blocks run one after another, warps and lanes in a seeded random order. What is checked, each error with the kernel's
 * name, block and thread:
 *   - a barrier that some threads of the block never reach, or reach at another source line;
 *   a warp operation that lanes of its mask
 *     never reach; a shuffle from a lane that does not take part;
 *   - shared memory: two threads touching a word, at least one writing, with no barrier between (also __syncwarp inside
 *   a warp),
 *     a read of a word that nothing in this block wrote, an index outside its array;
 *   - global memory: device allocations are aligned to 256 bytes, as a device's are, and end at a page that must not be
 *   touched (under AddressSanitizer: at a red zone); what is written between the end and the page is found when the
 *   allocation is released;
 *   - 16- and 4-byte accesses to shared memory and asynchronous copies whose address is not a multiple of that; static
 *   and dynamic shared memory above 227 KB together, or above 48 KB where nothing raised the limit; more registers than
 *   a multiprocessor has.
 * Not modelled: timing, memory ordering between blocks, caches, bank conflicts.
 *
 * Shared memory must be declared with SHARED / DYNAMIC_SHARED and passed on as SHARED_PTR(T):
 * under nvcc these are plain arrays and pointers, here they are small classes that see every access. */
#ifndef CUDA_EMU_H
#define CUDA_EMU_H
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emu {

// ---- what a kernel may do (cuda_emu.cc) ----
enum WarpOp { SHUFFLE, BALLOT, SYNCWARP, REDUCE, MMA_BF16, MMA_TF32, LDMATRIX, WGMMA, WGMMA_COMMIT, WGMMA_WAIT };
void barrier(int line, const char *file);
int barrier_count(int line, const char *file, int predicate); // threads of the block whose predicate is true
/* Waits until every lane of `mask` is at the same operation, having left `bytes` of data;
 * afterwards lane_data reads what they left. */
void warp_exchange(WarpOp op, unsigned mask, const void *data, size_t bytes);
const void *lane_data(int lane); // NULL if the lane does not take part
int lane_index();
void registers(int n); // this thread has n from now on; 256 to begin with, as many as the compiler may give it
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

// ---- shared memory ----
struct Slot {
    unsigned offset, launch;
}; // one SHARED declaration; zero-initialised
char *shared_base();
unsigned shared_place(Slot &s, size_t bytes, size_t align, const char *name);
unsigned dynamic_shared_place(size_t *bytes);
void shared_note(unsigned offset, unsigned bytes, bool write);
void shared_outside(long index, size_t element, unsigned lo, unsigned hi);

template <class T> struct Value { typedef T type; }; // what reading an element gives (bf16.h: float for bf16)

template <class T> struct Ref {
    T *p;
    typedef typename Value<T>::type V;
    void note(bool write) const { shared_note((unsigned)((char *)p - shared_base()), sizeof(T), write); }
    operator V() const {
        note(false);
        return *p;
    }
    Ref(T *q) : p(q) {}
    Ref(const Ref &) = default;
    const Ref &operator=(V v) const {
        note(true);
        *p = T(v);
        return *this;
    }
    const Ref &operator=(const Ref &o) const { return *this = V(o); }
    const Ref &operator+=(V v) const { return *this = V(*this) + v; }
    const Ref &operator-=(V v) const { return *this = V(*this) - v; }
    const Ref &operator*=(V v) const { return *this = V(*this) * v; }
};

template <class T> struct SharedPtr {
    T *p;
    unsigned lo, hi; // the array it points into, as byte offsets
    static_assert(sizeof(T) % 2 == 0, "the shadow of shared memory has one entry for two bytes");
    T *at(long i, long n) const { // n elements from i on, all inside the array
        const long a = (long)((char *)(p + i) - shared_base());
        if (a < (long)lo || a + n * (long)sizeof(T) > (long)hi) {
            shared_outside(i, sizeof(T), lo, hi);
            return (T *)(shared_base() + lo);
        }
        return p + i;
    }
    Ref<T> operator[](long i) const { return Ref<T>(at(i, 1)); }
    Ref<T> operator*() const { return (*this)[0]; }
    SharedPtr operator+(long i) const { return {p + i, lo, hi}; }
    SharedPtr operator-(long i) const { return {p - i, lo, hi}; }
    SharedPtr &operator+=(long i) {
        p += i;
        return *this;
    }
};
template <class T> SharedPtr<T> shared_array(Slot &s, size_t n, const char *name) {
    const unsigned o = shared_place(s, n * sizeof(T), alignof(T) < 16 ? 16 : alignof(T), name);
    return {(T *)(shared_base() + o), o, (unsigned)(o + n * sizeof(T))};
}
template <class T> SharedPtr<T> dynamic_shared() {
    size_t bytes;
    const unsigned o = dynamic_shared_place(&bytes);
    return {(T *)(shared_base() + o), o, (unsigned)(o + bytes)};
}

// ---- launching ----
typedef void (*Body)(void *);
void launch(const char *kernel, dim3 grid, dim3 block, size_t shared, Body body, void *arg);
template <class F> void launch_now(const char *kernel, dim3 grid, dim3 block, size_t shared, F fn) {
    launch(
        kernel, grid, block, shared, [](void *f) { (*(F *)f)(); }, &fn);
}
/* A device that lags as far behind the host as it may: with defer(true), launches, copies and fills wait in a queue
 * until something synchronises with them. (With defer(false), the default, each is done at once.) A copy out of pinned
 * host memory reads it only then; one out of other memory reads it at once, as the CUDA runtime does.
 * A stream that is captured keeps them for its graph instead. */
void defer(bool on);
bool deferring(); // or capturing
void enqueue(std::function<void()> work);
/* Arguments are evaluated where the launch stands, as under nvcc, however late the kernel runs. */
template <class F, class... A> void launch_any(const char *kernel, dim3 grid, dim3 block, size_t shared, F fn, A... a) {
    if (deferring()) enqueue([=] { launch_now(kernel, grid, block, shared, [=] { fn(a...); }); });
    else launch_now(kernel, grid, block, shared, [=] { fn(a...); });
}

// ---- for tests ----
void seed(uint64_t s);     // the order of threads
int error_count();         // since the last error_clear
const char *error_first(); // "" if none
void error_clear();
void error_abort_on_fault(); // a fault in global memory prints the kernel and thread, then ends the process
struct Counts {
    uint64_t launches, blocks, threads, switches, barriers, copies; // copies: and fills
};
Counts counts();

// ---- asynchronous copies: carried out when they are waited for, so that a missing wait shows up ----
void async_copy(unsigned offset, const void *src, unsigned bytes, unsigned valid);
void async_commit();
void async_wait(int groups_left);
} // namespace emu

#define SHARED(type, name, n)                                                                                          \
    static emu::Slot name##_slot;                                                                                      \
    const emu::SharedPtr<type> name = emu::shared_array<type>(name##_slot, (n), #name)
#define DYNAMIC_SHARED(type, name)      emu::SharedPtr<type> name = emu::dynamic_shared<type>()
#define DYNAMIC_SHARED_1024(type, name) DYNAMIC_SHARED(type, name)
#define SHARED_PTR(type)                emu::SharedPtr<type>
/* The next n elements of dynamic shared memory; moves the cursor on, to a multiple of 16 bytes. */
template <class T, class C> static inline emu::SharedPtr<T> shared_take(emu::SharedPtr<C> &cursor, size_t n) {
    const unsigned o = (unsigned)((char *)cursor.p - emu::shared_base());
    const size_t bytes = n * sizeof(T), step = (bytes + 15) / 16 * 16;
    if (o + bytes > cursor.hi) emu::shared_outside((long)n, sizeof(T), o, cursor.hi);
    emu::SharedPtr<T> r = {(T *)cursor.p, o, (unsigned)std::min<size_t>(o + bytes, cursor.hi)};
    cursor.p = (C *)((char *)cursor.p + step);
    return r;
}
/* 16 or 4 bytes at once, from and to shared memory; an address that is not a multiple of that is an error, as on a
 * device. */
namespace emu {
template <class V, class T> static inline V shared_load(SharedPtr<T> p) {
    const T *q = p.at(0, sizeof(V) / sizeof(T));
    const unsigned o = (unsigned)((const char *)q - shared_base());
    if (o % sizeof(V)) report("misaligned read of %zu bytes of shared memory at byte %u", sizeof(V), o);
    shared_note(o, sizeof(V), false);
    V r;
    memcpy(&r, q, sizeof r);
    return r;
}
template <class V, class T> static inline void shared_store(SharedPtr<T> p, V v) {
    T *q = p.at(0, sizeof(V) / sizeof(T));
    const unsigned o = (unsigned)((char *)q - shared_base());
    if (o % sizeof(V)) report("misaligned write of %zu bytes of shared memory at byte %u", sizeof(V), o);
    shared_note(o, sizeof(V), true);
    memcpy((void *)q, &v, sizeof v);
}
} // namespace emu
template <class T> static inline uint4 shared_load16(emu::SharedPtr<T> p) { return emu::shared_load<uint4>(p); }
template <class T> static inline void shared_store16(emu::SharedPtr<T> p, uint4 v) { emu::shared_store(p, v); }
template <class T> static inline unsigned shared_load4(emu::SharedPtr<T> p) { return emu::shared_load<unsigned>(p); }
template <class T> static inline void shared_store4(emu::SharedPtr<T> p, unsigned v) { emu::shared_store(p, v); }

#define LAUNCH(kernel, grid, block, shared, ...)                                                                       \
    emu::launch_any(                                                                                                   \
        #kernel, grid, block, shared, [](auto... a) { (kernel)(a...); }, __VA_ARGS__),                                 \
        cuda_latch(#kernel)

// ---- barriers, votes, shuffles, reductions ----
#define __syncthreads()        emu::barrier(__LINE__, __FILE__)
#define __syncthreads_count(p) emu::barrier_count(__LINE__, __FILE__, (p))
#define __syncthreads_or(p)    (emu::barrier_count(__LINE__, __FILE__, (p)) > 0)
#define __syncthreads_and(p)   (emu::barrier_count(__LINE__, __FILE__, !(p)) == 0)
static inline void __syncwarp(unsigned mask = 0xffffffffu) { emu::warp_exchange(emu::SYNCWARP, mask, nullptr, 0); }

namespace emu {
template <class T> static inline T shuffle(unsigned mask, T v, int source) {
    warp_exchange(SHUFFLE, mask, &v, sizeof v);
    const void *d = lane_data(source & 31);
    T r;
    if (d) memcpy(&r, d, sizeof r);
    else report("shuffle from lane %d, which does not take part", source & 31), memset((void *)&r, 0xff, sizeof r);
    return r;
}
} // namespace emu
template <class T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    const int me = emu::lane_index();
    return emu::shuffle(mask, v, (me & ~(width - 1)) | (lane & (width - 1)));
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
    const int me = emu::lane_index(), to = me ^ bits;
    return emu::shuffle(mask, v, (to & ~(width - 1)) > (me & ~(width - 1)) ? me : to);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, int by, int width = 32) {
    const int me = emu::lane_index();
    return emu::shuffle(mask, v, (me & (width - 1)) < by ? me : me - by);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T v, int by, int width = 32) {
    const int me = emu::lane_index();
    return emu::shuffle(mask, v, (me & (width - 1)) + by >= width ? me : me + by);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    emu::warp_exchange(emu::BALLOT, mask, &predicate, sizeof predicate);
    unsigned r = 0;
    for (int l = 0; l < 32; l++) {
        const void *d = mask >> l & 1 ? emu::lane_data(l) : nullptr;
        int p = 0;
        if (d) memcpy(&p, d, sizeof p);
        r |= p ? 1u << l : 0;
    }
    return r;
}
static inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
static inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, !p) == 0; }
template <class T, class F> static inline T emu_reduce(unsigned mask, T v, F f) {
    emu::warp_exchange(emu::REDUCE, mask, &v, sizeof v);
    bool first = true;
    T r = v;
    for (int l = 0; l < 32; l++) {
        const void *d = mask >> l & 1 ? emu::lane_data(l) : nullptr;
        if (!d) continue;
        T x;
        memcpy(&x, d, sizeof x);
        r = first ? x : f(r, x), first = false;
    }
    return r;
}
template <class T> static inline T __reduce_add_sync(unsigned mask, T v) {
    return emu_reduce(mask, v, [](T a, T b) { return a + b; });
}
template <class T> static inline T __reduce_max_sync(unsigned mask, T v) {
    return emu_reduce(mask, v, [](T a, T b) { return a > b ? a : b; });
}
template <class T> static inline T __reduce_min_sync(unsigned mask, T v) {
    return emu_reduce(mask, v, [](T a, T b) { return a < b ? a : b; });
}

// ---- atomics: fibers are not preempted, so plain reads and writes are atomic. On shared memory write atomicAdd(array
// + i, v); the race
//      detector does not see it. ----
template <class T> static inline T atomicAdd(T *p, T v) {
    T o = *p;
    *p = o + v;
    return o;
}
template <class T> static inline T atomicMax(T *p, T v) {
    T o = *p;
    *p = o < v ? v : o;
    return o;
}
template <class T> static inline T atomicMin(T *p, T v) {
    T o = *p;
    *p = v < o ? v : o;
    return o;
}
template <class T> static inline T atomicExch(T *p, T v) {
    T o = *p;
    *p = v;
    return o;
}
template <class T> static inline T atomicCAS(T *p, T old, T v) {
    T o = *p;
    if (o == old) *p = v;
    return o;
}
template <class T> static inline T atomicAdd(emu::SharedPtr<T> p, T v) {
    T *q = p.at(0, 1), o = *q;
    *q = o + v;
    return o;
}
static inline void __threadfence() {}

// ---- arithmetic ----
using std::max;
using std::min;
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
/* ex2.approx of x * log2(e), both rounded, and up to two units in the last place away from that: by how much is a
 * function of the argument's bits, so that it differs from the compiler's expf as a device's does. */
static inline float approximate_exp(float x) {
    const float y = exp2f(x * 1.44269504f);
    unsigned u, r;
    memcpy(&u, &x, 4), memcpy(&r, &y, 4);
    if ((r & 0x7f800000u) == 0 || (r & 0x7f800000u) >= 0x7f000000u) return y; // 0, denormal, near the end, Inf, NaN
    r += (u * 2654435761u >> 29) % 5 - 2;
    float z;
    memcpy(&z, &r, 4);
    return u << 1 ? z : y; // e^0 is 1
}
#define __expf approximate_exp
#define __logf logf
static inline float __fdividef(float a, float b) { return a / b; }
template <class T> static inline T __ldg(const T *p) { return *p; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline unsigned __float_as_uint(float x) {
    unsigned u;
    memcpy(&u, &x, 4);
    return u;
}
static inline float __uint_as_float(unsigned u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

// ---- the part of the runtime that cuda/ uses ----
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidValue = 1,
    cudaErrorNoDevice = 100,
    cudaErrorLaunchFailure = 719
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
typedef void *cudaStream_t;
struct cudaDeviceProp {
    char name[256];
    int multiProcessorCount;
    size_t totalGlobalMem, sharedMemPerBlockOptin;
    int major, minor;
};
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaGetLastError();
const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, cudaMemcpyKind kind, cudaStream_t);
cudaError_t cudaMemsetAsync(void *d, int v, size_t n, cudaStream_t);
cudaError_t cudaMallocHost(void **p, size_t bytes); // pinned
cudaError_t cudaFreeHost(void *p);
typedef uint64_t *cudaEvent_t; // how much of the queue comes before it
enum { cudaEventDisableTiming = 2 };
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaStreamSynchronize(cudaStream_t);
/* Graphs: what a stream is told between Begin and End is not done but kept. Waiting, allocating, copies from the host
 * to the device (the host's memory would be read at each replay) and nested captures are errors that End reports,
 * as on a device. */
struct cudaGraph;
typedef cudaGraph *cudaGraph_t, *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed = 2 };
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *g);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t);
cudaError_t cudaGraphDestroy(cudaGraph_t g);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x);
static inline cudaError_t cudaStreamCreate(cudaStream_t *s) {
    *s = nullptr;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
static inline cudaError_t cudaGetDeviceCount(int *n) {
    *n = 1;
    return cudaSuccess;
}
static inline cudaError_t cudaSetDevice(int i) { return i == 0 ? cudaSuccess : cudaErrorNoDevice; }
/* 16 GiB, or as many MiB as the environment's CUDA_EMU_MEMORY says. */
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total);
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    memset(p, 0, sizeof *p);
    memcpy(p->name, "emulator", 9);
    p->multiProcessorCount = 1, p->totalGlobalMem = (size_t)1 << 34, p->major = 9,
    p->sharedMemPerBlockOptin = 227 * 1024;
    return cudaSuccess;
}
#endif
