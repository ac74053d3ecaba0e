/* Causal attention over packed segments, forward and backward: the learner's.
 *
 * A unit of work is one key head of one family, a tree of segments walked depth first: the gradients of its keys are
 * summed by one worker in one order, so that bits don't depend on the threads. Keys and values of the path from the
 * root to the segment at hand lie end to end, as a sequence of its own would have them, each copied once for all that
 * see it. A query head of a token is a row. A strip of rows lies side by side in lanes: each number of keys and values
 * is taken once for all of them, and softmax runs down the lanes. The backward computes probabilities again, block by
 * block, from the log-sum-exp (Dao, arXiv 2307.08691, algorithm 2).
 */
#ifndef AFTERSHOCK_ATTEND_H
#define AFTERSHOCK_ATTEND_H

#include <stdlib.h>

#include "crew.h"
#include "gemm.h"

typedef struct {
    long heads, kv_heads, dim, vdim;
    float scale;
    const float *q, *k, *v;   /* [total][heads][dim], [total][kv heads][dim], [total][kv heads][vdim] */
    float *out, *sums;        /* [total][heads][vdim]; [total][heads]: the log of the sum of e^score */
    const float *d_out;       /* as out, and so the gradients: NULL in a forward */
    float *d_q, *d_k, *d_v;
    const long *spans;        /* [segments][3]: first token, length, and how many lie before it in its sequence */
    const long *families;     /* [count + 1]: where each family begins among the spans, depth first */
    long count, longest;      /* longest: of a path's tokens */
    volatile long next, failed;
} Attend;

#if WIDTH == 16
#define SUMS 24 /* of a tile: with its weights and an input they fill the registers */
#else
#define SUMS 12
#endif
#define SIDES 2               /* vectors of a strip, and of a tile where it hasn't 3 */
#define TALL (SUMS / SIDES)   /* rows of a tile at most */
#define STRIP (SIDES * WIDTH) /* rows of queries that lie side by side */
#define LINE 16               /* floats of a line of the cache */
#define KEYS 128              /* of a block in the backward: what it works in stays in a core's own cache */

/* How the operands of y[r] = sum over i of x[r][i] w[i] lie. */
typedef struct {
    long x_row, x_term, w_term, y_row; /* floats from one row or term to the next */
    int adds;                          /* to what y holds */
} Form;

INLINE void sum_tile(const Form *f, const float *x, const long rows, const float *w, const long vecs, long terms,
                     float *y) {
    const long x_row = f->x_row, x_term = f->x_term, w_term = f->w_term;
    vec sum[TALL][3];
    EACH(int r = 0; r < rows; r++)
        EACH(int v = 0; v < vecs; v++) sum[r][v] = f->adds ? load(y + r * f->y_row + v * WIDTH) : (vec){0};
    for (long i = 0; i < terms; i++, x += x_term, w += w_term) {
        vec weight[3];
        EACH(int v = 0; v < vecs; v++) weight[v] = load(w + v * WIDTH);
        EACH(int r = 0; r < rows; r++) {
            vec in = same(x[r * x_row]);
            EACH(int v = 0; v < vecs; v++) sum[r][v] += in * weight[v];
        }
    }
    EACH(int r = 0; r < rows; r++) EACH(int v = 0; v < vecs; v++) store(y + r * f->y_row + v * WIDTH, sum[r][v]);
}

/* All of so many vectors of columns. */
static __attribute__((noinline)) void sum_rows(const Form *f, const float *x, long rows, const float *w, long vecs,
                                               long terms, float *y) {
    for (long wide; vecs > 0; vecs -= wide, w += wide * WIDTH, y += wide * WIDTH) {
        wide = vecs == 3 ? 3 : least(vecs, 2);
        const long step = wide == 3 ? SUMS / 3 : TALL;
        for (long r = 0; r < rows; r += step) {
            const float *in = x + r * f->x_row;
            float *to = y + r * f->y_row;
            const long tall = least(rows - r, step);
#define CASE(rows, vecs)                                                                    \
    case 16 * vecs + rows:                                                                  \
        if (rows <= TALL && rows * vecs <= SUMS) sum_tile(f, in, rows, w, vecs, terms, to); \
        break;
#define CASES(rows) CASE(rows, 1) CASE(rows, 2) CASE(rows, 3)
            switch (16 * wide + tall) {
                CASES(1) CASES(2) CASES(3) CASES(4) CASES(5) CASES(6) CASES(7) CASES(8)
                CASES(9) CASES(10) CASES(11) CASES(12)
            }
#undef CASES
#undef CASE
        }
    }
}

