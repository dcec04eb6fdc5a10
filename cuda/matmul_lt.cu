/* matmul_lt.cu - matrix products by cuBLASLt, loaded at run time. Row-major c = op(a) op(b) is column-major c' = op(b)'
 * op(a)'. */
#include "launch.h"
#include "matmul.h"
#ifdef CUDA_EMU
namespace CUDA_SIDE {
void matmul_open(void) {}
void matmul_close(void) {}
const char *matmul_about(void) { return "our own kernel"; }
int matmul_library(void *, const void *, const void *, const void *, const MatmulShape *) { return 1; }
} // namespace CUDA_SIDE
#else
#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

namespace CUDA_SIDE {
static struct {
    decltype(&cublasLtCreate) create;
    decltype(&cublasLtDestroy) destroy;
    decltype(&cublasLtMatmul) matmul;
    decltype(&cublasLtMatmulDescCreate) desc;
    decltype(&cublasLtMatmulDescSetAttribute) desc_set;
    decltype(&cublasLtMatrixLayoutCreate) layout;
    decltype(&cublasLtMatmulPreferenceCreate) pref;
    decltype(&cublasLtMatmulPreferenceSetAttribute) pref_set;
    decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
} lt;
static const struct {
    const char *name;
    void **to;
} CALLS[] = {{"cublasLtCreate", (void **)&lt.create},
             {"cublasLtDestroy", (void **)&lt.destroy},
             {"cublasLtMatmul", (void **)&lt.matmul},
             {"cublasLtMatmulDescCreate", (void **)&lt.desc},
             {"cublasLtMatmulDescSetAttribute", (void **)&lt.desc_set},
             {"cublasLtMatrixLayoutCreate", (void **)&lt.layout},
             {"cublasLtMatmulPreferenceCreate", (void **)&lt.pref},
             {"cublasLtMatmulPreferenceSetAttribute", (void **)&lt.pref_set},
             {"cublasLtMatmulAlgoGetHeuristic", (void **)&lt.heuristic}};

const size_t WORKSPACE = 32 << 20; // what NVIDIA recommends for Hopper
enum { PLANS = 256 };              // shapes seen so far; a model has a few dozen
struct Plan {
    MatmulShape shape;
    unsigned align[3];
    bool bias, used, works;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
};
static void *library;
static cublasLtHandle_t handle;
static void *workspace;
static Plan plan[PLANS];

void matmul_open(void) {
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    for (int i = 0; i < 3 && !library; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    bool all = true;
    for (const auto &call : CALLS) all = (*call.to = dlsym(library, call.name)) && all;
    if (!all || cudaMalloc(&workspace, WORKSPACE) != cudaSuccess) {
        workspace = NULL;
        return;
    }
    if (lt.create(&handle) != CUBLAS_STATUS_SUCCESS) handle = NULL;
}
void matmul_close(void) {
    if (handle) lt.destroy(handle);
    if (workspace) cudaFree(workspace);
    handle = NULL, workspace = NULL; // descriptors and the library stay for the life of the process
}
const char *matmul_about(void) { return handle ? "cuBLASLt" : "our own kernel (cuBLASLt not found)"; }

static unsigned alignment(const void *p) {
    const uintptr_t u = (uintptr_t)p | 256;
    return (unsigned)(u & (~u + 1));
}
static bool plan_matches(const Plan *p, const MatmulShape *s, const unsigned *align, bool bias) {
    return p->used && p->bias == bias && !memcmp(&p->shape, s, sizeof *s) && !memcmp(p->align, align, sizeof p->align);
}
/* Descriptors and the library's choice of algorithm for one shape; p->works says whether there is one. */
static void plan_make(Plan *p, const MatmulShape *s, const unsigned *align, const void *bias) {
    const cudaDataType_t in = s->in == MATMUL_BF16 ? CUDA_R_16BF : CUDA_R_32F,
                         out = s->out == MATMUL_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    const cublasOperation_t op_first = s->tb ? CUBLAS_OP_T : CUBLAS_OP_N, op_second = s->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    // partial sums of a product that is split along k are float: added up in place they would be rounded to bf16 each
    // time
    const uint32_t float_sums = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    cublasLtMatmulPreference_t pref;
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    memset(p, 0, sizeof *p);
    p->shape = *s, p->bias = bias != NULL, p->used = true;
    memcpy(p->align, align, sizeof p->align);
    bool ok = !lt.desc(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    ok = ok && !lt.desc_set(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &op_first, sizeof op_first);
    ok = ok && !lt.desc_set(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &op_second, sizeof op_second);
    ok = ok && !lt.desc_set(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (bias) { // its type follows the output's
        ok = ok && !lt.desc_set(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
        ok = ok && !lt.desc_set(p->op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &out, sizeof out);
    }
    // column-major: first operand is b (N x K after its op), second is a, result N x M
    ok = ok && !lt.layout(&p->b, in, s->tb ? s->K : s->N, s->tb ? s->N : s->K, s->tb ? s->K : s->N);
    ok = ok && !lt.layout(&p->a, in, s->ta ? s->M : s->K, s->ta ? s->K : s->M, s->ta ? s->M : s->K);
    ok = ok && !lt.layout(&p->c, out, s->N, s->M, s->N);
    ok = ok && !lt.pref(&pref);
    ok = ok && !lt.pref_set(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE, sizeof WORKSPACE);
    ok = ok && !lt.pref_set(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &float_sums, sizeof float_sums);
    ok = ok && !lt.pref_set(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align[1], sizeof align[1]);
    ok = ok && !lt.pref_set(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align[0], sizeof align[0]);
    ok = ok && !lt.pref_set(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align[2], sizeof align[2]);
    ok = ok && !lt.pref_set(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align[2], sizeof align[2]);
    ok = ok && !lt.heuristic(handle, p->op, p->b, p->a, p->c, p->c, pref, 1, &found, &n) && n == 1 &&
         found.state == CUBLAS_STATUS_SUCCESS;
    if (ok) p->algo = found.algo;
    p->works = ok;
}
int matmul_library(void *c, const void *a, const void *b, const void *bias, const MatmulShape *s) {
    if (!handle) return 1;
    const unsigned align[3] = {alignment(a), alignment(b), alignment(c)};
    unsigned at = ((unsigned)s->M * 31u + (unsigned)s->N * 17u + (unsigned)s->K * 7u +
                   (unsigned)(s->ta * 4 + s->tb * 2 + s->add)) %
                  PLANS;
    for (int i = 0; i < 8 && plan[at].used && !plan_matches(&plan[at], s, align, bias != NULL); i++)
        at = (at + 1) % PLANS;
    Plan *p = &plan[at]; // a full neighbourhood: the last one looked at makes room
    if (!plan_matches(p, s, align, bias != NULL)) plan_make(p, s, align, bias);
    if (!p->works) return 1;
    if (bias && lt.desc_set(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias)) return 1;
    const float one = 1.0f, beta = s->add ? 1.0f : 0.0f;
    const cublasStatus_t rc = lt.matmul(handle, p->op, &one, b, p->b, a, p->a, &beta, c, p->c, c, p->c, &p->algo,
                                        workspace, WORKSPACE, cuda_stream());
    if (rc == CUBLAS_STATUS_SUCCESS) return 0;
    p->works = false; // from now on our own kernel does this shape
    return 1;
}
} // namespace CUDA_SIDE
#endif
