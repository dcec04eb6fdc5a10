/* bench.cu - times every BF16 op on a device at the shapes of a 3B model, beside what bounds it:
 * both ceilings (device-to-device copy, BF16 matrix product) are measured in the same run.
 * Medians over device events after a warm-up; inputs are random and rotate through
 * several sets, so that repeated runs do not read the cache. `limit` is the larger of bytes / copy rate and operations
 * / matrix rate, every input read once and every output written once; `target`, where there is one, is what the project
 * asks for on an H200.
 *   gpu_bench [CSV] [ops|models|first] [--only TEXT] [--once] [--version plain|tiles|mma|ring|wide|wgmma|1..6] [--list]
 * first: the twelve rows that matter. Rows run in a child process: an illegal address ends everything that its process
 * does with the device, and another child goes on behind the row that was lost. --once: one launch of each row's op and
 * no timing, in this process, for ncu. --version: a rung of cuda/LADDER.md.
 * Compiled for the emulator (gpu-bench-emu) it walks the same rows at tiny shapes, to show that every row runs;
 * times mean nothing there. */
#include "launch.h"
#include "cuda_backend.h"
#include "bench_model.h"
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#ifdef CUDA_EMU
#define SIDE(name) cuda_emu_##name
enum { SMALL = 1 };
static const char *const BACKEND = "cuda-emu-bf16";
#else
#define SIDE(name) cuda_##name
enum { SMALL = 0 };
static const char *const BACKEND = "cuda-bf16";
#endif
extern "C" const Ops16 SIDE(ops16);
static const Ops16 &op = SIDE(ops16);
static Backend *be;
static double copy_rate = 4.0e12, matrix_rate = 790e12; // replaced by what is measured
static FILE *csv;
static int once; /* --once */

static void stop_on_error(const char *what) {
    Err e = {};
    if (be->sync(be, &e)) {
        printf("%s: %s\n", what, e.msg);
        exit(1);
    }
}
__global__ void fill_kernel(Bf16 *p, size_t n, float scale, float shift, unsigned seed) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        unsigned long long x = (i + 1) * 6364136223846793005ull + seed * 1442695040888963407ull;
        x ^= x >> 33, x *= 0xff51afd7ed558ccdull, x ^= x >> 33;
        p[i] = Bf16(shift + scale * ((float)(unsigned)(x >> 40) * (2.0f / 16777216.0f) - 1.0f));
    }
}
__global__ void fill_wide_kernel(float *p, size_t n, float scale, float shift, unsigned seed) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        unsigned long long x = (i + 1) * 6364136223846793005ull + seed * 1442695040888963407ull;
        x ^= x >> 33, x *= 0xff51afd7ed558ccdull, x ^= x >> 33;
        p[i] = shift + scale * ((float)(unsigned)(x >> 40) * (2.0f / 16777216.0f) - 1.0f);
    }
}
static std::vector<void *> held;
static void *take(size_t bytes) {
    void *p;
    Err e = {};
    if (be->alloc(be, &p, bytes, "bench", &e)) printf("%s\n", e.msg), exit(1);
    held.push_back(p);
    return p;
}
static void give_back() {
    for (void *p : held) be->release(be, p);
    held.clear();
}
static unsigned seed = 1;
enum { FILL_BLOCKS = SMALL ? 2 : 2048 };
static Bf16 *real_of(size_t n, float scale = 1, float shift = 0) {
    Bf16 *p = (Bf16 *)take(n * 2);
    LAUNCH(fill_kernel, FILL_BLOCKS, 256, 0, p, n, scale, shift, seed++);
    return p;
}
static float *wide_of(size_t n, float scale = 1, float shift = 0) {
    float *p = (float *)take(n * 4);
    LAUNCH(fill_wide_kernel, FILL_BLOCKS, 256, 0, p, n, scale, shift, seed++);
    return p;
}
static int *ids_of(size_t n, int below) {
    std::vector<int> h(n);
    for (size_t i = 0; i < n; i++) h[i] = (int)((i * 2654435761u + 12345u) % (unsigned)below);
    int *p = (int *)take(n * 4);
    be->upload(be, p, h.data(), n * 4);
    return p;
}

