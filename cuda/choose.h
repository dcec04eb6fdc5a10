/* choose.h - which version of an op runs for which shape. The plain versions take every shape. */
#if BITS == 16
/* Asynchronous copies and 16-byte accesses need their pointers aligned. */
static bool aligned(const void *a, const void *b, const void *c) {
    return (((size_t)a | (size_t)b | (size_t)c) & 15) == 0;
}
/* Rungs of the attention ladder: from 5 on a warp has 32 rows, below 16; so does a sequence that is one tile anyway. */
static bool rows_32(int T) { return T > 64 && (!cuda_version() || cuda_version() > 4); }
static bool hopper_asked() { return cuda_hopper() && (!cuda_version() || cuda_version() == 6); }
static bool plain_asked() { return cuda_version() == 1; }
/* The fast mixers have a row of blocks for each head of each sequence. */
static bool rows_fit(const DeltaDims *d) { return (size_t)d->B * d->H <= GRID_Y; }
#endif
static void attention_forward(real *o, wide *lse, const real *q, const real *k, const real *v, const int *start,
                              double scale, void *work, const AttnDims *d) {
#if BITS == 16
    const bool mma = aligned(q, k, v) && !plain_asked();
#else
    const bool mma = false;
#endif
    if (d->T == 1 && d->D <= ATT_MAX_D) return attention_step(o, lse, q, k, v, start, scale, work, mma, d);
#if BITS == 16
    if (cuda_version() == 2 && d->D <= LADDER_MAX_D) return attention_forward_shared(o, lse, q, k, v, start, scale, d);
    if (cuda_version() == 3 && (d->D == 64 || d->D == 128) && aligned(q, k, v)) {
        const auto run = d->D == 64 ? attention_forward_products<64> : attention_forward_products<128>;
        return run(o, lse, q, k, v, start, scale, d);
    }
    if (hopper_asked() && (d->D == 64 || d->D == 128) && aligned(q, k, v)) {
        const auto run = d->D == 64 ? flash_forward_wgmma<64> : flash_forward_wgmma<128>;
        return run(o, lse, q, k, v, start, scale, d);
    }
    if (!plain_asked() && (d->D == 64 || d->D == 128) && aligned(q, k, v) && aligned(o, lse, q)) {
        const bool wide = rows_32(d->T); // 32 rows a warp; at 128 channels some architectures spill
        const auto run = d->D == 64 ? (wide ? flash_forward<64, 2> : flash_forward<64, 1>) : flash_forward<128, 1>;
        return run(o, lse, q, k, v, start, scale, d);
    }
#endif
    attention_forward_plain(o, lse, q, k, v, start, scale, d);
}
static void attention_backward(real *dq, real *dk, real *dv, const real *dout, const real *o, const wide *lse,
                               const real *q, const real *k, const real *v, const int *start, double scale, void *work,
                               const AttnDims *d) {
#if BITS == 16
    if (!plain_asked() && (d->D == 64 || d->D == 128) && aligned(q, k, v) && aligned(dout, o, dq) &&
        aligned(dk, dv, work)) {
        const bool wide = rows_32(d->T);
        if (hopper_asked()) {
            const auto run = d->D == 64 ? flash_backward_wgmma<64> : flash_backward_wgmma<128>;
            return run(dq, dk, dv, dout, o, lse, q, k, v, start, scale, work, d);
        }
        const auto run = d->D == 64 ? (wide ? flash_backward<64, 2> : flash_backward<64, 1>)
                                    : (wide ? flash_backward<128, 2> : flash_backward<128, 1>);
        return run(dq, dk, dv, dout, o, lse, q, k, v, start, scale, work, d);
    }
#endif
    attention_backward_plain(dq, dk, dv, dout, o, lse, q, k, v, start, scale, work, d);
}
static void delta_rule_forward(real *o, real *states, wide *state, const real *q, const real *k, const real *v,
                               const wide *g, const wide *beta, const int *start, double scale, void *work,
                               const DeltaDims *d) {
    (void)work;
    if (d->T == 1 && d->K <= STEP_MAX_K) return step_forward<true, false>(o, states, state, q, k, v, g, beta, scale, d);
#if BITS == 16
    if (!plain_asked() && rows_fit(d) && d->chunk == GDN_C && d->V % GDN_COLS == 0 && aligned(q, k, v) &&
        aligned(work, o, states) && aligned(state, o, o)) {
        if (d->K == 64) return gdn_forward<64>(o, states, state, q, k, v, g, beta, start, scale, work, d);
        if (d->K == 128) return gdn_forward<128>(o, states, state, q, k, v, g, beta, start, scale, work, d);
    }
#endif
    recurrence<true, false>(o, states, state, q, k, v, g, beta, start, scale, d);
}
static void delta_rule_backward(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dstate, const real *dout,
                                const real *states, const real *q, const real *k, const real *v, const wide *g,
                                const wide *beta, const int *start, double scale, void *work, const DeltaDims *d) {
#if BITS == 16
    if (!plain_asked() && rows_fit(d) && d->chunk == GDN_C && d->K == d->V && aligned(q, k, v) &&
        aligned(work, dout, states) && aligned(dstate, dq, dk) && aligned(dv, dv, dv)) {
        if (d->K == 64)
            return gdn_backward<64, 64>(dq, dk, dv, dg, dbeta, dstate, dout, states, q, k, v, g, beta, start, scale,
                                        work, d);
        if (d->K == 128 && cuda_shared_room() >= 200 * 1024) // not on sm_80
            return gdn_backward<128, 128>(dq, dk, dv, dg, dbeta, dstate, dout, states, q, k, v, g, beta, start, scale,
                                          work, d);
    }
#endif
    delta_rule_backward_plain(dq, dk, dv, dg, dbeta, dstate, dout, states, q, k, v, g, beta, start, scale, work, d);
}
static void gla_forward(real *o, real *states, wide *state, const real *q, const real *k, const real *v, const wide *g,
                        const int *start, double scale, void *work, const DeltaDims *d) {
    (void)work;
    if (d->T == 1 && d->K <= STEP_MAX_K) return step_forward<false, true>(o, states, state, q, k, v, g, NULL, scale, d);
#if BITS == 16
    if (!plain_asked() && rows_fit(d) && d->chunk == GLA_C && d->V % GLA_COLS == 0 && aligned(q, k, v) &&
        aligned(work, o, states) && aligned(state, o, o)) {
        if (d->K == 64) return gla_forward_mma<64>(o, states, state, q, k, v, g, start, scale, work, d);
        if (d->K == 128) return gla_forward_mma<128>(o, states, state, q, k, v, g, start, scale, work, d);
    }
#endif
    recurrence<false, true>(o, states, state, q, k, v, g, NULL, start, scale, d);
}
static void gla_backward(real *dq, real *dk, real *dv, wide *dg, wide *dstate, const real *dout, const real *states,
                         const real *q, const real *k, const real *v, const wide *g, const int *start, double scale,
                         void *work, const DeltaDims *d) {
#if BITS == 16
    if (!plain_asked() && rows_fit(d) && d->chunk == GLA_C && d->V % GLA_COLS == 0 && aligned(q, k, v) &&
        aligned(work, dout, states) && aligned(dstate, dq, dk) && aligned(dv, dv, dv)) {
        if (d->K == 64)
            return gla_backward_mma<64>(dq, dk, dv, dg, dstate, dout, states, q, k, v, g, start, scale, work, d);
        if (d->K == 128)
            return gla_backward_mma<128>(dq, dk, dv, dg, dstate, dout, states, q, k, v, g, start, scale, work, d);
    }
#endif
    gla_backward_plain(dq, dk, dv, dg, dstate, dout, states, q, k, v, g, start, scale, work, d);
}
static void kda_forward(real *o, real *states, wide *state, const real *q, const real *k, const real *v, const wide *g,
                        const wide *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    (void)work;
    if (d->T == 1 && d->K <= STEP_MAX_K) return step_forward<true, true>(o, states, state, q, k, v, g, beta, scale, d);
#if BITS == 16
    if (!plain_asked() && rows_fit(d) && d->chunk == KDA_C && d->V % KDA_COLS == 0 && aligned(q, k, v) &&
        aligned(work, o, states) && aligned(state, o, o)) {
        if (d->K == 64) return kda_forward_mma<64>(o, states, state, q, k, v, g, beta, start, scale, work, d);
        if (d->K == 128) return kda_forward_mma<128>(o, states, state, q, k, v, g, beta, start, scale, work, d);
    }
#endif
    recurrence<true, true>(o, states, state, q, k, v, g, beta, start, scale, d);
}
static void kda_backward(real *dq, real *dk, real *dv, wide *dg, wide *dbeta, wide *dstate, const real *dout,
                         const real *states, const real *q, const real *k, const real *v, const wide *g,
                         const wide *beta, const int *start, double scale, void *work, const DeltaDims *d) {
#if BITS == 16
    if (!plain_asked() && rows_fit(d) && d->chunk == KDA_C && d->K == d->V && aligned(q, k, v) &&
        aligned(work, dout, states) && aligned(dstate, dq, dk) && aligned(dv, dv, dv)) {
        if (d->K == 64)
            return kda_backward_mma<64>(dq, dk, dv, dg, dbeta, dstate, dout, states, q, k, v, g, beta, start, scale,
                                        work, d);
        if (d->K == 128 && cuda_shared_room() >= 227 * 1024) // not on sm_80
            return kda_backward_mma<128>(dq, dk, dv, dg, dbeta, dstate, dout, states, q, k, v, g, beta, start, scale,
                                         work, d);
    }
#endif
    kda_backward_plain(dq, dk, dv, dg, dbeta, dstate, dout, states, q, k, v, g, beta, start, scale, work, d);
}
