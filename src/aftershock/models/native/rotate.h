/* Rotation of a head's pairs by the position's angles, and the short vectors that a head's width is a multiple of. */
#ifndef AFTERSHOCK_ROTATE_H
#define AFTERSHOCK_ROTATE_H

#include "gemm.h"

#define OCT 8 /* floats: a head's width is a multiple of 8 more often than of 16, */
typedef float oct __attribute__((vector_size(4 * OCT)));
typedef int octi __attribute__((vector_size(4 * OCT)));

INLINE oct load_oct(const float *x) {
    oct v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void store_oct(float *x, oct v) { memcpy(x, &v, sizeof v); }

#define QUAD 4 /* and half a head of 4 */
typedef float quad __attribute__((vector_size(4 * QUAD)));

INLINE quad load_quad(const float *x) {
    quad v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void store_quad(float *x, quad v) { memcpy(x, &v, sizeof v); }

/* Turn the pairs of one head x, half a head apart: cos and sin [dim] carry the sign (rope.py). `turn` is 1, or -1 to
 * turn back; y may be x. */
PINNED void rotate_halves(const float *x, const float *cos, const float *sin, long dim, float turn, float *y) {
    const long half = dim / 2;
    long i = 0;
    for (; i + QUAD <= half; i += QUAD) {
        const quad a = load_quad(x + i), b = load_quad(x + i + half);
        store_quad(y + i, a * load_quad(cos + i) + b * (load_quad(sin + i) * turn));
        store_quad(y + i + half, b * load_quad(cos + i + half) + a * (load_quad(sin + i + half) * turn));
    }
    for (; i < half; i++) {
        const float a = x[i], b = x[i + half];
        y[i] = a * cos[i] + b * (sin[i] * turn);
        y[i + half] = b * cos[i + half] + a * (sin[i + half] * turn);
    }
}

/* The same of pairs that are neighbours. */
PINNED void rotate_neighbours(const float *x, const float *cos, const float *sin, long dim, float turn, float *y) {
    for (long i = 0; i < dim; i += 2) {
        const float a = x[i], b = x[i + 1];
        y[i] = a * cos[i] + b * (sin[i] * turn);
        y[i + 1] = b * cos[i + 1] + a * (sin[i + 1] * turn);
    }
}

/* Either of them. */
INLINE void rotate(const float *x, const float *cos, const float *sin, long dim, long neighbours, float turn,
                   float *y) {
    (neighbours ? rotate_neighbours : rotate_halves)(x, cos, sin, dim, turn, y);
}

#endif
