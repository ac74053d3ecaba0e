/* Causal attention over packed segments, forward and backward: the learner's.
 *
 * A unit of work is one key head of one family, a parent with its children: its keys are laid out once for all queries
 * that share them, and its gradients are summed by one worker in one order, so that bits don't depend on the threads.
 * A query head of a token is a row. The backward computes probabilities again, block by block, from the log-sum-exp
 * (Dao, arXiv 2307.08691, algorithm 2).
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
    const long *spans;        /* [segments][2]: first token and length; a parent before its children */
    const long *families;     /* [count + 1]: where each family begins among the spans */
    long count, longest[2];   /* of the families' first segments, and of all others */
    volatile long next, failed;
} Attend;

#define A_VECS 2
#define A_TILE 6
#define A_PANEL (A_VECS * WIDTH)
#define BY_SIX(left, call)  \
    switch (left) {         \
    case 1: call(1); break; \
    case 2: call(2); break; \
    case 3: call(3); break; \
    case 4: call(4); break; \
    case 5: call(5); break; \
    default: call(6);       \
    }

#define STRIP 12 /* rows that tiles of 6 and of 4 divide */
#define ROWS 96  /* rows of a block in the backward, and */
#define KEYS 128 /* keys: what a block works in stays in a core's own cache */

#define FEW_KEYS 256 /* in all: then a forward's blocks of fewer rows lose less at the diagonal */

/* How the operands of y[r] = sum over i of x[r][i] w[i] lie. */
typedef struct {
    long x_row, x_term, w_term, w_panel, y_row; /* floats from one row, term, or panel of A_PANEL columns to the next */
    int adds;                                   /* to what y holds */
} Form;

INLINE void sum_tile(const Form *f, const float *x, const long rows, const float *w, const long vecs, long terms,
                     float *y) {
    const long x_row = f->x_row, x_term = f->x_term, w_term = f->w_term;
    vec sum[A_TILE][3];
    EACH(int r = 0; r < rows; r++)
        EACH(int v = 0; v < vecs; v++) sum[r][v] = f->adds ? load(y + r * f->y_row + v * WIDTH) : (vec){0};
    _Pragma("GCC unroll 2") for (long i = 0; i < terms; i++, x += x_term, w += w_term) {
        vec weight[3];
        EACH(int v = 0; v < vecs; v++) weight[v] = load(w + v * WIDTH);
        EACH(int r = 0; r < rows; r++) {
            vec in = same(x[r * x_row]);
            EACH(int v = 0; v < vecs; v++) sum[r][v] += in * weight[v];
        }
    }
    EACH(int r = 0; r < rows; r++) EACH(int v = 0; v < vecs; v++) store(y + r * f->y_row + v * WIDTH, sum[r][v]);
}

/* All of `columns`, rounded up to whole vectors: 12 sums at a time, of 6 rows and 2 vectors or of 4 and 3. */
static __attribute__((noinline)) void sum_rows(const Form *f, const float *x, long rows, const float *w, long columns,
                                               long terms, float *y) {
    for (long left = whole(columns, WIDTH) / WIDTH; left > 0; left -= A_VECS, w += f->w_panel, y += A_PANEL) {
        const long three = left == 3 && f->w_panel == A_PANEL, step = three ? 4 : A_TILE;
        for (long r = 0; r < rows; r += step) {
            const float *in = x + r * f->x_row;
            float *to = y + r * f->y_row;
#define THREE(n) sum_tile(f, in, n, w, 3, terms, to)
#define TWO(n) sum_tile(f, in, n, w, 2, terms, to)
#define ONE(n) sum_tile(f, in, n, w, 1, terms, to)
            if (three) BY_SIX(least(rows - r, 4), THREE)
            else if (left > 1) BY_SIX(rows - r, TWO)
            else BY_SIX(rows - r, ONE)
#undef THREE
#undef TWO
#undef ONE
        }
        if (three) return;
    }
}

/* to[i] = x[i] by, and zeros up to `width`. */
INLINE void copy_row(const float *x, long n, float by, long width, float *to) {
    long i = 0;
    for (; i + WIDTH <= n; i += WIDTH) store(to + i, load(x + i) * by);
    for (; i < n; i++) to[i] = x[i] * by;
    for (; i < width; i++) to[i] = 0;
}

INLINE vec load_some(const float *x, long n) { return n == WIDTH ? load(x) : load_part(x, n, 0); }

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

