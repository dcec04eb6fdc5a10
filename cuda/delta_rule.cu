/* delta_rule.cu - the gated delta rule, first version of backward, chunk by chunk (forward: recurrence.cu).
 *
 * One block per (batch, key head), chunks from the last to the first, the heads of the group one after another. The
 * equations are those of the no-WU form with the ungated inverse (FlashQLA's algebra), each line a tile_product in
 * the workspace: readable, and slow. Rows i of a chunk, G the sum of g from the chunk's start, all decays differences
 * <= 0:
 *   gam_ij = e^{G_i - G_j} (i >= j, same document)   in_i = e^{G_i} (0 after a start)   out_i = e^{G_C - G_i}   all =
 *   e^{G_C}
 *   A = gam o (I + strict(beta K K^T))^{-1},  A_b = A diag(beta),  R = V - in o (K S),  V' = A_b R,  P = s gam o (Q
 *   K^T)
 *   dV' = P^T dO + out o (K dS)            dR = A_b^T dV'                       dV += dR
 *   dP = s gam o (dO V'^T)                 dQ = dP K + s in o (dO S^T)
 *   dK = dP^T Q + dK_s - in o (dR S^T) + (E + E^T) K,  dK_s = out o (V' dS^T),   E = beta o dM o gam,
 *   dM = -strict(A^T (dV' R^T diag(beta)) A^T)
 *   dbeta_j = sum_i (dV' R^T o A)_ij + sum_i (dM o gam o K K^T)_ji
 *   dg_t = sum over i >= t of (in_i's share + sum over j < t of L_ij), L the gradient of the exponents of gam_ij:
 *   L = (dO V'^T) o P + E o K K^T, in the chunk's last row also K_j . dK_s,j;  in's share: q_i . dQ_in + k_i .
 *   dK_in, last row also all <S, dS>
 *   dS = all dS + Q^T (s in o dO) - K^T (in o dR) */
enum { DELTA_THREADS = 256 };

/* The tiles of one (batch, head) in the workspace. */
struct DeltaTiles {
    wide *KK, *A, *P, *dP, *dA, *X, *tmp, *L; // (chunk, chunk)
    wide *R, *U, *dU, *dR, *Ks, *dQ, *dK;     // (chunk, K or V); U is V'
    wide *in, *out, *din, *all;               // (chunk); din: gradient of in's exponent; all has one element
    double *G; // (chunk): its differences must keep the digits of a weak decay behind a strong one
};
__device__ DeltaTiles delta_tiles(wide *w, int c, int width) {
    DeltaTiles t;
    wide **square[] = {&t.KK, &t.A, &t.P, &t.dP, &t.dA, &t.X, &t.tmp, &t.L},
         **tall[] = {&t.R, &t.U, &t.dU, &t.dR, &t.Ks, &t.dQ, &t.dK};
    wide **line[] = {&t.in, &t.out, &t.din, &t.all};
    t.G = (double *)w, w += 2 * c; // the workspace begins at a double
    for (int i = 0; i < 8; i++) *square[i] = w, w += (size_t)c * c;
    for (int i = 0; i < 7; i++) *tall[i] = w, w += (size_t)c * width;
    for (int i = 0; i < 4; i++) *line[i] = w, w += c;
    return t;
}
/* One head and chunk: where its rows begin, and their strides. */
struct DeltaChunk {
    int n, b, t0, h, sq, sv, s1; // rows; strides between rows of q/k, of v/o, of g/beta
    const real *q, *k, *v, *dout;
    const wide *g, *beta;
    const real *S;
    wide *dS;
};

