/* gla.cu - gated linear attention, first versions, all as recurrences.
 *
 * Forward, and dv and dstate: columns of S (and of dS) are independent, so a thread owns a column, as in delta_rule.cu.
 * dq, dk, dg: rows of S are independent too, so here a thread owns a key channel. Per chunk from the last to the first, a forward sweep
 * from the stored state gives S_t and so dq. The backward sweep gives dk, and dg = <dS, e^g S_prev>, for which S_prev is needed
 * in reverse order: the forward sweep leaves S every 8 tokens in the workspace, and each run of 8 is done again from there. (The
 * shorter way, dg_t = dg_{t+1} + q_t dq_t - k_t dk_t, subtracts large numbers where the decay is strong.) */
__global__ void gla_forward_kernel(real *o, wide *states, const real *q, const real *k, const real *v,
                                   const wide *g, const int *start, DeltaArgs a) {
    DYNAMIC_SHARED(float, cursor);
    SHARED_PTR(float) S = shared_take<float>(cursor, a.K * RECUR_COLUMNS);
    SHARED_PTR(float) qs = shared_take<float>(cursor, a.K);
    SHARED_PTR(float) ks = shared_take<float>(cursor, a.K);
    SHARED_PTR(float) es = shared_take<float>(cursor, a.K);
    const int bh = blockIdx.y, b = bh / a.H, h = bh % a.H, hk = h / (a.H / a.Hk), x = threadIdx.x,
              col = blockIdx.x * RECUR_COLUMNS + x;
    const bool mine = col < a.V;
    wide *state = states + (size_t)bh * (a.NC + 1) * a.K * a.V;
    for (int i = 0; i < a.K; i++) S[i * RECUR_COLUMNS + x] = mine ? state[(size_t)i * a.V + col] : 0.0f;
    for (int t = 0; t < a.T; t++) {
        const size_t bt = (size_t)b * a.T + t, row = bt * a.H + h, krow = (bt * a.Hk + hk) * a.K;
        const bool fresh = begins(start, b, a.T, t);
        __syncthreads();
        for (int i = x; i < a.K; i += RECUR_COLUMNS)
            qs[i] = q[krow + i], ks[i] = k[krow + i], es[i] = expf(g[krow + i]);
        __syncthreads();
        const float v_t = mine ? (float)v[row * a.V + col] : 0.0f;
        float out = 0;
        for (int i = 0; i < a.K; i++) {
            const float s = (fresh ? 0.0f : es[i] * S[i * RECUR_COLUMNS + x]) + ks[i] * v_t;
            S[i * RECUR_COLUMNS + x] = s;
            out += s * qs[i];
        }
        if (mine) o[row * a.V + col] = a.scale * out;
        if (((t + 1) % a.chunk == 0 || t + 1 == a.T) && mine) {
            wide *to = state + (size_t)(t / a.chunk + 1) * a.K * a.V;
            for (int i = 0; i < a.K; i++) to[(size_t)i * a.V + col] = S[i * RECUR_COLUMNS + x];
        }
    }
}
static void gla_forward_plain(real *o, wide *states, const real *q, const real *k, const real *v,
                              const wide *g, const int *start, double scale, const DeltaDims *d) {
    const size_t shared = ((size_t)d->K * (RECUR_COLUMNS + 3) + 24) * sizeof(float);
    LAUNCH(gla_forward_kernel, dim3(ceil_div(d->V, RECUR_COLUMNS), d->B * d->H), RECUR_COLUMNS, shared, o,
           states, q, k, v, g, start, delta_args(d, scale));
}

