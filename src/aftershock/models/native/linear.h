/* Linear layers that read the same rows, forward and backward.
 *
 * A row's result has the bits that a decoding step gives it. Bits of a weight's gradient don't depend on the number of
 * threads: rows are cut into parts by their number alone, and the parts' sums added in their order.
 */
#ifndef AFTERSHOCK_LINEAR_H
#define AFTERSHOCK_LINEAR_H

#include <stdlib.h>

#include "attend.h"
#include "crew.h"
#include "gemm.h"

typedef struct {
    Packed matrix;
    float *y;          /* [rows][outs] */
    const float *more; /* the same, added to it; or NULL */
} Layer;

typedef struct {
    const Layer *layer; /* [count] */
    const float *x;     /* [rows][ins] */
    long count, rows, outs; /* of all layers */
    volatile long next;     /* row that nobody has taken */
} Layers;

#define AT_ONCE 96 /* rows, a multiple of TILE, and */
#define AT_ONCE_INNER 48 /* of an MLP, three times as wide */

/* The first row of the next few, taken by who is free: a thread that begins late or has to wait does less. */
static long take(volatile long *next, long few) { return __atomic_fetch_add(next, few, __ATOMIC_RELAXED); }

/* A few rows, from r on. */
static void some_rows(const Worker *me, const Layers *job, long r, long few) {
    const long ins = job->layer->matrix.ins, rows = least(few, job->rows - r);
    for (const Layer *l = job->layer; l < job->layer + job->count; l++) {
        const long outs = l->matrix.outs, panels = whole(outs, PANEL) / PANEL, next = r + few * me->crew->count;
        const Fetch fetch = {(const char *)(job->x + next * ins), (const char *)(l->y + next * outs),
                             l == job->layer ? 8 * TILE / panels : 0, 8 * TILE * outs / (ins * panels)};
        product_part(&l->matrix, 0, outs, job->x + r * ins, rows, ins, l->y + r * outs, outs, fetch);
        if (l->more) add_to(l->y + r * outs, l->more + r * outs, rows * outs);
    }
}

static void linear_forward(const Worker *me, void *given) {
    Layers *job = given;
    for (long r; (r = take(&job->next, AT_ONCE)) < job->rows;) some_rows(me, job, r, AT_ONCE);
}

typedef struct {
    Layers first, last; /* gate and up, and down, which reads what of them is gated */
    float *inner;       /* [rows][outs of gate]: that */
} Mlp;

/* A gated MLP; what its first layers give is read again while it is in the cache. */
static void mlp_forward(const Worker *me, void *given) {
    Mlp *job = given;
    const Layer *gate = job->first.layer, *up = gate + 1;
    const long n = gate->matrix.outs, few = AT_ONCE_INNER;
    for (long r; (r = take(&job->first.next, few)) < job->first.rows;) {
        some_rows(me, &job->first, r, few);
        for (long at = r * n; at < least(r + few, job->first.rows) * n; at += n) {
            memcpy(job->inner + at, gate->y + at, 4 * n);
            gated(job->inner + at, up->y + at, n);
        }
        some_rows(me, &job->last, r, few);
    }
}

typedef struct {
    const float *w, *up; /* [outs][ins]; [rows][outs]: the gradient of what the layer gave */
    float *down, *bias;  /* [outs][ins], [outs]: its weight's and its bias's gradient, or NULL */
    long outs;
} Slope;

typedef struct {
    const Slope *slope; /* [count] */
    const float *x;     /* [rows][ins] */
    float *down;        /* [rows][ins]: x's gradient, or NULL */
    long count, rows, ins, outs, adds; /* outs of all layers; whether weights' and biases' gradients are added to */
    float *desks, *sums;                   /* of all workers, each `desk` floats; of all parts, those gradients */
    long desk, part, weights;              /* rows of a part; weights and biases of all layers */
    volatile long next;
} Slopes;

#define SLAB 256   /* outputs: a panel of so many stays in a core's first cache */
#define PARTS 16   /* at most, and */
#define FEWEST 192  /* rows of each: what parts give is added up afterwards */
#define EARLY 16   /* terms before their turn that a line is fetched */
#define IN_PLACE (TILE == 8) /* whether a strip of a gradient is read where it lies, half a line from each row */
#define DEEP 256   /* rows of a block, at most, and */
#define HELD_X (1 << 16) /* its values: they stay in a core's own cache */

typedef struct {
    const Slopes *job;
    float *across, *x, *up; /* weights by slabs, [panel][output][PANEL]; a block's rows in panels; and in strips */
    long block;
} Bench;

/* A tile's x, from one row and one term to the next, and a line of its x or w that is fetched some terms early. */
typedef struct {
    const float *x;
    long row, term, terms;
    const float *early;
    long step;
} Strip;

/* y[r][..] = (what it holds +) sum over terms of x[r][i] w[i][..], of `rows` rows and a panel's first `vecs` vectors,
 * constants where it is inlined. */