/* to[i] = x[i] by, and zeros up to `width`. */
INLINE void copy_row(const float *x, long n, float by, long width, float *to) {
    long i = n;
    if (n < WIDTH)
        for (i = 0; i < n; i++) to[i] = x[i] * by;
    else
        for (long at = 0; at < n; at += WIDTH) { /* the last vector overlaps the one before */
            const long from = least(at, n - WIDTH);
            store(to + from, load(x + from) * by);
        }
    for (; i < width; i++) to[i] = 0;
}

/* Rows become columns. */
INLINE void turn(vec v[WIDTH]) {
    EACH(int by = 1; by < WIDTH; by *= 2) {
        EACH(int i = 0; i < WIDTH; i++) {
            if (i & by) continue;
            const vec a = v[i], b = v[i + by];
#ifdef __clang__
            for (int l = 0; l < WIDTH; l++) {
                v[i][l] = l & by ? b[l - by] : a[l];
                v[i + by][l] = l & by ? b[l] : a[l + by];
            }
#else
            const veci lanes = LANES, other = ((lanes & by) != 0) & (WIDTH - by);
            v[i] = __builtin_shuffle(a, b, lanes + other);
            v[i + by] = __builtin_shuffle(a, b, lanes + by + other);
#endif
        }
    }
}

typedef struct {
    const Attend *a;
    long head, shared, dims, vdims; /* dims in whole vectors */
    float *q, *d_out;               /* a strip's rows [STRIP][dims] and [vdims], in a backward, and */
    float *q_down, *out_down, *d_out_down, *d_q_down; /* its columns [dim][STRIP] or [vdim][STRIP] */
    float *scores, *d_scores;       /* [keys][STRIP] */
    float *k, *v, *d_k, *d_v;       /* the path's [longest][dim], [vdim]; gradients in whole vectors */
    long *token;                    /* [longest]: where each of the path lies */
    long first, n, vecs;            /* of the strip: its first row on the path, its rows, and vectors of them */
    long row[STRIP];                /* where each lies; lanes without a row of their own repeat the last */
    const float *next[4];           /* where the next strip's begin in q, in what is written, in out and in d_out */
} Desk;

/* A vector of a row of x [..][dim] from `at` on; where the row has fewer left, from as much further in front. */
INLINE long inside(long at, long dim) { return dim < WIDTH ? 0 : least(at, dim - WIDTH); }

/* Lay a strip's rows of x [..][dim] times `by` out in columns, and if `rows` isn't NULL there as well. */
INLINE void lower_some(const Desk *d, const float *x, long dim, const int part, float by, float *columns, float *rows,
                       long wide) {
    for (long lane = 0; lane < d->vecs * WIDTH; lane += WIDTH) {
        for (long at = 0; at < dim; at += WIDTH) {
            const long from = inside(at, dim);
            vec v[WIDTH];
            EACH(int i = 0; i < WIDTH; i++) {
                const float *in = x + d->row[lane + i] * dim + from;
                v[i] = (part ? load_part(in, dim, 0) : load(in)) * by;
            }
            if (rows) EACH(int i = 0; i < WIDTH; i++) store(rows + (lane + i) * wide + from, v[i]);
            turn(v);
            EACH(int i = 0; i < WIDTH; i++)
                if (!part || i < dim) store(columns + (from + i) * STRIP + lane, v[i]);
        }
    }
}

static __attribute__((noinline)) void lower_rows(const Desk *d, const float *x, long dim, float by, float *columns,
                                                 float *rows, long wide) {
    if (dim < WIDTH)
        lower_some(d, x, dim, 1, by, columns, rows, wide);
    else
        lower_some(d, x, dim, 0, by, columns, rows, wide);
}

/* Lay a strip's columns, each lane times its own `by`, out in its rows of x [..][dim]. */
INLINE void raise_some(const Desk *d, const float *columns, long dim, const int part, const vec *by, float *x) {
    for (long lane = 0; lane < d->n; lane += WIDTH) {
        for (long at = 0; at < dim; at += WIDTH) {
            const long from = inside(at, dim), n = least(d->n - lane, WIDTH);
            vec v[WIDTH];
            EACH(int i = 0; i < WIDTH; i++)
                v[i] = part && i >= dim ? same(0) : load(columns + (from + i) * STRIP + lane) * by[lane / WIDTH];
            turn(v);
            EACH(int i = 0; i < WIDTH; i++) {
                float *to = x + d->row[lane + i] * dim + from;
                if (i >= n) break;
                if (part)
                    store_part(to, dim, v[i]);
                else
                    store(to, v[i]);
            }
        }
    }
}

