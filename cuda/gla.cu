/* gla.cu - gated linear attention, first version of backward, as recurrences (forward: recurrence.cu).
 *
 * dv and dstate: columns of dS are independent, so a thread owns a column, as in recurrence.cu.
 * dq, dk, dg: rows of S are independent too, so here a thread owns a key channel. Per chunk from the last to the first,
 * a forward sweep from the stored state gives S_t and so dq. The backward sweep gives dk, and dg = <dS, e^g S_prev>,
 * for which S_prev is needed in reverse order: the forward sweep leaves S every 8 tokens in the workspace, and each run
 * of 8 is done again from there. (The shorter way, dg_t = dg_{t+1} + q_t dq_t - k_t dk_t, subtracts large numbers where
 * the decay is strong.) */

/* dv and dstate: the reverse recurrence of one column of dS. */
__global__ void gla_dv_kernel(real *dv, wide *dstate, const real *dout, const real *q, const real *k, const wide *g,
                              const int *start, DeltaArgs a) {
    DYNAMIC_SHARED(float, cursor);
    SHARED_PTR(float) S = shared_take<float>(cursor, a.K * RECUR_COLUMNS);
    SHARED_PTR(float) qs = shared_take<float>(cursor, a.K);
    SHARED_PTR(float) ks = shared_take<float>(cursor, a.K);
    SHARED_PTR(float) es = shared_take<float>(cursor, a.K);
    const Piece piece = block_piece(ceil_div(a.V, RECUR_COLUMNS));
    const int bh = piece.of, b = bh / a.H, h = bh % a.H, hk = h / (a.H / a.Hk), x = threadIdx.x,
              col = piece.at * RECUR_COLUMNS + x;
    if (col >= a.V)
        return; // whole columns leave, and the barriers below are replaced by __syncwarp: the block is one warp
    wide *d = dstate + (size_t)bh * a.K * a.V + col;
    for (int i = 0; i < a.K; i++) S[i * RECUR_COLUMNS + x] = d[(size_t)i * a.V];
    for (int t = a.T - 1; t >= 0; t--) {
        const size_t bt = (size_t)b * a.T + t, row = bt * a.H + h, krow = (bt * a.Hk + hk) * a.K;
        const bool fresh = begins(start, b, a.T, t);
        const int lanes = min((int)RECUR_COLUMNS, a.V - piece.at * RECUR_COLUMNS);
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

enum { GLA_RUN = 8, GLA_WIDE = 64 };
/* What a thread of gla_rows_kernel needs to do one token: its channel, and 64 columns of v and dout in shared memory.
 * */
struct GlaRow {
    float decay, q, k;
};
struct GlaColumns {
    SHARED_PTR(float) S; // S[column][channel], a thread's own
    SHARED_PTR(float) D; // dS, likewise
    SHARED_PTR(float) vs;
    SHARED_PTR(float) os;
    int v0, n, x; // columns v0 .. v0 + n - 1; x: the thread's channel
};
__device__ GlaRow gla_row(const GlaColumns &w, const real *q, const real *k, const real *v, const real *dout,
                          const wide *g, const int *start, int b, int t, int h, int hk, const DeltaArgs &a) {
    const size_t bt = (size_t)b * a.T + t, row = (bt * a.H + h) * a.V + w.v0, at = (bt * a.Hk + hk) * a.K + w.x;
    __syncthreads();
    for (int j = threadIdx.x; j < w.n; j += WARP) w.vs[j] = v[row + j], w.os[j] = dout[row + j];
    __syncthreads();
    if (w.x >= a.K) return {0, 0, 0};
    return {begins(start, b, a.T, t) ? 0.0f : expf(g[at]), (float)q[at], (float)k[at]};
}
/* S = decay S + k v^T for the thread's channel. */
__device__ void gla_step(const GlaColumns &w, const GlaRow &r) {
    const int x = threadIdx.x;
    for (int j = 0; j < w.n; j++)
        w.S[j * WARP + x] = (r.decay != 0 ? r.decay * w.S[j * WARP + x] : 0.0f) + r.k * w.vs[j];
}

/* dq, dk, dg of 32 key channels of one (batch, key head), a thread a channel, the heads of the group one after another,
 * and of each head 64 columns after another: any K and V. */
__global__ void gla_rows_kernel(real *dq, real *dk, wide *dg, const wide *dstate, const real *dout, const real *states,
                                const real *q, const real *k, const real *v, const wide *g, const int *start,
                                wide *work, DeltaArgs a) {
    SHARED(float, room, (2 * WARP + 2) * GLA_WIDE);
    const int b = blockIdx.x / a.Hk, hk = blockIdx.x % a.Hk, group = a.H / a.Hk, y = threadIdx.x,
              x = blockIdx.y * WARP + y;
    GlaColumns w = {room, room + GLA_WIDE * WARP, room + 2 * GLA_WIDE * WARP, room + (2 * WARP + 1) * GLA_WIDE, 0, 0,
                    x};
    const bool mine = x < a.K;
    const size_t KV = (size_t)a.K * a.V, bh0 = (size_t)b * a.H + hk * group;
    const int runs = (a.chunk + GLA_RUN - 1) / GLA_RUN;
    // each head's dS lives at the beginning of its own region; the rest of the first head's region is shared by the
    // group
    wide *sum_q = work + bh0 * a.worker + KV, *sum_k = sum_q + (size_t)a.chunk * a.K,
         *mark = sum_k + (size_t)a.chunk * a.K, *run = mark + runs * KV;
    for (int h = 0; h < group; h++)
        for (size_t j = 0; j < (size_t)a.V && mine; j++)
            work[(bh0 + h) * a.worker + (size_t)x * a.V + j] = dstate[(bh0 + h) * KV + (size_t)x * a.V + j];
    for (int c = a.NC - 1; c >= 0; c--) {
        const int t0 = c * a.chunk, n = min(a.chunk, a.T - t0);
        for (int block = 0; block < group * ((a.V + GLA_WIDE - 1) / GLA_WIDE); block++) {
            const int h = block % group;
            w.v0 = block / group * GLA_WIDE, w.n = min((int)GLA_WIDE, a.V - w.v0);
            const real *from = states + ((bh0 + h) * (a.NC + 1) + c) * KV + (size_t)x * a.V + w.v0;
            wide *dS = work + (bh0 + h) * a.worker + (size_t)x * a.V + w.v0;
            for (int j = 0; j < w.n && mine; j++) w.S[j * WARP + y] = from[j], w.D[j * WARP + y] = dS[j];
            for (int i = 0; i < n; i++) { // forward: S_t and dq_t
                const GlaRow r = gla_row(w, q, k, v, dout, g, start, b, t0 + i, hk * group + h, hk, a);
                if (!mine) continue;
                if (i % GLA_RUN == 0)
                    for (int j = 0; j < w.n; j++)
                        mark[i / GLA_RUN * KV + (size_t)(w.v0 + j) * a.K + x] = w.S[j * WARP + y];
                gla_step(w, r);
                float s = 0;
                for (int j = 0; j < w.n; j++) s += w.S[j * WARP + y] * w.os[j];
                sum_q[i * a.K + x] = (block ? (float)sum_q[i * a.K + x] : 0.0f) + a.scale * s;
            }
            for (int first = (n - 1) / GLA_RUN * GLA_RUN; first >= 0; first -= GLA_RUN) {
                const int last = min(first + GLA_RUN, n);
                for (int j = 0; j < w.n && mine; j++)
                    w.S[j * WARP + y] = mark[first / GLA_RUN * KV + (size_t)(w.v0 + j) * a.K + x];
                for (int i = first; i < last; i++) { // forward again, keeping every S before its token
                    for (int j = 0; j < w.n && mine; j++)
                        run[(i - first) * KV + (size_t)(w.v0 + j) * a.K + x] = w.S[j * WARP + y];
                    const GlaRow r = gla_row(w, q, k, v, dout, g, start, b, t0 + i, hk * group + h, hk, a);
                    if (mine) gla_step(w, r);
                }
                for (int i = last - 1; i >= first; i--) { // backward: dS_t, dk_t, dg_t
                    const GlaRow r = gla_row(w, q, k, v, dout, g, start, b, t0 + i, hk * group + h, hk, a);
                    if (!mine) continue;
                    float s = 0, z = 0;
                    for (int j = 0; j < w.n; j++) {
                        const float d = w.D[j * WARP + y] + a.scale * r.q * w.os[j];
                        s += d * w.vs[j];                                              // dk = dS v
                        z += d * run[(i - first) * KV + (size_t)(w.v0 + j) * a.K + x]; // dg = <dS, e^g S_prev>
                        w.D[j * WARP + y] = r.decay * d;
                    }
                    sum_k[i * a.K + x] = (block ? (float)sum_k[i * a.K + x] : 0.0f) + s;
                    if (dg) dg[(((size_t)b * a.T + t0 + i) * a.Hk + hk) * a.K + x] += r.decay * z;
                }
            }
            for (int j = 0; j < w.n && mine; j++) dS[j] = w.D[j * WARP + y];
        }
        for (int i = 0; i < n && mine; i++) {
            const size_t at = (((size_t)b * a.T + t0 + i) * a.Hk + hk) * a.K + x;
            if (dq) dq[at] = (float)dq[at] + sum_q[i * a.K + x];
            if (dk) dk[at] = (float)dk[at] + sum_k[i * a.K + x];
        }
    }
}
static void gla_backward_plain(real *dq, real *dk, real *dv, wide *dg, wide *dstate, const real *dout,
                               const real *states, const real *q, const real *k, const real *v, const wide *g,
                               const int *start, double scale, void *work, const DeltaDims *d) {
    const size_t columns = ((size_t)d->K * (RECUR_COLUMNS + 3) + 24) * sizeof(float);
    if (dq || dk || dg)
        LAUNCH(gla_rows_kernel, dim3(d->B * d->Hk, ceil_div(d->K, WARP)), WARP, 0, dq, dk, dg, dstate, dout, states, q,
               k, v, g, start, (wide *)work, delta_args(d, scale));
    LAUNCH(gla_dv_kernel, ceil_div(d->V, RECUR_COLUMNS) * d->B * d->H, RECUR_COLUMNS, columns, dv, dstate, dout, q, k,
           g, start, delta_args(d, scale));
}