/* Lay n rows, `stride` apart, out in panels of A_PANEL rows side by side: to[panel][dim][A_PANEL]. */
static void lay_across(const float *x, long stride, long n, long dim, float *to) {
    for (long row = 0; row < n; row += WIDTH) {
        float *lane = to + row / A_PANEL * A_PANEL * dim + row % A_PANEL;
        for (long d = 0; d < dim; d += WIDTH) {
            vec v[WIDTH];
            const float *from = x + row * stride + d;
            const long rows = least(n - row, WIDTH), part = least(dim - d, WIDTH);
            if (rows == WIDTH && part == WIDTH)
                EACH(int i = 0; i < WIDTH; i++) v[i] = load(from + i * stride);
            else
                for (long i = 0; i < WIDTH; i++) v[i] = load_some(from + i * stride, i < rows ? part : 0);
            turn(v);
            for (long i = 0; i < part; i++) store(lane + (d + i) * A_PANEL, v[i]);
        }
    }
}

/* A segment's keys and values for one head: rows filled up with zeros to whole vectors, or across. */
typedef struct {
    long start, n;
    float *k_across, *v_across, *k, *v, *d_k, *d_v;
} Keys;

typedef struct {
    const Attend *a;
    long head, shared, dims, vdims; /* dims in whole vectors */
    long tokens, line;              /* tokens of a block, and in a forward floats of a row of scores */
    float *q, *out, *d_q, *scores, *d_scores, *delta;
    long *row, *token; /* where each row of a block lies in q, and its token's place in the segment */
    Keys keys[2];
} Desk;

INLINE float largest_lane(vec v) {
    EACH(int by = WIDTH / 2; by > 0; by /= 2) {
        vec turned;
#ifdef __clang__
        for (int i = 0; i < WIDTH; i++) turned[i] = v[i ^ by];
#else
        turned = __builtin_shuffle(v, LANES ^ by);
#endif
        v = choose(turned > v, turned, v);
    }
    return v[0];
}

/* e^(x - most) of a row that sees n keys, and zeros up to `end`. Returns the most, and the sum. */
INLINE float softmax_row(float *x, long n, long end, float *sum) {
    const veci last = LANES < (int)((n - 1) % WIDTH + 1);
    const long back = (n - 1) / WIDTH * WIDTH;
    vec most = choose(last, load(x + back), same(-INFINITY)), all;
    for (long i = 0; i < back; i += WIDTH) most = choose(load(x + i) > most, load(x + i), most);
    const float top = largest_lane(most);
    all = choose(last, exp_vec(load(x + back) - top), same(0));
    store(x + back, all);
    for (long i = 0; i < back; i += WIDTH) {
        const vec e = exp_vec(load(x + i) - top);
        store(x + i, e);
        all += e;
    }
    for (long i = back + WIDTH; i < end; i += WIDTH) store(x + i, (vec){0});
    *sum = total(all);
    return top;
}

/* Lay the queries out, times the scale, of the `tokens` tokens from `first` on; returns how many rows they are. */
static long lay_queries(const Desk *d, const Keys *own, long first, long tokens) {
    const Attend *a = d->a;
    long r = 0;
    for (long token = first; token < first + tokens; token++) {
        for (long h = d->head * d->shared; h < (d->head + 1) * d->shared; h++, r++) {
            d->token[r] = token;
            d->row[r] = (own->start + token) * a->heads + h;
            copy_row(a->q + d->row[r] * a->dim, a->dim, a->scale, d->dims, d->q + r * d->dims);
        }
    }
    return r;
}

/* What the rows of `tokens` tokens from `first` on of a segment see of its own keys and of those before it. */
static void see_block(const Desk *d, const Keys *before, const Keys *own, long first, long tokens) {
    const Attend *a = d->a;
    const long rows = lay_queries(d, own, first, tokens), reach = first + tokens;
    const Form score = {d->dims, 1, A_PANEL, A_PANEL * a->dim, d->line, 0};
    Form mix = {d->line, 1, d->vdims, A_PANEL, d->vdims, 0};
    sum_rows(&score, d->q, rows, before->k_across, before->n, a->dim, d->scores);
    sum_rows(&score, d->q, rows, own->k_across, reach, a->dim, d->scores + before->n);
    for (long r = 0; r < rows; r++) {
        float sum, top = softmax_row(d->scores + r * d->line, before->n + d->token[r] + 1, before->n + reach, &sum);
        d->delta[r] = 1 / sum;
        a->sums[d->row[r]] = top + logf(sum);
    }
    sum_rows(&mix, d->scores, rows, before->v, d->vdims, before->n, d->out);
    mix.adds = 1;
    sum_rows(&mix, d->scores + before->n, rows, own->v, d->vdims, reach, d->out);
    for (long r = 0; r < rows; r++)
        copy_row(d->out + r * d->vdims, a->vdim, d->delta[r], 0, a->out + d->row[r] * a->vdim);
}