static __attribute__((noinline)) void raise_rows(const Desk *d, const float *columns, long dim, const vec *by,
                                                 float *x) {
    if (dim < WIDTH)
        raise_some(d, columns, dim, 1, by, x);
    else
        raise_some(d, columns, dim, 0, by, x);
}

/* Fetch a line of each of what the next strip reads and writes: one a key, as for more at once all would wait. */
INLINE void fetch(const Desk *d, long line, const int arrays) {
    if (line * LINE < STRIP / d->shared * d->a->heads * d->a->dim)
        EACH(int i = 0; i < arrays; i++) __builtin_prefetch(d->next[i] + line * LINE);
}

/* Take the strip from the path's row `first` on, whose segment ends before row `end`. Returns how many keys the last
 * row sees. */
static long take_strip(Desk *d, long first, long end) {
    const Attend *a = d->a;
    d->first = first, d->n = least(STRIP, end - first), d->vecs = (d->n + WIDTH - 1) / WIDTH;
    long at = first / d->shared, head = first % d->shared;
    for (long i = 0; i < d->vecs * WIDTH; i++) {
        d->row[i] = d->token[at] * a->heads + d->head * d->shared + head;
        if (i < d->n - 1 && ++head == d->shared) head = 0, at++;
    }
    const long then = (d->token[at] + 1) * a->heads;
    d->next[0] = a->q + then * a->dim;
    d->next[1] = a->d_out ? a->d_q + then * a->dim : a->out + then * a->vdim;
    d->next[2] = a->out + then * a->vdim;
    d->next[3] = a->d_out + then * a->vdim;
    return at + 1;
}

/* Whether each lane of a strip's vector sees the path's key. */
INLINE veci sees(const Desk *d, long key, int v) { return LANES >= (int)(key * d->shared - d->first - v * WIDTH); }

/* How many of the path's keys from `key` on, which are n, all lanes see. */
INLINE long seen_by_all(const Desk *d, long key, long n) {
    const long all = d->first / d->shared + 1 - key;
    return all < 0 ? 0 : least(all, n);
}

/* How many of those keys the strip's first vector sees any of; the others are its last vector's alone. */
INLINE long seen_by_first(const Desk *d, long key, long n) {
    const long any = d->vecs < SIDES ? n : (d->first + WIDTH - 1) / d->shared + 1 - key;
    return any < 0 ? 0 : least(any, n);
}

/* y [n][STRIP]: the products of n keys, or values, x [n][terms] of the path's from `key` on with each lane of
 * w [terms][STRIP]. What a vector doesn't see is left as it was. */
static void score_keys(const Desk *d, const float *x, long key, long n, const float *w, long terms, float *y) {
    const Form form = {terms, 1, STRIP, STRIP, 0};
    const long both = seen_by_first(d, key, n);
    sum_rows(&form, x, both, w, d->vecs, terms, y);
    sum_rows(&form, x + both * terms, n - both, w + WIDTH, 1, terms, y + both * STRIP + WIDTH);
}

/* y [n][width] += for those keys the sum of the strip's rows w [STRIP][width], each times its lane of x [n][STRIP]. */
static void gather_keys(const Desk *d, const float *x, long key, long n, const float *w, long width, float *y) {
    const Form form = {STRIP, 1, width, width, 1};
    const long both = seen_by_first(d, key, n), vecs = width / WIDTH;
    sum_rows(&form, x, both, w, vecs, d->n, y);
    sum_rows(&form, x + both * STRIP + WIDTH, n - both, w + WIDTH * width, vecs, d->n - WIDTH, y + both * width);
}

/* e^(x - most) of each lane of the path's first `keys` scores. */
INLINE void softmax_down(const Desk *d, long keys, const int vecs, vec *most, vec *sum) {
    const long all = seen_by_all(d, 0, keys);
    float *x = d->scores;
    EACH(int v = 0; v < vecs; v++) most[v] = same(-INFINITY), sum[v] = same(0);
    for (long i = 0; i < all; i++)
        EACH(int v = 0; v < vecs; v++) most[v] = larger(load(x + i * STRIP + v * WIDTH), most[v]);
    for (long i = all; i < keys; i++)
        EACH(int v = 0; v < vecs; v++) {
            float *at = x + i * STRIP + v * WIDTH;
            const vec score = choose(sees(d, i, v), load(at), same(-INFINITY));
            store(at, score);
            most[v] = larger(score, most[v]);
        }
    for (long i = 0; i < keys; i++) {
        fetch(d, i, 2);
        EACH(int v = 0; v < vecs; v++) {
            float *at = x + i * STRIP + v * WIDTH;
            const vec e = exp_up_to(load(at) - most[v], 0);
            store(at, e);
            sum[v] += e;
        }
    }
}