/* Milliseconds on the device between begin and end. */
struct Timer {
#ifdef CUDA_EMU
    std::chrono::steady_clock::time_point from;
    void begin() { from = std::chrono::steady_clock::now(); }
    float end() { return std::chrono::duration<float, std::milli>(std::chrono::steady_clock::now() - from).count(); }
#else
    cudaEvent_t a, b;
    Timer() { cudaEventCreate(&a), cudaEventCreate(&b); }
    ~Timer() { cudaEventDestroy(a), cudaEventDestroy(b); }
    void begin() { cudaEventRecord(a, cuda_stream()); }
    float end() {
        float ms = 0;
        cudaEventRecord(b, cuda_stream()), cudaEventSynchronize(b), cudaEventElapsedTime(&ms, a, b);
        return ms;
    }
#endif
};
/* Median milliseconds of run(i), i which set of inputs. */
static double time_ms(const std::function<void(int)> &run) {
    Timer timer;
    for (int i = 0; i < (SMALL ? 1 : 3); i++) run(i);
    stop_on_error("warm-up");
    // an idle device starts its first launch 4 to 7 us after the event: short ops are timed several at once
    int group = 1;
    if (!SMALL) timer.begin(), run(0), group = timer.end() < 0.3f ? 16 : 1;
    std::vector<float> t;
    double total = 0;
    for (int i = 0; i < (SMALL ? 1 : 200) && (total < 300 || i < 5) && total < 3000; i++) {
        timer.begin();
        for (int k = 0; k < group; k++) run(i + k);
        const float ms = timer.end();
        t.push_back(ms / (float)group);
        total += ms;
    }
    stop_on_error("timing");
    std::sort(t.begin(), t.end());
    return t[t.size() / 2];
}
/* target: milliseconds; 0: none; below 0: that share of the limit (-0.85: at least 85 % of it). */
static void report(const char *name, const char *shape, double bytes, double flops, double target,
                   const std::function<void(int)> &run) {
    if (once) {
        run(0);
        stop_on_error(name);
        printf("%-22s %-34s ran once\n", name, shape);
        return give_back();
    }
    const double ms = time_ms(run), limit = std::max(bytes / copy_rate, flops / matrix_rate) * 1e3;
    if (target < 0) target = limit / -target;
    char asked[48] = "";
    if (target > 0) snprintf(asked, sizeof asked, "  target %8.3f ms %s", target, ms <= target ? "reached" : "-");
    printf("%-22s %-34s %9.3f ms %7.0f GB/s %6.0f TFLOP/s  limit %8.3f ms  %5.1f %%%s\n", name, shape, ms,
           bytes / ms / 1e6, flops / ms / 1e9, limit, 100 * limit / ms, asked);
    fflush(stdout);
    if (csv)
        fprintf(csv, "%s,%s,%.6f,%.6g,%.6g,%.6f,%.6f\n", name, shape, ms, bytes, flops, limit, target), fflush(csv);
    give_back();
}

static void ceilings() {
    const size_t n = SMALL ? 1 << 16 : (size_t)4 << 30;
    char *a = (char *)take(n), *b = (char *)take(n);
    const double ms = time_ms([&](int) { be->move(be, a, b, n); });
    copy_rate = 2 * n / ms * 1e3;
    give_back();
    const int N = SMALL ? 64 : 8192;
    Bf16 *x = real_of((size_t)N * N), *w = real_of((size_t)N * N), *y = real_of((size_t)N * N);
    const double mm = time_ms([&](int) { op.linear_forward(y, x, w, NULL, N, N, N); });
    matrix_rate = 2.0 * N * N * N / mm * 1e3;
    give_back();
    printf("ceilings: copy %.0f GB/s (read + written), bf16 product %.0f TFLOP/s\n", copy_rate / 1e9,
           matrix_rate / 1e12);
}

