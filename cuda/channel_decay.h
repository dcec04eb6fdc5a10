/* channel_decay.h - products with a decay per key channel inside a chunk of 64 rows, on the matrix unit (GLA, KDA).
 *
 * With b the sum of g from the chunk's start (per channel c), every use of it is a difference <= 0, cut in two factors
 * that are each
 * safe: a block of 16 rows against an earlier one has the decay to the border between them on either side;
 * a block against itself has the decay to its 8th row on either side if its whole decay is above e^-60 in every channel
 * (bf16 has float's exponents, so a factor above
 * 1 costs no digits), else the block is done element by element (arXiv 2312.06635 4.3, with the reference moved to the
 * middle). */
enum { DECAY_C = 64 };
const float DECAY_LOWEST = -110.0f, DECAY_RANGE = 60.0f; // e^-110 is 0 in float

/* b in shared memory, K + 8 floats a row: the pairs that 16 lanes read lie in different banks. */
template <int K> struct DecaySums {
    enum { LD = K + 8, SIZE = DECAY_C * LD };
};
/* Sums of g (rows `stride` apart) down the chunk, a thread a channel. A single decay below e^-110 counts as that:
 * it is 0 in float either way, and sums that stay small keep their digits. Rows n.. and document starts add nothing;
 * from[i] as in gdn_decays. */
template <int K>
__device__ void decay_sums(SHARED_PTR(float) bs, SHARED_PTR(int) from, const wide *g, size_t stride, const int *start,
                           int b, int t0, int n, const DeltaArgs &a) {
    for (int i = threadIdx.x; i < DECAY_C; i += blockDim.x) from[i] = begin_of(start, b, a.T, t0 + min(i, n - 1)) - t0;
    for (int c = threadIdx.x; c < K; c += blockDim.x) {
        float sum = 0;
        for (int i = 0; i < DECAY_C; i++) {
            if (i < n && !begins(start, b, a.T, t0 + i)) sum += fmaxf(g[i * stride + c], DECAY_LOWEST);
            bs[i * DecaySums<K>::LD + c] = sum;
        }
    }
}
__device__ unsigned decay_scaled(unsigned pair, float lo, float hi) {
    return bf16_pair(__uint_as_float(pair << 16) * lo, __uint_as_float(pair & 0xffff0000u) * hi);
}
/* Whether rows m0..m0+15 decay by less than DECAY_RANGE in every channel; the same for all lanes. */
template <int K> __device__ bool decay_mild(SHARED_PTR(float) bs, int m0) {
    float most = 0;
    for (int c = threadIdx.x % WARP; c < K; c += WARP)
        most = fmaxf(most, bs[m0 * DecaySums<K>::LD + c] - bs[(m0 + 15) * DecaySums<K>::LD + c]);
    return warp_max(most) < DECAY_RANGE;
}

// ---- x k^T ----
/* e^{b_i - b_ref} for this lane's elements of an A operand, rows m0.., channels k0... */
template <int K> __device__ void decay_of_a(float (&f)[4][2], SHARED_PTR(float) bs, int ref, int m0, int k0) {
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; r++) {
        const int c = k0 + 2 * t + r / 2 * 8, row = (m0 + g + r % 2 * 8) * DecaySums<K>::LD + c,
                  at = ref * DecaySums<K>::LD + c;
        f[r][0] = __expf(bs[row] - bs[at]), f[r][1] = __expf(bs[row + 1] - bs[at + 1]);
    }
}
/* B operands of rows n0..n0+15 of x as columns, times e^{b_ref - b_j}. */
template <int K>
__device__ void decay_load_b(unsigned (&b)[4], SHARED_PTR(Bf16) x, SHARED_PTR(float) bs, int ref, int n0, int k0) {
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    load_b<K>(b, x, n0, k0);
    for (int r = 0; r < 4; r++) {
        const int row = (n0 + g + r / 2 * 8) * DecaySums<K>::LD, c = k0 + 2 * t + r % 2 * 8,
                  at = ref * DecaySums<K>::LD + c;
        b[r] = decay_scaled(b[r], __expf(bs[at] - bs[row + c]), __expf(bs[at + 1] - bs[row + c + 1]));
    }
}
/* s[y] += the two 16 x 8 blocks of x[y] k^T with rows m0.. and columns n0.. (n0 <= m0), decays included.
 * Where the rows and columns are the same ones and the decay is strong, element by element. */
template <int K, int N>
__device__ void decay_scores(float (&s)[N][2][4], const SHARED_PTR(Bf16) (&x)[N], SHARED_PTR(Bf16) ks,
                             SHARED_PTR(float) bs, int m0, int n0) {
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    if (m0 == n0 && !decay_mild<K>(bs, m0)) {
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const int i = m0 + g + e / 2 % 2 * 8, j = n0 + e / 4 * 8 + 2 * t + e % 2;
            for (int c = 0; c < K && j <= i; c++) {
                const float k_jc = (float)ks[j * Tile<K>::LD + c] *
                                   __expf(bs[i * DecaySums<K>::LD + c] - bs[j * DecaySums<K>::LD + c]);
#pragma unroll
                for (int y = 0; y < N; y++) s[y][e / 4][e % 4] += (float)x[y][i * Tile<K>::LD + c] * k_jc;
            }
        }
        return;
    }
    const int ref = m0 == n0 ? m0 + 7 : m0 - 1;
    for (int k0 = 0; k0 < K; k0 += 16) {
        unsigned kb[4];
        float f[4][2];
        decay_of_a<K>(f, bs, ref, m0, k0);
        decay_load_b<K>(kb, ks, bs, ref, n0, k0);
#pragma unroll
        for (int y = 0; y < N; y++) {
            unsigned xa[4];
            load_a<K>(xa, x[y], m0, k0);
            for (int r = 0; r < 4; r++) xa[r] = decay_scaled(xa[r], f[r][0], f[r][1]);
            mma_bf16(s[y][0], xa, kb[0], kb[1]);
            mma_bf16(s[y][1], xa, kb[2], kb[3]);
        }
    }
}

