/* kda.cu - Kimi delta attention, first version of backward, as the recurrence (forward: recurrence.cu), and the gates.
 *
 * A block a (batch, key head), the heads of the group one after another, chunks from the last to the first.
 * A forward sweep from the stored state leaves S every KDA_RUN tokens in the workspace;
 * each run of tokens is done again from there, keeping every S, and
 * then gone through backwards. A token takes two passes over dS: columns (u, dw = dS^T k, dv), then rows (dq, dk, dg,
 * and e^g dP). */
enum { KDA_RUN = 8, KDA_THREADS = 128 };

static DeltaArgs kda_args(const DeltaDims *d, double scale) {
    DeltaArgs a = delta_args(d, scale);
    a.worker = kda_work(d) / sizeof(float) / ((size_t)d->B * d->H);
    return a;
}

/* One token of one head: its rows, and where its gradients go. */
struct KdaToken {
    const real *q, *k, *v, *dout;
    const wide *g;
    float beta;
    bool fresh;
};
__device__ float kda_decay(const KdaToken &r, int i) { return r.fresh ? 0.0f : expf(r.g[i]); }
__device__ float kda_carried(const wide *S, float decay) { return decay != 0 ? decay * *S : 0.0f; }

/* S = diag(e^g) S + beta k u^T, a thread a column. */
__device__ void kda_step(wide *S, const KdaToken &r, int K, int V) {
    for (int j = threadIdx.x; j < V; j += blockDim.x) {
        float u = r.v[j];
        for (int i = 0; i < K; i++) u -= kda_carried(S + (size_t)i * V + j, kda_decay(r, i)) * (float)r.k[i];
        for (int i = 0; i < K; i++) {
            wide *s = S + (size_t)i * V + j;
            *s = kda_carried(s, kda_decay(r, i)) + (float)r.k[i] * r.beta * u;
        }
    }
}
/* Columns: dS += scale q do^T, u = v - P^T k, dw = dS^T k; dv += beta dw. S is the state before the token. */
__device__ void kda_back_columns(real *dv, wide *u, wide *dw, wide *dS, const wide *S, const KdaToken &r,
                                 const DeltaArgs &a) {
    for (int j = threadIdx.x; j < a.V; j += blockDim.x) {
        float u_j = r.v[j], dw_j = 0;
        for (int i = 0; i < a.K; i++) {
            const size_t at = (size_t)i * a.V + j;
            const float k_i = r.k[i], d = dS[at] + a.scale * (float)r.q[i] * (float)r.dout[j];
            dS[at] = d;
            dw_j += d * k_i;
            u_j -= kda_carried(S + at, kda_decay(r, i)) * k_i;
        }
        u[j] = u_j, dw[j] = dw_j;
        if (dv) dv[j] = (float)dv[j] + r.beta * dw_j;
    }
}
/* Rows: dq, dk into sums (first: overwriting), dg, and dS = e^g (dS - k du^T). */
__device__ void kda_back_rows(wide *sum_q, wide *sum_k, wide *dg, const wide *u, const wide *dw, wide *dS,
                              const wide *S, const KdaToken &r, bool first, const DeltaArgs &a) {
    for (int i = threadIdx.x; i < a.K; i += blockDim.x) {
        const float decay = kda_decay(r, i), k_i = r.k[i];
        float dq_i = 0, dk_i = 0, dlog = 0;
        for (int j = 0; j < a.V; j++) {
            const size_t at = (size_t)i * a.V + j;
            const float P = kda_carried(S + at, decay), d = dS[at], du = r.beta * dw[j], dP = d - k_i * du;
            dq_i += (P + k_i * r.beta * u[j]) * (float)r.dout[j]; // S_next = P + k w^T, w = beta u
            dk_i += d * r.beta * u[j] - P * du;
            dlog += dP * P;
            dS[at] = decay * dP;
        }
        sum_q[i] = (first ? 0.0f : (float)sum_q[i]) + a.scale * dq_i;
        sum_k[i] = (first ? 0.0f : (float)sum_k[i]) + dk_i;
        if (dg) dg[i] += dlog;
    }
}

