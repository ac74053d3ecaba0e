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
    float *y; /* [rows][outs] */
} Layer;

typedef struct {
    const Layer *layer; /* [count] */
    const float *x;     /* [rows][ins] */
    long count, rows, outs; /* of all layers */
    volatile long next;     /* row that nobody has taken */
} Layers;

#define AT_ONCE 96 /* rows, a multiple of TILE */

/* The first row of the next few, taken by who is free: a thread that begins late or has to wait does less. */
static long take(volatile long *next) { return __atomic_fetch_add(next, AT_ONCE, __ATOMIC_RELAXED); }

static void linear_forward(const Worker *me, void *given) {
    (void)me;
    Layers *job = given;
    const long ins = job->layer->matrix.ins;
    for (long r; (r = take(&job->next)) < job->rows;)
        for (const Layer *l = job->layer; l < job->layer + job->count; l++) {
            const long outs = l->matrix.outs;
            product(&l->matrix, job->x + r * ins, least(AT_ONCE, job->rows - r), ins, l->y + r * outs, outs);
        }
}

typedef struct {
    const float *w, *up; /* [outs][ins]; [rows][outs]: the gradient of what the layer gave */
    float *down;         /* [outs][ins]: its weight's gradient, or NULL */
    long outs;
} Slope;

typedef struct {
    const Slope *slope; /* [count] */
    const float *x;     /* [rows][ins] */
    float *down;        /* [rows][ins]: x's gradient, or NULL */
    long count, rows, ins, outs, adds; /* outs of all layers; whether weights' gradients are added to */
    float *desks, *sums;                   /* of all workers, each `desk` floats; of all parts, the weights' gradients */
    long desk, part, weights;              /* rows of a part, and weights of all layers */
    volatile long next;
} Slopes;

#define SLAB 256   /* outputs: a panel of so many stays in a core's first cache */
#define PARTS 16   /* at most */
#define DEEP 256   /* rows of a block, at most, and */
#define HELD_X (1 << 16) /* its values: they stay in a core's own cache */

typedef struct {
    const Slopes *job;
    float *across, *x, *up; /* weights by slabs, [panel][output][PANEL]; a block's rows in panels; and in strips */
    long block;
} Bench;

/* y[r][..] = (what it holds +) sum over terms of x[r x_row + i x_term] w[i][..], of one panel; all but pointers and
 * strides are constants where it is inlined, terms apart. */
