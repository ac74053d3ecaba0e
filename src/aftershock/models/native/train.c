/* What the learner computes in C: forward and backward of the parts of a packed forward. */
#include <stdlib.h>

#include "attend.h"
#include "crew.h"
#include "exact.h"
#include "linear.h"
#include "pointwise.h"

enum { DONE, NO_MEMORY };

/* Write what each query sees and its log-sum-exp; or, where d_out is given, the gradients. */
int aftershock_attend(Attend *job, long threads) {
    const long units = job->count * job->kv_heads;
    together(attend_work, job, threads < units ? threads : units);
    return job->failed ? NO_MEMORY : DONE;
}

/* How many threads that many values are worth. */
static long worth(long values, long threads) {
    const long most = values / WORTH + 1;
    return threads < most ? threads : most;
}

/* The passes over rows, each with what it reads and writes in pointwise.h. */
#define PASS(name, Job, work, values) \
    void aftershock_##name(Job *job, long threads) { together(work, job, worth(values, threads)); }
#define CHECKED(name, Job, work, values)                       \
    int aftershock_##name(Job *job, long threads) {            \
        together(work, job, worth(values, threads));           \
        return job->failed ? NO_MEMORY : DONE;                 \
    }

PASS(norm_forward, Norm, norm_forward, job->rows * job->n)
PASS(norm_backward, Norm, norm_backward, job->rows * job->n)
PASS(gated_forward, Gated, gated_forward, job->rows * job->n)
PASS(gated_backward, Gated, gated_backward, job->rows * job->n)
PASS(turn, Turn, turn_rows, job->rows * job->heads * job->dim)
CHECKED(select_forward, Select, select_forward, job->rows * job->n)
PASS(select_backward, Select, select_backward, job->rows * job->n)

/* Products of layers, in linear.h. */
PASS(linear_forward, Layers, linear_forward, job->rows * job->outs)
PASS(mlp_forward, Mlp, mlp_forward, job->first.rows * job->first.outs)
int aftershock_linear_backward(Slopes *job, long threads) {
    job->part = part_rows(job->rows);
    Bench b = {.block = block_rows(job)};
    const long parts = (job->rows + job->part - 1) / job->part;
    job->desk = lay_bench(&b, job, NULL), job->weights = whole(job->outs * (job->ins + 1), 16);
    threads = least(threads < MOST ? threads : MOST, parts);
    /* Here, as the system clears what a new thread asks for. */
    job->desks = aligned_alloc(64, 4 * (threads * job->desk + parts * job->weights));
    if (!job->desks) return NO_MEMORY;
    job->sums = job->desks + threads * job->desk;
    together(linear_backward, job, threads);
    free(job->desks);
    return DONE;
}

/* What an exact model computes instead, in exact.h. */
PASS(products, Products, products, job->total * job->w->outs)
CHECKED(choose, Choice, choose_rows, job->rows * job->mixture.experts)
PASS(combine, Combine, combine_rows, job->count * job->n)
CHECKED(read, Reading, read_rows, job->rows * job->time * job->heads * job->length)

/* `aftershock_attend`'s forward. */
int aftershock_see(Attend *job, long threads) {
    const long units = job->count * job->kv_heads;
    together(see_work, job, threads < units ? threads : units);
    return job->failed ? NO_MEMORY : DONE;
}

/* How many parts of [n] zeros `norm_backward` wants. */
long aftershock_parts(long rows) { return (rows + PART - 1) / PART; }
