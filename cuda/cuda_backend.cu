/* cuda_backend.cu - device memory, the stream, and the latched error behind every launch.
 *
 * Ops carry no context and cannot fail (ops_decl.h), so what they need from the device lives in one Device here:
 * a stream, a scratch buffer, and the first error. Launches and copies only latch; sync() hands the error to the caller
 * with the kernel's name. */
#include "cuda_backend.h"
#include "launch.h"
#include "matmul.h"
#include "tma.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef CUDA_EMU
#define SIDE(name) cuda_emu_##name
#define PREFIX     "cuda-emu"
#else
#define SIDE(name) cuda_##name
#define PREFIX     "cuda"
#endif
extern "C" {
extern const Ops32 SIDE(ops32);
extern const Ops16 SIDE(ops16);
}

namespace CUDA_SIDE {
/* What small uploads come from: two pinned halves, filled one after the other. A half is written again only when the
 * copies out of it are done, which its event says; so the caller may reuse its own memory at once, and the host waits
 * only if it is a whole half ahead. */
enum { UPLOAD_HALF = 1 << 20 };
struct Uploads {
    char *half[2];
    cudaEvent_t done[2];
    size_t used;
    int now;
    bool recorded[2];
};
struct Device {
    int users, index;
    cudaStream_t stream;
    void *scratch;
    char error[512], about[256];
    int sm, version;
    size_t shared;
    bool hopper;
    void *encode; // the driver's cuTensorMapEncodeTiled
    bool spoilt;  // the recording under way cannot become a graph
    Uploads up;
};
static Device device;

cudaStream_t cuda_stream() { return device.stream; }
void *cuda_scratch() { return device.scratch; }
size_t cuda_shared_room() { return device.shared; }
bool cuda_hopper() { return device.hopper; }
int cuda_version() { return device.version; }
int cuda_check(cudaError_t code, const char *what) {
    if (code == cudaSuccess) return 0;
    if (!device.error[0]) snprintf(device.error, sizeof device.error, "%s: %s", what, cudaGetErrorString(code));
    return 1;
}
int cuda_latch(const char *what) { return cuda_check(cudaGetLastError(), what); }
int cuda_shared_limit(const void *kernel, size_t bytes, const char *what) {
#ifdef CUDA_EMU
    (void)kernel, (void)bytes, (void)what;
    return 0;
#else
    if (bytes <= 48 * 1024) return 0;
    return cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), what);
#endif
}
/* The driver's function is asked for by name, so that nothing links libcuda. */
static void *find_encode() {
    void *f = NULL;
#ifndef CUDA_EMU
    cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
    const cudaError_t code = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, 0, &found);
#else
    const cudaError_t code = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &f, 0, &found);
#endif
    if (code != cudaSuccess || found != cudaDriverEntryPointSuccess) f = NULL, cudaGetLastError();
#endif
    return f;
}
int tensor_describe(CUtensorMap *map, const Bf16 *base, unsigned rank, const uint64_t *dim, const uint64_t *stride,
                    const unsigned *box) {
#ifdef CUDA_EMU
    const bool right = emu::tensor_map(map, base, rank, dim, stride, box);
#else
    static const unsigned each[5] = {1, 1, 1, 1, 1};
    cuuint64_t dims[5], strides[5];
    for (unsigned i = 0; i < rank; i++) dims[i] = dim[i], strides[i] = i + 1 < rank ? stride[i] : 0;
    const auto encode = (decltype(&cuTensorMapEncodeTiled))device.encode;
    const bool right =
        encode && encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, rank, (void *)base, dims, strides, box, each,
                         CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                         CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
#endif
    return right ? 0 : cuda_check(cudaErrorInvalidValue, "describing a tensor to the copy engine");
}
} // namespace CUDA_SIDE

// ---- memory; sizes are kept in a list, since a size in front of a block would cost its alignment ----
struct Held {
    void *p;
    size_t bytes;
};
struct State {
    Held *held;
    size_t n, room, now, peak;
    char name[32];
};

