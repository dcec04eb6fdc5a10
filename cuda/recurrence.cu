/* recurrence.cu - the recurrent mixers forward, first version, for any shape: the recurrence word for word.
 *
 * P = e^g o S (one decay a head, or one a key channel), u = beta (v - P^T k) for the delta rules, else v;
 * S = P + k u^T; o = s S^T q. The columns of S are independent of each other: u_v, and so S[:,v], needs only v's own
 * column. So a thread owns a column, in shared memory, and a block
 * walks through time with 32 columns; q_t, k_t and the decays are fetched once for all of them. */
enum { RECUR_COLUMNS = 32 };

template <bool delta, bool channels>
__global__ void recurrence_kernel(real *o, real *states, wide *state, const real *q, const real *k, const real *v,
                                  const wide *g, const wide *beta, const int *start, DeltaArgs a) {
    DYNAMIC_SHARED(float, cursor);
    SHARED_PTR(float) S = shared_take<float>(cursor, a.K * RECUR_COLUMNS);
    SHARED_PTR(float) qs = shared_take<float>(cursor, a.K);
    SHARED_PTR(float) ks = shared_take<float>(cursor, a.K);
    SHARED_PTR(float) es = shared_take<float>(cursor, a.K);
    const Piece piece = block_piece(ceil_div(a.V, RECUR_COLUMNS));
    const int bh = piece.of, b = bh / a.H, h = bh % a.H, hk = h / (a.H / a.Hk), x = threadIdx.x,
              col = piece.at * RECUR_COLUMNS + x;
    const bool mine = col < a.V;
    const size_t KV = (size_t)a.K * a.V;
    wide *running = state + bh * KV + col;
    real *kept = states ? states + bh * (a.NC + 1) * KV + col : states;
    for (int i = 0; i < a.K; i++) {
        S[i * RECUR_COLUMNS + x] = mine ? running[(size_t)i * a.V] : 0.0f;
        if (mine && kept) kept[(size_t)i * a.V] = real(running[(size_t)i * a.V]);
    }
    for (int t = 0; t < a.T; t++) {
        const size_t bt = (size_t)b * a.T + t, row = bt * a.H + h, krow = (bt * a.Hk + hk) * a.K;
        const wide *g_t = g + (!channels ? row : delta ? row * a.K : krow);
        const bool fresh = begins(start, b, a.T, t);
        __syncthreads();
        for (int i = x; i < a.K; i += RECUR_COLUMNS)
            qs[i] = q[krow + i], ks[i] = k[krow + i], es[i] = fresh ? 0.0f : expf(g_t[channels ? i : 0]);
        __syncthreads();
        float u = mine ? (float)v[row * a.V + col] : 0.0f, out = 0;
        for (int i = 0; i < a.K; i++) {
            const float p =
                es[i] != 0 ? es[i] * S[i * RECUR_COLUMNS + x] : 0.0f; // what is forgotten may have been infinite
            S[i * RECUR_COLUMNS + x] = p;
            if (delta) u -= p * ks[i];
        }
        if (delta) u *= beta[row];
        for (int i = 0; i < a.K; i++) {
            const float s = S[i * RECUR_COLUMNS + x] + ks[i] * u;
            S[i * RECUR_COLUMNS + x] = s;
            out += s * qs[i];
        }
        if (mine) o[row * a.V + col] = a.scale * out;
        if (((t + 1) % a.chunk == 0 || t + 1 == a.T) && mine && kept) // the state after this chunk
            for (int i = 0; i < a.K; i++)
                kept[(t / a.chunk + 1) * KV + (size_t)i * a.V] = real(S[i * RECUR_COLUMNS + x]);
    }
    for (int i = 0; i < a.K && mine; i++) running[(size_t)i * a.V] = S[i * RECUR_COLUMNS + x];
}
template <bool delta, bool channels>
static void recurrence(real *o, real *states, wide *state, const real *q, const real *k, const real *v, const wide *g,
                       const wide *beta, const int *start, double scale, const DeltaDims *d) {
    const size_t shared = ((size_t)d->K * (RECUR_COLUMNS + 3) + 24) * sizeof(float);
    LAUNCH((recurrence_kernel<delta, channels>), ceil_div(d->V, RECUR_COLUMNS) * d->B * d->H, RECUR_COLUMNS, shared, o,
           states, state, q, k, v, g, beta, start, delta_args(d, scale));
}
