/* Grouped-query attention of one decoding step: a row's queries over its own positions of the cache, and no others. */
#ifndef AFTERSHOCK_GROUPED_H
#define AFTERSHOCK_GROUPED_H

#include "gemm.h"
#include "rotate.h"

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

/* to[h][t] = scale * q[h] . seen[t] for `heads` heads and `steps` positions, together at most OCT, which are constants
 * where it is inlined. */
INLINE void match(const float *q, const int heads, const float *seen, const int steps, long dim, float scale, float *to,
                  long length) {
    oct sum[OCT] = {0};
    long k = 0;
    for (; k + OCT <= dim; k += OCT)
        EACH(int t = 0; t < steps; t++) EACH(int h = 0; h < heads; h++)
            sum[h * steps + t] += load_oct(seen + t * dim + k) * load_oct(q + h * dim + k);
    const oct all = totals(sum) * scale;
    EACH(int h = 0; h < heads; h++) memcpy(to + h * length, (const float *)&all + h * steps, 4 * steps);
    for (; k < dim; k++)
        for (int t = 0; t < steps; t++)
            for (int h = 0; h < heads; h++) to[h * length + t] += seen[t * dim + k] * q[h * dim + k] * scale;
}

/* `match` at all positions; the last ones are matched again where they don't fill a step. */
INLINE void match_all(const float *q, const int heads, const float *seen, long length, long dim, float scale,
                      float *to) {
    const int steps = OCT / heads;
    if (length < steps)
        for (long t = 0; t < length; t++) match(q, heads, seen + t * dim, 1, dim, scale, to + t, length);
    else
        for (long t = 0; t < length; t += steps) {
            const long from = t + steps <= length ? t : length - steps;
            match(q, heads, seen + from * dim, steps, dim, scale, to + from, length);
        }
}

/* to[h][i] = by[h] times the sum over t, ascending, of weights[h][t] seen[t][i] for `heads` heads and `octs` octs of i,
 * together at most 8, which are constants where it is inlined. */
INLINE void mix(const float *weights, const float *by, const int heads, const float *seen, long length, long dim,
                const int octs, float *to, long width) {
    oct sum[8] = {0};
    for (long t = 0; t < length; t++)
        EACH(int v = 0; v < octs; v++) EACH(int h = 0; h < heads; h++)
            sum[h * octs + v] += weights[h * length + t] * load_oct(seen + t * dim + v * OCT);
    EACH(int h = 0; h < heads; h++)
        EACH(int v = 0; v < octs; v++) store_oct(to + h * width + v * OCT, sum[h * octs + v] * by[h]);
}

/* `mix` of the first `width` values, the last ones one by one. */
INLINE void mix_all(const float *weights, const float *by, const int heads, const float *seen, long length, long dim,
                    float *to, long width) {
    long i = 0;
    for (; i + 4 * OCT <= width; i += 4 * OCT) mix(weights, by, heads, seen + i, length, dim, 4, to + i, width);
    for (; i + 3 * OCT <= width; i += 3 * OCT) mix(weights, by, heads, seen + i, length, dim, 3, to + i, width);
    for (; i + OCT <= width; i += OCT) mix(weights, by, heads, seen + i, length, dim, 1, to + i, width);
    for (; i < width; i++)
        for (int h = 0; h < heads; h++) {
            float sum = 0;
            for (long t = 0; t < length; t++) sum += weights[h * length + t] * seen[t * dim + i];
            to[h * width + i] = sum * by[h];
        }
}

/* to [heads][width], which may be q: what queries q [heads][dim] see of keys [length][dim] and of the first `width` of
 * values [length][dim]; `weights` [heads][length] is worked in. `log_sums` [heads] may be NULL. */
PINNED void see(const float *q, long heads, const float *keys, const float *values, long length, long dim, float scale,
                float *weights, float *to, long width, float *log_sums) {
    long h = 0;
    for (; h + 4 <= heads; h += 4) match_all(q + h * dim, 4, keys, length, dim, scale, weights + h * length);
    for (; h + 2 <= heads; h += 2) match_all(q + h * dim, 2, keys, length, dim, scale, weights + h * length);
    if (h < heads) match_all(q + h * dim, 1, keys, length, dim, scale, weights + h * length);
    for (h = 0; h < heads; h += 2) {
        const long some = least(2, heads - h);
        float by[2];
        for (long i = 0; i < some; i++)
            by[i] = exps_in_place(weights + (h + i) * length, length, log_sums ? log_sums + h + i : NULL);
        if (some == 2)
            mix_all(weights + h * length, by, 2, values, length, dim, to + h * width, width);
        else
            mix_all(weights + h * length, by, 1, values, length, dim, to + h * width, width);
    }
}

typedef struct {
    long heads, kv_heads, dim;
    float eps, scale;
    const float *q_norm, *k_norm; /* [dim], or NULL */
} Grouped;

/* One row: its keys k and values v [kv heads][dim] go to their place `at` in its part of the cache, [kv heads][room][dim]
 * each. */
static inline void grouped_store(const Grouped *a, float *k, const float *v, const float *cos, const float *sin,
                                 long at, long room, float *keys, float *values) {
    const long dim = a->dim;
    for (long h = 0; h < a->kv_heads; h++, keys += room * dim, values += room * dim) {
        if (a->k_norm) rms_norm(k + h * dim, a->k_norm, dim, a->eps, k + h * dim);
        rotate_halves(k + h * dim, cos + at * dim, sin + at * dim, dim, 1, keys + at * dim);
        memcpy(values + at * dim, v + h * dim, 4 * dim);
    }
}

/* And its queries q [heads][dim] become what each head sees; `weights` [heads / kv heads][at + 1] is worked in. */
static inline void grouped_see(const Grouped *a, float *q, const float *cos, const float *sin, long at, long room,
                               const float *keys, const float *values, float *weights) {
    const long dim = a->dim, shared = a->heads / a->kv_heads;
    for (long h = 0; h < a->heads; h++) {
        float *one = q + h * dim;
        if (a->q_norm) rms_norm(one, a->q_norm, dim, a->eps, one);
        rotate_halves(one, cos + at * dim, sin + at * dim, dim, 1, one);
    }
    for (long h = 0; h < a->kv_heads; h++, q += shared * dim, keys += room * dim, values += room * dim)
        see(q, shared, keys, values, at + 1, dim, a->scale, weights, q, dim, NULL);
}

#endif
