/* Vectors, the matrix product and the small functions of a row: what every part of a native step is made of.
 *
 * A row's result never depends on its neighbours: each output element is summed over k in one fixed order, whatever
 * tile it falls into. Vectors are the compiler's own (GCC and Clang), as wide as the machine's registers.
 */
#ifndef AFTERSHOCK_GEMM_H
#define AFTERSHOCK_GEMM_H

#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define VECS 2               /* vectors in a panel's line, and */
#define TILE 6               /* rows of one tile: 12 sums, 2 weights and 1 input fill 16 registers */
#define PANEL (VECS * WIDTH) /* outputs that lie together in a packed matrix */

typedef float vec __attribute__((vector_size(4 * WIDTH)));
typedef int veci __attribute__((vector_size(4 * WIDTH)));

#define INLINE static inline __attribute__((always_inline))
#define EACH _Pragma("GCC unroll 16") for

INLINE vec load(const float *x) {
    vec v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void store(float *x, vec v) { memcpy(x, &v, sizeof v); }

INLINE vec same(float x) { return x - (vec){0}; } /* less 0, which the compiler drops: -0 + 0 would be 0 */

/* The first n of x, and `fill` behind them. */
INLINE vec load_part(const float *x, long n, float fill) {
    vec v = same(fill);
    for (long i = 0; i < n; i++) v[i] = x[i];
    return v;
}

INLINE void store_part(float *x, long n, vec v) {
    for (long i = 0; i < n; i++) x[i] = v[i];
}

INLINE vec choose(veci mask, vec yes, vec no) { return (vec)((mask & (veci)yes) | (~mask & (veci)no)); }

INLINE float total(vec v) {
    float sum[WIDTH];
    store(sum, v);
    for (int half = WIDTH / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) sum[i] += sum[i + half];
    return sum[0];
}

/* A matrix [outs][ins] in panels of PANEL outputs: data[panel][k][PANEL], the last panel filled up with zeros. */
typedef struct {
    const float *data;
    long outs, ins;
    const float *bias; /* [outs], or NULL */
} Packed;

/* How many floats `pack` writes. */
static inline long packed_size(long outs, long ins) { return (outs + PANEL - 1) / PANEL * PANEL * ins; }

/* Lay w [outs][ins], row by row, out in panels. */
static inline void pack(const float *w, long outs, long ins, float *to) {
    for (long first = 0; first < outs; first += PANEL) {
        long held = outs - first < PANEL ? outs - first : PANEL;
        for (long k = 0; k < ins; k++, to += PANEL) {
            for (long o = 0; o < held; o++) to[o] = w[(first + o) * ins + k];
            for (long o = held; o < PANEL; o++) to[o] = 0;
        }
    }
}

/* y of `rows` rows (a constant where it is inlined) and one panel. */
INLINE void tile(const Packed *w, long panel, const float *x, const long rows, long x_stride, float *y, long y_stride) {
    const long first = panel * PANEL, held = w->outs - first < PANEL ? w->outs - first : PANEL;
    const float *data = w->data + first * w->ins;
    vec sum[TILE][VECS];
    EACH(int v = 0; v < VECS; v++) {
        long left = held - v * WIDTH;
        vec start = {0};
        if (w->bias) start = left >= WIDTH ? load(w->bias + first + v * WIDTH)
                                           : load_part(w->bias + first + v * WIDTH, left, 0);
        EACH(int r = 0; r < rows; r++) sum[r][v] = start;
    }
    for (long k = 0; k < w->ins; k++, data += PANEL) {
        vec weight[VECS];
        EACH(int v = 0; v < VECS; v++) weight[v] = load(data + v * WIDTH);
        EACH(int r = 0; r < rows; r++) {
            vec in = same(x[r * x_stride + k]);
            EACH(int v = 0; v < VECS; v++) sum[r][v] += in * weight[v];
        }
    }
    EACH(int r = 0; r < rows; r++) {
        EACH(int v = 0; v < VECS; v++) {
            long left = held - v * WIDTH;
            if (left >= WIDTH)
                store(y + r * y_stride + first + v * WIDTH, sum[r][v]);
            else
                store_part(y + r * y_stride + first + v * WIDTH, left, sum[r][v]);
        }
    }
}

/* y[r][o] = bias[o] + sum over k, ascending, of x[r][k] w[o][k]. */
static inline void product(const Packed *w, const float *x, long rows, long x_stride, float *y, long y_stride) {
    for (long panel = 0; panel * PANEL < w->outs; panel++) {
        for (long r = 0; r < rows; r += TILE) {
            const float *in = x + r * x_stride;
            float *out = y + r * y_stride;
            switch (rows - r) {
            case 1: tile(w, panel, in, 1, x_stride, out, y_stride); break;
            case 2: tile(w, panel, in, 2, x_stride, out, y_stride); break;
            case 3: tile(w, panel, in, 3, x_stride, out, y_stride); break;
            case 4: tile(w, panel, in, 4, x_stride, out, y_stride); break;
            case 5: tile(w, panel, in, 5, x_stride, out, y_stride); break;
            default: tile(w, panel, in, TILE, x_stride, out, y_stride);
            }
        }
    }
}

/* e^x to a few units in the last place; 0 below -87.3, NaN for NaN. */
INLINE vec exp_vec(vec x) {
    const veci low = x < -87.3f;
    x = choose(low, same(-87.3f), x);
    x = choose(x > 89.0f, same(89.0f), x); /* whose power of two is infinite */
    const float round = 12582912.0f;       /* 1.5 x 2^23: adding it rounds to whole numbers */
    vec shifted = x * 1.44269504f + round, n = shifted - round;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec y = r * 1.9875691500e-4f + 1.3981999507e-3f; /* Cephes' expf polynomial */
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    veci power = ((veci)shifted - (veci)same(round) + 127) << 23;
    return choose(low, same(0), y * (vec)power);
}

INLINE float exp_one(float x) { return exp_vec(same(x))[0]; }

/* x / (1 + e^-x) */
INLINE vec silu_vec(vec x) { return x / (1.0f + exp_vec(-x)); }

/* 1 / (1 + e^-x) */
INLINE vec sigmoid_vec(vec x) { return 1.0f / (1.0f + exp_vec(-x)); }

/* gate[i] = silu(gate[i]) * up[i] */
static inline void gated(float *gate, const float *up, long n) {
    long i = 0;
    for (; i + WIDTH <= n; i += WIDTH) store(gate + i, silu_vec(load(gate + i)) * load(up + i));
    if (i < n) store_part(gate + i, n - i, silu_vec(load_part(gate + i, n - i, 0)) * load_part(up + i, n - i, 0));
}

/* The sum of a[i] b[i], by lanes. */
INLINE float dot(const float *a, const float *b, long n) {
    vec sum = {0};
    long i = 0;
    for (; i + WIDTH <= n; i += WIDTH) sum += load(a + i) * load(b + i);
    if (i < n) sum += load_part(a + i, n - i, 0) * load_part(b + i, n - i, 0);
    return total(sum);
}

/* One row: y = x / sqrt(mean x^2 + eps) * weight; y may be x. */
static inline void rms_norm(const float *x, const float *weight, long n, float eps, float *y) {
    const float by = 1.0f / sqrtf(dot(x, x, n) / n + eps);
    for (long i = 0; i < n; i++) y[i] = x[i] * by * weight[i];
}

/* One row of n: x[i] = e^(x[i] - max) / sum. */
static inline void softmax_in_place(float *x, long n) {
    float most = x[0];
    for (long i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
    vec sum = {0};
    long i = 0;
    for (; i + WIDTH <= n; i += WIDTH) {
        vec e = exp_vec(load(x + i) - most);
        store(x + i, e);
        sum += e;
    }
    if (i < n) {
        vec e = exp_vec(load_part(x + i, n - i, -INFINITY) - most);
        store_part(x + i, n - i, e);
        sum += e;
    }
    const float by = 1.0f / total(sum);
    for (i = 0; i < n; i++) x[i] *= by;
}

/* y[i] += x[i] */
INLINE void add_to(float *y, const float *x, long n) {
    for (long i = 0; i < n; i++) y[i] += x[i];
}

#endif
