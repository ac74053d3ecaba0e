/* Rows of one prompt are one branch for as long as they have drawn the same tokens: its first row is fed for all, each
 * draws from its logits with a number of its own, and who draws another token goes on from a copy of its keys and
 * values. A row's bits don't depend on what is computed beside it, so they are the same ones. */
#ifndef AFTERSHOCK_BRANCH_H
#define AFTERSHOCK_BRANCH_H

#include "draw.h"
#include "move.h"

/* Of rows `from` to `to`; both arrays are indexed by row. */
typedef struct {
    const Draws *draws;
    const Moves *moves;
    long from, to;
    long *next;  /* the branch's next row, ascending; -1: there is none */
    long *holds; /* positions that a row's own place in the cache holds; -1, as it is fed itself: all of them */
} Branches;

static inline int alike(const Draws *d, long q, long r) {
    return d->groups[q] == d->groups[r] && d->steps[q] == d->steps[r] &&
           !memcmp(d->tokens + q * d->most, d->tokens + r * d->most, sizeof *d->tokens * d->steps[r]);
}

/* Find the branches, at a time when each place holds all of its row's positions. */
static inline void find_branches(Branches *b) {
    for (long r = b->from; r < b->to; r++) {
        long q = r - 1;
        while (q >= b->from && !alike(b->draws, q, r)) q--;
        b->next[r] = b->holds[r] = -1;
        if (q < b->from) continue;
        b->next[q] = r;
        b->holds[r] = b->draws->lengths[r];
    }
}

/* Give row r what it lacks of row `first`'s positions. */
static inline void own_place(Branches *b, long first, long r) {
    copy_part(b->moves, first, r, b->holds[r], b->draws->lengths[r]);
    b->holds[r] = -1;
}

/* Once they have drawn: rows of one branch that drew another token than its first go on as branches of their own. */
static inline void part_ways(Branches *b, long first) {
    const long *last = b->draws->last;
    for (long now = first, others; now >= 0; now = others) {
        long *same_end = b->next + now, *others_end = &others;
        for (long r = b->next[now]; r >= 0; r = b->next[r]) {
            long **end = last[r] == last[now] ? &same_end : &others_end;
            **end = r;
            *end = b->next + r;
        }
        *same_end = *others_end = -1;
        if (now != first) own_place(b, first, now);
    }
}

/* Let each row's own place hold all of its positions; from the end, as a branch's first row comes before the others. */
static inline void leave_branches(Branches *b) {
    for (long first = b->to - 1; first >= b->from; first--)
        if (b->holds[first] < 0)
            for (long r = b->next[first]; r >= 0; r = b->next[r]) own_place(b, first, r);
}

#endif