/* The model: Qwen2.5-3B; N rows of a micro-batch of 4 x 4096. */
enum { T4 = SMALL ? 8 : 4096, N = 4 * T4, H = SMALL ? 2 : 16, HK = SMALL ? 1 : 2, D = 128, C = H * D };
enum { F = SMALL ? 512 : 11008, VOC = SMALL ? 500 : 151936, SETS = SMALL ? 1 : 3, ADAMW = SMALL ? 5000 : 500000000 };
const double ROWS = -0.85; // memory-bound ops: 85 % of the copy bandwidth
/* The same where a weight's gradient reads the inputs a second time: `moved` bytes an element for `counted`. */
static double rows_twice(double counted, double moved) { return ROWS * counted / moved; }

/* ---- the rows, in the order in which they run ---- */

struct Row {
    std::string name;
    int first; /* one of those that matter */
    std::function<void()> run;
};
static std::vector<Row> rows;
static void row(const char *name, std::function<void()> run, int first = 0) { rows.push_back({name, first, run}); }
#define ROW(name, ...) row(name, [] { __VA_ARGS__; })
#define ROW_FIRST(name, ...)                                                                                           \
    row(                                                                                                               \
        name, [] { __VA_ARGS__; }, 1)

static const double NC = (double)N * C, NF = (double)N * F;
static Bf16 *x[SETS], *y[SETS], *z[SETS], *d[SETS], *e[SETS], *w;
static float *r, *dw;
static void sets(double n) {
    for (int s = 0; s < SETS; s++)
        for (Bf16 **p : {&x[s], &y[s], &z[s], &d[s], &e[s]}) *p = real_of((size_t)n);
}
static void weights(size_t c, size_t rows_of) {
    w = real_of(c, 0.1f, 1), r = wide_of(rows_of, 0.1f, 1), dw = wide_of(c);
}

