/* gla.cu - gated linear attention, first versions, all as recurrences.
 *
 * Forward, and dv and dstate: columns of S (and of dS) are independent, so a thread owns a column, as in delta_rule.cu.
 * dq, dk, dg: rows of S are independent too, so here a thread owns a key channel. Per chunk from the last to the first, a forward sweep
 * from the stored state gives S_t and so dq; a backward sweep gives dk, and dg from
 *   dg_t = dg_{t+1} + q_t dq_t - k_t dk_t,   starting behind the chunk with rows(dS o S),   0 at a document's start,
 * which holds because <dS_t, S_t> splits both into q dq + (what t+1 sees) and k dk + dg_t. */
__global__ void gla_forward_kernel(real *o, wide *states, const real *q, const real *k, const real *v, const wide *g, const int *start, DeltaArgs a) {
    DYNAMIC_SHARED(float, cursor);
    SHARED_PTR(float) S = shared_take<float>(cursor, a.K * RECUR_COLUMNS);
    SHARED_PTR(float) qs = shared_take<float>(cursor, a.K);
    SHARED_PTR(float) ks = shared_take<float>(cursor, a.K);
    SHARED_PTR(float) es = shared_take<float>(cursor, a.K);
    const int bh = blockIdx.y, b = bh / a.H, h = bh % a.H, hk = h / (a.H / a.Hk), x = threadIdx.x, col = blockIdx.x * RECUR_COLUMNS + x;
    const bool mine = col < a.V;
    wide *state = states + (size_t)bh * (a.NC + 1) * a.K * a.V;
    for (int i = 0; i < a.K; i++) S[i * RECUR_COLUMNS + x] = mine ? state[(size_t)i * a.V + col] : 0.0f;
    for (int t = 0; t < a.T; t++) {
        const size_t bt = (size_t)b * a.T + t, row = bt * a.H + h, krow = (bt * a.Hk + hk) * a.K;
        const bool fresh = begins(start, b, a.T, t);
        __syncthreads();
        for (int i = x; i < a.K; i += RECUR_COLUMNS) qs[i] = q[krow + i], ks[i] = k[krow + i], es[i] = expf(g[krow + i]);
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
static void gla_forward_plain(real *o, wide *states, const real *q, const real *k, const real *v, const wide *g, const int *start, double scale, const DeltaDims *d) {
    const size_t shared = ((size_t)d->K * (RECUR_COLUMNS + 3) + 24) * sizeof(float);
    LAUNCH(gla_forward_kernel, dim3(ceil_div(d->V, RECUR_COLUMNS), d->B * d->H), RECUR_COLUMNS, shared, o, states, q, k, v, g, start, delta_args(d, scale));
}

/* dv and dstate: the reverse recurrence of one column of dS. */
__global__ void gla_dv_kernel(real *dv, wide *dstate, const real *dout, const real *q, const real *k, const wide *g, const int *start, DeltaArgs a) {
    DYNAMIC_SHARED(float, cursor);
    SHARED_PTR(float) S = shared_take<float>(cursor, a.K * RECUR_COLUMNS);
    SHARED_PTR(float) qs = shared_take<float>(cursor, a.K);
    SHARED_PTR(float) ks = shared_take<float>(cursor, a.K);
    SHARED_PTR(float) es = shared_take<float>(cursor, a.K);
    const int bh = blockIdx.y, b = bh / a.H, h = bh % a.H, hk = h / (a.H / a.Hk), x = threadIdx.x, col = blockIdx.x * RECUR_COLUMNS + x;
    if (col >= a.V) return; // whole columns leave, and the barriers below are replaced by __syncwarp: the block is one warp
    wide *d = dstate + (size_t)bh * a.K * a.V + col;
    for (int i = 0; i < a.K; i++) S[i * RECUR_COLUMNS + x] = d[(size_t)i * a.V];
    for (int t = a.T - 1; t >= 0; t--) {
        const size_t bt = (size_t)b * a.T + t, row = bt * a.H + h, krow = (bt * a.Hk + hk) * a.K;
        const bool fresh = begins(start, b, a.T, t);
        const int lanes = min((int)RECUR_COLUMNS, a.V - (int)blockIdx.x * RECUR_COLUMNS);
        const unsigned mask = lanes == WARP ? FULL : (1u << lanes) - 1;
        __syncwarp(mask);
        for (int i = x; i < a.K; i += lanes) qs[i] = q[krow + i], ks[i] = k[krow + i], es[i] = fresh ? 0.0f : expf(g[krow + i]);
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

/* dq, dk, dg of one (batch, key head), a thread a key channel, the heads of the group one after another. */
__global__ void gla_rows_kernel(real *dq, real *dk, wide *dg, const wide *dstate, const real *dout, const wide *states, const real *q, const real *k,
                                const real *v, const wide *g, const int *start, wide *work, DeltaArgs a) {
    DYNAMIC_SHARED(float, cursor);
    SHARED_PTR(float) S = shared_take<float>(cursor, (size_t)a.V * blockDim.x); // S[v][key], a thread's own column
    SHARED_PTR(float) vs = shared_take<float>(cursor, a.V);
    SHARED_PTR(float) os = shared_take<float>(cursor, a.V);
    const int b = blockIdx.x / a.Hk, hk = blockIdx.x % a.Hk, group = a.H / a.Hk, x = threadIdx.x, width = blockDim.x;
    const bool mine = x < a.K;
    const size_t KV = (size_t)a.K * a.V, bh0 = (size_t)b * a.H + hk * group;
    wide *sums = work + bh0 * a.worker + KV, *dqs = sums, *sum_q = dqs + (size_t)a.chunk * a.K, *sum_k = sum_q + (size_t)a.chunk * a.K;
    for (int h = 0; h < group; h++) // each head's dS lives at the beginning of its own region
        for (size_t e = x; e < KV; e += width) work[(bh0 + h) * a.worker + e] = dstate[(bh0 + h) * KV + e];
    __syncthreads();
    for (int c = a.NC - 1; c >= 0; c--) {
        const int t0 = c * a.chunk, n = min(a.chunk, a.T - t0);
        for (int h = 0; h < group; h++) {
            const wide *from = states + ((bh0 + h) * (a.NC + 1) + c) * KV + (size_t)x * a.V;
            wide *dS = work + (bh0 + h) * a.worker + (size_t)x * a.V;
            for (int j = 0; j < a.V; j++) S[j * width + x] = mine ? from[j] : 0.0f;
            for (int i = 0; i < n; i++) { // forward: S_t, dq_t
                const size_t bt = (size_t)b * a.T + t0 + i, row = (bt * a.H + hk * group + h) * a.V, at = (bt * a.Hk + hk) * a.K + x;
                __syncthreads();
                for (int j = x; j < a.V; j += width) vs[j] = v[row + j], os[j] = dout[row + j];
                __syncthreads();
                const float decay = !mine || begins(start, b, a.T, t0 + i) ? 0.0f : expf(g[at]), k_t = mine ? (float)k[at] : 0.0f;
                float s = 0;
                for (int j = 0; j < a.V; j++) {
                    const float p = (decay != 0 ? decay * S[j * width + x] : 0.0f) + k_t * vs[j];
                    S[j * width + x] = p;
                    s += p * os[j];
                }
                if (mine) {
                    dqs[i * a.K + x] = a.scale * s;
                    sum_q[i * a.K + x] = (h ? (float)sum_q[i * a.K + x] : 0.0f) + a.scale * s;
                }
            }
            float run = 0; // rows(dS o S) behind the chunk
            for (int j = 0; j < a.V && mine; j++) {
                run += dS[j] * S[j * width + x];
                S[j * width + x] = dS[j]; // from here on the array holds dS
            }
            for (int i = n - 1; i >= 0; i--) { // backward: dS_t, dk_t, dg_t
                const size_t bt = (size_t)b * a.T + t0 + i, row = (bt * a.H + hk * group + h) * a.V, at = (bt * a.Hk + hk) * a.K + x;
                __syncthreads();
                for (int j = x; j < a.V; j += width) vs[j] = v[row + j], os[j] = dout[row + j];
                __syncthreads();
                if (!mine) continue;
                const bool fresh = begins(start, b, a.T, t0 + i);
                const float decay = fresh ? 0.0f : expf(g[at]), q_t = q[at], k_t = k[at];
                float s = 0;
                for (int j = 0; j < a.V; j++) {
                    const float d = S[j * width + x] + a.scale * q_t * os[j];
                    s += d * vs[j];
                    S[j * width + x] = decay * d;
                }
                sum_k[i * a.K + x] = (h ? (float)sum_k[i * a.K + x] : 0.0f) + s;
                run += q_t * dqs[i * a.K + x] - k_t * s;
                if (fresh) run = 0;
                if (dg) dg[at] += run;
            }
            for (int j = 0; j < a.V && mine; j++) dS[j] = S[j * width + x];
        }
        for (int i = 0; i < n && mine; i++) {
            const size_t at = (((size_t)b * a.T + t0 + i) * a.Hk + hk) * a.K + x;
            if (dq) dq[at] = (float)dq[at] + sum_q[i * a.K + x];
            if (dk) dk[at] = (float)dk[at] + sum_k[i * a.K + x];
        }
    }
}
static void gla_backward_plain(real *dq, real *dk, real *dv, wide *dg, wide *dstate, const real *dout, const wide *states, const real *q, const real *k,
                               const real *v, const wide *g, const int *start, double scale, void *work, const DeltaDims *d) {
    const unsigned threads = ceil_div(d->K, WARP) * WARP;
    const size_t rows = ((size_t)d->V * (threads + 2) + 16) * sizeof(float), columns = ((size_t)d->K * (RECUR_COLUMNS + 3) + 24) * sizeof(float);
    if (dq || dk || dg)
        LAUNCH(gla_rows_kernel, d->B * d->Hk, threads, rows, dq, dk, dg, dstate, dout, states, q, k, v, g, start, (wide *)work, delta_args(d, scale));
    LAUNCH(gla_dv_kernel, dim3(ceil_div(d->V, RECUR_COLUMNS), d->B * d->H), RECUR_COLUMNS, columns, dv, dstate, dout, q, k, g, start, delta_args(d, scale));
}
