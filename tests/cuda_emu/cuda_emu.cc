/* cuda_emu.cc - the scheduler behind cuda_emu.h: one fiber per CUDA thread, barriers, warp exchanges, the shadow of
 * shared memory. */
#include "cuda_emu.h"
#include "hopper.h"
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define UNPOISON(p, n) __asan_unpoison_memory_region(p, n)
#else
#define UNPOISON(p, n) ((void)0)
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

// ---- fibers
// -------------------------------------------------------------------------------------------------------------------
// fiber_switch(&old, new) saves the callee-saved registers on the current stack and continues on the other.
// Floating point control
// words are never changed by a kernel, so they are not saved.
#if defined(__x86_64__)
extern "C" void emu_fiber_switch(void **save, void *to);
asm(".text\n.globl emu_fiber_switch\n.type emu_fiber_switch,@function\nemu_fiber_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size emu_fiber_switch,.-emu_fiber_switch\n.section .note.GNU-stack,\"\",@progbits\n.text\n");
static void *fiber_make(char *stack, size_t bytes, void (*entry)()) {
    void **sp = (void **)(stack + bytes);
    *--sp = nullptr;       // the entry function's return address: never used
    *--sp = (void *)entry; // where `ret` goes; leaves sp = 8 mod 16, as after a call
    for (int i = 0; i < 6; i++) *--sp = nullptr;
    return sp;
}
static void fiber_switch(void **save, void *to) { emu_fiber_switch(save, to); }
#else
#include <ucontext.h>
static void *fiber_make(char *stack, size_t bytes, void (*entry)()) {
    ucontext_t *c = new ucontext_t; // kept with the stack for the life of the process
    getcontext(c);
    c->uc_stack.ss_sp = stack, c->uc_stack.ss_size = bytes, c->uc_link = nullptr;
    makecontext(c, entry, 0);
    return c;
}
static void fiber_switch(void **save, void *to) {
    if (!*save) *save = new ucontext_t;
    swapcontext((ucontext_t *)*save, (ucontext_t *)to);
}
#endif