static void embed_rows() {
    int *ids = ids_of(N, VOC);
    Bf16 *table = real_of((size_t)VOC * C), *out = real_of((size_t)N * C);
    float *dtable = wide_of((size_t)VOC * C);
    const double t = once ? 0 : time_ms([&](int) { op.embed_forward(out, table, ids, N, C, VOC); });
    if (!once) printf("%-22s %-34s %9.3f ms %7.0f GB/s\n", "embed", "N C", t, NC * 4 / t / 1e6);
    report("embed backward", "N C", NC * 10, 0, ROWS, [&](int) { op.embed_backward(dtable, out, ids, N, C, VOC); });
}
static void adamw_rows() {
    enum { TENSORS = 100 }; // of one step
    const size_t n = ADAMW;
    float *p = wide_of(n), *m = wide_of(n), *v = wide_of(n, 0.5f, 0.5f), *g = wide_of(n);
    Bf16 *b = real_of(n);
    double *out = (double *)take(8 * TENSORS);
    Trained16 list[TENSORS] = {};
    for (int k = 0; k < TENSORS; k++) {
        const size_t at = n / TENSORS * k;
        list[k] = {p + at, b + at, m + at, v + at, g + at, n / TENSORS, 1e-4, 0.1};
    }
    const double t = once ? 0 : time_ms([&](int) { op.sumsq(out, list, TENSORS); });
    if (!once) printf("%-22s %-34s %9.3f ms %7.0f GB/s\n", "sumsq", "500M", t, n * 4.0 / t / 1e6);
    report("adamw", "500M", n * 30.0, 0, ROWS, [&](int) { op.adamw(list, 1, 0.9, 0.95, 1e-8, 10, 0, TENSORS); });
}
#define S (i % SETS)
static void row_ops() {
    ROW("add", sets(NC); report("add", "N C", NC * 6, 0, ROWS, [&](int i) { op.add(y[S], x[S], z[S], (size_t)NC); }));
    ROW_FIRST("rmsnorm", sets(NC); weights(C, N); report(
                  "rmsnorm", "N C", NC * 4, 0, ROWS, [&](int i) { op.rmsnorm_forward(y[S], r, x[S], w, 1e-6, N, C); }));
    ROW("add + rmsnorm", sets(NC); weights(C, N); report("add + rmsnorm", "N C", NC * 8, 0, ROWS, [&](int i) {
            op.add_rmsnorm_forward(d[S], y[S], r, x[S], z[S], w, 1e-6, N, C);
        }));
    ROW("rmsnorm backward", sets(NC); weights(C, N);
        report("rmsnorm backward", "N C", NC * 8, 0, rows_twice(8, 12),
               [&](int i) { op.rmsnorm_backward(d[S], dw, y[S], x[S], w, r, N, C); }));
    ROW("gated_rmsnorm", sets(NC); weights(D, (size_t)N * H);
        report("gated_rmsnorm", "N H, D", NC * 6, 0, ROWS,
               [&](int i) { op.gated_rmsnorm_forward(y[S], r, x[S], z[S], w, 1e-5, N * H, D); }));
    ROW("gated_rmsnorm backward", sets(NC); weights(D, (size_t)N * H);
        report("gated_rmsnorm backward", "N H, D", NC * 14, 0, rows_twice(14, 20),
               [&](int i) { op.gated_rmsnorm_backward(d[S], e[S], dw, y[S], x[S], z[S], w, r, N * H, D); }));
    ROW("l2norm", sets(NC); weights(D, (size_t)N * H);
        report("l2norm", "N H, D", NC * 4, 0, ROWS, [&](int i) { op.l2norm_forward(y[S], r, x[S], 1e-6, N * H, D); }));
    ROW("l2norm backward", sets(NC); weights(D, (size_t)N * H);
        report("l2norm backward", "N H, D", NC * 8, 0, ROWS,
               [&](int i) { op.l2norm_backward(d[S], x[S], y[S], r, N * H, D); }));
    ROW("swiglu", sets(NF);
        report("swiglu", "N F", NF * 6, 0, ROWS, [&](int i) { op.swiglu_forward(y[S], x[S], z[S], (size_t)NF); }));
    ROW("swiglu backward", sets(NF); report("swiglu backward", "N F", NF * 14, 0, ROWS, [&](int i) {
            op.swiglu_backward(d[S], e[S], y[S], x[S], z[S], (size_t)NF);
        }));
    ROW("rope", sets(NC); r = wide_of(T4 * D); report("rope", "4 4096 16 128", NC * 4, 0, ROWS,
                                                      [&](int i) { op.rope_forward(y[S], x[S], r, 0, 4, T4, H, D); }));
    ROW("conv", sets(NC); w = real_of(C * 4); report("conv", "4 4096 2048, W 4", NC * 4, 0, ROWS, [&](int i) {
            op.conv_forward(y[S], NULL, x[S], w, NULL, NULL, 4, T4, C, 4);
        }));
    ROW("conv backward", sets(NC); w = real_of(C * 4); dw = wide_of(C * 4);
        report("conv backward", "4 4096 2048, W 4", NC * 8, 0, rows_twice(8, 10),
               [&](int i) { op.conv_backward(d[S], dw, y[S], x[S], w, NULL, 4, T4, C, 4); }));
    ROW("align_loss", sets(NC); r = wide_of(N); report("align_loss", "N C", NC * 8, 0, ROWS, [&](int i) {
            op.align_loss(r, d[S], x[S], y[S], 1e-4, ALIGN_NORM, N, C);
        }));
    ROW("embed", embed_rows());
    ROW_FIRST("adamw", adamw_rows());
}
#undef S
static void linear_op(int rows, int I, int O) {
    char shape[64];
    snprintf(shape, sizeof shape, "%d x %d x %d", rows, I, O);
    Bf16 *x = real_of((size_t)rows * I), *w = real_of((size_t)O * I), *y = real_of((size_t)rows * O),
         *dx = real_of((size_t)rows * I);
    float *dw = wide_of((size_t)O * I);
    const double f = 2.0 * rows * I * O, bytes = 2.0 * ((double)rows * I + (double)O * I + (double)rows * O);
    const double t = once ? 0 : time_ms([&](int) { op.linear_backward(dx, dw, NULL, y, x, w, rows, I, O); });
    if (!once) printf("%-22s %-34s %9.3f ms %21.0f TFLOP/s\n", "linear backward", shape, t, 2 * f / t / 1e9);
    report("linear", shape, bytes, f, 0, [&](int) { op.linear_forward(y, x, w, NULL, rows, I, O); });
}
static void attention_op(int B, int T, int heads, int key_heads, int backward) {
    const AttnDims d = {B, T, 0, 0, heads, key_heads, D, 0};
    const size_t nq = (size_t)B * T * heads * D, nk = (size_t)B * T * key_heads * D;
    Bf16 *q = real_of(nq), *k = real_of(nk), *v = real_of(nk), *o = real_of(nq), *g = real_of(nq), *dq = real_of(nq),
         *dk = real_of(nk), *dv = real_of(nk);
    float *lse = wide_of(nq / D);
    void *work = take(attention_work(&d));
    const double f = 2.0 * B * heads * (double)T * T * D; // causal: half of 4 B H T^2 D
    char shape[64];
    snprintf(shape, sizeof shape, "B %d T %d H %d/%d D %d", B, T, heads, key_heads, D);
    op.attention_forward(o, lse, q, k, v, NULL, 0.088, work, &d);
    if (backward)
        report("attention backward", shape, 2.0 * (5 * nq + 6 * nk), 2.5 * f, 0,
               [&](int) { op.attention_backward(dq, dk, dv, g, o, lse, q, k, v, NULL, 0.088, work, &d); });
    else
        report("attention", shape, 2.0 * (2 * nq + 2 * nk), f, 0,
               [&](int) { op.attention_forward(o, lse, q, k, v, NULL, 0.088, work, &d); });
}
enum MixerOp { DELTA_RULE, GLA, KDA };
static const char *const MIXER[][3] = {{"delta_rule", "delta_rule backward", "delta_rule decode"},
                                       {"gla", "gla backward", "gla decode"},
                                       {"kda", "kda backward", "kda decode"}};
