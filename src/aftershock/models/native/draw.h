/* A plain draw from logits: one uniform number a row turned into a token, as generate/sampler.py's inverse CDF, and
 * what is drawn written down, as generate/rows.py does. */
#ifndef AFTERSHOCK_DRAW_H
#define AFTERSHOCK_DRAW_H

#include <stdint.h>
#include <stdlib.h>

#include "crew.h"
#include "gemm.h"

#define SPAN 64 /* tokens whose mass is summed at once */

/* `masses`; `plain` is a constant where it is inlined, and says that heat is 1. */
INLINE double all_masses(const float *x, long n, float most, float heat, const int plain, float *to, double *sums) {
    double all = 0;
    for (long first = 0; first < n; first += SPAN) {
        const long last = first + SPAN < n ? first + SPAN : n;
        vec sum = {0};
        long i = first;
        for (; i + WIDTH <= last; i += WIDTH) {
            const vec below = load(x + i) - most, e = exp_vec(plain ? below : below / heat);
            store(to + i, e);
            sum += e;
        }
        double span = total(sum);
        for (; i < last; i++) span += to[i] = exp_one(plain ? x[i] - most : (x[i] - most) / heat);
        sums[first / SPAN] = span;
        all += span;
    }
    return all;
}

/* to[i] = e^((x[i] - most) / heat), and sums[i / SPAN] their sums; returns the sum of all, in double, so that a large
 * vocabulary loses no tail. */
PINNED double masses(const float *x, long n, float most, float heat, float *to, double *sums) {
    return heat == 1.0f ? all_masses(x, n, most, heat, 1, to, sums) : all_masses(x, n, most, heat, 0, to, sums);
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

/* Logits made ready to be drawn from. */
typedef struct {
    double *sums;               /* what is worked in, and before `mass` and `moved` */
    float *mass, *moved;
    const float *x, *shaped;    /* the logits, and what is drawn from before heat */
    long n;
    float most, top, heat, log_plain, log_all;
    double all;
} Odds;

/* For logits of `vocab` tokens; `sums` is NULL where there is no memory, and else to be freed. */
static inline Odds new_odds(long vocab) {
    Odds o = {.sums = malloc(8 * (vocab / SPAN + 1) + 8 * vocab), .n = vocab};
    o.mass = (float *)(o.sums + vocab / SPAN + 1), o.moved = o.mass + vocab;
    return o;
}

/* Make logits x ready, drawn from as (x + bias) / heat; `bias` may be NULL. */
static inline void weigh(Odds *o, const float *x, const float *bias, float heat) {
    o->x = x, o->shaped = bias ? o->moved : x, o->heat = heat;
    o->most = o->top = largest_of(x, o->n);
    const double plain = o->all = masses(x, o->n, o->most, 1.0f, o->mass, o->sums);
    for (long i = 0; bias && i < o->n; i++) o->moved[i] = x[i] + bias[i];
    if (bias) o->top = largest_of(o->shaped, o->n);
    if (bias || heat != 1.0f) o->all = masses(o->shaped, o->n, o->top, heat, o->mass, o->sums);
    o->log_plain = (float)log(plain), o->log_all = (float)log(o->all);
}

/* The token of u in [0, 1), and its log-probability under the logits and under what is drawn from. */
static inline void draw_one(const Odds *o, double u, long *token, float *own, float *sampled) {
    *token = chosen(o->mass, o->sums, o->n, o->all, u);
    *own = o->x[*token] - o->most - o->log_plain;
    *sampled = (o->shaped[*token] - o->top) / o->heat - o->log_all;
}

/* address.py's number in [0, 1) of a key and a position. */
static inline double uniform(uint64_t key, uint64_t position) {
    uint64_t z = key + (position + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return ((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* How rows are drawn from, and their state: rows.py's. */
typedef struct {
    const float *bias;          /* [vocab], or NULL */
    const unsigned char *closers; /* [vocab]: the tokens after which a row may have ended */
    float heat;
    long most;                  /* tokens a row takes */
    const long *groups;         /* [rows]: rows of one number have the same prompt; and so the next four */
    const uint64_t *keys;
    long *last, *lengths, *steps;
    int *tokens;                /* [rows][most], and so the others */
    float *own, *sampled;
    unsigned char *ended;       /* [rows]: whether it may have */
    volatile long failed;       /* whether there was no memory */
    volatile long fed;          /* rows that passed the model so far */
} Draws;

/* Draw row r's next token and write it down. */
static inline void record(Draws *d, long r, const Odds *odds) {
    const long step = d->steps[r], at = r * d->most + step;
    long token;
    draw_one(odds, uniform(d->keys[r], step), &token, d->own + at, d->sampled + at);
    d->tokens[at] = d->last[r] = token;
    d->lengths[r]++;
    d->steps[r]++;
    d->ended[r] = d->closers[token] || d->steps[r] == d->most;
}

#endif
