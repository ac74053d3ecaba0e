/* Multi-head latent attention of one decoding step, absorbed: queries meet the cached latents themselves.
 *
 * As attention.py's `_absorbed`: with w_k and w_v the two parts of a head's kv_b, (w_k k).q = k.(w_k^T q), and the
 * weighted sum of values is w_v times the weighted sum of latents.
 */
#ifndef AFTERSHOCK_LATENT_H
#define AFTERSHOCK_LATENT_H

#include "gemm.h"

#define LATENT_ROWS 48 /* rows at once: their queries stay in a core's own cache */

typedef struct {
    long heads, rank, rope, plain, value; /* sizes of a head's parts; `rank` of the latent */
    long interleave;                      /* whether rotated pairs are neighbours, else half a head apart */
    float scale, eps;
    const Packed *q_down; /* [q rank][hidden], or NULL where queries come from the hidden state at once */
    const float *q_norm;  /* [q rank] */
    const Packed *q;      /* [heads x (plain + rope)][hidden or q rank] */
    const Packed *kv;     /* [rank + rope][hidden] */
    const float *kv_norm; /* [rank] */
    const Packed *keys;   /* one a head, [rank][plain]: w_k turned over */
    const Packed *values; /* one a head, [value][rank] */
    const Packed *out;    /* [hidden][heads x value] */
} Latent;

/* How many floats `latent_attention` works in. */
static inline long latent_scratch(const Latent *a, long room) {
    const long dim = a->rank + a->rope, down = a->q_down ? a->q_down->outs : 0;
    return LATENT_ROWS * (down + a->heads * (a->plain + a->rope + dim + a->rank + a->value) + dim) + a->heads * room;
}

/* Turn the pairs of x [n] by an angle's cos and signed sin [n], see rope.py. */
static inline void turn(const float *x, const float *cos, const float *sin, long n, long interleave, float *y) {
    for (long i = 0; i < n; i++) {
        const long other = interleave ? i ^ 1 : (i < n / 2 ? i + n / 2 : i - n / 2);
        y[i] = x[i] * cos[i] + x[other] * sin[i];
    }
}

/* to[h][t] = scale * q[h] . seen[t], for `heads` heads and `steps` positions (constants where it is inlined). */
INLINE void meet(const float *q, const int heads, const float *seen, const int steps, long dim, float scale, float *to,
                 long length) {
    vec sum[2][4] = {0};
    long k = 0;
    for (; k + WIDTH <= dim; k += WIDTH)
        EACH(int t = 0; t < steps; t++) EACH(int h = 0; h < heads; h++)
            sum[t][h] += load(seen + t * dim + k) * load(q + h * dim + k);
    if (k < dim)
        EACH(int t = 0; t < steps; t++) EACH(int h = 0; h < heads; h++)
            sum[t][h] += load_part(seen + t * dim + k, dim - k, 0) * load_part(q + h * dim + k, dim - k, 0);
    EACH(int t = 0; t < steps; t++) EACH(int h = 0; h < heads; h++) to[h * length + t] = total(sum[t][h]) * scale;
}

/* to[h][first + i] = sum over t, ascending, of weights[h][t] seen[t][first + i], for `vecs` vectors of i. */
INLINE void mix(const float *weights, const int heads, const float *seen, long length, long dim, const int vecs,
                float *to, long rank) {
    vec sum[2][4] = {0};
    for (long t = 0; t < length; t++)
        EACH(int v = 0; v < vecs; v++) EACH(int h = 0; h < heads; h++)
            sum[h][v] += weights[h * length + t] * load(seen + t * dim + v * WIDTH);
    EACH(int h = 0; h < heads; h++) EACH(int v = 0; v < vecs; v++) store(to + h * rank + v * WIDTH, sum[h][v]);
}

/* `mix` of all `rank` values for `heads` heads, the last values one by one. */
INLINE void mix_heads(const float *weights, const int heads, const float *seen, long length, long dim, float *to,
                      long rank) {
    long i = 0;
    for (; i + 4 * WIDTH <= rank; i += 4 * WIDTH) mix(weights, heads, seen + i, length, dim, 4, to + i, rank);
    for (; i + WIDTH <= rank; i += WIDTH) mix(weights, heads, seen + i, length, dim, 1, to + i, rank);
    for (; i < rank; i++)
        for (int h = 0; h < heads; h++) {
            float sum = 0;
            for (long t = 0; t < length; t++) sum += weights[h * length + t] * seen[t * dim + i];
            to[h * rank + i] = sum;
        }
}