/* per head-token, cpu/SPEED.md: operations and bytes, forward and backward. KDA has the delta rule's products and
 * a decay (float, and its gradient) for each of 128 channels. The chunk states in bf16 are 512 bytes per head-token on
 * top of that table. */
static const double MIXER_FLOPS[][2] = {{166.6e3, 409.6e3}, {98.3e3, 245.8e3}, {166.6e3, 409.6e3}},
                    MIXER_BYTES[][2] = {{1164, 2448}, {1536, 3840}, {1672, 3464}};
static void mixer_forward(MixerOp m, Bf16 *o, Bf16 *states, float *state, Bf16 *q, Bf16 *k, Bf16 *v, float *g,
                          float *beta, void *work, const DeltaDims *d) {
    if (m == GLA) op.gla_forward(o, states, state, q, k, v, g, NULL, 0.088, work, d);
    else (m == KDA ? op.kda_forward : op.delta_rule_forward)(o, states, state, q, k, v, g, beta, NULL, 0.088, work, d);
}
static void mixer_op(int B, int T, int heads, MixerOp m, int backward, double target) {
    const DeltaDims d = {B, T, heads, heads, D, D, 64};
    const size_t n = (size_t)B * T * heads * D, bh = n / D, gates = m == DELTA_RULE ? bh : n;
    Bf16 *q = real_of(n, 0.1f), *k = real_of(n, 0.15f), *v = real_of(n), *o = real_of(n), *g = real_of(n),
         *dq = real_of(n), *dk = real_of(n), *dv = real_of(n);
    float *decay = wide_of(gates, 0.05f, -0.05f), *beta = wide_of(bh, 0.5f, 0.5f), *dg = wide_of(gates),
          *db = wide_of(bh);
    Bf16 *states = real_of(delta_states(&d), 0);
    float *state = wide_of((size_t)B * heads * D * D, 0), *ds = wide_of((size_t)B * heads * D * D);
    void *work = take(m == KDA ? kda_work(&d) : delta_rule_work(&d));
    char shape[64];
    snprintf(shape, sizeof shape, "B %d T %d H %d, 128", B, T, heads);
    const double flops = MIXER_FLOPS[m][backward] * (double)bh,
                 bytes = (MIXER_BYTES[m][backward] + (backward ? 512 : 0)) * (double)bh;
    Bf16 *kept = backward ? states : NULL; // inference keeps none, and neither do the peers
    auto forward = [&](int) { mixer_forward(m, o, kept, state, q, k, v, decay, beta, work, &d); };
    forward(0);
    if (!backward) return report(MIXER[m][0], shape, bytes, flops, target, forward);
    report(MIXER[m][1], shape, bytes, flops, target, [&](int) {
        if (m == GLA) op.gla_backward(dq, dk, dv, dg, ds, g, states, q, k, v, decay, NULL, 0.088, work, &d);
        else
            (m == KDA ? op.kda_backward : op.delta_rule_backward)(dq, dk, dv, dg, db, ds, g, states, q, k, v, decay,
                                                                  beta, NULL, 0.088, work, &d);
    });
}
/* One new token: attention over a cache, and the recurrent mixers, whose state is read and written once. */
static void attention_decode() {
    const int B = SMALL ? 2 : 8, past = SMALL ? 300 : 32767;
    char shape[64];
    const AttnDims dims = {B, 1, past, 0, H, HK, D, 0};
    const size_t nk = (size_t)B * (past + 1) * HK * D;
    Bf16 *q = real_of((size_t)B * H * D), *k = real_of(nk), *v = real_of(nk), *o = real_of((size_t)B * H * D);
    float *lse = wide_of((size_t)B * H);
    void *work = take(attention_work(&dims));
    snprintf(shape, sizeof shape, "B %d, 1 of %d, H %d/%d D %d", B, past + 1, H, HK, D);
    report("attention decode", shape, 4.0 * nk, 0, ROWS,
           [&](int) { op.attention_forward(o, lse, q, k, v, NULL, 0.088, work, &dims); });
}
static void mixer_decode(MixerOp m) {
    const int heads = SMALL ? 2 : 32, many = SMALL ? 2 : 64;
    char shape[64];
    const DeltaDims dims = {many, 1, heads, heads, D, D, 1};
    const size_t n = (size_t)many * heads * D;
    Bf16 *q = real_of(n, 0.1f), *k = real_of(n, 0.1f), *v = real_of(n), *o = real_of(n);
    float *g = wide_of(n, 0.05f, -0.05f), *beta = wide_of(n / D, 0.5f, 0.5f), *state = wide_of(n * D);
    void *work = take(m == KDA ? kda_work(&dims) : delta_rule_work(&dims));
    snprintf(shape, sizeof shape, "B %d, 1 token, H %d, 128", many, heads);
    report(MIXER[m][2], shape, 8.0 * n * D, 0, ROWS,
           [&](int) { mixer_forward(m, o, NULL, state, q, k, v, g, beta, work, &dims); });
}
static void head_op(int rows, int voc, int kl) {
    const HeadDims d = {rows, C, C, voc, SMALL ? 16 : 4096}; // loss.c takes as many
    Bf16 *x = real_of((size_t)rows * C), *w = real_of((size_t)voc * C, 0.05f), *xt = real_of((size_t)rows * C),
         *wt = real_of((size_t)voc * C, 0.05f), *dx = real_of((size_t)rows * C);
    float *dw = wide_of((size_t)voc * C), *loss = wide_of(rows);
    int *target = ids_of(rows, voc);
    void *work = take((size_t)d.block * 2 * d.VOC * sizeof(Bf16)); // two blocks of logits
    char shape[64];
    snprintf(shape, sizeof shape, "%d rows, C %d, VOC %d", rows, C, voc);
    const double f = 2.0 * rows * (double)C * voc;
    if (kl)
        report("head_kl", shape, 10.0 * rows * voc, 4 * f, SMALL ? 0 : 40,
               [&](int) { op.head_kl(loss, dx, dw, x, w, xt, wt, NULL, 1, work, &d); });
    else
        report("head_xent", shape, 6.0 * rows * voc, 3 * f, 0,
               [&](int) { op.head_xent(loss, NULL, dx, dw, x, w, target, NULL, work, &d); });
}

