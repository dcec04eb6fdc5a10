/* hopper_machine.h - the part of cuda_emu.cc behind hopper.h; included there once, after the machine.
 *
 * Order between threads: m.tick counts releases. Every access to shared memory is stamped with it. known[w][v] is the
 * last tick up to which warp w knows what warp v did: an arrival at a barrier hands on what the warp knows, a wait
 * takes it over. The copy engine is one more "warp". */
namespace {
enum { ENGINE = WARPS, PARTIES };
struct Fine { // one granule of shared memory
    unsigned write_stamp, read_stamp[WARPS];
    unsigned write_fence;          // proxy fences of the writer so far; ~0u: the writer was the async proxy
    uint16_t writer_warp, reading; // reading: wgmmas under way that read it
    bool copying;                  // a bulk copy into it is under way
};
typedef unsigned Known[PARTIES];
struct Mbarrier {
    unsigned count, pending, phase; // arrivals a phase, arrivals missing
    long bytes;                     // expected and not there yet
    Known gathered, done;           // by the arrivals of this phase; by all completed ones
};
struct Named {
    int arrived, threads;
    Known gathered;
};
struct BulkCopy {
    unsigned to, barrier;
    CUtensorMap map;
    int at[5];
};
struct Lent { // registers that a wgmma under way has
    char *p;
    std::vector<char> value;
    int uses;
};
struct Fenced {
    const char *p;
    std::vector<char> value;
};
struct Product {
    Wgmma lane[32];
    unsigned a[32][4];
};
struct WarpQueue {
    std::vector<Product> open;
    std::deque<std::vector<Product>> groups;
    unsigned turn, issued;
};
struct Hopper {
    bool on; // this block has made an mbarrier or issued a wgmma
    unsigned tick = 1;
    Known known[WARPS];
    Fine fine[SHARED_BYTES / GRANULE];
    std::map<unsigned, Mbarrier> barrier;
    Named named[16];
    std::vector<BulkCopy> copies;
    WarpQueue warp[WARPS];
    std::vector<Lent> lent[MAX_THREADS];
    std::vector<Fenced> fenced[MAX_THREADS];
    unsigned turn[MAX_THREADS], fences[MAX_THREADS];
    std::vector<uint64_t> log[WARPS / 4]; // what each warpgroup has issued, in order
};
Hopper h;
const unsigned char POISON = 0xff; // of every byte: a NaN

void join(Known to, const Known from) {
    for (int i = 0; i < PARTIES; i++) to[i] = std::max(to[i], from[i]);
}
/* Hands on what the current warp knows and has done; accesses from now on are later. */
void hand_on(Known to) {
    const int w = m.cur / 32;
    join(to, h.known[w]);
    to[w] = std::max(to[w], h.tick++);
}
void hopper_barrier() { // of the whole block
    if (!h.on) return;
    Known all = {};
    for (int w = 0; w < WARPS; w++) join(all, h.known[w]);
    for (int w = 0; w < WARPS; w++) all[w] = h.tick;
    for (int w = 0; w < WARPS; w++) join(h.known[w], all);
    h.tick++;
}
void hopper_on() {
    if (h.on) return;
    h.on = true;
    for (auto &known : h.known)
        for (unsigned &k : known) k = h.tick;
    h.tick++;
}
void hopper_block() { // at the beginning of a block
    h.on = false;
    h.barrier.clear();
    h.copies.clear();
    for (Named &n : h.named) n = {};
}
void hopper_forget() {
    for (auto &f : h.fine) f.reading = 0, f.copying = false;
    for (auto &l : h.lent) l.clear();
    for (auto &w : h.warp) w.open.clear(), w.groups.clear();
}
void hopper_block_end(bool stuck) {
    if (!h.on) return;
    bool under_way = !h.copies.empty();
    for (const WarpQueue &w : h.warp) under_way |= !w.open.empty() || !w.groups.empty();
    if (under_way && !stuck) report("block ends with a bulk copy or a wgmma that was never waited for");
    for (int g = 0; g < (m.n + 127) / 128 && !stuck; g++)
        for (int w = 4 * g; w < 4 * g + 4; w++)
            if (h.warp[w].issued != h.log[g].size()) {
                report("warps of warpgroup %d issued %u and %zu wgmmas", g, h.warp[w].issued, h.log[g].size());
                break;
            }
    if (under_way || stuck) hopper_forget();
    for (auto &w : h.warp) w.turn = w.issued = 0;
    for (auto &l : h.log) l.clear();
    for (int i = 0; i < MAX_THREADS; i++) h.turn[i] = 0, h.fenced[i].clear();
}
bool unknown(int warp, const Fine &f) { return f.write_stamp > h.known[warp][f.writer_warp]; }

/* shared_note for a block with mbarriers. */
void fine_note(unsigned offset, unsigned bytes, bool write) {
    const uint16_t me = (uint16_t)m.cur;
    const int warp = me / 32;
    const char *does = write ? "write" : "read";
    for (unsigned g = offset / GRANULE; g < (offset + bytes + GRANULE - 1) / GRANULE; g++) {
        Shadow &s = m.shadow[g];
        Fine &f = h.fine[g];
        const unsigned byte = g * (unsigned)GRANULE;
        const bool written = s.write_epoch >= m.block_epoch;
        if (f.copying) report("race in shared memory, byte %u: %s while a bulk copy into it is under way", byte, does);
        if (s.flight && s.flight_block == m.block_epoch && written)
            report("race in shared memory, byte %u: %s while an asynchronous copy into it is under way", byte, does);
        if (written && unknown(warp, f) &&
            (f.writer_warp != warp || (s.writer != me && s.write_warp_epoch == m.warp_epoch[warp])))
            report("race in shared memory, byte %u: %s by this thread and write by %s, which it has not waited for",
                   byte, does, f.writer_warp == ENGINE ? "a bulk copy" : "another");
        if (!write) {
            if (!written && !f.copying) report("uninitialised read of shared memory, byte %u", byte);
            const bool again = f.read_stamp[warp] > h.known[warp][warp] && s.reader != me && s.reader / 32 == warp &&
                               s.read_warp_epoch == m.warp_epoch[warp];
            s.reader = again ? (uint16_t)MANY_LANES : me;
            s.read_epoch = m.epoch, s.read_warp_epoch = m.warp_epoch[warp], f.read_stamp[warp] = h.tick;
            continue;
        }
        if (f.reading) report("race in shared memory, byte %u: write while a wgmma that reads it is under way", byte);
        for (int v = 0; v < WARPS; v++)
            if (f.read_stamp[v] > h.known[warp][v] &&
                (v != warp || (s.reader != me && s.read_warp_epoch == m.warp_epoch[warp])))
                report("race in shared memory, byte %u: write by this thread and read by warp %d, which it has not "
                       "waited for",
                       byte, v);
        s.write_epoch = m.epoch, s.writer = me, s.write_warp_epoch = m.warp_epoch[warp];
        f.write_stamp = h.tick, f.writer_warp = (uint16_t)warp, f.write_fence = h.fences[me];
    }
}

/* 16 bytes that the async proxy is about to read (a wgmma) or to overwrite (a bulk copy) for the current thread. */
void async_note(unsigned at, const char *what, bool write) {
    const int warp = m.cur / 32;
    for (unsigned g = at / GRANULE; g < (at + 16) / GRANULE; g++) {
        const Shadow &s = m.shadow[g];
        Fine &f = h.fine[g];
        const unsigned byte = g * (unsigned)GRANULE;
        const bool written = s.write_epoch >= m.block_epoch;
        if (f.copying) report("%s: byte %u of shared memory is the target of a bulk copy under way", what, byte);
        if (written && unknown(warp, f))
            report("%s: byte %u of shared memory was written by %s that this thread has not waited for", what, byte,
                   f.writer_warp == ENGINE ? "a bulk copy" : "a thread");
        if (written && f.write_fence != ~0u && f.write_fence == h.fences[s.writer])
            report("%s: byte %u of shared memory was written by an ordinary store with no fence.proxy.async behind it",
                   what, byte);
        if (!write) {
            if (!written && !f.copying) report("%s: uninitialised shared memory, byte %u", what, byte);
            f.reading++;
            continue;
        }
        if (f.reading) report("%s: byte %u of shared memory is being read by a wgmma under way", what, byte);
        for (int v = 0; v < WARPS; v++)
            if (f.read_stamp[v] > h.known[warp][v])
                report("%s: byte %u of shared memory was read by warp %d, which this thread has not waited for", what,
                       byte, v);
        f.copying = true;
    }
}

// ---- mbarriers ----
Mbarrier *mbarrier_at(unsigned at, const char *what) {
    const auto b = h.barrier.find(at);
    if (b == h.barrier.end()) {
        report("%s: no mbarrier was initialised at byte %u of shared memory", what, at);
        return nullptr;
    }
    if (unknown(m.cur / 32, h.fine[at / GRANULE]) && h.fine[at / GRANULE].writer_warp != m.cur / 32)
        report("%s: the mbarrier at byte %u was initialised by a thread that this one has not waited for", what, at);
    return &b->second;
}
void mbarrier_try(Mbarrier &b) {
    if (b.pending || b.bytes) return;
    join(b.done, b.gathered);
    b.pending = b.count, b.phase++;
    for (int i = 0; i < m.n; i++) {
        Fiber &f = m.fiber[i];
        if (f.state == AT_MBARRIER && &h.barrier[f.mbarrier] == &b && (b.phase & 1) != f.parity) f.state = READY;
    }
}
unsigned swizzled(unsigned at) { return at ^ ((at >> 7 & 7) << 4); }
unsigned box_elements(const CUtensorMap &map) {
    unsigned n = 1;
    for (unsigned i = 0; i < map.rank; i++) n *= map.box[i];
    return n;
}
void land(const BulkCopy &c) {
    const unsigned n = box_elements(c.map);
    for (unsigned e = 0; e < n; e++) {
        unsigned rest = e, at = c.to + 2 * e;
        const char *from = (const char *)c.map.base;
        bool inside = true;
        for (unsigned i = 0; i < c.map.rank; i++) {
            const long x = c.at[i] + (long)(rest % c.map.box[i]);
            rest /= c.map.box[i];
            inside &= x >= 0 && x < (long)c.map.dim[i];
            from += x * (long)c.map.stride[i];
        }
        if (c.map.swizzle) at = swizzled(at);
        if (inside) memcpy(m.shared + at, from, 2);
        else memset(m.shared + at, 0, 2);
        Fine &f = h.fine[at / GRANULE];
        f.copying = false, f.write_stamp = h.tick, f.writer_warp = ENGINE, f.write_fence = ~0u;
        m.shadow[at / GRANULE].write_epoch = m.epoch;
    }
    Mbarrier &b = h.barrier[c.barrier];
    b.gathered[ENGINE] = h.tick++;
    b.bytes -= 2 * n;
    mbarrier_try(b);
}
/* Nothing else can run: one of the copies under way lands. */
bool hopper_land() {
    if (h.copies.empty()) return false;
    const size_t i = random_bits() % h.copies.size();
    const BulkCopy c = h.copies[i];
    h.copies.erase(h.copies.begin() + (long)i);
    land(c);
    return true;
}
bool hopper_stuck() { // reports; false if nobody waits for anything of ours
    int waiting = 0, first = -1;
    for (int i = 0; i < m.n; i++)
        if (m.fiber[i].state == AT_MBARRIER || m.fiber[i].state == AT_NAMED) waiting++, first = first < 0 ? i : first;
    if (!waiting) return false;
    const Fiber &f = m.fiber[first];
    m.cur = first, threadIdx = f.tid;
    if (f.state == AT_NAMED)
        report("stuck: %d threads wait, this one at named barrier %d, where %d of %d have arrived", waiting, f.named,
               h.named[f.named].arrived, h.named[f.named].threads);
    else {
        const Mbarrier &b = h.barrier[f.mbarrier];
        report("stuck: %d threads wait, this one for the phase of parity %u of the mbarrier at byte %u, which is in "
               "phase %u and misses %u arrivals and %ld bytes",
               waiting, f.parity, f.mbarrier, b.phase, b.pending, b.bytes);
    }
    return true;
}

// ---- wgmma ----
/* The address of element (row, k): 14 bits of address / 16, offset between repeats / 16 along the leading and the
 * strided dimension, a swizzle of 128 bytes (PTX ISA, "Matrix Descriptor Format" and "Strides"). */
struct Descriptor {
    unsigned start, leading, strided, swizzle;
    explicit Descriptor(uint64_t d)
        : start((unsigned)(d & 0x3fff) << 4), leading((unsigned)(d >> 16 & 0x3fff) << 4),
          strided((unsigned)(d >> 32 & 0x3fff) << 4), swizzle((unsigned)(d >> 62)) {}
    unsigned operator()(bool mn_major, int row, int k) const {
        const unsigned r = (unsigned)row, c = (unsigned)k;
        return swizzled(start + (mn_major ? r / 64 * leading + r % 64 * 2 + c / 8 * strided + c % 8 * 128
                                          : r / 8 * strided + r % 8 * 128 + c * 2));
    }
};
template <class F> void each_16_bytes(const Descriptor &at, bool mn_major, int rows, int first_row, F f) {
    for (int r = first_row; r < first_row + rows; r += mn_major ? 8 : 1)
        for (int k = 0; k < 16; k += mn_major ? 1 : 8) {
            const unsigned a = at(mn_major, r, k);
            if (a + 16 <= SHARED_BYTES) f(a);
            else report("wgmma: a descriptor leads to byte %u, outside shared memory", a);
        }
}
float shared_bf16(unsigned at) {
    unsigned short bits;
    memcpy(&bits, m.shared + at, 2);
    return __uint_as_float((unsigned)bits << 16);
}
/* True for the first lane of the warp that comes here, after all have arrived. */
bool first_of_warp(WarpOp op) {
    warp_exchange(op, 0xffffffffu, nullptr, 0);
    WarpQueue &q = h.warp[m.cur / 32];
    if (q.turn == ++h.turn[m.cur]) return false;
    q.turn = h.turn[m.cur];
    return true;
}
Lent *lent_at(int thread, const void *p) {
    for (Lent &l : h.lent[thread])
        if (l.p == p) return &l;
    return nullptr;
}
bool poisoned(const char *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)p[i] != POISON) return false;
    return true;
}
Lent *lend(void *p, size_t bytes, const char *what) {
    Lent *l = lent_at(m.cur, p);
    if (l) {
        if (!poisoned(l->p, bytes)) report("wgmma: %s were written while a wgmma that has them is under way", what);
        l->uses++;
        return l;
    }
    bool covered = false;
    for (const Fenced &f : h.fenced[m.cur])
        if ((char *)p >= f.p && (char *)p + bytes <= f.p + f.value.size()) {
            covered = true;
            if (memcmp(p, f.value.data() + ((char *)p - f.p), bytes))
                report("wgmma: %s were written between wgmma.fence and the wgmma", what);
        }
    if (!covered) report("wgmma: no wgmma.fence covers its %s since they were last waited for", what);
    h.lent[m.cur].push_back({(char *)p, std::vector<char>((char *)p, (char *)p + bytes), 1});
    memset(p, POISON, bytes);
    return &h.lent[m.cur].back();
}
void give_back(int thread, void *p, const char *what) {
    auto &all = h.lent[thread];
    for (size_t i = 0; i < all.size(); i++)
        if (all[i].p == p && --all[i].uses == 0) {
            if (!poisoned(all[i].p, all[i].value.size()))
                report("wgmma: %s were written while a wgmma that has them was under way", what);
            memcpy(all[i].p, all[i].value.data(), all[i].value.size());
            all.erase(all.begin() + (long)i);
            return;
        }
}
/* One warp's 16 rows of d += a b. */
void multiply(const Product &p) {
    const Wgmma &w = p.lane[0];
    const int first = m.cur & ~31, row0 = first / 32 % 4 * 16;
    const Descriptor a_at(w.a_at), b_at(w.b_at);
    float a[16][16], b[16][256];
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++) {
            const unsigned pair = p.a[4 * (r % 8) + k % 8 / 2][(r >= 8) + 2 * (k >= 8)];
            a[r][k] =
                w.a ? __uint_as_float(k % 2 ? pair & 0xffff0000u : pair << 16) : shared_bf16(a_at(w.a_mn, row0 + r, k));
        }
    for (int k = 0; k < 16; k++)
        for (int c = 0; c < w.n; c++) b[k][c] = shared_bf16(b_at(w.b_mn, c, k));
    const auto read = [](unsigned at) {
        for (unsigned g = at / GRANULE; g < (at + 16) / GRANULE; g++)
            h.fine[g].reading--, h.fine[g].read_stamp[m.cur / 32] = h.tick;
    };
    each_16_bytes(b_at, w.b_mn, w.n, 0, read);
    if (!w.a) each_16_bytes(a_at, w.a_mn, 16, row0, read);
    for (int l = 0; l < 32; l++) {
        float *d = (float *)lent_at(first + l, p.lane[l].d)->value.data();
        for (int i = 0; i < w.n / 2; i++) {
            const int r = l / 4 + i / 2 % 2 * 8, c = i / 4 * 8 + l % 4 * 2 + i % 2;
            float sum = w.accumulate ? d[i] : 0.0f;
            for (int k = 0; k < 16; k++) sum += a[r][k] * b[k][c];
            d[i] = sum;
        }
        give_back(first + l, p.lane[l].d, "accumulators");
        if (w.a) give_back(first + l, p.lane[l].a, "A registers");
    }
}
} // namespace

