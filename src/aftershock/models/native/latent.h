/* Multi-head latent attention of one decoding step, absorbed: queries meet the cached latents themselves.
 *
 * As attention.py's `_absorbed`: with w_k and w_v the two parts of a head's kv_b, (w_k k).q = k.(w_k^T q), and the
 * weighted sum of values is w_v times the weighted sum of latents.
 */
#ifndef AFTERSHOCK_LATENT_H
#define AFTERSHOCK_LATENT_H

#include "gemm.h"
#include "grouped.h"

#define LATENT_ROWS 48 /* rows at once: their queries stay in a core's own cache */

typedef struct {
    long heads, rank, rope, plain, value; /* sizes of a head's parts; `rank` of the latent */
    long interleave;                      /* whether rotated pairs are neighbours, else half a head apart */
    float scale, eps;
    const float *q_norm, *kv_norm; /* [q rank], [rank] */
    Packed q_down;                 /* [q rank][hidden]; of no outputs where queries come from hidden at once */
    Packed q;                      /* [heads x (plain + rope)][q rank or hidden] */
    Packed kv;                     /* [rank + rope][hidden] */
    Packed out;                    /* [hidden][heads x value] */
    const Packed *keys;            /* one a head, [rank][plain]: w_k turned over */
    const Packed *values;          /* one a head, [value][rank] */
} Latent;

/* How many floats `latent_attention` works in. */
static inline long latent_scratch(const Latent *a, long room) {
    const long dim = a->rank + a->rope, down = a->q_down.outs;
    return LATENT_ROWS * (down + a->heads * (a->plain + a->rope + dim + a->rank + a->value) + dim) + a->heads * room;
}

/* Turn the pairs of x [n] by an angle's cos and signed sin [n], see rope.py. */
static inline void turn(const float *x, const float *cos, const float *sin, long n, long interleave, float *y) {
    for (long i = 0; i < n; i++) {
        const long other = interleave ? i ^ 1 : (i < n / 2 ? i + n / 2 : i - n / 2);
        y[i] = x[i] * cos[i] + x[other] * sin[i];
    }
}

/* to[h][t] = scale * q[h] . seen[t] for `heads` heads and `steps` positions, together at most OCT, which are constants
 * where it is inlined. */
INLINE void match(const float *q, const int heads, const float *seen, const int steps, long dim, float scale, float *to,
                  long length) {
    oct sum[OCT] = {0};
    long k = 0;
    for (; k + OCT <= dim; k += OCT)
        EACH(int t = 0; t < steps; t++) EACH(int h = 0; h < heads; h++)
            sum[t * heads + h] += load_oct(seen + t * dim + k) * load_oct(q + h * dim + k);
    const oct all = totals(sum) * scale;
    EACH(int t = 0; t < steps; t++) EACH(int h = 0; h < heads; h++) to[h * length + t] = all[t * heads + h];
    for (; k < dim; k++)
        for (int t = 0; t < steps; t++)
            for (int h = 0; h < heads; h++) to[h * length + t] += seen[t * dim + k] * q[h * dim + k] * scale;
}

/* `match` at all positions. */
INLINE void match_all(const float *q, const int heads, const float *seen, long length, long dim, float scale,
                      float *to) {
    const int steps = OCT / heads;
    long t = 0;
    for (; t + steps <= length; t += steps) match(q, heads, seen + t * dim, steps, dim, scale, to + t, length);
    for (; t < length; t++) match(q, heads, seen + t * dim, 1, dim, scale, to + t, length);
}

/* to[h][i] = sum over t, ascending, of weights[h][t] seen[t][i] for `heads` heads and `octs` octs of i. */
INLINE void mix(const float *weights, const int heads, const float *seen, long length, long dim, const int octs,
                float *to, long rank) {
    oct sum[2][4] = {0};
    for (long t = 0; t < length; t++)
        EACH(int v = 0; v < octs; v++) EACH(int h = 0; h < heads; h++)
            sum[h][v] += weights[h * length + t] * load_oct(seen + t * dim + v * OCT);
    EACH(int h = 0; h < heads; h++) EACH(int v = 0; v < octs; v++) store_oct(to + h * rank + v * OCT, sum[h][v]);
}

/* `mix` of all `rank` values, the last ones one by one. */
INLINE void mix_all(const float *weights, const int heads, const float *seen, long length, long dim, float *to,
                    long rank) {
    long i = 0;
    for (; i + 4 * OCT <= rank; i += 4 * OCT) mix(weights, heads, seen + i, length, dim, 4, to + i, rank);
    for (; i + OCT <= rank; i += OCT) mix(weights, heads, seen + i, length, dim, 1, to + i, rank);
    for (; i < rank; i++)
        for (int h = 0; h < heads; h++) {
            float sum = 0;
            for (long t = 0; t < length; t++) sum += weights[h * length + t] * seen[t * dim + i];
            to[h * rank + i] = sum;
        }
}

