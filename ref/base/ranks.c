/* ranks.c - see ranks.h. */
#include "base/ranks.h"
#include <string.h>

int ranks_share(Ranks *r, void *data, size_t bytes, Err *e) {
    return ranks_count(r) > 1 && bytes ? r->share(r, data, bytes, e) : OK;
}

int ranks_swap(Ranks *r, const RankPart *out, const RankPart *in, Err *e) {
    if (ranks_count(r) < 2) return OK;
    TRY(r->post(r, out, in, e));
    return r->wait(r, e);
}

int ranks_gather(Ranks *r, void *data, const size_t *at, Err *e) {
    TRY(ranks_gather_post(r, data, at, e));
    return ranks_count(r) > 1 ? r->wait(r, e) : OK;
}

int ranks_gather_post(Ranks *r, void *data, const size_t *at, Err *e) {
    RankPart out[RANKS_MOST] = {0}, in[RANKS_MOST] = {0};
    if (ranks_count(r) < 2) return OK;
    for (int q = 0; q < r->size; q++) {
        out[q] = (RankPart){(char *)data + at[r->rank], at[r->rank + 1] - at[r->rank]};
        in[q] = (RankPart){(char *)data + at[q], at[q + 1] - at[q]};
    }
    return r->post(r, out, in, e);
}

int ranks_outcome(Ranks *r, int rc, Err *e) {
    struct {
        int rc;
        Err e;
    } all = {.rc = rc};
    if (ranks_count(r) < 2) return rc;
    if (e && ranks_first(r)) all.e = *e;
    TRY(r->share(r, &all, sizeof all, e));
    if (e && !ranks_first(r)) *e = all.e;
    return all.rc;
}

int ranks_equal(Ranks *r, uint64_t number, const char *what, Err *e) {
    uint64_t first = number;
    TRY(ranks_share(r, &first, sizeof first, e));
    if (first == number) return OK;
    err_set(e, ERR_USAGE, "%s: is %016llx here and %016llx at rank 0", what, (unsigned long long)number,
            (unsigned long long)first);
    return err_hint(e, "all ranks must run the same program on the same files");
}