// ---- dP x ----
/* e^{b_edge - b_row} (transposed: the opposite exponent) for this lane's elements of two neighbouring B operands of
 * rows k0... */
template <int K, bool transposed>
__device__ void decay_of_rows(float (&f)[4][2], SHARED_PTR(float) bs, int edge, int k0, int n0) {
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; r++) {
        const int c = n0 + r / 2 * 8 + g, row = (k0 + r % 2 * 8 + 2 * t) * DecaySums<K>::LD + c;
        const float e = bs[edge * DecaySums<K>::LD + c], e0 = e - bs[row], e1 = e - bs[row + DecaySums<K>::LD];
        f[r][0] = __expf(transposed ? -e0 : e0), f[r][1] = __expf(transposed ? -e1 : e1);
    }
}
/* c += dP (16 rows m0.., columns k0..) times rows k0.. of x with their decays f; transposed: dP^T. */
template <int K, bool transposed, int N, int A, int X>
__device__ void decay_mma(float (&c)[A][2][4], const SHARED_PTR(Bf16) (&dP)[N], const SHARED_PTR(Bf16) (&x)[X],
                          const float (&f)[4][2], int m0, int k0, int n0) {
    unsigned xb[4];
#pragma unroll
    for (int y = 0; y < N; y++) {
        unsigned pa[4];
        if (transposed) load_a_transposed<DECAY_C>(pa, dP[y], m0, k0);
        else load_a<DECAY_C>(pa, dP[y], m0, k0);
        if (y < X) {
            load_b_straight<K>(xb, x[y], k0, n0);
            for (int r = 0; r < 4; r++) xb[r] = decay_scaled(xb[r], f[r][0], f[r][1]);
        }
        mma_bf16(c[y < A ? y : 0][0], pa, xb[0], xb[1]);
        mma_bf16(c[y < A ? y : 0][1], pa, xb[2], xb[3]);
    }
}
/* For 16 rows i and 16 channels from c0: acc[y]_i += sum over j < i of dP[y]_ij e^{b_i - b_j} x_j;
 * transposed: acc_i += sum over j > i and y of dP[y]_ji e^{b_j - b_i} x[y]_j. mild: decay_mild of these rows. */
template <int K, bool transposed, int N, int A, int X>
__device__ void decay_rows(float (&acc)[A][2][4], const SHARED_PTR(Bf16) (&dP)[N], const SHARED_PTR(Bf16) (&x)[X],
                           SHARED_PTR(float) bs, int row, int c0, bool mild) {
    static_assert(A == (transposed ? 1 : N) && X == (transposed ? N : 1), "a result for each dP, or an x for each dP");
    const int lane = threadIdx.x % WARP, g = lane / 4, t2 = lane % 4 * 2, m0 = 16 * row,
              edge = transposed ? m0 + 15 : m0 - 1, other_end = transposed ? DECAY_C / 16 : row;
    float far[A][2][4] = {}, own[A][2][4] = {}, f[4][2];
    for (int other = transposed ? row + 1 : 0; other < other_end; other++) {
        decay_of_rows<K, transposed>(f, bs, edge, 16 * other, c0);
        decay_mma<K, transposed>(far, dP, x, f, m0, 16 * other, c0);
    }
    if (mild) {
        decay_of_rows<K, transposed>(f, bs, m0 + 7, m0, c0);
        decay_mma<K, transposed>(own, dP, x, f, m0, m0, c0);
    }
#pragma unroll
    for (int e = 0; e < 8; e++) {
        const int i = m0 + g + e / 2 % 2 * 8, c = c0 + e / 4 * 8 + t2 + e % 2;
        const float b_i = bs[i * DecaySums<K>::LD + c],
                    to_edge = edge < 0 ? 0.0f : bs[edge * DecaySums<K>::LD + c] - b_i,
                    to_mid = bs[(m0 + 7) * DecaySums<K>::LD + c] - b_i;
        const float e_edge = __expf(transposed ? to_edge : -to_edge),
                    e_mid = mild ? __expf(transposed ? to_mid : -to_mid) : 1.0f;
#pragma unroll 1 // the rare path: no registers for it
        for (int j = transposed ? i + 1 : m0; j < (transposed ? m0 + 16 : i) && !mild; j++) {
            const float d = b_i - bs[j * DecaySums<K>::LD + c], decay = __expf(transposed ? -d : d);
#pragma unroll
            for (int y = 0; y < N; y++)
                own[y < A ? y : 0][e / 4][e % 4] +=
                    (float)dP[y][transposed ? j * Tile<DECAY_C>::LD + i : i * Tile<DECAY_C>::LD + j] *
                    (float)x[y < X ? y : 0][j * Tile<K>::LD + c] * decay;
        }
#pragma unroll
        for (int y = 0; y < A; y++)
            acc[y][e / 4][e % 4] += far[y][e / 4][e % 4] * e_edge + own[y][e / 4][e % 4] * e_mid;
    }
}