/* mixed [heads][rank]: what the absorbed queries q [heads][dim] see among seen [length][dim]. */
static inline void see_latents(const Latent *a, const float *q, const float *seen, long length, float *weights,
                               float *mixed) {
    const long dim = a->rank + a->rope;
    long h = 0;
    for (; h + 4 <= a->heads; h += 4)
        match_all(q + h * dim, 4, seen, length, dim, a->scale, weights + h * length);
    for (; h < a->heads; h++) match_all(q + h * dim, 1, seen, length, dim, a->scale, weights + h * length);
    for (h = 0; h < a->heads; h++) softmax_in_place(weights + h * length, length);
    for (h = 0; h + 2 <= a->heads; h += 2)
        mix_all(weights + h * length, 2, seen, length, dim, mixed + h * a->rank, a->rank);
    if (h < a->heads) mix_all(weights + h * length, 1, seen, length, dim, mixed + h * a->rank, a->rank);
}

/* One row: its queries [heads][plain + rope], whose plain parts `met` [heads][rank + rope] holds multiplied by w_k, and
 * its new latent and key `fresh` [rank + rope] at `at`; mixed [heads][rank] becomes what it sees. */
static inline void latent_row(const Latent *a, const float *q, const float *fresh, const float *cos, const float *sin,
                              long at, float *cache, float *met, float *mixed, float *weights) {
    const long dim = a->rank + a->rope;
    cos += at * a->rope;
    sin += at * a->rope;
    rms_norm(fresh, a->kv_norm, a->rank, a->eps, cache + at * dim);
    turn(fresh + a->rank, cos, sin, a->rope, a->interleave, cache + at * dim + a->rank);
    for (long h = 0; h < a->heads; h++)
        turn(q + h * (a->plain + a->rope) + a->plain, cos, sin, a->rope, a->interleave, met + h * dim + a->rank);
    see_latents(a, met, cache, at + 1, weights, mixed);
}

/* `latent_attention` of at most LATENT_ROWS rows. */
static inline void latent_rows(const Latent *a, const float *x, long rows, const float *cos, const float *sin,
                               const long *starts, const long *places, float *cache, long room, float *y,
                               float *scratch) {
    const long hidden = a->kv.ins, dim = a->rank + a->rope, wide = a->plain + a->rope, down = a->q_down.outs;
    const long queries = a->heads * wide, met = a->heads * dim, mixed = a->heads * a->rank, out = a->heads * a->value;
    float *low = scratch, *q = low + rows * down, *absorbed = q + rows * queries, *fresh = absorbed + rows * met;
    float *seen = fresh + rows * dim, *heads = seen + rows * mixed, *weights = heads + rows * out;
    if (down) product(&a->q_down, x, rows, hidden, low, down);
    for (long r = 0; down && r < rows; r++) rms_norm(low + r * down, a->q_norm, down, a->eps, low + r * down);
    product(&a->q, down ? low : x, rows, a->q.ins, q, queries);
    product(&a->kv, x, rows, hidden, fresh, dim);
    for (long h = 0; h < a->heads; h++) product(a->keys + h, q + h * wide, rows, queries, absorbed + h * dim, met);
    for (long r = 0; r < rows; r++)
        latent_row(a, q + r * queries, fresh + r * dim, cos, sin, starts[r], cache + places[r] * room * dim,
                   absorbed + r * met, seen + r * mixed, weights);
    for (long h = 0; h < a->heads; h++)
        product(a->values + h, seen + h * a->rank, rows, mixed, heads + h * a->value, out);
    product(&a->out, heads, rows, out, y, hidden);
}

/* y [rows][hidden], which may be x: what attention adds for the normed hidden states x [rows][hidden]. Each row's latent
 * and rotated key go to position starts[row] of row places[row] of the layer's cache [..][room][rank + rope]. */
static inline void latent_attention(const Latent *a, const float *x, long rows, const float *cos, const float *sin,
                                    const long *starts, const long *places, float *cache, long room, float *y,
                                    float *scratch) {
    const long hidden = a->kv.ins;
    for (long r = 0; r < rows; r += LATENT_ROWS) {
        const long some = rows - r < LATENT_ROWS ? rows - r : LATENT_ROWS;
        latent_rows(a, x + r * hidden, some, cos, sin, starts + r, places + r, cache, room, y + r * hidden, scratch);
    }
}

#endif