bool tensor_map(CUtensorMap *map, const void *base, unsigned rank, const uint64_t *dim, const uint64_t *stride,
                const unsigned *box) {
    *map = {};
    map->base = (const unsigned short *)base, map->rank = rank, map->swizzle = true;
    bool right = rank >= 1 && rank <= 5 && (size_t)base % 16 == 0 && box[0] * 2 <= 128;
    for (unsigned i = 0; i < rank && i < 5; i++) {
        map->dim[i] = dim[i], map->box[i] = box[i], map->stride[i] = i ? stride[i - 1] : 2;
        right = right && dim[i] >= 1 && dim[i] <= (uint64_t)1 << 32 && box[i] >= 1 && box[i] <= 256 &&
                (!i || (map->stride[i] % 16 == 0 && map->stride[i] < (uint64_t)1 << 40));
    }
    return right && box[0] * 2 % 16 == 0;
}

void mbarrier_init(unsigned at, unsigned count) {
    hopper_on();
    if (at % 8) report("mbarrier: byte %u is not a multiple of 8", at);
    shared_note(at, 8, true);
    h.barrier[at] = {};
    h.barrier[at].count = h.barrier[at].pending = count;
}
void mbarrier_arrive(unsigned at, unsigned bytes) {
    Mbarrier *b = mbarrier_at(at, "mbarrier arrive");
    if (!b) return;
    if (!b->pending) report("mbarrier at byte %u: more arrivals than its count in one phase", at);
    else b->pending--;
    b->bytes += bytes;
    hand_on(b->gathered);
    mbarrier_try(*b);
}
void mbarrier_wait(unsigned at, unsigned parity) {
    Mbarrier *b = mbarrier_at(at, "mbarrier wait");
    if (!b) return;
    Fiber &f = m.fiber[m.cur];
    f.mbarrier = at, f.parity = parity;
    while ((b->phase & 1) == parity) wait(AT_MBARRIER);
    join(h.known[m.cur / 32], b->done);
}
void named_barrier(int id, int threads, bool waits) {
    hopper_on();
    if (id < 1 || id > 15 || threads % 32 || threads < 32) {
        report("named barrier %d of %d threads: ids are 1 to 15, threads a multiple of 32", id, threads);
        return;
    }
    Named &n = h.named[id];
    if (n.arrived && n.threads != threads)
        report("named barrier %d: %d threads here, %d elsewhere", id, threads, n.threads);
    n.threads = threads;
    hand_on(n.gathered);
    if (++n.arrived == threads) {
        for (int i = 0; i < m.n; i++)
            if (m.fiber[i].state == AT_NAMED && m.fiber[i].named == id) {
                m.fiber[i].state = READY;
                join(h.known[i / 32], n.gathered);
            }
        if (waits) join(h.known[m.cur / 32], n.gathered);
        n.arrived = 0;
        return;
    }
    if (!waits) return;
    m.fiber[m.cur].named = id;
    wait(AT_NAMED);
}
void tensor_load(unsigned to, const CUtensorMap *map, const int *at, unsigned barrier) {
    Mbarrier *b = mbarrier_at(barrier, "bulk copy");
    const unsigned bytes = 2 * box_elements(*map);
    if (!b) return;
    if (to % (map->swizzle ? 1024 : 128)) report("bulk copy: its target, byte %u, is not aligned to its swizzle", to);
    if ((uint64_t)to + bytes > m.dynamic_bytes) {
        report("bulk copy of %u bytes to byte %u, past the end of dynamic shared memory", bytes, to);
        return;
    }
    const Fine &init = h.fine[barrier / GRANULE];
    if (init.write_fence == h.fences[m.shadow[barrier / GRANULE].writer])
        report("bulk copy: no fence.proxy.async behind the initialisation of its mbarrier at byte %u", barrier);
    for (unsigned i = 0; i < bytes; i += 16) async_note(to + i, "bulk copy", true);
    memset(m.shared + to, POISON, bytes);
    BulkCopy c = {to, barrier, *map, {}};
    for (unsigned i = 0; i < map->rank; i++) c.at[i] = at[i];
    h.copies.push_back(c);
}
void proxy_fence() { h.fences[m.cur]++; }