/* G, in, out, all. */
__device__ void delta_decays(const DeltaTiles &w, const DeltaChunk &c, const int *start, int T) {
    if (threadIdx.x == 0) {
        double sum = 0;
        for (int i = 0; i < c.n; i++) w.G[i] = sum += c.g[(size_t)i * c.s1];
        const int last = begin_of(start, c.b, T, c.t0 + c.n - 1);
        for (int i = 0; i < c.n; i++) {
            w.in[i] = begin_of(start, c.b, T, c.t0 + i) >= c.t0 ? 0.0f : expf((float)w.G[i]);
            w.out[i] = last > c.t0 + i ? 0.0f : expf((float)(sum - w.G[i]));
        }
        w.all[0] = last >= c.t0 ? 0.0f : expf((float)sum);
    }
    __syncthreads();
}
/* gam_ij for i >= j. */
__device__ float delta_gam(const DeltaTiles &w, const DeltaChunk &c, const int *start, int T, int i, int j) {
    return begin_of(start, c.b, T, c.t0 + i) > c.t0 + j ? 0.0f : expf((float)(w.G[i] - w.G[j]));
}
/* A = gam o (I + strict(beta K K^T))^{-1}: a thread solves a column by forward substitution. */
__device__ void delta_inverse(const DeltaTiles &w, const DeltaChunk &c, const int *start, int T) {
    for (int j = threadIdx.x; j < c.n; j += blockDim.x) {
        for (int i = 0; i < c.n; i++) {
            float s = i == j ? 1.0f : 0.0f;
            for (int m = j; m < i; m++) s -= c.beta[(size_t)i * c.s1] * w.KK[i * c.n + m] * w.A[m * c.n + j];
            w.A[i * c.n + j] = i < j ? 0.0f : s;
        }
    }
    __syncthreads(); // the ungated inverse is complete before the decays go in: a column reads its own entries only
    for (int e = threadIdx.x; e < c.n * c.n; e += blockDim.x) {
        const int i = e / c.n, j = e % c.n;
        if (j <= i) w.A[e] *= delta_gam(w, c, start, T, i, j);
    }
    __syncthreads();
}