__global__ void kda_backward_kernel(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dstate, const real *dout,
                                    const real *states, const real *q, const real *k, const real *v, const wide *g,
                                    const wide *beta, const int *start, wide *work, DeltaArgs a) {
    const int b = blockIdx.x / a.Hk, hk = blockIdx.x % a.Hk, group = a.H / a.Hk,
              runs = (a.chunk + KDA_RUN - 1) / KDA_RUN;
    const size_t KV = (size_t)a.K * a.V, bh0 = (size_t)b * a.H + hk * group;
    wide *mark = work + bh0 * a.worker, *run = mark + runs * KV, *S = run + KDA_RUN * KV, *sum_q = S + KV,
         *sum_k = sum_q + (size_t)a.chunk * a.K, *u = sum_k + (size_t)a.chunk * a.K, *dw = u + a.V;
    for (int c = a.NC - 1; c >= 0; c--) {
        const int t0 = c * a.chunk, n = min(a.chunk, a.T - t0);
        for (int s = 0; s < group; s++) {
            const int h = hk * group + s;
            const real *from = states + ((bh0 + s) * (a.NC + 1) + c) * KV;
            wide *dS = dstate + (bh0 + s) * KV;
            auto token = [&](int i) {
                const size_t bt = (size_t)b * a.T + t0 + i, row = bt * a.H + h, at = (bt * a.Hk + hk) * a.K;
                return KdaToken{q + at,
                                k + at,
                                v + row * a.V,
                                dout + row * a.V,
                                g + row * a.K,
                                beta[row],
                                begins(start, b, a.T, t0 + i)};
            };
            for (size_t e = threadIdx.x; e < KV; e += blockDim.x) S[e] = from[e];
            for (int i = 0; i < n; i++) { // forward, leaving a state a run
                __syncthreads();
                for (size_t e = threadIdx.x; e < KV && i % KDA_RUN == 0; e += blockDim.x)
                    mark[i / KDA_RUN * KV + e] = S[e];
                __syncthreads();
                kda_step(S, token(i), a.K, a.V);
            }
            for (int first = (n - 1) / KDA_RUN * KDA_RUN; first >= 0; first -= KDA_RUN) {
                const int last = min(first + KDA_RUN, n);
                __syncthreads();
                for (size_t e = threadIdx.x; e < KV; e += blockDim.x) S[e] = mark[first / KDA_RUN * KV + e];
                for (int i = first; i < last; i++) { // forward again, keeping every S before its token
                    __syncthreads();
                    for (size_t e = threadIdx.x; e < KV; e += blockDim.x) run[(i - first) * KV + e] = S[e];
                    __syncthreads();
                    kda_step(S, token(i), a.K, a.V);
                }
                for (int i = last - 1; i >= first; i--) {
                    const KdaToken r = token(i);
                    const size_t row = ((size_t)b * a.T + t0 + i) * a.H + h;
                    const wide *before = run + (i - first) * KV;
                    __syncthreads();
                    kda_back_columns(dv ? dv + row * a.V : dv, u, dw, dS, before, r, a);
                    __syncthreads();
                    kda_back_rows(sum_q + i * a.K, sum_k + i * a.K, dg ? dg + row * a.K : dg, u, dw, dS, before, r,
                                  s == 0, a);
                    if (threadIdx.x == 0 && dbeta) {
                        float db = 0; // w = beta u
                        for (int j = 0; j < a.V; j++) db += dw[j] * u[j];
                        dbeta[row] += db;
                    }
                }
            }
            __syncthreads();
        }
        for (int e = threadIdx.x; e < n * a.K; e += blockDim.x) {
            const size_t at = (((size_t)b * a.T + t0 + e / a.K) * a.Hk + hk) * a.K + e % a.K;
            if (dq) dq[at] = (float)dq[at] + sum_q[e];
            if (dk) dk[at] = (float)dk[at] + sum_k[e];
        }
        __syncthreads();
    }
}
static void kda_backward_plain(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dstate, const real *dout,
                               const real *states, const real *q, const real *k, const real *v, const wide *g,
                               const wide *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    LAUNCH(kda_backward_kernel, d->B * d->Hk, KDA_THREADS, 0, dq, dk, dv, dg, dbeta, dstate, dout, states, q, k, v, g,
           beta, start, (wide *)work, kda_args(d, scale));
}

// ---- gates ----
/* A block a token: its channels are walked eight at a time, so that an index is divided once for eight and in 32 bits.
 * A pack lies in one head, since it starts at a multiple of eight of that head's K. */