static int cuda_alloc(Backend *b, void **p, size_t bytes, const char *what, Err *e) {
    State *s = (State *)b->state;
    *p = NULL;
    if (s->n == s->room) {
        void *list = s->held;
        TRY(mem_grow(&list, s->room * sizeof(Held), (2 * s->room + 64) * sizeof(Held), "list of device blocks", e));
        s->held = (Held *)list, s->room = 2 * s->room + 64;
    }
    const cudaError_t code = cudaMalloc(p, bytes ? bytes : 1);
    if (code != cudaSuccess) {
        size_t left = 0, total = 0;
        cudaMemGetInfo(&left, &total);
        cudaGetLastError(); // an allocation that failed is not a device error
        *p = NULL;
        err_set(e, ERR_MEMORY, "%s: %s: got %.2f GB free, expected %.2f GB more (%.2f GB held of %.2f GB)", b->name,
                what, left / 1e9, bytes / 1e9, s->now / 1e9, total / 1e9);
        return err_hint(e, "smaller micro-batch, shorter sequences, or activation checkpointing");
    }
    cuda_check(cudaMemsetAsync(*p, 0, bytes, cuda_stream()), "zeroing a new block");
#if defined(CUDA_EMU) && defined(__SANITIZE_ADDRESS__)
    // before the arenas put their red zones there
    cuda_check(cudaStreamSynchronize(cuda_stream()), "zeroing a new block");
#endif
    s->held[s->n++] = {*p, bytes};
    s->now += bytes;
    if (s->now > s->peak) s->peak = s->now;
    return OK;
}
static size_t cuda_free_memory(Backend *) {
    size_t left = 0, total = 0;
    cuda_check(cudaMemGetInfo(&left, &total), "free memory");
    return left;
}
static void cuda_release(Backend *b, void *p) {
    State *s = (State *)b->state;
    if (!p) return;
    for (size_t i = s->n; i-- > 0;)
        if (s->held[i].p == p) {
            s->now -= s->held[i].bytes;
            s->held[i] = s->held[--s->n];
            cuda_check(cudaStreamSynchronize(cuda_stream()),
                       "releasing memory"); // a kernel may still be using it
            cuda_check(cudaFree(p), "releasing memory");
            return;
        }
    cuda_check(cudaErrorInvalidValue, "releasing a pointer that this backend never gave out");
}
static void cuda_zero(Backend *, void *p, size_t bytes) {
    if (bytes) cuda_check(cudaMemsetAsync(p, 0, bytes, cuda_stream()), "zeroing");
}
static void uploads_open(Uploads *u) {
    for (int i = 0; i < 2; i++) {
        void *p = NULL;
        cuda_check(cudaMallocHost(&p, UPLOAD_HALF), "pinned memory for uploads");
        u->half[i] = (char *)p;
        cuda_check(cudaEventCreateWithFlags(&u->done[i], cudaEventDisableTiming), "event of uploads");
    }
}
static void uploads_close(Uploads *u) {
    for (int i = 0; i < 2; i++) cudaFreeHost(u->half[i]), cudaEventDestroy(u->done[i]);
}
/* `bytes` of pinned memory that no copy is reading. */
static char *uploads_take(Uploads *u, size_t bytes) {
    if (u->used + bytes > UPLOAD_HALF) {
        cuda_check(cudaEventRecord(u->done[u->now], cuda_stream()), "upload");
        u->recorded[u->now] = true;
        u->now ^= 1, u->used = 0;
        if (u->recorded[u->now]) cuda_check(cudaEventSynchronize(u->done[u->now]), "upload");
    }
    char *p = u->half[u->now] + u->used;
    u->used += (bytes + 255) / 256 * 256;
    return p;
}
static void cuda_upload(Backend *, void *to, const void *from, size_t bytes) {
    if (!bytes) return;
    if (bytes <= UPLOAD_HALF) {
        void *pinned = uploads_take(&device.up, bytes);
        memcpy(pinned, from, bytes);
        from = pinned;
    } // else pageable: read before it returns
    cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cuda_stream()), "upload");
}
static void cuda_download(Backend *, void *to, const void *from, size_t bytes) {
    if (!bytes) return;
    cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda_stream()), "download");
    cuda_check(cudaStreamSynchronize(cuda_stream()), "download");
}
/* Overlapping blocks go through the scratch buffer, piece by piece, in the order that never overwrites what is still to
 * be read. */