/* One head of one chunk. dQ, dK (and dG inside) are left in the tiles, dv, dg, dbeta, dS are written out. */
__device__ void delta_backward_chunk(const DeltaTiles &w, const DeltaChunk &c, real *dv, wide *dg, wide *dbeta,
                                     const int *start, const DeltaArgs &a) {
    const int n = c.n, K = a.K, V = a.V;
    delta_decays(w, c, start, a.T);
    tile_product(c.k, c.sq, 1, c.k, 1, c.sq, n, n, K, [&](int i, int j, float s) { w.KK[i * n + j] = s; });
    tile_product(c.q, c.sq, 1, c.k, 1, c.sq, n, n, K, [&](int i, int j, float s) {
        w.P[i * n + j] = j <= i ? a.scale * delta_gam(w, c, start, a.T, i, j) * s : 0.0f;
    });
    tile_product(c.k, c.sq, 1, c.S, V, 1, n, V, K,
                 [&](int i, int j, float s) { w.R[i * V + j] = (float)c.v[(size_t)i * c.sv + j] - w.in[i] * s; });
    __syncthreads();
    delta_inverse(w, c, start, a.T);
    // V' = A diag(beta) R
    for (int e = threadIdx.x; e < n * V; e += blockDim.x) {
        const int i = e / V, j = e % V;
        float s = 0;
        for (int m = 0; m <= i; m++) s += w.A[i * n + m] * c.beta[(size_t)m * c.s1] * w.R[m * V + j];
        w.U[e] = s;
    }
    // dV' = P^T dO + out o (K dS)
    tile_product(c.k, c.sq, 1, c.dS, V, 1, n, V, K, [&](int i, int j, float s) { w.dU[i * V + j] = w.out[i] * s; });
    __syncthreads();
    tile_product(w.P, 1, n, c.dout, c.sv, 1, n, V, n, [&](int i, int j, float s) { w.dU[i * V + j] += s; });
    __syncthreads();
    // dR = diag(beta) A^T dV', dV += dR
    tile_product(w.A, 1, n, w.dU, V, 1, n, V, n, [&](int i, int j, float s) {
        w.dR[i * V + j] = c.beta[(size_t)i * c.s1] * s;
        if (dv) dv[(size_t)i * c.sv + j] = (float)dv[(size_t)i * c.sv + j] + w.dR[i * V + j];
    });
    // dP = s gam o (dO V'^T), L's first part;  dA_b = dV' R^T
    tile_product(c.dout, c.sv, 1, w.U, 1, V, n, n, V, [&](int i, int j, float s) {
        w.dP[i * n + j] = j <= i ? a.scale * delta_gam(w, c, start, a.T, i, j) * s : 0.0f;
        w.L[i * n + j] = s * w.P[i * n + j];
    });
    tile_product(w.dU, V, 1, w.R, 1, V, n, n, V, [&](int i, int j, float s) { w.dA[i * n + j] = s; });
    __syncthreads();
    // dM = -strict(A^T (dA_b diag(beta)) A^T), kept as X = E / beta = dM o gam
    tile_product(w.A, 1, n, w.dA, n, 1, n, n, n,
                 [&](int i, int j, float s) { w.tmp[i * n + j] = s * c.beta[(size_t)j * c.s1]; });
    __syncthreads();
    tile_product(w.tmp, n, 1, w.A, 1, n, n, n, n, [&](int i, int j, float s) {
        w.X[i * n + j] = j < i ? -s * delta_gam(w, c, start, a.T, i, j) : 0.0f;
    });
    // dQ = dP K + s in o (dO S^T)
    tile_product(w.dP, n, 1, c.k, c.sq, 1, n, K, n, [&](int i, int j, float s) { w.dQ[i * K + j] = s; });
    // dK_s = out o (V' dS^T), kept apart for the last row of dG
    tile_product(w.U, V, 1, c.dS, 1, V, n, K, V, [&](int i, int j, float s) { w.Ks[i * K + j] = w.out[i] * s; });
    __syncthreads();
    tile_product(w.dP, 1, n, c.q, c.sq, 1, n, K, n,
                 [&](int i, int j, float s) { w.dK[i * K + j] = s + w.Ks[i * K + j]; });
    for (int i = threadIdx.x; i < n; i += blockDim.x) { // dbeta
        float db = 0;
        for (int m = 0; m < n; m++) db += w.X[i * n + m] * w.KK[i * n + m] + w.dA[m * n + i] * w.A[m * n + i];
        if (dbeta) dbeta[(size_t)i * c.s1] += db;
        w.din[i] = 0;
    }
    __syncthreads();
    // the two products with S: dQ_in = s in o (dO S^T), dK_in = -in o (dR S^T), kept apart in dU and R (n x max(K, V)),
    // no longer needed
    tile_product(c.dout, c.sv, 1, c.S, 1, V, n, K, V,
                 [&](int i, int j, float s) { w.dU[i * K + j] = a.scale * w.in[i] * s; });
    tile_product(w.dR, V, 1, c.S, 1, V, n, K, V, [&](int i, int j, float s) { w.R[i * K + j] = -w.in[i] * s; });
    // L's second part
    for (int e = threadIdx.x; e < n * n; e += blockDim.x) w.L[e] += c.beta[(size_t)(e / n) * c.s1] * w.X[e] * w.KK[e];
    __syncthreads();
    for (int e = threadIdx.x; e < n * K; e += blockDim.x) {
        const int i = e / K, j = e % K;
        float z = 0; // (E + E^T) K, E = diag(beta) X
        for (int m = 0; m < n; m++)
            z += (c.beta[(size_t)i * c.s1] * w.X[i * n + m] + c.beta[(size_t)m * c.s1] * w.X[m * n + i]) *
                 (float)c.k[(size_t)m * c.sq + j];
        w.dQ[e] += w.dU[e];
        w.dK[e] += w.R[e] + z;
    }
    float tail = 0; // all <S, dS>
    for (int e = threadIdx.x; e < K * V; e += blockDim.x) tail += w.all[0] * c.S[e] * c.dS[e];
    tail = block_sum(tail);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float in = i == n - 1 ? tail : 0.0f, last = 0;
        for (int j = 0; j < K; j++) {
            const float k_ij = c.k[(size_t)i * c.sq + j];
            in += (float)c.q[(size_t)i * c.sq + j] * w.dU[i * K + j] + k_ij * w.R[i * K + j];
            last += k_ij * w.Ks[i * K + j];
        }
        w.din[i] = in;
        w.L[(n - 1) * n + i] += last;
    }
    __syncthreads();
    for (int t = threadIdx.x; t < n && dg;
         t += blockDim.x) { // every pair j < t <= i has g_t in its exponent; pairs across a start are zero
        float s = 0;
        for (int i = t; i < n; i++) {
            s += w.din[i];
            for (int j = 0; j < t; j++) s += w.L[i * n + j];
        }
        dg[(size_t)t * c.s1] += s;
    }
    // dS = all dS + Q^T (s in o dO) - K^T (in o dR)
    for (int e = threadIdx.x; e < K * V; e += blockDim.x) {
        const int i = e / V, j = e % V;
        float s = w.all[0] * c.dS[e];
        for (int m = 0; m < n; m++)
            s += w.in[m] * (a.scale * (float)c.q[(size_t)m * c.sq + i] * (float)c.dout[(size_t)m * c.sv + j] -
                            (float)c.k[(size_t)m * c.sq + i] * w.dR[m * V + j]);
        c.dS[e] = s; // each element has one reader now
    }
    __syncthreads();
}