/* What a strip's rows see of the path. */
static void see_strip(Desk *d, long first, long end) {
    const Attend *a = d->a;
    const long keys = take_strip(d, first, end);
    const Form mix = {1, a->vdim, STRIP, STRIP, 0};
    vec most[SIDES], sum[SIDES];
    lower_rows(d, a->q, a->dim, a->scale, d->q_down, NULL, 0);
    score_keys(d, d->k, 0, keys, d->q_down, a->dim, d->scores);
    if (d->vecs == 1)
        softmax_down(d, keys, 1, most, sum);
    else
        softmax_down(d, keys, 2, most, sum);
    sum_rows(&mix, d->v, a->vdim, d->scores, d->vecs, keys, d->out_down);
    for (long i = 0; i < d->n; i++)
        a->sums[d->row[i]] = most[i / WIDTH][i % WIDTH] + logf(sum[i / WIDTH][i % WIDTH]);
    for (int v = 0; v < d->vecs; v++) sum[v] = 1.0f / sum[v];
    raise_rows(d, d->out_down, a->vdim, sum, a->out);
}

/* Probabilities and the gradients of scores, of n keys from the path's `key` on. */
INLINE void back_down(const Desk *d, long key, long n, const int vecs, const vec *sums, const vec *delta) {
    const long all = seen_by_all(d, key, n);
    for (long i = 0; i < n; i++) {
        fetch(d, i, 4);
        EACH(int v = 0; v < vecs; v++) {
            float *p = d->scores + i * STRIP + v * WIDTH, *d_p = d->d_scores + i * STRIP + v * WIDTH;
            vec e = exp_up_to(load(p) - sums[v], 0), slope = e * (load(d_p) - delta[v]);
            if (i >= all) {
                const veci seen = sees(d, key + i, v);
                e = (vec)(seen & (veci)e), slope = (vec)(seen & (veci)slope);
            }
            store(p, e);
            store(d_p, slope);
        }
    }
}

/* Add what a strip and n keys from the path's `key` on give to each other. */
static void back_keys(const Desk *d, long key, long n, const vec *sums, const vec *delta) {
    const Attend *a = d->a;
    const float *k = d->k + key * a->dim, *v = d->v + key * a->vdim;
    const Form q_sum = {1, a->dim, STRIP, STRIP, 1};
    score_keys(d, k, key, n, d->q_down, a->dim, d->scores);
    score_keys(d, v, key, n, d->d_out_down, a->vdim, d->d_scores);
    if (d->vecs == 1)
        back_down(d, key, n, 1, sums, delta);
    else
        back_down(d, key, n, 2, sums, delta);
    sum_rows(&q_sum, k, a->dim, d->d_scores, d->vecs, n, d->d_q_down);
    gather_keys(d, d->d_scores, key, n, d->q, d->dims, d->d_k + key * d->dims);
    gather_keys(d, d->scores, key, n, d->d_out, d->vdims, d->d_v + key * d->vdims);
}

static void back_strip(Desk *d, long first, long end) {
    const Attend *a = d->a;
    const long keys = take_strip(d, first, end);
    vec sums[SIDES], delta[SIDES], scale[SIDES];
    lower_rows(d, a->q, a->dim, a->scale, d->q_down, d->q, d->dims);
    lower_rows(d, a->d_out, a->vdim, 1, d->d_out_down, d->d_out, d->vdims);
    lower_rows(d, a->out, a->vdim, 1, d->out_down, NULL, 0);
    for (int v = 0; v < d->vecs; v++) {
        delta[v] = same(0), scale[v] = same(a->scale);
        for (long i = v * WIDTH; i < a->vdim * STRIP; i += STRIP)
            delta[v] += load(d->d_out_down + i) * load(d->out_down + i);
        for (int i = 0; i < WIDTH; i++) sums[v][i] = a->sums[d->row[v * WIDTH + i]];
    }
    memset(d->d_q_down, 0, 4 * a->dim * STRIP);
    for (long k = 0; k < keys; k += KEYS) back_keys(d, k, least(KEYS, keys - k), sums, delta);
    raise_rows(d, d->d_q_down, a->dim, scale, a->d_q);
}