static void cuda_move(Backend *, void *to, const void *from, size_t bytes) {
    char *d = (char *)to;
    const char *s = (const char *)from;
    const bool overlap = d < s + bytes && s < d + bytes;
    if (!bytes || d == s) return;
    if (!overlap) {
        cuda_check(cudaMemcpyAsync(d, s, bytes, cudaMemcpyDeviceToDevice, cuda_stream()), "move");
        return;
    }
    for (size_t done = 0; done < bytes;) {
        const size_t n = bytes - done < (size_t)CUDA_SCRATCH ? bytes - done : (size_t)CUDA_SCRATCH,
                     at = d < s ? done : bytes - done - n;
        cuda_check(cudaMemcpyAsync(cuda_scratch(), s + at, n, cudaMemcpyDeviceToDevice, cuda_stream()), "move");
        cuda_check(cudaMemcpyAsync(d + at, cuda_scratch(), n, cudaMemcpyDeviceToDevice, cuda_stream()), "move");
        done += n;
    }
}
static int cuda_sync(Backend *b, Err *e) {
    cuda_check(cudaStreamSynchronize(cuda_stream()), "waiting for the device");
    if (!device.error[0]) return OK;
    const int rc = err_set(e, ERR_DEVICE, "%s: %s", b->name, device.error);
#ifdef CUDA_EMU
    device.error[0] = 0; // an emulated device recovers
    emu::error_clear();
#endif
    return rc;
}

// ---- calls kept as a graph ----
static void cuda_record_begin(Backend *) {
    device.spoilt =
        device.error[0] || cudaStreamBeginCapture(cuda_stream(), cudaStreamCaptureModeRelaxed) != cudaSuccess;
}
/* An error inside a capture is the capture's: the calls can still be made one by one, so nothing stays latched. */
static void cuda_record_end(Backend *, void **g) {
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    *g = NULL;
    if (device.spoilt) return;
    if (cudaStreamEndCapture(cuda_stream(), &graph) == cudaSuccess && !device.error[0] &&
        cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess)
        *g = exec;
    if (graph) cudaGraphDestroy(graph);
    if (*g) return;
    cudaGetLastError();
    device.error[0] = 0;
}
static void cuda_replay(Backend *, void *g) {
    cuda_check(cudaGraphLaunch((cudaGraphExec_t)g, cuda_stream()), "replay");
}
static void cuda_record_free(Backend *, void *g) {
    if (!g) return;
    cuda_check(cudaStreamSynchronize(cuda_stream()), "releasing a graph");
    cuda_check(cudaGraphExecDestroy((cudaGraphExec_t)g), "releasing a graph");
}

// ---- opening and closing ----
/* The rung of an op's ladder that the environment asks for; 0: the best. */
static int version_read(int *version, Err *e) {
    const char *v = getenv("HYB_CUDA_VERSION");
    *version = 0;
    if (!v) return OK;
    if (v[0] < '1' || v[0] > '6' || v[1])
        return err_set(e, ERR_USAGE, "HYB_CUDA_VERSION: got '%.40s', expected 1, 2, 3, 4, 5 or 6 (cuda/LADDER.md)", v);
    *version = v[0] - '0';
    return OK;
}
static int device_open(int index, const char *name, Err *e) {
    int version;
    TRY(version_read(&version, e));
    if (device.users) {
        if (device.index != index)
            return err_set(e, ERR_DEVICE, "%s: device: got a second device, expected device %d, which is open", name,
                           device.index);
        device.users++;
        return OK;
    }
    memset(&device, 0, sizeof device);
    int n = 0;
    const cudaError_t code = cudaGetDeviceCount(&n);
    if (code != cudaSuccess || index >= n) {
        cudaGetLastError();
        err_set(e, ERR_DEVICE, "%s: device: got %s, %d found, expected device %d", name,
                code == cudaSuccess ? "no such device" : cudaGetErrorString(code), n, index);
        return err_hint(e, "check nvidia-smi; without a GPU use --device cpu");
    }
    cudaDeviceProp about;
    cuda_check(cudaSetDevice(index), "choosing the device");
    cuda_check(cudaGetDeviceProperties(&about, index), "device properties");
    cuda_check(cudaStreamCreate(&device.stream), "creating a stream");
    cuda_check(cudaMalloc(&device.scratch, CUDA_SCRATCH), "scratch buffer");
    uploads_open(&device.up);
    if (device.error[0]) return err_set(e, ERR_DEVICE, "%s: %s", name, device.error);
    matmul_open();
    snprintf(device.about, sizeof device.about, "%.200s, %.0f GB, sm_%d%d, products by %s", about.name,
             about.totalGlobalMem / 1e9, about.major, about.minor, matmul_about());
    device.index = index, device.users = 1, device.sm = about.multiProcessorCount;
    device.shared = about.sharedMemPerBlockOptin;
    device.encode = find_encode();
    device.hopper = about.major == 9 && about.minor == 0;
#ifndef CUDA_EMU
    device.hopper = device.hopper && device.encode;
#endif
    device.version = version;
    return OK;
}
static void cuda_close(Backend *b) {
    State *s = (State *)b->state;
    while (s->n) cuda_release(b, s->held[s->n - 1].p);
    mem_free(s->held);
    mem_free(s);
    mem_free(b);
    if (--device.users) return;
    matmul_close();
    uploads_close(&device.up);
    cudaFree(device.scratch);
    cudaStreamDestroy(device.stream);
    memset(&device, 0, sizeof device);
}

