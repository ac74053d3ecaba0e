/* What the learner computes of an exact model: each row by the functions that decode it, and so to the same bits.
 *
 * Norm, gated unit, rotation and log-probability are so already (pointwise.h). Gradients are the plain model's.
 */
#ifndef AFTERSHOCK_EXACT_H
#define AFTERSHOCK_EXACT_H

#include <stdlib.h>

#include "attend.h"
#include "crew.h"
#include "experts.h"
#include "gemm.h"
#include "grouped.h"

/* y = x w for `count` matrices, each with rows of its own. */
typedef struct {
    const Packed *w;       /* [count], and so the next three */
    const float *const *x; /* where each one's rows begin, `x_stride` floats apart */
    float *const *y;
    const long *rows;
    long count, total, x_stride, y_stride; /* `total` rows of all */
} Products;

#define PASSED 96 /* rows that pass a matrix together: they stay in a core's own cache */

static void products(const Worker *me, void *given) {
    const Products *job = given;
    for (long i = 0; i < job->count; i++) {
        long first, last;
        share(me, job->rows[i], TILE, &first, &last);
        for (long r = first; r < last; r += PASSED)
            product(job->w + i, job->x[i] + r * job->x_stride, least(PASSED, last - r), job->x_stride,
                    job->y[i] + r * job->y_stride, job->y_stride);
    }
}

typedef struct {
    Mixture mixture;      /* as far as the choice of experts asks for it */
    long rows;
    float *weights;       /* [rows][experts]: the gate's products, and then as `choose_experts` has it */
    volatile long failed; /* whether there was no memory */
} Choice;

static void choose_rows(const Worker *me, void *given) {
    Choice *job = given;
    const Mixture *m = &job->mixture;
    long first, last;
    float *scratch = malloc(4 * (2 * m->experts + m->groups));
    if (!scratch) job->failed = 1;
    share(me, job->rows, 1, &first, &last);
    for (long r = first; scratch && r < last; r++) choose_experts(m, job->weights + r * m->experts, scratch);
    free(scratch);
}

/* y[token[i]] += weights[i] x[i], i ascending. */
typedef struct {
    const float *x, *weights; /* [count][n], [count] */
    const long *token;        /* [count] */
    long count, rows, n;
    float *y;                 /* [rows][n] */
} Combine;

static void combine_rows(const Worker *me, void *given) {
    const Combine *job = given;
    const long n = job->n;
    long first, last;
    share(me, job->rows, 1, &first, &last);
    for (long i = 0; i < job->count; i++)
        if (job->token[i] >= first && job->token[i] < last)
            add_weighted(job->y + job->token[i] * n, job->x + i * n, job->weights[i], n);
}

/* One key head of a family: the path's keys and values are laid end to end, as a cache has them. */
static void see_family(const Attend *a, long head, long family, float *keys, float *values, float *weights) {
    const long shared = a->heads / a->kv_heads, dim = a->dim;
    for (const long *own = a->spans + 3 * a->families[family]; own < a->spans + 3 * a->families[family + 1]; own += 3) {
        const long before = own[2];
        for (long t = 0; t < own[1]; t++) {
            const long at = (own[0] + t) * a->kv_heads + head;
            memcpy(keys + (before + t) * dim, a->k + at * dim, 4 * dim);
            memcpy(values + (before + t) * dim, a->v + at * a->vdim, 4 * a->vdim);
        }
        for (long t = 0; t < own[1]; t++) {
            const long row = (own[0] + t) * a->heads + head * shared;
            see(a->q + row * dim, shared, keys, values, before + t + 1, dim, a->scale, weights, a->out + row * a->vdim,
                a->vdim, a->sums + row);
        }
    }
}

/* Take units, the largest first, until none is left. */
static void see_work(const Worker *me, void *given) {
    (void)me;
    Attend *a = given;
    const long longest = a->longest, laid = longest * a->dim;
    float *all = malloc(4 * (2 * laid + longest * (a->heads / a->kv_heads)));
    if (!all) a->failed = 1;
    for (long unit; all && (unit = __atomic_fetch_add(&a->next, 1, __ATOMIC_RELAXED)) < a->count * a->kv_heads;)
        see_family(a, unit % a->kv_heads, unit / a->kv_heads, all, all + laid, all + 2 * laid);
    free(all);
}

/* What `time` queries of each of a cache's rows see of it. */
typedef struct {
    long heads, kv_heads, dim, vdim, rows, time, length;
    float scale;
    const float *q;                             /* [rows][time][heads][dim] */
    const float *k, *v;                         /* positions of one head lie `dim` floats apart */
    long k_row, k_head, v_row, v_head;          /* rows and heads so many */
    const long *starts;                         /* [rows]: positions that lie before the first of the queries */
    float *out;                                 /* [rows][time][heads][vdim] */
    volatile long failed;
} Reading;

static void read_rows(const Worker *me, void *given) {
    Reading *job = given;
    const long shared = job->heads / job->kv_heads;
    long first, last;
    float *weights = malloc(4 * job->length * shared);
    if (!weights) job->failed = 1;
    share(me, job->rows, 1, &first, &last);
    for (long r = first; weights && r < last; r++)
        for (long at = 0; at < job->time * job->kv_heads; at++) {
            const long t = at / job->kv_heads, head = at % job->kv_heads;
            const long row = (r * job->time + t) * job->heads + head * shared;
            see(job->q + row * job->dim, shared, job->k + r * job->k_row + head * job->k_head,
                job->v + r * job->v_row + head * job->v_head, job->starts[r] + t + 1, job->dim, job->scale, weights,
                job->out + row * job->vdim, job->vdim, NULL);
        }
    free(weights);
}

#endif
