/* The learner's passes over rows, forward and backward: norm, gated unit, rotation, a target's log-probability.
 *
 * Bits don't depend on the number of threads: a row belongs to one worker, and what is summed over rows is summed in
 * parts of PART rows, whoever takes them, and the parts in their order.
 */
#ifndef AFTERSHOCK_POINTWISE_H
#define AFTERSHOCK_POINTWISE_H

#include <stdlib.h>

#include "crew.h"
#include "draw.h"
#include "gemm.h"
#include "rotate.h"

#define PART 128    /* rows */
#define WORTH 16384 /* values that are worth a thread's start */

typedef struct {
    const float *x, *more, *weight, *up; /* x [rows][n], weight [n]; up [rows][n] is the gradient of y */
    long rows, n; /* more [rows][n] or NULL: what is added to x before, and backward to its gradient */
    float eps;
    float *sum, *y, *scale, *down, *parts, *total; /* sum and down [rows][n], scale [rows], total [n]: x + more, and */
} Norm;                                            /* the gradients of it and of the weight */

static float *add_row(const float *x, const float *more, long n, float *to) {
    for (long i = 0; i < n; i++) to[i] = x[i] + more[i];
    return to;
}

static void norm_forward(const Worker *me, void *given) {
    const Norm *job = given;
    const long n = job->n;
    long first, last;
    share(me, job->rows, 1, &first, &last);
    for (long r = first; r < last; r++) {
        const float *x = job->x + r * n;
        if (job->more) x = add_row(x, job->more + r * n, n, job->sum + r * n);
        job->scale[r] = rms_norm(x, job->weight, n, job->eps, job->y + r * n);
    }
}

static void norm_row_backward(const Norm *job, long r, float *restrict part) {
    const long n = job->n;
    const float *restrict x = job->x + r * n, *restrict up = job->up + r * n, *restrict weight = job->weight;
    float *restrict down = job->down + r * n;
    const float by = job->scale[r];
    long i = 0;
    for (; i + WIDTH <= n; i += WIDTH) store(down + i, load(up + i) * load(weight + i)); /* as wide as `dot` loads it */
    for (; i < n; i++) down[i] = up[i] * weight[i];
    const float pull = dot(down, x, n) * by * by * by / n;
    for (i = 0; i < n; i++) {
        down[i] = down[i] * by - x[i] * pull;
        part[i] += up[i] * x[i] * by;
    }
    if (job->more) add_row(down, job->more + r * n, n, down);
}

static void norm_backward(const Worker *me, void *given) {
    const Norm *job = given;
    long first, last;
    share(me, job->rows, PART, &first, &last);
    for (long r = first; r < last; r++) norm_row_backward(job, r, job->parts + r / PART * job->n);
    meet(me);
    share(me, job->n, WIDTH, &first, &last);
    for (long i = first; i < last; i++) {
        float sum = 0;
        for (long part = 0; part * PART < job->rows; part++) sum += job->parts[part * job->n + i];
        job->total[i] = sum;
    }
}

typedef struct {
    const float *gate, *up, *out_grad; /* gate and up have `stride` values a row, and so their gradients */
    long rows, n, stride;
    float *out, *gate_grad, *up_grad;
} Gated;

static void gated_forward(const Worker *me, void *given) {
    const Gated *job = given;
    long first, last;
    share(me, job->rows, 1, &first, &last);
    for (long r = first; r < last; r++) {
        float *out = job->out + r * job->n;
        memcpy(out, job->gate + r * job->stride, job->n * sizeof *out);
        gated(out, job->up + r * job->stride, job->n);
    }
}

INLINE void gated_slopes(vec gate, vec up, vec grad, vec *gate_grad, vec *up_grad) {
    const vec open = sigmoid_vec(gate);
    *up_grad = grad * gate * open;
    *gate_grad = grad * up * open * (1.0f + gate * (1.0f - open));
}