/* "PREFIX", "PREFIX-bf16", each with an optional ":index". */
static int name_parse(const char *name, int *bits, int *index, Err *e) {
    const char *p = name + (strncmp(name, PREFIX, strlen(PREFIX)) ? 0 : strlen(PREFIX));
    *bits = 32, *index = 0;
    if (p > name && !strncmp(p, "-bf16", 5)) *bits = 16, p += 5;
    if (p > name && *p == ':' && p[1] >= '0' && p[1] <= '9') {
        char *end;
        *index = (int)strtol(p + 1, &end, 10);
        p = end;
    }
    if (p > name && !*p) return OK;
    return err_set(e, ERR_USAGE, "backend: got \"%.40s\", expected " PREFIX "[-bf16][:index]", name);
}

extern "C" int SIDE(backend_open)(Backend **out, const char *name, int threads, Err *e) {
    (void)threads;
    int bits, index;
    void *p, *q;
    *out = NULL;
    TRY(name_parse(name, &bits, &index, e));
    TRY(device_open(index, name, e));
    const int rc = mem_alloc(&p, sizeof(Backend), "backend", e);
    if (rc || mem_alloc(&q, sizeof(State), "backend", e)) {
        if (!rc) mem_free(p);
        device.users--;
        return ERR_MEMORY;
    }
    Backend *b = (Backend *)p;
    State *s = (State *)q;
    snprintf(s->name, sizeof s->name, "%.31s", name);
    b->name = s->name, b->state = s;
    b->op = bits == 16 ? (const Ops *)&SIDE(ops16) : (const Ops *)&SIDE(ops32);
    b->real_type = bits == 16 ? DT_BF16 : DT_F32, b->wide_type = DT_F32;
    b->real_size = bits / 8, b->wide_size = 4;
    b->alloc = cuda_alloc, b->release = cuda_release, b->zero = cuda_zero, b->upload = cuda_upload,
    b->download = cuda_download;
    b->move = cuda_move, b->free_memory = cuda_free_memory, b->sync = cuda_sync, b->close = cuda_close;
    b->record_begin = cuda_record_begin, b->record_end = cuda_record_end, b->replay = cuda_replay,
    b->record_free = cuda_record_free;
    b->threads = device.sm;
#if defined(CUDA_EMU) && defined(__SANITIZE_ADDRESS__)
    b->host = 1; // it is host memory, and the arenas' red zones between tensors are to be left alone
#else
    b->host = 0;
#endif
    *out = b;
    return OK;
}
extern "C" void SIDE(backend_memory)(const Backend *b, size_t *now, size_t *peak) {
    const State *s = (const State *)b->state;
    *now = s->now, *peak = s->peak;
}
extern "C" const char *SIDE(backend_describe)(const Backend *) { return device.about; }
#ifdef CUDA_EMU
extern "C" void cuda_emu_seed(unsigned long long seed) { emu::seed(seed); }
extern "C" void cuda_emu_work(unsigned long long *launches, unsigned long long *copies) {
    const emu::Counts c = emu::counts();
    *launches = c.launches, *copies = c.copies;
}
extern "C" void cuda_emu_defer(int on) { emu::defer(on); }
#endif
