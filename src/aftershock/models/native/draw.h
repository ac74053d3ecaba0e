/* A plain draw from logits: one uniform number a row turned into a token, as generate/sampler.py's inverse CDF. */
#ifndef AFTERSHOCK_DRAW_H
#define AFTERSHOCK_DRAW_H

#include "crew.h"
#include "gemm.h"

#define SPAN 64 /* tokens whose mass is summed at once */

/* to[i] = e^((x[i] - most) / heat), and sums[i / SPAN] their sums in double; returns the sum of all. */
static inline double masses(const float *x, long n, float most, float heat, float *to, double *sums) {
    double all = 0;
    for (long first = 0; first < n; first += SPAN) {
        const long last = first + SPAN < n ? first + SPAN : n;
        double sum[WIDTH] = {0};
        long i = first;
        for (; i + WIDTH <= last; i += WIDTH) {
            const vec e = exp_vec((load(x + i) - most) / heat);
            store(to + i, e);
            for (int lane = 0; lane < WIDTH; lane++) sum[lane] += e[lane];
        }
        for (; i < last; i++) sum[0] += to[i] = exp_one((x[i] - most) / heat);
        for (int lane = 1; lane < WIDTH; lane++) sum[0] += sum[lane];
        sums[first / SPAN] = sum[0];
        all += sum[0];
    }
    return all;
}

/* The first token whose cumulative mass exceeds u x all, never one without mass; of NaNs, any. */
static inline long chosen(const float *mass, const double *sums, long n, double all, double u) {
    const double least = nextafter(all, 0), goal = u * all < least ? u * all : least;
    double before = 0;
    long first = 0, token = n - 1;
    for (; first + SPAN < n && !(before + sums[first / SPAN] > goal); first += SPAN) before += sums[first / SPAN];
    for (long i = first; i < n && i < first + SPAN; i++) {
        if (!(mass[i] > 0)) continue;
        token = i; /* stays the last one with mass where rounding hides that the goal is reached */
        before += mass[i];
        if (before > goal) break;
    }
    return token;
}

/* One row: its token, and the token's log-probability under the logits x and under (x + bias) / heat; `bias` may be
 * NULL. `work` [2 n] and `sums` are worked in. */
static inline void draw_row(const float *x, const float *bias, long n, double u, float heat, float *work, double *sums,
                            long *token, float *own, float *sampled) {
    float *mass = work, *moved = work + n;
    const float most = largest_of(x, n);
    const double plain = masses(x, n, most, 1.0f, mass, sums);
    const float *shaped = bias ? moved : x;
    for (long i = 0; bias && i < n; i++) moved[i] = x[i] + bias[i];
    const float top = bias ? largest_of(shaped, n) : most;
    const double all = bias || heat != 1.0f ? masses(shaped, n, top, heat, mass, sums) : plain;
    *token = chosen(mass, sums, n, all, u);
    *own = x[*token] - most - (float)log(plain);
    *sampled = (shaped[*token] - top) / heat - (float)log(all);
}

#endif