namespace emu {
namespace {
enum State { READY, AT_BARRIER, AT_WARP, AT_NAMED, AT_MBARRIER, DONE };
const int MAX_THREADS = 1024, WARPS = MAX_THREADS / 32;
const size_t SHARED_BYTES = 228 * 1024, GRANULE = 2, EXCHANGE = 64;
const size_t BLOCK_SHARED = 227 * 1024, BLOCK_SHARED_DEFAULT = 48 * 1024; // what a block may have, static and dynamic
const int MAX_REGISTERS = 256, FILE_REGISTERS = 65536;
#ifdef __SANITIZE_ADDRESS__
const size_t STACK = 256 * 1024;
#else
const size_t STACK = 64 * 1024;
#endif

struct Copy {
    unsigned offset, bytes, valid;
    const void *src;
};
struct Fiber {
    void *sp;
    State state;
    bool made;
    dim3 tid;
    int line, predicate; // of the barrier it waits at
    int registers;
    const char *file;
    WarpOp op;
    unsigned mask;
    unsigned turn;                         // number of warp operations so far; its parity picks the exchange slot
    std::vector<std::vector<Copy>> groups; // committed asynchronous copies
    std::vector<Copy> open;                // not yet committed
    unsigned mbarrier, parity;             // what it waits for there
    int named;
};
// Who touched a granule of shared memory last, and in which interval between barriers.
struct Shadow {
    unsigned write_epoch, read_epoch, write_warp_epoch, read_warp_epoch;
    uint16_t writer, reader;
    unsigned flight_block, flight; // asynchronous copies into it that have not been waited for, in this block
};
enum : uint16_t { MANY_LANES = 0x8000, MANY_WARPS = 0xffff }; // readers: several lanes of one warp, several warps

struct Machine {
    Fiber fiber[MAX_THREADS];
    char *stacks = nullptr;
    void *home = nullptr;
    int n = 0, cur = -1;
    const char *kernel = "";
    Body body = nullptr;
    void *arg = nullptr;
    unsigned launch = 0, static_used = 0;
    size_t dynamic_bytes = 0;
    unsigned epoch = 1, block_epoch = 1, warp_epoch[WARPS] = {};
    int barrier_total = 0;
    uint64_t random = 1;
    int errors = 0;
    char first[1024] = "";
    Counts counts = {};
    alignas(16) char exchange[2][MAX_THREADS][EXCHANGE];
    alignas(16) char shared[SHARED_BYTES];
    Shadow shadow[SHARED_BYTES / GRANULE];
};
Machine m;

unsigned random_bits() {
    m.random = m.random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(m.random >> 33);
}

void wait(State s) {
    Fiber &f = m.fiber[m.cur];
    f.state = s;
    fiber_switch(&f.sp, m.home);
}
} // namespace
#include "hopper_machine.h"
namespace {
void fiber_main() {
    for (;;) {
        m.body(m.arg);
        Fiber &f = m.fiber[m.cur];
        if (!f.open.empty() || !f.groups.empty())
            report("thread ends with asynchronous copies that were never waited for");
        f.state = DONE;
        fiber_switch(&f.sp, m.home);
    }
}

void fiber_run(int i) {
    m.cur = i;
    threadIdx = m.fiber[i].tid;
    m.counts.switches++;
    fiber_switch(&m.home, m.fiber[i].sp);
}

void fiber_reset(int i) {
    char *stack = m.stacks + (size_t)i * STACK;
    UNPOISON(stack, STACK);
    m.fiber[i].sp = fiber_make(stack, STACK, fiber_main);
    m.fiber[i].made = true;
    m.fiber[i].open.clear(), m.fiber[i].groups.clear();
}

/* Releases the lanes of warp [a, b) whose whole mask has arrived at one operation; returns how many. */
int warp_release(int a, int b) {
    int released = 0;
    for (int i = a; i < b; i++) {
        Fiber &f = m.fiber[i];
        if (f.state != AT_WARP) continue;
        bool all = true;
        for (int j = a; j < b && all; j++)
            if (f.mask >> (j - a) & 1)
                all = m.fiber[j].state == AT_WARP && m.fiber[j].mask == f.mask && m.fiber[j].op == f.op;
        if (!all) continue;
        for (int j = a; j < b; j++)
            if (f.mask >> (j - a) & 1) m.fiber[j].state = READY, released++;
        if (f.op == SYNCWARP) m.warp_epoch[a / 32]++;
    }
    return released;
}

/* Runs one warp until each of its lanes is done, at the barrier, or stuck. */
bool warp_run(int a, int b) {
    bool ran = false;
    for (;;) {
        const unsigned r = random_bits(), mul = (r & 31) | 1, add = r >> 5 & 31;
        bool any = false;
        for (int k = 0; k < 32; k++) {
            const int i = a + (int)((k * mul + add) & 31);
            if (i < b && m.fiber[i].state == READY) fiber_run(i), any = true;
        }
        if (!any && !warp_release(a, b)) return ran;
        ran = true;
    }
}

const char *place(const char *file) {
    const char *s = strrchr(file, '/');
    return s ? s + 1 : file;
}

void stuck() { // nothing can run any more: say who waits where
    if (hopper_stuck()) {
        for (int i = 0; i < m.n; i++) fiber_reset(i);
        return;
    }
    int at = 0, done = 0, warp = 0, first_at = -1, first_warp = -1;
    for (int i = 0; i < m.n; i++) {
        const State s = m.fiber[i].state;
        if (s == AT_BARRIER) at++, first_at = first_at < 0 ? i : first_at;
        if (s == AT_WARP) warp++, first_warp = first_warp < 0 ? i : first_warp;
        done += s == DONE;
    }
    m.cur = first_warp >= 0 ? first_warp : first_at;
    threadIdx = m.fiber[m.cur].tid;
    if (warp)
        report("divergent warp operation: %d lanes wait for lanes of their mask that never come (%d threads "
               "at a barrier, %d done)",
               warp, at, done);
    else
        report("divergent barrier: %d of %d threads at __syncthreads (%s:%d), %d already done", at, m.n,
               place(m.fiber[first_at].file), m.fiber[first_at].line, done);
    for (int i = 0; i < m.n; i++) fiber_reset(i); // their stacks are lost
}

bool barrier_release() {
    int at = 0;
    m.barrier_total = 0;
    for (int i = 0; i < m.n; i++) at += m.fiber[i].state == AT_BARRIER;
    if (at < m.n) return false;
    for (int i = 0; i < m.n; i++) {
        const Fiber &f = m.fiber[i], &z = m.fiber[0];
        if (f.line != z.line || strcmp(f.file, z.file)) {
            m.cur = i, threadIdx = f.tid;
            report("divergent barrier: thread waits at %s:%d, another at %s:%d", place(f.file), f.line, place(z.file),
                   z.line);
            break;
        }
    }
    for (int i = 0; i < m.n; i++) m.barrier_total += m.fiber[i].predicate, m.fiber[i].state = READY;
    m.epoch++;
    hopper_barrier();
    m.counts.barriers++;
    return true;
}

void registers_check() {
    int sum = 0;
    for (int i = 0; i < m.n; i++) sum += (m.fiber[i].registers + 7) / 8 * 8;
    if (sum > FILE_REGISTERS)
        report("%d threads with up to %d registers in all, a multiprocessor has %d: no such launch without "
               "setmaxnreg or fewer threads",
               m.n, sum, FILE_REGISTERS);
}
void block_run() {
    memset(m.shared, 0xff, std::min(SHARED_BYTES, (size_t)m.static_used + m.dynamic_bytes + 1024)); // NaN
    m.block_epoch = ++m.epoch;
    hopper_block();
    for (int i = 0; i < m.n; i++) m.fiber[i].state = READY, m.fiber[i].turn = 0, m.fiber[i].registers = MAX_REGISTERS;
    const int warps = (m.n + 31) / 32;
    m.counts.blocks++, m.counts.threads += m.n;
    for (;;) {
        const int off = (int)(random_bits() % warps), back = (int)(random_bits() & 1);
        for (int k = 0; k < warps; k++) {
            const int w = back ? (off + warps - k) % warps : (off + k) % warps;
            warp_run(32 * w, std::min(32 * w + 32, m.n));
        }
        int done = 0, ready = 0;
        for (int i = 0; i < m.n; i++) done += m.fiber[i].state == DONE, ready += m.fiber[i].state == READY;
        if (done == m.n) {
            registers_check();
            return hopper_block_end(false);
        }
        if (ready || barrier_release() || hopper_land()) continue; // copies land as late as they may
        stuck();
        return hopper_block_end(true);
    }
}
} // namespace

void report(const char *format, ...) {
    char what[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(what, sizeof what, format, ap);
    va_end(ap);
    if (m.errors++) return; // the first is kept
    snprintf(m.first, sizeof m.first, "%s block (%u,%u,%u) thread (%u,%u,%u): %s", m.kernel, blockIdx.x, blockIdx.y,
             blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, what);
}
int error_count() { return m.errors; }
const char *error_first() { return m.first; }
void error_clear() { m.errors = 0, m.first[0] = 0; }
void seed(uint64_t s) { m.random = s * 2 + 1; }
Counts counts() { return m.counts; }

void launch(const char *kernel, dim3 grid, dim3 block, size_t shared, Body body, void *arg) {
    m.kernel = kernel, m.body = body, m.arg = arg;
    gridDim = grid, blockDim = block, blockIdx = threadIdx = dim3(0, 0, 0);
    const size_t n = (size_t)block.x * block.y * block.z;
    if (n < 1 || n > (size_t)MAX_THREADS || shared > BLOCK_SHARED || !grid.x || grid.y - 1 >= 65535 ||
        grid.z - 1 >= 65535) {
        report("bad launch: grid %u x %u x %u, block of %zu threads, %zu bytes of shared memory", grid.x, grid.y,
               grid.z, n, shared);
        return;
    }
    if (!m.stacks) {
        m.stacks = (char *)mmap(nullptr, STACK * MAX_THREADS, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (m.stacks == MAP_FAILED) perror("cuda_emu: stacks"), abort();
    }
    m.n = (int)n, m.dynamic_bytes = shared;
    m.launch++,
        m.static_used = (unsigned)((shared + 15) / 16 * 16); // dynamic memory first: its size is known
    m.counts.launches++;
    for (int i = 0; i < m.n; i++) {
        if (!m.fiber[i].made) fiber_reset(i);
        m.fiber[i].tid = dim3(i % block.x, i / block.x % block.y, i / (block.x * block.y));
    }
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) blockIdx = dim3(x, y, z), block_run();
    m.cur = -1, m.kernel = "";
}

// ---- barriers and warps ----
int barrier_count(int line, const char *file, int predicate) {
    Fiber &f = m.fiber[m.cur];
    f.line = line, f.file = file, f.predicate = predicate != 0;
    wait(AT_BARRIER);
    return m.barrier_total;
}
void barrier(int line, const char *file) { barrier_count(line, file, 0); }

void warp_exchange(WarpOp op, unsigned mask, const void *data, size_t bytes) {
    Fiber &f = m.fiber[m.cur];
    const int a = m.cur & ~31, here = std::min(32, m.n - a);
    mask &= here == 32 ? 0xffffffffu : (1u << here) - 1;
    if (!(mask >> (m.cur - a) & 1)) {
        report("warp operation by a lane outside its own mask %08x", mask);
        mask |= 1u << (m.cur - a);
    }
    f.turn++;
    if (bytes) memcpy(m.exchange[f.turn & 1][m.cur], data, bytes);
    f.op = op, f.mask = mask;
    wait(AT_WARP);
}
const void *lane_data(int lane) {
    const Fiber &f = m.fiber[m.cur];
    const int i = (m.cur & ~31) + lane;
    return f.mask >> lane & 1 ? m.exchange[f.turn & 1][i] : nullptr;
}
int lane_index() { return m.cur & 31; }
void registers(int n) { m.fiber[m.cur].registers = n; }

// ---- shared memory ----
char *shared_base() { return m.shared; }
unsigned shared_place(Slot &s, size_t bytes, size_t align, const char *name) {
    if (s.launch != m.launch) { // the first thread of this launch to come here places the array
        const size_t o = (m.static_used + align - 1) / align * align;
        if (o + bytes > SHARED_BYTES) {
            report("shared array %s does not fit: %zu bytes", name, o + bytes);
            return 0;
        }
        // the limit is raised only for a launch whose dynamic memory alone is above 48 KB (cuda_shared_limit)
        const size_t room = m.dynamic_bytes > BLOCK_SHARED_DEFAULT ? BLOCK_SHARED : BLOCK_SHARED_DEFAULT;
        if (o + bytes > room)
            report("shared array %s: %zu bytes of static and dynamic shared memory, a block may have %zu", name,
                   o + bytes, room);
        memset(m.shared + o, 0xff, bytes);
        s.offset = (unsigned)o, s.launch = m.launch, m.static_used = (unsigned)(o + bytes);
    }
    return s.offset;
}
unsigned dynamic_shared_place(size_t *bytes) {
    *bytes = m.dynamic_bytes;
    return 0;
}
void shared_outside(long index, size_t element, unsigned lo, unsigned hi) {
    report("index %ld outside its shared array of %u elements", index, (unsigned)((hi - lo) / element));
}
void shared_note(unsigned offset, unsigned bytes, bool write) {
    if (h.on) return fine_note(offset, bytes, write);
    const uint16_t me = (uint16_t)m.cur;
    const int warp = me / 32;
    for (unsigned g = offset / GRANULE; g < (offset + bytes + GRANULE - 1) / GRANULE; g++) {
        Shadow &s = m.shadow[g];
        // another thread's write in this interval, and no __syncwarp of our common warp since
        const bool fresh_write = s.write_epoch == m.epoch && s.writer != me &&
                                 (s.writer / 32 != warp || s.write_warp_epoch == m.warp_epoch[warp]);
        if (fresh_write)
            report("race in shared memory, byte %u: %s by this thread and write by thread %d with no barrier "
                   "between",
                   g * (unsigned)GRANULE, write ? "write" : "read", s.writer);
        if (s.flight && s.flight_block == m.block_epoch && s.write_epoch >= m.block_epoch)
            report("race in shared memory, byte %u: %s by this thread while an asynchronous copy into it is under way",
                   g * (unsigned)GRANULE, write ? "write" : "read");
        if (write) {
            const bool read_here = s.read_epoch == m.epoch && s.reader != me;
            const int readers_warp = s.reader == MANY_WARPS ? -1 : (s.reader & 0x7fff) / 32;
            if (read_here && (readers_warp != warp || s.read_warp_epoch == m.warp_epoch[warp]))
                report("race in shared memory, byte %u: write by this thread and read by another with no "
                       "barrier between",
                       g * (unsigned)GRANULE);
            s.write_epoch = m.epoch, s.writer = me, s.write_warp_epoch = m.warp_epoch[warp];
        } else {
            if (s.write_epoch < m.block_epoch)
                report("uninitialised read of shared memory, byte %u", g * (unsigned)GRANULE);
            if (s.read_epoch != m.epoch || s.reader == me) s.reader = me;
            else if (s.reader != MANY_WARPS) {
                const int readers_warp = (s.reader & 0x7fff) / 32;
                if (readers_warp != warp) s.reader = MANY_WARPS;
                else s.reader = s.read_warp_epoch == m.warp_epoch[warp] ? (uint16_t)(MANY_LANES | 32 * warp) : me;
            }
            s.read_epoch = m.epoch, s.read_warp_epoch = m.warp_epoch[warp];
        }
    }
}

// ---- asynchronous copies ----
/* The copy may land at any time from now to the wait: nobody may have touched its target since the last barrier,
 * nor touch it until then. */
void async_copy(unsigned offset, const void *src, unsigned bytes, unsigned valid) {
    const uint16_t me = (uint16_t)m.cur;
    if (offset % bytes || (uintptr_t)src % bytes)
        report("misaligned asynchronous copy of %u bytes, to byte %u of shared memory", bytes, offset);
    for (unsigned g = offset / GRANULE; g < (offset + bytes + GRANULE - 1) / GRANULE; g++) {
        Shadow &s = m.shadow[g];
        if ((s.read_epoch == m.epoch && s.reader != me && s.read_warp_epoch == m.warp_epoch[me / 32]) ||
            (s.read_epoch == m.epoch && (s.reader == MANY_WARPS || (s.reader & 0x7fff) / 32 != me / 32)))
            report("race in shared memory, byte %u: asynchronous copy by this thread and read by another with no "
                   "barrier between",
                   g * (unsigned)GRANULE);
        if (s.flight_block != m.block_epoch) s.flight_block = m.block_epoch, s.flight = 0;
        s.flight++;
    }
    m.fiber[m.cur].open.push_back({offset, bytes, valid, src});
}
void async_commit() {
    Fiber &f = m.fiber[m.cur];
    f.groups.push_back(f.open);
    f.open.clear();
}
void async_wait(int groups_left) {
    Fiber &f = m.fiber[m.cur];
    while ((int)f.groups.size() > groups_left) {
        for (const Copy &c : f.groups.front()) {
            for (unsigned g = c.offset / GRANULE; g < (c.offset + c.bytes + GRANULE - 1) / GRANULE; g++)
                m.shadow[g].flight--;
            shared_note(c.offset, c.bytes, true);
            memcpy(m.shared + c.offset, c.src, c.valid);
            memset(m.shared + c.offset + c.valid, 0, c.bytes - c.valid);
        }
        f.groups.erase(f.groups.begin());
    }
}

// ---- a fault in global memory ----
namespace {
void fault(int sig) {
    char line[512];
    const int n = snprintf(line, sizeof line,
                           "cuda_emu: out-of-bounds access to global memory in %s block (%u,%u,%u) thread (%u,%u,%u)\n",
                           m.kernel, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    if (write(2, line, (size_t)n) < 0) _exit(99);
    signal(sig, SIG_DFL);
    raise(sig);
}
} // namespace
void error_abort_on_fault() {
#ifndef __SANITIZE_ADDRESS__
    signal(SIGSEGV, fault);
    signal(SIGBUS, fault);
#else
    (void)fault;
#endif
}
} // namespace emu

// ---- runtime ----
static bool not_captured();
namespace {
const size_t ALIGNED = 256;        // a device's allocations are
const unsigned char BEHIND = 0xff; // what lies between an allocation's end and its page: NaN to whoever reads it
struct Block {
    void *map;
    size_t bytes, asked;
};
std::map<void *, Block> &blocks() {
    static std::map<void *, Block> b;
    return b;
}
size_t held() {
    size_t sum = 0;
    for (const auto &b : blocks()) sum += b.second.asked;
    return sum;
}
size_t capacity() {
    const char *mib = getenv("CUDA_EMU_MEMORY");
    return mib ? (size_t)strtoul(mib, nullptr, 10) << 20 : (size_t)1 << 34;
}
} // namespace
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    const size_t used = held();
    *total = capacity();
    *free_bytes = used < *total ? *total - used : 0;
    return cudaSuccess;
}
#ifdef __SANITIZE_ADDRESS__
cudaError_t cudaMalloc(void **p, size_t bytes) { // red zones on both sides
    *p = nullptr;
    if (not_captured() || bytes > capacity() || held() > capacity() - bytes) return cudaErrorMemoryAllocation;
    *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!*p) return cudaErrorMemoryAllocation;
    __asan_poison_memory_region((char *)*p + bytes, (bytes + 255) / 256 * 256 - bytes);
    blocks()[*p] = {*p, (bytes + 255) / 256 * 256, bytes};
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    cudaStreamSynchronize(nullptr); // as the runtime does
    if (p) __asan_unpoison_memory_region(p, blocks()[p].bytes), blocks().erase(p);
    free(p);
    return cudaSuccess;
}
#else
cudaError_t cudaMalloc(void **p, size_t bytes) { // ends, to 256 bytes, at a page that must not be touched
    *p = nullptr;
    if (not_captured() || bytes > capacity() || held() > capacity() - bytes) return cudaErrorMemoryAllocation;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (bytes + ALIGNED - 1) / ALIGNED * ALIGNED,
                 body = (used + page - 1) / page * page;
    char *map = (char *)mmap(nullptr, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *p = nullptr;
    if (map == MAP_FAILED) return cudaErrorMemoryAllocation;
    mprotect(map + body, page, PROT_NONE);
    *p = map + body - used;
    memset((char *)*p + bytes, BEHIND, used - bytes);
    blocks()[*p] = {map, body + page, bytes};
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    cudaStreamSynchronize(nullptr); // as the runtime does
    if (!p) return cudaSuccess;
    const Block b = blocks()[p];
    for (size_t i = b.asked; i % ALIGNED; i++)
        if (((unsigned char *)p)[i] != BEHIND) {
            emu::report("byte %zu written behind the end of a device allocation of %zu", i, b.asked);
            break;
        }
    munmap(b.map, b.bytes), blocks().erase(p);
    return cudaSuccess;
}
#endif
// ---- the stream ----
struct cudaGraph {
    std::vector<std::function<void()>> work;
    bool valid;
};
namespace {
struct Queue {
    bool on;
    std::deque<std::function<void()>> work;
    uint64_t done;
    std::map<const char *, size_t> pinned;
    cudaGraph *capture; // NULL: none under way
} queue;
void queue_run(uint64_t until) { // so many in all
    while (queue.done < until && !queue.work.empty()) {
        const std::function<void()> work = std::move(queue.work.front());
        queue.work.pop_front();
        work();
        queue.done++;
    }
}
uint64_t queue_end() { return queue.done + queue.work.size(); }
bool is_pinned(const void *p) {
    auto next = queue.pinned.upper_bound((const char *)p);
    return next != queue.pinned.begin() && (const char *)p < std::prev(next)->first + std::prev(next)->second;
}
} // namespace
namespace emu {
void defer(bool on) {
    queue_run(queue_end());
    queue.on = on;
}
bool deferring() { return queue.on || queue.capture; }
void enqueue(std::function<void()> work) {
    if (queue.capture) queue.capture->work.push_back(std::move(work));
    else queue.work.push_back(std::move(work));
}
} // namespace emu
/* What a captured stream may not be asked. */
static bool not_captured() {
    if (queue.capture) queue.capture->valid = false;
    return queue.capture != nullptr;
}
cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, cudaMemcpyKind kind, cudaStream_t) {
    emu::m.counts.copies++;
    if (kind == cudaMemcpyHostToDevice && not_captured()) return cudaErrorInvalidValue;
    if (!emu::deferring()) memmove(d, s, n);
    else if (kind == cudaMemcpyHostToDevice && !is_pinned(s)) {
        std::vector<char> staged((const char *)s, (const char *)s + n);
        emu::enqueue([=] { memcpy(d, staged.data(), n); });
    } else emu::enqueue([=] { memmove(d, s, n); });
    return cudaSuccess;
}
/* A memset that comes late: by now the caller may have fenced off parts of the block (the arena's red zones),
 * which it could not have done on a device. So these writes are not checked; volatile, lest the loop becomes a memset,
 * which is. */
