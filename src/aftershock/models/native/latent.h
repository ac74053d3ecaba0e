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

/* One row: its queries [heads][plain + rope], whose plain parts `met` [heads][rank + rope] holds multiplied by w_k, and
 * its new latent and key `fresh` [rank + rope] at `at`; mixed [heads][rank] becomes what it sees. */
static inline void latent_row(const Latent *a, const float *q, const float *fresh, const float *cos, const float *sin,
                              long at, float *cache, float *met, float *mixed, float *weights) {
    const long dim = a->rank + a->rope;
    cos += at * a->rope;
    sin += at * a->rope;
    rms_norm(fresh, a->kv_norm, a->rank, a->eps, cache + at * dim);
    rotate(fresh + a->rank, cos, sin, a->rope, a->interleave, 1, cache + at * dim + a->rank);
    for (long h = 0; h < a->heads; h++)
        rotate(q + h * (a->plain + a->rope) + a->plain, cos, sin, a->rope, a->interleave, 1, met + h * dim + a->rank);
    see(met, a->heads, cache, cache, at + 1, dim, a->scale, weights, mixed, a->rank, NULL);
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