INLINE void slope_tile(const Strip *s, const float *w, const long rows, const long vecs, float *y, long y_row, int adds,
                       Fetch next) {
    const float *x = s->x, *early = s->early;
    const long row = s->row, term = s->term, step = s->step;
    vec sum[TILE][VECS];
    EACH(int r = 0; r < rows; r++) EACH(int v = 0; v < vecs; v++) sum[r][v] = (vec){0};
    if (adds) EACH(int r = 0; r < rows; r++) EACH(int v = 0; v < vecs; v++) sum[r][v] = load(y + r * y_row + v * WIDTH);
    _Pragma("GCC unroll 2") for (long i = 0; i < s->terms; i++, x += term, w += PANEL, early += step) {
        vec weight[VECS];
        __builtin_prefetch(early);
        next = fetched(next);
        EACH(int v = 0; v < vecs; v++) weight[v] = load(w + v * WIDTH);
        EACH(int r = 0; r < rows; r++) {
            const vec in = same(x[r * row]);
            EACH(int v = 0; v < vecs; v++) sum[r][v] += in * weight[v];
        }
    }
    EACH(int r = 0; r < rows; r++) EACH(int v = 0; v < vecs; v++) store(y + r * y_row + v * WIDTH, sum[r][v]);
}

/* y [rows][held], of at most TILE rows and PANEL columns. */
INLINE void slope_part(const Strip *s, const float *w, long rows, long held, float *y, long y_row, int adds,
                       Fetch next) {
    const long vecs = held > PANEL - WIDTH ? VECS : VECS - 1, whole = held == vecs * WIDTH;
    float spare[TILE * PANEL]; /* where whole vectors would write too much */
    float *to = whole ? y : spare;
    const long row = whole ? y_row : PANEL;
    rows = least(rows, TILE);
    for (long r = 0; !whole && adds && r < rows; r++) memcpy(spare + r * PANEL, y + r * y_row, 4 * held);
#define FULL(n) slope_tile(s, w, n, VECS, to, row, adds, next)
#define LESS(n) slope_tile(s, w, n, VECS - 1, to, row, adds, next)
    if (vecs == VECS) BY_ROWS(rows, FULL)
    else BY_ROWS(rows, LESS)
#undef FULL
#undef LESS
    for (long r = 0; !whole && r < rows; r++) memcpy(y + r * y_row, spare + r * PANEL, 4 * held);
}

/* Lay weights out across: what of x's gradient lies side by side comes of outputs one after the other. */
static void lay_weights(const Bench *b) {
    const long ins = b->job->ins;
    float *to = b->across;
    for (const Slope *s = b->job->slope; s < b->job->slope + b->job->count; s++)
        for (long slab = 0; slab < s->outs; slab += SLAB)
            for (long i = 0; i < ins; i += PANEL)
                for (long o = slab; o < least(slab + SLAB, s->outs); o++, to += PANEL)
                    copy_row(s->w + o * ins + i, least(PANEL, ins - i), 1, PANEL, to);
}

/* x's gradient of rows [first, last); what this worker reads and writes next, `ahead` rows on, is fetched meanwhile. */
static __attribute__((noinline)) void slope_rows(const Bench *b, long first, long last, long ahead) {
    const Slopes *job = b->job;
    const long ins = job->ins, pace = 8 * TILE * ins / (job->outs * whole(ins, PANEL) / PANEL);
    const long next = (first + ahead) * ins;
    const float *w = b->across;
    Fetch fetch = {(const char *)(job->x + next), (const char *)(job->down + next), pace, pace};
    for (const Slope *s = job->slope; s < job->slope + job->count; s++)
        for (long o = 0; o < s->outs; o += SLAB) {
            const long terms = least(SLAB, s->outs - o);
            for (long r = first; r < last; r += TILE) {
                for (long i = 0; i < ins; i += PANEL, fetch = after(fetch, terms)) {
                    const float *panel = w + i * terms;
                    const Strip strip = {s->up + r * s->outs + o, s->outs, 1, terms, panel + EARLY * PANEL, PANEL};
                    slope_part(&strip, panel, last - r, least(PANEL, ins - i), job->down + r * ins + i, ins,
                               w != b->across, fetch);
                }
            }
            w += terms * whole(ins, PANEL);
        }
}

/* Lay n rows out: x's in panels, [panel][row][PANEL]. */
static void lay_x(const Bench *b, const float *x, long n) {
    const long ins = b->job->ins;
    for (long r = 0; r < n; r++)
        for (long i = 0; i < ins; i += PANEL)
            copy_row(x + r * ins + i, least(PANEL, ins - i), 1, PANEL, b->x + i * b->block + r * PANEL);
}