unsigned wgmma_address(uint64_t descriptor, bool mn_major, int row, int k) {
    return Descriptor(descriptor)(mn_major, row, k);
}
void wgmma(const Wgmma &w) {
    hopper_on();
    const int group = m.cur / 128;
    if (first_of_warp(WGMMA)) {
        WarpQueue &q = h.warp[m.cur / 32];
        q.open.emplace_back();
        const Descriptor a(w.a_at), b(w.b_at);
        if (b.swizzle != 1 || (!w.a && a.swizzle != 1)) report("wgmma: a descriptor without the 128-byte swizzle");
        const uint64_t what = (w.a ? 0 : w.a_at) * 31 + w.b_at * 7 + (uint64_t)(w.n + w.accumulate + 2 * w.b_mn);
        if (q.issued == h.log[group].size()) h.log[group].push_back(what);
        else if (q.issued < h.log[group].size() && h.log[group][q.issued] != what)
            report("wgmma: the warps of warpgroup %d issue different instructions", group);
        q.issued++;
        const auto note = [](unsigned at) { async_note(at, "wgmma", false); };
        each_16_bytes(b, w.b_mn, w.n, 0, note);
        if (!w.a) each_16_bytes(a, w.a_mn, 16, m.cur / 32 % 4 * 16, note);
    }
    Product &p = h.warp[m.cur / 32].open.back();
    Wgmma &mine = p.lane[m.cur % 32];
    mine = w;
    const Wgmma *other = &p.lane[0];
    for (int l = 0; l < 32; l++)
        if (p.lane[l].d) other = &p.lane[l];
    if (other->b_at != w.b_at || other->n != w.n || other->accumulate != w.accumulate ||
        (!w.a && other->a_at != w.a_at))
        report("wgmma: lanes of a warp give different operands");
    lend(w.d, (size_t)w.n * 2, "accumulators");
    if (w.a) memcpy(p.a[m.cur % 32], lend(w.a, 16, "A registers")->value.data(), 16);
}
void wgmma_commit() {
    if (!first_of_warp(WGMMA_COMMIT)) return;
    WarpQueue &q = h.warp[m.cur / 32];
    q.groups.push_back(std::move(q.open));
    q.open.clear();
}
void wgmma_wait(int groups_left) {
    if (first_of_warp(WGMMA_WAIT)) {
        WarpQueue &q = h.warp[m.cur / 32];
        while ((int)q.groups.size() > groups_left) {
            for (const Product &p : q.groups.front()) multiply(p);
            q.groups.pop_front();
        }
    }
    h.fenced[m.cur].clear();
}
void wgmma_fence(const void *registers, size_t bytes) {
    if (!registers) return;
    const char *p = (const char *)registers;
    h.fenced[m.cur].push_back({p, std::vector<char>(p, p + bytes)});
}
void wgmma_settled(const void *registers, size_t bytes) {
    for (const Lent &l : h.lent[m.cur])
        if (l.p >= (const char *)registers && l.p < (const char *)registers + bytes)
            report("wgmma: registers are used behind a wait that leaves their wgmma under way");
}