/* dv and dstate: the reverse recurrence of one column of dS. */
__global__ void gla_dv_kernel(real *dv, wide *dstate, const real *dout, const real *q, const real *k,
                              const wide *g, const int *start, DeltaArgs a) {
    DYNAMIC_SHARED(float, cursor);
    SHARED_PTR(float) S = shared_take<float>(cursor, a.K * RECUR_COLUMNS);
    SHARED_PTR(float) qs = shared_take<float>(cursor, a.K);
    SHARED_PTR(float) ks = shared_take<float>(cursor, a.K);
    SHARED_PTR(float) es = shared_take<float>(cursor, a.K);
    const int bh = blockIdx.y, b = bh / a.H, h = bh % a.H, hk = h / (a.H / a.Hk), x = threadIdx.x,
              col = blockIdx.x * RECUR_COLUMNS + x;
    if (col >= a.V)
        return; // whole columns leave, and the barriers below are replaced by __syncwarp: the block is one warp
    wide *d = dstate + (size_t)bh * a.K * a.V + col;
    for (int i = 0; i < a.K; i++) S[i * RECUR_COLUMNS + x] = d[(size_t)i * a.V];
    for (int t = a.T - 1; t >= 0; t--) {
        const size_t bt = (size_t)b * a.T + t, row = bt * a.H + h, krow = (bt * a.Hk + hk) * a.K;
        const bool fresh = begins(start, b, a.T, t);
        const int lanes = min((int)RECUR_COLUMNS, a.V - (int)blockIdx.x * RECUR_COLUMNS);
        const unsigned mask = lanes == WARP ? FULL : (1u << lanes) - 1;
        __syncwarp(mask);
        for (int i = x; i < a.K; i += lanes)
            qs[i] = q[krow + i], ks[i] = k[krow + i], es[i] = fresh ? 0.0f : expf(g[krow + i]);
        __syncwarp(mask);
        const float do_t = a.scale * (float)dout[row * a.V + col];
        float sum = 0;
        for (int i = 0; i < a.K; i++) {
            const float s = S[i * RECUR_COLUMNS + x] + qs[i] * do_t;
            sum += s * ks[i];
            S[i * RECUR_COLUMNS + x] = es[i] * s;
        }
        if (dv) dv[row * a.V + col] = (float)dv[row * a.V + col] + sum;
    }
    for (int i = 0; i < a.K; i++) d[(size_t)i * a.V] = S[i * RECUR_COLUMNS + x];
}

enum { GLA_RUN = 8 };
/* What a thread of gla_rows_kernel needs to do one token: its channel, the rows of v and dout in shared memory. */
struct GlaRow {
    float decay, q, k;
};
__device__ GlaRow gla_row(SHARED_PTR(float) vs, SHARED_PTR(float) os, const real *q, const real *k,
                          const real *v, const real *dout, const wide *g, const int *start, int b, int t,
                          int h, int hk, const DeltaArgs &a) {
    const size_t bt = (size_t)b * a.T + t, row = (bt * a.H + h) * a.V,
                 at = (bt * a.Hk + hk) * a.K + threadIdx.x;
    __syncthreads();
    for (int j = threadIdx.x; j < a.V; j += blockDim.x) vs[j] = v[row + j], os[j] = dout[row + j];
    __syncthreads();
    if ((int)threadIdx.x >= a.K) return {0, 0, 0};
    return {begins(start, b, a.T, t) ? 0.0f : expf(g[at]), (float)q[at], (float)k[at]};
}
/* S = decay S + k v^T for the thread's row, kept as S[v][thread]. */
__device__ void gla_step(SHARED_PTR(float) S, SHARED_PTR(float) vs, const GlaRow &r, int V) {
    const int x = threadIdx.x, width = blockDim.x;
    for (int j = 0; j < V; j++)
        S[j * width + x] = (r.decay != 0 ? r.decay * S[j * width + x] : 0.0f) + r.k * vs[j];
}