INLINE void slope_tile(const float *x, long x_row, const long x_term, const float *w, long terms, float *y, long y_row,
                       const long rows, long held, const int adds, const int ahead) {
    vec sum[TILE][VECS];
    EACH(int r = 0; r < rows; r++) {
        EACH(int v = 0; v < VECS; v++) {
            const long left = held - v * WIDTH;
            const float *from = y + r * y_row + v * WIDTH;
            sum[r][v] = !adds ? (vec){0} : left >= WIDTH ? load(from) : load_part(from, left, 0);
        }
    }
    _Pragma("GCC unroll 2") for (long i = 0; i < terms; i++, x += x_term, w += PANEL) {
        if (ahead) __builtin_prefetch(w + ahead * PANEL);
        vec weight[VECS];
        EACH(int v = 0; v < VECS; v++) weight[v] = load(w + v * WIDTH);
        EACH(int r = 0; r < rows; r++) {
            const vec in = same(x[r * x_row]);
            EACH(int v = 0; v < VECS; v++) sum[r][v] += in * weight[v];
        }
    }
    EACH(int r = 0; r < rows; r++) {
        EACH(int v = 0; v < VECS; v++) {
            const long left = held - v * WIDTH;
            float *to = y + r * y_row + v * WIDTH;
            if (left >= WIDTH) store(to, sum[r][v]);
            else store_part(to, left, sum[r][v]);
        }
    }
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

/* x's gradient of rows [first, last). */
static __attribute__((noinline)) void slope_rows(const Bench *b, long first, long last) {
    const long ins = b->job->ins;
    const float *slab = b->across;
    for (const Slope *s = b->job->slope; s < b->job->slope + b->job->count; s++)
        for (long o = 0; o < s->outs; o += SLAB) {
            const long outs = s->outs, terms = least(SLAB, outs - o);
            for (long r = first; r < last; r += TILE) {
                const float *w = slab, *up = s->up + r * outs + o;
                float *y = b->job->down + r * ins;
                for (long i = 0; i < ins; i += PANEL, w += terms * PANEL) {
                    const long held = least(PANEL, ins - i);
#define FIRST(n) slope_tile(up, outs, 1, w, terms, y + i, ins, n, held, 0, 16)
#define MORE(n) slope_tile(up, outs, 1, w, terms, y + i, ins, n, held, 1, 16)
                    if (slab == b->across) BY_ROWS(last - r, FIRST)
                    else BY_ROWS(last - r, MORE)
#undef FIRST
#undef MORE
                }
            }
            slab += terms * whole(ins, PANEL);
        }
}

/* Lay n rows out: x's in panels, [panel][row][PANEL]. */
static void lay_x(const Bench *b, const float *x, long n) {
    const long ins = b->job->ins;
    for (long r = 0; r < n; r++)
        for (long i = 0; i < ins; i += PANEL)
            copy_row(x + r * ins + i, least(PANEL, ins - i), 1, PANEL, b->x + i * b->block + r * PANEL);
}

/* And a gradient's in strips, [strip][row][TILE]. */
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

/* What n rows, laid out, give to a weight's gradient; it is added to what `sum` holds. */
static __attribute__((noinline)) void slope_weight(const Bench *b, long outs, long n, float *sum, int adds) {
    const long ins = b->job->ins;
    for (long i = 0; i < ins; i += PANEL) {
        const float *x = b->x + i * b->block;
        const long held = least(PANEL, ins - i);
        for (long o = 0; o < outs; o += TILE) {
            const float *up = b->up + o * b->block;
            float *y = sum + o * ins + i;
#define FIRST(k) slope_tile(up, 1, TILE, x, n, y, ins, k, held, 0, 0)
#define MORE(k) slope_tile(up, 1, TILE, x, n, y, ins, k, held, 1, 0)
            if (adds) BY_ROWS(outs - o, MORE)
            else BY_ROWS(outs - o, FIRST)
#undef FIRST
#undef MORE
        }
    }
}

/* One block of n rows from `at` on, while it is in the cache. */
static void slope_block(const Bench *b, long at, long n, float *sum, int adds) {
    const Slopes *job = b->job;
    int laid = 0;
    for (const Slope *s = job->slope; s < job->slope + job->count; sum += s++->outs * job->ins) {
        if (!s->down) continue;
        if (!laid++) lay_x(b, job->x + at * job->ins, n);
        lay_up(b, s->up + at * s->outs, s->outs, n);
        slope_weight(b, s->outs, n, sum, adds);
    }
    if (job->down) slope_rows(b, at, at + n);
}

/* Add up a worker's share of the parts' sums. */
static void add_parts(const Slopes *job, const Worker *me) {
    const float *sum = job->sums;
    long first, last;
    for (const Slope *s = job->slope; s < job->slope + job->count; sum += s++->outs * job->ins) {
        share(me, s->down ? s->outs : 0, 1, &first, &last);
        for (long o = first; o < last; o++)
            for (long part = 0; part * job->part < job->rows; part++) {
                const float *from = sum + part * job->weights + o * job->ins;
                float *to = s->down + o * job->ins;
                if (part || job->adds)
                    for (long i = 0; i < job->ins; i++) to[i] += from[i];
                else
                    memcpy(to, from, 4 * job->ins);
            }
    }
}

/* Divide a worker's desk; returns how many floats it has, in whole lines of a cache. */
static long lay_bench(Bench *b, const Slopes *job, float *desk) {
    const long wide = whole(job->ins, PANEL), across = job->outs * wide, x = b->block * wide;
    b->job = job, b->across = desk, b->x = desk + across, b->up = desk + across + x;
    return whole(across + x + b->block * whole(job->outs, TILE), 16);
}

static long block_rows(const Slopes *job) { return least(DEEP, whole(HELD_X / whole(job->ins, PANEL) + 1, TILE)); }

static void linear_backward(const Worker *me, void *given) {
    Slopes *job = given;
    Bench b = {.block = block_rows(job)};
    lay_bench(&b, job, job->desks + me->index * job->desk);
    if (job->down) lay_weights(&b);
    for (long part; (part = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED)) * job->part < job->rows;)
        for (long at = 0, end = least(job->part, job->rows - part * job->part); at < end; at += b.block)
            slope_block(&b, part * job->part + at, least(b.block, end - at), job->sums + part * job->weights, at > 0);
    meet(me);
    add_parts(job, me);
}

#endif