__global__ void kda_gate_forward_kernel(wide *g, wide *beta, const real *f, const real *b, const wide *A_log,
                                        const wide *dt_bias, float lower, int H, int K) {
    const int packs = (K + PACK - 1) / PACK;
    for (int i = threadIdx.x; i < H * packs; i += blockDim.x) {
        const int h = i / packs, c = i % packs * PACK;
        const size_t head = (size_t)blockIdx.x * H + h;
        const float scale = -expf(A_log[h]);
        Pack x = pack_load(f + head * K, c, K);
        const Pack bias = pack_load(dt_bias + (size_t)h * K, c, K);
        for (int k = 0; k < PACK; k++) {
            const float u = x.v[k] + bias.v[k];
            x.v[k] = lower < 0 ? lower * sigmoid(-scale * u) : scale * softplus(u);
        }
        pack_store(g + head * K, c, K, x);
        if (c == 0) beta[head] = sigmoid(b[head]);
    }
}
static void kda_gate_forward(wide *g, wide *beta, const real *f, const real *b, const wide *A_log, const wide *dt_bias,
                             double lower, int N, int H, int K) {
    LAUNCH(kda_gate_forward_kernel, N, 256, 0, g, beta, f, b, A_log, dt_bias, (float)lower, H, K);
}
/* dg times the slope of g in f. */
__device__ float kda_gate_slope(float dg, float f, float A_log, float dt_bias, float lower) {
    if (!(lower < 0)) return gate_slope(dg, f, A_log, dt_bias);
    const float e = expf(A_log), x = e * (f + dt_bias);
    return dg * (lower * sigmoid(x) * sigmoid(-x) * e);
}
__global__ void kda_gate_backward_kernel(real *df, real *db, const wide *dg, const wide *dbeta, const real *f,
                                         const wide *beta, const wide *A_log, const wide *dt_bias, float lower, int H,
                                         int K) {
    const int packs = (K + PACK - 1) / PACK;
    for (int i = threadIdx.x; i < H * packs; i += blockDim.x) {
        const int h = i / packs, c = i % packs * PACK;
        const size_t head = (size_t)blockIdx.x * H + h;
        if (df) {
            const Pack d = pack_load(dg + head * K, c, K), x = pack_load(f + head * K, c, K),
                       bias = pack_load(dt_bias + (size_t)h * K, c, K);
            Pack y;
            for (int k = 0; k < PACK; k++) y.v[k] = kda_gate_slope(d.v[k], x.v[k], A_log[h], bias.v[k], lower);
            pack_add(df + head * K, c, K, y);
        }
        if (db && c == 0) db[head] = (float)db[head] + dbeta[head] * beta[head] * (1.0f - beta[head]);
    }
}
struct KdaGateScale { // a row is one token: its channels are added up first
    const wide *dg, *g;
    const real *f;
    const wide *A_log, *dt_bias;
    float lower;
    int H, K;
    __device__ float operator()(size_t n, int h) const {
        const size_t at = (n * H + h) * K;
        float s = 0;
        for (int i = 0; i < K && !(lower < 0); i++) s += dg[at + i] * g[at + i];
        for (int i = 0; i < K && lower < 0; i++) {
            const float u = (float)f[at + i] + dt_bias[h * K + i];
            s += kda_gate_slope(dg[at + i], f[at + i], A_log[h], dt_bias[h * K + i], lower) * u;
        }
        return s;
    }
};
struct KdaGateBias {
    const wide *dg;
    const real *f;
    const wide *A_log, *dt_bias;
    float lower;
    int HK, K;
    __device__ float operator()(size_t n, int c) const {
        return kda_gate_slope(dg[n * HK + c], f[n * HK + c], A_log[c / K], dt_bias[c], lower);
    }
};
static void kda_gate_backward(real *df, real *db, wide *dA_log, wide *ddt_bias, const wide *dg, const wide *dbeta,
                              const real *f, const wide *g, const wide *beta, const wide *A_log, const wide *dt_bias,
                              double lower, int N, int H, int K) {
    const float low = (float)lower;
    if (df || db) LAUNCH(kda_gate_backward_kernel, N, 256, 0, df, db, dg, dbeta, f, beta, A_log, dt_bias, low, H, K);
    if (dA_log) column_sum(dA_log, KdaGateScale{dg, g, f, A_log, dt_bias, low, H, K}, N, H);
    if (ddt_bias) column_sum(ddt_bias, KdaGateBias{dg, f, A_log, dt_bias, low, H * K, K}, N, H * K);
}