static void see_segment(const Desk *d, const Keys *before, Keys *own) {
    const Attend *a = d->a;
    const long k_row = a->kv_heads * a->dim, v_row = a->kv_heads * a->vdim;
    const float *v = a->v + own->start * v_row + d->head * a->vdim;
    lay_across(a->k + own->start * k_row + d->head * a->dim, k_row, own->n, a->dim, own->k_across);
    for (long t = 0; t < own->n; t++) copy_row(v + t * v_row, a->vdim, 1, d->vdims, own->v + t * d->vdims);
    for (long t = 0; t < own->n; t += d->tokens) see_block(d, before, own, t, least(d->tokens, own->n - t));
}

/* Probabilities and their gradients, less what softmax takes away, of rows that see up to n keys of a block. */
INLINE void back_row(float *p, float *d_p, long n, long end, float sum, float delta) {
    const vec one = same(sum), two = same(delta);
    long i = 0;
    for (; i + WIDTH <= n; i += WIDTH) {
        const vec e = exp_vec(load(p + i) - one);
        store(p + i, e);
        store(d_p + i, e * (load(d_p + i) - two));
    }
    if (i < n) {
        const veci seen = LANES < (int)(n - i);
        const vec e = exp_vec(load(p + i) - one), g = e * (load(d_p + i) - two);
        store(p + i, choose(seen, e, same(0)));
        store(d_p + i, choose(seen, g, same(0)));
        i += WIDTH;
    }
    for (; i < end; i += WIDTH) {
        store(p + i, (vec){0});
        store(d_p + i, (vec){0});
    }
}

/* Add what a block of rows and one of n keys from `key` on give to each other. `at` is where the first of the keys
 * lies, counted from the segment's first token: a parent's lie before it. */
static void back_keys(const Desk *d, const Keys *keys, long key, long n, long at, long rows) {
    const Attend *a = d->a;
    const long line = whole(n, A_PANEL) + A_PANEL;
    const Form k_score = {d->dims, 1, A_PANEL, A_PANEL * a->dim, line, 0};
    const Form v_score = {d->vdims, 1, A_PANEL, A_PANEL * a->vdim, line, 0};
    const Form q_sum = {line, 1, d->dims, A_PANEL, d->dims, 1};
    const Form k_sum = {1, line, d->dims, A_PANEL, d->dims, 1}, v_sum = {1, line, d->vdims, A_PANEL, d->vdims, 1};
    for (long r = 0; r < rows; r += STRIP) {
        const long some = least(STRIP, rows - r);
        const long reach = least(n, d->token[r + some - 1] + 1 - at);
        float *p = d->scores + r * line, *d_p = d->d_scores + r * line;
        if (reach > 0) {
            sum_rows(&k_score, d->q + r * d->dims, some, keys->k_across + key * a->dim, reach, a->dim, p);
            sum_rows(&v_score, d->out + r * d->vdims, some, keys->v_across + key * a->vdim, reach, a->vdim, d_p);
        }
        for (long i = r; i < r + some; i++, p += line, d_p += line) {
            const long seen = least(n, d->token[i] + 1 - at);
            back_row(p, d_p, seen < 0 ? 0 : seen, n, a->sums[d->row[i]], d->delta[i]);
        }
        if (reach > 0)
            sum_rows(&q_sum, d->d_scores + r * line, some, keys->k + key * d->dims, d->dims, reach,
                     d->d_q + r * d->dims);
    }
    for (long j = 0; j < n; j += STRIP) {
        const long some = least(STRIP, n - j), early = (at + j - d->token[0]) * d->shared, from = early > 0 ? early : 0;
        if (from >= rows) break;
        sum_rows(&k_sum, d->d_scores + from * line + j, some, d->q + from * d->dims, d->dims, rows - from,
                 keys->d_k + (key + j) * d->dims);
        sum_rows(&v_sum, d->scores + from * line + j, some, d->out + from * d->vdims, d->vdims, rows - from,
                 keys->d_v + (key + j) * d->vdims);
    }
}

static void back_block(const Desk *d, const Keys *before, const Keys *own, long first, long tokens) {
    const Attend *a = d->a;
    const long rows = lay_queries(d, own, first, tokens);
    for (long r = 0; r < rows; r++) {
        const float *d_out = a->d_out + d->row[r] * a->vdim;
        copy_row(d_out, a->vdim, 1, d->vdims, d->out + r * d->vdims);
        d->delta[r] = dot(d_out, a->out + d->row[r] * a->vdim, a->vdim);
    }
    memset(d->d_q, 0, 4 * rows * d->dims);
    for (long k = 0; k < before->n; k += KEYS)
        back_keys(d, before, k, least(KEYS, before->n - k), k - before->n, rows);
    for (long k = 0; k < first + tokens; k += KEYS) back_keys(d, own, k, least(KEYS, own->n - k), k, rows);
    for (long r = 0; r < rows; r++)
        copy_row(d->d_q + r * d->dims, a->dim, a->scale, 0, a->d_q + d->row[r] * a->dim);
}