/* Write what was summed for the path's keys and values from `at` up to `end`, once all that see them have passed. */
static void give_back(const Desk *d, long at, long end) {
    const Attend *a = d->a;
    for (; at < end; at++) {
        const long row = d->token[at] * a->kv_heads + d->head;
        copy_row(d->d_k + at * d->dims, a->dim, 1, 0, a->d_k + row * a->dim);
        copy_row(d->d_v + at * d->vdims, a->vdim, 1, 0, a->d_v + row * a->vdim);
    }
}

/* The next n floats of what a desk has, if it has any: at first they are only counted. */
static float *taken(float *all, long n, long *used) {
    float *found = all ? all + *used : NULL;
    *used += whole(n, 16);
    return found;
}

/* Lay a desk out in `all`; returns how many floats that takes. */
static long lay_desk(Desk *d, float *all) {
    const Attend *a = d->a;
    const long back = a->d_out != NULL;
    long used = 0;
    d->q_down = taken(all, a->dim * STRIP, &used);
    d->out_down = taken(all, a->vdim * STRIP, &used);
    d->scores = taken(all, (back ? KEYS : a->longest) * STRIP, &used);
    d->k = taken(all, a->longest * a->dim, &used);
    d->v = taken(all, a->longest * a->vdim, &used);
    d->token = (long *)taken(all, a->longest * (sizeof(long) / 4), &used);
    if (!back) return used;
    d->q = taken(all, STRIP * d->dims, &used);
    d->d_out = taken(all, STRIP * d->vdims, &used);
    d->d_out_down = taken(all, a->vdim * STRIP, &used);
    d->d_q_down = taken(all, a->dim * STRIP, &used);
    d->d_scores = taken(all, KEYS * STRIP, &used);
    d->d_k = taken(all, a->longest * d->dims, &used);
    d->d_v = taken(all, a->longest * d->vdims, &used);
    return used;
}

/* Lay a segment's keys and values on the path, behind those it goes on from, and take its rows, a strip at a time. */
static void attend_segment(Desk *d, const long *span) {
    const Attend *a = d->a;
    const long before = span[2], end = before + span[1];
    for (long at = before; at < end; at++) {
        const long token = d->token[at] = span[0] + at - before, row = token * a->kv_heads + d->head;
        copy_row(a->k + row * a->dim, a->dim, 1, 0, d->k + at * a->dim);
        copy_row(a->v + row * a->vdim, a->vdim, 1, 0, d->v + at * a->vdim);
    }
    if (a->d_out) {
        memset(d->d_k + before * d->dims, 0, 4 * span[1] * d->dims);
        memset(d->d_v + before * d->vdims, 0, 4 * span[1] * d->vdims);
    }
    for (long row = before * d->shared; row < end * d->shared; row += STRIP)
        (a->d_out ? back_strip : see_strip)(d, row, end * d->shared);
}

static void attend_family(Desk *d, long family) {
    const Attend *a = d->a;
    const long *span = a->spans + 3 * a->families[family], *end = a->spans + 3 * a->families[family + 1];
    for (; span < end; span += 3) {
        attend_segment(d, span);
        if (a->d_out) give_back(d, span + 3 < end ? span[5] : 0, span[1] + span[2]); /* what the next doesn't see */
    }
}

/* Take units, the largest first, until none is left. */
static void attend_work(const Worker *me, void *given) {
    (void)me;
    Attend *a = given;
    Desk d = {.a = a, .shared = a->heads / a->kv_heads, .dims = whole(a->dim, WIDTH), .vdims = whole(a->vdim, WIDTH)};
    float *all = aligned_alloc(64, 4 * lay_desk(&d, NULL));
    if (!all) a->failed = 1;
    if (all) lay_desk(&d, all);
    if (all && a->d_out) { /* what rows are filled up with */
        memset(d.q, 0, 4 * STRIP * d.dims);
        memset(d.d_out, 0, 4 * STRIP * d.vdims);
    }
    for (long unit; all && (unit = __atomic_fetch_add(&a->next, 1, __ATOMIC_RELAXED)) < a->count * a->kv_heads;) {
        d.head = unit % a->kv_heads;
        attend_family(&d, unit / a->kv_heads);
    }
    free(all);
}

#endif