/* Whole steps with random weights: filled on the device, since a CPU would take a minute a model. */
static void fill_weights(void *p, size_t bytes) {
    LAUNCH(fill_kernel, FILL_BLOCKS, 256, 0, (Bf16 *)p, bytes / 2, 0.03f, 0.0f, seed++);
}

static void attention_row(int B, int T, int backward, int first) {
    char name[64];
    snprintf(name, sizeof name, "attention%s %dx%d", backward ? " backward" : "", B, T);
    row(
        name, [=] { attention_op(B, T, H, HK, backward); }, first);
}
static void mixer_row(int B, int T, int heads, MixerOp m, int backward, double target, int first) {
    char name[64];
    snprintf(name, sizeof name, "%s %dx%dx%d", MIXER[m][backward], B, T, heads);
    row(
        name, [=] { mixer_op(B, T, heads, m, backward, target); }, first);
}
static void op_rows() {
    row_ops();
    ROW_FIRST("linear up", linear_op(N, C, F));
    ROW("linear down", linear_op(N, F, C));
    ROW("linear square", linear_op(N, C, C));
    ROW_FIRST("attention decode", attention_decode());
    for (MixerOp m : {DELTA_RULE, GLA, KDA}) row(MIXER[m][2], [=] { mixer_decode(m); });
    for (int backward = 0; backward < 2; backward++) {
        if (SMALL) {
            attention_row(1, 70, backward, 1);
            for (MixerOp m : {DELTA_RULE, GLA, KDA}) mixer_row(1, 70, 2, m, backward, 0, 1);
            continue;
        }
        attention_row(4, 4096, backward, 1), attention_row(32, 512, backward, 0), attention_row(1, 32768, backward, 0);
        mixer_row(1, 8192, 32, DELTA_RULE, backward, backward ? 0 : 0.35, 1);
        mixer_row(4, 8192, 32, DELTA_RULE, backward, backward ? 0 : 0.9, 0);
        mixer_row(1, 32768, 32, DELTA_RULE, backward, backward ? 2.6 : 0, backward);
        mixer_row(96, 512, 16, DELTA_RULE, backward, 0, 0);
        mixer_row(1, 8192, 96, GLA, backward, backward ? 0 : 0.8, !backward),
            mixer_row(96, 512, 16, GLA, backward, 0, 0);
        mixer_row(4, 8192, 32, KDA, backward, 0, !backward), mixer_row(96, 512, 16, KDA, backward, 0, 0);
    }
    ROW_FIRST("head_kl", head_op(SMALL ? 40 : 8192, SMALL ? (int)VOC : 128256, 1));
    ROW("head_xent", head_op(SMALL ? 40 : 8192, SMALL ? (int)VOC : 128256, 0));
}
static void step_rows() {
    for (int i = 0; i < bench_model_count(SMALL); i++)
        row(bench_model_name(SMALL, i), [=] {
            Err err = {};
            if (bench_model(be, SMALL, i, fill_weights, matrix_rate, &err) && err.code != ERR_MEMORY)
                printf("%s\n", err.msg), exit(1);
        });
#ifdef CUDA_EMU
    ROW(
        "launches", Err err = {}; if (bench_launches(be, cuda_emu_work, &err)) { printf("%s\n", err.msg), exit(1); });
#endif
}