/* And a gradient's in strips, [strip][row][TILE], where it isn't read in place. */
static void lay_up(const Bench *b, const float *up, long outs, long n) {
    for (long from = 0; from < n; from += 8)
        for (long o = 0; o < outs; o += TILE) {
            float *to = b->up + o * b->block;
            if (outs - o >= TILE)
                for (long r = from; r < least(from + 8, n); r++) memcpy(to + r * TILE, up + r * outs + o, 4 * TILE);
            else
                for (long r = from; r < least(from + 8, n); r++)
                    for (long i = 0; i < outs - o; i++) to[r * TILE + i] = up[r * outs + o + i];
        }
}

/* What n rows give to a weight's gradient; it is added to what `sum` holds. `next` is where this worker's next lie. */
static __attribute__((noinline)) void slope_weight(const Bench *b, const float *up, long outs, long n,
                                                   const float *next, float *sum, int adds) {
    const long ins = b->job->ins, pace = 4 * TILE / (whole(ins, PANEL) / PANEL);
    Fetch fetch = {(const char *)next, (const char *)(next + n * outs / 2), pace, pace};
    for (long i = 0; i < ins; i += PANEL)
        for (long o = 0; o < outs; o += TILE, fetch = after(fetch, n)) {
            const float *x = IN_PLACE ? up + o : b->up + o * b->block;
            const long term = IN_PLACE ? outs : TILE;
            const Strip strip = {x, 1, term, n, x + EARLY * term, term};
            slope_part(&strip, b->x + i * b->block, outs - o, least(PANEL, ins - i), sum + o * ins + i, ins, adds,
                       fetch);
        }
}

/* And to a bias's. */
static void slope_bias(const float *up, long outs, long n, float *sum, int adds) {
    if (!adds) memset(sum, 0, 4 * outs);
    for (long r = 0; r < n; r++) add_to(sum, up + r * outs, outs);
}

/* One block of n rows from `at` on, while it is in the cache. */
static void slope_block(const Bench *b, long at, long n, long ahead, float *sum, int adds) {
    const Slopes *job = b->job;
    int laid = 0;
    for (const Slope *s = job->slope; s < job->slope + job->count; sum += s++->outs * (job->ins + 1)) {
        const float *up = s->up + at * s->outs;
        if (s->bias) slope_bias(up, s->outs, n, sum + s->outs * job->ins, adds);
        if (!s->down) continue;
        if (!laid++) lay_x(b, job->x + at * job->ins, n);
        if (!IN_PLACE) lay_up(b, up, s->outs, n);
        slope_weight(b, up, s->outs, n, up + ahead * s->outs, sum, adds);
    }
    if (job->down) slope_rows(b, at, at + n, ahead);
}

/* Add up n of the parts' sums. */
static void add_parts(const Slopes *job, const float *sum, long n, float *to) {
    for (long part = 0; part * job->part < job->rows; part++, sum += job->weights)
        if (part || job->adds)
            add_to(to, sum, n);
        else
            memcpy(to, sum, 4 * n);
}

/* And a worker's share of all. */
static void add_all(const Slopes *job, const Worker *me) {
    const float *sum = job->sums;
    const long ins = job->ins;
    long first, last;
    for (const Slope *s = job->slope; s < job->slope + job->count; sum += s++->outs * (ins + 1)) {
        share(me, s->outs, 1, &first, &last);
        for (long o = first; s->down && o < last; o++) add_parts(job, sum + o * ins, ins, s->down + o * ins);
        if (s->bias) add_parts(job, sum + s->outs * ins + first, last - first, s->bias + first);
    }
}

/* Divide a worker's desk; returns how many floats it has, in whole lines of a cache. */
static long lay_bench(Bench *b, const Slopes *job, float *desk) {
    const long wide = whole(job->ins, PANEL), across = job->outs * wide, x = b->block * wide;
    b->job = job, b->across = desk, b->x = desk + across, b->up = desk + across + x;
    return whole(across + x + (IN_PLACE ? 0 : b->block * whole(job->outs, TILE)), 16);
}

/* Rows of each part; threads take equal ones. */
static long part_rows(long rows) {
    const long each = (rows + PARTS - 1) / PARTS;
    return whole(each < FEWEST ? FEWEST : each, TILE);
}

/* And of each of a part's blocks. */
static long block_rows(const Slopes *job) {
    const long most = least(DEEP, HELD_X / whole(job->ins, PANEL) + 1), blocks = (job->part + most - 1) / most;
    return whole((job->part + blocks - 1) / blocks, TILE);
}

static void linear_backward(const Worker *me, void *given) {
    Slopes *job = given;
    Bench b = {.block = block_rows(job)};
    lay_bench(&b, job, job->desks + me->index * job->desk);
    if (job->down) lay_weights(&b);
    for (long part; (part = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED)) * job->part < job->rows;)
        for (long at = 0, end = least(job->part, job->rows - part * job->part); at < end; at += b.block) {
            const long ahead = at + b.block < end ? b.block : me->crew->count * job->part - at;
            slope_block(&b, part * job->part + at, least(b.block, end - at), ahead, job->sums + part * job->weights,
                        at > 0);
        }
    meet(me);
    add_all(job, me);
}

#endif