/* One row: mixed [heads][rank], what its queries q [heads][dim] see among seen [length][dim]. */
static inline void latent_row(const Latent *a, const float *q, const float *seen, long length, float *weights,
                              float *mixed) {
    const long dim = a->rank + a->rope;
    long h = 0;
    for (; h + 4 <= a->heads; h += 4) {
        long t = 0;
        for (; t + 2 <= length; t += 2)
            meet(q + h * dim, 4, seen + t * dim, 2, dim, a->scale, weights + h * length + t, length);
        if (t < length) meet(q + h * dim, 4, seen + t * dim, 1, dim, a->scale, weights + h * length + t, length);
    }
    for (; h < a->heads; h++)
        for (long t = 0; t < length; t++)
            meet(q + h * dim, 1, seen + t * dim, 1, dim, a->scale, weights + h * length + t, length);
    for (h = 0; h < a->heads; h++) softmax_in_place(weights + h * length, length);
    for (h = 0; h + 2 <= a->heads; h += 2)
        mix_heads(weights + h * length, 2, seen, length, dim, mixed + h * a->rank, a->rank);
    if (h < a->heads) mix_heads(weights + h * length, 1, seen, length, dim, mixed + h * a->rank, a->rank);
}

/* y [rows][hidden]: what attention adds for the normed hidden states x [rows][hidden] of at most LATENT_ROWS rows. */
static inline void latent_rows(const Latent *a, const float *x, long rows, const float *cos, const float *sin,
                               const long *starts, float *cache, long room, float *y, float *scratch) {
    const long hidden = a->kv->ins, dim = a->rank + a->rope, wide = a->plain + a->rope, all = a->heads * wide;
    const long down = a->q_down ? a->q_down->outs : 0;
    float *low = scratch, *q = low + rows * down, *met = q + rows * all, *new = met + rows * a->heads * dim;
    float *mixed = new + rows * dim, *out = mixed + rows * a->heads * a->rank, *weights = out + rows * a->heads * a->value;
    if (a->q_down) {
        product(a->q_down, x, rows, hidden, low, down);
        for (long r = 0; r < rows; r++) rms_norm(low + r * down, a->q_norm, down, a->eps, low + r * down);
    }
    product(a->q, a->q_down ? low : x, rows, a->q_down ? down : hidden, q, all);
    product(a->kv, x, rows, hidden, new, dim);
    for (long h = 0; h < a->heads; h++)
        product(a->keys + h, q + h * wide, rows, all, met + h * dim, a->heads * dim);
    for (long r = 0; r < rows; r++) {
        const float *c = cos + starts[r] * a->rope, *s = sin + starts[r] * a->rope;
        float *seen = cache + r * room * dim, *own = seen + starts[r] * dim;
        for (long h = 0; h < a->heads; h++)
            turn(q + r * all + h * wide + a->plain, c, s, a->rope, a->interleave, met + (r * a->heads + h) * dim + a->rank);
        rms_norm(new + r * dim, a->kv_norm, a->rank, a->eps, own);
        turn(new + r * dim + a->rank, c, s, a->rope, a->interleave, own + a->rank);
        latent_row(a, met + r * a->heads * dim, seen, starts[r] + 1, weights, mixed + r * a->heads * a->rank);
    }
    for (long h = 0; h < a->heads; h++)
        product(a->values + h, mixed + h * a->rank, rows, a->heads * a->rank, out + h * a->value, a->heads * a->value);
    product(a->out, out, rows, a->heads * a->value, y, hidden);
}

/* y [rows][hidden]: what attention adds for the normed hidden states x [rows][hidden]; writes each row's latent and
 * rotated key into its place of the layer's cache [rows][room][rank + rope], and reads what lies before and there. */
static inline void latent_attention(const Latent *a, const float *x, long rows, const float *cos, const float *sin,
                                    const long *starts, float *cache, long room, float *y, float *scratch) {
    const long hidden = a->kv->ins, row = room * (a->rank + a->rope);
    for (long r = 0; r < rows; r += LATENT_ROWS) {
        const long some = rows - r < LATENT_ROWS ? rows - r : LATENT_ROWS;
        latent_rows(a, x + r * hidden, some, cos, sin, starts + r, cache + r * row, room, y + r * hidden, scratch);
    }
}

#endif