#if defined(__GNUC__)
__attribute__((no_sanitize_address))
#endif
static void
set_late(void *d, int v, size_t n) {
    volatile unsigned char *p = (volatile unsigned char *)d;
    for (size_t i = 0; i < n; i++) p[i] = (unsigned char)v;
}

cudaError_t cudaMemsetAsync(void *d, int v, size_t n, cudaStream_t) {
    emu::m.counts.copies++;
    if (!emu::deferring()) memset(d, v, n);
    else emu::enqueue([=] { set_late(d, v, n); });
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
    if (not_captured()) return cudaErrorInvalidValue;
    queue_run(queue_end());
    return cudaGetLastError();
}
cudaError_t cudaMallocHost(void **p, size_t bytes) {
    if (!(*p = malloc(bytes ? bytes : 1))) return cudaErrorMemoryAllocation;
    queue.pinned[(const char *)*p] = bytes;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p) {
    queue_run(queue_end());
    queue.pinned.erase((const char *)p);
    free(p);
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    *e = new uint64_t(0);
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) {
    *e = queue_end();
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    queue_run(*e);
    return cudaGetLastError();
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
    if (not_captured()) return cudaErrorInvalidValue;
    queue.capture = new cudaGraph{{}, true};
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *g) {
    *g = queue.capture;
    queue.capture = nullptr;
    if (*g && (*g)->valid) return cudaSuccess;
    delete *g;
    *g = nullptr;
    return cudaErrorInvalidValue;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long) {
    *x = new cudaGraph(*g);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t) {
    if (not_captured()) return cudaErrorInvalidValue;
    const auto all = [work = x->work] { // one launch, whatever is in it
        const auto before = emu::m.counts.launches;
        for (const auto &w : work) w();
        emu::m.counts.launches = before + 1;
    };
    if (queue.on) emu::enqueue(all);
    else all();
    return cudaGetLastError();
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    delete g;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) {
    delete x;
    return cudaSuccess;
}

cudaError_t cudaGetLastError() { return emu::error_count() ? cudaErrorLaunchFailure : cudaSuccess; }
const char *cudaGetErrorString(cudaError_t e) {
    switch (e) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorNoDevice:
        return "no such device";
    case cudaErrorLaunchFailure:
        return emu::error_first();
    default:
        return "invalid value";
    }
}
