/* column_sum.h - out[c] += sum_n f(n, c) for c < C, n < N, in a fixed order: the gradients of weights that every row
 * shares.
 *
 * Stage 1: the rows are cut into at most 256 pieces; a block adds up one piece of 32 columns (8 threads a column,
 * then a tree) and leaves it in the scratch buffer. Stage 2: one thread a column adds the pieces from first to last.
 * f is a struct with `__device__ float operator()(size_t n, int c) const`. */
#ifndef HYB_CUDA_COLUMN_SUM_H
#define HYB_CUDA_COLUMN_SUM_H
#include "launch.h"

enum { SUM_COLUMNS = 32, SUM_ROWS = 8, SUM_PIECES = 256 };

template <class F> __global__ void column_pieces_kernel(float *part, F f, size_t N, int C, size_t rows) {
    SHARED(float, sum, SUM_ROWS *SUM_COLUMNS);
    const int x = threadIdx.x, y = threadIdx.y, c = blockIdx.x * SUM_COLUMNS + x;
    const size_t first = blockIdx.y * rows, last = first + rows < N ? first + rows : N;
    float s = 0;
    if (c < C)
        for (size_t n = first + y; n < last; n += SUM_ROWS) s += f(n, c);
    sum[y * SUM_COLUMNS + x] = s;
    for (int half = SUM_ROWS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (y < half) sum[y * SUM_COLUMNS + x] += sum[(y + half) * SUM_COLUMNS + x];
    }
    if (y == 0 && c < C) part[(size_t)blockIdx.y * C + c] = sum[x];
}
__global__ void column_finish_kernel(float *out, const float *part, int pieces, int C, int turn) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    float s = 0;
    for (int p = 0; p < pieces; p++) s += part[(size_t)p * C + c];
    out[c % (C / turn) * turn + c / (C / turn)] += s;
}
/* turn: f's columns are a matrix of so many rows, and `out` is its transpose. */
template <class F> static void column_sum(float *out, F f, size_t N, int C, int turn = 1) {
    size_t pieces = ceil_div(N, 64);
    if (pieces > SUM_PIECES) pieces = SUM_PIECES;
    while (pieces > 1 && pieces * C * sizeof(float) > CUDA_SCRATCH) pieces /= 2;
    const size_t rows = (N + pieces - 1) / pieces;
    float *part = (float *)cuda_scratch();
    LAUNCH(column_pieces_kernel<F>, dim3(ceil_div(C, SUM_COLUMNS), ceil_div(N, rows)), dim3(SUM_COLUMNS, SUM_ROWS), 0,
           part, f, N, C, rows);
    LAUNCH(column_finish_kernel, ceil_div(C, 128), 128, 0, out, part, (int)ceil_div(N, rows), C, turn);
}
#endif