/* dq, dk, dg of one (batch, key head), a thread a key channel, the heads of the group one after another. */
__global__ void gla_rows_kernel(real *dq, real *dk, wide *dg, const wide *dstate, const real *dout,
                                const wide *states, const real *q, const real *k, const real *v,
                                const wide *g, const int *start, wide *work, DeltaArgs a) {
    DYNAMIC_SHARED(float, cursor);
    const int b = blockIdx.x / a.Hk, hk = blockIdx.x % a.Hk, group = a.H / a.Hk, x = threadIdx.x,
              width = blockDim.x;
    SHARED_PTR(float) S = shared_take<float>(cursor, (size_t)a.V * width); // S[v][key], a thread's own column
    SHARED_PTR(float) D = shared_take<float>(cursor, (size_t)a.V * width); // dS, likewise
    SHARED_PTR(float) vs = shared_take<float>(cursor, a.V);
    SHARED_PTR(float) os = shared_take<float>(cursor, a.V);
    const bool mine = x < a.K;
    const size_t KV = (size_t)a.K * a.V, bh0 = (size_t)b * a.H + hk * group;
    const int runs = (a.chunk + GLA_RUN - 1) / GLA_RUN;
    // each head's dS lives at the beginning of its own region; the rest of the first head's region is shared by the group
    wide *sum_q = work + bh0 * a.worker + KV, *sum_k = sum_q + (size_t)a.chunk * a.K,
         *mark = sum_k + (size_t)a.chunk * a.K, *run = mark + runs * KV;
    for (int h = 0; h < group; h++)
        for (size_t e = x; e < KV; e += width) work[(bh0 + h) * a.worker + e] = dstate[(bh0 + h) * KV + e];
    __syncthreads();
    for (int c = a.NC - 1; c >= 0; c--) {
        const int t0 = c * a.chunk, n = min(a.chunk, a.T - t0);
        for (int h = 0; h < group; h++) {
            const wide *from = states + ((bh0 + h) * (a.NC + 1) + c) * KV + (size_t)x * a.V;
            wide *dS = work + (bh0 + h) * a.worker + (size_t)x * a.V;
            for (int j = 0; j < a.V && mine; j++) S[j * width + x] = from[j], D[j * width + x] = dS[j];
            for (int i = 0; i < n; i++) { // forward: S_t and dq_t
                const GlaRow r = gla_row(vs, os, q, k, v, dout, g, start, b, t0 + i, hk * group + h, hk, a);
                if (!mine) continue;
                if (i % GLA_RUN == 0)
                    for (int j = 0; j < a.V; j++)
                        mark[i / GLA_RUN * KV + (size_t)j * a.K + x] = S[j * width + x];
                gla_step(S, vs, r, a.V);
                float s = 0;
                for (int j = 0; j < a.V; j++) s += S[j * width + x] * os[j];
                sum_q[i * a.K + x] = (h ? (float)sum_q[i * a.K + x] : 0.0f) + a.scale * s;
            }
            for (int first = (n - 1) / GLA_RUN * GLA_RUN; first >= 0; first -= GLA_RUN) {
                const int last = min(first + GLA_RUN, n);
                for (int j = 0; j < a.V && mine; j++)
                    S[j * width + x] = mark[first / GLA_RUN * KV + (size_t)j * a.K + x];
                for (int i = first; i < last; i++) { // forward again, keeping every S before its token
                    for (int j = 0; j < a.V && mine; j++)
                        run[(i - first) * KV + (size_t)j * a.K + x] = S[j * width + x];
                    const GlaRow r =
                        gla_row(vs, os, q, k, v, dout, g, start, b, t0 + i, hk * group + h, hk, a);
                    if (mine) gla_step(S, vs, r, a.V);
                }
                for (int i = last - 1; i >= first; i--) { // backward: dS_t, dk_t, dg_t
                    const GlaRow r =
                        gla_row(vs, os, q, k, v, dout, g, start, b, t0 + i, hk * group + h, hk, a);
                    if (!mine) continue;
                    float s = 0, z = 0;
                    for (int j = 0; j < a.V; j++) {
                        const float d = D[j * width + x] + a.scale * r.q * os[j];
                        s += d * vs[j];                                       // dk = dS v
                        z += d * run[(i - first) * KV + (size_t)j * a.K + x]; // dg = <dS, e^g S_prev>
                        D[j * width + x] = r.decay * d;
                    }
                    sum_k[i * a.K + x] = (h ? (float)sum_k[i * a.K + x] : 0.0f) + s;
                    if (dg) dg[(((size_t)b * a.T + t0 + i) * a.Hk + hk) * a.K + x] += r.decay * z;
                }
            }
            for (int j = 0; j < a.V && mine; j++) dS[j] = D[j * width + x];
        }
        for (int i = 0; i < n && mine; i++) {
            const size_t at = (((size_t)b * a.T + t0 + i) * a.Hk + hk) * a.K + x;
            if (dq) dq[at] = (float)dq[at] + sum_q[i * a.K + x];
            if (dk) dk[at] = (float)dk[at] + sum_k[i * a.K + x];
        }
    }
}
static void gla_backward_plain(real *dq, real *dk, real *dv, wide *dg, wide *dstate, const real *dout,
                               const wide *states, const real *q, const real *k, const real *v, const wide *g,
                               const int *start, double scale, void *work, const DeltaDims *d) {
    const unsigned threads = ceil_div(d->K, WARP) * WARP;
    const size_t rows = ((size_t)d->V * (2 * threads + 2) + 16) * sizeof(float),
                 columns = ((size_t)d->K * (RECUR_COLUMNS + 3) + 24) * sizeof(float);
    if (dq || dk || dg)
        LAUNCH(gla_rows_kernel, d->B * d->Hk, threads, rows, dq, dk, dg, dstate, dout, states, q, k, v, g,
               start, (wide *)work, delta_args(d, scale));
    LAUNCH(gla_dv_kernel, dim3(ceil_div(d->V, RECUR_COLUMNS), d->B * d->H), RECUR_COLUMNS, columns, dv,
           dstate, dout, q, k, g, start, delta_args(d, scale));
}