static void gated_backward(const Worker *me, void *given) {
    const Gated *job = given;
    const long n = job->n;
    long first, last;
    share(me, job->rows, 1, &first, &last);
    for (long r = first; r < last; r++) {
        const float *gate = job->gate + r * job->stride, *up = job->up + r * job->stride, *grad = job->out_grad + r * n;
        float *gate_grad = job->gate_grad + r * job->stride, *up_grad = job->up_grad + r * job->stride;
        vec a, b;
        long i = 0;
        for (; i + WIDTH <= n; i += WIDTH) {
            gated_slopes(load(gate + i), load(up + i), load(grad + i), &a, &b);
            store(gate_grad + i, a);
            store(up_grad + i, b);
        }
        if (i == n) continue;
        gated_slopes(load_part(gate + i, n - i, 0), load_part(up + i, n - i, 0), load_part(grad + i, n - i, 0), &a, &b);
        store_part(gate_grad + i, n - i, a);
        store_part(up_grad + i, n - i, b);
    }
}

typedef struct {
    const float *x, *cos, *sin; /* x [rows][heads][dim]; cos and signed sin [rows][dim] */
    long rows, heads, dim, neighbours; /* whether a pair lies side by side, and not half a head apart */
    float turn;                        /* 1 forward; -1 backward, the turn back */
    float *y;
} Turn;

static void turn_rows(const Worker *me, void *given) {
    const Turn *job = given;
    const long dim = job->dim;
    long first, last;
    share(me, job->rows, 1, &first, &last);
    for (long r = first; r < last; r++) {
        const float *cos = job->cos + r * dim, *sin = job->sin + r * dim;
        for (long h = r * job->heads; h < (r + 1) * job->heads; h++)
            rotate(job->x + h * dim, cos, sin, dim, job->neighbours, job->turn, job->y + h * dim);
    }
}

typedef struct {
    const float *logits; /* [rows][n] */
    const long *targets; /* [rows], and so all but `grad` */
    const float *up;     /* gradient of `chosen` */
    long rows, n;
    float *chosen, *entropy, *log_sum;
    float *grad;           /* [rows][n], of the logits */
    float *spread;         /* log_sum less the largest logit; NULL where nobody wants it */
    volatile long failed;  /* whether there was no memory */
} Select;

/* The sum over i of mass[i] times x[i] - most. */
static double weighted_sum(const float *x, const float *mass, long n, float most) {
    double all = 0;
    for (long first = 0; first < n; first += SPAN) {
        const long last = first + SPAN < n ? first + SPAN : n;
        vec sum = {0};
        long i = first;
        for (; i + WIDTH <= last; i += WIDTH) sum += load(mass + i) * (load(x + i) - most);
        all += total(sum);
        for (; i < last; i++) all += mass[i] * (x[i] - most);
    }
    return all;
}

/* One row, by the sums that a token is drawn from. */
static void select_row(const Select *job, long r, Odds *odds) {
    const float *x = job->logits + r * job->n;
    weigh(odds, x, NULL, 1);
    if (job->spread) job->spread[r] = odds->log_plain;
    job->log_sum[r] = odds->most + odds->log_plain;
    job->chosen[r] = x[job->targets[r]] - odds->most - odds->log_plain;
    job->entropy[r] = (float)(log(odds->all) - weighted_sum(x, odds->mass, job->n, odds->most) / odds->all);
}

static void select_forward(const Worker *me, void *given) {
    Select *job = given;
    long first, last;
    Odds odds = new_odds(job->n);
    if (!odds.sums) job->failed = 1;
    share(me, job->rows, 1, &first, &last);
    for (long r = first; odds.sums && r < last; r++) select_row(job, r, &odds);
    free(odds.sums);
}

static void select_backward(const Worker *me, void *given) {
    const Select *job = given;
    const long n = job->n;
    long first, last;
    share(me, job->rows, 1, &first, &last);
    for (long r = first; r < last; r++) {
        const float *x = job->logits + r * n, by = job->up[r], under = job->log_sum[r];
        float *grad = job->grad + r * n;
        long i = 0;
        for (; i + WIDTH <= n; i += WIDTH) store(grad + i, exp_vec(load(x + i) - under) * -by);
        for (; i < n; i++) grad[i] = exp_one(x[i] - under) * -by;
        grad[job->targets[r]] += by;
    }
}

#endif
