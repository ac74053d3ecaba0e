/* A mixture of experts for the rows of one decoding step: as moe.py, expert by expert, so that each is one product.
 *
 * A row adds its experts up in the order of their numbers, whoever shares them.
 */
#ifndef AFTERSHOCK_EXPERTS_H
#define AFTERSHOCK_EXPERTS_H

#include "gemm.h"

#define EXPERT_ROWS 48 /* rows of one expert at once: what lies between its products stays in a core's own cache */

typedef struct {
    Packed gate, up, down; /* [inner][hidden] twice, and back */
} Expert;

typedef struct {
    long experts, chosen;    /* how many there are, and how many a row takes */
    long groups, kept;       /* groups they lie in, and how many of those a row may choose from */
    long normed;             /* whether a row's weights are made to sum to 1 */
    float scaling;
    const float *correction; /* [experts], for the choice alone */
    Packed gate;             /* [experts][hidden] */
    Expert shared;           /* the shared experts as one; of no outputs where there are none */
    const Expert *expert;    /* [experts] */
} Mixture;

/* How many floats `mixture` works in. */
static inline long mixture_scratch(const Mixture *m, long rows) {
    const long hidden = m->gate.ins, inner = m->expert->down.ins, shared = m->shared.down.ins;
    return rows * (m->experts + hidden) + 2 * m->experts + m->groups +
           EXPERT_ROWS * 2 * (hidden + (inner > shared ? inner : shared));
}

/* Which of x [n] is largest: a NaN, as for torch, and of equal ones the first. */
static inline long largest(const float *x, long n) {
    long best = 0;
    for (long i = 1; i < n; i++)
        if (x[i] > x[best] || (x[i] != x[i] && x[best] == x[best])) best = i;
    return best;
}

/* Leave (not -inf) only the experts of the `kept` groups whose two largest values sum to most [V3 2.1.2]. */
static inline void keep_groups(const Mixture *m, float *biased, float *sums) {
    const long size = m->experts / m->groups;
    for (long g = 0; g < m->groups; g++) {
        float *own = biased + g * size, *best = own + largest(own, size), first = *best;
        *best = -INFINITY;
        sums[g] = first + own[largest(own, size)];
        *best = first;
    }
    for (long taken = 0; taken < m->kept; taken++) sums[largest(sums, m->groups)] = -INFINITY;
    for (long e = 0; e < m->experts; e++)
        if (sums[e / size] != -INFINITY) biased[e] = -INFINITY;
}

/* One row: turn its gate's products [experts] into the weights of the experts it takes, and -1 for the others. */
PINNED void choose_experts(const Mixture *m, float *weights, float *scratch) {
    float *scores = scratch, *biased = scores + m->experts, all = 0;
    for (long e = 0; e < m->experts; e++) {
        scores[e] = 1.0f / (1.0f + exp_one(-weights[e]));
        biased[e] = scores[e] + m->correction[e];
        weights[e] = -1;
    }
    if (m->kept < m->groups) keep_groups(m, biased, biased + m->experts);
    for (long taken = 0; taken < m->chosen; taken++) {
        const long e = largest(biased, m->experts);
        biased[e] = -INFINITY;
        weights[e] = scores[e];
        all += scores[e];
    }
    for (long e = 0; e < m->experts; e++)
        if (weights[e] != -1) weights[e] = weights[e] / (m->normed ? all + 1e-20f : 1.0f) * m->scaling;
}

/* y += weight x, all [n]. */
PINNED void add_weighted(float *restrict y, const float *restrict x, float weight, long n) {
    for (long i = 0; i < n; i++) y[i] += weight * x[i];
}

/* to [rows][hidden]: down(silu(gate(x)) * up(x)) for x [rows][hidden]; `wide` [2][rows][inner] is worked in. */
static inline void expert(const Expert *e, const float *x, long rows, float *wide, float *to) {
    const long inner = e->down.ins, hidden = e->down.outs;
    float *up = wide + rows * inner;
    product(&e->gate, x, rows, hidden, wide, inner);
    product(&e->up, x, rows, hidden, up, inner);
    gated(wide, up, rows * inner);
    product(&e->down, wide, rows, inner, to, hidden);
}

/* y += expert `e` of x [rows][hidden] for the rows that took it, by their weights [rows][experts]. */
static inline void add_expert(const Mixture *m, long e, const float *x, const float *weights, long rows, float *y,
                              float *scratch) {
    const long hidden = m->gate.ins;
    float *in = scratch, *out = in + EXPERT_ROWS * hidden, *wide = out + EXPERT_ROWS * hidden;
    long taker[EXPERT_ROWS], held = 0;
    for (long r = 0; r < rows; r++) {
        if (weights[r * m->experts + e] != -1) {
            memcpy(in + held * hidden, x + r * hidden, hidden * sizeof *x);
            taker[held++] = r;
        }
        if (held == EXPERT_ROWS || (held && r == rows - 1)) {
            expert(m->expert + e, in, held, wide, out);
            for (long i = 0; i < held; i++)
                add_weighted(y + taker[i] * hidden, out + i * hidden, weights[taker[i] * m->experts + e], hidden);
            held = 0;
        }
    }
}

/* y [rows][hidden], which may be x: the weighted sum of each row's experts for x [rows][hidden], and the shared. */
static inline void mixture(const Mixture *m, const float *x, long rows, float *y, float *scratch) {
    const long hidden = m->gate.ins;
    float *weights = scratch, *sum = weights + rows * m->experts, *work = sum + rows * hidden;
    product(&m->gate, x, rows, hidden, weights, m->experts);
    for (long r = 0; r < rows; r++) choose_experts(m, weights + r * m->experts, work);
    memset(sum, 0, rows * hidden * sizeof *sum);
    for (long e = 0; e < m->experts; e++) add_expert(m, e, x, weights, rows, sum, work);
    for (long r = 0; m->shared.down.outs && r < rows; r += EXPERT_ROWS) {
        const long some = rows - r < EXPERT_ROWS ? rows - r : EXPERT_ROWS;
        expert(&m->shared, x + r * hidden, some, work + EXPERT_ROWS * hidden, work);
        add_to(sum + r * hidden, work, some * hidden);
    }
    memcpy(y, sum, rows * hidden * sizeof *y);
}

#endif
