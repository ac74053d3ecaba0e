/* Grouped-query attention of one decoding step: a row's queries over its own positions of the cache, and no others.
 *
 * Always by eight floats, as a head's width is a multiple of 8 more often than of 16.
 */
#ifndef AFTERSHOCK_GROUPED_H
#define AFTERSHOCK_GROUPED_H

#include "gemm.h"

#define OCT 8
typedef float oct __attribute__((vector_size(4 * OCT)));
typedef int octi __attribute__((vector_size(4 * OCT)));

INLINE oct load_oct(const float *x) {
    oct v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void store_oct(float *x, oct v) { memcpy(x, &v, sizeof v); }

#define QUAD 4
typedef float quad __attribute__((vector_size(4 * QUAD)));

INLINE quad load_quad(const float *x) {
    quad v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void store_quad(float *x, quad v) { memcpy(x, &v, sizeof v); }

/* Lane i of a and lane i ^ by, added, where i lacks the bit `by`; of b where it has it. */
INLINE oct merged(oct a, oct b, const int by) {
    oct own, other;
#ifdef __clang__
    for (int i = 0; i < OCT; i++) {
        own[i] = i & by ? b[i] : a[i];
        other[i] = i & by ? b[i ^ by] : a[i ^ by];
    }
#else
    const octi lanes = {0, 1, 2, 3, 4, 5, 6, 7}, from = ((lanes & by) != 0) & OCT;
    own = __builtin_shuffle(a, b, lanes + from);
    other = __builtin_shuffle(a, b, (lanes ^ by) + from);
#endif
    return own + other;
}

/* Lane i: the sum of v[i]'s lanes. */
INLINE oct totals(oct v[OCT]) {
    EACH(int by = OCT / 2; by > 0; by /= 2) EACH(int i = 0; i < by; i++) v[i] = merged(v[i], v[i + by], by);
    return v[0];
}

/* scores[t] = q . keys[t] for `count` positions from keys on, at most OCT (a constant where it is inlined). */
INLINE void score(const float *q, const float *keys, long dim, const long count, float *scores) {
    oct sum[OCT] = {0};
    for (long d = 0; d < dim; d += OCT) {
        const oct part = load_oct(q + d);
        EACH(int t = 0; t < count; t++) sum[t] += part * load_oct(keys + t * dim + d);
    }
    const oct all = totals(sum);
    if (count == OCT)
        store_oct(scores, all);
    else
        for (long t = 0; t < count; t++) scores[t] = all[t];
}

/* out[d] = sum over t, ascending, of weights[t] values[t][d], for `octs` octs of d (a constant where it is inlined). */
INLINE void mixed(const float *weights, const float *values, long dim, long length, const long octs, float *out) {
    oct sum[8] = {0};
    for (long t = 0; t < length; t++)
        EACH(int i = 0; i < octs; i++) sum[i] += weights[t] * load_oct(values + t * dim + i * OCT);
    EACH(int i = 0; i < octs; i++) store_oct(out + i * OCT, sum[i]);
}

/* What one query [dim] sees of keys and values [length][dim]; `weights` [length] is worked in. */
static inline void see(const float *q, const float *keys, const float *values, long dim, long length, float *weights,
                       float *out) {
    long t = 0;
    for (; t + OCT <= length; t += OCT) score(q, keys + t * dim, dim, OCT, weights + t);
    for (; t < length; t++) score(q, keys + t * dim, dim, 1, weights + t);
    softmax_in_place(weights, length);
    long d = 0;
    for (; d + 8 * OCT <= dim; d += 8 * OCT) mixed(weights, values + d, dim, length, 8, out + d);
    for (; d + 3 * OCT <= dim; d += 3 * OCT) mixed(weights, values + d, dim, length, 3, out + d);
    for (; d < dim; d += OCT) mixed(weights, values + d, dim, length, 1, out + d);
}

/* Rotate one head x and multiply it by `scale`: pairs lie half a head apart, the tables carry the sign (rope.py). */
static inline void rotate(const float *x, const float *cos, const float *sin, long dim, float scale, float *to) {
    const long half = dim / 2;
    for (long i = 0; i < half; i += QUAD) {
        const quad a = load_quad(x + i), b = load_quad(x + i + half);
        store_quad(to + i, (a * load_quad(cos + i) + b * load_quad(sin + i)) * scale);
        store_quad(to + i + half, (b * load_quad(cos + i + half) + a * load_quad(sin + i + half)) * scale);
    }
}

typedef struct {
    long heads, kv_heads, dim;
    float eps, scale;
    const float *q_norm, *k_norm; /* [dim], or NULL */
} Grouped;

/* One row: its queries q [heads][dim], keys k and values v [kv heads][dim] go to their place `at` in its part of the
 * cache, [kv heads][room][dim] each; q becomes what each head sees. `weights` [at + 1] is worked in. */
static inline void grouped_attention(const Grouped *a, float *q, float *k, const float *v, const float *cos,
                                     const float *sin, long at, long room, float *keys, float *values,
                                     float *weights) {
    const long dim = a->dim, shared = a->heads / a->kv_heads;
    cos += at * dim;
    sin += at * dim;
    for (long h = 0; h < a->kv_heads; h++, keys += room * dim, values += room * dim) {
        if (a->k_norm) rms_norm(k + h * dim, a->k_norm, dim, a->eps, k + h * dim);
        rotate(k + h * dim, cos, sin, dim, 1, keys + at * dim);
        for (long d = 0; d < dim; d += OCT) store_oct(values + at * dim + d, load_oct(v + h * dim + d));
        for (float *query = q + h * shared * dim; query < q + (h + 1) * shared * dim; query += dim) {
            if (a->q_norm) rms_norm(query, a->q_norm, dim, a->eps, query);
            rotate(query, cos, sin, dim, a->scale, query);
            see(query, keys, values, dim, at + 1, weights, query);
        }
    }
}

#endif
