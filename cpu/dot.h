/* dot.h - the instructions that multiply pairs of BF16, behind wrappers. DOT says what this path has:
 *   DOT_NONE   operands are widened to float on the way in, and tile.h multiplies
 *   DOT_PAIRS  AVX512_BF16: a lane of two products a step (vdpbf16ps)
 *   DOT_TILES  AMX: 16 x 16 sums of 16 pairs a step (tdpbf16ps)
 * A pair is two neighbours along K, the lower index in the lower half of 32 bits. Code that only moves pairs calls them
 * floats. */
#ifndef HYB_CPU_DOT_H
#define HYB_CPU_DOT_H
#include "simd.h"

#define DOT_NONE  0
#define DOT_PAIRS 1
#define DOT_TILES 2
#ifndef DOT
#define DOT DOT_NONE
#endif

#if DOT == DOT_PAIRS
/* sum += a b, lane by lane over two products each. */
INLINE vf vdot(vf sum, vf a, vf b) { return (vf)_mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
#endif

#if DOT == DOT_TILES
/* Eight tiles of 16 rows of 64 bytes, all configured alike: sums, and operands of 16 x 32 and 16 pairs x 16.
 * tiles_begin before the first tile of a task; tiles_end gives the registers back. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TileConfig;
INLINE void tiles_begin(void) {
    static const TileConfig all = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&all);
}
INLINE void tiles_end(void) { _tile_release(); }
#define tile_zero(t)            _tile_zero(t)
#define tile_load(t, p, bytes)  _tile_loadd(t, p, bytes)
#define tile_store(t, p, bytes) _tile_stored(t, p, bytes)
#define tile_dot(c, a, b)       _tile_dpbf16ps(c, a, b)
#endif
#endif
