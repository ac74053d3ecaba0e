/* Causal attention over packed segments, forward and backward: the learner's. */
#ifndef AFTERSHOCK_ATTEND_H
#define AFTERSHOCK_ATTEND_H

#include "crew.h"
#include "gemm.h"

typedef struct {
    long heads, kv_heads, dim, vdim;
    float scale;
    const float *q, *k, *v;   /* [total][heads][dim], [total][kv heads][dim], [total][kv heads][vdim] */
    float *out, *sums;        /* [total][heads][vdim]; [total][heads]: the log of the sum of e^score */
    const float *d_out;       /* as out, and so the gradients: NULL in a forward */
    float *d_q, *d_k, *d_v;
    const long *spans;        /* [segments][2]: first token and length; a parent before its children */
    const long *families;     /* [count + 1]: where each family begins among the spans */
    long count, longest[2];   /* of parents and of all segments */
    volatile long next, failed;
} Attend;

static void attend_forward(const Worker *me, void *given) { (void)me, ((Attend *)given)->failed = 1; }

static void attend_backward(const Worker *me, void *given) { (void)me, ((Attend *)given)->failed = 1; }

#endif
