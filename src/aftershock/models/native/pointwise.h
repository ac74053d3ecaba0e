/* The learner's passes over rows, forward and backward: norm, gated unit, rotation, a target's log-probability.
 *
 * Bits don't depend on the number of threads: a row belongs to one worker, and what is summed over rows is summed in
 * parts of PART rows, whoever takes them, and the parts in their order.
 */
#ifndef AFTERSHOCK_POINTWISE_H
#define AFTERSHOCK_POINTWISE_H

#include <stdlib.h>

#include "crew.h"
#include "gemm.h"

#define PART 128    /* rows */
#define WORTH 16384 /* values that are worth a thread's start */
#define LONG 4096   /* values summed in float; longer sums go on in double */

typedef struct {
    const float *x, *weight, *up; /* x [rows][n], weight [n]; up [rows][n] is the gradient of y */
    long rows, n;
    float eps;
    float *y, *scale, *down, *parts, *total; /* scale [rows]; down [rows][n], total [n]: gradients of x and weight */
} Norm;

static void norm_forward(const Worker *me, void *given) {
    const Norm *job = given;
    const long n = job->n;
    const float *restrict weight = job->weight;
    long first, last;
    share(me, job->rows, 1, &first, &last);
    for (long r = first; r < last; r++) {
        const float *restrict x = job->x + r * n;
        float *restrict y = job->y + r * n;
        const float by = job->scale[r] = 1.0f / sqrtf(dot(x, x, n) / n + job->eps);
        for (long i = 0; i < n; i++) y[i] = x[i] * by * weight[i];
    }
}

static void norm_row_backward(const Norm *job, long r, float *restrict part) {
    const long n = job->n;
    const float *restrict x = job->x + r * n, *restrict up = job->up + r * n, *restrict weight = job->weight;
    float *restrict down = job->down + r * n;
    const float by = job->scale[r];
    for (long i = 0; i < n; i++) down[i] = up[i] * weight[i];
    const float pull = dot(down, x, n) * by * by * by / n;
    for (long i = 0; i < n; i++) {
        down[i] = down[i] * by - x[i] * pull;
        part[i] += up[i] * x[i] * by;
    }
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

INLINE void turn_pairs(const float *restrict x, const float *restrict cos, const float *restrict sin, long pairs,
                       const long apart, const long step, float turn, float *restrict y) {
    for (long i = 0; i < pairs; i++) {
        const long a = i * step, b = a + apart;
        y[a] = x[a] * cos[a] + x[b] * (sin[a] * turn);
        y[b] = x[b] * cos[b] + x[a] * (sin[b] * turn);
    }
}

static void turn_rows(const Worker *me, void *given) {
    const Turn *job = given;
    const long dim = job->dim;
    long first, last;
    share(me, job->rows, 1, &first, &last);
    for (long r = first; r < last; r++) {
        const float *cos = job->cos + r * dim, *sin = job->sin + r * dim;
        for (long h = r * job->heads; h < (r + 1) * job->heads; h++) {
            if (job->neighbours)
                turn_pairs(job->x + h * dim, cos, sin, dim / 2, 1, 2, job->turn, job->y + h * dim);
            else
                turn_pairs(job->x + h * dim, cos, sin, dim / 2, dim / 2, 1, job->turn, job->y + h * dim);
        }
    }
}

typedef struct {
    const float *logits; /* [rows][n] */
    const long *targets; /* [rows], and so all but `grad` */
    const float *up;     /* gradient of `chosen` */
    long rows, n;
    float *chosen, *entropy, *log_sum;
    float *grad; /* [rows][n], of the logits */
} Select;

/* The sums over x [n] of e^(x - most) and of that times x - most. */
static void exp_sums(const float *x, long n, float most, double *sum, double *weighted) {
    *sum = *weighted = 0;
    for (long from = 0; from < n; from += LONG) {
        const long to = from + LONG < n ? from + LONG : n;
        vec s = {0}, w = {0};
        long i = from;
        for (; i + WIDTH <= to; i += WIDTH) {
            const vec below = load(x + i) - most, e = exp_vec(below);
            s += e;
            w += e * below;
        }
        *sum += total(s), *weighted += total(w);
        for (; i < to; i++) {
            const float below = x[i] - most, e = exp_one(below);
            *sum += e, *weighted += e * below;
        }
    }
}

static void select_forward(const Worker *me, void *given) {
    const Select *job = given;
    long first, last;
    share(me, job->rows, 1, &first, &last);
    for (long r = first; r < last; r++) {
        const float *x = job->logits + r * job->n, most = largest_of(x, job->n);
        double sum, weighted;
        exp_sums(x, job->n, most, &sum, &weighted);
        job->log_sum[r] = most + (float)log(sum);
        job->chosen[r] = x[job->targets[r]] - most - (float)log(sum);
        job->entropy[r] = (float)(log(sum) - weighted / sum);
    }
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