__global__ void delta_rule_backward_kernel(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dstate,
                                           const real *dout, const real *states, const real *q, const real *k,
                                           const real *v, const wide *g, const wide *beta, const int *start, wide *work,
                                           DeltaArgs a) {
    const int b = blockIdx.x / a.Hk, hk = blockIdx.x % a.Hk, group = a.H / a.Hk, width = max(a.K, a.V);
    const size_t bh0 =
        (size_t)b * a.H + hk * group; // the group's first head; its neighbour regions are free for the sums
    const DeltaTiles w = delta_tiles(work + bh0 * a.worker, a.chunk, width);
    wide *sum_q = w.all + a.chunk, *sum_k = sum_q + (size_t)a.chunk * width;
    for (int c = a.NC - 1; c >= 0; c--) {
        const int t0 = c * a.chunk, n = min(a.chunk, a.T - t0);
        const size_t bt = (size_t)b * a.T + t0, kq = (bt * a.Hk + hk) * a.K;
        for (int h = hk * group; h < (hk + 1) * group; h++) {
            const size_t bh = (size_t)b * a.H + h, row = bt * a.H + h;
            const DeltaChunk x = {n,
                                  b,
                                  t0,
                                  h,
                                  a.Hk * a.K,
                                  a.H * a.V,
                                  a.H,
                                  q + kq,
                                  k + kq,
                                  v + row * a.V,
                                  dout + row * a.V,
                                  g + row,
                                  beta + row,
                                  states + (bh * (a.NC + 1) + c) * a.K * a.V,
                                  dstate + bh * a.K * a.V};
            delta_backward_chunk(w, x, dv ? dv + row * a.V : dv, dg ? dg + row : dg, dbeta ? dbeta + row : dbeta, start,
                                 a);
            for (int e = threadIdx.x; e < n * a.K; e += blockDim.x) {
                sum_q[e] = (h == hk * group ? 0.0f : sum_q[e]) + w.dQ[e];
                sum_k[e] = (h == hk * group ? 0.0f : sum_k[e]) + w.dK[e];
            }
        }
        for (int e = threadIdx.x; e < n * a.K; e += blockDim.x) {
            const size_t at = kq + (size_t)(e / a.K) * a.Hk * a.K + e % a.K;
            if (dq) dq[at] = (float)dq[at] + sum_q[e];
            if (dk) dk[at] = (float)dk[at] + sum_k[e];
        }
        __syncthreads();
    }
}
static void delta_rule_backward_plain(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dstate,
                                      const real *dout, const real *states, const real *q, const real *k, const real *v,
                                      const wide *g, const wide *beta, const int *start, double scale, void *work,
                                      const DeltaDims *d) {
    LAUNCH(delta_rule_backward_kernel, d->B * d->Hk, DELTA_THREADS, 0, dq, dk, dv, dg, dbeta, dstate, dout, states, q,
           k, v, g, beta, start, (wide *)work, delta_args(d, scale));
}