static void back(const Desk *d, const Keys *before, Keys *own) {
    const Attend *a = d->a;
    const long k_row = a->kv_heads * a->dim, v_row = a->kv_heads * a->vdim;
    const float *k = a->k + own->start * k_row + d->head * a->dim, *v = a->v + own->start * v_row + d->head * a->vdim;
    lay_across(k, k_row, own->n, a->dim, own->k_across);
    lay_across(v, v_row, own->n, a->vdim, own->v_across);
    for (long t = 0; t < own->n; t++) copy_row(k + t * k_row, a->dim, 1, d->dims, own->k + t * d->dims);
    memset(own->d_k, 0, 4 * own->n * d->dims);
    memset(own->d_v, 0, 4 * own->n * d->vdims);
    for (long t = 0; t < own->n; t += d->tokens) back_block(d, before, own, t, least(d->tokens, own->n - t));
}

/* Write what was summed for a segment's keys and values, once all that see them have passed. */
static void give_back(const Desk *d, const Keys *own) {
    const Attend *a = d->a;
    for (long t = 0; t < own->n; t++) {
        const long row = (own->start + t) * a->kv_heads + d->head;
        copy_row(own->d_k + t * d->dims, a->dim, 1, 0, a->d_k + row * a->dim);
        copy_row(own->d_v + t * d->vdims, a->vdim, 1, 0, a->d_v + row * a->vdim);
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
    const long back = a->d_out != NULL, rows = d->tokens * d->shared;
    long used = 0;
    d->q = taken(all, rows * d->dims, &used);
    d->out = taken(all, rows * d->vdims, &used);
    d->delta = taken(all, rows, &used);
    d->row = (long *)taken(all, 2 * rows, &used);
    d->token = (long *)taken(all, 2 * rows, &used);
    d->scores = taken(all, rows * d->line, &used);
    d->d_scores = taken(all, back * rows * d->line, &used);
    d->d_q = taken(all, back * rows * d->dims, &used);
    for (int i = 0; i < 2; i++) {
        const long n = whole(a->longest[i], A_PANEL);
        Keys *keys = &d->keys[i];
        keys->k_across = taken(all, n * a->dim, &used);
        keys->v_across = taken(all, back * n * a->vdim, &used);
        keys->k = taken(all, back * n * d->dims, &used);
        keys->v = taken(all, (1 - back) * n * d->vdims, &used);
        keys->d_k = taken(all, back * n * d->dims, &used);
        keys->d_v = taken(all, back * n * d->vdims, &used);
    }
    return used;
}

static void attend_family(Desk *d, long family) {
    const Attend *a = d->a;
    const Keys none = {0};
    Keys *parent = &d->keys[0], *child = &d->keys[1];
    for (long s = a->families[family]; s < a->families[family + 1]; s++) {
        const long first = s == a->families[family];
        Keys *own = first ? parent : child;
        own->start = a->spans[2 * s];
        own->n = a->spans[2 * s + 1];
        (a->d_out ? back : see_segment)(d, first ? &none : parent, own);
        if (a->d_out && !first) give_back(d, child);
    }
    if (a->d_out) give_back(d, parent);
}

/* Take units, the largest first, until none is left. */
static void attend_work(const Worker *me, void *given) {
    (void)me;
    Attend *a = given;
    const long shared = a->heads / a->kv_heads, back = a->d_out != NULL, columns = a->longest[0] + a->longest[1];
    const long rows = back ? ROWS : columns > FEW_KEYS ? ROWS / 2 : ROWS / 4;
    Desk d = {.a = a, .shared = shared, .dims = whole(a->dim, WIDTH), .vdims = whole(a->vdim, WIDTH)};
    d.tokens = rows < shared ? 1 : rows / shared;
    d.line = back ? KEYS + A_PANEL : whole(columns, A_PANEL) + 2 * A_PANEL;
    float *all = aligned_alloc(64, 4 * lay_desk(&d, NULL));
    if (!all) a->failed = 1;
    if (all) lay_desk(&d, all);
    for (long unit; all && (unit = __atomic_fetch_add(&a->next, 1, __ATOMIC_RELAXED)) < a->count * a->kv_heads;) {
        d.head = unit % a->kv_heads;
        attend_family(&d, unit / a->kv_heads);
    }
    free(all);
}

#endif