/* ---- running them ---- */

enum { ROW_SECONDS = SMALL ? 600 : 60, NO_DEVICE = 3 };
/* What children leave for the next one: the row that runs, and the ceilings. */
static struct Shared {
    size_t at;
    double copy_rate, matrix_rate;
} * shared;

static int open_device() {
    Err err = {};
    if (SIDE(backend_open)(&be, BACKEND, 0, &err)) return printf("%s\n", err.msg), NO_DEVICE;
    if (SMALL || strstr(SIDE(backend_describe)(be), "by cuBLASLt")) return 0;
    printf("%s\nproducts would run on a kernel of 3 TFLOP/s: no timing without cuBLASLt; put its folder into "
           "LD_LIBRARY_PATH\n",
           SIDE(backend_describe)(be));
    return NO_DEVICE;
}
static int open_and_measure() {
    const int rc = open_device();
    if (rc || once) return rc;
    if (!shared->copy_rate) {
        printf("%s\n", SIDE(backend_describe)(be));
        ceilings();
        shared->copy_rate = copy_rate, shared->matrix_rate = matrix_rate;
    }
    copy_rate = shared->copy_rate, matrix_rate = shared->matrix_rate;
    return 0;
}
static void run_from(const std::vector<size_t> &chosen) {
    const int rc = open_and_measure();
    fflush(stdout);
    if (rc) _exit(rc);
    for (; shared->at < chosen.size(); shared->at++) {
        alarm(ROW_SECONDS);
        const char *fault = getenv("BENCH_FAULT"); // to see that one row is lost, and only one
        if (fault && rows[chosen[shared->at]].name == fault) abort();
        rows[chosen[shared->at]].run();
        fflush(stdout);
    }
    alarm(0);
    be->close(be);
}
/* The number of rows that were lost, or NO_DEVICE below 0. */
static int run_in_children(const std::vector<size_t> &chosen) {
    int lost = 0;
    while (shared->at < chosen.size()) {
        int status = 0;
        fflush(stdout);
        const pid_t child = fork();
        if (child == 0) run_from(chosen), fflush(stdout), csv &&fflush(csv), _exit(0);
        if (child < 0 || waitpid(child, &status, 0) != child) return printf("no process\n"), -NO_DEVICE;
        if (WIFEXITED(status) && WEXITSTATUS(status) == NO_DEVICE) return -NO_DEVICE;
        if (!status) break;
        printf("%-22s LOST: %s %d\n", rows[chosen[shared->at]].name.c_str(),
               WIFSIGNALED(status) ? "ended by signal" : "ended with code",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        lost++, shared->at++;
    }
    return lost;
}
static int version_of(const char *name) {
    static const char *const names[] = {"plain", "tiles", "mma", "ring", "wide", "wgmma"};
    for (int i = 0; i < 6; i++)
        if (!strcmp(name, names[i]) || (name[0] == '1' + i && !name[1])) return i + 1;
    return 0;
}
static int usage() {
    return printf(
               "usage: gpu_bench [CSV] [ops|models|first] [--only TEXT] [--once] [--version plain|tiles|mma|ring|wide|"
               "wgmma|1..6] [--list]\n"),
           2;
}

int main(int argc, char **argv) {
    const char *path = NULL, *part = "", *only = "";
    int list = 0;
    for (int i = 1; i < argc; i++) {
        const std::string a = argv[i];
        if (a == "--once") once = 1;
        else if (a == "--list") list = 1;
        else if (a == "--only" && i + 1 < argc) only = argv[++i];
        else if (a == "--version" && i + 1 < argc && version_of(argv[i + 1])) {
            const char digit[2] = {(char)('0' + version_of(argv[++i])), 0};
            setenv("HYB_CUDA_VERSION", digit, 1);
        } else if (a == "ops" || a == "models" || a == "first") part = argv[i];
        else if (a[0] == '-' || path) return usage();
        else path = argv[i];
    }
    if (strcmp(part, "models")) op_rows();
    if (strcmp(part, "ops") && strcmp(part, "first") && !once) step_rows();
    std::vector<size_t> chosen;
    for (size_t i = 0; i < rows.size(); i++)
        if ((strcmp(part, "first") || rows[i].first) && rows[i].name.find(only) != std::string::npos)
            chosen.push_back(i);
    if (list) {
        for (size_t i : chosen) printf("%s\n", rows[i].name.c_str());
        return 0;
    }
    if (chosen.empty()) return printf("gpu_bench: no row has \"%s\" in its name (--list)\n", only), 2;
    csv = path ? fopen(path, "a") : NULL;
    shared = (Shared *)mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (once) return run_from(chosen), 0;
    const int lost = run_in_children(chosen);
    if (csv) fclose(csv);
    if (lost > 0) printf("%d rows lost\n", lost);
    return lost != 0;
}
